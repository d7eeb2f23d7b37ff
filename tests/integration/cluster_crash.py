"""Plays on a ring of three members, each of which, or the ingester, dies at any step.

    python cluster_crash.py FOLDER EVERY SEED [FAULT]

kills the play at every EVERY-th step, with a fault of `PLANTED` if one is named.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from local_ring import INGESTER, NAMES, Cluster, KilledError, Process, small

from geostore.backends.cluster import ClusterBackend
from geostore.errors import GeostoreError
from geostore.node.member import Member

PLAYS_MAX = 4
WAYS = ("with its ingester", "under its ingester", "for a moment", "with all others")
"""What else goes on when a node dies: its ingester is killed too, or begins again once the
node is back, or goes on while the node comes back at once; or the power fails for all."""


# ---------------------------------------------------------------------- one case


def play(backend: ClusterBackend, log: Path) -> None:
    with log.open("a") as file:

        def acknowledge(line: str) -> None:
            file.write(line + "\n")
            file.flush()

        small.play(backend, acknowledge)


CELLS = ("dq8x0", "dq9q0", "9q8yy", "dq8x3", "dq8x1", "dq8x2")
"""In an order by which the play's scenes lie at several nodes, and a replacement at fewer."""


def prepare_play() -> None:
    """Puts tiles one a call and in order, so that each run has the same steps."""
    put, names = small.put_scene, small.play.__globals__
    names["put_scene"] = lambda *args, **named: put(*args, **named, batch=1)
    names["CELLS"] = CELLS
    small.FINAL = {"a/s1": {"v2": [CELLS[0], CELLS[3]]}, "a/s2": {"v1": list(CELLS[2:5])}}
    names["POSSIBLE"] = {
        "a/s1": {"v1": sorted(CELLS[:3]), "v2": sorted((CELLS[0], CELLS[3]))},
        "a/s2": {"v1": sorted(CELLS[2:5])},
        "a/s3": {},
        "b/s1": {"v1": sorted(CELLS[:2])},
    }


def names_of_steps(top: Path, replicas: int) -> dict[str, list[str]]:
    """The steps of each process when nobody dies."""
    processes = {name: Process() for name in (*NAMES, INGESTER)}
    cluster = Cluster(top, replicas, processes)
    cluster.start()
    with cluster.client(processes[INGESTER]) as backend:
        play(backend, top / "log")
    assert cluster.settle(gives_up=True) == []
    wrong = cluster.check_seen(top / "log") + cluster.check_at_rest()
    assert wrong == [], wrong
    return {name: process.names for name, process in processes.items()}


def play_through(cluster: Cluster, ingester: Process, log: Path, way: str) -> list[str]:
    """Plays until it is done, whatever dies on the way; what is wrong meanwhile."""
    wrong: list[str] = []
    backend = cluster.client(ingester)
    for _ in range(PLAYS_MAX):
        if way == "for a moment":
            backend._nodes.while_it_waits = cluster.revive  # type: ignore[attr-defined]
        failure = ""
        try:
            play(backend, log)
        except (GeostoreError, KilledError) as error:
            failure = f"{type(error).__name__}: {error}"
        has_died = cluster.revive() or ingester.is_dead
        if not failure and not has_died:
            break
        is_killed = ingester.is_dead or way == "with its ingester"
        if failure and is_killed:
            backend.close()
            ingester = Process()
            backend = cluster.client(ingester)
        cluster.now_s += 20.0  # in the end the grace is over that a home's start gives
        left = cluster.settle(gives_up=is_killed)
        wrong += [f"after {failure}: {text}" for text in cluster.check_seen(log)]
        if is_killed:
            wrong += [f"after {failure}: {text} is open" for text in left]
            wrong += [f"after {failure}: {text}" for text in cluster.check_at_rest()]
        if not failure:
            break
    else:
        wrong.append(f"it never comes to an end: {failure}")
    backend.close()
    return wrong


def check_end(cluster: Cluster, log: Path) -> list[str]:
    wrong = [f"{text} is open" for text in cluster.settle(gives_up=True)]
    wrong += cluster.check_seen(log) + cluster.check_at_rest()
    with cluster.client(Process()) as backend:
        shown = small.seen(backend)
    final = {name: {v: sorted(c) for v, c in vs.items()} for name, vs in shown.items()}
    if final != {name: {v: sorted(c) for v, c in vs.items()} for name, vs in small.FINAL.items()}:
        wrong.append(f"seen {final}")
    return [f"at the end: {text}" for text in wrong]


