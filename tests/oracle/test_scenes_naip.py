"""Real NAIP quarter quads: against rasterio's own reading, and stored, against GDAL's warp."""

from __future__ import annotations

import random
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.io import DatasetReader

import geostore
from geostore.api import Store
from geostore.scenes import Scene, detect, open_source
from geostore.types import TimeSpan
from tests.oracle.sources import BandFile, in_memory
from tests.oracle.warps import against_own_warp, against_whole_warp, warped

TILES_MAX = 2
NAMES = ["red", "green", "blue", "nir"]
SERIES = {
    "m_4709963_se_14_1_20090818": "2009-08-18",
    "m_4709963_se_14_1_20150926": "2015-09-26",
    "m_4709963_se_14_1_20170827": "2017-08-27",
    "m_4709963_se_14_1_20190904": "2019-09-04",
    "m_4709963_se_14_1_20200831": "2020-08-31",
}
NATIVE = "m_3607717_sw_18_1_20160620_subset"
SIXTY = "m_3211605_ne_11_060_20200415"


@pytest.fixture(scope="module")
def naip(shared_data: Path) -> Path:
    return shared_data / "naip"


def path_of(naip: Path, name: str) -> Path:
    path = naip / f"{name}.tif"
    return path if path.exists() else naip / f"{name}.jp2.zip"


def gdal_path(path: Path) -> str:
    """By which rasterio opens the picture without us."""
    if path.suffix != ".zip":
        return str(path)
    with zipfile.ZipFile(path) as archive:
        (member,) = archive.namelist()
    return f"/vsizip/{path}/{member}"


def opened(path: Path) -> Scene:
    (scene,) = open_source(path)
    return scene


def assert_rasterios(scene: Scene, expected: DatasetReader) -> None:
    assert [band.info.name for band in scene.bands] == ["B1", "B2", "B3", "B4"]
    assert [band.info.common_name for band in scene.bands] == NAMES
    for number, band in enumerate(scene.bands, start=1):
        pixels, valid = band.source.read(0, 0, expected.height, expected.width)
        whole = expected.read(number)
        np.testing.assert_array_equal(pixels, whole)
        nodata = expected.nodatavals[number - 1]
        known = np.ones(whole.shape, bool) if nodata is None else whole != nodata
        np.testing.assert_array_equal(known if valid is None else valid, known)
        assert band.source.grid.transform == tuple(expected.transform)[:6]
        assert rasterio.CRS.from_wkt(band.source.grid.crs_wkt) == expected.crs
        assert band.info.native_resolution_m == pytest.approx(min(expected.res))


@pytest.mark.parametrize(("name", "day"), SERIES.items())
def test_five_dates_of_one_quad(naip: Path, name: str, day: str) -> None:
    with (
        opened(path_of(naip, name)) as scene,
        rasterio.open(gdal_path(path_of(naip, name))) as expected,
    ):
        assert (scene.id, scene.reader, scene.platform, scene.cloud) == (name, "naip", None, None)
        assert TimeSpan(scene.time_us, scene.time_end_us) == TimeSpan.parse(day)
        assert scene.properties["quarter_quad"] == "4709963_se"
        assert_rasterios(scene, expected)


@pytest.mark.parametrize(
    ("name", "day", "resolution_m", "zone"),
    [
        (NATIVE, "2016-06-20", 1.0, 18),
        (SIXTY, "2020-04-15", 0.5985985294, 11),
        ("m_4112001_sw_10_060_20220716", "2022-07-16", 22.0, 10),
    ],
)
def test_other_sizes_and_zones(
    naip: Path, name: str, day: str, resolution_m: float, zone: int
) -> None:
    with opened(naip / f"{name}.tif") as scene, rasterio.open(naip / f"{name}.tif") as expected:
        assert scene.id == name
        assert TimeSpan(scene.time_us, scene.time_end_us) == TimeSpan.parse(day)
        assert scene.bands[3].info.native_resolution_m == pytest.approx(resolution_m)
        assert scene.properties["utm_zone"] == zone
        assert expected.crs.to_epsg() == 26900 + zone
        assert_rasterios(scene, expected)


def test_the_fourth_band_says_alpha_and_is_near_infrared(naip: Path) -> None:
    """48 pixels of it are 0: as a mask they would be holes in all bands."""
    path = naip / "chesapeake_m_3907833_nw_17_1" / "m_3907833_nw_17_1_naip-new.tif"
    with opened(path) as scene, rasterio.open(path) as expected:
        assert expected.colorinterp[3] is rasterio.enums.ColorInterp.alpha
        assert (expected.read(4) == 0).sum() == 48
        assert scene.reader == "naip"
        assert scene.id.startswith("m_3907833_nw_17_1_naip-new-")
        assert scene.time_us is None
        assert_rasterios(scene, expected)


