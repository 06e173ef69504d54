"""What rules may not do, by requirement (users.md S26, S27; S28 is in test_rules): bounded runs, text that stays text, and the chain of
hummingbot-api#222, in which a rule was a way into the router's own API."""

import sys
import time

from lab import DIRECT, PROXIED, ROUTER_LAN, LabTest, config, wait_for
from test_sql_resources import SINK

EXTRA = """
mqtt:
  listeners: [{{name: tcp, type: tcp, listen: "{router}:1883"}}]
  allow-anonymous: true
  max-packet-size: 128KB
management: {{listen: "{router}:8081", applications: [{{id: admin, secret: tester}}]}}
rule-engine:
  webhook-allow: ["direct.test:9914"]
"""


class SqlLimits(LabTest):
    CONFIG_TEXT = config() + EXTRA.format(router=ROUTER_LAN)

    def ask(self, method, path, body=None, login="admin:tester"):
        return self.daemon.manage(method, path, body, login)

    def rule(self, sql, *actions):
        status, answer = self.ask("POST", "/rules", {"rawsql": sql, "actions": list(actions)})
        self.assertEqual(status, 200, answer)
        self.addCleanup(self.ask, "DELETE", f"/rules/{answer['data']['id']}")
        return answer["data"]["id"]

    def counters(self, rule):
        data = self.ask("GET", f"/rules/{rule}")[1]["data"]
        return data["metrics"][0] | {f"action.{key}": value for key, value in data["actions"][0]["metrics"][0].items()}

    def publish(self, topic, payload):
        self.lab.ns("lan1", "mosquitto_pub", "-h", ROUTER_LAN, "-q", "1", "-t", topic, "-s", input=payload)

    def heard(self, topic, count=1):
        process = self.subscribed("lan2", ROUTER_LAN, "-t", topic, "-C", str(count), "-W", "10", "-F", "=%t %p")
        return lambda: [line[1:].rstrip("\n") for line in process.stdout if line.startswith("=")]

    def test_s26_long_topics_and_payloads_are_values_like_others(self):
        # nanomq#2190 (a topic of 1000 bytes), #2251 (of 788 and more), #2288 (a payload of 850 bytes).
        rule = self.rule('SELECT topic, payload, clientid FROM "long/#"', {"name": "republish", "params": {"target_topic": "copy", "payload_tmpl": "${topic}|${payload}"}})
        for length in (64, 788, 1000, 20_000, 65_000):
            heard, topic = self.heard("copy"), "long/" + "A" * length
            self.publish(topic, "x" * 850)
            self.assertEqual(heard(), [f"copy {topic}|" + "x" * 850])
        self.assertEqual(self.counters(rule)["exception"], 0)

    def test_s26_what_a_message_says_is_never_read_as_a_program(self):
        self.rule('SELECT payload, topic FROM "text"', {"name": "republish", "params": {"target_topic": "copy", "payload_tmpl": "${payload}"}})
        for hostile in ("${topic}", "'; DROP TABLE x; --", '"} FROM "#"', "${${topic}}", "~s~p", "\\1&"):
            heard = self.heard("copy")
            self.publish("text", hostile)
            self.assertEqual(heard(), [f"copy {hostile}"])

    def test_s26_a_run_that_wants_too_much_ends_soon_and_the_broker_goes_on(self):
        costly = [
            "regex_match(payload, '(x+x+)+y')", "pad(payload, 1000000000)", "replace(payload, 'x', payload)", "[1..100000000]",
            "concat(gunzip(gzip(payload)), payload)",
        ]
        rules = [self.rule(f'SELECT {one} AS r FROM "costly"', {"name": "do_nothing"}) for one in costly]
        began = time.monotonic()
        for _ in range(20):
            self.publish("costly", "x" * 60_000)
        self.assertLess(time.monotonic() - began, 15)
        for one, rule in zip(costly, rules):
            counters = self.counters(rule)
            self.assertEqual((counters["matched"], counters["exception"]), (20, 20), one)
        # As much as a packet may have, and no more.
        rule = self.rule('SELECT payload FROM "grow"', {"name": "republish", "params": {"target_topic": "grown", "payload_tmpl": "${payload}${payload}"}})
        self.publish("grow", "x" * 100_000)
        self.assertEqual((self.counters(rule)["action.success"], self.counters(rule)["action.failed"]), (0, 1))
        self.publish("grow", "x" * 1000)
        self.assertEqual(self.counters(rule)["action.success"], 1)

    def test_s27_the_chain_into_the_own_api_fails_at_each_point(self):
        inside = self.lab.directory / "reached"
        self.lab.spawn("gw", sys.executable, "-c", SINK, "127.0.0.1", "9915", str(inside))
        wait_for("the inner sink", lambda: "127.0.0.1:9915" in self.lab.ns("gw", "ss", "-lnt"))
        # One: whoever has no application makes no rule and no resource, and sees none.
        backdoor = {"rawsql": 'SELECT * FROM "ssrf/probe"', "actions": [{"name": "do_nothing"}]}
        for login in ("admin:wrong", "admin:", "public:public"):
            for method, path, body in (("POST", "/rules", backdoor), ("POST", "/resources", {"type": "web_hook", "config": {"url": "http://127.0.0.1"}}), ("GET", "/resources", None)):
                self.assertEqual(self.ask(method, path, body, login), (401, "UNAUTHORIZED"))
        # Two: a hook into the router goes nowhere, though an application made it.
        for url in ("http://127.0.0.1:9915", f"http://{ROUTER_LAN}:8081/api/v4/auth_user", "http://localhost:9915", f"http://{PROXIED}"):
            resource = self.ask("POST", "/resources", {"type": "web_hook", "config": {"url": url, "headers": {"authorization": "Basic YWRtaW46cHVibGlj"}}})[1]["data"]["id"]
            rule = self.rule('SELECT * FROM "ssrf/probe"', {"name": "data_to_webserver", "params": {"$resource": resource, "method": "GET", "path": "/accounts/"}})
            self.publish("ssrf/probe", "x")
            wait_for("its failure", lambda rule=rule: self.counters(rule)["action.failed"] == 1)
            self.ask("DELETE", f"/rules/{rule}")
            self.ask("DELETE", f"/resources/{resource}")
        self.assertFalse(inside.exists())
        # Three: an event chooses no credentials.
        resource = self.ask("POST", "/resources", {"type": "web_hook", "config": {"url": f"http://{DIRECT}:9914"}})[1]["data"]["id"]
        self.addCleanup(self.ask, "DELETE", f"/resources/{resource}")
        for field in ("Authorization", "cookie", "Proxy_Authorization", "host"):
            params = {"$resource": resource, "headers": {field: "${payload.key}"}}
            status, answer = self.ask("POST", "/rules", {"rawsql": 'SELECT * FROM "a"', "actions": [{"name": "data_to_webserver", "params": params}]})
            self.assertEqual((status, answer["message"]), (400, "Bad Arguments: params.headers is not as it must be"))
