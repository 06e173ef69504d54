"""Every example of the EMQX API's document (outside rules and resources) against the running daemon, field by field.

`tests/fixtures/emqx/document.json` has them in the document's order: section, method, path, body and the answer.
In an answer `<…>` stands for what differs from call to call; `instead` names, by its place, what is answered
otherwise and which decision (emqx-api.md section 8) says so.
"""

import copy
import json
import pathlib
import re
import subprocess
import time

from lab import Daemon, LabTest, config, wait_for

EXAMPLES = json.loads((pathlib.Path(__file__).parents[1] / "fixtures/emqx/document.json").read_text())
NODE = "emqx@127.0.0.1"
WORLD = """
mqtt:
  listeners:
    - {{name: ssl, type: tls, listen: "[::]:8883", certificate: {directory}/leaf.pem, private-key: {directory}/key.pem}}
    - {{name: external, type: tcp, listen: 0.0.0.0:1883}}
    - {{name: internal, type: tcp, listen: 127.0.0.1:11883}}
    - {{name: web, type: ws, listen: "[::]:8083"}}
    - {{name: webs, type: wss, listen: "[::]:8084", certificate: {directory}/leaf.pem, private-key: {directory}/key.pem, max-connections: 16}}
  users: [{{username: test, password: public}}, {{username: steve, password: public}}]
  password-storage: sha256
  acl: [{{permission: deny, topics: ["closed/#"]}}]
management:
  listen: 127.0.0.1:8081
  node: emqx@127.0.0.1
  applications: [{{id: j11c5ff1, secret: qc47fd11fccf1644}}]
"""
KINDS = {
    "<string>": lambda value: isinstance(value, str) and value,
    "<integer>": lambda value: type(value) is int and value >= 0,
    "<time>": lambda value: re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", value),
    "<uptime>": lambda value: re.fullmatch(r"(\d+ days, )?(\d+ hours, )?(\d+ minutes, )?\d+ seconds", value),
    "<load>": lambda value: re.fullmatch(r"\d+\.\d\d", value),
    "<memory>": lambda value: re.fullmatch(r"\d+\.\d\d[KMG]", value),
    "<milliseconds>": lambda value: abs(value / 1000 - time.time()) < 60,
    "<counts>": lambda value: value == [] or isinstance(value, dict) and all(type(count) is int and count > 0 for count in value.values()),
}
# Of EMQX 4.3, beside what the document has.
BESIDE = {"listen_on": {"identifier"}, "max_fds": {"live_connections"}}


def differences(want, got, at=""):
    """Where an answer is not as the example has it."""
    if isinstance(want, str) and want in KINDS:
        return [] if KINDS[want](got) else [f"{at}: {got!r} is no {want}"]
    if isinstance(want, dict) and "<integers>" in want:
        missing = [name for name in want["<integers>"] if not KINDS["<integer>"](got.get(name))]
        return [f"{at}: without {name}" for name in missing]
    if type(want) is not type(got):
        return [f"{at}: {got!r} for {want!r}"]
    if isinstance(want, dict):
        allowed = set().union(*(names for member, names in BESIDE.items() if member in want))
        found = [f"{at}.{name}: is not there" for name in want.keys() - got.keys()]
        found += [f"{at}.{name}: {got[name]!r} is too much" for name in got.keys() - want.keys() - allowed]
        return found + [line for name in want.keys() & got.keys() for line in differences(want[name], got[name], f"{at}.{name}")]
    if isinstance(want, list):
        if len(want) != len(got):
            return [f"{at}: {len(got)} items for {len(want)}: {got}"]
        # Rows of tables have no order that a reader may rely on (1.7).
        by_topic = lambda rows: sorted(rows, key=lambda row: row.get("topic", "") if isinstance(row, dict) else "")
        want, got = by_topic(want), by_topic(got)
        return [line for n, pair in enumerate(zip(want, got)) for line in differences(*pair, f"{at}[{n}]")]
    return [] if want == got else [f"{at}: {got!r} for {want!r}"]


def decided(example):
    """The answer with what is decided otherwise."""
    answer = copy.deepcopy(example["answer"])
    for place, (value, why) in example.get("instead", {}).items():
        assert why
        *way, last = place.split(".")
        at = answer
        for step in way:
            at = at[int(step) if step.isdigit() else step]
        if place != "path":
            at[last] = value
    return answer


# Who is there: program, client id, user, arguments.
EXAMPLE = ("mosquitto_pub", "example", "test", "-t", "test", "-l")
FIRST = ("mosquitto_sub", "78082755-e8eb-4a87-bab7-8277541513f0", "test", "-t", "a/+/c", "-q", "0")
SECOND = ("mosquitto_sub", "7a1dfceb-89c0-4f7e-992b-dfeb09329f01", "test", "-t", "a/b/c", "-q", "1")
# What a path's example tells of: the first that fits.
WORLDS = (
    (r"/clients/username/steve", [("mosquitto_pub", "example", "steve", "-t", "test", "-l")]),
    (r"/clients|/mqtt/", [EXAMPLE]),
    (r"/subscriptions/123", [("mosquitto_sub", "123", "test", "-t", "a/b/c", "-q", "1")]),
    (r"/subscriptions/sample", [("mosquitto_sub", "sample", "test", "-t", "a/+/c", "-q", "0")]),
    (r"/subscriptions|/routes", [FIRST, SECOND]),
    (r"", []),
)
HELD = {
    "/auth_user": [{"login": f"test{n}", "password": "public", "is_superuser": False} for n in (1, 2, 3)],
    "/emqx_acl": [{"login": login, "topic": topic, "action": "pubsub", "allow": True} for login, topic in (("test1", "/test1"), ("test2", "/test"))],
}


