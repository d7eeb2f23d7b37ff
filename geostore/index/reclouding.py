"""Cloud covers as a dataset's cloud rule has them.

What holds at the end of every transaction: each published row's cover is what the rule in its
dataset's record makes of the tile (no record: the provider's rule). So whoever changes such a
record rewrites the rows here, in the same transaction, and whoever shows a staged row asks here
for it first. Staged rows have the provider's cover.

A rule changes rows alone, 88 bytes each; what it needs of a tile is the histogram of its cloud
likelihood, in its details. Neither tile files nor scenes are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from geostore.errors import CorruptDataError, InvalidInputError
from geostore.index import operations
from geostore.index.entry import Record
from geostore.index.environment import Databases, Transaction
from geostore.index.face import NO_ROWS, RecordChange, RowIds
from geostore.index.packing import (
    details_histograms,
    key_prefix,
    provider_covers,
    row_group,
    unpack_rows,
    with_covers,
)
from geostore.index.state import State, pack_id, unpack_id
from geostore.types import (
    BandRole,
    CloudLayer,
    CloudRule,
    TileDetails,
    TileSchema,
    likelihood_cover,
)

__all__ = [
    "PROVIDER",
    "Rules",
    "change_record",
    "covers_under",
    "follow_all",
    "likelihood_band",
    "restore_record",
    "stored_values",
    "under_rule",
]

PROVIDER = CloudRule()
CHUNK_ROWS = 4096
"""Rows at once: with their details, some 10 MB."""


def covers_under(
    rule: CloudRule, table: npt.NDArray[np.void], details: list[bytes]
) -> npt.NDArray[np.float32]:
    """The covers of rows (ROW_DTYPE) under a rule; NaN where nothing tells.

    `details`: the rows' packed details; not looked at under the provider's rule.

    Raises:
        CorruptDataError: details that do not match their checksum.
    """
    if rule.method == "provider":
        return provider_covers(table)
    return likelihood_cover(details_histograms(details), rule.threshold)


def likelihood_band(schema: TileSchema) -> str | None:
    """The band that has the cloud likelihood in percent."""
    likelihoods = (band.name for band in schema.bands if band.role is BandRole.LIKELIHOOD)
    return next(likelihoods, None)


def under_rule(details: TileDetails, rule: CloudRule, band: str | None) -> TileDetails:
    """Details that tell how a tile's cover is told by its likelihood, in `band`."""
    method = None
    if details.cloud_histogram is not None:
        method = CloudLayer(band or "likelihood", "likelihood", frozenset({rule.threshold})).method
    return replace(details, cloud_method=method)


def _rule_of(name: str, record: Record | None) -> tuple[str | None, CloudRule]:
    """Id and rule of the definition in a dataset's record; None where there is none.

    One that does not read is none here: it may be changed, and who goes by it finds out.
    """
    if record is None:
        return None, PROVIDER
    try:
        definition = operations.parse_definition(name, record.value)
        return definition["id"], CloudRule(**definition.get("cloud_rule", {}))
    except (CorruptDataError, InvalidInputError, TypeError):
        return None, PROVIDER


class Rules:
    """The rules in force as one transaction sees them; each is read once."""

    def __init__(self, txn: Transaction[bytes], db: Databases, generation: int) -> None:
        self._source = (txn, db, generation)
        self._by_group: dict[bytes, CloudRule] = {}

    def of_group(self, digest: bytes) -> CloudRule:
        """The rule of a scene entry's dataset."""
        rule = self._by_group.get(digest)
        if rule is None:
            group, _ = operations.read_group(*self._source, digest)
            rule = self._by_group[digest] = self.of_dataset(group.dataset_id, group.dataset)
        return rule

    def of_dataset(self, dataset_id: str, dataset: str) -> CloudRule:
        """The rule of a dataset by id and name."""
        txn, db, _ = self._source
        name = operations.DATASET_RECORDS + dataset
        known, rule = _rule_of(name, operations.read_record(txn, db, name))
        return rule if known == dataset_id else PROVIDER

    def shown(self, row: bytes, details: bytes) -> bytes:
        """The row that is served of a staged one."""
        rule = self.of_group(row_group(row))
        if rule.method == "provider":
            return row
        table = unpack_rows([row])
        return with_covers(table, covers_under(rule, table, [details])).tobytes()


