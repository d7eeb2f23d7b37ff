"""Pixel coverage: how much of a cell a scene really saw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["percent_valid", "pixel_coverage", "valid_pixels"]

_Mask = npt.NDArray[np.bool_]


def _all_valid(masks: Iterable[_Mask | bool]) -> _Mask | bool:
    """Where every mask is True."""
    together: _Mask | bool = True
    for mask in masks:
        if mask is False:
            return False
        if mask is True:
            continue
        together = mask if together is True else together & mask
    return together


def valid_pixels(groups: Iterable[Sequence[_Mask | bool]], finest: tuple[int, int]) -> _Mask | bool:
    """Where the finest grid's pixels are valid in every band; True or False where all are alike.

    Args:
        groups: for each resolution group its data bands' masks, (height, width) boolean or
            True or False for uniform ones; heights and widths divide the finest ones.
        finest: (height, width) of the dataset's finest group.
    """
    height, width = finest
    together: _Mask | bool = True
    for masks in groups:
        valid = _all_valid(masks)
        if valid is False:
            return False
        if valid is True:
            continue
        if valid.shape != finest:
            valid = valid.repeat(height // valid.shape[0], axis=0).repeat(
                width // valid.shape[1], axis=1
            )
        together = valid if together is True else together & valid
    return together


def percent_valid(valid: _Mask | bool) -> float:
    """Percent of pixels that are valid: 0..100, rounded to float32 (what the catalog keeps)."""
    if isinstance(valid, bool):
        return 100.0 if valid else 0.0
    return float(np.float32(100.0 * np.count_nonzero(valid) / valid.size))


def pixel_coverage(groups: Sequence[Sequence[_Mask | bool]], finest: tuple[int, int]) -> float:
    """Percent of the finest grid's pixels that are valid in every band; see `valid_pixels`."""
    return percent_valid(valid_pixels(groups, finest))
