"""Scenes in a store of one node: the home of every record and the holder of every tile.

It runs the same steps as the home of a ring (`geostore.node.scene_home`) over the same
holder of tiles, without peers, copies and leases: who writes holds the writer lock, so an
attempt that this process did not begin is nobody's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from geostore.errors import ConflictError, InvalidInputError, ReadOnlyError, StorageFullError
from geostore.index import Catalog
from geostore.metrics import (
    NODE_ABORTED_SCENES,
    NODE_COMMITTED_SCENES,
    NODE_RECOVERY_SCENES,
    NODE_SCENE_COMMIT_SECONDS,
    REGISTRY,
)
from geostore.node import scene_home as home
from geostore.node import scene_states as states
from geostore.node.datasets import Datasets
from geostore.node.disk import Disk
from geostore.node.records import (
    SCENE_PREFIX,
    decode_scene,
    encode_scene,
    is_unsettled,
    scene_record_name,
)
from geostore.node.tile_holder import TileHolder
from geostore.types import DatasetDefinition, EncodedTile, SceneRecord, SceneState, TileKey
from geostore.types.cluster import EMBEDDED_NODE

__all__ = ["LoneHome", "read_scene_record"]


def read_scene_record(catalog: Catalog, dataset_id: str, scene: str) -> SceneRecord | None:
    """A scene's record as it stands; None where nothing was begun."""
    name = scene_record_name(dataset_id, scene)
    stored = catalog.record_get(name)
    return None if stored is None else decode_scene(name, stored.value)


def _everything_here(cell: str) -> tuple[str, ...]:  # noqa: ARG001 - a `Place`
    return (EMBEDDED_NODE,)


@dataclass(slots=True)
class _Attempt:
    """What this process knows of an attempt it began."""

    version: str
    number: int
    path: str
    reader: str
    cells: frozenset[str]
    """What it may put."""
    kept: frozenset[str]
    """Cells of the same version that are published and stay: the attempt repairs others."""
    put: set[str] = field(default_factory=set)


