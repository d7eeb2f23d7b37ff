"""Expressions made into others that mean the same, or less: what planners reason with.

Only what holds in three-valued logic is used (see `geostore.query.expression`): De Morgan's laws,
double negation, associativity, and that repeating a part changes nothing. That an expression or
its negation must hold is not among it: of a tile without cloud cover neither does.
"""

from __future__ import annotations

from collections.abc import Callable

from geostore.query.expression import (
    AllOf,
    AnyOf,
    Expression,
    HasBands,
    InRegion,
    Leaf,
    Not,
    OneOf,
    TimeOverlaps,
    UnderGeocode,
    Within,
)
from geostore.query.value import Query
from geostore.types import TimeSpan

__all__ = ["conditions", "conjuncts", "dataset_bound", "implied", "simplified", "time_bound"]


def conditions(query: Query) -> tuple[Expression, ...]:
    """All that must hold by a query, one by one: its plain predicates, then what `where` joins."""
    found: list[Expression] = []
    if query.time is not None:
        found.append(TimeOverlaps(query.time))
    if query.cloud is not None:
        found.append(Within("cloud", query.cloud.minimum, query.cloud.maximum))
    if query.coverage is not None:
        found.append(Within("coverage", query.coverage.minimum, query.coverage.maximum))
    if query.datasets is not None:
        found.append(OneOf("dataset", query.datasets))
    if query.platform is not None:
        found.append(OneOf("platform", (query.platform,)))
    if query.scene is not None:
        found.append(OneOf("scene", (query.scene,)))
    if query.bands:
        found.append(HasBands(query.bands))
    if query.geocode is not None:
        found.append(UnderGeocode(query.geocode, recursive=query.recursive))
    if query.region is not None:
        found += map(InRegion, query.region.parts)
    if query.where is not None:
        found += conjuncts(query.where)
    return tuple(found)


def conjuncts(expression: Expression) -> tuple[Expression, ...]:
    """The parts that must all hold, none of which is an `AllOf`; the expression itself where it
    is none. `simplified` first also finds those behind a `Not`.
    """
    if not isinstance(expression, AllOf):
        return (expression,)
    return tuple(each for part in expression.parts for each in conjuncts(part))


def simplified(expression: Expression) -> Expression:
    """The same in a plain form: `Not` stands before predicates alone, no part is of its whole's
    own kind, comes twice or is alone. True, false and unknown of the same rows.
    """
    return _simplified(expression, negated=False)


def _simplified(expression: Expression, *, negated: bool) -> Expression:
    match expression:
        case Not(part):
            return _simplified(part, negated=not negated)
        case AllOf(parts) | AnyOf(parts):
            kind = AllOf if isinstance(expression, AllOf) != negated else AnyOf
            found: dict[Expression, None] = {}  # as a set that keeps the order
            for part in parts:
                plain = _simplified(part, negated=negated)
                found |= dict.fromkeys(plain.parts if isinstance(plain, kind) else (plain,))
            return kind(tuple(found)) if len(found) > 1 else next(iter(found))
        case _:
            return Not(expression) if negated else expression


def implied(expression: Expression, keeps: Callable[[Leaf], bool]) -> Expression | None:
    """The strongest condition on some predicates alone that holds wherever `expression` does.

    It is made of `AllOf`, `AnyOf` and predicates that `keeps` says true of, without any `Not`;
    None: nothing is implied. What an index or the ring can look up is asked for by this, before
    the whole is tested row by row.
    """
    return _implied(simplified(expression), keeps)


def _implied(plain: Expression, keeps: Callable[[Leaf], bool]) -> Expression | None:
    match plain:
        case AllOf(parts):
            kept = tuple(found for part in parts if (found := _implied(part, keeps)) is not None)
            return None if not kept else kept[0] if len(kept) == 1 else AllOf(kept)
        case AnyOf(parts):
            ways = tuple(_implied(part, keeps) for part in parts)
            bounds = tuple(way for way in ways if way is not None)
            return AnyOf(bounds) if len(bounds) == len(ways) else None
        case Not():
            return None
        case _:
            return plain if keeps(plain) else None


def dataset_bound(expression: Expression) -> frozenset[str] | None:
    """The datasets outside of which nothing matches; None: any may have a match."""
    bound = implied(expression, lambda leaf: isinstance(leaf, OneOf) and leaf.column == "dataset")
    return None if bound is None else _datasets(bound)


def _datasets(bound: Expression) -> frozenset[str]:
    match bound:
        case AllOf(parts):
            return frozenset.intersection(*map(_datasets, parts))
        case AnyOf(parts):
            return frozenset.union(*map(_datasets, parts))
        case _:
            assert isinstance(bound, OneOf)
            return frozenset(bound.values)


def time_bound(expression: Expression) -> TimeSpan | None:
    """A span that the time of every match overlaps; None: matches may have any time, or none.

    Of several spans that must all be overlapped it is the shortest: a tile of a year overlaps
    January and December, and nothing that the two share.
    """
    bound = implied(expression, _is_about_time)
    return None if bound is None else _span(bound)


def _is_about_time(leaf: Leaf) -> bool:
    # Both ends of a tile's time lie in it: where one is within bounds, the two overlap.
    return isinstance(leaf, TimeOverlaps) or (
        isinstance(leaf, Within) and leaf.column in ("time", "time_end")
    )


def _span(bound: Expression) -> TimeSpan:
    match bound:
        case AllOf(parts):
            return min(map(_span, parts), key=_length)
        case AnyOf(parts):
            spans = [_span(part) for part in parts]
            starts = [span.start_us for span in spans if span.start_us is not None]
            ends = [span.end_us for span in spans if span.end_us is not None]
            return TimeSpan(
                min(starts) if len(starts) == len(spans) else None,
                max(ends) if len(ends) == len(spans) else None,
            )
        case TimeOverlaps(span):
            return span
        case _:
            assert isinstance(bound, Within)
            low, high = bound.low, bound.high
            return TimeSpan(None if low is None else int(low), None if high is None else int(high))


def _length(span: TimeSpan) -> float:
    if span.start_us is None or span.end_us is None:
        return float("inf")
    return span.end_us - span.start_us
