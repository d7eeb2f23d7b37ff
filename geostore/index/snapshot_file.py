"""Snapshots of the catalog: one file each, of named arrays, mapped and verified when opened.

What the log amounts to at a position, so that an opening need not replay it from its beginning
(docs/decisions/0004-catalog-log.md). What the sections mean is the catalog's; here they are
arrays. A snapshot appears whole, by a rename, when its bytes are durable; it is never written to
again, so that a map of it stays as it was when the file is removed.

One thread of one process writes snapshots into a directory at a time; any number read.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from geostore.errors import (
    CorruptDataError,
    InvalidInputError,
    ReadOnlyError,
    StoreFormatError,
    UnavailableError,
)
from geostore.index.log_disk import FULL, LogDisk, translate
from geostore.index.log_layout import LOG_ID_BYTES, Position
from geostore.index.snapshot_layout import (
    HEADER_BYTES,
    INSTEAD,
    NEW_SUFFIX,
    SECTIONS_MAX,
    TABLE_BYTES_MAX,
    Entry,
    SnapshotHeader,
    described,
    front_bytes,
    pack_front,
    pack_meta,
    section_seed,
    snapshot_name,
    snapshot_sequence,
    unpack_meta,
    unpack_table,
)

__all__ = ["SnapshotFile", "newest_snapshots", "open_snapshot", "sound_snapshot", "write_snapshot"]

WRITE_BYTES = 8 << 20
"""Bytes that are checksummed and then written, while they are in the cache."""
SYNC_BYTES = 32 << 20
"""Bytes after which what was written is synced. A log's commits wait for the disk behind it: up to
0.2 s behind 300 MB synced at once, 0.05 s behind these."""
READ_BYTES = 256 << 10
LISTINGS_MAX = 8
"""How often the directory is read again because a writer removed what it listed."""


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """An open, verified snapshot. Its map is given back with the last array that is on it."""

    path: Path
    position: Position
    """The log's position that it reflects: replay what comes after."""
    meta: dict[str, Any]
    sections: Mapping[str, npt.NDArray[Any]]
    """Read-only, on the map, in C order and little-endian."""
    mapped_bytes: int


# ---------------------------------------------------------------- writing


def write_snapshot(
    directory: Path,
    log_id: bytes,
    position: Position,
    meta: Mapping[str, Any],
    sections: Mapping[str, npt.NDArray[Any]],
    *,
    keep: int = 2,
    disk: LogDisk | None = None,
) -> Path:
    """Writes a snapshot, durable when this returns, and removes all but the newest `keep`.

    Removed are only older ones, and only after the new one is durable; and what a writer that
    died left under way. Arrays must not change meanwhile: if one does, the file is found damaged
    when it is opened. They are not copied, unless they are not contiguous or big-endian: then
    `WRITE_BYTES` at a time. O(bytes).

    Raises:
        InvalidInputError: an array or `meta` has no form in the file.
        StorageFullError: no room. Nothing was left behind, all snapshots are as they were.
        ReadOnlyError: a write or an fsync failed, or there is no permission. All older
            snapshots are there; the new one may be, if only its directory could not be synced.
        StoreFormatError: there is no such directory.
    """
    if keep < 1 or len(log_id) != LOG_ID_BYTES:
        raise InvalidInputError(
            f"snapshot in {directory}: keep {keep}, a log id of {len(log_id)} bytes; expected at"
            f" least 1, and {LOG_ID_BYTES}"
        )
    writing = _Writing(directory, log_id, position, disk or LogDisk())
    arrays = {name: np.asarray(array) for name, array in sections.items()}
    packed = pack_meta(meta)
    entries, length = _laid_out(arrays, packed)
    return writing.run(arrays, entries, packed, length, keep)


