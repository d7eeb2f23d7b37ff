"""What a predicate means, over columns at once.

These are the only definitions of CONTRACT's predicates: the catalog applies them to its
own columns, a client may apply them to rows it holds. Each returns a boolean array of the
columns' length.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt

from geostore.query.evaluation import Mask, evaluate
from geostore.query.expression import (
    HasBands,
    InRegion,
    NullableColumn,
    NumberColumn,
    OneOf,
    Predicate,
    TimeOverlaps,
    UnderGeocode,
    Within,
)
from geostore.query.rewriting import conditions
from geostore.query.value import PercentRange, Query
from geostore.types import NULL_TIME, RowBatch, SchemeName, TileSchema, TimeSpan

if TYPE_CHECKING:
    from geostore.grid import Region

__all__ = [
    "RowFacts",
    "geocode_matches",
    "known_numbers",
    "matching",
    "percent_matches",
    "schema_matches",
    "time_end_effective",
    "time_matches",
    "within_matches",
]

Numbers = npt.NDArray[np.float32] | npt.NDArray[np.int64]


def time_end_effective(
    time_us: npt.NDArray[np.int64], time_end_us: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The end of each tile's interval: where no end is stored, the tile is an instant."""
    return np.where(time_end_us == NULL_TIME, time_us, time_end_us)


def time_matches(
    time_us: npt.NDArray[np.int64], time_end_us: npt.NDArray[np.int64], span: TimeSpan
) -> Mask:
    """Closed intervals [time, time_end] and `span` overlap; no time (NULL_TIME) never does."""
    mask: Mask = time_us != NULL_TIME
    if span.end_us is not None:
        mask &= time_us <= span.end_us
    if span.start_us is not None:
        mask &= time_end_effective(time_us, time_end_us) >= span.start_us
    return mask


def percent_matches(values: npt.NDArray[np.float32], bounds: PercentRange) -> Mask:
    """Inclusive, in float32 (see PercentRange); NaN (unknown) never matches."""
    return within_matches(values, Within("coverage", bounds.minimum, bounds.maximum))


def within_matches(values: Numbers, bounds: Within) -> Mask:
    """Numbers between two bounds, which are rounded to the numbers' own type first; NaN and
    NULL_TIME (unknown) never are.
    """
    mask = known_numbers(values)
    if bounds.low is not None:
        low = values.dtype.type(bounds.low)
        mask &= values > low if bounds.low_open else values >= low
    if bounds.high is not None:
        high = values.dtype.type(bounds.high)
        mask &= values < high if bounds.high_open else values <= high
    return mask


def known_numbers(values: Numbers) -> Mask:
    """Those that are neither NaN nor NULL_TIME."""
    if values.dtype.kind == "f":
        return ~np.isnan(values)
    mask: Mask = values != NULL_TIME
    return mask


def geocode_matches(geocode: str, prefix: str, *, recursive: bool) -> bool:
    """`geocode` is `prefix`, or (recursive) lies under it."""
    return geocode.startswith(prefix) if recursive else geocode == prefix


def schema_matches(schema: TileSchema, bands: tuple[str, ...]) -> bool:
    """The schema has every band asked for, by provider's or common name."""
    return schema.names.issuperset(bands)


def _per_value(column: npt.NDArray[np.object_], test: Callable[[Any], bool]) -> Mask:
    """`test` of each value, evaluated once a distinct object (columns are interned)."""
    known: dict[int, bool] = {}
    mask = np.empty(len(column), dtype=np.bool_)
    for i, value in enumerate(column):
        result = known.get(id(value))
        if result is None:
            result = known[id(value)] = test(value)
        mask[i] = result
    return mask


def _is_of_scheme(name: SchemeName, schema: TileSchema) -> bool:
    return schema.scheme == name


def _region_mask(batch: RowBatch, region: Region) -> Mask:
    from geostore.grid import scheme

    mask = np.zeros(len(batch), dtype=np.bool_)
    for name in get_args(SchemeName):
        own = np.flatnonzero(_per_value(batch.schema, partial(_is_of_scheme, name)))
        if not len(own):
            continue
        codes = sorted(set(batch.geocode[own].tolist()))
        known = dict(zip(codes, region.matches_many(scheme(name), codes).tolist(), strict=True))
        mask[own] = [known[geocode] for geocode in batch.geocode[own]]
    return mask


class RowFacts:
    """`Facts` of the rows of a batch: each predicate asked of each row, without any index."""

    def __init__(self, batch: RowBatch) -> None:
        self._batch = batch
        self._numbers: dict[NumberColumn, Numbers] = {
            "cloud": batch.cloud_cover,
            "coverage": batch.pixel_coverage,
            "time": batch.time_us,
            "time_end": batch.time_end_us,
            "bytes": batch.bytes,
        }

    def holds(self, predicate: Predicate) -> Mask:
        batch = self._batch
        match predicate:
            case InRegion(region):
                return _region_mask(batch, region)
            case UnderGeocode(geocode, recursive=recursive):
                return _per_value(
                    batch.geocode, partial(geocode_matches, prefix=geocode, recursive=recursive)
                )
            case TimeOverlaps(span):
                return time_matches(batch.time_us, batch.time_end_us, span)
            case Within(column):
                return within_matches(self._numbers[column], predicate)
            case OneOf(column, values):
                return _per_value(getattr(batch, column), frozenset(values).__contains__)
            case HasBands(bands):
                return _per_value(batch.schema, partial(schema_matches, bands=bands))

    def known(self, column: NullableColumn) -> Mask:
        if column == "platform":
            return _per_value(self._batch.platform, lambda value: value is not None)
        return known_numbers(self._numbers[column])


def matching(batch: RowBatch, query: Query) -> Mask:
    """Which rows of `batch` satisfy every predicate of `query` (sort and limit play no part)."""
    facts = RowFacts(batch)
    mask = np.ones(len(batch), dtype=np.bool_)
    for condition in conditions(query):
        mask &= evaluate(condition, facts)
    return mask
