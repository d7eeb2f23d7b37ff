"""Checking a store, and making its catalog anew."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from geostore.backends import open_embedded, rebuild_embedded
from geostore.errors import (
    ConflictError,
    CorruptDataError,
    GeostoreError,
    NotFoundError,
    StoreFormatError,
    StoreLockedError,
)
from geostore.node import Node, ProblemKind, VerifyReport, rebuild_store
from geostore.query import Query
from geostore.types import TileKey

small = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "small_store.py")))
A, B = small.make_definition("a"), small.make_definition("b")
CELLS = small.CELLS


def fill(node: Node) -> None:
    """Two datasets, three scenes of which one was replaced, one attempt, one dataset deleted."""
    for definition in (A, B, small.make_definition("c")):
        node.create_dataset(definition)
    small.put_scene(node, A, "s1", "v1", CELLS[:4])
    small.put_scene(node, A, "s1", "v2", CELLS[:3], replace=True)
    small.put_scene(node, A, "s2", "v1", CELLS[2:5])
    small.put_scene(node, B, "s1", "v1", CELLS[:2])
    small.put_scene(node, small.make_definition("c"), "s1", "v1", CELLS[:2])
    node.delete_dataset("c")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with Node(tmp_path / "store") as node:
        fill(node)
    return tmp_path / "store"


@pytest.fixture
def node(root: Path) -> Iterator[Node]:
    with Node(root) as node:
        yield node


def rows(node: Node) -> list[object]:
    """All that a query answers, but for the row ids."""
    return [
        (row.key, row.dataset, row.schema, row.time, row.platform, row.bytes, row.pixel_coverage)
        for batch in node.query(Query())
        for row in batch.rows()
    ]


def state(node: Node) -> object:
    """All that a store answers."""
    keys = [key for key, *_ in rows(node)]  # type: ignore[misc]
    details = [node.details(key) for key in keys]
    records = [node.scene_record(d.id, s) for d in (A, B) for s in ("s1", "s2", "s3")]
    return (
        rows(node),
        [(d.checksum, d.statistics, d.properties, d.blocks.tolist()) for d in details],
        node.datasets(),
        records,
    )


def kinds(report: VerifyReport) -> list[ProblemKind]:
    return sorted(problem.kind for problem in report.problems)


# ---------------------------------------------------------------- verify


def test_a_sound_store_is_clean(node: Node) -> None:
    told: list[tuple[int, int]] = []
    report = node.verify(lambda done, total: told.append((done, total)))
    assert report.is_clean, report
    assert report.tiles == 8
    assert report.bytes == sum(p.stat().st_size for p in node.directory.tiles.rglob("*.zip"))
    assert told[-1] == (8, 8)
    assert report.to_json()["problems"] == []


def test_verify_finds_each_kind_of_damage(node: Node) -> None:
    keys = [key for key, *_ in rows(node)]  # type: ignore[misc]
    flipped, short, missing = (node.tile_path(key) for key in keys[:3])
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    short.write_bytes(short.read_bytes()[:-1])
    missing.unlink()
    shutil.copy(node.tile_path(keys[3]), node.tile_path(keys[3]).with_name("copy.zarr.zip"))
    (node.directory.tiles / "stray.txt").write_text("x")
    report = node.verify()
    assert kinds(report) == sorted(
        [ProblemKind.CORRUPT] * 2 + [ProblemKind.MISSING] + [ProblemKind.ORPHAN] * 2
    )
    paths = {problem.path for problem in report.problems}
    assert paths >= {str(flipped), str(short), str(missing)}
    assert report.tiles == 5


def test_a_file_under_another_tiles_name_is_found(node: Node) -> None:
    first, second = (node.tile_path(key) for key, *_ in rows(node)[:2])  # type: ignore[misc]
    shutil.copy(first, second)
    (problem,) = node.verify().problems
    assert (problem.kind, problem.path) == (ProblemKind.CORRUPT, str(second))


def test_records_and_rows_that_disagree_are_found(node: Node) -> None:
    node.catalog.remove(B.id, "s1")
    for name in node.catalog.record_names("scene/id-a/s2"):
        record = node.catalog.record_get(name)
        assert record is not None
        node.catalog.record_compare_and_set(name, record.revision, None)
    report = node.verify()
    assert ProblemKind.RECORD in kinds(report)
    texts = "\n".join(map(str, report.problems))
    assert "its record lists 2 tiles, the catalog 0" in texts
    assert "3 tiles of version v1 that no record accounts for" in texts


def test_verify_beside_a_writer_does_not_blame_it(root: Path) -> None:
    with Node(root, lock_now=True) as writer, Node(root, mode="r") as reader:
        writer.begin_scene(A, "s3", "v1", CELLS)
        writer.put_tiles([small.make_tile(A, "s3", "v1", CELLS[0])])
        assert reader.verify().is_clean


# ---------------------------------------------------------------- rebuild


def garbage(root: Path) -> None:
    (root / "catalog" / "log" / "00000001.log").write_bytes(b"garbage" * 5000)


def cut(root: Path) -> None:
    path = root / "catalog" / "log" / "00000001.log"
    path.write_bytes(path.read_bytes()[:5000])


def empty(root: Path) -> None:
    (root / "catalog" / "log" / "00000001.log").write_bytes(b"")


def gone(root: Path) -> None:
    shutil.rmtree(root / "catalog")


def half_gone(root: Path) -> None:
    (root / "catalog" / "log" / "00000001.log").unlink()


def untouched(root: Path) -> None:
    pass


@pytest.mark.parametrize("damage", [garbage, cut, empty, gone, half_gone, untouched])
def test_a_catalog_is_made_anew_from_the_files(root: Path, damage: Callable[[Path], None]) -> None:
    with Node(root, mode="r") as node:
        before = state(node)
    damage(root)
    if damage is not untouched:
        with pytest.raises(GeostoreError, match="verify --rebuild"):
            Node(root).verify()
    report = rebuild_store(root)
    assert report.is_rebuilt
    assert report.tiles == 8
    assert kinds(report) == ([] if damage is untouched else [ProblemKind.CATALOG])
    with Node(root) as node:
        assert state(node) == before
        assert node.verify().is_clean
        assert node.begin_scene(A, "s1", "v2", CELLS) is None, "unchanged"
        small.put_scene(node, A, "s3", "v1", CELLS[:1])
        assert node.count(Query()) == 9
        assert list(node.directory.tmp.iterdir()) == []
        assert not node.directory.quarantine.exists()


def test_tile_files_alone_are_enough(root: Path, tmp_path: Path) -> None:
    with Node(root, mode="r") as node:
        before = rows(node)
    for name in ("catalog", "commits", "tmp", "lock"):
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    rebuild_store(root)
    with Node(root) as node:
        assert rows(node) == before
        assert [d.name for d in node.datasets()] == ["a", "b"]
        assert node.datasets() == [A, B]
        assert node.verify().is_clean
        record = node.scene_record(A.id, "s1")
        assert record is not None
        assert (record.version, record.cells) == ("v2", CELLS[:3])
        assert record.properties == {"made": "by a test"}
        assert node.begin_scene(A, "s1", "v2", CELLS) is None


@pytest.mark.parametrize("damage", [garbage, gone, untouched])
def test_half_a_scene_does_not_come_back_with_a_rebuild(
    root: Path, damage: Callable[[Path], None]
) -> None:
    with Node(root) as node:
        before = rows(node)
        node.begin_scene(A, "s3", "v1", CELLS)
        node.put_tiles([small.make_tile(A, "s3", "v1", cell) for cell in CELLS[:2]])
        node.begin_scene(A, "s2", "v9", CELLS, replace=True)
        node.put_tiles([small.make_tile(A, "s2", "v9", CELLS[0])])
    damage(root)
    report = rebuild_store(root)
    assert kinds(report).count(ProblemKind.ORPHAN) == 3
    with Node(root) as node:
        assert rows(node) == before
        assert node.verify().is_clean
        assert len(list(node.directory.quarantine.rglob("*.zarr.zip"))) == 3
        assert small.put_scene(node, A, "s3", "v1", CELLS[:2]) is not None
        assert node.verify().is_clean


def test_a_deleted_dataset_does_not_come_back_and_its_id_stays_used(root: Path) -> None:
    rebuild_store(root)
    with Node(root) as node:
        assert [d.name for d in node.datasets()] == ["a", "b"]
        with pytest.raises(ConflictError, match="never returns"):
            node.create_dataset(small.make_definition("c"))


def test_damaged_tiles_are_set_aside_and_come_back_with_their_scene(node: Node) -> None:
    key = TileKey(A.id, "s1", "v2", CELLS[1])
    path = node.tile_path(key)
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + b"?" + whole[101:])
    report = node.rebuild()
    assert kinds(report) == [ProblemKind.CORRUPT, ProblemKind.MISSING]
    moved = node.directory.quarantine / path.relative_to(node.directory.root)
    assert moved.read_bytes()[100:101] == b"?"
    assert small.seen(node)["a/s1"] == {"v2": [CELLS[0], CELLS[2]]}
    with pytest.raises(NotFoundError):
        node.read_blocks(key, [0])
    (problem,) = node.verify().problems
    assert problem.kind is ProblemKind.MISSING
    assert "ingest the scene again" in problem.message
    # The same source again is not "unchanged" now: the lost tile is put, the others stay.
    record = node.begin_scene(A, "s1", "v2", CELLS)
    assert record is not None
    assert record.staging_cells == (CELLS[1],)
    tiles = [small.make_tile(A, "s1", "v2", cell) for cell in CELLS[:3]]
    assert node.put_tiles(tiles) == [tile.checksum for tile in tiles]
    node.abort_scene(A.id, "s1", "v2")  # given up: what is served stays
    assert small.seen(node)["a/s1"] == {"v2": [CELLS[0], CELLS[2]]}
    assert small.put_scene(node, A, "s1", "v2", CELLS[:3]) is not None
    assert small.seen(node)["a/s1"] == {"v2": list(CELLS[:3])}
    assert path.read_bytes() == whole
    assert node.verify().is_clean
    assert node.begin_scene(A, "s1", "v2", CELLS) is None


def test_a_commit_file_that_is_damaged_falls_back_on_the_record(root: Path) -> None:
    for path in (root / "commits").rglob("*.json"):
        path.write_bytes(path.read_bytes()[:-5])
    with Node(root, mode="r") as node:
        before = rows(node)
    report = rebuild_store(root)
    assert kinds(report) == [ProblemKind.CORRUPT] * 3
    with Node(root) as node:
        assert rows(node) == before


def test_files_in_wrong_places_and_strangers_are_set_aside(root: Path) -> None:
    one = next((root / "tiles" / A.id).rglob("*.zarr.zip"))
    wrong = root / "tiles" / A.id / "000"
    wrong.mkdir()
    shutil.copy(one, wrong / one.name)
    (root / "tiles" / "note.txt").write_text("x")
    report = rebuild_store(root)
    assert kinds(report) == [ProblemKind.ORPHAN] * 2
    with Node(root) as node:
        assert node.count(Query()) == 8
        assert node.verify().is_clean


def test_an_older_catalog_put_back_loses_no_committed_scene(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "catalog", tmp_path / "backup")
    with Node(root) as node:
        small.put_scene(node, A, "s3", "v1", CELLS[:2])
        small.put_scene(node, A, "s2", "v2", CELLS[:1], replace=True)
        after = rows(node)
    shutil.rmtree(root / "catalog")
    shutil.copytree(tmp_path / "backup", root / "catalog")
    assert not Node(root, mode="r").verify().is_clean
    rebuild_store(root)
    with Node(root) as node:
        assert rows(node) == after
        assert node.verify().is_clean


def test_a_rebuild_that_was_killed_can_be_finished_or_done_again(root: Path) -> None:
    with Node(root, mode="r") as node:
        before = state(node)
    steps: list[str] = []
    rebuild_store(root, step=steps.append)
    assert {"swap.ready.renamed", "swap.out.renamed", "swap.in.renamed"} <= set(steps)

    class Killed(BaseException):
        pass

    for stop in range(len(steps)):
        left = [stop]

        def step(name: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Killed

        with pytest.raises(Killed):
            rebuild_store(root, step=step)
        if stop % 2:  # the next writer finds a whole catalog, the old one or the new one
            with Node(root, lock_now=True) as node:
                assert state(node) == before
        else:
            rebuild_store(root)
            with Node(root, mode="r") as node:
                assert state(node) == before


def test_readers_follow_a_rebuild(root: Path) -> None:
    with open_embedded(root, mode="r") as reader, open_embedded(root) as writer:
        assert reader.count(Query()) == 8
        assert writer.verify(rebuild=True).is_rebuilt
        small.put_scene(writer, A, "s3", "v1", CELLS[:1])
        assert reader.count(Query()) == 9
        assert writer.count(Query()) == 9


def test_a_rebuild_needs_the_store_for_itself(root: Path) -> None:
    with Node(root, lock_now=True), pytest.raises(StoreLockedError):
        rebuild_embedded(root)
    with pytest.raises(NotFoundError):
        rebuild_embedded(root / "absent")
    with pytest.raises(StoreFormatError):
        rebuild_embedded(root / "tiles")


def test_no_tile_is_read_past_its_checksum(root: Path) -> None:
    """Invariant 7, the node's part: damage is an error of verify, and cut files of reads."""
    with Node(root) as node:
        key = TileKey(A.id, "s2", "v1", CELLS[2])
        node.tile_path(key).write_bytes(b"")
        with pytest.raises(CorruptDataError, match="cut short"):
            node.read_blocks(key, [0])
