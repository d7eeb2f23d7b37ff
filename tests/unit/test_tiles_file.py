from __future__ import annotations

import json
import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

from geostore.errors import (
    CorruptDataError,
    InvalidInputError,
    NotFoundError,
    StoreFormatError,
)
from geostore.tiles import TileFile, TilePixels, decode_into, encode_tile, make_schema
from geostore.tiles.trailer import TRAILER_BYTES
from geostore.types import (
    BandInfo,
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


def make_meta(schema: TileSchema) -> TileMeta:
    empty = BandStatistics(minimum=None, maximum=None, mean=math.nan, p01=None, p99=math.inf)
    return TileMeta(
        key=TileKey("dataset", "scene/é", "version", "9q8yy"),
        dataset="s2",
        definition={"groups": [], "name": "s2"},
        schema=schema,
        time_us=1_452_614_802_000_000,
        time_end_us=None,
        platform="sentinel-2a",
        pixel_coverage=float(np.float32(88.1)),
        cloud_cover=None,
        cloud_method=None,
        cloud_histogram=tuple(range(101)),
        statistics=(empty,) * len(schema.bands),
        properties={"baseline": "02.01", "angle": -math.inf, "list": [1, 2]},
    )


def smooth(height: int, width: int, dtype: str, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    steps = random.integers(-2, 3, (height, width)).cumsum(axis=0).cumsum(axis=1)
    return (1 + np.abs(steps) % 100).astype(dtype)


def make_tile(
    codec: str = "fast", *, height: int = 600, width: int = 96
) -> tuple[EncodedTile, TilePixels]:
    """Two groups; blocks at the edge, masks shared, uniform and mixed, and empty bands."""
    fine = [
        BandInfo(name="B02", dtype="uint16", nodata=0, common_name="blue"),
        BandInfo(name="B03", dtype="uint16", nodata=0),
        BandInfo(name="B04", dtype="uint16", nodata=0),
        BandInfo(name="empty", dtype="uint16", nodata=0),
    ]
    coarse = [
        BandInfo(name="SCL", dtype="uint8"),
        BandInfo(name="a/b", dtype="float32", nodata=math.nan, scale=0.5, unit="K"),
    ]
    groups = [
        (ResolutionGroup(10.0, height, width), fine),
        (ResolutionGroup(20.0, height // 2, width // 2), coarse),
    ]
    schema = make_schema("geohash", 5, codec, groups)
    data = [
        [smooth(g.height, g.width, b.dtype, seed) for seed, b in enumerate(g.bands)]
        for g in schema.groups
    ]
    data[0][3][:] = 0
    data[1][0][:] = 0
    data[1][1][:20] = math.nan
    mask = np.zeros((height, width), bool)
    mask[:100, 5:] = True
    other = np.random.default_rng(9).random((height // 2, width // 2)) > 0.5
    pixels = TilePixels(data, [[mask, mask.copy(), ~mask, False], [True, other]])
    return encode_tile(make_meta(schema), pixels), pixels


def write(path: Path, payload: bytes) -> Path:
    path.write_bytes(payload)
    return path


def check_same(file: TileFile, pixels: TilePixels) -> None:
    for group_index, layout in enumerate(file.meta.schema.groups):
        for band_index, _ in enumerate(layout.bands):
            data = file.read_band(group_index, band_index)
            expected = pixels.data[group_index][band_index]
            assert data.dtype == expected.dtype
            assert data.tobytes() == np.ascontiguousarray(expected).tobytes()
            mask = file.read_band(group_index, band_index, mask=True)
            assert (mask == pixels.masks[group_index][band_index]).all()


@pytest.mark.parametrize("codec", ["fast", "small"])
def test_a_tile_comes_back_from_its_file(tmp_path: Path, codec: str) -> None:
    tile, pixels = make_tile(codec)
    with TileFile.open(write(tmp_path / "t.zarr.zip", tile.payload)) as file:
        file.verify()
        assert file.checksum() == tile.checksum == xxhash.xxh3_128_hexdigest(tile.payload)
        assert (file.blocks == tile.blocks).all()
        assert file.meta.schema.digest == tile.meta.schema.digest
        changes: dict[str, Any] = {"schema": tile.meta.schema, "properties": {}}
        # By text, since NaN, a band's nodata here, is not equal to itself.
        assert str(replace(file.meta, **changes)) == str(replace(tile.meta, **changes))
        assert file.meta.properties == {"baseline": "02.01", "angle": "-inf", "list": [1, 2]}
        check_same(file, pixels)
        file.close()


@pytest.mark.parametrize("codec", ["fast", "small"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_comes_back(tmp_path: Path, codec: str, dtype: str) -> None:
    limits = np.iinfo(dtype) if dtype[0] in "iu" else np.finfo(dtype)
    band = BandInfo(name="b", dtype=dtype, nodata=int(limits.min) if dtype[0] == "i" else None)
    schema = make_schema("geohash", 5, codec, [(ResolutionGroup(1.0, 70, 530), [band])])
    data = smooth(70, 530, dtype, 3)
    data[0, :4] = limits.min, limits.max, 0, limits.max
    if dtype[0] == "f":
        data[1, :4] = math.nan, math.inf, -math.inf, -0.0
    pixels = TilePixels([[data]], [[True]])
    tile = encode_tile(make_meta(schema), pixels)
    with TileFile.open(write(tmp_path / "t.zarr.zip", tile.payload)) as file:
        check_same(file, pixels)


def test_the_same_input_gives_the_same_bytes() -> None:
    assert make_tile()[0].payload == make_tile()[0].payload
    assert make_tile("small")[0].payload == make_tile("small")[0].payload
    strided = make_tile()
    data = [[np.asfortranarray(band) for band in group] for group in strided[1].data]
    again = encode_tile(strided[0].meta, TilePixels(data, strided[1].masks))
    assert again.payload == strided[0].payload


def test_uniform_blocks_are_not_stored() -> None:
    tile, _ = make_tile()
    schema = tile.meta.schema
    rows = schema.block_range(0, 3)
    assert (tile.blocks["length"][rows.start : rows.stop] == 0).all()
    assert (tile.blocks["length"][list(schema.block_range(1, 0))] == 0).all()  # SCL of zeros
    assert list(tile.blocks["fill"][list(schema.block_range(0, 3, mask=True))]) == [0, 0]
    assert list(tile.blocks["fill"][list(schema.block_range(1, 0, mask=True))]) == [1]
    mixed = tile.blocks[list(schema.block_range(0, 0, mask=True))]
    assert mixed["length"][0] > 0
    assert (mixed["length"][1], mixed["fill"][1]) == (0, 0)  # rows 320 to 600: nothing valid
    inverse = tile.blocks[list(schema.block_range(0, 2, mask=True))]
    assert (inverse["length"][1], inverse["fill"][1]) == (0, 1)


def test_equal_masks_are_stored_once() -> None:
    tile, _ = make_tile()
    schema = tile.meta.schema
    first, second, third = (
        tile.blocks[list(schema.block_range(0, band, mask=True))] for band in range(3)
    )
    assert (first == second).all()
    assert first["offset"][0] != third["offset"][0]


def test_minus_zero_is_not_taken_for_zero(tmp_path: Path) -> None:
    band = BandInfo(name="b", dtype="float32", nodata=0.0)
    schema = make_schema("geohash", 5, "fast", [(ResolutionGroup(1.0, 8, 8), [band])])
    pixels = TilePixels([[np.full((8, 8), -0.0, np.float32)]], [[True]])
    tile = encode_tile(make_meta(schema), pixels)
    with TileFile.open(write(tmp_path / "t", tile.payload)) as file:
        check_same(file, pixels)


def test_blocks_of_a_group_lie_next_to_each_other() -> None:
    """One `pread` serves a run: only zip headers lie between."""
    tile, _ = make_tile()
    rows = [row for band in range(3) for row in tile.meta.schema.block_range(0, band)]
    blocks = tile.blocks[rows]
    ends = blocks["offset"] + blocks["length"]
    gaps = blocks["offset"][1:] - ends[:-1]
    assert (gaps < 100).all()
    assert (np.diff(blocks["offset"].astype(np.int64)) > 0).all()


def read_blocks(tile: EncodedTile, rows: range) -> list[memoryview | None]:
    view = memoryview(tile.payload)
    return [
        view[int(row["offset"]) : int(row["offset"]) + int(row["length"])]
        if row["length"]
        else None
        for row in tile.blocks[rows.start : rows.stop]
    ]


@pytest.mark.parametrize("codec", ["fast", "small"])
@pytest.mark.parametrize("width", [96, 512, 700])
def test_decoding_into_strided_arrays(codec: str, width: int) -> None:
    tile, pixels = make_tile(codec, width=width)
    rows = tile.meta.schema.block_range(0, 1)
    blocks, table = read_blocks(tile, rows), tile.blocks[rows.start : rows.stop]
    cube = np.full((3, 600, width), 7, np.uint16)
    wide = np.full((602, width + 10), 7, np.uint16)
    for out in (cube[1], wide[1:-1, 4:-6], np.empty((width, 600), np.uint16).T):
        decode_into(tile.meta.schema, 0, 1, blocks, table, out)
        assert (out == pixels.data[0][1]).all()
    assert (cube[[0, 2]] == 7).all()
    wide[1:-1, 4:-6] = 7
    assert (wide == 7).all()


def test_decoding_refuses_what_does_not_fit() -> None:
    tile, _ = make_tile()
    schema = tile.meta.schema
    rows = schema.block_range(0, 0)
    blocks, table = read_blocks(tile, rows), tile.blocks[rows.start : rows.stop]
    out = np.zeros((600, 96), np.uint16)
    with pytest.raises(InvalidInputError, match="r10m/B02: out is"):
        decode_into(schema, 0, 0, blocks, table, out[:5])
    with pytest.raises(InvalidInputError, match="uint8"):
        decode_into(schema, 0, 0, blocks, table, out.astype(np.uint8))
    with pytest.raises(InvalidInputError, match="1 blocks and 2 table rows"):
        decode_into(schema, 0, 0, blocks[:1], table, out)


def test_a_damaged_block_is_never_decoded() -> None:
    tile, _ = make_tile()
    schema = tile.meta.schema
    rows = schema.block_range(0, 0)
    blocks, table = read_blocks(tile, rows), tile.blocks[rows.start : rows.stop]
    out = np.zeros((600, 96), np.uint16)
    damaged = bytearray(blocks[1] or b"")
    damaged[40] ^= 1
    with pytest.raises(CorruptDataError, match=r"f\.zip: r10m/B02 block 1: .*checksum"):
        decode_into(schema, 0, 0, [blocks[0], damaged], table, out, source="f.zip")
    with pytest.raises(CorruptDataError, match="block 1: got nothing"):
        decode_into(schema, 0, 0, [blocks[0], None], table, out)
    with pytest.raises(CorruptDataError, match="block 0: got 5 bytes"):
        decode_into(schema, 0, 0, [b"12345", blocks[1]], table, out)
    # A block of another band is whole in itself; only the table can tell.
    other = read_blocks(tile, schema.block_range(0, 1))
    with pytest.raises(CorruptDataError):
        decode_into(schema, 0, 0, other, table, out)


def test_a_mask_of_other_bytes_than_0_and_1_is_refused() -> None:
    tile, _ = make_tile()
    schema = tile.meta.schema
    rows = schema.block_range(1, 1, mask=True)
    from geostore.tiles.codec import encode_block, settings_for

    forged = encode_block(np.full((300, 48), 2, np.uint8), settings_for("fast", 1))
    table = tile.blocks[rows.start : rows.stop].copy()
    table["length"] = len(forged)
    table["checksum"] = xxhash.xxh3_64_intdigest(forged)
    with pytest.raises(CorruptDataError, match="more than 0 and 1"):
        decode_into(schema, 1, 1, [forged], table, np.zeros((300, 48), bool), mask=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.data[0].pop(), "data for"),
        (lambda p: p.masks[1].pop(), "masks for"),
        (lambda p: p.data[0].__setitem__(0, p.data[0][0][:5]), "B02: pixels are"),
        (lambda p: p.data[0].__setitem__(0, p.data[0][0].astype("i4")), "B02: pixels are"),
        (lambda p: p.data[0].__setitem__(0, p.data[0][0].astype(">u2")), "B02: pixels are"),
        (lambda p: p.masks[0].__setitem__(0, p.masks[0][0][:5]), "B02: mask is"),
        (lambda p: p.masks[0].__setitem__(0, p.masks[0][0].astype("u1")), "B02: mask is"),
    ],
)
def test_pixels_must_fit_the_schema(change: Any, message: str) -> None:
    tile, pixels = make_tile()
    change(pixels)
    with pytest.raises(InvalidInputError, match=message):
        encode_tile(tile.meta, pixels)


def test_metadata_must_be_json() -> None:
    tile, pixels = make_tile()
    with pytest.raises(InvalidInputError, match="not JSON"):
        encode_tile(replace(tile.meta, properties={"a": object()}), pixels)


def open_and_read(path: Path) -> None:
    with TileFile.open(path) as file:
        file.verify()


@pytest.mark.parametrize("codec", ["fast", "small"])
def test_any_flipped_byte_is_told(tmp_path: Path, codec: str) -> None:
    tile, _ = make_tile(codec, height=64, width=32)
    random = np.random.default_rng(2)
    path = tmp_path / "t.zarr.zip"
    positions = {*range(40), *range(len(tile.payload) - 300, len(tile.payload))}
    positions |= set(random.integers(0, len(tile.payload), 500).tolist())
    for position in sorted(positions):
        damaged = bytearray(tile.payload)
        damaged[position] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(CorruptDataError, match=r"t\.zarr\.zip"):
            open_and_read(path)


def test_any_truncation_is_told(tmp_path: Path) -> None:
    tile, _ = make_tile(height=64, width=32)
    path = tmp_path / "t.zarr.zip"
    size = len(tile.payload)
    random = np.random.default_rng(3)
    for length in {0, 1, 30, size - TRAILER_BYTES, size - 1, *random.integers(0, size, 200)}:
        path.write_bytes(tile.payload[: int(length)])
        with pytest.raises(CorruptDataError, match=r"t\.zarr\.zip"):
            TileFile.open(path)


def test_a_lost_page_is_told_by_band(tmp_path: Path) -> None:
    """A file whose middle was never written (a crash without fsync) has its full length."""
    tile, _ = make_tile()
    row = tile.blocks[tile.meta.schema.block_range(0, 2)[1]]
    offset, length = int(row["offset"]), int(row["length"])
    damaged = bytearray(tile.payload)
    damaged[offset : offset + length] = bytes(length)
    with TileFile.open(write(tmp_path / "t", bytes(damaged))) as file:
        with pytest.raises(CorruptDataError, match="r10m/B04 block 1"):
            file.verify()
        with pytest.raises(CorruptDataError, match="r10m/B04 block 1"):
            file.read_band(0, 2)
        assert file.read_band(0, 1).any()


def test_what_is_no_tile_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nothing"):
        TileFile.open(tmp_path / "nothing")
    with pytest.raises(CorruptDataError, match="regular file"):
        TileFile.open(tmp_path)
    with pytest.raises(CorruptDataError, match="no tile file"):
        TileFile.open(write(tmp_path / "text", b"geostore-tile/" * 100))


def forge(tile: EncodedTile, old: bytes, new: bytes) -> bytes:
    """The tile with `old` replaced in its metadata and every checksum made right again."""
    assert len(old) == len(new)
    assert old in tile.payload
    payload = tile.payload.replace(old, new)
    trailer = payload[-TRAILER_BYTES:].decode()
    head_bytes = int(trailer.split(" head=")[1][:8], 16)
    head_sum = xxhash.xxh3_64_hexdigest(payload[:head_bytes])
    body_sum = xxhash.xxh3_128_hexdigest(payload[:-TRAILER_BYTES])
    text = trailer.split(" head=")[0] + f" head={head_bytes:08x}:{head_sum} body={body_sum}"
    end = xxhash.xxh3_64_hexdigest(text.encode())
    return payload[:-TRAILER_BYTES] + f"{text} end={end}\n".encode()


def test_forging_works(tmp_path: Path) -> None:
    tile, _ = make_tile()
    forged = forge(tile, b'"platform":"sentinel-2a"', b'"platform":"sentinel-2b"')
    with TileFile.open(write(tmp_path / "t", forged)) as file:
        file.verify()
        assert file.meta.platform == "sentinel-2b"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"height":600', b'"height":6e9'),
        (b'"height":600', b'"height":999'),
        (b'"block_height":320', b'"block_height":000'),
        (b'"block_height":320', b'"block_height":999'),
        (b'"block_height":320', b'"block_height":-10'),
        (b'"block_width":96', b'"block_width":"a'),
        (b'"name":"B02"', b'"name":["a"]'),
        (b'"dtype":"uint16"', b'"dtype":"object"'),
        (b'"dtype":"uint16"', b'"dtype":">uint8"'),
        (b'"codec":"fast"', b'"codec":"slow"'),
        (b'"scheme":"geohash"', b'"scheme":"geohush"'),
        (b'"dataset":"s2"', b'"dataset":9999'),
        (b'"statistics":[', b'"statistic_":['),
        (b'"key":{', b'"kex":{'),
        (b'{"geostore":{', b'{"geostone":{'),
        (b'{"geostore":{', b"[[[[[[[[[[[[["),
    ],
)
def test_hostile_metadata_is_refused(tmp_path: Path, old: bytes, new: bytes) -> None:
    tile, _ = make_tile()
    with pytest.raises(CorruptDataError, match="hostile"):
        TileFile.open(write(tmp_path / "hostile", forge(tile, old, new)))


@pytest.mark.parametrize(
    ("field", "value"), [("offset", 0), ("offset", 2**63), ("length", 2**32 - 1)]
)
def test_a_block_table_must_stay_inside_the_file(tmp_path: Path, field: str, value: int) -> None:
    tile, _ = make_tile()
    table = tile.blocks.copy()
    table[0][field] = value
    forged = forge(tile, tile.blocks.tobytes(), table.tobytes())
    with pytest.raises(CorruptDataError, match="outside"):
        TileFile.open(write(tmp_path / "hostile", forged))


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    """A block that declares 4 GiB, with a right checksum, allocates nothing."""
    tile, _ = make_tile()
    row = tile.blocks[0]
    offset, length = int(row["offset"]), int(row["length"])
    block = bytearray(tile.payload[offset : offset + length])
    struct.pack_into("<I", block, 4, 0xFFFFFFF0)
    table = tile.blocks.copy()
    table[0]["checksum"] = xxhash.xxh3_64_intdigest(block)
    bomb = replace(
        tile, payload=tile.payload.replace(tile.payload[offset : offset + length], block)
    )
    forged = forge(bomb, tile.blocks.tobytes(), table.tobytes())
    with (
        TileFile.open(write(tmp_path / "bomb", forged)) as file,
        pytest.raises(CorruptDataError, match="bomb: r10m/B02 block 0"),
    ):
        file.read_band(0, 0)


def test_a_newer_format_is_told_from_damage(tmp_path: Path) -> None:
    tile, _ = make_tile()
    text = tile.payload[-TRAILER_BYTES:].decode().split(" end=")[0]
    newer = text.replace("geostore-tile/0001", "geostore-tile/0002") + " and=more"
    newer += f" end={xxhash.xxh3_64_hexdigest(newer.encode())}\n"
    path = write(tmp_path / "t", tile.payload[:-TRAILER_BYTES] + newer.encode())
    with pytest.raises(StoreFormatError, match=r"version 2.*newer"):
        TileFile.open(path)
    damaged = tile.payload.replace(b"geostore-tile/0001", b"geostore-tile/0002")
    with pytest.raises(CorruptDataError, match="trailer"):
        TileFile.open(write(tmp_path / "t", damaged))


def test_the_metadata_is_plain_json(tmp_path: Path) -> None:
    """Anyone can read what a tile says of itself, strictly."""
    tile, _ = make_tile()

    def refuse(name: str) -> None:
        raise ValueError(name)

    start = tile.payload.index(b'{"geostore":')
    value, _ = json.JSONDecoder(parse_constant=refuse).raw_decode(
        tile.payload[start:].decode("latin1")
    )
    assert value["geostore"]["version"] == 1
    assert value["geostore"]["meta"]["key"]["scene"] == "scene/é"
