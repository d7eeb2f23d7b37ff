"""A node's writing side: attempts at scenes, their commits, and what a crash left of them.

The order of durable steps is the heart of it (design decision 6):

    record STAGING → tile files → staged rows → record COMMITTED (decides) → commit file
    → one transaction: rows out, rows in, record PUBLISHED → replaced files removed

Every step may be the last before a crash: `recover` goes on from the record alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import xxhash

from geostore.errors import ConflictError, InvalidInputError, ReadOnlyError, StorageFullError
from geostore.index import Catalog, RecordChange, entry_from
from geostore.metrics import (
    CATALOG_STAGE_SECONDS,
    NODE_ABORTED_SCENES,
    NODE_COMMITTED_SCENES,
    NODE_PUT_SECONDS,
    NODE_RECOVERY_SCENES,
    NODE_SCENE_COMMIT_SECONDS,
    REGISTRY,
)
from geostore.node import scene_states as states
from geostore.node.commit_files import write_commit_file
from geostore.node.datasets import Datasets
from geostore.node.directory import StoreDirectory
from geostore.node.disk import Disk
from geostore.node.records import (
    SCENE_PREFIX,
    decode_scene,
    encode_scene,
    is_unsettled,
    scene_record_name,
)
from geostore.node.tile_files import TileFiles
from geostore.types import DatasetDefinition, EncodedTile, SceneRecord, SceneState, TileKey

__all__ = ["SceneWriter", "check_begin", "read_scene_record"]

VERSION_LENGTH_MAX: Final = 128
_CELL = re.compile(r"^[0-9a-z]+\Z")


def read_scene_record(catalog: Catalog, dataset_id: str, scene: str) -> SceneRecord | None:
    """A scene's record as it stands; None where nothing was begun."""
    name = scene_record_name(dataset_id, scene)
    stored = catalog.record_get(name)
    return None if stored is None else decode_scene(name, stored.value)


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


@dataclass(slots=True)
class _Attempt:
    """What this process knows of an attempt it began."""

    version: str
    placement: int
    path: str
    reader: str
    cells: frozenset[str] = frozenset()
    """What it may put."""
    kept: frozenset[str] = frozenset()
    """Cells of the same version that are published and stay: the attempt repairs others."""
    staged: dict[str, str] = field(default_factory=dict)
    """Cell to checksum of what was put."""


@dataclass(slots=True)
class _Stored:
    """A record with the revision that the next change must expect."""

    record: SceneRecord
    revision: int


