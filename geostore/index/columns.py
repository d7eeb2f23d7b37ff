"""Rows in memory: packed columns by position.

A position is where a row lies in the columns; positions only grow. What rows of a scene have in
common (names, schema, platform) is a *group*, kept once; a row has its group's number. A `Snapshot`
is a set of array views that nobody changes afterwards: columns are appended to beyond its end, and
the mask of live rows is copied when rows die.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from geostore.index.effects import ValueAt
from geostore.index.geocodes import PackedCells, packing_of, place_of
from geostore.index.once import once
from geostore.query.predicate import time_end_effective
from geostore.types import NULL_TIME, RowBatch, SchemeName

__all__ = [
    "COLUMN_DTYPES",
    "GROUP_COLUMNS",
    "NO_START",
    "Columns",
    "Grid",
    "Groups",
    "Interner",
    "Positions",
    "Snapshot",
    "time_columns",
]

Positions = npt.NDArray[np.integer[Any]]

NO_START: Final = np.iinfo(np.int64).max
"""Stands for the start of a row without time: no span reaches it, and it sorts last."""

COLUMN_DTYPES: dict[str, np.dtype[Any]] = {
    "row_id": np.dtype(np.int64),
    "group": np.dtype(np.int32),
    "grid": np.dtype(np.int8),
    "cell": np.dtype(np.uint64),
    "column": np.dtype(np.int32),
    "row": np.dtype(np.int32),
    "start_us": np.dtype(np.int64),
    "end_us": np.dtype(np.int64),
    "has_end": np.dtype(np.bool_),
    "pixel_coverage": np.dtype(np.float32),
    "cloud_cover": np.dtype(np.float32),
    "bytes": np.dtype(np.int64),
    "provider_cover": np.dtype(np.float32),
    "details_segment": np.dtype(np.int32),
    "details_offset": np.dtype(np.int64),
    "details_bytes": np.dtype(np.uint32),
}
"""`grid` is a number for scheme and cell length; `cell` the packed geocode, `column` and `row` its
place in that grid. `end_us` is the start where no end is stored (not `has_end`). `cloud_cover` is
served, `provider_cover` the provider's own. The details lie in the log: segment, offset, bytes.
"""

CELL_COLUMNS: Final = ("grid", "cell", "column", "row")
FEW_ROWS: Final = 4
"""Rows that are taken in one by one: a call of numpy takes as long as one of these."""
GROUP_COLUMNS: Final = ("dataset_id", "dataset", "scene", "version", "schema", "platform")
Grid = tuple[SchemeName, int]


class Interner:
    """Distinct values, numbered from 0 as they come.

    With `shares_texts`, equal texts are one object in the whole process: rows that come from
    other nodes have that same object, so that all rows of a scene are one run.
    """

    def __init__(self, *, shares_texts: bool = False) -> None:
        self._shares_texts = shares_texts
        self.codes: dict[Hashable, int] = {}
        self._values = np.empty(16, dtype=np.object_)

    @classmethod
    def of(cls, keys: Sequence[Hashable], values: Sequence[object]) -> Self:
        """One that shares texts and has these, numbered in their order."""
        found = cls(shares_texts=True)
        found._values = np.empty(max(16, len(values)), dtype=np.object_)
        for number, value in enumerate(values):
            found._values[number] = sys.intern(value) if type(value) is str else value
        found.codes = {key: number for number, key in enumerate(keys)}
        return found

    def __len__(self) -> int:
        return len(self.codes)

    def code(self, key: Hashable, value: object) -> int:
        """The code of `key`; `value` is what it stands for, kept at the first sight."""
        code = self.codes.get(key)
        if code is None:
            code = len(self.codes)
            if code == len(self._values):
                self._values = np.concatenate([self._values, np.empty(code, dtype=np.object_)])
            if self._shares_texts and type(value) is str:
                value = sys.intern(value)
            self._values[code] = value
            self.codes[key] = code  # last: who finds a code finds its value
        return code

    def values(self) -> npt.NDArray[np.object_]:
        """Code to value. The view stays valid and unchanged as more values come."""
        return self._values[: len(self.codes)]


class Groups:
    """What rows of a scene version have in common, by the group's number."""

    def __init__(self) -> None:
        self.interners = {name: Interner(shares_texts=True) for name in GROUP_COLUMNS}
        self._codes = np.empty((16, len(GROUP_COLUMNS)), dtype=np.int32)
        self._live = np.zeros(16, dtype=np.int64)
        self.schemes: list[SchemeName] = []
        self.of_scene: dict[int, list[int]] = {}
        """Code of a scene to its groups, in order; groups only come."""
        self.count = 0

    @classmethod
    def of(
        cls,
        interners: dict[str, Interner],
        codes: npt.NDArray[np.int32],
        schemes: list[SchemeName],
    ) -> Self:
        """Groups by the codes (n, columns) of their texts, without any live row."""
        found = cls()
        found.interners = interners
        found._codes = codes
        found._live = np.zeros(len(codes), dtype=np.int64)
        found.schemes = schemes
        found.count = len(codes)
        for number, scene in enumerate(codes[:, GROUP_COLUMNS.index("scene")].tolist()):
            found.of_scene.setdefault(scene, []).append(number)
        return found

    def add(self, values: dict[str, tuple[Hashable, object]], scheme_name: SchemeName) -> int:
        """A new group of (key, value) by column; its number."""
        if self.count == len(self._codes):
            more = max(self.count, 16)
            self._codes = np.concatenate([self._codes, np.empty((more, len(GROUP_COLUMNS)), "i4")])
            self._live = np.concatenate([self._live, np.zeros(more, dtype=np.int64)])
        self._codes[self.count] = [
            self.interners[name].code(*values[name]) for name in GROUP_COLUMNS
        ]
        scene = int(self._codes[self.count, GROUP_COLUMNS.index("scene")])
        self.of_scene.setdefault(scene, []).append(self.count)
        self.schemes.append(scheme_name)
        self.count += 1
        return self.count - 1

    def codes(self, name: str) -> npt.NDArray[np.int32]:
        """Group to code of a column's interner; a view that stays as it is."""
        codes: npt.NDArray[np.int32] = self._codes[: self.count, GROUP_COLUMNS.index(name)]
        return codes

    def live(self) -> npt.NDArray[np.int64]:
        """Live rows of each group, now."""
        return self._live[: self.count]

    def add_live(self, groups: npt.NDArray[np.int32], sign: int) -> None:
        if not len(groups):
            return
        if (groups == groups[0]).all():
            self._live[groups[0]] += sign * len(groups)
        else:
            distinct, counts = np.unique(groups, return_counts=True)
            self._live[distinct] += sign * counts


