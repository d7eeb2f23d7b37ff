"""Real MODIS products against pyhdf's own reading, their metadata's text and their twins.

Nothing here is read through geostore but what is checked: pixels come from pyhdf or rasterio,
times and ids from the metadata's plain text, grids from the definition of the MODIS tiles.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyhdf.SD import SD
from pyproj import Transformer
from rasterio.io import DatasetReader, MemoryFile
from rasterio.vrt import WarpedVRT

import geostore
from geostore.api import Store
from geostore.scenes import Scene, detect, open_source
from geostore.types import BandRole, SceneResult, TimeSpan
from tests.hdf_eos import TestGrid, core_metadata, write_granule
from tests.oracle.warps import mosaic_of

SINUSOIDAL = "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs"
TILE_M = 2 * np.pi * 6371007.181 / 36
MOD09GA = "MOD09GA.A2008296.h14v17.006.2015181011753"
MOD09A1 = "MOD09A1.A2017193.h18v04.006.2017202035302"
MOD10A2 = "MOD10A2.A2022033.h09v05.061.2022042050729"
MOD11A1 = "MOD11A1.A2019305.h14v09.006.2019306084028"
MOD13A2 = "MOD13A2.A2016145.h18v04.006.2016166145124"
MYD13A1 = "MYD13A1.A2020153.h30v10"
FILES = {
    MOD09GA: f"{MOD09GA}.hdf",
    MOD09A1: f"{MOD09A1}.hdf.zip",
    MOD10A2: f"{MOD10A2}.hdf",
    MOD11A1: "MOD11A1.hdf",  # its repository renamed it
    MOD13A2: f"{MOD13A2}.hdf",
}
WHOLE_TILES = (MOD09GA, MOD10A2, MOD11A1)
# By hand from the metadata in each file (RANGE..., or DAYSPROCESSED where HEG left no more).
TIMES = {
    MOD09GA: "2008-10-22T11:55:00Z/2008-10-22T23:25:00Z",
    MOD09A1: "2017-07-12T00:00:00Z/2017-07-19T23:59:59Z",
    MOD10A2: "2022-02-02T00:00:00Z/2022-02-09T23:59:59Z",
    MOD11A1: "2019-11-01T00:00:00Z/2019-11-01T23:59:59Z",
    MOD13A2: "2016-05-24/2016-06-08",
}
VI_LAYERS = [
    *("NDVI", "EVI", "VI Quality", "red reflectance", "NIR reflectance", "blue reflectance"),
    *("MIR reflectance", "view zenith angle", "sun zenith angle", "relative azimuth angle"),
    *("composite day of the year", "pixel reliability"),
]


@pytest.fixture(scope="module")
def modis(shared_data: Path) -> Path:
    return shared_data / "modis"


@dataclass(frozen=True)
class Layer:
    """A layer as pyhdf gives it."""

    data: np.ndarray
    attributes: dict[str, Any]
    transform: Affine

    @property
    def fill(self) -> int | None:
        return self.attributes.get("_FillValue")

    @property
    def valid(self) -> np.ndarray:
        return np.ones(self.data.shape, bool) if self.fill is None else self.data != self.fill


@pytest.fixture(scope="module")
def layers(modis: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Layer]]:
    """Every two-dimensional layer of every granule, by pyhdf; placed by the metadata's text."""
    found = {}
    for scene, name in FILES.items():
        path = modis / name
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                folder = tmp_path_factory.mktemp("modis")
                path = Path(archive.extract(archive.namelist()[0], folder))
        file = SD(str(path))
        text = file.attributes()["StructMetadata.0"]
        found[scene] = {}
        for layer, (dimensions, shape, _, _) in file.datasets().items():
            if len(shape) != 2:
                continue
            grid = dimensions[0].partition(":")[2]
            about = text[text.index(f'GridName="{grid}"') :]
            corners = re.findall(r"(?:UpperLeftPointMtrs|LowerRightMtrs)=\((.*?),(.*?)\)", about)
            (left, top), (right, bottom) = (tuple(map(float, corner)) for corner in corners[:2])
            height, width = shape
            step = Affine((right - left) / width, 0, left, 0, (bottom - top) / height, top)
            array = file.select(layer)
            found[scene][layer] = Layer(array.get(), array.attributes(), step)
        file.end()
    return found


