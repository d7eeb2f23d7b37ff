"""Selections as tables: pandas and Arrow, one row a tile, the fields of the jsonl line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from geostore import grid
from geostore.tensors.optional import require
from geostore.types import NULL_TIME, TILE_FIELDS, BBox, RowBatch

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["record_batches", "to_arrow", "to_pandas"]


def _bands(batch: RowBatch) -> list[list[str]]:
    by_schema: dict[str, list[str]] = {}
    names = []
    for schema in batch.schema:
        if schema.digest not in by_schema:
            by_schema[schema.digest] = [band.name for band in schema.bands]
        names.append(by_schema[schema.digest])
    return names


def _boxes(batch: RowBatch) -> list[BBox]:
    return [
        grid.scheme(schema.scheme).bounds(geocode)
        for schema, geocode in zip(batch.schema, batch.geocode, strict=True)
    ]


def to_pandas(batches: Iterable[RowBatch]) -> pd.DataFrame:
    """One row a tile, in the selection's order.

    Times are datetime64[us, UTC] (NaT where unknown), percentages float32 (NaN where
    unknown), `bands` and `nodes` lists, `bbox` (west, south, east, north) in degrees.

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
            "bands": _bands(whole),
            "pixel_coverage": whole.pixel_coverage,
            "cloud_cover": whole.cloud_cover,
            "bbox": [box.as_tuple() for box in _boxes(whole)],
            "bytes": whole.bytes,
            "nodes": [list(nodes) for nodes in whole.nodes],
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


def _arrow_schema(pa: Any) -> pa.Schema:
    moment = pa.timestamp("us", tz="UTC")
    return pa.schema(
        [
            ("dataset", pa.string()),
            ("geocode", pa.string()),
            ("scene", pa.string()),
            ("time", moment),
            ("time_end", moment),
            ("platform", pa.string()),
            ("bands", pa.list_(pa.string())),
            ("pixel_coverage", pa.float32()),
            ("cloud_cover", pa.float32()),
            ("bbox", pa.struct([(side, pa.float64()) for side in _SIDES])),
            ("bytes", pa.int64()),
            ("nodes", pa.list_(pa.string())),
        ]
    )


# GeoParquet 1.1 names the sides of a bounding box column so.
_SIDES = ("xmin", "ymin", "xmax", "ymax")


def record_batches(batches: Iterable[RowBatch]) -> Iterator[pa.RecordBatch]:
    """Arrow record batches as rows arrive: what a Parquet writer needs of a long answer.

    Columns as in `to_pandas`, unknown values null; `bbox` is a struct of xmin, ymin, xmax,
    ymax in degrees, as GeoParquet 1.1 has it.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """
    pa = require("pyarrow", needed_for="to_arrow", extra="parquet")
    schema = _arrow_schema(pa)
    for batch in batches:
        if not len(batch):
            continue
        boxes = [dict(zip(_SIDES, box.as_tuple(), strict=True)) for box in _boxes(batch)]
        moments = [
            pa.array(column, pa.int64(), mask=column == NULL_TIME).cast(schema.field("time").type)
            for column in (batch.time_us, batch.time_end_us)
        ]
        columns = [
            pa.array(batch.dataset, pa.string()),
            pa.array(batch.geocode, pa.string()),
            pa.array(batch.scene, pa.string()),
            *moments,
            pa.array(batch.platform, pa.string()),
            pa.array(_bands(batch), pa.list_(pa.string())),
            pa.array(batch.pixel_coverage, pa.float32()),
            pa.array(batch.cloud_cover, pa.float32(), mask=np.isnan(batch.cloud_cover)),
            pa.array(boxes, schema.field("bbox").type),
            pa.array(batch.bytes, pa.int64()),
            pa.array([list(nodes) for nodes in batch.nodes], pa.list_(pa.string())),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def to_arrow(batches: Iterable[RowBatch]) -> pa.Table:
    """A pyarrow Table of `record_batches`.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """
    pa = require("pyarrow", needed_for="to_arrow", extra="parquet")
    return pa.Table.from_batches(list(record_batches(batches)), schema=_arrow_schema(pa))
