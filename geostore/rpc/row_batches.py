"""Row batches as bytes: raw columns, and texts sent once a stream.

A stream of messages carries the batches of one answer, in order. Numbers lie in a message as
they lie in memory, so reading them is a view. Texts that repeat (dataset, scene, version,
schema, platform, nodes) are numbered as they first appear; a message carries those that are
new and a code a row. protobuf would make each row a message, or copy each column twice.

One message, little-endian throughout:

| offset | size | what |
|---|---|---|
| 0 | 4 | magic, the bytes `gsrb` |
| 4 | 1 | version, 1 |
| 5 | 1 | flags; bit 0: the dictionaries begin anew with this message |
| 6 | 1 | width of every geocode; 0: they differ, see section 8 |
| 7 | 1 | 0 |
| 8 | 4 | rows, u32, at most 65,536 |
| 12 | 4 | size of the whole message in bytes, u32 |
| 16 | 64 | sizes in bytes of the 16 sections, u32 each |
| 80 | | the sections in this order, each padded with zero bytes to a multiple of 8 |

| section | content |
|---|---|
| 0 | new dictionary entries: seven u32, how many for each of sections 1 to 7; then a u32 for each entry, its size in bytes (0xFFFFFFFF: null, for platforms only); then the entries' bytes, without gaps |
| 1..7 | codes of dataset_id, dataset, scene, version, schema, platform, nodes: a u8 or a u16 a row, told apart by the section's size; size 1: that code in every row |
| 8 | if the width is 0: the geocodes' lengths, u8 a row; else empty |
| 9 | the geocodes, ASCII, without gaps |
| 10 | row ids, i64 a row, or empty: they mean something to the sender alone |
| 11, 12 | time, time_end: microseconds since 1970, i64; the least i64: unknown |
| 13, 14 | pixel_coverage, cloud_cover: percent, f32; NaN: unknown |
| 15 | bytes, i64 |

A code counts the column's entries from 0 since the dictionaries last began anew. Entries are
UTF-8: names as they are; a schema as the JSON of `TileSchema.to_json`; nodes as names that
each end in a zero byte. A column has at most 65,536 entries and all columns together at most
16 MiB of them; a sender that needs more begins anew.
"""  # noqa: E501 - a table's row is one line

from __future__ import annotations

import struct
import sys
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from geostore.errors import CorruptDataError, InvalidInputError
from geostore.query.identity import addresses_of
from geostore.rpc.schema_texts import schema_of, schema_text
from geostore.types import RowBatch, TileSchema

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["MESSAGE_ROWS_MAX", "BatchDecoder", "BatchEncoder", "RowMessage"]

MAGIC = b"gsrb"
VERSION = 1
BEGINS_ANEW = 1
MESSAGE_ROWS_MAX = 65_536
MESSAGE_BYTES_MAX = 64 << 20
STREAM_ROWS = 16_384
"""Rows a message where the sender may choose: 16,384 of them are about half a MiB."""

ENTRIES_MAX = 65_536
RECENT_RUNS_MIN = 256
RECENT_BITS = 12
DICTIONARY_BYTES_MAX = 16 << 20
GEOCODE_LENGTH_MAX = 26
NULL_ENTRY = 0xFFFF_FFFF

CODED = ("dataset_id", "dataset", "scene", "version", "schema", "platform", "nodes")
NUMBERS: dict[str, tuple[int, str]] = {
    "row_id": (10, "<i8"),
    "time_us": (11, "<i8"),
    "time_end_us": (12, "<i8"),
    "pixel_coverage": (13, "<f4"),
    "cloud_cover": (14, "<f4"),
    "bytes": (15, "<i8"),
}
"""Column to its section and type."""

_HEADER = struct.Struct("<4sBBBBII16I")
_COUNTS = struct.Struct("<7I")
_GEOCODE_LETTERS = b"0123456789abcdefghijklmnopqrstuvwxyz"

Codes = npt.NDArray[np.unsignedinteger[Any]]
Bytes = npt.NDArray[np.uint8]


# ---------------------------------------------------------------- encoding


class _FullError(Exception):
    """A dictionary has no room: begin anew."""


