"""Layers of MODIS products: roles, names, radiometry, fill values, clouds, periods."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from geostore.scenes.modis_layers import LayerPixels, describe_layer, parse_day, period_from
from geostore.scenes.modis_products import (
    cloud_layer,
    common_names,
    parse_product,
    product_of_kind,
    radiometry,
    role_of,
)
from geostore.types import BandRole, CloudLayer, TimeSpan

MOD09GA, MOD13A2, MOD15A2 = map(parse_product, ("MOD09GA", "MOD13A2", "MCD15A2"))


class TestProducts:
    @pytest.mark.parametrize(
        ("name", "platform", "period", "finest_m"),
        [
            ("MOD09GA", "terra", 1, 463.3127),
            ("MYD13Q1", "aqua", 16, 231.6564),
            ("MCD43A4", "terra+aqua", 16, 463.3127),
            ("MOD11A1", "terra", 1, 926.6254),
            ("MCD12Q1", "terra+aqua", "year", 463.3127),
        ],
    )
    def test_known(self, name: str, platform: str, period: object, finest_m: float) -> None:
        product = parse_product(name)
        assert (product.platform, product.period) == (platform, period)
        assert product.resolutions_m is not None
        assert product.resolutions_m[0] == pytest.approx(finest_m, abs=1e-4)
        assert product.reader == f"modis-{name.lower()}"

    def test_unknown_ones_have_their_name_only(self) -> None:
        product = parse_product("AE_DySno")
        assert (product.reader, product.kind, product.layers) == ("modis-ae_dysno", None, ())
        assert parse_product("MOD99X9").resolutions_m is None

    def test_a_kind_without_a_satellite(self) -> None:
        product = product_of_kind("09GA")
        assert (product.reader, product.platform) == ("modis-09ga", None)
        assert product.layers == MOD09GA.layers


class TestRoles:
    @pytest.mark.parametrize(
        "layer",
        [
            *("state_1km_1", "QC_500m_1", "num_observations_1km", "SensorZenith_1", "Range_1"),
            *("gflags_1", "orbit_pnt_1", "obscov_500m_1", "iobs_res_1", "q_scan_1"),
            *("QC_Day", "Day_view_time", "Day_view_angl", "Clear_night_cov"),
            *("sur_refl_qc_500m", "sur_refl_szen", "sur_refl_raz", "sur_refl_day_of_year"),
            *("1 km 16 days VI Quality", "1 km 16 days composite day of the year"),
            *(
                "LC_Prop1_Assessment",
                "FparExtra_QC",
                "LaiStdDev_1km",
                "BRDF_Albedo_Band_Mandatory_Quality_Band1",
            ),
        ],
    )
    def test_auxiliary(self, layer: str) -> None:
        assert role_of(parse_product("XYZ"), layer, None) is BandRole.QUALITY

    @pytest.mark.parametrize(
        "layer",
        [
            *("sur_refl_b01_1", "LST_Day_1km", "LST_Night_1km", "Emis_31", "Fpar_1km", "Lai_500m"),
            *("1 km 16 days NDVI", "500m 16 days red reflectance", "Nadir_Reflectance_Band1"),
            *("ET_500m", "Burn_Date", "Percent_Tree_Cover", "Optical_Depth_047"),
        ],
    )
    def test_measured(self, layer: str) -> None:
        assert role_of(parse_product("XYZ"), layer, "none") is BandRole.DATA

    def test_units_tell_bits(self) -> None:
        assert role_of(parse_product("XYZ"), "Eight_Day", "bit") is BandRole.QUALITY

    def test_classes(self) -> None:
        snow = parse_product("MYD10A2")
        assert role_of(snow, "Maximum_Snow_Extent", "none") is BandRole.CLASS
        assert role_of(parse_product("MCD12Q1"), "LC_Type1", None) is BandRole.CLASS
        assert role_of(MOD13A2, "1 km 16 days pixel reliability", "rank") is BandRole.CLASS


def test_common_names() -> None:
    found = {name: common_names(name)[:1] for name in (f"sur_refl_b0{n}_1" for n in range(1, 8))}
    assert list(found.values()) == [
        *(("red",), ("nir",), ("blue",), ("green",), (), ("swir16",), ("swir22",))
    ]
    assert common_names("sur_refl_b02") == ("nir", "nir08")
    assert common_names("Nadir_Reflectance_Band4") == ("green",)
    assert common_names("250m 16 days MIR reflectance") == ("swir22",)
    assert common_names("LST_Day_1km") == ()
    assert common_names("xsur_refl_b01") == ()


class TestRadiometry:
    """Checked by hand: the physical value of one stored number of each product."""

    @pytest.mark.parametrize(
        ("attributes", "stored", "physical"),
        [
            ({"scale_factor": 10000.0, "add_offset": 0.0}, 2500, 0.25),  # MOD09GA, MOD13
            ({"scale_factor": 0.0001, "add_offset": 0.0}, 2500, 0.25),  # MOD09A1
            ({"scale_factor": 25.0}, 30_000, 750_000.0),  # Range_1, metres
            ({"scale_factor": 100.0}, 4500, 45.0),  # MOD13 angles
            ({"scale_factor": 0.02}, 15_000, 300.0),  # LST, kelvin
            (  # MOD11 adds its offset after scaling, and says so
                {
                    "scale_factor": 0.002,
                    "add_offset": 0.49,
                    "Emis_31": "Emis_31 data * scale_factor + add_offset",
                },
                245,
                0.98,
            ),
            ({"scale_factor": 0.01, "add_offset": -15000.0}, 13_000, 280.0),  # HDF's rule
            ({}, 7, 7.0),
            ({"scale_factor": 0.0, "add_offset": 3.0}, 7, 7.0),
            ({"scale_factor": float("nan")}, 7, 7.0),
            ({"scale_factor": "many"}, 7, 7.0),
        ],
    )
    def test_physical_values(
        self, attributes: dict[str, object], stored: int, physical: float
    ) -> None:
        scale, offset = radiometry(attributes)
        assert stored * scale + offset == pytest.approx(physical)


class TestDescription:
    def test_of_a_reflectance(self) -> None:
        layer = describe_layer(
            MOD09GA,
            "sur_refl_b01_1",
            "int16",
            {
                "_FillValue": -28672,
                "valid_range": [-100, 16000],
                "scale_factor": 10000.0,
                "units": "reflectance",
                "long_name": "Surface Reflectance Band 1\0\0",
            },
            native_resolution_m=463.3,
        )
        info = layer.info
        assert (info.nodata, info.scale, info.offset) == (-28672, 1e-4, 0.0)
        assert (info.unit, info.description) == ("reflectance", "Surface Reflectance Band 1")
        assert (info.role, info.native_resolution_m) == (BandRole.DATA, 463.3)
        assert layer.valid_range == (-100.0, 16000.0)

    def test_bits_are_named(self) -> None:
        info = describe_layer(MOD09GA, "state_1km_1", "uint16", {"_FillValue": 65535}).info
        fields = {field.name: (field.offset, field.length) for field in info.bitfields}
        assert fields["cloud_state"] == (0, 2)
        assert fields["cirrus"] == (8, 2)
        assert sum(length for _, length in fields.values()) == 16
        quality = describe_layer(MOD13A2, "1 km 16 days VI Quality", "uint16", {}).info
        assert sum(field.length for field in quality.bitfields) == 16

    def test_bits_and_classes_have_no_range(self) -> None:
        attributes = {"valid_range": [0, 10], "units": "bit field"}
        assert describe_layer(MOD09GA, "state_1km_1", "uint16", attributes).valid_range is None
        assert describe_layer(parse_product("X"), "b", "uint16", attributes).valid_range is None

    def test_a_fill_value_inside_the_range_of_bits_is_a_number(self) -> None:
        attributes = {"_FillValue": 0, "valid_range": [0, 255], "units": "bit"}
        layer = describe_layer(
            parse_product("MOD10A2"), "Eight_Day_Snow_Cover", "uint8", attributes
        )
        assert layer.info.nodata is None
        assert layer.has_rules

    @pytest.mark.parametrize(
        ("value", "dtype", "nodata"),
        [
            (-1, "uint8", None),
            (255, "uint8", 255),
            (255.0, "uint8", 255),
            (0.5, "int16", None),
            ([7], "int16", 7),
            ([7, 8], "int16", None),
            ("x", "int16", None),
            (-9999.0, "float32", -9999.0),
        ],
    )
    def test_fill_values_as_pixels_hold_them(
        self, value: object, dtype: str, nodata: float | None
    ) -> None:
        info = describe_layer(parse_product("X"), "a", dtype, {"_FillValue": value}).info
        assert info.nodata == nodata

    def test_classes_are_read_from_the_file_where_no_guide_is_here(self) -> None:
        info = describe_layer(
            parse_product("MOD14A1"),
            "FireMask",
            "uint8",
            {"Legend": "0=not processed, 3 = water, 5=non-fire land"},
        ).info
        assert info.class_names == {"0": "not processed", "3": "water", "5": "non-fire land"}

    def test_vegetation_indices_without_a_stated_scale(self) -> None:
        layer = "1 km 16 days NDVI"
        info = describe_layer(MOD13A2, layer, "int16", {}).info
        assert (info.scale, info.nodata) == (1e-4, -3000)
        info = describe_layer(MOD13A2, layer, "float32", {}).info
        assert (info.scale, info.nodata) == (1.0, None), "floats are indices already"


class TestClouds:
    def test_bits_of_the_state(self) -> None:
        rule = cloud_layer(MOD09GA, ["sur_refl_b01_1", "state_1km_1"])
        assert rule is not None
        assert rule.method == "state_1km_1 bits 0-1=1/2,8-9=2/3"
        assert CloudLayer.parse(rule.method) == rule

    def test_classes(self) -> None:
        rule = cloud_layer(parse_product("MYD10A2"), ["Maximum_Snow_Extent"])
        assert rule is not None
        assert (rule.kind, rule.values) == ("classes", {50})
        assert rule.nodata_values == {0, 1, 11, 254}
        daily = cloud_layer(parse_product("MOD10A1"), ["Snow_Cover_Daily_Tile"])
        assert daily is not None
        assert (daily.values, daily.nodata_values) == (rule.values, rule.nodata_values)
        rule = cloud_layer(parse_product("MOD10A1"), ["NDSI_Snow_Cover", "NDSI"])
        assert rule is not None
        assert (rule.values, rule.nodata_values) == ({250}, {200, 201, 211, 254})
        rule = cloud_layer(MOD13A2, ["1 km 16 days pixel reliability"])
        assert rule is not None
        assert rule.values == {3}

    @pytest.mark.parametrize(
        ("product", "layers"),
        [
            ("MOD11A1", ["LST_Day_1km", "QC_Day"]),
            ("MCD43A4", ["Nadir_Reflectance_Band1"]),
            ("MOD09GA", ["sur_refl_b01_1"]),
            ("UNKNOWN", ["state_1km_1"]),
        ],
    )
    def test_none_where_nothing_can_tell(self, product: str, layers: list[str]) -> None:
        assert cloud_layer(parse_product(product), layers) is None


class _Numbers:
    name, dtype, nodata = "a", "uint8", 255
    grid = None
    is_closed = False

    def __init__(self, data: list[int]) -> None:
        self.data = np.array([data], np.uint8)

    def read(self, row: int, column: int, height: int, width: int):
        valid = self.data != 255
        return self.data, None if valid.all() else valid

    def close(self) -> None:
        self.is_closed = True


class TestPixels:
    def read(self, data: list[int], product: str, layer: str, attributes: dict) -> list[bool]:
        described = describe_layer(parse_product(product), layer, "uint8", attributes)
        pixels = LayerPixels(_Numbers(data), described)  # type: ignore[arg-type]
        values, valid = pixels.read(0, 0, 1, len(data))
        assert values.tolist() == [data], "numbers stay as they are stored"
        return [True] * len(data) if valid is None else valid[0].tolist()

    def test_numbers_outside_the_range_are_not_valid(self) -> None:
        attributes = {"_FillValue": 255, "valid_range": [0, 100]}
        assert self.read([0, 100, 101, 254, 255], "MOD15A2", "Lai_1km", attributes) == [
            *(True, True, False, False, False)
        ]
        assert self.read([0, 100], "MOD15A2", "Lai_1km", attributes) == [True, True]

    def test_ranges_beyond_the_type(self) -> None:
        attributes = {"valid_range": [-5, 300]}
        assert self.read([0, 254], "MOD15A2", "Lai_1km", attributes) == [True, True]
        attributes = {"valid_range": [0.5, 254.5]}
        assert self.read([0, 1, 254], "MOD15A2", "Lai_1km", attributes) == [False, True, True]

    def test_bits_that_say_not_produced(self) -> None:
        attributes = {"_FillValue": 255, "valid_range": [0, 254], "units": "class-flag"}
        assert self.read([0, 157, 97, 255], "MCD15A2", "FparLai_QC", attributes) == [
            *(True, False, True, False)
        ]

    def test_fill_values_that_are_numbers(self) -> None:
        attributes = {"_FillValue": 255, "valid_range": [0, 255], "units": "bit"}
        assert self.read([0, 255], "MOD10A2", "Eight_Day_Snow_Cover", attributes) == [True, True]

    def test_closing(self) -> None:
        source = _Numbers([1])
        LayerPixels(source, describe_layer(MOD09GA, "a", "uint8", {})).close()  # type: ignore[arg-type]
        assert source.is_closed


class TestTimes:
    def test_days(self) -> None:
        assert parse_day("2020153") == datetime(2020, 6, 1, tzinfo=UTC)
        assert parse_day("2020366") == datetime(2020, 12, 31, tzinfo=UTC)
        for text in ("2021366", "2020000", "20200601", "2020-13-01", "", "9999999"):
            assert parse_day(text) is None, text

    @pytest.mark.parametrize(
        ("start", "period", "span"),
        [
            ("2016-05-24", 16, "2016-05-24/2016-06-08"),
            ("2016-12-18", 16, "2016-12-18/2017-01-02"),
            ("2016-01-01", "year", "2016"),
            ("2015-01-01", "year", "2015"),
            ("2016-02-01", "month", "2016-02"),
            ("2016-02-01", None, "2016-02-01"),
        ],
    )
    def test_periods(self, start: str, period: object, span: str) -> None:
        day = parse_day(start)
        assert day is not None
        assert period_from(day, period) == TimeSpan.parse(span)  # type: ignore[arg-type]


def test_names_with_blanks_are_cloud_methods_too() -> None:
    rule = cloud_layer(MOD13A2, ["1 km 16 days pixel reliability"])
    assert rule is not None
    parsed = CloudLayer.parse(rule.method)
    assert (parsed.band, parsed.values) == ("1 km 16 days pixel reliability", {3})
