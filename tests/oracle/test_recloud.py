"""Covers by a likelihood equal counts on the product's own MSK_CLDPRB_60m, warped by GDAL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds

from geostore.api import Tile
from tests.oracle.conftest import SCHEMES, RealStore
from tests.oracle.sources import BandFile, band_file, in_memory

THRESHOLDS = (1, 20, 50, 95)
EVERY = int(os.environ.get("GEOSTORE_TEST_RECLOUD_EVERY", "41"))
"""Of so many tiles one is warped again here; 1: all of them, by hand."""


def _classes_60m(safe: Path) -> BandFile:
    (path,) = safe.rglob("*_SCL_60m.jp2")
    return BandFile(str(path), 1, 0)


def _warped(dataset: DatasetReader, tile: Tile, crs: str) -> npt.NDArray[np.uint8]:
    """A source band on the pixels of a tile's likelihood."""
    (group,) = [g for g in tile.schema.groups if any(b.name == "CLDPRB" for b in g.bands)]
    left, bottom, right, top = transform_bounds("EPSG:4326", crs, *tile.bbox.as_tuple())
    size = Affine((right - left) / group.width, 0, left, 0, (bottom - top) / group.height, top)
    with WarpedVRT(
        dataset, crs=crs, transform=size, height=group.height, width=group.width, tolerance=1e-6
    ) as warped:
        pixels: npt.NDArray[np.uint8] = warped.read(1)
    return pixels


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest, real: RealStore) -> Iterator[Any]:
    """A scheme; whatever rule its test leaves, the provider's comes back."""
    yield request.param
    real.store.recloud(f"l2a-{request.param}", method="provider")


def test_covers_follow_the_products_own_probability(real: RealStore, scheme: str) -> None:
    name, store = f"l2a-{scheme}", real.store
    before = {tile.geocode: tile.cloud_cover for tile in store.query(dataset=name)}
    crs = "EPSG:4326" if scheme == "geohash" else "EPSG:3857"
    with (
        in_memory(band_file(real.sources["l2a"], "CLDPRB")) as likelihood,
        in_memory(_classes_60m(real.sources["l2a"])) as classes,
    ):
        pixels = {
            tile.geocode: _warped(likelihood, tile, crs)[_warped(classes, tile, crs) != 0]
            for tile in islice(store.query(dataset=name), 0, None, EVERY)
        }
    assert sum(seen.size > 0 for seen in pixels.values()) > 5
    for threshold in THRESHOLDS:
        report = store.recloud(name, threshold=threshold)
        assert report.tiles == len(before)
        for tile in islice(store.query(dataset=name), 0, None, EVERY):
            seen = pixels[tile.geocode]
            if not seen.size:
                assert (tile.cloud_cover, tile.cloud_method) == (None, None)
                continue
            assert tile.cloud_method == f"CLDPRB >= {threshold}"
            # Some pixels on an edge may fall either way between two warps.
            due = 100 * np.count_nonzero(seen >= threshold) / seen.size
            assert tile.cloud_cover == pytest.approx(due, abs=300 / seen.size + 1e-4)
    store.recloud(name, method="provider")
    assert {tile.geocode: tile.cloud_cover for tile in store.query(dataset=name)} == before


@pytest.mark.parametrize("scheme", ["geohash"], indirect=True)
def test_classes_and_probability_are_not_the_same_thing(real: RealStore, scheme: str) -> None:
    """What the guide says of this product: 59.8 % by its classes, 42.9 % by its probability."""
    with (
        rasterio.open(band_file(real.sources["l2a"], "CLDPRB").path) as likelihood,
        rasterio.open(_classes_60m(real.sources["l2a"]).path) as classes,
    ):
        known = classes.read(1) != 0
        by_classes = np.isin(classes.read(1), (8, 9, 10))[known].mean() * 100
        by_probability = (likelihood.read(1)[known] >= 50).mean() * 100
    assert by_classes == pytest.approx(59.8, abs=0.3)
    assert by_probability == pytest.approx(42.9, abs=0.05)
    for rule, due in (({"method": "provider"}, 59.8), ({"threshold": 50}, 42.9)):
        real.store.recloud(f"l2a-{scheme}", **rule)  # type: ignore[arg-type]
        cloudy = total = 0.0
        for tile in real.store.query(dataset=f"l2a-{scheme}"):
            pixels = sum(tile.cloud_histogram or ())
            cloudy, total = cloudy + pixels * (tile.cloud_cover or 0.0), total + pixels
        assert cloudy / total == pytest.approx(due, abs=1.5)
