"""Rasters placed by ground control points: where each pixel lies, by one stated rule.

A map is fitted from ground to pixels, which is the way a warp asks:

1. a least-squares polynomial, of the second order where there are six points that determine
   it, else of the first. That is what GDAL's tools do unless told otherwise (`gdalwarp`,
   `GDALCreateGCPTransformer`);
2. where that misses a point by more than `POLYNOMIAL_ERROR_MAX_PX`, a thin-plate spline
   through all points (`gdalwarp -tps`). Radar products need it: their points lie on terrain
   and repeat its relief, which no polynomial of low order follows.

Points that not even the polynomial comes near contradict each other and are refused. The way
back, from pixels to ground, is Newton's iteration on the same map, so that outlines and pixels
agree; a map of its own fitted backwards, as GDAL does it, would differ by as much as it errs.

Heights of points are not used, nor does GDAL. Thin-plate splines: Bookstein, "Principal Warps",
IEEE Trans. Pattern Analysis and Machine Intelligence 11 (1989), 567-585.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from geostore.errors import UnreadableSourceError
from geostore.raster.projection import parse_crs, whole_turn

__all__ = [
    "POINTS_MAX",
    "POLYNOMIAL_ERROR_MAX_PX",
    "SPLINE_POINTS_MAX",
    "ControlFit",
    "ControlPoint",
    "fit_control_points",
]

_Affine = tuple[float, float, float, float, float, float]

POLYNOMIAL_ERROR_MAX_PX = 1.0
"""How far a polynomial may miss any of its points, pixels, before a spline takes its place."""
POINTS_MAX = 10_000
SPLINE_POINTS_MAX = 1_000
"""A spline's cost grows with the cube of its points: 0.1 s at the bound."""
CONTRADICTION = 0.1
"""Points that the polynomial misses by this share of the raster's longer side are refused."""
REACH = 0.1
"""How far around the raster the map is taken to hold, as a share of its extent on the ground."""

_POINTS_FOR_ORDER_2 = 6
_POINTS_MIN = 3
_POINTS_FOR_SPLINE = 4
_NEWTON_STEPS_MAX = 12
_NEWTON_STEP_PX = 1e-9
_INVERSE_ERROR_MAX_PX = 1e-3
_MESH = 33
_COORDINATE_MAX = 1e12
_SPLINE_TERMS_AT_ONCE = 1 << 14
"""Few enough to stay in a core's cache, and below what makes BLAS start threads of its own."""

_Floats = npt.NDArray[np.float64]


class ControlPoint(NamedTuple):
    """A place in the raster whose place on the ground is known."""

    column: float
    """Pixels from the left edge; 0.5 is the middle of the first column."""
    row: float
    x: float
    """In the CRS of the points."""
    y: float


class _Map(Protocol):
    """From normalized ground coordinates (n, 2) to (column, row), (n, 2)."""

    def __call__(self, at: _Floats) -> _Floats: ...

    def slopes(self, at: _Floats) -> tuple[_Floats, _Floats]:
        """How (column, row) change along each of the two coordinates: two of (n, 2)."""
        ...


def _monomials(at: _Floats, order: int) -> _Floats:
    u, v = at[:, 0], at[:, 1]
    return np.stack(
        [
            u ** (total - power) * v**power
            for total in range(order + 1)
            for power in range(total + 1)
        ],
        axis=1,
    )


def _monomial_slopes(at: _Floats, order: int) -> tuple[_Floats, _Floats]:
    """Of `_monomials`, along each coordinate."""
    u, v = at[:, 0], at[:, 1]
    powers = [(total - power, power) for total in range(order + 1) for power in range(total + 1)]
    return (
        np.stack([i * u ** max(0, i - 1) * v**j for i, j in powers], axis=1),
        np.stack([j * u**i * v ** max(0, j - 1) for i, j in powers], axis=1),
    )


@dataclass(frozen=True, slots=True)
class _Polynomial:
    order: int
    coefficients: _Floats

    @classmethod
    def fit(cls, ground: _Floats, pixels: _Floats) -> _Polynomial:
        """Of the highest order that the points determine: two rows of them do not give the
        second.
        """
        for order in (2, 1) if len(ground) >= _POINTS_FOR_ORDER_2 else (1,):
            terms = _monomials(ground, order)
            coefficients, _, rank, _ = np.linalg.lstsq(terms, pixels, rcond=1e-10)
            if rank == terms.shape[1]:
                return cls(order, np.asarray(coefficients, dtype=np.float64))
        raise UnreadableSourceError(
            f"{len(ground)} ground control points lie on one line on the ground: expected points"
            " spread over the raster"
        )

    def __call__(self, at: _Floats) -> _Floats:
        return np.asarray(_monomials(at, self.order) @ self.coefficients)

    def slopes(self, at: _Floats) -> tuple[_Floats, _Floats]:
        by_u, by_v = _monomial_slopes(at, self.order)
        return by_u @ self.coefficients, by_v @ self.coefficients


