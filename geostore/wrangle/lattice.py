"""Which pixels a read answers with: a cell's shape at a resolution, and many cells together.

Every cell of a scheme and length has the same shape at a resolution, so the cells' pixels
together form one global lattice, and tiles of any scene and date stack without thought.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from affine import Affine

from geostore import grid
from geostore.errors import InvalidInputError
from geostore.types import ResolutionGroup, SchemeName

__all__ = ["CellWindow", "Extent", "cell_group", "cell_transform", "check_resolution"]

_SAME = 0.01
"""Resolutions within 1 % are the same one (DESIGN: groups are told apart by more)."""


def check_resolution(resolution: float) -> float:
    """`resolution` as a float, metres.

    Raises:
        InvalidInputError: not a positive finite number.
    """
    try:
        value = float(resolution)
    except (TypeError, ValueError):
        value = math.nan
    if isinstance(resolution, bool) or not 0 < value < math.inf:
        raise InvalidInputError(
            f"resolution {resolution!r}: expected a positive number of metres, such as 10"
        )
    return value


def cell_group(groups: Sequence[ResolutionGroup], resolution: float) -> ResolutionGroup:
    """The shape of a cell read at `resolution` metres.

    One of `groups` where it has that pixel size. Otherwise the group that a dataset with
    these groups would have had for it: coarser than the finest, the finest divided by a
    whole number such that pixels are never coarser than asked for; finer than the finest,
    the finest with each pixel split into a whole number of pixels a side. Lattices of a
    dataset therefore nest, and no read shifts pixels by a fraction.

    >>> groups = (ResolutionGroup(10, 512, 512), ResolutionGroup(60, 128, 128))
    >>> [cell_group(groups, metres).height for metres in (5, 10, 20, 30, 60, 90)]
    [1024, 512, 256, 256, 128, 64]

    Args:
        groups: the dataset's groups, finest first; at least one.
        resolution: metres, positive.

    Raises:
        InvalidInputError: so fine that a cell would have over 2**16 pixels a side.
    """
    for group in groups:
        if abs(resolution / group.resolution_m - 1.0) <= _SAME:
            return group
    finest = groups[0]
    if resolution > finest.resolution_m:
        ratio = resolution / finest.resolution_m * (1.0 + _SAME)
        side = math.gcd(finest.height, finest.width)
        factor = max(k for k in range(1, side + 1) if side % k == 0 and (k == 1 or k <= ratio))
        return ResolutionGroup(resolution, finest.height // factor, finest.width // factor)
    factor = math.ceil(finest.resolution_m / resolution - _SAME)
    height, width = finest.height * factor, finest.width * factor
    if max(height, width) > 2**16:
        raise InvalidInputError(
            f"resolution {resolution:g} m: a cell would have {height} x {width} pixels; the"
            f" finest stored is {finest.resolution_m:g} m"
        )
    return ResolutionGroup(resolution, height, width)


def cell_transform(scheme: SchemeName, geocode: str, shape: tuple[int, int]) -> Affine:
    """Pixel (column, row) to x, y in the scheme's CRS, for a cell of `shape` pixels."""
    left, bottom, right, top = grid.scheme(scheme).lattice_bounds(geocode)
    height, width = shape
    return Affine((right - left) / width, 0.0, left, 0.0, (bottom - top) / height, top)


@dataclass(frozen=True, slots=True)
class CellWindow:
    """Where one cell's pixels lie in an extent: the upper-left pixel."""

    row: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """A rectangle of whole cells of one scheme and length, at one cell shape.

    Cells' columns are counted from -180 degrees, rows from the north. An extent that
    crosses the antimeridian goes on past the last column, so x stays continuous.
    """

    scheme: SchemeName
    length: int
    group: ResolutionGroup
    """Shape of one cell."""
    column: int
    """First column of cells."""
    row: int
    """First row of cells."""
    columns: int
    """How many columns of cells."""
    rows: int

    @classmethod
    def of_cells(
        cls,
        scheme: SchemeName,
        length: int,
        group: ResolutionGroup,
        geocodes: Iterable[str],
    ) -> Extent:
        """The smallest extent that holds all `geocodes` (at least one).

        Round the globe the smallest is the one that leaves out the widest empty stretch of
        columns; where two are as wide, the one that does not cross the antimeridian.
        """
        index = [grid.scheme(scheme).cell_index(geocode) for geocode in set(geocodes)]
        rows = [row for _, row in index]
        around = grid.scheme(scheme).grid_size(length)[0]
        columns = sorted({column for column, _ in index})
        start, stop = columns[0], columns[-1] + 1
        widest = around - (stop - start)
        for before, after in pairwise(columns):
            if after - before - 1 > widest:
                widest = after - before - 1
                start, stop = after, before + around + 1
        return cls(
            scheme=scheme,
            length=length,
            group=group,
            column=start,
            row=min(rows),
            columns=stop - start,
            rows=max(rows) - min(rows) + 1,
        )

    @property
    def crs(self) -> str:
        return grid.scheme(self.scheme).crs

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels: (height, width)."""
        return self.rows * self.group.height, self.columns * self.group.width

    @property
    def _origin(self) -> tuple[float, float, float, float]:
        """Left, top, and a pixel's width and height, CRS units.

        From the globe's own bounds, so that pixel edges are the same numbers in every
        extent and agree with each cell's own.
        """
        first = grid.scheme(self.scheme)
        around, _ = first.grid_size(self.length)
        corner = first.geocode_at(self.column % around, self.row, self.length)
        left, bottom, right, top = first.lattice_bounds(corner)
        dx = (right - left) / self.group.width
        dy = (top - bottom) / self.group.height
        left += (self.column // around) * around * (right - left)
        return left, top, dx, dy

    @property
    def transform(self) -> Affine:
        """Pixel (column, row) to x, y in `crs`."""
        left, top, dx, dy = self._origin
        return Affine(dx, 0.0, left, 0.0, -dy, top)

    def coordinates(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The x of each column's and the y of each row's pixel centre, CRS units."""
        left, top, dx, dy = self._origin
        height, width = self.shape
        columns = np.arange(width, dtype=np.float64) + 0.5
        rows = np.arange(height, dtype=np.float64) + 0.5
        return np.asarray(left + columns * dx), np.asarray(top - rows * dy)

    def window(self, geocode: str) -> CellWindow:
        """Where a cell of this extent lies in it."""
        column, row = grid.scheme(self.scheme).cell_index(geocode)
        around = grid.scheme(self.scheme).grid_size(self.length)[0]
        column = (column - self.column) % around
        row -= self.row
        assert column < self.columns, (geocode, self)
        assert 0 <= row < self.rows, (geocode, self)
        return CellWindow(row * self.group.height, column * self.group.width)
