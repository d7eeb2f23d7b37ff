"""Members of one ring that call each other directly: datasets, scenes, queries, joins."""

from __future__ import annotations

import runpy
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from geostore.errors import ConflictError, NotFoundError, UnavailableError
from geostore.node import Node
from geostore.node.member import Member
from geostore.query import Explain, Query
from geostore.ring import Ring, RingNode, found_ring, placement_key, slot_of, with_node_joined
from geostore.tiles import TilePixels, encode_tile
from geostore.types import CallContext, EncodedTile, RecordCopy, SceneState

small = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "small_store.py")))
A, CELLS = small.A, small.CELLS
CALL = CallContext()


class Cluster:
    """Three members; `down` are those nobody reaches."""

    def __init__(self, root: Path, replicas: int) -> None:
        self.root = root
        self.now_s = 1000.0
        self.down: set[str] = set()
        self.members: dict[str, Member] = {}
        ring = found_ring(RingNode("n1", "n1", "a:1"), cluster_id="c", replicas=replicas)
        for name in ("n2", "n3"):
            ring = with_node_joined(ring, RingNode(name, name, "a:1"), None)
        self.rings = dict.fromkeys(("n1", "n2", "n3"), ring)
        for name in self.rings:
            self.start(name)

    def peer(self, node_id: str) -> Any:
        if node_id in self.down:
            return Down()
        return self.members[node_id]

    def start(self, name: str) -> None:
        self.members[name] = Member(
            Node(self.root / name, lock_now=True, is_member=True), own_id=name,
            ring=self.rings[name], peers=self, save_ring=lambda ring: self.save(name, ring),
            clock_s=lambda: self.now_s,
        )  # fmt: skip

    def save(self, name: str, ring: Ring) -> None:
        self.rings[name] = ring

    def stop(self, name: str) -> None:
        member = self.members.pop(name)
        member.close()
        member.node.close()

    def restart(self, name: str) -> None:
        self.stop(name)
        self.start(name)

    def home(self, record: str) -> Member:
        return self.members[self.rings["n1"].first_of(slot_of(record)).id]

    def first(self, cell: str) -> Member:
        return self.members[self.rings["n1"].first_of(slot_of(placement_key(cell, A.placement))).id]

    def store(self, scene: str, version: str, cells: Any, **options: Any) -> None:
        home = self.home(f"scene/{A.id}/{scene}")
        record = home.begin_scene(CALL, A, scene, version, CELLS, holder="me", **options)
        assert record.state is SceneState.STAGING
        for cell in cells:
            tile: EncodedTile = small.make_tile(A, scene, version, cell)
            assert self.first(cell).put_tiles(CALL, [tile], record.attempt) == [tile.checksum]
        home.commit_scene(CALL, A.id, scene, version, record.attempt, cells, bytes_total=1)

    def close(self) -> None:
        for name in list(self.members):
            self.stop(name)


class Down:
    """A node nobody reaches."""

    def __getattr__(self, name: str) -> Any:
        def refuse(*_: Any, **__: Any) -> None:
            raise UnavailableError("it cannot be reached")

        return refuse


@pytest.fixture(params=[1, 2])
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, request.param)
    yield cluster
    cluster.close()


def rows(member: Member, query: Query | None = None) -> list[tuple[str, str, str]]:
    return [
        (row.key.scene, row.key.version, row.key.geocode)
        for batch in member.query(CALL, query or Query())
        for row in batch.rows()
    ]


def create(cluster: Cluster) -> None:
    cluster.home("dataset/a").create_dataset(CALL, A)


def test_every_node_knows_every_dataset_and_answers_alike(cluster: Cluster) -> None:
    create(cluster)
    for member in cluster.members.values():
        assert member.list_datasets(CALL) == [A]
    cluster.store("s1", "v1", CELLS[:4])
    cluster.store("s2", "v1", CELLS[2:])
    answers = [rows(member) for member in cluster.members.values()]
    assert len(answers[0]) == 8
    assert answers == [sorted(answers[0], key=lambda r: (r[2], r[0]))] * 3
    for member in cluster.members.values():
        assert member.count(CALL, Query(geocode="dq")) == 7
    with pytest.raises(ConflictError, match="exists already"):
        cluster.home("dataset/a").create_dataset(CALL, replace(A, id="other"))