def open_one(path: Path) -> Scene:
    (scene,) = open_source(path)
    return scene


def pixels_of(scene: Scene, name: str) -> tuple[np.ndarray, np.ndarray]:
    band = scene.band(name)
    assert band is not None
    data, valid = band.source.read(0, 0, band.source.grid.height, band.source.grid.width)
    return data, np.ones(data.shape, bool) if valid is None else valid


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("name", FILES)
def test_every_pixel_and_mask_is_pyhdfs(
    modis: Path, layers: dict[str, dict[str, Layer]], name: str
) -> None:
    with open_one(modis / FILES[name]) as scene:
        assert {band.info.name for band in scene.bands} == set(layers[name])
        for layer, expected in layers[name].items():
            data, valid = pixels_of(scene, layer)
            assert data.dtype == expected.data.dtype
            np.testing.assert_array_equal(data, expected.data, err_msg=layer)
            if layer == "Eight_Day_Snow_Cover":
                # Its fill value, 0, is in its valid range too: no snow on any day.
                assert expected.fill == 0
                assert expected.attributes["valid_range"][0] == 0
                assert valid.all()
            else:
                np.testing.assert_array_equal(valid, expected.valid, err_msg=layer)


@pytest.mark.parametrize("name", FILES)
def test_what_each_is(modis: Path, name: str) -> None:
    product = name.partition(".")[0].lower()
    with open_one(modis / FILES[name]) as scene:
        assert (scene.id, scene.reader) == (name, f"modis-{product}")
        assert scene.platform == "terra"
        span = TimeSpan.parse(TIMES[name])
        assert (scene.time_us, scene.time_end_us) == (span.start_us, span.end_us)
        assert scene.properties["product"] == product.upper()
        match = re.search(r"h\d\dv\d\d", name)
        assert match is not None
        assert scene.properties["tile"] == match[0]
        expected = [f"1 km 16 days {layer}" for layer in VI_LAYERS]
        present = [band.info.name for band in scene.bands]
        assert scene.missing == tuple(
            layer for layer in expected if name == MOD13A2 and layer not in present
        )


@pytest.mark.parametrize("name", WHOLE_TILES)
def test_whole_tiles_lie_where_their_numbers_say(modis: Path, name: str) -> None:
    """h and v count tiles of a 36th of the sphere's circumference from 180 W and 90 N."""
    match = re.search(r"h(\d\d)v(\d\d)", name)
    assert match is not None
    left, top = (int(match[1]) - 18) * TILE_M, (9 - int(match[2])) * TILE_M
    with open_one(modis / FILES[name]) as scene:
        for band in scene.bands:
            grid = band.source.grid
            pixel = TILE_M / grid.width
            assert grid.transform == pytest.approx((pixel, 0, left, 0, -pixel, top), abs=1e-3)
            assert rasterio.CRS.from_wkt(grid.crs_wkt) == rasterio.CRS.from_proj4(SINUSOIDAL)
            assert band.info.native_resolution_m == pytest.approx(pixel, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "data", "common"),
    [
        (
            MOD09GA,
            [f"sur_refl_b0{number}_1" for number in range(1, 8)],
            ["red", "nir", "blue", "green", None, "swir16", "swir22"],
        ),
        (
            MOD09A1,
            [f"sur_refl_b0{number}" for number in range(1, 8)],
            ["red", "nir", "blue", "green", None, "swir16", "swir22"],
        ),
        (MOD11A1, ["LST_Day_1km", "LST_Night_1km", "Emis_31", "Emis_32"], [None] * 4),
        (MOD13A2, ["1 km 16 days NDVI"], [None]),
        (MOD10A2, [], []),
    ],
)
def test_measured_bands(modis: Path, name: str, data: list[str], common: list[str | None]) -> None:
    with open_one(modis / FILES[name]) as scene:
        assert [band.info.name for band in scene.data_bands] == data
        assert [band.info.common_name for band in scene.data_bands] == common


