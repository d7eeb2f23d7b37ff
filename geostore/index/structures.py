"""Ordered structures over the columns: which rows lie in a range, without looking at all.

Times and percentages lie in B+-trees, cells in tables clustered by place with a radix trie over
each. The first datasets have trees of their own, so that what is asked of one of them does not meet
the others' rows; those that come later share trees. A structure covers the rows up to a position
and never changes; more rows make a new one, which shares what it can with the old. It may hold rows
that have died since (the caller filters by the live mask): `dead_seen` says which ones it has left
out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from geostore.errors import InternalError
from geostore.index.btree import BPlusTree
from geostore.index.cell_table import (
    POSITION,
    CellTable,
    percent_code,
    percent_codes,
    records_of,
)
from geostore.index.columns import NO_START, Positions, Snapshot
from geostore.query import PercentRange
from geostore.types import TimeSpan

__all__ = [
    "DATASETS_APART",
    "Cells",
    "Facts",
    "Families",
    "Percents",
    "Range",
    "Runs",
    "Structure",
    "Times",
    "moment",
    "percent_key",
]

DATASETS_APART: Final = 16
"""Datasets with trees of their own, in the order in which they came. Each more costs a question
about no dataset a few microseconds.
"""
Families = frozenset[int] | None
"""Datasets whose trees are wanted: their codes, or DATASETS_APART for all that share; None: all."""
Range = tuple[BPlusTree, int, int]
"""Ranks [first, end) of a tree."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What predicates ask about, as columns by position: views of the catalog's columns."""

    column: npt.NDArray[np.int32]
    row: npt.NDArray[np.int32]
    """The cell's place in the grid."""
    start_us: npt.NDArray[np.int64]
    """NO_START where no time is known."""
    end_us: npt.NDArray[np.int64]
    """The end of the tile's interval; NULL_TIME where no time is known."""
    cloud: npt.NDArray[np.float32]
    coverage: npt.NDArray[np.float32]
    group: npt.NDArray[np.int32]

    @classmethod
    def of(cls, columns: dict[str, npt.NDArray[Any]]) -> Self:
        return cls(
            column=columns["column"],
            row=columns["row"],
            start_us=columns["start_us"],
            end_us=columns["end_us"],
            cloud=columns["cloud_cover"],
            coverage=columns["pixel_coverage"],
            group=columns["group"],
        )


def _new_live(snapshot: Snapshot, first: int) -> npt.NDArray[np.intp]:
    """Positions of the live rows from `first` on."""
    return np.flatnonzero(snapshot.alive[first:]) + first


def _families_of(snapshot: Snapshot, at: Positions) -> npt.NDArray[np.int32]:
    codes = snapshot.group_codes["dataset"][snapshot.columns["group"][at]]
    families: npt.NDArray[np.int32] = np.minimum(codes, DATASETS_APART)
    return families


def _new(snapshot: Snapshot, first: int) -> npt.NDArray[np.intp]:
    """Positions of the rows that a structure over `first` rows takes in.

    The first time it leaves out those that died; from then on it takes them too. Rows that died
    since its `dead_seen` are thought to be in it, and these died since it was built.
    """
    return np.arange(first, snapshot.count) if first else _new_live(snapshot, 0)


