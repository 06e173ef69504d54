"""The command line as a new user tries it: exit statuses, and one line for each kind of mistake."""

import subprocess
import tempfile
import unittest

from lab import HEADGATE

# The text of a configuration, and the line:column and key that its error names.
MISTAKES = {
    "mixed-port: 70000": "1:13: mixed-port:",
    "mixed-port: often": "1:13: mixed-port:",
    "mode: sideways": "1:7: mode:",
    "rules:\n  - NONSENSE,x,DIRECT": "2:5: rules[0]:",
    "rules:\n  - DOMAIN,x.org,Nowhere": "2:5: rules[0]:",
    "rules:\n  - IP-CIDR,10.0.0.0/33,DIRECT": "2:5: rules[0]:",
    "proxies:\n  - {name: a, type: ss, server: x, port: 1, cipher: rot13, password: p}": "2:",
    "proxies:\n  - {name: a, type: carrier-pigeon, server: x, port: 1}": "2:",
    "proxies:\n  - {name: DIRECT, type: direct}": "2:",
    "proxy-groups:\n  - {name: g, type: select, proxies: [nobody]}": "2:",
    "proxy-groups:\n  - {name: g, type: select, proxies: [g]}": "2:",
    "dns: {enable: true, nameserver: []}": "1:",
    "dns: {enable: true, nameserver: [1.1.1.1], fake-ip-range: 198.18.0.0/33}": "1:",
    "transparent: {enable: true, mark: 0x1/0x2}": "1:",
    "transparent: {enable: true, interfaces: []}": "1:",
    "external-controller: 0.0.0.0:9090": "1:",
    "a: 1\na: 2": "2:1:",
    "rules:\n\t- MATCH,DIRECT": "2:",
    "a: [1, 2": "",
}


def headgate(*arguments):
    return subprocess.run([HEADGATE, *arguments], capture_output=True, text=True, timeout=20, check=False)


class CommandLine(unittest.TestCase):
    def check(self, text):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(text)
            file.flush()
            done = headgate("check", "-f", file.name)
            return done.returncode, done.stderr.replace(file.name + ":", "", 1)

    def test_each_mistake_is_named_with_its_place(self):
        for text, place in MISTAKES.items():
            with self.subTest(text):
                status, error = self.check(text)
                self.assertEqual((status, error.count("\n")), (1, 1), error)
                self.assertTrue(error.startswith(place), error)

    def test_a_valid_file_is_valid(self):
        self.assertEqual(self.check("mixed-port: 7890\nrules: ['MATCH,DIRECT']")[0], 0)
        self.assertEqual(headgate("-t", "-f", "/nonexistent").returncode, 1)

    def test_usage_errors_exit_with_two(self):
        for arguments in (("sail",), ("--bogus",), ("run", "-d")):
            done = headgate(*arguments)
            self.assertEqual(done.returncode, 2)
            self.assertIn("usage:", done.stderr)

    def test_version(self):
        self.assertTrue(headgate("version").stdout.startswith("headgate "))
        self.assertEqual(headgate("-v").stdout, headgate("version").stdout)
