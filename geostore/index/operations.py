"""What each change of the catalog does inside one LMDB transaction.

Functions here take a transaction and may run again from the start (when the map grew), so
they change nothing but the transaction.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from geostore.errors import (
    ConflictError,
    CorruptDataError,
    InvalidInputError,
    NotFoundError,
)
from geostore.index.entry import CatalogEntry, Record, StagedTile
from geostore.index.environment import Databases, Transaction
from geostore.index.face import RecordChange
from geostore.index.packing import (
    PREFIX_BYTES,
    ROW_BYTES,
    Group,
    details_checksum,
    details_size,
    key_prefix,
    pack_details,
    pack_row,
    row_group,
)
from geostore.index.state import State, pack_id, unpack_id
from geostore.types import TileKey, TileSchema

if TYPE_CHECKING:
    from lmdb import _Database

__all__ = [
    "DATASET_RECORDS",
    "PreparedEntry",
    "change_record",
    "entries_under",
    "parse_definition",
    "prepare",
    "publish",
    "published_keys",
    "put_published",
    "put_staged",
    "read_definition",
    "read_group",
    "read_record",
    "record_names",
    "remove_published",
    "remove_staged",
    "restart_removals",
    "restore_record",
    "staged_tiles",
    "stored_checksum",
]

Result = TypeVar("Result")
Write = Callable[["Transaction[bytes]", Databases], Result]
"""What `Environment.write` runs."""

REMOVAL_LOG_MAX = 4096
"""Entries kept for followers; one that is further behind loads everything anew."""

DATASET_RECORDS = "dataset/"
"""Names of the records that hold datasets' definitions begin so."""
RECORD_KEY_BYTES_MAX = 440
"""Longer names are cut and told apart by a digest (LMDB keys end at 511 bytes)."""
_RECORD_HEADER = struct.Struct("<QI")
_COUNT = struct.Struct("<Q")


def entries_under(
    txn: Transaction[bytes], database: _Database, prefix: bytes
) -> Iterator[tuple[bytes, bytes]]:
    """Keys that begin with `prefix`, in order, with their values."""
    with txn.cursor(database) as cursor:
        found = cursor.set_range(prefix) if prefix else cursor.first()
        while found:
            key, value = cursor.item()
            if not key.startswith(prefix):
                return
            yield key, value
            found = cursor.next()


# ---------------------------------------------------------------- records


def _record_key(name: str) -> bytes:
    key = name.encode("utf-8", "surrogatepass")
    if not key:
        raise InvalidInputError("record: got an empty name")
    if len(key) <= RECORD_KEY_BYTES_MAX:
        return key
    digest = hashlib.blake2b(key, digest_size=16).digest()
    return key[:RECORD_KEY_BYTES_MAX] + b"\0" + digest


def _split_record(value: bytes) -> tuple[str, Record]:
    if len(value) < _RECORD_HEADER.size:
        raise CorruptDataError(f"catalog: a record is only {len(value)} bytes long")
    revision, name_bytes = _RECORD_HEADER.unpack_from(value)
    start = _RECORD_HEADER.size + name_bytes
    name = value[_RECORD_HEADER.size : start].decode("utf-8", "surrogatepass")
    return name, Record(value[start:], revision)


def read_record(txn: Transaction[bytes], db: Databases, name: str) -> Record | None:
    """The record of that name, None where there is none."""
    value = txn.get(_record_key(name), db=db["records"])
    return None if value is None else _split_record(value)[1]


def read_definition(
    txn: Transaction[bytes], db: Databases, dataset_id: str, dataset: str
) -> dict[str, Any] | None:
    """A dataset's definition as its record has it; None where there is none of that id.

    Raises:
        CorruptDataError: the record does not read.
    """
    name = DATASET_RECORDS + dataset
    record = read_record(txn, db, name)
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


def record_names(txn: Transaction[bytes], db: Databases, prefix: str) -> list[str]:
    """Names of records that begin with `prefix`, sorted."""
    start = prefix.encode("utf-8", "surrogatepass")[:RECORD_KEY_BYTES_MAX]
    names = (_split_record(value)[0] for _, value in entries_under(txn, db["records"], start))
    return sorted(name for name in names if name.startswith(prefix))


