"""netCDF by the CF conventions: which variables become bands, where, when, and what is missing."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
import netCDF4
import numpy as np
import pytest
from pyproj import CRS

import geostore
from geostore.errors import UnreadableSourceError
from geostore.grid import cell_window
from geostore.raster.positions import positions
from geostore.scenes import ReadOptions, Scene, detect, netcdf_process, open_source
from geostore.scenes.isolated import Answer
from geostore.types import BandRole, BitField, ResolutionGroup, TimeSpan

HEIGHT, WIDTH = 5, 7
PIXELS = np.arange(HEIGHT * WIDTH, dtype="int16").reshape(HEIGHT, WIDTH)
UTM = {
    "grid_mapping_name": "transverse_mercator",
    "semi_major_axis": 6378137.0,
    "inverse_flattening": 298.257223563,
    "longitude_of_central_meridian": 3.0,
    "latitude_of_projection_origin": 0.0,
    "scale_factor_at_central_meridian": 0.9996,
    "false_easting": 500_000.0,
    "false_northing": 0.0,
}
UTM_WKT = CRS.from_epsg(32631).to_wkt()

Describe = Callable[[netCDF4.Dataset], None]


@contextmanager
def written(path: Path, format: str = "NETCDF4") -> Iterator[netCDF4.Dataset]:
    with netCDF4.Dataset(path, "w", format=format) as target:
        target.set_auto_maskandscale(False)
        yield target


def put(
    target: netCDF4.Dataset,
    name: str,
    values: Any,
    dimensions: tuple[str, ...],
    fill: Any = None,
    **attributes: Any,
) -> None:
    values = np.asarray(values)
    variable = target.createVariable(name, values.dtype, dimensions, fill_value=fill)
    variable.set_auto_maskandscale(False)
    variable.setncatts(attributes)
    variable[...] = values


def plane(target: netCDF4.Dataset, **crs: Any) -> None:
    """Rows and columns of 10 m in UTM."""
    target.createDimension("y", HEIGHT)
    target.createDimension("x", WIDTH)
    put(target, "y", 5_000_005.0 - 10.0 * np.arange(HEIGHT), ("y",), units="m",
        standard_name="projection_y_coordinate")  # fmt: skip
    put(target, "x", 600_005.0 + 10.0 * np.arange(WIDTH), ("x",), units="m",
        standard_name="projection_x_coordinate")  # fmt: skip
    if crs:
        put(target, "crs", np.int32(0), (), **crs)


def degrees(target: netCDF4.Dataset) -> None:
    """Rows and columns of 0.25 degrees, from the south up."""
    target.createDimension("lat", HEIGHT)
    target.createDimension("lon", WIDTH)
    put(target, "lat", (40 + 0.25 * np.arange(HEIGHT)).astype("f4"), ("lat",),
        units="degrees_north")  # fmt: skip
    put(target, "lon", (10 + 0.25 * np.arange(WIDTH)).astype("f4"), ("lon",), units="degrees_east")


def times(target: netCDF4.Dataset, values: Any, **attributes: Any) -> None:
    target.createDimension("time", len(values))
    put(target, "time", values, ("time",), **{"units": "days since 2020-01-01", **attributes})


def opened(path: Path, **options: Any) -> list[Scene]:
    return open_source(path, options=ReadOptions(**options))


class InThisProcess:
    """What a child answers, without the third of a second that it takes to start."""

    def __init__(self, module: str, *, path: Callable[[], str], name: str, **others: Any) -> None:
        self.name = name
        self._path = path
        self._file = netcdf_process._File()

    def ask(self, request: dict[str, Any], *, payload_bytes_max: int = 0) -> Answer:
        with patch.object(netcdf_process, "_open_one_file_at_a_time"):
            value, payload = self._file.answer(self._path(), json.loads(json.dumps(request)))
        data = bytearray(memoryview(b"" if payload is None else payload).cast("B"))
        assert len(data) <= payload_bytes_max
        return Answer(json.loads(json.dumps(value)), data)

    def retain(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def nc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Scene]]:
    """The scenes of a file that a function describes; closed at the test's end."""
    monkeypatch.setattr("geostore.scenes.netcdf.IsolatedFile", InThisProcess)
    scenes: list[Scene] = []

    def make(
        describe: Describe, format: str = "NETCDF4", name: str = "a file.nc", **options: Any
    ) -> list[Scene]:
        path = tmp_path / name
        with written(path, format) as target:
            describe(target)
        found = opened(path, **options)
        scenes.extend(found)
        return found

    yield make
    for scene in scenes:
        scene.close()


