"""A store's sizes from its nodes': every tile once, whoever is down."""

from __future__ import annotations

import numpy as np
import pytest

from geostore.errors import InvalidInputError
from geostore.node.store_sizes import counted_once
from geostore.ring import SLOTS_TOTAL, Ring, RingNode, found_ring, with_node_joined
from geostore.types import SlotSizes, StoreSizes

TILES = np.random.default_rng(7).integers(0, 4, SLOTS_TOTAL)
"""Tiles of each slot; a tile of slot s has s + 1 bytes."""


def ring_of(nodes: int, replicas: int) -> Ring:
    ring = found_ring(RingNode("n1", "n1", "a:1"), cluster_id="c", replicas=replicas)
    for number in range(2, nodes + 1):
        ring = with_node_joined(ring, RingNode(f"n{number}", f"n{number}", "a:1"), None)
    return ring


def answer(ring: Ring, node_id: str) -> SlotSizes:
    slots = [slot for slot in ring.slots_of(node_id).tolist() if TILES[slot]]
    return SlotSizes(
        slots=tuple(slots),
        tiles=tuple(int(TILES[slot]) for slot in slots),
        bytes=tuple(int(TILES[slot]) * (slot + 1) for slot in slots),
    )


def expected(ring: Ring, down: set[str]) -> StoreSizes:
    """By counting slot after slot."""
    known = [
        slot for slot in range(SLOTS_TOTAL) if {node.id for node in ring.replicas_of(slot)} - down
    ]
    return StoreSizes(
        tiles=int(sum(TILES[slot] for slot in known)),
        bytes=int(sum(TILES[slot] * (slot + 1) for slot in known)),
        slots_used=sum(TILES[slot] > 0 for slot in known),
        slots_missing=SLOTS_TOTAL - len(known),
    )


@pytest.mark.parametrize("replicas", [1, 2, 3])
@pytest.mark.parametrize("down", [set(), {"n1"}, {"n2", "n4"}, {"n1", "n2", "n3", "n4", "n5"}])
def test_every_tile_is_counted_once(replicas: int, down: set[str]) -> None:
    ring = ring_of(5, replicas)
    answers = {node.id: answer(ring, node.id) for node in ring.nodes if node.id not in down}
    sizes = counted_once(ring, answers)
    assert sizes == expected(ring, down)
    if len(down) < replicas:
        assert (sizes.tiles, sizes.slots_missing) == (int(TILES.sum()), 0)


@pytest.mark.parametrize(
    ("lists", "text"),
    [
        (((1, 2), (1,), (1, 2)), "expected as many"),
        (((2, 1), (1, 1), (1, 1)), "ascending"),
        (((4096,), (1,), (1,)), "ascending"),
        (((1,), (-1,), (1,)), "negative"),
    ],
)
def test_sizes_that_cannot_be(lists: tuple[tuple[int, ...], ...], text: str) -> None:
    slots, tiles, sizes = lists
    with pytest.raises(InvalidInputError, match=text):
        SlotSizes(slots=slots, tiles=tiles, bytes=sizes)
