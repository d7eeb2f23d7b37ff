"""Queries answer as brute force over every tile file's own metadata does (invariants 1, 2, 6).

The brute force shares no code with the catalog or the planner: it opens each tile file,
takes its metadata as JSON, and applies the matching rules as CONTRACT words them. Embedded
store and cluster are asked the same, the cluster through each of its nodes. `CONGRUENCE=full`
gives every node every query; else each node gets a part of them.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import mercantile
import numpy as np
import pytest
import shapely
from shapely.geometry import LineString, Point, Polygon, box, shape

from geostore.api import Store
from geostore.tiles import TileFile
from geostore.types import DatasetDefinition
from tests.local_clusters import done
from tests.oracle.conftest import CLUSTER_NODES, IS_FULL, RealCluster, RealStore

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


@dataclass(frozen=True)
class Backend:
    """A store that is asked."""

    store: Store
    part: int | None
    """Of a cluster's nodes outside full runs: which of the queries it is asked."""

    def asks(self, number: int, parts: int) -> bool:
        return self.part is None or number % parts == self.part

    def answer(self, query: dict[str, Any]) -> list[tuple[str, str, str]]:
        return [(t.dataset, t.geocode, t.scene) for t in self.store.query(**query)]


@pytest.fixture(params=["embedded", *CLUSTER_NODES])
def backend(request: pytest.FixtureRequest, real: RealStore) -> Backend:
    if request.param == "embedded":
        return Backend(real.store, None)
    cluster: RealCluster = request.getfixturevalue("real_cluster")
    part = None if IS_FULL else CLUSTER_NODES.index(request.param)
    return Backend(cluster.stores[request.param], part)


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


Asked = list[tuple[dict[str, Any], list[tuple[str, str, str]]]]
"""Queries and what brute force answers."""


@pytest.fixture(scope="module")
def alone(facts: list[Fact]) -> dict[str, Asked]:
    """Twenty queries a predicate, by its name."""
    asked = {}
    for name in PREDICATES:
        source = _Random(facts, seed=11)
        queries = [{name: source.one(name)} for _ in range(20)]
        asked[name] = [(query, _answer(facts, query)) for query in queries]
    return asked


@pytest.mark.parametrize("name", PREDICATES)
def test_each_predicate_alone(backend: Backend, alone: dict[str, Asked], name: str) -> None:
    hits = 0
    for number, (query, expected) in enumerate(alone[name]):
        if backend.asks(number, 3):
            assert backend.answer(query) == expected, query
            assert backend.store.query(**query).count() == len(expected), query
            hits += bool(expected)
    assert hits, "the predicate never matched anything: the test proves nothing"


@pytest.fixture(scope="module")
def combinations(facts: list[Fact]) -> Asked:
    source = _Random(facts, seed=5)
    rng = source.rng
    asked = []
    for _ in range(1000):
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
        asked.append((query, _answer(facts, query)))
    return asked


def test_random_combinations(backend: Backend, combinations: Asked) -> None:
    asked = hits = 0
    for number, (query, expected) in enumerate(combinations):
        if backend.asks(number, 6):
            assert backend.answer(query) == expected, f"query {number}: {query}"
            asked += 1
            hits += bool(expected)
    assert hits > asked / 5


# ---------------------------------------------------------------- who is asked

CANDIDATES_MAX = 3000
"""Cells that brute force looks at for one query; places of more are left out."""


def _geohash_at(column: int, row: int, length: int) -> str:
    """The cell so many cells from the west and the south."""
    lon_bits, lat_bits = (5 * length + 1) // 2, 5 * length // 2
    bits = [0] * (5 * length)
    bits[0::2] = [column >> (lon_bits - 1 - i) & 1 for i in range(lon_bits)]
    bits[1::2] = [row >> (lat_bits - 1 - i) & 1 for i in range(lat_bits)]
    numbers = [int("".join(map(str, bits[i : i + 5])), 2) for i in range(0, len(bits), 5)]
    return "".join(BASE32[number] for number in numbers)


def _cell(scheme: str, geocode: str) -> Fact:
    """A cell that nothing is known of but its place."""
    if scheme == "geohash":
        west, south, east, north = geohash_box(geocode)
    else:
        west, south, east, north = mercantile.bounds(mercantile.quadkey_to_tile(geocode))
    nothing: dict[str, Any] = dict.fromkeys(("time", "time_end", "platform", "cloud"))
    return Fact(
        dataset="", geocode=geocode, scene="", names=frozenset(), coverage=0.0, **nothing,
        west=west, south=south, east=east, north=north, scheme=scheme,
    )  # fmt: skip


def _cells_over(
    scheme: str, length: int, boxes: list[tuple[float, float, float, float]]
) -> set[str] | None:
    """All cells that touch one of the boxes; None: more than brute force looks at."""
    found: set[str] = set()
    for left, south, right, north in boxes:
        west, east = max(left, -180.0), min(right, 180.0)
        if west > east:
            continue
        if scheme == "quadtile":
            first, last = mercantile.tile(west, north, length), mercantile.tile(east, south, length)
            across, down = (first.x, last.x), (first.y, last.y)
            columns = rows = 1 << length
        else:
            columns, rows = 1 << (5 * length + 1) // 2, 1 << 5 * length // 2
            across = (int((west + 180) / 360 * columns), int((east + 180) / 360 * columns))
            down = (int((south + 90) / 180 * rows), int((north + 90) / 180 * rows))
        # One more on each side: which of them match is decided cell by cell.
        wide = range(max(0, across[0] - 1), min(columns, across[1] + 2))
        high = range(max(0, down[0] - 1), min(rows, down[1] + 2))
        if len(wide) * len(high) > CANDIDATES_MAX:
            return None
        for x, y in product(wide, high):
            found.add(
                mercantile.quadkey(x, y, length)
                if scheme == "quadtile"
                else _geohash_at(x, y, length)
            )
    return found


