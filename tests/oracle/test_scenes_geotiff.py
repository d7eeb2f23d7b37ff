"""Real rasters of all kinds against rasterio's own reading."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geostore.errors import UnreadableSourceError
from geostore.scenes import find_sources, open_source
from geostore.types import BandRole, TimeSpan


@pytest.mark.parametrize(
    "name",
    [
        "generic/RGB.byte.tif",
        "generic/cog.tif",
        "generic/cog_dateline.tif",
        "generic/rgb2.tif",
        "generic/cog_scale_stats.tif",
        "generic/goes.tif",
        "generic/rgb1.tif",
        "naip/m_3607717_sw_18_1_20160620_subset.tif",
        "nlcd/nlcd2011.tif",
        "nlcd/nlcd_2011_land_cover_l48_zion_subset.img",
    ],
)
def test_pixels_masks_and_grids_are_rasterios(shared_data: Path, name: str) -> None:
    path = shared_data / name
    (scene,) = open_source(path, reader="geotiff")
    with scene, rasterio.open(path) as expected:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert scene.id == f"{path.stem}-{digest[:8]}"
        assert len(scene.bands) == expected.count
        for number, band in enumerate(scene.bands, start=1):
            pixels, valid = band.source.read(0, 0, expected.height, expected.width)
            np.testing.assert_array_equal(pixels, expected.read(number))
            mask = expected.read_masks(number) != 0
            np.testing.assert_array_equal(np.ones_like(mask) if valid is None else valid, mask)
            assert band.source.grid.transform == tuple(expected.transform)[:6]
            assert band.info.scale == expected.scales[number - 1]
            assert band.info.offset == expected.offsets[number - 1]
            assert band.info.dtype == expected.dtypes[number - 1]


def test_what_tells_bands_apart(shared_data: Path) -> None:
    (rgb,) = open_source(shared_data / "generic" / "RGB.byte.tif")
    assert [(band.info.name, band.info.common_name) for band in rgb.bands] == [
        ("B1", "red"),
        ("B2", "green"),
        ("B3", "blue"),
    ]
    assert rgb.bands[0].info.native_resolution_m == pytest.approx(300.0379, abs=1e-3)
    (cover,) = open_source(shared_data / "nlcd" / "nlcd2011.tif")
    assert cover.bands[0].info.role is BandRole.CLASS
    rgb.close()
    cover.close()


def test_a_jpeg_2000_in_a_zip_with_a_date_in_its_name(shared_data: Path) -> None:
    (scene,) = open_source(shared_data / "naip" / "m_4709963_se_14_1_20200831.jp2.zip")
    with scene:
        assert TimeSpan(scene.time_us, scene.time_end_us) == TimeSpan.parse("2020-08-31")
        assert len(scene.bands) == 4
        with rasterio.open(
            f"/vsizip/{shared_data}/naip/m_4709963_se_14_1_20200831.jp2.zip"
            "/m_4709963_se_14_1_20200831.jp2"
        ) as expected:
            pixels, _ = scene.bands[3].source.read(0, 0, expected.height, expected.width)
            np.testing.assert_array_equal(pixels, expected.read(4))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("generic/float_nan.tif", "no CRS"),
        ("sentinel2/csmask_labelled/sentinel2.npz", "no reader claims it"),
    ],
)
def test_what_cannot_be_placed(shared_data: Path, name: str, why: str) -> None:
    with pytest.raises(UnreadableSourceError, match=why) as caught:
        open_source(shared_data / name)
    assert Path(name).name in str(caught.value)


def test_walking_the_real_folder(shared_data: Path) -> None:
    found = [one.path for one in find_sources([shared_data / "sentinel2"])]
    products = [path for path in found if path.endswith((".SAFE", ".SAFE.zip", "012042.zip"))]
    assert len(products) == 6
    assert not any(".SAFE/" in path for path in found)
    assert found == list(dict.fromkeys(found))