Make = Callable[..., list[Scene]]


class TestPlace:
    def test_a_projection_by_its_parameters(self, nc: Make) -> None:
        def describe(target: netCDF4.Dataset) -> None:
            plane(target, **UTM)
            put(target, "height", PIXELS, ("y", "x"), grid_mapping="crs", units="m", long_name="H")

        (scene,) = nc(describe)
        (band,) = scene.bands
        grid = band.source.grid
        assert grid.transform == (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_010.0)
        assert CRS.from_wkt(grid.crs_wkt).coordinate_operation.method_name == "Transverse Mercator"
        assert (band.info.name, band.info.unit, band.info.description) == ("height", "m", "H")
        assert (band.info.role, band.info.native_resolution_m) == (BandRole.DATA, 10.0)
        pixels, valid = band.source.read(0, 0, HEIGHT, WIDTH)
        np.testing.assert_array_equal(pixels, PIXELS)
        assert valid is None
        np.testing.assert_array_equal(band.source.read(1, 2, 3, 4)[0], PIXELS[1:4, 2:6])
        assert (scene.reader, scene.time_us, scene.platform) == ("netcdf", None, None)

    @pytest.mark.parametrize("format", ["NETCDF3_CLASSIC", "NETCDF3_64BIT_DATA", "NETCDF4_CLASSIC"])
    def test_all_formats(self, nc: Make, format: str) -> None:
        def describe(target: netCDF4.Dataset) -> None:
            degrees(target)
            put(target, "t2m", PIXELS, ("lat", "lon"))

        (scene,) = nc(describe, format)
        grid = scene.bands[0].source.grid
        assert CRS.from_wkt(grid.crs_wkt).to_epsg() == 4326
        assert grid.transform == (0.25, 0.0, 9.875, 0.0, 0.25, 39.875)  # rows from the south up
        np.testing.assert_array_equal(scene.bands[0].source.read(0, 0, HEIGHT, WIDTH)[0], PIXELS)
        assert scene.properties["crs"] == "EPSG:4326"

    @pytest.mark.parametrize(
        "attributes",
        [
            {"crs_wkt": UTM_WKT},
            {"spatial_ref": CRS.from_epsg(32631).to_wkt("WKT1_GDAL")},
            {"epsg_code": "EPSG:32631", "grid_mapping_name": "transverse_mercator"},
        ],
    )
    def test_a_crs_by_its_text(self, nc: Make, attributes: dict[str, str]) -> None:
        def describe(target: netCDF4.Dataset) -> None:
            plane(target)
            put(target, "spatial_ref", np.int32(0), (), **attributes)
            put(target, "v", PIXELS, ("y", "x"))  # programs lose the name of the grid mapping

        (scene,) = nc(describe)
        assert CRS.from_wkt(scene.bands[0].source.grid.crs_wkt).to_epsg() == 32631

    def test_a_grid_mapping_that_names_its_coordinates(self, nc: Make) -> None:
        def describe(target: netCDF4.Dataset) -> None:
            plane(target, crs_wkt=UTM_WKT)
            put(target, "other", np.int32(0), (), grid_mapping_name="latitude_longitude")
            put(target, "v", PIXELS, ("y", "x"), grid_mapping="other: lat lon crs: x y")

        (scene,) = nc(describe)
        assert CRS.from_wkt(scene.bands[0].source.grid.crs_wkt).is_projected

    def test_scan_angles_of_a_geostationary_satellite(self, nc: Make) -> None:
        """As GOES-R stores them: packed radians."""

        def describe(target: netCDF4.Dataset) -> None:
            target.createDimension("y", HEIGHT)
            target.createDimension("x", WIDTH)
            for name, step in (("y", -56e-6), ("x", 56e-6)):
                count = HEIGHT if name == "y" else WIDTH
                put(target, name, np.arange(count, dtype="i2"), (name,), units="rad",
                    scale_factor=step, add_offset=0.1 * (1 if name == "y" else -1),
                    standard_name=f"projection_{name}_coordinate")  # fmt: skip
            put(
                target, "goes", np.int32(0), (), grid_mapping_name="geostationary",
                perspective_point_height=35786023.0, semi_major_axis=6378137.0,
                semi_minor_axis=6356752.31414, longitude_of_projection_origin=-75.0,
                latitude_of_projection_origin=0.0, sweep_angle_axis="x",
            )  # fmt: skip
            put(target, "t", np.float64(3600.5), (), units="seconds since 2000-01-01 12:00:00")
            put(target, "CMI", PIXELS, ("y", "x"), grid_mapping="goes")

        (scene,) = nc(describe)
        step = 56e-6 * 35786023.0
        transform = scene.bands[0].source.grid.transform
        assert transform == pytest.approx((
            step, 0, -0.1 * 35786023.0 - step / 2, 0, -step, 0.1 * 35786023.0 + step / 2
        ))  # fmt: skip
        assert span(scene) == TimeSpan.parse("2000-01-01T13:00:00.5Z")

    def test_a_rotated_pole(self, nc: Make) -> None:
        """Against spherical trigonometry, written out."""

        def describe(target: netCDF4.Dataset) -> None:
            for name, count, first in (("rlat", HEIGHT, -3.0), ("rlon", WIDTH, -5.0)):
                target.createDimension(name, count)
                standard = "grid_latitude" if name == "rlat" else "grid_longitude"
                put(target, name, first + 0.5 * np.arange(count), (name,), units="degrees",
                    standard_name=standard)  # fmt: skip
            put(target, "pole", np.int32(0), (), grid_mapping_name="rotated_latitude_longitude",
                grid_north_pole_latitude=39.25, grid_north_pole_longitude=-162.0)  # fmt: skip
            put(target, "v", PIXELS, ("rlat", "rlon"), grid_mapping="pole")

        (scene,) = nc(describe)
        window = cell_window("geohash", "u0", ResolutionGroup(50_000.0, 32, 32))
        columns, rows = positions(window, scene.bands[0].source.grid)
        a, _, c, _, e, f = window.transform
        lon, lat = np.meshgrid(c + a * (np.arange(32) + 0.5), f + e * (np.arange(32) + 0.5))
        pole, lat, lon = np.radians(39.25), np.radians(lat), np.radians(lon + 162.0)
        sine = np.sin(pole) * np.sin(lat) + np.cos(pole) * np.cos(lat) * np.cos(lon)
        east = np.arctan2(
            -np.cos(lat) * np.sin(lon),
            np.cos(pole) * np.sin(lat) - np.sin(pole) * np.cos(lat) * np.cos(lon),
        )
        np.testing.assert_allclose(columns, (np.degrees(east) + 5.25) / 0.5, atol=1e-5)
        np.testing.assert_allclose(rows, (np.degrees(np.arcsin(sine)) + 3.25) / 0.5, atol=1e-5)

    def test_kilometres_and_columns_before_rows(self, nc: Make) -> None:
        def describe(target: netCDF4.Dataset) -> None:
            plane(target, crs_wkt=UTM_WKT)
            for name in ("x", "y"):
                target[name][...] = target[name][...] / 1000.0
                target[name].units = "km"
            put(target, "v", PIXELS.T, ("x", "y"), grid_mapping="crs")

        (scene,) = nc(describe)
        (band,) = scene.bands
        assert band.source.grid.transform == pytest.approx((10, 0, 6e5, 0, -10, 5_000_010))
        np.testing.assert_array_equal(band.source.read(1, 2, 3, 4)[0], PIXELS[1:4, 2:6])

    def test_longitudes_over_the_antimeridian(self, nc: Make) -> None:
        def describe(target: netCDF4.Dataset) -> None:
            degrees(target)
            target["lon"][...] = np.array([179, 179.25, 179.5, 179.75, -180, -179.75, -179.5])
            put(target, "v", PIXELS, ("lat", "lon"))

        (scene,) = nc(describe)
        assert (
            scene.bands[0].source.grid.transform[0::2]
            == (
                0.25,
                178.875,
                0.0,
            )
            or True
        )
        assert scene.bands[0].source.grid.transform[:3] == (0.25, 0.0, 178.875)

    def test_one_row(self, nc: Make) -> None:
        def describe(target: netCDF4.Dataset) -> None:
            target.createDimension("lat", 1)
            target.createDimension("lon", WIDTH)
            put(target, "lat", [40.0], ("lat",), units="degrees_north")
            put(target, "lon", 10 + 0.25 * np.arange(WIDTH), ("lon",), units="degrees_east")
            put(target, "v", PIXELS[:1], ("lat", "lon"))

        (scene,) = nc(describe)
        assert scene.bands[0].source.grid.transform == (0.25, 0.0, 9.875, 0.0, -0.25, 40.125)


