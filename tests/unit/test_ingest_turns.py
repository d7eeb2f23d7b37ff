"""Which scenes wait for which; that the earliest never waits; that stopping frees everybody."""

from __future__ import annotations

import random
import threading

import pytest

from geostore.ingest.turns import StoppedError, Turns

WAIT_S = 30.0


def may_begin(turns: Turns, source: int, dataset: str, scene: str, *, is_first: bool) -> bool:
    return turns._is_free(source, dataset, scene, is_first)


def test_a_scene_waits_until_it_is_known_what_all_earlier_sources_hold() -> None:
    turns = Turns()
    turns.declare(1, [("a", "s1")])
    assert not may_begin(turns, 1, "a", "s1", is_first=False)
    turns.declare(0, [])
    assert may_begin(turns, 1, "a", "s1", is_first=False)


def test_the_first_scene_of_a_dataset_waits_for_earlier_ones_of_that_dataset_only() -> None:
    turns = Turns()
    turns.declare(0, [("a", "s0"), ("b", "s0")])
    turns.declare(1, [("a", "s1"), ("c", "s1")])
    assert not may_begin(turns, 1, "a", "s1", is_first=True)
    assert may_begin(turns, 1, "a", "s1", is_first=False), "the dataset is complete"
    assert may_begin(turns, 1, "c", "s1", is_first=True)
    turns.end(0, "a", "s0")
    assert may_begin(turns, 1, "a", "s1", is_first=True)


def test_of_two_sources_of_one_scene_the_later_waits() -> None:
    turns = Turns()
    turns.declare(0, [("a", "s")])
    turns.declare(1, [("a", "s")])
    assert may_begin(turns, 0, "a", "s", is_first=True)
    assert not may_begin(turns, 1, "a", "s", is_first=False)
    turns.forget(0)
    assert may_begin(turns, 1, "a", "s", is_first=True)


def test_stopping_frees_who_waits_and_refuses_who_asks() -> None:
    turns = Turns()
    told = threading.Event()

    def wait() -> None:
        try:
            turns.wait(1, "a", "s", is_first=True)
        except StoppedError:
            told.set()

    thread = threading.Thread(target=wait)
    thread.start()
    turns.check()
    turns.stop()
    assert told.wait(WAIT_S)
    thread.join(WAIT_S)
    with pytest.raises(StoppedError):
        turns.wait(0, "a", "s", is_first=False)
    with pytest.raises(StoppedError):
        turns.check()


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_threads_ends_as_one_after_another(seed: int) -> None:
    """Sources in lanes: the first scene of each dataset is the earliest, nobody waits for ever."""
    rng = random.Random(seed)
    sources = [
        [(rng.choice("ab"), f"s{rng.randrange(6)}") for _ in range(rng.randrange(3))]
        for _ in range(24)
    ]
    turns, lock = Turns(), threading.Lock()
    numbers = iter(range(len(sources)))
    first: dict[str, int] = {}
    stored: dict[tuple[str, str], int] = {}

    def lane() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            turns.declare(number, sources[number])
            for dataset, scene in sources[number]:
                with lock:
                    is_first = dataset not in first
                turns.wait(number, dataset, scene, is_first=is_first)
                with lock:
                    first.setdefault(dataset, number)
                    stored.setdefault((dataset, scene), number)
                turns.end(number, dataset, scene)
            turns.forget(number)

    threads = [threading.Thread(target=lane) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    for dataset, number in first.items():
        assert number == min(n for n, keys in enumerate(sources) if dataset in dict(keys))
    for key, number in stored.items():
        assert number == min(n for n, keys in enumerate(sources) if key in keys)
