"""Which node is asked about which slots: the plan of a query, by one ring.

Each slot is asked of one of its replicas, the first unless that one failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from geostore.errors import UnavailableError
from geostore.node.pruning import slots_matching
from geostore.query import Cursor, LeafQuery, Query
from geostore.ring import SLOTS_TOTAL, Ring, RingNode
from geostore.types import DatasetDefinition

__all__ = ["BATCH_ROWS", "Plan", "Share", "is_stale_ring"]

BATCH_ROWS: Final = 4096
SLOTS_FEW: Final = 256
_NAMES_SHOWN: Final = 5

Slots = npt.NDArray[np.int64]


def is_stale_ring(error: UnavailableError) -> bool:
    """Whether a node refused because the call was planned with another ring than its own."""
    return error.code == "stale_ring"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Slots that one node is asked about."""

    node: RingNode
    slots: Slots
    tried: tuple[RingNode, ...] = ()
    """Replicas of these slots that failed."""
    is_whole: bool = False
    """The node holds nothing else: it need not look at slots."""

    def leaf(self, query: Query, after: Cursor | None, batch_rows: int = BATCH_ROWS) -> LeafQuery:
        slots = None if self.is_whole else frozenset(self.slots.tolist())
        return LeafQuery(query=query, slots=slots, after=after, batch_rows=batch_rows)


class Plan:
    """Which nodes are asked about what, by one ring."""

    def __init__(self, ring: Ring, query: Query, definitions: Sequence[DatasetDefinition]) -> None:
        self.ring = ring
        self._has_place = query.region is not None or query.where is not None
        self._names = sorted(each.name for each in definitions if each.is_complete)
        firsts = ring.owners[:, 0]
        nodes_total = len(np.unique(firsts))

        def is_everyone(slots: set[int]) -> bool:
            return len(np.unique(firsts[list(slots)])) == nodes_total

        found = slots_matching(query, definitions, is_enough=is_everyone)
        self.slots: Slots = (
            np.arange(SLOTS_TOTAL) if found is None else np.array(sorted(found), int)
        )

    def first_shares(self) -> list[Share]:
        """All slots that match, each at its first replica."""
        shares = self.shares(self.slots)
        # With one copy a node holds the slots it is the first replica of, and no others. Where
        # few of them match a place it is told which: their rows are soon looked at, while the
        # place would have it search all its cells.
        is_whole = self.ring.copies == 1 and not (self._has_place and len(self.slots) <= SLOTS_FEW)
        return [replace(share, is_whole=is_whole) for share in shares]

    def shares(
        self,
        slots: Slots,
        *,
        tried: tuple[RingNode, ...] = (),
        failed: frozenset[str] = frozenset(),
        failure: UnavailableError | None = None,
    ) -> list[Share]:
        """Each slot at its first replica that was not tried; rather none of `failed`.

        Raises UnavailableError: a slot has none, because of `failure`.
        """
        ids = [node.id for node in self.ring.nodes]
        tried_ids = {node.id for node in tried}
        is_tried = np.array([each in tried_ids for each in ids])
        is_failed = np.array([each in failed for each in ids])
        owners = self.ring.owners[slots].astype(np.int64)
        copies = owners.shape[1]
        rank = np.arange(copies) + copies * is_failed[owners] + 2 * copies * is_tried[owners]
        column = rank.argmin(axis=1)[:, None]
        chosen = np.take_along_axis(owners, column, axis=1)[:, 0]
        lost = int(is_tried[chosen].sum())
        if lost:
            raise self._missing(lost, tried, failure) from failure
        return [
            Share(node=self.ring.nodes[index], slots=slots[chosen == index], tried=tried)
            for index in np.unique(chosen).tolist()
        ]

    def _missing(
        self, lost: int, tried: tuple[RingNode, ...], failure: UnavailableError | None
    ) -> UnavailableError:
        nodes = ", ".join(f"{node.name} ({node.address})" for node in tried)
        places = ", ".join(self._names[:_NAMES_SHOWN])
        if len(self._names) > _NAMES_SHOWN:
            places += f" and {len(self._names) - _NAMES_SHOWN} more"
        return UnavailableError(
            f"the answer would not be whole: {lost:,} of the {len(self.slots):,} slots asked about,"
            f" with places of {places}, have no replica but {nodes}, which"
            f" {'fails' if len(tried) == 1 else 'fail'}: {failure}",
            retry_after_s=None if failure is None else failure.retry_after_s,
        )
