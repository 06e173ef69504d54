"""What the packages hold: the trees of headgate/ and luci-app-headgate/ as they are installed.

The Makefiles of the feed install the same trees; scripts and dependencies are read from there, so that
there is one place for each.
"""

import dataclasses
import re

import lmo

LICENSE = "Apache-2.0 OR MIT"
MAINTAINER = "The headgate developers"

# How LuCI calls the languages of the folders in po/.
LANGUAGES = {"zh_Hans": ("zh-cn", "简体中文 (Chinese Simplified)")}


@dataclasses.dataclass
class Package:
    """One package, whatever its format. `files`: path without a leading slash → (bytes, mode)."""

    name: str
    version: str
    arch: str
    description: str
    depends: list
    files: dict
    section: str = "net"
    origin: str = "headgate"
    license: str = LICENSE
    maintainer: str = MAINTAINER
    conffiles: list = dataclasses.field(default_factory=list)
    scripts: dict = dataclasses.field(default_factory=dict)


def tree(folder, prefix=""):
    """A folder's files. The mode says only whether they run: git keeps no more."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            files[prefix + str(path.relative_to(folder))] = (path.read_bytes(), mode)
    return files


def define(makefile, name):
    """The body of a `define` of the Makefile, as the shell sees it."""
    match = re.search(rf"^define {re.escape(name)}\n(.*?)^endef", makefile, re.M | re.S)
    return match[1].replace("$$", "$") if match else ""


def script(makefile, name):
    """A maintainer script's own part, without its first line."""
    return define(makefile, name).removeprefix("#!/bin/sh\n").rstrip("\n").removesuffix("exit 0").rstrip("\n")


def headgate(folder, binary, version, arch):
    makefile = (folder / "Makefile").read_text()
    files = tree(folder / "files")
    config = "etc/config/headgate"
    files[config] = (files[config][0], 0o600)
    files["usr/bin/headgate"] = (binary.read_bytes(), 0o755)
    depends = re.search(r"^  DEPENDS:=(.*)$", makefile, re.M)[1]
    names = ("postinst", "prerm", "postrm")
    return Package(
        name="headgate",
        version=version,
        arch=arch,
        description=re.search(r"^  TITLE:=(.*)$", makefile, re.M)[1],
        # The binary is static: only what the feed names with a plus, libc aside.
        depends=re.findall(r"\+([\w-]+)", depends),
        files=files,
        conffiles=[path for path in define(makefile, "Package/headgate/conffiles").split() if not path.endswith("/")],
        scripts={name: text for name in names if (text := script(makefile, f"Package/headgate/{name}"))},
    )


def luci(folder, version):
    """The app, and one package a language."""
    makefile = (folder / "Makefile").read_text()
    title = re.search(r"^LUCI_TITLE:=(.*)$", makefile, re.M)[1]
    depends = re.search(r"^LUCI_DEPENDS:=(.*)$", makefile, re.M)[1]
    files = tree(folder / "htdocs", "www/") | tree(folder / "root")
    reload = '[ -n "${IPKG_INSTROOT}" ] || { rm -rf /tmp/luci-indexcache* /tmp/luci-modulecache; /etc/init.d/rpcd reload 2>/dev/null; }'
    app = Package(
        name="luci-app-headgate", version=version, arch="all", section="luci", origin="luci-app-headgate", description=title,
        depends=re.findall(r"\+([\w-]+)", depends), files=files, scripts={"postinst": reload, "postrm": reload},
    )
    packages = [app]
    for language, (code, name) in LANGUAGES.items():
        catalogue = lmo.compile_po((folder / "po" / language / "headgate.po").read_text())
        defaults = f"uci set luci.languages.{code.replace('-', '_')}='{name}'; uci commit luci\n"
        packages.append(
            Package(
                name=f"luci-i18n-headgate-{code}", version=version, arch="all", section="luci", origin="luci-app-headgate",
                description=f"Translation for luci-app-headgate - {name}", depends=["luci-app-headgate"],
                files={
                    f"usr/lib/lua/luci/i18n/headgate.{code}.lmo": (catalogue, 0o644),
                    f"etc/uci-defaults/luci-i18n-headgate-{code}": (defaults.encode(), 0o755),
                },
                scripts={"postinst": ":"},
            )
        )
    return packages


def packages(here, binary, version, arch):
    """Everything that one architecture's feed holds."""
    found = [headgate(here / "headgate", binary, version, arch)]
    if (here / "luci-app-headgate/Makefile").exists():
        found += luci(here / "luci-app-headgate", version)
    return found
