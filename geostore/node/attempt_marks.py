"""What a node keeps of a scene's attempts so that late messages do no harm; pure.

A node remembers, for each scene it ever held tiles of, the newest attempt it heard of and
whether that one was cleared. Messages of older attempts are then known for what they are: a
put is refused, a publication or clearing was answered before and is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from geostore.errors import ConflictError
from geostore.types import SceneRecord, SceneState

__all__ = ["Mark", "Resolution", "after_clear", "after_publish", "after_stage", "resolve"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The newest attempt at a scene that the node heard of."""

    attempt: int
    is_cleared: bool = False
    """Told to clear it: what is put under its number now comes too late."""


def after_stage(mark: Mark | None, attempt: int, scene: str) -> Mark:
    """The mark before tiles of `attempt` are staged; to be durable before the first file is.

    Raises:
        ConflictError: the attempt was given up, or overtaken by a newer one.
    """
    if mark is None or attempt > mark.attempt:
        return Mark(attempt=attempt)
    if attempt < mark.attempt or mark.is_cleared:
        raise ConflictError(
            f"scene {scene!r}: attempt {attempt} was given up or overtaken; ingest it again"
        )
    return mark


def after_publish(mark: Mark | None, attempt: int) -> tuple[Mark, bool]:
    """The mark, and whether to publish; else the message is an echo of what was done."""
    if mark is not None and attempt < mark.attempt:
        return mark, False
    return Mark(attempt=attempt), True


def after_clear(mark: Mark | None, attempt: int) -> tuple[Mark, bool]:
    """The mark, to be durable before anything goes, and whether to clear."""
    if mark is not None and attempt < mark.attempt:
        return mark, False
    return Mark(attempt=attempt, is_cleared=True), True


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What a starting node does with a version that it finds staged."""

    action: Literal["keep", "publish", "clear"]
    cells: tuple[str, ...] = ()
    """Of a publication: those of the node's staged cells that the record names."""
    replaced_version: str | None = None


def resolve(record: SceneRecord | None, version: str, cells: Iterable[str]) -> Resolution:
    """What the scene's record, as its home has it now, means for staged `cells` of `version`."""
    if record is None:
        return Resolution(action="clear")
    if record.state is SceneState.STAGING and record.staging_version == version:
        return Resolution(action="keep")
    if record.version == version:
        wanted = tuple(sorted(set(cells) & set(record.cells)))
        if wanted:
            return Resolution(
                action="publish", cells=wanted, replaced_version=record.replaced_version
            )
    return Resolution(action="clear")
