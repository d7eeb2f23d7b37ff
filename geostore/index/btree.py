"""A B+-tree over numbers whose leaves are sorted numpy arrays.

Entries are (key, payload) pairs in the order of both; a key may occur often, a pair once. A tree
never changes: `insert` and `delete` give a new one that shares all untouched nodes with the old
(path copying), so a reader keeps the tree that it began with while a writer goes on. Nodes know
how many entries lie below them: a range is counted, and its n-th entry found, by walking down.

With n entries, leaves of B and inner nodes of F: rank, count and the begin of a scan O(log n);
a scan returns slices of leaves, O(entries / B) of them; a sorted batch of m entries O(m + leaves
touched x B) and, where it is no small part of the tree, O(n + m) by building anew.

D. Comer, The Ubiquitous B-Tree, ACM Computing Surveys 11 (1979); path copying: J. Driscoll, N.
Sarnak, D. Sleator, R. Tarjan, Making Data Structures Persistent, JCSS 38 (1989).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from geostore.errors import InternalError, InvalidInputError

__all__ = ["BPlusTree", "Keys", "Payload"]

_LEAST: Final = -(1 << 63)
_MOST: Final = (1 << 63) - 1

Keys = npt.NDArray[Any]
Payload = npt.NDArray[np.int64]

LEAF_MAX: Final = 512
"""Entries of a leaf: a search in one takes a microsecond, a copy of one two."""
FANOUT_MAX: Final = 128
LEAF_FILL: Final = 384
"""Of leaves that are built anew: room for what comes between."""
REBUILD_FRACTION: Final = 4
"""A batch of more than a quarter of the tree builds it anew."""


@dataclass(frozen=True, slots=True)
class _Leaf:
    keys: Keys
    payload: Payload

    @property
    def count(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class _Inner:
    """Children in order, with the first entry of each and how many entries end with it."""

    children: tuple[_Node, ...]
    keys: Keys
    payload: Payload
    ends: npt.NDArray[np.int64]

    @property
    def count(self) -> int:
        return int(self.ends[-1])


_Node = _Leaf | _Inner


def _leaf(keys: Keys, payload: Payload) -> _Leaf:
    keys.setflags(write=False)
    payload.setflags(write=False)
    return _Leaf(keys, payload)


def _inner(children: Sequence[_Node], dtype: np.dtype[Any]) -> _Inner:
    return _Inner(
        tuple(children),
        np.array([child.keys[0] for child in children], dtype),
        np.array([child.payload[0] for child in children], np.int64),
        np.cumsum([child.count for child in children], dtype=np.int64),
    )


def _pieces(total: int, most: int, fill: int) -> list[slice]:
    """`total` things in runs of like size: one where they fit `most`, else of about `fill`."""
    parts = 1 if total <= most else -(-total // fill)
    edges = [total * number // parts for number in range(parts + 1)]
    return [slice(low, high) for low, high in pairwise(edges)]


def _leaves(keys: Keys, payload: Payload) -> list[_Node]:
    """Leaves over sorted pairs: slices of these arrays, which are theirs from now on."""
    if not len(keys):
        return []
    return [_leaf(keys[run], payload[run]) for run in _pieces(len(keys), LEAF_MAX, LEAF_FILL)]


def _flat(node: _Node) -> tuple[Keys, Payload]:
    """All entries below a node."""
    if isinstance(node, _Leaf):
        return node.keys, node.payload
    every = [_flat(child) for child in node.children]
    return np.concatenate([one for one, _ in every]), np.concatenate([one for _, one in every])


def _grouped(children: Sequence[_Node], dtype: np.dtype[Any]) -> list[_Node]:
    """Inner nodes over children that are too many for one."""
    return [
        _inner(children[run], dtype)
        for run in _pieces(len(children), FANOUT_MAX, 3 * FANOUT_MAX // 4)
    ]


def _merged(keys: Keys, payload: Payload, more: Keys, own: Payload) -> tuple[Keys, Payload]:
    """Two sorted runs of pairs as one."""
    after = np.searchsorted(keys, more, "right")
    ties = np.flatnonzero(after > np.searchsorted(keys, more, "left"))
    if (payload[after[ties] - 1] > own[ties]).any():  # among the same key, not behind all others
        return _in_order(np.concatenate([keys, more]), np.concatenate([payload, own]))
    places = after + np.arange(len(more))
    is_old = np.ones(len(keys) + len(more), np.bool_)
    is_old[places] = False
    merged, with_it = np.empty(len(is_old), keys.dtype), np.empty(len(is_old), np.int64)
    merged[places], with_it[places] = more, own
    merged[is_old], with_it[is_old] = keys, payload
    return merged, with_it


def _in_order(keys: Keys, payload: Payload) -> tuple[Keys, Payload]:
    order = np.lexsort((payload, keys))
    return keys[order], payload[order]


@dataclass(frozen=True, slots=True)
class BPlusTree:
    """Pairs of a key (int64, or float32 without NaN) and a payload (int64), sorted."""

    dtype: np.dtype[Any]
    root: _Node | None = None

    @classmethod
    def of(cls, keys: Keys, payload: npt.NDArray[np.integer[Any]]) -> Self:
        """A tree of pairs in any order.

        Raises:
            InvalidInputError: keys of another type, NaN, arrays of unlike length, a pair twice.
        """
        return cls(np.dtype(keys.dtype)).insert(keys, payload)

    @classmethod
    def of_sorted(cls, keys: Keys, payload: Payload) -> Self:
        """A tree over distinct pairs that are in order already, and are its own from now on.

        The leaves are slices of these arrays, which may be a file's. O(n / leaf).
        """
        return cls(np.dtype(keys.dtype))._over(_leaves(keys, payload))  # noqa: SLF001 - its own

    def __len__(self) -> int:
        return 0 if self.root is None else self.root.count

    # ------------------------------------------------------------ reading

    def rank(self, key: float, *, after: bool = False) -> int:
        """How many entries have a smaller key (`after`: a smaller one or this)."""
        node, passed, side = self.root, 0, "right" if after else "left"
        wanted = self._key(key)
        while isinstance(node, _Inner):
            # Equal keys may begin in the child before the first one that starts with them.
            child = int(node.keys.searchsorted(wanted, side)) - 1  # type: ignore[call-overload]
            if child < 0:
                return passed
            passed += int(node.ends[child - 1]) if child else 0
            node = node.children[child]
        if node is None:
            return 0
        return passed + int(node.keys.searchsorted(wanted, side))  # type: ignore[call-overload]

    def _key(self, key: float) -> Any:
        if self.dtype.kind == "i":
            key = min(max(key, _LEAST), _MOST)
        return self.dtype.type(key)

    def range(self, low: float | None, high: float | None) -> tuple[int, int]:
        """Ranks [first, end) of the entries with low <= key <= high; None: no bound."""
        first = 0 if low is None else self.rank(low)
        end = len(self) if high is None else self.rank(high, after=True)
        return first, max(first, end)

    def count(self, low: float | None, high: float | None) -> int:
        """Entries with low <= key <= high; none of them is visited."""
        first, end = self.range(low, high)
        return end - first

    def slices(
        self, first: int = 0, end: int | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[Keys, Payload]]:
        """Entries of ranks [first, end) as slices of leaves, which nobody may change.

        `reverse`: from the last to the first, each slice as well.
        """
        end = len(self) if end is None else min(end, len(self))
        if self.root is not None and first < end:
            yield from _slices(self.root, max(0, first), end, reverse=reverse)

    def key_at(self, rank: int) -> Any:
        """The key of the entry with so many before it; O(log n)."""
        node = self.root
        assert node is not None, "the tree has that entry"
        while isinstance(node, _Inner):
            child = int(node.ends.searchsorted(rank, "right"))
            rank -= int(node.ends[child - 1]) if child else 0
            node = node.children[child]
        return node.keys[rank].item()

    def payload(self, first: int = 0, end: int | None = None) -> Payload:
        """Payload of ranks [first, end), in order; a new array."""
        node, low, high = self.root, max(0, first), len(self) if end is None else end
        while isinstance(node, _Inner):  # most pieces are short, and lie in one leaf
            child = int(node.ends.searchsorted(low, "right"))
            if child == len(node.children) or high > node.ends[child]:
                break
            before = int(node.ends[child - 1]) if child else 0
            node, low, high = node.children[child], low - before, high - before
        if isinstance(node, _Leaf):
            return node.payload[low:high].copy()
        parts = [payload for _, payload in self.slices(first, end)]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    # ------------------------------------------------------------ new trees

    def insert(self, keys: Keys, payload: npt.NDArray[np.integer[Any]]) -> Self:
        """With these pairs too, which may come in any order.

        Raises:
            InvalidInputError: as `of`, and where one of the pairs is there already.
        """
        keys, pairs = self._checked(keys, payload)
        if not len(keys):
            return self
        if self.root is None or REBUILD_FRACTION * len(keys) > len(self):
            if self.root is not None:
                keys, pairs = _merged(*_flat(self.root), keys, pairs)
                _check_distinct(keys, pairs)
            return self._over(_leaves(keys, pairs))
        return self._over(_inserted(self.root, keys, pairs, self.dtype))

    def delete(self, keys: Keys, payload: npt.NDArray[np.integer[Any]]) -> Self:
        """Without these pairs; those that are not there are passed over."""
        keys, pairs = self._checked(keys, payload)
        if self.root is None or not len(keys):
            return self
        return self._over(_deleted(self.root, keys, pairs, self.dtype))

    def _checked(self, keys: Keys, payload: npt.NDArray[np.integer[Any]]) -> tuple[Keys, Payload]:
        if keys.dtype != self.dtype or self.dtype not in (np.int64, np.float32):
            raise InvalidInputError(
                f"keys of {keys.dtype} for a tree of {self.dtype}: expected int64 or float32"
            )
        if keys.shape != payload.shape or keys.ndim != 1:
            raise InvalidInputError(f"{keys.shape} keys for a payload of {payload.shape}")
        if self.dtype.kind == "f" and np.isnan(keys).any():
            raise InvalidInputError("a key is NaN, which has no place in an order")
        keys, pairs = _in_order(keys, payload.astype(np.int64))
        _check_distinct(keys, pairs)
        return keys, pairs

    def _over(self, nodes: list[_Node]) -> Self:
        while len(nodes) > 1:
            nodes = _grouped(nodes, self.dtype)
        root = nodes[0] if nodes else None
        while isinstance(root, _Inner) and len(root.children) == 1:
            root = root.children[0]
        return type(self)(self.dtype, root)

    def check(self) -> None:
        """Raises InternalError where the tree is not what it should be: for tests."""
        if self.root is not None:
            _check(self.root)
            every = list(self.slices())
            _check_distinct(
                np.concatenate([keys for keys, _ in every]),
                np.concatenate([own for _, own in every]),
            )


def _is_like_next(keys: Keys, payload: Payload) -> npt.NDArray[np.bool_]:
    """Of each pair but the last, whether the next one is the same."""
    same: npt.NDArray[np.bool_] = (keys[1:] == keys[:-1]) & (payload[1:] == payload[:-1])
    return same


def _check_distinct(keys: Keys, payload: Payload) -> None:
    """Raises InvalidInputError: sorted pairs that hold one twice."""
    twice = _is_like_next(keys, payload)
    if twice.any():
        at = int(np.flatnonzero(twice)[0])
        raise InvalidInputError(f"the pair ({keys[at]}, {payload[at]}) is there twice")


def _slices(node: _Node, first: int, end: int, *, reverse: bool) -> Iterator[tuple[Keys, Payload]]:
    if isinstance(node, _Leaf):
        keys, payload = node.keys[first:end], node.payload[first:end]
        yield (keys[::-1], payload[::-1]) if reverse else (keys, payload)
        return
    low = int(node.ends.searchsorted(first, "right"))
    high = int(node.ends.searchsorted(end, "left")) + 1
    numbers = range(low, min(high, len(node.children)))
    for number in reversed(numbers) if reverse else numbers:
        before = int(node.ends[number - 1]) if number else 0
        child = node.children[number]
        yield from _slices(
            child, max(0, first - before), min(child.count, end - before), reverse=reverse
        )


def _shares(node: _Inner, keys: Keys, payload: Payload) -> list[tuple[int, slice]]:
    """Which children a sorted batch touches, and the part of it that belongs to each."""
    edges = np.searchsorted(keys, node.keys[1:], "left")
    ties = np.searchsorted(keys, node.keys[1:], "right")
    for at in np.flatnonzero(edges < ties).tolist():  # the batch has that key: payload decides
        own = payload[edges[at] : ties[at]]
        edges[at] += np.searchsorted(own, node.payload[at + 1], "left")
    bounds = np.concatenate([[0], edges, [len(keys)]])
    touched = np.flatnonzero(bounds[1:] > bounds[:-1])
    return [(at, slice(int(bounds[at]), int(bounds[at + 1]))) for at in touched.tolist()]


def _replaced(node: _Inner, new: dict[int, list[_Node]], dtype: np.dtype[Any]) -> list[_Node]:
    """A node with other children in the places of some: one where their number stays."""
    if any(len(nodes) != 1 for nodes in new.values()):
        children = [child for at, old in enumerate(node.children) for child in new.get(at, (old,))]
        return _grouped(children, dtype)
    kept = list(node.children)
    keys, payload, counts = node.keys.copy(), node.payload.copy(), np.diff(node.ends, prepend=0)
    for at, (child,) in new.items():
        kept[at] = child
        keys[at], payload[at], counts[at] = child.keys[0], child.payload[0], child.count
    return [_Inner(tuple(kept), keys, payload, np.cumsum(counts))]


def _inserted(node: _Node, keys: Keys, payload: Payload, dtype: np.dtype[Any]) -> list[_Node]:
    """What takes the node's place: nodes of its height."""
    if isinstance(node, _Leaf):
        merged = _merged(node.keys, node.payload, keys, payload)
        _check_distinct(*merged)
        return _leaves(*merged)
    if isinstance(node.children[0], _Leaf) and 4 * len(keys) > len(node.children):
        merged = _merged(*_flat(node), keys, payload)  # most leaves would be touched one by one
        _check_distinct(*merged)
        return _grouped(_leaves(*merged), dtype)
    new = {
        at: _inserted(node.children[at], keys[share], payload[share], dtype)
        for at, share in _shares(node, keys, payload)
    }
    return _replaced(node, new, dtype)


