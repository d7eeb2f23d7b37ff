"""How a query is answered from a view of the rows: which structure is walked, what is tested.

Each predicate that has a structure says how many rows it would leave, without visiting any. The one
that promises the least work is walked, the others are tested on what it gives, column by column.
Rows that came after the structure was built are tested one by one. Where a place leaves few rows
nobody else is even asked: then the answer takes some 40 us whatever the catalog holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from geostore.errors import CorruptDataError
from geostore.grid import Region
from geostore.index.cell_table import (
    CLOUD,
    COLUMN,
    COVERAGE,
    END,
    ENOUGH_ROWS,
    GROUP,
    LEAST,
    MOST,
    POSITION,
    ROW,
    START,
    UNKNOWN,
    Bounds,
    CellBox,
    CellTable,
    Records,
    Stretches,
    percent_code,
)
from geostore.index.column_facts import (
    ColumnFacts,
    cells_match,
    geocode_mask,
    in_boxes,
    region_mask,
    time_mask,
)
from geostore.index.columns import NO_START, Positions, Snapshot
from geostore.index.flattening import flattened
from geostore.index.memory import Selected, View
from geostore.index.once import once
from geostore.index.ordered_walk import walk_of
from geostore.index.placement import NO_SLOT, slot_table
from geostore.index.structures import DATASETS_APART, Families, Structure
from geostore.query import (
    AnyOf,
    Cursor,
    Explain,
    PercentRange,
    Query,
    conjuncts,
    evaluate,
    stage_of,
)
from geostore.query.predicate import percent_matches, schema_matches
from geostore.types import TimeSpan

__all__ = ["count", "first_rows", "select"]

Booleans = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.integer[Any]]
Test = Callable[[View, Positions], Booleans]

UNASKED_ROWS: Final = 8 * ENOUGH_ROWS
"""Testing so few rows of a place costs less than asking the trees how many they would give."""
SCAN_COST: Final = 0.5
"""Of testing a row where all are tested; 1: of a row that a table of cells gives."""
RUN_COST: Final = 1.5
"""Of a row of a group: they came together, and lie together."""
TREE_COST: Final = 4.0
"""Of a row that a tree gives: it lies anywhere in the columns."""
WALK_ROWS: Final = 20_000
"""Candidates of a shape that is no box from which on it is walked down the trie, so that what lies
inside is not tested cell by cell.
"""


def _time_test(span: TimeSpan, view: View, at: Positions) -> Booleans:
    return time_mask(view, at, span)


def _closed(span: TimeSpan | None) -> tuple[int, int] | None:
    """A span's ends, where it has both."""
    if span is None or span.start_us is None or span.end_us is None:
        return None
    return span.start_us, span.end_us


def _codes_of(percents: PercentRange) -> tuple[int, int]:
    """A range of percentages, as records have them."""
    low, high = percents.minimum, percents.maximum
    return (
        LEAST if low is None else percent_code(low),
        UNKNOWN - 1 if high is None else percent_code(high),
    )


def _percent_test(name: str, bounds: PercentRange, view: View, at: Positions) -> Booleans:
    return percent_matches(
        (view.facts.cloud if name == "cloud" else view.facts.coverage)[at], bounds
    )


@dataclass(frozen=True, slots=True)
class _GroupPredicate:
    """A predicate that holds for all rows of a group or for none."""

    name: str
    column: str
    """Of groups."""
    codes: tuple[int, ...]
    """Of the column's values that are wanted."""
    rows: int
    """Live rows that have one of them."""

    def holds(self, snapshot: Snapshot, groups: Integers) -> Booleans:
        """Of rows of these groups."""
        codes = snapshot.group_codes[self.column][groups]
        if len(self.codes) == 1:
            mask: Booleans = codes == self.codes[0]
            return mask
        wanted = np.zeros(len(snapshot.values[self.column]) + 1, np.bool_)
        wanted[list(self.codes)] = True
        return wanted[codes]

    def groups(self, snapshot: Snapshot) -> npt.NDArray[np.intp]:
        """The groups it holds for."""
        if self.column == "scene":
            numbers = [n for code in self.codes for n in snapshot.groups_of_scene[code]]
            return np.array(numbers, np.intp)
        return np.flatnonzero(self.holds(snapshot, np.arange(len(snapshot.group_live))))


