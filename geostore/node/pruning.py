"""Which slots could hold a tile that a query asks for: only their nodes are asked.

A tile lies in the slot of its placement key, the first characters of its geocode. A cell matches
a region exactly if one of the cells under it does (see `geostore.grid.region`), so the slots of
an answer are those of the placement keys whose own cells match: nothing is missed, and no slot
is named without such a key. (Of two places that must both hold, a key's cell may match each
without a cell under it that matches both: then its slot is named.) What a query's `where` implies
about places and datasets (`geostore.node.places`) is a place too, dataset by dataset: the slots of
either of two places are those of both, a `Not` leaves none out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from geostore.grid import Scheme, scheme
from geostore.node.places import EVERYWHERE, NOWHERE, Place, place_bound, place_in
from geostore.query import Query
from geostore.ring import SLOTS_TOTAL, slot_of
from geostore.types import DatasetDefinition, SchemeName

__all__ = ["KEYS_ALL", "slots_matching"]

KEYS_ALL: Final = 1 << 17
"""So many keys are taken to hit all slots, unhashed: 4096 exp(-32) slots would be missed."""

_KEYS_HASHED: Final = 256  # between two looks at whether to stop
_CELLS_WALKED: Final = 64  # whose children are looked at together
_CANDIDATES_MAX: Final = 2048  # cells that are tested at once, without a walk
_WALK_BITS: Final = 4  # a step of the walk goes down at least so many bits

Integers = npt.NDArray[np.int64]
Cells = tuple[Integers, Integers]
"""(columns, rows) of cells of one length."""
IsEnough = Callable[[set[int]], bool]


class _AllSlots(Exception):  # noqa: N818  # a way out of the walk, no error
    """Every slot, or one slot of everyone that could be asked, is hit."""


def slots_matching(
    query: Query,
    definitions: Sequence[DatasetDefinition],
    *,
    is_enough: IsEnough | None = None,
) -> frozenset[int] | None:
    """The slots that could hold a tile which matches the query's place; None: all of them.

    Datasets that are not complete have no tiles. A place of a few hundred keys has its exact
    slots; in a longer search `is_enough` is told the slots found so far now and then, and ends
    it, with None, when it says so: where every node is going to be asked anyway it does not
    matter which of their slots match. At most KEYS_ALL keys are hashed a scheme and placement
    length, whatever the region.
    """
    search = _Search(is_enough)
    bound = place_bound(query)
    parts: dict[tuple[SchemeName, int, str, Place], None] = {}
    for definition in definitions:
        if query.datasets is None or definition.name in query.datasets:
            key = _part(query, definition)
            if key is not None:
                place = place_in(query.region, bound, definition)
                parts[(*key, place)] = None
    try:
        for name, placement, prefix, place in parts:
            for keys in _placement_keys(place, name, placement, prefix):
                search.add(keys)
    except _AllSlots:
        return None
    return frozenset(search.slots)


def _part(query: Query, definition: DatasetDefinition) -> tuple[SchemeName, int, str] | None:
    """What a dataset's part of the search depends on, but for the place; None: it has no tile to
    find.
    """
    if not definition.is_complete:
        return None
    assert definition.length is not None
    assert definition.placement is not None
    prefix = query.geocode or ""
    too_long = len(prefix) > definition.length
    too_short = bool(prefix) and not query.recursive and len(prefix) < definition.length
    if too_long or too_short or not set(prefix) <= set(scheme(definition.scheme).alphabet):
        return None
    return definition.scheme, definition.placement, prefix


class _Search:
    """The slots found so far."""

    def __init__(self, is_enough: IsEnough | None) -> None:
        self.slots: set[int] = set()
        self._is_enough = is_enough
        self._unseen = 0  # keys hashed since the last look

    def add(self, keys: Sequence[str]) -> None:
        """Raises _AllSlots before it hashes more keys than are needed."""
        for start in range(0, len(keys), _KEYS_HASHED):
            if self._unseen >= _KEYS_HASHED:
                self._unseen = 0
                if self._is_enough is not None and self._is_enough(self.slots):
                    raise _AllSlots
            chunk = keys[start : start + _KEYS_HASHED]
            self.slots.update(map(slot_of, chunk))
            self._unseen += len(chunk)
            if len(self.slots) == SLOTS_TOTAL:
                raise _AllSlots


def _placement_keys(
    place: Place, name: SchemeName, placement: int, prefix: str
) -> Iterator[list[str]]:
    """The placement keys under `prefix`, or around it, whose cells match; each once.

    Raises _AllSlots: there are more than KEYS_ALL.
    """
    grid = scheme(name)
    if place is NOWHERE:
        return
    if len(prefix) >= placement:
        if place is EVERYWHERE or place.matches(grid, prefix):
            yield [prefix[:placement]]
        return
    if place is EVERYWHERE:
        yield list(_keys_under(name, placement, prefix))
        return
    candidates = _cells_near(grid, place, placement)
    if candidates is not None:
        yield from _tested(grid, place, placement, prefix, candidates)
        return
    certain = 0
    for level, cells in _walk(grid, place, placement, prefix):
        certain += len(cells[0]) << _bits_between(grid, level, placement)
        if certain > KEYS_ALL:
            raise _AllSlots
        yield grid.geocodes_at(*_descendants(grid, cells, level, placement), placement).tolist()


@lru_cache(maxsize=16)
def _keys_under(name: SchemeName, placement: int, prefix: str) -> tuple[str, ...]:
    grid = scheme(name)
    if 1 << _bits_between(grid, len(prefix), placement) > KEYS_ALL:
        raise _AllSlots
    column, row = grid.cell_index(prefix)
    cells = _descendants(grid, (np.array([column]), np.array([row])), len(prefix), placement)
    return tuple(grid.geocodes_at(*cells, placement).tolist())


def _bits_between(grid: Scheme, level: int, below: int) -> int:
    """A cell of length `level` has two to this power cells of length `below`."""
    return sum(grid.bits(below)) - sum(grid.bits(level))


def _cells_near(grid: Scheme, place: Place, length: int) -> Cells | None:
    """All cells in or beside the boxes around a place; None: too many to test each.

    What most queries need, small places, without a walk from the root.
    """
    columns, _ = grid.grid_size(length)
    extent = grid.bounds("")
    numbers: set[int] = set()
    for box in place.bboxes:
        if box.north < extent.south or box.south > extent.north:
            continue
        lat = np.clip([box.north, box.south], extent.south, extent.north)
        # 180 degrees is -180 to the grid: the box's east edge there is the last column's.
        (west, east), (top, bottom) = grid.locate_many([box.west, box.east], lat, length)
        if box.east == 180.0:
            east = columns - 1
        wide, high = int(east - west) + 1, int(bottom - top) + 1
        if wide < 1 or wide * high > _CANDIDATES_MAX:
            return None
        column = np.arange(west, east + 1)[None, :]
        row = np.arange(top, bottom + 1)[:, None]
        numbers.update((row * columns + column).reshape(-1).tolist())
        if len(numbers) > _CANDIDATES_MAX:
            return None
    each = np.array(sorted(numbers), dtype=np.int64)
    return each % columns, each // columns


def _tested(
    grid: Scheme, place: Place, placement: int, prefix: str, cells: Cells
) -> Iterator[list[str]]:
    """The names of those cells that match and lie under `prefix`."""
    matched = place.matches_cells(grid, *cells, placement)
    names: list[str] = grid.geocodes_at(cells[0][matched], cells[1][matched], placement).tolist()
    yield [name for name in names if name.startswith(prefix)]


def _walk(grid: Scheme, place: Place, placement: int, prefix: str) -> Iterator[tuple[int, Cells]]:
    """Cells under `prefix`, apart from each other, with their length: all keys under them match.

    Depth first: where a few hundred keys tell that every node is asked, the rest of a long
    coast is never looked at. The stack holds a step's children a level.
    """
    column, row = grid.cell_index(prefix)
    stack: list[tuple[int, Cells]] = [(len(prefix), (np.array([column]), np.array([row])))]
    while stack:
        level, (columns, rows) = stack.pop()
        if len(columns) > _CELLS_WALKED:
            stack.append((level, (columns[_CELLS_WALKED:], rows[_CELLS_WALKED:])))
            columns, rows = columns[:_CELLS_WALKED], rows[:_CELLS_WALKED]
        below = level + 1
        while below < placement and _bits_between(grid, level, below) < _WALK_BITS:
            below += 1
        cells = _descendants(grid, (columns, rows), level, below)
        relation = place.cells_relation(grid, *cells, below)
        whole = relation == 2 if below < placement else relation > 0
        partial = (relation > 0) & ~whole
        if partial.any():
            stack.append((below, (cells[0][partial], cells[1][partial])))
        if whole.any():
            yield below, (cells[0][whole], cells[1][whole])


def _descendants(grid: Scheme, cells: Cells, level: int, below: int) -> Cells:
    """All cells of length `below` under cells of length `level`."""
    (columns, rows), (columns_below, rows_below) = grid.grid_size(level), grid.grid_size(below)
    wide, high = columns_below // columns, rows_below // rows
    column = (cells[0] * wide)[:, None, None] + np.arange(wide)[None, None, :]
    row = (cells[1] * high)[:, None, None] + np.arange(high)[None, :, None]
    shape = (len(cells[0]), high, wide)
    return np.broadcast_to(column, shape).reshape(-1), np.broadcast_to(row, shape).reshape(-1)
