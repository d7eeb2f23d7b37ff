"""The bytes of a snapshot's file: header, table of sections, and their dtypes as text. Pure.

docs/catalog-format.md has the tables. A file is the front (header, table, meta), then the
sections, each begun on a multiple of 64 and filled up with zeros to the next: no byte is outside
of a checksum. Checksums are seeded with the log's id and their own offset, as those of frames.

A checksum proves no intent. So what is read is bounded and checked against the file's length
before anything is made of it: a file that lies is an error, never an allocation or a fault.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from geostore.errors import CorruptDataError, InvalidInputError, StoreFormatError
from geostore.index.log_layout import Position

__all__ = [
    "ALIGNMENT",
    "HEADER_BYTES",
    "INSTEAD",
    "NEW_SUFFIX",
    "SECTIONS_MAX",
    "SNAPSHOT_VERSION",
    "TABLE_BYTES_MAX",
    "Entry",
    "SnapshotHeader",
    "aligned",
    "describe_dtype",
    "described",
    "front_bytes",
    "pack_front",
    "pack_meta",
    "parse_dtype",
    "section_seed",
    "snapshot_name",
    "snapshot_sequence",
    "unpack_meta",
    "unpack_table",
]

SNAPSHOT_VERSION = 1
SNAPSHOT_MAGIC = b"geosnap\n"
ALIGNMENT = 64
"""A cache line: more than any dtype asks for."""
SECTIONS_MAX = 1 << 16
NAME_BYTES_MAX = 255
DTYPE_BYTES_MAX = 1 << 16
DTYPE_DEPTH_MAX = 8
DIMENSIONS_MAX = 32
TABLE_BYTES_MAX = 1 << 26
META_BYTES_MAX = 1 << 26
LENGTH_MAX = 1 << 62
NEW_SUFFIX = ".new"
INSTEAD = "the catalog opens from an older snapshot or from its log instead"
"""What comes of damage: the end of every such message."""

_NAME = re.compile(r"snapshot-(\d{20})\.snap")
_MASK = (1 << 64) - 1
_digest = xxhash.xxh3_64_intdigest


def snapshot_name(sequence: int) -> str:
    """The file of a snapshot: `snapshot-00000000000000000042.snap`."""
    return f"snapshot-{sequence:020}.snap"


def snapshot_sequence(name: str) -> int | None:
    """The last frame that a file of that name reflects; None where it is no snapshot."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found and found[1].isascii() else None


