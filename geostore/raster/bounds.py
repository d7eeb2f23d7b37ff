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

__all__ = ["BLOCK_BYTES_MAX", "refuse_absurd_blocks"]

BLOCK_BYTES_MAX = 1 << 28
"""Decoded, of all bands that share it: the whole of a 10980 x 10980 band of 16 bits in one
strip passes. Each thread that reads holds one, and GDAL's cache another."""
BLOCK_BYTES_FREE = 1 << 26
"""Below 64 MiB a block may be packed as well as it will: empty ones deflate a thousandfold."""
BLOCK_RATIO_MAX = 200
"""Decoded bytes of one larger block to bytes of the whole file, as for archives' members."""

_SUBFILE = re.compile(r"^/vsisubfile/\d+_(\d+),")


def refuse_absurd_blocks(dataset: Any, path: str, name: str) -> None:
    """Refuses a file, open as `dataset`, whose blocks would fill memory.

    Raises:
        UnreadableSourceError: a block is over `BLOCK_BYTES_MAX`, or over `BLOCK_BYTES_FREE`
            and `BLOCK_RATIO_MAX` times the size of the file.
    """
    interleaved = dataset.count if dataset.profile.get("interleave") == "pixel" else 1
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
        file_bytes = _file_bytes(path)
        if file_bytes is not None and size > BLOCK_RATIO_MAX * file_bytes:
            raise UnreadableSourceError(
                f"{found}, in a file of {file_bytes}: over {BLOCK_RATIO_MAX} times as many;"
                " this looks like a damaged header or a bomb"
            )


def _file_bytes(path: str) -> int | None:
    """Of a local file, or of a part of one; None for what lies elsewhere."""
    part = _SUBFILE.match(path)
    if part is not None:
        return int(part[1])
    try:
        return Path(path).stat().st_size
    except OSError:
        return None
