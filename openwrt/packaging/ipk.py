"""An .ipk package and the index of a feed of them, as opkg of OpenWrt up to 24.10 reads them.

A gzipped tar of three members; every tar in the ustar format, for opkg passes over what a pax header
describes and still reports success.
"""

import gzip
import hashlib
import io
import tarfile

import deflate


def archive(files, mtime):
    """A gzipped ustar of path → (bytes, mode), with the directories on the way, owned by root."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        directories = {"."}
        for path in files:
            parts = path.split("/")[:-1]
            directories.update("./" + "/".join(parts[: n + 1]) for n in range(len(parts)))
        for directory in sorted(directories):
            member = tarfile.TarInfo(directory)
            member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o755, mtime
            member.uname = member.gname = "root"
            tar.addfile(member)
        for path, (content, mode) in sorted(files.items()):
            member = tarfile.TarInfo("./" + path)
            member.size, member.mode, member.mtime = len(content), mode, mtime
            member.uname = member.gname = "root"
            tar.addfile(member, io.BytesIO(content))
    return deflate.zipped(output.getvalue())


def script(call, own):
    """A control script: OpenWrt's default step, which runs ours (`NAME-pkg`)."""
    return f"""#!/bin/sh
[ "${{IPKG_NO_SCRIPT}}" = 1 ] && exit 0
[ -s "${{IPKG_INSTROOT}}/lib/functions.sh" ] || exit 0
. "${{IPKG_INSTROOT}}/lib/functions.sh"
{call} "$0" "$@"
"""


def control(package):
    """The control file's text."""
    size = sum(len(content) for content, _ in package.files.values())
    fields = {
        "Package": package.name,
        "Version": package.version,
        "Depends": ", ".join(sorted(package.depends)),
        "Source": f"openwrt/{package.origin}",
        "License": package.license,
        "Section": package.section,
        "Maintainer": package.maintainer,
        "Architecture": package.arch,
        "Installed-Size": str(size),
        "Description": package.description,
    }
    return "".join(f"{name}: {value}\n" for name, value in fields.items() if value)


def build(package, mtime):
    """The file's bytes."""
    members = {"control": (control(package).encode(), 0o644)}
    if package.conffiles:
        members["conffiles"] = ("".join(f"{path}\n" for path in package.conffiles).encode(), 0o644)
    if package.scripts:
        members["postinst"] = (script("default_postinst", package).encode(), 0o755)
        members["prerm"] = (script("default_prerm", package).encode(), 0o755)
        for name in ("postinst", "prerm"):
            if name in package.scripts:
                members[f"{name}-pkg"] = (("#!/bin/sh\n" + package.scripts[name] + "\n").encode(), 0o755)
        if "postrm" in package.scripts:
            members["postrm"] = (("#!/bin/sh\n" + package.scripts["postrm"] + "\nexit 0\n").encode(), 0o755)
    outer = {
        "debian-binary": (b"2.0\n", 0o644),
        "data.tar.gz": (archive(package.files, mtime), 0o644),
        "control.tar.gz": (archive(members, mtime), 0o644),
    }
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, (content, mode) in outer.items():
            member = tarfile.TarInfo("./" + name)
            member.size, member.mode, member.mtime = len(content), mode, mtime
            member.uname = member.gname = "root"
            tar.addfile(member, io.BytesIO(content))
    # Compressed already: another pass takes little off the rest.
    return gzip.compress(output.getvalue(), 9, mtime=0)


def index(entries):
    """The text of `Packages`; `entries`: package, file name and bytes."""
    stanzas = []
    for package, name, content in sorted(entries, key=lambda entry: entry[0].name):
        digest = hashlib.sha256(content).hexdigest()
        stanzas.append(control(package) + f"Filename: {name}\nSize: {len(content)}\nSHA256sum: {digest}\n")
    return "\n".join(stanzas)
