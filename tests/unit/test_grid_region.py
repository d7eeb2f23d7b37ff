"""Regions: what is taken, what is refused, and the matching rule on known places."""

from __future__ import annotations

import itertools
import json
import math
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from geostore.errors import InvalidInputError
from geostore.grid import GEOHASH, QUADTILE, Region, Relation, covering
from geostore.types import BBox

SQUARE = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]


def polygon(*rings: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


def cells(region: Region, length: int = 2) -> list[str]:
    return covering(GEOHASH, region, length)


# ---------------------------------------------------------------- what is taken


class Thing:
    def __init__(self, interface: dict[str, Any]) -> None:
        self.__geo_interface__ = interface


@pytest.mark.parametrize(
    "same",
    [
        polygon(SQUARE),
        polygon([tuple(position) for position in SQUARE]),
        polygon(np.array(SQUARE)),
        polygon([[*position, 100.0] for position in SQUARE]),
        polygon([[*position, math.nan] for position in SQUARE]),
        shapely.Polygon(SQUARE),
        shapely.force_3d(shapely.Polygon(SQUARE)),
        shapely.MultiPolygon([shapely.Polygon(SQUARE)]),
        {"type": "MultiPolygon", "coordinates": [[SQUARE]]},
        {"type": "Feature", "properties": {}, "geometry": polygon(SQUARE)},
        {
            "type": "FeatureCollection",
            "features": [
                {"type": "Feature", "geometry": None},
                {"type": "Feature", "geometry": polygon(SQUARE)},
            ],
        },
        {"type": "GeometryCollection", "geometries": [polygon(SQUARE)]},
        {**polygon(SQUARE), "crs": {"type": "name", "properties": {"name": "urn:x:EPSG::4326"}}},
        Thing(polygon(SQUARE)),
        Thing({"type": "Feature", "geometry": polygon(SQUARE)}),
    ],
)
def test_one_place_in_many_forms(same: object) -> None:
    region = Region.from_geometry(same)
    assert region == Region.from_geometry(polygon(SQUARE))
    assert hash(region) == hash(Region.from_geometry(polygon(SQUARE)))
    assert region.bboxes == (BBox(0.0, 0.0, 1.0, 1.0),)


def test_negative_zero_is_zero() -> None:
    minus = [[-0.0, -0.0], *SQUARE[1:-1], [-0.0, 0.0]]
    assert Region.from_geometry(polygon(minus)) == Region.from_geometry(polygon(SQUARE))


def test_regions_that_differ() -> None:
    assert Region.from_bbox(BBox(0, 0, 1, 1)) != Region.from_bbox(BBox(0, 0, 1, 2))
    assert Region.from_bbox(BBox(0, 0, 1, 1)) != Region.from_geometry(polygon(SQUARE))
    assert Region.from_bbox(BBox(0, 0, 1, 1)) != "a region"


def test_json_and_pickle() -> None:
    everything = {
        "type": "GeometryCollection",
        "geometries": [
            polygon(SQUARE, [[0.2, 0.2], [0.4, 0.2], [0.2, 0.4], [0.2, 0.2]]),
            polygon([[5, 5], [6, 5], [6, 6], [5, 5]]),
            {"type": "LineString", "coordinates": [[0, 0], [0.1, 190 / 7]]},
            {"type": "MultiPoint", "coordinates": [[181.5, 0], [1 / 3, 2]]},
        ],
    }
    for region in (
        Region.from_geometry(everything),
        Region.from_bbox(BBox(170, -10, -170, 1 / 3)),
    ):
        assert Region.from_json(json.loads(json.dumps(region.to_json()))) == region
        assert pickle.loads(pickle.dumps(region)) == region
    for wrong in ({}, {"bbox": [1, 2, 3]}, {"bbox": "a"}, {"bbox": None}):
        with pytest.raises(InvalidInputError):
            Region.from_json(wrong)


def test_immutable() -> None:
    region = Region.from_bbox(BBox(0, 0, 1, 1))
    with pytest.raises(AttributeError):
        region._source = BBox(0, 0, 2, 2)
    with pytest.raises(AttributeError):
        del region._source
    assert len(repr(Region.from_geometry(shapely.Point(0, 0).buffer(60)))) <= 208
    assert repr(region) == "Region({'bbox': [0, 0, 1, 1]})"


# ---------------------------------------------------------------- what is refused

FAR = [[500_000.0, 4_200_000.0], [500_010.0, 4_200_000.0], [500_000.0, 4_200_010.0]]


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (None, "GeoJSON mapping"),
        ("POINT (0 0)", "GeoJSON mapping"),
        ({}, "type None"),
        ({"type": "Circle", "coordinates": [0, 0]}, r"type 'Circle': expected .*Polygon"),
        ({"type": ["Point"], "coordinates": [0, 0]}, "type"),
        ({"type": "Polygon"}, "coordinates None: expected a list"),
        ({"type": "Point", "coordinates": "0,0"}, "expected a list"),
        ({"type": "Point", "coordinates": []}, "empty"),
        ({"type": "Point", "coordinates": [1]}, r"\[longitude, latitude\]"),
        ({"type": "Point", "coordinates": ["1", "2"]}, r"\[longitude, latitude\]"),
        ({"type": "Point", "coordinates": [True, False]}, r"\[longitude, latitude\]"),
        ({"type": "Point", "coordinates": [None, 2]}, r"\[longitude, latitude\]"),
        ({"type": "Point", "coordinates": [10**400, 2]}, "expected degrees"),
        ({"type": "Point", "coordinates": [math.nan, 2]}, "finite"),
        ({"type": "Point", "coordinates": [math.inf, 2]}, "finite"),
        ({"type": "Point", "coordinates": [0, 90.1]}, r"latitude in -90\.\.90"),
        ({"type": "Point", "coordinates": [721, 0]}, "degrees"),
        ({"type": "LineString", "coordinates": [[0, 0]]}, "a line of 1 position"),
        ({"type": "LineString", "coordinates": [0, 0]}, "position 0"),
        ({"type": "MultiPolygon", "coordinates": [7]}, "member 7: expected a list"),
        ({"type": "MultiPolygon", "coordinates": []}, "empty"),
        (polygon(), "empty"),
        (polygon(SQUARE[:-1]), r"not closed"),
        (polygon(SQUARE[:3]), "ring of 3 positions, expected at least 4"),
        (polygon([*FAR, FAR[0]]), "projected"),
        ({"type": "Feature", "geometry": None}, "empty"),
        ({"type": "FeatureCollection", "features": []}, "empty"),
        ({"type": "FeatureCollection"}, "expected a list"),
        ({"type": "GeometryCollection", "geometries": {}}, "expected a list"),
        ({**polygon(SQUARE), "crs": {"properties": {"name": "EPSG:32618"}}}, "EPSG:32618"),
        (shapely.Point(), "empty"),
        (shapely.Polygon(), "empty"),
        (shapely.LineString([(0, 0), (math.inf, 1)]), "finite"),
        (shapely.Point(0, 91), "degrees"),
        (Thing({"type": "Nothing"}), "'Nothing'"),
    ],
)
def test_refused(value: object, word: str) -> None:
    with pytest.raises(InvalidInputError, match=word) as error:
        Region.from_geometry(value)
    assert len(str(error.value)) < 400


