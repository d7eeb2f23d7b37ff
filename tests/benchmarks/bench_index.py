"""The index against SQLite, DuckDB and a scan: the same tiles, the same questions, one run.

    python -m tests.benchmarks.bench_index [--quick] [--tiles N] [--rounds N]
        [--spread scattered|scenes] [--shapes "a;b"] [--contenders "a;b"] [--mixed] [--disk DIR]
        [--keep DIR]
    python -m tests.benchmarks.bench_index --scale [--tiles N]

All contenders hold the same tiles (`million_tiles`) and are asked the same things
(`million_queries`); every answer is first compared with what geostore's own predicates say of
every tile, and a difference ends the run. Then they take turns: in each round and for each shape
every contender goes through all its questions, in an order drawn anew each time. With `--mixed`
they take turns at every question, so that each finds the processor's caches full of another's
data (a scan of a million rows is among them): the fastest then take two to three times as long.
Printed are the median and the 95th of a hundred parts, in microseconds, over a shape's questions
and all rounds.

geostore stands there twice. "index" is the search in the catalog's memory, up to the ids.
"public" is `Store.query` and `count` in full: keywords, plan, order, columnar rows with all their
fields; its rivals give ids alone.

The bars: the main query at most the R*Tree's median and twice its 95th part, 20 times as fast as
DuckDB, 100 times as fast as the scan; every other shape at most the larger of 100 us and 1.5
times the best of SQLite and DuckDB. With `--scale`, ten times the tiles take less than twice the
time where the answer stays as large.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import apsw
import duckdb
import numpy as np

import geostore
from geostore.grid import GEOHASH
from geostore.index import LogCatalog, open_catalog, planner
from geostore.index.answer import Answer
from geostore.query import PercentRange, Query
from geostore.types import RowBatch
from geostore.types.geo import datetime_from_us
from tests.benchmarks.index_rivals import (
    Ask,
    DuckDb,
    Found,
    NumpyScan,
    Rival,
    SqliteBtree,
    SqliteRtree,
    all_rivals,
)
from tests.benchmarks.million_queries import (
    MAIN,
    Ids,
    Shape,
    answer,
    nearest_boxes,
    shapes,
)
from tests.benchmarks.million_tiles import (
    DATASETS,
    LENGTH,
    Spread,
    Tiles,
    make_tiles,
    packed,
    scene_name,
)

FILLED_ROWS = 50_000
"""A call."""
INDEX, PUBLIC = "geostore index", "geostore public"
SCALE_SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
SCALE_ROWS = 20
TILES_A_GLOBE = 40_000_000
"""As many tiles as the globe would have at the density of `--scale`: a quarter holds 10^7."""


# ---------------------------------------------------------------- geostore


def index_ask(catalog: LogCatalog, query: Query, *, count: bool) -> Ask:
    """The search alone. The one place that knows the insides of the catalog."""
    home = catalog._home

    def ask() -> Found:
        view = home.refresh()
        if count:
            return planner.count(view, query)
        if query.limit is None:
            positions = planner.select(view, query).positions
        else:
            positions = Answer(view, query).rows()
        return view.snapshot.columns["row_id"][positions]

    return ask


def public_ask(store: geostore.Store, query: Query, *, count: bool) -> Ask:
    """What a user pays until the rows are in hand, as columns."""
    keywords = _keywords(query)
    if count:
        return lambda: store.query(**keywords).count()

    def ask() -> Found:
        batches = list(store.query(**keywords)._batches())
        if len(batches) == 1:
            return batches[0].row_id
        return np.concatenate([np.empty(0, np.int64), *(batch.row_id for batch in batches)])

    return ask


def _keywords(query: Query) -> dict[str, Any]:
    """The query as keywords of `Store.query`."""

    def percent(bounds: PercentRange | None) -> tuple[float | None, float | None] | None:
        return None if bounds is None else (bounds.minimum, bounds.maximum)

    def moment(time_us: int | None) -> datetime | None:
        return None if time_us is None else datetime_from_us(time_us)

    place = {} if query.region is None else query.region.to_json()
    span = query.time
    given = {
        "dataset": None if query.datasets is None else list(query.datasets),
        "bbox": place.get("bbox"),
        "geometry": place.get("geometry"),
        "geocode": query.geocode,
        "time": None if span is None else (moment(span.start_us), moment(span.end_us)),
        "cloud_cover": percent(query.cloud),
        "pixel_coverage": percent(query.coverage),
        "bands": list(query.bands) or None,
        "platform": query.platform,
        "scene": query.scene,
        "sort": query.sort,
        "limit": query.limit,
    }
    return {name: value for name, value in given.items() if value is not None}


class Geostore:
    """A store of the tiles, open for reading, and which row id is which tile."""

    def __init__(self, tiles: Tiles, directory: Path) -> None:
        if not (directory / "geostore.json").exists():
            self._fill(tiles, directory)
        self.store = geostore.open(directory, mode="r")
        self.catalog = open_catalog(directory / "catalog", writable=False)
        self._numbers = _numbers_of_rows(tiles, list(self.catalog.query(Query())))

    @staticmethod
    def _fill(tiles: Tiles, directory: Path) -> None:
        with geostore.open(directory) as store:
            made = [
                store.create_dataset(name, scheme="geohash", length=LENGTH, resolution=10)
                for name in DATASETS
            ]
        with open_catalog(directory / "catalog", writable=True) as catalog:
            ids = tuple(each.id for each in made)
            for first in range(0, len(tiles), FILLED_ROWS):
                catalog.insert(packed(tiles, first, first + FILLED_ROWS, dataset_ids=ids))

    def numbers(self, row_ids: Ids) -> Ids:
        """The tiles' own ids of rows."""
        return self._numbers[row_ids]

    def close(self) -> None:
        self.catalog.close()
        self.store.close()