@pytest.mark.parametrize(
    ("name", "band", "stored", "physical"),
    [
        (MOD09GA, "sur_refl_b01_1", 2500, 0.25),
        (MOD09GA, "Range_1", 30_000, 750_000.0),
        (MOD09GA, "SensorZenith_1", 4500, 45.0),
        (MOD09A1, "sur_refl_b01", 2500, 0.25),
        (MOD11A1, "LST_Day_1km", 15_000, 300.0),
        (MOD11A1, "Emis_31", 245, 0.98),
        (MOD11A1, "Day_view_angl", 65, 0.0),
        (MOD13A2, "1 km 16 days NDVI", 8000, 0.8),
    ],
)
def test_radiometry(modis: Path, name: str, band: str, stored: int, physical: float) -> None:
    """Physical values by the products' user guides."""
    with open_one(modis / FILES[name]) as scene:
        found = scene.band(band)
        assert found is not None
        assert stored * found.info.scale + found.info.offset == pytest.approx(physical)


def test_snow_is_its_geotiff_twins(modis: Path) -> None:
    """The conversions beside the granule: pixels, CRS and transform."""
    twins = modis / "MOD10A2_expected_tif"
    with open_one(modis / FILES[MOD10A2]) as scene, open_one(twins) as converted:
        assert converted.id == f"{MOD10A2}-{converted.fingerprint[:8]}"
        assert converted.reader == scene.reader == "modis-mod10a2"
        assert (converted.time_us, converted.time_end_us) == (scene.time_us, scene.time_end_us)
        assert [band.info.name for band in converted.bands] == [
            band.info.name for band in scene.bands
        ]
        for band in scene.bands:
            with rasterio.open(twins / f"{MOD10A2}_{band.info.name}.tif") as twin:
                whole = twin.read(1)
                assert rasterio.CRS.from_wkt(band.source.grid.crs_wkt) == twin.crs
                expected = tuple(twin.transform)[:6]
            assert band.source.grid.transform == pytest.approx(expected, rel=1e-12)
            for one in (scene, converted):
                np.testing.assert_array_equal(pixels_of(one, band.info.name)[0], whole)


def test_a_granule_of_fill_values_only(modis: Path) -> None:
    """254 in four layers (land cover without a value), `not produced` in the quality bits."""
    file = SD(str(modis / "test_modis.hdf"))
    assert {int(file.select(name).get().max()) for name in ("Fpar_1km", "LaiStdDev_1km")} == {254}
    with open_one(modis / "test_modis.hdf") as scene:
        # Its own metadata say MCD15A2, whatever it is called.
        assert scene.id == "MCD15A2.A2002185.h00v08.005.2007172150237"
        assert (scene.reader, scene.platform) == ("modis-mcd15a2", "terra+aqua")
        assert len(scene.bands) == 6
        for band in scene.bands:
            assert not pixels_of(scene, band.info.name)[1].any()


def test_bits_of_the_state_are_those_that_the_granule_counts(
    modis: Path, layers: dict[str, dict[str, Layer]]
) -> None:
    """Its `QA index` lists every field of bits with the share of pixels of each value.

    It counted other pixels than the first layer kept, so shares agree to a hundredth of all;
    they lie between 0 and 99 percent, far enough apart to tell a field from its neighbour.
    """
    text = layers[MOD09GA]["state_1km_1"].attributes["QA index"]
    names = {
        "cloud state": "cloud_state",
        "cloud shadow": "cloud_shadow",
        "land/water flag": "land_water",
        "aerosol quantity": "aerosol",
        "cirrus detected": "cirrus",
        "internal cloud algorithm flag": "internal_cloud",
        "internal fire algorithm flag": "internal_fire",
        "MOD35 snow/ice flag": "snow_ice",
        "Pixel is adjacent to cloud": "adjacent_to_cloud",
        "Salt Pan": "salt_pan",
        "internal snow algorithm flag": "internal_snow",
    }
    with open_one(modis / FILES[MOD09GA]) as scene:
        values, valid = pixels_of(scene, "state_1km_1")
        band = scene.band("state_1km_1")
        assert band is not None
        fields = {field.name: field for field in band.info.bitfields}
    values = values[valid]
    counted = 0
    for title, body in re.findall(
        r"^\t[\d-]+\s+([^;\n]+);(.*?)(?=^\t\d|\Z)", text, re.MULTILINE | re.DOTALL
    ):
        field = fields.pop(names[title])
        for bits, percent in re.findall(r"([01]+) -- .*?, ([\d.]+)%", body):
            share = ((values >> field.offset) % (1 << field.length) == int(bits, 2)).mean()
            assert 100 * share == pytest.approx(float(percent), abs=1.0), (title, bits)
            counted += 1
    assert not fields
    assert counted == 7 * 2 + 3 * 4 + 8  # values of one bit, of two and of three


