"""Times as netCDF files write them: numbers since a date, by the CF conventions (section 4.4).

Only calendars whose days are dates are read. Those of climate models (360 days a year, no leap
days) name days that never were.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from geostore.errors import UnreadableSourceError
from geostore.types.geo import datetime_from_us

__all__ = ["is_time_unit", "step_name", "times_us"]

_UNIT_US = {
    "microsecond": 1,
    "microsec": 1,
    "millisecond": 1_000,
    "millisec": 1_000,
    "msec": 1_000,
    "ms": 1_000,
    "second": 1_000_000,
    "sec": 1_000_000,
    "s": 1_000_000,
    "minute": 60_000_000,
    "min": 60_000_000,
    "hour": 3_600_000_000,
    "hr": 3_600_000_000,
    "h": 3_600_000_000,
    "day": 86_400_000_000,
    "d": 86_400_000_000,
    "week": 604_800_000_000,
}
_DAY_US = _UNIT_US["day"]
_SINCE = re.compile(r"^\s*[A-Za-z_]+\s+since\s+\S", re.IGNORECASE)
_UNITS = re.compile(
    r"^\s*(?P<unit>[A-Za-z]+)\s+since\s+(?P<year>\d{1,4})-(?P<month>\d{1,2})-(?P<day>\d{1,2})"
    r"(?:[T ]\s*(?P<hour>\d{1,2})(?::(?P<minute>\d{1,2})(?::(?P<second>\d{1,2})"
    r"(?:\.(?P<fraction>\d*))?)?)?)?"
    r"\s*(?:Z|UTC|GMT|(?P<sign>[+-])(?P<zone_hour>\d{1,2})(?::?(?P<zone_minute>\d{2}))?)?\s*$",
    re.IGNORECASE,
)
_MIXED = ("standard", "gregorian")
"""Gregorian from 1582-10-15 on, Julian before: what CF means where no calendar is named."""
_CALENDARS = (*_MIXED, "proleptic_gregorian")
_FIRST_GREGORIAN = (1582, 10, 15)
_EPOCH_DAY = 2_440_588  # the Julian day number of 1970-01-01
_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999  # years 1 to 9999


def is_time_unit(text: object) -> bool:
    """Whether a unit is one of time coordinates: `days since 1990-01-01`."""
    return isinstance(text, str) and _SINCE.match(text) is not None


def times_us(values: Sequence[float | int], units: str, calendar: str | None) -> list[int | None]:
    """Microseconds since 1970-01-01 UTC of each value; None where it is NaN.

    >>> times_us([11262, 0.5], "days since 1990-01-01", None)
    [1604188800000000, 631195200000000]

    Raises:
        UnreadableSourceError: a calendar or unit that names no dates, or a time outside the
            years 1 to 9999.
    """
    named = (calendar or "standard").strip().lower()
    if named not in _CALENDARS:
        raise UnreadableSourceError(
            f"calendar {named[:40]!r}: its days are not dates; expected one of"
            f" {', '.join(_CALENDARS)}"
        )
    unit_us, start_us = _parse_units(units, mixed=named in _MIXED)
    found: list[int | None] = []
    for value in values:
        if isinstance(value, float) and math.isnan(value):
            found.append(None)
            continue
        far = abs(value) > (_LAST_US - _FIRST_US) / unit_us
        us = (
            0
            if far
            else start_us + (value * unit_us if isinstance(value, int) else round(value * unit_us))
        )
        if far or not _FIRST_US <= us <= _LAST_US:
            raise UnreadableSourceError(
                f"time {value!r} {units[:60]}: expected one in the years 1 to 9999"
            )
        found.append(us)
    return found


def _parse_units(units: str, *, mixed: bool) -> tuple[int, int]:
    """Microseconds of the unit, and of the date that it counts from."""
    match = _UNITS.match(units)
    unit_us = None
    if match:
        unit = match["unit"].lower()
        unit_us = _UNIT_US.get(unit) or _UNIT_US.get(unit.removesuffix("s"))
    if match is None or unit_us is None:
        raise UnreadableSourceError(
            f"time unit {units[:60]!r}: expected days, hours, minutes or seconds since a date"
            " (months and years have no one length)"
        )
    date = (int(match["year"]), int(match["month"]), int(match["day"]))
    hour, minute, second = (int(match[name] or 0) for name in ("hour", "minute", "second"))
    julian = mixed and date < _FIRST_GREGORIAN
    is_date = date[0] >= 1 and 1 <= date[1] <= 12 and 1 <= date[2] <= _days_of(*date[:2], julian)
    if not is_date or hour > 24 or minute > 59 or second > 60:
        raise UnreadableSourceError(f"time unit {units[:60]!r}: there is no such date")
    days = _julian_day(*date, julian=julian) - _EPOCH_DAY
    us = days * _DAY_US + (hour * 3600 + minute * 60 + second) * 1_000_000
    us += int(((match["fraction"] or "") + "000000")[:6])
    if match["sign"]:
        zone_us = (int(match["zone_hour"]) * 60 + int(match["zone_minute"] or 0)) * 60_000_000
        us += -zone_us if match["sign"] == "+" else zone_us
    return unit_us, us


def _julian_day(year: int, month: int, day: int, *, julian: bool) -> int:
    """The Julian day number of a date, counted by months from March.

    Meeus, "Astronomical Algorithms", chapter 7, in whole numbers.
    """
    years = year + 4800 - (month < 3)
    months = (month - 3) % 12
    number = day + (153 * months + 2) // 5 + 365 * years + years // 4
    return number - 32083 if julian else number - years // 100 + years // 400 - 32045


def _days_of(year: int, month: int, julian: bool) -> int:
    """How many days the month has."""
    after = (year, month + 1, 1) if month < 12 else (year + 1, 1, 1)
    return _julian_day(*after, julian=julian) - _julian_day(year, month, 1, julian=julian)


def step_name(us: int, *, whole_days: bool) -> str:
    """A time as part of a scene's name: `20201101`, `20201101T103000`."""
    moment = datetime_from_us(us)
    if whole_days:
        return f"{moment:%Y%m%d}"
    return f"{moment:%Y%m%dT%H%M%S}" + (f"{moment:%f}" if moment.microsecond else "")
