"""Tiles as rows of a listing: the fields of the contract, and the formats beside jsonl."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from geostore.errors import MissingDependencyError
from geostore.types import TILE_FIELDS
from geostore_cli.listing import Column, bytes_text, json_text, write_listing

if TYPE_CHECKING:
    from geostore.api import Tile

__all__ = ["write_tiles"]


SIDES = ("xmin", "ymin", "xmax", "ymax")
"""What GeoParquet 1.1 calls the sides of a box; as in `Selection.to_arrow`."""
PARQUET_ROWS_MAX = 16_384
"""Rows of a Parquet row group: bounds what is held before it is written."""


def _percent(value: float) -> str:
    return f"{value:.1f}"


def _short_time(text: str) -> str:
    return text[:16].replace("T", " ")


COLUMNS = (
    Column("time", show=_short_time),
    Column("dataset"),
    Column("geocode"),
    Column("pixel_coverage", "coverage %", _percent, "right"),
    Column("cloud_cover", "cloud %", _percent, "right"),
    Column("bands", show=lambda bands: str(len(bands)), justify="right"),
    Column("bytes", "size", bytes_text, "right"),
    Column("scene", long=True),
)


def write_tiles(tiles: Iterable[Tile], output_format: str) -> int:
    """Writes tiles to stdout as they come; how many there were."""
    if output_format == "geojson":
        return _write_geojson(tiles)
    if output_format == "parquet":
        return _write_parquet(tiles)
    return write_listing(
        (tile.to_json() for tile in tiles), output_format, fields=TILE_FIELDS, columns=COLUMNS
    )


def _ring(bbox: list[float]) -> list[list[float]]:
    """A cell's corners, counter-clockwise as RFC 7946 asks. No cell crosses the antimeridian."""
    west, south, east, north = bbox
    return [[west, south], [east, south], [east, north], [west, north], [west, south]]


def _write_geojson(tiles: Iterable[Tile]) -> int:
    """One FeatureCollection (RFC 7946), a feature a line."""
    sys.stdout.write('{"type": "FeatureCollection", "features": [')
    total = 0
    for tile in tiles:
        row = tile.to_json()
        bbox = row.pop("bbox")
        feature = {
            "type": "Feature",
            "bbox": bbox,
            "geometry": {"type": "Polygon", "coordinates": [_ring(bbox)]},
            "properties": row,
        }
        sys.stdout.write(("\n" if total == 0 else ",\n") + json_text(feature))
        total += 1
    sys.stdout.write("\n]}\n")
    return total


def _well_known_binary(bbox: list[float]) -> bytes:
    """The cell as an ISO WKB polygon, little-endian."""
    corners = [value for corner in _ring(bbox) for value in corner]
    return struct.pack("<BIII10d", 1, 3, 1, 5, *corners)


def _write_parquet(tiles: Iterable[Tile]) -> int:
    """GeoParquet 1.1 with the jsonl's columns and the cells' outlines, to stdout."""
    if sys.stdout.isatty():
        raise click.UsageError("parquet is binary: redirect it (geostore query … > tiles.parquet)")
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingDependencyError(
            "--format parquet needs pyarrow: pip install 'geostore[parquet]'"
        ) from None
    moment = pa.timestamp("us", tz="UTC")
    types = {
        "time": moment,
        "time_end": moment,
        "bands": pa.list_(pa.string()),
        "pixel_coverage": pa.float32(),
        "cloud_cover": pa.float32(),
        "bbox": pa.struct([(side, pa.float64()) for side in SIDES]),
        "bytes": pa.int64(),
        "nodes": pa.list_(pa.string()),
        "geometry": pa.binary(),
    }
    geo = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {
            "geometry": {
                "encoding": "WKB",
                "geometry_types": ["Polygon"],
                "covering": {"bbox": {side: ["bbox", side] for side in SIDES}},
            }
        },
    }
    schema = pa.schema(
        [(name, types.get(name, pa.string())) for name in (*TILE_FIELDS, "geometry")],
        metadata={"geo": json_text(geo)},
    )
    total = 0
    with pq.ParquetWriter(sys.stdout.buffer, schema) as writer:
        for rows in _row_groups(tiles):
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            total += len(rows)
    return total


def _row_groups(tiles: Iterable[Tile]) -> Iterator[list[dict[str, Any]]]:
    iterator = iter(tiles)
    while chunk := list(islice(iterator, PARQUET_ROWS_MAX)):
        rows = []
        for tile in chunk:
            row = tile.to_json()
            row.update(time=tile.time, time_end=tile.time_end)
            row["geometry"] = _well_known_binary(row["bbox"])
            row["bbox"] = dict(zip(SIDES, row["bbox"], strict=True))
            rows.append(row)
        yield rows
