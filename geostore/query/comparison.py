"""Comparisons as users write them: by the fields of a listing, with values of the field's kind.

A moment that means a day, a month or a year is all of it, as in a time predicate: to be after
2016 is to be after its end, to be at least 2016 is not to be before its start.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final, Literal, TypeAlias, get_args

from geostore.errors import InvalidInputError
from geostore.query.expression import (
    AnyOf,
    Expression,
    IsNull,
    Not,
    NullableColumn,
    NumberColumn,
    OneOf,
    TextColumn,
    Within,
)
from geostore.query.terms import shown
from geostore.types import TimeSpan

__all__ = ["FIELDS", "Comparator", "Value", "between", "compare", "is_null", "kind_of", "one_of"]

Comparator = Literal["=", "<>", "<", "<=", ">", ">="]
Kind = Literal["text", "percent", "bytes", "time"]
Value: TypeAlias = str | float | TimeSpan
"""Of a text, a number, or a time, which is an instant or the span that a date means."""

FIELDS: Final[dict[str, NumberColumn | TextColumn]] = {
    "dataset": "dataset",
    "geocode": "geocode",
    "scene": "scene",
    "time": "time",
    "time_end": "time_end",
    "platform": "platform",
    "pixel_coverage": "coverage",
    "cloud_cover": "cloud",
    "bytes": "bytes",
}
"""Fields of a listing's line that can be compared, to an expression's columns."""


def kind_of(field: str) -> Kind:
    """What values a field is compared with.

    Raises:
        InvalidInputError: no such field; names the known.
    """
    column = FIELDS.get(field)
    if column is None:
        raise InvalidInputError(f"field {shown(field)}: expected one of {', '.join(FIELDS)}")
    if column in get_args(TextColumn):
        return "text"
    if column in ("time", "time_end"):
        return "time"
    return "bytes" if column == "bytes" else "percent"


def compare(field: str, comparator: Comparator, value: Value) -> Expression:
    """A field against a value.

    Raises:
        InvalidInputError: a value of another kind than the field's, or texts put in order.
    """
    if kind_of(field) == "text":
        if comparator not in ("=", "<>"):
            raise InvalidInputError(
                f"{field}: {comparator} is not supported for texts; expected = or <>, or several"
                " values"
            )
        equal: Expression = OneOf(_text_column(field), (_text(field, value),))
    else:
        if comparator not in ("=", "<>"):
            return _ordered(field, comparator, value)
        if _ends(field, value)[2]:
            raise InvalidInputError(f"{field}: got {shown(value)}, expected a whole number")
        equal = between(field, value, value)
    return Not(equal) if comparator == "<>" else equal


def _ordered(field: str, comparator: Comparator, value: Value) -> Within:
    column = _number_column(field)
    first, last, is_between = _ends(field, value)
    match comparator:
        case "<":
            return Within(column, None, last if is_between else first, high_open=not is_between)
        case "<=":
            return Within(column, None, last)
        case ">":
            return Within(column, first if is_between else last, None, low_open=not is_between)
        case _:
            return Within(column, first, None)


def between(field: str, low: Value, high: Value) -> Within:
    """A number or time of at least `low` and at most `high`.

    Raises:
        InvalidInputError: as `compare`; or low above high.
    """
    if kind_of(field) == "text":
        raise InvalidInputError(f"{field}: a text has no range; expected one or several values")
    first, last = _ends(field, low)[0], _ends(field, high)[1]
    return Within(_number_column(field), first, last)


def _ends(field: str, value: Value) -> tuple[float, float, bool]:
    """(the first number that is at least `value`, the last that is at most, whether none of the
    column's numbers is `value`, which then lies between last and first).
    """
    kind = kind_of(field)
    if kind == "time":
        if not isinstance(value, TimeSpan) or value.start_us is None or value.end_us is None:
            raise InvalidInputError(f"{field}: got {shown(value)}, expected an instant or a date")
        return value.start_us, value.end_us, False
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or (isinstance(value, float) and not math.isfinite(value)):
        raise InvalidInputError(f"{field}: got {shown(value)}, expected a number")
    assert isinstance(value, int | float)
    if kind == "percent":
        return value, value, False
    return math.ceil(value), math.floor(value), value != math.floor(value)


def one_of(field: str, values: Iterable[Any]) -> Expression:
    """A field equals one of the values.

    Raises:
        InvalidInputError: as `compare`; or no value.
    """
    listed = tuple(dict.fromkeys(values))
    if kind_of(field) == "text":
        return OneOf(_text_column(field), tuple(_text(field, value) for value in listed))
    if not listed:
        raise InvalidInputError(f"{field}: got no value, expected one or more")
    parts = tuple(between(field, value, value) for value in listed)
    return parts[0] if len(parts) == 1 else AnyOf(parts)


def is_null(field: str) -> IsNull:
    """A field's value is unknown.

    Raises:
        InvalidInputError: no such field, or one that is always known.
    """
    kind_of(field)
    column = FIELDS[field]
    if column not in get_args(NullableColumn):
        nullable = [name for name, other in FIELDS.items() if other in get_args(NullableColumn)]
        raise InvalidInputError(f"{field} is never null; expected one of {', '.join(nullable)}")
    return IsNull(column)  # type: ignore[arg-type]  # checked above


def _text_column(field: str) -> TextColumn:
    return FIELDS[field]  # type: ignore[return-value]  # by its kind


def _number_column(field: str) -> NumberColumn:
    return FIELDS[field]  # type: ignore[return-value]  # by its kind


def _text(field: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidInputError(f"{field}: got {shown(value)}, expected a text")
    return value
