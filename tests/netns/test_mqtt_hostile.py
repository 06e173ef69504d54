"""What hostile or careless clients may not do (users.md S19 to S24)."""

import base64
import hashlib
import math
import os
import pathlib
import socket
import statistics
import subprocess
import tempfile
import threading
import time

from lab import HEADGATE, ROUTER_LAN, ROUTER_WAN, Daemon, LabTest, config, wait_for
from test_mqtt_conformance import V4, V5, Wire, connect, packet, publish, subscribe, text

# Of `plain`; the cost is a tenth of the usual one, for a build without optimization.
SALT = b"0123456789abcdef"
HASH = "$".join(("pbkdf2-sha256", "5000", *(base64.b64encode(part).decode() for part in (SALT, hashlib.pbkdf2_hmac("sha256", b"plain", SALT, 5000)))))
ACCEPTED = b"\x20\x02\x00\x00"
# What scanners try.
KNOWN = (("admin", "public"), ("admin", "admin"), ("admin", ""), ("root", "root"), ("user", "password"), ("guest", "guest"), ("mqtt", "mqtt"), ("", ""))


def login(user, password, name="scan", version=V4):
    return connect(name, version, 0xC2, payload=text(user) + text(password))


def memory(process):
    """Kilobytes of a process's own."""
    rollup = pathlib.Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))


class Doors(LabTest):
    """S19: nobody comes in by what everybody knows, and nobody from outside at all."""

    CONFIG_TEXT = config() + f"""
mqtt:
  listeners: [{{name: lan, type: tcp, listen: {ROUTER_LAN}:1883}}]
management: {{listen: {ROUTER_LAN}:8081}}
"""

    def test_no_password_that_everybody_knows_opens_anything(self):
        for user, password in KNOWN:
            with self.subTest(user=user, password=password):
                wire = Wire(self.lab.connect("lan1", ROUTER_LAN, 1883))
                wire.send(login(user, password))
                self.assertIn(wire.rest(), (b"\x20\x02\x00\x05", b"\x20\x02\x00\x04"))
                wire.socket.close()
                self.assertEqual(self.daemon.manage("GET", "/clients", login=f"{user}:{password}")[0], 401)
        wire = Wire(self.lab.connect("lan1", ROUTER_LAN, 1883))
        self.addCleanup(wire.socket.close)
        wire.send(connect("nobody", V4))
        self.assertEqual(wire.rest(), b"\x20\x02\x00\x05")

    def test_what_everybody_knows_is_refused_where_others_can_ask(self):
        for listen, status in ((f"{ROUTER_LAN}:8081", 1), ("0.0.0.0:8081", 1), ("127.0.0.1:8081", 0)):
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                file.write(f'management:\n  listen: "{listen}"\n  applications:\n    - {{id: admin, secret: public}}\n')
                file.flush()
                done = subprocess.run([HEADGATE, "check", "-f", file.name], capture_output=True, text=True, timeout=20, check=False)
                self.assertEqual(done.returncode, status, done.stderr)
                if status:
                    self.assertIn(":4:27: management.applications[0].secret: expected a secret of one's own", done.stderr)
                    self.assertNotIn("'public'", done.stderr)

    def test_without_a_word_about_it_nothing_listens_but_for_this_machine(self):
        for text_ in ("mqtt: {}\nmanagement: {listen: 127.0.0.1:8081}\n", None):
            directory = pathlib.Path(tempfile.mkdtemp(dir=self.lab.directory))
            command = [HEADGATE, "-d", str(directory)]
            if text_:
                (directory / "config.yaml").write_text(text_)
            self.daemon.stop()
            process = self.lab.spawn("gw", *command, stderr=subprocess.PIPE, text=True)
            for line in process.stderr:
                if "headgate ready" in line:
                    break
            listening = self.lab.ns("gw", "ss", "-Hlnt").splitlines()
            process.terminate()
            process.wait()
            process.stderr.close()
            self.daemon.start()
            self.assertTrue(listening)
            for line in listening:
                self.assertTrue(line.split()[3].startswith("127.0.0.1:"), line)
        with self.lab.socket("wan") as outside:
            outside.settimeout(2)
            self.assertNotEqual(outside.connect_ex((ROUTER_WAN, 1883)), 0)


