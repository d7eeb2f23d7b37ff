"""The catalog: staging, publication, records, details, rebuilds, and who follows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from geostore.errors import (
    ConflictError,
    CorruptDataError,
    InvalidInputError,
    NotFoundError,
    ReadOnlyError,
    StoreFormatError,
    UnavailableError,
)
from geostore.grid import Region
from geostore.index import (
    Catalog,
    CatalogEntry,
    LogCatalog,
    RecordChange,
    entry_from,
    open_catalog,
)
from geostore.index.state import State
from geostore.query import Cursor, Explain, PercentRange, Query
from geostore.types import EncodedTile, TileKey, TimeSpan
from tests.synthetic_tiles import QUAD_SCHEMA, make_entry


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[LogCatalog]:
    with open_catalog(tmp_path / "catalog", writable=True) as opened:
        yield opened
        assert opened.check() == []


def _publish(catalog: Catalog, *entries: CatalogEntry, replaced: str | None = None) -> int:
    catalog.stage(entries)
    key = entries[0].meta.key
    return catalog.publish(key.dataset_id, key.scene, key.version, replaced)


def _keys(catalog: Catalog, query: Query | None = None) -> list[TileKey]:
    return [row.key for batch in catalog.query(query or Query()) for row in batch.rows()]


# ---------------------------------------------------------------- staging and publication


def test_what_is_staged_is_durable_but_unseen(catalog: LogCatalog) -> None:
    entry = make_entry()
    assert catalog.stage([entry]) == [entry.checksum]
    assert catalog.count(Query()) == 0
    assert [(tile.key, tile.checksum, tile.bytes) for tile in catalog.staged()] == [
        (entry.meta.key, entry.checksum, entry.bytes)
    ]
    assert catalog.checksum(entry.meta.key) == entry.checksum
    with pytest.raises(NotFoundError, match="dqcjq"):
        catalog.tile(entry.meta.key)
    assert catalog.check() == []


def test_publication_shows_the_whole_scene_and_clears_the_stage(catalog: LogCatalog) -> None:
    entries = [make_entry(code) for code in ("dqcjq", "dqcjr", "dqcjw")]
    assert _publish(catalog, *entries) == 3
    assert _keys(catalog) == [entry.meta.key for entry in entries]
    assert catalog.staged() == []
    assert catalog.keys("id-s2", "scene-1", "v1") == [entry.meta.key for entry in entries]


def test_a_second_publication_changes_nothing(catalog: LogCatalog) -> None:
    _publish(catalog, make_entry())
    row = catalog.tile(make_entry().meta.key)
    assert catalog.publish("id-s2", "scene-1", "v1") == 1
    assert catalog.tile(make_entry().meta.key) == row


def test_a_new_version_comes_as_the_old_one_goes(catalog: LogCatalog) -> None:
    _publish(catalog, make_entry("dqcjq"), make_entry("dqcjr"))
    assert _publish(catalog, make_entry("dqcjq", version="v2"), replaced="v1") == 1
    assert [(key.version, key.geocode) for key in _keys(catalog)] == [("v2", "dqcjq")]
    assert catalog.keys("id-s2", "scene-1", "v1") == []
    assert catalog.checksum(make_entry("dqcjr").meta.key) is None


def test_a_put_of_a_known_key_keeps_the_stored_checksum(catalog: LogCatalog) -> None:
    entry = make_entry()
    other = CatalogEntry(meta=entry.meta, checksum="f" * 32, bytes=1, blocks=entry.blocks)
    assert catalog.stage([entry, other]) == [entry.checksum] * 2
    assert catalog.stage([other]) == [entry.checksum]
    catalog.publish("id-s2", "scene-1", "v1")
    assert catalog.stage([other]) == [entry.checksum]
    assert catalog.staged() == []
    assert catalog.details(entry.meta.key).bytes == entry.bytes


def test_publication_of_named_cells_needs_them_all(catalog: LogCatalog) -> None:
    catalog.stage([make_entry("dqcjq"), make_entry("dqcjr")])
    with pytest.raises(NotFoundError, match=r"1 of 2 cells.*the first is dqcjx"):
        catalog.publish("id-s2", "scene-1", "v1", cells=["dqcjq", "dqcjx"])
    assert catalog.count(Query()) == 0
    assert len(catalog.staged()) == 2
    assert catalog.publish("id-s2", "scene-1", "v1", cells=["dqcjq"]) == 1
    assert catalog.staged() == []  # the cell that the commit does not name is forgotten
    assert catalog.publish("id-s2", "scene-1", "v1", cells=["dqcjq"]) == 1


def test_publication_and_its_record_are_one_change(catalog: LogCatalog) -> None:
    catalog.stage([make_entry()])
    change = RecordChange("scene/1", 5, b"published")
    with pytest.raises(ConflictError, match="at revision 0, expected 5"):
        catalog.publish("id-s2", "scene-1", "v1", record=change)
    assert (catalog.count(Query()), len(catalog.staged())) == (0, 1)
    catalog.publish("id-s2", "scene-1", "v1", record=RecordChange("scene/1", 0, b"published"))
    record = catalog.record_get("scene/1")
    assert record is not None
    assert (record.value, record.revision) == (b"published", 1)


def test_unstage_forgets_only_what_it_names(catalog: LogCatalog) -> None:
    catalog.stage([make_entry(), make_entry(version="v2"), make_entry(scene="other")])
    assert [key.version for key in catalog.unstage("id-s2", "scene-1", "v2")] == ["v2"]
    assert len(catalog.staged()) == 2
    assert len(catalog.unstage("id-s2")) == 2
    assert catalog.staged() == []


def test_remove_takes_a_dataset_staged_and_published(catalog: LogCatalog) -> None:
    _publish(catalog, make_entry(), make_entry("dqcjr"))
    _publish(catalog, make_entry(dataset="l8", schema=QUAD_SCHEMA, geocode="0231"))
    catalog.stage([make_entry(version="v2")])
    catalog.record_compare_and_set("dataset/s2", 0, b"{}")
    removed = catalog.remove("id-s2", record=RecordChange("dataset/s2", 1, None))
    assert sorted(key.geocode for key in removed) == ["dqcjq", "dqcjr"]
    assert [key.dataset_id for key in _keys(catalog)] == ["id-l8"]
    assert catalog.staged() == []
    assert catalog.record_get("dataset/s2") is None


def test_a_scene_needs_its_dataset(catalog: LogCatalog) -> None:
    with pytest.raises(InvalidInputError, match="a scene needs its dataset"):
        catalog.keys(scene="scene-1")


def test_names_of_any_length_and_script_are_kept_apart(catalog: LogCatalog) -> None:
    scenes = ["ä" * 10_000, "ä" * 9_999 + "b", "a/b", "\udcff", "\x00", "x" * 511]
    for scene in scenes:
        _publish(catalog, make_entry(scene=scene))
    assert {key.scene for key in _keys(catalog)} == set(scenes)
    for scene in scenes:
        assert catalog.count(Query(scene=scene)) == 1


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"geocode": ""}, "geocode"),
        ({"geocode": "x" * 29}, "geocode"),
        ({"geocode": "dq c"}, "geocode"),
        ({"geocode": "dqü"}, "geocode"),
        ({"coverage": 101.0}, "percent"),
        ({"coverage": float("nan")}, "percent"),
        ({"cloud": -1.0}, "percent"),
        ({"time_us": 2**63}, "tile"),
        ({"properties": {"a": object()}}, "not JSON"),
    ],
)
def test_an_entry_that_cannot_be_kept_is_refused_whole(
    catalog: LogCatalog, fields: dict[str, object], says: str
) -> None:
    with pytest.raises(InvalidInputError, match=says):
        catalog.stage([make_entry("9q8yy"), make_entry(**fields)])  # type: ignore[arg-type]
    assert catalog.staged() == []


def test_an_entry_checks_its_tables() -> None:
    entry = make_entry()
    with pytest.raises(InvalidInputError, match="block table"):
        CatalogEntry(meta=entry.meta, checksum="0" * 32, bytes=1, blocks=entry.blocks[:-1])
    tile = EncodedTile(meta=entry.meta, payload=b"12345", checksum="0" * 32, blocks=entry.blocks)
    assert entry_from(tile).bytes == 5


# ---------------------------------------------------------------- what comes back


def test_a_row_and_its_details_come_back_as_they_went_in(catalog: LogCatalog) -> None:
    entry = make_entry(
        time_us=5, time_end_us=9, cloud=33.3, coverage=66.6, histogram=True, platform=None
    )
    _publish(catalog, entry)
    row = catalog.tile(entry.meta.key)
    assert (row.key, row.dataset, row.schema) == (entry.meta.key, "s2", entry.meta.schema)
    assert row.time is not None
    assert row.time.microsecond == 5
    assert (row.cloud_cover, row.pixel_coverage) == (np.float32(33.3), np.float32(66.6))
    assert (row.platform, row.bytes, row.nodes) == (None, entry.bytes, ("local",))
    details = catalog.details(entry.meta.key)
    assert np.array_equal(details.blocks, entry.blocks)
    assert not details.blocks.flags.writeable
    assert details.blocks.flags.aligned
    assert details.statistics == entry.meta.statistics
    assert details.cloud_histogram == entry.meta.cloud_histogram
    assert (details.checksum, details.bytes) == (entry.checksum, entry.bytes)
    assert (details.cloud_method, details.properties) == ("SCL 8,9,10", {"product": "scene-1"})


def test_nulls_come_back_as_nulls(catalog: LogCatalog) -> None:
    entry = make_entry(time_us=None, cloud=None)
    _publish(catalog, entry)
    row = catalog.tile(entry.meta.key)
    assert (row.time, row.time_end, row.cloud_cover) == (None, None, None)
    details = catalog.details(entry.meta.key)
    assert (details.cloud_histogram, details.cloud_method) == (None, None)


def test_details_outlive_the_tile_and_the_catalog(tmp_path: Path) -> None:
    entry = make_entry()
    with open_catalog(tmp_path, writable=True) as catalog:
        _publish(catalog, entry)
        details = catalog.details(entry.meta.key)
        catalog.remove("id-s2")
        with pytest.raises(NotFoundError):
            catalog.details(entry.meta.key)
    assert np.array_equal(details.blocks, entry.blocks)


def test_schemas_are_interned(catalog: LogCatalog) -> None:
    _publish(catalog, make_entry("dqcjq"), make_entry("dqcjr"))
    _publish(catalog, make_entry(dataset="l8", geocode="0231", schema=QUAD_SCHEMA))
    (batch,) = catalog.query(Query(datasets=("s2",)))
    assert batch.schema[0] is batch.schema[1]
    assert {schema.scheme for schema in catalog.schemas()} == {"geohash", "quadtile"}
    assert [schema.scheme for schema in catalog.schemas(["l8"])] == ["quadtile"]


def test_the_summary_adds_up(catalog: LogCatalog) -> None:
    _publish(catalog, make_entry("dqcjq", size=5), make_entry("dqcjr", size=6))
    _publish(catalog, make_entry(dataset="l8", geocode="0231", schema=QUAD_SCHEMA, size=7))
    assert [(s.dataset, s.dataset_id, s.tiles, s.bytes) for s in catalog.summary()] == [
        ("l8", "id-l8", 1, 7),
        ("s2", "id-s2", 2, 11),
    ]


# ---------------------------------------------------------------- queries


def test_a_query_is_one_snapshot(catalog: LogCatalog) -> None:
    _publish(catalog, *[make_entry(f"dqc{digit}") for digit in "01234567"])
    answer = catalog.query(Query(), batch_rows=3)
    first = next(answer)
    catalog.remove("id-s2")
    _publish(catalog, make_entry("9q", scene="later"))
    assert catalog.count(Query()) == 1
    rest = [row.geocode for batch in answer for row in batch.rows()]
    assert first.geocode.tolist() + rest == [f"dqc{digit}" for digit in "01234567"]


def test_an_unknown_dataset_names_the_known(catalog: LogCatalog) -> None:
    catalog.record_compare_and_set("dataset/empty", 0, b"{}")
    assert catalog.count(Query(datasets=("empty",))) == 0
    with pytest.raises(NotFoundError, match="'nope' does not exist; known: empty"):
        catalog.query(Query(datasets=("empty", "nope")))
    with pytest.raises(NotFoundError):
        catalog.count(Query(datasets=("nope",)))


def test_a_cursor_resumes_a_query(catalog: LogCatalog) -> None:
    _publish(catalog, *[make_entry(f"dqc{digit}", cloud=int(digit)) for digit in "01234567"])
    query = Query(sort="-cloud", limit=3)
    seen: list[str] = []
    cursor = None
    for _ in range(3):
        (batch,) = catalog.query(query, after=cursor)
        seen += batch.geocode.tolist()
        cursor = Cursor.after(batch, query.sort)
        if len(seen) == 3:  # what the cursor stands on may go meanwhile
            catalog.publish("id-s2", "scene-1", "v2", "v1", cells=[])
            _publish(catalog, *[make_entry(f"dqc{d}", cloud=int(d)) for d in "0123467"])
    assert seen == [f"dqc{digit}" for digit in "76543210"]
    assert list(catalog.query(query, after=cursor)) == []
    with pytest.raises(InvalidInputError, match="cursor"):
        catalog.query(Query(), after=cursor)


def test_batches_have_the_rows_asked_for(catalog: LogCatalog) -> None:
    _publish(catalog, *[make_entry(f"dqc{digit}") for digit in "01234567"])
    assert [len(batch) for batch in catalog.query(Query(), batch_rows=3)] == [3, 3, 2]
    assert list(catalog.query(Query(limit=0))) == []
    assert catalog.count(Query(limit=5)) == 5
    with pytest.raises(InvalidInputError, match="batch_rows 0"):
        catalog.query(Query(), batch_rows=0)


def test_count_makes_no_rows(catalog: LogCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    _publish(catalog, make_entry())
    from geostore.index.columns import Snapshot

    def refuse(*_: object) -> None:
        raise AssertionError("count made rows")

    monkeypatch.setattr(Snapshot, "batch", refuse)
    assert catalog.count(Query(geocode="dq", sort="-cloud")) == 1


def test_explain_says_which_structure_was_walked(catalog: LogCatalog) -> None:
    entries = [
        make_entry(a + b, time_us=i * 10, cloud=float(i % 100), scene="s")
        for i, (a, b) in enumerate((a, b) for a in "bcdefghjkm" for b in "0123456789bcdefghjkm")
    ]
    _publish(catalog, *entries)
    for query, structure, left in (
        (Query(time=TimeSpan(50, 70), cloud=PercentRange(0, 90)), "time", 3),
        (Query(cloud=PercentRange(3, 3)), "cloud", 2),
        (Query(geocode="dm"), "geocode", 1),
        (Query(), None, 200),
        (Query(scene="s"), None, 200),
    ):
        explain = Explain()
        assert catalog.count(query, explain=explain) == left
        assert (explain.structure, explain.rows_matched, explain.rows_total) == (
            structure,
            left,
            200,
        )
        assert set(explain.stages_ms) >= {"refresh", "plan", "select"}
        assert explain.to_text()


def test_only_rows_of_the_place_are_looked_at(catalog: LogCatalog) -> None:
    from geostore.grid import GEOHASH

    far = [make_entry("9" + a + b + c, scene="far") for a in "89" for b in "yz" for c in "0123"]
    near = [make_entry("dqc" + a + b) for a in "0123456789bcdefghjkm" for b in "0123456789bcdefg"]
    _publish(catalog, *far)
    _publish(catalog, *near)
    explain = Explain()
    region = Region.from_bbox(GEOHASH.bounds("dqc0"))
    assert catalog.count(Query(region=region), explain=explain) == 16
    assert explain.structure == "region"
    assert explain.considered == {"region": 16}  # nothing under 9, nor elsewhere under dqc


# ---------------------------------------------------------------- records


def test_records_change_by_compare_and_set(catalog: LogCatalog) -> None:
    assert catalog.record_get("a") is None
    assert catalog.record_compare_and_set("a", 0, b"1") == 1
    with pytest.raises(ConflictError, match="at revision 1, expected 0"):
        catalog.record_compare_and_set("a", 0, b"2")
    assert catalog.record_compare_and_set("a", 1, b"") == 2
    record = catalog.record_get("a")
    assert record is not None
    assert (record.value, record.revision) == (b"", 2)
    assert catalog.record_compare_and_set("a", 2, None) == 0
    assert catalog.record_get("a") is None
    with pytest.raises(ConflictError):
        catalog.record_compare_and_set("a", 2, b"3")


def test_record_names_may_be_long_and_are_listed_by_prefix(catalog: LogCatalog) -> None:
    names = ["dataset/a", "dataset/b", "scene/" + "ü" * 500, "scene/" + "ü" * 501, "scene/x"]
    for name in names:
        catalog.record_compare_and_set(name, 0, name.encode())
    for name in names:
        record = catalog.record_get(name)
        assert record is not None
        assert record.value == name.encode()
    assert catalog.record_names() == sorted(names)
    assert catalog.record_names("dataset/") == ["dataset/a", "dataset/b"]
    assert catalog.record_names("scene/" + "ü" * 501) == ["scene/" + "ü" * 501]
    with pytest.raises(InvalidInputError, match="empty name"):
        catalog.record_compare_and_set("", 0, b"")


# ---------------------------------------------------------------- threads


def test_threads_that_stage_together_all_succeed(catalog: LogCatalog) -> None:
    errors: list[BaseException] = []
    start = threading.Barrier(8)

    def stage(number: int) -> None:
        try:
            start.wait()
            for i in range(10):
                entry = make_entry(scene=f"s{number}", geocode=f"dqc{i}")
                assert catalog.stage([entry]) == [entry.checksum]
            catalog.publish("id-s2", f"s{number}", "v1")
            assert catalog.count(Query(scene=f"s{number}")) == 10
        except Exception as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=stage, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert catalog.count(Query()) == 80


def test_a_bad_entry_fails_its_own_caller_only(catalog: LogCatalog) -> None:
    with pytest.raises(InvalidInputError):
        catalog.stage([make_entry(geocode="")])
    assert catalog.stage([]) == []
    assert len(catalog.stage([make_entry()])) == 1


# ---------------------------------------------------------------- rebuild


def test_a_rebuild_replaces_tiles_and_keeps_records(catalog: LogCatalog) -> None:
    _publish(catalog, make_entry(), make_entry("dqcjr"))
    catalog.stage([make_entry(version="v2")])
    catalog.record_compare_and_set("dataset/s2", 0, b"kept")
    entries = [make_entry(f"9q{digit}", scene="new") for digit in "0123"]
    assert catalog.rebuild(entries, [make_entry(version="v3")]) == 4
    assert [key.geocode for key in _keys(catalog)] == ["9q0", "9q1", "9q2", "9q3"]
    assert [tile.key.version for tile in catalog.staged()] == ["v3"]
    assert catalog.record_get("dataset/s2") is not None
    assert catalog.check() == []
    assert catalog.rebuild([]) == 0  # the databases change places every time
    assert catalog.rebuild(entries) == 4
    assert catalog.count(Query()) == 4


def test_a_rebuild_that_fails_leaves_the_old_tiles(catalog: LogCatalog) -> None:
    _publish(catalog, make_entry())

    def broken() -> Iterator[CatalogEntry]:
        for i in range(3000):
            yield make_entry("9q", scene=f"s{i}")
        # Meanwhile queries answer, and changes of tiles are refused.
        assert catalog.count(Query()) == 1
        with pytest.raises(UnavailableError, match="rebuild"):
            catalog.stage([make_entry("9q")])
        with pytest.raises(UnavailableError, match="rebuild"):
            catalog.rebuild([])
        raise RuntimeError("a file that does not read")

    with pytest.raises(RuntimeError):
        catalog.rebuild(broken())
    assert catalog.count(Query()) == 1
    assert catalog.check() == []
    assert catalog.rebuild([make_entry("9q")]) == 1
    assert [key.geocode for key in _keys(catalog)] == ["9q"]


# ---------------------------------------------------------------- followers


def test_mostly_dead_memory_is_loaded_anew(tmp_path: Path) -> None:
    with open_catalog(tmp_path, writable=True) as catalog:
        entries = [make_entry("dqcjq", scene=f"s{i:04}") for i in range(1500)]
        catalog.rebuild(entries)
        query = Query(cloud=PercentRange(0, 100), time=TimeSpan(None, None))
        assert catalog.count(query) == 1500
        for i in range(1400):
            catalog.remove("id-s2", f"s{i:04}")
        assert catalog.count(query) == 100
        _publish(catalog, make_entry("9q", scene="last"))
        assert catalog.count(query) == 101
        assert catalog.check() == []


# ---------------------------------------------------------------- opening


def test_a_reader_needs_a_catalog_and_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(StoreFormatError, match="no catalog here"):
        open_catalog(tmp_path / "none", writable=False)
    assert not (tmp_path / "none").exists()
    open_catalog(tmp_path, writable=True).close()
    with open_catalog(tmp_path, writable=False) as reader:
        assert reader.count(Query()) == 0
        for change in (
            lambda: reader.stage([make_entry()]),
            lambda: reader.publish("d", "s", "v"),
            lambda: reader.remove("d"),
            lambda: reader.unstage("d"),
            lambda: reader.rebuild([]),
            lambda: reader.record_compare_and_set("a", 0, b""),
        ):
            with pytest.raises(ReadOnlyError, match="opened for reading only"):
                change()


def test_catalogs_of_one_directory_share_and_close_apart(tmp_path: Path) -> None:
    writer = open_catalog(tmp_path, writable=True)
    reader = open_catalog(tmp_path / "." / "", writable=False, node="other")
    _publish(writer, make_entry())
    assert reader.count(Query()) == 1
    assert next(reader.query(Query())).nodes.tolist() == [("other",)]
    writer.close()
    writer.close()
    with pytest.raises(InvalidInputError, match="used after close"):
        writer.count(Query())
    assert reader.count(Query()) == 1
    reader.close()
    with open_catalog(tmp_path, writable=True) as again:
        assert again.count(Query()) == 1


def _segment(directory: Path) -> Path:
    return directory / "log" / "00000001.log"


def _flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def _filled(directory: Path) -> LogCatalog:
    """A catalog with rows, a staged tile, a record, and something that went."""
    catalog = open_catalog(directory, writable=True)
    _publish(catalog, make_entry(scene="gone"))
    catalog.remove("id-s2", "gone")
    _publish(catalog, make_entry(), make_entry("dqcjr"))
    catalog.stage([make_entry(version="v2")])
    catalog.record_compare_and_set("note", 0, b"remember")
    query = Query(time=TimeSpan(None, None), cloud=PercentRange(None, None), geocode="d")
    assert catalog.count(query) == 2
    assert catalog.check() == []
    return catalog


def test_check_finds_every_damaged_byte_of_the_log(tmp_path: Path) -> None:
    with _filled(tmp_path) as catalog:
        end = catalog._home._reader.position.offset
        for at in range(0, end, 37):
            _flip(_segment(tmp_path), at)
            assert catalog.check(), at
            _flip(_segment(tmp_path), at)
        assert catalog.check() == []


def _kill_row(state: State) -> None:
    columns = state.contents.memory.columns
    columns.kill(columns.snapshot().columns["row_id"][-1:].copy())


def _other_bytes(state: State) -> None:
    state.contents.memory.columns.snapshot().columns["bytes"][-1] += 1


def _other_cover(state: State) -> None:
    state.contents.memory.columns.snapshot().columns["cloud_cover"][-1] += 1


def _other_details(state: State) -> None:
    columns = state.contents.memory.columns.snapshot().columns
    columns["details_offset"][-1] += 8


def _other_scene(state: State) -> None:
    state.contents.digests[0], state.contents.digests[-1] = (
        state.contents.digests[-1],
        state.contents.digests[0],
    )


def _less_time(state: State) -> None:
    time = state.contents.memory.view().times
    instants = time.classes[0, 0]
    for keys, positions in instants.slices(0, 1):
        time.classes[0, 0] = instants.delete(keys, positions)


def _other_record(state: State) -> None:
    found = state.records.places["note"]
    state.records.places["note"] = found._replace(checksum=found.checksum ^ 1)


def _staged_lost(state: State) -> None:
    state.contents.unstage(np.array(list(state.contents.staged)))


def _next_row(state: State) -> None:
    state.next_row_id -= 1


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_kill_row, "their ids differ"),
        (_other_bytes, "memory and log differ in bytes"),
        (_other_cover, "expected 0.0 by its dataset's rule"),
        (_other_details, "do not match their checksum"),
        (_other_scene, "row and details name different scene entries"),
        (_less_time, "structure times lacks 1 rows"),
        (_other_record, "record 'note': its value in segment 1"),
        (_staged_lost, "memory and log differ in staged tiles"),
        (_next_row, "above 2, the last given out"),
    ],
)
def test_check_finds_what_is_wrong_in_memory(
    tmp_path: Path, damage: Callable[[State], None], says: str
) -> None:
    with _filled(tmp_path) as catalog:
        with catalog._home.reading() as state:
            damage(state)
        assert any(says in problem for problem in catalog.check()), catalog.check()


def test_corrupt_details_are_an_error_not_an_answer(tmp_path: Path) -> None:
    with open_catalog(tmp_path, writable=True) as catalog:
        _publish(catalog, make_entry())
        with catalog._home.reading() as state:
            (at,) = state.contents.details_of(np.array([0]))
        _flip(_segment(tmp_path), at.offset + 70)
        with pytest.raises(CorruptDataError, match=r"details of tile dqcjq .* checksum"):
            catalog.details(make_entry().meta.key)


def test_a_frame_that_does_not_read_is_an_error_each_time(tmp_path: Path) -> None:
    with open_catalog(tmp_path, writable=True) as catalog:
        _publish(catalog, make_entry())
    _flip(_segment(tmp_path), 200)
    for writable in (False, True):
        for _ in range(2):
            with pytest.raises(CorruptDataError, match=r"rebuild the catalog from the tile files"):
                open_catalog(tmp_path, writable=writable)
