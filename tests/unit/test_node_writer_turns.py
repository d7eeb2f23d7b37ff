"""Turns at writing: lent between scenes, handed over fairly, refused where nothing is lent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from geostore.errors import StoreLockedError
from geostore.node import Node
from geostore.node.lock import is_lent
from geostore.node.writer_turns import TURN_SECONDS_MIN, WriterTurns

WAIT_S = 30.0


def never() -> None:
    """Nobody gives up."""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    Node(tmp_path / "store").close()
    return tmp_path / "store"


class _Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class _Ingest:
    """One process's ingest, as a node of its own: flock tells open files apart."""

    def __init__(self, store: Path, clock: Callable[[], float]) -> None:
        self.node = Node(store)
        files = self.node.directory
        self.turns = WriterTurns(self.node, files.lock_file, files.queue_file, now_s=clock)


def test_a_turn_makes_the_node_the_writer_that_lends(store: Path) -> None:
    with Node(store) as node:
        with node.turns.ingest(), node.turns.turn(never):
            assert node.is_writer
            assert is_lent(node.directory.lock_file) is True
        assert not node.is_writer
        assert is_lent(node.directory.lock_file) is None
        node.take_lock(lends=False)
        with node.turns.ingest():
            assert is_lent(node.directory.lock_file) is True


def test_a_lock_that_was_asked_for_is_neither_lent_nor_given(store: Path) -> None:
    with Node(store, lock_now=True) as node:
        with node.turns.ingest(), node.turns.turn(never):
            assert is_lent(node.directory.lock_file) is False
        assert node.is_writer


def test_who_writes_without_an_ingest_lends_nothing(store: Path) -> None:
    with Node(store, lock_now=True), Node(store) as node, node.turns.ingest():
        with (
            pytest.raises(StoreLockedError, match="opened the store twice"),
            node.turns.turn(never),
        ):
            pytest.fail("the lock is another's")
        assert not node.is_writer


def test_ingests_take_turns_scene_by_scene(store: Path) -> None:
    """Two ingests of 20 scenes each: never at once, and neither waits for the other's end."""
    clock = _Clock()
    order: list[str] = []
    inside = threading.Lock()
    failures: list[BaseException] = []
    both = threading.Barrier(2)
    done: list[str] = []

    def run(name: str) -> None:
        try:
            ingest = _Ingest(store, clock)
            with ingest.node, ingest.turns.ingest():
                both.wait(WAIT_S)
                for _ in range(20):
                    with ingest.turns.turn(never):
                        assert inside.acquire(blocking=False), "two at once"
                        order.append(name)
                        # Scenes this short would be over before the other one has asked.
                        while len(done) == 0 and not ingest.turns._someone_waits():
                            assert not failures
                        clock.now_s += TURN_SECONDS_MIN
                        inside.release()
                done.append(name)
        except BaseException as error:  # noqa: BLE001 - shown by the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert not failures
    assert sorted(order) == ["a"] * 20 + ["b"] * 20
    # One in a row more is the scheduler: who waits must be seen to wait before a turn ends.
    assert sum(one != other for one, other in pairwise(order)) >= 30, order


def test_scenes_of_one_ingest_share_its_turn(store: Path) -> None:
    with Node(store) as node, node.turns.ingest(), ExitStack() as scenes:
        for _ in range(3):
            scenes.enter_context(node.turns.turn(never))


def test_the_lock_goes_to_who_waits_only_when_no_scene_is_under_way(store: Path) -> None:
    clock = _Clock()
    one, other = _Ingest(store, clock), _Ingest(store, clock)
    has_it, done = threading.Event(), threading.Event()

    def wait_for_it() -> None:
        with other.turns.ingest(), other.turns.turn(never):
            has_it.set()
            done.wait(WAIT_S)

    with one.node, other.node, one.turns.ingest():
        first, second = one.turns.turn(never), one.turns.turn(never)
        first.__enter__()
        second.__enter__()
        waiter = threading.Thread(target=wait_for_it)
        waiter.start()
        while not one.turns._someone_waits():
            assert waiter.is_alive()
        clock.now_s += TURN_SECONDS_MIN
        first.__exit__(None, None, None)
        assert one.node.is_writer, "the other scene is under way"
        assert not has_it.is_set()
        second.__exit__(None, None, None)
        assert has_it.wait(WAIT_S)
        assert not one.node.is_writer
        done.set()
        with one.turns.turn(never):
            assert one.node.is_writer
        waiter.join(WAIT_S)


def test_who_waits_may_give_up(store: Path) -> None:
    clock = _Clock()
    one, other = _Ingest(store, clock), _Ingest(store, clock)
    asked = 0

    def give_up() -> None:
        nonlocal asked
        asked += 1
        if asked > 3:
            raise TimeoutError

    with one.node, other.node, one.turns.ingest(), one.turns.turn(never):
        with pytest.raises(TimeoutError), other.turns.ingest(), other.turns.turn(give_up):
            pytest.fail("the lock is another's")
        assert not one.turns._someone_waits()


def test_at_its_end_an_ingest_lets_in_who_waits(store: Path) -> None:
    clock = _Clock()
    one, other = _Ingest(store, clock), _Ingest(store, clock)
    has_it = threading.Event()

    def wait_for_it() -> None:
        with other.turns.ingest(), other.turns.turn(never):
            has_it.set()

    with one.node, other.node:
        with one.turns.ingest():
            with one.turns.turn(never):
                waiter = threading.Thread(target=wait_for_it)
                waiter.start()
                while not one.turns._someone_waits():
                    assert waiter.is_alive()
            assert one.node.is_writer, "its time is not over"
        assert has_it.wait(WAIT_S)
        waiter.join(WAIT_S)
