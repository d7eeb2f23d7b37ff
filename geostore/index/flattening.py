"""Queries in the form that is planned: what an expression says plainly, said plainly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from geostore.query import (
    AllOf,
    Expression,
    HasBands,
    InRegion,
    OneOf,
    PercentRange,
    Query,
    TimeOverlaps,
    UnderGeocode,
    Within,
    conjuncts,
    simplified,
)

__all__ = ["flattened"]


def flattened(q: Query) -> Query:
    """The same query, in which parts of `where` that must hold stand among the plain predicates
    wherever one of that kind is not taken yet: there a structure may find their rows.
    """
    if q.where is None:
        return q
    rest: list[Expression] = []
    plain = replace(q, where=None)
    for part in conjuncts(simplified(q.where)):
        taken = _with(plain, part)
        if taken is None:
            rest.append(part)
        else:
            plain = taken
    where = None if not rest else rest[0] if len(rest) == 1 else AllOf(tuple(rest))
    return replace(plain, where=where)


def _with(q: Query, part: Expression) -> Query | None:
    """The query with a part as a plain predicate; None where it has no place."""
    changes: dict[str, Any]
    match part:
        case InRegion(region) if q.region is None:
            changes = {"region": region}
        case UnderGeocode(geocode, recursive=recursive) if q.geocode is None:
            changes = {"geocode": geocode, "recursive": recursive}
        case TimeOverlaps(span) if q.time is None:
            changes = {"time": span}
        case Within("cloud", low, high, low_open=False, high_open=False) if q.cloud is None:
            changes = {"cloud": PercentRange(low, high)}
        case Within("coverage", low, high, low_open=False, high_open=False) if q.coverage is None:
            changes = {"coverage": PercentRange(low, high)}
        case HasBands(bands):
            changes = {"bands": (*q.bands, *bands)}
        case OneOf("platform", (value,)) if q.platform is None:
            changes = {"platform": value}
        case OneOf("scene", (value,)) if q.scene is None:
            changes = {"scene": value}
        case OneOf("dataset", values) if q.datasets is None:
            changes = {"datasets": values}
        case OneOf("geocode", (value,)) if q.geocode is None:
            changes = {"geocode": value, "recursive": False}
        case _:
            return None
    return replace(q, **changes)
