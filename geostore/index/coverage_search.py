"""Which tiles together cover their cell: bounds from bitmaps, for whole catalogs at once.

With bitmaps at hand (`index.row_bitmaps`) a million tiles take about a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from geostore.index.columns import NO_START, Positions, Snapshot
from geostore.index.packing import BITMAP_WORDS, HAS_BITMAPS
from geostore.index.row_bitmaps import Bitmaps
from geostore.query.coverage import CoverageGroups, CoverageRequest
from geostore.types import BITMAP_SIDE, NULL_TIME, block_edges

__all__ = ["Cells", "Found", "datasets_of", "search"]

_Words = npt.NDArray[np.uint64]
_Counts = npt.NDArray[np.int64]
_PLANE_WORDS: Final = BITMAP_WORDS // 4
_VALID, _CLEAR = 0, 2
_ONES: Final = np.uint64(2**64 - 1)
_EXACT_TOTAL: Final = 1 << 22
"""Cells of so many pixels: a coverage in float32 percent tells the very count."""


@dataclass(frozen=True, slots=True)
class Cells:
    """What a search must know of a dataset."""

    height: int
    """Pixels of a cell's finest grid."""
    width: int
    is_provider_ruled: bool
    """Whether the clear bitmaps are of its cloud rule."""


@dataclass(frozen=True, slots=True)
class Found:
    """Groups, and where their rows are."""

    groups: CoverageGroups
    members: Positions
    """Of the groups asked for, group after group."""
    member_group: npt.NDArray[np.int64]


