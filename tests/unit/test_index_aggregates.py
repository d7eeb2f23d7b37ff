"""Summaries of a catalog: edges of bins, times and cells; and what cannot be asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from geostore.errors import InvalidInputError, NotFoundError
from geostore.index import CatalogEntry, LogCatalog, aggregates, open_catalog
from geostore.query import Query, keys_from, summary
from geostore.types import TimeSpan
from tests.summary_model import expected_groups, groups_of
from tests.synthetic_tiles import QUAD_SCHEMA, US_DAY, make_batch, make_entry

JANUARY = TimeSpan.parse("2016-01-31").start_us or 0


@pytest.fixture
def catalog(tmp_path: Path) -> LogCatalog:
    return open_catalog(tmp_path, writable=True)


def filled(catalog: LogCatalog, *entries: CatalogEntry) -> LogCatalog:
    catalog.rebuild(entries)
    return catalog


def texts(catalog: LogCatalog, *by: str) -> dict[tuple[str | None, ...], int]:
    found = groups_of(catalog.aggregate(Query(), keys_from(by)))
    return {key: group["tiles"] for key, group in found.items()}


def test_a_tile_counts_in_the_month_of_its_start(catalog: LogCatalog) -> None:
    entries = [
        make_entry(scene="8 days", time_us=JANUARY, time_end_us=JANUARY + 8 * US_DAY),
        make_entry(scene="last", time_us=JANUARY + US_DAY - 1),
        make_entry(scene="next", time_us=JANUARY + US_DAY),
        make_entry(scene="old", time_us=-1),
        make_entry(scene="never", time_us=None),
    ]
    filled(catalog, *entries)
    assert texts(catalog, "month") == {
        ("1969-12",): 1,
        ("2016-01",): 2,
        ("2016-02",): 1,
        (None,): 1,
    }
    assert texts(catalog, "year") == {("1969",): 1, ("2016",): 3, (None,): 1}
    assert list(texts(catalog, "day"))[1:3] == [("2016-01-31",), ("2016-02-01",)]
    january = groups_of(catalog.aggregate(Query(), keys_from("month")))["2016-01",]
    assert january["time_last"] == JANUARY + 8 * US_DAY


def test_tiles_without_a_time_alone(catalog: LogCatalog) -> None:
    filled(catalog, make_entry(time_us=None))
    assert texts(catalog, "day") == {(None,): 1}


def test_prefixes_of_both_schemes_stay_apart(catalog: LogCatalog) -> None:
    entries = [
        make_entry("01234"),
        make_entry("0123z"),
        make_entry("0123012301230", schema=QUAD_SCHEMA, dataset="l8"),
    ]
    filled(catalog, *entries)
    assert texts(catalog, "geocode:2") == {("01", "geohash"): 2, ("01", "quadtile"): 1}
    assert texts(catalog, "geocode:8") == {
        ("01230123", "quadtile"): 1,
        ("01234", "geohash"): 1,  # whole: it has no eighth digit
        ("0123z", "geohash"): 1,
    }


def test_bins_have_their_lower_edge_and_the_last_both(catalog: LogCatalog) -> None:
    covers = [0.0, np.nextafter(np.float32(5), np.float32(0)), 5.0, 94.99999, 95.0, 100.0, None]
    entries = [
        make_entry(scene=str(i), cloud=None if cover is None else float(cover))
        for i, cover in enumerate(covers)
    ]
    filled(catalog, *entries)
    found = catalog.aggregate(Query(), keys_from("dataset")).columns
    expected = np.zeros(20)
    expected[[0, 1, 18, 19]] = 2, 1, 1, 2
    assert found["cloud_cover_histogram"][0].tolist() == expected.tolist()
    assert found["cloud_cover_unknown"].tolist() == [1]
    assert found["pixel_coverage_histogram"][0, 19] == len(covers)


def test_rows_in_many_blocks_are_one_sum(
    catalog: LogCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aggregates, "BLOCK_ROWS", 3)
    monkeypatch.setattr(aggregates, "BLOCK_FACTOR", 1)
    entries = [
        make_entry(scene=f"{i // 30}", version=f"{i}", cloud=i % 7 * 11.1, size=2**50 + i)
        for i in range(100)
    ]
    filled(catalog, *entries)
    for by in (keys_from("dataset"), keys_from("scene")):
        found = groups_of(catalog.aggregate(Query(), by))
        assert found == expected_groups(make_batch(entries), by)


def test_numbers_far_apart_are_sorted_not_tabled(
    catalog: LogCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aggregates, "TABLE_MIN", 1)
    monkeypatch.setattr(aggregates, "TABLE_FACTOR", 0)
    entries = [make_entry("dq" + digit * 3, scene=scene) for digit in "08z" for scene in "ab"]
    filled(catalog, *entries)
    by = keys_from(("geocode:3", "scene"))
    assert groups_of(catalog.aggregate(Query(), by)) == expected_groups(make_batch(entries), by)


def test_predicates_hold_and_what_is_gone_is_gone(catalog: LogCatalog) -> None:
    filled(catalog, make_entry(scene="a"), make_entry("dqcjr", scene="a"), make_entry(scene="b"))
    catalog.remove("id-s2", "b")
    found = groups_of(catalog.aggregate(Query(geocode="dqcjq"), keys_from("scene")))
    assert {key: group["tiles"] for key, group in found.items()} == {("a",): 1}


def test_what_cannot_be_summed_up_is_refused(
    catalog: LogCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(catalog, make_entry(scene="a"), make_entry(scene="b"))
    by = keys_from("scene")
    with pytest.raises(InvalidInputError, match="limit 3"):
        catalog.aggregate(Query(limit=3), by)
    with pytest.raises(NotFoundError, match="'x'"):
        catalog.aggregate(Query(datasets=("x",)), by)
    assert len(catalog.aggregate(Query(datasets=("x",)), by, missing_ok=True)) == 0
    monkeypatch.setattr(summary, "GROUPS_MAX", 1)
    with pytest.raises(InvalidInputError, match="more than 1 groups"):
        catalog.aggregate(Query(), by)
