"""The bytes of the catalog's log: segment headers, frames and the head. Pure; no files.

docs/catalog-format.md has the tables. Values that are made once a frame are named tuples, a
third of the time of frozen dataclasses. All numbers are little-endian, all offsets count from
the beginning of their file, and every structure begins on a multiple of 8.

What makes stale bytes fail: a frame's checksums are seeded with the log's random id, its
segment's number and its own offset, and it carries the checksum of the frame before it. So a
frame of another log, of another place of this one, or of a history that was cut off and
written anew passes nowhere.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

import xxhash

from geostore.errors import CorruptDataError, StoreFormatError

__all__ = [
    "FORMAT_VERSION",
    "FRAME_BYTES_MAX",
    "FRAME_HEADER_BYTES",
    "FRAME_MAGIC",
    "HEAD_BYTES",
    "HEAD_FILE",
    "HEAD_SLOTS",
    "HEAD_SLOT_BYTES",
    "LOG_ID_BYTES",
    "REBUILD",
    "SEGMENT_HEADER_BYTES",
    "SEGMENT_SUFFIX",
    "START",
    "Frame",
    "FrameAt",
    "FrameHeader",
    "HeadSlot",
    "Position",
    "SegmentHeader",
    "footprint",
    "pack_head",
    "segment_name",
    "segment_number",
    "segment_seed",
    "unpack_head_id",
]

FORMAT_VERSION = 1
LOG_ID_BYTES = 16
BOOT_ID_BYTES = 16
FRAME_BYTES_MAX = 1 << 30
"""The longest payload of a frame."""
KIND_MAX = 0xFFFF
SEGMENT_NUMBER_MAX = 99_999_999

SEGMENT_SUFFIX = ".log"
HEAD_FILE = "head"
REBUILD = "rebuild the catalog from the tile files: geostore verify --rebuild"
"""What to do about damage: the end of every such message."""

_MASK = (1 << 64) - 1
_digest = xxhash.xxh3_64_intdigest


# ---------------------------------------------------------------- positions


class Position(NamedTuple):
    """The end of a frame: where the next one begins, or the next segment."""

    segment: int
    offset: int
    sequence: int
    """Of the frame that ends here; 0 before the first."""
    chain: int
    """That frame's checksum: tells this history from another that reached the same place."""

    def pack(self) -> bytes:
        """32 bytes, for a snapshot's header."""
        return _POSITION.pack(self.segment, self.offset, self.sequence, self.chain)

    @classmethod
    def unpack(cls, data: bytes | memoryview) -> Position:
        """Undoes `pack`."""
        if len(data) != _POSITION.size:
            raise CorruptDataError(
                f"log position: {len(data)} bytes, expected {_POSITION.size}; {REBUILD}"
            )
        return cls(*_POSITION.unpack(data))


_POSITION = struct.Struct("<4Q")
START = Position(0, 0, 0, 0)
"""Before the first frame of any log."""


class FrameAt(NamedTuple):
    """Where a frame lies: `offset` is its payload's, for `view`."""

    segment: int
    offset: int
    sequence: int


class Frame(NamedTuple):
    """One atomic commit, read and verified."""

    at: FrameAt
    kind: int
    payload: memoryview
    """Read-only, on the segment's map; valid as long as it is held."""
    end: Position


# ---------------------------------------------------------------- segments

_SEGMENT = struct.Struct("<8sIII4x16sQQ")
SEGMENT_HEADER_BYTES = 64
SEGMENT_MAGIC = b"geolog\r\n"
assert _SEGMENT.size + 8 == SEGMENT_HEADER_BYTES


def segment_name(number: int) -> str:
    """The file of a segment: `00000001.log`."""
    assert 0 < number <= SEGMENT_NUMBER_MAX, number
    return f"{number:08}{SEGMENT_SUFFIX}"


def segment_number(name: str) -> int | None:
    """The segment of a file; None where it is none."""
    stem, dot, suffix = name.partition(".")
    is_segment = dot + suffix == SEGMENT_SUFFIX and len(stem) == 8 and stem.isdecimal()
    return int(stem) or None if is_segment else None


