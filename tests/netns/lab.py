"""The lab: a LAN with two devices, a router, an Internet, each a network namespace of its own.

    lan1 192.168.77.11 fd77::11 ┐
                                ├ br-lan (router) wan0 ─ Internet 5.5.5.0/24, 6.6.6.0/24, 2a00:77::/32
    lan2 192.168.77.12 fd77::12 ┘

The router masquerades as a home router does. The Internet's servers say whom they saw: 5.5.5.2 and
2a00:77::2 are the router itself, 5.5.5.20 is the Shadowsocks server, 5.5.5.21 the SOCKS5 server.
"""

import contextlib
import ctypes
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEADGATE = os.environ.get("HEADGATE", str(ROOT / "target/debug/headgate"))

ROUTER_WAN, ROUTER_WAN6 = "5.5.5.2", "2a00:77::2"
ROUTER_LAN, ROUTER_LAN6 = "192.168.77.1", "fd77::1"
SHADOWSOCKS, SOCKS5 = "5.5.5.20", "5.5.5.21"
DIRECT, PROXIED, SOCKSED, REJECTED = "5.5.5.10", "6.6.6.10", "6.6.6.20", "6.6.6.30"
DIRECT6, PROXIED6 = "2a00:77::10", "2a00:77:1::10"
DNS = "5.5.5.53"
MAC1, MAC2 = "02:77:00:00:00:11", "02:77:00:00:00:12"
SECRET = "lab-secret"


def run(*command, check=True, timeout=30, **options):
    """Runs a program to its end and gives its output."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def wait_for(what, condition, seconds=10):
    """Waits until `condition` holds; fails naming `what`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.02)


class Authority:
    """A certificate authority of the lab's own: `ca.pem`, and beside it, as NAME.pem and NAME.key, what it signs."""

    EC, RSA, WEAK = ("ec", "-pkeyopt", "ec_paramgen_curve:P-256"), ("rsa:2048",), ("rsa:1024",)

    def __init__(self, place, name="authority"):
        self.place = pathlib.Path(place)
        self.place.mkdir(exist_ok=True)
        self.ca = self.place / "ca.pem"
        (self.place / "index").touch()
        (self.place / "ca.cnf").write_text(f"""
[ca]
default_ca = own
[own]
database = {self.place}/index
new_certs_dir = {self.place}
certificate = {self.ca}
private_key = {self.place}/ca.key
rand_serial = yes
unique_subject = no
policy = any
[any]
commonName = supplied
""")
        self.self_signed("ca", "basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign", subject=name)

    def self_signed(self, name, *extensions, key=EC, subject=None):
        """A certificate that nobody vouches for but itself."""
        added = [word for extension in extensions for word in ("-addext", extension)]
        run("openssl", "req", "-x509", "-newkey", *key, "-nodes", "-days", "30", "-subj", f"/CN=lab {subject or name}", *added, "-keyout", self.place / f"{name}.key", "-out", self.place / f"{name}.pem")

    def sign(self, name, *extensions, days=(-1, 30), key=EC, digest="sha256"):
        """A certificate of no authority, good from one day to another, counted from today."""
        request, added = self.place / f"{name}.csr", self.place / f"{name}.cnf"
        run("openssl", "req", "-newkey", *key, "-nodes", "-subj", f"/CN=lab {name}", "-keyout", self.place / f"{name}.key", "-out", request)
        added.write_text("\n".join(("basicConstraints=critical,CA:FALSE", *extensions)))
        start, end = (time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + day * 86400)) for day in days)
        run("openssl", "ca", "-batch", "-notext", "-config", self.place / "ca.cnf", "-extfile", added, "-startdate", start, "-enddate", end, "-md", digest,
            "-in", request, "-out", self.place / f"{name}.pem")
        # For servers that give up root before they read it.
        (self.place / f"{name}.key").chmod(0o644)


