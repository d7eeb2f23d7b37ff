"""How well cloud layers agree: with labels, with each other, with the package they come from.

    python -m tests.benchmarks.bench_clouds [--quick]

Needs the real scenes beside the repository. Precision, recall and intersection over union of what
is called cloud, in percent:

1. L2A, T29UNU at 60 m: the product's probability (CLDPRB) at or above P, and the masks that it
   carries along from L1C (CLASSI), held against its own classes (SCL 8, 9, 10), which are no
   truth either: what the table shows is that they are not the same thing.
2. Labelled pixels (ukis-csmask; 512 x 512; class 4 is cloud, 0 its shadow): a threshold method on
   the six bands that there are: the spectral tests of Fmask for potential cloud (Zhu and
   Woodcock 2012, Remote Sensing of Environment 118, equations 1 to 4) without those on
   temperature, for want of a thermal band; each test in turn, then all. s2cloudless cannot run
   there: it takes ten bands, of which B01, B05, B09, B10 and one of B08 and B8A are not in it.
   Nor are there quality bits.
3. s2cloudless at ingest against the package, both at 160 m (T18SVG) or the coarsest pixel (T56JMM,
   decimated), the package on averages made here by another way: cells whose percent differs, at
   most by; and the cost: CPU seconds of a whole scene, the ten bands decoded for it included, and
   cells that the package alone tells in one. Last, an ingest with it and without, in turns.

`--quick` leaves out the main scene and takes every third pixel of T29UNU.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from s2cloudless.cloud_detector import S2PixelCloudDetector

import geostore
from geostore.compute import cloud_mask
from geostore.scenes import ReadOptions, open_source
from geostore.types import CloudLayer

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "sentinel2"
L2A = "S2A_MSIL2A_20221005T115411_N0400_R023_T29UNU_20221005T164454.SAFE"
MAIN = "S2A_MSIL1C_20160112T160642_N0201_R097_T18SVG_20160112T160642.SAFE.zip"
DECIMATED = "S2A_MSIL1C_20180629T000241_N0206_R030_T56JMM_20180629T012042.zip"
NEEDED = ("B01", "B02", "B04", "B05", "B08", "B8A", "B09", "B10", "B11", "B12")
THRESHOLDS = (10, 20, 30, 40, 50, 65, 80)
LABEL_CLOUD, LABEL_SHADOW = 4, 0
ROUNDS = 3

_Mask = npt.NDArray[np.bool_]
_Floats = npt.NDArray[np.float64]


def row(name: str, cloud: _Mask, truth: _Mask) -> str:
    both = np.count_nonzero(cloud & truth)
    called, true = np.count_nonzero(cloud), np.count_nonzero(truth)
    either = called + true - both
    figures = [
        100 * called / cloud.size,
        *(100 * both / total if total else float("nan") for total in (called, true, either)),
    ]
    return f"{name:42}" + "".join(f"{figure:11.1f}" for figure in figures)


def heading(title: str) -> str:
    columns = ("cloud %", "precision", "recall", "IoU")
    return f"\n{title:42}" + "".join(f"{column:>11}" for column in columns)


def first_band(path: Path | str) -> npt.NDArray[np.integer]:
    with rasterio.open(path) as dataset:
        data: npt.NDArray[np.integer] = dataset.read(1)
    return data


def l2a_rows(step: int) -> Iterator[str]:
    """The product's layers against its classes at 60 m."""
    (granule,) = (DATA / L2A).glob("GRANULE/*")
    (classes_path,) = granule.glob("IMG_DATA/R60m/*_SCL_60m.jp2")
    classes = first_band(classes_path)[::step, ::step]
    seen = classes != 0
    truth = cloud_mask(classes, CloudLayer.parse("SCL 8,9,10"))[seen]
    likelihood = first_band(granule / "QI_DATA" / "MSK_CLDPRB_60m.jp2")[::step, ::step]
    with rasterio.open(granule / "QI_DATA" / "MSK_CLASSI_B00.jp2") as dataset:
        opaque, cirrus, _ = dataset.read()[:, ::step, ::step]
    yield heading(f"L2A T29UNU, {seen.sum():,} pixels, by SCL")
    yield row("SCL 8,9,10", truth, truth)
    yield row("SCL 8,9 (without cirrus)", np.isin(classes, (8, 9))[seen], truth)
    for least in THRESHOLDS:
        layer = CloudLayer("CLDPRB", "likelihood", frozenset({least}))
        yield row(layer.method, cloud_mask(likelihood, layer)[seen], truth)
    bits = (opaque != 0) | ((cirrus != 0) << 1)
    yield row("CLASSI bits 0 (opaque)", (opaque != 0)[seen], truth)
    yield row("CLASSI bits 0,1", cloud_mask(bits, CloudLayer.parse("CLASSI bits 0,1"))[seen], truth)


def fmask_tests(image: _Floats) -> dict[str, _Mask]:
    """Fmask's spectral tests for potential cloud pixels, those without temperature."""
    blue, green, red, nir, swir1, swir2 = np.moveaxis(image, -1, 0)
    ndsi = (green - swir1) / (green + swir1)
    ndvi = (nir - red) / (nir + red)
    mean = (blue + green + red) / 3
    whiteness = sum(np.abs((one - mean) / mean) for one in (blue, green, red))
    return {
        "basic: SWIR2 > 0.03, NDSI, NDVI < 0.8": (swir2 > 0.03) & (ndsi < 0.8) & (ndvi < 0.8),
        "whiteness < 0.7": whiteness < 0.7,
        "haze: blue - red / 2 - 0.08 > 0": blue - 0.5 * red - 0.08 > 0,
        "rock: NIR / SWIR1 > 0.75": nir / swir1 > 0.75,
    }


