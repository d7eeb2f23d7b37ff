"""Checks a store: every file against the catalog, every record against the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from geostore.errors import CorruptDataError, NotFoundError, StoreFormatError
from geostore.index import Catalog
from geostore.node.datasets import Datasets
from geostore.node.directory import StoreDirectory
from geostore.node.records import SCENE_PREFIX, decode_scene
from geostore.node.scene_states import is_settled
from geostore.tiles import TileFile
from geostore.types import SceneRecord, SceneState, TileKey
from geostore.types.report import Problem, ProblemKind, Progress, VerifyReport

__all__ = ["Verification", "Writing", "verify_store", "walk_files"]

Writing = Callable[[], AbstractContextManager[None]]
"""Holds off the node's writer."""

CHUNK_TILES: Final = 256
READ_THREADS: Final = 4


@dataclass(frozen=True, slots=True)
class _Checked:
    key: TileKey
    bytes: int
    problem: Problem | None


def walk_files(top: Path) -> Iterator[Path]:
    """All files under `top`, in order."""
    if top.is_dir():
        for path in sorted(top.iterdir()):
            if path.is_dir() and not path.is_symlink():
                yield from walk_files(path)
            else:
                yield path


def _difference(tile: TileFile, key: TileKey, checksum: str) -> str | None:
    """How a file differs from the tile that was acknowledged. Raises CorruptDataError."""
    if tile.checksum() != checksum:
        tile.verify()  # says which block it is
        return f"{tile.path}: its checksum is not the acknowledged {checksum}"
    if tile.meta.key != key:
        return f"{tile.path}: holds tile {tile.meta.key}, expected {key}"
    return None


def _check_file(key: TileKey, path: Path, checksum: str) -> _Checked:
    size = 0
    try:
        with TileFile.open(path) as tile:
            size = tile.size
            message = _difference(tile, key, checksum)
    except NotFoundError:
        problem = Problem(
            kind=ProblemKind.MISSING,
            path=str(path),
            message=f"tile {key.geocode} of scene {key.scene!r} has no file",
        )
        return _Checked(key, 0, problem)
    except (CorruptDataError, StoreFormatError) as error:
        message = str(error)
    if message is None:
        return _Checked(key, size, None)
    return _Checked(key, size, Problem(kind=ProblemKind.CORRUPT, path=str(path), message=message))


def _clouds_problem(path: Path, message: str) -> Problem:
    return Problem(kind=ProblemKind.CATALOG, path=str(path), message=message)


def _as_stored(cover: float | None) -> float | None:
    return None if cover is None else float(np.float32(cover))


