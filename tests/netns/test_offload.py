"""DIRECT traffic stays in the kernel when it is certain to be DIRECT."""

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
