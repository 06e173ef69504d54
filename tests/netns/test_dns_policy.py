"""Which server is asked for which name: policies, fallback, rules, and what has a fake address."""

from lab import DIRECT, DNS, ROUTER_LAN, SHADOWSOCKS, wait_for
from nameservers import BOOTSTRAP, NAME, UNBOUND_DOT, NameserverTest

UNBOUND = f"tls://{NAME}:{UNBOUND_DOT}"


class Policies(NameserverTest):
    def test_a_policy_sends_each_name_to_its_servers(self):
        keys = f"""
nameserver: [{DNS}]
nameserver-policy:
  'rule-set:theirs': ['{UNBOUND}']
  '+.many.test,unbound.test': '{UNBOUND}'
  'a.many.test': rcode://refused
"""
        with self.daemon_with(keys, providers={"theirs": ["+.b.many.test", "only-unbound.test"]}):
            self.assertEqual(self.ask("direct.test"), [DIRECT])
            self.assertEqual(self.ask("unbound.test"), ["192.0.2.5"])
            self.assertEqual(self.ask("only-unbound.test"), ["192.0.2.6"])
            self.assertEqual(self.ask("x.many.test"), ["192.0.2.7"])
            # More exact than the wildcard beside it; the set before them comes first.
            self.assertEqual(self.ask("a.many.test"), [])
            self.assertEqual(self.ask("b.many.test"), ["192.0.2.7"])

    def test_the_fallback_answers_what_the_filter_does_not_believe(self):
        # dnsmasq lies about one name, and does not know the others.
        for lazy in ("false", "true"):
            keys = f"""
nameserver: [{BOOTSTRAP}]
fallback: ['{UNBOUND}']
fallback-lazy-query: {lazy}
fallback-filter: {{geoip: false, ipcidr: [192.0.2.0/30], domain: ['+.many.test']}}
"""
            with self.subTest(lazy), self.daemon_with(keys):
                self.assertEqual(self.ask("dnsmasq.test"), ["192.0.2.8"])
                self.assertEqual(self.ask("lied.test"), ["192.0.2.9"])
                self.assertEqual(self.ask("unbound.test"), ["192.0.2.5"])
                self.assertEqual(self.ask("c.many.test"), ["192.0.2.7"])

    def test_respected_rules_carry_the_nameservers(self):
        keys = f"""
nameserver: ['{UNBOUND}']
respect-rules: true
proxy-server-nameserver: [{DNS}]
"""
        # The proxy has a name: its own resolver must not need the proxy.
        with self.daemon_with(keys, f"  - DOMAIN,{NAME},named"):
            self.assertEqual(self.ask("ruled.many.test"), ["192.0.2.7"])
            wait_for("unbound's log", lambda: self.asked_by("ruled.many.test"))
            self.assertEqual(self.asked_by("ruled.many.test"), [SHADOWSOCKS])

    def test_flows_and_proxies_have_resolvers_of_their_own(self):
        keys = f"""
nameserver: [rcode://refused]
direct-nameserver: [{DNS}]
proxy-server-nameserver: [rcode://refused]
proxy-server-nameserver-policy: {{node.test: {DNS}}}
"""
        with self.daemon_with(keys, "  - DOMAIN,proxied.test,named"):
            for name, seen in (("direct.test", "5.5.5.2"), ("proxied.test", SHADOWSOCKS)):
                answer = self.lab.curl("gw", f"http://{name}/", "-x", "socks5h://127.0.0.1:7890")
                self.assertIsNotNone(answer, name)
                self.assertEqual(answer["client"], seen)

    def test_fake_addresses_follow_their_filter(self):
        filters = {
            "blacklist": ("['rule-set:theirs', '+.many.test']", {"unbound.test": False, "only-unbound.test": True, "a.many.test": False}),
            "whitelist": ("['rule-set:theirs']", {"unbound.test": True, "only-unbound.test": False}),
            "rule": ("['DOMAIN,only-unbound.test,real-ip', 'RULE-SET,theirs,fake-ip', 'DOMAIN-SUFFIX,test,real-ip', 'MATCH,fake-ip']",
                     {"unbound.test": True, "only-unbound.test": False, "a.many.test": False, "x.example": True}),
        }
        for mode, (entries, fakes) in filters.items():
            keys = f"nameserver: ['{UNBOUND}']\nfake-ip-filter-mode: {mode}\nfake-ip-filter: {entries}"
            with self.subTest(mode), self.daemon_with(keys, mode="fake-ip", providers={"theirs": ["unbound.test"]}):
                for name, fake in fakes.items():
                    [address] = self.ask(name)
                    self.assertEqual(address.startswith("198.18."), fake, name)

    def test_hosts_have_wildcards_lists_aliases_and_lan(self):
        hosts = "hosts:\n  '*.box.test': [192.0.2.1, 2001:db8::1]\n  alias.test: a.box.test\n  out.test: direct.test\n  me.test: lan\n"
        with self.daemon_with(f"nameserver: [{DNS}]", top=hosts):
            self.assertEqual(self.ask("x.box.test"), ["192.0.2.1"])
            self.assertEqual(self.ask("x.box.test", "AAAA"), ["2001:db8::1"])
            self.assertEqual(self.ask("alias.test"), ["a.box.test.", "192.0.2.1"])
            self.assertEqual(self.ask("out.test"), ["direct.test.", DIRECT])
            self.assertIn(ROUTER_LAN, self.ask("me.test"))
