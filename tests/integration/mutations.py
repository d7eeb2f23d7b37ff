"""Ways to damage the bytes of a source file: any file's, and each format's own.

Every function takes a seeded `random.Random` and the bytes, and returns other bytes. Those of
a format know where its sizes, counts and offsets lie, since a byte flipped at random seldom
makes a header that is well formed and absurd. Where a format's field is not found the bytes
are damaged as any file's, so that a mutation is never without effect by accident.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from random import Random
from typing import Any

__all__ = ["Change", "changes_for"]

Change = Callable[[Random, bytes], bytes]

HEAD_BYTES = 4096
"""Where headers, and most of what a decoder believes, lie."""

INTEGERS = (0, 1, 2, 7, 255, 65535, 65536, 10**6, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-300, 1e300, -1e300, 1e9, float("nan"), float("inf"))
NUMBERS = ("0", "-1", "nan", "inf", "1e308", "1e-308", "", "x", "2147483648", "9" * 30)
DATES = ("0000-00-00", "9999-99-99", "0001-01-01", "9999-12-31", "2016-02-30", "not a date")

BILLION_LAUGHS = (
    '<!DOCTYPE x [<!ENTITY a0 "ha">'
    + "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
    + "]><x>&a9;</x>"
)
EXTERNAL = (
    '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">'
    '<!ENTITY f SYSTEM "http://127.0.0.1:9/x">]><x>&e;&f;</x>'
)


def put(data: bytes, at: int, new: bytes) -> bytes:
    """`data` with `new` written over it at `at`, as far as it reaches."""
    if at >= len(data):
        return data
    return data[:at] + new[: len(data) - at] + data[at + len(new) :]


# ---------------------------------------------------------------- any file


def cut_anywhere(random: Random, data: bytes) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def cut_in_head(random: Random, data: bytes) -> bytes:
    return data[: random.randrange(min(len(data), HEAD_BYTES) + 1)]


def cut_end(random: Random, data: bytes) -> bytes:
    return data[: max(0, len(data) - random.randint(1, 64))]


def cut_start(random: Random, data: bytes) -> bytes:
    return data[random.randint(1, 64) :]


def flip(random: Random, data: bytes, within: int) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 16, 64))):
        changed[random.randrange(within)] ^= 1 << random.randrange(8)
    return bytes(changed)


def flip_anywhere(random: Random, data: bytes) -> bytes:
    return flip(random, data, len(data)) if data else b"\0"


def flip_in_head(random: Random, data: bytes) -> bytes:
    return (
        flip(random, data, min(len(data), random.choice((64, 512, HEAD_BYTES)))) if data else b"\0"
    )


def absurd_integer(random: Random, data: bytes) -> bytes:
    """An integer of 2, 4 or 8 bytes somewhere in the head, of either byte order."""
    code = random.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
    size = struct.calcsize(code)
    value = random.choice((*INTEGERS, 2**40, 2**62, 2**64 - 1)) % (1 << 8 * size)
    at = random.randrange(max(1, min(len(data), HEAD_BYTES))) // size * size
    return put(data, at, struct.pack(code, value))


def blank(random: Random, data: bytes) -> bytes:
    at = random.randrange(len(data) + 1)
    return put(data, at, bytes([random.choice((0, 255))]) * random.choice((16, 512, 65536)))


def insert(random: Random, data: bytes) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.randbytes(random.choice((1, 3, 512))) + data[at:]


def remove(random: Random, data: bytes) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + data[at + random.choice((1, 3, 512)) :]


def splice(random: Random, data: bytes) -> bytes:
    """A piece of the file in another place of it."""
    size = random.choice((8, 256, 4096))
    piece_at = random.randrange(len(data) + 1)
    return put(data, random.randrange(len(data) + 1), data[piece_at : piece_at + size])


def nothing_left(random: Random, data: bytes) -> bytes:
    return b""


def noise(random: Random, data: bytes) -> bytes:
    """The first bytes, by which a format is known, and noise after them."""
    kept = random.choice((4, 8, 12, 64))
    return data[:kept] + random.randbytes(min(len(data), 20_000))


def appended(random: Random, data: bytes) -> bytes:
    return data + random.randbytes(random.choice((1, 100, 5000)))


ANY: tuple[Change, ...] = (
    cut_anywhere, cut_anywhere, cut_in_head, cut_end, cut_start, flip_anywhere, flip_in_head,
    flip_in_head, absurd_integer, blank, insert, remove, splice, nothing_left, noise, appended,
)  # fmt: skip


# ---------------------------------------------------------------- TIFF

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}
_CODES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 16: "Q"}

Entry = tuple[int, int, int, int, int]
"""Tag, type, count, where the entry lies, where its values lie."""


def tiff_entries(data: bytes) -> tuple[str, bool, list[Entry], int]:
    """Byte order, whether it is a BigTIFF, the first directory, where its end points on."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    at = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    count_code, offset_code, entry_size = ("Q", "Q", 20) if big else ("H", "I", 12)
    count = struct.unpack_from(order + count_code, data, at)[0]
    at += struct.calcsize(count_code)
    found: list[Entry] = []
    for _ in range(min(count, 200)):
        tag, kind, values = struct.unpack_from(order + "HH" + offset_code, data, at)
        inline_at = at + 4 + struct.calcsize(offset_code)
        room = struct.calcsize(offset_code)
        values_at = inline_at
        if _SIZES.get(kind, 1) * values > room:
            values_at = struct.unpack_from(order + offset_code, data, inline_at)[0]
        found.append((tag, kind, values, at, values_at))
        at += entry_size
    return order, big, found, at


