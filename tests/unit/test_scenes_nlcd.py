"""NLCD layers in every packing, their classes, and maps that only look like them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from geostore.errors import UnreadableSourceError
from geostore.scenes import ReadOptions, Scene, Source, detect, open_source
from geostore.scenes.nlcd import NlcdReader
from geostore.scenes.nlcd_legend import LEGEND, LEGEND_1992
from geostore.types import BandRole, TimeSpan

MakeRaster = Callable[..., Path]

NAME = "nlcd_2011_land_cover_l48_20210604"
PLACE: dict[str, Any] = {
    "crs": "EPSG:5070",
    "transform": (30.0, 0.0, -1_508_130.0, 0.0, -30.0, 1_744_740.0),
}
CODES = np.array([11, 21, 22, 31, 41, 42, 43, 52, 71, 81, 82, 90, 95], "uint8")
COVER = np.random.default_rng(3).choice(CODES, (1, 120, 150))
COVER[0, :20] = 0
PERCENT = np.random.default_rng(4).integers(0, 101, (1, 120, 150), dtype="uint8")
PERCENT[0, :20] = 127


@pytest.fixture
def make(make_raster: MakeRaster) -> MakeRaster:
    def made(name: str = f"{NAME}.tif", data: Any = COVER, **keywords: Any) -> Path:
        colors = keywords.pop("colors", None)
        path = make_raster(name, data, **{**PLACE, **keywords})
        if colors is not None:
            with rasterio.open(path, "r+") as target:
                target.write_colormap(1, colors)
        return path

    return made


def write_image(path: Path, data: Any = COVER, *, colors: Any = None, **options: Any) -> Path:
    with rasterio.open(
        path, "w", driver="HFA", count=1, height=data.shape[1], width=data.shape[2],
        dtype=data.dtype, crs=PLACE["crs"], transform=Affine(*PLACE["transform"]), **options,
    ) as target:  # fmt: skip
        target.write(data)
        if colors is not None:
            target.write_colormap(1, colors)
    for sidecar in path.parent.glob("*.aux.xml"):
        sidecar.unlink()
    return path


def zipped(path: Path, *files: Path, folder: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for file in files:
            target.write(file, folder + file.name)
    return path


def opened(path: Path, reader: str | None = None, **options: Any) -> Scene:
    (scene,) = open_source(path, reader=reader, options=ReadOptions(**options))
    return scene


def reader_of(path: Path) -> str | None:
    reader = detect(path)
    return None if reader is None else reader.name


def span(scene: Scene) -> TimeSpan:
    return TimeSpan(scene.time_us, scene.time_end_us)


def assert_pixels(scene: Scene, data: Any, valid: Any) -> None:
    pixels, seen = scene.bands[0].source.read(0, 0, *data.shape[1:])
    np.testing.assert_array_equal(pixels, data[0])
    np.testing.assert_array_equal(np.ones_like(valid) if seen is None else seen, valid)


class TestPackings:
    @pytest.mark.parametrize("packing", ["tif", "img", "tif.zip", "img.zip", "spill", "spill.zip"])
    def test_one_scene_whatever_holds_it(
        self, make: MakeRaster, tmp_path: Path, packing: str
    ) -> None:
        spill = {"USE_SPILL": "YES"} if "spill" in packing else {}
        is_tif = packing.startswith("tif")
        path = make() if is_tif else write_image(tmp_path / f"{NAME}.img", **spill)
        if packing.endswith("zip"):
            files = [path, *tmp_path.glob("*.ige")]
            assert len(files) == (2 if spill else 1)
            notes = tmp_path / "about.xml"
            notes.write_text("<metadata/>")
            path = zipped(tmp_path / "a.zip", *files, notes, folder="deep/")
        with opened(path) as scene:
            assert (scene.id, scene.reader) == (NAME, "nlcd")
            assert span(scene) == TimeSpan.parse("2011")
            assert (scene.platform, scene.cloud, scene.missing) == (None, None, ())
            (band,) = scene.bands
            assert (band.info.name, band.info.role) == ("land_cover", BandRole.CLASS)
            assert (band.info.nodata, band.info.native_resolution_m) == (0, 30.0)
            assert band.source.grid.transform == PLACE["transform"]
            assert_pixels(scene, COVER, COVER[0] != 0)
            assert scene.properties["product"] == "land_cover"
            assert scene.properties["year"] == 2011

    def test_the_pair_counts_in_the_fingerprint(self, tmp_path: Path) -> None:
        path = write_image(tmp_path / f"{NAME}.img", USE_SPILL="YES")
        spill = tmp_path / f"{NAME}.ige"
        with opened(path) as before:
            pass
        raw = bytearray(spill.read_bytes())
        at = raw.rindex(11)
        raw[at] = 12
        spill.write_bytes(raw)
        with opened(path) as after:
            assert after.fingerprint != before.fingerprint

    def test_a_pair_that_says_nlcd_in_its_metadata(self, tmp_path: Path) -> None:
        path = write_image(tmp_path / "cover.img", USE_SPILL="YES")
        with rasterio.open(path, "r+") as target:
            target.update_tags(1, SOURCE="NLCD 2016 Land Cover")
        for sidecar in tmp_path.glob("*.aux.xml"):
            sidecar.unlink()
        with opened(path) as scene:
            assert (scene.reader, scene.id, span(scene)) == (
                "nlcd",
                "cover",
                TimeSpan.parse("2016"),
            )
            assert_pixels(scene, COVER, COVER[0] != 0)

    def test_several_years_in_an_archive(self, make: MakeRaster, tmp_path: Path) -> None:
        paths = [make(f"nlcd_{year}_land_cover.tif") for year in (2001, 2011)]
        scenes = open_source(zipped(tmp_path / "years.zip", *paths))
        assert [span(scene) for scene in scenes] == [TimeSpan.parse(y) for y in ("2001", "2011")]
        for scene in scenes:
            scene.close()

    def test_another_map_in_an_archive_is_not_lost(self, make: MakeRaster, tmp_path: Path) -> None:
        scenes = open_source(zipped(tmp_path / "two.zip", make(), make("other.tif")))
        assert [scene.reader for scene in scenes] == ["geotiff", "geotiff"]
        for scene in scenes:
            scene.close()

    def test_folders_are_walked(self, make: MakeRaster) -> None:
        assert reader_of(make(f"folder/{NAME}.tif").parent) is None


class TestClasses:
    def test_names_and_colours_of_the_legend(self, tmp_path: Path) -> None:
        with opened(write_image(tmp_path / f"{NAME}.img")) as scene:
            info = scene.bands[0].info
        assert info.class_names == {str(code): one.name for code, one in LEGEND.items()}
        assert (info.class_names["41"], info.class_colors["41"]) == ("Deciduous Forest", "#68ab5f")
        assert set(info.class_colors) == {str(code) for code, one in LEGEND.items() if one.color}

    @pytest.mark.parametrize("kind", ["img", "tif"])
    def test_the_files_colours_win(self, make: MakeRaster, tmp_path: Path, kind: str) -> None:
        table = {0: (0, 0, 0, 0), 11: (1, 2, 3, 255), 41: (255, 0, 128, 255)}
        path = (
            make(colors=table)
            if kind == "tif"
            else write_image(tmp_path / f"{NAME}.img", colors=table)
        )
        with opened(path) as scene:
            info = scene.bands[0].info
        assert info.class_colors == {"11": "#010203", "41": "#ff0080"}
        assert info.class_names["11"] == "Open Water"

    def test_the_files_names_win(self, make: MakeRaster, monkeypatch: pytest.MonkeyPatch) -> None:
        from geostore.raster import source
        from geostore.raster.imagine import ImagineStructure

        monkeypatch.setattr(
            source,
            "imagine_structure",
            lambda _: ImagineStructure(class_names=({11: "Water", 0: "Unclassified"},)),
        )
        path = write_image(make().with_suffix(".img"))
        with opened(path) as scene:
            names = scene.bands[0].info.class_names
        assert (names["0"], names["11"], names["41"]) == ("Unclassified", "Water", LEGEND[41].name)

    def test_the_first_releases_legend(self, make: MakeRaster) -> None:
        data = np.random.default_rng(5).choice(np.array([*LEGEND_1992, 0], "uint8"), COVER.shape)
        assert reader_of(make("nlcd_2011_land_cover.tif", data)) == "geotiff"
        with opened(make("nlcd_1992_30meter_whole.tif", data)) as scene:
            assert span(scene) == TimeSpan.parse("1992")
            info = scene.bands[0].info
        assert info.class_names == {str(code): one.name for code, one in LEGEND_1992.items()}
        assert info.class_colors == {}


class TestBackground:
    @pytest.mark.parametrize("value", [0, 127, 250, 255])
    @pytest.mark.parametrize("declared", [None, 0, 127, 250, 255])
    def test_is_never_valid_land_cover(
        self, make: MakeRaster, value: int, declared: int | None
    ) -> None:
        data = COVER.copy()
        data[0, :20] = value
        with opened(make(data=data, nodata=declared)) as scene:
            assert scene.bands[0].info.nodata == (0 if declared is None else declared)
            assert scene.bands[0].source.nodata == scene.bands[0].info.nodata
            assert_pixels(scene, data, np.isin(data[0], CODES))

    def test_a_class_that_the_file_declares_nodata(self, make: MakeRaster) -> None:
        with opened(make(nodata=11)) as scene:
            assert_pixels(scene, COVER, np.isin(COVER[0], CODES) & (COVER[0] != 11))

    def test_nothing_but_background_is_nothing_to_tell_by(self, make: MakeRaster) -> None:
        assert reader_of(make(data=np.zeros_like(COVER))) == "geotiff"


class TestLayers:
    @pytest.mark.parametrize(
        ("name", "band", "role"),
        [
            ("nlcd_2019_impervious_l48_20210604.tif", "impervious", BandRole.DATA),
            ("Annual_NLCD_FctImp_2019_CU_C1V0.tif", "impervious", BandRole.DATA),
            ("NLCD2019_IMP_Illinois.tif", "impervious", BandRole.DATA),
            ("nlcd_tcc_conus_2019_v2021-4.tif", "tree_canopy", BandRole.DATA),
            ("nlcd_2019_treecanopy_2021_08_31.tif", "tree_canopy", BandRole.DATA),
            ("NLCD2019_CAN_Illinois.tif", "tree_canopy", BandRole.DATA),
            ("Annual_NLCD_LndCnf_2019_CU_C1V0.tif", "land_cover_confidence", BandRole.QUALITY),
        ],
    )
    def test_percents(self, make: MakeRaster, name: str, band: str, role: BandRole) -> None:
        with opened(make(name, PERCENT)) as scene:
            assert scene.reader == "nlcd"
            assert span(scene) == TimeSpan.parse("2019")
            info = scene.bands[0].info
            assert (info.name, info.role, info.unit) == (band, role, "percent")
            assert (info.nodata, info.class_names, info.class_colors) == (255, {}, {})
            assert_pixels(scene, PERCENT, PERCENT[0] <= 100)  # none at all is a percent, too

    def test_what_made_it_impervious(self, make: MakeRaster) -> None:
        data = np.where(COVER == 0, 127, COVER % 25 + 1).astype("uint8")
        with opened(make("nlcd_2019_impervious_descriptor_l48.tif", data)) as scene:
            info = scene.bands[0].info
            assert (info.name, info.role, info.unit) == (
                "impervious_descriptor",
                BandRole.CLASS,
                None,
            )
            assert_pixels(scene, data, data[0] != 127)

    @pytest.mark.parametrize(
        ("name", "data"),
        [
            ("nlcd_2001_2019_land_cover_change_index_l48.tif", COVER),
            ("Annual_NLCD_LndChg_2019_CU_C1V0.tif", COVER),
            ("Annual_NLCD_SpcChg_2019_CU_C1V0.tif", COVER.astype("uint16")),
            ("nlcd_2011_land_cover.tif", PERCENT),
            ("nlcd_2011_impervious.tif", PERCENT + 100),
            ("nlcd_2011_land_cover.tif", COVER.astype("int16")),
            ("nlcd_2011_land_cover.tif", np.concatenate([COVER, COVER])),
            ("nlcd_2011_land_cover.tif", np.where(COVER == 42, 23 + 2, COVER)),
            ("land_cover_2011.tif", COVER),  # says nothing of NLCD
            ("tnlcd_2011.tif", COVER),
            ("nlcds.tif", COVER),
        ],
    )
    def test_what_is_none(self, make: MakeRaster, name: str, data: Any) -> None:
        path = make(name, data.astype(data.dtype))
        with Source(path) as source:
            assert not NlcdReader().claims(source)
        assert reader_of(path) == "geotiff"

    def test_without_a_place(self, make: MakeRaster) -> None:
        with Source(make(crs=None)) as source:
            assert not NlcdReader().claims(source)

    def test_by_metadata_alone(self, make: MakeRaster) -> None:
        tags = {"TIFFTAG_IMAGEDESCRIPTION": "National Land Cover Database 2016 Land Cover (CONUS)"}
        with opened(make("map.tif", tags=tags)) as scene:
            assert (scene.reader, scene.id) == ("nlcd", "map")
            assert span(scene) == TimeSpan.parse("2016")


class TestYears:
    @pytest.mark.parametrize(
        ("name", "year"),
        [
            ("nlcd2011", "2011"),
            ("nlcd_2016_Land_Cover_L48_20190424", "2016"),
            ("nlcd_2011_landcover_2011_edition_2014_10_10", "2011"),
            ("NLCD_2001_Land_Cover_L48_20210604", "2001"),
            ("NLCD2006_LC_Arkansas", "2006"),
            ("Annual_NLCD_LndCov_1985_CU_C1V0", "1985"),
            ("Annual_NLCD_H05V02_LndCov_2001_CU_C1V0", "2001"),
            ("Ky_NLCD_2021_30M", "2021"),
            ("vepIIN_NLCD_Land_Cover_2019", "2019"),
            ("2008_nlcd_clip", "2008"),
            ("nlcd_1066_clip", None),
            ("nlcd_20110604", None),
            ("m_3907833_nw_17_1_nlcd", None),
        ],
    )
    def test_in_names(self, make: MakeRaster, name: str, year: str | None) -> None:
        with opened(make(f"{name}.tif")) as scene:
            assert scene.reader == "nlcd"
            if year is not None:
                assert (scene.id, span(scene)) == (name, TimeSpan.parse(year))
            else:
                assert scene.id.startswith(f"{name}-")
                assert (scene.time_us, scene.time_end_us) == (None, None)

    def test_the_callers_only_where_none_is_known(self, make: MakeRaster) -> None:
        said = TimeSpan.parse("2004")
        assert span(opened(make("nlcd_clip.tif"), time=said)) == said
        assert span(opened(make(), time=said)) == TimeSpan.parse("2011")


class TestAsked:
    def test_land_cover_under_any_name(self, make: MakeRaster) -> None:
        scene = opened(make("clip.tif"), reader="nlcd", time=TimeSpan.parse("2013"))
        assert (scene.bands[0].info.name, span(scene)) == ("land_cover", TimeSpan.parse("2013"))
        scene.close()

    @pytest.mark.parametrize(
        "data", [PERCENT, COVER.astype("float32"), np.concatenate([COVER, COVER])]
    )
    def test_nothing_else(self, make: MakeRaster, data: Any) -> None:
        with pytest.raises(UnreadableSourceError, match=r"clip\.tif: bands \d, of .*no layer"):
            open_source(make("clip.tif", data), reader="nlcd")

    def test_a_folder_or_a_text(self, make: MakeRaster, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("x")
        for path in (make("folder/a.tif").parent, tmp_path / "a.txt"):
            with pytest.raises(UnreadableSourceError, match="expected layers of NLCD"):
                open_source(path, reader="nlcd")


class TestHostile:
    @pytest.mark.parametrize("kind", ["img", "tif"])
    @pytest.mark.parametrize("kept", [0.01, 0.3, 0.7, 0.9])
    def test_truncated_files(
        self, make: MakeRaster, tmp_path: Path, kind: str, kept: float
    ) -> None:
        path = make() if kind == "tif" else write_image(tmp_path / f"{NAME}.img")
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
        with pytest.raises(UnreadableSourceError, match=NAME):
            assert_pixels(opened(path), COVER, COVER[0] != 0)

    def test_a_name_on_something_else(self, tmp_path: Path) -> None:
        for content in (b"", b"EHFA_HEADER_TAG\0", b"II*\0", b"not a raster"):
            path = tmp_path / f"{NAME}.img"
            path.write_bytes(content)
            assert reader_of(path) in (None, "geotiff")

    def test_many_numbers_in_tags_end_soon(self, make: MakeRaster) -> None:
        tags = {f"t{number}": "NLCD " + "12345 " * 5000 for number in range(20)}
        with opened(make("map.tif", tags=tags)) as scene:
            assert scene.time_us is None


def test_what_a_dataset_takes_from_the_reader() -> None:
    defaults = NlcdReader().defaults
    assert defaults.resolutions_m == (30.0,)
    assert defaults.lengths == {"geohash": 4, "quadtile": 10}
