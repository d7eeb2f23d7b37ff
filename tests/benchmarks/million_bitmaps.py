"""Bitmaps for the made-up tiles of `million_tiles`, that say what their percentages do.

A tile of less than full coverage is cut by a swath's edge from north to south: the blocks west of
it are valid, or those east of it, by its scene. Its clouds are a belt from west to east. One in
fifty has no bitmaps, as tiles of before there were any; where no cloud cover is known none of
clear blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from geostore.types import BITMAP_SIDE, BlockBitmaps
from tests.benchmarks.million_tiles import Tiles

__all__ = ["CLEAR", "VALID", "TileBitmaps", "make_bitmaps"]

Words = npt.NDArray[np.uint64]

VALID, CLEAR = slice(0, 8), slice(8, 16)
"""Words of what is valid: four of wholly valid blocks, four of partly valid ones; and of clear."""
_ROWS = _COLUMNS = BITMAP_SIDE
_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class TileBitmaps:
    """One line a tile."""

    words: Words
    """(tiles, 16): four words each of valid_all, valid_any, clear_all and clear_any."""
    known: npt.NDArray[np.bool_]
    tells_clear: npt.NDArray[np.bool_]

    def of(self, number: int) -> BlockBitmaps | None:
        """As the catalog takes them in: those of a tile, by its id."""
        if not self.known[number]:
            return None
        packed = self.words[number].tobytes()
        return BlockBitmaps.from_bytes(packed if self.tells_clear[number] else packed[:64])

    @cached_property
    def bounds(self) -> tuple[Words, Words]:
        """(tiles, 8) words of what is valid, and of what is clear: four of blocks that are
        certain, four of those that are possible, where nothing is known nothing and all.
        """
        found = []
        for part in (VALID, CLEAR):
            words = self.words[:, part].copy()
            words[~self.known] = np.repeat(np.array([0, ~np.uint64(0)], np.uint64), 4)
            found.append(words)
        return found[0], found[1]


def make_bitmaps(tiles: Tiles, *, seed: int = 7) -> TileBitmaps:
    """The bitmaps of all tiles: 128 bytes each, a second or two for a million."""
    rng = np.random.default_rng([seed, len(tiles)])
    words = np.zeros((len(tiles), 16), dtype=np.uint64)
    first_row = rng.integers(0, _ROWS, len(tiles))
    known = rng.random(len(tiles)) >= 0.02
    tells_clear = known & ~np.isnan(tiles.cloud)
    for start in range(0, len(tiles), _AT_ONCE):
        chunk = slice(start, start + _AT_ONCE)
        planes = _planes(tiles, chunk, first_row[chunk])
        planes[~tells_clear[chunk], 2:] = 0
        planes[~known[chunk]] = 0
        words[chunk] = planes.reshape(len(planes), -1).view("<u8")
    return TileBitmaps(words, known, tells_clear)


def _planes(tiles: Tiles, chunk: slice, first_row: npt.NDArray[np.int64]) -> npt.NDArray[np.uint16]:
    """(n, 4, 16): of each plane a number a row of blocks."""
    part = tiles.coverage[chunk].astype(np.float64) * _COLUMNS / 100.0
    is_east = tiles.scene[chunk] % 2 == 1
    valid_all, valid_any = (
        _columns(columns.astype(np.int64), is_east) for columns in (np.floor(part), np.ceil(part))
    )
    belt = np.nan_to_num(tiles.cloud[chunk]).astype(np.float64) * _ROWS / 100.0
    row = (np.arange(_ROWS)[None, :] - first_row[:, None]) % _ROWS
    is_touched, is_covered = row < np.ceil(belt)[:, None], row < np.floor(belt)[:, None]
    planes = np.empty((len(part), 4, _ROWS), dtype="<u2")
    planes[:, 0], planes[:, 1] = valid_all[:, None], valid_any[:, None]
    planes[:, 2] = np.where(is_touched, 0, valid_all[:, None])
    planes[:, 3] = np.where(is_covered, 0, valid_any[:, None])
    return planes


def _columns(
    count: npt.NDArray[np.int64], is_east: npt.NDArray[np.bool_]
) -> npt.NDArray[np.uint16]:
    """A row of blocks of which the first ones from the west are set, or from the east."""
    west = (1 << count) - 1
    east = ((1 << _COLUMNS) - 1) & ~((1 << (_COLUMNS - count)) - 1)
    return np.where(is_east, east, west).astype(np.uint16)
