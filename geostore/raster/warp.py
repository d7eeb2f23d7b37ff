"""Source pixels onto a lattice window.

Nearest is ours: the source pixel under each lattice pixel's centre by PROJ, gathered.
Every other method is GDAL's warper, run on exactly one cell at a time so that its result
depends on nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling as GdalResampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject
from rasterio.windows import Window

from geostore.errors import InternalError
from geostore.grid import LatticeWindow, part_within
from geostore.raster.control_points import fit_control_points
from geostore.raster.positions import SourceWindow, longitude_shift, positions
from geostore.raster.source import SourceGrid
from geostore.types import BBox, Resampling

__all__ = ["NearestMap", "nearest_map", "resample", "resample_margin_px"]

_Mask = npt.NDArray[np.bool_]
_Pixels = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class NearestMap:
    """For each lattice pixel, which pixel of a source window lies under its centre.

    Made for a part of a lattice window (`part`), outside of which the source has no pixel.
    """

    part: tuple[slice, slice]
    """Rows and columns of the window that `index` is about."""
    shape: tuple[int, int]
    """(height, width) of the window."""
    index: npt.NDArray[np.intp]
    """(height, width) of the part: flat index into the source window; 0 where there is none."""
    inside: _Mask | None
    """The same shape: True where the source has a pixel there; None means everywhere."""
    source: SourceWindow
    seen: _Mask | bool
    """(height, width) of the window, or True: where the source has a pixel; one array for all
    bands, so that it is looked at once."""

    def gather(self, pixels: _Pixels, fill: float | int) -> _Pixels:
        """Lattice pixels of one band, of the window's shape; a new array.

        Args:
            pixels: the source window's pixels, (source.height, source.width), contiguous.
            fill: what lattice pixels get where the source has none.
        """
        if pixels.shape != (self.source.height, self.source.width):
            raise InternalError(f"window {self.source} got pixels of shape {pixels.shape}")
        # "clip" spares the bounds check.
        taken = np.take(pixels.reshape(-1), self.index, mode="clip")
        if self.inside is not None:
            np.copyto(taken, np.asarray(fill, dtype=taken.dtype), where=~self.inside)
        if self.index.shape == self.shape:
            return taken
        whole = np.full(self.shape, fill, dtype=taken.dtype)
        whole[self.part] = taken
        return whole

    def gather_mask(self, valid: _Mask | None) -> _Mask | bool:
        """Which lattice pixels got a valid source pixel; True or False where all are alike.

        Args:
            valid: validity of the source window's pixels; None means all valid.
        """
        if valid is None:
            return self.seen
        mask = np.take(valid.reshape(-1), self.index, mode="clip")
        if self.inside is not None:
            mask &= self.inside
        return _in_whole(mask, self.part, self.shape)


def nearest_map(
    window: LatticeWindow,
    grid: SourceGrid,
    source: SourceWindow,
    bounds: Sequence[BBox] | None = None,
) -> NearestMap | None:
    """The map from a lattice window into a source window; None where they do not meet.

    Args:
        source: a window of the source that holds every position (`source_window` gives one).
        bounds: boxes that hold the whole source raster: only what lies in them is looked at.

    Raises:
        InternalError: `source` misses a pixel that is needed.
    """
    part = window if bounds is None else part_within(window, bounds)
    if part is None:
        return None
    columns, rows = positions(part, grid)
    inside: _Mask | None = None
    with np.errstate(invalid="ignore"):
        low_c, high_c = columns.min(), columns.max()
        low_r, high_r = rows.min(), rows.max()
        # NaN fails every comparison, so a window with one takes the careful branch.
        if not (low_c >= 0 and high_c < grid.width and low_r >= 0 and high_r < grid.height):
            inside = (columns >= 0) & (columns < grid.width)
            inside &= rows >= 0
            inside &= rows < grid.height
            if not inside.any():
                return None
            columns[~inside] = source.column
            rows[~inside] = source.row
    # All are >= 0 now, so the cast's truncation is the floor.
    column = columns.astype(np.intp)
    index = rows.astype(np.intp)
    column -= source.column
    index -= source.row
    if (
        column.min() < 0
        or column.max() >= source.width
        or index.min() < 0
        or index.max() >= source.height
    ):
        raise InternalError(f"source window {source} is too small for lattice window {window}")
    index *= source.width
    index += column
    if inside is not None and inside.all():
        inside = None
    top, left = part.row - window.row, part.column - window.column
    place = (slice(top, top + part.height), slice(left, left + part.width))
    shape = (window.height, window.width)
    return NearestMap(place, shape, index, inside, source, _in_whole(inside, place, shape))


def _in_whole(
    mask: _Mask | None, part: tuple[slice, slice], shape: tuple[int, int]
) -> _Mask | bool:
    """A part's mask (None: all True) as the whole window's; True or False where all alike."""
    if mask is not None and not mask.any():
        return False
    if (part[0].stop - part[0].start, part[1].stop - part[1].start) != shape:
        whole: _Mask = np.zeros(shape, dtype=bool)
        whole[part] = True if mask is None else mask
        return whole
    return True if mask is None or mask.all() else mask


_GDAL_RESAMPLING: dict[Resampling, GdalResampling] = {
    "bilinear": GdalResampling.bilinear,
    "cubic": GdalResampling.cubic,
    "average": GdalResampling.average,
    "mode": GdalResampling.mode,
    "lanczos": GdalResampling.lanczos,
}
_WARP_TOLERANCE_PX = 1e-4
_KERNEL_RADIUS_PX = 3  # Lanczos, the widest

# rasterio changes the process's warning filters while it reprojects arrays: of two threads the
# second would put back what the first had changed.
_reproject_lock = threading.Lock()


def resample_margin_px(window: LatticeWindow, source: SourceWindow) -> int:
    """Source pixels that a kernel needs around the source window of a lattice window."""
    shrink = max(source.height / window.height, source.width / window.width, 1.0)
    return int(np.ceil(_KERNEL_RADIUS_PX * shrink)) + 2


def resample(
    pixels: _Pixels,
    valid: _Mask | None,
    grid: SourceGrid,
    source: SourceWindow,
    window: LatticeWindow,
    method: Resampling,
    fill: float | int,
) -> tuple[_Pixels, _Mask | bool]:
    """One band's lattice pixels by GDAL's warper (any method but nearest).

    Args:
        pixels: the source window's pixels, with `resample_margin_px` around what is needed.
        valid: their validity; None means all valid. Invalid pixels have no weight.

    Returns:
        Pixels (window.height, window.width) in the source's dtype, and the validity mask or
        True or False where it is uniform.
    """
    if grid.control:
        data, mask = _resample_by_points(pixels, valid, grid, source, window, method)
    else:
        data, mask = _resample_by_transform(pixels, valid, grid, source, window, method)
    np.copyto(data, np.asarray(fill, dtype=data.dtype), where=~mask)
    if mask.all():
        return data, True
    return data, (mask if mask.any() else False)


def _resample_by_transform(
    pixels: _Pixels,
    valid: _Mask | None,
    grid: SourceGrid,
    source: SourceWindow,
    window: LatticeWindow,
    method: Resampling,
) -> tuple[_Pixels, _Mask]:
    a, b, c, d, e, f = grid.transform
    origin_x = c + a * source.column + b * source.row
    origin_y = f + d * source.column + e * source.row
    profile = {
        "driver": "GTiff",
        "height": source.height,
        "width": source.width,
        "count": 1,
        "dtype": pixels.dtype.name,
        "crs": grid.crs_wkt,
        "transform": rasterio.Affine(a, b, origin_x, d, e, origin_y),
    }
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), MemoryFile() as file:
        with file.open(**profile) as target:
            target.write(pixels, 1)
            if valid is not None:
                target.write_mask(valid)
        with (
            file.open() as dataset,
            WarpedVRT(
                dataset,
                crs=window.crs,
                transform=rasterio.Affine(*window.transform),
                height=window.height,
                width=window.width,
                resampling=_GDAL_RESAMPLING[method],
                add_alpha=True,
                tolerance=_WARP_TOLERANCE_PX,
            ) as warped,
        ):
            whole = Window(0, 0, window.width, window.height)
            data = warped.read(1, window=whole)
            mask: _Mask = warped.read(warped.count, window=whole) != 0
    return data, mask


def _resample_by_points(
    pixels: _Pixels,
    valid: _Mask | None,
    grid: SourceGrid,
    source: SourceWindow,
    window: LatticeWindow,
    method: Resampling,
) -> tuple[_Pixels, _Mask]:
    """By GDAL's own map of the same control points, within its tolerance of 1/8 pixel."""
    fit = fit_control_points(grid.control, grid.crs_wkt, grid.height, grid.width)
    shift = longitude_shift(window, grid)
    points = [
        GroundControlPoint(
            point.row - source.row, point.column - source.column, point.x - shift, point.y
        )
        for point in fit.unwrapped
    ]
    layers = np.ones((2, *pixels.shape), pixels.dtype)
    layers[0] = pixels
    if valid is not None:
        layers[1] = valid
    warped = np.zeros((2, window.height, window.width), pixels.dtype)
    with _reproject_lock:
        reproject(
            layers,
            warped,
            gcps=points,
            src_crs=grid.crs_wkt,
            dst_crs=window.crs,
            dst_transform=rasterio.Affine(*window.transform),
            resampling=_GDAL_RESAMPLING[method],
            src_alpha=2,
            dst_alpha=2,
            SRC_ALPHA_MAX="1",
            DST_ALPHA_MAX="1",
            **fit.gdal_options,
        )
    return warped[0], warped[1] > 0
