"""The one total order of rows, and positions in it.

Rows are ordered by the sort key; then time, dataset, geocode, scene, version, dataset id,
ascending. Unknown values come last in both directions. Text compares by code point
(Python's order of str, which is also the order of its UTF-8 bytes). Because the order is
total, any split of the rows over nodes, merged, gives the same sequence, and "after this
row" means the same everywhere.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Self, get_args

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInputError
from geostore.query.identity import object_runs
from geostore.query.terms import GEOCODE_LENGTH_MAX
from geostore.query.value import SortKey
from geostore.types import NULL_TIME, RowBatch

__all__ = [
    "Cursor",
    "OrderKey",
    "count_until",
    "order_key",
    "primary_keys",
    "sort_batch",
    "sort_positions",
    "time_keys",
]

OrderKey = tuple[bool, float, bool, int, str, str, str, str, str]
"""(primary unknown, primary, time unknown, time, dataset, geocode, scene, version, id).

Tuples compare as the rows do. The primary is 0.0 where the sort is by time ascending: the
time that follows decides. A descending key is negated, which is exact for float32 values
and, see `order_key`, for times.
"""


def time_keys(time_us: npt.NDArray[np.int64], *, descending: bool = False) -> npt.NDArray[np.int64]:
    """int64 keys whose ascending order is the time's, unknown last.

    NULL_TIME is the least int64; the greatest stands for it here. `~t` (which is -t - 1)
    reverses the order without the overflow that `-t` has at the least int64.
    """
    if descending:
        return np.asarray(~time_us, dtype=np.int64)
    return np.where(time_us == NULL_TIME, np.iinfo(np.int64).max, time_us)


def primary_keys(
    sort: SortKey | None,
    time_us: npt.NDArray[np.int64],
    cloud_cover: npt.NDArray[np.float32],
    pixel_coverage: npt.NDArray[np.float32],
) -> npt.NDArray[Any] | None:
    """Keys whose ascending order is the sort's, unknown last; None where time alone decides."""
    if sort is None or sort == "time":
        return None
    if sort == "-time":
        return time_keys(time_us, descending=True)
    values = cloud_cover if sort.endswith("cloud") else pixel_coverage
    keys = -values if sort.startswith("-") else values
    return np.where(np.isnan(keys), np.float32(np.inf), keys)


def _text_ranks(column: npt.NDArray[np.object_]) -> tuple[npt.NDArray[np.int64], int]:
    """Dense ranks of a column of str, and how many there are.

    Values are interned, so each distinct object is looked at once, not each row.
    """
    starts, ids = object_runs(column)
    _, firsts, inverse = np.unique(ids, return_index=True, return_inverse=True)
    values = column[starts[firsts]].tolist()
    order = {text: rank for rank, text in enumerate(sorted(set(values)))}
    ranks = np.fromiter((order[text] for text in values), dtype=np.int64, count=len(values))
    return np.repeat(ranks[inverse], np.diff(starts, append=len(column))), len(order)