def _group_predicates(view: View, q: Query) -> Iterator[_GroupPredicate]:
    if q.scene is not None:
        yield _named(view.snapshot, "scene", (q.scene,))
    if q.datasets is not None:
        yield _named(view.snapshot, "dataset", q.datasets)
    if q.platform is not None:
        yield _named(view.snapshot, "platform", (q.platform,))
    if q.bands:
        snapshot = view.snapshot
        schemas = snapshot.values["schema"].tolist()
        codes = tuple(i for i, schema in enumerate(schemas) if schema_matches(schema, q.bands))
        rows = int(snapshot.live_of_codes["schema"][list(codes)].sum())
        yield _GroupPredicate("bands", "schema", codes, rows)


def _named(snapshot: Snapshot, name: str, texts: Sequence[str]) -> _GroupPredicate:
    known = snapshot.codes[name]
    end = len(snapshot.values[name])  # values that came since have higher codes
    codes = tuple({known[text] for text in texts if known.get(text, end) < end})
    if not codes:
        return _GroupPredicate(name, name, codes, 0)
    if name == "scene":
        live = snapshot.group_live
        numbers = [n for code in codes for n in snapshot.groups_of_scene[code] if n < len(live)]
    else:
        live, numbers = snapshot.live_of_codes[name], list(codes)
    rows = int(live[numbers[0]] if len(numbers) == 1 else live[numbers].sum())
    return _GroupPredicate(name, name, codes, rows)


def _group_test(predicate: _GroupPredicate, view: View, at: Positions) -> Booleans:
    return predicate.holds(view.snapshot, view.facts.group[at])


@dataclass(slots=True)
class _Candidate:
    """One way to find the rows of a predicate."""

    rows: int
    """Upper bound of the rows it leaves."""
    cost: float


@dataclass(slots=True)
class _Places:
    """Where in one table the rows of a place lie, and what is left to test of them."""

    table: CellTable
    stretches: Stretches
    rows: int
    boxes: list[CellBox] | None
    """None: every row of the stretches matches."""
    ranks: Integers | None = None
    """Instead of stretches: rows that may lie in the place and in the span of time."""


