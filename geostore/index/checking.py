"""The catalog's invariants, walked: the files against themselves, memory against the files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.errors import GeostoreError
from geostore.index.columns import COLUMN_DTYPES, GROUP_COLUMNS, NO_START, Snapshot
from geostore.index.contents import Contents
from geostore.index.effects import ValueAt
from geostore.index.home import Home
from geostore.index.log import LogDroppedError
from geostore.index.memory import Memory
from geostore.index.packing import ROW_DTYPE, details_group
from geostore.index.reclouding import Rules, covers_under
from geostore.index.row_bitmaps import KINDS, UNREAD, WORDS, RowBitmaps
from geostore.index.state import State

__all__ = ["problems"]

BITMAPS_AT_ONCE = 1 << 16
WALKS_MAX = 3
PROBLEMS_MAX = 100
"""A damaged catalog would list every tile; the first hundred say enough."""


def problems(home: Home) -> list[str]:
    """What is wrong, one sentence each. O(bytes of the log + rows).

    1. Every frame of the log and every section of the snapshots matches its checksum.
    2. Every tile, published or staged, has details with a right checksum, of its scene's entry;
       every scene's entry matches its digest and names a schema that reads.
    3. A key is published once, or staged, not both; a row id was given out.
    4. Every record's value matches its checksum.
    5. Memory is what the newest snapshot and the log after it amount to.
    6. Every published row's cloud cover is what the rule of its dataset makes of its histogram
       and the provider's cover; a staged tile has the provider's.
    7. Every structure that was built has every live row that belongs in it.
    8. Bitmaps that are at hand are those of the details.
    """
    for tries_left in reversed(range(WALKS_MAX)):
        try:
            return list(islice(_walk(home), PROBLEMS_MAX))
        except LogDroppedError as error:  # another process cleaned the log meanwhile
            if not tries_left:
                return [str(error)]
    raise AssertionError("at least one walk")


def _walk(home: Home) -> Iterator[str]:
    try:
        yield from home.check_files()
        with home.reading() as state:
            yield from _rows(state)
            yield from _staged(state)
            yield from _scenes(state)
            yield from _records(state)
            yield from _covers(state)
            yield from _memory(state.contents.memory.columns.snapshot())
            yield from _differences(state, home.replayed(state))
            yield from _structures(state.contents.memory)
            yield from _bitmaps(state)
    except LogDroppedError:
        raise
    except GeostoreError as error:
        yield str(error)


def _rows(state: State) -> Iterator[str]:
    contents = state.contents
    snapshot = contents.memory.columns.snapshot()
    rows = np.flatnonzero(snapshot.alive)
    ids = snapshot.columns["row_id"]
    if len(ids) and not (ids[-1] < state.next_row_id and (np.diff(ids) > 0).all()):
        yield f"row ids are not rising, or above {state.next_row_id - 1}, the last given out"
    keys = contents.keys_of(rows)
    for key, count in Counter(keys).items():
        if count > 1:
            yield f"tile {key} is published {count} times"
    groups = snapshot.columns["group"][rows].tolist()
    for key, group, at in zip(keys, groups, contents.details_of(rows), strict=True):
        try:
            digest = details_group(bytes(state.view(at)), key)
        except GeostoreError as error:
            yield str(error)
            continue
        if digest != contents.digests[group]:
            yield f"tile {key}: row and details name different scene entries"


def _staged(state: State) -> Iterator[str]:
    for tile in state.contents.staged.values():
        (row,) = np.frombuffer(tile.row, ROW_DTYPE)
        try:
            digest = details_group(bytes(state.view(tile.details)), tile.key)
        except GeostoreError as error:
            yield str(error)
            continue
        if digest != row["group"].tobytes():
            yield f"tile {tile.key}: row and details name different scene entries"
        if row["provider_xor"]:
            yield f"tile {tile.key} is staged with another cover than its provider's"
        if state.contents.find(tile.key) is not None:
            yield f"tile {tile.key} is staged and published"


def _scenes(state: State) -> Iterator[str]:
    # Others may lie in segments that went: whoever needs one again writes it again.
    needed = state.contents.needed()
    for number, digest in enumerate(state.entries.digests):
        if digest not in needed:
            continue
        try:
            state.schema(state.entries.group(number).schema)
        except GeostoreError as error:
            yield str(error)


def _records(state: State) -> Iterator[str]:
    for name in state.records.names():
        try:
            state.records.get(name)
        except GeostoreError as error:
            yield str(error)


def _covers(state: State) -> Iterator[str]:
    """Rows whose cover is not what their dataset's rule makes of them."""
    contents = state.contents
    snapshot = contents.memory.columns.snapshot()
    rules = Rules(state.records)
    names = set(zip(*(snapshot.group_values(name, np.flatnonzero(snapshot.alive)).tolist()
                      for name in ("dataset_id", "dataset")), strict=True))  # fmt: skip
    for dataset_id, dataset in sorted(names):
        rule = rules.of_dataset(dataset_id, dataset)
        rows = contents.rows_under(dataset_id)
        try:
            expected = covers_under(state, contents, rule, rows)
        except GeostoreError:
            continue  # found above already
        covers = snapshot.columns["cloud_cover"][rows]
        wrong = (covers != expected) & ~(np.isnan(covers) & np.isnan(expected))
        for at in np.flatnonzero(wrong).tolist():
            yield (
                f"row {snapshot.columns['row_id'][rows[at]]} has a cloud cover of {covers[at]},"
                f" expected {expected[at]} by its dataset's rule ({rule})"
            )


