"""What is known of a scene's way into the store."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self, TypeAlias

from geostore.types.plain import plain_fields

__all__ = [
    "IngestProgress",
    "SceneRecord",
    "SceneResult",
    "SceneState",
    "SceneStatus",
    "WritingTurn",
]

WritingTurn: TypeAlias = Callable[[Callable[[], None]], AbstractContextManager[None]]
"""What a scene's writing is done in; takes a function that raises to give up waiting."""


class SceneState(StrEnum):
    """Where a scene's version stands; only the record's writer moves it forward."""

    STAGING = "staging"
    """Tiles are being put, unseen."""
    COMMITTED = "committed"
    """Decided: every tile is durable; nodes may not all have published yet."""
    PUBLISHED = "published"
    """Every node serves it."""
    ABORTED = "aborted"
    """Given up: leavings may be cleared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneRecord:
    """The record whose one compare-and-set decides a scene.

    `version`/`cells` are what is served (or, in COMMITTED, about to be); `staging_*` is the
    one attempt under way, if any. An ABORTED record without `version` means that nothing of
    the scene is stored.
    """

    dataset_id: str
    scene: str
    state: SceneState
    version: str | None = None
    cells: tuple[str, ...] = ()
    lost_cells: tuple[str, ...] = ()
    """Cells of `version` whose tile was found damaged and set aside; ingesting the same
    source again puts them back."""
    replaced_version: str | None = None
    """What COMMITTED pushes out, until it is PUBLISHED and cleared."""
    replaced_cells: tuple[str, ...] = ()
    staging_version: str | None = None
    staging_cells: tuple[str, ...] = ()
    """Every cell that the attempt may have put (a superset: the footprint's covering)."""
    attempt: int = 0
    """Counts the scene's attempts: what nodes are told carries it, so that a late message of
    an older attempt is known."""
    path: str = ""
    reader: str = ""
    bytes: int = 0
    committed_us: int = 0
    properties: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        value = plain_fields(self)
        value["state"] = str(self.state)
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        value = dict(value)
        value["state"] = SceneState(value["state"])
        for name in ("cells", "lost_cells", "replaced_cells", "staging_cells"):
            value[name] = tuple(value.get(name, ()))
        return cls(**value)


class SceneStatus(StrEnum):
    """How one path or scene of an ingest ended."""

    INGESTED = "ingested"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"
    FAILED = "failed"
    PLANNED = "planned"
    """A dry run: it would be ingested."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneResult:
    """One line of an ingest's report; the fields are those of the CLI's jsonl."""

    path: str
    reader: str | None = None
    scene: str | None = None
    dataset: str | None = None
    status: SceneStatus
    tiles: int = 0
    bytes: int = 0
    """Stored bytes of the scene's tile files."""
    seconds: float = 0.0
    missing: tuple[str, ...] = ()
    """Bands that the product should have and lacks."""
    error: str | None = None
    oversampling: float | None = None
    """Dry runs: lattice pixels a source pixel, at the scene's middle."""

    def to_json(self) -> dict[str, Any]:
        value = plain_fields(self)
        value["status"] = str(self.status)
        value["missing"] = list(self.missing)
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestProgress:
    """Where an ingest stands; sent to the caller's `progress` after every batch of tiles.

    Several scenes may be in work at once: this is about one of them, and about all together.
    """

    path: str
    scene: str
    dataset: str
    cells_done: int
    """Cells of this scene that are dealt with."""
    cells_total: int
    tiles: int
    """Tiles of this scene that are durable."""
    bytes: int
    """Stored bytes of those tiles."""
    scenes_done: int = 0
    """Scenes that have ended, whatever their end."""
    sources_done: int = 0
    """Files, products and archives that are dealt with."""
    sources_total: int = 0
    """All that were found (so far)."""
    stored_tiles: int = 0
    """Tiles that this ingest has made durable, of all scenes."""
    stored_bytes: int = 0
    """Bytes of those."""
    is_search: bool = False
    """Sources are still being looked for: `path` is the last one found, and no scene's."""
