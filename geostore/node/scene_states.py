"""A scene's way into the store, as pure functions over its record.

`advance(record, event)` says what the record becomes; the caller makes that durable by one
compare-and-set and only then does what `demand(record)` names, telling each deed back as an
event. What is demanded follows from the record alone, so whoever finds a record after a
crash goes on where its writer stopped, and every demand may be met twice.

    nothing ──Begin──▶ STAGING ──Commit──▶ COMMITTED ──Publish──▶ PUBLISHED ──Clear──▶ settled
                          │                                          ▲
                        Abort ──▶ ABORTED ──Clear──▶ settled ────────┘ (a version served before)

The record's side of design decision 6; `scene_home` has the order in which nodes are told.
Nothing in either knows of disks, threads or sockets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from geostore.errors import ConflictError, InvalidInputError
from geostore.types import SceneRecord, SceneState

__all__ = [
    "Abort",
    "Begin",
    "Clear",
    "Cleared",
    "Commit",
    "Demand",
    "Event",
    "Publish",
    "Published",
    "advance",
    "check",
    "demand",
    "is_settled",
    "is_unchanged",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """An attempt at `version`, which may put any of `cells`."""

    dataset_id: str
    scene: str
    version: str
    cells: tuple[str, ...]
    replace: bool
    path: str
    reader: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The attempt at `version` is whole: exactly `cells` are staged and durable."""

    version: str
    cells: tuple[str, ...]
    bytes_total: int
    now_us: int
    path: str = ""
    reader: str = ""
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    """The attempt is given up, by its caller or because its process is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Every node serves the committed version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """The leavings are gone: staged rows and files, or those of the replaced version."""


Event = Begin | Commit | Abort | Published | Cleared


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """Show `version` to queries and hide `replaced_version`, in one transaction a node."""

    version: str
    replaced_version: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Clear:
    """Remove unseen rows and the files of `cells` of `version`."""

    version: str
    cells: tuple[str, ...]


Demand = Publish | Clear


def demand(record: SceneRecord) -> Demand | None:
    """What a durable record asks of its node next; None when settled or under way."""
    if record.state is SceneState.COMMITTED:
        assert record.version is not None
        return Publish(version=record.version, replaced_version=record.replaced_version)
    if record.state is SceneState.PUBLISHED and record.replaced_version is not None:
        return Clear(version=record.replaced_version, cells=record.replaced_cells)
    if record.state is SceneState.ABORTED and record.staging_version is not None:
        return Clear(version=record.staging_version, cells=record.staging_cells)
    return None


def is_settled(record: SceneRecord) -> bool:
    """Whether a starting writer may pass the record by: no attempt, no demand."""
    return record.state is not SceneState.STAGING and demand(record) is None


def is_unchanged(record: SceneRecord | None, version: str) -> bool:
    """Whether that very version is published, whole."""
    return (
        record is not None
        and record.state in {SceneState.PUBLISHED, SceneState.STAGING}
        and record.version == version
        and not record.lost_cells
    )


def advance(record: SceneRecord | None, event: Event) -> SceneRecord:
    """The record after the event; equal to `record` where the event changes nothing.

    Begin asks for a settled record or one whose attempt is the same: the caller aborts and
    clears another attempt first.

    Raises:
        ConflictError: the event does not fit the record's state or version.
        InvalidInputError: a commit names cells that the attempt never announced.
    """
    if isinstance(event, Begin):
        after = _begun(record, event)
    elif record is None:
        raise ConflictError("scene: nothing was begun; begin it before anything else")
    elif isinstance(event, Commit):
        after = _committed(record, event)
    elif isinstance(event, Abort):
        after = _aborted(record)
    elif isinstance(event, Published):
        after = _published(record)
    else:
        after = _cleared(record)
    check(after)
    return after


def _begun(record: SceneRecord | None, event: Begin) -> SceneRecord:
    if record is None:
        record = SceneRecord(
            dataset_id=event.dataset_id, scene=event.scene, state=SceneState.ABORTED
        )
    if record.state is SceneState.STAGING and record.staging_version == event.version:
        published = record.cells if record.version == event.version else ()
        announced = {*record.staging_cells, *event.cells}.difference(published)
        return replace(record, staging_cells=tuple(sorted(announced)))
    if not is_settled(record):
        raise ConflictError(
            f"scene {record.scene!r}: an earlier attempt is {record.state}; settle it first"
        )
    if is_unchanged(record, event.version):
        return record
    cells = event.cells
    if record.version == event.version:
        cells = record.lost_cells  # the rest is published and stays
    elif record.version is not None and not event.replace:
        raise ConflictError(
            f"scene {record.scene!r} is stored already, from another source file or with other"
            f" settings (version {record.version[:12]}, this one is {event.version[:12]});"
            " pass --replace (replace=True) to put this one in its place"
        )
    served = record.version is not None
    return replace(
        record,
        state=SceneState.STAGING,
        staging_version=event.version,
        staging_cells=tuple(sorted(set(cells))),
        attempt=record.attempt + 1,
        path=record.path if served else event.path,
        reader=record.reader if served else event.reader,
    )


def _committed(record: SceneRecord, event: Commit) -> SceneRecord:
    if record.state is not SceneState.STAGING and record.version == event.version:
        return record  # decided before: told twice
    if record.state is not SceneState.STAGING or record.staging_version != event.version:
        raise ConflictError(
            f"scene {record.scene!r}: version {event.version[:12]} cannot be committed, the"
            f" record is {record.state} with attempt {(record.staging_version or 'none')[:12]}"
        )
    repairs = record.version == event.version
    announced = set(record.staging_cells).union(record.cells if repairs else ())
    unknown = sorted(set(event.cells) - announced)
    if unknown:
        raise InvalidInputError(
            f"scene {record.scene!r}: commit names {len(unknown)} cells that were never"
            f" announced (first: {unknown[0]})"
        )
    return replace(
        record,
        state=SceneState.COMMITTED,
        version=event.version,
        cells=tuple(sorted(set(event.cells))),
        lost_cells=(),
        replaced_version=None if repairs else record.version,
        replaced_cells=() if repairs else record.cells,
        staging_version=None,
        staging_cells=(),
        path=event.path or record.path,
        reader=event.reader or record.reader,
        bytes=event.bytes_total,
        committed_us=event.now_us,
        properties=dict(event.properties),
    )


def _aborted(record: SceneRecord) -> SceneRecord:
    if record.state is SceneState.ABORTED:
        return record
    if record.state is not SceneState.STAGING:
        raise ConflictError(
            f"scene {record.scene!r} is {record.state}: what is decided cannot be aborted"
        )
    return replace(record, state=SceneState.ABORTED)


def _published(record: SceneRecord) -> SceneRecord:
    if record.state is SceneState.PUBLISHED:
        return record
    if record.state is not SceneState.COMMITTED:
        raise ConflictError(f"scene {record.scene!r} is {record.state}, not committed")
    return replace(record, state=SceneState.PUBLISHED)


def _cleared(record: SceneRecord) -> SceneRecord:
    if record.state is SceneState.PUBLISHED:
        return replace(record, replaced_version=None, replaced_cells=())
    if record.state is not SceneState.ABORTED:
        raise ConflictError(f"scene {record.scene!r} is {record.state}: nothing may be cleared")
    state = SceneState.ABORTED if record.version is None else SceneState.PUBLISHED
    return replace(record, state=state, staging_version=None, staging_cells=())


def check(record: SceneRecord) -> None:
    """Asserts what holds for every record that `advance` gives."""
    state = record.state
    if state is SceneState.STAGING:
        assert record.staging_version is not None
    if state in {SceneState.COMMITTED, SceneState.PUBLISHED}:
        assert record.version is not None
        assert record.staging_version is None
    if record.replaced_version is not None:
        assert state in {SceneState.COMMITTED, SceneState.PUBLISHED}
        assert record.replaced_version != record.version
    if record.version is None:
        assert not record.cells
    if record.staging_version == record.version:
        assert not set(record.staging_cells) & set(record.cells)
