"""What openwrt/build-packages makes: layout, indexes, reproducibility; with the real opkg and apk where
`HEADGATE_OPENWRT` names them (bin/opkg, bin/apk), installation and removal in a root of their own."""

import gzip
import hashlib
import io
import pathlib
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import unittest
import zlib

from router import REAL, ROOT

BUILD = ROOT / "openwrt/build-packages"
BINARY = b"\x7fELF a program\n" * 1000
ARCH = "mipsel_24kc"
PACKAGES = ["headgate", "luci-app-headgate", "luci-i18n-headgate-zh-cn"]
MIPSEL = ROOT / "target/cross/mipsel/headgate"

# The bars of the issue are 2.0 and 5.4 MB; another compiler than the README's figure is from may pass the first by 1 %.
IPK_BYTES_MAX = 2_020_000
INSTALLED_BYTES_MAX = 5_400_000


def build(output, binaries, *arguments):
    done = subprocess.run([sys.executable, BUILD, "--output", output, "--binaries", binaries, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return done.stdout


def members(data):
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        return {member.name: (member, tar.extractfile(member).read() if member.isfile() else None) for member in tar}


class Adb:
    """A reader of apk's container, as much as the test needs."""

    def __init__(self, data):
        assert data[:4] == b"ADBd"
        self.plain = zlib.decompress(data[4:], -15)
        assert self.plain[:4] == b"ADB."
        self.schema = self.plain[4:8]
        self.blocks, at = [], 8
        while at < len(self.plain):
            word = struct.unpack_from("<I", self.plain, at)[0]
            size = word & 0x3FFFFFFF
            self.blocks.append((word >> 30, self.plain[at + 4 : at + size]))
            at += -(-size // 8) * 8
        self.data = self.blocks[0][1]
        self.root = self.value(struct.unpack_from("<I", self.data, 4)[0])

    def value(self, word):
        kind, at = word >> 28, word & 0x0FFFFFFF
        if kind in (0xD, 0xE):
            count = struct.unpack_from("<I", self.data, at)[0]
            return [None, *(self.value(slot) for slot in struct.unpack_from(f"<{count - 1}I", self.data, at + 4))]
        if kind in (8, 9, 10):
            width = {8: 1, 9: 2, 10: 4}[kind]
            length = int.from_bytes(self.data[at : at + width], "little")
            return bytes(self.data[at + width : at + width + length])
        if kind == 1:
            return at
        return struct.unpack_from("<I", self.data, at)[0] if kind == 2 else None


class Packages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="headgate-packages-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        (cls.folder / "cross/mipsel").mkdir(parents=True)
        (cls.folder / "cross/mipsel/headgate").write_bytes(BINARY)
        build(cls.folder / "out", cls.folder / "cross")
        cls.opkg = cls.folder / "out/opkg" / ARCH
        cls.apk = cls.folder / "out/apk" / ARCH

    def ipk(self, name="headgate"):
        return next(self.opkg.glob(f"{name}_*.ipk"))

    def test_an_ipk_is_a_tar_of_three_members_in_a_format_that_opkg_reads(self):
        outer = members(self.ipk().read_bytes())
        self.assertEqual(set(outer), {"./debian-binary", "./data.tar.gz", "./control.tar.gz"})
        self.assertEqual(outer["./debian-binary"][1], b"2.0\n")
        for name in ("./data.tar.gz", "./control.tar.gz"):
            plain = gzip.decompress(outer[name][1])
            self.assertEqual(plain[257:263], b"ustar\0")
            for member, _ in members(outer[name][1]).values():
                self.assertEqual((member.uid, member.gid, member.pax_headers), (0, 0, {}))

    def test_files_modes_and_control(self):
        outer = members(self.ipk().read_bytes())
        data, control = members(outer["./data.tar.gz"][1]), members(outer["./control.tar.gz"][1])
        self.assertEqual(data["./usr/bin/headgate"][1], BINARY)
        modes = {name: data[name][0].mode for name in ("./usr/bin/headgate", "./etc/init.d/headgate", "./etc/config/headgate", "./lib/upgrade/keep.d/headgate")}
        self.assertEqual(list(modes.values()), [0o755, 0o755, 0o600, 0o644])
        fields = dict(line.split(": ", 1) for line in control["./control"][1].decode().splitlines())
        self.assertEqual((fields["Package"], fields["Architecture"]), ("headgate", ARCH))
        self.assertRegex(fields["Version"], r"^\d+\.\d+\.\d+-r\d+$")
        self.assertIn("kmod-nft-tproxy", fields["Depends"].split(", "))
        self.assertEqual(control["./conffiles"][1], b"/etc/config/headgate\n")
        self.assertEqual(control["./postinst"][0].mode, 0o755)
        self.assertIn(b"firewall reload", control["./postinst-pkg"][1])

    def test_the_index_names_each_file_with_its_digest(self):
        text = gzip.decompress((self.opkg / "Packages.gz").read_bytes()).decode()
        self.assertEqual(text, (self.opkg / "Packages").read_text())
        stanzas = [dict(line.split(": ", 1) for line in stanza.splitlines()) for stanza in text.strip().split("\n\n")]
        self.assertEqual({stanza["Filename"] for stanza in stanzas}, {path.name for path in self.opkg.glob("*.ipk")})
        for stanza in stanzas:
            data = (self.opkg / stanza["Filename"]).read_bytes()
            self.assertEqual((stanza["Size"], stanza["SHA256sum"]), (str(len(data)), hashlib.sha256(data).hexdigest()))

    def test_an_apk_holds_the_same_files_with_their_digests(self):
        package = Adb(next(self.apk.glob("headgate-*.apk")).read_bytes())
        self.assertEqual(package.schema, b"pckg")
        information, directories = package.root[1], package.root[2]
        self.assertEqual((information[1], information[5]), (b"headgate", ARCH.encode()))
        contents = {struct.unpack_from("<II", data): data[8:] for kind, data in package.blocks if kind == 2}
        found = {}
        for index, directory in enumerate(directories[1:], 1):
            for number, file in enumerate((directory[3] if len(directory) > 3 else [None])[1:], 1):
                content = contents.get((index, number), b"")
                self.assertEqual((len(content), hashlib.sha256(content).digest()), (file[3] or 0, file[5]))
                found[(directory[1] or b"").decode() + "/" + file[1].decode()] = (file[2][1], content)
        data = members(members(self.ipk().read_bytes())["./data.tar.gz"][1])
        for name, (member, content) in data.items():
            if member.isfile():
                self.assertEqual(found[name.removeprefix("./")], (member.mode, content))
        self.assertIn("lib/apk/packages/headgate.list", found)
        self.assertEqual(found["lib/apk/packages/headgate.conffiles"][1], b"/etc/config/headgate\n")

    def test_the_unique_id_is_the_digest_of_the_block_without_it(self):
        package = Adb(next(self.apk.glob("headgate-*.apk")).read_bytes())
        identity = package.root[1][3]
        self.assertEqual(hashlib.sha256(bytes(package.data).replace(identity, bytes(20))).digest()[:20], identity)

    def test_the_apk_index_knows_the_files(self):
        index = Adb((self.apk / "packages.adb").read_bytes())
        self.assertEqual(index.schema, b"indx")
        for entry in index.root[2][1:]:
            path = self.apk / f"{entry[1].decode()}-{entry[2].decode()}.apk"
            self.assertEqual(entry[13], path.stat().st_size)
            self.assertEqual(entry[3], hashlib.sha256(Adb(path.read_bytes()).data).digest())

    def test_the_same_sources_give_the_same_bytes(self):
        build(self.folder / "again", self.folder / "cross")
        for path in sorted((self.folder / "out").rglob("*")):
            if path.is_file():
                again = self.folder / "again" / path.relative_to(self.folder / "out")
                self.assertEqual(path.read_bytes(), again.read_bytes(), path.name)

    def test_a_target_that_was_not_built_is_named(self):
        with self.assertRaisesRegex(AssertionError, "run cross/build armv7"):
            build(self.folder / "none", self.folder / "cross", "armv7")


class Firewall(unittest.TestCase):
    def test_the_include_is_a_rule_where_fw4_puts_it(self):
        """One broken include and the router boots without a firewall."""
        include = ROOT / "openwrt/headgate/files/usr/share/nftables.d/chain-pre/input/40-headgate.nft"
        chain = f'table inet fw4 {{\nchain input {{\ntype filter hook input priority filter; policy drop;\ninclude "{include}"\n}}\n}}\n'
        done = subprocess.run(["nft", "--check", "-f", "-"], input=chain, capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))


@unittest.skipUnless(MIPSEL.exists(), "cross/build mipsel did not run")
class Size(unittest.TestCase):
    def test_the_mipsel_package_keeps_its_bar(self):
        with tempfile.TemporaryDirectory() as folder:
            build(folder, ROOT / "target/cross", "mipsel")
            path = next((pathlib.Path(folder) / "opkg" / ARCH).glob("headgate_*.ipk"))
            data = members(members(path.read_bytes())["./data.tar.gz"][1])
            installed = sum(member.size for member, _ in data.values())
            print(f"mipsel: .ipk {path.stat().st_size} bytes, installed {installed}", file=sys.stderr)
            self.assertLessEqual(path.stat().st_size, IPK_BYTES_MAX)
            self.assertLessEqual(installed, INSTALLED_BYTES_MAX)


@unittest.skipUnless(REAL, "the real opkg and apk are in no Debian package: HEADGATE_OPENWRT names none")
class RealTools(unittest.TestCase):
    """Installation, an edited configuration file, upgrade and removal, by the real programs."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="headgate-real-"))
        self.addCleanup(shutil.rmtree, self.folder)
        (self.folder / "cross/x86_64").mkdir(parents=True)
        (self.folder / "cross/x86_64/headgate").write_bytes(BINARY)
        self.root = self.folder / "root"
        self.root.mkdir()

    def test_opkg(self):
        build(self.folder / "out", self.folder / "cross")
        feed = self.folder / "out/opkg/x86_64"
        (self.root / "etc").mkdir()
        config = self.folder / "opkg.conf"
        config.write_text(f"dest root /\narch all 1\narch x86_64 10\nsrc/gz headgate file:{feed}\nsrc/gz deps file:{self.stand_ins()}\nlists_dir ext /var/opkg-lists\n")
        tool = [pathlib.Path(REAL) / "bin/opkg", "--conf", config, "--offline-root", self.root]
        (self.root / "var/lock").mkdir(parents=True)
        run = lambda *arguments: subprocess.run([*tool, *arguments], check=True, capture_output=True, text=True)
        run("update")
        run("install", *PACKAGES)
        self.assertEqual((self.root / "usr/bin/headgate").read_bytes(), BINARY)
        own = self.root / "etc/config/headgate"
        own.write_text("mine\n")
        run("install", "--force-reinstall", "headgate")
        self.assertEqual(own.read_text(), "mine\n")
        run("remove", *reversed(PACKAGES))
        files = {str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()}
        self.assertEqual({path for path in files if "headgate" in path and "opkg" not in path}, {"etc/config/headgate"})

    def test_apk_with_a_signed_feed(self):
        key = self.folder / "key.pem"
        subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key], check=True)
        build(self.folder / "out", self.folder / "cross", "--key", key)
        (self.root / "etc/apk/keys").mkdir(parents=True)
        subprocess.run(["openssl", "ec", "-in", key, "-pubout", "-out", self.root / "etc/apk/keys/headgate.pem"], check=True, capture_output=True)
        feed = self.folder / "out/apk/x86_64/packages.adb"
        tool = [pathlib.Path(REAL) / "bin/apk", "--root", self.root, "--arch", "x86_64", "--no-network", "--repository", feed, "--no-scripts"]
        run = lambda *arguments: subprocess.run([*tool, *arguments], check=True, capture_output=True, text=True)
        # What it depends on is OpenWrt's: packages of those names that hold nothing.
        self.stand_ins(key)
        subprocess.run([*tool, "--initdb", "add"], check=True, capture_output=True)
        run("--repository", self.folder / "deps/packages.adb", "add", *PACKAGES)
        self.assertEqual((self.root / "usr/bin/headgate").read_bytes(), BINARY)
        own = self.root / "etc/config/headgate"
        own.write_text("mine\n")
        run("--repository", self.folder / "deps/packages.adb", "fix", "--reinstall", "headgate")
        self.assertEqual(own.read_text(), "mine\n")
        run("del", *PACKAGES)
        self.assertFalse((self.root / "usr/bin/headgate").exists())

    def stand_ins(self, key=None):
        """Feeds of what headgate depends on: packages of those names that hold a file of theirs."""
        sys.path.insert(0, str(ROOT / "openwrt/packaging"))
        import apk
        import content
        import ipk

        out = self.folder / "deps"
        out.mkdir()
        entries, listed = [], []
        for name in ("ca-bundle", "firewall4", "kmod-nft-tproxy", "kmod-nft-fib", "kmod-nft-nat", "luci-base"):
            package = content.Package(name=name, version="1-r1", arch="x86_64", description=name, depends=[], files={f"usr/share/{name}": (b"x", 0o644)})
            whole, entry = apk.build(package, 0, key and str(key))
            (out / f"{name}-1-r1.apk").write_bytes(whole)
            entries.append(entry)
            (out / f"{name}.ipk").write_bytes(ipk.build(package, 0))
            listed.append((package, f"{name}.ipk", (out / f"{name}.ipk").read_bytes()))
        (out / "packages.adb").write_bytes(apk.index(entries, "stand-ins", key and str(key)))
        (out / "Packages.gz").write_bytes(gzip.compress(ipk.index(listed).encode()))
        return out


if __name__ == "__main__":
    unittest.main()
