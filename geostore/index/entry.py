"""What the catalog takes in and gives out for one tile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInputError
from geostore.types import BLOCK_DTYPE, EncodedTile, TileDetails, TileKey, TileMeta

__all__ = ["CatalogEntry", "DatasetSummary", "Record", "StagedTile", "TileDetails", "entry_from"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """A tile as the catalog learns of it: all facts of its file, none of its pixels.

    Raises:
        InvalidInputError: the block table is not a 1-D array of BLOCK_DTYPE of the schema's
            size, or there is not one entry of statistics a band.
    """

    meta: TileMeta
    checksum: str
    """XXH3-128 of the tile file, hex."""
    bytes: int
    """Size of the tile file."""
    blocks: npt.NDArray[np.void]
    """The block table (BLOCK_DTYPE)."""

    def __post_init__(self) -> None:
        schema = self.meta.schema
        expected = 2 * schema.data_blocks_total
        if self.blocks.dtype != BLOCK_DTYPE or self.blocks.shape != (expected,):
            raise InvalidInputError(
                f"tile {self.meta.key}: block table of {self.blocks.shape} {self.blocks.dtype},"
                f" expected {expected} entries of BLOCK_DTYPE"
            )
        if len(self.meta.statistics) != len(schema.bands):
            raise InvalidInputError(
                f"tile {self.meta.key}: statistics of {len(self.meta.statistics)} bands,"
                f" expected {len(schema.bands)}"
            )


def entry_from(tile: EncodedTile) -> CatalogEntry:
    """The catalog's entry of a tile that was just encoded."""
    return CatalogEntry(
        meta=tile.meta, checksum=tile.checksum, bytes=len(tile.payload), blocks=tile.blocks
    )


@dataclass(frozen=True, slots=True)
class StagedTile:
    """A tile that is durable but not seen by any query."""

    key: TileKey
    checksum: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Record:
    """A small named value; each change raises its revision by one."""

    value: bytes
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSummary:
    """Published tiles of one dataset."""

    dataset_id: str
    dataset: str
    tiles: int
    bytes: int
