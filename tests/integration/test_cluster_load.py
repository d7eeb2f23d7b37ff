"""Nodes and ingesters killed with `kill -9` under load: invariants 1, 2, 7 and 8.

Ingesters put and replace scenes, queriers compare every answer with what was acknowledged,
while one process after the other is killed at a seeded moment and started again. A run kills
a few; GEOSTORE_TEST_KILLS=10 kills ten (of a ring without copies five, and all nodes at once),
GEOSTORE_TEST_KILL_SEED sets the moments.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cluster_load import A, compare, read_notes
from node_processes import HERE, NAMES, WAIT_S, NodeProcesses, ring_of_processes, wait_until

from geostore.query import Query

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("GEOSTORE_TEST_KILLS", "2"))
SEED = int(os.environ.get("GEOSTORE_TEST_KILL_SEED", "1"))
INGESTERS = ("ia", "ib")
QUERIERS = ("qa", "qb")
LEASE_S = 3.0
LINES_BETWEEN_MAX = 4 * KILLS
"""Notes between two kills."""


class Load:
    """Ingesters and queriers as processes; each may be started again under its name."""

    def __init__(self, nodes: NodeProcesses, folder: Path) -> None:
        self._nodes = nodes
        self._folder = folder
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._lives = 0

    def start(self, name: str) -> None:
        what = "ingest" if name in INGESTERS else "query"
        self._lives += 1
        with (self._folder / f"{name}.log").open("a") as log:
            self._running[name] = subprocess.Popen(
                [
                    sys.executable, HERE / "cluster_load.py", what, self._nodes.target(),
                    self._folder, name, str(SEED * 1000 + self._lives),
                ],
                stdin=subprocess.PIPE, stdout=log, stderr=log, text=True,
            )  # fmt: skip

    def kill(self, name: str) -> None:
        process = self._running.pop(name)
        assert process.poll() is None, (self._folder / f"{name}.log").read_text()[-2000:]
        process.kill()
        process.communicate(timeout=WAIT_S)

    def stop(self) -> None:
        """Lets each end what it is at."""
        for name, process in self._running.items():
            process.communicate(timeout=WAIT_S)
            assert process.returncode == 0, (self._folder / f"{name}.log").read_text()[-2000:]
        self._running.clear()

    def close(self) -> None:
        for name in list(self._running):
            process = self._running.pop(name)
            process.kill()
            process.communicate(timeout=WAIT_S)

    def lines(self, pattern: str) -> list[str]:
        found = sorted(self._folder.glob(pattern))
        return [line for path in found for line in path.read_text().splitlines()]


@contextmanager
def loaded(nodes: NodeProcesses, folder: Path) -> Iterator[Load]:
    load = Load(nodes, folder)
    try:
        for name in (*INGESTERS, *QUERIERS):
            load.start(name)
        yield load
    finally:
        load.close()


@pytest.mark.parametrize("replicas", [2, 1])
def test_what_was_acknowledged_survives_kills_under_load(tmp_path: Path, replicas: int) -> None:
    chance = random.Random(f"{SEED} {replicas}")
    folder = tmp_path / "notes"
    folder.mkdir()
    with ring_of_processes(tmp_path, replicas=replicas, lease_s=LEASE_S) as nodes:
        with nodes.client() as backend:
            backend.create_dataset(A)
        with loaded(nodes, folder) as load:
            for _ in range(KILLS if replicas > 1 else KILLS // 2):
                wait_for_lines(load, "*.notes", chance.randrange(1, LINES_BETWEEN_MAX))
                wait_for_lines(load, "*.answers", 1)
                victim = chance.choice((*NAMES, *INGESTERS))
                if victim in NAMES:
                    nodes.kill(victim)
                    wait_for_lines(load, "*.answers", chance.randrange(3))
                    nodes.restart(victim)
                    nodes.wait_together()  # else two may be out of reach at once
                else:
                    load.kill(victim)
                    load.start(victim)
            if replicas == 1:
                fail_power(nodes)
            wait_for_lines(load, "*.notes", LINES_BETWEEN_MAX)
            load.stop()
            check_answers(load.lines("*.answers"), nodes, replicas)
        wait_until(lambda: not wrong_at_last(nodes, folder), "all that was acknowledged is there")
        nodes.stop_at_rest([A])


def fail_power(nodes: NodeProcesses) -> None:
    """All nodes at once; then they start side by side, none there to be asked at first."""
    for name in NAMES:
        nodes.kill(name)
    for name in NAMES:
        nodes.begin(name)
    for name in NAMES:
        nodes.serve(name)


def wait_for_lines(load: Load, pattern: str, count: int) -> None:
    before = len(load.lines(pattern))
    wait_until(lambda: len(load.lines(pattern)) >= before + count, f"{count} more of {pattern}")


def check_answers(lines: list[str], nodes: NodeProcesses, replicas: int) -> None:
    assert [line for line in lines if line.startswith("WRONG")] == []
    assert sum(line.startswith("answer") for line in lines) > 2
    errors = [line for line in lines if line.startswith("error")]
    if replicas > 1:
        assert errors == []
    for line in errors:  # it says who cannot be reached
        assert any(address in line for address in nodes.addresses.values()), line


def wrong_at_last(nodes: NodeProcesses, folder: Path) -> list[str]:
    """Compares what each node shows with the notes, when nobody is at work any more."""
    notes = read_notes(folder)
    wrong, answers = [], []
    for name in NAMES:
        with nodes.client(name) as backend:
            keys = [row.key for batch in backend.query(Query()) for row in batch.rows()]
        wrong += compare(notes, notes, keys)
        answers.append(keys)
    assert answers[1:] == answers[:1] * 2
    return wrong
