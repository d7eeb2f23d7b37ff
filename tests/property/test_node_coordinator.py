"""Any split of the rows over nodes, with any failures: the one answer, or an error."""

from __future__ import annotations

from functools import cache

import hypothesis.strategies as st
from hypothesis import given, settings

from geostore.errors import UnavailableError
from geostore.grid import GEOHASH, Region
from geostore.index import CatalogEntry
from geostore.query import Cursor, Explain, LeafQuery, Query
from geostore.query.order import OrderKey
from geostore.ring import slot_of
from geostore.types import BBox, CallContext
from tests.fake_leaves import Cluster, answer_of, definition_of, keys_of, ring_of
from tests.synthetic_tiles import make_entry

DEFINITIONS = [definition_of("s2", placement=2), definition_of("l8", placement=1)]
CELLS = [a + b for a in GEOHASH.alphabet for b in GEOHASH.alphabet]


@cache
def stored() -> tuple[CatalogEntry, ...]:
    return tuple(
        make_entry(
            CELLS[i * 37 % 1024],
            scene=f"scene-{i % 7}",
            dataset=("s2", "l8")[i % 2],
            time_us=i % 5 or None,
            cloud=float(i % 11) if i % 3 else None,
            coverage=float(i % 4),
        )
        for i in range(160)
    )


@st.composite
def queries(draw: st.DrawFn) -> Query:
    region = None
    if draw(st.booleans()):
        west, south = draw(st.integers(-180, 175)), draw(st.integers(-90, 85))
        wide, high = draw(st.sampled_from([(5, 5), (40, 30), (300, 150)]))
        region = Region.from_bbox(
            BBox(west, south, (west + wide + 180) % 360 - 180, min(90, south + high))
        )
    return Query(
        datasets=draw(st.sampled_from([None, ("s2",), ("l8", "s2")])),
        region=region,
        geocode=draw(st.sampled_from([None, None, "d", "9", "s0"])),
        sort=draw(st.sampled_from([None, "-time", "cloud", "-coverage"])),
        limit=draw(st.sampled_from([None, None, 0, 1, 7, 60])),
    )


def slots_of(query: Query) -> set[int]:
    """Of all cells that match, stored or not."""
    return {
        slot_of(cell[: definition.placement])
        for definition in DEFINITIONS
        if query.datasets is None or definition.name in query.datasets
        for cell in CELLS
        if cell.startswith(query.geocode or "")
        and (query.region is None or query.region.matches(GEOHASH, cell))
    }


def expected_of(query: Query, after: Cursor | None = None) -> list[OrderKey]:
    return keys_of(answer_of(stored(), LeafQuery(query=query, after=after)), query)


def taken(cluster: Cluster, query: Query, after: Cursor | None, rows: int) -> list[OrderKey]:
    batches = cluster.coordinator.query(CallContext(), query, after=after, batch_rows=rows)
    return [key for batch in batches for key in keys_of(batch, query)]


@settings(max_examples=120)
@given(queries(), st.integers(1, 6), st.integers(1, 3), st.integers(1, 50))
def test_invariant_2_any_ring_gives_the_same_answer(
    query: Query, nodes: int, replicas: int, rows: int
) -> None:
    cluster = Cluster(ring_of(nodes, replicas), stored(), DEFINITIONS)
    assert taken(cluster, query, None, rows) == expected_of(query)
    assert cluster.coordinator.count(CallContext(), query) == len(expected_of(query))
    cluster.coordinator.close()


@settings(max_examples=80)
@given(queries().filter(lambda query: query.limit != 0), st.integers(1, 6), st.integers(1, 3))
def test_invariant_6_exactly_the_nodes_that_could_answer_are_asked(
    query: Query, nodes: int, replicas: int
) -> None:
    ring = ring_of(nodes, replicas)
    firsts = {ring.first_of(slot).id for slot in slots_of(query)}
    cluster = Cluster(ring, stored(), DEFINITIONS)
    explain = Explain()
    for _ in cluster.coordinator.query(CallContext(), query, explain):
        pass
    assert cluster.called() == firsts
    assert explain.nodes_asked == [node.name for node in ring.nodes if node.id in firsts]
    assert explain.nodes_skipped == [node.name for node in ring.nodes if node.id not in firsts]
    counting = Cluster(ring, stored(), DEFINITIONS)
    counting.coordinator.count(CallContext(), query)
    counting.coordinator.close()
    assert counting.called() == firsts


@settings(max_examples=80)
@given(queries(), st.integers(1, 5), st.integers(1, 3), st.integers(0, 100))
def test_a_cursor_goes_on_without_loss_or_repeat(
    query: Query, nodes: int, replicas: int, row: int
) -> None:
    whole = answer_of(stored(), LeafQuery(query=Query(datasets=query.datasets, sort=query.sort)))
    after = Cursor.after(whole, query.sort, row=min(row, len(whole) - 1))
    cluster = Cluster(ring_of(nodes, replicas), stored(), DEFINITIONS)
    assert taken(cluster, query, after, 9) == expected_of(query, after)


FAILURES = st.lists(st.sampled_from([None, None, -1, 0, 1, 3]), max_size=3)


@settings(max_examples=250)
@given(
    queries(),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 20),
    st.lists(FAILURES, min_size=5, max_size=5),
)
def test_failures_never_cut_an_answer_short(
    query: Query, nodes: int, replicas: int, rows: int, failures: list[list[int | None]]
) -> None:
    ring = ring_of(nodes, replicas)
    cluster = Cluster(ring, stored(), DEFINITIONS)
    for number in range(nodes):
        cluster.leaf(number).failures = list(failures[number])
    found: list[OrderKey] = []
    try:
        for batch in cluster.coordinator.query(CallContext(), query, batch_rows=rows):
            found += keys_of(batch, query)
    except UnavailableError:
        assert found == expected_of(query)[: len(found)]
        failing = {f"id{i}" for i in range(nodes) if any(f is not None for f in failures[i])}
        assert any(
            {node.id for node in ring.replicas_of(slot)} <= failing for slot in slots_of(query)
        )
    else:
        assert found == expected_of(query)
    assert cluster.are_all_closed()


@settings(max_examples=100)
@given(
    queries(),
    st.integers(1, 5),
    st.integers(1, 3),
    st.lists(st.lists(st.sampled_from([None, -1]), max_size=2), min_size=5, max_size=5),
)
def test_failures_never_cut_a_count_short(
    query: Query, nodes: int, replicas: int, failures: list[list[int | None]]
) -> None:
    ring = ring_of(nodes, replicas)
    cluster = Cluster(ring, stored(), DEFINITIONS)
    for number in range(nodes):
        cluster.leaf(number).failures = list(failures[number])
    try:
        found = cluster.coordinator.count(CallContext(), query)
    except UnavailableError:
        failing = {f"id{i}" for i in range(nodes) if -1 in failures[i]}
        assert any(
            {node.id for node in ring.replicas_of(slot)} <= failing for slot in slots_of(query)
        )
    else:
        assert found == len(expected_of(query))
    finally:
        cluster.coordinator.close()