def change_record(txn: Transaction[bytes], db: Databases, change: RecordChange) -> int:
    """The compare-and-set; returns the new revision, 0 where the record was deleted.

    Raises:
        ConflictError: the record is at another revision.
    """
    found = read_record(txn, db, change.name)
    revision = 0 if found is None else found.revision
    if revision != change.expected_revision:
        raise ConflictError(
            f"record {change.name!r}: at revision {revision}, expected"
            f" {change.expected_revision}; read it again"
        )
    if change.value is None:
        txn.delete(_record_key(change.name), db=db["records"])
        return 0
    _put_record(txn, db, change.name, Record(change.value, revision + 1))
    return revision + 1


def restore_record(txn: Transaction[bytes], db: Databases, name: str, record: Record) -> None:
    """A record that is not there, at a revision of its own. Raises ConflictError: it is."""
    if read_record(txn, db, name) is not None:
        raise ConflictError(f"record {name!r}: it is there; only what is missing is restored")
    _put_record(txn, db, name, record)


def _put_record(txn: Transaction[bytes], db: Databases, name: str, record: Record) -> None:
    text = name.encode("utf-8", "surrogatepass")
    header = _RECORD_HEADER.pack(record.revision, len(text))
    txn.put(_record_key(name), header + text + record.value, db=db["records"])


# ---------------------------------------------------------------- groups and schemas


@dataclass(frozen=True, slots=True)
class PreparedEntry:
    """An entry packed, before any transaction is open."""

    key: bytes
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
        prefix = key_prefix(key.dataset_id, key.scene, key.version)
        prepared.append(
            PreparedEntry(
                key=prefix + key.geocode.encode("ascii", "replace"),
                row=pack_row(entry, group),
                details=pack_details(entry, group),
                checksum=entry.checksum,
                group=group,
                head=head,
                properties=properties,
                schema=meta.schema,
            )
        )
    return prepared


def _keep_common(
    txn: Transaction[bytes], db: Databases, generation: int, added: Sequence[PreparedEntry]
) -> None:
    """Stores the groups and schemas of rows that were added, counting the rows of each."""
    counts = Counter(entry.group for entry in added)
    samples = {entry.group: entry for entry in added}
    for digest, rows in counts.items():
        entry = samples[digest]
        value = txn.get(digest, db=db["groups", generation])
        before = 0 if value is None else _COUNT.unpack_from(value)[0]
        txn.put(digest, _COUNT.pack(before + rows) + entry.head, db=db["groups", generation])
        if value is None:
            txn.put(digest, entry.properties, db=db["properties", generation])
    for schema in {entry.schema.digest: entry.schema for entry in added}.values():
        text = json.dumps(schema.to_json()).encode()
        txn.put(schema.digest.encode(), text, overwrite=False, db=db["schemas"])


def _drop_common(
    txn: Transaction[bytes], db: Databases, generation: int, counts: Counter[bytes]
) -> None:
    for digest, rows in counts.items():
        value = txn.get(digest, db=db["groups", generation])
        if value is None:
            continue
        left = _COUNT.unpack_from(value)[0] - rows
        if left > 0:
            txn.put(digest, _COUNT.pack(left) + value[_COUNT.size :], db=db["groups", generation])
        else:
            txn.delete(digest, db=db["groups", generation])
            txn.delete(digest, db=db["properties", generation])


def read_group(
    txn: Transaction[bytes],
    db: Databases,
    generation: int,
    digest: bytes,
    *,
    properties: bool = False,
) -> tuple[Group, int]:
    """A group and the number of rows, staged and published, that belong to it.

    Raises:
        CorruptDataError: there is none of that digest, or it does not read.
    """
    value = txn.get(digest, db=db["groups", generation])
    text = txn.get(digest, db=db["properties", generation]) if properties else b"{}"
    if value is None or text is None:
        raise CorruptDataError(
            f"catalog: a tile names scene entry {digest.hex()}, which is missing;"
            " rebuild the catalog from the tile files"
        )
    return Group.decode(value[_COUNT.size :], text), _COUNT.unpack_from(value)[0]


