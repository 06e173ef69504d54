"""What cross/supply-chain takes for allowed, for patched, and for a list of what is in a binary."""

import importlib.machinery
import importlib.util
import json
import pathlib
import subprocess
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "cross/supply-chain"
loader = importlib.machinery.SourceFileLoader("supply_chain", str(SCRIPT))
chain = importlib.util.module_from_spec(importlib.util.spec_from_loader("supply_chain", loader))
loader.exec_module(chain)

ADVISORY = """```toml
[advisory]
id = "RUSTSEC-2023-0034"
package = "h2"
[versions]
patched = [">= 0.3.17, < 0.4.0", "^0.4.2"]
```

# A flood of resets
"""


class SupplyChain(unittest.TestCase):
    def test_one_permissive_choice_is_enough_and_every_part_counts(self):
        for good in ("MIT", "MIT/Apache-2.0", "(MIT OR GPL-3.0) AND ISC", "GPL-2.0 OR Apache-2.0 WITH LLVM-exception"):
            self.assertTrue(chain.permitted(good), good)
        for bad in ("GPL-2.0", "MIT AND GPL-3.0", "(MIT AND MPL-2.0) OR AGPL-3.0", "Apache-2.0 WITH something"):
            self.assertFalse(chain.permitted(bad), bad)

    def test_versions_are_compared_as_cargo_compares_them(self):
        for version, requirement, wanted in (
            ("0.3.16", ">= 0.3.17", False), ("0.3.17", ">= 0.3.17", True), ("1.5.0", ">= 1.4, < 1.6", True), ("1.6.0", ">= 1.4, < 1.6", False),
            ("1.2.5", "^1.2.3", True), ("2.0.0", "^1.2.3", False), ("0.3.9", "^0.3.2", True), ("0.4.0", "^0.3.2", False), ("0.0.4", "^0.0.3", False),
            ("1.2.9", "~1.2.3", True), ("1.3.0", "~1.2.3", False), ("1.0.0-rc.1", ">= 1.0.0", False), ("1.0.0-rc.2", "> 1.0.0-rc.1", True),
        ):
            self.assertEqual(chain.within(version, requirement), wanted, (version, requirement))

    def test_an_advisory_hits_what_is_not_patched(self):
        with tempfile.TemporaryDirectory() as place:
            folder = pathlib.Path(place) / "crates/h2"
            folder.mkdir(parents=True)
            (folder / "RUSTSEC-2023-0034.md").write_text(ADVISORY)
            crates = {("h2", "0.3.16"), ("h2", "0.3.20"), ("h2", "0.4.1"), ("h2", "0.4.13"), ("other", "1.0.0")}
            holes, told = chain.advisories(pathlib.Path(place), crates)
        self.assertEqual((holes, told), (["h2 0.3.16: RUSTSEC-2023-0034", "h2 0.4.1: RUSTSEC-2023-0034"], []))

    def test_the_list_of_a_binary_is_whole_and_always_the_same(self):
        runs = [subprocess.run([SCRIPT, "sbom", "mipsel", SCRIPT], capture_output=True, check=True).stdout for _ in range(2)]
        self.assertEqual(*runs)
        document = json.loads(runs[0])
        listed = {component["bom-ref"] for component in document["components"]} | {document["metadata"]["component"]["bom-ref"]}
        self.assertEqual({each["ref"] for each in document["dependencies"]}, listed)
        self.assertTrue(all(used in listed for each in document["dependencies"] for used in each["dependsOn"]))
        names = {component["name"] for component in document["components"]}
        self.assertLess({"tokio", "rustls", "mimalloc"}, names)
        # For tests and build scripts alone.
        self.assertFalse({"proptest", "cc"} & names)


if __name__ == "__main__":
    unittest.main()
