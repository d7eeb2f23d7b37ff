"""Coverage search against a dumb model: tiles with real masks, grouped and united one by one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geostore.compute import block_bitmaps, cloud_cover, percent_valid
from geostore.index import CatalogEntry, LogCatalog, open_catalog
from geostore.query import CoverageRequest, PercentRange, Query, Windows, with_cloud_at_most
from geostore.types import NULL_TIME, BandInfo, GroupLayout, TileSchema
from tests.synthetic_tiles import US_DAY, make_entry

BAND = BandInfo(name="B02", dtype="uint16", nodata=0)
SHAPES = {"odd": (20, 37), "even": (32, 64), "tiny": (5, 9)}
CELLS = ("dqcjq", "dqcjr", "dqcm0", "9q8yy")
WINDOWS = (None, "16D", "1M", "1Y")


def schema_of(name: str) -> TileSchema:
    height, width = SHAPES[name]
    layout = GroupLayout("r10m", 10.0, height, width, height, width, (BAND,))
    return TileSchema("geohash", 5, "fast", (layout,))


SCHEMAS = {name: schema_of(name) for name in SHAPES}


@dataclass(frozen=True)
class Seen:
    entry: CatalogEntry
    valid: np.ndarray
    clear: np.ndarray


def make_mask(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    kind = random.integers(4)
    mask = np.full(shape, kind != 0)
    if kind == 1:  # a swath's edge
        mask[:, random.integers(shape[1]) :] = False
    elif kind == 2:  # scattered holes
        mask = random.random(shape) < 0.99
    return mask


def make_tiles(seed: int, count: int) -> list[Seen]:
    random = np.random.default_rng(seed)
    tiles = []
    for number in range(count):
        dataset = str(random.choice(list(SHAPES)))
        shape = SHAPES[dataset]
        valid, clear = make_mask(random, shape), make_mask(random, shape)
        tells = random.random() < 0.8
        bitmaps = block_bitmaps(valid, clear if tells else None, shape)
        time_us = None if random.random() < 0.1 else int(random.integers(-60, 60)) * US_DAY
        entry = make_entry(
            str(random.choice(CELLS)),
            scene=f"scene-{number:03}",
            dataset=dataset,
            schema=SCHEMAS[dataset],
            time_us=time_us,
            coverage=percent_valid(valid),
            cloud=cloud_cover(~clear, True) if tells else None,
        )
        is_old = random.random() < 0.15
        meta = replace(entry.meta, bitmaps=None if is_old else bitmaps)
        entry = replace(entry, meta=meta)
        tiles.append(Seen(entry, valid, valid & clear if tells else np.zeros(shape, bool)))
    return tiles


def model(
    tiles: list[Seen], windows: Windows | None, *, max_cloud: float | None
) -> dict[tuple[str, str, int], list[Seen]]:
    groups: dict[tuple[str, str, int], list[Seen]] = defaultdict(list)
    for tile in tiles:
        meta = tile.entry.meta
        if max_cloud is not None and not (
            meta.cloud_cover is not None and meta.cloud_cover <= np.float32(max_cloud)
        ):
            continue
        start = NULL_TIME
        if windows is not None:
            if meta.time_us is None:
                continue
            start = int(windows.spans(windows.indices(np.array([meta.time_us])))[0][0])
        groups[meta.dataset, meta.key.geocode, start].append(tile)
    return dict(sorted(groups.items()))


def filled(directory: Path, tiles: list[Seen], seed: int) -> tuple[LogCatalog, list[Seen]]:
    """A catalog that was searched, written to snapshots, opened again and partly emptied while
    the tiles came; and those that stayed.
    """
    random = np.random.default_rng(seed)
    catalog = open_catalog(directory, writable=True)
    there: list[Seen] = []
    for tile in tiles:
        key = tile.entry.meta.key
        catalog.stage([tile.entry])
        catalog.publish(key.dataset_id, key.scene, key.version)
        there.append(tile)
        happens = random.integers(16)
        if happens == 0:
            catalog._home.snapshot()
        elif happens == 1:
            catalog.close()
            catalog = open_catalog(directory, writable=True)
        elif happens == 2 and len(there) > 1:
            gone = there.pop(int(random.integers(len(there)))).entry.meta.key
            catalog.remove(gone.dataset_id, gone.scene)
        elif happens == 3:
            dataset = str(random.choice(list(SHAPES)))
            if any(each.entry.meta.dataset == dataset for each in there):
                catalog.coverage(
                    Query(datasets=(dataset,)), CoverageRequest(target=50, windows=None)
                )
    assert catalog.check() == []
    return catalog, there


@pytest.fixture
def directories(tmp_path: Path) -> Iterator[Path]:
    return (tmp_path / str(number) for number in range(10_000))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 60),
    target=st.sampled_from([0.5, 50, 95, 100]),
    max_cloud=st.sampled_from([None, 0, 20]),
    members=st.sampled_from(["none", "unsure", "all"]),
)
def test_groups_and_bounds(directories, seed, count, target, max_cloud, members) -> None:
    with_catalog, tiles = filled(next(directories), make_tiles(seed, count), seed)
    for window in WINDOWS:
        windows = None if window is None else Windows.parse(window)
        due = model(tiles, windows, max_cloud=max_cloud)
        for clear in (False, True):
            request = CoverageRequest(target=target, windows=windows, clear=clear, members=members)
            answer = with_catalog.coverage(with_cloud_at_most(Query(), max_cloud), request)
            groups = answer.groups
            found = list(zip(groups.dataset, groups.geocode, groups.start_us.tolist(), strict=True))
            assert found == list(due)
            wanted = []
            for index, own in enumerate(due.values()):
                scenes = tuple(sorted(tile.entry.meta.key.scene for tile in own))
                assert groups.scenes(index) == scenes
                assert groups.tiles[index] == len(own)
                union = np.logical_or.reduce([tile.clear if clear else tile.valid for tile in own])
                exact = int(union.sum())
                assert groups.total[index] == union.size
                assert 0 <= groups.lower[index] <= exact <= groups.upper[index] <= union.size
                is_certain, is_possible = groups.reaches(target)
                if is_certain[index]:
                    assert 100 * exact >= target * union.size
                elif not is_possible[index]:
                    assert 100 * exact < target * union.size
                if members == "all" or (
                    members == "unsure" and is_possible[index] and not is_certain[index]
                ):
                    wanted += [(index, scene) for scene in scenes]
            rows = [] if answer.members is None else answer.members.scene.tolist()
            assert sorted(zip(answer.member_group.tolist(), rows, strict=True)) == wanted
    with_catalog.close()


def test_whole_blocks_make_bounds_meet(tmp_path: Path) -> None:
    """Masks that follow blocks leave nothing unsure; halves of a cell add up."""
    shape = SHAPES["even"]
    west = np.zeros(shape, bool)
    west[:, : shape[1] // 2] = True
    catalog = open_catalog(tmp_path, writable=True)
    for scene, mask in (("west", west), ("east", ~west)):
        entry = make_entry(
            scene=scene, dataset="even", schema=SCHEMAS["even"], coverage=percent_valid(mask)
        )
        meta = replace(entry.meta, bitmaps=block_bitmaps(mask, mask, shape))
        catalog.stage([replace(entry, meta=meta)])
        catalog.publish("id-even", scene, "v1")
    for clear in (False, True):
        request = CoverageRequest(target=100, windows=None, clear=clear)
        groups = catalog.coverage(Query(), request).groups
        assert (groups.lower.tolist(), groups.upper.tolist()) == ([2048], [2048])
        groups = catalog.coverage(Query(scene="west"), request).groups
        assert (groups.lower.tolist(), groups.upper.tolist()) == ([1024], [1024])
    assert len(catalog.coverage(Query(cloud=PercentRange(50, None)), request).groups) == 0
    catalog.close()
