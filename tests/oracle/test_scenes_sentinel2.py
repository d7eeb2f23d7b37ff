"""Real Sentinel-2 products against rasterio's own reading and their XML's plain text."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from geostore.errors import UnreadableSourceError
from geostore.scenes import Scene, detect, open_source
from geostore.types import BandRole

MAIN = "S2A_MSIL1C_20160112T160642_N0201_R097_T18SVG_20160112T160642"
DECIMATED = "S2A_MSIL1C_20180629T000241_N0206_R030_T56JMM_20180629T012042"
ONE_BAND = "S2A_MSIL1C_20180101T105441_N0206_R051_T31TDH_20180101T124911"
L2A = "S2A_MSIL2A_20221005T115411_N0400_R023_T29UNU_20221005T164454"
WINDOW = 500
L1C_BANDS = [
    "B01",
    "B02",
    "B03",
    "B04",
    "B05",
    "B06",
    "B07",
    "B08",
    "B8A",
    "B09",
    "B10",
    "B11",
    "B12",
]


@pytest.fixture(scope="module")
def products(shared_data: Path) -> Path:
    return shared_data / "sentinel2"


@pytest.fixture
def main(products: Path) -> Iterator[Scene]:
    (scene,) = open_source(products / f"{MAIN}.SAFE.zip")
    with scene:
        yield scene


@pytest.fixture
def l2a(products: Path) -> Iterator[Scene]:
    (scene,) = open_source(products / f"{L2A}.SAFE")
    with scene:
        yield scene


def gdal_paths(archive: Path) -> dict[str, str]:
    """Band to the path by which GDAL itself reads it inside a zip."""
    with zipfile.ZipFile(archive) as members:
        names = members.namelist()
    found = (re.search(r"_(B\d\d|B8A)\.jp2$", name) for name in names)
    return {
        match[1]: f"/vsizip/{archive}/{name}"
        for match, name in zip(found, names, strict=True)
        if match
    }


def time_of(scene: Scene) -> datetime:
    assert scene.time_us is not None
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=scene.time_us)


def assert_same_pixels(scene: Scene, paths: dict[str, str]) -> None:
    assert {band.info.name for band in scene.bands} - {"CLASSI"} == set(paths)
    for band in scene.bands:
        if band.info.name == "CLASSI":
            continue
        with rasterio.open(paths[band.info.name]) as expected:
            # Of large images the lower right: decoding all of each twice takes too long.
            height, width = min(WINDOW, expected.height), min(WINDOW, expected.width)
            row, column = expected.height - height, expected.width - width
            pixels, valid = band.source.read(row, column, height, width)
            whole = expected.read(1, window=Window(column, row, width, height))
            np.testing.assert_array_equal(pixels, whole)
            np.testing.assert_array_equal(
                np.ones_like(whole, bool) if valid is None else valid, whole != 0
            )
            assert band.source.grid.transform == tuple(expected.transform)[:6]
            assert rasterio.CRS.from_wkt(band.source.grid.crs_wkt) == expected.crs
            assert band.info.dtype == expected.dtypes[0]
            assert band.info.native_resolution_m == pytest.approx(expected.res[0])


class TestMainScene:
    def test_what_it_is(self, main: Scene) -> None:
        assert (main.id, main.reader, main.platform) == (MAIN, "sentinel-2-l1c", "sentinel-2a")
        # SENSING_TIME of its MTD_TL.xml.
        assert time_of(main) == datetime(2016, 1, 12, 16, 6, 42, 461_000, tzinfo=UTC)
        assert main.time_end_us == main.time_us
        assert (main.missing, main.previews, main.cloud) == ((), ("TCI",), None)
        assert [band.info.name for band in main.bands] == L1C_BANDS
        assert main.properties["mgrs_tile"] == "18SVG"
        assert main.properties["processing_baseline"] == "02.01"
        assert main.properties["relative_orbit"] == 97

    def test_pixels_of_every_band(self, main: Scene, products: Path) -> None:
        assert_same_pixels(main, gdal_paths(products / f"{MAIN}.SAFE.zip"))

    def test_sizes_of_its_bands(self, main: Scene) -> None:
        by_size: dict[float | None, set[tuple[int, int]]] = {}
        for band in main.bands:
            shape = (band.source.grid.height, band.source.grid.width)
            by_size.setdefault(band.info.native_resolution_m, set()).add(shape)
        assert by_size == {10.0: {(1938, 1926)}, 20.0: {(969, 963)}, 60.0: {(323, 321)}}

    def test_unpacked_it_is_the_same_product(
        self, main: Scene, products: Path, tmp_path: Path
    ) -> None:
        with zipfile.ZipFile(products / f"{MAIN}.SAFE.zip") as archive:
            archive.extractall(tmp_path)
        (scene,) = open_source(tmp_path / f"{MAIN}.SAFE")
        assert (scene.id, scene.fingerprint) == (main.id, main.fingerprint)
        scene.close()


def test_a_decimated_product_has_its_images_grids(products: Path) -> None:
    """Its XML still says 10980 pixels of 10 m."""
    path = products / f"{DECIMATED}.zip"
    (scene,) = open_source(path)
    with scene:
        assert scene.id == DECIMATED
        assert time_of(scene) == datetime(2018, 6, 29, 0, 2, 41, 461_000, tzinfo=UTC)
        assert_same_pixels(scene, gdal_paths(path))
        shapes = {band.source.grid.height for band in scene.bands}
        assert shapes == {439, 219, 73}


def test_a_product_of_one_band(products: Path) -> None:
    (scene,) = open_source(products / f"{ONE_BAND}.SAFE")
    with scene:
        assert scene.missing == tuple(L1C_BANDS[1:])
        (band,) = scene.bands
        (image,) = (products / f"{ONE_BAND}.SAFE").glob("GRANULE/*/IMG_DATA/*_B01.jp2")
        assert_same_pixels(scene, {"B01": str(image)})
        assert band.info.common_name == "coastal"


@pytest.mark.parametrize(
    "name",
    [
        "S2A_MSIL1C_20210908T042701_N0301_R133_T46RER_20210908T070248.SAFE",
        "esa_S2B_MSIL2A_20210122T133229_N0214_R081_T22HBD_20210122T155500.SAFE",
    ],
)
def test_metadata_without_images(products: Path, name: str) -> None:
    path = products / "metadata_only" / name
    assert detect(path) is not None
    with pytest.raises(UnreadableSourceError, match=r"no image of any band is there.*B02"):
        open_source(path)


class TestL2A:
    def test_what_it_is(self, l2a: Scene) -> None:
        assert (l2a.id, l2a.reader, l2a.platform) == (L2A, "sentinel-2-l2a", "sentinel-2a")
        assert time_of(l2a) == datetime(2022, 10, 5, 11, 56, 49, 581_767, tzinfo=UTC)
        assert l2a.missing == ("B05", "B06", "B07", "B08")
        assert {band.info.name: band.info.native_resolution_m for band in l2a.bands} == {
            **dict.fromkeys(
                ["B01", "B02", "B03", "B04", "B8A", "B09", "B11", "B12", "WVP", "CLDPRB", "SNWPRB"],
                60.0,
            ),
            "AOT": 10.0,
            "SCL": 20.0,
        }
        assert l2a.properties["cloud_cover_product_percent"] == pytest.approx(59.769726)
        assert l2a.properties["nodata_product_percent"] == pytest.approx(40.419397)
        assert l2a.properties["sun_zenith_deg"] == pytest.approx(57.820574357679)

    def test_reflectance(self, l2a: Scene) -> None:
        for band in l2a.data_bands:
            # Reflectance is stored - 1000, by 10000.
            assert band.info.scale == pytest.approx(1e-4)
            assert band.info.offset == pytest.approx(-0.1)

    def test_sixty_metre_bands_are_rasterios(self, l2a: Scene, products: Path) -> None:
        folder = next((products / f"{L2A}.SAFE").glob("GRANULE/*/IMG_DATA/R60m"))
        for name in ("B12", "WVP"):
            band = l2a.band(name)
            assert band is not None
            # Across the swath's edge.
            with rasterio.open(next(folder.glob(f"*_{name}_60m.jp2"))) as expected:
                whole = expected.read(1, window=Window(700, 600, WINDOW, WINDOW))
            assert 0.1 < (whole == 0).mean() < 0.9
            pixels, valid = band.source.read(600, 700, WINDOW, WINDOW)
            np.testing.assert_array_equal(pixels, whole)
            np.testing.assert_array_equal(valid, whole != 0)

    def test_the_classes_give_the_products_own_cloud_cover(self, l2a: Scene) -> None:
        """Counting SCL 8, 9 and 10 over its valid pixels gives the percentage in the XML."""
        scl = l2a.band("SCL")
        assert scl is not None
        assert l2a.cloud is not None
        assert scl.info.role is BandRole.CLASS
        pixels, valid = scl.source.read(0, 0, 5490, 5490)
        assert valid is not None
        cloudy = np.isin(pixels, list(l2a.cloud.values)) & valid
        assert 100 * cloudy.sum() / valid.sum() == pytest.approx(59.769726, abs=1e-4)
        assert 100 * (~valid).mean() == pytest.approx(40.419397, abs=1e-4)

    def test_the_likelihood_ends_with_the_swath(self, l2a: Scene, products: Path) -> None:
        granule = next((products / f"{L2A}.SAFE").glob("GRANULE/*"))
        with rasterio.open(next(granule.glob("IMG_DATA/R60m/*_SCL_60m.jp2"))) as classes:
            seen = classes.read(1) != 0
        with rasterio.open(granule / "QI_DATA" / "MSK_CLDPRB_60m.jp2") as expected:
            whole = expected.read(1)
        assert l2a.likelihood_band == "CLDPRB"
        band = l2a.band("CLDPRB")
        assert band is not None
        pixels, valid = band.source.read(0, 0, 1830, 1830)
        np.testing.assert_array_equal(pixels, whole)
        np.testing.assert_array_equal(valid, seen)
        assert 0.55 < seen.mean() < 0.65
