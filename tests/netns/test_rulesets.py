"""Rule providers and sub-rules in a live router: what a set says decides, and what it says next."""

import pathlib
import tempfile

from lab import DIRECT, PROXIED, REJECTED, ROUTER_LAN, ROUTER_WAN, SHADOWSOCKS, SOCKS5, SOCKSED, Daemon, LabTest, config, wait_for

PROVIDERS = """
rule-providers:
  names: {type: inline, behavior: domain, payload: ['+.proxied.test']}
  nets: {type: file, behavior: ipcidr, format: text, path: rules/nets.txt}
  lists: {type: file, behavior: classical, path: rules/lists.yaml}
  missing: {type: file, behavior: domain, path: rules/missing.yaml}
sub-rules:
  web:
    - RULE-SET,lists,socks
    - DOMAIN,rejected.test,REJECT
rules:
"""

RULES = """
  - RULE-SET,missing,REJECT
  - RULE-SET,names,Pick
  - SUB-RULE,(NETWORK,tcp),web
  - RULE-SET,nets,Pick,no-resolve
  - MATCH,DIRECT
"""


class RuleSets(LabTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.directory = pathlib.Path(tempfile.mkdtemp(dir=cls.lab.directory))
        (cls.directory / "rules").mkdir()
        cls.nets = cls.directory / "rules/nets.txt"
        cls.nets.write_text(f"# what a person wrote\n{PROXIED}/32\nnonsense\n")
        (cls.directory / "rules/lists.yaml").write_text(f"payload:\n  - DOMAIN,socksed.test\n  - 'IP-CIDR,{SOCKSED}/32'\n")
        text = config("  offload: true", RULES, swap={"rules:\n": PROVIDERS})
        cls.daemon = Daemon(cls.lab, text, cls.directory).start()

    def seen(self, host, address=None):
        where = f"http://{host}/"
        fake = address or self.lab.dig("lan1", ROUTER_LAN, host)[0]
        answer = self.lab.curl("lan1", where, "--resolve", f"{host}:80:{fake}") if not address else self.lab.curl("lan1", f"http://{address}/")
        return answer and answer["client"]

    def test_names_addresses_and_rules_of_sets_decide(self):
        self.assertEqual(self.seen("proxied.test"), SHADOWSOCKS)
        self.assertEqual(self.seen("socksed.test"), SOCKS5)
        self.assertEqual(self.seen("", SOCKSED), SOCKS5)
        self.assertEqual(self.seen("", PROXIED), SHADOWSOCKS)
        self.assertEqual(self.seen("", DIRECT), ROUTER_WAN)
        self.assertIsNone(self.seen("rejected.test"))

    def test_the_api_shows_rules_and_providers(self):
        rules = self.daemon.api("GET", "/rules")[1]["rules"]
        self.assertEqual([(r["type"], r["payload"], r["proxy"]) for r in rules[1:3]],
                         [("RuleSet", "names", "Pick"), ("SubRules", "(NETWORK,tcp)", "web")])
        providers = self.daemon.api("GET", "/providers/rules")[1]["providers"]
        self.assertEqual({n: (p["behavior"], p["vehicleType"], p["ruleCount"]) for n, p in providers.items()},
                         {"names": ("Domain", "Inline", 1), "nets": ("IPCIDR", "File", 1), "lists": ("Classical", "File", 2), "missing": ("Domain", "File", 0)})
        self.assertEqual(providers["names"]["payload"], ["+.proxied.test"])

    def test_what_cannot_be_had_is_said_once_and_matches_nothing(self):
        said = [line for line in self.daemon.lines if "rule provider missing" in line]
        self.assertEqual(len(said), 1, said)
        self.assertTrue(self.daemon.said("rule provider nets: 1 entries passed over, the first in line 3"))

    def test_a_set_that_changes_takes_back_what_the_kernel_was_told(self):
        before = self.nets.read_text()
        # Certain to be DIRECT, and so in the kernel's set.
        self.assertEqual(self.seen("", REJECTED), ROUTER_WAN)
        self.nets.write_text(f"{REJECTED}/32\n")
        try:
            self.assertEqual(self.daemon.api("PUT", "/providers/rules/nets")[0], 204)
            wait_for("the proxy", lambda: self.seen("", REJECTED) == SHADOWSOCKS)
            self.assertEqual(self.seen("", PROXIED), ROUTER_WAN)
            self.nets.write_text("nothing usable\n")
            self.assertEqual(self.daemon.api("PUT", "/providers/rules/nets")[0], 503)
            self.assertEqual(self.seen("", REJECTED), SHADOWSOCKS)
        finally:
            self.nets.write_text(before)
            self.assertEqual(self.daemon.api("PUT", "/providers/rules/nets")[0], 204)
        self.assertEqual(self.daemon.api("PUT", "/providers/rules/nobody")[0], 404)
