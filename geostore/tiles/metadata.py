"""`TileMeta` as JSON and back."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from typing import Any

from geostore.errors import InvalidInputError
from geostore.types import BandStatistics, BlockBitmaps, TileKey, TileMeta, TileSchema
from geostore.types.plain import plain_fields

__all__ = ["dump_json", "meta_from_json", "meta_to_json"]

_STATISTICS = tuple(field.name for field in fields(BandStatistics))
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)

# By digest: all tiles of a scene share a schema, and turning it into JSON takes longer than
# compressing a small tile, with the interpreter's lock held.
_SCHEMAS_KEPT = 64
_schemas: dict[str, dict[str, Any]] = {}


def dump_json(value: Any) -> bytes:
    """Compact ASCII JSON with sorted keys: the same bytes for the same value.

    Raises:
        InvalidInputError: something in it that JSON cannot say.
    """
    try:
        return _ENCODER.encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"tile metadata is not JSON: {error}") from None


def _finite(value: Any) -> Any:
    """`value` with non-finite floats as text: strict JSON has no NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _schema_to_json(schema: TileSchema) -> dict[str, Any]:
    value = _schemas.get(schema.digest)
    if value is None:
        value = _finite(schema.to_json())
        if len(_schemas) >= _SCHEMAS_KEPT:
            _schemas.clear()
        _schemas[schema.digest] = value
    return value


def meta_to_json(meta: TileMeta) -> dict[str, Any]:
    """A JSON-able dict; `meta_from_json` is its inverse (tuples in `properties` become lists)."""
    value = {
        "key": plain_fields(meta.key),
        "dataset": meta.dataset,
        "definition": _finite(meta.definition),
        "schema": _schema_to_json(meta.schema),
        "time_us": meta.time_us,
        "time_end_us": meta.time_end_us,
        "platform": meta.platform,
        "pixel_coverage": meta.pixel_coverage,
        "cloud_cover": meta.cloud_cover,
        "cloud_method": meta.cloud_method,
        "cloud_histogram": meta.cloud_histogram,
        "statistics": [
            {name: _finite(getattr(band, name)) for name in _STATISTICS} for band in meta.statistics
        ],
        "properties": _finite(meta.properties),
    }
    if meta.bitmaps is not None:
        value["bitmaps"] = meta.bitmaps.to_json()
    return value


def _optional_float(value: Any) -> float | None:
    return None if value is None else float(value)


def meta_from_json(value: dict[str, Any]) -> TileMeta:
    """The TileMeta that `meta_to_json` was given.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: `value` is no such dict (the reader
            of the file, who knows its name, turns them into its error).
    """
    histogram = value["cloud_histogram"]
    bitmaps = value.get("bitmaps")  # tiles from before have none
    statistics = tuple(
        BandStatistics(**{name: _optional_float(number) for name, number in band.items()})
        for band in value["statistics"]
    )
    return TileMeta(
        key=TileKey(**value["key"]),
        dataset=value["dataset"],
        definition=value["definition"],
        schema=TileSchema.from_json(value["schema"]),
        time_us=value["time_us"],
        time_end_us=value["time_end_us"],
        platform=value["platform"],
        pixel_coverage=float(value["pixel_coverage"]),
        cloud_cover=_optional_float(value["cloud_cover"]),
        cloud_method=value["cloud_method"],
        cloud_histogram=None if histogram is None else tuple(histogram),
        statistics=statistics,
        properties=value["properties"],
        bitmaps=None if bitmaps is None else BlockBitmaps.from_json(bitmaps),
    )
