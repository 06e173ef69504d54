"""VMess, VLESS, Trojan and Shadowsocks against v2ray and others, both ways, over each transport.

v2ray stands in the Internet as the server of headgate's proxies, one listener of headgate's for each
(`proxy:` skips the rules), and in the LAN as the client of headgate's listeners. Servers say whom
they saw: what came by v2ray comes from the WAN itself.
"""

import hashlib
import json
import ssl
import subprocess
import unittest

from lab import DIRECT, ROUTER_WAN, SHADOWSOCKS, Daemon, LabTest, config, wait_for

UUID = "66ad4540-b58c-4ad2-9926-ea63445a9b57"
PASSWORD = "node-password"

SOCKS_UDP = """
import json, socket, sys
proxy, port, address, target, count, size = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6])
control = socket.create_connection((proxy, port))
control.sendall(b"\\x05\\x01\\x00")
assert control.recv(2) == b"\\x05\\x00"
control.sendall(b"\\x05\\x03\\x00\\x01" + bytes(6))
answer = control.recv(10)
assert answer[1] == 0, answer
relay = (proxy if answer[4:8] == bytes(4) else socket.inet_ntoa(answer[4:8]), int.from_bytes(answer[8:10], "big"))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(2)
got = []
for number in range(count):
    payload = f"{number:04}".encode() + b"x" * size
    to = target + number % 2
    for attempt in range(3):
        s.sendto(b"\\0\\0\\0\\x01" + socket.inet_aton(address) + to.to_bytes(2, "big") + payload, relay)
        try:
            answer = s.recv(65535)
        except TimeoutError:
            continue
        if answer[10:14] == payload[:4]:
            text, seen, _ = answer[10:].decode().rsplit(" ", 2)
            got.append([text.encode() == payload, seen, socket.inet_ntoa(answer[4:8]), int.from_bytes(answer[8:10], "big") == to])
            break
print(json.dumps(got))
"""


def stream(network="tcp", tls=None, **more):
    settings = {"network": network}
    if tls:
        settings |= {"security": "tls", "tlsSettings": {"certificates": [{"certificateFile": f"{tls}/leaf.pem", "keyFile": f"{tls}/key.pem"}]}}
    if network == "ws":
        settings["wsSettings"] = {"path": "/way", "headers": {"Host": "front.test"}}
    return settings | more


def v2ray_inbound(port, protocol, settings, **more):
    return {"listen": SHADOWSOCKS, "port": port, "protocol": protocol, "settings": settings, "streamSettings": stream(**more)}


