"""A million made-up tiles as columns, the same for whoever is asked about them.

Two spreads, because an index may be good at one and poor at the other:

`scattered`: chips drawn from scenes all over a land-like globe, ten a scene within a degree. A
box of 2 x 2 degrees, three months and a bound on clouds leave a row or two: what is measured is
what a query costs before it finds anything.

`scenes`: footprints of 16 x 16 neighbouring cells, nine beside each other, seen again about
sixty times in ten years. The same box leaves some hundred rows.

All is drawn from one seed, so that a number of tiles names one set of them. No object a tile is
made: a million take a second or two.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xxhash

from geostore.grid import GEOHASH
from geostore.index import CatalogEntry, PackedTiles
from geostore.index.effects import Scene, Schema
from geostore.index.packing import DETAILS_HEADER, ROW_DTYPE, Group, pack_details
from geostore.types import (
    BLOCK_DTYPE,
    NULL_TIME,
    BandStatistics,
    BlockBitmaps,
    RowBatch,
    TileKey,
    TileMeta,
    TileSchema,
)
from tests.synthetic_tiles import US_DAY, make_schema

__all__ = [
    "COLUMNS_ALL",
    "DATASETS",
    "FIRST_YEAR",
    "LENGTH",
    "PLATFORMS",
    "ROWS_ALL",
    "SCHEMAS",
    "YEARS",
    "Spread",
    "Tiles",
    "entries",
    "make_tiles",
    "packed",
    "row_batch",
    "scene_name",
]

Spread = Literal["scattered", "scenes"]
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

LENGTH = 5
"""Digits of every geohash: 25 bits, 13 of longitude and 12 of latitude."""
COLUMNS_ALL, ROWS_ALL = GEOHASH.grid_size(LENGTH)
FIRST_YEAR, YEARS = 2015, 10
_FIRST_US = int(np.datetime64(f"{FIRST_YEAR}-01-01", "us").astype(np.int64))
_DAYS = 3650

DATASETS = ("drone", "landsat", "modis", "nlcd", "s2")
"""Sorted, so that codes order as names do."""
_DATASET_SHARES = (0.02, 0.25, 0.10, 0.03, 0.60)
PLATFORMS: tuple[str | None, ...] = (
    "aqua",
    "landsat-7",
    "landsat-8",
    "landsat-9",
    "sentinel-2a",
    "sentinel-2b",
    "terra",
    None,
)
SCHEMAS: tuple[TileSchema, ...] = (
    make_schema({"red": "red", "green": "green", "blue": "blue"}),
    make_schema({"B3": "green", "B4": "red", "B5": "nir08", "B6": "swir16"}),
    make_schema({"sur_refl_b01": "red", "sur_refl_b02": "nir"}),
    make_schema({"land_cover": None}),
    make_schema({"B02": "blue", "B03": "green", "B04": "red", "B08": "nir"}),
    make_schema({"B02": "blue", "B03": "green", "B04": "red"}),
)
"""By dataset; the last are Sentinel-2 products that lack a band."""

CHIPS_A_SCENE = 10
FOOTPRINT = 16
"""Cells along a side of a scene's footprint."""
VISITS = 60
_LAT_MIN, _LAT_MAX = -58.0, 74.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """Tiles as columns of one length; a tile's id is its place in them.

    Text is coded: `dataset` in DATASETS, `platform` in PLATFORMS, `schema` in SCHEMAS, `scene`
    by `scene_name`. Within a dataset no cell comes twice in a scene.
    """

    spread: Spread
    column: npt.NDArray[np.int32]
    row: npt.NDArray[np.int32]
    """Row 0 is the northernmost, as in `geostore.grid`."""
    morton: Integers
    """Orders as the geocodes do; a prefix is a range of it."""
    dataset: npt.NDArray[np.int8]
    platform: npt.NDArray[np.int8]
    schema: npt.NDArray[np.int8]
    scene: npt.NDArray[np.int32]
    time_us: Integers
    """NULL_TIME where it is not known."""
    time_end_us: Integers
    """NULL_TIME where no end is stored: then the tile is an instant."""
    cloud: npt.NDArray[np.float32]
    """NaN where it is not known."""
    coverage: npt.NDArray[np.float32]
    bytes: Integers

    def __len__(self) -> int:
        return len(self.column)

    def geocodes(self, rows: slice = slice(None)) -> npt.NDArray[np.str_]:
        """The cells' names."""
        column, row = self.column[rows].astype(np.int64), self.row[rows].astype(np.int64)
        return GEOHASH.geocodes_at(column, row, LENGTH)


