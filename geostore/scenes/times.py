"""When a raster was taken, where it says so only in its tags or its file's name."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath

from geostore.types import TimeSpan
from geostore.types.geo import us_from_datetime

__all__ = ["time_from_name", "time_from_tags"]

_YEARS = range(1930, 2100)
_SEPARATED = re.compile(r"(?<!\d)(\d{4})([-_])(\d{2})\2(\d{2})(?!\d)")
_COMPACT = re.compile(r"(?<!\d)(\d{4})(\d{2})(\d{2})(?:T(\d{2})(\d{2})(\d{2})(?!\d)|(?!\d))")
# A Landsat Scene Identifier: path, row, year, day of the year.
_LANDSAT = re.compile(r"(?<![A-Za-z0-9])L[COTEM]\d\d{6}(\d{4})(\d{3})[A-Z]{3}\d{2}(?![A-Za-z0-9])")
_TAG_TIME = re.compile(
    r"^\s*(\d{4})[:-](\d{2})[:-](\d{2})(?:[ T](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?"
    r"\s*(Z|[+-]\d{2}:?\d{2})?)?\s*$"
)
# Whole times first; TIFFTAG_DATETIME last, which many programs set to when they ran.
_TIME_TAGS = (
    "ACQUISITIONDATETIME",
    "ACQUISITION_DATETIME",
    "SENSING_TIME",
    "DATETIME",
    "TIME_COVERAGE_START",
    "ACQUISITIONDATE",
    "ACQUISITION_DATE",
    "DATE_ACQUIRED",
    "TIFFTAG_DATETIME",
)


def _day(year: int, month: int, day: int) -> TimeSpan | None:
    """The whole day; None where there is no such day or no satellite could have seen it."""
    if year not in _YEARS:
        return None
    try:
        start = datetime(year, month, day, tzinfo=UTC)
    except ValueError:
        return None
    start_us = us_from_datetime(start)
    return TimeSpan(start_us, start_us + 86_400_000_000 - 1)


def _day_of_year(year: int, day: int) -> TimeSpan | None:
    if year not in _YEARS or not 1 <= day <= 366:
        return None
    date = datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=day - 1)
    return _day(date.year, date.month, date.day) if date.year == year else None


def _instant(day: TimeSpan | None, hour: int, minute: int, second: int) -> TimeSpan | None:
    if day is None or day.start_us is None or hour > 23 or minute > 59 or second > 60:
        return None
    start_us = day.start_us + (hour * 3600 + minute * 60 + second) * 1_000_000
    return TimeSpan(start_us, start_us)


def time_from_name(name: str) -> TimeSpan | None:
    """The first date or time in a file's name: a day is its whole span.

    Understands 20150926, 2015-09-26, 2015_09_26 and 20150926T101112, each not part of a
    longer number, in the years 1930 to 2099; and the day in the name of a Landsat scene, which
    rasters made of one keep: LE70230282011250EDC00_ndvi is of the 250th day of 2011.

    >>> time_from_name("m_4709963_se_14_1_20150926.tif") == TimeSpan.parse("2015-09-26")
    True
    """
    stem = PurePosixPath(name).stem
    landsat = _LANDSAT.search(stem)
    if landsat is not None and (seen := _day_of_year(int(landsat[1]), int(landsat[2]))):
        return seen
    found = [
        *((match.start(), match, (1, 3, 4)) for match in _SEPARATED.finditer(stem)),
        *((match.start(), match, (1, 2, 3)) for match in _COMPACT.finditer(stem)),
    ]
    for _, match, (year, month, day) in sorted(found, key=lambda one: one[0]):
        span = _day(int(match[year]), int(match[month]), int(match[day]))
        if match.re is _COMPACT and match[4] is not None:
            span = _instant(span, int(match[4]), int(match[5]), int(match[6]))
        if span is not None:
            return span
    return None


def time_from_tags(tags: dict[str, str]) -> TimeSpan | None:
    """When a raster was taken by its tags: an instant, or a day where only a date is given.

    Times without a zone are UTC. Values that are no time, or outside 1930 to 2099, are
    passed over.
    """
    upper = {name.upper(): value for name, value in tags.items()}
    for tag in _TIME_TAGS:
        match = _TAG_TIME.match(upper.get(tag, ""))
        if match is None:
            continue
        day = _day(int(match[1]), int(match[2]), int(match[3]))
        if match[4] is None:
            span = day
        else:
            span = _instant(day, int(match[4]), int(match[5]), int(match[6]))
            span = _shifted(span, match[7], match[8])
        if span is not None:
            return span
    return None


def _shifted(span: TimeSpan | None, fraction: str | None, zone: str | None) -> TimeSpan | None:
    """An instant with its fraction of a second and its zone's offset applied."""
    if span is None or span.start_us is None:
        return None
    us = span.start_us + int(((fraction or "") + "000000")[:6])
    if zone and zone != "Z":
        digits = zone.replace(":", "")
        offset = timedelta(hours=int(digits[1:3]), minutes=int(digits[3:5]))
        shift_us = offset // timedelta(microseconds=1)
        us += -shift_us if zone[0] == "+" else shift_us
    return TimeSpan(us, us)
