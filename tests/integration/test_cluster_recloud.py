"""Cloud rules on three node processes: as on one, through kills, and beside an ingest."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from node_processes import NAMES, NodeProcesses, ring_of_processes, wait_until

from geostore.api.reclouding import recloud, rule_of
from geostore.backends import open_embedded
from geostore.backends.cluster import ClusterBackend
from geostore.errors import GeostoreError, UnavailableError
from geostore.node import Node
from geostore.query import Query
from geostore.types import CloudRule
from tests.clouded_tiles import CELLS, A, covers, expected, put_scene, quick_directory
from tests.local_clusters import done, run

pytestmark = pytest.mark.slow

SCENES: dict[str, Any] = {"s1": CELLS, "plain": CELLS[1:4]}
"""What is in the ring; tests add to it."""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcesses]:
    """One ring for all tests; at last each node's catalog is checked."""
    with (
        quick_directory(tmp_path_factory.mktemp("ring")) as top,
        ring_of_processes(top, replicas=2, lease_s=30.0) as ring,
    ):
        with ring.client() as backend:
            backend.create_dataset(A)
            for scene, cells in SCENES.items():
                put_scene(backend, A, scene, cells)
        yield ring
        ring.stop()
        for name in NAMES:
            with closing(Node(top / name, mode="r", is_member=True)) as node:
                assert node.catalog.check() == []
                assert node.count(Query()) > 0


def told(nodes: NodeProcesses, name: str) -> dict[tuple[str, str], float | None]:
    """Covers as one node tells them."""
    with nodes.client(name) as backend:
        return covers(backend)


def all_tell(nodes: NodeProcesses, threshold: int | None) -> bool:
    due = expected(SCENES, threshold)
    return all(told(nodes, name) == due for name in NAMES)


def lines(text: str) -> list[dict[str, Any]]:
    """Rows of a listing, but for where they lie."""
    return [
        {name: value for name, value in json.loads(line).items() if name != "nodes"}
        for line in text.splitlines()
    ]


def test_one_node_and_three_say_the_same(nodes: NodeProcesses, tmp_path: Path) -> None:
    with open_embedded(tmp_path / "store") as backend:
        backend.create_dataset(A)
        for scene, cells in SCENES.items():
            put_scene(backend, A, scene, cells)
    for number, rule in enumerate(
        (("--threshold", 40), ("--threshold", 0), ("--method", "provider"))
    ):
        target = nodes.target(NAMES[number])
        both = [
            done("--store", store, "dataset", "recloud", "a", *rule)
            for store in (tmp_path / "store", target)
        ]
        assert both[0].stdout == both[1].stdout
        assert both[0].stderr == both[1].stderr
        assert all_tell(nodes, 40 if number == 0 else 0 if number == 1 else None)
        for query in (("--sort", "-cloud"), ("--cloud", "10..60", "--sort", "cloud")):
            one, three = (
                lines(done("--store", store, "query", *query).stdout)
                for store in (tmp_path / "store", nodes.target(NAMES[number - 1]))
            )
            assert three == one


def test_a_node_killed_as_it_learns_catches_up(nodes: NodeProcesses) -> None:
    home, *_ = nodes.keepers("dataset/a")
    dead = next(name for name in NAMES if name != home)
    nodes.arm(dead, "dataset.learn")
    failed = run("--store", nodes.target(home), "dataset", "recloud", "a", "--threshold", 40)
    assert failed.code == 1
    assert f"node {dead} at" in failed.stderr
    nodes.wait_killed(dead)
    alive = next(name for name in NAMES if name not in {home, dead})
    assert told(nodes, alive) == expected(SCENES, 40)  # from the copies that are left
    nodes.restart(dead)
    wait_until(lambda: all_tell(nodes, 40), "the node that was away follows")
    nodes.wait_together()


def test_a_home_killed_as_it_decides_goes_on(nodes: NodeProcesses) -> None:
    home, *_ = nodes.keepers("dataset/a")
    nodes.arm(home, "dataset.replace.saved")
    with nodes.client(home) as backend, pytest.raises(UnavailableError):
        _recloud_once(backend, rule_of(70, None))
    nodes.wait_killed(home)
    nodes.restart(home)
    wait_until(lambda: all_tell(nodes, 70), "all nodes have what was decided")
    nodes.wait_together()


def _recloud_once(backend: ClusterBackend, rule: CloudRule) -> None:
    old = backend.dataset("a")
    backend.replace_dataset(old, old.with_cloud_rule(rule))


def test_rules_beside_an_ingest(nodes: NodeProcesses) -> None:
    stop, scenes, errors = threading.Event(), [], []

    def ingest() -> None:
        with nodes.client() as backend:
            while not stop.is_set():
                scene = f"beside-{len(scenes)}"
                try:
                    put_scene(backend, A, scene, CELLS)  # planned before any rule
                except GeostoreError as error:
                    errors.append(error)
                    return
                scenes.append(scene)

    thread = threading.Thread(target=ingest)
    thread.start()
    try:
        with nodes.client() as backend:
            for threshold in (10, 90, None, 40):
                rule = rule_of(threshold, "provider" if threshold is None else None)
                before = len(scenes)
                wait_until(lambda before=before: errors or len(scenes) > before, "a scene goes in")
                recloud(backend, "a", rule)
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
    assert errors == []
    SCENES.update(dict.fromkeys(scenes, CELLS))
    assert len(scenes) >= 4
    assert all_tell(nodes, 40)
