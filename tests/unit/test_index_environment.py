"""The LMDB file under a catalog: what it survives, and what it refuses."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import lmdb
import pytest

from geostore.errors import (
    CorruptDataError,
    ReadOnlyError,
    StorageFullError,
    StoreFormatError,
    UnavailableError,
)
from geostore.index import LmdbCatalog, open_catalog
from geostore.index.environment import Environment
from geostore.query import Query
from tests.synthetic_tiles import make_entry

REPOSITORY = Path(__file__).resolve().parents[2]


def _script(code: str, *arguments: object) -> list[str]:
    head = """
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
    text = textwrap.dedent(head) + textwrap.dedent(code)
    return [sys.executable, "-W", "error", "-c", text, *map(str, arguments)]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def _run(code: str, *arguments: object) -> str:
    done = subprocess.run(
        _script(code, *arguments),
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _start(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        _script(code, *arguments),
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _say(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(word + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    process.wait(30)


def _publish(catalog: LmdbCatalog, scene: str, cells: str, version: str = "v1") -> int:
    catalog.stage([make_entry(f"dqc{cell}", scene=scene, version=version) for cell in cells])
    return catalog.publish("id-s2", scene, version)


# ---------------------------------------------------------------- damaged and foreign files


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("content", [b"garbage" * 5000, bytes(9000), b"x"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes, writable: bool) -> None:
    (tmp_path / "data.mdb").write_bytes(content)
    with pytest.raises(StoreFormatError, match=r"data\.mdb is no LMDB file"):
        open_catalog(tmp_path, writable=writable)
    assert (tmp_path / "data.mdb").read_bytes() == content


@pytest.mark.parametrize("writable", [True, False])
def test_an_lmdb_file_of_another_program_is_refused(tmp_path: Path, writable: bool) -> None:
    with lmdb.open(str(tmp_path)) as environment, environment.begin(write=True) as txn:
        txn.put(b"something", b"else")
    with pytest.raises(StoreFormatError, match="no geostore catalog"):
        open_catalog(tmp_path, writable=writable)


def _set_format(directory: Path, text: bytes) -> None:
    open_catalog(directory, writable=True).close()
    with lmdb.open(str(directory), max_dbs=32) as environment:
        meta = environment.open_db(b"meta")
        with environment.begin(write=True) as txn:
            txn.put(b"format", text, db=meta)


@pytest.mark.parametrize("writable", [True, False])
def test_a_newer_format_is_refused(tmp_path: Path, writable: bool) -> None:
    _set_format(tmp_path, json.dumps({"name": "geostore catalog", "version": 2}).encode())
    with pytest.raises(StoreFormatError, match=r"version 2; .* up to version 1: install a newer"):
        open_catalog(tmp_path, writable=writable)


def test_a_damaged_format_entry_is_named(tmp_path: Path) -> None:
    _set_format(tmp_path, b"\xff{")
    with pytest.raises(CorruptDataError, match="format entry does not read"):
        open_catalog(tmp_path, writable=False)


def test_a_file_cut_in_half_is_refused(tmp_path: Path) -> None:
    with open_catalog(tmp_path, writable=True) as catalog:
        catalog.rebuild(make_entry("dqcjq", scene=f"s{i}") for i in range(1000))
    os.truncate(tmp_path / "data.mdb", (tmp_path / "data.mdb").stat().st_size // 2)
    for writable in (True, False):
        with pytest.raises(CorruptDataError, match=r"cut short; rebuild the catalog"):
            open_catalog(tmp_path, writable=writable)


def test_a_file_with_pages_missing_never_kills_the_process(tmp_path: Path) -> None:
    with open_catalog(tmp_path / "whole", writable=True) as catalog:
        catalog.rebuild(make_entry("dqcjq", scene=f"s{i}") for i in range(300))
    printed = _run(
        """
        import shutil
        whole = Path(sys.argv[1]) / "whole"
        size = (whole / "data.mdb").stat().st_size
        outcomes = set()
        for pages in (1, 2, 5, 20, 50, 60):
            cut = whole.with_name(f"cut{pages}")
            shutil.copytree(whole, cut)
            os.truncate(cut / "data.mdb", size - 4096 * pages + 100)
            try:
                with open_catalog(cut, writable=False) as catalog:
                    if catalog.check() == [] and catalog.count(Query()) == 300:
                        outcomes.add("whole")
                    else:
                        outcomes.add("found")
            except GeostoreError as error:
                outcomes.add(error.code)
        say(*sorted(outcomes))
        """,
        tmp_path,
    )
    # Whole where the pages were free ones; never a wrong answer, a crash or another error.
    outcomes = set(printed.split())
    assert outcomes <= {"whole", "found", "corrupt_data", "store_format"}
    assert outcomes & {"found", "corrupt_data"}


@pytest.mark.parametrize("where", ["middle", "all"])
def test_flipped_bytes_are_found_not_served(tmp_path: Path, where: str) -> None:
    with open_catalog(tmp_path, writable=True) as catalog:
        catalog.rebuild(make_entry("dqcjq", scene=f"s{i:03}") for i in range(200))
    printed = _run(
        """
        path = Path(sys.argv[1]) / "data.mdb"
        data = bytearray(path.read_bytes())
        keys = [make_entry("dqcjq", scene=f"s{i:03}").meta.key for i in range(200)]
        # In values only: what XXH3 guards. LMDB's own pages have no checksum.
        spots = [i for i in range(len(data)) if data.startswith(b"dqcjq" + bytes(20), i)]
        chosen = spots if sys.argv[2] == "all" else spots[len(spots) // 2 :][:1]
        for spot in chosen:
            data[spot + 40] ^= 0x10
        path.write_bytes(data)
        with open_catalog(path.parent, writable=False) as catalog:
            try:
                catalog.count(Query())
                say("served")
            except CorruptDataError as error:
                say("corrupt", error)
        """,
        tmp_path,
        where,
    )
    assert printed.startswith("corrupt catalog: a row does not match its checksum")


# ---------------------------------------------------------------- growth


def test_the_map_grows_here_and_in_followers(tmp_path: Path) -> None:
    writer = open_catalog(tmp_path, writable=True, map_bytes=1 << 20)
    follower = _start(
        """
        catalog = open_catalog(sys.argv[1], writable=False, map_bytes=1 << 20)
        for line in sys.stdin:
            say(catalog.count(Query()), len(catalog.details(
                make_entry("dqc0", scene="first").meta.key).blocks))
        """,
        tmp_path,
    )
    try:
        _publish(writer, "first", "0123")
        assert _say(follower, "count") == "4 8"
        entries = [make_entry("dqcjq", scene=f"s{i}", histogram=True) for i in range(3000)]
        writer.stage(entries)  # one transaction of several times the map
        for entry in entries[:20]:
            writer.publish("id-s2", entry.meta.key.scene, "v1")
        assert writer._environment.info()["map_size"] > 4 << 20
        assert _say(follower, "count") == "24 8"
        assert writer.check() == []
    finally:
        _end(follower)
        writer.close()


# ---------------------------------------------------------------- followers in other processes


def test_a_reader_process_follows_everything_the_writer_does(tmp_path: Path) -> None:
    with open_catalog(tmp_path, writable=True) as writer:
        follower = _start(
            """
            catalog = open_catalog(sys.argv[1], writable=False)
            for line in sys.stdin:
                versions = [v for batch in catalog.query(Query()) for v in batch.version.tolist()]
                say(*sorted(versions), *catalog.check(), *catalog.record_names())
            """,
            tmp_path,
        )
        try:
            assert _say(follower, "empty") == ""
            _publish(writer, "a", "01")
            assert _say(follower, "published") == "v1 v1"
            writer.stage([make_entry("dqc5", scene="a", version="v2")])
            assert _say(follower, "staged") == "v1 v1"
            writer.publish("id-s2", "a", "v2", "v1")
            assert _say(follower, "replaced") == "v2"
            writer.record_compare_and_set("dataset/s2", 0, b"")
            assert _say(follower, "record") == "v2 dataset/s2"
            writer.rebuild([make_entry("dqc7", version="v3"), make_entry("dqc8", version="v3")])
            assert _say(follower, "rebuilt") == "v3 v3 dataset/s2"
            writer.remove("id-s2")
            _publish(writer, "b", "9", "v4")
            writer.remove("id-s2", "b")  # came and went between two looks
            assert _say(follower, "removed") == "dataset/s2"
        finally:
            _end(follower)


def test_a_killed_reader_does_not_hold_its_slot(tmp_path: Path) -> None:
    with open_catalog(tmp_path, writable=True) as writer:
        _publish(writer, "a", "01")
        reader = _start(
            """
            catalog = open_catalog(sys.argv[1], writable=False)
            with catalog._environment.read():
                say("reading")
                sys.stdin.readline()
            """,
            tmp_path,
        )
        assert reader.stdout is not None
        assert reader.stdout.readline().strip() == "reading"
        assert str(reader.pid) in _readers(writer)
        reader.kill()
        _end(reader)
    with open_catalog(tmp_path, writable=True) as writer:
        assert str(reader.pid) not in _readers(writer)
        assert writer.count(Query()) == 2


def _readers(catalog: LmdbCatalog) -> list[str]:
    environment = catalog._environment._lmdb
    assert environment is not None
    return environment.readers().split()


def test_a_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    writer = _start(
        """
        catalog = open_catalog(sys.argv[1], writable=True, map_bytes=1 << 20)
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
    _end(writer)
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
    printed = _run(
        """
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        catalog = open_catalog(sys.argv[1], writable=True)
        publish(catalog, "first", "0123")
        size = (Path(sys.argv[1]) / "data.mdb").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100_000, resource.RLIM_INFINITY))
        try:
            catalog.stage([make_entry("dqcjq", scene=f"s{i}") for i in range(5000)])
        except StorageFullError as error:
            say("full", "the disk is full" in str(error))
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
    ("number", "expected", "goes_on"),
    [
        (errno.EIO, ReadOnlyError, False),
        (errno.ENOSPC, StorageFullError, True),
        (errno.EDQUOT, StorageFullError, True),
    ],
)
def test_the_first_failed_fsync_makes_it_read_only(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    expected: type[Exception],
    goes_on: bool,
) -> None:
    def fail(self: Environment, txn: lmdb.Transaction[bytes]) -> None:
        raise lmdb.Error(f"mdb_txn_commit: {os.strerror(number)}", number)

    with open_catalog(tmp_path, writable=True) as catalog:
        _publish(catalog, "a", "01")
        with monkeypatch.context() as patch:
            patch.setattr(Environment, "_commit", fail)
            with pytest.raises(expected):
                _publish(catalog, "b", "23")
        if goes_on:
            _publish(catalog, "b", "23")
        else:
            with pytest.raises(ReadOnlyError, match="read-only since a write failed"):
                _publish(catalog, "b", "23")
            with pytest.raises(ReadOnlyError, match="read-only since a write failed"):
                catalog.record_compare_and_set("a", 0, b"")
        assert catalog.count(Query(scene="a")) == 2
        assert catalog.check() == []
    with open_catalog(tmp_path, writable=True) as catalog:  # opened again, it may try again
        _publish(catalog, "c", "4")


# ---------------------------------------------------------------- sharing


def test_a_directory_made_again_is_another_catalog(tmp_path: Path) -> None:
    old = open_catalog(tmp_path / "c", writable=True)
    _publish(old, "a", "01")
    shutil.rmtree(tmp_path / "c")
    new = open_catalog(tmp_path / "c", writable=True)
    assert new.count(Query()) == 0
    assert old.count(Query()) == 2  # the file lives on while it is open
    if os.fork() == 0:  # pragma: no cover - another process
        os._exit(0)
    os.wait()
    # A fork closes and reopens: the old one must not take the new one's file for its own.
    with pytest.raises(UnavailableError, match="another was put in its place"):
        old.count(Query())
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
