"""Lattice windows: integers in, coordinates that agree to the last bit out."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from pyproj import Transformer

from geostore.errors import InvalidInputError
from geostore.grid import (
    MERCATOR_EXTENT_M,
    cell_window,
    lattice_shape,
    lattice_window,
    make_groups,
    part_within,
    scheme,
)
from geostore.types import BBox, ResolutionGroup, SchemeName

CASES: list[tuple[SchemeName, int, tuple[float, ...]]] = [
    ("geohash", 5, (10, 20, 60)),
    ("geohash", 5, (15, 30)),
    ("geohash", 4, (30,)),
    ("geohash", 12, (0.001,)),
    ("quadtile", 13, (10, 20, 60)),
    ("quadtile", 26, (0.001,)),
]


def exact_edge(name: SchemeName, position: int, total: int, *, down: bool) -> Fraction:
    """The coordinate of a pixel edge with unlimited precision."""
    half = Fraction(MERCATOR_EXTENT_M) if name == "quadtile" else Fraction(90 if down else 180)
    offset = 2 * half * Fraction(position, total)
    return half - offset if down else offset - half


@pytest.mark.parametrize(("name", "length", "resolutions"), CASES)
def test_windows_are_integers_on_one_lattice(
    name: SchemeName, length: int, resolutions: tuple[float, ...]
) -> None:
    rng = np.random.default_rng(7)
    which = scheme(name)
    for group in make_groups(name, length, resolutions):
        height, width = lattice_shape(name, length, group)
        for lon, lat in zip(rng.uniform(-180, 180, 50), rng.uniform(-85, 85, 50), strict=True):
            code = which.encode(lon, lat, length)
            column, row = which.cell_index(code)
            window = cell_window(name, code, group)
            assert window.crs == which.crs
            assert (window.column, window.row) == (column * group.width, row * group.height)
            assert (window.height, window.width) == (group.height, group.width)
            assert type(window.column) is int
            x_step, _, x, _, y_step, y = window.transform
            left, _, _, top = which.lattice_bounds(code)
            assert (x, y) == (left, top)
            assert x == float(exact_edge(name, window.column, width, down=False))
            assert y == float(exact_edge(name, window.row, height, down=True))
            whole = exact_edge(name, width, width, down=False) * 2
            assert x_step == float(whole / width)
            assert y_step == -float(exact_edge(name, 0, height, down=True) * 2 / height)


@pytest.mark.parametrize(("name", "length", "resolutions"), CASES)
def test_neighbours_share_their_edge_to_the_last_bit(
    name: SchemeName, length: int, resolutions: tuple[float, ...]
) -> None:
    which = scheme(name)
    group = make_groups(name, length, resolutions)[-1]
    code = which.encode(-75.3, 37.2, length)
    column, row = which.cell_index(code)
    bounds = which.lattice_bounds(code)
    east = cell_window(name, which.geocode_at(column + 1, row, length), group)
    south = cell_window(name, which.geocode_at(column, row + 1, length), group)
    assert (east.transform[2], south.transform[5]) == (bounds[2], bounds[1])
    here = cell_window(name, code, group)
    assert (east.column, south.row) == (here.column + here.width, here.row + here.height)
    # A window laid by hand over both is the same lattice.
    both = lattice_window(
        name,
        length,
        group,
        column=here.column,
        row=here.row,
        height=here.height,
        width=2 * here.width,
    )
    assert both.transform == here.transform


@pytest.mark.parametrize(("name", "length", "resolutions"), CASES)
def test_any_window_begins_at_the_nearest_float(
    name: SchemeName, length: int, resolutions: tuple[float, ...]
) -> None:
    rng = np.random.default_rng(8)
    group = make_groups(name, length, resolutions)[0]
    height, width = lattice_shape(name, length, group)
    for _ in range(200):
        column, row = int(rng.integers(width)), int(rng.integers(height))
        window = lattice_window(name, length, group, column=column, row=row, height=1, width=1)
        assert window.transform[2] == float(exact_edge(name, column, width, down=False))
        assert window.transform[5] == float(exact_edge(name, row, height, down=True))


def test_groups_nest_on_the_ground() -> None:
    fine, coarse, _ = make_groups("geohash", 5, (10, 20, 60))
    here, there = cell_window("geohash", "dqcjq", fine), cell_window("geohash", "dqcjq", coarse)
    assert here.transform[2] == there.transform[2]
    assert there.transform[0] == 2 * here.transform[0]
    assert (here.column, here.row) == (2 * there.column, 2 * there.row)


def test_a_window_may_cross_the_antimeridian() -> None:
    group = ResolutionGroup(1000.0, 32, 64)
    _, columns = lattice_shape("geohash", 2, group)
    window = lattice_window("geohash", 2, group, column=columns - 32, row=0, height=32, width=64)
    assert window.transform[2] + 64 * window.transform[0] == 185.625
    west = lattice_window("geohash", 2, group, column=-32, row=0, height=32, width=64)
    assert west.transform[2] == -185.625


@pytest.mark.parametrize(
    ("column", "row", "height", "width"),
    [(0, -1, 1, 1), (0, 1024, 1, 1), (0, 1023, 2, 1), (0, 0, 0, 1), (0, 0, 1, 0), (0, 0, 1, 2049),
     (2048, 0, 1, 1), (-2048, 0, 1, 1)],
)  # fmt: skip
def test_windows_outside(column: int, row: int, height: int, width: int) -> None:
    group = ResolutionGroup(1000.0, 32, 64)
    assert lattice_shape("geohash", 2, group) == (1024, 2048)
    with pytest.raises(InvalidInputError, match="inside the lattice of 1024 x 2048"):
        lattice_window("geohash", 2, group, column=column, row=row, height=height, width=width)


def test_no_window_of_no_cell() -> None:
    group = ResolutionGroup(1000.0, 32, 32)
    for code in ("", "a", "0" * 13):
        with pytest.raises(InvalidInputError):
            cell_window("geohash", code, group)


@pytest.mark.parametrize(("name", "code"), [("geohash", "u0"), ("quadtile", "1202")])
def test_a_part_holds_every_pixel_of_the_window_that_lies_in_the_boxes(name, code) -> None:
    group = ResolutionGroup(1000.0, 256, 512 if name == "geohash" else 256)
    window = cell_window(name, code, group)
    a, _, x, _, e, y = window.transform
    rng = np.random.default_rng(3)
    for _ in range(200):
        west, east = sorted(rng.uniform(-30.0, 60.0, 2))
        south, north = sorted(rng.uniform(20.0, 80.0, 2))
        boxes = [BBox(west, south, east, north)]
        lon = x + a * (np.arange(window.width) + 0.5)
        lat = y + e * (np.arange(window.height) + 0.5)
        if name == "quadtile":
            to_globe = Transformer.from_crs("EPSG:3857", "EPSG:4326", always_xy=True)
            lon, _ = to_globe.transform(lon, np.zeros_like(lon))
            _, lat = to_globe.transform(np.zeros_like(lat), lat)
        rows = np.flatnonzero((lat >= south) & (lat <= north))
        columns = np.flatnonzero((lon >= west) & (lon <= east))
        part = part_within(window, boxes)
        if not (len(rows) and len(columns)):
            assert part is None or part.height * part.width < window.height * window.width
            continue
        assert part is not None
        top, left = part.row - window.row, part.column - window.column
        assert 0 <= top <= rows[0]
        assert rows[-1] < top + part.height <= window.height
        assert 0 <= left <= columns[0]
        assert columns[-1] < left + part.width <= window.width
        if part is not window:
            assert part.height <= rows[-1] - rows[0] + 7
            assert part.width <= columns[-1] - columns[0] + 7
            assert part.transform[2] == pytest.approx(x + a * left, abs=1e-12 * abs(x))
    assert part_within(window, []) is None
    assert part_within(window, [BBox(-180.0, -90.0, 180.0, 90.0)]) is window
