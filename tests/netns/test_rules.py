"""SQL rules over a live router: what devices do becomes messages, and rules act on the router."""

import json
import time

from lab import DIRECT, PROXIED, ROUTER_LAN, ROUTER_WAN, SHADOWSOCKS, LabTest, config, wait_for

MANAGEMENT = f"""
mqtt:
  listeners: [{{name: tcp, type: tcp, listen: {ROUTER_LAN}:1883}}, {{name: own, type: tcp, listen: 127.0.0.1:1883}}]
  allow-anonymous: true
  acl: [{{permission: allow, action: subscribe, topics: ["$SYS/#"]}}]
management:
  listen: {ROUTER_LAN}:8081
  applications: [{{id: admin, secret: public-no-more}}]
"""


class Rules(LabTest):
    CONFIG_TEXT = config() + MANAGEMENT

    def call(self, method, path, body=None, user="admin:public-no-more", prefix="/api/v4"):
        return self.daemon.manage(method, path, body, user, where="gw", prefix=prefix)

    def make(self, sql, *actions, **more):
        status, answer = self.call("POST", "/rules", {"rawsql": sql, "actions": list(actions), **more})
        self.assertEqual((status, answer["code"]), (200, 0), answer)
        self.addCleanup(self.call, "DELETE", f"/rules/{answer['data']['id']}")
        return answer["data"]

    def subscribe(self, topic, count=1, where="lan2", address=ROUTER_LAN):
        return self.subscribed(where, address, "-t", topic, "-C", str(count), "-W", "10", "-F", "=%t %p")

    @staticmethod
    def lines(process):
        return [line[1:].rstrip("\n") for line in process.stdout if line.startswith("=")]

    def publish(self, topic, payload):
        self.lab.ns("lan1", "mosquitto_pub", "-h", ROUTER_LAN, "-q", "1", "-t", topic, "-m", payload)

    def metrics(self, rule):
        data = self.call("GET", f"/rules/{rule['id']}")[1]["data"]
        return data["metrics"][0], data["actions"][0]["metrics"][0]

    def test_a_devices_connection_publishes_an_alert_and_switches_the_group(self):
        self.assertEqual(self.daemon.api("PUT", "/proxies/Pick", {"name": "ss"})[0], 204)
        self.addCleanup(self.daemon.api, "PUT", "/proxies/Pick", {"name": "ss"})
        self.assertEqual(self.lab.curl("lan1", f"http://{PROXIED}/")["client"], SHADOWSOCKS)
        alert = self.subscribe("alert/#")
        switched = self.subscribe("switched")
        rule = self.make(
            f"SELECT device, device_mac, destination, port, outbound FROM \"$events/connection_opened\" WHERE destination = '{PROXIED}' AND port = 80",
            {"name": "republish", "params": {"target_topic": "alert/${device}", "payload_tmpl": "${destination}:${port} by ${outbound}, ${device_mac}"}},
            {"name": "select_proxy", "params": {"group": "Pick", "proxy": "DIRECT"}},
        )
        self.make('SELECT group, proxy FROM "$events/proxy_switched"', {"name": "republish", "params": {"target_topic": "switched", "payload_tmpl": ""}})
        self.lab.curl("lan1", f"http://{PROXIED}/")
        mac = self.lab.ns("lan1", "cat", "/sys/class/net/eth0/address", check=False).strip()
        (said,) = self.lines(alert)
        self.assertTrue(said.startswith(f"alert/192.168.77.11 {PROXIED}:80 by ss, "), said)
        if mac:
            self.assertTrue(said.endswith(mac), said)
        self.assertEqual(self.lines(switched), ['switched {"group":"Pick","proxy":"DIRECT"}'])
        wait_for("the other exit", lambda: self.lab.curl("lan1", f"http://{PROXIED}/")["client"] == ROUTER_WAN)
        matched, republished = self.metrics(rule)
        self.assertGreaterEqual(matched["matched"], 1)
        self.assertGreaterEqual(republished["success"], 1)

    def test_a_connection_that_ended_tells_what_it_moved(self):
        closed = self.subscribe("closed")
        self.make(
            f"SELECT upload, download, rule FROM \"$events/connection_closed\" WHERE destination = '{DIRECT}' AND download > 0",
            {"name": "republish", "params": {"target_topic": "closed", "payload_tmpl": ""}},
        )
        self.lab.curl("lan1", f"http://{DIRECT}/")
        (said,) = self.lines(closed)
        data = json.loads(said.split(" ", 1)[1])
        self.assertGreater(data["upload"], 50)
        self.assertEqual(data["rule"], "Match")

    def test_messages_are_selected_compared_and_republished(self):
        out = self.subscribe("out/#", 2)
        rule = self.make('SELECT payload.temp AS t, clientid FROM "t/#" WHERE t > 30',
                         {"name": "republish", "params": {"target_topic": "out/${t}", "payload_tmpl": '{"v":${t}}', "target_qos": 1}})
        for payload in ('{"temp":35}', '{"temp":20}', "text", '{"temp":40.5}'):
            self.publish("t/1", payload)
        self.assertEqual(self.lines(out), ['out/35 {"v":35}', 'out/40.5 {"v":40.5}'])
        metrics, action = self.metrics(rule)
        want = {"matched": 4, "passed": 2, "no_result": 1, "exception": 1, "failed": 2}
        self.assertEqual({name: metrics[name] for name in want}, want)
        self.assertEqual((action["success"], action["failed"]), (2, 0))

    def alarms(self, kind="activated"):
        """The alarms by their names."""
        return {alarm["name"]: alarm for alarm in self.call("GET", f"/alarms/{kind}")[1]["data"][0]["alarms"]}

    def test_a_storm_is_cut_and_raises_an_alarm(self):
        heard = self.subscribe("$SYS/brokers/+/alarms/activate", where="gw", address="127.0.0.1")
        rules = [self.make('SELECT 1 AS x FROM "storm/#"', {"name": "republish", "params": {"target_topic": "storm/x", "payload_tmpl": "x"}}) for _ in range(6)]
        self.publish("storm", "x")
        (said,) = self.lines(heard)
        said = json.loads(said.split(" ", 1)[1])
        cut = next(rule for rule in rules if rule["id"] == said["details"]["rule"])
        self.assertEqual(said["name"], f"rule/{cut['id']}/cut")
        self.assertTrue(self.alarms()[said["name"]]["activated"])
        _, action = self.metrics(rules[0])
        self.assertGreater(action["failed"], 0)
        self.assertTrue(self.call("GET", "/rules")[0] == 200, "it still answers")
        # It goes with the rule.
        self.call("DELETE", f"/rules/{cut['id']}")
        wait_for("its end", lambda: said["name"] in self.alarms("deactivated"))
        self.assertNotIn(said["name"], self.alarms())

    def test_two_rules_that_feed_each_other_are_cut_after_some_rounds(self):
        pair = [self.make(f'SELECT 1 AS x FROM "feed/{a}"', {"name": "republish", "params": {"target_topic": f"feed/{b}", "payload_tmpl": "x"}}) for a, b in ("xy", "yx")]
        self.publish("feed/x", "x")
        wait_for("the alarm", lambda: any(f"rule/{rule['id']}/cut" in self.alarms() for rule in pair))
        self.assertLess(sum(self.metrics(rule)[0]["matched"] for rule in pair), 20)

    def test_ten_thousand_events_a_second_are_counted_and_acts_on_the_router_are_few(self):
        rule = self.make('SELECT clientid FROM "flood/#"', {"name": "select_proxy", "params": {"group": "Pick", "proxy": "ss"}})
        began = time.monotonic()
        self.lab.ns("lan1", "mosquitto_pub", "-h", ROUTER_LAN, "-q", "0", "-t", "flood/x", "-l", input="x\n" * 20_000, timeout=60)
        wait_for("all of them", lambda: self.metrics(rule)[0]["matched"] == 20_000, seconds=20)
        took = time.monotonic() - began
        _, action = self.metrics(rule)
        # Ten at once and two a second (ACT_RATE).
        self.assertLessEqual(action["success"], 10 + 2 * took + 1)
        self.assertEqual(action["success"] + action["failed"], 20_000)
        self.assertIn(f"rule/{rule['id']}/cut", self.alarms())

    def test_elements_of_a_list_make_a_row_each(self):
        out = self.subscribe("each/#", 2)
        self.make('FOREACH payload.s AS e DO e.i AS i INCASE e.i > 1 FROM "list"', {"name": "republish", "params": {"target_topic": "each/${i}", "payload_tmpl": "${i}"}})
        self.publish("list", '{"s":[{"i":1},{"i":2},{"i":3}]}')
        self.assertEqual(self.lines(out), ["each/2 2", "each/3 3"])

    def test_clients_come_and_go(self):
        seen = self.subscribe("seen/#", 3)
        for event, column in (("client_connected", "proto_ver"), ("session_subscribed", "topic"), ("client_disconnected", "reason")):
            self.make(f"SELECT clientid, {column} AS c FROM \"$events/{event}\" WHERE clientid = 'watched'",
                      {"name": "republish", "params": {"target_topic": f"seen/{event}", "payload_tmpl": "${c}"}})
        self.lab.ns("lan1", "mosquitto_sub", "-h", ROUTER_LAN, "-i", "watched", "-V", "mqttv5", "-t", "some/+", "-E")
        self.assertEqual(self.lines(seen), ["seen/client_connected 5", "seen/session_subscribed some/+", "seen/client_disconnected normal"])

    def test_the_api_answers_as_emqx_does(self):
        self.assertEqual(self.call("GET", "/rules", user="admin:wrong")[0], 401)
        self.assertEqual(self.call("GET", "/rules", prefix="/api")[0], 200)
        rule = self.make('select * from "t/a"', {"name": "inspect", "params": {"a": 1}}, description="test-rule")
        self.assertEqual((rule["for"], rule["enabled"], rule["description"]), (["t/a"], True, "test-rule"))
        self.assertRegex(rule["id"], "^rule:[0-9a-f]{8}$")
        self.assertEqual(rule["actions"][0]["params"], {"a": 1})
        self.assertRegex(rule["actions"][0]["id"], "^inspect_[0-9]+$")
        path = f"/rules/{rule['id'].replace(':', '%3A')}"
        self.assertEqual(self.call("GET", path)[1]["data"], rule)
        changed = self.call("PUT", path, {"rawsql": 'select * from "t/b"'})[1]["data"]
        self.assertEqual((changed["for"], changed["actions"][0]["name"]), (["t/b"], "inspect"))
        self.assertFalse(self.call("PUT", path, {"enabled": False})[1]["data"]["enabled"])
        self.assertEqual(self.call("DELETE", path), (200, {"code": 0}))
        self.assertEqual(self.call("GET", path), (404, {"code": 404, "message": "Not Found"}))
        status, answer = self.call("POST", "/rules", {"rawsql": "SELECT nope(1) FROM \"t\"", "actions": []})
        self.assertEqual((status, answer["message"]), (400, 'Bad Arguments: rawsql: line 1, column 8: no function is named "nope"'))
        status, answer = self.call("POST", "/rules?test=true", {"rawsql": 'SELECT payload.x AS x FROM "t/#"', "ctx": {"payload": '{"x":2}', "topic": "t/1"}})
        self.assertEqual((status, answer["data"]), (200, {"x": 2}))
        inspect = self.call("GET", "/actions/inspect")[1]["data"]
        self.assertEqual((inspect["title"]["zh"], inspect["params"], inspect["app"]), ("检查 (调试)", {}, "emqx_rule_engine"))
        self.assertIn("select_proxy", [action["name"] for action in self.call("GET", "/actions")[1]["data"]])

    def test_rules_survive_a_restart_and_their_counters_do_not(self):
        rule = self.make('SELECT payload.x AS x FROM "kept"', {"name": "republish", "params": {"target_topic": "still", "payload_tmpl": "${x}"}})
        off = self.make('SELECT * FROM "kept"', {"name": "do_nothing"}, enabled=False)
        self.publish("kept", '{"x":1}')
        self.assertEqual(self.metrics(rule)[0]["matched"], 1)
        self.daemon.stop()
        self.daemon.start()
        again = self.call("GET", f"/rules/{rule['id']}")[1]["data"]
        self.assertEqual((again["rawsql"], again["actions"][0]["id"]), (rule["rawsql"], rule["actions"][0]["id"]))
        self.assertEqual(again["metrics"][0]["matched"], 0)
        self.assertFalse(self.call("GET", f"/rules/{off['id']}")[1]["data"]["enabled"])
        still = self.subscribe("still")
        self.publish("kept", '{"x":2}')
        self.assertEqual(self.lines(still), ["still 2"])
