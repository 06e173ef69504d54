"""Compression that opkg and apk undo: deflate, by zopfli where it pays.

zopfli finds the same format's shortest form, 4 % below gzip -9 on a binary, at 7 s for each; a
router's flash is worth it. What is small is left to zlib.
"""

import functools
import gzip
import subprocess
import tempfile
import zlib

LARGE = 256 * 1024


@functools.lru_cache(maxsize=4)
def zopfli(data, form):
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            return subprocess.run(["zopfli", "--i5", f"--{form}", "-c", file.name], check=True, capture_output=True).stdout
        except FileNotFoundError:
            raise SystemExit("openwrt/build-packages: needs zopfli (Debian: apt-get install zopfli)") from None


def zipped(data):
    """As a gzip file without name and time: the same bytes for the same content."""
    return zopfli(data, "gzip") if len(data) > LARGE else gzip.compress(data, 9, mtime=0)


def raw(data):
    """As a bare deflate stream."""
    if len(data) > LARGE:
        return zopfli(data, "deflate")
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflate.compress(data) + deflate.flush()