def aligned(length: int) -> int:
    """`length` with its padding."""
    return -(-length // ALIGNMENT) * ALIGNMENT


def section_seed(log_id: bytes, offset: int) -> int:
    """The seed of what begins at `offset`."""
    return (_digest(log_id) + offset) & _MASK


def _damaged(where: str, what: str) -> CorruptDataError:
    return CorruptDataError(f"{where}: {what}; {INSTEAD}")


# ---------------------------------------------------------------- header

_HEADER = struct.Struct("<8sII16s32sQQQQ24x")
HEADER_BYTES = 128
assert _HEADER.size + 8 == HEADER_BYTES


@dataclass(frozen=True, slots=True)
class SnapshotHeader:
    """The first bytes of a snapshot's file."""

    log_id: bytes
    position: Position
    sections: int
    """How many."""
    file_bytes: int
    table_bytes: int
    meta_bytes: int
    checksum: int
    """Of the rest of the front: table, meta and padding."""

    @property
    def front_bytes(self) -> int:
        """Where the first section begins."""
        return front_bytes(self.table_bytes, self.meta_bytes)

    def pack(self) -> bytes:
        """`HEADER_BYTES` bytes."""
        fields = _HEADER.pack(
            SNAPSHOT_MAGIC,
            SNAPSHOT_VERSION,
            self.sections,
            self.log_id,
            self.position.pack(),
            self.file_bytes,
            self.table_bytes,
            self.meta_bytes,
            self.checksum,
        )
        return fields + struct.pack("<Q", _digest(fields))

    @classmethod
    def unpack(cls, data: bytes, log_id: bytes, size: int, where: str) -> SnapshotHeader:
        """Checks and reads the header of a file of `size` bytes; `where` names it in messages.

        Raises:
            CorruptDataError: it is damaged, the file is not as long as it says, or it is a
                snapshot of another log.
            StoreFormatError: a newer geostore wrote it.
        """
        if len(data) < HEADER_BYTES:
            raise _damaged(
                where,
                f"{len(data)} bytes, expected a header of {HEADER_BYTES}: the file was cut short",
            )
        fields = data[: _HEADER.size]
        (expected,) = struct.unpack_from("<Q", data, _HEADER.size)
        magic, version, sections, found, position, *rest = _HEADER.unpack(fields)
        file_bytes, table_bytes, meta_bytes, checksum = rest
        if magic != SNAPSHOT_MAGIC or expected != _digest(fields):
            raise _damaged(
                where,
                "the header does not match its checksum: the file is damaged, or no snapshot of"
                " a catalog",
            )
        if version != SNAPSHOT_VERSION:
            raise StoreFormatError(
                f"{where}: snapshot format version {version}; this geostore reads version"
                f" {SNAPSHOT_VERSION}: install a newer geostore"
            )
        if found != log_id:
            raise _damaged(where, f"it belongs to log {found.hex()}, expected {log_id.hex()}")
        at = Position.unpack(position)
        header = cls(found, at, sections, file_bytes, table_bytes, meta_bytes, checksum)
        if size != header.file_bytes:
            raise _damaged(
                where,
                f"{size} bytes, expected {header.file_bytes}: the file was cut short or written to",
            )
        if (
            sections > SECTIONS_MAX
            or header.table_bytes > TABLE_BYTES_MAX
            or header.meta_bytes > META_BYTES_MAX
            or header.front_bytes > size
        ):
            raise _damaged(
                where,
                f"{sections} sections, a table of {header.table_bytes} bytes and meta of"
                f" {header.meta_bytes} do not fit its {size} bytes",
            )
        return header


def front_bytes(table_bytes: int, meta_bytes: int) -> int:
    """Where the first section begins."""
    return aligned(HEADER_BYTES + table_bytes + meta_bytes)


def pack_front(
    log_id: bytes, position: Position, table: bytes, meta: bytes, sections: int, file_bytes: int
) -> bytes:
    """Header, table, meta and padding: all that stands before the sections."""
    length = front_bytes(len(table), len(meta))
    rest = (table + meta).ljust(length - HEADER_BYTES, b"\0")
    checksum = _digest(rest, section_seed(log_id, HEADER_BYTES))
    header = SnapshotHeader(log_id, position, sections, file_bytes, len(table), len(meta), checksum)
    return header.pack() + rest


# ---------------------------------------------------------------- table

_ENTRY = struct.Struct("<QQQHHI")
_ENTRY_ALIGNMENT = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """A section: an array in C order."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    """A multiple of `ALIGNMENT`."""
    checksum: int = 0
    """Of its bytes and the padding after them."""

    @property
    def length(self) -> int:
        """Bytes without padding."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def end(self) -> int:
        """Where the next section begins."""
        return self.offset + aligned(self.length)

    def pack(self) -> bytes:
        """Its line of the table. Raises InvalidInputError where it has no place there."""
        name = self.name.encode(errors="replace")
        text = describe_dtype(self.dtype).encode()
        if not 0 < len(name) <= NAME_BYTES_MAX or name.decode() != self.name:
            raise InvalidInputError(
                f"section {self.name!r}: a name of {len(name)} bytes, expected UTF-8 of 1 to"
                f" {NAME_BYTES_MAX}"
            )
        if len(self.shape) > DIMENSIONS_MAX or len(text) > DTYPE_BYTES_MAX:
            raise InvalidInputError(
                f"section {self.name!r}: {len(self.shape)} dimensions and a dtype of {len(text)}"
                f" characters, expected at most {DIMENSIONS_MAX} and {DTYPE_BYTES_MAX}"
            )
        fixed = _ENTRY.pack(
            self.offset, self.length, self.checksum, len(name), len(self.shape), len(text)
        )
        packed = fixed + struct.pack(f"<{len(self.shape)}Q", *self.shape) + name + text
        return packed + bytes(-len(packed) % _ENTRY_ALIGNMENT)

    @classmethod
    def unpack(cls, data: memoryview, at: int) -> tuple[Entry, int]:
        """(the line that begins at `at`, where the next one begins).

        Raises:
            ValueError: it is no such line; the sentence says why.
        """
        if at + _ENTRY.size > len(data):
            raise ValueError("the table ends early")
        offset, length, checksum, name_bytes, dimensions, text_bytes = _ENTRY.unpack_from(data, at)
        if dimensions > DIMENSIONS_MAX:
            raise ValueError(f"{dimensions} dimensions, expected at most {DIMENSIONS_MAX}")
        shape_at = at + _ENTRY.size
        name_at = shape_at + 8 * dimensions
        text_at = name_at + name_bytes
        end = text_at + text_bytes
        end += -(end - at) % _ENTRY_ALIGNMENT
        if end > len(data):
            raise ValueError("the table ends early")
        name = str(data[name_at:text_at], "utf-8")
        dtype = parse_dtype(str(data[text_at : text_at + text_bytes], "utf-8"))
        shape = struct.unpack_from(f"<{dimensions}Q", data, shape_at)
        if not name or max(shape, default=0) > LENGTH_MAX:
            raise ValueError(f"section {name!r} of shape {shape}")
        entry = cls(name, dtype, shape, offset, checksum)
        if entry.length != length:
            raise ValueError(
                f"section {name!r}: {length} bytes, expected {entry.length} for shape {shape} of"
                f" {dtype}"
            )
        return entry, end


def unpack_table(header: SnapshotHeader, front: memoryview, where: str) -> list[Entry]:
    """The sections of a file, from its verified front; they cover the rest of the file.

    Raises:
        CorruptDataError: the front does not match its checksum, or its lines are none.
    """
    rest = front[HEADER_BYTES:]
    checksum = _digest(rest, section_seed(header.log_id, HEADER_BYTES))
    if checksum != header.checksum:
        raise _damaged(
            where,
            f"table and meta have checksum {checksum:016x}, expected {header.checksum:016x}",
        )
    table = rest[: header.table_bytes]
    found: list[Entry] = []
    at, expected = 0, header.front_bytes
    for number in range(header.sections):
        try:
            entry, at = Entry.unpack(table, at)
        except ValueError as error:
            raise _damaged(where, f"table, line {number}: {error}") from error
        if entry.offset != expected or entry.end > header.file_bytes:
            raise _damaged(
                where,
                f"section {entry.name!r} is at {entry.offset} to {entry.end}, expected from"
                f" {expected} and within {header.file_bytes}",
            )
        expected = entry.end
        found.append(entry)
    if at != len(table) or expected != header.file_bytes:
        raise _damaged(
            where,
            f"{header.sections} sections take {at} bytes of table and end at {expected}, expected"
            f" {len(table)} and {header.file_bytes}",
        )
    if len({entry.name for entry in found}) < len(found):
        raise _damaged(where, "two sections have the same name")
    return found


# ---------------------------------------------------------------- meta


def pack_meta(meta: Mapping[str, Any]) -> bytes:
    """JSON.

    Raises:
        InvalidInputError: it is none, or too long.
    """
    try:
        text = json.dumps(dict(meta), allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"a snapshot's meta is no JSON: {error}") from error
    if len(text) > META_BYTES_MAX:
        raise InvalidInputError(
            f"a snapshot's meta of {len(text)} bytes, expected at most {META_BYTES_MAX}"
        )
    return text


def unpack_meta(header: SnapshotHeader, front: memoryview, where: str) -> dict[str, Any]:
    """Undoes `pack_meta`; the front is verified.

    Raises:
        CorruptDataError: it is no JSON object.
    """
    start = HEADER_BYTES + header.table_bytes
    try:
        meta = json.loads(bytes(front[start : start + header.meta_bytes]))
    except (ValueError, RecursionError) as error:
        raise _damaged(where, f"meta is no JSON: {error}") from error
    if not isinstance(meta, dict):
        raise _damaged(where, f"meta is a {type(meta).__name__}, expected a JSON object")
    return meta


# ---------------------------------------------------------------- dtypes

_PLAIN = re.compile(
    r"\|b1|\|[iu]1|<[iu][248]|<f[248]|<c(8|16)|\|[SV][1-9]\d{0,9}|<U[1-9]\d{0,8}"
    r"|<[mM]8(\[\d{0,9}[a-zA-Z]{1,2}\])?",
    re.ASCII,
)


def describe_dtype(dtype: np.dtype[Any]) -> str:
    """A little-endian dtype as text: its `descr` (NumPy's .npy format, NEP 1) as JSON.

    Raises:
        InvalidInputError: it cannot be told so: objects, titles, overlapping fields, numbers
            that are others on another machine, nothing at all.
    """
    try:
        descr: Sequence[Any] | str = dtype.str if dtype.names is None else dtype.descr
        text = json.dumps(descr, separators=(",", ":"))
        if parse_dtype(text) == dtype:
            return text
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"dtype {dtype}: a snapshot cannot hold it: {error}") from error
    raise InvalidInputError(f"dtype {dtype}: a snapshot cannot hold it")