def test_classes_of_snow_are_the_granules(layers: dict[str, dict[str, Layer]], modis: Path) -> None:
    key = layers[MOD10A2]["Maximum_Snow_Extent"].attributes["Key"]
    with open_one(modis / FILES[MOD10A2]) as scene:
        stated = dict(part.strip().split("=") for part in key.split(","))
        assert stated.pop("255") == "fill"
        assert scene.bands[0].info.class_names == stated


# ---------------------------------------------------------------- conversions


def test_twelve_layers_of_one_day(modis: Path) -> None:
    folder = modis / MYD13A1
    with open_one(folder) as scene:
        assert scene.id == f"{MYD13A1}.006.2020170024036-{scene.fingerprint[:8]}"
        assert (scene.reader, scene.platform) == ("modis-myd13a1", "aqua")
        span = TimeSpan.parse("2020-06-01T00:00:00Z/2020-06-16T23:59:59Z")
        assert (scene.time_us, scene.time_end_us) == (span.start_us, span.end_us)
        assert [band.info.name for band in scene.bands] == [
            f"500m 16 days {layer}" for layer in VI_LAYERS
        ]
        for number, short in enumerate(("NDVI", "EVI", "VIQ", "RR", "NIRR", "BR", "MIRR"), 1):
            (path,) = folder.glob(f"*_{short}_B{number:02}.TIF")
            with rasterio.open(path) as expected:
                whole, description = expected.read(1), expected.descriptions[0]
                data, valid = pixels_of(scene, description)
                assert scene.bands[VI_LAYERS.index(description[13:])].info.name == description
                np.testing.assert_array_equal(data, whole)
                np.testing.assert_array_equal(valid, whole != expected.nodata)
                band = scene.band(description)
                assert band is not None
                assert band.source.grid.transform == tuple(expected.transform)[:6]


def test_repackaged_as_a_granule_they_are_the_same_bands(modis: Path, tmp_path: Path) -> None:
    """The conversions' pixels and tags, written as HDF4-EOS again."""
    layers: dict[str, tuple[np.ndarray, dict[str, Any]]] = {}
    tags: dict[str, str] = {}
    for path in sorted((modis / MYD13A1).glob("*.TIF"), key=lambda path: path.stem[-2:]):
        with rasterio.open(path) as layer:
            tags, step = layer.tags(), layer.transform
            layers[layer.descriptions[0]] = (
                layer.read(1),
                {
                    "_FillValue": int(layer.nodata),
                    "valid_range": [int(number) for number in tags["valid_range"].split(",")],
                    "units": tags["units"],
                    "long_name": tags["long_name"],
                    **(
                        {"scale_factor": float(tags["scale_factor"])}
                        if "scale_factor" in tags
                        else {}
                    ),
                },
            )
    grid = TestGrid("MODIS_Grid_16DAY_500m_VI", layers, upper_left=(step.c, step.f), pixel=step.a)
    names = ("LOCALGRANULEID", "SHORTNAME", "DAYNIGHTFLAG")
    names += ("RANGEBEGINNINGDATE", "RANGEBEGINNINGTIME", "RANGEENDINGDATE", "RANGEENDINGTIME")
    core = core_metadata({name: f'"{tags[name]}"' for name in names})
    path = write_granule(tmp_path / "renamed.hdf", [grid], core=core)
    with open_one(path) as scene, open_one(modis / MYD13A1) as converted:
        assert scene.id == f"{MYD13A1}.006.2020170024036"
        assert (scene.reader, scene.platform, scene.cloud) == (
            *(converted.reader, converted.platform, converted.cloud),
        )
        assert (scene.time_us, scene.time_end_us) == (converted.time_us, converted.time_end_us)
        assert scene.missing == ()
        for ours, other in zip(scene.bands, converted.bands, strict=True):
            resolution_m = other.info.native_resolution_m
            assert ours.info.native_resolution_m == pytest.approx(resolution_m)
            assert replace(ours.info, native_resolution_m=resolution_m) == other.info
            for one, two in zip(
                pixels_of(scene, ours.info.name),
                pixels_of(converted, ours.info.name),
                strict=True,
            ):
                np.testing.assert_array_equal(one, two)


