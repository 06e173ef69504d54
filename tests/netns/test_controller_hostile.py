"""The controller against those who have no secret and borrow somebody's position: a web page that has its name lead to
the router (DNS rebinding, requirement S3), and requests that two programs in a row read differently (smuggling, S10),
sent directly and by way of nginx, which here keeps everybody from /configs."""

import json
import shutil
import socket
import unittest

from browser import Browser
from lab import ROUTER_LAN, ROUTER_LAN6, SECRET, LabTest, config, wait_for

# What the browser believes these names to be, after the page has had them change.
NAMES = {"evil.example": ROUTER_LAN, "evil6.example": f"[{ROUTER_LAN6}]"}

# What a script of such a page may try on its own origin, which is the router by now.
TRIES = """
(async () => {
    const said = [];
    for (const [method, path] of [
        ["GET", "/version"], ["HEAD", "/version"], ["GET", "/proxies"], ["GET", "/ui/"], ["PUT", "/configs"], ["PATCH", "/configs"],
        ["POST", "/restart"], ["DELETE", "/connections"], ["OPTIONS", "/configs"],
    ]) {
        const body = ["PUT", "PATCH", "POST"].includes(method) ? '{"mode": "direct"}' : undefined;
        const answer = await fetch(path, {method, body, headers: {Authorization: "Bearer SECRET"}});
        said.push([method, path, answer.status, await answer.text()]);
    }
    for (const path of ["/traffic", "/logs", "/connections"]) {
        said.push(["socket", path, await new Promise(done => {
            const socket = new WebSocket(`ws://${location.host}${path}?token=SECRET`);
            socket.onopen = () => done("open");
            socket.onerror = () => done("refused");
        })]);
    }
    return said;
})()
""".replace("SECRET", SECRET)

AGENT = f"Host: {ROUTER_LAN}\r\nAuthorization: Bearer {SECRET}\r\n"
TO_DIRECT = json.dumps({"mode": "direct"})
SMUGGLED = f"PATCH /configs HTTP/1.1\r\n{AGENT}Content-Length: {len(TO_DIRECT)}\r\n\r\n{TO_DIRECT}"
CHUNKED = f"{len(SMUGGLED):x}\r\n{SMUGGLED}\r\n0\r\n\r\n"


def request(fields, body="", line="PUT /proxies/Pick HTTP/1.1"):
    return f"{line}\r\n{AGENT}{fields}\r\n{body}".encode("latin-1")


# Each has a second request where one of two readers might see it.
CORPUS = {
    "length and coding": request(f"Content-Length: {5 + len(SMUGGLED)}\r\nTransfer-Encoding: chunked\r\n", f"0\r\n\r\n{SMUGGLED}"),
    "coding and length": request("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", CHUNKED),
    "two lengths": request(f"Content-Length: 0\r\nContent-Length: {len(SMUGGLED)}\r\n", SMUGGLED),
    "the same length twice": request(f"Content-Length: {len(SMUGGLED)}\r\n" * 2, SMUGGLED),
    "a list of lengths": request(f"Content-Length: 0, {len(SMUGGLED)}\r\n", SMUGGLED),
    "a signed length": request("Content-Length: +0\r\n", SMUGGLED),
    "a negative length": request("Content-Length: -1\r\n", SMUGGLED),
    "a length of many digits": request("Content-Length: 18446744073709551616\r\n", SMUGGLED),
    "space before the colon": request(f"Content-Length : {len(SMUGGLED)}\r\n", SMUGGLED),
    "coding with a space before the colon": request("Transfer-Encoding : chunked\r\n", f"0\r\n\r\n{SMUGGLED}"),
    "coding after a vertical tab": request("Transfer-Encoding:\x0bchunked\r\n", f"0\r\n\r\n{SMUGGLED}"),
    "an unknown coding": request("Transfer-Encoding: xchunked\r\n", f"0\r\n\r\n{SMUGGLED}"),
    "chunked, then identity": request("Transfer-Encoding: chunked, identity\r\n", f"0\r\n\r\n{SMUGGLED}"),
    "coding twice": request("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", f"0\r\n\r\n{SMUGGLED}"),
    "a folded field": request("X: a\r\n Content-Length: 0\r\n", SMUGGLED),
    "a folded coding": request("Transfer-Encoding:\r\n chunked\r\n", f"0\r\n\r\n{SMUGGLED}"),
    "a bare return": request("X: a\rTransfer-Encoding: chunked\r\n", f"0\r\n\r\n{SMUGGLED}"),
    "a bare line feed": request("X: a\nTransfer-Encoding: chunked\r\n", f"0\r\n\r\n{SMUGGLED}"),
    "a null": request("X: a\0Transfer-Encoding: chunked\r\n", f"0\r\n\r\n{SMUGGLED}"),
    "coding in 1.0": request("Transfer-Encoding: chunked\r\n", f"0\r\n\r\n{SMUGGLED}", "PUT /proxies/Pick HTTP/1.0"),
    "a chunk of a signed size": request("Transfer-Encoding: chunked\r\n", f"+0\r\n\r\n{SMUGGLED}"),
    "a chunk of 0x0": request("Transfer-Encoding: chunked\r\n", f"0x0\r\n\r\n{SMUGGLED}"),
    "a chunk size that overflows": request("Transfer-Encoding: chunked\r\n", f"10000000000000000\r\n\r\n{SMUGGLED}"),
    "a chunk's line ends in a line feed": request("Transfer-Encoding: chunked\r\n", f"0\n\r\n{SMUGGLED}"),
    "a chunk without its end": request("Transfer-Encoding: chunked\r\n", f"1\r\nxx\r\n0\r\n\r\n{SMUGGLED}"),
    "an extension with a line feed": request("Transfer-Encoding: chunked\r\n", f"2;\nxx\r\n{len(SMUGGLED):x}\r\n0\r\n\r\n{SMUGGLED}"),
    "an expectation": request(f"Expect: 100-continued\r\nContent-Length: {len(SMUGGLED)}\r\n", SMUGGLED),
}
# And where both must read the same: it is the body of the first.
BODIES = {
    "the body of a PUT": request(f"Content-Length: {len(SMUGGLED)}\r\n", SMUGGLED),
    "the body of a GET": request(f"Content-Length: {len(SMUGGLED)}\r\n", SMUGGLED, "GET /version HTTP/1.1"),
    "a chunk, its coding after a tab": request("Transfer-Encoding:\tchunked\r\n", CHUNKED),
    "a chunk": request("Transfer-Encoding: chunked\r\n", CHUNKED),
    "the chunk of a GET": request("Transfer-Encoding: chunked\r\n", CHUNKED, "GET /version HTTP/1.1"),
    "a trailer": request("Transfer-Encoding: chunked\r\n", "0\r\nContent-Length: 0\r\n\r\n"),
}