class Document(LabTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # Its files are known only now.
        cls.daemon = Daemon(cls.lab, config() + WORLD.format(directory=cls.lab.directory)).start()

    def ask(self, method, path, body=None, prefix="/api"):
        command = ["curl", "-s", "-m", "5", "--basic", "-u", "j11c5ff1:qc47fd11fccf1644", "-X", method, f"http://127.0.0.1:8081{prefix}{path}"]
        return json.loads(self.lab.ns("gw", *command, *(["-d", json.dumps(body)] if body is not None else [])))

    def client(self, program, client_id, user, *arguments):
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.lab.names["gw"], program, "-h", "127.0.0.1", "-i", client_id, "-u", user, "-P", "public", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.addCleanup(process.stdin.close)
        wait_for(client_id, lambda: self.ask("GET", f"/clients/{client_id}")["data"])
        if program == "mosquitto_sub":
            wait_for("its subscription", lambda: self.ask("GET", f"/subscriptions/{client_id}")["data"])
        return process

    def set_scene(self, example):
        """Makes true what the example tells of."""
        world = next(world for pattern, world in WORLDS if re.search(pattern, example["path"]))
        if world != self.world or any(process.poll() is not None for process in self.clients):
            for process in self.clients:
                process.kill()
            wait_for("their end", lambda: not self.ask("GET", "/clients")["data"])
            self.world, self.clients = world, [self.client(*one) for one in world]
        if example["method"] == "GET" and example["path"] in HELD:
            self.assertEqual(self.ask("POST", example["path"], HELD[example["path"]])["code"], 0)
        if example["method"] == "GET" and example["path"].endswith("/acl_cache"):
            self.clients[0].stdin.write(b"hello\n")
            self.clients[0].stdin.flush()
            wait_for("a decision", lambda: self.ask("GET", example["path"])["data"])

    def test_every_example_is_answered_as_the_document_has_it(self):
        self.world, self.clients = [], []
        for example in EXAMPLES:
            self.set_scene(example)
            for prefix in ("/api/v4", "/api") if example["method"] == "GET" else ("/api",):
                with self.subTest(section=example["section"], path=example["path"], prefix=prefix):
                    got = self.ask(example["method"], example["path"], example.get("body"), prefix)
                    self.assertEqual(differences(decided(example), got), [])
            if example["method"] == "DELETE" and example["path"].startswith("/clients/example"):
                self.clients[0].kill()
                self.clients[0].wait()
            for place, (path, _) in example.get("instead", {}).items():
                if place == "path":
                    self.assertNotEqual(self.ask(example["method"], path)["code"], 0)
        # What the calls about `example` left.
        self.assertEqual({row["topic"] for row in self.ask("GET", "/subscriptions/example")["data"]}, set())

    def test_the_codes_of_the_document_that_can_come(self):
        """103, 104, 106, 110, 111, 113 and 114 never do, as in EMQX (emqx-api.md 1.4); 101 is in `Unserved`."""
        self.client(*EXAMPLE)
        cases = (
            (0, "GET", "/brokers", None),
            (105, "PUT", "/auth_user/nobody", {"password": "x", "is_superuser": False}),
            (107, "POST", "/auth_user", []),
            (107, "POST", "/banned", {"who": "x"}),
            (108, "GET", "/clients?proto_ver=five", None),
            (108, "PUT", "/auth_user/nobody", {"password": ""}),
            (112, "DELETE", "/clients/nobody", None),
            (112, "GET", "/clients/nobody/acl_cache", None),
            (112, "POST", "/mqtt/subscribe", {"topic": "a", "clientid": "nobody"}),
            (115, "POST", "/mqtt/publish", {"topic": "a/#", "clientid": "example"}),
            (115, "POST", "/mqtt/subscribe", {"topic": "a/#/b", "clientid": "example"}),
            (115, "POST", "/mqtt/unsubscribe", {"topic": "a/#/b", "clientid": "example"}),
        )
        for prefix in ("/api", "/api/v4"):
            for code, method, path, body in cases:
                with self.subTest(path=path, prefix=prefix):
                    self.assertEqual(self.ask(method, path, body, prefix)["code"], code)
        broken = self.lab.ns("gw", "curl", "-s", "-u", "j11c5ff1:qc47fd11fccf1644", "-d", "{", "http://127.0.0.1:8081/api/mqtt/publish")
        self.assertEqual(json.loads(broken)["code"], 109)


class Unserved(LabTest):
    CONFIG_TEXT = config() + "\nmqtt: {enable: false}\nmanagement: {listen: 127.0.0.1:8081, applications: [{id: a, secret: b}]}\n"

    def test_without_a_broker_the_answer_is_that_it_cannot_be_asked(self):
        answer = self.lab.ns("gw", "curl", "-s", "-w", " %{http_code}", "-u", "a:b", "http://127.0.0.1:8081/api/v4/clients")
        body, _, status = answer.rpartition(" ")
        self.assertEqual((json.loads(body)["code"], status), (101, "503"))
