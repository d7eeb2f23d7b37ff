"""Where a tile lives: geocode → placement key → slot. Pure functions, the same on every node."""

from geostore.ring.slots import SLOTS_TOTAL, placement_key, slot_of

__all__ = ["SLOTS_TOTAL", "placement_key", "slot_of"]
