"""Runs a scene's plan on threads: chunks are decoded once, kept while a cell needs them, and
let go; cells are made as soon as their chunks are there. Memory is bounded by a budget of
decoded bytes, which all scenes in work share, and a bound on tiles that nobody has taken yet.
"""

from __future__ import annotations

import queue
from collections import Counter
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from geostore.errors import InternalError
from geostore.ingest.memory import Budget
from geostore.ingest.partition import ChunkPixels, make_tile
from geostore.ingest.plan import CellPlan, Chunk, ScenePlan
from geostore.raster import RasterBand
from geostore.types import EncodedTile

__all__ = ["decode", "tiles"]

_Label = tuple[Chunk, ...] | int
"""What a task is: decoding chunks, or making the tile of a cell by its position."""


def decode(plan: ScenePlan, chunks: Sequence[Chunk]) -> list[ChunkPixels]:
    """Read a window of one band from its source, or of several bands of one stack."""
    window = chunks[0].window
    place = (window.row, window.column, window.height, window.width)
    sources = [plan.bands[chunk.band].band.source for chunk in chunks]
    if len(sources) == 1:
        return [ChunkPixels(*sources[0].read(*place))]
    stack = [source for source in sources if isinstance(source, RasterBand)]
    return [ChunkPixels(data, valid) for data, valid in RasterBand.read_stack(stack, *place)]


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
        self.order = self._tasks()
        self.next_chunk = 0
        self.ready: list[int] = []
        self.decoding = 0
        self.making = 0
        self.held: dict[Chunk, ChunkPixels] = {}
        self.reserved_bytes = 0
        self.done: queue.SimpleQueue[tuple[_Label, Future[object]]] = queue.SimpleQueue()
        self.futures: set[Future[object]] = set()
        self.finished = [False] * len(plan.cells)
        self.oldest = 0

    def _tasks(self) -> list[tuple[Chunk, ...]]:
        """All chunks by first use, those that are decoded together as one."""
        stacks = {band: stack for stack in self.plan.stacks for band in stack}
        tasks: dict[tuple[Chunk, ...], None] = {}
        for chunk in self.wanted_by:
            together = (Chunk(band, chunk.window) for band in stacks[chunk.band])
            tasks.setdefault(tuple(one for one in together if one in self.wanted_by))
        return list(tasks)

    def _estimate_bytes(self, chunk: Chunk) -> int:
        itemsize = np.dtype(self.plan.bands[chunk.band].band.info.dtype).itemsize
        return chunk.window.height * chunk.window.width * (itemsize + 1)  # 1: validity

    def submit(self) -> None:
        """Start whatever may start: cells first, for they free memory."""
        while self.ready and self.making < self.in_flight_max:
            position = self.ready.pop(0)
            cell = self.plan.cells[position]
            held = {chunk: self.held[chunk] for chunk in self.needs[position]}
            self.making += 1
            self._start(position, make_tile, self.plan, cell, held)
        while self.next_chunk < len(self.order) and self.decoding < self.in_flight_max:
            chunks = self.order[self.next_chunk]
            estimate = sum(self._estimate_bytes(chunk) for chunk in chunks)
            urgent = self.wanted_by[chunks[0]][0] <= self.oldest
            if not self.budget.take(estimate, urgent=urgent):
                break
            self.reserved_bytes += estimate
            self.next_chunk += 1
            self.decoding += 1
            self._start(chunks, decode, self.plan, chunks)

    def _start(self, label: _Label, call: object, *arguments: object) -> None:
        future: Future[object] = self.executor.submit(call, *arguments)  # type: ignore[arg-type]
        self.futures.add(future)
        future.add_done_callback(lambda ended: self.done.put((label, ended)))

    def step(self) -> tuple[CellPlan, EncodedTile | None] | None:
        """Wait for one task to end; a finished cell is returned."""
        label, future = self.done.get()
        self.futures.discard(future)
        result = future.result()
        if isinstance(label, tuple):
            if not isinstance(result, list) or len(result) != len(label):
                raise InternalError(f"decoding {label} gave {type(result)}")
            self.decoding -= 1
            for chunk, pixels in zip(label, result, strict=True):
                self._hold(chunk, pixels)
            return None
        self.making -= 1
        self._release(label)
        if result is not None and not isinstance(result, EncodedTile):
            raise InternalError(f"cell {label} gave {type(result)}")
        return self.plan.cells[label], result

    def _hold(self, chunk: Chunk, pixels: ChunkPixels) -> None:
        self.held[chunk] = pixels
        for position in self.wanted_by[chunk]:
            self.missing[position] -= 1
            if not self.missing[position]:
                self.ready.append(position)

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