def tiff_value(tags: tuple[int, ...], values: tuple[int | float, ...]) -> Change:
    """One value of one of these tags, set to one of these numbers."""

    def change(random: Random, data: bytes) -> bytes:
        order, _, entries, _ = tiff_entries(data)
        fitting = [one for one in entries if one[0] in tags and one[1] in _CODES and one[2]]
        if not fitting:
            return flip_in_head(random, data)
        _, kind, count, at, values_at = random.choice(fitting)
        value = random.choice(values)
        code = _CODES[kind]
        if kind == 3 and count == 1 and value > 65535:  # a wider type has room in its place
            data, code = put(data, at + 2, struct.pack(order + "H", 4)), "I"
        size = struct.calcsize(code)
        if code in "fd":
            new = struct.pack(order + "d", value)[:size] if code == "d" else random.randbytes(4)
        else:
            new = (int(value) % (1 << 8 * size)).to_bytes(size, "big" if order == ">" else "little")
        return put(data, values_at + random.randrange(count) * size, new)

    return change


def tiff_entry(random: Random, data: bytes) -> bytes:
    """A tag's number, type, count or place."""
    order, big, entries, _ = tiff_entries(data)
    if not entries:
        return flip_in_head(random, data)
    *_, at, _ = random.choice(entries)
    field, code = random.choice(((0, "H"), (2, "H"), (4, "I"), (12 if big else 8, "I")))
    value = random.choice((*INTEGERS, len(data), len(data) - 1, len(data) + 1000))
    return put(
        data, at + field, struct.pack(order + code, value % (1 << 8 * struct.calcsize(code)))
    )


def tiff_next_directory(random: Random, data: bytes) -> bytes:
    """The chain of directories runs in a circle, or out of the file."""
    order, big, _, at = tiff_entries(data)
    first = struct.unpack_from(order + "I", data, 8 if big else 4)[0]
    value = random.choice((first, at, len(data) - 2, len(data) + 10, 2**32 - 1, 1))
    return put(data, at, struct.pack(order + ("Q" if big else "I"), value))


def tiff_text(random: Random, data: bytes) -> bytes:
    """Texts that are parsed further: GDAL's XML, the nodata value, the CRS's names."""
    _, _, entries, _ = tiff_entries(data)
    fitting = [one for one in entries if one[1] == 2 and one[2] > 4]
    if not fitting:
        return flip_in_head(random, data)
    tag, _, count, _, at = random.choice(fitting)
    texts = (BILLION_LAUGHS, EXTERNAL, "<" * count, "nan", "1e999", "\xff" * count)
    text = random.choice(texts[:3] if tag == 42112 else texts)
    return put(data, at, text.encode("latin-1")[: count - 1].ljust(count, b"\0"))


