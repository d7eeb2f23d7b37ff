"""The shares of an ingest's memory, and the budget that scenes share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geostore.errors import InvalidInputError
from geostore.ingest.memory import Budget, MemoryShares, machine_bytes


@given(st.integers(64 << 20, 1 << 40))
def test_shares_leave_room_for_the_rest(total: int) -> None:
    shares = MemoryShares.of(total)
    parts = (shares.decoded_bytes, shares.block_cache_bytes, shares.batch_bytes)
    assert min(parts) > 0
    assert sum(parts) <= total * 2 // 3


def test_by_default_a_quarter_of_the_machine_is_shared() -> None:
    assert MemoryShares.of() == MemoryShares.of(max(64 << 20, machine_bytes() // 4))


def test_too_little_is_refused_by_number() -> None:
    with pytest.raises(InvalidInputError, match="memory 1000 bytes: expected at least 67108864"):
        MemoryShares.of(1000)


def test_what_is_urgent_gets_bytes_and_what_is_not_waits_for_room() -> None:
    budget = Budget(100)
    assert budget.take(80, urgent=False)
    assert not budget.take(30, urgent=False)
    assert budget.take(30, urgent=True)
    assert budget.taken_bytes == 110
    budget.give_back(80)
    assert budget.take(70, urgent=False)
    budget.give_back(100)
    assert budget.taken_bytes == 0
