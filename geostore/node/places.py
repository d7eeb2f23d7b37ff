"""Where a query's tiles of one dataset can lie: regions, geocodes, and what joins them.

Everything here is asked the same as a `Region` is, about cells; so a walk over cells finds those of
any such place as it finds a region's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from geostore.grid import Region, Scheme, scheme
from geostore.query import (
    AllOf,
    AnyOf,
    Expression,
    InRegion,
    Leaf,
    OneOf,
    Query,
    UnderGeocode,
    implied,
)
from geostore.types import BBox, DatasetDefinition, SchemeName

__all__ = ["EVERYWHERE", "NOWHERE", "Place", "place_bound", "place_in"]

Integers = npt.NDArray[np.int64]
Relations = npt.NDArray[np.int8]


class Place(Protocol):
    """What `Region` says of cells; hashable."""

    @property
    def bboxes(self) -> tuple[BBox, ...]:
        """Boxes, one of which every cell that matches meets."""

    def matches(self, scheme: Scheme, geocode: str) -> bool:
        """Whether a tile of the cell, or of one under it, could match."""

    def matches_cells(
        self, scheme: Scheme, columns: Integers, rows: Integers, length: int
    ) -> npt.NDArray[np.bool_]:
        """`matches` of cells of one length by their places in the grid; bool (n,)."""

    def cells_relation(
        self, scheme: Scheme, columns: Integers, rows: Integers, length: int
    ) -> Relations:
        """0 where a cell does not match, 2 where all cells under it do too, else 1; int8 (n,)."""


class _Asked:
    """What follows from a place's relation to cells."""

    __slots__ = ()

    def cells_relation(
        self, scheme: Scheme, columns: Integers, rows: Integers, length: int
    ) -> Relations:
        raise NotImplementedError

    def matches_cells(
        self, scheme: Scheme, columns: Integers, rows: Integers, length: int
    ) -> npt.NDArray[np.bool_]:
        return self.cells_relation(scheme, columns, rows, length) > 0

    def matches(self, scheme: Scheme, geocode: str) -> bool:
        column, row = scheme.cell_index(geocode)
        return bool(
            self.matches_cells(scheme, np.array([column]), np.array([row]), len(geocode))[0]
        )


@dataclass(frozen=True, slots=True)
class _Cells(_Asked):
    """Some cells of one length, with all under them."""

    scheme_name: SchemeName
    codes: tuple[str, ...]
    _numbers: dict[int, Integers] = field(default_factory=dict, compare=False, repr=False)
    """By length: the numbers of the cells, or of those around them, ascending; kept once made."""

    @property
    def bboxes(self) -> tuple[BBox, ...]:
        grid = scheme(self.scheme_name)
        return tuple(grid.bounds(code) for code in self.codes)

    def cells_relation(
        self, scheme: Scheme, columns: Integers, rows: Integers, length: int
    ) -> Relations:
        own = len(self.codes[0])
        level = min(own, length)  # cells are compared at the length that both have
        if level not in self._numbers:
            around = scheme.cell_indices(sorted({code[:level] for code in self.codes}), level)
            self._numbers[level] = np.sort(_number(scheme, *around, level))
        mine = self._numbers[level]
        wide, high = (
            below - above
            for below, above in zip(scheme.bits(length), scheme.bits(level), strict=True)
        )
        asked = _number(scheme, columns >> wide, rows >> high, level)
        found = mine[np.minimum(np.searchsorted(mine, asked), len(mine) - 1)] == asked
        return np.where(found, 2 if length >= own else 1, 0).astype(np.int8)


def _number(scheme: Scheme, columns: Integers, rows: Integers, length: int) -> Integers:
    """One number for each cell of a length."""
    return np.asarray(rows * scheme.grid_size(length)[0] + columns)


