"""The catalog in memory: columns, and the structures over them.

Structures are built at the first query that could use them, then kept up: rows that came since
(the *tail*) are tested one by one until they are enough to be worth taking in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from geostore.index.columns import Columns, Positions, Snapshot
from geostore.index.coverage_search import RowBitmaps
from geostore.index.placement import RowSlots
from geostore.index.structures import Cells, Facts, Percents, Runs, Structure, Times
from geostore.query.predicate import schema_matches

__all__ = ["Memory", "Selected", "View"]

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


@dataclass(slots=True)
class _Structures:
    times: Times = field(default_factory=Times.empty)
    cells: Cells = field(default_factory=Cells.empty)
    percents: dict[str, Percents] = field(default_factory=dict)
    """By column: `cloud_cover`, `pixel_coverage`."""
    runs: Runs | None = None


class Memory:
    """Columns and structures of all published rows. The caller holds the catalog's lock."""

    def __init__(self) -> None:
        self.columns = Columns()
        self.row_slots = RowSlots()
        self._built = _Structures()
        self._view: View | None = None

    @cached_property
    def row_bitmaps(self) -> RowBitmaps:
        """The bitmaps of rows, once a search asks for them."""
        return RowBitmaps()

    @property
    def is_mostly_dead(self) -> bool:
        """Whether loading anew would pay: dead rows outnumber the live."""
        dead = self.columns.count - self.columns.live
        return dead > self.columns.live + 1024

    def keep(self, row_ids: npt.NDArray[np.int64], covers: npt.NDArray[np.float32]) -> None:
        """All rows but these are gone, and these have these covers (dataset by dataset, a cloud
        rule changes them all).
        """
        self.columns.keep(row_ids, covers)
        self._built.cells = Cells.empty()
        self._built.percents.pop("cloud_cover", None)

    def view(self) -> View:
        """The rows as they are now; the same object until they change."""
        snapshot = self.columns.snapshot()
        if self._view is None or self._view.snapshot is not snapshot:
            self._view = View(snapshot, self._built)
        return self._view


class View:
    """A snapshot and the structures over it; they are brought up to date when asked for."""

    def __init__(self, snapshot: Snapshot, built: _Structures) -> None:
        self.snapshot = snapshot
        self._built = built

    def _is_current(self, structure: Structure) -> bool:
        total = self.snapshot.count
        tail = total - structure.upto
        return tail <= max(TAIL_ROWS, total // TAIL_FRACTION) and structure.upto > 0

    def _has_too_many_dead(self, structure: Structure) -> bool:
        dead = len(self.snapshot.dead) - structure.dead_seen
        return dead > max(TAIL_ROWS, self.snapshot.count // DEAD_FRACTION)

    @cached_property
    def times(self) -> Times:
        """Rows by time."""
        times = self._built.times
        if self._has_too_many_dead(times):
            times = Times.empty()
        if not self._is_current(times):
            times = self._built.times = times.extended(self.snapshot)
        return times

    def percents(self, column: str) -> Percents:
        """Of `cloud_cover` or `pixel_coverage`."""
        percents = self._built.percents.get(column)
        if percents is None or self._has_too_many_dead(percents):
            percents = Percents.empty()
        if not self._is_current(percents):
            percents = self._built.percents[column] = percents.extended(self.snapshot, column)
        return percents

    @cached_property
    def cells(self) -> Cells:
        """All rows by place."""
        cells = self._built.cells
        if not self._is_current(cells) or self._has_too_many_dead(cells):
            cells = self._built.cells = cells.extended(self.snapshot)
        return cells

    @cached_property
    def runs(self) -> Runs:
        """Rows by group."""
        runs = self._built.runs
        if runs is None or not self._is_current(runs):
            runs = self._built.runs = Runs.of(self.snapshot)
        return runs

    @cached_property
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
        found: dict[str, Structure] = {}
        if self._built.times.upto:
            found["time"] = self._built.times
        if self._built.cells.upto:
            found["cells"] = self._built.cells
        found.update(self._built.percents)
        if self._built.runs is not None:
            found["runs"] = self._built.runs
        return found
