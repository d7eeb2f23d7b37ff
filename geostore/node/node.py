"""One node without sockets: tile files, catalog, records, and the lock of its one writer.

An embedded store is one such node; a storage node of a cluster wraps the same class.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, Self

from geostore.errors import (
    CorruptDataError,
    InvalidInputError,
    NotFoundError,
    ReadOnlyError,
    StoreFormatError,
)
from geostore.index import Catalog, TileDetails, has_old_catalog, open_catalog
from geostore.metrics import NODE_CORRUPT_TILES, NODE_RECOVERY_SECONDS, REGISTRY
from geostore.node.datasets import Datasets
from geostore.node.directory import StoreDirectory, StoreIdentity
from geostore.node.disk import Disk, StepHook, no_step
from geostore.node.lock import WriterLock
from geostore.node.lone_home import LoneHome, read_scene_record
from geostore.node.rebuilding import rebuild_catalog
from geostore.node.records import SCENE_PREFIX
from geostore.node.tile_files import TileFiles
from geostore.node.tile_holder import TileHolder
from geostore.node.verification import verify_store
from geostore.node.writer_turns import WriterTurns
from geostore.query import (
    CoverageAnswer,
    CoverageRequest,
    Explain,
    Query,
    Summary,
    SummaryKeys,
)
from geostore.types import DatasetDefinition, EncodedTile, RowBatch, SceneRecord, TileKey
from geostore.types.report import Progress, StoreStatus, VerifyReport

__all__ = ["Mode", "Node", "rebuild_store"]

Mode = Literal["a", "r"]
TEMPORARY: Final = "*"
LOCATED_MAX: Final = 512
"""Tiles whose block table is remembered: more than a loader reads at once."""

BlockEntry = tuple[int, int, int, int]
"""Offset, length, fill and checksum of a block, as in BLOCK_DTYPE."""
_Located = tuple[Path, list[BlockEntry]]


def _now_us() -> int:
    return time.time_ns() // 1000


class Node:
    """A store's directory, open.

    Mode "r" never writes. Mode "a" creates what is missing, reads like "r", and takes the
    writer lock at the first call that writes (or at once, `lock_now`); what an earlier
    writer left unfinished is settled then. Calls may come from any thread; writing calls
    wait for each other.

    `is_member`: it is one of a ring, whose scenes' homes settle what is left of attempts
    (`geostore.node.scene_keeper`); a store of one node is its own home and settles them by
    itself (`geostore.node.lone_home`).

    `step` and `now_us` are the world's seams for tests (see `geostore.node.disk`).

    Raises:
        NotFoundError: mode "r" and nothing there.
        StoreFormatError: something else is there, or a store of a newer format.
        CorruptDataError: the catalog is gone or unreadable (`verify --rebuild`).
        StoreLockedError: `lock_now`, and another process writes.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        mode: Mode = "a",
        lock_now: bool = False,
        is_member: bool = False,
        step: StepHook = no_step,
        now_us: Callable[[], int] = _now_us,
    ) -> None:
        if mode not in {"a", "r"}:
            raise InvalidInputError(f"mode {mode!r}: expected 'a' (read and add) or 'r' (read)")
        self.directory = StoreDirectory(Path(path).absolute())
        self.mode: Mode = mode
        self._is_member = is_member
        self.disk = Disk(step)
        self._now_us = now_us
        self._write_lock = threading.RLock()
        self._lock: WriterLock | None = None
        self._lends_lock = False
        self._keeps_lock = lock_now
        self._turns: WriterTurns | None = None
        self._located: OrderedDict[TileKey, _Located] = OrderedDict()
        self._located_lock = threading.Lock()
        self._is_closed = False
        self.identity = self._open_identity()
        self._files = TileFiles(self.directory, self.disk)
        self._open_catalog()
        if lock_now:
            with self.writing():
                pass

    # ------------------------------------------------------------------ opening

    def _open_identity(self) -> StoreIdentity:
        if self.mode == "r" or self.directory.state() != "new":
            return self.directory.identity()
        self.directory.make_root(self.disk)
        lock = WriterLock(self.directory.lock_file)
        try:
            if self.directory.state() == "new":  # nobody was quicker
                open_catalog(self.directory.catalog, writable=True).close()
                return self.directory.create(self.disk, self._now_us())
        finally:
            lock.release()
        return self.directory.identity()

    def _open_catalog(self) -> None:
        """Opens the catalog that lies in the directory now, and all that stands on it.

        Raises:
            CorruptDataError: it is gone or damaged.
            StoreFormatError: what lies there is no catalog, or one of a newer format.
        """
        if self.mode == "a":
            self._finish_swap()
        remedy = "geostore verify --rebuild makes it anew from the tile files"
        if not self.directory.catalog.is_dir():
            raise CorruptDataError(f"store {self.directory.root}: its catalog is missing; {remedy}")
        try:
            self._catalog = self._open_catalog_as(writable=self.mode == "a")
        except StoreFormatError as error:
            raise StoreFormatError(f"{error}; if it is damaged, {remedy}") from error
        self._catalog_inode = self._find_catalog_inode()
        self._datasets = Datasets(self._catalog, self.directory, self.disk, self._now_us)
        self._holder = TileHolder(
            catalog=self._catalog,
            directory=self.directory,
            disk=self.disk,
            files=self._files,
            datasets=self._datasets,
            writing=self.writing,
            is_alone=not self._is_member,
        )
        self._scenes = LoneHome(
            catalog=self._catalog,
            disk=self.disk,
            datasets=self._datasets,
            holder=self._holder,
            now_us=self._now_us,
        )

    def _open_catalog_as(self, *, writable: bool) -> Catalog:
        # Never made here: a store without its catalog's files must not get an empty one.
        place = self.directory.catalog
        if not writable:
            return open_catalog(place, writable=False)
        try:
            if not has_old_catalog(place):
                return open_catalog(place, writable=True, create=False)
            # Whoever wrote it may still be writing.
            lock = WriterLock(self.directory.lock_file) if self._lock is None else None
            try:
                return open_catalog(place, writable=True, create=False)
            finally:
                if lock is not None:
                    lock.release()
        except ReadOnlyError:  # media without writes: reading is what is left
            return open_catalog(place, writable=False)

    def _find_catalog_inode(self) -> int:
        try:
            return self.directory.catalog.stat().st_ino
        except FileNotFoundError:  # between two renames of a rebuild
            return -1

    def _follow(self) -> Catalog:
        """The catalog as of now, also after another process put a rebuilt one in its place."""
        catalog = self.catalog
        inode = self._find_catalog_inode()
        if inode not in {self._catalog_inode, -1}:
            with self._write_lock:
                if not self._is_closed and self._catalog_inode != inode:
                    # Others may be reading from the old one: it is closed when they let go.
                    self._files.forget_handles()
                    self._open_catalog()
                catalog = self.catalog
        catalog.refresh()
        return catalog

    def _finish_swap(self) -> None:
        """Puts a whole rebuilt catalog in its place that a crash left beside it."""
        if self.directory.catalog_rebuilt.is_dir() and not self.directory.catalog.exists():
            lock = WriterLock(self.directory.lock_file)
            try:
                if not self.directory.catalog.exists():
                    self.disk.rename(self.directory.catalog_rebuilt, self.directory.catalog, "swap")
                    self.disk.sync_directories([self.directory.root], "swap")
            finally:
                lock.release()

    @property
    def catalog(self) -> Catalog:
        """The open catalog."""
        self._require_open()
        return self._catalog

    def _require_open(self) -> None:
        if self._is_closed:
            raise InvalidInputError(f"store {self.directory.root} is closed")

    @property
    def tile_holder(self) -> TileHolder:
        """What this node does with tiles as a member of a ring."""
        self._require_open()
        return self._holder

    @property
    def known_datasets(self) -> Datasets:
        """The definitions kept here; changed only while `writing`."""
        self._require_open()
        return self._datasets

    @property
    def is_writer(self) -> bool:
        """Whether this node holds the writer lock."""
        return self._lock is not None and self._lock.is_held

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Holds off other threads and other processes; the first time, settles what is left.

        Raises:
            ReadOnlyError: opened to read, media without writes, or a sync failed before.
            StoreLockedError: another process writes.
        """
        with self._write_lock:
            catalog = self.catalog
            root = self.directory.root
            if self.mode == "r":
                raise ReadOnlyError(f"store {root} was opened to read; open it with mode 'a'")
            self.disk.require_writable()
            if not catalog.writable:
                raise ReadOnlyError(f"store {root}: the system lets it be read but not written")
            with self.disk.translated(f"writing to store {root}"):
                if self._lock is None:
                    self._become_writer()
                try:
                    yield
                except ReadOnlyError as error:
                    self.disk.fail(str(error))
                    raise

    def _become_writer(self) -> None:
        if not self._is_member and self.directory.is_shared():
            # Settling alone would clear what other nodes count on.
            raise ReadOnlyError(
                f"store {self.directory.root} is what one node of a cluster keeps of a store: it"
                " is written through the cluster (geostore://host:port), and only read here"
            )
        # Held from here on: what settling calls asks for the writer too.
        lock = self._lock = WriterLock(self.directory.lock_file, lends=self._lends_lock)
        try:
            with REGISTRY.timed(NODE_RECOVERY_SECONDS):
                self._follow()
                for directory in (self.directory.tiles, self.directory.commits, self.directory.tmp):
                    directory.mkdir(exist_ok=True)
                if not self._is_member:
                    self._scenes.recover()
                self._datasets.finish_deletions()
                self.disk.clear_matching(self.directory.tmp, TEMPORARY, "recover")
        except BaseException:
            self._lock = None
            lock.release()
            raise

    @property
    def turns(self) -> WriterTurns:
        """This node's ingests and those of other processes, one writing at a time."""
        with self._write_lock:
            if self._turns is None:
                files = self.directory
                self._turns = WriterTurns(self, files.lock_file, files.queue_file)
            return self._turns

    def take_lock(self, *, lends: bool) -> None:
        """Become the writer (see `writing`); `lends`: say in the lock that it is lent."""
        with self._write_lock:
            self._lends_lock = lends and not self._keeps_lock
            with self.writing():
                pass

    def lend_lock(self, *, lends: bool) -> None:
        """Say in the lock whether it is lent between scenes; where it is not held, remember."""
        with self._write_lock:
            self._lends_lock = lends and not self._keeps_lock
            if self._lock is not None:
                self._lock.lend(lends=self._lends_lock)

    def give_lock(self) -> None:
        """Let the next writer in; the next call that writes takes the lock again.

        A lock that was asked for when the node was opened is kept.
        """
        with self._write_lock:
            if self._keeps_lock:
                return
            lock, self._lock, self._lends_lock = self._lock, None, False
            if lock is not None:
                lock.release()

    def close(self) -> None:
        """Releases files, catalog and lock; harmless when closed."""
        with self._write_lock:
            if self._is_closed:
                return
            self._is_closed = True
            try:
                self._files.close()
                self._catalog.close()
            finally:
                if self._lock is not None:
                    self._lock.release()
                    self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ------------------------------------------------------------------ datasets

    def datasets(self) -> list[DatasetDefinition]:
        """All definitions, by name."""
        self._follow()
        return self._datasets.known()

    def dataset(self, name: str) -> DatasetDefinition:
        """Raises NotFoundError, which names the known ones."""
        self._follow()
        return self._datasets.get(name)

    def create_dataset(self, definition: DatasetDefinition) -> None:
        """See Backend.create_dataset."""
        with self.writing():
            self._datasets.create(definition)

    def replace_dataset(self, old: DatasetDefinition, new: DatasetDefinition) -> int:
        """See Backend.replace_dataset."""
        with self.writing():
            return len(self._datasets.replace(old, new))

    def delete_dataset(self, name: str) -> int:
        """See Backend.delete_dataset."""
        with self.writing():
            self._scenes.forget_dataset(self._datasets.get(name).id)
            self._files.forget_handles()
            return self._datasets.delete(name)

    # ------------------------------------------------------------------ scenes

    def begin_scene(
        self,
        definition: DatasetDefinition,
        scene: str,
        version: str,
        cells: Sequence[str],
        *,
        replace: bool = False,
        path: str = "",
        reader: str = "",
    ) -> SceneRecord | None:
        """See Backend.begin_scene."""
        with self.writing():
            return self._scenes.begin(
                definition, scene, version, cells, replace=replace, path=path, reader=reader
            )

    def put_tiles(self, tiles: Sequence[EncodedTile]) -> list[str]:
        """See Backend.put_tiles."""
        with self.writing():
            return self._scenes.put(tiles)

    def commit_scene(
        self,
        dataset_id: str,
        scene: str,
        version: str,
        cells: Sequence[str],
        *,
        bytes_total: int,
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        """See Backend.commit_scene."""
        with self.writing():
            self._scenes.commit(
                dataset_id,
                scene,
                version,
                cells,
                bytes_total=bytes_total,
                properties=properties or {},
            )

    def abort_scene(self, dataset_id: str, scene: str, version: str) -> None:
        """See Backend.abort_scene."""
        with self.writing():
            self._scenes.abort(dataset_id, scene, version)

    def scene_record(self, dataset_id: str, scene: str) -> SceneRecord | None:
        """See Backend.scene_record."""
        return read_scene_record(self.catalog, dataset_id, scene)

    # ------------------------------------------------------------------ reading

    def query(self, query: Query, explain: Explain | None = None) -> Iterator[RowBatch]:
        """See Backend.query."""
        return self._follow().query(query, explain=explain)

    def count(self, query: Query) -> int:
        """See Backend.count."""
        return self._follow().count(query)

    def summary(self, query: Query, by: SummaryKeys) -> Summary:
        """See Backend.summary."""
        return self._follow().aggregate(query, by)

    def coverage(self, query: Query, request: CoverageRequest) -> CoverageAnswer:
        """See Backend.coverage."""
        return self._follow().coverage(query, request)

    def details(self, key: TileKey) -> TileDetails:
        """See Backend.details."""
        return self.catalog.details(key)

    def tile_path(self, key: TileKey) -> Path:
        """Where a tile's file lies (or would). Raises NotFoundError: unknown dataset."""
        return self.directory.tile_file(key, self._datasets.placement(key.dataset_id))

    def read_blocks(self, key: TileKey, indices: Sequence[int]) -> list[memoryview | None]:
        """See Backend.read_blocks."""
        self._require_open()
        path, table = self._locate(key)
        if len(indices) and not 0 <= min(indices) <= max(indices) < len(table):
            raise InvalidInputError(
                f"tile {key}: blocks {min(indices)}..{max(indices)} asked,"
                f" its block table has 0..{len(table) - 1}"
            )
        spans = [table[index][:2] for index in indices]
        stored = [span for span in spans if span[1]]
        views = iter(self._read_spans(key, path, stored) if stored else ())
        return [next(views) if length else None for _, length in spans]

    def block_table(self, key: TileKey) -> Sequence[BlockEntry]:
        """A tile's block table: what goes with `read_blocks`, and quicker than its details.

        Raises NotFoundError; a tile that went lately may still be told of.
        """
        self._require_open()
        return self._locate(key)[1]

    def _locate(self, key: TileKey) -> _Located:
        """A tile's file and block table; the last used are remembered.

        Neither ever changes for a key, so the memory needs no care: a tile that went is
        found out by its missing file.
        """
        with self._located_lock:
            located = self._located.get(key)
            if located is not None:
                self._located.move_to_end(key)
                return located
        located = self.tile_path(key), self.catalog.details(key).blocks.tolist()
        with self._located_lock:
            self._located[key] = located
            while len(self._located) > LOCATED_MAX:
                self._located.popitem(last=False)
        return located

    def _read_spans(
        self, key: TileKey, path: Path, spans: Sequence[tuple[int, int]]
    ) -> list[memoryview]:
        try:
            return self._files.read_spans(path, spans)
        except FileNotFoundError:
            # Gone with its scene's replacement or its dataset, or lost? The catalog knows.
            self.catalog.refresh()
            try:
                self.catalog.tile(key)
            except NotFoundError:
                raise NotFoundError(
                    f"tile {key.geocode} of scene {key.scene!r} was replaced or deleted since it"
                    " was queried; query again"
                ) from None
            REGISTRY.add(NODE_CORRUPT_TILES)
            raise CorruptDataError(
                f"tile {key.geocode} of scene {key.scene!r}: its file {path} is missing;"
                " geostore verify lists what else is"
            ) from None
        except CorruptDataError as error:
            REGISTRY.add(NODE_CORRUPT_TILES)
            raise CorruptDataError(f"tile {key.geocode} of scene {key.scene!r}: {error}") from error

    # ------------------------------------------------------------------ state

    def status(self) -> StoreStatus:
        """Sizes and state."""
        summaries = self._follow().summary()
        reason = self.disk.failure
        if reason is None and self.mode == "a" and not self.catalog.writable:
            reason = "the system lets it be read but not written"
        return StoreStatus(
            path=str(self.directory.root),
            store_id=self.identity.store_id,
            format_version=self.identity.format_version,
            created_us=self.identity.created_us,
            datasets=len(self._datasets.known()),
            scenes=len(self.catalog.record_names(SCENE_PREFIX)),
            tiles=sum(summary.tiles for summary in summaries),
            bytes=sum(summary.bytes for summary in summaries),
            slots_used=len({path.name for path in self.directory.tiles.glob("*/*")}),
            disk_free_bytes=self.directory.free_bytes(),
            is_writer=self.is_writer,
            read_only_reason=reason,
        )

    def verify(self, progress: Progress | None = None) -> VerifyReport:
        """Reads and checks every file, row and record; changes nothing."""
        is_member = self._is_member or self.directory.is_member()
        return verify_store(
            self._follow(),
            self.directory,
            self._datasets,
            progress,
            writing=self.writing if is_member and self.is_writer else None,
            is_member=is_member,
        )

    def rebuild(self, progress: Progress | None = None) -> VerifyReport:
        """Makes the catalog anew from the files (see `geostore.node.rebuilding`).

        Nothing else should use this Node meanwhile: its catalog is closed and opened again.
        """
        with self.writing():
            self._catalog.close()
            self._files.forget_handles()
            try:
                return rebuild_catalog(
                    self.directory, self.disk, progress, is_member=self._is_member
                )
            finally:
                self._open_catalog()


def rebuild_store(
    path: str | Path, progress: Progress | None = None, *, step: StepHook = no_step
) -> VerifyReport:
    """Makes a store's catalog anew, also where it cannot be opened.

    Raises:
        NotFoundError: no store there.
        StoreFormatError: something else is there, or a store of a newer format.
        StoreLockedError: another process writes.
    """
    directory, disk = StoreDirectory(Path(path).absolute()), Disk(step)
    directory.identity()
    lock = WriterLock(directory.lock_file)
    try:
        return rebuild_catalog(directory, disk, progress)
    finally:
        lock.release()
