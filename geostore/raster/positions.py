"""Where a lattice pixel's centre lies in a source raster.

PROJ is asked at a few Chebyshev nodes of each window and a tensor polynomial carries the
answer to every pixel; the result is checked against PROJ between the nodes, and a window
whose error exceeds `TOLERANCE_PX` (a pole, the edge of a projection, the antimeridian) is
cut in four, down to asking PROJ for every pixel. That makes positions a pure function of
the window and the source grid: block sizes, threads and memory cannot change them.

GDAL's own approximating transformer interpolates linearly along the scanlines of whatever
chunk it happens to warp, so its result depends on the chunk; hence it is not used here.

Interpolation: Trefethen, "Approximation Theory and Approximation Practice", chapter 5
(barycentric formula at Chebyshev points of the second kind).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from pyproj import Transformer

from geostore.errors import UnreadableSourceError
from geostore.grid import LatticeWindow, pixel_size_m
from geostore.raster.control_points import ControlFit, fit_control_points
from geostore.raster.projection import parse_crs, project, transformer, whole_turn
from geostore.raster.source import SourceGrid

__all__ = [
    "TOLERANCE_PX",
    "SourceWindow",
    "longitude_shift",
    "native_pixel_size_m",
    "positions",
    "source_window",
]

TOLERANCE_PX = 1e-6
"""Largest accepted distance, in source pixels, from PROJ's own answer at the check points."""

_NODES = 8
_PATCH_MIN_PX = 16
_EDGE_SAMPLES = 33
_PRODUCT_SIZE_MAX = 16_384
"""Elements of one matrix product: below what makes BLAS start threads of its own, which would
only get in the way of ingest's (measured: two workers were slower than one)."""

_Floats = npt.NDArray[np.float64]
_Transform = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class SourceWindow:
    """A window of a source raster, in its pixels."""

    row: int
    column: int
    height: int
    width: int


def _chebyshev(count: int) -> tuple[_Floats, _Floats]:
    """Chebyshev points of the second kind on [0, 1] and their barycentric weights."""
    k = np.arange(count)
    points = 0.5 * (1.0 - np.cos(np.pi * k / (count - 1)))
    weights = np.where(k % 2 == 0, 1.0, -1.0)
    weights[0] *= 0.5
    weights[-1] *= 0.5
    return points, weights


_POINTS, _WEIGHTS = _chebyshev(_NODES)
_CHECKS = (_POINTS[:-1] + _POINTS[1:]) / 2


def _basis(at: _Floats) -> _Floats:
    """(len(at), _NODES): row i evaluates the interpolating polynomial at `at[i]` of [0, 1]."""
    difference = at[:, None] - _POINTS[None, :]
    exact = difference == 0.0
    difference[exact] = 1.0
    terms = _WEIGHTS[None, :] / difference
    basis = np.asarray(terms / terms.sum(axis=1, keepdims=True))
    on_node = exact.any(axis=1)
    basis[on_node] = exact[on_node]
    basis.setflags(write=False)
    return basis


_CHECK_BASIS = _basis(_CHECKS)


@lru_cache(maxsize=256)
def _pixel_basis(size: int) -> _Floats:
    """The basis at the centres of `size` pixels."""
    return _basis((np.arange(size) + 0.5) / size)


@dataclass(frozen=True, slots=True)
class _Mapping:
    """Window pixel coordinates (column, row; the first centre is 0.5, 0.5) to source ones."""

    way: Transformer | None
    window: _Transform
    inverse: _Transform
    shift_x: float = 0.0
    fit: ControlFit | None = None
    """In place of `inverse`, where the source is placed by control points."""

    def __call__(self, columns: _Floats, rows: _Floats) -> tuple[_Floats, _Floats]:
        a, b, c, d, e, f = self.window
        x = a * columns + b * rows + c
        y = d * columns + e * rows + f
        if self.way is not None:
            x, y = project(self.way, x, y)
        if self.shift_x:
            x = x + self.shift_x
        if self.fit is not None:
            return self.fit.to_pixels(x, y)
        a, b, c, d, e, f = self.inverse
        with np.errstate(invalid="ignore"):  # PROJ answers inf where it has no answer
            return a * x + b * y + c, d * x + e * y + f


