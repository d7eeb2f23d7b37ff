"""A catalog that takes in, starts and is asked meanwhile: a million tiles on one node.

    python -m tests.benchmarks.bench_catalog_load [--quick] [--tiles N] [--rounds N] [--keep DIR]

What is measured, each beside its bar:

- insert of packed tiles, 50,000 a call, each call durable; and of objects (`rebuild`);
- single durable commits a second, of one thread: a tile staged, a scene of one tile published, a
  record set; beside a bare `pwrite` and `fdatasync` of as many bytes, in turns;
- a new process: opened, all counted, a box with three months and clouds answered; and its memory,
  beyond what the imports take: private bytes a tile, and mapped ones apart;
- queries through the public call while 5,000 tiles a second come, by those in peace, in turns;
- last, when more than half of the tiles were removed: how long the log takes to give their room
  back behind the writers, and how long single commits take meanwhile.

Medians of the rounds. `--keep`: where stores are kept and found again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np

import geostore
from geostore.index import CatalogEntry, LogCatalog, cleaning, open_catalog
from geostore.query import Query
from tests.benchmarks.million_queries import boxes_of_size
from tests.benchmarks.million_tiles import DATASETS, Tiles, entries, make_tiles, packed
from tests.synthetic_tiles import make_entry

CHUNK = 50_000
OBJECTS = 20_000
INSERTED_A_SECOND = 5_000
SCENE_TILES = 100
COMMITS = 300

STARTED = """
import json, sys, time
from pathlib import Path

def memory():
    found = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split()[:2]
        found[name.rstrip(":")] = int(value) * 1024
    return found["Anonymous"], found["Rss"] - found["Anonymous"]

import geostore, geostore.query
from geostore.index import open_catalog
from geostore.query import PercentRange, Query
from geostore.types import TimeSpan
from geostore.grid import Region
from geostore.types import BBox
import shapely, numpy
west, south, east, north = json.loads(sys.argv[2])
query = Query(
    region=Region.from_bbox(BBox(west, south, east, north)),
    time=TimeSpan.parse("2019-03-01/2019-06-01"),
    cloud=PercentRange(None, 20.0),
)
before = memory()
start = time.perf_counter()
catalog = open_catalog(sys.argv[1], writable=False)
counted = catalog.count(Query())
opened = time.perf_counter() - start
found = sum(len(batch) for batch in catalog.query(query))
answered = time.perf_counter() - start
for query in (
    Query(time=TimeSpan.parse("2019-03"), limit=1), Query(cloud=PercentRange(None, 1.0), limit=1),
    Query(coverage=PercentRange(99.0, None), limit=1), Query(geocode="9q", limit=1),
):
    list(catalog.query(query))
