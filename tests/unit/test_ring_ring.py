from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest

from geostore.errors import ConflictError, InvalidInputError, NotFoundError
from geostore.ring import (
    SLOTS_TOTAL,
    Ring,
    RingNode,
    SlotMove,
    SlotRelease,
    found_ring,
    plan_moves,
    slot_of,
    with_address,
    with_node_joined,
    with_node_left,
)


def _node(number: int, zone: str = "") -> RingNode:
    return RingNode(f"id-{number}", f"node-{number}", f"10.0.0.{number}:7070", zone)


def _ring(nodes: int, replicas: int = 1) -> Ring:
    ring = found_ring(_node(0), cluster_id="c1", replicas=replicas)
    for number in range(1, nodes):
        ring = with_node_joined(ring, _node(number))
    return ring


def test_the_founder_holds_every_slot() -> None:
    ring = found_ring(_node(0), cluster_id="c1", replicas=3)
    ring.check()
    assert (ring.epoch, ring.founder, ring.copies) == (1, "id-0", 1)
    assert ring.slots_of("id-0").tolist() == list(range(SLOTS_TOTAL))
    assert ring.first_of(4095) == _node(0)


def test_every_change_is_one_epoch_and_leaves_the_old_ring() -> None:
    one = found_ring(_node(0), cluster_id="c1", replicas=2)
    two = with_node_joined(one, _node(1))
    moved = with_address(two, "id-1", "elsewhere:1")
    back = with_node_left(moved, "id-1")
    assert [ring.epoch for ring in (one, two, moved, back)] == [1, 2, 3, 4]
    assert moved.node("id-1").address == "elsewhere:1"
    assert two.node("id-1").address == "10.0.0.1:7070"
    assert np.array_equal(moved.owners, two.owners)
    assert back.nodes == one.nodes


def test_questions_agree_with_owners() -> None:
    ring = _ring(5, replicas=3)
    for slot in (0, 1528, 4095):
        names = [ring.nodes[index].id for index in ring.owners[slot]]
        assert [node.id for node in ring.replicas_of(slot)] == names
        assert ring.first_of(slot).id == names[0]
        for node in ring.nodes:
            assert (slot in ring.slots_of(node.id)) == (node.id in names)
            assert (slot in ring.first_slots_of(node.id)) == (node.id == names[0])
    assert ring.record_slot("dataset/s2") == slot_of("dataset/s2")
    assert sum(len(ring.first_slots_of(node.id)) for node in ring.nodes) == SLOTS_TOTAL


def test_copies_grow_with_the_nodes_up_to_what_is_wanted() -> None:
    assert [_ring(nodes, replicas=3).copies for nodes in (1, 2, 3, 4)] == [1, 2, 3, 3]
    assert with_node_left(_ring(3, replicas=3), "id-2").copies == 2


def test_rings_are_equal_by_value() -> None:
    ring = _ring(4, replicas=2)
    assert ring == _ring(4, replicas=2)
    assert hash(ring) == hash(_ring(4, replicas=2))
    assert ring != with_address(ring, "id-1", ring.node("id-1").address)
    assert ring != replace(ring, owners=ring.owners[:, ::-1])
    assert ring != "a ring"


def test_a_ring_cannot_be_changed() -> None:
    ring = _ring(2)
    with pytest.raises(ValueError, match="read-only"):
        ring.owners[0, 0] = 1
    with pytest.raises(FrozenInstanceError):
        ring.epoch = 9  # type: ignore[misc]


def test_a_ring_does_not_share_the_array_it_was_given() -> None:
    owners = np.zeros((SLOTS_TOTAL, 1), dtype=np.uint16)
    ring = Ring("c1", 1, 1, "id-0", (_node(0),), owners)
    owners[7] = 5
    ring.check()


def test_who_cannot_join_leave_or_be_found() -> None:
    ring = _ring(2)
    with pytest.raises(ConflictError, match="'id-1' is in the ring of epoch 2"):
        with_node_joined(ring, _node(1))
    with pytest.raises(NotFoundError, match="no node 'id-9'"):
        with_node_left(ring, "id-9")
    with pytest.raises(InvalidInputError, match="founded"):
        with_node_left(ring, "id-0")
    with pytest.raises(NotFoundError):
        with_address(ring, "id-9", "a:1")
    with pytest.raises(NotFoundError):
        ring.slots_of("id-9")
    for slot in (-1, SLOTS_TOTAL):
        with pytest.raises(InvalidInputError, match=r"expected 0\.\.4095"):
            ring.replicas_of(slot)
        with pytest.raises(InvalidInputError, match=r"expected 0\.\.4095"):
            ring.first_of(slot)


@pytest.mark.parametrize(
    "slot_bytes",
    [np.ones(10), np.full(SLOTS_TOTAL, -1), np.full(SLOTS_TOTAL, np.nan)],
    ids=["short", "negative", "nan"],
)
def test_slot_bytes_are_checked(slot_bytes: Any) -> None:
    with pytest.raises(InvalidInputError, match="slot bytes"):
        with_node_joined(_ring(1), _node(1), slot_bytes)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epoch": 0},
        {"epoch": True},
        {"replicas": 0},
        {"replicas": "2"},
        {"cluster_id": ""},
        {"founder": None},
        {"nodes": ()},
        {"replicas": 2},
        {"owners": np.zeros((7, 1), dtype=np.uint16)},
    ],
    ids=str,
)
def test_fields_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="a ring"):
        replace(_ring(3), **wrong)


