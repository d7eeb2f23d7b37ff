"""The catalog in memory: columns, the structures over them, and how a query uses both.

Structures are built at the first query that could use them, then kept up as rows come.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.errors import CorruptDataError
from geostore.index.columns import Columns, Positions, Snapshot
from geostore.index.placement import NO_SLOT, RowSlots, slot_table
from geostore.index.structures import CellStructure, PercentStructure, TimeStructure
from geostore.query import Explain, PercentRange, Query, RowFacts, evaluate
from geostore.query.predicate import percent_matches, schema_matches, time_matches

__all__ = ["Memory", "Selected"]

SCAN_FRACTION = 64
"""A structure is walked only if it leaves less than 1/64 of the rows: fetching one position from
a sorted list takes as long as testing 100 or more in a packed column (0.2 us, 1 to 2 ns)."""
REGION_TEST_ROWS_MAX = 256
"""With this few rows left by another structure, their cells are tested one by one."""

Booleans = npt.NDArray[np.bool_]
Test = Callable[[Positions], Booleans]


@dataclass(frozen=True, slots=True)
class Selected:
    """Positions of rows that match, in the snapshot they are positions in."""

    snapshot: Snapshot
    positions: Positions
    row_slots: npt.NDArray[np.uint16] | None = None
    """Slots of the snapshot's rows, by position, where they were worked out."""


@dataclass(slots=True)
class _Candidate:
    """One way to find the rows of a predicate."""

    rows: int
    """Upper bound of the rows it leaves."""
    walk: Callable[[], Positions]
    exact: bool = True
    """Whether it gives exactly the predicate's rows, or some more."""


def _percent_test(
    column: npt.NDArray[np.float32], bounds: PercentRange, positions: Positions
) -> Booleans:
    return percent_matches(column[positions], bounds)


@dataclass(slots=True)
class _Plan:
    candidates: dict[str, _Candidate] = field(default_factory=dict)
    tests: dict[str, Test] = field(default_factory=dict)


