"""Chunks are decoded once where memory allows, held within the budget, and nothing runs on."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest

from geostore.errors import UnreadableSourceError
from geostore.ingest import schedule
from geostore.ingest.datasets import DatasetRequest, complete, define
from geostore.ingest.memory import Budget
from geostore.ingest.plan import Chunk, ScenePlan, plan_scene
from geostore.scenes import open_source, readers


@pytest.fixture
def plan(make_raster):
    data = np.random.default_rng(1).integers(1, 200, (2, 1500, 1500), dtype="uint8")
    path = make_raster("s.tif", data, tiled=True, blockxsize=128, blockysize=128)
    (scene,) = open_source(str(path))
    with scene:
        request = DatasetRequest(length=6, resolutions_m=(10.0,))
        definition = complete(define("d", request, readers()["geotiff"]), scene)
        yield plan_scene(scene, definition, chunk_px=128 * 128)


def _check_nothing_left_to_do(executor: ThreadPoolExecutor) -> None:
    """What was cancelled stays in the queue until a thread passes over it: nothing else may."""
    with contextlib.suppress(queue.Empty):
        while True:
            item = executor._work_queue.get_nowait()
            assert item.future.cancelled(), "a failed run left work behind"


def _run(plan: ScenePlan, budget_bytes: int, workers: int = 2) -> int:
    with ThreadPoolExecutor(workers) as executor:
        made = schedule.tiles(plan, executor, workers=workers, budget=Budget(budget_bytes))
        return sum(tile is not None for _cell, tile in made)


def test_every_chunk_is_decoded_exactly_once_whatever_the_budget(plan, monkeypatch) -> None:
    decoded: Counter[Chunk] = Counter()
    together: set[int] = set()
    lock = threading.Lock()
    bare = schedule.decode

    def counting(plan: ScenePlan, chunks: Sequence[Chunk]):
        with lock:
            decoded.update(chunks)
            together.add(len(chunks))
        return bare(plan, chunks)

    monkeypatch.setattr(schedule, "decode", counting)
    wanted = {chunk for cell in plan.cells for chunk in plan.chunks(cell)}
    for budget in (1, 1 << 18, 1 << 30):
        decoded.clear()
        assert _run(plan, budget) == len(plan.cells) > 50
        assert decoded == Counter(dict.fromkeys(wanted, 1))
    assert together == {2}, "blocks of a pixel-interleaved file hold both bands"


def test_decoded_bytes_keep_to_the_budget_or_to_one_row_of_cells(plan) -> None:
    peaks = {}
    for budget in (1, 1 << 30):
        peak = 0
        with ThreadPoolExecutor(2) as executor:
            run = schedule._Run(plan, executor, 2, Budget(budget))
            remaining = len(plan.cells)
            while remaining:
                run.submit()
                peak = max(peak, sum(pixels.bytes for pixels in run.held.values()))
                remaining -= run.step() is not None
            assert not run.held
            assert run.reserved_bytes == 0
        peaks[budget] = peak
    everything = 2 * 1500 * 1500
    # Cells go row by row, so the least that can be held is a few rows of chunks.
    assert peaks[1] < everything / 3
    assert peaks[1 << 30] <= everything * 2


def test_the_first_error_ends_the_run_and_no_task_outlives_it(plan, monkeypatch) -> None:
    bare = schedule.decode
    running = threading.Semaphore(0)

    def failing(plan: ScenePlan, chunks: Sequence[Chunk]):
        if chunks[0].window.row >= 512:
            raise UnreadableSourceError("s.tif: pixels are lost")
        pixels = bare(plan, chunks)
        running.release()
        return pixels

    monkeypatch.setattr(schedule, "decode", failing)
    with ThreadPoolExecutor(2) as executor:
        made = schedule.tiles(plan, executor, workers=2, budget=Budget(1 << 30))
        with pytest.raises(UnreadableSourceError, match="lost"), closing(made):
            list(made)
        _check_nothing_left_to_do(executor)


def test_a_run_that_nobody_finishes_leaves_no_work_behind(plan) -> None:
    with ThreadPoolExecutor(2) as executor:
        with closing(schedule.tiles(plan, executor, workers=2, budget=Budget(1 << 30))) as made:
            next(made)
        _check_nothing_left_to_do(executor)
