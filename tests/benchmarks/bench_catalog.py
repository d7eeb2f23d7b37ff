"""Open, query and count of a catalog with 100,000 synthetic tiles.

    python -m tests.benchmarks.bench_catalog [--quick] [--tiles N] [--rounds N]

Tiles come as scenes of 200 neighbouring cells over ten years. The peer is a scan without any
structure: `geostore.query.matching` over all rows as one batch. Rounds are interleaved; medians
are printed.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from geostore.grid import GEOHASH, Region
from geostore.index import CatalogEntry, LogCatalog, open_catalog
from geostore.query import PercentRange, Query, matching
from geostore.types import RowBatch, TimeSpan
from tests.synthetic_tiles import make_entry, many_entries

Result = TypeVar("Result")


class Table:
    """Seconds by name, one entry a round."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def time(self, name: str, call: Callable[[], Result]) -> Result:
        start = time.perf_counter()
        result = call()
        self.seconds.setdefault(name, []).append(time.perf_counter() - start)
        return result

    def median_ms(self, name: str) -> float:
        return 1e3 * statistics.median(self.seconds[name])


def _queries(some: CatalogEntry) -> dict[str, Query]:
    patch = some.meta.key.geocode[:3]
    month = TimeSpan.parse("2018-03")
    wide = Region.from_geometry(
        {
            "type": "Polygon",
            "coordinates": [[[-10, -35], [50, -35], [60, 20], [20, 38], [-20, 15], [-10, -35]]],
        }
    )
    return {
        "all": Query(),
        "all, limit 10": Query(limit=10),
        "one scene": Query(scene=some.meta.key.scene),
        "one month": Query(time=month),
        "cloud ..5, by cloud": Query(cloud=PercentRange(None, 5), sort="cloud"),
        "coverage 95..": Query(coverage=PercentRange(95, None)),
        "geocode prefix of 3": Query(geocode=patch),
        "box of one such cell": Query(region=Region.from_bbox(GEOHASH.bounds(patch))),
        "polygon of a continent": Query(region=wide),
        "polygon, year, cloud, bands": Query(
            region=wide,
            time=TimeSpan.parse("2018"),
            cloud=PercentRange(None, 20),
            bands=("red", "nir"),
        ),
    }


def _drain(catalog: LogCatalog, query: Query) -> int:
    return sum(len(batch) for batch in catalog.query(query))


def _scan(rows: RowBatch, query: Query) -> int:
    return int(np.count_nonzero(matching(rows, query)))


def _first_query_elsewhere(directory: Path) -> float:
    """Seconds from open to the first count in a new process, imports not counted."""
    code = (
        "import sys, time\n"
        "from geostore.index import open_catalog\n"
        "from geostore.query import Query\n"
        "start = time.perf_counter()\n"
        "catalog = open_catalog(sys.argv[1], writable=False)\n"
        "catalog.count(Query())\n"
        "print(time.perf_counter() - start)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(directory)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def _opening(directory: Path, table: Table) -> None:
    catalog = table.time("open", lambda: open_catalog(directory, writable=True))
    table.time("first count: load rows", lambda: catalog.count(Query()))
    for name, query in {
        "first time predicate: build": Query(time=TimeSpan.parse("2018-03")),
        "first cloud predicate: build": Query(cloud=PercentRange(None, 5)),
        "first geocode predicate: build": Query(geocode="dqc"),
    }.items():
        table.time(name, lambda q=query: catalog.count(q))  # type: ignore[misc]
    catalog.close()
    elapsed = _first_query_elsewhere(directory)
    table.seconds.setdefault("open and first count, new process", []).append(elapsed)


def _changing(catalog: LogCatalog, table: Table, number: int) -> None:
    """A scene of 200 tiles comes, is found, and goes."""
    scene = f"bench-{number}"
    entries = [
        make_entry(f"9q{a}{b}", scene=scene) for a in "0123456789" for b in "0123456789bcdefghjkm"
    ]
    table.time("stage 200 tiles", lambda: catalog.stage(entries))
    table.time("publish 200 tiles", lambda: catalog.publish("id-s2", scene, "v1"))
    found = table.time("count after it", lambda: catalog.count(Query(scene=scene)))
    assert found == 200
    key = entries[100].meta.key
    table.time("details of a tile", lambda: catalog.details(key))
    table.time("remove 200 tiles", lambda: catalog.remove("id-s2", scene))


def _print(table: Table, queries: dict[str, Query], counts: dict[str, int]) -> None:
    print(f"{'step':<36}{'ms':>10}")
    for name in table.seconds:
        if name.split(" ", 1)[-1] not in queries:
            print(f"{name:<36}{table.median_ms(name):>10.2f}")
    head = f"{'query':<30}{'tiles':>9}{'query ms':>11}{'count ms':>11}"
    print(f"\n{head}{'scan ms':>10}{'scan/count':>12}")
    for name in queries:
        asked, counted = table.median_ms(f"query {name}"), table.median_ms(f"count {name}")
        scanned = table.median_ms(f"scan {name}")
        print(
            f"{name:<30}{counts[name]:>9,}{asked:>11.2f}{counted:>11.2f}{scanned:>10.2f}"
            f"{scanned / counted:>12.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10,000 tiles, 3 rounds")
    parser.add_argument("--tiles", type=int)
    parser.add_argument("--rounds", type=int)
    options = parser.parse_args()
    tiles = options.tiles or (10_000 if options.quick else 100_000)
    rounds = options.rounds or (3 if options.quick else 7)
    work = Path(tempfile.mkdtemp(prefix="bench-catalog-"))
    try:
        entries = list(many_entries(tiles))
        queries = _queries(entries[777])
        table = Table()
        with open_catalog(work / "catalog", writable=True) as catalog:
            table.time("rebuild from entries", lambda: catalog.rebuild(entries))
        files = (path for path in (work / "catalog").rglob("*") if path.is_file())
        size = sum(path.stat().st_size for path in files)
        print(
            f"{tiles:,} tiles, {size / 2**20:.0f} MiB, {rounds} rounds; Python"
            f" {platform.python_version()}, {os.cpu_count()} cores\n"
        )
        for _ in range(rounds):
            _opening(work / "catalog", table)
        counts: dict[str, int] = {}
        with open_catalog(work / "catalog", writable=True) as catalog:
            rows = RowBatch.concatenate(list(catalog.query(Query(), batch_rows=tiles)))
            for number in range(rounds):
                for name, query in queries.items():
                    counts[name] = table.time(f"query {name}", lambda q=query: _drain(catalog, q))  # type: ignore[misc]
                    table.time(f"count {name}", lambda q=query: catalog.count(q))  # type: ignore[misc]
                    table.time(f"scan {name}", lambda q=query: _scan(rows, q))  # type: ignore[misc]
                _changing(catalog, table, number)
        _print(table, queries, counts)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
