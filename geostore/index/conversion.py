"""Makes a log of a catalog that lay in LMDB."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from geostore.index.effects import CHANGE, Effect, Tiles, encode
from geostore.index.lmdb_catalog import DATA_FILE, LMDB_LOCK_FILE, Chunk, LmdbCatalog, open_lmdb
from geostore.index.log import LogWriter
from geostore.index.log_disk import sync_directory
from geostore.index.operations import tiles_of

__all__ = ["convert", "has_old_catalog", "put_in_place"]

logger = logging.getLogger(__name__)

UNDER_WAY: Final = "log.new"
EFFECTS_AT_ONCE: Final = 1024


def has_old_catalog(directory: Path) -> bool:
    """Whether there is an LMDB catalog."""
    return (directory / DATA_FILE).is_file()


def convert(directory: Path, log: Path) -> None:
    """Writes what the LMDB catalog in `directory` holds as a new log; durable when this returns.

    Some 20 s for a million tiles. Nothing is changed in `directory`, and `log` has a whole log or
    is to be thrown away.

    Raises:
        StoreFormatError: there is no LMDB catalog of a known format.
        CorruptDataError: it is damaged.
        StorageFullError: no room for the log.
    """
    with open_lmdb(directory) as old:
        total = old.rows_total()
        logger.info("catalog=%s converting tiles=%d", directory, total)
        writer = LogWriter(log)
        try:
            for effects in _effects(old):
                writer.append(CHANGE, encode(effects))
            writer.sync()
        finally:
            writer.close()


def _effects(old: LmdbCatalog) -> Iterator[list[Effect]]:
    yield from _at_once(old.schemas())
    yield from _at_once(old.scenes())
    for chunk in old.rows():
        yield [_tiles(chunk, is_published=True)]
    for chunk in old.staged():
        yield [_tiles(chunk, is_published=False)]
    yield from _at_once(old.records())


def _tiles(chunk: Chunk, *, is_published: bool) -> Tiles:
    _, rows, details = chunk
    return tiles_of(rows, details, is_published=is_published)


def _at_once(effects: Iterable[Effect]) -> Iterator[list[Effect]]:
    iterator = iter(effects)
    while some := list(islice(iterator, EFFECTS_AT_ONCE)):
        yield some


def put_in_place(directory: Path, log: Path) -> None:
    """Converts the LMDB catalog in `directory` to the log at `log`, and removes it.

    The caller keeps other writers out. A crash on the way leaves the old catalog, or a whole log.
    """
    if not log.exists():
        under_way = directory / UNDER_WAY
        shutil.rmtree(under_way, ignore_errors=True)  # of one that was cut off
        convert(directory, under_way)
        under_way.rename(log)
        sync_directory(directory)
        logger.info("catalog=%s converted", directory)
    for name in (DATA_FILE, LMDB_LOCK_FILE):
        (directory / name).unlink(missing_ok=True)