BLOCKS = (0, 1, 15, 16, 2**14, 2**16, 2**20, 2**24, 2**31 - 16, 2**32 - 16, 2**32 - 1)
OFFSETS = (0, 1, 8, 2**31 - 1, 2**31, 2**32 - 1, 10**6, 10**8)

TIFF: tuple[Change, ...] = (
    tiff_value((256, 257), (*INTEGERS, 100, 1000, 10**5)),
    tiff_value((256, 257), (*INTEGERS, 100, 1000, 10**5)),
    tiff_value((278, 322, 323), BLOCKS),
    tiff_value((278, 322, 323), BLOCKS),
    tiff_value((273, 279, 324, 325), OFFSETS),
    tiff_value((258, 277, 284, 317, 338, 339), (0, 1, 2, 3, 5, 7, 8, 12, 16, 32, 64, 255, 65535)),
    tiff_value((259, 262), (0, 1, 2, 3, 4, 5, 6, 7, 8, 32773, 34712, 34887, 50000, 50001, 65000)),
    tiff_value((33550, 33922, 34264), FLOATS),
    tiff_value((34735, 34736), (*INTEGERS, *FLOATS[:6])),
    tiff_entry,
    tiff_next_directory,
    tiff_text,
)


# ---------------------------------------------------------------- JPEG 2000


def jp2_value(fields: tuple[tuple[int, str], ...], values: tuple[int, ...]) -> Change:
    """A field of the codestream's image size segment, by its place after the length."""

    def change(random: Random, data: bytes) -> bytes:
        at = data.find(b"\xff\x4f\xff\x51")
        if at < 0:
            return flip_in_head(random, data)
        field, code = random.choice(fields)
        value = random.choice(values) % (1 << 8 * struct.calcsize(code))
        return put(data, at + 4 + field, struct.pack(code, value))

    return change


def jp2_segment(random: Random, data: bytes) -> bytes:
    """A byte of the coding style, quantisation, or of a tile's or packet's header."""
    places = [
        match.start() + 2
        for match in re.finditer(rb"\xff[\x52\x53\x55\x57\x5c\x5d\x90\x93]", data[:200_000])
    ]
    if not places:
        return flip_in_head(random, data)
    return put(data, random.choice(places) + random.randrange(14), random.randbytes(1))


def jp2_box(random: Random, data: bytes) -> bytes:
    """A box's length."""
    names = rb"jP  |ftyp|jp2h|ihdr|colr|asoc|lbl |xml |uuid|jp2c|res |pclr|cmap|bpcc|cdef"
    places = [match.start() for match in re.finditer(names, data[:HEAD_BYTES]) if match.start() > 3]
    if not places:
        return flip_in_head(random, data)
    value = random.choice((0, 1, 2, 7, 8, len(data), len(data) + 1, 2**31, 2**32 - 1))
    return put(data, random.choice(places) - 4, struct.pack(">I", value))


def jp2_xml(random: Random, data: bytes) -> bytes:
    """The GML in its box, with entities without end or from elsewhere."""
    at = data.find(b"<?xml")
    if at < 0:
        at = data.find(b"<gml")
    if at < 0:
        return jp2_box(random, data)
    end = data.find(b"</gml:FeatureCollection>", at)
    room = (end if end > 0 else at + 600) - at
    text = random.choice((BILLION_LAUGHS, EXTERNAL, "<" * room)).encode()
    return put(data, at, text[:room].ljust(room))


JP2: tuple[Change, ...] = (
    jp2_value(((4, ">I"), (8, ">I"), (12, ">I"), (16, ">I")), INTEGERS),
    jp2_value(((20, ">I"), (24, ">I"), (28, ">I"), (32, ">I")), (*INTEGERS, 16, 10)),
    jp2_value(((36, ">H"), (2, ">H")), (0, 2, 3, 255, 16384, 65535)),
    jp2_value(((38, ">B"), (39, ">B"), (40, ">B")), (0, 1, 7, 37, 128, 255)),
    jp2_segment,
    jp2_segment,
    jp2_box,
    jp2_xml,
)


# ---------------------------------------------------------------- HDF4, HDF5, HFA