class _Plan:
    """One query against one view."""

    def __init__(self, view: View, q: Query, explain: Explain | None = None) -> None:
        self.view = view
        self.snapshot = view.snapshot
        self.q = q
        self.explain = explain
        self._groups = tuple(_group_predicates(view, q))

        self.families: Families = None
        """The trees of the datasets that are asked for."""
        self.has_families_alone = False
        """Whether those have rows of no other dataset."""
        for each in self._groups:
            if each.name == "dataset":
                self.families = frozenset(min(code, DATASETS_APART) for code in each.codes)
                self.has_families_alone = DATASETS_APART not in self.families

    # ------------------------------------------------------------ tests

    @once
    def _tests(self) -> dict[str, Test]:
        """Of all predicates but places, the most selective first as a rule."""
        q = self.q
        tests: dict[str, Test] = {}
        if q.time is not None:
            tests["time"] = partial(_time_test, q.time)
        for predicate in self._groups:
            tests[predicate.name] = partial(_group_test, predicate)
        if q.cloud is not None:
            tests["cloud"] = partial(_percent_test, "cloud", q.cloud)
        if q.coverage is not None:
            tests["coverage"] = partial(_percent_test, "coverage", q.coverage)
        return tests

    # ------------------------------------------------------------ places

    def _places(self) -> list[_Places] | None:
        """Where the rows of the place lie; None: the query names no place."""
        q = self.q
        if q.region is None and q.geocode is None:
            return None
        found = []
        span = _closed(q.time)
        for table in self.view.cells.tables.values():
            boxes = None
            if q.region is not None:
                ground = table.ground(q.region, by_time=span is not None and q.geocode is None)
                boxes = ground.boxes
                if ground.pieces is not None and span is not None and q.geocode is None:
                    first, last = span
                    if last - first <= table.by_time.span_max_us:
                        ranks = table.by_time.during(ground.pieces, first, last)
                        if len(ranks):
                            found.append(_Places(table, [], len(ranks), boxes, ranks))
                        continue
            if q.geocode is not None:
                stretches = table.under(q.geocode, recursive=q.recursive)
                rows = sum(end - start for start, end in stretches)
            else:
                assert boxes is not None
                stretches, rows = table.near(boxes)
            if rows:
                found.append(_Places(table, stretches, rows, boxes))
        return found

    def _from_places(self, places: list[_Places]) -> Positions:
        """Rows of all tables that pass all tests, and of the tail; not in order."""
        found = [self._from_table(each) for each in places]
        cells = self.view.cells
        if len(self.snapshot.dead) > cells.dead_seen:
            found = [each[self.snapshot.alive[each]] for each in found]
        if cells.upto < self.snapshot.count:
            found.append(self._tail(cells.upto))
        if len(found) == 1:
            return found[0]
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def _bounds(self) -> list[tuple[int, int, int]]:
        """The predicates on numbers, as `Bounds` has them; without the place's."""
        q, each = self.q, []
        if q.time is not None:
            first, last = q.time.start_us, q.time.end_us
            each.append((START, LEAST, NO_START - 1 if last is None else last))
            if first is not None:
                each.append((END, first, MOST))
        if q.cloud is not None:
            each.append((CLOUD, *_codes_of(q.cloud)))
        if q.coverage is not None:
            each.append((COVERAGE, *_codes_of(q.coverage)))
        return each

    def _from_table(self, places: _Places) -> Positions:
        table, region, boxes = places.table, self.q.region, places.boxes
        each = self._bounds()
        if boxes is not None and len(boxes) == 1:
            ((west, east, top, bottom),) = boxes
            each = [(COLUMN, west, east), (ROW, top, bottom), *each]
            boxes = None
        if places.ranks is None:
            records = table.rows_of(places.stretches, places.rows)
        else:
            records = table.records.take(places.ranks, 0)
        records = table.within(records, Bounds(each))
        if boxes is not None:
            records = records[in_boxes(boxes, records[:, COLUMN], records[:, ROW])]
        records = self._of_groups(records)
        if region is not None and region.rectangles is None and len(records):
            records = self._refined(table, records, region)
        return records[:, POSITION]

    def _refined(self, table: CellTable, records: Records, region: Region) -> Records:
        """Those of a table's records whose cells match a shape that is no box."""
        grid = self.snapshot.grids.index((table.scheme, table.length))
        if len(records) > WALK_ROWS and self.q.geocode is None:
            walk = table.walk(region)
            if self.explain is not None:
                self.explain.add("walk", f"trie of geocodes: {walk.tested} cells tested")
            whole = [table.records[start:end] for start, end in walk.whole.tolist()]
            unsure = [table.records[start:end] for start, end in walk.unsure.tolist()]
            kept = [self._kept(np.concatenate([records[:0], *each])) for each in (whole, unsure)]
            records = kept[1][
                cells_match(self.view, grid, region, kept[1][:, COLUMN], kept[1][:, ROW])
            ]
            return np.concatenate([kept[0], records])
        return records[cells_match(self.view, grid, region, records[:, COLUMN], records[:, ROW])]

    def _kept(self, records: Records) -> Records:
        """Those that pass all tests but the place's."""
        return self._of_groups(CellTable.within(records, Bounds(self._bounds())))

    def _of_groups(self, records: Records) -> Records:
        for predicate in self._groups:
            records = records[predicate.holds(self.snapshot, records[:, GROUP])]
        return records

    def _tail(self, first: int) -> Positions:
        """The rows from `first` on that match, found one by one."""
        at: Positions = np.flatnonzero(self.snapshot.alive[first:]) + first
        return self._tested(at, self._tests)

    def _tested(self, at: Positions, tests: dict[str, Test]) -> Positions:
        """Those of some live positions that pass these tests, and lie in the place."""
        q, view = self.q, self.view
        for name, test in tests.items():
            if not len(at):
                return at
            at = at[test(view, at)]
            self.say("filter", name, actual_rows=len(at))
        if q.geocode is not None and len(at):
            at = at[geocode_mask(view, at, q.geocode, recursive=q.recursive)]
            self.say("filter", "geocode", actual_rows=len(at))
        if q.region is not None and len(at):
            at = at[region_mask(view, at, q.region)]
            self.say("filter", "region", actual_rows=len(at))
        return at

    def passing(self, at: Positions, *, of_families: bool) -> Positions:
        """Those of some live positions that satisfy the whole query; `of_families`: which come
        from trees of `families`.
        """
        tests = self._tests
        if of_families and self.has_families_alone:
            tests = {name: test for name, test in tests.items() if name != "dataset"}
        at = self._tested(at, tests)
        if self.q.where is not None and len(at):
            at = at[evaluate(self.q.where, ColumnFacts(self.view, at))]
        return at

    @property
    def asks_rows(self) -> bool:
        """Whether some row of `families` might not match."""
        q = self.q
        return (
            bool(self._tests.keys() - ({"dataset"} if self.has_families_alone else set()))
            or q.region is not None
            or q.geocode is not None
            or q.where is not None
        )

    def say(self, action: str, subject: str, **rows: int) -> None:
        if self.explain is not None:
            self.explain.add(action, subject, **rows)

    # ------------------------------------------------------------ selection

    def select(self) -> Positions:
        """Positions of the live rows that satisfy every flat predicate, in no order."""
        places = self._places()
        if places is not None and self.explain is None:
            rows = sum(each.rows for each in places)
            if rows <= UNASKED_ROWS:
                return self._from_places(places)
        candidates = self._candidates(places)
        best = min(candidates, key=lambda name: candidates[name].cost, default=None)
        total = self.snapshot.count
        least = SCAN_COST * total if best is None else candidates[best].cost
        if least > ENOUGH_ROWS and self.q.where is not None:
            united = self._united(min(least, SCAN_COST * total))
            if united is not None:
                return self._tested(united, self._tests)
        if best is None or candidates[best].cost > SCAN_COST * total:
            at: Positions = np.flatnonzero(self.snapshot.alive)
            self.say("scan", "all rows", estimated_rows=self.snapshot.live, actual_rows=len(at))
            return self._tested(at, self._tests)
        if self.explain is not None:
            self.explain.structure = best
        if best in ("region", "geocode"):
            assert places is not None
            found = self._from_places(places)
            self.say("walk", best, estimated_rows=candidates[best].rows, actual_rows=len(found))
            return found
        return self._from_structure(best, candidates[best].rows)

    @property
    def least_cost(self) -> float:
        """Of answering, in rows that a table of cells gives."""
        candidates = self._candidates(self._places()).values()
        return min((each.cost for each in candidates), default=SCAN_COST * self.snapshot.count)

    def _united(self, cost_max: float) -> Positions | None:
        """The rows of one of several parts of which one must hold, each found by itself; None
        where that costs more.
        """
        assert self.q.where is not None
        for part in conjuncts(self.q.where):
            if isinstance(part, AnyOf):
                queries = [flattened(Query(where=each)) for each in part.parts]
                cost = sum(_Plan(self.view, q).least_cost for q in queries)
                if cost < cost_max:
                    found = [_matching(self.view, q, None) for q in queries]
                    self.say("walk", f"{len(found)} parts, one by one", estimated_rows=int(cost))
                    return np.unique(np.concatenate(found))
        return None

    def _candidates(self, places: list[_Places] | None) -> dict[str, _Candidate]:
        q, view = self.q, self.view
        found: dict[str, _Candidate] = {}
        if places is not None:
            rows = sum(each.rows for each in places)
            found["region" if q.geocode is None else "geocode"] = _Candidate(rows, float(rows))
        for predicate in self._groups:
            found[predicate.name] = _Candidate(predicate.rows, predicate.rows * RUN_COST)
        if q.time is not None:
            rows = view.times.count(q.time, self.families)
            found["time"] = _Candidate(rows, rows * TREE_COST)
        if q.cloud is not None:
            rows = view.percents("cloud_cover").count(q.cloud, self.families)
            found["cloud"] = _Candidate(rows, rows * TREE_COST)
        if q.coverage is not None:
            rows = view.percents("pixel_coverage").count(q.coverage, self.families)
            found["coverage"] = _Candidate(rows, rows * TREE_COST)
        if self.explain is not None:
            self.explain.considered.update({name: each.rows for name, each in found.items()})
        return found

    def _from_structure(self, name: str, estimated: int) -> Positions:
        """Rows that a tree or the groups' runs give, tested, and those of the tail."""
        q, view, snapshot = self.q, self.view, self.snapshot
        structure: Structure
        at: Positions
        groups = {predicate.name: predicate for predicate in self._groups}
        if name == "time":
            assert q.time is not None
            structure = view.times
            at, unsure = structure.walk(q.time, self.families)
            if len(unsure):
                at = np.concatenate([at, unsure[time_mask(view, unsure, q.time)]])
        elif name in groups:
            structure = view.runs
            at = structure.walk(groups[name].groups(snapshot))
        else:
            bounds = q.cloud if name == "cloud" else q.coverage
            assert bounds is not None
            structure = view.percents("cloud_cover" if name == "cloud" else "pixel_coverage")
            at = structure.walk(bounds, self.families)
        if len(snapshot.dead) > structure.dead_seen:
            at = at[snapshot.alive[at]]
        self.say("walk", name, estimated_rows=estimated, actual_rows=len(at))
        done = {name, "dataset"} if name not in groups and self.has_families_alone else {name}
        at = self._tested(at, {key: test for key, test in self._tests.items() if key not in done})
        if structure.upto < snapshot.count:
            at = np.concatenate([at, self._tail(structure.upto)])
        return at

    # ------------------------------------------------------------ counts

    def count(self) -> int | None:
        """How many rows match, where no row that was there when structures were built need be
        looked at; None where they must.
        """
        if self.q.region is not None:
            return None
        asked = [*self._tests, *(["geocode"] if self.q.geocode is not None else [])]
        if not asked:
            return self.snapshot.live
        if len(asked) > 1:
            return None
        (name,) = asked
        if self._groups:
            return self._groups[0].rows
        if name == "time":
            return self._count_times()
        if name == "geocode":
            places = self._places() or []
            return self._corrected(self.view.cells, sum(each.rows for each in places))
        percents = self.view.percents("cloud_cover" if name == "cloud" else "pixel_coverage")
        bounds = self.q.cloud if name == "cloud" else self.q.coverage
        assert bounds is not None
        return self._corrected(percents, percents.count(bounds))

    def _count_times(self) -> int:
        assert self.q.time is not None
        times = self.view.times
        sure, unsure = times.unsure(self.q.time)
        passed = np.count_nonzero(time_mask(self.view, unsure, self.q.time))
        return self._corrected(times, sure + int(passed))

    def _corrected(self, structure: Structure, rows: int) -> int:
        """A structure's count, less those of its rows that died, with those of the tail."""
        dead = self.snapshot.dead[structure.dead_seen :]
        dead = dead[dead < structure.upto]
        rows -= len(self._tested(dead, self._tests))
        if structure.upto < self.snapshot.count:
            rows += len(self._tail(structure.upto))
        return rows