def change_record(
    txn: Transaction[bytes], db: Databases, change: RecordChange
) -> tuple[int, RowIds]:
    """The compare-and-set, and of a dataset's record what follows for its rows.

    Returns:
        The new revision (0 where the record was deleted), and the rows whose cover changed.

    Raises:
        ConflictError: the record is at another revision.
    """
    before = operations.read_record(txn, db, change.name)
    revision = operations.change_record(txn, db, change)
    after = None if change.value is None else Record(change.value, revision)
    return revision, _follow(txn, db, change.name, before, after)


def restore_record(txn: Transaction[bytes], db: Databases, name: str, record: Record) -> RowIds:
    """A record that is not there, at a revision of its own; see `change_record`."""
    operations.restore_record(txn, db, name, record)
    return _follow(txn, db, name, None, record)


def _follow(
    txn: Transaction[bytes], db: Databases, name: str, before: Record | None, after: Record | None
) -> RowIds:
    if not name.startswith(operations.DATASET_RECORDS):
        return NO_ROWS
    rules = [_rule_of(name, before), _rule_of(name, after)]
    state = State.read(txn, db)
    changed = [NO_ROWS]
    for dataset_id in sorted({known for known, _ in rules if known is not None}):
        was, now = (rule if known == dataset_id else PROVIDER for known, rule in rules)
        if was != now:
            changed.append(_rewrite(txn, db, state.generation, dataset_id, now))
    row_ids = np.concatenate(changed)
    if len(row_ids):
        operations.restart_removals(txn, db, state).write(txn, db)
    return row_ids


def follow_all(txn: Transaction[bytes], db: Databases, generation: int) -> None:
    """Has all rows of a generation follow the records; for one that is served from now on."""
    for name in operations.record_names(txn, db, operations.DATASET_RECORDS):
        dataset_id, rule = _rule_of(name, operations.read_record(txn, db, name))
        if dataset_id is not None and rule != PROVIDER:
            _rewrite(txn, db, generation, dataset_id, rule)


def _rewrite(
    txn: Transaction[bytes], db: Databases, generation: int, dataset_id: str, rule: CloudRule
) -> RowIds:
    """Puts every row of a dataset under a rule; the rows that changed, in order."""
    published = operations.entries_under(txn, db["published", generation], key_prefix(dataset_id))
    row_ids = np.fromiter((unpack_id(row_id) for _, row_id in published), dtype=np.int64)
    row_ids.sort()  # as they lie in the file
    changed = [NO_ROWS]
    for start in range(0, len(row_ids), CHUNK_ROWS):
        chunk = row_ids[start : start + CHUNK_ROWS]
        table = unpack_rows(list(stored_values(txn, db, "rows", generation, chunk)))
        details: list[bytes] = []
        if rule.method != "provider":
            details = list(stored_values(txn, db, "details", generation, chunk))
        rewritten = with_covers(table, covers_under(rule, table, details))
        differs = np.flatnonzero(rewritten["checksum"] != table["checksum"])
        for i in differs.tolist():
            txn.put(pack_id(int(chunk[i])), rewritten[i].tobytes(), db=db["rows", generation])
        changed.append(chunk[differs])
    return np.concatenate(changed)


def stored_values(
    txn: Transaction[bytes], db: Databases, name: str, generation: int, row_ids: RowIds
) -> Iterator[bytes]:
    """Packed rows or details (`name`) of row ids. Raises CorruptDataError: one is missing."""
    for row_id in row_ids.tolist():
        value = txn.get(pack_id(row_id), db=db[name, generation])
        if value is None:
            raise CorruptDataError(f"catalog: a tile is missing in {name}; rebuild the catalog")
        yield value