def hdf4_descriptor(random: Random, data: bytes) -> bytes:
    """A data descriptor: its tag, reference, offset or length; or the link to the next block."""
    count = struct.unpack_from(">H", data, 4)[0]
    if random.random() < 0.1 or not count:
        return put(data, random.choice((4, 6)), struct.pack(">I", random.choice(INTEGERS)))
    at = 10 + 12 * random.randrange(count)
    field, code = random.choice(((0, ">H"), (2, ">H"), (4, ">I"), (8, ">I")))
    value = random.choice((*INTEGERS, len(data) - 1, len(data) + 10**6))
    return put(data, at + field, struct.pack(code, value % (1 << 8 * struct.calcsize(code))))


def hdf4_dimension(random: Random, data: bytes) -> bytes:
    """The rank or a dimension of an array (tag 701)."""
    places = []
    for index in range(min(struct.unpack_from(">H", data, 4)[0], 5000)):
        if 22 + 12 * index > len(data):
            break
        tag, _, offset, _ = struct.unpack_from(">HHII", data, 10 + 12 * index)
        if tag == 701 and offset + 2 < len(data):
            places.append(offset)
    if not places:
        return hdf4_descriptor(random, data)
    at = random.choice(places)
    if random.random() < 0.2:
        return put(data, at, struct.pack(">H", random.choice((0, 1, 3, 32, 33, 65535))))
    return put(data, at + 2 + 4 * random.randrange(2), struct.pack(">I", random.choice(INTEGERS)))


def odl(random: Random, data: bytes) -> bytes:
    """A number, name or mark of the text that places an HDF-EOS grid."""
    places = [
        match.span(1)
        for match in re.finditer(
            rb"(?:XDim|YDim|UpperLeftPointMtrs|LowerRightMtrs|ProjParams|Projection|GridName|"
            rb"DataFieldName|DimList|GROUP|END_GROUP|OBJECT)=([^\n]{1,200})",
            data,
        )
    ]
    if not places:
        return flip_anywhere(random, data)
    start, end = random.choice(places)
    texts = ("2147483648", "-1", "0", "nan", "(", ")", '"', "(1e308,nan)", "9" * 60, "\xff\xfe", "")
    return put(
        data, start, random.choice(texts).encode("latin-1")[: end - start].ljust(end - start)
    )


HDF4: tuple[Change, ...] = (hdf4_descriptor, hdf4_descriptor, hdf4_dimension, hdf4_dimension, odl)


def hdf5_integer(random: Random, data: bytes) -> bytes:
    """A small number of 8 bytes (a dimension, chunk, count or address) made absurd."""
    places = [
        at
        for at in range(0, min(len(data) - 8, 1 << 16), 8)
        if 0 < struct.unpack_from("<Q", data, at)[0] < 1 << 20
    ]
    if not places:
        return absurd_integer(random, data)
    value = random.choice((0, 1, 2**31, 2**32, 2**40, 2**62, 2**64 - 1, len(data) + 8))
    return put(data, random.choice(places), struct.pack("<Q", value))


def hdf5_message(random: Random, data: bytes) -> bytes:
    """A byte near one of the marks of heaps, trees, headers and symbol tables."""
    places = [match.start() for match in re.finditer(rb"TREE|HEAP|SNOD|OHDR|FRHP|BTHD|FSSE", data)]
    if not places:
        return flip_in_head(random, data)
    return put(data, random.choice(places) + random.randrange(48), random.randbytes(1))


HDF5: tuple[Change, ...] = (hdf5_integer, hdf5_integer, hdf5_message, hdf5_message)


def hfa_layer(random: Random, data: bytes) -> bytes:
    """A layer's width, height, kind or block size, or a node's links."""
    places = [match.start() for match in re.finditer(rb"Eimg_Layer\0", data)]
    entries = [at - 88 for at in places if at >= 88]
    if not entries:
        return flip_in_head(random, data)
    at = random.choice(entries)
    if random.random() < 0.3:  # next, previous, parent, child, data, size of data
        return put(data, at + 4 * random.randrange(6), struct.pack("<I", random.choice(INTEGERS)))
    layer = struct.unpack_from("<I", data, at + 16)[0]
    field, code = random.choice(
        ((0, "<I"), (4, "<I"), (8, "<H"), (10, "<H"), (12, "<I"), (16, "<I"))
    )
    value = random.choice(INTEGERS) % (1 << 8 * struct.calcsize(code))
    return put(data, layer + field, struct.pack(code, value))


