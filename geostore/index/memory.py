"""The catalog in memory: columns, and the structures over them.

Structures are built at the first query that could use them, then kept up: rows that came since
(the *tail*) are tested one by one until they are enough to be worth taking in.

Whoever changes the columns holds the catalog's lock. A view is never changed: queries use it
without any lock, but while a structure is built.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from geostore.index.columns import Columns, Positions, Snapshot
from geostore.index.once import once
from geostore.index.placement import RowSlots
from geostore.index.row_bitmaps import RowBitmaps
from geostore.index.structures import Cells, Facts, Percents, Runs, Structure, Times
from geostore.query.predicate import schema_matches

__all__ = ["TAIL_FRACTION", "TAIL_ROWS", "Memory", "Selected", "View"]

TAIL_ROWS: Final = 8192
"""Rows that are tested one by one before structures take them in: some 10 us a predicate."""
TAIL_FRACTION: Final = 128
"""Of a large catalog a structure takes in no less than this part of its rows at once: that copies
the whole of it.
"""
DEAD_FRACTION: Final = 8
"""A structure of which this part has died is built anew."""


@dataclass(frozen=True, slots=True)
class Selected:
    """Positions of rows that match, in the snapshot they are positions in."""

    snapshot: Snapshot
    positions: Positions
    row_slots: npt.NDArray[np.uint16] | None = None
    """Slots of the snapshot's rows, by position, where they were worked out."""


class Memory:
    """Columns and structures of all published rows. The caller holds the catalog's lock."""

    def __init__(self, columns: Columns | None = None, row_slots: RowSlots | None = None) -> None:
        self.columns = columns or Columns()
        self.row_slots = row_slots or RowSlots()
        self.row_bitmaps = RowBitmaps()
        self.built: dict[str, Structure] = {}
        """The newest structures, by name; each knows up to which row. Never changed in place."""
        self.building = threading.RLock()
        """Held while a structure is built, so that several queries do not build the same."""
        self.covers_changed = 0
        """How often rows got other cloud covers: structures of before are of no use then."""
        self._view: View | None = None

    def hold_for_fork(self) -> None:
        """Leaves no lock held in the child."""
        self.building.acquire()
        self.row_slots.lock.acquire()
        self.row_bitmaps.lock.acquire()

    def resume_after_fork(self) -> None:
        """Undoes `hold_for_fork`."""
        self.row_bitmaps.lock.release()
        self.row_slots.lock.release()
        self.building.release()

    @property
    def is_mostly_dead(self) -> bool:
        """Whether making all anew would pay: dead rows outnumber the live."""
        dead = self.columns.count - self.columns.live
        return dead > self.columns.live + 1024

    def cover(self, row_ids: npt.NDArray[np.int64], covers: npt.NDArray[np.float32]) -> None:
        """Gives rows other cloud covers; what is sorted or kept by these is built anew."""
        self.columns.cover(row_ids, covers)
        with self.building:
            self.covers_changed += 1
            self.built = {
                name: one for name, one in self.built.items() if name not in _BY_CLOUD_COVER
            }

    def indexed_upto(self) -> int:
        """Rows from this position on lack in some structure that takes long to make."""
        costly = [name for name in STRUCTURES if name != "runs"]
        return min(self.built[name].upto if name in self.built else 0 for name in costly)

    def view(self) -> View:
        """The rows as they are now; the same object until they change."""
        snapshot = self.columns.snapshot()
        if self._view is None or self._view.snapshot is not snapshot:
            self._view = View(snapshot, self)
        return self._view


STRUCTURES: Final = ("cells", "times", "cloud_cover", "pixel_coverage", "runs")
_BY_CLOUD_COVER: Final = ("cells", "cloud_cover")