def _invert(transform: _Transform) -> _Transform:
    a, b, c, d, e, f = transform
    determinant = a * e - b * d
    if determinant == 0.0 or not np.isfinite(determinant):
        raise UnreadableSourceError(f"geotransform {transform}: pixels have no area")
    ia, ib, id_, ie = e / determinant, -b / determinant, -d / determinant, a / determinant
    return ia, ib, -(ia * c + ib * f), id_, ie, -(id_ * c + ie * f)


def native_pixel_size_m(grid: SourceGrid) -> float:
    """A raster's pixel size in metres, the shorter side; one degree is 111,319.49 m.

    Where control points place the raster: in its middle, and degrees of longitude count by
    their length there, since the shorter side of slanting pixels is neither width nor height.
    """
    crs = parse_crs(grid.crs_wkt)
    a, b, c, d, e, f = grid.transform
    if crs.is_geographic:
        if grid.control:
            latitude = d * grid.width / 2 + e * grid.height / 2 + f
            shrink = float(np.cos(2.0 * np.pi / whole_turn(crs) * latitude))
            a, b = a * shrink, b * shrink
        return pixel_size_m((a, b, c, d, e, f), True)
    factor = float(crs.axis_info[0].unit_conversion_factor) if crs.axis_info else 1.0
    return pixel_size_m(grid.transform, False, factor or 1.0)