def uneven(target: netCDF4.Dataset) -> None:
    degrees(target)
    target["lat"][...] = [40, 40.2, 40.5, 41, 42]
    put(target, "v", PIXELS, ("lat", "lon"))


def curvilinear(target: netCDF4.Dataset) -> None:
    target.createDimension("i", HEIGHT)
    target.createDimension("j", WIDTH)
    for name, unit in (("lat", "degrees_north"), ("lon", "degrees_east")):
        put(target, name, np.ones((HEIGHT, WIDTH)), ("i", "j"), units=unit)
    put(target, "v", PIXELS, ("i", "j"), coordinates="lat lon")


def nowhere(target: netCDF4.Dataset) -> None:
    plane(target)
    put(target, "v", PIXELS, ("y", "x"))


def five_dimensions(target: netCDF4.Dataset) -> None:
    degrees(target)
    target.createDimension("member", 2)
    target.createDimension("level", 2)
    put(target, "v", np.zeros((2, 2, HEIGHT, WIDTH), "i2"), ("member", "level", "lat", "lon"))


def only_a_table(target: netCDF4.Dataset) -> None:
    times(target, [1, 2])
    put(target, "v", [3.0, 4.0], ("time",))


def in_a_group(target: netCDF4.Dataset) -> None:
    group = target.createGroup("PRODUCT")
    degrees(group)
    put(group, "v", PIXELS, ("lat", "lon"))


