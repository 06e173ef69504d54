"""The MQTT broker over a live LAN: mosquitto's clients and paho, over TCP, TLS and WebSocket."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from lab import HEADGATE, ROUTER_LAN, Daemon, LabTest, config, wait_for

PAHO = str(pathlib.Path(__file__).with_name("mqtt_clients.py"))
HASH = "pbkdf2-sha256$50000$MDEyMzQ1Njc4OWFiY2RlZg==$NKTTAGhnY0PPWt4Ff0U+BeCOY7t2fZH2vFyPzrgGD6Q="

MQTT = """
mqtt:
  listeners:
    - {{name: tcp, type: tcp, listen: {router}:1883}}
    - {{name: tls, type: tls, listen: {router}:8883, certificate: {directory}/leaf.pem, private-key: {directory}/key.pem}}
    - {{name: ws, type: ws, listen: {router}:8083}}
    - {{name: wss, type: wss, listen: {router}:8084, certificate: {directory}/leaf.pem, private-key: {directory}/key.pem}}
    - {{name: mutual, type: tls, listen: {router}:8884, certificate: {directory}/leaf.pem, private-key: {directory}/key.pem, client-ca: {directory}/clients/ca.pem}}
    - {{name: open, type: tcp, listen: 127.0.0.1:1884}}
  users:
    - {{username: ann, password: plain}}
    - {{username: bob, password-hash: "{hash}"}}
  acl:
    - {{permission: deny, username: bob, action: publish, topics: ["locked/#"]}}
    - {{permission: allow, topics: ["own/%c/#"]}}
    - {{permission: deny, topics: ["own/#"]}}
