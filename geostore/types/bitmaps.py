"""What a tile saw, block by block: 16 x 16 bits that stand for its finest grid.

Pixel coverage says how much of a cell a tile saw, not where, so it cannot tell what two tiles see
together. The bitmaps can, up to the blocks that are seen in part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInputError

__all__ = ["BITMAP_BYTES", "BITMAP_SIDE", "BlockBitmaps", "block_edges"]

BITMAP_SIDE = 16
"""Blocks along each side of a cell."""
BITMAP_BYTES = BITMAP_SIDE * BITMAP_SIDE // 8

_VALID = ("valid_all", "valid_any")
_CLEAR = ("clear_all", "clear_any")


def block_edges(side: int) -> npt.NDArray[np.int64]:
    """Where the 16 blocks of a side of so many pixels begin, and where the last one ends.

    Edge i lies at i * side / 16, rounded to the nearest pixel, halves up. Blocks of a side that 16
    does not divide differ by one pixel; some of a side below 16 have none, and count nothing.

    >>> block_edges(32)[:4].tolist(), block_edges(20)[:6].tolist()
    ([0, 2, 4, 6], [0, 1, 3, 4, 5, 6])
    """
    edges: npt.NDArray[np.int64] = np.arange(BITMAP_SIDE + 1, dtype=np.int64) * side
    return (edges + BITMAP_SIDE // 2) // BITMAP_SIDE


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockBitmaps:
    """Four bitmaps of a tile's finest grid, each BITMAP_BYTES long.

    A bitmap is 16 little-endian numbers of 16 bits: one a row of blocks from the top; its bit j is
    the block in column j from the left. A block without pixels is set in none.

    Raises:
        InvalidInputError: bitmaps of another length, or one of the clear ones alone.
    """

    valid_all: bytes
    """Blocks whose every pixel is valid in every data band, as pixel coverage has it."""
    valid_any: bytes
    """Blocks with some such pixel."""
    clear_all: bytes | None
    """Blocks whose every pixel is valid, and known by the provider's cloud layer to be no cloud.
    None where nothing in the tile tells clouds."""
    clear_any: bytes | None
    """Blocks with some such pixel."""
    cloud_nodata: tuple[int, ...] = ()
    """Values of the provider's cloud layer that say nothing of clouds, beside its band's nodata."""

    def __post_init__(self) -> None:
        for name in _VALID + _CLEAR:
            bits = getattr(self, name)
            if bits is None and name in _CLEAR:
                continue
            if not isinstance(bits, bytes) or len(bits) != BITMAP_BYTES:
                raise InvalidInputError(f"bitmap {name}: expected {BITMAP_BYTES} bytes")
        if (self.clear_all is None) != (self.clear_any is None):
            raise InvalidInputError(
                "bitmaps clear_all and clear_any: one is given without the other"
            )
        if not all(type(code) is int and abs(code) < 1 << 63 for code in self.cloud_nodata):
            raise InvalidInputError(f"cloud nodata {self.cloud_nodata}: expected whole numbers")

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict, bitmaps as hex digits; `from_json` is its inverse."""
        value: dict[str, Any] = {
            name: bits.hex()
            for name in _VALID + _CLEAR
            if (bits := getattr(self, name)) is not None
        }
        if self.cloud_nodata:
            value["cloud_nodata"] = list(self.cloud_nodata)
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """
        Raises:
            KeyError, TypeError, ValueError: not what `to_json` wrote.
        """
        clear = {name: bytes.fromhex(value[name]) if name in value else None for name in _CLEAR}
        return cls(
            valid_all=bytes.fromhex(value["valid_all"]),
            valid_any=bytes.fromhex(value["valid_any"]),
            clear_all=clear["clear_all"],
            clear_any=clear["clear_any"],
            cloud_nodata=tuple(value.get("cloud_nodata", ())),
        )

    def to_bytes(self) -> bytes:
        """The bitmaps one after the other, those of clear blocks only where there are any."""
        return b"".join(getattr(self, name) or b"" for name in _VALID + _CLEAR)

    @classmethod
    def from_bytes(cls, packed: bytes, cloud_nodata: tuple[int, ...] = ()) -> Self:
        """What `to_bytes` wrote. Raises InvalidInputError: another length."""
        parts = [packed[at : at + BITMAP_BYTES] for at in range(0, len(packed), BITMAP_BYTES)]
        if len(packed) not in (2 * BITMAP_BYTES, 4 * BITMAP_BYTES):
            raise InvalidInputError(
                f"bitmaps of {len(packed)} bytes: expected {2 * BITMAP_BYTES} or {4 * BITMAP_BYTES}"
            )
        valid_all, valid_any, clear_all, clear_any = [*parts, None, None][:4]
        assert valid_all is not None
        assert valid_any is not None
        return cls(
            valid_all=valid_all,
            valid_any=valid_any,
            clear_all=clear_all,
            clear_any=clear_any,
            cloud_nodata=cloud_nodata,
        )
