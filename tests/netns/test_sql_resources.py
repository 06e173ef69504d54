"""SQL rules that reach out: a real HTTP sink and a real mosquitto on the Internet, resources by the EMQX API."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

from lab import DIRECT, ROUTER_LAN, Daemon, LabTest, config, run, wait_for

EXTRA = """
mqtt:
  listeners:
    - {{name: tcp, type: tcp, listen: {router}:1883}}
  allow-anonymous: true
management:
  listen: {router}:8081
  node: emqx@127.0.0.1
  applications: [{{id: panel, secret: public}}]
rule-engine:
  webhook-allow: ["direct.test:9910", inside.test, "5.5.5.0/24"]
"""

SINK = """
import http.server, json, pathlib, sys
place = pathlib.Path(sys.argv[3])
class Sink(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        with place.open("a") as log:
            log.write(json.dumps({"method": self.command, "path": self.path, "headers": dict(self.headers), "body": body.decode(), "port": self.client_address[1]}) + "\\n")
        flag = pathlib.Path(str(place) + ".status")
        self.send_response(int(flag.read_text()) if flag.exists() else 200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    do_POST = do_PUT = do_GET = do_DELETE = answer
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Sink).serve_forever()
"""


class SqlResources(LabTest):
    CONFIG_TEXT = config() + EXTRA.format(router=ROUTER_LAN)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.got = cls.lab.directory / "hooks"
        cls.lab.spawn("wan", sys.executable, "-c", SINK, DIRECT, "9910", str(cls.got))
        wait_for("the sink", lambda: f"{DIRECT}:9910" in cls.lab.ns("wan", "ss", "-lnt"))
        authority = cls.lab.authority()
        authority.sign("server", f"subjectAltName=IP:{DIRECT}")
        authority.sign("client", "extendedKeyUsage=clientAuth")
        cls.ours = authority.place
        # One that listens where no hook may go.
        cls.inside = cls.lab.directory / "inside"
        cls.lab.spawn("gw", sys.executable, "-c", SINK, "127.0.0.1", "9911", str(cls.inside))
        wait_for("the inner sink", lambda: "127.0.0.1:9911" in cls.lab.ns("gw", "ss", "-lnt"))

    def setUp(self):
        self.got.write_text("")
        status = self.got.with_name("hooks.status")
        status.unlink(missing_ok=True)

    def ask(self, method, path, body=None):
        return self.daemon.manage(method, path, body)

    def made(self, path, body):
        status, answer = self.ask("POST", path, body)
        self.assertEqual((status, answer["code"]), (200, 0), answer)
        self.addCleanup(self.ask, "DELETE", f"{path}/{answer['data']['id']}")
        return answer["data"]

    def hook(self, url=f"http://{DIRECT}:9910/in", **more):
        return self.made("/resources", {"type": "web_hook", "config": {"url": url, **more}})["id"]

    def rule(self, sql, *actions):
        return self.made("/rules", {"rawsql": sql, "actions": list(actions)})["id"]

    def metrics(self, rule):
        data = self.ask("GET", f"/rules/{rule}")[1]["data"]
        return [action["metrics"][0] for action in data["actions"]]

    def publish(self, topic, payload, *arguments):
        self.lab.ns("lan1", "mosquitto_pub", "-h", ROUTER_LAN, "-t", topic, "-m", payload, *arguments)

    def requests(self):
        return [json.loads(line) for line in self.got.read_text().splitlines()]

    def alive(self, resource):
        return self.ask("GET", f"/resource_status/{resource}")[1]["data"]["is_alive"]

    def test_types_show_their_parameters_in_both_languages(self):
        types = {one["name"]: one for one in self.ask("GET", "/resource_types")[1]["data"]}
        self.assertEqual(set(types), {"web_hook", "bridge_mqtt"})
        hook = self.ask("GET", "/resource_types/web_hook")[1]["data"]
        self.assertEqual(hook, types["web_hook"])
        for one in types.values():
            self.assertEqual(set(one), {"name", "provider", "params", "title", "description"})
            for param in one["params"].values():
                self.assertEqual({"en", "zh"}, set(param["title"]))
        url = hook["params"]["url"]
        self.assertEqual((url["order"], url["type"], url["required"], url["format"]), (1, "string", True, "url"))
        self.assertEqual(types["bridge_mqtt"]["params"]["proto_ver"]["enum"], ["mqttv3", "mqttv4", "mqttv5"])
        self.assertEqual(self.ask("GET", "/resource_types/mysql")[0], 404)
        actions = {one["name"]: one["types"] for one in self.ask("GET", "/actions")[1]["data"]}
        self.assertEqual((actions["data_to_webserver"], actions["data_to_mqtt_broker"]), (["web_hook"], ["bridge_mqtt"]))

    def test_the_documents_resource(self):
        asked = {"type": "web_hook", "config": {"url": "http://127.0.0.1:9910", "headers": {"token": "axfw34y235wrq234t4ersgw4t"}, "method": "POST"},
                 "description": "web hook resource-1"}
        made = self.made("/resources", asked)
        self.assertRegex(made["id"], r"^resource:[0-9a-f]{8}$")
        self.assertEqual({key: made[key] for key in ("type", "description")}, {"type": "web_hook", "description": "web hook resource-1"})
        self.assertEqual(made["config"] | asked["config"], made["config"])
        shown = self.ask("GET", f"/resources/{made['id']}")[1]["data"]
        self.assertEqual(shown["status"], [{"node": "emqx@127.0.0.1", "is_alive": False}])
        listed = self.ask("GET", "/resources")[1]["data"]
        self.assertEqual([(one["id"], one["status"]) for one in listed], [(made["id"], False)])
        self.assertEqual(self.ask("GET", "/resource_types/web_hook/resources")[1]["data"], listed)
        self.assertEqual(self.ask("GET", "/resource_types/bridge_mqtt/resources")[1]["data"], [])
        self.assertEqual(self.ask("DELETE", f"/resources/{made['id']}"), (200, {"code": 0}))
        self.assertEqual(self.ask("DELETE", f"/resources/{made['id']}"), (200, {"code": 0}))
        self.assertEqual(self.ask("GET", f"/resources/{made['id']}")[0], 404)
        status, answer = self.ask("POST", "/resources", {"type": "mysql", "config": {}})
        self.assertEqual((status, answer), (400, {"code": 400, "message": "Resource Type mysql Not Found"}))

    def test_a_hook_gets_what_the_rule_says(self):
        resource = self.hook(headers={"token": "t1"})
        rule = self.rule('SELECT payload.temp AS t, clientid FROM "room/+" WHERE t > 30', {
            "name": "data_to_webserver",
            "params": {"$resource": resource, "path": "/temp/${clientid}?t=${t}", "headers": {"X_Temp": "${t}"}, "body": '{"hot": ${t}}'}})
        wait_for("the hook", lambda: self.alive(resource))
        self.publish("room/1", '{"temp": 31}', "-i", "a b")
        self.publish("room/1", '{"temp": 32}', "-i", "c")
        self.publish("room/1", '{"temp": 3}')
        wait_for("two requests", lambda: len(self.requests()) == 2)
        first, second = sorted(self.requests(), key=lambda one: one["path"])
        self.assertEqual((first["method"], first["path"], first["body"]), ("POST", "/in/temp/a%20b?t=31", '{"hot": 31}'))
        self.assertEqual((second["path"], second["headers"]["x-temp"]), ("/in/temp/c?t=32", "32"))
        self.assertEqual((first["headers"]["token"], first["headers"]["content-type"]), ("t1", "application/json"))
        wait_for("the count", lambda: self.metrics(rule)[0]["success"] == 2)
        self.assertEqual(self.metrics(rule)[0]["failed"], 0)
        status, answer = self.ask("DELETE", f"/resources/{resource}")
        self.assertEqual(status, 400)
        self.assertIn(rule, answer["message"])
        self.assertEqual(self.ask("POST", "/rules", {"rawsql": 'SELECT * FROM "a"', "actions": [
            {"name": "data_to_webserver", "params": {"$resource": "resource:none"}}]}), (400, {"code": 400, "message": "Resource resource:none Not Found"}))

    def test_a_refusal_runs_the_fallback_and_errors_are_retried(self):
        resource = self.hook(f"http://direct.test:9910")
        fallback = {"name": "republish", "params": {"target_topic": "failed/${n}", "target_qos": 1, "payload_tmpl": "${n}"}}
        rule = self.rule('SELECT payload.n AS n FROM "job"', {"name": "data_to_webserver", "params": {"$resource": resource}, "fallbacks": [fallback]})
        wait_for("the hook", lambda: self.alive(resource))
        heard = self.lab.spawn("lan2", "stdbuf", "-oL", "mosquitto_sub", "-d", "-h", ROUTER_LAN, "-t", "failed/#", "-C", "1", "-W", "15", "-F", "%t %p",
                               stdout=subprocess.PIPE, text=True)
        next(line for line in heard.stdout if line.startswith("Subscribed"))
        status = self.got.with_name("hooks.status")
        status.write_text("400")
        self.publish("job", '{"n": 1}')
        self.assertIn("failed/1 1\n", heard.stdout.readlines())
        self.assertEqual(len(self.requests()), 1)
        self.assertEqual([self.metrics(rule)[0][key] for key in ("taken", "success", "failed")], [1, 0, 1])
        # A server that is too busy is asked again until it is not.
        status.write_text("503")
        self.publish("job", '{"n": 2}')
        wait_for("a second try", lambda: len(self.requests()) == 3)
        status.unlink()
        wait_for("its success", lambda: self.metrics(rule)[0]["success"] == 1)

    def test_hooks_go_nowhere_but_to_the_list(self):
        for url in ("http://127.0.0.1:9911", f"http://{ROUTER_LAN}:8081/api/v4/rules", "http://[::1]:9911", "http://proxied.test", "http://0.0.0.0:9911"):
            with self.subTest(url=url):
                status, answer = self.ask("POST", "/resources?test=true", {"type": "web_hook", "config": {"url": url}})
                self.assertEqual((status, answer["code"]), (500, 500))
                self.assertIn("is not in rule-engine.webhook-allow", answer["message"])
        # A name of the list that leads to the router itself.
        resource = self.hook("http://inside.test:9911")
        rule = self.rule('SELECT * FROM "inside"', {"name": "data_to_webserver", "params": {"$resource": resource}})
        self.publish("inside", "x")
        wait_for("its failure", lambda: self.metrics(rule)[0]["failed"] == 1)
        self.assertFalse(self.inside.exists())
        self.assertFalse(self.alive(resource))
        self.assertEqual(self.ask("POST", "/resources?test=true", {"type": "web_hook", "config": {"url": f"http://{DIRECT}:9910"}}), (200, {"code": 0}))

    def test_a_dead_hook_slows_no_publisher(self):
        # Nobody has this address: connections wait until they time out.
        resource = self.hook("http://5.5.5.99:9910", connect_timeout="2s")
        rule = self.rule('SELECT * FROM "flood"', {"name": "data_to_webserver", "params": {"$resource": resource}})
        began = time.monotonic()
        self.lab.ns("lan1", "mosquitto_pub", "-h", ROUTER_LAN, "-t", "flood", "-q", "1", "-l", input="x\n" * 2000, timeout=30)
        took = time.monotonic() - began
        self.assertLess(took, 15)
        wait_for("all of them", lambda: self.metrics(rule)[0]["taken"] == 2000)
        # The queue holds 256; the others failed at once.
        self.assertGreaterEqual(self.metrics(rule)[0]["failed"], 2000 - 256 - 2)

    def alarms(self, kind="activated"):
        return {alarm["name"]: alarm for alarm in self.ask("GET", f"/alarms/{kind}")[1]["data"][0]["alarms"]}

    def test_fallbacks_that_act_too_often_are_cut_and_raise_an_alarm(self):
        resource = self.hook()
        fallback = {"name": "run_healthcheck", "params": {"group": "none"}}
        rule = self.rule('SELECT payload.n AS n FROM "often"', {"name": "data_to_webserver", "params": {"$resource": resource}, "fallbacks": [fallback]})
        wait_for("the hook", lambda: self.alive(resource))
        self.got.with_name("hooks.status").write_text("400")
        # Ten at once and two a second (ACT_RATE).
        self.lab.ns("lan1", "mosquitto_pub", "-h", ROUTER_LAN, "-t", "often", "-l", "-q", "1", input='{"n": 1}\n' * 500)
        wait_for("the alarm", lambda: f"rule/{rule}/cut" in self.alarms())

    def test_a_resource_that_is_down_raises_an_alarm_until_it_answers(self):
        # Nobody listens there yet.
        hook = self.hook(f"http://{DIRECT}:9912")
        bridge = self.bridge(1886)
        names = [f"resource/web_hook/{hook}/down", f"resource/bridge_mqtt/{bridge}/down"]
        wait_for("both alarms", lambda: set(names) <= set(self.alarms()))
        self.assertEqual(self.alarms()[names[0]]["details"]["resource"], hook)
        self.broker(1886)
        wait_for("the bridge", lambda: names[1] in self.alarms("deactivated"))
        # A hook that leads elsewhere is another: the alarm begins anew, or not at all.
        self.assertEqual(self.ask("PUT", f"/resources/{hook}", {"config": {"url": f"http://{DIRECT}:9910"}}), (200, {"code": 0}))
        wait_for("the hook", lambda: self.alive(hook))
        self.assertIn(names[0], self.alarms("deactivated"))
        self.assertEqual([name for name in names if name in self.alarms()], [])
        # A trial is nobody's resource.
        self.assertEqual(self.ask("POST", "/resources?test=true", {"type": "web_hook", "config": {"url": f"http://{DIRECT}:9912"}})[0], 500)
        self.assertEqual([name for name in self.alarms() if "00000000" in name], [])

    def broker(self, port, *lines):
        file = self.lab.directory / f"mosquitto-{port}.conf"
        file.write_text("\n".join(("allow_anonymous true", "user root", f"listener {port} {DIRECT}", *lines)) + "\n")
        process = self.lab.spawn("wan", "mosquitto", "-c", str(file), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(process.kill)
        wait_for("mosquitto", lambda: f"{DIRECT}:{port}" in self.lab.ns("wan", "ss", "-lnt"))
        return process

    def listen(self, port, count, *arguments):
        heard = self.lab.spawn("wan", "stdbuf", "-oL", "mosquitto_sub", "-d", "-h", DIRECT, "-p", str(port), "-t", "up/#", "-q", "2", "-C", str(count),
                               "-W", "25", "-F", "%t %q %p", *arguments, stdout=subprocess.PIPE, text=True)
        next(line for line in heard.stdout if line.startswith("Subscribed"))
        return lambda: [line.strip() for line in heard.stdout if line.startswith("up/")]

    def bridge(self, port, **more):
        shared = {"address": f"{DIRECT}:{port}", "mountpoint": "up/${node}/", "reconnect_interval": "1s"}
        resource = self.made("/resources", {"type": "bridge_mqtt", "config": shared | more})["id"]
        self.rule('SELECT payload FROM "out/#"', {"name": "data_to_mqtt_broker", "params": {"$resource": resource, "payload_tmpl": "<${payload}>"}})
        return resource

    def test_messages_reach_a_foreign_broker_in_every_quality_and_version(self):
        self.broker(1884)
        for version in ("mqttv3", "mqttv4", "mqttv5"):
            with self.subTest(version=version):
                resource = self.bridge(1884, proto_ver=version, bridge_mode=version != "mqttv5")
                heard = self.listen(1884, 3)
                wait_for("the bridge", lambda: self.alive(resource))
                for qos in range(3):
                    self.publish(f"out/{qos}", str(qos), "-q", str(qos))
                self.assertEqual(heard(), [f"up/emqx@127.0.0.1/out/{qos} {qos} <{qos}>" for qos in range(3)])
                self.doCleanups()
                self.broker(1884)

    def test_what_comes_while_the_broker_is_away_arrives_later(self):
        process = self.broker(1885)
        resource = self.bridge(1885)
        wait_for("the bridge", lambda: self.alive(resource))
        process.kill()
        process.wait()
        wait_for("the end of the bridge", lambda: not self.alive(resource))
        for number in range(20):
            self.publish("out/x", str(number), "-q", "1")
        self.broker(1885)
        heard = self.listen(1885, 20)
        got = heard()
        # What the bridge sent before we listened is lost to us, not to the broker.
        self.assertEqual(got, [f"up/emqx@127.0.0.1/out/x 1 <{n}>" for n in range(20 - len(got), 20)])
        wait_for("the bridge again", lambda: self.alive(resource))

    def test_a_broker_behind_tls(self):
        certificate, key = self.lab.directory / "leaf.pem", self.lab.directory / "key.pem"
        os.chmod(key, 0o644)
        self.broker(8884, f"certfile {certificate}", f"keyfile {key}")
        unverified = self.bridge(8884, ssl=True, verify=False)
        verified = self.made("/resources", {"type": "bridge_mqtt", "config": {"address": f"{DIRECT}:8884", "ssl": True, "mountpoint": ""}})["id"]
        heard = self.listen(8884, 1, "--cafile", str(certificate), "--insecure")
        wait_for("the bridge", lambda: self.alive(unverified))
        self.publish("out/tls", "secret", "-q", "1")
        self.assertEqual(heard(), ["up/emqx@127.0.0.1/out/tls 1 <secret>"])
        self.assertFalse(self.alive(verified))
        suites = "AES256-SHA,ECDHE-RSA-AES256-GCM-SHA384,ECDHE-ECDSA-AES256-GCM-SHA384"
        restricted = self.bridge(8884, ssl=True, verify=False, ciphers=suites)
        wait_for("the bridge of few suites", lambda: self.alive(restricted))
        status, answer = self.ask("POST", "/resources", {"type": "bridge_mqtt", "config": {"address": f"{DIRECT}:8884", "ssl": True, "ciphers": "AES256-SHA"}})
        self.assertEqual(status, 400)
        self.assertIn("config.ciphers, none of which is spoken", answer["message"])
        status, answer = self.ask("POST", "/resources?test=true", {"type": "bridge_mqtt", "config": {"address": f"{DIRECT}:8884", "ssl": True}})
        self.assertEqual(status, 500)
        self.assertIn("certificate", answer["message"])

    def test_a_broker_that_wants_a_certificate_of_ours(self):
        ours = self.ours
        self.broker(8885, f"cafile {ours}/ca.pem", f"certfile {ours}/server.pem", f"keyfile {ours}/server.key", "require_certificate true", "use_identity_as_username true")
        # Files of the working directory, by name and by path; and PEM as it stands.
        home = pathlib.Path(self.daemon.directory)
        for name in ("ca.pem", "client.pem", "client.key"):
            shutil.copy(ours / name, home / name)
        as_text = lambda name: {"filename": name, "file": (ours / name).read_text()}
        for files in ({"cacertfile": "ca.pem", "certfile": "client.pem", "keyfile": str(home / "client.key")},
                      {"cacertfile": as_text("ca.pem"), "certfile": (ours / "client.pem").read_text(), "keyfile": as_text("client.key")}):
            resource = self.bridge(8885, ssl=True, **files)
            heard = self.listen(8885, 1, "--cafile", str(ours / "ca.pem"), "--cert", str(ours / "client.pem"), "--key", str(ours / "client.key"))
            wait_for("the bridge", lambda: self.alive(resource))
            self.publish("out/ours", "x", "-q", "1")
            self.assertEqual(heard(), ["up/emqx@127.0.0.1/out/ours 1 <x>"])
        # Without the certificate, and without the CA, there is no connection.
        for files in ({"cacertfile": "ca.pem"}, {"certfile": "client.pem", "keyfile": "client.key"}):
            status, answer = self.ask("POST", "/resources?test=true", {"type": "bridge_mqtt", "config": {"address": f"{DIRECT}:8885", "ssl": True, **files}})
            self.assertEqual(status, 500, answer)

    def test_files_of_resources_lie_in_the_working_directory(self):
        (self.lab.directory / "outside.pem").write_text("-----BEGIN CERTIFICATE-----")
        home = pathlib.Path(self.daemon.directory)
        os.symlink("/etc/ssl/certs/ca-certificates.crt", home / "link.pem")
        for name in ("/etc/shadow", str(self.lab.directory / "outside.pem"), "../outside.pem", "link.pem", "none.pem", "/proc/self/environ"):
            status, answer = self.ask("POST", "/resources", {"type": "web_hook", "config": {"url": f"https://{DIRECT}:9910", "cacertfile": name}})
            self.assertEqual((status, answer["message"]), (400, "Bad Arguments: config.cacertfile is not as it must be"), name)

    def test_a_hook_by_https_with_a_certificate_of_ours(self):
        ours = self.ours
        got = self.lab.directory / "https"
        got.write_text("")
        wrapped = SINK.replace("http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Sink).serve_forever()", f"""
import ssl
server = http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Sink)
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile="{ours}/ca.pem")
context.verify_mode = ssl.CERT_REQUIRED
context.load_cert_chain("{ours}/server.pem", "{ours}/server.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
""")
        self.lab.spawn("wan", sys.executable, "-c", wrapped, DIRECT, "9913", str(got), stderr=subprocess.DEVNULL)
        wait_for("the sink", lambda: f"{DIRECT}:9913" in self.lab.ns("wan", "ss", "-lnt"))
        pem = {f"{key}file": (ours / name).read_text() for key, name in (("cacert", "ca.pem"), ("cert", "client.pem"), ("key", "client.key"))}
        resource = self.hook(f"https://{DIRECT}:9913/s", **pem)
        self.rule('SELECT payload FROM "tls"', {"name": "data_to_webserver", "params": {"$resource": resource, "payload_tmpl": "${payload}"}})
        wait_for("the hook", lambda: self.alive(resource))
        self.publish("tls", "hello")
        wait_for("the request", lambda: got.read_text())
        self.assertEqual(json.loads(got.read_text())["body"], "hello")
        bad = self.ask("POST", "/resources?test=true", {"type": "web_hook", "config": {"url": f"https://{DIRECT}:9913/s"}})
        self.assertEqual(bad[0], 500)

    def test_resources_survive_a_restart(self):
        directory = self.lab.directory / "again"
        directory.mkdir()
        text = "mixed-port: 0\n" + EXTRA.format(router="127.0.0.5")
        daemon = Daemon(self.lab, text, directory).start()

        def ask(method, path, body=None):
            return daemon.manage(method, path, body, where="gw", at="127.0.0.5:8081")[1]

        hook = ask("POST", "/resources", {"type": "web_hook", "config": {"url": f"http://{DIRECT}:9910/again"}})["data"]
        ask("POST", "/rules", {"rawsql": 'SELECT * FROM "again"', "actions": [{"name": "data_to_webserver", "params": {"$resource": hook["id"], "payload_tmpl": "${payload}"}}]})
        daemon.stop()
        daemon.start()
        self.addCleanup(daemon.stop)
        self.assertEqual(ask("GET", f"/resources/{hook['id']}")["data"]["config"], hook["config"])
        wait_for("the hook", lambda: ask("GET", f"/resource_status/{hook['id']}")["data"]["is_alive"])
        run("ip", "netns", "exec", self.lab.names["gw"], "mosquitto_pub", "-h", "127.0.0.5", "-t", "again", "-m", "hello")
        wait_for("the request", lambda: [one["body"] for one in self.requests()] == ["hello"])
