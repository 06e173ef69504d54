"""Groups that choose by tests: nodes die and come back; delay tests, pins and histories over the API."""

import contextlib
import signal
import subprocess
import time
import unittest

from lab import PROXIED, REJECTED, SHADOWSOCKS, SOCKS5, SOCKSED, LabTest, config, wait_for

CHECK = f"http://{PROXIED}/check"

GROUPS = f"""proxy-groups:
  - {{name: First, type: fallback, proxies: [ss, socks], url: '{CHECK}', interval: 1, lazy: false, timeout: 1000}}
  - {{name: Reserve, type: fallback, proxies: [ss, socks], url: 'http://{PROXIED}/reserve', interval: 600}}
  - {{name: Fast, type: url-test, include-all: true, exclude-filter: mirror, url: 'http://{PROXIED}/fast', tolerance: 5000, interval: 600}}
  - {{name: Turns, type: load-balance, strategy: round-robin, proxies: [ss, socks], url: 'http://{PROXIED}/turns', interval: 600}}
  - {{name: Idle, type: url-test, proxies: [socks], url: 'http://{PROXIED}/idle', interval: 1}}
  - {{name: Row, type: relay, proxies: [ss, Reserve, socks]}}
  - {{name: Back, type: relay, proxies: [socks, DIRECT, ss]}}
  - {{name: Pick"""

RULES = f"""
  - AND,((IP-CIDR,{SOCKSED}/32,no-resolve),(DST-PORT,8080)),Row
  - AND,((IP-CIDR,{SOCKSED}/32,no-resolve),(NETWORK,udp),(DST-PORT,9001)),Back
  - AND,((IP-CIDR,{SOCKSED}/32,no-resolve),(NETWORK,udp)),Row
  - AND,((IP-CIDR,{REJECTED}/32,no-resolve),(DST-PORT,8080)),Back
  - AND,((IP-CIDR,{PROXIED}/32,no-resolve),(DST-PORT,8080)),Turns
  - IP-CIDR,{PROXIED}/32,First,no-resolve
  - IP-CIDR,{SOCKSED}/32,Reserve,no-resolve
  - MATCH,DIRECT
"""


