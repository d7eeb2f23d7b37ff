"""A bounded directory of fetched objects, shared by any number of threads and processes.

Every state of every object has a directory of its own, named by the SHA-256 of its address and
of what tells its state (so a changed object never replaces one that somebody reads):

    objects-1/3f/3fa9…/lock             held shared while read, exclusively while fetched
    objects-1/3f/3fa9…/B04.tif          the object under its own name, once it is whole
    objects-1/3f/3fa9…/B04.tif.part     on its way, with B04.tif.journal beside it

Locks are flock's, so they end with their process however it ends. The lock's time says when an
object was last used; the least recently used one that nobody holds goes first. The bound is on
what is kept: what a scene under way needs is fetched in any case, if the disk has room.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from geostore.errors import StorageFullError, UnavailableError, UnreadableSourceError
from geostore.scenes.remote_download import (
    PIECE_BYTES,
    Download,
    GivenUpError,
    disk_errors,
    fetch_whole,
)
from geostore.scenes.remote_store import (
    ChangedError,
    Piece,
    RangesRefusedError,
    RemoteStore,
    Validators,
)
from geostore.scenes.remote_url import RemoteUrl

__all__ = ["CACHE_BYTES_DEFAULT", "Held", "RemoteCache", "Turn"]

CACHE_BYTES_DEFAULT = 20 << 30
OBJECT_BYTES_MAX = 1 << 36
"""64 GiB, as of an archive's member: the largest rasters in use are a few GiB."""
DISK_RESERVE_BYTES = 64 << 20
"""Left free for others."""
REQUESTS_MAX = 8
"""At once, of all objects."""
_PROBE_BYTES = 64 << 10
"""Asked first, to learn an object's state: small objects are whole by then."""
_POLL_S = 0.05
_ROOM_POLL_S = 1.0
_SUM_TIMEOUT_S = 600.0
_CHANGES_MAX = 3
_LOCK = "lock"
_OVERHEAD_BYTES = 8 << 10
"""Counted for every object beside its own bytes: directory and lock."""


