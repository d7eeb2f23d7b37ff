"""One scene's way into the store: begin, stage every tile, commit; or abort."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

from geostore.errors import InvalidInputError
from geostore.ingest.datasets import Proposal, settle
from geostore.ingest.job import Job
from geostore.ingest.memory import Budget
from geostore.ingest.plan import ScenePlan
from geostore.ingest.schedule import tiles
from geostore.types import EncodedTile, IngestProgress, SceneResult, SceneStatus

__all__ = ["Attempt"]

_BATCH_TILES = 16


class _OvertakenError(Exception):
    """Somebody else fixed the dataset's definition first."""


class Attempt:
    """One scene's way into the store: begin, stage every tile, commit; or abort.

    A dataset that the scene would create or complete is written only when there is a tile to
    put: a scene that turns out to be empty or unreadable leaves nothing behind.
    """

    def __init__(
        self,
        job: Job,
        plan: ScenePlan,
        proposal: Proposal,
        *,
        executor: ThreadPoolExecutor,
        budget: Budget,
        check: Callable[[], None],
        report: Callable[[IngestProgress], None],
    ) -> None:
        self.job = job
        self.plan = plan
        self.proposal = proposal
        self.executor = executor
        self.budget = budget
        self.check = check
        self.report = report
        self.has_begun = False
        self.cells: list[str] = []
        self.cells_done = 0
        self.stored_bytes = 0
        self.batch: list[EncodedTile] = []
        self.batch_bytes = 0

    def run(self, result: SceneResult) -> SceneResult | None:
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
            self._stage()
            self.check()
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

    def _stage(self) -> None:
        """Put every tile of the plan."""
        self._report()
        # Closed here, not by the garbage collector: no task may outlive a failed attempt.
        with closing(
            tiles(self.plan, self.executor, workers=self.job.workers, budget=self.budget)
        ) as made:
            for _cell, tile in made:
                self.check()
                self.cells_done += 1
                if tile is not None:
                    self.batch.append(tile)
                    self.batch_bytes += len(tile.payload)
                if (
                    len(self.batch) >= _BATCH_TILES
                    or self.batch_bytes >= self.job.shares.batch_bytes
                ):
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
        self.report(
            IngestProgress(
                path=self.plan.scene.path,
                scene=self.plan.scene.id,
                dataset=self.plan.definition.name,
                cells_done=self.cells_done,
                cells_total=len(self.plan.cells),
                tiles=len(self.cells),
                bytes=self.stored_bytes,
            )
        )