class Groups(LabTest):
    CONFIG_TEXT = config(rules=RULES, swap={"proxy-groups:\n  - {name: Pick": GROUPS})

    def seen(self, url=f"http://{PROXIED}/"):
        answer = self.lab.curl("lan1", url, seconds=3)
        return answer and answer["client"]

    def proxy(self, name):
        return self.daemon.api("GET", f"/proxies/{name}")[1]

    @contextlib.contextmanager
    def server_dead(self):
        """No Shadowsocks server; it is back afterwards."""
        listening = lambda: f"{SHADOWSOCKS}:8388" in self.lab.ns("wan", "ss", "-lnt")
        (server,) = [p for p in self.lab.processes if p.poll() is None and "ss-server" in p.args]
        server.kill()
        server.wait()
        wait_for("its end", lambda: not listening())
        try:
            yield
        finally:
            self.lab.spawn("wan", *server.args[4:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_for("its return", listening)

    def test_a_fallback_follows_its_nodes(self):
        wait_for("the first choice", lambda: self.proxy("First")["now"] == "ss")
        self.assertEqual(self.seen(), SHADOWSOCKS)
        with self.server_dead():
            wait_for("the second choice", lambda: self.proxy("First")["now"] == "socks")
            self.assertEqual(self.seen(), SOCKS5)
            self.assertFalse(self.proxy("ss")["extra"][CHECK]["alive"])
        wait_for("the first choice again", lambda: self.proxy("First")["now"] == "ss")
        self.assertEqual(self.seen(), SHADOWSOCKS)
        self.assertLessEqual(len(self.proxy("ss")["history"]), 10)

    def test_a_refused_flow_brings_the_test_forward(self):
        url = f"http://{SOCKSED}/"
        # A test of any URL tells about nodes that the group's own has not seen: wait for its first round.
        wait_for("the round", lambda: f"http://{PROXIED}/reserve" in self.proxy("ss")["extra"])
        wait_for("the first choice", lambda: self.proxy("Reserve")["now"] == "ss")
        self.assertEqual(self.seen(url), SHADOWSOCKS)
        with self.server_dead():
            wait_for("the reserve, long before the interval is over", lambda: self.seen(url) == SOCKS5)
        self.assertEqual(self.daemon.api("GET", "/providers/proxies/Reserve/healthcheck")[0], 204)
        self.assertEqual(self.proxy("Reserve")["now"], "ss")

    def test_flows_take_turns(self):
        seen = {self.seen(f"http://{PROXIED}:8080/") for _ in range(4)}
        self.assertEqual(seen, {SHADOWSOCKS, SOCKS5})
        self.assertNotIn("now", self.proxy("Turns"))

    def test_a_relay_puts_its_members_one_behind_the_other(self):
        for address, last in ((SOCKSED, SOCKS5), (REJECTED, SHADOWSOCKS)):
            self.assertEqual(self.seen(f"http://{address}:8080/"), last)
        for port, last in ((9000, SOCKS5), (9001, SHADOWSOCKS)):
            answer = self.lab.echo("lan1", SOCKSED, port)
            self.assertEqual((answer["payload"], answer["seen"]), ("ping", last))
        self.assertEqual(self.proxy("Row")["type"], "Relay")
        self.assertEqual(self.proxy("Row")["all"], ["ss", "Reserve", "socks"])
        self.assertNotIn("now", self.proxy("Row"))
        flow = self.lab.spawn("lan1", "curl", "-sN", "-o", "/dev/null", f"http://{REJECTED}:8080/slow")
        live = lambda: [c for c in self.daemon.connections() if c["metadata"]["destinationIP"] == REJECTED and c["metadata"]["network"] == "tcp"]
        wait_for("the flow", live)
        self.assertEqual(live()[0]["chains"], ["ss", "DIRECT", "socks", "Back"])
        # The router speaks to the first one alone, and that one to the second.
        peers = self.lab.ns("wan", "ss", "-Hnt", "state", "established", "( sport = :8388 )")
        self.assertTrue(any(line.split()[-1].startswith(f"{SOCKS5}:") for line in peers.splitlines()), peers)
        flow.terminate()
        flow.wait()

    def test_delays_are_measured_through_the_node(self):
        status, answer = self.daemon.api("GET", f"/proxies/ss/delay?timeout=3000&url={CHECK}&expected=204")
        self.assertEqual(status, 200)
        self.assertGreaterEqual(answer["delay"], 1)
        # The lab's certificate is nobody's: a test over TLS must not trust it.
        self.assertEqual(self.daemon.api("GET", f"/proxies/ss/delay?timeout=3000&url=https://{PROXIED}/")[0], 503)
        status, answer = self.daemon.api("GET", f"/group/First/delay?timeout=3000&url={CHECK}")
        self.assertEqual((status, sorted(answer)), (200, ["socks", "ss"]))
        with self.server_dead():
            self.assertEqual(self.daemon.api("GET", f"/proxies/ss/delay?timeout=3000&url={CHECK}")[0], 503)
            self.assertEqual(list(self.daemon.api("GET", f"/group/First/delay?timeout=3000&url={CHECK}")[1]), ["socks"])

    def test_a_pin_survives_a_reload_and_ends(self):
        self.assertEqual(self.proxy("Fast")["all"], ["socks", "ss"])
        self.assertEqual(self.daemon.api("GET", "/providers/proxies/Fast/healthcheck")[0], 204)
        other = {"ss": "socks", "socks": "ss"}[self.proxy("Fast")["now"]]
        self.assertEqual(self.daemon.api("PUT", "/proxies/Fast", {"name": other})[0], 204)
        self.daemon.signal(signal.SIGHUP)
        wait_for("the reload", lambda: self.daemon.said("configuration reloaded"))
        shown = self.proxy("Fast")
        self.assertEqual((shown["now"], shown["fixed"]), (other, other))
        self.assertEqual(len(shown["all"]), 2)
        self.assertEqual(self.daemon.api("DELETE", "/proxies/Fast")[0], 204)
        self.assertEqual(self.proxy("Fast")["fixed"], "")
        self.assertEqual(self.daemon.api("DELETE", "/proxies/Pick")[0], 400)

    def test_an_unused_lazy_group_is_left_alone(self):
        url = f"http://{PROXIED}/idle"
        wait_for("its first round", lambda: url in self.proxy("socks")["extra"])
        before = self.proxy("socks")["extra"][url]["history"]
        time.sleep(2.5)
        after = self.proxy("socks")["extra"][url]["history"]
        # A reload by another test may have begun a round, but not one every second.
        self.assertLessEqual(len(after) - len(before), 1)


if __name__ == "__main__":
    unittest.main()
