"""The way in: paths → scenes → tiles → backend, one committed scene at a time."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from geostore.errors import (
    ConflictError,
    GeostoreError,
    InvalidInputError,
    ReadOnlyError,
    StorageFullError,
    StoreLockedError,
)
from geostore.ingest.datasets import (
    DatasetRequest,
    DatasetStore,
    Proposal,
    check_request,
    propose,
    settle,
)
from geostore.ingest.plan import CELLS_MAX, ScenePlan, plan_scene
from geostore.ingest.schedule import tiles
from geostore.raster import block_cache_of
from geostore.scenes import (
    FoundSource,
    ReadOptions,
    Scene,
    detect,
    find_sources,
    open_source,
    reader_named,
)
from geostore.types import (
    DatasetDefinition,
    EncodedTile,
    IngestProgress,
    SceneRecord,
    SceneResult,
    SceneStatus,
    TimeSpan,
)

__all__ = ["SceneSink", "ingest"]

_log = logging.getLogger(__name__)

_BATCH_TILES = 16
_BATCH_BYTES = 32 << 20
_BUDGET_BYTES_DEFAULT = 512 << 20
_BLOCK_CACHE_BYTES = 128 << 20
"""GDAL's own cache while a scene is read: chunks are whole blocks, so it is asked again only
for the other bands of pixel-interleaved files. Its default is a share of the machine."""

_TRIES_MAX = 10
"""How often a scene begins anew because its dataset was changed under it."""
_STORE_REFUSES = (StorageFullError, StoreLockedError, ReadOnlyError)
"""No scene's own fault: the next one would only meet the same again."""


class SceneSink(DatasetStore, Protocol):
    """What an ingest needs of a backend."""

    def begin_scene(
        self,
        definition: DatasetDefinition,
        scene: str,
        version: str,
        cells: Sequence[str],
        *,
        replace: bool,
        path: str,
        reader: str,
    ) -> SceneRecord | None: ...

    def put_tiles(self, tiles: Sequence[EncodedTile]) -> list[str]: ...

    def commit_scene(
        self,
        dataset_id: str,
        scene: str,
        version: str,
        cells: Sequence[str],
        *,
        bytes_total: int,
        properties: dict[str, Any],
    ) -> None: ...

    def abort_scene(self, dataset_id: str, scene: str, version: str) -> None: ...

    def scene_record(self, dataset_id: str, scene: str) -> SceneRecord | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What one call of `ingest` was asked to do."""

    sink: SceneSink
    dataset: str | None
    reader: str | None
    request: DatasetRequest
    cells_max: int
    workers: int
    budget_bytes: int
    chunk_px: int
    replace: bool
    dry_run: bool
    options: ReadOptions
    progress: Callable[[IngestProgress], None] | None


def ingest(
    sink: SceneSink,
    paths: Sequence[str | os.PathLike[str]],
    *,
    dataset: str | None = None,
    reader: str | None = None,
    request: DatasetRequest | None = None,
    cells_max: int = CELLS_MAX,
    workers: int | None = None,
    budget_bytes: int = _BUDGET_BYTES_DEFAULT,
    chunk_px: int = 1 << 20,
    replace: bool = False,
    dry_run: bool = False,
    time_span: TimeSpan | None = None,
    progress: Callable[[IngestProgress], None] | None = None,
) -> Iterator[SceneResult]:
    """Put scenes into a store; yields one result a scene, as it ends.

    A scene that fails leaves the store as it was and does not stop the others; a full disk,
    another writer or an interrupt stops the whole ingest after the scene under way was given
    up.

    Args:
        paths: files, directories, archives, globs.
        dataset: where to; by default the dataset of the reader's own name. Created with the
            reader's defaults and `request` if it does not exist.
        reader: name of the reader to use; detected from content by default.
        cells_max: refuse scenes that could make more tiles.
        workers: threads; by default as many as this process has processors.
        budget_bytes: about how many decoded bytes to hold at once.
        chunk_px: about how many pixels of a band to decode at once.
        replace: put a new version in place of another that is there.
        dry_run: plan only; results are `planned` or `failed`.
        time_span: the time of plain rasters (`--time`).

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
    job = _Job(
        sink=sink,
        dataset=dataset,
        reader=reader,
        request=request,
        cells_max=cells_max,
        workers=workers or len(os.sched_getaffinity(0)),
        budget_bytes=budget_bytes,
        chunk_px=chunk_px,
        replace=replace,
        dry_run=dry_run,
        options=ReadOptions(time=time_span),
        progress=progress,
    )
    return _run(job, list(find_sources([os.fspath(path) for path in paths])))


def _run(job: _Job, sources: Sequence[FoundSource]) -> Iterator[SceneResult]:
    done = 0
    with ThreadPoolExecutor(job.workers, thread_name_prefix="geostore-ingest") as executor:
        for source in sources:
            for result in _ingest_source(job, executor, source, done):
                done += 1
                yield result


def _ingest_source(
    job: _Job, executor: ThreadPoolExecutor, source: FoundSource, done: int
) -> Iterator[SceneResult]:
    started = time.perf_counter()
    path = str(source.path)
    try:
        if job.reader is None and not source.named_outright and detect(source.path) is None:
            yield SceneResult(
                path=path,
                status=SceneStatus.SKIPPED,
                seconds=time.perf_counter() - started,
                error="no reader claims this file",
            )
            return
        scenes = open_source(source.path, reader=job.reader, options=job.options)
    except GeostoreError as error:
        yield _failed(path, error, started)
        return
    for number, scene in enumerate(scenes):
        try:
            yield _ingest_scene(job, executor, scene, path, done + number)
        finally:
            scene.close()


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