class View:
    """A snapshot and the structures over it; they are brought up to date when asked for."""

    def __init__(self, snapshot: Snapshot, memory: Memory) -> None:
        self.snapshot = snapshot
        self.memory = memory
        self._built = memory.built
        self._covers_changed = memory.covers_changed

    @property
    def _tail_max(self) -> int:
        return max(TAIL_ROWS, self.snapshot.count // TAIL_FRACTION)

    def _is_current(self, structure: Structure) -> bool:
        return self.snapshot.count - structure.upto <= self._tail_max and structure.upto > 0

    def _has_too_many_dead(self, structure: Structure) -> bool:
        if isinstance(structure, Runs):
            return False  # it has all rows, dead or alive
        dead = len(self.snapshot.dead) - structure.dead_seen
        return dead > max(TAIL_ROWS, self.snapshot.count // DEAD_FRACTION)

    def _serves(self, structure: Structure) -> bool:
        return self._is_current(structure) and not self._has_too_many_dead(structure)

    def _extended(self, name: str, structure: Structure | None) -> Structure:
        """A structure with all rows of this view, made from an older one of them."""
        if name == "runs":
            return Runs.of(self.snapshot)
        if name == "cells":
            cells = Cells.empty() if structure is None else structure
            assert isinstance(cells, Cells)
            return cells.extended(self.snapshot)
        if structure is None or self._has_too_many_dead(structure):
            structure = Times.empty() if name == "times" else Percents.empty()
        if isinstance(structure, Times):
            return structure.extended(self.snapshot)
        assert isinstance(structure, Percents)
        return structure.extended(self.snapshot, name)

    def _brought_up(self, name: str) -> Structure:
        """A structure that serves this view: the one at hand, or another view's, or a new one."""
        mine = self._built.get(name)
        if mine is not None and self._serves(mine):
            return mine
        memory = self.memory
        with memory.building:
            theirs = self._usable(name)
            if theirs is not None and self._serves(theirs):
                return theirs
            return self._build(name, theirs)

    def _usable(self, name: str) -> Structure | None:
        """The newest structure, if it is of rows of this view; else the one of its beginning.

        One of a newer view may have rows that are not here, or have left out some that are.
        """
        newest = self.memory.built.get(name)
        if newest is not None and (
            newest.upto > self.snapshot.count
            or newest.dead_seen > len(self.snapshot.dead)
            or self.memory.covers_changed != self._covers_changed
        ):
            return self._built.get(name)
        return newest

    def _build(self, name: str, from_: Structure | None) -> Structure:
        """Caller holds the lock for it."""
        memory = self.memory
        made = self._extended(name, from_)
        newest = memory.built.get(name)
        is_newest = newest is None or newest.upto <= made.upto
        if is_newest and memory.covers_changed == self._covers_changed:
            memory.built = {**memory.built, name: made}
        return made

    @once
    def times(self) -> Times:
        """Rows by time."""
        times = self._brought_up("times")
        assert isinstance(times, Times)
        return times

    def percents(self, column: str) -> Percents:
        """Of `cloud_cover` or `pixel_coverage`."""
        percents = self._brought_up(column)
        assert isinstance(percents, Percents)
        return percents

    @once
    def cells(self) -> Cells:
        """All rows by place."""
        cells = self._brought_up("cells")
        assert isinstance(cells, Cells)
        return cells

    @once
    def runs(self) -> Runs:
        """Rows by group."""
        runs = self._brought_up("runs")
        assert isinstance(runs, Runs)
        return runs

    def _behind(self) -> list[str]:
        """Structures that will soon have to be brought up to date by a query."""
        return [
            name
            for name, structure in self.memory.built.items()
            if 2 * (self.snapshot.count - structure.upto) > self._tail_max
            or self._has_too_many_dead(structure)
        ]

    @property
    def is_behind(self) -> bool:
        """Whether `bring_up` has something to do."""
        return bool(self._behind())

    def bring_up(self) -> None:
        """Takes what came into the structures that were built, so that no query has to."""
        for name in self._behind():
            with self.memory.building:
                self._build(name, self._usable(name))

    def build_all(self) -> None:
        """Makes every structure, of all rows. About a second a million where there is none."""
        for name in STRUCTURES:
            with self.memory.building:
                found = self._usable(name)
                if found is None or found.upto < self.snapshot.count:
                    self._build(name, found)

    @once
    def facts(self) -> Facts:
        """All rows, dead or alive, by position: views of the columns."""
        return Facts.of(self.snapshot.columns)

    def groups_named(self, name: str, texts: Sequence[str | None]) -> npt.NDArray[np.bool_]:
        """The groups that have one of some texts in a column of groups."""
        known, codes = self.snapshot.codes[name], self.snapshot.group_codes[name]
        wanted = [known[text] for text in texts if text in known]
        if len(wanted) == 1:
            mask: npt.NDArray[np.bool_] = codes == wanted[0]
            return mask
        return np.isin(codes, wanted)

    def groups_with_bands(self, bands: tuple[str, ...]) -> npt.NDArray[np.bool_]:
        """The groups whose schema has all of some bands."""
        schemas = self.snapshot.values["schema"].tolist()
        fits = np.array([schema_matches(schema, bands) for schema in schemas], np.bool_)
        mask: npt.NDArray[np.bool_] = fits[self.snapshot.group_codes["schema"]]
        return mask

    def structures(self) -> dict[str, Structure]:
        """Those that were built, by name: for checks."""
        return dict(self.memory.built)