def test_a_series_of_twelve_dates(modis: Path) -> None:
    folder = modis / "MOD13Q1_NDVI_series_sinop"
    paths = sorted(folder.glob("*.jp2"))
    scenes = open_source(folder)
    assert len(scenes) == len(paths) == 12
    for scene, path in zip(scenes, paths, strict=True):
        with scene:
            day = path.stem[-10:]
            assert (scene.reader, scene.platform) == ("modis-mod13q1", "terra")
            assert scene.time_us == TimeSpan.parse(day).start_us
            assert scene.time_end_us == scene.time_us + 16 * 86_400_000_000 - 1
            assert re.fullmatch(r"MOD13Q1\.A\d{7}-[0-9a-f]{8}", scene.id)
            with rasterio.open(path) as expected:
                data, valid = pixels_of(scene, "250m 16 days NDVI")
                np.testing.assert_array_equal(data, expected.read(1))
                np.testing.assert_array_equal(valid, data != -3000)


def test_an_archive_of_twenty_three_dates(modis: Path) -> None:
    scenes = open_source(modis / "NDVI.zip")
    days = [f"2016{day:03}" for day in range(1, 366, 16)]
    assert [scene.id[:16] for scene in scenes] == [f"MOD13A1.A{day}" for day in days]
    for scene, day in zip(scenes, days, strict=True):
        with scene:
            assert (scene.reader, scene.platform) == ("modis-mod13a1", "terra")
            path = f"/vsizip/{modis / 'NDVI.zip'}/NDVI/MOD13A1_NDVI_{day[:4]}_{day[4:]}.tif"
            with rasterio.open(path) as expected:
                data, valid = pixels_of(scene, "500m 16 days NDVI")
                np.testing.assert_array_equal(data, expected.read(1))
                np.testing.assert_array_equal(valid, data != 32767)
                # The last two dates are fractions, the others ten thousandths.
                scale = 1e-4 if expected.dtypes[0] == "int16" else 1.0
            assert scene.bands[0].info.scale == scale
    assert scenes[-1].bands[0].info.scale == 1.0


@pytest.mark.parametrize("day", [222, 223, 224])
def test_three_days_of_mosaics(modis: Path, day: int) -> None:
    path = modis / "MOD09GA_mosaic_3days_pamplona" / f"2021{day}.zip"
    with open_one(path) as scene:
        assert scene.id == f"MOD09GA.A2021{day}-{scene.fingerprint[:8]}"
        assert scene.time_us == TimeSpan.parse(f"2021-08-{day - 212}").start_us
        assert len(scene.bands) == 22
        for grid, layer in (("500m", "sur_refl_b04_1"), ("1km", "state_1km_1")):
            with rasterio.open(f"/vsizip/{path}/MODIS_Grid_{grid}_2D_{layer}.tif") as expected:
                np.testing.assert_array_equal(pixels_of(scene, layer)[0], expected.read(1))


def test_folders_of_more_than_layers_are_walked(modis: Path) -> None:
    assert detect(modis) is None
    assert detect(modis / "MOD09GA_mosaic_3days_pamplona") is None


# ---------------------------------------------------------------- in a store


@dataclass(frozen=True)
class Stored:
    store: Store
    results: dict[tuple[str, str], SceneResult]


@pytest.fixture(scope="module")
def stored(modis: Path, tmp_path_factory: pytest.TempPathFactory) -> Stored:
    store = geostore.open(str(tmp_path_factory.mktemp("modis") / "store"))
    results = {}
    for name, scheme in (
        *((name, "geohash") for name in FILES),
        *((name, "quadtile") for name in (MOD11A1, MOD13A2)),
    ):
        dataset = f"{name.partition('.')[0].lower()}-{scheme}"
        (result,) = store.ingest([modis / FILES[name]], dataset=dataset, scheme=scheme)
        assert result.error is None, result
        results[name, scheme] = result
    return Stored(store, results)


@contextmanager
def as_dataset(layer: Layer) -> Iterator[DatasetReader]:
    """The layer as GDAL sees rasters, placed by us."""
    data = layer.data
    if data.dtype == np.int8:  # the warper has no such type
        data = data.astype(np.int16)
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            count=1,
            height=data.shape[0],
            width=data.shape[1],
            dtype=data.dtype,
            crs=rasterio.CRS.from_proj4(SINUSOIDAL),
            transform=layer.transform,
            nodata=layer.fill,
        ) as target:
            target.write(data, 1)
        with memory.open() as dataset:
            yield dataset