def _numbers_of_rows(tiles: Tiles, batches: Sequence[RowBatch]) -> Ids:
    """Row id to the tile's own id, told by scene and cell, which no two tiles share."""
    keys = tiles.scene.astype(np.int64) << 5 * LENGTH | tiles.morton
    order = np.argsort(keys)
    scenes = {scene_name(code): code for code in range(int(tiles.scene.max(initial=0)) + 1)}
    numbers = np.full(max(int(each.row_id.max()) for each in batches) + 1, -1, dtype=np.int64)
    for batch in batches:
        scene = np.array([scenes[name] for name in batch.scene.tolist()], dtype=np.int64)
        cells = GEOHASH.sort_keys(*GEOHASH.cell_indices(batch.geocode.tolist(), LENGTH), LENGTH)
        sought = scene << 5 * LENGTH | cells.astype(np.int64)
        numbers[batch.row_id] = order[np.searchsorted(keys, sought, sorter=order)]
    assert sum(map(len, batches)) == len(tiles)
    return numbers


# ---------------------------------------------------------------- turns


@dataclass(slots=True)
class Timings:
    """Microseconds of one shape by contender, and how many rows its questions have."""

    rows: list[int]
    us: dict[str, list[float]] = field(default_factory=dict)

    def part(self, name: str, percent: float) -> float | None:
        found = self.us.get(name)
        return None if found is None else float(np.percentile(found, percent))


Prepare = Callable[[Query, bool], "Ask | None"]


class Ring:
    """The contenders, loaded, and their turns."""

    def __init__(self, tiles: Tiles, options: argparse.Namespace, work: Path) -> None:
        names: list[str] = options.contenders
        self.tiles = tiles
        self._mixed: bool = options.mixed
        self.loading_s: dict[str, float] = {}
        self._prepare: dict[str, Prepare] = {}
        self._rivals: list[Rival] = []
        self._geostore: Geostore | None = None
        self._random = np.random.default_rng(5)
        if INDEX in names or PUBLIC in names:
            started = time.perf_counter()
            ours = self._geostore = Geostore(tiles, work)
            self.loading_s["geostore"] = time.perf_counter() - started
            whole: dict[str, Prepare] = {
                INDEX: lambda query, count: index_ask(ours.catalog, query, count=count),
                PUBLIC: lambda query, count: public_ask(ours.store, query, count=count),
            }
            self._prepare.update({name: whole[name] for name in whole if name in names})
        for rival in all_rivals(options.disk):
            if rival.name in names:
                started = time.perf_counter()
                rival.load(tiles)
                self.loading_s[rival.name] = time.perf_counter() - started
                self._rivals.append(rival)
                self._prepare[rival.name] = lambda query, count, r=rival: r.prepare(  # type: ignore[misc]
                    query, count=count
                )
        gc.collect()
        gc.freeze()  # what was loaded is not looked at again by the collector

    @property
    def names(self) -> list[str]:
        return list(self._prepare)

    def close(self) -> None:
        for rival in self._rivals:
            rival.close()
        if self._geostore is not None:
            self._geostore.close()
        gc.unfreeze()

    def measure(self, shape: Shape, rounds: int) -> Timings:
        """Checks every answer, then has every contender answer every question `rounds` times."""
        asks, timings = self._checked(shape)
        questions = range(len(shape.queries))
        turns = [[number] for number in questions] if self._mixed else [list(questions)]
        names = list(asks)
        clock = time.perf_counter_ns
        for _ in range(rounds):
            for numbers in turns:
                for which in self._random.permutation(len(names)).tolist():
                    found = timings.us.setdefault(names[which], [])
                    for ask in [asks[names[which]][number] for number in numbers]:
                        started = clock()
                        ask()
                        found.append((clock() - started) / 1e3)
        return timings

    def _checked(self, shape: Shape) -> tuple[dict[str, list[Ask]], Timings]:
        asks: dict[str, list[Ask]] = {}
        timings = Timings([])
        for query in shape.queries:
            expected = answer(self.tiles, query)
            timings.rows.append(len(expected))
            for name, prepare in self._prepare.items():
                ask = prepare(query, shape.asks == "count")
                if ask is not None:
                    self._check(name, shape, query, ask(), expected)
                    asks.setdefault(name, []).append(ask)
        return asks, timings

    def _check(self, name: str, shape: Shape, query: Query, found: Found, expected: Ids) -> None:
        if shape.asks == "count":
            if found != len(expected):
                raise SystemExit(
                    f"{name}, {shape.name}: {found}, expected {len(expected)}: {query}"
                )
            return
        ids = np.asarray(found, dtype=np.int64)
        if name in {INDEX, PUBLIC}:
            assert self._geostore is not None
            ids = self._geostore.numbers(ids)
        if query.limit is None:
            ids = np.sort(ids)
        if not np.array_equal(ids, expected):
            wrong = np.setxor1d(ids, expected)[:5].tolist()
            raise SystemExit(
                f"{name}, {shape.name}: {len(ids)} ids, expected {len(expected)}; in one alone"
                f" {wrong}: {query}"
            )


