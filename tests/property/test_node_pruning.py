"""Slots that match against brute force over every cell (invariant 6, and that none is missed)."""

from __future__ import annotations

from collections import defaultdict
from functools import cache

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given, settings

from geostore.grid import QUADTILE, Region, Scheme, scheme
from geostore.node import pruning
from geostore.node.pruning import slots_matching
from geostore.query import (
    AllOf,
    AnyOf,
    Expression,
    InRegion,
    Not,
    OneOf,
    Query,
    UnderGeocode,
    Within,
)
from geostore.ring import SLOTS_TOTAL, slot_of
from geostore.types import BBox, DatasetDefinition, SchemeName
from geostore.types.dataset import ResolutionGroup


@cache
def cells_of(name: SchemeName, length: int) -> tuple[str, ...]:
    grid = scheme(name)
    columns, rows = grid.grid_size(length)
    return tuple(
        grid.geocode_at(column, row, length) for column in range(columns) for row in range(rows)
    )


def brute_force(query: Query, definition: DatasetDefinition) -> set[int]:
    """The slots of all cells that match, one by one."""
    assert definition.length is not None
    cells = cells_of(definition.scheme, definition.length)
    if query.geocode is not None:
        prefix = query.geocode
        cells = tuple(
            cell
            for cell in cells
            if (cell.startswith(prefix) if query.recursive else cell == prefix)
        )
    if query.region is not None and cells:
        matched = query.region.matches_many(scheme(definition.scheme), cells)
        cells = tuple(np.array(cells)[matched].tolist())
    return {slot_of(cell[: definition.placement]) for cell in cells}


@st.composite
def definitions(draw: st.DrawFn, name: str = "a") -> DatasetDefinition:
    grid: SchemeName = draw(st.sampled_from(["geohash", "quadtile"]))
    length = draw(st.integers(1, 2 if grid == "geohash" else 6))
    return DatasetDefinition(
        id=name,
        name=name,
        scheme=grid,
        length=length,
        placement=draw(st.integers(1, length)),
        groups=(ResolutionGroup(10.0, 512, 512),),
    )


def _edges(bound: float) -> st.SearchStrategy[float]:
    """Coordinates, many of them on the edges of cells."""
    return st.one_of(
        st.integers(-64, 64).map(lambda i: i * bound / 64),
        st.floats(-bound, bound, allow_nan=False),
        st.sampled_from([-QUADTILE.lat_limit, QUADTILE.lat_limit, 66.51326044311186]),
    )


@st.composite
def boxes(draw: st.DrawFn) -> Region:
    """Also across the antimeridian (west above east), lines and points."""
    south, north = sorted(draw(st.tuples(_edges(90.0), _edges(90.0))))
    west, east = draw(st.tuples(_edges(180.0), _edges(180.0)))
    shape = draw(st.sampled_from(["box", "box", "flat", "thin", "point"]))
    if shape in ("flat", "point"):
        north = south
    if shape in ("thin", "point"):
        east = west
    return Region.from_bbox(BBox(west, south, east, north))


@st.composite
def geometries(draw: st.DrawFn) -> Region:
    places = st.tuples(
        st.one_of(_edges(180.0), st.floats(180.0, 200.0)).map(float), _edges(90.0).map(float)
    )
    kind = draw(st.sampled_from(["Point", "MultiPoint", "LineString", "Polygon"]))
    if kind == "Point":
        return Region.from_geometry({"type": kind, "coordinates": list(draw(places))})
    corners = [list(place) for place in draw(st.lists(places, min_size=3, max_size=5, unique=True))]
    if kind == "Polygon":
        return Region.from_geometry({"type": kind, "coordinates": [[*corners, corners[0]]]})
    return Region.from_geometry({"type": kind, "coordinates": corners})


@st.composite
def queries(draw: st.DrawFn) -> Query:
    region = draw(st.one_of(st.none(), boxes(), geometries()))
    geocode = draw(
        st.one_of(
            st.none(),
            st.text("0123", min_size=1, max_size=7),
            st.text("0bz9", min_size=1, max_size=3),
        )
    )
    return Query(region=region, geocode=geocode, recursive=draw(st.booleans()))


def _checked(found: frozenset[int] | None) -> set[int]:
    return set(range(SLOTS_TOTAL)) if found is None else set(found)


