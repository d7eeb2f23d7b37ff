"""Ways to damage the bytes of any file, and what all ways share."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

__all__ = [
    "ANY", "BILLION_LAUGHS", "DATES", "EXTERNAL", "FLOATS", "HEAD_BYTES", "INTEGERS", "NUMBERS",
    "Change", "absurd_integer", "flip_anywhere", "flip_in_head", "put",
]  # fmt: skip

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
