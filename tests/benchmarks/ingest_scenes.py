"""Scenes that the ingest benchmarks take in: the main scene, and what is made from its pixels."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import rasterio
from rasterio.io import MemoryFile

__all__ = ["SCENE", "make_geotiff", "make_small_geotiffs", "unpack_images"]

REPOSITORY = Path(__file__).resolve().parents[2]
SCENE = (
    REPOSITORY.parent
    / "shared/data/sentinel2"
    / "S2A_MSIL1C_20160112T160642_N0201_R097_T18SVG_20160112T160642.SAFE.zip"
)
TEN_METRES = ("B02", "B03", "B04", "B08")


def unpack_images(directory: Path, bands: set[str]) -> list[Path]:
    """The main scene's JP2 files of some bands, unpacked."""
    with zipfile.ZipFile(SCENE) as archive:
        members = [
            name
            for name in archive.namelist()
            if name.endswith(".jp2") and name.rsplit("_", 1)[1].removesuffix(".jp2") in bands
        ]
        return [Path(archive.extract(name, directory)) for name in members]


def make_geotiff(path: Path, times: int) -> Path:
    """The main scene's 10 m bands, mirrored `times` by `times`, as a tiled DEFLATE GeoTIFF.

    Pixel-interleaved, blocks of 512, predictor 2: as GDAL's COG driver and most archives do.
    """
    scratch = path.with_suffix(".jp2s")
    layers = []
    for file in sorted(unpack_images(scratch, set(TEN_METRES))):
        with rasterio.open(file) as source:
            layers.append(source.read(1))
            profile = {"crs": source.crs, "transform": source.transform}
    shutil.rmtree(scratch)
    pixels = np.stack(layers)
    row = np.concatenate([pixels, pixels[:, :, ::-1]] * ((times + 1) // 2), axis=2)
    row = row[:, :, : times * pixels.shape[2]]
    whole = np.concatenate([row, row[:, ::-1]] * ((times + 1) // 2), axis=1)
    whole = whole[:, : times * pixels.shape[1]]
    with rasterio.open(
        path, "w", driver="GTiff", count=len(whole), height=whole.shape[1], width=whole.shape[2],
        dtype=whole.dtype, nodata=0, tiled=True, blockxsize=512, blockysize=512,
        compress="deflate", predictor=2, interleave="pixel", num_threads=2, **profile,
    ) as target:  # fmt: skip
        target.write(whole)
    return path


def make_small_geotiffs(directory: Path, count: int, side: int = 256) -> list[Path]:
    """Cut-outs of the main scene's 10 m bands, each a scene of its own."""
    (file,) = unpack_images(directory / "jp2s", {"B04"})
    with rasterio.open(file) as source:
        pixels, crs, transform = source.read(1), source.crs, source.transform
    shutil.rmtree(directory / "jp2s")
    across = pixels.shape[1] // side
    made = []
    for number in range(count):
        row, column = divmod(number % (across * across), across)
        top, left = row * side, column * side
        cut = np.stack([pixels[top : top + side, left : left + side] + band for band in range(3)])
        # No two alike: equal files would be one scene.
        cut[0, 0, 0] = number + 1
        path = directory / f"small-{number:04}_20200101.tif"
        with MemoryFile() as memory:
            with memory.open(
                driver="GTiff", count=3, height=side, width=side, dtype=cut.dtype, nodata=0,
                crs=crs, transform=transform * rasterio.Affine.translation(left, top),
                compress="deflate",
            ) as target:  # fmt: skip
                target.write(cut)
            path.write_bytes(memory.read())
        made.append(path)
    return made