WHOLE = Query(region=Region.from_bbox(BBox(-180.0, -90.0, 180.0, 90.0)))
SEAM = Query(region=Region.from_bbox(BBox(180.0, -10.0, -180.0, 10.0)))
QUADS = DatasetDefinition(
    id="a", name="a", scheme="quadtile", length=6, placement=5, groups=(ResolutionGroup(1.0, 1, 1),)
)


@settings(max_examples=300)
@given(queries(), definitions())
@example(WHOLE, QUADS)
@example(SEAM, QUADS)
def test_exactly_the_slots_of_matching_cells_are_found(
    query: Query, definition: DatasetDefinition
) -> None:
    assert _checked(slots_matching(query, [definition])) == brute_force(query, definition)


@settings(max_examples=150)
@given(queries(), definitions())
@example(WHOLE, QUADS)
def test_the_walk_from_the_root_finds_the_same(query: Query, definition: DatasetDefinition) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruning, "_CANDIDATES_MAX", 0)
        patch.setattr(pruning, "_CELLS_WALKED", 3)
        found = slots_matching(query, [definition])
    assert _checked(found) == brute_force(query, definition)


@settings(max_examples=100)
@given(queries(), definitions("a"), definitions("b"), st.sampled_from([None, ("a",), ("b", "a")]))
def test_datasets_add_up(
    query: Query, a: DatasetDefinition, b: DatasetDefinition, names: tuple[str, ...] | None
) -> None:
    query = Query(
        datasets=names, region=query.region, geocode=query.geocode, recursive=query.recursive
    )
    chosen = [each for each in (a, b) if names is None or each.name in names]
    expected = set().union(*(brute_force(query, each) for each in chosen))
    assert _checked(slots_matching(query, [a, b])) == expected


@settings(max_examples=100)
@given(queries(), definitions(), st.integers(1, 40))
def test_an_early_end_names_all_slots_and_only_when_told(
    query: Query, definition: DatasetDefinition, enough: int
) -> None:
    expected = brute_force(query, definition)
    told: list[bool] = []

    def is_enough(slots: set[int]) -> bool:
        assert slots <= expected
        told.append(len(slots) >= enough)
        return told[-1]

    found = slots_matching(query, [definition], is_enough=is_enough)
    assert (found is None) == any(told)
    if found is not None:
        assert found == expected


@settings(max_examples=200)
@given(
    st.sampled_from([scheme("geohash"), QUADTILE]),
    st.floats(-179.0, 179.0),
    st.floats(-80.0, 80.0),
    st.floats(0.0, 1.0),
    st.floats(0.0, 1.0),
)
def test_a_box_no_larger_than_a_cell_asks_at_most_four(
    grid: Scheme, lon: float, lat: float, wide: float, high: float
) -> None:
    placement = 5 if grid.name == "geohash" else 12
    cell = grid.bounds(grid.encode(lon, lat, placement))
    definition = DatasetDefinition(
        id="a",
        name="a",
        scheme=grid.name,
        length=placement,
        placement=placement,
        groups=(ResolutionGroup(10.0, 512, 512),),
    )
    # Rows of quadtiles shrink towards the poles, by less than the hundredth left off here.
    box = BBox(
        lon,
        lat,
        lon + 0.99 * wide * (cell.east - cell.west),
        lat + 0.99 * high * (cell.north - cell.south),
    )
    slots = slots_matching(Query(region=Region.from_bbox(box)), [definition])
    assert slots is not None
    middle = grid.encode((box.west + box.east) / 2, (box.south + box.north) / 2, placement)
    assert slot_of(middle) in slots
    assert 1 <= len(slots) <= 4


# ---------------------------------------------------------------- what `where` implies

CODES = st.one_of(st.text("0123", min_size=1, max_size=7), st.text("0bz9", min_size=1, max_size=3))
LEAVES = st.one_of(
    st.one_of(boxes(), geometries()).map(InRegion),
    st.builds(UnderGeocode, CODES, recursive=st.booleans()),
    st.lists(CODES, min_size=1, max_size=20).map(lambda codes: OneOf("geocode", tuple(codes))),
    st.sampled_from([("a",), ("b",), ("a", "b"), ("c",)]).map(
        lambda names: OneOf("dataset", names)
    ),
    st.just(Within("cloud", None, 20)),
)


