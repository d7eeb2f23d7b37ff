"""Ingest of a scene from warm file cache, against the bare stages it is made of.

    python -m tests.benchmarks.bench_ingest [--quick] [--rounds N] [--workers N]

Two scenes: the main scene (JP2 in a zip), and its 10 m bands three times as large as one
pixel-interleaved GeoTIFF. Each round runs every bare stage on its own (all its work on
`--workers` threads, inputs ready in memory), then the whole ingest into a fresh store; rounds
are interleaved and medians are printed. Bars: whole ≤ 1.2 × the sum of the stages' wall
seconds; masks, statistics and histograms ≤ 15 % of the whole.

`decode` is rasterio's own read of whole images from unpacked files, without geostore: a JP2
file a thread, a GeoTIFF in rows of blocks, all bands at once.
`warp` is the gather by PROJ positions; `warp (GDAL)` is the peer, a WarpedVRT a cell and band
at a tolerance of 1e-4 px, and not part of the sum.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from geostore.backends import open_embedded
from geostore.grid import cell_window
from geostore.index import open_catalog
from geostore.index.entry import entry_from
from geostore.ingest import DatasetRequest, define, ingest, plan_scene
from geostore.ingest.datasets import complete
from geostore.ingest.partition import ChunkPixels, describe_cell, warp_cell
from geostore.ingest.plan import CellPlan, Chunk, ScenePlan
from geostore.ingest.schedule import decode
from geostore.scenes import open_source, reader_named
from geostore.tiles import encode_tile
from tests.benchmarks.ingest_scenes import SCENE, make_geotiff, unpack_images
from tests.benchmarks.three_nodes import machine

BAR, STATISTICS_BAR = 1.2, 0.15
ROWS = 512


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Table:
    """Wall and CPU seconds by stage, one entry a round."""

    def __init__(self) -> None:
        self.wall: dict[str, list[float]] = {}
        self.cpu: dict[str, list[float]] = {}

    def time(self, name: str, call: Callable[[], Any]) -> Any:
        cpu, wall = _cpu_s(), time.perf_counter()
        result = call()
        self.wall.setdefault(name, []).append(time.perf_counter() - wall)
        self.cpu.setdefault(name, []).append(_cpu_s() - cpu)
        return result

    def median(self, name: str) -> float:
        return statistics.median(self.wall[name])

    def print(self, order: Iterable[str]) -> None:
        print(f"{'stage':<22}{'wall s':>10}{'min':>9}{'max':>9}{'cpu s':>10}")
        for name in order:
            wall, cpu = self.wall[name], statistics.median(self.cpu[name])
            print(
                f"{name:<22}{statistics.median(wall):>10.3f}{min(wall):>9.3f}"
                f"{max(wall):>9.3f}{cpu:>10.3f}"
            )


def _bare_decode(files: list[Path], executor: ThreadPoolExecutor) -> None:
    def read(piece: tuple[Path, Window | None]) -> None:
        path, window = piece
        with rasterio.Env(GDAL_NUM_THREADS="1"), rasterio.open(path) as source:
            source.read(window=window)

    pieces: list[tuple[Path, Window | None]] = []
    for path in files:
        with rasterio.open(path) as source:
            if source.count == 1:
                pieces.append((path, None))
                continue
            pieces += [
                (path, Window(0, row, source.width, min(ROWS, source.height - row)))
                for row in range(0, source.height, ROWS)
            ]
    list(executor.map(read, pieces))


def _bare_write(payloads: list[bytes], directory: Path, executor: ThreadPoolExecutor) -> None:
    def write(numbered: tuple[int, bytes]) -> None:
        number, payload = numbered
        descriptor = os.open(directory / f"{number}.bin", os.O_CREAT | os.O_WRONLY)
        os.write(descriptor, payload)
        os.fsync(descriptor)
        os.close(descriptor)

    list(executor.map(write, enumerate(payloads)))


def _gdal_warp(plan: ScenePlan, executor: ThreadPoolExecutor, bands: list[Any]) -> None:
    def warp(cell: CellPlan) -> None:
        for band, memory in zip(plan.bands, bands, strict=True):
            lattice = plan.lattices[band.lattice]
            window = cell_window(
                plan.definition.scheme, cell.geocode, plan.definition.groups[lattice.group]
            )
            with (
                memory.open() as source,
                WarpedVRT(
                    source,
                    crs=window.crs,
                    transform=rasterio.Affine(*window.transform),
                    height=window.height,
                    width=window.width,
                    tolerance=1e-4,
                ) as warped,
            ):
                warped.read(1)

    list(executor.map(warp, plan.cells))


def _round(
    plan: ScenePlan, files: list[Path], table: Table, work: Path, workers: int, gdal: bool
) -> None:
    with ThreadPoolExecutor(workers) as executor:
        table.time("decode", lambda: _bare_decode(files, executor))
        wanted = sorted(
            {chunk for cell in plan.cells for chunk in plan.chunks(cell)},
            key=lambda chunk: (chunk.band, chunk.window.row, chunk.window.column),
        )
        chunks: dict[Chunk, ChunkPixels] = dict(
            zip(wanted, executor.map(lambda chunk: decode(plan, [chunk])[0], wanted), strict=True)
        )
        warped = table.time(
            "warp",
            lambda: list(executor.map(lambda cell: warp_cell(plan, cell, chunks), plan.cells)),
        )
        if gdal:
            memories = []
            for index, band in enumerate(plan.bands):
                parts = [
                    (chunk.window, chunks[chunk].data) for chunk in wanted if chunk.band == index
                ]
                memories.append(_memory_file(band.band.source.grid, parts))
            table.time("warp (GDAL)", lambda: _gdal_warp(plan, executor, memories))
            for memory in memories:
                memory.close()
        pairs = list(zip(plan.cells, warped, strict=True))
        metas = table.time(
            "masks, statistics",
            lambda: list(executor.map(lambda pair: describe_cell(plan, *pair), pairs)),
        )
        made = [
            (meta, pixels) for meta, pixels in zip(metas, warped, strict=True) if meta is not None
        ]
        encoded = table.time(
            "encode", lambda: list(executor.map(lambda pair: encode_tile(*pair), made))
        )
        (work / "bare").mkdir()
        payloads = [tile.payload for tile in encoded]
        table.time("write, fsync", lambda: _bare_write(payloads, work / "bare", executor))
        catalog = open_catalog(work / "catalog", writable=True)
        key = plan.version
        table.time(
            "catalog",
            lambda: (
                catalog.stage([entry_from(tile) for tile in encoded]),
                catalog.publish(plan.definition.id, plan.scene.id, key, None),
            ),
        )
        catalog.close()


def _memory_file(grid: Any, parts: list[tuple[Any, Any]]) -> MemoryFile:
    data = np.zeros((grid.height, grid.width), parts[0][1].dtype)
    for window, pixels in parts:
        data[
            window.row : window.row + window.height, window.column : window.column + window.width
        ] = pixels
    memory = MemoryFile()
    with memory.open(
        driver="GTiff",
        height=grid.height,
        width=grid.width,
        count=1,
        dtype=data.dtype,
        crs=grid.crs_wkt,
        transform=rasterio.Affine(*grid.transform),
        nodata=0,
    ) as target:
        target.write(data, 1)
    return memory


def _whole(path: Path, table: Table, work: Path, workers: int) -> tuple[int, int]:
    backend = open_embedded(str(work / "store"))
    try:
        (result,) = table.time(
            "whole ingest", lambda: list(ingest(backend, [path], workers=workers))
        )
        if result.error:
            raise SystemExit(f"ingest failed: {result.error}")
        return result.tiles, result.bytes
    finally:
        backend.close()


def _measure(path: Path, files: list[Path], rounds: int, workers: int, *, gdal: bool) -> None:
    table = Table()
    tiles = stored = 0
    (scene,) = open_source(str(path))
    with scene:
        reader = reader_named(scene.reader)
        plan = plan_scene(scene, complete(define("bench", DatasetRequest(), reader), scene))
        path.read_bytes()
        for _ in range(rounds):
            work = Path(tempfile.mkdtemp(prefix="geostore-bench-"))
            try:
                _round(plan, files, table, work, workers, gdal=gdal)
                tiles, stored = _whole(path, table, work, workers)
            finally:
                shutil.rmtree(work)
    stages = [name for name in table.wall if name not in {"whole ingest", "warp (GDAL)"}]
    total, whole = sum(table.median(name) for name in stages), table.median("whole ingest")
    pixels = sum(
        group.height * group.width * len(group.bands) for group in plan.schema.groups
    ) * len(plan.cells)
    print(f"{path.name[:60]}: {tiles} tiles, {stored / 1e6:.1f} MB stored,", end=" ")
    print(f"{pixels / 1e6:.0f} M lattice pixels, {workers} threads, {rounds} rounds, medians")
    peers = [name for name in ("warp (GDAL)",) if name in table.wall]
    table.print([*stages, *peers, "whole ingest"])
    print(f"sum of stages {total:.3f} s; whole / sum = {whole / total:.2f}; bar: at most {BAR}")
    share = table.median("masks, statistics") / whole
    print(
        f"masks, statistics: {100 * share:.1f} % of it; bar: at most {100 * STATISTICS_BAR:.0f} %"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round, without the GDAL peer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if not SCENE.exists():
        print(f"skipped: {SCENE.name} is not beside the repository")
        return 0
    print(machine())
    rounds = 1 if options.quick else options.rounds
    top = Path(tempfile.mkdtemp(prefix="geostore-bench-"))
    try:
        (scene,) = open_source(str(SCENE))
        with scene:
            images = unpack_images(top / "jp2", {band.info.name for band in scene.bands})
        _measure(SCENE, images, rounds, options.workers, gdal=not options.quick)
        geotiff = make_geotiff(top / "scene_20160112.tif", 1 if options.quick else 3)
        _measure(geotiff, [geotiff], rounds, options.workers, gdal=False)
    finally:
        shutil.rmtree(top)
    return 0


if __name__ == "__main__":
    sys.exit(main())
