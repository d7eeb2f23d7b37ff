"""What a raster file may ask of memory, judged by its header, before a pixel is decoded.

A few bytes changed in a header, by accident or on purpose, make a block of gigabytes, and
GDAL allocates a block whole before it reads its first byte. Nothing can stop a decoder that
runs in this process, so a file that would need such a block is not read at all.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from geostore.errors import UnreadableSourceError
from geostore.raster.codestream import code_blocks_of_tile

__all__ = ["BLOCK_BYTES_MAX", "CODE_BLOCKS_MAX", "is_pixel_interleaved", "refuse_absurd_blocks"]

BLOCK_BYTES_MAX = 1 << 28
"""Decoded, of all bands that share it: the whole of a 10980 x 10980 band of 16 bits in one
strip passes. Each thread that reads holds one, and GDAL's cache another."""
BLOCK_BYTES_FREE = 1 << 26
"""Below 64 MiB a block may be packed as well as it will: empty ones deflate a thousandfold."""
BLOCK_RATIO_MAX = 200
"""Decoded bytes of one larger block to bytes of the whole file, as for archives' members."""

BANDS_MAX = 4096
"""Hyperspectral images have some hundreds; a damaged header of TIFF up to 65535."""
CODE_BLOCKS_MAX = 1 << 21
"""Of a JPEG 2000 tile: 90000 x 90000 pixels of one band. Each takes OpenJPEG 300 bytes."""
CODE_BLOCKS_FREE = 1 << 18
"""More than these must at least have a byte each in the file."""

_SUBFILE = re.compile(r"^/vsisubfile/(\d+)_(\d+),(.*)$", re.DOTALL)


def is_pixel_interleaved(dataset: Any) -> bool:
    """Whether the bands of a file, open as `dataset`, are decoded together.

    JPEG 2000 decodes all components of a tile at once. GDAL is not asked: to answer it walks all
    boxes, and where a box of a damaged file says that it has no length, it walks for ever.
    """
    if dataset.count < 2:
        return False
    if dataset.driver == "JP2OpenJPEG":
        return True
    return bool(dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL")


def refuse_absurd_blocks(dataset: Any, path: str, name: str) -> None:
    """Refuses a file, open as `dataset`, whose blocks would fill memory.

    Raises:
        UnreadableSourceError: a block is over `BLOCK_BYTES_MAX`, or over `BLOCK_BYTES_FREE`
            and `BLOCK_RATIO_MAX` times the size of the file; a JPEG 2000 tile has as absurdly
            many code-blocks.
    """
    if dataset.count > BANDS_MAX:
        raise UnreadableSourceError(
            f"{name}: {dataset.count} bands; at most {BANDS_MAX} are accepted"
        )
    if dataset.driver == "JP2OpenJPEG":
        _refuse_absurd_tiles(path, name)
    interleaved = dataset.count if is_pixel_interleaved(dataset) else 1
    for (height, width), dtype in zip(dataset.block_shapes, dataset.dtypes, strict=True):
        itemsize = 16 if dtype.startswith("complex") else np.dtype(dtype).itemsize
        size = int(height) * int(width) * itemsize * interleaved
        if size <= BLOCK_BYTES_FREE:
            continue
        found = f"{name}: blocks of {height} x {width} pixels, {size} bytes each when decoded"
        if size > BLOCK_BYTES_MAX:
            raise UnreadableSourceError(
                f"{found}; at most {BLOCK_BYTES_MAX} are accepted (gdal_translate -co TILED=YES"
                " cuts a sound file into smaller ones)"
            )
        local = _local_part(path)
        file_bytes = None if local is None else local[2]
        if file_bytes is not None and size > BLOCK_RATIO_MAX * file_bytes:
            raise UnreadableSourceError(
                f"{found}, in a file of {file_bytes}: over {BLOCK_RATIO_MAX} times as many;"
                " this looks like a damaged header or a bomb"
            )


def _refuse_absurd_tiles(path: str, name: str) -> None:
    local = _local_part(path)
    if local is None:
        return
    place, start, size = local
    with Path(place).open("rb") as file:
        count = code_blocks_of_tile(file, start, size)
    if count is not None and count > min(CODE_BLOCKS_MAX, max(CODE_BLOCKS_FREE, size)):
        raise UnreadableSourceError(
            f"{name}: JPEG 2000 tiles of {count} code-blocks, in a file of {size} bytes; at most"
            f" {CODE_BLOCKS_MAX} are accepted, and no more than bytes: this looks like a damaged"
            " header or a bomb"
        )


def _local_part(path: str) -> tuple[str, int, int] | None:
    """(path, start, bytes) of a local file, or of a part of one; None for what lies elsewhere."""
    part = _SUBFILE.match(path)
    if part is not None:
        return part[3], int(part[1]), int(part[2])
    try:
        return path, 0, Path(path).stat().st_size
    except OSError:
        return None
