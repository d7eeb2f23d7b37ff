"""Rows of one scheme and cell length, clustered by place: what most queries are answered from.

Rows lie in the order of their packed geocodes (along the Z-order curve, G. Morton 1966), and what
predicates ask about lies in that order too, as records of eight int64. So a place is a few
stretches of the table, read from memory one after another.
The stretches of a box come from arithmetic and a directory of the curve, those of a larger shape
from a walk down the trie; they may hold more than the place, so their rows are tested by the
columns and rows of their cells.

A table never changes. Built in O(n log n), 72 bytes a row.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from geostore.grid import Region
from geostore.index.geocodes import PackedCells, packing_of
from geostore.index.radix import RadixTrie, Walk
from geostore.types import SchemeName

__all__ = [
    "CLOUD",
    "COLUMN",
    "COVERAGE",
    "END",
    "ENOUGH_ROWS",
    "GROUP",
    "POSITION",
    "ROW",
    "START",
    "UNKNOWN",
    "Bounds",
    "CellBox",
    "CellTable",
    "Records",
    "Stretches",
    "cell_boxes",
    "percent_code",
    "records_of",
]

Integers = npt.NDArray[np.integer[Any]]
Records = npt.NDArray[np.int64]
Stretches = list[tuple[int, int]]
"""Ranges [start, end) of a table's rows, in order, none empty."""

ENOUGH_ROWS: Final = 1024
"""A box is cut finer only while its stretches hold more rows."""
DIRECTORY_BITS_MAX: Final = 18
BLOCKS_FINE: Final = 64
"""Pieces that a box is cut into where it has more."""
MOMENT_BITS: Final = 22
"""Of a time in microseconds, below a moment's unit: int32 then spans 570 years around 1970."""
FEW_ROWS: Final = 48
"""With so few left all bounds are tested at once, with more one after the other."""
JOINED_ROWS_MAX: Final = 8
JOINED_MAX: Final = 64
"""Stretches that are put together one by one; more, if they are short, are by arithmetic on
arrays.
"""

CellBox = tuple[int, int, int, int]
"""First and last column, first and last row of a grid, all inclusive."""


def cell_boxes(scheme_name: SchemeName, length: int, region: Region) -> list[CellBox]:
    """The cells that a region's boxes meet: exactly those of a region that is nothing but boxes,
    and perhaps some more of any other.
    """
    grid = packing_of(scheme_name).grid
    rectangles = region.rectangles
    if rectangles is not None:
        met = [grid.cells_meeting(bounds, length) for bounds in rectangles]
        return [cells for cells in met if cells is not None]
    return [_cells_touching(scheme_name, length, box.as_tuple()) for box in region.bboxes]


def _cells_touching(
    scheme_name: SchemeName, length: int, bounds: tuple[float, float, float, float]
) -> CellBox:
    """As `Scheme.cells_meeting`, of a box that may be a line or a point: one cell more each way."""
    grid = packing_of(scheme_name).grid
    columns, rows = grid.grid_size(length)
    extent = grid.bounds("")
    west, south, east, north = bounds
    lat = [min(max(side, extent.south), extent.north) for side in (north, south)]
    lon = [west, min(east, float(np.nextafter(180.0, 0.0)))]
    column, row = grid.locate_many(lon, lat, length)
    return (
        max(int(column[0]) - 1, 0),
        min(int(column[1]) + 1, columns - 1),
        max(int(row[0]) - 1, 0),
        min(int(row[1]) + 1, rows - 1),
    )


COLUMN, ROW, START, END, CLOUD, COVERAGE, GROUP, POSITION = range(8)
"""Fields of a record: the cell's place in the grid, the tile's interval, its percentages, its group
and where it lies in the catalog's columns. Eight, so that eight tests are one number.
"""
FIELDS: Final = 8
UNKNOWN: Final = 1 << 40
"""Stands for a percentage that is not known: above all that are."""


