from __future__ import annotations

import struct
import threading

import numpy as np
import pytest

from geostore.errors import CorruptDataError
from geostore.tiles.codec import CODEC_SETTINGS, decode_block, encode_block, settings_for

PIXELS = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
ENCODED = encode_block(PIXELS, settings_for("fast", 2))


@pytest.mark.parametrize("codec", CODEC_SETTINGS)
@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int32", "float64"])
def test_blocks_come_back(codec: str, dtype: str) -> None:
    pixels = (PIXELS % 5).astype(dtype)
    encoded = encode_block(pixels, settings_for(codec, pixels.itemsize))
    out = np.full_like(pixels, 1)
    decode_block(encoded, out, "block")
    assert (out == pixels).all()
    assert encode_block(pixels, settings_for(codec, pixels.itemsize)) == encoded


@pytest.mark.parametrize(("codec", "itemsize", "order"), [
    ("fast", 1, "C"), ("fast", 2, "C"), ("fast", 8, "C"),
    ("small", 1, "C"), ("small", 2, "F"), ("small", 8, "F"),
])  # fmt: skip
def test_the_order_of_a_codec_is_format_version_1s(codec: str, itemsize: int, order: str) -> None:
    assert settings_for(codec, itemsize).order == order


@pytest.mark.parametrize("buffer", [bytes, bytearray, memoryview])
def test_any_buffer_decodes(buffer: type) -> None:
    out = np.zeros_like(PIXELS)
    decode_block(buffer(ENCODED), out, "block")
    assert (out == PIXELS).all()


def _patched(position: int, form: str, value: int) -> bytes:
    patched = bytearray(ENCODED)
    struct.pack_into(form, patched, position, value)
    return bytes(patched)


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        ENCODED[:15],
        ENCODED[:16],
        ENCODED[:-1],
        ENCODED + b"\0",
        _patched(0, "<B", 3),  # a Blosc version not ours
        _patched(3, "<B", 4),  # items of four bytes
        _patched(4, "<I", 0xFFFFFFF0),  # declares 4 GiB decoded
        _patched(4, "<I", PIXELS.nbytes - 2),
        _patched(8, "<I", 0x7FFFFFFF),  # inner blocks of 2 GiB: scratch the library would allocate
        _patched(8, "<I", 0),
        _patched(12, "<I", 0xFFFFFFFF),  # encoded size beyond the buffer
    ],
)
def test_declared_sizes_are_not_believed(encoded: bytes) -> None:
    with pytest.raises(CorruptDataError, match="tile x, block 3"):
        decode_block(encoded, np.zeros_like(PIXELS), "tile x, block 3")


def test_garbage_behind_a_good_header_is_an_error_or_pixels() -> None:
    random = np.random.default_rng(7)
    refused = 0
    for _ in range(300):
        damaged = bytearray(ENCODED)
        for position in random.integers(16, len(damaged), 4):
            damaged[position] ^= int(random.integers(1, 256))
        try:
            decode_block(damaged, np.zeros_like(PIXELS), "block")
        except CorruptDataError:
            refused += 1
    assert refused > 0


def test_threads_decode_beside_each_other() -> None:
    results: list[bool] = []

    def work() -> None:
        out = np.empty_like(PIXELS)
        for _ in range(50):
            out[:] = 0
            decode_block(ENCODED, out, "block")
        results.append(bool((out == PIXELS).all()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4
