from __future__ import annotations

import dataclasses
import errno
import json
import os
import runpy
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xxhash

from geostore.errors import (
    ConflictError,
    CorruptDataError,
    InvalidInputError,
    NotFoundError,
    ReadOnlyError,
    StorageFullError,
    StoreFormatError,
)
from geostore.node import Node, StoreDirectory
from geostore.query import Query
from geostore.ring import slot_of
from geostore.types import EncodedTile, SceneState

small = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "small_store.py")))
A = small.make_definition("a")
CELLS = small.CELLS


class Seam:
    """A step hook that fails one operation with an errno."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.number = errno.ENOSPC
        self.seen: list[str] = []

    def __call__(self, name: str) -> None:
        self.seen.append(name)
        if name == self.name:
            raise OSError(self.number, os.strerror(self.number))


@pytest.fixture
def seam() -> Seam:
    return Seam()


@pytest.fixture
def node(tmp_path: Path, seam: Seam) -> Iterator[Node]:
    with Node(tmp_path / "store", step=seam, now_us=lambda: 1_700_000_000_000_000) as node:
        node.create_dataset(A)
        yield node


def tile(scene: str = "s1", version: str = "v1", cell: str = CELLS[0]) -> EncodedTile:
    made: EncodedTile = small.make_tile(A, scene, version, cell)
    return made


def big_tile(size: int) -> EncodedTile:
    """A tile whose file is of `size` bytes more than it needs."""
    small_one = tile()
    payload = small_one.payload + np.random.default_rng(1).bytes(size)
    checksum = xxhash.xxh3_128_hexdigest(payload)
    return dataclasses.replace(small_one, payload=payload, checksum=checksum)


def files_of(node: Node) -> list[str]:
    return list(small.tile_files(node.directory.root))


# ---------------------------------------------------------------- opening


def test_a_store_is_made_with_its_layout(tmp_path: Path) -> None:
    with Node(tmp_path / "deep" / "store") as node:
        node.create_dataset(A)
        small.put_scene(node, A, "s1", "v1", CELLS[:1])
        value = json.loads((node.directory.root / "geostore.json").read_text())
        assert value["magic"] == "geostore store"
        assert value["format_version"] == 1
        assert value["store_id"] == node.identity.store_id
        (path,) = (node.directory.root / "tiles").rglob("*.zarr.zip")
        parts = path.relative_to(node.directory.tiles).parts
        assert parts[:2] == ("id-a", f"{slot_of(CELLS[0][:3]):03x}")
        assert parts[2].startswith(f"{CELLS[0]}.")
        assert len(parts[2]) == len(CELLS[0]) + 1 + 16 + len(".zarr.zip")
        store_id = node.identity.store_id
    with Node(tmp_path / "deep" / "store", mode="r") as again:
        assert again.identity.store_id == store_id


def test_nothing_there_is_no_store_to_read(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no store at"):
        Node(tmp_path / "absent", mode="r")
    with pytest.raises(NotFoundError, match="missing or empty"):
        Node(tmp_path, mode="r")
    assert list(tmp_path.iterdir()) == [], "reading makes nothing"


def test_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    for mode in ("a", "r"):
        with pytest.raises(StoreFormatError, match=r"not empty and has no geostore.json"):
            Node(tmp_path, mode=mode)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]
    with pytest.raises(StoreFormatError, match="not a geostore store"):
        Node(tmp_path / "holiday.jpg")
    with pytest.raises((StoreFormatError, InvalidInputError, ReadOnlyError)):
        Node(tmp_path / "holiday.jpg" / "store")
    with pytest.raises(InvalidInputError, match="mode 'w'"):
        Node(tmp_path, mode="w")  # type: ignore[arg-type]


def test_a_store_of_a_newer_format_names_both_versions(node: Node) -> None:
    root = node.directory.root
    node.close()
    value = json.loads((root / "geostore.json").read_text())
    (root / "geostore.json").write_text(json.dumps({**value, "format_version": 7}))
    for mode in ("a", "r"):
        with pytest.raises(StoreFormatError, match=r"version 7, this geostore reads up to 1"):
            Node(root, mode=mode)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"magic": "zarr", "format_version": 1}', "\0"])
def test_a_damaged_identity_is_named(node: Node, text: str) -> None:
    root = node.directory.root
    node.close()
    (root / "geostore.json").write_text(text)
    with pytest.raises(StoreFormatError, match=r"geostore\.json"):
        Node(root)


def test_a_store_without_its_catalog_says_how_to_rebuild(node: Node) -> None:
    root = node.directory.root
    node.close()
    (root / "catalog" / "log" / "00000001.log").unlink()
    for mode in ("a", "r"):
        with pytest.raises((CorruptDataError, StoreFormatError), match="verify --rebuild"):
            Node(root, mode=mode)
    shutil.rmtree(root / "catalog")
    for mode in ("a", "r"):
        with pytest.raises(CorruptDataError, match="verify --rebuild"):
            Node(root, mode=mode)
    assert not (root / "catalog").exists(), "no empty one was put in its place"


def test_a_closed_node_says_so_and_closes_twice(node: Node) -> None:
    node.close()
    node.close()
    with pytest.raises(InvalidInputError, match="is closed"):
        node.count(Query())
    with pytest.raises(InvalidInputError, match="is closed"):
        node.create_dataset(small.make_definition("b"))


def read_two_then_delete(root: Path) -> None:
    with Node(root) as reading:
        assert reading.count(Query()) == 2
        reading.delete_dataset("a")


def test_a_store_without_write_permission_is_read_or_says_why_not(node: Node) -> None:
    root = node.directory.root
    small.put_scene(node, A, "s1", "v1", CELLS[:2])
    node.close()
    everything = [root, *root.rglob("*")]
    modes = {path: path.stat().st_mode for path in everything}
    for path in reversed(everything):
        path.chmod(modes[path] & ~0o222)
    try:
        if os.access(root, os.W_OK):
            pytest.skip("file permissions do not bind this user (root)")
        # A reader must register in the catalog's lock file, which it may not here: whether
        # the catalog can do without is its own affair; never is it a traceback or a write.
        with pytest.raises(ReadOnlyError) as caught:
            read_two_then_delete(root)
        assert "permission" in str(caught.value) or "not written" in str(caught.value)
    finally:
        for path in everything:
            path.chmod(modes[path])


def test_a_store_on_read_only_media_is_read(tiny_disk: Path) -> None:
    with Node(tiny_disk / "store") as node:
        node.create_dataset(A)
        small.put_scene(node, A, "s1", "v1", CELLS[:2])
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    for mode in ("a", "r"):
        with Node(tiny_disk / "store", mode=mode) as reading:
            assert reading.count(Query()) == 2
            assert reading.read_blocks(tile().meta.key, [0])[0] is not None
            assert reading.verify().is_clean
            with pytest.raises(ReadOnlyError):
                reading.delete_dataset("a")
            if mode == "a":
                assert reading.status().read_only_reason is not None
    with pytest.raises(ReadOnlyError, match="creating store"):
        Node(tiny_disk / "another")


def test_a_lock_file_that_cannot_be_written_is_a_read_only_store(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = node.directory.root
    node.close()
    real_open = os.open

    def refuse(path: object, flags: int, mode: int = 0o777, **rest: object) -> int:
        if str(path).endswith("/lock"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real_open(path, flags, mode, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    with Node(root) as reading:
        assert reading.count(Query()) == 0
        with pytest.raises(ReadOnlyError, match="can be read but not written"):
            reading.create_dataset(small.make_definition("b"))


# ---------------------------------------------------------------- datasets


def test_datasets_are_made_completed_and_deleted(node: Node) -> None:
    open_ended = dataclasses.replace(
        small.make_definition("b"), groups=(), length=None, placement=None
    )
    node.create_dataset(open_ended)
    assert node.dataset("b") == open_ended
    with pytest.raises(ConflictError, match="complete its definition"):
        node.begin_scene(open_ended, "s", "v", [CELLS[0]])
    complete = small.make_definition("b")
    node.replace_dataset(open_ended, complete)
    with pytest.raises(ConflictError, match="changed meanwhile"):
        node.replace_dataset(open_ended, complete)
    assert [d.name for d in node.datasets()] == ["a", "b"]
    with pytest.raises(ConflictError, match="fixed"):
        node.replace_dataset(complete, dataclasses.replace(complete, placement=2))
    with pytest.raises(ConflictError, match="its id and name stay"):
        node.replace_dataset(complete, dataclasses.replace(complete, name="c"))
    with pytest.raises(NotFoundError, match=r"dataset 'x' does not exist; known: a, b"):
        node.dataset("x")
    with pytest.raises(NotFoundError, match="'x'"):
        node.delete_dataset("x")
    with pytest.raises(ConflictError, match="exists already"):
        node.create_dataset(small.make_definition("a", "id-other"))
    with pytest.raises(ConflictError, match="never returns"):
        node.create_dataset(small.make_definition("c", "id-a"))


def test_a_deleted_dataset_leaves_nothing_and_its_id_never_returns(node: Node) -> None:
    small.put_scene(node, A, "s1", "v1", CELLS[:3])
    node.begin_scene(A, "s2", "v1", CELLS)
    node.put_tiles([tile("s2")])
    assert node.delete_dataset("a") == 3
    assert files_of(node) == []
    assert node.count(Query()) == 0
    assert node.scene_record(A.id, "s1") is None
    assert list(node.directory.commits.rglob("*.json")) == []
    assert list(node.directory.tmp.iterdir()) == []
    with pytest.raises(ConflictError, match="no attempt"):
        node.put_tiles([tile("s2")])
    with pytest.raises(ConflictError, match="never returns"):
        node.create_dataset(A)
    with pytest.raises(NotFoundError):
        node.read_blocks(tile().meta.key, [0])
    again = small.make_definition("a", "id-a2")
    node.create_dataset(again)
    with pytest.raises(NotFoundError, match="created anew"):
        node.begin_scene(A, "s1", "v1", CELLS)
    small.put_scene(node, again, "s1", "v1", CELLS[:1])
    assert node.count(Query()) == 1
    assert node.verify().is_clean


def test_a_deletion_that_was_cut_short_can_be_called_again(node: Node, seam: Seam) -> None:
    small.put_scene(node, A, "s1", "v1", CELLS[:3])
    seam.name = "delete.tombstoned"
    with pytest.raises(StorageFullError):
        node.delete_dataset("a")
    seam.name = None
    assert node.delete_dataset("a") == 3
    assert node.datasets() == []
    assert files_of(node) == []


# ---------------------------------------------------------------- scenes


def test_a_scene_is_unseen_until_its_commit(node: Node) -> None:
    record = node.begin_scene(A, "s1", "v1", CELLS, path="/data/s1", reader="geotiff")
    assert record is not None
    assert record.state is SceneState.STAGING
    tiles = [tile(cell=cell) for cell in CELLS[:3]]
    assert node.put_tiles(tiles) == [t.checksum for t in tiles]
    assert node.count(Query()) == 0
    node.commit_scene(A.id, "s1", "v1", CELLS[:3], bytes_total=9, properties={"baseline": "N1"})
    assert node.count(Query()) == 3
    record = node.scene_record(A.id, "s1")
    assert record is not None
    assert record.state is SceneState.PUBLISHED
    assert (record.path, record.reader, record.bytes) == ("/data/s1", "geotiff", 9)
    assert record.properties == {"baseline": "N1"}
    assert record.committed_us == 1_700_000_000_000_000
    assert node.begin_scene(A, "s1", "v1", CELLS) is None, "unchanged"
    node.commit_scene(A.id, "s1", "v1", CELLS[:3], bytes_total=9)  # told twice


def test_a_put_is_acknowledged_with_what_is_stored(node: Node) -> None:
    node.begin_scene(A, "s1", "v1", CELLS)
    (first,) = node.put_tiles([tile()])
    other = big_tile(10)  # the same key with other bytes: the first one stays
    assert node.put_tiles([other, other, tile(cell=CELLS[1])]) == [
        first, first, tile(cell=CELLS[1]).checksum,
    ]  # fmt: skip
    node.commit_scene(A.id, "s1", "v1", CELLS[:2], bytes_total=1)
    assert node.details(tile().meta.key).checksum == tile().checksum
    assert node.put_tiles([]) == []


def test_beginning_again_goes_on(node: Node) -> None:
    node.begin_scene(A, "s1", "v1", CELLS[:1])
    node.put_tiles([tile()])
    record = node.begin_scene(A, "s1", "v1", CELLS[1:2])
    assert record is not None
    assert record.staging_cells == CELLS[:2]
    node.put_tiles([tile(cell=CELLS[1])])
    node.commit_scene(A.id, "s1", "v1", CELLS[:2], bytes_total=1)
    assert node.count(Query()) == 2


def test_another_version_takes_an_attempt_over(node: Node) -> None:
    node.begin_scene(A, "s1", "v1", CELLS)
    node.put_tiles([tile()])
    node.begin_scene(A, "s1", "v2", CELLS)
    assert files_of(node) == [], "what the first attempt left is cleared"
    for call in (
        lambda: node.put_tiles([tile()]),
        lambda: node.commit_scene(A.id, "s1", "v1", CELLS[:1], bytes_total=1),
    ):
        with pytest.raises(ConflictError, match="no attempt at version v1"):
            call()
    node.abort_scene(A.id, "s1", "v1")  # it has nothing to abort
    node.put_tiles([tile(version="v2")])
    node.commit_scene(A.id, "s1", "v2", CELLS[:1], bytes_total=1)
    assert node.verify().is_clean


def test_replacing_needs_to_be_asked_for_and_removes_the_rest(node: Node) -> None:
    small.put_scene(node, A, "s1", "v1", CELLS[:4])
    with pytest.raises(ConflictError, match="--replace"):
        small.put_scene(node, A, "s1", "v2", CELLS[:2])
    assert node.count(Query()) == 4
    old = tile(cell=CELLS[3]).meta.key
    small.put_scene(node, A, "s1", "v2", CELLS[:2], replace=True)
    assert small.seen(node) == {"a/s1": {"v2": list(CELLS[:2])}}
    assert len(files_of(node)) == 2
    with pytest.raises(NotFoundError):
        node.read_blocks(old, [0])
    assert node.verify().is_clean


def test_an_abort_leaves_what_was_served(node: Node) -> None:
    small.put_scene(node, A, "s1", "v1", CELLS[:2])
    before = node.scene_record(A.id, "s1")
    node.begin_scene(A, "s1", "v2", CELLS, replace=True, path="/other")
    node.put_tiles([tile(version="v2")])
    node.abort_scene(A.id, "s1", "v2")
    node.abort_scene(A.id, "s1", "v2")
    assert before is not None
    assert node.scene_record(A.id, "s1") == dataclasses.replace(before, attempt=2)
    assert small.seen(node) == {"a/s1": {"v1": list(CELLS[:2])}}
    node.begin_scene(A, "s2", "v1", CELLS)
    node.abort_scene(A.id, "s2", "v1")
    assert node.scene_record(A.id, "s2") is None
    assert node.verify().is_clean


def test_what_does_not_fit_an_attempt_is_refused(node: Node) -> None:
    node.begin_scene(A, "s1", "v1", CELLS[:2])
    with pytest.raises(InvalidInputError, match="was not announced"):
        node.put_tiles([tile(cell=CELLS[2])])
    node.put_tiles([tile()])
    with pytest.raises(ConflictError, match=r"1 of the 2 cells to commit were never put"):
        node.commit_scene(A.id, "s1", "v1", CELLS[:2], bytes_total=1)
    with pytest.raises(InvalidInputError, match="1 tiles were put that the commit leaves out"):
        node.commit_scene(A.id, "s1", "v1", [], bytes_total=1)
    with pytest.raises(InvalidInputError, match="does not have the checksum"):
        node.put_tiles([dataclasses.replace(tile(cell=CELLS[1]), payload=b"spoiled")])
    with pytest.raises(ConflictError, match="no attempt"):
        node.commit_scene(A.id, "s9", "v1", [], bytes_total=1)
    for cell in ("../../etc", "dq8x", "DQ8X0", "dq8x0/", ""):
        with pytest.raises(InvalidInputError, match="expected a geohash of 5"):
            node.begin_scene(A, "s2", "v1", [cell])
    with pytest.raises(InvalidInputError, match="scene id"):
        node.begin_scene(A, "a\nb", "v1", CELLS)
    with pytest.raises(InvalidInputError, match="scene version"):
        node.begin_scene(A, "s2", "", CELLS)
    changed = dataclasses.replace(A, placement=2)
    with pytest.raises(ConflictError, match="changed meanwhile"):
        node.begin_scene(changed, "s2", "v1", CELLS)


def test_scene_ids_are_text_not_paths(node: Node) -> None:
    for scene in ("../x", "a/b", "météo 2016.tif-0a1b2c3d"):
        small.put_scene(node, A, scene, "v1", CELLS[:1])
        assert node.scene_record(A.id, scene) is not None
    assert node.count(Query()) == 3
    assert {p.parent.parent.name for p in node.directory.tiles.rglob("*.zip")} == {"id-a"}


def test_threads_may_put_side_by_side(node: Node) -> None:
    node.begin_scene(A, "s1", "v1", CELLS)
    tiles = [tile(cell=cell) for cell in CELLS]
    told: dict[int, list[str]] = {}

    def put(number: int) -> None:
        told[number] = node.put_tiles(tiles[number:] + tiles[:number])

    threads = [threading.Thread(target=put, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, checksums in told.items():
        assert checksums == [t.checksum for t in tiles[number:] + tiles[:number]]
    node.commit_scene(A.id, "s1", "v1", CELLS, bytes_total=1)
    assert node.verify().is_clean


# ---------------------------------------------------------------- disks that fail


@pytest.mark.parametrize(
    "step",
    ["put.write", "put.fsync", "put.rename", "put.directory.fsync", "stage",
     "record.committed", "record.staging"],
)  # fmt: skip
def test_a_full_disk_fails_the_scene_and_nothing_else(node: Node, seam: Seam, step: str) -> None:
    small.put_scene(node, A, "s0", "v1", CELLS[:2])
    seam.name = step
    with pytest.raises(StorageFullError, match="free some space"):
        small.put_scene(node, A, "s1", "v1", CELLS[:3])
    seam.name = None
    node.abort_scene(A.id, "s1", "v1")
    assert len(files_of(node)) == 2
    assert node.verify().is_clean
    assert small.put_scene(node, A, "s1", "v1", CELLS[:3]) is not None
    assert node.count(Query()) == 5


def test_an_abort_with_no_room_for_its_record_makes_room_first(node: Node, seam: Seam) -> None:
    node.begin_scene(A, "s1", "v1", CELLS)
    node.put_tiles([tile()])
    real = node.catalog.record_compare_and_set
    room_after = []

    def full_while_files_lie_there(name: str, revision: int, value: bytes | None) -> int:
        if files_of(node):
            raise StorageFullError("catalog: the disk is full")
        room_after.append(name)
        return real(name, revision, value)

    node.catalog.record_compare_and_set = full_while_files_lie_there  # type: ignore[method-assign]
    node.abort_scene(A.id, "s1", "v1")
    assert room_after
    assert node.scene_record(A.id, "s1") is None
    assert node.verify().is_clean


def test_an_abort_that_failed_half_way_is_not_gone_on_with(node: Node) -> None:
    node.begin_scene(A, "s1", "v1", CELLS)
    node.put_tiles([tile()])
    real = node.catalog.record_compare_and_set

    def full(name: str, revision: int, value: bytes | None) -> int:
        raise StorageFullError("catalog: the disk is full")

    node.catalog.record_compare_and_set = full  # type: ignore[method-assign]
    with pytest.raises(StorageFullError):
        node.abort_scene(A.id, "s1", "v1")
    assert files_of(node) == [], "room was made, yet not enough"
    node.catalog.record_compare_and_set = real  # type: ignore[method-assign]
    node.begin_scene(A, "s1", "v1", CELLS)
    node.put_tiles([tile()])
    node.commit_scene(A.id, "s1", "v1", CELLS[:1], bytes_total=1)
    assert node.verify().is_clean, "the row of the first put did not stand in for its file"
    assert len(files_of(node)) == 1


def test_a_scene_that_was_decided_is_published_however_full_the_disk_was(
    node: Node, seam: Seam
) -> None:
    seam.name = "publish"
    with pytest.raises(StorageFullError):
        small.put_scene(node, A, "s1", "v1", CELLS[:3])
    node.abort_scene(A.id, "s1", "v1")  # comes too late, and does no harm
    seam.name = None
    assert node.begin_scene(A, "s1", "v1", CELLS) is None
    assert node.count(Query()) == 3


def test_a_failed_fsync_makes_the_node_read_only(node: Node, seam: Seam) -> None:
    small.put_scene(node, A, "s0", "v1", CELLS[:2])
    seam.name, seam.number = "put.fsync", errno.EIO
    with pytest.raises(ReadOnlyError, match="went read-only"):
        small.put_scene(node, A, "s1", "v1", CELLS[:3])
    seam.name = None
    for write in (
        lambda: node.abort_scene(A.id, "s1", "v1"),
        lambda: node.create_dataset(small.make_definition("b")),
        lambda: node.put_tiles([tile()]),
    ):
        with pytest.raises(ReadOnlyError, match="check the disk, then open it again"):
            write()
    assert node.count(Query()) == 2
    assert "fsync" in (node.status().read_only_reason or "")
    root = node.directory.root
    node.close()
    with Node(root, lock_now=True) as again:
        assert again.scene_record(A.id, "s1") is None
        assert small.put_scene(again, A, "s1", "v1", CELLS[:3]) is not None
        assert again.verify().is_clean


FULL_DISK = """
import resource, runpy, sys
from pathlib import Path
from types import SimpleNamespace
sys.path.insert(0, str(Path(sys.argv[1]).parent))
small = SimpleNamespace(**runpy.run_path(sys.argv[1]))
from geostore.errors import StorageFullError
from geostore.node import Node
from geostore.query import Query
import dataclasses, os, xxhash
tile = small.make_tile(small.A, "s1", "v1", small.CELLS[0])
payload = tile.payload + os.urandom(int(sys.argv[3]))
big = dataclasses.replace(
    tile, payload=payload, checksum=xxhash.xxh3_128_hexdigest(payload))
