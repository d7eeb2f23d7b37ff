"""Arrays at another pixel size: replication, nearest, and a mean that minds validity.

All three map pixel (i, j) of the result onto the rectangle of the source that covers the
same share of the cell, so no coordinates are needed. Each result pixel depends on its own
rectangle alone: reading a window of a cell gives the same numbers as reading the cell.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["ResampleMethod", "nearest", "resample", "valid_mean"]

ResampleMethod = Literal["nearest", "mean"]
_Array = npt.NDArray[Any]
_Mask = npt.NDArray[np.bool_]


def _centres(source: int, target: int) -> npt.NDArray[np.intp]:
    """For each of `target` pixels, which of `source` pixels contains its centre.

    In integers, (2i + 1) * source // (2 * target): no rounding can move a pixel. A centre
    on an edge belongs to the pixel after it.
    """
    return (2 * np.arange(target, dtype=np.intp) + 1) * source // (2 * target)


def nearest(data: _Array, shape: tuple[int, int]) -> _Array:
    """`data` (height, width) on `shape`: each pixel is the one under its centre.

    With whole factors going finer this is plain replication. The result is a new array.
    """
    height, width = data.shape
    if (height, width) == shape:
        return data.copy()
    if shape[0] % height == 0 and shape[1] % width == 0:
        wide = np.repeat(data, shape[1] // width, axis=1)
        return np.repeat(wide, shape[0] // height, axis=0)
    columns = data[:, _centres(width, shape[1])]
    return columns[_centres(height, shape[0])]


def _sum_axis0(data: npt.NDArray[np.float64], target: int) -> npt.NDArray[np.float64]:
    """Area-weighted sums over axis 0 for fractional factors: (source, n) -> (target, n).

    One pass a tap, where a tap is one source row under every target row; at most
    ceil(source / target) + 1 of them. Rows of no weight are not touched, so what lies
    outside a pixel's own rectangle (an infinity, say) cannot reach it.
    """
    source = data.shape[0]
    # Bounds in units of 1/target source pixels, whole numbers: weights are exact.
    low = np.arange(target, dtype=np.int64) * source
    high = low + source
    first = low // target
    total = np.zeros((target, data.shape[1]))
    for tap in range(-(-source // target) + 1):
        row = first + tap
        overlap = np.minimum(high, (row + 1) * target) - np.maximum(low, row * target)
        used = np.flatnonzero(overlap > 0)
        total[used] += data[row[used]] * (overlap[used] / target)[:, None]
    return total


def _area_sum(data: npt.NDArray[np.float64], shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    height, width = data.shape
    if height % shape[0] == 0 and width % shape[1] == 0:
        blocks = data.reshape(shape[0], height // shape[0], shape[1], width // shape[1])
        return np.asarray(blocks.sum(axis=(1, 3)))
    return np.ascontiguousarray(_sum_axis0(_sum_axis0(data, shape[0]).T, shape[1]).T)


def valid_mean(
    data: _Array, valid: _Mask | None, shape: tuple[int, int], *, fill: float
) -> tuple[_Array, _Mask | None]:
    """Mean of the valid pixels under each pixel of `shape`, weighted by area.

    Args:
        data: (height, width), integers or floats; no coarser than `shape`.
        valid: bool (height, width), True where valid; None where all are.
        shape: (height, width) of the result.
        fill: what a pixel with nothing valid under it holds.

    Returns:
        The means, in `data`'s dtype (integers are rounded half to even), and where any
        valid pixel contributed; None where all did. Sums are float64: exact for integers
        of up to 32 bits.
    """
    if valid is not None and valid.all():
        valid = None
    values = data.astype(np.float64)
    if valid is None:
        weight: npt.NDArray[np.float64] | float = (data.shape[0] * data.shape[1]) / (
            shape[0] * shape[1]
        )
        known = None
    else:
        values[~valid] = 0.0
        weight = _area_sum(valid.astype(np.float64), shape)
        known = weight > 0.0
        weight[~known] = 1.0
    mean = _area_sum(values, shape)
    mean /= weight
    if data.dtype.kind in "iu":
        np.rint(mean, out=mean)
        limits = np.iinfo(data.dtype)
        # Only 64-bit means can leave the range, by float64's own rounding.
        if data.dtype.itemsize == 8:
            top = np.nextafter(float(limits.max), 0.0)
            np.clip(mean, float(limits.min), top, out=mean)
    result = mean.astype(data.dtype)
    if known is not None:
        result[~known] = fill
    return result, known


def resample(
    data: _Array,
    valid: _Mask | None,
    shape: tuple[int, int],
    *,
    method: ResampleMethod,
    fill: float,
) -> tuple[_Array, _Mask | None]:
    """`data` and `valid`, (height, width), on `shape`.

    `mean` applies where the result is coarser in both directions; anything else is
    nearest, which repeats a pixel and never invents a value.

    Returns:
        New arrays, data in its own dtype; validity None where all is valid.
    """
    coarser = shape[0] <= data.shape[0] and shape[1] <= data.shape[1]
    if method == "mean" and coarser and shape != data.shape:
        return valid_mean(data, valid, shape, fill=fill)
    return nearest(data, shape), None if valid is None else nearest(valid, shape)
