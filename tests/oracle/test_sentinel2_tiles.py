"""Invariants 3 and 4 on tiles of band files, of L1C's own masks and of detected likelihoods."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from rasterio.io import DatasetReader, MemoryFile
from rasterio.vrt import WarpedVRT

import geostore
from geostore import demo
from geostore.api import Store
from tests.oracle.warps import mosaic_of
from tests.sentinel2_products import Safe

PATCHES = "BigEarthNet-S2-Example"
NEEDED = ["B01", "B02", "B04", "B05", "B08", "B8A", "B09", "B10", "B11", "B12"]


@contextmanager
def as_dataset(data: npt.NDArray[np.uint8], crs: str, transform: Affine) -> Iterator[DatasetReader]:
    height, width = data.shape
    profile = {"driver": "GTiff", "count": 1, "dtype": data.dtype, "crs": crs}
    profile |= {"height": height, "width": width, "transform": transform}
    with MemoryFile() as memory:
        with memory.open(**profile) as target:
            target.write(data, 1)
        with memory.open() as dataset:
            yield dataset


def assert_warped(arrays, dataset: DatasetReader, nodata: float | None) -> None:
    """The mosaic of `arrays` (of one band) is one warp of the whole source.

    Without a nodata value only what is valid in the tiles is compared: such layers end where
    the measured bands do.
    """
    mosaic = mosaic_of(arrays)
    rows, columns = mosaic.data.shape
    with WarpedVRT(
        dataset,
        crs=mosaic.crs,
        transform=mosaic.transform,
        height=rows,
        width=columns,
        tolerance=1e-6,
        add_alpha=nodata is None,
    ) as warped:
        whole = warped.read(1)
        inside = warped.read(2) != 0 if nodata is None else whole != nodata
    if nodata is None:
        assert not (mosaic.valid & ~inside).sum() > mosaic.valid.sum() / 10_000
        inside = mosaic.valid
    assert inside.any()
    wrong = mosaic.differs(whole, inside)
    assert wrong.sum() <= inside.sum() / 10_000 + 1


@pytest.fixture(scope="module")
def patches(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Path]:
    folder = tmp_path_factory.mktemp("patches")
    archive = shared_data / "sentinel2" / f"{PATCHES}.tar.bz2"
    with tarfile.open(archive) as members:
        members.extractall(folder, filter="data")
    store = geostore.open(str(folder / "store"))
    results = list(store.ingest([archive]))
    assert [result.status for result in results] == ["ingested"] * 6
    return store, folder / PATCHES


@pytest.mark.parametrize("band", ["B02", "B05", "B09"])
def test_patches(patches: tuple[Store, Path], band: str) -> None:
    store, folder = patches
    for path in sorted(folder.iterdir()):
        tiles = list(store.query(dataset="sentinel-2-l2a", scene=path.name))
        assert tiles
        assert {tile.cloud_cover for tile in tiles} == {None}
        with rasterio.open(path / f"{path.name}_{band}.tif") as source:
            data, crs, transform = source.read(1), source.crs, source.transform
        with MemoryFile() as memory:
            profile = {"driver": "GTiff", "count": 1, "dtype": data.dtype, "crs": crs, "nodata": 0}
            height, width = data.shape
            with memory.open(**profile, height=height, width=width, transform=transform) as target:
                target.write(data, 1)
            with memory.open() as dataset:
                assert_warped([tile.read(bands=[band]) for tile in tiles], dataset, nodata=0)


def test_detected_likelihoods(tmp_path: Path) -> None:
    """The scene that ships in the package, held against the package's own answer at 160 m."""
    from s2cloudless import S2PixelCloudDetector

    scene = demo.scene_path()
    means = []
    with zipfile.ZipFile(scene) as archive:
        names = archive.namelist()
    for band in NEEDED:
        (name,) = [name for name in names if name.endswith(f"_{band}.jp2")]
        with rasterio.open(f"/vsizip/{Path(scene).resolve()}/{name}") as dataset:
            data, size = dataset.read(1).astype(float), round(dataset.res[0])
            crs, transform = dataset.crs, dataset.transform
        data[data == 0] = np.nan  # a few pixels of the cirrus band
        if size == 60:
            data, size = np.kron(data, np.ones((3, 3))), 20
        step = 160 // size
        side = -(-data.shape[0] // step)
        padded = np.full((side * step, side * step), np.nan)
        padded[: data.shape[0], : data.shape[1]] = data
        means.append(np.nanmean(padded.reshape(side, step, side, step), axis=(1, 3)))
    detector = S2PixelCloudDetector(all_bands=False)
    maps = detector.get_cloud_probability_maps(np.stack(means, axis=-1)[np.newaxis] * 1e-4)
    percent = np.rint(100 * maps[0]).astype(np.uint8)
    store = geostore.open(str(tmp_path / "store"))
    for workers in (1, 2):
        dataset_name = f"clouds-{workers}"
        (result,) = store.ingest(
            [scene], dataset=dataset_name, clouds="s2cloudless", workers=workers
        )
        assert result.status == "ingested", result
        tiles = list(store.query(dataset=dataset_name))
        corner = Affine(160, 0, transform.c, 0, -160, transform.f)
        with as_dataset(percent, crs, corner) as dataset:
            assert_warped([tile.read(bands=["S2CLOUDLESS"]) for tile in tiles], dataset, None)
        for tile in tiles:
            read = tile.read(bands=["S2CLOUDLESS"])
            counted = np.bincount(read.data[0][read.mask[0]], minlength=101)
            assert list(tile.cloud_histogram) == counted.tolist()
            assert tile.cloud_method == "S2CLOUDLESS >= 50"
            assert tile.cloud_cover == pytest.approx(100 * counted[50:].sum() / counted.sum())
            assert tile.properties["cloud_detector"].startswith("s2cloudless 1.")
            # It ends where the measured bands do.
            assert not (read.mask[0] & ~tile.read(bands=["B01"]).mask[0]).any()


def test_masks_of_level_1c(shared_data: Path, tmp_path: Path) -> None:
    """The real MSK_CLASSI_B00 of T29UNU with its B01, as a product of level 1C."""
    (granule,) = (shared_data / "sentinel2").glob("S2A_MSIL2A_*T29UNU*.SAFE/GRANULE/*")
    safe = Safe(tmp_path, baseline="0400").metadata()
    (image,) = granule.glob("IMG_DATA/R60m/*_B01_60m.jp2")
    safe.band_path("B01").parent.mkdir(parents=True)
    safe.band_path("B01").symlink_to(image)
    (safe.granule / "QI_DATA").mkdir()
    mask = granule / "QI_DATA" / "MSK_CLASSI_B00.jp2"
    (safe.granule / "QI_DATA" / mask.name).symlink_to(mask)
    with rasterio.open(mask) as source:
        opaque, cirrus, snow = source.read()
        crs, transform = source.crs, source.transform
    store = geostore.open(str(tmp_path / "store"))
    store.create_dataset("s2", resolution=(60,), length=4)
    (result,) = store.ingest([safe.path], dataset="s2", workers=2)
    assert result.status == "ingested", result
    tiles = list(store.query(dataset="s2"))
    assert len(tiles) > 1
    arrays = [tile.read(bands=["CLASSI"]) for tile in tiles]
    with as_dataset(opaque + 2 * cirrus + 4 * snow, crs, transform) as dataset:
        assert_warped(arrays, dataset, None)
    for tile, array in zip(tiles, arrays, strict=True):
        bits = array.data[0][array.mask[0]]
        assert tile.cloud_method == "CLASSI bits 0,1"
        assert tile.cloud_cover == pytest.approx(100 * ((bits & 3) != 0).mean(), abs=1e-4)
        assert tile.cloud_histogram is None
        measured = tile.read(bands=["B01"]).mask[0]
        clear = tile.read(bands=["B01"], cloud_mask=True).mask[0]
        np.testing.assert_array_equal(clear, measured & ((array.data[0] & 3) == 0))
