"""VMess, VLESS, Trojan and Shadowsocks against v2ray and others, both ways, over each transport.

v2ray stands in the Internet as the server of headgate's proxies, one listener of headgate's for each
(`proxy:` skips the rules), and in the LAN as the client of headgate's listeners. Servers say whom
they saw: what came by v2ray comes from the WAN itself.
"""

import base64
import hashlib
import json
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import unittest

from lab import DIRECT, HEADGATE, ROUTER_LAN, ROUTER_WAN, SHADOWSOCKS, Daemon, LabTest, config, wait_for

UUID = "66ad4540-b58c-4ad2-9926-ea63445a9b57"
PASSWORD = "node-password"

SOCKS_UDP = """
import json, socket, sys
proxy, port, address, target, count, size, ports = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6]), int(sys.argv[7])
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
    to = target + number % ports
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


GATEWAY = (sys.executable, str(pathlib.Path(__file__).with_name("gun_gateway.py")))


def stream(network="tcp", tls=None, **more):
    settings = {"network": network}
    if tls:
        settings |= {"security": "tls", "tlsSettings": {"certificates": [{"certificateFile": f"{tls}/leaf.pem", "keyFile": f"{tls}/key.pem"}]}}
    if network == "ws":
        settings["wsSettings"] = {"path": "/way", "headers": {"Host": "front.test"}}
    if network == "h2":
        settings |= {"network": "http", "httpSettings": {"path": "/way", "host": ["front.test"]}}
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
        if more.get("network") == "h2":
            keys = f"{keys}, network: h2, h2-opts: {{host: [front.test], path: /way}}"
        self.inbounds.append(v2ray_inbound(port, protocol, settings, **more))
        kind = "ss" if protocol == "shadowsocks" else protocol
        self.proxies.append(f"  - {{name: {name}, type: {kind}, server: {SHADOWSOCKS}, port: {port}, udp: true, {keys}}}")
        self.listeners.append(f"  - {{name: in-{name}, type: socks, listen: 0.0.0.0, port: {port}, proxy: {name}}}")
        self.ports[name] = port

    def add_gun(self, lab, name, keys, behind, tls=True):
        """A server of gRPC before the plain TCP of the proxy `behind`."""
        port = 20000 + len(self.ports)
        secret = [str(self.directory)] if tls else []
        lab.spawn("wan", *GATEWAY, "serve", SHADOWSOCKS, str(port), "way", str(self.ports[behind]), *secret)
        keys = f"{keys}, network: grpc, grpc-opts: {{grpc-service-name: way}}"
        if tls:
            keys = f"{keys}, fingerprint: {self.pin}, servername: front.test"
        self.proxies.append(f"  - {{name: {name}, server: {SHADOWSOCKS}, port: {port}, udp: true, {keys}}}")
        self.listeners.append(f"  - {{name: in-{name}, type: socks, listen: 0.0.0.0, port: {port}, proxy: {name}}}")
        self.ports[name] = port
        wait_for(name, lambda: f":{port} " in lab.ns("wan", "ss", "-lnt"))

    def add_plugin(self, lab, name, options, plugin, plugin_options):
        """A Shadowsocks server behind a plugin of Debian's; its datagrams need no plugin."""
        port = 20000 + len(self.ports)
        lab.spawn("wan", "ss-server", "-s", SHADOWSOCKS, "-p", str(port), "-k", PASSWORD, "-m", "aes-128-gcm", "-u",
                  "--plugin", plugin, "--plugin-opts", plugin_options, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(f"{plugin} {plugin_options}", lambda: f"{SHADOWSOCKS}:{port} " in lab.ns("wan", "ss", "-lnt"))
        self.proxies.append(f"  - {{name: {name}, type: ss, server: {SHADOWSOCKS}, port: {port}, udp: true, cipher: aes-128-gcm, password: {PASSWORD}, {options}}}")
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
        for mode in ("http", "tls"):
            proxies.add_plugin(cls.lab, f"obfs-{mode}", f"plugin: obfs, plugin-opts: {{mode: {mode}, host: front.test}}", "obfs-server", f"obfs={mode}")
        for mux in (0, 1):
            proxies.add_plugin(cls.lab, f"plugin-mux-{mux}", f"plugin: v2ray-plugin, plugin-opts: {{mode: websocket, host: front.test, path: /way, mux: {'true' if mux else 'false'}}}",
                               "ss-v2ray-plugin", f"server;path=/way;mux={mux}")
        proxies.add_gun(cls.lab, "vmess-grpc", f"type: vmess, uuid: {UUID}", "vmess-auto")
        proxies.add_gun(cls.lab, "vless-grpc-plain", f"type: vless, uuid: {UUID}, packet-encoding: none", "vless", tls=False)
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
        proxies.add("vmess-h2", "vmess", {"clients": [{"id": UUID}]}, f"uuid: {UUID}", tls=True, network="h2")
        proxies.add("vless-h2", "vless", vless, f"{plain}, tls: true", tls=True, network="h2")

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
            # v2ray answers for two destinations from two tasks that may write at once; over WebSocket it dies of it
            # ("concurrent write to websocket connection"). Inbounds has two to an association.
            got = json.loads(self.lab.python("gw", SOCKS_UDP, "127.0.0.1", port, DIRECT, "9000", "4", "1000", "1"))
            self.assertEqual(len(got), 4)
            for whole, seen, sender, right_port in got:
                self.assertTrue(whole)
                self.assertNotEqual(seen, ROUTER_WAN)
                self.assertEqual(sender, DIRECT)
                self.assertTrue(right_port)
        self.each(check)


class Multiplexing(LabTest):
    """smux and yamux of sing-mux over a SOCKS5 proxy."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        server = pathlib.Path(__file__).with_name("sing_mux_server.py")
        cls.lab.spawn("wan", sys.executable, str(server), SHADOWSOCKS, "20500")
        wait_for("the server", lambda: ":20500 " in cls.lab.ns("wan", "ss", "-lnt"))
        cls.ports, proxies, listeners = {}, [], []
        for protocol in ("smux", "yamux"):
            for padding in ("false", "true"):
                name, port = f"{protocol}-{padding}", 20501 + len(cls.ports)
                mux = f"smux: {{enabled: true, protocol: {protocol}, padding: {padding}, max-connections: 2, min-streams: 4}}"
                proxies.append(f"  - {{name: {name}, type: socks5, server: {SHADOWSOCKS}, port: 20500, udp: true, {mux}}}")
                listeners.append(f"  - {{name: in-{name}, type: socks, listen: 0.0.0.0, port: {port}, proxy: {name}}}")
                cls.ports[name] = port
        text = config(swap={"proxies:\n": "proxies:\n" + "\n".join(proxies) + "\n"}) + "listeners:\n" + "\n".join(listeners) + "\n"
        cls.daemon = Daemon(cls.lab, text).start()

    each = Outbounds.each
    test_megabytes_arrive_whole = Outbounds.test_megabytes_arrive_whole

    def test_streams_and_datagrams_share_two_connections(self):
        connections = lambda: len(self.lab.ns("gw", "ss", "-Hnt", "state", "established", "dst", f"{SHADOWSOCKS}:20500").splitlines())

        def check(port):
            before = connections()
            one = f"curl -s -m 20 -x socks5h://127.0.0.1:{port} http://{DIRECT}/bytes/300000 -o /dev/null -w '%{{size_download}} '"
            sizes = self.lab.ns("gw", "sh", "-c", f"for i in $(seq 12); do {one} & done; wait")
            self.assertEqual(sizes.split(), ["300000"] * 12)
            got = json.loads(self.lab.python("gw", SOCKS_UDP, "127.0.0.1", port, DIRECT, "9000", "4", "1000", "2"))
            self.assertEqual([one[0] and one[2] == DIRECT and one[3] for one in got], [True] * 4)
            self.assertLessEqual(connections() - before, 2)
        self.each(check)

    def test_a_target_that_refuses_ends_its_stream_alone(self):
        port = self.ports["smux-false"]
        self.assertIsNone(self.lab.curl("gw", f"http://{DIRECT}:1/", "-x", f"socks5h://127.0.0.1:{port}"))
        seen = self.lab.curl("gw", f"http://{DIRECT}/", "-x", f"socks5h://127.0.0.1:{port}")
        self.assertIsNotNone(seen)


def v2ray_outbound(tag, protocol, port, network="tcp", tls=False, mux=False, local=False):
    settings = {"network": network}
    if tls:
        settings |= {"security": "tls", "tlsSettings": {"allowInsecure": True, "serverName": "front.test"}}
    if network == "ws":
        settings["wsSettings"] = {"path": "/way"}
    to = {"address": "127.0.0.1" if local else ROUTER_LAN, "port": port}
    if protocol == "vmess":
        servers = {"vnext": [to | {"users": [{"id": UUID, "alterId": 0, "security": "auto"}]}]}
    elif protocol == "vless":
        servers = {"vnext": [to | {"users": [{"id": UUID, "encryption": "none"}]}]}
    elif protocol == "trojan":
        servers = {"servers": [to | {"password": PASSWORD}]}
    else:
        servers = {"servers": [to | {"method": "aes-256-gcm", "password": PASSWORD}]}
    return {"tag": tag, "protocol": protocol, "settings": servers, "streamSettings": settings, "mux": {"enabled": mux, "concurrency": 4}}


KEY16, KEY16_USER, KEY16_OTHER, KEY32 = (base64.b64encode(bytes([n]) * size).decode() for n, size in ((1, 16), (2, 16), (3, 16), (4, 32)))
TLS = "certificate: {directory}/leaf.pem, private-key: {directory}/key.pem"
SERVERS = {
    # The other user comes first: requests must find the right one.
    21001: "type: vmess, users: [{{username: other, uuid: somebody}}, {{username: me, uuid: %s}}]" % UUID,
    21002: "type: vmess, users: [{{username: me, uuid: %s}}], ws-path: /way, %s" % (UUID, TLS),
    21003: "type: vless, users: [{{username: other, uuid: somebody}}, {{username: me, uuid: %s}}], %s" % (UUID, TLS),
    21004: "type: vless, users: [{{username: me, uuid: %s}}], ws-path: /way" % UUID,
    21005: "type: trojan, users: [{{username: other, password: x}}, {{username: me, password: %s}}], %s, fallback: '5.5.5.10:80'" % (PASSWORD, TLS),
    21006: "type: trojan, users: [{{username: me, password: %s}}], ws-path: /way, %s" % (PASSWORD, TLS),
    21007: "type: shadowsocks, cipher: aes-256-gcm, password: %s" % PASSWORD,
    21008: "type: shadowsocks, cipher: chacha20-ietf-poly1305, users: [{{username: other, password: x}}, {{username: me, password: %s}}]" % PASSWORD,
    21009: "type: shadowsocks, cipher: 2022-blake3-aes-128-gcm, password: '%s'" % KEY16,
    21010: "type: shadowsocks, cipher: 2022-blake3-aes-128-gcm, password: '%s', users: [{{username: other, password: '%s'}}, {{username: me, password: '%s'}}]" % (KEY16, KEY16_OTHER, KEY16_USER),
    21012: "type: vmess, users: [{{username: me, uuid: %s}}], grpc-service-name: way, ws-path: /way, %s" % (UUID, TLS),
    21013: "type: vless, users: [{{username: me, uuid: %s}}], grpc-service-name: way" % UUID,
    21014: "type: trojan, users: [{{username: me, password: %s}}], grpc-service-name: way, %s" % (PASSWORD, TLS),
    21011: "type: shadowsocks, cipher: 2022-blake3-chacha20-poly1305, password: '%s'" % KEY32,
    21015: "type: trojan, users: [{{username: me, password: %s}}], %s, fallback: '5.5.5.10:80', "
           "fallbacks: [{{path: /first, dest: '127.0.0.1:21090', xver: 1}}, {{path: /second, alpn: http/1.1, dest: '127.0.0.1:21090', xver: 2}}]" % (PASSWORD, TLS),
}
# Answers with what it was sent, hexadecimal.
MIRROR = """
import json, socket
listener = socket.create_server(("127.0.0.1", 21090))
while True:
    client, _ = listener.accept()
    read = b""
    while b"Host:" not in read or not read.endswith(b"\\r\\n\\r\\n"):
        read += client.recv(4096)
    body = json.dumps({"read": read.hex()}).encode()
    client.sendall(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(body), body))
    client.close()
