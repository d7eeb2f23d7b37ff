"""What single predicates are made of: names, geocodes, percentages; checked, and put in words."""

from __future__ import annotations

import re
import reprlib
from typing import TYPE_CHECKING, cast

from geostore.errors import InvalidInputError

if TYPE_CHECKING:
    from geostore.grid import Region
    from geostore.types import TimeSpan

__all__ = [
    "GEOCODE_LENGTH_MAX",
    "check_geocode",
    "check_names",
    "is_percent",
    "is_time_us",
    "moment_text",
    "names_text",
    "region_text",
    "shown",
    "span_text",
]

GEOCODE_LENGTH_MAX = 26
_GEOCODE = re.compile(r"[0-9bcdefghjkmnpqrstuvwxyz]+")
_NAMES_SHOWN_MAX = 10
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = 40  # characters; lists and levels are few as it is


def shown(value: object) -> str:
    """A wrong value as a message repeats it: short, whatever it is."""
    try:
        return _SHOWN.repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits
        return f"<{type(value).__name__}>"


def check_names(values: object, what: str) -> None:
    """
    Raises:
        InvalidInputError: not a tuple of names, or one of them is empty.
    """
    if not isinstance(values, tuple) or not all(isinstance(value, str) for value in values):
        raise InvalidInputError(f"{what}: got {shown(values)}, expected a tuple of names")
    if not all(values):
        raise InvalidInputError(f"{what}: got an empty name in {shown(values)}")


def check_geocode(geocode: object) -> None:
    """
    Raises:
        InvalidInputError: no scheme has such a geocode.
    """
    if not isinstance(geocode, str) or len(geocode) > GEOCODE_LENGTH_MAX:
        raise InvalidInputError(
            f"geocode {shown(geocode)}: expected text of 1..{GEOCODE_LENGTH_MAX} characters"
        )
    if not _GEOCODE.fullmatch(geocode):
        raise InvalidInputError(
            f"geocode {geocode!r}: expected a geohash (0-9 and b-z without a, i, l, o,"
            " lower case) or a quadtile (0-3)"
        )


def is_percent(value: object) -> bool:
    """Whether it is a number in 0..100; NaN is not, and no boolean is a number."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 <= cast("float", value) <= 100


def is_time_us(value: object) -> bool:
    """Whether it is microseconds since 1970, whole, within the years 1 to 9999."""
    from geostore.types import TimeSpan

    try:
        TimeSpan(cast("int | None", value), None)
    except InvalidInputError:
        return False
    return value is not None


# ---------------------------------------------------------------- in words


def names_text(names: tuple[str, ...]) -> str:
    """The names, or the first few of many."""
    shown = ", ".join(names[:_NAMES_SHOWN_MAX])
    return shown if len(names) <= _NAMES_SHOWN_MAX else f"{shown}, ... ({len(names):,} in all)"


def region_text(region: Region) -> str:
    """The boxes around a region: `-75.7,37.6,-75.5,37.7`; those of two that must hold by `and`."""
    return " and ".join(map(_boxes_text, region.parts))


def _boxes_text(region: Region) -> str:
    return "; ".join(",".join(f"{bound:.6g}" for bound in box.as_tuple()) for box in region.bboxes)


def span_text(span: TimeSpan) -> str:
    """`A/B` in RFC 3339, `..` where it is open."""
    return "/".join(".." if us is None else moment_text(us) for us in (span.start_us, span.end_us))


def moment_text(us: int) -> str:
    """RFC 3339 of microseconds since 1970."""
    from geostore.types.geo import datetime_from_us

    return datetime_from_us(us).isoformat().replace("+00:00", "Z")
