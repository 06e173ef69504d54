"""What a running headgate has given up, and that everything works without it."""

import os
import pathlib
import re
import shutil
import signal
import tempfile

from lab import HEADGATE, PROXIED, ROUTER_LAN, ROUTER_WAN, RULES, SHADOWSOCKS, Daemon, LabTest, config, wait_for

NET_BIND_SERVICE, NET_ADMIN, NET_RAW = 1 << 10, 1 << 12, 1 << 13
DAC_READ_SEARCH, SYS_PTRACE = 1 << 2, 1 << 19
BASE = NET_BIND_SERVICE | NET_ADMIN | NET_RAW


class Hardening(LabTest):
    def setUp(self):
        self.daemon = None

    def tearDown(self):
        if self.daemon and self.daemon.process:
            self.daemon.kill()
        self.lab.ns("gw", HEADGATE, "cleanup")

    def start(self, text=None):
        self.daemon = Daemon(self.lab, text or config()).start()
        self.assertEqual(sum("hardening" in line for line in self.daemon.lines), 1, self.daemon.lines)

    def threads(self):
        """Capabilities, no_new_privs and seccomp's mode, of each thread."""
        found = []
        for task in pathlib.Path(f"/proc/{self.daemon.process.pid}/task").iterdir():
            text = (task / "status").read_text()
            field = lambda name: re.search(rf"^{name}:\s+(\w+)", text, re.M)[1]
            found.append((int(field("CapEff"), 16), int(field("CapPrm"), 16), int(field("CapBnd"), 16), field("NoNewPrivs"), field("Seccomp"), field("Seccomp_filters")))
        return found

    def check(self, capabilities=BASE):
        threads = self.threads()
        self.assertGreater(len(threads), 3)
        self.assertEqual(set(threads), {(capabilities, capabilities, capabilities, "1", "2", "1")})

    def works(self):
        answer = self.lab.curl("lan1", f"http://{PROXIED}/")
        self.assertEqual(answer and answer["client"], SHADOWSOCKS)
        self.assertEqual(self.lab.echo("lan1", PROXIED)["seen"], SHADOWSOCKS)
        self.assertTrue(self.lab.dig("lan1", ROUTER_LAN, "proxied.test"))

    def said(self, text):
        wait_for(text, lambda: self.daemon.said(text))

    def reload(self, text):
        self.daemon.lines.clear()
        self.daemon.file.write_text(text)
        self.daemon.signal(signal.SIGHUP)
        self.said("configuration reloaded")

    def test_every_thread_has_what_the_configuration_needs_and_no_more(self):
        self.start()
        self.check()
        self.works()
        # The rules are taken away and come back; a port of the system's is opened later.
        self.lab.ip("gw", "rule", "del", "pref", "900")
        wait_for("the ip rule", lambda: "26727" in self.lab.ip("gw", "rule", "show"), 10)
        self.reload(config(swap={"mixed-port: 7890": "mixed-port: 7890\nsocks-port: 81"}))
        self.assertFalse(self.daemon.said("error"), self.daemon.lines)
        answer = self.lab.curl("gw", f"http://{PROXIED}/", "-x", "socks5://127.0.0.1:81")
        self.assertEqual(answer and answer["client"], SHADOWSOCKS)
        self.assertEqual(self.daemon.stop(), 0)

    def test_what_a_restart_becomes_is_confined_as_it_was(self):
        self.start()
        pid = self.daemon.process.pid
        for _ in range(3):
            self.daemon.lines.clear()
            self.daemon.api("POST", "/restart")
            self.said("headgate ready in")
            self.assertEqual(self.daemon.process.pid, pid)
            self.check()
            self.works()

    def test_looking_for_programs_takes_two_capabilities_more(self):
        rules = "\n  - PROCESS-NAME,curl,socks" + RULES
        self.start(config(rules=rules))
        self.check(BASE | DAC_READ_SEARCH | SYS_PTRACE)
        self.assertTrue(self.daemon.said("no landlock (rules look for programs)"))
        self.daemon.stop()
        self.start()
        self.reload(config(rules=rules))
        self.said("rules do not see programs until")
        self.check()

    def test_a_socket_elsewhere_is_made_after_a_start_and_not_before(self):
        # Not below the temporary folder, where sockets may be made in any case.
        place = tempfile.mkdtemp(dir="/run")
        self.addCleanup(shutil.rmtree, place, ignore_errors=True)
        text = config(swap={"secret:": f"external-controller-unix: {place}/headgate.sock\nsecret:"})
        self.start()
        self.reload(text)
        self.said(f"nothing can be made in {place} until")
        self.assertFalse(os.path.exists(f"{place}/headgate.sock"))
        self.works()
        self.daemon.stop()
        self.start(text)
        self.assertTrue(os.path.exists(f"{place}/headgate.sock"))

    def test_it_can_be_switched_off(self):
        self.start("hardening: false\n" + config())
        mine = int(re.search(r"^CapEff:\s+(\w+)", pathlib.Path("/proc/self/status").read_text(), re.M)[1], 16)
        self.assertEqual({thread[0] for thread in self.threads()}, {mine})
        self.assertEqual({thread[3:5] for thread in self.threads()}, {("0", "0")})
        self.works()
        self.reload(config())
        self.daemon.stop()
        self.assertEqual(self.lab.curl("lan1", f"http://{PROXIED}/")["client"], ROUTER_WAN)