_FLOAT32 = struct.Struct("<f")
_INT32 = struct.Struct("<i")


def percent_codes(values: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Percentages (0 to 100, or NaN) as integers that order as they do."""
    codes = (values + np.float32(0)).view(np.int32).astype(np.int64)  # -0 becomes 0
    codes[np.isnan(values)] = UNKNOWN
    return codes


def percent_code(bound: float) -> int:
    """A bound, rounded to float32, as `percent_codes` has it."""
    return int(_INT32.unpack(_FLOAT32.pack(bound + 0.0))[0])


def moments_of(times_us: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Times in units of some four seconds, rounded down: they order as times do, or tie."""
    moments: npt.NDArray[np.int32] = np.clip(
        times_us >> MOMENT_BITS, -(1 << 31), (1 << 31) - 1
    ).astype(np.int32)
    return moments


def records_of(columns: dict[str, npt.NDArray[Any]], positions: Integers) -> Records:
    """What predicates ask about of rows of the catalog's columns, int64 (n, FIELDS)."""
    records = np.empty((len(positions), FIELDS), np.int64)
    for field, name in (
        (COLUMN, "column"),
        (ROW, "row"),
        (START, "start_us"),
        (END, "end_us"),
        (GROUP, "group"),
    ):
        records[:, field] = columns[name][positions]
    records[:, CLOUD] = percent_codes(columns["cloud_cover"][positions])
    records[:, COVERAGE] = percent_codes(columns["pixel_coverage"][positions])
    records[:, POSITION] = positions
    return records


_SPREAD_BITS: Final = 12
_SPREAD = [
    sum(((number >> bit) & 1) << 2 * bit for bit in range(_SPREAD_BITS))
    for number in range(1 << _SPREAD_BITS)
]
_LOW: Final = (1 << _SPREAD_BITS) - 1


def _spread(number: int) -> int:
    """A number below 2**36 with a zero bit put before each of its bits."""
    if number <= _LOW:
        return _SPREAD[number]
    return (
        _SPREAD[number & _LOW]
        | _SPREAD[(number >> _SPREAD_BITS) & _LOW] << 2 * _SPREAD_BITS
        | _SPREAD[number >> 2 * _SPREAD_BITS] << 4 * _SPREAD_BITS
    )


class Bounds:
    """What fields of a record must keep: a least and a greatest number."""

    __slots__ = ("each",)

    def __init__(self, each: Iterable[tuple[int, int, int]] = ()) -> None:
        self.each = list(each)
        """(field, low, high), both inclusive; one a field, the narrowest first as a rule."""

    def add(self, field: int, low: int | None, high: int | None) -> None:
        """A bound of a field that has none yet; None: open on that side."""
        low = LEAST if low is None or low < LEAST else low
        high = MOST if high is None or high > MOST else high
        assert low <= MOST, "no field reaches beyond int64"
        assert low <= high, "an empty range is answered without asking rows"
        self.each.append((field, low, high))

    def as_arrays(self) -> tuple[Records, npt.NDArray[np.uint64]]:
        """(least numbers, widths of the ranges) by field."""
        lows, widths = [0] * FIELDS, [_ALL] * FIELDS
        for field, low, high in self.each:
            lows[field], widths[field] = low, high - low
        # A third of the time of two arrays made of lists.
        packed = _LIMITS.pack(*lows, *widths)
        return np.frombuffer(packed, np.int64, FIELDS), np.frombuffer(packed, np.uint64, -1, 64)


LEAST: Final = -(1 << 63)
MOST: Final = (1 << 63) - 1
_ALL: Final = (1 << 64) - 1
_LIMITS = struct.Struct(f"={FIELDS}q{FIELDS}Q")
_ALL_TRUE: Final = np.uint64(0x0101010101010101)

_IOTA = np.arange(1 << 16, dtype=np.intp)


def _iota(end: int) -> npt.NDArray[np.intp]:
    """0, 1, 2 ... at least to `end`; one array for all, made longer when it must be."""
    global _IOTA  # noqa: PLW0603 - a constant that grows; whoever has the old one may keep it
    if end > len(_IOTA):
        _IOTA = np.arange(max(end, 2 * len(_IOTA)))
    return _IOTA


def indices_of(stretches: Stretches) -> npt.NDArray[np.intp]:
    """The rows of stretches, in order; read-only where there is one."""
    if not stretches:
        return _IOTA[:0]
    iota = _iota(stretches[-1][1])
    if len(stretches) == 1:
        return iota[slice(*stretches[0])]
    if len(stretches) <= JOINED_MAX:
        return np.concatenate([iota[start:end] for start, end in stretches])
    edges = np.array(stretches)
    lengths = edges[:, 1] - edges[:, 0]
    ends = np.cumsum(lengths)
    found: npt.NDArray[np.intp] = np.repeat(edges[:, 0] - ends + lengths, lengths)
    found += iota[: len(found)]
    return found


class CellTable:
    """Rows of cells of one scheme and length."""

    def __init__(
        self,
        scheme_name: SchemeName,
        length: int,
        keys: PackedCells,
        records: Records,
    ) -> None:
        """Of rows in any order."""
        self.scheme: SchemeName = scheme_name
        self.length = length
        if (keys[1:] < keys[:-1]).any():
            order = np.argsort(keys, kind="stable")
            keys, records = keys[order], records[order]
        self.keys = keys
        self.records = records
        self.moments = np.stack([moments_of(records[:, START]), moments_of(records[:, END])])
        """Starts and ends once more, int32 (2, n): eight of them lie where one record does."""
        packing = packing_of(scheme_name)
        self._shift = packing.shift(length)
        x_bits, y_bits = packing.grid.bits(length)
        self._bits, self._row_last = x_bits + y_bits, (1 << y_bits) - 1
        # Which of a cell's two numbers gives the lowest bit of its code, and whether rows count
        # against the code's direction: told by the cell in the second column, and by the root's.
        one, far = packing.grid.sort_keys(np.array([1, 0]), np.array([0, 0]), length).tolist()
        self._rows_turned = far != 0
        self._column_is_low = (one ^ far) == 1

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def trie(self) -> RadixTrie:
        """The trie over this table's cells, built at first use (some ms a million)."""
        return RadixTrie(packing_of(self.scheme), self.keys)

    @cached_property
    def _directory(self) -> tuple[int, memoryview]:
        """(bits below its pieces, rank at which each piece of the curve begins, and the end).

        The trie's upper floors as one flat node: where a place's pieces begin is looked up.
        """
        pieces = min(DIRECTORY_BITS_MAX, self._bits, max(8, len(self).bit_length() - 4))
        below = self._bits - pieces
        codes = np.arange(1 << pieces, dtype=np.uint64) << np.uint64(below + self._shift)
        ranks = np.append(np.searchsorted(self.keys, codes), len(self)).astype(np.int32)
        return below, memoryview(ranks.tobytes()).cast("i")

    # ------------------------------------------------------------ places

    def under(self, prefix: str, *, recursive: bool) -> Stretches:
        """The rows under a geocode, or of exactly that cell."""
        start, end = self.trie.range(prefix, recursive=recursive)
        return [(start, end)] if start < end else []

    def near(self, boxes: Sequence[CellBox]) -> tuple[Stretches, int]:
        """(stretches that have all rows of these boxes and perhaps others, their rows)."""
        if not boxes:
            return [], 0
        stretches, rows = self._pieces(boxes, max(map(self._coarse_bits, boxes)))
        if rows <= ENOUGH_ROWS:
            return stretches, rows
        return self._pieces(boxes, max(map(self._fine_bits, boxes)))

    def _coarse_bits(self, box: CellBox) -> int:
        """Bits of a code below pieces of which a box meets at most three a side."""
        west, east, top, bottom = box
        across = max(east - west, bottom - top)
        return min(2 * (across.bit_length() - 1), self._bits) if across else 0

    def _fine_bits(self, box: CellBox) -> int:
        """Bits of a code below the smallest pieces of which a box has not too many."""
        west, east, top, bottom = box
        bits = 0
        while True:
            x_bits, y_bits = self._split(bits)
            wide = (east >> x_bits) - (west >> x_bits) + 1
            high = (bottom >> y_bits) - (top >> y_bits) + 1
            if wide * high <= BLOCKS_FINE:
                return bits
            bits += 1

    def _split(self, bits: int) -> tuple[int, int]:
        """How many of a code's lowest bits are a column's and how many a row's."""
        low = (bits + 1) >> 1
        return (low, bits - low) if self._column_is_low else (bits - low, low)

    def _codes(self, boxes: Sequence[CellBox], bits: int) -> list[int]:
        """Codes, without their lowest bits, of the pieces that boxes meet; in order."""
        x_bits, y_bits = self._split(bits)
        column_is_low = self._column_is_low ^ bool(bits & 1)
        found: list[int] = []
        for west, east, top, bottom in boxes:
            if self._rows_turned:
                top, bottom = self._row_last - bottom, self._row_last - top  # noqa: PLW2901
            lefts = [_spread(x) for x in range(west >> x_bits, (east >> x_bits) + 1)]
            tops = [_spread(y) for y in range(top >> y_bits, (bottom >> y_bits) + 1)]
            if column_is_low:
                found += [x | y << 1 for y in tops for x in lefts]
            else:
                found += [x << 1 | y for y in tops for x in lefts]
        found.sort()
        return found

    def _pieces(self, boxes: Sequence[CellBox], bits: int) -> tuple[Stretches, int]:
        """The rows in the pieces, of 2**bits cells each, that boxes meet."""
        below, directory = self._directory
        codes = self._codes(boxes, bits)
        if bits < below:
            return self._searched(codes, bits)
        step = bits - below
        found: Stretches = []
        rows = 0
        last = -1
        for code in codes:
            start, end = directory[code << step], directory[(code + 1) << step]
            if start == end:
                continue
            if start == last:
                found[-1] = found[-1][0], end
            elif start > last:
                found.append((start, end))
            else:
                continue  # a piece that two boxes meet
            rows += end - start
            last = end
        return found, rows

    def _searched(self, codes: list[int], bits: int) -> tuple[Stretches, int]:
        """As `_pieces`, of pieces that are smaller than the directory's."""
        edges: list[int] = []
        end = -1
        for code in codes:
            if code > end:
                edges.append(code)
                edges.append(code + 1)
            else:
                edges[-1] = code + 1
            end = code + 1
        packed = np.array(edges, dtype=np.uint64) << np.uint64(bits + self._shift)
        ranks = self.keys.searchsorted(packed).tolist()
        if end == 1 << (self._bits - bits):  # the last piece ends where the numbers do
            ranks[-1] = len(self.keys)
        pairs = zip(ranks[::2], ranks[1::2], strict=True)
        found = [(start, end) for start, end in pairs if start < end]
        return found, sum(end - start for start, end in found)

    def walk(self, region: Region) -> Walk:
        """A region of any shape and size down the trie; see `RadixTrie.walk`."""
        grid = packing_of(self.scheme).grid
        return self.trie.walk(
            lambda columns, rows, length: region.cells_relation(grid, columns, rows, length)
        )

    # ------------------------------------------------------------ rows

    def rows_of(self, stretches: Stretches, rows: int) -> Records:
        """The records of stretches that have so many rows; a view where there is one stretch."""
        if len(stretches) == 1:
            return self.records[slice(*stretches[0])]
        if not stretches:
            return self.records[:0]
        if len(stretches) <= JOINED_MAX or rows > JOINED_ROWS_MAX * len(stretches):
            return np.concatenate([self.records[start:end] for start, end in stretches])
        return self.records[indices_of(stretches)]

    def during(self, stretches: Stretches, first_us: int, last_us: int) -> Records:
        """The records of stretches whose interval may overlap first..last: all that do, and a few
        that miss it by seconds.
        """
        starts, ends = self.moments
        first, last = moments_of(np.array([first_us, last_us]))
        if len(stretches) == 1:
            ((begin, end),) = stretches
            mask = starts[begin:end] <= last
            mask &= ends[begin:end] >= first
            return self.records[begin:end].compress(mask, 0)
        mask = np.concatenate([starts[begin:end] for begin, end in stretches]) <= last
        mask &= np.concatenate([ends[begin:end] for begin, end in stretches]) >= first
        hits = mask.nonzero()[0]
        if not len(hits):
            return self.records[:0]
        # From where a hit lies among the stretches to where it lies in the table.
        before = 0
        edges, shifts = [], []
        for begin, end in stretches:
            shifts.append(begin - before)
            before += end - begin
            edges.append(before)
        hits += np.array(shifts)[np.searchsorted(edges, hits, "right")]
        found: Records = self.records[hits]
        return found

    @staticmethod
    def within(records: Records, bounds: Bounds) -> Records:
        """Those of some records that keep all bounds; O(n)."""
        if len(records) > ENOUGH_ROWS:
            return _narrowed(records, bounds)
        left = len(bounds.each)
        for field, low, high in bounds.each:
            values = records[:, field]
            if low == LEAST:
                passed = values <= high
            elif high == MOST:
                passed = values >= low
            else:
                passed = values >= low
                passed &= values <= high
            records = records.compress(passed, 0)
            left -= 1
            if left > 1 and len(records) <= FEW_ROWS:
                return _at_once(records, bounds.as_arrays())
        return records

    # ------------------------------------------------------------ new tables

    def merged(
        self,
        keys: PackedCells,
        records: Records,
        keep: npt.NDArray[np.bool_] | None = None,
    ) -> CellTable:
        """With more rows, and without those that `keep` (a mask over positions) does not name.

        O(n + m log m): two sorted runs are one pass.
        """
        own_keys, own_records = self.keys, self.records
        if keep is not None:
            kept = np.flatnonzero(keep[own_records[:, POSITION]])
            if len(kept) < len(own_keys):
                own_keys, own_records = own_keys[kept], own_records[kept]
        more = CellTable(self.scheme, self.length, keys, records)
        places = np.searchsorted(own_keys, more.keys, "right") + np.arange(len(more))
        total = len(own_keys) + len(more)
        is_own = np.ones(total, np.bool_)
        is_own[places] = False
        both_keys = np.empty(total, np.uint64)
        both_keys[is_own], both_keys[places] = own_keys, more.keys
        both = np.empty((total, FIELDS), np.int64)
        both[is_own], both[places] = own_records, more.records
        return CellTable(self.scheme, self.length, both_keys, both)


def _at_once(records: Records, limits: tuple[Records, npt.NDArray[np.uint64]]) -> Records:
    """As `CellTable.within`, all bounds of all records in one comparison."""
    low, width = limits
    # One comparison for both sides: what lies below the low one wraps round to a huge number.
    passed = (records - low).view(np.uint64) <= width
    return records.compress(passed.view(np.uint64)[:, 0] == _ALL_TRUE, 0)


def _narrowed(records: Records, bounds: Bounds) -> Records:
    """As `CellTable.within`, one bound after the other: of many rows the first leaves few."""
    if not bounds.each:
        return records
    at: npt.NDArray[np.intp] | None = None
    for field, low, high in bounds.each:
        values = records[:, field] if at is None else records[at, field]
        if low == LEAST:
            passed = values <= high
        elif high == MOST:
            passed = values >= low
        else:
            passed = (values >= low) & (values <= high)
        at = np.flatnonzero(passed) if at is None else at[passed]
        if not len(at):
            break
    assert at is not None
    return records[at]
