"""A tile's bytes do not depend on chunk sizes, threads or memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from geostore.ingest.datasets import DatasetRequest, complete, define
from geostore.ingest.memory import Budget
from geostore.ingest.plan import plan_scene
from geostore.ingest.schedule import tiles
from geostore.scenes import open_source, readers
from tests.oracle.conftest import DATELINE, MAIN, RGB


def _checksums(
    path: Path, scheme: str, resampling: str, chunk_px: int, workers: int, budget: int
) -> dict[str, str]:
    (scene,) = open_source(str(path))
    try:
        request = DatasetRequest(scheme=scheme, resampling=resampling)
        definition = complete(define("d", request, readers()[scene.reader]), scene)
        # Ids and times are the store's, not the pixels': fixed here to compare bytes.
        definition = type(definition)(
            **{
                **{n: getattr(definition, n) for n in definition.__slots__},
                "id": "0" * 32,
                "created_us": 0,
            }
        )
        plan = plan_scene(scene, definition, chunk_px=chunk_px)
        with ThreadPoolExecutor(workers) as executor:
            return {
                cell.geocode: tile.checksum
                for cell, tile in tiles(plan, executor, workers=workers, budget=Budget(budget))
                if tile is not None
            }
    finally:
        scene.close()


@pytest.mark.parametrize(
    ("path", "scheme", "resampling"),
    [
        (RGB, "geohash", "nearest"),
        (RGB, "quadtile", "nearest"),
        (RGB, "quadtile", "bilinear"),
        (DATELINE, "geohash", "nearest"),
        (DATELINE, "geohash", "bilinear"),
        (MAIN, "geohash", "nearest"),
    ],
)
def test_same_bytes_whatever_the_chunks_workers_and_memory(
    shared_data: Path, path: str, scheme: str, resampling: str
) -> None:
    source = shared_data / path
    base = _checksums(source, scheme, resampling, 1 << 20, 2, 512 << 20)
    assert base
    assert _checksums(source, scheme, resampling, 1 << 14, 1, 1) == base
    assert _checksums(source, scheme, resampling, 1 << 30, 3, 64 << 20) == base
