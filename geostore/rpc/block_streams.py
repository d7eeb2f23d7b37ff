"""Stored blocks as streams of messages of about 1 MB, and what takes them apart again.

Pixels are most of what a cluster sends, so their bytes are copied once at each end, as gRPC
does with any message. protobuf would copy them three times more on each side, into its own
message, out of it, and into an object for Python. Therefore the messages, which are
`ReadBlocksResponse` like any other's, are written and read here byte by byte as far as their
`data` goes; protobuf still reads and writes the heads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from google.protobuf.message import DecodeError

from geostore.errors import UnavailableError
from geostore.rpc.transport import CHUNK_BYTES
from geostore.rpc.v1 import node_pb2
from geostore.types import TileKey

__all__ = ["BLOCK_BYTES_MAX", "READ_BLOCKS", "StoredBlock", "block_messages", "wanted_blocks"]

READ_BLOCKS = "/geostore.rpc.v1.NodeService/ReadBlocks"

BLOCK_BYTES_MAX = 16 << 20
"""No block is larger: 512 x 512 pixels of 8 bytes are 2 MB before compression."""

HEADS_MAX = 4096
"""Of one message."""

_HEAD_KEY = node_pb2.ReadBlocksResponse.BLOCKS_FIELD_NUMBER << 3 | 2
_DATA_KEY = bytes([node_pb2.ReadBlocksResponse.DATA_FIELD_NUMBER << 3 | 2])
_Head = tuple[int, int, int, int, int]
"""Tile, index, length, fill, checksum: a message's fields cost more, each time they are read."""
_VARINT, _FIXED64, _SIZED, _FIXED32 = 0, 1, 2, 5


class StoredBlock(NamedTuple):
    """One block as stored, with its entry of the block table.

    A tuple, since a tile has dozens of them and a frozen dataclass takes four times as long.
    """

    tile: int
    """Which of the wanted tiles."""
    index: int  # type: ignore[assignment]  # hides a tuple's method that nobody calls
    fill: int
    checksum: int
    """XXH3-64 of the bytes: whoever decodes them checks it."""
    data: bytes | memoryview | None
    """None: a uniform block."""


# ---------------------------------------------------------------- sending


def block_messages(blocks: Iterable[StoredBlock]) -> Iterator[bytes]:
    """Blocks as the messages that carry them, in order, each a `ReadBlocksResponse`.

    A block is cut only where it is larger than a message: whoever reads it has to put the
    pieces together.
    """
    heads: list[node_pb2.BlockHead] = []
    pieces: list[memoryview] = []
    room = CHUNK_BYTES
    for block in blocks:
        data = memoryview(block.data or b"").cast("B")
        if (pieces and room < len(data) <= CHUNK_BYTES) or len(heads) == HEADS_MAX:
            yield _message(heads, pieces)
            heads, pieces, room = [], [], CHUNK_BYTES
        heads.append(
            node_pb2.BlockHead(
                tile=block.tile,
                index=block.index,
                length=len(data),
                fill=block.fill,
                checksum=block.checksum,
            )
        )
        while len(data) > room:
            pieces.append(data[:room])
            data = data[room:]
            yield _message(heads, pieces)
            heads, pieces, room = [], [], CHUNK_BYTES
        if len(data):
            pieces.append(data)
            room -= len(data)
    if heads or pieces:
        yield _message(heads, pieces)


def _message(heads: Sequence[node_pb2.BlockHead], pieces: Sequence[memoryview]) -> bytes:
    said = node_pb2.ReadBlocksResponse(blocks=heads).SerializeToString()
    size = sum(map(len, pieces))
    if not size:
        return said
    return b"".join([said, _DATA_KEY, _varint(size), *pieces])


def _varint(number: int) -> bytes:
    """As protobuf writes sizes: seven bits a byte, the lowest first.

    >>> _varint(300).hex()
    'ac02'
    """
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


# ---------------------------------------------------------------- receiving


def _read_varint(view: memoryview, at: int) -> tuple[int, int]:
    """(number, where it ends). Raises IndexError, ValueError: none."""
    number, shift = 0, 0
    while True:
        byte = view[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than ten bytes")


def _field_end(view: memoryview, kind: int, at: int) -> tuple[int, int]:
    """(where the field's content begins, where it ends)."""
    if kind == _SIZED:
        size, at = _read_varint(view, at)
        return at, at + size
    if kind == _VARINT:
        return at, _read_varint(view, at)[1]
    if kind in {_FIXED64, _FIXED32}:
        return at, at + (8 if kind == _FIXED64 else 4)
    raise ValueError(f"a field of kind {kind}")


def _take_apart(payload: bytes) -> tuple[list[_Head], memoryview]:
    """(heads, data) of a message; the data is a view of it.

    Raises DecodeError, IndexError or ValueError: it is none.
    """
    view = memoryview(payload)
    end, data = len(view), view[:0]
    others: list[memoryview] = []
    start = at = 0
    """`start`: of what is not data and was not set apart yet."""
    while at < end:
        if payload[at] == _HEAD_KEY and at + 1 < end and payload[at + 1] < 0x80:
            at += 2 + payload[at + 1]  # what most fields are, in one step
            continue
        field = at
        key, at = _read_varint(view, at)
        content, at = _field_end(view, key & 7, at)
        if key == _DATA_KEY[0] and at <= end:
            data = view[content:at]
            others.append(view[start:field])
            start = at
    if at > end:
        raise ValueError("a field ends behind the message")
    others.append(view[start:])
    said = node_pb2.ReadBlocksResponse.FromString(b"".join(others))
    return [(one.tile, one.index, one.length, one.fill, one.checksum) for one in said.blocks], data


def wanted_blocks(
    messages: Iterable[bytes],
    wanted: Sequence[tuple[TileKey, Sequence[int]]],
    address: str,
) -> Iterator[StoredBlock]:
    """The blocks of a stream: exactly those wanted, in that order, as views of the messages.

    Raises:
        UnavailableError: others, fewer or more came.
    """

    def broken(why: str) -> UnavailableError:
        return UnavailableError(f"node {address}: its stream of blocks is broken: {why}")

    expected = ((tile, index) for tile, (_, indices) in enumerate(wanted) for index in indices)
    heads: list[_Head] = []
    """Those whose blocks are not whole yet: of the message that came last, and before."""
    pieces: list[memoryview] = []
    """Of the next block, where a message ended inside it."""
    held = 0
    for message in messages:
        try:
            more, rest = _take_apart(message)
        except (DecodeError, IndexError, ValueError) as error:
            raise broken(f"a message does not read: {error}") from None
        heads = heads + more if heads else more
        done = at = 0
        for tile, index, length, fill, checksum in heads:
            stop = at + length - held
            if stop > len(rest):
                break
            if next(expected, None) != (tile, index):
                raise broken(f"block {index} of tile {tile} is not the next one asked")
            data = rest[at:stop] if length else None
            if pieces:
                data = memoryview(b"".join([*pieces, rest[at:stop]]))
                pieces, held = [], 0
            at = stop
            done += 1
            yield StoredBlock(tile, index, fill, checksum, data)
        heads = heads[done:]
        if heads and heads[0][2] > BLOCK_BYTES_MAX:
            raise broken(f"a block of {heads[0][2]} bytes")
        if at < len(rest):
            if not heads:
                raise broken(f"{len(rest) - at} bytes that belong to no block")
            pieces.append(rest[at:])
            held += len(rest) - at
    if heads or next(expected, None) is not None:
        raise broken("it ended before all blocks came")
