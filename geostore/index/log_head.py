"""The log's head: a small file that tells readers in other processes how far it is durable.

It is a hint. Written after each sync and not synced itself, it is right as long as the system
runs; after a crash of the system it may lag behind the log (never run ahead of it). Two copies
are written one after the other, so that one of them is whole at any moment.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress

from geostore.index.log_disk import LogDisk
from geostore.index.log_layout import (
    HEAD_BYTES,
    HEAD_FILE,
    HEAD_SLOT_BYTES,
    HEAD_SLOTS,
    HeadSlot,
    Position,
    head_seed,
    pack_head,
    unpack_head_id,
)

__all__ = ["HeadReader", "HeadWriter"]

READ_ATTEMPTS = 8
"""A copy is torn while it is written, for less than a microsecond."""


class HeadReader:
    """The head, mapped. Reading it takes no system call."""

    def __init__(self, descriptor: int, log_id: bytes) -> None:
        found = os.fstat(descriptor)
        self.identity = (found.st_dev, found.st_ino)
        self._map = mmap.mmap(descriptor, HEAD_BYTES, access=mmap.ACCESS_READ)
        self._words = memoryview(self._map).cast("Q")
        self._word = HEAD_SLOTS[0] // 8
        self._seed = head_seed(log_id)

    @classmethod
    def open(cls, disk: LogDisk, dir_fd: int, log_id: bytes) -> HeadReader | None:
        """None where it is missing, short, damaged, or another log's."""
        try:
            descriptor = disk.open(HEAD_FILE, os.O_RDONLY, dir_fd)
        except OSError:
            return None  # the log itself decides
        try:
            if disk.size(descriptor) < HEAD_BYTES:
                return None
            head = cls(descriptor, log_id)
        finally:
            disk.close(descriptor)
        is_ours = unpack_head_id(head._map[: HEAD_SLOTS[0]]) == log_id
        return head if is_ours and head.read() is not None else None

    def mark(self) -> int:
        """A number that changes with each state. One read of memory."""
        return self._words[self._word]

    def read(self) -> HeadSlot | None:
        """The newest whole copy; None where none is."""
        for _ in range(READ_ATTEMPTS):
            for offset in HEAD_SLOTS:
                slot = HeadSlot.unpack(self._map[offset : offset + HEAD_SLOT_BYTES], self._seed)
                if slot is not None:
                    return slot
        return None


class HeadWriter:
    """Writes the head in place, so that who has mapped it sees each state."""

    def __init__(self, disk: LogDisk, dir_fd: int, log_id: bytes) -> None:
        self._disk = disk
        self._seed = head_seed(log_id)
        self._boot_id = disk.boot_id()
        fixed = pack_head(log_id)
        self._descriptor = disk.open(HEAD_FILE, os.O_RDWR | os.O_CREAT, dir_fd)
        if disk.size(self._descriptor) != HEAD_BYTES:
            disk.truncate(self._descriptor, HEAD_BYTES)
        if disk.pread(self._descriptor, len(fixed), 0) != fixed:
            self._write(fixed, 0)

    def _write(self, data: bytes, offset: int) -> None:
        written = self._disk.pwritev(self._descriptor, [data], offset)
        if written != len(data):
            raise OSError(f"{written} of {len(data)} bytes of the head written")

    def publish(self, position: Position, *, retired: bool = False) -> None:
        """Tells readers of `position`. Raises OSError."""
        data = HeadSlot(position, self._boot_id, retired).pack(self._seed)
        for offset in HEAD_SLOTS:
            self._write(data, offset)

    def sync(self) -> None:
        """Makes it durable, to spare the next opening a search. Raises OSError."""
        self._disk.sync(self._descriptor)

    def close(self) -> None:
        """Gives the descriptor back."""
        with suppress(OSError):
            self._disk.close(self._descriptor)
