"""Reads catalogs of before, which lay in LMDB (format version 1), to convert them.

What lay where: `rows` and `details` by row id, `published` from a tile's key to its row id,
`staged` by key, `groups` and `properties` by digest, all of these twice (a rebuild filled one side
while the other was served); `schemas`, `records` and `meta` once. Rows and details are the bytes
that the log has too.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import lmdb
import numpy as np
import numpy.typing as npt

from geostore.errors import (
    CorruptDataError,
    GeostoreError,
    InternalError,
    ReadOnlyError,
    StoreFormatError,
    UnavailableError,
)
from geostore.index.effects import PutRecord, Scene, Schema
from geostore.index.packing import ROW_BYTES, unpack_rows

__all__ = ["DATA_FILE", "LMDB_LOCK_FILE", "LmdbCatalog", "open_lmdb"]

DATA_FILE: Final = "data.mdb"
LMDB_LOCK_FILE: Final = "lock.mdb"
FORMAT_NAME: Final = "geostore catalog"
FORMAT_VERSION: Final = 1
DATABASES_MAX: Final = 32
SHORTFALL_PAGES_MAX: Final = 64
"""Pages that LMDB may have allocated at the file's end and never written."""
REBUILD: Final = "rebuild the catalog from the tile files: geostore verify --rebuild"

_STATE = struct.Struct("<QQQQ")
_ROW_ID = struct.Struct(">Q")
_RECORD = struct.Struct("<QI")
_COUNT_BYTES: Final = 8
CHUNK_ROWS: Final = 4096

Chunk = tuple[npt.NDArray[np.int64], npt.NDArray[np.void], list[bytes]]
"""Row ids, rows (ROW_DTYPE) and details."""


