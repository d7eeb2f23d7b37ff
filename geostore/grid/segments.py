"""Straight segments against boxes, decided exactly.

A segment passes through a half-open cell if more than a point of it lies inside. For a slanted
segment that means: it meets the open box (separating axes: the two ranges overlap, and the box
has corners on both sides of the segment). A segment along an axis may also run along an edge,
and counts for the cell that owns the edge.

Sides are told by the sign of a determinant. Where float64 cannot be sure of the sign (the
error bound is that of Shewchuk 1997, "Adaptive Precision Floating-Point Arithmetic and Fast
Robust Geometric Predicates"), fractions decide.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

__all__ = ["cut", "pass_through", "touch"]

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]

# (3 + 16u) u for u = 2**-53, rounded up; and below the second, products lose bits to underflow.
_ERROR_RELATIVE = 3.4e-16
_ERROR_ABSOLUTE = 1e-290


def pass_through(
    segments: Floats, boxes: Floats, south_closed: Booleans, north_closed: Booleans
) -> Booleans:
    """For each pair, whether the segment has a positive length inside the half-open box.

    `segments`: (n, 4) as x0, y0, x1, y1 in float64, none of length zero. `boxes`: (n, 4) as
    west, south, east, north of positive size. A box owns its west edge, never its east one,
    and the south and north edges where the flags (n,) say so.
    """
    x0, y0, x1, y1 = segments.T
    west, south, east, north = boxes.T
    x_inside = np.where(
        x0 == x1,
        (west <= x0) & (x0 < east),
        (np.maximum(x0, x1) > west) & (np.minimum(x0, x1) < east),
    )
    y_inside = np.where(
        y0 == y1,
        ((y0 > south) | (south_closed & (y0 == south)))
        & ((y0 < north) | (north_closed & (y0 == north))),
        (np.maximum(y0, y1) > south) & (np.minimum(y0, y1) < north),
    )
    result: Booleans = x_inside & y_inside
    slanted = np.flatnonzero(result & (x0 != x1) & (y0 != y1))
    upper, lower = _corner_sides(segments[slanted], boxes[slanted])
    result[slanted] = (upper > 0) & (lower < 0)
    return result


def cut(segments: Floats, boxes: Floats) -> Booleans:
    """For each pair, whether the segment meets the open box. Shapes as above."""
    x0, y0, x1, y1 = segments.T
    west, south, east, north = boxes.T
    result: Booleans = (
        (np.maximum(x0, x1) > west)
        & (np.minimum(x0, x1) < east)
        & (np.maximum(y0, y1) > south)
        & (np.minimum(y0, y1) < north)
    )
    slanted = np.flatnonzero(result & (x0 != x1) & (y0 != y1))
    upper, lower = _corner_sides(segments[slanted], boxes[slanted])
    result[slanted] = (upper > 0) & (lower < 0)
    return result


def touch(segments: Floats, boxes: Floats) -> Booleans:
    """For each pair, whether segment and closed box have a point in common. Shapes as above."""
    x0, y0, x1, y1 = segments.T
    west, south, east, north = boxes.T
    result: Booleans = (
        (np.maximum(x0, x1) >= west)
        & (np.minimum(x0, x1) <= east)
        & (np.maximum(y0, y1) >= south)
        & (np.minimum(y0, y1) <= north)
    )
    slanted = np.flatnonzero(result & (x0 != x1) & (y0 != y1))
    upper, lower = _corner_sides(segments[slanted], boxes[slanted])
    result[slanted] = (upper >= 0) & (lower <= 0)
    return result


def _corner_sides(
    segments: Floats, boxes: Floats
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """On which side of each slanted segment the box's upper and lower extreme corners lie.

    1: above the segment's line, -1: below, 0: on it. The extreme corners are those farthest
    along the line's normal.
    """
    # Pointing east, so that left is above.
    westward = segments[:, 0] > segments[:, 2]
    segments = np.where(westward[:, None], segments[:, [2, 3, 0, 1]], segments)
    rising = segments[:, 1] < segments[:, 3]
    west, south, east, north = boxes.T
    upper = _sides(segments, np.where(rising, west, east), north)
    lower = _sides(segments, np.where(rising, east, west), south)
    return upper, lower


def _sides(segments: Floats, x: Floats, y: Floats) -> npt.NDArray[np.int8]:
    """The sign of the determinant (end - start) x (point - start): 1 where the point is left."""
    x0, y0, x1, y1 = segments.T
    left = (x1 - x0) * (y - y0)
    right = (y1 - y0) * (x - x0)
    determinant = left - right
    signs: npt.NDArray[np.int8] = np.sign(determinant).astype(np.int8)
    error = _ERROR_RELATIVE * (np.abs(left) + np.abs(right)) + _ERROR_ABSOLUTE
    doubt = np.abs(determinant) <= error
    for i in np.flatnonzero(doubt).tolist():
        ax, ay, bx, by = (Fraction(value) for value in segments[i].tolist())
        exact = (bx - ax) * (Fraction(float(y[i])) - ay) - (by - ay) * (Fraction(float(x[i])) - ax)
        signs[i] = (exact > 0) - (exact < 0)
    return signs
