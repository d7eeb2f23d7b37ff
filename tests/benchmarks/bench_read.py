"""A warm read of one tile, against the bare work it cannot do without.

    python tests/benchmarks/bench_read.py [--quick]

The bare work is one pread for each run of neighbouring blocks of the tile's file and one
Blosc decode of each block straight into the caller's array; no catalog, no checksum, no
names. Reads and bare work take turns, so that both see the same machine; medians.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np

import geostore
from geostore import demo
from geostore.tiles.codec import settings_for
from geostore.wrangle.reading import plan_bands

LIMIT = 1.5
"""Of a read of all 10 m bands; one band is held to its share of that."""


def tile_file(store: Path, tile: geostore.Tile) -> Path:
    """The file of a tile: found by its contents' name, as a stranger would."""
    found = [
        path
        for path in sorted((store / "tiles").rglob("*.zip"))
        if tile.geocode in str(path.relative_to(store))
    ]
    if len(found) != 1:
        raise SystemExit(f"{len(found)} files for {tile}, expected one")
    return found[0]


def bare_work(
    path: Path, tile: geostore.Tile, bands: list[str], out: np.ndarray, mask: np.ndarray
) -> Callable[[], None]:
    """pread and decode of the blocks that a read of `bands` needs, as bare as Python lets it."""
    row = tile._row
    table = tile._backend.details(row.key).blocks.tolist()
    plans = plan_bands(row.schema, tuple(bands))
    jobs: list[tuple[int, int, np.ndarray, np.ndarray | None]] = []
    turned: dict[int, np.ndarray] = {}
    uniform: list[tuple[np.ndarray, int]] = []
    for target, entries in ((out, "data_blocks"), (mask, "mask_blocks")):
        for plane, plan in zip(target, plans, strict=True):
            group = row.schema.groups[plan.group_index]
            assert (group.block_height, group.block_width) == plane.shape, "one block a band"
            (index,) = getattr(plan, entries)
            offset, length, fill, _ = table[index]
            if length and settings_for(row.schema.codec, plane.itemsize).order == "F":
                columns = np.empty(plane.shape[::-1], plane.dtype)
                jobs.append((offset, length, columns.reshape(-1).view(np.uint8), plane))
                turned[plane.ctypes.data] = columns
            elif length:
                jobs.append((offset, length, plane.reshape(-1).view(np.uint8), None))
            else:
                uniform.append((plane, fill))
    jobs.sort(key=lambda job: job[0])
    runs: list[list[tuple[int, int, np.ndarray, np.ndarray | None]]] = []
    for job in jobs:
        # Members of the zip are parted by their headers: a gap of a page is one read.
        if runs and job[0] - (runs[-1][-1][0] + runs[-1][-1][1]) <= 4096:
            runs[-1].append(job)
        else:
            runs.append([job])
    descriptor = os.open(path, os.O_RDONLY)

    def work() -> None:
        for run in runs:
            start = run[0][0]
            block = os.pread(descriptor, run[-1][0] + run[-1][1] - start, start)
            view = memoryview(block)
            for offset, length, target, plane in run:
                imagecodecs.blosc_decode(
                    view[offset - start : offset - start + length], numthreads=1, out=target
                )
                if plane is not None:  # a codec that stores columns: turning is its decode
                    columns = turned[plane.ctypes.data]
                    for left in range(0, plane.shape[1], 32):
                        plane[:, left : left + 32] = columns[left : left + 32].T
        for plane, fill in uniform:
            plane[...] = fill

    return work


def interleaved(works: list[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Seconds of each work in each round, taking turns."""
    seconds: list[list[float]] = [[] for _ in works]
    for work in works:
        work()
    for _ in range(rounds):
        for index, work in enumerate(works):
            started = time.perf_counter()
            work()
            seconds[index].append(time.perf_counter() - started)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for CI")
    parser.add_argument("--check", action="store_true", help="fail above the limit")
    arguments = parser.parse_args()
    rounds = 50 if arguments.quick else 1000
    failed = False
    print(f"{platform.machine()}, {os.cpu_count()} processors, {rounds} rounds, warm file cache")
    print(
        f"{'codec':6} {'bands':16} {'read ms':>8} {'bare ms':>8} {'ratio':>6} {'MB':>6} {'GB/s':>6}"
    )
    for codec in ("fast", "small"):
        with tempfile.TemporaryDirectory() as scratch, geostore.open(scratch) as store:
            store.create_dataset("demo", like="sentinel-2-l1c", codec=codec)
            store.ingest([demo.scene_path()], dataset="demo")
            tile = store.query(dataset="demo", sort="-coverage").first()
            path = tile_file(Path(scratch), tile)
            ratios = {}
            for bands in (["B02", "B03", "B04", "B08"], ["B04"]):
                shape = (len(bands), 512, 512)
                mine, bare = np.empty(shape, np.uint16), np.empty(shape, np.uint16)
                mask = np.empty(shape, np.bool_)
                work = bare_work(path, tile, bands, bare, mask)
                read = partial(tile.read, bands, out=mine)
                times = interleaved([read, work], rounds)
                assert np.array_equal(mine, bare), "both must give the same pixels"
                median = [statistics.median(series) for series in times]
                ratio = median[0] / median[1]
                ratios[len(bands)] = median[0]
                failed = failed or (len(bands) == 4 and ratio > LIMIT)
                print(
                    f"{codec:6} {','.join(bands):16} {median[0] * 1e3:8.3f}"
                    f" {median[1] * 1e3:8.3f} {ratio:6.2f} {mine.nbytes / 1e6:6.2f}"
                    f" {mine.nbytes / median[0] / 1e9:6.2f}"
                )
            print(
                f"{codec:6} one band of four costs {ratios[1] / ratios[4]:.2f} of all (share 0.25)"
            )
    print(f"limit {LIMIT:.2f}: {'exceeded' if failed else 'kept'}")
    if failed and arguments.check:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