def _dense(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Distinct values in order, and each value's number among them.

    Codes of a small range are counted, not sorted.
    """
    if not len(values):
        return values, np.empty(0, dtype=np.int64)
    if values.dtype.kind == "i":
        least, most = int(values.min()), int(values.max())
        if most - least < max(4 * len(values), 1024):
            shifted = (values - least).astype(np.int64, copy=False)
            is_there = np.zeros(most - least + 1, dtype=np.bool_)
            is_there[shifted] = True
            numbers = np.cumsum(is_there, dtype=np.int64) - 1
            return np.flatnonzero(is_there).astype(values.dtype) + least, numbers[shifted]
    distinct, inverse = np.unique(values, return_inverse=True)
    return distinct, inverse.astype(np.int64, copy=False)


def _dataset_order(
    snapshot: Snapshot, positions: Positions
) -> tuple[list[tuple[str, str]], npt.NDArray[np.int64]]:
    """(name, id) of the datasets of rows, in order, and each row's number among them."""
    groups = snapshot.columns["group"][positions]
    codes, inverse = _dense(snapshot.group_codes["dataset_id"][groups])
    names: list[tuple[str, str]] = []
    for number, code in enumerate(codes.tolist()):
        first = groups[int(np.argmax(inverse == number))]
        name = snapshot.values["dataset"][snapshot.group_codes["dataset"][first]]
        names.append((str(name), str(snapshot.values["dataset_id"][code])))
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return [names[at] for at in order], rank[inverse]


def datasets_of(snapshot: Snapshot, positions: Positions) -> list[tuple[str, str]]:
    """(name, id) of the datasets of rows, in order."""
    return _dataset_order(snapshot, positions)[0]


def search(
    snapshot: Snapshot,
    positions: Positions,
    request: CoverageRequest,
    bitmaps: Bitmaps,
    cells_of: Mapping[str, Cells],
) -> Found:
    """Groups of rows with bounds of what their tiles see together.

    Args:
        snapshot: where the rows are.
        positions: the rows.
        request: what is asked.
        bitmaps: of these rows.
        cells_of: by dataset id.
    """
    start_us = snapshot.columns["start_us"][positions]
    if request.windows is not None:
        has_time = start_us != NO_START
        if not has_time.all():
            positions, start_us = positions[has_time], start_us[has_time]
            bitmaps = bitmaps.only(has_time)
    names, dataset = _dataset_order(snapshot, positions)
    packed, cell = _dense(snapshot.columns["cell"][positions])
    if request.windows is None:
        numbers, window = np.zeros(1, dtype=np.int64), np.zeros(len(positions), dtype=np.int64)
    else:
        numbers, window = _dense(request.windows.indices(start_us))
    key = (dataset * len(packed) + cell) * len(numbers) + window
    order = np.argsort(key, kind="stable")
    positions, key, bitmaps = positions[order], key[order], bitmaps.only(order)
    firsts = np.flatnonzero(np.diff(key, prepend=-1))
    tiles = np.diff(firsts, append=len(key))
    dataset, cell, window = (each[order][firsts] for each in (dataset, cell, window))
    total, lower, upper = _bounds(
        snapshot, positions, firsts, tiles, request, bitmaps, [cells_of[each] for _, each in names],
        dataset,
    )  # fmt: skip
    heads = positions[firsts]
    if request.windows is None:
        starts = ends = np.full(len(firsts), NULL_TIME)
    else:
        starts, ends = request.windows.spans(numbers[window])
    groups = CoverageGroups(
        dataset_id=snapshot.group_values("dataset_id", heads),
        dataset=snapshot.group_values("dataset", heads),
        geocode=_geocodes(snapshot, heads, dataset * len(packed) + cell),
        start_us=starts,
        end_us=ends,
        tiles=tiles.astype(np.int64),
        lower=lower,
        upper=upper,
        total=total,
        scene=snapshot.group_values("scene", positions),
    )
    wanted = np.zeros(len(groups), dtype=np.bool_)
    if request.members == "all":
        wanted[:] = True
    elif request.members == "unsure":
        is_certain, is_possible = groups.reaches(request.target)
        wanted = is_possible & ~is_certain
    number = np.repeat(np.arange(len(groups), dtype=np.int64), tiles)
    is_member = wanted[number]
    return Found(groups, positions[is_member], number[is_member])


def _geocodes(
    snapshot: Snapshot, heads: Positions, place: npt.NDArray[np.int64]
) -> npt.NDArray[np.object_]:
    """The cells of groups as texts, by a row of each. Groups of one place lie side by side, and
    its text is made once: of a cell seen sixty times that is a third of a search.
    """
    firsts = np.flatnonzero(np.diff(place, prepend=-1))
    texts = snapshot.geocodes(heads[firsts])
    return np.repeat(texts, np.diff(firsts, append=len(heads)))


def _bounds(
    snapshot: Snapshot,
    positions: Positions,
    firsts: npt.NDArray[np.int64],
    tiles: npt.NDArray[np.int64],
    request: CoverageRequest,
    bitmaps: Bitmaps,
    cells: list[Cells],
    dataset: npt.NDArray[np.int64],
) -> tuple[_Counts, _Counts, _Counts]:
    """Of each group all pixels, those that are certain and those that are possible."""
    shapes = np.array([(each.height, each.width) for each in cells], np.int64).reshape(-1, 2)
    total = shapes[dataset].prod(axis=1)
    if not len(firsts):
        return total, total, total
    known = bitmaps.kinds() & HAS_BITMAPS > 0
    unknown = np.flatnonzero(~known)
    first = _VALID
    nothing: npt.NDArray[np.intp] | None = None
    if request.clear:
        ruled = np.array([each.is_provider_ruled for each in cells], np.bool_)[dataset]
        ruled = np.repeat(ruled, tiles)
        # Another rule's clouds lie elsewhere: what is certain then is nothing, what is possible
        # all that is valid. A tile with bitmaps but none of clear blocks has nothing known clear.
        nothing = np.flatnonzero(~(ruled & known))
        of_nothing = bitmaps.only(nothing)
        first = _CLEAR
    lower, upper = np.zeros(len(firsts), np.int64), np.zeros(len(firsts), np.int64)
    of_shapes: list[tuple[Any, _BlockPixels]] = []
    for height, width in np.unique(shapes, axis=0).tolist():
        own: Any = (shapes[dataset] == (height, width)).all(axis=1)
        of_shapes.append((slice(None) if own.all() else own, _BlockPixels(height, width)))
    for word in range(_PLANE_WORDS):
        every = bitmaps.plane(first * _PLANE_WORDS + word)
        some = bitmaps.plane((first + 1) * _PLANE_WORDS + word)
        if nothing is not None and len(nothing):
            every[nothing] = 0
            some[nothing] = of_nothing.plane(_PLANE_WORDS + word)
        every[unknown] = 0
        some[unknown] = _ONES
        for found, plane in ((lower, every), (upper, some)):
            united = np.bitwise_or.reduceat(plane, firsts)
            for own, pixels in of_shapes:
                found[own] += pixels.of(word, united[own])
    _tighten(snapshot, positions, firsts, total, lower, upper, clear=request.clear)
    return total, lower, upper


class _BlockPixels:
    """How many pixels the blocks of cells of one shape have."""

    def __init__(self, height: int, width: int) -> None:
        rows, columns = (np.diff(block_edges(side)) for side in (height, width))
        self._rows = rows
        self._block = int(rows[0] * columns[0])
        self._of_columns: _Counts | None = None
        if np.ptp(rows) or np.ptp(columns):
            # Of each number of 16 bits, which is a row of blocks, the pixels of its set columns.
            numbers = np.arange(1 << BITMAP_SIDE, dtype=np.uint32)
            self._of_columns = np.zeros(1 << BITMAP_SIDE, dtype=np.int64)
            for column in range(BITMAP_SIDE):
                is_set = numbers >> np.uint32(column) & np.uint32(1)
                self._of_columns += is_set * int(columns[column])

    def of(self, word: int, plane: _Words) -> _Counts:
        """Pixels of the set blocks in one of the 4 words of bitmaps."""
        if self._of_columns is None:
            return np.bitwise_count(plane).astype(np.int64) * self._block
        in_word = BITMAP_SIDE // _PLANE_WORDS
        bits = plane.astype("<u8", copy=False).view("<u2").reshape(-1, in_word)
        count = np.zeros(len(plane), dtype=np.int64)
        for row in range(in_word):
            count += self._of_columns[bits[:, row]] * int(self._rows[in_word * word + row])
        return count


def _tighten(
    snapshot: Snapshot,
    positions: Positions,
    firsts: npt.NDArray[np.int64],
    total: _Counts,
    lower: _Counts,
    upper: _Counts,
    *,
    clear: bool,
) -> None:
    """Takes in what tiles' own coverages say: the union is no less than one, nor more than all.

    They tell of pixels that are scattered over blocks, of which no block is whole.
    """
    coverage = snapshot.columns["pixel_coverage"][positions].astype(np.float64)
    slack = np.where(total <= _EXACT_TOTAL, 0.0, total / (1 << 23) + 1.0)
    tiles = np.diff(firsts, append=len(positions))
    together = np.rint(np.add.reduceat(np.rint(coverage * np.repeat(total, tiles) / 100.0), firsts))
    np.minimum(upper, (together + slack * tiles).astype(np.int64), out=upper)
    if not clear:
        largest = np.rint(np.maximum.reduceat(coverage, firsts) * total / 100.0) - slack
        np.maximum(lower, largest.astype(np.int64), out=lower)
    np.minimum(lower, upper, out=lower)
