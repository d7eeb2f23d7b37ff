"""Disks for the catalog's log that fail, write short, fill up, or lose power at any call."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from geostore.index.log import LogDisk

PAGE = 4096
SECTOR = 512


class CrashError(BaseException):
    """The process is no more."""


class QuickDisk(LogDisk):
    """Counts syncs and does none: what the system shows is what the test looks at."""

    def sync(self, descriptor: int) -> None:
        self.syncs += 1

    def sync_data(self, descriptor: int) -> None:
        self.syncs += 1


class ReadOnlyDisk(LogDisk):
    """Media that take no writes: any attempt is a failure of the test."""

    def open(self, name: str, flags: int, dir_fd: int | None = None) -> int:
        assert flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) == 0, name
        return super().open(name, flags, dir_fd)

    def _refuse(self, *_arguments: object) -> None:
        raise AssertionError("written to")

    pwritev = reserve = truncate = sync = sync_data = _refuse  # type: ignore[assignment]
    rename = unlink = make_directory = _refuse  # type: ignore[assignment]


class FaultyDisk(QuickDisk):
    """Raises what `faults` says before a call: by the method's name, one error a call."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: dict[str, list[int]] = {}
        self.room: int | None = None
        """Bytes until the disk is full."""
        self.most: int | None = None
        """Bytes that a call writes at most."""
        self.calls: list[str] = []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.faults.get(name):
            number = self.faults[name].pop(0)
            if number:
                raise OSError(number, os.strerror(number))

    def pwritev(self, descriptor: int, parts: Sequence[bytes | memoryview], offset: int) -> int:
        self._call("pwritev")
        data = b"".join(parts)
        if self.most is not None:
            data = data[: self.most]
        if self.room is not None:
            if not self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            data = data[: self.room]
            self.room -= len(data)
        return os.pwrite(descriptor, data, offset)

    def reserve(self, descriptor: int, offset: int, length: int) -> None:
        self._call("reserve")
        if self.room is not None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().reserve(descriptor, offset, length)

    def truncate(self, descriptor: int, length: int) -> None:
        self._call("truncate")
        super().truncate(descriptor, length)

    def sync(self, descriptor: int) -> None:
        self._call("sync")
        super().sync(descriptor)

    def sync_data(self, descriptor: int) -> None:
        self._call("sync_data")
        super().sync_data(descriptor)

    def rename(self, old: str, new: str, dir_fd: int) -> None:
        self._call("rename")
        super().rename(old, new, dir_fd)

    def unlink(self, name: str, dir_fd: int) -> None:
        self._call("unlink")
        super().unlink(name, dir_fd)

    def open(self, name: str, flags: int, dir_fd: int | None = None) -> int:
        self._call("open")
        return super().open(name, flags, dir_fd)


# ---------------------------------------------------------------- power


@dataclass(eq=False)
class File:
    """A file's content as it would be after a loss of power, beside the real one."""

    durable: bytearray = field(default_factory=bytearray)
    dirty: set[int] = field(default_factory=set)
    """Pages that differ from `durable` and that the system knows to differ."""

    def after_power_loss(self, shown: bytes, rng: random.Random, *, is_head: bool) -> bytes:
        """Any of the dirty pages may have reached the disk, whole or in part."""
        if not self.dirty and len(shown) == len(self.durable):
            return bytes(self.durable)
        length = rng.choice([len(self.durable), len(shown), len(shown)])
        if length < len(shown):
            length = rng.randrange(min(length, len(shown)), max(length, len(shown)) + 1)
        old = bytes(self.durable).ljust(length, b"\0")[:length]
        new = bytearray(old)
        how = rng.choice(["all", "none", "pages", "pages", "pages", "prefix"])
        prefix = rng.randrange(length + 1)
        for page in sorted(self.dirty):
            for start in range(page * PAGE, min((page + 1) * PAGE, length), SECTOR):
                end = min(start + SECTOR, length)
                fresh = shown[start:end].ljust(end - start, b"\0")
                if how == "prefix":
                    choice = "new" if end <= prefix or is_head else "old"
                elif how == "pages":
                    # A drive writes a sector whole or not at all.
                    choices = ["old", "new", "new"]
                    choice = rng.choice(choices if is_head else [*choices, "zero", "garbage"])
                else:
                    choice = "new" if how == "all" else "old"
                new[start:end] = self._sector(choice, old[start:end], fresh, rng)
        return bytes(new)

    @staticmethod
    def _sector(choice: str, old: bytes, fresh: bytes, rng: random.Random) -> bytes:
        if choice in {"old", "new"}:
            return old if choice == "old" else fresh
        garbage = rng.randbytes(len(old)) if choice == "garbage" else bytes(len(old))
        # What was synced stays: its bytes are the same before and after.
        return bytes(a if a == b else c for a, b, c in zip(old, fresh, garbage, strict=True))