def _ingest_scene(
    job: _Job, executor: ThreadPoolExecutor, scene: Scene, path: str, done: int
) -> SceneResult:
    started = time.perf_counter()
    try:
        result = None
        with block_cache_of(_BLOCK_CACHE_BYTES):
            for _ in range(_TRIES_MAX):
                result = _try_scene(job, executor, scene, path, done)
                if result is not None:
                    break
            else:
                raise ConflictError(
                    f"dataset {job.dataset or scene.reader!r}: others changed it {_TRIES_MAX}"
                    " times while a scene for it was prepared; ingest it again"
                )
    except _STORE_REFUSES:
        raise
    except GeostoreError as error:
        return _failed(path, error, started, scene, job.dataset or scene.reader)
    return replace(result, seconds=time.perf_counter() - started)


def _try_scene(
    job: _Job, executor: ThreadPoolExecutor, scene: Scene, path: str, done: int
) -> SceneResult | None:
    """None: the dataset's definition changed under the attempt, which must begin anew."""
    proposal = propose(job.sink, scene, reader_named(scene.reader), job.dataset, job.request)
    plan = plan_scene(scene, proposal.definition, cells_max=job.cells_max, chunk_px=job.chunk_px)
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
        return replace(
            result, bytes=_estimate_bytes(plan), oversampling=round(plan.oversampling, 3)
        )
    return _Attempt(job, plan, proposal, done).run(executor, result)


def _estimate_bytes(plan: ScenePlan) -> int:
    """Raw pixel bytes of all planned tiles: an upper bound of what will be stored."""
    a_tile = sum(
        group.height * group.width * np.dtype(band.dtype).itemsize
        for group in plan.schema.groups
        for band in group.bands
    )
    return a_tile * len(plan.cells)


class _OvertakenError(Exception):
    """Somebody else fixed the dataset's definition first."""


class _Attempt:
    """One scene's way into the store: begin, stage every tile, commit; or abort.

    A dataset that the scene would create or complete is written only when there is a tile to
    put: a scene that turns out to be empty or unreadable leaves nothing behind.
    """

    def __init__(self, job: _Job, plan: ScenePlan, proposal: Proposal, done: int) -> None:
        self.job = job
        self.plan = plan
        self.proposal = proposal
        self.scenes_done = done
        self.has_begun = False
        self.cells: list[str] = []
        self.cells_done = 0
        self.stored_bytes = 0
        self.batch: list[EncodedTile] = []
        self.batch_bytes = 0

    def run(self, executor: ThreadPoolExecutor, result: SceneResult) -> SceneResult | None:
        """The scene's result; None if the attempt was overtaken."""
        sink, plan = self.job.sink, self.plan
        key = (plan.definition.id, plan.scene.id, plan.version)
        try:
            if self.proposal.is_stored and not self._begin():
                record = sink.scene_record(*key[:2])
                return replace(
                    result,
                    status=SceneStatus.UNCHANGED,
                    tiles=len(record.cells) if record else 0,
                    bytes=record.bytes if record else 0,
                )
            self._stage(executor)
            sink.commit_scene(
                *key,
                sorted(self.cells),
                bytes_total=self.stored_bytes,
                properties=dict(plan.scene.properties),
            )
        except _OvertakenError:
            return None
        except BaseException:
            # Ctrl-C and worker crashes too: what was staged must not linger.
            if self.has_begun:
                sink.abort_scene(*key)
            raise
        return replace(
            result,
            status=SceneStatus.INGESTED,
            tiles=len(self.cells),
            bytes=self.stored_bytes,
        )

    def _begin(self) -> bool:
        """False: this very version is there already."""
        if not settle(self.job.sink, self.proposal):
            raise _OvertakenError
        self.has_begun = True  # Ctrl-C inside the call is taken back too
        begun = self.job.sink.begin_scene(
            self.plan.definition,
            self.plan.scene.id,
            self.plan.version,
            self.plan.geocodes,
            replace=self.job.replace,
            path=self.plan.scene.path,
            reader=self.plan.scene.reader,
        )
        self.has_begun = begun is not None
        return self.has_begun

    def _stage(self, executor: ThreadPoolExecutor) -> None:
        """Put every tile of the plan."""
        self._report()
        # Closed here, not by the garbage collector: no task may outlive a failed attempt.
        with closing(
            tiles(
                self.plan,
                executor,
                workers=self.job.workers,
                budget_bytes=self.job.budget_bytes,
            )
        ) as made:
            for _cell, tile in made:
                self.cells_done += 1
                if tile is not None:
                    self.batch.append(tile)
                    self.batch_bytes += len(tile.payload)
                if len(self.batch) >= _BATCH_TILES or self.batch_bytes >= _BATCH_BYTES:
                    self._put()
        self._put()
        if not self.cells:
            raise InvalidInputError(f"{self.plan.scene.path}: no band has a valid pixel")

    def _put(self) -> None:
        """Make the batch durable; the attempt begins with the first tile at the latest."""
        if self.batch:
            if not self.has_begun and not self._begin():
                raise _OvertakenError  # a dataset of the same name and this very scene appeared
            self.job.sink.put_tiles(self.batch)
            self.stored_bytes += self.batch_bytes
            self.cells += [tile.meta.key.geocode for tile in self.batch]
            self.batch, self.batch_bytes = [], 0
        self._report()

    def _report(self) -> None:
        if self.job.progress is not None:
            self.job.progress(
                IngestProgress(
                    path=self.plan.scene.path,
                    scene=self.plan.scene.id,
                    dataset=self.plan.definition.name,
                    scenes_done=self.scenes_done,
                    cells_done=self.cells_done,
                    cells_total=len(self.plan.cells),
                    tiles=len(self.cells),
                    bytes=self.stored_bytes,
                )
            )
