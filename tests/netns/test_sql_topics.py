"""Queries by MQTT: SQL to `$query/…`, rows at the response topic, and nobody who is not named in the access rules (users.md S20)."""

import json
import subprocess

from lab import DIRECT, ROUTER_LAN, LabTest, config, wait_for

EXTRA = """
mqtt:
  listeners: [{{name: tcp, type: tcp, listen: "{router}:1883"}}]
  allow-anonymous: true
  users: [{{username: hub, password: secret}}, {{username: asker, password: secret}}, {{username: root, password: secret, superuser: true}}]
  acl:
    - {{permission: allow, username: hub, topics: ["$query/#", "closed/answers"]}}
    - {{permission: allow, username: asker, topics: ["$query/%u/#"]}}
    - {{permission: deny, topics: ["closed/#"]}}
    - {{permission: allow}}
management: {{listen: "{router}:8081", applications: [{{id: admin, secret: tester}}]}}
"""
LOGIN = {name: ("-u", name, "-P", "secret") for name in ("hub", "asker", "root")} | {"nobody": ()}


class Asking(LabTest):
    CONFIG_TEXT = config() + EXTRA.format(router=ROUTER_LAN)

    def request(self, sql, user="hub", topic="$query/hub/1", answer="answers/1", *more):
        """The answer by MQTT 5's request and response; None: there is none."""
        command = ("ip", "netns", "exec", self.lab.names["lan2"], "mosquitto_rr", "-V", "5", "-q", "1", "-h", ROUTER_LAN, *LOGIN[user], "-t", topic, "-e", answer, "-m", sql, "-W", "3", *more)
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        return json.loads(done.stdout) if done.stdout.startswith("{") else done.stdout or None

    def listen(self, user, *arguments):
        """A subscriber; `lines()` of what it heard, once it heard `end`."""
        return self.subscribed("lan2", ROUTER_LAN, "-V", "5", *LOGIN[user], "-q", "1", "-F", "=%t %p", "-W", "20", *arguments)

    def heard(self, process, end):
        """What a subscriber heard before `end`."""
        lines = []
        for line in process.stdout:
            if line.startswith("="):
                if line.rstrip("\n").endswith(end):
                    return lines
                lines.append(line[1:].rstrip("\n"))
        raise AssertionError(f"{end} did not come: {lines}")

    def publish(self, user, topic, payload, *arguments):
        command = ("ip", "netns", "exec", self.lab.names["lan1"], "mosquitto_pub", "-V", "5", "-d", "-h", ROUTER_LAN, *LOGIN[user], "-q", "1", "-t", topic, "-m", payload, *arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        return done.stdout + done.stderr


class SqlTopics(Asking):
    def test_rows_come_to_the_response_topic(self):
        self.assertEqual(self.request("SELECT device FROM flows WHERE live = false LIMIT 1"), {"code": 0, "data": []})
        for _ in range(2):
            self.lab.ns("lan1", "curl", "-s", "-o", "/dev/null", f"http://{DIRECT}/bytes/20000")
        sql = "SELECT device, sum(down) AS bytes FROM flows WHERE outbound = 'DIRECT' GROUP BY device"
        wait_for("the flows", lambda: self.request("SELECT count(*) AS n FROM flows WHERE live = false")["data"][0]["n"] >= 2)
        (row,) = self.request(sql)["data"]
        self.assertEqual(row["device"], "192.168.77.11")
        self.assertGreaterEqual(row["bytes"], 40_000)
        # The same as by HTTP.
        self.assertEqual(self.daemon.manage("POST", "/query", {"sql": sql}, "admin:tester"), (200, {"code": 0, "data": [row]}))
        (client,) = self.request("SELECT clientid, username FROM mqtt_clients WHERE username = 'hub'", "hub", "$query/x", "answers/x", "-i", "the-hub")["data"]
        self.assertEqual(client, {"clientid": "the-hub", "username": "hub"})

    def test_a_mistake_is_answered_with_its_place(self):
        self.assertEqual(self.request("SELECT FROM flows"), {"code": 400, "message": 'sql: line 1, column 8: expected a value, found "FROM"'})
        self.assertIn("there is no table", self.request("SELECT * FROM users")["message"])

    def test_without_a_response_topic_the_answer_stands_below_the_question(self):
        listener = self.listen("asker", "-t", "$query/asker/#")
        self.publish("asker", "$query/asker/a", "SELECT proxy FROM rules ORDER BY index LIMIT 1")
        self.publish("asker", "$query/asker/b", "end")
        question, *answers = self.heard(listener, "$query/asker/b end")
        # An answer is no question again: there is one, though it stands below `$query/` too.
        answers += self.heard(listener, '$query/asker/b/result {"code":400,"message":"sql: line 1, column 1: expected SELECT, found \\"end\\""}')
        self.assertEqual((question, answers), ("$query/asker/a SELECT proxy FROM rules ORDER BY index LIMIT 1", ['$query/asker/a/result {"code":0,"data":[{"proxy":"REJECT"}]}']))

    def test_nobody_asks_but_those_who_are_named(self):
        sql = "SELECT device FROM devices"
        listener = self.listen("root", "-t", "$query/#", "-t", "done", "-t", "answers/#")
        # A rule that allows everything, and an open default, name no query.
        self.assertIn("Not authorized", self.publish("nobody", "$query/hub/1", sql))
        self.assertIn("Not authorized", self.publish("nobody", "$query/hub/1", sql, "-r"))
        self.assertIn("Not authorized", self.publish("asker", "$query/hub/1", sql))
        self.assertIn("Not authorized", self.publish("nobody", "$delayed/1/$query/hub/1", sql))
        self.assertIsNone(self.request(sql, "nobody"))
        will = self.publish("nobody", "done", "x", "--will-topic", "$query/hub/1", "--will-payload", sql)
        self.assertIn("Not authorized", will)
        for filters in (("-t", "$query/#"), ("-t", "$query/hub/+"), ("-t", "$share/g/$query/#"), ("-t", "$query/hub/1/result")):
            done = subprocess.run(("ip", "netns", "exec", self.lab.names["lan2"], "mosquitto_sub", "-V", "5", "-h", ROUTER_LAN, *filters, "-W", "2"),
                                  capture_output=True, text=True, timeout=10, check=False)
            self.assertIn("All subscription requests were denied", done.stderr, filters)
        self.publish("nobody", "done", "end")
        self.assertEqual(self.heard(listener, "done end"), [])

    def test_an_answer_goes_only_where_the_asker_may_speak(self):
        sql = "SELECT proxy FROM rules ORDER BY index LIMIT 1"
        listener = self.listen("root", "-t", "closed/#", "-t", "headgate/#", "-t", "done")
        for topic in ("closed/other", "headgate/mode/set"):
            self.publish("hub", "$query/hub/2", sql, "-D", "publish", "response-topic", topic)
        self.publish("hub", "$query/hub/2", sql, "-D", "publish", "response-topic", "closed/answers")
        self.assertEqual(self.heard(listener, 'closed/answers {"code":0,"data":[{"proxy":"REJECT"}]}'), [])


class Flood(Asking):
    def test_too_many_questions_at_once_are_refused(self):
        listener = self.listen("hub", "-t", "$query/many/result")
        self.lab.ns("lan1", "mosquitto_pub", "-h", ROUTER_LAN, *LOGIN["hub"], "-q", "1", "-t", "$query/many", "-l", input="SELECT count(*) AS n FROM rules\n" * 100)
        answers = [next(line for line in listener.stdout if line.startswith("=")) for _ in range(100)]
        refused = sum("too many queries at once" in one for one in answers)
        self.assertGreaterEqual(refused, 50)
        self.assertEqual(sum('"data":[{"n":' in one for one in answers), 100 - refused)
