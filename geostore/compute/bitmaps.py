"""Masks at the size of 16 x 16 blocks: what is certain of a block, and what is possible."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.types import BITMAP_BYTES, BITMAP_SIDE, BlockBitmaps, block_edges

__all__ = ["bits_of_blocks", "block_bitmaps"]

_Mask = npt.NDArray[np.bool_]
_WORD = 8


def _reduced(mask: _Mask, function: np.ufunc) -> _Mask:
    """`function` over the pixels of each block: (16, 16); False where a block has no pixel."""
    rows, columns = (block_edges(side) for side in mask.shape)
    found = np.zeros((BITMAP_SIDE, BITMAP_SIDE), dtype=np.bool_)
    has_rows, has_columns = np.diff(rows) > 0, np.diff(columns) > 0
    # Rows first, eight pixels at once: what is left for the columns is 16 rows.
    bits: npt.NDArray[Any] = np.ascontiguousarray(mask).view(np.uint8)
    if mask.shape[1] % _WORD == 0:
        bits = bits.view(np.uint64)
    strips = function.reduceat(bits, rows[:-1][has_rows], axis=0).view(np.uint8)
    blocks = function.reduceat(strips, columns[:-1][has_columns], axis=1)
    found[np.ix_(has_rows, has_columns)] = blocks != 0
    return found


def bits_of_blocks(blocks: _Mask) -> bytes:
    """A (16, 16) mask of blocks as a bitmap (see `BlockBitmaps`)."""
    return np.packbits(blocks, axis=1, bitorder="little").tobytes()


def _bitmaps(mask: _Mask | bool, shape: tuple[int, int]) -> tuple[bytes, bytes]:
    """Bitmaps of the blocks whose every pixel is True, and of those with any."""
    if mask is False:
        return bytes(BITMAP_BYTES), bytes(BITMAP_BYTES)
    if mask is True:
        rows, columns = (np.diff(block_edges(side)) > 0 for side in shape)
        every = bits_of_blocks(rows[:, None] & columns[None, :])
        return every, every
    return (
        bits_of_blocks(_reduced(mask, np.bitwise_and)),
        bits_of_blocks(_reduced(mask, np.bitwise_or)),
    )


def block_bitmaps(
    valid: _Mask | bool,
    clear: _Mask | bool | None,
    shape: tuple[int, int],
    *,
    cloud_nodata: tuple[int, ...] = (),
) -> BlockBitmaps:
    """The bitmaps of a tile. O(pixels): 0.2 ms a mask of 512 x 512, as long as a quarter of one
    band's statistics.

    Args:
        valid: (height, width) of the finest grid, True where every data band is valid; or True or
            False for all.
        clear: where the provider's cloud layer is known to call no cloud, on a grid whose sides
            divide the finest one's; None where nothing tells clouds.
        shape: (height, width) of the finest grid.
        cloud_nodata: see `BlockBitmaps`.
    """
    valid_all, valid_any = _bitmaps(valid, shape)
    if clear is None:
        return BlockBitmaps(
            valid_all=valid_all, valid_any=valid_any, clear_all=None, clear_any=None
        )
    if clear is False or valid is False:
        both: _Mask | bool = False
    elif clear is True:
        both = valid
    elif valid is True and all(side % BITMAP_SIDE == 0 for side in clear.shape):
        both, shape = clear, clear.shape  # the same blocks, of fewer pixels
    else:
        both = clear
        if clear.shape != shape:
            down, right = shape[0] // clear.shape[0], shape[1] // clear.shape[1]
            both = clear.repeat(down, axis=0).repeat(right, axis=1)
        if valid is not True:
            both = both & valid
    clear_all, clear_any = _bitmaps(both, shape)
    return BlockBitmaps(
        valid_all=valid_all,
        valid_any=valid_any,
        clear_all=clear_all,
        clear_any=clear_any,
        cloud_nodata=cloud_nodata,
    )
