"""How a tile's pixels are cut into blocks, and which value stands for "nothing here"."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInputError
from geostore.types import BandInfo, Codec, GroupLayout, ResolutionGroup, SchemeName, TileSchema

__all__ = [
    "BAND_PIXELS_MAX",
    "BLOCK_SIZE_MAX",
    "TILE_BYTES_MAX",
    "BandMask",
    "TilePixels",
    "block_shape",
    "block_windows",
    "fill_value",
    "make_schema",
    "nodata_value",
]

BLOCK_SIZE_MAX = 512
"""Most rows or columns of a block: 512 KiB of uint16, which one core's cache still holds."""

BAND_PIXELS_MAX = 1 << 28
"""Most pixels of one band of a tile (16384 x 16384): what a reader may be asked to hold."""

TILE_BYTES_MAX = 256 << 20
"""Largest tile file that is made: a node holds a tile whole while it stores it. Sentinel-2 at
geohash 5 has 4 MB, NAIP at geohash 6 has 8 MB; larger ones that exist are read all the same."""

_BLOCK_STEP = 32

BandMask = npt.NDArray[np.bool_] | bool
"""One band's validity, True where valid: an array (height, width), or one value for all."""


@dataclass(slots=True)
class TilePixels:
    """A tile's pixels before they are compressed. The arrays are read, never kept or changed."""

    data: Sequence[Sequence[npt.NDArray[Any]]]
    """For each group, for each of its bands in schema order: (height, width), the band's dtype."""
    masks: Sequence[Sequence[BandMask]]
    """The same nesting: True where valid. Bands may share one array."""


def _block_size(size: int) -> int:
    count = math.ceil(size / BLOCK_SIZE_MAX)
    even = math.ceil(size / count / _BLOCK_STEP) * _BLOCK_STEP
    return min(size, even)


def block_shape(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the blocks of an array of `height` x `width` pixels.

    The fewest blocks of at most 512 pixels a side, split as evenly as multiples of 32 allow
    (a last block of a few pixels would cost a read and a decode for nothing); never larger
    than the array.

    >>> block_shape(512, 1312), block_shape(100, 513)
    ((512, 448), (100, 288))

    Raises:
        InvalidInputError: a side below 1.
    """
    if height < 1 or width < 1:
        raise InvalidInputError(f"array of {height} x {width} pixels: expected at least 1 x 1")
    return _block_size(height), _block_size(width)


def block_windows(layout: GroupLayout) -> list[tuple[slice, slice]]:
    """The (rows, columns) of each block of a band, row-major, cut at the array's edge."""
    return [
        (
            slice(row, min(row + layout.block_height, layout.height)),
            slice(column, min(column + layout.block_width, layout.width)),
        )
        for row in range(0, layout.height, layout.block_height)
        for column in range(0, layout.width, layout.block_width)
    ]


def make_schema(
    scheme: SchemeName,
    length: int,
    codec: Codec,
    groups: Sequence[tuple[ResolutionGroup, Sequence[BandInfo]]],
) -> TileSchema:
    """The layout of tiles whose bands lie in these resolution groups.

    Groups without bands are left out: a tile stores no empty arrays.

    Raises:
        InvalidInputError: no band at all, two bands of one name, a dtype that is not numpy's
            own name for it (byte order is the format's business), or a cell too large.
    """
    layouts = []
    for group, bands in groups:
        if not bands:
            continue
        if group.height * group.width > BAND_PIXELS_MAX:
            raise InvalidInputError(
                f"cells of {group.height} x {group.width} pixels at {group.resolution_m:g} m:"
                f" expected at most {BAND_PIXELS_MAX} pixels; choose a longer --length or a"
                " coarser --resolution"
            )
        block_height, block_width = block_shape(group.height, group.width)
        layouts.append(
            GroupLayout(
                group.name,
                group.resolution_m,
                group.height,
                group.width,
                block_height,
                block_width,
                tuple(bands),
            )
        )
    names = [band.name for layout in layouts for band in layout.bands]
    if not names:
        raise InvalidInputError("a tile without bands: expected at least one")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInputError(f"bands {twice} appear twice: expected each band in one group")
    for layout in layouts:
        for band in layout.bands:
            if np.dtype(band.dtype).name != band.dtype:
                raise InvalidInputError(
                    f"band {band.name!r}: dtype {band.dtype!r}, expected"
                    f" {np.dtype(band.dtype).name!r}"
                )
    return TileSchema(scheme, length, codec, tuple(layouts))


def nodata_value(band: BandInfo) -> np.generic | None:
    """The band's nodata as a value of its dtype; None where it has none that dtype can hold.

    Providers do declare -9999 for uint8: no pixel can equal it, so it marks nothing.
    """
    dtype, nodata = np.dtype(band.dtype), band.nodata
    if nodata is None:
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):  # 1e300 is inf as float32, and told by that
            value: np.generic = dtype.type(nodata)
        return None if math.isfinite(nodata) and np.isinf(value) else value
    limits = np.iinfo(dtype)
    if not math.isfinite(nodata) or nodata != int(nodata):
        return None
    return dtype.type(int(nodata)) if limits.min <= nodata <= limits.max else None


def fill_value(band: BandInfo) -> np.generic:
    """`BandInfo.fill` as a value of the band's dtype; 0 where there is no `nodata_value`."""
    value = nodata_value(band)
    zero: np.generic = np.dtype(band.dtype).type(0)
    return zero if value is None else value
