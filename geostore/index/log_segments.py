"""The segment files of one log: found, opened, mapped, and read frame by frame.

Maps are never closed, only let go: a view that was handed out keeps its map alive. A map is as
long as its file was; when a file has grown beyond it, another is made. How many there are is
bounded: beyond `MAPS_MAX` living maps a view is a copy.

The directory is held open and files are opened relative to it, so that who reads a log goes
on with that log when its directory is renamed away and another put in its place.
"""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from geostore.errors import (
    CorruptDataError,
    InvalidInputError,
    StoreFormatError,
    UnavailableError,
)
from geostore.index.log_disk import LogDisk, translate
from geostore.index.log_frames import MappedBytes, ReadBytes, damaged, frame_end, read_frame
from geostore.index.log_layout import (
    FRAME_HEADER_BYTES,
    REBUILD,
    SEGMENT_HEADER_BYTES,
    SEGMENT_SUFFIX,
    Frame,
    FrameAt,
    Position,
    SegmentHeader,
    segment_name,
    segment_number,
    segment_seed,
)

__all__ = ["LogDroppedError", "Segments"]

HELD_MAX = 64
"""Segments of which a map is kept at hand."""
MAPS_MAX = 512
"""Living maps of a log, those included that only views keep."""


class LogDroppedError(UnavailableError):
    """The frames asked for are in segments that were dropped: begin with the newest snapshot."""


# ---------------------------------------------------------------- the files


@dataclass(slots=True)
class _Kept:
    header: SegmentHeader
    bytes: MappedBytes


