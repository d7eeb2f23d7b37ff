"""Emptying old segments of a catalog's log: nothing is lost, and room is given back."""

from __future__ import annotations

import errno
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geostore.errors import CorruptDataError, StorageFullError
from geostore.index import CatalogEntry, LogCatalog, cleaning, open_catalog
from geostore.index.cleaning import keep_from, live_bytes
from geostore.index.entry import TileDetails
from geostore.index.home import Home
from geostore.index.log import LogDisk
from geostore.query import Query
from tests.scripts import Scripts
from tests.synthetic_tiles import make_entry

DETAILS = ("statistics", "cloud_histogram", "checksum", "bytes", "properties", "bitmaps")
CELLS = "0123456789bcdefg"


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log is due when it is small already, and moved in many pieces."""
    monkeypatch.setattr(cleaning, "LOG_BYTES_MIN", 4096)
    monkeypatch.setattr(cleaning, "BATCH_BYTES", 12_000)


def _entries(scene: str, version: str = "v1") -> list[CatalogEntry]:
    return [make_entry(f"dqc{cell}", scene=scene, version=version) for cell in CELLS]


def _publish(catalog: LogCatalog, scene: str, version: str = "v1") -> list[CatalogEntry]:
    entries = _entries(scene, version)
    catalog.stage(entries)
    catalog.publish("id-s2", scene, version)
    return entries


def _log_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in (directory / "log").glob("*.log"))


def _held(catalog: LogCatalog) -> dict[str, object]:
    """All that a catalog holds."""
    return {
        "tiles": {row.key: _plain(catalog.details(row.key)) for row in _rows(catalog)},
        "covers": {row.key: row.cloud_cover for row in _rows(catalog)},
        "ids": sorted(row.row_id for row in _rows(catalog)),
        "staged": {tile.key: tile.checksum for tile in catalog.staged()},
        "records": {name: catalog.record_get(name) for name in catalog.record_names()},
    }


def _plain(details: TileDetails) -> tuple[object, ...]:
    return (details.blocks.tobytes(), *(getattr(details, name) for name in DETAILS))


def _rows(catalog: LogCatalog) -> list[Any]:
    return [row for batch in catalog.query(Query()) for row in batch.rows()]


def _worn(catalog: LogCatalog) -> None:
    """Tiles, staged ones and records in a log that is dead by three quarters."""
    catalog._home._upkeep._is_stopped = True  # nothing behind the test's back
    for number in range(12):
        _publish(catalog, f"s{number}")
    catalog.stage(_entries("staged"))
    for revision in range(20):
        catalog.record_compare_and_set("often", revision, b"x" * 300)
    catalog.record_compare_and_set("once", 0, b"once")
    for number in range(9):
        catalog.remove("id-s2", f"s{number}")


def test_what_is_alive_moves_and_what_is_dead_goes(tmp_path: Path) -> None:
    with open_catalog(tmp_path, writable=True) as catalog:
        _worn(catalog)
        held, before = _held(catalog), _log_bytes(tmp_path)
        assert catalog._home.is_cleaning_due()
        assert catalog._home.clean()
        assert not catalog._home.is_cleaning_due()
        assert _held(catalog) == held
        assert catalog.check() == []
        assert _publish(catalog, "s1")  # whose scene's entry went with the log's beginning
        catalog.remove("id-s2", "s1")
    assert not (tmp_path / "log" / "00000001.log").exists()
    assert _log_bytes(tmp_path) < 0.55 * before
    with open_catalog(tmp_path, writable=False) as catalog:
        held["ids"] = sorted(row.row_id for row in _rows(catalog))
        assert (_held(catalog), catalog.check()) == (held, [])
    # Both snapshots do without what went.
    newest = max((tmp_path / "snapshots").glob("*.snap"))
    newest.write_bytes(b"damaged")
    with open_catalog(tmp_path, writable=True) as catalog:
        assert _held(catalog) == held
        assert catalog.publish("id-s2", "staged", "v1") == len(CELLS)


def test_no_map_keeps_the_room_of_a_segment_that_went(tmp_path: Path) -> None:
    """A deleted file takes its room as long as somebody maps it: a node runs for months."""
    with open_catalog(tmp_path, writable=True) as catalog:
        _worn(catalog)
        _held(catalog)
        assert str(tmp_path / "log" / "00000001.log") in Path("/proc/self/maps").read_text()
        assert catalog._home.clean()
        maps = Path("/proc/self/maps").read_text().splitlines()
        assert [line for line in maps if f"{tmp_path}/log/" in line and "deleted" in line] == []
        assert _held(catalog)


def test_the_upkeep_cleans_behind_the_writers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleaning, "LOG_BYTES_MIN", 100_000)
    with open_catalog(tmp_path, writable=True) as catalog:
        for number in range(60):
            _publish(catalog, "same", f"v{number}")
            catalog.remove("id-s2", "same", f"v{number}")
    assert _log_bytes(tmp_path) < 150_000
    assert not (tmp_path / "log" / "00000001.log").exists()


def test_few_bytes_or_few_dead_ones_are_left_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleaning, "LOG_BYTES_MIN", 1 << 20)
    with open_catalog(tmp_path, writable=True) as catalog:
        _worn(catalog)
        assert not catalog._home.is_cleaning_due()
        monkeypatch.setattr(cleaning, "LOG_BYTES_MIN", 4096)
        assert catalog._home.is_cleaning_due()
        assert catalog._home.clean()
        after = _log_bytes(tmp_path)
        assert not catalog._home.clean()  # nothing to gain any more
        assert _log_bytes(tmp_path) == after


def test_as_few_segments_as_suffice_are_emptied() -> None:
    sizes = dict.fromkeys(range(3, 9), 100)
    assert keep_from(sizes, dict.fromkeys(sizes, 90)) == 3
    # Half is dead: in the two oldest all, in the third a half of it, then less.
    assert keep_from(sizes, {3: 0, 4: 0, 5: 50, 6: 90, 7: 90, 8: 90}) == 5
    # The dead lie at the end: all before them must move too.
    assert keep_from(sizes, {3: 100, 4: 100, 5: 100, 6: 0, 7: 0, 8: 0}) == 8
    assert keep_from(sizes, {}) == 9


def test_the_bytes_that_are_alive_are_counted_where_they_lie(tmp_path: Path) -> None:
    with open_catalog(tmp_path, writable=True) as catalog:
        _worn(catalog)
        with catalog._home.reading() as state:
            counted = live_bytes(state)
            details = state.contents.memory.columns.details_bytes
            kept = sum(
                len(catalog._home.view_at(tile.details)) for tile in state.contents.staged.values()
            )
        assert set(counted) == {1}
        assert details + kept + len(b"x" * 300 + b"once") < counted[1] < _log_bytes(tmp_path) / 2


# ---------------------------------------------------------------- what may come in between


def test_a_process_that_dies_at_any_step_of_it_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = itertools.count()
    copies: list[Path] = []

    def copied_before(call: Callable[..., Any]) -> Callable[..., Any]:
        def copying(disk: LogDisk, *args: Any) -> Any:
            if next(calls) % 2 == 0:  # calls that change the disk take turns with syncs
                copies.append(tmp_path / f"copy{len(copies)}")
                shutil.copytree(tmp_path / "store", copies[-1])
            return call(disk, *args)

        return copying

    with open_catalog(tmp_path / "store", writable=True) as catalog:
        _worn(catalog)
        held = _held(catalog)
        with monkeypatch.context() as patch:
            for name in ("pwritev", "sync", "sync_data", "rename", "unlink", "truncate"):
                patch.setattr(LogDisk, name, copied_before(getattr(LogDisk, name)))
            assert catalog._home.clean()
    assert len(copies) > 20
    for copied in copies:
        with open_catalog(copied, writable=False) as catalog:
            assert _held(catalog) == held, copied
        with open_catalog(copied, writable=True) as catalog:
            assert catalog.check() == []
            catalog._home._clean_from_bytes = 0
            catalog._home.clean()
            assert (_held(catalog), catalog.check()) == (held, []), copied
        assert not (copied / "log" / "00000001.log").exists()


class FullDisk:
    """After some writes of more than there was, files do not grow any more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, allowed: int) -> None:
        self.allowed = allowed
        real = LogDisk.pwritev

        def pwritev(disk: LogDisk, descriptor: int, views: Any, offset: int) -> int:
            if offset + sum(map(len, views)) > disk.size(descriptor):
                self.allowed -= 1
                if self.allowed < 0:
                    raise OSError(errno.ENOSPC, "No space left on device")
            return real(disk, descriptor, views, offset)

        def reserve(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(LogDisk, "pwritev", pwritev)
        monkeypatch.setattr(LogDisk, "reserve", reserve)


def test_a_full_disk_at_any_step_of_it_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_catalog(tmp_path, writable=True) as catalog:
        _worn(catalog)
    whole, failures = tmp_path, 0
    for allowed in range(0, 100, 2):
        copied = tmp_path.parent / f"{tmp_path.name}-{allowed}"
        shutil.copytree(whole, copied)
        with open_catalog(copied, writable=True) as catalog:
            held = _held(catalog)
            with monkeypatch.context() as patch:
                FullDisk(patch, allowed)
                try:
                    assert catalog._home.clean()
                except StorageFullError:
                    failures += 1
                    assert not catalog._home.is_cleaning_due()  # until the log has grown
                else:
                    break
            assert (_held(catalog), catalog.check()) == (held, [])
            _publish(catalog, "more")
        with open_catalog(copied, writable=False) as catalog:
            assert catalog.check() == []
    assert failures > 3
    assert not (copied / "log" / "00000001.log").exists()


def test_others_write_and_read_between_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = {entry.meta.key: entry for entry in _entries("kept")}
    numbers = iter(range(10_000))
    is_inside = False

    def changed_before(step: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            nonlocal is_inside
            if not is_inside:
                is_inside = True
                change(next(numbers))
                is_inside = False
            return step(*args)

        return call

    def change(number: int) -> None:
        if number % 2 == 0:
            _publish(catalog, f"new{number}")
        else:
            catalog.remove("id-s2", f"new{number - 1}")
            catalog.record_compare_and_set("often", 20 + number // 2, b"y" * number)
        for key, entry in entries.items():
            assert catalog.details(key).checksum == entry.checksum

    with open_catalog(tmp_path, writable=True) as catalog:
        _worn(catalog)
        catalog.stage(list(entries.values()))
        catalog.publish("id-s2", "kept", "v1")
        with monkeypatch.context() as patch:
            for name in ("write", "_write_snapshot", "_append_nothing", "_drop_segments"):
                patch.setattr(Home, name, changed_before(getattr(Home, name)))
            assert catalog._home.clean()
        assert next(numbers) > 6
        assert catalog.check() == []
        record = catalog.record_get("often")
        assert record is not None
        assert record.value.strip(b"y") == b""
        held = _held(catalog)
    with open_catalog(tmp_path, writable=False) as catalog:
        assert (_held(catalog), catalog.check()) == (held, [])


def test_a_reader_that_knows_the_old_places_looks_again(tmp_path: Path) -> None:
    with open_catalog(tmp_path, writable=True) as catalog:
        _worn(catalog)
        records, place = catalog._home.records, catalog._home.records.places["once"]
        assert catalog._home.clean()
        moved = records.places["once"]
        assert moved.at.segment > place.at.segment
        assert catalog._home.records.get("once") == catalog.record_get("once")

        class Late(dict[str, Any]):
            """As a thread sees it that looked a place up just before all this."""

            looks = 0

            def get(self, name: str, default: Any = None) -> Any:
                self.looks += 1
                return place if self.looks == 1 else super().get(name, default)

        catalog._home._reader._segments.forget(before=99)  # its maps of what went
        catalog._home.records.places = late = Late(records.places)
        assert catalog.record_get("once") is not None
        assert late.looks == 2


def _clean_and_read(catalog: LogCatalog) -> object:
    catalog._home.clean()
    return _held(catalog)


def test_damage_is_not_made_whole_by_moving_it(tmp_path: Path) -> None:
    with open_catalog(tmp_path, writable=True) as catalog:
        _worn(catalog)
        with catalog._home.reading() as state:
            record = state.records.places["once"].at
            (details,) = [*state.contents.details_of(state.contents.rows_under("id-s2"))][:1]
        assert catalog._home.snapshot()  # behind it only the values themselves tell
    log = tmp_path / "log" / "00000001.log"
    whole = log.read_bytes()
    for place in (record, details):
        damaged = bytearray(whole)
        damaged[place.offset + place.length - 1] ^= 1
        log.write_bytes(damaged)
        with open_catalog(tmp_path, writable=True) as catalog:
            catalog._home._clean_from_bytes = 0
            with pytest.raises(CorruptDataError, match="checksum"):
                _clean_and_read(catalog)
        log.write_bytes(whole)


OTHER = Scripts(
    """
    import sys
    from geostore.index import open_catalog
    from tests.synthetic_tiles import make_entry
    with open_catalog(sys.argv[1], writable=True) as catalog:
        catalog.stage([make_entry("dqc0", scene="of another process")])
        catalog.publish("id-s2", "of another process", "v1")
    """
)


def test_what_another_process_wrote_meanwhile_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looks at how long the log is has not taken in what is new in it."""
    monkeypatch.setattr(cleaning, "LOG_BYTES_MIN", 1 << 30)
    with open_catalog(tmp_path, writable=True) as catalog:
        _publish(catalog, "mine")
        OTHER.run("", tmp_path)
        assert not catalog._home.clean()
        assert catalog.count(Query()) == len(CELLS) + 1
