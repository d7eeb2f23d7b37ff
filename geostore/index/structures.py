"""Ordered structures over the columns: which rows lie in a range, without looking at all.

Times and percentages lie in B+-trees, cells in a trie that still stands on pygtrie. Each
structure holds entries of rows that have died too (the caller filters by the live mask, and
rebuilds when most are dead); counts are therefore upper bounds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pygtrie

from geostore.grid import Region, Relation, Scheme, scheme
from geostore.index.btree import BPlusTree
from geostore.index.columns import Interner, Positions
from geostore.query import PercentRange
from geostore.query.predicate import time_end_effective
from geostore.types import NULL_TIME, SchemeName, TimeSpan

__all__ = ["CellStructure", "PercentStructure", "TimeStructure"]


class TimeStructure:
    """Intervals by their start, in classes by length.

    A span [a, b] is overlapped by an interval of at most L microseconds only if it starts in
    [a - L, b]. One L for all would make a yearly product widen every search by a year, so
    intervals are kept apart by the bit length of their duration: within a class, L is at
    most twice the interval's own length. Count O(c log n), walk O(c log n + rows) for c
    classes (an instant is class 0).
    """

    def __init__(self) -> None:
        self.classes: dict[int, BPlusTree] = {}

    def extend(
        self,
        first: int,
        time_us: npt.NDArray[np.int64],
        time_end_us: npt.NDArray[np.int64],
    ) -> None:
        """Takes in the rows at positions first, first + 1, ...; those without time are left out."""
        known = np.flatnonzero(time_us != NULL_TIME)
        starts = time_us[known]
        ends = time_end_effective(time_us, time_end_us)[known]
        durations = [
            max(0, end - start) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        ]
        bits = np.array([duration.bit_length() for duration in durations], dtype=np.int64)
        for length in np.unique(bits).tolist():
            of_class = bits == length
            entries = self.classes.get(length, BPlusTree(starts.dtype))
            self.classes[length] = entries.insert(starts[of_class], known[of_class] + first)

    def _ranges(self, span: TimeSpan) -> list[tuple[BPlusTree, int, int]]:
        return [
            (
                entries,
                *entries.range(
                    None if span.start_us is None else span.start_us - (1 << length) + 1,
                    span.end_us,
                ),
            )
            for length, entries in self.classes.items()
        ]

    def count(self, span: TimeSpan) -> int:
        """At least as many as overlap."""
        return sum(high - low for _, low, high in self._ranges(span))

    def walk(self, span: TimeSpan) -> Positions:
        """A superset of the overlapping rows; the predicate itself decides."""
        return np.concatenate(
            [
                np.empty(0, dtype=np.intp),
                *(entries.payload(low, high) for entries, low, high in self._ranges(span)),
            ]
        )

    def positions(self) -> set[int]:
        return {at for entries in self.classes.values() for at in entries.payload().tolist()}


class PercentStructure:
    """Rows by a percentage; those where it is unknown are left out."""

    def __init__(self) -> None:
        self.entries = BPlusTree(np.dtype(np.float32))

    def extend(self, first: int, values: npt.NDArray[np.float32]) -> None:
        known = np.flatnonzero(~np.isnan(values))
        self.entries = self.entries.insert(values[known], known + first)

    def _range(self, bounds: PercentRange) -> tuple[int, int]:
        return self.entries.range(bounds.minimum, bounds.maximum)

    def count(self, bounds: PercentRange) -> int:
        low, high = self._range(bounds)
        return high - low

    def walk(self, bounds: PercentRange) -> Positions:
        return self.entries.payload(*self._range(bounds))

    def positions(self) -> set[int]:
        return set(self.entries.payload().tolist())


class CellStructure:
    """The cells that have rows: a trie of geocodes for each scheme.

    It answers with masks over cell codes. A prefix is a range of the sorted geocodes; a
    region descends the trie, so that only cells that exist are tested, and below a cell
    that lies inside the region none are.
    """

    def __init__(self) -> None:
        self.tries: dict[SchemeName, pygtrie.CharTrie] = {}
        self._order: list[SchemeName] = []
        self._scheme_of = np.empty(0, dtype=np.int8)
        self._sorted: list[str] | None = None

    def extend(self, cells: Interner) -> None:
        """Takes in the cells that came since; `cells` is keyed by (scheme, geocode)."""
        known = len(self._scheme_of)
        if known == len(cells):
            return
        keys = cast("list[tuple[SchemeName, str]]", list(cells.codes)[known:])
        for scheme_name, geocode in keys:
            trie = self.tries.setdefault(scheme_name, pygtrie.CharTrie())
            if scheme_name not in self._order:
                self._order.append(scheme_name)
            trie[geocode] = cells.codes[scheme_name, geocode]
        added = [self._order.index(scheme_name) for scheme_name, _ in keys]
        self._scheme_of = np.concatenate([self._scheme_of, np.array(added, dtype=np.int8)])
        self._sorted = None

    def codes(self) -> Iterator[tuple[tuple[SchemeName, str], int]]:
        """Every cell of the tries with its code."""
        for scheme_name, trie in self.tries.items():
            for geocode, code in trie.iteritems():
                yield (scheme_name, geocode), code

    def _prefix_range(self, prefix: str, geocodes: npt.NDArray[np.object_]) -> tuple[int, int]:
        """Ranks (as Interner.ranks gives them) of the geocodes under a prefix."""
        if self._sorted is None:
            self._sorted = sorted(set(geocodes.tolist()))
        ordered = self._sorted
        # Geocodes are ASCII: no character of one sorts after U+007F.
        return bisect_left(ordered, prefix), bisect_left(ordered, prefix + "\x7f")

    def under(self, prefix: str, *, recursive: bool, cells: Interner) -> npt.NDArray[np.bool_]:
        """Mask over cell codes: under `prefix`, or (not recursive) exactly that cell."""
        self.extend(cells)
        if not recursive:
            mask = np.zeros(len(cells), dtype=np.bool_)
            for scheme_name in self.tries:
                code = cells.codes.get((scheme_name, prefix))
                if code is not None:
                    mask[code] = True
            return mask
        low, high = self._prefix_range(prefix, cells.values())
        ranks = cells.ranks()
        return (ranks >= low) & (ranks < high)

    def matching(
        self, region: Region, codes: npt.NDArray[np.integer[Any]], cells: Interner
    ) -> npt.NDArray[np.bool_]:
        """Which of the cells `codes` match `region`, each tested by itself."""
        self.extend(cells)
        geocodes = cells.values()
        mask = np.zeros(len(codes), dtype=np.bool_)
        for i, scheme_name in enumerate(self._order):
            own = self._scheme_of[codes] == i
            if own.any():
                texts = geocodes[codes[own]].tolist()
                mask[own] = region.matches_many(scheme(scheme_name), texts)
        return mask

    def overlapping(self, region: Region, cells: Interner) -> tuple[npt.NDArray[np.bool_], int]:
        """(mask over cell codes that match `region`, boxes that were tested on the way)."""
        self.extend(cells)
        mask = np.zeros(len(cells), dtype=np.bool_)
        tested = 0
        for i, scheme_name in enumerate(self._order):
            descent = _Descent(region, scheme(scheme_name))
            self.tries[scheme_name].traverse(descent.visit)
            tested += descent.tested
            unsure = np.array(descent.unsure, dtype=np.int64)
            mask[unsure[self.matching(region, unsure, cells)]] = True
            if descent.inside:
                marked = np.zeros(len(cells), dtype=np.bool_)
                for prefix in descent.inside:
                    low, high = self._prefix_range(prefix, cells.values())
                    marked[low:high] = True
                mask |= marked[cells.ranks()] & (self._scheme_of == i)
        return mask, tested


class _Descent:
    """One walk of a region down one scheme's trie."""

    def __init__(self, region: Region, grid: Scheme) -> None:
        self.region = region
        self.grid = grid
        self.inside: list[str] = []
        """Prefixes under which every cell matches."""
        self.unsure: list[int] = []
        """Codes of cells that must be asked about exactly."""
        self.tested = 0

    def visit(
        self,
        path_of: Callable[[Any], str],
        path: Any,
        children: Iterable[None],
        code: int | None = None,
    ) -> None:
        geocode = path_of(path)
        if geocode:
            self.tested += 1
            relation = self.region.relation(self.grid.bounds(geocode))
            if relation is Relation.OUTSIDE:
                return
            if relation is Relation.INSIDE:
                self.inside.append(geocode)
                return
            if code is not None:
                self.unsure.append(code)
        for _ in children:  # pygtrie visits a child when its turn in this loop comes
            pass
