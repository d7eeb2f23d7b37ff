"""What has to be copied, and what may then be dropped, between two epochs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geostore.errors import InvalidInputError
from geostore.ring.ring import Ring
from geostore.ring.slots import SLOTS_TOTAL

__all__ = ["MovePlan", "SlotMove", "SlotRelease", "plan_moves"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotMove:
    """A slot that a node holds from the new epoch on, and did not before."""

    slot: int
    sources: tuple[str, ...]
    """Ids of the nodes that have it; those that keep it come first."""
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRelease:
    """A slot that a node need no longer hold, once all moves of the slot are done."""

    slot: int
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MovePlan:
    """From one epoch to a later one, slots ascending."""

    epoch_from: int
    epoch_to: int
    copies: int
    """Replicas a slot has in the later epoch."""
    moves: tuple[SlotMove, ...]
    releases: tuple[SlotRelease, ...]

    @property
    def moved_fraction(self) -> float:
        """Replica-slots that are copied, as a share of all in the later epoch."""
        return len(self.moves) / (SLOTS_TOTAL * self.copies)


def plan_moves(old: Ring, new: Ring) -> MovePlan:
    """The plan from `old` to `new`; a mere change of order or address moves nothing.

    Raises:
        InvalidInputError: rings of two clusters, or `new` is not the later one.
    """
    if old.cluster_id != new.cluster_id:
        raise InvalidInputError(
            f"rings of two clusters, {old.cluster_id!r} and {new.cluster_id!r}: expected one"
        )
    if new.epoch < old.epoch:
        raise InvalidInputError(f"moves from epoch {old.epoch} to {new.epoch}: expected a later")
    old_ids, new_ids = [node.id for node in old.nodes], [node.id for node in new.nodes]
    moves: list[SlotMove] = []
    releases: list[SlotRelease] = []
    for slot in _changed_slots(old, new):
        had = [old_ids[index] for index in old.owners[slot].tolist()]
        has = [new_ids[index] for index in new.owners[slot].tolist()]
        gone = [node for node in had if node not in has]
        sources = (*(node for node in had if node in has), *gone)
        moves += (
            SlotMove(slot=slot, sources=sources, target=node) for node in has if node not in had
        )
        releases += (SlotRelease(slot=slot, node=node) for node in gone)
    return MovePlan(
        epoch_from=old.epoch,
        epoch_to=new.epoch,
        copies=new.copies,
        moves=tuple(moves),
        releases=tuple(releases),
    )


def _changed_slots(old: Ring, new: Ring) -> list[int]:
    """Slots whose nodes differ, whatever their order."""
    if old.copies != new.copies:
        return list(range(SLOTS_TOTAL))
    places = {node.id: place for place, node in enumerate(new.nodes)}
    now = np.array([places.get(node.id, -1) for node in old.nodes], dtype=np.int64)
    before = np.sort(now[old.owners], axis=1)
    after = np.sort(new.owners.astype(np.int64), axis=1)
    changed: list[int] = np.flatnonzero((before != after).any(axis=1)).tolist()
    return changed
