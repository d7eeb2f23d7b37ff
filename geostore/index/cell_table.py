"""Rows of one scheme and cell length, clustered by place: what most queries are answered from.

Rows lie in the order of their packed geocodes (along the Z-order curve, G. Morton 1966), and what
predicates ask about lies in that order too, as records of eight int64. So a place is a few
stretches of the table, read from memory one after another.
The stretches of a box come from arithmetic and a directory of the curve, those of a larger shape
from a walk down the trie; they may hold more than the place, so their rows are tested by the
columns and rows of their cells. Where a span of time is asked for as well, its rows of a place are
found by `TimeOrder`, which is made when that is first asked.

A table never changes. Built in O(n log n), 72 bytes a row, and 12 with times.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from geostore.grid import Region
from geostore.index.geocodes import PackedCells, packing_of
from geostore.index.once import once
from geostore.index.radix import RadixTrie, Walk
from geostore.index.time_order import Pieces, TimeOrder
from geostore.types import SchemeName

__all__ = [
    "CLOUD",
    "COLUMN",
    "COVERAGE",
    "END",
    "ENOUGH_ROWS",
    "GROUP",
    "LEAST",
    "MOST",
    "POSITION",
    "ROW",
    "START",
    "UNKNOWN",
    "Bounds",
    "CellBox",
    "CellTable",
    "Ground",
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
PIECES_MAX: Final = 1024
"""Pieces in which rows are sought by time; a place that meets more is too large for it."""
SMALL_FRACTION: Final = 4
"""A place that is so many times narrower than a piece holds few of its rows."""
GROUNDS_KEPT: Final = 2048
"""Boxes whose cells and pieces a table remembers: people ask for one place again and again. Some
1.2 KB each.
"""
PIECES_KEPT: Final = 16
"""Of a place of more pieces nothing is remembered."""
FEW_ROWS: Final = 128
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
    south, north = (min(max(side, extent.south), extent.north) for side in (south, north))
    wider = (west - _HAIR, south - _HAIR, east + _HAIR, north + _HAIR)
    met = grid.cells_meeting(wider, length)
    assert met is not None, "what touches the grid meets it when widened"
    return (
        max(met[0] - 1, 0),
        min(met[1] + 1, columns - 1),
        max(met[2] - 1, 0),
        min(met[3] + 1, rows - 1),
    )


_HAIR: Final = 1e-9
"""Degrees that give a line an area: less than any cell has."""


COLUMN, ROW, START, END, CLOUD, COVERAGE, GROUP, POSITION = range(8)
"""Fields of a record: the cell's place in the grid, the tile's interval, its percentages, its group
and where it lies in the catalog's columns. Eight, so that eight tests are one number.
"""
FIELDS: Final = 8
LEAST: Final = -(1 << 63)
MOST: Final = (1 << 63) - 1
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
        """(field, low, high), both inclusive, LEAST and MOST where a side is open; one a field, the
        narrowest first as a rule.
        """

    def as_arrays(self) -> tuple[Records, npt.NDArray[np.uint64]]:
        """(least numbers, widths of the ranges) by field."""
        lows, widths = [0] * FIELDS, [_ALL] * FIELDS
        for field, low, high in self.each:
            lows[field], widths[field] = low, high - low
        # A third of the time of two arrays made of lists.
        packed = _LIMITS.pack(*lows, *widths)
        return np.frombuffer(packed, np.int64, FIELDS), np.frombuffer(packed, np.uint64, -1, 64)


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


@dataclass(slots=True)
class Ground:
    """Where a region lies in a table."""

    boxes: list[CellBox]
    pieces: Pieces | None = None
    """Of the rows by time; None: too many or too large for that."""
    is_cut: bool = False
    """Whether pieces were looked for."""


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
        self._grounds: dict[object, Ground] = {}
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

    @once
    def trie(self) -> RadixTrie:
        """The trie over this table's cells, built at first use (some ms a million)."""
        return RadixTrie(packing_of(self.scheme), self.keys)

    @once
    def by_time(self) -> TimeOrder:
        """The rows by piece and time, built at first use (a tenth of a second a million)."""
        codes = self.keys >> np.uint64(self._shift)
        starts, ends = self.records[:, START], self.records[:, END]
        return TimeOrder(codes, self._bits, starts, ends, self._known_times())

    def _known_times(self) -> npt.NDArray[np.int64]:
        return np.flatnonzero(self.records[:, START] != MOST)

    def check(self) -> None:
        """Raises InternalError where the trie, or the rows by time if there are, are not right."""
        self.trie.check()
        if "by_time" in self.__dict__:
            self.by_time.check(self._known_times())

    @once
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

    def ground(self, region: Region, *, by_time: bool) -> Ground:
        """Where a region lies in this table, if `by_time` in the rows by time too; of boxes it is
        remembered.
        """
        rectangles = region.rectangles
        found = None if rectangles is None else self._grounds.get(rectangles)
        if found is None:
            found = Ground(cell_boxes(self.scheme, self.length, region))
            if rectangles is not None:
                if len(self._grounds) >= GROUNDS_KEPT:
                    self._grounds.clear()
                self._grounds[rectangles] = found
        if by_time and not found.is_cut:
            pieces = self._pieces_by_time(found.boxes)
            if pieces is not None and pieces.total > PIECES_KEPT:
                return Ground(found.boxes, pieces, is_cut=True)
            found.pieces, found.is_cut = pieces, True
        return found

    def _pieces_by_time(self, boxes: Sequence[CellBox]) -> Pieces | None:
        bits = self.by_time.bits
        x_bits, y_bits = self._split(bits)
        across = pieces = 0
        for west, east, top, bottom in boxes:
            across = max(across, east - west + 1, bottom - top + 1)
            wide = (east >> x_bits) - (west >> x_bits) + 1
            pieces += wide * ((bottom >> y_bits) - (top >> y_bits) + 1)
        if pieces > PIECES_MAX or SMALL_FRACTION * across < 1 << x_bits:
            return None
        codes = self._codes(boxes, bits)
        if len(boxes) > 1:  # which may share pieces
            codes = sorted(set(codes))
        return self.by_time.pieces(codes)

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

    @staticmethod
    def within(records: Records, bounds: Bounds) -> Records:
        """Those of some records that keep all bounds; O(n)."""
        if len(records) <= FEW_ROWS:
            return _at_once(records, bounds.as_arrays())
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
