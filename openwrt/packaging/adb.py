"""The container of apk-tools 3 ("ADB"): typed values in one block, signatures, file data.

Written from apk-v3(5) of alpinelinux/apk-tools and checked against that program (install, remove,
`adbdump`). It writes what packages and indexes need, nothing else, and reads nothing.
"""

import hashlib
import struct
import subprocess
import tempfile

import deflate

SCHEMA_PACKAGE = 0x676B6370  # "pckg"
SCHEMA_INDEX = 0x78646E69  # "indx"

BLOCK_ADB, BLOCK_SIGNATURE, BLOCK_DATA = range(3)
SHA512 = 4
NULL = 0
INT, INT_32, INT_64 = 0x10000000, 0x20000000, 0x30000000
BLOB_8, BLOB_16, BLOB_32 = 0x80000000, 0x90000000, 0xA0000000
ARRAY, OBJECT = 0xD0000000, 0xE0000000


class Writer:
    """The values of one ADB block; every method gives the 32-bit word that stands for its value."""

    def __init__(self):
        # Versions 0 and 0, two reserved bytes, and the root, which is known last.
        self.data = bytearray(8)

    def _put(self, data, alignment):
        self.data += bytes(-len(self.data) % alignment)
        offset = len(self.data)
        self.data += data
        return offset

    def integer(self, value):
        if value < 1 << 28:
            return INT | value
        if value < 1 << 32:
            return INT_32 | self._put(struct.pack("<I", value), 4)
        return INT_64 | self._put(struct.pack("<Q", value), 4)

    def blob(self, value):
        if isinstance(value, str):
            value = value.encode()
        if not value:
            return NULL
        if len(value) < 1 << 8:
            return BLOB_8 | self._put(struct.pack("<B", len(value)) + value, 1)
        if len(value) < 1 << 16:
            return BLOB_16 | self._put(struct.pack("<H", len(value)) + value, 2)
        return BLOB_32 | self._put(struct.pack("<I", len(value)) + value, 4)

    def _slots(self, kind, words):
        while words and words[-1] == NULL:
            words.pop()
        if not words:
            return NULL
        return kind | self._put(struct.pack(f"<{len(words) + 1}I", len(words) + 1, *words), 4)

    def array(self, words):
        return self._slots(ARRAY, list(words))

    def object(self, fields):
        """`fields`: slot number (from 1) to word."""
        return self._slots(OBJECT, [fields.get(slot, NULL) for slot in range(1, max(fields) + 1)])

    def finish(self, root):
        self.data[4:8] = struct.pack("<I", root)
        return self.data


def block(kind, payload):
    """A block with its padding to eight bytes."""
    size = 4 + len(payload)
    assert size < 1 << 30, "such a file needs the extended header"
    return struct.pack("<I", kind << 30 | size) + payload + bytes(-size % 8)


def signature(schema, data, key):
    """The block that signs the ADB block with a PEM private key, by `openssl`."""
    public = subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-outform", "DER"], check=True, capture_output=True).stdout
    # The key's name is the digest of its point, which ends the DER of an EC key (P-256: 65 bytes).
    header = struct.pack("<BB", 0, SHA512) + hashlib.sha512(public[-65:]).digest()[:16]
    signed = struct.pack("<I", schema) + header + hashlib.sha512(data).digest()
    with tempfile.NamedTemporaryFile() as file:
        file.write(signed)
        file.flush()
        proof = subprocess.run(["openssl", "dgst", "-sha512", "-sign", key, file.name], check=True, capture_output=True).stdout
    return block(BLOCK_SIGNATURE, header + proof)


def container(schema, data, files=(), key=None):
    """A whole compressed file. `files`: the file data with its two indexes, in order."""
    parts = [b"ADB.", struct.pack("<I", schema), block(BLOCK_ADB, bytes(data))]
    if key:
        parts.append(signature(schema, bytes(data), key))
    parts += [block(BLOCK_DATA, struct.pack("<II", path, number) + content) for path, number, content in files]
    return b"ADBd" + deflate.raw(b"".join(parts))
