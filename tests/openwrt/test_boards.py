"""Routers under QEMU with Debian's kernels and our cross-built binaries: a MIPS Malta board with a 24Kc (no
FPU) and 64 MB, and an ARM one with a Cortex-A7.

    lan 10.77.1.2 ── eth0 10.77.1.1 router eth1 5.77.2.1 ── wan 5.77.2.2, 6.6.6.10

The server has a public address behind the WAN's gateway, for private and connected networks are never
captured. There is no masquerading, so the server tells by the address that it sees whether headgate
carried a connection (the router's) or the kernel forwarded it (the client's own).
"""

import dataclasses
import gzip
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from router import ROOT

sys.path.insert(0, str(ROOT / "tests/netns"))
from lab import run, wait_for  # noqa: E402

OTHER = "10.77.1.3"
CLIENT, ROUTER_WAN, GATEWAY, SERVER = "10.77.1.2", "5.77.2.1", "5.77.2.2", "6.6.6.10"

# The bars of the issue: resident memory with everything on, and the time from the interfaces' being up.
RSS_KIB_MAX = 8 * 1024
READY_SECONDS_MAX = 5.0

# What a cgroup leaves it on the Malta, where it has 1 MB of its own when idle. Short is what leaves less than 2 MB.
CGROUP_BYTES = 7 << 19


MODULES = ("crc32c_generic", "nf_tables", "nft_tproxy", "nft_socket", "nft_ct", "nft_fib_inet", "nft_nat", "nft_chain_nat", "nft_redir", "nft_reject_inet",
           "virtio_pci", "virtio_net")
NFT = ("nftables", "libnftables1", "libmnl0", "libnftnl11", "libjansson4", "libgmp10", "libedit2", "libbsd0", "libmd0", "libtinfo6", "libxtables12", "libc6")

CONFIG = f"""
mixed-port: 7890
external-controller-unix: /run/api.sock
external-controller: 127.0.0.1:9090
ipv6: true
hosts: {{site.test: {SERVER}}}
dns: {{enable: true, ipv6: true, enhanced-mode: fake-ip, nameserver: [5.77.2.9], listen: "127.0.0.1:1053"}}
sniffer: {{enable: true, sniff: {{TLS: {{ports: [443]}}, HTTP: {{ports: [80]}}, QUIC: {{ports: [443]}}}}}}
transparent: {{enable: true, interfaces: [eth0], offload: false}}
mqtt: {{enable: true, allow-anonymous: true, listeners: [{{name: tcp, type: tcp, listen: "127.0.0.1:1883"}}]}}
proxies: [{{name: node, type: ss, server: 5.77.2.9, port: 8388, cipher: aes-128-gcm, password: x}}]
proxy-groups: [{{name: Exit, type: select, proxies: [DIRECT, node]}}]
rules: ["DOMAIN,site.test,Exit", "MATCH,DIRECT"]
"""

@dataclasses.dataclass(frozen=True)
class Machine:
    """A board: the cross target of its binary, Debian's architecture and kernel, QEMU's arguments."""

    target: str
    architecture: str
    kernel: str
    qemu: tuple
    megabytes: int
    console: str
    modules: tuple = MODULES
    config: str = CONFIG
    # With Debian's nft, for what fw4 would do.
    firewall: bool = False

    @property
    def binary(self):
        return ROOT / "target/cross" / self.target / "headgate"

    @property
    def cache(self):
        return ROOT / "target/boards" / self.target


MALTA = Machine("mipsel", "mipsel", "linux-image-4kc-malta", ("qemu-system-mipsel", "-M", "malta", "-cpu", "24Kc", "-vga", "none"), 64, "ttyS0")
# highmem=off: a kernel without LPAE sees the PCI bus.
ARM = Machine("armv7", "armhf", "linux-image-armmp", ("qemu-system-arm", "-M", "virt,highmem=off", "-cpu", "cortex-a7"), 128, "ttyAMA0")

