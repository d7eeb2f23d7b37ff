"""What a predicate means, over columns at once.

These are the only definitions of CONTRACT's predicates: the catalog applies them to its
own columns, a client may apply them to rows it holds. Each returns a boolean array of the
columns' length.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from geostore.query.value import PercentRange, Query
from geostore.types import NULL_TIME, RowBatch, SchemeName, TileSchema, TimeSpan

__all__ = [
    "geocode_matches",
    "matching",
    "percent_matches",
    "schema_matches",
    "time_end_effective",
    "time_matches",
]

Mask = npt.NDArray[np.bool_]


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
    mask = ~np.isnan(values)
    if bounds.minimum is not None:
        mask &= values >= np.float32(bounds.minimum)
    if bounds.maximum is not None:
        mask &= values <= np.float32(bounds.maximum)
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


def _region_mask(batch: RowBatch, query: Query) -> Mask:
    from geostore.grid import scheme

    region = query.region
    assert region is not None
    mask = np.zeros(len(batch), dtype=np.bool_)
    for name in get_args(SchemeName):
        own = np.flatnonzero(_per_value(batch.schema, partial(_is_of_scheme, name)))
        if not len(own):
            continue
        codes = sorted(set(batch.geocode[own].tolist()))
        known = dict(zip(codes, region.matches_many(scheme(name), codes).tolist(), strict=True))
        mask[own] = [known[geocode] for geocode in batch.geocode[own]]
    return mask


def matching(batch: RowBatch, query: Query) -> Mask:
    """Which rows of `batch` satisfy every predicate of `query` (sort and limit play no part)."""
    mask = np.ones(len(batch), dtype=np.bool_)
    if query.time is not None:
        mask &= time_matches(batch.time_us, batch.time_end_us, query.time)
    if query.cloud is not None:
        mask &= percent_matches(batch.cloud_cover, query.cloud)
    if query.coverage is not None:
        mask &= percent_matches(batch.pixel_coverage, query.coverage)
    if query.datasets is not None:
        names = frozenset(query.datasets)
        mask &= _per_value(batch.dataset, lambda value: value in names)
    if query.platform is not None:
        mask &= _per_value(batch.platform, lambda value: value == query.platform)
    if query.scene is not None:
        mask &= _per_value(batch.scene, lambda value: value == query.scene)
    if query.bands:
        mask &= _per_value(batch.schema, lambda value: schema_matches(value, query.bands))
    if query.geocode is not None:
        prefix, recursive = query.geocode, query.recursive
        mask &= _per_value(
            batch.geocode, lambda value: geocode_matches(str(value), prefix, recursive=recursive)
        )
    if query.region is not None:
        mask &= _region_mask(batch, query)
    return mask
