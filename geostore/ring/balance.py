"""One choice a slot so that loads come out even: the arithmetic under allocation."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

__all__ = ["Choice", "even_out"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

TOLERANCE = 1e-3
"""Weighed loads this close, as a share of the mean load, are even."""

PASSES_MAX = 8
"""Rounds over all pairs of nodes."""

EXCHANGES_MAX = 64
"""Exchanges between two nodes in one round; each but the last few closes half their gap."""

SWAPS_MAX = 256
"""Slots of one node that are compared with those of another."""


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """Each slot chooses one of its options, whose load rises by the slot's weight."""

    options: Bools
    """(slots, nodes), at least one True a row."""
    loads: Floats
    """(nodes,): before any choice. Only differences count; they may be negative."""
    weights: Floats
    """(slots,), above 0."""
    fewest: int = 0
    """How many slots at least choose the last node, as far as they have that option."""

    def __post_init__(self) -> None:
        assert self.options.shape == (len(self.weights), len(self.loads)), self.options.shape
        assert self.options.any(axis=1).all(), "a slot without an option"


def even_out(choice: Choice, *, turn: int) -> Integers:
    """The node each slot chooses, (slots,): loads as even as the options allow.

    `turn` varies which of equally good slots choose what: were it the same at every change,
    the slots that moved last would move again.

    Equal weights: exact, no other choice has a smaller sum of squares. Others: no move and no
    swap between two nodes makes their loads more even, up to a tolerance.
    """
    state = _State(choice)
    if len(choice.weights) == 0:
        return state.chosen
    state.choose_in_order(_scattered(len(choice.weights), turn))
    if np.ptp(choice.weights) == 0.0:
        state.augment()
    else:
        state.exchange()
    return state.chosen


def _scattered(count: int, turn: int) -> Integers:
    """0..count-1 in an order without pattern, so that nodes meet in all combinations.

    A multiplicative hash (Knuth, "The Art of Computer Programming" 3, 6.4), mixed twice.
    """
    keys = np.arange(1, count + 1, dtype=np.uint64) + np.uint64((turn % 2**32) << 16)
    keys *= np.uint64(0x9E3779B97F4A7C15)
    keys ^= keys >> np.uint64(29)
    keys *= np.uint64(0xBF58476D1CE4E5B9)
    keys ^= keys >> np.uint64(32)
    return np.argsort(keys, kind="stable")


class _State:
    """Choices so far and the loads they make."""

    def __init__(self, choice: Choice) -> None:
        self.options = choice.options
        self.weights = choice.weights
        self.fewest = choice.fewest
        self.loads = choice.loads.astype(np.float64)
        self.chosen = np.full(len(choice.weights), -1, dtype=np.int64)

    def choose_in_order(self, order: Integers) -> None:
        """Slot by slot takes its least loaded option: nearly even, in one pass."""
        last, taken = len(self.loads) - 1, 0
        loads, weights = self.loads.tolist(), self.weights.tolist()
        nodes = np.nonzero(self.options)[1].tolist()  # slot by slot
        ends = np.cumsum(np.count_nonzero(self.options, axis=1)).tolist()
        starts = [0, *ends]
        for slot in order.tolist():
            options = nodes[starts[slot] : ends[slot]]
            if taken < self.fewest and options[-1] == last:
                node = last
            else:
                node = min(options, key=loads.__getitem__)
            taken += node == last
            loads[node] += weights[slot]
            self.chosen[slot] = node
        self.loads = np.array(loads)

    def _rechoose(self, slot: int, node: int) -> None:
        self.loads[self.chosen[slot]] -= self.weights[slot]
        self.loads[node] += self.weights[slot]
        self.chosen[slot] = node

    # ------------------------------------------------------------ equal weights
    def augment(self) -> None:
        """Shift one slot along a path from a node to another at least two below, till none is."""
        unit = self.weights[0]
        edges = np.zeros((len(self.loads), len(self.loads)), dtype=np.int64)
        np.add.at(edges, self.chosen, self.options.astype(np.int64))
        for _ in range(4 * len(self.chosen)):
            path = self._path(edges, 1.5 * unit)
            if path is None:
                return
            for node, following in pairwise(path):
                mine = (self.chosen == node) & self.options[:, following]
                slot = int(np.argmax(mine))
                edges[node] -= self.options[slot]
                edges[following] += self.options[slot]
                self._rechoose(slot, following)
        raise AssertionError("loads do not come to rest")

    def _path(self, edges: Integers, gap: float) -> list[int] | None:
        """Nodes from a high one to the lowest within its reach, if `gap` lies between."""
        lowest = self.loads.min()
        settled = np.zeros(len(self.loads), dtype=np.bool_)
        for start in np.argsort(-self.loads, kind="stable").tolist():
            if self.loads[start] - lowest < gap:
                return None
            if settled[start]:
                continue  # in reach of a higher one that reached nothing low enough
            came_from = self._reach(edges, start)
            reached = came_from >= 0
            end = int(np.argmin(np.where(reached, self.loads, np.inf)))
            if self.loads[start] - self.loads[end] >= gap:
                path = [end]
                while path[-1] != start:
                    path.append(int(came_from[path[-1]]))
                return path[::-1]
            settled |= reached
        return None

    def _reach(self, edges: Integers, start: int) -> Integers:
        """The node each was reached from, breadth first; -1: out of reach."""
        came_from = np.full(len(self.loads), -1, dtype=np.int64)
        came_from[start] = start
        queue = [start]
        for node in queue:
            fresh = np.flatnonzero((edges[node] > 0) & (came_from < 0))
            came_from[fresh] = node
            queue.extend(fresh.tolist())
        return came_from

    # ------------------------------------------------------------ weights by bytes
    def exchange(self) -> None:
        """Moves and swaps between a high and a low node, while they help."""
        close = TOLERANCE * abs(float(self.loads.mean()))
        for _ in range(PASSES_MAX):
            helped = False
            for high in np.argsort(-self.loads, kind="stable").tolist():
                for low in np.argsort(self.loads, kind="stable").tolist():
                    if self.loads[high] - self.loads[low] <= close:
                        break
                    for _ in range(EXCHANGES_MAX):
                        if not self._exchange_between(high, low, close):
                            break
                        helped = True
            if not helped:
                return

    def _exchange_between(self, high: int, low: int, close: float) -> bool:
        wanted = (self.loads[high] - self.loads[low]) / 2
        if wanted <= close / 2:
            return False
        down = np.flatnonzero((self.chosen == high) & self.options[:, low])[:SWAPS_MAX]
        if len(down) == 0:
            return False
        up = np.flatnonzero((self.chosen == low) & self.options[:, high])[:SWAPS_MAX]
        back = np.append(self.weights[up], 0.0)  # the last: a move, nothing comes back
        if high == len(self.loads) - 1 and np.count_nonzero(self.chosen == high) <= self.fewest:
            back = back[:-1]
        if len(back) == 0:
            return False
        off = np.abs(self.weights[down][:, None] - back[None, :] - wanted)
        row, column = np.unravel_index(int(np.argmin(off)), off.shape)
        if off[row, column] > wanted - close / 4:
            return False
        self._rechoose(int(down[row]), low)
        if column < len(up):
            self._rechoose(int(up[column]), high)
        return True
