from __future__ import annotations

import runpy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from geostore.errors import ConflictError, InvalidInputError, NotFoundError
from geostore.node import Node
from geostore.node.disk import StepHook
from geostore.node.tile_holder import TileHolder
from geostore.types import (
    ClearRequest,
    EncodedTile,
    PublishRequest,
    SceneRecord,
    SceneState,
    TileKey,
)

small = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "small_store.py")))
A, CELLS = small.A, small.CELLS


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Node(tmp_path / "store", lock_now=True, is_member=True) as node:
        node.create_dataset(A)
        yield node


@pytest.fixture
def holder(node: Node) -> TileHolder:
    return node.tile_holder


def tile(cell: str, version: str = "v1") -> EncodedTile:
    made: EncodedTile = small.make_tile(A, "s1", version, cell)
    return made


def publish(*cells: str, version: str = "v1", attempt: int = 1, **more: Any) -> PublishRequest:
    return PublishRequest(
        dataset_id=A.id, scene="s1", version=version, attempt=attempt, cells=cells, **more
    )


def clear(*cells: str, version: str = "v1", attempt: int = 1) -> ClearRequest:
    return ClearRequest(dataset_id=A.id, scene="s1", version=version, attempt=attempt, cells=cells)


def files(node: Node) -> set[str]:
    return {path.name for path in node.directory.tiles.rglob("*.zip")}


def test_tiles_are_unseen_until_published_and_echoes_change_nothing(
    node: Node, holder: TileHolder
) -> None:
    tiles = [tile(cell) for cell in CELLS[:3]]
    assert holder.stage(tiles, 1) == [each.checksum for each in tiles]
    assert holder.stage(tiles, 1) == [each.checksum for each in tiles]
    assert small.seen(node) == {}
    assert holder.missing_cells(publish(*CELLS[:4])) == (CELLS[3],)
    holder.publish(publish(*CELLS[:2]))
    assert small.seen(node) == {"a/s1": {"v1": sorted(CELLS[:2])}}
    assert len(files(node)) == 2  # the tile that was left out went
    holder.publish(publish(*CELLS[:2]))
    assert small.seen(node) == {"a/s1": {"v1": sorted(CELLS[:2])}}


def test_a_replacement_swaps_in_one_step_and_an_old_publication_does_not_undo_it(
    node: Node, holder: TileHolder
) -> None:
    holder.stage([tile(CELLS[0]), tile(CELLS[1])], 1)
    holder.publish(publish(*CELLS[:2]))
    holder.stage([tile(CELLS[0], "v2")], 2)
    holder.publish(publish(CELLS[0], version="v2", attempt=2, replaced_version="v1"))
    holder.clear(clear(*CELLS[:2], version="v1", attempt=2))
    assert small.seen(node) == {"a/s1": {"v2": [CELLS[0]]}}
    assert len(files(node)) == 1
    holder.publish(publish(*CELLS[:2]))  # late
    assert small.seen(node) == {"a/s1": {"v2": [CELLS[0]]}}


def test_a_node_that_loses_its_share_of_a_scene_forgets_its_commit(
    node: Node, holder: TileHolder
) -> None:
    holder.stage([tile(CELLS[0])], 1)
    holder.publish(publish(CELLS[0]))
    commit = node.directory.commit_file(A.id, "s1")
    assert commit.exists()
    holder.publish(publish(version="v2", attempt=2, replaced_version="v1"))
    assert not commit.exists()
    assert small.seen(node) == {}


def test_late_clearing_spares_a_newer_attempt_and_what_is_published(
    node: Node, holder: TileHolder
) -> None:
    holder.stage([tile(CELLS[0])], 1)
    holder.clear(clear(CELLS[0]))
    assert files(node) == set()
    with pytest.raises(ConflictError, match="attempt 1 was given up or overtaken"):
        holder.stage([tile(CELLS[0])], 1)
    holder.stage([tile(CELLS[0])], 2)
    holder.clear(clear(CELLS[0]))  # late
    assert holder.missing_cells(publish(CELLS[0])) == ()
    holder.publish(publish(CELLS[0], attempt=2))
    holder.clear(clear(CELLS[0], attempt=2))
    assert small.seen(node) == {"a/s1": {"v1": [CELLS[0]]}}
    assert len(files(node)) == 1


