"""Coverings: the whole world, bounds, clipping, and that refusing is quick."""

from __future__ import annotations

import time

import numpy as np
import pytest
import shapely

from geostore.errors import InvalidInputError
from geostore.grid import GEOHASH, QUADTILE, Region, Scheme, covering
from geostore.types import BBox

WORLD = Region.from_bbox(BBox(-180, -90, 180, 90))


def test_the_world() -> None:
    assert covering(GEOHASH, WORLD, 1) == list(GEOHASH.alphabet)
    assert len(covering(GEOHASH, WORLD, 3)) == 32**3
    found = covering(QUADTILE, WORLD, 5)
    assert len(found) == 4**5
    assert found == sorted(set(found))


def test_quadtile_clips_what_lies_beyond() -> None:
    assert covering(QUADTILE, Region.from_bbox(BBox(0, 86, 10, 90)), 8) == []
    assert covering(QUADTILE, Region.from_bbox(BBox(0, QUADTILE.lat_limit, 1, 90)), 8) == []
    reaching = covering(QUADTILE, Region.from_bbox(BBox(1, 80, 2, 90)), 4)
    assert reaching == covering(QUADTILE, Region.from_bbox(BBox(1, 80, 2, 85)), 4)
    for pole in (90.0, -90.0):
        cap = Region.from_geometry(
            shapely.box(-180, min(pole, 80 * np.sign(pole)), 180, max(pole, 80 * np.sign(pole)))
        )
        assert {QUADTILE.cell_index(code)[1] for code in covering(QUADTILE, cap, 3)} == {
            0 if pole > 0 else 7
        }


def test_poles_of_geohash() -> None:
    north = covering(GEOHASH, Region.from_bbox(BBox(-180, 89.9, 180, 90)), 2)
    assert {GEOHASH.cell_index(code)[1] for code in north} == {0}
    assert len(north) == 32
    south = covering(GEOHASH, Region.from_bbox(BBox(-180, -90, 180, -89.9)), 2)
    assert {GEOHASH.cell_index(code)[1] for code in south} == {31}


@pytest.mark.parametrize("scheme", [GEOHASH, QUADTILE], ids=str)
@pytest.mark.parametrize(
    "region",
    [
        WORLD,
        Region.from_bbox(BBox(-179.999, -84.999, 179.999, 84.999)),
        Region.from_geometry(shapely.Point(0, 0).buffer(60)),
        Region.from_geometry(shapely.LineString([(-179.9, -84.9), (179.9, 84.9)])),
        Region.from_geometry(shapely.box(-1, -1, 1, 1).exterior),
    ],
    ids=["world", "nearly", "disc", "line", "outline"],
)
def test_what_is_too_large_is_refused_quickly(scheme: Scheme, region: Region) -> None:
    before = time.thread_time()
    with pytest.raises(InvalidInputError, match=r"more than 1,000 .*cells_max"):
        covering(scheme, region, scheme.length_max, cells_max=1000)
    assert time.thread_time() - before < 2.0


def test_without_a_bound_there_is_still_a_ceiling() -> None:
    with pytest.raises(InvalidInputError, match="16,777,216"):
        covering(GEOHASH, WORLD, 6)


def test_the_bound_is_inclusive() -> None:
    assert len(covering(GEOHASH, WORLD, 1, cells_max=32)) == 32
    with pytest.raises(InvalidInputError, match="31"):
        covering(GEOHASH, WORLD, 1, cells_max=31)
    nowhere = Region.from_bbox(BBox(0, 86, 10, 90))
    assert covering(QUADTILE, nowhere, 8, cells_max=0) == []


def test_bad_length() -> None:
    for length in (0, -1, 13):
        with pytest.raises(InvalidInputError, match=f"length {length}"):
            covering(GEOHASH, WORLD, length)


def test_a_small_place_at_the_longest_length() -> None:
    for scheme in (GEOHASH, QUADTILE):
        code = scheme.encode(-75.2, 37.1, scheme.length_max)
        around = {code, *scheme.neighbours(code)}
        boxes = [scheme.bounds(each) for each in around]
        block = BBox(
            min(box.west for box in boxes),
            min(box.south for box in boxes),
            max(box.east for box in boxes),
            max(box.north for box in boxes),
        )
        found = covering(scheme, Region.from_bbox(block), scheme.length_max, cells_max=9)
        assert found == sorted(around)