# ---------------------------------------------------------------- tables


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _pair(timings: Timings, name: str) -> str:
    return f"{_number(timings.part(name, 50))} / {_number(timings.part(name, 95))}"


def _verdict(timings: Timings) -> tuple[str, str, str]:
    """Our median by the best of SQLite's and DuckDB's; by the scan's; whether the bar of the
    twelve shapes is met.
    """
    ours, scan = timings.part(INDEX, 50), timings.part(NumpyScan.name, 50)
    databases = [timings.part(kind.name, 50) for kind in (SqliteBtree, SqliteRtree, DuckDb)]
    known = [value for value in databases if value is not None]
    by_best = met = by_scan = "–"
    if ours is not None and known:
        by_best = f"{ours / min(known):.2f}"
        met = "yes" if ours <= max(1.5 * min(known), 100.0) else "no"
    if ours is not None and scan is not None:
        by_scan = f"{ours / scan:.2f}"
    return by_best, by_scan, met


def _print_shapes(results: dict[str, Timings], names: Sequence[str]) -> None:
    heads = ["shape", "rows p50 (max)", *names, "index / best", "index / scan", "bar met"]
    lines = [heads]
    for shape, timings in results.items():
        rows = f"{int(np.median(timings.rows)):,} ({max(timings.rows):,})"
        cells = [_pair(timings, name) for name in names]
        lines.append([shape, rows, *cells, *_verdict(timings)])
    _print_table(lines)


