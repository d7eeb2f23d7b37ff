from __future__ import annotations

import math

import numpy as np
import pytest

from geostore.errors import InvalidInputError
from geostore.tiles import block_shape, fill_value, make_schema
from geostore.tiles.hierarchy import array_names, zarr_fill_value
from geostore.tiles.layout import block_windows
from geostore.types import BandInfo, ResolutionGroup, TileSchema

TEN = ResolutionGroup(10.0, 96, 64)
TWENTY = ResolutionGroup(20.0, 48, 32)


@pytest.mark.parametrize(
    ("size", "block"),
    [(1, 1), (17, 17), (128, 128), (512, 512), (513, 288), (1024, 512), (1312, 448), (4096, 512)],
)
def test_blocks_are_even_and_at_most_512(size: int, block: int) -> None:
    assert block_shape(size, 7) == (block, 7)
    assert block_shape(7, size) == (7, block)


def test_blocks_cover_every_pixel_once() -> None:
    schema = make_schema(
        "geohash",
        5,
        "fast",
        [(ResolutionGroup(1.0, 1312, 513), [BandInfo(name="a", dtype="uint8")])],
    )
    layout = schema.groups[0]
    seen = np.zeros((1312, 513), np.uint8)
    windows = block_windows(layout)
    for window in windows:
        seen[window] += 1
    assert (seen == 1).all()
    assert len(windows) == layout.blocks_per_band == 6


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (-1, 5)])
def test_an_empty_array_has_no_blocks(shape: tuple[int, int]) -> None:
    with pytest.raises(InvalidInputError, match="at least 1 x 1"):
        block_shape(*shape)


def test_groups_without_bands_are_left_out() -> None:
    schema = make_schema(
        "geohash", 5, "small", [(TEN, []), (TWENTY, [BandInfo(name="B05", dtype="uint16")])]
    )
    assert [group.name for group in schema.groups] == ["r20m"]
    assert schema.find_band("B05") == (0, 0)


def test_a_schema_needs_bands_of_different_names() -> None:
    band = BandInfo(name="B05", dtype="uint16")
    with pytest.raises(InvalidInputError, match="at least one"):
        make_schema("geohash", 5, "fast", [(TEN, [])])
    with pytest.raises(InvalidInputError, match=r"B05.*twice"):
        make_schema("geohash", 5, "fast", [(TEN, [band]), (TWENTY, [band])])


def test_a_schema_refuses_what_no_reader_could_hold() -> None:
    band = BandInfo(name="B05", dtype="uint16")
    with pytest.raises(InvalidInputError, match="--length"):
        make_schema("geohash", 1, "fast", [(ResolutionGroup(1.0, 1 << 15, 1 << 14), [band])])
    with pytest.raises(InvalidInputError, match="expected 'uint16'"):
        make_schema("geohash", 5, "fast", [(TEN, [BandInfo(name="a", dtype=">u2")])])


def test_a_schema_survives_json() -> None:
    schema = make_schema(
        "quadtile",
        13,
        "small",
        [
            (
                TEN,
                [
                    BandInfo(name="a", dtype="float32", nodata=math.inf, common_name="red"),
                    BandInfo(name="b", dtype="uint64", nodata=2**64 - 1, scale=0.1),
                ],
            ),
            (TWENTY, [BandInfo(name="c", dtype="uint8", class_names={"1": "water"})]),
        ],
    )
    again = TileSchema.from_json(schema.to_json())
    assert again == schema
    assert again.digest == schema.digest


@pytest.mark.parametrize(
    ("dtype", "nodata", "fill", "zarr"),
    [
        ("uint8", None, 0, None),  # no nodata: a Zarr reader must mask nothing
        ("uint8", 255, 255, 255),
        ("uint8", -9999, 0, None),  # declared, but no value of the dtype
        ("uint8", 3.5, 0, None),
        ("int16", -9999.0, -9999, -9999),
        ("uint16", math.nan, 0, None),
        ("uint64", 2**64 - 1, 2**64 - 1, 2**64 - 1),
        ("int64", -(2**63), -(2**63), -(2**63)),
        ("float32", math.inf, math.inf, "Infinity"),
        ("float32", -math.inf, -math.inf, "-Infinity"),
        ("float32", 1e300, 0.0, None),
        ("float32", 0.1, float(np.float32(0.1)), float(np.float32(0.1))),
        ("float64", -3.4e38, -3.4e38, -3.4e38),
    ],
)
def test_the_fill_value_is_one_of_the_dtype(dtype: str, nodata: float, fill: float, zarr: object):
    band = BandInfo(name="a", dtype=dtype, nodata=nodata)
    value = fill_value(band)
    assert value.dtype == dtype
    assert value.item() == fill
    assert zarr_fill_value(band) == zarr


def test_nan_nodata_fills_with_nan() -> None:
    band = BandInfo(name="a", dtype="float32", nodata=math.nan)
    assert np.isnan(fill_value(band))
    assert zarr_fill_value(band) == "NaN"


def test_array_names_are_plain_and_different() -> None:
    names = ["B04", "x", "masks", "a/b", "..", "", "é", "n" * 10_000, "band-2", "Band 1", ".z"]
    arrays = array_names([BandInfo(name=name, dtype="uint8") for name in names])
    assert arrays[0] == "B04"
    assert arrays[names.index("band-2")] == "band-2"
    assert len(set(arrays)) == len(names)
    assert not {"x", "y", "masks", "..", ""} & set(arrays)
    assert all(name.isascii() and "/" not in name and len(name) <= 100 for name in arrays)
