"""The Zarr version 2 side of a tile file: names and the small JSON files.

    .zgroup .zattrs             the tile: `geostore` holds format, version and TileMeta
    blocks                      the block table, uint64 (blocks, 3): BLOCK_DTYPE's 24 bytes
    r10m/x  r10m/y              pixel centres in the lattice's CRS
    r10m/B04                    a band; attribute `valid`: "all", "none" or a mask's name
    r10m/masks/B04              a mask that is neither, True where valid

The TileMeta's `bitmaps` say which of 16 x 16 blocks of the cell are valid and clear, whole and in
part (`geostore.types.BlockBitmaps`); files from before there were any have none.

`_ARRAY_DIMENSIONS` is xarray's convention, `_CRS` is GDAL's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from geostore.tiles.archive import Member
from geostore.tiles.codec import CodecSettings
from geostore.tiles.layout import nodata_value
from geostore.tiles.metadata import dump_json
from geostore.types import BandInfo, GroupLayout

__all__ = [
    "BLOCK_TABLE",
    "array_members",
    "array_names",
    "band_attributes",
    "group_members",
    "zarr_fill_value",
]

BLOCK_TABLE = "blocks"
_PLAIN_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
_TAKEN = frozenset({"x", "y", "masks", "spatial_ref"})


def array_names(bands: Sequence[BandInfo]) -> list[str]:
    """The bands' array names within their group.

    A band keeps its own name where that is a plain one (`B04`); any other (with `/`, blanks,
    ten thousand letters) becomes `band-<number from 1>`, and its attributes tell its name.
    """
    taken = set(_TAKEN)
    plain = [band.name for band in bands if _PLAIN_NAME.match(band.name)]
    reserved = set(plain)
    names = []
    for number, band in enumerate(bands, start=1):
        name = band.name
        if name in taken or name not in reserved:
            name = f"band-{number}"
            while name in taken or name in reserved:
                name += "-"
        taken.add(name)
        names.append(name)
    return names


def zarr_fill_value(band: BandInfo) -> int | float | str | None:
    """What a Zarr reader should take for blocks that are not stored, as Zarr JSON.

    None where the band has no nodata value (or one its dtype cannot hold): readers such as
    xarray mask the fill value, and a 0 that was measured must stay a 0. Blocks of such bands
    are therefore always written, even if the block table does not need them.
    """
    nodata = nodata_value(band)
    if nodata is None:
        return None
    value: int | float = nodata.item()
    if isinstance(value, int) or math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def group_members(path: str, attributes: dict[str, Any]) -> list[Member]:
    """The two JSON files of a group; `path` is "" for the root."""
    prefix = f"{path}/" if path else ""
    return [
        Member(f"{prefix}.zgroup", dump_json({"zarr_format": 2})),
        Member(f"{prefix}.zattrs", dump_json(attributes)),
    ]


def array_members(
    path: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    compressor: CodecSettings | None,
    fill: int | float | str | None,
    attributes: dict[str, Any],
) -> list[Member]:
    """The two JSON files of an array (`attributes` include its dimensions)."""
    header = {
        "zarr_format": 2,
        "shape": shape,
        "chunks": chunks,
        "dtype": dtype.str,
        "compressor": compressor.to_zarr() if compressor else None,
        "fill_value": fill,
        "filters": None,
        "order": compressor.order if compressor else "C",
    }
    return [
        Member(f"{path}/.zarray", dump_json(header)),
        Member(f"{path}/.zattrs", dump_json(attributes)),
    ]


def band_attributes(
    band: BandInfo, layout: GroupLayout, crs: str, valid: str | None
) -> dict[str, Any]:
    """What a stock reader is told of a band (or, with `valid` None, of a mask).

    Scale and offset have names of their own: CF's `scale_factor` would make readers turn
    stored numbers into others unasked.
    """
    authority, code = crs.split(":")
    attributes: dict[str, Any] = {
        "_ARRAY_DIMENSIONS": ["y", "x"],
        "_CRS": {"url": f"http://www.opengis.net/def/crs/{authority}/0/{code}"},
        "band": band.name,
    }
    if valid is None:
        return attributes
    attributes |= {"role": str(band.role), "resolution_m": layout.resolution_m, "valid": valid}
    if band.common_name:
        attributes["common_name"] = band.common_name
    if band.description:
        attributes["long_name"] = band.description
    if (band.scale, band.offset) != (1.0, 0.0):
        attributes |= {"scale": repr(band.scale), "offset": repr(band.offset)}
    if band.unit:
        attributes["unit"] = band.unit
    return attributes