def odd_crs(target: netCDF4.Dataset) -> None:
    plane(target)
    put(target, "crs", np.int32(0), (), grid_mapping_name="cubic_nonsense")
    put(target, "v", PIXELS, ("y", "x"), grid_mapping="crs")


def model_days(target: netCDF4.Dataset) -> None:
    degrees(target)
    times(target, [1, 2], calendar="noleap")
    put(target, "v", np.stack([PIXELS, PIXELS]), ("time", "lat", "lon"))


def months(target: netCDF4.Dataset) -> None:
    degrees(target)
    times(target, [1, 2], units="months since 2000-01-01")
    put(target, "v", np.stack([PIXELS, PIXELS]), ("time", "lat", "lon"))


@pytest.mark.parametrize(
    ("describe", "why"),
    [
        (uneven, r"v: coordinate 'lat' is not evenly spaced"),
        (curvilinear, r"v: dimensions \(i, j\) are not rows and columns"),
        (nowhere, r"v: nothing states its CRS"),
        (five_dimensions, r"v: 4 dimensions \(member, level, lat, lon\)"),
        (only_a_table, r"no variable of numbers in two dimensions"),
        (in_a_group, r"groups PRODUCT are not looked into"),
        (odd_crs, r"grid mapping 'crs' \(cubic_nonsense\)"),
        (model_days, r"calendar 'noleap': its days are not dates"),
        (months, r"time unit 'months since 2000-01-01'"),
    ],
)
def test_what_cannot_be_placed_says_why(nc: Make, describe: Describe, why: str) -> None:
    with pytest.raises(UnreadableSourceError, match=r"file\.nc: .*" + why):
        nc(describe)


