"""Runs a scene's plan on threads: chunks are decoded once, kept while a cell needs them, and
let go; cells are made as soon as their chunks are there. Memory is bounded by a budget of
decoded bytes, which all scenes in work share, and a bound on tiles that nobody has taken yet.
"""

from __future__ import annotations

import queue
from collections import Counter
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from geostore.errors import InternalError
from geostore.ingest.memory import Budget
from geostore.ingest.partition import ChunkPixels, make_tile
from geostore.ingest.plan import CellPlan, Chunk, ScenePlan
from geostore.types import EncodedTile

__all__ = ["decode", "tiles"]


def decode(plan: ScenePlan, chunk: Chunk) -> ChunkPixels:
    """Read one chunk of one band from its source."""
    window = chunk.window
    data, valid = plan.bands[chunk.band].band.source.read(
        window.row, window.column, window.height, window.width
    )
    return ChunkPixels(data, valid)


class _Run:
    """The state of one scene's run; only the thread that iterates touches it."""

    def __init__(
        self, plan: ScenePlan, executor: ThreadPoolExecutor, workers: int, budget: Budget
    ) -> None:
        self.plan = plan
        self.executor = executor
        self.in_flight_max = workers + 2
        self.budget = budget
        self.needs = [plan.chunks(cell) for cell in plan.cells]
        self.uses = Counter(chunk for needed in self.needs for chunk in needed)
        self.wanted_by: dict[Chunk, list[int]] = {}
        self.missing = [len(needed) for needed in self.needs]
        for position, needed in enumerate(self.needs):
            for chunk in needed:
                self.wanted_by.setdefault(chunk, []).append(position)
        self.order = list(self.wanted_by)  # by first use
        self.next_chunk = 0
        self.ready: list[int] = []
        self.decoding = 0
        self.making = 0
        self.held: dict[Chunk, ChunkPixels] = {}
        self.reserved_bytes = 0
        self.done: queue.SimpleQueue[tuple[Chunk | int, Future[object]]] = queue.SimpleQueue()
        self.futures: set[Future[object]] = set()
        self.finished = [False] * len(plan.cells)
        self.oldest = 0

    def _estimate_bytes(self, chunk: Chunk) -> int:
        itemsize = np.dtype(self.plan.bands[chunk.band].band.info.dtype).itemsize
        return chunk.window.height * chunk.window.width * (itemsize + 1)  # 1: validity

    def submit(self) -> None:
        """Start whatever may start: cells first, for they free memory."""
        while self.ready and self.making < self.in_flight_max:
            position = self.ready.pop(0)
            cell = self.plan.cells[position]
            chunks = {chunk: self.held[chunk] for chunk in self.needs[position]}
            self.making += 1
            self._start(position, make_tile, self.plan, cell, chunks)
        while self.next_chunk < len(self.order) and self.decoding < self.in_flight_max:
            chunk = self.order[self.next_chunk]
            estimate = self._estimate_bytes(chunk)
            urgent = self.wanted_by[chunk][0] <= self.oldest
            if not self.budget.take(estimate, urgent=urgent):
                break
            self.reserved_bytes += estimate
            self.next_chunk += 1
            self.decoding += 1
            self._start(chunk, decode, self.plan, chunk)

    def _start(self, label: Chunk | int, call: object, *arguments: object) -> None:
        future: Future[object] = self.executor.submit(call, *arguments)  # type: ignore[arg-type]
        self.futures.add(future)
        future.add_done_callback(lambda ended: self.done.put((label, ended)))

    def step(self) -> tuple[CellPlan, EncodedTile | None] | None:
        """Wait for one task to end; a finished cell is returned."""
        label, future = self.done.get()
        self.futures.discard(future)
        result = future.result()
        if isinstance(label, Chunk):
            if not isinstance(result, ChunkPixels):
                raise InternalError(f"decoding {label} gave {type(result)}")
            self.decoding -= 1
            self.held[label] = result
            for position in self.wanted_by[label]:
                self.missing[position] -= 1
                if not self.missing[position]:
                    self.ready.append(position)
            return None
        self.making -= 1
        self._release(label)
        if result is not None and not isinstance(result, EncodedTile):
            raise InternalError(f"cell {label} gave {type(result)}")
        return self.plan.cells[label], result

    def _release(self, position: int) -> None:
        self.finished[position] = True
        while self.oldest < len(self.finished) and self.finished[self.oldest]:
            self.oldest += 1
        for chunk in self.needs[position]:
            self.uses[chunk] -= 1
            if not self.uses[chunk]:
                del self.held[chunk]
                self._give_back(self._estimate_bytes(chunk))

    def _give_back(self, size_bytes: int) -> None:
        self.reserved_bytes -= size_bytes
        self.budget.give_back(size_bytes)

    def cancel(self) -> None:
        """Let nothing of this run outlive it."""
        for future in self.futures:
            future.cancel()
        for future in list(self.futures):
            if not future.cancelled():
                future.exception()
        self._give_back(self.reserved_bytes)


def tiles(
    plan: ScenePlan, executor: ThreadPoolExecutor, *, workers: int, budget: Budget
) -> Generator[tuple[CellPlan, EncodedTile | None]]:
    """Every cell of the plan with its tile (None where it has no valid pixel).

    Cells come as they are ready. Decoded chunks take what `budget` has left, or what one cell
    needs if that is more. The first error of any task ends the run.

    Args:
        executor: where decoding and tile making run.
        workers: its threads.
    """
    run = _Run(plan, executor, workers, budget)
    remaining = len(plan.cells)
    try:
        while remaining:
            run.submit()
            finished = run.step()
            if finished is not None:
                remaining -= 1
                yield finished
    finally:
        run.cancel()
