"""A catalog's state as the sections of a snapshot file, and back.

Only what is alive is written: rows, groups and scenes' entries that nobody needs any more stay
behind. So a state that was restored is also a compacted one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from geostore.errors import CorruptDataError
from geostore.index.columns import COLUMN_DTYPES, GROUP_COLUMNS, Columns, Grid, Groups, Interner
from geostore.index.contents import Contents, Staged
from geostore.index.effects import ValueAt
from geostore.index.log_layout import REBUILD, Position
from geostore.index.memory import Memory
from geostore.index.packing import DIGEST_BYTES, ROW_DTYPE
from geostore.index.placement import RowSlots
from geostore.index.row_bitmaps import RowBitmaps
from geostore.index.scene_entries import PLACE, SceneEntries, View
from geostore.index.state import RecordAt, Records, State, read_schema
from geostore.index.structures_image import Renumbered, structures_image, structures_restored
from geostore.types import TileKey

__all__ = ["compacted", "image_of", "restored"]

Sections = Mapping[str, npt.NDArray[Any]]
Image = tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]
"""Small JSON, and arrays by name."""

STATE_VERSION: Final = 1
_PLACES: Final = np.dtype([("segment", "<i4"), ("offset", "<i8"), ("length", "<u4")])
_RECORD: Final = np.dtype([*_PLACES.descr, ("revision", "<u8"), ("checksum", "<u8")])


def _texts(texts: Sequence[str | None]) -> npt.NDArray[np.uint8]:
    # ASCII with escapes: lone surrogates, as odd file names have them, survive too.
    return np.frombuffer(json.dumps(list(texts)).encode("ascii"), np.uint8)


def _read_texts(section: npt.NDArray[Any]) -> list[Any]:
    try:
        found: list[Any] = json.loads(section.tobytes())
    except ValueError as error:
        raise CorruptDataError(f"catalog: a snapshot's texts do not read: {error}") from None
    return found


def _digests(digests: Sequence[bytes]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES)


def _read_digests(section: npt.NDArray[Any]) -> list[bytes]:
    raw = section.tobytes()
    return [raw[at : at + DIGEST_BYTES] for at in range(0, len(raw), DIGEST_BYTES)]


# ---------------------------------------------------------------- tiles


def _contents_image(contents: Contents) -> Image:
    snapshot = contents.memory.columns.snapshot()
    columns = dict(snapshot.columns)
    slots = contents.memory.row_slots.known()
    has_slots = len(slots) == snapshot.count
    positions = numbers = None
    if snapshot.live < snapshot.count:
        live = np.flatnonzero(snapshot.alive)
        positions = np.cumsum(snapshot.alive, dtype=np.int64) - 1
        columns = {name: column[live] for name, column in columns.items()}
        slots = slots[live] if has_slots else slots
    groups = np.flatnonzero(snapshot.group_live)
    if len(groups) < len(snapshot.group_live):
        numbers = np.zeros(len(snapshot.group_live), np.int32)
        numbers[groups] = np.arange(len(groups), dtype=np.int32)
        columns["group"] = numbers[columns["group"]]
    sections = {f"rows.{name}": column for name, column in columns.items()}
    if has_slots:
        sections["rows.slot"] = slots
    codes = np.empty((len(groups), len(GROUP_COLUMNS)), np.int32)
    datasets = None
    for number, name in enumerate(GROUP_COLUMNS):
        used, codes[:, number] = np.unique(snapshot.group_codes[name][groups], return_inverse=True)
        values = snapshot.values[name][used].tolist()
        texts = [value.digest for value in values] if name == "schema" else values
        sections[f"groups.{name}"] = _texts(texts)
        if name == "dataset" and len(used) < len(snapshot.values[name]):
            datasets = np.zeros(len(snapshot.values[name]), np.int64)
            datasets[used] = np.arange(len(used))
    sections["groups.codes"] = codes
    sections["groups.digest"] = _digests([contents.digests[at] for at in groups.tolist()])
    new = Renumbered(snapshot.alive, positions, numbers, datasets)
    structures, more = structures_image(snapshot, contents.memory.built, new)
    sections |= more
    staged = sorted(contents.staged.values(), key=lambda tile: tile.number)
    sections["staged.number"] = np.array([tile.number for tile in staged], np.int64)
    sections["staged.row"] = np.frombuffer(b"".join(tile.row for tile in staged), np.uint8)
    sections["staged.details"] = np.array([tuple(tile.details) for tile in staged], _PLACES)
    meta = {
        "grids": [list(grid) for grid in snapshot.grids],
        "next_staged": contents.next_staged,
        **structures,
    }
    return meta, sections


def _restore_contents(state: State, meta: Mapping[str, Any], sections: Sections) -> Contents:
    interners = {}
    for name in GROUP_COLUMNS:
        keys = _read_texts(sections[f"groups.{name}"])
        values = [state.schema(key) for key in keys] if name == "schema" else keys
        interners[name] = Interner.of(keys, values)
    codes = np.array(sections["groups.codes"])
    schemas = interners["schema"].values().tolist()
    schemes = [schemas[code].scheme for code in codes[:, GROUP_COLUMNS.index("schema")].tolist()]
    grids: list[Grid] = [(name, length) for name, length in meta["grids"]]
    columns = Columns.of(
        {name: sections[f"rows.{name}"] for name in COLUMN_DTYPES},
        Groups.of(interners, codes, schemes),
        grids,
    )
    slots = sections.get("rows.slot")
    memory = Memory(columns, None if slots is None else RowSlots(slots))
    memory.built = structures_restored(meta, sections, columns.count, grids)
    memory.row_bitmaps = RowBitmaps.of_image(sections, columns.count)
    contents = state.new_contents()
    contents.take_over(memory, _read_digests(sections["groups.digest"]))
    contents.next_staged = meta["next_staged"]
    rows = np.frombuffer(sections["staged.row"].tobytes(), ROW_DTYPE)
    numbers, places = sections["staged.number"].tolist(), sections["staged.details"].tolist()
    for i, number in enumerate(numbers):
        group = state.entries.group(state.entries.number(rows["group"][i].tobytes()))
        geocode = rows["geocode"][i].decode("ascii")
        key = TileKey(group.dataset_id, group.scene, group.version, geocode)
        contents.restage(Staged(number, key, rows[i].tobytes(), ValueAt(*places[i])))
    return contents


# ---------------------------------------------------------------- all


def image_of(state: State) -> Image:
    """A state for a snapshot. Arrays may be views of columns, which stay as they are.

    Not while a rebuild is under way. Without bitmaps, which need no lock: `RowBitmaps.image`.
    """
    assert state.building is None
    needed = state.contents.needed()
    entries = state.entries
    kept = [at for at, digest in enumerate(entries.digests) if digest in needed]
    meta, sections = _contents_image(state.contents)
    sections["scenes.digest"] = _digests([entries.digests[at] for at in kept])
    sections["scenes.place"] = entries.places()[kept]
    schemas = state.schemas.values()
    sections["schemas"] = _texts([json.dumps(schema.to_json()) for schema in schemas])
    places = state.records.places
    sections["records.name"] = _texts(list(places))
    sections["records.value"] = np.array(
        [(*found.at, found.revision, found.checksum) for found in places.values()], _RECORD
    )
    segments: list[Sequence[int] | npt.NDArray[Any]] = [
        [state.position.segment],
        sections["rows.details_segment"],
        sections["staged.details"]["segment"],
        sections["scenes.place"]["segment"],
        sections["records.value"]["segment"],
    ]
    meta |= {
        "version": STATE_VERSION,
        "next_row_id": state.next_row_id,
        "first_segment": min(int(np.asarray(each).min()) for each in segments if len(each)),
    }
    return meta, sections


def restored(view: View, position: Position, meta: Mapping[str, Any], sections: Sections) -> State:
    """The state that an image is of.

    Raises:
        CorruptDataError: it is of another version, or does not fit together.
    """
    try:
        if meta["version"] != STATE_VERSION:
            raise CorruptDataError(
                f"catalog: a snapshot of version {meta['version']}, expected {STATE_VERSION};"
                " install a newer geostore"
            )
        state = State(view)
        state.position = position
        places = np.array(sections["scenes.place"], PLACE)
        state.entries = SceneEntries(view, _read_digests(sections["scenes.digest"]), places)
        for text in _read_texts(sections["schemas"]):
            schema = read_schema(text.encode())
            state.schemas[schema.digest] = schema
        state.records = _restore_records(view, sections)
        state.next_row_id = meta["next_row_id"]
        state.contents = _restore_contents(state, meta, sections)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise CorruptDataError(
            f"catalog: a snapshot does not read: {type(error).__name__}: {error}; {REBUILD}"
        ) from None
    return state


def _restore_records(view: View, sections: Sections) -> Records:
    records = Records(view)
    values = sections["records.value"].tolist()
    names = _read_texts(sections["records.name"])
    for name, (segment, offset, length, revision, checksum) in zip(names, values, strict=True):
        records.places[name] = RecordAt(revision, ValueAt(segment, offset, length), checksum)
    return records


def compacted(state: State) -> State:
    """The same state without what is dead. O(rows); bitmaps stay where they are."""
    meta, sections = image_of(state)
    found = restored(state.view, state.position, meta, sections)
    memory = state.contents.memory
    live = np.flatnonzero(memory.columns.snapshot().alive)
    found.contents.memory.row_bitmaps = memory.row_bitmaps.kept(live)
    return found
