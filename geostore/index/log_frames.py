"""Frames in one segment: read and verified, on a map or with pread."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Protocol

import xxhash

from geostore.errors import CorruptDataError, StoreFormatError
from geostore.index.log_disk import LogDisk
from geostore.index.log_layout import (
    CHECKED_FROM,
    FRAME_BYTES_MAX,
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    REBUILD,
    FrameHeader,
    Position,
    footprint,
    frame_seed,
)

__all__ = [
    "MappedBytes",
    "ReadBytes",
    "SegmentBytes",
    "damaged",
    "frame_end",
    "headers_after",
    "read_frame",
]

WINDOW_BYTES = 1 << 20


# ---------------------------------------------------------------- a segment's bytes


class SegmentBytes(Protocol):
    """Bytes of one segment: on a map, or read piece by piece."""

    where: str
    number: int
    seed: int

    def at(self, offset: int, length: int) -> memoryview:
        """`length` bytes, which lie below what the caller knows to be the end."""

    def digest(self, offset: int, length: int, seed: int) -> int: ...


class MappedBytes:
    """Views on a map: nothing is copied."""

    def __init__(self, where: str, number: int, seed: int, mapped: mmap.mmap) -> None:
        self.where, self.number, self.seed = where, number, seed
        self.map = mapped
        self.data = memoryview(mapped)

    def require(self, end: int) -> None:
        """Raises CorruptDataError where the file ends earlier: touching it would be SIGBUS."""
        size = self.map.size()
        if size < end:
            raise CorruptDataError(
                f"{self.where}: {size} bytes, expected at least {end}: the file was cut short;"
                f" {REBUILD}"
            )

    def at(self, offset: int, length: int) -> memoryview:
        return self.data[offset : offset + length]

    def digest(self, offset: int, length: int, seed: int) -> int:
        return xxhash.xxh3_64_intdigest(self.data[offset : offset + length], seed)


class ReadBytes:
    """Read with pread, through a window: safe where a writer may cut the file meanwhile.

    What is beyond the file's end reads as zeros.
    """

    def __init__(self, where: str, number: int, seed: int, disk: LogDisk, descriptor: int) -> None:
        self.where, self.number, self.seed = where, number, seed
        self._disk, self._descriptor = disk, descriptor
        self._from = 0
        self._window = memoryview(b"")

    def at(self, offset: int, length: int) -> memoryview:
        start = offset - self._from
        if start < 0 or start + length > len(self._window):
            wanted = max(length, WINDOW_BYTES)
            data = self._read(offset, wanted)
            self._from, self._window, start = offset, memoryview(data), 0
            if len(data) < length:
                self._window = memoryview(data + bytes(length - len(data)))
        return self._window[start : start + length]

    def _read(self, offset: int, length: int) -> bytes:
        pieces: list[bytes] = []
        while length > 0:
            piece = self._disk.pread(self._descriptor, length, offset)
            if not piece:
                break
            pieces.append(piece)
            offset, length = offset + len(piece), length - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def digest(self, offset: int, length: int, seed: int) -> int:
        if length <= WINDOW_BYTES:
            return xxhash.xxh3_64_intdigest(self.at(offset, length), seed)
        running = xxhash.xxh3_64(seed=seed)
        for start in range(offset, offset + length, WINDOW_BYTES):
            running.update(self.at(start, min(WINDOW_BYTES, offset + length - start)))
        return running.intdigest()

    def forget(self) -> None:
        """Reads anew from now on."""
        self._window = memoryview(b"")

    def used(self, offset: int, end: int) -> int:
        """The end of what is not zero."""
        last = offset
        for start in range(offset, end, WINDOW_BYTES):
            piece = bytes(self.at(start, min(WINDOW_BYTES, end - start))).rstrip(b"\0")
            if piece:
                last = start + len(piece)
        return last


# ---------------------------------------------------------------- frames


def read_frame(source: SegmentBytes, before: Position, end: int) -> FrameHeader | str:
    """The verified header of the frame that follows `before`, below `end`; or what is wrong."""
    offset = before.offset
    if end - offset < FRAME_HEADER_BYTES:
        return f"{end - offset} bytes where a frame's header has {FRAME_HEADER_BYTES}"
    header = FrameHeader.unpack(source.at(offset, FRAME_HEADER_BYTES))
    if header is None:
        return "no frame begins there"
    total = footprint(header.length)
    if header.length > FRAME_BYTES_MAX or total > end - offset:
        return f"its payload of {header.length} bytes goes beyond the end at {end}"
    seed = frame_seed(source.seed, offset)
    if header.checksum != source.digest(offset + CHECKED_FROM, total - CHECKED_FROM, seed):
        return "it does not match its checksum"
    if header.sequence != before.sequence + 1 or header.previous != before.chain:
        return f"it is frame {header.sequence} of another history than what stands before it"
    if header.flags:
        raise StoreFormatError(
            f"{source.where}: frame {header.sequence} at offset {offset} has flags"
            f" {header.flags:#x}, which this geostore does not know: install a newer geostore"
        )
    return header


def frame_end(before: Position, header: FrameHeader) -> Position:
    """Where the frame that begins at `before` ends."""
    return Position(
        before.segment,
        before.offset + footprint(header.length),
        header.sequence,
        header.checksum,
    )


def headers_after(source: SegmentBytes, offset: int, end: int) -> Iterator[FrameHeader]:
    """Headers at or after `offset` that match their own check, whatever is between."""
    magic_at = CHECKED_FROM
    offset += -offset % 8
    for start in range(offset, end, WINDOW_BYTES):
        # A window reaches one header into the next, so that none is split.
        length = min(WINDOW_BYTES + FRAME_HEADER_BYTES, end - start)
        window = bytes(source.at(start, length))
        found = window.find(FRAME_MAGIC, magic_at)
        while found >= 0 and found - magic_at < WINDOW_BYTES:
            begin = found - magic_at
            data = memoryview(window)[begin : begin + FRAME_HEADER_BYTES]
            if begin % 8 == 0 and len(data) == FRAME_HEADER_BYTES:
                header = FrameHeader.unpack(data)
                if header and FrameHeader.holds(data, frame_seed(source.seed, start + begin)):
                    yield header
            found = window.find(FRAME_MAGIC, found + 1)


def damaged(source: SegmentBytes, before: Position, reason: str, end: int) -> CorruptDataError:
    """The error for a frame that does not hold, with the frames that are lost by it."""
    first = before.sequence + 1
    later = (header.sequence for header in headers_after(source, before.offset + 8, end))
    following = next((sequence for sequence in later if sequence > first), None)
    lost = (
        f"frames from {first} on are"
        if following is None
        else (
            f"frame {first} is"
            if following == first + 1
            else f"frames {first} to {following - 1} are"
        )
    )
    return CorruptDataError(
        f"{source.where}: at offset {before.offset} frame {first} does not hold ({reason});"
        f" {lost} lost; {REBUILD}"
    )
