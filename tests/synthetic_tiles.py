"""Made-up tiles for catalog tests and benchmarks: facts without pixels."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.index import CatalogEntry
from geostore.types import (
    BLOCK_DTYPE,
    NULL_TIME,
    BandInfo,
    BandStatistics,
    GroupLayout,
    RowBatch,
    SchemeName,
    TileKey,
    TileMeta,
    TileSchema,
)

US_DAY = 86_400_000_000
GEOHASH_DIGITS = "0123456789bcdefghjkmnpqrstuvwxyz"


def make_schema(
    bands: dict[str, str | None], *, scheme: SchemeName = "geohash", length: int = 5
) -> TileSchema:
    """One group of 512 x 512 pixels in one block; `bands` is name to common name."""
    infos = tuple(
        BandInfo(name=name, common_name=common, dtype="uint16", nodata=0)
        for name, common in bands.items()
    )
    layout = GroupLayout("r10m", 10.0, 512, 512, 512, 512, infos)
    return TileSchema(scheme, length, "fast", (layout,))


SCHEMA = make_schema({"B02": "blue", "B03": "green", "B04": "red", "B08": "nir"})
QUAD_SCHEMA = make_schema({"SR_B4": "red", "SR_B5": "nir"}, scheme="quadtile", length=13)


def make_entry(
    geocode: str = "dqcjq",
    *,
    scene: str = "scene-1",
    version: str = "v1",
    dataset: str = "s2",
    dataset_id: str | None = None,
    schema: TileSchema = SCHEMA,
    time_us: int | None = 0,
    time_end_us: int | None = None,
    platform: str | None = "sentinel-2a",
    coverage: float = 100.0,
    cloud: float | None = 0.0,
    size: int = 100_000,
    histogram: bool | tuple[int, ...] = False,
    properties: dict[str, object] | None = None,
) -> CatalogEntry:
    """An entry whose blocks, statistics and checksum are functions of its key."""
    key = TileKey(dataset_id or f"id-{dataset}", scene, version, geocode)
    checksum = hashlib.blake2b(repr(key).encode(), digest_size=16).hexdigest()
    seed = int(checksum[:8], 16)
    blocks = np.zeros(2 * schema.data_blocks_total, dtype=BLOCK_DTYPE)
    blocks["offset"] = np.arange(len(blocks)) * 1000 + seed % 1000
    blocks["length"] = 900
    blocks["checksum"] = seed
    statistics = tuple(
        BandStatistics(minimum=1.0, maximum=seed % 10_000 + 1.0, mean=2.5, p01=1.0, p99=None)
        for _ in schema.bands
    )
    meta = TileMeta(
        key=key,
        dataset=dataset,
        definition={},
        schema=schema,
        time_us=time_us,
        time_end_us=time_us if time_end_us is None else time_end_us,
        platform=platform,
        pixel_coverage=coverage,
        cloud_cover=cloud,
        cloud_method=None if cloud is None else "SCL 8,9,10",
        cloud_histogram=(tuple(range(101)) if histogram is True else histogram) or None,
        statistics=statistics,
        properties={"product": scene} if properties is None else properties,
    )
    return CatalogEntry(meta=meta, checksum=checksum, bytes=size, blocks=blocks)


def make_batch(entries: Sequence[CatalogEntry]) -> RowBatch:
    """The entries' rows, in the order given; row ids count from 0."""

    def objects(values: list[Any]) -> npt.NDArray[np.object_]:
        column = np.empty(len(values), dtype=np.object_)
        for i, value in enumerate(values):
            column[i] = value
        return column

    metas = [entry.meta for entry in entries]
    return RowBatch(
        row_id=np.arange(len(metas), dtype=np.int64),
        dataset_id=objects([meta.key.dataset_id for meta in metas]),
        dataset=objects([meta.dataset for meta in metas]),
        geocode=objects([meta.key.geocode for meta in metas]),
        scene=objects([meta.key.scene for meta in metas]),
        version=objects([meta.key.version for meta in metas]),
        schema=objects([meta.schema for meta in metas]),
        platform=objects([meta.platform for meta in metas]),
        time_us=np.array([NULL_TIME if m.time_us is None else m.time_us for m in metas], np.int64),
        time_end_us=np.array(
            [NULL_TIME if m.time_end_us is None else m.time_end_us for m in metas], np.int64
        ),
        pixel_coverage=np.array([meta.pixel_coverage for meta in metas], np.float32),
        cloud_cover=np.array(
            [np.nan if meta.cloud_cover is None else meta.cloud_cover for meta in metas], np.float32
        ),
        bytes=np.array([entry.bytes for entry in entries], np.int64),
        nodes=objects([("local",)] * len(metas)),
    )


def many_entries(count: int, *, tiles_a_scene: int = 200, seed: int = 7) -> Iterator[CatalogEntry]:
    """`count` tiles of scenes over ten years: each scene a patch of neighbouring cells."""
    rng = random.Random(seed)
    made = 0
    while made < count:
        patch = "".join(rng.choice(GEOHASH_DIGITS) for _ in range(3))
        number = made // tiles_a_scene
        time_us = rng.randrange(3650) * US_DAY + 1_420_000_000_000_000
        properties: dict[str, object] = {"product": f"S2A_{number}", "baseline": "05.00"}
        cells = [patch + a + b for a in GEOHASH_DIGITS for b in GEOHASH_DIGITS]
        for cell in sorted(rng.sample(cells, min(tiles_a_scene, count - made))):
            yield make_entry(
                cell,
                scene=f"S2A_MSIL2A_{number:08d}_N0500_R004_T{patch}",
                version=f"{number:064x}",
                time_us=time_us,
                coverage=rng.choice([100.0, rng.uniform(0, 100)]),
                cloud=rng.uniform(0, 100),
                size=rng.randrange(100_000, 2_000_000),
                properties=properties,
            )
            made += 1