def _deleted(node: _Node, keys: Keys, payload: Payload, dtype: np.dtype[Any]) -> list[_Node]:
    """What takes the node's place, nothing where all is gone; nodes of its height."""
    if isinstance(node, _Leaf):
        kept = _without(node, keys, payload)
        return [node] if kept.all() else _leaves(node.keys[kept], node.payload[kept])
    new = {
        at: _deleted(node.children[at], keys[share], payload[share], dtype)
        for at, share in _shares(node, keys, payload)
    }
    if all(len(nodes) == 1 and _is_half_full(nodes[0]) for nodes in new.values()):
        return _replaced(node, new, dtype)
    children: list[_Node] = []
    for at, old in enumerate(node.children):
        children += new.get(at, [old])
    children = _filled(children, dtype)
    return _grouped(children, dtype) if children else []


def _is_half_full(node: _Node) -> bool:
    if isinstance(node, _Leaf):
        return 2 * node.count >= LEAF_MAX
    return 2 * len(node.children) >= FANOUT_MAX


def _without(node: _Leaf, keys: Keys, payload: Payload) -> npt.NDArray[np.bool_]:
    """Which entries of a leaf are not among these pairs, each of which is there once."""
    every, own = np.concatenate([node.keys, keys]), np.concatenate([node.payload, payload])
    order = np.lexsort((np.arange(len(every)), own, every))  # a leaf's entry before its like
    gone = np.zeros(len(every), np.bool_)
    gone[order[:-1]] = _is_like_next(every[order], own[order])
    return ~gone[: node.count]


