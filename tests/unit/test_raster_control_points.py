"""Control points: the map is GDAL's own, its inverse comes back, and bad points are refused."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from pyproj import CRS
from rasterio.control import GroundControlPoint
from rasterio.transform import GCPTransformer

from geostore.errors import UnreadableSourceError
from geostore.grid import GEOHASH, cell_window
from geostore.raster.control_points import (
    POINTS_MAX,
    SPLINE_POINTS_MAX,
    ControlFit,
    ControlPoint,
    fit_control_points,
)
from geostore.raster.footprint import footprint
from geostore.raster.positions import native_pixel_size_m, positions, source_window
from geostore.raster.source import SourceGrid
from geostore.raster.warp import resample
from geostore.types import ResolutionGroup

HEIGHT, WIDTH = 300, 400
WGS84 = CRS.from_epsg(4326).to_wkt()
UTM = CRS.from_epsg(32633).to_wkt()

Place = Callable[[float, float], tuple[float, float]]


def turned(column: float, row: float) -> tuple[float, float]:
    return 15.0 + 0.0010 * column + 0.0002 * row, 50.0 + 0.0002 * column - 0.0009 * row


def bent(column: float, row: float) -> tuple[float, float]:
    """What a polynomial of order 2 in the ground does not follow."""
    x, y = turned(column, row)
    return x + 0.004 * math.sin(column / 40), y + 0.003 * math.cos(row / 30)


def points_at(place: Place, columns: Sequence[float], rows: Sequence[float]) -> tuple[
    ControlPoint, ...
]:  # fmt: skip
    return tuple(
        ControlPoint(column, row, *place(column, row))
        for row, column in itertools.product(rows, columns)
    )


def spread(place: Place, across: int, down: int) -> tuple[ControlPoint, ...]:
    return points_at(
        place, np.linspace(0, WIDTH, across).tolist(), np.linspace(0, HEIGHT, down).tolist()
    )


def fitted(points: tuple[ControlPoint, ...], crs: str = WGS84) -> ControlFit:
    return fit_control_points(points, crs, HEIGHT, WIDTH)


def gdals(
    points: tuple[ControlPoint, ...], x: np.ndarray, y: np.ndarray, *, spline: bool
) -> tuple[np.ndarray, np.ndarray]:
    theirs = [GroundControlPoint(one.row, one.column, one.x, one.y) for one in points]
    with GCPTransformer(theirs, tps=spline) as transformer:
        rows, columns = transformer.rowcol(x, y, op=lambda value: value)
    return np.asarray(columns), np.asarray(rows)


CASES = {
    "three": (spread(turned, 2, 2)[:3], "polynomial of order 1"),
    "four corners": (spread(turned, 2, 2), "polynomial of order 1"),
    "two rows": (spread(turned, 5, 2), "polynomial of order 1"),
    "a grid": (spread(turned, 4, 5), "polynomial of order 2"),
    "four corners, not a parallelogram": (
        (*spread(turned, 2, 2)[:3], ControlPoint(WIDTH, HEIGHT, 15.45, 49.82)),
        "thin-plate spline",
    ),
    "terrain": (spread(bent, 12, 10), "thin-plate spline"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_map_is_gdals(name: str) -> None:
    points, method = CASES[name]
    fit = fitted(points)
    assert (fit.method, fit.points) == (method, len(points))
    random = np.random.default_rng(1)
    places = [turned(*at) for at in zip(
        random.uniform(0, WIDTH, 500), random.uniform(0, HEIGHT, 500), strict=True
    )]  # fmt: skip
    x, y = np.array(places).T
    columns, rows = fit.to_pixels(x, y)
    if name != "two rows":  # GDAL has no answer to points that do not determine order 2
        their_columns, their_rows = gdals(points, x, y, spline=method == "thin-plate spline")
        np.testing.assert_allclose(columns, their_columns, rtol=0, atol=1e-7)
        np.testing.assert_allclose(rows, their_rows, rtol=0, atol=1e-7)
    at_columns, at_rows = fit.to_pixels(*np.array([(one.x, one.y) for one in points]).T)
    missed = np.hypot(at_columns - [one.column for one in points], at_rows - [
        one.row for one in points
    ])  # fmt: skip
    if method == "thin-plate spline":
        assert missed.max() < 1e-7
        assert fit.error_max_px > 1.0
    else:
        assert missed.max() == pytest.approx(fit.error_max_px, abs=1e-6)
        assert fit.error_max_px <= 1.0


@pytest.mark.parametrize("name", CASES)
def test_the_way_back_comes_back(name: str) -> None:
    fit = fitted(CASES[name][0])
    columns, rows = np.meshgrid(np.linspace(-2, WIDTH + 2, 57), np.linspace(-2, HEIGHT + 2, 43))
    x, y = fit.to_ground(columns, rows)
    again_columns, again_rows = fit.to_pixels(x, y)
    np.testing.assert_allclose(again_columns, columns, rtol=0, atol=1e-6)
    np.testing.assert_allclose(again_rows, rows, rtol=0, atol=1e-6)


def test_far_from_the_raster_the_map_is_not_believed() -> None:
    fit = fitted(spread(bent, 12, 10))
    columns, rows = fit.to_pixels(np.array([15.2, 25.0]), np.array([49.9, 49.9]))
    assert np.isfinite([columns[0], rows[0]]).all()
    assert np.isnan([columns[1], rows[1]]).all()


def flat(column: float, row: float) -> tuple[float, float]:
    return 15.0 + 0.001 * column, 50.0


def backwards(column: float, row: float) -> tuple[float, float]:
    x, y = turned(column, row)
    return (x, y) if column < WIDTH / 2 else (2 * turned(WIDTH / 2, row)[0] - x, y)


@pytest.mark.parametrize(
    ("points", "why"),
    [
        (spread(turned, 2, 1), "2 ground control points: expected 3"),
        (spread(turned, 5, 1), "on one line"),
        (points_at(flat, [0, 100, 400], [0, 300]), "on one line on the ground"),
        ((ControlPoint(1, 2, 15.0, 50.0),) * 7, "at one place"),
        ((*spread(turned, 4, 4)[:-1], ControlPoint(400, 300, math.nan, 50.0)), "no number"),
        ((*spread(turned, 4, 4)[:-1], ControlPoint(400, 300, 1e+300, 50.0)), "no number or beyond"),
        ((*spread(turned, 4, 4)[:-1], ControlPoint(0, 0, 15.46, 49.81)), "contradict each other"),
        (spread(backwards, 5, 4), "contradict each other|folds over"),
        (spread(turned, 110, 100), f"11000 ground control points: expected 3 to {POINTS_MAX}"),
        (spread(bent, 40, 30), f"takes {SPLINE_POINTS_MAX} points at most"),
    ],
)  # fmt: skip
def test_points_that_place_nothing_are_refused(points: tuple[ControlPoint, ...], why: str) -> None:
    with pytest.raises(UnreadableSourceError, match=why):
        fitted(points)


def test_two_points_that_change_places_fold_the_raster() -> None:
    points = list(spread(bent, 21, 16))
    one, other = points[158], points[159]
    points[158], points[159] = one._replace(x=other.x, y=other.y), other._replace(x=one.x, y=one.y)
    with pytest.raises(UnreadableSourceError, match="folds over itself"):
        fitted(tuple(points))


def grid_of(points: tuple[ControlPoint, ...], crs: str = WGS84) -> SourceGrid:
    fit = fitted(points, crs)
    return SourceGrid(crs, fit.transform, HEIGHT, WIDTH, 64, 64, points)


def test_positions_follow_the_points_and_the_footprint_holds_them() -> None:
    grid = grid_of(spread(bent, 12, 10))
    region = footprint(grid)
    fit = fitted(grid.control)
    random = np.random.default_rng(2)
    x, y = fit.to_ground(random.uniform(0, WIDTH, 2000), random.uniform(0, HEIGHT, 2000))
    columns_9, rows_9 = GEOHASH.grid_size(9)
    inside = region.matches_cells(
        GEOHASH,
        np.floor((x + 180) / 360 * columns_9).astype(np.int64),
        np.floor((90 - y) / 180 * rows_9).astype(np.int64),
        9,
    )
    assert inside.all()
    window = cell_window("geohash", GEOHASH.encode(15.2, 49.9, 4), ResolutionGroup(160.0, 128, 256))
    columns, rows = positions(window, grid)
    a, _, c, _, e, f = window.transform
    true = fit.to_pixels(
        *np.meshgrid(c + a * (np.arange(256) + 0.5), f + e * (np.arange(128) + 0.5))
    )
    np.testing.assert_allclose(columns, true[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(rows, true[1], rtol=0, atol=1e-5)
    assert np.isnan(columns).any() or (columns > 0).all()
    found = source_window(window, grid)
    assert found is not None
    some = (columns >= 0) & (columns < WIDTH) & (rows >= 0) & (rows < HEIGHT)
    assert found.column <= columns[some].min() < columns[some].max() < found.column + found.width
    assert found.row <= rows[some].min() < rows[some].max() < found.row + found.height


def over_the_antimeridian(column: float, row: float) -> tuple[float, float]:
    x, y = turned(column, row)
    return (x + 164.8 + 180.0) % 360.0 - 180.0, y


def test_points_on_both_sides_of_the_antimeridian() -> None:
    plain, crossing = grid_of(spread(turned, 4, 5)), grid_of(spread(over_the_antimeridian, 4, 5))
    group = ResolutionGroup(80.0, 256, 512)
    for code in {GEOHASH.encode(lon, 49.9, 5) for lon in (179.9, -179.9)}:
        columns, rows = positions(cell_window("geohash", code, group), crossing)
        a, _, c, _, e, f = cell_window("geohash", code, group).transform
        x, y = np.meshgrid(c + a * (np.arange(512) + 0.5), f + e * (np.arange(256) + 0.5))
        true = fitted(plain.control).to_pixels((x - 164.8) % 360.0, y)
        np.testing.assert_allclose(columns, true[0], rtol=0, atol=1e-5)
        np.testing.assert_allclose(rows, true[1], rtol=0, atol=1e-5)
    boxes = footprint(crossing).bboxes
    assert max(box.east for box in boxes) == 180.0
    assert min(box.west for box in boxes) == -180.0


def test_pixel_sizes_are_lengths_on_the_ground() -> None:
    def north(column: float, row: float) -> tuple[float, float]:  # 20 m pixels, turned, 60° N
        degree = 111_319.49
        east_m, north_m = 20 * (0.8 * column + 0.6 * row), 20 * (0.6 * column - 0.8 * row)
        return 15.0 + east_m / degree / math.cos(math.radians(60.0)), 60.0 + north_m / degree

    assert native_pixel_size_m(grid_of(spread(north, 4, 4))) == pytest.approx(20.0, rel=1e-3)
    metres = spread(lambda column, row: (5e5 + 30 * column, 5e6 - 40 * row), 4, 4)
    assert native_pixel_size_m(grid_of(metres, UTM)) == pytest.approx(30.0, rel=1e-9)


@pytest.mark.parametrize("name", ["a grid", "terrain"])
def test_kernels_see_the_same_place_as_nearest(name: str) -> None:
    """Bilinear of a ramp is the ramp: so it shows where GDAL looked."""
    grid = grid_of(CASES[name][0])
    window = cell_window("geohash", GEOHASH.encode(15.2, 49.9, 5), ResolutionGroup(80.0, 64, 64))
    source = source_window(window, grid)
    assert source is not None
    columns, rows = positions(window, grid)
    at_rows, at_columns = np.mgrid[: source.height, : source.width]
    ramp = (at_columns + source.column + 0.5 + 1000.0 * (at_rows + source.row + 0.5)).astype("f8")
    valid = np.ones(ramp.shape, bool)
    valid[:, : source.width // 2] = False
    data, mask = resample(ramp, valid, grid, source, window, "bilinear", -1.0)
    assert isinstance(mask, np.ndarray)
    np.testing.assert_array_equal(data[~mask], -1.0)
    sure = np.abs(columns - (source.column + source.width // 2)) > 1.0
    np.testing.assert_array_equal(mask[sure], (columns > source.column + source.width // 2)[sure])
    off = np.abs(data - columns - 1000.0 * rows)[sure & mask]
    assert off.max() < 1000 * 0.125 + 0.125  # GDAL's own tolerance, pixels
