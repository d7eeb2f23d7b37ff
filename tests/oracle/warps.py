"""GDAL's own warp of a source band onto tiles' windows, and onto all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from pyproj import Transformer
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT

__all__ = ["Comparison", "Mosaic", "against_own_warp", "against_whole_warp", "mosaic_of", "warped"]

EDGE_PX = 1e-3


@dataclass(frozen=True)
class Comparison:
    """How many pixels were compared, how many differ."""

    checked: int
    differing: int

    def assert_same(self) -> None:
        """At most 1 in 10,000 (invariants 3 and 4)."""
        assert self.checked > 0
        assert self.differing <= self.checked / 10_000 + 1, self


@dataclass(frozen=True)
class Mosaic:
    """One band of all tiles of a scene, side by side."""

    data: np.ndarray
    """(height, width), 0 where no tile is."""
    valid: np.ndarray
    """The same shape."""
    covered: np.ndarray
    """The same shape: where a tile is."""
    crs: Any
    transform: Affine

    def differs(self, whole: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Where one warp of the whole scene says otherwise."""
        return (seen != self.valid) | (seen & (whole != self.data))


def mosaic_of(arrays: Sequence[Any]) -> Mosaic:
    """What reads of one band gave, put together; no two of them may overlap."""
    step_x, step_y = arrays[0].transform.a, arrays[0].transform.e
    left = min(array.transform.c for array in arrays)
    top = max(array.transform.f for array in arrays)
    places = [
        (round((one.transform.f - top) / step_y), round((one.transform.c - left) / step_x))
        for one in arrays
    ]
    _, height, width = arrays[0].data.shape
    shape = (max(row for row, _ in places) + height, max(column for _, column in places) + width)
    data = np.zeros(shape, arrays[0].data.dtype)
    valid, covered = np.zeros(shape, bool), np.zeros(shape, bool)
    for (row, column), array in zip(places, arrays, strict=True):
        here = np.s_[row : row + height, column : column + width]
        assert not covered[here].any(), "two tiles of one scene lie over each other"
        data[here] = array.data[0]
        valid[here] = array.mask[0]
        covered[here] = True
    place = Affine(step_x, 0, left, 0, step_y, top)
    return Mosaic(data, valid, covered, arrays[0].crs, place)


def warped(
    dataset: DatasetReader, crs: Any, transform: Affine, shape: tuple[int, int], tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Band 1 by nearest, and where it is valid by the dataset's nodata and extent."""
    nodata = dataset.nodata
    with WarpedVRT(
        dataset,
        crs=crs,
        transform=transform,
        height=shape[0],
        width=shape[1],
        tolerance=tolerance,
        add_alpha=nodata is None,
    ) as reference:
        data = reference.read(1)
        return data, reference.read(2) != 0 if nodata is None else data != nodata


def against_own_warp(tiles: Sequence[Any], band: str, dataset: DatasetReader) -> Comparison:
    """Each tile against its own warp; pixels may differ only at source pixels' edges."""
    checked = differing = 0
    for tile in tiles:
        ours = tile.read(bands=[band])
        shape = ours.data.shape[1:]
        data, valid = warped(dataset, ours.crs, ours.transform, shape, 1e-9)
        wrong = (ours.mask[0] != valid) | (valid & (ours.data[0] != data))
        checked += wrong.size
        differing += int(wrong.sum())
        rows, columns = np.nonzero(wrong)
        if rows.size:
            x, y = ours.transform @ (columns + 0.5, rows + 0.5)
            way = Transformer.from_crs(ours.crs, dataset.crs, always_xy=True)
            column, row = ~dataset.transform @ way.transform(x, y)
            edge = np.minimum(np.abs(column - np.round(column)), np.abs(row - np.round(row)))
            assert (edge <= EDGE_PX).all(), f"{tile.geocode} {band}: pixels are wrong"
    return Comparison(checked, differing)


def against_whole_warp(tiles: Sequence[Any], band: str, dataset: DatasetReader) -> Comparison:
    """The mosaic of all tiles against one warp: no seam, no gap, no pixel twice."""
    mosaic = mosaic_of([tile.read(bands=[band]) for tile in tiles])
    shape = mosaic.data.shape
    whole, seen = warped(dataset, mosaic.crs, mosaic.transform, shape, 1e-6)
    wrong = mosaic.differs(whole, seen)
    # A gap or seam is a run of wrong pixels; rounding at pixel edges is not.
    assert wrong.sum(axis=0).max() <= max(4, shape[0] // 500)
    assert wrong.sum(axis=1).max() <= max(4, shape[1] // 500)
    return Comparison(int(seen.sum()), int(wrong.sum()))