def _filled(children: list[_Node], dtype: np.dtype[Any]) -> list[_Node]:
    """Neighbours that fill no more than half a node together become one."""
    made: list[_Node] = []
    for child in children:
        last = made[-1] if made else None
        both: _Node | None = None
        if isinstance(child, _Leaf) and isinstance(last, _Leaf):
            if 2 * (child.count + last.count) <= LEAF_MAX:
                keys = np.concatenate([last.keys, child.keys])
                both = _leaf(keys, np.concatenate([last.payload, child.payload]))
        elif isinstance(child, _Inner) and isinstance(last, _Inner):
            children_of_both = [*last.children, *child.children]
            if 2 * len(children_of_both) <= FANOUT_MAX:
                both = _inner(children_of_both, dtype)
        if both is None:
            made.append(child)
        else:
            made[-1] = both
    return made


def _check(node: _Node) -> int:
    """The node's height."""
    if isinstance(node, _Leaf):
        if not 0 < node.count <= LEAF_MAX or len(node.payload) != node.count:
            raise InternalError(f"a leaf of {node.count} entries")
        order = np.lexsort((node.payload, node.keys))
        if (order != np.arange(node.count)).any():
            raise InternalError("a leaf out of order")
        return 0
    if not 0 < len(node.children) <= FANOUT_MAX:
        raise InternalError(f"an inner node of {len(node.children)} children")
    heights = {_check(child) for child in node.children}
    if len(heights) != 1:
        raise InternalError(f"children of heights {sorted(heights)}")
    if node.ends.tolist() != np.cumsum([child.count for child in node.children]).tolist():
        raise InternalError("counts that are not the children's")
    firsts = [(child.keys[0], child.payload[0]) for child in node.children]
    if firsts != list(zip(node.keys, node.payload, strict=True)) or firsts != sorted(firsts):
        raise InternalError("first entries that are not the children's, or out of order")
    for left, right in pairwise(node.children):
        if _last(left) >= (right.keys[0], right.payload[0]):
            raise InternalError("children that overlap")
    return heights.pop() + 1


def _last(node: _Node) -> tuple[Any, Any]:
    while isinstance(node, _Inner):
        node = node.children[-1]
    return node.keys[-1], node.payload[-1]
