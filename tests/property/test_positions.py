"""Positions agree with PROJ asked pixel by pixel, and windows hold them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Transformer

from geostore.errors import InternalError, UnreadableSourceError
from geostore.grid import LatticeWindow, cell_window, scheme
from geostore.raster.positions import SourceWindow, positions, source_window
from geostore.raster.source import SourceGrid
from geostore.raster.warp import nearest_map
from geostore.types import ResolutionGroup

GROUP = ResolutionGroup(10.0, 64, 64)
SIDE = 1000


def _grid(crs: str, transform: tuple[float, ...], height: int, width: int) -> SourceGrid:
    return SourceGrid(CRS.from_user_input(crs).to_wkt(), transform, height, width, 256, 256)


def _direct(window: LatticeWindow, grid: SourceGrid) -> tuple[np.ndarray, np.ndarray]:
    a, _, c, _, e, f = window.transform
    x, y = np.meshgrid(
        c + a * (np.arange(window.width) + 0.5), f + e * (np.arange(window.height) + 0.5)
    )
    x, y = Transformer.from_crs(window.crs, grid.crs_wkt, always_xy=True).transform(x, y)
    ga, _, gc, _, ge, gf = grid.transform
    return (np.asarray(x) - gc) / ga, (np.asarray(y) - gf) / ge


SOURCES = {
    "utm": ("EPSG:32633", 15.0, 50.0),
    "polar": ("EPSG:3413", -45.0, 88.0),
    "polar at the pole": ("EPSG:3413", 10.0, 89.9),
    "albers": ("EPSG:5070", -96.0, 37.0),
    "sinusoidal": ("+proj=sinu +R=6371007.181 +units=m", -60.0, -10.0),
    "mercator": ("EPSG:3857", 2.0, 48.0),
    "geographic": ("EPSG:4326", -70.0, -30.0),
}


@pytest.mark.parametrize("name", SOURCES)
@settings(max_examples=15)
@given(st.floats(-0.5, 0.5), st.floats(-0.5, 0.05), st.integers(3, 7), st.booleans())
def test_positions_are_projs(name: str, dx: float, dy: float, length: int, quad: bool) -> None:
    crs, lon, lat = SOURCES[name]
    quad = quad and abs(lat) < 85
    chosen = scheme("quadtile" if quad else "geohash")
    code = chosen.encode(lon + dx, lat + dy, 2 * length if quad else length)
    window = cell_window(chosen.name, code, GROUP)
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(lon, lat)
    pixel = 0.001 if name == "geographic" else 100.0
    half = SIDE / 2 * pixel
    grid = _grid(crs, (pixel, 0, x - half, 0, -pixel, y + half), SIDE, SIDE)
    columns, rows = positions(window, grid)
    true_columns, true_rows = _direct(window, grid)
    # Far from the source projections fold or end; only what may fall into it matters.
    near = (np.abs(true_columns) < 10 * SIDE) & (np.abs(true_rows) < 10 * SIDE)
    assert np.abs(columns - true_columns)[near].max(initial=0) < 1e-5
    assert np.abs(rows - true_rows)[near].max(initial=0) < 1e-5
    inside = near & (columns >= 0) & (columns < SIDE) & (rows >= 0) & (rows < SIDE)
    if inside.any():
        found = source_window(window, grid)
        assert found is not None
        assert found.column <= columns[inside].min()
        assert found.row <= rows[inside].min()
        assert columns[inside].max() < found.column + found.width
        assert rows[inside].max() < found.row + found.height


def test_a_raster_that_counts_longitude_to_360_is_met() -> None:
    grid = _grid("EPSG:4326", (0.25, 0, 0.0, 0, -0.25, 90.0), 720, 1440)
    columns, _ = positions(cell_window("geohash", "d", GROUP), grid)  # -90..-45
    assert (columns >= (360 - 90) / 0.25).all()
    assert (columns <= (360 - 45) / 0.25).all()


def test_a_raster_around_the_globe_has_no_seam() -> None:
    # Centres on whole degrees: the first column begins at -180.5.
    grid = _grid("EPSG:4326", (1.0, 0, -180.5, 0, -1.0, 90.0), 180, 360)
    window = cell_window("geohash", "x", GROUP)  # 135..180: ends in column 0
    columns, _ = positions(window, grid)
    assert ((columns >= 0) & (columns < 360)).all()
    assert int(columns[0, -1]) == 0
    found = source_window(window, grid)
    assert found is not None
    nearest = nearest_map(window, grid, found)
    assert nearest is not None
    assert nearest.inside is None


def test_a_source_window_that_is_too_small_is_our_bug() -> None:
    grid = _grid("EPSG:4326", (0.01, 0, 0.0, 0, -0.01, 60.0), 6000, 6000)
    with pytest.raises(InternalError, match="too small"):
        nearest_map(cell_window("geohash", "u0", GROUP), grid, SourceWindow(0, 0, 1, 1))


def test_singular_geotransform_and_unusable_crs_are_named() -> None:
    window = cell_window("geohash", "u0", GROUP)
    with pytest.raises(UnreadableSourceError, match="no area"):
        positions(window, _grid("EPSG:4326", (0.0, 0, 0.0, 0, 0.0, 45.0), 10, 10))
    with pytest.raises(UnreadableSourceError, match="PROJ"):
        positions(window, SourceGrid("LOCAL", (1, 0, 0, 0, -1, 0), 10, 10, 1, 1))
