"""The B+-tree against a sorted list of pairs, through random batches in and out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sortedcontainers import SortedList

from geostore.errors import InvalidInputError
from geostore.index import btree
from geostore.index.btree import BPlusTree

KEYS = {
    "int64": st.one_of(
        st.integers(-20, 20), st.integers(-(2**63), 2**63 - 1), st.integers(0, 10**6)
    ),
    "float32": st.one_of(
        st.integers(0, 20).map(float), st.floats(0, 100, width=32), st.just(float("-inf"))
    ),
}


@pytest.fixture(autouse=True)
def _small_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small trees are high."""
    monkeypatch.setattr(btree, "LEAF_MAX", 8)
    monkeypatch.setattr(btree, "LEAF_FILL", 6)
    monkeypatch.setattr(btree, "FANOUT_MAX", 4)


def arrays(pairs, dtype: str):
    keys = np.array([key for key, _ in pairs], dtype)
    return keys, np.array([own for _, own in pairs], np.int64)


def contents(tree: BPlusTree) -> list:
    return [
        pair
        for keys, own in tree.slices()
        for pair in zip(keys.tolist(), own.tolist(), strict=True)
    ]


@pytest.mark.parametrize("dtype", ["int64", "float32"])
@settings(max_examples=150)
@given(data=st.data())
def test_any_batches_in_and_out(dtype: str, data: st.DataObject) -> None:
    pair = st.tuples(KEYS[dtype], st.integers(0, 300))
    model: SortedList = SortedList()
    tree = BPlusTree(np.dtype(dtype))
    kept: list[tuple[BPlusTree, list]] = []
    for _ in range(data.draw(st.integers(1, 8))):
        drawn = data.draw(st.lists(pair, max_size=60, unique=True))
        if data.draw(st.booleans()) or not model:
            new = [one for one in drawn if one not in model]
            tree = tree.insert(*arrays(new, dtype))
            model.update(new)
        else:
            count = data.draw(st.integers(0, len(model)))
            first = data.draw(st.integers(0, len(model) - count))
            old = list({*drawn, *model[first : first + count]})
            tree = tree.delete(*arrays(old, dtype))
            for one in old:
                model.discard(one)
        tree.check()
        assert len(tree) == len(model)
        assert contents(tree) == list(model)
        kept.append((tree, list(model)))

        low, high = data.draw(KEYS[dtype]), data.draw(KEYS[dtype])
        wanted = [one for one in model if low <= one[0] <= high]
        assert tree.count(low, high) == len(wanted)
        assert tree.count(None, high) == sum(one[0] <= high for one in model)
        assert tree.count(low, None) == sum(one[0] >= low for one in model)
        first, end = tree.range(low, high)
        assert tree.payload(first, end).tolist() == [own for _, own in wanted]
        backwards = [
            one
            for keys, own in tree.slices(first, end, reverse=True)
            for one in zip(keys.tolist(), own.tolist(), strict=True)
        ]
        assert backwards == wanted[::-1]
    for old_tree, then in kept:  # nobody's tree was changed
        assert contents(old_tree) == then


@pytest.mark.parametrize("dtype", ["int64", "float32"])
@given(data=st.data())
def test_any_part_by_rank(dtype: str, data: st.DataObject) -> None:
    drawn = data.draw(st.lists(st.tuples(KEYS[dtype], st.integers(0, 300)), unique=True))
    tree = BPlusTree.of(*arrays(drawn, dtype))
    first, end = data.draw(st.integers(0, 80)), data.draw(st.integers(0, 80))
    assert tree.payload(first, end).tolist() == [own for _, own in sorted(drawn)[first:end]]


def test_a_pair_is_there_once() -> None:
    tree = BPlusTree.of(np.arange(100), np.arange(100))
    for of in (tree, BPlusTree(np.dtype(np.int64))):
        with pytest.raises(InvalidInputError, match=r"the pair \(7, 7\) is there twice"):
            of.insert(np.array([7, 7]), np.array([7, 7]))
    with pytest.raises(InvalidInputError, match=r"the pair \(7, 7\) is there twice"):
        tree.insert(np.array([7]), np.array([7]))
    assert len(tree.insert(np.array([7]), np.array([8]))) == 101


def test_what_has_no_order_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="NaN"):
        BPlusTree.of(np.array([1.0, np.nan], np.float32), np.array([0, 1]))
    with pytest.raises(InvalidInputError, match="keys of float64"):
        BPlusTree.of(np.array([1.0]), np.array([0]))
    with pytest.raises(InvalidInputError, match="keys of int64 for a tree of float32"):
        BPlusTree(np.dtype(np.float32)).insert(np.array([1]), np.array([0]))
    with pytest.raises(InvalidInputError, match="payload"):
        BPlusTree.of(np.array([1, 2]), np.array([0]))


def test_leaves_cannot_be_written() -> None:
    tree = BPlusTree.of(np.arange(10), np.arange(10))
    for keys, own in tree.slices():
        for part in (keys, own):
            with pytest.raises(ValueError, match="read-only"):
                part[0] = 5


def test_untouched_leaves_are_shared() -> None:
    before = BPlusTree.of(np.arange(1000), np.arange(1000))
    after = before.insert(np.array([500]), np.array([5000]))
    old = {id(keys.base) for keys, _ in before.slices()}
    new = {id(keys.base) for keys, _ in after.slices()}
    assert len(new - old) <= 2