class LmdbCatalog:
    """One snapshot of such a catalog, for as long as it is open."""

    def __init__(self, path: Path, environment: lmdb.Environment) -> None:
        self._path = path
        self._environment = environment
        self._txn = environment.begin()
        try:
            self._check_format()
            self._side = self._served_side()
        except BaseException:
            self._txn.abort()
            raise

    def close(self) -> None:
        """Lets go of the snapshot."""
        self._txn.abort()

    def _database(self, name: str) -> lmdb._Database:
        try:
            return self._environment.open_db(name.encode(), txn=self._txn, create=False)
        except (lmdb.NotFoundError, lmdb.IncompatibleError):
            raise CorruptDataError(
                f"{self._path}: its database {name!r} is missing; {REBUILD}"
            ) from None

    def _get(self, name: str, key: bytes) -> bytes | None:
        return self._txn.get(key, db=self._database(name))

    def _entries(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        with self._txn.cursor(self._database(name)) as cursor:
            yield from cursor

    def _check_format(self) -> None:
        text = None
        with suppress(CorruptDataError):
            text = self._get("meta", b"format")
        if text is None:
            raise StoreFormatError(
                f"{self._path.parent}: an LMDB file, but no geostore catalog (no format entry)"
            )
        try:
            found = json.loads(text)
            name, version = found["name"], int(found["version"])
        except (ValueError, TypeError, KeyError):
            raise CorruptDataError(
                f"{self._path}: the catalog's format entry does not read: {text[:80]!r}"
            ) from None
        if name != FORMAT_NAME or version > FORMAT_VERSION:
            raise StoreFormatError(
                f"{self._path.parent}: format {name!r} version {version}; this geostore reads"
                f" {FORMAT_NAME!r} up to version {FORMAT_VERSION}: install a newer geostore"
            )

    def _served_side(self) -> int:
        """Which of two databases is served: the parity of the generation."""
        state = self._get("meta", b"state")
        if state is not None and len(state) != _STATE.size:
            raise CorruptDataError(
                f"{self._path}: counters of {len(state)} bytes, expected {_STATE.size}; {REBUILD}"
            )
        return 0 if state is None else int(_STATE.unpack(state)[0]) & 1

    def schemas(self) -> Iterator[Schema]:
        """The schemas of tiles."""
        for digest, text in self._entries("schemas"):
            yield Schema(digest.decode(), text)

    def scenes(self) -> Iterator[Scene]:
        """The scenes' entries. Raises CorruptDataError: one lacks its properties."""
        for digest, value in self._entries(f"groups{self._side}"):
            properties = self._get(f"properties{self._side}", digest)
            if properties is None:
                raise CorruptDataError(
                    f"{self._path}: scene entry {digest.hex()} has no properties; {REBUILD}"
                )
            yield Scene(digest, value[_COUNT_BYTES:], properties)

    def records(self) -> Iterator[PutRecord]:
        """The records, with their revisions."""
        for _, value in self._entries("records"):
            revision, name_bytes = _RECORD.unpack_from(value)
            end = _RECORD.size + name_bytes
            name = value[_RECORD.size : end].decode("utf-8", "surrogatepass")
            yield PutRecord(name, revision, value[end:])

    def rows_total(self) -> int:
        """Published tiles."""
        entries: int = self._txn.stat(self._database(f"rows{self._side}"))["entries"]
        return entries

    def rows(self) -> Iterator[Chunk]:
        """Published tiles in the order of their row ids, every checksum of a row verified.

        Raises:
            CorruptDataError: a row without details, or one that does not match its checksum.
        """
        ids: list[int] = []
        rows: list[bytes] = []
        details: list[bytes] = []
        for row_id, row in self._entries(f"rows{self._side}"):
            found = self._get(f"details{self._side}", row_id)
            if found is None:
                raise CorruptDataError(f"{self._path}: a tile has no details; {REBUILD}")
            ids.append(_ROW_ID.unpack(row_id)[0])
            rows.append(row)
            details.append(found)
            if len(ids) == CHUNK_ROWS:
                yield np.array(ids, np.int64), unpack_rows(rows), details
                ids, rows, details = [], [], []
        if ids:
            yield np.array(ids, np.int64), unpack_rows(rows), details

    def staged(self) -> Iterator[Chunk]:
        """Staged tiles, as `rows`; the ids count from 0."""
        values = [value for _, value in self._entries(f"staged{self._side}")]
        for start in range(0, len(values), CHUNK_ROWS):
            chunk = values[start : start + CHUNK_ROWS]
            rows = unpack_rows([value[:ROW_BYTES] for value in chunk])
            ids = np.arange(start, start + len(chunk), dtype=np.int64)
            yield ids, rows, [value[ROW_BYTES:] for value in chunk]


@contextmanager
def open_lmdb(directory: Path) -> Iterator[LmdbCatalog]:
    """The LMDB catalog in a directory, read only.

    Raises:
        StoreFormatError: the file is something else, or of a newer format.
        CorruptDataError: it is damaged.
        ReadOnlyError: no permission.
    """
    path = directory / DATA_FILE
    try:
        environment = _open_environment(path)
        try:
            _check_size(environment, path)
            catalog = LmdbCatalog(path, environment)
            try:
                yield catalog
            finally:
                catalog.close()
        finally:
            environment.close()
    except lmdb.Error as error:
        raise _translated(error, path) from error


def _open_environment(path: Path) -> lmdb.Environment:
    map_bytes = max(1 << 30, 2 * path.stat().st_size)

    def opened(*, lock: bool) -> lmdb.Environment:
        return lmdb.open(
            str(path.parent),
            map_size=map_bytes,
            max_dbs=DATABASES_MAX,
            readonly=True,
            create=False,
            readahead=False,
            lock=lock,
        )

    try:
        return opened(lock=True)
    except lmdb.ReadonlyError:
        # Media that take no writes: no lock file can be made, and nobody writes either.
        return opened(lock=False)


def _check_size(environment: lmdb.Environment, path: Path) -> None:
    """A file that ends before its last page would kill the process (SIGBUS) when read."""
    page_bytes = environment.stat()["psize"]
    pages = environment.info()["last_pgno"] + 1
    size = path.stat().st_size
    present = size // page_bytes
    if present + SHORTFALL_PAGES_MAX < pages:
        raise CorruptDataError(
            f"{path}: {present} pages, expected {pages}: the file was cut short; {REBUILD}"
        )
    if present < pages:
        # Pages that LMDB never wrote, or a cut: zeros there are recognised as no page.
        with suppress(OSError):
            os.truncate(path, pages * page_bytes)


def _translated(error: lmdb.Error, path: Path) -> GeostoreError:
    where = f"catalog {path.parent}"
    if isinstance(error, (lmdb.CorruptedError, lmdb.PageNotFoundError)):
        return CorruptDataError(f"{where}: the file is damaged ({error}); {REBUILD}")
    if isinstance(error, (lmdb.InvalidError, lmdb.VersionMismatchError)):
        return StoreFormatError(f"{where}: {DATA_FILE} is no LMDB file of a known format ({error})")
    if isinstance(error, (lmdb.ReadersFullError, lmdb.MemoryError)):
        return UnavailableError(f"{where}: {error}", retry_after_s=1.0)
    if isinstance(error, (lmdb.ReadonlyError, lmdb.LockError)):
        return ReadOnlyError(f"{where}: no permission to open it ({error})")
    return InternalError(f"{where}: {type(error).__name__}: {error}")
