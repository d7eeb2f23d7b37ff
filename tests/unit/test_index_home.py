"""A catalog's directory: what it survives, and what it refuses."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from geostore.errors import (
    ConflictError,
    CorruptDataError,
    ReadOnlyError,
    StorageFullError,
    StoreFormatError,
    UnavailableError,
)
from geostore.grid import Region
from geostore.index import CatalogEntry, LogCatalog, open_catalog
from geostore.index.log import START, Frame, LogDisk
from geostore.index.memory import View
from geostore.index.operations import Decision
from geostore.index.state import State
from geostore.query import PercentRange, Query
from geostore.types import BBox, TimeSpan
from tests.benchmarks.million_tiles import make_tiles, packed
from tests.scripts import Scripts, ask, finish
from tests.synthetic_tiles import make_entry

SCRIPTS = Scripts(
    """
    import os, sys
    from pathlib import Path
    from geostore.errors import *
    from geostore.index import open_catalog
    from geostore.query import Query
    from tests.synthetic_tiles import make_entry
    def publish(catalog, scene, cells, version="v1"):
        made = [make_entry(f"dqc{cell}", scene=scene, version=version) for cell in cells]
        catalog.stage(made)
        return catalog.publish("id-s2", scene, version)
    def say(*words):
        print(*words, flush=True)
    """
)


def _publish(catalog: LogCatalog, scene: str, cells: str, version: str = "v1") -> int:
    catalog.stage([make_entry(f"dqc{cell}", scene=scene, version=version) for cell in cells])
    return catalog.publish("id-s2", scene, version)


# ---------------------------------------------------------------- damaged files


def _files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def _put_files(directory: Path, files: dict[str, bytes]) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _log(directory: Path) -> Path:
    return directory / "log" / "00000001.log"


@pytest.fixture
def stores(tmp_path: Path) -> tuple[dict[str, bytes], dict[str, bytes], list[int]]:
    """(files before a publication of two tiles, after it, the ends of frames in the log)."""
    with open_catalog(tmp_path / "made", writable=True) as catalog:
        _publish(catalog, "a", "0123")
        catalog.record_compare_and_set("note", 0, b"first")
        assert catalog._home.snapshot()
        _publish(catalog, "b", "45")
        catalog.record_compare_and_set("note", 1, b"second")
        reader = catalog._home._reader
        ends = [frame.end.offset for frame in reader.frames(START)]
    before = _files(tmp_path / "made")
    with open_catalog(tmp_path / "made", writable=True) as catalog:
        catalog.stage([make_entry("dqc8", scene="c"), make_entry("dqc9", scene="c")])
        ends.append(catalog._home._reader.position.offset)
        catalog.publish("id-s2", "c", "v1")
        ends.append(catalog._home._reader.position.offset)
    return before, _files(tmp_path / "made"), ends


def _seen(directory: Path, *, writable: bool, checked: bool = True) -> tuple[int, int, bytes]:
    with open_catalog(directory, writable=writable) as catalog:
        record = catalog.record_get("note")
        assert record is not None
        assert not (checked and writable) or catalog.check() == []
        return catalog.count(Query()), len(catalog.staged()), record.value


@pytest.mark.parametrize("has_head", [True, False])
def test_a_log_cut_at_any_byte_of_its_last_two_frames(
    tmp_path: Path,
    stores: tuple[dict[str, bytes], dict[str, bytes], list[int]],
    has_head: bool,
) -> None:
    """Cut as a crash cuts: the head is not ahead of what is there.

    Whatever is whole is kept, what is torn is cut off, and the catalog goes on.
    """
    before, after, ends = stores
    name = "log/00000001.log"
    directory = tmp_path / "cut"
    for end in range(ends[-3], ends[-1] + 1, 1 if has_head else 7):
        files = {**after, name: after[name][:end], "log/head": before["log/head"]}
        if not has_head:
            del files["log/head"]
        _put_files(directory, files)
        staged, published = end >= ends[-2], end >= ends[-1]
        expected = (8 if published else 6, 2 if staged and not published else 0, b"second")
        assert _seen(directory, writable=True, checked=end % 32 == 0) == expected, end
    # And where the head had told that more was durable, it is an error and nothing is changed.
    _put_files(directory, {**after, name: after[name][: ends[-1] - 1]})
    for writable in (True, False):
        with pytest.raises(CorruptDataError, match="lost|cut short|damaged"):
            open_catalog(directory, writable=writable)
    assert _log(directory).read_bytes() == after[name][: ends[-1] - 1]


def test_a_flipped_byte_of_any_file_is_found_or_does_no_harm(
    tmp_path: Path, stores: tuple[dict[str, bytes], dict[str, bytes], list[int]]
) -> None:
    """Whatever byte of whatever file: the right answer, or an error; never another answer."""
    _, files, _ = stores
    directory = tmp_path / "flipped"
    snapshot = next(name for name in files if name.endswith(".snap"))
    whole, refusals = 0, list[str]()
    for name, data in files.items():
        step = 1 if name == "log/head" else 29 if name == snapshot else 17
        for at in range(0, len(data), step):
            damaged = bytearray(data)
            damaged[at] ^= 1 << at % 8
            _put_files(directory, {**files, name: bytes(damaged)})
            try:
                with open_catalog(directory, writable=False) as catalog:
                    found = _everything(catalog)
            except (CorruptDataError, StoreFormatError) as error:
                refusals.append(str(error))
            else:
                assert found == (8, b"second"), (name, at)
                whole += 1
    assert whole > 100  # snapshots and heads are made up for
    assert len(refusals) > 20
    unclear = [text for text in refusals if "rebuild" not in text and "newer" not in text]
    assert unclear == []


def _everything(catalog: LogCatalog) -> object:
    record = catalog.record_get("note")
    assert record is not None
    keys = catalog.keys()
    for key in keys:
        assert catalog.details(key).checksum == make_entry(key.geocode, scene=key.scene).checksum
    assert catalog.staged() == []
    return catalog.count(Query()), record.value


def test_any_lost_file_is_made_up_for_or_told_of(
    tmp_path: Path, stores: tuple[dict[str, bytes], dict[str, bytes], list[int]]
) -> None:
    _, files, _ = stores
    directory = tmp_path / "lost"
    for name in files:
        _put_files(directory, {other: data for other, data in files.items() if other != name})
        if name == "log/00000001.log":
            for writable in (True, False):
                with pytest.raises((CorruptDataError, StoreFormatError)):
                    open_catalog(directory, writable=writable)
        else:
            assert _seen(directory, writable=False)[0] == 8
            assert _seen(directory, writable=True)[0] == 8


def test_a_snapshot_that_is_damaged_gives_way_to_the_one_before(tmp_path: Path) -> None:
    with open_catalog(tmp_path, writable=True) as catalog:
        for scene in "abc":
            _publish(catalog, scene, "01")
            assert catalog._home.snapshot()
        _publish(catalog, "d", "01")
    snapshots = sorted((tmp_path / "snapshots").glob("*.snap"))
    assert len(snapshots) == 2
    newest = bytearray(snapshots[-1].read_bytes())
    newest[len(newest) // 2] ^= 4
    snapshots[-1].write_bytes(newest)
    with open_catalog(tmp_path, writable=False) as catalog:
        assert catalog.count(Query()) == 8
        assert any(snapshots[-1].name in problem for problem in catalog.check())
    with open_catalog(tmp_path, writable=True) as catalog:
        _publish(catalog, "e", "01")
        assert catalog._home.snapshot()
        assert catalog.check() == []  # the damaged one was put away, the one before it kept
        assert snapshots[0].exists()
    snapshots = sorted((tmp_path / "snapshots").glob("*.snap"))
    snapshots[0].unlink()
    snapshots[-1].unlink()
    with open_catalog(tmp_path, writable=False) as catalog:
        assert (catalog.count(Query()), catalog.check()) == (10, [])


def test_without_a_snapshot_and_the_logs_beginning_it_says_what_is_lost(tmp_path: Path) -> None:
    with open_catalog(tmp_path, writable=True) as catalog:
        _publish(catalog, "a", "01")
        with catalog._home.write_lock:
            writer = catalog._home._current_writer()
            writer._segment_bytes = 100
        for scene in "bcd":
            catalog.rebuild([make_entry("dqcjq", scene=scene)])
            assert catalog._home.snapshot()
        assert not _log(tmp_path).exists()  # nothing needs it
        assert catalog.check() == []
    with open_catalog(tmp_path, writable=False) as catalog:
        assert catalog.count(Query()) == 1
    shutil.rmtree(tmp_path / "snapshots")
    for writable in (True, False):
        with pytest.raises(CorruptDataError, match=r"no sound snapshot, and the log begins with"):
            open_catalog(tmp_path, writable=writable)


class Newer:
    """A change of a kind that is not known yet."""

    code = 99

    def parts(self) -> list[bytes]:
        return []


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    with open_catalog(tmp_path, writable=True) as catalog:
        effects: Any = [Newer()]
        with pytest.raises(CorruptDataError, match="install a newer geostore"):
            catalog._home.write(lambda _: Decision(effects, None))
    with pytest.raises(CorruptDataError, match="install a newer geostore"):
        open_catalog(tmp_path, writable=False)


# ---------------------------------------------------------------- snapshots


ASKED = (
    Query(time=TimeSpan(None, None)),
    Query(cloud=PercentRange(0, 50)),
    Query(coverage=PercentRange(99, None)),
    Query(geocode="dqc"),
    Query(region=Region.from_bbox(BBox(-80, 30, -70, 45)), time=TimeSpan(0, 10**15)),
    Query(scene="b", platform="sentinel-2a"),
)


def _answers(catalog: LogCatalog) -> list[list[str]]:
    return [
        sorted(str(row.key) for batch in catalog.query(q) for row in batch.rows()) for q in ASKED
    ]


@pytest.mark.parametrize("has_dead", [False, True])
def test_structures_of_a_snapshot_answer_as_those_that_were_built(
    tmp_path: Path, has_dead: bool
) -> None:
    with open_catalog(tmp_path, writable=True) as catalog:
        entries = [
            make_entry(
                f"dqc{a}{b}", scene=scene, dataset=dataset, cloud=cloud, time_us=number * 10**12
            )
            for number, (scene, dataset, cloud) in enumerate(
                [("a", "gone", 1.0), ("b", "s2", 20.0), ("c", "l8", None), ("d", "s2", 70.0)]
            )
            for a in "0123456789"
            for b in "bcdefg"
        ]
        catalog.rebuild(entries)
        if has_dead:
            catalog.remove("id-gone")
            catalog.remove("id-s2", "d")
        before = _answers(catalog)
        assert catalog._home.snapshot()
        _publish(catalog, "later", "01")
    with open_catalog(tmp_path, writable=True) as catalog:
        with catalog._home.reading() as state:
            built = state.contents.memory.built
            assert set(built) >= {"cells", "times", "cloud_cover", "pixel_coverage"}
            assert {one.upto for one in built.values()} == {120 if has_dead else 240}
        assert catalog.check() == []
        catalog.remove("id-s2", "later")
        assert _answers(catalog) == before
        assert catalog._home.snapshot()  # of structures that lie on the first one's file
    with open_catalog(tmp_path, writable=False) as catalog:
        assert _answers(catalog) == before
        assert catalog.check() == []


@pytest.mark.parametrize("has_dead", [False, True])
@pytest.mark.parametrize("coming", [500, 9_000])
def test_a_snapshot_under_inserts_has_the_structures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_dead: bool, coming: int
) -> None:
    """Rows come between the building and the image; of many, most are taken in before it."""
    tiles = make_tiles(60_000, "scenes")
    numbers = iter(range(20_000, 60_000, coming))
    real = View.build_all

    def build_all(view: View) -> None:
        real(view)
        if (first := next(numbers, None)) is not None and first < 40_000:
            catalog.insert(packed(tiles, first, first + coming))

    with open_catalog(tmp_path, writable=True) as catalog:
        catalog.insert(packed(tiles, 0, 20_000))
        catalog._home._upkeep._is_stopped = True
        if has_dead:
            catalog.remove("id-s2")
        with monkeypatch.context() as patch:
            patch.setattr(View, "build_all", build_all)
            assert catalog._home.snapshot()
        count = catalog.count(Query())
        assert catalog._home.is_snapshot_worthwhile() == (coming > 8192)
        before = _answers(catalog)
        copied = tmp_path.with_name(tmp_path.name + "-copy")
        shutil.copytree(tmp_path, copied)
    with open_catalog(copied, writable=False) as catalog:
        with catalog._home.reading() as state:
            built = dict(state.contents.memory.built)
        assert set(built) >= {"cells", "times", "cloud_cover", "pixel_coverage"}
        lacking = {count - one.upto for name, one in built.items() if name != "runs"}
        assert 0 < min(lacking) <= max(lacking) <= coming
        assert {one.dead_seen for one in built.values()} == {0}
        assert _answers(catalog) == before
        assert catalog.check() == []


def test_a_catalog_that_took_in_much_leaves_a_snapshot_when_it_is_closed(tmp_path: Path) -> None:
    tiles = make_tiles(20_000, "scenes")
    with open_catalog(tmp_path, writable=True) as catalog:
        catalog.insert(packed(tiles, 0, 9_000))
    (first,) = (tmp_path / "snapshots").glob("*.snap")
    with open_catalog(tmp_path, writable=True) as catalog:
        catalog.insert(packed(tiles, 9_000, 9_500))  # little: the first one does
    assert list((tmp_path / "snapshots").glob("*.snap")) == [first]
    with open_catalog(tmp_path, writable=True) as catalog:
        catalog.insert(packed(tiles, 9_500, 20_000))
    assert len(list((tmp_path / "snapshots").glob("*.snap"))) == 2
    with open_catalog(tmp_path, writable=False) as catalog:
        with catalog._home.reading() as state:
            upto = {one.upto for one in state.contents.memory.built.values()}
        assert upto == {20_000}
        assert catalog.check() == []


@pytest.mark.parametrize("how", ["removed", "unstaged", "abandoned"])
def test_a_scene_that_went_before_a_snapshot_may_come_again_after_it(
    tmp_path: Path, how: str
) -> None:
    """A snapshot leaves out what nobody needs; who needs it again writes it again."""
    with open_catalog(tmp_path, writable=True) as catalog:
        _publish(catalog, "other", "01")
        if how == "removed":
            _publish(catalog, "a", "01")
            catalog.remove("id-s2", "a")
        elif how == "unstaged":
            catalog.stage([make_entry("dqc0", scene="a")])
            catalog.unstage("id-s2", "a")
        else:

            def break_off() -> Iterator[CatalogEntry]:
                yield from [make_entry("dqc0", scene="a")] * 5000
                raise RuntimeError("no more")

            with pytest.raises(RuntimeError):
                catalog.rebuild(break_off())
        assert catalog._home.snapshot()
        _publish(catalog, "a", "012")
        assert catalog.check() == []
    with open_catalog(tmp_path, writable=True) as catalog:
        assert catalog.count(Query(scene="a")) == 3
        key = make_entry("dqc0", scene="a").meta.key
        assert catalog.details(key).properties == {"product": "a"}
        assert catalog.check() == []


def test_snapshots_are_written_behind_the_writers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geostore.index.home.REPLAY_S_MAX", 0.002)
    with open_catalog(tmp_path, writable=True) as catalog:
        for number in range(100):
            _publish(catalog, f"s{number}", "01")
            catalog.count(Query(cloud=PercentRange(0, 50)))
    snapshots = list((tmp_path / "snapshots").glob("*.snap"))
    assert len(snapshots) == 2
    with open_catalog(tmp_path, writable=False) as catalog:
        assert catalog.count(Query()) == 200
        assert catalog.check() == []


# ---------------------------------------------------------------- several processes


def test_a_reader_process_follows_everything_the_writer_does(tmp_path: Path) -> None:
    with open_catalog(tmp_path, writable=True) as writer:
        follower = SCRIPTS.start(
            """
            catalog = open_catalog(sys.argv[1], writable=False)
            for line in sys.stdin:
                versions = [v for batch in catalog.query(Query()) for v in batch.version.tolist()]
                say(*sorted(versions), *catalog.check(), *catalog.record_names())
            """,
            tmp_path,
        )
        try:
            assert ask(follower, "empty") == ""
            _publish(writer, "a", "01")
            assert ask(follower, "published") == "v1 v1"
            writer.stage([make_entry("dqc5", scene="a", version="v2")])
            assert ask(follower, "staged") == "v1 v1"
            writer.publish("id-s2", "a", "v2", "v1")
            assert ask(follower, "replaced") == "v2"
            writer.record_compare_and_set("dataset/s2", 0, b"")
            assert ask(follower, "record") == "v2 dataset/s2"
            writer.rebuild([make_entry("dqc7", version="v3"), make_entry("dqc8", version="v3")])
            assert ask(follower, "rebuilt") == "v3 v3 dataset/s2"
            writer.remove("id-s2")
            _publish(writer, "b", "9", "v4")
            writer.remove("id-s2", "b")  # came and went between two looks
            assert ask(follower, "removed") == "dataset/s2"
        finally:
            finish(follower)


def test_no_thread_sees_an_older_moment_than_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one thread takes in what another process wrote, a second one waits for it."""
    open_catalog(tmp_path, writable=True).close()
    begun, go_on = threading.Event(), threading.Event()
    apply = State.apply

    def slow(self: State, frame: Frame) -> None:
        begun.set()
        assert go_on.wait(30)
        apply(self, frame)

    with open_catalog(tmp_path, writable=False) as catalog, ThreadPoolExecutor(2) as threads:
        assert catalog.count(Query()) == 0
        SCRIPTS.run('publish(open_catalog(sys.argv[1], writable=True), "a", "0123")', tmp_path)
        with monkeypatch.context() as patched:
            patched.setattr(State, "apply", slow)
            first = threads.submit(catalog.count, Query())
            assert begun.wait(30)
            second = threads.submit(catalog.count, Query())
            assert not wait([second], timeout=0.2).done
            go_on.set()
            assert (first.result(30), second.result(30)) == (4, 4)


