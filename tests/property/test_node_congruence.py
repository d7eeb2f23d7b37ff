"""Invariant 2 over real catalogs: any ring answers as one node that holds everything.

Made-up datasets of both schemes, with cells and placement keys of several lengths; each node's
rows lie in a catalog of its own, as copies lie on a ring, and cross as bytes. That one catalog
answers as brute force does is `test_catalog.py`'s; failures are `test_node_coordinator.py`'s.
`CONGRUENCE=full` plays more stores.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, cast, get_args

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from geostore.grid import Region, scheme
from geostore.index import CatalogEntry, LogCatalog, open_catalog
from geostore.node.coordinator import Coordinator
from geostore.node.peer import Peer
from geostore.query import (
    CoverageAnswer,
    CoverageRequest,
    Cursor,
    Explain,
    LeafQuery,
    PercentRange,
    Query,
    SortKey,
    Summary,
    SummaryKeys,
    Windows,
    keys_from,
)
from geostore.ring import Ring, placement_key, slot_of
from geostore.rpc.coverage_answers import coverage_messages, read_coverage
from geostore.rpc.row_batches import BatchDecoder, BatchEncoder
from geostore.rpc.summaries import groups_from_wire, groups_to_wire
from geostore.rpc.v1 import node_pb2
from geostore.types import (
    BBox,
    BlockBitmaps,
    CallContext,
    DatasetDefinition,
    RowBatch,
    SchemeName,
    TimeSpan,
)
from tests.fake_leaves import definition_of, ring_of
from tests.summary_model import groups_of
from tests.synthetic_tiles import make_entry, make_schema

KEYS = ("dataset", ("dataset", "month"), ("geocode:2", "day"), ("platform", "scene"))

STORES = 60 if os.environ.get("CONGRUENCE") == "full" else 6
QUERIES = 40
SORTS: tuple[SortKey | None, ...] = (None, *get_args(SortKey))
BANDS = ({"B04": "red"}, {"B04": "red", "B08": "nir"}, {"SR_B4": "red", "SR_B5": None})
PLATFORMS = (None, "sentinel-2a", "landsat-8")
SCENES = ("a", "B", "z/1", "日本", "a" * 200)
PERCENTS = (0.0, 20.0, 33.3, 95.0, 100.0)
GRIDS: tuple[tuple[SchemeName, int], ...] = (("geohash", 5), ("quadtile", 12))
CALL = CallContext()


def random_definitions(rng: random.Random) -> list[DatasetDefinition]:
    made = []
    for number in range(rng.randint(1, 4)):
        grid, longest = rng.choice(GRIDS)
        length = rng.randint(1, longest)
        placement = rng.randint(1, length)
        made.append(definition_of(f"d{number}", length=length, placement=placement, grid=grid))
    return made


def random_bitmaps(rng: random.Random) -> BlockBitmaps | None:
    """Of a tile that saw the west of its cell, with more or less cloud; None of some."""
    columns = (1 << rng.randint(0, 16)) - 1
    seen = columns.to_bytes(2, "little") * 16
    clear = (columns & rng.getrandbits(16)).to_bytes(2, "little") * 16
    has_clear = rng.random() < 0.7
    if rng.random() < 0.1:
        return None
    return BlockBitmaps(
        valid_all=seen if rng.random() < 0.8 else bytes(32),
        valid_any=seen,
        clear_all=clear if has_clear else None,
        clear_any=seen if has_clear else None,
    )


def random_entry(rng: random.Random, definition: DatasetDefinition) -> CatalogEntry:
    assert definition.length is not None
    near = rng.random() < 0.6  # so that places and prefixes find several
    lon = rng.gauss(-75.6, 1.5) if near else rng.uniform(-180, 180)
    lat = rng.gauss(37.7, 1.5) if near else rng.uniform(-84, 84)
    start = rng.choice((None, rng.randrange(20) * 50))
    entry = make_entry(
        scheme(definition.scheme).encode(lon, lat, definition.length),
        scene=rng.choice(SCENES),
        dataset=definition.name,
        schema=make_schema(
            dict(rng.choice(BANDS)), scheme=definition.scheme, length=definition.length
        ),
        time_us=start,
        time_end_us=None if start is None else start + rng.choice((0, 7, 200)),
        platform=rng.choice(PLATFORMS),
        coverage=rng.choice((*PERCENTS, rng.uniform(0, 100))),
        cloud=rng.choice((None, *PERCENTS, rng.uniform(0, 100))),
        size=rng.randrange(1, 10_000),
    )
    return replace(entry, meta=replace(entry.meta, bitmaps=random_bitmaps(rng)))


@dataclass
class Leaf:
    """A node's catalog behind the wire's row batches."""

    catalog: LogCatalog

    def leaf_query(
        self, call: CallContext, request: LeafQuery, explain: Explain | None = None
    ) -> Iterator[RowBatch]:
        encoder, decoder = BatchEncoder(), BatchDecoder()
        batches = self.catalog.query(
            request.query,
            batch_rows=request.batch_rows,
            explain=explain,
            after=request.after,
            slots=request.slots,
            missing_ok=True,
        )
        for batch in batches:
            yield decoder.decode(encoder.encode(batch))

    def leaf_count(self, call: CallContext, request: LeafQuery) -> int:
        return self.catalog.count(request.query, slots=request.slots, missing_ok=True)

    def leaf_summary(self, call: CallContext, request: LeafQuery, by: SummaryKeys) -> Summary:
        own = self.catalog.aggregate(request.query, by, slots=request.slots, missing_ok=True)
        return groups_from_wire(groups_to_wire(own), by)

    def leaf_coverage(
        self, call: CallContext, request: LeafQuery, wanted: CoverageRequest
    ) -> CoverageAnswer:
        answer = self.catalog.coverage(request.query, wanted, slots=request.slots, missing_ok=True)
        make = node_pb2.LeafCoverageResponse
        return read_coverage(list(coverage_messages(make, answer, lambda: None)))


class Store:
    """One made-up store: whole in one catalog, and spread over a ring."""

    def __init__(self, seed: int, folder: Path, stack: ExitStack) -> None:
        rng = random.Random(seed)
        self.definitions = random_definitions(rng)
        made = [random_entry(rng, rng.choice(self.definitions)) for _ in range(rng.choice((3, 80)))]
        self.entries = list({entry.meta.key: entry for entry in made}.values())
        self.ring: Ring = ring_of(rng.randint(1, 6), rng.randint(1, 3))
        self.one = self._catalog(folder / "one", self.entries, stack)
        self.leaves = {
            node.id: Leaf(self._catalog(folder / node.id, self._held(node.id), stack))
            for node in self.ring.nodes
        }
        self.coordinators = [
            Coordinator(node.id, lambda: self.ring, self, lambda: self.definitions)
            for node in self.ring.nodes
        ]
        for coordinator in self.coordinators:
            stack.callback(coordinator.close)

    def _catalog(
        self, directory: Path, entries: list[CatalogEntry], stack: ExitStack
    ) -> LogCatalog:
        catalog = stack.enter_context(open_catalog(directory, writable=True))
        for definition in self.definitions:
            value = b"s" + json.dumps(definition.to_json()).encode()
            catalog.record_compare_and_set(f"dataset/{definition.name}", 0, value)
        catalog.rebuild(entries)
        catalog.set_nodes(lambda slot: tuple(node.name for node in self.ring.replicas_of(slot)))
        return catalog

    def _held(self, node_id: str) -> list[CatalogEntry]:
        return [
            entry
            for entry in self.entries
            if node_id in {node.id for node in self.ring.replicas_of(self.slot(entry))}
        ]

    def slot(self, entry: CatalogEntry) -> int:
        placements = {each.name: each.placement or 0 for each in self.definitions}
        meta = entry.meta
        return slot_of(placement_key(meta.key.geocode, placements[meta.dataset]))

    def peer(self, node_id: str) -> Peer:
        return cast("Peer", self.leaves[node_id])


@pytest.fixture(scope="module")
def store_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Store]]:
    """The store of a seed, made once."""
    with ExitStack() as stack:

        @cache
        def make(seed: int) -> Store:
            return Store(seed, tmp_path_factory.mktemp("ring"), stack)

        yield make


def random_region(rng: random.Random, store: Store) -> Region:
    entry = rng.choice(store.entries)
    box = scheme(entry.meta.schema.scheme).bounds(entry.meta.key.geocode)
    west, south = max(-180.0, box.west - rng.uniform(0, 2)), max(-90.0, box.south - rng.random())
    kind = rng.choice(
        ("cell", "corner", "line", "polygon", "seam", "box", "both", "apart", "apart")
    )
    if kind == "both":
        wide = Region.from_bbox(BBox(west, south, min(180.0, west + 9), min(90.0, south + 5)))
        other = random_region(rng, store)
        return Region.of_both(wide, other.parts[0])
    if kind == "apart":  # two places in one cell, or in two that touch
        middle = (box.west + box.east) / 2, (box.south + box.north) / 2
        first = Region.from_geometry({"type": "Point", "coordinates": middle})
        end = middle[0] / 2 + box.west / 2, middle[1] / 2 + box.south / 2
        return Region.of_both(first, Region.from_bbox(BBox(box.west, box.south, *end)))
    if kind == "cell":
        return Region.from_bbox(box)
    if kind == "seam":
        return Region.from_bbox(BBox(rng.uniform(100, 180), -80.0, rng.uniform(-180, -60), 80.0))
    if kind == "box":
        return Region.from_bbox(BBox(west, south, min(180.0, west + 5), min(90.0, south + 3)))
    corners = [[box.west, box.south], [west, box.north], [box.east, south]]
    shapes: dict[str, Any] = {
        "corner": {"type": "Point", "coordinates": corners[0]},
        "line": {"type": "LineString", "coordinates": corners[:2]},
        "polygon": {"type": "Polygon", "coordinates": [[*corners, corners[0]]]},
    }
    return Region.from_geometry(shapes[kind])


def random_range(rng: random.Random) -> PercentRange:
    low, high = sorted(rng.choice((*PERCENTS, rng.uniform(0, 100))) for _ in range(2))
    return PercentRange(rng.choice((None, low)), rng.choice((None, high)))


def random_query(rng: random.Random, store: Store) -> Query:
    """Each predicate now and then, with values of a tile that is there."""
    some = rng.choice(store.entries).meta
    start = rng.randrange(-10, 1100)
    makers: dict[str, Callable[[], Any]] = {
        "datasets": lambda: tuple({some.dataset, rng.choice(store.definitions).name}),
        "region": lambda: random_region(rng, store),
        "geocode": lambda: some.key.geocode[: rng.randint(1, len(some.key.geocode))],
        "time": lambda: TimeSpan(
            rng.choice((None, start)), rng.choice((None, start + rng.randrange(500)))
        ),
        "cloud": lambda: random_range(rng),
        "coverage": lambda: random_range(rng),
        "bands": lambda: tuple(rng.sample(("B04", "red", "nir", "SR_B5"), rng.randint(1, 2))),
        "platform": lambda: some.platform or "none such",
        "scene": lambda: some.key.scene,
    }
    chance = rng.choice((0.05, 0.2, 0.4))
    fields = {name: make() for name, make in makers.items() if rng.random() < chance}
    if rng.random() < 0.4:  # what pruning has most to do with
        fields["region"] = random_region(rng, store)
    return Query(
        **fields,
        recursive=rng.random() < 0.7,
        sort=rng.choice(SORTS),
        limit=rng.choice((None, None, 0, 1, 5, 1000)),
    )


def rows_of(batches: Iterator[RowBatch]) -> list[Any]:
    """All that a row tells but the number by which its own catalog knows it."""
    rows = [row for batch in batches for row in batch.rows()]
    return [
        {name: getattr(row, name) for name in row.__slots__ if name != "row_id"} for row in rows
    ]


@settings(max_examples=STORES * QUERIES)
@given(
    seed=st.integers(0, STORES - 1),
    question=st.integers(0, 2**32),
    batch_rows=st.sampled_from([1, 3, 4096]),
)
def test_invariant_2_any_ring_answers_as_one_node(
    store_of: Callable[[int], Store], seed: int, question: int, batch_rows: int
) -> None:
    store, rng = store_of(seed), random.Random(f"{seed}/{question}")
    query = random_query(rng, store)
    coordinator = rng.choice(store.coordinators)
    expected = rows_of(store.one.query(query))
    explain = Explain()
    answer = coordinator.query(CALL, query, explain, batch_rows=batch_rows)
    assert rows_of(answer) == expected
    assert coordinator.count(CALL, query) == store.one.count(query) == len(expected)
    if query.limit != 0:
        told = Explain()
        store.one.count(query, explain=told)
        if explain.ended_early:  # at the limit, on each node by itself
            assert (explain.rows_matched or 0) >= len(expected)
        else:
            assert (explain.rows_matched or 0) == told.rows_matched
        assert (explain.rows_total or 0) <= len(store.entries)
        check_asked(store, query, explain)
    asked, by = replace(query, limit=None, sort=None), keys_from(rng.choice(KEYS))
    whole = store.one.aggregate(asked, by)
    assert groups_of(coordinator.summary(CALL, asked, by)) == groups_of(whole)
    assert int(whole.columns["tiles"].sum()) == store.one.count(asked)
    if expected:
        page = next(store.one.query(query, batch_rows=rng.randint(1, len(expected))))
        rest = coordinator.query(CALL, query, after=Cursor.after(page, query.sort))
        assert rows_of(rest) == rows_of(
            store.one.query(query, after=Cursor.after(page, query.sort))
        )


def check_asked(store: Store, query: Query, explain: Explain) -> None:
    """Invariant 6: those whose tiles come, and none but first replicas."""
    names = [node.name for node in store.ring.nodes]
    assert sorted(explain.nodes_asked + explain.nodes_skipped) == sorted(names)
    given_out = rows_of(store.one.query(query))
    assert {row["nodes"][0] for row in given_out} <= set(explain.nodes_asked)
    assert sum(node.slots for node in explain.nodes) == explain.slots_matched


def told(answer: CoverageAnswer) -> list[Any]:
    """Groups, each with its bounds, scenes and the rows that came with it."""
    groups = answer.groups
    rows = [] if answer.members is None else rows_of(iter([answer.members]))
    members: dict[int, list[Any]] = {}
    for group, row in zip(answer.member_group.tolist(), rows, strict=True):
        members.setdefault(group, []).append(row)
    names = ("dataset_id", "dataset", "geocode", "start_us", "end_us", "tiles", "lower", "upper")
    return [
        (
            *(getattr(groups, name)[index] for name in (*names, "total")),
            groups.scenes(index),
            sorted(members.get(index, ()), key=lambda row: str(row["key"])),
        )
        for index in range(len(groups))
    ]


@settings(max_examples=STORES * QUERIES)
@given(
    seed=st.integers(0, STORES - 1),
    question=st.integers(0, 2**32),
    target=st.sampled_from([20, 95]),
    window=st.sampled_from([None, Windows(100, "us"), Windows(1, "month")]),
    clear=st.booleans(),
    members=st.sampled_from(["none", "unsure", "all"]),
)
def test_invariant_2_any_ring_covers_as_one_node(
    store_of: Callable[[int], Store],
    seed: int,
    question: int,
    target: float,
    window: Windows | None,
    clear: bool,
    members: Any,
) -> None:
    store, rng = store_of(seed), random.Random(f"{seed}/{question}")
    query = replace(random_query(rng, store), limit=None)
    wanted = CoverageRequest(target=target, windows=window, clear=clear, members=members)
    expected = told(store.one.coverage(query, wanted))
    assert told(rng.choice(store.coordinators).coverage(CALL, query, wanted)) == expected
