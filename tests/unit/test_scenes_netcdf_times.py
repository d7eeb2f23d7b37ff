"""Times of netCDF files: units, calendars, zones, and what names no date."""

from __future__ import annotations

import cftime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geostore.errors import UnreadableSourceError
from geostore.scenes.netcdf_times import is_time_unit, step_name, times_us
from geostore.types import TimeSpan


def us(text: str) -> int:
    start = TimeSpan.parse(text).start_us
    assert start is not None
    return start


@pytest.mark.parametrize(
    ("value", "units", "expected"),
    [
        (11262, "days since 1990-01-01", "2020-11-01"),
        (0.25, "days since 2000-02-28 12:00", "2000-02-28T18:00:00Z"),
        (24, "hours since 1900-1-1", "1900-01-02"),
        (1, "hour since 2000-01-01T00:00:00Z", "2000-01-01T01:00:00Z"),
        (90, "minutes since 2000-01-01 00:00:00.25", "2000-01-01T01:30:00.25Z"),
        (1.5, "seconds since 1970-01-01 00:00:00 UTC", "1970-01-01T00:00:01.5Z"),
        (7, "milliseconds since 1970-01-01", "1970-01-01T00:00:00.007Z"),
        (0, "seconds since 2000-01-01 12:00:00 +02:30", "2000-01-01T09:30:00Z"),
        (0, "days since 2000-01-01 -5", "2000-01-01T05:00:00Z"),
        (1, "weeks since 2000-01-01", "2000-01-08"),
        (-1, "d since 2000-03-01", "2000-02-29"),
    ],
)
def test_units(value: float, units: str, expected: str) -> None:
    assert is_time_unit(units)
    assert times_us([value], units, None) == [us(expected)]


@given(
    st.integers(1, 2400), st.integers(1, 12), st.integers(1, 28),
    st.integers(3, 300_000), st.sampled_from(["standard", "gregorian", "proleptic_gregorian"]),
)  # fmt: skip
def test_days_are_those_of_cftime(
    year: int, month: int, day: int, days: int, calendar: str
) -> None:
    units = f"days since {year:04}-{month:02}-{day:02}"
    if calendar != "proleptic_gregorian" and (year, month) == (1582, 10):
        return  # ten days of that month were left out
    moment = cftime.num2date(days, units, calendar)
    (found,) = times_us([days], units, calendar)
    assert found == cftime.date2num(moment, "microseconds since 1970-01-01", calendar)


def test_missing_times() -> None:
    assert times_us([float("nan"), 0], "days since 1970-01-01", "Standard") == [None, 0]


@pytest.mark.parametrize(
    ("units", "calendar", "why"),
    [
        ("days since 2000-01-01", "360_day", "calendar '360_day': its days are not dates"),
        ("months since 2000-01-01", None, "months and years have no one length"),
        ("days since 2000-02-30", None, "there is no such date"),
        ("days since 1900-02-29", None, "there is no such date"),
        ("days since 0000-01-01", None, "there is no such date"),
        ("days since yesterday", None, "expected days, hours, minutes or seconds"),
        ("hours since 2000-01-01 25:00", None, "there is no such date"),
    ],
)
def test_what_names_no_date(units: str, calendar: str | None, why: str) -> None:
    with pytest.raises(UnreadableSourceError, match=why):
        times_us([0], units, calendar)


@pytest.mark.parametrize("value", [10**9, -(10**9), float("inf"), 1e300, 2**62])
def test_times_out_of_reach(value: float) -> None:
    with pytest.raises(UnreadableSourceError, match="years 1 to 9999"):
        times_us([value], "days since 2000-01-01", None)


def test_what_is_no_unit_of_time() -> None:
    assert not any(map(is_time_unit, ["m", "", "since", "days", 3, None, "degrees_north"]))


def test_names_of_steps() -> None:
    assert step_name(us("2020-11-01"), whole_days=True) == "20201101"
    assert step_name(us("2020-11-01T10:30:00Z"), whole_days=False) == "20201101T103000"
    assert step_name(us("2020-11-01T10:30:00.5Z"), whole_days=False) == "20201101T103000500000"