def test_a_node_needs_an_id_and_texts() -> None:
    with pytest.raises(InvalidInputError, match="id is ''"):
        RingNode("", "name", "host:1")
    with pytest.raises(InvalidInputError, match="zone is None"):
        RingNode("id", "name", "host:1", None)  # type: ignore[arg-type]


def _with_owner(ring: Ring, place: tuple[int, int], owner: int) -> Ring:
    owners = ring.owners.copy()
    owners[place] = owner
    return replace(ring, owners=owners)


def test_check_finds_what_is_wrong() -> None:
    ring = _ring(4, replicas=2)
    ring.check()
    first, second = ring.owners[77].tolist()
    with pytest.raises(AssertionError, match="holds a slot twice"):
        _with_owner(ring, (77, 1), first).check()
    with pytest.raises(AssertionError, match="number 4 of 4 nodes"):
        _with_owner(ring, (77, 0), 4).check()
    with pytest.raises(AssertionError, match="founder"):
        replace(ring, founder="id-9").check()
    with pytest.raises(AssertionError, match="one id"):
        replace(ring, nodes=(_node(0), _node(1), _node(1), _node(3))).check()
    together = [_node(number, "abcd"[number]) for number in range(4)]
    together[second] = replace(together[second], zone=together[first].zone)
    with pytest.raises(AssertionError, match="stands in 1 zones, not 2"):
        replace(ring, nodes=tuple(together)).check()


def test_json_round_trip_is_compact() -> None:
    ring = with_node_joined(_ring(3, replicas=3), _node(9, "rack-é"))
    text = json.dumps(ring.to_json())
    assert Ring.from_json(json.loads(text)) == ring
    assert len(text) < 34_000
    assert not Ring.from_json(json.loads(text)).owners.flags.writeable


def test_damaged_json_is_refused() -> None:
    whole = _ring(3, replicas=2).to_json()
    for key in whole:
        with pytest.raises(InvalidInputError, match="ring"):
            Ring.from_json({name: part for name, part in whole.items() if name != key})
        with pytest.raises(InvalidInputError, match="ring"):
            Ring.from_json({**whole, key: [whole[key]]})
    with pytest.raises(InvalidInputError, match="checksum"):
        Ring.from_json({**whole, "epoch": whole["epoch"] + 1})
    with pytest.raises(InvalidInputError, match="'geostore-ring/2'"):
        Ring.from_json({**whole, "format": "geostore-ring/2"})
    with pytest.raises(InvalidInputError, match="not a list"):
        Ring.from_json([])
    with pytest.raises(InvalidInputError, match="plain JSON"):
        Ring.from_json({**whole, "epoch": object()})


@pytest.mark.parametrize(
    "wrong",
    [
        {"owners": "AAAA"},
        {"owners": "not base64!"},
        {"owners": 7},
        {"owners": ""},
        {"nodes": [["id-0"]]},
        {"nodes": 3},
        {"founder": "id-9"},
        {"replicas": 1},
        {"epoch": None},
    ],
    ids=str,
)
def test_json_with_a_right_checksum_is_still_checked(wrong: dict[str, Any]) -> None:
    from geostore.ring.ring import _checksum

    value = {**_ring(3, replicas=2).to_json(), **wrong}
    del value["checksum"]
    with pytest.raises(InvalidInputError, match="a (damaged )?ring"):
        Ring.from_json({**value, "checksum": _checksum(value)})


def test_a_plan_names_sources_targets_and_releases() -> None:
    old = _ring(3, replicas=2)
    new = with_node_joined(old, _node(3))
    plan = plan_moves(old, new)
    assert (plan.epoch_from, plan.epoch_to, plan.copies) == (3, 4, 2)
    assert [move.slot for move in plan.moves] == new.slots_of("id-3").tolist()
    assert {move.target for move in plan.moves} == {"id-3"}
    assert len(plan.releases) == len(plan.moves) == 2048
    assert plan.moved_fraction == 0.25
    for move, release in zip(plan.moves, plan.releases, strict=True):
        assert move.slot == release.slot
        assert set(move.sources) == {node.id for node in old.replicas_of(move.slot)}
        assert move.sources[-1] == release.node  # who keeps it is asked first


def test_a_plan_for_a_leave_still_names_the_leaver_as_a_source() -> None:
    old = _ring(2)
    new = with_node_left(old, "id-1")
    plan = plan_moves(old, new)
    slot = int(old.slots_of("id-1")[0])
    assert plan.moves[0] == SlotMove(slot=slot, sources=("id-1",), target="id-0")
    assert plan.releases[0] == SlotRelease(slot=slot, node="id-1")


def test_a_new_address_or_order_moves_nothing() -> None:
    ring = _ring(3, replicas=2)
    for new in (with_address(ring, "id-1", "b:2"), replace(ring, owners=ring.owners[:, ::-1])):
        plan = plan_moves(ring, new)
        assert (plan.moves, plan.releases, plan.moved_fraction) == ((), (), 0.0)


def test_plans_are_between_epochs_of_one_cluster() -> None:
    ring = _ring(2)
    with pytest.raises(InvalidInputError, match="two clusters"):
        plan_moves(ring, replace(ring, cluster_id="c2"))
    with pytest.raises(InvalidInputError, match="from epoch 2 to 1"):
        plan_moves(ring, _ring(1))
