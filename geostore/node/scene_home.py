"""A scene's way into a store, as its record's home drives it (design decision 6), sans I/O.

Each function is a generator: it yields what is to be done (`Effect`) and is sent the answer,
or has the error thrown in. Nodes run them over disks and sockets, the simulation over seeded
faults. What a record demands is `scene_states`' business; here is who is told, and in what
order:

    begin    settle what is there; save STAGING; copy the record to the slot's other replicas
    (put)    the client stages tiles at each cell's nodes under the record's attempt number
    commit   every node confirms its cells durable; save COMMITTED (decides); copy;
             every node publishes; save PUBLISHED; copy; replaced files are removed
    abort    save ABORTED; copy; only then is every node told to clear

An effect that fails stops the generator, never the scene: the record says how to go on, and
`settle` does, as often as it takes. Every message carries the attempt's number; a node that
has seen a newer one ignores it, so messages may come late, twice, or after a restart.
The driver runs one generator a scene at a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from geostore.errors import ConflictError, GeostoreError, InvalidInputError
from geostore.node import scene_states as states
from geostore.types import (
    ClearRequest,
    DatasetDefinition,
    PublishRequest,
    SceneRecord,
    SceneState,
)

__all__ = [
    "Confirm",
    "Effect",
    "Load",
    "Place",
    "Remove",
    "Replicate",
    "Save",
    "Show",
    "Steps",
    "Stored",
    "abort",
    "begin",
    "check_begin",
    "commit",
    "drive",
    "is_decided",
    "settle",
]

VERSION_LENGTH_MAX: Final = 128
_CELL = re.compile(r"^[0-9a-z]+\Z")

Place = Callable[[str], Sequence[str]]
"""The ids of the nodes that hold a cell, first replica first; by the ring alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A record as it lies at its home."""

    record: SceneRecord
    revision: int
    """What the next change must expect."""
    is_copied: bool
    """Whether every other replica of the record's slot is known to have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Answer: the scene's `Stored`, or None where nothing was ever begun."""

    dataset_id: str
    scene: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """Make the record durable at home, not yet copied. Answer: its new revision.

    Throws ConflictError: it is not at `expected_revision` (0: not there).
    """

    record: SceneRecord
    expected_revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicate:
    """Bring the record to the slot's other replicas, then note durably that it was done.

    Throws UnavailableError until all have it. Answer: the revision after the note.
    """

    record: SceneRecord
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirm:
    """Ask nodes for cells that they do not hold. Answer: (node id, cell) of each such."""

    requests: Mapping[str, PublishRequest]


@dataclass(frozen=True, slots=True, kw_only=True)
class Show:
    """Make each node publish. Throws UnavailableError unless all did."""

    requests: Mapping[str, PublishRequest]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """Make each node clear. Throws UnavailableError unless all did."""

    requests: Mapping[str, ClearRequest]


Effect = Load | Save | Replicate | Confirm | Show | Remove
Steps = Generator[Effect, Any, SceneRecord | None]
"""A run: yields effects, returns the record as it then is."""
_Change = Generator[Effect, Any, Stored]
_Settling = Generator[Effect, Any, Stored | None]


def drive(steps: Steps, do: Callable[[Effect], Any]) -> SceneRecord | None:
    """Runs `steps` to their end; `do` does one effect and returns its answer."""
    try:
        effect = next(steps)
        while True:
            try:
                answer = do(effect)
            except GeostoreError as error:
                effect = steps.throw(error)
            else:
                effect = steps.send(answer)
    except StopIteration as stopped:
        record: SceneRecord | None = stopped.value
        return record


def check_begin(definition: DatasetDefinition, version: str, cells: Sequence[str]) -> None:
    """Checks what becomes part of names. Raises InvalidInputError."""
    for cell in cells:  # they become file names
        if len(cell) != definition.length or not _CELL.match(cell):
            raise InvalidInputError(
                f"cell {cell[:40]!r}: expected a {definition.scheme} of"
                f" {definition.length} characters"
            )
    if not 1 <= len(version) <= VERSION_LENGTH_MAX or not version.isprintable():
        raise InvalidInputError(
            f"scene version {version[:40]!r}: expected 1..{VERSION_LENGTH_MAX} characters"
        )


def _saved(old: Stored | None, record: SceneRecord) -> _Change:
    """The record durable and copied, in that order."""
    if old is not None and old.record == record:
        return (yield from _copied(old))
    revision = yield Save(record=record, expected_revision=0 if old is None else old.revision)
    return (yield from _copied(Stored(record=record, revision=revision, is_copied=False)))


def _copied(stored: Stored) -> _Change:
    if stored.is_copied:
        return stored
    revision = yield Replicate(record=stored.record, revision=stored.revision)
    return Stored(record=stored.record, revision=revision, is_copied=True)


def _by_node(cells: Sequence[str], place: Place) -> dict[str, list[str]]:
    nodes: dict[str, list[str]] = {}
    for cell in cells:
        for node_id in place(cell):
            nodes.setdefault(node_id, []).append(cell)
    return nodes


def publish_requests(
    record: SceneRecord,
    place: Place,
    *,
    version: str,
    cells: Sequence[str],
    replaced_version: str | None,
    replaced_cells: Sequence[str],
) -> dict[str, PublishRequest]:
    """What each node is to show and hide."""
    shown, hidden = _by_node(cells, place), _by_node(replaced_cells, place)
    return {
        node_id: PublishRequest(
            dataset_id=record.dataset_id,
            scene=record.scene,
            version=version,
            attempt=record.attempt,
            cells=tuple(shown.get(node_id, ())),
            replaced_version=replaced_version,
            replaced_cells=tuple(hidden.get(node_id, ())),
        )
        for node_id in sorted({*shown, *hidden})
    }


def _settled(stored: Stored | None, place: Place) -> _Settling:
    """Does what a record demands until it demands nothing more."""
    if stored is None:
        return None
    stored = yield from _copied(stored)
    while demand := states.demand(stored.record):
        record = stored.record
        if isinstance(demand, states.Publish):
            requests = publish_requests(
                record,
                place,
                version=demand.version,
                cells=record.cells,
                replaced_version=demand.replaced_version,
                replaced_cells=record.replaced_cells,
            )
            yield Show(requests=requests)
            stored = yield from _saved(stored, states.advance(record, states.Published()))
        else:
            clears = {
                node_id: ClearRequest(
                    dataset_id=record.dataset_id,
                    scene=record.scene,
                    version=demand.version,
                    attempt=record.attempt,
                    cells=tuple(cells),
                )
                for node_id, cells in _by_node(demand.cells, place).items()
            }
            yield Remove(requests=clears)
            stored = yield from _saved(stored, states.advance(record, states.Cleared()))
    return stored


def settle(dataset_id: str, scene: str, place: Place) -> Steps:
    """Finishes what was decided and clears what was given up; an open attempt stays open."""
    stored = yield Load(dataset_id=dataset_id, scene=scene)
    stored = yield from _settled(stored, place)
    return None if stored is None else stored.record


def begin(event: states.Begin, place: Place, *, may_take_over: bool) -> Steps:
    """Opens an attempt, or joins the open one at the same version.

    `may_take_over`: nobody holds the open attempt any more, so one at another version is
    given up first. Returns the record; it is not STAGING where that version is published
    already.

    Raises:
        ConflictError: another ingester is at it with another version; or another version is
            stored and the event does not say replace.
    """
    stored = yield Load(dataset_id=event.dataset_id, scene=event.scene)
    stored = yield from _settled(stored, place)
    if stored is not None and stored.record.state is SceneState.STAGING:
        is_same = stored.record.staging_version == event.version
        if not is_same and not may_take_over:
            raise ConflictError(
                f"scene {event.scene!r}: another ingester is putting it with other settings or"
                f" from another file (version {(stored.record.staging_version or '')[:12]}, this"
                f" one is {event.version[:12]}); try again when it is done"
            )
        if not is_same:
            stored = yield from _given_up(stored, place)
    record = None if stored is None else stored.record
    if states.is_unchanged(record, event.version):
        return record
    stored = yield from _saved(stored, states.advance(record, event))
    return stored.record


def _given_up(stored: Stored, place: Place) -> _Settling:
    # The word first, the deed after: were tiles cleared while the record still said STAGING,
    # a crash in between would let the attempt's commit find them missing.
    stored = yield from _saved(stored, states.advance(stored.record, states.Abort()))
    return (yield from _settled(stored, place))


def is_decided(record: SceneRecord, version: str) -> bool:
    """Whether it is too late to give that version up."""
    return record.version == version and record.state in {
        SceneState.COMMITTED,
        SceneState.PUBLISHED,
    }


def commit(dataset_id: str, scene: str, attempt: int, event: states.Commit, place: Place) -> Steps:
    """Decides an attempt and shows it; told again it only goes on.

    Raises:
        ConflictError: the attempt is not open (any more), or tiles of it are not durable.
        UnavailableError: a node could not be asked. Where that was before the decision, the
            attempt stays open; after it, publication goes on by itself.
    """
    stored = yield Load(dataset_id=dataset_id, scene=scene)
    if stored is None:
        raise ConflictError(f"scene {scene!r}: nothing was begun; begin it before committing")
    record = stored.record
    if not is_decided(record, event.version):
        if record.attempt != attempt:
            raise ConflictError(
                f"scene {scene!r}: attempt {attempt} was given up or overtaken (the scene is at"
                f" attempt {record.attempt}); ingest it again"
            )
        decided = states.advance(record, event)
        stored = yield from _copied(stored)
        yield from _all_durable(decided, place)
        stored = yield from _saved(stored, decided)
    stored = yield from _settled(stored, place)
    assert stored is not None
    return stored.record


def _all_durable(decided: SceneRecord, place: Place) -> Generator[Effect, Any, None]:
    assert decided.version is not None
    requests = publish_requests(
        decided,
        place,
        version=decided.version,
        cells=decided.cells,
        replaced_version=None,
        replaced_cells=(),
    )
    missing = yield Confirm(requests=requests)
    if missing:
        node_id, cell = missing[0]
        raise ConflictError(
            f"scene {decided.scene!r}: {len(missing)} tiles to commit are not durable (first:"
            f" cell {cell} at node {node_id}); put them before committing"
        )


def abort(dataset_id: str, scene: str, attempt: int, place: Place) -> Steps:
    """Gives an attempt up and clears it; harmless where it is decided or gone."""
    stored = yield Load(dataset_id=dataset_id, scene=scene)
    if stored is None:
        return None
    if stored.record.state is SceneState.STAGING and stored.record.attempt == attempt:
        stored = yield from _given_up(stored, place)
    else:
        stored = yield from _settled(stored, place)
    return None if stored is None else stored.record
