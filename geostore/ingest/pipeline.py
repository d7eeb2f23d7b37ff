"""The way in: paths → scenes → tiles → backend; several scenes at once, each committed whole."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from geostore.errors import (
    ConflictError,
    GeostoreError,
    InvalidInputError,
    ReadOnlyError,
    StorageFullError,
    StoreLockedError,
)
from geostore.ingest.attempt import Attempt
from geostore.ingest.datasets import (
    DatasetRequest,
    PlannedDatasets,
    Proposal,
    check_request,
    propose,
    settle,
)
from geostore.ingest.job import Job, SceneSink
from geostore.ingest.lanes import Lane, run_lanes
from geostore.ingest.memory import Budget, MemoryShares
from geostore.ingest.plan import CELLS_MAX, ScenePlan, plan_scene
from geostore.ingest.spreading import check_executor, run_spread
from geostore.ingest.turns import Turns
from geostore.raster import block_cache_of
from geostore.scenes import (
    Ahead,
    FoundSource,
    ReadOptions,
    Remote,
    Scene,
    find_sources,
    reader_named,
)
from geostore.types import IngestProgress, SceneResult, SceneStatus, TimeSpan
from geostore.types.scene import WritingTurn

__all__ = ["SceneSink", "ingest"]

_LANES_MAX = 8
"""Scenes in work at once: more would only wait for each other's memory."""
_TELL_SECONDS = 0.5
"""How often the search for sources says how many it has."""
_TRIES_MAX = 10
"""How often a scene begins anew because its dataset was changed under it."""
_STORE_REFUSES = (StorageFullError, StoreLockedError, ReadOnlyError)
"""No scene's own fault: the next one would only meet the same again."""


def ingest(
    sink: SceneSink,
    paths: Sequence[str | os.PathLike[str]],
    *,
    dataset: str | None = None,
    reader: str | None = None,
    request: DatasetRequest | None = None,
    cells_max: int = CELLS_MAX,
    workers: int | None = None,
    memory_bytes: int | None = None,
    chunk_px: int = 1 << 20,
    replace: bool = False,
    dry_run: bool = False,
    time_span: TimeSpan | None = None,
    clouds: str | None = None,
    executor: str = "threads",
    named_outright: bool = True,
    remote: Callable[[], Remote] | None = None,
    progress: Callable[[IngestProgress], None] | None = None,
) -> Iterator[SceneResult]:
    """Put scenes into a store; yields one result a scene, in the order of the paths.

    Several scenes are in work at once, and blocks and cells of each; the store ends as if
    they had come one after another. A scene that fails leaves the store as it was and does
    not stop the others; a full disk, another writer or an interrupt stops the whole ingest
    after the scenes under way were given up.

    Args:
        paths: files, directories, archives, globs, addresses, STAC documents.
        dataset: where to; by default the dataset of the reader's own name. Created with the
            reader's defaults and `request` if it does not exist.
        reader: name of the reader to use; detected from content by default.
        cells_max: refuse scenes that could make more tiles.
        workers: threads; by default as many as this process has processors.
        memory_bytes: about how much to hold at once; by default a quarter of the machine.
        chunk_px: about how many pixels of a band to decode at once.
        replace: put a new version in place of another that is there.
        dry_run: plan only; results are `planned` or `failed`.
        time_span: the time of plain rasters (`--time`).
        clouds: a detector whose likelihood is added where it has the bands (`s2cloudless`).
        executor: `threads` of this process, `dask` for a Dask cluster on this machine, or
            `dask://HOST:PORT` for one that is there; both need a store that is a cluster.
        named_outright: whether a path that no reader claims is an error; false where the
            caller met it.
        remote: called where there is an address, for what fetches from it.

    Raises:
        InvalidInputError: an unknown reader, a bad name or number, a request that contradicts
            the dataset. NotFoundError: a path that does not exist. StorageFullError: the disk
            is full. StoreLockedError: another process writes. ReadOnlyError: no writing here.
    """
    if workers is not None and workers < 1:
        raise InvalidInputError(f"workers {workers}: expected at least 1")
    if cells_max < 1:
        raise InvalidInputError(f"max-tiles {cells_max}: expected at least 1")
    if reader is not None:
        reader_named(reader)
    request = request or DatasetRequest()
    check_request(sink, dataset, request)
    job = Job(
        sink=sink,
        dataset=dataset,
        reader=reader,
        request=request,
        cells_max=cells_max,
        workers=workers or len(os.sched_getaffinity(0)),
        shares=MemoryShares.of(memory_bytes),
        chunk_px=chunk_px,
        replace=replace,
        dry_run=dry_run,
        options=ReadOptions(time=time_span, clouds=clouds),
    )
    spread_over = check_executor(executor)
    if spread_over is not None and not (sink.takes_many_writers or dry_run):
        raise InvalidInputError(
            f"executor {executor!r}: a store in a directory has one writer at a time, and"
            " threads use all of its machine; expected a store that is a cluster"
            " (geostore://HOST:PORT)"
        )
    sources = find_sources(
        [os.fspath(path) for path in paths], remote=remote, named_outright=named_outright
    )
    found = list(sources if progress is None else _told(sources, progress))
    if spread_over is None or dry_run:
        return _run(job, found, progress)
    task = _OnWorker(dataclasses.replace(job, workers=1, first_scene_decides=False))
    return run_spread(found, task, address=spread_over, workers=workers, progress=progress)


