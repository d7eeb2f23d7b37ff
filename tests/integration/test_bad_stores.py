"""Stores that cannot be used, disks that are full, and runs that are cut short.

Processes are real, and so are signals, locks and full disks; where one strikes is steered by
named steps (steered_cli.py), never by time.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import geostore
from geostore.errors import NotFoundError, StorageFullError, StoreFormatError, StoreLockedError
from tests.integration.stocked_store import Ran, SteeredRun, StockedStore, check_one_error

STEPS = [
    "decode", "record.staging", "record.staging.saved", "put.write", "put.renamed", "staged",
    "record.committed", "record.committed.saved", "publish",
]  # fmt: skip


@pytest.fixture
def second(make_raster: Callable[..., Path]) -> Path:
    """Another scene: four tiles that hardly compress, 860 kB in all."""
    data = np.random.default_rng(11).integers(1, 2**16, (1, 480, 640)).astype("uint16")
    return make_raster("second.tif", data, nodata=0)


# ---------------------------------------------------------------- stores


def set_version(store: Path, version: object) -> None:
    file = store / "geostore.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format_version": version}))


def test_a_store_of_a_newer_format_version(stocked: StockedStore, second: Path) -> None:
    content = sorted(stocked.path.rglob("*"))
    set_version(stocked.path, 99)
    says = ("store", str(stocked.path), "format version 99", "up to 1", "upgrade geostore")
    for words in (
        ("query",), ("ingest", second), ("status",), ("verify",), ("verify", "--rebuild"),
        ("dataset", "list"), ("dataset", "delete", "geotiff"), ("export", "--out", "out"),
    ):  # fmt: skip
        ran = stocked.run(*words, code=None)
        check_one_error(ran, 1, says)
        assert ran.stdout == ""
    with pytest.raises(StoreFormatError, match="format version 99"):
        geostore.open(stocked.path)
    assert sorted(stocked.path.rglob("*")) == content
    set_version(stocked.path, 1)
    stocked.check_unharmed()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"magic": "other"}', '{"format_version": "x"}'])
def test_a_store_whose_identity_is_damaged(stocked: StockedStore, text: str) -> None:
    file = stocked.path / "geostore.json"
    whole = file.read_text()
    file.write_text(text)
    check_one_error(stocked.run("query", code=None), 1, ("geostore.json",))
    file.write_text(whole)
    stocked.check_unharmed()


def test_a_store_whose_catalog_is_gone(stocked: StockedStore) -> None:
    shutil.rmtree(stocked.path / "catalog")
    check_one_error(stocked.run("query", code=None), 1, ("catalog", "verify --rebuild"))
    stocked.run("verify", "--rebuild")
    stocked.check_unharmed()


def test_a_damaged_tile_is_named(stocked: StockedStore) -> None:
    (tile,) = (stocked.path / "tiles").rglob("*.zip")
    data = bytearray(tile.read_bytes())
    data[len(data) // 3] ^= 1
    tile.write_bytes(data)
    ran = stocked.run("verify", code=1)
    assert tile.name in ran.stderr
    assert "Traceback" not in ran.stderr
    ran = stocked.run("export", "--out", stocked.path.parent / "out", code=None)
    check_one_error(ran, 1, ("checksum",))
    assert not (stocked.path.parent / "out").exists()


class TestNoStore:
    """Where there is none, or something else: named, and never written to."""

    @pytest.mark.parametrize("command", ["query", "status", "verify"])
    def test_nowhere(self, stocked: StockedStore, tmp_path: Path, command: str) -> None:
        place = tmp_path / "nowhere"
        check_one_error(
            stocked.run(command, "--store", place, code=None), 1, (f"no store at {place}",)
        )
        assert not place.exists()
        with pytest.raises(NotFoundError, match="no store at"):
            geostore.open(place, mode="r")

    def test_an_empty_directory(self, stocked: StockedStore, tmp_path: Path) -> None:
        place = tmp_path / "empty"
        place.mkdir()
        check_one_error(stocked.run("query", "--store", place, code=None), 1, ("no store at",))
        assert list(place.iterdir()) == []

    @pytest.mark.parametrize("command", ["query", "ingest"])
    def test_something_else(
        self, stocked: StockedStore, tmp_path: Path, second: Path, command: str
    ) -> None:
        place = tmp_path / "other"
        place.mkdir()
        (place / "precious.txt").write_text("mine")
        words = [command, *([second] if command == "ingest" else [])]
        for target in (place, place / "precious.txt"):
            ran = stocked.run(*words, "--store", target, code=None)
            check_one_error(ran, 1, (str(target), "not a geostore store"))
        assert [path.name for path in place.iterdir()] == ["precious.txt"]
        assert (place / "precious.txt").read_text() == "mine"

    def test_a_store_without_scenes(self, stocked: StockedStore, tmp_path: Path) -> None:
        place = ("--store", tmp_path / "new")
        stocked.run("dataset", "create", "a", *place)
        assert stocked.run("query", *place).stdout == ""
        assert stocked.run("query", "--count", *place).stdout == "0\n"
        ran = stocked.run("export", "--out", tmp_path / "out", *place, code=None)
        check_one_error(ran, 1, ("nothing to export",))


# ---------------------------------------------------------------- a second writer


def test_a_second_writer_is_told_who_writes(
    stocked: StockedStore, second: Path, make_raster: Callable[..., Path]
) -> None:
    thirds = [make_raster(f"third-{n}.tif", np.full((1, 64, 64), n, "uint8")) for n in (1, 2)]
    with SteeredRun(stocked, "put.write", "ingest", second) as first:
        first.wait_until_there()
        says = (str(stocked.path), f"process {first.process.pid}", f"kill {first.process.pid}")
        for words in (("dataset", "create", "x"), ("verify", "--rebuild")):
            check_one_error(stocked.process(*words), 1, says)
        with (
            geostore.open(stocked.path) as store,
            pytest.raises(StoreLockedError, match="is being written by process"),
        ):
            store.create_dataset("x")
        # Another ingest waits for its turn, and says so.
        waiting = stocked.start("ingest", *thirds)
        try:
            said = waiting.stderr.readline()
            assert "waits" in said, said
            for text in says[:2]:
                assert text in said
            # Reading works beside, and sees nothing unfinished.
            assert stocked.run("query").lines == stocked.rows
            assert waiting.poll() is None
            first.go_on()
            assert first.end().lines[0]["status"] == "ingested"
            stdout, stderr = waiting.communicate(timeout=60)
        finally:
            waiting.kill()
            waiting.wait()
        assert waiting.returncode == 0, stderr
        assert stdout.count('"ingested"') == 2
    stocked.check_unharmed(others=3)


def test_an_ingest_that_waits_for_another_can_be_interrupted(
    stocked: StockedStore, second: Path, make_raster: Callable[..., Path]
) -> None:
    third = make_raster("third.tif", np.full((1, 64, 64), 1, "uint8"))
    with SteeredRun(stocked, "put.write", "ingest", second) as first:
        first.wait_until_there()
        waiting = stocked.start("ingest", third)
        try:
            assert "waits" in waiting.stderr.readline()
            waiting.send_signal(signal.SIGINT)
            _, stderr = waiting.communicate(timeout=60)
        finally:
            waiting.kill()
            waiting.wait()
        assert waiting.returncode == 130
        assert "interrupted" in stderr
        first.go_on()
        assert first.end().lines[0]["status"] == "ingested"
    stocked.check_unharmed(others=1)


# ---------------------------------------------------------------- Ctrl-C and kill


@pytest.mark.parametrize("step", STEPS)
def test_ctrl_c(stocked: StockedStore, second: Path, step: str) -> None:
    with SteeredRun(stocked, step, "ingest", second, "--workers", "2") as run:
        run.wait_until_there()
        run.process.send_signal(signal.SIGINT)
        run.wait_until_there()  # until it has arrived
        run.go_on()
        ran = run.end()
    assert ran.code == 130, ran
    assert ran.stdout == ""
    assert ran.stderr.startswith("geostore: interrupted: ")
    assert ran.stderr.count("\n") == 1
    # A commit that has begun is ended: the scene is there, whole, and said to be so.
    is_stored = step in ("record.committed", "record.committed.saved", "publish")
    stocked.check_unharmed(others=int(is_stored))
    (line,) = stocked.run("ingest", second).lines
    assert line["status"] == ("unchanged" if is_stored else "ingested")
    stocked.check_unharmed(others=1)


@pytest.mark.parametrize("step", STEPS)
def test_killed(stocked: StockedStore, second: Path, step: str) -> None:
    with SteeredRun(stocked, step, "ingest", second, "--workers", "2") as run:
        run.wait_until_there()
        run.process.kill()
        assert run.end().code == -signal.SIGKILL
    # Before anybody repairs: nothing half is seen, and reading works.
    assert stocked.run("query").lines == stocked.rows
    (report,) = stocked.run("verify").lines
    assert report["problems"] == []
    # The next writer completes or clears what was begun.
    (line,) = stocked.run("ingest", second).lines
    assert line["status"] in ("ingested", "unchanged")
    stocked.check_unharmed(others=1)


# ---------------------------------------------------------------- full disks


# Set by a process of its own: what runs between a fork and an exec shares this one's gRPC.
LIMITED = """\
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


