"""Bitmaps of blocks against their definition, written out naively."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geostore.compute import block_bitmaps
from geostore.errors import InvalidInputError
from geostore.index.packing import (
    HAS_BITMAPS,
    HAS_CLEAR,
    Group,
    bitmaps_in,
    pack_details,
    unpack_details,
)
from geostore.tiles.metadata import meta_from_json, meta_to_json
from geostore.types import BITMAP_BYTES, BITMAP_SIDE, BlockBitmaps, block_edges
from tests.synthetic_tiles import make_entry

FULL = b"\xff" * BITMAP_BYTES


def bit(bitmap: bytes, row: int, column: int) -> bool:
    """As the class says it: 16 little-endian numbers of 16 bits."""
    return bool(int.from_bytes(bitmap[2 * row : 2 * row + 2], "little") >> column & 1)


def check(bitmap_all: bytes, bitmap_any: bytes, mask: np.ndarray) -> None:
    for row in range(BITMAP_SIDE):
        top, bottom = ((edge * mask.shape[0] + 8) // 16 for edge in (row, row + 1))
        for column in range(BITMAP_SIDE):
            left, right = ((edge * mask.shape[1] + 8) // 16 for edge in (column, column + 1))
            block = mask[top:bottom, left:right]
            assert bit(bitmap_any, row, column) == bool(block.any())
            assert bit(bitmap_all, row, column) == (block.size > 0 and bool(block.all()))


SIDES = st.sampled_from([1, 5, 8, 15, 16, 17, 31, 32, 40, 64, 100])


@given(data=st.data(), height=SIDES, width=SIDES)
def test_a_bit_says_every_pixel_or_any_pixel_of_its_block(data, height: int, width: int) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    part = data.draw(st.sampled_from([0.02, 0.5, 0.98]))
    valid = random.random((height, width)) < part
    clear = random.random((height, width)) < 0.9
    bitmaps = block_bitmaps(valid, clear, (height, width))
    check(bitmaps.valid_all, bitmaps.valid_any, valid)
    assert bitmaps.clear_all is not None
    assert bitmaps.clear_any is not None
    check(bitmaps.clear_all, bitmaps.clear_any, valid & clear)


def test_uniform_masks_say_the_same_as_arrays_of_them() -> None:
    for shape in ((64, 32), (5, 20), (512, 512)):
        ones, zeros = np.ones(shape, bool), np.zeros(shape, bool)
        assert block_bitmaps(True, None, shape) == block_bitmaps(ones, None, shape)
        assert block_bitmaps(False, True, shape) == block_bitmaps(zeros, ones, shape)
        assert block_bitmaps(True, True, shape) == block_bitmaps(ones, ones, shape)
        assert block_bitmaps(True, False, shape) == block_bitmaps(ones, zeros, shape)


def test_a_coarser_cloud_layer_is_repeated() -> None:
    clear = np.random.default_rng(1).random((16, 32)) < 0.5
    valid = np.random.default_rng(2).random((64, 64)) < 0.9
    fine = clear.repeat(4, axis=0).repeat(2, axis=1)
    assert block_bitmaps(valid, clear, (64, 64)) == block_bitmaps(valid, fine, (64, 64))


@pytest.mark.parametrize("side", [1, 16, 17, 100, 512])
def test_blocks_part_a_side(side: int) -> None:
    edges = block_edges(side)
    assert (edges[0], edges[-1], len(edges)) == (0, side, BITMAP_SIDE + 1)
    assert (np.diff(edges) >= 0).all()
    assert np.ptp(np.diff(edges)) <= 1


VALUES = [
    None,
    BlockBitmaps(valid_all=FULL, valid_any=FULL, clear_all=None, clear_any=None),
    BlockBitmaps(
        valid_all=bytes(range(32)), valid_any=FULL, clear_all=bytes(32), clear_any=bytes(range(32))
    ),
    BlockBitmaps(
        valid_all=FULL, valid_any=FULL, clear_all=FULL, clear_any=FULL, cloud_nodata=(-1, 255)
    ),
]


@pytest.mark.parametrize("bitmaps", VALUES)
@pytest.mark.parametrize("histogram", [True, False])
def test_bitmaps_go_through_files_and_the_catalog(
    bitmaps: BlockBitmaps | None, *, histogram: bool
) -> None:
    entry = make_entry(histogram=histogram)
    entry = replace(entry, meta=replace(entry.meta, bitmaps=bitmaps))
    said = meta_to_json(entry.meta)
    assert ("bitmaps" in said) == (bitmaps is not None), "files of before are written as before"
    assert meta_from_json(said).bitmaps == bitmaps
    group = Group.of(entry)
    packed = pack_details(entry, group.encode()[0])
    details = unpack_details(entry.meta.key, packed, group)
    assert details.bitmaps == bitmaps
    assert details.cloud_histogram == entry.meta.cloud_histogram
    words, kinds = bitmaps_in(memoryview(packed), np.array([0]), np.array([len(packed)]))
    if bitmaps is None:
        assert kinds.tolist() == [0]
        assert not words.any()
    else:
        known = bitmaps.to_bytes()
        assert words.tobytes() == known + bytes(4 * BITMAP_BYTES - len(known))
        clear = 0 if bitmaps.clear_all is None else HAS_CLEAR
        assert kinds.tolist() == [HAS_BITMAPS | clear]


def test_what_is_no_bitmap_is_refused() -> None:
    for wrong in (
        {"valid_all": "ff", "valid_any": "ff"},
        {"valid_all": FULL.hex(), "valid_any": FULL.hex(), "clear_any": FULL.hex()},
        {**VALUES[1].to_json(), "cloud_nodata": ["a"]},  # type: ignore[union-attr]
        {**VALUES[1].to_json(), "cloud_nodata": [1 << 70]},  # type: ignore[union-attr]
    ):
        with pytest.raises(InvalidInputError):
            BlockBitmaps.from_json(wrong)
    with pytest.raises(InvalidInputError):
        BlockBitmaps.from_bytes(bytes(96))