def _memory(snapshot: Snapshot) -> Iterator[str]:
    positions = np.flatnonzero(snapshot.alive)
    if snapshot.live != len(positions):
        yield f"memory counts {snapshot.live} live rows, found {len(positions)}"
    groups = snapshot.columns["group"][positions]
    counts = np.bincount(groups, minlength=len(snapshot.group_live))
    if not np.array_equal(counts, snapshot.group_live):
        yield "memory miscounts the live rows of its groups"


def _differences(held: State, replayed: State) -> Iterator[str]:
    """Where a state is not what the files amount to."""
    if held.position != replayed.position:
        yield f"memory is at {held.position}, the log at {replayed.position}"
        return
    if held.records.places != replayed.records.places:
        yield "memory and log differ in records"
    if held.schemas != replayed.schemas:
        yield "memory and log differ in schemas"
    if held.next_row_id != replayed.next_row_id:
        yield f"memory's next row is {held.next_row_id}, the log's {replayed.next_row_id}"
    if _staged_facts(held) != _staged_facts(replayed):
        yield "memory and log differ in staged tiles"
    mine, theirs = _live_rows(held.contents), _live_rows(replayed.contents)
    if not np.array_equal(mine["row_id"], theirs["row_id"]):
        yield (
            f"memory has {len(mine['row_id'])} rows, the log {len(theirs['row_id'])}, and their"
            " ids differ"
        )
        return
    for name, expected in theirs.items():
        if not np.array_equal(mine[name], expected, equal_nan=expected.dtype.kind == "f"):
            yield f"memory and log differ in {name}"


def _staged_facts(state: State) -> list[tuple[int, str, bytes, ValueAt]]:
    tiles = state.contents.staged.values()
    return sorted((tile.number, str(tile.key), tile.row, tile.details) for tile in tiles)


def _live_rows(contents: Contents) -> dict[str, npt.NDArray[Any]]:
    snapshot = contents.memory.columns.snapshot()
    rows = np.flatnonzero(snapshot.alive)
    numbers = {"group", "grid"}
    found = {name: snapshot.columns[name][rows] for name in COLUMN_DTYPES if name not in numbers}
    found |= {name: snapshot.group_values(name, rows) for name in GROUP_COLUMNS}
    return found


def _structures(memory: Memory) -> Iterator[str]:
    view = memory.view()
    snapshot = view.snapshot
    alive = snapshot.alive
    columns = snapshot.columns
    expected = {
        "times": alive & (columns["start_us"] != NO_START),
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


def _bitmaps(state: State) -> Iterator[str]:
    """Rows whose bitmaps, on a snapshot's map or in memory, are not those of their details."""
    memory = state.contents.memory
    snapshot = memory.columns.snapshot()
    rows = np.flatnonzero(snapshot.alive)
    for start in range(0, len(rows), BITMAPS_AT_ONCE):
        some = rows[start : start + BITMAPS_AT_ONCE]
        held = memory.row_bitmaps.image_of(some)
        if not held:
            continue  # none of them was read
        try:
            read = RowBitmaps().of(snapshot, some, state.view)
        except GeostoreError:
            continue  # found above already
        wrong = held[KINDS] != read.kinds()
        for word, plane in enumerate(held.get(WORDS, ())):
            wrong |= plane != read.plane(word)
        wrong &= held[KINDS] != UNREAD
        for row_id in snapshot.columns["row_id"][some[wrong]].tolist():
            yield f"row {row_id} has other bitmaps in memory than in its details"
