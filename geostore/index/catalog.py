"""The catalog: a log and its snapshots (durable), and memory (searched)."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt

from geostore.errors import (
    GeostoreError,
    InvalidInputError,
    NotFoundError,
    ReadOnlyError,
    UnavailableError,
)
from geostore.index import bulk, coverage_search, operations, reclouding
from geostore.index.aggregates import summarise
from geostore.index.answer import Answer
from geostore.index.batching import GroupCommit
from geostore.index.checking import problems
from geostore.index.columns import Positions, Snapshot
from geostore.index.contents import Contents
from geostore.index.coverage_search import Cells
from geostore.index.effects import Abandon, Begin, Effect, Switch
from geostore.index.entry import CatalogEntry, DatasetSummary, Record, StagedTile, TileDetails
from geostore.index.face import BATCH_ROWS, Catalog, NodesOfSlot, RecordChange, RowIds
from geostore.index.home import Home
from geostore.index.log import LogDroppedError
from geostore.index.memory import Selected, View
from geostore.index.operations import Decision, PreparedEntry
from geostore.index.packed import PackedTiles
from geostore.index.packing import Group, details_group, unpack_details
from geostore.index.placement import NodeNames
from geostore.index.planner import count, select
from geostore.index.reclouding import Rules, likelihood_band, under_rule
from geostore.index.row_bitmaps import Bitmaps
from geostore.index.state import Records, State
from geostore.query import (
    Batches,
    CoverageAnswer,
    CoverageRequest,
    Cursor,
    Explain,
    Query,
    Summary,
    SummaryKeys,
    check_summarised,
    stage_of,
)
from geostore.ring import SLOTS_TOTAL
from geostore.types import CloudRule, RowBatch, SlotSizes, TileKey, TileRow, TileSchema

__all__ = ["LogCatalog", "open_catalog"]

REBUILD_CHUNK = 4096
GROUPS_KEPT = 1024
LOOKS_MAX = 4
"""How often something is looked for because segments of the log were dropped under a look."""

Result = TypeVar("Result")


class LogCatalog(Catalog):
    """See `Catalog`, whose methods these are.

    Cheap to open twice: all catalogs of one directory in a process share one log and one
    memory. A forked child may go on reading; it cannot write.
    """

    def __init__(
        self,
        home: Home,
        *,
        writable: bool,
        node: str = "local",
        nodes: NodesOfSlot | None = None,
    ) -> None:
        self._home = home
        self._writable = writable
        self._node = (node,)
        self._names = None if nodes is None else NodeNames(nodes)
        self._closed = False
        self._groups: dict[bytes, tuple[Group, str | None]] = {}
        """Scene entries by digest, with the band that has their tiles' cloud likelihood."""
        self._stage = GroupCommit(self._stage_batches)
        self._closing = threading.Lock()

    @property
    def directory(self) -> Path:
        return self._home.directory

    @property
    def writable(self) -> bool:
        return self._writable

    def set_nodes(self, nodes: NodesOfSlot | None) -> None:
        """What rows say holds them from now on; None: the one node given at the start.

        `nodes` is asked once a slot, here: call this again when the ring changes. Queries
        that are under way keep the names they began with.
        """
        self._names = None if nodes is None else NodeNames(nodes)

    # ------------------------------------------------------------ reading and writing

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidInputError(f"catalog {self.directory}: used after close()")

    def _check_writable(self) -> None:
        self._check_open()
        if not self._writable:
            raise ReadOnlyError(f"catalog {self.directory}: opened for reading only")
        self._home.require_writable()

    def _write_tiles(self, decide: Callable[[State], Decision[Result]]) -> Result:
        self._check_writable()
        if self._home.is_rebuilding:
            raise UnavailableError(f"catalog {self.directory}: a rebuild is under way")
        return self._home.write(decide)

    @contextmanager
    def _reading(self) -> Iterator[State]:
        """The state, up to date and locked."""
        self._check_open()
        with self._home.reading() as state:
            yield state

    def _read(self, look: Callable[[State], Result]) -> Result:
        """What `look` finds in the state, up to date and locked.

        It looks again where a segment was dropped under it: another process had moved what is
        alive in it.
        """
        for _ in range(LOOKS_MAX - 1):
            with suppress(LogDroppedError), self._reading() as state:
                return look(state)
        with self._reading() as state:
            return look(state)

    def _view(self, explain: Explain | None = None) -> View:
        """What queries look at, up to date."""
        self._check_open()
        if explain is None:
            return self._home.refresh()
        with explain.stage("refresh"):
            return self._home.refresh()

    # ------------------------------------------------------------ queries

    def refresh(self) -> None:
        self._view()

    def _select(
        self,
        q: Query,
        *,
        slots: frozenset[int] | None = None,
        missing_ok: bool = False,
    ) -> Selected:
        view = self._view()
        if q.datasets is not None and not missing_ok:
            self._check_datasets(q.datasets, view)
        row_slots = None if slots is None else self._row_slots(view)
        return select(view, q, slots=slots, row_slots=row_slots)

    def _row_slots(self, view: View) -> npt.NDArray[np.uint16]:
        return view.memory.row_slots.of(view.snapshot, self._placement_of)

    def _placement_of(self, dataset_id: str, dataset: str) -> int | None:
        """The placement length in a dataset's record; None where there is none of that id.

        Raises:
            CorruptDataError: the record does not read.
        """
        definition = operations.read_definition(self._home.records, dataset_id, dataset)
        placement = None if definition is None else definition["placement"]
        return placement if isinstance(placement, int) else None

    def _check_datasets(self, names: Sequence[str], view: View) -> None:
        seen = view.snapshot.codes["dataset"]
        records = self._home.records
        for name in names:
            if name not in seen and operations.DATASET_RECORDS + name not in records.places:
                known = operations.known_datasets(records)
                raise NotFoundError(
                    f"dataset {name!r} does not exist; known: {', '.join(known) or 'none'}"
                )

    def query(
        self,
        q: Query,
        *,
        batch_rows: int = BATCH_ROWS,
        explain: Explain | None = None,
        after: Cursor | None = None,
        slots: frozenset[int] | None = None,
        missing_ok: bool = False,
    ) -> Iterator[RowBatch]:
        if batch_rows < 1:
            raise InvalidInputError(f"batch_rows {batch_rows}: expected 1 or more")
        if after is not None:
            after.check_sort(q.sort)
        names = self._names
        view = self._view(explain)
        if q.datasets is not None and not missing_ok:
            self._check_datasets(q.datasets, view)
        row_slots = None
        if slots is not None or names is not None:
            with stage_of(explain, "slots"):
                row_slots = self._row_slots(view)
        found = Answer(view, q, explain, after).found(slots, row_slots)
        snapshot = view.snapshot
        return Batches(
            (self._batch(Selected(snapshot, positions, row_slots), positions, names), is_last)
            for positions, is_last in found.batches(batch_rows)
        )

    def _batch(self, selected: Selected, positions: Positions, names: NodeNames | None) -> RowBatch:
        row_slots = selected.row_slots
        if names is None or row_slots is None:
            return selected.snapshot.batch(positions, self._node)
        return selected.snapshot.batch(positions, names.of(row_slots[positions]))

    def count(
        self,
        q: Query,
        *,
        explain: Explain | None = None,
        slots: frozenset[int] | None = None,
        missing_ok: bool = False,
    ) -> int:
        view = self._view(explain)
        if q.datasets is not None and not missing_ok:
            self._check_datasets(q.datasets, view)
        row_slots = None
        if slots is not None:
            with stage_of(explain, "slots"):
                row_slots = self._row_slots(view)
        matched = count(view, q, explain, slots=slots, row_slots=row_slots)
        return matched if q.limit is None else min(matched, q.limit)

    def aggregate(
        self,
        q: Query,
        by: SummaryKeys,
        *,
        slots: frozenset[int] | None = None,
        missing_ok: bool = False,
    ) -> Summary:
        check_summarised(q)
        selected = self._select(q, slots=slots, missing_ok=missing_ok)
        return summarise(selected.snapshot, selected.positions, by)

    def coverage(
        self,
        q: Query,
        request: CoverageRequest,
        *,
        slots: frozenset[int] | None = None,
        missing_ok: bool = False,
    ) -> CoverageAnswer:
        names = self._names
        selected, bitmaps = self._with_bitmaps(
            q, slots, wants_slots=names is not None, missing_ok=missing_ok
        )
        snapshot, positions, row_slots = selected.snapshot, selected.positions, selected.row_slots
        cells = _cells_of(snapshot, positions, self._home.records)
        found = coverage_search.search(snapshot, positions, request, bitmaps, cells)
        members = None
        if len(found.members):
            selected = Selected(snapshot, found.members, row_slots)
            members = self._batch(selected, found.members, names)
        return CoverageAnswer(groups=found.groups, members=members, member_group=found.member_group)

    def _with_bitmaps(
        self, q: Query, slots: frozenset[int] | None, *, wants_slots: bool, missing_ok: bool
    ) -> tuple[Selected, Bitmaps]:
        """Rows that match, and their bitmaps, which may be read from the log now.

        Nobody keeps its segments meanwhile: where one was dropped, the rows of now are looked for.
        """
        for tries_left in reversed(range(LOOKS_MAX)):
            view = self._view()
            if q.datasets is not None and not missing_ok:
                self._check_datasets(q.datasets, view)
            row_slots = None
            if slots is not None or wants_slots:
                row_slots = self._row_slots(view)
            selected = select(view, q, None, slots=slots, row_slots=row_slots)
            try:
                bitmaps = view.memory.row_bitmaps.of(
                    selected.snapshot, selected.positions, self._home.view_at
                )
                return Selected(selected.snapshot, selected.positions, row_slots), bitmaps
            except LogDroppedError:
                if not tries_left:
                    raise
        raise AssertionError("at least one try")

    # ------------------------------------------------------------ single tiles

    def _not_found(self, key: TileKey) -> NotFoundError:
        return NotFoundError(
            f"tile {key.geocode} of scene {key.scene!r} (version {key.version[:12]}) is not"
            f" published in {self.directory}"
        )

    def tile(self, key: TileKey) -> TileRow:
        with self._reading() as state:
            position = state.contents.find(key)
            view = state.contents.memory.view()
        if position is None:
            raise self._not_found(key)
        names, positions = self._names, np.array([position])
        row_slots = None if names is None else self._row_slots(view)
        selected = Selected(view.snapshot, positions, row_slots)
        return next(self._batch(selected, positions, names).rows())

    def details(self, key: TileKey) -> TileDetails:
        value, digest, (group, band), rule = self._read(partial(self._look_up, key))
        if len(self._groups) >= GROUPS_KEPT:
            self._groups = {}
        self._groups[digest] = group, band
        details = unpack_details(key, value, group)
        return details if rule.method == "provider" else under_rule(details, rule, band)

    def _look_up(
        self, key: TileKey, state: State
    ) -> tuple[bytes, bytes, tuple[Group, str | None], CloudRule]:
        """A tile's packed details, its scene entry by digest and value, its dataset's rule."""
        position = state.contents.find(key)
        if position is None:
            raise self._not_found(key)
        (at,) = state.contents.details_of(np.array([position]))
        value = bytes(state.view(at))
        digest = details_group(value, key)
        known = self._groups.get(digest)
        if known is None:
            group = state.entries.group(state.entries.number(digest))
            known = group, likelihood_band(state.schema(group.schema))
        rule = Rules(state.records).of_dataset(known[0].dataset_id, known[0].dataset)
        return value, digest, known, rule

    def keys(
        self, dataset_id: str | None = None, scene: str | None = None, version: str | None = None
    ) -> list[TileKey]:
        operations.check_prefix(dataset_id, scene, version)
        with self._reading() as state:
            found = state.contents.keys_of(state.contents.rows_under(dataset_id, scene, version))
        return sorted(found)

    def checksum(self, key: TileKey) -> str | None:
        return self._read(lambda state: operations.stored_checksum(state, state.contents, key))

    # ------------------------------------------------------------ changes

    def stage(self, entries: Sequence[CatalogEntry]) -> list[str]:
        self._check_writable()  # before waiting for a leader, which a fork does not have
        prepared = operations.prepare(entries)
        return self._stage.submit(prepared) if prepared else []

    def _stage_batches(self, batches: Sequence[list[PreparedEntry]]) -> list[list[str]]:
        return self._write_tiles(lambda state: operations.stage(state, batches))

    def staged(
        self, dataset_id: str | None = None, scene: str | None = None, version: str | None = None
    ) -> list[StagedTile]:
        operations.check_prefix(dataset_id, scene, version)
        with self._reading() as state:
            tiles = state.contents.staged_under(dataset_id, scene, version)
            found = operations.staged_tiles(state, tiles)
        return sorted(found, key=lambda tile: tile.key)

    def unstage(
        self, dataset_id: str, scene: str | None = None, version: str | None = None
    ) -> list[TileKey]:
        operations.check_prefix(dataset_id, scene, version)
        keys = self._write_tiles(
            lambda state: operations.unstage(state, dataset_id, scene, version)
        )
        return sorted(keys)

    def publish(
        self,
        dataset_id: str,
        scene: str,
        version: str,
        replaced_version: str | None = None,
        *,
        cells: Sequence[str] | None = None,
        record: RecordChange | None = None,
    ) -> int:
        wanted = None if cells is None else frozenset(cells)

        def decide(state: State) -> Decision[int]:
            effects: list[Effect] = []
            rules = Rules(state.records)
            if record is not None:
                changed = reclouding.change_record(state, record)
                effects += changed.effects
                rules = Rules(state.records, changed.effects)
            published = operations.publish(
                state,
                (dataset_id, scene, version),
                replaced_version,
                wanted,
                partial(rules.covers_of, state),
            )
            return Decision(effects + published.effects, published.result)

        return self._write_tiles(decide)

    def insert(self, tiles: PackedTiles) -> int:
        return self._write_tiles(lambda state: bulk.insert(state, tiles))

    def remove(
        self,
        dataset_id: str,
        scene: str | None = None,
        version: str | None = None,
        *,
        record: RecordChange | None = None,
    ) -> list[TileKey]:
        operations.check_prefix(dataset_id, scene, version)

        def decide(state: State) -> Decision[list[TileKey]]:
            removed = operations.remove(state, dataset_id, scene, version)
            effects = removed.effects
            if record is not None:
                # First: rows that go would not be there to get the covers of a new rule.
                effects = reclouding.change_record(state, record).effects + effects
            return Decision(effects, removed.result)

        keys = self._write_tiles(decide)
        return sorted(keys)

    # ------------------------------------------------------------ records

    def record_get(self, name: str) -> Record | None:
        return self._read(lambda state: state.records.get(name))

    def record_compare_and_set(self, name: str, expected_revision: int, value: bytes | None) -> int:
        return self.change_definition(RecordChange(name, expected_revision, value))[0]

    def change_definition(self, change: RecordChange) -> tuple[int, RowIds]:
        self._check_writable()
        return self._home.write(lambda state: reclouding.change_record(state, change))

    def record_restore(self, name: str, record: Record) -> None:
        self._check_writable()
        self._home.write(lambda state: reclouding.restore_record(state, name, record))

    def record_names(self, prefix: str = "") -> list[str]:
        with self._reading() as state:
            return state.records.names(prefix)

    # ------------------------------------------------------------ overviews

    def schemas(
        self, datasets: Sequence[str] | None = None, *, missing_ok: bool = False
    ) -> list[TileSchema]:
        q = Query(datasets=None if datasets is None else tuple(datasets))
        selected = self._select(q, missing_ok=missing_ok)
        groups = np.unique(selected.snapshot.columns["group"][selected.positions])
        codes = np.unique(selected.snapshot.group_codes["schema"][groups])
        found: list[TileSchema] = selected.snapshot.values["schema"][codes].tolist()
        return sorted(found, key=lambda schema: schema.digest)

    def summary(self, *, slots: frozenset[int] | None = None) -> list[DatasetSummary]:
        selected = self._select(Query(), slots=slots)
        snapshot, positions = selected.snapshot, selected.positions
        groups = snapshot.columns["group"][positions]
        codes = snapshot.group_codes["dataset_id"][groups]
        names = snapshot.group_codes["dataset"][groups]
        sizes = snapshot.columns["bytes"][positions]
        found = []
        for code in np.unique(codes).tolist():
            own = codes == code
            found.append(
                DatasetSummary(
                    dataset_id=snapshot.values["dataset_id"][code],
                    dataset=snapshot.values["dataset"][names[own][0]],
                    tiles=int(own.sum()),
                    bytes=int(sizes[own].sum()),
                )
            )
        return sorted(found, key=lambda each: (each.dataset, each.dataset_id))

    def count_in_slots(self, row_ids: RowIds, slots: frozenset[int]) -> int:
        with self._reading() as state:
            positions = state.contents.memory.columns.find(row_ids)
            view = state.contents.memory.view()
        row_slots = self._row_slots(view)
        return int(np.count_nonzero(np.isin(row_slots[positions], list(slots))))

    def provider_cover(self, key: TileKey) -> float | None:
        with self._reading() as state:
            position = state.contents.find(key)
            snapshot = state.contents.memory.columns.snapshot()
        if position is None:
            raise self._not_found(key)
        cover = float(snapshot.columns["provider_cover"][position])
        return None if math.isnan(cover) else cover

    def slot_sizes(self) -> SlotSizes:
        selected = self._select(Query(), slots=frozenset(range(SLOTS_TOTAL)))
        snapshot, positions = selected.snapshot, selected.positions
        assert selected.row_slots is not None
        slots = selected.row_slots[positions]
        tiles = np.bincount(slots, minlength=SLOTS_TOTAL)
        sizes = np.bincount(slots, snapshot.columns["bytes"][positions], SLOTS_TOTAL)
        used = np.flatnonzero(tiles)
        return SlotSizes(
            slots=tuple(used.tolist()),
            tiles=tuple(tiles[used].tolist()),
            bytes=tuple(int(size) for size in sizes[used].tolist()),  # whole below 2 to the 53rd
        )

    # ------------------------------------------------------------ whole

    def rebuild(
        self, published: Iterable[CatalogEntry], staged: Iterable[CatalogEntry] = ()
    ) -> int:
        self._check_writable()
        with self._home.write_lock:
            if self._home.is_rebuilding:
                raise UnavailableError(f"catalog {self.directory}: a rebuild is under way")
            self._home.is_rebuilding = True
        try:
            return self._rebuild(published, staged)
        finally:
            self._home.is_rebuilding = False

    def _rebuild(self, published: Iterable[CatalogEntry], staged: Iterable[CatalogEntry]) -> int:
        """Puts the tiles beside those that are served, then lets one small change switch.

        The entries are taken from the iterators between changes: they may read files, fork, or
        query this catalog.
        """
        self._home.write(lambda _: Decision([Begin()], None))
        try:
            for chunk in _chunks(published):
                self._put_building(chunk, is_published=True)
            for chunk in _chunks(staged):
                self._put_building(chunk, is_published=False)
            return self._home.write(_switched)
        except BaseException:
            with suppress(GeostoreError):  # the next change abandons it too
                self._home.write(lambda _: Decision([Abandon()], None))
            raise

    def _put_building(self, entries: Sequence[CatalogEntry], *, is_published: bool) -> None:
        prepared = operations.prepare(entries)

        def decide(state: State) -> Decision[None]:
            added, _ = operations.new_entries(state, _building(state), prepared)
            effects = operations.put(state, added, is_published=is_published, is_building=True)
            return Decision(effects, None)

        self._home.write(decide)

    def check(self) -> list[str]:
        self._check_open()
        return problems(self._home)

    def close(self) -> None:
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._home.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _chunks(entries: Iterable[CatalogEntry]) -> Iterator[list[CatalogEntry]]:
    iterator = iter(entries)
    while chunk := list(islice(iterator, REBUILD_CHUNK)):
        yield chunk


