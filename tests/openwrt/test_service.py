"""The init script and its helpers under busybox's shell, with the real daemon to judge and to answer."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import unittest

from router import PACKAGE, Router

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "netns"))
from lab import wait_for  # noqa: E402

SMALL = """
config headgate 'main'
	option enabled '{enabled}'
	option final '{final}'

config transparent 'transparent'
	option enabled '0'

config dns 'dns'
	option enabled '0'

config controller 'controller'
{more}
"""


def small(enabled=1, final="DIRECT", more=""):
    return SMALL.format(enabled=enabled, final=final, more=more)


class ServiceTest(unittest.TestCase):
    def setUp(self):
        self.router = self.enterContext(Router())
        self.router.uci(small())
        self.processes = []
        self.addCleanup(self.end)

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()

    def spawn(self, *command):
        process = subprocess.Popen(["chroot", self.router.root, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.processes.append(process)
        return process

    def daemon(self):
        """The daemon as procd would start it."""
        self.router.mount_proc()
        process = self.spawn("/usr/bin/headgate", "run", "-d", "/etc/headgate", "-f", "/var/run/headgate/config.yaml")
        wait_for("the socket", lambda: self.api("/version") is not None)
        return process

    def api(self, path):
        done = self.router.run("/usr/bin/headgate", "api", "-d", "/etc/headgate", "-f", "/var/run/headgate/config.yaml", "GET", path, check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None


class Init(ServiceTest):
    def test_switched_off_it_starts_nothing(self):
        self.router.uci(small(enabled=0))
        self.assertEqual(self.router.init("start")[1], [])

    def test_start_names_the_program_its_configuration_and_how_to_reload(self):
        _, calls = self.router.init("start")
        for call in (
            "instance main", "param command /usr/bin/headgate run -d /etc/headgate -f /var/run/headgate/config.yaml", "param file /var/run/headgate/config.yaml",
            "param reload_signal HUP", "param respawn 3600 1 0",
        ):
            self.assertIn(call, calls)
        self.assertEqual(self.router.root.joinpath("var/run/headgate/config.yaml").stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.router.root.joinpath("var/run/headgate").stat().st_mode & 0o777, 0o700)

    def test_the_same_configuration_is_left_alone(self):
        self.router.init("start")
        before = self.router.root.joinpath("var/run/headgate/config.yaml").stat()
        self.router.init("reload")
        after = self.router.root.joinpath("var/run/headgate/config.yaml").stat()
        self.assertEqual((before.st_ino, before.st_mtime_ns), (after.st_ino, after.st_mtime_ns))

    def test_a_mistake_changes_nothing_and_is_logged_with_its_place(self):
        self.router.init("start")
        good = self.router.read("var/run/headgate/config.yaml")
        self.router.uci(small(final="Nowhere"))
        _, calls = self.router.init("reload")
        self.assertIn("instance main", calls)
        self.assertEqual(self.router.read("var/run/headgate/config.yaml"), good)
        self.assertRegex(self.router.read("tmp/log"), r"refused.*\d+:\d+: rules\[0\].*Nowhere")

    def test_a_mistake_at_boot_starts_nothing(self):
        self.router.uci(small(final="Nowhere"))
        done, calls = self.router.init("start", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(calls, [])

    def test_the_owners_file_is_used_with_the_socket_that_luci_needs(self):
        self.router.uci(small().replace("'DIRECT'", "'DIRECT'\n\toption source 'file'\n\toption file '/etc/headgate/own.yaml'"))
        self.router.write("etc/headgate/own.yaml", "mixed-port: 7890\nrules: ['MATCH,DIRECT']")
        self.router.init("start")
        self.assertEqual(self.router.read("var/run/headgate/config.yaml").splitlines(),
                         ["mixed-port: 7890", "rules: ['MATCH,DIRECT']", "external-controller-unix: /var/run/headgate/api.sock"])
        self.router.write("etc/headgate/own.yaml", "mixed-port: often\n")
        self.router.init("reload")
        self.assertIn("1:13: mixed-port", self.router.read("tmp/log"))

    def test_a_file_that_uci_cannot_read_changes_nothing(self):
        self.router.init("start")
        good = self.router.read("var/run/headgate/config.yaml")
        self.router.uci(small() + "no line of UCI\n")
        self.assertEqual(self.router.init("reload")[1], [])
        self.assertIn("/etc/config/headgate: Parse error", self.router.read("tmp/log"))
        self.assertIn("instance main", self.router.init("start")[1])
        self.assertEqual(self.router.read("var/run/headgate/config.yaml"), good)
        self.assertNotEqual(self.router.init("check", check=False)[0].returncode, 0)

    def test_into_a_jail_and_out_of_it_leads_a_new_start(self):
        self.router.script("sbin/ujail", "")
        self.router.init("start")
        for jail in (1, 0):
            self.router.uci(small().replace("'DIRECT'", f"'DIRECT'\n\toption jail '{jail}'"))
            _, calls = self.router.init("reload")
            self.assertEqual(calls[0], "kill headgate")
            self.assertEqual("jail headgate log procfs" in calls, jail == 1)
            self.assertNotIn("kill headgate", self.router.init("reload")[1])

    def test_stop_waits_for_the_daemon_and_cleans_up_after_it(self):
        self.router.init("start")
        self.router.script("usr/bin/headgate", '[ "$1" != cleanup ] || { echo >>/tmp/tries; [ "$(wc -l </tmp/tries)" -ge 3 ] || echo another instance >&2; }\n')
        self.router.init("stop")
        self.assertEqual(self.router.read("tmp/tries"), "\n" * 3)
        self.assertFalse(self.router.exists("var/run/headgate"))

    def test_switching_off_stops_and_leaves_nothing(self):
        self.router.init("start")
        self.router.uci(small(enabled=0))
        _, calls = self.router.init("reload")
        self.assertEqual(calls, ["kill headgate"])
        self.assertFalse(self.router.exists("var/run/headgate"))

    def test_helpers_run_only_where_they_are_needed(self):
        self.router.uci(small(more="config schedule 'night'\n").replace("'dns'\n", "'dns'\n\toption integration 'dnsmasq'\n"))
        _, calls = self.router.init("start")
        self.assertEqual([call for call in calls if call.startswith("instance")], ["instance main", "instance dnsmasq-guard", "instance schedule"])

    def test_a_signal_takes_the_new_configuration_to_the_running_daemon(self):
        self.router.init("start")
        daemon = self.daemon()
        self.router.uci(small(more="config rule\n\toption type 'DOMAIN'\n\toption value 'new.example'\n\toption target 'REJECT'\n"))
        self.router.init("reload")
        daemon.send_signal(signal.SIGHUP)
        wait_for("the new rule", lambda: self.api("/rules")["rules"][0]["payload"] == "new.example")

    def test_first_installation_makes_a_secret_once(self):
        self.router.uci((PACKAGE / "etc/config/headgate").read_text())
        secrets = set()
        for _ in range(2):
            self.router.run("/bin/sh", "/etc/uci-defaults/80_headgate")
            done = self.router.run("/sbin/uci", "-q", "get", "headgate.controller.secret")
            secrets.add(done.stdout.strip())
        (secret,) = secrets
        self.assertRegex(secret, "^[0-9a-f]{32}$")


class Hotplug(ServiceTest):
    def event(self, action, interface, device):
        self.router.forget("tmp/procd")
        script = ". /etc/hotplug.d/iface/95-headgate"
        self.router.run("/bin/env", f"ACTION={action}", f"INTERFACE={interface}", f"DEVICE={device}", "/bin/sh", "-c", script)
        return self.router.exists("tmp/procd")

    def test_only_another_device_of_a_captured_interface_reloads(self):
        self.router.uci(small().replace("option enabled '0'\n\nconfig dns", "list interface 'lan'\n\nconfig dns"))
        self.router.init("start")
        self.assertIn("br-lan", self.router.read("var/run/headgate/config.yaml"))
        for event in (("ifup", "lan", "br-lan"), ("ifupdate", "lan", "br-lan"), ("ifup", "wan", "eth1"), ("ifdown", "lan", "br-lan.9"), ("ifup", "lan", "")):
            self.assertFalse(self.event(*event), event)
        self.router.write("tmp/netifd", "lan br-lan.9\n")
        self.assertTrue(self.event("ifup", "lan", "br-lan.9"))
        self.assertIn("br-lan.9", self.router.read("var/run/headgate/config.yaml"))


class DnsmasqGuard(ServiceTest):
    def setUp(self):
        super().setUp()
        self.router.write("var/etc/dnsmasq.conf.cfg01", "port=53\nconf-dir=/tmp/dnsmasq.cfg01.d\n")
        self.router.script("etc/init.d/dnsmasq", 'echo "$1" >>/tmp/dnsmasq\n')
        self.router.init("start")

    def snippet(self):
        return self.router.exists("tmp/dnsmasq.cfg01.d/headgate.conf")

    def test_dnsmasq_asks_us_exactly_while_we_live(self):
        guard = self.spawn("/usr/libexec/headgate/dnsmasq-guard")
        time.sleep(0.3)
        self.assertFalse(self.snippet(), "nobody is there yet")
        daemon = self.daemon()
        wait_for("the snippet", self.snippet)
        self.assertIn("server=127.0.0.1#1053", self.router.read("tmp/dnsmasq.cfg01.d/headgate.conf"))
        daemon.kill()
        daemon.wait()
        wait_for("its removal after a crash", lambda: not self.snippet())
        wait_for("dnsmasq to know it", lambda: self.router.read("tmp/dnsmasq") == "restart\nrestart\n")
        self.daemon()
        wait_for("its return", self.snippet)
        guard.terminate()
        wait_for("its removal with the guard", lambda: not self.snippet())

    def test_stop_takes_it_away_when_the_guard_was_killed(self):
        guard = self.spawn("/usr/libexec/headgate/dnsmasq-guard")
        self.daemon()
        wait_for("the snippet", self.snippet)
        guard.kill()
        self.router.init("stop")
        self.assertFalse(self.snippet())


class Transaction(ServiceTest):
    def setUp(self):
        super().setUp()
        (self.router.root / "proc/sys/kernel/random").mkdir(parents=True)
        self.router.write("proc/sys/kernel/random/uuid", "one\n")
        self.uptime(1000)
        self.router.init("start")

    def uptime(self, seconds):
        self.router.write("proc/uptime", f"{seconds}.25 1.00\n")

    def transaction(self, *arguments, check=True):
        return self.router.run("/usr/libexec/headgate/transaction", *arguments, check=check, stdin=subprocess.DEVNULL)

    def rule(self):
        return "REJECT" in self.router.read("var/run/headgate/config.yaml")

    def change(self):
        self.router.uci(small(final="REJECT"))
        self.router.init("reload")
        self.assertTrue(self.rule())

    def test_undo_brings_back_what_was(self):
        self.transaction("begin", "60")
        self.assertEqual(json.loads(self.transaction("status").stdout), {"open": True, "seconds": 60})
        self.change()
        self.transaction("undo")
        self.assertFalse(self.rule())
        self.assertEqual(self.router.read("etc/config/headgate"), small())
        self.assertEqual(json.loads(self.transaction("status").stdout), {"open": False})

    def test_confirm_keeps_it_and_leaves_nothing_on_flash(self):
        self.transaction("begin", "60")
        self.change()
        self.transaction("confirm")
        self.assertFalse(self.router.exists("etc/headgate/undo"))
        self.assertNotEqual(self.transaction("undo", check=False).returncode, 0)
        self.assertTrue(self.rule())

    def test_nobody_confirms_and_it_is_undone(self):
        self.transaction("begin", "5")
        self.change()
        wait_for("the undoing", lambda: not self.rule(), 12)
        self.assertIn("not confirmed", self.router.read("tmp/log"))

    def test_a_power_cut_undoes_it_at_the_next_boot(self):
        self.transaction("begin", "600")
        self.change()
        # The power is gone: nothing in memory is left.
        self.router.run("/bin/rm", "-rf", "/var/run/headgate")
        self.router.init("boot")
        self.assertFalse(self.rule())
        self.assertEqual(self.router.read("etc/config/headgate"), small())

    def test_a_power_cut_while_it_began_undoes_nothing(self):
        self.transaction("begin", "600")
        self.change()
        self.router.forget("etc/headgate/undo/whole")
        self.router.init("boot")
        self.assertTrue(self.rule())

    def test_two_at_a_time_are_refused_and_so_is_nonsense(self):
        self.transaction("begin", "60")
        for arguments in (("begin", "60"), ("apply", "/etc/config/headgate")):
            self.assertIn("waits to be confirmed", self.transaction(*arguments, check=False).stderr)
        self.transaction("confirm")
        for seconds in ("4", "3601", "soon", "-5"):
            self.assertNotEqual(self.transaction("begin", seconds, check=False).returncode, 0)
        self.assertEqual(self.transaction("dance", check=False).returncode, 2)

    def test_an_applied_file_that_the_daemon_refuses_is_undone_at_once(self):
        self.daemon()
        self.router.write("tmp/new", small(final="Nowhere"))
        done = self.transaction("apply", "/tmp/new", "60", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("+\toption final 'Nowhere'", done.stdout)
        self.assertEqual(self.router.read("etc/config/headgate"), small())


class Doctor(ServiceTest):
    def findings(self):
        done = self.router.run("/usr/libexec/headgate/doctor", "--json", check=False)
        return {finding["id"]: finding for finding in json.loads(done.stdout)}

    def level(self, name):
        return self.findings().get(name, {}).get("level")

    def test_each_fault_is_named(self):
        self.router.init("start")
        self.assertEqual(self.level("running"), "error")
        self.daemon()
        found = self.findings()
        self.assertEqual(found["running"]["level"], "ok")
        self.assertEqual(found["configuration"]["level"], "ok")
        self.assertEqual(found["modules"]["detail"].split(), ["kmod-nft-core", "kmod-nft-tproxy", "kmod-nft-fib", "kmod-nft-nat"])
        self.assertEqual(found["certificates"]["level"], "error")
        for module in ("nf_tables", "nft_reject_inet", "nft_tproxy", "nft_fib_inet", "nft_chain_nat"):
            (self.router.root / "sys/module" / module).mkdir(parents=True)
        self.router.write("etc/ssl/certs/ca-certificates.crt", "x")
        found = self.findings()
        self.assertEqual(found["modules"]["level"], "ok")
        self.assertNotIn("certificates", found)

    def test_what_the_rest_of_the_router_does_wrong(self):
        self.router.uci(small().replace("'transparent'\n\toption enabled '0'", "'transparent'\n\tlist interface 'lan'\n\toption ipv6 '0'"))
        self.router.init("start")
        self.router.write("proc/sys/net/bridge/bridge-nf-call-iptables", "1\n")
        self.router.write("proc/net/if_inet6", "20010db8000000000000000000000001 07 40 00 00   br-lan\n")
        self.router.write("etc/config/firewall", "config defaults\n\toption flow_offloading '1'\n")
        found = self.findings()
        self.assertEqual({name: found[name]["level"] for name in ("bridge", "ipv6-leak", "offload", "dns-leak")},
                         {"bridge": "warning", "ipv6-leak": "error", "offload": "hint", "dns-leak": "warning"})
        self.router.write("proc/net/if_inet6", "fd770000000000000000000000000001 07 40 00 00   br-lan\n")
        self.assertIsNone(self.level("ipv6-leak"))

    def test_a_clock_from_before_this_program_was_built(self):
        os.utime(self.router.root / "usr/bin/headgate", (4e9, 4e9))
        self.assertEqual(self.level("clock"), "error")

    def test_it_tells_no_secret(self):
        self.router.uci(small(more="\toption listen '127.0.0.1:9'\n\toption secret 'canary-secret'\n\tconfig proxy\n\toption name 'p'\n\toption server 'canary.example'\n\toption port '1'\n"
                                    "\toption cipher 'aes-128-gcm'\n\toption password 'canary'\n"))
        self.router.init("start")
        for arguments in ((), ("--json",)):
            self.assertNotIn("canary", self.router.run("/usr/libexec/headgate/doctor", *arguments, check=False).stdout)


if __name__ == "__main__":
    unittest.main()
