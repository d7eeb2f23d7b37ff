"""Results in the sources' order, errors after what was stored, nothing that runs on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from geostore.ingest.lanes import Lane, run_lanes
from geostore.ingest.turns import StoppedError, Turns
from geostore.scenes import FoundSource
from geostore.types import IngestProgress, SceneResult, SceneStatus

WAIT_S = 30.0


def result(name: str) -> SceneResult:
    return SceneResult(path=name, scene=name, status=SceneStatus.INGESTED)


def step(name: str, tiles: int) -> IngestProgress:
    return IngestProgress(
        path=name, scene=name, dataset="d",
        cells_done=tiles, cells_total=9, tiles=tiles, bytes=100 * tiles,
    )  # fmt: skip


def run(
    names: list[str],
    work: Callable[[Lane], None],
    turns: Turns | None = None,
    lanes: int = 3,
    progress: Callable[[IngestProgress], None] | None = None,
) -> Iterator[SceneResult]:
    return run_lanes(
        [FoundSource(name, named_outright=True) for name in names],
        work,
        turns or Turns(),
        lanes=lanes,
        sources_total=len(names),
        progress=progress,
    )


def test_results_come_in_the_order_of_the_sources_whoever_is_quicker() -> None:
    slow = threading.Event()

    def work(lane: Lane) -> None:
        if lane.source == 0:
            assert slow.wait(WAIT_S)
        lane.result(result(lane.found.path))
        if lane.source == 5:
            slow.set()

    names = [f"s{n}" for n in range(8)]
    assert [one.path for one in run(names, work)] == names


def test_a_source_may_have_any_number_of_results() -> None:
    def work(lane: Lane) -> None:
        for number in range(lane.source):
            lane.result(result(f"{lane.found.path}{number}"))

    assert [one.path for one in run(["a", "b", "c"], work)] == ["b0", "c0", "c1"]


def test_no_more_sources_are_in_work_than_there_are_lanes() -> None:
    lock, now, most = threading.Lock(), 0, 0
    full = threading.Barrier(2)

    def work(lane: Lane) -> None:
        nonlocal now, most
        with lock:
            now, most = now + 1, max(most, now + 1)
        full.wait(WAIT_S)
        with lock:
            now -= 1
        lane.result(result(lane.found.path))

    assert len(list(run([f"s{n}" for n in range(10)], work, lanes=2))) == 10
    assert most == 2


def test_an_error_is_raised_after_what_was_stored_and_nothing_begins_after_it() -> None:
    begun: list[int] = []
    failed = threading.Event()

    def work(lane: Lane) -> None:
        begun.append(lane.source)
        if lane.source == 0:
            assert failed.wait(WAIT_S)
            lane.result(result("stored before"))
        elif lane.source == 1:
            failed.set()
            raise OSError("the disk is gone")
        else:
            assert failed.wait(WAIT_S)
            lane.result(result("stored too"))

    made = run([f"s{n}" for n in range(100)], work, lanes=3)
    got: list[str] = []
    with pytest.raises(OSError, match="the disk is gone"):
        got.extend(one.path for one in made)
    assert "stored before" in got
    assert len(begun) < 100


def test_who_stops_iterating_stops_every_lane() -> None:
    turns = Turns()
    ended = threading.Semaphore(0)

    def work(lane: Lane) -> None:
        try:
            if lane.source == 0:
                lane.result(result("first"))
                return
            while True:
                turns.check()
        except StoppedError:
            ended.release()
            raise

    with closing(run(["a", "b", "c"], work, turns)) as made:  # type: ignore[type-var]
        assert next(made).path == "first"
    assert ended.acquire(blocking=False), "it ended before the iteration did"


def test_progress_counts_scenes_tiles_and_sources_over_all_lanes() -> None:
    said: list[IngestProgress] = []
    heard = threading.Event()

    def hear(one: IngestProgress) -> None:
        said.append(one)
        heard.set()

    def work(lane: Lane) -> None:
        for tiles in range(1, 4):
            heard.clear()
            lane.report(step(lane.found.path, tiles))
            assert heard.wait(WAIT_S)
        lane.result(result(lane.found.path))

    assert len(list(run(["a", "b"], work, lanes=1, progress=hear))) == 2
    assert [one.stored_tiles for one in said] == [1, 2, 3, 4, 5, 6]
    assert [one.stored_bytes for one in said] == [100, 200, 300, 400, 500, 600]
    assert [one.scenes_done for one in said] == [0, 0, 0, 1, 1, 1]
    assert [one.sources_done for one in said] == [0, 0, 0, 1, 1, 1]
    assert {one.sources_total for one in said} == {2}
