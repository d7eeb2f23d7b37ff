"""What is called cloud, and how much of it there is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geostore.types import CloudLayer

__all__ = ["cloud_cover", "cloud_mask", "likelihood_histogram"]

_Mask = npt.NDArray[np.bool_]


def cloud_mask(layer: npt.NDArray[np.integer], rule: CloudLayer) -> _Mask:
    """Where a cloud layer says cloud, (height, width).

    Args:
        layer: class codes, bit fields, or likelihood in percent, as `rule` says.
    """
    cloud: _Mask
    if rule.kind == "classes":
        cloud = np.isin(layer, list(rule.values))
    elif rule.kind == "likelihood":
        cloud = np.greater_equal(layer, min(rule.values))
    else:
        cloud = np.zeros(layer.shape, dtype=bool)
        unsigned = layer.view(np.dtype(f"u{layer.dtype.itemsize}"))
        for test in rule.tests:
            if test.high >= 8 * layer.dtype.itemsize:
                continue  # bits that this band does not have are not set
            ones = unsigned.dtype.type((1 << (test.high - test.low + 1)) - 1)
            cloud |= np.isin((unsigned >> unsigned.dtype.type(test.low)) & ones, list(test.values))
    return cloud


def cloud_cover(cloud: _Mask, valid: _Mask | bool) -> float | None:
    """Percent of the cloud layer's own valid pixels that are cloud.

    Returns:
        0..100, rounded to float32; None where no pixel is valid.
    """
    if valid is False:
        return None
    if valid is True:
        total, cloudy = cloud.size, int(np.count_nonzero(cloud))
    else:
        total, cloudy = int(np.count_nonzero(valid)), int(np.count_nonzero(cloud & valid))
    return float(np.float32(100.0 * cloudy / total)) if total else None


def likelihood_histogram(
    likelihood: npt.NDArray[np.uint8], valid: _Mask | bool
) -> tuple[int, ...] | None:
    """How many valid pixels have each cloud likelihood 0..100 percent: 101 counts.

    Values above 100 (which no product defines) count as 100. None where no pixel is valid.
    """
    if valid is False:
        return None
    values = likelihood.reshape(-1) if valid is True else likelihood[valid]
    if not values.size:
        return None
    counts = np.bincount(np.minimum(values, 100), minlength=101)
    return tuple(int(count) for count in counts)