class _Outgoing:
    """One column's entries, as sent so far."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.new: list[bytes | None] = []
        self._codes: dict[Hashable, int] = {}
        self._by_address: dict[int, int] = {}
        self._kept: list[object] = []  # an address means its object only while that lives
        self._recent: tuple[npt.NDArray[np.intp], npt.NDArray[np.uint16]] | None = None

    def codes(
        self,
        addresses: npt.NDArray[np.intp],
        values: npt.NDArray[np.object_],
        lengths: npt.NDArray[np.intp],
    ) -> Codes:
        """A code a row, or one code where all rows have the same, of runs of one object each."""
        if len(self._kept) > 2 * ENTRIES_MAX:
            self._by_address, self._kept, self._recent = {}, [], None
        codes = self._codes_of(addresses, values)
        greatest = int(codes.max())
        if greatest < 256 and greatest == codes.min():
            return codes[:1].astype(np.uint8)
        return np.repeat(codes.astype(np.uint8) if greatest < 256 else codes, lengths)

    def _codes_of(
        self, addresses: npt.NDArray[np.intp], values: npt.NDArray[np.object_]
    ) -> npt.NDArray[np.uint16]:
        """The codes of objects at these addresses.

        Orders that tear scenes apart have a run a row. A small table, direct mapped like a
        processor's cache, then answers for most rows at once; the dictionary for the rest.
        """
        if len(addresses) < RECENT_RUNS_MIN:
            known_at = self._by_address.get
            few = [known_at(address, -1) for address in addresses.tolist()]
            if -1 in few:
                few = list(map(self._code_at, addresses.tolist(), values.tolist()))
            return np.array(few, dtype=np.uint16)
        if self._recent is None:
            size = 1 << RECENT_BITS
            self._recent = np.full(size, -1, dtype=np.intp), np.zeros(size, dtype=np.uint16)
        known, known_codes = self._recent
        mixed = addresses.view(np.uintp) * np.uintp(0x9E3779B97F4A7C15)
        places = mixed >> np.uintp(64 - RECENT_BITS)
        codes: npt.NDArray[np.uint16] = known_codes[places]
        left = np.flatnonzero(known[places] != addresses)
        if len(left):
            # Few objects, though maybe many rows: all of the first batch is left here.
            fresh, firsts, inverse = np.unique(
                addresses[left], return_index=True, return_inverse=True
            )
            found = np.zeros(len(fresh), dtype=np.uint16)
            for i in np.argsort(firsts).tolist():  # numbered as they come, wherever they lie
                found[i] = self._code_at(int(fresh[i]), values[left[firsts[i]]])
            codes[left] = found[inverse]
            known[places[left]] = addresses[left]
            known_codes[places[left]] = codes[left]
        return codes

    def _code_at(self, address: int, value: Any) -> int:
        code = self._by_address.get(address)
        return self._code(value) if code is None else code

    def _code(self, value: Any) -> int:
        key = value.digest if isinstance(value, TileSchema) else value
        code = self._codes.get(key)
        if code is None:
            if len(self._codes) == ENTRIES_MAX:
                raise _FullError
            self.new.append(self._entry(value))
            code = self._codes[key] = len(self._codes)
        self._by_address[id(value)] = code
        self._kept.append(value)
        return code

    def _entry(self, value: Any) -> bytes | None:
        if value is None and self.name == "platform":
            return None
        try:
            if self.name == "schema":
                return schema_text(value)
            if self.name != "nodes":
                return bytes(value.encode())
            if not any("\0" in name for name in value):
                return b"".join(name.encode() + b"\0" for name in value)
        except (AttributeError, TypeError, UnicodeEncodeError):
            pass
        raise InvalidInputError(f"row batch: {self.name} {str(value)[:80]!r} cannot be sent")


class BatchEncoder:
    """Row batches to messages of one stream; one thread at a time.

    With `row_ids`, the sender's row ids go along.
    """

    def __init__(self, *, row_ids: bool = False) -> None:
        self._row_ids = row_ids
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._columns = [_Outgoing(name) for name in CODED]
        self._dictionary_bytes = 0
        self._flags = BEGINS_ANEW  # until a message went out that says so

    def encode(self, batch: RowBatch) -> bytes:
        """The batch as the stream's next message.

        Raises:
            InvalidInputError: over 65,536 rows, over 16 MiB of distinct texts, or a geocode
                or name that is none.
        """
        if len(batch) > MESSAGE_ROWS_MAX:
            raise InvalidInputError(
                f"row batch of {len(batch)} rows: expected at most {MESSAGE_ROWS_MAX}"
            )
        try:
            return self._message(batch)
        except _FullError:
            self._begin_anew()
        try:
            return self._message(batch)
        except _FullError:
            raise InvalidInputError(
                f"row batch: its names take more than {DICTIONARY_BYTES_MAX} bytes"
            ) from None

    def encode_stream(
        self, batches: Iterable[RowBatch], *, rows_max: int = STREAM_ROWS
    ) -> Iterator[bytes]:
        """A message for each batch that has rows; batches over `rows_max` are split."""
        for batch in batches:
            for start in range(0, len(batch), rows_max):
                whole = len(batch) <= rows_max
                yield self.encode(batch if whole else batch.take(slice(start, start + rows_max)))

    def _message(self, batch: RowBatch) -> bytes:
        codes = self._codes(batch) if len(batch) else [np.empty(0, np.uint8)] * len(CODED)
        entries = [entry for column in self._columns for entry in column.new]
        dictionary = b""
        if entries:
            sizes = [NULL_ENTRY if entry is None else len(entry) for entry in entries]
            dictionary = b"".join(
                [
                    _COUNTS.pack(*(len(column.new) for column in self._columns)),
                    np.array(sizes, dtype="<u4").tobytes(),
                    *(entry for entry in entries if entry is not None),
                ]
            )
        if self._dictionary_bytes + len(dictionary) > DICTIONARY_BYTES_MAX:
            raise _FullError
        width, lengths, geocodes = pack_geocodes(batch.geocode.tolist())
        sections: list[bytes] = [dictionary]
        sections += [each.astype(each.dtype.newbyteorder("<")).tobytes() for each in codes]
        sections += [lengths, geocodes]
        for name, (_, dtype) in NUMBERS.items():
            is_sent = self._row_ids or name != "row_id"
            column = np.ascontiguousarray(getattr(batch, name), dtype=dtype)
            sections.append(column.tobytes() if is_sent else b"")
        message = _joined(sections, flags=self._flags, width=width, rows=len(batch))
        self._flags = 0
        self._dictionary_bytes += len(dictionary)
        for outgoing in self._columns:
            outgoing.new = []
        return message

    def _codes(self, batch: RowBatch) -> list[Codes]:
        """Of each coded column. Rows of a scene come in runs in most orders: objects are looked
        up, and codes made, a run, not a row. What scenes share has the same runs; a merge mixes
        the nodes of rows otherwise.
        """
        *of_scenes, nodes = self._columns
        return [*_codes_of_runs(of_scenes, batch), *_codes_of_runs([nodes], batch)]


def _codes_of_runs(columns: list[_Outgoing], batch: RowBatch) -> Iterator[Codes]:
    """The codes of columns by runs of rows that agree in all of them."""
    values = [getattr(batch, outgoing.name) for outgoing in columns]
    addresses = [addresses_of(column) for column in values]
    is_first = np.ones(len(batch), dtype=np.bool_)
    changes = is_first[1:]
    np.not_equal(addresses[0][1:], addresses[0][:-1], out=changes)
    for of_column in addresses[1:]:
        changes |= of_column[1:] != of_column[:-1]
    starts = np.flatnonzero(is_first)
    lengths = np.empty_like(starts)
    lengths[:-1] = starts[1:] - starts[:-1]
    lengths[-1] = len(batch) - starts[-1]
    for outgoing, of_column, column in zip(columns, addresses, values, strict=True):
        yield outgoing.codes(of_column[starts], column[starts], lengths)


def _joined(sections: list[bytes], *, flags: int, width: int, rows: int) -> bytes:
    sizes = [len(section) for section in sections]
    parts: list[bytes] = [b""]
    for section, size in zip(sections, sizes, strict=True):
        parts.append(section)
        parts.append(bytes(-size % 8))
    total = _HEADER.size + sum(size + -size % 8 for size in sizes)
    parts[0] = _HEADER.pack(MAGIC, VERSION, flags, width, 0, rows, total, *sizes)
    return b"".join(parts)


def pack_geocodes(geocodes: list[str]) -> tuple[int, bytes, bytes]:
    """(common width or 0, lengths where they differ, text)."""
    try:
        text = "".join(geocodes).encode("ascii")
        lengths = set(map(len, geocodes))
    except (UnicodeEncodeError, TypeError):
        text, lengths = b"", {0}
    fits = not lengths or 1 <= min(lengths) <= max(lengths) <= GEOCODE_LENGTH_MAX
    if not fits or text.translate(None, _GEOCODE_LETTERS):
        raise InvalidInputError("row batch: a geocode is not 1..26 of 0-9 and a-z")
    if len(lengths) == 1:
        return lengths.pop(), b"", text
    return 0, bytes(map(len, geocodes)), text


# ---------------------------------------------------------------- decoding


class _Incoming:
    """One column's entries, as received so far: `values[code]`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self._values = np.empty(16, dtype=np.object_)

    @property
    def values(self) -> npt.NDArray[np.object_]:
        return self._values[: self.count]

    def add(self, entries: list[bytes | None]) -> None:
        end = self.count + len(entries)
        if end > len(self._values):
            grown = np.empty(max(end, 2 * len(self._values)), dtype=np.object_)
            grown[: self.count] = self._values[: self.count]
            self._values = grown
        for i, entry in enumerate(entries, start=self.count):
            self._values[i] = self._value(entry)
        self.count = end

    def _value(self, entry: bytes | None) -> object:
        if entry is None:
            if self.name != "platform":
                raise CorruptDataError(f"row batch: a null {self.name}")
            return None
        if self.name == "schema":
            return schema_of(entry)
        try:
            text = entry.decode()
        except UnicodeDecodeError as error:
            raise CorruptDataError(f"row batch: a {self.name} is not UTF-8: {error}") from None
        if self.name != "nodes":
            # One object for one text, whichever node sent it: the rows of a scene are then one
            # run, also where the streams of several nodes are merged.
            return sys.intern(text)
        *names, rest = text.split("\0")
        if rest:
            raise CorruptDataError(f"row batch: nodes {text[:60]!r} do not end")
        return tuple(names)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowMessage:
    """A message that was checked: views of its columns, no Python object a row."""

    rows: int
    codes: dict[str, npt.NDArray[np.intp]]
    """Column to a code a row, or one code for all rows."""
    values: dict[str, npt.NDArray[np.object_]]
    """Column to the values of the codes."""
    numbers: dict[str, npt.NDArray[Any]]
    geocode_width: int
    """0: see `geocode_lengths`."""
    geocode_lengths: Bytes
    geocode_text: Bytes

    def geocodes(self) -> npt.NDArray[np.object_]:
        """As str."""
        if self.geocode_width:
            wide = self.geocode_text.astype(np.uint32).view(f"U{self.geocode_width}")
            return wide.astype(np.object_)
        text = self.geocode_text.tobytes().decode("ascii")
        ends = np.cumsum(self.geocode_lengths, dtype=np.int64).tolist()
        column = np.empty(self.rows, dtype=np.object_)
        column[:] = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        return column

    def column(self, name: str) -> npt.NDArray[np.object_]:
        """A coded column's values."""
        codes, values = self.codes[name], self.values[name]
        if len(codes) == self.rows:
            return np.asarray(values[codes], dtype=np.object_)
        column = np.empty(self.rows, dtype=np.object_)
        column.fill(values[codes[0]])
        return column


