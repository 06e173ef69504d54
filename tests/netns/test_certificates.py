"""A farm of bad certificates before every TLS client of the Clash side (users.md S17): each is refused with its
reason, nothing of it is kept, the last good copy stays; and a good one passes, before and after."""

import io
import shutil
import subprocess
import sys
import zipfile

from lab import DIRECT, PROXIED, ROUTER_LAN, Authority, Daemon, LabTest, config, wait_for
from test_rulesets import geosite

PORT = 8443

# One port, every tongue: files by HTTP, DNS over TLS and HTTPS, an HTTP proxy, trojan; behind both proxies it is the
# server itself. Each connection has a context of its own, with the certificate of the moment, so none is resumed.
SERVER = """
import base64, pathlib, socketserver, ssl, sys, warnings
warnings.simplefilter("ignore")
place = pathlib.Path(sys.argv[3])

def answer(query):
    end = query.index(0, 12) + 5
    wanted = query[end - 4:end - 2] == b"\\0\\1"
    record = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4\\xc0\\0\\2\\x09"
    return query[:2] + b"\\x81\\x80\\0\\1" + bytes([0, wanted, 0, 0, 0, 0]) + query[12:end] + record * wanted

class Server(socketserver.StreamRequestHandler):
    def handle(self):
        name = (place / "shown").read_text()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("ALL:@SECLEVEL=0")
        if name == "old":
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.load_cert_chain(place / f"{name}.pem", place / f"{name}.key")
        try:
            with context.wrap_socket(self.request, server_side=True) as stream:
                self.serve(stream.makefile("rwb"))
        except OSError:
            pass

    def serve(self, stream):
        start = stream.read(2)
        if start[:1] == b"\\0":
            reply = answer(stream.read(int.from_bytes(start, "big")))
            stream.write(len(reply).to_bytes(2, "big") + reply)
            return stream.flush()
        line = start + stream.readline()
        if len(line) == 58:
            # The digest of a password; then come a command and an address of IPv4.
            stream.read(10)
            line = stream.readline()
        method, path, _ = line.decode().split()
        while stream.readline().strip():
            pass
        if method == "CONNECT":
            stream.write(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
            stream.flush()
            return self.serve(stream)
        body, kind = b"", "text/plain"
        if path.startswith("/dns-query"):
            query = path.split("dns=")[1]
            body, kind = answer(base64.urlsafe_b64decode(query + "=" * (-len(query) % 4))), "application/dns-message"
        elif method == "GET":
            body = (place / path[1:]).read_bytes()
        stream.write(f"HTTP/1.1 200 OK\\r\\nContent-Type: {kind}\\r\\nContent-Length: {len(body)}\\r\\nConnection: close\\r\\n\\r\\n".encode() + body)
        stream.flush()

class Servers(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 64

server = Servers((sys.argv[1], int(sys.argv[2])), Server)
print("ready", flush=True)
server.serve_forever()
"""

KEYS = f"""
external-ui: ui
external-ui-url: https://{DIRECT}:{PORT}/ui.zip
upgrade: {{url: 'https://{DIRECT}:{PORT}/program', sha256: {'0' * 64}}}
geox-url: {{mmdb: 'https://{DIRECT}:{PORT}/country', geosite: 'https://{DIRECT}:{PORT}/sites'}}
proxy-providers:
  nodes: {{type: http, url: 'https://{DIRECT}:{PORT}/nodes', path: nodes.yaml}}
rule-providers:
  names: {{type: http, behavior: domain, format: text, url: 'https://{DIRECT}:{PORT}/names', path: names.txt}}
proxies:
  - {{name: trojan, type: trojan, server: {DIRECT}, port: {PORT}, password: secret}}
  - {{name: web, type: http, server: {DIRECT}, port: {PORT}, tls: true}}
"""

POLICY = f"""
  nameserver-policy:
    '+.dot.real.test': 'tls://{DIRECT}:{PORT}'
    '+.doh.real.test': 'https://{DIRECT}:{PORT}/dns-query'
"""

# What is wrong, and what is said of it.
FARM = {
    "expired": "certificate expired",
    "early": "certificate not valid yet",
    "other-name": "certificate not valid for name",
    "other-address": "certificate not valid for name",
    "self": "signed by nobody that is trusted",
    "stranger": "signed by nobody that is trusted",
    "forged": "a signature does not fit it",
    "client": "certificate does not allow extended key usage",
    "authority": "not one that a server may show",
    "weak": "its key is too weak",
    "sha1": "signed in a way that is not accepted",
    "old": "ProtocolVersion",
}


