"""Landsat products of every generation, packed in every way, and all that can be broken."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

import geostore
from geostore.compute import cloud_mask
from geostore.errors import GeostoreError, InvalidInputError, UnreadableSourceError
from geostore.scenes import Scene, detect, open_source
from geostore.scenes.landsat_mtl import MTL_BYTES_MAX, parse_mtl
from geostore.scenes.landsat_products import PRODUCTS_MAX, find_products
from geostore.types import BandRole, TimeSpan
from tests.landsat_products import (
    ETM_L1,
    OLI_L1,
    OLI_SR,
    SIDE,
    ST_LAYERS,
    TM_L1,
    TM_SR,
    Made,
    band_pixels,
    mtl_json,
    mtl_odl,
    mtl_xml,
    pack,
    write_band,
)

OLI_L2SP = [*OLI_SR, "ST_B10", "SR_QA_AEROSOL", "QA_PIXEL", "QA_RADSAT", *ST_LAYERS]
TM_L2SP = [
    *TM_SR,
    "ST_B6",
    "SR_ATMOS_OPACITY",
    "SR_CLOUD_QA",
    "QA_PIXEL",
    "QA_RADSAT",
    *ST_LAYERS,
]
ANGLES = ["VAA", "VZA", "SAA", "SZA"]
PRE = "LC80200392015216LGN00"
CENTRE_US = 1_438_705_161_791_742
"""2015-08-04T16:19:21.791742Z"""

TM_COMMON = {
    "1": "blue",
    "2": "green",
    "3": "red",
    "4": "nir08",
    "5": "swir16",
    "6": "lwir",
    "7": "swir22",
}
OLI_COMMON = {
    "1": "coastal",
    "2": "blue",
    "3": "green",
    "4": "red",
    "5": "nir08",
    "6": "swir16",
    "7": "swir22",
    "8": "pan",
    "9": "cirrus",
    "10": "lwir11",
    "11": "lwir12",
}


def c2_l2(folder: Path, **more: object) -> Made:
    return Made(folder, **{"bands": OLI_L2SP, **more})  # type: ignore[arg-type]


def small(folder: Path, **more: object) -> Made:
    """Of Level-2 two bands, where only the metadata matters."""
    return c2_l2(folder, **{"bands": ["SR_B4", "QA_PIXEL"], **more})


def c2_l1(folder: Path, **more: object) -> Made:
    named = {
        "id": "LC09_L1TP_020039_20150804_20230401_02_T1",
        "satellite": 9,
        "level": "L1TP",
        "bands": [*OLI_L1, "QA_PIXEL", "QA_RADSAT", *ANGLES],
    }
    return Made(folder, **{**named, **more})  # type: ignore[arg-type]


def c1_l1(folder: Path, **more: object) -> Made:
    named = {
        "id": "LC08_L1TP_020039_20150804_20170406_01_T1",
        "level": "L1TP",
        "collection": "01",
        "bands": [*OLI_L1, "BQA"],
    }
    return Made(folder, **{**named, **more})  # type: ignore[arg-type]


def tm(folder: Path, satellite: int = 5, **more: object) -> Made:
    named = {"id": f"LT0{satellite}_L1TP_020039_20150804_20161130_01_T1", "bands": [*TM_L1, "BQA"]}
    return c1_l1(folder, **{"satellite": satellite, "sensor": "TM", **named, **more})


def etm(folder: Path, **more: object) -> Made:
    named = {"id": "LE07_L1TP_020039_20150804_20161130_01_T1", "bands": [*ETM_L1, "BQA"]}
    return c1_l1(folder, **{"satellite": 7, "sensor": "ETM", **named, **more})


def pre(folder: Path, **more: object) -> Made:
    named = {"id": PRE, "level": "L1T", "collection": None, "bands": [*OLI_L1, "BQA"]}
    return Made(folder, **{**named, **more})  # type: ignore[arg-type]


MAKERS = {"c2-l2": c2_l2, "c2-l1": c2_l1, "c1": c1_l1, "tm": tm, "etm": etm, "pre": pre}


def opened(path: Path) -> Scene:
    reader = detect(path)
    assert reader is not None
    (scene,) = open_source(path)
    assert scene.reader == reader.name
    return scene


def names(scene: Scene) -> list[str]:
    return [band.info.name for band in scene.bands]


class TestGenerations:
    @pytest.mark.parametrize(
        ("kind", "reader", "platform"),
        [
            ("c2-l2", "landsat-c2-l2", "landsat-8"),
            ("c2-l1", "landsat-c2-l1", "landsat-9"),
            ("c1", "landsat-c1-l1", "landsat-8"),
            ("tm", "landsat-c1-l1", "landsat-5"),
            ("etm", "landsat-c1-l1", "landsat-7"),
            ("pre", "landsat-c1-l1", "landsat-8"),
        ],
    )
    def test_what_it_is(self, kind: str, reader: str, platform: str, tmp_path: Path) -> None:
        made = MAKERS[kind](tmp_path).write()
        with opened(made.path) as scene:
            assert (scene.id, scene.reader, scene.platform) == (made.id, reader, platform)
            assert (scene.time_us, scene.time_end_us) == (CENTRE_US, CENTRE_US)
            assert names(scene) == made.bands
            assert (scene.missing, scene.previews) == ((), ())
            assert scene.properties["wrs_path"] == 20
            assert scene.properties["wrs_row"] == 39
            assert scene.properties["cloud_cover_product_percent"] == 11.08
            collections = {"c2": "02", "pre": "pre-collection"}
            assert scene.properties["collection"] == collections.get(kind[:3].rstrip("-"), "01")
            for band in scene.bands:
                side = 2 * SIDE if band.info.name == "B8" else SIDE
                expected = band_pixels(band.info.name, side, band.info.dtype)
                pixels, valid = band.source.read(0, 0, side, side)
                np.testing.assert_array_equal(pixels, expected)
                if band.info.nodata is not None:
                    np.testing.assert_array_equal(valid, expected != band.info.nodata)
                assert band.info.native_resolution_m == (15.0 if band.info.name == "B8" else 30.0)

    @pytest.mark.parametrize(("kind", "common"), [("tm", TM_COMMON), ("c1", OLI_COMMON)])
    def test_common_names_of_level_1(self, kind: str, common: dict, tmp_path: Path) -> None:
        with opened(MAKERS[kind](tmp_path).write().path) as scene:
            found = {b.info.name: b.info.common_name for b in scene.data_bands}
        assert found == {f"B{number}": name for number, name in common.items()}

    def test_a_thermal_band_at_two_gains(self, tmp_path: Path) -> None:
        with opened(etm(tmp_path).write().path) as scene:
            by_name = {b.info.name: b.info for b in scene.data_bands}
        assert by_name["B6_VCID_1"].common_name == by_name["B6_VCID_2"].common_name == "lwir"
        assert "low gain" in (by_name["B6_VCID_1"].description or "")
        assert by_name["B8"].common_name == "pan"

    def test_roles_and_names_of_level_2(self, tmp_path: Path) -> None:
        with opened(c2_l2(tmp_path).write().path) as scene:
            assert [b.info.name for b in scene.data_bands] == [*OLI_SR, "ST_B10"]
            assert {b.info.role for b in scene.bands[8:]} == {BandRole.QUALITY}
            common = {b.info.name: b.info.common_name for b in scene.data_bands}
        assert common == {
            **{f"SR_B{number}": OLI_COMMON[str(number)] for number in range(1, 8)},
            "ST_B10": "lwir11",
        }

    def test_level_2_of_the_older_sensors(self, tmp_path: Path) -> None:
        made = c2_l2(
            tmp_path,
            id="LT05_L2SP_020039_20150804_20200908_02_T1",
            satellite=5,
            sensor="TM",
            bands=TM_L2SP,
        ).write()
        with opened(made.path) as scene:
            assert (scene.reader, scene.platform, scene.missing) == (
                "landsat-c2-l2",
                "landsat-5",
                (),
            )
            assert names(scene) == TM_L2SP
            thermal = scene.band("lwir")
            assert thermal is not None
            assert (thermal.info.name, thermal.info.unit) == ("ST_B6", "K")
            assert scene.cloud is not None
            assert scene.cloud.method == "QA_PIXEL bits 3"

    @pytest.mark.parametrize("kind", ["c2-l2", "tm"])
    def test_nir_is_answered_to_on_every_sensor(self, kind: str, tmp_path: Path) -> None:
        with opened(MAKERS[kind](tmp_path).write().path) as scene:
            (nir,) = [b.info for b in scene.bands if b.info.common_name == "nir08"]
        assert nir.aliases == ("nir",)


class TestRadiometry:
    def test_level_2_is_as_the_metadata_says(self, tmp_path: Path) -> None:
        scales = {f"REFLECTANCE_MULT_BAND_{n}": "2.75e-05" for n in range(1, 8)}
        scales |= {f"REFLECTANCE_ADD_BAND_{n}": "-0.2" for n in range(1, 8)}
        scales["REFLECTANCE_MULT_BAND_4"] = "3.00e-05"
        earlier = {f"REFLECTANCE_MULT_BAND_{n}": "2.0000E-05" for n in range(1, 8)}
        groups = {
            "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS": scales,
            "LEVEL2_SURFACE_TEMPERATURE_PARAMETERS": {
                "TEMPERATURE_MULT_BAND_ST_B10": "0.00341802",
                "TEMPERATURE_ADD_BAND_ST_B10": "149.0",
            },
            "LEVEL1_RADIOMETRIC_RESCALING": earlier,
        }
        made = c2_l2(tmp_path)
        # What the Level-1 source said comes first here, and must not be taken.
        made.groups = {"LEVEL1_RADIOMETRIC_RESCALING": earlier} | made.groups | groups
        with opened(made.write().path) as scene:
            by_name = {b.info.name: b.info for b in scene.bands}
        assert (by_name["SR_B4"].scale, by_name["SR_B4"].offset) == (3e-5, -0.2)
        assert (by_name["SR_B5"].scale, by_name["SR_B5"].offset) == (2.75e-5, -0.2)
        temperature = by_name["ST_B10"]
        assert (temperature.scale, temperature.offset, temperature.unit) == (0.00341802, 149.0, "K")
        assert (by_name["ST_QA"].scale, by_name["ST_QA"].unit) == (0.01, "K")
        assert (by_name["ST_CDIST"].scale, by_name["ST_EMIS"].scale) == (0.01, 1e-4)

    def test_level_1_reflectance_and_radiance(self, tmp_path: Path) -> None:
        rescaling = {
            "RADIANCE_MULT_BAND_4": "9.7062E-03",
            "RADIANCE_ADD_BAND_4": "-48.53088",
            "REFLECTANCE_MULT_BAND_4": "2.0000E-05",
            "REFLECTANCE_ADD_BAND_4": "-0.100000",
            "RADIANCE_MULT_BAND_10": "3.3420E-04",
            "RADIANCE_ADD_BAND_10": "0.10000",
            "K1_CONSTANT_BAND_10": "774.8853",
            "K2_CONSTANT_BAND_10": "1321.0789",
        }
        made = c1_l1(tmp_path, groups={"RADIOMETRIC_RESCALING": rescaling}).write()
        with opened(made.path) as scene:
            by_name = {b.info.name: b.info for b in scene.bands}
            assert scene.properties["thermal_constants"] == {
                "B10": {"k1": 774.8853, "k2": 1321.0789}
            }
        assert (by_name["B4"].scale, by_name["B4"].offset, by_name["B4"].unit) == (2e-5, -0.1, None)
        thermal = by_name["B10"]
        assert (thermal.scale, thermal.offset) == (3.342e-4, 0.1)
        assert thermal.unit == "W m-2 sr-1 um-1"

    def test_products_that_state_radiance_only(self, tmp_path: Path) -> None:
        rescaling = {"RADIANCE_MULT_BAND_3": "1.044", "RADIANCE_ADD_BAND_3": "-2.21398"}
        made = tm(tmp_path, groups={"RADIOMETRIC_RESCALING": rescaling}).write()
        with opened(made.path) as scene:
            by_name = {b.info.name: b.info for b in scene.bands}
        red, blue = by_name["B3"], by_name["B1"]
        assert (red.scale, red.offset, red.unit) == (1.044, -2.21398, "W m-2 sr-1 um-1")
        assert (blue.scale, blue.offset, blue.unit) == (1.0, 0.0, None)

    def test_a_files_own_nodata_value_wins(self, tmp_path: Path) -> None:
        made = c1_l1(tmp_path).write()
        pixels = np.where(band_pixels("B4") == 0, 65535, band_pixels("B4")).astype("uint16")
        write_band(made.file("B4"), pixels, nodata=65535)
        with opened(made.path) as scene:
            band = scene.band("B4")
            assert band is not None
            assert band.info.nodata == 65535
            np.testing.assert_array_equal(band.source.read(0, 0, SIDE, SIDE)[1], pixels != 65535)


class TestClouds:
    @pytest.mark.parametrize(
        ("kind", "band", "values", "cloudy"),
        [
            # Fill, clear, dilated cloud, cirrus, cloud, shadow, high confidences without a flag.
            ("c2-l2", "QA_PIXEL", [1, 64, 2, 4, 8, 16, 0b1100_0011_0000_0000], [3, 4]),
            # Fill, clear, cloud, medium and high cirrus, high cloud confidence alone.
            ("c1", "BQA", [1, 2720, 16, 2 << 11, 3 << 11, 3 << 5], [2, 4]),
            ("tm", "BQA", [1, 672, 16, 2 << 11, 3 << 11, 3 << 5], [2]),
            # Fill, clear, medium and high cirrus, medium and high cloud, Collection 1's bit 4.
            ("pre", "BQA", [1, 20480, 2 << 12, 3 << 12, 2 << 14, 3 << 14, 16], [3, 5]),
        ],
    )
    def test_bits(
        self, kind: str, band: str, values: list[int], cloudy: list[int], tmp_path: Path
    ) -> None:
        made = MAKERS[kind](tmp_path).write()
        layer = np.resize(np.array(values, "uint16"), (SIDE, SIDE))
        write_band(made.file(band), layer)
        with opened(made.path) as scene:
            assert scene.cloud is not None
            quality = scene.band(band)
            assert quality is not None
            pixels, valid = quality.source.read(0, 0, SIDE, SIDE)
            np.testing.assert_array_equal(valid, layer != 1)
            found = cloud_mask(pixels, scene.cloud)
            np.testing.assert_array_equal(found, np.isin(layer, [values[one] for one in cloudy]))
            assert scene.cloud.nodata_values == {1}
            assert quality.info.role is BandRole.QUALITY

    def test_methods_as_tiles_record_them(self, tmp_path: Path) -> None:
        expected = {
            "c2-l2": "QA_PIXEL bits 2,3",
            "c2-l1": "QA_PIXEL bits 2,3",
            "c1": "BQA bits 4,11-12=3",
            "tm": "BQA bits 4",
            "etm": "BQA bits 4",
            "pre": "BQA bits 12-13=3,14-15=3",
        }
        for kind, method in expected.items():
            with opened(MAKERS[kind](tmp_path / kind).write().path) as scene:
                assert scene.cloud is not None
                assert scene.cloud.method == method

    def test_without_its_band_nothing_tells_cloud(self, tmp_path: Path) -> None:
        made = c1_l1(tmp_path).write()
        made.file("BQA").unlink()
        with opened(made.path) as scene:
            assert (scene.cloud, scene.missing) == (None, ("BQA",))
        older = tm(
            tmp_path, id="LT50200392015216PAC00", collection=None, level="L1T", bands=TM_L1
        ).write()
        with opened(older.path) as scene:
            assert (scene.cloud, scene.missing) == (None, ())

    def test_what_the_provider_did_not_look_for_is_not_told(self, tmp_path: Path) -> None:
        """At night, and with the thermal sensor alone: no bit is set, which is not clear sky."""
        night = c1_l1(tmp_path)
        night.groups["IMAGE_ATTRIBUTES"]["CLOUD_COVER"] = "-1"
        with opened(night.write().path) as scene:
            assert scene.cloud is None
            assert "cloud_cover_product_percent" not in scene.properties
        thermal = c1_l1(
            tmp_path,
            id="LT08_L1GT_020039_20150804_20170406_01_T2",
            sensor="TIRS",
            level="L1GT",
            bands=["B10", "B11", "BQA"],
        )
        with opened(thermal.write().path) as scene:
            assert (scene.cloud, scene.missing) == (None, ())
            assert names(scene) == ["B10", "B11", "BQA"]

    @pytest.mark.parametrize("kind", MAKERS)
    def test_bit_fields_do_not_overlap_and_fit(self, kind: str, tmp_path: Path) -> None:
        with opened(MAKERS[kind](tmp_path).write().path) as scene:
            described = [band for band in scene.bands if band.info.bitfields]
            assert described
            for band in described:
                bits = [
                    bit
                    for one in band.info.bitfields
                    for bit in range(one.offset, one.offset + one.length)
                ]
                assert len(bits) == len(set(bits))
                assert max(bits) < 8 * np.dtype(band.info.dtype).itemsize
                fields = [one.name for one in band.info.bitfields]
                assert len(fields) == len(set(fields))
                if kind in ("tm", "etm"):
                    assert not any("cirrus" in name for name in fields)


class TestPacking:
    @pytest.mark.parametrize("kind", ["c2-l2", "c1", "pre"])
    @pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
    @pytest.mark.parametrize("flat", [True, False])
    def test_an_archive_is_the_same_product(
        self, kind: str, suffix: str, flat: bool, tmp_path: Path
    ) -> None:
        made = MAKERS[kind](tmp_path).write()
        archive = pack(tmp_path / f"renamed{suffix}", made.path, flat=flat)
        with opened(made.path) as one, opened(archive) as other:
            assert (other.id, other.fingerprint) == (one.id, one.fingerprint)
            assert [b.info for b in other.bands] == [b.info for b in one.bands]
            band = other.bands[0]
            np.testing.assert_array_equal(
                band.source.read(0, 0, SIDE, SIDE)[0], band_pixels(band.info.name)
            )

    def test_two_products_in_one_archive(self, tmp_path: Path) -> None:
        level_2, level_1 = c2_l2(tmp_path).write(), c1_l1(tmp_path).write()
        for flat in (True, False):
            archive = pack(tmp_path / f"two-{flat}.tar", level_2.path, level_1.path, flat=flat)
            scenes = open_source(archive)
            assert {(scene.id, scene.reader) for scene in scenes} == {
                (level_2.id, "landsat-c2-l2"),
                (level_1.id, "landsat-c1-l1"),
            }
            assert [len(scene.bands) for scene in scenes] == [12, len(OLI_L2SP)]
            for scene in scenes:
                with scene:
                    pixels = scene.bands[1].source.read(0, 0, SIDE, SIDE)[0]
                    expected = band_pixels(scene.bands[1].info.name)
                    np.testing.assert_array_equal(pixels, expected)

    def test_the_three_forms_of_metadata_say_the_same(self, tmp_path: Path) -> None:
        scenes = []
        for form in ("txt", "json", "xml"):
            made = c2_l2(tmp_path / form).write(form)
            with opened(made.path) as scene:
                scenes.append(scene)
                assert [b.info for b in scene.bands] == [b.info for b in scenes[0].bands]
                assert scene.properties == scenes[0].properties
                assert (scene.id, scene.time_us, scene.missing) == (
                    scenes[0].id,
                    scenes[0].time_us,
                    (),
                )
        assert parse_mtl(mtl_odl(made.groups).encode(), "a").groups == made.groups
        assert parse_mtl(mtl_json(made.groups).encode(), "a").groups == made.groups
        assert parse_mtl(mtl_xml(made.groups).encode(), "a").groups == made.groups

    def test_the_text_is_read_where_there_are_several(self, tmp_path: Path) -> None:
        made = c2_l2(tmp_path).write("txt", "xml", "json")
        only = c2_l2(tmp_path / "only").write("txt")
        with opened(made.path) as one, opened(only.path) as other:
            assert one.fingerprint == other.fingerprint
        (only.path / f"{only.id}_MTL.txt").unlink()
        only.groups["IMAGE_ATTRIBUTES"]["STATION_ID"] = "LGN"
        only.write_mtl("xml")
        with opened(only.path) as scene:
            assert scene.properties["station"] == "LGN"

    def test_pictures_are_listed_and_never_bands(self, tmp_path: Path) -> None:
        made = c2_l2(tmp_path).write()
        (made.path / f"{made.id}_thumb_small.jpeg").write_bytes(b"\xff\xd8\xff")
        (made.path / f"{made.id}_ANG.txt").write_text("GROUP = FILE_HEADER\n")
        with opened(made.path) as scene:
            assert scene.previews == ("thumb_small",)
            assert names(scene) == OLI_L2SP

    def test_what_macos_adds_to_archives_is_not_looked_at(self, tmp_path: Path) -> None:
        made = c2_l2(tmp_path).write()
        archive = pack(tmp_path / "x.zip", made.path)
        with zipfile.ZipFile(archive, "a") as members:
            for name in (f"{made.id}_SR_B4.TIF", f"{made.id}_MTL.txt"):
                members.writestr(f"__MACOSX/{made.id}/._{name}", b"\0\x05\x16\x07")
        with opened(archive) as scene:
            assert (scene.id, names(scene)) == (made.id, made.bands)

    def test_the_gaps_of_landsat_7_are_beside_the_product(self, tmp_path: Path) -> None:
        made = etm(tmp_path).write()
        write_band(made.path / "gap_mask" / f"{made.id}_GM_B1.TIF", band_pixels("B1"))
        with opened(made.path) as scene:
            assert names(scene) == made.bands


class TestNames:
    @pytest.mark.parametrize("suffix", ["", ".tar"])
    def test_without_metadata_names_say_what_it_is(self, suffix: str, tmp_path: Path) -> None:
        made = c1_l1(tmp_path).write_bands()
        path = pack(tmp_path / f"x{suffix}", made.path) if suffix else made.path
        with opened(path) as scene:
            assert (scene.id, scene.reader, scene.platform) == (
                made.id,
                "landsat-c1-l1",
                "landsat-8",
            )
            day = TimeSpan.parse("2015-08-04")
            assert (scene.time_us, scene.time_end_us) == (day.start_us, day.end_us)
            assert scene.missing == ()
            red, thermal = scene.band("B4"), scene.band("B10")
            assert red is not None
            assert thermal is not None
            assert (red.info.scale, red.info.offset) == (2e-5, -0.1)
            assert (thermal.info.scale, thermal.info.unit) == (1.0, None)
            assert scene.properties["radiometry"] == "product definition"

    def test_short_names_take_the_folders_where_it_agrees(self, tmp_path: Path) -> None:
        """As some distributors name the files: without the processing date and collection."""
        made = c1_l1(tmp_path).write_bands()
        short = made.id[:25]
        for path in list(made.path.iterdir()):
            path.rename(made.path / path.name.replace(made.id, short))
        with opened(made.path) as scene:
            assert (scene.id, scene.properties["tier"]) == (made.id, "T1")
        other = shutil.move(made.path, tmp_path / "LC08_L1TP_020040_20150804_20170406_01_T1")
        with opened(Path(other)) as scene:
            assert (scene.id, scene.reader) == (short, "landsat-c1-l1")

    def test_short_names_tell_the_collection_by_the_quality_band(self, tmp_path: Path) -> None:
        short = "LC08_L1TP_020039_20150804"
        for band, reader in (("BQA", "landsat-c1-l1"), ("QA_PIXEL", "landsat-c2-l1")):
            folder = tmp_path / band
            for name in ("B4", band):
                write_band(folder / f"{short}_{name}.TIF", band_pixels(name))
            with opened(folder) as scene:
                assert (scene.id, scene.reader) == (short, reader)
        folder = tmp_path / "neither"
        write_band(folder / f"{short}_B4.TIF", band_pixels("B4"))
        assert detect(folder) is None

    def test_before_collections(self, tmp_path: Path) -> None:
        made = pre(tmp_path).write_bands()
        with opened(made.path) as scene:
            assert (scene.id, scene.properties["collection"]) == (PRE, "pre-collection")
            day = TimeSpan.parse("2015-08-04")
            assert (scene.time_us, scene.time_end_us) == (day.start_us, day.end_us)

    def test_levels_before_collections(self, tmp_path: Path) -> None:
        for number, level in enumerate(("L1T", "L1Gt", "L1G")):
            made = pre(tmp_path / str(number), level=level, bands=["B4", "BQA"]).write()
            with opened(made.path) as scene:
                assert scene.properties["level"] == level.upper()
                assert scene.missing == tuple(band for band in OLI_L1 if band != "B4")

    def test_renamed_files_go_with_the_only_metadata_of_their_folder(self, tmp_path: Path) -> None:
        made = pre(tmp_path).write()
        for path in list(made.path.iterdir()):
            name = path.name.replace(PRE, "test" if "MTL" in path.name else "l8")
            path.rename(made.path / name.replace(".TIF", ".tif"))
        with opened(made.path) as scene:
            assert (scene.id, names(scene), scene.missing) == (PRE, made.bands, ())
        # Two sets of renamed files: whose is the metadata?
        write_band(made.path / "other_B4.tif", band_pixels("B4"))
        with pytest.raises(UnreadableSourceError, match=rf"no band of {PRE} is there.*_B1\.TIF"):
            open_source(made.path)

    @pytest.mark.parametrize(
        "name",
        [
            "L8-B4-Elkton-VA.tiff",
            "LE70230282011250EDC00_sr_band1.tif",
            "LE70230282011250EDC00_sr_cloud_qa.tif",
            "LC80200392015400LGN00_B4.TIF",  # day 400
            "LC08_L1TP_020039_20151304_20170406_01_T1_B4.TIF",  # month 13
            "LM05_L1TP_020039_20150804_20170406_01_T1_B4.TIF",  # the multispectral scanner
            "LE08_L1TP_020039_20150804_20170406_01_T1_B4.TIF",  # no such sensor on board
            "LC08_CU_020009_20150804_20181207_C01_V01_B4.TIF",
        ],
    )
    def test_what_is_not_named_as_a_product_is_left_to_others(
        self, name: str, tmp_path: Path
    ) -> None:
        write_band(tmp_path / "x" / name, band_pixels("B4"))
        assert detect(tmp_path / "x") is None
        archive = pack(tmp_path / "x.zip", tmp_path / "x")
        reader = detect(archive)
        assert reader is not None
        assert reader.name == "geotiff"

    def test_a_name_alone_is_not_enough(self, tmp_path: Path) -> None:
        made = c1_l1(tmp_path)
        made.path.mkdir()
        for band in made.bands:
            made.file(band).write_text("not a picture")
        assert detect(made.path) is None
        (made.path / "notes_MTL.txt").write_text("GROUP = something else\n")
        assert detect(made.path) is None

    def test_a_single_band_file_is_a_raster(self, tmp_path: Path) -> None:
        made = c1_l1(tmp_path).write()
        reader = detect(made.file("B4"))
        assert reader is not None
        assert reader.name == "geotiff"
        assert detect(made.path / f"{made.id}_MTL.txt") is None

    def test_another_level_named_outright(self, tmp_path: Path) -> None:
        made = c1_l1(tmp_path).write()
        with pytest.raises(
            UnreadableSourceError, match=rf"no landsat-c2-l2.*{made.id} \(landsat-c1-l1\)"
        ):
            open_source(made.path, reader="landsat-c2-l2")
        (scene,) = open_source(made.file("B4"), reader="landsat-c1-l1")
        with scene:
            assert names(scene) == ["B4"]


class TestMissing:
    def test_bands_that_are_not_there(self, tmp_path: Path) -> None:
        made = c2_l2(tmp_path).write()
        for band in ("SR_B3", "ST_QA"):
            made.file(band).unlink()
        with opened(made.path) as scene:
            assert scene.missing == ("SR_B3", "ST_QA")

    def test_what_a_kind_of_product_has_is_missed_without_a_list_too(self, tmp_path: Path) -> None:
        made = c2_l1(tmp_path, bands=["B4"]).write_bands()
        with opened(made.path) as scene:
            expected = [band for band in OLI_L1 if band != "B4"]
            assert scene.missing == (*expected, "QA_PIXEL", "QA_RADSAT")

    def test_angles_are_missed_where_the_metadata_lists_them(self, tmp_path: Path) -> None:
        made = c2_l1(tmp_path).write()
        made.file("VAA").unlink()
        with opened(made.path) as scene:
            assert scene.missing == ("VAA",)

    def test_level_2_without_temperature(self, tmp_path: Path) -> None:
        bands = [*OLI_SR, "SR_QA_AEROSOL", "QA_PIXEL", "QA_RADSAT"]
        made = c2_l2(
            tmp_path,
            id="LC08_L2SR_020039_20150804_20200908_02_T1",
            level="L2SR",
            bands=bands,
        ).write()
        with opened(made.path) as scene:
            assert (scene.reader, scene.missing) == ("landsat-c2-l2", ())
            assert names(scene) == bands

    def test_no_band_at_all(self, tmp_path: Path) -> None:
        made = c2_l2(tmp_path).write_mtl()
        assert detect(made.path) is not None
        with pytest.raises(
            UnreadableSourceError, match=rf"no band of {made.id} is there; expected .*SR_B1\.TIF"
        ):
            open_source(made.path)


def spoil(made: Made, key: str, text: str) -> Made:
    """The product with another text under one of its keys."""
    for keys in made.groups.values():
        if key in keys:
            keys[key] = text
            return made.write()
    made.groups["IMAGE_ATTRIBUTES"][key] = text
    return made.write()


class TestBadMetadata:
    @pytest.mark.parametrize(
        ("key", "text", "message"),
        [
            ("REFLECTANCE_MULT_BAND_4", "much", "REFLECTANCE_MULT_BAND_4 is 'much', expected a nu"),
            ("REFLECTANCE_ADD_BAND_4", "inf", "REFLECTANCE_ADD_BAND_4 is 'inf'"),
            ("REFLECTANCE_MULT_BAND_4", "0", "REFLECTANCE_MULT_BAND_4 is 0, expected a scale"),
            ("WRS_PATH", "20.5", "WRS_PATH is '20.5', expected a whole number"),
            ("DATE_ACQUIRED", "2015-13-04", "DATE_ACQUIRED is '2015-13-04', expected a date"),
            ("SCENE_CENTER_TIME", "noon", "SCENE_CENTER_TIME is 'noon'"),
            ("SCENE_CENTER_TIME", "25:00:00Z", "SCENE_CENTER_TIME is '25:00:00Z'"),
            ("SPACECRAFT_ID", "LANDSAT_3", "spacecraft 'LANDSAT_3'"),
            ("SENSOR_ID", "MSS", "sensor 'MSS': expected LANDSAT_4"),
            ("PROCESSING_LEVEL", "L3", "processing level 'L3'"),
            ("COLLECTION_NUMBER", "07", "collection 7, expected 1 or 2"),
            ("COLLECTION_NUMBER", "01", "processing level 'L2SP' of c1"),
            ("PROCESSING_LEVEL", "L1TP", "LC08_L2SP.* is no L1TP product of c2"),
            ("WRS_ROW", "040", "metadata of .* lies with the files of"),
            ("UTM_ZONE", "17", "of UTM zone 16; its metadata .* of zone 17"),
            ("CLOUD_COVER", "[]", r"CLOUD_COVER is '\[\]'"),
        ],
    )
    def test_wrong_values_are_named(
        self, key: str, text: str, message: str, tmp_path: Path
    ) -> None:
        made = spoil(small(tmp_path), key, text)
        assert detect(made.path) is not None
        with pytest.raises(UnreadableSourceError, match=message) as raised:
            open_source(made.path)
        assert f"{made.id}_MTL.txt" in str(raised.value)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "without END"),
            ("GROUP = LANDSAT_METADATA_FILE\n", "without END"),
            ("GROUP = LANDSAT_METADATA_FILE\nnonsense\n", "line 2 is 'nonsense', expected KEY"),
            ("GROUP = LANDSAT_METADATA_FILE\nA = 1\n", "line 2: A outside a group"),
            ("GROUP = OTHER\n", "root 'OTHER', expected one of LANDSAT_METADATA_FILE"),
            ("END\n", "no group of keys"),
            ("END_GROUP = X\n", "ends group X, which is not open"),
            ("GROUP = L1_METADATA_FILE\n" + "GROUP = A\n" * 10, "a group inside group A"),
            ("GROUP = L1_METADATA_FILE\nGROUP = A\nEND\n", "END inside group A"),
            (
                "GROUP = L1_METADATA_FILE\nGROUP = A\n"
                + "".join(f"K{number} = 1\n" for number in range(10_001))
                + "END_GROUP = A\nEND_GROUP = L1_METADATA_FILE\nEND\n",
                "more than 10000 keys",
            ),
            (
                (
                    f"GROUP = L1_METADATA_FILE\nGROUP = A\nK = {'x' * 2000}\nEND_GROUP = A\n"
                    "END_GROUP = L1_METADATA_FILE\nEND\n"
                ),
                "K has 2000 characters",
            ),
            ("{", "JSONDecodeError"),
            ("[" * 100_000, "RecursionError|expected KEY"),
            ('{"a":' * 100_000, "RecursionError"),
            ('{"LANDSAT_METADATA_FILE": []}', "expected one object"),
            ('{"LANDSAT_METADATA_FILE": {}, "b": {}}', "expected one object"),
            ('{"OTHER": {}}', "root 'OTHER'"),
            ('{"LANDSAT_METADATA_FILE": {"A": {"K": null}}}', "no object of texts and numbers"),
            ('{"LANDSAT_METADATA_FILE": {"A": {"K": {"L": 1}}}}', "no object of texts"),
            ('{"LANDSAT_METADATA_FILE": {"A": "K"}}', "no object of texts and numbers"),
            ("<LANDSAT_METADATA_FILE>", "ParseError"),
            ("<other/>", "root 'other'"),
            ("<LANDSAT_METADATA_FILE/>", "no group of keys"),
            (
                "<LANDSAT_METADATA_FILE><A><K><L>1</L></K></A></LANDSAT_METADATA_FILE>",
                "K in A holds elements",
            ),
            (
                (
                    '<!DOCTYPE x [<!ENTITY a "b">]><LANDSAT_METADATA_FILE><A><K>&a;</K></A>'
                    "</LANDSAT_METADATA_FILE>"
                ),
                "DTDForbidden",
            ),
            (
                '<!DOCTYPE x SYSTEM "file:///etc/passwd"><LANDSAT_METADATA_FILE/>',
                "DTDForbidden",
            ),
        ],
    )
    def test_what_is_no_metadata_file(self, text: str, message: str, tmp_path: Path) -> None:
        made = small(tmp_path).write_bands()
        (made.path / f"{made.id}_MTL.txt").write_text(text)
        # The files' names say what product this was meant to be.
        assert detect(made.path) is not None
        with pytest.raises(
            UnreadableSourceError, match=f"_MTL.txt: not readable as a Landsat MTL: .*({message})"
        ):
            open_source(made.path)

    def test_bytes_that_are_no_text_and_files_too_large(self, tmp_path: Path) -> None:
        made = small(tmp_path).write_bands()
        path = made.path / f"{made.id}_MTL.txt"
        path.write_bytes(b"GROUP = \xff\xfe")
        with pytest.raises(UnreadableSourceError, match="byte 8 is no text"):
            open_source(made.path)
        path.write_bytes(b" " * (MTL_BYTES_MAX + 1))
        with pytest.raises(UnreadableSourceError, match=f"expected at most {MTL_BYTES_MAX}"):
            open_source(made.path)

    def test_metadata_without_an_id_takes_the_files(self, tmp_path: Path) -> None:
        made = small(tmp_path).write()
        spoil(made, "LANDSAT_PRODUCT_ID", "../../etc/passwd")
        with opened(made.path) as scene:
            assert scene.id == made.id
        for path in list(made.path.iterdir()):
            path.rename(made.path / path.name.replace(made.id, "x"))
        with pytest.raises(
            UnreadableSourceError, match="no product id: LANDSAT_PRODUCT_ID is '../"
        ):
            open_source(made.path)

    def test_metadata_that_lost_its_collection(self, tmp_path: Path) -> None:
        """Quality bits go by the collection: a wrong one would make cloud of clear ground."""
        made = c1_l1(tmp_path)
        del made.groups["PRODUCT_METADATA"]["COLLECTION_NUMBER"]
        made.write()
        with pytest.raises(UnreadableSourceError, match="is no L1TP product of pre-collection"):
            open_source(made.path)

    def test_truncated_anywhere_it_is_refused_or_whole(self, tmp_path: Path) -> None:
        made = small(tmp_path).write()
        path = made.path / f"{made.id}_MTL.txt"
        text = path.read_text()
        for length in range(0, len(text) - 5, 97):
            path.write_text(text[:length])
            with pytest.raises(UnreadableSourceError, match="not readable as a Landsat MTL"):
                open_source(made.path)


class TestBadBands:
    def test_another_crs(self, tmp_path: Path) -> None:
        made = c1_l1(tmp_path).write()
        write_band(made.file("B4"), band_pixels("B4"), crs="EPSG:32617")
        with pytest.raises(
            UnreadableSourceError, match=r"_B4\.TIF: its CRS is WGS 84 / UTM zone 17N, that of .*B1"
        ):
            open_source(made.path)

    def test_another_size_over_other_ground(self, tmp_path: Path) -> None:
        made = c1_l1(tmp_path).write()
        write_band(made.file("B4"), band_pixels("B4", SIDE // 2))
        with pytest.raises(UnreadableSourceError, match=r"_B4\.TIF: its 20 x 20 pixels cover"):
            open_source(made.path)

    def test_another_size_over_the_same_ground_is_another_pixel_size(self, tmp_path: Path) -> None:
        made = c1_l1(tmp_path).write()
        write_band(made.file("B10"), band_pixels("B10", SIDE // 2), 60.0)
        with opened(made.path) as scene:
            band = scene.band("B10")
            assert band is not None
            assert band.info.native_resolution_m == 60.0

    def test_metadata_of_another_place(self, tmp_path: Path) -> None:
        made = c1_l1(tmp_path).write()
        for band in made.bands:
            side, pixel_m = (2 * SIDE, 15.0) if band == "B8" else (SIDE, 30.0)
            write_band(made.file(band), band_pixels(band, side), pixel_m, left=200_000)
        with pytest.raises(UnreadableSourceError, match=r"_B1\.TIF: covers 200000, .*metadata"):
            open_source(made.path)

    def test_files_that_are_no_band(self, tmp_path: Path) -> None:
        made = c1_l1(tmp_path).write()
        path = made.file("B4")
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(UnreadableSourceError, match=r"_B4\.TIF"):
            open_source(made.path)
        write_band(path, np.stack([band_pixels("B4")] * 3))
        with pytest.raises(UnreadableSourceError, match=r"_B4\.TIF: 3 bands in one file"):
            open_source(made.path)
        write_band(path, band_pixels("B4"), crs=None)
        with pytest.raises(UnreadableSourceError, match=r"_B4\.TIF: .*CRS"):
            open_source(made.path)

    def test_bits_of_fractions(self, tmp_path: Path) -> None:
        made = c1_l1(tmp_path).write()
        write_band(made.file("BQA"), band_pixels("BQA", dtype="float32"))
        with pytest.raises(
            UnreadableSourceError, match=r"_BQA\.TIF: dtype float32 in a band of bi"
        ):
            open_source(made.path)

    def test_two_files_of_one_band(self, tmp_path: Path) -> None:
        made = c1_l1(tmp_path).write()
        shutil.copy(made.file("B4"), made.path / f"{made.id}_B4.tiff")
        with pytest.raises(UnreadableSourceError, match="are both B4"):
            open_source(made.path)

    @pytest.mark.parametrize("name", ["dem.tif", "inner/other.img"])
    def test_rasters_of_somebody_else_are_not_lost_in_silence(
        self, name: str, tmp_path: Path
    ) -> None:
        made = c1_l1(tmp_path).write()
        write_band(made.path / name, band_pixels("B4"))
        with pytest.raises(UnreadableSourceError, match=rf"{name}: no file of the product"):
            open_source(made.path)

    def test_more_products_than_one_source_may_hold(self, tmp_path: Path) -> None:
        made = [
            f"LC0{8 + number // 900}_L2SP_{number % 900:03d}039_20150804_20200908_02_T1_MTL.txt"
            for number in range(PRODUCTS_MAX + 1)
        ]

        class Listed:
            path = "somewhere"

        with pytest.raises(UnreadableSourceError, match=f"expected at most {PRODUCTS_MAX}"):
            find_products(Listed(), made)  # type: ignore[arg-type]


class TestStore:
    def test_two_sensors_in_one_dataset_answer_to_common_names(self, tmp_path: Path) -> None:
        """The contract: B4 only where one platform is selected; `red` always."""
        # Both state the same scale, so that their numbers may stand side by side.
        rescaling = {
            f"REFLECTANCE_{kind}_BAND_{number}": text
            for number in range(1, 10)
            for kind, text in (("MULT", "2.0E-05"), ("ADD", "-0.1"))
        }
        for made in (tm(tmp_path), c1_l1(tmp_path)):
            made.groups["RADIOMETRIC_RESCALING"] = rescaling
            made.write()
        with geostore.open(str(tmp_path / "store")) as store:
            results = store.ingest([tmp_path / tm(tmp_path).id, tmp_path / c1_l1(tmp_path).id])
            assert [(one.status, one.dataset, one.error) for one in results] == [
                ("ingested", "landsat-c1-l1", None)
            ] * 2
            both = store.query(dataset="landsat-c1-l1")
            assert {tile.platform for tile in both} == {"landsat-5", "landsat-8"}
            with pytest.raises(
                InvalidInputError,
                match="band 'B4' is .* on landsat-. and .* on landsat-.: ask for common names",
            ):
                both.mosaic(bands=["B4"])
            for platform, number in (("landsat-5", "B3"), ("landsat-8", "B4")):
                one = store.query(dataset="landsat-c1-l1", platform=platform)
                named = one.mosaic(bands=[number]).read()
                red = one.mosaic(bands=["red"]).read()
                np.testing.assert_array_equal(named.data, red.data)
                assert named.mask.any()
                assert one.mosaic(bands=["nir"]).read().mask.any()
            cube = both.mosaic(bands=["red", "nir08"])
            assert cube.read().mask.any()

    def test_refused_products_leave_nothing(self, tmp_path: Path) -> None:
        good, bad = c1_l1(tmp_path / "good").write(), c1_l1(tmp_path / "bad").write_mtl()
        with geostore.open(str(tmp_path / "store")) as store:
            results = store.ingest([good.path, bad.path])
            assert [one.status for one in results] == ["ingested", "failed"]
            assert "no band of" in (results[1].error or "")
            assert store.query(scene=good.id).count() == results[0].tiles > 0


def test_errors_are_geostores_own(tmp_path: Path) -> None:
    """Characters changed anywhere in the metadata end in a scene or in one of our errors."""
    made = small(tmp_path).write()
    path = made.path / f"{made.id}_MTL.txt"
    content = bytearray(path.read_bytes())
    random = np.random.default_rng(5)
    refused = 0
    for _ in range(40):
        changed = bytearray(content)
        changed[random.integers(0, len(changed))] = random.integers(32, 127)
        path.write_bytes(changed)
        try:
            scenes = open_source(made.path)
        except GeostoreError:
            refused += 1
            continue
        for scene in scenes:
            scene.close()
    assert 0 < refused < 40
