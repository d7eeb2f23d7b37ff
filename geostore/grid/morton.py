"""Interleaved bits: the order in which geocodes sort.

A geohash and a quadkey are both a cell's column and row with their bits interleaved
(Morton 1966, "A Computer Oriented Geodetic Data Base") and cut into digits, so that codes of
one length sort like these numbers. Everything here works on whole arrays.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["interleave", "spread", "squeeze", "uninterleave"]

# Each step halves the distance between neighbouring bits: (shift, which bits then count).
_STEPS = (
    (16, 0x0000FFFF0000FFFF),
    (8, 0x00FF00FF00FF00FF),
    (4, 0x0F0F0F0F0F0F0F0F),
    (2, 0x3333333333333333),
    (1, 0x5555555555555555),
)


def spread(values: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Numbers below 2**32 with a zero bit put before each of their bits.

    >>> spread(np.array([0b111])).tolist() == [0b10101]
    True
    """
    bits = values.astype(np.uint64)
    for shift, mask in _STEPS:
        bits = (bits | (bits << np.uint64(shift))) & np.uint64(mask)
    return bits


def squeeze(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Every second bit, from the lowest on, moved together: undoes `spread`."""
    bits = values & np.uint64(_STEPS[-1][1])
    for (shift, _), (_, mask) in zip(
        reversed(_STEPS), [*reversed(_STEPS[:-1]), (0, 0x00000000FFFFFFFF)], strict=True
    ):
        bits = (bits | (bits >> np.uint64(shift))) & np.uint64(mask)
    return bits.astype(np.int64)


def interleave(low: npt.NDArray[np.int64], high: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """The bits of both, `low` giving the lowest one.

    >>> interleave(np.array([0b00]), np.array([0b11])).tolist() == [0b1010]
    True
    """
    mixed: npt.NDArray[np.uint64] = spread(low) | (spread(high) << np.uint64(1))
    return mixed


def uninterleave(
    values: npt.NDArray[np.uint64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """`(low, high)` of `interleave`."""
    return squeeze(values), squeeze(values >> np.uint64(1))
