"""Emptying a log's oldest segments: what is alive in them is written once more at the log's end.

Details of tiles that went, scenes' entries that nobody needs and records' old values stay in their
segments, and a segment goes only when nothing in it is needed. So a log of many changes is cleaned
from its oldest segment on, as a log-structured file system does it (Rosenblum and Ousterhout 1992,
"The design and implementation of a log-structured file system"), here in the order of age: what
is left of a log must not have holes.

A log is due when more than half of it is dead. Since at most a half is then written again for at
least a half that is given back, a byte is written twice for each time it was, at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from geostore.index.effects import Effect, MovedRows, MovedStaged, PutRecord, ValueAt
from geostore.index.state import State

__all__ = ["BATCH_BYTES", "LOG_BYTES_MIN", "is_mostly_dead", "keep_from", "live_bytes", "moved"]

LOG_BYTES_MIN = 64 << 20
"""A log of fewer bytes is left as it is."""
DEAD_MAX: Final = 0.25
"""The part of what stays that may be dead after a cleaning."""
BATCH_BYTES: Final = 8 << 20
"""What is moved in one change: other writers wait for some 20 ms."""

_Places = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Segments, and bytes there."""


def is_mostly_dead(log_bytes: int, live: int) -> bool:
    """Whether a log of which so many bytes are alive is due."""
    return log_bytes >= LOG_BYTES_MIN and log_bytes > 2 * live


def _scenes(state: State) -> tuple[npt.NDArray[np.int64], _Places]:
    """(numbers of the entries that tiles are of, where these lie)."""
    entries = state.entries
    needed = state.contents.needed()
    numbers = [number for number, digest in enumerate(entries.digests) if digest in needed]
    places = entries.places()[numbers]
    lengths = places["head"].astype(np.int64) + places["properties"]
    return np.array(numbers, np.int64), (places["segment"].astype(np.int64), lengths)


def _all_places(state: State) -> list[_Places]:
    snapshot = state.contents.memory.columns.snapshot()
    columns, alive = snapshot.columns, snapshot.alive
    found = [
        (columns["details_segment"][alive].astype(np.int64), columns["details_bytes"][alive]),
        _scenes(state)[1],
    ]
    for values in (
        [tile.details for tile in state.contents.staged.values()],
        [record.at for record in state.records.places.values()],
    ):
        array = np.array(values, np.int64).reshape(-1, 3)
        found.append((array[:, 0], array[:, 2]))
    return found


def live_bytes(state: State) -> dict[int, int]:
    """Segment to the bytes there that are needed: details, scenes' entries, records' values.

    Not the rest of the frames: after a snapshot nobody reads it. O(rows).
    """
    found: dict[int, int] = {}
    for segments, lengths in _all_places(state):
        if len(segments):
            counts = np.bincount(segments, lengths)
            for segment in np.flatnonzero(counts).tolist():
                found[segment] = found.get(segment, 0) + int(counts[segment])
    return found


def keep_from(sizes: Mapping[int, int], live: Mapping[int, int]) -> int:
    """The first segment that stays when those before it are emptied: as few as suffice.

    Args:
        sizes: segment to bytes of its file.
        live: see `live_bytes`.
    """
    staying, alive = sum(sizes.values()), sum(live.values())
    for segment in sorted(sizes):
        if staying - alive <= DEAD_MAX * staying:
            return segment
        # Emptied: its bytes go, what is alive in it comes again at the end.
        staying += live.get(segment, 0) - sizes[segment]
    return max(sizes) + 1


def moved(state: State, before: int) -> list[Effect]:
    """Writes again what is alive in the segments before `before`, about `BATCH_BYTES` of it.

    Nothing where nothing is left.

    Raises:
        CorruptDataError: a record's value or a scene's entry is damaged. Details have their own
            checksum with them and are moved as they are.
    """
    found: list[Effect] = []
    total = 0
    numbers, (segments, _) = _scenes(state)
    for number in numbers[segments < before].tolist():
        scene = state.entries.scene(number)
        total += len(scene.head) + len(scene.properties)
        found.append(scene)
        if total >= BATCH_BYTES:
            return found
    for name, record in list(state.records.places.items()):
        if record.at.segment < before:
            value = state.records.get(name)
            assert value is not None
            total += len(value.value)
            found.append(PutRecord(name, value.revision, value.value))
            if total >= BATCH_BYTES:
                return found
    return found + _moved_tiles(state, before, BATCH_BYTES - total)


def _moved_tiles(state: State, before: int, budget: int) -> list[Effect]:
    found: list[Effect] = []
    staged = [each for each in state.contents.staged.values() if each.details.segment < before]
    if staged:
        lengths = np.array([each.details.length for each in staged], np.uint32)
        taken = staged[: _fitting(lengths, budget)]
        budget -= int(lengths[: len(taken)].sum(dtype=np.int64))
        ids = np.array([each.number for each in taken], np.int64)
        details = [state.view(each.details) for each in taken]
        found.append(MovedStaged(ids, lengths[: len(taken)], details))
    columns = state.contents.memory.columns
    snapshot = columns.snapshot()
    rows = np.flatnonzero((snapshot.columns["details_segment"] < before) & snapshot.alive)
    if len(rows) and budget > 0:
        rows = rows[: _fitting(snapshot.columns["details_bytes"][rows], budget)]
        details = _joined([*snapshot.details_of(rows)], state)
        ids, lengths = (snapshot.columns[name][rows] for name in ("row_id", "details_bytes"))
        found.append(MovedRows(ids, lengths, details))
    return found


def _fitting(lengths: npt.NDArray[np.uint32], budget: int) -> int:
    """How many of these stay within a budget; at least one."""
    return max(1, int(np.searchsorted(np.cumsum(lengths, dtype=np.int64), budget, "right")))


def _joined(places: list[ValueAt], state: State) -> list[memoryview]:
    """Values as few pieces: those that lie one behind another are one."""
    pieces: list[memoryview] = []
    first, end = places[0], places[0].offset + places[0].length
    for place in places[1:]:
        if (place.segment, place.offset) == (first.segment, end):
            end += place.length
        else:
            pieces.append(state.view(first._replace(length=end - first.offset)))
            first, end = place, place.offset + place.length
    pieces.append(state.view(first._replace(length=end - first.offset)))
    return pieces
