"""Coverage search and summaries over a million tiles, against numpy and DuckDB.

    python -m tests.benchmarks.bench_coverage [--quick] [--tiles N] [--rounds N] [--firsts N]
        [--spread scattered|scenes] [--keep DIR]

Tiles are those of `million_tiles` with the bitmaps of `million_bitmaps`. A coverage search groups
them by dataset, cell and window of time, unites the bitmaps of each group, and bounds from them
how many pixels its tiles see together. The peers do just that: numpy on arrays that hold nothing
else, bitmaps of a tile side by side, and DuckDB with `bit_or`. Both are given the grouping as
numbers and answer with numbers; the catalog's answer has names, geocodes and scenes. Summaries
stand against DuckDB over the same table, with all that a summary has (counts, bytes, times, sums,
extremes and two histograms of 20 bins), and without the histograms.

Every answer is compared with the peers'; a difference ends the run. Rounds are interleaved,
medians are printed, in milliseconds. "First" is the first search after the catalog was opened, when
bitmaps lie on its snapshot's map; its peer reads the arrays from `.npy` files. How long it would
take to read all bitmaps from the tiles' details, as whoever writes the first snapshot does, is
measured beside it.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import duckdb
import numpy as np
import numpy.typing as npt

from geostore.index import Catalog, open_catalog
from geostore.index.row_bitmaps import RowBitmaps
from geostore.query import CoverageRequest, Query, Summary, Windows, with_cloud_at_most
from geostore.query.summary import HISTOGRAM_BINS, keys_from
from geostore.types import NULL_TIME
from tests.benchmarks.million_bitmaps import TileBitmaps, make_bitmaps
from tests.benchmarks.million_queries import morton_range
from tests.benchmarks.million_tiles import (
    DATASETS,
    LENGTH,
    SCHEMAS,
    Spread,
    Tiles,
    entries,
    make_tiles,
)
from tests.synthetic_tiles import US_DAY

CATALOG, NUMPY, DUCKDB = "catalog", "numpy", "DuckDB"
PIXELS = SCHEMAS[0].groups[0].height * SCHEMAS[0].groups[0].width
BLOCK_PIXELS = PIXELS // 256
TARGET = 95.0
WINDOW_US = 16 * US_DAY
"""Of 16 days."""

Groups = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Of each group how many tiles, certain pixels, possible pixels; by dataset, cell, window."""


@dataclass(frozen=True)
class Question:
    """A coverage search."""

    name: str
    window: str | None = "16D"
    clear: bool = False
    max_cloud: float | None = None
    dataset: str | None = None
    prefix: str | None = None

    @property
    def query(self) -> Query:
        datasets = None if self.dataset is None else (self.dataset,)
        return with_cloud_at_most(Query(datasets=datasets, geocode=self.prefix), self.max_cloud)

    @property
    def request(self) -> CoverageRequest:
        windows = None if self.window is None else Windows.parse(self.window)
        return CoverageRequest(target=TARGET, windows=windows, clear=self.clear)


def questions(tiles: Tiles) -> list[Question]:
    prefixes = tiles.geocodes().astype("U2")
    names, counts = np.unique(prefixes, return_counts=True)
    fullest = str(names[np.argmax(counts)])
    return [
        Question("all, 16 days"),
        Question("all, 16 days, clear", clear=True),
        Question("all, months, clouds at most 20 %", window="1M", max_cloud=20.0),
        Question("all, years", window="1Y"),
        Question("all, no windows", window=None),
        Question("s2, 16 days, clear", dataset="s2", clear=True),
        Question(f"geocode {fullest}, 16 days", prefix=fullest),
        Question(f"landsat, geocode {fullest}, 16 days", dataset="landsat", prefix=fullest),
    ]


# ---------------------------------------------------------------- peers