def test_two_processes_write_in_turns(tmp_path: Path) -> None:
    """Each change of one is decided on what the other did before."""
    open_catalog(tmp_path, writable=True).close()
    other = SCRIPTS.start(
        """
        catalog = open_catalog(sys.argv[1], writable=True)
        say("open")
        for number in range(60):
            publish(catalog, f"mine-{number}", "0123")
            while True:
                found = catalog.record_get("counter")
                try:
                    catalog.record_compare_and_set(
                        "counter", found.revision if found else 0,
                        str(int(found.value) + 1 if found else 1).encode())
                except ConflictError:
                    continue
                break
        say("done", catalog.check())
        """,
        tmp_path,
    )
    assert other.stdout is not None
    assert other.stdout.readline().strip() == "open"
    with open_catalog(tmp_path, writable=True) as catalog:
        for number in range(60):
            _publish(catalog, f"s{number}", "0123")
            while True:
                found = catalog.record_get("counter")
                revision, value = (0, 0) if found is None else (found.revision, int(found.value))
                try:
                    catalog.record_compare_and_set("counter", revision, str(value + 1).encode())
                except ConflictError:
                    continue
                break
        assert other.stdout.readline().strip() == "done []"
        finish(other)
        assert catalog.count(Query()) == 2 * 60 * 4
        counter = catalog.record_get("counter")
        assert counter is not None
        assert (counter.value, counter.revision) == (b"120", 120)
        assert catalog.check() == []


