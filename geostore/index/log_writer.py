"""Appending to a log, syncing it, and opening it after a crash."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from geostore.errors import (
    CorruptDataError,
    GeostoreError,
    InvalidInputError,
    ReadOnlyError,
)
from geostore.index.log_disk import FORBIDDEN, FULL, LogDisk, hold_at_fork, translate
from geostore.index.log_head import HeadReader, HeadWriter
from geostore.index.log_layout import (
    FRAME_BYTES_MAX,
    FRAME_HEADER_BYTES,
    HEAD_FILE,
    KIND_MAX,
    LOG_ID_BYTES,
    REBUILD,
    SEGMENT_HEADER_BYTES,
    START,
    Frame,
    FrameAt,
    FrameHeader,
    Position,
    SegmentHeader,
    footprint,
    frame_seed,
    segment_name,
)
from geostore.index.log_reader import bounded_view
from geostore.index.log_recovery import Recovery, Survey, problems, survey
from geostore.index.log_segments import Segments

__all__ = ["SEGMENT_BYTES", "LogWriter"]

logger = logging.getLogger(__name__)

SEGMENT_BYTES = 256 << 20
"""A segment that is as long gets no more frames."""
RESERVE_BYTES = 1 << 20
RESERVE_BYTES_MAX = 16 << 20
COPY_BYTES = 1 << 20
NEW_SUFFIX = ".new"
IOV_MAX = 512
"""Buffers a call; Linux takes 1024."""
PADDING = tuple(memoryview(bytes(count)) for count in range(8))


class LogWriter:
    """The one writer of a log. Methods may be called from several threads.

    Two locks: syncs wait for each other, appends for each other, and appends go on while a
    sync is under way. Who needs both takes the sync lock first.
    """

    def __init__(
        self,
        directory: Path,
        *,
        after: Position = START,
        segment_bytes: int = SEGMENT_BYTES,
        reserve_bytes: int = RESERVE_BYTES,
        log_id: bytes | None = None,
        disk: LogDisk | None = None,
    ) -> None:
        """Opens the log and finds its end, or makes it where there is none.

        `after` is where the caller's snapshot ends: what is before it is not read. `log_id`
        is what a new log gets, else random bytes. `reserve_bytes` 0 lets the file grow by
        what is written.

        Raises:
            CorruptDataError: acknowledged frames are missing or damaged. Nothing was changed.
            LogDroppedError: `after` is where segments were dropped.
            StoreFormatError: a newer geostore wrote it.
            ReadOnlyError: no permission.
            StorageFullError: no room to make it.
        """
        if segment_bytes <= SEGMENT_HEADER_BYTES or reserve_bytes < 0:
            raise InvalidInputError(
                f"log {directory}: segment_bytes {segment_bytes}, reserve_bytes {reserve_bytes}"
            )
        if log_id is not None and len(log_id) != LOG_ID_BYTES:
            raise InvalidInputError(f"log id of {len(log_id)} bytes, expected {LOG_ID_BYTES}")
        self._disk = disk or LogDisk()
        self._segment_bytes, self._reserve_bytes = segment_bytes, reserve_bytes
        self._sync_lock, self._append_lock = threading.RLock(), threading.RLock()
        self._pid = os.getpid()
        self._failure: str | None = None
        self._descriptor = -1
        self._head: HeadWriter | None = None
        try:
            self._make_directory(directory)
            self._segments = Segments(directory, self._disk)
        except OSError as error:
            raise self._translated(error, directory) from error
        try:
            self.recovery = self._open(after, log_id)
        except OSError as error:
            self._release()
            raise self._translated(error, directory) from error
        except BaseException:
            self._release()
            raise
        hold_at_fork(self)

    # ------------------------------------------------------------ opening

    def _make_directory(self, directory: Path) -> None:
        missing: list[Path] = []
        path = directory
        while not path.is_dir():
            missing.append(path)
            path = path.parent
        for new in reversed(missing):
            self._disk.make_directory(new)
            self._sync_directory(new.parent)

    def _sync_directory(self, directory: Path) -> None:
        descriptor = self._disk.open(str(directory), os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._disk.sync(descriptor)
        finally:
            self._disk.close(descriptor)

    def _open(self, after: Position, log_id: bytes | None) -> Recovery:
        segments, disk = self._segments, self._disk
        for name in disk.names(segments.dir_fd):
            if name.endswith(NEW_SUFFIX):
                disk.unlink(name, segments.dir_fd)  # of a writer that died making a segment
        numbers = segments.numbers()
        if not numbers:
            return self._make(log_id)
        first = segments.header(numbers[0])
        assert segments.log_id is not None
        head = HeadReader.open(disk, segments.dir_fd, segments.log_id)
        slot = None if head is None else head.read()
        start = first.start if after == START and first.number > 1 else after
        found = survey(segments, start, slot)
        end = found.end
        self._descriptor = segments.opened(end.segment, os.O_RDWR)
        self._begin_at(end)
        self._settle(found, max(start, slot.position) if slot is not None else start)
        self._publish_first(end)
        unsynced = 0 if slot is None else max(0, end.sequence - slot.position.sequence)
        cut = found.torn_bytes
        return Recovery(end, found.frames, unsynced, cut, end if cut else None)

    def _make(self, log_id: bytes | None) -> Recovery:
        segments = self._segments
        if HEAD_FILE in self._disk.names(segments.dir_fd):
            raise CorruptDataError(
                f"log {self.directory}: there is a head but no segment: all frames are lost;"
                f" {REBUILD}"
            )
        segments.log_id = log_id or os.urandom(LOG_ID_BYTES)
        # Before the head, so that a head without a segment is never a crash's work.
        self._descriptor = self._new_segment(1, START)
        end = SegmentHeader(1, segments.log_id, START).start
        self._begin_at(end)
        self._publish_first(end)
        return Recovery(end, 0, 0, 0, None)

    def _publish_first(self, end: Position) -> None:
        segments = self._segments
        assert segments.log_id is not None
        self._head = HeadWriter(self._disk, segments.dir_fd, segments.log_id)
        # The head's entry, and the segments': the writer before may have died before it synced
        # them. Not after publishing: the head must never tell of a segment that may be lost.
        self._disk.sync(segments.dir_fd)
        self._head.publish(end)
        self._head.sync()

    def _begin_at(self, end: Position) -> None:
        assert self._segments.log_id is not None
        self._seed = self._segments.seed(end.segment)
        self._end = self._durable = end
        self._reserved = end.offset

    def _settle(self, found: Survey, synced: Position) -> None:
        """Makes what was found durable: cuts off what is torn, writes again what is whole.

        Written again because the writer before may have seen its fsync fail: the system then
        shows from memory what is not on the disk, and would sync nothing of it.
        """
        disk, end, descriptor = self._disk, found.end, self._descriptor
        size = disk.size(descriptor)
        if size > end.offset:
            disk.truncate(descriptor, end.offset)
        if found.torn_bytes:
            logger.warning(
                "log=%s segment=%d offset=%d sequence=%d cut_bytes=%d torn frames cut off",
                self.directory,
                end.segment,
                end.offset,
                end.sequence,
                found.torn_bytes,
            )
        begin = synced.offset if synced.segment == end.segment else SEGMENT_HEADER_BYTES
        offset = begin
        while offset < end.offset:
            piece = disk.pread(descriptor, min(COPY_BYTES, end.offset - offset), offset)
            assert piece, offset  # it was read a moment ago, and nobody else writes
            self._write_all(descriptor, [memoryview(piece)], offset)
            offset += len(piece)
        if size > end.offset or begin < end.offset:
            disk.sync(descriptor)

    def _new_segment(self, number: int, before: Position) -> int:
        """Makes a segment's file, whole and durable; returns its descriptor. Raises OSError."""
        disk, dir_fd = self._disk, self._segments.dir_fd
        assert self._segments.log_id is not None
        header = SegmentHeader(number, self._segments.log_id, before)
        temporary = segment_name(number) + NEW_SUFFIX
        descriptor = disk.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, dir_fd)
        try:
            self._write_all(descriptor, [memoryview(header.pack())], 0)
            self._synced(disk.sync, descriptor)
            disk.rename(temporary, segment_name(number), dir_fd)
            self._synced(disk.sync, dir_fd)
        except BaseException:
            with suppress(OSError):
                disk.close(descriptor)
            with suppress(OSError):
                disk.unlink(temporary, dir_fd)
            raise
        return descriptor

    # ------------------------------------------------------------ failing

    @property
    def failure(self) -> str | None:
        """Why the log takes no more frames; None while it does."""
        return self._failure

    def fail(self, reason: str) -> None:
        """Takes no more frames: nothing after the last durable one counts."""
        if self._failure is None:
            self._failure = reason
            logger.error("log=%s goes read-only: %s", self.directory, reason)

    def _require_writable(self) -> None:
        if os.getpid() != self._pid:
            raise ReadOnlyError(
                f"log {self.directory}: opened for writing by process {self._pid}, which forked;"
                f" process {os.getpid()} can only read it"
            )
        if self._failure is not None:
            raise ReadOnlyError(
                f"log {self.directory}: read-only since {self._failure}; check the disk and open"
                " the store again"
            )
        self._segments.require_open()

    def _translated(self, error: OSError, where: Path) -> GeostoreError:
        if isinstance(error, GeostoreError):
            return error
        if self._failure is not None:
            return ReadOnlyError(f"log {where}: {self._failure}; no more will be accepted")
        if error.errno == errno.EIO:
            return ReadOnlyError(f"log {where}: a write failed ({error.strerror}); check the disk")
        return translate(error, f"log {where}")

    def _synced(self, sync: Callable[[int], None], descriptor: int) -> None:
        try:
            sync(descriptor)
        except OSError as error:
            self.fail(f"an fsync failed: {error.strerror or error}")
            raise

    # ------------------------------------------------------------ appending

    def append(self, kind: int, parts: Sequence[bytes | memoryview]) -> FrameAt:
        """Writes one frame whose payload is `parts` joined; durable after `sync`.

        Until then a crash may lose it, and whatever was appended after it. Nothing is copied.

        Raises:
            InvalidInputError: longer than `FRAME_BYTES_MAX`, or a kind beyond 16 bits.
            StorageFullError: no room; nothing changed, and later appends may find some.
            ReadOnlyError: a write failed, now or earlier; or the process was forked.
        """
        views = [memoryview(part).cast("B") for part in parts if len(part)]
        length = sum(map(len, views))
        if length > FRAME_BYTES_MAX:
            raise InvalidInputError(
                f"log {self.directory}: a frame of {length} bytes, expected at most"
                f" {FRAME_BYTES_MAX}"
            )
        if not 0 <= kind <= KIND_MAX:
            raise InvalidInputError(f"frame kind {kind}, expected 0 to {KIND_MAX}")
        if -length % 8:
            views.append(PADDING[-length % 8])
        with self._append_lock:
            if self._end.offset < self._segment_bytes:
                return self._append(kind, views, length)
        with self._sync_lock, self._append_lock:
            if self._end.offset >= self._segment_bytes:
                self._require_writable()
                try:
                    self._rotate()
                except OSError as error:
                    raise self._translated(error, self.directory) from error
            return self._append(kind, views, length)

    def _append(self, kind: int, views: list[memoryview], length: int) -> FrameAt:
        """Caller holds the append lock."""
        self._require_writable()
        end = self._end
        header = FrameHeader(length, kind, end.sequence + 1, self._durable.sequence, end.chain)
        packed, checksum = header.pack(frame_seed(self._seed, end.offset), views)
        after = end.offset + footprint(length)
        self._reserve(after)
        try:
            self._write_all(self._descriptor, [memoryview(packed), *views], end.offset)
        except BaseException as error:
            self._undo(error)
            if isinstance(error, OSError):
                raise self._translated(error, self.directory) from error
            raise
        self._end = Position(end.segment, after, header.sequence, checksum)
        self._reserved = max(self._reserved, after)
        return FrameAt(end.segment, end.offset + FRAME_HEADER_BYTES, header.sequence)

    def _write_all(self, descriptor: int, views: list[memoryview], offset: int) -> None:
        """Raises OSError; what was written till then is there."""
        while views:
            written = self._disk.pwritev(descriptor, views[:IOV_MAX], offset)
            if not written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            offset += written
            done = 0
            while done < len(views) and written >= len(views[done]):
                written -= len(views[done])
                done += 1
            views = views[done:]
            if written:  # a signal or a nearly full disk cut it short
                views[0] = views[0][written:]

    def _reserve(self, needed: int) -> None:
        """Keeps the file longer than what is written; by more the longer it is."""
        if needed <= self._reserved or not self._reserve_bytes:
            return
        ahead = needed + max(self._reserve_bytes, min(needed // 8, RESERVE_BYTES_MAX))
        try:
            self._disk.reserve(self._descriptor, self._reserved, ahead - self._reserved)
        except OSError as error:
            if error.errno not in FULL:  # where there is no such call, files just grow
                self._reserve_bytes = 0
            return  # the write itself will tell
        self._reserved = ahead

    def _undo(self, error: BaseException) -> None:
        """Takes away what a failed append wrote."""
        if isinstance(error, OSError) and error.errno not in FULL | FORBIDDEN:
            self.fail(f"a write failed: {error.strerror or error}")
            return
        try:
            self._disk.truncate(self._descriptor, self._end.offset)
        except OSError as second:
            self.fail(f"a failed write could not be undone: {second.strerror or second}")
        self._reserved = self._end.offset

    def begin_segment(self) -> int:
        """Frames go into a new segment from now on, if the last one has any; returns its number.

        What was appended is durable then.

        Raises:
            ReadOnlyError: a sync failed, or an earlier one.
            StorageFullError: no room for its file; nothing changed.
        """
        with self._sync_lock, self._append_lock:
            self._require_writable()
            if self._end.offset > SEGMENT_HEADER_BYTES:
                try:
                    self._rotate()
                except OSError as error:
                    raise self._translated(error, self.directory) from error
            return self._end.segment

    def _rotate(self) -> None:
        """Finishes the segment and begins the next. Caller holds both locks."""
        end = self._end
        self._disk.truncate(self._descriptor, end.offset)
        self._reserved = end.offset
        self._synced(self._disk.sync_data, self._descriptor)
        self._publish(end)
        descriptor = self._new_segment(end.segment + 1, end)
        with suppress(OSError):  # it was synced
            self._disk.close(self._descriptor)
        self._descriptor = descriptor
        self._seed = self._segments.seed(end.segment + 1)
        self._end = Position(end.segment + 1, SEGMENT_HEADER_BYTES, end.sequence, end.chain)
        self._reserved = SEGMENT_HEADER_BYTES

    def sync(self) -> Position:
        """Makes all that was appended before this call durable, and shows it to readers.

        Returns up to where. One fdatasync, or none where another thread's sync did it.

        Raises:
            ReadOnlyError: it failed, now or earlier: what was appended since the last one may
                be lost, and nothing more is accepted.
        """
        wanted = self._end.sequence
        with self._sync_lock:
            with self._append_lock:
                self._require_writable()
                end, descriptor = self._end, self._descriptor
            # What others appended since is theirs to sync; or nobody would ever share one.
            if self._durable.sequence < wanted:
                try:
                    self._synced(self._disk.sync_data, descriptor)
                    self._publish(end)
                except OSError as error:
                    raise self._translated(error, self.directory) from error
            return self._durable

    def _publish(self, end: Position, *, retired: bool = False) -> None:
        """Caller holds the sync lock and has synced up to `end`."""
        assert self._head is not None
        self._durable = end
        try:
            self._head.publish(end, retired=retired)
        except OSError as error:
            # Readers would never see what was acknowledged.
            self.fail(f"a write of the head failed: {error.strerror or error}")
            raise

    # ------------------------------------------------------------ the rest

    @property
    def directory(self) -> Path:
        """Where the log is; set it after renaming the directory."""
        return self._segments.directory

    @directory.setter
    def directory(self, directory: Path) -> None:
        self._segments.directory = directory

    @property
    def log_id(self) -> bytes:
        """16 random bytes, made with the log."""
        assert self._segments.log_id is not None
        return self._segments.log_id

    @property
    def position(self) -> Position:
        """The durable end."""
        return self._durable

    @property
    def end(self) -> Position:
        """The end of what was appended."""
        return self._end

    def is_current(self) -> bool:
        """Whether the directory's path still leads to this log."""
        return self._segments.is_current()

    def frames(self, after: Position, until: Position | None = None) -> Iterator[Frame]:
        """As `LogReader.frames`; up to the durable end unless told."""
        return self._segments.frames(after, self._durable if until is None else until)

    def view(self, segment: int, offset: int, length: int) -> memoryview:
        """As `LogReader.view`; also of frames that are not durable yet."""
        return bounded_view(self._segments, self._end, segment, offset, length)

    def sizes(self) -> dict[int, int]:
        """Segment to bytes of its file (of the last one: what is written of it), rising."""
        end = self._end
        sizes = {number: self._segments.size(number) for number in self._segments.numbers()}
        return {**sizes, end.segment: end.offset}

    def drop_before(self, segment: int) -> list[int]:
        """Deletes the segments before `segment`, never the last; returns which.

        Raises:
            ReadOnlyError: they cannot be deleted.
        """
        with self._sync_lock:
            self._require_writable()
            numbers = self._segments.numbers()
            dropped = [number for number in numbers[:-1] if number < segment]
            try:
                # Oldest first: a crash on the way leaves no gap.
                for number in dropped:
                    self._disk.unlink(segment_name(number), self._segments.dir_fd)
                self._segments.forget(segment)
                if dropped:
                    self._synced(self._disk.sync, self._segments.dir_fd)
            except OSError as error:
                raise self._translated(error, self.directory) from error
            return dropped

    def retire(self) -> None:
        """Tells readers that another log was put in this one's place; nothing more is appended.

        Call it when the rename is done: they reopen the directory's path.
        """
        with self._sync_lock:
            self._require_writable()
            try:
                self._publish(self._durable, retired=True)
            except OSError as error:
                raise self._translated(error, self.directory) from error
            self._failure = "another log was put in its place"

    def check(self) -> list[str]:
        """Walks the invariants; returns what is wrong, one sentence each, [] if nothing."""
        with self._sync_lock, self._append_lock:
            head = HeadReader.open(self._disk, self._segments.dir_fd, self.log_id)
            slot = None if head is None else head.read()
            found = problems(self._segments, slot)
            if slot is not None and slot.position != self._durable:
                found.append(
                    f"log {self.directory}: the head says {slot.position}, the writer"
                    f" {self._durable}."
                )
            return found

    def close(self, *, tidy: bool = True) -> None:
        """Gives back everything; what was not synced is not durable. Views stay valid.

        With `tidy` the file is cut to its content: not if another process may have written since.
        """
        with self._sync_lock, self._append_lock:
            tidy = tidy and os.getpid() == self._pid and self._failure is None
            if self._descriptor >= 0 and tidy:
                # Tidier, and a quicker opening; nothing acknowledged depends on it.
                with suppress(OSError):
                    self._disk.truncate(self._descriptor, self._end.offset)
                if self._head is not None:
                    with suppress(OSError):
                        self._head.sync()
            self._release()

    def _release(self) -> None:
        if self._descriptor >= 0:
            with suppress(OSError):
                self._disk.close(self._descriptor)
            self._descriptor = -1
        if self._head is not None:
            self._head.close()
            self._head = None
        self._segments.close()

    def hold_for_fork(self) -> None:
        """Leaves no lock held in the child."""
        self._sync_lock.acquire()
        self._append_lock.acquire()
        self._segments.hold_for_fork()

    def resume_after_fork(self) -> None:
        """Undoes `hold_for_fork`."""
        self._segments.resume_after_fork()
        self._append_lock.release()
        self._sync_lock.release()
