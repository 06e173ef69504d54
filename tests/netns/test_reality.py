"""REALITY, headgate against itself, with nginx as the site: VLESS with and without the flow.

Whoever shows no seal meets the site and its own certificate, whatever he sends.
"""

import json
import shutil
import socket
import ssl
import subprocess
import unittest

from lab import DIRECT, HEADGATE, ROUTER_LAN, ROUTER_WAN, SHADOWSOCKS, Daemon, LabTest, config, run, wait_for

UUID = "66ad4540-b58c-4ad2-9926-ea63445a9b57"
PLAIN = "11111111-b58c-4ad2-9926-ea63445a9b57"
# RFC 7748 section 6.1: Bob's pair, and Alice's public key.
SECRET, PUBLIC = "XasIfmJKikt54X-Lg4AO5m87sSkmGLb9HC-LJ_-I4Os", "3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx-FG-IK08"
OTHER = "hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo"
SERVER, SITE = 21200, 8600
NODES = {
    22200: f"uuid: {UUID}, flow: xtls-rprx-vision, reality-opts: {{public-key: {PUBLIC}, short-id: '01ab'}}, servername: site.test",
    22201: f"uuid: {PLAIN}, reality-opts: {{public-key: {PUBLIC}, short-id: '01ab'}}, servername: site.test",
    22202: f"uuid: {PLAIN}, reality-opts: {{public-key: {OTHER}, short-id: '01ab'}}, servername: site.test",
    22203: f"uuid: {PLAIN}, reality-opts: {{public-key: {PUBLIC}, short-id: '01ac'}}, servername: site.test",
    22204: f"uuid: {PLAIN}, reality-opts: {{public-key: {PUBLIC}, short-id: '01ab'}}, servername: other.test",
}
KNOWN, UNKNOWN = (22200, 22201), (22202, 22203, 22204)


class Reality(LabTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if not shutil.which("nginx"):
            raise unittest.SkipTest("no nginx")
        lab, quiet = cls.lab, {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        site = lab.directory / "site"
        site.mkdir()
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", "/CN=site.test",
            "-keyout", str(site / "key.pem"), "-out", str(site / "leaf.pem"))
        cls.certificate = ssl.PEM_cert_to_DER_cert((site / "leaf.pem").read_text())
        (site / "nginx.conf").write_text(f"""
daemon off; pid {site}/nginx.pid; error_log {site}/nginx.log; user root;
events {{ }}
http {{
    access_log off; client_body_temp_path {site}; proxy_temp_path {site}; fastcgi_temp_path {site}; uwsgi_temp_path {site}; scgi_temp_path {site};
    server {{ listen {SHADOWSOCKS}:{SITE} ssl; ssl_certificate {site}/leaf.pem; ssl_certificate_key {site}/key.pem; ssl_protocols TLSv1.2 TLSv1.3; return 200 "the site"; }}
}}
""")
        lab.spawn("wan", "nginx", "-c", str(site / "nginx.conf"), **quiet)
        wait_for("the site", lambda: f":{SITE} " in lab.ns("wan", "ss", "-lnt"))
        server = (f"  - {{name: in, type: vless, listen: 0.0.0.0, port: {SERVER}, users: [{{username: me, uuid: {UUID}, flow: xtls-rprx-vision}}, {{username: plain, uuid: {PLAIN}}}], "
                  f"reality-config: {{dest: '{SHADOWSOCKS}:{SITE}', private-key: {SECRET}, short-id: ['01ab'], server-names: [site.test], max-time-difference: 60000000}}}}\n")
        cls.daemon = Daemon(lab, config() + "listeners:\n" + server).start()
        other = lab.directory / "other"
        other.mkdir()
        (other / "config.yaml").write_text(
            "mode: rule\nproxies:\n" + "".join(f"  - {{name: n{port}, type: vless, server: {ROUTER_LAN}, port: {SERVER}, udp: true, tls: true, {keys}}}\n" for port, keys in NODES.items())
            + "listeners:\n" + "".join(f"  - {{name: l{port}, type: socks, listen: 127.0.0.1, port: {port}, udp: true, proxy: n{port}}}\n" for port in NODES)
            + "rules: ['MATCH,DIRECT']\n")
        lab.spawn("lan1", HEADGATE, "-d", str(other), **quiet)
        wait_for("the client", lambda: f":{max(NODES)} " in lab.ns("lan1", "ss", "-lnt"))

    def fetch(self, port, *arguments, **options):
        return self.lab.ns("lan1", "curl", "-sk", "-m", "20", "-x", f"socks5h://127.0.0.1:{port}", *arguments, **options)

    def test_who_has_the_key_is_served(self):
        for port in KNOWN:
            with self.subTest(port):
                for url in (f"https://{DIRECT}", f"http://{DIRECT}"):
                    self.assertEqual(self.fetch(port, f"{url}/bytes/3000000", "-o", "/dev/null", "-w", "%{size_download}"), "3000000")
                    answer = json.loads(self.fetch(port, "-H", "Expect:", "--data-binary", "@-", f"{url}/up", input="y" * 2000000))
                    self.assertEqual((answer["path"], answer["client"]), ("/up", ROUTER_WAN))

    def test_who_has_not_is_not(self):
        for port in UNKNOWN:
            with self.subTest(port):
                self.assertEqual(self.fetch(port, f"http://{DIRECT}/", check=False), "")

    def test_a_prober_meets_the_site(self):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            for name in ("site.test", "other.test", None):
                with self.subTest(version=version, name=name):
                    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                    context.minimum_version = context.maximum_version = version
                    with context.wrap_socket(self.lab.connect("lan1", ROUTER_LAN, SERVER), server_hostname=name) as tls:
                        self.assertEqual(tls.getpeercert(True), self.certificate)
                        tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
                        answer = b""
                        while piece := tls.recv(4096):
                            answer += piece
                        self.assertTrue(answer.endswith(b"the site"))
        self.assertIn("CN = site.test", self.lab.ns("lan1", "openssl", "s_client", "-connect", f"{ROUTER_LAN}:{SERVER}", "-servername", "site.test", input=""))

    def test_what_is_no_tls_gets_the_sites_own_words(self):
        for bytes_ in (b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x01\xff\xff" + bytes(100)):
            heard = []
            for where, address, port in (("lan1", ROUTER_LAN, SERVER), ("gw", SHADOWSOCKS, SITE)):
                with self.lab.connect(where, address, port) as probe:
                    probe.sendall(bytes_)
                    answer = b""
                    with_end = True
                    try:
                        while piece := probe.recv(4096):
                            answer += piece
                    except (ConnectionError, socket.timeout):
                        with_end = False
                    # The date is the site's, a second may pass.
                    heard.append(([line for line in answer.split(b"\r\n") if not line.startswith(b"Date")], with_end or len(answer) > 0))
            self.assertEqual(heard[0], heard[1], bytes_)


if __name__ == "__main__":
    unittest.main()
