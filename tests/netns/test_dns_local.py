"""What the resolver does for its own network: leases, every address of the router, answers while a server is down."""

import base64
import signal
import time

from lab import DNS, ROUTER_LAN, wait_for
from nameservers import DNSDIST_EXPIRED, NAME, UNBOUND_DOT, NameserverTest

SECOND_LAN, SECOND_LAN6 = "192.168.77.3", "fd77::3"


class LocalNetwork(NameserverTest):
    def test_a_wildcard_listener_answers_from_the_address_that_was_asked(self):
        self.lab.ip("gw", "addr", "add", f"{SECOND_LAN}/24", "dev", "br-lan")
        self.lab.ip("gw", "addr", "add", f"{SECOND_LAN6}/64", "dev", "br-lan", "nodad")
        for listen in ("0.0.0.0:1053", "'[::]:1053'", "':1053'"):
            with self.subTest(listen), self.daemon_with(f"nameserver: [{DNS}]", listen=listen):
                servers = [SECOND_LAN, ROUTER_LAN] + ([SECOND_LAN6] if listen != "0.0.0.0:1053" else [])
                for server in servers:
                    # dig drops what comes from another address. Once from upstream, once from the cache.
                    for _ in range(2):
                        self.assertEqual(self.lab.dig("lan1", server, "direct.test", "A", "-p", "1053"), ["5.5.5.10"], server)

    def test_a_listener_moves_between_addresses_that_overlap(self):
        one, all_of_them = f"listen: {ROUTER_LAN}:1053", "listen: 0.0.0.0:1053"
        with self.daemon_with(f"nameserver: [{DNS}]") as daemon:
            for _ in range(20):
                text = daemon.file.read_text()
                daemon.file.write_text(text.replace(one, all_of_them) if one in text else text.replace(all_of_them, one))
                daemon.lines.clear()
                daemon.signal(signal.SIGHUP)
                wait_for("the reload", lambda: daemon.said("configuration reloaded"))
                self.assertFalse(daemon.said(" error "), daemon.lines)
                self.assertEqual(self.ask("direct.test"), ["5.5.5.10"])
                self.assertEqual(self.ask("direct.test", "A", "+tcp"), ["5.5.5.10"])

    def test_leases_name_the_devices(self):
        leases = self.lab.directory / "dhcp.test.leases"
        leases.write_text("1790000000 02:77:00:00:00:11 192.168.77.11 Camera *\n1790000000 02:77:00:00:00:12 192.168.77.12 www.direct.test *\n")
        with self.daemon_with(f"nameserver: [{DNS}]\nlease-files: ['{leases}']\nlocal-domain: home.test"):
            self.assertEqual(self.ask("camera"), ["192.168.77.11"])
            self.assertEqual(self.ask("camera.home.test"), ["192.168.77.11"])
            # A device does not become a name of the Internet.
            self.assertEqual(self.ask("www.direct.test"), ["5.5.5.10"])

    def test_what_expired_is_answered_while_its_server_is_down(self):
        with self.daemon_with(f"nameserver: ['tls://{NAME}:{UNBOUND_DOT}']"):
            self.assertEqual(self.ask("short.test"), ["192.0.2.11"])
            self.stop_unbound()
            try:
                time.sleep(1.5)  # its time to live
                for _ in range(3):
                    self.assertEqual(self.ask("short.test"), ["192.0.2.11"])
            finally:
                self.start_unbound()

    def test_local_addresses_of_public_names_are_withheld(self):
        hosts = "rebind-protection: true\nrebind-allow: ['+.allowed.test']"
        with self.daemon_with(f"nameserver: ['tls://{NAME}:{UNBOUND_DOT}']\n{hosts}") as daemon:
            self.assertEqual(self.ask("rebound.test"), [])
            self.assertTrue(daemon.said("rebound.test has a local address"))
            self.assertEqual(self.ask("x.allowed.test"), ["192.168.77.1"])

    def test_without_a_clock_only_the_time_servers_are_found(self):
        with self.daemon_with(f"nameserver: ['tls://{NAME}:{DNSDIST_EXPIRED}']") as daemon:
            self.assertEqual(self.ask("dnsmasq.test"), [])
            self.assertTrue(daemon.said("invalid peer certificate: certificate expired"), daemon.lines)
            self.assertEqual(self.ask("0.pool.ntp.test"), ["192.0.2.123"])

    def test_the_controller_serves_dns_over_https(self):
        query = bytes.fromhex("000001000001000000000000") + b"\x06direct\x04test\0\0\x01\0\x01"
        encoded = base64.urlsafe_b64encode(query).decode().rstrip("=")
        with self.daemon_with(f"nameserver: [{DNS}]", top="external-doh-server: /dns-query"):
            answer = self.lab.directory / "doh.answer"
            kind = self.lab.ns("lan1", "curl", "-s", "-o", str(answer), "-w", "%{content_type}", f"http://{ROUTER_LAN}:9090/dns-query?dns={encoded}")
            self.assertEqual(kind, "application/dns-message")
            self.assertIn(bytes([5, 5, 5, 10]), answer.read_bytes())