class BatchDecoder:
    """Messages of one stream to row batches, in the order they were sent; one thread at a time.

    What it holds is bounded whatever is sent: one message, and 16 MiB of texts. After an
    error the stream is over.
    """

    def __init__(self) -> None:
        self._rows_before = 0
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._columns = [_Incoming(name) for name in CODED]
        self._dictionary_bytes = 0

    def decode(self, data: bytes) -> RowBatch:
        """The next batch. Numbers are views of `data`; equal texts are one object.

        Row ids that were not sent count the stream's rows from 0.

        Raises:
            CorruptDataError: cut, changed, or not a row batch.
            InvalidInputError: of another version.
        """
        message = self.read(data)
        columns: dict[str, Any] = {name: message.column(name) for name in CODED}
        return RowBatch(geocode=message.geocodes(), **columns, **message.numbers)

    def decode_arrow(self, data: bytes) -> pa.RecordBatch:
        """The next batch as an Arrow record batch, as `Selection.to_arrow` has it.

        Raises as `decode`, and MissingDependencyError: pyarrow is not installed.
        """
        from geostore.rpc.row_arrow import record_batch

        return record_batch(self.read(data))

    def read(self, data: bytes) -> RowMessage:
        """The next message, checked. Raises as `decode`."""
        flags, width, rows, sections = _split(data)
        if flags & BEGINS_ANEW:
            self._begin_anew()
        self._learn(sections[0])
        codes = {
            column.name: _codes(column, section, rows)
            for column, section in zip(self._columns, sections[1:8], strict=True)
        }
        lengths, text = (np.frombuffer(section, dtype=np.uint8) for section in sections[8:10])
        _check_geocodes(rows, width, lengths, text)
        numbers = {
            name: _numbers(name, sections[section], rows, dtype)
            for name, (section, dtype) in NUMBERS.items()
            if name != "row_id" or len(sections[section])
        }
        if "row_id" not in numbers:
            first = self._rows_before
            numbers["row_id"] = np.arange(first, first + rows, dtype=np.int64)
        self._rows_before += rows
        return RowMessage(
            rows=rows,
            codes=codes,
            values={column.name: column.values for column in self._columns},
            numbers=numbers,
            geocode_width=width,
            geocode_lengths=lengths,
            geocode_text=text,
        )

    def _learn(self, section: memoryview) -> None:
        if not len(section):
            return
        self._dictionary_bytes += len(section)
        if self._dictionary_bytes > DICTIONARY_BYTES_MAX or len(section) < _COUNTS.size:
            raise CorruptDataError(
                f"row batch: {self._dictionary_bytes} bytes of dictionary, expected"
                f" {_COUNTS.size}..{DICTIONARY_BYTES_MAX}"
            )
        counts = _COUNTS.unpack_from(section)
        start = _COUNTS.size + 4 * sum(counts)
        too_many = any(
            column.count + count > ENTRIES_MAX
            for column, count in zip(self._columns, counts, strict=True)
        )
        if too_many or start > len(section):
            raise CorruptDataError(
                f"row batch: {counts} new dictionary entries, in {len(section)} bytes"
            )
        entries: list[bytes | None] = []
        for size in np.frombuffer(section[_COUNTS.size : start], dtype="<u4").tolist():
            if size == NULL_ENTRY:
                entries.append(None)
            else:
                entries.append(bytes(section[start : start + size]))
                start += size
        if start != len(section):
            raise CorruptDataError(f"row batch: its dictionary does not fill {len(section)} bytes")
        first = 0
        for column, count in zip(self._columns, counts, strict=True):
            column.add(entries[first : first + count])
            first += count


