"""Invariants 3 and 4 for rasters that are placed in unusual ways.

One position a pixel, of the whole mosaic at once, by PROJ and by GDAL's transformer for the
file's control points: the source pixel there must be the one that the tiles have.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from pyproj import Transformer
from rasterio.transform import GCPTransformer

import geostore
from geostore.scenes import open_source

EDGE_PX = 1e-3
STEP_WITH_POINTS = 3
"""Of every so many pixels GDAL is asked where it lies: it takes microseconds for each."""
GEOHASH, QUADTILE = "geohash", "quadtile"


def _source_positions(
    source: rasterio.DatasetReader, crs: object, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(column, row) of places in `crs`, not rounded."""
    points, points_crs = source.gcps
    target = points_crs if points else source.crs
    x, y = Transformer.from_crs(crs, target, always_xy=True).transform(x, y)
    if not points:
        a, b, c, d, e, f = (~source.transform)[:6]
        with np.errstate(invalid="ignore"):
            return a * x + b * y + c, d * x + e * y + f
    with GCPTransformer(points) as transformer:
        rows, columns = transformer.rowcol(x, y, op=lambda value: value)
    return np.reshape(columns, x.shape), np.reshape(rows, x.shape)


@dataclass
class _Mosaic:
    """Tiles of one scene side by side, on their lattice."""

    data: np.ndarray
    valid: np.ndarray
    crs: object
    x: np.ndarray
    y: np.ndarray


def _mosaics(tiles: list[geostore.api.Tile], band: str, step: int) -> list[_Mosaic]:
    """One each side of the antimeridian; every `step`th pixel of them."""
    sides: dict[bool, list] = {}
    for tile in tiles:
        array = tile.read(bands=[band])
        sides.setdefault(array.transform.c < 0, []).append(array)
    found = []
    for arrays in sides.values():
        step_x, step_y = arrays[0].transform.a, arrays[0].transform.e
        left = min(array.transform.c for array in arrays)
        top = max(array.transform.f for array in arrays)
        _, height, width = arrays[0].data.shape
        at = [
            (round((one.transform.f - top) / step_y), round((one.transform.c - left) / step_x))
            for one in arrays
        ]
        shape = (max(row for row, _ in at) + height, max(column for _, column in at) + width)
        data, valid = np.zeros(shape, arrays[0].data.dtype), np.zeros(shape, bool)
        taken = np.zeros(shape, np.uint8)
        for (row, column), array in zip(at, arrays, strict=True):
            here = np.s_[row : row + height, column : column + width]
            data[here], valid[here] = array.data[0], array.mask[0]
            taken[here] += 1
        assert taken.max() == 1, "two tiles of one scene lie over each other"
        x, y = np.meshgrid(
            left + step_x * (np.arange(shape[1]) + 0.5), top + step_y * (np.arange(shape[0]) + 0.5)
        )
        some = np.s_[::step, ::step]
        found.append(_Mosaic(data[some], valid[some], arrays[0].crs, x[some], y[some]))
    return found


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("generic/cog_gcps.tif", GEOHASH),
        ("generic/cog_gcps.tif", QUADTILE),
        ("generic/goes.tif", GEOHASH),
        ("generic/cog_scale_stats.tif", GEOHASH),
    ],
)
def test_every_pixel_is_the_source_pixel_under_its_centre(
    shared_data: Path, tmp_path: Path, name: str, scheme: str
) -> None:
    with geostore.open(tmp_path / "store") as store, rasterio.open(shared_data / name) as source:
        (result,) = store.ingest([shared_data / name], scheme=scheme)
        assert (result.status, result.error, result.dataset) == ("ingested", None, "geotiff")
        tiles = list(store.query())
        step = STEP_WITH_POINTS if source.gcps[0] else 1
        assert len(tiles) == result.tiles
        for band in tiles[0].bands:
            data = source.read(int(band.removeprefix("B")))
            mask = source.read_masks(int(band.removeprefix("B"))) != 0
            checked = differing = 0
            for mosaic in _mosaics(tiles, band, step):
                columns, rows = _source_positions(source, mosaic.crs, mosaic.x, mosaic.y)
                with np.errstate(invalid="ignore"):
                    inside = (columns >= 0) & (columns < source.width)
                    inside &= (rows >= 0) & (rows < source.height)
                at = (
                    np.where(inside, rows, 0).astype(int),
                    np.where(inside, columns, 0).astype(int),
                )
                valid = inside & mask[at]
                wrong = (mosaic.valid != valid) | (valid & (mosaic.data != data[at]))
                with np.errstate(invalid="ignore"):
                    off_column = np.abs(columns - np.round(columns))
                    off_row = np.abs(rows - np.round(rows))
                    near = np.minimum(off_column, off_row) <= EDGE_PX
                assert not (wrong & ~near).any(), f"{band}: {(wrong & ~near).sum()} are wrong"
                checked += wrong.size
                differing += int(wrong.sum())
                assert wrong.sum(axis=0).max() <= max(4, len(wrong) // 500), "a seam"
            assert differing <= checked / 10_000


def test_what_is_told_of_control_points(shared_data: Path) -> None:
    path = shared_data / "generic" / "cog_gcps.tif"
    with rasterio.open(path) as source:
        points = source.gcps[0]
        with GCPTransformer(points) as transformer:
            rows, columns = transformer.rowcol(
                [one.x for one in points], [one.y for one in points], op=lambda value: value
            )
    missed = np.hypot(
        np.array(columns) - [one.col for one in points],
        np.array(rows) - [one.row for one in points],
    )
    (scene,) = open_source(path)
    with scene:
        assert scene.properties["control_points"] == {
            "points": 210,
            "method": "polynomial of order 2",
            "polynomial_error_rms_px": round(float(np.sqrt((missed**2).mean())), 3),
            "polynomial_error_max_px": round(float(missed.max()), 3),
        }
