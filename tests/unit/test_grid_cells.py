"""Geohash and quadtile cells: known answers, edges, poles, wrong input."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
import warnings

import mercantile
import numpy as np
import pytest

from geostore.errors import InvalidInputError
from geostore.grid import GEOHASH, MERCATOR_EXTENT_M, QUADTILE, Scheme, scheme
from geostore.types import BBox

BOTH = pytest.mark.parametrize("which", [GEOHASH, QUADTILE], ids=str)


def test_known_codes() -> None:
    # The examples of geohash.org's article and of the Bing Maps Tile System article.
    assert GEOHASH.encode(-5.6, 42.6, 5) == "ezs42"
    assert GEOHASH.encode(10.40744, 57.64911, 11) == "u4pruydqqvj"
    assert QUADTILE.geocode_at(3, 5, 3) == "213"
    assert QUADTILE.cell_index("213") == (3, 5)


def test_schemes_by_name() -> None:
    assert scheme("geohash") is GEOHASH
    assert scheme("quadtile") is QUADTILE
    assert (GEOHASH.crs, QUADTILE.crs) == ("EPSG:4326", "EPSG:3857")
    assert (GEOHASH.length_max, QUADTILE.length_max) == (12, 26)
    with pytest.raises(InvalidInputError, match=r"'h3'.*geohash, quadtile"):
        scheme("h3")


@BOTH
def test_a_scheme_is_one_object_even_when_pickled(which: Scheme) -> None:
    assert pickle.loads(pickle.dumps(which)) is which


@pytest.mark.parametrize(
    ("lon", "lat", "code"),
    [
        (0.0, 0.0, "s"),
        (-0.0, -0.0, "s"),
        (-5e-324, 0.0, "e"),
        (0.0, -5e-324, "k"),
        (-180.0, -90.0, "0"),
        (180.0, -90.0, "0"),
        (180.0, 90.0, "b"),
        (math.nextafter(180.0, 0.0), 90.0, "z"),
        (math.nextafter(45.0, 0.0), math.nextafter(45.0, 0.0), "s"),
        (45.0, 45.0, "v"),
    ],
)
def test_geohash_owns_west_and_south_and_the_pole(lon: float, lat: float, code: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # python-geohash warns at the pole: it is not asked
        assert GEOHASH.encode(lon, lat, 1) == code
        assert GEOHASH.encode(lon, lat, 12)[0] == code


LIMIT = QUADTILE.lat_limit


@pytest.mark.parametrize(
    ("lon", "lat", "code"),
    [
        (0.0, 0.0, "3"),
        (-0.0, -0.0, "3"),
        (-5e-324, 0.0, "2"),
        (0.0, 5e-324, "1"),
        (-180.0, LIMIT, "0"),
        (180.0, LIMIT, "0"),
        (180.0, -LIMIT, "2"),
        (math.nextafter(180.0, 0.0), -LIMIT, "3"),
    ],
)
def test_quadtile_owns_west_and_north_and_the_last_south(lon: float, lat: float, code: str) -> None:
    assert QUADTILE.encode(lon, lat, 1) == code
    assert QUADTILE.encode(lon, lat, 26)[0] == code


@pytest.mark.parametrize("length", [1, 3, 8, 13, 20, 26])
def test_quadtile_edges_are_mercantiles_and_a_float_decides(length: int) -> None:
    rng = np.random.default_rng(length)
    for row in rng.integers(1, 2**length, size=40).tolist():
        edge = mercantile.bounds(0, row, length).north
        codes = [
            QUADTILE.encode(10.0, lat, length)
            for lat in (edge, math.nextafter(edge, -90.0), math.nextafter(edge, 90.0))
        ]
        assert [QUADTILE.cell_index(code)[1] for code in codes] == [row, row, row - 1]
        assert QUADTILE.bounds(codes[0]).north == edge
        assert QUADTILE.bounds(codes[2]).south == edge


def test_quadtile_ends_where_the_square_does() -> None:
    assert LIMIT == 85.0511287798066
    for lat in (90.0, -90.0, math.nextafter(LIMIT, 90.0)):
        with pytest.raises(InvalidInputError, match=r"85\.0511287798066.*geohash"):
            QUADTILE.encode(0.0, lat, 5)


@BOTH
@pytest.mark.parametrize(
    ("lon", "lat", "word"),
    [
        (math.nan, 0.0, "longitude nan is not a finite number"),
        (0.0, math.inf, "latitude inf is not a finite number"),
        (180.1, 0.0, r"longitude 180.1 is out of range.*-180\.\.180"),
        (0.0, -90.5, r"latitude -90.5 is out of range.*-90\.\.90"),
    ],
)
def test_bad_points(which: Scheme, lon: float, lat: float, word: str) -> None:
    with pytest.raises(InvalidInputError, match=word):
        which.encode(lon, lat, 3)
    with pytest.raises(InvalidInputError, match="point 1"):
        which.encode_many([0.0, lon], [0.0, lat], 3)


@BOTH
def test_bad_lengths_and_places(which: Scheme) -> None:
    for length in (-1, which.length_max + 1):
        with pytest.raises(InvalidInputError, match=f"length {length}: expected 1.."):
            which.encode(0.0, 0.0, length)
    for column, row in ((-1, 0), (0, -1), (which.grid_size(2)[0], 0), (0, which.grid_size(2)[1])):
        with pytest.raises(InvalidInputError, match="expected column 0"):
            which.geocode_at(column, row, 2)
    with pytest.raises(InvalidInputError, match="shape"):
        which.encode_many([0.0, 1.0], [0.0], 2)


def test_validate() -> None:
    assert GEOHASH.validate("dqcjq") == "dqcjq"
    assert GEOHASH.validate("DQCJQ") == "dqcjq"
    assert QUADTILE.validate("0123") == "0123"
    for which, code, word in (
        (GEOHASH, "", "empty"),
        (GEOHASH, "dqa", "'a' is none"),
        (GEOHASH, "dq/", "'/' is none"),
        (GEOHASH, "dq\n", "none of its digits"),
        (GEOHASH, "\u212a", "none of its digits"),  # the Kelvin sign folds to k
        (GEOHASH, "0" * 13, "13 digits: expected at most 12"),
        (GEOHASH, "0" * 10_000, "10000 digits"),
        (QUADTILE, "0124", "'4' is none"),
        (QUADTILE, "0" * 27, "at most 26"),
    ):
        with pytest.raises(InvalidInputError, match=word) as error:
            which.validate(code)
        assert len(str(error.value)) < 200


@BOTH
def test_wrong_codes_among_many_are_named(which: Scheme) -> None:
    for wrong in ("01!", "01\u00e9", "01a"):
        with pytest.raises(InvalidInputError, match="none of its digits"):
            which.bounds_many(["010", wrong])
    with pytest.raises(InvalidInputError, match="expected 3 digits"):
        which.cell_indices(["010", "0101"], 3)
    assert which.bounds_many([]).shape == (0, 4)
    assert which.encode_many([], [], 4).shape == (0,)


def test_bounds_many_takes_upper_case_and_mixed_lengths() -> None:
    codes = ["DQCJQ", "dq", "", "dqcjqcp0u2bh"]
    expected = [list(GEOHASH.bounds(code).as_tuple()) for code in codes]
    assert GEOHASH.bounds_many(codes).tolist() == expected


def test_the_root() -> None:
    assert GEOHASH.bounds("") == BBox(-180.0, -90.0, 180.0, 90.0)
    assert QUADTILE.bounds("") == BBox(-180.0, -LIMIT, 180.0, LIMIT)
    assert QUADTILE.lattice_bounds("") == (
        -MERCATOR_EXTENT_M,
        -MERCATOR_EXTENT_M,
        MERCATOR_EXTENT_M,
        MERCATOR_EXTENT_M,
    )
    for which in (GEOHASH, QUADTILE):
        assert which.children("") == tuple(which.alphabet)
        assert which.parent(which.alphabet[0]) == ""
        assert which.cell_index("") == (0, 0)
        assert which.geocode_at(0, 0, 0) == ""
        with pytest.raises(InvalidInputError, match="empty"):
            which.parent("")


@BOTH
def test_family(which: Scheme) -> None:
    code = which.encode(-75.2, 37.1, 6)
    assert which.parent(code) == code[:-1]
    assert code in which.children(code[:-1])
    assert list(which.children(code)) == sorted(which.children(code))
    longest = which.encode(-75.2, 37.1, which.length_max)
    with pytest.raises(InvalidInputError, match="no children"):
        which.children(longest)


def test_neighbours_clockwise_from_north() -> None:
    assert QUADTILE.neighbours("03") == ("01", "10", "12", "30", "21", "20", "02", "00")
    assert GEOHASH.neighbours("s") == ("u", "v", "t", "m", "k", "7", "e", "g")


def test_neighbours_wrap_the_antimeridian_and_end_at_the_poles() -> None:
    assert GEOHASH.neighbours("8") == ("b", "c", "9", "3", "2", "r", "x", "z")
    assert GEOHASH.neighbours("b") == ("c", "9", "8", "x", "z")
    # Two columns: east and west meet.
    assert QUADTILE.neighbours("0") == ("1", "3", "2")


@BOTH
def test_lattice_bounds_agree_with_proj(which: Scheme) -> None:
    from pyproj import Transformer

    transformer = Transformer.from_crs("EPSG:4326", which.crs, always_xy=True)
    for lon, lat in ((-75.2, 37.1), (179.9, -60.0), (-179.9, 84.9), (0.1, -0.1)):
        code = which.encode(lon, lat, 5)
        box = which.bounds(code)
        left, bottom = transformer.transform(box.west, box.south)
        right, top = transformer.transform(box.east, box.north)
        assert which.lattice_bounds(code) == pytest.approx((left, bottom, right, top), abs=1e-6)


def test_grid_is_light_to_import() -> None:
    heavy = "rasterio,pandas,xarray,torch,grpc,dask,zarr,pyarrow"
    code = (
        "import sys; import geostore.grid;"
        f"print([name for name in '{heavy}'.split(',') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