def _split(data: bytes) -> tuple[int, int, int, list[memoryview]]:
    """(flags, geocode width, rows, sections)."""
    view = memoryview(data)
    if not _HEADER.size <= len(view) <= MESSAGE_BYTES_MAX:
        raise CorruptDataError(
            f"row batch of {len(view)} bytes: expected {_HEADER.size}..{MESSAGE_BYTES_MAX}"
        )
    magic, version, flags, width, zero, rows, total, *sizes = _HEADER.unpack_from(view)
    if magic != MAGIC:
        raise CorruptDataError(f"row batch: begins with {magic!r}, expected {MAGIC!r}")
    if version != VERSION:
        raise InvalidInputError(
            f"row batch of version {version}: expected {VERSION}; the peer runs another geostore"
        )
    whole = _HEADER.size + sum(size + -size % 8 for size in sizes)
    if not total == whole == len(view):
        raise CorruptDataError(
            f"row batch: {len(view)} bytes; it says {total}, and its sections take {whole}"
        )
    if flags & ~BEGINS_ANEW or zero or rows > MESSAGE_ROWS_MAX or width > GEOCODE_LENGTH_MAX:
        raise CorruptDataError(
            f"row batch: flags {flags}, geocode width {width}, mark {zero}, {rows} rows: one of"
            " them is none that is written"
        )
    sections = []
    start = _HEADER.size
    for size in sizes:
        sections.append(view[start : start + size])
        start += size + -size % 8
    return flags, width, rows, sections


