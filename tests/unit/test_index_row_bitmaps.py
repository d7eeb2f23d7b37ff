"""Bitmaps of rows: out of details, through snapshots and compactions, and what may go wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geostore.errors import CorruptDataError
from geostore.index import CatalogEntry, LogCatalog, RecordChange, open_catalog, row_bitmaps
from geostore.index.log import LogDroppedError
from geostore.index.packing import (
    HAS_BITMAPS,
    HAS_CLEAR,
    NOT_SOUND,
    Group,
    bitmaps_in,
    check_details,
    pack_details,
)
from geostore.index.row_bitmaps import KINDS, UNREAD, WORDS, RowBitmaps
from geostore.index.snapshot_file import open_snapshot
from geostore.query import CoverageRequest, Query
from geostore.types import BITMAP_BYTES, BlockBitmaps
from tests.synthetic_tiles import make_entry

Kind = int
NONE, VALID, CLEAR = 0, HAS_BITMAPS, HAS_BITMAPS | HAS_CLEAR
KIND_OF: list[Kind] = [CLEAR, VALID, NONE]


def with_bitmaps(entry: CatalogEntry, kind: Kind) -> CatalogEntry:
    """Bitmaps that are functions of the tile's key."""
    rng = random.Random(repr(entry.meta.key))
    bitmaps = None
    if kind != NONE:
        parts = [rng.randbytes(BITMAP_BYTES) for _ in range(4 if kind == CLEAR else 2)]
        codes = tuple(rng.randbytes(rng.randrange(3))) if kind == CLEAR else ()
        bitmaps = BlockBitmaps.from_bytes(b"".join(parts), codes)
    return replace(entry, meta=replace(entry.meta, bitmaps=bitmaps))


def scene_of(scene: str, cells: str, kinds: list[Kind] | None = None) -> list[CatalogEntry]:
    kinds = kinds or KIND_OF
    made = [
        make_entry(f"dqc{cell}", scene=scene, histogram=number % 2 == 0)
        for number, cell in enumerate(cells)
    ]
    return [with_bitmaps(entry, kinds[number % len(kinds)]) for number, entry in enumerate(made)]


def publish(catalog: LogCatalog, entries: list[CatalogEntry]) -> None:
    key = entries[0].meta.key
    catalog.stage(entries)
    catalog.publish(key.dataset_id, key.scene, key.version)


def held(catalog: LogCatalog) -> RowBitmaps:
    with catalog._home.reading() as state:
        return state.contents.memory.row_bitmaps


def expected_line(entry: CatalogEntry) -> tuple[int, bytes]:
    bitmaps = entry.meta.bitmaps
    if bitmaps is None:
        return NONE, bytes(4 * BITMAP_BYTES)
    packed = bitmaps.to_bytes()
    return (VALID if bitmaps.clear_all is None else CLEAR), packed.ljust(4 * BITMAP_BYTES, b"\0")


def unreadable(_: object) -> memoryview:
    raise AssertionError("the log was read")


def check_all(catalog: LogCatalog, entries: list[CatalogEntry], *, reads_log: bool = True) -> None:
    """Every row's kinds and words are its entry's."""
    view = catalog._home.refresh()
    snapshot = view.snapshot
    positions = np.flatnonzero(snapshot.alive)[::-1]
    found = view.memory.row_bitmaps.of(
        snapshot, positions, catalog._home.view_at if reads_log else unreadable
    )
    words = np.stack([found.plane(word) for word in range(16)], axis=1)
    kinds = found.kinds().tolist()
    keys = zip(snapshot.group_values("scene", positions), snapshot.geocodes(positions), strict=True)
    lines = {key: (kinds[i], words[i].tobytes()) for i, key in enumerate(keys)}
    assert lines == {
        (entry.meta.key.scene, entry.meta.key.geocode): expected_line(entry) for entry in entries
    }


def newest(directory: Path) -> Path:
    return max((directory / "snapshots").glob("*.snap"))


def sections(catalog: LogCatalog) -> dict[str, Any]:
    found = open_snapshot(newest(catalog.directory), catalog._home._reader.log_id)
    return dict(found.sections)


# ---------------------------------------------------------------- details


