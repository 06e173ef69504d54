"""The Xray gRPC API over a live LAN: grpcio by reflection, and xtlsapi, which knows Xray alone."""

import base64
import contextlib
import json
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import time

from lab import DIRECT, HEADGATE, PROXIED, REJECTED, ROUTER_LAN, ROUTER_WAN, RULES, SOCKS5, LabTest, config, wait_for
from test_rulesets import geosite

CLIENT = str(pathlib.Path(__file__).with_name("xray_client.py"))

XRAY = f"""
listeners:
  - {{name: members, type: socks, listen: {ROUTER_LAN}, port: 1081, users: [{{username: ann, password: a}}, {{username: bob, password: b}}]}}
xray-api:
  listen: 127.0.0.1:10085
"""

STATS = "xray.app.stats.command.StatsService"
NOT_FOUND, UNIMPLEMENTED = 5, 12


class XrayTest(LabTest):
    """A daemon with the API and a Python that calls it."""

    CONFIG_TEXT = config() + XRAY

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = cls.lab.spawn("gw", sys.executable, CLIENT, "127.0.0.1", "10085", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert cls.client.stdout.readline() == "ready\n"

    @classmethod
    def tearDownClass(cls):
        cls.client.stdin.close()
        cls.client.wait(timeout=10)
        super().tearDownClass()

    def ask(self, **command):
        self.client.stdin.write(json.dumps(command) + "\n")
        self.client.stdin.flush()
        answer = json.loads(self.client.stdout.readline())
        self.assertNotIn("exception", answer)
        return answer

    def call(self, service, method, **request):
        """The response of a call that succeeds."""
        answer = self.ask(call=f"{service}/{method}", request=request)
        self.assertEqual(answer["code"], 0, answer)
        return answer["response"]

    def fails(self, code, end, service, method, **request):
        answer = self.ask(call=f"{service}/{method}", request=request)
        self.assertEqual(answer["code"], code, answer)
        self.assertTrue(answer["message"].endswith(end), answer["message"])

    def xtlsapi(self, method, *arguments, client="XrayClient"):
        return self.ask(xtlsapi=client, method=method, arguments=arguments)

    def fetch(self, proxy, address=DIRECT, path="/", where="lan1"):
        return self.lab.curl(where, f"http://{address}{path}", "-x", proxy)


class Stats(XrayTest):
    def traffic(self, party, name):
        values = {}
        for stat in self.call(STATS, "QueryStats", pattern=f"{party}>>>{name}>>>").get("stat", []):
            values[stat["name"].rpartition(">>>")[2]] = stat.get("value", 0)
        return values

    def test_reflection_lists_both_names_of_every_service(self):
        services = self.ask(list="")["services"]
        self.assertEqual(services, sorted(services))
        for name in ("xray.app.stats.command.StatsService", "v2ray.core.app.stats.command.StatsService", "grpc.reflection.v1.ServerReflection",
                     "grpc.reflection.v1alpha.ServerReflection", "xray.app.log.command.LoggerService"):
            self.assertIn(name, services)

    def test_the_logger_is_restarted(self):
        self.assertEqual(self.call("xray.app.log.command.LoggerService", "RestartLogger"), {})
        self.assertNotIn("error", self.xtlsapi("restart_logger"))

    def test_traffic_is_counted_by_listener_outbound_and_user(self):
        before = self.traffic("outbound", "DIRECT")
        self.assertTrue(self.fetch(f"socks5://ann:a@{ROUTER_LAN}:1081"))
        wait_for("ann's bytes", lambda: self.traffic("user", "ann").get("downlink", 0) > 0)
        user, inbound = self.traffic("user", "ann"), self.traffic("inbound", "members")
        self.assertGreater(user["uplink"], 0)
        self.assertGreaterEqual(inbound["downlink"], user["downlink"])
        self.assertGreaterEqual(self.traffic("outbound", "DIRECT")["downlink"], before["downlink"] + user["downlink"])

    def test_xtlsapi_reads_and_resets(self):
        self.assertTrue(self.fetch(f"socks5://bob:b@{ROUTER_LAN}:1081"))
        wait_for("bob's bytes", lambda: self.traffic("user", "bob").get("downlink", 0) > 0)
        down = self.xtlsapi("get_client_download_traffic", "bob", True)["answer"]
        self.assertGreater(down, 0)
        self.assertEqual(self.xtlsapi("get_client_download_traffic", "bob")["answer"], 0)
        self.assertGreater(self.xtlsapi("get_client_upload_traffic", "bob")["answer"], 0)
        self.assertGreater(self.xtlsapi("get_client_upload_traffic", "bob", client="SingboxClient")["answer"], 0)
        self.assertIsNone(self.xtlsapi("get_client_upload_traffic", "nobody")["answer"])
        names = [name for name, _ in self.xtlsapi("stats_query", "inbound>>>members")["answer"]]
        self.assertEqual(names, [f"inbound>>>members>>>traffic>>>{way}" for way in ("downlink", "uplink")])

    def test_a_counter_that_is_not_there_is_not_found(self):
        name = "inbound>>>nothing>>>traffic>>>uplink"
        self.fails(NOT_FOUND, f"{name} not found.", STATS, "GetStats", name=name)
        self.fails(NOT_FOUND, "user>>>eve>>>online not found.", STATS, "GetStatsOnline", name="user>>>eve>>>online")

    def test_who_is_online_and_from_where(self):
        slow = self.lab.spawn("lan1", "curl", "-s", "-m", "30", "-o", "/dev/null", "-x", f"socks5://ann:a@{ROUTER_LAN}:1081", f"http://{DIRECT}/slow")
        online = "user>>>ann>>>online"
        wait_for("ann", lambda: self.call(STATS, "GetAllOnlineUsers").get("users") == [online])
        self.assertEqual(self.call(STATS, "GetStatsOnline", name=online)["stat"]["value"], 1)
        self.assertEqual(list(self.call(STATS, "GetStatsOnlineIpList", name=online)["ips"]), ["192.168.77.11"])
        (user,) = self.call(STATS, "GetUsersStats", include_traffic=True)["users"]
        self.assertEqual((user["email"], user["ips"][0]["ip"]), ("ann", "192.168.77.11"))
        self.assertIn("traffic", user)
        slow.kill()
        wait_for("nobody", lambda: not self.call(STATS, "GetAllOnlineUsers"))

    def test_the_system_is_described(self):
        wait_for("a second", lambda: self.call(STATS, "GetSysStats").get("Uptime", 0) > 0)
        self.assertGreater(self.call(STATS, "GetSysStats")["Sys"], 1_000_000)


HANDLER = "xray.app.proxyman.command.HandlerService"
UNKNOWN, INVALID = 2, 3


def socks_inbound(tag, port, accounts=None):
    return {
        "tag": tag,
        "receiver_settings": {
            "@type": "xray.app.proxyman.ReceiverConfig",
            "port_list": {"range": [{"From": port, "To": port}]},
            "listen": {"ip": base64.b64encode(socket.inet_aton(ROUTER_LAN)).decode()},
        },
        "proxy_settings": {"@type": "xray.proxy.socks.ServerConfig", "auth_type": int(bool(accounts)), "accounts": accounts or {}, "udp_enabled": True},
    }


def outbound(tag, kind, **settings):
    return {"tag": tag, "proxy_settings": {"@type": kind, **settings}}


def endpoint(host, port, **more):
    return {"address": {"ip": base64.b64encode(socket.inet_aton(host)).decode()}, "port": port, **more}


def user(name, password="x"):
    account = {"@type": "xray.proxy.socks.Account", "username": name, "password": password}
    return {"@type": "xray.app.proxyman.command.AddUserOperation", "user": {"email": name, "account": account}}


def no_user(name):
    return {"@type": "xray.app.proxyman.command.RemoveUserOperation", "email": name}


class Handler(XrayTest):
    def tags(self):
        return [inbound["tag"] for inbound in self.call(HANDLER, "ListInbounds", isOnlyTags=True)["inbounds"]]

    def outbounds(self):
        return {outbound["tag"]: outbound["proxy_settings"] for outbound in self.call(HANDLER, "ListOutbounds")["outbounds"]}

    def proxies(self):
        return self.daemon.api("GET", "/proxies")[1]["proxies"]

    def test_an_inbound_comes_works_outlives_a_reload_and_goes(self):
        self.assertIn("DEFAULT-MIXED", self.tags())
        self.fails(UNKNOWN, "existing tag found: members", HANDLER, "AddInbound", inbound=socks_inbound("members", 1090))
        self.call(HANDLER, "AddInbound", inbound=socks_inbound("fresh", 1090, {"eve": "e"}))
        self.assertTrue(self.fetch(f"socks5://eve:e@{ROUTER_LAN}:1090"))
        self.assertIsNone(self.fetch(f"socks5://eve:x@{ROUTER_LAN}:1090"))
        (shown,) = [inbound for inbound in self.call(HANDLER, "ListInbounds")["inbounds"] if inbound["tag"] == "fresh"]
        self.assertEqual(shown["proxy_settings"], {"@type": "xray.proxy.socks.ServerConfig", "auth_type": 1, "accounts": {"eve": ""}, "udp_enabled": True})
        self.assertEqual(shown["receiver_settings"]["port_list"], {"range": [{"From": 1090, "To": 1090}]})
        self.daemon.signal(signal.SIGHUP)
        wait_for("the reload", lambda: self.daemon.said("configuration reloaded"))
        self.assertTrue(self.fetch(f"socks5://eve:e@{ROUTER_LAN}:1090"))
        self.call(HANDLER, "RemoveInbound", tag="fresh")
        self.assertNotIn("fresh", self.tags())
        self.assertIsNone(self.fetch(f"socks5://eve:e@{ROUTER_LAN}:1090"))
        self.fails(UNKNOWN, "not enough information for making a decision", HANDLER, "RemoveInbound", tag="fresh")

    def test_an_inbound_that_cannot_listen_is_not_kept(self):
        for _ in range(2):
            self.fails(UNKNOWN, "in use", HANDLER, "AddInbound", inbound=socks_inbound("twice", 1081))
        self.assertNotIn("twice", self.tags())
        self.fails(INVALID, "inbound is missing", HANDLER, "AddInbound")
        self.fails(UNKNOWN, "not a ReceiverConfig", HANDLER, "AddInbound", inbound={"tag": "t"})

    def test_users_come_at_once_and_are_cut_when_they_go(self):
        self.call(HANDLER, "AlterInbound", tag="members", operation=user("mal", "m"))
        self.fails(UNKNOWN, "User MAL already exists.", HANDLER, "AlterInbound", tag="members", operation=user("MAL"))
        stays = self.lab.spawn("lan1", "curl", "-s", "-m", "30", "-o", "/dev/null", "-x", f"socks5://ann:a@{ROUTER_LAN}:1081", f"http://{DIRECT}/slow")
        goes = self.lab.spawn("lan1", "curl", "-s", "-m", "30", "-o", "/dev/null", "-x", f"socks5://mal:m@{ROUTER_LAN}:1081", f"http://{DIRECT}/slow")
        wait_for("both", lambda: len(self.call(STATS, "GetAllOnlineUsers").get("users", [])) == 2)
        self.assertEqual(self.call(HANDLER, "GetInboundUsersCount", tag="members")["count"], 3)
        users = self.call(HANDLER, "GetInboundUsers", tag="members")["users"]
        self.assertEqual([one["email"] for one in users], ["ann", "bob", "mal"])
        self.assertNotIn("password", json.dumps(users))
        self.assertEqual(self.call(HANDLER, "GetInboundUsers", tag="members", email="nobody")["users"], [{}])
        self.call(HANDLER, "AlterInbound", tag="members", operation=no_user("Mal"))
        goes.wait(timeout=5)
        self.assertIsNone(stays.poll())
        stays.kill()
        self.assertIsNone(self.fetch(f"socks5://mal:m@{ROUTER_LAN}:1081"))
        self.fails(UNKNOWN, "User mal not found.", HANDLER, "AlterInbound", tag="members", operation=no_user("mal"))
        self.fails(UNKNOWN, "Email must not be empty.", HANDLER, "AlterInbound", tag="members", operation=no_user(""))
        self.fails(UNKNOWN, "proxy is not a UserManager", HANDLER, "GetInboundUsers", tag="DEFAULT-TPROXY" if "DEFAULT-TPROXY" in self.tags() else "DEFAULT-MIXED")

    def test_the_last_user_stays_lest_the_door_be_open(self):
        self.call(HANDLER, "AddInbound", inbound=socks_inbound("single", 1091, {"eve": "e"}))
        self.fails(UNKNOWN, "open to everybody", HANDLER, "AlterInbound", tag="single", operation=no_user("eve"))
        self.assertIsNone(self.fetch(f"socks5://{ROUTER_LAN}:1091"))
        self.call(HANDLER, "RemoveInbound", tag="single")

    def test_xtlsapi_understands_why_not(self):
        self.assertEqual(self.xtlsapi("remove_client", "members", "nobody")["error"], "EmailNotFound")
        self.assertEqual(self.xtlsapi("remove_client", "nothing", "ann")["error"], "InboundNotFound")

    def test_operations_that_are_none(self):
        account = {"@type": "xray.proxy.socks.Account"}
        self.fails(UNKNOWN, "not an inbound operation", HANDLER, "AlterInbound", tag="members", operation=account)
        self.fails(UNKNOWN, "not an outbound operation", HANDLER, "AlterOutbound", tag="DIRECT", operation=account)
        self.fails(INVALID, "operation is missing", HANDLER, "AlterInbound", tag="members")

    def test_an_outbound_comes_into_the_clash_api_carries_and_goes(self):
        node = outbound("fresh-node", "xray.proxy.socks.ClientConfig", server=endpoint(SOCKS5, 1080))
        self.call(HANDLER, "AddOutbound", outbound=node)
        self.fails(UNKNOWN, "existing tag found: fresh-node", HANDLER, "AddOutbound", outbound=node)
        self.fails(UNKNOWN, "existing tag found: Pick", HANDLER, "AddOutbound", outbound={**node, "tag": "Pick"})
        self.assertEqual(self.proxies()["fresh-node"]["type"], "Socks5")
        self.assertEqual(self.outbounds()["fresh-node"]["server"]["port"], 1080)
        self.assertEqual(self.outbounds()["ss"]["@type"], "xray.proxy.shadowsocks.ClientConfig")
        self.assertEqual(self.outbounds()["DIRECT"]["@type"], "xray.proxy.freedom.Config")
        self.assertEqual(self.daemon.api("PUT", "/proxies/GLOBAL", {"name": "fresh-node"})[0], 204)
        try:
            self.daemon.api("PATCH", "/configs", {"mode": "global"})
            self.assertEqual(self.lab.curl("lan1", f"http://{DIRECT}/")["client"], SOCKS5)
        finally:
            self.daemon.api("PATCH", "/configs", {"mode": "rule"})
            self.daemon.api("PUT", "/proxies/GLOBAL", {"name": "DIRECT"})
        self.call(HANDLER, "RemoveOutbound", tag="fresh-node")
        self.assertNotIn("fresh-node", self.proxies())
        self.call(HANDLER, "RemoveOutbound", tag="fresh-node")
        self.fails(UNKNOWN, "not enough information for making a decision", HANDLER, "RemoveOutbound")

    def test_groups_shrink_when_a_member_goes(self):
        self.assertIn("socks", self.proxies()["Pick"]["all"])
        self.call(HANDLER, "RemoveOutbound", tag="socks")
        self.assertNotIn("socks", self.proxies()["Pick"]["all"])
        self.daemon.signal(signal.SIGHUP)
        wait_for("the reload", lambda: "socks" in self.proxies()["Pick"]["all"])


ROUTING = "xray.app.router.command.RoutingService"


def router(*rules, balancers=()):
    return {"@type": "xray.app.router.Config", "rule": list(rules), "balancing_rule": list(balancers)}


def source_rule(tag, to, source):
    ip = base64.b64encode(socket.inet_aton(source)).decode()
    return {"tag": to, "rule_tag": tag, "source_ip": [{"custom": {"cidr": {"ip": ip, "prefix": 32}}}]}


class Routing(XrayTest):
    def rules(self):
        return [rule.get("ruleTag", "") for rule in self.call(ROUTING, "ListRule")["rules"]]

    def seen(self, address=DIRECT):
        answer = self.lab.curl("lan1", f"http://{address}/")
        return answer and answer["client"]

    def test_an_added_rule_decides_shows_in_the_clash_api_cuts_and_goes(self):
        self.assertEqual(self.seen(), ROUTER_WAN)
        slow = self.lab.spawn("lan1", "curl", "-s", "-m", "30", "-o", "/dev/null", f"http://{DIRECT}/slow", stdout=subprocess.DEVNULL)
        wait_for("the flow", lambda: self.daemon.connections())
        block = source_rule("sourceIpBlock", "REJECT", "192.168.77.11")
        self.call(ROUTING, "AddRule", config=router(block), shouldAppend=True)
        slow.wait(timeout=5)
        self.fails(UNKNOWN, "duplicate ruleTag sourceIpBlock", ROUTING, "AddRule", config=router(block), shouldAppend=True)
        self.assertIsNone(self.lab.curl("lan1", "http://5.5.5.1/"))
        shown = [(rule["type"], rule["payload"], rule["proxy"]) for rule in self.daemon.api("GET", "/rules")[1]["rules"]]
        self.assertEqual(shown[-2:], [("SrcIPCIDR", "192.168.77.11/32", "REJECT"), ("Match", "", "DIRECT")])
        self.assertEqual(self.rules()[-2:], ["sourceIpBlock", ""])
        self.call(ROUTING, "RemoveRule", ruleTag="sourceIpBlock")
        self.assertNotIn("sourceIpBlock", self.rules())
        self.call(ROUTING, "RemoveRule", ruleTag="sourceIpBlock")
        self.fails(UNKNOWN, "empty tag name!", ROUTING, "RemoveRule")

    def test_lists_and_countries_of_geodata_decide(self):
        (self.daemon.directory / "GeoSite.dat").write_bytes(geosite(shop=[("full", "www.real.test", "ads"), ("full", "other.test", None)]))
        named = lambda: self.lab.curl("lan1", "http://www.real.test/", "-x", f"socks5h://{ROUTER_LAN}:7890")
        self.assertIsNotNone(named())
        rule = {"tag": "REJECT", "rule_tag": "shop", "domain": [{"geosite": {"file": "geosite.dat", "code": "SHOP", "attrs": "ads"}}]}
        self.call(ROUTING, "AddRule", config=router(rule), shouldAppend=True)
        wait_for("the category", lambda: named() is None)
        self.assertIsNotNone(self.lab.curl("lan1", f"http://{DIRECT}/"))
        self.call(ROUTING, "RemoveRule", ruleTag="shop")
        wait_for("the rule to go", named)
        home = {"tag": "REJECT", "rule_tag": "home", "source_ip": [{"geoip": {"code": "PRIVATE"}}]}
        self.call(ROUTING, "AddRule", config=router(home), shouldAppend=True)
        self.assertIsNone(self.lab.curl("lan1", f"http://{DIRECT}/"))
        self.call(ROUTING, "RemoveRule", ruleTag="home")
        other = {"tag": "REJECT", "rule_tag": "x", "domain": [{"geosite": {"file": "other.dat", "code": "SHOP"}}]}
        self.fails(UNKNOWN, 'no rule for the file "other.dat"', ROUTING, "AddRule", config=router(other), shouldAppend=True)

    def test_rules_that_cannot_be_are_refused_whole(self):
        before = self.rules()
        good = source_rule("good", "REJECT", "192.168.77.99")
        self.fails(UNKNOWN, "this rule has no effective fields", ROUTING, "AddRule", config=router(good, {"tag": "DIRECT"}), shouldAppend=True)
        self.fails(UNKNOWN, "balancer nowhere not found", ROUTING, "AddRule", config=router(good, {"balancing_tag": "nowhere", "inbound_tag": ["x"]}), shouldAppend=True)
        self.fails(UNKNOWN, "headgate has no rule for protocol", ROUTING, "AddRule", config=router({"tag": "DIRECT", "protocol": ["bittorrent"]}))
        self.fails(UNKNOWN, "config type error", ROUTING, "AddRule", config={"@type": "xray.proxy.socks.Account"})
        self.assertEqual(self.rules(), before)

    def test_a_balancer_is_a_group_that_can_be_forced(self):
        self.fails(UNKNOWN, "cannot find tag", ROUTING, "GetBalancerInfo", tag="DIRECT")
        self.fails(UNKNOWN, "cannot find tag", ROUTING, "OverrideBalancerTarget", balancerTag="nothing", target="ss")
        info = self.call(ROUTING, "GetBalancerInfo", tag="Pick")["balancer"]
        self.assertEqual(info["principle_target"]["tag"], ["ss", "socks", "DIRECT", "REJECT"])
        self.call(ROUTING, "OverrideBalancerTarget", balancerTag="Pick", target="DIRECT")
        self.assertEqual(self.daemon.api("GET", "/proxies/Pick")[1]["now"], "DIRECT")
        self.assertEqual(self.call(ROUTING, "GetBalancerInfo", tag="Pick")["balancer"]["override"]["target"], "DIRECT")
        self.fails(UNKNOWN, "does not take \"nobody\"", ROUTING, "OverrideBalancerTarget", balancerTag="Pick", target="nobody")
        self.call(ROUTING, "OverrideBalancerTarget", balancerTag="Pick")
        self.assertEqual(self.daemon.api("GET", "/proxies/Pick")[1]["now"], "ss")

    def test_a_balancer_of_ones_own_follows_the_outbounds(self):
        rule = {"balancing_tag": "mine", "rule_tag": "by-mine", "domain": [{"custom": {"type": "Full", "value": "balanced.test"}}]}
        balancer = {"tag": "mine", "outbound_selector": ["soc"], "strategy": "roundrobin"}
        self.call(ROUTING, "AddRule", config=router(rule, balancers=[balancer]), shouldAppend=True)
        self.assertEqual(self.daemon.api("GET", "/proxies/mine")[1]["all"], ["socks"])
        self.call(HANDLER, "AddOutbound", outbound=outbound("soc2", "xray.proxy.freedom.Config"))
        self.assertEqual(self.daemon.api("GET", "/proxies/mine")[1]["all"], ["socks", "soc2"])
        self.call(ROUTING, "OverrideBalancerTarget", balancerTag="mine", target="soc2")
        self.assertEqual(self.call(ROUTING, "GetBalancerInfo", tag="mine")["balancer"]["override"]["target"], "soc2")
        context = {"TargetDomain": "balanced.test", "TargetPort": 80, "Network": "TCP"}
        self.assertEqual({self.call(ROUTING, "TestRoute", RoutingContext=context)["OutboundTag"] for _ in range(4)}, {"soc2"})
        for _ in range(2):
            self.call(ROUTING, "OverrideBalancerTarget", balancerTag="mine")
        self.call(HANDLER, "RemoveOutbound", tag="soc2")
        route = self.call(ROUTING, "TestRoute", RoutingContext={"TargetDomain": "balanced.test", "TargetPort": 80, "Network": "TCP"})
        self.assertEqual(route["OutboundTag"], "socks")
        self.fails(UNKNOWN, "duplicate balancer tag", ROUTING, "AddRule", config=router(balancers=[balancer]), shouldAppend=True)
        self.call(ROUTING, "RemoveRule", ruleTag="by-mine")

    def test_a_route_is_tried(self):
        ip = base64.b64encode(socket.inet_aton(REJECTED)).decode()
        route = self.call(ROUTING, "TestRoute", RoutingContext={"TargetIPs": [ip], "TargetPort": 443, "InboundTag": "x"}, FieldSelectors=["outbound", "inbound"])
        self.assertEqual(route, {"OutboundTag": "REJECT", "InboundTag": "x"})
        self.fails(UNKNOWN, "Invalid routing request.", ROUTING, "TestRoute")
        self.fails(UNKNOWN, "Routing statistics not enabled.", ROUTING, "SubscribeRoutingStats")

    def test_rules_that_replace_leave_the_match_until_a_reload(self):
        count = len(self.rules())
        self.call(ROUTING, "AddRule", config=router(source_rule("only", "REJECT", "192.168.77.99")))
        self.assertEqual(self.rules(), ["only", ""])
        self.assertEqual(self.seen(PROXIED), ROUTER_WAN)
        self.daemon.signal(signal.SIGHUP)
        wait_for("the file's rules", lambda: len(self.rules()) == count + 1)
        self.call(ROUTING, "RemoveRule", ruleTag="only")


ID, OTHER_ID = "66ad4540-b58c-4ad2-9926-ea63445a9b57", "11ad4540-b58c-4ad2-9926-ea63445a9b58"
KEY, USER_KEY, OTHER_KEY = (base64.b64encode(bytes([n] * 16)).decode() for n in (1, 2, 3))
# Port, what the listener is, the client's proxy of a newcomer, and the newcomer's account.
ACCOUNTS = {
    "vmess": (21001, f"users: [{{username: old, uuid: {OTHER_ID}}}]", f"type: vmess, uuid: {ID}, cipher: auto", {"id": ID}),
    "vless": (21002, f"users: [{{username: old, uuid: {OTHER_ID}}}]", f"type: vless, uuid: {ID}", {"id": ID, "encryption": "none"}),
    "trojan": (21003, "certificate: ../leaf.pem, private-key: ../key.pem, users: [{username: old, password: x}]", "type: trojan, password: newcomer, skip-cert-verify: true", {"password": "newcomer"}),
    "shadowsocks": (21004, "cipher: aes-128-gcm, users: [{username: old, password: x}]", "type: ss, cipher: aes-128-gcm, password: newcomer", {"password": "newcomer", "cipher_type": 5}),
    "shadowsocks_2022": (21005, f"cipher: 2022-blake3-aes-128-gcm, password: '{KEY}', users: [{{username: old, password: '{OTHER_KEY}'}}]",
                         f"type: ss, cipher: 2022-blake3-aes-128-gcm, password: '{KEY}:{USER_KEY}'", {"key": USER_KEY}),
}
# RFC 7748 section 6.1: Bob's pair.
PUBLIC_KEY, PRIVATE_KEY = "3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx-FG-IK08", "XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os="
UDP_ECHO = """
import socket, sys
control = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
control.sendall(b"\\x05\\x01\\x00")
control.recv(2)
control.sendall(b"\\x05\\x03\\x00\\x01" + bytes(6))
relay = ("127.0.0.1", int.from_bytes(control.recv(10)[8:10], "big"))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
def echoed():
    s.sendto(b"\\0\\0\\0\\x01" + socket.inet_aton(sys.argv[2]) + (9000).to_bytes(2, "big") + b"hi", relay)
    try:
        return s.recv(100)[10:12] == b"hi"
    except TimeoutError:
        return False
print(any(echoed() for _ in range(5)), flush=True)
sys.stdin.readline()
print(any(echoed() for _ in range(3)), flush=True)
"""


class Users(XrayTest):
    """Users of servers who come and go; a headgate in the LAN is their client."""

    CONFIG_TEXT = config() + XRAY.replace("listeners:\n", "listeners:\n" + "".join(
        f"  - {{name: in-{name}, type: {name.partition('_')[0]}, listen: {ROUTER_LAN}, port: {port}, {keys}}}\n" for name, (port, keys, *_) in ACCOUNTS.items()))

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        other = cls.lab.directory / "client"
        other.mkdir()
        proxies = "".join(f"  - {{name: {name}, server: {ROUTER_LAN}, port: {port}, udp: true, {keys}}}\n" for name, (port, _, keys, _) in ACCOUNTS.items())
        listeners = "".join(f"  - {{name: l-{name}, type: socks, listen: 127.0.0.1, port: {port}, proxy: {name}}}\n" for name, (port, *_) in ACCOUNTS.items())
        proxies += (f"  - {{name: reality, type: vless, server: {ROUTER_LAN}, port: 21007, uuid: {ID}, tls: true, servername: site.test, "
                    f"reality-opts: {{public-key: {PUBLIC_KEY}, short-id: '01ab'}}}}\n")
        listeners += "  - {name: l-reality, type: socks, listen: 127.0.0.1, port: 21007, proxy: reality}\n"
        (other / "config.yaml").write_text(f"proxies:\n{proxies}listeners:\n{listeners}rules: ['MATCH,REJECT']\n")
        cls.lab.spawn("lan1", HEADGATE, "-d", str(other), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for port, *_ in ACCOUNTS.values():
            wait_for("the client", lambda: f":{port} " in cls.lab.ns("lan1", "ss", "-lnt"))

    def seen(self, name):
        answer = self.fetch(f"socks5h://127.0.0.1:{ACCOUNTS[name][0]}")
        return answer and answer["client"]

    def add(self, name, email, **more):
        account = {"@type": f"xray.proxy.{name}.Account", **ACCOUNTS[name][3], **more}
        operation = {"@type": "xray.app.proxyman.command.AddUserOperation", "user": {"email": email, "account": account}}
        return self.ask(call=f"{HANDLER}/AlterInbound", request={"tag": f"in-{name}", "operation": operation})

    def counted(self, email):
        stats = self.call(STATS, "QueryStats", pattern=f"user>>>{email}>>>traffic").get("stat", [])
        return {stat["name"].rpartition(">>>")[2]: stat.get("value", 0) for stat in stats}

    def test_a_user_comes_counts_and_is_cut_when_he_goes(self):
        for name, (port, *_) in ACCOUNTS.items():
            with self.subTest(name):
                email = f"new@{name}"
                self.assertIsNone(self.seen(name))
                self.assertEqual(self.add(name, email)["code"], 0)
                again = self.add(name, email.upper())
                self.assertEqual((again["code"], again["message"].split("> ")[-1]), (UNKNOWN, f"app/proxyman/command: User {email.upper()} already exists."))
                self.assertEqual(self.call(HANDLER, "GetInboundUsersCount", tag=f"in-{name}")["count"], 2)
                users = self.call(HANDLER, "GetInboundUsers", tag=f"in-{name}")["users"]
                self.assertEqual([one["email"] for one in users], ["old", email])
                self.assertEqual(users[0]["account"], {"@type": f"xray.proxy.{name}.Account"})
                self.assertEqual(self.seen(name), ROUTER_WAN)
                wait_for("bytes", lambda: self.counted(email).get("downlink", 0) > 0 and self.counted(email).get("uplink", 0) > 0)
                slow = self.lab.spawn("lan1", "curl", "-s", "-m", "30", "-o", "/dev/null", "-x", f"socks5h://127.0.0.1:{port}", f"http://{DIRECT}/slow")
                datagrams = self.lab.spawn("lan1", sys.executable, "-c", UDP_ECHO, str(port), DIRECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                self.assertEqual(datagrams.stdout.readline(), "True\n")
                online = f"user>>>{email}>>>online"
                wait_for("him", lambda: self.call(STATS, "GetStatsOnline", name=online)["stat"].get("value") == 1)
                self.assertEqual(list(self.call(STATS, "GetStatsOnlineIpList", name=online)["ips"]), ["192.168.77.11"])
                self.call(HANDLER, "AlterInbound", tag=f"in-{name}", operation=no_user(email))
                slow.wait(timeout=5)
                datagrams.stdin.write("\n")
                datagrams.stdin.flush()
                self.assertEqual(datagrams.stdout.readline(), "False\n")
                datagrams.wait(timeout=5)
                self.assertIsNone(self.seen(name))
                self.assertNotIn(online, self.call(STATS, "GetAllOnlineUsers").get("users", []))
                self.fails(UNKNOWN, f"User {email} not found.", HANDLER, "AlterInbound", tag=f"in-{name}", operation=no_user(email))
                # He has been counted; the counters stay.
                self.assertGreater(self.counted(email)["downlink"], 0)

    def test_accounts_that_prove_nothing_are_refused(self):
        for name, account, why in (("vmess", {"id": "x" * 31}, f"invalid UUID: {'x' * 31}"), ("vless", {"id": ""}, "invalid UUID: "), ("trojan", {"password": ""}, "a password is missing"),
                                   ("shadowsocks", {"cipher_type": 6}, "Unsupported cipher."), ("shadowsocks_2022", {"key": "AAEC"}, "password is not a base64 key of 16 bytes")):
            answer = self.add(name, "bad@user", **account)
            self.assertEqual(answer["code"], UNKNOWN)
            self.assertTrue(answer["message"].endswith(why), answer)
        self.assertTrue(self.add("vmess", "")["message"].endswith("a user needs an email here"))

    def test_xtlsapi_manages_users(self):
        for protocol, secret in (("vmess", ID.replace("-", "")), ("vless", ID), ("shadowsocks", "newcomer")):
            with self.subTest(protocol):
                more = ["aes_128_gcm"] if protocol == "shadowsocks" else []
                arguments = [f"in-{protocol}", secret, f"x@{protocol}", protocol, 0, 0, "", *more]
                self.assertNotIn("error", self.xtlsapi("add_client", *arguments))
                self.assertEqual(self.xtlsapi("add_client", *arguments)["error"], "EmailAlreadyExists")
                self.assertEqual(self.seen(protocol), ROUTER_WAN)
                wait_for("bytes", lambda: (self.xtlsapi("get_client_download_traffic", f"x@{protocol}")["answer"] or 0) > 0)
                self.assertNotIn("error", self.xtlsapi("remove_client", f"in-{protocol}", f"x@{protocol}"))
                self.assertIsNone(self.seen(protocol))

    def test_an_inbound_is_made_with_its_users_and_may_lose_them_all(self):
        account = {"@type": "xray.proxy.vmess.Account", "id": ID}
        inbound = socks_inbound("fresh", 21006) | {"proxy_settings": {"@type": "xray.proxy.vmess.inbound.Config", "user": [{"email": "one@fresh", "account": account}]}}
        self.call(HANDLER, "AddInbound", inbound=inbound)
        (shown,) = [one for one in self.call(HANDLER, "ListInbounds")["inbounds"] if one["tag"] == "fresh"]
        self.assertEqual(shown["proxy_settings"], {"@type": "xray.proxy.vmess.inbound.Config", "user": [{"email": "one@fresh"}]})
        self.call(HANDLER, "AlterInbound", tag="fresh", operation=no_user("one@fresh"))
        self.assertEqual(self.call(HANDLER, "GetInboundUsersCount", tag="fresh").get("count", 0), 0)
        self.daemon.signal(signal.SIGHUP)
        wait_for("the reload", lambda: self.daemon.said("configuration reloaded"))
        self.assertEqual(self.call(HANDLER, "GetInboundUsersCount", tag="fresh").get("count", 0), 0)
        self.call(HANDLER, "RemoveInbound", tag="fresh")
        self.fails(UNKNOWN, "supported cipher for all users here", HANDLER, "AddInbound",
                   inbound=inbound | {"proxy_settings": {"@type": "xray.proxy.shadowsocks.ServerConfig"}})

    def test_an_inbound_of_reality_is_added(self):
        kind, account = "xray.transport.internet.reality.Config", {"@type": "xray.proxy.vless.Account", "id": ID}
        reality = {"@type": kind, "dest": f"{DIRECT}:443", "server_names": ["site.test"], "private_key": PRIVATE_KEY, "max_time_diff": 60000,
                   "short_ids": [base64.b64encode(bytes.fromhex("01ab000000000000")).decode()]}
        inbound = socks_inbound("hidden", 21007) | {"proxy_settings": {"@type": "xray.proxy.vless.inbound.Config", "users": [{"email": "me@hidden", "account": account}]}}
        inbound["receiver_settings"]["stream_settings"] = {"security_type": kind, "security_settings": [reality]}
        self.call(HANDLER, "AddInbound", inbound=inbound)
        answer = self.fetch("socks5h://127.0.0.1:21007")
        self.assertEqual(answer and answer["client"], ROUTER_WAN)
        wait_for("bytes", lambda: self.counted("me@hidden").get("downlink", 0) > 0)
        self.call(HANDLER, "RemoveInbound", tag="hidden")
        reality["xver"] = 1
        self.fails(UNKNOWN, "headgate does not support the PROXY protocol to the site in REALITY", HANDLER, "AddInbound", inbound=inbound)

    def test_fallbacks_are_added_choose_by_name_and_protocol_and_are_shown(self):
        servers = [self.lab.socket("gw") for _ in range(3)]
        for server in servers:
            self.addCleanup(server.close)
            server.settimeout(30)
            server.bind(("127.0.0.1", 0))
            server.listen()
        plain, named, spoken = (f"127.0.0.1:{server.getsockname()[1]}" for server in servers)
        fallbacks = [{"dest": plain, "type": "tcp"}, {"name": "a.test", "dest": named, "type": "tcp"}, {"name": "a.test", "alpn": "h2", "dest": spoken, "type": "tcp"}]
        kind = "xray.transport.internet.tls.Config"
        files = {"certificate": base64.b64encode((self.lab.directory / "leaf.pem").read_bytes()).decode(), "key": base64.b64encode((self.lab.directory / "key.pem").read_bytes()).decode()}
        for tag, settings in (("vless", "xray.proxy.vless.inbound.Config"), ("trojan", "xray.proxy.trojan.ServerConfig")):
            inbound = socks_inbound(f"fallen-{tag}", 21008) | {"proxy_settings": {"@type": settings, "fallbacks": fallbacks}}
            inbound["receiver_settings"]["stream_settings"] = {"security_type": kind, "security_settings": [{"@type": kind, "certificate": [files]}]}
            self.call(HANDLER, "AddInbound", inbound=inbound)
            (shown,) = [one for one in self.call(HANDLER, "ListInbounds")["inbounds"] if one["tag"] == f"fallen-{tag}"]
            self.assertEqual(shown["proxy_settings"]["fallbacks"], fallbacks)
            for name, alpn, server in (("b.test", "h2", 0), ("a.test", "http/1.1", 1), ("a.test", "h2", 2)):
                with self.subTest(f"{tag} {name} {alpn}"):
                    context = ssl.create_default_context()
                    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                    context.set_alpn_protocols([alpn])
                    asked = f"GET /{name} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode()
                    with context.wrap_socket(self.lab.connect("lan1", ROUTER_LAN, 21008, 30), server_hostname=name) as stranger:
                        self.assertEqual(stranger.selected_alpn_protocol(), alpn)
                        stranger.sendall(asked)
                        there, _ = servers[server].accept()
                        there.settimeout(30)
                        self.assertEqual(there.recv(4096), asked)
                        there.sendall(b"it is me")
                        self.assertEqual(stranger.recv(100), b"it is me")
                        there.close()
            self.call(HANDLER, "RemoveInbound", tag=f"fallen-{tag}")

    def test_users_added_outlive_a_reload_and_nobody_else_notices(self):
        self.assertEqual(self.add("vless", "stays@vless")["code"], 0)
        slow = self.lab.spawn("lan1", "curl", "-s", "-m", "30", "-o", "/dev/null", "-x", f"socks5h://127.0.0.1:{ACCOUNTS['vless'][0]}", f"http://{DIRECT}/slow")
        wait_for("the flow", lambda: "user>>>stays@vless>>>online" in self.call(STATS, "GetAllOnlineUsers").get("users", []))
        self.assertEqual(self.add("vless", "other@vless", id=OTHER_ID.replace("1", "2"))["code"], 0)
        self.daemon.signal(signal.SIGHUP)
        wait_for("the reload", lambda: self.daemon.said("configuration reloaded"))
        self.assertEqual(self.seen("vless"), ROUTER_WAN)
        self.assertIsNone(slow.poll())
        slow.kill()
        for email in ("stays@vless", "other@vless"):
            self.call(HANDLER, "AlterInbound", tag="in-vless", operation=no_user(email))


OBSERVATORY = "xray.core.app.observatory.command.ObservatoryService"


class Kept(XrayTest):
    """What survives a restart, and quotas."""

    CONFIG_TEXT = config() + XRAY + "  persist: true\n  quotas: {bob: 1MB, '*': 1TB}\n  rates: {ann: 200KB}\n"

    def counted(self, name):
        stats = self.call(STATS, "QueryStats", pattern=f"user>>>{name}>>>traffic").get("stat", [])
        return sum(stat.get("value", 0) for stat in stats)

    def restart(self):
        type(self).client.stdin.close()
        type(self).client.wait(timeout=10)
        self.daemon.stop()
        self.daemon.start()
        type(self).client = self.lab.spawn("gw", sys.executable, CLIENT, "127.0.0.1", "10085", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.assertEqual(type(self).client.stdout.readline(), "ready\n")

    def test_changes_and_counters_survive_a_restart(self):
        self.call(HANDLER, "AlterInbound", tag="members", operation=user("eve", "e"))
        self.call(HANDLER, "AddInbound", inbound=socks_inbound("fresh", 1090, {"mal": "m"}))
        self.call(HANDLER, "AddInbound", inbound=socks_inbound("taken", 1092, {"mal": "m"}))
        self.call(HANDLER, "AddOutbound", outbound=outbound("extra", "xray.proxy.freedom.Config"))
        rule = {"balancing_tag": "mine", "rule_tag": "by-mine", "domain": [{"custom": {"type": "Full", "value": "balanced.test"}}]}
        self.call(ROUTING, "AddRule", config=router(rule, balancers=[{"tag": "mine", "outbound_selector": ["ext"]}]), shouldAppend=True)
        self.assertTrue(self.fetch(f"socks5://eve:e@{ROUTER_LAN}:1081"))
        wait_for("eve's bytes", lambda: self.counted("eve") > 0)
        before = self.counted("eve")
        # A port that somebody took meanwhile keeps nobody from starting.
        thief = self.lab.spawn("gw", sys.executable, "-c", "import socket, time; s = socket.socket(); s.setsockopt(1, 15, 1); s.setsockopt(1, 2, 1)\n"
                               f"while True:\n try: s.bind(('{ROUTER_LAN}', 1092)); break\n except OSError: time.sleep(0.01)\ns.listen(); time.sleep(60)")
        self.restart()
        thief.kill()
        file = self.daemon.directory / "xray.json"
        self.assertEqual(file.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.counted("eve"), before)
        self.assertTrue(self.fetch(f"socks5://eve:e@{ROUTER_LAN}:1081"))
        self.assertTrue(self.fetch(f"socks5://mal:m@{ROUTER_LAN}:1090"))
        self.assertIn("by-mine", [rule.get("ruleTag") for rule in self.call(ROUTING, "ListRule")["rules"]])
        self.assertEqual(self.daemon.api("GET", "/proxies/mine")[1]["all"], ["extra"])
        for tag in ("fresh", "taken"):
            self.call(HANDLER, "RemoveInbound", tag=tag)
        self.call(HANDLER, "AlterInbound", tag="members", operation=no_user("eve"))
        self.call(ROUTING, "RemoveRule", ruleTag="by-mine")
        self.restart()
        self.assertIsNone(self.fetch(f"socks5://eve:e@{ROUTER_LAN}:1081"))

    def test_who_has_used_his_month_up_is_cut_and_kept_out_over_a_restart(self):
        bob, ann = f"socks5://bob:b@{ROUTER_LAN}:1081", f"socks5://ann:a@{ROUTER_LAN}:1081"
        self.assertTrue(self.fetch(bob))
        slow = self.lab.spawn("lan1", "curl", "-s", "-m", "60", "-o", "/dev/null", "-x", bob, f"http://{DIRECT}/slow")
        self.lab.ns("lan1", "curl", "-s", "-m", "20", "-x", bob, f"http://{DIRECT}/bytes/3000000", "-o", "/dev/null")
        slow.wait(timeout=20)
        self.assertIsNone(self.fetch(bob))
        self.assertTrue(self.fetch(ann))
        self.assertTrue(self.daemon.said("quota is used up"))
        self.restart()
        wait_for("the quota", lambda: self.fetch(bob) is None)
        self.assertTrue(self.fetch(ann))

    def test_a_user_keeps_to_his_rate_over_all_his_flows(self):
        flow = ("curl", "-s", "-m", "60", "-o", "/dev/null", "-w", "%{size_download}", "-x", f"socks5://ann:a@{ROUTER_LAN}:1081", f"http://{DIRECT}/bytes/300000")
        begun = time.monotonic()
        flows = [self.lab.spawn("lan1", *flow, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        for one in flows:
            self.assertEqual(one.communicate(timeout=60)[0], "300000")
        # 600,000 bytes at 204,800 a second, of which it may be ahead by a tenth and by a piece for each.
        self.assertGreater(time.monotonic() - begun, 2.5)

    def test_the_observatory_shows_what_tests_found(self):
        self.assertEqual(self.daemon.api("GET", f"/proxies/DIRECT/delay?url=http://{DIRECT}/&timeout=3000")[0], 200)
        status = self.call(OBSERVATORY, "GetOutboundStatus")["status"]["status"]
        (direct,) = [one for one in status if one["outbound_tag"] == "DIRECT"]
        self.assertTrue(direct["alive"] and 0 < direct["delay"] < 3000)
        self.assertGreaterEqual(direct["last_try_time"], direct["last_seen_time"])
        self.daemon.api("GET", "/proxies/DIRECT/delay?url=http://5.5.5.99:1/&timeout=300")
        status = self.call(OBSERVATORY, "GetOutboundStatus")["status"]["status"]
        (direct,) = [one for one in status if one["outbound_tag"] == "DIRECT"]
        self.assertEqual((direct.get("alive", False), direct["delay"]), (False, 99999999))

    def test_services_answer_to_their_v2ray_names(self):
        self.assertTrue(self.call("v2ray.core.app.proxyman.command.HandlerService", "ListInbounds", isOnlyTags=True)["inbounds"])
        self.fails(UNKNOWN, "handler not found: nothing", "v2ray.core.app.proxyman.command.HandlerService", "GetInboundUsers", tag="nothing")
        self.assertTrue(self.call("v2ray.core.app.router.command.RoutingService", "ListRule")["rules"])
        self.fails(UNKNOWN, "empty tag name!", "v2ray.core.app.router.command.RoutingService", "RemoveRule")
        self.assertEqual(self.call("v2ray.core.app.log.command.LoggerService", "RestartLogger"), {})
        self.assertIn("Sys", self.call("v2ray.core.app.stats.command.StatsService", "GetSysStats"))
        self.fails(NOT_FOUND, "x not found.", "v2ray.core.app.stats.command.StatsService", "GetStats", name="x")


class Few(XrayTest):
    CONFIG_TEXT = config() + XRAY + "  services: [StatsService, ReflectionService]\n"

    def test_a_service_that_is_off_is_not_there(self):
        self.assertEqual(self.ask(list="")["services"], ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
                                                          "v2ray.core.app.stats.command.StatsService", "xray.app.stats.command.StatsService"])
        for service, method in ((HANDLER, "ListInbounds"), (ROUTING, "ListRule"), (OBSERVATORY, "GetOutboundStatus"), ("xray.app.log.command.LoggerService", "RestartLogger")):
            self.fails(UNIMPLEMENTED, f"unknown service {service}", service, method)


class Refused(LabTest):
    def test_a_configuration_mistake_is_told_with_its_place(self):
        for text, place in (("xray-api: {listen: 0.0.0.0:1}\n", "1:20: xray-api.listen:"), ("xray-api: {services: [Nothing]}\n", "1:23: xray-api.services[0]:"),
                            ("xray-api: {quotas: {ann: lots}}\n", "1:26: xray-api.quotas.ann:"),
                            ("xray-api: {rates: {ann: 0}}\n", "1:25: xray-api.rates.ann:")):
            file = self.lab.directory / "bad.yaml"
            file.write_text(text)
            done = subprocess.run([HEADGATE, "check", "-f", str(file)], capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn(f"bad.yaml:{place}", done.stderr)


POLICY = f"""
listeners:
  - {{name: members, type: socks, listen: {ROUTER_LAN}, port: 1081, users: [{{username: ann, password: a, level: 1}}, {{username: bob, password: b}}, {{username: cat, password: c, level: 2}}]}}
  - {{name: hidden, type: vless, listen: {ROUTER_LAN}, port: 1082, users: [{{username: ann, uuid: {ID}}}]}}
xray-api:
  policy:
    levels:
      0: {{handshake: 600, connIdle: 3600}}
      1: {{connIdle: 3600, uplinkOnly: 1, downlinkOnly: 1, statsUserUplink: true, statsUserDownlink: true, statsUserOnline: true, bufferSize: 4}}
      2: {{connIdle: 2, statsUserUplink: true}}
    system: {{statsInboundUplink: true, statsOutboundDownlink: true}}
"""


class Policies(XrayTest):
    """What a level says of who logs in."""

    CONFIG_TEXT = config() + POLICY

    def counters(self, party, name):
        return sorted(stat["name"].rpartition(">>>")[2] for stat in self.call(STATS, "QueryStats", pattern=f"{party}>>>{name}>>>").get("stat", []))

    def far(self):
        """A server of the Internet's that says nothing of itself."""
        server = self.lab.socket("wan")
        self.addCleanup(server.close)
        server.settimeout(30)
        server.bind((DIRECT, 0))
        server.listen()
        return server

    def through(self, name, server):
        """Both ends of a connection that somebody makes by SOCKS."""
        client = self.lab.connect("lan1", ROUTER_LAN, 1081, 30)
        self.addCleanup(client.close)
        login, (host, port) = name.encode(), server.getsockname()
        for said, answer in ((b"\x05\x01\x02", 2), (b"\x01" + bytes([len(login)]) + login + b"\x01" + login[:1], 2),
                             (b"\x05\x01\x00\x01" + socket.inet_aton(host) + port.to_bytes(2, "big"), 10)):
            client.sendall(said)
            self.assertEqual(client.recv(answer)[1], 0 if answer == 10 or said[0] == 1 else 2)
        there, _ = server.accept()
        self.addCleanup(there.close)
        there.settimeout(30)
        client.sendall(b"hello")
        self.assertEqual(there.recv(5), b"hello")
        return client, there

    @staticmethod
    def is_over(end):
        """Whether it ends, with or without a last word."""
        try:
            return end.recv(1) == b""
        except ConnectionResetError:
            return True

    def users(self):
        return sorted(one["metadata"]["inboundUser"] for one in self.daemon.connections() if one["metadata"]["inboundName"] == "members")

    def test_switches_say_which_counters_there_are(self):
        for name in ("ann", "bob", "cat"):
            self.assertTrue(self.fetch(f"socks5://{name}:{name[0]}@{ROUTER_LAN}:1081"))
        wait_for("ann's bytes", lambda: any(stat.get("value") for stat in self.call(STATS, "QueryStats", pattern="user>>>ann>>>")["stat"]))
        self.assertEqual([self.counters("user", name) for name in ("ann", "bob", "cat")], [["downlink", "uplink"], [], ["uplink"]])
        self.assertEqual((self.counters("inbound", "members"), self.counters("outbound", "DIRECT")), (["uplink"], ["downlink"]))
        self.fails(NOT_FOUND, "user>>>bob>>>traffic>>>uplink not found.", STATS, "GetStats", name="user>>>bob>>>traffic>>>uplink")
        self.assertEqual(self.xtlsapi("get_client_upload_traffic", "bob")["answer"], None)
        self.assertGreater(self.xtlsapi("get_client_upload_traffic", "cat")["answer"], 0)

    def test_who_is_online_is_told_of_some(self):
        server = self.far()
        ends = [self.through(name, server) for name in ("bob", "ann")]
        self.assertEqual(self.call(STATS, "GetAllOnlineUsers")["users"], ["user>>>ann>>>online"])
        self.assertEqual(self.call(STATS, "GetStatsOnline", name="user>>>ann>>>online")["stat"]["value"], 1)
        self.fails(NOT_FOUND, "user>>>bob>>>online not found.", STATS, "GetStatsOnline", name="user>>>bob>>>online")
        for end in (end for pair in ends for end in pair):
            end.close()
        wait_for("their end", lambda: not self.users())

    def test_who_is_silent_is_cut_by_his_level(self):
        server = self.far()
        bob, ann, cat = (self.through(name, server) for name in ("bob", "ann", "cat"))
        self.assertEqual(self.users(), ["ann", "bob", "cat"])
        self.assertTrue(self.is_over(cat[0]) and self.is_over(cat[1]))
        wait_for("the others alone", lambda: self.users() == ["ann", "bob"])
        # One side has said all: the other may be silent for a second.
        ann[0].shutdown(socket.SHUT_WR)
        self.assertEqual(ann[1].recv(1), b"")
        self.assertTrue(self.is_over(ann[0]))
        ann = self.through("ann", server)
        ann[1].shutdown(socket.SHUT_WR)
        self.assertEqual(ann[0].recv(1), b"")
        wait_for("her end", lambda: self.users() == ["bob"])
        # Nothing of this is bob's: he may still speak.
        bob[0].shutdown(socket.SHUT_WR)
        self.assertEqual(bob[1].recv(1), b"")
        bob[1].sendall(b"well")
        self.assertEqual(bob[0].recv(4), b"well")
        for end in (*bob, *ann):
            end.close()
        wait_for("his end", lambda: not self.users())

    def test_a_level_comes_with_a_user(self):
        for name, level in (("eve", 1), ("mal", 0)):
            operation = user(name, name[0])
            operation["user"]["level"] = level
            self.call(HANDLER, "AlterInbound", tag="members", operation=operation)
        users = self.call(HANDLER, "GetInboundUsers", tag="members")["users"]
        self.assertEqual({one["email"]: one.get("level", 0) for one in users}, {"ann": 1, "bob": 0, "cat": 2, "eve": 1, "mal": 0})
        inbound = socks_inbound("fresh", 1093, {"dan": "d"})
        inbound["proxy_settings"]["user_level"] = 1
        self.call(HANDLER, "AddInbound", inbound=inbound)
        for name, port in (("eve", 1081), ("mal", 1081), ("dan", 1093)):
            self.assertTrue(self.fetch(f"socks5://{name}:{name[0]}@{ROUTER_LAN}:{port}"))
        wait_for("their counters", lambda: [len(self.counters("user", name)) for name in ("eve", "mal", "dan")] == [2, 0, 2])
        self.call(HANDLER, "RemoveInbound", tag="fresh")
        for name in ("eve", "mal"):
            self.call(HANDLER, "AlterInbound", tag="members", operation=no_user(name))

    def test_a_stranger_has_the_time_of_level_0_whatever_he_says(self):
        before = self.lab.connect("lan1", ROUTER_LAN, 1082)
        self.daemon.file.write_text(self.CONFIG_TEXT.replace("handshake: 600", "handshake: 1"))
        self.daemon.signal(signal.SIGHUP)
        wait_for("the reload", lambda: self.daemon.said("configuration reloaded"))
        strangers = [self.lab.connect("lan1", ROUTER_LAN, 1082, 30) for _ in range(3)]
        for stranger, said in zip(strangers, (b"", b"\0" + bytes(100), b"\0" + bytes.fromhex(ID.replace("-", ""))[:9])):
            stranger.sendall(said)
        for stranger in strangers:
            self.assertTrue(self.is_over(stranger))
            stranger.close()
        # Who came under the old policy has his ten minutes.
        before.setblocking(False)
        self.assertRaises(BlockingIOError, before.recv, 1)
        before.close()
        self.daemon.file.write_text(self.CONFIG_TEXT)
        reloads = lambda: sum("configuration reloaded" in line for line in self.daemon.lines)
        known = reloads()
        self.daemon.signal(signal.SIGHUP)
        wait_for("the reload", lambda: reloads() > known)


class Inward(XrayTest):
    """The API as Xray has it: behind a door and a rule, by an outbound of its tag."""

    CONFIG_TEXT = config(rules="\n  - IN-NAME,api-in,api" + RULES) + f"""
listeners:
  - {{name: api-in, type: tunnel, listen: 127.0.0.1, port: 10085, target: 127.0.0.1:1, network: [tcp]}}
  - {{name: api-lan, type: tunnel, listen: {ROUTER_LAN}, port: 10086, target: 127.0.0.1:1, network: [tcp], proxy: api}}
  - {{name: web, type: tunnel, listen: {ROUTER_LAN}, port: 1094, target: "{DIRECT}:80"}}
  - {{name: echo, type: tunnel, listen: {ROUTER_LAN}, port: 9001, target: "{DIRECT}:9000"}}
xray-api:
  tag: api
"""

    def by(self, where, host, port):
        """Another client's exit status, and what it says of the services."""
        client = self.lab.spawn(where, sys.executable, CLIENT, host, str(port), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        answer, _ = client.communicate(json.dumps({"list": ""}) + "\n", timeout=60)
        return json.loads(answer.splitlines()[1]) if "\n{" in answer else None

    def test_the_door_leads_to_the_api_and_is_counted(self):
        stats = lambda: {stat["name"]: stat.get("value", 0) for stat in self.call(STATS, "QueryStats", pattern="inbound>>>api-in>>>").get("stat", [])}
        wait_for("the API's own bytes", lambda: all(stats().values()) and len(stats()) == 2)
        self.assertNotIn("api", [one["tag"] for one in self.call(HANDLER, "ListOutbounds")["outbounds"]])
        doors = {one["tag"]: one["proxy_settings"] for one in self.call(HANDLER, "ListInbounds")["inbounds"]}
        self.assertEqual((doors["api-in"]["@type"], doors["api-in"]["rewrite_port"]), ("xray.proxy.dokodemo.Config", 1))
        self.assertEqual([one["metadata"]["type"] for one in self.daemon.connections() if one["chains"] == ["api"]], ["Tunnel"])
        self.fails(UNKNOWN, "existing tag found: api", HANDLER, "AddOutbound", outbound=outbound("api", "xray.proxy.freedom.Config"))

    def test_nobody_else_is_served_without_a_secret(self):
        stranger = self.lab.connect("lan1", ROUTER_LAN, 10086, 30)
        self.addCleanup(stranger.close)
        stranger.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(stranger.recv(1), b"")
        wait_for("the refusal", lambda: self.daemon.said("192.168.77.11 is refused"))

    def test_doors_and_rules_that_lead_there_come_and_go(self):
        door = socks_inbound("late", 10087) | {"proxy_settings": {"@type": "xray.proxy.dokodemo.Config", "rewrite_address": {"ip": "fwAAAQ=="}, "rewrite_port": 1}}
        door["receiver_settings"]["listen"] = {"ip": "fwAAAQ=="}
        self.call(HANDLER, "AddInbound", inbound=door)
        self.call(ROUTING, "AddRule", config=router({"tag": "api", "rule_tag": "to-api", "inbound_tag": ["late"]}), shouldAppend=True)
        self.assertIn("xray.app.stats.command.StatsService", self.by("gw", "127.0.0.1", 10087)["services"])
        self.daemon.signal(signal.SIGHUP)
        wait_for("the reload", lambda: self.daemon.said("configuration reloaded"))
        self.assertIn("xray.app.stats.command.StatsService", self.by("gw", "127.0.0.1", 10087)["services"])
        self.call(ROUTING, "RemoveRule", ruleTag="to-api")
        self.call(HANDLER, "RemoveInbound", tag="late")

    def test_a_tunnel_takes_streams_and_datagrams_to_its_target(self):
        self.assertEqual(self.lab.curl("lan1", f"http://{ROUTER_LAN}:1094/")["client"], ROUTER_WAN)
        self.assertEqual(self.lab.echo("lan1", ROUTER_LAN, 9001, "hello")["payload"], "hello")
        wait_for("their bytes", lambda: self.call(STATS, "QueryStats", pattern="inbound>>>echo>>>traffic>>>downlink")["stat"][0].get("value", 0) > 0)
