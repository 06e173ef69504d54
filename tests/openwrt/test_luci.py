"""LuCI's pages in a real browser, over the plugin that rpcd runs and a running headgate.

Where LuCI itself cannot be had, `luci/runtime.js` stands in for it by its published interfaces and
`luci/plugin.js` for ucode. Access follows the shipped ACL file: a call that it does not grant fails
as rpcd would fail it.
"""

import http.server
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from router import ROOT, Router

sys.path.insert(0, str(ROOT / "tests/netns"))
from browser import Browser  # noqa: E402
from lab import wait_for  # noqa: E402

APP = ROOT / "openwrt/luci-app-headgate"
HERE = pathlib.Path(__file__).with_name("luci")
PLUGIN = APP / "root/usr/share/rpcd/ucode/luci.headgate"
PAGES = json.loads((APP / "root/usr/share/luci/menu.d/luci-app-headgate.json").read_text())
ACL = json.loads((APP / "root/usr/share/rpcd/acl.d/luci-app-headgate.json").read_text())
ESLINT = ROOT / "target/npm/node_modules/.bin/eslint"

def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


UCI = """
config headgate 'main'
	option enabled '1'
	option final 'Exit'

config transparent 'transparent'
	option enabled '0'

config dns 'dns'
	list nameserver '127.0.0.1:9'

config mqtt 'mqtt'
	option enabled '1'

config mqtt_listener
	option name 'tcp'
	option type 'tcp'
	option listen '127.0.0.1:%d'

config controller 'controller'
	option secret 'canary-secret'

config host
	option name 'nas.lan'
	list address '192.168.1.5'

config proxy
	option name 'Node <b>one</b>'
	option type 'ss'
	option server '127.0.0.1'
	option port '9'
	option cipher 'aes-128-gcm'
	option password 'canary-password'

config group
	option name 'Exit'
	list proxy 'DIRECT'
	list proxy 'Node <b>one</b>'

config device
	option name 'Camera'
	option mac '02:00:00:aa:bb:cc'
	option policy 'block'

config rule
	option type 'DOMAIN-SUFFIX'
	option value 'example.org'
	option target 'Exit'
""" % free_port()

LOG = [
    {"msg": "headgate[7]: node <img src=x onerror=alert(1)> timed out", "priority": 28, "time": 1_790_000_000_000},
    {"msg": "dnsmasq[1]: not ours", "priority": 30, "time": 1_790_000_000_000},
]

# Names as an attacker gives them to a node, a rule, a topic, a client or a host (users.md S16). One of them is shown as
# it stands wherever a text of the daemon's is; `owned` is never called.
HOSTILE = (
    "<img src=x onerror=owned()>", "<script>owned()</script>", "<svg onload=owned()>", "\"><img src=x onerror=owned()>", "'><b onmouseover=owned()>x</b>",
    "<iframe srcdoc='<script>parent.owned()</script>'></iframe>", "&lt;img src=x onerror=owned()&gt;", "&#60;img src=x onerror=owned()&#62;",
    "<a href=javascript:owned()>x</a>", "</td></table><img src=x onerror=owned()>", "</textarea></select><img src=x onerror=owned()>",
    "<style>@import'x'</style><link rel=stylesheet href=x>", "<!--", "<details open ontoggle=owned()>", "${owned()}", "%s%h%q", "\u202e<img\nsrc=x\nonerror=owned()>",
)

# What each page must show, from the daemon or from the configuration.
SHOWN = {
    "status": ["running", "By rules", "Exit", "DIRECT"],
    "proxies": ["Node <b>one</b>", "Selector", "Shadowsocks"],
    "rules": ["DomainSuffix", "example.org", "02:00:00:aa:bb:cc"],
    "dns": ["nas.lan", "192.168.1.5"],
    "devices": ["Camera", "kids-tablet"],
    "mqtt": ["Broker", "Nobody has subscribed."],
    "sql": ["Ask", "Tables and columns", "There are no rules.", "Republish"],
    "subscriptions": ["Node <b>one</b>"],
    "log": ["<img src=x onerror=alert(1)> timed out"],
    "settings": ["LAN traffic"],
}


