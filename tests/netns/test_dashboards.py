"""The dashboards that people use, unmodified, in a browser of the LAN: every page live, a choice, a latency test, a closed
connection, logs; and the same behind nginx on a sub-path with https.

Their built pages are looked for in HEADGATE_DASHBOARDS (a directory each: yacd, metacubexd, zashboard), else in
target/dashboards. Without them, or without Chromium, this says so and skips. HEADGATE_SHOTS names a directory for screenshots.
"""

import json
import os
import pathlib
import shutil
import unittest

from browser import Browser
from lab import DIRECT, PROXIED, ROOT, ROUTER_LAN, SECRET, LabTest, config, wait_for

DASHBOARDS = pathlib.Path(os.environ.get("HEADGATE_DASHBOARDS", ROOT / "target/dashboards"))
SHOTS = os.environ.get("HEADGATE_SHOTS")

GROUPS = f"""
  - {{name: Fast, type: url-test, proxies: [ss, DIRECT], url: 'http://{DIRECT}/', interval: 3600}}
  - {{name: Spread, type: load-balance, proxies: [ss, socks], url: 'http://{DIRECT}/', interval: 3600}}
"""

# Complaints that mihomo causes too: what dashboards ask of the Internet, of a default backend that is not there, and of
# programs of their own; and the documented statuses of delay tests that fail.
EXPECTED = ("/delay?", "https://", "127.0.0.1:9090", "/api/control/info", "/ui/metacubexd/configs", "Failed to fetch")

LEAF = "[...document.querySelectorAll('body *')].filter(e => e.children.length === 0 && e.textContent.trim() === {} && e.getBoundingClientRect().width)"


def leaf(text, index=0):
    """The element that shows exactly this text."""
    return f"{LEAF.format(json.dumps(text))}[{index}]"


