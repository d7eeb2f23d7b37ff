"""Rows as Arrow record batches, without a Python object a row.

Both what a node sent and what the catalog gave are made here, so that a store and a cluster
give the same tables. pyarrow is optional: it is imported only where a batch is made. Columns
and types are those of `Selection.to_arrow`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from geostore import grid
from geostore.errors import CorruptDataError, InvalidInputError, MissingDependencyError
from geostore.query.identity import object_runs
from geostore.types import NULL_TIME, RowBatch, TileSchema

if TYPE_CHECKING:
    import pyarrow as pa

    from geostore.rpc.row_batches import RowMessage

__all__ = ["SIDES", "arrow_schema", "batch_from_rows", "record_batch"]

SIDES = ("xmin", "ymin", "xmax", "ymax")
"""What GeoParquet 1.1 calls the sides of a bounding box."""


def _pyarrow() -> Any:
    try:
        return importlib.import_module("pyarrow")
    except ImportError:
        raise MissingDependencyError(
            "Arrow tables need pyarrow: pip install 'geostore[parquet]'"
        ) from None


def arrow_schema() -> pa.Schema:
    """The columns of every batch made here, in their order.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """
    pa = _pyarrow()
    moment, texts = pa.timestamp("us", tz="UTC"), pa.list_(pa.string())
    return pa.schema(
        [
            ("dataset", pa.string()),
            ("geocode", pa.string()),
            ("scene", pa.string()),
            ("time", moment),
            ("time_end", moment),
            ("platform", pa.string()),
            ("bands", texts),
            ("pixel_coverage", pa.float32()),
            ("cloud_cover", pa.float32()),
            ("bbox", pa.struct([(side, pa.float64()) for side in SIDES])),
            ("bytes", pa.int64()),
            ("nodes", texts),
        ]
    )


def batch_from_rows(batch: RowBatch) -> pa.RecordBatch:
    """A catalog's rows; raises as `record_batch`."""
    from geostore.rpc.row_batches import CODED, NUMBERS, RowMessage, pack_geocodes

    coded = {name: _coded(getattr(batch, name)) for name in CODED}
    try:
        width, lengths, text = pack_geocodes(batch.geocode.tolist())
    except InvalidInputError as error:
        raise CorruptDataError(str(error)) from None
    message = RowMessage(
        rows=len(batch),
        codes={name: codes for name, (codes, _) in coded.items()},
        values={name: values for name, (_, values) in coded.items()},
        numbers={name: getattr(batch, name) for name in NUMBERS},
        geocode_width=width,
        geocode_lengths=np.frombuffer(lengths, dtype=np.uint8),
        geocode_text=np.frombuffer(text, dtype=np.uint8),
    )
    return record_batch(message)


def _coded(column: npt.NDArray[np.object_]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.object_]]:
    """(a code a row, the values of the codes): values are interned, so objects are compared."""
    starts, addresses = object_runs(column)
    _, firsts, inverse = np.unique(addresses, return_index=True, return_inverse=True)
    return np.repeat(inverse, np.diff(starts, append=len(column))), column[starts[firsts]]


def record_batch(message: RowMessage) -> pa.RecordBatch:
    """A checked message's rows.

    Raises:
        CorruptDataError: a geocode that is none of its scheme.
        MissingDependencyError: pyarrow is not installed.
    """
    pa = _pyarrow()
    texts = pa.list_(pa.string())
    numbers = message.numbers
    moment = pa.timestamp("us", tz="UTC")
    cloud = numbers["cloud_cover"]
    columns = {
        "dataset": _taken(pa, message, "dataset", pa.string()),
        "geocode": _geocodes(pa, message),
        "scene": _taken(pa, message, "scene", pa.string()),
        "time": _times(pa, numbers["time_us"], moment),
        "time_end": _times(pa, numbers["time_end_us"], moment),
        "platform": _taken(pa, message, "platform", pa.string()),
        "bands": _taken(pa, message, "schema", texts, _band_names),
        "pixel_coverage": pa.array(numbers["pixel_coverage"], pa.float32()),
        "cloud_cover": pa.array(cloud, pa.float32(), mask=np.isnan(cloud)),
        "bbox": _boxes(pa, message),
        "bytes": pa.array(numbers["bytes"], pa.int64()),
        "nodes": _taken(pa, message, "nodes", texts, list),
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=arrow_schema())


def _band_names(schema: TileSchema) -> list[str]:
    return [band.name for band in schema.bands]


def _taken(
    pa: Any,
    message: RowMessage,
    name: str,
    of_type: Any,
    shown: Callable[[Any], object] = lambda value: value,
) -> Any:
    """A coded column: only the entries that this message has are made, then taken by code."""
    codes = message.codes[name]
    is_here = np.zeros(len(message.values[name]), dtype=np.bool_)
    is_here[codes] = True
    values = [shown(value) for value in message.values[name][is_here].tolist()]
    if len(codes) == message.rows:
        places = (np.cumsum(is_here, dtype=np.int32) - 1).astype(np.int32)[codes]
    else:
        places = np.zeros(message.rows, dtype=np.int32)
    return pa.array(values, of_type).take(pa.array(places))


def _times(pa: Any, times_us: npt.NDArray[np.int64], moment: Any) -> Any:
    return pa.array(times_us, pa.int64(), mask=times_us == NULL_TIME).cast(moment)


def _geocodes(pa: Any, message: RowMessage) -> Any:
    width, rows = message.geocode_width, message.rows
    offsets = np.zeros(rows + 1, dtype=np.int32)
    if width:
        offsets[:] = np.arange(rows + 1, dtype=np.int32) * width
    else:
        np.cumsum(message.geocode_lengths, out=offsets[1:])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(message.geocode_text)]
    return pa.Array.from_buffers(pa.string(), rows, buffers)


def _boxes(pa: Any, message: RowMessage) -> Any:
    bounds = np.empty((message.rows, 4), dtype=np.float64)
    codes, schemas = message.codes["schema"], message.values["schema"]
    distinct = np.unique(codes).tolist()
    for name in {schemas[code].scheme for code in distinct}:
        of_scheme = [code for code in distinct if schemas[code].scheme == name]
        whole = len(of_scheme) == len(distinct)
        own = np.arange(message.rows) if whole else np.flatnonzero(np.isin(codes, of_scheme))
        try:
            bounds[own] = _bounds(grid.scheme(name), message, own)
        except InvalidInputError as error:
            raise CorruptDataError(f"row batch: {error}") from None
    sides = [pa.array(np.ascontiguousarray(bounds[:, side])) for side in range(4)]
    return pa.StructArray.from_arrays(sides, names=list(SIDES))


def _bounds(
    scheme: grid.Scheme, message: RowMessage, own: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    width = message.geocode_width
    if not width:
        return scheme.bounds_many(message.geocodes()[own].tolist())
    scheme.grid_size(width)  # raises where the scheme has no such length
    digits = message.geocode_text.reshape(-1, width)[own]
    is_digit = np.zeros(256, dtype=np.bool_)
    is_digit[list(scheme.alphabet.encode("ascii"))] = True
    if not is_digit[digits].all():
        raise InvalidInputError(f"a geocode has a digit that is none of {scheme.alphabet}")
    codes: Any = np.ascontiguousarray(digits).view(f"S{width}").reshape(-1)
    columns, rows = scheme.cell_indices(codes, width)
    return scheme.bounds_at(columns, rows, width)
