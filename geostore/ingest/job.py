"""What one ingest was asked to do, and what it needs of a store."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from geostore.ingest.datasets import DatasetRequest, DatasetStore
from geostore.ingest.memory import MemoryShares
from geostore.scenes import ReadOptions
from geostore.types import DatasetDefinition, EncodedTile, SceneRecord
from geostore.types.scene import WritingTurn

__all__ = ["Job", "SceneSink"]


class SceneSink(DatasetStore, Protocol):
    """What an ingest needs of a backend."""

    @property
    def takes_many_writers(self) -> bool: ...

    def writing_turns(self) -> AbstractContextManager[WritingTurn]: ...

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
class Job:
    """What one call of `ingest` was asked to do."""

    sink: SceneSink
    dataset: str | None
    reader: str | None
    request: DatasetRequest
    cells_max: int
    workers: int
    shares: MemoryShares
    chunk_px: int
    replace: bool
    dry_run: bool
    options: ReadOptions
    first_scene_decides: bool = True
    """Whether a dataset may take its groups from its first scene: not where nobody can say
    which scene is the first."""
