"""Group commit: one batch for callers that wait together, to each its own result."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from geostore.index.batching import GroupCommit


def test_callers_that_wait_share_a_commit() -> None:
    entered, release = threading.Event(), threading.Event()
    batches: list[list[int]] = []

    def commit(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        if len(batches) == 1:
            entered.set()
            assert release.wait(10)
        return [10 * item for item in items]

    group: GroupCommit[int, int] = GroupCommit(commit)
    results: dict[int, int] = {}

    def submit(item: int) -> None:
        results[item] = group.submit(item)

    threads = [threading.Thread(target=submit, args=(item,)) for item in range(6)]
    threads[0].start()
    assert entered.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(group._waiting) < 5:  # the leader is held: all others must come to wait
        threading.Event().wait(0.001)
    release.set()
    for thread in threads:
        thread.join(10)
    assert results == {item: 10 * item for item in range(6)}
    assert batches[0] == [0]
    assert sorted(batches[1]) == [1, 2, 3, 4, 5]


def test_an_error_reaches_its_own_caller_only() -> None:
    entered, release = threading.Event(), threading.Event()
    calls: list[list[int]] = []

    def commit(items: Sequence[int]) -> list[int]:
        calls.append(list(items))
        if items == [0]:
            entered.set()
            assert release.wait(10)
        if 3 in items:
            raise ValueError(f"bad in {list(items)}")
        return list(items)

    group: GroupCommit[int, int] = GroupCommit(commit)
    outcomes: dict[int, object] = {}

    def submit(item: int) -> None:
        try:
            outcomes[item] = group.submit(item)
        except ValueError as error:
            outcomes[item] = str(error)

    threads = [threading.Thread(target=submit, args=(item,)) for item in range(5)]
    threads[0].start()
    assert entered.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(group._waiting) < 4:
        threading.Event().wait(0.001)
    release.set()
    for thread in threads:
        thread.join(10)
    assert outcomes == {0: 0, 1: 1, 2: 2, 3: "bad in [3]", 4: 4}


def test_an_interrupted_leader_leaves_nobody_waiting() -> None:
    def commit(items: Sequence[int]) -> list[int]:
        if 1 in items:
            raise KeyboardInterrupt
        return list(items)

    group: GroupCommit[int, int] = GroupCommit(commit)
    with pytest.raises(KeyboardInterrupt):
        group.submit(1)
    assert group.submit(2) == 2