class Dashboards(LabTest):
    @classmethod
    def setUpClass(cls):
        if not shutil.which("chromium"):
            raise unittest.SkipTest("no chromium")
        if not DASHBOARDS.is_dir():
            raise unittest.SkipTest(f"no dashboards in {DASHBOARDS}")
        cls.CONFIG_TEXT = config(swap={
            "rules:\n\n": f"{GROUPS.lstrip(chr(10))}rules:\n\n",
            f"secret: {SECRET}": f"secret: {SECRET}\nexternal-ui: ui\nexternal-ui-name: yacd",
        })
        super().setUpClass()
        (cls.daemon.directory / "ui").symlink_to(DASHBOARDS.resolve())
        cls.nginx()

    @classmethod
    def nginx(cls):
        """https on a sub-path in front of the controller."""
        if not shutil.which("nginx"):
            return
        place = cls.lab.directory
        (place / "nginx.conf").write_text(f"""
daemon off; pid {place}/nginx.pid; error_log {place}/nginx.log; user root;
events {{}}
http {{ access_log off; server {{
    listen {ROUTER_LAN}:8443 ssl; ssl_certificate {place}/leaf.pem; ssl_certificate_key {place}/key.pem;
    location /gate/ {{
        proxy_pass http://{ROUTER_LAN}:9090/; proxy_http_version 1.1; proxy_buffering off;
        proxy_set_header X-Forwarded-Host $http_host; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
    }}
}} }}
""")
        cls.lab.spawn("gw", "nginx", "-c", str(place / "nginx.conf"))
        wait_for("nginx", lambda: ":8443" in cls.lab.ns("gw", "ss", "-lnt"))

    def setUp(self):
        self.daemon.api("PUT", "/proxies/Pick", {"name": "ss"})
        self.start_flow()
        self.browser = Browser(self.lab, "lan1")
        self.addCleanup(self.browser.close)

    def start_flow(self):
        flow = self.lab.spawn("lan1", "curl", "-s", "-m", "200", "-o", "/dev/null", f"http://{PROXIED}/slow")
        self.addCleanup(flow.kill)
        wait_for("the flow", self.flows)

    def flows(self):
        return [c for c in self.daemon.connections() if c["metadata"]["destinationIP"] == PROXIED]

    def shoot(self, name):
        if SHOTS:
            self.browser.screenshot(pathlib.Path(SHOTS) / f"{self.dashboard}-{name}.png")

    def open(self, dashboard, path):
        if not (DASHBOARDS / dashboard).is_dir():
            self.skipTest(f"no {dashboard}")
        self.dashboard = dashboard
        self.browser.go(path)

    def page(self, name, *texts):
        self.browser.evaluate(f"location.hash = '#/{name}'")
        self.browser.wait_text(*texts)
        self.shoot(name)

    def now(self, group="Pick"):
        return self.daemon.api("GET", f"/proxies/{group}")[1]["now"]

    def history(self, name="ss"):
        return len(self.daemon.api("GET", f"/proxies/{name}")[1]["history"])

    def check_complaints(self):
        wrong = [c for c in self.browser.complaints if not any(known in c for known in EXPECTED)]
        self.assertEqual(wrong, [])

    def check_flow_closed(self):
        wait_for("the end of the flow", lambda: not self.flows())

    def query(self):
        return f"hostname={ROUTER_LAN}&port=9090&secret={SECRET}&http=1"

    def test_yacd(self):
        # The way by /ui, which leads to external-ui-name.
        self.open("yacd", f"http://{ROUTER_LAN}:9090/ui")
        self.browser.wait("the page", "location.pathname === '/ui/yacd/'")
        self.browser.go(f"http://{ROUTER_LAN}:9090/ui/yacd/?{self.query()}#/")
        self.browser.wait_text("Active Connections", "KB/s")
        self.page("proxies", "Pick", "Spread", "Selector")
        self.browser.click(f"{leaf('Pick')}.closest('div[class*=header], header') || {leaf('Pick')}.parentElement")
        self.browser.idle(1)
        self.browser.click(leaf("socks"))
        wait_for("the choice", lambda: self.now() == "socks")
        before = self.history()
        self.browser.click("document.querySelector('.rtf button, [class*=fab] button, [title=\"Test Latency\"]')")
        wait_for("the latency test", lambda: self.history() > before)
        self.page("rules", "proxied.test", "SrcMAC")
        self.page("connections", f"{PROXIED}:80")
        # Shown while the pointer is over its neighbour.
        self.browser.evaluate("[...document.querySelectorAll('li, button, div')].filter(e => e.textContent === 'Close All Connections').at(-1).closest('li')"
                              ".querySelector('button').click()")
        self.browser.click(leaf("I'm sure"))
        self.check_flow_closed()
        self.page("configs", "Allow LAN", "Log Level")
        self.page("logs", "Logs")
        self.lab.curl("lan1", f"http://{DIRECT}/?seen-in-logs")
        self.browser.wait_text(DIRECT)
        self.check_complaints()

    def test_metacubexd(self):
        self.open("metacubexd", f"http://{ROUTER_LAN}:9090/ui/metacubexd/#/setup?{self.query()}")
        self.browser.wait_text("Active Connections")
        self.page("overview", "Upload Total", "kB/s", "MB")
        self.page("proxies", "Pick", "Spread", "Selector")
        self.browser.click(leaf("Pick"))
        self.browser.idle(1)
        self.browser.click(leaf("socks"))
        wait_for("the choice", lambda: self.now() == "socks")
        self.page("rules", "proxied.test", "SrcMAC")
        self.page("connections", PROXIED)
        self.browser.click("document.querySelector('tbody tr button')")
        self.check_flow_closed()
        self.page("logs", "Payload")
        self.lab.curl("lan1", f"http://{DIRECT}/")
        self.browser.wait_text(DIRECT)
        self.page("config", "Allow Lan", "Running Mode", "headgate")
        self.check_complaints()

    def test_zashboard(self):
        self.open("zashboard", f"http://{ROUTER_LAN}:9090/ui/zashboard/#/setup?{self.query()}")
        self.browser.wait_text("Pick", "Selector")
        self.page("proxies", "Pick", "Spread")
        before = self.history()
        self.browser.click(leaf("Pick"))
        self.browser.idle(1)
        self.browser.click(leaf("socks"))
        wait_for("the choice", lambda: self.now() == "socks")
        # It closes by itself what went over the node of before.
        self.check_flow_closed()
        self.start_flow()
        self.browser.click("document.querySelector('.latency-tag')")
        wait_for("the latency test", lambda: self.history() > before)
        self.page("overview", "Memory", "headgate")
        self.page("rules", "proxied.test", "SrcMAC")
        self.page("connections", PROXIED)
        self.browser.click("document.querySelector('tbody tr button')")
        self.check_flow_closed()
        self.page("logs", "info")
        self.lab.curl("lan1", f"http://{DIRECT}/")
        self.browser.wait_text(DIRECT)
        self.page("settings", "General")
        self.check_complaints()

    def test_behind_nginx_on_a_sub_path_with_https(self):
        if not shutil.which("nginx"):
            self.skipTest("no nginx")
        self.browser.call("Security.setIgnoreCertificateErrors", ignore=True)
        at = f"https://{ROUTER_LAN}:8443/gate/ui"
        self.open("zashboard", f"{at}/zashboard/#/setup?hostname={ROUTER_LAN}&port=8443&secret={SECRET}&https=1&secondaryPath=/gate")
        self.browser.wait_text("Pick", "kB/s")
        self.page("connections", PROXIED)
        self.open("metacubexd", f"{at}/metacubexd/#/setup?hostname={ROUTER_LAN}:8443/gate&secret={SECRET}&https=1")
        self.browser.wait_text("Active Connections", "kB/s")
        self.page("connections", PROXIED)
        self.browser.go(at)
        self.browser.wait("the page", "location.pathname === '/gate/ui/yacd/'")
