"""A changed file of the same scene: a conflict, or with `--replace` a new version and no more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pyproj import Transformer

import geostore
from tests.local_clusters import run, running_cluster

# The south-west quarter of quad 17 of the square degree below 36 N, 77 W.
NAME = "m_3607717_sw_18_1_20160620.tif"
WEST, SOUTH, EAST, NORTH = -78.0, 36.625, -77.9375, 36.6875


def write_quarter(path: Path, write_raster: Callable[..., Path], side: int, value: int) -> Path:
    """A NAIP quarter quad of 4 m pixels around the place that its name says."""
    to_utm = Transformer.from_crs("EPSG:4326", "EPSG:26918", always_xy=True)
    x, y = to_utm.transform((WEST + EAST) / 2, (SOUTH + NORTH) / 2)
    half = side * 4.0 / 2
    pixels = np.full((4, side, side), value, "uint8")
    return write_raster(
        path, pixels, crs="EPSG:26918", transform=(4.0, 0.0, x - half, 0.0, -4.0, y + half)
    )


@pytest.mark.parametrize("nodes", [0, 2])
def test_a_changed_scene_replaces_only_when_told_and_leaves_nothing_of_the_old(
    tmp_path: Path, write_raster: Callable[..., Path], nodes: int
) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / NAME
    if nodes:
        with running_cluster(tmp_path / "cluster", nodes=nodes, replicas=1) as cluster:
            _play(cluster.target, path, write_raster)
    else:
        _play(str(tmp_path / "store"), path, write_raster)


def _play(target: str, path: Path, write_raster: Callable[..., Path]) -> None:
    words = ("--store", target, "ingest")
    write_quarter(path, write_raster, 1200, 10)
    ran = run(*words, path)
    assert ran.code == 0, ran
    with geostore.open(target, mode="r") as store:
        large = {tile.geocode for tile in store.query(dataset="naip")}
    assert len(large) > 20

    write_quarter(path, write_raster, 500, 20)
    ran = run(*words, path)
    assert ran.code == 1
    assert "--replace" in ran.stderr
    with geostore.open(target, mode="r") as store:
        assert {tile.geocode for tile in store.query(dataset="naip")} == large

    ran = run(*words, "--replace", path)
    assert ran.code == 0, ran
    with geostore.open(target, mode="r") as store:
        small = list(store.query(dataset="naip"))
        assert {tile.geocode for tile in small} < large
        assert {tile.scene for tile in small} == {NAME.removesuffix(".tif")}
        for tile in small:
            array = tile.read(bands=["red"])
            assert set(np.unique(array.data[array.mask]).tolist()) == {20}
        assert store.verify().problems == ()
    assert '"unchanged"' in run(*words, path).stdout
