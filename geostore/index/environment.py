"""The one LMDB file of a catalog, as this process holds it.

LMDB's own rules are kept here so that nobody else needs to know them:

- One environment a file and process: `Environment.share` hands out one by directory.
- An environment must not cross a fork: all are closed just before one and reopened, in
  parent and child, at the next use. That is why no transaction outlives a call.
- Growing the map moves it: that waits until no transaction of this process is open.
- A reader that died keeps its slot, and with it old pages: slots are checked at each open
  and when they run out.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import lmdb

from geostore.errors import (
    CorruptDataError,
    GeostoreError,
    InternalError,
    InvalidInputError,
    ReadOnlyError,
    StorageFullError,
    StoreFormatError,
    UnavailableError,
)

if TYPE_CHECKING:
    from lmdb import _Database

__all__ = ["FORMAT_VERSION", "Databases", "Environment", "Transaction"]

logger = logging.getLogger(__name__)

Transaction = lmdb.Transaction
Result = TypeVar("Result")

FORMAT_NAME = "geostore catalog"
FORMAT_VERSION = 1
FORMAT_KEY = b"format"

DATA_FILE = "data.mdb"
MAP_BYTES_MIN = 1 << 30
"""Address space, not disk or memory: the file is as long as its content."""
GROW_ATTEMPTS_MAX = 16
READERS_MAX = 1024
DATABASES_MAX = 32
PROBE_BYTES = 1 << 20
SHORTFALL_PAGES_MAX = 64
"""Pages that LMDB may have allocated at the file's end and never written."""

SHARED = ("meta", "records", "schemas", "removed")
GENERATIONAL = ("rows", "details", "published", "staged", "groups", "properties")
"""Databases of which there are two: one is served while a rebuild fills the other."""


class Databases:
    """The open databases: `db["records"]`, and `db["rows", generation]`."""

    def __init__(self, handles: dict[str, _Database]) -> None:
        self._handles = handles

    def __getitem__(self, name: str | tuple[str, int]) -> _Database:
        if isinstance(name, tuple):
            base, generation = name
            return self._handles[f"{base}{generation & 1}"]
        return self._handles[name]

    def clear(self, txn: Transaction[bytes], generation: int) -> None:
        """Empties the databases of one generation."""
        for name in GENERATIONAL:
            txn.drop(self[name, generation], delete=False)


Operation = Callable[["Transaction[bytes]", Databases], Result]
"""Runs in a transaction, possibly twice: it changes nothing else."""

_registry: dict[str, Environment] = {}
_registry_lock = threading.RLock()
_everyone: weakref.WeakSet[Environment] = weakref.WeakSet()


def _database_names() -> list[str]:
    return [*SHARED, *(f"{name}{side}" for name in GENERATIONAL for side in (0, 1))]


