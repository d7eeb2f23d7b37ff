"""Tiles that are packed in arrays, published as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from geostore.errors import InvalidInputError
from geostore.index import LogCatalog, PackedTiles, open_catalog
from geostore.query import Query
from tests.benchmarks.million_tiles import Tiles, entries, make_tiles, packed


@pytest.fixture(scope="module")
def tiles() -> Tiles:
    return make_tiles(500, "scattered")


@pytest.fixture(scope="module")
def batch(tiles: Tiles) -> PackedTiles:
    return packed(tiles, 0, 500)


def rows(catalog: LogCatalog) -> list[object]:
    found = []
    for each in catalog.query(Query()):
        found += [replace(row, row_id=0) for row in each.rows()]
    return [repr(row) for row in found]


def test_they_are_what_entries_make(tmp_path: Path, tiles: Tiles, batch: PackedTiles) -> None:
    with (
        open_catalog(tmp_path / "a", writable=True) as one,
        open_catalog(tmp_path / "b", writable=True) as other,
    ):
        assert one.insert(batch) == 500
        assert other.rebuild(entries(tiles)) == 500
        assert rows(one) == rows(other)
        for key in one.keys()[::50]:
            mine, theirs = one.details(key), other.details(key)
            assert (mine.checksum, mine.bytes) == (theirs.checksum, theirs.bytes)
            assert mine.blocks.tobytes() == theirs.blocks.tobytes()
            assert mine.statistics == theirs.statistics
        assert one.check() == []
    with open_catalog(tmp_path / "a", writable=False) as again:
        assert again.count(Query()) == 500


def test_more_may_come_into_scenes_that_are_there(tmp_path: Path, tiles: Tiles) -> None:
    with open_catalog(tmp_path, writable=True) as catalog:
        assert catalog.insert(packed(tiles, 0, 255)) == 255  # within a scene
        assert catalog.insert(packed(tiles, 255, 500)) == 245
        assert catalog.check() == []


def test_what_is_there_is_refused(tmp_path: Path, tiles: Tiles, batch: PackedTiles) -> None:
    with open_catalog(tmp_path, writable=True) as catalog:
        catalog.insert(packed(tiles, 0, 100))
        with pytest.raises(InvalidInputError, match="is there already"):
            catalog.insert(packed(tiles, 95, 120))
        first = next(iter(entries(make_tiles(500, "scattered"))))
        catalog.remove(first.meta.key.dataset_id)
        catalog.stage([first])
        with pytest.raises(InvalidInputError, match="is there already"):
            catalog.insert(packed(tiles, 0, 10))
        assert catalog.check() == []


def changed(batch: PackedTiles, name: str, at: int, value: object) -> PackedTiles:
    table = batch.rows.copy()
    table[name][at] = value
    return replace(batch, rows=table)


def test_what_cannot_be_is_refused(tmp_path: Path, batch: PackedTiles) -> None:
    with open_catalog(tmp_path, writable=True) as catalog:
        for wrong, says in [
            (changed(batch, "geocode", 7, b"dqcia"), "none of its digits"),
            (changed(batch, "geocode", 1, batch.rows["geocode"][0]), "comes twice"),
            (changed(batch, "pixel_coverage", 3, 101.0), "packed tile 3: pixel coverage 101"),
            (changed(batch, "pixel_coverage", 3, np.nan), "expected percent"),
            (changed(batch, "cloud_cover", 4, -1.0), "packed tile 4: .* cloud cover -1"),
        ]:
            with pytest.raises(InvalidInputError, match=says):
                catalog.insert(wrong)
        with pytest.raises(InvalidInputError, match="expected as many rows"):
            replace(batch, details=b"")
        assert catalog.count(Query()) == 0
        assert catalog.check() == []
