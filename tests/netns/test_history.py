"""Who has moved how much: `/devices` and `/history`, compared with a capture of the packets, over restarts and a crash."""

import json
import os
import subprocess
import sys

from lab import DIRECT, MAC1, PROXIED, LabTest, config, wait_for

FLOWS = int(os.environ.get("HEADGATE_HISTORY_FLOWS", "400"))

# Sums the payload of TCP segments to and from port 80 that pass a bridge; a segment that is sent again counts once.
CAPTURE = """
import json, signal, socket, struct, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.setsockopt(socket.SOL_SOCKET, 33, 1 << 28)  # SO_RCVBUFFORCE
s.bind(("br-lan", 0))
s.settimeout(0.2)
seen, ended = {}, []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
print("ready", flush=True)
while True:
    try:
        frame = s.recv(1 << 17)
    except TimeoutError:
        if ended:
            break
        continue
    if frame[12:14] != b"\\x08\\x00" or frame[23] != 6:
        continue
    head = 14 + (frame[14] & 15) * 4
    source, target, number = struct.unpack("!HHI", frame[head:head + 8])
    size = 14 + struct.unpack("!H", frame[16:18])[0] - head - (frame[head + 12] >> 4) * 4
    if 80 in (source, target) and size > 0:
        key = (frame[26:34], source, target, number)
        seen[key] = max(seen.get(key, 0), size)
sums = [0, 0]
for (_, source, _, _), size in seen.items():
    sums[source == 80] += size
print(json.dumps(sums))
"""

# Many short flows, sixteen at a time: requests and answers of random lengths.
FLOWS_CODE = """
import concurrent.futures, random, socket, sys
def flow(n):
    size = random.randrange(1, 40000)
    s = socket.create_connection((sys.argv[1], 80), timeout=20)
    s.sendall(b"GET /bytes/%d HTTP/1.0\\r\\nX: %s\\r\\n\\r\\n" % (size, b"y" * random.randrange(2000)))
    while s.recv(65536):
        pass
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    list(pool.map(flow, range(int(sys.argv[2]))))
"""


class History(LabTest):
    CONFIG_TEXT = config()

    def setUp(self):
        if self.daemon.process is None:
            self.daemon.start()

    def history(self, query=""):
        status, answer = self.daemon.api("GET", f"/history{query}")
        self.assertEqual(status, 200)
        return answer

    def total(self):
        answer = self.history()
        return [answer["upload"], answer["download"]]

    def drained(self):
        wait_for("the end of all flows", lambda: not self.daemon.connections())

    def test_sums_are_those_of_a_capture_and_the_same_in_every_dimension(self):
        self.drained()
        before = self.total()
        capture = self.lab.spawn("gw", sys.executable, "-c", CAPTURE, stdout=subprocess.PIPE, text=True)
        self.assertEqual(capture.stdout.readline(), "ready\n")
        self.lab.python("lan1", FLOWS_CODE, DIRECT, str(FLOWS), timeout=600)
        self.drained()
        capture.terminate()
        captured = json.loads(capture.communicate(timeout=20)[0])
        self.assertEqual([now - then for now, then in zip(self.total(), before)], captured)
        whole = self.total()
        for by in ("device", "rule", "node", "domain"):
            answer = self.history(f"?by={by}")
            rows = answer["items"] + [answer["other"]]
            self.assertEqual([sum(row[way] for row in rows) for way in ("upload", "download")], whole, by)
            self.assertEqual([sum(day[way] for day in answer["days"]) for way in ("upload", "download")], whole, by)
            hours = [hour for day in answer["days"] for hour in day["hours"]]
            self.assertEqual([sum(hour[way] for hour in hours) for way in ("upload", "download")], whole, by)

    def test_a_live_flow_is_counted_where_it_goes(self):
        client = self.lab.spawn("lan1", "curl", "-sN", "-o", "/dev/null", f"http://{PROXIED}/slow")
        wait_for("the flow", lambda: any(c["metadata"]["destinationIP"] == PROXIED for c in self.daemon.connections()))
        named = lambda by, name: [item for item in self.history(f"?by={by}&name={name}")["items"] if item["download"] > 3000]
        wait_for("its bytes", lambda: named("node", "ss"))
        self.assertTrue(named("device", MAC1))
        self.assertTrue(named("rule", f"IPCIDR,{PROXIED}/32"))
        self.assertTrue(named("domain", PROXIED))
        self.assertEqual(self.history("?by=node&name=nobody")["items"], [])
        (device,) = [d for d in self.daemon.api("GET", "/devices")[1]["devices"] if d["mac"] == MAC1]
        self.assertIn("192.168.77.11", device["addresses"])
        self.assertEqual(device["connections"], 1)
        rate = lambda: [d for d in self.daemon.api("GET", "/devices")[1]["devices"] if d["mac"] == MAC1][0]["downloadRate"]
        wait_for("its rate, about 10 KB/s", lambda: 3000 < rate() < 20000)
        self.assertGreater(device["today"]["download"], 0)
        client.terminate()
        client.wait()
        for bad in ("?by=colour", "?from=yesterday", "?to=2026-02-30"):
            self.assertEqual(self.daemon.api("GET", f"/history{bad}")[0], 400, bad)
        self.assertEqual(self.history("?from=2020-01-01&to=2020-01-02")["download"], 0)

    def test_zz_restarts_keep_every_byte_and_a_crash_what_was_written(self):
        self.assertIsNotNone(self.lab.curl("lan1", f"http://{DIRECT}/"))
        self.drained()
        whole = self.total()
        self.assertGreater(whole[1], 0)
        self.assertEqual(self.daemon.stop(), 0)
        files = list((self.daemon.directory / "history").iterdir())
        self.assertEqual(len(files), 1)
        self.assertLess(sum(file.stat().st_size for file in files), 4096)
        self.daemon.start()
        self.assertEqual(self.total(), whole)
        self.assertIsNotNone(self.lab.curl("lan1", f"http://{DIRECT}/"))
        self.daemon.kill()
        # Half of a write that the power cut off.
        with files[0].open("ab") as file:
            file.write(b"\0\0\0\x20half")
        self.daemon.start()
        self.assertEqual(self.total(), whole)
        self.assertIsNotNone(self.lab.curl("lan1", f"http://{DIRECT}/"))
        self.drained()
        later = self.total()
        self.assertGreater(later[1], whole[1])
        self.assertEqual(self.daemon.stop(), 0)
        self.daemon.start()
        self.assertEqual(self.total(), later)

    def test_zzz_nothing_is_kept_when_it_is_switched_off(self):
        self.daemon.file.write_text(config(swap={"store-fake-ip: true": "store-fake-ip: true, store-history: false"}))
        self.assertEqual(self.daemon.api("PUT", "/configs?force=true", {"path": "", "payload": ""})[0], 204)
        for path in ("/history", "/devices"):
            self.assertEqual(self.daemon.api("GET", path), (404, {"message": "profile.store-history is off"}))
        self.daemon.file.write_text(config())
        self.assertEqual(self.daemon.api("PUT", "/configs?force=true", {"path": "", "payload": ""})[0], 204)
        self.assertEqual(self.daemon.api("GET", "/devices")[0], 200)