def test_deep_nesting_is_bounded() -> None:
    value: dict[str, Any] = polygon(SQUARE)
    for _ in range(1000):
        value = {"type": "GeometryCollection", "geometries": [value]}
    with pytest.raises(InvalidInputError, match="nested"):
        Region.from_geometry(value)


# ---------------------------------------------------------------- the matching rule


def test_a_cells_own_box_and_polygon_match_that_cell_alone() -> None:
    for scheme, code in (
        (GEOHASH, "dqcjq"),
        (QUADTILE, "0320103200101"),
        (QUADTILE, "2"),
        (GEOHASH, "8"),
        (GEOHASH, "z"),
        (QUADTILE, "0" * 20),
    ):
        box = scheme.bounds(code)
        assert covering(scheme, Region.from_bbox(box), len(code)) == [code]
        outline = Region.from_geometry(shapely.box(*box.as_tuple()))
        assert covering(scheme, outline, len(code)) == [code]
        assert outline.relation(box) is Relation.INSIDE


def test_a_sliver_counts_and_an_edge_does_not() -> None:
    box = GEOHASH.bounds("s0")
    wider = BBox(box.west, box.south, math.nextafter(box.east, 180.0), box.north)
    assert cells(Region.from_bbox(wider)) == ["s0", "s2"]
    assert cells(Region.from_geometry(shapely.box(*wider.as_tuple()))) == ["s0", "s2"]
    # A triangle whose tip is one float step across the edge.
    tip = [[1.0, 1.0], [math.nextafter(box.east, 180.0), 2.0], [1.0, 3.0], [1.0, 1.0]]
    assert cells(Region.from_geometry(polygon(tip))) == ["s0", "s2"]
    tip[1][0] = box.east
    assert cells(Region.from_geometry(polygon(tip))) == ["s0"]


