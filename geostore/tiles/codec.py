"""Blocks of pixels to bytes and back: Blosc 1, which zarr-python and GDAL decode as well.

A Blosc buffer starts with 16 bytes: version, codec version, flags, item size, then three
little-endian uint32: decoded bytes, inner block bytes, encoded bytes (c-blosc,
README_CHUNK_FORMAT.rst). They are checked here before the C library sees the buffer, since
it trusts the encoded size and allocates by the inner block size.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Literal

import imagecodecs
import numpy as np
import numpy.typing as npt

from geostore.errors import CorruptDataError
from geostore.types import Codec

__all__ = [
    "CODEC_SETTINGS",
    "COORDINATE_SETTINGS",
    "BlockBytes",
    "CodecSettings",
    "decode_block",
    "encode_block",
    "settings_for",
]

BlockBytes = bytes | bytearray | memoryview

# Its stubs know neither arrays as input nor as `out`.
_imagecodecs: Any = imagecodecs

_HEADER = struct.Struct("<BBBBIII")
_BLOSC_VERSION = 2
_SHUFFLE_NUMBERS = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}


@dataclass(frozen=True, slots=True)
class CodecSettings:
    """What Blosc is told when it encodes. A Blosc buffer says itself how it is decoded."""

    compressor: Literal["lz4", "lz4hc", "zstd"]
    level: int
    """0 to 9, Blosc's scale."""
    shuffle: Literal["noshuffle", "shuffle", "bitshuffle"]
    block_bytes: int
    """Blosc's inner block: what one call of the compressor sees; 0 lets Blosc choose."""
    order: Literal["C", "F"]
    """How a block's pixels follow each other: "C" row by row, "F" column by column. A warp onto
    degrees takes many source columns twice; column by column the copy is one long match."""

    def to_zarr(self) -> dict[str, Any]:
        """The `compressor` entry of a Zarr version 2 array (`order` is an entry of its own)."""
        return {
            "id": "blosc",
            "cname": self.compressor,
            "clevel": self.level,
            "shuffle": _SHUFFLE_NUMBERS[self.shuffle],
            "blocksize": self.block_bytes,
        }


# By codec: for items of two bytes and more, and for one-byte items, where a byte shuffle does
# nothing and class codes and masks repeat. Chosen by tests/benchmarks/bench_tile_format.py
# (docs/decisions/0001). `order` is part of format version 1, since it says how decoded bytes
# are laid out; the rest may change, a Blosc buffer says itself how it is decoded.
CODEC_SETTINGS: dict[Codec, tuple[CodecSettings, CodecSettings]] = {
    "fast": (
        CodecSettings("lz4hc", 1, "shuffle", 128 << 10, "C"),
        CodecSettings("lz4hc", 3, "noshuffle", 128 << 10, "C"),
    ),
    "small": (
        CodecSettings("lz4hc", 5, "shuffle", 128 << 10, "F"),
        CodecSettings("zstd", 3, "noshuffle", 512 << 10, "C"),
    ),
}

# Evenly spaced float64: their low bits repeat, which only a bit shuffle shows the compressor.
COORDINATE_SETTINGS = CodecSettings("zstd", 3, "bitshuffle", 0, "C")


def settings_for(codec: Codec, itemsize: int) -> CodecSettings:
    """The settings for items of `itemsize` bytes."""
    wide, narrow = CODEC_SETTINGS[codec]
    return narrow if itemsize == 1 else wide


def encode_block(block: npt.NDArray[Any], settings: CodecSettings) -> bytes:
    """The Blosc buffer of a C-contiguous array; the same bytes for the same input.

    One thread (callers encode several tiles at once), and the interpreter's lock is released.
    """
    encoded: bytes = _imagecodecs.blosc_encode(
        block,
        level=settings.level,
        compressor=settings.compressor,
        shuffle=settings.shuffle,
        typesize=block.itemsize,
        blocksize=settings.block_bytes,
        numthreads=1,
    )
    return encoded


def decode_block(encoded: BlockBytes, out: npt.NDArray[Any], what: str) -> None:
    """Decodes a Blosc buffer into `out` (C-contiguous), which it must fill exactly.

    Nothing is allocated by sizes that the buffer declares beyond `out`'s own. The
    interpreter's lock is released.

    Raises:
        CorruptDataError: `what` names the block in the message.
    """
    size = len(encoded)
    if size < _HEADER.size:
        raise CorruptDataError(f"{what}: {size} bytes, too few for a Blosc block")
    version, _, _, itemsize, decoded_bytes, inner_bytes, encoded_bytes = _HEADER.unpack_from(
        encoded
    )
    if (
        version != _BLOSC_VERSION
        or encoded_bytes != size
        or decoded_bytes != out.nbytes
        or itemsize != out.itemsize
        or not 0 < inner_bytes <= max(decoded_bytes, 1)
    ):
        raise CorruptDataError(
            f"{what}: its Blosc header says version {version}, {itemsize}-byte items,"
            f" {encoded_bytes} bytes decoding to {decoded_bytes} in blocks of {inner_bytes};"
            f" expected version {_BLOSC_VERSION}, {out.itemsize}-byte items, {size} bytes"
            f" decoding to {out.nbytes}"
        )
    flat = out.reshape(-1).view(np.uint8)
    try:
        written = _imagecodecs.blosc_decode(encoded, numthreads=1, out=flat)
    except RuntimeError as error:  # imagecodecs' BloscError
        raise CorruptDataError(f"{what}: Blosc cannot decode it ({error})") from None
    if written.size != flat.size:
        raise CorruptDataError(f"{what}: decoded to {written.size} bytes, expected {flat.size}")
