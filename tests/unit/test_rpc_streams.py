from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geostore.errors import InvalidInputError, UnavailableError
from geostore.rpc import messages as wire
from geostore.rpc import streams
from geostore.rpc.streams import tile_messages
from geostore.rpc.v1 import common_pb2, store_pb2
from geostore.types import CallContext, EncodedTile

HEAD = wire.make_head(CallContext(request_id="r"), "c", 1)


def load_tile() -> EncodedTile:
    path = Path(__file__).with_name("test_tiles_parse.py")
    spec = importlib.util.spec_from_file_location("tiles_for_streams", path)
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tile: EncodedTile = module.make_tile()
    return tile


TILE = load_tile()


def sent(tiles: int = 2) -> list[store_pb2.PutTilesRequest]:
    return list(tile_messages(store_pb2.PutTilesRequest, HEAD, [TILE] * tiles, 7))


def receive(messages: list[store_pb2.PutTilesRequest], **options: int) -> list[str]:
    heads: list[common_pb2.RequestHead] = []
    received = list(streams.receive_tiles(messages, heads.append, **options))
    assert heads == [HEAD][: len(messages)]
    assert all(attempt == 7 for _, attempt in received)
    return [tile.checksum for tile, _ in received]


@pytest.mark.parametrize("chunk_bytes", [1, 1000, 1 << 20])
def test_tiles_cross(monkeypatch: pytest.MonkeyPatch, chunk_bytes: int) -> None:
    monkeypatch.setattr(streams, "CHUNK_BYTES", chunk_bytes)
    messages = sent()
    assert max(len(message.data) for message in messages) <= chunk_bytes
    assert receive(messages) == [TILE.checksum] * 2
    assert receive(sent(0)) == []


def test_half_a_tile_is_told() -> None:
    [message] = sent(1)
    message.data = message.data[:-1]
    with pytest.raises(InvalidInputError, match="9q8yy.* bytes came when the stream ended"):
        receive([message])
    with pytest.raises(InvalidInputError, match="before the next tile began"):
        receive([message, *sent(1)[:1]])


def test_too_much_is_refused() -> None:
    size = len(TILE.payload)
    with pytest.raises(InvalidInputError, match=f"size {size}: expected 1..10"):
        receive(sent(), tile_bytes_max=10)
    with pytest.raises(InvalidInputError, match="send fewer"):
        receive(sent(), call_bytes_max=size + 1)
    [message] = sent(1)
    message.data += b"x"
    with pytest.raises(InvalidInputError, match="more than it announced"):
        receive([message])
    with pytest.raises(InvalidInputError, match="belong to no tile"):
        receive([store_pb2.PutTilesRequest(head=HEAD, data=b"x")])


def test_a_tile_too_large_to_store_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geostore.tiles.archive.TILE_BYTES_MAX", 1000)
    with pytest.raises(InvalidInputError, match="at most 1000; choose a longer geocode length"):
        load_tile()


def test_sizes_are_told_before_bytes_are_kept() -> None:
    expected: list[int] = []

    def refuse(size: int) -> None:
        expected.append(size)
        if len(expected) == 2:
            raise UnavailableError("no room")

    received = streams.receive_tiles(sent(3), lambda _: None, expect=refuse)
    assert next(received)[0].checksum == TILE.checksum
    with pytest.raises(UnavailableError, match="no room"):
        next(received)
    assert expected == [len(TILE.payload)] * 2


def test_a_refused_head_takes_no_tile() -> None:
    def refuse(_: common_pb2.RequestHead) -> None:
        raise UnavailableError("no")

    def messages() -> Iterator[store_pb2.PutTilesRequest]:
        yield sent()[0]
        pytest.fail("went on")

    with pytest.raises(UnavailableError):
        list(streams.receive_tiles(messages(), refuse))


@given(at=st.floats(0, 1), flip=st.integers(1, 255))
def test_changed_bytes_are_told(at: float, flip: int) -> None:
    [message] = sent(1)
    data = bytearray(message.data)
    data[int(at * (len(data) - 1))] ^= flip
    message.data = bytes(data)
    with pytest.raises(InvalidInputError, match="9q8yy"):
        receive([message])
