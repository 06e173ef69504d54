"""Clients of every kind and number: mqtt.js, rumqttc, five thousand at once, one that never reads."""

import json
import os
import pathlib
import subprocess
import sys
import unittest

from lab import ROOT, ROUTER_LAN, LabTest

HERE = pathlib.Path(__file__).parent
MQTT_JS = pathlib.Path(os.environ.get("HEADGATE_MQTT_JS", ROOT / "target/npm/node_modules/mqtt"))
RUMQTTC = pathlib.Path(os.environ.get("HEADGATE_RUMQTTC", ROOT / "target/rumqttc/debug/headgate-rumqttc"))


class Clients(LabTest):
    CONFIG_TEXT = f"""
mode: direct
mqtt:
  listeners:
    - {{name: tcp, type: tcp, listen: {ROUTER_LAN}:1883, max-connections: 6000}}
    - {{name: ws, type: ws, listen: {ROUTER_LAN}:8083}}
  allow-anonymous: true
  users: [{{username: ann, password: plain}}]
"""

    @unittest.skipUnless(MQTT_JS.is_dir(), "mqtt.js is not installed: npm install --prefix target/npm mqtt")
    def test_mqtt_js_speaks_every_version_and_quality_over_tcp_and_websocket(self):
        for version in ("4", "5"):
            for url in (f"mqtt://{ROUTER_LAN}:1883", f"ws://{ROUTER_LAN}:8083/mqtt"):
                with self.subTest(version=version, url=url):
                    got = json.loads(self.lab.ns("lan1", "node", str(HERE / "mqtt_clients.js"), str(MQTT_JS), url, version, timeout=60))
                    self.assertEqual(got["granted"], [2, 1])
                    self.assertEqual(got["orders"], [list(range(20))] * 3)
                    self.assertEqual((got["shared"], got["large"], got["late"]), (1, 300_000, "waited"))

    @unittest.skipUnless(RUMQTTC.is_file(), "rumqttc is not built: cargo build --manifest-path tests/mqtt/rumqttc/Cargo.toml --target-dir target/rumqttc")
    def test_rumqttc_speaks_both_versions_in_every_quality(self):
        said = self.lab.ns("lan1", str(RUMQTTC), ROUTER_LAN, "1883", timeout=90)
        self.assertEqual(said, "good\n")

    def memory(self):
        """Kilobytes of the daemon's own."""
        text = pathlib.Path(f"/proc/{self.daemon.process.pid}/smaps_rollup").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))

    def test_five_thousand_clients_all_get_the_message(self):
        before = self.memory()
        crowd = self.lab.spawn("lan1", sys.executable, str(HERE / "mqtt_crowd.py"), ROUTER_LAN, "1883", "5000", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.assertEqual(crowd.stdout.readline(), "ready\n")
        each = (self.memory() - before) * 1024 / 5000
        self.assertLess(each, 6000, "bytes a client")  # of an unoptimized build
        self.lab.ns("lan2", "mosquitto_pub", "-h", ROUTER_LAN, "-q", "1", "-t", "crowd", "-m", "hi")
        out, _ = crowd.communicate("go\n", timeout=60)
        self.assertEqual(out, "all of them\n")

    def test_who_never_reads_costs_a_bounded_queue_and_delays_nobody(self):
        deaf = self.lab.connect("lan1", ROUTER_LAN, 1883)
        self.addCleanup(deaf.close)
        deaf.sendall(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x00\x00\x04deaf" + b"\x82\x09\x00\x01\x00\x04loud\x01")
        self.assertEqual(deaf.recv(4), b"\x20\x02\x00\x00")
        before = self.memory()
        payload = "".join(f"{number:08}" + "x" * 8000 + "\n" for number in range(4000))
        listener = subprocess.Popen(
            ["ip", "netns", "exec", self.lab.names["lan2"], "mosquitto_sub", "-h", ROUTER_LAN, "-t", "done", "-C", "1", "-W", "60"],
            stdout=subprocess.PIPE, text=True,
        )
        self.addCleanup(listener.stdout.close)
        done = subprocess.run(
            ["ip", "netns", "exec", self.lab.names["lan2"], "mosquitto_pub", "-h", ROUTER_LAN, "-q", "1", "-t", "loud", "-l"],
            input=payload, text=True, timeout=60, check=False,
        )
        self.assertEqual(done.returncode, 0)
        self.lab.ns("lan2", "mosquitto_pub", "-h", ROUTER_LAN, "-r", "-q", "1", "-t", "done", "-m", "over")
        self.assertEqual(listener.communicate(timeout=60)[0], "over\n")
        # 4 MB wait for it at most, beside what one write holds.
        self.assertLess(self.memory() - before, 10_000)
