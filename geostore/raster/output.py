"""Files for others: cloud-optimized GeoTIFF and PNG, written whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from rasterio.errors import RasterioError
from rasterio.windows import Window

from geostore.errors import InvalidInputError, StorageFullError

__all__ = [
    "OutputBand",
    "RasterBlock",
    "RasterProfile",
    "encode_png",
    "replacing",
    "write_cog",
    "write_png",
]

_BLOCK_SIZE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputBand:
    """What a file says of one band."""

    name: str
    scale: float = 1.0
    offset: float = 0.0
    unit: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterProfile:
    """A raster to be written."""

    height: int
    width: int
    dtype: np.dtype[Any]
    crs: str
    transform: tuple[float, float, float, float, float, float]
    """a, b, c, d, e, f of pixel (column, row) to x, y."""
    bands: tuple[OutputBand, ...]
    nodata: float | int | None = None
    """None: validity is written as the file's own mask, one for all bands (valid in any)."""
    tags: Mapping[str, str] = field(default_factory=dict)
    overviews: str = "nearest"
    """How smaller pictures are made: `nearest` or `average`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterBlock:
    """A rectangle of a raster."""

    row: int
    column: int
    data: npt.NDArray[Any]
    """(bands, height, width)."""
    mask: npt.NDArray[np.bool_]
    """The same shape; True where valid."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place when the block ends well.

    Raises:
        StorageFullError: the disk is full.
        InvalidInputError: the place cannot be written to.
    """
    partial = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFullError(f"{path}: the disk is full; nothing was written") from error
        raise InvalidInputError(f"{path}: cannot be written: {error.strerror or error}") from error
    except RasterioError as error:
        raise InvalidInputError(f"{path}: cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def write_cog(path: Path, profile: RasterProfile, blocks: Iterable[RasterBlock]) -> None:
    """Writes a cloud-optimized GeoTIFF: DEFLATE, 512-pixel blocks, overviews.

    The pixels first go into a plain tiled GeoTIFF beside it, block by block as they come,
    since overviews need all of them; memory does not grow with the raster. What no block
    covers is nodata.

    Raises:
        StorageFullError, InvalidInputError: it could not be written; nothing is left behind.
    """
    with replacing(path) as partial:
        stage = partial.with_suffix(".stage.tif")
        try:
            # One mask in the file itself: a .msk file beside it would get lost.
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True, GDAL_NUM_THREADS="ALL_CPUS"):
                _write_stage(stage, profile, blocks)
                rasterio.shutil.copy(
                    stage,
                    partial,
                    driver="COG",
                    compress="DEFLATE",
                    predictor="YES",
                    blocksize=_BLOCK_SIZE,
                    overview_resampling=profile.overviews.upper(),
                    bigtiff="IF_SAFER",
                )
        finally:
            stage.unlink(missing_ok=True)


def _write_stage(path: Path, profile: RasterProfile, blocks: Iterable[RasterBlock]) -> None:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=profile.height,
        width=profile.width,
        count=len(profile.bands),
        dtype=profile.dtype,
        crs=profile.crs,
        transform=rasterio.Affine(*profile.transform),
        nodata=profile.nodata,
        tiled=True,
        blockxsize=_BLOCK_SIZE,
        blockysize=_BLOCK_SIZE,
        compress="ZSTD",
        zstd_level=1,
        sparse_ok=True,
        bigtiff="IF_SAFER",
    ) as target:
        target.update_tags(**profile.tags)
        target.descriptions = tuple(band.name for band in profile.bands)
        target.scales = tuple(band.scale for band in profile.bands)
        target.offsets = tuple(band.offset for band in profile.bands)
        target.units = tuple(band.unit or "" for band in profile.bands)
        for block in blocks:
            height, width = block.data.shape[1:]
            window = Window(block.column, block.row, width, height)
            target.write(block.data, window=window)
            if profile.nodata is None:
                target.write_mask(block.mask.any(axis=0), window=window)


def write_png(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    """Writes (height, width, 3 or 4) uint8, red-green-blue(-alpha), as PNG.

    Raises:
        StorageFullError, InvalidInputError: it could not be written; nothing is left behind.
    """
    encoded = encode_png(picture)
    with replacing(path) as partial:
        partial.write_bytes(encoded)


def encode_png(picture: npt.NDArray[np.uint8]) -> bytes:
    """A PNG file's bytes (ISO/IEC 15948): 8-bit RGB or RGBA, every row filtered by `Up`.

    Written here, not through GDAL, whose PNG driver takes a second file for metadata and
    warns of a picture without a place.
    """
    height, width, samples = picture.shape
    colour_type = {3: 2, 4: 6}[samples]
    rows = np.ascontiguousarray(picture).reshape(height, width * samples)
    filtered = np.empty((height, width * samples + 1), np.uint8)
    filtered[:, 0] = 2
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(filtered.tobytes(), 6))
        + chunk(b"IEND", b"")
    )