def segment_seed(log_id: bytes, number: int) -> int:
    """What the seeds of a segment's frames count from."""
    return _digest(log_id, number)


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """The first bytes of a segment's file."""

    number: int
    log_id: bytes
    before: Position
    """Of the last frame before this segment; its segment and offset are left 0."""

    @property
    def start(self) -> Position:
        """Before the first frame."""
        return Position(self.number, SEGMENT_HEADER_BYTES, self.before.sequence, self.before.chain)

    def pack(self) -> bytes:
        """`SEGMENT_HEADER_BYTES` bytes."""
        fields = _SEGMENT.pack(
            SEGMENT_MAGIC,
            FORMAT_VERSION,
            self.number,
            SEGMENT_HEADER_BYTES,
            self.log_id,
            self.before.sequence,
            self.before.chain,
        )
        return fields + struct.pack("<Q", _digest(fields))

    @classmethod
    def unpack(cls, data: bytes | memoryview, where: str) -> SegmentHeader:
        """Checks and reads a header; `where` names the file in messages.

        Raises:
            CorruptDataError: it is short or does not match its checksum.
            StoreFormatError: a newer geostore wrote it.
        """
        if len(data) < SEGMENT_HEADER_BYTES:
            raise CorruptDataError(
                f"{where}: {len(data)} bytes, expected a header of {SEGMENT_HEADER_BYTES};"
                f" the file was cut short; {REBUILD}"
            )
        fields = bytes(data[: _SEGMENT.size])
        (checksum,) = struct.unpack_from("<Q", data, _SEGMENT.size)
        magic, version, number, size, log_id, sequence, chain = _SEGMENT.unpack(fields)
        if magic != SEGMENT_MAGIC or checksum != _digest(fields):
            raise CorruptDataError(
                f"{where}: the header does not match its checksum: the file is damaged, or no"
                f" segment of a catalog's log; {REBUILD}"
            )
        if version != FORMAT_VERSION or size != SEGMENT_HEADER_BYTES:
            raise StoreFormatError(
                f"{where}: log format version {version}; this geostore reads version"
                f" {FORMAT_VERSION}: install a newer geostore"
            )
        return cls(number, log_id, Position(0, 0, sequence, chain))


# ---------------------------------------------------------------- frames

_FRAME = struct.Struct("<QIIIHHQQQ")
_FRAME_FIELDS = struct.Struct("<IHHQQQ")
FRAME_HEADER_BYTES = 48
FRAME_MAGIC = b"gsFr"
_MAGIC = int.from_bytes(FRAME_MAGIC, "little")
CHECKED_FROM = 8
"""A frame's checksum is over its bytes from here to the end of its padding."""
_FIELDS_FROM = 16
SMALL_BYTES = 4096
assert _FRAME.size == FRAME_HEADER_BYTES
assert _FRAME_FIELDS.size == FRAME_HEADER_BYTES - _FIELDS_FROM


def footprint(length: int) -> int:
    """Bytes that a frame with a payload of `length` takes, padding included."""
    return FRAME_HEADER_BYTES + (length + 7 & ~7)


