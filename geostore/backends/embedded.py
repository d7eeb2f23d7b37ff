"""The embedded store: one node in this process, no server."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from geostore.node import (
    Mode,
    Node,
    Progress,
    StepHook,
    StoreStatus,
    VerifyReport,
    rebuild_store,
)
from geostore.query import (
    CoverageAnswer,
    CoverageRequest,
    Explain,
    Query,
    Summary,
    SummaryKeys,
)
from geostore.types import (
    BLOCK_DTYPE,
    DatasetDefinition,
    EncodedTile,
    RowBatch,
    SceneRecord,
    TileBlocks,
    TileDetails,
    TileKey,
)
from geostore.types.cluster import EMBEDDED_NODE
from geostore.types.scene import WritingTurn

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["EmbeddedBackend", "open_embedded", "rebuild_embedded"]

READERS = 4
"""Threads that read ahead of a caller of many tiles: a disk likes to be asked several at once."""
TILES_AHEAD = 8


def open_embedded(
    path: str | os.PathLike[str],
    *,
    mode: Mode = "a",
    lock_now: bool = False,
    step: StepHook | None = None,
) -> EmbeddedBackend:
    """Opens a store's directory.

    Mode "a" creates a missing store and takes the writer lock at the first call that writes,
    or at once with `lock_now`. Mode "r" asks for an existing store and never writes. `step`
    is a seam for tests.

    Raises:
        NotFoundError: mode "r" and no store there.
        StoreFormatError: something else is there, or a store of a newer format.
        CorruptDataError: the catalog is gone or unreadable.
        StoreLockedError: `lock_now`, and another process writes.
    """
    return EmbeddedBackend(Path(path), mode=mode, lock_now=lock_now, step=step)


def rebuild_embedded(
    path: str | os.PathLike[str], *, progress: Progress | None = None
) -> VerifyReport:
    """Makes a store's catalog anew from its tile files, also when the catalog cannot be opened.

    Raises:
        NotFoundError: no store there.
        StoreLockedError: another process writes.
    """
    return rebuild_store(Path(path), progress=progress)


class EmbeddedBackend:
    """A Backend over one Node (see `geostore.backends.protocol.Backend` for every method).

    It may be pickled, and used in a forked or spawned process: there it opens the same
    directory again to read, since the writer lock stays with the process that took it.
    """

    def __init__(
        self,
        path: Path,
        *,
        mode: Mode = "a",
        lock_now: bool = False,
        step: StepHook | None = None,
    ) -> None:
        self._path = path.absolute()
        self._options: dict[str, Any] = {} if step is None else {"step": step}
        self._opened: Node | None = Node(self._path, mode=mode, lock_now=lock_now, **self._options)
        self._opening = threading.Lock()
        self._is_closed = False
        _OPEN.add(self)

    @property
    def name(self) -> str:
        """The directory."""
        return str(self._path)

    takes_many_writers = False

    def holders(self, slot: int) -> list[tuple[str, str]]:  # noqa: ARG002 - it holds every slot
        return [(EMBEDDED_NODE, str(self._path))]

    @property
    def _node(self) -> Node:
        node = self._opened
        if node is None and not self._is_closed:  # a forked child's first call
            with self._opening:
                if self._opened is None:
                    self._opened = Node(self._path, mode="r", **self._options)
                node = self._opened
        if node is None:
            raise self._closed_error()
        return node

    def _closed_error(self) -> Exception:
        from geostore.errors import InvalidInputError

        return InvalidInputError(f"store {self._path} is closed")

    def __reduce__(self) -> tuple[Callable[[str], EmbeddedBackend], tuple[str]]:
        return _open_to_read, (str(self._path),)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _leave_to_parent(self) -> None:
        """In a forked child: the parent's node, with its locks and map, is not to be touched."""
        if self._opened is not None:
            _PARENTS.append(self._opened)
            self._opened = None
        self._opening = threading.Lock()

    def datasets(self) -> list[DatasetDefinition]:
        return self._node.datasets()

    def dataset(self, name: str) -> DatasetDefinition:
        return self._node.dataset(name)

    def create_dataset(self, definition: DatasetDefinition) -> None:
        self._node.create_dataset(definition)

    def replace_dataset(self, old: DatasetDefinition, new: DatasetDefinition) -> int:
        return self._node.replace_dataset(old, new)

    def delete_dataset(self, name: str) -> int:
        return self._node.delete_dataset(name)

    def writing_turns(self) -> AbstractContextManager[WritingTurn]:
        return self._writing_turns()

    @contextmanager
    def _writing_turns(self) -> Iterator[WritingTurn]:
        turns = self._node.turns
        with turns.ingest():
            yield turns.turn

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
        return self._node.begin_scene(
            definition, scene, version, cells, replace=replace, path=path, reader=reader
        )

    def put_tiles(self, tiles: Sequence[EncodedTile]) -> list[str]:
        return self._node.put_tiles(tiles)

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
        self._node.commit_scene(
            dataset_id, scene, version, cells, bytes_total=bytes_total, properties=properties
        )

    def abort_scene(self, dataset_id: str, scene: str, version: str) -> None:
        self._node.abort_scene(dataset_id, scene, version)

    def scene_record(self, dataset_id: str, scene: str) -> SceneRecord | None:
        return self._node.scene_record(dataset_id, scene)

    def query(self, query: Query, explain: Explain | None = None) -> Iterator[RowBatch]:
        return self._node.query(query, explain)

    def query_arrow(self, query: Query) -> Iterator[pa.RecordBatch]:
        from geostore.rpc.row_arrow import batch_from_rows

        return map(batch_from_rows, self._node.query(query))

    def count(self, query: Query) -> int:
        return self._node.count(query)

    def summary(self, query: Query, by: SummaryKeys) -> Summary:
        return self._node.summary(query, by)

    def coverage(self, query: Query, request: CoverageRequest) -> CoverageAnswer:
        return self._node.coverage(query, request)

    def details(self, key: TileKey) -> TileDetails:
        return self._node.details(key)

    def details_of(self, keys: Sequence[TileKey]) -> list[TileDetails]:
        return [self._node.details(key) for key in keys]

    def read_blocks(self, key: TileKey, indices: Sequence[int]) -> list[memoryview | None]:
        return self._node.read_blocks(key, indices)

    def read_tiles(
        self, wanted: Iterable[tuple[TileKey, Sequence[int]]]
    ) -> Generator[TileBlocks, None, None]:
        left = iter(wanted)
        first = list(islice(left, 1))
        for key, indices in first:
            yield self._read_tile(key, indices)
        waiting: deque[Future[TileBlocks]] = deque()
        with ThreadPoolExecutor(READERS, thread_name_prefix="geostore-tiles") as pool:
            try:
                for key, indices in left:
                    waiting.append(pool.submit(self._read_tile, key, indices))
                    if len(waiting) >= TILES_AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _read_tile(self, key: TileKey, indices: Sequence[int]) -> TileBlocks:
        data = self._node.read_blocks(key, indices)
        entries = self._node.block_table(key)
        table = np.array([entries[index] for index in indices], dtype=BLOCK_DTYPE)
        return TileBlocks(key=key, indices=tuple(indices), data=tuple(data), table=table)

    def status(self) -> StoreStatus:
        return self._node.status()

    def verify(self, progress: Progress | None = None, *, rebuild: bool = False) -> VerifyReport:
        return self._node.rebuild(progress) if rebuild else self._node.verify(progress)

    def close(self) -> None:
        self._is_closed = True
        node, self._opened = self._opened, None
        if node is not None:
            node.close()


def _open_to_read(path: str) -> EmbeddedBackend:
    return EmbeddedBackend(Path(path), mode="r")


_OPEN: weakref.WeakSet[EmbeddedBackend] = weakref.WeakSet()
_PARENTS: list[Node] = []
"""In a forked child: the parent's nodes, kept so that nothing of theirs is closed here."""


def _leave_all_to_parent() -> None:
    for backend in list(_OPEN):
        backend._leave_to_parent()  # noqa: SLF001  # the same module


os.register_at_fork(after_in_child=_leave_all_to_parent)
