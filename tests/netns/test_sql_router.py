"""The router's own events in SQL, and what rules do to the router: devices, names, traffic, proxies, the WAN."""

import json
import subprocess
import time

from lab import DIRECT, MAC1, MAC2, PROXIED, ROUTER_LAN, ROUTER_WAN, LabTest, config, wait_for

EXTRA = """
rule-providers:
  listed: {{type: file, behavior: domain, format: text, path: ./listed.txt}}
mqtt:
  listeners: [{{name: tcp, type: tcp, listen: "{router}:1883"}}]
  allow-anonymous: true
management:
  listen: {router}:8081
  node: gate@192.168.77.1
  applications: [{{id: panel, secret: public}}]
"""

WAKE = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", 9))
s.settimeout(10)
print("ready", flush=True)
while True:
    packet = s.recv(200)
    if packet:
        break
print(packet.hex())
"""


class SqlRouter(LabTest):
    CONFIG_TEXT = config(rules="  - RULE-SET,listed,REJECT\n  - DOMAIN-SUFFIX,proxied.test,Pick\n  - IP-CIDR,6.6.6.10/32,Pick,no-resolve\n  - MATCH,DIRECT\n",
                         transparent="  offload: true") + EXTRA.format(router=ROUTER_LAN)

    def call(self, method, path, body=None):
        return self.daemon.manage(method, path, body, where="gw")[1]

    def make(self, sql, *actions):
        answer = self.call("POST", "/rules", {"rawsql": sql, "actions": list(actions)})
        self.assertEqual(answer["code"], 0, answer)
        self.addCleanup(self.call, "DELETE", f"/rules/{answer['data']['id']}")
        return answer["data"]["id"]

    def events(self, name, where="true = true"):
        """A function that gives the next event of that name that a rule saw."""
        heard = subprocess.Popen(
            ["ip", "netns", "exec", self.lab.names["lan2"], "stdbuf", "-oL", "mosquitto_sub", "-d", "-h", ROUTER_LAN, "-t", f"seen/{name}", "-W", "45", "-F", "=%p"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(heard.stdout.close)
        self.addCleanup(heard.wait)
        self.addCleanup(heard.kill)
        next(line for line in heard.stdout if line.startswith("Subscribed"))
        self.make(f'SELECT * FROM "$events/{name}" WHERE {where}', {"name": "republish", "params": {"target_topic": f"seen/{name}", "payload_tmpl": ""}})
        return lambda: next(json.loads(line[1:]) for line in heard.stdout if line.startswith("="))

    def act(self, name, **params):
        """Does an action of the router by a message."""
        self.make(f'SELECT * FROM "do/{name}"', {"name": name, "params": params})
        self.lab.ns("lan2", "mosquitto_pub", "-h", ROUTER_LAN, "-t", f"do/{name}", "-m", "{}", "-q", "1")

    def test_every_event_of_the_list_is_there_and_wears_this_nodes_name(self):
        topics = {event["event"]: event["columns"] for event in self.call("GET", "/rule_events")["data"]}
        for name in ("connection_opened", "connection_closed", "dns_query", "device_joined", "device_left", "proxy_delay", "proxy_switched",
                     "provider_updated", "traffic", "wan_changed", "client_connected", "client_disconnected", "session_subscribed",
                     "session_unsubscribed", "message_delivered", "message_acked", "message_dropped"):
            self.assertIn("node", topics[f"$events/{name}"])
        event = self.events("proxy_switched")
        self.daemon.api("PUT", "/proxies/Pick", {"name": "socks"})
        self.addCleanup(self.daemon.api, "PUT", "/proxies/Pick", {"name": "ss"})
        seen = event()
        self.assertEqual((seen["group"], seen["proxy"], seen["node"]), ("Pick", "socks", "gate@192.168.77.1"))

    def test_a_name_that_a_device_asks_for(self):
        event = self.events("dns_query", "name = 'direct.test' AND type = 1")
        self.lab.dig("lan1", ROUTER_LAN, "direct.test")
        seen = event()
        self.assertEqual((seen["event"], seen["device"], seen["rcode"]), ("dns.query", "192.168.77.11", 0))
        self.assertEqual(len(seen["answers"]), 1)

    def test_devices_come_and_go(self):
        joined, left = self.events("device_joined", f"device_mac = '{MAC1}'"), self.events("device_left", f"device_mac = '{MAC1}'")
        # Known before the rules look for the first time.
        self.lab.curl("lan1", f"http://{DIRECT}/")
        time.sleep(2.5)
        self.lab.ip("lan1", "link", "set", "eth0", "down")
        self.lab.ip("gw", "neigh", "flush", "dev", "br-lan")
        seen = left()
        self.assertEqual((seen["event"], seen["device_mac"]), ("device.left", MAC1))
        self.lab.ip("lan1", "link", "set", "eth0", "up")
        self.lab.ip("lan1", "route", "replace", "default", "via", ROUTER_LAN)
        self.lab.ip("lan1", "-6", "addr", "replace", "fd77::11/64", "dev", "eth0", "nodad")
        self.lab.ip("lan1", "-6", "route", "replace", "default", "via", "fd77::1")
        wait_for("the way", lambda: self.lab.curl("lan1", f"http://{DIRECT}/"))
        seen = joined()
        self.assertEqual((seen["event"], seen["device"]), ("device.joined", "192.168.77.11"))

    def test_proxies_are_tested_by_an_action_and_seen(self):
        event = self.events("proxy_delay", "proxy = 'ss'")
        time.sleep(3)
        # The test's own URL is nowhere in the lab: the result is that there is none.
        self.act("run_healthcheck", group="Pick")
        seen = event()
        self.assertEqual((seen["event"], seen["proxy"], seen["delay"]), ("proxy.delay", "ss", 0))

    def test_a_provider_that_changed(self):
        event = self.events("provider_updated")
        time.sleep(3)
        (self.daemon.directory / "listed.txt").write_text("listed.test\n")
        seen = event()
        self.assertEqual((seen["provider"], seen["type"]), ("listed", "rule"))

    def test_what_a_device_moves(self):
        event = self.events("traffic", "device = '192.168.77.11' AND download > 100000")
        time.sleep(3)
        self.lab.ns("lan1", "curl", "-s", "-o", "/dev/null", f"http://{PROXIED}/bytes/300000", check=False)
        seen = event()
        self.assertEqual((seen["device_mac"], seen["interval"]), (MAC1, 10))
        self.assertGreaterEqual(seen["download"], 300000)

    def test_the_wan_changes(self):
        event = self.events("wan_changed")
        time.sleep(3)
        self.lab.ip("gw", "addr", "add", "5.5.5.77/24", "dev", "wan0")
        self.addCleanup(self.lab.ip, "gw", "addr", "del", "5.5.5.77/24", "dev", "wan0")
        seen = event()
        self.assertTrue(seen["up"])
        self.assertLessEqual({"5.5.5.77", ROUTER_WAN}, set(seen["addresses"]))

    def test_a_device_is_blocked_for_a_while(self):
        reach = lambda: self.lab.curl("lan1", f"http://{PROXIED}/", seconds=2) is not None
        direct = lambda: self.lab.curl("lan1", f"http://{DIRECT}/", seconds=2) is not None
        self.assertTrue(reach() and direct())
        slow = self.lab.spawn("lan1", "curl", "-s", "-o", "/dev/null", f"http://{PROXIED}/slow")
        wait_for("a connection", lambda: any(one["metadata"]["sourceIP"] == "192.168.77.11" for one in self.daemon.connections()))
        self.act("block_device", device="192.168.77.11", duration="12s")
        began = time.monotonic()
        wait_for("the end of its connection", lambda: slow.poll() is not None, 5)
        wait_for("the kernel's block", lambda: "blocked" in self.lab.ns("gw", "nft", "list", "table", "inet", "headgate"), 5)
        self.assertFalse(reach() or direct())
        # The other device is no worse off, and the router itself stays reachable.
        self.assertIsNotNone(self.lab.curl("lan2", f"http://{DIRECT}/"))
        self.lab.ns("lan1", "curl", "-s", "-m", "2", f"http://{ROUTER_LAN}:8081/status")
        wait_for("the end of the block", lambda: reach() and direct(), 25)
        self.assertGreater(time.monotonic() - began, 11)
        self.assertNotIn("blocked", self.lab.ns("gw", "nft", "list", "table", "inet", "headgate"))

    def test_connections_are_closed_and_the_mode_is_set(self):
        of = lambda device: [one for one in self.daemon.connections() if one["metadata"]["sourceIP"] == device]
        closed, kept = (self.lab.spawn(lan, "curl", "-s", "-o", "/dev/null", f"http://{PROXIED}/slow") for lan in ("lan1", "lan2"))
        wait_for("both connections", lambda: of("192.168.77.11") and of("192.168.77.12"))
        self.act("close_connections", device="192.168.77.11")
        wait_for("the end of one", lambda: closed.poll() is not None)
        self.assertFalse(of("192.168.77.11"))
        self.assertIsNone(kept.poll())
        self.assertTrue(of("192.168.77.12"))
        kept.kill()
        kept.wait()
        self.addCleanup(self.daemon.api, "PATCH", "/configs", {"mode": "rule"})
        self.act("set_mode", mode="global")
        wait_for("the mode", lambda: self.daemon.api("GET", "/configs")[1]["mode"] == "global")

    def test_a_message_is_followed_to_its_end(self):
        names = ("message_delivered", "message_acked", "delivery_dropped", "session_unsubscribed")
        events = {name: self.events(name, "clientid = 'eye'") for name in names}
        dropped = self.events("message_dropped", "topic = 'nobody'")
        eye = ("mosquitto_sub", "-h", ROUTER_LAN, "-c", "-i", "eye", "-q", "1", "-t", "news")
        say = lambda topic, text, quality: self.lab.ns("lan2", "mosquitto_pub", "-h", ROUTER_LAN, "-i", "mouth", "-t", topic, "-m", text, "-q", quality)
        self.lab.ns("lan1", *eye, "-E")
        # It is away: what asks for no more than that is lost, the other waits.
        say("news", "lost", "0")
        seen = events["delivery_dropped"]()
        self.assertEqual((seen["event"], seen["payload"], seen["reason"], seen["from_clientid"]), ("delivery.dropped", "lost", "qos0_msg", "mouth"))
        say("news", "kept", "1")
        back = self.lab.spawn("lan1", *eye, stdout=subprocess.DEVNULL)
        for name in ("message_delivered", "message_acked"):
            seen = events[name]()
            self.assertEqual((seen["event"], seen["payload"], seen["qos"], seen["from_clientid"]), (name.replace("_", "."), "kept", 1, "mouth"))
        self.assertEqual(self.call("POST", "/mqtt/unsubscribe", {"clientid": "eye", "topic": "news"})["code"], 0)
        seen = events["session_unsubscribed"]()
        self.assertEqual((seen["event"], seen["topic"]), ("session.unsubscribed", "news"))
        back.terminate()
        back.wait()
        say("nobody", "in vain", "1")
        seen = dropped()
        self.assertEqual((seen["event"], seen["clientid"], seen["reason"]), ("message.dropped", "mouth", "no_subscribers"))

    def test_a_device_is_woken(self):
        sleeper = self.lab.spawn("lan2", "python3", "-c", WAKE, stdout=subprocess.PIPE, text=True)
        self.assertEqual(sleeper.stdout.readline(), "ready\n")
        self.act("wake_on_lan", mac=MAC2)
        packet = sleeper.stdout.readline().strip()
        self.assertEqual(packet, "ff" * 6 + MAC2.replace(":", "") * 16)

    def test_counters_of_all_rules_stand_among_metrics_and_stats(self):
        before = self.call("GET", "/metrics")["data"][0]["metrics"]
        self.make('SELECT * FROM "count/me"', {"name": "do_nothing"}, {"name": "do_nothing"})
        self.lab.ns("lan2", "mosquitto_pub", "-h", ROUTER_LAN, "-t", "count/me", "-m", "x", "-q", "1")
        answer = self.call("GET", "/metrics")["data"][0]
        self.assertEqual(answer["node"], "gate@192.168.77.1")
        after = answer["metrics"]
        self.assertEqual([after[name] - before[name] for name in ("rules.matched", "rules.passed", "actions.taken", "actions.success")], [1, 1, 2, 2])
        stats = self.call("GET", "/stats")["data"][0]["stats"]
        self.assertGreaterEqual(stats["rules.count"], 1)
        self.assertGreaterEqual(stats["actions.max"], stats["actions.count"])
        self.assertIn("resources.count", stats)
