"""Geohash cells: boxes of longitude and latitude, 32 children each. Lattice: EPSG:4326.

The scheme is Niemeyer's (geohash.org, 2008): bits of longitude and latitude by turns,
longitude first, five to a digit. Letters come from the package python-geohash, which is asked
only about cell centres and whole codes: beside an edge, at 180 degrees and at the pole it
rounds or warns, so which cell holds a point is settled here, against exact edges.

Edges are `k * 360 / 2**n - 180` and `90 - k * 180 / 2**n` with n <= 30: 45 * k has at most 36
bits and the division is by a power of two, so every step is exact in float64 and so is every
edge.
"""

from __future__ import annotations

import geohash
import numpy as np
import numpy.typing as npt

from geostore.grid.cells import Booleans, Floats, Integers, Scheme
from geostore.grid.morton import interleave, uninterleave
from geostore.types import SchemeName

__all__ = ["GEOHASH", "GeohashScheme"]


class GeohashScheme(Scheme):
    """Geohashes of 1 to 12 digits.

    A cell owns its west and south edges, the top row also the pole.
    """

    name: SchemeName = "geohash"
    crs = "EPSG:4326"
    length_max = 12
    alphabet = "0123456789bcdefghjkmnpqrstuvwxyz"

    def bits(self, length: int) -> tuple[int, int]:
        return (5 * length + 1) // 2, 5 * length // 2

    def _code(self, column: int, row: int, length: int) -> str:
        columns, rows = self.grid_size(length)
        lon = (column + 0.5) * 360.0 / columns - 180.0
        lat = 90.0 - (row + 0.5) * 180.0 / rows
        return str(geohash.encode(lat, lon, length))

    def _decode(self, geocode: str) -> tuple[int, int]:
        columns, rows = self.grid_size(len(geocode))
        box = geohash.bbox(geocode)
        column = round((box["w"] + 180.0) / 360.0 * columns)
        return column, round((90.0 - box["n"]) / 180.0 * rows)

    def _row_edge(self, row: int, length: int) -> float:
        return 90.0 - row * 180.0 / (1 << self.bits(length)[1])

    def _row_edges(self, rows: Integers, length: int) -> Floats:
        edges: Floats = 90.0 - np.ldexp(rows * 180.0, -self.bits(length)[1])
        return edges

    def _row_place(self, lat: float, length: int) -> float:
        return (90.0 - lat) / 180.0 * (1 << self.bits(length)[1])

    def _rows_of(self, lat: Floats, length: int) -> Integers:
        rows = 1 << self.bits(length)[1]
        row = np.clip((90.0 - lat) / 180.0 * rows, 0, rows - 1).astype(np.int64)
        # One too many at most, as with columns: on a south edge, or rounded onto it. The pole
        # alone lies on its row's north edge.
        row -= (lat >= self._row_edges(row, length)) & (row > 0)
        return row

    def _check_latitudes(self, lat: Floats) -> None:
        """Every latitude has a cell."""

    def closed_edges(self, rows: Integers, length: int) -> tuple[Booleans, Booleans]:  # noqa: ARG002
        return np.ones(rows.shape, dtype=np.bool_), rows == 0

    def _morton(self, columns: Integers, rows: Integers, length: int) -> npt.NDArray[np.uint64]:
        northward = (1 << self.bits(length)[1]) - 1 - rows
        # The last of an odd number of bits is longitude's.
        if length % 2:
            return interleave(columns, northward)
        return interleave(northward, columns)

    def _unmorton(self, codes: npt.NDArray[np.uint64], length: int) -> tuple[Integers, Integers]:
        low, high = uninterleave(codes)
        columns, northward = (low, high) if length % 2 else (high, low)
        return columns, (1 << self.bits(length)[1]) - 1 - northward

    def lattice_bounds(self, geocode: str) -> tuple[float, float, float, float]:
        return self.bounds(geocode).as_tuple()

    def _folded(self, geocode: str) -> str:
        # Geohash digits are read without regard to case, and stored in lower case.
        return geocode.lower() if geocode.isascii() else geocode


GEOHASH = GeohashScheme()
"""The geohash scheme."""
