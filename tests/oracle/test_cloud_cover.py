"""Cloud cover by tile equals a count on the product's own SCL_20m, warped by GDAL."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds

from tests.oracle.conftest import SCHEMES, RealStore
from tests.oracle.sources import band_file, in_memory

CLOUD_CLASSES = (8, 9, 10)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_cloud_cover_is_a_count_on_the_scene_classification(real: RealStore, scheme: str) -> None:
    tiles = list(real.store.query(dataset=f"l2a-{scheme}"))
    nulls = 0
    cloudy = total = 0
    with in_memory(band_file(real.sources["l2a"], "SCL")) as dataset:
        for tile in tiles:
            (group,) = [g for g in tile.schema.groups if any(b.name == "SCL" for b in g.bands)]
            west, south, east, north = tile.bbox.as_tuple()
            left, bottom, right, top = transform_bounds(
                "EPSG:4326",
                "EPSG:4326" if scheme == "geohash" else "EPSG:3857",
                west,
                south,
                east,
                north,
            )
            with WarpedVRT(
                dataset,
                crs="EPSG:4326" if scheme == "geohash" else "EPSG:3857",
                transform=Affine(
                    (right - left) / group.width, 0, left, 0, (bottom - top) / group.height, top
                ),
                height=group.height,
                width=group.width,
                tolerance=1e-6,
            ) as warped:
                classes = warped.read(1)
            seen = int(np.count_nonzero(classes))
            cloud = int(np.isin(classes, CLOUD_CLASSES).sum())
            if not seen:
                assert tile.cloud_cover is None
                nulls += 1
                continue
            assert tile.cloud_method == "SCL 8,9,10"
            # Two pixels on an edge may fall either way between two warps.
            assert tile.cloud_cover == pytest.approx(100 * cloud / seen, abs=200 / seen + 1e-4)
            cloudy, total = cloudy + cloud, total + seen
    assert nulls < len(tiles)
    # The product says 59.8 % of the whole granule (ESA's count, on the UTM grid).
    assert 100 * cloudy / total == pytest.approx(59.8, abs=1.5)


def test_scenes_without_a_cloud_layer_have_null_cover(real: RealStore) -> None:
    for name in ("main-geohash", "rgb-geohash", "dateline-geohash"):
        assert all(tile.cloud_cover is None for tile in real.store.query(dataset=name))
        assert not real.store.query(dataset=name, cloud_cover=(0, 100)).count()
