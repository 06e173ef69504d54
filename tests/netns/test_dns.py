"""Nameservers of every transport, against unbound (DoT, DoH), dnsdist (DoT, DoH, plain HTTP) and dnsmasq (UDP, DHCP)."""

import contextlib
import os
import re
import subprocess
import time

from lab import DIRECT, DNS, ROUTER_LAN, ROUTER_WAN, SECRET, SHADOWSOCKS, Daemon, LabTest, run, wait_for

BOOTSTRAP = "5.5.5.54"
# Beside the lab's own dnsmasq on port 53 of the same address.
UNBOUND_DOT, UNBOUND_DOH = 853, 8443
DNSDIST_DOT, DNSDIST_DOH, DNSDIST_HTTP = 8853, 8444, 8053
NAME = "doh.test"

UNBOUND = """
server:
  directory: "{directory}"
  chroot: ""
  username: ""
  pidfile: "{directory}/unbound.pid"
  use-syslog: no
  logfile: "{directory}/unbound.log"
  log-queries: yes
  do-not-query-localhost: no
  num-threads: 1
  interface: {dns}@{dot}
  interface: {dns}@{doh}
  tls-port: {dot}
  https-port: {doh}
  tls-service-key: "{directory}/server.key"
  tls-service-pem: "{directory}/server.pem"
  access-control: 0.0.0.0/0 allow
  local-zone: "test." static
  local-data: "unbound.test. 60 IN A 192.0.2.5"
  local-data: "unbound.test. 60 IN AAAA 2001:db8::5"
  local-data: "only-unbound.test. 60 IN A 192.0.2.6"
  local-zone: "many.test." redirect
  local-data: "many.test. 60 IN A 192.0.2.7"
remote-control:
  control-enable: no
"""

DNSDIST = """
setACL("0.0.0.0/0")
newServer("{dns}:53")
addTLSLocal("{dns}:{dot}", "{directory}/server.pem", "{directory}/server.key")
addDOHLocal("{dns}:{doh}", "{directory}/server.pem", "{directory}/server.key", "/dns-query")
addDOHLocal("{dns}:{http}", nil, nil, "/dns-query")
"""

CONFIG = """
mixed-port: 7890
log-level: debug
ipv6: true
external-controller: {router}:9090
secret: {secret}
dns:
  enable: true
  listen: {router}:1053
  ipv6: true
  enhanced-mode: normal
  default-nameserver: [{dns}]
{keys}
proxies:
  - {{name: ss, type: ss, server: {shadowsocks}, port: 8388, cipher: chacha20-ietf-poly1305, password: secret, udp: true}}
rules:
{rules}
  - MATCH,DIRECT
"""


