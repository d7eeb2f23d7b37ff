"""The catalog under cloud rules: covers, what stays beside them, who sees which."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geostore.errors import NotFoundError
from geostore.index import CatalogEntry, LogCatalog, RecordChange, open_catalog
from geostore.query import PercentRange, Query
from geostore.types import BandRole, TileKey, TileSchema
from tests.synthetic_tiles import SCHEMA, make_entry

PROVIDER: dict[str, Any] = {"method": "provider", "threshold": 50}
LIKELY: dict[str, Any] = {"method": "likelihood", "threshold": 40}

HALF = (100, *[0] * 39, 300, *[0] * 60)  # 100 pixels of 0 %, 300 of 40 %
LITTLE = (900, *[0] * 98, 100, 0)  # 900 of 0 %, 100 of 99 %


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[LogCatalog]:
    with open_catalog(tmp_path / "catalog", writable=True) as opened:
        yield opened
        assert opened.check() == []


def put(catalog: LogCatalog, *entries: CatalogEntry) -> None:
    catalog.stage(entries)
    for key in {entry.meta.key for entry in entries}:
        catalog.publish(key.dataset_id, key.scene, key.version)


def rule(catalog: LogCatalog, rule: dict[str, Any], dataset: str = "s2") -> list[int]:
    """Sets a dataset's rule as a node does; ids of the rows that changed."""
    name = f"dataset/{dataset}"
    record = catalog.record_get(name)
    value = {"id": f"id-{dataset}", "placement": 3, "cloud_rule": rule}
    revision = 0 if record is None else record.revision
    change = RecordChange(name, revision, b"S" + json.dumps(value).encode())
    told, changed = catalog.change_definition(change)
    assert told == revision + 1
    found: list[int] = changed.tolist()
    return found


def covers(catalog: LogCatalog, query: Query | None = None) -> list[tuple[str, float | None]]:
    return [
        (row.geocode, row.cloud_cover)
        for batch in catalog.query(query or Query())
        for row in batch.rows()
    ]


def tiles() -> list[CatalogEntry]:
    return [
        make_entry("dqcjq", cloud=12.5, histogram=HALF),
        make_entry("dqcjr", cloud=None, histogram=LITTLE),
        make_entry("dqcjw", cloud=80.0),
    ]


def test_covers_follow_a_likelihood_and_come_back(catalog: LogCatalog) -> None:
    put(catalog, *tiles())
    before = covers(catalog)
    assert before == [("dqcjq", 12.5), ("dqcjr", None), ("dqcjw", 80.0)]
    assert len(rule(catalog, LIKELY)) == 3
    assert covers(catalog) == [("dqcjq", 75.0), ("dqcjr", 10.0), ("dqcjw", None)]
    assert len(rule(catalog, LIKELY | {"threshold": 41})) == 1
    assert covers(catalog) == [("dqcjq", 0.0), ("dqcjr", 10.0), ("dqcjw", None)]
    assert rule(catalog, LIKELY | {"threshold": 41}) == []
    assert len(rule(catalog, LIKELY | {"threshold": 0})) == 2
    assert covers(catalog) == [("dqcjq", 100.0), ("dqcjr", 100.0), ("dqcjw", None)]
    assert [catalog.provider_cover(tile.meta.key) for tile in tiles()] == [12.5, None, 80.0]
    assert len(rule(catalog, PROVIDER)) == 3
    assert covers(catalog) == before


def test_rows_under_the_providers_rule_are_as_they_always_were(catalog: LogCatalog) -> None:
    """A catalog from before there were rules opens as it is, and is left as it was found."""
    put(catalog, *tiles())

    def rows() -> dict[str, list[float]]:
        with catalog._home.reading() as state:
            columns = state.contents.memory.columns.snapshot().columns
            return {name: column.tolist() for name, column in columns.items()}

    before = rows()
    rule(catalog, LIKELY)
    assert rows()["cloud_cover"] != before["cloud_cover"]
    assert repr(rows()["provider_cover"]) == repr(before["provider_cover"])
    rule(catalog, PROVIDER)
    assert repr(rows()) == repr(before)  # NaN is NaN


