"""The first rows of an answer by its order, without finding the others.

A tree has rows in the order of a sort key. They are taken in growing pieces, each with all that
share its last key, until enough have passed the query's tests: what is left has greater keys.
Rows of the tail are tested all. That pays where many rows match: one that hardly matches anything
would be walked for long, so the walk is bounded by what finding all would cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from geostore.index.btree import BPlusTree
from geostore.index.cell_table import percent_code
from geostore.index.columns import Positions
from geostore.index.memory import View
from geostore.index.structures import Percents, moment
from geostore.query import Cursor, Query

__all__ = ["OrderedWalk", "walk_of"]

PIECE_ROWS: Final = 256
"""Of the first piece; each one after it is twice as long."""
TIES_MAX: Final = 4
"""A piece takes in all rows of its last percentage unless that makes it so many times as long."""

Test = Callable[[Positions], Positions]
Ranks = tuple[int, int]


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
                return np.concatenate(found)
            if walked > rows_max:
                return None
        return np.concatenate([np.empty(0, np.int64), *found]) if self.has_all else None


def walk_of(view: View, q: Query, after: Cursor | None) -> OrderedWalk | None:
    """The walk for a query's order, from a cursor's place on; None: that is among unknown keys."""
    sort = q.sort or "time"
    descending = sort.startswith("-")
    if sort.endswith("time"):
        return _by_time(view, q, after, descending=descending)
    is_cloud = sort.endswith("cloud")
    percents = view.percents("cloud_cover" if is_cloud else "pixel_coverage")
    bounds = q.cloud if is_cloud else q.coverage
    first, end = (0, len(percents.entries)) if bounds is None else percents.range(bounds)
    place: tuple[int, int] | None = None
    if after is not None:
        unknown, primary, time_unknown, time_us, *_ = after.key
        if unknown:
            return None
        second = (1 << 32) - 1 if time_unknown else moment(time_us)
        place = percent_code(-primary if descending else primary), second
    if descending:
        pieces = _downward(percents, first, end, place)
    else:
        if place is not None:
            first = max(first, percents.rank(*place))
        pieces = _in_time([(percents.entries, first, end)], descending=False)
    return OrderedWalk(pieces, percents.upto, bounds is not None)


def _by_time(view: View, q: Query, after: Cursor | None, *, descending: bool) -> OrderedWalk | None:
    times = view.times
    if q.time is None:
        ranges = [(tree, 0, len(tree)) for tree in times.classes.values()]
    else:
        ranges = [(tree, first, end) for tree, first, _, end in times.parts(q.time)]
    if after is not None:
        unknown, _, time_unknown, time_us, *_ = after.key
        if unknown or time_unknown:
            return None
        if descending:
            ranges = [(tree, a, min(b, tree.rank(time_us, after=True))) for tree, a, b in ranges]
        else:
            ranges = [(tree, max(a, tree.rank(time_us)), b) for tree, a, b in ranges]
    return OrderedWalk(_in_time(ranges, descending=descending), times.upto, q.time is not None)


def _in_time(ranges: list[tuple[BPlusTree, int, int]], *, descending: bool) -> Iterator[Positions]:
    """Pieces of several trees at once, by their keys, or the reverse."""
    left = [each for each in ranges if each[1] < each[2]]
    rows = PIECE_ROWS
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
        yield np.concatenate(taken)


def _key_on(tree: BPlusTree, first: int, end: int, rows: int, descending: bool) -> Any:
    """The key that is so many rows on; None where the range ends before."""
    at = end - 1 - rows if descending else first + rows
    if not first <= at < end:
        return None
    ((keys, _),) = tree.slices(at, at + 1)
    return keys[0]


def _cut(tree: BPlusTree, first: int, end: int, key: Any, descending: bool) -> int:
    """Where the range is cut so that all rows of a key, and before it, are taken."""
    if key is None:
        return first if descending else end
    return min(max(tree.rank(key, after=not descending), first), end)


def _downward(
    percents: Percents, first: int, end: int, place: tuple[int, int] | None
) -> Iterator[Positions]:
    """Pieces from the greatest percentage down; among equal ones time still goes up."""
    rows = PIECE_ROWS
    if place is not None:
        code, _ = place
        end = min(end, percents.rank(code + 1))
        block = max(first, percents.rank(code))
        begin = max(block, percents.rank(*place))
        if begin < end:
            yield from _in_time([(percents.entries, begin, end)], descending=False)
        end = min(end, block)
    while first < end:
        code = percents.code_at(max(first, end - rows))
        block = max(first, percents.rank(code))
        if end - block <= TIES_MAX * rows:
            yield percents.entries.payload(block, end)
        else:  # a large block: what is above it, then itself in pieces
            above = percents.rank(code + 1)
            if above < end:
                yield percents.entries.payload(above, end)
            yield from _in_time([(percents.entries, block, min(above, end))], descending=False)
        end = block
        rows *= 2
