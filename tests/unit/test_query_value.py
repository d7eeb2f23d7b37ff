"""The query as a value: what can be asked, and how it travels."""

from __future__ import annotations

import json
import math

import pytest

from geostore.errors import InvalidInputError
from geostore.grid import Region
from geostore.query import PercentRange, Query
from geostore.types import BBox, TimeSpan


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20..80", (20.0, 80.0)),
        ("..20", (None, 20.0)),
        ("95..", (95.0, None)),
        ("..", (None, None)),
        (" 0 .. 100 ", (0.0, 100.0)),
        ("33.3..33.3", (33.3, 33.3)),
    ],
)
def test_a_percent_range_reads(text: str, expected: tuple[float | None, float | None]) -> None:
    parsed = PercentRange.parse(text)
    assert (parsed.minimum, parsed.maximum) == expected
    assert PercentRange.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("80..20", "minimum 80 is above maximum 20"),
        ("-1..5", "minimum is -1.0"),
        ("0..101", "maximum is 101.0"),
        ("nan..5", "minimum is nan"),
        ("..inf", "maximum is inf"),
        ("20", "expected MIN..MAX"),
        ("", "expected MIN..MAX"),
        ("a..b", "expected MIN..MAX"),
        ("1...2", "expected MIN..MAX"),
    ],
)
def test_a_bad_percent_range_is_refused_by_name(text: str, says: str) -> None:
    if text == "1...2":  # .2 is a number: this reads as 1..0.2, which is reversed
        says = "above maximum"
    with pytest.raises(InvalidInputError, match=says):
        PercentRange.parse(text)


@pytest.mark.parametrize("bound", [True, "5", math.nan, 100.001, -0.001])
def test_a_percent_bound_must_be_a_number_of_percent(bound: object) -> None:
    with pytest.raises(InvalidInputError, match=r"expected a number in 0\.\.100"):
        PercentRange(bound, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"limit": -1}, "limit -1"),
        ({"limit": 1.5}, "limit 1.5"),
        ({"limit": True}, "limit True"),
        ({"sort": "size"}, "expected one of time, -time, cloud"),
        ({"geocode": ""}, "geocode ''"),
        ({"geocode": "DQC"}, "lower case"),
        ({"geocode": "dqa"}, "geohash"),
        ({"geocode": "0" * 27}, "1..26"),
        ({"geocode": "dq\n"}, "geohash"),
        ({"datasets": ()}, "at least one"),
        ({"datasets": "s2"}, "tuple of names"),
        ({"datasets": ("s2", "")}, "empty name"),
        ({"bands": ["B04"]}, "tuple of names"),
        ({"bands": ("",)}, "empty name"),
        ({"scene": 5}, "scene 5"),
        ({"platform": b"x"}, "platform"),
    ],
)
def test_a_query_that_can_never_be_answered_is_refused(
    fields: dict[str, object], says: str
) -> None:
    with pytest.raises(InvalidInputError, match=says):
        Query(**fields)  # type: ignore[arg-type]


def test_a_query_travels_as_json() -> None:
    query = Query(
        datasets=("s2", "l8"),
        region=Region.from_bbox(BBox(170.0, -10.0, -170.0, 10.0)),
        geocode="dq",
        recursive=False,
        time=TimeSpan.parse("2016-01/.."),
        cloud=PercentRange(None, 20),
        coverage=PercentRange(95.0, None),
        bands=("B04", "nir"),
        platform="sentinel-2a",
        scene="Szene ü/1",
        sort="-cloud",
        limit=10,
    )
    assert Query.from_json(json.loads(json.dumps(query.to_json()))) == query
    assert Query.from_json(json.loads(json.dumps(Query().to_json()))) == Query()


def test_unknown_fields_of_a_query_are_named() -> None:
    with pytest.raises(InvalidInputError, match="unknown field colour; expected some of datasets"):
        Query.from_json({"colour": 1})
    with pytest.raises(InvalidInputError, match="query"):
        Query.from_json({"time": 5})


@pytest.mark.parametrize(
    "value",
    [
        {"time": ["a", "b"]},
        {"time": [10**30, None]},
        {"time": [None, -(10**30)]},
        {"time": [1.5, None]},
        {"time": [True, None]},
        {"recursive": "x"},
    ],
)
def test_fields_of_other_kinds_are_refused_before_anybody_looks(value: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError, match=r"time: (start|end)|recursive"):
        Query.from_json(value)


def test_predicates_are_put_in_words() -> None:
    query = Query(
        datasets=("s2",),
        region=Region.from_bbox(BBox(1.0, 2.0, 3.0, 4.5)),
        geocode="dq",
        time=TimeSpan.parse("../2016"),
        cloud=PercentRange(None, 20),
        bands=("red",),
    )
    assert query.predicates() == {
        "dataset": "in s2",
        "region": "overlaps 1,2,3,4.5",
        "geocode": "under dq",
        "time": "overlaps ../2016-12-31T23:59:59.999999Z",
        "cloud": "within ..20 %",
        "bands": "has all of red",
    }
