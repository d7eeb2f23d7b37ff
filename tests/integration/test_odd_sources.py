"""Sources that are odd but right: stored, found and read back pixel by pixel.

The reference is made here, of PROJ and the raster alone: the pixel under a tile pixel's
centre, and the geohash over each source pixel's centre.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geohash
import numpy as np
import pytest
import rasterio
from pyproj import Transformer

import geostore
from geostore.api import Tile
from tests.integration.stocked_store import StockedStore, check_one_error

RANDOM = np.random.default_rng(5)
SHAPE = (1, 72, 90)
EDGE_PX = 1e-3
UTM = "EPSG:32618"


def numbers(dtype: str, low: int, high: int) -> np.ndarray:
    return RANDOM.integers(low, high, SHAPE).astype(dtype)


def with_nan() -> np.ndarray:
    data = RANDOM.normal(0.0, 1e300, SHAPE)
    data[:, :20, :30] = np.nan
    return data


SOURCES: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "int8": (numbers("int8", -128, 128), {"nodata": -128}),
    "int8 without nodata": (numbers("int8", -128, 128), {}),
    "float64": (with_nan(), {}),
    "float64 with nodata": (
        np.where(numbers("uint8", 0, 4) == 0, -9999.0, RANDOM.normal(size=SHAPE)),
        {"nodata": -9999.0},
    ),
    "int64": (RANDOM.integers(-(2**62), 2**62, SHAPE), {}),
    "pixels wider than high": (
        numbers("uint8", 1, 200),
        {"transform": (25.0, 0.0, 5e5, 0.0, -10.0, 4.2e6)},
    ),
    "pixels higher than wide": (
        numbers("uint8", 1, 200),
        {"transform": (10.0, 0.0, 5e5, 0.0, -30.0, 4.2e6)},
    ),
    "south up": (numbers("uint8", 1, 200), {"transform": (10.0, 0.0, 5e5, 0.0, 10.0, 4.2e6)}),
    "turned": (numbers("uint8", 1, 200), {"transform": (8.0, 6.0, 5e5, 6.0, -8.0, 4.2e6)}),
    "over the north pole": (
        numbers("uint8", 1, 200),
        {"crs": "EPSG:3413", "transform": (1000.0, 0.0, -41_000.0, 0.0, -1000.0, 33_000.0)},
    ),
    "over the south pole": (
        numbers("uint8", 1, 200),
        {"crs": "EPSG:3031", "transform": (1000.0, 0.0, -41_000.0, 0.0, -1000.0, 33_000.0)},
    ),
    "up to the pole, in degrees": (
        numbers("uint8", 1, 200),
        {"crs": "EPSG:4326", "transform": (0.05, 0.0, 10.0, 0.0, -0.05, 90.0)},
    ),
    "over the antimeridian, in degrees": (
        numbers("uint8", 1, 200),
        {"crs": "EPSG:4326", "transform": (0.01, 0.0, 179.6, 0.0, -0.01, -16.0)},
    ),
    "over the antimeridian, from the west": (
        numbers("uint8", 1, 200),
        {"crs": "EPSG:4326", "transform": (0.01, 0.0, -180.3, 0.0, -0.01, -16.0)},
    ),
    "the whole globe, from Greenwich": (
        numbers("uint8", 1, 200),
        {"crs": "EPSG:4326", "transform": (4.0, 0.0, 0.0, 0.0, -2.5, 90.0)},
    ),
    "over the antimeridian, in UTM": (
        numbers("uint8", 1, 200),
        {"crs": "EPSG:32760", "transform": (500.0, 0.0, 800_000.0, 0.0, -500.0, 8.2e6)},
    ),
}


def under(tile: Tile, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What lies under the centres of a tile's pixels: values, valid, and where that is sure."""
    array = tile.read()
    _, height, width = array.data.shape
    rows, columns = np.indices((height, width))
    a, b, c, d, e, f = array.transform[:6]
    x = a * (columns + 0.5) + b * (rows + 0.5) + c
    y = d * (columns + 0.5) + e * (rows + 0.5) + f
    with rasterio.open(path) as source:
        data = source.read(1)
        x, y = Transformer.from_crs(array.crs, source.crs, always_xy=True).transform(x, y)
        if source.crs.is_geographic:  # the raster's own turn around the globe
            x = source.bounds.left + (x - source.bounds.left) % 360.0
        a, b, c, d, e, f = (~source.transform)[:6]
        column, row = a * x + b * y + c, d * x + e * y + f
        nodata = source.nodata
    at_row, at_column = np.floor(row).astype(int), np.floor(column).astype(int)
    inside = (at_row >= 0) & (at_row < data.shape[0])
    inside &= (at_column >= 0) & (at_column < data.shape[1])
    values = data[np.where(inside, at_row, 0), np.where(inside, at_column, 0)]
    valid = inside & ~np.isnan(values) if values.dtype.kind == "f" else inside
    if nodata is not None:
        valid = valid & (values != nodata)
    distance = np.minimum(np.abs(column - np.round(column)), np.abs(row - np.round(row)))
    return values, valid, distance > EDGE_PX


