"""Bridges to a real mosquitto on the Internet: both ways, cut and back, loops, TLS, a broker that does not read."""

import socket
import subprocess
import threading
import time

from lab import DIRECT, HEADGATE, ROUTER_LAN, Daemon, LabTest, run, wait_for

CONFIG = """
mode: direct
log-level: info
mqtt:
  listeners: [{{name: tcp, type: tcp, listen: {router}:1883}}]
  allow-anonymous: true
  acl: [{{permission: allow, action: subscribe, topics: ["$SYS/#"]}}]
  persistence-sync: strict
  bridges:
    - name: cloud
      server: {server}
      username: site
      password: secret
      {more}
      topics:
        - {{filter: "sensors/#", direction: out, qos: 2, remote-prefix: "site1/"}}
        - {{filter: "orders/#", direction: in, qos: 2, local-prefix: "cloud/"}}
        - {{filter: "shared/#", direction: both, qos: 1}}
"""


CUT = """
table inet cut
delete table inet cut
table inet cut {
    chain input { type filter hook input priority 0; tcp dport 1883 reject with tcp reset; }
}
"""


class Bridge(LabTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        directory = cls.lab.directory
        cls.passwords = directory / "passwords"
        authority = cls.lab.authority()
        authority.sign("served", f"subjectAltName=IP:{DIRECT}")
        authority.sign("site")
        cls.tls = authority.place
        run("mosquitto_passwd", "-b", "-c", str(cls.passwords), "site", "secret")
        cls.mosquitto_file = directory / "mosquitto.conf"
        cls.mosquitto_file.write_text(f"""
listener 1883 {DIRECT}
listener 8883 {DIRECT}
certfile {directory}/leaf.pem
keyfile {directory}/key.pem
listener 8884 {DIRECT}
certfile {authority.place}/served.pem
keyfile {authority.place}/served.key
cafile {authority.ca}
require_certificate true
password_file {cls.passwords}
persistence true
persistence_location {directory}/
autosave_interval 1
user root
""")

    def setUp(self):
        self.mosquitto = None
        self.addCleanup(self.stop_mosquitto)
        self.start_mosquitto()

    def start_mosquitto(self):
        self.mosquitto = self.lab.spawn("wan", "mosquitto", "-c", str(self.mosquitto_file), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for("mosquitto", lambda: f"{DIRECT}:1883" in self.lab.ns("wan", "ss", "-lnt"))

    def stop_mosquitto(self):
        if self.mosquitto:
            self.mosquitto.terminate()
            self.mosquitto.wait()
            self.mosquitto = None

    def headgate(self, more="", server=f"{DIRECT}:1883"):
        daemon = Daemon(self.lab, CONFIG.format(router=ROUTER_LAN, server=server, more=more)).start()
        self.addCleanup(lambda: daemon.process and daemon.stop())
        return daemon

    def up(self, daemon):
        wait_for("the bridge", lambda: daemon.said("mqtt bridge cloud: connected"), 20)

    def client(self, side, program, *arguments, seconds=20):
        """A program of mosquitto's at one end of the bridge."""
        where, host = ("lan1", ROUTER_LAN) if side == "here" else ("wan", DIRECT)
        login = [] if side == "here" else ["-u", "site", "-P", "secret"]
        return self.lab.ns(where, program, "-h", host, *login, *arguments, check=False, timeout=seconds)

    def subscribe(self, side, *arguments):
        where, host = ("lan2", ROUTER_LAN) if side == "here" else ("wan", DIRECT)
        login = [] if side == "here" else ["-u", "site", "-P", "secret"]
        return self.subscribed(where, host, *login, "-W", "30", *arguments)

    @staticmethod
    def lines(process):
        return [line.rstrip("\n") for line in process.stdout if not line.startswith(("Client ", "Subscribed", "Connection", "Timed out"))]

    def passes(self):
        """Messages of every quality go out and come in, under their prefixes."""
        there = self.subscribe("there", "-q", "2", "-t", "site1/#", "-C", "3", "-F", "%t %q %p")
        here = self.subscribe("here", "-q", "2", "-t", "cloud/#", "-C", "3", "-F", "%t %q %p")
        for qos in ("0", "1", "2"):
            self.client("here", "mosquitto_pub", "-q", qos, "-t", f"sensors/{qos}", "-m", f"out {qos}")
            self.client("there", "mosquitto_pub", "-q", qos, "-t", f"orders/{qos}", "-m", f"in {qos}")
        self.assertEqual(self.lines(there), [f"site1/sensors/{qos} {qos} out {qos}" for qos in range(3)])
        self.assertEqual(self.lines(here), [f"cloud/orders/{qos} {qos} in {qos}" for qos in range(3)])

    def test_messages_go_both_ways_under_their_prefixes_in_every_version(self):
        for version in ("5", "3.1.1", "3.1"):
            with self.subTest(version):
                daemon = self.headgate(f'version: "{version}"')
                self.up(daemon)
                self.passes()
                state = self.client("here", "mosquitto_sub", "-t", "$SYS/broker/connection/cloud/state", "-C", "1", "-W", "30")
                self.assertEqual(state.strip(), "1")
                daemon.stop()

    def test_over_tls_with_the_certificate_pinned(self):
        pin = run("openssl", "x509", "-in", str(self.lab.directory / "leaf.pem"), "-noout", "-fingerprint", "-sha256").split("=")[1].strip()
        daemon = self.headgate(f'tls: true\n      fingerprint: "{pin}"', f"{DIRECT}:8883")
        self.up(daemon)
        self.passes()
        daemon.stop()
        other = self.headgate('tls: true', f"{DIRECT}:8883")
        wait_for("a refusal", lambda: other.said("mqtt bridge cloud:"), 20)
        self.assertFalse(other.said("connected to"))

    def test_a_broker_that_asks_for_a_certificate_gets_one(self):
        files = self.tls
        own = f"certificate: {files}/site.pem\n      private-key: {files}/site.key"
        daemon = self.headgate(f"tls: true\n      ca: {files}/ca.pem\n      {own}", f"{DIRECT}:8884")
        self.up(daemon)
        self.passes()
        daemon.stop()
        for more in (f"tls: true\n      ca: {files}/ca.pem", f"tls: true\n      {own}", f"tls: true\n      ca: {files}/nothing.pem"):
            with self.subTest(more):
                other = self.headgate(more, f"{DIRECT}:8884")
                wait_for("a refusal", lambda: other.said("mqtt bridge cloud:"), 20)
                self.assertFalse(other.said("connected to"))
                other.stop()

    def test_two_headgates_carry_for_each_other(self):
        """Both ways between two of our own, the other one on the Internet; what was sent while it was away too."""
        self.stop_mosquitto()
        there = f"""
mode: direct
log-level: info
mqtt:
  listeners: [{{name: tcp, type: tcp, listen: {DIRECT}:1883}}]
  users: [{{username: site, password: secret}}]
  persistence-sync: strict
"""
        directory = self.lab.directory / "there"
        directory.mkdir(exist_ok=True)
        (directory / "config.yaml").write_text(there)

        def start():
            process = self.lab.spawn("wan", HEADGATE, "-d", str(directory), stderr=subprocess.DEVNULL)
            wait_for("the other one", lambda: f"{DIRECT}:1883" in self.lab.ns("wan", "ss", "-lnt"))
            return process

        other = start()
        self.addCleanup(lambda: (other.kill(), other.wait()))
        daemon = self.headgate()
        self.up(daemon)
        self.passes()
        late = ("-i", "late", "-c", "-q", "2", "-t", "site1/#")
        self.client("there", "mosquitto_sub", *late, "-E")
        other.kill()
        other.wait()
        wait_for("the loss", lambda: daemon.said("mqtt bridge cloud: "), 20)
        for number in range(50):
            self.client("here", "mosquitto_pub", "-q", "2", "-t", f"sensors/{number}", "-m", str(number))
        other = start()
        got = self.client("there", "mosquitto_sub", *late, "-C", "50", "-W", "30", "-F", "%p", seconds=40)
        self.assertEqual(got.split(), [str(number) for number in range(50)])

    def test_what_goes_both_ways_does_not_go_round(self):
        for version in ("5", "3.1.1"):
            with self.subTest(version):
                daemon = self.headgate(f'version: "{version}"')
                self.up(daemon)
                heard = [(self.subscribe(side, "-t", "shared/#", "-F", "%p", "-W", "60"), []) for side in ("here", "there")]
                # What goes round comes again before what is sent after it came the first time.
                for word in ("first", "then"):
                    for side in ("here", "there"):
                        self.client(side, "mosquitto_pub", "-q", "1", "-t", "shared/a", "-m", f"{word} from {side}")
                    for process, lines in heard:
                        while sum(line.startswith(word) for line in lines) < 2:
                            lines.append(process.stdout.readline().rstrip("\n"))
                            self.assertTrue(lines[-1], lines)
                for _, lines in heard:
                    said = sorted(line for line in lines if " from " in line)
                    self.assertEqual(said, ["first from here", "first from there", "then from here", "then from there"])
                daemon.stop()

    def test_a_refused_login_is_said_once_and_tried_on(self):
        daemon = Daemon(self.lab, CONFIG.format(router=ROUTER_LAN, server=f"{DIRECT}:1883", more="").replace("password: secret", "password: wrong")).start()
        self.addCleanup(daemon.stop)
        wait_for("the refusal", lambda: daemon.said("the broker says: not authorized") or daemon.said("refuses user or password"), 20)
        time.sleep(3)
        self.assertEqual(sum("mqtt bridge cloud" in line for line in daemon.lines), 1)

    def test_a_broker_that_was_away_gets_what_waited_each_once_and_in_order(self):
        """Cut four times while messages of QoS 2 go out; the router is killed once meanwhile."""
        daemon = self.headgate()
        self.up(daemon)
        sub = ("-i", "archive", "-c", "-q", "2", "-t", "site1/#")
        self.client("there", "mosquitto_sub", *sub, "-E")
        sent = 0
        for cut in range(4):
            for _ in range(2):
                payload = "".join(f"{number}\n" for number in range(sent, sent + 20))
                done = subprocess.run(
                    ["ip", "netns", "exec", self.lab.names["lan1"], "mosquitto_pub", "-h", ROUTER_LAN, "-q", "2", "-t", "sensors/n", "-l"],
                    input=payload, text=True, timeout=20, check=False,
                )
                self.assertEqual(done.returncode, 0, "local clients are not held up")
                sent += 20
                # By its end, or by a wire that breaks: then it believes for a while that we are there.
                if cut % 2:
                    self.lab.ns("wan", "nft", "-f", "-", input=CUT)
                else:
                    self.stop_mosquitto()
            if cut == 2:
                daemon.kill()
                daemon.start()
            if cut % 2:
                self.lab.ns("wan", "nft", "delete", "table", "inet", "cut")
            else:
                self.start_mosquitto()
            began = time.monotonic()
            wait_for("the bridge again", self.is_up, 20)
            self.assertLess(time.monotonic() - began, 12)
        self.client("here", "mosquitto_pub", "-q", "2", "-t", "sensors/n", "-m", "end")
        got = self.client("there", "mosquitto_sub", *sub, "-C", str(sent + 1), "-W", "30", seconds=40).split()
        self.assertEqual(got, [*map(str, range(sent)), "end"])

    def is_up(self):
        state = self.client("here", "mosquitto_sub", "-t", "$SYS/broker/connection/cloud/state", "-C", "1", "-W", "2")
        return state.strip() == "1"

    def test_a_broker_that_does_not_read_delays_nobody_here(self):
        server = self.listener("wan", DIRECT, 1999)

        def stall():
            connection, _ = server.accept()
            connection.recv(1000)
            connection.sendall(b"\x20\x03\x00\x00\x00")  # let in, and never read from again
            self.stalled = connection

        threading.Thread(target=stall, daemon=True).start()
        daemon = self.headgate(server=f"{DIRECT}:1999")
        self.up(daemon)
        listener = self.subscribe("here", "-q", "1", "-t", "sensors/#", "-C", "700", "-F", "%p")
        began = time.monotonic()
        payload = "".join(f"{number:08}" + "x" * 4000 + "\n" for number in range(700))
        done = subprocess.run(
            ["ip", "netns", "exec", self.lab.names["lan1"], "mosquitto_pub", "-h", ROUTER_LAN, "-q", "1", "-t", "sensors/n", "-l"],
            input=payload, text=True, timeout=120, check=False,
        )
        self.assertEqual(done.returncode, 0)
        got = [line[:8] for line in self.lines(listener)]
        self.assertEqual(got, [f"{number:08}" for number in range(700)])
        # Before the bridge's keep-alive could have ended the other's silence.
        self.assertLess(time.monotonic() - began, 60)
        self.stalled.close()
        server.close()

    def listener(self, where, address, port):
        """A listening socket of this process in a namespace."""
        made = self.lab.socket(where)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.bind((address, port))
        made.listen(1)
        return made

    def test_a_bridge_that_is_taken_out_leaves_nothing(self):
        daemon = self.headgate()
        self.up(daemon)
        text = daemon.file.read_text()
        daemon.file.write_text(text[:text.index("  bridges:")])
        daemon.signal(1)
        wait_for("its end", lambda: self.client("here", "mosquitto_sub", "-t", "$SYS/broker/connection/cloud/state", "-C", "1", "-W", "1").strip() != "1", 10)
        watcher = self.subscribe("there", "-t", "site1/#", "-F", "%p", "-W", "2")
        self.client("here", "mosquitto_pub", "-q", "1", "-t", "sensors/x", "-m", "alone")
        self.assertEqual(self.lines(watcher), [])
