"""LuCI's compiled translations (.lmo) from gettext's .po.

The file is the translations, padded to four bytes each, then an index of (key, plural forms, offset,
length) sorted by key, then the index's offset; all big-endian words. A key is Paul Hsieh's
SuperFastHash of the English text; with plural forms, of the text, a byte 2 and the form's number.
"""

import re
import struct


def superfast_hash(data):
    """SuperFastHash, seeded with the length as LuCI does."""
    value = len(data) & 0xFFFFFFFF
    if not data:
        return 0
    signed = lambda byte: byte - 256 if byte > 127 else byte
    short = lambda at: data[at] | data[at + 1] << 8
    whole = len(data) >> 2
    for at in range(0, whole * 4, 4):
        value = (value + short(at)) & 0xFFFFFFFF
        mixed = (short(at + 2) << 11) ^ value
        value = ((value << 16) ^ mixed) & 0xFFFFFFFF
        value = (value + (value >> 11)) & 0xFFFFFFFF
    rest, at = len(data) & 3, whole * 4
    if rest == 3:
        value = (value + short(at)) & 0xFFFFFFFF
        value ^= (value << 16) & 0xFFFFFFFF
        value ^= (signed(data[at + 2]) << 18) & 0xFFFFFFFF
        value = (value + (value >> 11)) & 0xFFFFFFFF
    elif rest == 2:
        value = (value + short(at)) & 0xFFFFFFFF
        value ^= (value << 11) & 0xFFFFFFFF
        value = (value + (value >> 17)) & 0xFFFFFFFF
    elif rest == 1:
        value = (value + signed(data[at])) & 0xFFFFFFFF
        value ^= (value << 10) & 0xFFFFFFFF
        value = (value + (value >> 1)) & 0xFFFFFFFF
    for left, right in ((3, 5), (4, 17), (25, 6)):
        value ^= (value << left) & 0xFFFFFFFF
        value = (value + (value >> right)) & 0xFFFFFFFF
    return value


def unquote(text):
    return re.sub(r"\\(.)", lambda match: {"n": "\n", "t": "\t"}.get(match[1], match[1]), text)


def messages(text):
    """The entries of a .po: dictionaries of msgctxt, msgid, msgid_plural, msgstr or msgstr[N]."""
    entry, field = {}, None
    for line in [*text.splitlines(), ""]:
        line = line.strip()
        if not line:
            if entry:
                yield entry
            entry, field = {}, None
        elif line.startswith("#"):
            continue
        elif match := re.fullmatch(r'(msgctxt|msgid|msgid_plural|msgstr(?:\[\d+\])?)\s+"(.*)"', line):
            field = match[1]
            entry[field] = unquote(match[2])
        elif (match := re.fullmatch(r'"(.*)"', line)) and field:
            entry[field] += unquote(match[1])


def compile_po(text):
    """The bytes of the .lmo."""
    data, entries = bytearray(), []

    def put(key, forms, value):
        entries.append((key, forms, len(data), len(value)))
        data.extend(value + bytes(-len(value) % 4))

    for entry in messages(text):
        if entry.get("msgid") == "":
            match = re.search(r"Plural-Forms:\s*(.*)", entry.get("msgstr", ""))
            if match:
                put(0, 0, match[1].strip().encode())
            continue
        context = entry["msgctxt"] + "\1" if "msgctxt" in entry else ""
        plural = "msgid_plural" in entry
        values = [entry[name] for name in sorted(entry) if name.startswith("msgstr")]
        for number, value in enumerate(values):
            key = (context + entry["msgid"] + (f"\2{number}" if plural else "")).encode()
            value = value.encode()
            if value and superfast_hash(key) != superfast_hash(value):
                put(superfast_hash(key), len(values), value)
    index = b"".join(struct.pack(">4I", *entry) for entry in sorted(entries))
    return bytes(data) + index + struct.pack(">I", len(data))