def scene_name(code: int) -> str:
    """Orders as the codes do."""
    return f"scene-{code:08d}"


# ---------------------------------------------------------------- where


@cache
def _waves() -> tuple[Floats, Floats, float]:
    """Waves through space whose sum, on the sphere, is land where it is above a level."""
    rng = np.random.default_rng(1912)
    directions = rng.normal(size=(24, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions *= rng.uniform(2.0, 9.0, size=(24, 1))
    phases = rng.uniform(0.0, 2.0 * math.pi, size=24)
    lon, lat = _on_sphere(rng, 20_000)
    heights = _height(lon, lat, directions, phases)
    return directions, phases, float(np.quantile(heights, 0.71))


def _on_sphere(rng: np.random.Generator, count: int) -> tuple[Floats, Floats]:
    """Places, as many an area everywhere between the latitudes that have land."""
    low, high = math.sin(math.radians(_LAT_MIN)), math.sin(math.radians(_LAT_MAX))
    lat = np.degrees(np.arcsin(rng.uniform(low, high, count)))
    return rng.uniform(-180.0, 180.0, count), lat


def _height(lon: Floats, lat: Floats, directions: Floats, phases: Floats) -> Floats:
    x, y = np.radians(lon), np.radians(lat)
    space = np.stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)], axis=1)
    heights: Floats = np.sin(space @ directions.T + phases).sum(axis=1)
    return heights


def _on_land(rng: np.random.Generator, count: int) -> tuple[Floats, Floats]:
    directions, phases, level = _waves()
    kept: list[tuple[Floats, Floats]] = []
    found = 0
    while found < count:
        lon, lat = _on_sphere(rng, 4 * count + 1024)
        dry = _height(lon, lat, directions, phases) > level
        kept.append((lon[dry], lat[dry]))
        found += int(dry.sum())
    lon, lat = (np.concatenate(each)[:count] for each in zip(*kept, strict=True))
    return lon, lat


def _in_window(rng: np.random.Generator, count: int, share: float) -> tuple[Floats, Floats]:
    """Places in a box of that share of the globe's area, without any sea."""
    side = math.sqrt(share / math.pi)  # as many degrees high as wide, while it is small
    lon = rng.uniform(-180.0 * side, 180.0 * side, count)
    return 20.0 + lon, np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, count) * math.pi * side))


def _cells_of(lon: Floats, lat: Floats) -> tuple[Integers, Integers]:
    turned = (lon + 180.0) % 360.0 - 180.0
    return GEOHASH.locate_many(turned, lat, LENGTH)


