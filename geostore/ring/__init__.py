"""Where a tile lives: geocode → placement key → slot → nodes. Pure; the same on every node."""

from geostore.ring.moves import MovePlan, SlotMove, SlotRelease, plan_moves
from geostore.ring.ring import (
    NODES_MAX,
    Ring,
    RingNode,
    found_ring,
    with_address,
    with_node_joined,
    with_node_left,
)
from geostore.ring.slots import SLOTS_TOTAL, placement_key, slot_of

__all__ = [
    "NODES_MAX",
    "SLOTS_TOTAL",
    "MovePlan",
    "Ring",
    "RingNode",
    "SlotMove",
    "SlotRelease",
    "found_ring",
    "placement_key",
    "plan_moves",
    "slot_of",
    "with_address",
    "with_node_joined",
    "with_node_left",
]
