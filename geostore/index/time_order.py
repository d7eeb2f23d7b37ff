"""Rows of a table of cells once more: piece by piece of the curve, and in a piece by time.

A box and a span of time together leave few rows where each alone leaves many. So the Z-order curve
(G. Morton 1966) is cut into pieces of like size, squares of cells, and the rows of each piece lie
in the order of their starts: of the pieces that a box meets only those rows are read that may lie
in the span. An interval that is longer than nine of ten would widen every search, so the longest
lie at their piece's end, apart, and all of them are read.

Times are kept in units of some four seconds, rounded down, so what is found are all rows that may
match and a few that do not: the caller tests them.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from geostore.errors import InternalError
from geostore.index.once import once

__all__ = ["Pieces", "TimeOrder"]

Codes = npt.NDArray[np.uint64]
Times = npt.NDArray[np.int64]
Ranks = npt.NDArray[np.int32]

PIECE_BITS_MIN: Final = 8
"""Bits of a code below a piece: no fewer than 16 x 16 cells."""
PIECE_ROWS: Final = 192
"""Rows of a piece that has any, in the mean, at least: looking one up costs as much as reading
some fifty.
"""
PIECES_BITS_MAX: Final = 30
PIECES_SEARCHED: Final = 16
"""Pieces that are searched one by one; more are by arithmetic on arrays."""
SHORT_FRACTION: Final = 0.9
"""Of all intervals, those that are searched by their start."""
SPAN_FRACTION: Final = 4
"""A span of more than this part of the time in which most rows lie leaves too many of them."""
MOMENT_BITS: Final = 22
"""Of a time in microseconds, below a moment's unit: 32 bits then span 570 years around 1970."""

_MOMENT_MAX: Final = (1 << 32) - 1
_MOMENT_HALF: Final = 1 << 31
_IS_LONG: Final = 32
_PIECE: Final = 33
"""Where in a key the bit of long intervals lies, and the piece's code: below is the moment."""


def _moment(time_us: int) -> int:
    """A time in a moment's units; it orders as times do, or ties."""
    return min(max((time_us >> MOMENT_BITS) + _MOMENT_HALF, 0), _MOMENT_MAX)


@dataclass(frozen=True, slots=True)
class Pieces:
    """The pieces of one place, or those that have rows if they are few."""

    total: int
    runs: tuple[tuple[int, int, int], ...]
    """Of few: the key at which a piece begins, the ranks [first, end) of its short intervals."""
    edges: Codes | None
    """Of many: the keys at which each begins, twice over, uint64 (2, pieces)."""
    long: tuple[tuple[int, int], ...]
    """Ranks of the long intervals of each, none empty."""


class TimeOrder:
    """The rows of one table whose time is known. Never changes; 12 bytes a row.

    Built in O(n log n); found are rows of k pieces in O(k log n + rows).
    """

    def __init__(self, codes: Codes, bits: int, starts: Times, ends: Times, known: Times) -> None:
        """Of a table's rows `known`, by codes (of so many bits, in order) and times of all."""
        codes, starts = codes[known], starts[known]
        lengths = ends[known] - starts
        self.reach_us = 0
        """No interval but those that are kept apart is longer."""
        self.span_max_us = 0
        """Of longer spans a search is of no use."""
        if len(known):
            last = len(known) - 1
            order = (last * 5 // 100, last - last * 5 // 100)
            early, late = np.partition(starts, order)[list(order)].tolist()
            self.span_max_us = (late - early) // SPAN_FRACTION
            rank = int(SHORT_FRACTION * last)
            self.reach_us = max(0, int(np.partition(lengths, rank)[rank]))
        self.bits = max(_piece_bits(codes, bits), bits - PIECES_BITS_MAX)
        moments = np.clip((starts >> MOMENT_BITS) + _MOMENT_HALF, 0, _MOMENT_MAX)
        keys = codes >> np.uint64(self.bits) << np.uint64(_PIECE)
        keys |= (lengths > self.reach_us).astype(np.uint64) << np.uint64(_IS_LONG)
        keys |= moments.astype(np.uint64)
        by_key = np.argsort(keys)
        self.keys: Codes = keys[by_key]
        """Piece, whether the interval is long, and the moment of its start; sorted."""
        self.ranks: Ranks = known[by_key].astype(np.int32)
        """Rows of the table, in the order of the keys."""

    @once
    def _numbers(self) -> memoryview:
        """The keys, one by one: a search among a few hundred is done before numpy begins."""
        return self.keys.data

    def pieces(self, codes: list[int]) -> Pieces:
        """Those of some codes of pieces, which are in order."""
        base = np.array(codes, np.uint64) << np.uint64(_PIECE)
        after = np.array([[0], [1 << _IS_LONG], [1 << _PIECE]], np.uint64)
        firsts, middles, ends = self.keys.searchsorted(base + after).tolist()
        long = tuple(edge for edge in zip(middles, ends, strict=True) if edge[0] < edge[1])
        if len(codes) > PIECES_SEARCHED:
            return Pieces(len(codes), (), np.stack([base, base]), long)
        runs = zip(base.tolist(), firsts, middles, strict=True)
        return Pieces(len(codes), tuple(run for run in runs if run[1] < run[2]), None, long)

    def during(self, pieces: Pieces, first_us: int, last_us: int) -> Ranks:
        """Rows of the table that lie in some pieces and whose interval may overlap first..last:
        all that do, and some that do not. In no order.
        """
        ranks = self.ranks
        first, after = _moment(first_us - self.reach_us), _moment(last_us) + 1
        parts = [ranks[start:end] for start, end in pieces.long]
        if pieces.edges is None:
            numbers = self._numbers
            for key, begin, end in pieces.runs:
                low = bisect_left(numbers, key + first, begin, end)
                high = bisect_left(numbers, key + after, low, end)
                if low < high:
                    parts.append(ranks[low:high])
        else:
            span = np.array([[first], [after]], np.uint64)
            starts, ends = self.keys.searchsorted(pieces.edges + span)
            parts.append(ranks[_indices(starts, ends - starts)])
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else ranks[:0]

    def check(self, known: Times) -> None:
        """Raises InternalError where the rows are not these, each once, or not in order."""
        if not np.array_equal(np.sort(self.ranks), known):
            raise InternalError("rows by piece and time are not all rows whose time is known")
        if (self.keys[1:] < self.keys[:-1]).any():
            raise InternalError("rows by piece and time are not in order")


def _piece_bits(codes: Codes, bits: int) -> int:
    """Bits of a code below pieces that are no smaller than they should be."""
    # Pieces that have rows: one more than places where neighbours differ above those bits.
    differ = np.frexp((codes[1:] ^ codes[:-1]).astype(np.float64))[1]
    from_bits = np.bincount(differ, minlength=bits + 1)[::-1].cumsum()[::-1]
    below = min(PIECE_BITS_MIN, bits)
    while below < bits and PIECE_ROWS * (1 + int(from_bits[below + 1])) > len(codes):
        below += 1
    return below


def _indices(starts: npt.NDArray[np.intp], lengths: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """start, start + 1, ... of each range, one after another."""
    ends = np.cumsum(lengths)
    found: npt.NDArray[Any] = np.repeat(starts - ends + lengths, lengths)
    found += np.arange(len(found))
    return found
