"""s2cloudless on real Level-1C products: likelihoods equal to the package's own on averages that
are made here from rasterio's pixels, by another way than geostore's."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio

from geostore.scenes import ReadOptions, open_source

MAIN = "S2A_MSIL1C_20160112T160642_N0201_R097_T18SVG_20160112T160642.SAFE.zip"
DECIMATED = "S2A_MSIL1C_20180629T000241_N0206_R030_T56JMM_20180629T012042.zip"
ONE_BAND = "S2A_MSIL1C_20180101T105441_N0206_R051_T31TDH_20180101T124911.SAFE"
NEEDED = ["B01", "B02", "B04", "B05", "B08", "B8A", "B09", "B10", "B11", "B12"]


def stored(archive: Path, band: str) -> npt.NDArray[np.float64]:
    """A band's numbers, NaN where it has no data."""
    with zipfile.ZipFile(archive) as members:
        (name,) = [name for name in members.namelist() if name.endswith(f"_{band}.jp2")]
    with rasterio.open(f"/vsizip/{archive}/{name}") as dataset:
        data = dataset.read(1).astype(float)
    data[data == 0] = np.nan
    return data


def block_means(data: npt.NDArray[np.float64], step: int) -> npt.NDArray[np.float64]:
    """Means of blocks of `step` pixels a side; the last ones of what there is of them."""
    rows, columns = (-(-side // step) for side in data.shape)
    padded = np.full((rows * step, columns * step), np.nan)
    padded[: data.shape[0], : data.shape[1]] = data
    blocks = padded.reshape(rows, step, columns, step).transpose(0, 2, 1, 3)
    return np.nanmean(blocks.reshape(rows, columns, -1), axis=-1)


def by_the_package(means: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.uint8]:
    from s2cloudless import S2PixelCloudDetector

    reflectances = np.stack(means, axis=-1)[np.newaxis] * 1e-4
    maps = S2PixelCloudDetector(all_bands=False).get_cloud_probability_maps(reflectances)
    return np.rint(100 * maps[0]).astype(np.uint8)


def detected(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_] | None, float]:
    (scene,) = open_source(path, options=ReadOptions(clouds="s2cloudless"))
    with scene:
        assert scene.cloud is not None
        # The decimated product has a mask of its own, which stays the default.
        methods = {MAIN: "S2CLOUDLESS >= 50", DECIMATED: "CLASSI bits 0,1"}
        assert scene.cloud.method == methods[path.name]
        assert scene.likelihood_band == "S2CLOUDLESS"
        band = scene.band("S2CLOUDLESS")
        assert band is not None
        grid = band.source.grid
        return *band.source.read(0, 0, grid.height, grid.width), grid.transform[0]


def test_of_the_main_scene_at_160_m(shared_data: Path) -> None:
    path = shared_data / "sentinel2" / MAIN
    ours, valid, cell_m = detected(path)
    means = []
    for band in NEEDED:
        data = stored(path, band)
        size = {1938: 10, 969: 20, 323: 60}[data.shape[0]]
        if size == 60:
            data = np.kron(data, np.ones((3, 3)))
        means.append(block_means(data, 16 if size == 10 else 8))
    theirs = by_the_package(means)
    assert (cell_m, valid) == (160.0, None)
    np.testing.assert_array_equal(ours, theirs)
    # SOURCES: the scene is cloud-free.
    assert ours.max() < 50


def test_of_a_decimated_product_on_its_coarsest_pixels(shared_data: Path) -> None:
    """439, 219 and 73 pixels where 10,980, 5,490 and 1,830 were: cells of 6.01 pixels."""
    path = shared_data / "sentinel2" / DECIMATED
    ours, valid, cell_m = detected(path)
    assert cell_m == pytest.approx(109_800 / 73)
    means = []
    measured = np.ones((73, 73), bool)
    for band in NEEDED:
        data = stored(path, band)
        side = data.shape[0]
        # Each pixel cut in 73 a side: cells are then `side` of those.
        whole = np.nan_to_num(data)
        known = (~np.isnan(data)).astype(float)
        parts = []
        for values in (whole, known):
            cut = np.repeat(values, 73, axis=0).reshape(73, side, side).mean(axis=1)
            parts.append(np.repeat(cut, 73, axis=1).reshape(73, 73, side).mean(axis=2))
        measured &= parts[1] > 0.5
        means.append(np.divide(parts[0], parts[1], out=np.zeros((73, 73)), where=parts[1] > 0))
    assert valid is not None
    np.testing.assert_array_equal(valid, measured)
    theirs = by_the_package(means)
    # A sum's last bit may put a reflectance on the other side of a tree's threshold.
    assert (ours[measured] != theirs[measured]).mean() <= 1e-3
    assert 0.6 < measured.mean() < 0.8


def test_where_bands_are_missing_nothing_tells(shared_data: Path) -> None:
    path = shared_data / "sentinel2" / ONE_BAND
    (scene,) = open_source(path, options=ReadOptions(clouds="s2cloudless"))
    with scene:
        assert (scene.cloud, scene.likelihood_band) == (None, None)
        assert re.fullmatch(r"B02,B04,.*,B12", scene.properties["cloud_detector_lacks"])
