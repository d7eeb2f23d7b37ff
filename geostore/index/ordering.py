"""Rows of a snapshot in the one total order (`geostore.query.order`), and only as many as asked.

Nothing here looks at more than the snapshot, so rows may be put in order long after they were
found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from geostore.index.columns import NO_START, Positions, Snapshot
from geostore.query import Cursor, SortKey
from geostore.query.order import order_key

__all__ = ["behind", "in_order", "in_pieces"]

FIRST_ROWS: Final = 256
"""Of a long answer so many are put in order, and given out, before the others are."""
GROWTH: Final = 4
"""So many times as long is the next piece."""
SORTED_ROWS: Final = 128
"""So few are sorted without a look for the first of them."""
WHOLE_ROWS: Final = 4096
"""So few are put in order at once, or so few behind pieces that were given."""
CANDIDATES: Final = 4
"""The first rows are sorted out of at most so many times as many, where keys can tell."""
FEW_ROWS: Final = 1024
"""So few are sorted by all keys at once."""
CODES_MAX: Final = 1 << 16
"""Numbers below this are sorted in linear time."""
ROOM_MAX: Final = 1 << 62

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


def _ranks(name: str, snapshot: Snapshot, positions: Positions) -> Keys:
    """Dense ranks of the texts that rows have by their group; O(n log n)."""
    codes = snapshot.group_codes[name][snapshot.columns["group"][positions]]
    distinct, inverse = np.unique(codes, return_inverse=True)
    values = snapshot.values[name][distinct].tolist()
    order = {value: rank for rank, value in enumerate(sorted(set(values)))}
    found = np.fromiter((order[value] for value in values), np.int64, count=len(values))
    own: Keys = found[inverse]
    return own


def _dataset_ranks(snapshot: Snapshot, positions: Positions) -> Keys:
    """As `_ranks`: datasets are so few that all of them are ranked."""
    own: Keys = snapshot.dataset_ranks[snapshot.columns["group"][positions]]
    return own


def _key_functions(
    snapshot: Snapshot, sort: SortKey | None
) -> list[Callable[[Snapshot, Positions], Keys]]:
    """What rows are ordered by, the first to decide first; all but what tells apart rows of one
    cell, dataset and time.
    """
    functions: list[Callable[[Snapshot, Positions], Keys]] = []
    if sort not in (None, "time"):
        functions.append(partial(primary_key, sort=sort))
    functions.append(partial(primary_key, sort=None))
    if len(snapshot.values["dataset"]) > 1:
        functions.append(_dataset_ranks)
    functions.append(_cell_keys)
    return functions


def in_order(snapshot: Snapshot, positions: Positions, sort: SortKey | None) -> Positions:
    """`positions` in order. O(n log n); scenes are ranked only where rows agree in all else."""
    if len(positions) < 2:
        return positions
    keys = [key(snapshot, positions) for key in _key_functions(snapshot, sort)]
    order = _sorted_by(keys)
    tied = _ties(keys, order)
    if tied.any():
        _tell_apart(snapshot, positions, order, tied)
    return positions[order]


def _sorted_by(keys: list[Keys]) -> Positions:
    """The permutation that sorts by `keys`, the first to decide first; ties lie anyhow.

    As `np.lexsort`, of many rows in half the time: the keys before the last have few values
    (scenes have one time), so their ranks together are one small number a row, which is sorted
    in linear time.
    """
    if len(keys[0]) <= FEW_ROWS:
        return np.lexsort(keys[::-1])  # its last key is the first to decide
    *major, least = keys
    order = np.argsort(least)
    packed: Keys = np.zeros(len(order), np.int64)
    room = 1
    for key in major:
        distinct, codes = np.unique(key[order], return_inverse=True)
        room *= len(distinct)
        if room > ROOM_MAX:
            return np.lexsort(keys[::-1])
        packed = packed * len(distinct) + codes
    if room <= CODES_MAX:
        packed = packed.astype(np.uint16)
    return order[np.argsort(packed, kind="stable")]


def _ties(keys: list[Keys], order: Positions) -> npt.NDArray[np.bool_]:
    """Where neighbours agree in every key: seldom, a scene has one tile a cell."""
    tied = np.ones(len(order) - 1, dtype=np.bool_)
    for key in reversed(keys):
        ordered = key[order]
        tied &= ordered[1:] == ordered[:-1]
        if not tied.any():
            break
    return tied


def _tell_apart(
    snapshot: Snapshot, positions: Positions, order: Positions, tied: npt.NDArray[np.bool_]
) -> None:
    """Puts runs of ties in order by scene, version and id of the dataset, within `order`."""
    is_in_run = np.zeros(len(order), dtype=np.bool_)
    is_in_run[1:] |= tied
    is_in_run[:-1] |= tied
    places = np.flatnonzero(is_in_run)
    runs = np.cumsum(np.concatenate([[False], ~tied]))[places]
    rows = order[places]
    names = ("dataset_id", "version", "scene")
    ranks = [_ranks(name, snapshot, positions[rows]) for name in names]
    order[places] = rows[np.lexsort([*ranks, runs])]


def in_pieces(
    snapshot: Snapshot, positions: Positions, sort: SortKey | None, limit: int | None = None
) -> Iterator[Positions]:
    """`positions` in order, at most `limit`: few at first, then growing pieces, then the rest.

    O(n + k log k) until the first k = FIRST_ROWS are there. Whoever wants no more has caused
    little work, and one who waits for the first does not wait for the last.
    """
    if limit == 0:
        return
    if limit is not None and max(limit, SORTED_ROWS) < len(positions):
        positions = _least(snapshot, positions, sort, limit)
    left = len(positions) if limit is None else min(limit, len(positions))
    rows = FIRST_ROWS
    while left > WHOLE_ROWS and rows <= WHOLE_ROWS:
        first, positions = _first_of(snapshot, positions, sort, rows)
        yield first
        left -= rows
        rows *= GROWTH
    if left:
        yield in_order(snapshot, positions, sort)[:left]


def _first_of(
    snapshot: Snapshot, positions: Positions, sort: SortKey | None, rows: int
) -> tuple[Positions, Positions]:
    """(the first rows, in order; the others, in no order). There are more than `rows`."""
    is_near = np.zeros(snapshot.count, dtype=np.bool_)
    near = _least(snapshot, positions, sort, rows)
    is_near[near] = True
    first, others = np.split(in_order(snapshot, near, sort), [rows])
    return first, np.concatenate([others, positions[~is_near[positions]]])


def _least(snapshot: Snapshot, positions: Positions, sort: SortKey | None, count: int) -> Positions:
    """Rows among which are the first `count`, in no order; more than `CANDIDATES * count` only
    where rows agree in all keys. O(n).
    """
    chosen: list[Positions] = []
    left = count
    for key in _key_functions(snapshot, sort):
        if len(positions) <= CANDIDATES * left:
            break
        keys = key(snapshot, positions)
        last = np.partition(keys, left - 1)[left - 1]
        chosen.append(positions[keys < last])
        positions = positions[keys == last]
        left -= len(chosen[-1])
    return np.concatenate([*chosen, positions])


def behind(snapshot: Snapshot, positions: Positions, cursor: Cursor) -> Positions:
    """Those of `positions` that come after a cursor, in no order. O(n), and O(m log m) for the m
    that agree with it in what rows are ordered by first.
    """
    keys, key = primary_key(snapshot, positions, cursor.sort), _primary_of(cursor)
    equal = in_order(snapshot, positions[keys == key], cursor.sort)
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
