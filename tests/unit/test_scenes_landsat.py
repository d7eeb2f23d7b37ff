"""Landsat products of every generation: bands, radiometry, clouds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import geostore
from geostore.compute import cloud_mask
from geostore.errors import InvalidInputError
from geostore.types import BandRole
from tests.landsat_makers import (
    CENTRE_US,
    MAKERS,
    OLI_COMMON,
    TM_COMMON,
    TM_L2SP,
    c1_l1,
    c2_l2,
    etm,
    names,
    opened,
    tm,
)
from tests.landsat_products import (
    OLI_SR,
    SIDE,
    TM_L1,
    band_pixels,
    write_band,
)


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
