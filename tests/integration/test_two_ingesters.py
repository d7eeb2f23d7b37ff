"""Two ingesters of one store, killed and begun again: it ends as after one clean run.

Real processes on an embedded store, where they take turns, and on three nodes. Each is killed
with SIGKILL when a random number of its results is out (further scenes are under way then),
and begun again with the same words, until a last run goes through. One seed runs two of the four
cases; GEOSTORE_TEST_INGESTER_SEEDS says how many to run of all.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import geostore
from tests.local_clusters import running_cluster

SEEDS = range(int(os.environ.get("GEOSTORE_TEST_INGESTER_SEEDS", "1")))
KILLS = 2
RUN_S = 120.0


@pytest.fixture(scope="module")
def rasters(
    tmp_path_factory: pytest.TempPathFactory, write_raster: Callable[..., Path]
) -> list[Path]:
    """Twelve scenes of a few tiles each, side by side, of two bands."""
    folder = tmp_path_factory.mktemp("rasters")
    rng = np.random.default_rng(7)
    return [
        write_raster(
            folder / f"scene-{number:02}.tif",
            rng.integers(1, 4000, (2, 96, 96), dtype="uint16"),
            transform=(100.0, 0.0, 300_000.0 + 2_000 * number, 0.0, -100.0, 4_200_000.0),
        )
        for number in range(12)
    ]


def contents(target: str | Path) -> tuple[list[dict[str, Any]], dict[tuple[str, str], str]]:
    """Every row but what depends on nodes, and a checksum of every tile's pixels and mask."""
    with geostore.open(target, mode="r") as store:
        rows = []
        pixels = {}
        for tile in store.query():
            rows.append({**tile.to_json(), "nodes": None})
            array = tile.read()
            digest = hashlib.sha256(array.data.tobytes() + array.mask.tobytes())
            pixels[tile.scene, tile.geocode] = digest.hexdigest()
        assert store.verify().problems == ()
    return rows, pixels


def ingest_until_done(target: str, paths: Sequence[Path], rng: random.Random) -> list[str]:
    """The statuses of the last run, after KILLS runs that were killed."""
    words = ["--store", target, "ingest", "--workers", "2", *map(str, paths)]
    for run in range(KILLS + 1):
        process = subprocess.Popen(
            [sys.executable, "-m", "geostore_cli", *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            if run < KILLS:
                assert process.stdout is not None
                for _ in range(rng.randrange(len(paths) // 2)):
                    process.stdout.readline()
                continue
            stdout, stderr = process.communicate(timeout=RUN_S)
            assert process.returncode == 0, stderr
            return [json.loads(line)["status"] for line in stdout.splitlines()]
        finally:
            process.kill()
            process.communicate()
    raise AssertionError("the last run returns")


@contextmanager
def embedded(directory: Path) -> Iterator[str]:
    yield str(directory / "store")


@contextmanager
def three_nodes(directory: Path) -> Iterator[str]:
    with running_cluster(directory / "cluster", nodes=3, replicas=1) as cluster:
        yield cluster.targets[0]


CASES = [(embedded, "the same"), (three_nodes, "overlapping")]
if len(SEEDS) > 1:
    CASES += [(embedded, "overlapping"), (three_nodes, "the same")]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("where", "lists"), CASES)
def test_two_ingesters_that_are_killed_end_as_one_clean_run(
    seed: int,
    where: Callable[[Path], Any],
    lists: str,
    rasters: list[Path],
    tmp_path: Path,
) -> None:
    rng = random.Random(f"{seed} {where.__name__} {lists}")
    if lists == "the same":
        of_each = [rng.sample(rasters, len(rasters)) for _ in range(2)]
    else:
        of_each = [rasters[:8], rasters[4:]]
    with geostore.open(tmp_path / "clean") as store:
        assert {str(one.status) for one in store.ingest(rasters)} == {"ingested"}
    with where(tmp_path) as target:
        ended: dict[int, list[str]] = {}
        threads = [
            threading.Thread(
                target=lambda one, paths, own: ended.update(
                    {one: ingest_until_done(target, paths, own)}
                ),
                args=(one, paths, random.Random(rng.random())),
            )
            for one, paths in enumerate(of_each)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(ended) == [0, 1], "a run failed: its error is above"
        for statuses in ended.values():
            assert set(statuses) <= {"ingested", "unchanged"}
        assert contents(target) == contents(tmp_path / "clean"), f"seed {seed}"
