"""Proxy providers over a live router: fetched, filtered, renamed, refreshed, kept when the server lies."""

import json
import sys

from lab import DIRECT, PROXIED, SHADOWSOCKS, SOCKS5, Daemon, LabTest, config, wait_for

NODES = f"""
port: 1
external-controller: 0.0.0.0:1
proxies:
  - {{name: HK 1, type: ss, server: {SHADOWSOCKS}, port: 8388, cipher: chacha20-ietf-poly1305, password: secret, interface-name: nowhere}}
  - {{name: SG 1, type: socks5, server: {SOCKS5}, port: 1080}}
  - {{name: SG expired, type: socks5, server: 192.0.2.1, port: 1}}
  - {{name: strange, type: teleport, server: 192.0.2.1, port: 1}}
"""

PROVIDERS = f"""
proxy-providers:
  net:
    type: http
    url: http://{DIRECT}:8180/sub?token=seeded-token
    interval: 3600
    header: {{X-Subscriber: [somebody]}}
    exclude-filter: expired
    override: {{additional-prefix: "net "}}
    health-check: {{enable: true, url: 'http://{DIRECT}/', interval: 600, lazy: false}}
  own:
    type: inline
    payload:
      - {{name: kept, type: socks5, server: {SOCKS5}, port: 1080}}
  disk: {{type: file, path: disk.yaml}}
proxy-groups:
  - {{name: Choose, type: select, use: [net], filter: "SG`HK"}}
  - {{name: All, type: select, proxies: [DIRECT], include-all: true}}
  - {{name: Auto, type: url-test, use: [net], interval: 600, expected-status: 200}}
"""

SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status, body = open(sys.argv[2] + '/answer').read().split('\\n', 1)
        open(sys.argv[2] + '/asked', 'a').write(f"{self.path} {self.headers.get('X-Subscriber')} {self.headers.get('User-Agent')}\\n")
        self.send_response(int(status))
        self.send_header('subscription-userinfo', 'upload=1; download=2; total=1000; expire=1800000000')
        self.send_header('Content-Length', str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer((sys.argv[1], 8180), Handler).serve_forever()
"""


class Providers(LabTest):
    @classmethod
    def setUpClass(cls):
        text = config(swap={
            "proxy-groups:\n": PROVIDERS,
            "- DOMAIN-SUFFIX,proxied.test,Pick": "- DOMAIN-SUFFIX,proxied.test,Choose",
            f"- IP-CIDR,{PROXIED}/32,Pick,no-resolve": f"- IP-CIDR,{PROXIED}/32,Choose,no-resolve",
        })
        super().setUpClass()
        cls.answer(200, NODES)
        cls.lab.spawn("wan", sys.executable, "-c", SERVER, DIRECT, str(cls.lab.directory))
        wait_for("the server", lambda: ":8180" in cls.lab.ns("wan", "ss", "-lnt"))
        cls.daemon = Daemon(cls.lab, text)
        (cls.daemon.directory / "disk.yaml").write_text(f"proxies: [{{name: from disk, type: http, server: {SOCKS5}, port: 1}}]\n")
        cls.daemon.start()

    @classmethod
    def answer(cls, status, body):
        (cls.lab.directory / "answer").write_text(f"{status}\n{body}")

    def provider(self, name="net"):
        status, provider = self.daemon.api("GET", f"/providers/proxies/{name}")
        self.assertEqual(status, 200)
        return provider

    def names(self, name="net"):
        return [node["name"] for node in self.provider(name)["proxies"]]

    def group(self, name):
        return self.daemon.api("GET", f"/proxies/{name}")[1]

    def seen(self):
        answer = self.lab.curl("lan1", f"http://{PROXIED}/")
        return answer and answer["client"]

    def setUp(self):
        self.answer(200, NODES)
        wait_for("the nodes", lambda: self.names() == ["net HK 1", "net SG 1"])

    def test_1_nodes_arrive_and_carry_traffic(self):
        self.assertEqual(self.names("own"), ["kept"])
        self.assertEqual(self.names("disk"), ["from disk"])
        self.assertEqual(self.group("Choose")["all"], ["net SG 1", "net HK 1"])
        self.assertEqual(self.group("All")["all"], ["DIRECT", "mirror", "socks", "ss", "net HK 1", "net SG 1", "kept", "from disk"])
        self.assertEqual(self.seen(), SOCKS5)
        self.assertEqual(self.daemon.api("PUT", "/proxies/Choose", {"name": "net HK 1"})[0], 204)
        self.assertEqual(self.seen(), SHADOWSOCKS)
        self.assertEqual(self.group("net%20HK%201")["interface"], "")
        wait_for("the health check", lambda: all(node["history"] for node in self.provider()["proxies"]))
        self.assertIn(self.group("Auto")["now"], ("net HK 1", "net SG 1"))

    def test_2_the_subscription_is_shown_and_its_secrets_are_not(self):
        provider = self.provider()
        self.assertEqual((provider["vehicleType"], provider["type"], provider["testUrl"]), ("HTTP", "Proxy", f"http://{DIRECT}/"))
        self.assertEqual(provider["subscriptionInfo"], {"Upload": 1, "Download": 2, "Total": 1000, "Expire": 1800000000})
        self.assertNotEqual(provider["updatedAt"], "0001-01-01T00:00:00Z")
        self.assertEqual({node["provider-name"] for node in provider["proxies"]}, {"net"})
        asked = (self.lab.directory / "asked").read_text().splitlines()[0]
        self.assertTrue(asked.startswith("/sub?token=seeded-token somebody clash.meta/"), asked)
        self.assertFalse(self.daemon.said("seeded-token"))
        self.assertTrue(self.daemon.said("1 nodes passed over, the first: proxies[3].type: "))
        for path in ("/providers/proxies", "/configs", "/proxies"):
            self.assertNotIn("seeded-token", json.dumps(self.daemon.api("GET", path)[1]))

    def test_3_a_refresh_swaps_nodes_and_keeps_flows_and_choices(self):
        self.daemon.api("PUT", "/proxies/Choose", {"name": "net HK 1"})
        flow = self.lab.spawn("lan1", "curl", "-s", "-m", "60", "-o", "/dev/null", f"http://{PROXIED}/slow")
        self.addCleanup(flow.kill)
        find = lambda: [c for c in self.daemon.connections() if c["metadata"]["destinationIP"] == PROXIED]
        wait_for("the flow", find)
        self.answer(200, NODES.replace("SG 1", "SG 2"))
        self.assertEqual(self.daemon.api("PUT", "/providers/proxies/net"), (204, None))
        self.assertEqual(self.names(), ["net HK 1", "net SG 2"])
        self.assertEqual(self.group("Choose")["all"], ["net SG 2", "net HK 1"])
        self.assertEqual(self.group("Choose")["now"], "net HK 1")
        before = find()[0]["download"]
        wait_for("more bytes", lambda: find()[0]["download"] > before)
        self.answer(200, NODES)
        self.assertEqual(self.daemon.api("PUT", "/providers/proxies/net")[0], 204)

    def test_4_a_bad_answer_changes_nothing_here_or_on_disk(self):
        copies = lambda: {p.name: p.read_bytes() for p in (self.daemon.directory / "proxies").iterdir()}
        before, nodes = copies(), self.names()
        for status, body in ((200, "<html>busy</html>"), (200, "proxies: []"), (500, "x"), (200, ""), (404, NODES)):
            self.answer(status, body)
            with self.subTest(f"{status} {body[:20]}"):
                self.assertEqual(self.daemon.api("PUT", "/providers/proxies/net")[0], 503)
                self.assertEqual(self.names(), nodes)
                self.assertEqual(copies(), before)
        self.assertEqual(self.daemon.api("PUT", "/providers/proxies/own")[0], 204)
        self.assertEqual(self.daemon.api("PUT", "/providers/proxies/nobody")[0], 404)

    def test_5_checks_on_demand(self):
        self.assertEqual(self.daemon.api("GET", "/providers/proxies/net/healthcheck")[0], 204)
        status, answer = self.daemon.api("GET", f"/providers/proxies/net/net%20HK%201/healthcheck?url=http://{DIRECT}/&timeout=3000")
        self.assertEqual((status, list(answer)), (200, ["delay"]))
        self.assertEqual(self.daemon.api("GET", "/providers/proxies/net/kept")[0], 404)
        self.assertEqual(self.daemon.api("GET", "/providers/proxies/own/kept")[0], 200)

    def test_6_a_changed_file_is_read_again(self):
        (self.daemon.directory / "disk.yaml").write_text(f"proxies: [{{name: another, type: http, server: {SOCKS5}, port: 1}}]\n")
        wait_for("the new node", lambda: self.names("disk") == ["another"], 20)
        self.assertIn("another", self.group("All")["all"])

    def test_7_the_last_copy_serves_after_a_restart_without_the_server(self):
        self.answer(503, "")
        self.daemon.stop()
        self.daemon.start()
        self.assertEqual(self.names(), ["net HK 1", "net SG 1"])
        self.assertEqual(self.provider()["subscriptionInfo"]["Total"], 1000)
        self.assertEqual(self.group("Choose")["now"], "net HK 1")