class Segments:
    """The segments in an open directory. All methods may be called from any thread."""

    def __init__(self, directory: Path, disk: LogDisk) -> None:
        self.directory = directory
        self.disk = disk
        self.log_id: bytes | None = None
        """Set by the first header that is read; from then on all must have it."""
        self._lock = threading.RLock()
        self._kept: dict[int, _Kept] = {}
        self._maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
        self.dir_fd = disk.open(str(directory), os.O_RDONLY | os.O_DIRECTORY)
        found = os.fstat(self.dir_fd)
        self.identity = (found.st_dev, found.st_ino)

    def hold_for_fork(self) -> None:
        """Leaves no lock held in the child."""
        self._lock.acquire()

    def resume_after_fork(self) -> None:
        """Undoes `hold_for_fork`."""
        self._lock.release()

    def where(self, number: int) -> str:
        """A segment's file, for messages."""
        return str(self.directory / segment_name(number))

    def is_current(self) -> bool:
        """Whether the path still leads to the directory that was opened."""
        try:
            found = self.directory.stat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self.identity

    def close(self) -> None:
        """Gives back the directory and the maps nobody has a view of."""
        with self._lock:
            self._kept.clear()
            if self.dir_fd >= 0:
                with suppress(OSError):
                    self.disk.close(self.dir_fd)
            self.dir_fd = -1

    def require_open(self) -> None:
        """Raises InvalidInputError after `close`."""
        if self.dir_fd < 0:
            raise InvalidInputError(f"log {self.directory}: used after close()")

    def numbers(self) -> list[int]:
        """The segments that are there, rising.

        Raises:
            CorruptDataError: one is missing between others.
        """
        self.require_open()
        before: list[int] | None = None
        while True:
            try:
                names = self.disk.names(self.dir_fd)
            except OSError as error:
                raise translate(error, f"log {self.directory}") from error
            found = sorted(number for name in names if (number := segment_number(name)))
            gap = next((one for one, other in pairwise(found) if other != one + 1), None)
            if gap is None:
                return found
            if found == before:
                break
            before = found  # some may have been dropped while the list was read: look again
        raise CorruptDataError(
            f"{self.where(gap + 1)}: missing, though later segments are there: the frames in it"
            f" are lost; {REBUILD}"
        )

    def opened(self, number: int, flags: int = os.O_RDONLY) -> int:
        """A descriptor of a segment's file; the caller closes it.

        Raises:
            LogDroppedError: it was dropped.
            CorruptDataError: it is missing, though later ones may be there.
        """
        self.require_open()
        try:
            return self.disk.open(segment_name(number), flags, self.dir_fd)
        except FileNotFoundError:
            there = self.numbers()
            if not there or there[0] > number:
                raise LogDroppedError(
                    f"{self.where(number)}: dropped; the log begins with segment"
                    f" {there[0] if there else '(none)'}: begin with the newest snapshot"
                ) from None
            raise CorruptDataError(f"{self.where(number)}: missing; {REBUILD}") from None
        except OSError as error:
            raise translate(error, self.where(number)) from error

    def _checked_header(self, descriptor: int, number: int) -> SegmentHeader:
        where = self.where(number)
        data = self.disk.pread(descriptor, SEGMENT_HEADER_BYTES, 0)
        header = SegmentHeader.unpack(data, where)
        if header.number != number:
            raise CorruptDataError(
                f"{where}: it says that it is segment {header.number}; {REBUILD}"
            )
        if self.log_id is None:
            self.log_id = header.log_id
        elif header.log_id != self.log_id:
            raise CorruptDataError(
                f"{where}: it belongs to log {header.log_id.hex()}, expected"
                f" {self.log_id.hex()}; {REBUILD}"
            )
        return header

    def header(self, number: int) -> SegmentHeader:
        """The verified header of a segment."""
        kept = self._kept.get(number)
        return self.read_header(number) if kept is None else kept.header

    def read_header(self, number: int) -> SegmentHeader:
        """The header of a segment as its file has it now, verified."""
        descriptor = self.opened(number)
        try:
            return self._checked_header(descriptor, number)
        except OSError as error:
            raise translate(error, self.where(number)) from error
        finally:
            self.disk.close(descriptor)

    def size(self, number: int) -> int:
        """Bytes in a segment's file."""
        kept = self._kept.get(number)
        if kept is not None:
            return kept.bytes.map.size()
        descriptor = self.opened(number)
        try:
            return self.disk.size(descriptor)
        finally:
            self.disk.close(descriptor)

    def seed(self, number: int) -> int:
        """What the seeds of a segment's frames count from."""
        assert self.log_id is not None, "no header was read yet"
        return segment_seed(self.log_id, number)

    def reading(self, number: int, descriptor: int) -> ReadBytes:
        """A segment through pread."""
        return ReadBytes(self.where(number), number, self.seed(number), self.disk, descriptor)

    def mapped(self, number: int, end: int) -> MappedBytes:
        """A segment's map, of at least `end` bytes.

        Raises:
            CorruptDataError: the file is shorter.
        """
        kept = self._kept.get(number)
        if kept is None or len(kept.bytes.data) < end:
            kept = self._map(number, end)
        kept.bytes.require(end)
        return kept.bytes

    def _map(self, number: int, end: int) -> _Kept:
        with self._lock:
            descriptor = self.opened(number)
            try:
                header = self._checked_header(descriptor, number)
                size = self.disk.size(descriptor)
                if size < end:
                    raise CorruptDataError(
                        f"{self.where(number)}: {size} bytes, expected at least {end}: the file"
                        f" was cut short; {REBUILD}"
                    )
                made = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
            except OSError as error:
                raise translate(error, self.where(number)) from error
            finally:
                self.disk.close(descriptor)
            self._maps.add(made)
            kept = _Kept(header, MappedBytes(self.where(number), number, self.seed(number), made))
            self._kept.pop(number, None)
            while len(self._kept) >= HELD_MAX:
                del self._kept[next(iter(self._kept))]
            self._kept[number] = kept
            return kept

    def view(self, number: int, offset: int, length: int) -> memoryview:
        """`length` bytes of a segment, not verified; a copy where there are too many maps."""
        end = offset + length
        kept = self._kept.get(number)
        if kept is not None and end <= len(kept.bytes.data):
            kept.bytes.require(end)
            return kept.bytes.data[offset:end]
        if len(self._maps) >= MAPS_MAX:
            return self._copy(number, offset, length)
        return self.mapped(number, end).at(offset, length)

    def _copy(self, number: int, offset: int, length: int) -> memoryview:
        descriptor = self.opened(number)
        try:
            self._checked_header(descriptor, number)
            size = self.disk.size(descriptor)
            if size < offset + length:
                raise CorruptDataError(
                    f"{self.where(number)}: {size} bytes, expected at least {offset + length}:"
                    f" the file was cut short; {REBUILD}"
                )
            return self.reading(number, descriptor).at(offset, length)
        except OSError as error:
            raise translate(error, self.where(number)) from error
        finally:
            self.disk.close(descriptor)

    def forget(self, before: int) -> None:
        """Lets go of the maps of segments that were dropped."""
        with self._lock:
            for number in [each for each in self._kept if each < before]:
                del self._kept[number]

    # ------------------------------------------------------------ frames

    def locate(self, after: Position, numbers: list[int]) -> Position:
        """Where reading begins so that the frame after `after` is the next one.

        Raises:
            LogDroppedError: that frame was dropped.
            CorruptDataError: the log does not reach so far, or has another history.
        """
        if not numbers:
            raise StoreFormatError(
                f"{self.directory}: no catalog's log here (no *{SEGMENT_SUFFIX} file)"
            )
        if after.segment in numbers and after.segment > 0:
            size = self.size(after.segment)
            if SEGMENT_HEADER_BYTES <= after.offset <= size:
                return after
            raise CorruptDataError(
                f"{self.where(after.segment)}: {size} bytes, but frame {after.sequence} ended at"
                f" {after.offset}: the file was cut short; {REBUILD}"
            )
        if after.segment > numbers[-1]:
            raise CorruptDataError(
                f"{self.where(after.segment)}: missing; frame {after.sequence} was in it; {REBUILD}"
            )
        first = self.header(numbers[0])
        if first.before.sequence == after.sequence and first.before.chain == after.chain:
            return first.start
        raise LogDroppedError(
            f"log {self.directory}: it begins with frame {first.before.sequence + 1}; frame"
            f" {after.sequence + 1} was dropped: begin with the newest snapshot"
        )

    def frames(self, after: Position, until: Position) -> Iterator[Frame]:
        """The frames after `after`, the one that ends at `until` included, each verified."""
        if until.sequence <= after.sequence:
            return
        # A mapped segment is there: in the usual case, one more frame, nothing is asked.
        is_mapped = after.segment in self._kept and after.segment == until.segment
        position = after if is_mapped else self.locate(after, self.numbers())
        while True:
            is_last = position.segment == until.segment
            end = until.offset if is_last else self.size(position.segment)
            for frame in self._frames_of_segment(position, end):
                position = frame.end
                yield frame
            if is_last:
                break
            position = self.following(position)
        if position != until:
            raise CorruptDataError(
                f"{self.where(until.segment)}: frame {position.sequence} ends at offset {end},"
                f" expected frame {until.sequence}; {REBUILD}"
            )

    def following(self, position: Position) -> Position:
        """The start of the segment after the finished one that ends at `position`.

        Raises:
            CorruptDataError: that segment goes on from somewhere else.
        """
        header = self.header(position.segment + 1)
        found, expected = header.before, position
        if (found.sequence, found.chain) != (expected.sequence, expected.chain):
            raise CorruptDataError(
                f"{self.where(header.number)}: it follows frame {found.sequence}, but"
                f" {self.where(position.segment)} ends with frame {expected.sequence}"
                f" ({found.chain:016x}, {expected.chain:016x}); {REBUILD}"
            )
        return header.start

    def _frames_of_segment(self, position: Position, end: int) -> Iterator[Frame]:
        source = self.mapped(position.segment, end)
        while position.offset < end:
            source.require(end)
            header = read_frame(source, position, end)
            if isinstance(header, str):
                raise damaged(source, position, header, end)
            payload = position.offset + FRAME_HEADER_BYTES
            at = FrameAt(position.segment, payload, header.sequence)
            position = frame_end(position, header)
            yield Frame(at, header.kind, source.at(payload, header.length), position)
