"""VLESS with `flow: xtls-rprx-vision`, headgate against itself over TLS.

The proof that the second layer is gone: what a site sends by TLS 1.3 stands on the wire between the two
headgates byte for byte as the site sent it. By TLS 1.2 it must not, nor without the flow.
"""

import hashlib
import json
import socket
import ssl
import struct
import subprocess
import threading
import unittest

from lab import DIRECT, HEADGATE, ROUTER_LAN, ROUTER_WAN, Daemon, LabTest, config, wait_for
from test_protocols import SOCKS_UDP

UUID = "66ad4540-b58c-4ad2-9926-ea63445a9b57"
PLAIN = "11111111-b58c-4ad2-9926-ea63445a9b57"
SERVER, WITH_FLOW, WITHOUT, WRONG = 21100, 22100, 22101, 22102
CHUNK = 400


class Wire:
    """What TCP carries from two ports, in the router's namespace, each without what came twice."""

    def __init__(self, lab, *ports):
        self.parts = {port: {} for port in ports}
        self.socket = lab.socket("gw", socket.SOCK_DGRAM, socket.AF_PACKET, socket.htons(3))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        self.socket.settimeout(0.2)
        self.running = True
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        while self.running:
            try:
                packet = self.socket.recv(1 << 16)
            except TimeoutError:
                continue
            if packet[0] >> 4 != 4 or packet[9] != 6:
                continue
            length, head = struct.unpack(">H", packet[2:4])[0], (packet[0] & 15) * 4
            source, target, sequence = struct.unpack(">HHI", packet[head:head + 8])
            payload = packet[head + (packet[head + 12] >> 4) * 4:length]
            if source in self.parts and payload:
                self.parts[source][target, sequence] = payload

    def stop(self):
        self.running = False
        self.thread.join()
        self.socket.close()
        # In the order of each connection: sequence numbers do not wrap within so few bytes.
        return {port: b"".join(parts[key] for key in sorted(parts)) for port, parts in self.parts.items()}


class Vision(LabTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        lab, quiet = cls.lab, {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert((lab.directory / "leaf.pem").read_text())).hexdigest()
        server = (f"  - {{name: in, type: vless, listen: 0.0.0.0, port: {SERVER}, certificate: {lab.directory}/leaf.pem, private-key: {lab.directory}/key.pem, "
                  f"users: [{{username: me, uuid: {UUID}, flow: xtls-rprx-vision}}, {{username: plain, uuid: {PLAIN}}}]}}\n")
        cls.daemon = Daemon(lab, config() + "listeners:\n" + server).start()
        common = f"type: vless, server: {ROUTER_LAN}, port: {SERVER}, udp: true, tls: true, fingerprint: {pin}"
        nodes = {WITH_FLOW: f"uuid: {UUID}, flow: xtls-rprx-vision", WITHOUT: f"uuid: {PLAIN}", WRONG: f"uuid: {PLAIN}, flow: xtls-rprx-vision"}
        other = lab.directory / "other"
        other.mkdir()
        (other / "config.yaml").write_text(
            "mode: rule\nproxies:\n" + "".join(f"  - {{name: n{port}, {common}, {keys}}}\n" for port, keys in nodes.items())
            + "listeners:\n" + "".join(f"  - {{name: l{port}, type: socks, listen: 127.0.0.1, port: {port}, udp: true, proxy: n{port}}}\n" for port in nodes)
            + "rules: ['MATCH,DIRECT']\n")
        lab.spawn("lan1", HEADGATE, "-d", str(other), **quiet)
        wait_for("the client", lambda: f":{WRONG} " in lab.ns("lan1", "ss", "-lnt"))

    def fetch(self, port, *arguments, **options):
        return self.lab.ns("lan1", "curl", "-sk", "-m", "30", "-x", f"socks5h://127.0.0.1:{port}", *arguments, **options)

    def download(self, port, *arguments, url=f"https://{DIRECT}/bytes/4000000"):
        self.assertEqual(self.fetch(port, *arguments, url, "-o", "/dev/null", "-w", "%{size_download}"), "4000000")

    def upload(self, port, *arguments, url=f"https://{DIRECT}/up"):
        answer = json.loads(self.fetch(port, *arguments, "-H", "Expect:", "--data-binary", "@-", url, input="y" * 4000000))
        self.assertEqual((answer["path"], answer["client"]), ("/up", ROUTER_WAN))

    def shared(self, port, *arguments):
        """The share of what the site sent that stands between the headgates as it was."""
        # A busy machine loses a part of what it listens to.
        for _ in range(5):
            wire = Wire(self.lab, 443, SERVER)
            try:
                self.download(port, *arguments)
            finally:
                seen = wire.stop()
            site, between = seen[443], seen[SERVER]
            if min(len(site), len(between)) > 4000000:
                break
        self.assertGreater(min(len(site), len(between)), 4000000)
        places = range(100000, len(site) - CHUNK, 100000)
        return sum(site[at:at + CHUNK] in between for at in places) / len(places)

    def test_the_second_layer_is_gone_for_tls13_alone(self):
        self.assertEqual(self.shared(WITH_FLOW), 1)
        self.assertEqual(self.shared(WITH_FLOW, "--tls-max", "1.2"), 0)
        self.assertEqual(self.shared(WITHOUT), 0)

    def test_bytes_arrive_whole_whatever_they_are(self):
        for _ in range(5):
            self.download(WITH_FLOW)
            self.upload(WITH_FLOW)
        self.upload(WITH_FLOW, "--tls-max", "1.2")
        self.download(WITH_FLOW, url=f"http://{DIRECT}/bytes/4000000")
        self.upload(WITH_FLOW, url=f"http://{DIRECT}/up")

    def test_datagrams_go_but_not_to_443(self):
        got = json.loads(self.lab.python("lan1", SOCKS_UDP, "127.0.0.1", str(WITH_FLOW), DIRECT, "9000", "4", "1000", "2"))
        self.assertEqual([row for row in got if row[0] and row[3]], [[True, ROUTER_WAN, DIRECT, True]] * 4)
        got = json.loads(self.lab.python("lan1", SOCKS_UDP, "127.0.0.1", str(WITH_FLOW), DIRECT, "443", "1", "10", "1"))
        self.assertEqual(got, [])

    def test_a_user_without_the_flow_is_not_let_in_with_it(self):
        out = self.lab.ns("lan1", "curl", "-sk", "-m", "5", "-x", f"socks5h://127.0.0.1:{WRONG}", f"http://{DIRECT}/", check=False)
        self.assertEqual(out, "")


if __name__ == "__main__":
    unittest.main()
