"""CQL2 JSON filters: what each becomes, what the supported part is, and hostile input."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from geostore.errors import InvalidInputError
from geostore.grid import Region
from geostore.query import (
    AllOf,
    AnyOf,
    Expression,
    InRegion,
    IsNull,
    Not,
    OneOf,
    TimeOverlaps,
    Within,
)
from geostore.query.cql2 import from_cql2
from geostore.types import BBox, TimeSpan


def prop(name: str) -> dict[str, Any]:
    return {"property": name}


def operation(name: str, *args: Any) -> dict[str, Any]:
    return {"op": name, "args": list(args)}


CLOUD = prop("cloud_cover")
NULL = operation("isNull", CLOUD)
DAY = TimeSpan.parse("2016-01-12")
MOMENT = TimeSpan.parse("2016-01-12T16:06:42Z")
BOX = {"bbox": [-75.7, 37.6, -75.5, 37.7]}
REGION = Region.from_bbox(BBox(-75.7, 37.6, -75.5, 37.7))
TRIANGLE = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [0, 1], [0, 0]]]}


# ---------------------------------------------------------------- what is supported


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (operation("=", CLOUD, 20), Within("cloud", 20, 20)),
        (operation("<>", CLOUD, 20), Not(Within("cloud", 20, 20))),
        (operation("<", CLOUD, 20), Within("cloud", None, 20, high_open=True)),
        (operation("<=", CLOUD, 20.5), Within("cloud", None, 20.5)),
        (operation(">", CLOUD, 20), Within("cloud", 20, None, low_open=True)),
        (operation(">=", CLOUD, 20), Within("cloud", 20, None)),
        (operation(">", 20, CLOUD), Within("cloud", None, 20, high_open=True)),
        (operation("<=", 20, CLOUD), Within("cloud", 20, None)),
        (operation("=", "s2", prop("dataset")), OneOf("dataset", ("s2",))),
        (operation("between", CLOUD, 5, 20), Within("cloud", 5, 20)),
        (operation("between", prop("pixel_coverage"), 5, 5), Within("coverage", 5, 5)),
        (operation("in", CLOUD, [0, 5]), AnyOf((Within("cloud", 0, 0), Within("cloud", 5, 5)))),
        (operation("in", CLOUD, [7]), Within("cloud", 7, 7)),
        (NULL, IsNull("cloud")),
        (operation("isNull", prop("platform")), IsNull("platform")),
        (operation("isNull", prop("end_datetime")), IsNull("time_end")),
        (operation("not", NULL), Not(IsNull("cloud"))),
        (operation("and", NULL, NULL), AllOf((IsNull("cloud"),) * 2)),
        (operation("or", NULL), AnyOf((IsNull("cloud"),))),
    ],
)
def test_operators(value: dict[str, Any], expected: Expression) -> None:
    assert from_cql2(value) == expected
    assert from_cql2(json.dumps(value)) == expected


@pytest.mark.parametrize(
    ("name", "values", "column"),
    [
        ("dataset", "s2", "dataset"),
        ("collection", "s2", "dataset"),
        ("scene", "S2A_", "scene"),
        ("id", "S2A_", "scene"),
        ("platform", "sentinel-2a", "platform"),
        ("geocode", "dqcjq", "geocode"),
    ],
)
def test_texts_are_equal_or_one_of_several(name: str, values: str, column: Any) -> None:
    assert from_cql2(operation("=", prop(name), values)) == OneOf(column, (values,))
    assert from_cql2(operation("<>", prop(name), values)) == Not(OneOf(column, (values,)))
    several = operation("in", prop(name), [values, "0", values])
    assert from_cql2(several) == OneOf(column, (values, "0"))


@pytest.mark.parametrize("name", ["time", "datetime", "start_datetime", "time_end", "end_datetime"])
def test_times_compare_with_instants_dates_and_texts(name: str) -> None:
    column: Any = "time_end" if "end" in name else "time"
    start, end = DAY.start_us, DAY.end_us
    for literal in ({"date": "2016-01-12"}, "2016-01-12"):
        for op, expected in (
            ("=", Within(column, start, end)),
            ("<>", Not(Within(column, start, end))),
            ("<", Within(column, None, start, high_open=True)),
            ("<=", Within(column, None, end)),
            (">", Within(column, end, None, low_open=True)),
            (">=", Within(column, start, None)),
        ):
            assert from_cql2(operation(op, prop(name), literal)) == expected, op
    moment = MOMENT.start_us
    stamp = {"timestamp": "2016-01-12T16:06:42Z"}
    assert from_cql2(operation("=", prop(name), stamp)) == Within(column, moment, moment)
    assert from_cql2(operation("between", prop(name), "2016-01-12", stamp)) == Within(
        column, start, moment
    )
    both = from_cql2(operation("in", prop(name), [stamp, "2016-01-12"]))
    assert both == AnyOf((Within(column, moment, moment), Within(column, start, end)))


@pytest.mark.parametrize(
    ("op", "value", "expected"),
    [
        (">", 5.5, Within("bytes", 6, None)),
        (">=", 5.5, Within("bytes", 6, None)),
        ("<", 5.5, Within("bytes", None, 5)),
        ("<=", -5.5, Within("bytes", None, -6)),
        ("<", 5.0, Within("bytes", None, 5, high_open=True)),
        ("=", 1e3, Within("bytes", 1000, 1000)),
    ],
)
def test_sizes_are_whole_whatever_number_they_are_compared_with(
    op: str, value: float, expected: Expression
) -> None:
    found = from_cql2(operation(op, prop("bytes"), value))
    assert found == expected
    assert isinstance(found, Within)
    assert not isinstance(found.low, float) or not isinstance(found.high, float)


@pytest.mark.parametrize(
    ("geometry", "region"),
    [
        (BOX, REGION),
        ({"bbox": [-75.7, 37.6, 0, -75.5, 37.7, 100]}, REGION),
        ({"bbox": [170, -10, -170, 10]}, Region.from_bbox(BBox(170.0, -10.0, -170.0, 10.0))),
        (TRIANGLE, Region.from_geometry(TRIANGLE)),
    ],
)
def test_places(geometry: dict[str, Any], region: Region) -> None:
    assert from_cql2(operation("s_intersects", prop("geometry"), geometry)) == InRegion(region)
    assert from_cql2(operation("s_intersects", geometry, prop("geometry"))) == InRegion(region)


START_TO_END = {"interval": [prop("start_datetime"), prop("end_datetime")]}


@pytest.mark.parametrize(
    ("literal", "span"),
    [
        ({"timestamp": "2016-01-12T16:06:42Z"}, MOMENT),
        ({"date": "2016-01-12"}, DAY),
        ({"interval": ["2016-01-12", "2016-01-12"]}, DAY),
        ({"interval": ["..", "2016-01-12"]}, TimeSpan(None, DAY.end_us)),
        ({"interval": ["2016-01-12T16:06:42Z", ".."]}, TimeSpan(MOMENT.start_us, None)),
        ({"interval": [{"date": "2016-01-12"}, ".."]}, TimeSpan(DAY.start_us, None)),
        ({"interval": ["..", ".."]}, TimeSpan(None, None)),
        ("2016-01-12/2016-01-12", DAY),
        ("../2016-01-12", TimeSpan(None, DAY.end_us)),
    ],
)
def test_spans_of_time(literal: Any, span: TimeSpan) -> None:
    for subject in (prop("datetime"), prop("time"), START_TO_END):
        assert from_cql2(operation("t_intersects", subject, literal)) == TimeOverlaps(span)
        assert from_cql2(operation("t_intersects", literal, subject)) == TimeOverlaps(span)
    for name, column in (("start_datetime", "time"), ("end_datetime", "time_end")):
        alone = from_cql2(operation("t_intersects", prop(name), literal))
        assert alone == Within(column, span.start_us, span.end_us)  # type: ignore[arg-type]


# ---------------------------------------------------------------- refused, and where

OPERATORS = (
    "supported: and, or, not, =, <>, <, <=, >, >=, between, in, isNull, s_intersects, t_intersects"
)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (operation("like", prop("scene"), "S2%"), "filter: CQL2 operator 'like' is not supported;"),
        (operation("like", prop("scene"), "S2%"), OPERATORS),
        (operation("and", NULL, operation("s_within", 1)), "filter.args[1]: CQL2 operator 's_w"),
        (operation("!=", CLOUD, 5), "CQL2 operator '!='"),
        (operation("isnull", CLOUD), "CQL2 operator 'isnull'"),
        (5, "filter: got 5, expected an operation"),
        (True, "filter: got True"),
        ([], "filter: got []"),
        ({}, "filter: got {}"),
        ({"op": 5, "args": []}, "expected an operation"),
        ({"op": "and"}, "filter.args: got None, expected a list"),
        ({"op": "and", "args": {"a": 1}}, "filter.args: got {'a': 1}"),
        ({"op": "not", "args": [NULL], "crs": 1}, "unknown member 'crs'"),
        (operation("and"), "filter: and of 0 arguments, expected one or more"),
        (operation("not", NULL, NULL), "filter: not of 2 arguments, expected one argument"),
        (operation("and", NULL, True), "filter.args[1]: got True, expected an operation"),
        (operation("=", CLOUD), "filter: = of 1 arguments, expected 2"),
        (operation("=", CLOUD, 5, 6), "filter: = of 3 arguments, expected 2"),
        (operation("between", CLOUD, 5), "between of 2 arguments"),
        (operation("between", CLOUD, 20, 5), "filter: cloud: low 20 % is above high 5 %"),
        (operation("isNull"), "isNull of 0 arguments"),
        (
            operation("isNull", prop("dataset")),
            "filter.args[0]: dataset is never null; expected one of time",
        ),
        (operation("isNull", prop("geometry")), "geometry is a place"),
        (operation("isNull", 5), "filter.args[0]: got 5, expected a property"),
        (operation("=", 5, 6), "filter.args[0]: got 5, expected a property"),
        (
            operation("=", CLOUD, prop("bytes")),
            "filter.args[1]: got {'property': 'bytes'}, expected a value",
        ),
        (operation("=", CLOUD, operation("*", 2, 3)), "filter.args[1]: got {'"),
        (
            operation("=", operation("casei", prop("scene")), "s"),
            "got operator 'casei', expected a property",
        ),
        (operation("=", prop("clouds"), 5), "unknown property 'clouds'; known: dataset, geocode"),
        (operation("=", prop("clouds"), 5), "eo:cloud_cover"),
        (operation("=", prop(5), 5), "unknown property 5"),  # type: ignore[arg-type]
        (operation("=", {"property": "time", "x": 1}, 5), "filter.args[0]: got {'"),
        (
            operation("not", operation("or", NULL, operation("=", prop("x"), 1))),
            "filter.args[0].args[1].args[0]: unknown",
        ),
        (operation("<", CLOUD, "20"), "filter.args[1]: cloud_cover: got '20', expected a number"),
        (operation("<", CLOUD, True), "cloud_cover: got True, expected a number"),
        (operation("<", CLOUD, None), "cloud_cover: got None, expected a number"),
        (operation("<", CLOUD, [5]), "cloud_cover: got [5], expected a number"),
        (operation("<", CLOUD, math.nan), "cloud_cover: got nan, expected a number"),
        (operation("<", CLOUD, math.inf), "cloud_cover: got inf"),
        (
            operation("<", CLOUD, 101),
            "filter.args[1]: cloud: high is 101, expected a number in 0..100",
        ),
        (operation("<", CLOUD, 10**5000), "filter.args[1]: cloud: high is <int>"),
        (operation("=", prop("bytes"), 5.5), "bytes: got 5.5, expected a whole number"),
        (operation("=", prop("bytes"), 10**30), "bytes: low is 1000"),
        (operation("=", prop("scene"), 5), "filter.args[1]: scene: got 5, expected a text"),
        (operation("=", prop("scene"), ""), "scene: got '', expected a text"),
        (operation("<", prop("scene"), "a"), "scene: < is not supported for texts"),
        (operation("between", prop("scene"), "a", "b"), "scene: a text has no range"),
        (operation("=", prop("geocode"), "dqa"), "filter.args[1]: geocode 'dqa'"),
        (operation("=", prop("time"), 2016), "filter.args[1]: got 2016, expected a time"),
        (operation("=", prop("time"), "soon"), "filter.args[1]: time 'soon'"),
        (
            operation("=", prop("time"), "2016/2017"),
            "filter.args[1]: got '2016/2017', expected a time",
        ),
        (operation("=", prop("time"), ".."), "expected a time"),
        (
            operation("=", prop("time"), {"date": "2016"}),
            "filter.args[1].date: got '2016', expected a date",
        ),
        (operation("=", prop("time"), {"date": 5}), "filter.args[1].date: got 5"),
        (
            operation("=", prop("time"), {"date": "2016-13-01"}),
            "filter.args[1].date: time '2016-13-01'",
        ),
        (operation("=", prop("time"), {"timestamp": "2016-01-12"}), "expected a timestamp"),
        (operation("=", prop("time"), {"interval": ["..", ".."]}), "expected a time"),
        (operation("in", CLOUD, 5), "filter.args[1]: got 5, expected a list of 1 to 1,000 values"),
        (operation("in", CLOUD, []), "filter.args[1]: got 0 values"),
        (operation("in", CLOUD, [5, "x"]), "filter.args[1]: cloud_cover: got 'x'"),
        (operation("in", prop("scene"), ["a", None]), "filter.args[1][1]: scene: got None"),
        (operation("s_intersects", CLOUD, BOX), "filter.args[0]: expected the property geometry"),
        (
            operation("s_intersects", prop("geometry"), 5),
            "filter.args[1]: got 5, expected a GeoJSON",
        ),
        (
            operation("s_intersects", prop("geometry"), {"bbox": [1, 2, 3]}),
            "bbox [1, 2, 3]: expected [west",
        ),
        (operation("s_intersects", prop("geometry"), {"bbox": [1, 2, 3, "4"]}), "expected [west"),
        (operation("s_intersects", prop("geometry"), {"bbox": [1, 2, 3, {}]}), "expected [west"),
        (
            operation("s_intersects", prop("geometry"), {"bbox": [1, 2, 3, 10**400]}),
            "expected [west",
        ),
        (
            operation("s_intersects", prop("geometry"), {"bbox": [1, 9, 3, 4]}),
            "south 9 is above north 4",
        ),
        (
            operation("s_intersects", {"bbox": [1, 9, 3, 4]}, prop("geometry")),
            "filter.args[0]: bbox",
        ),
        (
            operation("s_intersects", prop("geometry"), {"type": "Circle"}),
            "filter.args[1]: GeoJSON type 'Circle'",
        ),
        (operation("=", prop("geometry"), BOX), "geometry is a place; expected it in s_intersects"),
        (operation("t_intersects", CLOUD, "2016"), "cloud_cover is no time"),
        (operation("t_intersects", prop("geometry"), "2016"), "geometry is no time"),
        (
            operation("t_intersects", prop("time"), {"interval": ["2016"]}),
            "filter.args[1].interval: got ['2016']",
        ),
        (
            operation("t_intersects", prop("time"), {"interval": [1, 2]}),
            "filter.args[1].interval[0]: got 1",
        ),
        (operation("t_intersects", prop("time"), {"interval": ["2017", "2016"]}), "is after end"),
        (
            operation("t_intersects", {"interval": [prop("time_end"), prop("time")]}, "2016"),
            "from start_datetime to end",
        ),
        (
            operation("t_intersects", "2016", "2017"),
            "filter.args[0]: got '2016', expected a property",
        ),
    ],
)
def test_what_is_refused_is_named_by_its_place(value: Any, says: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        from_cql2(value)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "text", ["", "cloud_cover < 20", "{", b"\xff", '{"op": NaN', "[" * 100_000, "1" * 5000]
)
def test_a_text_must_be_json(text: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^filter: "):
        from_cql2(text)


def test_nan_in_a_text_is_no_number_either() -> None:
    with pytest.raises(InvalidInputError, match="cloud_cover: got nan, expected a number"):
        from_cql2('{"op": "<", "args": [{"property": "cloud_cover"}, NaN]}')


def test_hostile_sizes_are_refused() -> None:
    deep: Any = NULL
    for _ in range(100_000):
        deep = operation("not", deep)
    with pytest.raises(InvalidInputError, match="filter: nested over 32 deep"):
        from_cql2(deep)
    with pytest.raises(InvalidInputError, match="and of 1,001 arguments"):
        from_cql2(operation("and", *[NULL] * 1001))
    with pytest.raises(InvalidInputError, match="over 1,000 predicates"):
        from_cql2(operation("or", *[operation("and", *[NULL] * 600)] * 2))
    with pytest.raises(InvalidInputError, match="got 10,001 values, expected a list of 1 to 10,0"):
        from_cql2(operation("in", prop("scene"), ["a"] * 10_001))
    listed: Any = []
    for _ in range(100_000):
        listed = [listed]
    for value in (listed, operation("=", CLOUD, listed), operation("in", prop("scene"), [listed])):
        with pytest.raises(InvalidInputError):
            from_cql2(value)
    place = operation("s_intersects", prop("geometry"), {"type": "Polygon", "coordinates": listed})
    with pytest.raises(InvalidInputError):
        from_cql2(place)


def test_the_deepest_that_is_allowed_reads() -> None:
    deep: Any = NULL
    for _ in range(31):
        deep = operation("not", deep)
    assert str(from_cql2(deep)).count("not (") == 31
