"""The Clash API over a live router: select, connections, modes, streams, reload."""

import pathlib
import signal
import subprocess
import time

from lab import DIRECT, DIRECT6, PROXIED, ROUTER_LAN, ROUTER_WAN, SECRET, SHADOWSOCKS, SOCKS5, LabTest, config, wait_for


class Control(LabTest):
    CONFIG_TEXT = config()

    def seen(self):
        answer = self.lab.curl("lan1", f"http://{PROXIED}/")
        return answer and answer["client"]

    def test_version_needs_the_secret(self):
        self.assertTrue(self.daemon.api("GET", "/version")[1]["meta"])
        status = self.lab.ns("lan1", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://{ROUTER_LAN}:9090/version")
        self.assertEqual(status, "401")

    def test_select_switches_the_exit(self):
        for member, exit_address in (("socks", SOCKS5), ("DIRECT", ROUTER_WAN), ("REJECT", None), ("ss", SHADOWSOCKS)):
            self.assertEqual(self.daemon.api("PUT", "/proxies/Pick", {"name": member})[0], 204)
            self.assertEqual(self.seen(), exit_address)
            self.assertEqual(self.daemon.api("GET", "/proxies/Pick")[1]["now"], member)
        self.assertEqual(self.daemon.api("PUT", "/proxies/Pick", {"name": "nobody"})[0], 400)
        self.assertEqual(self.daemon.api("PUT", "/proxies/nothing", {"name": "ss"})[0], 404)

    def test_modes(self):
        try:
            self.assertEqual(self.daemon.api("PATCH", "/configs", {"mode": "Direct"})[0], 204)
            self.assertEqual(self.seen(), ROUTER_WAN)
            self.assertEqual(self.daemon.api("GET", "/configs")[1]["mode"], "direct")
            self.assertEqual(self.daemon.api("PATCH", "/configs", {"mode": "sideways"})[0], 400)
        finally:
            self.daemon.api("PATCH", "/configs", {"mode": "rule"})
        self.assertEqual(self.seen(), SHADOWSOCKS)

    def transfer(self, address=PROXIED):
        """A download that goes on until somebody ends it."""
        process = self.lab.spawn("lan1", "curl", "-s", "-m", "30", "-o", "/dev/null", f"http://{address}/slow", stdout=subprocess.DEVNULL)
        wait_for("the connection", lambda: self.find(address))
        return process

    def find(self, address):
        return [c for c in self.daemon.connections() if c["metadata"]["destinationIP"] == address]

    def test_connections_are_listed_and_closed(self):
        process = self.transfer()
        (connection,) = self.find(PROXIED)
        self.assertEqual(connection["chains"], ["ss", "Pick"])
        self.assertEqual((connection["rule"], connection["rulePayload"]), ("IPCIDR", f"{PROXIED}/32"))
        self.assertEqual(connection["metadata"]["sourceIP"], "192.168.77.11")
        self.assertEqual(connection["metadata"]["destinationPort"], "80")
        self.assertEqual(connection["metadata"]["type"], "TProxy")
        wait_for("bytes", lambda: self.find(PROXIED)[0]["download"] > 2048)
        self.assertEqual(self.daemon.api("DELETE", f"/connections/{connection['id']}")[0], 204)
        process.wait(timeout=3)
        wait_for("its end", lambda: not self.find(PROXIED))

    def test_a_connection_by_name_shows_where_it_went(self):
        (fake,) = self.lab.dig("lan1", ROUTER_LAN, "direct.test")
        process = self.lab.spawn("lan1", "curl", "-s", "-m", "30", "-o", "/dev/null", f"http://{fake}/slow", stdout=subprocess.DEVNULL)
        named = lambda: [c["metadata"] for c in self.daemon.connections() if c["metadata"]["host"] == "direct.test"]
        wait_for("the connection", named)
        self.assertIn(named()[0]["remoteDestination"], (DIRECT, DIRECT6))
        process.kill()
        process.wait()

    def test_reload_keeps_a_live_transfer(self):
        process = self.transfer()
        self.daemon.file.write_text(config(swap={"- DOMAIN,socksed.test,socks": "- DOMAIN,other.test,socks"}))
        self.daemon.signal(signal.SIGHUP)
        wait_for("the reload", lambda: any(r["payload"] == "other.test" for r in self.daemon.api("GET", "/rules")[1]["rules"]))
        before = self.find(PROXIED)[0]["download"]
        wait_for("more bytes", lambda: self.find(PROXIED)[0]["download"] > before)
        self.assertIsNone(process.poll())
        process.kill()

    def test_a_reload_asked_for_during_another_is_done(self):
        self.addCleanup(self.reload, self.CONFIG_TEXT, "rule")
        for pause in range(12):
            self.load(self.CONFIG_TEXT.replace("mode: rule", "mode: global"))
            time.sleep(pause / 200)
            self.reload(self.CONFIG_TEXT.replace("mode: rule", "mode: direct"), "direct")

    def test_the_xray_api_may_change_and_keep_its_port(self):
        self.addCleanup(self.reload, self.CONFIG_TEXT, "rule")
        for services in ("[StatsService]", "[StatsService, HandlerService]"):
            self.load(self.CONFIG_TEXT + f"xray-api: {{listen: '127.0.0.1:10085', services: {services}}}\n")
            wait_for("the port", lambda: "127.0.0.1:10085" in self.lab.ns("gw", "ss", "-Hltn"))
        wait_for("two reloads", lambda: self.reloads() >= 2)
        self.assertFalse(self.daemon.said("in use"), self.daemon.lines)

    def reloads(self):
        return sum("reloaded" in line for line in self.daemon.lines)

    def load(self, text):
        """Asks for a reload; whole, for another may be reading."""
        new = self.daemon.file.with_suffix(".new")
        new.write_text(text)
        new.replace(self.daemon.file)
        self.daemon.signal(signal.SIGHUP)

    def reload(self, text, mode):
        self.load(text)
        wait_for(f"mode {mode}", lambda: self.daemon.api("GET", "/configs")[1]["mode"] == mode)

    def test_reload_of_a_broken_file_changes_nothing(self):
        good = self.daemon.file.read_text()
        self.daemon.file.write_text(good + "  - NONSENSE,x,DIRECT\n")
        self.daemon.signal(signal.SIGHUP)
        wait_for("the complaint", lambda: self.daemon.said("NONSENSE"))
        # As an editor leaves it for a moment.
        self.daemon.file.write_text("")
        self.daemon.signal(signal.SIGHUP)
        wait_for("the complaint", lambda: self.daemon.said("the file is empty"))
        self.daemon.file.write_text(good)
        self.assertEqual(self.seen(), SHADOWSOCKS)

    def test_streams(self):
        for path, member in (("traffic", "down"), ("memory", "inuse")):
            text = self.lab.ns("gw", "timeout", "3", "curl", "-sN", "-H", f"Authorization: Bearer {SECRET}", f"http://{ROUTER_LAN}:9090/{path}", check=False)
            self.assertIn(f'"{member}"', text)
        process = self.lab.spawn("gw", "timeout", "4", "curl", "-sN", "-H", f"Authorization: Bearer {SECRET}", f"http://{ROUTER_LAN}:9090/logs?level=info",
                                 stdout=subprocess.PIPE, text=True)
        time.sleep(0.5)
        self.lab.curl("lan1", f"http://{DIRECT}/")
        self.assertIn(DIRECT, process.communicate(timeout=8)[0])

    def test_dns_query_and_flushes(self):
        status, answer = self.daemon.api("GET", "/dns/query?name=direct.test&type=A")
        self.assertEqual((status, answer["Status"], answer["Answer"][0]["data"]), (200, 0, DIRECT))
        self.assertEqual(self.daemon.api("POST", "/cache/dns/flush")[0], 204)
        before = self.lab.dig("lan1", ROUTER_LAN, "proxied.test")
        self.assertEqual(self.daemon.api("POST", "/cache/fakeip/flush")[0], 204)
        self.assertTrue(before[0].startswith("198.18."))

    def test_three_hundred_silent_clients_do_not_starve_it(self):
        code = f"""
import socket, time, urllib.request
held = [socket.create_connection(('{ROUTER_LAN}', 9090)) for _ in range(300)]
time.sleep(0.3)
began = time.monotonic()
request = urllib.request.Request('http://{ROUTER_LAN}:9090/version', headers={{'Authorization': 'Bearer {SECRET}'}})
assert urllib.request.urlopen(request, timeout=5).status == 200
print(time.monotonic() - began)
"""
        before = self.memory()
        self.assertLess(float(self.lab.python("lan1", code)), 1.0)
        self.assertLess(self.memory() - before, 4096, "KiB")

    def memory(self):
        """Private and shared-out memory of the daemon, KiB."""
        text = pathlib.Path(f"/proc/{self.pid()}/smaps_rollup").read_text()
        return int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1])

    def pid(self):
        return self.daemon.process.pid
