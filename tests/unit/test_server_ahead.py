"""The next message is made while this one is with the caller: one, in order, and not for ever."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from geostore.server.ahead import one_ahead


@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_items_come_in_order(count: int) -> None:
    assert list(one_ahead(iter(range(count)))) == list(range(count))


def test_one_item_is_made_ahead_and_no_more() -> None:
    made: list[int] = []
    second = threading.Event()

    def items() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            if number == 1:
                second.set()
            yield number

    ahead = one_ahead(items())
    assert next(ahead) == 0
    assert second.wait(20), "nothing was made meanwhile"
    assert made == [0, 1]
    ahead.close()  # type: ignore[attr-defined]
    assert made == [0, 1]
    assert not [each for each in threading.enumerate() if each.name.startswith("geostore-ahead")]


def test_a_failure_comes_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    ahead = one_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(ZeroDivisionError):
        next(ahead)
