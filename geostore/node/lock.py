"""One writer a store: an exclusive flock on DIR/lock, which also names its holder.

flock rather than a pid file: the kernel drops it however the holder ends. The text in the
file only serves the message that a second writer gets.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import socket
import sys
import weakref
from pathlib import Path

from geostore.errors import ReadOnlyError, StorageFullError, StoreLockedError
from geostore.node.disk import FORBIDDEN, FULL

__all__ = ["WriterLock", "is_lent"]

HOLDER_BYTES_MAX = 2000


def is_lent(path: Path) -> bool | None:
    """Whether the holder of that lock lends it between scenes (`geostore.node.writer_turns`).

    None where its holder has not written who it is.
    """
    try:
        value = json.loads(path.read_bytes()[:HOLDER_BYTES_MAX])
        return bool(value.get("lends", False))
    except (OSError, ValueError, AttributeError):
        return None


class WriterLock:
    """The held lock of one store. `lends`: others may have it between two scenes.

    Raises:
        StoreLockedError: another process, or another open store of this one, writes.
        ReadOnlyError: the lock file cannot be written.
    """

    def __init__(self, path: Path, *, lends: bool = False) -> None:
        self._path = path
        self._lends = lends
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if error.errno in FORBIDDEN:
                raise ReadOnlyError(
                    f"store {path.parent}: {error.strerror}; it can be read but not written"
                ) from error
            if error.errno in FULL:
                raise StorageFullError(f"store {path.parent}: {error.strerror}") from error
            raise
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, HOLDER_BYTES_MAX, 0)
            os.close(descriptor)
            if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
                raise StoreLockedError(_refusal(path.parent, holder)) from None
            raise
        self._descriptor = descriptor
        self._write_holder()
        _HELD.add(self)

    def _write_holder(self) -> None:
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "command": " ".join(shlex.quote(part) for part in sys.argv)[:500],
            "lends": self._lends,
        }
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps(holder).encode(), 0)
        except OSError as error:
            # On a full disk the lock still holds; only the message to others is poorer.
            if error.errno not in FULL:
                raise

    def lend(self, *, lends: bool) -> None:
        """Say to others whether the lock is lent from now on."""
        if self._lends != lends and self.is_held:
            self._lends = lends
            self._write_holder()

    @property
    def is_held(self) -> bool:
        return self._descriptor >= 0

    def release(self) -> None:
        """Lets the next writer in; harmless when released."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            try:
                os.ftruncate(descriptor, 0)
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            finally:
                os.close(descriptor)

    def forget_in_child(self) -> None:
        """Drops a forked child's copy of the lock and leaves the parent's in force.

        flock belongs to the open file that both share: unlocking would unlock the parent,
        and keeping it would hold the store after the parent has gone.
        """
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def _refusal(store: Path, holder: bytes) -> str:
    try:
        value = json.loads(holder)
        pid, host, command = int(value["pid"]), str(value["host"]), str(value["command"])
    except (ValueError, KeyError, TypeError):
        who, remedy = "another process", "wait until it has finished"
    else:
        here = host == socket.gethostname()
        if here and pid == os.getpid():
            who = f"this process (pid {pid}), which opened the store twice"
            remedy = "close the other Store object first"
        else:
            who = f"process {pid} on {host} ({command})"
            remedy = f"wait until it has finished, or stop it: kill {pid}"
    return f"store {store} is being written by {who}; reading works beside it, to write {remedy}"


_HELD: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def _forget_all_in_child() -> None:
    for lock in list(_HELD):
        lock.forget_in_child()


os.register_at_fork(after_in_child=_forget_all_in_child)
