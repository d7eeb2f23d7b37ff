"""An ingest spread over Dask workers: the same store as by threads, and clear refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import geostore
from geostore.errors import InvalidInputError, UnavailableError
from geostore.types import IngestProgress
from tests.local_clusters import RunningCluster, run, running_cluster

distributed = pytest.importorskip("distributed")

SCENES = 5


@pytest.fixture(scope="module")
def rasters(
    tmp_path_factory: pytest.TempPathFactory, write_raster: Callable[..., Path]
) -> list[Path]:
    folder = tmp_path_factory.mktemp("rasters")
    return [
        write_raster(
            folder / f"scene-{number}.tif",
            np.full((1, 64, 64), number + 1, "uint8"),
            transform=(100.0, 0.0, 300_000.0 + 7_000 * number, 0.0, -100.0, 4_200_000.0),
        )
        for number in range(SCENES)
    ]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    with running_cluster(tmp_path_factory.mktemp("dask") / "c", nodes=3, replicas=1) as running:
        yield running


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a Dask cluster that is there already, of one worker process."""
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0"
    ) as one:
        yield one.scheduler_address.removeprefix("tcp://")


def test_a_scheduler_that_is_there_spreads_the_scenes(
    cluster: RunningCluster, scheduler: str, rasters: list[Path], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.tif"
    bad.write_bytes(b"II*\0 no raster")
    steps: list[IngestProgress] = []
    with geostore.open(cluster.target) as store:
        store.create_dataset("spread", resolution=100)
        results = store.ingest(
            [*rasters[:2], bad, *rasters[2:]],
            dataset="spread",
            executor=f"dask://{scheduler}",
            progress=steps.append,
        )
        statuses = [str(one.status) for one in results]
        assert statuses == ["ingested"] * 2 + ["failed"] + ["ingested"] * 3
        assert [one.path for one in results[:2]] == [str(path) for path in rasters[:2]]
        assert "bad.tif" in (results[2].error or "")
        assert store.query(dataset="spread").count() == sum(one.tiles for one in results)
        again = store.ingest(rasters, dataset="spread", executor=f"dask://{scheduler}")
        assert {str(one.status) for one in again} == {"unchanged"}
    assert [step.sources_done for step in steps] == list(range(SCENES + 1))
    assert steps[-1].stored_tiles == sum(one.tiles for one in results)


def test_a_cluster_of_this_machine_is_started_and_ended(
    cluster: RunningCluster, rasters: list[Path]
) -> None:
    words = ("--store", cluster.target, "ingest", "--dataset", "local", "--resolution", "100")
    ran = run(*words, "--executor", "dask", "--workers", "1", *rasters)
    assert ran.code == 0, ran
    assert ran.stdout.count('"ingested"') == SCENES
    with geostore.open(cluster.target) as store, geostore.open(cluster.target) as other:
        local = [(tile.geocode, tile.scene) for tile in store.query(dataset="local")]
        assert local == [(tile.geocode, tile.scene) for tile in other.query(dataset="spread")]


def test_a_scene_does_not_decide_where_nobody_knows_which_is_the_first(
    cluster: RunningCluster, scheduler: str, rasters: list[Path]
) -> None:
    with geostore.open(cluster.target) as store:
        results = store.ingest(rasters, dataset="undecided", executor=f"dask://{scheduler}")
        for one in results:
            assert "geostore dataset create undecided --resolution" in (one.error or "")
        assert "undecided" not in [one.name for one in store.datasets()]


def test_a_scheduler_that_is_not_there_is_named(
    cluster: RunningCluster, rasters: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geostore.ingest.spreading.CONNECT_SECONDS", 0.2)
    with (
        geostore.open(cluster.target) as store,
        pytest.raises(UnavailableError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"),
    ):
        store.ingest(rasters, dataset="x", executor="dask://127.0.0.1:9")


def test_an_executor_that_is_none_is_refused(cluster: RunningCluster, rasters: list[Path]) -> None:
    with geostore.open(cluster.target) as store, pytest.raises(InvalidInputError, match="ray"):
        store.ingest(rasters, executor="ray")
