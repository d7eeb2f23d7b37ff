"""Scenes through real nodes that call each other directly: no sockets, real disks."""

from __future__ import annotations

import runpy
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from geostore.errors import ConflictError, UnavailableError
from geostore.node import Node
from geostore.node import scene_states as states
from geostore.node.scene_keeper import SceneKeeper, copy_name, keep_copy
from geostore.node.scene_states import Begin, Commit
from geostore.ring import Ring, RingNode, found_ring, placement_key, slot_of, with_node_joined
from geostore.types import CallContext, SceneRecord, SceneState

small = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "small_store.py")))
A, CELLS = small.A, small.CELLS
CALL = CallContext()


class DirectPeer:
    """Another node's methods, as long as it is up."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.is_up = True

    def _up(self) -> Node:
        if not self.is_up:
            raise UnavailableError("it is down")
        return self.node

    def stage_tiles(self, call: CallContext, tiles: Any, attempt: int) -> list[str]:
        return self._up().tile_holder.stage(tiles, attempt)

    def missing_cells(self, call: CallContext, request: Any) -> tuple[str, ...]:
        return self._up().tile_holder.missing_cells(request)

    def publish_scene(self, call: CallContext, request: Any) -> None:
        self._up().tile_holder.publish(request)

    def clear_scene(self, call: CallContext, request: Any) -> None:
        self._up().tile_holder.clear(request)

    def copy_record(self, call: CallContext, copy: Any) -> None:
        node = self._up()
        with node.writing():
            keep_copy(node.catalog, copy)


class Cluster:
    """Three nodes in this process."""

    def __init__(self, root: Path, replicas: int) -> None:
        self.nodes = {
            name: Node(root / name, lock_now=True, is_member=True) for name in ("n1", "n2", "n3")
        }
        ring = found_ring(RingNode("n1", "n1", "a:1"), cluster_id="c", replicas=replicas)
        for name in ("n2", "n3"):
            ring = with_node_joined(ring, RingNode(name, name, "a:1"), None)
        self.ring: Ring = ring
        self.peers = {name: DirectPeer(node) for name, node in self.nodes.items()}
        self.now_s = 1000.0
        self.keepers: dict[str, SceneKeeper] = {}
        for name, node in self.nodes.items():
            node.create_dataset(A)
            self.start(name)

    def peer(self, node_id: str) -> Any:
        return self.peers[node_id]

    def start(self, name: str) -> None:
        if name in self.keepers:
            self.keepers[name].close()
        node = self.nodes[name]
        self.keepers[name] = SceneKeeper(
            own_id=name, catalog=node.catalog, writing=node.writing,
            placement=lambda _: A.placement, ring=lambda: self.ring, peers=self,
            clock_s=lambda: self.now_s,
        )  # fmt: skip

    def restart(self, name: str) -> None:
        """The process ends and begins again on the same directory."""
        root = self.nodes[name].directory.root
        self.keepers.pop(name).close()
        self.nodes[name].close()
        self.nodes[name] = Node(root, lock_now=True, is_member=True)
        self.peers[name] = DirectPeer(self.nodes[name])
        self.start(name)

    def holders(self, cell: str) -> list[str]:
        slot = slot_of(placement_key(cell, A.placement))
        return [node.id for node in self.ring.replicas_of(slot)]

    def home(self, scene: str) -> SceneKeeper:
        return self.keepers[self.home_name(scene)]

    def home_name(self, scene: str) -> str:
        return self.ring.first_of(slot_of(f"scene/{A.id}/{scene}")).id

    def begin(
        self, scene: str = "s1", version: str = "v1", cells: Any = CELLS, holder: str = "me"
    ) -> SceneRecord:
        event = Begin(
            dataset_id=A.id, scene=scene, version=version, cells=tuple(cells), replace=True,
            path="", reader="",
        )  # fmt: skip
        return self.home(scene).begin(CALL, event, holder)

    def put(self, record: SceneRecord, cells: Any) -> None:
        for cell in cells:
            tile = small.make_tile(A, record.scene, record.staging_version, cell)
            for name in self.holders(cell):
                self.peers[name].stage_tiles(CALL, [tile], record.attempt)

    def commit(self, record: SceneRecord, cells: Any) -> SceneRecord:
        assert record.staging_version is not None
        event = Commit(version=record.staging_version, cells=tuple(cells), bytes_total=1, now_us=1)
        return self.home(record.scene).commit(CALL, A.id, record.scene, record.attempt, event)

    def seen(self) -> dict[str, dict[str, list[str]]]:
        """By node."""
        return {name: small.seen(node).get("a/s1", {}) for name, node in self.nodes.items()}

    def close(self) -> None:
        for keeper in self.keepers.values():
            keeper.close()
        for node in self.nodes.values():
            node.close()


@pytest.fixture(params=[1, 2])
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, request.param)
    cluster.now_s += 60  # past the grace of a start
    yield cluster
    cluster.close()


def expected(cluster: Cluster, version: str, cells: Any) -> dict[str, dict[str, list[str]]]:
    shown: dict[str, dict[str, list[str]]] = {name: {} for name in cluster.nodes}
    for cell in sorted(cells):
        for name in cluster.holders(cell):
            shown[name].setdefault(version, []).append(cell)
    return shown


def files(cluster: Cluster) -> int:
    return sum(len(list(node.directory.tiles.rglob("*.zip"))) for node in cluster.nodes.values())


def test_a_scene_is_seen_whole_at_every_node_that_holds_a_part(cluster: Cluster) -> None:
    record = cluster.begin()
    cluster.put(record, CELLS[:4])
    assert cluster.seen() == {"n1": {}, "n2": {}, "n3": {}}
    done = cluster.commit(record, CELLS[:4])
    assert done.state is SceneState.PUBLISHED
    assert cluster.seen() == expected(cluster, "v1", CELLS[:4])
    assert cluster.begin().state is SceneState.PUBLISHED  # unchanged
    second = cluster.begin(version="v2")
    cluster.put(second, CELLS[3:5])
    cluster.commit(second, CELLS[3:5])
    assert cluster.seen() == expected(cluster, "v2", CELLS[3:5])
    assert files(cluster) == 2 * cluster.ring.replicas


def test_the_other_replicas_have_the_record(cluster: Cluster) -> None:
    record = cluster.begin()
    cluster.put(record, CELLS[:2])
    cluster.commit(record, CELLS[:2])
    slot = slot_of(f"scene/{A.id}/s1")
    home, *others = [node.id for node in cluster.ring.replicas_of(slot)]
    assert len(others) == cluster.ring.replicas - 1
    own = cluster.nodes[home].catalog.record_get(f"scene/{A.id}/s1")
    assert own is not None
    for name in others:
        copy = cluster.nodes[name].catalog.record_get(copy_name(f"scene/{A.id}/s1"))
        assert copy is not None
        assert copy.value[8:] == own.value


def test_a_commit_of_tiles_that_were_never_put_is_refused_and_can_be_mended(
    cluster: Cluster,
) -> None:
    record = cluster.begin()
    cluster.put(record, CELLS[:2])
    with pytest.raises(ConflictError, match="tiles to commit are not durable"):
        cluster.commit(record, CELLS[:3])
    cluster.put(record, CELLS[2:3])
    cluster.commit(record, CELLS[:3])
    assert cluster.seen() == expected(cluster, "v1", CELLS[:3])


def test_a_node_that_is_down_delays_publication_which_its_return_finishes(
    cluster: Cluster,
) -> None:
    record = cluster.begin()
    cluster.put(record, CELLS)
    home = cluster.home_name("s1")
    away = next(name for cell in CELLS for name in cluster.holders(cell) if name != home)
    keeper, real = cluster.home("s1"), cluster.peers[away].publish_scene

    def down(call: CallContext, request: Any) -> None:
        raise UnavailableError("it went away")

    cluster.peers[away].publish_scene = down  # type: ignore[method-assign]
    with pytest.raises(UnavailableError, match=f"node {away}: it went away"):
        cluster.commit(record, CELLS)
    decided = keeper.record(A.id, "s1")
    assert decided is not None
    assert decided.state is SceneState.COMMITTED
    assert keeper.settle_all(CALL) != []
    cluster.peers[away].publish_scene = real  # type: ignore[method-assign]
    cluster.start(home)  # as after a crash of the home itself
    assert cluster.home("s1").settle_all(CALL) == []
    assert cluster.seen() == expected(cluster, "v1", CELLS)
    assert cluster.commit(record, CELLS).state is SceneState.PUBLISHED  # told twice


def test_two_ingesters_of_one_version_share_the_attempt(cluster: Cluster) -> None:
    first, second = cluster.begin(holder="a"), cluster.begin(holder="b")
    assert first.attempt == second.attempt
    cluster.home("s1").abort(CALL, A.id, "s1", first.attempt, "a")
    cluster.put(second, CELLS[:2])
    cluster.commit(second, CELLS[:2])
    assert cluster.seen() == expected(cluster, "v1", CELLS[:2])


def test_another_version_waits_until_nobody_holds_the_attempt(cluster: Cluster) -> None:
    first = cluster.begin(holder="a")
    cluster.put(first, CELLS[:2])
    with pytest.raises(ConflictError, match="another ingester is putting it"):
        cluster.begin(version="v2", holder="b")
    cluster.now_s += 20
    cluster.home("s1").keep(A.id, "s1", "a")
    cluster.now_s += 20
    assert cluster.home("s1").settle_all(CALL) != []  # still held
    cluster.now_s += 20
    second = cluster.begin(version="v2", holder="b")
    assert second.attempt == first.attempt + 1
    assert files(cluster) == 0
    with pytest.raises(ConflictError, match="attempt 1 was given up or overtaken"):
        cluster.put(first, CELLS[:1])
    with pytest.raises(ConflictError, match="attempt 1 was given up or overtaken"):
        cluster.commit(first, CELLS[:2])


def test_what_a_dead_ingester_left_is_given_up_after_its_lease(cluster: Cluster) -> None:
    record = cluster.begin()
    cluster.put(record, CELLS[:3])
    cluster.start(cluster.home_name("s1"))
    assert cluster.home("s1").settle_all(CALL) != []  # the grace of a start
    cluster.now_s += 60
    assert cluster.home("s1").settle_all(CALL) == []
    assert files(cluster) == 0
    after = cluster.home("s1").record(A.id, "s1")
    assert after is not None
    assert (after.state, after.version) == (SceneState.ABORTED, None)
    assert states.is_settled(after)


def test_a_node_that_is_not_the_home_says_who_is(cluster: Cluster) -> None:
    home = cluster.home_name("s1")
    other = next(name for name in cluster.nodes if name != home)
    event = Begin(
        dataset_id=A.id, scene="s1", version="v1", cells=CELLS, replace=False, path="", reader=""
    )
    with pytest.raises(UnavailableError, match=f"its record's home is node {home}"):
        cluster.keepers[other].begin(CALL, event, "me")


def test_an_open_attempt_outlives_the_restart_of_every_node(cluster: Cluster) -> None:
    record = cluster.begin()
    cluster.put(record, CELLS[:2])
    for name in cluster.nodes:
        cluster.restart(name)
    cluster.home("s1").keep(A.id, "s1", "me")
    assert cluster.home("s1").settle_all(CALL) != []
    cluster.put(record, CELLS[2:4])
    cluster.commit(record, CELLS[:4])
    assert cluster.seen() == expected(cluster, "v1", CELLS[:4])


def test_calls_on_one_scene_wait_for_each_other(cluster: Cluster) -> None:
    record = cluster.begin()
    cluster.put(record, CELLS[:2])
    outcomes: list[Any] = []

    def commit() -> None:
        outcomes.append(cluster.commit(record, CELLS[:2]).state)

    threads = [threading.Thread(target=commit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert outcomes == [SceneState.PUBLISHED] * 8


def test_records_at_rest_are_not_looked_through_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = cluster.begin()
    keeper = cluster.home("s1")
    assert keeper.settle_all(CALL) == [f"scene/{A.id}/s1"]

    def refuse(prefix: str = "") -> list[str]:
        raise AssertionError(f"all records of {prefix} again")

    monkeypatch.setattr(cluster.nodes[cluster.home_name("s1")].catalog, "record_names", refuse)
    assert keeper.settle_all(CALL) == [f"scene/{A.id}/s1"]
    cluster.put(record, CELLS[:2])
    cluster.commit(record, CELLS[:2])
    assert keeper.settle_all(CALL) == []
    second = cluster.begin(version="v2")
    assert keeper.settle_all(CALL) == [f"scene/{A.id}/s1"]
    cluster.put(second, CELLS[:2])
    cluster.now_s += 60
    assert keeper.settle_all(CALL) == []
    after = keeper.record(A.id, "s1")
    assert after is not None
    assert (after.state, after.version) == (SceneState.PUBLISHED, "v1")


def test_a_decision_is_remembered_before_it_is_shown_also_after_a_crash(cluster: Cluster) -> None:
    record = cluster.begin()
    cluster.put(record, CELLS[:2])
    home = cluster.home_name("s1")
    remembered: list[SceneRecord] = []

    def forget(_: SceneRecord) -> None:
        raise UnavailableError("it dies behind its decision")

    cluster.home("s1")._remember = forget
    with pytest.raises(UnavailableError, match="dies behind"):
        cluster.commit(record, CELLS[:2])
    assert not any(cluster.seen().values())
    cluster.start(home)
    cluster.home("s1")._remember = remembered.append
    assert cluster.home("s1").settle_all(CALL) == []
    assert [(one.version, one.cells) for one in remembered] == [("v1", CELLS[:2])]
    assert cluster.seen() == expected(cluster, "v1", CELLS[:2])
