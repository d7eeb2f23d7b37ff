"""An uncompressed zip archive as bytes, the same bytes for the same members.

Written by hand rather than with `zipfile`, because the block table inside the archive holds
the offsets of later members: they must be known before anything is written. Times are fixed,
names are ASCII, nothing is compressed (PKWARE APPNOTE.TXT 4.3: local file header, central
directory header, end of central directory record).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import imagecodecs

from geostore.errors import InvalidInputError
from geostore.tiles.layout import TILE_BYTES_MAX

__all__ = ["END_RECORD_BYTES", "Member", "archive_parts", "member_offsets"]

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
END_RECORD_BYTES = _END.size

_VERSION_NEEDED = 20
_UNIX = 3 << 8
_REGULAR_FILE_0644 = 0o100644 << 16
_MIDNIGHT = 0
_DAY_ONE = (1 << 5) | 1  # 1980-01-01: the format's epoch
MEMBERS_MAX = 0xFFFF


@dataclass(slots=True)
class Member:
    """One file of the archive."""

    name: str
    """ASCII, `/` between folders."""
    data: bytes | bytearray


def member_offsets(members: Sequence[Member]) -> list[int]:
    """Where in the archive each member's data starts.

    Raises:
        InvalidInputError: more members or bytes than a plain zip can hold.
    """
    if len(members) > MEMBERS_MAX:
        raise InvalidInputError(
            f"tile of {len(members)} stored parts: expected at most {MEMBERS_MAX};"
            " choose a longer geocode length or a coarser resolution"
        )
    offsets = []
    position = 0
    for member in members:
        position += _LOCAL.size + len(member.name)
        offsets.append(position)
        position += len(member.data)
    directory = sum(_CENTRAL.size + len(member.name) for member in members)
    if position + directory + _END.size > TILE_BYTES_MAX:
        raise InvalidInputError(
            f"tile of {position} bytes: expected at most {TILE_BYTES_MAX};"
            " choose a longer geocode length or a coarser resolution"
        )
    return offsets


def archive_parts(members: Sequence[Member], comment_bytes: int) -> list[bytes | bytearray]:
    """The archive as consecutive pieces, up to its comment, which the caller appends.

    Args:
        members: in file order.
        comment_bytes: length of the comment that will follow.
    """
    parts: list[bytes | bytearray] = []
    directory = bytearray()
    for member, data_offset in zip(members, member_offsets(members), strict=True):
        name = member.name.encode("ascii")
        size = len(member.data)
        checksum = imagecodecs.deflate_crc32(member.data)
        common = (_VERSION_NEEDED, 0, 0, _MIDNIGHT, _DAY_ONE, checksum, size, size, len(name), 0)
        parts += (_LOCAL.pack(b"PK\3\4", *common) + name, member.data)
        start = data_offset - len(name) - _LOCAL.size
        directory += _CENTRAL.pack(
            b"PK\1\2", _UNIX | _VERSION_NEEDED, *common, 0, 0, 0, _REGULAR_FILE_0644, start
        )
        directory += name
    directory_start = sum(len(part) for part in parts)
    count = len(members)
    end = _END.pack(b"PK\5\6", 0, 0, count, count, len(directory), directory_start, comment_bytes)
    parts += (bytes(directory), end)
    return parts