@settings(max_examples=60)
@given(
    kinds=st.lists(st.sampled_from(KIND_OF), min_size=1, max_size=8),
    gaps=st.lists(st.integers(0, 9), min_size=8, max_size=8),
    damaged=st.none() | st.integers(0, 7),
    at=st.integers(0, 10_000),
    cut=st.booleans(),
)
def test_bitmaps_of_many_details_are_those_of_each(
    kinds: list[Kind], gaps: list[int], damaged: int | None, at: int, cut: bool
) -> None:
    """On any byte, with anything between; what is flipped or cut short is told apart."""
    entries = scene_of("a", "0123456789"[: len(kinds)], kinds)
    values = [pack_details(entry, Group.of(entry).encode()[0]) for entry in entries]
    if damaged is not None and damaged < len(values):
        value = values[damaged]
        at %= len(value)
        flipped = value[:at] + bytes([value[at] ^ 16]) + value[at + 1 :]
        values[damaged] = value[:at] if cut else flipped
    data, starts = b"", list[int]()
    for gap, value in zip(gaps, values, strict=False):
        data += b"\xff" * gap
        starts.append(len(data))
        data += value
    lengths = np.array([len(value) for value in values])
    words, found = bitmaps_in(memoryview(data), np.array(starts), lengths)
    for number, entry in enumerate(entries):
        if number == damaged:
            assert found[number] == NOT_SOUND
            with pytest.raises(CorruptDataError):
                check_details(values[number])
        else:
            assert (found[number], words[number].tobytes()) == expected_line(entry)
            check_details(values[number])


def test_of_no_details_there_are_no_bitmaps() -> None:
    nothing = np.empty(0, dtype=np.int64)
    words, kinds = bitmaps_in(memoryview(b""), nothing, nothing)
    assert (words.shape, kinds.shape) == ((0, 16), (0,))


# ---------------------------------------------------------------- snapshots


def test_bitmaps_go_through_snapshots_with_whatever_came_and_went(tmp_path: Path) -> None:
    first, second, third = scene_of("a", "0123456"), scene_of("b", "0123"), scene_of("c", "0145")
    with open_catalog(tmp_path, writable=True) as catalog:
        for scene in (first, second, third):
            publish(catalog, scene)
        catalog.remove("id-s2", "b")
        assert catalog._home.snapshot()
        assert sections(catalog)[KINDS].tolist() == [
            expected_line(entry)[0] for entry in first + third
        ]
        check_all(catalog, first + third, reads_log=False)
    with open_catalog(tmp_path, writable=True) as catalog:
        check_all(catalog, first + third, reads_log=False)
        fourth = scene_of("d", "67")
        publish(catalog, fourth)
        rule = {"id": "id-s2", "placement": 3, "cloud_rule": {"method": "likelihood"}}
        rule["cloud_rule"]["threshold"] = 40  # type: ignore[index]
        value = b"S" + json.dumps(rule).encode()
        catalog.change_definition(RecordChange("dataset/s2", 0, value))
        check_all(catalog, first + third + fourth)
        catalog.remove("id-s2", "a")
        assert catalog._home.snapshot()
        check_all(catalog, third + fourth, reads_log=False)
        fifth = scene_of("e", "89")
        publish(catalog, fifth)
        assert catalog.check() == []
    for _ in range(2):
        with open_catalog(tmp_path, writable=False) as catalog:
            check_all(catalog, third + fourth + fifth)
            assert catalog.check() == []


def test_what_is_mapped_is_in_memory_nowhere_else(tmp_path: Path) -> None:
    """Neither where it was opened, nor where it was written, nor after a compaction."""
    entries = scene_of("a", "0123456789bcdefghjkmnpqrstuvwxyz", [CLEAR])
    with open_catalog(tmp_path, writable=True) as catalog:
        publish(catalog, entries)
        bitmaps = held(catalog)
        check_all(catalog, entries)
        assert bitmaps._own_count == 33
        assert catalog._home.snapshot()
        assert bitmaps._own_count == 1
        more = scene_of("b", "01", [CLEAR])
        publish(catalog, more)
        check_all(catalog, entries + more)
        assert bitmaps._own_count == 3
        with catalog._home.reading() as state:
            memory = state.contents.memory
            kept = memory.row_bitmaps.kept(np.array([3, 33, 1]))
            assert kept._own_count == 2
            assert np.shares_memory(kept._mapped, bitmaps._mapped)
            found = kept.of(memory.columns.snapshot(), np.arange(3), unreadable)
            some = [expected_line(each) for each in (entries[3], more[1], entries[1])]
            words = np.stack([found.plane(word) for word in range(16)], axis=1)
            assert [(CLEAR, line.tobytes()) for line in words] == some
    with open_catalog(tmp_path, writable=False) as catalog:
        check_all(catalog, entries + more)
        assert held(catalog)._own_count == 3
        assert held(catalog)._mapped.shape == (16, 32)
        assert not held(catalog)._mapped.flags.owndata