def granted(role, object_, method):
    """Whether rpcd would let the role call it: root may what any group grants, the viewer what one group's read does."""
    if object_ == "uci":
        return role == "root"
    groups = ACL.values() if role == "root" else [{"read": ACL["luci-app-headgate"]["read"]}]
    return any(method in access.get("ubus", {}).get(object_, []) for group in groups for access in group.values() if isinstance(access, dict))


class Page:
    """The router's web server, ubus behind it."""

    def __init__(self, router):
        self.router = router
        self.plugin = subprocess.Popen(["node", HERE / "plugin.js", PLUGIN, router.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lock = threading.Lock()
        self.denied, self.asked = [], []
        self.hostile = None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self, data, kind="application/json"):
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self):
                path = self.path.partition("?")[0]
                if path == "/runtime.js":
                    return self.answer((HERE / "runtime.js").read_bytes(), "text/javascript")
                file = APP / "htdocs" / path.lstrip("/")
                if file.is_file():
                    return self.answer(file.read_bytes(), "text/css" if path.endswith(".css") else "text/javascript")
                if path == "/favicon.ico":
                    return self.answer(b"", "image/x-icon")
                name = path.strip("/")
                text = f"<!doctype html><meta charset=utf-8><meta name=viewport content=width=device-width><div id=notifications></div><div id=view></div><script src=/runtime.js></script><script>window.calls = 0; window.owned = () => calls++; show({json.dumps(name)})</script>"
                return self.answer(text.encode(), "text/html")

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                role = "viewer" if "viewer" in self.path else "root"
                status, data = outer.ubus(role, **body)
                self.answer(json.dumps([status, with_hostile(data, outer.hostile) if outer.hostile else data]).encode())

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"

    def call(self, method, **args):
        """A method of the plugin."""
        with self.lock:
            self.plugin.stdin.write(json.dumps({"method": method, "args": args}) + "\n")
            self.plugin.stdin.flush()
            return json.loads(self.plugin.stdout.readline())

    def ubus(self, role, object, method, params):  # noqa: A002
        if not granted(role, object, method):
            self.denied.append((role, object, method))
            return [6, None]
        self.asked.append((object, method, params))
        if object == "luci.headgate":
            return [0, self.call(method, **params)]
        if (object, method) == ("uci", "get"):
            return [0, sections(UCI)]
        if (object, method) == ("uci", "apply"):
            return [0, {}]
        if (object, method) == ("luci-rpc", "getHostHints"):
            return [0, {"02:00:00:AA:BB:DD": {"name": "kids-tablet", "ipaddrs": ["127.0.0.1"], "ip6addrs": []}}]
        return [0, {"log": LOG}]

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.plugin.kill()
        self.plugin.wait()
        for pipe in (self.plugin.stdin, self.plugin.stdout):
            pipe.close()


def sections(text):
    """A UCI text as LuCI's uci module has it."""
    found = []
    for line in text.splitlines():
        if match := re.match(r"config (\S+)(?: '(.*)')?", line):
            found.append({".type": match[1], ".name": match[2] or f"cfg{len(found)}"})
        elif match := re.match(r"\toption (\S+) '(.*)'", line):
            found[-1][match[1]] = match[2]
        elif match := re.match(r"\tlist (\S+) '(.*)'", line):
            found[-1].setdefault(match[1], []).append(match[2])
    return found


def with_hostile(data, names):
    """The same with the next of `names` behind each text that comes from somewhere."""
    if isinstance(data, dict):
        return {key: value if key.startswith(".") else with_hostile(value, names) for key, value in data.items()}
    if isinstance(data, list):
        return [with_hostile(value, names) for value in data]
    return f"{data} {next(names)}" if isinstance(data, str) else data


class Local:
    """The lab that Browser wants, without namespaces."""

    def __init__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="headgate-luci-"))
        self.processes = []

    def spawn(self, _where, *command, **options):
        self.processes.append(subprocess.Popen(command, **options))
        return self.processes[-1]


