"""A router as the package leaves it: the shipped /etc/config/headgate, switched on, made into YAML by the shipped generator.

    lan1 192.168.77.11, captured; lan2 192.168.78.12, a guest network that nobody named

The numbers are the requirements of openwrt.md section 9.
"""

import os
import pathlib
import sys
import tempfile
import time

from lab import DNS, HEADGATE, ROUTER_LAN, ROUTER_LAN6, ROUTER_WAN, ROUTER_WAN6, ROOT, Daemon, LabTest

# It takes the program's name out of the environment, which others here read.
sys.path.insert(0, str(ROOT / "tests/openwrt"))
named = os.environ.get("HEADGATE")
import router  # noqa: E402

if named:
    os.environ["HEADGATE"] = named

GUEST, ROUTER_GUEST = "192.168.78.12", "192.168.78.1"

# Which of these ports are open at an address, and which answer a DNS query.
SCAN = """
import asyncio, select, socket, sys
address, streams, datagrams = sys.argv[1], *(list(map(int, part.split(','))) for part in sys.argv[2:])
family = socket.AF_INET6 if ':' in address else socket.AF_INET
query = bytes.fromhex('000701000001000000000000') + b'\\x06direct\\x04test\\0\\0\\x01\\0\\x01'
seats = asyncio.Semaphore(200)
async def one(port):
    async with seats:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), 10)
        except (OSError, TimeoutError):
            return []
        writer.close()
        return [f'tcp {port}']
async def all_of_them():
    return sum(await asyncio.gather(*map(one, streams)), [])
found = asyncio.run(all_of_them())
sockets = {}
for port in datagrams:
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.connect((address, port))
    s.send(query)
    sockets[s] = port
waiting = set(sockets)
while waiting:
    ready, _, _ = select.select(list(waiting), [], [], 2)
    if not ready:
        break
    for s in ready:
        waiting.discard(s)
        try:
            s.recv(512)
            found.append(f'udp {sockets[s]}')
        except OSError:
            pass
for what in found:
    print(what)
"""


class Shipped(LabTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        lab = cls.lab
        lab.ip("gw", "link", "set", "lan2", "nomaster")
        lab.ip("gw", "addr", "add", f"{ROUTER_GUEST}/24", "dev", "lan2")
        lab.ip("lan2", "addr", "flush", "dev", "eth0")
        lab.ip("lan2", "addr", "add", f"{GUEST}/24", "dev", "eth0")
        lab.ip("lan2", "route", "replace", "default", "via", ROUTER_GUEST)
        with router.Router() as made:
            shipped = (router.PACKAGE / "etc/config/headgate").read_text().replace("enabled '0'", "enabled '1'", 1)
            text, notes = made.generate(shipped)
        assert not notes, notes
        cls.before = cls.listening()
        cls.directory = pathlib.Path(tempfile.mkdtemp(dir=lab.directory))
        # The lab's Internet has a nameserver of its own.
        cls.daemon = Daemon(lab, text.replace("/var/run/headgate", str(cls.directory)).replace("1.1.1.1", DNS).replace("9.9.9.9", DNS), cls.directory).start()
        cls.addClassCleanup(lab.ns, "gw", HEADGATE, "cleanup")

    @classmethod
    def listening(cls):
        """(protocol, port) of whatever listens in the router."""
        rows = (line.split() for line in cls.lab.ns("gw", "ss", "-H", "-lntu").splitlines())
        return {(row[0], int(row[4].rsplit(":", 1)[1])) for row in rows}

    def test_r21_no_door_is_open_but_for_the_devices_questions(self):
        """Without any firewall, that what is shut is shut by ourselves."""
        ours = self.listening() - self.before
        self.assertTrue(ours)
        known = {22, 53, 80, 443, 853, 1053, 1080, 1883, 7890, 7891, 7892, 7893, 7894, 7895, 8081, 8083, 8883, 9090, 10085, 18083}
        streams = known | {port for kind, port in ours if kind == "tcp"}
        datagrams = known | {port for kind, port in ours if kind == "udp"}
        scan = lambda where, address: self.lab.python(where, SCAN, address, *(",".join(map(str, sorted(ports))) for ports in (streams, datagrams)), timeout=120).splitlines()
        for where, address in (("wan", ROUTER_WAN), ("wan", ROUTER_WAN6), ("lan2", ROUTER_GUEST), ("lan2", ROUTER_LAN)):
            self.assertEqual(scan(where, address), [], (where, address))
        for address in (ROUTER_LAN, ROUTER_LAN6):
            self.assertEqual(scan("lan1", address), ["tcp 53", "udp 53"], address)

    def test_r12_idle_it_writes_nothing_and_says_nothing(self):
        """For eight seconds, begun again while the start and the lab's new addresses still have consequences."""
        self.assertTrue(self.lab.dig("lan1", ROUTER_LAN, "direct.test"))
        for _ in range(6):
            before = self.state()
            time.sleep(8)
            after = self.state()
            if after == before:
                return
        self.assertEqual(after, before)

    def state(self):
        """Whatever stands in the working directory, and what was said."""
        files = {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in self.directory.rglob("*") if path.is_file()}
        return files, list(self.daemon.lines)
