"""Real node processes and ingesters killed at their seams, gRPC between them.

A few of each class of steps; all of them, without sockets, are in `test_cluster_crash.py`.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from node_processes import HERE, WAIT_S, NodeProcesses, ring_of_processes, wait_until
from ring_checks import small

from geostore.errors import ConflictError, GeostoreError, UnavailableError

pytestmark = pytest.mark.slow

A, B, CELLS = small.A, small.B, small.CELLS
LEASE_S = 2.0


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcesses]:
    """One ring for all tests; at last its disks are looked at."""
    top = tmp_path_factory.mktemp("ring")
    with ring_of_processes(top, replicas=2, lease_s=LEASE_S) as ring:
        with ring.client() as backend:
            backend.create_dataset(A)
        yield ring
        ring.stop_at_rest([A])


def seen_of(nodes: NodeProcesses, *prefixes: str) -> dict[str, dict[str, list[str]]]:
    """What queries show through each node of scenes that begin so."""
    return {
        name: {version: sorted(cells) for version, cells in of.items()}
        for name, of in nodes.seen().items()
        if name.startswith(prefixes)
    }


def test_nodes_killed_at_their_seams_lose_nothing(nodes: NodeProcesses) -> None:
    place = CELLS[0][: A.placement]

    def put(scene: str, version: str, cells: tuple[str, ...]) -> None:
        with nodes.client() as backend:
            small.put_scene(backend, A, scene, version, cells, replace=True)

    def killed_at(step: str, name: str, scene: str, version: str, cells: tuple[str, ...]) -> None:
        """The put fails or goes through; after the node's return it is done again."""
        nodes.arm(name, step)
        with suppress(GeostoreError):
            put(scene, version, cells)
        nodes.wait_killed(name)
        nodes.restart(name)
        # An ingester that was told of a failure may try again as soon as it likes.
        wait_until(lambda: is_put(scene, version, cells), f"{scene} goes in")
        expected[f"a/{scene}"] = {version: sorted(cells)}
        assert seen_of(nodes, "a/killed", "b/") == expected

    def is_put(scene: str, version: str, cells: tuple[str, ...]) -> bool:
        try:
            put(scene, version, cells)
        except (ConflictError, UnavailableError):
            # The first one's lease; or a node that has not tried again yet to reach this one.
            return False
        return True

    expected: dict[str, dict[str, list[str]]] = {}
    first, second = nodes.keepers(place)
    home, copy = nodes.keepers(f"scene/{A.id}/killed")
    killed_at("put.renamed", first, "killed", "v1", CELLS[:4])
    killed_at("staged", second, "killed", "v2", CELLS[:3])
    killed_at("record.committed.saved", home, "killed", "v3", CELLS[1:4])
    killed_at("copy.saved", copy, "killed", "v4", CELLS[:2])
    killed_at("publish.done", first, "killed", "v5", CELLS[:5])

    # Once more in the life after: decided, not shown, and killed while the start shows it.
    nodes.arm(second, "publish")
    with suppress(GeostoreError):
        put("killed", "v6", CELLS[:2])
    nodes.wait_killed(second)
    nodes.arm(second, "publish.done")
    nodes.begin(second)
    nodes.wait_killed(second)
    nodes.restart(second)
    wait_until(lambda: is_put("killed", "v6", CELLS[:2]), "it goes in")
    expected["a/killed"] = {"v6": sorted(CELLS[:2])}
    assert seen_of(nodes, "a/killed", "b/") == expected

    other = nodes.keepers("dataset/b")[0]
    nodes.arm(other, "dataset.create.saved")
    with nodes.client() as backend, suppress(GeostoreError):
        backend.create_dataset(B)
    nodes.wait_killed(other)
    nodes.restart(other)

    def is_b_in() -> bool:
        with nodes.client() as backend, suppress(UnavailableError):
            if B not in backend.datasets():
                backend.create_dataset(B)
            small.put_scene(backend, B, "killed", "v1", CELLS[:2])
            return True
        return False

    wait_until(is_b_in, "dataset b and its scene go in")
    with nodes.client() as backend:
        nodes.arm(other, "delete.tombstoned")
        with suppress(GeostoreError):
            backend.delete_dataset("b")
    nodes.wait_killed(other)
    nodes.restart(other)
    wait_until(lambda: seen_of(nodes, "a/killed", "b/") == expected, "dataset b is gone")


def test_after_a_dead_ingesters_lease_another_takes_over(nodes: NodeProcesses) -> None:
    with nodes.client() as backend:
        for number, step in enumerate(("begun", "put.done", "commit", "committed")):
            scene = f"dead{number}"
            done = subprocess.run(
                [
                    sys.executable, HERE / "cluster_load.py", "once", nodes.target(), scene,
                    "v1", step,
                ],
                check=False, capture_output=True, text=True, timeout=WAIT_S,
            )  # fmt: skip
            assert done.returncode == -9, done.stderr
            if step == "committed":
                assert small.seen(backend)[f"a/{scene}"] == {"v1": sorted(CELLS[:4])}
            else:
                assert f"a/{scene}" not in small.seen(backend)
                with pytest.raises(ConflictError, match="another ingester"):
                    small.put_scene(backend, A, scene, "v2", CELLS[2:], replace=True)

        def is_taken_over() -> bool:
            try:
                for number in range(4):
                    small.put_scene(backend, A, f"dead{number}", "v2", CELLS[2:], replace=True)
            except ConflictError:
                return False
            return True

        wait_until(is_taken_over, "the leases end")
    whole = {"v2": sorted(CELLS[2:])}
    assert seen_of(nodes, "a/dead") == {f"a/dead{number}": whole for number in range(4)}


def test_two_ingesters_of_one_scene_end_in_one_version(nodes: NodeProcesses) -> None:
    both, versions = threading.Barrier(2), ("v1", "v2")
    outcomes: dict[str, list[str]] = {version: [] for version in versions}

    def ingest(version: str) -> None:
        with nodes.client() as backend:
            for scene, of in (("same", "v0"), ("other", version)):
                both.wait(WAIT_S)
                try:
                    small.put_scene(backend, A, scene, of, CELLS[:5], replace=True)
                except ConflictError as error:
                    outcomes[version].append(str(error))
                else:
                    outcomes[version].append("done")

    threads = [threading.Thread(target=ingest, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    seen = seen_of(nodes, "a/same", "a/other")
    assert seen["a/same"] == {"v0": sorted(CELLS[:5])}
    assert [outcome[0] for outcome in outcomes.values()] == ["done", "done"]
    [(winner, cells)] = seen["a/other"].items()
    assert cells == sorted(CELLS[:5])
    assert outcomes[winner][1] == "done"
    for outcome in outcomes.values():
        assert outcome[1] == "done" or "another ingester is putting it" in outcome[1]