class Matrix(LabTest):
    """S20: the rules hold on every way to a topic."""

    CONFIG_TEXT = config() + f"""
mqtt:
  listeners: [{{name: lan, type: tcp, listen: {ROUTER_LAN}:1883}}]
  users:
    - {{username: ann, password: a}}
    - {{username: bob, password: b}}
    - {{username: root, password: r, superuser: true}}
  password-storage: sha256
  acl:
    - {{permission: allow, username: ann, topics: ["t/#"]}}
    - {{permission: allow, username: ann, action: subscribe, topics: ["$SYS/broker/uptime"]}}
  acl-default: deny
"""

    def join(self, user, name=None, will=None, flags=0xC2):
        """A connection of 5.0 and the reason of its CONNACK."""
        wire = Wire(self.lab.connect("lan1", ROUTER_LAN, 1883))
        self.addCleanup(wire.socket.close)
        payload = (b"\x00" + text(will) + text("w") if will else b"") + text(user) + text(user[0])
        wire.send(connect(name or f"{user}-x", V5, flags | (4 if will else 0), payload=payload))
        return wire, wire.packet()[3]

    def may(self, user, way, topic):
        wire, joined = self.join(user, will=topic if way == "will" else None)
        if way == "will":
            return joined == 0
        self.assertEqual(joined, 0)
        if way in ("publish", "retain", "delayed"):
            to = f"$delayed/1/{topic}" if way == "delayed" else topic
            wire.send(publish(to, b"x", 1, flags=1 if way == "retain" else 0))
            return wire.packet()[4:5] < b"\x80"
        filters = {"subscribe": topic, "share": f"$share/g/{topic}", "queue": f"$queue/{topic}"}
        wire.send(subscribe(filters[way]))
        return wire.packet()[-1] < 0x80

    def test_rules_hold_on_every_way_to_a_topic(self):
        writing, reading = ("publish", "retain", "delayed", "will"), ("subscribe", "share", "queue")
        for user, topic, writes, reads in (
            ("ann", "t/x", True, True), ("ann", "u", False, False), ("ann", "$SYS/broker/uptime", False, True), ("ann", "$SYS/brokers", False, False),
            ("ann", "$router/x", False, False), ("ann", "$query/x", False, False), ("bob", "t/x", False, False), ("bob", "$SYS/broker/uptime", False, False),
            ("root", "u", True, True), ("root", "$SYS/broker/uptime", False, True),
        ):
            for way in writing + reading:
                with self.subTest(user=user, topic=topic, way=way):
                    self.assertEqual(self.may(user, way, topic), writes if way in writing else reads)

    def test_wildcards_read_nothing_that_no_rule_allows(self):
        for filter_ in ("#", "+/x", "t/+/../#", "$SYS/#", "$SYS/broker/+", "$share/g/#"):
            with self.subTest(filter_):
                self.assertEqual(self.may("ann", "subscribe", filter_), filter_.startswith("t/"))