def test_one_file_a_band(naip: Path) -> None:
    folder = naip / "NAIP-VA_1m"
    with opened(folder) as scene:
        assert (scene.reader, scene.properties["quarter_quad"]) == ("naip", "3707801_ne")
        assert [band.info.common_name for band in scene.bands] == NAMES
        assert scene.time_us is None
        for number, band in enumerate(scene.bands, start=1):
            with rasterio.open(folder / f"NAIP-VA-b{number}.tiff") as expected:
                pixels, valid = band.source.read(0, 0, expected.height, expected.width)
                np.testing.assert_array_equal(pixels, expected.read(1))
                known = expected.read_masks(1) != 0
                np.testing.assert_array_equal(known if valid is None else valid, known)


def test_what_is_beside_them_is_not_naip(naip: Path) -> None:
    folder = naip / "chesapeake_m_3907833_nw_17_1"
    found = {}
    for path in folder.glob("*.tif"):
        reader = detect(path)
        found[path.stem.removeprefix("m_3907833_nw_17_1_")] = reader and reader.name
    assert found == {
        "buildings": "geotiff",
        "landsat-leaf-off": "geotiff",
        "landsat-leaf-on": "geotiff",
        "lc": "geotiff",
        "naip-new": "naip",
        "naip-old": "naip",
        "nlcd": "nlcd",
    }
    assert {detect(path) for path in (naip / "chesapeake_patches").iterdir()} == {None}
    assert detect(naip) is None


@pytest.fixture(scope="module")
def store(naip: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Defaults in the reader's own dataset; the resampled series in one of its own."""
    store = geostore.open(str(tmp_path_factory.mktemp("naip") / "store"))
    for scheme in ("geohash", "quadtile"):
        (result,) = store.ingest([naip / f"{NATIVE}.tif"], dataset=f"one-{scheme}", scheme=scheme)
        assert result.error is None, result
    series = [path_of(naip, name) for name in list(SERIES)[-2:]]
    results = store.ingest(series, dataset="series", resolution=[5.0], length=6)
    assert [result.error for result in results] == [None, None]
    (result,) = store.ingest([naip / f"{SIXTY}.tif"])
    assert (result.error, result.dataset) == (None, "naip")
    return store


def test_the_first_scenes_pixel_makes_the_dataset(store: Store, naip: Path) -> None:
    definition = store.dataset("naip")
    assert (definition.scheme, definition.length) == ("geohash", 6)
    assert [group.resolution_m for group in definition.groups] == [pytest.approx(0.5985985294)]
    assert store.dataset("one-quadtile").length == 16
    # One metre is coarser: it goes into the same group. Finer than the first is refused.
    (coarser,) = store.ingest([naip / f"{NATIVE}.tif"])
    assert (coarser.status, coarser.dataset) == ("ingested", "naip")
    (finer,) = store.ingest([naip / f"{SIXTY}.tif"], dataset="one-geohash")
    assert finer.status == "failed"
    assert "finer than all resolution groups (1 m)" in finer.error
    assert "--resolution 0.598599" in finer.error


@pytest.mark.parametrize(
    ("dataset", "scene"),
    [
        ("one-geohash", NATIVE),
        ("one-quadtile", NATIVE),
        ("series", "m_4709963_se_14_1_20200831"),
        ("naip", SIXTY),
    ],
)
def test_stored_pixels_are_the_source_pixels_under_their_centres(
    store: Store, naip: Path, dataset: str, scene: str
) -> None:
    """Invariants 3 and 4, and pixel coverage counted on GDAL's own warp."""
    tiles = list(store.query(dataset=dataset, scene=scene))
    some = random.Random(3).sample(tiles, min(TILES_MAX, len(tiles)))
    path = gdal_path(path_of(naip, scene))
    with rasterio.open(path) as source:
        nodata = source.nodata
    valid = dict.fromkeys((tile.geocode for tile in some), True)
    for index, name in enumerate(NAMES, start=1):
        with in_memory(BandFile(path, index, nodata)) as picture:
            if name == "nir":
                against_own_warp(some, name, picture).assert_same()
                if dataset != "one-quadtile":  # large tiles; the seams of one scheme show it
                    against_whole_warp(tiles, name, picture).assert_same()
            for tile in some:
                window = tile.read(bands=[name])
                shape = window.data.shape[1:]
                seen = warped(picture, window.crs, window.transform, shape, 1e-2)[1]
                valid[tile.geocode] = valid[tile.geocode] & seen
    for tile in some:
        assert tile.pixel_coverage == pytest.approx(100 * valid[tile.geocode].mean(), abs=0.02)
        assert tile.cloud_cover is None


def test_queries(store: Store) -> None:
    assert {tile.scene for tile in store.query(dataset="series", time="2019")} == {
        "m_4709963_se_14_1_20190904"
    }
    assert store.query(dataset="series", time="2019-09-04T12:00:00Z").count() > 0
    assert store.query(dataset="series", time="2019-09-05/2020-08-30").count() == 0
    assert store.query(dataset="series", cloud_cover=(None, 100)).count() == 0
    assert store.query(dataset="series", bands=["nir"]).count() > 0
    tile = next(iter(store.query(dataset="series", time="2020")))
    assert tile.time == datetime(2020, 8, 31, tzinfo=UTC)
    assert tile.time_end == datetime(2020, 8, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    assert tile.bands == ("B1", "B2", "B3", "B4")
