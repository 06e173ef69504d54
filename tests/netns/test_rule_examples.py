"""The document's examples of rules, actions, resource types and resources, replayed: answers compared member by member."""

import json
import re

from lab import ROUTER_LAN, LabTest, config

EXTRA = """
mqtt:
  listeners: [{{name: tcp, type: tcp, listen: "{router}:1883"}}]
management: {{listen: "{router}:8081", node: emqx@127.0.0.1, applications: [{{id: j11c5ff1, secret: qc47fd11fccf1644}}]}}
"""


class Form(str):
    """A text that is another each time: its form."""

    def __eq__(self, other):
        return isinstance(other, str) and re.fullmatch(self, other) is not None

    __hash__ = str.__hash__


RULE, RESOURCE, ACTION = Form("rule:[0-9a-f]{8}"), Form("resource:[0-9a-f]{8}"), Form(r"inspect_\d{19}")
CREATED = {
    "rawsql": 'select * from "t/a"',
    "metrics": [{"speed_max": 0, "speed_last5m": 0.0, "speed": 0.0, "node": "emqx@127.0.0.1", "matched": 0}],
    "id": RULE, "for": ["t/a"], "enabled": True, "description": "test-rule",
    "actions": [{"params": {"a": 1}, "name": "inspect", "metrics": [{"success": 0, "node": "emqx@127.0.0.1", "failed": 0}], "id": ACTION}],
}
# The document's answer still has t/a in `for`: D20 recomputes it.
CHANGED = CREATED | {"rawsql": 'select * from "t/b"', "for": ["t/b"]}
INSPECT = {
    "types": [], "title": {"zh": "检查 (调试)", "en": "Inspect (debug)"}, "params": {}, "name": "inspect", "for": "$any",
    "description": {"zh": "检查动作参数 (用以调试)", "en": "Inspect the details of action params for debug purpose"}, "app": "emqx_rule_engine",
}
DO_NOTHING = {
    "types": [], "title": {"zh": "空动作 (调试)", "en": "Do Nothing (debug)"}, "params": {}, "name": "do_nothing", "for": "$any",
    "description": {"zh": "此动作什么都不做，并且不会失败 (用以调试)", "en": "This action does nothing and never fails. It's for debug purpose"},
    "app": "emqx_rule_engine",
}


def param(zh, en, **more):
    return {"title": {"zh": zh, "en": en}, "description": {"zh": zh, "en": en}} | more


WEB_HOOK = {
    "title": {"zh": "WebHook", "en": "WebHook"}, "provider": "emqx_web_hook", "name": "web_hook", "description": {"zh": "WebHook", "en": "WebHook"},
    "params": {
        "url": param("请求 URL", "Request URL", type="string", required=True, format="url"),
        "method": param("请求方法", "Request Method", type="string", enum=["PUT", "POST"], default="POST"),
        "headers": param("请求头", "Request Header", type="object", schema={}, default={}),
    },
}
ASKED = {"url": "http://127.0.0.1:9910", "headers": {"token": "axfw34y235wrq234t4ersgw4t"}, "method": "POST"}
HOOK = {"type": "web_hook", "id": RESOURCE, "description": "web hook resource-1", "config": ASKED}

# (what the document calls it, method, path, body, `data` of the answer); {rule} and {resource}: the ids made before.
EXAMPLES = [
    ("add a rule", "POST", "/rules", {"rawsql": 'select * from "t/a"', "actions": [{"name": "inspect", "params": {"a": 1}}], "description": "test-rule"}, CREATED),
    ("the rule just created", "GET", "/rules/{rule}", None, CREATED),
    ("all the rules", "GET", "/rules", None, [CREATED]),
    ("update the SQL", "PUT", "/rules/{rule}", {"rawsql": 'select * from "t/b"'}, CHANGED),
    ("disable the rule", "PUT", "/rules/{rule}", {"enabled": False}, CHANGED | {"enabled": False}),
    ("delete the rule", "DELETE", "/rules/{rule}", None, None),
    ("the inspect action", "GET", "/actions/inspect", None, INSPECT),
    ("all actions", "GET", "/actions", None, [DO_NOTHING, INSPECT]),
    ("the web_hook type", "GET", "/resource_types/web_hook", None, WEB_HOOK),
    ("all resource types", "GET", "/resource_types", None, [WEB_HOOK]),
    ("create a webhook resource", "POST", "/resources", {"type": "web_hook", "config": ASKED, "description": "web hook resource-1"}, HOOK),
    ("the resource just created", "GET", "/resources/{resource}", None, HOOK | {"status": [{"node": "emqx@127.0.0.1", "is_alive": False}]}),
    ("all resources", "GET", "/resources", None, [HOOK]),
    ("delete the resource", "DELETE", "/resources/{resource}", None, None),
]

ROOTS = {"rules": "rule", "actions": "action", "resource_types": "type", "resources": "resource"}

# What answers have beyond the document, by the reference (emqx-api.md): clients read past it.
LATER = {"connect_timeout", "request_timeout", "pool_size", "verify", "server_name_indication", "cacertfile", "certfile", "keyfile"}
MORE = {
    "rule": {"on_action_failed", "created_at"},  # D40
    "rule.metrics[]": {"passed", "failed", "exception", "no_result"},  # 2.9: the superset of 4.1 and 4.4
    "rule.actions[]": {"fallbacks"},  # D40
    "rule.actions[].metrics[]": {"taken"},  # 2.9
    "action": {"category"},  # 2.9, 4.3+
    # 4.10: the parameters of 4.3 and later stand behind the document's three.
    "type.params": LATER,
    **{f"type.params.{name}": {"order", "required"} for name in WEB_HOOK["params"]},  # 2.9: an entry of the specification
    "resource": {"status"},  # 2.9, operation 48: 4.3+ shows it in the list
    "resource.config": LATER,  # 4.10: defaults are filled in
}
# Lists that may be longer than the document's, which it cuts by "…", or whose choices grew (D22).
LONGER = {"action", "type", "type.params.method.enum"}