def _building(state: State) -> Contents:
    """The tiles of the rebuild that is under way.

    Raises:
        UnavailableError: another process wrote meanwhile, which ends a rebuild of whoever else.
    """
    if state.building is None:
        raise UnavailableError("catalog: another process's change broke off the rebuild; try again")
    return state.building


def _switched(state: State) -> Decision[int]:
    """A rebuild's end: its tiles are served, under the rules that are in force now."""
    building = _building(state)
    effects: list[Effect] = [Switch()]
    # Not with each chunk: a rule may have been changed between two of them.
    covers = reclouding.follow_all(state, building)
    if len(covers.ids):
        effects.append(covers)
    return Decision(effects, building.memory.columns.live)


def _cells_of(snapshot: Snapshot, positions: Positions, records: Records) -> dict[str, Cells]:
    """Cells of the datasets of rows, by dataset id."""
    rules = Rules(records)
    cells = {}
    for dataset, dataset_id in coverage_search.datasets_of(snapshot, positions):
        definition = operations.read_definition(records, dataset_id, dataset) or {}
        groups = definition.get("groups")
        if groups:
            height, width = int(groups[0]["height"]), int(groups[0]["width"])
        else:  # no record: a catalog by itself, without a store around it
            codes = snapshot.group_codes["dataset_id"]
            code = snapshot.codes["dataset_id"][dataset_id]
            number = snapshot.group_codes["schema"][int(np.argmax(codes == code))]
            layout = snapshot.values["schema"][number].groups[0]
            height, width = layout.height, layout.width
        is_provider_ruled = rules.of_dataset(dataset_id, dataset).method == "provider"
        cells[dataset_id] = Cells(height, width, is_provider_ruled)
    return cells


def open_catalog(
    directory: str | os.PathLike[str],
    *,
    writable: bool,
    node: str = "local",
    nodes: NodesOfSlot | None = None,
    create: bool = True,
) -> LogCatalog:
    """The catalog in a directory of its own; `writable` makes it where there is none (`create`).

    Several processes may open it writable; their changes wait for each other. `node` is what
    rows say holds them; with `nodes` it is the names that it gives for a row's slot (see
    `LogCatalog.set_nodes`).

    One of an older format is converted: for good when it is opened writable, and the caller then
    keeps out writers of older versions; else aside, which takes as long at each opening.

    Raises:
        StoreFormatError: there is no catalog, it is of a newer format, or a file is something
            else.
        CorruptDataError: a file is damaged.
        ReadOnlyError: no permission.
        StorageFullError: the disk is full.
    """
    home = Home.share(Path(directory), writable=writable, create=create)
    return LogCatalog(home, writable=writable, node=node, nodes=nodes)
