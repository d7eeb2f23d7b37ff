"""Band files that were taken out of their SAFE: what names and contents together say."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geostore.errors import UnreadableSourceError
from geostore.scenes import ReadOptions, Scene, detect, find_sources, open_source
from geostore.types import TimeSpan
from tests.sentinel2_products import L1C_BANDS, L2A_BANDS, NATIVE_M, band_pixels, write_jp2

PATCH = "S2A_MSIL2A_20170613T101031_87_48"
LAYERS = ("AOT", "WVP", "SCL", "CLDPRB", "SNWPRB")


def at(text: str) -> int:
    moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def write_tif(path: Path, data: np.ndarray, pixel_m: float = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=1,
        height=data.shape[0],
        width=data.shape[1],
        dtype=data.dtype,
        crs="EPSG:32633",
        transform=rasterio.Affine(pixel_m, 0, 404_400, 0, -pixel_m, 5_342_400),
    ) as target:
        target.write(data, 1)
    return path


def l1c_folder(folder: Path, stem: str = "T33UUU_20160608T101026", bands=L1C_BANDS) -> Path:
    for band in bands:
        size = NATIVE_M[band]
        write_jp2(folder / f"{stem}_{band}.jp2", band_pixels(band, 1200 // size), size)
    return folder


def opened(path: Path, **options) -> Scene:
    (scene,) = open_source(path, options=ReadOptions(**options))
    return scene


def reader_of(path: Path) -> str | None:
    reader = detect(path)
    return None if reader is None else reader.name


class TestFolder:
    def test_of_level_1c(self, tmp_path: Path) -> None:
        folder = l1c_folder(tmp_path / "mine")
        (folder / "notes.txt").write_text("from a friend")
        write_jp2(folder / "T33UUU_20160608T101026_TCI.jp2", np.ones((3, 120, 120), "uint8"), 10)
        with opened(folder) as scene:
            assert (scene.reader, scene.id) == ("sentinel-2-l1c", "T33UUU_20160608T101026")
            assert scene.time_us == scene.time_end_us == at("2016-06-08T10:10:26")
            assert (scene.platform, scene.missing, scene.previews) == (None, (), ("TCI",))
            assert (scene.cloud, scene.likelihood_band) == (None, None)
            assert [band.info.name for band in scene.bands] == L1C_BANDS
            for band in scene.bands:
                size = NATIVE_M[band.info.name]
                expected = band_pixels(band.info.name, 1200 // size)
                pixels, valid = band.source.read(0, 0, *expected.shape)
                np.testing.assert_array_equal(pixels, expected)
                np.testing.assert_array_equal(valid, expected != 0)
                assert band.info.native_resolution_m == size
                assert (band.info.nodata, band.info.scale) == (0, 1e-4)
            assert scene.properties["mgrs_tile"] == "33UUU"
            assert scene.properties["level"] == "L1C"

    def test_of_level_2a_by_the_sizes_in_its_names(self, tmp_path: Path) -> None:
        folder = tmp_path / "flat"
        stem = "T29UNU_20221005T115411"
        for size in (10, 20, 60):
            write_jp2(folder / f"{stem}_B02_{size}m.jp2", band_pixels("B02", 1200 // size), size)
        write_jp2(folder / f"{stem}_SCL_20m.jp2", np.full((60, 60), 8, "uint8"), 20)
        write_jp2(folder / f"{stem}_AOT_20m.jp2", np.full((60, 60), 80, "uint16"), 20)
        with opened(folder) as scene:
            assert (scene.reader, scene.id) == ("sentinel-2-l2a", stem)
            assert {band.info.name: band.info.native_resolution_m for band in scene.bands} == {
                "B02": 10.0,
                "AOT": 20.0,
                "SCL": 20.0,
            }
            assert scene.cloud is not None
            assert scene.cloud.method == "SCL 8,9,10"
            assert scene.missing == tuple(
                band for band in (*L2A_BANDS, *LAYERS) if band not in ("B02", "AOT", "SCL")
            )
            blue, aot = scene.band("B02"), scene.band("AOT")
            assert blue is not None
            assert aot is not None
            assert blue.info.offset == pytest.approx(-0.1)
            assert (aot.info.scale, aot.info.offset) == (1e-3, 0.0)

    def test_of_two_dates_is_two_scenes(self, tmp_path: Path) -> None:
        l1c_folder(tmp_path, "T33UUU_20160608T101026", ["B02", "B03"])
        l1c_folder(tmp_path, "T33UUU_20160529T101032", ["B04"])
        first, second = open_source(tmp_path)
        assert (first.id, second.id) == ("T33UUU_20160529T101032", "T33UUU_20160608T101026")
        assert first.fingerprint != second.fingerprint
        first.close()
        second.close()

    def test_packed_or_not_is_one_scene(self, tmp_path: Path) -> None:
        folder = l1c_folder(tmp_path / "x", bands=["B01", "B12"])
        first = opened(folder)
        for kind in ("zip", "gztar"):
            archive = shutil.make_archive(str(tmp_path / kind), kind, tmp_path, "x")
            with opened(Path(archive)) as scene:
                assert (scene.id, scene.fingerprint) == (first.id, first.fingerprint)
        first.close()

    def test_of_resolutions_is_one_scene(self, tmp_path: Path) -> None:
        stem = "T29UNU_20221005T115411"
        for band, size in (("B02", 10), ("B02", 20), ("B11", 20)):
            name = f"R{size}m/{stem}_{band}_{size}m.jp2"
            write_jp2(tmp_path / "i" / name, band_pixels(band, 1200 // size), size)
        archive = shutil.make_archive(str(tmp_path / "images"), "zip", tmp_path, "i")
        for path in (Path(archive), tmp_path / "i"):
            with opened(path) as scene:
                sizes = [band.info.native_resolution_m for band in scene.bands]
                assert (scene.id, sizes) == (stem, [10.0, 20.0])
        assert [one.path for one in find_sources([tmp_path / "i"])] == [str(tmp_path / "i")]


class TestRadiometry:
    @pytest.mark.parametrize(
        ("stem", "folder", "offset", "source"),
        [
            # After 25 January 2022 everything was stored with the offset.
            ("T33UUU_20220301T101026", "a", -0.1, "time"),
            ("T33UUU_20160608T101026", "a", 0.0, "assumed"),
            (
                "T33UUU_20160608T101026",
                "S2B_MSIL1C_20160608T101026_N0204_R022_T33UUU_20160608T101025",
                0.0,
                "baseline",
            ),
            (
                "T33UUU_20160608T101026",
                "S2B_MSIL1C_20160608T101026_N0500_R022_T33UUU_20230608T101025",
                -0.1,
                "baseline",
            ),
            # Another product's name says nothing of these files.
            (
                "T33UUU_20160608T101026",
                "S2B_MSIL1C_20170101T101026_N0500_R022_T33UUU_20230608T101025",
                0.0,
                "assumed",
            ),
        ],
    )
    def test_offset(
        self, tmp_path: Path, stem: str, folder: str, offset: float, source: str
    ) -> None:
        with opened(l1c_folder(tmp_path / folder, stem, ["B03"])) as scene:
            assert scene.bands[0].info.offset == pytest.approx(offset)
            assert scene.properties["add_offset_from"].split(":")[0] == source
            assert scene.platform == ("sentinel-2b" if source == "baseline" else None)
            if source == "baseline":
                assert scene.properties["processing_baseline"] in {"02.04", "05.00"}
            else:
                assert "processing_baseline" not in scene.properties


class TestPatches:
    def write(self, folder: Path, name: str = PATCH) -> Path:
        for band in L2A_BANDS:
            size = NATIVE_M[band]
            pixels = band_pixels(band, 1200 // size)
            write_tif(folder / name / f"{name}_{band}.tif", pixels, size)
        (folder / name / f"{name}_labels_metadata.json").write_text("{}")
        return folder / name

    def test_are_scenes_each(self, tmp_path: Path) -> None:
        self.write(tmp_path / "p")
        self.write(tmp_path / "p", "S2B_MSIL2A_20170924T93020_69_24")
        archive = Path(shutil.make_archive(str(tmp_path / "patches"), "bztar", tmp_path, "p"))
        first, second = open_source(archive)
        assert (first.id, first.platform) == (PATCH, "sentinel-2a")
        assert first.time_us == first.time_end_us == at("2017-06-13T10:10:31")
        assert [band.info.name for band in first.bands] == L2A_BANDS
        assert first.missing == LAYERS
        assert second.platform == "sentinel-2b"
        # A clock with a digit left out: only the day is sure.
        assert second.time_us == at("2017-09-24T00:00:00")
        assert second.time_end_us == at("2017-09-25T00:00:00") - 1
        np.testing.assert_array_equal(
            second.bands[1].source.read(0, 0, 120, 120)[0], band_pixels("B02", 120)
        )
        # A folder of folders is walked: each patch is found by itself.
        found = [Path(one.path).name for one in find_sources([tmp_path / "p"])]
        assert found == [PATCH, "S2B_MSIL2A_20170924T93020_69_24"]
        with opened(tmp_path / "p" / PATCH) as alone:
            assert (alone.id, alone.fingerprint) == (first.id, first.fingerprint)
        first.close()
        second.close()


class TestSingleFile:
    def test_is_a_scene_of_its_own(self, tmp_path: Path) -> None:
        """So that two files named one by one are not two versions of a scene."""
        folder = l1c_folder(tmp_path, bands=["B02", "B03"])
        with opened(folder / "T33UUU_20160608T101026_B03.jp2") as scene:
            assert scene.id == "T33UUU_20160608T101026_B03"
            assert scene.reader == "sentinel-2-l1c"
            assert [band.info.name for band in scene.bands] == ["B03"]

    def test_of_before_december_2016_names_no_time(self, tmp_path: Path) -> None:
        name = "S2A_OPER_MSI_L1C_TL_SGS__20160112T212322_A002913_T18SVG_B01.jp2"
        write_jp2(tmp_path / name, band_pixels("B01", 20), 60)
        with opened(tmp_path / name) as scene:
            assert (scene.reader, scene.platform) == ("sentinel-2-l1c", "sentinel-2a")
            assert (scene.time_us, scene.properties["mgrs_tile"]) == (None, "18SVG")
        span = TimeSpan.parse("2016-01-12")
        with opened(tmp_path / name, time=span) as scene:
            assert (scene.time_us, scene.time_end_us) == (span.start_us, span.end_us)

    def test_whose_name_has_no_such_day(self, tmp_path: Path) -> None:
        path = tmp_path / "T33UUU_20161345T101026_B02.jp2"
        write_jp2(path, band_pixels("B02", 120), 10)
        with opened(path) as scene:
            assert (scene.time_us, scene.bands[0].info.offset) == (None, 0.0)
        span = TimeSpan.parse("2022-06-01")
        with opened(path, time=span) as scene:
            assert scene.time_us == span.start_us
            assert scene.bands[0].info.offset == pytest.approx(-0.1)


class TestNotClaimed:
    @pytest.mark.parametrize(
        "name",
        [
            "tgt_S2A_20160529T153631_T33UUU_sub.jp2",
            "B04.jp2",
            "T33UUU_B04.jp2",
            "T33UUU_20160608T101026_B13.jp2",
            "T33UUU_20160608T101026_B04_30m.jp2",
            "T29UNU_20221005T115411_B10_60m.jp2",
            "S2A_MSIL1C_20170613T101031_T33UUU_B04_10m.jp2",
            "LC08_L2SP_001062_20201031_20201106_02_T2_SR_B4.tif",
        ],
    )
    def test_names_that_do_not_tell(self, tmp_path: Path, name: str) -> None:
        """The level, or the band, is not told: a raster as any other."""
        write_jp2(tmp_path / name, band_pixels("B04", 120), 10)
        assert reader_of(tmp_path / name) == "geotiff"

    def test_contents_of_another_kind(self, tmp_path: Path) -> None:
        name = "T29UNU_20221005T115411_B04_10m.tif"
        assert reader_of(write_tif(tmp_path / name, np.ones((50, 50), "uint16"))) == (
            "sentinel-2-l2a"
        )
        reflectance = write_tif(tmp_path / "f" / name, np.ones((50, 50), "float32"))
        assert reader_of(reflectance) == "geotiff"
        assert reader_of(reflectance.parent) is None
        text = tmp_path / "t" / name
        text.parent.mkdir()
        text.write_text("no raster")
        assert reader_of(text) is None

    def test_folders_that_hold_more(self, tmp_path: Path) -> None:
        """Nothing beside band files may be passed over in silence."""
        folder = l1c_folder(tmp_path / "mixed", bands=["B02"])
        write_tif(folder / "elevation.tif", np.ones((20, 20), "float32"))
        assert reader_of(folder) is None
        names = [Path(one.path).name for one in find_sources([folder])]
        assert names == ["T33UUU_20160608T101026_B02.jp2", "elevation.tif"]
        both = l1c_folder(tmp_path / "levels", bands=["B02"])
        write_jp2(both / "T33UUU_20160608T101026_B02_10m.jp2", band_pixels("B02", 120), 10)
        assert reader_of(both) is None
        nested = l1c_folder(tmp_path / "nested", bands=["B02"])
        write_tif(nested / "more" / "elevation.tif", np.ones((20, 20), "float32"))
        assert reader_of(nested) is None

    def test_only_a_picture(self, tmp_path: Path) -> None:
        path = tmp_path / "T33UUU_20160608T101026_TCI.jp2"
        write_jp2(path, np.ones((3, 120, 120), "uint8"), 10)
        assert reader_of(path) == "geotiff"


class TestBroken:
    def test_a_band_of_another_type_than_its_name_says(self, tmp_path: Path) -> None:
        folder = l1c_folder(tmp_path, bands=["B01"])
        write_jp2(folder / "T33UUU_20160608T101026_B02.jp2", np.ones((20, 20), "uint8"), 60)
        with pytest.raises(
            UnreadableSourceError, match=r"_B02\.jp2: 1 bands of uint8 .* expected one of uint16"
        ):
            open_source(folder)

    def test_a_file_that_is_cut_short(self, tmp_path: Path) -> None:
        path = l1c_folder(tmp_path, bands=["B02"]) / "T33UUU_20160608T101026_B02.jp2"
        path.write_bytes(path.read_bytes()[:60])
        with pytest.raises(UnreadableSourceError, match=r"_B02\.jp2"):
            open_source(path)
        with pytest.raises(UnreadableSourceError, match=r"_B02\.jp2"):
            open_source(tmp_path)

    def test_the_reader_that_is_named_finds_none(self, tmp_path: Path) -> None:
        path = write_tif(tmp_path / "x.tif", np.ones((20, 20), "uint16"))
        with pytest.raises(
            UnreadableSourceError, match=r"nothing of Sentinel-2 L2A: .*_B04_10m\.jp2"
        ):
            open_source(path, reader="sentinel-2-l2a")