def test_a_compaction_keeps_what_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "geostore.index.memory.Memory.is_mostly_dead",
        property(lambda memory: memory.columns.live < memory.columns.count),
    )
    with open_catalog(tmp_path, writable=True) as catalog:
        scenes = {name: scene_of(name, "012345") for name in "abcd"}
        for name in "ab":
            publish(catalog, scenes[name])
        assert catalog._home.snapshot()
        for name in "cd":
            publish(catalog, scenes[name])
        check_all(catalog, [entry for scene in scenes.values() for entry in scene])
        before = held(catalog)
        for gone, left in (("a", "bcd"), ("c", "bd")):
            catalog.remove("id-s2", gone)
            assert held(catalog) is not before
            expected = [entry for name in left for entry in scenes[name]]
            check_all(catalog, expected, reads_log=False)
        assert catalog.check() == []
        assert catalog._home.snapshot()
        check_all(catalog, expected, reads_log=False)
    with open_catalog(tmp_path, writable=False) as catalog:
        check_all(catalog, expected, reads_log=False)


def test_without_bitmaps_a_snapshot_only_says_so(tmp_path: Path) -> None:
    entries = scene_of("a", "0123", [NONE])
    with open_catalog(tmp_path, writable=True) as catalog:
        publish(catalog, entries)
        assert catalog._home.snapshot()
        assert sections(catalog)[KINDS].tolist() == [0] * 4
        assert WORDS not in sections(catalog)
        check_all(catalog, entries, reads_log=False)
    with open_catalog(tmp_path, writable=True) as catalog:
        check_all(catalog, entries, reads_log=False)
        more = scene_of("b", "01", [CLEAR])
        publish(catalog, more)
        assert catalog._home.snapshot()
        catalog.remove("id-s2", "b")
        assert catalog._home.snapshot()  # of the one that had some
        assert WORDS not in sections(catalog)
        check_all(catalog, entries, reads_log=False)


def test_a_snapshot_from_before_bitmaps_were_in_it_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = scene_of("a", "01234")
    with open_catalog(tmp_path, writable=True) as catalog, monkeypatch.context() as before:
        before.setattr(RowBitmaps, "image", lambda *_: {})
        publish(catalog, entries)
        assert catalog._home.snapshot()
        assert not {KINDS, WORDS} & set(sections(catalog))
        check_all(catalog, entries)
    with open_catalog(tmp_path, writable=True) as catalog:
        check_all(catalog, entries)
        assert catalog.check() == []
        publish(catalog, scene_of("b", "0"))
        assert catalog._home.snapshot()
        assert {KINDS, WORDS} < set(sections(catalog))


@pytest.mark.parametrize("name", [KINDS, WORDS])
def test_damaged_bitmaps_in_a_snapshot_give_way_to_the_log(tmp_path: Path, name: str) -> None:
    entries = scene_of("a", "01234")
    with open_catalog(tmp_path, writable=True) as catalog:
        publish(catalog, entries)
        assert catalog._home.snapshot()
        raw = sections(catalog)[name].tobytes()
    data = bytearray(newest(tmp_path).read_bytes())
    at = data.index(raw)
    data[at + len(raw) // 2] ^= 1
    newest(tmp_path).write_bytes(data)
    with open_catalog(tmp_path, writable=False) as catalog:
        check_all(catalog, entries)
        assert any(name in problem for problem in catalog.check())


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        (np.zeros(3, np.uint8), None),
        (np.zeros(4, np.int64), None),
        (np.full(4, CLEAR, np.uint8), None),
        (np.full(4, CLEAR, np.uint8), np.zeros((16, 3), np.uint64)),
        (np.full(4, CLEAR, np.uint8), np.zeros((4, 16), np.uint64)),
        (np.full(4, CLEAR, np.uint8), np.zeros((16, 4), np.int64)),
    ],
)
def test_sections_that_do_not_fit_are_refused(kinds: Any, words: Any) -> None:
    image = {KINDS: kinds} if words is None else {KINDS: kinds, WORDS: words}
    with pytest.raises(ValueError, match="bitmaps"):
        RowBitmaps.of_image(image, 4)


# ---------------------------------------------------------------- damaged and dropped details


def test_damaged_details_keep_no_snapshot_from_being_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They stay unread in it; searches that need no such row answer, others tell."""
    entries = scene_of("a", "01234", [CLEAR])
    with open_catalog(tmp_path, writable=True) as catalog:
        publish(catalog, entries)
        log, log_id = tmp_path / "log" / "00000001.log", catalog._home._reader.log_id
        packed = pack_details(entries[2], Group.of(entries[2]).encode()[0])
        data = bytearray(log.read_bytes())
        data[data.index(packed) + 40] ^= 1
        log.write_bytes(data)
        for _ in range(2):  # the second is made of what the first has
            assert catalog._home.snapshot()
            kinds = open_snapshot(newest(tmp_path), log_id).sections[KINDS]
            assert kinds.tolist() == [CLEAR, CLEAR, UNREAD, CLEAR, CLEAR]
            publish(catalog, [make_entry("dqcz", scene="z")])
            catalog.remove("id-s2", "z")
        assert "details of rows=1 are damaged" in caplog.text
        request = CoverageRequest(target=50, windows=None)
        assert len(catalog.coverage(Query(geocode="dqc1"), request).groups) == 1
        with pytest.raises(CorruptDataError, match="do not match their checksum"):
            catalog.coverage(Query(), request)


@pytest.fixture
def dropped_once(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], list[str]]:
    """Has a change made between a search's look at the rows and its reading of their details."""

    def arrange(change: Callable[[], None]) -> list[str]:
        original = RowBitmaps.of
        calls: list[str] = []

        def changed_under(self: RowBitmaps, *arguments: Any) -> Any:
            if not calls:
                calls.append("changed")
                change()
            try:
                found = original(self, *arguments)
            except LogDroppedError:
                calls.append("dropped")
                raise
            calls.append("read")
            return found

        monkeypatch.setattr(RowBitmaps, "of", changed_under)
        return calls

    return arrange