class SceneWriter:
    """One thread at a time: the node's writer lock is held around every call."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        directory: StoreDirectory,
        disk: Disk,
        files: TileFiles,
        datasets: Datasets,
        now_us: Callable[[], int],
    ) -> None:
        self._catalog = catalog
        self._directory = directory
        self._disk = disk
        self._files = files
        self._datasets = datasets
        self._now_us = now_us
        self._attempts: dict[tuple[str, str], _Attempt] = {}

    # ------------------------------------------------------------------ records

    def _load(self, dataset_id: str, scene: str) -> _Stored | None:
        name = scene_record_name(dataset_id, scene)
        stored = self._catalog.record_get(name)
        if stored is None:
            return None
        return _Stored(decode_scene(name, stored.value), stored.revision)

    def _save(self, old: _Stored | None, record: SceneRecord, step: str) -> _Stored | None:
        """Makes a record durable; forgets it where it says that nothing is stored."""
        if old is not None and old.record == record:
            return old
        name = scene_record_name(record.dataset_id, record.scene)
        is_empty = record.version is None and states.is_settled(record)
        value = None if is_empty else encode_scene(record)
        with self._disk.translated(f"writing the record of scene {record.scene!r}"):
            self._disk.step(f"record.{step}")
            revision = self._catalog.record_compare_and_set(
                name, 0 if old is None else old.revision, value
            )
            self._disk.step(f"record.{step}.saved")
        return None if value is None else _Stored(record, revision)

    def _settle(self, stored: _Stored | None) -> _Stored | None:
        """Does what a record demands until it demands nothing more."""
        while stored is not None and (demand := states.demand(stored.record)):
            if isinstance(demand, states.Publish):
                stored = self._publish(stored, demand)
            else:
                stored = self._clear(stored, demand)
        return stored

    def _publish(self, stored: _Stored, demand: states.Publish) -> _Stored:
        record = stored.record
        write_commit_file(self._directory, self._disk, record)
        published = states.advance(record, states.Published())
        name = scene_record_name(record.dataset_id, record.scene)
        self._disk.step("publish")
        self._catalog.publish(
            record.dataset_id,
            record.scene,
            demand.version,
            demand.replaced_version,
            cells=record.cells,
            record=RecordChange(name, stored.revision, encode_scene(published)),
        )
        self._disk.step("publish.done")
        after = self._load(record.dataset_id, record.scene)
        assert after is not None
        return after

    def _clear(self, stored: _Stored, demand: states.Clear) -> _Stored | None:
        record = stored.record
        if record.state is SceneState.ABORTED:
            self._disk.step("clear.unstage")
            self._catalog.unstage(record.dataset_id, record.scene, demand.version)
            self._disk.step("clear.unstaged")
        self._remove_files(record, demand.version, demand.cells)
        return self._save(stored, states.advance(record, states.Cleared()), "cleared")

    def _remove_files(self, record: SceneRecord, version: str, cells: Sequence[str]) -> None:
        placement = self._datasets.placement(record.dataset_id)
        paths = [
            self._directory.tile_file(
                TileKey(record.dataset_id, record.scene, version, cell), placement
            )
            for cell in cells
        ]
        self._files.remove(paths, "clear")

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
        check_begin(definition, version, cells)
        stored = self._settle(self._load(definition.id, scene))
        if states.is_unchanged(stored.record if stored else None, version):
            return None
        attempt = self._attempts.get((definition.id, scene))
        goes_on = attempt is not None and attempt.version == version
        if stored and stored.record.state is SceneState.STAGING and not goes_on:
            stored = self._give_up(stored)
        event = states.Begin(
            dataset_id=definition.id,
            scene=scene,
            version=version,
            cells=tuple(cells),
            replace=replace,
            path=path,
            reader=reader,
        )
        record = states.advance(stored.record if stored else None, event)
        self._save(stored, record, "staging")
        if not goes_on or attempt is None:
            attempt = _Attempt(version, self._datasets.placement(definition.id), path, reader)
        attempt.cells = frozenset(record.staging_cells)
        attempt.kept = frozenset(record.cells if record.version == version else ())
        self._attempts[definition.id, scene] = attempt
        return record

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

    def put(self, tiles: Sequence[EncodedTile]) -> list[str]:
        """Backend.put_tiles."""
        with REGISTRY.timed(NODE_PUT_SECONDS):
            fresh: dict[TileKey, EncodedTile] = {}
            for tile in tiles:
                key = tile.meta.key
                attempt = self._attempt_of(key)
                if key.geocode not in attempt.staged and key.geocode not in attempt.kept:
                    _check_payload(tile)
                    fresh.setdefault(key, tile)
            if fresh:
                self._put_fresh(fresh)
            return [self._acknowledgement(tile.meta.key) for tile in tiles]

    def _put_fresh(self, fresh: Mapping[TileKey, EncodedTile]) -> None:
        paths = {
            key: self._directory.tile_file(key, self._attempt_of(key).placement) for key in fresh
        }
        self._files.put([(paths[key], tile.payload) for key, tile in fresh.items()])
        self._disk.step("stage")
        try:
            with REGISTRY.timed(CATALOG_STAGE_SECONDS):
                checksums = self._catalog.stage([entry_from(tile) for tile in fresh.values()])
        except BaseException:
            with suppress(OSError):
                self._files.remove(list(paths.values()), "unput")
            raise
        self._disk.step("staged")
        for key, checksum in zip(fresh, checksums, strict=True):
            self._attempt_of(key).staged[key.geocode] = checksum

    def _acknowledgement(self, key: TileKey) -> str:
        checksum = self._attempt_of(key).staged.get(key.geocode) or self._catalog.checksum(key)
        assert checksum is not None, "an acknowledged tile has a checksum"
        return checksum

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
            stored = self._load(dataset_id, scene)
            attempt = self._attempts.get((dataset_id, scene))
            if attempt is None or attempt.version != version:
                if stored is None or not _is_decided(stored.record, version):
                    raise ConflictError(
                        f"scene {scene!r}: no attempt at version {version[:12]} is under way;"
                        " begin it again"
                    )
                self._settle(stored)
                return
            _check_whole(scene, attempt, cells)
            record = states.advance(
                stored.record if stored else None,
                states.Commit(
                    version=version,
                    cells=tuple(cells),
                    bytes_total=bytes_total,
                    now_us=self._now_us(),
                    path=attempt.path,
                    reader=attempt.reader,
                    properties=properties,
                ),
            )
            stored = self._save(stored, record, "committed")
            del self._attempts[dataset_id, scene]
            REGISTRY.add(NODE_COMMITTED_SCENES)
            self._settle(stored)

    def abort(self, dataset_id: str, scene: str, version: str) -> None:
        """Backend.abort_scene."""
        attempt = self._attempts.get((dataset_id, scene))
        if attempt is not None and attempt.version == version:
            del self._attempts[dataset_id, scene]
        stored = self._load(dataset_id, scene)
        if (
            stored is not None
            and stored.record.state is SceneState.STAGING
            and stored.record.staging_version == version
        ):
            self._give_up(stored)
        elif stored is not None and _is_decided(stored.record, version):
            # Ctrl-C between the decision and its publication: it is too late to give up, and
            # finishing now saves the next writer a recovery. Where the disk is what stopped
            # the commit, its error is on its way to the caller already.
            with suppress(OSError, StorageFullError, ReadOnlyError):
                self._settle(stored)

    def _give_up(self, stored: _Stored) -> _Stored | None:
        record = stored.record
        self._attempts.pop((record.dataset_id, record.scene), None)
        aborted = states.advance(record, states.Abort())
        REGISTRY.add(NODE_ABORTED_SCENES)
        try:
            after = self._save(stored, aborted, "aborted")
        except StorageFullError:
            # No room even for the word "aborted". The attempt is known to this process
            # alone, and a writer that finds the record at STAGING gives it up too, so its
            # files may go first here and make room.
            assert record.staging_version is not None
            self._remove_files(record, record.staging_version, record.staging_cells)
            after = self._save(stored, aborted, "aborted")
        return self._settle(after)

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
            stored = _Stored(decode_scene(name, found.value), found.revision)
            if stored.record.state is SceneState.STAGING:
                self._give_up(stored)
            else:
                self._settle(stored)
            settled += 1
        REGISTRY.add(NODE_RECOVERY_SCENES, settled)
        return settled


def _is_decided(record: SceneRecord, version: str) -> bool:
    return record.version == version and record.state in {
        SceneState.COMMITTED,
        SceneState.PUBLISHED,
    }


def _check_payload(tile: EncodedTile) -> None:
    """A tile that was spoiled on its way here must not become the acknowledged one."""
    if xxhash.xxh3_128_hexdigest(tile.payload) != tile.checksum:
        raise InvalidInputError(
            f"tile {tile.meta.key}: its payload of {len(tile.payload)} bytes does not have the"
            f" checksum {tile.checksum} that came with it"
        )


def _check_whole(scene: str, attempt: _Attempt, cells: Sequence[str]) -> None:
    put = attempt.staged.keys() | attempt.kept
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
