"""Following a log, in the writer's process or another: read only, on any media."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

from geostore.errors import CorruptDataError, StoreFormatError
from geostore.index.log_disk import LogDisk, hold_at_fork, translate
from geostore.index.log_head import HeadReader
from geostore.index.log_layout import (
    FRAME_HEADER_BYTES,
    HEAD_FILE,
    REBUILD,
    SEGMENT_HEADER_BYTES,
    START,
    Frame,
    HeadSlot,
    Position,
)
from geostore.index.log_recovery import problems, survey
from geostore.index.log_segments import Segments

__all__ = ["LogReader", "bounded_view"]


class LogReader:
    """Follows a log. Opens files for reading only: works on media that take no writes.

    Methods may be called from any thread.
    """

    def __init__(
        self, directory: Path, *, after: Position = START, disk: LogDisk | None = None
    ) -> None:
        """`after`: from where to look for the end if the head does not say; a snapshot's.

        Raises:
            StoreFormatError: there is no log, or a newer geostore wrote it.
            CorruptDataError: it is damaged.
            LogDroppedError: `after` is where segments were dropped.
        """
        self._disk = disk or LogDisk()
        self._lock = threading.RLock()
        self._head: HeadReader | None = None
        self._seen = -1
        try:
            self._segments = Segments(directory, self._disk)
        except OSError as error:
            raise translate(error, f"log {directory}") from error
        try:
            self._position = self._first_position(after)
        except BaseException:
            self._segments.close()
            raise
        hold_at_fork(self)

    def _first_position(self, after: Position) -> Position:
        numbers = self._segments.numbers()
        if not numbers:
            raise StoreFormatError(f"log {self.directory}: no segment of a catalog's log here")
        first = self._segments.header(numbers[0])
        slot = self._take_head()
        if slot is not None and slot.boot_id == self._disk.boot_id() and any(slot.boot_id):
            return slot.position
        if slot is not None and slot.position.sequence >= after.sequence:
            after = slot.position
        elif after == START:
            after = first.start
        return survey(self._segments, after, slot).end

    def _take_head(self) -> HeadSlot | None:
        """What the head says, if it is whole; remembers its mark."""
        log_id = self._segments.log_id
        assert log_id is not None
        if self._head is None:
            self._head = HeadReader.open(self._disk, self._segments.dir_fd, log_id)
        slot = None if self._head is None else self._head.read()
        if slot is None:
            self._head = None
        else:
            # Of what was read, not of what is there now: that may be newer.
            self._seen = slot.mark
        return slot

    @property
    def directory(self) -> Path:
        return self._segments.directory

    @property
    def log_id(self) -> bytes:
        """16 random bytes, made with the log."""
        assert self._segments.log_id is not None
        return self._segments.log_id

    @property
    def position(self) -> Position:
        """Up to where frames are taken as durable; `refresh` moves it on."""
        return self._position

    def has_news(self) -> bool:
        """Whether `refresh` may find more: one read of memory, no system call.

        Without a sound head always True.
        """
        head = self._head
        return head is None or head.mark() != self._seen

    def refresh(self) -> Position:
        """Takes in what was synced since; returns the new `position`."""
        with self._lock:
            self._segments.require_open()
            slot = self._take_head()
            if slot is None:
                self._position = survey(self._segments, self._position, None).end
            elif slot.position.sequence > self._position.sequence:
                self._position = slot.position
            return self._position

    def has_unsynced(self) -> bool:
        """Whether something begins behind `position`: what a writer that died had not synced.

        The next writer finds out what of it is whole. Ask where nobody writes.
        """
        with self._lock:
            at = self.refresh()
            if at.segment == 0:
                return False
            if self._segments.numbers()[-1] > at.segment:
                return True
            descriptor = self._segments.opened(at.segment)
            try:
                begun = self._disk.pread(descriptor, FRAME_HEADER_BYTES, at.offset)
            except OSError as error:
                raise translate(error, self._segments.where(at.segment)) from error
            finally:
                self._disk.close(descriptor)
            return any(begun)

    def is_current(self) -> bool:
        """Whether the log is still what the directory's path leads to. Two calls of stat.

        False after another log was put in its place, or its writer called `retire`.
        """
        if not self._segments.is_current():
            return False
        head = self._head
        if head is not None:
            slot = head.read()
            if slot is not None and slot.retired:
                return False
            if not self._is_head(head):
                self._head = None  # made anew by hand: `refresh` looks for it
        return True

    @property
    def has_head(self) -> bool:
        """Whether there is a sound head: without one each `refresh` searches for the end."""
        return self._head is not None

    def _is_head(self, head: HeadReader) -> bool:
        try:
            found = os.stat(HEAD_FILE, dir_fd=self._segments.dir_fd)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == head.identity

    def frames(self, after: Position, until: Position | None = None) -> Iterator[Frame]:
        """The frames after `after`, that which ends at `until` (else at `position`) included.

        Each is verified; payloads lie on the segments' maps and stay valid as long as they
        are held.

        Raises:
            LogDroppedError: the frame after `after` was dropped: reload from the snapshot.
            CorruptDataError: a frame does not hold.
        """
        return self._segments.frames(after, self._position if until is None else until)

    def view(self, segment: int, offset: int, length: int) -> memoryview:
        """Bytes of a segment, read-only, not verified: `offset` as in `FrameAt`.

        Raises:
            LogDroppedError: the segment was dropped.
            CorruptDataError: there are fewer bytes.
        """
        return bounded_view(self._segments, self._position, segment, offset, length)

    def sizes(self) -> dict[int, int]:
        """Segment to bytes, rising."""
        return {number: self._segments.size(number) for number in self._segments.numbers()}

    def forget(self, before: int) -> None:
        """Lets go of maps of the segments before `before`, which were dropped: their room is the
        disk's again when no view is held any more.
        """
        self._segments.forget(before)

    def check(self) -> list[str]:
        """Walks the invariants; returns what is wrong, one sentence each, [] if nothing."""
        head = HeadReader.open(self._disk, self._segments.dir_fd, self.log_id)
        return problems(self._segments, None if head is None else head.read())

    def close(self) -> None:
        """Gives back what nobody has a view of; views stay valid."""
        with self._lock:
            self._head = None
            self._segments.close()

    def hold_for_fork(self) -> None:
        """Leaves no lock held in the child."""
        self._lock.acquire()
        self._segments.hold_for_fork()

    def resume_after_fork(self) -> None:
        """Undoes `hold_for_fork`."""
        self._segments.resume_after_fork()
        self._lock.release()


def bounded_view(
    segments: Segments, end: Position, segment: int, offset: int, length: int
) -> memoryview:
    """Bytes of a segment, none beyond `end`."""
    assert offset >= SEGMENT_HEADER_BYTES, offset
    assert length >= 0, length
    if segment >= end.segment and (segment > end.segment or offset + length > end.offset):
        raise CorruptDataError(
            f"{segments.where(segment)}: bytes {offset} to {offset + length} asked for, but the"
            f" log ends at {end.offset} of segment {end.segment}; {REBUILD}"
        )
    return segments.view(segment, offset, length)