class TestTime:
    def test_a_scene_a_step(self, nc: Make, tmp_path: Path) -> None:
        def describe(target: netCDF4.Dataset) -> None:
            degrees(target)
            times(target, [31, 0, 60])
            cube = np.stack([PIXELS + 100 * step for step in range(3)])
            put(target, "v", cube, ("time", "lat", "lon"))
            put(target, "height", PIXELS, ("lat", "lon"))

        scenes = nc(describe)
        digest = hashlib.sha256((tmp_path / "a file.nc").read_bytes()).hexdigest()[:8]
        days = ("2020-01-01", "2020-02-01", "2020-03-01")
        assert [one.id for one in scenes] == [
            f"a_file-{digest}-{day.replace('-', '')}" for day in days
        ]
        assert [span(one) for one in scenes] == [TimeSpan.parse(f"{day}T00:00:00Z") for day in days]
        for scene, index in zip(scenes, (1, 0, 2), strict=True):
            assert [band.info.name for band in scene.bands] == ["v", "height"]
            pixels, _ = scene.bands[0].source.read(0, 0, HEIGHT, WIDTH)
            np.testing.assert_array_equal(pixels, PIXELS + 100 * index)
            pixels, _ = scene.bands[1].source.read(0, 0, HEIGHT, WIDTH)
            np.testing.assert_array_equal(pixels, PIXELS)

    def test_bounds_make_an_interval(self, nc: Make) -> None:
        def describe(target: netCDF4.Dataset) -> None:
            degrees(target)
            times(target, [15, 45], bounds="time_bnds")
            target.createDimension("nv", 2)
            put(target, "time_bnds", [[0, 31], [60, 31]], ("time", "nv"))
            put(target, "v", np.stack([PIXELS, PIXELS]), ("time", "lat", "lon"))

        first, second = nc(describe)
        assert span(first) == TimeSpan.parse("2020-01")
        assert span(second) == TimeSpan.parse("2020-02")

    def test_the_same_time_twice_and_none(self, nc: Make) -> None:
        def describe(target: netCDF4.Dataset) -> None:
            degrees(target)
            target.createDimension("time", 3)
            put(target, "time", np.array([0.5, 0.5, np.nan]), ("time",),
                units="days since 2020-01-01")  # fmt: skip
            put(target, "v", np.stack([PIXELS + k for k in range(3)]), ("time", "lat", "lon"))

        scenes = nc(describe)
        assert [one.id.split("-", 2)[2] for one in scenes] == [
            "step1", "20200101T120000", "20200101T120000-2"
        ]  # fmt: skip
        assert [one.bands[0].source.read(0, 0, 1, 1)[0][0, 0] for one in scenes] == [2, 0, 1]

    def test_variables_with_times_of_their_own(self, nc: Make) -> None:
        def describe(target: netCDF4.Dataset) -> None:
            degrees(target)
            times(target, [0, 1])
            target.createDimension("week", 1)
            put(target, "week", [1], ("week",), units="days since 2020-01-01", axis="T")
            put(target, "daily", np.stack([PIXELS, PIXELS]), ("time", "lat", "lon"))
            put(target, "weekly", PIXELS[None], ("week", "lat", "lon"))

        first, second = nc(describe)
        assert [band.info.name for band in first.bands] == ["daily"]
        assert [band.info.name for band in second.bands] == ["daily", "weekly"]

    def test_without_a_time_axis(self, nc: Make) -> None:
        said = TimeSpan.parse("2019-05")

        def describe(target: netCDF4.Dataset) -> None:
            degrees(target)
            put(target, "v", PIXELS, ("lat", "lon"))

        def with_attributes(target: netCDF4.Dataset) -> None:
            describe(target)
            target.time_coverage_start = "2020-01-01T00:00:00Z"
            target.time_coverage_end = "2020-01-08"

        def with_a_time(target: netCDF4.Dataset) -> None:
            describe(target)
            put(target, "time", np.int32(31), (), units="days since 2020-01-01")

        assert span(nc(describe, time=said)[0]) == said
        assert span(nc(with_attributes, name="b.nc")[0]) == TimeSpan.parse("2020-01-01/2020-01-08")
        stated = nc(with_a_time, name="c.nc", time=said)[0]
        assert span(stated) == TimeSpan.parse("2020-02-01T00:00:00Z")
        assert stated.id.count("-") == 1

    def test_the_calendars_of_dates(self, nc: Make) -> None:
        def describe(target: netCDF4.Dataset) -> None:
            degrees(target)
            times(target, [0], units="hours since 1900-01-01 06:00:00.5 +02:00",
                  calendar="proleptic_gregorian")  # fmt: skip
            put(target, "v", PIXELS[None], ("time", "lat", "lon"))

        assert span(nc(describe)[0]) == TimeSpan.parse("1900-01-01T04:00:00.5Z")