@dataclass(frozen=True, slots=True)
class _All(_Asked):
    """Cells that match each part. Perhaps nothing under such a cell does: parts may lie apart."""

    parts: tuple[Place, ...]

    @property
    def bboxes(self) -> tuple[BBox, ...]:
        return min((part.bboxes for part in self.parts), key=_area)

    def cells_relation(
        self, scheme: Scheme, columns: Integers, rows: Integers, length: int
    ) -> Relations:
        found = [part.cells_relation(scheme, columns, rows, length) for part in self.parts]
        return np.asarray(np.minimum.reduce(found))


@dataclass(frozen=True, slots=True)
class _Any(_Asked):
    """Cells that match some part."""

    parts: tuple[Place, ...]

    @property
    def bboxes(self) -> tuple[BBox, ...]:
        return tuple(box for part in self.parts for box in part.bboxes)

    def cells_relation(
        self, scheme: Scheme, columns: Integers, rows: Integers, length: int
    ) -> Relations:
        found = [part.cells_relation(scheme, columns, rows, length) for part in self.parts]
        return np.asarray(np.maximum.reduce(found))


def _area(boxes: tuple[BBox, ...]) -> float:
    return sum((box.east - box.west) * (box.north - box.south) for box in boxes)


EVERYWHERE = _All(())
NOWHERE = _Any(())
"""These two are compared by identity and never asked about cells."""


# ---------------------------------------------------------------- from a query


def place_bound(query: Query) -> Expression | None:
    """What a query's `where` implies about places and datasets; None: nothing."""
    return None if query.where is None else implied(query.where, _is_about_places)


def _is_about_places(leaf: Leaf) -> bool:
    return isinstance(leaf, InRegion | UnderGeocode) or (
        isinstance(leaf, OneOf) and leaf.column in ("dataset", "geocode")
    )


def place_in(
    region: Region | None, bound: Expression | None, definition: DatasetDefinition
) -> Place:
    """Where a complete dataset's tiles lie that match a region and what `place_bound` gave."""
    places: list[Place] = [] if region is None else [region]
    if bound is not None:
        places.append(_of_expression(bound, definition))
    return _all_of(places)


def _of_expression(bound: Expression, definition: DatasetDefinition) -> Place:
    match bound:
        case AllOf(parts):
            return _all_of(_of_expression(part, definition) for part in parts)
        case AnyOf(parts):
            return _any_of(_of_expression(part, definition) for part in parts)
        case InRegion(region):
            return region
        case UnderGeocode(geocode, recursive=recursive):
            return _cells((geocode,), definition, recursive=recursive)
        case OneOf("geocode", values):
            return _cells(values, definition, recursive=False)
        case _:
            assert isinstance(bound, OneOf)
            return EVERYWHERE if definition.name in bound.values else NOWHERE


def _cells(codes: tuple[str, ...], definition: DatasetDefinition, *, recursive: bool) -> Place:
    """The cells of those geocodes that name some of the dataset."""
    assert definition.length is not None
    digits = set(scheme(definition.scheme).alphabet)
    lengths = range(1 if recursive else definition.length, definition.length + 1)
    own = {code for code in codes if len(code) in lengths and digits.issuperset(code)}
    return _Cells(definition.scheme, tuple(sorted(own))) if own else NOWHERE


def _all_of(places: Iterable[Place]) -> Place:
    parts = tuple(dict.fromkeys(place for place in places if place is not EVERYWHERE))
    if NOWHERE in parts:
        return NOWHERE
    return EVERYWHERE if not parts else parts[0] if len(parts) == 1 else _All(parts)


def _any_of(places: Iterable[Place]) -> Place:
    named: dict[int, list[_Cells]] = defaultdict(list)
    others: dict[Place, None] = {}
    for place in places:
        if isinstance(place, _Cells):
            named[len(place.codes[0])].append(place)  # of one length they are looked up at once
        elif place is not NOWHERE:
            others[place] = None
    if EVERYWHERE in others:
        return EVERYWHERE
    parts = (*others, *map(_all_cells, named.values()))
    return NOWHERE if not parts else parts[0] if len(parts) == 1 else _Any(parts)


def _all_cells(places: list[_Cells]) -> _Cells:
    codes = {code for place in places for code in place.codes}
    return _Cells(places[0].scheme_name, tuple(sorted(codes)))
