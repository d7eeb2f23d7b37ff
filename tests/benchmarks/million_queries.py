"""What `million_tiles` is asked, and what must be answered.

The fixed 1,000 boxes of 2 x 2 degrees, each with three months and a cloud cover of at most
20 %, and the shapes: each predicate alone, usual pairs, a polygon, sorted, counted, nothing.
Seven of ten places lie where tiles are, the others anywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from geostore.grid import GEOHASH, Region
from geostore.query import PercentRange, Query
from geostore.query.order import primary_keys, time_keys
from geostore.query.predicate import percent_matches, schema_matches, time_matches
from geostore.types import BBox, TimeSpan
from tests.benchmarks.million_tiles import (
    COLUMNS_ALL,
    DATASETS,
    FIRST_YEAR,
    LENGTH,
    PLATFORMS,
    ROWS_ALL,
    SCHEMAS,
    YEARS,
    Tiles,
    scene_name,
)

__all__ = [
    "MAIN",
    "Ids",
    "Shape",
    "answer",
    "boxes_of_size",
    "cell_ranges",
    "morton_range",
    "nearest_boxes",
    "shapes",
]

Ids = npt.NDArray[np.int64]
MAIN = "box+3 months+cloud"
SIDE = 2.0
"""Degrees along a box."""

_WEEK_US = 7 * 86_400_000_000


@dataclass(frozen=True, slots=True)
class Shape:
    """Queries of one kind."""

    name: str
    queries: tuple[Query, ...]
    asks: Literal["ids", "count"] = "ids"


# ---------------------------------------------------------------- queries


def _months(rng: np.random.Generator, months: int) -> TimeSpan:
    first = int(rng.integers(0, YEARS * 12 - months + 1))
    last = first + months - 1
    return TimeSpan.parse(
        f"{FIRST_YEAR + first // 12}-{first % 12 + 1:02d}"
        f"/{FIRST_YEAR + last // 12}-{last % 12 + 1:02d}"
    )


def _box(lon: float, lat: float, side: float) -> Region:
    """A box that does not cross the antimeridian."""
    west = min(max(lon - side / 2, -180.0), 180.0 - side)
    south = min(max(lat - side / 2, -90.0), 90.0 - side)
    return Region.from_bbox(BBox(west, south, west + side, south + side))


def _place(rng: np.random.Generator, tiles: Tiles, *, on_data: bool) -> tuple[float, float]:
    if not on_data:
        return float(rng.uniform(-180, 180)), float(rng.uniform(-60, 75))
    tile = int(rng.integers(0, len(tiles)))
    lon = (int(tiles.column[tile]) + 0.5) * 360.0 / COLUMNS_ALL - 180.0
    lat = 90.0 - (int(tiles.row[tile]) + 0.5) * 180.0 / ROWS_ALL
    return lon + float(rng.uniform(-1, 1)), lat + float(rng.uniform(-1, 1))


def boxes_of_size(
    tiles: Tiles, count: int, *, side: float = SIDE, share_on_data: float = 0.7, seed: int = 20
) -> tuple[Query, ...]:
    """The box, three months, a cloud cover of at most 20 %: the same `count` every time."""
    rng = np.random.default_rng([seed, count])
    found = []
    for number in range(count):
        place = _place(rng, tiles, on_data=(number % 10) < 10 * share_on_data)
        box, span = _box(*place, side), _months(rng, 3)
        found.append(Query(region=box, time=span, cloud=PercentRange(None, 20)))
    return tuple(found)


def nearest_boxes(tiles: Tiles, count: int, rows: int, *, seed: int = 21) -> tuple[Query, ...]:
    """Boxes around tiles, three months, clouds: each as large as it must be for `rows` rows."""
    rng = np.random.default_rng([seed, count, rows])
    found: list[Query] = []
    while len(found) < count:
        lon, lat = _place(rng, tiles, on_data=True)
        span, cloud = _months(rng, 3), PercentRange(None, 20)
        own = time_matches(tiles.time_us, tiles.time_end_us, span)
        own &= percent_matches(tiles.cloud, cloud)
        x = (tiles.column[own] + 0.5) * 360.0 / COLUMNS_ALL - 180.0
        y = 90.0 - (tiles.row[own] + 0.5) * 180.0 / ROWS_ALL
        away = np.maximum(np.abs(x - lon), np.abs(y - lat))
        assert len(away) >= rows, f"{len(away)} tiles in three months: too few for {rows} rows"
        side = 2.0 * float(np.partition(away, rows - 1)[rows - 1])
        if abs(lon) + side / 2 < 180.0 and abs(lat) + side / 2 < 90.0:
            found.append(Query(region=_box(lon, lat, side), time=span, cloud=cloud))
    return tuple(found)


def _polygon(rng: np.random.Generator, lon: float, lat: float) -> Region:
    """A ragged star of 500 vertices, some four degrees wide, that does not cross itself."""
    lon, lat = min(max(lon, -176.0), 176.0), min(max(lat, -80.0), 80.0)
    angle = np.sort(rng.uniform(0.0, 2.0 * math.pi, 500))
    radius = 1.6 + 0.5 * np.sin(3 * angle + rng.uniform(0, 6)) + rng.uniform(-0.2, 0.2, 500)
    ring = np.stack([lon + radius * np.cos(angle), lat + radius * np.sin(angle)], axis=1)
    points = [*ring.tolist(), ring[0].tolist()]
    return Region.from_geometry({"type": "Polygon", "coordinates": [points]})


def shapes(tiles: Tiles, *, variants: int = 40, boxes: int = 1000, seed: int = 22) -> list[Shape]:
    """The main query, then the twelve kinds; `variants` queries each, `boxes` of the first."""
    rng = np.random.default_rng([seed, variants])
    geocodes = tiles.geocodes().tolist() if len(tiles) <= 100_000 else None

    def geocode(length: int) -> str:
        tile = int(rng.integers(0, len(tiles)))
        name = tiles.geocodes(slice(tile, tile + 1))[0] if geocodes is None else geocodes[tile]
        return str(name)[:length]

    def place() -> tuple[float, float]:
        return _place(rng, tiles, on_data=bool(rng.random() < 0.7))

    def percent() -> PercentRange:
        low = float(rng.uniform(5, 95))
        return PercentRange(low, low + 0.5)

    def week() -> TimeSpan:
        start = _months(rng, 1).start_us
        assert start is not None
        return TimeSpan(start, start + _WEEK_US)

    def scene() -> str:
        return scene_name(int(tiles.scene[rng.integers(0, len(tiles))]))

    clear = PercentRange(None, 20)
    made: dict[str, list[Query]] = {
        "dataset": [],
        "box": [],
        "prefix of 2": [],
        "prefix of 3": [],
        "prefix of 4": [],
        "time: a week": [],
        "cloud": [],
        "coverage": [],
        "bands": [],
        "platform": [],
        "scene": [],
        "box+3 months": [],
        "box+cloud": [],
        "prefix of 3+year": [],
        "dataset+week": [],
        "month+cloud": [],
        "polygon": [],
        "polygon+year+cloud": [],
        "box, newest 10": [],
        "dataset, clearest 10": [],
        "count box": [],
        "count month": [],
        "none": [],
    }
    for number in range(variants):
        made["dataset"].append(Query(datasets=(("drone", "nlcd")[number % 2],)))
        made["box"].append(Query(region=_box(*place(), SIDE)))
        for length in (2, 3, 4):
            made[f"prefix of {length}"].append(Query(geocode=geocode(length)))
        made["time: a week"].append(Query(time=week()))
        made["cloud"].append(Query(cloud=percent()))
        made["coverage"].append(Query(coverage=percent()))
        made["bands"].append(Query(bands=(("land_cover",), ("sur_refl_b02",))[number % 2]))
        made["platform"].append(Query(platform=("landsat-7", "terra")[number % 2]))
        made["scene"].append(Query(scene=scene()))
        made["box+3 months"].append(Query(region=_box(*place(), SIDE), time=_months(rng, 3)))
        made["box+cloud"].append(Query(region=_box(*place(), SIDE), cloud=clear))
        made["prefix of 3+year"].append(Query(geocode=geocode(3), time=_months(rng, 12)))
        made["dataset+week"].append(
            Query(datasets=(("modis", "landsat")[number % 2],), time=week())
        )
        made["month+cloud"].append(Query(time=_months(rng, 1), cloud=PercentRange(None, 1)))
        made["polygon"].append(Query(region=_polygon(rng, *place())))
        made["polygon+year+cloud"].append(
            Query(region=_polygon(rng, *place()), time=_months(rng, 12), cloud=clear)
        )
        made["box, newest 10"].append(
            Query(region=_box(*place(), SIDE), cloud=clear, sort="-time", limit=10)
        )
        made["dataset, clearest 10"].append(
            Query(datasets=(DATASETS[number % len(DATASETS)],), sort="cloud", limit=10)
        )
        made["count box"].append(
            Query(region=_box(*place(), SIDE), coverage=PercentRange(95, None))
        )
        made["count month"].append(Query(time=_months(rng, 1)))
        made["none"].append(
            Query(
                region=_box(float(rng.uniform(-180, 180)), -75.0 - number % 10, SIDE),
                time=_months(rng, 3),
                cloud=clear,
            )
        )
    counted = {"count box", "count month"}
    found = [Shape(MAIN, boxes_of_size(tiles, boxes))]
    found += [
        Shape(name, tuple(queries), "count" if name in counted else "ids")
        for name, queries in made.items()
    ]
    return found


# ---------------------------------------------------------------- cells as numbers


def cell_ranges(box: BBox) -> tuple[int, int, int, int]:
    """(first column, last column, first row, last row) of the cells that overlap a box.

    Its edges are turned into cells exactly as long as they are no closer than rounding to an
    edge of a cell, or lie on it: multiples of 360 / 2**13 are exact.
    """
    west = (box.west + 180.0) / 360.0 * COLUMNS_ALL
    east = (box.east + 180.0) / 360.0 * COLUMNS_ALL
    north = (90.0 - box.north) / 180.0 * ROWS_ALL
    south = (90.0 - box.south) / 180.0 * ROWS_ALL
    return math.floor(west), math.ceil(east) - 1, math.floor(north), math.ceil(south) - 1


_DIGIT = {digit: value for value, digit in enumerate(GEOHASH.alphabet)}


def morton_range(prefix: str) -> tuple[int, int]:
    """First and last Morton number of the cells under a prefix."""
    value = 0
    for digit in prefix:
        value = value << 5 | _DIGIT[digit]
    below = 5 * (LENGTH - len(prefix))
    return value << below, (value + 1 << below) - 1


# ---------------------------------------------------------------- answers


def answer(tiles: Tiles, query: Query) -> Ids:
    """The ids that geostore's own predicates say match, in the order of the query's sort
    where it has a limit, ascending otherwise. No index has a part in it.
    """
    mask = np.ones(len(tiles), dtype=np.bool_)
    if query.time is not None:
        mask &= time_matches(tiles.time_us, tiles.time_end_us, query.time)
    if query.cloud is not None:
        mask &= percent_matches(tiles.cloud, query.cloud)
    if query.coverage is not None:
        mask &= percent_matches(tiles.coverage, query.coverage)
    if query.datasets is not None:
        codes = [DATASETS.index(name) for name in query.datasets]
        mask &= np.isin(tiles.dataset, codes)
    if query.platform is not None:
        mask &= tiles.platform == PLATFORMS.index(query.platform)
    if query.scene is not None:
        mask &= tiles.scene == int(query.scene.removeprefix("scene-"))
    if query.bands:
        has = np.array([schema_matches(schema, query.bands) for schema in SCHEMAS])
        mask &= has[tiles.schema]
    found = np.flatnonzero(mask)
    if query.geocode is not None:
        first, last = morton_range(query.geocode)
        cells = tiles.morton[found]
        found = found[(cells >= first) & (cells <= last)]
    if query.region is not None:
        found = found[_in_region(tiles, found, query.region)]
    if query.limit is None:
        return found
    return _first_of(tiles, found, query)


def _in_region(tiles: Tiles, found: Ids, region: Region) -> npt.NDArray[np.bool_]:
    """Region's own test of the distinct cells in or near its boxes."""
    column, row = tiles.column[found], tiles.row[found]
    near = np.zeros(len(found), dtype=np.bool_)
    for box in region.bboxes:
        west, east, north, south = cell_ranges(box)
        near |= (
            (column >= west - 2) & (column <= east + 2) & (row >= north - 2) & (row <= south + 2)
        )
    mask = np.zeros(len(found), dtype=np.bool_)
    where = np.flatnonzero(near)
    cells = column[where].astype(np.int64) * ROWS_ALL + row[where]
    distinct, inverse = np.unique(cells, return_inverse=True)
    matches = region.matches_cells(GEOHASH, distinct // ROWS_ALL, distinct % ROWS_ALL, LENGTH)
    mask[where] = matches[inverse]
    return mask


def _first_of(tiles: Tiles, found: Ids, query: Query) -> Ids:
    """The first `limit` in the order that geostore.query.order defines: codes order as texts."""
    time_us = tiles.time_us[found]
    keys: list[npt.NDArray[Any]] = [tiles.scene[found], tiles.morton[found], tiles.dataset[found]]
    keys.append(time_keys(time_us))
    primary = primary_keys(query.sort, time_us, tiles.cloud[found], tiles.coverage[found])
    if primary is not None:
        keys.append(primary)
    return found[np.lexsort(keys)][: query.limit]
