"""UCI files become YAML that the real daemon accepts, whatever stands in them."""

import unittest

from router import PACKAGE, Router

WHOLE = """
config headgate 'main'
	option enabled '1'
	option mode 'rule'
	option final 'Exit'

config transparent 'transparent'
	list interface 'lan'
	list interface 'guest'
	list interface 'eth7'
	list interface 'nowhere'
	option fail 'closed'
	list bypass '203.0.113.0/24'
	list bypass_source '192.168.1.77'

config dns 'dns'
	option mode 'fake-ip'
	list nameserver '1.1.1.1'
	list nameserver '9.9.9.9'
	list fake_ip_filter '+.lan'

config host
	option name 'nas.lan'
	list address '192.168.1.5'

config inbound 'inbound'
	option mixed_port '7890'
	option allow_lan '1'

config controller 'controller'
	option listen '192.168.1.1:9090'
	option secret 'it'\\''s "quoted": #1'

config proxy
	option name 'Tokyo'
	option type 'ss'
	option server 'node.example.net'
	option port '8388'
	option cipher 'chacha20-ietf-poly1305'
	option password 'pass: {word}'

config proxy
	option name 'Off'
	option enabled '0'
	option type 'ss'

config group
	option name 'Exit'
	option type 'select'
	list proxy 'Tokyo'
	list proxy 'DIRECT'

config schedule
	option name 'night'
	list day '1'
	list day '2'
	list day '3'
	option start '21:30'
	option stop '06:00'

config device
	option name 'Camera'
	option mac '02:00:00:aa:bb:cc'
	option policy 'block'

config device
	option name 'Tablet'
	option mac '02:00:00:aa:bb:dd'
	option policy 'block'
	option schedule 'night'

config device
	option name 'TV'
	option ip '192.168.1.20'
	option policy 'proxy'
	option target 'Exit'

config device
	option name 'Work'
	option mac '02:00:00:aa:bb:ee'
	option policy 'bypass'

config rule
	option type 'DOMAIN-SUFFIX'
	option value 'example.org'
	option target 'Exit'

config rule
	option enabled '0'
	option type 'DOMAIN'
	option value 'off.example'
	option target 'DIRECT'

config rule
	option type 'IP-CIDR'
	option value '192.0.2.0/24'
	option target 'DIRECT'
	option no_resolve '1'

config mqtt 'mqtt'
	option enabled '1'

config mqtt_listener
	option name 'lan'
	option listen '192.168.1.1:1883'

config mqtt_user
	option username 'ann'
	option password 'secret'

config mqtt_acl
	option permission 'deny'
	option action 'publish'
	list topic 'a/%u/#'
"""


class Generator(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.router = cls.enterClassContext(Router())

    def accepted(self, text, now="3 1200"):
        yaml, notes = self.router.generate(text, now)
        done = self.router.check(yaml)
        self.assertEqual(done.returncode, 0, done.stderr + yaml)
        return yaml, notes

    def test_the_shipped_configuration_is_accepted_without_a_note(self):
        yaml, notes = self.accepted((PACKAGE / "etc/config/headgate").read_text())
        self.assertEqual(notes, "")
        self.assertIn("external-controller-unix: /var/run/headgate/api.sock", yaml)
        self.assertIn("  - 'br-lan'", yaml)

    def test_every_section_arrives(self):
        yaml, notes = self.accepted(WHOLE)
        for line in (
            "secret: 'it''s \"quoted\": #1'", "    password: 'pass: {word}'", "  - 'br-guest'", "  - 'eth7'", "  fail: 'closed'", "  'nas.lan':",
            "    - '192.168.1.5'", "    - '192.168.1.77'", "    - '02:00:00:aa:bb:ee'", "      listen: '192.168.1.1:1883'", "      username: 'ann'", "        - 'a/%u/#'", "management:\n  enable: true\n",
        ):
            self.assertIn(line, yaml)
        self.assertNotIn("Off", yaml)
        self.assertEqual(notes, "headgate: interface 'nowhere' is not known to the network configuration: left out\n")

    def test_rules_come_in_order_devices_first_the_rest_last(self):
        yaml, _ = self.accepted(WHOLE)
        rules = [line.strip(" -'") for line in yaml.partition("\nrules:\n")[2].splitlines()]
        self.assertEqual(rules, [
            "SRC-MAC,02:00:00:aa:bb:cc,REJECT", "SRC-IP-CIDR,192.168.1.20/32,Exit", "DOMAIN-SUFFIX,example.org,Exit",
            "IP-CIDR,192.0.2.0/24,DIRECT,no-resolve", "MATCH,Exit",
        ])

    def test_a_schedule_may_pass_midnight_and_belongs_to_the_day_on_which_it_begins(self):
        inside = ("1 2130", "1 2359", "2 0000", "2 0559", "3 2200", "4 0100")
        outside = ("1 0100", "1 2129", "2 0600", "4 2200", "5 0100", "7 2200")
        for now, blocked in [*((now, True) for now in inside), *((now, False) for now in outside)]:
            with self.subTest(now):
                yaml, _ = self.router.generate(WHOLE, now)
                self.assertEqual("aa:bb:dd,REJECT" in yaml, blocked)

    def test_values_cannot_leave_their_place(self):
        hostile = "x'\nrules: [\"MATCH,REJECT\"]\n# \t\x07\\"
        text = f"""
config headgate 'main'
config inbound 'inbound'
	list authentication 'user:{hostile.replace(chr(39), chr(39) + chr(92) + chr(39) * 2)}'
"""
        yaml, _ = self.accepted(text)
        self.assertEqual(yaml.count("\nrules:"), 1)
        self.assertIn("x''rules", yaml)

    def test_an_empty_file_gives_a_daemon_that_changes_nothing(self):
        yaml, _ = self.accepted("")
        self.assertIn("- 'MATCH,DIRECT'", yaml)

    def test_ports_are_not_hijacked_when_dnsmasq_answers(self):
        for dns in ("option enabled '0'", "option integration 'dnsmasq'"):
            yaml, _ = self.accepted(f"config transparent 'transparent'\n\tlist interface 'lan'\nconfig dns 'dns'\n\t{dns}\n\tlist nameserver '1.1.1.1'\n")
            self.assertIn("dns-hijack: false", yaml)

    def test_a_device_without_an_address_is_named_and_left_out(self):
        yaml, notes = self.accepted("config device 'ghost'\n\toption policy 'block'\nconfig device\n\toption mac '02:00:00:00:00:01'\n\toption policy 'proxy'\n")
        self.assertIn("'ghost' has neither mac nor ip", notes)
        self.assertIn("has no target", notes)
        self.assertNotIn("REJECT", yaml)


if __name__ == "__main__":
    unittest.main()
