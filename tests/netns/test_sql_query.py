"""SQL over the router's tables: POST /query on a LAN that was used."""


from lab import DIRECT, MAC1, PROXIED, ROUTER_LAN, LabTest, config, wait_for

EXTRA = """
mqtt:
  listeners: [{{name: tcp, type: tcp, listen: "{router}:1883"}}]
  allow-anonymous: true
management: {{listen: "{router}:8081", applications: [{{id: panel, secret: public}}]}}
"""


class SqlQuery(LabTest):
    CONFIG_TEXT = config() + EXTRA.format(router=ROUTER_LAN)

    def ask(self, sql, login="panel:public"):
        return self.daemon.manage("POST", "/query", {"sql": sql}, login)[1]

    def rows(self, sql):
        answer = self.ask(sql)
        self.assertEqual(answer["code"], 0, answer)
        return answer["data"]

    def test_the_issues_query_and_its_kin(self):
        # The first query begins the record.
        self.assertEqual(self.rows("SELECT device FROM flows WHERE live = false"), [])
        for _ in range(3):
            self.lab.ns("lan1", "curl", "-s", "-o", "/dev/null", f"http://{PROXIED}/bytes/50000")
        self.lab.ns("lan1", "curl", "-s", "-o", "/dev/null", f"http://{DIRECT}/bytes/1000")
        wait_for("their ends", lambda: self.rows("SELECT count(*) AS n FROM flows WHERE live = false")[0]["n"] >= 4)
        (row,) = self.rows("SELECT device, sum(down) FROM flows WHERE rule = 'Pick' GROUP BY device")
        self.assertEqual(row["device"], "192.168.77.11")
        self.assertGreaterEqual(row["sum(down)"], 150_000)
        rows = self.rows("SELECT outbound, count(*) AS n, max(down) AS most FROM flows GROUP BY outbound ORDER BY n DESC")
        self.assertEqual([(one["outbound"], one["n"]) for one in rows], [("ss", 3), ("DIRECT", 1)])
        slow = self.lab.spawn("lan1", "curl", "-s", "-o", "/dev/null", f"http://{PROXIED}/slow")
        wait_for("a living flow", lambda: self.rows(f"SELECT destination FROM flows WHERE live = true AND destination = '{PROXIED}'"))
        slow.kill()
        (device,) = self.rows("SELECT * FROM devices WHERE device = '192.168.77.11'")
        self.assertEqual(device["device_mac"], MAC1)
        self.assertGreaterEqual(device["down"], 151_000)

    def test_names_rules_and_clients(self):
        self.rows("SELECT count(*) AS n FROM dns")
        self.lab.dig("lan1", ROUTER_LAN, "www.real.test", "A", "-p", "1053")
        wait_for("the name", lambda: self.rows("SELECT name FROM dns WHERE name = 'www.real.test'"))
        (name,) = self.rows("SELECT device, name, answers, rcode FROM dns WHERE name = 'www.real.test' LIMIT 1")
        self.assertEqual(name, {"device": "192.168.77.11", "name": "www.real.test", "answers": [DIRECT], "rcode": 0})
        rules = self.rows("SELECT index, type, proxy FROM rules ORDER BY index LIMIT 2")
        self.assertEqual([(one["index"], one["proxy"]) for one in rules], [(0, "REJECT"), (1, "REJECT")])
        sub = self.lab.spawn("lan2", "mosquitto_sub", "-h", ROUTER_LAN, "-i", "asker", "-t", "x")
        wait_for("the client", lambda: self.rows("SELECT clientid FROM mqtt_clients WHERE clientid = 'asker'"))
        self.assertEqual(self.rows("SELECT address, connected, proto_ver FROM mqtt_clients WHERE clientid = 'asker'"),
                         [{"address": "192.168.77.12", "connected": True, "proto_ver": 4}])
        sub.kill()

    def test_mistakes_and_strangers(self):
        self.assertEqual(self.ask("SELECT * FROM users")["message"], 'sql: there is no table "users", but flows, devices, dns, rules, mqtt_clients')
        self.assertIn("line 1, column 8: expected a value", self.ask("SELECT FROM flows")["message"])
        self.assertEqual(self.ask("SELECT * FROM flows", "admin:wrong"), "UNAUTHORIZED")
