"""Among the router's other programs: its firewall, its network daemon, its sysctls, another proxy.

The numbers are the requirements of openwrt.md section 9.
"""

import pathlib
import re
import subprocess
import tempfile
import threading
import time

from lab import (HEADGATE, PROXIED, PROXIED6, ROUTER_LAN, ROUTER_WAN, ROUTER_WAN6, RULES, SHADOWSOCKS, Daemon, LabTest, config)

# As fw4 has it: the LAN is a zone that may not speak to the router, new connections to it are few a second, and ours
# is the first line.
FIREWALL = """
table inet fw4
delete table inet fw4
table inet fw4 {
    chain input {
        type filter hook input priority filter; policy drop;
        iif lo accept
        %s
        ct state established,related accept
        tcp flags & (fin | syn | rst | ack) == syn jump syn_flood
        meta l4proto { icmp, ipv6-icmp } accept
        iifname "br-lan" reject
    }
    chain syn_flood {
        limit rate 25/second burst 50 packets return
        counter drop
    }
    chain forward { type filter hook forward priority filter; policy accept; }
}
"""
# What leaves by the WAN for where only the proxy may go.
LEAKS = f"""
table inet leaks {{
    chain postrouting {{
        type filter hook postrouting priority 300
        oifname "wan0" ip daddr {PROXIED} counter
        oifname "wan0" ip6 daddr {PROXIED6} counter
    }}
}}
"""
INCLUDE = pathlib.Path(__file__).resolve().parents[2] / "openwrt/headgate/files/usr/share/nftables.d/chain-pre/input/40-headgate.nft"