class Lab:
    """Namespaces and peers; one serves a whole test module."""

    def __init__(self):
        self.tag = f"hg{os.getpid()}"
        self.names = {n: f"{self.tag}-{n}" for n in ("lan1", "lan2", "gw", "wan")}
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="headgate-lab-"))
        self.processes = []

    def ns(self, where, *command, **options):
        return run("ip", "netns", "exec", self.names[where], *command, **options)

    def authority(self, name="authority"):
        """A certificate authority, in a directory of the lab's."""
        return Authority(self.directory / name, name)

    def ip(self, where, *arguments, **options):
        return run("ip", "-n", self.names[where], *arguments, **options)

    def spawn(self, where, *command, **options):
        process = subprocess.Popen(("ip", "netns", "exec", self.names[where], *command), **options)
        self.processes.append(process)
        return process

    def up(self):
        # The Internet's own servers resolve names by the Internet's DNS.
        self.resolver = pathlib.Path("/etc/netns") / self.names["wan"]
        self.resolver.mkdir(parents=True)
        (self.resolver / "resolv.conf").write_text(f"nameserver {DNS}\n")
        for name in self.names.values():
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        self.ip("gw", "link", "add", "br-lan", "address", "02:77:00:00:00:01", "type", "bridge")
        for device, mac, last in (("lan1", MAC1, "11"), ("lan2", MAC2, "12")):
            self.ip("gw", "link", "add", device, "type", "veth", "peer", "name", "eth0", "address", mac, "netns", self.names[device])
            self.ip("gw", "link", "set", device, "master", "br-lan", "up")
            self.ip(device, "link", "set", "eth0", "up")
            self.ip(device, "addr", "add", f"192.168.77.{last}/24", "dev", "eth0")
            self.ip(device, "addr", "add", f"fd77::{last}/64", "dev", "eth0", "nodad")
        self.ip("gw", "link", "set", "br-lan", "up")
        self.ip("gw", "addr", "add", f"{ROUTER_LAN}/24", "dev", "br-lan")
        self.ip("gw", "addr", "add", f"{ROUTER_LAN6}/64", "dev", "br-lan", "nodad")
        for device in ("lan1", "lan2"):
            self.ip(device, "route", "add", "default", "via", ROUTER_LAN)
            self.ip(device, "-6", "route", "add", "default", "via", ROUTER_LAN6)
        self.ip("gw", "link", "add", "wan0", "type", "veth", "peer", "name", "eth0", "netns", self.names["wan"])
        self.ip("gw", "link", "set", "wan0", "up")
        self.ip("wan", "link", "set", "eth0", "up")
        for address in ("5.5.5.1/24", f"{DIRECT}/24", f"{SHADOWSOCKS}/24", f"{SOCKS5}/24", f"{DNS}/24", f"{PROXIED}/24", f"{SOCKSED}/24", f"{REJECTED}/24"):
            self.ip("wan", "addr", "add", address, "dev", "eth0")
        for address in ("2a00:77::1/64", f"{DIRECT6}/64", f"{PROXIED6}/64"):
            self.ip("wan", "addr", "add", address, "dev", "eth0", "nodad")
        self.wan_addresses()
        for key in ("net.ipv4.conf.all.promote_secondaries=1", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"):
            self.ns("gw", "sysctl", "-qw", key)
        self.bridge_netfilter(0)
        self.masquerade()
        self.peers()
        return self

    def wan_addresses(self):
        """The WAN as it should be: link, addresses, default routes (IPv6 loses them with its link)."""
        self.ip("gw", "link", "set", "wan0", "up")
        self.ip("gw", "addr", "replace", f"{ROUTER_WAN}/24", "dev", "wan0")
        self.ip("gw", "-6", "addr", "replace", f"{ROUTER_WAN6}/64", "dev", "wan0", "nodad")
        self.default_routes()

    def default_routes(self):
        self.ip("gw", "route", "replace", "default", "via", "5.5.5.1")
        self.ip("gw", "-6", "route", "replace", "default", "via", "2a00:77::1")

    def masquerade(self):
        self.ns("gw", "nft", "-f", "-", input="""
table inet router
delete table inet router
table inet router {
    chain postrouting {
        type nat hook postrouting priority srcnat
        oifname "wan0" masquerade
    }
    chain prerouting {
        type nat hook prerouting priority dstnat
        iifname "wan0" tcp dport 8022 dnat ip to 192.168.77.12:8080
    }
}
""")

    def bridge_netfilter(self, value):
        path = pathlib.Path("/proc/sys/net/bridge")
        if path.exists():
            for key in ("iptables", "ip6tables"):
                self.ns("gw", "sysctl", "-qw", f"net.bridge.bridge-nf-call-{key}={value}")

    def bridge_netfilter_value(self):
        if not pathlib.Path("/proc/sys/net/bridge").exists():
            return None
        return int(self.ns("gw", "sysctl", "-n", "net.bridge.bridge-nf-call-iptables"))

    def peers(self):
        certificate = self.directory / "certificate.pem"
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=lab",
            "-keyout", str(self.directory / "key.pem"), "-out", str(self.directory / "leaf.pem"))
        certificate.write_text((self.directory / "key.pem").read_text() + (self.directory / "leaf.pem").read_text())
        udp = [f"{address},{port}" for address in (DIRECT, PROXIED, SOCKSED, DIRECT6, PROXIED6) for port in (9000, 9001)]
        internet = self.spawn("wan", sys.executable, str(pathlib.Path(__file__).with_name("internet.py")), str(certificate), *udp, stdout=subprocess.PIPE, text=True)
        assert internet.stdout.readline() == "ready\n"
        self.spawn("wan", "dnsmasq", "-k", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", f"--listen-address={DNS}", "--bind-interfaces", "--local=/test/",
                   "--user=root", "--pid-file=", "--local-ttl=60", "--log-queries", f"--log-facility={self.directory}/dns.log",
                   *(f"--host-record={name}" for name in (
                       f"direct.test,{DIRECT},{DIRECT6}", f"www.direct.test,{DIRECT},{DIRECT6}", f"proxied.test,{PROXIED},{PROXIED6}",
                       f"doh.test,{DNS}", f"socksed.test,{SOCKSED}", "inside.test,127.0.0.1", f"rejected.test,{REJECTED}", f"node.test,{SHADOWSOCKS}", f"www.real.test,{DIRECT}")))
        self.spawn("wan", "ss-server", "-s", SHADOWSOCKS, "-p", "8388", "-k", "secret", "-m", "chacha20-ietf-poly1305", "-u", "-b", SHADOWSOCKS,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        danted = self.directory / "danted.conf"
        danted.write_text(f"""
logoutput: {self.directory}/danted.log
internal: {SOCKS5} port = 1080
external: {SOCKS5}
socksmethod: none
user.privileged: root
user.unprivileged: root
client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
""")
        self.spawn("wan", "danted", "-f", str(danted), "-p", str(self.directory / "danted.pid"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        listening = lambda: all(port in self.ns("wan", "ss", "-lnt") for port in (f"{SHADOWSOCKS}:8388", f"{SOCKS5}:1080", f"{DNS}:53"))
        wait_for("the Internet's servers", listening)

    def down(self):
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()
        for name in self.names.values():
            pids = run("ip", "netns", "pids", name, check=False).split()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            run("ip", "netns", "del", name, check=False)
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.rmtree(self.resolver, ignore_errors=True)

    # What a device does.

    def socket(self, where, kind=socket.SOCK_STREAM, family=socket.AF_INET, protocol=0):
        """A socket of this process in a namespace: it stays where it was made."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{self.names[where]}") as there:
            if libc.setns(there.fileno(), 0) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            try:
                return socket.socket(family, kind, protocol)
            finally:
                assert libc.setns(home.fileno(), 0) == 0

    def connect(self, where, address, port, seconds=10):
        """A connection of this process that begins in a namespace."""
        made = self.socket(where)
        made.settimeout(seconds)
        made.connect((address, port))
        return made

    def curl(self, where, url, *arguments, seconds=5):
        """The JSON that a server answered, or None."""
        command = ("ip", "netns", "exec", self.names[where], "curl", "-sk", "-m", str(seconds), *arguments, url)
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 10, check=False)
        try:
            return json.loads(done.stdout)
        except ValueError:
            return None

    def dig(self, where, server, name, kind="A", *arguments):
        """The answer's records, short."""
        return self.ns(where, "dig", f"@{server}", name, kind, "+short", "+time=3", "+tries=1", *arguments, check=False).split()

    def python(self, where, code, *arguments, **options):
        return self.ns(where, sys.executable, "-c", code, *arguments, **options)

    def echo(self, where, address, port=9000, payload="ping"):
        """One datagram there and back: payload and whom the server saw; None when nothing came."""
        answer = self.python(where, UDP_CLIENT, address, str(port), payload)
        return json.loads(answer)


UDP_CLIENT = """
import json, socket, sys
address, port, payload = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
s = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3)
for _ in range(2):
    s.sendto(payload, (address, port))
    try:
        answer, source = s.recvfrom(65535)
    except TimeoutError:
        continue
    text = answer.decode().rsplit(' ', 2)
    print(json.dumps({'payload': text[0], 'seen': text[1], 'from': source[0], 'from_port': source[1]}))
    break
else:
    print('null')
"""

CONFIG = """
mixed-port: 7890
allow-lan: true
mode: rule
log-level: debug
ipv6: true
external-controller: {router}:9090
secret: {secret}
profile: {{store-selected: true, store-fake-ip: true}}
dns:
  enable: true
  listen: {router}:1053
  ipv6: true
  enhanced-mode: fake-ip
  fake-ip-range: 198.18.0.1/16
  fake-ip-range6: fdfe:dcba:9876::1/64
  fake-ip-filter: ['+.real.test']
  nameserver: [{dns}]
transparent:
  enable: true
  interfaces: [br-lan]
{transparent}
sniffer:
  enable: true
  sniff:
    TLS: {{ports: [443]}}
    HTTP: {{ports: [80, 8080], override-destination: true}}
    QUIC: {{ports: [443]}}
proxies:
  - {{name: ss, type: ss, server: node.test, port: 8388, cipher: chacha20-ietf-poly1305, password: secret, udp: true}}
  - {{name: socks, type: socks5, server: {socks}, port: 1080, udp: true}}
  - {{name: mirror, type: socks5, server: {router}, port: 7890}}
proxy-groups:
  - {{name: Pick, type: select, proxies: [ss, socks, DIRECT, REJECT]}}
rules:
{rules}
"""

RULES = """
  - SRC-MAC,{mac2},REJECT
  - DOMAIN,rejected.test,REJECT
  - DOMAIN,loop.test,mirror
  - DOMAIN-SUFFIX,proxied.test,Pick
  - DOMAIN,socksed.test,socks
  - DOMAIN-SUFFIX,direct.test,DIRECT
  - IP-CIDR,{proxied}/32,Pick,no-resolve
  - IP-CIDR6,{proxied6}/128,Pick,no-resolve
  - IP-CIDR,{socksed}/32,socks,no-resolve
  - IP-CIDR,{rejected}/32,REJECT,no-resolve
  - MATCH,DIRECT
""".format(mac2=MAC2, proxied=PROXIED, proxied6=PROXIED6, socksed=SOCKSED, rejected=REJECTED)


def config(transparent="  offload: false", rules=RULES, **replace):
    text = CONFIG.format(router=ROUTER_LAN, secret=SECRET, dns=DNS, socks=SOCKS5, transparent=transparent, rules=rules)
    for old, new in replace.get("swap", {}).items():
        assert old in text, old
        text = text.replace(old, new)
    return text


class Daemon:
    """headgate in the router."""

    def __init__(self, lab, text, directory=None):
        self.lab = lab
        self.directory = pathlib.Path(directory or tempfile.mkdtemp(dir=lab.directory))
        self.file = self.directory / "config.yaml"
        self.file.write_text(text)
        self.process = None
        self.lines = []
        # What becomes the program, its words being the arguments.
        self.by = ()

    def start(self, seconds=10):
        self.lines = []
        self.process = self.lab.spawn("gw", *self.by, HEADGATE, "-d", str(self.directory), "-f", str(self.file), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        threading.Thread(target=self._read, args=(self.process.stderr, self.lines), daemon=True).start()
        wait_for("readiness", lambda: self.said("headgate ready in") or self.process.poll() is not None, seconds)
        if self.process.poll() is not None:
            raise AssertionError("headgate ended: " + "".join(self.lines))
        return self

    @staticmethod
    def _read(stream, lines):
        for line in stream:
            lines.append(line)
        stream.close()

    def said(self, text):
        return any(text in line for line in list(self.lines))

    def signal(self, number):
        os.kill(self.process.pid, number)

    def stop(self):
        """A clean stop: its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        status = self.process.wait(timeout=10)
        self.process = None
        return status

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def api(self, method, path, body=None, where="gw"):
        """Status and JSON of a controller call."""
        command = ["curl", "-s", "-m", "5", "-X", method, "-H", f"Authorization: Bearer {SECRET}", "-w", "\n%{http_code}",
                   f"http://{ROUTER_LAN}:9090{path}"]
        if body is not None:
            command += ["-d", json.dumps(body)]
        text, _, status = self.lab.ns(where, *command).rpartition("\n")
        return int(status), (json.loads(text) if text.strip() else None)

    def connections(self):
        return self.api("GET", "/connections")[1]["connections"]

    def manage(self, method, path, body=None, login="panel:public", *, where="lan1", at=f"{ROUTER_LAN}:8081", prefix="/api/v4"):
        """Status, and JSON or text, of a call of the management API; 0 where nobody answers. A body that is a
        text is sent as it is."""
        command = ["curl", "-s", "-m", "10", "-X", method, "-w", "\n%{http_code}", f"http://{at}{prefix}{path}"]
        if login:
            command += ["--basic", "-u", login]
        if body is not None:
            command += ["-d", body if isinstance(body, str) else json.dumps(body)]
        text, _, status = self.lab.ns(where, *command, check=False).rpartition("\n")
        try:
            return int(status), json.loads(text)
        except ValueError:
            return int(status), text


class LabTest(unittest.TestCase):
    """A test case with a lab; the daemon of a class starts once with `CONFIG_TEXT`."""

    CONFIG_TEXT = None

    @classmethod
    def setUpClass(cls):
        cls.lab = Lab()
        cls.addClassCleanup(cls.lab.down)
        cls.lab.up()
        cls.daemon = None
        if cls.CONFIG_TEXT:
            cls.daemon = Daemon(cls.lab, cls.CONFIG_TEXT).start()

    @classmethod
    def tearDownClass(cls):
        if cls.daemon and cls.daemon.process:
            cls.daemon.stop()

    @classmethod
    def trust(cls, authority):
        """Daemons of this class take an authority for the system's own."""
        os.environ["SSL_CERT_FILE"] = str(authority.ca)
        cls.addClassCleanup(os.environ.pop, "SSL_CERT_FILE")

    def subscribed(self, where, host, *arguments):
        """A mosquitto_sub whose subscription is in force; it ends with the test."""
        process = self.lab.spawn(where, "stdbuf", "-oL", "mosquitto_sub", "-d", "-h", host, *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        for line in process.stdout:
            if line.startswith("Subscribed"):
                return process
        raise AssertionError("not subscribed")

    @staticmethod
    def lines(process):
        """What a mosquitto_sub printed beside its talk about packets."""
        return [line.rstrip("\n") for line in process.stdout if not line.startswith(("Client ", "Subscribed", "Connection"))]

    def kernel_state(self):
        """What headgate may have left in the router's kernel."""
        return {
            "tables": self.lab.ns("gw", "nft", "list", "tables"),
            "rules": self.lab.ip("gw", "rule", "show"),
            "rules6": self.lab.ip("gw", "-6", "rule", "show"),
            "table": self.lab.ip("gw", "route", "show", "table", "26727", check=False),
            "table6": self.lab.ip("gw", "-6", "route", "show", "table", "26727", check=False),
            "bridge": self.lab.bridge_netfilter_value(),
        }
