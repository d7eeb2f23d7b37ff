"""A cluster of real processes covers as a directory does, to the pixel and with its clouds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import geostore
from geostore.api import Store
from geostore.compute import block_bitmaps
from geostore.tiles import TilePixels, encode_tile
from geostore.types import EncodedTile
from tests.clouded_tiles import CELLS, SIDE, A, make_tile, pixels
from tests.local_clusters import running_cluster

SCENES = ("s1", "s2", "plain")


def tile_of(scene: str, cell: str) -> EncodedTile:
    """Seen in part, and clear by its classes but for 7, which says nothing; of `s2` long ago."""
    tile = make_tile(A, scene, "v1", cell)
    data, classes, likelihood = pixels(scene, cell)
    valid = np.zeros((SIDE, SIDE), bool)
    valid[:, : 20 if scene == "s1" else SIDE] = True
    valid[SCENES.index(scene), :] = False
    known = classes != 0
    clear = known & ~np.isin(classes, (7, 8, 9, 10))
    bitmaps = None
    if scene != "s2":
        told = None if tile.meta.cloud_cover is None else clear
        bitmaps = block_bitmaps(valid, told, (SIDE, SIDE), cloud_nodata=(7,))
    meta = replace(tile.meta, bitmaps=bitmaps, pixel_coverage=float(np.float32(100 * valid.mean())))
    count = len(meta.schema.bands)
    mask = known if known.any() else False
    layers = TilePixels([[data, classes, likelihood][:count]], [[valid, mask, mask][:count]])
    return encode_tile(meta, layers)


def fill(store: Store) -> None:
    backend = store._backend
    backend.create_dataset(A)
    for scene in SCENES:
        backend.begin_scene(A, scene, "v1", CELLS)
        backend.put_tiles([tile_of(scene, cell) for cell in CELLS])
        backend.commit_scene(A.id, scene, "v1", CELLS, bytes_total=1)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Store]]:
    """A directory, and a cluster by each of its nodes."""
    folder = tmp_path_factory.mktemp("covering")
    one = geostore.open(str(folder / "one"))
    fill(one)
    with one, running_cluster(Path(folder / "cluster"), nodes=3, replicas=1) as cluster:
        opened = [geostore.open(target) for target in cluster.targets]
        fill(opened[0])
        yield [one, *opened]
        for store in opened:
            store.close()


def test_one_node_and_three_cover_alike(stores: list[Store]) -> None:
    one, *others = stores
    for threshold in (None, 40):
        if threshold is not None:
            one.recloud("a", threshold=threshold)
            others[0].recloud("a", threshold=threshold)
        for asked in (
            {"target": 95},
            {"target": 99, "clear": True},
            {"target": 60, "clear": True, "window": "1M"},
            {"target": 60, "clear": True, "exact": True, "window": None},
            {"target": 60, "clear": True, "refine": False, "geocode": "dq8"},
            {"target": 60, "max_cloud": 50},
            {"target": 60, "scene": "nothing"},
        ):
            expected = list(one.coverage(**asked))
            assert len(expected) > 0 or "scene" in asked or "max_cloud" in asked
            for other in others:
                assert list(other.coverage(**asked)) == expected
