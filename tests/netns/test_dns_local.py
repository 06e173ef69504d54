"""What the resolver does for its own network: leases, every address of the router, answers while a server is down."""

import time

from lab import DNS, ROUTER_LAN
from nameservers import NAME, UNBOUND_DOT, NameserverTest

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
