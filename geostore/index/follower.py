"""Keeps the catalog in memory in step with its LMDB file, whoever writes that.

A follower remembers the counters it has seen. New rows have greater ids; rows that went
are in the removal log; a rebuild raises the generation. So a refresh costs one small read
when nothing happened, and what is new otherwise. Where the log begins after what was seen,
rows went that it does not name any more, or have other cloud covers: all are compared, which
takes about 3 s for a million.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.errors import CorruptDataError
from geostore.index.columns import time_columns
from geostore.index.environment import Databases, Transaction
from geostore.index.memory import Memory
from geostore.index.operations import read_group
from geostore.index.packing import unpack_rows
from geostore.index.state import State, pack_id, unpack_id
from geostore.types import TileSchema

__all__ = ["Follower"]

logger = logging.getLogger(__name__)

CHUNK_ROWS = 65_536


class Follower:
    """The memory of one catalog file. The caller holds the environment's memory lock."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.seen: State | None = None
        self.schemas: dict[str, TileSchema] = {}
        self._groups: dict[bytes, int] = {}
        """Digest of a group to its number in the columns."""

    def refresh(self, txn: Transaction[bytes], db: Databases) -> None:
        """Takes in all that was committed before `txn` began.

        Raises:
            CorruptDataError: the file does not read; memory is then loaded anew next time.
        """
        state = State.read(txn, db)
        seen = self.seen
        if seen == state:
            return
        if seen is None or seen.generation != state.generation or self.memory.is_mostly_dead:
            self.memory = Memory()
            self._groups = {}
            seen = State(state.generation, 1, state.removed_next, state.removed_floor)
        self.seen = None  # a failure on the way leaves half: the next refresh starts over
        if seen.removed_next < state.removed_floor:
            self._compare_rows(txn, db, seen.next_row_id, state)
            seen = replace(seen, removed_next=state.removed_floor)
        self._take_rows(txn, db, seen.next_row_id, state)
        self._take_removals(txn, db, seen.removed_next, state)
        self.seen = state

    def _take_rows(self, txn: Transaction[bytes], db: Databases, first: int, state: State) -> None:
        if first == state.next_row_id:
            return
        for ids, rows in _chunks(txn, db, state, first, state.next_row_id):
            self._append(txn, db, state.generation, ids, rows)
        logger.debug("catalog rows=%d live=%d", self.memory.columns.count, self.memory.columns.live)

    def _compare_rows(self, txn: Transaction[bytes], db: Databases, end: int, state: State) -> None:
        """Has the rows that were taken in before (ids below `end`) be as they are now."""
        row_ids = [np.empty(0, dtype=np.int64)]
        covers = [np.empty(0, dtype=np.float32)]
        for ids, rows in _chunks(txn, db, state, 0, end):
            row_ids.append(np.array(ids, dtype=np.int64))
            covers.append(unpack_rows(rows)["cloud_cover"])
        self.memory.keep(np.concatenate(row_ids), np.concatenate(covers))

    def _take_removals(
        self, txn: Transaction[bytes], db: Databases, first: int, state: State
    ) -> None:
        for number in range(first, state.removed_next):
            value = txn.get(pack_id(number), db=db["removed"])
            if value is None:
                raise CorruptDataError(f"catalog: entry {number} of the removal log is missing")
            self.memory.columns.kill(np.frombuffer(value, dtype="<u8").astype(np.int64))

    def _append(
        self,
        txn: Transaction[bytes],
        db: Databases,
        generation: int,
        ids: list[int],
        rows: list[bytes],
    ) -> None:
        table = unpack_rows(rows)
        columns = self.memory.columns
        group = self._groups_of(txn, db, generation, table)
        block: dict[str, npt.NDArray[Any]] = {
            "row_id": np.array(ids, dtype=np.int64),
            "group": group,
            "pixel_coverage": table["pixel_coverage"],
            "cloud_cover": table["cloud_cover"],
            "bytes": table["bytes"],
            **time_columns(table["time_us"], table["time_end_us"]),
            **columns.cell_columns(group, table["geocode"]),
        }
        columns.append(block)

    def _groups_of(
        self,
        txn: Transaction[bytes],
        db: Databases,
        generation: int,
        table: npt.NDArray[np.void],
    ) -> npt.NDArray[np.int32]:
        """Each row's group; rows of a group come in runs, of which only the first is looked at."""
        halves = np.ascontiguousarray(table["group"]).view(np.uint64).reshape(-1, 2)
        is_first = np.ones(len(halves), np.bool_)
        is_first[1:] = (halves[1:] != halves[:-1]).any(axis=1)
        firsts = np.flatnonzero(is_first)
        numbers = []
        for digest in table["group"][firsts].tolist():
            number = self._groups.get(digest)
            if number is None:
                number = self._groups[digest] = self._learn_group(txn, db, generation, digest)
            numbers.append(number)
        lengths = np.diff(firsts, append=len(table))
        return np.repeat(np.array(numbers, dtype=np.int32), lengths)

    def _learn_group(
        self, txn: Transaction[bytes], db: Databases, generation: int, digest: bytes
    ) -> int:
        group, _ = read_group(txn, db, generation, digest)
        schema = self.schemas.get(group.schema)
        if schema is None:
            schema = self.schemas[group.schema] = read_schema(txn, db, group.schema)
        return self.memory.columns.groups.add(
            {
                "dataset_id": (group.dataset_id, group.dataset_id),
                "dataset": (group.dataset, group.dataset),
                "scene": (group.scene, group.scene),
                "version": (group.version, group.version),
                "schema": (group.schema, schema),
                "platform": (group.platform, group.platform),
            },
            schema.scheme,
        )


def _chunks(
    txn: Transaction[bytes], db: Databases, state: State, first: int, end: int
) -> Iterator[tuple[list[int], list[bytes]]]:
    """Row ids and packed rows from `first` to before `end`, in order."""
    ids: list[int] = []
    rows: list[bytes] = []
    with txn.cursor(db["rows", state.generation]) as cursor:
        found = cursor.set_range(pack_id(first))
        while found:
            key, value = cursor.item()
            row_id = unpack_id(key)
            if row_id >= end:
                break
            ids.append(row_id)
            rows.append(value)
            if len(rows) == CHUNK_ROWS:
                yield ids, rows
                ids, rows = [], []
            found = cursor.next()
    if rows:
        yield ids, rows


def read_schema(txn: Transaction[bytes], db: Databases, digest: str) -> TileSchema:
    """
    Raises:
        CorruptDataError: there is no schema of that digest, or it does not read.
    """
    text = txn.get(digest.encode(), db=db["schemas"])
    try:
        schema = TileSchema.from_json(json.loads(text or b"")).shared()
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptDataError(f"catalog: schema {digest} does not read: {error}") from None
    if schema.digest != digest:
        raise CorruptDataError(f"catalog: schema {digest} reads as {schema.digest}")
    return schema
