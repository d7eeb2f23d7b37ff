"""Conditions on tiles, joined by and, or, not: what `Store.query(where=...)` takes.

    from geostore import where

    winter = where.tiles(time="2016-01/2016-02", cloud_cover=(None, 20))
    either = where.any_of(where.tiles(bbox=(-75.7, 37.6, -75.5, 37.7)), where.tiles(geocode="9q8"))
    store.query(where=winter & either & ~where.equal("platform", "sentinel-2b"))

`&`, `|` and `~` say the same as `all_of`, `any_of` and `not_`. Fields go by their names in a
listing: `dataset`, `geocode`, `scene`, `platform`, `time`, `time_end`, `pixel_coverage`,
`cloud_cover`, `bytes`.

A condition on what is not known, a tile without cloud cover, time or platform, is neither true
nor false, and its negation is not either, as in SQL: `not_(at_most("cloud_cover", 20))` finds
tiles known to be cloudier, and `is_null("cloud_cover")` those of which nobody can tell.
A date, a month or a year means all of it: to be `above` 2016 is to be after its end.

Conditions are values: they can be compared, hashed, pickled, kept and sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from geostore.query import Expression as Expression  # noqa: PLC0414 - typed against

__all__ = [
    "above",
    "all_of",
    "any_of",
    "at_least",
    "at_most",
    "below",
    "between",
    "cql2",
    "equal",
    "is_null",
    "not_",
    "one_of",
    "tiles",
]

Value: TypeAlias = str | float | date
"""A text; a number; a time as `Store.query` takes it: text, a date, a datetime (naive: UTC)."""


# ---------------------------------------------------------------- joined


def all_of(*parts: Expression) -> Expression:
    """All of these hold."""
    from geostore.query import AllOf

    return parts[0] if len(parts) == 1 else AllOf(parts)


def any_of(*parts: Expression) -> Expression:
    """At least one of these holds."""
    from geostore.query import AnyOf

    return parts[0] if len(parts) == 1 else AnyOf(parts)


def not_(part: Expression) -> Expression:
    """This is false; not merely unknown."""
    from geostore.query import Not

    return Not(part)


# ---------------------------------------------------------------- conditions


def tiles(
    *,
    dataset: Any = None,
    bbox: Any = None,
    geometry: Any = None,
    geocode: str | None = None,
    recursive: bool = True,
    time: Any = None,
    cloud_cover: Any = None,
    pixel_coverage: Any = None,
    bands: Any = None,
    platform: str | None = None,
    scene: str | None = None,
    **unknown: object,
) -> Expression:
    """All these predicates hold; they are those of `Store.query`.

    Raises:
        InvalidInputError: a value that can never match, an unknown keyword, or no predicate.
    """
    from geostore.api import keywords
    from geostore.errors import InvalidInputError
    from geostore.query import conditions

    keywords.refuse(unknown, tiles)
    parts = conditions(
        keywords.predicates(
            dataset=dataset,
            bbox=bbox,
            geometry=geometry,
            geocode=geocode,
            recursive=recursive,
            time=time,
            cloud_cover=cloud_cover,
            pixel_coverage=pixel_coverage,
            bands=bands,
            platform=platform,
            scene=scene,
        )
    )
    if not parts:
        raise InvalidInputError("tiles: got no predicate, expected at least one")
    return all_of(*parts)


def is_null(field: str) -> Expression:
    """The field is unknown: of `time`, `time_end`, `platform` or `cloud_cover`."""
    from geostore.query import comparison

    return comparison.is_null(field)


def equal(field: str, value: Value) -> Expression:
    """The field is the value; of a time, it lies in the day, month or year that is meant."""
    from geostore.query import comparison

    return comparison.compare(field, "=", _value(field, value))


def one_of(field: str, values: Iterable[Value]) -> Expression:
    """The field is one of the values."""
    from geostore.query import comparison

    listed = (values,) if isinstance(values, str) else values
    return comparison.one_of(field, [_value(field, value) for value in listed])


def below(field: str, bound: Value) -> Expression:
    """The number or time is less than the bound."""
    from geostore.query import comparison

    return comparison.compare(field, "<", _value(field, bound))


def at_most(field: str, bound: Value) -> Expression:
    """The number or time is the bound or less."""
    from geostore.query import comparison

    return comparison.compare(field, "<=", _value(field, bound))


def above(field: str, bound: Value) -> Expression:
    """The number or time is greater than the bound."""
    from geostore.query import comparison

    return comparison.compare(field, ">", _value(field, bound))


def at_least(field: str, bound: Value) -> Expression:
    """The number or time is the bound or greater."""
    from geostore.query import comparison

    return comparison.compare(field, ">=", _value(field, bound))


def between(field: str, low: Value, high: Value) -> Expression:
    """The number or time is at least `low` and at most `high`."""
    from geostore.query import comparison

    return comparison.between(field, _value(field, low), _value(field, high))


def cql2(condition: Mapping[str, Any] | str) -> Expression:
    """The condition of a CQL2 filter (OGC 21-065r2), JSON or its text.

    The command line's page says which part of CQL2 there is, and what it means here.

    Raises:
        InvalidInputError: not CQL2 JSON, or not in that part; names where.
    """
    from geostore.query.cql2 import from_cql2

    return from_cql2(condition)


def _value(field: str, value: Any) -> Any:
    """A time in any form as a span; all else as it is, checked where it is compared."""
    from geostore.query import comparison

    if comparison.kind_of(field) != "time":
        return value
    from geostore.api import keywords
    from geostore.errors import InvalidInputError

    try:
        return keywords.time_span(value)
    except InvalidInputError as error:
        raise InvalidInputError(f"{field}: {error}") from None
