"""Selections as tables: pandas and Arrow, one row a tile, the fields of the jsonl line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from geostore import grid
from geostore.query.identity import object_runs
from geostore.rpc.row_arrow import arrow_schema, batch_from_rows
from geostore.tensors.optional import require
from geostore.types import TILE_FIELDS, RowBatch, TileSchema

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["record_batches", "to_arrow", "to_pandas"]


def _band_names(schema: TileSchema) -> list[str]:
    return [band.name for band in schema.bands]


def _by_object(
    column: npt.NDArray[np.object_], shown: Callable[[Any], object]
) -> npt.NDArray[np.object_]:
    """`shown` of each row's object, worked out once an object: rows of one object share it."""
    starts, addresses = object_runs(column)
    _, firsts, inverse = np.unique(addresses, return_index=True, return_inverse=True)
    values = np.empty(len(firsts), dtype=np.object_)
    for number, value in enumerate(column[starts[firsts]].tolist()):
        values[number] = shown(value)
    of_rows: npt.NDArray[np.object_] = values[
        np.repeat(inverse, np.diff(starts, append=len(column)))
    ]
    return of_rows


def _boxes(batch: RowBatch) -> list[tuple[float, ...]]:
    bounds = np.empty((len(batch), 4), dtype=np.float64)
    names = _by_object(batch.schema, lambda schema: schema.scheme)
    for name in set(names.tolist()):
        own = np.flatnonzero(names == name)
        bounds[own] = grid.scheme(name).bounds_many(batch.geocode[own].tolist())
    return list(zip(*bounds.T.tolist(), strict=True))


def to_pandas(batches: Iterable[RowBatch]) -> pd.DataFrame:
    """One row a tile, in the selection's order.

    Times are datetime64[us, UTC] (NaT where unknown), percentages float32 (NaN where
    unknown), `bands` and `nodes` lists that rows share, `bbox` (west, south, east, north) in
    degrees.

    Raises:
        MissingDependencyError: pandas is not installed.
    """
    pandas = require("pandas", needed_for="to_pandas", extra="pandas")
    parts = list(batches)
    if parts:
        whole = RowBatch.concatenate(parts)
        columns: dict[str, Any] = {
            "dataset": whole.dataset,
            "geocode": whole.geocode,
            "scene": whole.scene,
            "time": whole.time_us,
            "time_end": whole.time_end_us,
            "platform": whole.platform,
            "bands": _by_object(whole.schema, _band_names),
            "pixel_coverage": whole.pixel_coverage,
            "cloud_cover": whole.cloud_cover,
            "bbox": _boxes(whole),
            "bytes": whole.bytes,
            "nodes": _by_object(whole.nodes, list),
        }
    else:
        columns = {name: np.empty(0, object) for name in TILE_FIELDS}
        columns["time"] = columns["time_end"] = columns["bytes"] = np.empty(0, np.int64)
        columns["pixel_coverage"] = columns["cloud_cover"] = np.empty(0, np.float32)
    for name in ("time", "time_end"):
        # NULL_TIME is numpy's NaT, so the unknown times need no step of their own.
        moments = columns[name].view("datetime64[us]")
        columns[name] = pandas.DatetimeIndex(moments).tz_localize("UTC")
    return cast("pd.DataFrame", pandas.DataFrame(columns, columns=list(TILE_FIELDS)))


def record_batches(batches: Iterable[RowBatch]) -> Iterator[pa.RecordBatch]:
    """Arrow record batches as rows arrive: what a Parquet writer needs of a long answer.

    Columns as in `to_pandas`, unknown values null; `bbox` is a struct of xmin, ymin, xmax,
    ymax in degrees, as GeoParquet 1.1 has it.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """
    require("pyarrow", needed_for="to_arrow", extra="parquet")
    for batch in batches:
        if len(batch):
            yield batch_from_rows(batch)


def to_arrow(batches: Iterable[pa.RecordBatch]) -> pa.Table:
    """A pyarrow Table of record batches of one selection, as `Backend.query_arrow` gives them.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """
    pa = require("pyarrow", needed_for="to_arrow", extra="parquet")
    return pa.Table.from_batches(list(batches), schema=arrow_schema())