# As fw4 writes it with flow_offloading.
FLOW_OFFLOADING = """
table inet fw4 {
    flowtable ft { hook ingress priority 0; devices = { eth0, eth1 }; }
    chain forward { type filter hook forward priority 0; meta l4proto { tcp, udp } flow add @ft; }
}
"""

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
for module in /modules/*.ko; do insmod "$module"; done
for i in lo eth0 eth1; do ip link set $i up; done
ip addr add 10.77.1.1/24 dev eth0; ip addr add 5.77.2.1/24 dev eth1; ip route add default via 5.77.2.2
echo 1 >/proc/sys/net/ipv4/ip_forward
echo "UP $(cut -d' ' -f1 /proc/uptime)"
date -s 1970.01.02-00:00 >/dev/null
(/headgate run -d /state -f /config.yaml 2>&1 | while read -r line; do echo "$(cut -d' ' -f1 /proc/uptime) $line"; done; echo ENDED) &
while read -r command; do eval "$command"; done
"""


def initramfs(machine, folder):
    """The root as a compressed cpio; the modules in the order in which they load."""
    root, tree = folder / "root", machine.cache / "x"
    for place in ("bin", "modules", "proc", "sys", "dev", "run", "state"):
        (root / place).mkdir(parents=True, exist_ok=True)
    shutil.copy(tree / "bin/busybox", root / "bin/busybox")
    shutil.copy(machine.binary, root / "headgate")
    (root / "config.yaml").write_text(machine.config)
    (root / "init").write_text(INIT)
    for program in ("init", "headgate"):
        (root / program).chmod(0o755)
    if machine.firewall:
        (root / "fw4.nft").write_text(FLOW_OFFLOADING)
        for path in [tree / "usr/sbin/nft", *(path for place in ("lib", "usr/lib") for path in (tree / place).glob("*-linux-*/lib*.so.*")), *tree.glob("lib/ld*"), *tree.glob("lib/*-linux-*/ld*")]:
            there = root / path.relative_to(tree)
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, there)
    kernel = tree / "lib/modules" / (machine.cache / "kernel").read_text().strip()
    needs = {}
    for line in (kernel / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[pathlib.Path(path).name.removesuffix(".ko").replace("-", "_")] = (path, rest.split())
    order = []
    for name in machine.modules:
        if name in needs:
            path, rest = needs[name]
            order += [each for each in [*reversed(rest), path] if each not in order]
    for number, path in enumerate(order):
        shutil.copy(kernel / path, root / f"modules/{number:03}.ko")
    names = "\n".join(str(path.relative_to(root)) for path in [root, *sorted(root.rglob("*"))])
    cpio = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=names.encode(), capture_output=True, check=True).stdout
    (folder / "initrd.gz").write_bytes(gzip.compress(cpio, 1))


