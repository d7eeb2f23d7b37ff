"""The block bitmaps of rows, by position: on a snapshot's map, or in memory where it has none.

A snapshot has them in planes, one 64-bit word of all rows after another, so that a search reads
just the words that it unites. Rows that came since are read from their details, in the log, when
they are first asked for, or by whoever writes the next snapshot; they stay in memory until they
are on that one's map. What is mapped is never copied as a whole.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Self, TypeVar

import numpy as np
import numpy.typing as npt

from geostore.errors import CorruptDataError, UnavailableError
from geostore.index.columns import Positions, Snapshot
from geostore.index.effects import ValueAt
from geostore.index.packing import BITMAP_WORDS, NOT_SOUND, bitmaps_in, check_details

__all__ = ["KINDS", "UNREAD", "WORDS", "Bitmaps", "RowBitmaps"]

logger = logging.getLogger(__name__)

READ_BYTES: Final = 8 << 20
"""Of the log, looked at in one go. Details lie in it side by side."""

UNREAD: Final = NOT_SOUND
"""Kind of a row in a snapshot whose details were not read, or could not be."""

Words = npt.NDArray[np.uint64]
Kinds = npt.NDArray[np.uint8]
View = Callable[[ValueAt], memoryview]
Sections = dict[str, npt.NDArray[Any]]

KINDS: Final = "rows.bitmap_kinds"
WORDS: Final = "rows.bitmaps"
"""What a snapshot's sections are called."""

TRIES_MAX: Final = 8
"""How often a search looks again because a snapshot took the place of what it had read."""
_NOWHERE: Final = -1

Number = TypeVar("Number", np.uint8, np.uint64)


