"""Plain records and questions at random, and how they are put to a store.

`tests.plain_records` says what they mean; here is the only place where one becomes the other: a
record an entry or a tile, a question a `Query`, half of its conditions by way of CQL2.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import numpy as np

from geostore.grid import Region
from geostore.index import CatalogEntry
from geostore.query import (
    AllOf,
    AnyOf,
    Expression,
    HasBands,
    InRegion,
    IsNull,
    Not,
    OneOf,
    PercentRange,
    Query,
    TimeOverlaps,
    UnderGeocode,
    Within,
)
from geostore.query.cql2 import from_cql2
from geostore.tiles import TilePixels, encode_tile
from geostore.tiles import make_schema as tile_schema
from geostore.types import (
    NULL_TIME,
    BandInfo,
    BandStatistics,
    BBox,
    DatasetDefinition,
    EncodedTile,
    ResolutionGroup,
    RowBatch,
    SchemeName,
    TileKey,
    TileMeta,
    TimeSpan,
)
from tests.plain_records import (
    EPOCH,
    KEYS,
    SORTS,
    US_DAY,
    Box,
    Condition,
    Question,
    Record,
    bounds_of,
    cell_at,
    float32,
)
from tests.synthetic_tiles import make_entry, make_schema

GROUP = ResolutionGroup(150.0, 32, 32)
FIRST_US = 16_801 * US_DAY  # 2016-01-01
PLATFORMS = (None, "sentinel-2a", "landsat-8")
PERCENTS = (0.0, 20.0, 33.3, 95.0, 100.0)
BANDS: tuple[tuple[tuple[str, str | None], ...], ...] = (
    (("B02", "blue"), ("B04", "red"), ("B08", "nir")),
    (("B04", "red"),),
    (("red", None), ("SR_B5", "nir")),
)
CENTRE = (-75.61, 37.68)


@dataclass(frozen=True)
class Grid:
    """A dataset's cells, and how many of their first characters place them on a ring."""

    scheme: SchemeName
    length: int
    placement: int

    def cells(self) -> list[str]:
        """Neighbours around one place, some beside the antimeridian, and the outermost."""
        first = cell_at(self.scheme, *CENTRE, self.length)
        west, south, east, north = bounds_of(self.scheme, first)
        wide, high = east - west, north - south
        middle = (west + east) / 2, (south + north) / 2
        places = [
            (middle[0] + i * wide, middle[1] + j * high) for i in range(-3, 4) for j in range(-3, 4)
        ]
        places += [
            (lon, 10.0 + high * j) for lon in (-180 + wide / 2, 180 - wide / 2) for j in (0, 1)
        ]
        places += [(-180 + wide / 2, -84.9), (180 - wide / 2, 84.9), (0.0, 0.0)]
        found = [cell_at(self.scheme, lon, lat, self.length) for lon, lat in places]
        return sorted(set(found))


GRIDS = {
    "s2": Grid("geohash", 5, 5),
    "S2-x": Grid("geohash", 4, 2),
    "l8": Grid("quadtile", 12, 10),
    "naip": Grid("quadtile", 9, 9),
    "comes-and-goes": Grid("geohash", 5, 3),
}
SCENES = ("S2A_1", "s2a_1", "Szene ä", "日本", "\U0001f6f0 sat", "z/1", "a" * 200)


# ---------------------------------------------------------------- records


def random_scene(
    rng: random.Random, dataset: str, dataset_id: str, scene: str, version: str, tiles_max: int = 9
) -> list[Record]:
    """The tiles of one version of a scene."""
    grid = GRIDS[dataset]
    cells = rng.sample(grid.cells(), rng.randint(1, tiles_max))
    time = _random_time(rng)
    bands, platform = rng.choice(BANDS), rng.choice(PLATFORMS)
    made = []
    for cell in cells:
        if rng.random() < 0.3:
            time = _random_time(rng)
        cloud = rng.choice([None, *PERCENTS, rng.uniform(0, 100)])
        made.append(
            Record(
                dataset_id=dataset_id,
                dataset=dataset,
                scheme=grid.scheme,
                geocode=cell,
                scene=scene,
                version=version,
                time=time[0],
                time_end=time[1],
                platform=platform,
                bands=bands,
                coverage=float32(rng.choice([*PERCENTS, rng.uniform(0, 100)])),
                cloud=None if cloud is None else float32(cloud),
                bytes=rng.randrange(1, 10_000),
            )
        )
    return made


