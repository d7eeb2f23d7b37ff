"""MODIS layers as rasters: which names and files are claimed, and the scenes they make."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from geostore.errors import UnreadableSourceError
from geostore.scenes import detect, find_sources, open_source
from geostore.types import BandRole, TimeSpan

SINUSOIDAL = "+proj=sinu +R=6371007.181 +units=m +no_defs"
GRANULE = "MYD13A1.A2020153.h30v10.006.2020170024036"
NDVI = np.arange(40 * 30, dtype=np.int16).reshape(1, 40, 30)
NDVI[0, :4] = -3000
Write = Callable[..., Path]


@pytest.fixture
def layer(write_raster: Write) -> Write:
    """Writes a sinusoidal layer of 500 m (or `pixel_m`) pixels."""

    def write(path: Path, data: np.ndarray = NDVI, pixel_m: float = 463.3127165, **options) -> Path:
        transform = (pixel_m, 0.0, 700_000.0, 0.0, -pixel_m, 5_000_000.0)
        return write_raster(
            path, data, **{"crs": SINUSOIDAL, "transform": transform, "nodata": -3000, **options}
        )

    return write


def reader_of(path: Path) -> str | None:
    reader = detect(path)
    return None if reader is None else reader.name


class TestNames:
    @pytest.mark.parametrize(
        ("name", "reader", "band", "span"),
        [
            (
                f"{GRANULE}_NDVI_B01.TIF",
                "modis-myd13a1",
                "500m 16 days NDVI",
                "2020-06-01/2020-06-16",
            ),
            (
                f"{GRANULE}.VIQ.tif",
                "modis-myd13a1",
                "500m 16 days VI Quality",
                "2020-06-01/2020-06-16",
            ),
            (
                "MOD10A2.A2022033.h09v05.061.2022042050729_Maximum_Snow_Extent.tif",
                "modis-mod10a2",
                "Maximum_Snow_Extent",
                "2022-02-02/2022-02-09",
            ),
            (
                "MOD13A1_NDVI_2016_353.tif",
                "modis-mod13a1",
                "500m 16 days NDVI",
                "2016-12-18/2017-01-02",
            ),
            (
                "MOD11A1.006__LST_Day_1km_doy2019305_aid0001.tif",
                "modis-mod11a1",
                "LST_Day_1km",
                "2019-11-01",
            ),
            (
                "AQUA_MODIS_012010_EVI_2014-07-28.tif",
                "modis-myd13a1",
                "500m 16 days EVI",
                "2014-07-28/2014-08-12",
            ),
        ],
    )
    def test_of_each_tool(
        self, layer: Write, tmp_path: Path, name: str, reader: str, band: str, span: str
    ) -> None:
        path = layer(tmp_path / name)
        assert reader_of(path) == "modis"
        (scene,) = open_source(path)
        with scene:
            assert (scene.reader, [one.info.name for one in scene.bands]) == (reader, [band])
            expected = TimeSpan.parse(span)
            assert (scene.time_us, scene.time_end_us) == (expected.start_us, expected.end_us)
            assert scene.platform == ("aqua" if "myd" in reader else "terra")
            assert scene.id.endswith(f"-{scene.fingerprint[:8]}")

    def test_a_days_archive_of_grids(self, layer: Write, tmp_path: Path) -> None:
        names = ["MODIS_Grid_500m_2D_sur_refl_b01_1", "MODIS_Grid_1km_2D_state_1km_1"]
        for folder, reader, platform in (
            ("mosaics of MYD09GA", "modis-myd09ga", "aqua"),
            ("nothing", "modis-09ga", None),
        ):
            archive = tmp_path / folder / "2021222.zip"
            archive.parent.mkdir()
            with zipfile.ZipFile(archive, "w") as target:
                for name in names:
                    target.write(layer(tmp_path / f"{name}.tif"), f"{name}.tif")
            (scene,) = open_source(archive)
            with scene:
                assert (scene.reader, scene.platform) == (reader, platform)
                assert [band.info.name for band in scene.bands] == [
                    "state_1km_1",
                    "sur_refl_b01_1",
                ]
                assert scene.time_us == TimeSpan.parse("2021-08-10").start_us
                assert scene.cloud is not None

    @pytest.mark.parametrize(
        "name",
        ["NDVI_2016_353.tif", "MOD13A1.tif", "B04.tif", "LC08_L1TP_MOD13A1_NDVI_2016.tif"],
    )
    def test_other_names_are_any_rasters(self, layer: Write, tmp_path: Path, name: str) -> None:
        assert reader_of(layer(tmp_path / name)) == "geotiff"

    def test_another_crs_is_any_raster(self, layer: Write, tmp_path: Path) -> None:
        name = "MOD13A1_NDVI_2016_353.tif"
        assert reader_of(layer(tmp_path / name, crs="EPSG:32633")) == "geotiff"
        assert reader_of(layer(tmp_path / name, crs="+proj=sinu +R=6371000 +units=m")) == "geotiff"

    def test_another_crs_with_the_granules_metadata_is_modis(
        self, layer: Write, tmp_path: Path
    ) -> None:
        tags = {"SHORTNAME": "MOD13A1", "LOCALGRANULEID": "MOD13A1.A2016353.h18v04.006.1.hdf"}
        path = layer(tmp_path / "MOD13A1_NDVI_2016_353.tif", crs="EPSG:32633", tags=tags)
        assert reader_of(path) == "modis"

    def test_a_damaged_file_is_not_claimed(self, tmp_path: Path) -> None:
        path = tmp_path / "MOD13A1_NDVI_2016_353.tif"
        path.write_bytes(b"II*\0 and no more")
        assert reader_of(path) == "geotiff", "which says what is wrong with it"


class TestDirectories:
    def test_layers_and_dates_become_scenes(self, layer: Write, tmp_path: Path) -> None:
        for day in ("001", "017"):
            for name in ("NDVI", "EVI"):
                layer(tmp_path / "series" / f"MOD13A1_{name}_2016_{day}.tif")
        (tmp_path / "series" / "notes.txt").write_text("words")
        found = list(find_sources(tmp_path / "series"))
        assert [source.path for source in found] == [str(tmp_path / "series")]
        scenes = open_source(tmp_path / "series")
        assert [scene.id[:16] for scene in scenes] == ["MOD13A1.A2016001", "MOD13A1.A2016017"]
        for scene in scenes:
            assert [band.info.name for band in scene.bands] == [
                "500m 16 days NDVI",
                "500m 16 days EVI",
            ]
            scene.close()

    @pytest.mark.parametrize("other", ["other.tif", "MOD11A1.hdf", "more.zip", "more/MOD13A1.tif"])
    def test_not_one_with_anything_else(self, layer: Write, tmp_path: Path, other: str) -> None:
        layer(tmp_path / "MOD13A1_NDVI_2016_001.tif")
        if other.endswith(".tif"):
            layer(tmp_path / other)
        else:
            (tmp_path / other).write_text("anything")
        assert detect(tmp_path) is None
        found = {Path(source.path).name for source in find_sources(tmp_path)}
        assert found == {"MOD13A1_NDVI_2016_001.tif", Path(other).name}

    def test_an_archive_is_the_same_scene_as_its_folder(self, layer: Write, tmp_path: Path) -> None:
        path = layer(tmp_path / "NDVI" / "MOD13A1_NDVI_2016_001.tif")
        archive = tmp_path / "NDVI.zip"
        with zipfile.ZipFile(archive, "w") as target:
            target.write(path, f"NDVI/{path.name}")
        (packed,), (plain,) = open_source(archive), open_source(path.parent)
        assert (packed.id, packed.fingerprint) == (plain.id, plain.fingerprint)
        packed.close()
        plain.close()

    def test_one_layer_twice(self, layer: Write, tmp_path: Path) -> None:
        layer(tmp_path / "MOD13A1_NDVI_2016_001.tif")
        layer(tmp_path / "MOD13A1_NDVI_2016_001.tiff")
        with pytest.raises(UnreadableSourceError, match="a second layer '500m 16 days NDVI'"):
            open_source(tmp_path)

    def test_one_of_them_elsewhere(self, layer: Write, tmp_path: Path) -> None:
        layer(tmp_path / "MOD13A1_NDVI_2016_001.tif")
        layer(tmp_path / "MOD13A1_NDVI_2016_017.tif", crs="EPSG:32633")
        with pytest.raises(UnreadableSourceError, match=r"2016_017\.tif: named as a MODIS layer"):
            open_source(tmp_path)


class TestBands:
    def test_radiometry_by_gdals_scale(self, layer: Write, tmp_path: Path) -> None:
        """GDAL copies HDF's scale_factor as it is: 10000 stands for a 10000th."""
        import rasterio

        path = layer(tmp_path / f"{GRANULE}_RR_B04.TIF")
        with rasterio.open(path, "r+") as target:
            target.scales = (10000.0,)
        (scene,) = open_source(path)
        with scene:
            (band,) = scene.bands
            assert (band.info.scale, band.info.offset) == (1e-4, 0.0)
            assert (band.info.common_name, band.info.role) == ("red", BandRole.DATA)

    def test_tags_of_a_granule(self, layer: Write, tmp_path: Path) -> None:
        tags = {
            "SHORTNAME": "MYD13A1",
            "LOCALGRANULEID": f"{GRANULE}.hdf",
            "RANGEBEGINNINGDATE": "2020-06-01",
            "RANGEBEGINNINGTIME": "00:00:00",
            "RANGEENDINGDATE": "2020-06-16",
            "RANGEENDINGTIME": "23:59:59",
            "valid_range": "-2000, 1000",
            "scale_factor": "10000",
            "units": "NDVI",
        }
        path = layer(tmp_path / f"{GRANULE}_NDVI_B01.TIF", tags=tags)
        (scene,) = open_source(path)
        with scene:
            span = TimeSpan.parse("2020-06-01T00:00:00Z/2020-06-16T23:59:59Z")
            assert (scene.time_us, scene.time_end_us) == (span.start_us, span.end_us)
            assert scene.properties["tile"] == "h30v10"
            (band,) = scene.bands
            assert (band.info.unit, band.info.scale) == ("NDVI", 1e-4)
            pixels, valid = band.source.read(0, 0, 40, 30)
            np.testing.assert_array_equal(pixels, NDVI[0])
            np.testing.assert_array_equal(valid, (NDVI[0] != -3000) & (NDVI[0] <= 1000))

    def test_indices_without_nodata_and_as_fractions(self, layer: Write, tmp_path: Path) -> None:
        path = layer(tmp_path / "TERRA_MODIS_012010_NDVI_2014-07-28.tif", nodata=None)
        (scene,) = open_source(path)
        with scene:
            (band,) = scene.bands
            assert (band.info.nodata, band.info.scale) == (-3000, 1e-4)
            np.testing.assert_array_equal(band.source.read(0, 0, 40, 30)[1], NDVI[0] != -3000)
        data = NDVI.astype(np.float32) / 10_000
        path = layer(tmp_path / "MOD13A1_NDVI_2016_001.tif", data, nodata=32767.0)
        (scene,) = open_source(path)
        with scene:
            assert (scene.bands[0].info.nodata, scene.bands[0].info.scale) == (32767.0, 1.0)

    def test_indices_in_a_type_that_cannot_hold_the_products_nodata(
        self, layer: Write, tmp_path: Path
    ) -> None:
        data = np.abs(NDVI).astype("uint16")
        path = layer(tmp_path / "MOD13A1_NDVI_2016_001.tif", data, nodata=None)
        (scene,) = open_source(path)
        with scene:
            assert scene.bands[0].info.nodata is None
            assert scene.bands[0].source.nodata is None

    def test_indices_of_a_size_that_no_product_has(self, layer: Write, tmp_path: Path) -> None:
        path = layer(tmp_path / "TERRA_MODIS_012010_NDVI_2014-07-28.tif", pixel_m=300.0)
        with pytest.raises(UnreadableSourceError, match=r"NDVI with pixels of 300 m; expected"):
            open_source(path)

    def test_several_bands_in_a_file(self, layer: Write, tmp_path: Path) -> None:
        path = layer(tmp_path / "MCD43A1_Parameters_2016_001.tif", np.repeat(NDVI, 3, axis=0))
        (scene,) = open_source(path)
        with scene:
            assert [band.info.name for band in scene.bands] == [
                *("Parameters_1", "Parameters_2", "Parameters_3")
            ]

    def test_another_product_than_asked_for(self, layer: Write, tmp_path: Path) -> None:
        path = layer(tmp_path / "MOD13A1_NDVI_2016_001.tif")
        with pytest.raises(UnreadableSourceError, match="product MOD13A1; reader modis-mod13q1"):
            open_source(path, reader="modis-mod13q1")

    def test_neither_kind_of_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("words")
        with pytest.raises(UnreadableSourceError, match="neither HDF4 nor MODIS layers"):
            open_source(tmp_path / "a.txt", reader="modis")
