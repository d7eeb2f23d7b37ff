"""Any raster: names, roles, times, and what cannot be placed on the globe."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp

from geostore.errors import InvalidInputError, UnreadableSourceError
from geostore.scenes import ReadOptions, Scene, detect, open_source
from geostore.scenes.times import time_from_name, time_from_tags
from geostore.types import BandRole, TimeSpan

MakeRaster = Callable[..., Path]

ONE = np.full((1, 6, 8), 7, "uint16")


def opened(path: Path, **options: Any) -> Scene:
    (scene,) = open_source(path, options=ReadOptions(**options))
    return scene


def edit(path: Path, **changes: Any) -> Path:
    with rasterio.open(path, "r+") as target:
        for name, value in changes.items():
            setattr(target, name, value)
    return path


class TestBands:
    def test_names_come_from_descriptions_that_can_be_names(self, make_raster: MakeRaster) -> None:
        data = np.repeat(ONE, 7, axis=0)
        said = ("NDVI", "near infrared", "NDVI", "B2", "x/../y", "", "q" * 100)
        scene = opened(make_raster("a.tif", data, descriptions=said))
        assert [band.info.name for band in scene.bands] == [
            "NDVI",
            "B2",  # a space
            "B3",  # taken
            "B4",  # would name another band
            "B5",  # would leave the tile
            "B6",
            "B7",  # too long
        ]
        assert scene.bands[1].info.description == "near infrared"
        scene.close()

    def test_what_the_file_says_of_each_band(self, make_raster: MakeRaster) -> None:
        path = make_raster("a.tif", np.repeat(ONE, 2, axis=0), nodata=7, descriptions=("red", ""))
        edit(path, scales=(0.5, 2.0), offsets=(-1.0, 3.0), units=("K", ""))
        first, second = (band.info for band in opened(path).bands)
        assert (first.scale, first.offset, first.unit, first.nodata) == (0.5, -1.0, "K", 7)
        assert (second.scale, second.offset, second.unit) == (2.0, 3.0, None)
        assert (first.common_name, first.role, first.native_resolution_m) == (
            "red",
            BandRole.DATA,
            10.0,
        )

    def test_colours_are_common_names_and_alpha_is_a_mask(self, make_raster: MakeRaster) -> None:
        data = np.repeat(ONE, 5, axis=0).astype("uint8")
        data[4, :3] = 0
        colors = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.nir]
        path = edit(make_raster("a.tif", data), colorinterp=[*colors, ColorInterp.alpha])
        scene = opened(path)
        assert [band.info.common_name for band in scene.bands] == ["red", "green", "blue", "nir"]
        for band in scene.bands:
            np.testing.assert_array_equal(band.source.read(0, 0, 6, 8)[1], data[4] != 0)

    def test_a_colour_table_means_classes(self, make_raster: MakeRaster) -> None:
        path = make_raster("a.tif", ONE.astype("uint8"))
        with rasterio.open(path, "r+") as target:
            target.write_colormap(1, {7: (1, 2, 3, 255), 9: (255, 128, 0, 255)})
        info = opened(path).bands[0].info
        assert info.role is BandRole.CLASS
        # The file has all 256 entries; those never set are black.
        assert (info.class_colors, info.class_names) == ({"7": "#010203", "9": "#ff8000"}, {})

    def test_only_an_alpha_band(self, make_raster: MakeRaster) -> None:
        path = edit(make_raster("a.tif", ONE), colorinterp=[ColorInterp.alpha])
        with pytest.raises(UnreadableSourceError, match=r"a\.tif: no band besides a mask"):
            open_source(path)

    @pytest.mark.parametrize("dtype", ["int8", "int64", "float64"])
    def test_unusual_dtypes(self, make_raster: MakeRaster, dtype: str) -> None:
        (band,) = opened(make_raster("a.tif", ONE.astype(dtype))).bands
        assert band.info.dtype == dtype

    def test_complex(self, make_raster: MakeRaster) -> None:
        path = make_raster("slc.tif", ONE.astype("complex64"))
        with pytest.raises(InvalidInputError, match=r"slc\.tif.*complex64"):
            open_source(path)

    @pytest.mark.parametrize(
        ("crs", "transform", "size_m"),
        [
            ("EPSG:32618", (10, 0, 5e5, 0, -20, 4.2e6), 10.0),
            ("EPSG:32618", (6, 8, 5e5, 8, -6, 4.2e6), 10.0),
            ("EPSG:4326", (0.001, 0, 10, 0, -0.002, 50), 111.31949),
            ("EPSG:2263", (100, 0, 9e5, 0, -100, 2e5), 30.48006),  # US survey feet
        ],
    )
    def test_pixel_size(
        self, make_raster: MakeRaster, crs: str, transform: tuple[float, ...], size_m: float
    ) -> None:
        (band,) = opened(make_raster("a.tif", ONE, crs=crs, transform=transform)).bands
        assert band.info.native_resolution_m == pytest.approx(size_m, rel=1e-6)


class TestPlace:
    def test_no_crs(self, make_raster: MakeRaster) -> None:
        with pytest.raises(UnreadableSourceError, match=r"a\.tif: no CRS"):
            open_source(make_raster("a.tif", ONE, crs=None))

    @pytest.mark.filterwarnings("ignore:The given matrix is equal to Affine.identity")
    def test_no_transform(self, make_raster: MakeRaster) -> None:
        path = make_raster("a.tif", ONE, transform=(1, 0, 0, 0, 1, 0))
        with pytest.raises(UnreadableSourceError, match=r"a\.tif: no geotransform"):
            open_source(path)

    def gcps(self, tmp_path: Path, *places: tuple[float, ...], crs: str | None) -> Path:
        path = tmp_path / "gcps.tif"
        with rasterio.open(
            path, "w", driver="GTiff", height=6, width=8, count=1, dtype="uint16",
            gcps=[GroundControlPoint(row, col, x, y) for row, col, x, y in places], crs=crs,
        ) as target:  # fmt: skip
            target.write(ONE)
        return path

    def test_ground_control_points(self, tmp_path: Path) -> None:
        path = self.gcps(
            tmp_path, (0, 0, 10, 50), (0, 8, 10.8, 50), (6, 0, 10, 49.4), crs="EPSG:4326"
        )
        scene = opened(path)
        grid = scene.bands[0].source.grid
        assert grid.transform == pytest.approx((0.1, 0.0, 10.0, 0.0, -0.1, 50.0))
        assert len(grid.control) == 3
        assert scene.properties["control_points"] == {
            "points": 3,
            "method": "polynomial of order 1",
            "polynomial_error_rms_px": 0.0,
            "polynomial_error_max_px": 0.0,
        }
        assert scene.properties["crs"] == "EPSG:4326"
        assert scene.bands[0].info.native_resolution_m == pytest.approx(
            11_131.949 * np.cos(np.radians(49.7))
        )
        scene.close()

    def test_ground_control_points_that_place_nothing(self, tmp_path: Path) -> None:
        two = self.gcps(tmp_path, (0, 0, 10, 50), (0, 8, 10.8, 50), crs="EPSG:4326")
        with pytest.raises(UnreadableSourceError, match=r"gcps\.tif: 2 ground control points"):
            open_source(two)
        nowhere = self.gcps(tmp_path, (0, 0, 1, 5), (0, 8, 9, 5), (6, 0, 1, -1), crs=rasterio.CRS())
        with pytest.raises(UnreadableSourceError, match=r"gcps\.tif: no CRS"):
            open_source(nowhere)

    @pytest.mark.parametrize(
        "wkt",
        [
            'LOCAL_CS["a hall",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]',
            (
                'PROJCS["odd",GEOGCS["g",DATUM["d",SPHEROID["s",6378137,298]],PRIMEM["G",0],'
                'UNIT["degree",0.0174532925199433]],PROJECTION["Cubic_Nonsense"],UNIT["metre",1]]'
            ),
        ],
    )
    def test_a_crs_that_proj_cannot_use(self, make_raster: MakeRaster, wkt: str) -> None:
        with pytest.raises(UnreadableSourceError, match=r"a\.tif"):
            open_source(make_raster("a.tif", ONE, crs=wkt))

    def test_outside_the_globe(self, make_raster: MakeRaster) -> None:
        geos = "+proj=geos +h=35785831 +lon_0=0 +sweep=y"
        path = make_raster("a.tif", ONE, crs=geos, transform=(10, 0, 9e6, 0, -10, 9e6))
        with pytest.raises(UnreadableSourceError, match=r"a\.tif: PROJ places none"):
            open_source(path)

    def test_a_transform_without_area(self, make_raster: MakeRaster) -> None:
        path = make_raster("a.tif", ONE, transform=(10, 10, 5e5, 10, 10, 4e6))
        with pytest.raises(UnreadableSourceError, match=r"a\.tif: geotransform.*no area"):
            open_source(path)

    def test_rotated_and_upside_down_are_fine(self, make_raster: MakeRaster) -> None:
        for number, transform in enumerate(((8, 3, 5e5, 3, -8, 4e6), (10, 0, 5e5, 0, 10, 4e6))):
            (band,) = opened(make_raster(f"{number}.tif", ONE, transform=transform)).bands
            assert band.source.grid.transform == transform


class TestIdentity:
    def test_the_files_stem_and_its_hash(self, make_raster: MakeRaster) -> None:
        path = make_raster("field 7 (äö).tif", ONE)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        scene = opened(path)
        assert scene.id == f"field_7-{digest[:8]}"
        assert scene.reader == "geotiff"
        assert (scene.platform, scene.cloud, scene.missing) == (None, None, ())

    def test_a_name_without_any_usable_letter(self, make_raster: MakeRaster) -> None:
        assert opened(make_raster("---.tif", ONE)).id.startswith("raster-")
        assert len(opened(make_raster("n" * 240 + ".tif", ONE)).id) < 220

    def test_in_a_zip_every_raster_is_a_scene(
        self, make_raster: MakeRaster, tmp_path: Path
    ) -> None:
        alone = [
            opened(make_raster(f"{name}.tif", ONE + number)) for number, name in enumerate("ab")
        ]
        with zipfile.ZipFile(tmp_path / "both.zip", "w") as target:
            for name in "ab":
                target.write(tmp_path / f"{name}.tif", f"folder/{name}.tif")
            target.writestr("folder/preview.png", b"\x89PNG\r\n\x1a\n")
            target.writestr("folder/fake.tif", b"not a raster")
        inside = open_source(tmp_path / "both.zip")
        assert [scene.id for scene in inside] == [scene.id for scene in alone]
        assert [one.fingerprint for one in inside] == [one.fingerprint for one in alone]
        for scene, number in zip(inside, (7, 8), strict=True):
            assert (scene.bands[0].source.read(0, 0, 6, 8)[0] == number).all()
            scene.close()

    def test_a_bad_raster_in_a_zip_is_named(self, make_raster: MakeRaster, tmp_path: Path) -> None:
        path = make_raster("a.tif", ONE, crs=None)
        with zipfile.ZipFile(tmp_path / "z.zip", "w") as target:
            target.write(path, "a.tif")
        with pytest.raises(UnreadableSourceError, match=r"z\.zip!a\.tif: no CRS"):
            open_source(tmp_path / "z.zip")

    def test_detected_by_content(self, make_raster: MakeRaster, tmp_path: Path) -> None:
        path = make_raster("a.tif", ONE).rename(tmp_path / "noextension")
        reader = detect(path)
        assert reader is not None
        assert reader.name == "geotiff"


class TestTime:
    def test_the_caller_wins_over_tags_and_tags_over_the_name(
        self, make_raster: MakeRaster
    ) -> None:
        path = make_raster("x_20150926.tif", ONE, tags={"TIFFTAG_DATETIME": "2018:07:16 06:06:23"})
        said = TimeSpan.parse("2020-01-02/2020-01-05")
        assert span(opened(path, time=said)) == said
        assert span(opened(path)) == TimeSpan.parse("2018-07-16T06:06:23Z")
        bare = make_raster("y_20150926.tif", ONE)
        assert span(opened(bare)) == TimeSpan.parse("2015-09-26")
        unknown = opened(make_raster("z.tif", ONE))
        assert (unknown.time_us, unknown.time_end_us) == (None, None)

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("m_4709963_se_14_1_20150926.tif", "2015-09-26"),
            ("ga_ls_wofs_3_099081_2020-07-26_interim.tif", "2020-07-26"),
            ("ndvi_2020_07_26.tif", "2020-07-26"),
            ("folder_20200101/scene.tif", None),
            ("S2A_20160112T160642_B02.tif", "2016-01-12T16:06:42Z"),
            ("20160112T160642Z.tif", "2016-01-12T16:06:42Z"),
            ("20240229.tif", "2024-02-29"),
            ("20230229.tif", None),
            ("20231301.tif", None),
            ("18991231.tif", None),
            ("21000101.tif", None),
            ("120240101.tif", None),
            ("202401011.tif", None),
            ("99999999_20240101.tif", "2024-01-01"),
            ("20240101T250000.tif", None),
            ("2020-07_26.tif", None),
            ("LC08_L1TP_014032_20180615_20180703_01.tif", "2018-06-15"),
            ("B1.tif", None),
            ("LE70230282011250EDC00_ndvi.tif", "2011-09-07"),
            ("LC80890802016062LGN01.fmask.img", "2016-03-02"),
            ("LT50230282012366PAC00.tif", "2012-12-31"),
            ("LT50230282011366PAC00.tif", None),
            ("LT50230282011000PAC00.tif", None),
            ("XLT50230282011250PAC00.tif", None),
        ],
    )
    def test_from_names(self, name: str, expected: str | None) -> None:
        assert time_from_name(name) == (TimeSpan.parse(expected) if expected else None)

    @pytest.mark.parametrize(
        ("tags", "expected"),
        [
            ({"TIFFTAG_DATETIME": "2018:07:16 06:06:23"}, "2018-07-16T06:06:23Z"),
            ({"ACQUISITIONDATETIME": "2018-07-16T06:06:23.25Z"}, "2018-07-16T06:06:23.25Z"),
            ({"acquisition_datetime": "2018-07-16T06:06:23+02:00"}, "2018-07-16T04:06:23Z"),
            ({"DATE_ACQUIRED": "2018-07-16"}, "2018-07-16"),
            (
                {"DATE_ACQUIRED": "2018-07-16", "TIFFTAG_DATETIME": "2021:01:01 00:00:00"},
                "2018-07-16",
            ),
            ({"TIFFTAG_DATETIME": "0000:00:00 00:00:00"}, None),
            ({"TIFFTAG_DATETIME": "yesterday"}, None),
            ({"TIFFTAG_DATETIME": "9999:01:01 00:00:00"}, None),
            ({}, None),
        ],
    )
    def test_from_tags(self, tags: dict[str, str], expected: str | None) -> None:
        assert time_from_tags(tags) == (TimeSpan.parse(expected) if expected else None)

    def test_a_day_lasts_to_its_last_microsecond(self) -> None:
        day = time_from_name("20150926.tif")
        assert day is not None
        assert day.start_us == datetime(2015, 9, 26, tzinfo=UTC).timestamp() * 1e6
        assert day.end_us == datetime(2015, 9, 27, tzinfo=UTC).timestamp() * 1e6 - 1


def test_tags_are_kept_but_bounded(make_raster: MakeRaster) -> None:
    many = {f"tag{number:03}": "v" * 2000 for number in range(100)}
    tags = opened(make_raster("a.tif", ONE, tags=many)).properties["tags"]
    assert len(tags) == 64
    assert max(map(len, tags.values())) == 512


def span(scene: Scene) -> TimeSpan:
    return TimeSpan(scene.time_us, scene.time_end_us)
