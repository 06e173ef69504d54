"""The router's state on its own broker: kept topics, Home Assistant's discovery, commands behind access rules."""

import json
import subprocess

from lab import DIRECT, MAC1, PROXIED, ROUTER_LAN, ROUTER_WAN, SHADOWSOCKS, LabTest, config, wait_for

EXTRA = """
mqtt:
  listeners: [{{name: tcp, type: tcp, listen: "{router}:1883"}}]
  allow-anonymous: true
  users: [{{username: hub, password: secret}}]
  acl:
    - {{permission: allow, username: hub, topics: ["headgate/#"]}}
    - {{permission: deny, action: publish, topics: ["headgate/#"]}}
management: {{listen: "{router}:8081", node: "gate@192.168.77.1", applications: [{{id: panel, secret: public}}]}}
rule-engine:
  state: {{interval: 1s, home-assistant: true, commands: true}}
"""


class StateTopics(LabTest):
    CONFIG_TEXT = config() + EXTRA.format(router=ROUTER_LAN)

    def kept(self, topic, count=1):
        """The payloads of what the broker keeps, by topic."""
        command = ("ip", "netns", "exec", self.lab.names["lan2"], "mosquitto_sub", "-h", ROUTER_LAN, "-t", topic, "-C", str(count), "-W", "3", "--retained-only", "-F", "%t %p")
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        return {line.split(" ", 1)[0]: json.loads(line.split(" ", 1)[1]) for line in done.stdout.splitlines()}

    def say(self, topic, payload, *login):
        self.lab.ns("lan1", "mosquitto_pub", "-h", ROUTER_LAN, "-t", topic, "-m", payload, "-q", "1", *login, check=False)

    def mode(self):
        return self.daemon.api("GET", "/configs")[1]["mode"]

    def test_the_state_is_kept_and_follows(self):
        wait_for("the status", lambda: self.kept("headgate/status"))
        status = self.kept("headgate/status")["headgate/status"]
        self.assertEqual((status["mode"], status["node"]), ("rule", "gate@192.168.77.1"))
        self.assertEqual(self.daemon.api("PUT", "/proxies/Pick", {"name": "socks"})[0], 204)
        wait_for("the choice", lambda: self.kept("headgate/proxies/Pick")["headgate/proxies/Pick"]["now"] == "socks")
        self.assertEqual(self.kept("headgate/proxies/Pick")["headgate/proxies/Pick"]["all"], ["ss", "socks", "DIRECT", "REJECT"])
        self.lab.curl("lan1", f"http://{DIRECT}/")
        topic = f"headgate/devices/{MAC1}"
        wait_for("the device", lambda: self.kept(topic).get(topic, {}).get("present"))
        self.assertIn("192.168.77.11", self.kept(topic)[topic]["addresses"])
        heard = subprocess.run(("ip", "netns", "exec", self.lab.names["lan2"], "mosquitto_sub", "-h", ROUTER_LAN, "-t", "headgate/traffic", "-C", "1", "-W", "30"),
                               capture_output=True, text=True, timeout=40, check=True)
        self.assertEqual(set(json.loads(heard.stdout)), {"up", "down", "up_total", "down_total"})
        self.assertEqual(self.kept("headgate/traffic"), {})

    def test_home_assistant_finds_groups_mode_and_sensors(self):
        wait_for("discovery", lambda: len(self.kept("homeassistant/#", 20)) >= 5)
        found = self.kept("homeassistant/#", 20)
        group = found["homeassistant/select/headgate_gate_192_168_77_1_group_0/config"]
        self.assertEqual((group["name"], group["state_topic"], group["command_topic"]), ("Pick", "headgate/proxies/Pick", "headgate/proxies/Pick/set"))
        # Every state topic that is promised is there.
        for topic, config in found.items():
            self.assertTrue(config["unique_id"].startswith("headgate_gate_192_168_77_1_"), topic)
            if config["state_topic"] != "headgate/traffic":
                self.assertTrue(self.kept(config["state_topic"]), config["state_topic"])

    def test_commands_are_obeyed_from_those_who_may(self):
        self.daemon.api("PUT", "/proxies/Pick", {"name": "ss"})
        self.addCleanup(self.daemon.api, "PUT", "/proxies/Pick", {"name": "ss"})
        seen = lambda: self.lab.curl("lan1", f"http://{PROXIED}/")["client"]
        self.assertEqual(seen(), SHADOWSOCKS)
        # Nobody in particular: the broker's own access rules say no.
        self.say("headgate/proxies/Pick/set", "DIRECT")
        self.say("headgate/mode/set", "direct")
        hub = ("-u", "hub", "-P", "secret")
        self.say("headgate/mode/set", "global", *hub)
        wait_for("the mode", lambda: self.mode() == "global")
        self.say("headgate/mode/set", "rule", *hub)
        wait_for("the mode again", lambda: self.mode() == "rule")
        self.assertEqual(seen(), SHADOWSOCKS)
        self.say("headgate/proxies/Pick/set", "DIRECT", *hub)
        wait_for("the choice", lambda: seen() == ROUTER_WAN)
        # What there is not changes nothing.
        self.say("headgate/proxies/Pick/set", "nobody", *hub)
        self.say("headgate/mode/set", "sideways", *hub)
        wait_for("the refusals", lambda: self.daemon.said('"nobody" cannot be chosen') and self.daemon.said('there is no mode "sideways"'))
        self.assertEqual((self.mode(), seen()), ("rule", ROUTER_WAN))