def select(
    view: View,
    q: Query,
    explain: Explain | None = None,
    *,
    slots: frozenset[int] | None = None,
    row_slots: npt.NDArray[np.uint16] | None = None,
) -> Selected:
    """The rows that satisfy every predicate (sort and limit play no part), in no order.

    With `slots`, only rows that lie in one of them by `row_slots`.

    Raises:
        CorruptDataError: a row would be asked for its slot, and its dataset has none.
    """
    snapshot = view.snapshot
    positions = _matching(view, flattened(q), explain)
    if explain is not None:
        explain.predicates.update(q.predicates())
    if slots is not None:
        assert row_slots is not None
        table = slot_table(slots)
        if len(slots) < len(table) - 1:
            positions = positions[table[row_slots[positions]]]
            if explain is not None:
                explain.add("filter", "slots", actual_rows=len(positions))
        _check_placed(snapshot, positions, row_slots)
    if explain is not None:
        explain.rows_total = _rows_in(snapshot, slots, row_slots)
        if slots is not None:
            explain.considered["slots"] = explain.rows_total
        explain.rows_matched = len(positions)
    return Selected(snapshot, positions, row_slots)


def first_rows(
    view: View,
    q: Query,
    wanted: int,
    explain: Explain | None = None,
    *,
    after: Cursor | None = None,
    keep: Callable[[Positions], Positions],
    slots: frozenset[int] | None = None,
    row_slots: npt.NDArray[np.uint16] | None = None,
) -> Positions | None:
    """Rows that match, with all that may be among the first `wanted` by the query's order, in no
    order; None where finding all that match costs less (`select`).

    Only rows at or behind the sort key of `after` are wanted, and of those that match the ones
    that `keep` leaves.
    """
    plain = flattened(q)
    plan = _Plan(view, plain)
    cost, total = math.inf, max(1, view.snapshot.count)
    is_few = TREE_COST * wanted <= total
    is_sure = is_few and not plan.asks_rows and after is None and slots is None
    if not is_sure:
        cost = plan.least_cost
        expected = TREE_COST * wanted * total / max(1.0, min(cost, total))
        if expected > cost or (slots is not None and row_slots is None):
            return None
    walk = walk_of(view, plain, after, plan.families, max(1, wanted) if is_sure else None)
    if walk is None:
        return None
    table = None if slots is None else slot_table(slots)

    def test(at: Positions, *, is_tail: bool = False) -> Positions:
        if len(view.snapshot.dead):
            at = at[view.snapshot.alive[at]]
        at = plan.passing(at, of_families=not is_tail)
        if table is not None and row_slots is not None:
            at = at[table[row_slots[at]]]
        return keep(at)

    with stage_of(explain, "select"):
        found = walk.first_rows(wanted, cost / TREE_COST, test)
        if found is None:
            return None
        if walk.tail < view.snapshot.count:
            tail = np.arange(walk.tail, view.snapshot.count)
            found = np.concatenate([found, test(tail, is_tail=True)])
    if table is not None and row_slots is not None:
        _check_placed(view.snapshot, found, row_slots)
    if explain is not None:
        explain.predicates.update(q.predicates())
        explain.structure = q.sort or "time"
        explain.add("walk", f"{explain.structure}, in order", actual_rows=len(found))
        explain.rows_total = _rows_in(view.snapshot, slots, row_slots)
        explain.rows_matched, explain.ended_early = len(found), len(found) >= wanted
    return found