class Nameservers(LabTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        directory = cls.lab.directory
        certificates(directory)
        places = {"directory": directory, "dns": DNS}
        cls.unbound_conf = directory / "unbound.conf"
        cls.unbound_conf.write_text(UNBOUND.format(**places, dot=UNBOUND_DOT, doh=UNBOUND_DOH))
        dnsdist = directory / "dnsdist.conf"
        dnsdist.write_text(DNSDIST.format(**places, dot=DNSDIST_DOT, doh=DNSDIST_DOH, http=DNSDIST_HTTP))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        cls.start_unbound()
        cls.lab.spawn("wan", "dnsdist", "--supervised", "--disable-syslog", "-C", str(dnsdist), **quiet)
        # What finds the others' names, and what DHCP names.
        cls.lab.ip("wan", "addr", "add", f"{BOOTSTRAP}/24", "dev", "eth0")
        dnsmasq = ("dnsmasq", "-k", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--pid-file=", "--bind-interfaces")
        cls.lab.spawn("wan", *dnsmasq, f"--listen-address={BOOTSTRAP}", "--local=/test/", f"--host-record={NAME},{DNS}", "--host-record=dnsmasq.test,192.0.2.8", **quiet)
        cls.lab.spawn("wan", *dnsmasq, "--port=0", "--interface=eth0", "--dhcp-range=5.5.5.100,5.5.5.200,255.255.255.0,1h", f"--dhcp-option=6,{BOOTSTRAP}",
                      "--dhcp-authoritative", "--no-ping", f"--dhcp-leasefile={directory}/dhcp.leases", f"--log-facility={directory}/dhcp.log", **quiet)
        listening = lambda port: f"{DNS}:{port}" in cls.lab.ns("wan", "ss", "-lnt")
        wait_for("dnsdist", lambda: all(map(listening, (DNSDIST_DOT, DNSDIST_DOH, DNSDIST_HTTP))))
        os.environ["SSL_CERT_FILE"] = str(directory / "ca.pem")
        cls.addClassCleanup(os.environ.pop, "SSL_CERT_FILE")

    @classmethod
    def start_unbound(cls):
        cls.unbound = cls.lab.spawn("wan", "unbound", "-d", "-c", str(cls.unbound_conf), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for("unbound", lambda: f"{DNS}:{UNBOUND_DOH}" in cls.lab.ns("wan", "ss", "-lnt"))

    @classmethod
    def stop_unbound(cls):
        # The process that `ip netns exec` became.
        cls.unbound.terminate()
        cls.unbound.wait()

    @contextlib.contextmanager
    def daemon_with(self, keys, rules=""):
        """A daemon whose `dns:` has these lines; it ends with the block."""
        text = CONFIG.format(router=ROUTER_LAN, secret=SECRET, dns=BOOTSTRAP, shadowsocks=SHADOWSOCKS, rules=rules,
                             keys="\n".join(f"  {line}" for line in keys.splitlines()))
        daemon = Daemon(self.lab, text).start()
        try:
            yield daemon
        finally:
            self.assertEqual(daemon.stop(), 0)

    def ask(self, name, kind="A", *arguments):
        return self.lab.dig("gw", ROUTER_LAN, name, kind, "-p", "1053", *arguments)

    def streams(self, port):
        """The router's connections to a port of the DNS address, as the router sees them."""
        return self.lab.ns("gw", "ss", "-Hnt", "state", "established", f"dst {DNS} and dport = :{port}").splitlines()

    def asked_by(self, name):
        """Whom unbound saw ask for a name."""
        log = (self.lab.directory / "unbound.log").read_text()
        return re.findall(rf"info: (\S+) {re.escape(name)}\. ", log)

    def test_each_encrypted_transport_answers_by_address_and_by_name(self):
        for server, name, answer in (
            (f"tls://{DNS}", "unbound.test", "192.0.2.5"),
            (f"tls://{NAME}:{UNBOUND_DOT}", "unbound.test", "192.0.2.5"),
            (f"https://{DNS}:{UNBOUND_DOH}/dns-query", "unbound.test", "192.0.2.5"),
            (f"https://{NAME}:{UNBOUND_DOH}", "unbound.test", "192.0.2.5"),
            (f"tls://{NAME}:{DNSDIST_DOT}", "direct.test", DIRECT),
            (f"https://{NAME}:{DNSDIST_DOH}/dns-query", "direct.test", DIRECT),
            (f"http://{DNS}:{DNSDIST_HTTP}/dns-query", "direct.test", DIRECT),
            (f"tcp://{DNS}", "direct.test", DIRECT),
        ):
            with self.subTest(server), self.daemon_with(f"nameserver: ['{server}']"):
                self.assertEqual(self.ask(name), [answer])
                # Twice: once by the kept connection.
                self.assertEqual(self.ask("nothing.test"), [])
                self.assertTrue(self.lab.dig("gw", ROUTER_LAN, name, "AAAA", "-p", "1053"))

    def test_many_questions_share_one_connection(self):
        for scheme, port in (("tls", UNBOUND_DOT), ("https", UNBOUND_DOH)):
            with self.subTest(scheme), self.daemon_with(f"nameserver: ['{scheme}://{NAME}:{port}']"):
                names = [f"n{i}.many.test" for i in range(200)]
                queries = self.lab.directory / "queries"
                queries.write_text("".join(f"{name} A\n" for name in names))
                report = self.lab.ns("gw", "dnsperf", "-s", ROUTER_LAN, "-p", "1053", "-d", str(queries), "-n", "1", "-q", "50")
                self.assertIn("Queries completed:    200 (100.00%)", report)
                self.assertIn("NOERROR 200", report)
                self.assertEqual(len(self.streams(port)), 1)

    def test_an_unused_connection_is_closed(self):
        with self.daemon_with(f"nameserver: ['tls://{NAME}', 'https://{NAME}:{UNBOUND_DOH}']"):
            self.assertEqual(self.ask("unbound.test"), ["192.0.2.5"])
            open_streams = lambda: self.streams(UNBOUND_DOT) + self.streams(UNBOUND_DOH)
            wait_for("both to be open", lambda: len(open_streams()) == 2)
            wait_for("both to close", lambda: not open_streams(), 30)

    def test_a_server_that_comes_back_is_used_at_once(self):
        for scheme, port in (("tls", UNBOUND_DOT), ("https", UNBOUND_DOH)):
            with self.subTest(scheme), self.daemon_with(f"nameserver: ['{scheme}://{NAME}:{port}']"):
                self.assertEqual(self.ask("a.many.test"), ["192.0.2.7"])
                self.stop_unbound()
                self.start_unbound()
                self.assertEqual(self.ask("b.many.test"), ["192.0.2.7"])

    def test_a_connection_that_went_silent_is_left_for_a_new_one(self):
        for scheme, port in (("tls", UNBOUND_DOT), ("https", UNBOUND_DOH)):
            with self.subTest(scheme), self.daemon_with(f"nameserver: ['{scheme}://{NAME}:{port}']"):
                self.assertEqual(self.ask("c.many.test"), ["192.0.2.7"])
                [stream] = self.streams(port)
                ours = stream.split()[2].rpartition(":")[2]
                self.lab.ns("wan", "nft", f"add table ip hole; add chain ip hole input {{ type filter hook input priority 0; }}; "
                                          f"add rule ip hole input tcp sport {ours} drop")
                try:
                    began = time.monotonic()
                    self.assertEqual(self.ask("d.many.test"), ["192.0.2.7"])
                    self.assertLess(time.monotonic() - began, 2.5)
                finally:
                    self.lab.ns("wan", "nft", "delete", "table", "ip", "hole")

    def test_a_certificate_that_is_not_vouched_for_is_refused_and_named(self):
        # The certificate is for the name and one address, not for this one.
        other = f"tls://5.5.5.1:{UNBOUND_DOT}"
        self.lab.ns("wan", "nft", "add table ip turn; add chain ip turn prerouting { type nat hook prerouting priority -100; }; "
                                  f"add rule ip turn prerouting ip daddr 5.5.5.1 tcp dport {UNBOUND_DOT} dnat to {DNS}")
        try:
            with self.daemon_with(f"nameserver: ['{other}']") as daemon:
                self.assertEqual(self.ask("unbound.test"), [])
                self.assertTrue(daemon.said(f"dns: {other}: invalid peer certificate"), daemon.lines)
            with self.daemon_with(f"nameserver: ['{other}#skip-cert-verify=true']"):
                self.assertEqual(self.ask("unbound.test"), ["192.0.2.5"])
        finally:
            self.lab.ns("wan", "nft", "delete", "table", "ip", "turn")

    def test_a_server_is_reached_by_a_proxy_by_the_rules_or_directly(self):
        rule = f"  - DOMAIN,{NAME},ss"
        for suffix, seen in (("", ROUTER_WAN), ("#ss", SHADOWSOCKS), ("#RULES", SHADOWSOCKS), ("#DIRECT", ROUTER_WAN), ("#wan0", ROUTER_WAN)):
            for server in (f"tls://{NAME}:{UNBOUND_DOT}", f"https://{NAME}:{UNBOUND_DOH}/dns-query"):
                name = f"{suffix.strip('#') or 'plain'}-{server[:3]}.many.test".lower()
                with self.subTest(server + suffix), self.daemon_with(f"nameserver: ['{server}{suffix}']", rule):
                    self.assertEqual(self.ask(name), ["192.0.2.7"])
                    wait_for("unbound's log", lambda: self.asked_by(name))
                    self.assertEqual(self.asked_by(name), [seen])

    def test_types_that_a_server_is_not_to_be_asked_for_are_answered_empty(self):
        with self.daemon_with(f"nameserver: ['tls://{NAME}#disable-ipv6=true']"):
            self.assertEqual(self.ask("unbound.test"), ["192.0.2.5"])
            self.assertEqual(self.ask("unbound.test", "AAAA"), [])

    def test_dhcp_names_the_servers(self):
        with self.daemon_with("nameserver: ['dhcp://wan0']"):
            self.assertEqual(self.ask("dnsmasq.test"), ["192.0.2.8"])
            self.assertEqual(self.ask("doh.test"), [DNS])
        self.assertEqual((self.lab.directory / "dhcp.log").read_text().count("DHCPDISCOVER"), 1)

    def test_constant_answers(self):
        with self.daemon_with("nameserver: ['rcode://refused']"):
            self.assertIn("status: REFUSED", self.lab.ns("gw", "dig", f"@{ROUTER_LAN}", "-p", "1053", "a.test"))
        with self.daemon_with("nameserver: ['rcode://name_error']"):
            self.assertIn("status: NXDOMAIN", self.lab.ns("gw", "dig", f"@{ROUTER_LAN}", "-p", "1053", "a.test"))


def certificates(directory):
    """A root, and a server's certificate for NAME and DNS under it."""
    extension = directory / "san.cnf"
    extension.write_text(f"subjectAltName=DNS:{NAME},IP:{DNS}\nbasicConstraints=CA:FALSE\n")
    key, request = str(directory / "server.key"), str(directory / "server.csr")
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=lab root",
        "-keyout", str(directory / "ca.key"), "-out", str(directory / "ca.pem"))
    run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={NAME}", "-keyout", key, "-out", request)
    run("openssl", "x509", "-req", "-in", request, "-CA", str(directory / "ca.pem"), "-CAkey", str(directory / "ca.key"), "-CAcreateserial",
        "-days", "30", "-extfile", str(extension), "-out", str(directory / "server.pem"))
