"""Ways to damage archives and metadata: tables of members, XML, JSON, keys and values."""

from __future__ import annotations

import json
import re
import struct
from random import Random
from typing import Any

from tests.integration.mutations_any import (
    BILLION_LAUGHS,
    DATES,
    EXTERNAL,
    INTEGERS,
    NUMBERS,
    Change,
    flip_anywhere,
    put,
)  # fmt: skip

__all__ = ["JSON", "TEXT", "XML", "ZIP", "tar_header"]


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
    except (ValueError, RecursionError):
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