def _laid_out(arrays: dict[str, npt.NDArray[Any]], meta: bytes) -> tuple[list[Entry], int]:
    """(the sections in their places, the file's length). Raises InvalidInputError."""
    entries = [Entry(name, described(array), array.shape, 0) for name, array in arrays.items()]
    table_bytes = sum(len(entry.pack()) for entry in entries)
    if len(entries) > SECTIONS_MAX or table_bytes > TABLE_BYTES_MAX:
        raise InvalidInputError(
            f"snapshot of {len(entries)} sections with a table of {table_bytes} bytes, expected at"
            f" most {SECTIONS_MAX} and {TABLE_BYTES_MAX}"
        )
    placed: list[Entry] = []
    end = front_bytes(table_bytes, len(meta))
    for entry in entries:
        placed.append(replace(entry, offset=end))
        end = placed[-1].end
    return placed, end


class _Writing:
    """One snapshot on its way to the disk."""

    def __init__(self, directory: Path, log_id: bytes, position: Position, disk: LogDisk) -> None:
        self.name = snapshot_name(position.sequence)
        self.path = directory / self.name
        self.log_id, self.position, self.disk = log_id, position, disk
        self._unsynced = 0

    def run(
        self,
        arrays: dict[str, npt.NDArray[Any]],
        entries: list[Entry],
        meta: bytes,
        length: int,
        keep: int,
    ) -> Path:
        try:
            dir_fd = self.disk.open(str(self.path.parent), os.O_RDONLY | os.O_DIRECTORY)
            try:
                self._remove_stale(dir_fd)
                self._write(dir_fd, arrays, entries, meta, length)
                self._synced(dir_fd, self.disk.sync)
                self._remove_older(dir_fd, keep)
            finally:
                with suppress(OSError):
                    self.disk.close(dir_fd)
        except OSError as error:
            if error.errno == errno.EIO:
                raise ReadOnlyError(
                    f"snapshot {self.path}: a write failed ({error.strerror}); check the disk"
                ) from error
            raise translate(error, f"snapshot {self.path}") from error
        return self.path

    def _remove_stale(self, dir_fd: int) -> None:
        for name in self.disk.names(dir_fd):
            stem = name.removesuffix(NEW_SUFFIX)
            if stem != name and snapshot_sequence(stem) is not None:
                with suppress(FileNotFoundError):
                    self.disk.unlink(name, dir_fd)

    def _remove_older(self, dir_fd: int, keep: int) -> None:
        """What is newer than this one stays: who knows of it decides."""
        mine = self.position.sequence
        older = [
            name
            for name in self.disk.names(dir_fd)
            if (sequence := snapshot_sequence(name)) is not None and sequence < mine
        ]
        for name in sorted(older, reverse=True)[keep - 1 :]:
            with suppress(FileNotFoundError):
                self.disk.unlink(name, dir_fd)

    def _write(
        self,
        dir_fd: int,
        arrays: dict[str, npt.NDArray[Any]],
        entries: list[Entry],
        meta: bytes,
        length: int,
    ) -> None:
        """The file under its name, its bytes durable, its name not yet."""
        temporary = self.name + NEW_SUFFIX
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
        descriptor = self.disk.open(temporary, flags, dir_fd)
        try:
            self._reserve(descriptor, length)
            written = [
                replace(entry, checksum=self._write_section(descriptor, arrays[entry.name], entry))
                for entry in entries
            ]
            table = b"".join(entry.pack() for entry in written)
            front = pack_front(self.log_id, self.position, table, meta, len(written), length)
            self._write_all(descriptor, memoryview(front), 0)
            self._synced(descriptor, self.disk.sync)
            self.disk.rename(temporary, self.name, dir_fd)
        except BaseException:
            with suppress(OSError):
                self.disk.unlink(temporary, dir_fd)
            raise
        finally:
            with suppress(OSError):
                self.disk.close(descriptor)

    def _reserve(self, descriptor: int, length: int) -> None:
        """Finds out now whether there is room: a disk that fills up stops the log as well."""
        try:
            self.disk.reserve(descriptor, 0, length)
        except OSError as error:
            if error.errno in FULL:
                raise
            # Where there is no such call the writes will tell.

    def _write_section(self, descriptor: int, array: npt.NDArray[Any], entry: Entry) -> int:
        """Writes a section and its padding; returns its checksum."""
        running = xxhash.xxh3_64(seed=section_seed(self.log_id, entry.offset))
        at = entry.offset
        for piece in _pieces(array, entry.dtype):
            running.update(piece)
            self._write_all(descriptor, piece, at)
            at += len(piece)
        assert at == entry.offset + entry.length, entry
        if at < entry.end:
            padding = memoryview(bytes(entry.end - at))
            running.update(padding)
            self._write_all(descriptor, padding, at)
        return running.intdigest()

    def _write_all(self, descriptor: int, view: memoryview, offset: int) -> None:
        while view:
            written = self.disk.pwritev(descriptor, [view], offset)
            if not written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            view = view[written:]  # a signal or a nearly full disk may have cut it short
            offset += written
            self._unsynced += written
        if self._unsynced >= SYNC_BYTES:
            self._unsynced = 0
            self._synced(descriptor, self.disk.sync_data)

    def _synced(self, descriptor: int, sync: Callable[[int], None]) -> None:
        try:
            sync(descriptor)
        except OSError as error:
            if error.errno in FULL:  # some systems find the room only now
                raise
            raise ReadOnlyError(
                f"snapshot {self.path}: an fsync failed: {error.strerror or error}; check the disk"
            ) from error