class Router(LabTest):
    def setUp(self):
        self.lab.bridge_netfilter(0)
        self.before = self.state()
        self.daemon = Daemon(self.lab, config()).start()

    def tearDown(self):
        if self.daemon.process:
            self.daemon.kill()
        self.lab.ns("gw", HEADGATE, "cleanup")
        self.lab.ns("gw", "nft", "delete", "table", "inet", "fw4", check=False)
        self.daemon = None

    def state(self):
        """Everything that a start and a stop may not change."""
        commands = (
            ("nft", "list", "ruleset"), ("ip", "rule"), ("ip", "-6", "rule"), ("ip", "route", "show", "table", "all"),
            ("ip", "-6", "route", "show", "table", "all"), ("ip", "link"), ("sysctl", "-a", "-r", r"^net\."),
        )
        # Among them the link-local addresses, which the kernel gives itself some time after the links are up.
        changing = ("fe80:", "ff00::", "netns_ok", "entropy", ".count", "mtu_expires", "conntrack_count", "nf_log")
        text = [self.lab.ns("gw", *command, check=False) for command in commands]
        return [line for part in text for line in part.splitlines() if not any(word in line for word in changing)]

    def exit_of(self, seconds=3):
        answer = self.lab.curl("lan1", f"http://{PROXIED}/", seconds=seconds)
        return answer and answer["client"]

    def firewall(self, include=INCLUDE.read_text()):
        self.lab.ns("gw", "nft", "-f", "-", input=FIREWALL % include)

    def counted(self, table):
        """Packets of each counter in a table, in order."""
        return [int(packets) for packets in re.findall(r"counter packets (\d+)", self.lab.ns("gw", "nft", "list", "table", "inet", table))]

    def test_r10_stop_leaves_everything_as_it_was(self):
        self.assertEqual(self.exit_of(), SHADOWSOCKS)
        self.assertEqual(self.daemon.stop(), 0)
        self.assertEqual(self.state(), self.before)

    def test_r2_fifty_firewall_reloads_drop_no_flow(self):
        """A flow lives through them, and each new connection is captured."""
        done = threading.Event()
        exits = set()

        def connect():
            while not done.is_set():
                exits.add(self.exit_of())

        self.firewall()
        live = self.lab.spawn("lan1", "python3", "-c", SLOW, PROXIED, stdout=subprocess.PIPE, text=True)
        self.assertEqual(live.stdout.readline(), "connected\n")
        connecting = threading.Thread(target=connect)
        connecting.start()
        for _ in range(50):
            self.firewall()
        done.set()
        connecting.join()
        self.assertEqual(exits, {SHADOWSOCKS})
        live_out, _ = live.communicate(timeout=15)
        self.assertEqual(live_out, "whole\n")

    def test_r5_a_hundred_interface_events_with_the_same_address_are_silence(self):
        """No restart, and not one line at info."""
        loud = lambda: [line for line in self.daemon.lines if " DEBUG " not in line and "[DEBUG]" not in line and "debug" not in line.lower()]
        self.assertEqual(self.exit_of(), SHADOWSOCKS)
        before, process = len(loud()), self.daemon.process.pid
        self.assertGreater(before, 0)
        for _ in range(100):
            self.lab.ip("gw", "addr", "replace", f"{ROUTER_WAN}/24", "dev", "wan0")
            self.lab.ip("gw", "route", "replace", "default", "via", "5.5.5.1")
        self.assertEqual(self.exit_of(), SHADOWSOCKS)
        self.assertEqual(self.daemon.process.pid, process)
        self.assertIsNone(self.daemon.process.poll())
        said = [line for line in loud()[before:] if PROXIED not in line]
        self.assertEqual(said, [])

    def test_r9_nothing_of_what_is_proxied_leaves_directly(self):
        """By address and by name, streams and datagrams, of both families; and IPv6 as the owner wants it."""
        self.lab.ns("gw", "nft", "-f", "-", input=LEAKS)
        self.addCleanup(self.lab.ns, "gw", "nft", "delete", "table", "inet", "leaks")
        for url in (f"http://{PROXIED}/", f"http://[{PROXIED6}]/", "http://proxied.test/"):
            self.assertTrue(self.lab.curl("lan1", url), url)
        for address in (PROXIED, PROXIED6):
            self.assertTrue(self.lab.echo("lan1", address), address)
        self.assertEqual(self.counted("leaks"), [0, 0])
        # Left alone, it is as it was without us.
        self.restart(config("  offload: false\n  ipv6: false"))
        self.assertEqual(self.lab.curl("lan1", f"http://[{PROXIED6}]/")["client"], ROUTER_WAN6)
        self.assertEqual(self.exit_of(), SHADOWSOCKS)
        self.assertEqual(self.counted("leaks")[0], 0)
        # Blocked, nothing of it passes.
        before = self.counted("leaks")
        self.restart(config(rules="\n  - IP-CIDR6,::/0,REJECT,no-resolve" + RULES))
        self.assertIsNone(self.lab.curl("lan1", f"http://[{PROXIED6}]/", seconds=3))
        self.assertEqual(self.exit_of(), SHADOWSOCKS)
        self.assertEqual(self.counted("leaks"), before)

    def restart(self, text):
        self.daemon.stop()
        self.daemon = Daemon(self.lab, text).start()

    def test_r22_many_connections_at_once_pass_the_firewalls_limit(self):
        for count in (300, 1000):
            self.firewall()
            self.assertEqual(self.lab.python("lan1", CONNECT, PROXIED, str(count), timeout=120), f"{count}\n")
            self.assertEqual(self.counted("fw4"), [0])
        # The limit is one: without our line it drops them, and what it lets pass, the zone refuses.
        self.firewall("")
        self.assertEqual(self.lab.python("lan1", CONNECT, PROXIED, "1000", "5", timeout=120), "0\n")
        self.assertGreater(self.counted("fw4")[0], 0)

    def test_r18_a_zone_that_may_not_speak_to_the_router_is_served_and_sees_no_door(self):
        self.firewall()
        self.assertEqual(self.exit_of(), SHADOWSOCKS)
        self.assertTrue(self.lab.dig("lan1", "8.8.8.8", "proxied.test"))
        for port in ("9090", "7890", "1053"):
            code = "import socket,sys\ntry:\n socket.create_connection((sys.argv[1],int(sys.argv[2])),2); print('open')\nexcept OSError: print('closed')"
            self.assertEqual(self.lab.python("lan1", code, ROUTER_LAN, port), "closed\n", port)

    def test_r19_another_program_on_our_port_is_named(self):
        self.daemon.stop()
        taken = self.lab.spawn("gw", "python3", "-c", "import socket,time; s=socket.create_server(('0.0.0.0',7890)); print(1,flush=True); time.sleep(60)", stdout=subprocess.PIPE, text=True)
        taken.stdout.readline()
        try:
            directory = pathlib.Path(tempfile.mkdtemp(dir=self.lab.directory))
            (directory / "config.yaml").write_text(config())
            command = ["ip", "netns", "exec", self.lab.names["gw"], HEADGATE, "-d", str(directory)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertRegex(done.stderr, r"7890.*(in use|another)")
            self.assertEqual(self.state(), self.before)
        finally:
            taken.kill()

    def test_r19_a_foreign_rule_of_our_priority_is_left_alone(self):
        """Another proxy's policy routing stays, and ours works beside it."""
        self.daemon.stop()
        priority = next(line.split(":")[0] for line in self.rules_of_a_run() if "26727" in line)
        self.lab.ip("gw", "rule", "add", "fwmark", "0x1", "lookup", "100", "priority", priority)
        try:
            self.daemon = Daemon(self.lab, config()).start()
            self.assertEqual(self.exit_of(), SHADOWSOCKS)
            self.daemon.stop()
            self.assertIn("fwmark 0x1 lookup 100", self.lab.ip("gw", "rule"))
        finally:
            self.lab.ip("gw", "rule", "del", "fwmark", "0x1", "lookup", "100", "priority", priority)

    def rules_of_a_run(self):
        daemon = Daemon(self.lab, config()).start()
        rules = self.lab.ip("gw", "rule").splitlines()
        daemon.stop()
        return rules


# A connection that lives for some seconds: what it sends comes back, byte by byte.
SLOW = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], 2222), 5)
s.settimeout(5)
s.recv(100)
print('connected', flush=True)
for n in range(60):
    word = b'%04d' % n
    s.sendall(word)
    got = b''
    while len(got) < 4:
        part = s.recv(4 - len(got))
        assert part, 'cut'
        got += part
    assert got == word
    time.sleep(0.05)
print('whole', flush=True)
"""

# How many of so many connections are made, all begun at once.
CONNECT = """
import asyncio, resource, sys
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 60
async def one():
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(sys.argv[1], 80), seconds)
    except (OSError, TimeoutError):
        return 0
    writer.close()
    return 1
async def main():
    print(sum(await asyncio.gather(*(one() for _ in range(int(sys.argv[2]))))))
asyncio.run(main())
"""
