"""Stock tools open a tile file without geostore: unzip, GDAL, zarr-python, xarray."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geostore.grid import cell_window
from geostore.tiles import TilePixels, encode_tile, make_schema
from geostore.types import BandInfo, BandStatistics, ResolutionGroup, TileKey, TileMeta

DTYPES = (
    *("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float32", "float64"),
)
FINE = ResolutionGroup(10.0, 600, 544)
COARSE = ResolutionGroup(20.0, 300, 272)
GEOCODES = {"geohash": "9q8yy", "quadtile": "0230102033330"}


def make_pixels() -> TilePixels:
    random = np.random.default_rng(5)
    data = []
    for dtype in DTYPES:
        limits = np.iinfo(dtype) if dtype[0] in "iu" else np.finfo(dtype)
        band = random.integers(1, 100, (FINE.height, FINE.width)).astype(dtype)
        band[0, :3] = limits.min, limits.max, 0
        band[320:, :] = 0  # whole blocks of nothing
        data.append(band)
    holes = random.random((FINE.height, FINE.width)) > 0.3
    coarse = random.normal(size=(COARSE.height, COARSE.width)).astype(np.float32)
    coarse[:100] = math.nan
    masks = [[holes] * (len(DTYPES) - 1) + [True], [~np.isnan(coarse)]]
    return TilePixels([data, [coarse]], masks)


@pytest.fixture(
    scope="module",
    params=[("geohash", "fast"), ("quadtile", "small")],
    ids="-".join,
)
def tile_file(request, tmp_path_factory) -> tuple[Path, TilePixels, str]:
    scheme, codec = request.param
    bands = [
        # no nodata value: the zeros were measured
        BandInfo(name=f"b_{dtype}", dtype=dtype, nodata=None if dtype == "uint16" else 0)
        for dtype in DTYPES
    ]
    temperature = BandInfo(
        name="surface/temperature", dtype="float32", nodata=math.nan, unit="K", scale=0.5
    )
    groups = [(FINE, bands), (COARSE, [temperature])]
    schema = make_schema(scheme, len(GEOCODES[scheme]), codec, groups)
    none = BandStatistics(minimum=None, maximum=None, mean=None, p01=None, p99=None)
    meta = TileMeta(
        key=TileKey("id", "scene", "version", GEOCODES[scheme]),
        dataset="d",
        definition={},
        schema=schema,
        time_us=None,
        time_end_us=None,
        platform=None,
        pixel_coverage=70.0,
        cloud_cover=None,
        cloud_method=None,
        cloud_histogram=None,
        statistics=(none,) * (len(bands) + 1),
    )
    pixels = make_pixels()
    path = tmp_path_factory.mktemp("stock") / "tile.zarr.zip"
    path.write_bytes(encode_tile(meta, pixels).payload)
    return path, pixels, scheme


def test_unzip(tile_file: tuple[Path, TilePixels, str]) -> None:
    path, _, _ = tile_file
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"geostore-tile/0001 ")
        names = archive.namelist()
        assert len(set(names)) == len(names)
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        meta = json.loads(archive.read(".zattrs"))["geostore"]["meta"]
    assert meta["key"]["scene"] == "scene"


def test_gdal(tile_file: tuple[Path, TilePixels, str]) -> None:
    path, pixels, scheme = tile_file
    crs = "EPSG:4326" if scheme == "geohash" else "EPSG:3857"
    arrays = [(f"r10m/b_{dtype}", FINE, pixels.data[0][i]) for i, dtype in enumerate(DTYPES)]
    arrays.append(("r20m/band-1", COARSE, pixels.data[1][0]))
    arrays.append(("r10m/masks/b_int8", FINE, pixels.masks[0][0]))
    arrays.append(("r20m/masks/band-1", COARSE, pixels.masks[1][0]))
    for name, group, expected in arrays:
        window = cell_window(scheme, GEOCODES[scheme], group)
        with rasterio.open(f'ZARR:"/vsizip/{path}":/{name}') as dataset:
            assert np.array_equal(dataset.read(1), expected, equal_nan=expected.dtype.kind == "f")
            assert dataset.crs == crs
            step = window.transform[0]
            assert np.allclose(dataset.transform[:6], window.transform, rtol=0, atol=1e-6 * step)
            if "masks" not in name:
                assert dataset.dtypes[0] == expected.dtype
                assert dataset.tags()["role"] == "data"
    with rasterio.open(f'ZARR:"/vsizip/{path}":/r20m/band-1') as dataset:
        assert math.isnan(dataset.nodata)
        assert dataset.tags()["band"] == "surface/temperature"
        assert dataset.tags()["valid"] == "masks/band-1"
    with rasterio.open(f'ZARR:"/vsizip/{path}":/r10m/b_uint16') as dataset:
        assert dataset.nodata is None
    with rasterio.open(f'ZARR:"/vsizip/{path}":/r10m/b_float64') as dataset:
        assert dataset.tags()["valid"] == "all"


def test_zarr_python(tile_file: tuple[Path, TilePixels, str]) -> None:
    zarr = pytest.importorskip("zarr", reason="zarr is an optional extra")
    path, pixels, scheme = tile_file
    with zarr.storage.ZipStore(path, mode="r") as store:
        root = zarr.open_group(store, mode="r")
        assert root.attrs["geostore"]["version"] == 1
        members = dict(root.members(max_depth=None))  # a stray file would warn, and so fail
        assert {"blocks", "r10m/x", "r10m/masks/b_int8", "r20m/band-1"} <= set(members)
        assert sum(name.startswith("r10m/masks/") for name in members) == 1  # shared by nine
        for index, dtype in enumerate(DTYPES):
            array = root[f"r10m/b_{dtype}"]
            assert array.dtype == dtype
            assert (array[:] == pixels.data[0][index]).all()
        assert np.array_equal(root["r20m/band-1"][:], pixels.data[1][0], equal_nan=True)
        assert (root["r10m/masks/b_int8"][:] == pixels.masks[0][0]).all()
        window = cell_window(scheme, GEOCODES[scheme], FINE)
        step_x, _, left, _, step_y, top = window.transform
        assert np.allclose(root["r10m/x"][:], left + step_x * (np.arange(544) + 0.5), rtol=1e-15)
        assert np.allclose(root["r10m/y"][:], top + step_y * (np.arange(600) + 0.5), rtol=1e-15)


def test_xarray(tile_file: tuple[Path, TilePixels, str]) -> None:
    xarray = pytest.importorskip("xarray", reason="xarray is an optional extra")
    zarr = pytest.importorskip("zarr", reason="zarr is an optional extra")
    path, pixels, _ = tile_file
    with (
        zarr.storage.ZipStore(path, mode="r") as store,
        xarray.open_zarr(store, group="r10m", consolidated=False, chunks=None) as dataset,
    ):
        assert dataset["b_uint16"].dims == ("y", "x")
        assert dataset["b_uint16"].dtype == np.uint16  # no nodata: nothing masked, no float
        assert (dataset["b_uint16"].values == pixels.data[0][3]).all()
        zeros = np.isnan(dataset["b_int16"].values)
        assert (zeros == (pixels.data[0][2] == 0)).all()