def _pieces(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> Iterator[memoryview]:
    """An array's bytes in C order, `WRITE_BYTES` at a time, or by rows where those are longer."""
    if not array.size:
        return
    if array.flags.c_contiguous and array.dtype == dtype:
        flat = array.reshape(-1).view(np.uint8).data
        for start in range(0, len(flat), WRITE_BYTES):
            yield flat[start : start + WRITE_BYTES]
        return
    rows = array if array.ndim else array.reshape(1)
    step = max(1, WRITE_BYTES // (array.size // len(rows) * dtype.itemsize))
    for start in range(0, len(rows), step):
        copy = np.ascontiguousarray(rows[start : start + step], dtype=dtype)
        yield copy.reshape(-1).view(np.uint8).data


# ---------------------------------------------------------------- reading


def newest_snapshots(directory: Path, disk: LogDisk | None = None) -> list[Path]:
    """The snapshots in a directory, newest first by name; none where there is no directory.

    Raises:
        ReadOnlyError: no permission to read the directory.
    """
    disk = disk or LogDisk()
    try:
        dir_fd = disk.open(str(directory), os.O_RDONLY | os.O_DIRECTORY)
        try:
            names = disk.names(dir_fd)
        finally:
            disk.close(dir_fd)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise translate(error, f"snapshots in {directory}") from error
    found = sorted((name for name in names if snapshot_sequence(name) is not None), reverse=True)
    return [directory / name for name in found]


def open_snapshot(
    path: Path, log_id: bytes, *, verify: bool = True, disk: LogDisk | None = None
) -> SnapshotFile:
    """Maps a snapshot of the log `log_id`; with `verify`, after reading all of it once.

    Read, not through the map: a disk that fails to read is an error then, where a map would end
    the process. O(bytes), at a good half of the speed at which memory is read.

    Raises:
        CorruptDataError: it is damaged, cut short, does not read, or is another log's.
        StoreFormatError: a newer geostore wrote it, or there is none.
        ReadOnlyError: no permission to read it.
        UnavailableError: out of descriptors or memory.
    """
    try:
        return _opened(path, log_id, verify, disk or LogDisk())
    except OSError as error:
        raise translate(error, f"snapshot {path}") from error


def sound_snapshot(
    directory: Path, log_id: bytes, *, disk: LogDisk | None = None
) -> tuple[SnapshotFile | None, list[str]]:
    """(the newest snapshot that is sound, None where none is; what is wrong with newer ones).

    Raises:
        ReadOnlyError: no permission to read the directory.
        UnavailableError: out of descriptors or memory, or a writer removes them as they are
            found.
    """
    disk = disk or LogDisk()
    wrong: dict[Path, str] = {}
    for _ in range(LISTINGS_MAX):
        is_vanished = False
        for path in newest_snapshots(directory, disk):
            if path in wrong:
                continue
            try:
                return _opened(path, log_id, True, disk), list(wrong.values())
            except FileNotFoundError:
                is_vanished = True  # removed by a writer, which made a newer one before
                break
            except (CorruptDataError, StoreFormatError) as error:
                wrong[path] = str(error)
            except OSError as error:
                translated = translate(error, f"snapshot {path}")
                if not isinstance(translated, CorruptDataError | ReadOnlyError):
                    raise translated from error
                wrong[path] = str(translated)
        if not is_vanished:
            return None, list(wrong.values())
    raise UnavailableError(
        f"snapshots in {directory}: each was removed before it could be opened,"
        f" {LISTINGS_MAX} times; a writer replaces them too often",
        retry_after_s=1.0,
    )


def _opened(path: Path, log_id: bytes, verify: bool, disk: LogDisk) -> SnapshotFile:
    """Raises OSError as the system does."""
    where = f"snapshot {path}"
    descriptor = disk.open(str(path), os.O_RDONLY)
    try:
        size = disk.size(descriptor)
        data = disk.pread(descriptor, HEADER_BYTES, 0)
        header = SnapshotHeader.unpack(data, log_id, size, where)
        named = snapshot_sequence(path.name)
        if named is not None and named != header.position.sequence:
            raise CorruptDataError(
                f"{where}: it says that it reflects frame {header.position.sequence}; {INSTEAD}"
            )
        front = memoryview(_read(disk, descriptor, header.front_bytes, 0, where))
        entries = unpack_table(header, front, where)
        meta = unpack_meta(header, front, where)
        if verify:
            for entry in entries:
                _verify(disk, descriptor, entry, log_id, where)
        mapped = _mapped(descriptor, size, where)
    finally:
        disk.close(descriptor)
    sections = {entry.name: _array(mapped, entry, where) for entry in entries}
    return SnapshotFile(path, header.position, meta, MappingProxyType(sections), size)


def _read(disk: LogDisk, descriptor: int, length: int, offset: int, where: str) -> bytes:
    data = disk.pread(descriptor, length, offset)
    if len(data) != length:
        raise CorruptDataError(
            f"{where}: {len(data)} bytes at {offset}, expected {length}: the file was cut short;"
            f" {INSTEAD}"
        )
    return data


def _verify(disk: LogDisk, descriptor: int, entry: Entry, log_id: bytes, where: str) -> None:
    """Raises CorruptDataError where a section does not match its checksum."""
    running = xxhash.xxh3_64(seed=section_seed(log_id, entry.offset))
    for offset in range(entry.offset, entry.end, READ_BYTES):
        length = min(READ_BYTES, entry.end - offset)
        running.update(_read(disk, descriptor, length, offset, where))
    found = running.intdigest()
    if found != entry.checksum:
        raise CorruptDataError(
            f"{where}: section {entry.name!r} at {entry.offset} has checksum {found:016x},"
            f" expected {entry.checksum:016x}; {INSTEAD}"
        )


def _mapped(descriptor: int, size: int, where: str) -> mmap.mmap:
    try:
        return mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise CorruptDataError(f"{where}: cut short while it was opened; {INSTEAD}") from error


def _array(mapped: mmap.mmap, entry: Entry, where: str) -> npt.NDArray[Any]:
    try:
        return np.ndarray(entry.shape, entry.dtype, buffer=mapped, offset=entry.offset)
    except (TypeError, ValueError) as error:
        raise CorruptDataError(
            f"{where}: section {entry.name!r} of shape {entry.shape}: {error}; {INSTEAD}"
        ) from error
