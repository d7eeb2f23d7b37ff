"""The first rows of an answer by its order, without finding the others.

A tree has rows in the order of a sort key. They are taken in growing pieces, each with all that
share its last key, until enough have passed the query's tests: what is left has greater keys.
Rows of the tail are tested all. That pays where many rows match: one that hardly matches anything
would be walked for long, so the walk is bounded by what finding all would cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np

from geostore.index.btree import BPlusTree
from geostore.index.cell_table import percent_code
from geostore.index.columns import Positions
from geostore.index.memory import View
from geostore.index.structures import MOMENT_BITS, Families, Range, moment, percent_key
from geostore.query import Cursor, Query

__all__ = ["OrderedWalk", "walk_of"]

PIECE_ROWS: Final = 64
"""Of the first piece; each one after it is twice as long."""
TIES_MAX: Final = 4
"""A piece takes in all rows of its last percentage unless that makes it so many times as long."""

Test = Callable[[Positions], Positions]


@dataclass(frozen=True, slots=True)
class OrderedWalk:
    """Rows in pieces: those of a later one come after all of an earlier in the order."""

    pieces: Iterable[Positions]
    tail: int
    """Rows from this position on are in no piece."""
    has_all: bool
    """Whether rows whose key is unknown, which are in no piece either, match nothing."""

    def first_rows(self, wanted: int, rows_max: float, test: Test) -> Positions | None:
        """Rows that pass `test`, with all that may be among the first `wanted`, in no order; None:
        the walk would be too long, or rows in no piece are needed too.
        """
        found: list[Positions] = []
        passed = walked = 0
        for piece in self.pieces:
            kept = test(piece)
            found.append(kept)
            passed += len(kept)
            walked += len(piece)
            if passed >= wanted:
                return found[0] if len(found) == 1 else np.concatenate(found)
            if walked > rows_max:
                return None
        return np.concatenate([np.empty(0, np.int64), *found]) if self.has_all else None


def walk_of(
    view: View,
    q: Query,
    after: Cursor | None,
    families: Families = None,
    first_piece: int | None = None,
) -> OrderedWalk | None:
    """The walk for a query's order, from a cursor's place on; None: that is among unknown keys.

    With `families`, of their rows; `first_piece`: how many rows to begin with.
    """
    piece_rows = PIECE_ROWS if first_piece is None else first_piece
    sort = q.sort or "time"
    descending = sort.startswith("-")
    if sort.endswith("time"):
        return _by_time(view, q, after, families, piece_rows, descending=descending)
    is_cloud = sort.endswith("cloud")
    column = "cloud_cover" if is_cloud else "pixel_coverage"
    percents = view.percents(column)
    bounds = q.cloud if is_cloud else q.coverage
    ranges = percents.ranges(bounds, families)
    key: int | None = None
    if after is not None:
        unknown, primary, time_unknown, time_us, *_ = after.key
        if unknown:
            return None
        second = (1 << 32) - 1 if time_unknown else moment(time_us)
        key = percent_key(percent_code(-primary if descending else primary), second)
    if descending:
        pieces = _downward(ranges, key, piece_rows)
    else:
        if key is not None:
            ranges = [(tree, max(first, tree.rank(key)), end) for tree, first, end in ranges]
        pieces = _in_time(ranges, piece_rows, descending=False)
    if bounds is not None:
        return OrderedWalk(pieces, percents.upto, True)
    # Rows without the percentage come last, by time; those without either are in no piece.
    tail = min(percents.upto, view.times.upto)
    values = view.snapshot.columns[column]

    def unknown_ones() -> Iterator[Positions]:
        for piece in _in_time(_of_times(view, q, families), piece_rows, descending=False):
            yield piece[np.isnan(values[piece])]

    every: Iterator[Positions] = chain(pieces, unknown_ones())
    if percents.upto != view.times.upto:
        every = (piece[piece < tail] for piece in every)
    return OrderedWalk(every, tail, q.time is not None)


def _of_times(view: View, q: Query, families: Families) -> list[Range]:
    """All rows that may overlap the query's span, by their starts."""
    if q.time is None:
        return [(tree, 0, len(tree)) for tree in view.times.trees(families)]
    return [(tree, first, end) for tree, first, _, end in view.times.parts(q.time, families)]