def _thin_plate(squared: _Floats) -> tuple[_Floats, _Floats]:
    """r² log r² of squared distances, and log r²; both 0 at 0."""
    logs = np.zeros_like(squared)
    np.log(squared, out=logs, where=squared > 0.0)
    return squared * logs, logs


@dataclass(frozen=True, slots=True)
class _Spline:
    knots: _Floats
    weights: _Floats
    """(knots + 3, 2): of each knot's kernel, then of 1, u, v."""

    @classmethod
    def fit(cls, ground: _Floats, pixels: _Floats) -> _Spline:
        count = len(ground)
        system = np.zeros((count + 3, count + 3))
        between = ground[:, None, :] - ground[None, :, :]
        system[:count, :count] = _thin_plate((between**2).sum(axis=2))[0]
        system[:count, count:] = _monomials(ground, 1)
        system[count:, :count] = system[:count, count:].T
        known = np.zeros((count + 3, 2))
        known[:count] = pixels
        try:
            weights = np.linalg.solve(system, known)
        except np.linalg.LinAlgError as error:
            raise UnreadableSourceError(
                f"{count} ground control points: two of them lie at one place, or all on one line"
            ) from error
        return cls(ground, np.asarray(weights, dtype=np.float64))

    def __call__(self, at: _Floats) -> _Floats:
        out = _monomials(at, 1) @ self.weights[-3:]
        for part in self._slabs(at):
            u, v = self._steps(at[part])
            out[part] += _thin_plate(u * u + v * v)[0] @ self.weights[:-3]
        return out

    def slopes(self, at: _Floats) -> tuple[_Floats, _Floats]:
        along_u = np.repeat(self.weights[-2][None], len(at), axis=0)
        along_v = np.repeat(self.weights[-1][None], len(at), axis=0)
        for part in self._slabs(at):
            u, v = self._steps(at[part])
            rise = 2.0 * (_thin_plate(u * u + v * v)[1] + 1.0)
            along_u[part] += (u * rise) @ self.weights[:-3]
            along_v[part] += (v * rise) @ self.weights[:-3]
        return along_u, along_v

    def _slabs(self, at: _Floats) -> Iterator[slice]:
        slab = max(1, _SPLINE_TERMS_AT_ONCE // len(self.knots))
        return (slice(start, start + slab) for start in range(0, len(at), slab))

    def _steps(self, at: _Floats) -> tuple[_Floats, _Floats]:
        """From each knot to each place, along both coordinates: two of (n, knots)."""
        return at[:, 0, None] - self.knots[None, :, 0], at[:, 1, None] - self.knots[None, :, 1]


@dataclass(frozen=True, slots=True)
class ControlFit:
    """The fitted map. Coordinates are those of the points' CRS; arrays are float64."""

    method: str
    """`polynomial of order 2`, `thin-plate spline`."""
    points: int
    error_rms_px: float
    """Of the polynomial at the points: what the spline, where one took its place, makes good."""
    error_max_px: float
    transform: _Affine
    """The affine map from pixels to ground in the raster's middle."""
    bounds: tuple[float, float, float, float]
    """West, south, east, north of the ground on which the map holds, in the CRS."""
    centre: tuple[float, float]
    scale: float
    forward: _Map
    """Normalized ground to pixels."""
    unwrapped: tuple[ControlPoint, ...]
    """The points, on one side of the antimeridian."""

    @property
    def gdal_options(self) -> dict[str, str]:
        """What makes GDAL's transformer fit the same map."""
        if isinstance(self.forward, _Polynomial):
            return {"MAX_GCP_ORDER": str(self.forward.order)}
        return {"SRC_METHOD": "GCP_TPS"}

    def to_pixels(self, x: _Floats, y: _Floats) -> tuple[_Floats, _Floats]:
        """(column, row) of places on the ground; NaN where the map does not hold."""
        west, south, east, north = self.bounds
        with np.errstate(invalid="ignore"):
            inside = (x >= west) & (x <= east) & (y >= south) & (y <= north)
        columns, rows = np.full(x.shape, np.nan), np.full(x.shape, np.nan)
        at = np.stack([x[inside] - self.centre[0], y[inside] - self.centre[1]], axis=1)
        found = self.forward(at / self.scale)
        columns[inside], rows[inside] = found[:, 0], found[:, 1]
        return columns, rows

    def to_ground(self, columns: _Floats, rows: _Floats) -> tuple[_Floats, _Floats]:
        """(x, y) of places in the raster; NaN where the iteration finds none."""
        wanted = np.stack([columns.ravel(), rows.ravel()], axis=1)
        found = self._inverted(wanted)
        x = found[:, 0] * self.scale + self.centre[0]
        y = found[:, 1] * self.scale + self.centre[1]
        return x.reshape(columns.shape), y.reshape(columns.shape)

    def _inverted(self, wanted: _Floats) -> _Floats:
        a, b, c, d, e, f = self.transform
        start = wanted @ np.array([[a, d], [b, e]]) + np.array([c, f]) - np.array(self.centre)
        return _newton(self.forward, wanted, start / self.scale)


def _newton(forward: _Map, wanted: _Floats, at: _Floats) -> _Floats:
    """Normalized ground whose pixels are `wanted`; NaN where the iteration does not settle."""
    with np.errstate(all="ignore"):  # where it runs away it ends as NaN
        for _ in range(_NEWTON_STEPS_MAX):
            off = wanted - forward(at)
            if not np.abs(off[np.isfinite(off)]).max(initial=0.0) > _NEWTON_STEP_PX:
                break
            by_u, by_v = forward.slopes(at)
            area = by_u[:, 0] * by_v[:, 1] - by_v[:, 0] * by_u[:, 1]
            step_u = (off[:, 0] * by_v[:, 1] - by_v[:, 0] * off[:, 1]) / area
            step_v = (by_u[:, 0] * off[:, 1] - off[:, 0] * by_u[:, 1]) / area
            at = at + np.stack([step_u, step_v], axis=1)
        lost = ~(np.abs(wanted - forward(at)).max(axis=1) <= _INVERSE_ERROR_MAX_PX)
    at = at.copy()
    at[lost] = np.nan
    return at


@lru_cache(maxsize=64)
def fit_control_points(
    points: tuple[ControlPoint, ...], crs_wkt: str, height: int, width: int
) -> ControlFit:
    """The map of a raster's ground control points.

    Longitudes on both sides of the antimeridian are brought to one side.

    Args:
        points: at least three, not on one line.
        crs_wkt: what their x and y are.
        height: of the raster, pixels.
        width: of the raster, pixels.

    Raises:
        UnreadableSourceError: too few or too many points, points that contradict each other,
            or a map that folds over itself inside the raster.
    """
    pixels, ground = _unwrapped(points, whole_turn(parse_crs(crs_wkt)))
    centre = ground.mean(axis=0)
    scale = float(np.abs(ground - centre).max())
    if scale <= 0.0:
        raise UnreadableSourceError("all ground control points lie at one place on the ground")
    at = (ground - centre) / scale
    polynomial = _Polynomial.fit(at, pixels)
    order = polynomial.order
    errors = np.hypot(*(polynomial(at) - pixels).T)
    worst, rms = float(errors.max()), math.sqrt(float((errors**2).mean()))
    if worst > CONTRADICTION * max(height, width):
        raise UnreadableSourceError(
            f"ground control points contradict each other: a polynomial of order {order} through"
            f" {len(points)} of them misses one by {worst:.0f} pixels of a raster of"
            f" {height} x {width}; expected {CONTRADICTION:.0%} of its longer side at most"
        )
    forward: _Map = polynomial
    method = f"polynomial of order {order}"
    if worst > POLYNOMIAL_ERROR_MAX_PX and len(points) >= _POINTS_FOR_SPLINE:
        if len(points) > SPLINE_POINTS_MAX:
            raise UnreadableSourceError(
                f"a polynomial of order {order} misses one of {len(points)} ground control points"
                f" by {worst:.1f} pixels, and a thin-plate spline takes {SPLINE_POINTS_MAX} points"
                " at most; place the raster first (gdalwarp)"
            )
        forward, method = _Spline.fit(at, pixels), "thin-plate spline"
    return _checked(
        ControlFit(
            method=method,
            points=len(points),
            error_rms_px=rms,
            error_max_px=worst,
            transform=_affine(pixels, ground),
            bounds=(-math.inf, -math.inf, math.inf, math.inf),
            centre=(float(centre[0]), float(centre[1])),
            scale=scale,
            forward=forward,
            unwrapped=tuple(
                point._replace(x=float(x)) for point, x in zip(points, ground[:, 0], strict=True)
            ),
        ),
        height,
        width,
    )


def _unwrapped(points: tuple[ControlPoint, ...], turn: float) -> tuple[_Floats, _Floats]:
    """Places in the raster and on the ground, (n, 2) each; longitudes without a jump."""
    if not _POINTS_MIN <= len(points) <= POINTS_MAX:
        raise UnreadableSourceError(
            f"{len(points)} ground control points: expected {_POINTS_MIN} to {POINTS_MAX}"
        )
    table = np.array(points, dtype=np.float64)
    if not (np.abs(table) <= _COORDINATE_MAX).all():  # fails where one is NaN, too
        raise UnreadableSourceError(
            f"a ground control point is no number or beyond {_COORDINATE_MAX:g}: expected places"
            " in the raster and on the globe"
        )
    pixels, ground = table[:, :2].copy(), table[:, 2:].copy()
    if turn and np.ptp(ground[:, 0]) > turn / 2:
        ground[:, 0] += np.where(ground[:, 0] < ground[:, 0].max() - turn / 2, turn, 0.0)
    return pixels, ground


def _affine(pixels: _Floats, ground: _Floats) -> _Affine:
    """The least-squares affine map from pixels to ground."""
    middle, centre = pixels.mean(axis=0), ground.mean(axis=0)
    slopes, _, rank, _ = np.linalg.lstsq(pixels - middle, ground - centre, rcond=1e-10)
    if rank < 2:
        raise UnreadableSourceError(
            f"{len(pixels)} ground control points lie on one line of the raster: expected points"
            " spread over it"
        )
    origin = centre - middle @ slopes
    return (
        float(slopes[0, 0]),
        float(slopes[1, 0]),
        float(origin[0]),
        float(slopes[0, 1]),
        float(slopes[1, 1]),
        float(origin[1]),
    )


def _checked(fit: ControlFit, height: int, width: int) -> ControlFit:
    """The fit with the ground on which it holds, if it is one to one there.

    A polynomial comes back to the same pixels far away, and a spline through points that
    cross each other folds: both would put pixels where they do not belong.
    """
    columns, rows = np.meshgrid(np.linspace(0, width, _MESH), np.linspace(0, height, _MESH))
    x, y = fit.to_ground(columns, rows)
    folded = UnreadableSourceError(
        f"the {fit.method} through {fit.points} ground control points folds over itself inside"
        f" the raster of {height} x {width} pixels: expected points in one order on both sides"
    )
    if not np.isfinite(x).all():
        raise folded
    reach_x, reach_y = REACH * np.ptp(x), REACH * np.ptp(y)
    bounds = (
        float(x.min() - reach_x),
        float(y.min() - reach_y),
        float(x.max() + reach_x),
        float(y.max() + reach_y),
    )
    mesh = np.meshgrid(
        np.linspace(bounds[0], bounds[2], _MESH), np.linspace(bounds[1], bounds[3], _MESH)
    )
    at = np.stack([part.ravel() for part in mesh], axis=1)
    at = (at - np.array(fit.centre)) / fit.scale
    seen = fit.forward(at)
    inside = (seen >= 0).all(axis=1) & (seen[:, 0] <= width) & (seen[:, 1] <= height)
    inner = np.stack([x.ravel() - fit.centre[0], y.ravel() - fit.centre[1]], axis=1) / fit.scale
    by_u, by_v = fit.forward.slopes(np.concatenate([inner, at[inside]]))
    areas = by_u[:, 0] * by_v[:, 1] - by_v[:, 0] * by_u[:, 1]
    if not ((areas > 0).all() or (areas < 0).all()):
        raise folded
    return replace(fit, bounds=bounds, transform=_tangent(fit, height, width))


def _tangent(fit: ControlFit, height: int, width: int) -> _Affine:
    """The affine map that touches the fit in the raster's middle."""
    columns, rows = np.array([0.0, 1.0, 0.0]) + width / 2, np.array([0.0, 0.0, 1.0]) + height / 2
    x, y = fit.to_ground(columns, rows)
    a, b, d, e = (float(one) for one in (x[1] - x[0], x[2] - x[0], y[1] - y[0], y[2] - y[0]))
    c = float(x[0]) - a * width / 2 - b * height / 2
    f = float(y[0]) - d * width / 2 - e * height / 2
    return a, b, c, d, e, f
