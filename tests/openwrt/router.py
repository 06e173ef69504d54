"""A router's root directory: busybox, the package's files, the real headgate, run by chroot.

OpenWrt's own `uci`, functions.sh and rc.common are in no Debian package. `HEADGATE_OPENWRT=DIR` names a
directory that has the real ones (bin/uci, lib/functions.sh, …), laid over the stand-ins of stubs/;
without it the stand-ins serve, and the run says so.
"""

import contextlib
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "openwrt/headgate/files"
STUBS = pathlib.Path(__file__).with_name("stubs")
HEADGATE = pathlib.Path(os.environ.get("HEADGATE", ROOT / "target/debug/headgate"))
REAL = os.environ.get("HEADGATE_OPENWRT")
# Scripts of the package read this name too, and inside there is another place.
os.environ.pop("HEADGATE", None)

if not REAL:
    print("tests/openwrt: !! no real uci in Debian: the reader of tests/openwrt/stubs takes its place", file=sys.stderr)


class Router:
    """One root; `with Router() as router`."""

    def __init__(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="headgate-openwrt-"))

    def __enter__(self):
        for folder in ("bin", "usr/bin", "sbin", "tmp", "etc/config", "etc/init.d", "lib/functions", "proc", "dev", "sys/class/net/eth7", "var/run"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        busybox = shutil.which("busybox")
        self.program(busybox, "bin/busybox")
        for applet in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
            with contextlib.suppress(FileExistsError):
                (self.root / "bin" / applet).symlink_to("busybox")
        self.program(HEADGATE, "usr/bin/headgate")
        shutil.copytree(PACKAGE, self.root, dirs_exist_ok=True)
        for name, minor in (("null", 3), ("urandom", 9)):
            os.mknod(self.root / "dev" / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        self.script("bin/logger", 'while [ $# -gt 1 ]; do shift; done\necho "$1" >>/tmp/log\n')
        for stub, place in (("functions.sh", "lib/functions.sh"), ("network.sh", "lib/functions/network.sh"), ("rc.common", "etc/rc.common"), ("uci", "sbin/uci")):
            shutil.copy(STUBS / stub, self.root / place)
        self.write("tmp/netifd", "lan br-lan\nguest br-guest\n")
        if REAL:
            self.real(pathlib.Path(REAL))
        return self

    def mount_proc(self):
        """The real /proc, where the daemon looks for itself, over what a test put there."""
        if not (self.root / "proc/self").exists():
            subprocess.run(["mount", "-t", "proc", "proc", self.root / "proc"], check=True)

    def __exit__(self, *_):
        if (self.root / "proc/self").exists():
            subprocess.run(["umount", "-l", self.root / "proc"], check=True)
        shutil.rmtree(self.root, ignore_errors=True)

    def real(self, directory):
        """OpenWrt's own programs and scripts over the stand-ins."""
        self.program(directory / "bin/uci", "sbin/uci")
        for place in ("lib/functions.sh", "lib/functions/list.sh", "lib/config/uci.sh"):
            if (directory / place).exists():
                (self.root / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(directory / place, self.root / place)

    def program(self, source, place):
        """A program with the libraries that it needs."""
        shutil.copy(source, self.root / place)
        done = subprocess.run(["ldd", source], capture_output=True, text=True, check=False)
        for library in re.findall(r"(/\S+)", done.stdout if done.returncode == 0 else ""):
            target = self.root / library.lstrip("/")
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(library, target)

    def script(self, place, text):
        path = self.write(place, "#!/bin/sh\n" + text)
        path.chmod(0o755)

    def write(self, place, text):
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            path.unlink()
        path.write_text(text)
        return path

    def read(self, place):
        return (self.root / place).read_text()

    def exists(self, place):
        return (self.root / place).exists()

    def forget(self, place):
        with contextlib.suppress(FileNotFoundError):
            (self.root / place).unlink()

    def uci(self, text):
        self.write("etc/config/headgate", text)

    def run(self, *command, check=True, timeout=20, **options):
        """A command inside, its output and its status."""
        done = subprocess.run(["chroot", self.root, *command], capture_output=True, text=True, timeout=timeout, check=False, **options)
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def generate(self, text=None, now="3 1200"):
        """The YAML of a UCI text, and what the generator noted."""
        if text is not None:
            self.uci(text)
        done = self.run("/usr/libexec/headgate/generate", now)
        return done.stdout, done.stderr

    def check(self, yaml):
        """What `headgate check` says of a YAML text."""
        self.write("tmp/config.yaml", yaml)
        return self.run("/usr/bin/headgate", "check", "-d", "/tmp", "-f", "/tmp/config.yaml", check=False)

    def init(self, action, check=True):
        self.forget("tmp/procd")
        done = self.run("/etc/init.d/headgate", action, check=check)
        return done, (self.read("tmp/procd").splitlines() if self.exists("tmp/procd") else [])