def test_points_on_edges_belong_to_one_cell() -> None:
    corner = {"type": "Point", "coordinates": [0.0, 0.0]}
    assert cells(Region.from_geometry(corner), 1) == ["s"]
    assert covering(QUADTILE, Region.from_geometry(corner), 1) == ["3"]
    assert cells(Region.from_bbox(BBox(0, 0, 0, 0)), 1) == ["s"]
    for lon in (180.0, -180.0, 540.0, -540.0):
        point = Region.from_geometry({"type": "Point", "coordinates": [lon, 90.0]})
        assert cells(point, 1) == ["b"]
        assert covering(QUADTILE, point, 1) == []


def test_lines_along_edges_belong_to_the_owner() -> None:
    equator = {"type": "LineString", "coordinates": [[1.0, 0.0], [2.0, 0.0]]}
    assert cells(Region.from_geometry(equator), 1) == ["s"]
    assert covering(QUADTILE, Region.from_geometry(equator), 1) == ["3"]
    greenwich = Region.from_bbox(BBox(0, 1, 0, 2))
    assert cells(greenwich, 1) == ["s"]
    for lon in (180.0, -180.0):
        dateline = Region.from_bbox(BBox(lon, 1, lon, 2))
        assert cells(dateline, 1) == ["8"]
        assert covering(QUADTILE, dateline, 1) == ["0"]
    assert cells(Region.from_bbox(BBox(1, 90, 2, 90)), 1) == ["u"]
    # The end of a line at an edge is a point of the next cell, not a length in it.
    assert cells(Region.from_bbox(BBox(-1, 1, 0, 1)), 1) == ["e"]
    # Through a corner: the two cells on its way, not the two it touches.
    diagonal = {"type": "LineString", "coordinates": [[-1, -1], [1, 1]]}
    assert cells(Region.from_geometry(diagonal), 1) == ["7", "s"]
    touching = {"type": "LineString", "coordinates": [[-1, 1], [1, -1]]}
    assert cells(Region.from_geometry(touching), 1) == ["e", "k"]


def test_line_of_no_length_is_a_point() -> None:
    dot = {"type": "LineString", "coordinates": [[0, 0], [0, 0]]}
    assert Region.from_geometry(dot) == Region.from_geometry(
        {"type": "Point", "coordinates": [0, 0]}
    )


def test_boxes_across_the_antimeridian() -> None:
    assert cells(Region.from_bbox(BBox(179, 1, -179, 2)), 1) == ["8", "x"]
    # Up to the antimeridian, not across it: no width is left on the other side.
    assert cells(Region.from_bbox(BBox(179, 1, -180, 2)), 1) == ["x"]
    assert cells(Region.from_bbox(BBox(180, 1, -179, 2)), 1) == ["8"]
    assert cells(Region.from_bbox(BBox(180, 1, -180, 2)), 1) == ["8"]
    assert cells(Region.from_bbox(BBox(180, 1, -180, 1)), 1) == ["8"]
    assert Region.from_bbox(BBox(179, 1, -179, 2)).bboxes == (
        BBox(179, 1, 180, 2),
        BBox(-180, 1, -179, 2),
    )


def test_longitudes_past_180_go_on_around() -> None:
    east = shapely.box(179, 1, 181, 2)
    west = shapely.box(-181, 1, -179, 2)
    turned = shapely.box(539, 1, 541, 2)
    expected = cells(Region.from_bbox(BBox(179, 1, -179, 2)), 4)
    for shape in (east, west, turned):
        assert cells(Region.from_geometry(shape), 4) == expected
    assert Region.from_geometry(east).bboxes == (BBox(-180, 1, -179, 2), BBox(179, 1, 180, 2))
    line = {"type": "LineString", "coordinates": [[179, 1], [181, 1]]}
    assert cells(Region.from_geometry(line), 1) == ["8", "x"]
    up_to = {"type": "LineString", "coordinates": [[160, 1], [180, 2]]}
    assert Region.from_geometry(up_to).bboxes == (BBox(160, 1, 180, 2),)
    # 0..360 is the whole world.
    assert len(cells(Region.from_geometry(shapely.box(0, -90, 360, 90)))) == 1024