@dataclass(frozen=True, slots=True)
class Times:
    """Intervals by their start, in classes by family and length.

    A span [a, b] is overlapped by an interval of at most L microseconds only if it starts in
    [a - L, b]. One L for all would make a yearly product widen every search by a year, so
    intervals are kept apart by the bit length of their duration: within a class, L is at
    most twice the interval's own length. Count O(c log n), walk O(c log n + rows) for c
    classes (an instant is class 0).
    """

    upto: int
    dead_seen: int
    classes: dict[tuple[int, int], BPlusTree]
    """By family and bit length."""

    @classmethod
    def empty(cls) -> Self:
        return cls(0, 0, {})

    def extended(self, snapshot: Snapshot) -> Self:
        """With the rows that came since; those without time are left out."""
        new = _new(snapshot, self.upto)
        starts = snapshot.columns["start_us"][new]
        ends = snapshot.columns["end_us"][new]
        known = np.flatnonzero(starts != NO_START)
        new, starts, ends = new[known], starts[known], ends[known]
        classes = dict(self.classes)
        kinds = _families_of(snapshot, new) * _LENGTHS + _bit_lengths(starts, ends)
        for kind in np.unique(kinds).tolist():
            own = kinds == kind
            tree = classes.get(divmod(kind, _LENGTHS), BPlusTree(starts.dtype))
            classes[divmod(kind, _LENGTHS)] = tree.insert(starts[own], new[own])
        dead_seen = self.dead_seen if self.upto else len(snapshot.dead)
        return type(self)(snapshot.count, dead_seen, classes)

    def trees(self, families: Families = None) -> list[BPlusTree]:
        """Of some datasets."""
        return [
            tree
            for (family, _), tree in self.classes.items()
            if families is None or family in families
        ]

    def parts(
        self, span: TimeSpan, families: Families = None
    ) -> Iterator[tuple[BPlusTree, int, int, int]]:
        """(tree, first, sure, end): of a class's ranks [first, end) all that overlap are among
        them, and from `sure` on all do.
        """
        for (family, length), tree in self.classes.items():
            if families is not None and family not in families:
                continue
            if span.start_us is None:
                first = sure = 0
            else:
                sure = tree.rank(span.start_us)
                first = tree.rank(span.start_us - (1 << length) + 1) if length else sure
            end = len(tree) if span.end_us is None else tree.rank(span.end_us, after=True)
            if first < end:
                yield tree, first, min(sure, end), end

    def count(self, span: TimeSpan, families: Families = None) -> int:
        """At least as many as overlap."""
        return sum(end - first for _, first, _, end in self.parts(span, families))

    def walk(self, span: TimeSpan, families: Families = None) -> tuple[Positions, Positions]:
        """(rows that overlap for certain, rows that must be asked)."""
        parts = list(self.parts(span, families))
        return (
            _together([tree.payload(sure, end) for tree, _, sure, end in parts]),
            _together(
                [tree.payload(first, sure) for tree, first, sure, _ in parts if first < sure]
            ),
        )

    def unsure(self, span: TimeSpan) -> tuple[int, Positions]:
        """(how many overlap for certain, those that must be asked)."""
        parts = list(self.parts(span))
        rest = [tree.payload(first, sure) for tree, first, sure, _ in parts if first < sure]
        return sum(end - sure for _, _, sure, end in parts), _together(rest)

    def positions(self) -> set[int]:
        """All rows held: for checks."""
        return {at for tree in self.classes.values() for at in tree.payload().tolist()}

    def check(self) -> None:
        """Raises InternalError where a tree is not what it should be."""
        for tree in self.classes.values():
            tree.check()


