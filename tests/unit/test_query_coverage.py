"""Windows of time, requests, and answers put together."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geostore.errors import InvalidInputError
from geostore.query import (
    CoverageAnswer,
    CoverageGroups,
    CoverageRequest,
    PercentRange,
    Query,
    Windows,
    with_cloud_at_most,
)
from geostore.query.coverage import concatenate_answers
from geostore.types.geo import datetime_from_us, us_from_datetime

DAY = 86_400_000_000


def us(year: int, month: int = 1, day: int = 1, hour: int = 0) -> int:
    return us_from_datetime(datetime(year, month, day, hour, tzinfo=UTC))


def span(windows: Windows, moment: int) -> tuple[datetime, datetime]:
    starts, ends = windows.spans(windows.indices(np.array([moment])))
    return datetime_from_us(int(starts[0])), datetime_from_us(int(ends[0]))


@pytest.mark.parametrize(
    ("text", "origin", "moment", "start", "end"),
    [
        ("16D", 0, us(1970, 1, 17), (1970, 1, 17), (1970, 2, 2)),
        ("16D", 0, us(1969, 12, 31), (1969, 12, 16), (1970, 1, 1)),
        ("8D", us(2018), us(2018, 1, 8, 23), (2018, 1, 1), (2018, 1, 9)),
        ("W", us(2018), us(2018, 1, 8), (2018, 1, 8), (2018, 1, 15)),
        ("12h", 0, us(2018, 1, 8, 13), (2018, 1, 8, 12), (2018, 1, 9)),
        ("1M", 0, us(2016, 2, 29, 23), (2016, 2, 1), (2016, 3, 1)),
        ("MS", 0, us(1969, 12, 31), (1969, 12, 1), (1970, 1, 1)),
        ("3M", us(2015, 12, 5), us(2016, 3, 1), (2016, 3, 1), (2016, 6, 1)),
        ("1Y", 0, us(2016, 6), (2016, 1, 1), (2017, 1, 1)),
        ("Y", us(2000, 10), us(2016, 6), (2015, 10, 1), (2016, 10, 1)),
    ],
)
def test_windows(text: str, origin: int, moment: int, start: tuple, end: tuple) -> None:
    assert span(Windows.parse(text, origin), moment) == (
        datetime(*start, tzinfo=UTC),
        datetime(*end, tzinfo=UTC),
    )


@given(
    st.sampled_from(["16D", "1M", "5M", "1Y", "7h", "2W"]),
    st.datetimes(datetime(1950, 1, 1), datetime(2090, 1, 1)),
    st.datetimes(datetime(1950, 1, 1), datetime(2090, 1, 1)),
)
def test_every_moment_lies_in_its_window(text: str, origin: datetime, moment: datetime) -> None:
    windows = Windows.parse(text, us_from_datetime(origin.replace(tzinfo=UTC)))
    moment = moment.replace(tzinfo=UTC)
    start, end = span(windows, us_from_datetime(moment))
    assert start <= moment < end
    assert span(windows, us_from_datetime(end))[0] == end, "windows follow without gaps"


@pytest.mark.parametrize("text", ["", "D16", "0D", "-1D", "1.5D", "16", "16d", "99999Y", "1Q", "🗓"])
def test_other_windows_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="window"):
        Windows.parse(text)


def test_requests_cross_as_json() -> None:
    for request in (
        CoverageRequest(target=95, windows=Windows.parse("16D", 5), clear=True, members="all"),
        CoverageRequest(target=0.5, windows=None),
    ):
        assert CoverageRequest.from_json(request.to_json()) == request
    for wrong in ({}, {"target": 0, "windows": None}, {"target": 9, "windows": 3}, []):
        with pytest.raises(InvalidInputError):
            CoverageRequest.from_json(wrong)  # type: ignore[arg-type]
    for target in (0, 101, float("nan"), True, "95"):
        with pytest.raises(InvalidInputError, match="target"):
            CoverageRequest(target=target, windows=None)  # type: ignore[arg-type]


def test_the_lower_of_two_bounds_on_clouds_holds() -> None:
    asked = Query(cloud=PercentRange(5, 50))
    assert with_cloud_at_most(asked, None) is asked
    assert with_cloud_at_most(asked, 20).cloud == PercentRange(5, 20)
    assert with_cloud_at_most(asked, 80).cloud == PercentRange(5, 50)
    assert with_cloud_at_most(Query(), 20).cloud == PercentRange(None, 20)
    for wrong in (-1, 101, True):
        with pytest.raises(InvalidInputError, match="max_cloud"):
            with_cloud_at_most(Query(), wrong)


def _answer(*rows: tuple[str, str, int, list[str]]) -> CoverageAnswer:
    def objects(values: list[str]) -> np.ndarray:
        found = np.empty(len(values), object)
        found[:] = values
        return found

    numbers = np.array([row[2] for row in rows], np.int64)
    return CoverageAnswer(
        groups=CoverageGroups(
            dataset_id=objects([f"id-{row[0]}" for row in rows]),
            dataset=objects([row[0] for row in rows]),
            geocode=objects([row[1] for row in rows]),
            start_us=numbers,
            end_us=numbers + DAY,
            tiles=np.array([len(row[3]) for row in rows], np.int64),
            lower=numbers,
            upper=numbers,
            total=numbers,
            scene=objects([scene for row in rows for scene in row[3]]),
        ),
        members=None,
        member_group=np.empty(0, np.int64),
    )


def test_answers_of_nodes_become_one_in_order() -> None:
    one = _answer(("a", "u1", 2, ["s2", "s1"]), ("b", "u0", 1, ["s3"]))
    other = _answer(("a", "u0", 9, ["s4"]), ("a", "u1", 1, ["s6", "s5", "s7"]))
    both = concatenate_answers([one, other]).groups
    assert [
        (both.dataset[i], both.geocode[i], int(both.start_us[i]), both.scenes(i))
        for i in range(len(both))
    ] == [
        ("a", "u0", 9, ("s4",)),
        ("a", "u1", 1, ("s5", "s6", "s7")),
        ("a", "u1", 2, ("s1", "s2")),
        ("b", "u0", 1, ("s3",)),
    ]
