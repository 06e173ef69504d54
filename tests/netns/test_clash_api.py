"""Every endpoint of the Clash API documents and every documented case, by table, against the running
program: statuses, bodies, and shapes member by member.

A shape is a type, a value, a list of one shape (each item has it), a set of values, or a mapping of
members; a member that may be absent has a name that ends in `?`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import unittest

from lab import DIRECT, PROXIED, ROUTER_LAN, SECRET, LabTest, config, wait_for

NUMBER, TEXT, FLAG = int, str, bool
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
HISTORY = [{"time": TIME, "delay": NUMBER}]


def message(text):
    return {"message": text}


INVALID, UNAUTHORIZED, NOT_FOUND = message("Body invalid"), message("Unauthorized"), message("Resource not found")
NO_ROUTE = "404 page not found\n"
NODE = {
    "name": TEXT, "type": TEXT, "id": TEXT, "history": HISTORY, "extra": dict, "alive": FLAG, "udp": FLAG, "uot": FLAG, "xudp": FLAG,
    "tfo": FLAG, "mptcp": FLAG, "smux": FLAG, "interface": TEXT, "dialer-proxy": TEXT, "routing-mark": NUMBER, "provider-name": TEXT,
}
GROUP = {k: v for k, v in NODE.items() if k != "id"} | {"all": [TEXT], "hidden": FLAG, "icon": TEXT}
TESTED = {"testUrl": TEXT, "expectedStatus": TEXT}
SELECTOR = GROUP | {"now": TEXT}
AUTOMATIC = GROUP | TESTED | {"now": TEXT, "fixed": TEXT}
BALANCED = GROUP | TESTED
PROVIDER = TESTED | {"name": TEXT, "type": "Proxy", "vehicleType": TEXT, "proxies": list, "updatedAt": TIME}
METADATA = {
    "network": {"tcp", "udp"}, "type": TEXT, "sourceIP": TEXT, "destinationIP": TEXT, "sourceGeoIP": None, "destinationGeoIP": None,
    "sourceIPASN": TEXT, "destinationIPASN": TEXT, "sourcePort": TEXT, "destinationPort": TEXT, "inboundIP": TEXT, "inboundPort": TEXT,
    "inboundName": TEXT, "inboundUser": TEXT, "host": TEXT, "dnsMode": {"normal", "fake-ip", "redir-host", "hosts"}, "uid": NUMBER,
    "process": TEXT, "processPath": TEXT, "specialProxy": TEXT, "specialRules": TEXT, "remoteDestination": TEXT, "dscp": NUMBER, "sniffHost": TEXT,
}
CONNECTION = {
    "id": UUID, "metadata": METADATA, "upload": NUMBER, "download": NUMBER, "start": TIME, "chains": [TEXT], "providerChains?": [TEXT],
    "rule": TEXT, "rulePayload": TEXT,
}
CONNECTIONS = {"downloadTotal": NUMBER, "uploadTotal": NUMBER, "connections": [CONNECTION], "memory": NUMBER}
CONFIGS = {
    "port": NUMBER, "socks-port": NUMBER, "redir-port": NUMBER, "tproxy-port": NUMBER, "mixed-port": NUMBER, "ss-config": TEXT,
    "vmess-config": TEXT, "interface-name": TEXT, "routing-mark": NUMBER, "authentication": [TEXT], "skip-auth-prefixes": [TEXT],
    "lan-allowed-ips": [TEXT], "lan-disallowed-ips": [TEXT], "allow-lan": FLAG, "ipv6": FLAG, "unified-delay": FLAG, "tcp-concurrent": FLAG,
    "etag-support": FLAG, "disable-keep-alive": FLAG, "inbound-tfo": FLAG, "inbound-mptcp": FLAG, "bind-address": TEXT,
    "mode": {"rule", "global", "direct"}, "log-level": {"silent", "error", "warning", "info", "debug"},
    "geox-url": {"geo-ip": TEXT, "mmdb": TEXT, "asn": TEXT, "geo-site": TEXT}, "geo-auto-update": FLAG, "geodata-mode": FLAG,
    "geo-update-interval": NUMBER, "geodata-loader": TEXT, "geosite-matcher": TEXT, "global-client-fingerprint": TEXT, "global-ua": TEXT,
    "find-process-mode": {"always", "strict", "off"}, "sniffing": FLAG, "keep-alive-idle": NUMBER, "keep-alive-interval": NUMBER,
    "tun": {"enable": FLAG, "device": TEXT, "stack": TEXT, "dns-hijack": None, "auto-route": FLAG, "auto-detect-interface": FLAG, "file-descriptor": NUMBER},
    "tuic-server": {"enable": FLAG, "listen": TEXT, "certificate": TEXT, "private-key": TEXT},
}
RULE = {
    "type": TEXT, "payload": TEXT, "proxy": TEXT, "size": NUMBER, "index?": NUMBER,
    "extra?": {"disabled": FLAG, "hitCount": NUMBER, "hitAt": TEXT, "missCount": NUMBER, "missAt": TEXT},
}
RECORD = {"name": TEXT, "type": NUMBER, "TTL": NUMBER, "data": TEXT}
DNS_ANSWER = {
    "Status": NUMBER, "Question": [{"Name": TEXT, "Qtype": NUMBER, "Qclass": 1}], "TC": FLAG, "RD": FLAG, "RA": FLAG, "AD": FLAG, "CD": FLAG,
    "Answer?": [RECORD], "Authority?": [RECORD], "Additional?": [RECORD],
}
MOVED = {"upload": NUMBER, "download": NUMBER}
DEVICE = MOVED | {
    "id": TEXT, "mac": TEXT, "name": TEXT, "addresses": [TEXT], "lastSeen": TEXT, "connections": NUMBER, "today": MOVED, "uploadRate": NUMBER, "downloadRate": NUMBER,
}
HISTORY = MOVED | {
    "by": TEXT, "from": TEXT, "to": TEXT, "items": [MOVED | {"name": TEXT}], "other": MOVED,
    "days": [MOVED | {"date": TEXT, "hours?": [MOVED | {"hour": NUMBER}]}],
}
OK = {"status": "ok"}
TEST = f"url=http://{DIRECT}/"

# Members of PATCH /configs: a value, and the one of before. Not here: redir-port and tproxy-port, which the capture has
# while it is on (test_capture).
PATCHED = [
    ("port", 17893, 0), ("socks-port", 7894, 0), ("mixed-port", 7895, 7890),
    ("allow-lan", False, True), ("bind-address", "127.0.0.1", "*"), ("skip-auth-prefixes", ["10.0.0.0/8", "fd00::/8"], []),
    ("lan-allowed-ips", ["192.168.77.0/24"], []), ("lan-disallowed-ips", ["192.0.2.1/32"], []), ("mode", "direct", "rule"),
    ("log-level", "error", "debug"), ("ipv6", False, True), ("sniffing", False, True), ("tcp-concurrent", True, False),
    ("interface-name", "lo", ""),
]

# What mihomo changes and headgate does not have.
PASSED_OVER = {"tun": {"enable": False, "stack": "system"}, "tuic-server": {"enable": False}, "ss-config": "", "vmess-config": "", "tcptun-config": "", "udptun-config": ""}

# Method, path, body (text goes as it is), status, shape of the answer (None: empty). Asked in this order.
CASES = [
    ("GET", "/", None, 200, {"hello": "mihomo"}),
    ("GET", "/version", None, 200, {"meta": True, "version": TEXT}),
    ("POST", "/version", None, 405, None),
    ("GET", "/version/", None, 404, NO_ROUTE),
    ("GET", "/nowhere", None, 404, NO_ROUTE),
    ("GET", "/logs?level=loud", None, 400, INVALID),
    ("GET", "/logs?level=INFO", None, 400, INVALID),
    ("POST", "/logs", None, 405, None),
    ("PUT", "/traffic", None, 405, None),
    ("DELETE", "/memory", None, 405, None),
    # Cache.
    ("POST", "/cache/fakeip/flush", None, 204, None),
    ("POST", "/cache/dns/flush", None, 204, None),
    ("GET", "/cache/dns/flush", None, 405, None),
    # Configuration.
    ("GET", "/configs", None, 200, CONFIGS),
    ("GET", "/configs/", None, 200, CONFIGS),
    ("POST", "/configs", None, 405, None),
    ("PATCH", "/configs", {"MODE": "Global", "unknown": [1]}, 204, None),
    ("GET", "/configs", None, 200, CONFIGS | {"mode": "global"}),
    ("PATCH", "/configs", {"mode": "rule", "log-level": "warning", "ipv6": False, "sniffing": False, "tcp-concurrent": True}, 204, None),
    ("GET", "/configs", None, 200, CONFIGS | {"mode": "rule", "log-level": "warning", "ipv6": False, "sniffing": False, "tcp-concurrent": True}),
    ("PATCH", "/configs", {"log-level": "debug", "ipv6": True, "sniffing": True, "tcp-concurrent": False}, 204, None),
    ("PATCH", "/configs", {"socks-port": 7891, "skip-auth-prefixes": ["10.0.0.0/8"], "lan-disallowed-ips": ["192.0.2.0/24"]}, 204, None),
    ("GET", "/configs", None, 200, CONFIGS | {"socks-port": 7891, "skip-auth-prefixes": ["10.0.0.0/8"], "lan-disallowed-ips": ["192.0.2.0/24"]}),
    ("PATCH", "/configs", {"socks-port": 9090}, 204, None),  # taken: logged, and shown as 0
    ("GET", "/configs", None, 200, CONFIGS | {"socks-port": 0}),
    ("PATCH", "/configs", {"socks-port": 0, "skip-auth-prefixes": [], "lan-disallowed-ips": [], "tun": {"enable": False}}, 204, None),
    ("PATCH", "/configs", {"bind-address": "127.0.0.1"}, 204, None),
    ("GET", "/configs", None, 200, CONFIGS | {"bind-address": "127.0.0.1"}),
    ("PATCH", "/configs", {"bind-address": "*", "interface-name": ""}, 204, None),
    # Every member that mihomo changes, alone: to a value, shown, and back; and of no wrong type.
    *(case for name, value, before in PATCHED for case in (
        ("PATCH", "/configs", {name: value}, 204, None),
        ("GET", "/configs", None, 200, CONFIGS | {name: value}),
        ("PATCH", "/configs", {name: before}, 204, None),
        ("GET", "/configs", None, 200, CONFIGS | {name: before}))),
    *(("PATCH", "/configs", {name: wrong}, 400, INVALID) for name, value, _ in PATCHED for wrong in ({"a": 1}, 1.5, "1" if isinstance(value, (bool, int)) else 1)),
    *(("PATCH", "/configs", {name: value}, 204, None) for name, value in PASSED_OVER.items()),
    *(("PATCH", "/configs", {name: 1.5}, 400, INVALID) for name in PASSED_OVER),
    ("PATCH", "/configs", {"unified-delay": True, "find-process-mode": "always", "dns": {"enable": False}}, 204, None),
    ("GET", "/configs", None, 200, CONFIGS | {"unified-delay": False, "find-process-mode": "strict"}),
    *(("PATCH", "/configs", bad, 400, INVALID) for bad in (
        "", "{", "[]", "null", {"mode": "sideways"}, {"log-level": "Info"}, {"port": 65536}, {"port": "1"}, {"allow-lan": "yes"}, {"tun": 1},
        {"bind-address": "here"}, {"lan-allowed-ips": ["x"]})),
    ("PUT", "/configs", None, 400, INVALID),
    ("PUT", "/configs", {"path": 1}, 400, INVALID),
    ("PUT", "/configs", {"path": "config.yaml"}, 400, message("path is not a absolute path")),
    ("PUT", "/configs", {"path": "/etc/passwd"}, 400, message(re.compile("path is not subpath of home directory or SAFE_PATHS: "))),
    ("PUT", "/configs?force=true", {"payload": "mode: ["}, 400, message(re.compile(r"payload:\d+:\d+: "))),
    ("PUT", "/configs?force=true", {"path": "", "payload": ""}, 204, None),
    ("PUT", "/configs?reload=true", {"path": "", "payload": ""}, 204, None),
    ("PUT", "/configs/", {}, 204, None),
    ("PUT", "/configs?force=true", {"PATH": "", "Payload": ""}, 204, None),
    ("PUT", "/configs", "path=&payload=", 400, INVALID),
    ("PUT", "/configs", "", 400, INVALID),
    ("PUT", "/configs", {"payload": ["mode: rule"]}, 400, INVALID),
    ("PUT", "/configs", {"path": "/etc/../etc/passwd"}, 400, message(re.compile("path is not subpath of home directory or SAFE_PATHS: "))),
    ("DELETE", "/configs", None, 405, None),
    ("POST", "/configs/geo", {"path": "", "payload": ""}, 204, None),
    ("POST", "/upgrade/geo", {"path": "", "payload": ""}, 204, None),
    ("GET", "/configs/geo", None, 405, None),
    # Groups.
    ("GET", "/group", None, 200, {"proxies": [GROUP | TESTED | {k + "?": TEXT for k in ("now", "fixed")} | {k + "?": TEXT for k in TESTED}]}),
    ("GET", "/group/Pick", None, 200, SELECTOR | {"type": "Selector", "all": ["ss", "socks", "DIRECT", "REJECT"]}),
    ("GET", "/group/Fast", None, 200, AUTOMATIC | {"type": "URLTest", "expectedStatus": "200", "fixed": ""}),
    ("GET", "/group/Spread", None, 200, BALANCED | {"type": "LoadBalance"}),
    ("GET", "/group/ss", None, 404, NOT_FOUND),
    ("POST", "/group/Pick", None, 405, None),
    ("DELETE", "/group/Fast", None, 204, None),
    ("DELETE", "/group/Pick", None, 400, INVALID),
    ("DELETE", "/group/nobody", None, 404, NOT_FOUND),
    ("GET", f"/group/Pick/delay?{TEST}&timeout=3000", None, 200, {"ss": NUMBER, "socks": NUMBER, "DIRECT": NUMBER}),
    ("GET", f"/group/Pick/delay?{TEST}", None, 400, INVALID),
    ("GET", f"/group/Pick/delay?{TEST}&timeout=x", None, 400, INVALID),
    ("GET", f"/group/Pick/delay?{TEST}&timeout=3000&expected=x", None, 400, INVALID),
    ("GET", "/group/Pick/delay?url=http://5.5.5.1:9/&timeout=500", None, 504, message("get delay: all proxies timeout")),
    ("GET", f"/group/nobody/delay?{TEST}&timeout=3000", None, 404, NOT_FOUND),
    # Proxies.
    ("GET", "/proxies", None, 200, {"proxies": dict}),
    ("GET", "/proxies/", None, 200, {"proxies": dict}),
    ("GET", "/proxies/ss", None, 200, NODE | {"type": "Shadowsocks", "udp": True}),
    ("GET", "/proxies/DIRECT", None, 200, NODE | {"type": "Direct"}),
    ("GET", "/proxies/REJECT-DROP", None, 200, NODE | {"type": "RejectDrop"}),
    ("GET", "/proxies/GLOBAL", None, 200, SELECTOR | {"type": "Selector"}),
    ("GET", "/proxies/Backup", None, 200, AUTOMATIC | {"type": "Fallback"}),
    ("GET", "/proxies/A%2FB%20%F0%9F%98%80", None, 200, NODE | {"name": "A/B \U0001f600"}),
    ("GET", "/proxies/nobody", None, 404, NOT_FOUND),
    ("PUT", "/proxies/Pick", {"name": "socks"}, 204, None),
    ("GET", "/proxies/Pick", None, 200, SELECTOR | {"now": "socks"}),
    ("PUT", "/proxies/Pick", {"Name": "ss"}, 204, None),
    ("PUT", "/proxies/Pick", {"name": "nobody"}, 400, message("Selector update error: proxy not exist")),
    ("PUT", "/proxies/Pick", "", 400, INVALID),
    ("PUT", "/proxies/Pick", {"name": 1}, 400, INVALID),
    ("PUT", "/proxies/Spread", {"name": "ss"}, 400, message("Must be a Selector")),
    ("PUT", "/proxies/ss", {"name": "x"}, 400, message("Must be a Selector")),
    ("PUT", "/proxies/nobody", {"name": "x"}, 404, NOT_FOUND),
    ("PUT", "/proxies/Fast", {"name": "DIRECT"}, 204, None),
    ("GET", "/proxies/Fast", None, 200, AUTOMATIC | {"fixed": "DIRECT"}),
    ("DELETE", "/proxies/Fast", None, 204, None),
    ("GET", "/proxies/Fast", None, 200, AUTOMATIC | {"fixed": ""}),
    ("DELETE", "/proxies/Pick", None, 400, INVALID),
    ("DELETE", "/proxies/ss", None, 400, INVALID),
    ("DELETE", "/proxies/nobody", None, 404, NOT_FOUND),
    ("GET", f"/proxies/ss/delay?{TEST}&timeout=3000&expected=200", None, 200, {"delay": NUMBER}),
    ("GET", "/proxies/ss", None, 200, NODE | {"alive": True}),
    ("GET", f"/proxies/ss/delay?{TEST}", None, 400, INVALID),
    ("GET", f"/proxies/ss/delay?{TEST}&timeout=40000", None, 400, INVALID),
    ("GET", "/proxies/DIRECT/delay?url=http://5.5.5.1:9/&timeout=900", None, 503, message("An error occurred in the delay test")),
    ("GET", "/proxies/DIRECT/delay?url=x&timeout=900", None, 503, message("An error occurred in the delay test")),
    ("GET", f"/proxies/DIRECT/delay?url=http://{DIRECT}/slow&timeout=0", None, 504, message("Timeout")),
    ("GET", f"/proxies/nobody/delay?{TEST}&timeout=900", None, 404, NOT_FOUND),
    # Providers.
    ("GET", "/providers/proxies", None, 200, {"providers": dict}),
    ("GET", "/providers/proxies/default", None, 200, PROVIDER | {"vehicleType": "Compatible"}),
    ("GET", "/providers/proxies/Fast", None, 200, PROVIDER | {"name": "Fast"}),
    ("GET", "/providers/proxies/nobody", None, 404, NOT_FOUND),
    ("PUT", "/providers/proxies/default", None, 204, None),
    ("PUT", "/providers/proxies/nobody", None, 404, NOT_FOUND),
    ("GET", "/providers/proxies/Fast/healthcheck", None, 204, None),
    ("GET", "/providers/proxies/nobody/healthcheck", None, 404, NOT_FOUND),
    ("GET", "/providers/proxies/default/ss", None, 200, NODE | {"name": "ss"}),
    ("GET", "/providers/proxies/default/nobody", None, 404, NOT_FOUND),
    ("GET", f"/providers/proxies/default/ss/healthcheck?{TEST}&timeout=3000", None, 200, {"delay": NUMBER}),
    ("GET", f"/providers/proxies/default/ss/healthcheck?{TEST}", None, 400, INVALID),
    # Rules.
    ("GET", "/rules", None, 200, {"rules": [RULE]}),
    ("GET", "/rules/", None, 200, {"rules": [RULE]}),
    ("POST", "/rules", None, 405, None),
    ("GET", "/providers/rules", None, 200, {"providers": {}}),
    ("PUT", "/providers/rules/nobody", None, 404, NOT_FOUND),
    # Connections.
    ("GET", "/connections", None, 200, CONNECTIONS),
    ("GET", "/connections/", None, 200, CONNECTIONS),
    ("DELETE", "/connections/00000000-0000-8000-8000-000000000000", None, 204, None),
    ("DELETE", "/connections/x", None, 204, None),
    ("DELETE", "/connections", None, 204, None),
    ("PUT", "/connections", None, 405, None),
    # DNS.
    ("GET", "/dns/query?name=direct.test", None, 200, DNS_ANSWER | {"Status": 0, "Answer": [RECORD | {"name": "direct.test.", "type": 1, "data": DIRECT}]}),
    ("GET", "/dns/query?name=direct.test&type=AAAA", None, 200, DNS_ANSWER | {"Answer": [RECORD | {"type": 28}]}),
    ("GET", f"/dns/query?name={'.'.join(reversed(DIRECT.split('.')))}.in-addr.arpa&type=PTR", None, 200, DNS_ANSWER),
    ("GET", "/dns/query?name=nobody.test&type=A", None, 200, DNS_ANSWER | {"Status": 3}),
    ("GET", "/dns/query?name=direct.test&type=WHAT", None, 400, message("invalid query type")),
    # Storage.
    ("GET", "/storage/board", None, 200, None),
    ("PUT", "/storage/board", {"theme": "dark"}, 204, None),
    ("GET", "/storage/board", None, 200, {"theme": "dark"}),
    ("PUT", "/storage/board", "{", 400, INVALID),
    ("PUT", "/storage/board", '"' + "x" * (1 << 20) + '"', 413, message("payload exceeds 1MB limit")),
    ("DELETE", "/storage/board", None, 204, None),
    ("GET", "/storage/board", None, 200, None),
    # headgate's own.
    ("GET", "/devices", None, 200, {"days": 30, "devices": [DEVICE], "other": MOVED}),
    ("POST", "/devices", None, 405, None),
    ("GET", "/history", None, 200, HISTORY | {"by": "device"}),
    ("GET", "/history?by=domain&from=2026-01-01&to=2026-01-31", None, 200, HISTORY | {"from": "2026-01-02", "to": "2026-01-31", "days": []}),
    ("GET", "/history?by=colour", None, 400, INVALID),
    ("GET", "/history?from=2026-02-30", None, 400, INVALID),
    ("POST", "/upgrade", {"path": "", "payload": ""}, 500, message(TEXT)),
    ("POST", "/upgrade/ui", None, 500, message(TEXT)),
    # Debug: the log level is debug.
    ("POST", "/restart/nowhere", None, 404, NO_ROUTE),
    ("GET", "/restart", None, 405, None),
    ("GET", "/upgrade", None, 405, None),
    ("GET", "/upgrade/ui", None, 405, None),
    ("GET", "/upgrade/geo", None, 405, None),
    ("GET", "/cache/fakeip/flush", None, 405, None),
    ("POST", "/cache/nowhere/flush", None, 404, NO_ROUTE),
    ("POST", "/dns/query", None, 405, None),
    ("POST", "/proxies/Pick", None, 405, None),
    ("POST", "/providers/proxies/default", None, 405, None),
    ("DELETE", "/providers/rules", None, 405, None),
    ("PATCH", "/rules/disable", {"0": True}, 204, None),
    ("PATCH", "/rules/disable", {"0": False, "9999": True}, 204, None),
    ("PATCH", "/rules/disable", {"x": True}, 400, INVALID),
    ("PATCH", "/rules/disable", "", 400, INVALID),
    ("PUT", "/debug/gc", None, 200, None),
    ("GET", "/debug/nowhere", None, 404, NO_ROUTE),
    ("GET", "/debug/gc", None, 405, None),
]


# The endpoints of the Clash API document (its three versions), a member of a collection as {}.
DOCUMENTED = """
GET /logs|GET /traffic|GET /memory|GET /version|POST /cache/fakeip/flush|POST /cache/dns/flush|GET /configs|PUT /configs|PATCH /configs|POST /configs/geo
POST /restart|POST /upgrade|POST /upgrade/ui|POST /upgrade/geo|GET /group|GET /group/{}|DELETE /group/{}|GET /group/{}/delay|GET /proxies|GET /proxies/{}
PUT /proxies/{}|GET /proxies/{}/delay|GET /providers/proxies|GET /providers/proxies/{}|PUT /providers/proxies/{}|GET /providers/proxies/{}/healthcheck
GET /providers/proxies/{}/{}/healthcheck|GET /rules|GET /providers/rules|PUT /providers/rules/{}|GET /connections|DELETE /connections|DELETE /connections/{}
GET /dns/query|PUT /debug/gc
""".replace("\n", "|").strip("|").split("|")

# Those of them whose good answers other tests see: they do not end, or the process does.
SEEN_ELSEWHERE = {"GET /logs", "GET /traffic", "GET /memory", "POST /restart", "POST /upgrade", "POST /upgrade/ui", "PUT /providers/rules/{}"}


def differences(shape, found, where=""):
    """What is not as the shape says."""
    if isinstance(shape, re.Pattern):
        return [] if isinstance(found, str) and shape.match(found) else [f"{where}: {found!r}"]
    if isinstance(shape, type):
        return [] if isinstance(found, shape) and (shape is bool or not isinstance(found, bool)) else [f"{where}: {found!r} is no {shape.__name__}"]
    if isinstance(shape, set):
        return [] if found in shape else [f"{where}: {found!r}"]
    if isinstance(shape, list) and len(shape) == 1 and not isinstance(shape[0], str):
        if not isinstance(found, list):
            return [f"{where}: {found!r} is no list"]
        return [d for i, item in enumerate(found) for d in differences(shape[0], item, f"{where}[{i}]")]
    if isinstance(shape, dict):
        if not isinstance(found, dict):
            return [f"{where}: {found!r} is no object"]
        known = {name.rstrip("?") for name in shape}
        wrong = [f"{where}.{name}: unexpected" for name in found if name not in known]
        for name, inner in shape.items():
            bare = name.rstrip("?")
            if bare in found:
                wrong += differences(inner, found[bare], f"{where}.{bare}")
            elif name == bare and f"{name}?" not in shape:
                wrong.append(f"{where}.{name}: missing")
        return wrong
    return [] if found == shape else [f"{where}: {found!r}, not {shape!r}"]


class Client:
    """A device of the LAN that sends bytes of our own: one process for all requests."""

    def __init__(self, lab):
        self.process = lab.spawn("lan1", sys.executable, "-c", CLIENT, ROUTER_LAN, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, method, path, body=None, *, secret=SECRET, fields=()):
        """Status, header and body."""
        data = b"" if body is None else (body if isinstance(body, str) else json.dumps(body)).encode()
        head = [f"{method} {path} HTTP/1.1", f"Host: {ROUTER_LAN}:9090", "Connection: close", *fields]
        if secret:
            head.append(f"Authorization: Bearer {secret}")
        if body is not None:
            head.append(f"Content-Length: {len(data)}")
        request = "\r\n".join(head).encode() + b"\r\n\r\n" + data
        self.process.stdin.write(json.dumps(request.decode("latin-1")) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline()).encode("latin-1").decode()
        head, _, text = answer.partition("\r\n\r\n")
        return int(head.split()[1]), head, text


CLIENT = """
import json, socket, sys
for line in sys.stdin:
    parts = []
    with socket.create_connection((sys.argv[1], 9090), timeout=20) as s:
        try:
            s.sendall(json.loads(line).encode('latin-1'))
            while part := s.recv(65536):
                parts.append(part)
        except (BrokenPipeError, ConnectionResetError):
            pass
    print(json.dumps(b''.join(parts).decode('latin-1')), flush=True)