@dataclass(frozen=True)
class Snapshot:
    """Columns and live rows at one moment."""

    columns: dict[str, npt.NDArray[Any]]
    alive: npt.NDArray[np.bool_]
    live: int
    """How many rows are alive."""
    dead: npt.NDArray[np.int64]
    """Positions of dead rows, in the order in which they died."""
    grids: tuple[Grid, ...]
    """Scheme and cell length by the numbers in the column `grid`."""
    group_codes: dict[str, npt.NDArray[np.int32]]
    """Of each column of groups: group to code."""
    values: dict[str, npt.NDArray[np.object_]]
    """Of each column of groups: code to value."""
    codes: dict[str, dict[Hashable, int]]
    """Of each column of groups: value to code; also of values that came since."""
    group_live: npt.NDArray[np.int64]
    """Live rows of each group."""
    groups_of_scene: dict[int, list[int]]
    """Code of a scene to its groups; also those that came since."""

    @property
    def count(self) -> int:
        """Rows, dead or alive."""
        return len(self.alive)

    @once
    def live_of_codes(self) -> dict[str, npt.NDArray[np.int64]]:
        """Live rows by code of the columns of few values; O(groups), once a snapshot."""
        found = {}
        for name in ("dataset", "platform", "schema"):
            counts = np.bincount(
                self.group_codes[name], self.group_live, minlength=len(self.values[name])
            )
            found[name] = counts.astype(np.int64)  # whole numbers below 2**53
        return found

    @once
    def dataset_ranks(self) -> npt.NDArray[np.int64]:
        """Of each group its dataset's place among the names; O(groups), once a snapshot."""
        names = self.values["dataset"].tolist()
        order = {name: rank for rank, name in enumerate(sorted(set(names)))}
        ranks = np.array([order[name] for name in names], np.int64)
        found: npt.NDArray[np.int64] = ranks[self.group_codes["dataset"]]
        return found

    def geocodes(self, positions: Positions) -> npt.NDArray[np.object_]:
        """The cells of rows as texts."""
        cells: PackedCells = self.columns["cell"][positions]
        if len({scheme_name for scheme_name, _ in self.grids}) == 1:
            return packing_of(self.grids[0][0]).unpack(cells)
        texts = np.empty(len(cells), dtype=np.object_)
        numbers = self.columns["grid"][positions]
        for number in np.unique(numbers).tolist():
            own = np.flatnonzero(numbers == number)
            texts[own] = packing_of(self.grids[number][0]).unpack(cells[own])
        return texts

    def details_of(self, positions: Positions) -> Iterator[ValueAt]:
        """Where the details of rows lie in the log."""
        names = ("details_segment", "details_offset", "details_bytes")
        return map(ValueAt, *(self.columns[name][positions].tolist() for name in names))

    def group_values(self, name: str, positions: Positions) -> npt.NDArray[np.object_]:
        """A column that rows have by their group."""
        groups = self.columns["group"][positions]
        values: npt.NDArray[np.object_] = self.values[name][self.group_codes[name][groups]]
        return values

    def times(self, positions: Positions) -> npt.NDArray[np.int64]:
        """`time_us` of rows, NULL_TIME where unknown."""
        start = self.columns["start_us"][positions]
        times: npt.NDArray[np.int64] = np.where(start == NO_START, NULL_TIME, start)
        return times

    def batch(
        self, positions: Positions, nodes: tuple[str, ...] | npt.NDArray[np.object_]
    ) -> RowBatch:
        """Rows as the rest of geostore speaks of them; `nodes` hold them: all, or one a row."""
        columns = self.columns
        if isinstance(nodes, tuple):
            holders = np.empty(len(positions), dtype=np.object_)
            holders.fill(nodes)
        else:
            holders = nodes
        texts = {name: self.group_values(name, positions) for name in GROUP_COLUMNS}
        return RowBatch(
            row_id=columns["row_id"][positions],
            geocode=self.geocodes(positions),
            time_us=self.times(positions),
            time_end_us=np.where(
                columns["has_end"][positions], columns["end_us"][positions], NULL_TIME
            ),
            pixel_coverage=columns["pixel_coverage"][positions],
            cloud_cover=columns["cloud_cover"][positions],
            bytes=columns["bytes"][positions],
            nodes=holders,
            **texts,
        )