def _joinings(parts: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    several = st.lists(parts, min_size=1, max_size=3).map(tuple)
    return st.one_of(several.map(AllOf), several.map(AnyOf), several.map(AnyOf), parts.map(Not))


PLACES: st.SearchStrategy[Expression] = st.recursive(LEAVES, _joinings, max_leaves=6)


def _cells_of_leaf(leaf: Expression, definition: DatasetDefinition) -> set[str]:
    """The cells whose tiles a predicate can be true of."""
    assert definition.length is not None
    cells = cells_of(definition.scheme, definition.length)
    match leaf:
        case InRegion(region):
            matched = region.matches_many(scheme(definition.scheme), cells)
            return set(np.array(cells)[matched].tolist())
        case UnderGeocode(code, recursive=recursive):
            return {
                each for each in cells if (each.startswith(code) if recursive else each == code)
            }
        case OneOf("geocode", values):
            return set(cells) & set(values)
        case OneOf("dataset", values):
            return set(cells) if definition.name in values else set()
        case _:
            return set(cells)


def _may_match(expression: Expression, definition: DatasetDefinition) -> set[str]:
    """The cells of which the expression may be true, whatever else their tiles are."""
    return set(cells_of(definition.scheme, definition.length or 0)) - _surely(
        expression, definition, truth=False
    )


def _surely(expression: Expression, definition: DatasetDefinition, *, truth: bool) -> set[str]:
    match expression:
        case Not(part):
            return _surely(part, definition, truth=not truth)
        case AllOf(parts) | AnyOf(parts):
            found = [_surely(part, definition, truth=truth) for part in parts]
            every = isinstance(expression, AllOf) == truth
            return set.intersection(*found) if every else set.union(*found)
        case Within():
            return set()
        case _:
            own = _cells_of_leaf(expression, definition)
            cells = set(cells_of(definition.scheme, definition.length or 0))
            return own if truth else cells - own


def _keys_implied(
    expression: Expression, definition: DatasetDefinition, *, truth: bool
) -> set[str]:
    """The placement keys for which what is implied holds, each predicate asked by itself."""
    keys = defaultdict(set)
    for cell in cells_of(definition.scheme, definition.length or 0):
        keys[cell[: definition.placement]].add(cell)
    match expression:
        case Not(part):
            return _keys_implied(part, definition, truth=not truth)
        case AllOf(parts) | AnyOf(parts):
            found = [_keys_implied(part, definition, truth=truth) for part in parts]
            every = isinstance(expression, AllOf) == truth
            return set.intersection(*found) if every else set.union(*found)
        case _:
            if not truth:
                return set(keys)
            own = _cells_of_leaf(expression, definition)
            return {key for key, cells in keys.items() if cells & own}


@settings(max_examples=300, deadline=None)
@given(PLACES, definitions(), st.booleans())
def test_where_asks_exactly_the_slots_of_what_it_implies(
    where: Expression, definition: DatasetDefinition, walked: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if walked:
            patch.setattr(pruning, "_CANDIDATES_MAX", 0)
            patch.setattr(pruning, "_CELLS_WALKED", 3)
        found = _checked(slots_matching(Query(where=where), [definition]))
    placement = definition.placement
    assert found >= {slot_of(cell[:placement]) for cell in _may_match(where, definition)}
    assert found == {slot_of(key) for key in _keys_implied(where, definition, truth=True)}


@settings(max_examples=150, deadline=None)
@given(queries(), PLACES, definitions("a"), definitions("b"))
def test_where_beside_other_predicates_leaves_no_answer_out(
    query: Query, where: Expression, a: DatasetDefinition, b: DatasetDefinition
) -> None:
    asked = Query(
        region=query.region, geocode=query.geocode, recursive=query.recursive, where=where
    )
    found = _checked(slots_matching(asked, [a, b]))
    assert found <= _checked(slots_matching(query, [a, b]))
    for definition in (a, b):
        cells = _may_match(where, definition)
        if query.geocode is not None:
            cells &= _cells_of_leaf(
                UnderGeocode(query.geocode, recursive=query.recursive), definition
            )
        if query.region is not None:
            cells &= _cells_of_leaf(InRegion(query.region), definition)
        assert found >= {slot_of(cell[: definition.placement]) for cell in cells}
