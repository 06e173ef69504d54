"""DIRECT traffic stays in the kernel when it is certain to be DIRECT."""

import subprocess

from lab import DIRECT, PROXIED, ROUTER_LAN, ROUTER_WAN, SHADOWSOCKS, LabTest, config, wait_for

# No rule by device, and none by address, before the names': any of them would make a name uncertain.
RULES = f"""
  - DOMAIN-SUFFIX,proxied.test,Pick
  - DOMAIN-SUFFIX,direct.test,DIRECT
  - IP-CIDR,{PROXIED}/32,Pick,no-resolve
  - MATCH,DIRECT
"""


class Offload(LabTest):
    CONFIG_TEXT = config("  offload: true", RULES)

    def test_a_direct_name_gets_its_real_address_and_never_meets_the_daemon(self):
        self.assertEqual(self.lab.dig("lan1", ROUTER_LAN, "direct.test"), [DIRECT])
        self.assertEqual(self.lab.curl("lan1", f"http://{DIRECT}/")["client"], ROUTER_WAN)
        self.assertFalse(self.daemon.said(f"--> {DIRECT}:80"))

    def test_a_proxied_name_gets_a_fake_address(self):
        fake = self.lab.dig("lan1", ROUTER_LAN, "proxied.test")[0]
        self.assertTrue(fake.startswith("198.18."))
        self.assertEqual(self.lab.curl("lan1", "http://proxied.test/", "--resolve", f"proxied.test:80:{fake}")["client"], SHADOWSOCKS)

    def test_switching_the_mode_ends_offloading_for_new_connections(self):
        self.lab.dig("lan1", ROUTER_LAN, "direct.test")
        self.daemon.api("PUT", "/proxies/GLOBAL", {"name": "ss"})
        self.daemon.api("PATCH", "/configs", {"mode": "global"})
        try:
            wait_for("the proxy", lambda: (self.lab.curl("lan1", f"http://{DIRECT}/") or {}).get("client") == SHADOWSOCKS)
        finally:
            self.daemon.api("PATCH", "/configs", {"mode": "rule"})

    def test_a_name_judged_before_a_change_is_not_told_after_it(self):
        queries = self.lab.directory / "direct.queries"
        queries.write_text("direct.test A\n")
        storm = self.lab.spawn("lan1", "dnsperf", "-s", ROUTER_LAN, "-d", str(queries), "-l", "600", "-Q", "5000", stdout=subprocess.DEVNULL)
        exempt = lambda: DIRECT in self.lab.ns("gw", "nft", "list", "set", "inet", "headgate", "learned4")
        try:
            for _ in range(15):
                self.assertEqual(self.daemon.api("PATCH", "/configs", {"mode": "rule"})[0], 204)
                wait_for("the address to be exempt", exempt)
                self.daemon.api("PUT", "/proxies/GLOBAL", {"name": "ss"})
                self.assertEqual(self.daemon.api("PATCH", "/configs", {"mode": "global"})[0], 204)
                self.assertFalse(exempt())
        finally:
            storm.kill()
            storm.wait()
            self.daemon.api("PATCH", "/configs", {"mode": "rule"})
