"""Queries answer as brute force over every tile file's own metadata does.

The brute force shares no code with the catalog or the planner: it opens each tile file,
takes its metadata as JSON, and applies the matching rules as CONTRACT words them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import mercantile
import numpy as np
import pytest
import shapely
from shapely.geometry import LineString, Point, Polygon, box, shape

from geostore.tiles import TileFile
from tests.oracle.conftest import RealStore

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BASE32 = "0123456789bcdefghjkmnpqrstuvwxyz"


@dataclass(frozen=True)
class Fact:
    """One tile as its file tells it."""

    dataset: str
    geocode: str
    scene: str
    time: datetime | None
    time_end: datetime | None
    platform: str | None
    names: frozenset[str]
    coverage: float
    cloud: float | None
    west: float
    south: float
    east: float
    north: float
    scheme: str


def geohash_box(code: str) -> tuple[float, float, float, float]:
    west, east, south, north = -180.0, 180.0, -90.0, 90.0
    lon_next = True
    for character in code:
        value = BASE32.index(character)
        for bit in (16, 8, 4, 2, 1):
            if lon_next:
                middle = (west + east) / 2
                west, east = (middle, east) if value & bit else (west, middle)
            else:
                middle = (south + north) / 2
                south, north = (middle, north) if value & bit else (south, middle)
            lon_next = not lon_next
    return west, south, east, north


@pytest.fixture(scope="module")
def facts(real: RealStore) -> list[Fact]:
    found = []
    for path in sorted(real.directory.rglob("*.zarr.zip")):
        with TileFile.open(path) as file:
            meta = file.meta
        scheme = meta.schema.scheme
        if scheme == "geohash":
            west, south, east, north = geohash_box(meta.key.geocode)
        else:
            bounds = mercantile.bounds(mercantile.quadkey_to_tile(meta.key.geocode))
            west, south, east, north = bounds.west, bounds.south, bounds.east, bounds.north
        moment = lambda us: None if us is None else EPOCH + timedelta(microseconds=us)  # noqa: E731
        found.append(
            Fact(
                dataset=meta.dataset,
                geocode=meta.key.geocode,
                scene=meta.key.scene,
                time=moment(meta.time_us),
                time_end=moment(meta.time_end_us),
                platform=meta.platform,
                names=frozenset(
                    name
                    for band in meta.schema.bands
                    for name in (band.name, band.common_name)
                    if name
                ),
                coverage=meta.pixel_coverage,
                cloud=meta.cloud_cover,
                west=west,
                south=south,
                east=east,
                north=north,
                scheme=scheme,
            )
        )
    assert len(found) == sum(result.tiles for result in real.results.values())
    return found


def _parts(place: Any) -> list[Any]:
    """Single geometries; places drawn past the antimeridian mean the other side."""
    return [
        shapely.transform(part, lambda xy, turn=turn: np.add(xy, (turn, 0)))
        for part in getattr(place, "geoms", [place])
        for turn in (-360, 0, 360)
    ]


def _place_matches(fact: Fact, parts: list[Any]) -> bool:
    cell = box(fact.west, fact.south, fact.east, fact.north)
    for part in parts:
        if isinstance(part, Point):
            across = fact.west <= part.x < fact.east
            if fact.scheme == "geohash":
                inside = across and fact.south <= part.y < fact.north
            else:
                inside = across and fact.south < part.y <= fact.north
            if inside:
                return True
        elif isinstance(part, LineString):
            if shapely.intersection(part, cell).length > 0:
                return True
        elif cell.intersection(part).area > 0:
            return True
    return False


def _matches(fact: Fact, query: dict[str, Any]) -> bool:
    if "dataset" in query and fact.dataset not in query["dataset"]:
        return False
    if "bbox" in query:
        west, south, east, north = query["bbox"]
        spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
        if not any(
            min(b, fact.east) > max(a, fact.west)
            and min(north, fact.north) > max(south, fact.south)
            for a, b in spans
        ):
            return False
    if "geometry" in query and not _place_matches(fact, query["parts"]):
        return False
    if "geocode" in query:
        prefix = query["geocode"]
        if query.get("recursive", True):
            if not fact.geocode.startswith(prefix):
                return False
        elif fact.geocode != prefix:
            return False
    if "time" in query:
        start, end = query["time"]
        if fact.time is None:
            return False
        if (end is not None and fact.time > end) or (start is not None and fact.time_end < start):
            return False
    if "cloud_cover" in query:
        low, high = query["cloud_cover"]
        if fact.cloud is None or (low is not None and fact.cloud < low):
            return False
        if high is not None and fact.cloud > high:
            return False
    if "pixel_coverage" in query:
        low, high = query["pixel_coverage"]
        if (low is not None and fact.coverage < low) or (high is not None and fact.coverage > high):
            return False
    if "bands" in query and not fact.names.issuperset(query["bands"]):
        return False
    if "platform" in query and fact.platform != query["platform"]:
        return False
    return not ("scene" in query and fact.scene != query["scene"])


def _order(fact: Fact, sort: str | None) -> tuple[Any, ...]:
    def nulls_last(value: float | None, descending: bool) -> tuple[bool, float]:
        return (value is None, 0.0 if value is None else (-value if descending else value))

    seconds = None if fact.time is None else (fact.time - EPOCH) / timedelta(microseconds=1)
    base = (nulls_last(seconds, False), fact.dataset, fact.geocode, fact.scene)
    if sort is None:
        return base
    key = sort.removeprefix("-")
    value = {"time": seconds, "cloud": fact.cloud, "coverage": fact.coverage}[key]
    return (nulls_last(value, sort.startswith("-")), *base)


def _answer(facts: list[Fact], query: dict[str, Any]) -> list[tuple[str, str, str]]:
    if "geometry" in query:
        query = {**query, "parts": _parts(shape(query["geometry"]))}
    found = [fact for fact in facts if _matches(fact, query)]
    found.sort(key=lambda fact: _order(fact, query.get("sort")))
    limit = query.get("limit")
    return [(f.dataset, f.geocode, f.scene) for f in (found if limit is None else found[:limit])]


def _ask(real: RealStore, query: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(t.dataset, t.geocode, t.scene) for t in real.store.query(**query)]


class _Random:
    """Random predicates that hit something more often than not."""

    def __init__(self, facts: list[Fact], seed: int) -> None:
        self.facts = facts
        self.rng = random.Random(seed)

    def one(self, name: str) -> Any:
        rng = self.rng
        fact = rng.choice(self.facts)
        if name == "dataset":
            return tuple({rng.choice(self.facts).dataset for _ in range(rng.randint(1, 3))})
        if name == "bbox":
            if rng.random() < 0.15:
                return (fact.west, fact.south, fact.east, fact.north)  # exactly one cell
            if rng.random() < 0.15:
                return (179.0 - rng.random(), -20.0, -179.0 - rng.random() * 0.5, 80.0)
            size = 10 ** rng.uniform(-3, 1)
            x, y = rng.uniform(fact.west, fact.east), rng.uniform(fact.south, fact.north)
            return (
                max(-180, x - size),
                max(-90, y - size),
                min(180, x + size),
                min(90, y + size),
            )
        if name == "geometry":
            return self._geometry(fact)
        if name == "geocode":
            return fact.geocode[: rng.randint(1, len(fact.geocode))]
        if name == "time":
            base = fact.time or datetime(2017, 1, 1, tzinfo=UTC)
            start = base + timedelta(days=rng.uniform(-900, 10))
            end = start + timedelta(days=rng.uniform(0, 1200))
            return (rng.choice((None, start)), rng.choice((None, end)))
        if name in {"cloud_cover", "pixel_coverage"}:
            values = sorted((rng.uniform(0, 100), rng.choice((0.0, 50.0, 100.0, fact.coverage))))
            return (rng.choice((None, values[0])), rng.choice((None, values[1])))
        if name == "bands":
            return tuple(rng.sample(sorted(fact.names), min(len(fact.names), rng.randint(1, 3))))
        if name == "platform":
            return fact.platform or "sentinel-2a"
        return fact.scene

    def _geometry(self, fact: Fact) -> dict[str, Any]:
        rng = self.rng
        x, y = rng.uniform(fact.west, fact.east), rng.uniform(fact.south, fact.north)
        kind = rng.choice(("point", "corner", "line", "polygon"))
        if kind == "point":
            return Point(x, y).__geo_interface__
        if kind == "corner":
            return Point(fact.west, fact.south).__geo_interface__
        if kind == "line":
            return LineString(
                [(x, y), (x + rng.uniform(-0.3, 0.3), y + rng.uniform(-0.3, 0.3))]
            ).__geo_interface__
        return Polygon(
            [
                (x - rng.uniform(0.01, 1), y - rng.uniform(0.01, 1)),
                (x + rng.uniform(0.01, 1), y - rng.uniform(0.01, 1)),
                (x + rng.uniform(0.01, 1), y + rng.uniform(0.01, 1)),
                (x - rng.uniform(0.01, 1), y + rng.uniform(0.01, 1)),
            ]
        ).__geo_interface__


PREDICATES = (
    "dataset",
    "bbox",
    "geometry",
    "geocode",
    "time",
    "cloud_cover",
    "pixel_coverage",
    "bands",
    "platform",
    "scene",
)


@pytest.mark.parametrize("name", PREDICATES)
def test_each_predicate_alone(real: RealStore, facts: list[Fact], name: str) -> None:
    source = _Random(facts, seed=11)
    hits = 0
    for _ in range(20):
        query = {name: source.one(name)}
        expected = _answer(facts, query)
        assert _ask(real, query) == expected, query
        assert real.store.query(**query).count() == len(expected), query
        hits += bool(expected)
    assert hits, "the predicate never matched anything: the test proves nothing"


def test_random_combinations(real: RealStore, facts: list[Fact]) -> None:
    source = _Random(facts, seed=5)
    rng = source.rng
    hits = 0
    for number in range(1000):
        names = rng.sample(PREDICATES, rng.randint(1, 4))
        query = {name: source.one(name) for name in names}
        if "geocode" in query and rng.random() < 0.3:
            query["recursive"] = False
        if rng.random() < 0.5:
            query["sort"] = rng.choice(
                ("time", "-time", "cloud", "-cloud", "coverage", "-coverage")
            )
        if rng.random() < 0.3:
            query["limit"] = rng.randint(0, 20)
        expected = _answer(facts, query)
        assert _ask(real, query) == expected, f"query {number}: {query}"
        hits += bool(expected)
    assert hits > 200
