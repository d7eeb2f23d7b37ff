"""The tiles of one node: staged, shown and removed as scenes' homes say.

The homes decide (`geostore.node.scene_home`); this is what each node that holds tiles of a
scene does on its own disk. Every request carries the scene's attempt; what comes late or
twice is known by the node's mark of that scene (`geostore.node.attempt_marks`), which is
durable before anything that rests on it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress

import xxhash

from geostore.errors import CorruptDataError, InvalidInputError, NotFoundError
from geostore.index import Catalog, StagedTile, entry_from
from geostore.metrics import CATALOG_STAGE_SECONDS, NODE_PUT_SECONDS, REGISTRY
from geostore.node.attempt_marks import Mark, after_clear, after_publish, after_stage, resolve
from geostore.node.commit_files import write_commit_file
from geostore.node.datasets import Datasets
from geostore.node.directory import StoreDirectory
from geostore.node.disk import Disk
from geostore.node.records import MARK_PREFIX, validate_dataset_id, validate_scene
from geostore.node.tile_files import TileFiles
from geostore.tiles import TileFile
from geostore.types import (
    ClearRequest,
    EncodedTile,
    PublishRequest,
    SceneRecord,
    SceneState,
    TileKey,
)

__all__ = ["TileHolder"]

Writing = Callable[[], AbstractContextManager[None]]
"""The node's writer: one writing call at a time."""