def _codes(column: _Incoming, section: memoryview, rows: int) -> npt.NDArray[np.intp]:
    size = len(section)
    if size not in {rows, 2 * rows} and not (size == 1 and rows):
        raise CorruptDataError(f"row batch: {size} bytes of {column.name} codes for {rows} rows")
    dtype = "<u2" if size > rows else "u1"
    codes = np.frombuffer(section, dtype=dtype).astype(np.intp)
    if rows and codes.max() >= column.count:
        raise CorruptDataError(
            f"row batch: {column.name} code {codes.max()}, of {column.count} entries"
        )
    return codes


def _numbers(name: str, section: memoryview, rows: int, dtype: str) -> npt.NDArray[Any]:
    wire = np.dtype(dtype)
    if len(section) != rows * wire.itemsize:
        raise CorruptDataError(f"row batch: {len(section)} bytes of {name} for {rows} rows")
    return np.frombuffer(section, dtype=wire).astype(wire.newbyteorder("="), copy=False)


def _check_geocodes(rows: int, width: int, lengths: Bytes, text: Bytes) -> None:
    if width:
        fits = not len(lengths) and len(text) == rows * width
    else:
        fits = len(lengths) == rows and len(text) == int(lengths.sum(dtype=np.int64))
        fits = fits and (
            not rows or bool(lengths.min() >= 1 and lengths.max() <= GEOCODE_LENGTH_MAX)
        )
    if not fits or text.tobytes().translate(None, _GEOCODE_LETTERS):
        raise CorruptDataError(
            f"row batch: {len(text)} bytes of geocodes for {rows} rows of width {width}: not"
            " what is written"
        )
