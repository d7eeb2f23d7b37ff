"""The catalog's invariants, walked: LMDB against itself, memory against LMDB."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from geostore.errors import GeostoreError
from geostore.index import operations
from geostore.index.columns import NO_START, time_columns
from geostore.index.environment import Databases, Transaction
from geostore.index.follower import Follower, read_schema
from geostore.index.memory import Memory
from geostore.index.packing import (
    PREFIX_BYTES,
    ROW_BYTES,
    details_group,
    key_prefix,
    row_group,
    unpack_rows,
)
from geostore.index.reclouding import Rules, covers_under
from geostore.index.state import State, pack_id, unpack_id

__all__ = ["problems"]

PROBLEMS_MAX = 100
"""A damaged catalog would list every tile; the first hundred say enough."""


def problems(follower: Follower, txn: Transaction[bytes], db: Databases) -> list[str]:
    """What is wrong, one sentence each. O(tiles); `follower` is up to date with `txn`.

    1. Every published key has a row and details, each with a right checksum and of one
       group; and there are no other rows or details.
    2. Every row's key is the digests of its group's names, and its geocode.
    3. Every group counts its rows, staged and published, and names a schema that reads.
    4. The removal log has every entry from its floor to its end; row ids are below the next.
    5. Memory has exactly the rows of LMDB, with the same facts.
    6. Every published row's cloud cover is what the rule of its dataset makes of its histogram
       and the provider's cover; a staged row has the provider's.
    7. Every structure that was built has every live row that belongs in it.
    """
    found: list[str] = []
    for problem in _walk(follower, txn, db):
        found.append(problem)
        if len(found) >= PROBLEMS_MAX:
            break
    return found


def _walk(follower: Follower, txn: Transaction[bytes], db: Databases) -> Iterator[str]:
    try:
        state = State.read(txn, db)
        counts: Counter[bytes] = Counter()
        rows: dict[int, bytes] = {}
        yield from _published(txn, db, state, rows, counts)
        yield from _covers(txn, db, state, rows)
        yield from _staged(txn, db, state, counts)
        yield from _groups(txn, db, state, counts)
        yield from _log(txn, db, state)
        yield from _memory(follower.memory, rows)
        yield from _structures(follower.memory)
    except GeostoreError as error:
        yield str(error)


def _published(
    txn: Transaction[bytes],
    db: Databases,
    state: State,
    rows: dict[int, bytes],
    counts: Counter[bytes],
) -> Iterator[str]:
    generation = state.generation
    for stored, row_id in operations.entries_under(txn, db["published", generation], b""):
        number = unpack_id(row_id)
        row = txn.get(row_id, db=db["rows", generation])
        details = txn.get(row_id, db=db["details", generation])
        if number >= state.next_row_id:
            yield f"row {number} has an id above the last that was given out"
        if row is None or details is None:
            yield f"tile {stored.hex()} has no {'row' if row is None else 'details'}"
            continue
        rows[number] = row
        counts[row_group(row)] += 1
        yield from _tile(txn, db, state, stored, row, details)
    for name in ("rows", "details"):
        entries = txn.stat(db[name, generation])["entries"]
        if entries != len(rows):
            yield f"{entries} {name}, expected {len(rows)}, as many as published tiles"


def _tile(
    txn: Transaction[bytes], db: Databases, state: State, stored: bytes, row: bytes, details: bytes
) -> Iterator[str]:
    try:
        (fields,) = unpack_rows([row])
        group, _ = operations.read_group(txn, db, state.generation, row_group(row))
        digest = details_group(details)
    except GeostoreError as error:
        yield f"tile {stored.hex()}: {error}"
        return
    if digest != row_group(row):
        yield f"tile {stored.hex()}: row and details name different scene entries"
    expected = key_prefix(group.dataset_id, group.scene, group.version) + bytes(fields["geocode"])
    if stored != expected:
        yield f"tile {stored.hex()}: its row belongs to {expected.hex()}"


def _covers(
    txn: Transaction[bytes], db: Databases, state: State, rows: dict[int, bytes]
) -> Iterator[str]:
    """Rows whose cover is not what their dataset's rule makes of them."""
    rules = Rules(txn, db, state.generation)
    for number, row in rows.items():
        details = txn.get(pack_id(number), db=db["details", state.generation])
        try:
            rule = rules.of_group(row_group(row))
            table = unpack_rows([row])
            expected = covers_under(rule, table, [details or b""])
        except GeostoreError:
            continue  # found above already
        if not np.array_equal(table["cloud_cover"], expected, equal_nan=True):
            yield (
                f"row {number} has a cloud cover of {table['cloud_cover'][0]}, expected"
                f" {expected[0]} by its dataset's rule ({rule})"
            )