def test_another_datasets_tiles_are_left_alone(catalog: LogCatalog) -> None:
    put(catalog, make_entry("dqcjq", cloud=1.0, histogram=HALF))
    put(catalog, make_entry("dqcjr", dataset="other", cloud=2.0, histogram=HALF))
    rule(catalog, LIKELY)
    assert covers(catalog) == [("dqcjr", 2.0), ("dqcjq", 75.0)]


def test_a_tile_is_shown_under_the_rule_in_force_then(catalog: LogCatalog) -> None:
    catalog.stage(tiles())
    rule(catalog, LIKELY)
    catalog.publish("id-s2", "scene-1", "v1")
    put(catalog, make_entry("dqcjx", scene="later", cloud=3.0, histogram=HALF))
    assert dict(covers(catalog)) == {"dqcjq": 75.0, "dqcjr": 10.0, "dqcjw": None, "dqcjx": 75.0}
    rule(catalog, PROVIDER)
    assert dict(covers(catalog)) == {"dqcjq": 12.5, "dqcjr": None, "dqcjw": 80.0, "dqcjx": 3.0}


def test_a_rule_may_come_with_the_publication_itself(catalog: LogCatalog) -> None:
    catalog.stage(tiles())
    value = {"id": "id-s2", "placement": 3, "cloud_rule": LIKELY}
    record = RecordChange("dataset/s2", 0, b"S" + json.dumps(value).encode())
    catalog.publish("id-s2", "scene-1", "v1", record=record)
    assert covers(catalog) == [("dqcjq", 75.0), ("dqcjr", 10.0), ("dqcjw", None)]


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"S[]",
        b"S{}",
        b'S{"id":"id-s2","placement":3,"x":1',
        b'S{"id":"id-b","placement":3}',
        b'S{"id":"id-s2","placement":3,"cloud_rule":{"method":"votes"}}',
    ],
)
def test_without_a_definition_that_reads_covers_are_the_providers(
    catalog: LogCatalog, value: bytes | None
) -> None:
    put(catalog, *tiles())
    rule(catalog, LIKELY)
    record = catalog.record_get("dataset/s2")
    assert record is not None
    catalog.record_compare_and_set("dataset/s2", record.revision, value)
    assert covers(catalog) == [("dqcjq", 12.5), ("dqcjr", None), ("dqcjw", 80.0)]
    assert catalog.check() == []
    put(catalog, make_entry("dqcjx", scene="later", cloud=3.0, histogram=HALF))
    assert covers(catalog, Query(scene="later")) == [("dqcjx", 3.0)]
    assert len(rule(catalog, LIKELY)) == 4


def test_queries_find_and_order_by_the_new_covers(catalog: LogCatalog) -> None:
    put(catalog, *tiles(), *(make_entry(f"9q8y{c}", cloud=50.0, histogram=LITTLE) for c in "0123"))
    cloudy, by_cloud = Query(cloud=PercentRange(60, 90)), Query(sort="cloud", datasets=("s2",))
    assert covers(catalog, cloudy) == [("dqcjw", 80.0)]  # builds the structure
    rule(catalog, LIKELY)
    assert covers(catalog, cloudy) == [("dqcjq", 75.0)]
    assert covers(catalog, by_cloud) == [
        *((f"9q8y{c}", 10.0) for c in "0123"),
        ("dqcjr", 10.0),
        ("dqcjq", 75.0),
        ("dqcjw", None),
    ]


def test_an_answer_under_way_keeps_its_covers(catalog: LogCatalog) -> None:
    put(catalog, *tiles())
    answer = catalog.query(Query(), batch_rows=1)
    first = next(answer)
    rule(catalog, LIKELY)
    assert catalog.count(Query(cloud=PercentRange(75, 75))) == 1
    rest = [float(batch.cloud_cover[0]) for batch in answer]
    assert float(first.cloud_cover[0]) == 12.5
    np.testing.assert_array_equal(rest, [np.nan, 80.0])


