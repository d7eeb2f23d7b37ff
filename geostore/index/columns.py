"""Rows in memory: packed columns by position, text interned.

A position is where a row lies in the columns; positions only grow. A `Snapshot` is a set
of array views that nobody changes afterwards: columns are appended to beyond its end, and
the mask of live rows is copied when rows die.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.query import SortKey
from geostore.query.order import primary_keys, time_keys
from geostore.types import RowBatch

__all__ = ["COLUMN_DTYPES", "Columns", "Interner", "Positions", "Snapshot"]

Positions = npt.NDArray[np.intp]

COLUMN_DTYPES: dict[str, np.dtype[Any]] = {
    "row_id": np.dtype(np.int64),
    "cell": np.dtype(np.int32),
    "dataset_id": np.dtype(np.int32),
    "dataset": np.dtype(np.int32),
    "scene": np.dtype(np.int32),
    "version": np.dtype(np.int32),
    "schema": np.dtype(np.int32),
    "platform": np.dtype(np.int32),
    "time_us": np.dtype(np.int64),
    "time_end_us": np.dtype(np.int64),
    "pixel_coverage": np.dtype(np.float32),
    "cloud_cover": np.dtype(np.float32),
    "bytes": np.dtype(np.int64),
}
"""Text columns hold codes of their interner; `cell` that of (scheme, geocode)."""

RANK_FRACTION = 8
TEXT_COLUMNS = ("dataset_id", "dataset", "scene", "version", "schema", "platform")


class Interner:
    """Distinct values of a column, numbered from 0 as they come.

    With `shares_texts`, equal texts are one object in the whole process: rows that come from
    other nodes have that same object, so that all rows of a scene are one run.
    """

    def __init__(self, *, shares_texts: bool = False) -> None:
        self._shares_texts = shares_texts
        self.codes: dict[Hashable, int] = {}
        self._values = np.empty(16, dtype=np.object_)
        self._ranks: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.codes)

    def code(self, key: Hashable, value: object) -> int:
        """The code of `key`; `value` is what it stands for, kept at the first sight."""
        code = self.codes.get(key)
        if code is None:
            code = self.codes[key] = len(self.codes)
            if code == len(self._values):
                self._values = np.concatenate([self._values, np.empty(code, dtype=np.object_)])
            if self._shares_texts and type(value) is str:
                value = sys.intern(value)
            self._values[code] = value
            self._ranks = None
        return code

    def values(self) -> npt.NDArray[np.object_]:
        """Code to value. The view stays valid and unchanged as more values come."""
        return self._values[: len(self.codes)]

    @property
    def is_ranked(self) -> bool:
        """Whether `ranks` is at hand."""
        return self._ranks is not None

    def ranks(self) -> npt.NDArray[np.int64]:
        """Code to dense rank in the values' order; equal values share one."""
        if self._ranks is None:
            values = self.values().tolist()
            order = {value: rank for rank, value in enumerate(sorted(set(values)))}
            self._ranks = np.array([order[value] for value in values], dtype=np.int64)
        return self._ranks


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Columns and live rows at one moment."""

    columns: dict[str, npt.NDArray[Any]]
    alive: npt.NDArray[np.bool_]
    live: int
    """How many rows are alive."""
    values: dict[str, npt.NDArray[np.object_]]
    """Code to value for each interned column; `cell` to geocode."""

    def batch(
        self, positions: Positions, nodes: tuple[str, ...] | npt.NDArray[np.object_]
    ) -> RowBatch:
        """Rows as the rest of geostore speaks of them; `nodes` hold them: all, or one a row."""
        columns, values = self.columns, self.values
        if isinstance(nodes, tuple):
            holders = np.empty(len(positions), dtype=np.object_)
            holders.fill(nodes)
        else:
            holders = nodes
        texts = {name: values[name][columns[name][positions]] for name in TEXT_COLUMNS}
        return RowBatch(
            row_id=columns["row_id"][positions],
            geocode=values["cell"][columns["cell"][positions]],
            time_us=columns["time_us"][positions],
            time_end_us=columns["time_end_us"][positions],
            pixel_coverage=columns["pixel_coverage"][positions],
            cloud_cover=columns["cloud_cover"][positions],
            bytes=columns["bytes"][positions],
            nodes=holders,
            **texts,
        )


def _packed(ranks: Sequence[tuple[npt.NDArray[np.int64], int]]) -> list[npt.NDArray[Any]]:
    """Rank columns, most significant first, as few int64 keys in lexsort's order.

    Ranks are small, so several fit one int64: sorting time is by the number of keys.
    """
    keys: list[npt.NDArray[Any]] = []
    packed, room = None, 1
    for column, count in ranks:
        if packed is None or room * count > np.iinfo(np.int64).max:
            if packed is not None:
                keys.append(packed)
            packed, room = column, count
        else:
            packed, room = packed * count + column, room * count
    if packed is not None:
        keys.append(packed)
    return keys[::-1]


class Columns:
    """The growing columns. Not thread-safe: the catalog holds its lock around changes."""

    def __init__(self) -> None:
        self.count = 0
        self.live = 0
        self.interners = {name: Interner(shares_texts=True) for name in TEXT_COLUMNS}
        self.interners["cell"] = Interner()  # as many as rows, and no run of equal ones
        self._arrays = {name: np.empty(0, dtype) for name, dtype in COLUMN_DTYPES.items()}
        self._alive = np.zeros(0, dtype=np.bool_)
        self._snapshot: Snapshot | None = None

    def append(self, block: dict[str, npt.NDArray[Any]]) -> None:
        """Adds rows; `block` has every column, `row_id` greater than all before, ascending."""
        added = len(block["row_id"])
        end = self.count + added
        if end > len(self._alive):
            capacity = max(end, 2 * len(self._alive), 1024)
            for name, array in self._arrays.items():
                grown = np.empty(capacity, dtype=array.dtype)
                grown[: self.count] = array[: self.count]
                self._arrays[name] = grown
            alive = np.zeros(capacity, dtype=np.bool_)
            alive[: self.count] = self._alive[: self.count]
            self._alive = alive
        for name, array in self._arrays.items():
            array[self.count : end] = block[name]
        self._alive[self.count : end] = True
        self.count = end
        self.live += added
        self._snapshot = None

    def find(self, row_ids: npt.NDArray[np.int64]) -> Positions:
        """Positions of the row ids that are here, dead or alive."""
        known = self._arrays["row_id"][: self.count]
        positions = np.searchsorted(known, row_ids)
        positions = positions[positions < self.count]
        return positions[np.isin(known[positions], row_ids)]

    def kill(self, row_ids: npt.NDArray[np.int64]) -> None:
        """Marks rows as gone; ids that are not here are ignored."""
        positions = self.find(row_ids)
        positions = positions[self._alive[positions]]
        if len(positions):
            self._alive = self._alive.copy()  # snapshots keep the old mask
            self._alive[positions] = False
            self.live -= len(positions)
            self._snapshot = None

    def keep(self, row_ids: npt.NDArray[np.int64], covers: npt.NDArray[np.float32]) -> None:
        """Marks all rows but these as gone, and gives these their covers anew."""
        self.kill(
            np.setdiff1d(self._arrays["row_id"][: self.count][self._alive[: self.count]], row_ids)
        )
        column = self._arrays["cloud_cover"].copy()  # snapshots keep the old one
        column[self.find(row_ids)] = covers
        self._arrays["cloud_cover"] = column
        self._snapshot = None

    def snapshot(self) -> Snapshot:
        if self._snapshot is None:
            self._snapshot = Snapshot(
                columns={name: array[: self.count] for name, array in self._arrays.items()},
                alive=self._alive[: self.count],
                live=self.live,
                values={name: interner.values() for name, interner in self.interners.items()},
            )
        return self._snapshot

    def _ranks(
        self, name: str, snapshot: Snapshot, positions: Positions
    ) -> tuple[npt.NDArray[np.int64], int]:
        """Dense ranks of the texts at `positions`, and a number above all of them.

        Ranking all values of a column takes long after new ones came (50 ms for 100,000), so
        a small answer ranks only its own.
        """
        codes = snapshot.columns[name][positions]
        interner = self.interners[name]
        if interner.is_ranked or RANK_FRACTION * len(positions) > len(interner):
            return interner.ranks()[codes], len(interner)
        distinct, inverse = np.unique(codes, return_inverse=True)
        values = snapshot.values[name][distinct].tolist()
        order = {value: rank for rank, value in enumerate(sorted(set(values)))}
        ranks = np.fromiter((order[value] for value in values), np.int64, count=len(values))
        return ranks[inverse], max(1, len(order))

    def order(self, snapshot: Snapshot, positions: Positions, sort: SortKey | None) -> Positions:
        """`positions` of a snapshot in the order of `geostore.query.order`."""
        taken = {
            name: snapshot.columns[name][positions]
            for name in ("time_us", "cloud_cover", "pixel_coverage")
        }
        keys = _packed(
            [
                self._ranks(name, snapshot, positions)
                for name in ("dataset", "cell", "scene", "version", "dataset_id")
            ]
        )
        keys.append(time_keys(taken["time_us"]))
        primary = primary_keys(
            sort, taken["time_us"], taken["cloud_cover"], taken["pixel_coverage"]
        )
        if primary is not None:
            keys.append(primary)
        return positions[np.lexsort(keys)]