def _staged(
    txn: Transaction[bytes], db: Databases, state: State, counts: Counter[bytes]
) -> Iterator[str]:
    generation = state.generation
    for stored, value in operations.entries_under(txn, db["staged", generation], b""):
        counts[row_group(value)] += 1
        yield from _tile(txn, db, state, stored, value[:ROW_BYTES], value[ROW_BYTES:])
        if any(unpack_rows([value[:ROW_BYTES]])["provider_xor"]):
            yield f"tile {stored[PREFIX_BYTES:]!r} is staged with another cover than its provider's"
        if txn.get(stored, db=db["published", generation]) is not None:
            yield f"tile {stored[PREFIX_BYTES:]!r} is staged and published"


def _groups(
    txn: Transaction[bytes], db: Databases, state: State, counts: Counter[bytes]
) -> Iterator[str]:
    generation = state.generation
    for digest, _ in operations.entries_under(txn, db["groups", generation], b""):
        group, rows = operations.read_group(txn, db, generation, digest, properties=True)
        if group.encode()[0] != digest:
            yield f"scene entry {digest.hex()} does not match its digest"
        if rows != counts[digest]:
            yield f"scene entry {digest.hex()} counts {rows} tiles, found {counts[digest]}"
        read_schema(txn, db, group.schema)
    for name in ("groups", "properties"):
        entries = txn.stat(db[name, generation])["entries"]
        if entries != len(counts):
            yield f"{entries} scene entries in {name}, expected {len(counts)}"


def _log(txn: Transaction[bytes], db: Databases, state: State) -> Iterator[str]:
    numbers = [unpack_id(number) for number, _ in operations.entries_under(txn, db["removed"], b"")]
    if numbers != list(range(state.removed_floor, state.removed_next)):
        yield (
            f"removal log has {len(numbers)} entries, expected all of"
            f" {state.removed_floor}..{state.removed_next}"
        )


def _memory(memory: Memory, rows: dict[int, bytes]) -> Iterator[str]:
    snapshot = memory.columns.snapshot()
    positions = np.flatnonzero(snapshot.alive)
    ids = snapshot.columns["row_id"][positions]
    if snapshot.live != len(positions):
        yield f"memory counts {snapshot.live} live rows, found {len(positions)}"
    if ids.tolist() != sorted(rows):
        yield f"memory has {len(ids)} rows, LMDB {len(rows)}, and their ids differ"
        return
    if not rows:
        return
    table = unpack_rows([rows[number] for number in ids.tolist()])
    for name, expected in {
        **{name: table[name] for name in ("pixel_coverage", "cloud_cover", "bytes")},
        **time_columns(table["time_us"], table["time_end_us"]),
    }.items():
        held = snapshot.columns[name][positions]
        if not np.array_equal(held, expected, equal_nan=held.dtype.kind == "f"):
            yield f"memory and LMDB differ in {name}"
    geocodes = snapshot.geocodes(positions).tolist()
    if geocodes != [geocode.decode("ascii") for geocode in table["geocode"].tolist()]:
        yield "memory and LMDB differ in geocode"
    groups = snapshot.columns["group"][positions]
    counts = np.bincount(groups, minlength=len(snapshot.group_live))
    if not np.array_equal(counts, snapshot.group_live):
        yield "memory miscounts the live rows of its groups"


def _structures(memory: Memory) -> Iterator[str]:
    view = memory.view()
    snapshot = view.snapshot
    alive = snapshot.alive
    columns = snapshot.columns
    expected = {
        "time": alive & (columns["start_us"] != NO_START),
        "cloud_cover": alive & ~np.isnan(columns["cloud_cover"]),
        "pixel_coverage": alive & ~np.isnan(columns["pixel_coverage"]),
        "cells": alive,
        "runs": alive,
    }
    for name, structure in view.structures().items():
        try:
            structure.check()
        except GeostoreError as error:
            yield f"structure {name}: {error}"
        # Rows that came since the structure was last used are not in it yet.
        wanted = set(np.flatnonzero(expected[name][: structure.upto]).tolist())
        missing = wanted - structure.positions()
        if missing:
            yield f"structure {name} lacks {len(missing)} rows"