def spawn_v2ray(lab, where, name, document, port):
    path = lab.directory / f"{name}.json"
    path.write_text(json.dumps(document | {"log": {"loglevel": "warning", "error": str(lab.directory / f"{name}.log")}}))
    lab.spawn(where, "v2ray", "-config", str(path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(name, lambda: f":{port} " in lab.ns(where, "ss", "-lnt"))


class Proxies:
    """Proxies of headgate with a listener each, and the server's side of them."""

    def __init__(self, pin, directory):
        self.pin, self.directory = pin, directory
        self.inbounds, self.proxies, self.listeners, self.ports = [], [], [], {}

    def add(self, name, protocol, settings, keys, **more):
        port = 20000 + len(self.ports)
        if "tls" in more:
            more["tls"] = self.directory
            keys = f"{keys}, fingerprint: {self.pin}, servername: front.test"
        if more.get("network") == "ws":
            keys = f"{keys}, network: ws, ws-opts: {{path: /way, headers: {{Host: front.test}}{more.pop('early', '')}}}"
        self.inbounds.append(v2ray_inbound(port, protocol, settings, **more))
        kind = "ss" if protocol == "shadowsocks" else protocol
        self.proxies.append(f"  - {{name: {name}, type: {kind}, server: {SHADOWSOCKS}, port: {port}, udp: true, {keys}}}")
        self.listeners.append(f"  - {{name: in-{name}, type: socks, listen: 0.0.0.0, port: {port}, proxy: {name}}}")
        self.ports[name] = port


class Outbounds(LabTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        directory = cls.lab.directory
        der = ssl.PEM_cert_to_DER_cert((directory / "leaf.pem").read_text())
        proxies = Proxies(hashlib.sha256(der).hexdigest(), directory)
        cls.fill(proxies)
        cls.ports = proxies.ports
        spawn_v2ray(cls.lab, "wan", "server", {"inbounds": proxies.inbounds, "outbounds": [{"protocol": "freedom"}]}, 20000)
        text = config(swap={"proxies:\n": "proxies:\n" + "\n".join(proxies.proxies) + "\n"}) + "listeners:\n" + "\n".join(proxies.listeners) + "\n"
        cls.daemon = Daemon(cls.lab, text).start()

    @classmethod
    def fill(cls, proxies):
        clients = {"clients": [{"password": PASSWORD}]}
        trojan = f"password: {PASSWORD}"
        proxies.add("trojan", "trojan", clients, trojan, tls=True)
        for cipher in ("auto", "aes-128-gcm", "chacha20-poly1305", "none"):
            keys = f"uuid: {UUID}, alterId: 0, cipher: {cipher}"
            proxies.add(f"vmess-{cipher}", "vmess", {"clients": [{"id": UUID, "alterId": 0}]}, keys)
        proxies.add("vmess-padded", "vmess", {"clients": [{"id": UUID}]}, f"uuid: {UUID}, cipher: aes-128-gcm, global-padding: true")
        proxies.add("vmess-tls", "vmess", {"clients": [{"id": UUID}]}, f"uuid: {UUID}, tls: true", tls=True)
        proxies.add("vmess-ws", "vmess", {"clients": [{"id": UUID}]}, f"uuid: {UUID}", network="ws")
        vless, plain = {"clients": [{"id": UUID}], "decryption": "none"}, f"uuid: {UUID}, packet-encoding: none"
        proxies.add("vless", "vless", vless, plain)
        proxies.add("vless-tls", "vless", vless, f"{plain}, tls: true", tls=True)
        proxies.add("vless-wss", "vless", vless, f"{plain}, tls: true", tls=True, network="ws")
        proxies.add("trojan-ws", "trojan", clients, trojan, tls=True, network="ws")

    def each(self, check):
        for name, port in self.ports.items():
            with self.subTest(name):
                check(str(port))

    def test_a_stream_arrives_by_the_server(self):
        def check(port):
            seen = self.lab.curl("gw", f"http://{DIRECT}/", "-x", f"socks5h://127.0.0.1:{port}")
            self.assertIsNotNone(seen)
            self.assertNotEqual(seen["client"], ROUTER_WAN)
            named = self.lab.curl("gw", "http://www.direct.test/", "-x", f"socks5h://127.0.0.1:{port}")
            self.assertEqual(named and named["host"], "www.direct.test")
        self.each(check)

    def test_megabytes_arrive_whole(self):
        def check(port):
            curl = ("curl", "-s", "-m", "20", "-x", f"socks5h://127.0.0.1:{port}")
            out = self.lab.ns("gw", *curl, f"http://{DIRECT}/bytes/5000000", "-o", "/dev/null", "-w", "%{size_download}")
            self.assertEqual(out, "5000000")
            up = self.lab.ns("gw", *curl, "-H", "Expect:", "--data-binary", "@-", f"http://{DIRECT}/up", input="y" * 3000000)
            self.assertEqual(json.loads(up)["path"], "/up")
        self.each(check)

    def test_datagrams_go_there_and_back(self):
        def check(port):
            got = json.loads(self.lab.python("gw", SOCKS_UDP, "127.0.0.1", port, DIRECT, "9000", "4", "1000"))
            self.assertEqual(len(got), 4)
            for whole, seen, sender, right_port in got:
                self.assertTrue(whole)
                self.assertNotEqual(seen, ROUTER_WAN)
                self.assertEqual(sender, DIRECT)
                self.assertTrue(right_port)
        self.each(check)


if __name__ == "__main__":
    unittest.main()