def _print_table(lines: Sequence[Sequence[str]]) -> None:
    """As docs/benchmarks.md has them."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for number, line in enumerate(lines):
        texts = [line[0].ljust(widths[0])]
        texts += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        print("| " + " | ".join(texts) + " |")
        if not number:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def _print_bars(main: Timings) -> None:
    """The bars of the main query, of the index and of the public call."""
    lines = [["main query", "bar", INDEX, PUBLIC]]
    bars: list[tuple[str, str, str, float, bool]] = [
        ("median by the R*Tree's", "<= 1.0", SqliteRtree.name, 50, False),
        ("95th part by the R*Tree's", "<= 2.0", SqliteRtree.name, 95, False),
        ("DuckDB's median by it", ">= 20", DuckDb.name, 50, True),
        ("the scan's median by it", ">= 100", NumpyScan.name, 50, True),
    ]
    for label, bar, rival, part, inverse in bars:
        theirs = main.part(rival, part)
        line = [label, bar]
        for name in (INDEX, PUBLIC):
            ours = main.part(name, part)
            if ours is None or theirs is None:
                line.append("–")
            else:
                line.append(f"{theirs / ours if inverse else ours / theirs:.2f}")
        lines.append(line)
    _print_table(lines)


def _machine() -> str:
    return (
        f"{os.cpu_count()} cores {platform.machine()}, load {os.getloadavg()[0]:.1f}; Python"
        f" {platform.python_version()}, numpy {np.__version__}, SQLite {apsw.sqlite_lib_version()}"
        f" (apsw {apsw.apsw_version()}), DuckDB {duckdb.__version__}"
    )


# ---------------------------------------------------------------- runs


def _compare(spread: Spread, options: argparse.Namespace, work: Path) -> None:
    tiles = make_tiles(options.tiles, spread)
    asked = shapes(tiles, variants=options.variants, boxes=options.boxes)
    if options.shapes:
        asked = [shape for shape in asked if shape.name in options.shapes]
    ring = Ring(tiles, options, work / f"{spread}-{len(tiles)}")
    loads = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in ring.loading_s.items())
    print(
        f"\n{spread}: {len(tiles):,} tiles, {len(np.unique(tiles.morton)):,} cells,"
        f" {int(tiles.scene[-1]) + 1:,} scenes; {options.rounds} rounds; us, p50 / p95"
        f"\nloading: {loads}\n",
        flush=True,
    )
    results = {shape.name: ring.measure(shape, options.rounds) for shape in asked}
    _print_shapes(results, ring.names)
    if MAIN in results and INDEX in ring.names:
        print()
        _print_bars(results[MAIN])
    ring.close()
    sys.stdout.flush()


def _scale(options: argparse.Namespace, work: Path) -> None:
    """Answers of one size from ever more tiles."""
    sizes = [size for size in SCALE_SIZES if size <= options.tiles]
    found: dict[tuple[str, str], list[float | None]] = {}
    for size in sizes:
        for kind in ("denser",) if options.quick else ("more land", "denser"):
            share = size / TILES_A_GLOBE if kind == "more land" else None
            tiles = make_tiles(size, "scattered", area_share=share)
            asked = [Shape(f"box+3 months+cloud, {SCALE_ROWS} rows", _scale_boxes(tiles, options))]
            wanted = {"scene", "dataset, clearest 10"}
            every = shapes(tiles, variants=options.variants, boxes=1)
            asked += [shape for shape in every if shape.name in wanted]
            kept = work / f"{kind.replace(' ', '-')}-{size}"
            ring = Ring(tiles, options, kept)
            for shape in asked:
                timings = ring.measure(shape, options.rounds)
                for name in ring.names:
                    part = timings.part(name, 50)
                    found.setdefault((f"{kind}: {shape.name}", name), []).append(part)
            ring.close()
    print(f"\nmedians, us; {options.rounds} rounds\n")
    lines = [["answers of one size", "of", *(f"{size:,}" for size in sizes), "growth a factor 10"]]
    for (label, name), parts in found.items():
        if parts[0] is None:
            continue
        steps = [
            f"{after / before:.2f}"
            for before, after in pairwise(parts)
            if before is not None and after is not None
        ]
        lines.append([label, name, *map(_number, parts), ", ".join(steps)])
    _print_table(lines)


def _scale_boxes(tiles: Tiles, options: argparse.Namespace) -> tuple[Query, ...]:
    return nearest_boxes(tiles, options.variants, SCALE_ROWS)


def _options() -> argparse.Namespace:
    known = [INDEX, PUBLIC]
    known += [kind.name for kind in (SqliteBtree, SqliteRtree, DuckDb, NumpyScan)]

    def names(text: str) -> list[str]:
        return [name.strip() for name in text.split(";")]

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20,000 tiles, few questions")
    parser.add_argument("--tiles", type=int, help="default 1,000,000")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--spread", choices=get_args(Spread), help="default: both")
    parser.add_argument("--shapes", type=names, help="names as in the table, `;` between them")
    parser.add_argument("--contenders", type=names, default=known, help="; ".join(known))
    parser.add_argument("--scale", action="store_true", help="growth with the number of tiles")
    parser.add_argument("--mixed", action="store_true", help="turns at every question")
    parser.add_argument("--disk", type=Path, help="SQLite's files there, instead of in memory")
    parser.add_argument("--keep", type=Path, help="stores stay there, and are used if they exist")
    options = parser.parse_args()
    if unknown := set(options.contenders) - set(known):
        parser.error(f"unknown contenders {sorted(unknown)}; known: {'; '.join(known)}")
    options.tiles = options.tiles or (20_000 if options.quick else 1_000_000)
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.variants = 3 if options.quick else 40
    options.boxes = 30 if options.quick else 1000
    return options


def main() -> None:
    options = _options()
    if options.disk is not None:
        options.disk.mkdir(parents=True, exist_ok=True)
    work = options.keep or Path(tempfile.mkdtemp(prefix="bench-index-"))
    work.mkdir(parents=True, exist_ok=True)
    print(_machine())
    try:
        if options.scale:
            _scale(options, work)
            return
        for spread in get_args(Spread):
            if options.spread in {None, spread}:
                _compare(spread, options, work)
        if options.quick:
            options.tiles, options.contenders = 10_000, [INDEX, SqliteRtree.name]
            _scale(options, work)
    finally:
        if options.keep is None:
            shutil.rmtree(work)


if __name__ == "__main__":
    main()