def _geocode_keys(column: npt.NDArray[np.object_]) -> list[npt.NDArray[Any]]:
    """Keys of the geocodes' order for lexsort: eight characters a number.

    Geocodes differ from row to row and are short, so their characters are compared, not
    their ranks. A zero byte pads the shorter, which then comes first, as str has it.
    """
    texts = column.tolist()
    joined = "".join(texts)
    length = max(map(len, texts), default=0)
    if not joined.isascii() or "\0" in joined or length > GEOCODE_LENGTH_MAX:
        return [_text_ranks(column)[0]]
    words = max(1, -(-length // 8))
    if joined and len(joined) == length * len(texts):  # all of one length: no string is looked at
        letters = np.zeros((len(texts), 8 * words), dtype=np.uint8)
        letters[:, :length] = np.frombuffer(joined.encode(), np.uint8).reshape(-1, length)
        padded = letters.view(">u8")
    else:
        padded = np.array(texts, dtype=f"S{8 * words}").view(">u8").reshape(-1, words)
    return [np.ascontiguousarray(padded[:, word], np.uint64) for word in reversed(range(words))]


def _rank_keys(columns: tuple[npt.NDArray[np.object_], ...]) -> list[npt.NDArray[Any]]:
    """Keys of text columns for lexsort, the first column the most significant.

    Ranks are small, so several columns fit one int64; a column of one value decides nothing.
    """
    keys: list[npt.NDArray[Any]] = []
    packed, room = None, 1
    for column in columns:
        ranks, count = _text_ranks(column)
        if count <= 1:
            continue
        if packed is None:
            packed, room = ranks, count
        elif room * count > np.iinfo(np.int64).max:
            keys.append(packed)
            packed, room = ranks, count
        else:
            packed, room = packed * count + ranks, room * count
    if packed is not None:
        keys.append(packed)
    return keys[::-1]


def sort_positions(batch: RowBatch, sort: SortKey | None = None) -> npt.NDArray[np.intp]:
    """The permutation that puts `batch` in order. O(n log n)."""
    keys = _geocode_keys(batch.geocode)
    keys += _rank_keys((batch.dataset,))
    keys.append(time_keys(batch.time_us))
    primary = primary_keys(sort, batch.time_us, batch.cloud_cover, batch.pixel_coverage)
    if primary is not None:
        keys.append(primary)
    positions = np.lexsort(keys)  # the last key is the first to decide
    if not _has_ties(keys, positions):
        return positions
    return np.lexsort(_rank_keys((batch.scene, batch.version, batch.dataset_id)) + keys)


def _has_ties(keys: list[npt.NDArray[Any]], positions: npt.NDArray[np.intp]) -> bool:
    """Whether neighbours agree in every key: seldom, a scene has one tile a cell."""
    tied = np.ones(max(0, len(positions) - 1), dtype=np.bool_)
    for key in keys:
        ordered = key[positions]
        tied &= ordered[1:] == ordered[:-1]
    return bool(tied.any())


def sort_batch(batch: RowBatch, sort: SortKey | None = None) -> RowBatch:
    """The rows of `batch` in order."""
    return batch.take(sort_positions(batch, sort))


def order_key(batch: RowBatch, i: int, sort: SortKey | None = None) -> OrderKey:
    """Row `i`'s place in the order, as a tuple that compares as rows do."""
    time_us = int(batch.time_us[i])
    time_unknown = time_us == NULL_TIME
    unknown, primary = False, 0.0
    if sort == "-time":
        # An exact int, not a float: microseconds since 1970 need more than 53 bits in the
        # far future, and Python compares ints with floats exactly.
        unknown, primary = time_unknown, 0 if time_unknown else -time_us
    elif sort is not None and sort != "time":
        column = batch.cloud_cover if sort.endswith("cloud") else batch.pixel_coverage
        value = float(column[i])
        unknown = math.isnan(value)
        primary = 0.0 if unknown else (-value if sort.startswith("-") else value)
    return (
        unknown,
        primary,
        time_unknown,
        0 if time_unknown else time_us,
        batch.dataset[i],
        batch.geocode[i],
        batch.scene[i],
        batch.version[i],
        batch.dataset_id[i],
    )


def count_until(batch: RowBatch, key: OrderKey, sort: SortKey | None = None) -> int:
    """How many rows of a sorted `batch` come at or before `key`. O(log n)."""
    low, high = 0, len(batch)
    while low < high:
        middle = (low + high) // 2
        if order_key(batch, middle, sort) <= key:
            low = middle + 1
        else:
            high = middle
    return low


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in an ordered answer: just after one row.

    It holds the row's place in the order, not a row id: it stays valid when the row is
    gone, on any node, after any restart.
    """

    sort: SortKey | None
    key: OrderKey

    @classmethod
    def after(cls, batch: RowBatch, sort: SortKey | None = None, *, row: int = -1) -> Self:
        """The position after a row of `batch`, by default its last."""
        return cls(sort, order_key(batch, range(len(batch))[row], sort))

    def check_sort(self, sort: SortKey | None) -> None:
        """
        Raises:
            InvalidInputError: `sort` orders rows otherwise than the cursor's own.
        """
        if (sort or "time") != (self.sort or "time"):
            raise InvalidInputError(
                f"cursor: made for sort {self.sort or 'time'}, got a query with sort"
                f" {sort or 'time'}"
            )

    def to_text(self) -> str:
        """One line of JSON; `from_text` is its inverse."""
        return json.dumps([self.sort, *self.key])

    @classmethod
    def from_text(cls, text: str) -> Self:
        """
        Raises:
            InvalidInputError: not a cursor's text.
        """
        try:
            sort, *parts = json.loads(text)
            unknown, primary, time_unknown, time_us, *texts = parts
            well_formed = (
                (sort is None or sort in get_args(SortKey))
                and isinstance(unknown, bool)
                and isinstance(primary, (int, float))
                and isinstance(time_unknown, bool)
                and isinstance(time_us, int)
                and len(texts) == 5
                and all(isinstance(part, str) for part in texts)
            )
        except (ValueError, TypeError):
            well_formed = False
        if not well_formed:
            raise InvalidInputError(f"cursor {text[:80]!r}: expected what Cursor.to_text wrote")
        dataset, geocode, scene, version, dataset_id = texts
        return cls(
            sort,
            (
                unknown,
                primary,
                time_unknown,
                time_us,
                dataset,
                geocode,
                scene,
                version,
                dataset_id,
            ),
        )