def test_details_name_the_method_of_the_cover(catalog: LogCatalog) -> None:
    bands = (
        *SCHEMA.groups[0].bands,
        replace(SCHEMA.groups[0].bands[0], name="CLDPRB", common_name=None, dtype="uint8",
                role=BandRole.LIKELIHOOD),
    )  # fmt: skip
    schema = TileSchema("geohash", 5, "fast", (replace(SCHEMA.groups[0], bands=bands),))
    with_it = make_entry("dqcjq", schema=schema, cloud=1.0, histogram=HALF)
    without = make_entry("dqcjr", schema=schema, cloud=1.0)
    put(catalog, with_it, without)

    def told() -> list[str | None]:
        return [catalog.details(each.meta.key).cloud_method for each in (with_it, without)]

    assert told() == ["SCL 8,9,10", "SCL 8,9,10"]
    rule(catalog, LIKELY)
    assert told() == ["CLDPRB >= 40", None]
    details = catalog.details(with_it.meta.key)
    assert (details.provider_method, details.cloud_histogram) == ("SCL 8,9,10", HALF)
    rule(catalog, PROVIDER)
    assert told() == ["SCL 8,9,10", "SCL 8,9,10"]


def test_a_rebuild_goes_by_the_rules_of_its_end(catalog: LogCatalog) -> None:
    put(catalog, *tiles())

    def entries() -> Iterator[CatalogEntry]:
        yield from tiles()[:2]
        rule(catalog, LIKELY)  # somebody sets it as the files are read
        yield tiles()[2]

    catalog.rebuild(entries())
    assert covers(catalog) == [("dqcjq", 75.0), ("dqcjr", 10.0), ("dqcjw", None)]


def test_a_restored_record_brings_its_rule(catalog: LogCatalog, tmp_path: Path) -> None:
    rule(catalog, LIKELY)
    record = catalog.record_get("dataset/s2")
    assert record is not None
    with open_catalog(tmp_path / "other", writable=True) as other:
        put(other, *tiles())
        other.record_restore("dataset/s2", record)
        assert covers(other) == [("dqcjq", 75.0), ("dqcjr", 10.0), ("dqcjw", None)]
        assert other.check() == []


def test_a_change_that_is_refused_changes_no_cover(catalog: LogCatalog) -> None:
    put(catalog, *tiles())
    rule(catalog, LIKELY)
    value = {"id": "id-s2", "placement": 3, "cloud_rule": PROVIDER}
    change = RecordChange("dataset/s2", 7, b"S" + json.dumps(value).encode())
    with pytest.raises(Exception, match="at revision 1, expected 7"):
        catalog.change_definition(change)
    assert covers(catalog)[0] == ("dqcjq", 75.0)


def test_check_finds_a_cover_that_does_not_follow(tmp_path: Path) -> None:
    with open_catalog(tmp_path, writable=True) as catalog:
        put(catalog, *tiles())
        rule(catalog, LIKELY)
        with catalog._home.reading() as state:
            covers = state.contents.memory.columns.snapshot().columns["cloud_cover"]
            covers[0] = 33.0
        found = catalog.check()[0]
        assert "cover of 33.0, expected 75.0 by its dataset's rule (likelihood >= 40)" in found


def test_counts_rows_of_slots(catalog: LogCatalog) -> None:
    put(catalog, *tiles())
    changed = np.array(rule(catalog, LIKELY), dtype=np.int64)
    slots = set(catalog.slot_sizes().slots)
    assert catalog.count_in_slots(changed, frozenset(slots)) == 3
    assert catalog.count_in_slots(changed, frozenset(range(4096)) - slots) == 0
    assert catalog.count_in_slots(changed[:1], frozenset(slots)) == 1


def test_an_unknown_tile_has_no_providers_cover(catalog: LogCatalog) -> None:
    with pytest.raises(NotFoundError, match="dqcjq"):
        catalog.provider_cover(TileKey("id-s2", "scene-1", "v1", "dqcjq"))
