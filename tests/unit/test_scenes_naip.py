"""NAIP quarter quads in every packing, and pictures that only look like one."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from pyproj import CRS, Transformer
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from geostore.errors import UnreadableSourceError
from geostore.scenes import ReadOptions, Scene, Source, detect, open_source
from geostore.scenes.naip import NaipReader, Quad, _utm_zone
from geostore.types import BandRole, TimeSpan

MakeRaster = Callable[..., Path]

QUAD = "m_4709963_se_14_1_20090818"
# Its middle lies at 47.03 N, 99.155 W: inside quarter se of quadrangle 63 of block 47, 99.
PLACE: dict[str, Any] = {
    "crs": "EPSG:26914",
    "transform": (60.0, 0.0, 485_900.0, 0.0, -60.0, 5_211_000.0),
}
PIXELS = np.random.default_rng(7).integers(1, 255, (4, 50, 80), dtype="uint8")
PROGRAM = {"TIFFTAG_IMAGEDESCRIPTION": "USDA-FSA-APFO National Agriculture Imagery Program"}


@pytest.fixture
def make(make_raster: MakeRaster) -> MakeRaster:
    def made(name: str = f"{QUAD}.tif", data: Any = PIXELS, **keywords: Any) -> Path:
        return make_raster(name, data, **{**PLACE, **keywords})

    return made


def opened(path: Path, **options: Any) -> Scene:
    (scene,) = open_source(path, options=ReadOptions(**options))
    return scene


def reader_of(path: Path) -> str | None:
    reader = detect(path)
    return None if reader is None else reader.name


def zipped(path: Path, *files: Path, folder: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for file in files:
            target.write(file, folder + file.name)
    return path


def as_jp2(path: Path) -> Path:
    with rasterio.open(path) as source:
        made = path.with_suffix(".jp2")
        with rasterio.open(
            made, "w", driver="JP2OpenJPEG", count=source.count, height=source.height,
            width=source.width, dtype="uint8", crs=source.crs, transform=source.transform,
            QUALITY="100", REVERSIBLE="YES", YCBCR420="NO",
        ) as target:  # fmt: skip
            target.write(source.read())
    path.unlink()
    for sidecar in path.parent.glob(f"{path.stem}.*.aux.xml"):
        sidecar.unlink()
    return made


def set_colors(path: Path, *colors: ColorInterp) -> Path:
    with rasterio.open(path, "r+") as target:
        target.colorinterp = colors
    return path


def span(scene: Scene) -> TimeSpan:
    return TimeSpan(scene.time_us, scene.time_end_us)


def assert_pixels(scene: Scene, data: Any = PIXELS) -> None:
    assert len(scene.bands) == len(data)
    for band, expected in zip(scene.bands, data, strict=True):
        pixels, valid = band.source.read(0, 0, *expected.shape)
        np.testing.assert_array_equal(pixels, expected)
        assert valid is None


class TestPackings:
    @pytest.mark.parametrize("count", [3, 4])
    @pytest.mark.parametrize("packing", ["tif", "jp2", "tif.zip", "jp2.zip", "folder.zip"])
    def test_one_scene_whatever_holds_it(
        self, make: MakeRaster, tmp_path: Path, count: int, packing: str
    ) -> None:
        path = make(data=PIXELS[:count])
        if "jp2" in packing:
            path = as_jp2(path)
        if packing.endswith("zip"):
            folder = "some/folder/" if packing.startswith("folder") else ""
            path = zipped(tmp_path / "some name.zip", path, folder=folder)
        with opened(path) as scene:
            assert (scene.id, scene.reader) == (QUAD, "naip")
            assert span(scene) == TimeSpan.parse("2009-08-18")
            assert (scene.platform, scene.cloud, scene.missing) == (None, None, ())
            names = [("B1", "red"), ("B2", "green"), ("B3", "blue"), ("B4", "nir")][:count]
            assert [(one.info.name, one.info.common_name) for one in scene.bands] == names
            assert {one.info.role for one in scene.bands} == {BandRole.DATA}
            assert {one.info.native_resolution_m for one in scene.bands} == {60.0}
            assert_pixels(scene, PIXELS[:count])
            about = scene.properties
            assert (about["quarter_quad"], about["utm_zone"]) == ("4709963_se", 14)

    def test_several_quads_in_an_archive(self, make: MakeRaster, tmp_path: Path) -> None:
        later = make("m_4709963_se_14_1_20150926_20160101.tif", 255 - PIXELS)
        scenes = open_source(zipped(tmp_path / "two.zip", make(), later))
        assert [scene.id for scene in scenes] == [QUAD, "m_4709963_se_14_1_20150926_20160101"]
        assert scenes[1].properties["published"] == "2016-01-01"
        assert_pixels(scenes[0])
        assert_pixels(scenes[1], 255 - PIXELS)
        for scene in scenes:
            scene.close()

    def test_metadata_beside_a_quad_in_an_archive(self, make: MakeRaster, tmp_path: Path) -> None:
        notes = tmp_path / f"{QUAD}.txt"
        notes.write_text("Identification_Information:")
        assert reader_of(zipped(tmp_path / "a.zip", make(), notes)) == "naip"
        assert reader_of(notes) is None

    def test_another_raster_in_an_archive_is_not_lost(
        self, make: MakeRaster, tmp_path: Path
    ) -> None:
        """All of them are read as plain rasters then."""
        other = make("field.tif", PIXELS[:1])
        scenes = open_source(zipped(tmp_path / "mixed.zip", make(), other))
        assert [scene.reader for scene in scenes] == ["geotiff", "geotiff"]
        for scene in scenes:
            scene.close()

    def test_a_folder_of_quads_is_walked_not_a_product(self, make: MakeRaster) -> None:
        make("folder/m_4709963_se_14_1_20090818.tif")
        assert reader_of(make("folder/m_4709963_se_14_1_20150926.tif").parent) is None


class TestBandFiles:
    @pytest.fixture
    def folder(self, make: MakeRaster) -> Path:
        paths = [
            make(f"folder/NAIP-VA-b{number}.tiff", PIXELS[number - 1 : number])
            for number in range(1, 5)
        ]
        return paths[0].parent

    @pytest.mark.parametrize("packed", [False, True])
    def test_one_scene(self, folder: Path, tmp_path: Path, packed: bool) -> None:
        path = zipped(tmp_path / "a.zip", *folder.iterdir()) if packed else folder
        with opened(path, time=TimeSpan.parse("2011")) as scene:
            assert scene.reader == "naip"
            assert scene.id == f"NAIP-VA-{scene.fingerprint[:8]}"
            assert span(scene) == TimeSpan.parse("2011")
            assert [band.info.common_name for band in scene.bands] == [
                "red",
                "green",
                "blue",
                "nir",
            ]
            assert_pixels(scene)

    def test_named_as_a_quad(self, folder: Path) -> None:
        for number in range(1, 5):
            (folder / f"NAIP-VA-b{number}.tiff").rename(folder / f"{QUAD}_band{number}.tif")
        with opened(folder) as scene:
            assert (scene.id, span(scene)) == (QUAD, TimeSpan.parse("2009-08-18"))
            assert_pixels(scene)

    def test_without_the_fourth(self, folder: Path) -> None:
        (folder / "NAIP-VA-b4.tiff").unlink()
        with opened(folder) as scene:
            assert_pixels(scene, PIXELS[:3])

    def test_with_a_gap_they_are_plain_rasters(self, folder: Path) -> None:
        (folder / "NAIP-VA-b2.tiff").unlink()
        assert reader_of(folder) is None
        assert reader_of(folder / "NAIP-VA-b1.tiff") == "geotiff"

    @pytest.mark.parametrize(
        "change",
        [
            {"transform": (60.0, 0.0, 485_960.0, 0.0, -60.0, 5_211_000.0)},
            {"crs": "EPSG:26915"},
            {"data": PIXELS[:1, :40]},
            {"data": PIXELS[:1].astype("uint16")},
            {"data": PIXELS[:2]},
        ],
    )
    def test_that_do_not_fit_each_other(
        self, folder: Path, make: MakeRaster, change: dict[str, Any]
    ) -> None:
        make("folder/NAIP-VA-b3.tiff", change.pop("data", PIXELS[:1]), **change)
        assert reader_of(folder) is None
        with pytest.raises(UnreadableSourceError, match=r"NAIP-VA-b\d.*expected"):
            open_source(folder, reader="naip")

    def test_beside_something_else(self, folder: Path, make: MakeRaster) -> None:
        """Claimed, the folder would hide the other raster."""
        make("folder/deeper/other.tif", PIXELS[:1])
        assert reader_of(folder) is None

    def test_that_do_not_say_naip(self, folder: Path) -> None:
        for number in range(1, 5):
            (folder / f"NAIP-VA-b{number}.tiff").rename(folder / f"field-b{number}.tif")
        assert reader_of(folder) is None


class TestFourthBand:
    RGBA = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)

    def test_near_infrared_that_says_alpha_is_near_infrared(self, make: MakeRaster) -> None:
        data = PIXELS.copy()
        data[3, :10] = 0  # dark water would be taken for a hole in every band
        with opened(set_colors(make(data=data), *self.RGBA)) as scene:
            assert [band.info.common_name for band in scene.bands][3] == "nir"
            assert_pixels(scene, data)

    def test_a_mask_is_a_mask(self, make: MakeRaster) -> None:
        data = PIXELS.copy()
        data[3] = 255
        data[3, :10] = 0
        with opened(set_colors(make(data=data), *self.RGBA)) as scene:
            assert len(scene.bands) == 3
            _, valid = scene.bands[0].source.read(0, 0, 50, 80)
            np.testing.assert_array_equal(valid, data[3] == 255)

    def test_that_says_nothing_or_infrared(self, make: MakeRaster) -> None:
        for last in (ColorInterp.undefined, ColorInterp.nir):
            with opened(set_colors(make(data=PIXELS), *self.RGBA[:3], last)) as scene:
                assert_pixels(scene)


class TestValidity:
    def test_black_is_valid_where_the_file_does_not_say_otherwise(self, make: MakeRaster) -> None:
        data = PIXELS.copy()
        data[:, :10] = 0
        with opened(make(data=data)) as scene:
            assert scene.bands[0].info.nodata is None
            assert_pixels(scene, data)

    def test_what_the_file_declares_counts(self, make: MakeRaster) -> None:
        data = PIXELS.copy()
        data[:, :10] = 0
        with opened(make(data=data, nodata=0)) as scene:
            for band, expected in zip(scene.bands, data, strict=True):
                assert band.info.nodata == 0
                np.testing.assert_array_equal(band.source.read(0, 0, 50, 80)[1], expected != 0)


class TestWhatIsNaip:
    def test_without_a_suffix(self, make: MakeRaster) -> None:
        assert reader_of(make(QUAD)) == "naip"

    def test_by_its_tags_under_any_name(self, make: MakeRaster) -> None:
        tags = {**PROGRAM, "TIFFTAG_DOCUMENTNAME": "SOME PLACE SE 4709963"}
        with opened(make("field.tif", tags=tags)) as scene:
            assert (scene.reader, scene.properties["quarter_quad"]) == ("naip", "4709963_se")
            assert scene.id == f"field-{scene.fingerprint[:8]}"
            assert scene.time_us is None

    def test_the_day_from_a_tag(self, make: MakeRaster) -> None:
        tags = {**PROGRAM, "ACQUISITION_DATE": "2013-07-04", "TIFFTAG_DATETIME": "2015:01:01"}
        with opened(make("field.tif", tags=tags)) as scene:
            assert span(scene) == TimeSpan.parse("2013-07-04")

    def test_a_name_with_a_place_but_no_day(self, make: MakeRaster) -> None:
        with opened(make("m_4709963_se_14_1_naip-new.tif")) as scene:
            assert scene.id == f"m_4709963_se_14_1_naip-new-{scene.fingerprint[:8]}"
            assert scene.time_us is None

    @pytest.mark.parametrize(
        ("name", "keywords"),
        [
            ("field.tif", {}),  # the name says nothing
            ("naip.tif", {}),
            ("ortho_1-1_1n_s_nd093_2009_1.tif", {}),  # a county mosaic
            (f"{QUAD}.tif", {"data": PIXELS[:1]}),
            (f"{QUAD}.tif", {"data": PIXELS[:2]}),
            (f"{QUAD}.tif", {"data": np.concatenate([PIXELS, PIXELS[:1]])}),
            (f"{QUAD}.tif", {"data": PIXELS.astype("uint16")}),
            (f"{QUAD}.tif", {"data": PIXELS.astype("float32")}),
            (f"{QUAD}.tif", {"crs": "EPSG:32614"}),  # WGS 84
            (f"{QUAD}.tif", {"crs": "EPSG:26715"}),  # NAD27
            (f"{QUAD}.tif", {"crs": "EPSG:26915"}),  # the neighbouring zone
            (f"{QUAD}.tif", {"crs": "EPSG:3857"}),
            (f"{QUAD}.tif", {"crs": None}),
            ("m_4709963_se_15_1_20090818.tif", {}),  # another zone
            ("m_4709962_se_14_1_20090818.tif", {}),  # the quadrangle to the west
            ("m_4709963_ne_14_1_20090818.tif", {}),  # the quarter to the north
            ("m_4709965_se_14_1_20090818.tif", {}),  # no such quadrangle
            ("m_4709900_se_14_1_20090818.tif", {}),
            ("field.tif", {"tags": {**PROGRAM, "TIFFTAG_DOCUMENTNAME": "ELSEWHERE NW 3607717"}}),
            ("field.tif", {"tags": PROGRAM, "data": PIXELS[:1]}),
        ],
    )
    def test_what_only_looks_like_it(
        self, make: MakeRaster, name: str, keywords: dict[str, Any]
    ) -> None:
        path = make(name, keywords.pop("data", PIXELS), **keywords)
        with Source(path) as source:
            assert not NaipReader().claims(source)
        assert reader_of(path) == "geotiff"

    def test_a_quad_name_on_something_that_is_no_raster(self, tmp_path: Path) -> None:
        path = tmp_path / f"{QUAD}.tif"
        path.write_bytes(b"not a raster at all")
        assert reader_of(path) is None

    @pytest.mark.parametrize("kept", [0.02, 0.5, 0.95])
    def test_a_truncated_quad(self, make: MakeRaster, kept: float) -> None:
        path = make()
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
        with pytest.raises(UnreadableSourceError, match=QUAD):
            assert_pixels(opened(path))


class TestAsked:
    """`--reader naip` takes pictures that the reader would not claim."""

    def test_any_picture(self, make: MakeRaster) -> None:
        path = make("mosaic.tif", PIXELS[:3], crs="EPSG:3857")
        (scene,) = open_source(
            path, reader="naip", options=ReadOptions(time=TimeSpan.parse("2012-06-01"))
        )
        with scene:
            assert span(scene) == TimeSpan.parse("2012-06-01")
            assert [band.info.common_name for band in scene.bands] == ["red", "green", "blue"]

    @pytest.mark.parametrize(
        ("keywords", "why"),
        [
            ({"data": PIXELS[:2]}, r"2 bands of uint8: expected NAIP's 3 or 4 of uint8"),
            ({"data": PIXELS.astype("int16")}, r"4 bands of int16"),
            ({"crs": None}, r"no CRS"),
        ],
    )
    def test_not_everything(self, make: MakeRaster, keywords: dict[str, Any], why: str) -> None:
        path = make("other.tif", keywords.pop("data", PIXELS), **keywords)
        with pytest.raises(UnreadableSourceError, match=rf"other\.tif: {why}"):
            open_source(path, reader="naip")

    def test_a_folder_or_a_text(self, make: MakeRaster, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("x")
        for path in (make("folder/a.tif").parent, tmp_path / "a.txt"):
            with pytest.raises(UnreadableSourceError, match="expected NAIP quarter quads"):
                open_source(path, reader="naip")


class TestQuadNames:
    @pytest.mark.parametrize(
        ("name", "corner", "zone", "size_m"),
        [
            ("m_4709963_se_14_1_20090818.tif", (-99.1875, 47.0), 14, 1.0),
            ("m_3607717_sw_18_1_20160620_subset", (-78.0, 36.625), 18, 1.0),
            ("m_3211605_ne_11_060_20200415", (-116.4375, 32.9375), 11, 0.6),
            ("m_4112001_sw_10_060_20220716", (-121.0, 41.875), 10, 0.6),
            ("m_3907833_nw_17_1_naip-new", (-79.0, 39.4375), 17, 1.0),
            ("M_3209055_NE_15_030_20211113_20220317", (-90.1875, 32.1875), 15, 0.3),
            ("vt_m_4407264_se_18_h_20140101", (-72.0625, 44.0), 18, 0.5),
            ("m_0000001_nw_1_2_20030101", (-1.0, 0.9375), 1, 2.0),
        ],
    )
    def test_place_and_size(
        self, name: str, corner: tuple[float, float], zone: int, size_m: float
    ) -> None:
        quad = Quad.parse(name)
        assert quad is not None
        assert (quad.west, quad.south) == corner
        assert (quad.utm_zone, quad.resolution_m) == (zone, size_m)

    @pytest.mark.parametrize(
        "name",
        [
            "m_470996_se_14_1_20090818",
            "m_4709963_xx_14_1_20090818",
            "m_4709963_se_0_1_20090818",
            "m_4709963_se_61_1_20090818",
            "m_4709963_se_14_1x",
            "xm_4709963_se_14_1_20090818",
            "m_4709963_se",
            "m_" + "9" * 5000,
        ],
    )
    def test_other_names(self, name: str) -> None:
        assert Quad.parse(name) is None

    @pytest.mark.parametrize(
        ("flown", "expected"),
        [
            ("20090818", "2009-08-18"),
            ("20240229", "2024-02-29"),
            ("20230229", None),
            ("20091399", None),
            ("18990101", None),
            ("20011231", None),
            ("21000101", None),
        ],
    )
    def test_days(self, flown: str, expected: str | None) -> None:
        quad = Quad.parse(f"m_4709963_se_14_1_{flown}_20250101")
        assert quad is not None
        assert quad.flown == (TimeSpan.parse(expected) if expected else None)
        assert quad.published == ("2025-01-01" if expected else None)


@pytest.mark.parametrize(
    ("crs", "zone"),
    [
        ("EPSG:26910", 10),
        ("EPSG:26919", 19),
        ("EPSG:6344", 15),  # NAD83(2011)
        ("EPSG:3744", 14),  # NAD83(HARN)
        ("EPSG:26914+5703", 14),
        ("EPSG:32614", None),
        ("EPSG:26715", None),
        ("EPSG:2263", None),
        ("EPSG:5070", None),
        ("EPSG:4269", None),
        (
            (
                'PROJCS["NAD_1983_UTM_Zone_17N",GEOGCS["GCS_North_American_1983",'
                'DATUM["D_North_American_1983",SPHEROID["GRS_1980",6378137.0,298.257222101]],'
                'PRIMEM["Greenwich",0.0],UNIT["Degree",0.0174532925199433]],'
                'PROJECTION["Transverse_Mercator"],PARAMETER["False_Easting",500000.0],'
                'PARAMETER["False_Northing",0.0],PARAMETER["Central_Meridian",-81.0],'
                'PARAMETER["Scale_Factor",0.9996],PARAMETER["Latitude_Of_Origin",0.0],'
                'UNIT["Meter",1.0]]'
            ),
            17,
        ),
    ],
)
def test_zones_of_utm_on_nad83(crs: str, zone: int | None) -> None:
    assert _utm_zone(CRS.from_user_input(crs)) == zone


def test_what_a_dataset_takes_from_the_reader() -> None:
    defaults = NaipReader().defaults
    assert defaults.resolutions_m is None
    assert defaults.lengths == {"geohash": 6, "quadtile": 16}


def test_the_quad_of_the_tests_lies_where_it_says() -> None:
    quad = Quad.parse(QUAD)
    assert quad is not None
    transform = Affine(*PLACE["transform"])
    x, y = transform @ (40, 25)
    lon, lat = Transformer.from_crs("EPSG:26914", "EPSG:4269", always_xy=True).transform(x, y)
    assert quad.west < lon < quad.west + 1 / 16
    assert quad.south < lat < quad.south + 1 / 16
