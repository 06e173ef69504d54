"""Rule providers and sub-rules in a live router: what a set says decides, and what it says next."""

import ipaddress
import pathlib
import subprocess
import sys
import tempfile
import unittest

from lab import DIRECT, HEADGATE, PROXIED, REJECTED, ROUTER_LAN, ROUTER_WAN, SHADOWSOCKS, SOCKS5, SOCKSED, Daemon, LabTest, config, wait_for

PROVIDERS = """
rule-providers:
  names: {type: inline, behavior: domain, payload: ['+.proxied.test']}
  nets: {type: file, behavior: ipcidr, format: text, path: rules/nets.txt}
  lists: {type: file, behavior: classical, path: rules/lists.yaml}
  missing: {type: file, behavior: domain, path: rules/missing.yaml}
sub-rules:
  web:
    - RULE-SET,lists,socks
    - DOMAIN,rejected.test,REJECT
rules:
"""

RULES = """
  - RULE-SET,missing,REJECT
  - RULE-SET,names,Pick
  - SUB-RULE,(NETWORK,tcp),web
  - RULE-SET,nets,Pick,no-resolve
  - MATCH,DIRECT
"""


class RuleSets(LabTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.directory = pathlib.Path(tempfile.mkdtemp(dir=cls.lab.directory))
        (cls.directory / "rules").mkdir()
        cls.nets = cls.directory / "rules/nets.txt"
        cls.nets.write_text(f"# what a person wrote\n{PROXIED}/32\nnonsense\n")
        (cls.directory / "rules/lists.yaml").write_text(f"payload:\n  - DOMAIN,socksed.test\n  - 'IP-CIDR,{SOCKSED}/32'\n")
        text = config("  offload: true", RULES, swap={"rules:\n": PROVIDERS})
        cls.daemon = Daemon(cls.lab, text, cls.directory).start()

    def seen(self, host, address=None):
        where = f"http://{host}/"
        fake = address or self.lab.dig("lan1", ROUTER_LAN, host)[0]
        answer = self.lab.curl("lan1", where, "--resolve", f"{host}:80:{fake}") if not address else self.lab.curl("lan1", f"http://{address}/")
        return answer and answer["client"]

    def test_names_addresses_and_rules_of_sets_decide(self):
        self.assertEqual(self.seen("proxied.test"), SHADOWSOCKS)
        self.assertEqual(self.seen("socksed.test"), SOCKS5)
        self.assertEqual(self.seen("", SOCKSED), SOCKS5)
        self.assertEqual(self.seen("", PROXIED), SHADOWSOCKS)
        self.assertEqual(self.seen("", DIRECT), ROUTER_WAN)
        self.assertIsNone(self.seen("rejected.test"))

    def test_the_api_shows_rules_and_providers(self):
        rules = self.daemon.api("GET", "/rules")[1]["rules"]
        self.assertEqual([(r["type"], r["payload"], r["proxy"]) for r in rules[1:3]],
                         [("RuleSet", "names", "Pick"), ("SubRules", "(NETWORK,tcp)", "web")])
        providers = self.daemon.api("GET", "/providers/rules")[1]["providers"]
        self.assertEqual({n: (p["behavior"], p["vehicleType"], p["ruleCount"]) for n, p in providers.items()},
                         {"names": ("Domain", "Inline", 1), "nets": ("IPCIDR", "File", 1), "lists": ("Classical", "File", 2), "missing": ("Domain", "File", 0)})
        self.assertEqual(providers["names"]["payload"], ["+.proxied.test"])

    def test_what_cannot_be_had_is_said_once_and_matches_nothing(self):
        said = [line for line in self.daemon.lines if "rule provider missing" in line]
        self.assertEqual(len(said), 1, said)
        self.assertTrue(self.daemon.said("rule provider nets: 1 entries passed over, the first in line 3"))

    def test_a_set_that_changes_takes_back_what_the_kernel_was_told(self):
        before = self.nets.read_text()
        # Certain to be DIRECT, and so in the kernel's set.
        self.assertEqual(self.seen("", REJECTED), ROUTER_WAN)
        self.nets.write_text(f"{REJECTED}/32\n")
        try:
            self.assertEqual(self.daemon.api("PUT", "/providers/rules/nets")[0], 204)
            wait_for("the proxy", lambda: self.seen("", REJECTED) == SHADOWSOCKS)
            self.assertEqual(self.seen("", PROXIED), ROUTER_WAN)
            self.nets.write_text("nothing usable\n")
            self.assertEqual(self.daemon.api("PUT", "/providers/rules/nets")[0], 503)
            self.assertEqual(self.seen("", REJECTED), SHADOWSOCKS)
        finally:
            self.nets.write_text(before)
            self.assertEqual(self.daemon.api("PUT", "/providers/rules/nets")[0], 204)
        self.assertEqual(self.daemon.api("PUT", "/providers/rules/nobody")[0], 404)


# Answers GET /NAME with the file NAME of its directory, by ETag; notes who asked, and what was said.
SERVER = """
import hashlib, http.server, pathlib, sys
directory = pathlib.Path(sys.argv[1])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path = directory / self.path.strip('/')
        if not path.exists():
            return self.say(404, b'')
        body = path.read_bytes()
        etag = '"' + hashlib.sha1(body).hexdigest() + '"'
        if self.headers['If-None-Match'] == etag:
            return self.say(304, b'')
        cut = path.name.startswith('cut')
        self.say(200, body, ('ETag', etag), length=len(body) + cut)
    def say(self, status, body, *fields, length=None):
        with (directory / 'asked').open('a') as asked:
            asked.write(f'{self.client_address[0]} {self.path} {status}\\n')
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        self.send_header('Content-Length', str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(('0.0.0.0', 8000), Handler).serve_forever()
"""

FETCHED = f"""
rule-providers:
  fetched: {{type: http, behavior: domain, format: text, url: 'http://{DIRECT}:8000/names', path: rules/fetched.txt, proxy: ss, interval: 3600}}
  cut: {{type: http, behavior: domain, format: text, url: 'http://www.direct.test:8000/cut'}}
  gone: {{type: http, behavior: domain, url: 'http://{DIRECT}:8000/gone'}}
rules:
"""

FETCHED_RULES = """
  - RULE-SET,gone,REJECT
  - RULE-SET,cut,REJECT
  - RULE-SET,fetched,Pick
  - MATCH,DIRECT
"""


class Downloads(LabTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.served = pathlib.Path(tempfile.mkdtemp(dir=cls.lab.directory))
        (cls.served / "names").write_text("+.proxied.test\n")
        (cls.served / "cut").write_text("+.test\n")
        cls.lab.spawn("wan", sys.executable, "-c", SERVER, str(cls.served))
        wait_for("the server", lambda: ":8000" in cls.lab.ns("wan", "ss", "-lnt"))
        cls.text = config("  offload: true", FETCHED_RULES, swap={"rules:\n": FETCHED})
        cls.daemon = Daemon(cls.lab, cls.text).start()
        cls.copy = cls.daemon.directory / "rules/fetched.txt"

    def asked(self, what):
        notes = self.served / "asked"
        return [line for line in notes.read_text().splitlines() if what in line] if notes.exists() else []

    def seen(self, host):
        address = self.lab.dig("lan1", ROUTER_LAN, host)
        answer = address and self.lab.curl("lan1", f"http://{host}/", "--resolve", f"{host}:80:{address[0]}")
        return answer and answer["client"]

    def test_a_set_is_fetched_kept_and_asked_for_by_its_tag(self):
        wait_for("the set", lambda: self.daemon.said("rule provider fetched: fetched"))
        wait_for("its rule", lambda: self.seen("proxied.test") == SHADOWSOCKS)
        self.assertEqual(self.asked("/names"), [f"{SHADOWSOCKS} /names 200"])
        self.assertEqual(self.copy.read_text(), "+.proxied.test\n")
        put = lambda: self.daemon.api("PUT", "/providers/rules/fetched")[0]
        self.assertEqual(put(), 204)
        self.assertEqual(self.asked("/names")[-1], f"{SHADOWSOCKS} /names 304")
        (self.served / "names").write_text("+.direct.test\n")
        self.assertEqual(put(), 204)
        wait_for("the new set", lambda: self.seen("direct.test") == SHADOWSOCKS)
        self.assertEqual(self.seen("proxied.test"), ROUTER_WAN)
        (self.served / "names").write_text("<!DOCTYPE html>\n")
        self.assertEqual(put(), 503)
        self.assertEqual(self.copy.read_text(), "+.direct.test\n")
        self.assertEqual(self.seen("direct.test"), SHADOWSOCKS)
        # A new start has the copy before it has any network, and does not ask again within the hour.
        self.assertEqual(self.daemon.stop(), 0)
        before = len(self.asked("/names"))
        type(self).daemon = Daemon(self.lab, self.text, self.daemon.directory).start()
        self.assertEqual(self.daemon.api("GET", "/providers/rules")[1]["providers"]["fetched"]["ruleCount"], 1)
        self.assertEqual(self.seen("direct.test"), SHADOWSOCKS)
        self.assertEqual(len(self.asked("/names")), before)

    def test_a_download_that_is_cut_or_missing_is_no_set(self):
        wait_for("the failures", lambda: self.daemon.said("rule provider cut: unexpected end of file; its rules match nothing"))
        wait_for("the failures", lambda: self.daemon.said("rule provider gone: the server answers 404; its rules match nothing"))
        providers = self.daemon.api("GET", "/providers/rules")[1]["providers"]
        self.assertEqual((providers["cut"]["ruleCount"], providers["cut"]["vehicleType"]), (0, "HTTP"))
        self.assertEqual(providers["cut"]["updatedAt"], "0001-01-01T00:00:00Z")
        self.assertTrue(self.asked("/cut")[0].startswith(ROUTER_WAN))
        self.assertFalse(list((self.daemon.directory / "rules").glob("*.new")))


def field(number, content):
    """A field of protobuf with bytes in it, of less than 128 bytes."""
    return bytes([number << 3 | 2, len(content)]) + content


def geosite(**lists):
    """A geosite.dat; each list is of (kind, name, attribute or None)."""
    kinds = {"keyword": 0, "regex": 1, "domain": 2, "full": 3}
    file = b""
    for name, entries in lists.items():
        body = field(1, name.upper().encode())
        for kind, value, attribute in entries:
            domain = bytes([1 << 3, kinds[kind]]) + field(2, value.encode())
            domain += field(3, field(1, attribute.encode()) + b"\x10\x01") if attribute else b""
            body += field(2, domain)
        file += b"\x0a" + bytes([len(body)]) + body
    return file


def text(value):
    return bytes([0x40 | len(value)]) + value.encode()


def mmdb(**codes):
    """A metadb (MaxMind DB, 24 bits) of IPv4 addresses: code to list of addresses."""
    nodes, data, places = [[None, None]], b"", {}
    for code, addresses in codes.items():
        places[code] = len(data)
        data += text(code)
        for address in addresses:
            bits, node = f"{int(ipaddress.IPv4Address(address)):0128b}", 0
            for bit in map(int, bits[:-1]):
                if nodes[node][bit] is None:
                    nodes.append([None, None])
                    nodes[node][bit] = len(nodes) - 1
                node = nodes[node][bit]
            nodes[node][int(bits[-1])] = ("record", code)
    value = lambda side: len(nodes) if side is None else side if isinstance(side, int) else len(nodes) + 16 + places[side[1]]
    tree = b"".join(value(side).to_bytes(3, "big") for node in nodes for side in node)
    number = lambda n: b"\xc4" + n.to_bytes(4, "big")
    metadata = {"node_count": number(len(nodes)), "record_size": number(24), "ip_version": number(6),
                "binary_format_major_version": number(2), "database_type": text("Meta-geoip0")}
    pairs = b"".join(text(key) + item for key, item in metadata.items())
    return tree + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + bytes([0xe0 | len(metadata)]) + pairs


GEO = f"""
geox-url: {{mmdb: 'http://{DIRECT}:8000/country', geosite: 'http://{DIRECT}:8000/sites'}}
rule-providers:
  lists: {{type: file, behavior: classical, path: lists.yaml}}
rules:
"""

GEO_RULES = """
  - GEOSITE,shop@ads,REJECT
  - GEOSITE,shop,Pick
  - RULE-SET,lists,socks
  - GEOIP,nowhere,REJECT
  - GEOIP,XX,Pick
  - GEOIP,lan,REJECT
  - MATCH,DIRECT
"""


class Geodata(LabTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.served = pathlib.Path(tempfile.mkdtemp(dir=cls.lab.directory))
        cls.directory = pathlib.Path(tempfile.mkdtemp(dir=cls.lab.directory))
        sites = geosite(other=[("domain", "test", None)], shop=[("full", "rejected.test", "ads"), ("keyword", "roxie", None)])
        (cls.directory / "geosite.DAT").write_bytes(sites)
        (cls.served / "sites").write_bytes(sites)
        (cls.directory / "lists.yaml").write_text("payload:\n  - GEOIP,yy\n")
        cls.lab.spawn("wan", sys.executable, "-c", SERVER, str(cls.served))
        wait_for("the server", lambda: ":8000" in cls.lab.ns("wan", "ss", "-lnt"))
        cls.text = config("  offload: true", GEO_RULES, swap={"rules:\n": GEO})
        cls.daemon = Daemon(cls.lab, cls.text, cls.directory).start()

    seen = RuleSets.seen

    def put(self):
        return self.daemon.api("POST", "/configs/geo")[0]

    def test_names_of_lists_decide_and_what_is_missing_is_fetched(self):
        self.assertEqual(self.seen("proxied.test"), SHADOWSOCKS)
        self.assertIsNone(self.seen("rejected.test"))
        self.assertEqual(self.seen("direct.test"), ROUTER_WAN)
        # The database of countries is not there: said with the place of the rule, and nobody is cut off.
        self.assertTrue(self.daemon.said("rules[4]: geoip:xx: geoip.metadb is not there; the rule matches nothing"))
        self.assertEqual(self.seen("", PROXIED), ROUTER_WAN)
        (self.served / "country").write_bytes(mmdb(xx=[PROXIED], yy=[SOCKSED]))
        wait_for("the database", lambda: self.daemon.said("geoip.metadb: fetched"), 20)
        # What the kernel had been told of the address is taken back.
        wait_for("the country", lambda: self.seen("", PROXIED) == SHADOWSOCKS)
        self.assertEqual(self.seen("", SOCKSED), SOCKS5)
        self.assertEqual(self.seen("", DIRECT), ROUTER_WAN)
        rules = self.daemon.api("GET", "/rules")[1]["rules"]
        self.assertEqual([(r["type"], r["payload"], r["size"]) for r in rules[:2]], [("GeoSite", "shop@ads", 1), ("GeoSite", "shop", 2)])
        self.assertEqual((rules[4]["type"], rules[4]["payload"], rules[4]["size"]), ("GeoIP", "xx", 1))
        # A broken one is refused and the good copy kept.
        (self.served / "country").write_bytes(b"<html>")
        self.assertEqual(self.put(), 500)
        self.assertEqual(self.seen("", PROXIED), SHADOWSOCKS)
        (self.served / "country").write_bytes(mmdb(xx=[REJECTED]))
        self.assertEqual(self.put(), 204)
        wait_for("the new country", lambda: self.seen("", REJECTED) == SHADOWSOCKS)

    def test_without_fail_soft_a_missing_database_is_an_error_at_its_rule(self):
        where = pathlib.Path(tempfile.mkdtemp(dir=self.lab.directory))
        file = where / "config.yaml"
        file.write_text("geodata-fail-soft: false\nrules:\n  - GEOIP,lan,DIRECT\n  - GEOIP,XX,DIRECT\n")
        for command in ("check", "run"):
            done = subprocess.run([HEADGATE, command, "-d", where, "-f", file], capture_output=True, text=True, timeout=20, check=False)
            self.assertEqual(done.returncode, 1)
            self.assertEqual(done.stderr, f"{file}:4:5: rules[1]: geoip:xx: geoip.metadb is not there\n")
        (where / "Country.mmdb").write_bytes(mmdb(zz=[DIRECT]))
        done = subprocess.run([HEADGATE, "check", "-d", where, "-f", file], capture_output=True, text=True, timeout=20, check=False)
        self.assertEqual(done.stderr, f"{file}:4:5: rules[1]: geoip:xx: Country.mmdb has no such category\n")
        (where / "Country.mmdb").write_bytes(mmdb(xx=[DIRECT]))
        done = subprocess.run([HEADGATE, "check", "-d", where, "-f", file], capture_output=True, text=True, timeout=20, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))


WATCHED_RULES = """
  - SRC-HOST,laptop,REJECT
  - PROCESS-NAME,curl,REJECT
  - DOMAIN,proxied.test,Pick
  - SUB-RULE,(NETWORK,tcp),web
  - MATCH,DIRECT
"""

WATCHED = """
sub-rules: {web: ['DOMAIN,socksed.test,socks']}
rules:
"""


class Watched(LabTest):
    """What rules do is counted, they are switched off and on, and each decision is explained."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.leases = cls.lab.directory / "leases"
        cls.leases.write_text("1 02:77:00:00:00:12 192.168.77.12 Laptop *\n")
        swap = {"rules:\n": WATCHED, "dns:\n": f"dns:\n  lease-files: [{cls.leases}]\n"}
        cls.daemon = Daemon(cls.lab, config("  offload: true", WATCHED_RULES, swap=swap)).start()

    seen = RuleSets.seen

    def extra(self, index):
        return self.daemon.api("GET", "/rules")[1]["rules"][index]["extra"]

    def explain(self, query):
        status, answer = self.daemon.api("GET", f"/explain?{query}")
        self.assertEqual(status, 200)
        return answer

    def test_hits_and_misses_are_counted_and_a_rule_is_switched_off(self):
        before = self.extra(2), self.extra(4)
        self.assertEqual(self.seen("proxied.test"), SHADOWSOCKS)
        after = self.extra(2), self.extra(4)
        self.assertEqual(after[0]["hitCount"], before[0]["hitCount"] + 1)
        self.assertEqual(after[1]["missCount"], before[1]["missCount"])
        # What never happened was in 1970, as with mihomo.
        for extra in (self.extra(index) for index in range(5)):
            self.assertEqual(extra["hitCount"] == 0, extra["hitAt"].startswith("1970-01-01T"))
        self.assertEqual(self.daemon.api("PATCH", "/rules/disable", {"2": True, "99": True})[0], 204)
        self.assertTrue(self.extra(2)["disabled"])
        self.assertEqual(self.seen("proxied.test"), ROUTER_WAN)
        self.assertEqual(self.explain("host=proxied.test")["rules"][2]["answer"], "switched off")
        self.assertEqual(self.daemon.api("PATCH", "/rules/disable", {"2": False})[0], 204)
        self.assertEqual(self.seen("proxied.test"), SHADOWSOCKS)
        for bad in ({"x": True}, {"1": 1}, []):
            self.assertEqual(self.daemon.api("PATCH", "/rules/disable", bad)[0], 400)

    def test_a_device_is_known_by_the_name_of_its_lease(self):
        self.assertEqual(self.seen("direct.test"), ROUTER_WAN)
        address = self.lab.dig("lan2", ROUTER_LAN, "direct.test")[0]
        self.assertIsNone(self.lab.curl("lan2", "http://direct.test/", "--resolve", f"direct.test:80:{address}"))

    def test_programs_of_the_router_are_known_by_name(self):
        proxy = ("--proxy", "socks5h://127.0.0.1:7890")
        self.assertIsNone(self.lab.curl("gw", "http://direct.test/", *proxy))
        code = ("import socket,sys\ns=socket.create_connection(('127.0.0.1',7890));s.sendall(b'GET http://direct.test/ HTTP/1.1\\r\\nHost: direct.test\\r\\nConnection: close\\r\\n\\r\\n')\n"
                "sys.stdout.write(s.makefile().read())")
        self.assertIn(ROUTER_WAN, self.lab.ns("gw", sys.executable, "-c", code))

    def test_a_decision_is_explained_as_it_is_made(self):
        answer = self.explain("host=socksed.test&src=192.168.77.11")
        self.assertEqual(answer["decision"]["rule"], 3)
        self.assertEqual(answer["decision"]["chains"], ["socks"])
        self.assertEqual(answer["decision"]["subRules"][0]["payload"], "socksed.test")
        self.assertEqual([rule["answer"] for rule in answer["rules"]], ["no", "no", "no", "yes"])
        line = self.daemon.file.read_text().splitlines()[int(answer["rules"][3]["place"].split(":")[1]) - 1]
        self.assertIn("SUB-RULE", line)
        self.assertEqual(answer["kernel"]["certainlyDirect"], False)
        answer = self.explain("host=elsewhere.test&src=192.168.77.12&network=udp")
        self.assertEqual((answer["flow"]["sourceHost"], answer["decision"]["rule"]), ("Laptop", 0))
        said = self.lab.ns("gw", HEADGATE, "explain", "-d", str(self.daemon.directory), "-f", str(self.daemon.file), "socksed.test:80", "src=192.168.77.11")
        self.assertIn("SubRules((NETWORK,tcp)) -> web: yes", said)
        self.assertIn("goes: socks", said)
        self.assertEqual(self.daemon.api("GET", "/explain")[0], 400)


class Conversion(unittest.TestCase):
    def test_sets_become_mrs_and_text_again(self):
        with tempfile.TemporaryDirectory() as place:
            place = pathlib.Path(place)
            convert = lambda *words: subprocess.run([HEADGATE, "convert-ruleset", *map(str, words)], capture_output=True, text=True, timeout=20, check=False)
            names = [f"+.name{i}.example.org" for i in range(2000)] + ["*.b.org", ".c.org", "d.org"]
            (place / "names.yaml").write_text("payload:\n" + "".join(f"  - '{name}'\n" for name in names))
            done = convert("domain", "yaml", place / "names.yaml", place / "names.mrs")
            self.assertEqual((done.returncode, done.stdout), (0, f"{place}/names.mrs: 2003 entries, 0 passed over\n"), done.stderr)
            # Any zstd reads it.
            self.assertEqual((place / "names.mrs").read_bytes()[:4], b"\x28\xb5\x2f\xfd")
            self.assertLess((place / "names.mrs").stat().st_size, 20000)
            self.assertEqual(convert("domain", "mrs", place / "names.mrs", place / "names.txt").returncode, 0)
            self.assertEqual(sorted((place / "names.txt").read_text().split()), sorted(names))
            (place / "nets.txt").write_text("10.0.0.0/9\n10.128.0.0/9\n2001:db8::/32\n# why\n1.1.1.1\n")
            self.assertEqual(convert("ipcidr", "text", place / "nets.txt", place / "nets.mrs").returncode, 0)
            self.assertEqual(convert("ipcidr", "mrs", place / "nets.mrs", place / "again.txt").returncode, 0)
            self.assertEqual((place / "again.txt").read_text(), "1.1.1.1/32\n10.0.0.0/8\n2001:db8::/32\n")
            broken = convert("domain", "mrs", place / "nets.mrs", place / "names.txt")
            self.assertEqual((broken.returncode, broken.stderr), (1, f"{place}/nets.mrs: an mrs file of another behavior\n"))
            self.assertEqual(len((place / "names.txt").read_text().split()), len(names))
