"""The catalog on LMDB (durable) and memory (searched): the first `Catalog`."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt

from geostore.errors import (
    CorruptDataError,
    InvalidInputError,
    NotFoundError,
    ReadOnlyError,
    UnavailableError,
)
from geostore.index import coverage_search, operations, reclouding
from geostore.index.aggregates import summarise
from geostore.index.answer import Answer
from geostore.index.batching import GroupCommit
from geostore.index.checking import problems
from geostore.index.columns import Positions, Snapshot
from geostore.index.coverage_search import BITMAPS_AT_ONCE, Cells
from geostore.index.entry import CatalogEntry, DatasetSummary, Record, StagedTile, TileDetails
from geostore.index.environment import Databases, Environment, Transaction
from geostore.index.face import BATCH_ROWS, Catalog, NodesOfSlot, RecordChange, RowIds
from geostore.index.follower import Follower, read_schema
from geostore.index.memory import Selected
from geostore.index.operations import PreparedEntry
from geostore.index.packing import (
    Group,
    details_group,
    key_prefix,
    provider_covers,
    tile_key,
    unpack_details,
    unpack_rows,
)
from geostore.index.placement import NodeNames, read_placement
from geostore.index.planner import count, select
from geostore.index.reclouding import Rules, likelihood_band, stored_values, under_rule
from geostore.index.state import State
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
from geostore.types import RowBatch, SlotSizes, TileKey, TileRow, TileSchema

__all__ = ["LmdbCatalog", "open_catalog"]

REBUILD_CHUNK = 1024
GROUPS_KEPT = 1024

Result = TypeVar("Result")


class LmdbCatalog(Catalog):
    """See `Catalog`, whose methods these are.

    Cheap to open twice: all catalogs of one directory in a process share one LMDB
    environment and one memory. A forked child may go on reading; it cannot write.
    """

    def __init__(
        self,
        environment: Environment,
        *,
        writable: bool,
        node: str = "local",
        nodes: NodesOfSlot | None = None,
    ) -> None:
        self._environment = environment
        self._writable = writable
        self._node = (node,)
        self._names = None if nodes is None else NodeNames(nodes)
        self._pid = os.getpid()
        self._closed = False
        self._rebuilding = False
        self._groups: dict[bytes, tuple[Group, str | None]] = {}
        """Scene entries by digest, with the band that has their tiles' cloud likelihood."""
        self._stage = GroupCommit(self._stage_batches)
        self._closing = threading.Lock()

    @property
    def directory(self) -> Path:
        return self._environment.directory

    @property
    def writable(self) -> bool:
        return self._writable

    def set_nodes(self, nodes: NodesOfSlot | None) -> None:
        """What rows say holds them from now on; None: the one node given at the start.

        `nodes` is asked once a slot, here: call this again when the ring changes. Queries
        that are under way keep the names they began with.
        """
        self._names = None if nodes is None else NodeNames(nodes)

    # ------------------------------------------------------------ transactions

    @contextmanager
    def _read(self) -> Iterator[tuple[Transaction[bytes], Databases]]:
        self._check_open()
        with self._environment.read() as opened:
            yield opened

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidInputError(f"catalog {self.directory}: used after close()")

    def _check_writable(self) -> None:
        self._check_open()
        if not self._writable:
            raise ReadOnlyError(f"catalog {self.directory}: opened for reading only")
        if os.getpid() != self._pid:
            raise ReadOnlyError(
                f"catalog {self.directory}: opened for writing by process {self._pid}, of which"
                " this one is a fork; only that one may write"
            )

    def _write_tiles(self, operation: operations.Write[Result]) -> Result:
        self._check_writable()
        if self._rebuilding:
            raise UnavailableError(f"catalog {self.directory}: a rebuild is under way")
        return self._environment.write(operation)

    @contextmanager
    def _following(
        self, explain: Explain | None = None
    ) -> Iterator[tuple[Follower, Transaction[bytes], Databases]]:
        """The shared memory, up to date with the transaction that is given with it."""
        self._check_open()
        with self._environment.memory_lock:
            follower = self._environment.attachment
            if not isinstance(follower, Follower):
                follower = self._environment.attachment = Follower()
            with self._environment.read() as (txn, db):
                with stage_of(explain, "refresh"):
                    follower.refresh(txn, db)
                yield follower, txn, db

    # ------------------------------------------------------------ queries

    def refresh(self) -> None:
        with self._following():
            pass

    def _select(
        self,
        q: Query,
        *,
        slots: frozenset[int] | None = None,
        missing_ok: bool = False,
    ) -> Selected:
        with self._following() as (follower, txn, db):
            if q.datasets is not None and not missing_ok:
                self._check_datasets(q.datasets, follower, txn, db)
            row_slots = None if slots is None else self._row_slots(follower, txn, db)
            view = follower.memory.view()
            return select(view, q, slots=slots, row_slots=row_slots)

    @staticmethod
    def _row_slots(
        follower: Follower, txn: Transaction[bytes], db: Databases
    ) -> npt.NDArray[np.uint16]:
        memory = follower.memory
        return memory.row_slots.extend(memory.columns, partial(read_placement, txn, db))

    @staticmethod
    def _check_datasets(
        names: Sequence[str], follower: Follower, txn: Transaction[bytes], db: Databases
    ) -> None:
        seen = follower.memory.columns.groups.interners["dataset"].codes
        for name in names:
            if name in seen or operations.read_record(txn, db, operations.DATASET_RECORDS + name):
                continue
            records = operations.record_names(txn, db, operations.DATASET_RECORDS)
            known = [record.removeprefix(operations.DATASET_RECORDS) for record in records]
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
        with self._following(explain) as (follower, txn, db):
            if q.datasets is not None and not missing_ok:
                self._check_datasets(q.datasets, follower, txn, db)
            row_slots = None
            if slots is not None or names is not None:
                with stage_of(explain, "slots"):
                    row_slots = self._row_slots(follower, txn, db)
            view = follower.memory.view()
            answer = Answer(view, q, explain, after)
            found = answer.found(slots, row_slots)
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
        with self._following(explain) as (follower, txn, db):
            if q.datasets is not None and not missing_ok:
                self._check_datasets(q.datasets, follower, txn, db)
            row_slots = None
            if slots is not None:
                with stage_of(explain, "slots"):
                    row_slots = self._row_slots(follower, txn, db)
            view = follower.memory.view()
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
        while True:
            with self._following() as (follower, txn, db):
                if q.datasets is not None and not missing_ok:
                    self._check_datasets(q.datasets, follower, txn, db)
                row_slots = None
                if slots is not None or names is not None:
                    row_slots = self._row_slots(follower, txn, db)
                view = follower.memory.view()
                selected = select(view, q, None, slots=slots, row_slots=row_slots)
                snapshot, positions = selected.snapshot, selected.positions
                bitmaps = follower.memory.row_bitmaps
                unread = bitmaps.missing(positions, snapshot.count)
                generation = State.read(txn, db).generation

                def details_of(some: Positions) -> list[bytes]:
                    row_ids = snapshot.columns["row_id"][some]  # noqa: B023  # called at once
                    return list(stored_values(txn, db, "details", generation, row_ids))  # noqa: B023

                bitmaps.read(unread[:BITMAPS_AT_ONCE], details_of)
                if len(unread) > BITMAPS_AT_ONCE:
                    continue  # others get at the memory in between
                cells = _cells_of(snapshot, positions, txn, db, generation)
                known = bitmaps.view()
                break
        found = coverage_search.search(snapshot, positions, request, known, cells)
        members = None
        if len(found.members):
            selected = Selected(snapshot, found.members, row_slots)
            members = self._batch(selected, found.members, names)
        return CoverageAnswer(groups=found.groups, members=members, member_group=found.member_group)

    # ------------------------------------------------------------ single tiles

    def _not_found(self, key: TileKey) -> NotFoundError:
        return NotFoundError(
            f"tile {key.geocode} of scene {key.scene!r} (version {key.version[:12]}) is not"
            f" published in {self.directory}"
        )

    def tile(self, key: TileKey) -> TileRow:
        with self._following() as (follower, txn, db):
            row_id = txn.get(tile_key(key), db=db["published", State.read(txn, db).generation])
            if row_id is None:
                raise self._not_found(key)
            columns = follower.memory.columns
            positions = columns.find(np.array([int.from_bytes(row_id, "big")], dtype=np.int64))
            names = self._names
            row_slots = None if names is None else self._row_slots(follower, txn, db)
            selected = Selected(columns.snapshot(), positions, row_slots)
        return next(self._batch(selected, positions, names).rows())

    def details(self, key: TileKey) -> TileDetails:
        with self._read() as (txn, db):
            generation = State.read(txn, db).generation
            row_id = txn.get(tile_key(key), db=db["published", generation])
            if row_id is None:
                raise self._not_found(key)
            # One copy, made under the transaction: the map may move or be reused after it.
            value = txn.get(row_id, db=db["details", generation])
            if value is None:
                raise CorruptDataError(f"catalog {self.directory}: tile {key} has no details")
            digest = details_group(value, key)
            known = self._groups.get(digest)
            if known is None:
                group = operations.read_group(txn, db, generation, digest, properties=True)[0]
                known = group, likelihood_band(read_schema(txn, db, group.schema))
            group, band = known
            rule = Rules(txn, db, generation).of_dataset(group.dataset_id, group.dataset)
        if len(self._groups) >= GROUPS_KEPT:
            self._groups = {}
        self._groups[digest] = known
        details = unpack_details(key, value, group)
        return details if rule.method == "provider" else under_rule(details, rule, band)

    def keys(
        self, dataset_id: str | None = None, scene: str | None = None, version: str | None = None
    ) -> list[TileKey]:
        prefix = key_prefix(dataset_id, scene, version)
        with self._read() as (txn, db):
            return sorted(operations.published_keys(txn, db, prefix))

    def checksum(self, key: TileKey) -> str | None:
        with self._read() as (txn, db):
            generation = State.read(txn, db).generation
            return operations.stored_checksum(txn, db, generation, tile_key(key))

    # ------------------------------------------------------------ changes

    def stage(self, entries: Sequence[CatalogEntry]) -> list[str]:
        self._check_writable()  # before waiting for a leader, which a fork does not have
        prepared = operations.prepare(entries)
        return self._stage.submit(prepared) if prepared else []

    def _stage_batches(self, batches: Sequence[list[PreparedEntry]]) -> list[list[str]]:
        return self._write_tiles(
            lambda txn, db: [operations.put_staged(None, batch, txn, db) for batch in batches]
        )

    def staged(
        self, dataset_id: str | None = None, scene: str | None = None, version: str | None = None
    ) -> list[StagedTile]:
        prefix = key_prefix(dataset_id, scene, version)
        with self._read() as (txn, db):
            found = operations.staged_tiles(txn, db, prefix)
        return sorted(found, key=lambda tile: tile.key)

    def unstage(
        self, dataset_id: str, scene: str | None = None, version: str | None = None
    ) -> list[TileKey]:
        prefix = key_prefix(dataset_id, scene, version)
        return sorted(self._write_tiles(lambda txn, db: operations.remove_staged(txn, db, prefix)))

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
        prefix = key_prefix(dataset_id, scene, version)
        replaced = (
            None if replaced_version is None else key_prefix(dataset_id, scene, replaced_version)
        )
        wanted = None if cells is None else frozenset(cells)

        def operation(txn: Transaction[bytes], db: Databases) -> int:
            if record is not None:
                reclouding.change_record(txn, db, record)
            shown = Rules(txn, db, State.read(txn, db).generation).shown
            return operations.publish(txn, db, prefix, replaced, wanted, shown)

        return self._write_tiles(operation)

    def remove(
        self,
        dataset_id: str,
        scene: str | None = None,
        version: str | None = None,
        *,
        record: RecordChange | None = None,
    ) -> list[TileKey]:
        prefix = key_prefix(dataset_id, scene, version)

        def operation(txn: Transaction[bytes], db: Databases) -> list[TileKey]:
            operations.remove_staged(txn, db, prefix)
            removed, state = operations.remove_published(txn, db, State.read(txn, db), prefix)
            state.write(txn, db)
            if record is not None:  # last: a rule that goes with its rows changes none
                reclouding.change_record(txn, db, record)
            return removed

        return sorted(self._write_tiles(operation))

    # ------------------------------------------------------------ records

    def record_get(self, name: str) -> Record | None:
        with self._read() as (txn, db):
            return operations.read_record(txn, db, name)

    def record_compare_and_set(self, name: str, expected_revision: int, value: bytes | None) -> int:
        return self.change_definition(RecordChange(name, expected_revision, value))[0]

    def change_definition(self, change: RecordChange) -> tuple[int, RowIds]:
        self._check_writable()
        return self._environment.write(lambda txn, db: reclouding.change_record(txn, db, change))

    def record_restore(self, name: str, record: Record) -> None:
        self._check_writable()
        self._environment.write(lambda txn, db: reclouding.restore_record(txn, db, name, record))

    def record_names(self, prefix: str = "") -> list[str]:
        with self._read() as (txn, db):
            return operations.record_names(txn, db, prefix)

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
        with self._following() as (follower, txn, db):
            positions = follower.memory.columns.find(row_ids)
            row_slots = self._row_slots(follower, txn, db)
        return int(np.count_nonzero(np.isin(row_slots[positions], list(slots))))

    def provider_cover(self, key: TileKey) -> float | None:
        with self._read() as (txn, db):
            generation = State.read(txn, db).generation
            row_id = txn.get(tile_key(key), db=db["published", generation])
            row = None if row_id is None else txn.get(row_id, db=db["rows", generation])
        if row is None:
            raise self._not_found(key)
        cover = float(provider_covers(unpack_rows([row]))[0])
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
        with self._environment.write_lock:
            if self._rebuilding:
                raise UnavailableError(f"catalog {self.directory}: a rebuild is under way")
            self._rebuilding = True
        try:
            return self._rebuild(published, staged)
        finally:
            self._rebuilding = False

    def _rebuild(self, published: Iterable[CatalogEntry], staged: Iterable[CatalogEntry]) -> int:
        """Fills the databases that are not served, then lets one small transaction switch.

        The entries are taken from the iterators between transactions: they may read files,
        fork, or query this catalog.
        """

        def begin(txn: Transaction[bytes], db: Databases) -> State:
            state = State.read(txn, db)
            db.clear(txn, state.generation + 1)  # leavings of a rebuild that was cut off
            return State(state.generation + 1, state.next_row_id)

        write = self._environment.write
        state = write(begin)
        for chunk in _chunks(published):
            state = write(partial(operations.put_published, state, operations.prepare(chunk)))
        for chunk in _chunks(staged):
            write(partial(operations.put_staged, state, operations.prepare(chunk)))
        filled = state

        def switch(txn: Transaction[bytes], db: Databases) -> int:
            before = State.read(txn, db)
            after = State(
                filled.generation, filled.next_row_id, before.removed_next, before.removed_next
            )
            txn.drop(db["removed"], delete=False)
            db.clear(txn, before.generation)
            after.write(txn, db)
            # Not with each chunk: a rule may have been changed between two of them.
            reclouding.follow_all(txn, db, after.generation)
            return txn.stat(db["published", after.generation])["entries"]

        return write(switch)

    def check(self) -> list[str]:
        with self._following() as (follower, txn, db):
            return problems(follower, txn, db)

    def close(self) -> None:
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._environment.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _chunks(entries: Iterable[CatalogEntry]) -> Iterator[list[CatalogEntry]]:
    iterator = iter(entries)
    while chunk := list(islice(iterator, REBUILD_CHUNK)):
        yield chunk


def _cells_of(
    snapshot: Snapshot,
    positions: Positions,
    txn: Transaction[bytes],
    db: Databases,
    generation: int,
) -> dict[str, Cells]:
    """Cells of the datasets of rows, by dataset id."""
    rules = Rules(txn, db, generation)
    cells = {}
    for dataset, dataset_id in coverage_search.datasets_of(snapshot, positions):
        definition = operations.read_definition(txn, db, dataset_id, dataset) or {}
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
    map_bytes: int | None = None,
) -> LmdbCatalog:
    """The catalog in a directory of its own; `writable` makes it where there is none.

    The caller sees to it that only one process opens it writable at a time. `node` is what
    rows say holds them; with `nodes` it is the names that it gives for a row's slot (see
    `LmdbCatalog.set_nodes`). `map_bytes` is the address space taken at first; it grows by itself.

    Raises:
        StoreFormatError: there is no catalog, it is of a newer format, or the file is
            something else.
        CorruptDataError: the file is damaged.
        ReadOnlyError: no permission.
        StorageFullError: the disk is full.
    """
    environment = Environment.share(Path(directory), writable=writable, map_bytes=map_bytes)
    return LmdbCatalog(environment, writable=writable, node=node, nodes=nodes)
