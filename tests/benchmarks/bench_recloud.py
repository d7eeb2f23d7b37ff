"""Another cloud rule for 100,000 synthetic tiles, and the first answers after it.

    python -m tests.benchmarks.bench_recloud [--quick] [--tiles N] [--rounds N]

The peer is what a user would write by hand: rows in SQLite with the histogram as a blob and an
index on the cover; read, computed with numpy, updated and committed. Both are on disk and synced.
Rounds are interleaved; medians are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from geostore.index import CatalogEntry, LogCatalog, RecordChange, open_catalog
from geostore.query import PercentRange, Query
from tests.synthetic_tiles import many_entries

Result = TypeVar("Result")
CLEAR = Query(cloud=PercentRange(None, 20))


def _entries(tiles: int) -> Iterator[CatalogEntry]:
    """Tiles of 128 x 128 likelihoods, most of them low or high."""
    random = np.random.default_rng(1)
    for entry in many_entries(tiles):
        percent = np.clip(random.normal(random.choice([5, 90]), 20, 200), 0, 100).astype(int)
        counts = np.bincount(percent, minlength=101) * 82
        yield replace(entry, meta=replace(entry.meta, cloud_histogram=tuple(counts.tolist())))


class Seconds:
    """Seconds by step, one entry a round."""

    def __init__(self) -> None:
        self._by_step: dict[str, list[float]] = {}

    def time(self, step: str, call: Callable[[], Result]) -> Result:
        start = time.perf_counter()
        result = call()
        self._by_step.setdefault(step, []).append(time.perf_counter() - start)
        return result

    def medians(self) -> dict[str, float]:
        return {step: statistics.median(all_) for step, all_ in self._by_step.items()}


def _recloud(catalog: LogCatalog, threshold: int | None) -> int:
    rule = {} if threshold is None else {"method": "likelihood", "threshold": threshold}
    value = {"id": "id-s2", "placement": 3, "cloud_rule": rule}
    record = catalog.record_get("dataset/s2")
    revision = 0 if record is None else record.revision
    change = RecordChange("dataset/s2", revision, b"S" + json.dumps(value).encode())
    return len(catalog.change_definition(change)[1])


def _make_sqlite(path: Path, entries: list[CatalogEntry]) -> sqlite3.Connection:
    base = sqlite3.connect(path)
    base.execute("pragma journal_mode = wal")
    base.execute("pragma synchronous = full")
    base.execute("create table tiles (id integer primary key, cell, cover real, histogram blob)")
    base.execute("create index by_cover on tiles (cover)")
    base.executemany(
        "insert into tiles (cell, cover, histogram) values (?, ?, ?)",
        (
            (
                entry.meta.key.geocode,
                entry.meta.cloud_cover,
                np.array(entry.meta.cloud_histogram, dtype="<u8").tobytes(),
            )
            for entry in entries
        ),
    )
    base.commit()
    return base


def _recloud_sqlite(base: sqlite3.Connection, threshold: int) -> int:
    rows = base.execute("select id, histogram from tiles").fetchall()
    counts = np.frombuffer(b"".join(blob for _, blob in rows), dtype="<u8").reshape(len(rows), 101)
    covers = 100.0 * counts[:, threshold:].sum(axis=1) / counts.sum(axis=1)
    base.executemany(
        "update tiles set cover = ? where id = ?",
        zip(covers.astype(np.float32).tolist(), (row_id for row_id, _ in rows), strict=True),
    )
    base.commit()
    return len(rows)


def _round(catalog: LogCatalog, base: sqlite3.Connection, seconds: Seconds, threshold: int) -> None:
    seconds.time("likelihood >= P: rows rewritten, durable", lambda: _recloud(catalog, threshold))
    seconds.time("the memory of a process follows", catalog.refresh)
    found = seconds.time("first query by cloud after it", lambda: catalog.count(CLEAR))
    seconds.time("second query by cloud", lambda: catalog.count(CLEAR))
    seconds.time("SQLite: rows updated, durable", lambda: _recloud_sqlite(base, threshold))
    counted = "select count(*) from tiles where cover <= 20"
    (peer,) = seconds.time("SQLite: first query", lambda: base.execute(counted).fetchone())
    assert found == peer
    seconds.time("back to the provider's", lambda: _recloud(catalog, None))
    catalog.count(CLEAR)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2,000 tiles, 3 rounds")
    parser.add_argument("--tiles", type=int)
    parser.add_argument("--rounds", type=int)
    options = parser.parse_args()
    tiles = options.tiles or (2_000 if options.quick else 100_000)
    rounds = options.rounds or (3 if options.quick else 7)
    work = Path(tempfile.mkdtemp(prefix="bench-recloud-"))
    try:
        entries = list(_entries(tiles))
        seconds = Seconds()
        with (
            open_catalog(work / "catalog", writable=True) as catalog,
            closing(_make_sqlite(work / "peer.sqlite", entries)) as base,
        ):
            catalog.rebuild(entries)
            catalog.count(CLEAR)
            for number in range(rounds):
                _round(catalog, base, seconds, 20 + 7 * number)
            assert catalog.check() == []
        size = (work / "catalog" / "log" / "00000001.log").stat().st_size
    finally:
        shutil.rmtree(work)
    print(
        f"{tiles:,} tiles, {size / 2**20:.0f} MiB, {rounds} rounds; Python"
        f" {platform.python_version()}, {os.cpu_count()} cores\n"
    )
    medians = seconds.medians()
    for step, median in medians.items():
        print(f"{step:<44}{1e3 * median:>10.1f} ms")
    ours, peer = (
        medians["likelihood >= P: rows rewritten, durable"],
        medians["SQLite: rows updated, durable"],
    )
    print(f"\n{'SQLite by ours':<44}{peer / ours:>10.2f} x")


if __name__ == "__main__":
    main()