def _told(
    sources: Iterable[FoundSource], progress: Callable[[IngestProgress], None]
) -> Iterator[FoundSource]:
    """The sources, with word of how many they are so far: a large tree takes long to walk."""
    spoken_s = time.monotonic()
    for count, found in enumerate(sources, start=1):
        yield found
        if time.monotonic() - spoken_s >= _TELL_SECONDS:
            spoken_s = time.monotonic()
            progress(
                IngestProgress(
                    path=str(found.path),
                    scene="",
                    dataset="",
                    cells_done=0,
                    cells_total=0,
                    tiles=0,
                    bytes=0,
                    sources_total=count,
                    is_search=True,
                )
            )


@dataclasses.dataclass(frozen=True, slots=True)
class _OnWorker:
    """One source's ingest, as it travels to a worker: with it goes how to open the store."""

    job: Job

    def __call__(self, found: FoundSource) -> list[SceneResult]:
        return list(_run(self.job, [found], None))


def _run(
    job: Job,
    sources: Sequence[FoundSource],
    progress: Callable[[IngestProgress], None] | None,
) -> Iterator[SceneResult]:
    turns = Turns()
    with ExitStack() as stack:
        stack.enter_context(block_cache_of(job.shares.block_cache_bytes))
        executor = stack.enter_context(
            ThreadPoolExecutor(job.workers, thread_name_prefix="geostore-ingest")
        )
        writing_turn = stack.enter_context(job.sink.writing_turns())
        ahead = stack.enter_context(Ahead(sources, reader=job.reader, options=job.options))
        course = _Course(job, turns, executor, writing_turn, ahead)
        yield from run_lanes(
            sources,
            course.ingest_source,
            turns,
            lanes=min(job.workers, _LANES_MAX),
            sources_total=len(sources),
            progress=progress,
        )


def _failed(
    path: str,
    error: GeostoreError,
    started: float,
    scene: Scene | None = None,
    dataset: str | None = None,
) -> SceneResult:
    text = str(error)
    return SceneResult(
        path=path,
        reader=scene.reader if scene else None,
        scene=scene.id if scene else None,
        dataset=dataset,
        status=SceneStatus.FAILED,
        seconds=time.perf_counter() - started,
        missing=scene.missing if scene else (),
        error=text if Path(path).name in text else f"{path}: {text}",
    )


