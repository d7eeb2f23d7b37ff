from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geostore.errors import GeostoreError, InvalidInputError, UnavailableError
from geostore.rpc import messages as wire
from geostore.rpc import streams
from geostore.rpc.streams import StoredBlock, block_messages, tile_messages, wanted_blocks
from geostore.rpc.v1 import common_pb2, node_pb2, store_pb2
from geostore.types import CallContext, EncodedTile, TileKey

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


# ---------------------------------------------------------------- blocks

KEYS = [TileKey("id", "s", "v", cell) for cell in ("a", "b", "c")]
lengths = st.lists(st.lists(st.sampled_from([0, 1, 7, 8, 9, 30]), max_size=4), max_size=3)


def make_blocks(
    sizes: list[list[int]],
) -> tuple[list[tuple[TileKey, list[int]]], list[StoredBlock]]:
    wanted = [(KEYS[i], [5 + j for j in range(len(row))]) for i, row in enumerate(sizes)]
    blocks = [
        StoredBlock(
            tile=i,
            index=5 + j,
            fill=j % 2,
            checksum=2**64 - 1 - j,
            data=bytes([10 * i + j]) * size if size else None,
        )
        for i, row in enumerate(sizes)
        for j, size in enumerate(row)
    ]
    return wanted, blocks


@given(sizes=lengths)
def test_blocks_cross(sizes: list[list[int]]) -> None:
    wanted, blocks = make_blocks(sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "CHUNK_BYTES", 8)
        messages = list(block_messages(blocks))
    assert all(len(message.data) <= 8 for message in messages)
    assert list(wanted_blocks(messages, wanted, "a:1")) == blocks


@given(sizes=lengths, lost=st.integers(0, 20))
def test_a_lost_message_is_told(sizes: list[list[int]], lost: int) -> None:
    wanted, blocks = make_blocks(sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "CHUNK_BYTES", 8)
        messages = list(block_messages(blocks))
    if messages:
        del messages[lost % len(messages)]
        # What is lost inside a block shows when it is decoded; its end is missing here.
        with pytest.raises(UnavailableError, match="a:1"):
            list(wanted_blocks(messages, wanted, "a:1"))


heads = st.builds(
    node_pb2.BlockHead,
    tile=st.integers(0, 2),
    index=st.integers(4, 7),
    length=st.sampled_from([0, 1, 5, 2**32 - 1]),
)


@given(
    st.lists(
        st.builds(
            node_pb2.ReadBlocksResponse,
            blocks=st.lists(heads, max_size=3),
            data=st.binary(max_size=9),
        ),
        max_size=4,
    )
)
def test_hostile_blocks_are_never_others_than_asked(
    messages: list[node_pb2.ReadBlocksResponse],
) -> None:
    wanted = [(KEYS[0], [5, 6])]
    try:
        blocks = list(wanted_blocks(messages, wanted, "a:1"))
    except GeostoreError:
        return
    assert [(block.tile, block.index) for block in blocks] == [(0, 5), (0, 6)]