def time_columns(
    time_us: npt.NDArray[np.int64], time_end_us: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[Any]]:
    """The columns that stand for tiles' intervals."""
    return {
        "start_us": np.where(time_us == NULL_TIME, NO_START, time_us),
        "end_us": time_end_effective(time_us, time_end_us),
        "has_end": time_end_us != NULL_TIME,
    }


class Columns:
    """The growing columns. Not thread-safe: the catalog holds its lock around changes."""

    def __init__(self) -> None:
        self.count = 0
        self.live = 0
        self.groups = Groups()
        self.grids: list[Grid] = []
        self._arrays = {name: np.empty(0, dtype) for name, dtype in COLUMN_DTYPES.items()}
        self._alive = np.zeros(0, dtype=np.bool_)
        self._dead = np.empty(0, dtype=np.int64)
        self._snapshot: Snapshot | None = None
        self._own: set[str] = set()
        """Columns, or `alive`, that were copied since the last snapshot: nobody else has them."""
        self.details_bytes = 0
        """Of the live rows, together."""

    @classmethod
    def of(cls, arrays: dict[str, npt.NDArray[Any]], groups: Groups, grids: Sequence[Grid]) -> Self:
        """Rows that are all alive. The arrays are read, never written: they may be a file's."""
        found = cls()
        found._arrays = dict(arrays)
        found.count = found.live = len(arrays["row_id"])
        found._alive = np.ones(found.count, dtype=np.bool_)
        found.groups = groups
        groups.add_live(arrays["group"], 1)
        found.details_bytes = int(arrays["details_bytes"].sum(dtype=np.int64))
        found.grids = list(grids)
        return found

    def grid(self, scheme_name: SchemeName, length: int) -> int:
        """The number of a scheme and cell length."""
        grid = (scheme_name, length)
        if grid not in self.grids:
            self.grids.append(grid)
        return self.grids.index(grid)

    def cell_columns(
        self, groups: npt.NDArray[np.int32], geocodes: npt.NDArray[np.bytes_]
    ) -> dict[str, npt.NDArray[Any]]:
        """The columns that stand for the cells of rows of these groups.

        Raises:
            InvalidInputError: a geocode that its group's scheme does not have.
        """
        if len(groups) <= FEW_ROWS:
            return self._few_cell_columns(groups.tolist(), geocodes.tolist())
        found = {name: np.empty(len(groups), COLUMN_DTYPES[name]) for name in CELL_COLUMNS}
        for scheme_name, own in self._by_scheme(groups):
            packing = packing_of(scheme_name)
            packed = packing.pack_many(geocodes[own])
            lengths = packing.lengths(packed)
            for length in sorted(set(lengths.tolist())):
                rows, cells = own[lengths == length], packed[lengths == length]
                found["grid"][rows] = self.grid(scheme_name, length)
                found["cell"][rows] = cells
                found["column"][rows], found["row"][rows] = packing.places(cells, length)
        return found

    def _few_cell_columns(
        self, groups: list[int], geocodes: list[bytes]
    ) -> dict[str, npt.NDArray[Any]]:
        cells = []
        for group, geocode in zip(groups, geocodes, strict=True):
            scheme_name = self.groups.schemes[group]
            cell = place_of(scheme_name, geocode)
            cells.append((self.grid(scheme_name, cell.length), cell.packed, cell.column, cell.row))
        table = zip(CELL_COLUMNS, zip(*cells, strict=True), strict=True)
        return {name: np.array(column, COLUMN_DTYPES[name]) for name, column in table}

    def _by_scheme(
        self, groups: npt.NDArray[np.int32]
    ) -> Iterator[tuple[SchemeName, npt.NDArray[np.intp]]]:
        """The schemes of rows by their groups, with the rows of each."""
        if len(groups) and (groups == groups[0]).all():
            yield self.groups.schemes[groups[0]], np.arange(len(groups))
            return
        distinct, inverse = np.unique(groups, return_inverse=True)
        schemes = [self.groups.schemes[number] for number in distinct.tolist()]
        for scheme_name in sorted(set(schemes)):
            of_scheme = np.array([each == scheme_name for each in schemes], np.bool_)[inverse]
            yield scheme_name, np.flatnonzero(of_scheme)

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
        self.groups.add_live(block["group"], 1)
        self.details_bytes += int(self._arrays["details_bytes"][self.count : end].sum(dtype="i8"))
        self.count = end
        self.live += added
        self._snapshot = None

    def find(self, row_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
        """Positions of the row ids that are here, dead or alive."""
        known = self._arrays["row_id"][: self.count]
        positions = np.searchsorted(known, row_ids)
        positions = positions[positions < self.count]
        return positions[np.isin(known[positions], row_ids)]

    def row_id(self, position: int, default: int) -> int:
        """Of the row at a position; `default` where there is none yet."""
        return int(self._arrays["row_id"][position]) if position < self.count else default

    def is_alive(self, position: int) -> bool:
        """Whether a row is there."""
        return bool(self._alive[position])

    def cells(self) -> PackedCells:
        """The packed cells of all rows."""
        cells: PackedCells = self._arrays["cell"][: self.count]
        return cells

    def kill(self, row_ids: npt.NDArray[np.int64]) -> None:
        """Marks rows as gone; ids that are not here are ignored."""
        positions = self.find(row_ids)
        positions = positions[self._alive[positions]]
        if len(positions):
            if "alive" not in self._own:
                self._alive = self._alive.copy()  # snapshots keep the old mask
                self._own.add("alive")
            self._alive[positions] = False
            self._dead = np.concatenate([self._dead, positions])
            self.groups.add_live(self._arrays["group"][positions], -1)
            self.details_bytes -= int(self._arrays["details_bytes"][positions].sum(dtype="i8"))
            self.live -= len(positions)
            self._snapshot = None

    def _changeable(self, name: str) -> npt.NDArray[Any]:
        """A column that no snapshot has. O(rows) the first time after one was taken."""
        if name not in self._own:
            self._arrays[name] = self._arrays[name].copy()
            self._own.add(name)
        self._snapshot = None
        return self._arrays[name]

    def cover(self, row_ids: npt.NDArray[np.int64], covers: npt.NDArray[np.float32]) -> None:
        """Gives rows other cloud covers."""
        self._changeable("cloud_cover")[self.find(row_ids)] = covers

    def move(
        self,
        row_ids: npt.NDArray[np.int64],
        segment: int,
        offsets: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.uint32],
    ) -> bool:
        """Says where the details of rows lie now; whether all are here, with details so long."""
        positions = self.find(row_ids)
        if not np.array_equal(self._arrays["details_bytes"][positions], lengths):
            return False
        self._changeable("details_segment")[positions] = segment
        self._changeable("details_offset")[positions] = offsets
        return True

    def snapshot(self) -> Snapshot:
        if self._snapshot is None:
            groups = self.groups
            self._snapshot = Snapshot(
                columns={name: array[: self.count] for name, array in self._arrays.items()},
                alive=self._alive[: self.count],
                live=self.live,
                dead=self._dead,
                grids=tuple(self.grids),
                group_codes={name: groups.codes(name) for name in GROUP_COLUMNS},
                values={name: groups.interners[name].values() for name in GROUP_COLUMNS},
                codes={name: groups.interners[name].codes for name in GROUP_COLUMNS},
                group_live=groups.live().copy(),
                groups_of_scene=groups.of_scene,
            )
            self._own.clear()
        return self._snapshot
