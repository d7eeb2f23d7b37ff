"""The slot filter and the nodes that rows name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from geostore.errors import CorruptDataError, InvalidInputError, NotFoundError
from geostore.index import LogCatalog, open_catalog
from geostore.query import Cursor, Explain, Query
from geostore.ring import SLOTS_TOTAL, placement_key, slot_of
from tests.synthetic_tiles import GEOHASH_DIGITS, QUAD_SCHEMA, SCHEMA, make_entry

PLACEMENTS = {"s2": 4, "l8": 12}
S2_CELLS = [f"dqc{a}{b}" for a in GEOHASH_DIGITS[:12] for b in GEOHASH_DIGITS[:6]]
L8_CELLS = [f"03201210321{a}{b}" for a in "0123" for b in "0123"]


def define(catalog: LogCatalog, name: str, placement: int, *, dataset_id: str = "") -> None:
    value = {"id": dataset_id or f"id-{name}", "name": name, "placement": placement}
    revision = (record := catalog.record_get(f"dataset/{name}")) and record.revision
    catalog.record_compare_and_set(
        f"dataset/{name}", revision or 0, b"s" + json.dumps(value).encode()
    )


def put(catalog: LogCatalog, cells: list[str], *, dataset: str = "s2", scene: str = "a") -> None:
    schema = QUAD_SCHEMA if dataset == "l8" else SCHEMA
    catalog.stage([make_entry(code, dataset=dataset, scene=scene, schema=schema) for code in cells])
    catalog.publish(f"id-{dataset}", scene, "v1")


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[LogCatalog]:
    with open_catalog(tmp_path / "catalog", writable=True) as opened:
        for name, placement in PLACEMENTS.items():
            define(opened, name, placement)
        put(opened, S2_CELLS)
        put(opened, L8_CELLS, dataset="l8")
        yield opened
        assert opened.check() == []


def true_slot(dataset: str, geocode: str) -> int:
    return slot_of(placement_key(geocode, PLACEMENTS[dataset]))


ALL_SLOTS = sorted({true_slot("s2", c) for c in S2_CELLS} | {true_slot("l8", c) for c in L8_CELLS})


def found(catalog: LogCatalog, query: Query | None = None, **kw: Any) -> list[tuple[str, str]]:
    rows = (row for batch in catalog.query(query or Query(), **kw) for row in batch.rows())
    return [(row.dataset, row.geocode) for row in rows]


@pytest.mark.parametrize("query", [Query(), Query(geocode="dqc"), Query(sort="-time")])
def test_only_rows_of_the_slots_are_found(catalog: LogCatalog, query: Query) -> None:
    whole = found(catalog, query)
    assert len(ALL_SLOTS) == 12 + 4
    for slots in (frozenset(ALL_SLOTS[::2]), frozenset(ALL_SLOTS[:1]), frozenset[int]()):
        expected = [row for row in whole if true_slot(*row) in slots]
        assert found(catalog, query, slots=slots) == expected
        assert catalog.count(query, slots=slots) == len(expected)
    assert found(catalog, query, slots=frozenset(range(SLOTS_TOTAL))) == whole
    tiles = sum(each.tiles for each in catalog.summary(slots=frozenset(ALL_SLOTS[::2])))
    assert tiles == sum(true_slot(*row) in ALL_SLOTS[::2] for row in found(catalog))


def test_disjoint_sets_of_slots_split_the_answer(catalog: LogCatalog) -> None:
    parts = [frozenset(range(first, SLOTS_TOTAL, 3)) for first in range(3)]
    rows = [row for slots in parts for row in found(catalog, slots=slots)]
    assert sorted(rows) == sorted(found(catalog))


def test_limit_and_cursor_count_rows_of_the_slots(catalog: LogCatalog) -> None:
    slots = frozenset(ALL_SLOTS[::2])
    expected = found(catalog, slots=slots)
    (batch,) = catalog.query(Query(limit=5), slots=slots)
    rest = found(catalog, slots=slots, after=Cursor.after(batch))
    assert list(batch.geocode) + [code for _, code in rest] == [code for _, code in expected]


def test_rows_that_come_later_are_placed(catalog: LogCatalog) -> None:
    slots = frozenset({true_slot("s2", "9q8yy")})
    assert not found(catalog, slots=slots)
    put(catalog, ["9q8yy", "9q8zz"], scene="later")
    assert found(catalog, slots=slots) == [("s2", "9q8yy")]
    catalog.remove("id-s2", "later")
    assert not found(catalog, slots=slots)


def test_one_placement_length_a_dataset_even_for_equal_cells(catalog: LogCatalog) -> None:
    define(catalog, "s3", 5)
    put(catalog, ["dqc00"], dataset="s3", scene="b")
    assert found(catalog, slots=frozenset({slot_of("dqc00")})) == [("s3", "dqc00")]
    assert ("s2", "dqc00") in found(catalog, slots=frozenset({slot_of("dqc0")}))


def test_a_tile_without_a_definition_is_an_error_not_a_gap(catalog: LogCatalog) -> None:
    put(catalog, ["9q8yy"], dataset="lost", scene="c")
    assert len(found(catalog, Query(datasets=("lost",)))) == 1
    for slots in (frozenset({1}), frozenset(range(SLOTS_TOTAL))):
        with pytest.raises(CorruptDataError, match="id-lost"):
            catalog.count(Query(), slots=slots)
    assert catalog.count(Query(datasets=("s2",)), slots=frozenset(ALL_SLOTS)) == len(S2_CELLS)
    define(catalog, "lost", 4, dataset_id="another-id")
    with pytest.raises(CorruptDataError, match="id-lost"):
        catalog.count(Query(), slots=frozenset({1}))
    define(catalog, "lost", 4)
    assert found(catalog, slots=frozenset({slot_of("9q8y")})) == [("lost", "9q8yy")]


def test_a_definition_that_does_not_read_is_an_error(catalog: LogCatalog) -> None:
    catalog.record_compare_and_set("dataset/odd", 0, b"s[]")
    put(catalog, ["9q8yy"], dataset="odd", scene="c")
    with pytest.raises(CorruptDataError, match="dataset/odd"):
        catalog.count(Query(), slots=frozenset({1}))


@pytest.mark.parametrize("slots", [{-1}, {SLOTS_TOTAL}, {1, 70_000}])
def test_numbers_that_are_no_slots_are_refused(catalog: LogCatalog, slots: set[int]) -> None:
    with pytest.raises(InvalidInputError, match=r"0\.\.4095"):
        catalog.count(Query(), slots=frozenset(slots))


def test_sizes_by_slot_are_those_of_the_rows(catalog: LogCatalog) -> None:
    sizes = catalog.slot_sizes()
    rows = [row for batch in catalog.query(Query()) for row in batch.rows()]
    assert list(sizes.slots) == sorted({true_slot(row.dataset, row.geocode) for row in rows})
    for slot, tiles, size in zip(sizes.slots, sizes.tiles, sizes.bytes, strict=True):
        own = [row.bytes for row in rows if true_slot(row.dataset, row.geocode) == slot]
        assert (tiles, size) == (len(own), sum(own))
    assert sum(sizes.tiles) == len(rows) > len(sizes.slots)


def test_a_leaf_may_lack_a_dataset(catalog: LogCatalog) -> None:
    query = Query(datasets=("elsewhere", "s2"))
    with pytest.raises(NotFoundError, match="elsewhere"):
        catalog.count(query)
    assert catalog.count(query, missing_ok=True) == len(S2_CELLS)
    assert len(found(catalog, query, missing_ok=True)) == len(S2_CELLS)
    assert found(catalog, Query(datasets=("elsewhere",)), missing_ok=True) == []
    assert catalog.schemas(["elsewhere"], missing_ok=True) == []


def test_explain_tells_of_the_slots(catalog: LogCatalog) -> None:
    explain = Explain()
    rows = catalog.count(Query(), explain=explain, slots=frozenset(ALL_SLOTS[:2]))
    assert explain.considered["slots"] == rows
    assert explain.rows_matched == explain.rows_total == rows
    nothing = Query(geocode="dqc0", recursive=False)
    assert catalog.count(nothing, explain=explain, slots=frozenset(ALL_SLOTS[:2])) == 0
    assert (explain.rows_matched, explain.rows_total) == (0, rows)
    total = catalog.count(Query(), explain=explain, slots=frozenset(range(SLOTS_TOTAL)))
    assert explain.rows_total == total > rows


def test_rows_name_the_nodes_of_their_slot(catalog: LogCatalog) -> None:
    assert {row.nodes for batch in catalog.query(Query()) for row in batch.rows()} == {("local",)}
    catalog.set_nodes(lambda slot: (f"n{slot % 3}", f"n{(slot + 1) % 3}"))
    under_way = catalog.query(Query())
    for batch in catalog.query(Query()):
        for row in batch.rows():
            slot = true_slot(row.dataset, row.geocode)
            assert row.nodes == (f"n{slot % 3}", f"n{(slot + 1) % 3}")
            assert catalog.tile(row.key).nodes == row.nodes
        assert len({id(nodes) for nodes in batch.nodes}) == 3
    catalog.set_nodes(lambda slot: ("only",))  # the ring changed
    assert {row.nodes for batch in catalog.query(Query()) for row in batch.rows()} == {("only",)}
    assert ("only",) not in {row.nodes for batch in under_way for row in batch.rows()}
    catalog.set_nodes(None)
    assert catalog.tile(make_entry(S2_CELLS[0], scene="a").meta.key).nodes == ("local",)


def test_nodes_may_be_given_when_opening(tmp_path: Path, catalog: LogCatalog) -> None:
    with open_catalog(catalog.directory, writable=False, nodes=lambda _: ("x", "y")) as other:
        assert {row.nodes for b in other.query(Query()) for row in b.rows()} == {("x", "y")}
