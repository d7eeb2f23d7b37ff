"""Geocodes as numbers that sort as their texts do.

A packed geocode is a uint64: its digits from the highest bit down (five bits a geohash digit, two
a quadtile digit), and its length in the bits that no geocode of the scheme reaches. So a cell sorts
right before the cells under it, all cells under a prefix are one range, and two geocodes of a
scheme are equal exactly where their numbers are.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInputError
from geostore.grid import Scheme, scheme
from geostore.types import SchemeName

__all__ = ["PackedCells", "Packing", "Place", "packing_of", "place_of"]

PackedCells = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]

CODE_BITS: Final = 64
ONE_BY_ONE: Final = 16
"""Fewer geocodes are packed one after another, some 2 us each."""


class Packing:
    """How one scheme's geocodes are packed. There is one of each scheme: `packing_of`."""

    def __init__(self, grid: Scheme) -> None:
        self.grid = grid
        self.digit_bits = len(grid.alphabet).bit_length() - 1
        self.length_mask = (1 << (CODE_BITS - self.digit_bits * grid.length_max)) - 1
        assert grid.length_max <= self.length_mask, "a length fits below the digits"
        self._letters = np.frombuffer(grid.alphabet.encode("ascii"), dtype=np.uint8)
        self._digits = np.full(256, 255, dtype=np.uint8)
        self._digits[self._letters] = np.arange(len(self._letters), dtype=np.uint8)
        self._digit_of = {letter: number for number, letter in enumerate(grid.alphabet)}

    def shift(self, length: int) -> int:
        """Bits below the digits of a geocode of `length`."""
        return CODE_BITS - self.digit_bits * length

    def pack(self, geocode: str) -> int:
        """One geocode.

        Raises:
            InvalidInputError: not a geocode of the scheme, as it is stored.
        """
        code = 0
        for letter in geocode:
            digit = self._digit_of.get(letter)
            if digit is None:
                raise InvalidInputError(
                    f"{self.grid.name} {geocode[:40]!r}: {letter!r} is none of its digits"
                    f" {self.grid.alphabet}"
                )
            code = code << self.digit_bits | digit
        length = len(geocode)
        if not 0 < length <= self.grid.length_max:
            raise InvalidInputError(
                f"{self.grid.name} {geocode[:40]!r}: expected 1..{self.grid.length_max} digits"
            )
        return code << self.shift(length) | length

    def pack_many(self, geocodes: npt.NDArray[np.bytes_]) -> PackedCells:
        """Geocodes (ASCII, dtype S) as numbers, uint64 (n,); O(n x length).

        Raises:
            InvalidInputError: one of them is no geocode of the scheme.
        """
        if len(geocodes) < ONE_BY_ONE:
            texts = geocodes.tolist()
            return np.array([self.pack(text.decode("latin-1")) for text in texts], np.uint64)
        width = geocodes.dtype.itemsize
        letters = np.ascontiguousarray(geocodes).view(np.uint8).reshape(len(geocodes), width)
        lengths = (letters != 0).sum(axis=1)
        packed: PackedCells = lengths.astype(np.uint64)
        wrong = (lengths == 0) | (lengths > self.grid.length_max)
        for place in range(min(width, self.grid.length_max)):
            digits = self._digits[letters[:, place]]
            there = place < lengths
            wrong |= there & (digits == 255)
            shifted = digits.astype(np.uint64) << np.uint64(self.shift(place + 1))
            packed |= np.where(there, shifted, np.uint64(0))
        if wrong.any():
            first = bytes(geocodes[int(wrong.argmax())]).decode("ascii", "replace")
            self.pack(first)
            raise InvalidInputError(f"{self.grid.name} {first!r}: not a geocode")
        return packed

    def lengths(self, packed: PackedCells) -> Integers:
        """Digits of each, int64 (n,)."""
        lengths: Integers = (packed & np.uint64(self.length_mask)).astype(np.int64)
        return lengths

    def unpack(self, packed: PackedCells) -> npt.NDArray[np.object_]:
        """The geocodes as texts; about 0.3 us each."""
        texts = np.empty(len(packed), dtype=np.object_)
        lengths = self.lengths(packed)
        for length in np.unique(lengths).tolist():
            own = np.flatnonzero(lengths == length)
            texts[own] = self._unpack_of(packed[own], length)
        return texts

    def _unpack_of(self, packed: PackedCells, length: int) -> list[str]:
        letters = np.empty((len(packed), length), dtype=np.uint8)
        for place in range(length):
            digits = packed >> np.uint64(self.shift(place + 1))
            letters[:, place] = self._letters[digits & np.uint64(len(self._letters) - 1)]
        joined = letters.tobytes().decode("ascii")
        return [joined[start : start + length] for start in range(0, len(joined), length)]

    def places(self, packed: PackedCells, length: int) -> tuple[Integers, Integers]:
        """(columns, rows) in the grid of cells that all have `length` digits."""
        codes: PackedCells = packed >> np.uint64(self.shift(length))
        return self.grid.cells_of_sort_keys(codes, length)

    def range_of(self, prefix: str, *, recursive: bool = True) -> tuple[int, int] | None:
        """The least and the greatest packed geocode under `prefix`, or (not recursive) itself.

        None: it is no geocode of the scheme.
        """
        try:
            packed = self.pack(prefix)
        except InvalidInputError:
            return None
        if not recursive:
            return packed, packed
        # What is shorter and ends in zeros has the same digits, and is less by its length.
        return packed, (packed & ~self.length_mask) + (1 << self.shift(len(prefix))) - 1


@cache
def packing_of(name: SchemeName) -> Packing:
    """The one packing of a scheme."""
    return Packing(scheme(name))


class Place(NamedTuple):
    """Where a cell is."""

    packed: int
    length: int
    column: int
    row: int


@lru_cache(maxsize=1 << 14)
def place_of(scheme_name: SchemeName, geocode: bytes) -> Place:
    """One cell, as `Packing` has them. O(length) in Python; cells that came lately are remembered.

    Raises:
        InvalidInputError: it is no geocode of the scheme.
    """
    packing = packing_of(scheme_name)
    text = geocode.decode("latin-1")
    return Place(packing.pack(text), len(text), *packing.grid.cell_index(text))
