"""Coverage search on real series, against unions of tiles read pixel by pixel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import geostore
from geostore.api import Store, Tile
from geostore.types import BandRole

SERIES = {
    "naip": ("naip/m_4709963_se_14_1_20*.tif", {}),
    "landsat": ("landsat/L8NY18", {"length": 3, "resolution": (1500, 3000)}),
    "worldcereal": ("sentinel2/worldcereal_preprocessed_inputs.nc", {"length": 6}),
}
WINDOWS = {
    "naip": (None, "5Y"),
    "landsat": (None, "16D", "1M"),
    "worldcereal": (None, "3M"),
}
FILL = 1
"""BQA of Collection 1 outside the scene."""


@pytest.fixture(scope="module")
def store(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with geostore.open(str(tmp_path_factory.mktemp("series") / "store")) as opened:
        for name, (path, options) in SERIES.items():
            for result in opened.ingest([str(shared_data / path)], dataset=name, **options):
                assert result.error is None, result
        yield opened


def is_clear(bqa: np.ndarray) -> np.ndarray:
    """By the Collection 1 quality band: no cloud (bit 4), no cirrus of high confidence (11-12)."""
    return ((bqa >> 4 & 1) == 0) & ((bqa >> 11 & 3) != 3) & (bqa != FILL)


@cache
def _seen(tile_of: Tile) -> tuple[np.ndarray, np.ndarray]:
    """Where all measured bands of a tile are valid, and where they are clear as well."""
    bands = [band.name for band in tile_of.schema.bands if band.role is BandRole.DATA]
    finest = tile_of.schema.groups[0].resolution_m
    # Masks of nearest reads: a coarser band's pixel counts for all finer ones under it.
    valid = np.logical_and.reduce([tile_of.read([name], finest).mask[0] for name in bands])
    if tile_of.schema.find_band("BQA") is None:
        return valid, np.zeros_like(valid)
    quality = tile_of.read(["BQA"], finest)
    return valid, valid & is_clear(quality.data[0]) & quality.mask[0]


def _window_start(tile: Tile, window: str | None) -> datetime | None:
    """By the calendar: the windows of this test are few enough to write out."""
    if window is None:
        return None
    assert tile.time is not None
    year, month = tile.time.year, tile.time.month
    if window == "16D":
        days = (tile.time - datetime(1970, 1, 1, tzinfo=UTC)).days // 16 * 16
        return datetime.fromtimestamp(days * 86400, UTC)
    if window == "5Y":
        return datetime(year - year % 5, 1, 1, tzinfo=UTC)
    return datetime(year, month if window == "1M" else month - (month - 1) % 3, 1, tzinfo=UTC)


CASES = [(name, window) for name, windows in WINDOWS.items() for window in windows]


@pytest.mark.parametrize(("dataset", "window"), CASES)
@pytest.mark.parametrize("clear", [False, True])
def test_bounds_hold_and_refined_answers_are_exact(
    store: Store, dataset: str, window: str | None, *, clear: bool
) -> None:
    unions: dict[tuple[str, datetime | None], np.ndarray] = {}
    scenes = defaultdict(set)
    for tile in _tiles(store, dataset):
        group = tile.geocode, _window_start(tile, window)
        seen = _seen(tile)[int(clear)]
        unions[group] = unions[group] | seen if group in unions else seen
        scenes[group].add(tile.scene)
    shares = {group: 100.0 * union.mean() for group, union in unions.items()}
    asked = {"dataset": dataset, "window": window, "clear": clear}
    counted = store.coverage(exact=True, **asked)
    assert {(row.geocode, row.window_start) for row in counted} == set(shares)
    for row in counted:
        group = row.geocode, row.window_start
        assert row.coverage == pytest.approx(shares[group], abs=1e-9)
        assert set(row.scenes) == scenes[group]
        assert row.tiles == len(row.scenes)
    # Targets at which groups are on either side, and one that a group just reaches.
    highest = max(shares.values())
    for target in {50.0, 95.0, highest} - {0.0}:
        for row in store.coverage(target=target, refine=False, **asked):
            due = shares[row.geocode, row.window_start]
            assert row.coverage_min - 1e-9 <= due <= row.coverage_max + 1e-9
            assert row.reached in (None, due >= target)
        for row in store.coverage(target=target, **asked):
            assert row.reached == (shares[row.geocode, row.window_start] >= target)


@cache
def _tiles(store: Store, dataset: str) -> list[Tile]:
    return list(store.query(dataset=dataset))


def test_the_series_have_something_to_find(store: Store) -> None:
    """Cells that no tile covers, but two weeks' or a year's together do; and unsure ones."""
    clear = {"dataset": "landsat", "target": 70, "clear": True}
    alone = store.coverage(window="1D", **clear).reached()
    together = store.coverage(window="1Y", **clear).reached()
    assert {row.geocode for row in together} >= {row.geocode for row in alone}
    assert any(len(row.scenes) > 5 for row in together)
    unsure = list(store.coverage(window="16D", refine=False, **clear))
    assert any(row.reached is None for row in unsure)
    assert any(row.reached for row in unsure)
    (empty,) = {row.reached for row in store.coverage(dataset="worldcereal", clear=True)}
    assert empty is False, "nothing tells clouds there"


def test_max_cloud_leaves_tiles_out_as_a_query_does(store: Store) -> None:
    counts = {
        (row.geocode): row.tiles
        for row in store.coverage(dataset="landsat", window=None, max_cloud=20)
    }
    due: dict[str, int] = defaultdict(int)
    for tile in store.query(dataset="landsat", cloud_cover=(None, 20)):
        due[tile.geocode] += 1
    assert counts == due