def _no_words(count: int = 0) -> Words:
    return np.zeros((BITMAP_WORDS, count), dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class _Store:
    """Bitmaps that lie somewhere, by number: those on a map, then those in memory.

    The first in memory is of all rows that have none. Nothing is changed but beyond the end.
    """

    mapped: Words
    mapped_kinds: Kinds
    own: Words
    own_kinds: Kinds


@dataclass(frozen=True, slots=True)
class Bitmaps:
    """Bitmaps of some rows, in their order."""

    _store: _Store
    _at: npt.NDArray[np.intp]
    _in_memory: npt.NDArray[np.intp]
    """Which of the rows are not mapped."""

    @classmethod
    def at(cls, store: _Store, at: npt.NDArray[np.int32]) -> Self:
        """Those of some numbers."""
        return cls(store, at.astype(np.intp), np.flatnonzero(at >= len(store.mapped_kinds)))

    def _taken(self, mapped: npt.NDArray[Number], own: npt.NDArray[Number]) -> npt.NDArray[Number]:
        first = len(mapped)
        found: npt.NDArray[Number]
        if len(self._in_memory) == len(self._at):
            found = own[self._at - first]
            return found
        found = mapped.take(self._at, mode="clip")
        found[self._in_memory] = own[self._at[self._in_memory] - first]
        return found

    def plane(self, word: int) -> Words:
        """One of the 16 words of each row, as a new array: see `packing.bitmaps_in`."""
        return self._taken(self._store.mapped[word], self._store.own[word])

    def kinds(self) -> Kinds:
        """Which bitmaps each row has: the bits HAS_BITMAPS and HAS_CLEAR."""
        return self._taken(self._store.mapped_kinds, self._store.own_kinds)

    def only(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Bitmaps:
        """Those of some of the rows, by number among these."""
        at = self._at[rows]
        return Bitmaps(self._store, at, np.flatnonzero(at >= len(self._store.mapped_kinds)))


class RowBitmaps:
    """The bitmaps of all rows of a memory. Methods may be called from any thread.

    In memory: 4 bytes a row from the first search on, and 129 for each row with bitmaps that is
    on no map.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._at = np.empty(0, dtype=np.int32)
        """By position the number of its bitmaps (see `_Store`), or `_NOWHERE`."""
        self._given: Kinds = np.empty(0, dtype=np.uint8)
        """Kinds of the first rows, from which their numbers are made when they are needed."""
        self._mapped = _no_words()
        self._mapped_kinds: Kinds = np.empty(0, dtype=np.uint8)
        self._own, self._own_kinds = _no_words(1), np.zeros(1, dtype=np.uint8)
        self._own_count = 1

    # ------------------------------------------------------------ for searches

    def of(self, snapshot: Snapshot, positions: Positions, view: View) -> Bitmaps:
        """The bitmaps of rows. About 1 us for each that was not read before.

        Args:
            snapshot: where the rows are.
            positions: the rows.
            view: gives bytes of the log.

        Raises:
            CorruptDataError: details are damaged.
            LogDroppedError: they were dropped since the snapshot was taken.
        """
        for _ in range(TRIES_MAX):
            with self.lock:
                self._grow(snapshot.count)
                store, at = self._store(), self._at[positions]
                unread = positions[at == _NOWHERE]
                if not len(unread):
                    return Bitmaps.at(store, at)
                self._reserve(len(unread))
            for rows, place in _chunks(snapshot, unread):
                self._read(snapshot, rows, place, view, is_strict=True)
        raise UnavailableError(
            "catalog: snapshots were written faster than bitmaps were read; try again"
        )

    def _store(self) -> _Store:
        """Caller holds the lock."""
        end = self._own_count
        return _Store(self._mapped, self._mapped_kinds, self._own[:, :end], self._own_kinds[:end])

    # ------------------------------------------------------------ reading details

    def fill(self, snapshot: Snapshot, view: View) -> None:
        """Reads the bitmaps of all live rows that were not read before.

        What is damaged, or was dropped meanwhile, stays unread: a search that needs it will tell.
        """
        with self.lock:
            self._grow(snapshot.count)
            unread = np.flatnonzero(snapshot.alive & (self._at[: snapshot.count] == _NOWHERE))
            self._reserve(len(unread))
        for rows, at in _chunks(snapshot, unread):
            try:
                self._read(snapshot, rows, at, view, is_strict=False)
            except (CorruptDataError, UnavailableError) as error:
                logger.warning("bitmaps of rows=%d are not read: %s", len(rows), error)

    def _read(
        self, snapshot: Snapshot, rows: Positions, at: ValueAt, view: View, *, is_strict: bool
    ) -> None:
        """Takes in rows whose details lie in some bytes of the log.

        Under the lock, so that searches that come together do not read the same; but for a few
        ms at a time, since a fork waits for it too.
        """
        with self.lock:
            rows = rows[self._at[rows] == _NOWHERE]
            if not len(rows):
                return
            data = view(at)
            starts = snapshot.columns["details_offset"][rows] - at.offset
            lengths = snapshot.columns["details_bytes"][rows].astype(np.int64)
            words, kinds = bitmaps_in(data, starts, lengths)
            damaged = np.flatnonzero(kinds == NOT_SOUND)
            if len(damaged):
                if is_strict:
                    first = int(starts[damaged[0]])
                    check_details(bytes(data[first : first + int(lengths[damaged[0]])]))
                    raise AssertionError("details that hold were taken for damaged")
                logger.warning("details of rows=%d are damaged, their bitmaps unread", len(damaged))
            self._put(rows, words, kinds)

    def _put(self, rows: Positions, words: Words, kinds: Kinds) -> None:
        """Keeps what was read of rows. Caller holds the lock."""
        first = len(self._mapped_kinds)
        self._at[rows[kinds == 0]] = first  # the one of all that have none
        has_some = np.flatnonzero((kinds != 0) & (kinds != NOT_SOUND))
        end = self._own_count + len(has_some)
        self._reserve(len(has_some))
        new = slice(self._own_count, end)
        self._own[:, new] = words[has_some].T
        self._own_kinds[new] = kinds[has_some]
        self._at[rows[has_some]] = np.arange(first + new.start, first + end, dtype=np.int32)
        self._own_count = end

    def _reserve(self, more: int) -> None:
        """Room for so many bitmaps; it takes no memory until they come. Caller holds the lock."""
        needed = self._own_count + more
        if needed > len(self._own_kinds):
            capacity = max(needed, 2 * len(self._own_kinds), 1024)
            before = self._store()
            self._own = np.empty((BITMAP_WORDS, capacity), dtype=np.uint64)
            self._own_kinds = np.empty(capacity, dtype=np.uint8)
            self._own[:, : self._own_count] = before.own
            self._own_kinds[: self._own_count] = before.own_kinds

    def _grow(self, count: int) -> None:
        """Numbers for so many rows. Caller holds the lock."""
        before = len(self._at)
        if count <= before:
            return
        grown = np.full(max(count, 2 * before, 1024), _NOWHERE, dtype=np.int32)
        grown[:before] = self._at
        if not before:
            given = _numbers(self._given, len(self._mapped_kinds))
            grown[: len(given)] = given
        self._at = grown

    def _numbers_of(self, positions: Positions) -> npt.NDArray[np.int32]:
        """Of rows, of which the last may be new. Caller holds the lock."""
        self._grow(int(positions.max()) + 1 if len(positions) else 0)
        return self._at[positions]

    # ------------------------------------------------------------ for snapshots

    def image(self, snapshot: Snapshot) -> Sections:
        """A snapshot's sections: which bitmaps its live rows have, and where any has some, these.

        Nothing where nothing was read. The map itself where these are the rows on it; else new
        arrays.
        """
        return self.image_of(np.flatnonzero(snapshot.alive))

    def image_of(self, positions: Positions) -> Sections:
        """Those of some rows."""
        with self.lock:
            store, at = self._store(), self._numbers_of(positions)
        is_read = at != _NOWHERE
        if not is_read.any():
            return {}
        mapped = len(store.mapped_kinds)
        if len(at) == mapped:
            same = np.where(store.mapped_kinds == UNREAD, _NOWHERE, np.arange(mapped))
            if np.array_equal(at, same):
                return {KINDS: store.mapped_kinds, WORDS: store.mapped}
        found = Bitmaps.at(store, np.where(is_read, at, np.int32(mapped)))
        kinds = found.kinds()
        sections: Sections = {KINDS: kinds}
        if kinds.any():
            words = np.empty((BITMAP_WORDS, len(at)), dtype=np.uint64)
            for word in range(BITMAP_WORDS):
                words[word] = found.plane(word)
            sections[WORDS] = words
        kinds[~is_read] = UNREAD
        return sections

    @classmethod
    def of_image(cls, sections: Mapping[str, npt.NDArray[Any]], count: int) -> Self:
        """Those that a snapshot of `count` rows has. The arrays are used as they lie.

        Raises:
            ValueError: they do not fit.
        """
        found = cls()
        if KINDS in sections:
            found._given, found._mapped = _of_sections(sections, count)
            found._mapped_kinds = found._given[: found._mapped.shape[1]]
        return found

    def kept(self, positions: Positions) -> RowBitmaps:
        """Those of some rows alone, which have the positions 0, 1, 2, ... there.

        What is mapped is on the same map.
        """
        found = RowBitmaps()
        with self.lock:
            store, found._at = self._store(), self._numbers_of(positions)
        found._mapped, found._mapped_kinds = store.mapped, store.mapped_kinds
        found._take_own(store, found._at, np.flatnonzero(found._at >= len(store.mapped_kinds)))
        return found

    def adopt(self, snapshot: Snapshot, sections: Mapping[str, npt.NDArray[Any]]) -> None:
        """Uses what a snapshot's file has, instead of memory.

        Args:
            snapshot: live rows, among them those of the file.
            sections: of the file.
        """
        if KINDS not in sections:
            return
        row_ids = sections["rows.row_id"]
        kinds, words = _of_sections(sections, len(row_ids))
        positions = np.searchsorted(snapshot.columns["row_id"], row_ids)
        with self.lock:
            self._grow(snapshot.count)
            store, before = self._store(), self._at
            at = np.full(len(before), _NOWHERE, dtype=np.int32)
            at[positions] = _numbers(kinds, words.shape[1])
            is_wanted = (before >= len(store.mapped_kinds)) & (at == _NOWHERE)
            is_wanted[: snapshot.count] &= snapshot.alive
            self._at = at
            self._mapped, self._mapped_kinds = words, kinds[: words.shape[1]]
            rest = np.flatnonzero(is_wanted)
            at[rest] = before[rest] - len(store.mapped_kinds) + len(self._mapped_kinds)
            self._take_own(store, at, rest)

    def _take_own(self, store: _Store, at: npt.NDArray[np.int32], rows: Positions) -> None:
        """Of what `store` has in memory, takes over only what `rows` have; numbers them anew."""
        first = len(self._mapped_kinds)
        used = np.union1d(at[rows] - first, np.zeros(1, dtype=np.int32))
        at[rows] = first + np.searchsorted(used, at[rows] - first)
        self._own, self._own_kinds = store.own[:, used], store.own_kinds[used]
        self._own_count = len(used)


def _numbers(kinds: Kinds, mapped: int) -> npt.NDArray[np.int32]:
    """What rows of a file are called whose bitmaps are mapped, or none of them has any."""
    if mapped:
        numbers = np.arange(len(kinds), dtype=np.int32)
    else:
        numbers = np.zeros(len(kinds), dtype=np.int32)
    numbers[kinds == UNREAD] = _NOWHERE
    return numbers


def _of_sections(sections: Mapping[str, npt.NDArray[Any]], count: int) -> tuple[Kinds, Words]:
    """Kinds of `count` rows, and their bitmaps, or none. Raises ValueError: they do not fit."""
    kinds, words = sections[KINDS], sections.get(WORDS, _no_words())
    if kinds.shape != (count,) or kinds.dtype != np.uint8:
        raise ValueError(f"kinds of bitmaps: {kinds.dtype} {kinds.shape}, expected {count} of u8")
    is_of_words = words.dtype.newbyteorder("=") == np.uint64
    if not is_of_words or words.shape not in {(BITMAP_WORDS, count), (BITMAP_WORDS, 0)}:
        raise ValueError(f"bitmaps: {words.dtype} {words.shape}, expected {BITMAP_WORDS} x {count}")
    if not words.shape[1] and np.any((kinds != 0) & (kinds != UNREAD)):
        raise ValueError("the bitmaps of rows that have some are missing")
    return kinds, words


def _chunks(snapshot: Snapshot, rows: Positions) -> Iterator[tuple[Positions, ValueAt]]:
    """Rows whose details lie near each other in the log, with the bytes where they all lie."""
    columns = snapshot.columns
    segments = columns["details_segment"][rows]
    starts, lengths = columns["details_offset"][rows], columns["details_bytes"][rows]
    pieces = starts // READ_BYTES + (segments.astype(np.int64) << 32)
    order = np.argsort(pieces, kind="stable")  # rows lie nearly in this order: a few ms
    firsts = np.flatnonzero(np.diff(pieces[order], prepend=-1)).tolist()
    for first, after in pairwise([*firsts, len(order)]):
        own = order[first:after]
        start = int(starts[own].min())
        end = int((starts[own] + lengths[own]).max())
        yield rows[own], ValueAt(int(segments[own[0]]), start, end - start)
