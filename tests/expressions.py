"""Random expressions, and what they mean row by row in plain Python, None for unknown.

Nothing here is shared with the query room but the expressions themselves.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

from geostore.grid import Region, scheme
from geostore.index import CatalogEntry
from geostore.query import (
    AllOf,
    AnyOf,
    Expression,
    HasBands,
    InRegion,
    IsNull,
    Leaf,
    Not,
    OneOf,
    TimeOverlaps,
    UnderGeocode,
    Within,
)
from geostore.types import BBox, TimeSpan

__all__ = ["random_expression", "random_leaf", "truth"]


def float32(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


# ---------------------------------------------------------------- meaning


def truth(expression: Expression, entry: CatalogEntry) -> bool | None:
    """Kleene's tables, one row at a time."""
    match expression:
        case AllOf(parts):
            found = [truth(part, entry) for part in parts]
            return False if False in found else None if None in found else True
        case AnyOf(parts):
            found = [truth(part, entry) for part in parts]
            return True if True in found else None if None in found else False
        case Not(part):
            inner = truth(part, entry)
            return None if inner is None else not inner
        case _:
            return _leaf_truth(expression, entry)


def _value(column: str, entry: CatalogEntry) -> float | str | None:
    meta = entry.meta
    return {
        "cloud": meta.cloud_cover,
        "coverage": meta.pixel_coverage,
        "time": meta.time_us,
        "time_end": meta.time_end_us,
        "bytes": entry.bytes,
        "dataset": meta.dataset,
        "platform": meta.platform,
        "scene": meta.key.scene,
        "geocode": meta.key.geocode,
    }[column]


def _leaf_truth(leaf: Leaf, entry: CatalogEntry) -> bool | None:
    meta = entry.meta
    code = meta.key.geocode
    match leaf:
        case InRegion(region):
            return region.matches(scheme(meta.schema.scheme), code)
        case UnderGeocode(geocode, recursive=recursive):
            return code.startswith(geocode) if recursive else code == geocode
        case TimeOverlaps(span):
            if meta.time_us is None or meta.time_end_us is None:
                return None
            begins = span.end_us is None or meta.time_us <= span.end_us
            return begins and (span.start_us is None or meta.time_end_us >= span.start_us)
        case Within(column):
            return _is_within(leaf, _value(column, entry))
        case OneOf(column, values):
            text = _value(column, entry)
            return None if text is None else text in values
        case HasBands(bands):
            names = {each.name for each in meta.schema.bands}
            return set(bands) <= names | {each.common_name for each in meta.schema.bands}
        case IsNull(column):
            return _value(column, entry) is None


def _is_within(leaf: Within, value: float | str | None) -> bool | None:
    if value is None:
        return None
    assert not isinstance(value, str)
    as_stored = float32 if leaf.column in ("cloud", "coverage") else float
    number = as_stored(value)
    above = below = True
    if leaf.low is not None:
        low = as_stored(leaf.low)
        above = number > low if leaf.low_open else number >= low
    if leaf.high is not None:
        high = as_stored(leaf.high)
        below = number < high if leaf.high_open else number <= high
    return above and below


# ---------------------------------------------------------------- at random


def random_leaf(rng: random.Random, entries: Sequence[CatalogEntry]) -> Leaf:
    """A predicate whose values are, more often than not, those of some entry."""
    some = rng.choice(entries)
    kind = rng.randrange(8)
    if kind == 0:
        return InRegion(_region(rng, some))
    if kind == 1:
        code = some.meta.key.geocode
        cut = code[: rng.randint(1, len(code))]
        return UnderGeocode(cut, recursive=rng.random() < 0.7)
    if kind == 2:
        return TimeOverlaps(TimeSpan(*_bounds(rng, some.meta.time_us or 0, 400)))
    if kind == 3:
        return HasBands(tuple(rng.choices(sorted(some.meta.schema.names), k=rng.randint(1, 2))))
    if kind == 4:
        return IsNull(rng.choice(("time", "time_end", "cloud", "platform")))
    if kind == 5:
        column = rng.choice(("dataset", "platform", "scene", "geocode"))
        values = [_value(column, rng.choice(entries)) for _ in range(rng.randint(1, 3))]
        return OneOf(column, tuple(str(value) for value in values if value) or ("zz",))
    return _random_within(rng, some)


def _random_within(rng: random.Random, some: CatalogEntry) -> Within:
    column = rng.choice(("cloud", "cloud", "coverage", "time", "time_end", "bytes"))
    value = _value(column, some) or 0
    assert not isinstance(value, str)
    if column in ("cloud", "coverage"):
        low, high = _bounds(rng, value, 30)
        low = None if low is None else max(low, 0)
        high = None if high is None else min(high, 100)
    else:
        low, high = _bounds(rng, int(value), 400)
    if low is None and high is None and rng.random() < 0.8:
        low = value
    return Within(column, low, high, low_open=rng.random() < 0.4, high_open=rng.random() < 0.4)


def _bounds(rng: random.Random, value: float, width: int) -> tuple[float | None, float | None]:
    """Around a value; often it is a bound itself."""
    low, high = value - rng.choice((0, width)), value + rng.choice((0, 0, width))
    return None if rng.random() < 0.4 else low, None if rng.random() < 0.4 else high


def _region(rng: random.Random, some: CatalogEntry) -> Region:
    box = scheme(some.meta.schema.scheme).bounds(some.meta.key.geocode)
    if rng.random() < 0.3:
        return Region.from_geometry({"type": "Point", "coordinates": [box.west, box.south]})
    if rng.random() < 0.5:
        return Region.from_bbox(box)
    wide = rng.choice((0.5, 5, 60))
    north = min(90.0, box.south + wide)
    return Region.from_bbox(BBox(box.west, box.south, min(180.0, box.west + wide), north))


def random_expression(
    rng: random.Random, entries: Sequence[CatalogEntry], depth: int = 4
) -> Expression:
    """Every kind of joining, also a part by itself, twice, or behind several `Not`."""
    kind = rng.random()
    if depth <= 1 or kind < 0.25:
        return random_leaf(rng, entries)
    if kind < 0.5:
        return Not(random_expression(rng, entries, depth - 1))
    parts = tuple(
        random_expression(rng, entries, depth - 1) for _ in range(rng.choice((1, 2, 2, 3)))
    )
    if rng.random() < 0.2:
        parts += parts[:1]
    return AllOf(parts) if kind < 0.75 else AnyOf(parts)
