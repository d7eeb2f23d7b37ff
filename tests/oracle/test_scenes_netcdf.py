"""The real time series against GDAL's own reading of it, and its tiles against PROJ."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from pyproj import Transformer

import geostore
from geostore.scenes import open_source
from geostore.types import BandRole

NAME = "sentinel2/worldcereal_preprocessed_inputs.nc"
MISSING = 65535
OPTICAL = [f"S2-L2A-B{band}" for band in ("02", "03", "04", "05", "06", "07", "08", "11", "12")]
OTHERS = ["S1-SIGMA0-VH", "S1-SIGMA0-VV", "slope", "elevation", "AGERA5-PRECIP", "AGERA5-TMEAN"]
MONTHS = [(2020, 11), (2020, 12), *((2021, month) for month in range(1, 11))]
EMPTY = {(2020, 12), (2021, 1)}
"""Months of which the optical bands have nothing."""
EDGE_PX = 1e-3


def gdals(path: Path, band: str) -> np.ndarray:
    """(12, 100, 100) as GDAL reads it."""
    with rasterio.open(f"netcdf:{path}:{band}") as source:
        assert source.crs.to_epsg() == 32631
        assert tuple(source.transform)[:6] == (10.0, 0.0, 664000.0, 0.0, -10.0, 5612120.0)
        return source.read().astype("uint16")


def test_one_scene_a_month(shared_data: Path) -> None:
    path = shared_data / NAME
    scenes = open_source(path)
    assert [datetime.fromtimestamp(one.time_us / 1e6, UTC) for one in scenes] == [
        datetime(year, month, 1, tzinfo=UTC) for year, month in MONTHS
    ]
    assert [one.id for one in scenes] == [
        f"worldcereal_preprocessed_inputs-7b9361a2-{year}{month:02}01" for year, month in MONTHS
    ]
    for index, scene in enumerate(scenes):
        assert (scene.reader, scene.platform, scene.cloud) == ("netcdf", None, None)
        assert scene.time_end_us == scene.time_us
        assert [band.info.name for band in scene.bands] == [*OPTICAL, *OTHERS]
        for band in scene.bands if index in {0, 1} else scene.bands[:1]:
            assert (band.info.role, band.info.dtype) == (BandRole.DATA, "uint16")
            assert (band.info.nodata, band.info.native_resolution_m) == (MISSING, 10.0)
            grid = band.source.grid
            assert grid.transform == (10.0, 0.0, 664000.0, 0.0, -10.0, 5612120.0)
            expected = gdals(path, band.info.name)[index]
            pixels, valid = band.source.read(0, 0, 100, 100)
            np.testing.assert_array_equal(pixels, expected)
            mask = np.ones_like(expected, bool) if valid is None else valid
            np.testing.assert_array_equal(mask, expected != MISSING)
        scene.close()


def test_tiles_are_the_pixels_under_their_centres(shared_data: Path, tmp_path: Path) -> None:
    """Invariants 3 and 4, of every month."""
    path = shared_data / NAME
    with geostore.open(tmp_path / "store") as store:
        results = store.ingest([path])
        assert [one.status for one in results] == ["ingested"] * 12
        assert {one.dataset for one in results} == {"netcdf"}
        sources = {band: gdals(path, band) for band in (*OPTICAL, *OTHERS)}
        for index, result in enumerate(results):
            tiles = list(store.query(scene=result.scene))
            assert len(tiles) == result.tiles
            seen = 0
            for tile in tiles:
                array = tile.read(bands=list(sources))
                _, height, width = array.data.shape
                columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
                a, _, c, _, e, f = array.transform[:6]
                x, y = a * columns + c, e * rows + f
                to_utm = Transformer.from_crs(array.crs, "EPSG:32631", always_xy=True)
                x, y = to_utm.transform(x, y)
                column, row = (x - 664000.0) / 10.0, (5612120.0 - y) / 10.0
                inside = (column >= 0) & (column < 100) & (row >= 0) & (row < 100)
                at = (np.where(inside, row, 0).astype(int), np.where(inside, column, 0).astype(int))
                edge = np.minimum(np.abs(column - np.round(column)), np.abs(row - np.round(row)))
                everywhere = inside.copy()
                for data, mask, source in zip(
                    array.data, array.mask, sources.values(), strict=True
                ):
                    pixels = source[index][at]
                    valid = inside & (pixels != MISSING)
                    wrong = (mask != valid) | (valid & (data != pixels))
                    assert not (wrong & (edge > EDGE_PX)).any()
                    assert wrong.sum() <= wrong.size / 10_000
                    everywhere &= valid
                seen += int(inside.sum())
                assert everywhere.any() == (MONTHS[index] not in EMPTY)
                assert tile.pixel_coverage == pytest.approx(100.0 * everywhere.mean(), abs=1e-3)
                assert tile.cloud_cover is None
            # The mosaic has every pixel of the file, at about the lattice's density.
            assert seen >= 100 * 100
