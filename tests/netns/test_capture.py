"""A device that is configured for nothing is routed: by name and by address, TCP and UDP, both families."""

import json

from lab import (DIRECT, DIRECT6, PROXIED, PROXIED6, REJECTED, ROUTER_LAN, ROUTER_LAN6, ROUTER_WAN, ROUTER_WAN6, SHADOWSOCKS, SOCKS5, SOCKSED,
                 LabTest, config, wait_for)


class Capture(LabTest):
    # Offload is off here, so that every flow is seen by the daemon; test_offload has it on.
    CONFIG_TEXT = config()

    def resolver(self, name, kind="A"):
        return self.lab.dig("lan1", ROUTER_LAN, name, kind)

    def get(self, url, *arguments):
        """Asks as a device does whose DNS is the router."""
        host = url.split("/")[2].rsplit(":", 1)[0] if "[" not in url else None
        if host and not host.replace(".", "").isdigit():
            port = url.split("/")[2].rpartition(":")[2] if ":" in url.split("/")[2] else ("443" if url.startswith("https") else "80")
            answers = self.resolver(host, "AAAA" if "-6" in arguments else "A")
            self.assertTrue(answers, f"no address for {host}")
            address = f"[{answers[0]}]" if ":" in answers[0] else answers[0]
            arguments += ("--resolve", f"{host}:{port}:{address}")
        return self.lab.curl("lan1", url, *arguments)

    def test_tcp_by_address_goes_direct_through_the_daemon(self):
        answer = self.lab.curl("lan1", f"http://{DIRECT}/")
        self.assertEqual(answer["client"], ROUTER_WAN)
        self.assertTrue(self.daemon.said(f"--> {DIRECT}:80 match Match using DIRECT"))

    def test_tcp_by_name_goes_direct(self):
        self.assertEqual(self.get("http://direct.test/")["client"], ROUTER_WAN)

    def test_tcp_by_name_goes_through_shadowsocks(self):
        answer = self.get("http://proxied.test/")
        self.assertEqual((answer["client"], answer["server"], answer["host"]), (SHADOWSOCKS, PROXIED, "proxied.test"))

    def test_tcp_by_address_goes_through_shadowsocks(self):
        self.assertEqual(self.lab.curl("lan1", f"http://{PROXIED}/")["client"], SHADOWSOCKS)

    def test_tcp_by_name_goes_through_socks5(self):
        self.assertEqual(self.get("http://socksed.test/")["client"], SOCKS5)

    def test_ipv6_by_address_and_by_name(self):
        self.assertEqual(self.lab.curl("lan1", f"http://[{DIRECT6}]/")["client"], ROUTER_WAN6)
        answer = self.get("http://direct.test/", "-6")
        self.assertIn(answer["client"], (ROUTER_WAN, ROUTER_WAN6))

    def test_rejected_is_refused_at_once(self):
        self.assertIsNone(self.lab.curl("lan1", f"http://{REJECTED}/", seconds=3))
        self.assertIsNone(self.get("http://rejected.test/"))

    def test_tls_by_raw_address_is_sniffed(self):
        # The address is direct by its own; the name in the hello sends it through the proxy.
        answer = self.lab.curl("lan1", f"https://proxied.test/", "--resolve", f"proxied.test:443:{DIRECT}")
        self.assertEqual(answer["client"], SHADOWSOCKS)
        self.assertEqual(answer["server"], PROXIED)

    def test_server_that_speaks_first(self):
        code = "import socket,sys; s=socket.create_connection((sys.argv[1],2222),5); print(s.recv(99).decode().strip()); s.sendall(b'echo'); print(s.recv(99).decode())"
        self.assertEqual(self.lab.python("lan1", code, DIRECT).split(), ["220", "hello", "echo"])

    def test_half_close_is_carried_across(self):
        code = """
import socket, sys
s = socket.create_connection((sys.argv[1], 2222), 5)
s.recv(99); s.sendall(b'last words'); s.shutdown(socket.SHUT_WR)
data = b''
while chunk := s.recv(4096): data += chunk
print(data.decode())
"""
        # Not through ss-server or danted: both drop what is on its way back when the client half-closes.
        self.assertEqual(self.lab.python("lan1", code, DIRECT).strip(), "last words")

    def test_udp_by_address(self):
        answer = self.lab.echo("lan1", DIRECT)
        self.assertEqual((answer["payload"], answer["seen"], answer["from"], answer["from_port"]), ("ping", ROUTER_WAN, DIRECT, 9000))

    def test_udp_over_ipv6(self):
        answer = self.lab.echo("lan1", DIRECT6)
        self.assertEqual((answer["seen"], answer["from"]), (ROUTER_WAN6, DIRECT6))

    def test_udp_through_shadowsocks_and_socks5(self):
        self.assertEqual(self.lab.echo("lan1", PROXIED)["seen"], SHADOWSOCKS)
        self.assertEqual(self.lab.echo("lan1", SOCKSED)["seen"], SOCKS5)

    def test_udp_by_fake_address_answers_from_the_fake_address(self):
        fake = self.resolver("proxied.test")[0]
        answer = self.lab.echo("lan1", fake)
        self.assertEqual((answer["seen"], answer["from"]), (SHADOWSOCKS, fake))

    def test_large_udp_datagrams_pass_whole(self):
        answer = self.lab.echo("lan1", DIRECT, payload="x" * 3000)
        self.assertEqual(answer["payload"], "x" * 3000)

    def test_udp_mapping_is_endpoint_independent(self):
        code = """
import json, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3)
seen = set()
for port in (9000, 9001):
    for _ in range(3):
        s.sendto(b'x', (sys.argv[1], port))
        answer, source = s.recvfrom(999)
        seen.add(answer.decode().split()[2]); assert source[1] == port
print(json.dumps(sorted(seen)))
"""
        self.assertEqual(len(json.loads(self.lab.python("lan1", code, DIRECT))), 1)

    def test_dns_to_any_server_is_hijacked(self):
        for server in (ROUTER_LAN, "8.8.8.8", ROUTER_LAN6, "2a00:77:9::1"):
            for transport in ((), ("+tcp",)):
                answers = self.lab.dig("lan1", server, "proxied.test", "A", *transport)
                self.assertEqual(len(answers), 1, f"{server} {transport}: {answers}")
                self.assertTrue(answers[0].startswith("198.18."), f"{server} {transport}: {answers}")

    def test_fake_ip_answers(self):
        first = self.resolver("proxied.test")
        self.assertEqual(first, self.resolver("proxied.test"))
        self.assertTrue(self.resolver("proxied.test", "AAAA")[0].startswith("fdfe:dcba:9876:"))
        self.assertEqual(self.resolver("proxied.test", "HTTPS"), [])

    def test_unknown_fake_address_is_reset_at_once(self):
        code = """
import socket, sys, time
began = time.monotonic()
try:
    s = socket.create_connection(('198.18.77.77', 80), 5); s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n'); s.settimeout(5); s.recv(1)
    print('answered')
except ConnectionError:
    print('reset', time.monotonic() - began < 0.5)
"""
        self.assertEqual(self.lab.python("lan1", code).split(), ["reset", "True"])

    def test_source_mac_rule_refuses_the_other_device(self):
        self.assertIsNone(self.lab.curl("lan2", f"http://{DIRECT}/", seconds=3))
        self.assertIsNotNone(self.lab.curl("lan1", f"http://{DIRECT}/"))

    def test_explicit_proxies_serve_the_lan(self):
        for proxy in (f"http://{ROUTER_LAN}:7890", f"socks5h://{ROUTER_LAN}:7890", f"socks4a://{ROUTER_LAN}:7890", f"socks5://{ROUTER_LAN}:7890"):
            answer = self.lab.curl("lan1", f"http://{PROXIED}/", "-x", proxy)
            self.assertEqual(answer and answer["client"], SHADOWSOCKS, proxy)
        self.assertEqual(self.lab.curl("lan1", "https://proxied.test/", "-x", f"socks5h://{ROUTER_LAN}:7890")["client"], SHADOWSOCKS)

    def test_port_forward_into_the_lan_is_left_alone(self):
        server = self.lab.spawn("lan2", "python3", "-m", "http.server", "8080", stdout=-3, stderr=-3)
        try:
            wait_for("the LAN server", lambda: ":8080" in self.lab.ns("lan2", "ss", "-lnt"))
            status = self.lab.ns("wan", "curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", f"http://{ROUTER_WAN}:8022/", check=False)
            self.assertEqual(status, "200")
        finally:
            server.kill()

    def test_direct_connection_to_the_tproxy_port_is_refused(self):
        for where, address in (("lan1", ROUTER_LAN), ("gw", "127.0.0.1")):
            self.assertIsNone(self.lab.curl(where, f"http://{address}:7893/", seconds=3))

    def test_a_proxy_that_leads_back_here_is_cut(self):
        self.assertIsNone(self.lab.curl("lan1", "http://loop.test/", "-x", f"http://{ROUTER_LAN}:7890", seconds=3))
        wait_for("the loop's name", lambda: self.daemon.said("loop.test:80 refused: it came back from ourselves"))
        self.assertLess(sum("loop.test" in line for line in self.daemon.lines), 8)

    def test_three_hundred_parallel_connections(self):
        code = """
import asyncio, sys
async def one(host):
    r, w = await asyncio.wait_for(asyncio.open_connection(host, 80), 10)
    w.write(b'GET / HTTP/1.0\\r\\n\\r\\n'); data = await asyncio.wait_for(r.read(), 10); w.close()
    return b'client' in data
async def main():
    print(sum(await asyncio.gather(*(one(sys.argv[1]) for _ in range(300)), return_exceptions=False)))
asyncio.run(main())
"""
        self.assertEqual(self.lab.python("lan1", code, DIRECT).strip(), "300")

    def test_upstream_saw_the_query_of_the_daemon_only(self):
        self.assertEqual(self.lab.dig("lan1", "8.8.8.8", "www.real.test"), [DIRECT])
        # Names are spelled at random, against forged answers.
        log = (self.lab.directory / "dns.log").read_text().lower()
        self.assertIn("www.real.test", log)
        self.assertNotIn("192.168.77.", log)