class Environment:
    """One open LMDB environment, shared by all catalogs of its directory in this process.

    Every use is a call of `read` or `write`; between calls the file may be closed and
    opened again (fork) or its map moved (growth).
    """

    def __init__(self, directory: Path, *, writable: bool, map_bytes: int | None = None) -> None:
        self.directory = directory
        self._map_bytes_min = map_bytes or MAP_BYTES_MIN
        self._users = 0
        self._failure: str | None = None
        # Writers queue here, outside LMDB's own mutex, which a fork could leave locked.
        self.write_lock = threading.RLock()
        # For `attachment`, what the catalogs of this directory keep in memory together.
        # Taken before the gate.
        self.memory_lock = threading.RLock()
        self.attachment: object | None = None
        self._gate = threading.Condition(threading.RLock())
        self._transactions = 0
        self._exclusive = 0
        self._lmdb: lmdb.Environment | None = None
        self._databases: Databases | None = None
        self.identity: tuple[int, int] = (0, 0)
        self._is_writable = writable
        with _translated(self):
            self._open(create=writable)
        _everyone.add(self)

    # ------------------------------------------------------------ sharing

    @classmethod
    def share(cls, directory: Path, *, writable: bool, map_bytes: int | None = None) -> Environment:
        """The process's environment of a directory, opened at the first call.

        `writable` makes the file where there is none, and makes an environment writable that
        was opened for reading only.

        Raises:
            StoreFormatError: there is no catalog (and not `writable`), it is of a newer
                format, or its file is something else.
            CorruptDataError: the file is damaged.
            ReadOnlyError: no permission.
        """
        name = os.path.realpath(directory)
        with _registry_lock:
            environment = _registry.get(name)
            if environment is None or not environment.is_current():
                # A directory that was deleted and made again has its own new environment;
                # holders of the old one keep theirs.
                environment = cls(Path(name), writable=writable, map_bytes=map_bytes)
                _registry[name] = environment
            elif writable:
                environment._make_writable()
            environment._users += 1
            return environment

    def _make_writable(self) -> None:
        with self.write_lock, self.alone():
            if self._is_writable:
                return
            self._close()
            self._is_writable = True
            try:
                with _translated(self):
                    self._open(create=False)
            except BaseException:
                self._is_writable = False  # the next reader opens it as it was
                raise

    def release(self) -> None:
        """Undoes one `share`; the last one closes the file."""
        with _registry_lock:
            self._users -= 1
            if self._users > 0:
                return
            if _registry.get(str(self.directory)) is self:
                del _registry[str(self.directory)]
            with self.alone():
                self._close()

    def is_current(self) -> bool:
        """Whether the directory still holds the file that was opened."""
        try:
            found = (self.directory / DATA_FILE).stat()
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self.identity

    # ------------------------------------------------------------ opening

    def _open(self, *, create: bool) -> None:
        path = self.directory / DATA_FILE
        fresh = not path.exists() or path.stat().st_size == 0
        if fresh and not create:
            raise StoreFormatError(f"{self.directory}: no catalog here ({DATA_FILE} is missing)")
        if fresh:
            self.directory.mkdir(parents=True, exist_ok=True)
        size = 0 if fresh else path.stat().st_size
        map_bytes = self._map_bytes_min
        while map_bytes < 2 * size:
            map_bytes *= 2
        environment = lmdb.open(
            str(self.directory),
            map_size=map_bytes,
            max_dbs=DATABASES_MAX,
            max_readers=READERS_MAX,
            readonly=not self._is_writable,
            create=create,
            readahead=False,
        )
        try:
            self._check_size(environment, path)
            environment.reader_check()
            self._databases = self._open_databases(environment, fresh=fresh, create=create)
        except BaseException:
            environment.close()
            raise
        if fresh:
            for directory in (self.directory, self.directory.parent):
                _fsync_directory(directory)
        found = path.stat()
        self.identity = (found.st_dev, found.st_ino)
        self._lmdb = environment

    def _check_size(self, environment: lmdb.Environment, path: Path) -> None:
        """A file that ends before its last page would kill the process (SIGBUS) when read."""
        page_bytes = environment.stat()["psize"]
        pages = environment.info()["last_pgno"] + 1
        size = path.stat().st_size
        present = size // page_bytes
        if present >= pages:
            return
        if present + SHORTFALL_PAGES_MAX < pages:
            raise CorruptDataError(
                f"{path}: {present} pages, expected {pages}: the file was cut short;"
                " rebuild the catalog from the tile files"
            )
        # Pages that LMDB never wrote, or a cut: zeros there are recognised as no page.
        # fallocate only ever lengthens a file, so a writer beside us is not in danger.
        with suppress(OSError):
            _lengthen(path, pages * page_bytes - size)

    def _open_databases(
        self, environment: lmdb.Environment, *, fresh: bool, create: bool
    ) -> Databases:
        names = _database_names()
        meta = None
        if not self._is_writable:
            with suppress(lmdb.NotFoundError, lmdb.IncompatibleError):
                meta = environment.open_db(b"meta", create=False)
            with environment.begin() as reading:
                self._check_format(reading, meta)
            return Databases(
                {name: environment.open_db(name.encode(), create=False) for name in names}
            )
        # py-lmdb keeps the handles of a writing transaction only; one that writes nothing
        # does not touch the disk.
        txn = environment.begin(write=True)
        try:
            # A crash between the file's creation and its first commit leaves it empty.
            fresh = fresh or (create and txn.stat()["entries"] == 0)
            if fresh:
                text = json.dumps({"name": FORMAT_NAME, "version": FORMAT_VERSION})
                txn.put(FORMAT_KEY, text.encode(), db=environment.open_db(b"meta", txn=txn))
            with suppress(lmdb.NotFoundError, lmdb.IncompatibleError):
                meta = environment.open_db(b"meta", txn=txn, create=False)
            self._check_format(txn, meta)
            handles = {
                name: environment.open_db(name.encode(), txn=txn, create=fresh) for name in names
            }
            txn.commit()
        except BaseException:
            txn.abort()
            raise
        return Databases(handles)

    def _check_format(self, txn: Transaction[bytes], meta: _Database | None) -> None:
        text = None if meta is None else txn.get(FORMAT_KEY, db=meta)
        if text is None:
            raise StoreFormatError(
                f"{self.directory}: an LMDB file, but no geostore catalog (no format entry)"
            )
        try:
            found = json.loads(text)
            name, version = found["name"], int(found["version"])
        except (ValueError, TypeError, KeyError):
            raise CorruptDataError(
                f"{self.directory}: the catalog's format entry does not read: {text[:80]!r}"
            ) from None
        if name != FORMAT_NAME or version > FORMAT_VERSION:
            raise StoreFormatError(
                f"{self.directory}: format {name!r} version {version}; this geostore reads"
                f" {FORMAT_NAME!r} up to version {FORMAT_VERSION}: install a newer geostore"
            )

    def _close(self) -> None:
        if self._lmdb is not None:
            self._lmdb.close()
        self._lmdb = self._databases = None

    def _opened(self) -> tuple[lmdb.Environment, Databases]:
        """Caller holds the gate."""
        if self._lmdb is None:
            if self._users <= 0:
                raise InvalidInputError(f"catalog {self.directory}: used after close()")
            if not self.is_current():
                raise UnavailableError(
                    f"catalog {self.directory}: another was put in its place; open the store again"
                )
            self._open(create=False)
        assert self._lmdb is not None
        assert self._databases is not None
        return self._lmdb, self._databases

    # ------------------------------------------------------------ the gate

    @contextmanager
    def _passing(self) -> Iterator[tuple[lmdb.Environment, Databases]]:
        """Held around every transaction: the map stays where it is meanwhile."""
        with self._gate:
            while self._exclusive:
                self._gate.wait()
            opened = self._opened()
            self._transactions += 1
        try:
            yield opened
        finally:
            with self._gate:
                self._transactions -= 1
                if not self._transactions:
                    self._gate.notify_all()

    def _enter_alone(self) -> None:
        self._gate.acquire()
        self._exclusive += 1
        while self._transactions:
            self._gate.wait()

    def _leave_alone(self) -> None:
        self._exclusive -= 1
        self._gate.notify_all()
        self._gate.release()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Held while no transaction of this process is open, and none can begin."""
        self._enter_alone()
        try:
            yield
        finally:
            self._leave_alone()

    def _set_map_bytes(self, map_bytes: int) -> None:
        with self.alone():
            self._opened()[0].set_mapsize(map_bytes)

    def hold_for_fork(self) -> None:
        """Waits for transactions to end, then closes the file.

        The locks stay held across the fork: in the child, where only the forking thread
        lives on, every lock is then free or its own, and nothing is half done.
        """
        self.write_lock.acquire()
        self.memory_lock.acquire()
        self._enter_alone()
        self._close()

    def resume_after_fork(self) -> None:
        """Undoes `hold_for_fork`; the next use opens the file again."""
        self._leave_alone()
        self.memory_lock.release()
        self.write_lock.release()

    # ------------------------------------------------------------ reading

    @contextmanager
    def read(self) -> Iterator[tuple[Transaction[bytes], Databases]]:
        """A snapshot for the length of a call. Values are copied out: nothing maps on."""
        with _translated(self):
            grown = False
            while True:
                with self._passing() as (environment, databases):
                    try:
                        txn = self._begin(environment)
                    except lmdb.MapResizedError:
                        if grown:
                            raise
                        grown = True
                    else:
                        try:
                            yield txn, databases
                        finally:
                            txn.abort()
                        return
                self._set_map_bytes(0)  # adopt what another process grew

    @staticmethod
    def _begin(environment: lmdb.Environment) -> Transaction[bytes]:
        try:
            return environment.begin()
        except lmdb.ReadersFullError:
            environment.reader_check()
            return environment.begin()

    # ------------------------------------------------------------ writing

    def write(self, operation: Operation[Result]) -> Result:
        """Runs `operation` in one durable transaction; it runs again if the map was full.

        Raises:
            ReadOnlyError: an earlier fsync failed, or this one did; nothing more is written.
            StorageFullError: the disk is full; nothing changed.
        """
        with self.write_lock, _translated(self):
            for _ in range(GROW_ATTEMPTS_MAX):
                if self._failure is not None:
                    raise ReadOnlyError(
                        f"catalog {self.directory}: read-only since a write failed"
                        f" ({self._failure}); check the disk and open the store again"
                    )
                try:
                    with self._passing() as (environment, databases):
                        return self._attempt(environment, databases, operation)
                except lmdb.MapResizedError:
                    self._set_map_bytes(0)
                except lmdb.MapFullError:
                    # The next round of the loop finds room, or is the last.
                    self._grow()
            raise InternalError(f"catalog {self.directory}: the map is full after growing")

    def _attempt(
        self,
        environment: lmdb.Environment,
        databases: Databases,
        operation: Operation[Result],
    ) -> Result:
        txn = environment.begin(write=True)
        try:
            result = operation(txn, databases)
            self._commit(txn)
        except BaseException:
            txn.abort()
            raise
        return result

    def _commit(self, txn: Transaction[bytes]) -> None:
        # One fdatasync of the data, then one synchronous write of the meta page.
        txn.commit()

    def _grow(self) -> None:
        with self.alone():
            environment = self._opened()[0]
            size = environment.info()["map_size"]
            logger.info("catalog=%s map_bytes=%d grows to=%d", self.directory, size, 2 * size)
            environment.set_mapsize(2 * size)

    def is_disk_full(self) -> bool:
        """Whether the file could not grow now.

        LMDB reports a short write, which is how a disk says that it is full, as EIO.
        """
        try:
            _lengthen(self.directory / DATA_FILE, PROBE_BYTES)
        except OSError as error:
            return error.errno in _FULL
        return False

    def fail(self, reason: str) -> None:
        """Refuses further writes: after a failed fsync the kernel may have dropped pages."""
        self._failure = reason

    def info(self) -> dict[str, int]:
        """LMDB's own figures."""
        with _translated(self), self._passing() as (environment, _):
            info = environment.info()
            return {
                "map_size": info["map_size"],
                "last_pgno": info["last_pgno"],
                "last_txnid": info["last_txnid"],
                "num_readers": info["num_readers"],
                "page_bytes": environment.stat()["psize"],
            }