whole = time.perf_counter() - start
after = memory()
print(json.dumps({
    "tiles": counted, "opened_s": opened, "answered_s": answered, "whole_s": whole,
    "private": after[0] - before[0], "mapped": after[1] - before[1],
}))
"""


class Figures:
    """Named figures, one a round, printed as medians beside their bars."""

    def __init__(self) -> None:
        self._all: dict[str, tuple[str, str, list[float]]] = {}

    def add(self, name: str, value: float, unit: str, bar: str = "") -> None:
        self._all.setdefault(name, (unit, bar, []))[2].append(value)

    def print(self) -> None:
        print(f"{'figure':<58}{'median':>14}  {'unit':<10}{'bar':<22}rounds")
        for name, (unit, bar, values) in self._all.items():
            middle = statistics.median(values)
            text = f"{middle:,.0f}" if middle >= 100 else f"{middle:.3g}"
            print(f"{name:<58}{text:>14}  {unit:<10}{bar:<22}{len(values)}")


def _fill(tiles: Tiles, directory: Path, figures: Figures) -> None:
    """A store with the tiles, packed before the clock runs."""
    with geostore.open(directory) as store:
        made = [
            store.create_dataset(name, scheme="geohash", length=5, resolution=10)
            for name in DATASETS
        ]
    ids = tuple(each.id for each in made)
    seconds = 0.0
    with open_catalog(directory / "catalog", writable=True) as catalog:
        for first in range(0, len(tiles), CHUNK):
            batch = packed(tiles, first, first + CHUNK, dataset_ids=ids)
            start = time.perf_counter()
            catalog.insert(batch)
            seconds += time.perf_counter() - start
    figures.add("insert of packed tiles", len(tiles) / seconds, "tiles/s", ">= 100,000")


def _objects(tiles: Tiles, work: Path, figures: Figures) -> None:
    some = list(entries(tiles))[:OBJECTS] if len(tiles) <= OBJECTS else _first(tiles)
    with open_catalog(work / "objects", writable=True) as catalog:
        start = time.perf_counter()
        catalog.rebuild(some)
        figures.add("insert of objects", len(some) / (time.perf_counter() - start), "tiles/s")


def _first(tiles: Tiles) -> list[CatalogEntry]:
    found = []
    for entry in entries(tiles):
        found.append(entry)
        if len(found) == OBJECTS:
            break
    return found


# ---------------------------------------------------------------- commits


def _commits(work: Path, figures: Figures, number: int, count: int) -> None:
    with open_catalog(work / f"commits-{number}", writable=True) as catalog:
        entries_ = [make_entry(scene=f"s{i}") for i in range(count)]
        before = _log_bytes(catalog)
        staged = _rate(lambda i: catalog.stage([entries_[i]]), count)
        size = (_log_bytes(catalog) - before) // count
        published = _rate(lambda i: catalog.publish("id-s2", f"s{i}", "v1"), count)
        recorded = _rate(lambda i: catalog.record_compare_and_set(f"r{i}", 0, b"x" * 100), count)
    bare = _bare(work / f"bare-{number}", size, count)
    figures.add("durable commits: a tile staged", staged, "1/s", ">= 2,000")
    figures.add("durable commits: a scene of one tile published", published, "1/s", ">= 2,000")
    figures.add("durable commits: a record set", recorded, "1/s", ">= 2,000")
    figures.add(f"bare pwrite and fdatasync of {size} bytes", bare, "1/s")


def _log_bytes(catalog: LogCatalog) -> int:
    return catalog._home._reader.position.offset


def _rate(act: Callable[[int], object], count: int) -> float:
    start = time.perf_counter()
    for i in range(count):
        act(i)
    return count / (time.perf_counter() - start)


def _bare(path: Path, size: int, count: int) -> float:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.posix_fallocate(descriptor, 0, size * count)
        data = bytes(size)
        return _rate(
            lambda i: (os.pwrite(descriptor, data, i * size), os.fdatasync(descriptor)), count
        )
    finally:
        os.close(descriptor)


# ---------------------------------------------------------------- start


def _start(directory: Path, box: tuple[float, ...], figures: Figures) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STARTED, str(directory / "catalog"), json.dumps(box)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    tiles = found["tiles"]
    figures.add("start: opened and counted", found["opened_s"], "s", "<= 2")
    figures.add("start: first box, months and clouds answered", found["answered_s"], "s", "<= 2")
    figures.add("start: every structure in use", found["whole_s"], "s")
    figures.add("memory: private", found["private"] / tiles, "bytes/tile", "<= 300")
    figures.add("memory: mapped", found["mapped"] / tiles, "bytes/tile")


# ---------------------------------------------------------------- queries meanwhile


class Inserter:
    """Scenes of 100 tiles at a steady rate, in a thread, until told to stop."""

    def __init__(self, catalog: LogCatalog, tiles: Tiles, version: str) -> None:
        self._catalog = catalog
        self._stop = threading.Event()
        self.behind_s = 0.0
        self.inserted = 0
        self._batches = [
            packed(tiles, first, first + SCENE_TILES, version=version)
            for first in range(0, len(tiles) - SCENE_TILES, SCENE_TILES)
        ]
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        start = time.perf_counter()
        for number, batch in enumerate(self._batches):
            due = start + number * SCENE_TILES / INSERTED_A_SECOND
            left = due - time.perf_counter()
            self.behind_s = max(self.behind_s, -left)
            if self._stop.wait(max(left, 0)):
                break
            self._catalog.insert(batch)
            self.inserted += len(batch.rows)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _meanwhile(
    directory: Path, places: list[tuple[float, ...]], figures: Figures, number: int
) -> None:
    coming = make_tiles(60_000, "scenes", seed=100 + number)
    with (
        geostore.open(directory, mode="r") as store,
        open_catalog(directory / "catalog", writable=True) as catalog,
    ):
        peace = _ask(store, places)
        with Inserter(catalog, coming, f"x{number}") as inserter:
            start = time.perf_counter()
            busy: list[float] = []
            while len(busy) < len(places) or time.perf_counter() - start < 3:
                busy += _ask(store, places)
            seconds = time.perf_counter() - start
        rate = inserter.inserted / seconds
    figures.add("inserts a second meanwhile, steady", rate, "tiles/s", "5,000")
    for name, percent in (("p50", 50), ("p95", 95)):
        calm, loaded = np.percentile(peace, percent), np.percentile(busy, percent)
        figures.add(f"public query in peace, {name}", 1e3 * calm, "ms")
        figures.add(f"public query meanwhile by in peace, {name}", loaded / calm, "x", "<= 2")


def _ask(store: geostore.Store, places: list[tuple[float, ...]]) -> list[float]:
    taken = []
    for box in places:
        start = time.perf_counter()
        selection = store.query(bbox=box, time="2019-03-01/2019-06-01", cloud_cover=(None, 20.0))
        len(selection.to_arrow())
        taken.append(time.perf_counter() - start)
    return taken


# ---------------------------------------------------------------- giving room back


def _clean(directory: Path, figures: Figures) -> None:
    with open_catalog(directory / "catalog", writable=True) as catalog:
        before, left = _log_size(directory), catalog.count(Query())
        wanted = 0.4 * left
        for dataset in sorted(catalog.summary(), key=lambda each: -each.tiles):
            if left > wanted:
                catalog.remove(dataset.dataset_id)
                left -= dataset.tiles
        start, commits = time.perf_counter(), list[float]()
        while catalog._home._upkeep.is_busy:
            begun = time.perf_counter()
            catalog.record_compare_and_set("tick", len(commits), b"tick")
            commits.append(time.perf_counter() - begun)
            time.sleep(0.002)
        seconds = time.perf_counter() - start
    figures.add("room: log before, tiles removed", before / 2**20, "MiB")
    figures.add("room: log after", _log_size(directory) / 2**20, "MiB")
    figures.add("room: given back after", seconds, "s")
    if commits:
        figures.add("room: commits meanwhile, p50", 1e3 * statistics.median(commits), "ms")
        figures.add("room: commits meanwhile, longest", 1e3 * max(commits), "ms")


def _log_size(directory: Path) -> int:
    return sum(path.stat().st_size for path in (directory / "catalog" / "log").glob("*.log"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5,000 tiles, 1 round")
    parser.add_argument("--tiles", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--spread", choices=["scattered", "scenes"], default="scattered")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    count = options.tiles or (5_000 if options.quick else 1_000_000)
    rounds = options.rounds or (1 if options.quick else 5)
    tiles = make_tiles(count, options.spread)
    work = Path(tempfile.mkdtemp(prefix="bench-catalog-load-"))
    figures = Figures()
    kept = options.keep / f"{options.spread}-{count}-log" if options.keep else work / "store"
    places = [
        (box.west, box.south, box.east, box.north)
        for query in boxes_of_size(tiles, 50 if options.quick else 300)
        if query.region is not None
        for box in query.region.bboxes[:1]
    ]
    print(
        f"{count:,} tiles ({options.spread}), {rounds} rounds; Python {platform.python_version()},"
        f" {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n"
    )
    try:
        if not kept.exists():
            _fill(tiles, kept, figures)
        _objects(tiles, work, figures)
        copy = work / "growing"
        shutil.copytree(kept, copy)
        for number in range(rounds):
            _commits(work, figures, number, 50 if options.quick else COMMITS)
            _start(kept, places[number], figures)
            _meanwhile(copy, places, figures, number)
        if options.quick:
            cleaning.LOG_BYTES_MIN = 1 << 16
        _clean(copy, figures)
        size = sum(path.stat().st_size for path in (kept / "catalog").rglob("*") if path.is_file())
        figures.add("catalog on disk", size / count, "bytes/tile")
        figures.print()
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