class LoneHome:
    """One thread at a time: the node's writer lock is held around every call."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        disk: Disk,
        datasets: Datasets,
        holder: TileHolder,
        now_us: Callable[[], int],
    ) -> None:
        self._catalog = catalog
        self._disk = disk
        self._datasets = datasets
        self._holder = holder
        self._now_us = now_us
        self._attempts: dict[tuple[str, str], _Attempt] = {}

    # ------------------------------------------------------------------ effects

    def _run(self, steps: home.Steps) -> SceneRecord | None:
        return home.drive(steps, self._do)

    def _do(self, effect: home.Effect) -> Any:
        if isinstance(effect, home.Load):
            return self._load(effect.dataset_id, effect.scene)
        if isinstance(effect, home.Save):
            return self._save(effect)
        if isinstance(effect, home.Replicate):  # there is nobody to bring it to
            return effect.revision
        if isinstance(effect, home.Confirm):
            return [
                (node, cell)
                for node, request in effect.requests.items()
                for cell in self._holder.missing_cells(request)
            ]
        if isinstance(effect, home.Show):
            for request in effect.requests.values():
                record = read_scene_record(self._catalog, request.dataset_id, request.scene)
                self._holder.publish(request, record)
        else:
            for clear in effect.requests.values():
                self._holder.clear(clear)
        return None

    def _load(self, dataset_id: str, scene: str) -> home.Stored | None:
        name = scene_record_name(dataset_id, scene)
        stored = self._catalog.record_get(name)
        if stored is None:
            return None
        record = decode_scene(name, stored.value)
        return home.Stored(record=record, revision=stored.revision, is_copied=True)

    def _save(self, effect: home.Save) -> int:
        record = effect.record
        try:
            return self._write(record, effect.expected_revision)
        except StorageFullError:
            if record.state is not SceneState.ABORTED or record.staging_version is None:
                raise
            # No room even for the word "aborted". The attempt is known to this process
            # alone, and a writer that finds the record at STAGING gives it up too, so its
            # files may go first here and make room.
            self._holder.make_room(
                record.dataset_id, record.scene, record.staging_version, record.staging_cells
            )
            return self._write(record, effect.expected_revision)

    def _write(self, record: SceneRecord, expected_revision: int) -> int:
        """Makes a record durable; forgets it where it says that nothing is stored."""
        name = scene_record_name(record.dataset_id, record.scene)
        is_empty = record.version is None and states.is_settled(record)
        value = None if is_empty else encode_scene(record)
        with self._disk.translated(f"writing the record of scene {record.scene!r}"):
            self._disk.step(f"record.{record.state}")
            revision = self._catalog.record_compare_and_set(name, expected_revision, value)
            self._disk.step(f"record.{record.state}.saved")
        return 0 if value is None else revision

    # ------------------------------------------------------------------ attempts

    def begin(
        self,
        definition: DatasetDefinition,
        scene: str,
        version: str,
        cells: Sequence[str],
        *,
        replace: bool,
        path: str,
        reader: str,
    ) -> SceneRecord | None:
        """Backend.begin_scene."""
        self._datasets.require_same(definition)
        home.check_begin(definition, version, cells)
        before = self._attempts.get((definition.id, scene))
        if before is not None and before.version != version:
            before = None
        found = read_scene_record(self._catalog, definition.id, scene)
        if before is None and found is not None and found.state is SceneState.STAGING:
            self._give_up(found)  # nobody is at work on it, and its files may be gone
        event = states.Begin(
            dataset_id=definition.id,
            scene=scene,
            version=version,
            cells=tuple(cells),
            replace=replace,
            path=path,
            reader=reader,
        )
        record = self._run(home.begin(event, _everything_here, may_take_over=True))
        assert record is not None
        if record.state is not SceneState.STAGING:
            return None
        attempt = _Attempt(
            version=version,
            number=record.attempt,
            path=path,
            reader=reader,
            cells=frozenset(record.staging_cells),
            kept=frozenset(record.cells if record.version == version else ()),
        )
        if before is not None and before.number == record.attempt:  # goes on
            attempt.put = before.put
        self._attempts[definition.id, scene] = attempt
        return record

    def put(self, tiles: Sequence[EncodedTile]) -> list[str]:
        """Backend.put_tiles."""
        attempts = [self._attempt_of(tile.meta.key) for tile in tiles]
        if not tiles:
            return []
        checksums = self._holder.stage(tiles, max(attempt.number for attempt in attempts))
        for tile, attempt in zip(tiles, attempts, strict=True):
            attempt.put.add(tile.meta.key.geocode)
        return checksums

    def _attempt_of(self, key: TileKey) -> _Attempt:
        attempt = self._attempts.get((key.dataset_id, key.scene))
        if attempt is None or attempt.version != key.version:
            raise ConflictError(
                f"scene {key.scene!r}: no attempt at version {key.version[:12]} is under way;"
                " it was aborted, replaced by another, or never begun"
            )
        if key.geocode not in attempt.cells and key.geocode not in attempt.kept:
            raise InvalidInputError(
                f"scene {key.scene!r}: cell {key.geocode!r} was not announced when it began"
            )
        return attempt

    def commit(
        self,
        dataset_id: str,
        scene: str,
        version: str,
        cells: Sequence[str],
        *,
        bytes_total: int,
        properties: Mapping[str, Any],
    ) -> None:
        """Backend.commit_scene."""
        with REGISTRY.timed(NODE_SCENE_COMMIT_SECONDS):
            attempt = self._attempts.get((dataset_id, scene))
            if attempt is None or attempt.version != version:
                record = read_scene_record(self._catalog, dataset_id, scene)
                if record is None or not home.is_decided(record, version):
                    raise ConflictError(
                        f"scene {scene!r}: no attempt at version {version[:12]} is under way;"
                        " begin it again"
                    )
                self._run(home.settle(dataset_id, scene, _everything_here))
                return
            _check_whole(scene, attempt, cells)
            event = states.Commit(
                version=version,
                cells=tuple(cells),
                bytes_total=bytes_total,
                now_us=self._now_us(),
                path=attempt.path,
                reader=attempt.reader,
                properties=properties,
            )
            self._run(home.commit(dataset_id, scene, attempt.number, event, _everything_here))
            del self._attempts[dataset_id, scene]
            REGISTRY.add(NODE_COMMITTED_SCENES)

    def abort(self, dataset_id: str, scene: str, version: str) -> None:
        """Backend.abort_scene."""
        attempt = self._attempts.get((dataset_id, scene))
        if attempt is not None and attempt.version == version:
            del self._attempts[dataset_id, scene]  # first: it is over also where what follows fails
        record = read_scene_record(self._catalog, dataset_id, scene)
        if record is None:
            return
        if record.state is SceneState.STAGING and record.staging_version == version:
            self._give_up(record)
        elif home.is_decided(record, version):
            # Ctrl-C between the decision and its publication: it is too late to give up, and
            # finishing now saves the next writer a recovery. Where the disk is what stopped
            # the commit, its error is on its way to the caller already.
            with suppress(OSError, StorageFullError, ReadOnlyError):
                self._run(home.settle(dataset_id, scene, _everything_here))

    def _give_up(self, record: SceneRecord) -> None:
        self._attempts.pop((record.dataset_id, record.scene), None)
        REGISTRY.add(NODE_ABORTED_SCENES)
        self._run(home.abort(record.dataset_id, record.scene, record.attempt, _everything_here))

    def forget_dataset(self, dataset_id: str) -> None:
        """Drops the attempts at a dataset that is being deleted."""
        for name in [name for name in self._attempts if name[0] == dataset_id]:
            del self._attempts[name]

    # ------------------------------------------------------------------ recovery

    def recover(self) -> int:
        """Settles what earlier writers left; returns how many scenes had to be.

        Decided scenes are finished, attempts are given up: their process is gone, since
        this one holds the writer lock.
        """
        settled = 0
        for name in self._catalog.record_names(SCENE_PREFIX):
            found = self._catalog.record_get(name)
            if found is None or not is_unsettled(found.value):
                continue
            record = decode_scene(name, found.value)
            if record.state is SceneState.STAGING:
                self._give_up(record)
            else:
                self._run(home.settle(record.dataset_id, record.scene, _everything_here))
            settled += 1
        REGISTRY.add(NODE_RECOVERY_SCENES, settled)
        return settled


def _check_whole(scene: str, attempt: _Attempt, cells: Sequence[str]) -> None:
    put = attempt.put | attempt.kept
    missing, extra = sorted(set(cells) - put), sorted(put - set(cells))
    if missing:
        raise ConflictError(
            f"scene {scene!r}: {len(missing)} of the {len(set(cells))} cells to commit were never"
            f" put (first: {missing[0]})"
        )
    if extra:
        raise InvalidInputError(
            f"scene {scene!r}: {len(extra)} tiles were put that the commit leaves out"
            f" (first: {extra[0]})"
        )
