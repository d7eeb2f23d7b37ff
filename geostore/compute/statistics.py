"""Per-band numbers over valid pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.types import BandStatistics

__all__ = ["band_statistics"]

_NONE = BandStatistics(minimum=None, maximum=None, mean=None, p01=None, p99=None)


def _nearest_rank(count: int, percent: int) -> int:
    """0-based rank of a percentile by the nearest-rank definition: ceil(P/100 * n) - 1."""
    return max(0, -(-percent * count // 100) - 1)


def _of_small_integers(values: npt.NDArray[Any]) -> BandStatistics:
    """From the histogram: one pass instead of a sort, for integers of at most 16 bits."""
    lowest = int(values.min())
    shifted = values if lowest >= 0 else values.astype(np.int32) - lowest
    base = min(0, lowest)
    histogram = np.bincount(shifted)
    present = np.flatnonzero(histogram)
    counts = histogram[present]
    total = int(counts.sum())
    upto = np.cumsum(counts)
    ranked = present[
        np.searchsorted(upto, [_nearest_rank(total, p) for p in (1, 99)], side="right")
    ]
    return BandStatistics(
        minimum=float(present[0] + base),
        maximum=float(present[-1] + base),
        mean=float(np.dot(present, counts)) / total + base,
        p01=float(ranked[0] + base),
        p99=float(ranked[1] + base),
    )


def band_statistics(
    data: npt.NDArray[np.generic], mask: npt.NDArray[np.bool_] | bool
) -> BandStatistics:
    """Minimum, maximum, mean, 1st and 99th percentile over valid pixels.

    Percentiles are exact order statistics by the nearest-rank definition, so they are values
    that occur. The mean is summed in float64. O(n) for integers of at most 16 bits, else
    O(n) by selection.

    Args:
        data: (height, width), any real dtype.
        mask: same shape, True where valid; or True or False for all.
    """
    if mask is False:
        return _NONE
    values = data.reshape(-1) if mask is True else data[mask]
    if not values.size:
        return _NONE
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 2:
        return _of_small_integers(values)
    low, high = (_nearest_rank(values.size, percent) for percent in (1, 99))
    ordered = np.partition(values, sorted({0, low, high, values.size - 1}))
    return BandStatistics(
        minimum=float(ordered[0]),
        maximum=float(ordered[-1]),
        mean=float(values.mean(dtype=np.float64)),
        p01=float(ordered[low]),
        p99=float(ordered[high]),
    )