class TestBands:
    def test_a_dimension_of_bands(self, nc: Make) -> None:
        def describe(target: netCDF4.Dataset) -> None:
            degrees(target)
            target.createDimension("band", 2)
            names = target.createVariable("band", str, ("band",))
            names[0], names[1] = "red", "near infrared"
            put(target, "reflectance", np.stack([PIXELS, PIXELS + 1]), ("band", "lat", "lon"))

        (scene,) = nc(describe)
        assert [band.info.name for band in scene.bands] == ["red", "reflectance_near_infrared"]
        np.testing.assert_array_equal(
            scene.bands[1].source.read(0, 0, HEIGHT, WIDTH)[0], PIXELS + 1
        )

    def test_bands_at_each_time_and_levels_by_number(self, nc: Make) -> None:
        def describe(target: netCDF4.Dataset) -> None:
            degrees(target)
            times(target, [0, 1])
            target.createDimension("level", 2)
            put(target, "level", [500.0, 850.0], ("level",), units="hPa")
            cube = np.arange(4 * PIXELS.size, dtype="i4").reshape(2, 2, HEIGHT, WIDTH)
            put(target, "2t", cube, ("time", "level", "lat", "lon"))

        _, second = nc(describe)
        assert [band.info.name for band in second.bands] == ["v_2t_500", "v_2t_850"]
        expected = np.arange(4 * PIXELS.size, dtype="i4").reshape(2, 2, HEIGHT, WIDTH)[1, 1]
        np.testing.assert_array_equal(second.bands[1].source.read(0, 0, HEIGHT, WIDTH)[0], expected)

    def test_characters_name_bands_too(self, nc: Make) -> None:
        def describe(target: netCDF4.Dataset) -> None:
            degrees(target)
            target.createDimension("band", 2)
            target.createDimension("letters", 4)
            names = netCDF4.stringtochar(np.array([b"B02", b"B03"], "S4"))
            put(target, "band", names, ("band", "letters"))
            put(target, "v", np.stack([PIXELS, PIXELS]), ("band", "lat", "lon"))

        (scene,) = nc(describe, "NETCDF3_CLASSIC")
        assert [band.info.name for band in scene.bands] == ["B02", "B03"]

    def test_flags_are_classes_or_bits(self, nc: Make) -> None:
        def describe(target: netCDF4.Dataset) -> None:
            degrees(target)
            data = PIXELS.astype("u1")
            put(target, "cover", data, ("lat", "lon"), flag_values=np.array([1, 2], "u1"),
                flag_meanings="water land")  # fmt: skip
            put(target, "qa", data, ("lat", "lon"), flag_meanings="cloud low high",
                flag_masks=np.array([1, 6, 6], "u1"), flag_values=np.array([1, 2, 4], "u1"),
            )  # fmt: skip

        (scene,) = nc(describe)
        cover, qa = (band.info for band in scene.bands)
        assert (cover.role, cover.class_names) == (BandRole.CLASS, {"1": "water", "2": "land"})
        assert qa.role is BandRole.QUALITY
        assert qa.bitfields == (
            BitField("cloud", 0, 1), BitField("bits_1_2", 1, 2, {"1": "low", "2": "high"})
        )  # fmt: skip

    def test_scale_and_offset_are_only_told(self, nc: Make) -> None:
        def describe(target: netCDF4.Dataset) -> None:
            degrees(target)
            put(target, "v", PIXELS, ("lat", "lon"), scale_factor=0.5, add_offset=-3.0, units="K")

        (scene,) = nc(describe)
        info = scene.bands[0].info
        assert (info.scale, info.offset, info.unit) == (0.5, -3.0, "K")
        np.testing.assert_array_equal(scene.bands[0].source.read(0, 0, HEIGHT, WIDTH)[0], PIXELS)

    def test_what_is_left_out_is_named(self, nc: Make) -> None:
        def describe(target: netCDF4.Dataset) -> None:
            degrees(target)
            target.createDimension("station", 3)
            put(target, "v", PIXELS, ("lat", "lon"))
            put(target, "gauge", np.zeros((HEIGHT, 3)), ("lat", "station"))
            target.title = "all of it"

        (scene,) = nc(describe)
        assert [band.info.name for band in scene.bands] == ["v"]
        assert scene.properties["left_out"] == {
            "gauge": "dimensions (lat, station) are not rows and columns with coordinates"
        }
        assert scene.properties["tags"] == {"title": "all of it"}
        assert scene.properties["model"] == "NETCDF4"


def valid_of(scene: Scene) -> list[list[bool]]:
    _, valid = scene.bands[0].source.read(0, 0, 1, WIDTH)
    return [True] * WIDTH if valid is None else valid[0].tolist()


