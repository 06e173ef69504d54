"""What bounds clients of the broker, and what it says of itself: rates, flapping, shares, $SYS, over a live LAN."""

import json
import signal
import subprocess
import time

from lab import HEADGATE, ROUTER_LAN, LabTest, config, wait_for
from test_mqtt_conformance import V4, Wire, connect, publish

LIMITS = """
mqtt:
  listeners:
    - {{name: tcp, type: tcp, listen: {router}:1883, max-connections: 40}}
    - {{name: slow, type: tcp, listen: {router}:1884, max-connection-rate: 10}}
  allow-anonymous: true
  acl: [{{permission: allow, client-id: watcher, action: subscribe, topics: ["$SYS/#"]}}]
  max-message-rate: 200
  shared-subscription-strategy: sticky
  flapping-detect: {{count: 5, window: 1m, ban: 2m}}
management:
  listen: {router}:8081
  node: shop@192.168.77.1
  applications: [{{id: first, secret: hidden}}]
"""


class Limits(LabTest):
    CONFIG_TEXT = config() + LIMITS.format(router=ROUTER_LAN)

    def ask(self, path, method="GET", body=None, login="first:hidden"):
        return self.daemon.manage(method, path, body, login)

    def subscribe(self, *arguments):
        """A mosquitto_sub whose subscription is in force."""
        return self.subscribed("lan2", ROUTER_LAN, "-W", "20", *arguments)

    def publish(self, *arguments, lines=None):
        command = ["ip", "netns", "exec", self.lab.names["lan1"], "mosquitto_pub", "-h", ROUTER_LAN, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, input=lines)

    def test_who_sends_faster_than_he_may_is_held_back_and_loses_nothing(self):
        reader = self.subscribe("-t", "fast", "-C", "500", "-q", "1")
        began = time.monotonic()
        done = self.publish("-t", "fast", "-l", "-q", "1", lines="".join(f"{n}\n" for n in range(500)))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.lines(reader), [str(n) for n in range(500)])
        # A second's worth comes at once, the other 300 in step.
        self.assertGreater(time.monotonic() - began, 1.4)

    def test_what_came_at_once_is_handed_on_in_step_without_another_word(self):
        for behind_connect in (False, True):
            with self.subTest(behind_connect=behind_connect):
                reader = self.subscribe("-t", "burst", "-C", "500")
                wire = Wire(self.lab.connect("lan1", ROUTER_LAN, 1883))
                self.addCleanup(wire.socket.close)
                hello, burst = connect("burst", V4), b"".join(publish("burst", b"%d" % n, version=V4) for n in range(500))
                wire.send(hello + burst if behind_connect else hello)
                self.assertEqual(wire.packet(), b"\x20\x02\x00\x00")
                if not behind_connect:
                    wire.send(burst)
                self.assertEqual(self.lines(reader), [str(n) for n in range(500)])

    def test_further_connections_of_a_second_wait_their_turn(self):
        script = (
            "import socket, sys, time\n"
            "hello = bytes.fromhex('101000044d5154540402003c0004') + b'%04d'\n"
            "began = time.monotonic()\n"
            f"sockets = [socket.create_connection(('{ROUTER_LAN}', 1884)) for n in range(30)]\n"
            "for n, s in enumerate(sockets): s.sendall(hello % n)\n"
            "assert all(s.recv(4) == bytes([32, 2, 0, 0]) for s in sockets)\n"
            "print(time.monotonic() - began)\n"
        )
        took = float(self.lab.ns("lan2", "python3", "-c", script))
        self.assertGreater(took, 1.5)
        self.assertLess(took, 10)

    def test_a_client_that_comes_and_goes_is_kept_out_and_shown(self):
        for _ in range(5):
            self.assertEqual(self.publish("-i", "flapper", "-t", "x", "-m", "y").returncode, 0)
        wait_for("the ban", lambda: self.ask("/banned")[1]["data"])
        (ban,) = self.ask("/banned")[1]["data"]
        self.assertEqual((ban["as"], ban["who"], ban["by"], ban["until"] - ban["at"]), ("clientid", "flapper", "flapping detector", 120))
        self.assertNotEqual(self.publish("-i", "flapper", "-t", "x", "-m", "y", "-q", "1").returncode, 0)
        self.assertEqual(self.publish("-i", "another", "-t", "x", "-m", "y", "-q", "1").returncode, 0)
        self.assertEqual(self.ask("/banned/clientid/flapper", "DELETE"), (200, {"code": 0}))
        self.assertEqual(self.publish("-i", "flapper", "-t", "x", "-m", "y", "-q", "1").returncode, 0)

    def test_one_member_of_a_share_has_all_until_he_goes(self):
        first = self.subscribe("-i", "one", "-t", "$share/g/work/#", "-q", "1", "-C", "10")
        second = self.subscribe("-i", "two", "-t", "$share/g/work/#", "-q", "1", "-C", "10")
        for n in range(20):
            self.publish("-t", f"work/{n}", "-m", str(n), "-q", "1", "-i", f"boss{n}")
        self.assertEqual(self.lines(first), [str(n) for n in range(10)])
        self.assertEqual(self.lines(second), [str(n) for n in range(10, 20)])

    def test_the_broker_tells_of_itself_whom_a_rule_allows(self):
        watcher = self.subscribe("-i", "watcher", "-t", "$SYS/#", "-F", "%t %p", "-W", "30")
        self.publish("-i", "passer-by", "-t", "x", "-m", "y")
        said = {}
        for line in watcher.stdout:
            topic, _, payload = line.rstrip("\n").partition(" ")
            said[topic] = payload
            if topic.endswith("/passer-by/disconnected"):
                break
        self.assertEqual(said["$SYS/brokers"], "shop@192.168.77.1")
        for topic in ("version", "sysdescr", "uptime", "datetime", "stats/connections.count", "metrics/bytes/received"):
            self.assertTrue(said[f"$SYS/brokers/shop@192.168.77.1/{topic}"], topic)
        for topic in ("version", "uptime", "clients/connected", "messages/received", "load/bytes/sent/5min"):
            self.assertTrue(said[f"$SYS/broker/{topic}"], topic)
        self.assertRegex(said["$SYS/brokers/shop@192.168.77.1/datetime"], r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$")
        came = json.loads(said["$SYS/brokers/shop@192.168.77.1/clients/passer-by/connected"])
        self.assertEqual((came["clientid"], came["ipaddress"], came["connack"]), ("passer-by", "192.168.77.11", 0))
        went = json.loads(said["$SYS/brokers/shop@192.168.77.1/clients/passer-by/disconnected"])
        self.assertEqual(went["reason"], "normal")
        refused = subprocess.run(("ip", "netns", "exec", self.lab.names["lan2"], "mosquitto_sub", "-h", ROUTER_LAN, "-i", "other", "-t", "$SYS/#", "-W", "2"),
                                 capture_output=True, text=True, timeout=10, check=False)
        self.assertIn("All subscription requests were denied", refused.stderr)
        denied = self.publish("-V", "mqttv5", "-d", "-i", "watcher", "-q", "1", "-t", "$SYS/broker/version", "-m", "mine")
        self.assertIn("RC:135", denied.stdout)

    def test_alarms_and_their_history(self):
        for path, of_node in (("/alarms", False), ("/alarms/activated", False), ("/alarms/deactivated", False), ("/nodes/shop@192.168.77.1/alarms/activated", True)):
            status, answer = self.ask(path)
            data = answer["data"]
            self.assertEqual((status, data if of_node else [one["node"] for one in data]), (200, [] if of_node else ["shop@192.168.77.1"]))
        lower = lambda body: self.ask("/alarms/deactivated", "POST", body)
        self.assertEqual(lower('{"node":"shop@192.168.77.1","name":"none"}')[0], 404)
        self.assertEqual(lower("{}")[1]["code"], 107)
        self.assertEqual(self.ask("/alarms/deactivated", "DELETE"), (200, {"code": 0}))

    def test_applications_are_managed_on_the_command_line(self):
        app = lambda *words: subprocess.run([HEADGATE, "app", "-d", str(self.daemon.directory), *words], capture_output=True, text=True, timeout=20, check=False)
        secret = app("add", "panel").stdout.strip()
        self.assertRegex(secret, r"^[0-9a-f]{32,}$")
        self.assertEqual((app("list").stdout, app("add", "panel").returncode), ("panel\n", 1))
        self.assertNotIn(secret, (self.daemon.directory / "applications.json").read_text())
        known = lambda: self.ask("/brokers", login=f"panel:{secret}")[0]
        self.assertEqual(known(), 401)
        self.daemon.signal(signal.SIGHUP)
        wait_for("the application", lambda: known() == 200)
        self.assertEqual(self.ask("/brokers", login="panel:" + "0" * len(secret))[0], 401)
        self.assertEqual((app("remove", "panel").returncode, app("remove", "panel").returncode), (0, 1))
        self.daemon.signal(signal.SIGHUP)
        wait_for("its end", lambda: known() == 401)
        self.assertEqual(self.ask("/brokers")[0], 200)
        self.assertEqual((app("add", "-x").returncode, app().returncode), (2, 1))
