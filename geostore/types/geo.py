"""Where and when: boxes on the globe and spans of time."""

from __future__ import annotations

import math
import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self, cast

from geostore.errors import InvalidInputError

__all__ = ["BBox", "TimeSpan", "datetime_from_us", "us_from_datetime"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class BBox:
    """A box on the globe, degrees longitude and latitude (EPSG:4326).

    `west > east` means that the box crosses the antimeridian. Longitudes lie in
    [-180, 180], latitudes in [-90, 90].

    Raises:
        InvalidInputError: a bound is not finite, out of range, or south > north.
    """

    west: float
    south: float
    east: float
    north: float

    def __post_init__(self) -> None:
        bounds = (self.west, self.south, self.east, self.north)
        if not all(math.isfinite(value) for value in bounds):
            raise InvalidInputError(f"bbox {bounds}: all four bounds must be finite numbers")
        for name, value in (("west", self.west), ("east", self.east)):
            if not -180.0 <= value <= 180.0:
                raise InvalidInputError(
                    f"bbox {bounds}: {name} is {value:g}, expected degrees longitude in -180..180"
                )
        for name, value in (("south", self.south), ("north", self.north)):
            if not -90.0 <= value <= 90.0:
                raise InvalidInputError(
                    f"bbox {bounds}: {name} is {value:g}, expected degrees latitude in -90..90"
                )
        if self.south > self.north:
            raise InvalidInputError(
                f"bbox {bounds}: south {self.south:g} is above north {self.north:g};"
                " the order is west,south,east,north"
            )

    @property
    def crosses_antimeridian(self) -> bool:
        return self.west > self.east

    def split(self) -> tuple[BBox, ...]:
        """The box as one or two boxes that do not cross the antimeridian."""
        if not self.crosses_antimeridian:
            return (self,)
        return (
            BBox(self.west, self.south, 180.0, self.north),
            BBox(-180.0, self.south, self.east, self.north),
        )

    def as_tuple(self) -> tuple[float, float, float, float]:
        return (self.west, self.south, self.east, self.north)

    @classmethod
    def parse(cls, text: str) -> Self:
        """`W,S,E,N` in degrees.

        Raises:
            InvalidInputError: not four numbers, or not a box.
        """
        parts = text.split(",")
        if len(parts) != 4:
            raise InvalidInputError(
                f"bbox {text!r}: got {len(parts)} values, expected west,south,east,north"
            )
        try:
            west, south, east, north = (float(part) for part in parts)
        except ValueError:
            raise InvalidInputError(
                f"bbox {text!r}: expected four numbers west,south,east,north in degrees"
            ) from None
        return cls(west, south, east, north)


def us_from_datetime(moment: datetime) -> int:
    """Microseconds since 1970-01-01T00:00:00Z, exactly; naive input is taken as UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _US


def datetime_from_us(us: int) -> datetime:
    """The timezone-aware UTC datetime of microseconds since the epoch."""
    return _EPOCH + timedelta(microseconds=us)


_FIRST_US = us_from_datetime(datetime.min.replace(tzinfo=UTC))
_LAST_US = us_from_datetime(datetime.max.replace(tzinfo=UTC))


def _is_time_us(value: object) -> bool:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return is_whole and _FIRST_US <= cast("int", value) <= _LAST_US


_DATE = re.compile(r"^(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?$")


def _parse_moment(text: str, whole: str) -> tuple[datetime, datetime]:
    """The first and last microsecond that a year, month, date or RFC 3339 time means."""
    match = _DATE.match(text)
    try:
        if match:
            year = int(match[1])
            month = int(match[2]) if match[2] else None
            day = int(match[3]) if match[3] else None
            start = datetime(year, month or 1, day or 1, tzinfo=UTC)
            last_month = month or 12
            last_day = day or monthrange(year, last_month)[1]
            end = datetime(year, last_month, last_day, 23, 59, 59, 999999, tzinfo=UTC)
            return start, end
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise InvalidInputError(
            f"time {whole!r}: {text!r} is not a year, month, date or RFC 3339 time"
            " (2016, 2016-01, 2016-01-12, 2016-01-12T16:06:42Z)"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC), moment.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """A closed span of time, in microseconds since 1970-01-01T00:00:00Z.

    `None` on a side means unbounded there.

    Raises:
        InvalidInputError: start after end, or a side that is no time of the years 1 to 9999.
    """

    start_us: int | None
    end_us: int | None

    def __post_init__(self) -> None:
        for side, value in (("start", self.start_us), ("end", self.end_us)):
            if value is not None and not _is_time_us(value):
                raise InvalidInputError(
                    f"time: {side} is {str(value)[:40]!r}, expected whole microseconds since 1970"
                    " within the years 1 to 9999"
                )
        if self.start_us is not None and self.end_us is not None and self.start_us > self.end_us:
            raise InvalidInputError(
                f"time: start {datetime_from_us(self.start_us).isoformat()} is after end"
                f" {datetime_from_us(self.end_us).isoformat()}; expected A/B with A before B"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """`A/B`, where A and B are RFC 3339 times, dates, months or years, or `..`.

        One value means its whole span: `2016-01` is all of January 2016.

        >>> TimeSpan.parse("2016-01").end_us - TimeSpan.parse("2016-01").start_us
        2678399999999

        Raises:
            InvalidInputError: unreadable, or the span is reversed.
        """
        text = text.strip()
        parts = text.split("/")
        if len(parts) > 2 or not all(parts):
            raise InvalidInputError(f"time {text!r}: expected one value or A/B (either may be ..)")
        if len(parts) == 1:
            if parts[0] == "..":
                return cls(None, None)
            start, end = _parse_moment(parts[0], text)
            return cls(us_from_datetime(start), us_from_datetime(end))
        first, last = parts
        return cls(
            None if first == ".." else us_from_datetime(_parse_moment(first, text)[0]),
            None if last == ".." else us_from_datetime(_parse_moment(last, text)[1]),
        )