def _scattered(
    rng: np.random.Generator, tiles: int, share: float | None
) -> tuple[Integers, Integers, Integers]:
    """(column, row, scene) of chips within half a degree or so of their scene's centre."""
    scenes = -(-tiles // CHIPS_A_SCENE)
    place = _on_land(rng, scenes) if share is None else _in_window(rng, scenes, share)
    column, row = _cells_of(*place)
    # A walk over the 23 x 23 cells around, whose steps never meet: 23 is prime.
    around = 23 * 23
    step = rng.integers(0, 23, scenes) * 23 + rng.integers(1, 23, scenes)
    start = rng.integers(0, around, scenes)
    chip = np.arange(CHIPS_A_SCENE)
    offset = (start[:, None] + step[:, None] * chip) % around
    columns = (column[:, None] + offset % 23 - 11) % COLUMNS_ALL
    rows = np.clip(row[:, None] + offset // 23 - 11, 0, ROWS_ALL - 1)
    scene = np.repeat(np.arange(scenes), CHIPS_A_SCENE)
    return columns.reshape(-1)[:tiles], rows.reshape(-1)[:tiles], scene[:tiles]


def _footprints(rng: np.random.Generator, tiles: int) -> tuple[Integers, Integers, Integers]:
    """(column, row, scene) of scenes that fill their footprint, or a part that a swath cut."""
    whole = FOOTPRINT * FOOTPRINT
    visits = int(tiles / (0.8 * whole)) + 64  # a third is cut, in the mean by half
    places = max(9, round(visits / VISITS))
    lon, lat = _on_land(rng, -(-places // 9))
    column, row = (np.repeat(each, 9)[:places] for each in _cells_of(lon, lat))
    within = np.arange(places) % 9
    column = column + within % 3 * FOOTPRINT
    row = row + within // 3 * FOOTPRINT
    order = rng.permutation(visits) % places
    x, y = np.arange(whole) % FOOTPRINT, np.arange(whole) // FOOTPRINT
    slope = rng.uniform(-0.3, 0.3, visits)
    edge = np.where(rng.random(visits) < 0.35, rng.uniform(0, FOOTPRINT, visits), 2.0 * FOOTPRINT)
    kept = x[None, :] + slope[:, None] * (y[None, :] - FOOTPRINT / 2) < edge[:, None]
    kept[:, 0] = True  # no scene is empty
    scene, cell = np.nonzero(kept)
    assert len(scene) >= tiles, (len(scene), tiles)
    scene, cell = scene[:tiles], cell[:tiles]
    columns = (column[order[scene]] + x[cell]) % COLUMNS_ALL
    return columns, np.clip(row[order[scene]] + y[cell], 0, ROWS_ALL - 1), scene


# ---------------------------------------------------------------- what


def _times(rng: np.random.Generator, dataset: npt.NDArray[np.int8]) -> tuple[Integers, Integers]:
    """(time_us, time_end_us) of scenes: instants, composites of 8 days, years, some unknown."""
    count = len(dataset)
    day = rng.integers(0, _DAYS, count)
    time_us = _FIRST_US + day * US_DAY + rng.integers(0, US_DAY, count)
    end_us = time_us.copy()
    end_us[dataset == DATASETS.index("landsat")] = NULL_TIME
    composite = dataset == DATASETS.index("modis")
    time_us[composite] = (_FIRST_US + day // 8 * 8 * US_DAY)[composite]
    end_us[composite] = time_us[composite] + 8 * US_DAY - 1
    yearly = dataset == DATASETS.index("nlcd")
    starts = np.arange(FIRST_YEAR - 1970, FIRST_YEAR - 1970 + YEARS + 1).astype("datetime64[Y]")
    years = starts.astype("datetime64[us]").astype(np.int64)
    which = np.minimum(day // 365, YEARS - 1)
    time_us[yearly] = years[which][yearly]
    end_us[yearly] = years[which + 1][yearly] - 1
    unknown = (dataset == DATASETS.index("drone")) & (rng.random(count) < 0.6)
    time_us[unknown] = end_us[unknown] = NULL_TIME
    return time_us, end_us


def _platforms(rng: np.random.Generator, dataset: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    choices = {
        "s2": ("sentinel-2a", "sentinel-2b"),
        "landsat": ("landsat-8",) * 9 + ("landsat-9",) * 9 + ("landsat-7",) * 2,
        "modis": ("terra", "aqua"),
    }
    codes = np.full(len(dataset), PLATFORMS.index(None), dtype=np.int8)
    for name, platforms in choices.items():
        own = np.flatnonzero(dataset == DATASETS.index(name))
        known = np.array([PLATFORMS.index(platform) for platform in platforms], dtype=np.int8)
        codes[own] = known[rng.integers(0, len(known), len(own))]
    return codes


def make_tiles(
    count: int, spread: Spread, *, seed: int = 46, area_share: float | None = None
) -> Tiles:
    """`count` tiles. O(count): a second or two for a million, 150 bytes a tile on the way.

    With `area_share` (a quarter at most) scattered tiles lie in a box of that share of the globe
    and not on its land: shares in proportion to counts keep the number of tiles a degree.
    """
    rng = np.random.default_rng([seed, 0 if spread == "scattered" else 1, count])
    if spread == "scattered":
        column, row, scene = _scattered(rng, count, area_share)
    else:
        column, row, scene = _footprints(rng, count)
    scenes = int(scene[-1]) + 1
    dataset = rng.choice(len(DATASETS), scenes, p=_DATASET_SHARES).astype(np.int8)
    schema = dataset.copy()
    lacking = (dataset == DATASETS.index("s2")) & (rng.random(scenes) < 0.1)
    schema[lacking] = len(SCHEMAS) - 1
    time_us, end_us = _times(rng, dataset)
    platform = _platforms(rng, dataset)

    # Clouds: many tiles have none, some are covered, the rest is between.
    cloud = (100.0 * rng.beta(0.6, 0.6, count)).astype(np.float32)
    cloud[rng.random(count) < 0.25] = 0.0
    cloud[(dataset == DATASETS.index("nlcd"))[scene] | (rng.random(count) < 0.03)] = np.nan
    coverage = rng.uniform(0.0, 100.0, count).astype(np.float32)
    coverage[rng.random(count) < 0.7] = 100.0
    return Tiles(
        spread=spread,
        column=column.astype(np.int32),
        row=row.astype(np.int32),
        morton=GEOHASH.sort_keys(column, row, LENGTH).astype(np.int64),
        dataset=dataset[scene],
        platform=platform[scene],
        schema=schema[scene],
        scene=scene.astype(np.int32),
        time_us=time_us[scene],
        time_end_us=end_us[scene],
        cloud=cloud,
        coverage=coverage,
        bytes=rng.integers(100_000, 2_000_000, count),
    )


# ---------------------------------------------------------------- as geostore takes them


def _optional_time(value: int) -> int | None:
    return None if value == NULL_TIME else value


def entries(
    tiles: Tiles,
    *,
    dataset_ids: tuple[str, ...] | None = None,
    bitmaps_of: Callable[[int], BlockBitmaps | None] = lambda _: None,
) -> Iterator[CatalogEntry]:
    """The tiles as the catalog takes them in: some 20 us each, in the order of their ids.

    `dataset_ids`: in the order of DATASETS; made up where left out. `bitmaps_of`: those of a tile
    by its id; none where left out.
    """
    ids = dataset_ids or tuple(f"id-{name}" for name in DATASETS)
    statistics = tuple(
        (BandStatistics(minimum=1.0, maximum=9e3, mean=2.5, p01=1.0, p99=None),) * len(each.bands)
        for each in SCHEMAS
    )
    blocks = []
    for schema in SCHEMAS:
        table = np.zeros(2 * schema.data_blocks_total, dtype=BLOCK_DTYPE)
        table["offset"] = np.arange(len(table)) * 1000
        table["length"] = 900
        blocks.append(table)
    for first in range(0, len(tiles), 65_536):
        chunk = slice(first, first + 65_536)
        columns = (
            tiles.geocodes(chunk),
            tiles.scene[chunk],
            tiles.dataset[chunk],
            tiles.schema[chunk],
            tiles.platform[chunk],
            tiles.time_us[chunk],
            tiles.time_end_us[chunk],
            tiles.coverage[chunk],
            tiles.cloud[chunk],
            tiles.bytes[chunk],
        )
        rows = zip(*(column.tolist() for column in columns), strict=True)
        for number, row in enumerate(rows, first):
            geocode, scene, dataset, schema_code, platform, start, end, coverage, cloud, size = row
            meta = TileMeta(
                key=TileKey(ids[dataset], scene_name(scene), "v1", geocode),
                dataset=DATASETS[dataset],
                definition={},
                schema=SCHEMAS[schema_code],
                time_us=_optional_time(start),
                time_end_us=_optional_time(end),
                platform=PLATFORMS[platform],
                pixel_coverage=coverage,
                cloud_cover=None if math.isnan(cloud) else cloud,
                cloud_method=None if math.isnan(cloud) else "SCL 8,9,10",
                cloud_histogram=None,
                statistics=statistics[schema_code],
                bitmaps=bitmaps_of(number),
            )
            yield CatalogEntry(
                meta=meta, checksum=f"{number:032x}", bytes=size, blocks=blocks[schema_code]
            )


def packed(
    tiles: Tiles,
    first: int,
    stop: int,
    *,
    dataset_ids: tuple[str, ...] | None = None,
    version: str = "v1",
) -> PackedTiles:
    """The same facts as `entries` has of the tiles from `first` on, packed; some 3 us each."""
    ids = dataset_ids or tuple(f"id-{name}" for name in DATASETS)
    rows = slice(first, min(stop, len(tiles)))
    samples = _samples(tiles, rows, ids, version)
    scenes = [Group.of(entry).encode() for entry in samples.values()]
    number_of = {code: number for number, code in enumerate(samples)}
    scene = np.array([number_of[code] for code in tiles.scene[rows].tolist()], np.int64)
    table = np.zeros(len(scene), ROW_DTYPE)
    digests = np.frombuffer(b"".join(digest for digest, _, _ in scenes), "V16")
    table["group"], table["geocode"] = digests[scene], tiles.geocodes(rows).astype("S")
    table["pixel_coverage"], table["cloud_cover"] = tiles.coverage[rows], tiles.cloud[rows]
    table["time_us"], table["time_end_us"] = tiles.time_us[rows], tiles.time_end_us[rows]
    table["bytes"] = tiles.bytes[rows]
    bodies = [
        pack_details(entry, digest)[DETAILS_HEADER.size :]
        for entry, (digest, _, _) in zip(samples.values(), scenes, strict=True)
    ]
    heads = [
        (len(entry.blocks), len(entry.meta.statistics), digest)
        for entry, (digest, _, _) in zip(samples.values(), scenes, strict=True)
    ]
    details = []
    sizes = tiles.bytes[rows].tolist()
    for number, (at, size) in enumerate(zip(scene.tolist(), sizes, strict=True), first):
        blocks, bands, digest = heads[at]
        checksum = number.to_bytes(16, "big")
        head = DETAILS_HEADER.pack(0, 1, 0, blocks, bands, size, checksum, digest)
        value = head[8:] + bodies[at]
        details.append(xxhash.xxh3_64_digest(value)[::-1] + value)
    return PackedTiles(
        schemas=[Schema(s.digest, json.dumps(s.to_json()).encode()) for s in SCHEMAS],
        scenes=[Scene(*scene) for scene in scenes],
        scene=scene,
        rows=table,
        lengths=np.fromiter(map(len, details), np.uint32, count=len(details)),
        details=b"".join(details),
    )


def _samples(
    tiles: Tiles, rows: slice, ids: tuple[str, ...], version: str
) -> dict[int, CatalogEntry]:
    """An entry of each scene, by the scene's code."""
    codes, firsts = np.unique(tiles.scene[rows], return_index=True)
    chosen = firsts + rows.start
    found = {}
    for code, at in zip(codes.tolist(), chosen.tolist(), strict=True):
        schema = SCHEMAS[tiles.schema[at]]
        blocks = np.zeros(2 * schema.data_blocks_total, dtype=BLOCK_DTYPE)
        blocks["offset"], blocks["length"] = np.arange(len(blocks)) * 1000, 900
        statistics = BandStatistics(minimum=1.0, maximum=9e3, mean=2.5, p01=1.0, p99=None)
        meta = TileMeta(
            key=TileKey(ids[tiles.dataset[at]], scene_name(code), version, "0"),
            dataset=DATASETS[tiles.dataset[at]],
            definition={},
            schema=schema,
            time_us=None,
            time_end_us=None,
            platform=PLATFORMS[tiles.platform[at]],
            pixel_coverage=100.0,
            cloud_cover=None,
            cloud_method="SCL 8,9,10",
            cloud_histogram=None,
            statistics=(statistics,) * len(schema.bands),
        )
        found[code] = CatalogEntry(meta=meta, checksum="0" * 32, bytes=0, blocks=blocks)
    return found


def row_batch(tiles: Tiles) -> RowBatch:
    """All tiles as rows, for `geostore.query.matching`; row ids are the tiles' ids. Slow."""

    def texts(values: tuple[Any, ...], codes: npt.NDArray[Any]) -> npt.NDArray[np.object_]:
        table = np.empty(len(values), dtype=np.object_)
        table[:] = values
        return table[codes]

    scenes = tuple(scene_name(code) for code in range(int(tiles.scene.max(initial=0)) + 1))
    nodes = np.empty(len(tiles), dtype=np.object_)
    nodes.fill(("local",))
    return RowBatch(
        row_id=np.arange(len(tiles), dtype=np.int64),
        dataset_id=texts(tuple(f"id-{name}" for name in DATASETS), tiles.dataset),
        dataset=texts(DATASETS, tiles.dataset),
        geocode=tiles.geocodes().astype(np.object_),
        scene=texts(scenes, tiles.scene),
        version=texts(("v1",), np.zeros(len(tiles), dtype=np.int8)),
        schema=texts(SCHEMAS, tiles.schema),
        platform=texts(PLATFORMS, tiles.platform),
        time_us=tiles.time_us,
        time_end_us=tiles.time_end_us,
        pixel_coverage=tiles.coverage,
        cloud_cover=tiles.cloud,
        bytes=tiles.bytes,
        nodes=nodes,
    )