class Hostile(LabTest):
    CONFIG_TEXT = config(swap={f"external-controller: {ROUTER_LAN}:9090": "external-controller: '[::]:9090'"})

    def mode(self):
        return self.daemon.api("GET", "/configs")[1]["mode"]

    def exchange(self, port, sent):
        """All that is answered until the connection ends or nothing comes any more."""
        with self.lab.connect("lan1", ROUTER_LAN, port) as stream:
            stream.sendall(sent)
            stream.settimeout(0.3)
            got = b""
            try:
                while piece := stream.recv(65536):
                    got += piece
            except (socket.timeout, ConnectionError):
                pass
            return got

    def test_a_page_whose_name_became_the_router_is_refused(self):
        if not shutil.which("chromium"):
            raise unittest.SkipTest("no chromium")
        rules = ",".join(f"MAP {name} {address}" for name, address in NAMES.items())
        browser = Browser(self.lab, "lan1", f"'--host-resolver-rules={rules}'")
        self.addCleanup(browser.close)
        # The browser does get there: by an address it is served.
        for host in (ROUTER_LAN, f"[{ROUTER_LAN6}]"):
            browser.go(f"http://{host}:9090/version")
            browser.wait("the address", f"location.host === '{host}:9090' && document.readyState === 'complete'")
            statuses = {tuple(said[:2]): said[2] for said in browser.evaluate(TRIES.replace('"PUT", "/configs"', '"GET", "/rules"').replace('"POST", "/restart"', '"GET", "/group"'))}
            self.assertEqual((statuses["GET", "/version"], statuses["socket", "/traffic"]), (200, "open"), statuses)
        self.daemon.api("PATCH", "/configs", {"mode": "rule"})
        for name in NAMES:
            browser.go(f"http://{name}:9090/")
            browser.wait("the name", f"location.host === '{name}:9090' && document.readyState === 'complete'")
            for said in browser.evaluate(TRIES):
                with self.subTest(name=name, tried=said[:2]):
                    self.assertIn(said[2], (403, "refused"))
                    self.assertNotIn("meta", str(said[3:]))
        self.assertEqual(self.mode(), "rule")

    def test_nothing_is_smuggled_directly(self):
        for what, sent in CORPUS.items():
            with self.subTest(what):
                got = self.exchange(9090, sent)
                self.assertRegex(got[:12], rb"^HTTP/1\.1 (400|413|417|501)")
                self.assertEqual(got.count(b"HTTP/1.1 "), 1, got)
                self.assertEqual(self.mode(), "rule")
        for what, sent in BODIES.items():
            with self.subTest(what):
                got = self.exchange(9090, sent)
                self.assertEqual(got.count(b"HTTP/1.1 "), 1, got)
                self.assertEqual(self.mode(), "rule")

    def test_nothing_is_smuggled_through_nginx(self):
        if not shutil.which("nginx"):
            raise unittest.SkipTest("no nginx")
        place = self.lab.directory
        (place / "front.conf").write_text(f"""
daemon off; pid {place}/front.pid; error_log {place}/front.log; user root; worker_processes 1;
events {{}}
http {{ access_log off;
    upstream gate {{ server {ROUTER_LAN}:9090; keepalive 1; }}
    server {{
        listen {ROUTER_LAN}:8480;
        location / {{ proxy_pass http://gate; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host {ROUTER_LAN}; proxy_request_buffering off; }}
        location /configs {{ return 404; }}
    }}
}}
""")
        front = self.lab.spawn("gw", "nginx", "-c", str(place / "front.conf"))
        self.addCleanup(front.terminate)
        wait_for("nginx", lambda: ":8480" in self.lab.ns("gw", "ss", "-lnt"))
        forbidden = self.exchange(8480, SMUGGLED.encode())
        self.assertRegex(forbidden[:12], rb"^HTTP/1\.1 404")
        passed = 0
        for what, sent in (CORPUS | BODIES).items():
            with self.subTest(what):
                got = self.exchange(8480, sent)
                passed += b'"message"' in got
                # nginx answers whatever comes after by itself, with 404; what matters is who else is served what.
                other = self.exchange(8480, request("Connection: close\r\n", line="GET /version HTTP/1.1"))
                self.assertRegex(other[:12], rb"^HTTP/1\.1 200")
                self.assertIn(b'"meta"', other)
                self.assertEqual(other.count(b"HTTP/1.1 "), 1, other)
                self.assertEqual(self.mode(), "rule")
        self.assertGreaterEqual(passed, 2, "what both read alike comes to headgate")


if __name__ == "__main__":
    unittest.main()