def test_what_cannot_be_is_refused(holder: TileHolder) -> None:
    with pytest.raises(NotFoundError, match="1 of 1 cells to publish are not here"):
        holder.publish(publish(CELLS[0]))
    good = tile(CELLS[0])
    spoiled = EncodedTile(
        meta=good.meta, payload=good.payload[:-1] + b"?", checksum=good.checksum, blocks=good.blocks
    )
    with pytest.raises(InvalidInputError, match="does not have the checksum"):
        holder.stage([spoiled], 1)
    stranger = small.make_tile(small.make_definition("z"), "s1", "v1", CELLS[0])
    with pytest.raises(NotFoundError, match="no such dataset"):
        holder.stage([stranger], 1)


def test_marks_and_staged_tiles_survive_a_restart_and_are_resolved(tmp_path: Path) -> None:
    with Node(tmp_path / "other", lock_now=True, is_member=True) as node:
        node.create_dataset(A)
        node.tile_holder.stage([tile(cell) for cell in CELLS[:3]], 4)
    with Node(tmp_path / "other", is_member=True) as node:
        holder = node.tile_holder
        assert list(holder.staged()) == [(A.id, "s1", "v1")]
        mark = holder.mark(A.id, "s1")
        assert mark is not None
        assert mark.attempt == 4
        record = SceneRecord(
            dataset_id=A.id, scene="s1", state=SceneState.STAGING, attempt=4,
            staging_version="v1", staging_cells=CELLS,
        )  # fmt: skip
        assert holder.resolve(record, A.id, "s1", "v1") == "keep"
        decided = SceneRecord(
            dataset_id=A.id, scene="s1", state=SceneState.COMMITTED, attempt=4,
            version="v1", cells=CELLS[:2],
        )  # fmt: skip
        assert holder.resolve(decided, A.id, "s1", "v1") == "publish"
        assert small.seen(node) == {"a/s1": {"v1": sorted(CELLS[:2])}}
        assert len(files(node)) == 2
        holder.stage([tile(CELLS[0], "v2")], 5)
        assert holder.resolve(decided, A.id, "s1", "v2") == "keep"  # read before attempt 5 began
        assert holder.resolve(replace(decided, attempt=5), A.id, "s1", "v2") == "clear"
        assert node.catalog.checksum(TileKey(A.id, "s1", "v2", CELLS[0])) is None
        assert holder.staged() == {}
        assert len(files(node)) == 2


class _StoppedError(BaseException):
    """Stands for a kill."""


def publish_two_of_three(path: Path, step: StepHook) -> None:
    with Node(path, lock_now=True, is_member=True, step=step) as node:
        node.create_dataset(A)
        node.tile_holder.stage([tile(cell) for cell in CELLS[:3]], 1)
        node.tile_holder.publish(publish(*CELLS[:2]))


def test_tiles_that_a_commit_leaves_out_leave_no_file_behind_a_crash(tmp_path: Path) -> None:
    names: list[str] = []
    publish_two_of_three(tmp_path / "whole", names.append)
    assert "publish.done" in names
    for number in range(names.index("staged"), len(names)):
        left = [number]

        def step(_: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == -1:
                raise _StoppedError

        path = tmp_path / str(number)
        with pytest.raises(_StoppedError):
            publish_two_of_three(path, step)
        with Node(path, lock_now=True, is_member=True) as node:
            node.tile_holder.publish(publish(*CELLS[:2]))
            assert node.tile_holder.staged() == {}
            assert len(files(node)) == 2, names[number]
