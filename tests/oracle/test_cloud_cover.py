"""Cloud cover by tile equals a count on the product's own SCL_20m, warped by GDAL."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
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


def test_histograms_of_the_likelihood_count_its_pixels(real: RealStore) -> None:
    """CLDPRB's pixels are held against GDAL by invariant 3; here they are counted."""
    together = np.zeros(101, int)
    for tile in real.store.query(dataset="l2a-geohash"):
        read = tile.read(bands=["CLDPRB"])
        counted = np.bincount(read.data[0][read.mask[0]], minlength=101)
        histogram = tile.cloud_histogram
        if histogram is None:
            assert not counted.any()
            continue
        assert list(histogram) == counted.tolist()
        together += counted
    # The product's own likelihood, at its 60 m: 42.9 % are 50 or more where SCL has data.
    with in_memory(band_file(real.sources["l2a"], "CLDPRB")) as likelihood:
        granule = next(real.sources["l2a"].glob("GRANULE/*"))
        (classes,) = granule.glob("IMG_DATA/R60m/*_SCL_60m.jp2")
        with rasterio.open(classes) as dataset:
            seen = dataset.read(1) != 0
        share = 100 * (likelihood.read(1)[seen] >= 50).mean()
    assert share == pytest.approx(42.9, abs=0.1)
    assert 100 * together[50:].sum() / together.sum() == pytest.approx(share, abs=1.5)


def test_bands_lie_by_their_files_sizes_and_classes_keep_names_and_colours(real: RealStore) -> None:
    for tile in real.store.query(dataset="l2a-geohash", limit=3):
        (scl,) = [
            band for group in tile.schema.groups for band in group.bands if band.name == "SCL"
        ]
        assert scl.class_names["10"] == "thin cirrus"
        assert scl.class_colors["10"] == "#64c8ff"
        assert set(scl.class_colors) == set(scl.class_names) == set(map(str, range(12)))
        # The product has neither 10 m nor 20 m reflectances: each band is where its file's size is.
        assert [{band.name for band in group.bands} for group in tile.schema.groups] == [
            {"AOT"},
            {"SCL"},
            {"B01", "B02", "B03", "B04", "B8A", "B09", "B11", "B12", "WVP", "CLDPRB", "SNWPRB"},
        ]
