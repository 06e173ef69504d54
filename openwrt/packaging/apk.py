"""An .apk package (apk-tools 3) and the index of a feed of them, as OpenWrt 25.12 reads them.

Field numbers are those of apk's package schema. OpenWrt keeps lists of its own beside apk's database,
under /lib/apk/packages, which its install scripts and sysupgrade read.
"""

import hashlib

import adb

NAME, VERSION, HASHES, DESCRIPTION, ARCH, LICENSE, ORIGIN, MAINTAINER = range(1, 9)
INSTALLED_SIZE, FILE_SIZE, DEPENDS, PROVIDES = 12, 13, 15, 16
SCRIPTS = {"post-install": 3, "pre-deinstall": 4, "post-deinstall": 5, "post-upgrade": 7}
PACKAGE_INFO, PACKAGE_PATHS, PACKAGE_SCRIPTS = 1, 2, 3
ACL_MODE, ACL_USER, ACL_GROUP = 1, 2, 3


def script(package, call, own, upgrade=False):
    """A script that runs OpenWrt's default step and then ours, in the root where it is installed."""
    return "\n".join(
        [
            "#!/bin/sh",
            '[ -s "${IPKG_INSTROOT}/lib/functions.sh" ] || exit 0',
            '. "${IPKG_INSTROOT}/lib/functions.sh"',
            'export root="${IPKG_INSTROOT}"',
            f'export pkgname="{package.name}"',
            *(["export PKG_UPGRADE=1"] if upgrade else []),
            f"{call} \"$0\" \"$@\"",
            own,
            "exit 0",
            "",
        ]
    )


def scripts(package):
    """Script name to text."""
    if not package.scripts:
        return {}
    install = package.scripts.get("postinst", ":")
    return {
        "post-install": script(package, "default_postinst", install),
        "post-upgrade": script(package, "default_postinst", install, upgrade=True),
        "pre-deinstall": script(package, "default_prerm", package.scripts.get("prerm", ":")),
        "post-deinstall": "#!/bin/sh\n" + package.scripts.get("postrm", ":") + "\nexit 0\n",
    }


def with_lists(package):
    """The package's files and those by which OpenWrt knows them."""
    files = dict(package.files)
    place = f"lib/apk/packages/{package.name}"
    files[f"{place}.list"] = ("".join(f"/{path}\n" for path in sorted(package.files)).encode(), 0o644)
    if package.conffiles:
        static = [path for path in package.conffiles if path.lstrip("/") in package.files]
        digest = lambda path: hashlib.sha256(package.files[path.lstrip("/")][0]).hexdigest()
        files[f"{place}.conffiles"] = ("".join(f"{path}\n" for path in package.conffiles).encode(), 0o644)
        files[f"{place}.conffiles_static"] = ("".join(f"{path} {digest(path)}\n" for path in static).encode(), 0o644)
    return files


def information(writer, package, size, **more):
    """The package's own fields; `more` by number, as words."""
    dependency = lambda name: writer.object({1: writer.blob(name)})
    fields = {
        NAME: writer.blob(package.name),
        VERSION: writer.blob(package.version),
        DESCRIPTION: writer.blob(package.description),
        ARCH: writer.blob("noarch" if package.arch == "all" else package.arch),
        LICENSE: writer.blob(package.license),
        ORIGIN: writer.blob(package.origin),
        MAINTAINER: writer.blob(package.maintainer),
        INSTALLED_SIZE: writer.integer(size),
        DEPENDS: writer.array([dependency(name) for name in sorted(package.depends)]),
    }
    fields.update({number: word for number, word in more.get("fields", {}).items()})
    return writer.object(fields)


def paths(writer, files, mtime):
    """The directories with their files, and the data blocks in the same order."""
    directories = {"": {}}
    for path, (content, mode) in files.items():
        directory, _, name = path.rpartition("/")
        parent = directory
        while parent:
            directories.setdefault(parent, {})
            parent = parent.rpartition("/")[0]
        directories[directory][name] = (content, mode)
    acl = lambda mode: writer.object({ACL_MODE: writer.integer(mode), ACL_USER: writer.blob("root"), ACL_GROUP: writer.blob("root")})
    words, blocks = [], []
    for index, directory in enumerate(sorted(directories), 1):
        entries = []
        for number, (name, (content, mode)) in enumerate(sorted(directories[directory].items()), 1):
            digest = writer.blob(hashlib.sha256(content).digest())
            entry = {1: writer.blob(name), 2: acl(mode), 3: writer.integer(len(content)), 4: writer.integer(mtime), 5: digest}
            entries.append(writer.object(entry))
            if content:
                blocks.append((index, number, content))
        words.append(writer.object({1: writer.blob(directory), 2: acl(0o755), 3: writer.array(entries)}))
    return writer.array(words), blocks


def build(package, mtime, key=None):
    """The file's bytes, and what the index says of it."""
    writer = adb.Writer()
    files = with_lists(package)
    size = sum(len(content) for content, _ in files.values())
    # The unique id is the digest of the block in which it is still empty.
    identity = writer.blob(bytes(20))
    place = len(writer.data) - 20
    info = information(writer, package, size, fields={HASHES: identity})
    directories, blocks = paths(writer, files, mtime)
    texts = scripts(package)
    fields = {PACKAGE_INFO: info, PACKAGE_PATHS: directories}
    if texts:
        fields[PACKAGE_SCRIPTS] = writer.object({SCRIPTS[name]: writer.blob(text) for name, text in texts.items()})
    data = writer.finish(writer.object(fields))
    data[place : place + 20] = hashlib.sha256(data).digest()[:20]
    whole = adb.container(adb.SCHEMA_PACKAGE, data, blocks, key)
    return whole, (package, size, hashlib.sha256(data).digest(), len(whole))


def index(entries, description, key=None):
    """packages.adb over what `build` said of each package."""
    writer = adb.Writer()
    words = []
    for package, size, identity, length in sorted(entries, key=lambda entry: entry[0].name):
        fields = {HASHES: writer.blob(identity), FILE_SIZE: writer.integer(length)}
        words.append(information(writer, package, size, fields=fields))
    root = writer.object({1: writer.blob(description), 2: writer.array(words)})
    return adb.container(adb.SCHEMA_INDEX, writer.finish(root), key=key)