class Turn:
    """Whether somebody waits for a source now, or it is fetched ahead of its turn.

    What is fetched ahead waits for room; what is due does not.
    """

    def __init__(self, *, is_due: bool = True) -> None:
        self._changed = threading.Condition()
        self._is_due = is_due
        self._is_over = False

    @property
    def is_due(self) -> bool:
        return self._is_due

    @property
    def is_wanted(self) -> bool:
        return not self._is_over

    def come(self) -> None:
        """Somebody waits for it now."""
        with self._changed:
            self._is_due = True
            self._changed.notify_all()

    def give_up(self) -> None:
        """Nobody will ever ask for it."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> None:
        """Until it is due or given up, or that long."""
        with self._changed:
            if not (self._is_due or self._is_over):
                self._changed.wait(timeout_s)


@dataclass
class Held:
    """A fetched object, kept where it is until it is let go."""

    path: Path
    _lock: int | None
    _then: Callable[[], None] | None = None

    def close(self) -> None:
        """Let go; calling twice is harmless."""
        lock, self._lock = self._lock, None
        if lock is not None:
            with suppress(OSError):
                os.utime(lock)
            os.close(lock)
            if self._then is not None:
                self._then()


@dataclass(kw_only=True)
class RemoteCache:
    """Fetches objects and keeps them. Thread-safe; close it at the end.

    Args:
        directory: made when it is first needed; others' files in it are not touched.
        bytes_max: how much to keep.
        disk_free: bytes that the disk under a directory has left.
    """

    directory: Path
    store: RemoteStore
    bytes_max: int = CACHE_BYTES_DEFAULT
    piece_bytes: int = PIECE_BYTES
    disk_free: Callable[[Path], int] = lambda directory: shutil.disk_usage(directory).free
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.time
    _room: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _pool: ThreadPoolExecutor | None = field(default=None, repr=False)

    @property
    def objects(self) -> Path:
        return self.directory / "objects-1"

    def close(self) -> None:
        """Stop fetching. What is held stays until it is let go."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(cancel_futures=True)

    def fetch(self, url: RemoteUrl, turn: Turn | None = None) -> Held:
        """The object as a local file of its own name, fetched unless it is there unchanged.

        Raises:
            NotFoundError, UnreadableSourceError, UnavailableError: see `RemoteStore.read`.
            StorageFullError: the disk has no room for it, or the cache cannot be written.
            GivenUpError: the turn was given up.
        """
        if not url.name:
            raise UnreadableSourceError(f"{url.shown}: the address of a folder; expected a file's")
        turn = turn or Turn()
        for tries_left in reversed(range(_CHANGES_MAX)):
            try:
                return self._fetch(url, turn)
            except ChangedError as error:
                if not tries_left:
                    raise UnavailableError(
                        f"{error} ({_CHANGES_MAX} times); expected one that rests"
                    ) from None
        raise AssertionError("the last try raises or returns")

    def _fetch(self, url: RemoteUrl, turn: Turn) -> Held:
        try:
            probe = self.store.read(url, 0, _PROBE_BYTES, is_wanted=lambda: turn.is_wanted)
        except RangesRefusedError:
            return self._fetch_whole(url, turn)
        except UnreadableSourceError as error:
            # No byte 0 to ask for: 416, an object of no bytes.
            if "HTTP 416" not in str(error):
                raise
            of = self.store.is_empty(url)
            if of is None:
                raise
            probe = Piece(data=b"", of=of)
        self._check_size(url, probe.of.size)
        entry = self._entry(url, probe.of)
        target = entry / url.name
        lock = self._shared(entry, target, probe.of.size, turn)
        if lock is None:
            self._await_room(url, entry, probe.of.size, turn)
            lock = self._fetched(url, entry, probe, turn)
        return self._held(target, lock, is_single_use=not probe.of.can_tell)

    def _held(self, target: Path, lock: int, *, is_single_use: bool) -> Held:
        def let_go() -> None:
            if is_single_use:
                self._remove(target.parent)
            with self._all_room() as room:
                self._fits(room, 0)

        return Held(target, lock, let_go)

    def _fetched(self, url: RemoteUrl, entry: Path, probe: Piece, turn: Turn) -> int:
        """A shared lock on the object, which we or somebody else has fetched meanwhile.

        Who fetches it is waited for, who reads it then is not: that may be a scene of this
        very ingest, whose turn comes after ours.
        """
        target = entry / url.name
        while True:
            lock = self._alone(entry)
            if lock is not None:
                break
            lock = self._shared(entry, target, probe.of.size, turn)
            if lock is not None:
                return lock
            self._pause(turn, entry)
        try:
            if not _is_whole(target, probe.of.size):
                self._download(url, probe, target, turn)
            _lower(lock, entry, url)
        except BaseException:
            os.close(lock)
            raise
        return lock

    def _download(self, url: RemoteUrl, probe: Piece, target: Path, turn: Turn) -> None:
        download = Download(
            store=self.store,
            url=url,
            of=probe.of,
            first=probe.data,
            target=target,
            executor=self._executor(),
            is_wanted=lambda: turn.is_wanted,
            piece_bytes=self.piece_bytes,
        )
        self._take_room(url, target, probe.of.size, download.bytes_there())
        download.run()

    def _fetch_whole(self, url: RemoteUrl, turn: Turn) -> Held:
        """From a server that sends no parts: never found again, since its state is not asked."""
        entry = self._entry(url, None)
        target = entry / url.name

        def admit(size: int) -> None:
            self._check_size(url, size)
            self._take_room(url, target, size, 0)

        while (lock := self._alone(entry)) is None:  # its name is random: an evictor looks at it
            self._pause(turn, entry)
        try:
            fetch_whole(self.store, url, target, admit=admit, is_wanted=lambda: turn.is_wanted)
            _lower(lock, entry, url)
        except BaseException:
            os.close(lock)
            self._remove(entry)
            raise
        return self._held(target, lock, is_single_use=True)

    def _executor(self) -> ThreadPoolExecutor:
        with self._room:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(REQUESTS_MAX, thread_name_prefix="geostore-fetch")
            return self._pool

    def _check_size(self, url: RemoteUrl, size: int) -> None:
        if size > OBJECT_BYTES_MAX:
            raise UnreadableSourceError(
                f"{url.shown}: {size} bytes; expected at most {OBJECT_BYTES_MAX}"
            )

    # ------------------------------------------------------------ entries and locks

    def _entry(self, url: RemoteUrl, of: Validators | None) -> Path:
        if of is not None and of.can_tell:
            state = f"{of.size} {of.e_tag or ''} {of.modified_us or ''}"
        else:
            state = secrets.token_hex(16)
        name = hashlib.sha256(f"{url.identity}\n{state}".encode()).hexdigest()
        return self.objects / name[:2] / name

    def _open_lock(self, entry: Path) -> int:
        with disk_errors(str(entry), self.directory):
            for _ in range(100):
                entry.mkdir(parents=True, exist_ok=True, mode=0o700)
                with suppress(FileNotFoundError):  # another process has just removed the entry
                    return os.open(entry / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        raise UnavailableError(f"cache {entry}: removed again and again by another process")

    def _shared(self, entry: Path, target: Path, size: int, turn: Turn) -> int | None:
        """A shared lock on a whole object; None where it is not there."""
        while _is_whole(target, size):
            lock = self._open_lock(entry)
            if _locked(lock, entry, fcntl.LOCK_SH):
                if _is_whole(target, size):
                    os.utime(lock)
                    return lock
                os.close(lock)
                return None
            os.close(lock)
            self._pause(turn, entry)
        return None

    def _alone(self, entry: Path) -> int | None:
        """The entry for ourselves; None where somebody fetches or reads the same object."""
        lock = self._open_lock(entry)
        if _locked(lock, entry, fcntl.LOCK_EX):
            return lock
        os.close(lock)
        return None

    def _pause(self, turn: Turn, entry: Path) -> None:
        if not turn.is_wanted:
            raise GivenUpError(f"cache {entry}: given up")
        self.sleep(_POLL_S)

    def _remove(self, entry: Path) -> bool:
        """Remove an entry that nobody holds; False where somebody does."""
        try:
            lock = os.open(entry / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            with suppress(OSError):
                entry.rmdir()
            return False
        try:
            if not _locked(lock, entry, fcntl.LOCK_EX):
                return False
            for file in entry.iterdir():
                if file.name != _LOCK:
                    file.unlink(missing_ok=True)
            (entry / _LOCK).unlink()
            entry.rmdir()
        except OSError:
            return False
        finally:
            os.close(lock)
        return True

    # ------------------------------------------------------------ room

    def _await_room(self, url: RemoteUrl, entry: Path, size: int, turn: Turn) -> None:
        """Until the object fits the bound, or is due: then it must come in any case.

        No lock is held meanwhile, since a source whose turn it is may want the same object.
        """
        while not turn.is_due:
            with self._all_room() as room:
                if self._fits(room, size + _OVERHEAD_BYTES, but=entry):
                    return
            turn.wait(_ROOM_POLL_S)
            if not turn.is_wanted:
                raise GivenUpError(f"{url.shown}: the download was given up")

    def _take_room(self, url: RemoteUrl, target: Path, size: int, there: int) -> None:
        """Room for `size` bytes, of which `there` are there: held by a sparse file.

        Raises:
            StorageFullError: the disk has too little, whatever the bound.
        """
        with self._all_room() as room:
            if not self._fits(room, size + _OVERHEAD_BYTES, but=target.parent):
                _note_sum(room, self.bytes_max + 1, self.now())  # whoever lets go looks again
            free = self.disk_free(self.directory)
            if size - there + DISK_RESERVE_BYTES > free:
                raise StorageFullError(
                    f"{url.shown}: {size} bytes, and the disk under the cache {self.directory}"
                    f" has {free} left; make room, or name another with --cache"
                )
            part = target.with_name(f"{target.name}.part")
            with disk_errors(url.shown, self.directory), part.open("ab") as file:
                file.truncate(size)

    @contextmanager
    def _all_room(self) -> Iterator[int]:
        """The file that notes how much is kept, for this thread and process alone."""
        with self._room:
            with disk_errors(str(self.directory), self.directory):
                self.objects.mkdir(parents=True, exist_ok=True, mode=0o700)
                file = os.open(self.objects / "room", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield file
            finally:
                os.close(file)

    def _fits(self, room: int, more: int, *, but: Path | None = None) -> bool:
        """Whether `more` bytes fit the bound, after what nobody holds has gone for them.

        They count as taken then. Entries are looked at only where the noted sum is too large,
        or so old that a process that was killed may have left it wrong.
        """
        now_s = self.now()
        noted = _noted_sum(room)
        is_fresh = noted is not None and 0 <= now_s - noted[1] < _SUM_TIMEOUT_S
        if noted is not None and is_fresh and noted[0] + more <= self.bytes_max:
            _note_sum(room, noted[0] + more, noted[1])
            return True
        entries = [one for one in _entries(self.objects) if one.path != but]
        total = sum(one.bytes for one in entries) + more
        for one in sorted(entries, key=lambda one: one.used_ns):
            if total <= self.bytes_max:
                break
            if self._remove(one.path):
                total -= one.bytes
        fits = total <= self.bytes_max
        _note_sum(room, total if fits else total - more, now_s)
        return fits

    def bytes_kept(self) -> int:
        """What all objects take, finished or not."""
        return sum(one.bytes for one in _entries(self.objects))


def _noted_sum(room: int) -> tuple[int, float] | None:
    """Bytes kept and when they were counted, as the file says; None where it says nothing."""
    try:
        total, _, counted_s = os.pread(room, 64, 0).decode().strip().partition(" ")
        return int(total), float(counted_s)
    except ValueError:
        return None


def _note_sum(room: int, total: int, counted_s: float) -> None:
    os.pwrite(room, f"{total} {counted_s:.3f}".ljust(63).encode() + b"\n", 0)


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    bytes: int
    used_ns: int


def _entries(objects: Path) -> Iterator[_Entry]:
    for entry in objects.glob("[0-9a-f][0-9a-f]/*"):
        size, used_ns = _OVERHEAD_BYTES, 0
        with suppress(OSError):  # it may go while it is looked at
            with os.scandir(entry) as files:
                for file in files:
                    about = file.stat(follow_symlinks=False)
                    size += about.st_size
                    used_ns = max(used_ns, about.st_mtime_ns if file.name == _LOCK else 0)
            yield _Entry(entry, size, used_ns)


def _is_whole(target: Path, size: int) -> bool:
    try:
        return target.stat().st_size == size
    except OSError:
        return False


def _locked(lock: int, entry: Path, kind: int) -> bool:
    """Whether the lock could be taken, and is still the entry's: not removed meanwhile."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return _is_lock_of(lock, entry)


def _is_lock_of(lock: int, entry: Path) -> bool:
    try:
        held, there = os.fstat(lock), (entry / _LOCK).stat()
    except OSError:
        return False
    return (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino)


def _lower(lock: int, entry: Path, url: RemoteUrl) -> None:
    """From exclusive to shared. flock lets go in between, when an evictor may be first.

    Raises:
        ChangedError: the entry has gone.
    """
    fcntl.flock(lock, fcntl.LOCK_SH)
    if not _is_lock_of(lock, entry):
        raise ChangedError(f"{url.shown}: removed from the cache while it was fetched")
