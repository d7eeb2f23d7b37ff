"""Structures that took in rows of which some had died."""

from __future__ import annotations

from pathlib import Path

import pytest

from geostore.index import memory, open_catalog
from geostore.query import PercentRange, Query
from geostore.types import TimeSpan
from tests.synthetic_tiles import GEOHASH_DIGITS, make_entry


@pytest.mark.parametrize(
    "query",
    [
        Query(cloud=PercentRange(None, None)),
        Query(coverage=PercentRange(50, None)),
        Query(time=TimeSpan(0, None)),
        Query(geocode="dqcjq"[:4]),
        Query(platform="sentinel-2a"),
    ],
    ids=["cloud", "coverage", "time", "geocode", "platform"],
)
def test_rows_that_came_and_went_between_two_structures_are_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: Query
) -> None:
    monkeypatch.setattr(memory, "TAIL_ROWS", 6)
    cells = [f"dqcj{digit}" for digit in GEOHASH_DIGITS[:4]]
    with open_catalog(tmp_path, writable=True) as catalog:

        def publish(scene: str, version: str, replaced: str | None = None) -> None:
            catalog.stage([make_entry(cell, scene=scene, version=version) for cell in cells])
            catalog.publish("id-s2", scene, version, replaced)
            catalog.refresh()  # rows that went before memory heard of them never come in

        publish("first", "v1")
        assert catalog.count(query) == 4  # builds the structure
        publish("second", "v1")
        publish("second", "v2", "v1")
        assert catalog.count(query) == 8  # it takes in what came
        catalog.remove("id-s2", "first", "v1")
        assert catalog.count(query) == 4 == sum(map(len, catalog.query(query)))
        assert catalog.check() == []
