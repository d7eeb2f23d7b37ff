"""Real Sentinel-2 products against rasterio's own reading and their XML's plain text."""

from __future__ import annotations

import json
import re
import tarfile
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from geostore.compute import cloud_mask
from geostore.errors import UnreadableSourceError
from geostore.scenes import Scene, detect, find_sources, open_source
from geostore.types import BandRole
from tests.sentinel2_products import L1C_BANDS, Safe

MAIN = "S2A_MSIL1C_20160112T160642_N0201_R097_T18SVG_20160112T160642"
DECIMATED = "S2A_MSIL1C_20180629T000241_N0206_R030_T56JMM_20180629T012042"
ONE_BAND = "S2A_MSIL1C_20180101T105441_N0206_R051_T31TDH_20180101T124911"
L2A = "S2A_MSIL2A_20221005T115411_N0400_R023_T29UNU_20221005T164454"
PATCHES = "BigEarthNet-S2-Example"
WINDOW = 500


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
    xml = next(path.glob("MTD_MSI*.xml")).read_text()
    listed = [one for one in re.findall(r"<IMAGE_FILE>(.*?)</IMAGE_FILE>", xml) if "TCI" not in one]
    assert len(listed) in (13, 32)
    with pytest.raises(UnreadableSourceError, match="no image of any band is there") as raised:
        open_source(path)
    shown = ", ".join(f"{one}.jp2" for one in listed[:3])
    assert str(raised.value).endswith(f"expected {shown} and {len(listed) - 3} more")


def test_a_decimated_product_says_that_it_has_no_cloud(products: Path) -> None:
    """Its MSK_CLOUDS_B00.gml has no polygon, and its XML states 0 % cloud."""
    path = products / f"{DECIMATED}.zip"
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("MTD_MSIL1C.xml")]
        xml = archive.read(name).decode()
        (name,) = [name for name in archive.namelist() if name.endswith("MTD_TL.xml")]
        assert re.findall(r"<NROWS>(\d+)", archive.read(name).decode()) == ["10980", "5490", "1830"]
    assert re.findall(r"<Cloud_Coverage_Assessment>(.*?)<", xml) == ["0.0"]
    (scene,) = open_source(path)
    with scene:
        assert scene.cloud is not None
        assert scene.cloud.method == "CLASSI bits 0,1"
        band = scene.band("CLASSI")
        coastal = scene.band("B01")
        assert band is not None
        assert coastal is not None
        assert band.source.grid.transform == coastal.source.grid.transform
        bits, valid = band.source.read(0, 0, 73, 73)
        assert not bits.any()
        with rasterio.open(gdal_paths(path)["B01"]) as expected:
            np.testing.assert_array_equal(valid, expected.read(1) != 0)


def test_the_masks_of_a_real_product_as_level_1c_has_them(products: Path, tmp_path: Path) -> None:
    """L2A products carry L1C's masks along: the real file, in a product of level 1C."""
    granule = next((products / f"{L2A}.SAFE").glob("GRANULE/*"))
    safe = Safe(tmp_path, baseline="0400").metadata()
    image = next(granule.glob("IMG_DATA/R60m/*_B01_60m.jp2"))
    safe.band_path("B01").parent.mkdir(parents=True)
    safe.band_path("B01").symlink_to(image)
    (safe.granule / "QI_DATA").mkdir()
    (safe.granule / "QI_DATA" / "MSK_CLASSI_B00.jp2").symlink_to(
        granule / "QI_DATA" / "MSK_CLASSI_B00.jp2"
    )
    with rasterio.open(granule / "QI_DATA" / "MSK_CLASSI_B00.jp2") as dataset:
        opaque, cirrus, snow = dataset.read()
        transform = tuple(dataset.transform)[:6]
    with rasterio.open(image) as dataset:
        seen = dataset.read(1) != 0
    (scene,) = open_source(safe.path)
    with scene:
        assert scene.cloud is not None
        assert scene.cloud.method == "CLASSI bits 0,1"
        band = scene.bands[-1]
        assert band.source.grid.transform == transform
        bits, valid = band.source.read(0, 0, 1830, 1830)
        np.testing.assert_array_equal(bits, opaque + 2 * cirrus + 4 * snow)
        np.testing.assert_array_equal(valid, seen)
        # The two kinds of cloud together: 56.6 %, near the 59.8 % that SCL finds.
        ours = cloud_mask(bits, scene.cloud)[seen].mean()
        assert ours == ((opaque | cirrus) != 0)[seen].mean()
        assert 100 * ours == pytest.approx(56.6, abs=0.05)


@pytest.fixture(scope="module")
def folder(products: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The patches, unpacked."""
    folder = tmp_path_factory.mktemp("patches")
    with tarfile.open(products / f"{PATCHES}.tar.bz2") as archive:
        archive.extractall(folder, filter="data")
    return folder / PATCHES


class TestPatches:
    """BigEarthNet: band files by names that state level 2A, six patches in one archive."""

    def test_are_scenes_each(self, products: Path, folder: Path) -> None:
        scenes = open_source(products / f"{PATCHES}.tar.bz2")
        assert [scene.id for scene in scenes] == sorted(path.name for path in folder.iterdir())
        assert len(scenes) == 6
        for scene in scenes:
            with scene:
                assert scene.reader == "sentinel-2-l2a"
                assert scene.platform == f"sentinel-2{scene.id[2].lower()}"
                assert scene.missing == ("AOT", "WVP", "SCL", "CLDPRB", "SNWPRB")
                assert (scene.cloud, scene.likelihood_band) == (None, None)
                names = [name for name in L1C_BANDS if name != "B10"]
                files = {name: folder / scene.id / f"{scene.id}_{name}.tif" for name in names}
                assert_same_pixels(scene, {name: str(path) for name, path in files.items()})
                labels = json.loads(
                    (folder / scene.id / f"{scene.id}_labels_metadata.json").read_text()
                )
                corner = labels["coordinates"]["ulx"], labels["coordinates"]["uly"]
                for band in scene.bands:
                    assert band.source.grid.transform[2::3] == corner
                taken = datetime.strptime(labels["acquisition_date"], "%Y-%m-%d %H:%M:%S").replace(
                    tzinfo=UTC
                )
                if scene.time_us == scene.time_end_us:
                    assert time_of(scene) == taken
                else:  # a name whose clock has five digits, or 61 seconds
                    assert scene.id[20:].split("_")[0] in ("93020", "94161")
                    assert time_of(scene).date() == taken.date()

    def test_unpacked_each_folder_is_found(self, products: Path, folder: Path) -> None:
        found = [Path(one.path) for one in find_sources([folder])]
        assert found == sorted(folder.iterdir())
        packed = {scene.id: scene for scene in open_source(products / f"{PATCHES}.tar.bz2")}
        for path in found:
            (scene,) = open_source(path)
            assert scene.fingerprint == packed[scene.id].fingerprint
            scene.close()
        for scene in packed.values():
            scene.close()


def test_cut_windows_with_names_of_their_own_are_plain_rasters(products: Path) -> None:
    """Neither level nor band is in their names."""
    for name, taken in (
        ("ref_S2A_20160608T153121_T33UUU_sub", datetime(2016, 6, 8, 15, 31, 21, tzinfo=UTC)),
        ("tgt_S2A_20160529T153631_T33UUU_sub", datetime(2016, 5, 29, 15, 36, 31, tzinfo=UTC)),
    ):
        (scene,) = open_source(products / "T33UUU_2dates_10m" / f"{name}.jp2")
        with scene:
            assert (scene.reader, time_of(scene)) == ("geotiff", taken)


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
