"""The first rows of an answer by its order, without finding the others.

A tree has rows in the order of a sort key, or the reverse. They are taken in growing pieces, each
up to a key and with all that share it, until enough have passed the query's tests: what is left has
greater keys. Rows of the tail are tested all. That pays where many rows match: one that hardly
matches anything would be walked for long, so the walk is bounded by what finding all would cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from geostore.index.btree import BPlusTree
from geostore.index.columns import Positions
from geostore.index.memory import View
from geostore.query import Query

__all__ = ["OrderedWalk", "walk_of"]

PIECE_ROWS: Final = 256
"""Of the first piece; each one after it is twice as long."""

Test = Callable[[Positions], Positions]


@dataclass(frozen=True, slots=True)
class OrderedWalk:
    """Trees of one kind of key, whose ranks [first, end) may have the first rows."""

    ranges: tuple[tuple[BPlusTree, int, int], ...]
    descending: bool
    tail: int
    """Rows from this position on are in no tree."""
    has_all: bool
    """Whether rows that are not in the trees match nothing."""

    def pieces(self) -> Iterator[Positions]:
        """Rows in pieces: those of a later one have greater keys than all of an earlier."""
        left = list(self.ranges)
        rows = PIECE_ROWS
        while left:
            edges = [self._edge(tree, first, end, rows) for tree, first, end in left]
            known = [edge for edge in edges if edge is not None]
            nearest = (max(known) if self.descending else min(known)) if known else None
            taken = []
            rest = []
            for tree, first, end in left:
                at = self._cut(tree, first, end, nearest)
                taken.append(tree.payload(at, end) if self.descending else tree.payload(first, at))
                kept = (first, at) if self.descending else (at, end)
                if kept[0] < kept[1]:
                    rest.append((tree, *kept))
            left = rest
            rows *= 2
            yield np.concatenate(taken)

    def _edge(self, tree: BPlusTree, first: int, end: int, rows: int) -> Any:
        """The key that is so many rows on; None where the range ends before."""
        at = end - 1 - rows if self.descending else first + rows
        if not first <= at < end:
            return None
        ((keys, _),) = tree.slices(at, at + 1)
        return keys[0]

    def _cut(self, tree: BPlusTree, first: int, end: int, key: Any) -> int:
        """Where the range is cut so that all rows of a key, and before it, are taken."""
        if key is None:
            return first if self.descending else end
        rank = tree.rank(key, after=not self.descending)
        return min(max(rank, first), end)

    def first_rows(self, wanted: int, rows_max: float, test: Test) -> Positions | None:
        """Rows that pass `test`, with all that may be among the first `wanted`, in no order; None:
        the walk would be too long, or rows in no tree are needed too.
        """
        found: list[Positions] = []
        passed = walked = 0
        for piece in self.pieces():
            kept = test(piece)
            found.append(kept)
            passed += len(kept)
            walked += len(piece)
            if passed >= wanted:
                return np.concatenate(found)
            if walked > rows_max:
                return None
        return np.concatenate([np.empty(0, np.int64), *found]) if self.has_all else None


def walk_of(view: View, q: Query, key: float | None) -> OrderedWalk | None:
    """The walk for a query's order, from a sort key on (that of a cursor); None: by none."""
    sort = q.sort or "time"
    descending = sort.startswith("-")
    ranges: list[tuple[BPlusTree, int, int]] = []
    if sort.endswith("time"):
        times = view.times
        if q.time is None:
            ranges = [(tree, 0, len(tree)) for tree in times.classes.values()]
        else:
            ranges = [(tree, first, end) for tree, first, _, end in times.parts(q.time)]
        tail, has_all = times.upto, q.time is not None
    else:
        cloud = sort.endswith("cloud")
        percents = view.percents("cloud_cover" if cloud else "pixel_coverage")
        bounds = q.cloud if cloud else q.coverage
        tree = percents.entries
        first, end = (
            (0, len(tree)) if bounds is None else tree.range(bounds.minimum, bounds.maximum)
        )
        ranges = [(tree, first, end)]
        tail, has_all = percents.upto, bounds is not None
    if key is not None:
        ranges = [
            (tree, *_from_key(tree, first, end, key, descending)) for tree, first, end in ranges
        ]
    kept = tuple(each for each in ranges if each[1] < each[2])
    return OrderedWalk(kept, descending, tail, has_all)


def _from_key(
    tree: BPlusTree, first: int, end: int, key: float, descending: bool
) -> tuple[int, int]:
    if descending:
        return first, min(end, tree.rank(key, after=True))
    return max(first, tree.rank(key)), end