class Certificates(LabTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        authority = cls.lab.authority()
        cls.place = authority.place
        ours = f"subjectAltName=IP:{DIRECT}"
        for name in ("good", "old"):
            authority.sign(name, ours)
        authority.sign("expired", ours, days=(-30, -1))
        authority.sign("early", ours, days=(2, 30))
        authority.sign("other-name", "subjectAltName=DNS:direct.test")
        authority.sign("other-address", f"subjectAltName=IP:{PROXIED}")
        authority.sign("client", ours, "extendedKeyUsage=clientAuth")
        authority.sign("weak", ours, key=Authority.WEAK)
        authority.sign("sha1", ours, digest="sha1")
        authority.self_signed("self", ours, "basicConstraints=critical,CA:FALSE")
        authority.self_signed("authority", ours, "basicConstraints=critical,CA:TRUE")
        for name in ("stranger", "forged"):
            # The forger calls himself as the real one does.
            other = Authority(cls.lab.directory / name, "authority" if name == "forged" else name)
            other.sign(name, ours)
            for end in ("pem", "key"):
                shutil.copy(other.place / f"{name}.{end}", cls.place)
        cls.trust(authority)
        cls.publish(1)
        cls.show("good")
        server = cls.lab.spawn("wan", sys.executable, "-c", SERVER, DIRECT, str(PORT), str(cls.place), stdout=subprocess.PIPE, text=True)
        assert server.stdout.readline() == "ready\n"
        text = config(swap={"proxies:\n": KEYS.lstrip(), "  nameserver: [": f"{POLICY}  nameserver: [", "rules:\n": "rules:\n  - GEOSITE,shop,DIRECT\n  - RULE-SET,names,DIRECT\n"})
        cls.daemon = Daemon(cls.lab, text).start()
        # They come by themselves at first.
        wait_for("the pages", lambda: cls.daemon.said("external-ui: fetched"), 30)

    @classmethod
    def show(cls, name):
        (cls.place / "shown").write_text(name)

    @classmethod
    def publish(cls, edition):
        """Another edition of everything that is fetched."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("index.html", f"<p>{edition}")
        for name, content in (("ui.zip", packed.getvalue()), ("program", b"no program"), ("names", f"{edition}.test\n".encode()),
                              ("nodes", f"proxies: [{{name: node {edition}, type: http, server: 192.0.2.1, port: 1}}]\n".encode()),
                              ("sites", geosite(shop=[("full", f"{number}.shop.test", None) for number in range(edition)]))):
            (cls.place / name).write_bytes(content)

    def kept(self):
        """What is on disk, but for what has nothing to do with downloads."""
        others = {"history", "fake-ip.log", "fake-ip.bin", "mqtt.log"}
        files = (file for file in self.daemon.directory.rglob("*") if file.is_file() and not others & set(file.parts))
        return {str(file.relative_to(self.daemon.directory)): file.read_bytes() for file in files}

    def in_force(self):
        nodes = self.daemon.api("GET", "/providers/proxies/nodes")[1]["proxies"]
        page = self.lab.ns("gw", "curl", "-s", f"http://{ROUTER_LAN}:9090/ui/")
        return [node["name"] for node in nodes], page, self.daemon.api("GET", "/rules")[1]["rules"][0]["size"]

    # What each client makes of the certificate that is shown: its name, whether it goes on, and what it said, which
    # the log may say later than the answer.

    def downloads(self):
        for method, path in (("PUT", "/providers/proxies/nodes"), ("PUT", "/providers/rules/names"), ("POST", "/upgrade/ui"), ("POST", "/configs/geo"), ("POST", "/upgrade")):
            status, answer = self.daemon.api(method, path)
            message = (answer or {}).get("message", "")
            # A program that came is held against its digest, which no certificate replaces.
            yield path, status < 300 or "SHA-256" in message, lambda: message

    def since_now(self):
        said = len(self.daemon.lines)
        return lambda: "".join(self.daemon.lines[said:])

    def proxies(self):
        """Through proxies over TLS, and to a server by https."""
        for name, url in (("trojan", "http://192.0.2.1/"), ("web", "http://192.0.2.1/"), ("DIRECT", f"https://{DIRECT}:{PORT}/")):
            said = self.since_now()
            yield name, self.daemon.api("GET", f"/proxies/{name}/delay?timeout=4000&url={url}")[0] == 200, said

    def nameservers(self, name):
        for kind in ("dot", "doh"):
            said = self.since_now()
            yield kind, self.lab.dig("gw", ROUTER_LAN, f"{name}.{kind}.real.test", "A", "-p", "1053") == ["192.0.2.9"], said

    def clients(self, name):
        yield from self.downloads()
        yield from self.proxies()
        yield from self.nameservers(name)

    def accepts(self, name, edition):
        self.show("good")
        self.publish(edition)
        for client, good, said in self.clients(name):
            self.assertTrue(good, f"{client} refuses the good one: {said()}")
        self.assertEqual(self.in_force(), ([f"node {edition}"], f"<p>{edition}", edition))

    def test_each_is_refused_for_its_reason_and_changes_nothing(self):
        self.accepts("before", 1)
        before = self.kept(), self.in_force()
        self.publish(2)
        for name, reason in FARM.items():
            self.show(name)
            for client, good, said in self.clients(name):
                with self.subTest(name, client=client):
                    self.assertFalse(good)
                    wait_for("the reason", lambda: reason in said())
            self.assertEqual((self.kept(), self.in_force()), before, name)
        self.accepts("after", 3)
