"""Whoever probes the servers: random, truncated, changed and replayed openings look alike, by bytes and by time.

Real openings are recorded on their way from a client and sent again. None is answered, and each is closed when the
handshake's time is over, whatever was wrong with it. VLESS and Trojan themselves know no replay; a TLS layer has its own.
"""

import base64
import hashlib
import json
import subprocess
import unittest

from lab import DIRECT, HEADGATE, ROUTER_LAN, Daemon, LabTest, config, wait_for

UUID = "66ad4540-b58c-4ad2-9926-ea63445a9b57"
KEY = base64.b64encode(bytes(range(16))).decode()
# Port, the listener, and its client.
SERVERS = {
    "vmess": (21001, f"type: vmess, users: [{{username: me, uuid: {UUID}}}]", f"type: vmess, uuid: {UUID}, cipher: auto"),
    "vless": (21002, f"type: vless, users: [{{username: me, uuid: {UUID}}}]", f"type: vless, uuid: {UUID}"),
    "ss": (21004, "type: shadowsocks, cipher: aes-128-gcm, password: secret", "type: ss, cipher: aes-128-gcm, password: secret"),
    "ss-2022": (21005, f"type: shadowsocks, cipher: 2022-blake3-aes-128-gcm, password: '{KEY}'", f"type: ss, cipher: 2022-blake3-aes-128-gcm, password: '{KEY}'"),
}
TROJAN = "type: trojan, users: [{username: me, password: secret}], certificate: ../leaf.pem, private-key: ../key.pem"
REPLAYABLE = ("vmess", "ss", "ss-2022")

# Forwards each port to the server and prints what the client began with.
RECORDER = """
import json, socket, sys, threading
server, ports = sys.argv[1], [int(port) for port in sys.argv[2:]]
def pump(a, b):
    while True:
        data = a.recv(65536)
        if not data: break
        b.sendall(data)
def serve(port):
    listener = socket.create_server(("127.0.0.1", port + 4000))
    client, _ = listener.accept()
    upstream = socket.create_connection((server, port))
    first = client.recv(65536)
    upstream.sendall(first)
    print(json.dumps([port, first.hex()]), flush=True)
    threading.Thread(target=pump, args=(client, upstream), daemon=True).start()
    pump(upstream, client)
threads = [threading.Thread(target=serve, args=(port,), daemon=True) for port in ports]
for t in threads: t.start()
print("ready", flush=True)
for t in threads: t.join(20)
"""

# Sends each opening and prints what came back, after how long, and how it ended.
PROBE = """
import json, socket, ssl, sys, threading, time
got = []
def probe(name, port, opening, tls):
    begun = time.monotonic()
    s = socket.create_connection((sys.argv[1], port))
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        s = context.wrap_socket(s)
    s.settimeout(20)
    s.sendall(bytes.fromhex(opening))
    try:
        answer = s.recv(100).hex()
    except OSError as error:
        answer = type(error).__name__
    got.append((name, answer, time.monotonic() - begun))
threads = [threading.Thread(target=probe, args=one) for one in json.loads(sys.stdin.read())]
for t in threads: t.start()
for t in threads: t.join()
print(json.dumps(got))
"""


class Probes(LabTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        lab, quiet = cls.lab, {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        listeners = [f"  - {{name: in-{port}, listen: {ROUTER_LAN}, port: {port}, {keys}}}\n" for port, keys, _ in [*SERVERS.values(), (21003, TROJAN, "")]]
        cls.daemon = Daemon(lab, config() + "listeners:\n" + "".join(listeners)).start()
        ports = [port for port, *_ in SERVERS.values()]
        recorder = lab.spawn("lan1", "python3", "-c", RECORDER, ROUTER_LAN, *map(str, ports), stdout=subprocess.PIPE, text=True)
        assert recorder.stdout.readline() == "ready\n"
        other = lab.directory / "client"
        other.mkdir()
        proxies = "".join(f"  - {{name: p-{port}, server: 127.0.0.1, port: {port + 4000}, {keys}}}\n" for port, _, keys in SERVERS.values())
        doors = "".join(f"  - {{name: l-{port}, type: socks, listen: 127.0.0.1, port: {port}, proxy: p-{port}}}\n" for port in ports)
        (other / "config.yaml").write_text(f"proxies:\n{proxies}listeners:\n{doors}rules: ['MATCH,REJECT']\n")
        lab.spawn("lan1", HEADGATE, "-d", str(other), **quiet)
        cls.openings = {}
        for port in ports:
            wait_for("the client", lambda: f"127.0.0.1:{port} " in lab.ns("lan1", "ss", "-lnt"))
            assert lab.curl("lan1", f"http://{DIRECT}/", "-x", f"socks5h://127.0.0.1:{port}")
            number, opening = json.loads(recorder.stdout.readline())
            assert number == port
            cls.openings[port] = bytes.fromhex(opening)

    def test_what_is_no_user_cannot_be_told_apart(self):
        probes = []
        for name, (port, *_) in SERVERS.items():
            opening = self.openings[port]
            # Of VLESS's opening all but the request's 26 bytes is the flow's already.
            broken = [(f"cut-{cut}", opening[:cut]) for cut in (1, 17, 25 if name == "vless" else len(opening) // 2)]
            # Any bit of what is authenticated; VLESS has its id alone, and a version that strangers need not know.
            changed = [(f"bit-{at}", opening[:at] + bytes([opening[at] ^ 1]) + opening[at + 1:]) for at in ((1, 12) if name == "vless" else (0, 20, 40))]
            replayed = [("replayed", opening)] * 2 if name in REPLAYABLE else []
            random = [(f"random-{size}", hashlib.shake_128(b"%d" % size).digest(size)) for size in (1, 16, 60, 3000)]
            http = [("http", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")]
            probes += [(f"{name} {what}", port, data.hex(), False) for what, data in broken + changed + replayed + random + http]
        request = hashlib.sha224(b"secret").hexdigest().encode() + b"\r\n\x01\x01" + bytes(4) + b"\0\x50\r\n"
        stranger = hashlib.sha224(b"other").hexdigest().encode() + request[56:]
        for what, data in (("cut", request[:40]), ("cut-late", request[:-1]), ("stranger", stranger), ("random", bytes(range(200))), ("http", b"GET / HTTP/1.1\r\n\r\n")):
            probes.append((f"trojan {what}", 21003, data.hex(), True))
        got = json.loads(self.lab.ns("lan1", "python3", "-c", PROBE, ROUTER_LAN, input=json.dumps(probes)))
        self.assertEqual(len(got), len(probes))
        for name, answer, seconds in got:
            with self.subTest(name):
                self.assertEqual(answer, "")
                self.assertTrue(9 < seconds < 12, seconds)


if __name__ == "__main__":
    unittest.main()
