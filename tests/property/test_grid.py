"""Cells, regions and coverings against exact arithmetic on fractions.

The naive models here share no code with geostore.grid: cells come from fractions (geohash) or
from mercantile's own bounds (quadtile), codes from python-geohash and mercantile asked about
cell centres, and overlaps from clipping in fractions.
"""

from __future__ import annotations

import json
import math
import pickle
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import pairwise

import geohash
import hypothesis.strategies as st
import mercantile
import numpy as np
import pytest
import shapely
from hypothesis import assume, example, given, settings

from geostore.grid import GEOHASH, QUADTILE, Region, Relation, Scheme, covering
from geostore.types import BBox

Position = tuple[Fraction, Fraction]
SCHEMES = st.sampled_from([GEOHASH, QUADTILE])

# ---------------------------------------------------------------- the naive model


@dataclass(frozen=True)
class Cell:
    code: str
    west: Fraction
    south: Fraction
    east: Fraction
    north: Fraction
    owns_south: bool
    owns_north: bool
    box: tuple[float, float, float, float]
    """The same bounds as floats, which hold them exactly."""

    def holds(self, x: Fraction, y: Fraction) -> bool:
        return (
            self.west <= x < self.east
            and (self.south < y or (self.owns_south and y == self.south))
            and (y < self.north or (self.owns_north and y == self.north))
        )


