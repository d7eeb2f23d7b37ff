"""Real scenes in both schemes, stored once for all oracle tests: embedded, and in a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

import geostore
from geostore.api import Store
from geostore.types import SceneResult
from tests.local_clusters import RunningCluster, running_cluster
from tests.oracle.copying import copy_scenes

MAIN = "sentinel2/S2A_MSIL1C_20160112T160642_N0201_R097_T18SVG_20160112T160642.SAFE.zip"
L2A = "sentinel2/S2A_MSIL2A_20221005T115411_N0400_R023_T29UNU_20221005T164454.SAFE"
RGB = "generic/RGB.byte.tif"
DATELINE = "generic/cog_dateline.tif"
SCENES = {"main": MAIN, "l2a": L2A, "rgb": RGB, "dateline": DATELINE}
SCHEMES = ("geohash", "quadtile")
CLUSTER_NODES = ("n1", "n2", "n3")
IS_FULL = os.environ.get("CONGRUENCE") == "full"
"""Every scene is ingested into the cluster, and every query asked through each of its nodes. Else
scenes that take long are copied there from the embedded store, and each node is asked a part."""
COPIED = () if IS_FULL else ("l2a-geohash", "l2a-quadtile", "main-quadtile")


@dataclass(frozen=True)
class RealStore:
    """A store and where its scenes came from; dataset names are `<scene>-<scheme>`."""

    store: Store
    sources: dict[str, Path]
    results: dict[str, SceneResult]
    directory: Path


@pytest.fixture(scope="session")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RealStore:
    directory = tmp_path_factory.mktemp("real") / "store"
    store = geostore.open(str(directory))
    results = {}
    for scheme in SCHEMES:
        for name, path in SCENES.items():
            (result,) = store.ingest(
                [shared_data / path], dataset=f"{name}-{scheme}", scheme=scheme
            )
            assert result.error is None, result
            results[f"{name}-{scheme}"] = result
    return RealStore(
        store, {name: shared_data / path for name, path in SCENES.items()}, results, directory
    )


@dataclass(frozen=True)
class RealCluster:
    """Three nodes that were told what the embedded store was told; a client through each."""

    cluster: RunningCluster
    stores: dict[str, Store]
    """By the name of the node that is asked."""
    results: dict[str, SceneResult]
    """Of the scenes that were ingested, not copied."""


@pytest.fixture(scope="session")
def real_cluster(
    real: RealStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealCluster]:
    directory = tmp_path_factory.mktemp("real") / "cluster"
    with ExitStack() as stack:
        cluster = stack.enter_context(running_cluster(directory, nodes=3, replicas=1))
        stores = {
            name: stack.enter_context(geostore.open(target))
            for name, target in zip(CLUSTER_NODES, cluster.targets, strict=True)
        }
        results = {}
        for number, (dataset, ingested) in enumerate(real.results.items()):
            name, _, scheme = dataset.partition("-")
            store = stores[CLUSTER_NODES[number % 3]]
            if dataset in COPIED:
                assert copy_scenes(real.directory, cluster.target, dataset) == ingested.tiles
            else:
                (result,) = store.ingest([real.sources[name]], dataset=dataset, scheme=scheme)
                results[dataset] = result
        yield RealCluster(cluster, stores, results)
