"""What the README prints is true: every configuration in it is one, and its commands do what they say as they stand.

The router is 192.168.1.1 as there; the commands run on a device of its LAN.
"""

import json
import re
import subprocess
import tempfile
import unittest

from lab import HEADGATE, ROOT, Daemon, LabTest

README = (ROOT / "README.md").read_text()


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```$", README, re.M | re.S)


def block(kind, text):
    """The one that has `text`."""
    (found,) = [each for each in blocks(kind) if text in each]
    return found


class Readme(LabTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.lab.ip("gw", "addr", "add", "192.168.1.1/24", "dev", "br-lan")
        cls.lab.ip("lan1", "addr", "add", "192.168.1.50/24", "dev", "eth0")
        panel = block("yaml", "username: panel") + '  listeners: [{name: lan, type: tcp, listen: "192.168.1.1:1883"}]\n'
        cls.daemon = Daemon(cls.lab, block("yaml", "transparent:") + block("yaml", "management:") + panel).start()

    def test_every_configuration_is_one(self):
        texts = blocks("yaml")
        self.assertGreater(len(texts), 8)
        for text in texts:
            with self.subTest(text), tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                file.write(text)
                file.flush()
                done = subprocess.run([HEADGATE, "check", "-f", file.name], capture_output=True, text=True, check=False)
                self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_every_command_to_the_router_is_answered(self):
        commands = [each for each in blocks("sh") if "192.168.1.1" in each]
        self.assertGreater(len(commands), 3)
        for text in commands:
            with self.subTest(text):
                answers = self.lab.ns("lan1", "bash", "-euc", text.replace("curl -u", "curl -sS -w '\\n' -u")).split("\n")
                answers = [json.loads(answer) for answer in answers if answer]
                self.assertTrue(answers)
                self.assertEqual([answer.get("code") for answer in answers], [0] * len(answers), answers)


if __name__ == "__main__":
    unittest.main()