with Node(sys.argv[2]) as node:
    node.create_dataset(small.A)
    small.put_scene(node, small.A, "s0", "v1", small.CELLS[:2])
    if sys.argv[4] == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20))
    node.begin_scene(small.A, "s1", "v1", small.CELLS)
    try:
        node.put_tiles([big])
    except StorageFullError as error:
        print("full:", error)
    node.abort_scene(small.A.id, "s1", "v1")
    small.put_scene(node, small.A, "s2", "v1", small.CELLS[:1])
    assert node.verify().is_clean, node.verify()
    print(node.count(Query()), len(small.tile_files(Path(sys.argv[2]))))
"""


def _run_full(store: Path, size: int, how: str) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).parents[1] / "small_store.py"
    return subprocess.run(
        [sys.executable, "-c", FULL_DISK, script, store, str(size), how],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_a_real_file_size_limit_is_a_full_disk(tmp_path: Path) -> None:
    done = _run_full(tmp_path / "store", 4 << 20, "limit")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("full: writing to store")
    assert done.stdout.endswith("\n3 3\n")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    path = tmp_path / "tiny"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)]
    try:
        mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if mounted.returncode:
        pytest.skip(f"mounting a small file system is not permitted: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_real_full_disk_leaves_the_store_fine(tiny_disk: Path) -> None:
    done = _run_full(tiny_disk / "store", 3 << 20, "disk")
    assert done.returncode == 0, done.stderr
    assert "No space left on device" in done.stdout
    assert done.stdout.endswith("\n3 3\n")


# ---------------------------------------------------------------- reading


def test_blocks_come_as_they_were_stored_in_any_order(node: Node) -> None:
    small.put_scene(node, A, "s1", "v1", CELLS[:2])
    stored = tile()
    n = len(stored.blocks)
    for indices in ([0], [1, 0], list(range(n)), list(range(n))[::-1], [0, 0], []):
        found = node.read_blocks(stored.meta.key, indices)
        assert len(found) == len(indices)
        for index, block in zip(indices, found, strict=True):
            row = stored.blocks[index]
            if row["length"] == 0:
                assert block is None
            else:
                start = int(row["offset"])
                assert block == stored.payload[start : start + int(row["length"])]
    for indices in ([-1], [n], [0, n]):
        with pytest.raises(InvalidInputError, match=f"its block table has 0..{n - 1}"):
            node.read_blocks(stored.meta.key, indices)
    with pytest.raises(NotFoundError):
        node.read_blocks(tile(version="v9").meta.key, [0])
    with pytest.raises(NotFoundError):
        node.details(tile(cell=CELLS[4]).meta.key)


def test_a_missing_or_short_file_is_named(node: Node) -> None:
    small.put_scene(node, A, "s1", "v1", CELLS[:2])
    first, second = tile().meta.key, tile(cell=CELLS[1]).meta.key
    node.tile_path(first).unlink()
    with pytest.raises(CorruptDataError, match=rf"tile {CELLS[0]} of scene 's1': its file .* miss"):
        node.read_blocks(first, [0])
    os.truncate(node.tile_path(second), 100)
    with pytest.raises(CorruptDataError, match=rf"tile {CELLS[1]} of scene 's1': .*cut short"):
        node.read_blocks(second, [0])


def test_a_tile_that_was_read_and_then_replaced_or_deleted_says_so(node: Node) -> None:
    for version in ("v1", "v2"):
        small.put_scene(node, A, "s1", version, CELLS[:2], replace=True)
        assert node.read_blocks(tile(version=version).meta.key, [0])[0] is not None
    with pytest.raises(NotFoundError, match="replaced or deleted since it was queried"):
        node.read_blocks(tile(version="v1").meta.key, [0])
    node.delete_dataset("a")
    with pytest.raises(NotFoundError):
        node.read_blocks(tile(version="v2").meta.key, [0])


def test_status_counts(node: Node) -> None:
    small.put_scene(node, A, "s1", "v1", CELLS[:3])
    small.put_scene(node, A, "s2", "v1", CELLS[3:5])
    status = node.status()
    assert (status.datasets, status.scenes, status.tiles, status.slots_used) == (1, 2, 5, 2)
    assert status.bytes == sum(
        len(small.make_tile(A, s, "v1", c).payload)
        for s, cells in (("s1", CELLS[:3]), ("s2", CELLS[3:5]))
        for c in cells
    )
    assert status.is_writer
    assert status.read_only_reason is None
    assert status.disk_free_bytes > 0
    assert json.loads(json.dumps(status.to_json()))["format_version"] == 1


def test_a_starting_writer_reads_only_what_is_unsettled(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        small.put_scene(node, A, f"s{number}", "v1", CELLS[:1])
    node.begin_scene(A, "t", "v1", CELLS)
    root = node.directory.root
    node.close()
    decoded: list[str] = []
    from geostore.node import lone_home

    real: Callable[[str, bytes], object] = lone_home.decode_scene

    def counted(name: str, data: bytes) -> object:
        decoded.append(name)
        return real(name, data)

    monkeypatch.setattr(lone_home, "decode_scene", counted)
    with Node(root, lock_now=True) as again:
        assert set(decoded) == {"scene/id-a/t"}
        assert again.scene_record(A.id, "t") is None


def test_a_directory_computes_paths_from_keys_alone(tmp_path: Path) -> None:
    directory = StoreDirectory(tmp_path)
    key = tile().meta.key
    assert directory.tile_file(key, 3) == directory.tile_file(key, 3)
    assert directory.tile_file(key, 3).parent != directory.tile_file(key, 5).parent
    other = dataclasses.replace(key, version="v2")
    assert directory.tile_file(key, 3).name != directory.tile_file(other, 3).name
    # "a" + "bc" is another scene and version than "ab" + "c".
    one = directory.tile_file(dataclasses.replace(key, scene="a", version="bc"), 3)
    two = directory.tile_file(dataclasses.replace(key, scene="ab", version="c"), 3)
    assert one.name != two.name
