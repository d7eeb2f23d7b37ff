"""Which slots could hold an answer: the plain cases. The rule itself: tests/property."""

from __future__ import annotations

import math

import pytest
import shapely

from geostore.grid import GEOHASH, QUADTILE, Region, Scheme
from geostore.node import pruning
from geostore.node.pruning import KEYS_ALL, slots_matching
from geostore.query import AnyOf, InRegion, OneOf, Query, Within
from geostore.ring import SLOTS_TOTAL, slot_of
from geostore.types import BBox, DatasetDefinition, SchemeName
from geostore.types.dataset import ResolutionGroup

GROUPS = (ResolutionGroup(10.0, 512, 512),)


def dataset(
    name: str = "s2", *, grid: SchemeName = "geohash", length: int = 5, placement: int = 5
) -> DatasetDefinition:
    return DatasetDefinition(
        id=f"id-{name}",
        name=name,
        scheme=grid,
        length=length,
        placement=placement,
        groups=GROUPS,
    )


def found(query: Query, *definitions: DatasetDefinition) -> set[int]:
    slots = slots_matching(query, definitions)
    assert slots is not None
    return set(slots)


def inside(cell: BBox, left: float, bottom: float, right: float, top: float) -> Region:
    """A box by its share of a cell's width and height."""
    wide, high = cell.east - cell.west, cell.north - cell.south
    return Region.from_bbox(
        BBox(
            cell.west + left * wide,
            cell.south + bottom * high,
            cell.west + right * wide,
            cell.south + top * high,
        )
    )


@pytest.mark.parametrize(("grid", "code"), [(GEOHASH, "dqcjq"), (QUADTILE, "032001112213")])
def test_a_box_inside_a_cell_asks_one_slot(grid: Scheme, code: str) -> None:
    cell, own = grid.bounds(code), dataset(grid=grid.name, length=len(code), placement=len(code))
    for region in (
        inside(cell, 0.25, 0.25, 0.75, 0.75),
        inside(cell, 0.0, 0.0, 1.0, 1.0),  # its edges touch the neighbours
        inside(cell, 0.5, 0.5, 0.5, 0.5),  # a point
    ):
        assert found(Query(region=region), own) == {slot_of(code)}


@pytest.mark.parametrize(("grid", "code"), [(GEOHASH, "dqcjq"), (QUADTILE, "032001112213")])
def test_a_box_as_large_as_a_cell_asks_at_most_four(grid: Scheme, code: str) -> None:
    cell, own = grid.bounds(code), dataset(grid=grid.name, length=len(code), placement=len(code))
    slots = slots_matching(Query(region=inside(cell, 0.5, 0.5, 1.5, 1.5)), [own])
    assert slots is not None
    assert slot_of(code) in slots
    assert 2 <= len(slots) <= 4


def test_a_long_geocode_asks_the_slot_of_its_placement_key() -> None:
    own = dataset(length=6, placement=4)
    for query in (
        Query(geocode="dqcjq"),
        Query(geocode="dqcj"),
        Query(geocode="dqcjqx", recursive=False),
    ):
        assert found(query, own) == {slot_of("dqcj")}


def test_a_short_geocode_asks_all_keys_under_it() -> None:
    expected = {slot_of("dqc" + digit) for digit in GEOHASH.alphabet}
    assert found(Query(geocode="dqc"), dataset(length=6, placement=4)) == expected
    quads = dataset(grid="quadtile", length=4, placement=3)
    assert found(Query(geocode="03"), quads) == {slot_of(f"03{i}") for i in range(4)}


@pytest.mark.parametrize(
    "query",
    [
        Query(geocode="dqcjqxx"),  # longer than a cell's
        Query(geocode="dqcj", recursive=False),  # no cell, and only that cell is asked for
        Query(datasets=("other",)),
        Query(geocode="dqcj", region=Region.from_bbox(BBox(10.0, 10.0, 11.0, 11.0))),
        Query(geocode="d", region=Region.from_bbox(BBox(10.0, 10.0, 11.0, 11.0))),
    ],
)
def test_what_no_tile_can_match_asks_nobody(query: Query) -> None:
    assert found(query, dataset(length=6, placement=4)) == set()


def test_a_geocode_is_of_the_schemes_that_have_its_digits() -> None:
    quads = dataset("l8", grid="quadtile", length=12, placement=12)
    assert found(Query(geocode="dqcjq"), quads) == set()
    both = found(Query(geocode="012310123101"), quads, dataset(length=12))
    assert both == {slot_of("012310123101"), slot_of("01231")}


def test_quadtiles_end_before_the_poles() -> None:
    quads = dataset(grid="quadtile", length=12, placement=12)
    pole = Region.from_bbox(BBox(-10.0, 86.0, 10.0, 90.0))
    assert found(Query(region=pole), quads) == set()
    assert slots_matching(Query(region=pole), [dataset(length=2, placement=2)])


def test_datasets_without_tiles_ask_nobody() -> None:
    incomplete = DatasetDefinition(id="x", name="x", scheme="geohash", length=5, placement=None)
    assert found(Query(), incomplete) == set()
    assert found(Query()) == set()


def test_few_keys_ask_only_their_slots_even_without_a_place() -> None:
    assert found(Query(), dataset(length=3, placement=1)) == {
        slot_of(digit) for digit in GEOHASH.alphabet
    }


