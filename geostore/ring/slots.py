"""Slots: 4096 equal arcs of the SHA-1 ring.

SHA-1 spreads keys evenly; it protects nothing here. After Rammer et al., "Small is
Beautiful: Distributed Orchestration of Spatial Deep Learning Workloads", with equal arcs in
place of random tokens: at 50 nodes their ownership differs by 0.3 % instead of 12 %.
"""

from __future__ import annotations

import hashlib

from geostore.errors import InvalidInputError

__all__ = ["SLOTS_TOTAL", "placement_key", "slot_of"]

SLOT_BITS = 12
SLOTS_TOTAL = 1 << SLOT_BITS


def placement_key(geocode: str, placement: int) -> str:
    """The first `placement` characters of a geocode: what is hashed.

    All cells under one placement key share their nodes.

    >>> placement_key("dq8x3", 2)
    'dq'

    Raises:
        InvalidInputError: `placement` is below 1 or above the geocode's length.
    """
    if not 1 <= placement <= len(geocode):
        raise InvalidInputError(
            f"placement length {placement} of geocode {geocode!r}: expected 1..{len(geocode)}"
            " (at most the geocode's length)"
        )
    return geocode[:placement]


def slot_of(placement_key: str) -> int:
    """The slot, 0..4095, of a placement key: the top 12 bits of its SHA-1.

    >>> slot_of("dq8x3")
    1528
    """
    digest = hashlib.sha1(placement_key.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:2], "big") >> (16 - SLOT_BITS)
