"""Cloud covers as a dataset's cloud rule has them.

What holds at the end of every change: each published row's cover is what the rule in its dataset's
record makes of the tile (no record: the provider's rule). So whoever changes such a record gives
the rows their covers here, in the same change, and whoever shows a staged tile asks here for its
cover first. Staged tiles have the provider's cover.

A rule changes one column; what it needs of a tile is the histogram of its cloud likelihood, in its
details. Neither tile files nor scenes are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from geostore.errors import CorruptDataError, InvalidInputError
from geostore.index import operations
from geostore.index.columns import Positions
from geostore.index.contents import Contents, Staged
from geostore.index.effects import Covers, Effect, PutRecord
from geostore.index.entry import Record
from geostore.index.face import NO_ROWS, RecordChange, RowIds
from geostore.index.operations import Decision
from geostore.index.packing import ROW_DTYPE, details_histograms, provider_covers
from geostore.index.state import Records, State
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
    "under_rule",
]

PROVIDER = CloudRule()
CHUNK_ROWS = 4096
"""Rows at once: with their details, some 10 MB."""


def covers_under(
    state: State, contents: Contents, rule: CloudRule, rows: Positions
) -> npt.NDArray[np.float32]:
    """The covers of rows under a rule; NaN where nothing tells.

    Raises:
        CorruptDataError: details that do not match their checksum.
    """
    if rule.method == "provider":
        covers: npt.NDArray[np.float32] = contents.memory.columns.snapshot().columns[
            "provider_cover"
        ][rows]
        return covers
    found = [np.empty(0, dtype=np.float32)]
    for start in range(0, len(rows), CHUNK_ROWS):
        places = contents.details_of(rows[start : start + CHUNK_ROWS])
        details = [bytes(state.view(at)) for at in places]
        found.append(likelihood_cover(details_histograms(details), rule.threshold))
    return np.concatenate(found).astype(np.float32, copy=False)


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
    """The rules in force by the records; each is read once."""

    def __init__(self, records: Records, changes: Sequence[Effect] = ()) -> None:
        """`changes` are made with the change that asks, so that their records count already."""
        self._records = records
        self._changed = {put.name: put for put in changes if isinstance(put, PutRecord)}
        self._known: dict[tuple[str, str], CloudRule] = {}

    def of_dataset(self, dataset_id: str, dataset: str) -> CloudRule:
        """The rule of a dataset by id and name."""
        rule = self._known.get((dataset_id, dataset))
        if rule is None:
            name = operations.DATASET_RECORDS + dataset
            put = self._changed.get(name)
            record = self._records.get(name) if put is None else _record_of(put)
            known, found = _rule_of(name, record)
            rule = self._known[dataset_id, dataset] = found if known == dataset_id else PROVIDER
        return rule

    def covers_of(self, state: State, tiles: Sequence[Staged]) -> npt.NDArray[np.float32]:
        """The covers that staged tiles are served with."""
        rows = np.frombuffer(b"".join([tile.row for tile in tiles]), ROW_DTYPE)
        covers = provider_covers(rows)
        digests = rows["group"].tolist()
        entries = state.entries
        for digest in set(digests):
            group = entries.group(entries.number(digest))
            rule = self.of_dataset(group.dataset_id, group.dataset)
            if rule.method == "provider":
                continue
            own = [at for at, each in enumerate(digests) if each == digest]
            details = [bytes(state.view(tiles[at].details)) for at in own]
            covers[own] = likelihood_cover(details_histograms(details), rule.threshold)
        return covers


def _record_of(put: PutRecord) -> Record | None:
    return Record(put.value, put.revision) if put.revision else None


def change_record(state: State, change: RecordChange) -> Decision[tuple[int, RowIds]]:
    """The compare-and-set, and of a dataset's record what follows for its rows.

    Tells the new revision (0 where the record was deleted), and the rows whose cover changed.

    Raises:
        ConflictError: the record is at another revision.
    """
    return _with_covers(state, operations.change_record(state, change))


def restore_record(state: State, name: str, record: Record) -> Decision[tuple[int, RowIds]]:
    """A record that is not there, at a revision of its own; see `change_record`."""
    return _with_covers(state, operations.restore_record(state, name, record))


def _with_covers(state: State, put: PutRecord) -> Decision[tuple[int, RowIds]]:
    effects: list[Effect] = [put]
    changed = _follow(state, put)
    if len(changed.ids):
        effects.append(changed)
    return Decision(effects, (put.revision, changed.ids))


_UNCHANGED = Covers(NO_ROWS, np.empty(0, dtype=np.float32))


def _joined(parts: Sequence[Covers]) -> Covers:
    if not parts:
        return _UNCHANGED
    return Covers(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.covers for part in parts]),
    )


def _follow(state: State, put: PutRecord) -> Covers:
    """What a record's change means for rows."""
    name = put.name
    if not name.startswith(operations.DATASET_RECORDS):
        return _UNCHANGED
    rules = [_rule_of(name, state.records.get(name)), _rule_of(name, _record_of(put))]
    changed = []
    for dataset_id in sorted({known for known, _ in rules if known is not None}):
        was, now = (rule if known == dataset_id else PROVIDER for known, rule in rules)
        if was != now:
            changed.append(_recover(state, state.contents, dataset_id, now))
    return _joined(changed)


def follow_all(state: State, contents: Contents) -> Covers:
    """What has all rows follow the records; for contents that are served from now on."""
    changed = []
    for name in state.records.names(operations.DATASET_RECORDS):
        dataset_id, rule = _rule_of(name, state.records.get(name))
        if dataset_id is not None and rule != PROVIDER:
            changed.append(_recover(state, contents, dataset_id, rule))
    return _joined(changed)


def _recover(state: State, contents: Contents, dataset_id: str, rule: CloudRule) -> Covers:
    """The rows of a dataset that have another cover under a rule, with these."""
    rows = contents.rows_under(dataset_id)
    columns = contents.memory.columns.snapshot().columns
    covers = covers_under(state, contents, rule, rows)
    # By their bits: an unknown cover is equal to itself.
    before = columns["cloud_cover"][rows]
    unknown = np.isnan(covers) & np.isnan(before)
    differs = np.flatnonzero((covers != before) & ~unknown)
    return Covers(columns["row_id"][rows[differs]], covers[differs])