class Floods(LabTest):
    """S21 to S24: floods before and after CONNECT."""

    CONFIG_TEXT = f"""
mode: direct
dns:
  enable: true
  listen: {ROUTER_LAN}:1053
  nameserver: [5.5.5.53]
hosts: {{cached.test: 192.168.77.9}}
mqtt:
  listeners: [{{name: lan, type: tcp, listen: {ROUTER_LAN}:1883, max-connections: 20000}}]
  users: [{{username: ann, password-hash: "{HASH}"}}]
  allow-anonymous: true
  persistence: false
  max-awaiting-rel: 20
  max-subscriptions: 50
  max-sessions: 20000
  max-retained: 100
  max-retained-bytes: 64KB
  max-packet-size: 64KB
"""

    def wire(self, data=b""):
        wire = Wire(self.lab.connect("lan1", ROUTER_LAN, 1883))
        self.addCleanup(wire.socket.close)
        wire.send(data)
        return wire

    def joined(self, name, version=V5, **options):
        wire = self.wire(connect(name, version, **options))
        self.assertEqual(wire.packet()[3], 0)
        return wire

    def dns_times(self, until, times):
        """Asks for a name again and again, and notes how long each answer takes, in milliseconds;
        one that does not come in five seconds took for ever."""
        query = bytes.fromhex("000101000001000000000000") + b"\x06cached\x04test\x00\x00\x01\x00\x01"
        asker = self.lab.socket("lan2", socket.SOCK_DGRAM)
        with asker:
            asker.settimeout(5)
            asker.connect((ROUTER_LAN, 1053))
            while not until.is_set():
                began = time.monotonic()
                try:
                    asker.send(query)
                    asker.recv(512)
                except OSError:
                    times.append(math.inf)
                    return
                times.append((time.monotonic() - began) * 1000)
                time.sleep(0.001)

    def test_a_flood_of_logins_leaves_the_names_quick(self):
        done, times = threading.Event(), []
        asking = threading.Thread(target=self.dns_times, args=(done, times))
        wires = [Wire(self.lab.connect("lan1", ROUTER_LAN, 1883, seconds=120)) for _ in range(200)]
        asking.start()
        for number, wire in enumerate(wires):
            self.addCleanup(wire.socket.close)
            wire.send(login("ann", "plain" if number % 2 else "wrong", f"login{number}"))
        answers = [wire.take(4) for wire in wires]
        done.set()
        asking.join()
        self.assertEqual(answers, [ACCEPTED if number % 2 else b"\x20\x02\x00\x04" for number in range(200)])
        self.assertNotIn(math.inf, times)
        self.assertGreater(len(times), 100)
        self.assertLess(statistics.quantiles(times, n=100)[98], 50, "ms, the 99th of a hundred")

    def test_what_is_announced_before_connect_costs_nothing(self):
        bystander = self.joined("bystander", V4, keep_alive=0)
        self.lab.ns("lan2", "mosquitto_pub", "-h", ROUTER_LAN, "-t", "warm", "-m", "up")
        before = memory(self.daemon.process)
        # The beginnings of packets that never end: CVE-2017-7651 and CVE-2023-0809 lived of these.
        openings = (b"\x10\xff\xff\xff\x7f", b"\x10\xff\xff\xff\xff", b"\x82\xff\xff\xff\x7f" + bytes(400), b"\x30\x80\x80\x80\x01", b"\x00" * 400)
        for opening in openings:
            wires = [self.wire(opening) for _ in range(100)]
            for wire in wires:
                self.assertIn(wire.rest()[:1], (b"", b"\x20"))
        silent = [self.wire(b"\x10") for _ in range(500)]
        self.assertLess(memory(self.daemon.process) - before, 2048, "KB")
        began = time.monotonic()
        for wire in silent:
            self.assertEqual(wire.rest(), b"")
        self.assertLess(time.monotonic() - began, 20)
        bystander.send(b"\xc0\x00")
        self.assertEqual(bystander.packet(), b"\xd0\x00")

    def test_every_count_has_an_end(self):
        bystander = self.joined("still-there", V4, keep_alive=0)
        # CVE-2019-11779, no name at all, not UTF-8, NUL, a wildcard.
        for topic in ("/" * 65_000, "/" * 40, "", b"\xff\xfe", "a\0b", "a/#"):
            with self.subTest(topic=topic[:10]):
                wire = self.joined("topics")
                wire.send(publish(topic, b"x"))
                self.assertEqual(wire.packet()[:1], b"\xe0")
                wire = self.joined("topics")
                wire.send(subscribe(topic) if topic != "a/#" else subscribe("a/#/b"))
                answer = wire.packet()
                self.assertTrue(answer[0] == 0xE0 or answer[-1] >= 0x80, answer)
        # CVE-2023-28366: begun and never released.
        wire = self.joined("qos2")
        for identifier in range(1, 40):
            wire.send(publish("t", b"x", 2, identifier))
        answers = []
        while answer := wire.packet():
            answers.append(answer)
        self.assertEqual((len(answers), answers[-1][0], answers[-1][2]), (21, 0xE0, 0x93))
        # Aliases, subscriptions, packets, retained messages.
        wire = self.joined("alias")
        wire.send(publish("t", b"x", own=b"\x23\xff\xff"))
        self.assertEqual(wire.packet()[:1], b"\xe0")
        wire = self.joined("subscriber")
        granted = []
        for number in range(60):
            wire.send(subscribe(f"many/{number}"))
            granted.append(wire.packet()[-1])
        self.assertEqual(granted, [0] * 50 + [0x97] * 10)
        wire = self.joined("large")
        wire.send(publish("t", b"x" * 70_000))
        self.assertEqual(wire.packet()[2], 0x95)
        wire = self.joined("keeper")
        for number in range(200):
            wire.send(publish(f"kept/{number}", b"x" * 100, 1, flags=1))
            wire.packet()
        for number in range(3):
            wire.send(publish(f"kept/{number}", b"x" * 60_000, 1, flags=1))
            wire.packet()
        wire.send(subscribe("kept/#"))
        self.assertEqual(wire.packet()[:1], b"\x90")
        sizes = [len(wire.packet()) for _ in range(100)]
        self.assertLess(sum(sizes), 65_536)
        wire.send(b"\xc0\x00")
        self.assertEqual(wire.packet(), b"\xd0\x00")
        # User properties without number: bounded by their packet.
        wire = self.joined("properties")
        pairs = b"\x26\x00\x00\x00\x00" * 10_000
        length = bytes([0x80 | len(pairs) & 0x7F, 0x80 | len(pairs) >> 7 & 0x7F, len(pairs) >> 14])
        wire.send(packet(0x32, text("t"), b"\x00\x01", length, pairs))
        self.assertEqual(wire.packet()[:1], b"\x40")
        bystander.send(b"\xc0\x00")
        self.assertEqual(bystander.packet(), b"\xd0\x00")

    def test_who_is_silent_is_sent_away_after_one_and_a_half_times_its_word(self):
        for version in (V4, V5):
            wire = self.joined(f"silent{version}", version, keep_alive=2)
            began = time.monotonic()
            wire.socket.settimeout(10)
            last = wire.rest()
            self.assertEqual(last[2:3], b"" if version == V4 else b"\x8d")
            self.assertTrue(2.9 < time.monotonic() - began < 5)

    def test_a_session_is_taken_over_whole(self):
        old = self.joined("twin", flags=0, own=b"\x11\x00\x00\x00\x3c")
        old.send(subscribe("twin", 1))
        old.packet()
        for _ in range(20):
            new = self.joined("twin", flags=0, own=b"\x11\x00\x00\x00\x3c")
            self.assertEqual(old.packet()[:3][2:], b"\x8e")
            self.assertEqual(old.rest(), b"")
            old = new
        old.send(publish("twin", b"hello", 1, 9))
        got = sorted([old.packet(), old.packet()])
        self.assertTrue(got[0][0] & 0xF0 == 0x30 and got[1][0] == 0x40, got)

    def test_half_open_connections_are_let_go(self):
        """CVE-2020-13849: a thousand that fell silent without a word. `HALF_OPEN` in the environment: how many."""
        count = int(os.environ.get("HALF_OPEN", "1000"))
        wires = [self.wire(connect(f"half{number}", V4, keep_alive=3 + count // 300)) for number in range(count)]
        for wire in wires:
            self.assertEqual(wire.take(4), ACCEPTED)
        established = lambda: len(self.lab.ns("gw", "ss", "-Hnt", "state", "established", "sport", "=", ":1883").splitlines())
        self.assertGreaterEqual(established(), count)
        self.lab.ip("lan1", "link", "set", "eth0", "down")
        try:
            wait_for("their ends", lambda: established() < 10, 10 + count / 100)
        finally:
            self.lab.ip("lan1", "link", "set", "eth0", "up")
            self.lab.ip("lan1", "route", "replace", "default", "via", ROUTER_LAN)
        for wire in wires:
            wire.socket.close()
        self.joined("after", V4)


# Where the kernel knows no more sockets to watch, and where waiting for them fails once.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>
int epoll_ctl(int poll, int what, int fd, struct epoll_event *event) {
    int (*real)(int, int, int, struct epoll_event *) = dlsym(RTLD_NEXT, "epoll_ctl");
    /* Ours is the one that asks for RDHUP with writing and edges. */
    unsigned ours = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    if (what == EPOLL_CTL_ADD && event->events == ours && event->data.u64 < 1000000 && access(FULL, F_OK) == 0) {
        errno = ENOSPC;
        return -1;
    }
    return real(poll, what, fd, event);
}
int epoll_wait(int poll, struct epoll_event *events, int max, int timeout) {
    int (*real)(int, struct epoll_event *, int, int) = dlsym(RTLD_NEXT, "epoll_wait");
    if (timeout == 0 && max == 256 && unlink(BROKEN) == 0) {
        errno = EIO;
        return -1;
    }
    return real(poll, events, max, timeout);
}
"""


class Exhausted(LabTest):
    """What the kernel refuses is told, and clients are waited for again."""

    TEXT = f"""
mode: direct
log-level: info
mqtt:
  listeners: [{{name: lan, type: tcp, listen: {ROUTER_LAN}:1883}}]
  allow-anonymous: true
management: {{listen: {ROUTER_LAN}:8081, applications: [{{id: a, secret: b}}]}}
"""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.full, cls.broken, shim = (cls.lab.directory / name for name in ("full", "broken", "shim.so"))
        source = shim.with_suffix(".c")
        source.write_text(SHIM)
        subprocess.run(["cc", "-shared", "-fPIC", f'-DFULL="{cls.full}"', f'-DBROKEN="{cls.broken}"', "-o", str(shim), str(source), "-ldl"], check=True, timeout=60)
        os.environ["LD_PRELOAD"] = str(shim)
        try:
            cls.daemon = Daemon(cls.lab, cls.TEXT).start()
        finally:
            del os.environ["LD_PRELOAD"]

    def ping(self, wire):
        wire.send(b"\xc0\x00")
        self.assertEqual(wire.packet(), b"\xd0\x00")

    def joined(self, name, version=V4):
        wire = Wire(self.lab.connect("lan1", ROUTER_LAN, 1883))
        self.addCleanup(wire.socket.close)
        wire.send(connect(name, version, keep_alive=0))
        return wire

    def test_a_client_that_cannot_be_watched_is_refused_and_counted(self):
        first = self.joined("first")
        self.assertEqual(first.packet(), ACCEPTED)
        self.full.touch()
        for version, reason in ((V4, 3), (V5, 0x89)):
            wire = self.joined("second", version)
            self.assertEqual(wire.packet()[3], reason)
            self.assertEqual(wire.rest(), b"")
        self.full.unlink()
        wait_for("the word about it", lambda: self.daemon.said("mqtt: clients are turned away: "))
        self.ping(first)
        third = self.joined("third")
        self.assertEqual(third.packet(), ACCEPTED)
        metrics = self.daemon.manage("GET", "/metrics", login="a:b")[1]
        self.assertEqual(metrics["data"][0]["metrics"]["client.turned_away"], 2)

    def test_when_waiting_fails_it_is_begun_anew_and_nobody_is_passed_over(self):
        wires = [self.joined(f"waits{number}") for number in range(5)]
        for wire in wires:
            self.assertEqual(wire.packet(), ACCEPTED)
        self.broken.touch()
        for wire in wires:
            self.ping(wire)
        self.assertFalse(self.broken.exists())
        wait_for("the word about it", lambda: self.daemon.said("mqtt: clients cannot be waited for"))