class Luci(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.router = cls.enterClassContext(Router())
        cls.router.uci(UCI)
        cls.router.init("start")
        cls.router.mount_proc()
        cls.daemon = subprocess.Popen(["chroot", cls.router.root, "/usr/bin/headgate", "run", "-d", "/etc/headgate", "-f", "/var/run/headgate/config.yaml"],
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        cls.addClassCleanup(cls.daemon.wait)
        cls.addClassCleanup(cls.daemon.kill)
        wait_for("the socket", lambda: cls.router.exists("var/run/headgate/api.sock"))
        cls.page = Page(cls.router)
        cls.addClassCleanup(cls.page.close)
        cls.local = Local()
        cls.addClassCleanup(shutil.rmtree, cls.local.directory, ignore_errors=True)
        cls.browser = Browser(cls.local, None)
        cls.addClassCleanup(cls.close_browser)

    @classmethod
    def close_browser(cls):
        cls.browser.close()
        for process in cls.local.processes:
            process.kill()
            process.wait()

    def show(self, page, role="root"):
        self.browser.complaints.clear()
        self.browser.go(f"{self.page.address}/{page}?{role}")
        self.browser.wait(f"{page}", "!!document.querySelector('.headgate')")

    def test_every_page_of_the_menu_shows_what_runs(self):
        names = [entry["action"]["path"].removeprefix("headgate/") for entry in PAGES.values() if entry["action"]["type"] == "view"]
        self.assertEqual(set(names), set(SHOWN))
        for name in names:
            with self.subTest(name):
                self.page.denied.clear()
                self.show(name)
                if name == "devices":
                    text = self.browser.evaluate("document.body.innerText")
                    self.assertIn("Camera", text)
                    self.assertIn("Blocked", text)
                else:
                    self.browser.wait_text(*SHOWN[name])
                self.assertEqual((self.browser.complaints, self.page.denied), ([], []))
                self.assertNotRegex(self.browser.evaluate("document.querySelector('.headgate').innerText"), r"\b(undefined|null|NaN)\b")
                # What came from the network or from names stayed text.
                self.assertFalse(self.browser.evaluate("!!document.querySelector('.headgate img, .headgate b')"))

    def test_no_name_becomes_markup(self):
        self.addCleanup(setattr, self.page, "hostile", None)
        for first in range(0, len(HOSTILE), 4):
            self.page.hostile = itertools.cycle(HOSTILE[first:] + HOSTILE[:first])
            for name in SHOWN:
                with self.subTest(name, first=HOSTILE[first]):
                    self.show(name)
                    self.browser.wait("a name", f"{json.dumps(list(HOSTILE))}.some((name) => document.querySelector('.headgate').textContent.includes(name))")
                    made = "document.querySelectorAll('.headgate :is(img, script, iframe, b, a, style, details[ontoggle], svg[onload], link[href=x])').length"
                    self.assertEqual((self.browser.evaluate(made), self.browser.evaluate("calls")), (0, 0))

    def test_a_page_fits_a_phone(self):
        self.browser.call("Emulation.setDeviceMetricsOverride", width=360, height=640, deviceScaleFactor=1, mobile=True)
        try:
            for name in ("proxies", "log"):
                self.show(name)
                self.browser.wait_text(SHOWN[name][0])
                self.assertLessEqual(self.browser.evaluate("document.querySelector('.headgate').scrollWidth"), 360)
        finally:
            self.browser.call("Emulation.clearDeviceMetricsOverride")

    def test_a_click_switches_the_group(self):
        self.show("proxies")
        self.browser.click("[...document.querySelectorAll('.node')].find(n => n.innerText.startsWith('Node'))")
        now = lambda: next(group["now"] for group in self.page.call("proxies")["groups"] if group["name"] == "Exit")
        wait_for("the choice", lambda: now() == "Node <b>one</b>")
        self.browser.wait("the mark", "document.querySelector('.node.chosen').innerText.startsWith('Node')")
        self.page.call("select", group="Exit", name="DIRECT")
        self.assertEqual(now(), "DIRECT")

    def test_every_page_with_a_form_applies_as_a_transaction(self):
        folder = APP / "htdocs/luci-static/resources/view/headgate"
        forms = [path.stem for path in folder.glob("*.js") if "form.Map" in path.read_text()]
        self.assertGreater(len(forms), 5)
        for name in forms:
            with self.subTest(name):
                self.show(name)
                self.page.asked.clear()
                self.browser.evaluate("void shown.handleSaveApply(null, '0')")
                wait_for("the change", lambda: any(asked[:2] == ("uci", "apply") for asked in self.page.asked))
                order = [asked for asked in self.page.asked if asked[1] in ("transaction", "apply")]
                self.assertEqual(order, [("luci.headgate", "transaction", {"action": "begin", "seconds": 90}), ("uci", "apply", {})])
                self.assertTrue(self.page.call("transaction_status")["open"])
                self.assertTrue(self.page.call("transaction", action="confirm")["ok"])

    def test_the_page_of_the_broker_tells_when_it_was_saved(self):
        log = self.router.root / "etc/headgate/mqtt.log"
        os.utime(log, (1_790_000_000, 1_790_000_000))
        self.assertEqual(self.page.call("mqtt")["saved"], {"time": 1_790_000_000, "bytes": log.stat().st_size})
        self.show("mqtt")
        self.browser.wait_text("Last saved", "2026")

    def test_who_may_only_look_changes_nothing_and_sees_no_secret(self):
        for name in ("status", "proxies", "rules", "mqtt", "log"):
            self.show(name, "viewer")
            self.browser.wait_text("headgate" if name == "status" else SHOWN[name][0] if name != "mqtt" else "MQTT")
            self.assertTrue(self.browser.evaluate("[...document.querySelectorAll('.headgate button.cbi-button-positive, .headgate button.node')].every(b => b.disabled)"))
            self.assertNotIn("canary", self.browser.evaluate("document.documentElement.outerHTML"))
        for method in self.page.call(""):
            written = method in sum((group["write"]["ubus"].get("luci.headgate", []) for group in ACL.values()), [])
            configuring = method in ACL["luci-app-headgate-config"]["read"]["ubus"]["luci.headgate"]
            self.assertEqual(granted("viewer", "luci.headgate", method), not (written or configuring), method)

    def test_each_method_is_granted_by_one_list(self):
        lists = [access["ubus"].get("luci.headgate", []) for group in ACL.values() for access in group.values() if isinstance(access, dict) and "ubus" in access]
        self.assertEqual(sorted(sum(lists, [])), sorted(self.page.call("")))

    def typed(self, selector, text):
        self.browser.evaluate(f"(node => {{ node.value = {json.dumps(text)}; node.dispatchEvent(new Event('change')); }})(document.querySelector({json.dumps(selector)}))")

    def test_a_question_shows_its_rows_and_a_mistake_its_place(self):
        self.show("sql")
        self.browser.wait_text("Ask")
        self.typed(".headgate textarea", "SELECT type, payload AS what FROM rules WHERE payload = 'example.org'")
        self.browser.click("document.querySelector('.ask')")
        self.browser.wait_text("DomainSuffix", "what")
        self.typed(".headgate textarea", "SELECT FROM rules")
        self.browser.click("document.querySelector('.ask')")
        self.browser.wait_text("line 1, column 8: expected a value")

    def test_a_rule_is_made_tried_switched_off_and_deleted(self):
        self.show("sql")
        self.browser.wait_text("New SQL rule")
        button = "[...document.querySelectorAll('.headgate button')].find(b => b.innerText === {})"
        self.typed(".creation textarea", "SELECT payload.temp AS t FROM \"room/+\" WHERE t > 30")
        self.typed(".creation details textarea", '{"topic": "room/1", "payload": "{\\"temp\\": 31}"}')
        self.browser.click(button.format("'Try'"))
        self.browser.wait("the sample's row", "document.querySelector('.creation').innerText.includes('31')")
        self.typed(".creation input", "Heat <i>alarm</i>")
        self.typed("[data-name=target_topic]", "alarm/${t}")
        self.browser.click(button.format("'Create'"))
        self.browser.wait_text("Heat <i>alarm</i>", "republish: 0 / 0")
        (rule,) = self.page.call("sql")["rules"]
        self.assertEqual((rule["enabled"], rule["sql"]), (True, 'SELECT payload.temp AS t FROM "room/+" WHERE t > 30'))
        self.browser.click(button.format("'Switch off'"))
        wait_for("the switch", lambda: not self.page.call("sql")["rules"][0]["enabled"])
        self.browser.wait_text("Switch on")
        # A mistake is told, and nothing is made.
        self.typed(".creation textarea", "SELECT")
        self.browser.click(button.format("'Create'"))
        self.browser.wait_text("line 1, column 7")
        self.assertEqual(len(self.page.call("sql")["rules"]), 1)
        self.browser.click(button.format("'Delete'"))
        wait_for("its end", lambda: self.page.call("sql")["rules"] == [])

    def test_a_resource_is_shown_without_its_password(self):
        made = self.router.run("/usr/bin/headgate", "api", "-d", "/etc/headgate", "-f", "/var/run/headgate/config.yaml", "POST", "/api/v4/resources", json.dumps(
            {"type": "bridge_mqtt", "description": "Far broker", "config": {"address": "127.0.0.1:9", "username": "u", "password": "canary-bridge"}}))
        self.addCleanup(self.router.run, "/usr/bin/headgate", "api", "-d", "/etc/headgate", "-f", "/var/run/headgate/config.yaml", "DELETE",
                        "/api/v4/resources/" + json.loads(made.stdout)["data"]["id"])
        self.show("sql")
        self.browser.wait_text("Far broker", "bridge_mqtt")
        self.assertNotIn("canary", json.dumps(self.page.call("sql")))

    def test_no_answer_holds_a_secret(self):
        for method in ("status", "proxies", "rules", "providers", "doctor", "mqtt", "sql"):
            self.assertNotIn("canary", json.dumps(self.page.call(method)))

    def test_words_of_a_caller_stay_words(self):
        self.router.forget("tmp/owned")
        for hostile in ("'; touch /tmp/owned; '", "$(touch /tmp/owned)", "`touch /tmp/owned`", "../../restart", "a\nb"):
            self.page.call("select", group=hostile, name=hostile)
            self.page.call("explain", host=hostile, port=hostile, network=hostile, source=hostile)
            self.page.call("close", id=hostile or "x")
            self.page.call("update", kind=hostile, name=hostile)
            self.assertFalse(self.page.call("query", sql=hostile)["ok"])
            self.assertFalse(self.page.call("sql_create", sql=hostile, description=hostile, action=hostile, params={hostile: hostile})["ok"])
            self.assertFalse(self.page.call("sql_enable", id=hostile, on=True)["ok"])
            self.page.call("sql_delete", id=hostile)
            self.assertEqual(self.page.call("service", action=hostile), {"ok": False})
            self.assertFalse(self.page.call("transaction", action=hostile)["ok"])
            self.assertFalse(self.page.call("flush", what=hostile)["ok"])
        self.assertFalse(self.router.exists("tmp/owned"))
        self.assertTrue(self.page.call("status")["running"])

    def test_a_stuck_daemon_holds_no_page_for_longer_than_two_seconds(self):
        # A page that is still open would ask too, and the plugin answers one after the other.
        self.browser.go("about:blank")
        self.page.call("")
        self.daemon.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            self.assertEqual(self.page.call("status"), {"running": False})
            self.assertLess(time.monotonic() - began, 5)
        finally:
            self.daemon.send_signal(signal.SIGCONT)


class Text(unittest.TestCase):
    def strings(self):
        found = set()
        for path in APP.glob("htdocs/**/*.js"):
            found |= {match.replace("\\'", "'") for match in re.findall(r"\b_\('((?:[^'\\]|\\.)*)'\)", path.read_text())}
        return found | {entry["title"] for entry in PAGES.values()} | {group["description"] for group in ACL.values()}

    def test_every_string_has_its_translation(self):
        sys.path.insert(0, str(ROOT / "openwrt/packaging"))
        import lmo

        catalogue = {entry["msgid"]: entry["msgstr"] for entry in lmo.messages((APP / "po/zh_Hans/headgate.po").read_text()) if entry["msgid"]}
        self.assertEqual(set(catalogue), self.strings())
        for text, translation in catalogue.items():
            self.assertTrue(translation, text)
            self.assertEqual(re.findall("%[sduc]", text), re.findall("%[sduc]", translation), text)
        template = {entry["msgid"] for entry in lmo.messages((APP / "po/templates/headgate.pot").read_text()) if entry["msgid"]}
        self.assertEqual(template, self.strings())

    @unittest.skipUnless(ESLINT.exists(), "tests/run installs eslint")
    def test_eslint_has_nothing_to_say(self):
        done = subprocess.run([ESLINT, "--config", HERE / "eslint.config.js", "."], cwd=APP / "htdocs/luci-static/resources", capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