class _Course:
    """One ingest: what its lanes share. `ingest_source` runs in each of them."""

    def __init__(
        self,
        job: Job,
        turns: Turns,
        executor: ThreadPoolExecutor,
        writing_turn: WritingTurn,
        ahead: Ahead,
    ) -> None:
        self._job = job
        self._turns = turns
        self._executor = executor
        self._writing_turn = writing_turn
        self._ahead = ahead
        self._budget = Budget(job.shares.decoded_bytes)
        self._datasets = PlannedDatasets(job.sink) if job.dry_run else job.sink

    def ingest_source(self, lane: Lane) -> None:
        """All scenes of one source."""
        started = time.perf_counter()
        path, job = str(lane.found.path), self._job
        self._turns.check()
        try:
            scenes = self._ahead.open(lane.found)
        except GeostoreError as error:
            self._turns.declare(lane.source, ())
            lane.result(_failed(path, error, started))
            return
        if not scenes:
            self._turns.declare(lane.source, ())
            lane.result(
                SceneResult(
                    path=path,
                    status=SceneStatus.SKIPPED,
                    seconds=time.perf_counter() - started,
                    error=lane.found.why_skipped(),
                )
            )
            return
        with ExitStack() as opened:
            for scene in scenes:
                opened.callback(scene.close)
            names = [job.dataset or scene.reader for scene in scenes]
            self._turns.declare(
                lane.source, [(name, scene.id) for name, scene in zip(names, scenes, strict=True)]
            )
            for name, scene in zip(names, scenes, strict=True):
                lane.result(self._ingest_scene(lane, scene, name, path))
                self._turns.end(lane.source, name, scene.id)
                scene.close()

    def _ingest_scene(self, lane: Lane, scene: Scene, dataset: str, path: str) -> SceneResult:
        started = time.perf_counter()
        try:
            for _ in range(_TRIES_MAX):
                result = self._try_scene(lane, scene, dataset, path)
                if result is not None:
                    return replace(result, seconds=time.perf_counter() - started)
            raise ConflictError(
                f"dataset {dataset!r}: others changed it {_TRIES_MAX}"
                " times while a scene for it was prepared; ingest it again"
            )
        except _STORE_REFUSES:
            raise
        except GeostoreError as error:
            return _failed(path, error, started, scene, dataset)

    def _propose(self, scene: Scene) -> Proposal:
        job = self._job
        return propose(
            self._datasets,
            scene,
            reader_named(scene.reader),
            job.dataset,
            job.request,
            first_scene_decides=job.first_scene_decides,
        )

    def _try_scene(self, lane: Lane, scene: Scene, dataset: str, path: str) -> SceneResult | None:
        """None: the dataset's definition changed under the attempt, which must begin anew."""
        job = self._job
        proposal = self._propose(scene)
        self._turns.wait(lane.source, dataset, scene.id, is_first=not proposal.is_stored)
        if not proposal.is_stored:
            proposal = self._propose(scene)
        plan = plan_scene(
            scene, proposal.definition, cells_max=job.cells_max, chunk_px=job.chunk_px
        )
        result = SceneResult(
            path=path,
            reader=scene.reader,
            scene=scene.id,
            dataset=proposal.definition.name,
            status=SceneStatus.PLANNED,
            tiles=len(plan.cells),
            missing=scene.missing,
        )
        if job.dry_run:
            settle(self._datasets, proposal)
            return replace(
                result, bytes=_estimate_bytes(plan), oversampling=round(plan.oversampling, 3)
            )
        attempt = Attempt(
            job,
            plan,
            proposal,
            executor=self._executor,
            budget=self._budget,
            check=self._turns.check,
            report=lane.report,
        )
        with self._writing_turn(self._turns.check):
            return attempt.run(result)


def _estimate_bytes(plan: ScenePlan) -> int:
    """Raw pixel bytes of all planned tiles: an upper bound of what will be stored."""
    a_tile = sum(
        group.height * group.width * np.dtype(band.dtype).itemsize
        for group in plan.schema.groups
        for band in group.bands
    )
    return a_tile * len(plan.cells)