def _random_time(rng: random.Random) -> tuple[int | None, int | None]:
    if rng.random() < 0.15:
        return None, None
    start = FIRST_US + rng.randrange(400) * US_DAY + rng.choice([0, 0, 1, US_DAY // 2])
    return start, start + rng.choice([0, 0, 0, 1, US_DAY, 8 * US_DAY, 366 * US_DAY])


def definition_of(name: str, dataset_id: str) -> DatasetDefinition:
    """A dataset of tiny tiles."""
    grid = GRIDS[name]
    return DatasetDefinition(
        id=dataset_id,
        name=name,
        scheme=grid.scheme,
        length=grid.length,
        placement=grid.placement,
        groups=(GROUP,),
        created_us=1,
    )


def tile_of(record: Record) -> EncodedTile:
    """A tile file of that record, whose size it has not got from there."""
    bands = tuple(
        BandInfo(name=name, common_name=common, dtype="uint8", nodata=0)
        for name, common in record.bands
    )
    scheme, length = cast("SchemeName", record.scheme), len(record.geocode)
    number = BandStatistics(minimum=1.0, maximum=1.0, mean=1.0, p01=1.0, p99=1.0)
    meta = TileMeta(
        key=TileKey(record.dataset_id, record.scene, record.version, record.geocode),
        dataset=record.dataset,
        definition=definition_of(record.dataset, record.dataset_id).to_json(),
        schema=tile_schema(scheme, length, "fast", [(GROUP, bands)]),
        time_us=record.time,
        time_end_us=record.time_end,
        platform=record.platform,
        pixel_coverage=record.coverage,
        cloud_cover=record.cloud,
        cloud_method=None if record.cloud is None else "SCL 8,9,10",
        cloud_histogram=None,
        statistics=(number,) * len(bands),
        properties={},
    )
    pixels = [np.ones((GROUP.height, GROUP.width), np.uint8) for _ in bands]
    return encode_tile(meta, TilePixels(data=[pixels], masks=[[True] * len(bands)]))


def entry_of(record: Record) -> CatalogEntry:
    schema = make_schema(
        dict(record.bands),
        scheme=cast("SchemeName", record.scheme),
        length=len(record.geocode),
    )
    return make_entry(
        record.geocode,
        scene=record.scene,
        version=record.version,
        dataset=record.dataset,
        dataset_id=record.dataset_id,
        schema=schema,
        time_us=record.time,
        time_end_us=record.time_end,
        platform=record.platform,
        coverage=record.coverage,
        cloud=record.cloud,
        size=record.bytes,
    )


def rows_of(batches: Iterable[RowBatch]) -> list[tuple[Any, ...]]:
    """The rows of an answer as `Record.shown` tells them."""
    rows: list[tuple[Any, ...]] = []
    for batch in batches:
        rows += zip(
            batch.dataset_id.tolist(),
            batch.dataset.tolist(),
            [schema.scheme for schema in batch.schema.tolist()],
            batch.geocode.tolist(),
            batch.scene.tolist(),
            batch.version.tolist(),
            [None if us == NULL_TIME else us for us in batch.time_us.tolist()],
            [None if us == NULL_TIME else us for us in batch.time_end_us.tolist()],
            batch.platform.tolist(),
            batch.pixel_coverage.tolist(),
            [None if value != value else value for value in batch.cloud_cover.tolist()],  # noqa: PLR0124 - NaN
            batch.bytes.tolist(),
            strict=True,
        )
    return rows


# ---------------------------------------------------------------- questions


class Asker:
    """Makes questions about the records that it is told of: most of them find something."""

    def __init__(self, rng: random.Random, datasets: Sequence[str]) -> None:
        self.rng = rng
        self.datasets = datasets

    def question(self, records: Sequence[Record]) -> Question:
        """Of few predicates mostly, of all of them now and then; `records` may be none."""
        rng = self.rng
        chance = rng.choice([0.0, 0.06, 0.15, 0.15, 0.35])
        makers = {
            "datasets": lambda one: tuple({one.dataset, rng.choice(self.datasets)}),
            "bbox": self._bbox,
            "geometry": self._geometry,
            "geocode": lambda one: one.geocode[: rng.randint(1, len(one.geocode))],
            "time": self._span,
            "cloud": lambda one: self._percents(one.cloud),
            "coverage": lambda one: self._percents(one.coverage),
            "bands": lambda one: self._names(one, 3),
            "platform": lambda one: one.platform or "none such",
            "scene": lambda one: one.scene,
            "where": lambda _: self._condition(records, 4),
        }
        names = {name for name in makers if rng.random() < chance}
        names |= {rng.choice(list(makers))} if rng.random() < 0.8 else set()
        fields: dict[str, Any] = {}
        if records:
            about = rng.choice(records)
            for name in sorted(names):
                fields[name] = makers[name](about if rng.random() < 0.7 else rng.choice(records))
        return Question(
            **fields,
            recursive=rng.random() < 0.8,
            sort=rng.choice(SORTS),
            limit=rng.choice([None, None, None, 0, 1, 3, 10, 40, 10_000]),
        )

    def summary_keys(self) -> tuple[str, ...]:
        names = self.rng.sample(sorted(KEYS), self.rng.randint(1, 2))
        kinds = {name.split(":")[0] for name in names}
        return tuple(names if len(kinds) == len(names) else names[:1])

    def _bbox(self, one: Record) -> Box:
        rng = self.rng
        west, south, east, north = bounds_of(one.scheme, one.geocode)
        kind = rng.randrange(6)
        if kind == 0:
            return west, south, east, north  # exactly one cell: its neighbours only touch
        if kind == 1:
            return rng.uniform(100, 179.99), -85.0, rng.uniform(-179.99, -60), rng.uniform(0, 85)
        if kind == 2:
            return -180.0, -90.0, 180.0, 90.0
        size = 10 ** rng.uniform(-3, 0.7)
        x, y = rng.uniform(west, east), rng.uniform(south, north)
        return (
            max(-180.0, x - size),
            max(-90.0, y - size),
            min(180.0, x + size),
            min(90.0, y + size),
        )

    def _geometry(self, one: Record) -> dict[str, Any]:
        rng = self.rng
        west, south, east, north = bounds_of(one.scheme, one.geocode)
        x, y = rng.uniform(west, east), rng.uniform(south, north)

        def near(size: float) -> list[float]:
            return [x + rng.uniform(-size, size), y + rng.uniform(-size, size)]

        kind = rng.randrange(6)
        if kind == 0:
            return {"type": "Point", "coordinates": [x, y]}
        if kind == 1:
            return {"type": "MultiPoint", "coordinates": [[west, south], [x, y], near(1)]}
        if kind == 2:
            return {"type": "LineString", "coordinates": [[x, y], near(0.3), near(0.3)]}
        if kind == 3:  # any four corners: it may cross itself
            corners = [near(0.4) for _ in range(4)]
        else:
            size = 10 ** rng.uniform(-2, 0.5)
            corners = [
                [x - rng.random() * size, y - rng.random() * size],
                [x + rng.random() * size, y - rng.random() * size],
                [x + rng.random() * size, y + rng.random() * size],
                [x - rng.random() * size, y + rng.random() * size],
            ]
        return {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}

    def _span(self, one: Record) -> tuple[int | None, int | None]:
        """Often it ends, or starts, at the very microsecond of a tile, or one beside it."""
        rng = self.rng
        beside = (0, 0, 1, -1, US_DAY, -US_DAY)
        ends = [one.time, one.time_end, FIRST_US + rng.randrange(-9, 800) * US_DAY]
        bounds = [(rng.choice(ends) or FIRST_US) + rng.choice(beside) for _ in range(2)]
        low, high = min(bounds), max(bounds)
        return (None if rng.random() < 0.25 else low, None if rng.random() < 0.25 else high)

    def _percents(self, value: float | None) -> tuple[float | None, float | None]:
        rng = self.rng
        choices = [*PERCENTS, rng.uniform(0, 100), 50.0 if value is None else value]
        low, high = sorted(rng.choice(choices) for _ in range(2))
        return (None if rng.random() < 0.3 else low, None if rng.random() < 0.3 else high)

    def _names(self, one: Record, count_max: int) -> tuple[str, ...]:
        names = sorted({name for pair in one.bands for name in pair if name})
        return tuple(self.rng.sample(names, min(len(names), self.rng.randint(1, count_max))))

    def _condition(self, records: Sequence[Record], depth: int) -> Condition:
        rng = self.rng
        kind = rng.random()
        if depth <= 1 or kind < 0.25:
            return self._leaf(rng.choice(records), records)
        if kind < 0.45:
            return ("not", self._condition(records, depth - 1))
        parts = [self._condition(records, depth - 1) for _ in range(rng.choice([1, 2, 2, 3]))]
        return ("and" if kind < 0.7 else "or", tuple(parts))

    def _leaf(self, one: Record, records: Sequence[Record]) -> Condition:
        rng = self.rng
        kind = rng.choice(
            ["bbox", "geometry", "geocode", "time", "bands", "null", "one_of", "within", "within"]
        )
        if kind == "bbox":
            return ("bbox", self._bbox(one))
        if kind == "geometry":
            return ("geometry", self._geometry(one))
        if kind == "geocode":
            prefix = one.geocode[: rng.randint(1, len(one.geocode))]
            return ("geocode", prefix, rng.random() < 0.7)
        if kind == "time":
            return ("time", *self._span(one))
        if kind == "bands":
            return ("bands", self._names(one, 2))
        if kind == "null":
            return ("null", rng.choice(["time", "time_end", "cloud", "platform"]))
        if kind == "one_of":
            column = rng.choice(["dataset", "platform", "scene", "geocode"])
            values = {getattr(rng.choice(records), column) for _ in range(rng.randint(1, 3))}
            return ("one_of", column, tuple(sorted(values - {None})) or ("zz",))
        column = rng.choice(["cloud", "coverage", "time", "time_end", "bytes"])
        if column in ("cloud", "coverage"):
            low, high = self._percents(getattr(one, column))
        elif column == "bytes":
            low, high = sorted((one.bytes, rng.randrange(10_000)))
        else:
            low, high = self._span(one)
        return ("within", column, low, high, rng.random() < 0.4, rng.random() < 0.4)


# ---------------------------------------------------------------- as a store is asked


def query_of(question: Question, *, by_cql2: bool) -> Query:
    """The question as a store is asked it; by CQL2, where that has words for its condition."""
    region = None
    if question.bbox is not None:
        region = Region.from_bbox(BBox(*question.bbox))
    if question.geometry is not None:
        place = Region.from_geometry(question.geometry)
        region = place if region is None else Region.of_both(region, place)
    where = None
    if question.where is not None:
        where = (
            from_cql2(_cql2(question.where))
            if by_cql2 and _has_cql2(question.where)
            else _expression(question.where)
        )
    return Query(
        datasets=question.datasets,
        region=region,
        geocode=question.geocode,
        recursive=question.recursive,
        time=None if question.time is None else TimeSpan(*question.time),
        cloud=None if question.cloud is None else PercentRange(*question.cloud),
        coverage=None if question.coverage is None else PercentRange(*question.coverage),
        bands=question.bands,
        platform=question.platform,
        scene=question.scene,
        where=where,
        sort=cast("Any", question.sort),
        limit=question.limit,
    )


def _expression(condition: Condition) -> Expression:
    match condition:
        case ("and", parts):
            return AllOf(tuple(map(_expression, parts)))
        case ("or", parts):
            return AnyOf(tuple(map(_expression, parts)))
        case ("not", part):
            return Not(_expression(part))
        case ("bbox", bounds):
            return InRegion(Region.from_bbox(BBox(*bounds)))
        case ("geometry", geometry):
            return InRegion(Region.from_geometry(geometry))
        case ("geocode", prefix, recursive):
            return UnderGeocode(prefix, recursive=recursive)
        case ("time", start, end):
            return TimeOverlaps(TimeSpan(start, end))
        case ("within", column, low, high, low_open, high_open):
            return Within(column, low, high, low_open=low_open, high_open=high_open)
        case ("one_of", column, values):
            return OneOf(column, values)
        case ("bands", names):
            return HasBands(names)
        case ("null", column):
            return IsNull(column)
    raise AssertionError(condition)


def _has_cql2(condition: Condition) -> bool:
    word = condition[0]
    if word in ("and", "or"):
        return all(map(_has_cql2, condition[1]))
    if word == "not":
        return _has_cql2(condition[1])
    if word == "within":  # without any bound it says "is known", for which CQL2 has two words
        return condition[2] is not None or condition[3] is not None
    return word not in ("geocode", "bands")


_CQL2_NAMES = {"cloud": "eo:cloud_cover", "coverage": "pixel_coverage"}


def _cql2(condition: Condition) -> dict[str, Any]:
    def op(name: str, *args: Any) -> dict[str, Any]:
        return {"op": name, "args": list(args)}

    def named(column: str) -> dict[str, str]:
        return {"property": _CQL2_NAMES.get(column, column)}

    match condition:
        case ("and" | "or" as word, parts):
            return op(word, *map(_cql2, parts))
        case ("not", part):
            return op("not", _cql2(part))
        case ("bbox", bounds):
            return op("s_intersects", {"property": "geometry"}, {"bbox": list(bounds)})
        case ("geometry", geometry):
            return op("s_intersects", {"property": "geometry"}, geometry)
        case ("time", start, end):
            ends = [".." if us is None else _rfc3339(us) for us in (start, end)]
            return op("t_intersects", {"property": "datetime"}, {"interval": ends})
        case ("one_of", column, values):
            return op("in", named(column), list(values))
        case ("null", column):
            return op("isNull", named(column))
        case ("within", column, low, high, low_open, high_open):
            is_time = column in ("time", "time_end")
            parts = [
                op(sign, named(column), {"timestamp": _rfc3339(bound)} if is_time else bound)
                for bound, sign in (
                    (low, ">" if low_open else ">="),
                    (high, "<" if high_open else "<="),
                )
                if bound is not None
            ]
            return parts[0] if len(parts) == 1 else op("and", *parts)
    raise AssertionError(condition)


def _rfc3339(us: int) -> str:
    return (EPOCH + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")