def longitude_shift(window: LatticeWindow, grid: SourceGrid) -> float:
    """What brings a window's longitudes to the raster's: whole turns, since rasters may count
    longitude 0..360, or go on past 180. 0 where x is no longitude.
    """
    target = parse_crs(grid.crs_wkt)
    turn = whole_turn(target)
    if not turn:
        return 0.0
    same = parse_crs(window.crs).equals(target, ignore_axis_order=True)
    way = None if same else transformer(window.crs, grid.crs_wkt)
    probe = _Mapping(way, window.transform, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    x, _y = probe(np.array([window.width / 2]), np.array([window.height / 2]))
    a, b, c, *_ = grid.transform
    middle = c + a * grid.width / 2 + b * grid.height / 2
    if not np.isfinite(x[0]):
        return 0.0
    return -turn * float(np.floor((x[0] - middle + turn / 2) / turn))


def _mapping(window: LatticeWindow, grid: SourceGrid) -> tuple[_Mapping, bool]:
    """The mapping, and whether the raster goes once around the globe along its rows."""
    target = parse_crs(grid.crs_wkt)
    same = parse_crs(window.crs).equals(target, ignore_axis_order=True)
    way = None if same else transformer(window.crs, grid.crs_wkt)
    inverse = _invert(grid.transform)
    fit = None
    if grid.control:
        fit = fit_control_points(grid.control, grid.crs_wkt, grid.height, grid.width)
    shift = longitude_shift(window, grid)
    turn = whole_turn(target)
    a, b, _, d, *_ = grid.transform
    around = bool(turn) and b == 0.0 and d == 0.0 and abs(abs(a) * grid.width - turn) < abs(a) / 2
    return _Mapping(way, window.transform, inverse, shift, fit), around and fit is None


def _evaluate(nodes: _Floats, out: _Floats) -> None:
    """The interpolating polynomial at every pixel centre of a patch."""
    height, width = out.shape
    down, across = _pixel_basis(height), nodes @ _pixel_basis(width).T
    band = max(1, _PRODUCT_SIZE_MAX // width)
    for start in range(0, height, band):
        np.matmul(down[start : start + band], across, out=out[start : start + band])


def _fill(mapping: _Mapping, columns: _Floats, rows: _Floats, left: int, top: int) -> None:
    """Fill a patch (views of the outputs) whose first pixel is (left, top) of the window."""
    height, width = columns.shape
    if max(height, width) <= _PATCH_MIN_PX:
        at = np.meshgrid(left + 0.5 + np.arange(width), top + 0.5 + np.arange(height))
        columns[...], rows[...] = mapping(*at)
        return
    node_columns, node_rows = mapping(*np.meshgrid(left + _POINTS * width, top + _POINTS * height))
    true_columns, true_rows = mapping(*np.meshgrid(left + _CHECKS * width, top + _CHECKS * height))
    values = (node_columns, node_rows, true_columns, true_rows)
    if all(np.isfinite(value).all() for value in values):
        worst = max(
            float(np.abs(_CHECK_BASIS @ nodes @ _CHECK_BASIS.T - true).max())
            for nodes, true in ((node_columns, true_columns), (node_rows, true_rows))
        )
        if worst <= TOLERANCE_PX:
            _evaluate(node_columns, columns)
            _evaluate(node_rows, rows)
            return
    half_h, half_w = (height + 1) // 2, (width + 1) // 2
    for r0, r1 in ((0, half_h), (half_h, height)):
        for c0, c1 in ((0, half_w), (half_w, width)):
            if r1 > r0 and c1 > c0:
                _fill(mapping, columns[r0:r1, c0:c1], rows[r0:r1, c0:c1], left + c0, top + r0)


def positions(window: LatticeWindow, grid: SourceGrid) -> tuple[_Floats, _Floats]:
    """Source (column, row) of every lattice pixel's centre, in source pixels.

    Args:
        window: the lattice pixels asked about, (height, width).
        grid: the source raster's CRS and geotransform.

    Returns:
        Two float64 arrays of the window's shape. The source pixel that contains a position
        is its floor; positions outside the raster are not clipped; NaN or infinite where
        PROJ has no answer. Within `TOLERANCE_PX` of PROJ's own.

    Raises:
        UnreadableSourceError: PROJ cannot use the source's CRS, or the geotransform is
            singular.
    """
    columns = np.empty((window.height, window.width))
    rows = np.empty((window.height, window.width))
    mapping, around = _mapping(window, grid)
    _fill(mapping, columns, rows, 0, 0)
    if around:
        np.mod(columns, grid.width, out=columns)
    return columns, rows


def source_window(window: LatticeWindow, grid: SourceGrid) -> SourceWindow | None:
    """The source pixels that `positions` of this window can fall into, and a margin.

    A map between planes that neither folds nor tears takes its extremes on the boundary, so
    only the boundary is asked; where PROJ fails there, every position is computed.

    Returns:
        A window inside the source, or None where the lattice window does not meet it.
    """
    mapping, around = _mapping(window, grid)
    steps = np.linspace(0.0, 1.0, _EDGE_SAMPLES)
    along, down = steps * window.width, steps * window.height
    edges = [
        mapping(along, np.zeros_like(along)),
        mapping(along, np.full_like(along, window.height)),
        mapping(np.zeros_like(down), down),
        mapping(np.full_like(down, window.width), down),
    ]
    columns = np.stack([edge[0] for edge in edges])
    rows = np.stack([edge[1] for edge in edges])
    if np.isfinite(columns).all() and np.isfinite(rows).all():
        # Between samples a smooth curve strays at most 1/8 of its second difference.
        bend = max(
            float(np.abs(np.diff(values, n=2, axis=1)).max(initial=0.0))
            for values in (columns, rows)
        )
        smooth = bend < max(window.width, window.height)
        margin = 2.0 + bend
    else:
        smooth = False
    if not smooth:
        columns, rows = positions(window, grid)
        finite = np.isfinite(columns) & np.isfinite(rows)
        columns, rows = columns[finite], rows[finite]
        margin = 2.0
        if not columns.size:
            return None
    if around and (columns.min() - margin < 0 or columns.max() + margin > grid.width):
        column0, column1 = 0, grid.width
    else:
        column0 = max(0, int(np.floor(columns.min() - margin)))
        column1 = min(grid.width, int(np.ceil(columns.max() + margin)))
    row0 = max(0, int(np.floor(rows.min() - margin)))
    row1 = min(grid.height, int(np.ceil(rows.max() + margin)))
    if column0 >= column1 or row0 >= row1:
        return None
    return SourceWindow(row0, column0, row1 - row0, column1 - column0)
