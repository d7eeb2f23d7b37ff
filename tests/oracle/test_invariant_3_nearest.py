"""Invariant 3: a nearest-warped pixel is the source pixel under its centre by PROJ.

The reference is GDAL's warper at a tolerance of 1e-9 source pixels. At most 1 in 10,000
pixels may differ, and each of those only where PROJ's position lies within 1e-3 px of a
source pixel's edge. Masks follow the source's nodata in the same way.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
import rasterio
from pyproj import Transformer
from rasterio.vrt import WarpedVRT

from tests.oracle.conftest import SCENES, SCHEMES, RealStore
from tests.oracle.sources import band_file, in_memory

TILES_MAX = 50
EDGE_PX = 1e-3


def _near_an_edge(dataset, crs, transform, rows, columns) -> np.ndarray:
    """Whether PROJ puts these lattice pixels within EDGE_PX of a source pixel's edge."""
    x, y = transform * (columns + 0.5, rows + 0.5)
    x, y = Transformer.from_crs(crs, dataset.crs, always_xy=True).transform(x, y)
    column, row = ~dataset.transform * (np.asarray(x), np.asarray(y))
    distance = np.minimum(np.abs(column - np.round(column)), np.abs(row - np.round(row)))
    return distance <= EDGE_PX


def _one_band_a_group_and_role(tile) -> list[str]:
    """Bands of one group and role share their lattice and source grid, so one stands for all."""
    found = {}
    for group in tile.schema.groups:
        for band in group.bands:
            found.setdefault((group.name, band.role, band.nodata), band.name)
    return list(found.values())


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", SCENES)
def test_nearest_pixels_and_masks_are_the_source_pixel_under_the_centre(
    real: RealStore, name: str, scheme: str
) -> None:
    tiles = list(real.store.query(dataset=f"{name}-{scheme}"))
    assert len(tiles) == real.results[f"{name}-{scheme}"].tiles > 0
    tiles = random.Random(3).sample(tiles, min(TILES_MAX, len(tiles)))
    checked = differing = 0
    for band in _one_band_a_group_and_role(tiles[0]):
        file = band_file(real.sources[name], band)
        with in_memory(file) as dataset:
            for tile in tiles:
                ours = tile.read(bands=[band])
                _, height, width = ours.data.shape
                with WarpedVRT(
                    dataset,
                    crs=ours.crs,
                    transform=ours.transform,
                    height=height,
                    width=width,
                    tolerance=1e-9,
                    add_alpha=file.nodata is None,
                ) as reference:
                    data = reference.read(1)
                    valid = reference.read(2) != 0 if file.nodata is None else data != file.nodata
                if band in {"AOT", "WVP", "CLDPRB", "SNWPRB"}:
                    # No nodata of their own: they end where every measured band ends, so
                    # only what we call valid can be compared.
                    valid = ours.mask[0]
                wrong = (ours.mask[0] != valid) | (valid & (ours.data[0] != data))
                checked += wrong.size
                differing += int(wrong.sum())
                if wrong.any():
                    rows, columns = np.nonzero(wrong)
                    near = _near_an_edge(dataset, ours.crs, ours.transform, rows, columns)
                    assert near.all(), f"{tile.geocode} {band}: {(~near).sum()} pixels are wrong"
    assert differing <= checked / 10_000, f"{differing} of {checked} pixels differ"


def test_a_tile_without_a_valid_measured_pixel_is_not_made(real: RealStore) -> None:
    with rasterio.open(band_file(real.sources["l2a"], "B02").path) as source:
        valid_share = np.mean(source.read(1) != 0)
    assert valid_share < 0.9, "the scene is meant to lie at a swath's edge"
    for tile in real.store.query(dataset="l2a-geohash"):
        if tile.pixel_coverage == 0:
            masks = tile.read(bands=[b for b in tile.bands if b.startswith("B") or b == "SCL"]).mask
            assert masks.any(), tile.geocode