class _Keys:
    """Tile keys from stored keys and rows; each group is read once."""

    def __init__(self, txn: Transaction[bytes], db: Databases, generation: int) -> None:
        self.source = (txn, db, generation)
        self.groups: dict[bytes, Group] = {}

    def key(self, stored: bytes, digest: bytes) -> TileKey:
        group = self.groups.get(digest)
        if group is None:
            group = self.groups[digest] = read_group(*self.source, digest)[0]
        return TileKey(
            group.dataset_id, group.scene, group.version, stored[PREFIX_BYTES:].decode("ascii")
        )


# ---------------------------------------------------------------- staged tiles


def put_staged(
    state: State | None,
    entries: Sequence[PreparedEntry],
    txn: Transaction[bytes],
    db: Databases,
) -> list[str]:
    """Stores entries unseen, except where the key is there; returns the stored checksums.

    `state` names the generation where that is not the served one.
    """
    generation = (state or State.read(txn, db)).generation
    added = []
    checksums = []
    for entry in entries:
        stored = stored_checksum(txn, db, generation, entry.key)
        if stored is None:
            txn.put(entry.key, entry.row + entry.details, db=db["staged", generation])
            added.append(entry)
        checksums.append(stored or entry.checksum)
    _keep_common(txn, db, generation, added)
    return checksums


def stored_checksum(
    txn: Transaction[bytes], db: Databases, generation: int, key: bytes
) -> str | None:
    """The checksum of a tile file, published or staged."""
    row_id = txn.get(key, db=db["published", generation])
    if row_id is not None:
        details = txn.get(row_id, db=db["details", generation])
        if details is None:
            raise CorruptDataError("catalog: a tile has no details; rebuild the catalog")
        return details_checksum(details)
    value = txn.get(key, db=db["staged", generation])
    return None if value is None else details_checksum(value[ROW_BYTES:])


def staged_tiles(txn: Transaction[bytes], db: Databases, prefix: bytes) -> list[StagedTile]:
    """The staged tiles under a key prefix."""
    generation = State.read(txn, db).generation
    keys = _Keys(txn, db, generation)
    return [
        StagedTile(
            keys.key(stored, row_group(value)),
            details_checksum(value[ROW_BYTES:]),
            details_size(value[ROW_BYTES:]),
        )
        for stored, value in entries_under(txn, db["staged", generation], prefix)
    ]


def remove_staged(txn: Transaction[bytes], db: Databases, prefix: bytes) -> list[TileKey]:
    """Forgets the staged tiles under a key prefix."""
    generation = State.read(txn, db).generation
    keys = _Keys(txn, db, generation)
    removed = []
    counts: Counter[bytes] = Counter()
    for stored, value in list(entries_under(txn, db["staged", generation], prefix)):
        removed.append(keys.key(stored, row_group(value)))
        counts[row_group(value)] += 1
        txn.delete(stored, db=db["staged", generation])
    _drop_common(txn, db, generation, counts)
    return removed


# ---------------------------------------------------------------- published tiles


def published_keys(txn: Transaction[bytes], db: Databases, prefix: bytes) -> list[TileKey]:
    """The published tiles under a key prefix."""
    generation = State.read(txn, db).generation
    keys = _Keys(txn, db, generation)
    found = []
    for stored, row_id in entries_under(txn, db["published", generation], prefix):
        row = txn.get(row_id, db=db["rows", generation])
        if row is None:
            raise CorruptDataError("catalog: a tile has no row; rebuild the catalog")
        found.append(keys.key(stored, row_group(row)))
    return found


def _put_row(
    txn: Transaction[bytes],
    db: Databases,
    state: State,
    stored: bytes,
    row: bytes,
    details: bytes,
) -> State:
    """Row ids only grow, so every put here is at the end of its tree."""
    row_id = pack_id(state.next_row_id)
    generation = state.generation
    txn.put(row_id, row, append=True, db=db["rows", generation])
    txn.put(row_id, details, append=True, db=db["details", generation])
    txn.put(stored, row_id, db=db["published", generation])
    return replace(state, next_row_id=state.next_row_id + 1)


