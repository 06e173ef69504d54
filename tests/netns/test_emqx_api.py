"""The EMQX v4 HTTP API over a live broker: every endpoint of the document, with mosquitto's and paho's clients."""

import pathlib
import re
import subprocess
import time
import urllib.parse

from lab import ROUTER_LAN, LabTest, config, wait_for

NODE = "emqx@127.0.0.1"
MANAGEMENT = """
mqtt:
  listeners:
    - {{name: tcp, type: tcp, listen: {router}:1883, max-connections: 100}}
  users: [{{username: ann, password: plain}}]
  password-storage: sha256
  acl: [{{permission: deny, topics: ["closed/#"]}}]
management:
  listen: {router}:8081
  node: {node}
  applications: [{{id: admin, secret: not-public}}, {{id: other, secret: hidden}}]
"""
CLIENT_FIELDS = {
    "node": str, "clientid": str, "username": str, "proto_name": str, "proto_ver": int, "ip_address": str, "port": int, "is_bridge": bool,
    "connected": bool, "connected_at": str, "created_at": str, "zone": str, "keepalive": int, "clean_start": bool, "expiry_interval": int,
    "subscriptions_cnt": int, "max_subscriptions": int, "inflight": int, "max_inflight": int, "mqueue_len": int, "max_mqueue": int,
    "mqueue_dropped": int, "awaiting_rel": int, "max_awaiting_rel": int, "recv_oct": int, "recv_cnt": int, "recv_pkt": int, "recv_msg": int,
    "send_oct": int, "send_cnt": int, "send_pkt": int, "send_msg": int, "mailbox_len": int, "heap_size": int, "reductions": int,
}
DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
# emqx-api.md 3.2 and 3.3: the names of the document.
METRICS = """bytes.received bytes.sent packets.received packets.sent packets.connect.received packets.connack.sent packets.connack.error
packets.connack.auth_error packets.publish.received packets.publish.sent packets.publish.inuse packets.publish.error packets.publish.auth_error
packets.publish.dropped packets.puback.received packets.puback.sent packets.puback.inuse packets.puback.missed packets.pubrec.received
packets.pubrec.sent packets.pubrec.inuse packets.pubrec.missed packets.pubrel.received packets.pubrel.sent packets.pubrel.missed
packets.pubcomp.received packets.pubcomp.sent packets.pubcomp.inuse packets.pubcomp.missed packets.subscribe.received packets.subscribe.error
packets.subscribe.auth_error packets.suback.sent packets.unsubscribe.received packets.unsubscribe.error packets.unsuback.sent
packets.pingreq.received packets.pingresp.sent packets.disconnect.received packets.disconnect.sent packets.auth.received packets.auth.sent
messages.received messages.sent messages.qos0.received messages.qos1.received messages.qos2.received messages.qos0.sent messages.qos1.sent
messages.qos2.sent messages.publish messages.dropped messages.dropped.expired messages.dropped.no_subscribers messages.forward
messages.retained messages.delivered messages.acked delivery.dropped delivery.dropped.no_local delivery.dropped.too_large
delivery.dropped.qos0_msg delivery.dropped.queue_full delivery.dropped.expired client.connect client.connack client.connected
client.authenticate client.auth.anonymous client.check_acl client.subscribe client.unsubscribe client.disconnected session.created
session.resumed session.takeovered session.discarded session.terminated""".split()
STATS = [f"{name}.{kind}" for name in """connections channels sessions topics suboptions subscribers subscriptions subscriptions.shared routes
retained""".split() for kind in ("count", "max")]


def quote(text):
    return urllib.parse.quote(text, safe="")


