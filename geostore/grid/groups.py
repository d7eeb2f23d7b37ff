"""Which resolution groups a dataset has, and how large a cell is in each.

The formula (docs/lattices.md has it with a table): a cell at its largest, on the equator,
divided by the finest pixel size and rounded up to a multiple of 32 (geohash) or to a power of
two (quadtile); a coarser group divides that shape by a whole number, so the pixels of the
groups nest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from geostore.errors import InvalidInputError
from geostore.grid.schemes import scheme
from geostore.types import ResolutionGroup, SchemeName

__all__ = [
    "METRES_PER_DEGREE",
    "default_length",
    "default_placement",
    "group_for",
    "make_groups",
    "pixel_size_m",
]

METRES_PER_DEGREE = 111_319.49
"""One degree of the equator of WGS 84."""

SIDE_MIN = 16
"""The fewest finest pixels along a cell's side that make a useful tile."""
SIDE_MAX = 32_768
"""The most: a band of such a tile takes 2 GiB in 16 bits."""

_SIDE_NOMINAL = 512
_MULTIPLE = 32
_PIXEL_SLACK = 1.02  # a band of 10.1 m belongs to the 10 m group
_RATIO_SLACK = 1.01
# Pixel sizes arrive as rounded decimals: 511.9999 and 512.0001 cells' pixels both mean 512.
_ROUNDING = 1e-5


def make_groups(
    scheme_name: SchemeName, length: int, resolutions_m: Iterable[float]
) -> tuple[ResolutionGroup, ...]:
    """The resolution groups of a dataset, finest first.

    `resolutions_m`: the pixel sizes, metres, in any order.

    >>> [group.width for group in make_groups("geohash", 5, (60, 10, 20))]
    [512, 256, 128]

    Raises:
        InvalidInputError: no size, one that is not a positive number or comes twice, or a
            cell of under 16 or over 32,768 of the finest pixels a side.
    """
    sizes = sorted(float(size) for size in resolutions_m)
    if not sizes:
        raise InvalidInputError("no resolution: expected at least one pixel size in metres")
    for size in sizes:
        _check_size(size, "resolution")
    if len(set(sizes)) != len(sizes):
        raise InvalidInputError(f"resolutions {sizes}: each pixel size may come once")
    height, width = _finest_shape(scheme_name, length, sizes[0])
    groups = []
    for size in sizes:
        divisor = _divisor(height, width, _RATIO_SLACK * size / sizes[0])
        groups.append(ResolutionGroup(size, height // divisor, width // divisor))
    return tuple(groups)


def _cell_pixels(scheme_name: SchemeName, length: int, resolution_m: float) -> tuple[float, float]:
    """(height, width) of a cell on the equator, in pixels, not rounded."""
    columns, rows = scheme(scheme_name).grid_size(length)
    # On the equator a quadtile is as high as wide.
    height_degrees = 180.0 / rows if scheme_name == "geohash" else 360.0 / columns
    pixels_per_degree = METRES_PER_DEGREE / resolution_m
    return height_degrees * pixels_per_degree, 360.0 / columns * pixels_per_degree


def _finest_shape(scheme_name: SchemeName, length: int, resolution_m: float) -> tuple[int, int]:
    if length < 1:
        scheme(scheme_name).grid_size(length)
        raise InvalidInputError(f"length {length}: expected at least 1")
    sides = _cell_pixels(scheme_name, length, resolution_m)
    shown = (
        f"{scheme_name} length {length} at {resolution_m:g} m makes tiles of"
        f" {sides[0]:.3g} x {sides[1]:.3g} pixels"
    )
    if min(sides) < SIDE_MIN:
        raise InvalidInputError(
            f"{shown}: expected at least {SIDE_MIN} a side; give a smaller --length or a finer"
            " --resolution"
        )
    if max(sides) > SIDE_MAX:
        raise InvalidInputError(
            f"{shown}: expected at most {SIDE_MAX} a side; give a larger --length or a coarser"
            " --resolution"
        )
    height, width = (_rounded_up(scheme_name, side) for side in sides)
    return height, width


def _rounded_up(scheme_name: SchemeName, side: float) -> int:
    pixels = math.ceil(side * (1.0 - _ROUNDING))
    if scheme_name == "geohash":
        return -(-pixels // _MULTIPLE) * _MULTIPLE
    return 1 << (pixels - 1).bit_length()


def _divisor(height: int, width: int, limit: float) -> int:
    """The largest whole number that divides both sides and is at most `limit`."""
    common = math.gcd(height, width)
    return next(k for k in range(min(common, int(limit)), 0, -1) if common % k == 0)


def group_for(groups: Sequence[ResolutionGroup], native_resolution_m: float) -> int:
    """Index of the group that a band belongs to: the coarsest that loses none of its detail,
    its pixel being at most 1.02 times the band's own.

    Raises:
        InvalidInputError: the band is finer than every group.
    """
    _check_size(native_resolution_m, "pixel size")
    fitting = [
        index
        for index, group in enumerate(groups)
        if group.resolution_m <= _PIXEL_SLACK * native_resolution_m
    ]
    if not fitting:
        have = ", ".join(f"{group.resolution_m:g}" for group in groups)
        raise InvalidInputError(
            f"a band of {native_resolution_m:g} m is finer than all resolution groups ({have} m):"
            f" give it a dataset of its own, --dataset NAME --resolution {native_resolution_m:g}"
        )
    return max(fitting, key=lambda index: groups[index].resolution_m)


def default_length(scheme_name: SchemeName, finest_resolution_m: float) -> int:
    """The geocode length for rasters that no reader knows: the one whose cell's longer side,
    in finest pixels, is nearest 512; of two as near, the shorter (fewer, larger tiles).

    Raises:
        InvalidInputError: a pixel size that is not a positive number.
    """
    _check_size(finest_resolution_m, "resolution")

    def distance(length: int) -> int:
        sides = _cell_pixels(scheme_name, length, finest_resolution_m)
        return abs(_rounded_up(scheme_name, max(sides)) - _SIDE_NOMINAL)

    return min(range(1, scheme(scheme_name).length_max + 1), key=distance)


def default_placement(scheme_name: SchemeName, length: int) -> int:
    """How many leading characters of a geocode are hashed unless a dataset says otherwise."""
    return min(length, 5 if scheme_name == "geohash" else 12)


def pixel_size_m(
    transform: Sequence[float],
    is_geographic: bool,
    metres_per_unit: float = 1.0,
) -> float:
    """The pixel size of a raster in metres: its pixels' shorter side.

    `transform`: a, b, c, d, e, f of an affine map (rasterio's order). One degree of a
    geographic CRS counts as 111,319.49 m; other CRSs give `metres_per_unit`.

    Raises:
        InvalidInputError: the transform is not six numbers, or its pixels have no area.
    """
    if len(transform) != 6:
        raise InvalidInputError(f"transform of {len(transform)} numbers: expected 6")
    a, b, _, d, e, _ = (float(value) for value in transform)
    shorter = min(math.hypot(a, d), math.hypot(b, e))
    size = shorter * (METRES_PER_DEGREE if is_geographic else float(metres_per_unit))
    if not math.isfinite(size) or size <= 0.0 or a * e == b * d:
        raise InvalidInputError(
            f"transform {tuple(transform)}: expected pixels with a positive, finite area"
        )
    return size


def _check_size(size: float, what: str) -> None:
    if not (math.isfinite(size) and size > 0.0):
        raise InvalidInputError(f"{what} {size!r} m: expected a positive number of metres")
