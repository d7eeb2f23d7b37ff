"""What a change of the catalog amounts to, and the bytes of it in the log.

An effect says what changed, not what was asked: which tiles were staged, which staged tiles became
rows, which rows went. Replaying one needs no decision. One frame of the log is one transaction: a
table of effects, then their bodies, in the order in which they hold. docs/catalog-format.md has
the bytes.

Tiles have rows and details as `index.packing` makes them. Details, scenes' properties and records'
values are not kept in memory: whoever replays a frame notes where in the log they lie.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from geostore.errors import CorruptDataError
from geostore.index.packing import DIGEST_BYTES, ROW_BYTES, ROW_DTYPE

__all__ = [
    "CHANGE",
    "NOWHERE",
    "Abandon",
    "Begin",
    "Covers",
    "Effect",
    "Gone",
    "MovedRows",
    "MovedStaged",
    "PutRecord",
    "Scene",
    "Schema",
    "Shown",
    "Switch",
    "Tiles",
    "Unstaged",
    "ValueAt",
    "decode",
    "encode",
]

CHANGE: Final = 1
"""The kind of the frames that hold effects."""

Part = bytes | memoryview
_Ids = npt.NDArray[np.int64]
_Covers = npt.NDArray[np.float32]


class ValueAt(NamedTuple):
    """Where a value lies in the log: segment, offset in its file, bytes."""

    segment: int
    offset: int
    length: int


NOWHERE: Final = ValueAt(0, 0, 0)


def _padding(length: int) -> bytes:
    return bytes(-length % 8)


def _array(body: memoryview, dtype: str, count: int, start: int) -> npt.NDArray[Any]:
    return np.frombuffer(body, dtype, count=count, offset=start)


_COUNT = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema that tiles have from now on, as JSON."""

    code: ClassVar[int] = 1
    digest: str
    text: bytes

    def parts(self) -> list[Part]:
        digest = self.digest.encode()
        return [struct.pack("<II", len(digest), len(self.text)), digest, self.text]

    @classmethod
    def read(cls, body: memoryview, _: ValueAt) -> Self:
        length, text = struct.unpack_from("<II", body)
        end = 8 + length
        return cls(bytes(body[8:end]).decode(), bytes(body[end : end + text]))


@dataclass(frozen=True, slots=True)
class Scene:
    """A scene's entry: what its tiles have in common (`packing.Group`)."""

    code: ClassVar[int] = 2
    digest: bytes
    head: bytes
    properties: bytes
    properties_at: ValueAt = NOWHERE
    """Where `properties` lie, of an entry that was read."""

    def parts(self) -> list[Part]:
        lengths = struct.pack("<II", len(self.head), len(self.properties))
        return [self.digest, lengths, self.head, self.properties]

    @classmethod
    def read(cls, body: memoryview, at: ValueAt) -> Self:
        head, properties = struct.unpack_from("<II", body, DIGEST_BYTES)
        start = DIGEST_BYTES + 8
        end = start + head
        return cls(
            bytes(body[:DIGEST_BYTES]),
            bytes(body[start:end]),
            bytes(body[end : end + properties]),
            ValueAt(at.segment, at.offset + end, properties),
        )


def _offsets(lengths: npt.NDArray[np.uint32], at: ValueAt) -> npt.NDArray[np.int64]:
    """Where values of some lengths begin that lie one behind another."""
    ends = np.cumsum(lengths, dtype=np.int64)
    return ends - lengths + at.offset


def _details_bytes(lengths: npt.NDArray[np.uint32], body: memoryview, start: int) -> int:
    """What details of some lengths take that begin at `start`. Raises CorruptDataError."""
    total = int(lengths.sum(dtype=np.int64))
    if start + total > len(body):
        raise CorruptDataError(
            f"catalog: {len(lengths)} tiles' details take {total} bytes, {len(body) - start} are"
            " there"
        )
    return total


