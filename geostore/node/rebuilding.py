"""Makes a catalog anew from what lies on disk: tile files, commit files, the old records.

The files are the truth about tiles: every byte is checked, and what fails is moved to
`quarantine/`, never deleted. Which scenes are committed is told by their commit files and by
the old catalog's records, where those can still be read; where neither exists (tile files
alone, copied from elsewhere) each scene's newest version is taken as it is. Cloud covers are
made by the dataset's cloud rule, the latest that any of records, rule files and tile files has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from geostore.errors import CorruptDataError, GeostoreError, StoreFormatError
from geostore.index import Catalog, CatalogEntry, open_catalog
from geostore.node.commit_files import read_commit_file, read_rule_file
from geostore.node.directory import StoreDirectory
from geostore.node.disk import Disk
from geostore.node.records import (
    DATASET_PREFIX,
    SCENE_PREFIX,
    TOMBSTONE_PREFIX,
    dataset_record_name,
    decode_dataset,
    decode_scene,
    encode_dataset,
    encode_scene,
    scene_record_name,
)
from geostore.node.verification import walk_files
from geostore.tiles import TileFile
from geostore.types import DatasetDefinition, SceneRecord, SceneState, TileKey, TileMeta
from geostore.types.report import Problem, ProblemKind, Progress, VerifyReport

__all__ = ["Known", "Rebuild", "SceneName", "read_entry", "rebuild_catalog"]

SceneName = tuple[str, str]
"""Dataset id and scene."""


@dataclass(slots=True)
class Known:
    """What the store remembers beside its tile files."""

    definitions: dict[str, DatasetDefinition] = field(default_factory=dict)
    """By id."""
    scenes: dict[SceneName, SceneRecord] = field(default_factory=dict)
    tombstones: dict[str, bytes] = field(default_factory=dict)
    """By record name."""
    has_commits: bool = False
    """Whether a scene that is unknown here was never committed (else: nothing is known)."""

    def is_deleted(self, dataset_id: str) -> bool:
        return TOMBSTONE_PREFIX + dataset_id in self.tombstones


def _decided(record: SceneRecord) -> SceneRecord | None:
    """What a record says is served, as a settled record; None where it says nothing."""
    if record.version is None:
        return None
    return replace(
        record,
        state=SceneState.PUBLISHED,
        replaced_version=None,
        replaced_cells=(),
        staging_version=None,
        staging_cells=(),
    )


class Rebuild:
    """One rebuild of a store of one node; a ring's node has one of its own."""

    def __init__(self, directory: StoreDirectory, disk: Disk, progress: Progress | None) -> None:
        self._directory = directory
        self._disk = disk
        self._progress = progress
        self._known = Known()
        self._problems: list[Problem] = []
        self._present: dict[SceneName, list[tuple[str, int]]] = {}
        self._tiles = 0
        self._bytes = 0

    def run(self) -> VerifyReport:
        self._read_old_catalog()
        self._read_commit_files()
        paths = list(walk_files(self._directory.tiles))
        self._read_definitions(paths)
        building = self._directory.tmp / "catalog.building"
        self._disk.clear_matching(self._directory.tmp, "catalog.*", "rebuild")
        catalog = open_catalog(building, writable=True)
        try:
            catalog.rebuild(self._entries(paths), self._staged_entries())
            self._write_records(catalog)
        finally:
            catalog.close()
        self._swap(building)
        return VerifyReport(
            tiles=self._tiles,
            bytes=self._bytes,
            problems=tuple(self._problems),
            is_rebuilt=True,
        )

    def _add(self, kind: ProblemKind, where: Path | str, message: str) -> None:
        self._problems.append(Problem(kind=kind, path=str(where), message=message))

    # ------------------------------------------------------------------ what is remembered

    def _read_old_catalog(self) -> None:
        if not self._directory.catalog.exists():
            self._add(ProblemKind.CATALOG, self._directory.catalog, "missing")
            return
        known = Known()
        try:
            old = open_catalog(self._directory.catalog, writable=False)
            try:
                self._read_records(old, known)
            finally:
                old.close()
        except (GeostoreError, OSError) as error:
            self._add(ProblemKind.CATALOG, self._directory.catalog, f"unreadable: {error}")
            return
        self._known = known

    @staticmethod
    def _read_records(old: Catalog, known: Known) -> None:
        for name in old.record_names():
            record = old.record_get(name)
            if record is None:
                continue
            if name.startswith(TOMBSTONE_PREFIX):
                known.tombstones[name] = record.value
            elif name.startswith(DATASET_PREFIX):
                definition = decode_dataset(name, record.value)
                known.definitions[definition.id] = definition
            elif name.startswith(SCENE_PREFIX):
                scene = _decided(decode_scene(name, record.value))
                if scene is not None:
                    known.scenes[scene.dataset_id, scene.scene] = scene
        known.has_commits = bool(known.scenes)

    def _read_commit_files(self) -> None:
        """Adds committed scenes; the later commit wins over the record of an older catalog."""
        if self._directory.commits.is_dir():
            self._known.has_commits = True
        for path in walk_files(self._directory.commits):
            try:
                scene = _decided(read_commit_file(path))
            except CorruptDataError as error:
                self._set_aside(path, ProblemKind.CORRUPT, str(error))
                continue
            if scene is None or self._known.is_deleted(scene.dataset_id):
                continue
            name = (scene.dataset_id, scene.scene)
            recorded = self._known.scenes.get(name)
            if recorded is None or recorded.committed_us < scene.committed_us:
                self._known.scenes[name] = scene

    def _read_definitions(self, paths: list[Path]) -> None:
        """Definitions, and where nothing tells of commits the scenes, from the tiles' heads."""
        newest: dict[SceneName, tuple[int, TileMeta]] = {}
        for path in paths:
            try:
                with TileFile.open(path) as tile:
                    meta = tile.meta
                modified_ns = path.stat().st_mtime_ns
                definition = DatasetDefinition.from_json(meta.definition)
            except (GeostoreError, OSError, TypeError, KeyError):
                continue  # the second pass sets it aside and says why
            if definition.id != meta.key.dataset_id or self._known.is_deleted(definition.id):
                continue
            self._learn_definition(definition)
            name = (meta.key.dataset_id, meta.key.scene)
            if name not in newest or newest[name][0] < modified_ns:
                newest[name] = (modified_ns, meta)
        for path in walk_files(self._directory.rules):
            try:
                definition = read_rule_file(path)
            except CorruptDataError as error:
                self._set_aside(path, ProblemKind.CORRUPT, str(error))
            else:
                if definition.id in self._known.definitions:
                    self._learn_definition(definition)
        self._name_apart()
        if not self._known.has_commits:
            for name, (modified_ns, meta) in newest.items():
                self._known.scenes[name] = SceneRecord(
                    dataset_id=meta.key.dataset_id,
                    scene=meta.key.scene,
                    state=SceneState.PUBLISHED,
                    version=meta.key.version,
                    reader=self._known.definitions[meta.key.dataset_id].reader or "",
                    committed_us=modified_ns // 1000,
                    properties=dict(meta.properties),
                )

    def _learn_definition(self, definition: DatasetDefinition) -> None:
        """Notes a definition; of two of one dataset the later cloud rule holds."""
        known = self._known.definitions.setdefault(definition.id, definition)
        if known.cloud_changes < definition.cloud_changes:
            self._known.definitions[definition.id] = replace(
                known,
                cloud_rule=definition.cloud_rule,
                cloud_changes=definition.cloud_changes,
            )

    def _name_apart(self) -> None:
        """Two datasets that claim one name: the younger keeps it."""
        by_name: dict[str, DatasetDefinition] = {}
        for definition in sorted(
            self._known.definitions.values(), key=lambda d: (d.created_us, d.id), reverse=True
        ):
            kept = definition
            if definition.name in by_name:
                kept = replace(definition, name=f"{definition.name[:200]}-{definition.id[:16]}")
                self._add(
                    ProblemKind.RECORD,
                    definition.name,
                    f"two datasets have this name; the older one is now {kept.name!r}",
                )
            by_name[kept.name] = kept
            self._known.definitions[kept.id] = kept

    # ------------------------------------------------------------------ tiles

    def _entries(self, paths: list[Path]) -> Iterator[CatalogEntry]:
        """The tiles of committed scenes, each read whole; the rest is set aside."""
        for number, path in enumerate(paths, start=1):
            try:
                entry = self._read_tile(path)
            except (CorruptDataError, StoreFormatError) as error:
                self._set_aside(path, ProblemKind.CORRUPT, str(error))
            else:
                if entry is not None:
                    yield entry
            if self._progress is not None:
                self._progress(number, len(paths))

    def _staged_entries(self) -> Iterator[CatalogEntry]:
        """What stays staged: nothing, where nobody but this store's writer could go on with it."""
        return iter(())

    def _read_tile(self, path: Path) -> CatalogEntry | None:
        if not path.name.endswith(".zarr.zip") or path.is_symlink():
            self._set_aside(path, ProblemKind.ORPHAN, "not a tile file")
            return None
        entry = read_entry(path)
        self._bytes += entry.bytes
        key = entry.meta.key
        if self._stays_staged(path, key):
            return None
        reason = self._why_not(path, key)
        if reason is not None:
            self._set_aside(path, ProblemKind.ORPHAN, reason)
            return None
        self._present.setdefault((key.dataset_id, key.scene), []).append((key.geocode, entry.bytes))
        self._tiles += 1
        return self._named(entry)

    def _named(self, entry: CatalogEntry) -> CatalogEntry:
        """The entry with its dataset's name as it is now."""
        definition = self._known.definitions[entry.meta.key.dataset_id]
        if entry.meta.dataset != definition.name:
            entry = replace(entry, meta=replace(entry.meta, dataset=definition.name))
        return entry

    def _stays_staged(self, path: Path, key: TileKey) -> bool:  # noqa: ARG002 - see `_staged_entries`
        """Notes a sound tile file that is to stay staged."""
        return False

    def _is_in_place(self, path: Path, key: TileKey) -> bool:
        """Whether a tile of a known dataset lies where it belongs."""
        definition = self._known.definitions.get(key.dataset_id)
        return (
            definition is not None
            and definition.placement is not None
            and self._directory.tile_file(key, definition.placement) == path
        )

    def _why_not(self, path: Path, key: TileKey) -> str | None:
        """Why a sound tile file is not shown; None where it is."""
        definition = self._known.definitions.get(key.dataset_id)
        if definition is None or definition.placement is None:
            return "its dataset was deleted or is not known"
        if not self._is_in_place(path, key):
            return f"the file of tile {key} lies in a wrong place"
        return self._why_not_shown(key)

    def _why_not_shown(self, key: TileKey) -> str | None:
        scene = self._known.scenes.get((key.dataset_id, key.scene))
        if scene is None:
            return f"scene {key.scene!r} was never committed"
        if scene.version != key.version:
            return f"scene {key.scene!r} was replaced by another version"
        if self._known.has_commits and key.geocode not in {*scene.cells, *scene.lost_cells}:
            return f"scene {key.scene!r} was committed without this cell"
        return None

    def _set_aside(self, path: Path, kind: ProblemKind, message: str) -> None:
        """Moves a file to the quarantine, under its old relative path."""
        relative = path.relative_to(self._directory.root)
        target = self._directory.quarantine / relative
        number = 0
        while target.exists():
            number += 1
            target = self._directory.quarantine / f"{relative}.{number}"
        target.parent.mkdir(parents=True, exist_ok=True)
        self._disk.rename(path, target, "quarantine")
        self._add(kind, path, f"{message} (moved to {target.relative_to(self._directory.root)})")

    # ------------------------------------------------------------------ records

    def _write_records(self, catalog: Catalog) -> None:
        for name, value in sorted(self._known.tombstones.items()):
            catalog.record_compare_and_set(name, 0, value)
        for definition in self._known.definitions.values():
            catalog.record_compare_and_set(
                dataset_record_name(definition.name), 0, encode_dataset(definition)
            )
        for scene_name, scene in sorted(self._known.scenes.items()):
            if scene.dataset_id not in self._known.definitions:
                continue
            present = self._present.get(scene_name, [])
            cells = tuple(sorted(cell for cell, _ in present))
            lost = tuple(sorted({*scene.cells, *scene.lost_cells} - set(cells)))
            for cell in lost:
                self._add(
                    ProblemKind.MISSING,
                    f"{scene.scene}/{cell}",
                    "no sound file is left of this tile; ingest the scene again to restore it",
                )
            record = replace(
                scene, cells=cells, lost_cells=lost, bytes=sum(size for _, size in present)
            )
            catalog.record_compare_and_set(scene_record_name(*scene_name), 0, encode_scene(record))

    def _swap(self, building: Path) -> None:
        """Puts the new catalog in the old one's place.

        A directory cannot replace another in one step. In between the store has no catalog,
        and a whole one that waits under a name that says so: the next writer puts it in.
        """
        directory, disk = self._directory, self._disk
        disk.rename(building, directory.catalog_rebuilt, "swap.ready")
        disk.sync_directories([directory.tmp], "swap.ready")
        if directory.catalog.exists():
            disk.rename(directory.catalog, directory.tmp / "catalog.old", "swap.out")
        disk.rename(directory.catalog_rebuilt, directory.catalog, "swap.in")
        disk.sync_directories([directory.root, directory.tmp], "swap")
        with suppress(OSError):
            disk.clear_matching(directory.tmp, "catalog.*", "swap")


def read_entry(path: Path) -> CatalogEntry:
    """A tile file's, every byte of it checked. Raises CorruptDataError, StoreFormatError."""
    with TileFile.open(path) as tile:
        tile.verify()
        return CatalogEntry(
            meta=tile.meta, checksum=tile.checksum(), bytes=tile.size, blocks=tile.blocks
        )


def rebuild_catalog(
    directory: StoreDirectory,
    disk: Disk,
    progress: Progress | None = None,
    *,
    is_member: bool = False,
) -> VerifyReport:
    """Replaces the catalog of a store whose writer lock the caller holds.

    `is_member`: it is one of a ring's; told by the directory too, once it has a ring.

    The report lists what was found wrong; all of it has been set right or set aside. Run
    again after a crash on the way, it does the same.
    """
    from geostore.node.member_rebuilding import MemberRebuild

    make = MemberRebuild if is_member or directory.is_member() else Rebuild
    with disk.translated(f"rebuilding the catalog of {directory.root}"):
        for path in (directory.tiles, directory.tmp):
            path.mkdir(exist_ok=True)
        report = make(directory, disk, progress).run()
        directory.commits.mkdir(exist_ok=True)
    return report