class Board:
    """The board and the two networks on its sides."""

    def __init__(self, machine):
        self.machine = machine
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="headgate-board-"))
        self.names = {name: f"hgb{os.getpid()}-{name}" for name in ("q", "lan", "wan")}
        self.lines, self.board, self.seen = [], None, []

    def up(self):
        machine = self.machine
        run(str(pathlib.Path(__file__).with_name("board-packages")), str(machine.cache), machine.architecture, machine.kernel, "busybox-static", *NFT, timeout=300)
        initramfs(machine, self.folder)
        q = self.names["q"]
        for name in self.names.values():
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        for number, (side, own, router) in enumerate((("lan", CLIENT, "10.77.1.1"), ("wan", GATEWAY, ROUTER_WAN))):
            there = self.names[side]
            run("ip", "-n", q, "link", "add", f"br{number}", "type", "bridge")
            run("ip", "netns", "exec", q, "ip", "tuntap", "add", f"tap{number}", "mode", "tap")
            run("ip", "-n", q, "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", there)
            for device in (f"tap{number}", f"v{number}"):
                run("ip", "-n", q, "link", "set", device, "master", f"br{number}", "up")
            run("ip", "-n", q, "link", "set", f"br{number}", "up")
            run("ip", "-n", there, "link", "set", "eth0", "up")
            run("ip", "-n", there, "addr", "add", f"{own}/24", "dev", "eth0")
            run("ip", "-n", there, "route", "add", "default", "via", router)
        run("ip", "-n", self.names["wan"], "addr", "add", f"{SERVER}/32", "dev", "lo")
        self.server = subprocess.Popen(["ip", "netns", "exec", self.names["wan"], sys.executable, "-c", SERVER_CODE], stdout=subprocess.PIPE, text=True)
        assert self.server.stdout.readline() == "ready\n"
        self.boot()
        return self

    def boot(self):
        network = []
        # Two slots whose lines do not meet: the Malta's interrupt controller looks at edges, and loses one now
        # and then where both cards pull the same line; their network is dead from then on.
        for number, slot in ((0, 0x12), (1, 0x14)):
            network += ["-netdev", f"tap,id=n{number},ifname=tap{number},script=no,downscript=no",
                        "-device", f"virtio-net-pci,netdev=n{number},mac=52:54:00:77:0{number + 1}:01,addr={slot:#x},romfile="]
        machine = self.machine
        kernel = machine.cache / "x/boot" / f"vmlinuz-{(machine.cache / 'kernel').read_text().strip()}"
        self.board = subprocess.Popen(
            ["ip", "netns", "exec", self.names["q"], *machine.qemu, "-m", str(machine.megabytes), "-nographic", "-no-reboot",
             "-kernel", kernel, "-initrd", self.folder / "initrd.gz", "-append", f"console={machine.console} rdinit=/init quiet", *network],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.board.stdout:
            self.lines.append(line.strip())

    def said(self, pattern):
        return next((match for line in list(self.lines) if (match := re.search(pattern, line))), None)

    def tell(self, command):
        """A command for the router's shell."""
        self.board.stdin.write(command + "\n")
        self.board.stdin.flush()

    def there(self, side, *command):
        """What a command beside the board prints."""
        return run("ip", "netns", "exec", self.names[side], *command, check=False)

    def spawn(self, side, *command, **options):
        return subprocess.Popen(["ip", "netns", "exec", self.names[side], *command], **options)

    def curl(self, url):
        """Whom the WAN's server saw, None when nobody answered."""
        done = subprocess.run(["ip", "netns", "exec", self.names["lan"], "curl", "-s", "-m", "8", url], capture_output=True, text=True, check=False)
        return done.stdout or None

    def down(self):
        for process in (self.board, getattr(self, "server", None)):
            if process:
                process.kill()
                process.wait()
                for pipe in (process.stdin, process.stdout):
                    if pipe:
                        pipe.close()
        for name in self.names.values():
            run("ip", "netns", "del", name, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


SERVER_CODE = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.client_address[0].encode() if self.path == '/' else bytes(1 << 20) * 8
        self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_): pass  # a device that hung up
server = Server(('', 80), Handler)
print('ready', flush=True)
server.serve_forever()
"""


class BoardTests:
    """What every board has to show."""

    MACHINE = None

    @classmethod
    def setUpClass(cls):
        machine = cls.MACHINE
        if not machine.binary.exists():
            raise unittest.SkipTest(f"cross/build {machine.target} did not run")
        if not shutil.which(machine.qemu[0]):
            raise unittest.SkipTest(f"there is no {machine.qemu[0]}")
        cls.board = Board(machine)
        cls.addClassCleanup(cls.board.down)
        cls.board.up()
        try:
            wait_for("the daemon", lambda: cls.board.said("headgate ready in|ENDED"), 90)
        except AssertionError as error:
            raise AssertionError("\n".join(cls.board.lines[-40:])) from error

    def figure(self, text):
        print(f"{self.MACHINE.target} board, {self.MACHINE.megabytes} MB: {text}", file=sys.stderr)

    def test_1_it_is_ready_soon_after_the_interfaces(self):
        up = float(self.board.said(r"UP ([\d.]+)")[1])
        ready = float(self.board.said(r"^([\d.]+) .*headgate ready in")[1])
        self.figure(f"interfaces up at {up} s, ready {ready - up:.1f} s later")
        self.assertLess(ready - up, READY_SECONDS_MAX)

    def test_2_lan_traffic_is_captured_by_that_kernel(self):
        self.assertEqual(self.board.curl(f"http://{SERVER}/"), ROUTER_WAN)
        began = time.monotonic()
        self.assertEqual(len(self.board.curl(f"http://{SERVER}/8MB") or ""), 8 << 20)
        self.figure(f"8 MB relayed in {time.monotonic() - began:.1f} s")

    def test_3_names_get_fake_addresses_from_whatever_server_is_asked(self):
        answer = self.board.there("lan", "dig", "+short", "+time=5", "@192.0.2.53", "any.test").strip()
        self.assertRegex(answer, r"^198\.18\.")
        address = self.board.there("lan", "dig", "+short", "+time=5", "@192.0.2.53", "site.test").strip()
        self.assertTrue(address)
        self.assertEqual(self.board.curl(f"http://{address}/"), ROUTER_WAN)

    def test_4_it_keeps_its_memory(self):
        self.board.tell("echo RSS $(grep VmRSS /proc/$(pidof headgate)/status) FREE $(grep MemAvailable /proc/meminfo)")
        wait_for("the figure", lambda: self.board.said(r"RSS VmRSS: (\d+) kB"), 20)
        resident = int(self.board.said(r"RSS VmRSS: (\d+) kB")[1])
        free = int(self.board.said(r"FREE MemAvailable: (\d+) kB")[1])
        self.figure(f"everything on: VmRSS {resident} KiB, {free} KiB still available")
        self.assertLessEqual(resident, RSS_KIB_MAX)

    def test_4_it_is_confined_by_that_kernel(self):
        self.board.tell("echo CONFINED $(grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/$(pidof headgate)/status)")
        wait_for("its state", lambda: self.board.said("CONFINED CapEff"), 20)
        state = self.board.said("CONFINED (CapEff.*)")[1]
        # net_bind_service, net_admin and net_raw; nothing regained by exec; a filter of system calls.
        self.assertEqual(state.split(), ["CapEff:", f"{1 << 10 | 1 << 12 | 1 << 13:016x}", "NoNewPrivs:", "1", "Seccomp:", "2"])

    def test_5_killed_it_leaves_the_lan_online(self):
        self.board.tell("killall -9 headgate; echo KILLED")
        wait_for("the kill", lambda: self.board.said("^KILLED"), 20)
        wait_for("direct traffic", lambda: self.board.curl(f"http://{SERVER}/") == CLIENT, 10)


class OneBoard(unittest.TestCase):
    """A board of its own for each test."""

    def boot(self, **changes):
        machine = dataclasses.replace(MALTA, **changes)
        if not machine.binary.exists():
            self.skipTest(f"cross/build {machine.target} did not run")
        if not shutil.which(machine.qemu[0]):
            self.skipTest(f"there is no {machine.qemu[0]}")
        board = Board(machine)
        self.addCleanup(board.down)
        board.up()
        wait_for("the daemon", lambda: board.said("headgate ready in|ENDED"), 90)
        return board

    def test_r20_a_kernel_without_tproxy_is_named_and_the_rest_runs(self):
        board = self.boot(modules=tuple(name for name in MODULES if name != "nft_tproxy"))
        self.assertTrue(board.said("kmod-nft-tproxy"), board.lines[-20:])
        self.assertEqual(board.curl(f"http://{SERVER}/"), ROUTER_WAN)
        done = board.there("lan", "dig", "+short", "+time=5", "@10.77.1.1", "any.test")
        self.assertRegex(done, r"^198\.18\.")

    def test_r20_a_kernel_without_any_nftables_is_named_and_the_rest_runs(self):
        board = self.boot(modules=("crc32c_generic", "virtio_pci", "virtio_net"))
        self.assertTrue(board.said("kmod-nft-core"), board.lines[-20:])
        self.assertEqual(board.curl(f"http://{SERVER}/"), CLIENT)
        board.tell("wget -q -O - http://127.0.0.1:9090/version; echo")
        wait_for("the controller", lambda: board.said('"version":"headgate'), 20)

    def test_r14_a_change_of_rules_holds_for_new_flows_beside_flow_offloading(self):
        board = self.boot(modules=(*MODULES, "nf_flow_table_inet", "nft_flow_offload"), config=CONFIG.replace("offload: false", "offload: true"), firewall=True)
        board.tell("/usr/sbin/nft -f /fw4.nft && echo OFFLOADING")
        wait_for("the firewall", lambda: board.said("^OFFLOADING"), 20)
        self.assertEqual(board.there("lan", "dig", "+short", "+time=5", "@10.77.1.1", "site.test").strip(), SERVER)
        slow = board.spawn("lan", "curl", "-s", "-m", "60", "--limit-rate", "200k", f"http://{SERVER}/8MB", stdout=subprocess.PIPE)
        self.addCleanup(slow.communicate)
        self.addCleanup(slow.kill)

        def offloaded():
            board.tell("grep -c OFFLOAD /proc/net/nf_conntrack | sed 's/^/FLOWS /'")
            return board.said(r"FLOWS [1-9]")

        wait_for("the flow to leave the hooks", offloaded, 20)
        self.assertEqual(board.curl(f"http://{SERVER}/"), CLIENT)
        board.tell("sed -i 's/DOMAIN,site.test,Exit/IP-CIDR,6.6.6.10\\/32,REJECT/' /config.yaml; killall -HUP headgate; echo CHANGED")
        wait_for("the new rule", lambda: board.curl(f"http://{SERVER}/") is None, 20)
        # By the rule, not by a daemon that is no more.
        board.tell("wget -q -O - http://127.0.0.1:9090/version; echo")
        wait_for("the controller", lambda: board.said('"version":"headgate'), 20)
        self.assertFalse(board.said("ENDED"), board.lines[-20:])

    def test_a_cgroup_that_is_too_small_costs_connections_and_not_the_daemon(self):
        """Of version 2, by the kernel itself; tests/netns/test_faults.py does more where there is version 1."""
        board = self.boot(config=CONFIG + "max-connections: 800\n")
        board.tell("killall headgate")
        wait_for("its end", lambda: board.said("ENDED"), 30)
        board.tell("mount -t cgroup2 c /sys/fs/cgroup && cd /sys/fs/cgroup && echo +memory >cgroup.subtree_control && mkdir hg && "
                   f"echo {CGROUP_BYTES} >hg/memory.max && (echo 0 >hg/cgroup.procs; exec /headgate run -d /state -f /config.yaml) 2>&1 & echo CONFINED")
        wait_for("the second start", lambda: sum("headgate ready in" in line for line in board.lines) == 2, 90)
        board.there("lan", "ip", "addr", "add", f"{OTHER}/24", "dev", "eth0")
        flood = board.spawn("lan", sys.executable, "-c", FLOOD, CLIENT, SERVER, "300", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(flood.communicate)
        self.addCleanup(flood.kill)
        wait_for("the shortage", lambda: board.said("memory is short"), 120)
        done = lambda: board.there("lan", "curl", "-s", "-m", "8", "--interface", OTHER, f"http://{SERVER}/")
        wait_for("another device to be served", lambda: done() == ROUTER_WAN, 60)
        board.tell("echo KILLS $(grep 'oom_kill ' /sys/fs/cgroup/hg/memory.events), $(cat /sys/fs/cgroup/hg/memory.current) bytes")
        wait_for("the events", lambda: board.said(r"KILLS oom_kill \d"), 20)
        self.assertTrue(board.said(r"KILLS oom_kill 0\b"), board.lines[-5:])
        print(f"mipsel board, a cgroup of {CGROUP_BYTES} bytes: {board.said('KILLS oom_kill .*')[0]}", file=sys.stderr)


FLOOD = """
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
held = []
for _ in range(int(sys.argv[3])):
    try:
        held.append(socket.create_connection((sys.argv[2], 80), timeout=5, source_address=(sys.argv[1], 0)))
    except OSError:
        pass
sys.stdin.read()
"""


class MaltaRouter(BoardTests, unittest.TestCase):
    MACHINE = MALTA


class ArmRouter(BoardTests, unittest.TestCase):
    MACHINE = ARM


if __name__ == "__main__":
    unittest.main()