def _lengthen(path: Path, byte_count: int) -> None:
    """Appends zeros, taking the room for them now."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, byte_count)
    finally:
        os.close(descriptor)


def _fsync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FAILED = {errno.EIO, errno.EROFS, errno.ENODEV, errno.ENXIO}


def _is_errno(error: lmdb.Error, numbers: set[int]) -> bool:
    # `code` came with lmdb 3; before, the message ends in the system's words.
    code = getattr(error, "code", 0)
    return code in numbers or any(os.strerror(number) in str(error) for number in numbers)


def _translate(error: lmdb.Error, environment: Environment) -> GeostoreError:
    where = f"catalog {environment.directory}"
    full = isinstance(error, lmdb.DiskError) or _is_errno(error, _FULL)
    if full or (_is_errno(error, {errno.EIO}) and environment.is_disk_full()):
        return StorageFullError(f"{where}: the disk is full ({error}); nothing was changed")
    if isinstance(error, lmdb.PanicError) or _is_errno(error, _FAILED):
        environment.fail(str(error))
        return ReadOnlyError(f"{where}: a write failed ({error}); no more will be accepted")
    if isinstance(error, (lmdb.CorruptedError, lmdb.PageNotFoundError)):
        return CorruptDataError(
            f"{where}: the file is damaged ({error}); rebuild the catalog from the tile files"
        )
    if isinstance(error, (lmdb.InvalidError, lmdb.VersionMismatchError)):
        return StoreFormatError(f"{where}: {DATA_FILE} is no LMDB file of a known format ({error})")
    if isinstance(error, lmdb.NotFoundError):
        return CorruptDataError(f"{where}: a database is missing ({error})")
    if isinstance(error, (lmdb.ReadersFullError, lmdb.MemoryError)):
        return UnavailableError(f"{where}: {error}", retry_after_s=1.0)
    if isinstance(error, (lmdb.ReadonlyError, lmdb.LockError)) or _is_errno(
        error, {errno.EACCES, errno.EPERM}
    ):
        return ReadOnlyError(f"{where}: no permission to open or write it ({error})")
    return InternalError(f"{where}: {type(error).__name__}: {error}")


@contextmanager
def _translated(environment: Environment) -> Iterator[None]:
    try:
        yield
    except lmdb.Error as error:
        raise _translate(error, environment) from error
    except OSError as error:
        if isinstance(error, GeostoreError):
            raise
        if error.errno in _FULL:
            raise StorageFullError(f"catalog {environment.directory}: {error}") from error
        raise ReadOnlyError(f"catalog {environment.directory}: {error}") from error


# ---------------------------------------------------------------- fork

_held: list[Environment] = []


def _before_fork() -> None:
    _registry_lock.acquire()
    for environment in sorted(_everyone, key=lambda each: str(each.directory)):
        environment.hold_for_fork()
        _held.append(environment)


def _after_fork() -> None:
    while _held:
        _held.pop().resume_after_fork()
    _registry_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
