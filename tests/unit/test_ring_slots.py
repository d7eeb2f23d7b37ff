from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geostore.errors import InvalidInputError
from geostore.ring import SLOTS_TOTAL, placement_key, slot_of

CODES = st.text("0123456789bcdefghjkmnpqrstuvwxyz", min_size=1, max_size=12)


@given(CODES)
def test_a_slot_is_the_first_three_hex_digits_of_sha1(code: str) -> None:
    assert f"{slot_of(code):03x}" == hashlib.sha1(code.encode()).hexdigest()[:3]
    assert 0 <= slot_of(code) < SLOTS_TOTAL


def test_slots_that_must_never_change() -> None:
    # Where tiles of existing stores lie: these are on disks.
    assert [slot_of(code) for code in ("dq8x3", "d", "0213", "9q8yy")] == [
        int(hashlib.sha1(code.encode()).hexdigest()[:3], 16)
        for code in ("dq8x3", "d", "0213", "9q8yy")
    ]
    assert slot_of("dq8x3") == 1528


@given(CODES, st.integers(1, 12))
def test_cells_under_one_placement_key_share_its_slot(code: str, length: int) -> None:
    if length <= len(code):
        assert placement_key(code, length) == code[:length]
    else:
        with pytest.raises(InvalidInputError, match=r"expected 1\.\."):
            placement_key(code, length)


@pytest.mark.parametrize("length", [0, -1, 6])
def test_a_placement_length_must_fit_the_geocode(length: int) -> None:
    with pytest.raises(InvalidInputError, match="dq8x3"):
        placement_key("dq8x3", length)


def test_slots_are_used_evenly() -> None:
    alphabet = "0123456789bcdefghjkmnpqrstuvwxyz"
    counts = [0] * SLOTS_TOTAL
    for a in alphabet:
        for b in alphabet:
            for c in alphabet:
                counts[slot_of(a + b + c)] += 1
    # 32,768 keys, 8 a slot: a Poisson count above 30 has a chance under 1e-9.
    assert max(counts) < 30
    assert sum(count == 0 for count in counts) < 20
