"""Ingest of the main scene from warm file cache, against the bare stages it is made of.

    python -m tests.benchmarks.bench_ingest [--quick] [--rounds N] [--workers N]

Each round runs every bare stage on its own (all its work on `--workers` threads, inputs
ready in memory), then the whole ingest into a fresh store; rounds are interleaved and medians
are printed. Bar: whole ≤ 1.35 × the sum of the stages' wall seconds.

`decode` is rasterio's own read of whole bands from unpacked JP2 files, without geostore.
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
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from geostore.backends import open_embedded
from geostore.grid import cell_window
from geostore.index import open_catalog
from geostore.index.entry import entry_from
from geostore.ingest import DatasetRequest, define, ingest, plan_scene
from geostore.ingest.partition import ChunkPixels, describe_cell, warp_cell
from geostore.ingest.plan import CellPlan, Chunk, ScenePlan
from geostore.ingest.schedule import decode
from geostore.scenes import open_source, readers
from geostore.tiles import encode_tile

REPOSITORY = Path(__file__).resolve().parents[2]
SCENE = (
    REPOSITORY.parent
    / "shared/data/sentinel2"
    / "S2A_MSIL1C_20160112T160642_N0201_R097_T18SVG_20160112T160642.SAFE.zip"
)
BAR = 1.35


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
    def read(path: Path) -> None:
        with rasterio.Env(GDAL_NUM_THREADS="1"), rasterio.open(path) as source:
            source.read(1)

    list(executor.map(read, files))


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


def _unpack(directory: Path, names: set[str]) -> list[Path]:
    with zipfile.ZipFile(SCENE) as archive:
        members = [
            name
            for name in archive.namelist()
            if name.endswith(".jp2") and name.rsplit("_", 1)[1].removesuffix(".jp2") in names
        ]
        return [Path(archive.extract(name, directory)) for name in members]


def _round(plan: ScenePlan, table: Table, work: Path, workers: int, gdal: bool) -> None:
    scene_files = _unpack(work / "jp2", {band.band.info.name for band in plan.bands})
    with ThreadPoolExecutor(workers) as executor:
        table.time("decode", lambda: _bare_decode(scene_files, executor))
        wanted = sorted(
            {chunk for cell in plan.cells for chunk in plan.chunks(cell)},
            key=lambda chunk: (chunk.band, chunk.window.row, chunk.window.column),
        )
        chunks: dict[Chunk, ChunkPixels] = dict(
            zip(wanted, executor.map(lambda chunk: decode(plan, chunk), wanted), strict=True)
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


def _whole(table: Table, work: Path, workers: int) -> tuple[int, int]:
    backend = open_embedded(str(work / "store"))
    try:
        (result,) = table.time(
            "whole ingest", lambda: list(ingest(backend, [SCENE], workers=workers))
        )
        if result.error:
            raise SystemExit(f"ingest failed: {result.error}")
        return result.tiles, result.bytes
    finally:
        backend.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round, without the GDAL peer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if not SCENE.exists():
        print(f"skipped: {SCENE.name} is not beside the repository")
        return 0
    rounds = 1 if options.quick else options.rounds
    table = Table()
    (scene,) = open_source(str(SCENE))
    definition = define("bench", DatasetRequest(), readers()[scene.reader])
    plan = plan_scene(scene, definition)
    SCENE.read_bytes()
    tiles = stored = 0
    for _ in range(rounds):
        work = Path(tempfile.mkdtemp(prefix="geostore-bench-"))
        try:
            _round(plan, table, work, options.workers, gdal=not options.quick)
            tiles, stored = _whole(table, work, options.workers)
        finally:
            shutil.rmtree(work)
    scene.close()
    stages = [name for name in table.wall if name not in {"whole ingest", "warp (GDAL)"}]
    total = sum(table.median(name) for name in stages)
    pixels = sum(
        group.height * group.width * len(group.bands) for group in plan.schema.groups
    ) * len(plan.cells)
    print(f"{tiles} tiles, {stored / 1e6:.1f} MB stored, {pixels / 1e6:.0f} M lattice pixels,")
    print(f"{options.workers} threads, {rounds} rounds, medians, Python {sys.version.split()[0]}")
    peers = [name for name in ("warp (GDAL)",) if name in table.wall]
    table.print([*stages, *peers, "whole ingest"])
    print(f"sum of stages {total:.3f} s; whole / sum = {table.median('whole ingest') / total:.2f}")
    print(f"bar: at most {BAR}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
