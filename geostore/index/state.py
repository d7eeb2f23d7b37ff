"""What a catalog is at one position of its log: tiles, scenes' entries, schemas and records.

`apply` takes in the next frame. It decides nothing, so that a process that replays the log comes
to the same state as the one that wrote it.
"""

from __future__ import annotations

import bisect
import json
from typing import NamedTuple

import xxhash

from geostore.errors import CorruptDataError
from geostore.index.contents import Contents
from geostore.index.effects import (
    CHANGE,
    Abandon,
    Begin,
    Covers,
    Effect,
    Gone,
    MovedRows,
    MovedStaged,
    PutRecord,
    Scene,
    Schema,
    Shown,
    Switch,
    Tiles,
    Unstaged,
    ValueAt,
    decode,
)
from geostore.index.entry import Record
from geostore.index.log import LogDroppedError
from geostore.index.log_layout import REBUILD, START, Frame, Position
from geostore.index.scene_entries import SceneEntries, View
from geostore.types import TileSchema

__all__ = ["RecordAt", "Records", "State", "read_schema"]


class RecordAt(NamedTuple):
    """Where a record's value lies, and what tells that it is whole."""

    revision: int
    at: ValueAt
    checksum: int
    """XXH3-64 of the value."""


class Records:
    """Records by name; their values stay in the log."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.places: dict[str, RecordAt] = {}
        self._sorted: list[str] | None = None

    def put(self, change: PutRecord) -> None:
        """A new value, or none."""
        if change.name not in self.places or not change.revision:
            self._sorted = None
        if change.revision:
            checksum = xxhash.xxh3_64_intdigest(change.value)
            self.places[change.name] = RecordAt(change.revision, change.value_at, checksum)
        else:
            self.places.pop(change.name, None)

    def get(self, name: str) -> Record | None:
        """
        Raises:
            CorruptDataError: its value is damaged.
        """
        found = self.places.get(name)
        while found is not None:
            try:
                return self._read(name, found)
            except LogDroppedError:  # looked up without the lock: it may have moved meanwhile
                before, found = found, self.places.get(name)
                if found is before:
                    raise
        return None

    def _read(self, name: str, found: RecordAt) -> Record:
        value = bytes(self._view(found.at))
        if xxhash.xxh3_64_intdigest(value) != found.checksum:
            raise CorruptDataError(
                f"record {name!r}: its value in segment {found.at.segment} at offset"
                f" {found.at.offset} does not match its checksum; {REBUILD}"
            )
        return Record(value, found.revision)

    def names(self, prefix: str = "") -> list[str]:
        """Names that begin with `prefix`, sorted. O(log n + found); the first time O(n log n)."""
        names = self._sorted
        if names is None:
            names = self._sorted = sorted(self.places)
        first = bisect.bisect_left(names, prefix)
        end = first
        while end < len(names) and names[end].startswith(prefix):
            end += 1
        return names[first:end]


class State:
    """See the module. Not thread-safe: the catalog holds its lock."""

    def __init__(self, view: View) -> None:
        """`view` gives the bytes that lie somewhere in the log."""
        self.view = view
        self.position: Position = START
        self.entries = SceneEntries(view)
        self.schemas: dict[str, TileSchema] = {}
        self.records = Records(view)
        self.contents = self.new_contents()
        self.building: Contents | None = None
        """The tiles of a rebuild that is under way, or was cut off."""
        self.next_row_id = 1
        """Row ids below were given out, in the order of publication."""

    def new_contents(self) -> Contents:
        """No tiles."""
        entries = self.entries
        return Contents(lambda digest: entries.head(entries.number(digest)), self.schema)

    def has_scene(self, digest: bytes) -> bool:
        """Whether tiles may name a scene's entry without its being written again.

        Not where none does yet or any more: such a one is not in a snapshot.
        """
        is_building = self.building is not None and self.building.needs(digest)
        return is_building or self.contents.needs(digest)

    def schema(self, digest: str) -> TileSchema:
        """
        Raises:
            CorruptDataError: there is none of that digest.
        """
        found = self.schemas.get(digest)
        if found is None:
            raise CorruptDataError(f"catalog: schema {digest} is missing; {REBUILD}")
        return found

    def apply(self, frame: Frame) -> None:
        """Takes in the frame after `position`.

        Raises:
            CorruptDataError: it does not read, or does not fit what was before.
        """
        if frame.kind != CHANGE:
            raise CorruptDataError(
                f"catalog: frame {frame.at.sequence} of kind {frame.kind}, expected {CHANGE}:"
                " install a newer geostore"
            )
        for effect in decode(frame.payload, frame.at.segment, frame.at.offset):
            self._take(effect)
        self.position = frame.end

    def _take(self, effect: Effect) -> None:
        match effect:
            case Schema():
                self._take_schema(effect)
            case Scene():
                self.entries.add(effect)
            case Tiles():
                side = self._side(is_building=effect.is_building)
                self.next_row_id += side.put(effect, self.next_row_id)
            case Shown():
                self.next_row_id += self.contents.show(effect, self.next_row_id)
            case Covers():
                self.contents.memory.cover(effect.ids, effect.covers)
            case Unstaged():
                self.contents.unstage(effect.ids)
            case Gone():
                self.contents.memory.columns.kill(effect.ids)
            case MovedRows():
                self.contents.move_rows(effect)
            case MovedStaged():
                self.contents.move_staged(effect)
            case PutRecord():
                self.records.put(effect)
            case Begin() | Switch() | Abandon():
                self._rebuild(effect)

    def _rebuild(self, effect: Begin | Switch | Abandon) -> None:
        if isinstance(effect, Switch):
            self.contents = self._side(is_building=True)
        self.building = self.new_contents() if isinstance(effect, Begin) else None

    def _take_schema(self, effect: Schema) -> None:
        if effect.digest not in self.schemas:
            schema = read_schema(effect.text)
            if schema.digest != effect.digest:
                raise CorruptDataError(
                    f"catalog: schema {effect.digest} reads as {schema.digest}; {REBUILD}"
                )
            self.schemas[effect.digest] = schema

    def _side(self, *, is_building: bool) -> Contents:
        if not is_building:
            return self.contents
        if self.building is None:
            raise CorruptDataError(f"catalog: tiles of a rebuild that did not begin; {REBUILD}")
        return self.building


def read_schema(text: bytes) -> TileSchema:
    """Raises CorruptDataError: it does not read."""
    try:
        return TileSchema.from_json(json.loads(text)).shared()
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptDataError(f"catalog: a schema does not read: {error}; {REBUILD}") from None
