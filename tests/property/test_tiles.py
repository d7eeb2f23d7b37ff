"""Whatever the tile: pixels and masks come back, and damage is told."""

from __future__ import annotations

import contextlib
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geostore.errors import CorruptDataError
from geostore.tiles import (
    TileFile,
    TilePixels,
    block_shape,
    decode_into,
    encode_tile,
    make_schema,
)
from geostore.tiles.layout import block_windows
from geostore.tiles.metadata import dump_json
from geostore.types import (
    BandInfo,
    BandRole,
    BandStatistics,
    EncodedTile,
    ResolutionGroup,
    TileKey,
    TileMeta,
    TileSchema,
)

DTYPES = (
    *("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float32", "float64"),
)
NAMES = st.text(min_size=1, max_size=8)
SIDES = st.one_of(st.integers(1, 40), st.sampled_from([512, 513, 545]))


@st.composite
def bands(draw: Any) -> list[BandInfo]:
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    return [
        BandInfo(
            name=name,
            common_name=draw(st.none() | NAMES),
            dtype=draw(st.sampled_from(DTYPES)),
            nodata=draw(
                st.none() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.just(math.nan)
            ),
            role=draw(st.sampled_from(list(BandRole))),
            scale=draw(st.floats(allow_nan=False, allow_infinity=False)),
        )
        for name in names
    ]


@st.composite
def schemas(draw: Any) -> TileSchema:
    ten = ResolutionGroup(10.0, draw(SIDES), draw(SIDES))
    twenty = ResolutionGroup(20.0, draw(SIDES), draw(SIDES))
    fine = draw(bands())
    coarse = [band for band in draw(bands()) if band.name not in {b.name for b in fine}]
    codec = draw(st.sampled_from(["fast", "small"]))
    return make_schema("geohash", 5, codec, [(ten, fine), (twenty, coarse)])


def pixels_of(draw: Any, schema: TileSchema) -> TilePixels:
    data: list[list[Any]] = []
    masks: list[list[Any]] = []
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    for layout in schema.groups:
        shape = (layout.height, layout.width)
        data.append([])
        masks.append([])
        shared = random.random(shape) > 0.5
        for band in layout.bands:
            small = draw(hnp.arrays(band.dtype, (3, 3)))  # every bit pattern, NaNs too
            full = small[random.integers(0, 3, shape), random.integers(0, 3, shape)]
            if draw(st.booleans()):
                full[:] = small[0, 0]
            data[-1].append(full)
            masks[-1].append(draw(st.sampled_from([True, False, shared, ~shared, shared.copy()])))
    return TilePixels(data, masks)


@st.composite
def tiles(draw: Any) -> tuple[EncodedTile, TilePixels]:
    schema = draw(schemas())
    pixels = pixels_of(draw, schema)
    numbers = st.none() | st.floats(allow_nan=False)
    statistics = tuple(
        BandStatistics(minimum=draw(numbers), maximum=None, mean=draw(numbers), p01=None, p99=None)
        for _ in schema.bands
    )
    meta = TileMeta(
        key=TileKey(*(draw(NAMES) for _ in range(3)), draw(st.sampled_from(["9q8yy", "s0000"]))),
        dataset=draw(NAMES),
        definition={},
        schema=schema,
        time_us=draw(st.none() | st.integers(-(2**62), 2**62)),
        time_end_us=None,
        platform=draw(st.none() | NAMES),
        pixel_coverage=draw(st.floats(0, 100, width=32)),
        cloud_cover=draw(st.none() | st.floats(0, 100, width=32)),
        cloud_method=None,
        cloud_histogram=None,
        statistics=statistics,
        properties=draw(st.dictionaries(NAMES, st.none() | st.booleans() | st.integers() | NAMES)),
    )
    return encode_tile(meta, pixels), pixels


def read_back(file: TileFile, pixels: TilePixels) -> None:
    for group_index, layout in enumerate(file.meta.schema.groups):
        for band_index in range(len(layout.bands)):
            data = file.read_band(group_index, band_index)
            assert data.tobytes() == pixels.data[group_index][band_index].tobytes()
            mask = file.read_band(group_index, band_index, mask=True)
            assert (mask == pixels.masks[group_index][band_index]).all()


