from __future__ import annotations

import numpy as np
import pytest

from geostore.ring import (
    SLOTS_TOTAL,
    Ring,
    RingNode,
    found_ring,
    plan_moves,
    with_node_joined,
    with_node_left,
)
from geostore.ring.allocation import fair_shares, slot_weights, zone_numbers, zones_of
from geostore.ring.balance import Choice, even_out


def _grown(zones: list[str], replicas: int, slot_bytes: np.ndarray | None = None) -> Ring:
    ring: Ring | None = None
    for number, zone in enumerate(zones):
        node = RingNode(f"id-{number}", f"n{number}", f"h{number}:1", zone)
        if ring is None:
            ring = found_ring(node, cluster_id="c", replicas=replicas)
        else:
            ring = with_node_joined(ring, node, slot_bytes)
    assert ring is not None
    return ring


def _slots(ring: Ring) -> list[int]:
    return [len(ring.slots_of(node.id)) for node in ring.nodes]


def _held(ring: Ring, weights: np.ndarray) -> np.ndarray:
    return np.array([weights[ring.slots_of(node.id)].sum() for node in ring.nodes])


def test_nodes_without_a_zone_are_zones_of_their_own() -> None:
    assert zone_numbers(["", "a", "", "b", "a"]).tolist() == [0, 1, 2, 3, 1]
    assert zones_of(
        np.array([[0, 1, 2], [1, 4, 3]]), zone_numbers(["", "a", "", "b", "a"])
    ).tolist() == [3, 2]


@pytest.mark.parametrize(
    ("zones", "copies", "expected"),
    [
        (["", "", "", ""], 2, [2048, 2048, 2048, 2048]),
        (["a", "b", "c", "c"], 3, [4096, 4096, 2048, 2048]),  # zones bind from above
        (["a", "b", "b", "b"], 3, [4096, 8192 / 3, 8192 / 3, 8192 / 3]),  # and from below
        (["a", "a", "b", "b"], 2, [2048, 2048, 2048, 2048]),
        (["a", "a", "a", "b", "c"], 2, [4096 / 3] * 3 + [2048, 2048]),
    ],
)
def test_fair_shares(zones: list[str], copies: int, expected: list[float]) -> None:
    shares = fair_shares(zone_numbers(zones), copies, SLOTS_TOTAL)
    assert shares == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("zones", "replicas"),
    [
        (["a", "b", "c", "c"], 3),
        (["a", "a", "a", "b", "b", "c", "c", "d"], 3),
        (["a", "a", "b"], 2),
        (["", "a", "a", "", "b", "b"], 2),
        (["a"] * 5 + ["b"], 3),
    ],
)
def test_zones_are_kept_apart_and_shares_stay_fair(zones: list[str], replicas: int) -> None:
    ring = _grown(zones, replicas)
    ring.check()
    shares = fair_shares(zone_numbers(zones), ring.copies, SLOTS_TOTAL)
    assert np.abs(np.array(_slots(ring)) - shares).max() < 1.0 + 1e-6


def test_a_zone_can_be_lost_whole() -> None:
    ring = _grown(["a", "b", "c", "a", "b", "c"], 3)
    for node in ("id-5", "id-2"):
        ring = with_node_left(ring, node)
        ring.check()
    assert {node.zone for node in ring.nodes} == {"a", "b"}


def test_bytes_are_balanced_where_numbers_are_not() -> None:
    weights = np.random.default_rng(5).lognormal(20, 1.0, SLOTS_TOTAL)
    by_bytes, by_number = _grown([""] * 20, 2, weights), _grown([""] * 20, 2)
    spread, plain = (
        np.std(_held(ring, weights)) / np.mean(_held(ring, weights))
        for ring in (by_bytes, by_number)
    )
    assert spread < 0.005
    assert plain > 5 * spread


def test_a_join_by_bytes_moves_few_slots_although_sizes_differ_wildly() -> None:
    weights = np.random.default_rng(6).lognormal(0, 3.0, SLOTS_TOTAL)
    ring = _grown([""] * 8, 2, weights)
    joined = with_node_joined(ring, RingNode("new", "new", "h:1"), weights)
    assert 0 < len(plan_moves(ring, joined).moves) <= 1.05 * SLOTS_TOTAL * 2 / 9


def test_empty_slots_count_a_little() -> None:
    weights = slot_weights(np.repeat([0.0, 32.0], [4095, 1]), SLOTS_TOTAL)
    assert weights is not None
    assert weights[[0, 4095]].tolist() == [1 / 16, 4096.0]
    assert slot_weights(np.zeros(SLOTS_TOTAL), SLOTS_TOTAL) is None
    assert slot_weights(None, SLOTS_TOTAL) is None
    half_empty = np.repeat([0.0, 1e9], SLOTS_TOTAL // 2)
    ring = _grown([""] * 4, 1, half_empty)
    empties = [np.count_nonzero(half_empty[ring.slots_of(node.id)] == 0) for node in ring.nodes]
    assert min(empties) > 0


def test_a_newcomer_meets_all_others() -> None:
    """Were its slots shared with few, a later failure would load those few."""
    ring = _grown([""] * 10, 2)
    for node in ring.nodes:
        partners = ring.owners[ring.slots_of(node.id)]
        assert np.bincount(partners.ravel(), minlength=10).min() > 30


def test_equal_weights_are_solved_exactly_where_the_greedy_way_is_not() -> None:
    # Two slots can go anywhere, two only to node 0: 2 and 2, whatever comes first.
    options = np.array([[1, 1], [1, 0], [1, 1], [1, 0]], dtype=bool)
    for turn in range(8):
        chosen = even_out(Choice(options, np.zeros(2), np.ones(4)), turn=turn)
        assert np.bincount(chosen).tolist() == [2, 2]
    # Only a chain leads from node 0 to node 3.
    chain = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 0]], dtype=bool)
    for turn in range(8):
        chosen = even_out(Choice(chain, np.zeros(4), np.ones(4)), turn=turn)
        assert sorted(chosen.tolist()) == [0, 1, 2, 3]


def test_a_choice_without_options_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="without an option"):
        Choice(np.zeros((1, 2), dtype=bool), np.zeros(2), np.ones(1))
