"""Rows of a snapshot in the one total order (`geostore.query.order`), and only as many as asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from geostore.index.columns import NO_START, Columns, Positions, Snapshot
from geostore.query import Cursor, SortKey
from geostore.query.order import order_key

__all__ = ["behind", "first_in_order", "in_order"]

RANK_FRACTION: Final = 8
"""Ranking all texts of a column takes long after new ones came (50 ms for 100,000), so an answer of
less than this part of them ranks only its own."""
SELECT_FRACTION: Final = 4
"""Fewer than this part of the rows are found before they are sorted."""
SORTED_ROWS: Final = 128
"""So few are sorted at once."""

Keys = npt.NDArray[Any]


def primary_key(snapshot: Snapshot, positions: Positions, sort: SortKey | None) -> Keys:
    """What rows are ordered by first, as numbers whose ascending order is the sort's."""
    columns = snapshot.columns
    if sort in (None, "time"):
        return columns["start_us"][positions]
    if sort == "-time":
        start = columns["start_us"][positions]
        # ~t is -t - 1: it reverses the order without overflow. Unknown times stay last.
        return np.where(start == NO_START, NO_START, ~start)
    assert sort is not None
    values = columns["cloud_cover" if sort.endswith("cloud") else "pixel_coverage"][positions]
    keys = -values if sort.startswith("-") else values
    return np.where(np.isnan(keys), np.float32(np.inf), keys)


def _cell_keys(snapshot: Snapshot, positions: Positions) -> Keys:
    """Numbers that order rows by their geocodes' texts."""
    cells: Keys = snapshot.columns["cell"][positions]
    schemes = {snapshot.grids[number][0] for number in range(len(snapshot.grids))}
    if len(schemes) > 1:
        numbers = np.unique(snapshot.columns["grid"][positions]).tolist()
        if len({snapshot.grids[number][0] for number in numbers}) > 1:
            # Codes of two schemes have digits of different widths: only texts compare.
            texts = snapshot.geocodes(positions).tolist()
            order = {text: rank for rank, text in enumerate(sorted(set(texts)))}
            return np.fromiter((order[text] for text in texts), np.int64, count=len(texts))
    return cells


def _ranks(columns: Columns, name: str, snapshot: Snapshot, positions: Positions) -> Keys:
    """Dense ranks of the texts that rows have by their group."""
    codes = snapshot.group_codes[name][snapshot.columns["group"][positions]]
    interner = columns.groups.interners[name]
    if interner.is_ranked or RANK_FRACTION * len(positions) > len(interner):
        ranks: Keys = interner.ranks()[codes]
        return ranks
    distinct, inverse = np.unique(codes, return_inverse=True)
    values = snapshot.values[name][distinct].tolist()
    order = {value: rank for rank, value in enumerate(sorted(set(values)))}
    found = np.fromiter((order[value] for value in values), np.int64, count=len(values))
    own: Keys = found[inverse]
    return own


def in_order(
    columns: Columns, snapshot: Snapshot, positions: Positions, sort: SortKey | None
) -> Positions:
    """`positions` in order. O(n log n); scenes are ranked only where rows agree in all else."""
    if len(positions) < 2:
        return positions
    keys: list[Keys] = [_cell_keys(snapshot, positions)]
    if len(snapshot.values["dataset"]) > 1:
        keys.append(_ranks(columns, "dataset", snapshot, positions))
    keys.append(snapshot.columns["start_us"][positions])
    if sort not in (None, "time"):
        keys.append(primary_key(snapshot, positions, sort))
    order = np.lexsort(keys)  # the last key is the first to decide
    if _has_ties(keys, order):
        names = ("dataset_id", "version", "scene")
        keys = [_ranks(columns, name, snapshot, positions) for name in names] + keys
        order = np.lexsort(keys)
    return positions[order]


def _has_ties(keys: list[Keys], order: Positions) -> bool:
    """Whether neighbours agree in every key: seldom, a scene has one tile a cell."""
    tied = np.ones(len(order) - 1, dtype=np.bool_)
    for key in keys:
        ordered = key[order]
        tied &= ordered[1:] == ordered[:-1]
        if not tied.any():
            return False
    return True


def first_in_order(
    columns: Columns, snapshot: Snapshot, positions: Positions, sort: SortKey | None, limit: int
) -> Positions:
    """The first `limit` of `positions` in order; O(n + limit log limit) where it is small."""
    if limit and len(positions) > max(SORTED_ROWS, SELECT_FRACTION * limit):
        positions = _least(columns, snapshot, positions, sort, limit)
    return in_order(columns, snapshot, positions, sort)[:limit]


def _least(
    columns: Columns, snapshot: Snapshot, positions: Positions, sort: SortKey | None, count: int
) -> Positions:
    """Rows among which are the first `count`: by key after key, until few agree in all."""
    kinds: list[Callable[[Positions], Keys]] = [lambda at: primary_key(snapshot, at, sort)]
    if sort not in (None, "time"):
        kinds.append(lambda at: snapshot.columns["start_us"][at])
    if len(snapshot.values["dataset"]) > 1:
        kinds.append(lambda at: _ranks(columns, "dataset", snapshot, at))
    kinds.append(lambda at: _cell_keys(snapshot, at))
    taken = []
    for keys_of in kinds:
        if SELECT_FRACTION * count >= len(positions):
            break
        keys = keys_of(positions)
        last = np.partition(keys, count - 1)[count - 1]
        taken.append(positions[keys < last])
        positions = positions[keys == last]
        count -= len(taken[-1])
    return np.concatenate([*taken, positions])


def behind(columns: Columns, snapshot: Snapshot, positions: Positions, cursor: Cursor) -> Positions:
    """Those of `positions` that come after a cursor, in no order. O(n), and O(m log m) for the m
    that agree with it in what rows are ordered by first.
    """
    keys, key = primary_key(snapshot, positions, cursor.sort), _primary_of(cursor)
    equal = in_order(columns, snapshot, positions[keys == key], cursor.sort)
    equal = equal[rows_until(snapshot, equal, cursor) :]
    return np.concatenate([positions[keys > key], equal])


def _primary_of(cursor: Cursor) -> Any:
    """A cursor's place as `primary_key` has it."""
    unknown, primary, time_unknown, time_us, *_ = cursor.key
    if cursor.sort in (None, "time"):
        return NO_START if time_unknown else time_us
    if cursor.sort == "-time":
        return NO_START if unknown else int(primary) - 1  # ~t of -t
    return np.float32(np.inf) if unknown else np.float32(primary)


def rows_until(snapshot: Snapshot, positions: Positions, cursor: Cursor) -> int:
    """How many of ordered rows are not after the cursor; O(log n) rows are made."""
    low, high = 0, len(positions)
    while low < high:
        middle = (low + high) // 2
        row = snapshot.batch(positions[middle : middle + 1], ("",))
        if order_key(row, 0, cursor.sort) <= cursor.key:
            low = middle + 1
        else:
            high = middle
    return low
