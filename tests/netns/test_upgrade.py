"""`/upgrade` and `/upgrade/ui`: another program, other pages, only from where the file says and whole."""

import hashlib
import io
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

import lab as laboratory
from lab import DIRECT, ROUTER_LAN, Daemon, LabTest, config, run, wait_for

SERVER = """
import functools, http.server, ssl, sys
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
server = http.server.ThreadingHTTPServer((sys.argv[2], int(sys.argv[3])), handler)
if len(sys.argv) > 4:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[4], sys.argv[5])
    server.socket = context.wrap_socket(server.socket, server_side=True)
print("ready", flush=True)
server.serve_forever()
"""


def tgz(top, files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(top + name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()


def pages(top, files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(top + name, text)
    return packed.getvalue()


class Upgrade(LabTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.files = cls.lab.directory / "published"
        cls.files.mkdir()
        authority = cls.lab.authority()
        authority.sign("up", f"subjectAltName=IP:{DIRECT}")
        cls.trust(authority)
        for arguments in (("8097",), ("8098", authority.place / "up.pem", authority.place / "up.key")):
            server = cls.lab.spawn("wan", sys.executable, "-c", SERVER, str(cls.files), DIRECT, *arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            assert server.stdout.readline() == "ready\n"
        # A program of its own, which may be replaced; without what a debugger reads, for a download has its limit.
        cls.program = cls.lab.directory / "bin/headgate"
        cls.program.parent.mkdir()
        run("strip", "-o", str(cls.program), laboratory.HEADGATE)
        cls.headgate, laboratory.HEADGATE = laboratory.HEADGATE, str(cls.program)
        cls.addClassCleanup(setattr, laboratory, "HEADGATE", cls.headgate)

    def daemon_with(self, lines, shown=None):
        """A daemon with these lines, and the pages `ui/board/index.html` where they are to be there from the start."""
        daemon = Daemon(self.lab, config(swap={"mode: rule": f"mode: rule\n{lines}"}))
        if shown:
            (daemon.directory / "ui/board").mkdir(parents=True)
            (daemon.directory / "ui/board/index.html").write_text(shown)
        daemon.start()
        self.addCleanup(daemon.stop)
        return daemon

    def upgrade(self, sha256):
        return f"upgrade: {{url: 'http://{DIRECT}:8097/headgate', sha256: {sha256}}}"

    def test_without_a_source_nothing_is_replaced(self):
        daemon = self.daemon_with("")
        self.assertEqual(daemon.api("POST", "/upgrade"), (500, {"message": "upgrade is not set: the system's packages do it"}))
        self.assertEqual(daemon.api("POST", "/upgrade/ui"), (500, {"message": "external-ui-url is not set"}))
        # Nor by a source that a caller brings.
        payload = config(swap={"mode: rule": f"mode: rule\n{self.upgrade('0' * 64)}"})
        self.assertEqual(daemon.api("PUT", "/configs?force=true", {"payload": payload})[0], 204)
        self.assertEqual(daemon.api("POST", "/upgrade")[0], 500)

    def test_a_program_takes_the_place_of_the_running_one(self):
        old = self.program.read_bytes()
        # The same, and not the same: what follows an ELF file's sections is not looked at.
        new = old + b"newer"
        (self.files / "headgate").write_bytes(new)
        daemon = self.daemon_with(self.upgrade(hashlib.sha256(new).hexdigest()))
        pid = daemon.process.pid
        self.assertEqual(self.lab.ns("gw", "curl", "-s", "-m", "60", "-X", "POST", "-H", f"Authorization: Bearer {laboratory.SECRET}", f"http://{ROUTER_LAN}:9090/upgrade"), '{"status":"ok"}\n')
        wait_for("the new program", lambda: sum("headgate ready in" in line for line in daemon.lines) == 2, 20)
        self.assertEqual(daemon.process.pid, pid)
        self.assertEqual(self.program.read_bytes(), new)
        self.assertEqual([file.name for file in self.program.parent.iterdir()], ["headgate"])
        self.assertEqual(daemon.api("POST", "/upgrade"), (500, {"message": "already the newest version"}))

    def test_one_that_never_became_ready_gives_way_to_the_old_one(self):
        old = self.program.read_bytes()
        # As an upgrade and a start that failed leave them.
        self.program.with_name("headgate.old").write_bytes(old)
        self.program.with_name("headgate.old").chmod(0o755)
        self.program.with_name("headgate.trial").touch()
        new = self.program.with_name("new")
        new.write_bytes(old + b"newer")
        new.chmod(0o755)
        new.rename(self.program)
        daemon = self.daemon_with("")
        self.assertTrue(daemon.said("the old one is back"))
        self.assertEqual(self.program.read_bytes(), old)
        self.assertEqual([file.name for file in self.program.parent.iterdir()], ["headgate"])

    def test_what_is_not_the_promised_program_is_refused(self):
        before = self.program.read_bytes()
        (self.files / "headgate").write_bytes(b"#!/bin/sh\nexit 0\n")
        daemon = self.daemon_with(self.upgrade("0" * 64))
        self.assertEqual(daemon.api("POST", "/upgrade"), (500, {"message": "its SHA-256 is not the one of upgrade.sha256"}))
        # Not a script: what is confined runs no shell.
        other = pathlib.Path("/bin/false").read_bytes()
        (self.files / "headgate").write_bytes(other)
        self.assertEqual(daemon.api("GET", "/version")[0], 200)
        daemon.stop()
        daemon.file.write_text(daemon.file.read_text().replace("0" * 64, hashlib.sha256(other).hexdigest()))
        daemon.start()
        self.assertEqual(daemon.api("POST", "/upgrade"), (500, {"message": "the new program refuses: exit status: 1"}))
        self.assertEqual(self.program.read_bytes(), before)
        self.assertEqual([file.name for file in self.program.parent.iterdir()], ["headgate"])

    def test_pages_are_replaced_whole_or_not_at_all(self):
        daemon = self.daemon_with(f"external-ui: ui\nexternal-ui-name: board\nexternal-ui-url: 'https://{DIRECT}:8098/board.zip'", "<p>zero")
        page = lambda path="": self.lab.ns("gw", "curl", "-sL", f"http://{ROUTER_LAN}:9090/ui/board/{path}")
        (self.files / "board.zip").write_bytes(pages("board-gh-pages/", {"index.html": "<p>one", "assets/app-1.js": "x" * 300000}))
        self.assertEqual(daemon.api("POST", "/upgrade/ui"), (200, {"status": "ok"}))
        self.assertEqual((page(), len(page("assets/app-1.js"))), ("<p>one", 300000))
        for bad, message in (
                (pages("", {"index.html": "<p>two", "../../config.yaml": "mode: direct"}), "the archive has entries that lead out of it"),
                (pages("", {"readme.txt": "hello"}), "the archive has no index.html"),
                (pages("", {"index.html": "<p>three"})[:-5], "no whole zip or tgz archive"),
                (pages("", {"index.html": "<p>four", "large": "x" * (9 << 20)}), "the archive holds too much"),
                (tgz("", {"index.html": "<p>two", "../../config.yaml": "mode: direct"}), "the archive has entries that lead out of it"),
                (tgz("ui/", {"index.html": "<p>two", "/etc/headgate-was-here": "x"}), "the archive has entries that lead out of it"),
                (tgz("", {"index.html": "<p>three"})[:-5], "no whole zip or tgz archive"),
                (tgz("", {"index.html": "<p>four", "large": "x" * (9 << 20)}), "the archive holds too much"),
                (b"<html>", "no whole zip or tgz archive")):
            (self.files / "board.zip").write_bytes(bad)
            self.assertEqual(daemon.api("POST", "/upgrade/ui"), (500, {"message": message}))
            self.assertEqual(page(), "<p>one")
        for good, text in ((pages("", {"index.html": "<p>five"}), "<p>five"), (tgz("board-gh-pages/", {"index.html": "<p>six", "assets/a.js": "x" * 300000}), "<p>six")):
            (self.files / "board.zip").write_bytes(good)
            self.assertEqual(daemon.api("POST", "/upgrade/ui"), (200, {"status": "ok"}))
            self.assertEqual(page(), text)
        self.assertEqual(len(page("assets/a.js")), 300000)
        self.assertEqual([file.name for file in pathlib.Path(daemon.directory, "ui").iterdir()], ["board"])

    def test_pages_may_lie_where_nothing_was_at_the_start(self):
        # Not below the temporary folder, where folders may be made in any case.
        place = tempfile.mkdtemp(dir="/run")
        self.addCleanup(shutil.rmtree, place)
        where = pathlib.Path(place, "not/yet/ui")
        (self.files / "board.zip").write_bytes(pages("", {"index.html": "<p>here"}))
        daemon = self.daemon_with(f"external-ui: {where}\nexternal-ui-url: 'https://{DIRECT}:8098/board.zip'")
        # They come by themselves, and again when they are asked for.
        wait_for("the pages", (where / "index.html").exists, 30)
        self.assertEqual((where / "index.html").read_text(), "<p>here")
        (self.files / "board.zip").write_bytes(pages("", {"index.html": "<p>again"}))
        wait_for("the first to be through", lambda: daemon.said("external-ui: fetched"))
        self.assertEqual(daemon.api("POST", "/upgrade/ui"), (200, {"status": "ok"}))
        self.assertEqual((where / "index.html").read_text(), "<p>again")

    def test_pages_that_are_not_there_come_by_themselves_and_others_stay(self):
        archive = self.files / "first.tgz"
        archive.unlink(missing_ok=True)
        daemon = self.daemon_with(f"external-ui: ui\nexternal-ui-url: 'https://{DIRECT}:8098/first.tgz'")
        index = daemon.directory / "ui/index.html"
        # The server has none yet: the daemon runs all the same, and asks again.
        wait_for("the first attempt", lambda: daemon.said("external-ui: the server answers 404"), 20)
        self.assertFalse(index.exists())
        archive.write_bytes(tgz("dist/", {"index.html": "<p>first"}))
        wait_for("the pages", index.exists, 60)
        self.assertEqual(self.lab.ns("gw", "curl", "-sL", f"http://{ROUTER_LAN}:9090/ui/"), "<p>first")
        # What is there is nobody's to replace unasked, whole or not.
        daemon.stop()
        archive.write_bytes(tgz("dist/", {"index.html": "<p>second"}))
        index.write_text("<p>mine")
        daemon.start()
        self.assertEqual(daemon.api("GET", "/version")[0], 200)
        # As a crash between two renamings leaves them.
        daemon.stop()
        index.parent.rename(index.parent.with_name(".ui.old"))
        daemon.start()
        self.assertEqual(index.read_text(), "<p>mine")
        self.assertEqual([file.name for file in daemon.directory.iterdir() if "ui" in file.name], ["ui"])
