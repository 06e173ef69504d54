"""Nameservers in the lab's Internet: unbound (DoT, DoH), dnsdist (DoT, DoH, plain HTTP), dnsmasq (UDP, TCP, DHCP).

unbound knows `unbound.test` and everything below `many.test`; dnsdist asks the lab's dnsmasq; a dnsmasq of its
own at BOOTSTRAP knows where they are.
"""

import contextlib
import re
import subprocess

from lab import DIRECT, DNS, ROUTER_LAN, ROUTER_WAN, SECRET, SHADOWSOCKS, Daemon, LabTest, wait_for

BOOTSTRAP = "5.5.5.54"
# Beside the lab's own dnsmasq on port 53 of the same address.
UNBOUND_DOT, UNBOUND_DOH = 853, 8443
DNSDIST_DOT, DNSDIST_DOH, DNSDIST_HTTP, DNSDIST_EXPIRED = 8853, 8444, 8053, 8854
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
  tls-service-key: "{tls}/server.key"
  tls-service-pem: "{tls}/server.pem"
  access-control: 0.0.0.0/0 allow
  local-zone: "test." static
  local-data: "unbound.test. 60 IN A 192.0.2.5"
  local-data: "unbound.test. 60 IN AAAA 2001:db8::5"
  local-data: "only-unbound.test. 60 IN A 192.0.2.6"
  local-data: "lied.test. 60 IN A 192.0.2.9"
  local-data: "short.test. 1 IN A 192.0.2.11"
  local-data: "rebound.test. 60 IN A 192.168.77.1"
  local-data: "x.allowed.test. 60 IN A 192.168.77.1"
  local-zone: "many.test." redirect
  local-data: "many.test. 60 IN A 192.0.2.7"
remote-control:
  control-enable: no
"""

DNSDIST = """
setACL("0.0.0.0/0")
newServer("{dns}:53")
addTLSLocal("{dns}:{dot}", "{tls}/server.pem", "{tls}/server.key")
addTLSLocal("{dns}:{expired}", "{tls}/expired.pem", "{tls}/expired.key")
addDOHLocal("{dns}:{doh}", "{tls}/server.pem", "{tls}/server.key", "/dns-query")
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
  listen: {listen}
  ipv6: true
  enhanced-mode: {mode}
  default-nameserver: [{dns}]
{keys}
{top}
rule-providers:
{providers}
proxies:
  - {{name: named, type: ss, server: node.test, port: 8388, cipher: chacha20-ietf-poly1305, password: secret, udp: true}}
  - {{name: ss, type: ss, server: {shadowsocks}, port: 8388, cipher: chacha20-ietf-poly1305, password: secret, udp: true}}
rules:
{rules}
  - MATCH,DIRECT
"""


class NameserverTest(LabTest):
    """A test case with name servers and with daemons of its own."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        directory = cls.lab.directory
        authority = cls.lab.authority()
        for name, days in (("server", (-1, 30)), ("expired", (-30, -1))):
            authority.sign(name, f"subjectAltName=DNS:{NAME},IP:{DNS}", days=days)
        cls.trust(authority)
        places = {"directory": directory, "tls": authority.place, "dns": DNS}
        cls.unbound_conf = directory / "unbound.conf"
        cls.unbound_conf.write_text(UNBOUND.format(**places, dot=UNBOUND_DOT, doh=UNBOUND_DOH))
        dnsdist = directory / "dnsdist.conf"
        dnsdist.write_text(DNSDIST.format(**places, dot=DNSDIST_DOT, doh=DNSDIST_DOH, http=DNSDIST_HTTP, expired=DNSDIST_EXPIRED))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        cls.start_unbound()
        cls.lab.spawn("wan", "dnsdist", "--supervised", "--disable-syslog", "-C", str(dnsdist), **quiet)
        # What finds the others' names, and what DHCP names.
        cls.lab.ip("wan", "addr", "add", f"{BOOTSTRAP}/24", "dev", "eth0")
        dnsmasq = ("dnsmasq", "-k", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--pid-file=", "--bind-interfaces")
        cls.lab.spawn("wan", *dnsmasq, f"--listen-address={BOOTSTRAP}", "--local=/test/", f"--host-record={NAME},{DNS}", "--host-record=dnsmasq.test,192.0.2.8", "--host-record=lied.test,192.0.2.1",
                      "--host-record=0.pool.ntp.test,192.0.2.123", **quiet)
        cls.lab.spawn("wan", *dnsmasq, "--port=0", "--interface=eth0", "--dhcp-range=5.5.5.100,5.5.5.200,255.255.255.0,1h", f"--dhcp-option=6,{BOOTSTRAP}",
                      "--dhcp-authoritative", "--no-ping", f"--dhcp-leasefile={directory}/dhcp.leases", f"--log-facility={directory}/dhcp.log", **quiet)
        listening = lambda port: f"{DNS}:{port}" in cls.lab.ns("wan", "ss", "-lnt")
        wait_for("dnsdist", lambda: all(map(listening, (DNSDIST_DOT, DNSDIST_DOH, DNSDIST_HTTP))))

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
    def daemon_with(self, keys, rules="", top="", mode="normal", providers=None, listen=f"{ROUTER_LAN}:1053"):
        """A daemon whose `dns:` has these lines, with providers by name and payload; it ends with the block."""
        sets = [f"  {name}: {{type: inline, behavior: domain, payload: {payload}}}" for name, payload in (providers or {}).items()]
        text = CONFIG.format(router=ROUTER_LAN, listen=listen, secret=SECRET, dns=BOOTSTRAP, shadowsocks=SHADOWSOCKS, rules=rules, top=top, mode=mode,
                             providers="\n".join(sets), keys="\n".join(f"  {line}" for line in keys.splitlines()))
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
