"""The gate opens no way to the router itself, nor to other networks behind it (users.md S31)."""

import subprocess
import sys

from lab import ROUTER_LAN, LabTest, config, wait_for

GUEST = "192.168.88.1"
OPENED = "192.168.89.1"
SERVER = """
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({'at': self.connection.getsockname()[0]}).encode())
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(('0.0.0.0', 8888), Handler).serve_forever()
"""


class Reach(LabTest):
    CONFIG_TEXT = config(swap={"allow-lan: true": "allow-lan: true\nlan-reachable-ips: [192.168.89.0/24]"})

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for device, address in (("guest", GUEST), ("opened", OPENED)):
            cls.lab.ip("gw", "link", "add", device, "type", "bridge")
            cls.lab.ip("gw", "addr", "add", f"{address}/24", "dev", device)
            cls.lab.ip("gw", "link", "set", device, "up")
        cls.lab.spawn("gw", sys.executable, "-c", SERVER, stderr=subprocess.DEVNULL)
        wait_for("the router's own server", lambda: ":8888" in cls.lab.ns("gw", "ss", "-lnt"))
        # The daemon's list of addresses may be of before.
        cls.daemon.stop()
        cls.daemon.start()

    def through(self, proxy, where):
        return self.lab.curl("lan1", f"http://{where}:8888/", "-x", f"{proxy}://{ROUTER_LAN}:7890")

    def test_the_router_and_other_networks_are_out_of_reach_through_proxies(self):
        for proxy in ("http", "socks5"):
            for where in ("127.0.0.1", "127.8.8.8", GUEST, "5.5.5.2", "inside.test"):
                with self.subTest(proxy=proxy, where=where):
                    self.assertIsNone(self.through(proxy, where))
        self.assertTrue(self.daemon.said("this device may not reach that address"))

    def test_the_own_network_and_what_is_listed_are_reached(self):
        for where in (ROUTER_LAN, OPENED):
            with self.subTest(where=where):
                self.assertEqual(self.through("socks5", where), {"at": where})

    def test_a_name_that_stands_for_the_router_leads_nowhere(self):
        (fake,) = self.lab.dig("lan1", ROUTER_LAN, "inside.test")
        self.assertTrue(fake.startswith("198.18."))
        self.assertIsNone(self.lab.curl("lan1", f"http://{fake}:8888/"))

    def test_datagrams_to_the_router_lead_nowhere(self):
        (fake,) = self.lab.dig("lan1", ROUTER_LAN, "inside.test")
        code = f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
s.sendto(b'in?', ('{fake}', 8889))
try:
    print(s.recvfrom(100)[0])
except OSError:
    print('nothing')
"""
        echo = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('127.0.0.1', 8889))\nwhile True:\n    b, a = s.recvfrom(100)\n    s.sendto(b, a)\n"
        self.lab.spawn("gw", sys.executable, "-c", echo)
        wait_for("the echo", lambda: "127.0.0.1:8889" in self.lab.ns("gw", "ss", "-lnu"))
        # The echo answers whoever may ask it.
        own = code.replace(fake, "127.0.0.1")
        self.assertIn("in?", self.lab.ns("gw", sys.executable, "-c", own))
        self.assertIn("nothing", self.lab.python("lan1", code))

    def test_the_router_reaches_itself_through_its_proxy(self):
        answer = self.lab.curl("gw", "http://127.0.0.1:8888/", "-x", f"socks5://{ROUTER_LAN}:7890")
        self.assertEqual(answer, {"at": "127.0.0.1"})