def _placement_keys(query: dict[str, Any], dataset: DatasetDefinition) -> set[str] | None:
    """Placement keys of all cells of a dataset that match the query's place, stored or not; None
    where those are too many to look at.
    """
    scheme, length, placement = dataset.scheme, dataset.length, dataset.placement
    assert length is not None
    assert placement is not None
    prefix, alphabet = query.get("geocode", ""), BASE32 if scheme == "geohash" else "0123"
    whole = query.get("recursive", True) or not prefix
    if len(prefix) > length or (not whole and len(prefix) < length) or set(prefix) - set(alphabet):
        return set()
    boxes = None
    place: dict[str, Any] = {}
    if "bbox" in query:
        west, south, east, north = place["bbox"] = query["bbox"]
        spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
        boxes = [(a, south, b, north) for a, b in spans]
    if "geometry" in query:
        place["geometry"], place["parts"] = query["geometry"], _parts(shape(query["geometry"]))
        boxes = boxes or [part.bounds for part in place["parts"]]
    if len(prefix) >= placement:
        cells: set[str] | None = {prefix}
    elif boxes is None:
        cells = None
    else:
        cells = _cells_over(scheme, placement, boxes)
    if cells is None:
        return None
    return {
        cell[:placement]
        for cell in cells
        if cell.startswith(prefix) and _matches(_cell(scheme, cell), place)
    }


def test_invariant_6_cluster_asks_whom_the_ring_names(
    real: RealStore, real_cluster: RealCluster, alone: dict[str, Asked], combinations: Asked
) -> None:
    ring = real_cluster.cluster.ring()
    datasets = {each.name: each for each in real.store.datasets()}
    asked_of: Counter[int] = Counter()
    queries = [*alone["bbox"], *alone["geometry"], *alone["geocode"], *combinations]
    for number, (query, _) in enumerate(queries):
        if not IS_FULL and number % 8:
            continue
        keys = [
            _placement_keys(query, datasets[name])
            for name in query.get("dataset", sorted(datasets))
        ]
        if None in keys or query.get("limit") == 0:
            continue
        names = ring.asked({key for each in keys for key in each or ()})
        store = real_cluster.stores[CLUSTER_NODES[number % 3]]
        told = store.query(**query).explain()
        assert told.nodes_asked == names, query
        assert told.nodes_skipped == [name for name in ring.names if name not in names], query
        asked_of[len(names)] += 1
    # How many of each there are is the ring's chance: its nodes' ids are drawn anew.
    assert min(asked_of[count] for count in (1, 2, 3)) >= 1, asked_of


def test_explain_counts_what_brute_force_counts(
    real_cluster: RealCluster, facts: list[Fact], combinations: Asked
) -> None:
    for number, (query, expected) in enumerate(combinations[: None if IS_FULL else 60]):
        told = real_cluster.stores[CLUSTER_NODES[number % 3]].query(**query).explain()
        assert sorted(told.nodes_asked + told.nodes_skipped) == sorted(CLUSTER_NODES)
        if query.get("limit") == 0:
            continue  # nobody is asked for nothing
        unlimited = {name: value for name, value in query.items() if name != "limit"}
        matched = len(_answer(facts, unlimited)) if "limit" in query else len(expected)
        found = told.rows_matched or 0
        if told.ended_early:  # at the limit, on each node by itself
            assert min(query["limit"], matched) <= found <= matched, query
        else:
            assert found == matched, query
        assert (told.rows_total or 0) <= len(facts)


# ---------------------------------------------------------------- the same lines


def test_scenes_go_into_a_cluster_as_into_a_directory(
    real: RealStore, real_cluster: RealCluster
) -> None:
    assert len(real_cluster.results) >= 5
    for dataset, result in real_cluster.results.items():
        expected = {**real.results[dataset].to_json(), "seconds": 0}
        assert {**result.to_json(), "seconds": 0} == expected


@pytest.mark.parametrize("node", CLUSTER_NODES)
def test_every_line_is_the_same(real: RealStore, real_cluster: RealCluster, node: str) -> None:
    target = real_cluster.cluster.targets[CLUSTER_NODES.index(node)]
    ring = real_cluster.cluster.ring()
    placements = {each.name: each.placement for each in real.store.datasets()}
    for order in ("time", "-cloud", "coverage"):
        one, three = (
            [
                json.loads(line)
                for line in done("--store", where, "query", "--sort", order).stdout.splitlines()
            ]
            for where in (real.directory, target)
        )
        assert len(one) == sum(result.tiles for result in real.results.values())
        for mine, theirs in zip(one, three, strict=True):
            assert theirs.pop("nodes") == ring.holders(
                theirs["geocode"][: placements[theirs["dataset"]]]
            )
            del mine["nodes"]
            assert list(theirs.items()) == list(mine.items())


def test_pixels_of_real_tiles_are_the_same(real: RealStore, real_cluster: RealCluster) -> None:
    chosen = random.Random(3)
    for name in real.results:
        mine = list(real.store.query(dataset=name))
        for number in chosen.sample(range(len(mine)), min(4, len(mine))):
            store = real_cluster.stores[CLUSTER_NODES[number % 3]]
            tile = mine[number]
            (theirs,) = store.query(dataset=name, geocode=tile.geocode, recursive=False)
            for band in chosen.sample(tile.bands, min(3, len(tile.bands))):
                one, three = tile.read(bands=[band]), theirs.read(bands=[band])
                assert np.array_equal(one.data, three.data)
                assert np.array_equal(one.mask, three.mask)
                assert (one.crs, one.transform) == (three.crs, three.transform)
