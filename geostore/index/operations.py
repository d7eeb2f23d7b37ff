"""What each change of the catalog amounts to: decided against its state, done by nobody here.

A function here reads the state and returns effects with what its caller is told. The catalog puts
the effects into the log as one frame, and whoever replays that comes to the state after it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from geostore.errors import (
    ConflictError,
    CorruptDataError,
    InvalidInputError,
    NotFoundError,
)
from geostore.index.contents import Contents, Staged
from geostore.index.effects import Effect, Gone, PutRecord, Scene, Schema, Shown, Tiles, Unstaged
from geostore.index.entry import CatalogEntry, Record, StagedTile
from geostore.index.face import RecordChange
from geostore.index.geocodes import packing_of
from geostore.index.packing import (
    ROW_DTYPE,
    Group,
    details_checksum,
    details_size,
    key_prefix,
    pack_details,
    pack_row,
)
from geostore.index.state import Records, State
from geostore.types import TileKey, TileSchema

__all__ = [
    "DATASET_RECORDS",
    "RECORD_NAME_BYTES_MAX",
    "Decision",
    "PreparedEntry",
    "change_record",
    "check_prefix",
    "known_datasets",
    "new_entries",
    "parse_definition",
    "prepare",
    "publish",
    "put",
    "read_definition",
    "remove",
    "restore_record",
    "stage",
    "staged_tiles",
    "stored_checksum",
    "tiles_of",
    "unstage",
]

Result = TypeVar("Result")

DATASET_RECORDS = "dataset/"
"""Names of the records that hold datasets' definitions begin so."""
RECORD_NAME_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Decision(Generic[Result]):
    """What changes, and what the caller is told once it is durable."""

    effects: list[Effect]
    result: Result


def check_prefix(dataset_id: str | None, scene: str | None, version: str | None) -> None:
    """Raises InvalidInputError: a scene without its dataset, or a version without its scene."""
    key_prefix(dataset_id, scene, version)


# ---------------------------------------------------------------- records


def read_definition(records: Records, dataset_id: str, dataset: str) -> dict[str, Any] | None:
    """A dataset's definition as its record has it; None where there is none of that id.

    Raises:
        CorruptDataError: the record does not read.
    """
    name = DATASET_RECORDS + dataset
    record = records.get(name)
    definition = None if record is None else parse_definition(name, record.value)
    return definition if definition is not None and definition["id"] == dataset_id else None