def put_published(
    state: State, entries: Sequence[PreparedEntry], txn: Transaction[bytes], db: Databases
) -> State:
    """Stores entries as published in the databases of `state`; a key seen before is left."""
    added = []
    for entry in entries:
        if txn.get(entry.key, db=db["published", state.generation]) is None:
            state = _put_row(txn, db, state, entry.key, entry.row, entry.details)
            added.append(entry)
    _keep_common(txn, db, state.generation, added)
    return state


def remove_published(
    txn: Transaction[bytes], db: Databases, state: State, prefix: bytes
) -> tuple[list[TileKey], State]:
    """Takes out published tiles and tells followers by the removal log."""
    generation = state.generation
    keys = _Keys(txn, db, generation)
    removed = []
    row_ids = []
    counts: Counter[bytes] = Counter()
    for stored, row_id in list(entries_under(txn, db["published", generation], prefix)):
        row = txn.pop(row_id, db=db["rows", generation])
        if row is None:
            raise CorruptDataError("catalog: a tile has no row; rebuild the catalog")
        removed.append(keys.key(stored, row_group(row)))
        counts[row_group(row)] += 1
        row_ids.append(unpack_id(row_id))
        txn.delete(row_id, db=db["details", generation])
        txn.delete(stored, db=db["published", generation])
    if not row_ids:
        return [], state
    _drop_common(txn, db, generation, counts)
    ids = np.array(row_ids, dtype="<u8").tobytes()
    txn.put(pack_id(state.removed_next), ids, append=True, db=db["removed"])
    state = replace(state, removed_next=state.removed_next + 1)
    return removed, _prune_removals(txn, db, state)


def _prune_removals(txn: Transaction[bytes], db: Databases, state: State) -> State:
    if state.removed_next - state.removed_floor <= REMOVAL_LOG_MAX:
        return state
    floor = state.removed_next - REMOVAL_LOG_MAX // 2
    for number in range(state.removed_floor, floor):
        txn.delete(pack_id(number), db=db["removed"])
    return replace(state, removed_floor=floor)


def restart_removals(txn: Transaction[bytes], db: Databases, state: State) -> State:
    """Empties the log above all that was read of it: every follower compares its rows anew."""
    txn.drop(db["removed"], delete=False)
    after = state.removed_next + 1
    return replace(state, removed_next=after, removed_floor=after)


def publish(
    txn: Transaction[bytes],
    db: Databases,
    prefix: bytes,
    replaced_prefix: bytes | None,
    cells: frozenset[str] | None,
    shown: Callable[[bytes, bytes], bytes],
) -> int:
    """New version in, old out; returns how many tiles of the version are then published.

    `shown` makes the row that is served of a staged row and its details.

    Raises:
        NotFoundError: a cell of `cells` is neither staged nor published.
    """
    state = State.read(txn, db)
    generation = state.generation
    staged = list(entries_under(txn, db["staged", generation], prefix))
    present = {
        stored[PREFIX_BYTES:].decode("ascii")
        for stored, _ in entries_under(txn, db["published", generation], prefix)
    }
    if cells is not None:
        _check_cells(cells, present, [stored for stored, _ in staged])
    unwanted: Counter[bytes] = Counter()
    for stored, value in staged:
        geocode = stored[PREFIX_BYTES:].decode("ascii")
        if geocode in present or (cells is not None and geocode not in cells):
            unwanted[row_group(value)] += 1
        else:
            row, details = value[:ROW_BYTES], value[ROW_BYTES:]
            state = _put_row(txn, db, state, stored, shown(row, details), details)
            present.add(geocode)
        txn.delete(stored, db=db["staged", generation])
    _drop_common(txn, db, generation, unwanted)
    if replaced_prefix is not None and replaced_prefix != prefix:
        _, state = remove_published(txn, db, state, replaced_prefix)
    state.write(txn, db)
    return len(present)


def _check_cells(cells: frozenset[str], present: set[str], staged: list[bytes]) -> None:
    there = present.union(stored[PREFIX_BYTES:].decode("ascii") for stored in staged)
    missing = sorted(cells - there)
    if missing:
        raise NotFoundError(
            f"publish: {len(missing)} of {len(cells)} cells are neither staged nor published,"
            f" the first is {missing[0]}"
        )
