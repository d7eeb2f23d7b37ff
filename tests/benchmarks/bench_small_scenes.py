"""Many small scenes, and two threads against one.

    python -m tests.benchmarks.bench_small_scenes [--quick] [--rounds N]

A hundred GeoTIFFs of 256 x 256 pixels in three bands (cut-outs of the main scene, one to four
tiles each) go into a new store: with two threads, with one, and with two threads into a store
whose disk does not sync (what durability costs). Then one large GeoTIFF (the main scene's 10 m
bands, twice as large in both directions) with two threads and with one. Rounds are
interleaved; medians. Bars: 50 small scenes a second; two threads 1.7 times as fast as one on
the large scene.

What the machine itself allows: the same with one thread in each of two processes at once, into
two stores, which share no interpreter and no lock.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

from geostore.backends import open_embedded
from geostore.ingest import DatasetRequest, ingest
from tests.benchmarks.ingest_scenes import SCENE, make_geotiff, make_small_geotiffs
from tests.benchmarks.three_nodes import Rounds, machine

SCENES_BAR, THREADS_BAR = 50.0, 1.7


@contextmanager
def _no_sync() -> Iterator[None]:
    with mock.patch("os.fsync"), mock.patch("os.fdatasync"):
        yield


def _in_two_processes(pool: ProcessPoolExecutor, paths: Sequence[Path], work: Path) -> int:
    both = [pool.submit(_ingested, paths, work / name, 1) for name in ("a", "b")]
    return sum(one.result() for one in both)


def _ingested(paths: Sequence[Path], work: Path, workers: int) -> int:
    """Tiles stored."""
    with open_embedded(work / "store") as backend:
        results = list(
            ingest(
                backend, paths, workers=workers, dataset="bench",
                request=DatasetRequest(length=5, resolutions_m=(10.0,)),
            )
        )  # fmt: skip
    failed = [one.error for one in results if one.error]
    if failed:
        raise SystemExit(f"ingest failed: {failed[0]}")
    return sum(one.tiles for one in results)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="ten small scenes, one round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if not SCENE.exists():
        print(f"skipped: {SCENE.name} is not beside the repository")
        return 0
    count = 10 if options.quick else 100
    rounds = 1 if options.quick else options.rounds
    top = Path(tempfile.mkdtemp(prefix="geostore-bench-"))
    times, stack = Rounds(), ExitStack()
    try:
        (top / "small").mkdir()
        small = make_small_geotiffs(top / "small", count)
        large = [make_geotiff(top / "large_20160112.tif", 1 if options.quick else 2)]
        tiles = _ingested(small[:1], top / "warm", 1)
        pool = stack.enter_context(ProcessPoolExecutor(2, get_context("spawn")))
        for number in range(2):  # they import what they need, and wait
            pool.submit(_ingested, small[:1], top / f"warm-{number}", 1).result()
        for _ in range(rounds):
            for what, paths, workers in (
                ("small, 2 threads", small, 2),
                ("small, 1 thread", small, 1),
                ("small, no sync", small, 2),
                ("small, 2 processes", small, 1),
                ("large, 2 threads", large, 2),
                ("large, 1 thread", large, 1),
                ("large, 2 processes", large, 1),
            ):
                with tempfile.TemporaryDirectory(dir=top) as work:

                    def run(
                        paths: list[Path] = paths, work: str = work, workers: int = workers
                    ) -> int:
                        return _ingested(paths, Path(work), workers)

                    if what.endswith("no sync"):
                        with _no_sync():
                            times.time(what, run)
                    elif what.endswith("processes"):
                        times.time(what, partial(_in_two_processes, pool, paths, Path(work)))
                    else:
                        made = times.time(what, run)
                        tiles = made if what.startswith("small") else tiles
    finally:
        stack.close()
        shutil.rmtree(top)
    print(machine())
    print(f"{count} small scenes ({tiles} tiles), {rounds} rounds, medians")
    for what in ("small, 2 threads", "small, 1 thread", "small, no sync"):
        seconds = times.median(what)
        print(f"{what:<20}{seconds:>8.2f} s{count / seconds:>9.1f} scenes/s")
    small_limit = times.median("small, 2 processes")
    print(
        f"{'small, 2 processes':<20}{small_limit:>8.2f} s{2 * count / small_limit:>9.1f} scenes/s"
    )
    print(f"bar: at least {SCENES_BAR:.0f} scenes/s with 2 threads")
    one, two = times.median("large, 1 thread"), times.median("large, 2 threads")
    print(f"large scene: 1 thread {one:.2f} s, 2 threads {two:.2f} s: {one / two:.2f} x")
    limit = times.median("large, 2 processes")
    print(
        f"two processes, a scene each: {limit:.2f} s, so {2 * one / limit:.2f} x is the limit here"
    )
    print(f"bar: at least {THREADS_BAR} x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