class Verification:
    """One check of a store of one node; a ring's node has one of its own."""

    def __init__(
        self,
        catalog: Catalog,
        directory: StoreDirectory,
        datasets: Datasets,
        writing: Writing | None = None,
    ) -> None:
        self._catalog = catalog
        self._directory = directory
        self._datasets = datasets
        self._writing: Writing = writing or nullcontext
        self._problems: list[Problem] = []

    def run(self, progress: Progress | None) -> VerifyReport:
        self._catalog.refresh()
        for message in self._catalog.check():
            self._add(ProblemKind.CATALOG, self._directory.catalog, message)
        keys = self._known_keys(self._catalog.keys())
        tiles = bytes_read = done = 0
        with ThreadPoolExecutor(READ_THREADS, thread_name_prefix="geostore-verify") as pool:
            for start in range(0, len(keys), CHUNK_TILES):
                chunk = keys[start : start + CHUNK_TILES]
                for checked in pool.map(self._check_key, chunk):
                    bytes_read += checked.bytes
                    if checked.problem is None:
                        tiles += 1
                    elif self._is_published(checked.key):  # else replaced meanwhile
                        self._problems.append(checked.problem)
                done += len(chunk)
                if progress is not None:
                    progress(done, len(keys))
        self._catalog.refresh()
        records = self._scene_records()
        self._find_orphans(records)
        self._compare_records(records)
        return VerifyReport(tiles=tiles, bytes=bytes_read, problems=tuple(self._problems))

    def _add(self, kind: ProblemKind, where: Path | str, message: str) -> None:
        self._problems.append(Problem(kind=kind, path=str(where), message=message))

    def _add_lost(self, record: SceneRecord) -> None:
        for cell in record.lost_cells:
            self._add(
                ProblemKind.MISSING,
                f"{record.scene}/{cell}",
                "its file was damaged and set aside; ingest the scene again to restore it",
            )

    def _known_keys(self, keys: Sequence[TileKey]) -> list[TileKey]:
        """The keys whose dataset is known; names the datasets that are not."""
        known = {definition.id for definition in self._datasets.known()}
        for dataset_id in sorted({key.dataset_id for key in keys} - known):
            self._add(ProblemKind.RECORD, dataset_id, "tiles of a dataset that has no definition")
        return [key for key in keys if key.dataset_id in known]

    def _path(self, key: TileKey) -> Path:
        return self._directory.tile_file(key, self._datasets.placement(key.dataset_id))

    def _check_key(self, key: TileKey) -> _Checked:
        try:
            path, checksum = self._path(key), self._catalog.checksum(key)
        except NotFoundError:
            checksum = None  # the dataset was deleted meanwhile
        if checksum is None:
            return _Checked(key, 0, None)
        checked = _check_file(key, path, checksum)
        return self._check_clouds(checked) if checked.problem is None else checked

    def _check_clouds(self, checked: _Checked) -> _Checked:
        """Compares what covers and coverages are made from: the file's, and the catalog's."""
        key, path = checked.key, self._path(checked.key)
        try:
            cover = self._catalog.provider_cover(key)
            details = self._catalog.details(key)
            with TileFile.open(path) as tile:
                meta = tile.meta
        except NotFoundError:
            return checked  # replaced meanwhile
        except CorruptDataError as error:
            return replace(checked, problem=_clouds_problem(path, str(error)))
        message = None
        if cover != _as_stored(meta.cloud_cover):
            message = f"a provider's cloud cover of {cover}, the file {meta.cloud_cover}"
        elif details.cloud_histogram != meta.cloud_histogram:
            message = "another histogram of cloud likelihood than the file"
        elif details.bitmaps != meta.bitmaps:
            message = "other bitmaps than the file"
        if message is None:
            return checked
        message = f"tile {key.geocode} of scene {key.scene!r}: the catalog has {message}"
        return replace(checked, problem=_clouds_problem(path, message))

    def _is_published(self, key: TileKey) -> bool:
        self._catalog.refresh()
        try:
            self._catalog.tile(key)
        except NotFoundError:
            return False
        return True

    def _scene_records(self) -> list[SceneRecord]:
        records = []
        for name in self._catalog.record_names(SCENE_PREFIX):
            stored = self._catalog.record_get(name)
            if stored is None:
                continue
            try:
                records.append(decode_scene(name, stored.value))
            except CorruptDataError as error:
                self._add(ProblemKind.RECORD, name, str(error))
        return records

    def _accounted_paths(self, records: Sequence[SceneRecord]) -> set[Path]:
        """Files that a tile, an attempt under way or a removal under way accounts for."""
        keys = self._catalog.keys() + [tile.key for tile in self._catalog.staged()]
        for record in records:
            for version, cells in (
                (record.staging_version, record.staging_cells),
                (record.replaced_version, record.replaced_cells),
            ):
                if version is not None:
                    keys += [
                        TileKey(record.dataset_id, record.scene, version, cell) for cell in cells
                    ]
        known = {definition.id for definition in self._datasets.known()}
        return {self._path(key) for key in keys if key.dataset_id in known}

    def _find_orphans(self, records: Sequence[SceneRecord]) -> None:
        accounted = self._accounted_paths(records)
        orphans = [path for path in walk_files(self._directory.tiles) if path not in accounted]
        if not orphans:
            return
        with self._writing():  # or a writer put them since the rows were read
            self._catalog.refresh()
            accounted = self._accounted_paths(self._scene_records())
            orphans = [path for path in orphans if path not in accounted and path.exists()]
        for path in orphans:
            if not self._will_be_removed(path):
                self._add(ProblemKind.ORPHAN, path, "no tile of the catalog lies here")

    def _will_be_removed(self, path: Path) -> bool:  # noqa: ARG002 - for a ring's node
        """Whether a file that nothing accounts for is known to go by itself."""
        return False

    def _rows(self) -> dict[tuple[str, str, str], set[str]]:
        """Published cells by dataset id, scene and version."""
        rows: dict[tuple[str, str, str], set[str]] = {}
        for key in self._catalog.keys():  # noqa: SIM118  # a catalog is no mapping
            rows.setdefault((key.dataset_id, key.scene, key.version), set()).add(key.geocode)
        return rows

    def _compare_records(self, records: Sequence[SceneRecord]) -> None:
        rows = self._rows()
        for record in records:
            if record.version is None:
                continue
            found = rows.pop((record.dataset_id, record.scene, record.version), set())
            self._add_lost(record)
            in_flux = not is_settled(record) and record.state is not SceneState.STAGING
            if found != set(record.cells) and not in_flux:
                self._add(
                    ProblemKind.RECORD,
                    record.scene,
                    f"its record lists {len(record.cells)} tiles, the catalog {len(found)}",
                )
        in_flux_scenes = {(r.dataset_id, r.scene) for r in records if not is_settled(r)}
        for (dataset_id, scene, version), cells in rows.items():
            if (dataset_id, scene) not in in_flux_scenes:
                self._add(
                    ProblemKind.RECORD,
                    scene,
                    f"{len(cells)} tiles of version {version[:12]} that no record accounts for",
                )


def verify_store(
    catalog: Catalog,
    directory: StoreDirectory,
    datasets: Datasets,
    progress: Progress | None = None,
    *,
    writing: Writing | None = None,
    is_member: bool = False,
) -> VerifyReport:
    """Reads every tile file whole and compares files, rows and records.

    Writes nothing, and may run while another process writes: what that one changes meanwhile
    is looked at again before it is called a problem. `writing` holds this process's own
    writer off for that. `is_member`: it is one of a ring's.
    """
    from geostore.node.member_verification import MemberVerification

    make = MemberVerification if is_member else Verification
    return make(catalog, directory, datasets, writing).run(progress)