"""


class Mqtt(LabTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for name in ("clients", "strangers"):
            cls.lab.authority(name).sign("phone", "extendedKeyUsage=clientAuth")
        # Its files are known only now.
        cls.text = config() + MQTT.format(router=ROUTER_LAN, directory=cls.lab.directory, hash=HASH)
        cls.daemon = Daemon(cls.lab, cls.text).start()

    def client(self, program, *arguments, where="lan1", user="ann", password="plain", seconds=15, **options):
        command = ["ip", "netns", "exec", self.lab.names[where], program, "-h", ROUTER_LAN]
        command += ["-u", user, "-P", password] if user else []
        return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=seconds, check=False, **options)

    def subscribe(self, *arguments, where="lan2", user="ann", password="plain"):
        """A mosquitto_sub whose subscription is in force."""
        return self.subscribed(where, ROUTER_LAN, "-u", user, "-P", password, "-W", "15", *arguments)

    def test_messages_go_from_device_to_device_in_every_version_and_quality(self):
        for version in ("mqttv31", "mqttv311", "mqttv5"):
            for qos in ("0", "1", "2"):
                topic = f"home/{version}/{qos}"
                subscriber = self.subscribe("-V", version, "-q", qos, "-t", "home/#", "-C", "2", "-F", "%t %q %p")
                done = self.client("mosquitto_pub", "-V", version, "-q", qos, "-t", topic, "-l", input="one\ntwo\n")
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(self.lines(subscriber), [f"{topic} {qos} one", f"{topic} {qos} two"])

    def test_only_who_may_comes_in(self):
        publish = ("-t", "x", "-m", "y", "-q", "1")
        for user, password, status in (("ann", "plain", 0), ("bob", "secret", 0), ("ann", "wrong", 5), ("eve", "plain", 5), (None, None, 5)):
            done = self.client("mosquitto_pub", *publish, user=user, password=password)
            self.assertEqual(done.returncode == 0, status == 0, f"{user}: {done.stderr}")

    def test_rules_decide_about_topics(self):
        done = self.client("mosquitto_pub", "-V", "mqttv5", "-d", "-q", "1", "-t", "locked/door", "-m", "open", user="bob", password="secret")
        self.assertIn("(Mid: 1, RC:135)", done.stdout)
        done = self.client("mosquitto_pub", "-V", "mqttv5", "-d", "-q", "1", "-t", "own/me/x", "-m", "1", "-i", "me")
        self.assertNotIn("RC:135", done.stdout)
        done = self.client("mosquitto_sub", "-t", "own/me/x", "-i", "other", "-W", "2", "-E")
        self.assertIn("denied", (done.stdout + done.stderr).lower())

    def test_a_retained_message_waits_and_a_will_is_said(self):
        self.client("mosquitto_pub", "-r", "-t", "state/lamp", "-m", "on", "-q", "1")
        done = self.client("mosquitto_sub", "-t", "state/+", "-C", "1", "-W", "30", "-F", "%r %p")
        self.assertEqual(done.stdout, "1 on\n")
        watcher = self.subscribe("-t", "wills/#", "-C", "1", "-F", "%t %p")
        doomed = self.subscribe("-t", "x", "--will-topic", "wills/lamp", "--will-payload", "gone", "-i", "doomed")
        doomed.kill()
        self.assertEqual(self.lines(watcher), ["wills/lamp gone"])

    def test_a_session_keeps_what_came_while_it_was_away(self):
        sub = ("-i", "sleeper", "-c", "-q", "1", "-t", "post/#")
        self.client("mosquitto_sub", *sub, "-E")
        self.client("mosquitto_pub", "-q", "1", "-t", "post/1", "-l", input="".join(f"{n}\n" for n in range(100)))
        done = self.client("mosquitto_sub", *sub, "-C", "100", "-W", "30")
        self.assertEqual(done.stdout.split(), [str(n) for n in range(100)])

    def test_request_and_response(self):
        """mosquitto_rr: response topic and correlation data of 5.0."""
        service = self.subscribe("-V", "mqttv5", "-t", "ask", "-C", "1", "-F", "%R %p")
        asker = subprocess.Popen(
            ["ip", "netns", "exec", self.lab.names["lan1"], "mosquitto_rr", "-h", ROUTER_LAN, "-u", "ann", "-P", "plain", "-V", "mqttv5", "-t", "ask", "-e", "answer/1", "-m", "time?", "-W", "10"],
            stdout=subprocess.PIPE, text=True,
        )
        self.assertEqual(self.lines(service), ["answer/1 time?"])
        self.client("mosquitto_pub", "-V", "mqttv5", "-t", "answer/1", "-m", "noon")
        self.assertEqual(asker.communicate(timeout=10)[0].strip(), "noon")

    def test_over_tls_with_the_certificate_checked(self):
        tls = ("-p", "8883", "--cafile", str(self.lab.directory / "leaf.pem"), "--insecure")
        done = self.client("mosquitto_pub", *tls, "-r", "-q", "1", "-t", "tls/x", "-m", "secret")
        self.assertEqual(done.returncode, 0, done.stderr)
        done = self.client("mosquitto_sub", *tls, "-t", "tls/x", "-C", "1", "-W", "30")
        self.assertEqual(done.stdout, "secret\n")
        self.assertNotEqual(self.client("mosquitto_pub", "-p", "8883", "-t", "tls/x", "-m", "plain text").returncode, 0)

    def test_a_listener_may_ask_for_certificates_of_its_clients(self):
        tls = ("-p", "8884", "--cafile", str(self.lab.directory / "leaf.pem"), "--insecure", "-t", "mutual", "-m", "x", "-q", "1")
        shown = lambda name: ("--cert", str(self.lab.directory / name / "phone.pem"), "--key", str(self.lab.directory / name / "phone.key"))
        done = self.client("mosquitto_pub", *tls, *shown("clients"))
        self.assertEqual(done.returncode, 0, done.stderr)
        # The certificate is asked for beside the password, not in its place.
        for refused in (tls, (*tls, *shown("strangers"))):
            self.assertNotEqual(self.client("mosquitto_pub", *refused).returncode, 0)
        self.assertNotEqual(self.client("mosquitto_pub", *tls, *shown("clients"), password="other").returncode, 0)

    def paho(self, name, port=1883):
        return self.lab.ns("lan1", sys.executable, PAHO, name, ROUTER_LAN, str(port), timeout=60)

    def test_paho_speaks_all_of_version_5(self):
        got = json.loads(self.paho("version5"))
        self.assertEqual(got["qos"], [0, 1, 2])
        self.assertEqual(got["content_type"], "text/x")
        self.assertEqual(got["response_topic"], "r/t")
        self.assertEqual(got["correlation"], "0102")
        self.assertEqual(got["user"], [["a", "b"], ["a", "c"]])
        self.assertEqual(got["identifier"], [42])
        self.assertLessEqual(got["expiry"], 100)
        self.assertFalse(got["own_came_back"])
        self.assertEqual(got["aliased"], ["al/x", "al/x"])

    def test_paho_keeps_order_and_loses_nothing_in_quality_two(self):
        got = json.loads(self.paho("order"))
        self.assertEqual(got["received"], list(range(2000)))
        self.assertTrue(got["taken_over"])

    def test_paho_over_a_websocket(self):
        self.assertEqual(json.loads(self.paho("websocket", 8083)), [1, 70_000, 900_000])
        self.assertEqual(json.loads(self.paho("secure", 8084)), [1, 70_000, 900_000])

    def test_reload_follows_users_and_drops_nobody_else(self):
        watcher = self.subscribe("-t", "reload/#", "-C", "1", "-F", "%p", user="bob", password="secret")
        concerned = self.subscribe("-t", "x", "-i", "concerned", "-V", "mqttv5")
        self.daemon.file.write_text(self.text.replace("username: ann, password: plain", "username: ann, password: changed"))
        self.addCleanup(self.reload, self.text)
        self.daemon.signal(signal.SIGHUP)
        publish = ("-t", "reload/x", "-m", "still here", "-q", "1")
        wait_for("the new password", lambda: self.client("mosquitto_pub", *publish, password="changed").returncode == 0)
        self.assertNotEqual(self.client("mosquitto_pub", *publish, password="plain").returncode, 0)
        self.assertEqual(self.lines(watcher), ["still here"])
        self.assertIn("Received DISCONNECT (135)", concerned.stdout.read())

    def test_a_listener_may_change_and_keep_its_port(self):
        self.addCleanup(self.reload, self.text)
        before = f"{{name: tcp, type: tcp, listen: {ROUTER_LAN}:1883}}"
        for address, works in ((ROUTER_LAN, self.refuses_a_second), ("0.0.0.0", self.listens_on_loopback)):
            self.daemon.file.write_text(self.text.replace(before, f"{{name: tcp, type: tcp, listen: {address}:1883, max-connections: 1}}"))
            self.daemon.signal(signal.SIGHUP)
            wait_for(f"the listener of {address}", works)
        self.assertFalse(self.daemon.said("in use"), self.daemon.lines)

    def refuses_a_second(self):
        with self.lab.socket("lan1") as first, self.lab.socket("lan1") as second:
            first.connect((ROUTER_LAN, 1883))
            second.connect((ROUTER_LAN, 1883))
            second.settimeout(1)
            try:
                return second.recv(1) == b""
            except ConnectionResetError:
                return True
            except TimeoutError:
                return False

    def listens_on_loopback(self):
        publish = ("mosquitto_pub", "-h", "127.0.0.1", "-u", "ann", "-P", "plain", "-t", "x", "-m", "y", "-q", "1")
        return subprocess.run(("ip", "netns", "exec", self.lab.names["gw"], *publish), capture_output=True, check=False, timeout=20).returncode == 0

    def reload(self, text):
        self.daemon.file.write_text(text)
        self.daemon.signal(signal.SIGHUP)
        wait_for("the old password", lambda: self.client("mosquitto_pub", "-t", "x", "-m", "y", "-q", "1").returncode == 0)

    def test_a_configuration_mistake_is_told_with_its_place(self):
        file = self.lab.directory / "bad.yaml"
        file.write_text("mode: rule\nmqtt:\n  listeners:\n    - {listen: nowhere}\n")
        done = subprocess.run([HEADGATE, "check", "-f", str(file)], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("bad.yaml:4:16: mqtt.listeners[0].listen:", done.stderr)


class Persistence(LabTest):
    """What survives a stop and a power cut. `ROUNDS` in the environment: how often it is killed."""

    CONFIG_TEXT = f"""