def differences(place, want, got):
    """What of the document's answer is not in ours, and what of ours is neither there nor in MORE."""
    if isinstance(want, dict) and isinstance(got, dict):
        for key in want.keys() - got.keys():
            yield f"{place}.{key} is missing"
        for key in got.keys() - want.keys() - MORE.get(place, set()):
            yield f"{place}.{key} is not in the document"
        for key in want.keys() & got.keys():
            yield from differences(f"{place}.{key}", want[key], got[key])
    elif isinstance(want, list) and isinstance(got, list):
        if place in LONGER:
            named = {item.get("name") if isinstance(item, dict) else item: item for item in got}
            got = [named.get(item.get("name") if isinstance(item, dict) else item) for item in want]
        if len(want) != len(got):
            yield f"{place} has {len(got)} items, not {len(want)}"
        for one, other in zip(want, got):
            yield from differences(place if place in ROOTS.values() else f"{place}[]", one, other)
    # 0 and 0.0, 1 and true are not the same to a client of a typed language.
    elif not (want == got and (isinstance(want, Form) or type(want) is type(got))):
        yield f"{place} is {got!r}, not {want!r}"


class RuleExamples(LabTest):
    CONFIG_TEXT = config() + EXTRA.format(router=ROUTER_LAN)

    def ask(self, method, path, body=None):
        command = ["curl", "-s", "-m", "10", "-X", method, "-w", "\n%{http_code}", "--basic", "-u", "j11c5ff1:qc47fd11fccf1644", f"http://{ROUTER_LAN}:8081/api{path}"]
        if body is not None:
            command += ["-d", json.dumps(body)]
        text, _, status = self.lab.ns("lan1", *command).rpartition("\n")
        return int(status), json.loads(text)

    def test_every_example_is_answered_as_documented(self):
        made = {}
        for title, method, path, body, want in EXAMPLES:
            with self.subTest(title):
                status, answer = self.ask(method, path.format(**made), body)
                self.assertEqual((status, answer.pop("code")), (200, 0), answer)
                if want is None:
                    self.assertEqual(answer, {})
                    continue
                self.assertEqual(list(answer), ["data"])
                kind = ROOTS[path.split("/")[1]]
                self.assertEqual(list(differences(kind, want, answer["data"])), [])
                if method == "POST":
                    made[kind] = answer["data"]["id"]

    def test_what_is_wrong_is_refused_as_the_reference_says(self):
        inspect = [{"name": "inspect", "params": {}}]
        hook = {"type": "web_hook", "config": {"url": "http://127.0.0.1:9910"}}
        wrong = [
            ("GET", "/rules/rule:none", None, 404, 404, "Not Found"),
            ("POST", "/rules", {"actions": inspect}, 400, 400, "Bad Arguments: rawsql is missing"),
            ("POST", "/rules", {"rawsql": 'SELECT * FROM "a"'}, 400, 400, "Bad Arguments: actions is missing"),
            ("POST", "/rules", {"rawsql": 'SELECT * FROM "a"', "actions": [{"name": "kafka"}]}, 400, 400, "Action kafka Not Found"),
            ("POST", "/rules", {"rawsql": "SELECT", "actions": inspect}, 400, 400, "Bad Arguments: rawsql: line 1, column 7:"),
            ("POST", "/rules", {"rawsql": 'SELECT * FROM "$events/none"', "actions": inspect}, 400, 400, "Bad Arguments: there is no event $events/none"),
            ("POST", "/rules", {"rawsql": 'SELECT * FROM "a"', "actions": [{"name": "republish", "params": {"target_topic": "a/#"}}]}, 400, 400,
             "Bad Arguments: params.target_topic"),
            ("POST", "/rules?test=true", {"rawsql": 'SELECT * FROM "a" WHERE qos = 7', "ctx": {"topic": "a"}}, 404, 404, "SQL Not Match"),
            ("PUT", "/rules/rule:none", {"enabled": False}, 404, 404, "Rule rule:none Not Found"),
            ("PUT", "/rules/rule:none/reset_metrics", None, 404, 404, "Not Found"),
            ("GET", "/actions/kafka", None, 404, 404, "Not Found"),
            ("GET", "/resource_types/mysql", None, 404, 404, "Not Found"),
            ("GET", "/resources/resource:none", None, 404, 404, "Not Found"),
            ("GET", "/resource_status/resource:none", None, 404, 404, "Not Found"),
            ("POST", "/resources", {"type": "mysql"}, 400, 400, "Resource Type mysql Not Found"),
            ("POST", "/resources", {"type": "web_hook"}, 400, 400, "Bad Arguments: url is missing"),
            ("POST", "/resources/resource:none", None, 400, 400, "Resource resource:none Not Found"),
            ("POST", "/resources?test=true", hook, 500, 500, "Test Creating Resource Failed"),
        ]
        for method, path, body, status, code, message in wrong:
            with self.subTest(f"{method} {path} {body}"):
                got, answer = self.ask(method, path, body)
                self.assertEqual((got, answer["code"]), (status, code), answer)
                self.assertTrue(answer["message"].startswith(message), answer["message"])
        # What is gone already is no mistake.
        for path in ("/rules/rule:none", "/resources/resource:none"):
            self.assertEqual(self.ask("DELETE", path), (200, {"code": 0}))
