"""Cloud rules in a ring: decided at the dataset's home, in force at every node."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from geostore.errors import ConflictError, NotFoundError, UnavailableError
from geostore.node import Node
from geostore.node.member import Member
from geostore.query import Query
from geostore.ring import Ring, RingNode, found_ring, placement_key, slot_of, with_node_joined
from geostore.types import CallContext, CloudRule, DatasetDefinition, SceneState
from tests.clouded_tiles import CELLS, A, expected, make_tile, quick_directory

NAMES = ("n1", "n2", "n3")
FORTY, PROVIDER = CloudRule("likelihood", 40), CloudRule()
SCENES = {"s1": CELLS, "plain": CELLS[1:4]}
CALL = CallContext()


class KilledError(BaseException):
    """A node's process is no more."""


class Down:
    """A node nobody reaches."""

    def __getattr__(self, name: str) -> Any:
        def refuse(*_: object, **__: object) -> None:
            raise UnavailableError("it cannot be reached")

        return refuse


class Cluster:
    """Three members that call each other directly; `down` are those nobody reaches.

    `kill_at`: the named step of the named node ends it, as its process' end would.
    """

    def __init__(self, root: Path, replicas: int) -> None:
        self.root = root
        self.down: set[str] = set()
        self.kill_at: tuple[str, str] | None = None
        self.members: dict[str, Member] = {}
        ring = found_ring(RingNode("n1", "n1", "a:1"), cluster_id="c", replicas=replicas)
        for name in NAMES[1:]:
            ring = with_node_joined(ring, RingNode(name, name, "a:1"), None)
        self.ring = ring
        for name in NAMES:
            self.start(name)

    def peer(self, node_id: str) -> Any:
        return Down() if node_id in self.down else self.members[node_id]

    def start(self, name: str) -> None:
        def step(what: str) -> None:
            if self.kill_at == (name, what):
                self.down.add(name)
                raise KilledError

        self.members[name] = Member(
            Node(self.root / name, lock_now=True, is_member=True, step=step),
            own_id=name, ring=self.ring, peers=self, save_ring=self.save,
        )  # fmt: skip

    def save(self, ring: Ring) -> None:
        self.ring = ring

    def stop(self, name: str) -> None:
        member = self.members.pop(name)
        member.close()
        member.node.close()

    def come_back(self, name: str) -> None:
        """A new life of a node; its first turn is before it answers anybody."""
        self.stop(name)
        self.down.discard(name)
        self.kill_at = None
        self.start(name)
        self.members[name].settle(CALL)

    def first(self, name: str) -> Member:
        return self.members[self.ring.first_of(slot_of(name)).id]

    @property
    def home(self) -> Member:
        return self.first("dataset/a")

    def others(self) -> list[Member]:
        return [member for member in self.members.values() if member is not self.home]

    def store(self, definition: DatasetDefinition, scene: str, cells: Any) -> None:
        home = self.first(f"scene/{A.id}/{scene}")
        record = home.begin_scene(CALL, definition, scene, "v1", cells, holder="me")
        assert record.state is SceneState.STAGING
        for cell in cells:
            tile = make_tile(definition, scene, "v1", cell)
            self.first(placement_key(cell, 3)).put_tiles(CALL, [tile], record.attempt)
        home.commit_scene(CALL, A.id, scene, "v1", record.attempt, cells, bytes_total=1)

    def recloud(self, rule: CloudRule) -> int:
        old = self.home.get_dataset(CALL, "a")
        return self.home.replace_dataset(CALL, old, old.with_cloud_rule(rule))


def covers(member: Member) -> dict[tuple[str, str], float | None]:
    return {
        (row.key.scene, row.key.geocode): row.cloud_cover
        for batch in member.query(CALL, Query())
        for row in batch.rows()
    }