mode: direct
log-level: info
mqtt:
  listeners: [{{name: tcp, type: tcp, listen: {ROUTER_LAN}:1883}}]
  allow-anonymous: true
  users: [{{username: ann, password: plain}}]
  persistence-sync: strict
"""

    def ask(self, program, *arguments):
        return self.lab.ns("lan1", program, "-h", ROUTER_LAN, *arguments, check=False)

    def leave(self):
        sub = ("-i", "sleeper", "-c", "-q", "1", "-t", "post/#", "-t", "$share/g/work")
        self.ask("mosquitto_sub", *sub, "-E")
        self.ask("mosquitto_pub", "-q", "1", "-t", "post/1", "-m", "letter")
        self.ask("mosquitto_pub", "-q", "1", "-r", "-t", "state/lamp", "-m", "on")
        self.ask("mosquitto_pub", "-q", "1", "-r", "-t", "state/gone", "-m", "x")
        self.ask("mosquitto_pub", "-q", "1", "-r", "-t", "state/gone", "-n")

    def find(self):
        self.assertEqual(self.ask("mosquitto_sub", "-t", "state/#", "-W", "3", "-F", "%t %p"), "state/lamp on\n")
        self.assertEqual(self.ask("mosquitto_sub", "-i", "sleeper", "-c", "-q", "1", "-t", "other", "-C", "1", "-W", "30"), "letter\n")
        # The subscriptions are there without being asked for again.
        self.ask("mosquitto_pub", "-q", "1", "-t", "work", "-m", "job")
        self.assertEqual(self.ask("mosquitto_sub", "-i", "sleeper", "-c", "-q", "1", "-t", "other", "-C", "1", "-W", "30"), "job\n")

    def test_a_clean_stop_keeps_everything(self):
        self.leave()
        self.assertEqual(self.daemon.stop(), 0)
        self.daemon.start()
        self.find()

    def test_a_power_cut_keeps_what_was_acknowledged_and_a_torn_end_is_cut_off(self):
        self.leave()
        self.daemon.kill()
        with open(self.daemon.directory / "mqtt.log", "ab") as log:
            log.write(b"\x00\x00\x00\x40torn")
        self.daemon.start()
        self.assertTrue(self.daemon.said("8 bytes at the end of the log are torn"))
        self.find()

    def test_nothing_of_quality_two_is_lost_or_doubled_however_often_it_is_killed(self):
        clients = self.lab.spawn("lan1", sys.executable, PAHO, "crash", ROUTER_LAN, "1883", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.assertEqual(clients.stdout.readline(), "running\n")
        rounds = int(os.environ.get("ROUNDS", "12"))
        for number in range(rounds):
            time.sleep(0.25 + number % 7 * 0.05)  # the moment of the cut, another each time
            self.daemon.kill()
            self.daemon.start()
        out, _ = clients.communicate("over\n", timeout=60)
        said = json.loads(out)
        # How many that are is a matter of the machine; some went into every life.
        self.assertGreater(said["sent"], rounds)
        self.assertEqual((said["missing"], said["twice"], said["in_order"]), (0, 0, True), said)


class BuiltIn(LabTest):
    """The built-in configuration: a broker for this machine's own clients."""

    def test_it_serves_the_loopback_without_a_password(self):
        process = self.lab.spawn("gw", HEADGATE, "-d", str(self.lab.directory / "empty"), stderr=subprocess.PIPE, text=True)
        for line in process.stderr:
            if "headgate ready" in line:
                break
        self.lab.ns("gw", "mosquitto_pub", "-r", "-q", "1", "-t", "a", "-m", "b")
        self.assertEqual(self.lab.ns("gw", "mosquitto_sub", "-t", "a", "-C", "1", "-W", "30"), "b\n")
        process.terminate()
        self.assertEqual(process.wait(timeout=10), 0)
        process.stderr.close()