PUBLISHED: Final = 1
BUILDING: Final = 2
"""Flag of tiles of a rebuild, which nobody sees until a Switch."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """Tiles that came: staged, or rows at once. Each gets the next number of its kind."""

    code: ClassVar[int] = 3
    rows: npt.NDArray[np.void]
    """(n,) of ROW_DTYPE."""
    lengths: npt.NDArray[np.uint32]
    """(n,) bytes of each tile's details."""
    details: Sequence[Part] = ()
    """The details, in any pieces; of an effect that was read they lie at `details_at`."""
    is_published: bool = False
    is_building: bool = False
    details_at: ValueAt = NOWHERE

    def parts(self) -> list[Part]:
        flags = PUBLISHED * self.is_published | BUILDING * self.is_building
        rows: Part = self.rows.tobytes()
        lengths = self.lengths.astype("<u4").tobytes()
        return [
            struct.pack("<II", len(self.rows), flags),
            rows,
            lengths,
            _padding(len(lengths)),
            *self.details,
        ]

    @classmethod
    def read(cls, body: memoryview, at: ValueAt) -> Self:
        count, flags = struct.unpack_from("<II", body)
        start = 8 + count * ROW_BYTES
        lengths = _array(body, "<u4", count, start)
        start += 4 * count + -4 * count % 8
        total = _details_bytes(lengths, body, start)
        return cls(
            rows=np.frombuffer(body, ROW_DTYPE, count=count, offset=8),
            lengths=lengths,
            is_published=bool(flags & PUBLISHED),
            is_building=bool(flags & BUILDING),
            details_at=ValueAt(at.segment, at.offset + start, total),
        )

    def offsets(self) -> npt.NDArray[np.int64]:
        """Where the details of each tile begin in the segment's file."""
        return _offsets(self.lengths, self.details_at)


@dataclass(frozen=True, slots=True)
class _Numbered:
    """Rows or staged tiles, by their numbers."""

    ids: _Ids

    def parts(self) -> list[Part]:
        return [_COUNT.pack(len(self.ids)), self.ids.astype("<i8").tobytes()]

    @classmethod
    def read(cls, body: memoryview, _: ValueAt) -> Self:
        (count,) = _COUNT.unpack_from(body)
        return cls(_array(body, "<i8", count, 8))


class Unstaged(_Numbered):
    """Staged tiles that are forgotten."""

    code: ClassVar[int] = 5


class Gone(_Numbered):
    """Rows that went."""

    code: ClassVar[int] = 6


@dataclass(frozen=True, slots=True)
class _Covered:
    """Numbers, with a cloud cover each (NaN: unknown)."""

    ids: _Ids
    covers: _Covers

    def parts(self) -> list[Part]:
        covers = self.covers.astype("<f4").tobytes()
        return [_COUNT.pack(len(self.ids)), self.ids.astype("<i8").tobytes(), covers]

    @classmethod
    def read(cls, body: memoryview, _: ValueAt) -> Self:
        (count,) = _COUNT.unpack_from(body)
        return cls(_array(body, "<i8", count, 8), _array(body, "<f4", count, 8 + 8 * count))


class Shown(_Covered):
    """Staged tiles that became rows, in this order, with the covers they are served with."""

    code: ClassVar[int] = 4


class Covers(_Covered):
    """Rows that are served with other cloud covers."""

    code: ClassVar[int] = 7


@dataclass(frozen=True, slots=True)
class _Moved:
    """Numbers, with details that lie here from now on, the same as before."""

    ids: _Ids
    lengths: npt.NDArray[np.uint32]
    """(n,) bytes of the details of each."""
    details: Sequence[Part] = ()
    """As those of `Tiles`."""
    details_at: ValueAt = NOWHERE

    def parts(self) -> list[Part]:
        lengths = self.lengths.astype("<u4").tobytes()
        ids = self.ids.astype("<i8").tobytes()
        return [_COUNT.pack(len(self.ids)), ids, lengths, _padding(len(lengths)), *self.details]

    @classmethod
    def read(cls, body: memoryview, at: ValueAt) -> Self:
        (count,) = _COUNT.unpack_from(body)
        start = 8 + 8 * count
        lengths = _array(body, "<u4", count, start)
        start += 4 * count + -4 * count % 8
        total = _details_bytes(lengths, body, start)
        where = ValueAt(at.segment, at.offset + start, total)
        return cls(_array(body, "<i8", count, 8), lengths, details_at=where)

    def offsets(self) -> npt.NDArray[np.int64]:
        """Where each one's details begin in the segment's file."""
        return _offsets(self.lengths, self.details_at)


class MovedRows(_Moved):
    """Rows whose details were written once more, so that an old segment can go."""

    code: ClassVar[int] = 12


