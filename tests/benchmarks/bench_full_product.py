"""Peak memory of ingesting a whole Sentinel-2 product of 10980 x 10980 pixels and 13 bands.

    python -m tests.benchmarks.bench_full_product [--quick] [--keep DIR]

The product is made of the main scene's pixels, repeated until each band has its full size
(10980, 5490 and 1830 px), as lossless JP2 in tiles of 1024, in a SAFE directory with the main
scene's metadata. `geostore ingest` runs as a process of its own with default settings; its
resident set's peak is what the system counted (VmHWM). Bar: 1.5 GB. Making the product takes
some minutes; --keep leaves it in DIR and uses it again.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import rasterio

from tests.benchmarks.ingest_scenes import SCENE
from tests.benchmarks.three_nodes import machine

BAR_BYTES = 1.5e9
SIDES_PX = {10: 10980, 20: 5490, 60: 1830}
JP2_TILE_PX = 1024


def _enlarge(source: Path, target: Path, sides: dict[int, int]) -> None:
    with rasterio.open(source) as file:
        pixels, profile = file.read(), dict(file.profile)
        side = sides[round(file.transform.a)]
    down, across = (-(-side // pixels.shape[1]), -(-side // pixels.shape[2]))
    whole = np.tile(pixels, (1, down, across))[:, :side, :side]
    profile |= {
        "driver": "JP2OpenJPEG", "height": side, "width": side, "QUALITY": "100",
        "REVERSIBLE": "YES", "blockxsize": JP2_TILE_PX, "blockysize": JP2_TILE_PX,
    }  # fmt: skip
    with rasterio.open(target, "w", **profile) as file:
        file.write(whole)


def make_product(directory: Path, sides: dict[int, int]) -> Path:
    """A SAFE directory of bands of these sides; the one that is there already, if it is."""
    with zipfile.ZipFile(SCENE) as archive:
        root = directory / archive.namelist()[0].partition("/")[0]
        done = directory / "done"
        if done.exists():
            return root
        archive.extractall(directory)
    images = sorted(root.rglob("*.jp2"))
    small = [path.rename(path.with_suffix(".small.jp2")) for path in images]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as executor:
        pairs = zip(small, images, strict=True)
        list(executor.map(lambda pair: _enlarge(*pair, sides), pairs))
    for path in small:
        path.unlink()
    done.touch()
    return root


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="bands of a fifth of the size")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where the product stays")
    options = parser.parse_args()
    if not SCENE.exists():
        print(f"skipped: {SCENE.name} is not beside the repository")
        return 0
    sides = {size: side // 5 for size, side in SIDES_PX.items()} if options.quick else SIDES_PX
    top = Path(tempfile.mkdtemp(prefix="geostore-bench-"))
    try:
        product = make_product(options.keep or top, sides)
        source_bytes = sum(path.stat().st_size for path in product.rglob("*.jp2"))
        started = time.perf_counter()
        words = ["--store", str(top / "store"), "-q", "ingest", str(product)]
        process = subprocess.run(
            [sys.executable, "-m", "geostore_cli", *words],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        if process.returncode:
            raise SystemExit(process.stderr)
        stored = sum(p.stat().st_size for p in (top / "store" / "tiles").rglob("*.zip"))
    finally:
        shutil.rmtree(top)
    print(machine())
    print(f"13 bands, {sides[10]} x {sides[10]} px at 10 m, {source_bytes / 1e9:.2f} GB of JP2")
    print(f"ingested in {seconds:.0f} s")
    print(f"{stored / 1e9:.2f} GB stored")
    print(f"peak of resident memory {peak / 1e9:.2f} GB")
    print(f"bar: at most {BAR_BYTES / 1e9:.1f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