class TileHolder:
    """Calls may come from any thread; those that write wait for each other.

    `is_alone`: its only home is in the same process and calls it directly, so that nothing
    comes late or twice: it keeps no marks.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        directory: StoreDirectory,
        disk: Disk,
        files: TileFiles,
        datasets: Datasets,
        writing: Writing,
        is_alone: bool = False,
    ) -> None:
        self.catalog = catalog
        self._directory = directory
        self._disk = disk
        self._files = files
        self._datasets = datasets
        self._writing = writing
        self._is_alone = is_alone

    # ------------------------------------------------------------------ marks

    def mark(self, dataset_id: str, scene: str) -> Mark | None:
        """The newest attempt at a scene that this node heard of."""
        return self._load_mark(dataset_id, scene)[0]

    def _load_mark(self, dataset_id: str, scene: str) -> tuple[Mark | None, int]:
        name = _mark_name(dataset_id, scene)
        found = self.catalog.record_get(name)
        if found is None:
            return None, 0
        try:
            value = json.loads(found.value)
            mark = Mark(attempt=value["attempt"], is_cleared=value["is_cleared"])
        except (ValueError, KeyError, TypeError):
            raise CorruptDataError(f"record {name!r}: {found.value[:40]!r} is no mark") from None
        return mark, found.revision

    def _save_mark(self, dataset_id: str, scene: str, mark: Mark) -> None:
        if self._is_alone:
            return
        before, revision = self._load_mark(dataset_id, scene)
        if before == mark:
            return
        value = json.dumps({"attempt": mark.attempt, "is_cleared": mark.is_cleared}).encode()
        self._disk.step("mark")
        self.catalog.record_compare_and_set(_mark_name(dataset_id, scene), revision, value)
        self._disk.step("mark.saved")

    # ------------------------------------------------------------------ staging

    def stage(self, tiles: Sequence[EncodedTile], attempt: int) -> list[str]:
        """Makes tiles durable, unseen; their stored checksums, in order.

        A key that is there already, staged or published, keeps its bytes.

        Raises:
            ConflictError: the attempt was given up or overtaken.
            InvalidInputError: a payload without its checksum, or cells that are none of the
                dataset's.
            NotFoundError: a dataset that is not known here (any more).
        """
        with self._writing(), REGISTRY.timed(NODE_PUT_SECONDS):
            fresh: dict[TileKey, EncodedTile] = {}
            for tile in tiles:
                key = tile.meta.key
                self._check(tile)
                mark = after_stage(self.mark(key.dataset_id, key.scene), attempt, key.scene)
                self._save_mark(key.dataset_id, key.scene, mark)
                if self.catalog.checksum(key) is None:
                    fresh.setdefault(key, tile)
            if fresh:
                self._stage_fresh(fresh)
            return [self._stored_checksum(tile.meta.key) for tile in tiles]

    def _check(self, tile: EncodedTile) -> None:
        key = tile.meta.key
        definition = self._datasets.by_id(key.dataset_id)
        if len(key.geocode) != definition.length or not key.geocode.isalnum():
            raise InvalidInputError(
                f"tile {key}: expected a {definition.scheme} of {definition.length} characters"
            )
        if xxhash.xxh3_128_hexdigest(tile.payload) != tile.checksum:
            raise InvalidInputError(
                f"tile {key}: its payload of {len(tile.payload)} bytes does not have the"
                f" checksum {tile.checksum} that came with it"
            )

    def _stage_fresh(self, fresh: Mapping[TileKey, EncodedTile]) -> None:
        paths = {
            key: self._directory.tile_file(key, self._datasets.placement(key.dataset_id))
            for key in fresh
        }
        self._files.put([(paths[key], tile.payload) for key, tile in fresh.items()])
        self._disk.step("stage")
        try:
            with REGISTRY.timed(CATALOG_STAGE_SECONDS):
                self.catalog.stage([entry_from(tile) for tile in fresh.values()])
        except BaseException:
            with suppress(OSError):
                self._files.remove(list(paths.values()), "unput")
            raise
        self._disk.step("staged")

    def _stored_checksum(self, key: TileKey) -> str:
        checksum = self.catalog.checksum(key)
        assert checksum is not None, "an acknowledged tile has a checksum"
        return checksum

    def stored_tile(self, key: TileKey) -> EncodedTile:
        """A tile as its file has it, staged or published, every block checked.

        Raises CorruptDataError, NotFoundError: the file is damaged or gone.
        """
        path = self._directory.tile_file(key, self._datasets.placement(key.dataset_id))
        with TileFile.open(path) as tile:
            tile.verify()
            return EncodedTile(
                meta=tile.meta,
                payload=path.read_bytes(),
                checksum=tile.checksum(),
                blocks=tile.blocks,
            )

    def missing_cells(self, request: PublishRequest) -> tuple[str, ...]:
        """Those of the request's cells that are neither staged nor published here."""
        return tuple(
            cell
            for cell in request.cells
            if self.catalog.checksum(
                TileKey(request.dataset_id, request.scene, request.version, cell)
            )
            is None
        )

    # ------------------------------------------------------------------ showing

    def publish(self, request: PublishRequest, record: SceneRecord | None = None) -> None:
        """Shows the version's cells and hides the replaced version, in one transaction.

        `record`: the scene's, where all its tiles are here; written down instead of a share.

        Raises:
            NotFoundError: a cell of the request is neither staged nor published.
        """
        with self._writing():
            before = self.mark(request.dataset_id, request.scene)
            mark, is_new = after_publish(before, request.attempt)
            if not is_new:
                return
            missing = self.missing_cells(request)
            if missing:
                raise NotFoundError(
                    f"scene {request.scene!r}: {len(missing)} of {len(request.cells)} cells to"
                    f" publish are not here (first: {missing[0]})"
                )
            self._save_mark(request.dataset_id, request.scene, mark)
            wanted = frozenset(request.cells)
            staged = self.catalog.staged(request.dataset_id, request.scene, request.version)
            # Their files go before their rows: rows that a crash leaves are found again.
            self._remove_staged_files([t.key for t in staged if t.key.geocode not in wanted])
            if record is None:
                self._note_share(request)
            else:
                write_commit_file(self._directory, self._disk, record)
            self._disk.step("publish")
            self.catalog.publish(
                request.dataset_id,
                request.scene,
                request.version,
                request.replaced_version,
                cells=request.cells,
            )
            self._disk.step("publish.done")

    def _remove_staged_files(self, keys: Sequence[TileKey]) -> None:
        if keys:
            first = keys[0]
            shown = frozenset(self.catalog.keys(first.dataset_id, first.scene, first.version))
            placement = self._datasets.placement(first.dataset_id)
            paths = [self._directory.tile_file(k, placement) for k in keys if k not in shown]
            self._files.remove(paths, "clear")

    def _note_share(self, request: PublishRequest) -> None:
        """Writes down which cells this node has of the scene, for a rebuild from files."""
        shown = self.catalog.keys(request.dataset_id, request.scene, request.version)
        cells = {key.geocode for key in shown}.union(request.cells)
        if cells:
            share = SceneRecord(
                dataset_id=request.dataset_id,
                scene=request.scene,
                state=SceneState.PUBLISHED,
                version=request.version,
                cells=tuple(sorted(cells)),
                attempt=request.attempt,
            )
            write_commit_file(self._directory, self._disk, share)
        else:  # the new version leaves this node without a tile
            path = self._directory.commit_file(request.dataset_id, request.scene)
            if self._disk.remove(path, "commit"):
                self._disk.sync_directories([path.parent], "commit.directory")

    def clear(self, request: ClearRequest) -> None:
        """Removes staged tiles of a version, and files of `cells` that no row names."""
        with self._writing():
            before = self.mark(request.dataset_id, request.scene)
            mark, is_new = after_clear(before, request.attempt)
            if not is_new:
                return
            self._save_mark(request.dataset_id, request.scene, mark)
            self._disk.step("clear.unstage")
            gone = self.catalog.unstage(request.dataset_id, request.scene, request.version)
            self._disk.step("clear.unstaged")
            keys = {
                TileKey(request.dataset_id, request.scene, request.version, cell)
                for cell in request.cells
            }
            self._remove_files(sorted(keys.union(gone)))

    def _remove_files(self, keys: Sequence[TileKey]) -> None:
        unnamed = [key for key in keys if self.catalog.checksum(key) is None]
        if unnamed:
            placement = self._datasets.placement(unnamed[0].dataset_id)
            paths = [self._directory.tile_file(key, placement) for key in unnamed]
            self._files.remove(paths, "clear")

    def make_room(self, dataset_id: str, scene: str, version: str, cells: Sequence[str]) -> None:
        """Removes the files of tiles that are staged or half put, before their rows.

        For a full disk, and an attempt that nobody goes on with: rows that are staged
        without a file are cleared like any others.
        """
        with self._writing():
            self._remove_staged_files([TileKey(dataset_id, scene, version, c) for c in cells])

    def forget_handles(self) -> None:
        """Closes files that were read: an open one keeps its space after it is removed."""
        self._files.forget_handles()

    # ------------------------------------------------------------------ starting

    def staged(self) -> dict[tuple[str, str, str], list[StagedTile]]:
        """What is staged here, by (dataset id, scene, version)."""
        found: dict[tuple[str, str, str], list[StagedTile]] = {}
        for tile in self.catalog.staged():
            key = tile.key
            found.setdefault((key.dataset_id, key.scene, key.version), []).append(tile)
        return found

    def resolve(self, record: SceneRecord | None, dataset_id: str, scene: str, version: str) -> str:
        """Does with a staged version what the scene's record says; returns what that was."""
        cells = [tile.key.geocode for tile in self.catalog.staged(dataset_id, scene, version)]
        mark = self.mark(dataset_id, scene)
        attempt = 0 if mark is None else mark.attempt
        if record is not None and attempt > record.attempt:
            return "keep"  # the record was read before what is staged now was begun
        meaning = resolve(record, version, cells)
        if meaning.action == "publish":
            self.publish(
                PublishRequest(
                    dataset_id=dataset_id,
                    scene=scene,
                    version=version,
                    attempt=attempt,
                    cells=meaning.cells,
                    replaced_version=meaning.replaced_version,
                )
            )
        elif meaning.action == "clear":
            self.clear(
                ClearRequest(
                    dataset_id=dataset_id,
                    scene=scene,
                    version=version,
                    attempt=attempt,
                    cells=tuple(cells),
                )
            )
        return meaning.action


def _mark_name(dataset_id: str, scene: str) -> str:
    return f"{MARK_PREFIX}{validate_dataset_id(dataset_id)}/{validate_scene(scene)}"