def cells_over(path: Path, length: int) -> set[str]:
    """The geohashes that the centres of the raster's valid pixels lie in."""
    with rasterio.open(path) as source:
        data = source.read(1)
        valid = ~np.isnan(data) if data.dtype.kind == "f" else np.ones(data.shape, bool)
        if source.nodata is not None:
            valid &= data != source.nodata
        rows, columns = np.nonzero(valid)
        a, b, c, d, e, f = source.transform[:6]
        x = a * (columns + 0.5) + b * (rows + 0.5) + c
        y = d * (columns + 0.5) + e * (rows + 0.5) + f
        lon, lat = Transformer.from_crs(source.crs, "EPSG:4326", always_xy=True).transform(x, y)
    lon = (np.asarray(lon) + 180.0) % 360.0 - 180.0
    return {geohash.encode(y, x, length) for x, y in zip(lon, lat, strict=True)}


@pytest.mark.parametrize(("data", "keywords"), SOURCES.values(), ids=SOURCES)
def test_every_pixel_is_stored_and_found(
    stocked: StockedStore,
    make_raster: Callable[..., Path],
    data: np.ndarray,
    keywords: dict[str, Any],
) -> None:
    path = make_raster("odd.tif", data, **keywords)
    ran = stocked.run("ingest", path, "--dataset", "odd")
    (line,) = ran.lines
    assert (line["status"], line["missing"], line["error"]) == ("ingested", [], None)
    assert ran.stderr.count("\n") == 1
    (definition,) = stocked.run("dataset", "show", "odd").lines
    with geostore.open(stocked.path, mode="r") as store:
        tiles = list(store.query(dataset="odd"))
        assert len(tiles) == line["tiles"]
        assert {tile.geocode for tile in tiles} >= cells_over(path, definition["length"])
        for tile in tiles:
            array = tile.read()
            assert array.data.dtype == data.dtype
            values, valid, sure = under(tile, path)
            np.testing.assert_array_equal(array.mask[0][sure], valid[sure])
            both = sure & valid
            np.testing.assert_array_equal(array.data[0][both], values[both])
            assert array.mask.any(), "a tile without a valid pixel"
    stocked.check_unharmed(others=1)


def scenes(stocked: StockedStore, *arguments: object) -> int:
    return int(stocked.run("query", "--dataset", "odd", "--count", *arguments).stdout)


def test_over_the_pole_the_whole_circle_is_found(
    stocked: StockedStore, make_raster: Callable[..., Path]
) -> None:
    data, keywords = SOURCES["over the north pole"]
    path = make_raster("odd.tif", data, **keywords)
    tiles = stocked.run("ingest", path, "--dataset", "odd").lines[0]["tiles"]
    for west in (-180, -90, 0, 90):
        assert scenes(stocked, "--bbox", f"{west},89.9,{west + 90},90") == tiles / 4
    assert scenes(stocked, "--bbox", "-180,89.9,180,90") == tiles
    assert scenes(stocked, "--bbox", "-180,-90,180,80") == 0