"""
CLIENTS = {
    "vmess": ("vmess", 21001, {}), "vmess-wss": ("vmess", 21002, {"network": "ws", "tls": True}), "vmess-mux": ("vmess", 21001, {"mux": True}),
    "vless-tls": ("vless", 21003, {"tls": True}), "vless-ws": ("vless", 21004, {"network": "ws"}), "vless-mux": ("vless", 21003, {"tls": True, "mux": True}),
    "trojan": ("trojan", 21005, {"tls": True}), "trojan-wss": ("trojan", 21006, {"tls": True, "network": "ws"}),
    "vmess-grpc": ("vmess", 25012, {"local": True}), "vmess-beside-grpc": ("vmess", 21012, {"tls": True, "network": "ws"}),
    "vless-grpc-plain": ("vless", 25013, {"local": True}), "vmess-grpc-mux": ("vmess", 25012, {"local": True, "mux": True}),
    "ss": ("shadowsocks", 21007, {}),
}
# headgate's own client, for what v2ray does not speak.
OWN = {
    "own-early": (21006, f"type: trojan, password: {PASSWORD}, network: ws, ws-opts: {{path: /way, max-early-data: 512, early-data-header-name: Sec-WebSocket-Protocol}}, skip-cert-verify: true"),
    "own-upgrade": (21006, f"type: trojan, password: {PASSWORD}, network: ws, ws-opts: {{path: /way, v2ray-http-upgrade: true}}, skip-cert-verify: true"),
    "own-grpc": (21014, f"type: trojan, password: {PASSWORD}, network: grpc, grpc-opts: {{grpc-service-name: way}}, skip-cert-verify: true"),
    "own-sealed-size": (21001, f"type: vmess, uuid: {UUID}, cipher: chacha20-poly1305, global-padding: true, authenticated-length: true, packet-encoding: packetaddr"),
    "own-zero": (21001, f"type: vmess, uuid: {UUID}, cipher: zero, packet-encoding: xudp"),
    "own-vless": (21003, f"type: vless, uuid: {UUID}, tls: true, skip-cert-verify: true"),
    "own-vless-addressed": (21003, f"type: vless, uuid: {UUID}, tls: true, skip-cert-verify: true, packet-encoding: packetaddr"),
    "own-2022-user": (21010, f"type: ss, cipher: 2022-blake3-aes-128-gcm, password: '{KEY16}:{KEY16_USER}'"),
    "own-2022-chacha": (21011, f"type: ss, cipher: 2022-blake3-chacha20-poly1305, password: '{KEY32}'"),
}


class Inbounds(LabTest):
    """headgate as the server: v2ray, shadowsocks-libev, shadowsocks-rust and itself as clients."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        lab, quiet = cls.lab, {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        listeners = [f"  - {{name: in-{port}, listen: 0.0.0.0, port: {port}, {text.format(directory=lab.directory)}}}" for port, text in SERVERS.items()]
        cls.ports = {}
        proxies, own = [], []
        for number, (name, (port, keys)) in enumerate(OWN.items()):
            cls.ports[name] = ("lan1", str(22000 + number))
            proxies.append(f"  - {{name: {name}, server: {ROUTER_LAN}, port: {port}, udp: true, {keys}}}")
            own.append(f"  - {{name: own-{name}, type: socks, listen: 127.0.0.1, port: {22000 + number}, proxy: {name}}}")
        cls.daemon = Daemon(lab, config() + "listeners:\n" + "\n".join(listeners) + "\n").start()
        # The client's is another headgate: one does not connect to itself.
        other = lab.directory / "other"
        other.mkdir()
        (other / "config.yaml").write_text("mode: rule\nproxies:\n" + "\n".join(proxies) + "\nlisteners:\n" + "\n".join(own) + "\nrules: ['MATCH,DIRECT']\n")
        lab.spawn("lan1", HEADGATE, "-d", str(other), **quiet)
        lab.spawn("lan1", *GATEWAY, "dial", "25012", "way", ROUTER_LAN, "21012", str(lab.directory))
        lab.spawn("lan1", *GATEWAY, "dial", "25013", "way", ROUTER_LAN, "21013")
        inbounds, outbounds, rules = [], [], []
        for number, (name, (protocol, port, more)) in enumerate(CLIENTS.items()):
            inbounds.append({"tag": f"in-{name}", "listen": "127.0.0.1", "port": 23000 + number, "protocol": "socks", "settings": {"udp": True}})
            outbounds.append(v2ray_outbound(name, protocol, port, **more))
            rules.append({"type": "field", "inboundTag": [f"in-{name}"], "outboundTag": name})
            cls.ports[name] = ("lan1", str(23000 + number))
        spawn_v2ray(lab, "lan1", "client", {"inbounds": inbounds, "outbounds": outbounds, "routing": {"rules": rules}}, 23000)
        lab.spawn("lan1", "ss-local", "-s", ROUTER_LAN, "-p", "21008", "-l", "24000", "-b", "127.0.0.1", "-k", PASSWORD, "-m", "chacha20-ietf-poly1305", "-u", **quiet)
        cls.ports["libev"] = ("lan1", "24000")
        if shutil.which("sslocal"):
            for number, (server, cipher, key) in enumerate(((21009, "aes-128-gcm", KEY16), (21010, "aes-128-gcm", f"{KEY16}:{KEY16_USER}"), (21011, "chacha20-poly1305", KEY32))):
                local = str(24001 + number)
                lab.spawn("lan1", "sslocal", "-s", f"{ROUTER_LAN}:{server}", "-b", f"127.0.0.1:{local}", "-m", f"2022-blake3-{cipher}", "-k", key, "-U", **quiet)
                cls.ports[f"rust-{server}"] = ("lan1", local)
        for where, port in cls.ports.values():
            wait_for(f"port {port}", lambda: f":{port} " in lab.ns(where, "ss", "-lnt"))

    def each(self, check):
        for name, (where, port) in self.ports.items():
            with self.subTest(name):
                check(where, port)

    def test_streams_arrive_and_name_their_user(self):
        def check(where, port):
            seen = self.lab.curl(where, "http://www.direct.test/", "-x", f"socks5h://127.0.0.1:{port}")
            self.assertEqual(seen and seen["client"], ROUTER_WAN)
            self.assertEqual(seen["host"], "www.direct.test")
            out = self.lab.ns(where, "curl", "-s", "-m", "20", "-x", f"socks5h://127.0.0.1:{port}", f"http://{DIRECT}/bytes/3000000", "-o", "/dev/null", "-w", "%{size_download}")
            self.assertEqual(out, "3000000")
            up = self.lab.ns(where, "curl", "-s", "-m", "20", "-x", f"socks5h://127.0.0.1:{port}", "-H", "Expect:", "--data-binary", "@-", f"http://{DIRECT}/up", input="y" * 2000000)
            self.assertEqual(json.loads(up)["path"], "/up")
        self.each(check)

    def test_datagrams_go_there_and_back(self):
        def check(where, port):
            got = json.loads(self.lab.python(where, SOCKS_UDP, "127.0.0.1", port, DIRECT, "9000", "4", "1000", "2"))
            self.assertEqual(len(got), 4)
            for whole, seen, sender, right_port in got:
                self.assertTrue(whole and right_port)
                self.assertEqual((seen, sender), (ROUTER_WAN, DIRECT))
        self.each(check)

    def test_the_api_shows_user_and_inbound(self):
        slow = self.lab.spawn("lan1", "curl", "-s", "-x", f"socks5h://127.0.0.1:{self.ports['vmess'][1]}", f"http://{DIRECT}/slow", stdout=subprocess.DEVNULL)
        shown = lambda: [c["metadata"] for c in self.daemon.connections() if c["metadata"]["inboundName"] == "in-21001"]
        wait_for("the connection", shown)
        self.assertEqual((shown()[0]["inboundUser"], shown()[0]["type"]), ("me", "Vmess"))
        slow.kill()

    def test_a_stranger_meets_the_fallback(self):
        answer = self.lab.curl("lan1", f"https://{ROUTER_LAN}:21005/decoy")
        self.assertEqual(answer and answer["path"], "/decoy")

    def test_strangers_are_told_apart_and_named_to_who_answers(self):
        self.lab.spawn("gw", sys.executable, "-c", MIRROR)
        wait_for("the mirror", lambda: ":21090 " in self.lab.ns("gw", "ss", "-lnt"))
        ask = lambda path: self.lab.curl("lan1", f"https://{ROUTER_LAN}:21015/{path}")
        self.assertEqual(ask("other")["path"], "/other")
        first, second = (bytes.fromhex(ask(path)["read"]) for path in ("first?x", "second"))
        self.assertRegex(first, rb"^PROXY TCP4 192\.168\.77\.11 192\.168\.77\.1 \d+ 21015\r\nGET /first\?x HTTP/1.1\r\n")
        head = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + socket.inet_aton("192.168.77.11") + socket.inet_aton(ROUTER_LAN)
        self.assertTrue(second.startswith(head))
        self.assertTrue(second[26:].startswith((21015).to_bytes(2, "big") + b"GET /second HTTP/1.1\r\n"))

    def test_strangers_get_no_answer_and_no_hint(self):
        # Random, short, long: all are closed without a byte when the handshake's time is over.
        got = json.loads(self.lab.python("lan1", PROBE, ROUTER_LAN, "21001", "21007", "21009", timeout=40))
        self.assertEqual(len(got), 9)
        for answer, seconds in got:
            self.assertEqual(answer, "")
            self.assertTrue(9 < seconds < 12, seconds)


PROBE = """
import json, os, socket, sys, threading, time
got = []
def probe(port, size):
    s = socket.create_connection((sys.argv[1], port))
    s.settimeout(20)
    begun = time.monotonic()
    s.sendall(os.urandom(size))
    try:
        answer = s.recv(100).hex()
    except ConnectionError as error:
        answer = type(error).__name__
    got.append((answer, time.monotonic() - begun))
threads = [threading.Thread(target=probe, args=(int(port), size)) for port in sys.argv[2:] for size in (1, 60, 3000)]
for t in threads: t.start()
for t in threads: t.join()
print(json.dumps(got))
"""

if __name__ == "__main__":
    unittest.main()