class EmqxApi(LabTest):
    CONFIG_TEXT = config() + MANAGEMENT.format(router=ROUTER_LAN, node=NODE)

    def ask(self, method, path, body=None, *, login="admin:not-public", prefix="/api/v4"):
        return self.daemon.manage(method, path, body, login, prefix=prefix)

    def data(self, path, **options):
        status, answer = self.ask("GET", path, **options)
        self.assertEqual((status, answer["code"]), (200, 0), answer)
        return answer["data"]

    def done(self, method, path, body=None):
        self.assertEqual(self.ask(method, path, body), (200, {"code": 0}))

    def failed(self, method, path, status, code, body=None, message=None):
        got, answer = self.ask(method, path, body)
        self.assertEqual((got, answer["code"]), (status, code), answer)
        self.assertIsInstance(answer["message"], str)
        if message:
            self.assertEqual(answer["message"], message)

    def subscriber(self, client_id, *arguments, user="ann", password="plain"):
        """A mosquitto_sub whose subscription is in force."""
        return self.subscribed("lan2", ROUTER_LAN, "-i", client_id, "-u", user, "-P", password, "-W", "30", "-F", "%t %q %p", *arguments)

    def publish(self, topic, user="ann", password="plain"):
        command = ("mosquitto_pub", "-V", "mqttv5", "-d", "-h", ROUTER_LAN, "-u", user, "-P", password, "-q", "1", "-t", topic, "-m", "x")
        return subprocess.run(("ip", "netns", "exec", self.lab.names["lan2"], *command), capture_output=True, text=True, timeout=10, check=False)

    def test_only_applications_come_in(self):
        for login in (None, "admin:wrong", "admin:public", "nobody:not-public", "admin:hidden", "ann:plain"):
            with self.subTest(login=login):
                self.assertEqual(self.ask("GET", "/brokers", login=login), (401, "UNAUTHORIZED"))
        headers = self.lab.ns("lan1", "curl", "-s", "-o", "/dev/null", "-D", "-", f"http://{ROUTER_LAN}:8081/api/v4/brokers")
        self.assertIn('WWW-Authenticate: Basic Realm="minirest-server"', headers)
        self.assertEqual(self.ask("GET", "/brokers", login="other:hidden")[0], 200)
        self.assertEqual(self.ask("GET", "/brokers", prefix="/api")[0], 200)

    def test_paths_methods_and_bodies_that_are_none(self):
        self.failed("GET", "/nothing", 404, 404)
        self.failed("PATCH", "/brokers", 405, 405)
        self.failed("GET", "/nodes/other@127.0.0.1/clients", 404, 404, message="Not found.")
        status, answer = self.ask("POST", "/mqtt/publish", body="{")
        self.assertEqual((status, answer["code"]), (400, 109))
        self.assertEqual(self.ask("GET", "/proxies", prefix="")[0], 404)
        self.assertEqual(self.ask("GET", "/brokers/")[0], 200)
        self.assertEqual(self.ask("GET", "", prefix="/status", login=None), (200, f"Node {NODE} is started\nemqx is running"))
        listed = {(route["method"], route["path"]) for route in self.data("")}
        self.assertIn(("GET", "/nodes/:name/clients/:name"), listed)

    def test_brokers_and_nodes(self):
        (broker,) = self.data("/brokers")
        self.assertEqual(set(broker), {"version", "sysdescr", "uptime", "datetime", "otp_release", "node_status", "node"})
        self.assertEqual(self.data(f"/brokers/{quote(NODE)}")["node"], NODE)
        self.assertRegex(broker["version"], r"^4\.\d+\.\d+$")
        self.assertRegex(broker["datetime"], DATE)
        self.assertRegex(broker["uptime"], r"^(\d+ days, )?(\d+ hours, )?(\d+ minutes, )?\d+ seconds$")
        (node,) = self.data("/nodes")
        kinds = {"node": str, "node_status": str, "version": str, "uptime": str, "otp_release": str, "load1": str, "load5": str, "load15": str,
                 "connections": int, "max_fds": int, "process_used": int, "process_available": int, "memory_total": str, "memory_used": str}
        for name, kind in kinds.items():
            self.assertIsInstance(node[name], kind, name)
        self.assertRegex(node["memory_total"], r"^\d+\.\d\d[KMG]$")
        self.assertIsInstance(self.data(f"/nodes/{NODE}")["memory_total"], int)

    def test_users_come_in_at_once_and_go_at_once(self):
        users = [{"login": "cam", "password": "public", "is_superuser": False}, {"login": "hub", "password": "x", "is_superuser": True}]
        self.assertEqual(self.ask("POST", "/auth_user", users), (200, {"code": 0, "data": {"cam": "ok", "hub": "ok"}}))
        again = self.ask("POST", "/auth_user", [users[0], {"login": "", "password": "x", "is_superuser": True}, {"login": "n", "is_superuser": True}])
        self.assertEqual(again[1]["data"], {"cam": "{error,existed}", "": "{error,login}", "n": "{error,password}"})
        status, listed = self.ask("GET", "/auth_user?_page=1&_limit=1")
        self.assertEqual(listed["meta"], {"page": 1, "limit": 1, "count": 2})
        hashed = "efa1f375d76194fa51a3556a97e641e61685f914d446979da50a551a4333ffd7"
        self.assertEqual(listed["data"], [{"login": "cam", "password": hashed, "is_superuser": False}])
        self.assertEqual(self.data("/auth_user/cam")["is_superuser"], False)
        self.assertEqual(self.data("/auth_user/nobody"), {})
        bystander = self.subscriber("bystander", "-t", "quiet")
        process = self.subscriber("camera", "-t", "a", user="cam", password="public")
        self.done("PUT", "/auth_user/cam", {"password": "new", "is_superuser": False})
        wait_for("its end", lambda: not self.data("/clients/camera") or not self.data("/clients/camera")[0]["connected"], 10)
        process.kill()
        self.assertIn("RC:0", self.publish("a", "cam", "new").stdout + "RC:0")
        self.assertNotEqual(self.publish("a", "cam", "public").returncode, 0)
        self.assertEqual(self.publish("a", "cam", "new").returncode, 0)
        self.failed("PUT", "/auth_user/nobody", 404, 105, {"password": "x", "is_superuser": False}, "noexisted")
        self.failed("PUT", "/auth_user/cam", 400, 108, {"password": "x"}, "is_superuser")
        self.failed("POST", "/auth_user", 400, 107, [])
        for login in ("cam", "hub", "nobody"):
            self.done("DELETE", f"/auth_user/{login}")
        self.assertNotEqual(self.publish("a", "cam", "new").returncode, 0)
        self.assertTrue(self.data("/clients/bystander")[0]["connected"])
        self.assertIsNone(bystander.poll())

    def test_rules_hold_for_living_sessions(self):
        holder = self.subscriber("holder", "-t", "secret/door", "-t", "plain")
        rows = [{"login": "ann", "topic": "secret/#", "action": "pubsub", "allow": False}, {"login": "$all", "topic": "t", "action": "pub", "allow": True}]
        self.assertEqual(self.ask("POST", "/emqx_acl", rows), (200, {"code": 0, "data": {"ann": "ok", "$all": "ok"}}))
        topics = lambda: {row["topic"] for row in self.data("/subscriptions/holder")}
        wait_for("the subscription's end", lambda: topics() == {"plain"}, 10)
        self.assertIsNone(holder.poll())
        self.assertIn("RC:135", self.publish("secret/door").stdout)
        status, listed = self.ask("GET", "/emqx_acl")
        self.assertEqual(listed["meta"], {"page": 1, "limit": 10000, "count": 2})
        self.assertIn(rows[0], listed["data"])
        self.assertEqual(self.data("/emqx_acl/ann"), rows[0])
        self.assertEqual(self.data("/emqx_acl/nobody"), {})
        bad = [{"login": "x", "topic": "a/#/b", "action": "pub", "allow": True}, {"login": "y", "topic": "a", "action": "all", "allow": True}]
        self.assertEqual(self.ask("POST", "/emqx_acl", bad)[1]["data"], {"x": "{error,topic}", "y": "{error,action}"})
        self.done("DELETE", f"/emqx_acl/ann/{quote('secret/#')}")
        self.done("DELETE", "/emqx_acl/$all/t")
        self.assertEqual(self.ask("GET", "/emqx_acl")[1]["meta"]["count"], 0)
        self.assertNotIn("RC:135", self.publish("secret/door").stdout)

    def test_clients_are_found_and_kicked(self):
        first = self.subscriber("finder-1", "-t", "f/1", "-k", "40")
        second = self.subscriber("finder-2", "-t", "f/2", "-V", "mqttv5", "-x", "100", "-c")
        status, answer = self.ask("GET", "/clients?_like_clientid=finder&_limit=1")
        self.assertEqual(answer["meta"], {"page": 1, "limit": 1, "count": -1, "hasnext": True})
        self.assertEqual(self.ask("GET", "/clients?clientid=finder-1")[1]["meta"]["count"], -1)
        status, answer = self.ask("GET", "/clients")
        self.assertEqual(answer["meta"]["count"], len(answer["data"]))
        (client,) = self.data("/clients/finder-1")
        for name, kind in CLIENT_FIELDS.items():
            self.assertIsInstance(client[name], kind, name)
        self.assertEqual(set(client), set(CLIENT_FIELDS))
        expect = {"username": "ann", "proto_name": "MQTT", "proto_ver": 4, "ip_address": "192.168.77.12", "keepalive": 40, "connected": True,
                  "clean_start": True, "expiry_interval": 0, "subscriptions_cnt": 1, "zone": "external", "node": NODE}
        self.assertEqual({name: client[name] for name in expect}, expect)
        self.assertEqual(self.data("/clients/finder-2")[0]["expiry_interval"], 100)
        names = lambda query: {row["clientid"] for row in self.data(f"/clients?{query}")}
        now = int(time.time())
        for query, found in (("clientid=finder-2", {"finder-2"}), ("username=nobody", set()), ("proto_ver=5&_like_clientid=finder", {"finder-2"}),
                             ("ip_address=192.168.77.12&_like_clientid=finder", {"finder-1", "finder-2"}), ("ip_address=192.168.77.11", set()),
                             ("conn_state=disconnected&_like_clientid=finder", set()), ("clean_start=false&_like_clientid=finder", {"finder-2"}),
                             (f"_gte_connected_at={now - 60}&_like_clientid=finder", {"finder-1", "finder-2"}), (f"_gte_connected_at={now + 60}", set()),
                             (f"_lte_created_at={now + 60}&_like_username=an&clientid=finder-1", {"finder-1"}), ("zone=internal", set()),
                             ("proto_name=MQIsdp", set())):
            with self.subTest(query=query):
                self.assertEqual(names(query), found)
        self.failed("GET", "/clients?proto_ver=x", 400, 108)
        self.failed("GET", "/clients?_page=x", 400, 108)
        self.assertEqual(self.data("/clients/nobody"), [])
        self.assertEqual({row["clientid"] for row in self.data("/clients/username/ann")} & {"finder-1", "finder-2"}, {"finder-1", "finder-2"})
        for path in (f"/nodes/{NODE}/clients/finder-1", f"/nodes/{quote(NODE)}/clients?clientid=finder-1"):
            self.assertEqual([row["clientid"] for row in self.data(path)], ["finder-1"])
        self.assertEqual(self.data(f"/nodes/{NODE}/clients/username/nobody"), [])
        self.done("PUT", "/clients/finder-1/keepalive", {"interval": 50})
        self.assertEqual(self.data("/clients/finder-1")[0]["keepalive"], 50)
        self.failed("PUT", "/clients/finder-1/keepalive", 400, 107, {})
        first.kill()
        # Of MQTT 5: told why, it does not come back; and its session, which would live on, is gone.
        self.done("DELETE", "/clients/finder-2")
        self.assertEqual(self.data("/clients/finder-2"), [])
        second.wait(timeout=5)
        self.failed("DELETE", "/clients/finder-2", 404, 112, message="not_found")

    def test_decisions_are_shown_and_forgotten(self):
        self.subscriber("cached", "-t", "open/x")
        (decision,) = self.data("/clients/cached/acl_cache")
        self.assertEqual({k: decision[k] for k in ("access", "topic", "result")}, {"access": "subscribe", "topic": "open/x", "result": "allow"})
        self.assertLess(abs(decision["updated_time"] / 1000 - time.time()), 60)
        self.done("DELETE", "/clients/cached/acl_cache")
        self.assertEqual(self.data("/clients/cached/acl_cache"), [])
        self.failed("GET", "/clients/none/acl_cache", 404, 112, message="not_found")
        self.failed("DELETE", "/clients/none/acl_cache", 404, 112)
        self.done("DELETE", "/acl-cache")

    def test_subscriptions_and_routes(self):
        self.subscriber("subs", "-q", "1", "-t", "s/+/x", "-t", "$share/group/s/y")
        rows = self.data("/subscriptions/subs")
        self.assertIn({"node": NODE, "clientid": "subs", "topic": "s/+/x", "qos": 1}, rows)
        self.assertIn({"node": NODE, "clientid": "subs", "topic": "$share/group/s/y", "qos": 1}, rows)
        self.assertEqual(self.data(f"/nodes/{NODE}/subscriptions/subs"), rows)
        self.assertEqual(self.data("/subscriptions/nobody"), [])
        found = lambda query: {row["topic"] for row in self.data(f"/subscriptions?clientid=subs&{query}")}
        for query, topics in (("qos=1", {"s/+/x", "$share/group/s/y"}), ("qos=2", set()), ("share=group", {"$share/group/s/y"}),
                              ("topic=s%2F%2B%2Fx", {"s/+/x"}), ("topic=s/y", {"$share/group/s/y"}), ("_match_topic=s%2F%23", {"s/+/x", "$share/group/s/y"}),
                              ("_match_topic=z/%23", set())):
            with self.subTest(query=query):
                self.assertEqual(found(query), topics)
        self.failed("GET", "/subscriptions?qos=3", 400, 108)
        status, answer = self.ask("GET", f"/nodes/{NODE}/subscriptions?_limit=1")
        self.assertEqual((len(answer["data"]), answer["meta"]["hasnext"]), (1, True))
        self.assertEqual(self.data("/routes/s%2F%2B%2Fx"), [{"topic": "s/+/x", "node": NODE}])
        self.assertEqual(self.data("/routes/none"), [])
        status, answer = self.ask("GET", "/routes")
        self.assertEqual(answer["meta"]["count"], len(answer["data"]))
        self.assertIn({"topic": "s/y", "node": NODE}, answer["data"])

    def test_publishing_from_outside(self):
        process = self.subscriber("reader", "-q", "2", "-t", "p/#", "-C", "6")
        self.done("POST", "/mqtt/publish", {"topic": "p/a", "clientid": "api", "payload": "Hello", "qos": 1, "retain": False})
        self.done("POST", "/mqtt/publish", {"topics": "p/b,p/#,p/c", "payload": {"n": 1}, "clientid": "api"})
        self.done("POST", "/mqtt/publish", {"topic": "p/d", "payload": "aGk=", "encoding": "base64", "qos": 2})
        batch = [{"topic": "p/e", "payload": "1", "clientid": "x"}, {"topic": "+", "clientid": "x"}, {"topic": "p/f", "qos": 3}, {"topics": "p/g", "payload": "2"}]
        status, answer = self.ask("POST", "/mqtt/publish_batch", batch)
        self.assertEqual((status, [(item["topic"], item["code"]) for item in answer["data"]]), (200, [("p/e", 0), ("+", 115), ("p/f", 108), ("p/g", 0)]))
        self.assertEqual(self.lines(process), ["p/a 1 Hello", 'p/b 0 {"n":1}', 'p/c 0 {"n":1}', "p/d 2 hi", "p/e 0 1", "p/g 0 2"])
        for body in ({"topic": "+"}, {"topic": ""}, {}, {"topics": "#,+"}):
            self.failed("POST", "/mqtt/publish", 400, 115, body, "bad_topic")
        for body in ({"topic": "a", "qos": 3}, {"topic": "a", "payload": "?", "encoding": "base64"}, {"topic": "a", "clientid": 1}, {"topic": "a", "retain": 1}):
            self.failed("POST", "/mqtt/publish", 400, 108, body)
        self.done("POST", "/mqtt/publish", {"topic": "kept", "payload": "here", "retain": True})
        waiting = self.subscriber("later", "-t", "kept", "-C", "1")
        self.assertEqual(self.lines(waiting), ["kept 0 here"])

    def test_clients_are_subscribed_from_outside(self):
        process = self.subscriber("passive", "-t", "own", "-C", "3")
        self.done("POST", "/mqtt/subscribe", {"topics": "given/1,given/2", "qos": 1, "clientid": "passive"})
        self.assertEqual({row["topic"] for row in self.data("/subscriptions/passive")}, {"own", "given/1", "given/2"})
        self.done("POST", "/mqtt/unsubscribe", {"topic": "given/2", "clientid": "passive"})
        batch = [{"topic": "given/3", "clientid": "passive"}, {"topic": "a", "clientid": "nobody"}]
        status, answer = self.ask("POST", "/mqtt/subscribe_batch", batch)
        self.assertEqual([(item["clientid"], item["topic"], item["code"]) for item in answer["data"]], [("passive", "given/3", 0), ("nobody", "a", 112)])
        status, answer = self.ask("POST", "/mqtt/unsubscribe_batch", batch)
        self.assertEqual([item["code"] for item in answer["data"]], [0, 112])
        for topic in ("given/1", "given/2", "given/3", "given/1", "own"):
            self.done("POST", "/mqtt/publish", {"topic": topic, "payload": "x"})
        self.assertEqual(self.lines(process), ["given/1 0 x", "given/1 0 x", "own 0 x"])
        self.failed("POST", "/mqtt/subscribe", 404, 112, {"topic": "a", "clientid": "nobody"}, "channel_not_found")
        self.failed("POST", "/mqtt/subscribe", 400, 115, {"topic": "a/#/b", "clientid": "nobody"})
        self.failed("POST", "/mqtt/subscribe", 400, 116, {"topic": "a", "qos": 7, "clientid": "nobody"})
        self.failed("POST", "/mqtt/unsubscribe", 404, 112, {"topic": "a", "clientid": "nobody"})

    def test_listeners_metrics_and_stats(self):
        self.subscriber("counted", "-t", "c")
        (node,) = self.data("/listeners")
        self.assertEqual((node["node"], node["listeners"]), (NODE, self.data(f"/nodes/{NODE}/listeners")))
        (listener,) = [one for one in node["listeners"] if one["protocol"] == "mqtt:tcp"]
        self.assertEqual((listener["listen_on"], listener["max_conns"]), (f"{ROUTER_LAN}:1883", 100))
        self.assertGreaterEqual(listener["current_conns"], 1)
        (node,) = self.data("/metrics")
        self.assertEqual([name for name in METRICS if name not in node["metrics"]], [])
        of_node = self.data(f"/nodes/{NODE}/metrics")
        self.assertGreaterEqual(of_node["client.connected"], 1)
        self.assertGreater(of_node["bytes.received"], 0)
        (node,) = self.data("/stats")
        self.assertEqual([name for name in STATS if name not in node["stats"]], [])
        of_node = self.data(f"/nodes/{NODE}/stats")
        self.assertGreaterEqual(of_node["connections.count"], 1)
        self.assertGreaterEqual(of_node["connections.max"], of_node["connections.count"])

    def test_who_is_banned_stays_out(self):
        process = self.subscriber("outcast", "-t", "x")
        status, answer = self.ask("POST", "/banned", {"who": "outcast", "as": "clientid", "reason": "noisy"})
        self.assertEqual((status, answer["code"]), (200, 0))
        self.assertEqual((answer["data"]["by"], answer["data"]["until"] - answer["data"]["at"]), ("user", 300))
        wait_for("its end", lambda: not any(row["connected"] for row in self.data("/clients/outcast")), 10)
        process.kill()
        self.assertIn(answer["data"], self.data("/banned"))
        self.failed("POST", "/banned", 400, 107, {"who": "x"}, "missing mandatory params: ['who', 'as']")
        self.failed("POST", "/banned", 400, 108, {"who": "x", "as": "colour"})
        self.done("DELETE", "/banned/clientid/outcast")
        self.assertEqual(self.data("/banned"), [])
        self.subscriber("outcast", "-t", "x")


class Shared(LabTest):
    """Without a listener of its own the API is the controller's; with `status-style: emqx` failures are 200."""

    CONFIG_TEXT = config() + "\nmqtt: {allow-anonymous: true}\nmanagement: {status-style: emqx}\n"

    def test_the_controller_serves_it_and_the_secret_is_made(self):
        secret = (pathlib.Path(self.daemon.directory) / "management.secret").read_text().strip()
        ask = lambda login, path: self.daemon.manage("GET", path, login=login, at=f"{ROUTER_LAN}:9090")
        self.assertEqual(ask(f"admin:{secret}", "/brokers")[1]["code"], 0)
        self.assertEqual(ask("admin:public", "/brokers"), (401, "UNAUTHORIZED"))
        self.assertEqual(ask(f"admin:{secret}", "/clients/none/acl_cache"), (200, {"code": 112, "message": "not_found"}))
        self.assertEqual(self.daemon.api("GET", "/version")[0], 200)
        mode = (pathlib.Path(self.daemon.directory) / "management.secret").stat().st_mode
        self.assertEqual(mode & 0o777, 0o600)
