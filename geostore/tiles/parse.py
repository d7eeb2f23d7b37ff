"""A tile file's bytes made a tile again: what opening a file and receiving one have in common."""

from __future__ import annotations

import json
from typing import get_args

import numpy as np
import numpy.typing as npt
import xxhash

from geostore.errors import CorruptDataError, GeostoreError, InvalidInputError, StoreFormatError
from geostore.tiles.codec import CODEC_SETTINGS
from geostore.tiles.layout import BAND_PIXELS_MAX, BLOCK_SIZE_MAX
from geostore.tiles.metadata import meta_from_json
from geostore.tiles.trailer import FORMAT_NAME, TRAILER_BYTES, Trailer
from geostore.types import BLOCK_DTYPE, EncodedTile, SchemeName, TileKey, TileMeta

__all__ = ["HEAD_BYTES_MAX", "check_head_span", "parse_head", "parse_tile"]

HEAD_BYTES_MAX = 256 << 20
"""More is no tile file: a cell of 65,000 blocks has a head of some 10 MB."""
_TAIL_BYTES = 1024
# What reading JSON of another shape, and the types' own checks, may raise.
_NOT_METADATA = (
    AttributeError,
    GeostoreError,
    KeyError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)


def parse_tile(
    payload: bytes, *, key: TileKey | None = None, checksum: str | None = None
) -> EncodedTile:
    """The tile whose file is `payload`, every byte of it checked.

    `key` and `checksum` are what the sender calls it. The payload is kept, not copied.

    Raises:
        InvalidInputError: damaged, cut, no tile file, or not the tile that the sender says.
    """
    source = "tile" if key is None else f"tile {key.geocode} of scene {key.scene!r}"
    try:
        trailer = Trailer.parse(payload[-_TAIL_BYTES:], source)
        check_head_span(len(payload), trailer, source)
        meta, blocks = parse_head(payload[: trailer.head_bytes], len(payload), trailer, source)
    except (CorruptDataError, StoreFormatError) as error:
        raise InvalidInputError(f"{error} ({len(payload)} bytes received)") from None
    view = memoryview(payload)
    running = xxhash.xxh3_128(view[:-TRAILER_BYTES])
    if running.intdigest() != trailer.body_checksum:
        raise InvalidInputError(f"{source}: its bytes fail their XXH3-128 checksum")
    running.update(view[-TRAILER_BYTES:])
    found = running.hexdigest()
    if checksum is not None and found != checksum:
        raise InvalidInputError(f"{source}: its checksum is {found}, the sender said {checksum}")
    if key is not None and meta.key != key:
        raise InvalidInputError(f"{source}: its file says that it is {meta.key}")
    return EncodedTile(meta=meta, payload=payload, checksum=found, blocks=blocks)


def check_head_span(size: int, trailer: Trailer, source: str) -> None:
    """Raises CorruptDataError: a file of that size cannot have the head that it declares."""
    if trailer.head_bytes > min(size, HEAD_BYTES_MAX) or max(
        trailer.meta.stop, trailer.table.stop
    ) > (trailer.head_bytes):
        raise CorruptDataError(
            f"{source}: its trailer places {trailer.head_bytes} bytes of metadata in a file of"
            f" {size} bytes"
        )


def parse_head(
    head: bytes, size: int, trailer: Trailer, source: str
) -> tuple[TileMeta, npt.NDArray[np.void]]:
    """Metadata and block table from a file's first bytes, checked against each other and the
    file's size.

    The checksums only show that nobody changed the file by accident: a hostile one gets
    through them and must be stopped here, before sizes it declares are believed.

    Raises:
        CorruptDataError: damaged, or no tile's.
    """
    if xxhash.xxh3_64_intdigest(head) != trailer.head_checksum:
        raise CorruptDataError(f"{source}: its metadata fails its XXH3-64 checksum")
    try:
        root = json.loads(head[trailer.meta.offset : trailer.meta.stop])[FORMAT_NAME]
        meta = meta_from_json(root["meta"])
        expected = _count_blocks(meta)
    except _NOT_METADATA as error:
        raise CorruptDataError(
            f"{source}: its metadata is not a tile's: {type(error).__name__} {error}"
        ) from None
    if 2 * expected * BLOCK_DTYPE.itemsize != trailer.table.length:
        raise CorruptDataError(
            f"{source}: a block table of {trailer.table.length} bytes, expected"
            f" {2 * expected * BLOCK_DTYPE.itemsize}"
        )
    blocks = np.frombuffer(head, BLOCK_DTYPE, 2 * expected, trailer.table.offset)
    stored = blocks[blocks["length"] > 0]
    end = size - TRAILER_BYTES
    starts, lengths = stored["offset"], stored["length"].astype(np.uint64)
    if (
        (starts < trailer.head_bytes).any()
        or (starts > end).any()
        or (lengths > np.uint64(end) - starts).any()
    ):
        raise CorruptDataError(f"{source}: its block table points outside the file's blocks")
    return meta, blocks


def _count_blocks(meta: TileMeta) -> int:
    """Data blocks of the schema.

    Raises:
        ValueError: metadata that no tile has.
    """
    schema, key = meta.schema, meta.key
    texts: list[object] = [key.dataset_id, key.scene, key.version, key.geocode, meta.dataset]
    texts += [group.name for group in schema.groups]
    texts += [band.name for band in schema.bands]
    mappings = (meta.definition, meta.properties)
    if not (
        all(isinstance(text, str) for text in texts)
        and all(isinstance(mapping, dict) for mapping in mappings)
        and schema.codec in CODEC_SETTINGS
        and schema.scheme in get_args(SchemeName)
        and len(meta.statistics) == len(schema.bands)
    ):
        raise ValueError("names, codec or statistics that no tile has")
    for group in schema.groups:
        numbers = (group.height, group.width, group.block_height, group.block_width)
        if not all(type(number) is int for number in numbers):
            raise ValueError(f"group {group.name!r} of {numbers} pixels")
        if any(np.dtype(band.dtype).name != band.dtype for band in group.bands):
            raise ValueError(f"group {group.name!r}: a dtype by another name than numpy's")
        if not (
            0 < group.block_height <= min(group.height, BLOCK_SIZE_MAX)
            and 0 < group.block_width <= min(group.width, BLOCK_SIZE_MAX)
            and group.height * group.width <= BAND_PIXELS_MAX
        ):
            raise ValueError(f"group {group.name!r} of {numbers} pixels")
    return schema.data_blocks_total
