"""The LAN never loses the Internet: stopped, killed, hung, or robbed of its rules by others."""

import pathlib
import signal
import subprocess
import tempfile
import time

from lab import (DIRECT, DNS, HEADGATE, PROXIED, ROUTER_LAN, ROUTER_WAN, SHADOWSOCKS, Daemon, LabTest, config, wait_for)


class NeverDark(LabTest):
    def setUp(self):
        self.lab.bridge_netfilter(0)
        self.before = self.kernel_state()
        self.directory = tempfile.mkdtemp(dir=self.lab.directory)
        self.daemon = Daemon(self.lab, config(), self.directory).start()

    def tearDown(self):
        if self.daemon.process:
            self.daemon.kill()
        self.lab.ns("gw", HEADGATE, "cleanup")
        self.lab.wan_addresses()
        self.daemon = None

    def exit_of(self, address=PROXIED, seconds=2):
        answer = self.lab.curl("lan1", f"http://{address}/", seconds=seconds)
        return answer and answer["client"]

    def back_directly_within(self, seconds):
        began = time.monotonic()
        while self.exit_of(seconds=1) != ROUTER_WAN:
            self.assertLess(time.monotonic() - began, seconds, "the LAN stayed dark")
        return time.monotonic() - began

    def test_sigterm_leaves_nothing(self):
        self.assertEqual(self.exit_of(), SHADOWSOCKS)
        self.assertEqual(self.daemon.stop(), 0)
        self.assertEqual(self.kernel_state(), self.before)
        self.assertEqual(self.exit_of(), ROUTER_WAN)

    def test_sigkill_and_the_lan_goes_on(self):
        self.assertEqual(self.exit_of(), SHADOWSOCKS)
        self.daemon.kill()
        self.back_directly_within(6)
        self.assertNotIn("headgate", self.lab.ns("gw", "nft", "list", "tables"))
        self.assertEqual(self.lab.dig("lan1", DNS, "direct.test"), [DIRECT])

    def test_sigstop_and_the_lan_goes_on(self):
        self.assertEqual(self.exit_of(), SHADOWSOCKS)
        self.daemon.signal(signal.SIGSTOP)
        try:
            self.back_directly_within(8)
            self.assertEqual(self.lab.dig("lan1", DNS, "direct.test"), [DIRECT])
        finally:
            self.daemon.signal(signal.SIGCONT)
        wait_for("capture again", lambda: self.exit_of() == SHADOWSOCKS)

    def test_restart_remembers_fake_addresses(self):
        fake = self.lab.dig("lan1", ROUTER_LAN, "proxied.test")[0]
        self.daemon.kill()
        self.daemon = Daemon(self.lab, config(), self.directory).start()
        answer = self.lab.curl("lan1", "http://proxied.test/", "--resolve", f"proxied.test:80:{fake}")
        self.assertEqual((answer["client"], answer["server"]), (SHADOWSOCKS, PROXIED))

    def test_restart_remembers_the_choice(self):
        self.daemon.api("PUT", "/proxies/Pick", {"name": "DIRECT"})
        self.daemon.stop()
        self.daemon = Daemon(self.lab, config(), self.directory).start()
        self.assertEqual(self.daemon.api("GET", "/proxies/Pick")[1]["now"], "DIRECT")

    def test_foreign_flush_does_not_reach_the_table(self):
        self.lab.ns("gw", "nft", "flush", "ruleset", check=False)
        self.lab.masquerade()
        self.assertEqual(self.exit_of(), SHADOWSOCKS)
        self.assertIn("headgate", self.lab.ns("gw", "nft", "list", "tables"))

    def test_rules_and_routes_taken_away_come_back(self):
        rules = self.lab.ip("gw", "rule", "show")
        self.lab.ip("gw", "rule", "flush")
        self.lab.ip("gw", "rule", "add", "lookup", "main", "pref", "32766")
        self.lab.ip("gw", "rule", "add", "lookup", "local", "pref", "0", check=False)
        wait_for("the ip rule", lambda: "26727" in self.lab.ip("gw", "rule", "show"), 10)
        self.lab.ip("gw", "route", "flush", "table", "26727")
        wait_for("the route", lambda: "local default" in self.lab.ip("gw", "route", "show", "table", "26727"), 10)
        # netifd's restart takes the loopback down and up, and the local route with it.
        self.lab.ip("gw", "link", "set", "lo", "down")
        self.lab.ip("gw", "link", "set", "lo", "up")
        wait_for("the route", lambda: "local default" in self.lab.ip("gw", "route", "show", "table", "26727"), 10)
        self.assertEqual(self.exit_of(), SHADOWSOCKS, rules)

    def test_wan_address_changes_fifty_times(self):
        for i in range(50):
            old, new = (ROUTER_WAN, "5.5.5.3") if i % 2 == 0 else ("5.5.5.3", ROUTER_WAN)
            self.lab.ip("gw", "addr", "add", f"{new}/24", "dev", "wan0")
            self.lab.ip("gw", "addr", "del", f"{old}/24", "dev", "wan0")
            self.lab.default_routes()
        wait_for("traffic", lambda: self.exit_of() == SHADOWSOCKS)
        applied = sum("ruleset applied" in line for line in self.daemon.lines)
        self.assertLessEqual(applied, 51)

    def test_starts_without_a_wan(self):
        self.daemon.stop()
        self.lab.ip("gw", "link", "set", "wan0", "down")
        self.daemon = Daemon(self.lab, config(), self.directory).start()
        self.assertTrue(self.lab.dig("lan1", ROUTER_LAN, "proxied.test"))
        self.lab.wan_addresses()
        wait_for("traffic", lambda: self.exit_of() == SHADOWSOCKS)

    def test_a_second_instance_is_refused(self):
        other = pathlib.Path(tempfile.mkdtemp(dir=self.lab.directory)) / "config.yaml"
        other.write_text(config(swap={"mixed-port: 7890": "mixed-port: 7990", ":9090": ":9190", ":1053": ":1153"}))
        done = subprocess.run(["ip", "netns", "exec", self.lab.names["gw"], HEADGATE, "-d", str(other.parent)], capture_output=True, text=True, timeout=10, check=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("another", done.stderr)
        self.assertEqual(self.exit_of(), SHADOWSOCKS)

    def test_cleanup_after_a_kill_leaves_nothing(self):
        self.daemon.kill()
        self.lab.ns("gw", HEADGATE, "cleanup")
        self.assertEqual(self.kernel_state(), self.before)

    def test_bridge_netfilter_is_switched_off_and_restored(self):
        if self.lab.bridge_netfilter_value() is None:
            self.skipTest("the kernel has no br_netfilter")
        self.daemon.stop()
        self.lab.bridge_netfilter(1)
        self.daemon = Daemon(self.lab, config(), self.directory).start()
        self.assertEqual(self.lab.bridge_netfilter_value(), 0)
        self.assertEqual(self.exit_of(), SHADOWSOCKS)
        self.daemon.kill()
        self.lab.ns("gw", HEADGATE, "cleanup")
        self.assertEqual(self.lab.bridge_netfilter_value(), 1)
        # The next start puts it off again, and a clean stop back on, also after a kill between.
        self.daemon = Daemon(self.lab, config(), self.directory).start()
        self.daemon.kill()
        self.daemon = Daemon(self.lab, config(), self.directory).start()
        self.assertEqual(self.exit_of(), SHADOWSOCKS)
        self.daemon.stop()
        self.assertEqual(self.lab.bridge_netfilter_value(), 1)


class KillSwitch(LabTest):
    """`fail: closed`: nothing passes without the daemon."""

    def test_nothing_passes_when_it_is_dead(self):
        daemon = Daemon(self.lab, config("  fail: closed\n  offload: false")).start()
        self.assertEqual(self.lab.curl("lan1", f"http://{PROXIED}/")["client"], SHADOWSOCKS)
        daemon.kill()
        time.sleep(3.5)
        self.assertIsNone(self.lab.curl("lan1", f"http://{DIRECT}/", seconds=2))
        self.assertIsNone(self.lab.echo("lan1", DIRECT))
        daemon.start()
        self.assertEqual(self.lab.curl("lan1", f"http://{PROXIED}/")["client"], SHADOWSOCKS)
        daemon.stop()
        self.assertEqual(self.lab.curl("lan1", f"http://{DIRECT}/")["client"], ROUTER_WAN)