def parse_definition(name: str, value: bytes) -> dict[str, Any]:
    """The definition in a dataset record's value. Raises CorruptDataError."""
    try:
        # What stands before the object is the node's mark, not ours to read.
        definition: dict[str, Any] = json.loads(value[value.index(b"{") :])
        definition["id"], definition["placement"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptDataError(
            f"record {name!r}: {value[:40]!r} is no dataset's definition: {error}"
        ) from None
    return definition


def known_datasets(records: Records) -> list[str]:
    """Names of the datasets that have a record, sorted."""
    names = records.names(DATASET_RECORDS)
    return [name.removeprefix(DATASET_RECORDS) for name in names]


def change_record(state: State, change: RecordChange) -> PutRecord:
    """The compare-and-set; its revision is 0 where the record is deleted.

    Raises:
        ConflictError: the record is at another revision.
        InvalidInputError: no name, or too long a one.
    """
    _check_name(change.name)
    found = state.records.places.get(change.name)
    revision = 0 if found is None else found.revision
    if revision != change.expected_revision:
        raise ConflictError(
            f"record {change.name!r}: at revision {revision}, expected"
            f" {change.expected_revision}; read it again"
        )
    if change.value is None:
        return PutRecord(change.name, 0, b"")
    return PutRecord(change.name, revision + 1, change.value)


def restore_record(state: State, name: str, record: Record) -> PutRecord:
    """A record that is not there, at a revision of its own. Raises ConflictError: it is."""
    _check_name(name)
    if name in state.records.places:
        raise ConflictError(f"record {name!r}: it is there; only what is missing is restored")
    return PutRecord(name, record.revision, record.value)


def _check_name(name: str) -> None:
    if not name:
        raise InvalidInputError("record: got an empty name")
    length = len(name.encode("utf-8", "surrogatepass"))
    if length > RECORD_NAME_BYTES_MAX:
        raise InvalidInputError(
            f"record {name[:40]!r}...: a name of {length} bytes, expected at most"
            f" {RECORD_NAME_BYTES_MAX}"
        )


# ---------------------------------------------------------------- entries


@dataclass(frozen=True, slots=True)
class PreparedEntry:
    """An entry packed, before anything is locked."""

    key: TileKey
    row: bytes
    details: bytes
    checksum: str
    group: bytes
    head: bytes
    properties: bytes
    schema: TileSchema


def prepare(entries: Sequence[CatalogEntry]) -> list[PreparedEntry]:
    """
    Raises:
        InvalidInputError: an entry that cannot be stored.
    """
    encoded: dict[tuple[object, ...], tuple[bytes, bytes, bytes]] = {}
    prepared = []
    for entry in entries:
        meta = entry.meta
        key = meta.key
        # The tiles of a scene share one properties object: encode it once. Its id is safe
        # as a key for as long as `entries` keeps it alive.
        common = (
            key.dataset_id,
            meta.dataset,
            key.scene,
            key.version,
            meta.platform,
            meta.schema.digest,
            meta.cloud_method,
            id(meta.properties),
        )
        if common not in encoded:
            encoded[common] = Group.of(entry).encode()
        group, head, properties = encoded[common]
        prepared.append(
            PreparedEntry(
                key=key,
                row=_checked_row(entry, group),
                details=pack_details(entry, group),
                checksum=entry.checksum,
                group=group,
                head=head,
                properties=properties,
                schema=meta.schema,
            )
        )
    return prepared


def _checked_row(entry: CatalogEntry, group: bytes) -> bytes:
    row = pack_row(entry, group)
    try:
        # A frame with what is no cell could never be taken in.
        packing_of(entry.meta.schema.scheme).pack(entry.meta.key.geocode)
    except InvalidInputError as error:
        raise InvalidInputError(f"geocode of tile {entry.meta.key}: {error}") from None
    return row


def put(
    state: State,
    added: Sequence[PreparedEntry],
    *,
    is_published: bool = False,
    is_building: bool = False,
) -> list[Effect]:
    """Entries as tiles, after the scenes' entries and schemas that are new with them."""
    if not added:
        return []
    schemas = {entry.schema.digest: entry.schema for entry in added}.values()
    scenes = {entry.group: entry for entry in added}.values()
    effects: list[Effect] = [
        Schema(schema.digest, json.dumps(schema.to_json()).encode())
        for schema in schemas
        if schema.digest not in state.schemas
    ]
    effects += [
        Scene(entry.group, entry.head, entry.properties)
        for entry in scenes
        if not state.has_scene(entry.group)
    ]
    rows = np.frombuffer(b"".join([entry.row for entry in added]), ROW_DTYPE)
    details = [entry.details for entry in added]
    effects.append(tiles_of(rows, details, is_published=is_published, is_building=is_building))
    return effects


def tiles_of(
    rows: npt.NDArray[np.void],
    details: Sequence[bytes],
    *,
    is_published: bool,
    is_building: bool = False,
) -> Tiles:
    """Tiles of rows and as many details."""
    lengths = np.fromiter(map(len, details), np.uint32, count=len(details))
    joined = [b"".join(details)]
    return Tiles(rows, lengths, joined, is_published=is_published, is_building=is_building)


def stored_checksum(state: State, contents: Contents, key: TileKey) -> str | None:
    """The checksum of a tile file, published or staged."""
    at = contents.find(key)
    if at is not None:
        (details,) = contents.details_of(np.array([at]))
        return details_checksum(bytes(state.view(details)))
    staged = contents.staged_at(key)
    return None if staged is None else details_checksum(bytes(state.view(staged.details)))


def new_entries(
    state: State, contents: Contents, entries: Sequence[PreparedEntry]
) -> tuple[list[PreparedEntry], list[str]]:
    """(those whose keys are not there, the stored checksum of each)."""
    added: dict[TileKey, PreparedEntry] = {}
    checksums = []
    for entry in entries:
        first = added.get(entry.key)
        stored = stored_checksum(state, contents, entry.key) if first is None else first.checksum
        if stored is None:
            added[entry.key] = entry
        checksums.append(stored or entry.checksum)
    return list(added.values()), checksums


def stage(state: State, batches: Sequence[Sequence[PreparedEntry]]) -> Decision[list[list[str]]]:
    """Stores entries unseen, except where the key is there; tells the stored checksums."""
    added, checksums = new_entries(state, state.contents, [e for batch in batches for e in batch])
    told = iter(checksums)
    return Decision(put(state, added), [[next(told) for _ in batch] for batch in batches])


# ---------------------------------------------------------------- staged tiles


def staged_tiles(state: State, tiles: Sequence[Staged]) -> list[StagedTile]:
    """Staged tiles as callers know them."""
    found = []
    for tile in tiles:
        details = bytes(state.view(tile.details))
        found.append(StagedTile(tile.key, details_checksum(details), details_size(details)))
    return found


def _numbers(tiles: Sequence[Staged]) -> npt.NDArray[np.int64]:
    return np.fromiter((tile.number for tile in tiles), np.int64, count=len(tiles))


def unstage(
    state: State, dataset_id: str, scene: str | None, version: str | None
) -> Decision[list[TileKey]]:
    """Forgets staged tiles."""
    tiles = state.contents.staged_under(dataset_id, scene, version)
    effects: list[Effect] = [Unstaged(_numbers(tiles))] if tiles else []
    return Decision(effects, [tile.key for tile in tiles])


# ---------------------------------------------------------------- published tiles


def remove(
    state: State, dataset_id: str, scene: str | None, version: str | None
) -> Decision[list[TileKey]]:
    """Takes out published and staged tiles; tells the published ones' keys."""
    effects = unstage(state, dataset_id, scene, version).effects
    rows = state.contents.rows_under(dataset_id, scene, version)
    if len(rows):
        effects.append(Gone(state.contents.memory.columns.snapshot().columns["row_id"][rows]))
    return Decision(effects, state.contents.keys_of(rows))


def publish(
    state: State,
    key: tuple[str, str, str],
    replaced_version: str | None,
    cells: frozenset[str] | None,
    covers_of: Callable[[Sequence[Staged]], npt.NDArray[np.float32]],
) -> Decision[int]:
    """New version in, old out; tells how many tiles of the version are then published.

    `covers_of` tells the covers that staged tiles are served with.

    Raises:
        NotFoundError: a cell of `cells` is neither staged nor published.
    """
    dataset_id, scene, version = key
    contents = state.contents
    staged = contents.staged_under(dataset_id, scene, version)
    present = set(contents.geocodes_under(dataset_id, scene, version))
    if cells is not None:
        _check_cells(cells, present.union(tile.key.geocode for tile in staged))
    shown: list[Staged] = []
    unwanted: list[Staged] = []
    for tile in staged:
        geocode = tile.key.geocode
        is_wanted = geocode not in present and (cells is None or geocode in cells)
        (shown if is_wanted else unwanted).append(tile)
    effects: list[Effect] = []
    if unwanted:
        effects.append(Unstaged(_numbers(unwanted)))
    if shown:
        effects.append(Shown(_numbers(shown), covers_of(shown)))
    if replaced_version is not None and replaced_version != version:
        rows = contents.rows_under(dataset_id, scene, replaced_version)
        if len(rows):
            effects.append(Gone(contents.memory.columns.snapshot().columns["row_id"][rows]))
    return Decision(effects, len(present) + len(shown))


def _check_cells(cells: frozenset[str], there: set[str]) -> None:
    missing = sorted(cells - there)
    if missing:
        raise NotFoundError(
            f"publish: {len(missing)} of {len(cells)} cells are neither staged nor published,"
            f" the first is {missing[0]}"
        )