@cache
def all_cells(name: str, length: int) -> tuple[Cell, ...]:
    cells = []
    if name == "geohash":
        columns, rows = 2 ** ((5 * length + 1) // 2), 2 ** (5 * length // 2)
        for column in range(columns):
            for row in range(rows):  # from the south
                west, south = (
                    Fraction(360 * column, columns) - 180,
                    Fraction(180 * row, rows) - 90,
                )
                wide, high = Fraction(360, columns), Fraction(180, rows)
                code = geohash.encode(float(south + high / 2), float(west + wide / 2), length)
                bounds = (west, south, west + wide, south + high)
                box = (float(west), float(south), float(west + wide), float(south + high))
                assert bounds == box
                cells.append(Cell(code, *bounds, True, row == rows - 1, box))
    else:
        count = 2**length
        for tile in mercantile.tiles(-180, -85.06, 180, 85.06, length):
            box = mercantile.bounds(tile)
            cells.append(
                Cell(
                    mercantile.quadkey(tile),
                    *(Fraction(value) for value in box),
                    tile.y == count - 1,
                    True,
                    tuple(box),
                )
            )
    return tuple(cells)


def clipped_area(ring: Sequence[Position], cell: Cell) -> Fraction:
    """Twice the area of a simple ring inside a cell (Sutherland-Hodgman)."""
    points = list(ring)
    for axis, bound, sign in (
        (0, cell.west, 1),
        (0, cell.east, -1),
        (1, cell.south, 1),
        (1, cell.north, -1),
    ):
        kept: list[Position] = []
        for before, after in zip([points[-1], *points[:-1]], points, strict=True):
            inside = sign * (after[axis] - bound) >= 0
            if inside != (sign * (before[axis] - bound) >= 0):
                t = (bound - before[axis]) / (after[axis] - before[axis])
                kept.append(
                    (
                        before[0] + t * (after[0] - before[0]),
                        before[1] + t * (after[1] - before[1]),
                    )
                )
            if inside:
                kept.append(after)
        points = kept
        if not points:
            return Fraction(0)
    return abs(
        sum(
            (
                a[0] * b[1] - b[0] * a[1]
                for a, b in zip([points[-1], *points], points, strict=False)
            ),
            Fraction(0),
        )
    )


def passes(start: Position, end: Position, cell: Cell) -> bool:
    """Whether some length of a segment lies in a half-open cell (Liang-Barsky)."""
    first, last = Fraction(0), Fraction(1)
    for axis, low, high in ((0, cell.west, cell.east), (1, cell.south, cell.north)):
        move = end[axis] - start[axis]
        if move == 0:
            if not low <= start[axis] <= high:
                return False
            continue
        t0, t1 = sorted([(low - start[axis]) / move, (high - start[axis]) / move])
        first, last = max(first, t0), min(last, t1)
    if first >= last:
        return False
    middle = (first + last) / 2
    return cell.holds(
        start[0] + middle * (end[0] - start[0]), start[1] + middle * (end[1] - start[1])
    )


@dataclass(frozen=True)
class Shape:
    """A polygon (shell and holes), a line or a point; longitudes may go on past 180."""

    kind: str
    rings: tuple[tuple[Position, ...], ...]
    box: tuple[float, float, float, float] = (-999.0, -99.0, 999.0, 99.0)

    def turned(self) -> Iterator[Shape]:
        for turn in range(-3, 4):
            moved = tuple(tuple((x - 360 * turn, y) for x, y in ring) for ring in self.rings)
            xs, ys = [x for x, _ in moved[0]], [y for _, y in moved[0]]
            if max(xs) >= -180 and min(xs) <= 180:
                box = (float(min(xs)), float(min(ys)), float(max(xs)), float(max(ys)))
                yield Shape(self.kind, moved, box)

    def near(self, cell: Cell) -> bool:
        west, south, east, north = self.box
        box = cell.box
        return east >= box[0] and west <= box[2] and north >= box[1] and south <= box[3]

    def matches(self, cell: Cell) -> bool:
        if not self.near(cell):
            return False
        shell, *holes = self.rings
        if self.kind == "polygon":
            area = clipped_area(shell, cell)
            return area > sum((clipped_area(hole, cell) for hole in holes), Fraction(0))
        if self.kind == "line":
            return any(passes(a, b, cell) for a, b in pairwise(shell) if a != b)
        return cell.holds(*shell[0])


def naive_covering(scheme: Scheme, shapes: Sequence[Shape], length: int) -> list[str]:
    copies = [copy for shape in shapes for copy in shape.turned()]
    return sorted(
        cell.code
        for cell in all_cells(scheme.name, length)
        if any(copy.matches(cell) for copy in copies)
    )


def shape_of_box(box: BBox) -> Shape:
    west, south, east, north = (Fraction(value) for value in box.as_tuple())
    if west > east:
        east += 360
    if west == east and south == north:
        return Shape("point", (((west, south),),))
    if west == east or south == north:
        return Shape("line", (((west, south), (east, north)),))
    return Shape("polygon", (((west, south), (east, south), (east, north), (west, north)),))


def exact(coordinates: Sequence[tuple[float, float]]) -> tuple[Position, ...]:
    return tuple((Fraction(x), Fraction(y)) for x, y in coordinates)


# ---------------------------------------------------------------- places that hurt


def beside(values: Sequence[float]) -> st.SearchStrategy[float]:
    """The values and the floats next to them."""
    return st.sampled_from(
        [
            near
            for value in values
            for near in (value, math.nextafter(value, -1e9), math.nextafter(value, 1e9))
        ]
    )


LON_EDGES = [column * 5.625 - 180.0 for column in range(65)]
LAT_EDGES = [row * 2.8125 - 90.0 for row in range(65)]
TILE_EDGES = [mercantile.bounds(0, row, 3).north for row in range(8)]
TILE_EDGES.append(-TILE_EDGES[0])
TINY = [0.0, -0.0, 5e-324, -5e-324, 1e-300, -1e-300]

longitudes = st.one_of(
    st.sampled_from(LON_EDGES),
    beside(LON_EDGES).filter(lambda value: abs(value) <= 180),
    st.sampled_from(TINY),
    st.floats(-180, 180),
)
latitudes = st.one_of(
    st.sampled_from(LAT_EDGES),
    beside(LAT_EDGES + TILE_EDGES).filter(lambda value: abs(value) <= 90),
    st.sampled_from(TINY),
    st.floats(-90, 90),
)
positions = st.tuples(longitudes, latitudes)
# Whole turns leave these exact, so that the model and a turned copy are the same shape.
turned_longitudes = st.integers(-360 * 64, 360 * 64).map(lambda value: value / 64)
turned_positions = st.tuples(turned_longitudes, latitudes)


@st.composite
def boxes(draw: st.DrawFn) -> BBox:
    south, north = sorted([draw(latitudes), draw(latitudes)])
    west, east = draw(longitudes), draw(longitudes)
    flat = draw(st.integers(0, 5))
    return BBox(west, south, west if flat == 1 else east, south if flat == 2 else north)


@st.composite
def simple_rings(draw: st.DrawFn, points: st.SearchStrategy[tuple[float, float]]) -> object:
    corners = draw(st.lists(points, min_size=3, max_size=6, unique=True))
    x = sum(corner[0] for corner in corners) / len(corners)
    y = sum(corner[1] for corner in corners) / len(corners)
    corners.sort(key=lambda corner: math.atan2(corner[1] - y, corner[0] - x))
    ring = shapely.Polygon(corners)
    assume(ring.is_valid and ring.area > 0)
    return [*corners, corners[0]]


def small_lengths_of(scheme: Scheme) -> int:
    return 2 if scheme is GEOHASH else 3


# ---------------------------------------------------------------- cells


@given(longitudes, latitudes, st.integers(1, 12))
@example(math.nextafter(11.25, 0), -1e-300, 12)
@example(-5e-324, -5e-324, 12)
@example(180.0, 90.0, 12)
def test_geohash_cell_is_the_one_that_integers_give(lon: float, lat: float, length: int) -> None:
    x_bits, y_bits = (5 * length + 1) // 2, 5 * length // 2
    x = Fraction(-180 if lon == 180 else lon)
    column = math.floor((x + 180) * 2**x_bits / 360)
    northward = min(math.floor((Fraction(lat) + 90) * 2**y_bits / 180), 2**y_bits - 1)
    code = GEOHASH.encode(lon, lat, length)
    assert GEOHASH.cell_index(code) == (column, 2**y_bits - 1 - northward)
    centre = (
        float((column + Fraction(1, 2)) * 360 / 2**x_bits - 180),
        float((northward + Fraction(1, 2)) * 180 / 2**y_bits - 90),
    )
    assert code == geohash.encode(centre[1], centre[0], length)


@given(st.floats(-179.9, 179.9), st.floats(-85, 85), st.integers(1, 26))
def test_codes_are_those_of_the_packages_away_from_edges(
    lon: float, lat: float, length: int
) -> None:
    for scheme, code in (
        (GEOHASH, geohash.encode(lat, lon, min(length, 12))),
        (QUADTILE, mercantile.quadkey(mercantile.tile(lon, lat, length))),
    ):
        box = scheme.bounds(code)
        near = min(lon - box.west, box.east - lon, lat - box.south, box.north - lat)
        if near > 1e-12:
            assert scheme.encode(lon, lat, len(code)) == code


@given(SCHEMES, longitudes, latitudes, st.integers(1, 26))
def test_the_encoded_cell_holds_the_point_by_the_half_open_rule(
    scheme: Scheme, lon: float, lat: float, length: int
) -> None:
    length = min(length, scheme.length_max)
    if scheme is QUADTILE:
        assume(abs(lat) <= QUADTILE.lat_limit)
    code = scheme.encode(lon, lat, length)
    box = scheme.bounds(code)
    assert box.west <= (-180 if lon == 180 else lon) < box.east
    if scheme is GEOHASH:
        assert box.south <= lat < box.north or lat == box.north == 90
    else:
        assert box.south < lat <= box.north or lat == box.south == -QUADTILE.lat_limit
    assert all(scheme.encode(lon, lat, k) == code[:k] for k in range(1, length))


@given(SCHEMES, st.data())
def test_cells_tile_the_world_without_gaps(scheme: Scheme, data: st.DataObject) -> None:
    length = data.draw(st.integers(1, scheme.length_max))
    columns, rows = scheme.grid_size(length)
    column = data.draw(st.integers(0, columns - 1))
    row = data.draw(st.integers(0, rows - 1))
    code = scheme.geocode_at(column, row, length)
    box = scheme.bounds(code)
    assert scheme.cell_index(code) == (column, row)
    assert scheme.bounds_many([code]).tolist() == [list(box.as_tuple())]
    assert scheme.geocodes_at(np.array([column]), np.array([row]), length).tolist() == [code]
    if column + 1 < columns:
        assert scheme.bounds(scheme.geocode_at(column + 1, row, length)).west == box.east
    if row + 1 < rows:
        assert scheme.bounds(scheme.geocode_at(column, row + 1, length)).north == box.south
    if length < scheme.length_max:
        kids = [scheme.bounds(child) for child in scheme.children(code)]
        assert min(kid.west for kid in kids) == box.west
        assert max(kid.east for kid in kids) == box.east
        assert min(kid.south for kid in kids) == box.south
        assert max(kid.north for kid in kids) == box.north
        assert all(scheme.parent(child) == code for child in scheme.children(code))
    for neighbour in scheme.neighbours(code):
        assert code in scheme.neighbours(neighbour)


@given(SCHEMES, st.lists(positions, max_size=50), st.integers(1, 26))
def test_many_are_as_one_by_one(
    scheme: Scheme, places: list[tuple[float, float]], length: int
) -> None:
    length = min(length, scheme.length_max)
    limit = 90.0 if scheme is GEOHASH else QUADTILE.lat_limit
    places = [(lon, lat) for lon, lat in places if abs(lat) <= limit]
    lon = np.array([place[0] for place in places])
    lat = np.array([place[1] for place in places])
    codes = scheme.encode_many(lon, lat, length).tolist()
    assert codes == [scheme.encode(x, y, length) for x, y in places]
    assert scheme.bounds_many(codes).tolist() == [
        list(scheme.bounds(code).as_tuple()) for code in codes
    ]
    columns, rows = scheme.cell_indices(codes, length)
    assert list(zip(columns.tolist(), rows.tolist(), strict=True)) == [
        scheme.cell_index(code) for code in codes
    ]
    keys = scheme.sort_keys(columns, rows, length)
    assert [codes[i] for i in np.argsort(keys, kind="stable")] == sorted(codes)


# ---------------------------------------------------------------- coverings


def check_covering(scheme: Scheme, region: Region, shapes: Sequence[Shape], length: int) -> None:
    expected = naive_covering(scheme, shapes, length)
    assert covering(scheme, region, length) == expected
    codes = [cell.code for cell in all_cells(scheme.name, length)]
    matched = region.matches_many(scheme, codes)
    assert sorted(code for code, yes in zip(codes, matched, strict=True) if yes) == expected
    few = codes[:: max(1, len(codes) // 16)]
    assert [code for code in few if region.matches(scheme, code)] == [
        code for code in few if code in set(expected)
    ]
    check_relation(scheme, region, set(expected), length)


def check_relation(scheme: Scheme, region: Region, matching: set[str], length: int) -> None:
    """INSIDE only where all cells match, OUTSIDE only where none can; on all shorter codes."""
    total = len(all_cells(scheme.name, length))
    for shorter in range(length):
        prefixes = sorted({cell.code[:shorter] for cell in all_cells(scheme.name, length)})
        found = Counter(code[:shorter] for code in matching)
        for prefix in prefixes:
            relation = region.relation(scheme.bounds(prefix))
            if relation is Relation.INSIDE:
                assert found[prefix] == total // len(prefixes)
            elif relation is Relation.OUTSIDE:
                assert found[prefix] == 0
    for code in sorted(matching)[:20]:
        assert region.relation(scheme.bounds(code)) is not Relation.OUTSIDE


@settings(max_examples=120)
@given(SCHEMES, boxes())
@example(GEOHASH, BBox(180, -90, -180, 90))
@example(GEOHASH, BBox(170, 80, -180, 90))
@example(GEOHASH, BBox(180, 0, -168.75, 5.625))
@example(GEOHASH, BBox(-180, 90, 180, 90))
@example(QUADTILE, BBox(-180, 85.0511287798066, 180, 90))
@example(QUADTILE, BBox(-180, -85.0511287798066, 180, -85.0511287798066))
@example(QUADTILE, BBox(-180, -90, 180, 90))
def test_covering_of_a_box_is_brute_force(scheme: Scheme, box: BBox) -> None:
    region = Region.from_bbox(box)
    check_covering(scheme, region, [shape_of_box(box)], small_lengths_of(scheme))
    held = region.bboxes
    for code in covering(scheme, region, small_lengths_of(scheme)):
        cell = scheme.bounds(code)
        assert any(
            cell.west <= other.east
            and other.west <= cell.east
            and cell.south <= other.north
            and other.south <= cell.north
            for other in held
        )


@settings(max_examples=60)
@given(SCHEMES, simple_rings(positions))
# GEOS 3.14 says of cell 6v, which an edge enters by a corner, that the polygon only touches it.
@example(
    GEOHASH,
    [
        (179.99999999999997, -67.50000000000001),
        (-79.76258679373454, 0.0),
        (-89.99999999999999, 0.0),
        (179.99999999999997, -67.50000000000001),
    ],
)
@example(GEOHASH, [(-180.0, -90.0), (-157.5, -90.0), (-180.0, 5e-324), (-180.0, -90.0)])
def test_covering_of_a_polygon_is_brute_force(
    scheme: Scheme, ring: list[tuple[float, float]]
) -> None:
    region = Region.from_geometry({"type": "Polygon", "coordinates": [ring]})
    check_covering(
        scheme, region, [Shape("polygon", (exact(ring[:-1]),))], small_lengths_of(scheme)
    )


@settings(max_examples=40)
@given(SCHEMES, simple_rings(turned_positions), st.lists(turned_positions, min_size=2, max_size=5))
def test_covering_past_the_antimeridian_is_brute_force(
    scheme: Scheme, ring: list[tuple[float, float]], line: list[tuple[float, float]]
) -> None:
    region = Region.from_geometry(
        {
            "type": "GeometryCollection",
            "geometries": [
                {"type": "Polygon", "coordinates": [ring]},
                {"type": "LineString", "coordinates": line},
            ],
        }
    )
    kind = "line" if len(set(line)) > 1 else "point"
    shapes = [Shape("polygon", (exact(ring[:-1]),)), Shape(kind, (exact(line),))]
    check_covering(scheme, region, shapes, small_lengths_of(scheme))


@settings(max_examples=40)
@given(
    SCHEMES,
    simple_rings(positions.filter(lambda place: abs(place[0]) < 170 and abs(place[1]) < 80)),
    st.integers(1, 3),
)
def test_covering_of_a_polygon_with_a_hole_is_brute_force(
    scheme: Scheme, hole: list[tuple[float, float]], margin: int
) -> None:
    xs, ys = [place[0] for place in hole], [place[1] for place in hole]
    west = [edge for edge in LON_EDGES if edge < min(xs)][-margin:][0]
    east = [edge for edge in LON_EDGES if edge > max(xs)][:margin][-1]
    south = [edge for edge in LAT_EDGES if edge < min(ys)][-margin:][0]
    north = [edge for edge in LAT_EDGES if edge > max(ys)][:margin][-1]
    shell = [(west, south), (east, south), (east, north), (west, north)]
    region = Region.from_geometry(shapely.Polygon(shell, [hole]))
    shape = Shape("polygon", (exact(shell), exact(hole[:-1])))
    check_covering(scheme, region, [shape], small_lengths_of(scheme))


@settings(max_examples=80)
@given(SCHEMES, st.lists(st.lists(positions, min_size=2, max_size=4), min_size=1, max_size=3))
@example(GEOHASH, [[(-11.25, -5.625), (11.25, 5.625)]])
@example(GEOHASH, [[(0.0, -90.0), (0.0, 90.0)], [(-180.0, 0.0), (180.0, 0.0)]])
@example(GEOHASH, [[(180.0, -90.0), (180.0, 90.0)], [(-180.0, 90.0), (180.0, 90.0)]])
@example(QUADTILE, [[(180.0, -90.0), (180.0, 90.0)], [(-180.0, 0.0), (180.0, 0.0)]])
def test_covering_of_lines_is_brute_force(
    scheme: Scheme, lines: list[list[tuple[float, float]]]
) -> None:
    region = Region.from_geometry({"type": "MultiLineString", "coordinates": lines})
    shapes = [Shape("line" if len(set(line)) > 1 else "point", (exact(line),)) for line in lines]
    check_covering(scheme, region, shapes, small_lengths_of(scheme))


@settings(max_examples=60)
@given(SCHEMES, st.lists(positions, min_size=1, max_size=6))
def test_covering_of_points_is_brute_force(
    scheme: Scheme, places: list[tuple[float, float]]
) -> None:
    region = Region.from_geometry({"type": "MultiPoint", "coordinates": places})
    shapes = [Shape("point", (exact([place]),)) for place in places]
    check_covering(scheme, region, shapes, small_lengths_of(scheme))
    limit = 90.0 if scheme is GEOHASH else QUADTILE.lat_limit
    assert covering(scheme, region, 9) == sorted(
        {scheme.encode(lon, lat, 9) for lon, lat in places if abs(lat) <= limit}
    )


@settings(max_examples=40)
@given(SCHEMES, boxes(), st.integers(0, 300))
def test_covering_keeps_to_its_bound(scheme: Scheme, box: BBox, cells_max: int) -> None:
    region = Region.from_bbox(box)
    cells = covering(scheme, region, small_lengths_of(scheme))
    if len(cells) <= cells_max:
        assert covering(scheme, region, small_lengths_of(scheme), cells_max=cells_max) == cells
    else:
        with pytest.raises(ValueError, match="cells_max"):
            covering(scheme, region, small_lengths_of(scheme), cells_max=cells_max)


@settings(max_examples=40)
@given(boxes(), simple_rings(positions), st.lists(turned_positions, min_size=2, max_size=4))
def test_regions_are_values(
    box: BBox, ring: list[tuple[float, float]], line: list[tuple[float, float]]
) -> None:
    for region in (
        Region.from_bbox(box),
        Region.from_geometry(shapely.Polygon(ring)),
        Region.from_geometry(shapely.LineString(line)),
        Region.from_geometry(
            shapely.GeometryCollection([shapely.Polygon(ring), shapely.LineString(line)])
        ),
    ):
        again = Region.from_json(json.loads(json.dumps(region.to_json())))
        assert again == region
        assert hash(again) == hash(region)
        assert pickle.loads(pickle.dumps(region)) == region
