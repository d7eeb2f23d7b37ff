"""Dataset definitions of one node: records that every request's dataset id leads to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from geostore.errors import ConflictError, NotFoundError
from geostore.index import NO_ROWS, Catalog, RecordChange, RowIds
from geostore.node.commit_files import write_rule_file
from geostore.node.directory import StoreDirectory
from geostore.node.disk import Disk
from geostore.node.records import (
    COPY_PREFIX,
    DATASET_PREFIX,
    LOST_TILES_PREFIX,
    MARK_PREFIX,
    SCENE_PREFIX,
    TOMBSTONE_PREFIX,
    Tombstone,
    dataset_record_name,
    decode_dataset,
    decode_tombstone,
    encode_dataset,
    encode_tombstone,
    is_unsettled,
    tombstone_record_name,
    validate_dataset_id,
)
from geostore.types import DatasetDefinition

__all__ = ["Datasets"]


class Datasets:
    """Reads definitions for anyone; changes them for the node's writer."""

    def __init__(
        self,
        catalog: Catalog,
        directory: StoreDirectory,
        disk: Disk,
        now_us: Callable[[], int],
    ) -> None:
        self._catalog = catalog
        self._directory = directory
        self._disk = disk
        self._now_us = now_us
        self._by_id: dict[str, DatasetDefinition] = {}

    def known(self) -> list[DatasetDefinition]:
        """All definitions, by name."""
        found = []
        for record_name in self._catalog.record_names(DATASET_PREFIX):
            record = self._catalog.record_get(record_name)
            if record is not None:  # else deleted since the names were listed
                found.append(decode_dataset(record_name, record.value))
        self._by_id = {definition.id: definition for definition in found}
        return found

    def get(self, name: str) -> DatasetDefinition:
        """The definition of a name. Raises NotFoundError, which names the known ones."""
        return self._get_with_revision(name)[0]

    def _get_with_revision(self, name: str) -> tuple[DatasetDefinition, int]:
        record_name = dataset_record_name(name)
        record = self._catalog.record_get(record_name)
        if record is None:
            names = [
                n.removeprefix(DATASET_PREFIX) for n in self._catalog.record_names(DATASET_PREFIX)
            ]
            known = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
            raise NotFoundError(f"dataset {name!r} does not exist; known: {known or 'none yet'}")
        return decode_dataset(record_name, record.value), record.revision

    def by_id(self, dataset_id: str) -> DatasetDefinition:
        """The complete definition of an id. Raises NotFoundError: deleted or never known."""
        definition = self._by_id.get(dataset_id)
        if definition is None or not definition.is_complete:
            self.known()
            definition = self._by_id.get(dataset_id)
        if definition is None:
            raise NotFoundError(f"dataset id {dataset_id!r}: no such dataset; it was deleted")
        return definition

    def placement(self, dataset_id: str) -> int:
        """The placement length of an id; never changes once a tile could be stored."""
        placement = self.by_id(dataset_id).placement
        if placement is None:
            raise NotFoundError(f"dataset id {dataset_id!r}: it has no tiles yet")
        return placement

    def require_same(self, definition: DatasetDefinition) -> None:
        """Checks that a caller's definition is the stored one, as far as pixels go.

        Raises:
            NotFoundError: it is not there (any more).
            ConflictError: it was changed since the caller read it, or is not complete.
        """
        stored = self.get(definition.name)
        if stored.id != definition.id:
            raise NotFoundError(
                f"dataset {definition.name!r} was deleted and created anew; read it again"
            )
        same = stored.pixel_fingerprint() == definition.pixel_fingerprint()
        if not same or stored.placement != definition.placement:
            raise ConflictError(
                f"dataset {definition.name!r}: its definition was changed meanwhile; read it again"
            )
        if not stored.is_complete:
            raise ConflictError(
                f"dataset {definition.name!r} has no resolution groups yet: complete its"
                " definition before a scene begins"
            )

    def create(self, definition: DatasetDefinition) -> None:
        """Raises ConflictError: the name is taken, or the id was used before."""
        validate_dataset_id(definition.id)
        in_use = {known.id for known in self.known()}
        tombstone = self._catalog.record_get(tombstone_record_name(definition.id))
        if definition.id in in_use or tombstone is not None:
            raise ConflictError(
                f"dataset id {definition.id!r} was used before and never returns; make a new one"
            )
        name = dataset_record_name(definition.name)
        if self._catalog.record_get(name) is not None:
            raise ConflictError(f"dataset {definition.name!r} exists already")
        self._save(name, 0, definition, "create")

    def replace(self, old: DatasetDefinition, new: DatasetDefinition) -> RowIds:
        """Puts `new` in the place of `old`; the rows whose cloud cover changed by that.

        Raises:
            ConflictError: the stored one is not `old`, or `new` has another name or id, or
                changes what shapes the pixels of tiles that may be stored, or has another
                cloud rule without counting the change.
            NotFoundError: there is none.
        """
        if (old.id, old.name) != (new.id, new.name):
            raise ConflictError(
                f"dataset {old.name!r}: its id and name stay; got id {new.id!r}, name {new.name!r}"
            )
        stored, revision = self._get_with_revision(old.name)
        if stored != old:
            raise ConflictError(
                f"dataset {old.name!r}: its definition was changed meanwhile; read it again"
            )
        if new == stored:
            return NO_ROWS
        shaping = old.pixel_fingerprint() == new.pixel_fingerprint()
        if old.is_complete and not (shaping and old.placement == new.placement):
            raise ConflictError(
                f"dataset {old.name!r}: scheme, length, placement, groups and resampling are"
                " fixed; create another dataset"
            )
        if new.cloud_changes != old.with_cloud_rule(new.cloud_rule).cloud_changes:
            raise ConflictError(
                f"dataset {old.name!r}: {new.cloud_changes} changes of its cloud rule, to"
                f" {new.cloud_rule}, after {old.cloud_changes} to {old.cloud_rule}; each change"
                " counts one"
            )
        name = dataset_record_name(old.name)
        return self._save(name, revision, new, "replace")

    def _save(
        self, name: str, expected_revision: int, definition: DatasetDefinition, what: str
    ) -> RowIds:
        if definition.cloud_changes:
            write_rule_file(self._directory, self._disk, definition)
        self._disk.step(f"dataset.{what}")
        change = RecordChange(name, expected_revision, encode_dataset(definition))
        _, changed = self._catalog.change_definition(change)
        self._disk.step(f"dataset.{what}.saved")
        self._by_id[definition.id] = definition
        return changed

    def delete(self, name: str) -> int:
        """Deletes a dataset whole; returns how many tiles were published.

        The tombstone decides. What follows can be done again by `finish_deletion`.
        """
        definition = self.get(name)
        tombstone = Tombstone(dataset_id=definition.id, name=name, deleted_us=self._now_us())
        record_name = tombstone_record_name(definition.id)
        if self._catalog.record_get(record_name) is None:  # else an earlier call was cut short
            self._disk.step("delete.tombstone")
            self._catalog.record_compare_and_set(record_name, 0, encode_tombstone(tombstone))
            self._disk.step("delete.tombstoned")
        return self._finish_deletion(tombstone)

    def learn(self, definition: DatasetDefinition) -> RowIds:
        """Keeps a definition that its home decided; what is known already, or newer, stays.

        The rows whose cloud cover changed by that.

        Raises:
            ConflictError: the id was deleted, or the name is another dataset's here.
        """
        if self._catalog.record_get(tombstone_record_name(definition.id)) is not None:
            raise ConflictError(
                f"dataset {definition.name!r}: its id {definition.id!r} was deleted"
            )
        name = dataset_record_name(definition.name)
        record = self._catalog.record_get(name)
        if record is not None:
            known = decode_dataset(name, record.value)
            if known.id != definition.id:
                raise ConflictError(
                    f"dataset {definition.name!r} is known here with id {known.id!r}, not"
                    f" {definition.id!r}"
                )
            is_late = definition.cloud_changes < known.cloud_changes or (
                known.is_complete and not definition.is_complete
            )
            if known == definition or is_late:
                return NO_ROWS
        revision = 0 if record is None else record.revision
        return self._save(name, revision, definition, "learn")

    def forget(self, dataset_id: str, name: str) -> int:
        """Deletes a dataset that its home deleted, for ever; how many tiles it had here."""
        tombstone = Tombstone(dataset_id=dataset_id, name=name, deleted_us=self._now_us())
        record_name = tombstone_record_name(dataset_id)
        record = self._catalog.record_get(record_name)
        if record is None:
            self._disk.step("delete.tombstone")
            self._catalog.record_compare_and_set(record_name, 0, encode_tombstone(tombstone))
            self._disk.step("delete.tombstoned")
        elif not is_unsettled(record.value):
            return 0
        return self._finish_deletion(tombstone)

    def require_not_deleted(self, dataset_id: str) -> None:
        """Raises NotFoundError: it was deleted, and nothing of it may be kept any more."""
        if self._catalog.record_get(tombstone_record_name(dataset_id)) is not None:
            raise NotFoundError(f"dataset id {dataset_id!r}: it was deleted")

    def deleted(self) -> list[Tombstone]:
        """Every dataset that was ever deleted."""
        found = []
        for name in self._catalog.record_names(TOMBSTONE_PREFIX):
            record = self._catalog.record_get(name)
            if record is not None:
                found.append(decode_tombstone(name, record.value))
        return found

    def finish_deletions(self) -> int:
        """Finishes what an earlier writer began to delete; returns how many datasets."""
        finished = 0
        for name in self._catalog.record_names(TOMBSTONE_PREFIX):
            record = self._catalog.record_get(name)
            if record is not None and is_unsettled(record.value):
                self._finish_deletion(decode_tombstone(name, record.value))
                finished += 1
        return finished

    def _finish_deletion(self, tombstone: Tombstone) -> int:
        dataset_id = tombstone.dataset_id
        removed = self._remove_rows(tombstone)
        self._disk.step("delete.rows_removed")
        prefixes = SCENE_PREFIX, f"{COPY_PREFIX}{SCENE_PREFIX}", MARK_PREFIX, LOST_TILES_PREFIX
        for prefix in prefixes:
            for name in self._catalog.record_names(f"{prefix}{dataset_id}/"):
                record = self._catalog.record_get(name)
                if record is not None:
                    self._catalog.record_compare_and_set(name, record.revision, None)
                    self._disk.step("delete.scene_removed")
        self._remove_files(dataset_id)
        self._by_id.pop(dataset_id, None)
        name = tombstone_record_name(dataset_id)
        record = self._catalog.record_get(name)
        assert record is not None
        done = encode_tombstone(replace(tombstone, is_finished=True))
        self._catalog.record_compare_and_set(name, record.revision, done)
        self._disk.step("delete.finished")
        return removed

    def _remove_rows(self, tombstone: Tombstone) -> int:
        """Rows and definition go in one transaction: no query sees one without the other."""
        name = dataset_record_name(tombstone.name)
        record = self._catalog.record_get(name)
        change = None
        if record is not None and decode_dataset(name, record.value).id == tombstone.dataset_id:
            change = RecordChange(name, record.revision, None)
        return len(self._catalog.remove(tombstone.dataset_id, record=change))

    def _remove_files(self, dataset_id: str) -> None:
        """Renames the dataset's directories away, then empties them.

        After the rename a rebuild from files cannot bring the dataset back, however much of
        the emptying a crash leaves undone (a rule file alone makes no dataset).
        """
        for source in (
            self._directory.dataset_tiles(dataset_id),
            self._directory.commits / dataset_id,
        ):
            if source.is_dir():
                target = self._directory.tmp / f"deleted-{source.parent.name}-{dataset_id}"
                self._disk.rename(source, target, "delete")
                self._disk.sync_directories([source.parent, target.parent], "delete.directory")
        if self._disk.remove(self._directory.rule_file(dataset_id), "delete.rule"):
            self._disk.sync_directories([self._directory.rules], "delete.rule")
        self._disk.clear_matching(self._directory.tmp, f"deleted-*-{dataset_id}", "delete")
