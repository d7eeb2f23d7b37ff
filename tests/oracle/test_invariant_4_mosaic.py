"""Invariant 4: the mosaic of a scene's tiles equals one warp of the whole scene."""

from __future__ import annotations

import pytest
from rasterio.vrt import WarpedVRT

from tests.oracle.conftest import SCHEMES, RealStore
from tests.oracle.sources import band_file, in_memory
from tests.oracle.warps import mosaic_of

CASES = [
    ("main", "B04"),
    ("main", "B05"),
    ("main", "B01"),
    ("l2a", "SCL"),
    ("l2a", "B02"),
    ("rgb", "B1"),
    ("dateline", "B1"),
]


def _parts(tiles, band):
    """Tiles by side of the antimeridian: (column, row) of each on the lattice, and arrays."""
    sides: dict[bool, list] = {}
    for tile in tiles:
        array = tile.read(bands=[band])
        west = array.transform.c
        sides.setdefault(west < 0, []).append(array)
    return sides.values()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("name", "band"), CASES)
def test_mosaic_of_tiles_is_one_warp_of_the_scene(
    real: RealStore, name: str, band: str, scheme: str
) -> None:
    tiles = list(real.store.query(dataset=f"{name}-{scheme}"))
    band = band if band in tiles[0].bands else tiles[0].bands[0]
    file = band_file(real.sources[name], band)
    differing = checked = 0
    with in_memory(file) as dataset:
        for arrays in _parts(tiles, band):
            mosaic = mosaic_of(arrays)
            rows, columns = mosaic.data.shape
            with WarpedVRT(
                dataset,
                crs=mosaic.crs,
                transform=mosaic.transform,
                height=rows,
                width=columns,
                tolerance=1e-6,
                add_alpha=file.nodata is None,
            ) as reference:
                whole = reference.read(1)
                seen = reference.read(2) != 0 if file.nodata is None else whole != file.nodata
            wrong = mosaic.differs(whole, seen)
            differing += int(wrong.sum())
            checked += int(seen.sum())
            # A gap or seam is a run of wrong pixels; rounding at pixel edges is not.
            assert wrong.sum(axis=0).max() <= max(4, rows // 500)
            assert wrong.sum(axis=1).max() <= max(4, columns // 500)
    assert checked > 0
    assert differing <= checked / 10_000 + 1
