"""The cells that match a region, found from the root down."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInputError
from geostore.grid.cells import Scheme
from geostore.grid.region import Region

__all__ = ["CELLS_CEILING", "covering"]

CELLS_CEILING = 1 << 24
"""The most cells of one covering, whatever the caller allows: their names alone take 1 GB."""

_CHUNK = 1 << 12  # cells whose children are looked at together
_FEW = 1024  # candidates that are tested without a way down to them
_LAST_LONGITUDE = float(np.nextafter(180.0, 0.0))

Integers = npt.NDArray[np.int64]
Cells = tuple[Integers, Integers]
"""(columns, rows) of cells of one length."""


def covering(
    scheme: Scheme, region: Region, length: int, *, cells_max: int | None = None
) -> list[str]:
    """The geocodes of `length` whose cells match a region, sorted; exactly those.

    Where the region reaches past the scheme's extent (a quadtile region beyond 85.05 degrees)
    only what lies inside counts; that may leave no cell.

    Takes time and memory in proportion to the answer: cells that the region covers are not
    descended into, and every cell that is holds at least one of the answer, so a region that
    is too large is refused as soon as `cells_max` cells are certain.

    Raises:
        InvalidInputError: a length that the scheme does not have, or more than `cells_max`
            cells.
    """
    if length < 1:
        scheme.grid_size(length)
        raise InvalidInputError(f"{scheme.name} length {length}: expected at least 1")
    columns_all, rows_all = scheme.grid_size(length)
    limit = CELLS_CEILING if cells_max is None else min(cells_max, CELLS_CEILING)
    few = _few_candidates(scheme, region, length)
    if few is not None:
        matches = region.matches_cells(scheme, *few, length)
        if int(matches.sum()) > limit:
            raise InvalidInputError(_too_many(scheme, length, limit))
        return _names(scheme, (few[0][matches], few[1][matches]), length)
    whole: list[tuple[int, Cells]] = []
    certain = 0
    frontier: Cells = (np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))
    for level in range(length + 1):
        columns, rows = scheme.grid_size(level)
        cells_each = (columns_all // columns) * (rows_all // rows)
        kept: list[Cells] = []
        for chunk in _chunks(frontier):
            cells = chunk if level == 0 else _descendants(scheme, chunk, level - 1, level)
            relation = region.cells_relation(scheme, *cells, level)
            inside = relation == 2 if level < length else relation > 0
            partial = relation == 1 if level < length else np.zeros_like(inside)
            certain += int(inside.sum()) * cells_each + int(partial.sum())
            if certain > limit:
                raise InvalidInputError(_too_many(scheme, length, limit))
            if inside.any():
                whole.append((level, (cells[0][inside], cells[1][inside])))
            kept.append((cells[0][partial], cells[1][partial]))
        frontier = _joined(kept)
        certain -= len(frontier[0])  # counted again, as their children
    answer = _joined([_descendants(scheme, cells, level, length) for level, cells in whole])
    return _names(scheme, answer, length)


def _names(scheme: Scheme, cells: Cells, length: int) -> list[str]:
    columns, rows = cells
    order = np.argsort(scheme.sort_keys(columns, rows, length))
    names: list[str] = scheme.geocodes_at(columns[order], rows[order], length).tolist()
    return names


def _few_candidates(scheme: Scheme, region: Region, length: int) -> Cells | None:
    """All cells that the region's boxes touch, where they are few: then they are tested at
    once, and the way down from the root is saved. None where they are many.
    """
    columns_all, rows_all = scheme.grid_size(length)
    ends = scheme.bounds_at(np.zeros(2, np.int64), np.array([0, rows_all - 1]), length)
    south, north = ends[:, 1].min(), ends[:, 3].max()
    keys = []
    for box in region.bboxes:
        lon = np.clip([box.west, box.east], -180.0, _LAST_LONGITUDE)
        columns, rows = scheme.locate_many(
            lon, np.clip([box.south, box.north], south, north), length
        )
        # One more on each side: a place on an edge may match the cell beyond it.
        wide, high = int(columns[1] - columns[0]) + 3, int(rows.max() - rows.min()) + 3
        if wide * high * len(region.bboxes) > _FEW:
            return None
        column = np.arange(columns[0] - 1, columns[0] - 1 + wide) % columns_all
        row = np.arange(max(0, rows.min() - 1), min(rows_all, rows.max() + 2))
        keys.append((row[:, None] * columns_all + column[None, :]).reshape(-1))
    found = np.unique(np.concatenate([np.zeros(0, np.int64), *keys]))
    return found % columns_all, found // columns_all


def _too_many(scheme: Scheme, length: int, limit: int) -> str:
    return (
        f"the region takes more than {limit:,} {scheme.name} cells of length {length}, the most"
        " allowed (cells_max): expected a smaller region or a shorter length"
    )


def _chunks(cells: Cells) -> list[Cells]:
    columns, rows = cells
    return [
        (columns[start : start + _CHUNK], rows[start : start + _CHUNK])
        for start in range(0, len(columns), _CHUNK)
    ]


def _joined(pieces: list[Cells]) -> Cells:
    empty = np.zeros(0, dtype=np.int64)
    return (
        np.concatenate([empty, *(columns for columns, _ in pieces)]),
        np.concatenate([empty, *(rows for _, rows in pieces)]),
    )


def _descendants(scheme: Scheme, cells: Cells, level: int, below: int) -> Cells:
    """All cells of length `below` under cells of length `level`."""
    columns, rows = scheme.grid_size(level)
    columns_below, rows_below = scheme.grid_size(below)
    wide, high = columns_below // columns, rows_below // rows
    column = (cells[0] * wide)[:, None, None] + np.arange(wide)[None, None, :]
    row = (cells[1] * high)[:, None, None] + np.arange(high)[None, :, None]
    shape = (len(cells[0]), high, wide)
    return np.broadcast_to(column, shape).reshape(-1), np.broadcast_to(row, shape).reshape(-1)