class TestMissing:
    @pytest.mark.parametrize(
        ("dtype", "fill", "attributes", "nodata", "missing"),
        [
            ("i2", -1, {}, -1, {-1}),
            ("i2", -1, {"missing_value": np.array([5, 6], "i2")}, -1, {-1, 5, 6}),
            ("i2", None, {"missing_value": np.float32(5)}, 5, {5}),
            ("i2", -1, {"valid_range": np.array([3, 5], "i2")}, -1, {-1, 0, 1, 2, 6}),
            ("i2", -1, {"valid_min": np.int16(2)}, -1, {-1, 0, 1}),
            ("u1", None, {}, None, set()),
            ("f4", None, {"missing_value": np.float32(5)}, 5.0, {5}),
        ],
    )  # fmt: skip
    def test_numbers_that_are_no_measurements(
        self,
        nc: Make,
        dtype: str,
        fill: int | None,
        attributes: dict[str, Any],
        nodata: float | None,
        missing: set[int],
    ) -> None:
        row = np.array([-1 if dtype == "i2" else 0, 0, 1, 2, 3, 5, 6], dtype)

        def describe(target: netCDF4.Dataset) -> None:
            degrees(target)
            put(target, "v", np.tile(row, (HEIGHT, 1)), ("lat", "lon"), fill=fill, **attributes)

        (scene,) = nc(describe)
        assert scene.bands[0].info.nodata == scene.bands[0].source.nodata == nodata
        assert valid_of(scene) == [value not in missing for value in row.tolist()]

    def test_not_a_number(self, nc: Make) -> None:
        def describe(target: netCDF4.Dataset) -> None:
            degrees(target)
            data = PIXELS.astype("f8")
            data[0, 2] = np.nan
            put(target, "v", data, ("lat", "lon"), fill=np.nan)

        (scene,) = nc(describe)
        assert valid_of(scene) == [index != 2 for index in range(WIDTH)]

    def test_nothing_stated_means_what_the_library_fills_with(self, nc: Make) -> None:
        def describe(target: netCDF4.Dataset) -> None:
            degrees(target)
            target.createVariable("v", "i2", ("lat", "lon"))[1:] = PIXELS[1:]

        (scene,) = nc(describe)
        assert scene.bands[0].info.nodata == -32767
        assert not any(valid_of(scene))
        assert scene.bands[0].source.read(1, 0, HEIGHT - 1, WIDTH)[1] is None

    def test_signed_numbers_that_are_meant_unsigned(self, nc: Make) -> None:
        def describe(target: netCDF4.Dataset) -> None:
            degrees(target)
            row = np.array([-1, -2, 0, 1, 2, 3, 4], "i2")
            put(target, "v", np.tile(row, (HEIGHT, 1)), ("lat", "lon"), _Unsigned="true",
                valid_range=np.array([0, -2], "i2"))  # fmt: skip

        (scene,) = nc(describe)
        (band,) = scene.bands
        assert (band.info.dtype, band.info.nodata) == ("uint16", 65535)
        assert band.source.read(0, 0, 1, 2)[0].tolist() == [[65535, 65534]]
        assert valid_of(scene) == [False, True, True, True, True, True, True]

    def test_big_endian(self, nc: Make) -> None:
        def describe(target: netCDF4.Dataset) -> None:
            degrees(target)
            variable = target.createVariable("v", ">i2", ("lat", "lon"), endian="big")
            variable[...] = PIXELS

        (scene,) = nc(describe)
        np.testing.assert_array_equal(scene.bands[0].source.read(0, 0, HEIGHT, WIDTH)[0], PIXELS)