def crash_alone(top: Path, replicas: int, who: str, number: int, way: str) -> list[str]:
    """One process dies while the others live on."""
    log, process = top / "log", Process(number)
    cluster = Cluster(top, replicas, {who: process})
    if number % 2:
        cluster.second_stop = number // 2 % 12
    ingester = process if who == INGESTER else Process()
    cluster.start()
    wrong = play_through(cluster, ingester, log, way)
    wrong += check_end(cluster, log)
    if not process.is_dead:
        wrong.append("nobody died there")
    return wrong


def fail_power(top: Path, replicas: int, who: str, number: int) -> None:
    cluster = Cluster(top, replicas, {who: Process(number, ends_all=True)})
    cluster.start()
    with cluster.client(Process()) as backend:
        play(backend, top / "log")
    cluster.settle(gives_up=True)


def recover_all(top: Path, replicas: int) -> list[str]:
    log = top / "log"
    cluster = Cluster(top, replicas, {})
    cluster.start()
    wrong = [f"{text} is open" for text in cluster.settle(gives_up=True)]
    wrong += cluster.check_seen(log) + cluster.check_at_rest()
    wrong = [f"after the power came back: {text}" for text in wrong]
    wrong += play_through(cluster, Process(), log, "under its ingester")
    return wrong + check_end(cluster, log)


def crash_at(top: Path, replicas: int, who: str, number: int, way: str) -> list[str]:
    top.mkdir()
    try:
        if way == WAYS[3] and who != INGESTER:
            status, told = small._Child(lambda: fail_power(top, replicas, who, number)).wait()
            wrong = [] if status == small.KILLED else [f"nobody died there: {status} {told}"]
            action = partial(recover_all, top, replicas)
        else:
            wrong, action = [], partial(crash_alone, top, replicas, who, number, way)
        return wrong + (small._Child(action).wait()[1] or [])
    finally:
        shutil.rmtree(top)


# ---------------------------------------------------------------------- all cases


def crash_everywhere(top: Path, every: int, seed: int, workers: int = 2) -> dict[str, Any]:
    """Kills each process at every `every`-th of its steps, and checks what is left."""
    logging.disable(logging.WARNING)
    prepare_play()
    for definition, version in ((small.A, "v1"), (small.A, "v2"), (small.B, "v1")):
        for scene in ("s1", "s2", "s3"):
            for cell in CELLS:  # encoded once here, for all children
                small.make_tile(definition, scene, version, cell)
    cases, steps = [], Counter[str]()
    for replicas in (2, 1):
        (top / f"whole{replicas}").mkdir()
        whole = partial(names_of_steps, top / f"whole{replicas}", replicas)
        status, found = small._Child(whole).wait()
        assert status == 0, found
        for who, names in found.items():
            steps.update(names)
            cases += [(replicas, who, number, name) for number, name in enumerate(names)]

    def crash_some(first: int) -> list[str]:
        wrong = []
        for index in range(first, len(cases), workers):
            if index % every != seed % every:
                continue
            replicas, who, number, name = cases[index]
            way = WAYS[(index // every + seed) % len(WAYS)]
            said = crash_at(top / f"case{index}", replicas, who, number, way)
            where = f"R={replicas} {who} dies {way} at step {number} ({name})"
            wrong += [f"{where}: {text}" for text in said]
        return wrong

    children = [small._Child(partial(crash_some, first)) for first in range(workers)]
    wrong = [text for child in children for text in child.wait()[1]]
    return {"steps": steps, "cases": len(cases), "wrong": wrong}


def _nothing(*_: Any, **__: Any) -> list[str]:
    return []


PLANTED: dict[str, tuple[type, str, Callable[..., Any]]] = {
    "nothing is settled": (Member, "settle", _nothing),
}

if __name__ == "__main__":
    folder, every_text, seed_text, *planted = sys.argv[1:]
    for fault in filter(None, planted):
        setattr(*PLANTED[fault])
    print(json.dumps(crash_everywhere(Path(folder), int(every_text), int(seed_text))))