"""

GROUPS = f"""
  - {{name: Fast, type: url-test, proxies: [ss, DIRECT], url: 'http://{DIRECT}/', expected-status: 200, lazy: true}}
  - {{name: Backup, type: fallback, proxies: [socks, ss], url: 'http://{DIRECT}/'}}
  - {{name: Spread, type: load-balance, proxies: [ss, socks], url: 'http://{DIRECT}/'}}
"""


class ClashApi(LabTest):
    CONFIG_TEXT = config(swap={
        "rules:\n\n": f"{GROUPS.lstrip(chr(10))}rules:\n\n",
        "proxies:\n": "proxies:\n  - {name: \"A/B \U0001f600\", type: socks5, server: 192.0.2.1, port: 1}\n",
        "secret: lab-secret": "secret: lab-secret\nsecrets:\n  - {name: wall, secret: only-look, scope: read}",
    })

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = Client(cls.lab)
        cls.addClassCleanup(cls.client.process.stdin.close)

    def test_every_case_of_the_table(self):
        for method, path, body, status, shape in CASES:
            with self.subTest(f"{method} {path} {body if body is None else str(body)[:60]}"):
                found, head, text = self.client.ask(method, path, body)
                self.assertEqual(found, status, text)
                if shape is None:
                    self.assertIn(text, ("", "null\n"))
                elif isinstance(shape, str):
                    self.assertEqual(text, shape)
                else:
                    self.assertIn("Content-Type: application/json", head)
                    self.assertEqual(differences(shape, json.loads(text)), [])

    def test_every_documented_endpoint_is_in_the_table(self):
        for endpoint in DOCUMENTED:
            method, path = endpoint.split()
            pattern = re.compile(path.replace("{}", "[^/?]+") + r"/?(\?.*)?$")
            cases = [status for m, p, _, status, _ in CASES if m == method and pattern.match(p)]
            self.assertTrue(endpoint in SEEN_ELSEWHERE or any(status < 300 for status in cases), endpoint)

    def test_every_path_wants_the_secret(self):
        for method, path, _, status, shape in CASES:
            if status == 405 or shape == NO_ROUTE:
                continue
            with self.subTest(f"{method} {path}"):
                self.assertEqual(self.client.ask(method, path, secret=None)[::2], (401, json.dumps(UNAUTHORIZED, separators=(",", ":")) + "\n"))

    def test_a_smaller_scope_looks_and_does_not_touch(self):
        self.assertEqual(self.client.ask("GET", "/proxies", secret="only-look")[0], 200)
        for method, path in (("PUT", "/proxies/Pick"), ("DELETE", "/connections"), ("PATCH", "/configs"), ("POST", "/restart")):
            self.assertEqual(self.client.ask(method, path, "{}", secret="only-look")[::2], (403, '{"message":"Forbidden"}\n'))

    def test_changes_are_in_the_log_with_who_and_whence(self):
        self.assertEqual(self.client.ask("PUT", "/proxies/Pick%0Aforged", {"name": "ss"})[0], 404)
        wait_for("the line", lambda: self.daemon.said("owner at 192.168.77.11: PUT /proxies/Pick%0Aforged"))
        self.assertFalse(self.daemon.said(SECRET))

    def stream(self, path, seconds=4):
        text = self.lab.ns("gw", "timeout", str(seconds), "curl", "-sN", "-H", f"Authorization: Bearer {SECRET}", f"http://{ROUTER_LAN}:9090{path}", check=False)
        return [json.loads(line) for line in text.splitlines()]

    def test_streams_have_their_shapes(self):
        traffic = self.stream("/traffic")
        self.assertGreaterEqual(len(traffic), 2)
        self.assertEqual(differences([{"up": NUMBER, "down": NUMBER, "upTotal": NUMBER, "downTotal": NUMBER}], traffic), [])
        memory = self.stream("/memory")
        self.assertEqual(differences([{"inuse": NUMBER, "oslimit": 0}], memory), [])
        self.assertTrue(memory[0]["inuse"] == 0 and memory[1]["inuse"] > 1 << 20)

    def test_logs_are_told_by_level_and_form(self):
        listen = lambda query: self.lab.spawn("gw", "timeout", "3", "curl", "-sN", "-H", f"Authorization: Bearer {SECRET}", f"http://{ROUTER_LAN}:9090/logs{query}",
                                              stdout=subprocess.PIPE, text=True)
        plain, structured, silent = listen("?level=debug"), listen("?level=info&format=structured"), listen("?level=silent")
        time.sleep(0.5)
        self.lab.curl("lan1", f"http://{DIRECT}/")
        lines = lambda process: [json.loads(line) for line in process.communicate(timeout=8)[0].splitlines()]
        plain = lines(plain)
        self.assertEqual(differences([{"type": {"debug", "info", "warning", "error"}, "payload": TEXT}], plain), [])
        self.assertTrue(plain)
        structured = lines(structured)
        shape = {"time": re.compile(r"\d\d:\d\d:\d\d$"), "level": {"info", "warn", "error"}, "message": TEXT, "fields": []}
        self.assertEqual(differences([shape], structured), [])
        self.assertTrue(any(DIRECT in line["message"] for line in structured))
        self.assertEqual(lines(silent), [])

    def test_connections_over_websocket_at_the_interval_asked_for(self):
        code = f"""