class NumpyArrays:
    """The columns that a search needs, and the bitmaps of a tile side by side."""

    def __init__(self, columns: dict[str, npt.NDArray[Any]]) -> None:
        self.columns = columns

    @classmethod
    def of(cls, tiles: Tiles, bitmaps: TileBitmaps) -> NumpyArrays:
        valid, clear = bitmaps.bounds
        return cls(
            {
                "dataset": tiles.dataset,
                "cell": tiles.morton.astype(np.int32),
                "time": tiles.time_us,
                "cloud": tiles.cloud,
                "coverage": tiles.coverage,
                "valid": valid,
                "clear": clear,
            }
        )

    @classmethod
    def load(cls, directory: Path) -> NumpyArrays:
        return cls({path.stem: np.load(path) for path in directory.glob("*.npy")})

    def save(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        for name, column in self.columns.items():
            np.save(directory / f"{name}.npy", column)

    def search(self, question: Question) -> Groups:
        columns = self.columns
        wanted = np.ones(len(columns["cell"]), dtype=np.bool_)
        if question.window is not None:
            wanted &= columns["time"] != NULL_TIME
        if question.max_cloud is not None:
            wanted &= columns["cloud"] <= np.float32(question.max_cloud)
        if question.dataset is not None:
            wanted &= columns["dataset"] == DATASETS.index(question.dataset)
        if question.prefix is not None:
            first, last = morton_range(question.prefix)
            wanted &= (columns["cell"] >= first) & (columns["cell"] <= last)
        rows = np.flatnonzero(wanted)
        window = _window(question, columns["time"][rows])
        key = (columns["dataset"][rows].astype(np.int64) << 5 * LENGTH) | columns["cell"][rows]
        if len(window):
            window -= window.min()
            key = key * (int(window.max()) + 1) + window
        order = np.argsort(key, kind="stable")
        rows, key = rows[order], key[order]
        firsts = np.flatnonzero(np.diff(key, prepend=-1))
        words = columns["clear" if question.clear else "valid"][rows]
        united = np.bitwise_or.reduceat(words, firsts) if len(firsts) else words
        blocks = np.bitwise_count(united).reshape(-1, 2, 4).sum(axis=2, dtype=np.int64)
        lower, upper = (blocks * BLOCK_PIXELS).T
        tiles = np.diff(firsts, append=len(rows))
        pixels = np.rint(columns["coverage"][rows].astype(np.float64) * PIXELS / 100.0)
        if len(firsts):
            upper = np.minimum(upper, np.add.reduceat(pixels, firsts).astype(np.int64))
            if not question.clear:
                lower = np.maximum(lower, np.maximum.reduceat(pixels, firsts).astype(np.int64))
        return tiles, np.minimum(lower, upper), upper


def _window(question: Question, time_us: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    if question.window is None:
        return np.zeros(len(time_us), dtype=np.int64)
    if question.window == "16D":
        return time_us // WINDOW_US
    unit = {"1M": "M", "1Y": "Y"}[question.window]
    return time_us.astype("datetime64[us]").astype(f"datetime64[{unit}]").astype(np.int64)


_WINDOW_SQL = {
    None: "0",
    "16D": f"time_us // {WINDOW_US}",
    "1M": "12 * year(moment) + month(moment)",
    "1Y": "year(moment)",
}
_KEY_SQL = {
    "month": "12 * year(moment) + month(moment)",
    "dataset": "dataset",
    "geocode": f"cell >> {5 * (LENGTH - 3)}",
}
_MEASURES = {"cloud_cover": "cloud", "pixel_coverage": "coverage"}


class Duck:
    """One table in memory, in the order of cells, so that a prefix leaves blocks out."""

    def __init__(self, tiles: Tiles, bitmaps: TileBitmaps) -> None:
        self._connection = duckdb.connect(":memory:")
        ends = np.where(tiles.time_end_us == NULL_TIME, tiles.time_us, tiles.time_end_us)
        given: dict[str, npt.NDArray[Any]] = {
            "dataset": tiles.dataset,
            "cell": tiles.morton.astype(np.int32),
            "start": tiles.time_us,
            "ending": ends,
            "cloud_given": tiles.cloud,
            "coverage": tiles.coverage,
            "bytes": tiles.bytes,
        }
        for name, words in zip(("valid", "clear"), bitmaps.bounds, strict=True):
            given |= {
                f"{name}{word}": np.ascontiguousarray(words[:, word]).view(np.int64)
                for word in range(8)
            }
        self._connection.register("given", given)
        plain = [name for name in given if name not in {"start", "ending", "cloud_given"}]
        known = f"start <> {NULL_TIME}"
        self._connection.execute(
            f"CREATE TABLE tiles AS SELECT {', '.join(plain)},"
            f" CASE WHEN {known} THEN start END AS time_us,"
            f" CASE WHEN {known} THEN ending END AS end_us,"
            f" CASE WHEN {known} THEN make_timestamp(start) END AS moment,"
            " CASE WHEN NOT isnan(cloud_given) THEN cloud_given END AS cloud"
            " FROM given ORDER BY cell"
        )
        self._connection.unregister("given")

    def close(self) -> None:
        self._connection.close()

    def search(self, question: Question) -> Groups:
        tests = ["true"]
        if question.window is not None:
            tests.append("time_us IS NOT NULL")
        if question.max_cloud is not None:
            tests.append(f"cloud <= {question.max_cloud}")
        if question.dataset is not None:
            tests.append(f"dataset = {DATASETS.index(question.dataset)}")
        if question.prefix is not None:
            tests.append("cell BETWEEN {} AND {}".format(*morton_range(question.prefix)))
        kind = "clear" if question.clear else "valid"
        words = ", ".join(f"bit_or({kind}{word}) AS w{word}" for word in range(8))
        low, high = (
            f"{BLOCK_PIXELS} * ({' + '.join(f'bit_count(w{word})::BIGINT' for word in part)})"
            for part in (range(4), range(4, 8))
        )
        pixels = f"round_even(coverage::DOUBLE * {PIXELS} / 100.0, 0)"
        lower = low if question.clear else f"greatest({low}, most)"
        found = self._connection.execute(
            f"SELECT tiles, least({lower}, {high}, together)::BIGINT AS lower,"
            f" least({high}, together)::BIGINT AS upper FROM"
            f" (SELECT dataset, cell, {_WINDOW_SQL[question.window]} AS window_, count(*) AS tiles,"
            f" {words}, sum({pixels}) AS together, max({pixels}) AS most FROM tiles"
            f" WHERE {' AND '.join(tests)} GROUP BY ALL) ORDER BY dataset, cell, window_"
        ).fetchnumpy()
        return found["tiles"], found["lower"], found["upper"]

    def summary(self, by: str, *, histograms: bool) -> dict[str, npt.NDArray[Any]]:
        """Columns as a summary has them, by group. Histograms are counts by group and bin, a
        statement each: a third of the time of a count for each bin.
        """
        keys = [_KEY_SQL[key.partition(":")[0]] for key in by.split(",")]
        names = [f"k{number}" for number in range(len(keys))]
        chosen = ", ".join(f"{key} AS {name}" for key, name in zip(keys, names, strict=True))
        order = ", ".join(f"{name} NULLS LAST" for name in names)
        columns = [
            "count(*) AS tiles",
            "sum(bytes)::BIGINT AS bytes",
            "min(time_us) AS time_first",
            "max(end_us) AS time_last",
        ]
        for measure, column in _MEASURES.items():
            columns += [
                f"sum({column}::DOUBLE) AS {measure}_sum",
                f"min({column}) AS {measure}_min",
                f"max({column}) AS {measure}_max",
                f"count(*) - count({column}) AS {measure}_unknown",
            ]
        found: dict[str, npt.NDArray[Any]] = self._connection.execute(
            f"SELECT {chosen}, {', '.join(columns)} FROM tiles GROUP BY ALL ORDER BY {order}"
        ).fetchnumpy()
        for measure, column in _MEASURES.items() if histograms else ():
            number = f"(floor({column}::DOUBLE / 5) - ({column} = 100)::INTEGER)::TINYINT"
            counted = self._connection.execute(
                f"SELECT {chosen}, {number} AS bin, count(*) AS rows FROM tiles GROUP BY ALL"
                f" ORDER BY {order}, bin"
            ).fetchnumpy()
            found[f"{measure}_histogram"] = _dense(names, counted, len(found["tiles"]))
        return found


def _dense(
    names: list[str], counted: dict[str, npt.NDArray[Any]], groups: int
) -> npt.NDArray[np.int64]:
    """(groups, bins) of counts by group and bin, which are in the groups' order."""
    is_first = np.zeros(len(counted["rows"]), dtype=np.bool_)
    is_first[:1] = True
    for name in names:
        key = np.ma.filled(np.ma.asarray(counted[name]).astype(np.int64), -1)
        is_first[1:] |= key[1:] != key[:-1]
    group = np.cumsum(is_first) - 1
    is_known = ~np.ma.getmaskarray(np.ma.asarray(counted["bin"]))
    found = np.zeros((groups, HISTOGRAM_BINS), dtype=np.int64)
    found[group[is_known], np.ma.getdata(counted["bin"])[is_known]] = counted["rows"][is_known]
    return found


# ---------------------------------------------------------------- the catalog


def filled(tiles: Tiles, bitmaps: TileBitmaps, directory: Path) -> None:
    """A catalog of the tiles, unless it is there."""
    done = directory / "filled"
    if done.exists():
        return
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    started = time.perf_counter()
    with open_catalog(directory / "catalog", writable=True) as catalog:
        catalog.rebuild(entries(tiles, bitmaps_of=bitmaps.of))
    NumpyArrays.of(tiles, bitmaps).save(directory / "arrays")
    done.touch()
    print(f"filled in {time.perf_counter() - started:.0f} s")


def searched(catalog: Catalog, question: Question) -> Groups:
    groups = catalog.coverage(question.query, question.request).groups
    return groups.tiles, groups.lower, groups.upper


def check_groups(name: str, question: Question, found: Groups, expected: Groups) -> None:
    for label, one, other in zip(("tiles", "lower", "upper"), found, expected, strict=True):
        if not np.array_equal(one, other):
            raise SystemExit(
                f"{name}, {question.name}: {label} of {len(one):,} groups, expected those of"
                f" {len(other):,}: {one[:8]}, {other[:8]}"
            )


def check_summary(by: str, found: Summary, expected: dict[str, npt.NDArray[Any]]) -> None:
    columns = found.columns
    for name in ("tiles", "bytes", "time_first", "time_last", *_measure_columns()):
        ours, theirs = columns[name].astype(np.float64), np.ma.getdata(expected[name])
        if name.endswith("_sum"):
            ours, theirs = found.mean(name[:-4]) * found.known(name[:-4]), theirs.copy()
        is_null = np.ma.getmaskarray(np.ma.asarray(expected[name]))
        if name.startswith("time"):
            is_null |= columns["time_last"] < columns["time_first"]
        if len(ours) != len(theirs) or not np.allclose(
            ours[~is_null], theirs[~is_null].astype(np.float64), rtol=1e-7, atol=1e-6
        ):
            raise SystemExit(f"summary by {by}: {name} differs: {ours[:5]}, {theirs[:5]}")
    for measure in _MEASURES:
        name = f"{measure}_histogram"
        if not np.array_equal(columns[name], expected[name]):
            raise SystemExit(f"summary by {by}: histogram of {measure} differs")


def _measure_columns() -> Iterator[str]:
    for measure in _MEASURES:
        for name in ("sum", "min", "max", "unknown"):
            yield f"{measure}_{name}"


# ---------------------------------------------------------------- turns and tables

Calls = dict[str, Callable[[], object]]


def medians_ms(calls: Calls, rounds: int, random: np.random.Generator) -> dict[str, float]:
    """Of each call, in an order drawn anew each round."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for _ in range(rounds):
        for which in random.permutation(len(names)).tolist():
            started = time.perf_counter()
            calls[names[which]]()
            taken[names[which]].append((time.perf_counter() - started) * 1e3)
    return {name: statistics.median(each) for name, each in taken.items()}


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def print_table(lines: Sequence[Sequence[str]]) -> None:
    """As docs/benchmarks.md has them."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    print()
    for number, line in enumerate(lines):
        texts = [line[0].ljust(widths[0])]
        texts += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        print("| " + " | ".join(texts) + " |")
        if not number:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|", flush=True)


@contextmanager
def _timed(taken: dict[str, list[float]], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    taken.setdefault(name, []).append((time.perf_counter() - started) * 1e3)


def first_searches(directory: Path, question: Question, rounds: int) -> None:
    """Opening, rows into memory, the first search and the next; and the peer from its files."""
    taken: dict[str, list[float]] = {}
    for _ in range(rounds):
        with _timed(taken, "open"):
            catalog = open_catalog(directory / "catalog", writable=False)
        with catalog:
            with _timed(taken, "rows into memory"):
                catalog.refresh()
            with _timed(taken, "first search"):
                found = searched(catalog, question)
            with _timed(taken, "second search"):
                searched(catalog, question)
            rows, log = catalog._home.refresh().snapshot, catalog._home.view_at
            with _timed(taken, "bitmaps of all tiles out of their details"):
                RowBitmaps().fill(rows, log)
        with _timed(taken, "numpy: arrays read"):
            arrays = NumpyArrays.load(directory / "arrays")
        with _timed(taken, "numpy: search"):
            expected = arrays.search(question)
        check_groups(CATALOG, question, found, expected)
        del arrays, catalog
        gc.collect()
    print_table(
        [
            ["first search after opening, ms", "median", "of"],
            *(
                [name, _number(statistics.median(each)), str(len(each))]
                for name, each in taken.items()
            ),
        ]
    )


def compare_searches(
    catalog: Catalog, arrays: NumpyArrays, duck: Duck, asked: list[Question], rounds: int
) -> None:
    random = np.random.default_rng(3)
    lines = [
        [
            *("coverage, ms", "tiles", "groups", "reached", "open", CATALOG, NUMPY, DUCKDB),
            *(f"{CATALOG} / {NUMPY}", f"{CATALOG} / {DUCKDB}"),
        ]
    ]
    for question in asked:
        expected = arrays.search(question)
        check_groups(DUCKDB, question, duck.search(question), expected)
        check_groups(CATALOG, question, searched(catalog, question), expected)
        tiles, lower, upper = expected
        is_certain, is_possible = (100.0 * each >= TARGET * PIXELS for each in (lower, upper))
        calls: Calls = {
            CATALOG: lambda q=question: searched(catalog, q),  # type: ignore[misc]
            NUMPY: lambda q=question: arrays.search(q),  # type: ignore[misc]
            DUCKDB: lambda q=question: duck.search(q),  # type: ignore[misc]
        }
        ms = medians_ms(calls, rounds, random)
        lines.append(
            [
                question.name,
                f"{int(tiles.sum()):,}",
                f"{len(tiles):,}",
                f"{int(is_certain.sum()):,}",
                f"{int((is_possible & ~is_certain).sum()):,}",
                *(_number(ms[name]) for name in (CATALOG, NUMPY, DUCKDB)),
                f"{ms[CATALOG] / ms[NUMPY]:.2f}",
                f"{ms[CATALOG] / ms[DUCKDB]:.2f}",
            ]
        )
    print_table(lines)


def compare_summaries(catalog: Catalog, duck: Duck, rounds: int) -> None:
    random = np.random.default_rng(4)
    plain = f"{DUCKDB}, no histograms"
    lines = [
        [
            *("summary by, ms", "groups", CATALOG, DUCKDB, plain),
            *(f"{CATALOG} / {DUCKDB}", f"{CATALOG} / {plain}"),
        ]
    ]
    for by in ("month", "dataset", "geocode:3", "month,dataset"):
        keys = keys_from(by.split(","))
        found = catalog.aggregate(Query(), keys)
        check_summary(by, found, duck.summary(by, histograms=True))
        calls: Calls = {
            CATALOG: lambda k=keys: catalog.aggregate(Query(), k),  # type: ignore[misc]
            DUCKDB: lambda b=by: duck.summary(b, histograms=True),  # type: ignore[misc]
            plain: lambda b=by: duck.summary(b, histograms=False),  # type: ignore[misc]
        }
        ms = medians_ms(calls, rounds, random)
        lines.append(
            [
                by,
                f"{len(found):,}",
                *(_number(ms[name]) for name in calls),
                f"{ms[CATALOG] / ms[DUCKDB]:.2f}",
                f"{ms[CATALOG] / ms[plain]:.2f}",
            ]
        )
    print_table(lines)


def compare(spread: Spread, options: argparse.Namespace, work: Path) -> None:
    tiles = make_tiles(options.tiles, spread)
    bitmaps = make_bitmaps(tiles)
    directory = work / f"coverage-{spread}-{len(tiles)}"
    cells = len(np.unique(tiles.morton))
    print(f"\n{spread}: {len(tiles):,} tiles, {cells:,} cells; {options.rounds} rounds", flush=True)
    filled(tiles, bitmaps, directory)
    asked = questions(tiles)
    first_searches(directory, asked[0], options.firsts)
    arrays, duck = NumpyArrays.of(tiles, bitmaps), Duck(tiles, bitmaps)
    with open_catalog(directory / "catalog", writable=False) as catalog:
        compare_searches(catalog, arrays, duck, asked, options.rounds)
        compare_summaries(catalog, duck, options.rounds)
    duck.close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10,000 tiles, one round")
    parser.add_argument("--tiles", type=int, help="default 1,000,000")
    parser.add_argument("--rounds", type=int, help="default 5")
    parser.add_argument("--firsts", type=int, help="openings; default 3")
    parser.add_argument("--spread", choices=get_args(Spread), help="default: both")
    parser.add_argument("--keep", type=Path, help="catalogs stay there, and are used if they exist")
    options = parser.parse_args()
    options.tiles = options.tiles or (10_000 if options.quick else 1_000_000)
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.firsts = options.firsts or (1 if options.quick else 3)
    return options


def main() -> None:
    options = _options()
    work = options.keep or Path(tempfile.mkdtemp(prefix="bench-coverage-"))
    work.mkdir(parents=True, exist_ok=True)
    print(
        f"{os.cpu_count()} cores {platform.machine()}, load {os.getloadavg()[0]:.1f}; Python"
        f" {platform.python_version()}, numpy {np.__version__}, DuckDB {duckdb.__version__}"
    )
    try:
        for spread in get_args(Spread):
            if options.spread in {None, spread}:
                compare(spread, options, work)
    finally:
        if options.keep is None:
            shutil.rmtree(work)


if __name__ == "__main__":
    main()
