"""Tiles by the hundred thousand, packed in arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInputError
from geostore.index.effects import Scene, Schema
from geostore.index.packing import ROW_DTYPE

__all__ = ["PackedTiles"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedTiles:
    """Tiles as the log has them.

    Raises:
        InvalidInputError: arrays that do not fit each other.
    """

    schemas: Sequence[Schema]
    """Those that scenes name and that may be new."""
    scenes: Sequence[Scene]
    """Entries of scene versions, each once, whose properties are JSON."""
    scene: npt.NDArray[np.int64]
    """(n,) places in `scenes`, one a tile."""
    rows: npt.NDArray[np.void]
    """(n,) of `packing.ROW_DTYPE`, whose group is the digest of the scene's entry."""
    lengths: npt.NDArray[np.uint32]
    """(n,) bytes of each tile's details."""
    details: bytes | memoryview
    """All details (`packing.pack_details`), one behind another."""

    def __post_init__(self) -> None:
        count = len(self.rows)
        total = int(self.lengths.sum(dtype=np.int64))
        if (
            self.rows.dtype != ROW_DTYPE
            or not len(self.lengths) == len(self.scene) == count
            or total != len(self.details)
        ):
            raise InvalidInputError(
                f"packed tiles: {count} rows, {len(self.scene)} scenes, {len(self.lengths)}"
                f" lengths of {total} bytes in all, {len(self.details)} bytes of details:"
                " expected as many rows, scenes and lengths, and as many bytes"
            )