@pytest.mark.parametrize(
    "name",
    ["over the antimeridian, in degrees", "over the antimeridian, in UTM"],
)
def test_over_the_antimeridian_both_sides_are_found(
    stocked: StockedStore, make_raster: Callable[..., Path], name: str
) -> None:
    data, keywords = SOURCES[name]
    path = make_raster("odd.tif", data, **keywords)
    tiles = stocked.run("ingest", path, "--dataset", "odd").lines[0]["tiles"]
    west, east = (scenes(stocked, "--bbox", box) for box in ("170,-30,180,0", "-180,-30,-170,0"))
    assert west > 0
    assert east > 0
    assert west + east == tiles == scenes(stocked, "--bbox", "170,-30,-170,0")
    assert scenes(stocked, "--bbox", "-170,-30,170,0") == 0


def test_a_scene_may_use_quadtiles_up_to_their_end(
    stocked: StockedStore, make_raster: Callable[..., Path]
) -> None:
    path = make_raster(
        "odd.tif", numbers("uint8", 1, 200),
        crs="EPSG:4326", transform=(0.01, 0.0, 10.0, 0.0, -0.01, 85.05),
    )  # fmt: skip
    (line,) = stocked.run("ingest", path, "--dataset", "odd", "--scheme", "quadtile").lines
    assert line["tiles"] == scenes(stocked) > 0
    stocked.check_unharmed(others=1)


def test_names_of_files_that_are_odd(
    stocked: StockedStore, make_raster: Callable[..., Path], tmp_path: Path
) -> None:
    """Spaces, quotes, other scripts and 255 bytes are names; what the scene is called is plain."""
    names = ["a b'c\"d.tif", "Größe 雪.tif", "-x.tif", "n" * 251 + ".tif", "%2e%2e.tif"]
    paths = [
        make_raster(f"folder/{name}", numbers("uint8", 1, 200) + index)
        for index, name in enumerate(names)
    ]
    assert all(path.exists() for path in paths)
    found = stocked.run("ingest", tmp_path / "folder").lines
    assert [line["status"] for line in found] == ["ingested"] * len(names)
    for line in found:
        assert line["scene"].isascii()
        assert len(line["scene"]) <= 210
        assert not set(line["scene"]) & set("/\\ '\"%")
        assert stocked.run("query", "--scene", line["scene"], "--count").stdout != "0\n"
    stocked.check_unharmed(others=len(names))


def test_names_of_files_that_are_no_text_are_refused(
    stocked: StockedStore, make_raster: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_raster("folder/x.tif", numbers("uint8", 1, 200))
    path.rename(path.with_name(os.fsdecode(b"x\xff\xfe.tif")))
    ran = stocked.process("ingest", tmp_path / "folder")
    check_one_error(ran, 1, (r"x\udcff\udcfe.tif", "expected a path in UTF-8"))
    assert ran.lines[0]["path"].encode(errors="surrogateescape").endswith(b"/x\xff\xfe.tif")
    stocked.check_unharmed()


def test_names_of_files_with_control_characters_are_refused_and_the_rest_is_stored(
    stocked: StockedStore, make_raster: Callable[..., Path], tmp_path: Path
) -> None:
    make_raster("folder/a\x1b[2J\n.tif", numbers("uint8", 1, 200))
    make_raster("folder/b.tif", numbers("uint8", 1, 200))
    ran = stocked.run("ingest", tmp_path / "folder", code=1)
    assert sorted(line["status"] for line in ran.lines) == ["failed", "ingested"]
    error, *_ = ran.stderr.splitlines()
    assert error.isprintable()
    assert r"a\x1b[2J\n.tif" in error
    assert "without control characters" in error
    stocked.check_unharmed(others=1)