def test_a_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    writer = SCRIPTS.start(
        """
        catalog = open_catalog(sys.argv[1], writable=True)
        number = 0
        while True:
            publish(catalog, f"s{number}", "0123456789")
            say(number)
            number += 1
        """,
        tmp_path,
    )
    assert writer.stdout is not None
    acknowledged = 0
    for _ in range(40):
        acknowledged = int(writer.stdout.readline())
    writer.kill()
    finish(writer)
    with open_catalog(tmp_path, writable=True) as catalog:
        assert catalog.check() == []
        for number in range(acknowledged + 1):
            assert catalog.count(Query(scene=f"s{number}")) == 10
        counts = catalog.count(Query())
        assert counts % 10 == 0  # a scene is there whole or not at all
        assert _publish(catalog, "after", "01") == 2


# ---------------------------------------------------------------- fork


def test_a_forked_child_reads_on_and_cannot_write(tmp_path: Path) -> None:
    catalog = open_catalog(tmp_path, writable=True)
    _publish(catalog, "a", "01")
    assert catalog.count(Query()) == 2
    answer = catalog.query(Query(), batch_rows=1)
    next(answer)
    read_end, write_end = os.pipe()
    proceed_read, proceed_write = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        found: list[object] = []
        try:
            os.read(proceed_read, 1)
            found.append(catalog.count(Query()))
            found.append(sum(len(batch) for batch in answer))
            found.append(len(catalog.details(make_entry("dqc0", scene="a").meta.key).blocks))
            for change in (
                lambda: catalog.stage([make_entry()]),
                lambda: catalog.remove("id-s2"),
                lambda: catalog.record_compare_and_set("a", 0, b""),
            ):
                try:
                    change()
                    found.append("wrote")
                except ReadOnlyError as error:
                    found.append("fork" in str(error))
            with open_catalog(tmp_path, writable=False) as again:
                found.append(again.count(Query()))
            catalog.close()
        except BaseException as error:  # noqa: BLE001 - told to the parent
            found.append(repr(error))
        finally:
            os.write(write_end, json.dumps(found).encode())
            os._exit(0)
    _publish(catalog, "b", "345")  # the parent writes on, and the child follows
    os.write(proceed_write, b"x")
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        said = json.loads(pipe.read())
    os.waitpid(child, 0)
    for descriptor in (proceed_read, proceed_write):
        os.close(descriptor)
    assert said == [5, 1, 8, True, True, True, 5]
    assert catalog.count(Query()) == 5
    assert catalog.check() == []
    catalog.close()


