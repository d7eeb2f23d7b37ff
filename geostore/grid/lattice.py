"""The global pixel lattices that all tiles of a dataset lie on.

A scheme, a cell length and a resolution group fix one lattice over the whole world: as many
pixels as there are cells times the group's shape. A place on it is two integers, the column and
row of a pixel counted from the upper-left corner of the world, and a coordinate is one fraction
of integers, rounded once. So two windows that share an edge agree on it to the last bit, and
the windows of cells laid side by side leave no gap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from geostore.errors import InvalidInputError
from geostore.grid.quadtile import MERCATOR_EXTENT_M
from geostore.grid.schemes import scheme
from geostore.types import BBox, ResolutionGroup, SchemeName

__all__ = ["LatticeWindow", "cell_window", "lattice_shape", "lattice_window", "part_within"]

MERCATOR_LATITUDE_MAX = 89.9
"""Beyond the square's own end, and before the tangent's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatticeWindow:
    """A rectangle of pixels of one lattice."""

    crs: str
    """`EPSG:4326` or `EPSG:3857`."""
    transform: tuple[float, float, float, float, float, float]
    """a, b, c, d, e, f: pixel corner (column, row) of this window to x, y (rasterio's order)."""
    height: int
    width: int
    column: int
    """Of the upper-left pixel, on the lattice; beyond its width where the window goes on east
    of the antimeridian."""
    row: int
    """Of the upper-left pixel, on the lattice, from the north."""


def lattice_shape(scheme_name: SchemeName, length: int, group: ResolutionGroup) -> tuple[int, int]:
    """(height, width) of the whole world in pixels."""
    columns, rows = scheme(scheme_name).grid_size(length)
    return rows * group.height, columns * group.width


def lattice_window(
    scheme_name: SchemeName,
    length: int,
    group: ResolutionGroup,
    *,
    column: int,
    row: int,
    height: int,
    width: int,
) -> LatticeWindow:
    """Any window of a lattice; it may go on past the antimeridian, not past the first or last
    row.

    Raises:
        InvalidInputError: an empty window or one outside the lattice.
    """
    rows, columns = lattice_shape(scheme_name, length, group)
    if (
        not (0 <= row < rows and 0 < height <= rows - row)
        or not (-columns < column < columns)
        or not 0 < width <= columns
    ):
        raise InvalidInputError(
            f"window of {height} x {width} pixels at row {row}, column {column}: expected one"
            f" inside the lattice of {rows} x {columns}"
        )
    # Of whole numbers, `/` is rounded once and correctly, whatever their size.
    if scheme_name == "geohash":
        x = (360 * column - 180 * columns) / columns
        y = (90 * rows - 180 * row) / rows
        x_step, y_step = 360 / columns, 180 / rows
    else:
        above, below = MERCATOR_EXTENT_M.as_integer_ratio()
        x = above * (2 * column - columns) / (below * columns)
        y = above * (rows - 2 * row) / (below * rows)
        x_step, y_step = 2 * above / (below * columns), 2 * above / (below * rows)
    return LatticeWindow(
        crs=scheme(scheme_name).crs,
        transform=(x_step, 0.0, x, 0.0, -y_step, y),
        height=height,
        width=width,
        column=column,
        row=row,
    )


def cell_window(scheme_name: SchemeName, geocode: str, group: ResolutionGroup) -> LatticeWindow:
    """The window of one cell: `group.height` x `group.width` pixels.

    Raises:
        InvalidInputError: not a geocode of the scheme.
    """
    code = scheme(scheme_name).validate(geocode)
    column, row = scheme(scheme_name).cell_index(code)
    return lattice_window(
        scheme_name,
        len(code),
        group,
        column=column * group.width,
        row=row * group.height,
        height=group.height,
        width=group.width,
    )


PART_MARGIN_PX = 2
PART_SHARE_MAX = 0.75
"""A part that is nearly the whole saves nothing."""


def part_within(window: LatticeWindow, boxes: Sequence[BBox]) -> LatticeWindow | None:
    """The least part of a window that holds all of it that lies in `boxes`, with a margin.

    A raster that is small beside its cell need be looked for in that part only. The window
    itself where the part is most of it; None where nothing of it lies there.
    """
    a, _, x, _, e, y = window.transform
    left, top, right, bottom = window.width, window.height, 0, 0
    for box in boxes:
        west, south, east, north = (_on_lattice(window.crs, value) for value in _corners(box))
        first, last = math.floor((west[0] - x) / a), math.ceil((east[0] - x) / a)
        above, below = math.floor((north[1] - y) / e), math.ceil((south[1] - y) / e)
        first, last = max(0, first - PART_MARGIN_PX), min(window.width, last + PART_MARGIN_PX)
        above, below = max(0, above - PART_MARGIN_PX), min(window.height, below + PART_MARGIN_PX)
        if first < last and above < below:
            left, top = min(left, first), min(top, above)
            right, bottom = max(right, last), max(bottom, below)
    if left >= right or top >= bottom:
        return None
    width, height = right - left, bottom - top
    if width * height > PART_SHARE_MAX * window.width * window.height:
        return window
    return LatticeWindow(
        crs=window.crs,
        transform=(a, 0.0, x + a * left, 0.0, e, y + e * top),
        height=height,
        width=width,
        column=window.column + left,
        row=window.row + top,
    )


def _corners(box: BBox) -> tuple[tuple[float, float], ...]:
    """Longitude and latitude of the west, south, east and north edge (the other one at 0)."""
    return (box.west, 0.0), (0.0, box.south), (box.east, 0.0), (0.0, box.north)


def _on_lattice(crs: str, place: tuple[float, float]) -> tuple[float, float]:
    """Longitude and latitude in the lattice's CRS."""
    lon, lat = place
    if crs == "EPSG:4326":
        return place
    radius = MERCATOR_EXTENT_M / math.pi
    angle = math.radians(min(max(lat, -MERCATOR_LATITUDE_MAX), MERCATOR_LATITUDE_MAX))
    return math.radians(lon) * radius, radius * math.asinh(math.tan(angle))