def hfa_dictionary(random: Random, data: bytes) -> bytes:
    at = data.rfind(b"{1:", 0)
    if at < 0:
        return flip_in_head(random, data)
    return put(
        data,
        at + random.randrange(min(3000, len(data) - at)),
        random.choice((b"{", b"9", b":", b"\0")),
    )


HFA: tuple[Change, ...] = (hfa_layer, hfa_layer, hfa_dictionary)


# ---------------------------------------------------------------- archives


def zip_directory(random: Random, data: bytes) -> bytes:
    """A field of the table of members."""
    places = [match.start() for match in re.finditer(rb"PK\x01\x02", data)]
    if not places:
        return flip_anywhere(random, data)
    at = random.choice(places)
    fields = ((8, "<H"), (10, "<H"), (16, "<I"), (20, "<I"), (24, "<I"), (28, "<H"), (30, "<H"),
              (32, "<H"), (38, "<I"), (42, "<I"))  # fmt: skip
    field, code = random.choice(fields)
    value = random.choice((*INTEGERS, len(data), len(data) - 10)) % (1 << 8 * struct.calcsize(code))
    return put(data, at + field, struct.pack(code, value))


def zip_name(random: Random, data: bytes) -> bytes:
    places = [match.start() + 46 for match in re.finditer(rb"PK\x01\x02", data)]
    if not places:
        return flip_anywhere(random, data)
    return put(
        data,
        random.choice(places),
        random.choice((b"../../x", b"/etc/x", b"\0", b"\xff\xfe", b"C:")),
    )


def zip_end(random: Random, data: bytes) -> bytes:
    """The record at the end: counts, size and place of the table, length of the comment."""
    at = data.rfind(b"PK\x05\x06")
    if at < 0:
        return flip_anywhere(random, data)
    field, code = random.choice(
        ((4, "<H"), (8, "<H"), (10, "<H"), (12, "<I"), (16, "<I"), (20, "<H"))
    )
    value = random.choice(INTEGERS) % (1 << 8 * struct.calcsize(code))
    return put(data, at + field, struct.pack(code, value))


def zip_member(random: Random, data: bytes) -> bytes:
    """A member's own header, or the first of its packed bytes."""
    places = [match.start() for match in re.finditer(rb"PK\x03\x04", data)]
    if not places:
        return flip_anywhere(random, data)
    return put(data, random.choice(places) + random.randrange(100), random.randbytes(1))


ZIP: tuple[Change, ...] = (zip_directory, zip_directory, zip_name, zip_end, zip_member)


def tar_header(random: Random, data: bytes) -> bytes:
    """A field of a member's header: name, mode, size, sum, type, link."""
    places = [match.start() - 257 for match in re.finditer(rb"ustar", data)]
    if not places:
        return flip_anywhere(random, data)
    field, texts = random.choice(
        (
            (0, (b"../../x\0", b"/etc/x\0", b"\0")),
            (124, (b"77777777777\0", b"-1\0", b"\x80" + b"\xff" * 11, b"00000000000\0")),
            (148, (b"0000000\0",)),
            (156, (b"1", b"2", b"3", b"x", b"L", b"S", b"\xff")),
        )
    )
    return put(data, random.choice(places) + field, random.choice(texts))


# ---------------------------------------------------------------- texts


def text_number(random: Random, data: bytes) -> bytes:
    places = [match.span() for match in re.finditer(rb"(?<=[>=: ])-?\d+(?:\.\d+)?", data)]
    return _replaced(random, data, places, NUMBERS)


def text_date(random: Random, data: bytes) -> bytes:
    return _replaced(
        random, data, [m.span() for m in re.finditer(rb"\d{4}-\d\d-\d\d", data)], DATES
    )


def text_line(random: Random, data: bytes) -> bytes:
    """A line left out, twice, or changed with another."""
    lines = data.splitlines(keepends=True)
    if len(lines) < 3:
        return flip_anywhere(random, data)
    one, other = random.randrange(len(lines)), random.randrange(len(lines))
    how = random.randrange(3)
    if how == 0:
        del lines[one]
    elif how == 1:
        lines.insert(one, lines[other])
    else:
        lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