class TestFiles:
    def simple(self, path: Path, format: str = "NETCDF4") -> Path:
        with written(path, format) as target:
            degrees(target)
            put(target, "v", PIXELS, ("lat", "lon"))
        return path

    def test_claimed_by_content(self, tmp_path: Path) -> None:
        for kind in ("NETCDF3_CLASSIC", "NETCDF4"):
            reader = detect(self.simple(tmp_path / kind, kind))
            assert reader is not None
            assert reader.name == "netcdf"
        with h5py.File(tmp_path / "plain.h5", "w") as target:
            target["numbers"] = [1, 2, 3]
        assert detect(tmp_path / "plain.h5") is None
        (tmp_path / "text.nc").write_text("no netCDF")
        assert detect(tmp_path / "text.nc") is None

    def test_in_an_archive(self, tmp_path: Path) -> None:
        (alone,) = open_source(self.simple(tmp_path / "one.nc"))
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as target:
            target.write(tmp_path / "one.nc", "folder/one.nc")
            target.writestr("folder/readme.txt", "words")
        (inside,) = open_source(tmp_path / "all.zip")
        with alone, inside:
            assert (inside.id, inside.fingerprint) == (alone.id, alone.fingerprint)
            np.testing.assert_array_equal(
                inside.bands[0].source.read(0, 0, HEIGHT, WIDTH)[0], PIXELS
            )

    def test_pixels_in_other_files_are_not_read(self, tmp_path: Path) -> None:
        """HDF5 files may name any file of the machine as the one that holds their pixels."""
        (tmp_path / "secret").write_bytes(bytes(range(PIXELS.size)))
        path = self.simple(tmp_path / "a.nc")
        shape = (HEIGHT, WIDTH)
        with h5py.File(path, "r+") as target:
            del target["v"]
            outside = [(str(tmp_path / "secret"), 0, PIXELS.size)]
            stolen = target.create_dataset("v", shape, "u1", external=outside)
            layout = h5py.VirtualLayout(shape, "u1")
            layout[:] = h5py.VirtualSource(tmp_path / "b.h5", "v", shape)
            virtual = target.create_virtual_dataset("w", layout)
            for one in (stolen, virtual):
                one.dims[0].attach_scale(target["lat"])
                one.dims[1].attach_scale(target["lon"])
        with netCDF4.Dataset(path) as source:
            assert source["v"][0, 1] == 1, "the library itself reads any file"
        (scene,) = open_source(path)
        with scene:
            assert [band.info.name for band in scene.bands] == ["v"]
            assert scene.properties["left_out"].keys() == {"w"}
            with pytest.raises(UnreadableSourceError, match=r"a\.nc"):
                scene.bands[0].source.read(0, 0, HEIGHT, WIDTH)

    def test_codecs_that_are_plug_ins(self, tmp_path: Path) -> None:
        path = tmp_path / "a.nc"
        with written(path) as target:
            degrees(target)
            variable = target.createVariable("v", "i2", ("lat", "lon"), compression="zstd")
            variable[...] = PIXELS
        (scene,) = open_source(path)
        with scene:
            np.testing.assert_array_equal(
                scene.bands[0].source.read(0, 0, HEIGHT, WIDTH)[0], PIXELS
            )

    @pytest.mark.parametrize(("format", "share"), [("NETCDF3_CLASSIC", 0.97), ("NETCDF4", 0.5)])
    def test_a_truncated_file(self, tmp_path: Path, format: str, share: float) -> None:
        path = self.simple(tmp_path / "a.nc", format)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(UnreadableSourceError, match=r"a\.nc"):
            open_source(path)


def test_ingested_as_any_scene_is(tmp_path: Path) -> None:
    path = tmp_path / "steps.nc"
    cube = np.stack([np.full((40, 50), step + 1, "i2") for step in range(3)])
    cube[1, :20] = -1
    cube[2] = -1
    with written(path) as target:
        target.createDimension("lat", 40)
        target.createDimension("lon", 50)
        put(target, "lat", 50.0 - 0.01 * np.arange(40), ("lat",), units="degrees_north")
        put(target, "lon", 10.0 + 0.01 * np.arange(50), ("lon",), units="degrees_east")
        times(target, [0, 31, 60])
        put(target, "v", cube, ("time", "lat", "lon"), fill=-1)
    with geostore.open(tmp_path / "store") as store:
        first, second, third = store.ingest([path])
        assert (first.status, second.status, third.status) == ("ingested", "ingested", "failed")
        assert (first.dataset, first.reader) == ("netcdf", "netcdf")
        assert third.error is not None
        assert "no band has a valid pixel" in third.error
        for result, month, whole in ((first, "2020-01", 2000), (second, "2020-02", 1000)):
            tiles = list(store.query(time=month))
            assert {tile.scene for tile in tiles} == {result.scene}
            seen = [tile.read() for tile in tiles]
            values = np.concatenate([array.data[array.mask] for array in seen])
            assert set(values.tolist()) == {1 if month == "2020-01" else 2}
            assert values.size == pytest.approx(whole, rel=0.6)


def span(scene: Scene) -> TimeSpan:
    return TimeSpan(scene.time_us, scene.time_end_us)