@given(tiles())
@settings(max_examples=60)
def test_any_tile_comes_back_from_its_file(tile_and_pixels: tuple[EncodedTile, TilePixels]) -> None:
    tile, pixels = tile_and_pixels
    assert encode_tile(tile.meta, pixels).payload == tile.payload
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.zarr.zip"
        path.write_bytes(tile.payload)
        with TileFile.open(path) as file:
            file.verify()
            assert file.checksum() == tile.checksum
            assert (file.blocks == tile.blocks).all()
            assert file.meta.schema.digest == tile.meta.schema.digest
            assert file.meta.key == tile.meta.key
            assert file.meta.statistics == tile.meta.statistics
            assert file.meta.properties == tile.meta.properties
            assert file.meta.pixel_coverage == tile.meta.pixel_coverage
            read_back(file, pixels)


@given(tiles(), st.data())
@settings(max_examples=60)
def test_any_damage_is_told(
    tile_and_pixels: tuple[EncodedTile, TilePixels], data: st.DataObject
) -> None:
    tile, _ = tile_and_pixels
    payload = bytearray(tile.payload)
    size = len(payload)
    position = data.draw(st.integers(0, size - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "zero", "remove", "insert"]))
    if kind == "flip":
        payload[position] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del payload[position:]
    elif kind == "zero":
        stop = min(size, position + data.draw(st.integers(1, 4096)))
        payload[position:stop] = bytes(stop - position)
    elif kind == "remove":
        del payload[position]
    else:
        payload.insert(position, data.draw(st.integers(0, 255)))
    if bytes(payload) == tile.payload:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.zarr.zip"
        path.write_bytes(payload)
        with pytest.raises(CorruptDataError, match=r"t\.zarr\.zip"), TileFile.open(path) as file:
            file.verify()


@given(st.data(), st.sampled_from(["fast", "small"]), st.sampled_from(["uint8", "uint16"]))
@settings(max_examples=100)
def test_damaged_blocks_that_pass_unverified_never_crash(
    data: st.DataObject, codec: Any, dtype: str
) -> None:
    """Even without checksums the decoder stays inside `out`, whatever the bytes."""
    group = ResolutionGroup(1.0, 40, 40)
    schema = make_schema("geohash", 5, codec, [(group, [BandInfo(name="b", dtype=dtype)])])
    random = np.random.default_rng(1)
    pixels = TilePixels([[random.integers(1, 9, (40, 40)).astype(dtype)]], [[True]])
    none = BandStatistics(minimum=None, maximum=None, mean=None, p01=None, p99=None)
    meta = TileMeta(
        key=TileKey("d", "s", "v", "9q8yy"),
        dataset="d",
        definition={},
        schema=schema,
        time_us=None,
        time_end_us=None,
        platform=None,
        pixel_coverage=0.0,
        cloud_cover=None,
        cloud_method=None,
        cloud_histogram=None,
        statistics=(none,),
    )
    tile = encode_tile(meta, pixels)
    row = tile.blocks[0]
    block = bytearray(tile.payload[int(row["offset"]) :][: int(row["length"])])
    edits = st.tuples(st.integers(0, len(block) - 1), st.integers(0, 255))
    for position, value in data.draw(st.lists(edits, max_size=20)):
        block[position] = value
    guard = np.full((44, 40), 7, dtype)
    with contextlib.suppress(CorruptDataError):
        decode_into(schema, 0, 0, [block], tile.blocks[:1], guard[2:-2], verify=False)
    assert (guard[[0, 1, -2, -1]] == 7).all()


@given(schemas())
@settings(max_examples=50)
def test_a_schema_survives_json(schema: TileSchema) -> None:
    value = schema.to_json()
    again = TileSchema.from_json(value)
    assert again.digest == schema.digest
    assert dump_json(again.to_json()) == dump_json(value)


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_blocks_tile_the_array(height: int, width: int) -> None:
    block_height, block_width = block_shape(height, width)
    assert block_height <= min(height, 512)
    assert block_width <= min(width, 512)
    for size, block in ((height, block_height), (width, block_width)):
        assert block == size or block % 32 == 0
        assert math.ceil(size / block) == math.ceil(size / 512)


@given(st.integers(1, 2000), st.integers(1, 2000))
@settings(max_examples=30)
def test_every_pixel_lies_in_one_block(height: int, width: int) -> None:
    bands = [BandInfo(name="b", dtype="uint8")]
    schema = make_schema("geohash", 5, "fast", [(ResolutionGroup(1.0, height, width), bands)])
    layout = schema.groups[0]
    windows = block_windows(layout)
    assert len(windows) == layout.blocks_per_band
    sizes = [(r.stop - r.start) * (c.stop - c.start) for r, c in windows]
    assert sum(sizes) == height * width
    assert len({(r.start, c.start) for r, c in windows}) == len(windows)