class FrameHeader(NamedTuple):
    """What stands before a payload."""

    length: int
    """Of the payload, without padding."""
    kind: int
    sequence: int
    synced: int
    """The last frame that was known to be on disk when this one was written: what proves, of
    a damaged frame with whole ones after it, whether it had been acknowledged."""
    previous: int
    """Checksum of the frame before."""
    checksum: int = 0
    flags: int = 0

    def pack(self, seed: int, parts: list[memoryview]) -> tuple[bytes, int]:
        """(the header's bytes, its checksum) of a frame with these parts, padding included."""
        fields = _FRAME_FIELDS.pack(
            self.length, self.kind, self.flags, self.sequence, self.synced, self.previous
        )
        checked = struct.pack("<II", _MAGIC, _digest(fields, seed) & 0xFFFFFFFF) + fields
        if footprint(self.length) <= SMALL_BYTES:
            checksum = _digest(b"".join((checked, *parts)), seed)  # one call is cheaper
        else:
            running = xxhash.xxh3_64(checked, seed=seed)
            for part in parts:
                running.update(part)
            checksum = running.intdigest()
        return struct.pack("<Q", checksum) + checked, checksum

    @classmethod
    def unpack(cls, data: memoryview, at: int = 0) -> FrameHeader | None:
        """The header at `at`, nothing verified; None where no frame begins."""
        found = _FRAME.unpack_from(data, at)
        checksum, magic, _, length, kind, flags, sequence, synced, previous = found
        if magic != _MAGIC:
            return None
        return cls(length, kind, sequence, synced, previous, checksum, flags)

    @staticmethod
    def holds(data: memoryview, seed: int) -> bool:
        """Whether the header in `data` matches its own check (its payload may not)."""
        checked = int.from_bytes(data[_FIELDS_FROM - 4 : _FIELDS_FROM], "little")
        fields = data[_FIELDS_FROM:FRAME_HEADER_BYTES]
        return checked == _digest(fields, seed) & 0xFFFFFFFF


def frame_seed(seed_of_segment: int, offset: int) -> int:
    """The seed of the frame whose header begins at `offset`."""
    return (seed_of_segment + offset) & _MASK


# ---------------------------------------------------------------- the head

_HEAD = struct.Struct("<8sI4x16s24x")
_SLOT = struct.Struct("<4Q16sQ")
HEAD_MAGIC = b"geohead\n"
HEAD_SLOT_BYTES = 64
HEAD_SLOTS = (64, 128)
"""Offsets of the two copies, written one after the other."""
HEAD_BYTES = 192
RETIRED = 1 << 63
assert _HEAD.size + 8 == HEAD_SLOTS[0]
assert _SLOT.size + 8 == HEAD_SLOT_BYTES


@dataclass(frozen=True, slots=True)
class HeadSlot:
    """What the head says: how far the log is durable."""

    position: Position
    boot_id: bytes
    """Of the system that ran when it was written: after a crash of the system the head may
    have been kept in an older state than the log."""
    retired: bool = False
    """Another log was put in this one's place."""

    @property
    def mark(self) -> int:
        """Tells one state from the next; the first eight bytes."""
        return self.position.sequence | (RETIRED if self.retired else 0)

    def pack(self, seed: int) -> bytes:
        """`HEAD_SLOT_BYTES` bytes."""
        at = self.position
        fields = _SLOT.pack(self.mark, at.segment, at.offset, at.chain, self.boot_id, 0)
        return fields + struct.pack("<Q", _digest(fields, seed))

    @classmethod
    def unpack(cls, data: bytes, seed: int) -> HeadSlot | None:
        """A copy; None where it does not match its checksum (torn, damaged, never written)."""
        (checksum,) = struct.unpack_from("<Q", data, _SLOT.size)
        if checksum != _digest(data[: _SLOT.size], seed):
            return None
        mark, segment, offset, chain, boot_id, _ = _SLOT.unpack_from(data)
        retired = bool(mark & RETIRED)
        return cls(Position(segment, offset, mark & ~RETIRED, chain), boot_id, retired)


def head_seed(log_id: bytes) -> int:
    """What the head's copies are seeded with."""
    return _digest(log_id, 0)


def pack_head(log_id: bytes) -> bytes:
    """The head's fixed part, which stands before the copies."""
    fields = _HEAD.pack(HEAD_MAGIC, FORMAT_VERSION, log_id)
    return fields + struct.pack("<Q", _digest(fields))


def unpack_head_id(data: bytes) -> bytes | None:
    """The log id of a head's fixed part; None where it is damaged or of a newer format."""
    if len(data) < HEAD_SLOTS[0]:
        return None
    fields = data[: _HEAD.size]
    magic, version, log_id = _HEAD.unpack(fields)
    (checksum,) = struct.unpack_from("<Q", data, _HEAD.size)
    sound = magic == HEAD_MAGIC and version == FORMAT_VERSION and checksum == _digest(fields)
    return log_id if sound else None
