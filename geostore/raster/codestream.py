"""What a JPEG 2000 codestream would cost to decode, by its main header.

OpenJPEG keeps a record of some 300 bytes for each code-block of a tile before it decodes any,
also where only a corner of the tile is asked for. GDAL shows such a file in blocks of 1024
pixels, so that nothing of it can be seen in the block's size: 262144 x 262144 pixels in one tile
took 6.7 GB and a minute and a half, in a file of 18 kB.

After ISO/IEC 15444-1: boxes (annex I), the markers of image size and coding style (annex A),
precincts and code-blocks (annex B).
"""

from __future__ import annotations

import struct
from typing import BinaryIO

__all__ = ["code_blocks_of_tile"]

BOXES_MAX = 1000
SEGMENTS_MAX = 17_000
"""One COC each of 16384 components, and the rest."""
HEADER_BYTES_MAX = 1 << 20

_SIGNATURE = b"\0\0\0\x0cjP  "
_START = b"\xff\x4f\xff\x51"
_COD, _COC, _SOT, _SOD = 0xFF52, 0xFF53, 0xFF90, 0xFF93


def code_blocks_of_tile(file: BinaryIO, start: int, size: int) -> int | None:
    """Code-blocks and precincts of one tile, all components; None where no header is found.

    Args:
        file: open for reading; moved.
        start: where the JPEG 2000 file begins in it.
        size: how many bytes it has.
    """
    at = _codestream_at(file, start, size)
    if at is None:
        return None
    file.seek(at)
    try:
        return _cost(file.read(min(HEADER_BYTES_MAX, start + size - at)))
    except (struct.error, IndexError):
        return None  # cut off: decoding says so


def _codestream_at(file: BinaryIO, start: int, size: int) -> int | None:
    file.seek(start)
    head = file.read(12)
    if head.startswith(_START):
        return start
    if not head.startswith(_SIGNATURE):
        return None
    at, end = start, start + size
    for _ in range(BOXES_MAX):
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            return None
        length, kind = struct.unpack_from(">I4s", head)
        body = 8
        if length == 1 and len(head) == 16:
            (length,) = struct.unpack_from(">Q", head, 8)
            body = 16
        if kind == b"jp2c":
            return at + body
        if length < body or at + length >= end:
            return None
        at += length
    return None


def _cost(data: bytes) -> int | None:
    if not data.startswith(_START):
        return None
    width, height, left, top, tile_width, tile_height = struct.unpack_from(">6I", data, 8)
    (components,) = struct.unpack_from(">H", data, 40)
    tile = (min(tile_width, max(0, width - left)), min(tile_height, max(0, height - top)))
    usual, special = 0, dict[int, int]()
    at = 2
    for _ in range(SEGMENTS_MAX):
        marker, length = struct.unpack_from(">2H", data, at)
        if marker in (_SOT, _SOD):
            break
        segment = data[at + 4 : at + 2 + length]
        if marker == _COD:
            usual = _of_component(tile, has_precincts=bool(segment[0] & 1), style=segment[5:])
        elif marker == _COC:
            wide = 2 if components > 256 else 1
            which = int.from_bytes(segment[:wide], "big")
            style = segment[wide + 1 :]
            special[which] = _of_component(tile, has_precincts=bool(segment[wide] & 1), style=style)
        at += 2 + length
    return usual * max(0, int(components) - len(special)) + sum(special.values())


def _of_component(tile: tuple[int, int], *, has_precincts: bool, style: bytes) -> int:
    """Code-blocks and precincts of all resolutions of one component."""
    levels = min(style[0], 32)
    exponents = ((style[1] & 15) + 2, (style[2] & 15) + 2)
    total = 0
    for resolution in range(levels + 1):
        sizes = style[5 + resolution] if has_precincts else 0xFF
        precinct = (sizes & 15, sizes >> 4)
        blocks = precincts = 1
        for side, block, part in zip(tile, exponents, precinct, strict=True):
            pixels = -(-side // (1 << (levels - resolution)))
            shrunk = min(block, part - 1 if resolution else part)
            blocks *= max(1, pixels >> max(0, shrunk))
            precincts *= max(1, pixels >> part)
        total += blocks + precincts
    return total
