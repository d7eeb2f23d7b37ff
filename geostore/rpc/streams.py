"""Tiles as streams of messages of about 1 MB, and what puts them together.

Senders cut without copying more than a piece; receivers hold one tile at a time and believe
no size that is declared before the bytes are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from geostore.errors import InvalidInputError
from geostore.rpc.messages import key_from_wire, key_to_wire
from geostore.rpc.transport import CHUNK_BYTES
from geostore.rpc.v1 import common_pb2, node_pb2, store_pb2
from geostore.tiles import parse_tile
from geostore.tiles.layout import TILE_BYTES_MAX
from geostore.types import EncodedTile, TileKey

__all__ = [
    "CALL_BYTES_MAX",
    "PUT_BYTES_MAX",
    "receive_tiles",
    "tile_messages",
]

CALL_BYTES_MAX = TILE_BYTES_MAX
"""All tiles of one call: a receiver stores them together, so it holds them together. Room for
a tile of the largest size; more is refused before its bytes are taken."""

PUT_BYTES_MAX = 16 << 20
"""What geostore's clients put into one call, unless a single tile is larger."""

TilesMessage = TypeVar("TilesMessage", store_pb2.PutTilesRequest, node_pb2.StageTilesRequest)


def tile_messages(
    kind: type[TilesMessage],
    head: common_pb2.RequestHead,
    tiles: Iterable[EncodedTile],
    attempt: int,
) -> Iterator[TilesMessage]:
    """What a caller streams to put tiles: the first message has the head."""
    first: common_pb2.RequestHead | None = head
    for tile in tiles:
        start: common_pb2.TileStart | None = common_pb2.TileStart(
            key=key_to_wire(tile.meta.key),
            checksum=tile.checksum,
            size=len(tile.payload),
            attempt=attempt,
        )
        for offset in range(0, max(1, len(tile.payload)), CHUNK_BYTES):
            yield kind(head=first, start=start, data=tile.payload[offset : offset + CHUNK_BYTES])
            first = start = None
    if first is not None:
        yield kind(head=first)


def receive_tiles(
    messages: Iterable[store_pb2.PutTilesRequest | node_pb2.StageTilesRequest],
    check: Callable[[common_pb2.RequestHead], None],
    *,
    tile_bytes_max: int = TILE_BYTES_MAX,
    call_bytes_max: int = CALL_BYTES_MAX,
    expect: Callable[[int], None] = lambda _size: None,
) -> Iterator[tuple[EncodedTile, int]]:
    """Each tile of a stream, every byte of it checked, with its attempt.

    `check` gets the head before anything else is taken, `expect` a tile's size before its
    bytes are kept; what they raise goes through.

    Raises:
        InvalidInputError: half a tile, other bytes than announced, a damaged tile, too much.
    """
    arriving: _Arriving | None = None
    announced = 0
    for number, message in enumerate(messages):
        if number == 0:
            check(message.head)
        if message.HasField("start"):
            if arriving is not None:
                raise InvalidInputError(f"{arriving.said()} before the next tile began")
            arriving = _Arriving(message.start, tile_bytes_max)
            announced += message.start.size
            if announced > call_bytes_max:
                raise InvalidInputError(
                    f"the call's tiles have {announced} bytes, expected at most"
                    f" {call_bytes_max}: send fewer in a call"
                )
            expect(message.start.size)
        if arriving is None:
            if message.data:
                raise InvalidInputError(f"{len(message.data)} bytes that belong to no tile")
            continue
        arriving.add(message.data)
        if arriving.is_whole:
            yield arriving.tile(), arriving.attempt
            arriving = None
    if arriving is not None:
        raise InvalidInputError(f"{arriving.said()} when the stream ended")


class _Arriving:
    """A tile of which some bytes are there."""

    def __init__(self, start: common_pb2.TileStart, bytes_max: int) -> None:
        self.key: TileKey = key_from_wire(start.key)
        self.attempt = start.attempt
        self._checksum = start.checksum
        self._size = start.size
        self._pieces: list[bytes] = []
        self._bytes = 0
        if not 0 < self._size <= bytes_max:
            raise InvalidInputError(
                f"{self._name()}: size {self._size}: expected 1..{bytes_max} bytes; choose a"
                " longer geocode length or a coarser resolution"
            )

    def _name(self) -> str:
        return f"tile {self.key.geocode} of scene {self.key.scene!r}"

    def said(self) -> str:
        return f"{self._name()}: {self._bytes} of {self._size} bytes came"

    @property
    def is_whole(self) -> bool:
        return self._bytes == self._size

    def add(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes > self._size:
            raise InvalidInputError(f"{self.said()}: more than it announced")
        if data:  # endless empty messages take no memory
            self._pieces.append(data)

    def tile(self) -> EncodedTile:
        return parse_tile(b"".join(self._pieces), key=self.key, checksum=self._checksum)
