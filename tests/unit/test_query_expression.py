"""Expressions as values: what can be built, what is refused, how they read and travel."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import pytest

from geostore.errors import InvalidInputError
from geostore.grid import Region
from geostore.query import (
    AllOf,
    AnyOf,
    Expression,
    HasBands,
    InRegion,
    IsNull,
    Not,
    OneOf,
    Query,
    TimeOverlaps,
    UnderGeocode,
    Within,
    conditions,
    conjuncts,
    matching,
    simplified,
)
from geostore.query.expression import (
    DEPTH_MAX,
    LEAVES_MAX,
    VALUES_MAX,
    expression_from_json,
)
from geostore.query.value import PercentRange
from geostore.types import BBox, TimeSpan
from tests.synthetic_tiles import make_batch, make_entry

CLEAR = Within("cloud", None, 20)
RED = HasBands(("red",))
BOX = Region.from_bbox(BBox(1.0, 2.0, 3.0, 4.5))


# ---------------------------------------------------------------- three values


def _found(expression: Expression, clouds: tuple[float | None, ...]) -> list[bool]:
    batch = make_batch([make_entry(cloud=cloud) for cloud in clouds])
    return matching(batch, Query(where=expression)).tolist()


def test_unknown_is_neither_true_nor_false() -> None:
    clouds = (10.0, 50.0, None)
    assert _found(CLEAR, clouds) == [True, False, False]
    assert _found(Not(CLEAR), clouds) == [False, True, False]
    assert _found(CLEAR | ~CLEAR, clouds) == [True, True, False]
    assert _found(IsNull("cloud"), clouds) == [False, False, True]
    assert _found(~IsNull("cloud"), clouds) == [True, True, False]
    assert _found(~CLEAR | IsNull("cloud"), clouds) == [False, True, True]
    # An unknown part leaves what the others decide.
    assert _found(CLEAR | RED, clouds) == [True, True, True]
    assert _found(Not(CLEAR & ~RED), clouds) == [True, True, True]


def test_each_nullable_value_makes_its_predicates_unknown() -> None:
    batch = make_batch([make_entry(time_us=None, platform=None, cloud=None)])
    for leaf in (
        TimeOverlaps(TimeSpan(None, None)),
        Within("time", None, None),
        Within("time_end", 0, None),
        Within("cloud", None, 100),
        OneOf("platform", ("sentinel-2a",)),
    ):
        for expression in (leaf, Not(leaf)):
            assert not matching(batch, Query(where=expression)).any(), expression
    for leaf in (OneOf("scene", ("none",)), Within("bytes", 0, 1), Within("coverage", 0, 1)):
        assert matching(batch, Query(where=Not(leaf))).all(), leaf


@pytest.mark.parametrize("value", [33.3, 0.1, 95.0, 66.66666666666667])
def test_percentages_compare_in_float32_strictly_too(value: float) -> None:
    for low, high, opened, expected in (
        (value, None, {}, True),
        (None, value, {}, True),
        (value, None, {"low_open": True}, False),
        (None, value, {"high_open": True}, False),
        (value, value, {}, True),
        (value, value, {"low_open": True}, False),
    ):
        assert _found(Within("cloud", low, high, **opened), (value,)) == [expected]


def test_times_and_sizes_compare_as_whole_numbers() -> None:
    late = 2**53 + 1  # where float64 would no longer tell neighbours apart
    batch = make_batch([make_entry(time_us=late, size=late)])
    for column in ("time", "time_end", "bytes"):
        above = Within(column, late - 1, None, low_open=True)  # type: ignore[arg-type]
        assert matching(batch, Query(where=above)).all()
        below = Within(column, None, late, high_open=True)  # type: ignore[arg-type]
        assert not matching(batch, Query(where=below)).any()


def test_a_query_needs_its_plain_predicates_and_the_expression() -> None:
    batch = make_batch([make_entry(cloud=5.0), make_entry("9q8yy", cloud=5.0), make_entry()])
    query = Query(geocode="dq", where=Within("cloud", 1, None))
    assert matching(batch, query).tolist() == [True, False, False]


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Within("cloud", -1, None), r"cloud: low is -1, expected a number in 0\.\.100"),
        (lambda: Within("cloud", None, math.nan), "cloud: high is nan"),
        (lambda: Within("coverage", True, None), "coverage: low is True"),
        (lambda: Within("coverage", "5", None), "coverage: low is '5'"),
        (lambda: Within("cloud", 50, 20), "low 50 % is above high 20 %"),
        (lambda: Within("bytes", 1.5, None), "bytes: low is 1.5, expected a whole number"),
        (lambda: Within("bytes", 2**64, None), "bytes: low"),
        (lambda: Within("time", None, 1.0), "time: high is 1.0, expected whole microseconds"),
        (lambda: Within("time_end", 10**30, None), "time_end: low"),
        (lambda: Within("time", 5, 0), "low 1970-01-01T00:00:00.000005Z is above high"),
        (lambda: Within("size", 0, 1), "column 'size': expected one of cloud, coverage"),
        (lambda: Within("cloud", 0, 1, low_open=1), "low_open 1: expected true or false"),
        (lambda: OneOf("sensor", ("a",)), "column 'sensor': expected one of dataset, platform"),
        (lambda: OneOf("scene", ()), "scene: got 0 values"),
        (lambda: OneOf("scene", ("a",) * (VALUES_MAX + 1)), "got 10,001 values"),
        (lambda: OneOf("scene", ["a"]), "expected a tuple of names"),
        (lambda: OneOf("scene", ("a", "")), "empty name"),
        (lambda: OneOf("geocode", ("dqa",)), "geocode 'dqa'"),
        (lambda: HasBands(()), "bands: got 0 values"),
        (lambda: UnderGeocode("A"), "geocode 'A'"),
        (lambda: UnderGeocode("dq", recursive=None), "recursive None"),
        (lambda: IsNull("coverage"), "column 'coverage': expected one of time, time_end, cloud"),
        (lambda: TimeOverlaps("2016"), "time '2016': expected a span"),
        (lambda: InRegion({"bbox": []}), "expected a region"),
        (lambda: AllOf(()), "AllOf: got (), expected a tuple of one or more"),
        (lambda: AnyOf([CLEAR]), "AnyOf: got"),
        (lambda: AllOf((CLEAR, "cloudy")), "AllOf 'cloudy': expected an expression"),
        (lambda: Not(None), "Not None: expected an expression"),
        (lambda: Query(where={"is_null": "cloud"}), "where {'is_null': 'cloud'}: expected an"),
        (lambda: CLEAR & 5, "AllOf 5: expected an expression"),
    ],
)
def test_what_can_never_be_asked_is_refused(make: Any, says: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        make()
    assert says.replace("\\", "") in str(caught.value)


def test_nesting_and_number_are_bounded() -> None:
    deep: Expression = CLEAR
    for _ in range(DEPTH_MAX - 1):
        deep = Not(deep)
    with pytest.raises(InvalidInputError, match=f"nested over {DEPTH_MAX} deep"):
        Not(deep)
    many = AnyOf((CLEAR,) * LEAVES_MAX)
    with pytest.raises(InvalidInputError, match="over 1,000 predicates"):
        AnyOf((CLEAR,) * (LEAVES_MAX + 1))
    with pytest.raises(InvalidInputError, match="over 1,000 predicates"):
        AllOf((many, CLEAR))
    # Parts that are shared count as often as they stand there.
    shared: Expression = AllOf((CLEAR, RED))
    for _ in range(8):
        shared = AnyOf((shared, AllOf((shared, RED))))
    with pytest.raises(InvalidInputError, match="over 1,000 predicates"):
        AnyOf((shared, shared))


def test_a_long_chain_of_operators_does_not_nest() -> None:
    scenes = [OneOf("scene", (str(i),)) for i in range(100)]
    chained: Expression = reduce(lambda a, b: a | b, scenes[1:], scenes[0])
    assert chained == AnyOf(tuple(scenes))
    assert Not(AllOf((CLEAR, RED, CLEAR))) == ~(CLEAR & RED & CLEAR)


def test_an_expression_has_no_truth_of_its_own() -> None:
    with pytest.raises(InvalidInputError, match="join expressions with &"):
        CLEAR and RED  # noqa: B018
    with pytest.raises(InvalidInputError, match="in place of and, or, not"):
        not CLEAR  # noqa: B018


# ---------------------------------------------------------------- rewriting


def test_conjuncts_are_flat_and_not_goes_inwards() -> None:
    whole = AllOf((CLEAR, AllOf((RED, AnyOf((CLEAR, RED))))))
    assert conjuncts(whole) == (CLEAR, RED, AnyOf((CLEAR, RED)))
    assert conjuncts(RED) == (RED,)
    hidden = Not(AnyOf((Not(CLEAR), Not(AllOf((RED, CLEAR))), IsNull("cloud"))))
    assert simplified(hidden) == AllOf((CLEAR, RED, Not(IsNull("cloud"))))
    assert simplified(AllOf((RED, AllOf((RED,))))) == RED
    # Not: a cover that is unknown makes both unknown.
    assert simplified(CLEAR | ~CLEAR) == CLEAR | ~CLEAR


def test_a_query_is_also_a_list_of_conditions() -> None:
    query = Query(
        datasets=("s2",),
        region=Region.of_both(BOX, Region.from_bbox(BBox(2.0, 2.0, 9.0, 9.0))),
        geocode="dq",
        recursive=False,
        time=TimeSpan(0, 5),
        cloud=PercentRange(None, 20),
        coverage=PercentRange(95, None),
        bands=("red",),
        platform="sentinel-2a",
        scene="S",
        where=AllOf((RED, IsNull("time"))),
    )
    assert set(conditions(query)) == {
        OneOf("dataset", ("s2",)),
        InRegion(BOX),
        InRegion(Region.from_bbox(BBox(2.0, 2.0, 9.0, 9.0))),
        UnderGeocode("dq", recursive=False),
        TimeOverlaps(TimeSpan(0, 5)),
        CLEAR,
        Within("coverage", 95, None),
        RED,
        OneOf("platform", ("sentinel-2a",)),
        OneOf("scene", ("S",)),
        IsNull("time"),
    }
    assert conditions(Query()) == ()


# ---------------------------------------------------------------- words and JSON

EACH = AnyOf(
    (
        AllOf((InRegion(BOX), UnderGeocode("dq"), UnderGeocode("dqc", recursive=False))),
        Not(TimeOverlaps(TimeSpan(0, None)) | IsNull("platform")),
        Within("cloud", 5, 20, low_open=True),
        Within("coverage", 33.3, None),
        Within("bytes", None, 1000, high_open=True),
        Within("time", 0, 0),
        Within("time_end", None, None),
        OneOf("platform", ("a",)),
        OneOf("scene", tuple(f"S{i}" for i in range(12))),
        HasBands(("red", "nir")),
    )
)


def test_an_expression_reads_as_a_person_would_say_it() -> None:
    assert str(EACH) == (
        "(region overlaps 1,2,3,4.5 and geocode under dq and geocode is dqc)"
        " or not (time overlaps 1970-01-01T00:00:00Z/.. or platform is null)"
        " or 5 % < cloud <= 20 %"
        " or coverage >= 33.3 %"
        " or bytes < 1000"
        " or time = 1970-01-01T00:00:00Z"
        " or time_end is known"
        " or platform is a"
        " or scene in (S0, S1, S2, S3, S4, S5, S6, S7, S8, S9, ... (12 in all))"
        " or bands has all of (red, nir)"
    )
    assert Query(where=CLEAR).predicates() == {"where": "cloud <= 20 %"}
    long = Query(where=AnyOf((EACH,) * 20)).predicates()["where"]
    assert len(long) == 1003
    assert long.endswith("...")


def test_the_wires_form_is_what_the_page_says() -> None:
    assert [part.to_json() for part in EACH.parts] == [
        {
            "all_of": [
                {"in_region": {"bbox": [1.0, 2.0, 3.0, 4.5]}},
                {"under_geocode": "dq"},
                {"under_geocode": "dqc", "recursive": False},
            ]
        },
        {"not": {"any_of": [{"time_overlaps": [0, None]}, {"is_null": "platform"}]}},
        {"within": "cloud", "low": 5, "high": 20, "low_open": True},
        {"within": "coverage", "low": 33.3, "high": None},
        {"within": "bytes", "low": None, "high": 1000, "high_open": True},
        {"within": "time", "low": 0, "high": 0},
        {"within": "time_end", "low": None, "high": None},
        {"one_of": "platform", "values": ["a"]},
        {"one_of": "scene", "values": [f"S{i}" for i in range(12)]},
        {"has_bands": ["red", "nir"]},
    ]
    assert expression_from_json(EACH.to_json()) == EACH


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (5, "where: got 5, expected an object with one of all_of, any_of, not"),
        ({}, "where: got {}"),
        ({"like": "S2%"}, "expected an object with one of all_of"),
        ({"not": {}, "is_null": "time"}, "expected an object with one of"),
        ({"is_null": "time", "x": 1}, "where: unknown field x of is_null"),
        ({"not": {"any_of": [{"is_null": "time"}, 7]}}, "where.not.any_of[1]: got 7"),
        ({"all_of": []}, "where: AllOf: got ()"),
        ({"all_of": {"a": 1}}, "where.all_of: got {'a': 1}, expected a list"),
        ({"any_of": [{"is_null": "time"}] * 1001}, "where.any_of: got 1,001 values"),
        ({"within": "cloud", "low": "a"}, "where: cloud: low is 'a'"),
        ({"within": ["cloud"]}, "where: column ['cloud']: expected one of"),
        ({"one_of": "scene"}, "where: got None, expected a list"),
        ({"one_of": "scene", "values": [1]}, "expected a tuple of names"),
        ({"one_of": "scene", "values": "abc"}, "expected a list"),
        ({"time_overlaps": [1]}, "expected a start and an end"),
        ({"time_overlaps": [5, 1]}, "is after end"),
        ({"in_region": 5}, "in_region: got 5, expected a region"),
        ({"in_region": {"bbox": [0, 0]}}, "expected west, south, east, north"),
        ({"under_geocode": 5}, "geocode 5"),
        ({"under_geocode": "dq", "recursive": 1}, "recursive 1"),
        ({"has_bands": [None]}, "expected a tuple of names"),
    ],
)
def test_json_that_is_no_expression_is_refused_by_place(value: Any, says: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Query.from_json({"where": value})
    assert says in str(caught.value)


def test_json_nested_without_end_is_refused_before_it_is_walked() -> None:
    value: dict[str, Any] = {"is_null": "time"}
    for _ in range(100_000):
        value = {"not": value}
    with pytest.raises(InvalidInputError, match="nested over 32 deep"):
        expression_from_json(value)
    listed: list[Any] = []
    for _ in range(100_000):
        listed = [listed]
    with pytest.raises(InvalidInputError, match="expected an object"):
        expression_from_json(listed)
    with pytest.raises(InvalidInputError, match="bytes: low is <int>"):
        Within("bytes", 10**5000, None)