class World:
    """One directory of files, through crashes of processes and losses of power."""

    def __init__(self, directory: Path, rng: random.Random) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.rng = rng
        self.boot = 1
        self.files: dict[str, File] = {}
        self._durable_names: dict[str, File] = {}
        self._pending: list[dict[str, File]] = []
        """The directory after each change that was not synced."""

    def changed(self) -> None:
        """A name came, went or moved."""
        self._pending.append(dict(self.files))

    def directory_synced(self) -> None:
        self._durable_names = dict(self.files)
        self._pending.clear()

    def lose_power(self) -> None:
        """What is on the disk then is what there is; dirty pages anyhow, names in order."""
        states = [self._durable_names, *self._pending]
        names = states[self.rng.randrange(len(states))]
        shown = {
            id(file): (self.directory / name).read_bytes() for name, file in self.files.items()
        }
        found: dict[str, File] = {}
        for name, file in names.items():
            last = shown.get(id(file), bytes(file.durable))
            data = file.after_power_loss(last, self.rng, is_head=name == "head")
            found[name] = File(bytearray(data))
        for path in list(self.directory.iterdir()):
            path.unlink()
        for name, file in found.items():
            (self.directory / name).write_bytes(file.durable)
        self.files = found
        self.directory_synced()
        self.boot += 1


class CrashDisk(LogDisk):
    """The system calls of one process in a `World`; `crash_at` is the call it dies in."""

    def __init__(self, world: World, *, crash_at: int | None = None) -> None:
        super().__init__()
        self.world = world
        self.crash_at = crash_at
        self.calls = 0
        self.fail_sync = False
        """The next sync fails, and the system forgets what it could not write."""
        self.room: int | None = None
        self._open: dict[int, File | None] = {}

    def _do(self, action: Callable[[], None]) -> None:
        """Dies before or after `action` if it is its turn."""
        self.calls += 1
        if self.crash_at is None or self.calls < self.crash_at:
            action()
            return
        if self.calls == self.crash_at and self.world.rng.random() < 0.5:
            action()
        raise CrashError

    def die(self) -> None:
        """The system closes what a dead process had open."""
        self.crash_at = 0
        for descriptor in self._open:
            os.close(descriptor)
        self._open.clear()

    def open(self, name: str, flags: int, dir_fd: int | None = None) -> int:
        opened: list[int] = []

        def action() -> None:
            is_new = dir_fd is not None and name not in self.world.files
            descriptor = LogDisk.open(self, name, flags, dir_fd)
            opened.append(descriptor)
            if dir_fd is None:
                self._open[descriptor] = None
                return
            if is_new:
                self.world.files[name] = File()
                self.world.changed()
            self._open[descriptor] = self.world.files[name]
            if flags & os.O_TRUNC:
                self.world.files[name].dirty.clear()

        self._do(action)
        return opened[0]

    def close(self, descriptor: int) -> None:
        if self._open.pop(descriptor, "") != "":
            os.close(descriptor)

    def pread(self, descriptor: int, length: int, offset: int) -> bytes:
        if self.crash_at == 0:
            raise CrashError
        return super().pread(descriptor, length, offset)

    def _file(self, descriptor: int) -> File:
        file = self._open[descriptor]
        assert file is not None
        return file

    def pwritev(self, descriptor: int, parts: Sequence[bytes | memoryview], offset: int) -> int:
        data = b"".join(parts)
        rng = self.world.rng
        if rng.random() < 0.1 and len(data) > 192:
            data = data[: rng.randrange(1, len(data) + 1)]
        if self.room is not None:
            if not self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            data = data[: self.room]
            self.room -= len(data)
        if self.calls + 1 == self.crash_at:
            data = data[: rng.randrange(len(data) + 1)]

        def action() -> None:
            os.pwrite(descriptor, data, offset)
            pages = range(offset // PAGE, (offset + len(data) + PAGE - 1) // PAGE)
            self._file(descriptor).dirty.update(pages)

        self._do(action)
        return len(data)

    def reserve(self, descriptor: int, offset: int, length: int) -> None:
        if self.room is not None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._do(lambda: LogDisk.reserve(self, descriptor, offset, length))

    def truncate(self, descriptor: int, length: int) -> None:
        def action() -> None:
            os.ftruncate(descriptor, length)
            if length % PAGE:
                self._file(descriptor).dirty.add(length // PAGE)

        self._do(action)

    def sync_data(self, descriptor: int) -> None:
        self._do(lambda: self._sync(descriptor))

    def sync(self, descriptor: int) -> None:
        self._do(lambda: self._sync(descriptor))

    def _sync(self, descriptor: int) -> None:
        self.syncs += 1
        file = self._open[descriptor]
        if file is None:
            if not self.fail_sync:
                self.world.directory_synced()
        else:
            shown = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
            if not self.fail_sync:
                self._flush(file, shown)
            file.dirty.clear()
        if self.fail_sync:
            self.fail_sync = False
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    @staticmethod
    def _flush(file: File, shown: bytes) -> None:
        length = len(shown)
        del file.durable[length:]
        file.durable.extend(bytes(length - len(file.durable)))
        for page in file.dirty:
            part = shown[page * PAGE : (page + 1) * PAGE]
            file.durable[page * PAGE : page * PAGE + len(part)] = part

    def rename(self, old: str, new: str, dir_fd: int) -> None:
        def action() -> None:
            LogDisk.rename(self, old, new, dir_fd)
            self.world.files[new] = self.world.files.pop(old)
            self.world.changed()

        self._do(action)

    def unlink(self, name: str, dir_fd: int) -> None:
        def action() -> None:
            LogDisk.unlink(self, name, dir_fd)
            del self.world.files[name]
            self.world.changed()

        self._do(action)

    def boot_id(self) -> bytes:
        return self.world.boot.to_bytes(16, "big")