def parse_dtype(text: str) -> np.dtype[Any]:
    """Undoes `describe_dtype`.

    Raises:
        ValueError: no dtype; the sentence says why.
    """
    try:
        return _built(json.loads(text), 0)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"dtype {text[:80]!r}: {error}") from error


def _built(descr: object, depth: int) -> np.dtype[Any]:
    if isinstance(descr, str):
        if _PLAIN.fullmatch(descr) is None:
            raise ValueError(f"{descr!r} is no plain dtype of a snapshot")
        return np.dtype(descr)
    if not isinstance(descr, list) or not descr or depth >= DTYPE_DEPTH_MAX:
        raise ValueError(f"expected fields, at most {DTYPE_DEPTH_MAX} deep")
    names: list[str] = []
    formats: list[npt.DTypeLike] = []
    offsets: list[int] = []
    size = 0
    for field in descr:
        is_field = isinstance(field, list) and len(field) in {2, 3} and isinstance(field[0], str)
        if not is_field:
            raise ValueError(f"{str(field)[:80]} is no field")
        each = _built(field[1], depth + 1)
        if len(field) == 3:
            each = np.dtype((each, _checked_shape(field[2])))
        if field[0]:  # else padding
            names.append(field[0])
            formats.append(each)
            offsets.append(size)
        size += each.itemsize
    if not size:
        raise ValueError("its values have no bytes")
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})


def _checked_shape(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(each) is int and each >= 0 for each in value):
        raise ValueError(f"{str(value)[:80]} is no shape")
    return tuple(value)


def described(array: npt.NDArray[Any]) -> np.dtype[Any]:
    """The dtype under which an array is stored: its own, little-endian."""
    return array.dtype.newbyteorder("<")