def own_thresholds(member: Member, scenes: Any = None) -> set[int | None]:
    """By which thresholds a node's own rows go, replicas and all: one, as all is sound."""
    rows = {
        (row.key.scene, row.key.geocode): row.cloud_cover
        for batch in member.node.catalog.query(Query())
        for row in batch.rows()
    }
    assert rows
    told = []
    for threshold in (None, 40, 70):
        due = expected(scenes or SCENES, threshold)
        if all(due[name] == cover for name, cover in rows.items()):
            told.append(threshold)
    assert member.node.verify().problems == ()
    return set(told)


@pytest.fixture
def copies() -> int:
    return 2


@pytest.fixture
def cluster(tmp_path: Path, copies: int) -> Iterator[Cluster]:
    with quick_directory(tmp_path) as directory:
        yield from _cluster(directory, copies)


def _cluster(directory: Path, copies: int) -> Iterator[Cluster]:
    cluster = Cluster(directory, copies)
    cluster.home.create_dataset(CALL, A)
    for scene, cells in SCENES.items():
        cluster.store(A, scene, cells)
    yield cluster
    for name in list(cluster.members):
        cluster.stop(name)


@pytest.mark.parametrize("copies", [1, 2])
def test_every_node_follows_and_each_tile_counts_once(cluster: Cluster) -> None:
    assert cluster.recloud(FORTY) == 6  # however many copies there are
    for member in cluster.members.values():
        assert covers(member) == expected(SCENES, 40)
        assert own_thresholds(member) == {40}
        assert member.get_dataset(CALL, "a").cloud_rule == FORTY
    assert cluster.recloud(FORTY) == 0
    cluster.store(A, "later", CELLS)  # planned before
    assert covers(cluster.home) == expected(SCENES | {"later": CELLS}, 40)
    cluster.recloud(PROVIDER)
    for member in cluster.members.values():
        assert covers(member) == expected(SCENES | {"later": CELLS}, None)


@pytest.mark.parametrize("copies", [1, 2])
def test_a_node_that_was_down_hears_of_it_when_it_is_back(cluster: Cluster) -> None:
    dead, alive = cluster.others()
    assert cluster.home.settle(CALL) == []  # all were told all there was to tell
    cluster.down.add(dead.own_id)
    with pytest.raises(UnavailableError, match=f"1 of 2 other nodes did not: node {dead.own_id}"):
        cluster.recloud(FORTY)
    assert own_thresholds(cluster.home) == own_thresholds(alive) == {40}
    assert own_thresholds(dead) == {None}
    assert cluster.home.settle(CALL) == ["dataset/a"]
    with pytest.raises(UnavailableError, match="did not"):
        cluster.recloud(FORTY)  # decided, and still not known to all
    cluster.down.clear()
    assert cluster.home.settle(CALL) == []
    assert own_thresholds(dead) == {40}
    assert covers(dead) == expected(SCENES, 40)


def test_a_node_that_starts_asks_what_it_missed(cluster: Cluster) -> None:
    (dead, _), home = cluster.others(), cluster.home
    cluster.down.add(dead.own_id)
    with pytest.raises(UnavailableError, match="did not"):
        cluster.recloud(FORTY)
    cluster.come_back(dead.own_id)
    assert own_thresholds(cluster.members[dead.own_id]) == {40}
    assert home.settle(CALL) == []


def test_a_node_starts_without_those_who_know(cluster: Cluster) -> None:
    one, _ = cluster.others()
    cluster.down.update({*NAMES} - {one.own_id})
    cluster.come_back(one.own_id)
    assert own_thresholds(cluster.members[one.own_id]) == {None}


def test_an_older_rule_that_is_told_late_is_passed_over(cluster: Cluster) -> None:
    forty = A.with_cloud_rule(FORTY)
    seventy = forty.with_cloud_rule(CloudRule("likelihood", 70))
    cluster.recloud(FORTY)
    cluster.recloud(CloudRule("likelihood", 70))
    for member in cluster.members.values():
        for late in (A, forty, seventy):
            assert member.learn_dataset(CALL, late) == 0
        assert own_thresholds(member) == {70}
    back = seventy.with_cloud_rule(PROVIDER)
    assert sum(member.learn_dataset(CALL, back) for member in cluster.members.values()) == 6