def _together(parts: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([np.empty(0, dtype=np.int64), *parts])


_LENGTHS: Final = 128
"""More than there are bit lengths."""


def _bit_lengths(
    starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Of each duration, at least its bit length: a rounded one may be told one more."""
    durations = ends.view(np.uint64) - starts.view(np.uint64)  # right also beyond 2**63
    durations[ends < starts] = 0
    bits: npt.NDArray[np.int64] = np.frexp(durations.astype(np.float64))[1].astype(np.int64)
    return bits


MOMENT_BITS: Final = 32
_SECOND_US: Final = 1_000_000
_FIRST_SECOND: Final = 2_208_988_800
"""From 1900 to 1970."""


def moment(time_us: int) -> int:
    """A time in whole seconds since 1900, in 32 bits: it orders as times do, or ties."""
    return max(0, min(time_us // _SECOND_US + _FIRST_SECOND, (1 << MOMENT_BITS) - 1))


@dataclass(frozen=True, slots=True)
class Percents:
    """Rows by a percentage, and among equal ones by time; those where it is unknown are left out.

    Many tiles have a percentage in common, 0 or 100, so that an order by it is for the most part
    one by time: a key is both, the percentage's number above the second in which the tile starts.
    """

    upto: int
    dead_seen: int
    trees: dict[int, BPlusTree]
    """By family."""

    @classmethod
    def empty(cls) -> Self:
        return cls(0, 0, {})

    def extended(self, snapshot: Snapshot, column: str) -> Self:
        """With the rows that came since."""
        new = _new(snapshot, self.upto)
        values = snapshot.columns[column][new]
        known = np.flatnonzero(~np.isnan(values))
        new = new[known]
        # NO_START is the last of all seconds too.
        seconds = snapshot.columns["start_us"][new] // _SECOND_US + _FIRST_SECOND
        keys = percent_codes(values[known]) << MOMENT_BITS
        keys |= np.clip(seconds, 0, (1 << MOMENT_BITS) - 1)
        trees = dict(self.trees)
        families = _families_of(snapshot, new)
        for family in np.unique(families).tolist():
            own = families == family
            tree = trees.get(family, BPlusTree(keys.dtype))
            trees[family] = tree.insert(keys[own], new[own])
        dead_seen = self.dead_seen if self.upto else len(snapshot.dead)
        return type(self)(snapshot.count, dead_seen, trees)

    def ranges(self, bounds: PercentRange | None, families: Families = None) -> list[Range]:
        """The entries within bounds, by tree; none of them empty."""
        low = None if bounds is None or bounds.minimum is None else percent_code(bounds.minimum)
        high = None if bounds is None or bounds.maximum is None else percent_code(bounds.maximum)
        found = []
        for family, tree in self.trees.items():
            if families is None or family in families:
                first = 0 if low is None else tree.rank(percent_key(low))
                end = len(tree) if high is None else tree.rank(percent_key(high + 1))
                if first < end:
                    found.append((tree, first, end))
        return found

    def count(self, bounds: PercentRange, families: Families = None) -> int:
        return sum(end - first for _, first, end in self.ranges(bounds, families))

    def walk(self, bounds: PercentRange, families: Families = None) -> Positions:
        return _together([tree.payload(*edge) for tree, *edge in self.ranges(bounds, families)])

    def positions(self) -> set[int]:
        """All rows held: for checks."""
        return {at for tree in self.trees.values() for at in tree.payload().tolist()}

    def check(self) -> None:
        """Raises InternalError where a tree is not what it should be."""
        for tree in self.trees.values():
            tree.check()


def percent_key(code: int, second: int = 0) -> int:
    """The least key of a percentage's number (and a second, see `moment`)."""
    return code << MOMENT_BITS | second


@dataclass(frozen=True, slots=True)
class Runs:
    """Rows by group: runs of neighbouring positions, as rows of a scene come together.

    Built anew for all rows, O(n); 12 bytes a run.
    """

    upto: int
    dead_seen: int
    first_of: npt.NDArray[np.int64]
    """Group to its first run; one more at the end."""
    starts: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int32]

    @classmethod
    def empty(cls) -> Self:
        nothing = np.empty(0, np.int32)
        return cls(0, 0, np.zeros(1, np.int64), nothing, nothing)

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        groups = snapshot.columns["group"]
        starts = np.flatnonzero(np.diff(groups, prepend=-1)).astype(np.int32)
        lengths = np.diff(starts, append=np.int32(len(groups)))
        order = np.argsort(groups[starts], kind="stable")
        counts = np.bincount(groups[starts], minlength=len(snapshot.group_live))
        first_of = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        return cls(snapshot.count, 0, first_of, starts[order], lengths[order])

    def walk(self, groups: npt.NDArray[np.intp]) -> Positions:
        """All rows of some groups, by group."""
        wanted = groups[groups < len(self.first_of) - 1]
        first, end = self.first_of[wanted], self.first_of[wanted + 1]
        runs = _spans(first, end - first)
        return _spans(self.starts[runs].astype(np.int64), self.lengths[runs].astype(np.int64))

    def positions(self) -> set[int]:
        """All rows held: for checks."""
        return set(_spans(self.starts.astype(np.int64), self.lengths.astype(np.int64)).tolist())

    def check(self) -> None:
        """Raises InternalError where runs overlap or leave rows out."""
        order = np.argsort(self.starts)
        ends = self.starts[order] + self.lengths[order]
        if self.upto and (
            self.starts[order][0] != 0
            or ends[-1] != self.upto
            or (ends[:-1] != self.starts[order][1:]).any()
        ):
            raise InternalError("runs of groups are not all rows, each once")


def _spans(starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """start, start + 1, ... of each span, one after another."""
    if len(starts) == 1:
        return np.arange(starts[0], starts[0] + lengths[0])
    ends = np.cumsum(lengths)
    found = np.repeat(starts - ends + lengths, lengths)
    found += np.arange(len(found))
    return found


@dataclass(frozen=True, slots=True)
class Cells:
    """All rows by place: a table of each grid (its number in the column `grid`)."""

    upto: int
    dead_seen: int
    tables: dict[int, CellTable]

    @classmethod
    def empty(cls) -> Self:
        return cls(0, 0, {})

    def extended(self, snapshot: Snapshot) -> Self:
        """With the rows that came since, and without all that died."""
        new = _new_live(snapshot, self.upto)
        numbers = snapshot.columns["grid"][new]
        keep = snapshot.alive if len(snapshot.dead) > self.dead_seen else None
        tables = {}
        for number, (scheme_name, length) in enumerate(snapshot.grids):
            own = new[numbers == number]
            columns = snapshot.columns
            cells, records = columns["cell"][own], records_of(columns, own)
            table = self.tables.get(number)
            if table is None:
                table = CellTable(scheme_name, length, cells, records)
            elif len(own) or keep is not None:
                table = table.merged(cells, records, keep)
            tables[number] = table
        return type(self)(snapshot.count, len(snapshot.dead), tables)

    def positions(self) -> set[int]:
        """All rows held: for checks."""
        return {at for table in self.tables.values() for at in table.records[:, POSITION].tolist()}

    def check(self) -> None:
        """Raises InternalError where a table is not what it should be."""
        for table in self.tables.values():
            table.check()


Structure = Times | Percents | Runs | Cells