def text_encoding(random: Random, data: bytes) -> bytes:
    how = random.randrange(4)
    if how == 0:
        return data.decode("latin-1").encode("utf-16")
    if how == 1:
        return data.replace(b"UTF-8", b"no-such-encoding", 1).replace(b"utf-8", b"utf-7", 1)
    return (b"\xef\xbb\xbf" + data) if how == 2 else data.replace(b"\n", b"\0\n", 1)


def text_keys(random: Random, data: bytes) -> bytes:
    """A name, everywhere it stands, that nothing knows."""
    names = sorted(set(re.findall(rb"[A-Za-z_]{5,40}", data[:100_000])))
    return data.replace(random.choice(names), b"NoSuchName") if names else data + b"x"


def _replaced(
    random: Random, data: bytes, places: list[tuple[int, int]], texts: tuple[str, ...]
) -> bytes:
    if not places:
        return flip_anywhere(random, data)
    start, end = random.choice(places)
    return data[:start] + random.choice(texts).encode() + data[end:]


TEXT: tuple[Change, ...] = (
    text_number,
    text_number,
    text_date,
    text_line,
    text_encoding,
    text_keys,
)


def xml_entities(random: Random, data: bytes) -> bytes:
    head, mark, rest = data.partition(b"?>")
    declared = random.choice((BILLION_LAUGHS, EXTERNAL)).partition("]>")[0].encode() + b"]>"
    entity = random.choice((b"&a9;", b"&e;", b"&f;"))
    at = rest.find(b">", random.randrange(len(rest) + 1)) + 1
    return head + mark + declared + rest[:at] + entity + rest[at:]


def xml_depth(random: Random, data: bytes) -> bytes:
    head, mark, rest = data.partition(b"?>")
    return head + mark + b"<a>" * random.choice((1000, 200_000)) + rest


def xml_element(random: Random, data: bytes) -> bytes:
    """An element's start or end left out."""
    places = [match.span() for match in re.finditer(rb"</?[A-Za-z][^<>]*>", data)]
    return _replaced(random, data, places, ("", "<", "<x>", "<!--"))


def json_value(random: Random, data: bytes) -> bytes:
    """A value of another type, somewhere; or brackets without end."""
    if random.random() < 0.1:
        return b"[" * 200_000
    try:
        tree = json.loads(data)
    except ValueError:
        return flip_anywhere(random, data)
    node: Any = tree
    while isinstance(node, dict | list) and node:
        key = random.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if not isinstance(node[key], dict | list) or not node[key] or random.random() < 0.3:
            node[key] = random.choice((None, -1, 1e308, "", "x" * 10_000, [], {}, [[[]]], True))
            break
        node = node[key]
    return json.dumps(tree).encode()


XML: tuple[Change, ...] = (xml_entities, xml_entities, xml_depth, xml_element, *TEXT)
JSON: tuple[Change, ...] = (json_value, json_value, *TEXT)


# ---------------------------------------------------------------- which


def changes_for(data: bytes) -> tuple[Change, ...]:
    """What fits these bytes: half of it any file's, half their format's."""
    own = _own_changes(data)
    return ANY + own * max(1, round(len(ANY) / len(own))) if own else ANY


def _own_changes(data: bytes) -> tuple[Change, ...]:
    for starts, changes in (
        ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), TIFF),
        ((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"), JP2),
        ((b"\x0e\x03\x13\x01",), HDF4),
        ((b"\x89HDF",), HDF5),
        ((b"EHFA_HEADER_TAG",), HFA),
        ((b"PK\x03\x04",), ZIP),
    ):
        if data.startswith(starts):
            return changes
    if data[257:262] == b"ustar":
        return (tar_header,)
    start = data[:200].lstrip(b"\xef\xbb\xbf \r\n\t")
    if start.startswith(b"<"):
        return XML
    if start.startswith((b"{", b"[")):
        return JSON
    if start and b"\0" not in data[:2000] and start.isascii():
        return TEXT
    return ()