def test_rows_name_the_nodes_that_hold_them_and_only_those_are_asked(cluster: Cluster) -> None:
    create(cluster)
    cluster.store("s1", "v1", CELLS[:3])
    ring = cluster.rings["n1"]
    holders = ring.replicas_of(slot_of(placement_key(CELLS[0], A.placement)))
    for member in cluster.members.values():
        explain = Explain()
        query = Query(geocode=CELLS[0])
        (batch,) = member.query(CALL, query, explain)
        assert batch.nodes.tolist() == [tuple(node.name for node in holders)]
        assert explain.nodes_asked == [holders[0].name]
        assert len(explain.nodes_skipped) == 2


def test_a_query_beside_a_dead_node_is_whole_or_an_error(cluster: Cluster) -> None:
    create(cluster)
    cluster.store("s1", "v1", CELLS)
    whole = rows(cluster.members["n1"])
    for dead in cluster.members:
        cluster.down = {dead}
        asked = next(name for name in cluster.members if name != dead)
        if cluster.rings["n1"].replicas == 2:
            assert rows(cluster.members[asked]) == whole
        elif any(cluster.first(cell).own_id == dead for cell in CELLS):
            with pytest.raises(UnavailableError, match=f"{dead}"):
                rows(cluster.members[asked])
    cluster.down = set()


def test_a_dataset_is_created_everywhere_or_reported_and_finished_later(
    cluster: Cluster,
) -> None:
    home = cluster.home("dataset/a")
    dead = next(name for name in cluster.members if name != home.own_id)
    cluster.down = {dead}
    with pytest.raises(UnavailableError, match=f"node {dead} at a:1: it cannot be reached"):
        create(cluster)
    assert home.settle(CALL) == ["dataset/a"]
    cluster.down = set()
    cluster.restart(home.own_id)
    assert cluster.home("dataset/a").settle(CALL) == []
    assert cluster.members[dead].get_dataset(CALL, "a") == A
    create(cluster)  # the client tries again


def test_a_deleted_dataset_is_gone_everywhere_for_ever(cluster: Cluster) -> None:
    create(cluster)
    cluster.store("s1", "v1", CELLS[:4])
    home = cluster.home("dataset/a")
    dead = next(name for name in cluster.members if name != home.own_id)
    assert home.delete_dataset(CALL, "a") == 4
    for member in cluster.members.values():
        assert member.list_datasets(CALL) == []
        assert rows(member) == []
        assert member.node.catalog.record_names("attempt/") == []
        assert list(member.node.directory.tiles.rglob("*.zip")) == []
        with pytest.raises(ConflictError, match="was deleted"):
            member.learn_dataset(CALL, A)
    with pytest.raises(ConflictError, match="was used before and never returns"):
        create(cluster)
    with pytest.raises(NotFoundError):
        home.delete_dataset(CALL, "a")
    cluster.restart(dead)
    assert cluster.members[dead].list_datasets(CALL) == []


def test_a_deleted_dataset_keeps_no_file_open(cluster: Cluster) -> None:
    create(cluster)
    cluster.store("s1", "v1", CELLS[:4])
    for member in cluster.members.values():
        for key in member.node.catalog.keys():  # noqa: SIM118
            member.read_blocks(CALL, key, [0])
    assert open_files(cluster.root)
    cluster.home("dataset/a").delete_dataset(CALL, "a")
    assert open_files(cluster.root) == []