def _by_time(
    view: View,
    q: Query,
    after: Cursor | None,
    families: Families,
    piece_rows: int,
    *,
    descending: bool,
) -> OrderedWalk | None:
    ranges = _of_times(view, q, families)
    if after is not None:
        unknown, _, time_unknown, time_us, *_ = after.key
        if unknown or time_unknown:
            return None
        if descending:
            ranges = [(tree, a, min(b, tree.rank(time_us, after=True))) for tree, a, b in ranges]
        else:
            ranges = [(tree, max(a, tree.rank(time_us)), b) for tree, a, b in ranges]
    pieces = _in_time(ranges, piece_rows, descending=descending)
    return OrderedWalk(pieces, view.times.upto, q.time is not None)


def _in_time(ranges: list[Range], rows: int, *, descending: bool) -> Iterator[Positions]:
    """Pieces of several trees at once, by their keys, or the reverse."""
    left = [each for each in ranges if each[1] < each[2]]
    while left:
        edges = [_key_on(tree, first, end, rows, descending) for tree, first, end in left]
        known = [edge for edge in edges if edge is not None]
        nearest = (max(known) if descending else min(known)) if known else None
        taken = []
        rest = []
        for tree, first, end in left:
            at = _cut(tree, first, end, nearest, descending)
            taken.append(tree.payload(at, end) if descending else tree.payload(first, at))
            kept = (first, at) if descending else (at, end)
            if kept[0] < kept[1]:
                rest.append((tree, *kept))
        left = rest
        rows *= 2
        yield taken[0] if len(taken) == 1 else np.concatenate(taken)


def _key_on(tree: BPlusTree, first: int, end: int, rows: int, descending: bool) -> Any:
    """The key that is so many rows on; None where the range ends before."""
    at = end - 1 - rows if descending else first + rows
    if not first <= at < end:
        return None
    return tree.key_at(at)


def _cut(tree: BPlusTree, first: int, end: int, key: Any, descending: bool) -> int:
    """Where the range is cut so that all rows of a key, and before it, are taken."""
    if key is None:
        return first if descending else end
    return min(max(tree.rank(key, after=not descending), first), end)


def _downward(ranges: list[Range], place: int | None, rows: int) -> Iterator[Positions]:
    """Pieces from the greatest percentage down; among equal ones time still goes up.

    With `place`, a key: from there on.
    """
    if place is not None:
        code = place >> MOMENT_BITS
        equal = _between(ranges, place, percent_key(code + 1))
        yield from _in_time(equal, rows, descending=False)
        ranges = _between(ranges, None, percent_key(code))
    while ranges := [each for each in ranges if each[1] < each[2]]:
        code = max(_code_at(tree, max(first, end - rows)) for tree, first, end in ranges)
        block = _between(ranges, percent_key(code), None)
        if sum(end - first for _, first, end in block) <= TIES_MAX * rows:
            yield np.concatenate([tree.payload(*edge) for tree, *edge in block])
        else:  # a large block: what is above it, then itself in pieces
            above = _between(block, percent_key(code + 1), None)
            if any(first < end for _, first, end in above):
                yield np.concatenate([tree.payload(*edge) for tree, *edge in above])
            block = _between(block, None, percent_key(code + 1))
            yield from _in_time(block, rows, descending=False)
        ranges = _between(ranges, None, percent_key(code))
        rows *= 2


def _between(ranges: list[Range], low: int | None, high: int | None) -> list[Range]:
    """Of each range the entries with low <= key < high; None: no bound. Some may be empty."""
    found = []
    for tree, first, end in ranges:
        begin = first if low is None else min(max(first, tree.rank(low)), end)
        found.append((tree, begin, end if high is None else min(max(begin, tree.rank(high)), end)))
    return found


def _code_at(tree: BPlusTree, rank: int) -> int:
    """The percentage's number of an entry."""
    return int(tree.key_at(rank)) >> MOMENT_BITS
