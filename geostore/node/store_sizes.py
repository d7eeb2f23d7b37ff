"""What a whole store holds, from what each of its nodes has by slot; pure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from geostore.ring import SLOTS_TOTAL, Ring
from geostore.types import SlotSizes, StoreSizes

__all__ = ["counted_once"]


def counted_once(ring: Ring, answers: Mapping[str, SlotSizes]) -> StoreSizes:
    """Every tile once: each slot as its first replica that answered has it.

    `answers` by node id; who did not answer is not in it. Sums divided by the number of copies
    would be wrong as soon as one node is down, or holds a slot that others hold more often.
    """
    ids = [node.id for node in ring.nodes]
    tiles = np.zeros((len(ids), SLOTS_TOTAL), np.int64)
    sizes = np.zeros((len(ids), SLOTS_TOTAL), np.int64)
    for index, node_id in enumerate(ids):
        answer = answers.get(node_id)
        if answer is not None:
            tiles[index, list(answer.slots)] = answer.tiles
            sizes[index, list(answer.slots)] = answer.bytes
    has_answered = np.array([node_id in answers for node_id in ids])[ring.owners]
    rank = has_answered.argmax(axis=1)  # of each slot's first replica that answered
    slots = np.arange(SLOTS_TOTAL)
    chosen = ring.owners[slots, rank]
    is_known = has_answered[slots, rank]
    counted = tiles[chosen, slots] * is_known
    return StoreSizes(
        tiles=int(counted.sum()),
        bytes=int((sizes[chosen, slots] * is_known).sum()),
        slots_used=int((counted > 0).sum()),
        slots_missing=int((~is_known).sum()),
    )
