"""Tile files of one node: put in batches, read by byte range, removed."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from geostore.errors import CorruptDataError, UnavailableError
from geostore.metrics import (
    NODE_PUT_BYTES,
    NODE_PUT_TILES,
    NODE_READ_BLOCKS,
    NODE_READ_BYTES,
    NODE_READ_RUNS,
    REGISTRY,
)
from geostore.node.directory import StoreDirectory
from geostore.node.disk import Disk

__all__ = ["HandleCache", "TileFiles", "merge_runs"]

GAP_BYTES_MAX: Final = 4096
"""Blocks at most this far apart are read together: the gap costs less than another call."""
RUN_BYTES_MAX: Final = 8 << 20
"""A run ends here, so that one read holds a bounded piece of memory."""
SYNC_THREADS: Final = 4
"""Files synced side by side share journal commits; more threads gained nothing measurable."""
HANDLES_MAX: Final = 128

T = TypeVar("T")


@dataclass(slots=True)
class _Handle:
    descriptor: int
    users: int = 0
    is_evicted: bool = False


class HandleCache:
    """The last used files, open for reading; bounded; thread-safe.

    A handle that is evicted while someone reads from it is closed by its last reader.
    """

    def __init__(self, handles_max: int = HANDLES_MAX) -> None:
        assert handles_max >= 1
        self._handles: OrderedDict[Path, _Handle] = OrderedDict()
        self._handles_max = handles_max
        self._lock = threading.Lock()

    @contextmanager
    def descriptor(self, path: Path) -> Iterator[int]:
        """An open descriptor of `path`, valid inside the block. Raises OSError."""
        handle = self._acquire(path)
        try:
            yield handle.descriptor
        finally:
            self._release(handle)

    def _acquire(self, path: Path) -> _Handle:
        with self._lock:
            handle = self._handles.get(path)
            if handle is not None:
                handle.users += 1
                self._handles.move_to_end(path)
                return handle
        opened = _Handle(os.open(path, os.O_RDONLY | os.O_CLOEXEC), users=1)
        with self._lock:
            handle = self._handles.setdefault(path, opened)
            if handle is not opened:  # another thread was quicker
                handle.users += 1
            while len(self._handles) > self._handles_max:
                self._evict(self._handles.popitem(last=False)[1])
        if handle is not opened:
            os.close(opened.descriptor)
        return handle

    def _release(self, handle: _Handle) -> None:
        with self._lock:
            handle.users -= 1
            if handle.is_evicted and handle.users == 0:
                os.close(handle.descriptor)

    @staticmethod
    def _evict(handle: _Handle) -> None:
        handle.is_evicted = True
        if handle.users == 0:
            os.close(handle.descriptor)

    def __len__(self) -> int:
        with self._lock:
            return len(self._handles)

    def forget(self, paths: Iterable[Path]) -> None:
        """Closes these, or lets their readers close them."""
        with self._lock:
            for path in paths:
                handle = self._handles.pop(path, None)
                if handle is not None:
                    self._evict(handle)

    def clear(self) -> None:
        """Closes all that nobody is reading from, and the rest once they are done."""
        with self._lock:
            handles = list(self._handles.values())
            self._handles.clear()
            for handle in handles:
                self._evict(handle)


def merge_runs(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int, list[int]]]:
    """Joins byte spans that lie close together into runs to be read at once.

    `spans` are (offset, length), in any order, and may repeat. Returns (offset, length,
    positions in `spans`) of each run, by offset.

    >>> merge_runs([(9000, 10), (0, 100), (150, 50)])
    [(0, 200, [1, 2]), (9000, 10, [0])]
    """
    runs: list[tuple[int, int, list[int]]] = []
    for position in sorted(range(len(spans)), key=spans.__getitem__):
        offset, length = spans[position]
        if runs:
            start, size, members = runs[-1]
            end = max(start + size, offset + length)
            if offset - (start + size) <= GAP_BYTES_MAX and end - start <= RUN_BYTES_MAX:
                members.append(position)
                runs[-1] = (start, end - start, members)
                continue
        runs.append((offset, length, [position]))
    return runs


class TileFiles:
    """Reads and writes the tile files of a store's directory.

    Reading is thread-safe. Writing is the business of one thread at a time (the node's
    writer); inside a batch several files are synced side by side.
    """

    def __init__(
        self, directory: StoreDirectory, disk: Disk, *, handles_max: int = HANDLES_MAX
    ) -> None:
        self._directory = directory
        self._disk = disk
        self._handles = HandleCache(handles_max)
        self._pool: ThreadPoolExecutor | None = None
        self._puts = 0

    def _each(self, action: Callable[[T], object], items: Sequence[T]) -> None:
        """Calls `action` on all, several at once; raises the first error after all ended."""
        if len(items) < 2:
            for item in items:
                action(item)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(SYNC_THREADS, thread_name_prefix="geostore-sync")
        try:
            futures = [self._pool.submit(action, item) for item in items]
            errors = [error for future in futures if (error := future.exception()) is not None]
        except BaseException:  # Ctrl-C: nobody may write on while the batch is taken back
            pool, self._pool = self._pool, None
            pool.shutdown(cancel_futures=True)
            raise
        if errors:
            raise errors[0]

    def put(self, files: Sequence[tuple[Path, bytes]]) -> None:
        """Makes a batch of (path, payload) durable: all of it, or an error and none of it.

        Raises:
            OSError: the system refused; what was written of the batch is removed again.
            ReadOnlyError: a sync failed, now or before.
        """
        self._disk.require_writable()
        batch = [
            (path, payload, self._directory.tmp / f"{path.name}.{self._puts + number}")
            for number, (path, payload) in enumerate(files)
        ]
        self._puts += len(batch)
        placed: list[Path] = []
        try:
            self._each(lambda item: self._disk.write_new(item[2], item[1], "put"), batch)
            changed: set[Path] = set()
            for path, _, temporary in batch:
                changed.update(self._disk.make_directories(path.parent, self._directory.tiles))
                placed.append(path)
                self._disk.rename(temporary, path, "put")
                changed.add(path.parent)
            self.sync_directories(changed, "put.directory")
        except BaseException:
            # Nobody was told of these files: take them back, so that a full disk has room
            # to go on with. What cannot be removed now is cleared with the scene's attempt.
            for leaving in [temporary for *_, temporary in batch] + placed:
                with suppress(OSError):
                    leaving.unlink(missing_ok=True)
            raise
        REGISTRY.add(NODE_PUT_TILES, len(batch))
        REGISTRY.add(NODE_PUT_BYTES, sum(len(payload) for _, payload, _ in batch))

    def sync_directories(self, directories: Iterable[Path], what: str) -> None:
        """Makes the entries of directories durable, each once, several at a time."""
        self._each(
            lambda directory: self._disk.sync_directories([directory], what),
            sorted(set(directories)),
        )

    def remove(self, paths: Sequence[Path], what: str) -> int:
        """Unlinks files, durably; returns how many there were."""
        gone = [path for path in paths if self._disk.remove(path, what)]
        self._handles.forget(gone)  # an open file keeps its space on the disk
        self.sync_directories({path.parent for path in gone}, f"{what}.directory")
        return len(gone)

    def read_spans(self, path: Path, spans: Sequence[tuple[int, int]]) -> list[memoryview]:
        """The bytes of each (offset, length) of a file; near ones are fetched together.

        Raises:
            FileNotFoundError: no such file.
            CorruptDataError: the file ends too early, or its medium cannot be read.
            UnavailableError: any other error of the system's.
        """
        out: list[memoryview | None] = [None] * len(spans)
        runs = merge_runs(spans)
        try:
            with self._handles.descriptor(path) as descriptor:
                for start, size, members in runs:
                    data = memoryview(_pread(descriptor, start, size, path))
                    for position in members:
                        offset, length = spans[position]
                        out[position] = data[offset - start : offset - start + length]
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(path) from None
        except OSError as error:
            raise UnavailableError(f"{path}: cannot read: {error.strerror or error}") from error
        REGISTRY.add(NODE_READ_RUNS, len(runs))
        REGISTRY.add(NODE_READ_BLOCKS, len(spans))
        REGISTRY.add(NODE_READ_BYTES, sum(size for _, size, _ in runs))
        return [view for view in out if view is not None]

    def forget_handles(self) -> None:
        """Closes cached files: after files were moved aside."""
        self._handles.clear()

    def close(self) -> None:
        """Closes files and ends the threads."""
        self._handles.clear()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


def _pread(descriptor: int, offset: int, length: int, path: Path) -> bytes:
    try:
        data = os.pread(descriptor, length, offset)
        while len(data) < length:  # a signal may cut a read short; the file's end does
            more = os.pread(descriptor, length - len(data), offset + len(data))
            if not more:
                raise CorruptDataError(
                    f"{path}: ends at byte {offset + len(data)}, expected {offset + length} or"
                    " more: the file was cut short"
                )
            data += more
    except OSError as error:
        raise CorruptDataError(
            f"{path}: cannot read {length} bytes at {offset}: {error.strerror or error}"
        ) from error
    return data