@contextmanager
def warped(
    dataset: DatasetReader, crs: Any, transform: Affine, height: int, width: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    with WarpedVRT(
        dataset,
        crs=crs,
        transform=transform,
        height=height,
        width=width,
        tolerance=1e-9,
        add_alpha=dataset.nodata is None,
    ) as reference:
        data = reference.read(1)
        yield data, data != dataset.nodata if dataset.nodata is not None else reference.read(2) != 0


def near_an_edge(layer: Layer, crs: Any, transform: Affine, wrong: np.ndarray) -> np.ndarray:
    """Whether PROJ puts these lattice pixels within 1e-3 px of a source pixel's edge."""
    rows, columns = np.nonzero(wrong)
    x, y = transform * (columns + 0.5, rows + 0.5)
    x, y = Transformer.from_crs(crs, SINUSOIDAL, always_xy=True).transform(x, y)
    column, row = ~layer.transform * (np.asarray(x), np.asarray(y))
    distance = np.minimum(np.abs(column - np.round(column)), np.abs(row - np.round(row)))
    return distance <= 1e-3


CHECKED = [
    (MOD09GA, "geohash", ["sur_refl_b01_1", "state_1km_1", "QC_500m_1"]),
    (MOD09A1, "geohash", ["sur_refl_b02", "sur_refl_state_500m"]),
    (MOD10A2, "geohash", ["Maximum_Snow_Extent"]),
    (MOD11A1, "geohash", ["LST_Day_1km", "Emis_31"]),
    (MOD11A1, "quadtile", ["LST_Night_1km"]),
    (MOD13A2, "quadtile", ["1 km 16 days NDVI", "1 km 16 days pixel reliability"]),
]


def tiles_of(stored: Stored, name: str, scheme: str) -> list[Any]:
    dataset = f"{name.partition('.')[0].lower()}-{scheme}"
    tiles = list(stored.store.query(dataset=dataset))
    assert len(tiles) == stored.results[name, scheme].tiles > 0
    return tiles


@pytest.mark.parametrize(("name", "scheme", "bands"), CHECKED)
def test_invariant_3_stored_pixels_are_the_sources_under_their_centres(
    stored: Stored,
    layers: dict[str, dict[str, Layer]],
    name: str,
    scheme: str,
    bands: list[str],
) -> None:
    checked = differing = seen = 0
    for band in bands:
        layer = layers[name][band]
        with as_dataset(layer) as dataset:
            for tile in tiles_of(stored, name, scheme)[:16]:
                ours = tile.read(bands=[band])
                _, height, width = ours.data.shape
                with warped(dataset, ours.crs, ours.transform, height, width) as (data, valid):
                    wrong = (ours.mask[0] != valid) | (valid & (ours.data[0] != data))
                    seen += int(valid.sum())
                if wrong.any():
                    near = near_an_edge(layer, ours.crs, ours.transform, wrong)
                    assert near.all(), f"{tile.geocode} {band}: {(~near).sum()} pixels are wrong"
                checked += wrong.size
                differing += int(wrong.sum())
    assert seen > 0
    assert differing <= checked / 10_000


@pytest.mark.parametrize(("name", "scheme", "bands"), CHECKED)
def test_invariant_4_the_mosaic_of_tiles_is_one_warp(
    stored: Stored,
    layers: dict[str, dict[str, Layer]],
    name: str,
    scheme: str,
    bands: list[str],
) -> None:
    band = bands[0]
    mosaic = mosaic_of([tile.read(bands=[band]) for tile in tiles_of(stored, name, scheme)])
    with (
        as_dataset(layers[name][band]) as dataset,
        warped(dataset, mosaic.crs, mosaic.transform, *mosaic.data.shape) as (whole, seen),
    ):
        wrong = mosaic.differs(whole, seen)
        assert seen.any()
        assert wrong.sum() <= seen.sum() / 10_000 + 1
        assert not seen[~mosaic.covered].any(), "pixels that no tile has"


def test_groups_and_cells(stored: Stored) -> None:
    dataset = stored.store.dataset("mod09ga-geohash")
    assert [group.resolution_m for group in dataset.groups] == pytest.approx(
        [463.3127, 926.6254], abs=1e-3
    )
    assert dataset.length == 3
    assert stored.store.dataset("mod11a1-quadtile").length == 8
    tile = next(iter(stored.store.query(dataset="mod09ga-geohash")))
    # 156.5 km at the equator, in pixels of 463.3 m rounded up to 32; half as many of 926.6 m.
    assert [(group.height, group.width) for group in tile.schema.groups] == [(352, 352), (176, 176)]


def expected_measures(
    tile: Any, layers: dict[str, Layer], data: list[str], cloud: str | None, cloudy: Any
) -> tuple[float, float | None]:
    """(coverage, cloud cover) of a tile by its own warp of the layers."""
    first = tile.read(bands=[data[0]])
    together = None
    for band in data:
        with as_dataset(layers[band]) as dataset:
            _, height, width = first.data.shape
            with warped(dataset, first.crs, first.transform, height, width) as (_, valid):
                together = valid if together is None else together & valid
    assert together is not None
    cover = None
    if cloud is not None:
        ours = tile.read(bands=[cloud])
        _, height, width = ours.data.shape
        with (
            as_dataset(layers[cloud]) as dataset,
            warped(dataset, ours.crs, ours.transform, height, width) as (values, valid),
        ):
            if valid.any():
                cover = 100 * float((cloudy(values) & valid).sum() / valid.sum())
    return 100 * float(together.mean()), cover


def cloudy_state(values: np.ndarray) -> np.ndarray:
    """MOD09 User's Guide: bits 0-1 cloudy or mixed; bits 8-9 average or high cirrus."""
    return np.isin(values % 4, [1, 2]) | np.isin(values // 256 % 4, [2, 3])


@pytest.mark.parametrize(
    ("name", "data", "cloud", "cloudy", "method"),
    [
        (
            MOD09GA,
            [f"sur_refl_b0{number}_1" for number in range(1, 8)],
            "state_1km_1",
            cloudy_state,
            "state_1km_1 bits 0-1=1/2,8-9=2/3",
        ),
        (
            MOD09A1,
            ["sur_refl_b01"],
            "sur_refl_state_500m",
            cloudy_state,
            "sur_refl_state_500m bits 0-1=1/2,8-9=2/3",
        ),
        (
            MOD10A2,
            ["Maximum_Snow_Extent"],
            "Maximum_Snow_Extent",
            lambda values: values == 50,
            "Maximum_Snow_Extent 50",
        ),
        (MOD11A1, ["LST_Day_1km", "LST_Night_1km", "Emis_31", "Emis_32"], None, None, None),
        (
            MOD13A2,
            ["1 km 16 days NDVI"],
            "1 km 16 days pixel reliability",
            lambda values: values == 3,
            "1 km 16 days pixel reliability 3",
        ),
    ],
)
def test_coverage_and_clouds(
    stored: Stored,
    layers: dict[str, dict[str, Layer]],
    name: str,
    data: list[str],
    cloud: str | None,
    cloudy: Any,
    method: str | None,
) -> None:
    found = []
    for tile in tiles_of(stored, name, "geohash")[:6]:
        coverage, cover = expected_measures(tile, layers[name], data, cloud, cloudy)
        assert tile.pixel_coverage == pytest.approx(coverage, abs=0.02), tile.geocode
        if cover is None:
            assert tile.cloud_cover is None
        else:
            assert tile.cloud_cover == pytest.approx(cover, abs=0.02), tile.geocode
            assert tile.cloud_method == method
        found.append(tile.cloud_cover)
    if cloud is not None:
        assert any(cover for cover in found), "a granule without any cloud shows nothing"


def test_nothing_but_fill_values_is_not_stored(modis: Path, stored: Stored) -> None:
    (result,) = stored.store.ingest([modis / "test_modis.hdf"], dataset="empty")
    assert result.status == "failed"
    assert result.error is not None
    assert "no band has a valid pixel" in result.error


def test_roles_of_a_granule(modis: Path) -> None:
    with open_one(modis / FILES[MOD10A2]) as scene:
        roles = [band.info.role for band in scene.bands]
        assert roles == [BandRole.CLASS, BandRole.QUALITY]
        assert scene.bands[0].info.class_names["50"] == "cloud"
