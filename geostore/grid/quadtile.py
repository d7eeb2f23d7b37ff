"""Quadtile cells: the web map's tiles, named by quadkey, four children each. Lattice: EPSG:3857.

Quadkeys are Microsoft's ("Bing Maps Tile System"); codes and latitudes of edges come from the
package mercantile. It is asked only about whole tiles: its own point lookup nudges points
beside an edge, so which cell holds a point is settled here, against the same edges that
`bounds` reports.

Longitudes of edges are exact, as for geohash. The latitude of an edge is mercantile's float64
function of `row / 2**length`, a number that is exact and the same at every length, so an edge
has one latitude however it is reached. In EPSG:3857 edges are the rounded exact products of
that fraction and the extent, 20037508.342789244 m.
"""

from __future__ import annotations

import math
from functools import lru_cache

import mercantile
import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInputError
from geostore.grid.cells import EDGE_DOUBT, Booleans, Floats, Integers, Scheme
from geostore.grid.morton import interleave, uninterleave
from geostore.types import SchemeName

__all__ = ["MERCATOR_EXTENT_M", "QUADTILE", "QuadtileScheme"]

MERCATOR_EXTENT_M = 20037508.342789244
"""Half the width of the EPSG:3857 square: pi times 6378137 m."""

# Rows found by floating point are trusted when they lie EDGE_DOUBT from an edge: the chain of tan
# and asinh is good to about 1e-15 of the extent, 1e-7 rows at length 26.


@lru_cache(maxsize=1 << 16)
def _edge_latitude(row: int, length: int) -> float:
    """The north edge of a row, degrees; the south edge of the last where row is 2**length."""
    if row == 1 << length:
        return float(mercantile.bounds(0, row - 1, length).south)
    return float(mercantile.bounds(0, row, length).north)


class QuadtileScheme(Scheme):
    """Quadkeys of 1 to 26 digits.

    A cell owns its west and north edges, the bottom row also its south edge. The world ends at
    85.0511287798066 degrees north and south.
    """

    name: SchemeName = "quadtile"
    crs = "EPSG:3857"
    length_max = 26
    alphabet = "0123"

    @property
    def lat_limit(self) -> float:
        """The latitude where the square world ends."""
        return _edge_latitude(0, 0)

    def bits(self, length: int) -> tuple[int, int]:
        return length, length

    def _code(self, column: int, row: int, length: int) -> str:
        return str(mercantile.quadkey(mercantile.Tile(column, row, length)))

    def _decode(self, geocode: str) -> tuple[int, int]:
        tile = mercantile.quadkey_to_tile(geocode)
        return int(tile.x), int(tile.y)

    def _row_edge(self, row: int, length: int) -> float:
        return _edge_latitude(row, length)

    def _row_edges(self, rows: Integers, length: int) -> Floats:
        # One scalar function for all: numpy's own sinh and arctan may differ in the last bit.
        distinct, positions = np.unique(rows, return_inverse=True)
        edges = [_edge_latitude(row, length) for row in distinct.tolist()]
        return np.array(edges, dtype=np.float64)[positions]

    def _row_place(self, lat: float, length: int) -> float:
        rows = 1 << length
        if abs(lat) >= self.lat_limit:
            return 0.0 if lat > 0 else float(rows)
        return (0.5 - math.asinh(math.tan(math.radians(lat))) / (2.0 * math.pi)) * rows

    def _rows_of(self, lat: Floats, length: int) -> Integers:
        rows = 1 << length
        height = np.arcsinh(np.tan(np.radians(lat))) / (2.0 * np.pi)
        place = (0.5 - height) * rows
        row = np.clip(place, 0, rows - 1).astype(np.int64)
        for i in np.flatnonzero(np.abs(place - np.rint(place)) < EDGE_DOUBT).tolist():
            value, here = float(lat[i]), int(row[i])
            if here > 0 and value > _edge_latitude(here, length):
                row[i] = here - 1
            elif here < rows - 1 and value <= _edge_latitude(here + 1, length):
                row[i] = here + 1
        return row

    def _check_latitudes(self, lat: Floats) -> None:
        beyond = np.abs(lat) > self.lat_limit
        if beyond.any():
            value = float(lat[int(beyond.argmax())])
            raise InvalidInputError(
                f"latitude {value!r} lies beyond the quadtile grid, which ends at"
                f" {self.lat_limit!r} degrees north and south: use the geohash scheme there"
            )

    def closed_edges(self, rows: Integers, length: int) -> tuple[Booleans, Booleans]:
        return rows == (1 << length) - 1, np.ones(rows.shape, dtype=np.bool_)

    def _morton(
        self,
        columns: Integers,
        rows: Integers,
        length: int,  # noqa: ARG002
    ) -> npt.NDArray[np.uint64]:
        return interleave(columns, rows)

    def _unmorton(
        self,
        codes: npt.NDArray[np.uint64],
        length: int,  # noqa: ARG002
    ) -> tuple[Integers, Integers]:
        return uninterleave(codes)

    def lattice_bounds(self, geocode: str) -> tuple[float, float, float, float]:
        column, row = self.cell_index(geocode)
        cells = 1 << len(geocode)

        def edge(twice: int) -> float:
            return MERCATOR_EXTENT_M * (twice / cells)  # the quotient is exact

        return (
            edge(2 * column - cells),
            edge(cells - 2 * row - 2),
            edge(2 * column + 2 - cells),
            edge(cells - 2 * row),
        )


QUADTILE = QuadtileScheme()
"""The quadtile scheme."""
