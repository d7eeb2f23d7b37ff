from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geostore.errors import InvalidInputError
from geostore.tiles import TilePixels, encode_tile, make_schema, parse_tile
from geostore.types import (
    BandInfo,
    BandStatistics,
    EncodedTile,
    ResolutionGroup,
    TileKey,
    TileMeta,
)

KEY = TileKey("dataset", "scene/é", "version", "9q8yy")


@cache
def make_tile() -> EncodedTile:
    band = BandInfo(name="B02", dtype="uint16", nodata=0)
    schema = make_schema("geohash", 5, "fast", [(ResolutionGroup(10.0, 96, 64), [band])])
    empty = BandStatistics(minimum=None, maximum=None, mean=None, p01=None, p99=None)
    meta = TileMeta(
        key=KEY,
        dataset="s2",
        definition={"name": "s2"},
        schema=schema,
        time_us=1,
        time_end_us=None,
        platform=None,
        pixel_coverage=50.0,
        cloud_cover=None,
        cloud_method=None,
        cloud_histogram=None,
        statistics=(empty,),
    )
    pixels = np.random.default_rng(1).integers(0, 9999, (96, 64), dtype=np.uint16)
    return encode_tile(meta, TilePixels([[pixels]], [[pixels > 99]]))


def test_a_tile_comes_back_from_its_bytes_alone() -> None:
    tile = make_tile()
    parsed = parse_tile(tile.payload, key=KEY, checksum=tile.checksum)
    assert parsed.payload is tile.payload
    assert parsed.checksum == tile.checksum
    assert (parsed.blocks == tile.blocks).all()
    assert parsed.meta == tile.meta


def test_what_the_sender_says_must_hold() -> None:
    tile = make_tile()
    with pytest.raises(InvalidInputError, match=r"9q8yy .*checksum is .* the sender said 00"):
        parse_tile(tile.payload, key=KEY, checksum="00")
    with pytest.raises(InvalidInputError, match=r"tile 9q8yz .*its file says that it is"):
        parse_tile(tile.payload, key=replace(KEY, geocode="9q8yz"))


@given(at=st.floats(0, 1), flip=st.integers(1, 255))
def test_any_changed_byte_is_told(at: float, flip: int) -> None:
    payload = bytearray(make_tile().payload)
    payload[int(at * (len(payload) - 1))] ^= flip
    with pytest.raises(InvalidInputError, match="9q8yy"):
        parse_tile(bytes(payload), key=KEY)


@given(at=st.floats(0, 1))
def test_any_cut_is_told(at: float) -> None:
    payload = make_tile().payload
    with pytest.raises(InvalidInputError, match="9q8yy"):
        parse_tile(payload[: int(at * (len(payload) - 1))], key=KEY)


@given(extra=st.binary(min_size=1, max_size=2000), in_front=st.booleans())
def test_more_than_the_tile_is_told(extra: bytes, in_front: bool) -> None:
    payload = make_tile().payload
    with pytest.raises(InvalidInputError, match="9q8yy"):
        parse_tile(extra + payload if in_front else payload + extra, key=KEY)


@given(garbage=st.binary(max_size=4000))
def test_garbage_is_no_tile(garbage: bytes) -> None:
    with pytest.raises(InvalidInputError, match="bytes received"):
        parse_tile(garbage)