def test_of_two_changes_at_a_time_one_must_read_again(cluster: Cluster) -> None:
    cluster.recloud(FORTY)
    with pytest.raises(ConflictError, match="changed meanwhile"):
        cluster.home.replace_dataset(CALL, A, A.with_cloud_rule(CloudRule("likelihood", 70)))
    unknown = replace(A, id="id-b", name="b")
    with pytest.raises(NotFoundError):
        cluster.first("dataset/b").replace_dataset(CALL, unknown, unknown)
    assert covers(cluster.home) == expected(SCENES, 40)


@pytest.mark.parametrize("at", ["home", "other"])
@pytest.mark.parametrize("step", ["rule.rename", "dataset.{}", "dataset.{}.saved"])
def test_a_node_killed_on_the_way_ends_under_the_rule_of_all(
    cluster: Cluster, at: str, step: str
) -> None:
    is_home = at == "home"
    dying = (cluster.home if is_home else cluster.others()[0]).own_id
    cluster.kill_at = dying, step.format("replace" if is_home else "learn")
    with pytest.raises((KilledError, UnavailableError)):
        cluster.recloud(FORTY)
    for member in cluster.members.values():
        assert len(own_thresholds(member)) == 1  # whole, old or new
    cluster.come_back(dying)
    for _ in range(2):
        for member in cluster.members.values():
            member.settle(CALL)
    decided = not is_home or step == "dataset.{}.saved"
    for member in cluster.members.values():
        assert own_thresholds(member) == {40 if decided else None}
    cluster.recloud(FORTY)
    for member in cluster.members.values():
        assert covers(member) == expected(SCENES, 40)


def test_a_rebuilt_node_goes_by_the_rule(cluster: Cluster) -> None:
    for is_lost in (False, True):
        cluster.recloud(CloudRule("likelihood", 70))
        cluster.recloud(FORTY)
        for name in NAMES:
            cluster.stop(name)
            with Node(cluster.root / name, lock_now=True, is_member=True) as node:
                if is_lost:
                    node.catalog.check()
                    (cluster.root / name / "rules" / "id-a.json").unlink()
                assert node.rebuild().problems == ()
            cluster.start(name)
            cluster.members[name].settle(CALL)
            assert own_thresholds(cluster.members[name]) == {40}
        cluster.recloud(PROVIDER)


@pytest.mark.parametrize("copies", [1, 2])
def test_scenes_and_rules_in_any_order(cluster: Cluster) -> None:
    """Ingests under whichever definition, rules, nodes that are away: against what must be."""
    for seed in range(2):
        rng = random.Random(seed)
        scenes: dict[str, Any] = dict(SCENES) if not seed else scenes  # noqa: F821
        definitions = [A]
        for number in range(6):
            away = rng.choice([None, None, *cluster.others()])
            if away is not None:
                cluster.down.add(away.own_id)
            threshold = rng.choice([None, 0, 40, 70, 100])
            rule = PROVIDER if threshold is None else CloudRule("likelihood", threshold)
            try:
                cluster.recloud(rule)
            except UnavailableError:
                assert away is not None
            definitions.append(cluster.home.get_dataset(CALL, "a"))
            cluster.down.clear()
            scene, cells = f"{rng.choice(['s', 'plain'])}-{seed}-{number}", rng.sample(CELLS, 3)
            cluster.store(rng.choice(definitions), scene, cells)
            scenes[scene] = cells
            assert cluster.home.settle(CALL) == []
            for member in cluster.members.values():
                assert covers(member) == expected(scenes, threshold)
    for member in cluster.members.values():
        assert member.node.verify().problems == ()
