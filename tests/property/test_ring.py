"""Random histories of joins and leaves keep the ring's invariants.

GEOSTORE_RING_FULL=1 has several times the examples that CI has.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from geostore.ring import (
    SLOTS_TOTAL,
    Ring,
    RingNode,
    found_ring,
    plan_moves,
    with_node_joined,
    with_node_left,
)
from geostore.ring.allocation import fair_shares, zone_numbers

IS_FULL = os.environ.get("GEOSTORE_RING_FULL", "") == "1"

Weights = npt.NDArray[np.float64] | None

ZONES = st.sampled_from(["", "a", "b", "c"])
STEPS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1000), ZONES), max_size=14)
WEIGHTS = st.one_of(
    st.none(),
    st.tuples(st.integers(0, 1000), st.sampled_from([0.3, 1.0, 3.0])).map(
        lambda drawn: np.random.default_rng(drawn[0]).lognormal(0, drawn[1], SLOTS_TOTAL)
    ),
)


def _node(number: int, zone: str) -> RingNode:
    return RingNode(f"id-{number}", f"n{number}", f"h:{number}", zone)


def _ids(ring: Ring) -> npt.NDArray[Any]:
    """(4096, copies): node ids in place of their numbers, which a leave shifts."""
    return np.array([node.id for node in ring.nodes])[ring.owners]


def _joined(ring: Ring, node: RingNode, weights: Weights) -> Ring:
    new = with_node_joined(ring, node, weights)
    plan = plan_moves(ring, new)
    assert {move.target for move in plan.moves} == {node.id}
    first_changed = _ids(ring)[:, 0] != _ids(new)[:, 0]
    assert (_ids(new)[first_changed, 0] == node.id).all()
    zones = zone_numbers([each.zone for each in new.nodes])
    share = fair_shares(zones, new.copies, SLOTS_TOTAL)[-1]
    if not any(each.zone for each in new.nodes):
        assert share - SLOTS_TOTAL * new.copies / len(new.nodes) < 1e-6
        assert len(plan.moves) <= 1.05 * share + 1
    if weights is not None and new.copies == ring.copies:
        unforced = len(np.unique(zones)) == len(np.unique(zones[:-1])) or new.copies == 1
        assert not unforced or len(plan.moves) <= 1.05 * share + 1
    return new


def _left(ring: Ring, node_id: str, weights: Weights) -> Ring:
    new = with_node_left(ring, node_id, weights)
    plan = plan_moves(ring, new)
    assert {release.node for release in plan.releases} == {node_id}
    untouched = np.setdiff1d(np.arange(SLOTS_TOTAL), ring.slots_of(node_id))
    if new.copies == ring.copies:
        assert (_ids(ring)[untouched] == _ids(new)[untouched]).all()
    else:  # as many copies as nodes: every slot was the leaver's
        assert len(untouched) == 0
    kept = ring.first_slots_of(node_id)
    others = np.setdiff1d(np.arange(SLOTS_TOTAL), kept)
    assert (_ids(ring)[others, 0] == _ids(new)[others, 0]).all()
    return new


def _counts(ring: Ring) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    all_slots = np.bincount(ring.owners.ravel(), minlength=len(ring.nodes))
    return all_slots, np.bincount(ring.owners[:, 0], minlength=len(ring.nodes))


def _step(ring: Ring, step: tuple[int, int, str], number: int, weights: Weights) -> Ring:
    kind, which, zone = step
    others = [node.id for node in ring.nodes if node.id != ring.founder]
    if kind == 0 and others:
        return _left(ring, others[which % len(others)], weights)
    return _joined(ring, _node(number, zone), weights)


@given(zone=ZONES, replicas=st.integers(1, 3), steps=STEPS, weights=WEIGHTS)
@settings(max_examples=60 if IS_FULL else 8, deadline=None)
def test_zones_weights_joins_and_leaves(
    zone: str, replicas: int, steps: list[tuple[int, int, str]], weights: Weights
) -> None:
    ring = found_ring(_node(0, zone), cluster_id="c", replicas=replicas)
    for number, step in enumerate(steps, 1):
        before = ring
        ring = _step(before, step, number, weights)
        ring.check()
        assert ring.epoch == before.epoch + 1
        assert ring == _step(before, step, number, weights)  # the same input, the same ring
    assert Ring.from_json(json.loads(json.dumps(ring.to_json()))) == ring


@given(replicas=st.integers(1, 3), steps=STEPS)
@settings(max_examples=60 if IS_FULL else 8, deadline=None)
def test_every_node_has_its_fair_share(replicas: int, steps: list[tuple[int, int, str]]) -> None:
    ring = found_ring(_node(0, ""), cluster_id="c", replicas=replicas)
    only_joins = True
    for number, (kind, which, _) in enumerate(steps, 1):
        size = len(ring.nodes)
        ring = _step(ring, (kind, which, ""), number, None)
        only_joins &= len(ring.nodes) > size
        held, first = _counts(ring)
        assert np.abs(held - SLOTS_TOTAL * ring.copies / len(ring.nodes)).max() < 1
        # Only a leaver's slots get a new first replica, from those that hold them.
        fair = SLOTS_TOTAL / len(ring.nodes)
        assert np.abs(first - fair).max() < 1 if only_joins else first.max() <= 1.1 * fair + 1


@given(replicas=st.integers(1, 3), nodes=st.integers(1, 64 if IS_FULL else 32))
@settings(max_examples=20 if IS_FULL else 4, deadline=None)
def test_any_number_of_nodes(replicas: int, nodes: int) -> None:
    ring = found_ring(_node(0, ""), cluster_id="c", replicas=replicas)
    for number in range(1, nodes):
        ring = _joined(ring, _node(number, ""), None)
    ring.check()
    for counts in _counts(ring):
        assert np.ptp(counts) <= 1


@given(nodes=st.integers(2, 12), replicas=st.integers(1, 3), seed=st.integers(0, 1000))
@settings(max_examples=40 if IS_FULL else 5, deadline=None)
def test_bytes_differ_by_less_than_the_largest_slot(nodes: int, replicas: int, seed: int) -> None:
    weights = np.random.default_rng(seed).lognormal(10, 0.5, SLOTS_TOTAL)
    ring = found_ring(_node(0, ""), cluster_id="c", replicas=replicas)
    for number in range(1, nodes):
        ring = _joined(ring, _node(number, ""), weights)
    held = np.array([weights[ring.slots_of(node.id)].sum() for node in ring.nodes])
    first = np.array([weights[ring.first_slots_of(node.id)].sum() for node in ring.nodes])
    assert np.ptp(held) < weights.max()
    assert np.ptp(first) < weights.max()