def test_the_search_ends_when_it_is_enough() -> None:
    seen: list[int] = []

    def is_enough(slots: set[int]) -> bool:
        seen.append(len(slots))
        return len(slots) > 300

    query = Query(region=Region.from_bbox(BBox(-80.0, 36.0, -77.0, 39.0)))
    assert slots_matching(query, [dataset()], is_enough=is_enough) is None
    assert seen[-1] > 300
    assert len(seen) <= 3


def test_a_small_place_has_its_exact_slots_even_if_everyone_is_asked() -> None:
    query = Query(geocode="dqc")
    slots = slots_matching(query, [dataset(length=6, placement=4)], is_enough=lambda _: True)
    assert slots is not None
    assert set(slots) == {slot_of("dqc" + digit) for digit in GEOHASH.alphabet}


class _CountedHashes:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.total = 0
        monkeypatch.setattr(pruning, "slot_of", self._slot_of)

    def _slot_of(self, key: str) -> int:
        self.total += 1
        return slot_of(key)


CONTINENT = BBox(-125.0, 25.0, -66.0, 49.0)
COAST = shapely.LineString([(-170 + i / 10, 60 * math.sin(i / 5)) for i in range(3400)])


@pytest.mark.parametrize(
    "region",
    [
        Region.from_bbox(CONTINENT),
        Region.from_bbox(BBox(-180.0, -90.0, 180.0, 90.0)),
        Region.from_geometry(shapely.Point(-100, 40).buffer(20, quad_segs=500)),
        None,
    ],
    ids=["box", "globe", "polygon", "no place"],
)
@pytest.mark.parametrize(("grid", "placement"), [("geohash", 5), ("quadtile", 12)])
def test_a_continent_is_not_hashed(
    region: Region | None, grid: SchemeName, placement: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = _CountedHashes(monkeypatch)
    own = dataset(grid=grid, length=placement, placement=placement)
    assert slots_matching(Query(region=region), [own]) is None
    assert hashes.total <= 20_000


def test_a_long_coast_is_left_early(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = _CountedHashes(monkeypatch)
    query = Query(region=Region.from_geometry(COAST))
    enough = slots_matching(query, [dataset()], is_enough=lambda slots: len(slots) > 1000)
    assert enough is None
    assert hashes.total <= 4096


def test_the_bound_on_hashed_keys_hits_every_slot() -> None:
    # The chance that a slot is missed: SLOTS_TOTAL * exp(-KEYS_ALL / SLOTS_TOTAL).
    assert SLOTS_TOTAL * math.exp(-KEYS_ALL / SLOTS_TOTAL) < 1e-9


# ---------------------------------------------------------------- places in `where`


def _around(code: str) -> InRegion:
    return InRegion(inside(GEOHASH.bounds(code), 0.25, 0.25, 0.75, 0.75))


def test_either_of_two_boxes_asks_the_slots_of_both_and_both_of_them_none() -> None:
    first, other = _around("dqcjq"), _around("9q8yy")
    slots = {slot_of("dqcjq"), slot_of("9q8yy")}
    assert found(Query(where=first | other), dataset()) == slots
    assert found(Query(where=first & other), dataset()) == set()
    assert found(Query(where=first & Within("cloud", None, 20)), dataset()) == {slot_of("dqcjq")}
    assert found(Query(where=(first | other) & ~other), dataset()) == slots
    assert slots_matching(Query(where=~first), [dataset()]) is None
    assert slots_matching(Query(where=first | Within("cloud", None, 20)), [dataset()]) is None
    assert found(Query(region=first.region, where=first | other), dataset()) == {slot_of("dqcjq")}
    assert found(Query(geocode="9q8yy", where=first | other), dataset()) == {slot_of("9q8yy")}


def test_a_box_for_each_of_two_datasets_is_asked_of_its_own_alone() -> None:
    first, other = _around("dqcjq"), _around("9q8yy")
    where = (first & OneOf("dataset", ("s2",))) | (other & OneOf("dataset", ("l8",)))
    assert found(Query(where=where), dataset("s2")) == {slot_of("dqcjq")}
    assert found(Query(where=where), dataset("l8")) == {slot_of("9q8yy")}
    assert found(Query(where=where), dataset("naip")) == set()
    assert found(Query(where=OneOf("dataset", ("l8",))), dataset("s2")) == set()


def test_many_geocodes_ask_the_slots_of_those_that_can_be_cells() -> None:
    codes = ("dqcjq", "9q8yy", "0320", "dqcjqz")  # of another length, of none
    where = OneOf("geocode", codes)
    assert found(Query(where=where), dataset()) == {slot_of("dqcjq"), slot_of("9q8yy")}
    assert found(Query(where=where), dataset(length=6)) == {slot_of("dqcjq")}
    quads = dataset(grid=QUADTILE.name, length=4, placement=3)
    assert found(Query(where=where), quads) == {slot_of("032")}


def test_a_thousand_boxes_are_looked_for_together() -> None:
    cells = [GEOHASH.encode(i / 3 - 160, (i * 7) % 120 - 60, 5) for i in range(1000)]
    where = AnyOf(tuple(_around(cell) for cell in cells))
    assert found(Query(where=where), dataset()) == {slot_of(cell) for cell in cells}


def test_thousands_of_geocodes_are_looked_for_together() -> None:
    cells = sorted({GEOHASH.encode(i / 30 - 160, (i * 7) % 120 - 60, 5) for i in range(9000)})
    slots = {slot_of(cell) for cell in cells}
    assert found(Query(where=OneOf("geocode", tuple(cells))), dataset()) == slots
    several = AnyOf(tuple(OneOf("geocode", tuple(cells[i::900])) for i in range(900)))
    assert found(Query(where=several), dataset(length=5)) == slots
