"""What the log asks of the system, each call a method, and what the system's errors mean.

Tests hand in a `LogDisk` of their own that fails, writes short, or stops at any call.
"""

from __future__ import annotations

import errno
import os
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from geostore.errors import (
    CorruptDataError,
    GeostoreError,
    InternalError,
    ReadOnlyError,
    StorageFullError,
    StoreFormatError,
    UnavailableError,
)

__all__ = [
    "FORBIDDEN",
    "FULL",
    "ForkHeld",
    "LogDisk",
    "hold_at_fork",
    "sync_directory",
    "translate",
]

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_BUSY = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
UNKNOWN_BOOT = bytes(16)


class LogDisk:
    """The system calls of a log. Names are relative to the open directory `dir_fd`."""

    def __init__(self) -> None:
        self.syncs = 0
        """How often something was synced."""

    def open(self, name: str, flags: int, dir_fd: int | None = None) -> int:
        return os.open(name, flags | os.O_CLOEXEC, 0o666, dir_fd=dir_fd)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def names(self, dir_fd: int) -> list[str]:
        return os.listdir(dir_fd)

    def size(self, descriptor: int) -> int:
        return os.fstat(descriptor).st_size

    def pread(self, descriptor: int, length: int, offset: int) -> bytes:
        return os.pread(descriptor, length, offset)

    def pwritev(self, descriptor: int, parts: Sequence[bytes | memoryview], offset: int) -> int:
        """May write less than all."""
        return os.pwritev(descriptor, parts, offset)

    def reserve(self, descriptor: int, offset: int, length: int) -> None:
        """Makes the file at least so long, its new bytes zero and their room taken."""
        os.posix_fallocate(descriptor, offset, length)

    def truncate(self, descriptor: int, length: int) -> None:
        os.ftruncate(descriptor, length)

    def sync_data(self, descriptor: int) -> None:
        """The content and the length of a file."""
        self.syncs += 1
        # Not everywhere; there fsync is what there is.
        getattr(os, "fdatasync", os.fsync)(descriptor)

    def sync(self, descriptor: int) -> None:
        self.syncs += 1
        os.fsync(descriptor)

    def rename(self, old: str, new: str, dir_fd: int) -> None:
        os.rename(old, new, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)

    def unlink(self, name: str, dir_fd: int) -> None:
        os.unlink(name, dir_fd=dir_fd)

    def make_directory(self, path: Path) -> None:
        path.mkdir(exist_ok=True)

    def boot_id(self) -> bytes:
        """16 bytes that are others after each start of the system; zeros where unknown."""
        try:
            return bytes.fromhex(BOOT_ID_FILE.read_text().strip().replace("-", ""))
        except (OSError, ValueError):
            return UNKNOWN_BOOT


def sync_directory(path: Path) -> None:
    """Makes a directory's entries durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def translate(error: OSError, where: str) -> GeostoreError:
    """The error that says what the user can do about `error`.

    StorageFullError: disk, quota or file size limit reached. ReadOnlyError: no permission, or
    media that take no writes. UnavailableError: out of descriptors or memory.
    CorruptDataError: the medium does not read. StoreFormatError: nothing is there.
    InternalError: anything else.
    """
    text = f"{where}: {error.strerror or error}"
    if error.errno in FULL:
        return StorageFullError(f"{text}; nothing was changed: free some space, then try again")
    if error.errno in FORBIDDEN:
        return ReadOnlyError(f"{text}; no permission to open or write it")
    if error.errno in _BUSY:
        return UnavailableError(text, retry_after_s=1.0)
    if error.errno == errno.EIO:
        return CorruptDataError(f"{text}; the disk does not give back what was written: check it")
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return StoreFormatError(f"{text}; there is no catalog's log here")
    return InternalError(f"{text} (errno {error.errno})")


# ---------------------------------------------------------------- fork


class ForkHeld(Protocol):
    """Has locks that must be free in a forked child."""

    def hold_for_fork(self) -> None: ...
    def resume_after_fork(self) -> None: ...


_everyone: weakref.WeakValueDictionary[int, ForkHeld] = weakref.WeakValueDictionary()
_everyone_lock = threading.Lock()
_next_number = 0
_held: list[ForkHeld] = []


def hold_at_fork(one: ForkHeld) -> None:
    """Has its locks taken just before each fork and given back after it, here and there."""
    global _next_number  # noqa: PLW0603 - one counter a process: the order of locking
    with _everyone_lock:
        _everyone[_next_number] = one
        _next_number += 1


def _before_fork() -> None:
    _everyone_lock.acquire()
    # In the order in which they were made: no thread holds the locks of two.
    for _, one in sorted(_everyone.items(), key=lambda item: item[0]):
        one.hold_for_fork()
        _held.append(one)


def _after_fork() -> None:
    while _held:
        _held.pop().resume_after_fork()
    _everyone_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