def labelled_rows() -> Iterator[str]:
    """Thresholds against labels."""
    with np.load(DATA / "csmask_labelled" / "sentinel2.npz") as arrays:
        image = arrays["img"].astype(float)
        labels = arrays["msk"][..., 0]
    truth = labels == LABEL_CLOUD
    yield heading(f"labelled, {labels.size:,} pixels, by labels")
    together = np.ones(truth.shape, bool)
    for name, passed in fmask_tests(image).items():
        yield row(name, passed, truth)
        together &= passed
    yield row("all: potential cloud of Fmask", together, truth)
    shadow = labels == LABEL_SHADOW
    yield (
        f"of shadow called cloud: {100 * together[shadow].mean():.1f} %; of other ground:"
        f" {100 * together[~shadow & ~truth].mean():.1f} %"
    )


def stored(archive: Path, band: str) -> _Floats:
    """A band's numbers, NaN where it has no data."""
    with zipfile.ZipFile(archive) as members:
        (name,) = [name for name in members.namelist() if name.endswith(f"_{band}.jp2")]
    data = first_band(f"/vsizip/{archive}/{name}").astype(float)
    data[data == 0] = np.nan
    return data


def cell_means(data: _Floats, cells: int, cell_px: int, cut: int) -> tuple[_Floats, _Floats]:
    """Means over cells of `cell_px` pixels that are cut in `cut` a side, and the share measured."""
    side = cells * cell_px
    sums = []
    for values in (np.nan_to_num(data), (~np.isnan(data)).astype(float)):
        rows = np.repeat(values, cut, axis=0)[:side]
        rows = rows.reshape(cells, cell_px, -1).mean(axis=1)
        columns = np.repeat(rows, cut, axis=1)[:, :side]
        sums.append(columns.reshape(cells, cells, cell_px).mean(axis=2))
    return np.divide(sums[0], sums[1], out=np.zeros((cells, cells)), where=sums[1] > 0), sums[1]


def by_the_package(archive: Path, cells: int) -> tuple[npt.NDArray[np.uint8], _Mask, float]:
    """Percent and where it is known, of the first `cells` rows and columns of cells; cells a
    CPU second."""
    means, known = [], np.ones((cells, cells), bool)
    for band in NEEDED:
        data = stored(archive, band)
        if archive.name == MAIN:
            cell_px, cut = {1938: (16, 1), 969: (8, 1), 323: (8, 3)}[data.shape[0]]
        else:  # 73 coarsest pixels a side
            cell_px, cut = data.shape[0], 73
        mean, share = cell_means(data, cells, cell_px, cut)
        means.append(mean)
        known &= share > 0.5
    detector = S2PixelCloudDetector(all_bands=False)
    reflectances = np.stack(means, axis=-1)[np.newaxis] * 1e-4
    detector.get_cloud_probability_maps(reflectances[:, :8], num_threads=1)  # reads the model
    start = time.process_time()
    maps = detector.get_cloud_probability_maps(reflectances, num_threads=1)
    speed = cells * cells / (time.process_time() - start)
    return np.rint(100 * maps[0]).astype(np.uint8), known, speed


def s2cloudless_rows(*, quick: bool) -> Iterator[str]:
    """geostore's likelihoods against the package's, and their cost."""
    columns = ("cells", "differ", "at most", "CPU s", "package")
    yield f"\n{'s2cloudless at ingest':42}" + "".join(f"{column:>11}" for column in columns)
    for name, cells in ((DECIMATED, 73), (MAIN, 120)):
        if quick and name == MAIN:
            continue
        taken = []
        for _ in range(1 if quick else ROUNDS):
            (scene,) = open_source(DATA / name, options=ReadOptions(clouds="s2cloudless"))
            with scene:
                band = scene.bands[-1]
                start = time.process_time()
                grid = band.source.grid
                ours, valid = band.source.read(0, 0, grid.height, grid.width)
                taken.append(time.process_time() - start)
        theirs, known, speed = by_the_package(DATA / name, cells)
        ours = ours[:cells, :cells]
        if valid is not None and not np.array_equal(valid[:cells, :cells], known):
            raise SystemExit(f"{name}: known cells differ from those of the averages made here")
        off = np.abs(ours[known].astype(int) - theirs[known])
        label = f"{scene.properties['mgrs_tile']}, cells of {grid.transform[0]:.0f} m"
        yield (
            f"{label:42}{known.sum():>11,}{np.count_nonzero(off):>11,}{off.max():>11}"
            f"{np.median(taken):>11.2f}{speed:>11,.0f}"
        )


def ingest_rows() -> Iterator[str]:
    """What detection adds to an ingest, in turns."""
    taken: dict[str | None, list[float]] = {None: [], "s2cloudless": []}
    with tempfile.TemporaryDirectory() as folder:
        store = geostore.open(folder)
        for number in range(ROUNDS):
            for clouds, seconds in taken.items():
                start = time.process_time()
                (result,) = store.ingest(
                    [DATA / MAIN], dataset=f"d{number}-{clouds or 'none'}", clouds=clouds, workers=2
                )
                seconds.append(time.process_time() - start)
                if result.status != "ingested":
                    raise SystemExit(f"{MAIN}: {result.error}")
    without, detected = (float(np.median(seconds)) for seconds in taken.values())
    yield (
        f"ingest of the main scene: {detected:.2f} CPU s with s2cloudless, {without:.2f} without:"
        f" {detected / without:.2f} x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"no real scenes here: {DATA} is not a directory")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for rows in (
        l2a_rows(3 if arguments.quick else 1),
        labelled_rows(),
        s2cloudless_rows(quick=arguments.quick),
    ):
        for line in rows:
            print(line, flush=True)
    if not arguments.quick:
        for line in ingest_rows():
            print(line)


if __name__ == "__main__":
    main()
