from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geostore.errors import CorruptDataError, ReadOnlyError
from geostore.node.directory import StoreDirectory
from geostore.node.disk import Disk
from geostore.node.tile_files import (
    GAP_BYTES_MAX,
    RUN_BYTES_MAX,
    HandleCache,
    TileFiles,
    merge_runs,
)


@pytest.fixture
def directory(tmp_path: Path) -> StoreDirectory:
    directory = StoreDirectory(tmp_path / "store")
    directory.tiles.mkdir(parents=True)
    directory.tmp.mkdir()
    return directory


SPANS = st.lists(st.tuples(st.integers(0, 30_000), st.integers(1, 3000)), max_size=30)


@given(SPANS)
def test_runs_cover_every_span_and_bridge_small_gaps_only(spans: list[tuple[int, int]]) -> None:
    runs = merge_runs(spans)
    assert sorted(position for *_, members in runs for position in members) == list(
        range(len(spans))
    )
    end_before = None
    for start, size, members in runs:
        assert start == min(spans[p][0] for p in members)
        assert start + size == max(sum(spans[p]) for p in members)
        assert end_before is None or start - end_before > GAP_BYTES_MAX
        end_before = start + size


def test_runs_are_bounded() -> None:
    size = RUN_BYTES_MAX // 2
    runs = merge_runs([(i * size, size) for i in range(5)])
    assert [run[1] for run in runs] == [2 * size, 2 * size, size]
    assert merge_runs([(0, 3 * RUN_BYTES_MAX)]) == [(0, 3 * RUN_BYTES_MAX, [0])]


@given(spans=SPANS)
def test_spans_read_are_the_bytes_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, spans: list[tuple[int, int]]
) -> None:
    data = bytes(i * 31 % 251 for i in range(33_000))
    path = tmp_path_factory.getbasetemp() / "spans.bin"
    path.write_bytes(data)
    files = TileFiles(StoreDirectory(path.parent), Disk())
    views = files.read_spans(path, spans)
    assert [bytes(view) for view in views] == [data[o : o + n] for o, n in spans]
    files.close()


def test_a_batch_is_put_with_every_step_before_the_next_needs_it(
    directory: StoreDirectory,
) -> None:
    steps: list[str] = []
    files = TileFiles(directory, Disk(steps.append))
    target = directory.tiles / "d" / "0ab" / "x.zarr.zip"
    files.put([(target, b"one")])
    # The order that survives losing power: bytes, their sync, the name, its sync (the slot's
    # directory, the dataset's and the tiles', of which two are new).
    assert steps[:6] == [
        "put.write", "put.written", "put.fsync", "put.fsynced", "put.rename", "put.renamed",
    ]  # fmt: skip
    assert sorted(steps[6:]) == ["put.directory.fsync"] * 3 + ["put.directory.fsynced"] * 3
    assert target.read_bytes() == b"one"
    steps.clear()
    files.put([(target.with_name(f"{i}"), b"x") for i in range(6)])
    assert steps.count("put.fsynced") == 6
    assert steps.count("put.directory.fsynced") == 1, "once a batch and directory"
    assert max(i for i, s in enumerate(steps) if s == "put.fsynced") < steps.index("put.rename")
    assert list(directory.tmp.iterdir()) == []
    files.close()


@pytest.mark.parametrize("step", ["put.write", "put.written", "put.rename", "put.renamed"])
def test_a_batch_that_meets_a_full_disk_leaves_nothing(
    directory: StoreDirectory, step: str
) -> None:
    seen = []

    def full(name: str) -> None:
        seen.append(name)
        if name == step and seen.count(step) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    files = TileFiles(directory, Disk(full))
    batch = [(directory.tiles / "d" / "001" / f"{i}", b"data") for i in range(4)]
    with pytest.raises(OSError, match="space"):
        files.put(batch)
    assert [path for path in directory.root.rglob("*") if path.is_file()] == []
    files.put(batch)  # and it can be tried again
    assert len(list((directory.tiles / "d" / "001").iterdir())) == 4
    files.close()


def test_after_a_failed_fsync_nothing_more_is_written(directory: StoreDirectory) -> None:
    def broken(name: str) -> None:
        if name == "put.fsync":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    disk = Disk(broken)
    files = TileFiles(directory, disk)
    with pytest.raises(ReadOnlyError, match=r"went read-only: fsync of .* failed"):
        files.put([(directory.tiles / "x", b"data")])
    disk.step = lambda name: None
    with pytest.raises(ReadOnlyError, match="check the disk"):
        files.put([(directory.tiles / "x", b"data")])
    assert disk.failure is not None
    files.close()


def test_a_sync_that_finds_the_disk_full_is_no_broken_disk(directory: StoreDirectory) -> None:
    disk = Disk()
    files = TileFiles(directory, disk)

    def full(name: str) -> None:
        if name == "put.fsync":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    disk.step = full
    with pytest.raises(OSError, match="space"):
        files.put([(directory.tiles / "x", b"data")])
    assert disk.failure is None
    files.close()


def test_a_file_cut_short_or_missing(directory: StoreDirectory) -> None:
    path = directory.tiles / "x.zarr.zip"
    path.write_bytes(b"0123456789")
    files = TileFiles(directory, Disk())
    assert bytes(files.read_spans(path, [(2, 3)])[0]) == b"234"
    with pytest.raises(CorruptDataError, match=r"x\.zarr\.zip: ends at byte 10, expected 12"):
        files.read_spans(path, [(8, 4)])
    with pytest.raises(CorruptDataError, match="cut short"):
        files.read_spans(path, [(100, 4)])
    with pytest.raises(FileNotFoundError):
        files.read_spans(directory.tiles / "y", [(0, 1)])
    with pytest.raises(FileNotFoundError):
        files.read_spans(path / "below-a-file", [(0, 1)])
    files.close()


def test_the_handle_cache_is_bounded_and_keeps_what_is_in_use(tmp_path: Path) -> None:
    paths = [tmp_path / str(i) for i in range(6)]
    for path in paths:
        path.write_text(path.name)
    cache = HandleCache(handles_max=2)
    with cache.descriptor(paths[0]) as held:
        for path in paths[1:]:
            with cache.descriptor(path) as descriptor:
                assert os.pread(descriptor, 9, 0).decode() == path.name
        assert len(cache) == 2
        assert os.pread(held, 9, 0) == b"0", "evicted, but somebody reads from it"
    with pytest.raises(OSError):
        os.fstat(held)
    with cache.descriptor(paths[5]) as first, cache.descriptor(paths[5]) as second:
        assert first == second
        cache.clear()
        os.fstat(first)
    with pytest.raises(OSError):
        os.fstat(first)


def test_threads_share_the_handle_cache(tmp_path: Path) -> None:
    paths = [tmp_path / str(i) for i in range(20)]
    for path in paths:
        path.write_text(path.name.zfill(4))
    cache = HandleCache(handles_max=3)
    wrong: list[str] = []

    def read(seed: int) -> None:
        for i in range(400):
            path = paths[(i * seed) % len(paths)]
            with cache.descriptor(path) as descriptor:
                text = os.pread(descriptor, 4, 0).decode()
            if text != path.name.zfill(4):
                wrong.append(text)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in (1, 3, 7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache.clear()
    assert wrong == []
