"""Durable file operations, each with a named step before and after it.

All writing of a node goes through `Disk`: so that one place knows what must be synced, what
a full disk and a failed fsync mean, and so that tests can stop the world, or fail an
operation, at every step (`StepHook`).
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from geostore.errors import GeostoreError, InternalError, ReadOnlyError, StorageFullError
from geostore.metrics import NODE_FSYNC_SECONDS, REGISTRY

__all__ = ["Disk", "StepHook", "no_step"]

StepHook = Callable[[str], None]
"""Called with a step's name; may raise OSError, as the operation after it would, or never
return."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def no_step(name: str) -> None:
    """The hook of every store outside tests."""


class Disk:
    """Writes files under one store.

    After the first failed fsync the kernel may have dropped what it could not write and will
    not say so again, so nothing later can be trusted to be durable: from then on every write
    raises ReadOnlyError. (Reading goes on: what was acknowledged was synced before.)
    """

    def __init__(self, step: StepHook = no_step) -> None:
        self.step = step
        self._failure: str | None = None

    @property
    def failure(self) -> str | None:
        """Why the disk takes no more writes; None while it does."""
        return self._failure

    def require_writable(self) -> None:
        """Raises ReadOnlyError after a failed fsync."""
        if self._failure is not None:
            raise ReadOnlyError(
                f"the store went read-only: {self._failure}; check the disk, then open it again"
            )

    def fail(self, reason: str) -> None:
        """Takes no more writes, because of `reason`."""
        if self._failure is None:
            self._failure = reason

    @contextmanager
    def translated(self, doing: str) -> Iterator[None]:
        """Turns OSError into the error that says what the user can do.

        Raises:
            StorageFullError: the disk, the quota or the process's file size limit is reached.
            ReadOnlyError: no permission, or media that take no writes.
            InternalError: anything else the system refused.
        """
        try:
            yield
        except GeostoreError:
            raise
        except OSError as error:
            text = f"{doing}: {error.strerror or error}"
            if error.errno in FULL:
                raise StorageFullError(
                    f"{text}; free some space and run it again (what was stored is intact)"
                ) from error
            if error.errno in FORBIDDEN:
                raise ReadOnlyError(f"{text}; the store can be read but not written") from error
            raise InternalError(f"{text} (errno {error.errno})") from error

    def _sync(self, descriptor: int, path: Path, what: str) -> None:
        try:
            self.step(f"{what}.fsync")
            with REGISTRY.timed(NODE_FSYNC_SECONDS):
                os.fsync(descriptor)
        except OSError as error:
            # A full disk found only now (network and copy-on-write file systems) loses
            # nothing that was acknowledged: the file is not in its place yet.
            if error.errno not in FULL:
                self.fail(f"fsync of {path} failed: {error.strerror or error}")
                self.require_writable()
            raise
        self.step(f"{what}.fsynced")

    def write_new(self, path: Path, data: bytes, what: str) -> None:
        """Writes and syncs a file that nobody reads yet (in `tmp/`)."""
        self.step(f"{what}.write")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            view = memoryview(data)
            while view:  # a signal or a nearly full disk may cut a write short
                view = view[os.write(descriptor, view) :]
            self.step(f"{what}.written")
            self._sync(descriptor, path, what)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path, what: str) -> None:
        """Puts a file or directory in its place; durable once the directory is synced."""
        self.step(f"{what}.rename")
        source.replace(target)
        self.step(f"{what}.renamed")

    def make_directories(self, path: Path, top: Path) -> list[Path]:
        """Makes `path` below the existing `top`; returns the directories whose entries changed."""
        missing: list[Path] = []
        while path != top and not path.is_dir():
            missing.append(path)
            path = path.parent
        for directory in reversed(missing):
            directory.mkdir(exist_ok=True)
        return [directory.parent for directory in missing]

    def sync_directories(self, directories: Iterable[Path], what: str) -> None:
        """Makes the entries of `directories` durable, each synced once."""
        for directory in sorted(set(directories)):
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._sync(descriptor, directory, what)
            finally:
                os.close(descriptor)

    def replace_file(self, path: Path, data: bytes, temporary: Path, what: str) -> None:
        """Writes `path` whole, or leaves it as it was."""
        self.write_new(temporary, data, what)
        self.rename(temporary, path, what)
        self.sync_directories([path.parent], what)

    def remove(self, path: Path, what: str) -> bool:
        """Unlinks a file; False where there is none."""
        self.step(f"{what}.unlink")
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        self.step(f"{what}.unlinked")
        return True

    def clear_matching(self, directory: Path, pattern: str, what: str) -> None:
        """Removes the entries of `directory` that match a glob pattern, with what is in them.

        Best effort: these are leavings in `tmp/`, and the next writer tries again.
        """
        for entry in list(directory.glob(pattern)):
            self.step(f"{what}.clear")
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                with suppress(OSError):
                    entry.unlink()