# ---------------------------------------------------------------- failing disks


def test_a_full_disk_leaves_what_was_acknowledged(tmp_path: Path) -> None:
    printed = SCRIPTS.run(
        """
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        catalog = open_catalog(sys.argv[1], writable=True)
        publish(catalog, "first", "0123")
        size = (Path(sys.argv[1]) / "log" / "00000001.log").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100_000, resource.RLIM_INFINITY))
        try:
            catalog.stage([make_entry("dqcjq", scene=f"s{i}") for i in range(5000)])
        except StorageFullError as error:
            say("full", "nothing was changed" in str(error))
        say(catalog.count(Query()), len(catalog.staged()), catalog.check())
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        say(len(catalog.stage([make_entry("dqcjq", scene=f"s{i}") for i in range(5000)])))
        """,
        tmp_path,
    )
    assert printed.splitlines() == ["full True", "4 0 []", "5000"]
    with open_catalog(tmp_path, writable=False) as catalog:
        assert (catalog.count(Query()), len(catalog.staged())) == (4, 5000)


@pytest.mark.parametrize(
    ("call", "number", "expected", "goes_on"),
    [
        ("sync_data", errno.EIO, ReadOnlyError, False),
        ("sync_data", errno.ENOSPC, ReadOnlyError, False),
        ("pwritev", errno.EIO, ReadOnlyError, False),
        ("pwritev", errno.ENOSPC, StorageFullError, True),
        ("pwritev", errno.EDQUOT, StorageFullError, True),
    ],
)
def test_what_fails_on_the_disk_is_told_and_changes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    number: int,
    expected: type[Exception],
    goes_on: bool,
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with open_catalog(tmp_path, writable=True) as catalog:
        _publish(catalog, "a", "01")
        with monkeypatch.context() as patch:
            patch.setattr(LogDisk, call, fail)
            with pytest.raises(expected):
                _publish(catalog, "b", "23")
        assert catalog.count(Query()) == 2
        assert catalog.staged() == []
        if goes_on:
            _publish(catalog, "b", "23")
        else:
            with pytest.raises(ReadOnlyError, match="read-only since"):
                _publish(catalog, "b", "23")
            with pytest.raises(ReadOnlyError, match="read-only since"):
                catalog.record_compare_and_set("a", 0, b"")
        assert catalog.count(Query(scene="a")) == 2
    with open_catalog(tmp_path, writable=True) as catalog:  # opened again, it may try again
        _publish(catalog, "c", "4")
        assert catalog.check() == []


# ---------------------------------------------------------------- sharing


def test_a_directory_made_again_is_another_catalog(tmp_path: Path) -> None:
    old = open_catalog(tmp_path / "c", writable=True)
    _publish(old, "a", "01")
    shutil.rmtree(tmp_path / "c")
    new = open_catalog(tmp_path / "c", writable=True)
    assert new.count(Query()) == 0
    assert old.count(Query()) == 2  # the files live on while they are open
    if os.fork() == 0:  # pragma: no cover - another process
        os._exit(0)
    os.wait()
    assert old.count(Query()) == 2
    with pytest.raises(UnavailableError, match="another was put in its place"):
        _publish(old, "b", "01")
    assert new.count(Query()) == 0
    old.close()
    new.close()


def test_a_reader_opened_first_does_not_keep_the_writer_out(tmp_path: Path) -> None:
    open_catalog(tmp_path, writable=True).close()
    reader = open_catalog(tmp_path, writable=False)
    assert reader.count(Query()) == 0
    with open_catalog(tmp_path, writable=True) as writer:
        _publish(writer, "a", "01")
        assert reader.count(Query()) == 2
    with pytest.raises(ReadOnlyError):
        reader.record_compare_and_set("a", 0, b"")
    reader.close()
