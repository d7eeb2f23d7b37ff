"""What geohash and quadtile have in common: a tree of cells, each named by a geocode.

Cells of one length form a grid of `(columns, rows)`: column 0 starts at -180 degrees, row 0 is
the northernmost. A geocode's prefixes name the cells around it; the empty geocode is the root,
the whole extent of the scheme, where walks over prefixes start.

Cells are half-open, so that each point lies in exactly one. Which edges a cell owns is the
scheme's; the row at the end of the world owns both.

Cell edges are exact: an edge that two cells share, of one length or of different ones, comes
out bit for bit the same from each of them, so a lattice of cells has no gaps and no overlaps.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInputError
from geostore.types import BBox, SchemeName

__all__ = ["Scheme"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

EDGE_DOUBT = 1e-5
"""A place in the grid, reckoned in floating point, is trusted so many cells from an edge."""

_NEXT_EDGE = 1.0 - EDGE_DOUBT
_SHOWN_MAX = 40  # characters of a wrong geocode that a message repeats


class Scheme(ABC):
    """A geocode scheme. There are two, stateless: `GEOHASH` and `QUADTILE`."""

    name: SchemeName
    crs: str
    """The CRS of its lattices."""
    length_max: int
    alphabet: str
    """Its digits, in sorting order."""

    # ------------------------------------------------------------ the scheme's own part

    @abstractmethod
    def bits(self, length: int) -> tuple[int, int]:
        """Bits of a column and of a row number at `length`."""

    @abstractmethod
    def _code(self, column: int, row: int, length: int) -> str:
        """The geocode of a cell that is known to exist; `length` is not 0."""

    @abstractmethod
    def _decode(self, geocode: str) -> tuple[int, int]:
        """(column, row) of a geocode that is known to be valid and not empty."""

    @abstractmethod
    def _row_edge(self, row: int, length: int) -> float:
        """Latitude of the north edge of a row; number 2**bits is the last south edge."""

    @abstractmethod
    def _row_edges(self, rows: Integers, length: int) -> Floats:
        """`_row_edge` of each, bit for bit."""

    @abstractmethod
    def _rows_of(self, lat: Floats, length: int) -> Integers:
        """The rows that hold checked latitudes, exactly."""

    @abstractmethod
    def _row_place(self, lat: float, length: int) -> float:
        """How many rows a latitude lies below the north edge; off by less than EDGE_DOUBT."""

    @abstractmethod
    def _check_latitudes(self, lat: Floats) -> None:
        """Raises InvalidInputError for a finite latitude in -90..90 that no cell holds."""

    @abstractmethod
    def closed_edges(self, rows: Integers, length: int) -> tuple[Booleans, Booleans]:
        """Whether cells of these rows own their (south, north) edge.

        All own their west edge and none the east one: 180 degrees is -180.
        """

    @abstractmethod
    def _morton(self, columns: Integers, rows: Integers, length: int) -> npt.NDArray[np.uint64]:
        """The geocodes as numbers, digits and all, in sorting order."""

    @abstractmethod
    def _unmorton(self, codes: npt.NDArray[np.uint64], length: int) -> tuple[Integers, Integers]:
        """(columns, rows) of `_morton`."""

    @abstractmethod
    def lattice_bounds(self, geocode: str) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) of a cell in the units of `crs`."""

    # ------------------------------------------------------------ one cell

    def validate(self, geocode: str) -> str:
        """The geocode as stored (a geohash in lower case), if it names a cell.

        Raises:
            InvalidInputError: empty, too long, or with a character that is no digit.
        """
        code = self._checked(geocode)
        if not code:
            raise InvalidInputError(f"an empty {self.name}: expected 1..{self.length_max} digits")
        return code

    def encode(self, lon: float, lat: float, length: int) -> str:
        """The geocode of the one cell that contains a point; longitude 180 is -180.

        Raises:
            InvalidInputError: a coordinate is not finite or out of range, or a length that
                the scheme does not have.
        """
        columns, rows = self.locate_many(
            np.array([lon], dtype=np.float64), np.array([lat], dtype=np.float64), length
        )
        return self.geocode_at(int(columns[0]), int(rows[0]), length)

    def bounds(self, geocode: str) -> BBox:
        """The cell's box in degrees longitude and latitude; the root's is the scheme's extent."""
        column, row = self.cell_index(geocode)
        length = len(geocode)
        columns = 1 << self.bits(length)[0]
        return BBox(
            column * 360.0 / columns - 180.0,
            self._row_edge(row + 1, length),
            (column + 1) * 360.0 / columns - 180.0,
            self._row_edge(row, length),
        )

    def _column_edges(self, columns: Integers, length: int) -> Floats:
        """Longitudes of the west edges of columns; number 2**bits is the last east edge.

        Exact in float64 for up to 30 bits: 45 * column has at most 36, the division is by a
        power of two, and so is the sum a multiple of 45 / 2**27 below 180.
        """
        edges: Floats = np.ldexp(columns * 360.0, -self.bits(length)[0]) - 180.0
        return edges

    def parent(self, geocode: str) -> str:
        """The cell around: one digit less; the empty root for a geocode of one digit.

        Raises:
            InvalidInputError: not a geocode, or the root itself.
        """
        return self.validate(geocode)[:-1]

    def children(self, geocode: str) -> tuple[str, ...]:
        """The cells one digit longer, in sorting order; the root's are those of length 1.

        Raises:
            InvalidInputError: not a geocode, or one of the longest.
        """
        code = self._checked(geocode)
        if len(code) == self.length_max:
            raise InvalidInputError(
                f"{self.name} {code!r} has no children: {self.length_max} digits are the most"
            )
        return tuple(code + digit for digit in self.alphabet)

    def neighbours(self, geocode: str) -> tuple[str, ...]:
        """The up to eight cells around, clockwise from north.

        East and west go on across the antimeridian; past the first and last row there is
        nothing. Where columns are so few that two directions meet, a cell is named once.
        """
        code = self.validate(geocode)
        column, row = self._decode(code)
        columns, rows = self.grid_size(len(code))
        found: dict[str, None] = {}
        for right, down in ((0, -1), (1, -1), (1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1)):
            if 0 <= row + down < rows:
                found[self._code((column + right) % columns, row + down, len(code))] = None
        found.pop(code, None)
        return tuple(found)

    def cell_index(self, geocode: str) -> tuple[int, int]:
        """(column, row) among the cells of that length; the root is (0, 0)."""
        code = self._checked(geocode)
        return self._decode(code) if code else (0, 0)

    def geocode_at(self, column: int, row: int, length: int) -> str:
        """The geocode of a cell by its place in the grid; undoes `cell_index`.

        Raises:
            InvalidInputError: the grid has no such cell.
        """
        columns, rows = self.grid_size(length)
        if not (0 <= column < columns and 0 <= row < rows):
            raise InvalidInputError(
                f"{self.name} cell (column {column}, row {row}) of length {length}: expected"
                f" column 0..{columns - 1} and row 0..{rows - 1}"
            )
        return self._code(column, row, length) if length else ""

    def grid_size(self, length: int) -> tuple[int, int]:
        """(columns, rows) of the cells of `length`; length 0 is the root alone.

        Raises:
            InvalidInputError: a length that the scheme does not have.
        """
        if not 0 <= operator.index(length) <= self.length_max:
            raise InvalidInputError(f"{self.name} length {length}: expected 1..{self.length_max}")
        x_bits, y_bits = self.bits(length)
        return 1 << x_bits, 1 << y_bits

    # ------------------------------------------------------------ many cells

    def locate_many(
        self, lon: npt.ArrayLike, lat: npt.ArrayLike, length: int
    ) -> tuple[Integers, Integers]:
        """(columns, rows), int64, of the cells that contain points.

        `lon`, `lat`: arrays of one shape (n,), degrees. The answer is exact, as if reckoned
        with unlimited precision: a float one step west of an edge is west of it.

        Raises:
            InvalidInputError: as `encode`; the message says which point.
        """
        x = np.asarray(lon, dtype=np.float64)
        y = np.asarray(lat, dtype=np.float64)
        columns, _ = self.grid_size(length)
        if x.ndim != 1 or x.shape != y.shape:
            raise InvalidInputError(
                f"lon of shape {x.shape} and lat of shape {y.shape}: expected (n,) and (n,)"
            )
        _check_degrees("longitude", x, 180.0)
        _check_degrees("latitude", y, 90.0)
        self._check_latitudes(y)
        x = np.where(x == 180.0, -180.0, x)
        # Rounding keeps order and leaves edges as they are, so the quotient is right or, just
        # west of an edge, one too many. Edges are exact and settle it.
        column = np.minimum((x + 180.0) / 360.0 * columns, columns - 1).astype(np.int64)
        column -= x < self._column_edges(column, length)
        return column, self._rows_of(y, length)

    def encode_many(
        self, lon: npt.ArrayLike, lat: npt.ArrayLike, length: int
    ) -> npt.NDArray[np.str_]:
        """`encode` for arrays of shape (n,): geocodes as an array of strings, shape (n,)."""
        return self.geocodes_at(*self.locate_many(lon, lat, length), length)

    def geocodes_at(self, columns: Integers, rows: Integers, length: int) -> npt.NDArray[np.str_]:
        """`geocode_at` for arrays of cells that exist."""
        if length == 0:
            return np.full(columns.shape, "", dtype="<U1")
        codes = self._morton(columns, rows, length)
        digit_bits = np.uint64(len(self.alphabet).bit_length() - 1)
        shifts = np.arange(length - 1, -1, -1, dtype=np.uint64) * digit_bits
        digits = (codes[:, None] >> shifts) & np.uint64(len(self.alphabet) - 1)
        letters = np.frombuffer(self.alphabet.encode("ascii"), dtype=np.uint8)[digits]
        names: npt.NDArray[np.str_] = letters.view(f"S{length}").reshape(-1).astype(f"<U{length}")
        return names

    def cell_indices(self, geocodes: Sequence[str], length: int) -> tuple[Integers, Integers]:
        """(columns, rows) of geocodes that all have `length` digits.

        Raises:
            InvalidInputError: one of them is no geocode of that length.
        """
        digit_bits = np.uint64(len(self.alphabet).bit_length() - 1)
        values = np.full(128, 255, dtype=np.uint8)
        values[np.frombuffer(self.alphabet.encode("ascii"), dtype=np.uint8)] = np.arange(
            len(self.alphabet)
        )
        try:
            letters = np.array(geocodes, dtype=f"S{length + 1}").view(np.uint8)
        except UnicodeEncodeError:
            letters = np.zeros(len(geocodes) * (length + 1), dtype=np.uint8)
        letters = letters.reshape(len(geocodes), length + 1)
        digits = values[letters[:, :length]]
        wrong = (digits == 255).any(axis=1) | (letters[:, length] != 0)
        if wrong.any():
            return self._cell_indices_slowly(geocodes, length)
        codes = np.zeros(len(geocodes), dtype=np.uint64)
        for position in range(length):
            codes = (codes << digit_bits) | digits[:, position].astype(np.uint64)
        return self._unmorton(codes, length)

    def _cell_indices_slowly(
        self, geocodes: Sequence[str], length: int
    ) -> tuple[Integers, Integers]:
        """As `cell_indices`: one by one, for upper case and to name the geocode at fault."""
        indices = []
        for geocode in geocodes:
            code = self._checked(geocode)
            if len(code) != length:
                raise InvalidInputError(f"{self.name} {code!r}: expected {length} digits")
            indices.append(self.cell_index(code))
        pairs = np.array(indices, dtype=np.int64)
        return pairs[:, 0], pairs[:, 1]

    def bounds_many(self, geocodes: Sequence[str]) -> Floats:
        """West, south, east, north of cells, float64 (n, 4), degrees; lengths may differ.

        Bit for bit what `bounds` says of each.
        """
        lengths = np.array([len(geocode) for geocode in geocodes], dtype=np.int64)
        result = np.empty((len(geocodes), 4), dtype=np.float64)
        for length in np.unique(lengths).tolist():
            self.grid_size(length)
            where = np.flatnonzero(lengths == length)
            columns, rows = self.cell_indices([geocodes[i] for i in where.tolist()], length)
            result[where] = self.bounds_at(columns, rows, length)
        return result

    def bounds_at(self, columns: Integers, rows: Integers, length: int) -> Floats:
        """As `bounds_many`, by places in the grid."""
        return np.stack(
            [
                self._column_edges(columns, length),
                self._row_edges(rows + 1, length),
                self._column_edges(columns + 1, length),
                self._row_edges(rows, length),
            ],
            axis=1,
        )

    def cells_meeting(
        self, bounds: tuple[float, float, float, float], length: int
    ) -> tuple[int, int, int, int] | None:
        """(first column, last column, first row, last row) of the cells that share more than an
        edge or a corner with a box of positive area (west, south, east, north, not across the
        antimeridian); exactly those. None: there is none.
        """
        box_west, box_south, box_east, box_north = bounds
        x_bits, y_bits = self.bits(length)
        columns, rows = 1 << x_bits, 1 << y_bits
        scale = columns / 360.0
        # Places are reckoned in floating point and trusted away from edges, which are exact.
        place = (box_west + 180.0) * scale
        west = int(place)
        if not EDGE_DOUBT < place - west < _NEXT_EDGE:
            edge = round(place)
            west = edge if edge * 360.0 / columns - 180.0 <= box_west else edge - 1
        place = (box_east + 180.0) * scale
        east = int(place)
        if not EDGE_DOUBT < place - east < _NEXT_EDGE:
            edge = round(place)
            east = edge - 1 if edge * 360.0 / columns - 180.0 >= box_east else edge
        place = self._row_place(box_north, length)
        top = int(place)
        if not EDGE_DOUBT < place - top < _NEXT_EDGE:
            edge = round(place)
            top = edge if self._row_edge(edge, length) >= box_north else edge - 1
        place = self._row_place(box_south, length)
        bottom = int(place)
        if not EDGE_DOUBT < place - bottom < _NEXT_EDGE:
            edge = round(place)
            bottom = edge - 1 if self._row_edge(edge, length) <= box_south else edge
        west = max(west, 0)
        if east >= columns:
            east = columns - 1
        top = max(top, 0)
        if bottom >= rows:
            bottom = rows - 1
        return (west, east, top, bottom) if west <= east and top <= bottom else None

    def sort_keys(self, columns: Integers, rows: Integers, length: int) -> npt.NDArray[np.uint64]:
        """Numbers that order cells of one length as their geocodes sort; equal for one cell.

        The geocode's digits, the last one lowest.
        """
        return self._morton(columns, rows, length)

    def cells_of_sort_keys(
        self, keys: npt.NDArray[np.uint64], length: int
    ) -> tuple[Integers, Integers]:
        """(columns, rows) of cells by their `sort_keys`."""
        return self._unmorton(keys, length)

    # ------------------------------------------------------------ checks

    def _checked(self, geocode: str) -> str:
        """As `validate`, but the root passes."""
        code = self._folded(geocode)
        if len(code) > self.length_max:
            shown = code if len(code) <= _SHOWN_MAX else code[:_SHOWN_MAX] + "..."
            raise InvalidInputError(
                f"{self.name} {shown!r} of {len(code)} digits: expected at most {self.length_max}"
            )
        for digit in code:
            if digit not in self.alphabet:
                raise InvalidInputError(
                    f"{self.name} {geocode!r}: {digit!r} is none of its digits {self.alphabet}"
                )
        return code

    def _folded(self, geocode: str) -> str:
        """The geocode in the case it is stored in."""
        return geocode

    def __repr__(self) -> str:
        return self.name.upper()

    def __reduce__(self) -> str:
        # By name: a pickled scheme comes back as the one instance.
        return self.name.upper()


def _check_degrees(what: str, values: Floats, limit: float) -> None:
    # Written so that NaN fails.
    wrong = ~(np.abs(values) <= limit)
    if wrong.any():
        position = int(wrong.argmax())
        value = float(values[position])
        where = f" of point {position}" if len(values) > 1 else ""
        problem = "is not a finite number" if not math.isfinite(value) else "is out of range"
        raise InvalidInputError(
            f"{what} {value!r}{where} {problem}: expected degrees in -{limit:g}..{limit:g}"
        )