class MovedStaged(_Moved):
    """Staged tiles whose details were."""

    code: ClassVar[int] = 13


@dataclass(frozen=True, slots=True)
class PutRecord:
    """A record's new value; revision 0: it is gone."""

    code: ClassVar[int] = 8
    name: str
    revision: int
    value: bytes
    value_at: ValueAt = NOWHERE

    def parts(self) -> list[Part]:
        name = self.name.encode("utf-8", "surrogatepass")
        return [struct.pack("<QII", self.revision, len(name), len(self.value)), name, self.value]

    @classmethod
    def read(cls, body: memoryview, at: ValueAt) -> Self:
        revision, name, value = struct.unpack_from("<QII", body)
        end = 16 + name
        return cls(
            bytes(body[16:end]).decode("utf-8", "surrogatepass"),
            revision,
            bytes(body[end : end + value]),
            ValueAt(at.segment, at.offset + end, value),
        )


@dataclass(frozen=True, slots=True)
class _Bare:
    """Says all by being there."""

    def parts(self) -> list[Part]:
        return []

    @classmethod
    def read(cls, _: memoryview, __: ValueAt) -> Self:
        return cls()


class Begin(_Bare):
    """A rebuild begins; the tiles of one before that did not end are forgotten."""

    code: ClassVar[int] = 9


class Switch(_Bare):
    """The tiles of the rebuild are the catalog's from now on, and no others."""

    code: ClassVar[int] = 10


class Abandon(_Bare):
    """The tiles of the rebuild are forgotten."""

    code: ClassVar[int] = 11


Effect = (
    Schema
    | Scene
    | Tiles
    | Shown
    | Unstaged
    | Gone
    | Covers
    | PutRecord
    | Begin
    | Switch
    | Abandon
    | MovedRows
    | MovedStaged
)
_KINDS: Final[tuple[type[Any], ...]] = (
    Schema,
    Scene,
    Tiles,
    Shown,
    Unstaged,
    Gone,
    Covers,
    PutRecord,
    Begin,
    Switch,
    Abandon,
    MovedRows,
    MovedStaged,
)
_OF_CODE: Final[dict[int, type[Any]]] = {kind.code: kind for kind in _KINDS}
SMALL_BYTES: Final = 4096
"""Shorter parts are joined: each costs a microsecond or two to write by itself."""
_HEADER = struct.Struct("<II")
_ENTRY = struct.Struct("<IIQ")


def encode(effects: Sequence[Effect]) -> list[Part]:
    """A frame's payload in parts; what is long in it is not copied."""
    table = [_HEADER.pack(len(effects), 0)]
    bodies: list[Part] = []
    small: list[Part] = []
    for effect in effects:
        parts = effect.parts()
        length = sum(map(len, parts))
        table.append(_ENTRY.pack(effect.code, 0, length))
        for part in (*parts, _padding(length)):
            if len(part) < SMALL_BYTES:
                small.append(part)
            else:
                bodies += [b"".join(small), part]
                small = []
    return [b"".join(table), *bodies, b"".join(small)]


def decode(payload: memoryview, segment: int, offset: int) -> Iterator[Effect]:
    """The effects of a frame whose payload lies at `offset` of `segment`. Arrays are views.

    Raises:
        CorruptDataError: a frame that `encode` did not make, or one of a newer geostore.
    """
    where = f"catalog: frame at offset {offset} of segment {segment}"
    try:
        count, _ = _HEADER.unpack_from(payload)
        start = _HEADER.size + count * _ENTRY.size
        for number in range(count):
            at = _HEADER.size + number * _ENTRY.size
            code, _, length = _ENTRY.unpack_from(payload, at)
            kind = _OF_CODE.get(code)
            if kind is None or start + length > len(payload):
                raise CorruptDataError(
                    f"{where}: change {number} of kind {code} and {length} bytes, expected kinds"
                    f" {min(_OF_CODE)} to {max(_OF_CODE)}: install a newer geostore"
                )
            body = payload[start : start + length]
            effect: Effect = kind.read(body, ValueAt(segment, offset + start, length))
            yield effect
            start += length + -length % 8
    except (struct.error, ValueError) as error:
        raise CorruptDataError(f"{where}: it does not read as changes: {error}") from None