def test_polygons_that_cross_themselves_are_made_valid() -> None:
    bow_tie = polygon([[0, 0], [40, 40], [40, 0], [0, 40], [0, 0]])
    region = Region.from_geometry(bow_tie)
    lobes = shapely.make_valid(shapely.Polygon(bow_tie["coordinates"][0]))
    assert cells(region) == cells(Region.from_geometry(lobes))
    assert Region.from_json(region.to_json()) == region
    # Overlapping members are a union, never an even-odd hole.
    twice = {"type": "MultiPolygon", "coordinates": [[SQUARE], [SQUARE]]}
    assert cells(Region.from_geometry(twice), 4) == cells(Region.from_bbox(BBox(0, 0, 1, 1)), 4)


def test_polygon_without_area_acts_as_its_line() -> None:
    flat = polygon([[0, 0], [1, 0], [2, 0], [0, 0]])
    assert cells(Region.from_geometry(flat), 1) == ["s"]
    dot = polygon([[0, 0], [0, 0], [0, 0], [0, 0]])
    assert cells(Region.from_geometry(dot), 1) == ["s"]
    # A spur on a polygon with area adds nothing.
    spur = polygon([[1, 1], [2, 1], [2, 2], [1, 2], [1, 1], [-1, 1], [1, 1]])
    assert cells(Region.from_geometry(spur), 1) == ["s"]