def _matching(view: View, q: Query, explain: Explain | None) -> Positions:
    """The live rows that satisfy a flattened query, in no order."""
    if explain is None and q.where is None:
        return _Plan(view, q).select()
    with stage_of(explain, "plan"):
        plan = _Plan(view, q, explain)
    with stage_of(explain, "select"):
        positions = plan.select()
        if q.where is not None:
            positions = positions[evaluate(q.where, ColumnFacts(view, positions))]
            plan.say("filter", "where", actual_rows=len(positions))
    return positions


def count(
    view: View,
    q: Query,
    explain: Explain | None = None,
    *,
    slots: frozenset[int] | None = None,
    row_slots: npt.NDArray[np.uint16] | None = None,
) -> int:
    """How many rows `select` would give; where counts suffice, without looking at any."""
    plain = flattened(q)
    if explain is None and slots is None and plain.where is None:
        known = _Plan(view, plain).count()
        if known is not None:
            return known
    return len(select(view, q, explain, slots=slots, row_slots=row_slots).positions)


def _rows_in(
    snapshot: Snapshot,
    slots: frozenset[int] | None,
    row_slots: npt.NDArray[np.uint16] | None,
) -> int:
    if slots is None or row_slots is None:
        return snapshot.live
    return int(np.count_nonzero(slot_table(slots)[row_slots[snapshot.alive]]))


def _check_placed(
    snapshot: Snapshot, positions: Positions, row_slots: npt.NDArray[np.uint16]
) -> None:
    unplaced = positions[row_slots[positions] == NO_SLOT]
    if len(unplaced):
        first = snapshot.group_values("dataset_id", unplaced[:1])[0]
        raise CorruptDataError(
            f"catalog: {len(unplaced)} tiles of dataset id {first!r} and its like have no"
            " definition that places them on the ring"
        )