class Memory:
    """Columns and structures of all published rows. The caller holds the catalog's lock."""

    def __init__(self) -> None:
        self.columns = Columns()
        self.time: TimeStructure | None = None
        self.cloud: PercentStructure | None = None
        self.coverage: PercentStructure | None = None
        self.cells: CellStructure | None = None
        self.row_slots = RowSlots()
        self._extended = dict.fromkeys(("time", "cloud", "coverage"), 0)
        self._counts: dict[str, tuple[Snapshot, npt.NDArray[np.int64]]] = {}

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
        self.cloud = None
        self._extended["cloud"] = 0

    # ------------------------------------------------------------ structures

    def extended(self, name: str) -> int:
        """How many of the first rows a structure has taken in."""
        return self._extended[name]

    def _new_rows(self, name: str) -> tuple[int, dict[str, npt.NDArray[Any]]]:
        first = self._extended[name]
        self._extended[name] = self.columns.count
        columns = self.columns.snapshot().columns
        return first, {key: array[first:] for key, array in columns.items()}

    def time_structure(self) -> TimeStructure:
        self.time = self.time or TimeStructure()
        first, rows = self._new_rows("time")
        if len(rows["row_id"]):
            self.time.extend(first, rows["time_us"], rows["time_end_us"])
        return self.time

    def percent_structure(self, name: str) -> PercentStructure:
        """`cloud` or `coverage`."""
        structure: PercentStructure | None = getattr(self, name)
        if structure is None:
            structure = PercentStructure()
            setattr(self, name, structure)
        first, rows = self._new_rows(name)
        if len(rows["row_id"]):
            column = "cloud_cover" if name == "cloud" else "pixel_coverage"
            structure.extend(first, rows[column])
        return structure

    def cell_structure(self) -> CellStructure:
        self.cells = self.cells or CellStructure()
        self.cells.extend(self.columns.interners["cell"])
        return self.cells

    def _rows_by_code(self, column: str, snapshot: Snapshot) -> npt.NDArray[np.int64]:
        """Live rows of each code of an interned column; kept until rows change."""
        kept = self._counts.get(column)
        if kept is None or kept[0] is not snapshot:
            codes = snapshot.columns[column][snapshot.alive]
            counts = np.bincount(codes, minlength=len(self.columns.interners[column]))
            kept = self._counts[column] = (snapshot, counts)
        return kept[1]

    # ------------------------------------------------------------ planning

    def _plan_codes(self, plan: _Plan, q: Query, snapshot: Snapshot) -> None:
        """Predicates on interned columns: a set of codes each."""
        wanted: list[tuple[str, str, tuple[str, ...] | None]] = [
            ("dataset", "dataset", q.datasets),
            ("platform", "platform", None if q.platform is None else (q.platform,)),
            ("scene", "scene", None if q.scene is None else (q.scene,)),
        ]
        for name, column, values in wanted:
            if values is None:
                continue
            known = self.columns.interners[column].codes
            table = np.zeros(max(1, len(known)), dtype=np.bool_)
            table[[known[value] for value in values if value in known]] = True
            self._add_table(plan, name, column, table, snapshot)
        if q.bands:
            schemas = self.columns.interners["schema"].values()
            table = np.array([schema_matches(schema, q.bands) for schema in schemas], np.bool_)
            self._add_table(plan, "bands", "schema", table, snapshot)
        if q.geocode is not None:
            cells = self.columns.interners["cell"]
            table = self.cell_structure().under(q.geocode, recursive=q.recursive, cells=cells)
            self._add_table(plan, "geocode", "cell", table, snapshot)

    def _add_table(
        self, plan: _Plan, name: str, column: str, table: Booleans, snapshot: Snapshot
    ) -> None:
        codes = snapshot.columns[column]
        counts = self._rows_by_code(column, snapshot)
        rows = int(counts[np.flatnonzero(table[: len(counts)])].sum())
        plan.candidates[name] = _Candidate(rows, lambda: np.flatnonzero(table[codes]))
        plan.tests[name] = lambda positions: table[codes[positions]]

    def _plan_ranges(self, plan: _Plan, q: Query, snapshot: Snapshot) -> None:
        columns = snapshot.columns
        if q.time is not None:
            span, time = q.time, self.time_structure()
            plan.candidates["time"] = _Candidate(
                time.count(span), lambda: time.walk(span), exact=False
            )
            plan.tests["time"] = lambda positions: time_matches(
                columns["time_us"][positions], columns["time_end_us"][positions], span
            )
        for name, column, bounds in (
            ("cloud", "cloud_cover", q.cloud),
            ("coverage", "pixel_coverage", q.coverage),
        ):
            if bounds is None:
                continue
            structure = self.percent_structure(name)
            walk = partial(structure.walk, bounds)
            plan.candidates[name] = _Candidate(structure.count(bounds), walk)
            plan.tests[name] = partial(_percent_test, columns[column], bounds)

    def _plan_slots(
        self,
        plan: _Plan,
        slots: frozenset[int],
        row_slots: npt.NDArray[np.uint16],
        snapshot: Snapshot,
    ) -> int:
        """How many rows lie in `slots`."""
        table = slot_table(slots)
        if len(slots) == len(table) - 1:
            return snapshot.live  # every slot: nothing to leave out
        kept = self._counts.get("slot")
        # A definition that came late places rows that were there: those are counted again.
        if kept is None or kept[0] is not snapshot or kept[1][NO_SLOT]:
            counts = np.bincount(row_slots[snapshot.alive], minlength=len(table))
            kept = self._counts["slot"] = (snapshot, counts)
        rows = int(kept[1][table].sum())
        plan.candidates["slots"] = _Candidate(rows, lambda: np.flatnonzero(table[row_slots]))
        plan.tests["slots"] = lambda positions: table[row_slots[positions]]
        return rows

    def _plan_region(self, plan: _Plan, q: Query, snapshot: Snapshot, explain: Explain) -> None:
        """The trie is walked unless few rows are left anyway: then their cells are tested."""
        region = q.region
        if region is None:
            return
        interner = self.columns.interners["cell"]
        fewest = min((each.rows for each in plan.candidates.values()), default=snapshot.live)
        if fewest > REGION_TEST_ROWS_MAX:
            with explain.stage("region"):
                cells = self.cell_structure()
                table, tested = cells.overlapping(region, interner)
            self._add_table(plan, "region", "cell", table, snapshot)
            explain.add("walk", f"trie of geocodes: {tested} cells tested")
            return
        cells = self.cell_structure()
        codes = snapshot.columns["cell"]

        def test(positions: Positions) -> Booleans:
            distinct, inverse = np.unique(codes[positions], return_inverse=True)
            return cells.matching(region, distinct, interner)[inverse]

        plan.tests["region"] = test

    def select(
        self,
        q: Query,
        explain: Explain,
        *,
        slots: frozenset[int] | None = None,
        row_slots: npt.NDArray[np.uint16] | None = None,
    ) -> Selected:
        """The rows that satisfy every predicate (sort and limit play no part).

        With `slots`, only rows that lie in one of them by `row_slots`.

        Raises:
            CorruptDataError: a row would be asked for its slot, and its dataset has none.
        """
        snapshot = self.columns.snapshot()
        plan = _Plan()
        rows_total = snapshot.live
        with explain.stage("plan"):
            explain.predicates.update(q.predicates())
            self._plan_codes(plan, q, snapshot)
            self._plan_ranges(plan, q, snapshot)
            if slots is not None:
                assert row_slots is not None
                rows_total = self._plan_slots(plan, slots, row_slots, snapshot)
        self._plan_region(plan, q, snapshot, explain)
        with explain.stage("select"):
            positions = self._run(plan, snapshot, explain)
        if slots is not None and row_slots is not None:
            self._check_placed(snapshot, positions, row_slots)
        if q.where is not None:
            facts = RowFacts(snapshot.batch(positions, ()))
            positions = positions[evaluate(q.where, facts)]
            explain.add("filter", "where", actual_rows=len(positions))
        explain.rows_total = rows_total
        explain.rows_matched = len(positions)
        return Selected(snapshot, positions, row_slots)

    @staticmethod
    def _check_placed(
        snapshot: Snapshot, positions: Positions, row_slots: npt.NDArray[np.uint16]
    ) -> None:
        unplaced = positions[row_slots[positions] == NO_SLOT]
        if len(unplaced):
            first = int(snapshot.columns["dataset_id"][unplaced[0]])
            raise CorruptDataError(
                f"catalog: {len(unplaced)} tiles of dataset id"
                f" {snapshot.values['dataset_id'][first]!r} and its like have no definition that"
                " places them on the ring"
            )

    @staticmethod
    def _run(plan: _Plan, snapshot: Snapshot, explain: Explain) -> Positions:
        explain.considered.update({name: each.rows for name, each in plan.candidates.items()})
        best = min(plan.candidates, key=lambda name: plan.candidates[name].rows, default=None)
        total = len(snapshot.alive)
        if best is not None and plan.candidates[best].rows * SCAN_FRACTION < total:
            candidate = plan.candidates[best]
            positions = candidate.walk()
            positions = positions[snapshot.alive[positions]]
            explain.structure = best
            if candidate.exact:
                del plan.tests[best]
            explain.add("walk", best, estimated_rows=candidate.rows, actual_rows=len(positions))
        else:
            positions = np.flatnonzero(snapshot.alive)
            explain.add(
                "scan", "all rows", estimated_rows=snapshot.live, actual_rows=len(positions)
            )
        for name, test in sorted(
            plan.tests.items(),
            # The most selective first; those without a structure (cells one by one) last.
            key=lambda item: plan.candidates[item[0]].rows if item[0] in plan.candidates else total,
        ):
            if not len(positions):
                break
            positions = positions[test(positions)]
            estimate = plan.candidates[name].rows if name in plan.candidates else None
            explain.add("filter", name, estimated_rows=estimate, actual_rows=len(positions))
        return positions