def open_files(root: Path) -> list[str]:
    """This process's open tile files below `root`."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of this very listing
            found.append(str(link.readlink()))
    return [path for path in found if path.startswith(str(root)) and ".zarr.zip" in path]


def test_tiles_staged_before_a_restart_are_resolved_by_their_record(cluster: Cluster) -> None:
    create(cluster)
    home = cluster.home(f"scene/{A.id}/s1")
    record = home.begin_scene(CALL, A, "s1", "v1", CELLS, holder="me")
    for cell in CELLS[:3]:
        tile = small.make_tile(A, "s1", "v1", cell)
        cluster.first(cell).put_tiles(CALL, [tile], record.attempt)
    for name in list(cluster.members):
        cluster.restart(name)
    for member in cluster.members.values():
        assert member.resolve_staged(CALL) == []
    home = cluster.home(f"scene/{A.id}/s1")
    home.commit_scene(CALL, A.id, "s1", "v1", record.attempt, CELLS[:3], bytes_total=1)
    assert len(rows(home)) == 3


def test_calls_at_the_wrong_node_name_the_right_one(cluster: Cluster) -> None:
    create(cluster)
    right = cluster.home("dataset/a").own_id
    wrong = next(m for m in cluster.members.values() if m.own_id != right)
    with pytest.raises(UnavailableError, match=f"home is node {right} at a:1"):
        wrong.delete_dataset(CALL, "a")
    tile = small.make_tile(A, "s1", "v1", CELLS[0])
    first = cluster.first(CELLS[0]).own_id
    other = next(m for m in cluster.members.values() if m.own_id != first)
    with pytest.raises(UnavailableError, match=f"first replica is node {first}"):
        other.put_tiles(CALL, [tile], 1)


def test_nodes_join_while_the_store_is_empty_and_all_take_the_ring(cluster: Cluster) -> None:
    founder = cluster.members["n1"]
    newcomer = RingNode("n4", "n4", "a:4")
    with pytest.raises(UnavailableError, match="the founder n1 at a:1"):
        cluster.members["n2"].join(CALL, newcomer)
    with pytest.raises(ConflictError, match="node name 'n2' is taken"):
        founder.join(CALL, RingNode("n9", "n2", "a:9"))
    cluster.down = {"n4"}
    ring = founder.join(CALL, newcomer)
    assert ring.epoch == 4
    assert [node.id for node in ring.nodes] == ["n1", "n2", "n3", "n4"]
    assert {name: saved.epoch for name, saved in cluster.rings.items()} == dict.fromkeys(
        ("n1", "n2", "n3"), 4
    )
    assert founder.join(CALL, newcomer) == ring  # told twice
    moved = founder.join(CALL, replace(newcomer, address="a:5"))
    assert (moved.epoch, moved.node("n4").address) == (5, "a:5")
    assert founder.take_ring(CALL, ring) == 5  # an old one changes nothing
    with pytest.raises(ConflictError, match="belongs to c"):
        founder.take_ring(CALL, replace(ring, cluster_id="x", epoch=9))


def test_nobody_joins_a_store_with_datasets(cluster: Cluster) -> None:
    create(cluster)
    with pytest.raises(ConflictError, match="nodes join while the store is empty"):
        cluster.members["n1"].join(CALL, RingNode("n4", "n4", "a:4"))


def test_the_status_tells_of_nodes_that_do_not_answer(cluster: Cluster) -> None:
    create(cluster)
    cluster.store("s1", "v1", CELLS)
    cluster.down = {"n3"}
    states = cluster.members["n1"].cluster_status(CALL)
    assert [(each.name, each.state) for each in states] == [
        ("n1", "serving"), ("n2", "serving"), ("n3", "unreachable"),
    ]  # fmt: skip
    copies = cluster.rings["n1"].replicas
    assert sum(each.slots for each in states) == 4096 * copies
    cluster.down = set()
    states = cluster.members["n2"].cluster_status(CALL)
    assert sum(each.tiles for each in states) == len(CELLS) * copies


def test_a_record_read_before_a_newer_attempt_began_does_not_clear_it(cluster: Cluster) -> None:
    create(cluster)
    home = cluster.home(f"scene/{A.id}/s1")
    first = home.begin_scene(CALL, A, "s1", "v1", CELLS, holder="a")
    member = cluster.first(CELLS[0])
    tile = small.make_tile(A, "s1", "v1", CELLS[0])
    member.put_tiles(CALL, [tile], first.attempt)
    given_up = replace(first, state=SceneState.ABORTED)
    cluster.now_s += 60.0
    second = home.begin_scene(CALL, A, "s1", "v2", CELLS, holder="b")
    cluster.now_s += 60.0
    third = home.begin_scene(CALL, A, "s1", "v1", CELLS, holder="a")
    assert (second.attempt, third.attempt) == (2, 3)
    member.put_tiles(CALL, [tile], third.attempt)
    action = member.node.tile_holder.resolve(given_up, A.id, "s1", "v1")
    assert action == "keep"
    home.commit_scene(CALL, A.id, "s1", "v1", third.attempt, CELLS[:1], bytes_total=1)
    assert len(rows(home)) == 1


def test_copies_have_the_bytes_that_the_first_replica_kept(cluster: Cluster) -> None:
    create(cluster)
    home = cluster.home(f"scene/{A.id}/s1")
    record = home.begin_scene(CALL, A, "s1", "v1", CELLS, holder="me")
    first, cell = cluster.first(CELLS[0]), CELLS[0]
    kept = small.make_tile(A, "s1", "v1", cell)
    first.stage_tiles(CALL, [kept], record.attempt)  # then it died before the copies
    meta = replace(kept.meta, properties={"made": "by another release"})
    other = encode_tile(meta, TilePixels(data=[other_pixels()], masks=[[True, True]]))
    assert other.checksum != kept.checksum
    assert first.put_tiles(CALL, [other], record.attempt) == [kept.checksum]
    home.commit_scene(CALL, A.id, "s1", "v1", record.attempt, (cell,), bytes_total=1)
    holders = [
        member
        for member in cluster.members.values()
        if member.node.catalog.checksum(kept.meta.key) is not None
    ]
    assert len(holders) == cluster.rings["n1"].replicas
    for member in holders:
        assert member.node.details(kept.meta.key).checksum == kept.checksum
        assert member.node.tile_path(kept.meta.key).read_bytes() == kept.payload


def other_pixels() -> list[Any]:
    random = np.random.default_rng(1)
    return [random.integers(1, 200, (small.SIDE, small.SIDE)).astype(d) for d in ("u2", "u1")]


def test_nothing_of_a_deleted_dataset_is_recorded_again(cluster: Cluster) -> None:
    create(cluster)
    cluster.store("s1", "v1", CELLS[:2])
    home = cluster.home(f"scene/{A.id}/s2")
    keeper = cluster.home("dataset/a")
    original = home.node.known_datasets.require_same

    def slow(definition: Any) -> None:  # the deletion comes between the check and the record
        original(definition)
        keeper.delete_dataset(CALL, "a")

    home.node.known_datasets.require_same = slow  # type: ignore[method-assign]
    with pytest.raises(NotFoundError, match="deleted"):
        home.begin_scene(CALL, A, "s2", "v1", CELLS, holder="me")
    copy = RecordCopy(name=f"scene/{A.id}/s2", revision=9, value=b"S{}")
    for member in cluster.members.values():
        with pytest.raises(NotFoundError, match="deleted"):
            member.copy_record(CALL, copy)
        assert member.node.catalog.record_names("scene/") == []
        assert member.node.catalog.record_names("copy/") == []
        assert member.settle(CALL) == []


def test_a_deletion_that_not_all_heard_of_can_be_asked_for_again(cluster: Cluster) -> None:
    create(cluster)
    cluster.store("s1", "v1", CELLS[:4])
    home = cluster.home("dataset/a")
    dead = next(name for name in cluster.members if name != home.own_id)
    forget = cluster.members[dead].forget_dataset
    cluster.members[dead].forget_dataset = Down().forget_dataset  # type: ignore[method-assign]
    with pytest.raises(UnavailableError, match=f"node {dead} at a:1"):
        home.delete_dataset(CALL, "a")
    with pytest.raises(UnavailableError, match=f"node {dead} at a:1"):
        home.delete_dataset(CALL, "a")
    cluster.members[dead].forget_dataset = forget  # type: ignore[method-assign]
    assert home.delete_dataset(CALL, "a") == 0
    for member in cluster.members.values():
        assert member.list_datasets(CALL) == []
    with pytest.raises(NotFoundError):
        home.delete_dataset(CALL, "a")


def test_an_old_definition_is_not_told_over_a_newer_one(cluster: Cluster) -> None:
    open_ended = replace(A, groups=(), placement=None)
    cluster.home("dataset/a").create_dataset(CALL, open_ended)
    renewed = replace(A, reader="another")
    home = cluster.home("dataset/a")
    home.replace_dataset(CALL, open_ended, A)
    cluster.restart(home.own_id)  # it tells all nodes once more
    home = cluster.home("dataset/a")
    other = next(m for m in cluster.members.values() if m is not home)
    change = threading.Thread(target=home.replace_dataset, args=(CALL, A, renewed))
    learn = other.learn_dataset

    def learn_late(call: CallContext, definition: Any) -> int:
        if not change.ident:
            change.start()
            change.join(0.5)  # it must wait; were it not to, it would end here
        return learn(call, definition)

    other.learn_dataset = learn_late  # type: ignore[method-assign]
    assert home.settle(CALL) == []
    change.join(20)
    assert not change.is_alive()
    for member in cluster.members.values():
        assert member.list_datasets(CALL) == [renewed]


def test_a_scenes_record_is_read_from_its_copy(cluster: Cluster) -> None:
    create(cluster)
    cluster.store("s1", "v1", CELLS[:4])
    name = f"scene/{A.id}/s1"
    keepers = [node.id for node in cluster.rings["n1"].replicas_of(slot_of(name))]
    record = cluster.home(name).get_scene_record(CALL, A.id, "s1")
    assert record is not None
    assert record.version == "v1"
    for member in cluster.members.values():
        if member.own_id in keepers:
            assert member.get_scene_record(CALL, A.id, "s1") == record
            if member.own_id == keepers[-1]:
                assert member.get_scene_record(CALL, A.id, "s2") is None
        else:
            with pytest.raises(UnavailableError, match="its record's home is node"):
                member.get_scene_record(CALL, A.id, "s1")