import socket, time, sys
s = socket.create_connection(('{ROUTER_LAN}', 9090), timeout=5)
s.sendall(b'GET /connections?interval=200&token={SECRET} HTTP/1.1\\r\\nHost: {ROUTER_LAN}\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n'
          b'Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\\r\\n')
f = s.makefile('rb')
assert b' 101 ' in f.readline()
while f.readline() != b'\\r\\n': pass
began, count = time.monotonic(), 0
while time.monotonic() - began < 2:
    first, length = f.read(2)
    if length == 126: length = int.from_bytes(f.read(2), 'big')
    assert f.read(length).startswith(b'{{"downloadTotal"') or first & 15 == 0
    count += first >> 7
print(count)
"""
        self.assertIn(int(self.lab.python("lan1", code)), range(8, 13))

    def test_metrics_are_prometheus_text(self):
        status, head, text = self.client.ask("GET", "/metrics", secret="only-look")
        self.assertEqual(status, 200)
        self.assertIn("Content-Type: text/plain; version=0.0.4; charset=utf-8", head)
        for line in text.splitlines():
            self.assertRegex(line, r'^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{[a-z]+="[^"]*"\})? \d+)$')
        self.assertRegex(text, r"headgate_traffic_bytes_total\{direction=\"down\"\} \d+")
        # A scraper with a password: "x:only-look" in base64.
        self.assertEqual(self.client.ask("GET", "/metrics", secret=None, fields=["Authorization: Basic eDpvbmx5LWxvb2s="])[0], 200)
        self.assertEqual(self.client.ask("GET", "/metrics", secret=None)[0], 401)

    def test_the_index_of_profiles_leads_to_them(self):
        status, head, text = self.client.ask("GET", "/debug/pprof/")
        self.assertEqual((status, re.findall("href=([a-z]+)", text)), (200, ["heap", "allocs"]))
        self.assertIn("Content-Type: text/html", head)
        for name in ("heap", "allocs"):
            self.assertEqual(self.client.ask("GET", f"/debug/pprof/{name}", secret=None)[0], 401)

    @unittest.skipUnless(shutil.which("go"), "no go")
    def test_go_reads_the_heap_profile(self):
        for name, kind in (("heap", "inuse_space"), ("allocs", "alloc_space")):
            url = f"http://x:{SECRET}@{ROUTER_LAN}:9090/debug/pprof/{name}"
            text = self.lab.ns("gw", "go", "tool", "pprof", "-top", url, env=os.environ | {"HOME": str(self.lab.directory)}, timeout=400)
            self.assertIn(f"Type: {kind}", text)
            self.assertRegex(text, r"blocks of \d+ bytes")

    def test_zz_a_restart_is_answered_and_done(self):
        pid, table = self.daemon.process.pid, self.lab.ns("gw", "nft", "list", "tables")
        self.daemon.api("PUT", "/proxies/Pick", {"name": "socks"})
        self.daemon.lines.clear()
        self.assertEqual(self.client.ask("POST", "/restart", {"path": "", "payload": ""})[::2], (200, '{"status":"ok"}\n'))
        wait_for("the new start", lambda: self.daemon.said("headgate ready in"))
        self.assertEqual(self.daemon.process.pid, pid)
        self.assertEqual(self.daemon.api("GET", "/proxies/Pick")[1]["now"], "socks")
        self.assertEqual(self.lab.ns("gw", "nft", "list", "tables"), table)
        self.assertEqual(self.lab.curl("lan1", f"http://{DIRECT}/")["client"], "5.5.5.2")
