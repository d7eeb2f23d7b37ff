"""Tiny tiles with clouds, and what their covers must be: counted from the pixels, one by one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.compute import cloud_cover, cloud_mask, likelihood_histogram
from geostore.query import Query
from geostore.tiles import TilePixels, encode_tile, make_schema
from geostore.types import (
    BandInfo,
    BandRole,
    BandStatistics,
    CloudLayer,
    DatasetDefinition,
    EncodedTile,
    ResolutionGroup,
    TileKey,
    TileMeta,
)

SIDE = 32
CELLS = ("dq8x0", "dq8x1", "dq8x2", "dq8x3", "dq9q0", "9q8yy")
A = DatasetDefinition(
    id="id-a",
    name="a",
    scheme="geohash",
    length=5,
    placement=3,
    groups=(ResolutionGroup(150.0, SIDE, SIDE),),
    created_us=1,
)
LAYER = CloudLayer("SCL", "classes", frozenset({8, 9, 10}), nodata_values=frozenset({0}))
BANDS = (
    BandInfo(name="B1", dtype="uint16", nodata=0),
    BandInfo(name="SCL", dtype="uint8", nodata=0, role=BandRole.CLASS),
    BandInfo(name="CLDPRB", dtype="uint8", role=BandRole.LIKELIHOOD),
)
NUMBER = BandStatistics(minimum=1.0, maximum=199.0, mean=100.0, p01=2.0, p99=198.0)

MEMORY = Path("/dev/shm")

_Pixels = npt.NDArray[np.generic]


@contextmanager
def quick_directory(usual: Path) -> Iterator[Path]:
    """A directory in memory where there is one: a process' end needs no real syncs."""
    if not (MEMORY.is_dir() and os.access(MEMORY, os.W_OK)):
        yield usual
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="geostore-test-") as name:
        yield Path(name)


@cache
def pixels(scene: str, cell: str) -> tuple[_Pixels, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """B1, SCL (0: unknown) and CLDPRB (valid where SCL is known) of a tile.

    Scenes named `plain…` have no likelihood. Cell 1 has clear sky alone, and of cell 2 nothing
    is known.
    """
    random = np.random.default_rng([*f"{scene}/{cell}".encode()])
    classes = random.integers(0, 12, (SIDE, SIDE)).astype(np.uint8)
    likelihood = random.integers(0, 101, (SIDE, SIDE)).astype(np.uint8)
    if cell == CELLS[1]:
        classes[classes > 7], likelihood = 4, likelihood // 101
    if cell == CELLS[2]:
        classes[:] = 0
    return random.integers(1, 200, (SIDE, SIDE)).astype(np.uint16), classes, likelihood


def expected_cover(scene: str, cell: str, threshold: int | None) -> float | None:
    """The percent of known pixels that are cloud; `threshold` None: by the provider's classes."""
    _, classes, likelihood = pixels(scene, cell)
    known = cloudy = 0
    for code, percent in zip(classes.ravel().tolist(), likelihood.ravel().tolist(), strict=True):
        if code:
            known += 1
            cloudy += code in (8, 9, 10) if threshold is None else percent >= threshold
    if not known or (threshold is not None and scene.startswith("plain")):
        return None
    return float(np.float32(100 * cloudy / known))


@cache
def make_tile(definition: DatasetDefinition, scene: str, version: str, cell: str) -> EncodedTile:
    """A tile as ingest describes it; its pixels follow from scene and cell."""
    data, classes, likelihood = pixels(scene, cell)
    known: npt.NDArray[np.bool_] | bool = classes != 0
    if not np.any(known):
        known = False
    is_plain = scene.startswith("plain")
    bands = BANDS[:2] if is_plain else BANDS
    cover = cloud_cover(cloud_mask(classes, LAYER), known)
    meta = TileMeta(
        key=TileKey(definition.id, scene, version, cell),
        dataset=definition.name,
        definition=definition.to_json(),
        schema=make_schema("geohash", 5, "fast", [(definition.groups[0], bands)]),
        time_us=1_452_614_802_000_000,
        time_end_us=1_452_614_802_000_000,
        platform="sentinel-2a",
        pixel_coverage=100.0,
        cloud_cover=cover,
        cloud_method=None if cover is None else LAYER.method,
        cloud_histogram=None if is_plain else likelihood_histogram(likelihood, known),
        statistics=(NUMBER,) * len(bands),
    )
    layers: list[Any] = [data, classes, likelihood][: len(bands)]
    masks: list[Any] = [True, known, known][: len(bands)]
    return encode_tile(meta, TilePixels(data=[layers], masks=[masks]))


def put_scene(
    backend: Any, definition: DatasetDefinition, scene: str, cells: Iterable[str], **options: Any
) -> bool:
    """Stores a scene whole; False where it was there."""
    cells = tuple(cells)
    if backend.begin_scene(definition, scene, "v1", cells, **options) is None:
        return False
    tiles = [make_tile(definition, scene, "v1", cell) for cell in cells]
    backend.put_tiles(tiles)
    backend.commit_scene(
        definition.id, scene, "v1", cells, bytes_total=sum(len(t.payload) for t in tiles)
    )
    return True


def covers(backend: Any) -> dict[tuple[str, str], float | None]:
    """Cover by scene and cell, as queries tell it."""
    return {
        (row.key.scene, row.key.geocode): row.cloud_cover
        for batch in backend.query(Query())
        for row in batch.rows()
    }


def expected(
    scenes: Mapping[str, Iterable[str]], threshold: int | None
) -> dict[tuple[str, str], float | None]:
    """What `covers` must be of scenes and their cells."""
    return {
        (scene, cell): expected_cover(scene, cell, threshold)
        for scene, cells in scenes.items()
        for cell in cells
    }
