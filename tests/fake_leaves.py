"""Nodes that answer leaf calls from rows in memory, and fail when they are told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import cast

import numpy as np

from geostore.errors import UnavailableError
from geostore.index import CatalogEntry
from geostore.node.coordinator import Coordinator
from geostore.node.peer import Peer
from geostore.query import (
    Explain,
    LeafQuery,
    Query,
    Summary,
    SummaryKeys,
    count_until,
    matching,
    order_key,
    sort_batch,
)
from geostore.query.order import OrderKey
from geostore.ring import SLOTS_TOTAL, Ring, RingNode, placement_key, slot_of
from geostore.types import CallContext, DatasetDefinition, RowBatch, SchemeName
from geostore.types.dataset import ResolutionGroup
from tests.summary_model import summary_of
from tests.synthetic_tiles import make_batch


class StaleRingError(UnavailableError):
    code = "stale_ring"


@cache
def ring_of(nodes: int, replicas: int) -> Ring:
    """Nodes n0, n1, ...; slots at random, as any allocation might have put them."""
    made = tuple(RingNode(f"id{i}", f"n{i}", f"10.0.0.{i}:7070") for i in range(nodes))
    places = np.random.default_rng(nodes).random((SLOTS_TOTAL, nodes)).argsort(axis=1)
    return Ring(
        cluster_id="cluster",
        epoch=1,
        replicas=replicas,
        founder=made[0].id,
        nodes=made,
        owners=places[:, : min(replicas, nodes)].astype(np.uint16),
    )


def definition_of(
    name: str = "s2", *, length: int = 2, placement: int = 2, grid: SchemeName = "geohash"
) -> DatasetDefinition:
    return DatasetDefinition(
        id=f"id-{name}",
        name=name,
        scheme=grid,
        length=length,
        placement=placement,
        groups=(ResolutionGroup(10.0, 512, 512),),
    )


def keys_of(batch: RowBatch, query: Query) -> list[OrderKey]:
    return [order_key(batch, i, query.sort) for i in range(len(batch))]


def answer_of(entries: Sequence[CatalogEntry], leaf: LeafQuery) -> RowBatch:
    """What one store that holds `entries` answers, whatever the slots."""
    rows = make_batch(entries)
    rows = sort_batch(rows.take(np.flatnonzero(matching(rows, leaf.query))), leaf.query.sort)
    start = 0 if leaf.after is None else count_until(rows, leaf.after.key, leaf.query.sort)
    limit = len(rows) if leaf.query.limit is None else start + leaf.query.limit
    return rows.take(slice(start, limit))


class Rows:
    """The iterator of one leaf call."""

    def __init__(self, batches: Iterator[RowBatch]) -> None:
        self._batches = batches
        self.is_closed = False

    def __iter__(self) -> Rows:
        return self

    def __next__(self) -> RowBatch:
        return next(self._batches)

    def close(self) -> None:
        self.is_closed = True


@dataclass
class Leaf:
    """One node. `failures`: for each coming call, the batches before it fails; None: never."""

    node: RingNode
    ring: Callable[[], Ring]
    entries: Sequence[CatalogEntry]
    placements: dict[str, int]
    failures: list[int | None] = field(default_factory=list)
    error: Callable[[str], UnavailableError] = UnavailableError
    calls: list[LeafQuery] = field(default_factory=list)
    streams: list[Rows] = field(default_factory=list)
    batches_read: int = 0
    on_call: Callable[[], None] = lambda: None
    on_read: Callable[[], None] = lambda: None

    def own(self, leaf: LeafQuery) -> list[CatalogEntry]:
        held = set(self.ring().slots_of(self.node.id).tolist())
        wanted = held if leaf.slots is None else held & leaf.slots
        return [
            each
            for each in self.entries
            if slot_of(placement_key(each.meta.key.geocode, self.placements[each.meta.dataset]))
            in wanted
        ]

    def _called(self, leaf: LeafQuery) -> int | None:
        self.calls.append(leaf)
        self.on_call()
        return self.failures.pop(0) if self.failures else None

    def leaf_query(
        self,
        call: CallContext,
        request: LeafQuery,
        explain: Explain | None = None,
    ) -> Rows:
        fails_after = self._called(request)
        if fails_after == -1:
            raise self.error("refused")
        found = answer_of(self.own(request), request)
        stream = Rows(
            self._told(self._cut(found, request.batch_rows, fails_after), request, explain)
        )
        self.streams.append(stream)
        return stream

    def _told(
        self, batches: Iterator[RowBatch], request: LeafQuery, explain: Explain | None
    ) -> Iterator[RowBatch]:
        """How the leaf answered is told behind its last row, as on the wire."""
        yield from batches
        if explain is not None:
            unlimited = replace(request, query=replace(request.query, limit=None))
            explain.rows_total = len(self.own(request))
            explain.rows_matched = len(answer_of(self.own(request), unlimited))

    def _cut(self, found: RowBatch, size: int, fails_after: int | None) -> Iterator[RowBatch]:
        for number, start in enumerate(range(0, len(found), size)):
            if number == fails_after:
                raise self.error("broke off")
            self.batches_read += 1
            self.on_read()
            yield found.take(slice(start, start + size))
        if fails_after is not None:
            raise self.error("broke off")

    def leaf_count(self, call: CallContext, request: LeafQuery) -> int:
        if self._called(request) is not None:
            raise self.error("refused")
        return len(answer_of(self.own(request), request))

    def leaf_summary(self, call: CallContext, request: LeafQuery, by: SummaryKeys) -> Summary:
        if self._called(request) is not None:
            raise self.error("refused")
        return summary_of(answer_of(self.own(request), request), by)


class Cluster:
    """A ring of leaves, and a coordinator at the first node."""

    def __init__(
        self,
        ring: Ring,
        entries: Sequence[CatalogEntry],
        definitions: Sequence[DatasetDefinition],
    ) -> None:
        self.ring = ring
        self.entries = entries
        self.rings_asked = 0
        placements = {each.name: each.placement or 0 for each in definitions}
        self.leaves = {
            node.id: Leaf(node, lambda: self.ring, entries, placements) for node in ring.nodes
        }
        self.coordinator = Coordinator(
            ring.nodes[0].id, self._ring, self, lambda: list(definitions)
        )

    def _ring(self) -> Ring:
        self.rings_asked += 1
        return self.ring

    def peer(self, node_id: str) -> Peer:
        return cast("Peer", self.leaves[node_id])

    def leaf(self, number: int) -> Leaf:
        return self.leaves[f"id{number}"]

    def called(self) -> set[str]:
        return {node_id for node_id, leaf in self.leaves.items() if leaf.calls}

    def are_all_closed(self) -> bool:
        return all(stream.is_closed for leaf in self.leaves.values() for stream in leaf.streams)