def test_a_search_under_which_the_log_is_dropped_looks_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dropped_once: Callable[[Callable[[], None]], list[str]],
) -> None:
    # As in a process that only follows: bitmaps are not read by whoever writes snapshots.
    monkeypatch.setattr(RowBitmaps, "fill", lambda *_: None)
    with open_catalog(tmp_path, writable=True) as catalog:
        publish(catalog, scene_of("a", "0123"))
        new = scene_of("b", "45678")

        def replace_all() -> None:
            with catalog._home.write_lock:
                catalog._home._current_writer()._segment_bytes = 100
            catalog.remove("id-s2", "a")
            publish(catalog, new)
            for number in range(3):
                catalog.record_compare_and_set("note", number, b"x" * 200)
                assert catalog._home.snapshot()
            assert not (tmp_path / "log" / "00000001.log").exists()
            catalog._home._reader._segments.forget(1000)

        calls = dropped_once(replace_all)
        groups = catalog.coverage(Query(), CoverageRequest(target=50, windows=None)).groups
        assert calls == ["changed", "dropped", "read"]
        assert groups.geocode.tolist() == ["dqc4", "dqc5", "dqc6", "dqc7", "dqc8"]
        assert catalog.check() == []


def test_a_log_that_is_always_dropped_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def dropped(*_: Any) -> Any:
        tries.append(1)
        raise LogDroppedError("segment 1 was dropped")

    with open_catalog(tmp_path, writable=True) as catalog:
        publish(catalog, scene_of("a", "01"))
        monkeypatch.setattr(RowBitmaps, "of", dropped)
        with pytest.raises(LogDroppedError):
            catalog.coverage(Query(), CoverageRequest(target=50, windows=None))
    assert len(tries) == 4


# ---------------------------------------------------------------- threads


@pytest.mark.parametrize("piece", [1, 700, 8 << 20])
def test_searches_that_come_together_read_a_row_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(row_bitmaps, "READ_BYTES", piece)
    cells = "0123456789bcdefghjkmnpqrstuvwxyz"
    scenes = [scene_of(f"s{number}", cells) for number in range(8)]
    with open_catalog(tmp_path, writable=True) as catalog:
        for scene in scenes:
            publish(catalog, scene)
        expected = [entry for scene in scenes for entry in scene]
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(check_all, catalog, expected) for _ in range(8)]:
                done.result(30)
        some = sum(entry.meta.bitmaps is not None for entry in expected)
        assert held(catalog)._own_count == 1 + some


def test_a_search_goes_on_while_snapshots_are_written(tmp_path: Path) -> None:
    """Rows that go to the map, and rows that died, of a view from before: each its own bitmaps."""
    scenes = {name: scene_of(name, "0123456789") for name in "abcd"}
    with open_catalog(tmp_path, writable=True) as catalog:
        for name in "abc":
            publish(catalog, scenes[name])
        view = catalog._home.refresh()
        catalog.remove("id-s2", "b")
        publish(catalog, scenes["d"])
        check_all(catalog, [entry for name in "acd" for entry in scenes[name]])
        assert catalog._home.snapshot()
        positions = np.arange(30)
        found = view.memory.row_bitmaps.of(view.snapshot, positions, catalog._home.view_at)
        words = np.stack([found.plane(word) for word in range(16)], axis=1)
        lines = zip(found.kinds().tolist(), words, strict=True)
        assert [(kind, line.tobytes()) for kind, line in lines] == [
            expected_line(entry) for name in "abc" for entry in scenes[name]
        ]


def test_no_child_finds_the_bitmaps_locked(tmp_path: Path) -> None:
    with open_catalog(tmp_path, writable=True) as catalog:
        publish(catalog, scene_of("a", "01"))
        with catalog._home.reading() as state:
            memory = state.contents.memory
        memory.hold_for_fork()
        assert memory.row_bitmaps.lock.locked()
        memory.resume_after_fork()
        assert not memory.row_bitmaps.lock.locked()
