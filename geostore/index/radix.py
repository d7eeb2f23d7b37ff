"""A radix trie over packed geocodes: path-compressed, counted, laid over one sorted array.

The entries are packed geocodes (`geostore.index.geocodes`), sorted, each as often as it has rows. A
node stands for a prefix and knows the range of entries under it, so its count is a subtraction and
what it holds is a slice. Chains of single children are one edge (path compression, D. Morrison,
PATRICIA, JACM 15 (1968)). A node of few entries is not split further: below it the array itself is
searched, as in a burst trie (S. Heinz, J. Zobel, H. Williams, ACM TOIS 20 (2002)), so that a
million entries have some ten thousand nodes and not a million.

With n entries of d digits: built in O(n / BUCKET x 2**digit_bits x log n) from a sorted array, all
nodes of a depth at once; a prefix or an exact match O(log n); the longest prefix O(d log n). A walk
looks at a node only if its parent was asked about and neither left out nor taken whole.

A trie never changes. Arrays are as given and must not be changed either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from geostore.errors import InternalError
from geostore.index.geocodes import PackedCells, Packing

__all__ = ["RadixTrie", "RelationOf", "Walk"]

BUCKET: Final = 64
"""Entries below which a node is not split: testing them costs less than looking at children."""

Ranks = npt.NDArray[np.int64]
RelationOf = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64], int], npt.NDArray[np.int8]]
"""(columns, rows, length) of cells to 0 (nothing under it), 1 (some), 2 (all)."""


@dataclass(frozen=True, slots=True)
class Walk:
    """What a region and a trie have in common, as ranges [start, end) of entries."""

    whole: Ranks
    """(n, 2): every entry matches."""
    unsure: Ranks
    """(n, 2): each must be asked about."""
    tested: int
    """Nodes whose cells were compared with the region."""


class RadixTrie:
    """The trie over `keys`: packed geocodes, ascending, repeated as often as they occur."""

    def __init__(self, packing: Packing, keys: PackedCells, *, bucket: int | None = None) -> None:
        self.packing = packing
        self.keys = keys
        self._bucket = BUCKET if bucket is None else bucket
        self._build()

    def __len__(self) -> int:
        return len(self.keys)

    # ------------------------------------------------------------ building

    def _build(self) -> None:
        """All nodes of one generation at once: their children, and those children's prefixes."""
        parts: list[tuple[Ranks, Ranks, Ranks]] = []
        children: list[Ranks] = []
        start, end = np.zeros(1, np.int64), np.full(1, len(self.keys), np.int64)
        if not len(self.keys):
            start = end = np.empty(0, np.int64)
        total = 0
        while len(start):
            depth = self._common_digits(start, end)
            parts.append((start, end, depth))
            total += len(start)
            split = np.flatnonzero((end - start > self._bucket) & ~self._is_one_cell(start, end))
            first = np.full(len(start), -1, np.int64)
            count = np.zeros(len(start), np.int64)
            start, end, owner = self._children(start[split], end[split], depth[split])
            held = np.bincount(owner, minlength=len(split))
            first[split] = total + np.cumsum(held) - held
            count[split] = held
            children.append(np.stack([first, count], axis=1))
        empty = np.empty(0, np.int64)
        self.start, self.end, self.depth = (
            np.concatenate([empty, *(part[i] for part in parts)]) for i in range(3)
        )
        """Of each node: its entries [start, end), and the digits that they share."""
        links = np.concatenate([np.empty((0, 2), np.int64), *children])
        self.first_child, self.child_count = links[:, 0], links[:, 1]
        """Children are neighbours, in order; -1 and 0 where a node is not split."""

    def _common_digits(self, start: Ranks, end: Ranks) -> Ranks:
        """Digits that the first and the last entry of each range share: all between share them."""
        low, high = self.keys[start], self.keys[end - 1]
        lengths = np.minimum(self.packing.lengths(low), self.packing.lengths(high))
        depth = np.zeros(len(start), np.int64)
        for digits in range(1, int(lengths.max(initial=0)) + 1):
            shift = np.uint64(self.packing.shift(digits))
            depth += (low >> shift == high >> shift) & (digits <= lengths) & (depth == digits - 1)
        return depth

    def _is_one_cell(self, start: Ranks, end: Ranks) -> npt.NDArray[np.bool_]:
        same: npt.NDArray[np.bool_] = self.keys[start] == self.keys[end - 1]
        return same

    def _children(self, start: Ranks, end: Ranks, depth: Ranks) -> tuple[Ranks, Ranks, Ranks]:
        """(start, end, which node) of the children of nodes that are split.

        The first child is what ends at the node itself, the others are by their next digit.
        """
        if not len(start):
            return start, end, start
        bits = self.packing.digit_bits
        shift = (np.int64(64 - bits) - depth * bits).astype(np.uint64)
        digits = np.arange(1 << bits, dtype=np.uint64)
        prefix = self.keys[start] >> (shift + np.uint64(bits)) << (shift + np.uint64(bits))
        prefix[depth == 0] = 0
        bounds = prefix[:, None] | (digits[None, :] << shift[:, None])
        own = prefix | (depth + 1).astype(np.uint64)  # behind the entry that ends here
        bounds[:, 0] = own
        edges = np.searchsorted(self.keys, bounds.reshape(-1)).reshape(bounds.shape)
        edges = np.concatenate([start[:, None], edges, end[:, None]], axis=1)
        node, child = np.nonzero(edges[:, 1:] > edges[:, :-1])
        return edges[node, child], edges[node, child + 1], node

    # ------------------------------------------------------------ questions

    def range(self, prefix: str, *, recursive: bool = True) -> tuple[int, int]:
        """Ranks [first, end) of the entries under `prefix`, or (not recursive) of that cell.

        A text that is no geocode of the scheme has none.
        """
        span = self.packing.range_of(prefix, recursive=recursive)
        if span is None:
            return 0, 0
        first, last = np.array(span, dtype=np.uint64)
        return int(self.keys.searchsorted(first)), int(self.keys.searchsorted(last, "right"))

    def count(self, prefix: str, *, recursive: bool = True) -> int:
        """How many entries `range` has; none of them is looked at."""
        first, end = self.range(prefix, recursive=recursive)
        return end - first

    def longest_prefix(self, geocode: str) -> str:
        """The longest beginning of `geocode` that some entry begins with; maybe empty.

        Raises:
            InvalidInputError: not a geocode of the scheme.
        """
        wanted = self.packing.pack(geocode)
        place = int(self.keys.searchsorted(np.uint64(wanted)))
        best = 0
        # What shares most with a text are its neighbours in the order.
        for near in self.keys[max(0, place - 1) : place + 1].tolist():
            most = min(len(geocode), near & self.packing.length_mask)
            shared = best
            while shared < most and (
                near >> self.packing.shift(shared + 1) == wanted >> self.packing.shift(shared + 1)
            ):
                shared += 1
            best = max(best, shared)
        return geocode[:best]

    def walk(self, relation_of: RelationOf) -> Walk:
        """Walks a region down the trie: both from the root, a generation of nodes at a time.

        `relation_of` is asked about the cells of nodes; those it leaves out, or takes whole, are
        not looked below.
        """
        whole, unsure = [np.empty((0, 2), np.int64)], [np.empty((0, 2), np.int64)]
        tested = 0
        nodes = np.arange(min(1, len(self.start)))
        while len(nodes):
            relation = self._relations(nodes, relation_of)
            tested += len(nodes)
            whole.append(self._ranges(nodes[relation == 2]))
            partial = nodes[relation == 1]
            is_leaf = self.child_count[partial] == 0
            unsure.append(self._ranges(partial[is_leaf]))
            inner = partial[~is_leaf]
            counts = self.child_count[inner]
            ends = np.cumsum(counts)
            nodes = np.repeat(self.first_child[inner] - (ends - counts), counts)
            nodes += np.arange(len(nodes))
        return Walk(_joined(whole), _joined(unsure), tested)

    def _ranges(self, nodes: Ranks) -> Ranks:
        return np.stack([self.start[nodes], self.end[nodes]], axis=1)

    def _relations(self, nodes: Ranks, relation_of: RelationOf) -> npt.NDArray[np.int8]:
        relation = np.ones(len(nodes), np.int8)
        depths = self.depth[nodes]
        firsts = self.keys[self.start[nodes]]
        for depth in np.unique(depths).tolist():
            if depth:  # the root without a digit is the whole world
                own = np.flatnonzero(depths == depth)
                columns, rows = self.packing.places(firsts[own], depth)
                relation[own] = relation_of(columns, rows, depth)
        return relation

    # ------------------------------------------------------------ invariants

    def check(self) -> None:
        """Raises InternalError where the trie is not what it should be: for tests."""
        if (self.keys[1:] < self.keys[:-1]).any():
            raise InternalError("radix trie: its entries are not sorted")
        if len(self.keys) and (self.start[0], self.end[0]) != (0, len(self.keys)):
            raise InternalError("radix trie: the root has not all entries")
        for node in range(len(self.start)):
            start, end, depth = int(self.start[node]), int(self.end[node]), int(self.depth[node])
            if start >= end:
                raise InternalError(f"radix trie: node {node} has no entry")
            shared = self.packing.unpack(self.keys[[start, end - 1]])
            if shared[0][:depth] != shared[1][:depth]:
                raise InternalError(f"radix trie: node {node} has entries of two prefixes")
            self._check_children(node, start, end, depth)

    def _check_children(self, node: int, start: int, end: int, depth: int) -> None:
        count = int(self.child_count[node])
        if not count:
            if end - start > self._bucket and self.keys[start] != self.keys[end - 1]:
                raise InternalError(f"radix trie: node {node} is too large for a leaf")
            return
        first = int(self.first_child[node])
        places = slice(first, first + count)
        starts, ends = self.start[places].tolist(), self.end[places].tolist()
        if count < 2 or starts[0] != start or ends[-1] != end or starts[1:] != ends[:-1]:
            raise InternalError(f"radix trie: the children of node {node} are not its entries")
        if (self.depth[places] < depth).any():
            raise InternalError(f"radix trie: a child of node {node} has a shorter prefix")


def _joined(ranges: list[Ranks]) -> Ranks:
    """Ranges in order, neighbours that touch as one."""
    every = np.concatenate(ranges)
    every = every[np.argsort(every[:, 0])]
    if len(every) < 2:
        return every
    begins = np.concatenate([[True], every[1:, 0] != every[:-1, 1]])
    return np.stack(
        [every[begins, 0], np.append(every[np.flatnonzero(begins)[1:] - 1, 1], every[-1, 1])],
        axis=1,
    )