def test_holes_are_outside() -> None:
    outer = [[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]
    hole = [[0, 0], [0, 45], [45, 45], [45, 0], [0, 0]]
    region = Region.from_geometry(polygon(outer, hole))
    assert cells(region, 1) == sorted(set(GEOHASH.alphabet) - {"s"})
    assert region.relation(GEOHASH.bounds("s")) is Relation.OUTSIDE
    assert region.relation(GEOHASH.bounds("t")) is Relation.INSIDE
    assert region.relation(GEOHASH.bounds("")) is Relation.PARTIAL


# ---------------------------------------------------------------- relation


def test_relation_of_boxes() -> None:
    region = Region.from_bbox(BBox(170, -10, -170, 10))
    assert region.relation(BBox(171, -5, 179, 5)) is Relation.INSIDE
    assert region.relation(BBox(175, -5, -175, 5)) is Relation.INSIDE
    assert region.relation(BBox(160, -5, 175, 5)) is Relation.PARTIAL
    assert region.relation(BBox(160, -5, -175, 5)) is Relation.PARTIAL
    assert region.relation(BBox(0, -5, 10, 5)) is Relation.OUTSIDE
    assert region.relation(BBox(160, -5, 170, 5)) is Relation.OUTSIDE
    assert region.relation(BBox(175, 0, 175, 5)) is Relation.PARTIAL
    assert region.relation(BBox(0, 0, 0, 5)) is Relation.OUTSIDE


def test_relation_of_thin_shapes_is_never_inside() -> None:
    line = Region.from_geometry({"type": "LineString", "coordinates": [[0, 0], [10, 10]]})
    assert line.relation(BBox(0, 0, 10, 10)) is Relation.PARTIAL
    assert line.relation(BBox(6, 0, 10, 5)) is Relation.OUTSIDE
    point = Region.from_bbox(BBox(5, 5, 5, 5))
    assert point.relation(BBox(0, 0, 10, 10)) is Relation.PARTIAL
    assert point.relation(BBox(6, 0, 10, 5)) is Relation.OUTSIDE
    bounds = np.array([[0.0, 0.0, 10.0, 10.0], [6.0, 0.0, 10.0, 5.0]])
    assert line.relation_many(bounds).tolist() == [1, 0]


def test_matches_takes_the_root_and_refuses_no_code() -> None:
    region = Region.from_bbox(BBox(0, 0, 1, 1))
    assert region.matches(GEOHASH, "")
    assert region.matches(GEOHASH, "S0")
    assert region.matches_many(GEOHASH, ["s00", "s", "u"]).tolist() == [True, True, False]
    for shape in (region, Region.from_geometry(polygon(SQUARE))):
        with pytest.raises(InvalidInputError, match="none of its digits"):
            shape.matches(GEOHASH, "a")


def test_threads_may_share_a_region() -> None:
    angles = np.linspace(0, 2 * np.pi, 2000)
    circle = shapely.Polygon(np.stack([40 * np.cos(angles), 40 * np.sin(angles)], axis=1))
    expected = cells(Region.from_geometry(circle), 3)
    region = Region.from_geometry(circle)
    found: list[list[str]] = []
    threads = [threading.Thread(target=lambda: found.append(cells(region, 3))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 8


def test_real_outlines(shared_data: Path) -> None:
    states = json.loads((shared_data / "vectors" / "us_states.geojson").read_text())
    every = ["".join(digits) for digits in itertools.product(GEOHASH.alphabet, repeat=3)]
    tree = shapely.STRtree(shapely.box(*GEOHASH.bounds_many(every).T))
    overlapped: dict[str, float] = {}
    for feature in states["features"]:
        outline = shapely.make_valid(shapely.geometry.shape(feature["geometry"]))
        for i in tree.query(outline):
            area = tree.geometries[i].intersection(outline).area
            overlapped[every[i]] = max(area, overlapped.get(every[i], 0.0))
    found = set(cells(Region.from_geometry(states), 3))
    assert len(found) > 500
    assert found >= {code for code, area in overlapped.items() if area > 1e-9}
    assert found <= {code for code, area in overlapped.items() if area > 0}


# ---------------------------------------------------------------- two places at once

BOX = Region.from_bbox(BBox(-80.0, 30.0, -60.0, 50.0))
OTHERS = (
    Region.from_bbox(BBox(-70.0, 40.0, -50.0, 60.0)),
    Region.from_bbox(BBox(170.0, -80.0, -75.0, 80.0)),  # across the antimeridian
    Region.from_geometry({"type": "Point", "coordinates": [-70.0, 40.0]}),
    Region.from_geometry({"type": "LineString", "coordinates": [[-90.0, 35.0], [-65.0, 45.0]]}),
    Region.from_geometry(polygon([[-75.0, 20.0], [-40.0, 45.0], [-70.0, 60.0], [-75.0, 20.0]])),
    Region.from_geometry({"type": "Point", "coordinates": [20.0, 40.0]}),
    BOX,
)


@pytest.mark.parametrize("other", OTHERS)
def test_both_places_must_hold(other: Region) -> None:
    both = Region.of_both(BOX, other)
    for grid, length in ((GEOHASH, 2), (QUADTILE, 6)):
        columns, rows = grid.grid_size(length)
        codes = [grid.geocode_at(i, j, length) for i in range(columns) for j in range(rows)]
        one, two = BOX.matches_many(grid, codes), other.matches_many(grid, codes)
        found = both.matches_many(grid, codes)
        assert found.tolist() == (one & two).tolist()
        near = [i for i in range(len(codes)) if one[i]][:60]
        assert [both.matches(grid, codes[i]) for i in near] == [bool(found[i]) for i in near]
        assert sorted(covering(grid, both, length)) == sorted(
            code for code, is_found in zip(codes, found, strict=True) if is_found
        )
        for i in near:
            bounds = grid.bounds(codes[i])
            relation = both.relation(bounds)
            assert relation is not Relation.OUTSIDE or not found[i]
            assert relation is not Relation.INSIDE or found[i]
            many = both.relation_many(np.array([bounds.as_tuple()]))
            assert many.tolist() == [relation.value]
    assert both.parts == (BOX, other)
    assert BOX.parts == (BOX,)


def test_two_places_apart_may_share_a_cell() -> None:
    cell = GEOHASH.bounds("dq")
    corner = Region.from_bbox(BBox(cell.west, cell.south, cell.west + 1, cell.south + 1))
    point = Region.from_geometry({"type": "Point", "coordinates": [cell.east - 1, cell.north - 1]})
    for both in (Region.of_both(corner, point), Region.of_both(point, corner)):
        assert cells(both) == ["dq"]
        assert both.bboxes == point.bboxes
        assert cells(both, 4) == []
        assert both.relation(cell) is Relation.PARTIAL


def test_two_places_are_a_value() -> None:
    both = Region.of_both(BOX, OTHERS[4])
    again = Region.from_json(json.loads(json.dumps(both.to_json())))
    assert again == both == pickle.loads(pickle.dumps(both))
    assert hash(again) == hash(both)
    assert both != Region.of_both(OTHERS[4], BOX)
    assert both != BOX
    with pytest.raises(InvalidInputError, match="two places at most"):
        Region.of_both(both, BOX)


@pytest.mark.parametrize(
    "value",
    [None, [], [{}, {}], [BOX.to_json()], [BOX.to_json(), {"both": []}], [BOX.to_json(), 3]],
)
def test_two_places_that_do_not_read_are_refused(value: object) -> None:
    with pytest.raises(InvalidInputError, match="region"):
        Region.from_json({"both": value})
