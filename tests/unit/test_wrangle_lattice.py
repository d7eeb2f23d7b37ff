"""Shapes of cells at any pixel size, and cells laid out together."""

from __future__ import annotations

import numpy as np
import pytest

from geostore import grid
from geostore.errors import InvalidInputError
from geostore.grid import make_groups
from geostore.types import ResolutionGroup
from geostore.wrangle.lattice import Extent, cell_group, cell_transform

GROUPS = make_groups("geohash", 5, (10, 20, 60))


@pytest.mark.parametrize(
    ("scheme", "length"),
    [("geohash", 4), ("geohash", 5), ("geohash", 6), ("quadtile", 10), ("quadtile", 13)],
)
@pytest.mark.parametrize("finest", [10, 30])
@pytest.mark.parametrize("wanted", [60, 100, 155, 300])
def test_a_coarser_shape_is_the_one_a_group_would_have(scheme, length, finest, wanted) -> None:
    groups = make_groups(scheme, length, (finest, wanted))
    assert cell_group(groups[:1], wanted) == groups[1]


def test_groups_of_the_dataset_come_first() -> None:
    assert cell_group(GROUPS, 60) == GROUPS[2]
    assert cell_group(GROUPS, 60.3) == GROUPS[2]
    assert cell_group(GROUPS, 30).width == 256
    assert cell_group(GROUPS, 2.5).width == 2048


def test_a_resolution_far_too_fine_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="finest stored is 10 m"):
        cell_group(GROUPS, 0.01)


def test_one_cell_is_its_own_extent() -> None:
    extent = Extent.of_cells("geohash", 5, GROUPS[0], ["dqdnr"])
    assert extent.shape == (512, 512)
    assert extent.transform == cell_transform("geohash", "dqdnr", (512, 512))
    x, y = extent.coordinates()
    box = grid.scheme("geohash").bounds("dqdnr")
    assert box.west < x[0] < x[-1] < box.east
    assert box.north > y[0] > y[-1] > box.south
    assert x[0] - box.west == pytest.approx((x[1] - x[0]) / 2)


def test_cells_lie_where_their_boxes_say() -> None:
    codes = ["dqdnq", "dqdnr", "dqdq2", "dqdnn"]
    extent = Extent.of_cells("geohash", 5, GROUPS[2], codes)
    assert extent.shape == (2 * 128, 3 * 128)
    x, y = extent.coordinates()
    for code in codes:
        place = extent.window(code)
        box = grid.scheme("geohash").bounds(code)
        assert box.west < x[place.column] < box.east
        assert box.west < x[place.column + 127] < box.east
        assert box.south < y[place.row] < box.north
        assert box.south < y[place.row + 127] < box.north


@pytest.mark.parametrize("scheme", ["geohash", "quadtile"])
def test_x_goes_on_past_the_antimeridian(scheme) -> None:
    chosen = grid.scheme(scheme)
    length = 4 if scheme == "geohash" else 8
    west, east = chosen.encode(179.95, 10.0, length), chosen.encode(-179.95, 10.0, length)
    group = ResolutionGroup(1000.0, 32, 32)
    extent = Extent.of_cells(scheme, length, group, [west, east])
    assert extent.columns == 2
    x, _ = extent.coordinates()
    np.testing.assert_allclose(np.diff(x), x[1] - x[0], rtol=1e-6)
    assert extent.window(west).column == 0
    assert extent.window(east).column == 32
    edge = 180.0 if scheme == "geohash" else 20037508.342789244
    assert x[31] < edge < x[32]


def test_the_widest_empty_stretch_is_left_out() -> None:
    scheme = grid.scheme("geohash")
    group = ResolutionGroup(1000.0, 32, 32)
    near = [scheme.encode(lon, 40.0, 3) for lon in (-75.0, 10.0)]
    assert Extent.of_cells("geohash", 3, group, near).columns < 256 / 3
    pacific = [scheme.encode(lon, 40.0, 3) for lon in (-120.0, 140.0)]
    extent = Extent.of_cells("geohash", 3, group, pacific)
    assert extent.coordinates()[0][-1] > 180
    assert extent.columns < 256 / 3
