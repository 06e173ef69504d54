"""Nameservers of every transport, against unbound (DoT, DoH), dnsdist (DoT, DoH, plain HTTP) and dnsmasq (UDP, DHCP)."""

import time

from lab import DIRECT, DNS, ROUTER_LAN, ROUTER_WAN, SHADOWSOCKS, wait_for
from nameservers import DNSDIST_DOH, DNSDIST_DOT, DNSDIST_HTTP, NAME, UNBOUND_DOH, UNBOUND_DOT, NameserverTest


class Nameservers(NameserverTest):
    def test_each_encrypted_transport_answers_by_address_and_by_name(self):
        for server, name, answer in (
            (f"tls://{DNS}", "unbound.test", "192.0.2.5"),
            (f"tls://{NAME}:{UNBOUND_DOT}", "unbound.test", "192.0.2.5"),
            (f"https://{DNS}:{UNBOUND_DOH}/dns-query", "unbound.test", "192.0.2.5"),
            (f"https://{NAME}:{UNBOUND_DOH}", "unbound.test", "192.0.2.5"),
            (f"tls://{NAME}:{DNSDIST_DOT}", "direct.test", DIRECT),
            (f"https://{NAME}:{DNSDIST_DOH}/dns-query", "direct.test", DIRECT),
            (f"http://{DNS}:{DNSDIST_HTTP}/dns-query", "direct.test", DIRECT),
            (f"tcp://{DNS}", "direct.test", DIRECT),
        ):
            with self.subTest(server), self.daemon_with(f"nameserver: ['{server}']"):
                self.assertEqual(self.ask(name), [answer])
                # Twice: once by the kept connection.
                self.assertEqual(self.ask("nothing.test"), [])
                self.assertTrue(self.lab.dig("gw", ROUTER_LAN, name, "AAAA", "-p", "1053"))

    def test_many_questions_share_one_connection(self):
        for scheme, port in (("tls", UNBOUND_DOT), ("https", UNBOUND_DOH)):
            with self.subTest(scheme), self.daemon_with(f"nameserver: ['{scheme}://{NAME}:{port}']"):
                names = [f"n{i}.many.test" for i in range(200)]
                queries = self.lab.directory / "queries"
                queries.write_text("".join(f"{name} A\n" for name in names))
                report = self.lab.ns("gw", "dnsperf", "-s", ROUTER_LAN, "-p", "1053", "-d", str(queries), "-n", "1", "-q", "50")
                self.assertIn("Queries completed:    200 (100.00%)", report)
                self.assertIn("NOERROR 200", report)
                self.assertEqual(len(self.streams(port)), 1)

    def test_an_unused_connection_is_closed(self):
        with self.daemon_with(f"nameserver: ['tls://{NAME}', 'https://{NAME}:{UNBOUND_DOH}']"):
            self.assertEqual(self.ask("unbound.test"), ["192.0.2.5"])
            open_streams = lambda: self.streams(UNBOUND_DOT) + self.streams(UNBOUND_DOH)
            wait_for("both to be open", lambda: len(open_streams()) == 2)
            wait_for("both to close", lambda: not open_streams(), 30)

    def test_a_server_that_comes_back_is_used_at_once(self):
        for scheme, port in (("tls", UNBOUND_DOT), ("https", UNBOUND_DOH)):
            with self.subTest(scheme), self.daemon_with(f"nameserver: ['{scheme}://{NAME}:{port}']"):
                self.assertEqual(self.ask("a.many.test"), ["192.0.2.7"])
                self.stop_unbound()
                self.start_unbound()
                self.assertEqual(self.ask("b.many.test"), ["192.0.2.7"])

    def test_a_connection_that_went_silent_is_left_for_a_new_one(self):
        for scheme, port in (("tls", UNBOUND_DOT), ("https", UNBOUND_DOH)):
            with self.subTest(scheme), self.daemon_with(f"nameserver: ['{scheme}://{NAME}:{port}']"):
                self.assertEqual(self.ask("c.many.test"), ["192.0.2.7"])
                [stream] = self.streams(port)
                ours = stream.split()[2].rpartition(":")[2]
                self.lab.ns("wan", "nft", f"add table ip hole; add chain ip hole input {{ type filter hook input priority 0; }}; "
                                          f"add rule ip hole input tcp sport {ours} drop")
                try:
                    began = time.monotonic()
                    self.assertEqual(self.ask("d.many.test", "A", "+time=5"), ["192.0.2.7"])
                    self.assertLess(time.monotonic() - began, 6)
                finally:
                    self.lab.ns("wan", "nft", "delete", "table", "ip", "hole")

    def test_a_certificate_that_is_not_vouched_for_is_refused_and_named(self):
        # The certificate is for the name and one address, not for this one.
        other = f"tls://5.5.5.1:{UNBOUND_DOT}"
        self.lab.ns("wan", "nft", "add table ip turn; add chain ip turn prerouting { type nat hook prerouting priority -100; }; "
                                  f"add rule ip turn prerouting ip daddr 5.5.5.1 tcp dport {UNBOUND_DOT} dnat to {DNS}")
        try:
            with self.daemon_with(f"nameserver: ['{other}']") as daemon:
                self.assertEqual(self.ask("unbound.test"), [])
                self.assertTrue(daemon.said(f"dns: {other}: invalid peer certificate"), daemon.lines)
            with self.daemon_with(f"nameserver: ['{other}#skip-cert-verify=true']"):
                self.assertEqual(self.ask("unbound.test"), ["192.0.2.5"])
        finally:
            self.lab.ns("wan", "nft", "delete", "table", "ip", "turn")

    def test_a_server_is_reached_by_a_proxy_by_the_rules_or_directly(self):
        rule = f"  - DOMAIN,{NAME},ss"
        for suffix, seen in (("", ROUTER_WAN), ("#ss", SHADOWSOCKS), ("#RULES", SHADOWSOCKS), ("#DIRECT", ROUTER_WAN), ("#wan0", ROUTER_WAN)):
            for server in (f"tls://{NAME}:{UNBOUND_DOT}", f"https://{NAME}:{UNBOUND_DOH}/dns-query"):
                name = f"{suffix.strip('#') or 'plain'}-{server[:3]}.many.test".lower()
                with self.subTest(server + suffix), self.daemon_with(f"nameserver: ['{server}{suffix}']", rule):
                    self.assertEqual(self.ask(name), ["192.0.2.7"])
                    wait_for("unbound's log", lambda: self.asked_by(name))
                    self.assertEqual(self.asked_by(name), [seen])

    def test_types_that_a_server_is_not_to_be_asked_for_are_answered_empty(self):
        with self.daemon_with(f"nameserver: ['tls://{NAME}#disable-ipv6=true']"):
            self.assertEqual(self.ask("unbound.test"), ["192.0.2.5"])
            self.assertEqual(self.ask("unbound.test", "AAAA"), [])

    def test_dhcp_names_the_servers(self):
        with self.daemon_with("nameserver: ['dhcp://wan0']"):
            self.assertEqual(self.ask("dnsmasq.test"), ["192.0.2.8"])
            self.assertEqual(self.ask("doh.test"), [DNS])
        self.assertEqual((self.lab.directory / "dhcp.log").read_text().count("DHCPDISCOVER"), 1)

    def test_constant_answers(self):
        with self.daemon_with("nameserver: ['rcode://refused']"):
            self.assertIn("status: REFUSED", self.lab.ns("gw", "dig", f"@{ROUTER_LAN}", "-p", "1053", "a.test"))
        with self.daemon_with("nameserver: ['rcode://name_error']"):
            self.assertIn("status: NXDOMAIN", self.lab.ns("gw", "dig", f"@{ROUTER_LAN}", "-p", "1053", "a.test"))
