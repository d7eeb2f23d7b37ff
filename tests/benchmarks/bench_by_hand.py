"""Ingest against what a user would write by hand with rasterio, on the same cells and threads.

    python -m tests.benchmarks.bench_by_hand [--quick] [--rounds N] [--workers N]

By hand: for each cell and band a `WarpedVRT` (nearest, tolerance 1e-4 px: the accuracy that
the ingest has) is read and the cell written as a file of its own with a row in SQLite: as a
tiled GeoTIFF (ZSTD 1, predictor 2), and as a COG by rio-cogeo with the same codec. Cells are
spread over `--workers` threads, each with its own open files. Bands of other pixel sizes go
into a file each, as a GeoTIFF has one pixel size.

Two scenes: the main scene (JP2), and its 10 m bands three times as large as one GeoTIFF.
Rounds are interleaved, medians are printed. Bars: on the GeoTIFF 2 × and 4 × as fast as by
hand (GeoTIFF and COG), on JP2 1.2 × and 1.5 ×.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT
from rio_cogeo.cogeo import cog_translate
from rio_cogeo.profiles import cog_profiles

from geostore.backends import open_embedded
from geostore.grid import LatticeWindow, cell_window
from geostore.ingest import DatasetRequest, define, ingest, plan_scene
from geostore.ingest.datasets import complete
from geostore.ingest.plan import CellPlan, ScenePlan
from geostore.scenes import open_source, reader_named
from tests.benchmarks.ingest_scenes import SCENE, make_geotiff, unpack_images
from tests.benchmarks.three_nodes import Rounds, machine

BARS = {"GeoTIFF": (2.0, 4.0), "JP2": (1.2, 1.5)}
TOLERANCE_PX = 1e-4
CREATION = {
    "driver": "GTiff",
    "tiled": True,
    "blockxsize": 512,
    "blockysize": 512,
    "compress": "zstd",
    "zstd_level": 1,
    "predictor": 2,
}


class _ByHand:
    """One run: its files, and a SQLite row a cell."""

    def __init__(self, plan: ScenePlan, files: dict[int, tuple[Path, int]], work: Path) -> None:
        self._plan = plan
        self._files = files
        """(path, band number) of each band of the plan."""
        self._work = work
        self._own = threading.local()
        self._lock = threading.Lock()
        self._rows = sqlite3.connect(work / "tiles.sqlite", check_same_thread=False)
        self._rows.execute("PRAGMA journal_mode=WAL")
        self._rows.execute(
            "CREATE TABLE tile (geocode TEXT, path TEXT, coverage REAL, bytes INTEGER)"
        )

    def run(self, workers: int, *, cog: bool) -> None:
        with ThreadPoolExecutor(workers) as executor:
            list(executor.map(lambda cell: self._cell(cell, cog=cog), self._plan.cells))
        self._rows.commit()
        self._rows.close()

    def _open(self, path: Path) -> Any:
        opened: dict[Path, Any] = self._own.__dict__.setdefault("opened", {})
        if path not in opened:
            opened[path] = rasterio.open(path)
        return opened[path]

    def _cell(self, cell: CellPlan, *, cog: bool) -> None:
        for group in range(len(self._plan.schema.groups)):
            bands = [index for index, one in enumerate(self._plan.bands) if one.group == group]
            lattice = self._plan.lattices[self._plan.bands[bands[0]].lattice]
            window = cell_window(
                self._plan.definition.scheme,
                cell.geocode,
                self._plan.definition.groups[lattice.group],
            )
            data = np.stack([self._warped(index, window) for index in bands])
            if data.any():
                self._write(cell.geocode, group, data, window, cog=cog)

    def _warped(self, index: int, window: LatticeWindow) -> npt.NDArray[Any]:
        path, number = self._files[index]
        with WarpedVRT(
            self._open(path),
            crs=window.crs,
            transform=rasterio.Affine(*window.transform),
            height=window.height,
            width=window.width,
            nodata=0,
            tolerance=TOLERANCE_PX,
        ) as warped:
            pixels: npt.NDArray[Any] = warped.read(number)
        return pixels

    def _write(
        self,
        geocode: str,
        group: int,
        data: npt.NDArray[Any],
        window: LatticeWindow,
        *,
        cog: bool,
    ) -> None:
        path = self._work / f"{geocode}-{group}.tif"
        shape = {
            "count": len(data),
            "height": window.height,
            "width": window.width,
            "dtype": data.dtype,
            "crs": window.crs,
            "transform": rasterio.Affine(*window.transform),
            "nodata": 0,
        }
        if cog:
            with MemoryFile() as memory:
                with memory.open(driver="GTiff", **shape) as target:
                    target.write(data)
                with memory.open() as source:
                    profile = {**cog_profiles.get("zstd"), "zstd_level": 1, "predictor": 2}
                    cog_translate(source, path, profile, in_memory=True, quiet=True)
        else:
            with rasterio.open(path, "w", **shape, **CREATION) as target:
                target.write(data)
        coverage = 100.0 * float(np.count_nonzero(data.all(axis=0))) / data[0].size
        with self._lock:
            self._rows.execute(
                "INSERT INTO tile VALUES (?, ?, ?, ?)",
                (geocode, str(path), coverage, path.stat().st_size),
            )


def _ingested(path: Path, work: Path, workers: int) -> None:
    with open_embedded(work / "store") as backend:
        (result,) = ingest(backend, [path], workers=workers)
        if result.error:
            raise SystemExit(f"ingest failed: {result.error}")


def _measure(name: str, path: Path, top: Path, rounds: int, workers: int) -> None:
    times = Rounds()
    (scene,) = open_source(path)
    with scene:
        reader = reader_named(scene.reader)
        definition = complete(define("bench", DatasetRequest(), reader), scene)
        plan = plan_scene(scene, definition)
        if path == SCENE:
            found = unpack_images(top / "jp2", {one.band.info.name for one in plan.bands})
            by_name = {file.stem.rsplit("_", 1)[1]: file for file in found}
            files = {i: (by_name[one.band.info.name], 1) for i, one in enumerate(plan.bands)}
        else:
            files = {i: (path, i + 1) for i in range(len(plan.bands))}
        path.read_bytes()
        for _ in range(rounds):
            for what in ("geostore", "by hand", "by hand, COG"):
                with tempfile.TemporaryDirectory(dir=top) as folder:
                    work = Path(folder)
                    if what == "geostore":
                        times.time(what, lambda to=work: _ingested(path, to, workers))  # type: ignore[misc]
                        continue
                    hand = _ByHand(plan, files, work)
                    is_cog = what.endswith("COG")
                    times.time(what, lambda run=hand, cog=is_cog: run.run(workers, cog=cog))  # type: ignore[misc]
    ours = times.median("geostore")
    print(f"{name}: {len(plan.bands)} bands, {len(plan.cells)} cells, {rounds} rounds")
    print(f"  {'geostore':<16}{ours:>9.2f} s")
    for what, bar in zip(("by hand", "by hand, COG"), BARS[name], strict=True):
        hand_s = times.median(what)
        print(f"  {what:<16}{hand_s:>9.2f} s   {hand_s / ours:.2f} x; bar: at least {bar} x")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small GeoTIFF, one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if not SCENE.exists():
        print(f"skipped: {SCENE.name} is not beside the repository")
        return 0
    print(machine())
    print(f"{options.workers} threads, medians")
    top = Path(tempfile.mkdtemp(prefix="geostore-bench-"))
    try:
        geotiff = make_geotiff(top / "scene_20160112.tif", 1 if options.quick else 3)
        rounds = 1 if options.quick else options.rounds
        _measure("GeoTIFF", geotiff, top, rounds, options.workers)
        if not options.quick:
            _measure("JP2", SCENE, top, rounds, options.workers)
    finally:
        shutil.rmtree(top)
    return 0


if __name__ == "__main__":
    sys.exit(main())
