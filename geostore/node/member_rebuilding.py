"""The catalog of a ring's node, made anew from what lies on its disk.

A node holds a part of each scene, and of some scenes the record that decides about all of it.
Neither may be taken for the other: a record that lists cells of other nodes is no sign of
loss here, and one made up from the tiles that lie here would be. So

- where the old catalog can be read, all its records go on as they are, with their revisions:
  definitions, decided and open scenes, copies of other homes' records, marks of attempts; and
  what was staged stays staged, for its home decides about it;
- where it cannot, the commit files tell which tiles are shown and the newest attempt at each
  scene, and the home's files what this node decided as a home. Which datasets there are the
  node has to ask the others before it answers anybody (`LOST_DATASETS`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from geostore.errors import CorruptDataError, GeostoreError
from geostore.index import Catalog, CatalogEntry, Record, open_catalog
from geostore.node.commit_files import read_commit_file, write_commit_file, write_home_file
from geostore.node.directory import HOME_SUFFIX
from geostore.node.rebuilding import Known, Rebuild, SceneName, read_entry
from geostore.node.records import (
    DATASET_PREFIX,
    LOST_DATASETS,
    LOST_TILES_PREFIX,
    MARK_PREFIX,
    TOMBSTONE_PREFIX,
    dataset_record_name,
    decode_dataset,
    decode_scene,
    encode_dataset,
    encode_scene,
    scene_record_name,
)
from geostore.node.verification import walk_files
from geostore.types import SceneRecord, SceneState, TileKey
from geostore.types.report import ProblemKind

__all__ = ["MemberRebuild"]


class MemberRebuild(Rebuild):
    """See the module."""

    _old_records: dict[str, Record] | None = None
    """All that the old catalog has; None: it cannot be read."""
    _old_shown: frozenset[TileKey] = frozenset()
    _old_staged: frozenset[TileKey] = frozenset()

    # ------------------------------------------------------------------ what is remembered

    def _read_old_catalog(self) -> None:
        self._shares: dict[SceneName, SceneRecord] = {}
        self._decided: dict[SceneName, SceneRecord] = {}
        self._staged_paths: list[Path] = []
        self._overtaken: set[SceneName] = set()
        """Scenes whose commit file is newer than what the catalog knows."""
        if not self._directory.catalog.exists():
            self._add(ProblemKind.CATALOG, self._directory.catalog, "missing")
            return
        try:
            old = open_catalog(self._directory.catalog, writable=False)
            try:
                self._known = self._read_all(old)
            finally:
                old.close()
        except (GeostoreError, OSError) as error:
            self._add(ProblemKind.CATALOG, self._directory.catalog, f"unreadable: {error}")
            self._old_records, self._known = None, Known()

    def _read_all(self, old: Catalog) -> Known:
        known, records = Known(), {}
        for name in old.record_names():
            record = old.record_get(name)
            if record is None:
                continue
            records[name] = record
            if name.startswith(TOMBSTONE_PREFIX):
                known.tombstones[name] = record.value
            elif name.startswith(DATASET_PREFIX):
                definition = decode_dataset(name, record.value)
                known.definitions[definition.id] = definition
        self._old_shown = frozenset(old.keys())
        self._old_staged = frozenset(tile.key for tile in old.staged())
        self._old_records = records
        return known

    def _read_commit_files(self) -> None:
        self._known.has_commits = True  # tiles alone never tell what a ring decided
        for path in walk_files(self._directory.commits):
            try:
                scene = read_commit_file(path)
            except CorruptDataError as error:
                self._set_aside(path, ProblemKind.CORRUPT, str(error))
                continue
            if not self._known.is_deleted(scene.dataset_id):
                kind = self._decided if path.name.endswith(HOME_SUFFIX) else self._shares
                kind[scene.dataset_id, scene.scene] = scene
        for name, share in self._shares.items():
            # Written while the store was one directory, and nobody else's: all of the record.
            decided = self._decided.get(name)
            if share.committed_us and (decided is None or decided.attempt < share.attempt):
                self._decided[name] = share
                write_home_file(self._directory, self._disk, share)
        self._choose_tiles()

    def _choose_tiles(self) -> None:
        """Which tiles are to be shown, and which stay staged.

        A scene's commit file is written before its rows are shown. It overrules the catalog
        where it is of a later attempt, or names cells that the catalog lacks: then that is an
        older one that somebody put back, or its rows were lost.
        """
        self._shown = set(self._old_shown)
        self._staged = set(self._old_staged)
        known = self._old_shown | self._old_staged
        for name, share in self._shares.items():
            assert share.version is not None, f"commit file of {name} without a version"
            cells = {TileKey(*name, share.version, cell) for cell in share.cells}
            if share.attempt > self._marked_attempt(name) or not cells <= known:
                self._overtaken.add(name)
                self._shown = {key for key in self._shown if (key.dataset_id, key.scene) != name}
                self._shown |= cells
        self._staged -= self._shown

    def _marked_attempt(self, name: SceneName) -> int:
        record = (self._old_records or {}).get(_mark_name(name))
        return 0 if record is None else int(json.loads(record.value)["attempt"])

    # ------------------------------------------------------------------ tiles

    def _stays_staged(self, path: Path, key: TileKey) -> bool:
        if key not in self._staged or not self._is_in_place(path, key):
            return False
        self._staged_paths.append(path)
        self._tiles += 1
        return True

    def _staged_entries(self) -> Iterator[CatalogEntry]:
        for path in self._staged_paths:
            yield self._named(read_entry(path))

    def _why_not_shown(self, key: TileKey) -> str | None:
        if key in self._shown:
            return None
        return f"no commit of scene {key.scene!r} here has this tile"

    # ------------------------------------------------------------------ records

    def _write_records(self, catalog: Catalog) -> None:
        replaced = self._renewed_records()
        for name, record in sorted((self._old_records or {}).items()):
            catalog.record_restore(name, replaced.pop(name, record))
        for name, record in sorted(replaced.items()):
            catalog.record_restore(name, record)
        self._write_shares(catalog)

    def _renewed_records(self) -> dict[str, Record]:
        """What the old catalog did not have, or had in an older state."""
        # Revisions only rise, and whoever keeps a copy of a record remembers them: one that
        # is not known any more goes on above all that can have been counted up to.
        revision = time.time_ns() // 1000
        old = self._old_records or {}
        new: dict[str, bytes] = {}
        for definition in self._known.definitions.values():
            name = dataset_record_name(definition.name)
            kept = old.get(name)
            if kept is None or (
                decode_dataset(name, kept.value).cloud_changes < definition.cloud_changes
            ):
                new[name] = encode_dataset(definition)
        for scene_name, share in self._shares.items():
            if scene_name in self._overtaken:
                attempt = max(share.attempt, self._marked_attempt(scene_name))
                mark = {"attempt": attempt, "is_cleared": False}
                new[_mark_name(scene_name)] = json.dumps(mark).encode()
        for scene_name, decided in self._decided.items():
            name = scene_record_name(*scene_name)
            kept = old.get(name)
            if kept is None or _comes_before(decode_scene(name, kept.value), decided):
                # Unsettled: what follows from it is done once more, which does no harm.
                new[name] = encode_scene(decided, settled=False)
        if self._old_records is None:
            new[LOST_DATASETS] = b"U{}"
        return {name: Record(value, revision) for name, value in new.items()}

    def _write_shares(self, catalog: Catalog) -> None:
        """Brings the commit files to what is shown, with the cells that have no sound file."""
        expected: dict[SceneName, dict[str, set[str]]] = {}
        for key in self._shown:
            of_scene = expected.setdefault((key.dataset_id, key.scene), {})
            of_scene.setdefault(key.version, set()).add(key.geocode)
        for name, share in self._shares.items():
            if share.lost_cells and share.version is not None:  # lost before
                expected.setdefault(name, {}).setdefault(share.version, set())
        for name, versions in sorted(expected.items()):
            for version, cells in versions.items():
                self._note_lost(catalog, self._write_share(name, version, cells))

    @staticmethod
    def _note_lost(catalog: Catalog, share: SceneRecord) -> None:
        """For the scene's home, which hears of it when the node is up again."""
        if share.lost_cells:
            name = f"{LOST_TILES_PREFIX}{share.dataset_id}/{share.scene}"
            names = ("dataset_id", "scene", "version")
            value = {each: getattr(share, each) for each in names} | {"cells": share.lost_cells}
            before = catalog.record_get(name)
            revision = 0 if before is None else before.revision
            catalog.record_compare_and_set(name, revision, json.dumps(value).encode())

    def _write_share(self, name: SceneName, version: str, cells: set[str]) -> SceneRecord:
        before = self._shares.get(name)
        if before is None or before.version != version:
            before = SceneRecord(
                dataset_id=name[0],
                scene=name[1],
                state=SceneState.PUBLISHED,
                version=version,
                attempt=self._marked_attempt(name),
            )
        present = {cell for cell, _ in self._present.get(name, [])}
        lost = tuple(sorted({*cells, *before.lost_cells} - present))
        for cell in lost:
            self._add(
                ProblemKind.MISSING,
                f"{name[1]}/{cell}",
                "no sound file is left here of this tile; when the node is up, ingest the scene"
                " again to restore it",
            )
        share = replace(before, cells=tuple(sorted(present)), lost_cells=lost)
        if share != self._shares.get(name):
            write_commit_file(self._directory, self._disk, share)
        return share


def _comes_before(kept: SceneRecord, decided: SceneRecord) -> bool:
    """Whether a record is older than what was decided: an attempt is open before it is."""
    is_open = kept.state is SceneState.STAGING
    return kept.attempt < decided.attempt or (kept.attempt == decided.attempt and is_open)


def _mark_name(name: SceneName) -> str:
    dataset_id, scene = name
    return f"{MARK_PREFIX}{dataset_id}/{scene}"