@pytest.mark.parametrize("size", [1, 4096, 40_000])
def test_files_may_not_grow(stocked: StockedStore, second: Path, size: int) -> None:
    """A process whose files may have `size` bytes: catalog and tiles are larger."""
    ran = stocked.process("ingest", second, before=["-c", LIMITED, str(size)])
    check_one_error(ran, 1, (os.strerror(errno.EFBIG),))
    stocked.run("dataset", "list")
    stocked.check_takes_scenes(second)


MOUNT = 'mount -t tmpfs -o size="$1" none "$2" && shift 2 && exec "$@"'


def in_small_disk(size: str, place: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Runs a command where `place` is a fresh disk of `size`, gone with the command.

    Skips where the system lets nobody mount, not even in a namespace of their own.
    """
    for unshare in (["unshare", "--mount"], ["unshare", "--mount", "--map-root-user"]):
        if shutil.which("unshare") is None:
            pytest.skip("needs unshare(1) for a small disk of its own")
        command = [*unshare, "sh", "-c", MOUNT, "sh", size, str(place)]
        tried = subprocess.run([*command, "true"], check=False, capture_output=True, text=True)
        if tried.returncode == 0:
            return subprocess.run(
                [*command, *map(str, words)],
                check=False, capture_output=True, text=True, timeout=120,
            )  # fmt: skip
    pytest.skip(f"may not mount a small disk here: {tried.stderr.strip()}")


FILL = """\
import os, shutil, subprocess, sys
from pathlib import Path

store, disk, out, left, *command = sys.argv[1:]
there = Path(shutil.copytree(store, Path(disk) / "store"))
stat = os.statvfs(disk)
ballast = Path(disk) / "ballast"
ballast.write_bytes(bytes(stat.f_bavail * stat.f_frsize - int(left)))
done = subprocess.run([*command, "--store", str(there)], capture_output=True)
Path(out, "stdout").write_bytes(done.stdout)
Path(out, "stderr").write_bytes(done.stderr)
shutil.copytree(there, Path(out) / "full")
ballast.unlink()
again = subprocess.run([*command, "--store", str(there)])
shutil.copytree(there, Path(out) / "again")
Path(out, "codes").write_text(f"{done.returncode} {again.returncode}")
"""


@pytest.mark.parametrize("left", [0, 8192, 100_000, 250_000])
def test_a_full_disk(stocked: StockedStore, second: Path, tmp_path: Path, left: int) -> None:
    disk, out = tmp_path / "disk", tmp_path / "out"
    disk.mkdir()
    out.mkdir()
    ingest = (sys.executable, "-m", "geostore_cli", "ingest", second)
    done = in_small_disk(
        "8m", disk, sys.executable, "-c", FILL, stocked.path, disk, out, left, *ingest
    )
    assert done.returncode == 0, done.stderr
    code, code_again = map(int, (out / "codes").read_text().split())
    ran = Ran(code, (out / "stdout").read_text(), (out / "stderr").read_text())
    check_one_error(ran, 1, (os.strerror(errno.ENOSPC),))
    stocked.path = out / "full"
    stocked.check_unharmed()
    # With room again the same command completes.
    assert code_again == 0
    stocked.path = out / "again"
    stocked.check_unharmed(others=1)


def test_a_full_disk_in_python_is_an_error_of_its_own(
    stocked: StockedStore, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(descriptor: int, data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with geostore.open(stocked.path) as store:
        with monkeypatch.context() as patched:
            patched.setattr("geostore.node.disk.os.write", write)
            with pytest.raises(StorageFullError, match="free some space"):
                store.ingest(second)
        # The same open store goes on once there is room.
        (result,) = store.ingest(second)
        assert result.status == "ingested"
    stocked.check_unharmed(others=1)
