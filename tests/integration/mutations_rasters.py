"""Ways to damage the headers of raster formats: sizes, counts, offsets, places, texts."""

from __future__ import annotations

import re
import struct
from random import Random

from tests.integration.mutations_any import (
    BILLION_LAUGHS,
    EXTERNAL,
    FLOATS,
    HEAD_BYTES,
    INTEGERS,
    Change,
    absurd_integer,
    flip_anywhere,
    flip_in_head,
    put,
)  # fmt: skip

__all__ = ["HDF4", "HDF5", "HFA", "JP2", "TIFF", "tiff_entries"]


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
