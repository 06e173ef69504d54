"""Faults: each with what is expected of it and a figure that is printed.

Whatever happens, the LAN stays online: devices reach the Internet, by the rules while headgate lives and
directly while it does not. Faults of the capture rules alone (a kill, a hang, a second instance, rules and
routes taken away) are in test_never_dark, those of upstreams and uplinks in test_reach and test_router.
"""

import contextlib
import os
import pathlib
import re
import resource
import socket
import subprocess
import sys
import threading
import time
import unittest

from lab import (DIRECT, MAC2, PROXIED, ROUTER_LAN, ROUTER_WAN, RULES, SECRET, SHADOWSOCKS, Daemon, LabTest, config, wait_for)


def figure(test, text):
    """Says what was measured."""
    print(f"\n   {test.id().rpartition('.')[2]}: {text}", flush=True)


def status_of(process, field):
    text = pathlib.Path(f"/proc/{process}/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+)", text, re.M)[1])


class FaultTest(LabTest):
    """A lab, and a daemon for each test."""

    TEXT = config()

    def setUp(self):
        self.daemon = Daemon(self.lab, self.TEXT)
        self.addCleanup(self.end)

    def end(self):
        if self.daemon.process:
            self.daemon.kill()
        self.lab.ns("gw", os.environ.get("HEADGATE", "headgate"), "cleanup", check=False)
        self.lab.wan_addresses()

    def exit_of(self, where="lan1", address=PROXIED, seconds=3):
        answer = self.lab.curl(where, f"http://{address}/", seconds=seconds)
        return answer and answer["client"]

    def pid(self):
        """`ip netns exec` becomes the program."""
        return self.daemon.process.pid

    def metrics(self):
        text = self.lab.ns("gw", "curl", "-s", "-m", "5", "-H", f"Authorization: Bearer {SECRET}", f"http://{ROUTER_LAN}:9090/metrics")
        return {name: int(value) for name, value in re.findall(r"^(\w+) (\d+)$", text, re.M)}

    def hold(self, where, address, port, count, keep):
        """Opens connections that say nothing; a list of those that stand."""
        for _ in range(count):
            try:
                keep.append(self.lab.connect(where, address, port, seconds=5))
            except OSError:
                break
        return keep


def close_all(sockets):
    for each in sockets:
        with contextlib.suppress(OSError):
            each.close()


class Crowds(FaultTest):
    """More connections than there are seats."""

    TEXT = config(rules=RULES.replace(f"  - SRC-MAC,{MAC2},REJECT\n", ""), swap={"mode: rule": "mode: rule\nmax-connections: 200"})

    def setUp(self):
        super().setUp()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))

    def test_a_flood_of_silent_connections_costs_no_more_than_its_seats(self):
        """Expected: no more than max-connections streams are in, memory stays within 3 MB, and another
        device is served within 2 s all the time."""
        self.daemon.start()
        self.assertEqual(self.exit_of("lan1"), SHADOWSOCKS)
        before, slowest, held = status_of(self.pid(), "VmRSS"), 0.0, []
        self.addCleanup(close_all, held)
        for _ in range(10):
            self.hold("lan1", DIRECT, 8080, 100, held)
            began = time.monotonic()
            self.assertEqual(self.exit_of("lan2", DIRECT, seconds=10), ROUTER_WAN)
            slowest = max(slowest, time.monotonic() - began)
        seen = self.metrics()
        self.assertLessEqual(seen["headgate_streams"], 200)
        self.assertEqual(seen["headgate_streams_max"], 200)
        self.assertGreater(seen["headgate_cut_for_room_total"], 500)
        grown = status_of(self.pid(), "VmRSS") - before
        self.assertLess(grown, 3 * 1024)
        self.assertLess(slowest, 2)
        self.assertTrue(self.daemon.said("max-connections is reached"))
        figure(self, f"1000 streams for 200 seats: {seen['headgate_cut_for_room_total']} cut, +{grown} KiB, others served within {slowest * 1000:.0f} ms")

    def test_running_out_of_descriptors_is_survived(self):
        """Expected: no exit, one line in the log for each listener and minute, and service as before within
        3 s of room being made."""
        self.daemon.start()
        self.assertEqual(self.exit_of(), SHADOWSOCKS)
        _, hard = resource.prlimit(self.pid(), resource.RLIMIT_NOFILE)
        opened = len(os.listdir(f"/proc/{self.pid()}/fd"))
        resource.prlimit(self.pid(), resource.RLIMIT_NOFILE, (opened + 30, hard))
        held = []
        self.addCleanup(close_all, held)
        self.hold("lan1", DIRECT, 8080, 120, held)
        self.assertIsNone(self.daemon.process.poll())
        lines = sum("accept" in line for line in list(self.daemon.lines))
        self.assertLess(lines, 20)
        self.assertIn("headgate", self.lab.ns("gw", "nft", "list", "tables"))
        close_all(held)
        began = time.monotonic()
        wait_for("service", lambda: self.exit_of(seconds=1) == SHADOWSOCKS, 3)
        figure(self, f"120 streams for 30 descriptors: {lines} lines of log, served again after {time.monotonic() - began:.2f} s")

    def test_a_flood_of_datagrams_takes_no_other_devices_sessions(self):
        """Expected: 20,000 client sockets of one device cost no more than its half of the sessions (100
        here, of max-connections 200 at least 128), memory within 4 MB, and another device's datagrams
        go through at once."""
        self.daemon.start()
        self.assertEqual(self.lab.echo("lan2", DIRECT)["seen"], ROUTER_WAN)
        before = status_of(self.pid(), "VmRSS")
        flood = self.lab.spawn("lan1", sys.executable, "-c", UDP_FLOOD, DIRECT, "20000", stdout=subprocess.PIPE, text=True)
        slowest, served = 0.0, 0
        while flood.poll() is None:
            began = time.monotonic()
            self.assertIsNotNone(self.lab.echo("lan2", DIRECT))
            slowest, served = max(slowest, time.monotonic() - began), served + 1
        sent = flood.stdout.read().strip()
        seen, grown = self.metrics(), status_of(self.pid(), "VmRSS") - before
        self.assertGreater(seen["headgate_udp_refused_total"], 10_000)
        self.assertLess(grown, 4 * 1024)
        self.assertLess(seen["process_open_fds"], 400)
        figure(self, f"{sent}: {seen['headgate_udp_refused_total']} refused, +{grown} KiB, {served} of {served} of another device served, slowest {slowest * 1000:.0f} ms")


UDP_FLOOD = """
import socket, sys, time
address, count = sys.argv[1], int(sys.argv[2])
began = time.monotonic()
for i in range(count):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b'x' * 100, (address, 9999))
print(f'{count} sockets in {time.monotonic() - began:.1f} s')
"""
