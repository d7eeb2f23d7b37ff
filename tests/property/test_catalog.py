"""The catalog against brute force over the metadata that was put in.

The brute force keeps a plain list of entries and tests each by CONTRACT's words; it shares
no code with the query room or the index.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import random
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, get_args
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from geostore.grid import Region, scheme
from geostore.index import (
    CatalogEntry,
    LogCatalog,
    RecordChange,
    cell_table,
    cleaning,
    memory,
    open_catalog,
    ordered_walk,
    planner,
    radix,
    structures,
    time_order,
)
from geostore.query import (
    Cursor,
    Explain,
    Not,
    PercentRange,
    Query,
    SortKey,
    matching,
    merge_batches,
)
from geostore.types import BITMAP_BYTES, BBox, BlockBitmaps, TileKey, TileSchema, TimeSpan
from tests.expressions import random_expression, random_leaf, truth
from tests.synthetic_tiles import make_batch, make_entry, make_schema

SCHEMAS = {
    "geohash": [
        make_schema({"B02": "blue", "B04": "red", "B08": "nir"}),
        make_schema({"B04": "red"}),
        make_schema({"red": None, "nir": "nir"}, length=4),
    ],
    "quadtile": [
        make_schema({"SR_B4": "red", "SR_B5": "nir"}, scheme="quadtile", length=8),
        make_schema({"B04": None}, scheme="quadtile", length=6),
    ],
}
DATASETS = {"s2": "geohash", "l8": "quadtile", "S2-x": "geohash", "naip": "quadtile"}
SCENES = ["S2A_1", "s2a_1", "Szene ä", "\u65e5\u672c", "\U0001f6f0 sat", "z/1", "\uffee", "a" * 300]
BANDS = ["B02", "B04", "B08", "red", "nir", "blue", "SR_B4", "swir16"]
PLATFORMS = [None, "sentinel-2a", "landsat-8"]
SORTS: tuple[SortKey | None, ...] = (None, *get_args(SortKey))


def float32(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


def _as_stored(cover: float | None) -> float | None:
    return None if cover is None else float32(cover)


# ---------------------------------------------------------------- made-up stores


def _cell(rng: random.Random, scheme_name: str, length: int) -> str:
    if rng.random() < 0.7:  # near one place, so that regions and prefixes hit several
        lon, lat = rng.gauss(-75.6, 1.5), rng.gauss(37.7, 1.5)
    else:
        lon, lat = rng.uniform(-180, 180), rng.uniform(-84, 84)
    return scheme(scheme_name).encode(lon, lat, length)  # type: ignore[arg-type]


def _time(rng: random.Random) -> tuple[int | None, int | None]:
    if rng.random() < 0.15:
        return None, None
    start = rng.randrange(0, 1000) * 10
    length = rng.choice([0, 0, 0, 1, 7, 80, 3000])
    return start, start + length


def random_entry(rng: random.Random, dataset: str, scene: str, version: str) -> CatalogEntry:
    scheme_name = DATASETS[dataset]
    schema: TileSchema = rng.choice(SCHEMAS[scheme_name])
    time_us, time_end_us = _time(rng)
    entry = make_entry(
        _cell(rng, scheme_name, schema.length),
        scene=scene,
        version=version,
        dataset=dataset,
        schema=schema,
        time_us=time_us,
        time_end_us=time_end_us,
        platform=rng.choice(PLATFORMS),
        coverage=rng.choice([0.0, 33.3, 95.0, 100.0, rng.uniform(0, 100)]),
        cloud=rng.choice([None, 0.0, 20.0, 100.0, rng.uniform(0, 100)]),
        size=rng.randrange(1, 10_000),
        histogram=_histogram(rng),
    )
    return replace(entry, meta=replace(entry.meta, bitmaps=_bitmaps(repr(entry.meta.key))))


def _bitmaps(seed: str) -> BlockBitmaps | None:
    rng = random.Random(seed)
    length = BITMAP_BYTES * rng.choice([0, 2, 4])
    return BlockBitmaps.from_bytes(rng.randbytes(length)) if length else None


def _histogram(rng: random.Random) -> tuple[int, ...] | bool:
    """Pixels by cloud likelihood, of a tile that has it."""
    if rng.random() < 0.4:
        return False
    counts = [0] * 101
    for _ in range(rng.choice([1, 3, 101])):
        counts[rng.randrange(101)] += rng.choice([1, 7, 262_144])
    return tuple(counts)


def served(entry: CatalogEntry, threshold: int | None) -> CatalogEntry:
    """An entry under a cloud rule: likelihood of at least so many percent; None: the provider's."""
    if threshold is None:
        return entry
    cover, method = None, None
    histogram = entry.meta.cloud_histogram
    if histogram is not None:
        cloudy = sum(histogram[percent] for percent in range(101) if percent >= threshold)
        cover, method = 100 * cloudy / sum(histogram), f"likelihood >= {threshold}"
    return replace(entry, meta=replace(entry.meta, cloud_cover=cover, cloud_method=method))


# ---------------------------------------------------------------- brute force


def _within(value: float | None, bounds: PercentRange) -> bool:
    if value is None:
        return False
    stored = float32(value)
    low = -math.inf if bounds.minimum is None else float32(bounds.minimum)
    high = math.inf if bounds.maximum is None else float32(bounds.maximum)
    return low <= stored <= high


def _overlaps(entry: CatalogEntry, span: TimeSpan) -> bool:
    start, end = entry.meta.time_us, entry.meta.time_end_us
    if start is None or end is None:
        return False
    return (span.end_us is None or start <= span.end_us) and (
        span.start_us is None or end >= span.start_us
    )


def _matches(entry: CatalogEntry, q: Query) -> bool:
    meta = entry.meta
    code = meta.key.geocode
    names = {band.name for band in meta.schema.bands} | {b.common_name for b in meta.schema.bands}
    return (
        (q.datasets is None or meta.dataset in q.datasets)
        and (q.platform is None or meta.platform == q.platform)
        and (q.scene is None or meta.key.scene == q.scene)
        and all(band in names for band in q.bands)
        and (
            q.geocode is None or (code.startswith(q.geocode) if q.recursive else code == q.geocode)
        )
        and (q.time is None or _overlaps(entry, q.time))
        and (q.cloud is None or _within(meta.cloud_cover, q.cloud))
        and (q.coverage is None or _within(meta.pixel_coverage, q.coverage))
        and (q.region is None or q.region.matches(scheme(meta.schema.scheme), code))
        and (q.where is None or truth(q.where, entry) is True)
    )


def _sort_key(entry: CatalogEntry, sort: SortKey | None) -> tuple[Any, ...]:
    meta = entry.meta
    values: dict[str, float | None] = {
        "time": meta.time_us,
        "cloud": None if meta.cloud_cover is None else float32(meta.cloud_cover),
        "coverage": float32(meta.pixel_coverage),
    }
    value = values[(sort or "time").lstrip("-")]
    sign = -1 if (sort or "").startswith("-") else 1
    return (
        value is None,
        sign * (value or 0),
        meta.time_us is None,
        meta.time_us or 0,
        meta.dataset,
        meta.key.geocode,
        meta.key.scene,
        meta.key.version,
    )


def brute_force(entries: list[CatalogEntry], q: Query) -> list[TileKey]:
    found = sorted((e for e in entries if _matches(e, q)), key=lambda e: _sort_key(e, q.sort))
    return [entry.meta.key for entry in found[: q.limit]]


# ---------------------------------------------------------------- random queries


def _percent(rng: random.Random) -> PercentRange:
    bounds = sorted(rng.choice([0, 20, 33.3, 95, 100, rng.uniform(0, 100)]) for _ in range(2))
    return PercentRange(*(None if rng.random() < 0.3 else bound for bound in bounds))


def _span(rng: random.Random) -> TimeSpan:
    bounds = sorted(rng.randrange(-100, 10_500) for _ in range(2))
    if rng.random() < 0.5:
        bounds[1] = bounds[0] + rng.choice([0, 10, 500])
    return TimeSpan(*(None if rng.random() < 0.2 else bound for bound in bounds))


def _region(rng: random.Random, entries: list[CatalogEntry]) -> Region:
    entry = rng.choice(entries)
    box = scheme(entry.meta.schema.scheme).bounds(entry.meta.key.geocode)
    kind = rng.randrange(6)
    if kind == 0:
        return Region.from_bbox(box)  # exactly one cell: its neighbours only touch
    if kind == 1:
        return Region.from_geometry({"type": "Point", "coordinates": [box.west, box.south]})
    if kind == 2:
        end = [max(-180.0, box.west - rng.uniform(0, 9)), box.north]
        line = [[box.west, box.south], end]
        return Region.from_geometry({"type": "LineString", "coordinates": line})
    west, south = rng.gauss(-76, 2), rng.gauss(37, 2)
    if kind == 3:
        corners = [[west, south], [west + 4, south + 0.5], [west + 1, south + 5], [west, south]]
        return Region.from_geometry({"type": "Polygon", "coordinates": [corners]})
    if kind == 4:
        return Region.from_bbox(BBox(rng.uniform(100, 180), -80.0, rng.uniform(-180, -60), 80.0))
    return Region.from_bbox(BBox(west, south, west + rng.uniform(0, 8), south + rng.uniform(0, 8)))


def random_query(rng: random.Random, entries: list[CatalogEntry], chance: float) -> Query:
    """Each predicate with that chance; values that hit something more often than not."""
    some = rng.choice(entries).meta
    fields: dict[str, Any] = {}
    makers = {
        "datasets": lambda: tuple(rng.sample(sorted({e.meta.dataset for e in entries}), 1)),
        "region": lambda: _region(rng, entries),
        "geocode": lambda: some.key.geocode[: rng.randint(1, len(some.key.geocode))],
        "time": lambda: _span(rng),
        "cloud": lambda: _percent(rng),
        "coverage": lambda: _percent(rng),
        "bands": lambda: tuple(rng.sample(BANDS, rng.randint(1, 2))),
        "platform": lambda: rng.choice(["sentinel-2a", "landsat-8", "none such"]),
        "scene": lambda: rng.choice([some.key.scene, "none such"]),
        "where": lambda: random_expression(rng, entries),
    }
    for name, make in makers.items():
        if rng.random() < chance:
            fields[name] = make()
    if "geocode" in fields:
        fields["recursive"] = rng.random() < 0.7
    return Query(
        **fields,
        sort=rng.choice(SORTS),
        limit=rng.choice([None, None, 0, 1, 5, 50, 10_000]),
    )


def answer(catalog: LogCatalog, q: Query, **options: Any) -> list[TileKey]:
    return [row.key for batch in catalog.query(q, **options) for row in batch.rows()]


def agree(catalog: LogCatalog, entries: list[CatalogEntry], q: Query, batch_rows: int) -> None:
    expected = brute_force(entries, q)
    explain = Explain()
    assert answer(catalog, q, batch_rows=batch_rows, explain=explain) == expected, explain.to_text()
    assert catalog.count(q) == len(expected)


# ---------------------------------------------------------------- a second process

FOLLOWER = """
import pickle, sys
from geostore.index import open_catalog
catalogs = {}
while True:
    try:
        directory, query = pickle.load(sys.stdin.buffer)
    except EOFError:
        break
    if query is None:
        catalogs.pop(directory).close()
        answer = None
    else:
        if directory not in catalogs:
            catalogs[directory] = open_catalog(directory, writable=False)
        batches = catalogs[directory].query(query)
        answer = [row.key for batch in batches for row in batch.rows()]
    pickle.dump(answer, sys.stdout.buffer)
    sys.stdout.buffer.flush()
"""


class Follower:
    """Another process that has catalogs open for reading and follows their writer."""

    def __init__(self) -> None:
        self.opened: set[str] = set()
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", FOLLOWER],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def _call(self, directory: str, q: Query | None) -> list[TileKey]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        pickle.dump((directory, q), self.process.stdin)
        self.process.stdin.flush()
        found: list[TileKey] = pickle.load(self.process.stdout)
        return found

    def ask(self, directory: Path, q: Query) -> list[TileKey]:
        self.opened.add(str(directory))
        return self._call(str(directory), q)

    def forget(self, directory: Path) -> None:
        if str(directory) in self.opened:
            self.opened.remove(str(directory))
            self._call(str(directory), None)

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(30) == 0


@pytest.fixture(scope="module", autouse=True)
def follower() -> Iterator[Follower]:
    CatalogMachine.follower = Follower()
    yield CatalogMachine.follower
    CatalogMachine.follower.close()


# ---------------------------------------------------------------- tests


def _store(seed: int, count: int) -> list[CatalogEntry]:
    """`count` entries at most (a key that comes twice is one)."""
    rng = random.Random(seed)
    entries: dict[TileKey, CatalogEntry] = {}
    for _ in range(count):
        entry = random_entry(rng, rng.choice(list(DATASETS)), rng.choice(SCENES), "v1")
        entries[entry.meta.key] = entry
    return list(entries.values())


@pytest.fixture(params=["planned", "walked"], autouse=True)
def planning(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small stores are scanned: half of the runs walk the structures whatever that costs, take in
    new rows at once, and take the ways that are meant for large answers.
    """
    if request.param == "walked":
        monkeypatch.setattr(planner, "SCAN_COST", math.inf)
        monkeypatch.setattr(planner, "ENOUGH_ROWS", 0)
        monkeypatch.setattr(planner, "UNASKED_ROWS", 0)
        monkeypatch.setattr(planner, "WALK_ROWS", 0)
        monkeypatch.setattr(memory, "TAIL_ROWS", 2)
        monkeypatch.setattr(cell_table, "ENOUGH_ROWS", 1)
        monkeypatch.setattr(cell_table, "BLOCKS_FINE", 8)
        monkeypatch.setattr(cell_table, "SMALL_FRACTION", 1 << 30)
        monkeypatch.setattr(time_order, "PIECE_ROWS", 1)
        monkeypatch.setattr(structures, "DATASETS_APART", 2)  # of four: two share trees
        monkeypatch.setattr(planner, "DATASETS_APART", 2)
        monkeypatch.setattr(time_order, "PIECES_SEARCHED", 2)
        monkeypatch.setattr(cell_table, "JOINED_MAX", 2)
        monkeypatch.setattr(ordered_walk, "PIECE_ROWS", 1)
        monkeypatch.setattr(ordered_walk, "TIES_MAX", 1)
        monkeypatch.setattr(radix, "BUCKET", 1)


@pytest.mark.parametrize("count", [5, 60, 1500])
def test_every_predicate_alone_answers_as_brute_force(tmp_path: Path, count: int) -> None:
    entries = _store(count, count)
    rng = random.Random(count)
    with open_catalog(tmp_path, writable=True) as catalog:
        catalog.rebuild(entries)
        for _ in range(8):
            for q in (
                Query(datasets=("s2", "l8")) if count > 5 else Query(),
                Query(region=_region(rng, entries)),
                Query(geocode=rng.choice(entries).meta.key.geocode[: rng.randint(1, 4)]),
                Query(geocode=rng.choice(entries).meta.key.geocode, recursive=False),
                Query(time=_span(rng)),
                Query(cloud=_percent(rng)),
                Query(coverage=_percent(rng)),
                Query(bands=tuple(rng.sample(BANDS, 2))),
                Query(platform="landsat-8"),
                Query(scene=rng.choice(SCENES)),
                Query(where=random_leaf(rng, entries)),
                Query(where=Not(random_leaf(rng, entries))),
            ):
                agree(catalog, entries, q, 4096)


@pytest.mark.parametrize("seed", range(3))
def test_a_thousand_random_queries_answer_as_brute_force(tmp_path: Path, seed: int) -> None:
    entries = _store(seed, [500, 300, 40][seed])
    rng = random.Random(1000 + seed)
    hits = 0
    with open_catalog(tmp_path, writable=True) as catalog:
        catalog.rebuild(entries)
        for _ in range(250):
            q = random_query(rng, entries, rng.choice([0.1, 0.25, 0.5]))
            agree(catalog, entries, q, rng.choice([1, 7, 4096]))
            hits += bool(catalog.count(q))
    assert hits > 60  # empty answers alone would show little


@pytest.mark.parametrize("seed", range(2))
def test_random_expressions_answer_as_brute_force_and_the_naive_model(
    tmp_path: Path, seed: int
) -> None:
    entries = _store(seed, 300)
    rows = make_batch(entries)
    rng = random.Random(2000 + seed)
    hits = 0
    with open_catalog(tmp_path, writable=True) as catalog:
        catalog.rebuild(entries)
        for _ in range(150):
            q = Query(where=random_expression(rng, entries, rng.randint(1, 5)))
            agree(catalog, entries, q, 4096)
            naive = [entries[i].meta.key for i in np.flatnonzero(matching(rows, q))]
            assert sorted(naive) == sorted(answer(catalog, q))
            hits += 0 < len(naive) < len(entries)
    assert hits > 50


@pytest.mark.parametrize("seed", range(2))
def test_structures_that_were_built_before_rows_went_and_came(tmp_path: Path, seed: int) -> None:
    entries = _store(50 + seed, 800)
    rng = random.Random(seed)
    with open_catalog(tmp_path, writable=True) as catalog:
        catalog.rebuild(entries)
        for round_number in range(4):
            for _ in range(60):
                agree(catalog, entries, random_query(rng, entries, 0.2), 4096)
            gone = rng.choice(entries).meta.key
            catalog.remove(gone.dataset_id, gone.scene)
            entries = [
                entry
                for entry in entries
                if (entry.meta.key.dataset_id, entry.meta.key.scene)
                != (gone.dataset_id, gone.scene)
            ]
            scene = f"new {round_number}"
            new = {(e := random_entry(rng, "s2", scene, "v1")).meta.key: e for _ in range(90)}
            catalog.stage(list(new.values()))
            catalog.publish("id-s2", scene, "v1")
            entries += new.values()
        assert catalog.check() == []


@pytest.mark.parametrize("sort", SORTS)
def test_pages_by_cursor_are_the_whole_answer(tmp_path: Path, sort: SortKey | None) -> None:
    entries = _store(9, 300)
    with open_catalog(tmp_path, writable=True) as catalog:
        catalog.rebuild(entries)
        q = Query(sort=sort, limit=37, coverage=PercentRange(10, None))
        pages: list[TileKey] = []
        cursor = None
        while batches := list(catalog.query(q, after=cursor, batch_rows=10)):
            pages += [row.key for batch in batches for row in batch.rows()]
            cursor = Cursor.from_text(Cursor.after(batches[-1], sort).to_text())
        assert pages == brute_force(entries, Query(sort=sort, coverage=PercentRange(10, None)))


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32), sort=st.sampled_from(SORTS), parts=st.integers(1, 4))
def test_nodes_merged_answer_as_one(
    tmp_path_factory: pytest.TempPathFactory, seed: int, sort: SortKey | None, parts: int
) -> None:
    """Invariant 2, as far as query and index go: any split of the tiles, the same answer."""
    rng = random.Random(seed)
    entries = _store(rng.randrange(1000), 60)
    directory = tmp_path_factory.mktemp("nodes")
    placed: list[list[CatalogEntry]] = [[] for _ in range(parts)]
    for entry in entries:
        rng.choice(placed).append(entry)
    q = Query(
        sort=sort, limit=rng.choice([None, 0, 3, 20]), cloud=rng.choice([None, _percent(rng)])
    )
    nodes = [open_catalog(directory / str(i), writable=True) for i in range(parts)]
    try:
        for node, own in zip(nodes, placed, strict=True):
            node.rebuild(own)
        streams = [node.query(q, batch_rows=5) for node in nodes]
        merged = [
            row.key for batch in merge_batches(streams, sort, q.limit) for row in batch.rows()
        ]
    finally:
        for node in nodes:
            node.close()
    assert merged == brute_force(entries, q)


class CatalogMachine(RuleBasedStateMachine):
    """Stages, publishes, replaces, removes, reclouds, rebuilds and reopens at random.

    The same questions go to a second process, which follows by what it reads in the file.
    """

    follower: ClassVar[Follower]

    def __init__(self) -> None:
        super().__init__()
        self.temporary = tempfile.TemporaryDirectory()
        self.directory = Path(self.temporary.name) / "catalog"
        self.catalog = open_catalog(self.directory, writable=True)
        self.published: dict[TileKey, CatalogEntry] = {}
        self.staged: dict[TileKey, CatalogEntry] = {}
        self.thresholds: dict[str, int | None] = {}
        """By dataset: the cloud rule that was set last."""

    def teardown(self) -> None:
        self.follower.forget(self.directory)
        self.catalog.close()
        self.temporary.cleanup()

    def _of(self, store: dict[TileKey, CatalogEntry], *parts: str) -> list[TileKey]:
        return [k for k in store if (k.dataset_id, k.scene, k.version)[: len(parts)] == parts]

    @rule(
        seed=st.integers(0, 2**32),
        dataset=st.sampled_from(sorted(DATASETS)),
        scene=st.sampled_from(SCENES[:4]),
        version=st.sampled_from(["v1", "v2", "v3"]),
        count=st.integers(1, 12),
    )
    def stage(self, seed: int, dataset: str, scene: str, version: str, count: int) -> None:
        rng = random.Random(seed)
        entries = [random_entry(rng, dataset, scene, version) for _ in range(count)]
        checksums = self.catalog.stage(entries)
        for entry, checksum in zip(entries, checksums, strict=True):
            key = entry.meta.key
            if key not in self.published:
                self.staged.setdefault(key, entry)
            assert checksum == entry.checksum

    @precondition(lambda self: self.staged)
    @rule(seed=st.integers(0, 2**32), named=st.booleans())
    def publish(self, seed: int, named: bool) -> None:
        rng = random.Random(seed)
        key = rng.choice(sorted(self.staged))
        version = (key.dataset_id, key.scene, key.version)
        others = sorted({k.version for k in self._of(self.published, key.dataset_id, key.scene)})
        replaced = rng.choice([None, *others])
        cells = None
        keys = self._of(self.staged, *version)
        if named:
            there = {k.geocode for k in keys + self._of(self.published, *version)}
            cells = rng.sample(sorted(there), rng.randint(1, len(there)))
        self.catalog.publish(*version, replaced, cells=cells)
        for each in keys:
            entry = self.staged.pop(each)
            if cells is None or each.geocode in cells:
                self.published[each] = entry
        if replaced is not None and replaced != key.version:
            for each in self._of(self.published, key.dataset_id, key.scene, replaced):
                del self.published[each]

    @precondition(lambda self: self.published)
    @rule(seed=st.integers(0, 2**32), depth=st.integers(1, 3))
    def remove(self, seed: int, depth: int) -> None:
        key = random.Random(seed).choice(sorted(self.published))
        parts = (key.dataset_id, key.scene, key.version)[:depth]
        removed = self.catalog.remove(*parts)
        assert removed == sorted(self._of(self.published, *parts))
        for store in (self.published, self.staged):
            for each in self._of(store, *parts):
                del store[each]

    @precondition(lambda self: self.staged)
    @rule(seed=st.integers(0, 2**32), depth=st.integers(1, 3))
    def unstage(self, seed: int, depth: int) -> None:
        key = random.Random(seed).choice(sorted(self.staged))
        parts = (key.dataset_id, key.scene, key.version)[:depth]
        assert self.catalog.unstage(*parts) == sorted(self._of(self.staged, *parts))
        for each in self._of(self.staged, *parts):
            del self.staged[each]

    @rule()
    def rebuild(self) -> None:
        assert self.catalog.rebuild(
            list(self.published.values()), list(self.staged.values())
        ) == len(self.published)

    def _served(self) -> list[CatalogEntry]:
        return [
            served(entry, self.thresholds.get(entry.meta.dataset))
            for entry in self.published.values()
        ]

    @rule(
        dataset=st.sampled_from(sorted(DATASETS)),
        threshold=st.none() | st.sampled_from([0, 1, 50, 99, 100]) | st.integers(0, 100),
    )
    def recloud(self, dataset: str, threshold: int | None) -> None:
        name = f"dataset/{dataset}"
        rule = {} if threshold is None else {"method": "likelihood", "threshold": threshold}
        value = {"id": f"id-{dataset}", "placement": 3, "cloud_rule": rule}
        record = self.catalog.record_get(name)
        before = {entry.meta.key: entry.meta.cloud_cover for entry in self._served()}
        self.thresholds[dataset] = threshold
        after = {entry.meta.key: entry.meta.cloud_cover for entry in self._served()}
        _, changed = self.catalog.change_definition(
            RecordChange(
                name, 0 if record is None else record.revision, b"S" + json.dumps(value).encode()
            )
        )
        assert len(changed) == sum(_as_stored(before[k]) != _as_stored(after[k]) for k in after)

    @rule()
    def follow(self) -> None:
        expected = brute_force(self._served(), Query())
        assert self.follower.ask(self.directory, Query()) == expected

    @rule()
    def snapshot(self) -> None:
        self.catalog._home.snapshot()

    @rule(part=st.sampled_from([0.0, 0.25]))
    def clean(self, part: float) -> None:
        home = self.catalog._home
        with patch.multiple(cleaning, LOG_BYTES_MIN=1, DEAD_MAX=part, BATCH_BYTES=2000):
            home._clean_from_bytes = 0
            home.clean()

    @rule()
    def reopen(self) -> None:
        self.catalog.close()
        self.catalog = open_catalog(self.directory, writable=True)

    @precondition(lambda self: self.published)
    @rule(seed=st.integers(0, 2**32))
    def ask(self, seed: int) -> None:
        rng = random.Random(seed)
        entries = self._served()
        for _ in range(5):
            q = random_query(rng, entries, 0.3)
            agree(self.catalog, entries, q, 7)
            assert self.follower.ask(self.directory, q) == brute_force(entries, q)
        entry = rng.choice(entries)
        key = entry.meta.key
        details = self.catalog.details(key)
        assert details.checksum == entry.checksum
        assert (details.cloud_method, details.cloud_histogram, details.bitmaps) == (
            entry.meta.cloud_method,
            entry.meta.cloud_histogram,
            entry.meta.bitmaps,
        )
        row = self.catalog.tile(key)
        assert (row.key, row.cloud_cover) == (key, _as_stored(entry.meta.cloud_cover))
        provided = self.published[key].meta.cloud_cover
        assert self.catalog.provider_cover(key) == _as_stored(provided)

    @rule()
    def bitmaps(self) -> None:
        """From a snapshot's map, from memory and from details: those that were put in."""
        view = self.catalog._home.refresh()
        snapshot = view.snapshot
        positions = np.flatnonzero(snapshot.alive)
        found = view.memory.row_bitmaps.of(snapshot, positions, self.catalog._home.view_at)
        words = np.stack([found.plane(word) for word in range(16)], axis=1)
        names = [
            snapshot.group_values(name, positions) for name in ("dataset_id", "scene", "version")
        ]
        for i, key in enumerate(map(TileKey, *names, snapshot.geocodes(positions))):
            bitmaps = self.published[key].meta.bitmaps
            packed = b"" if bitmaps is None else bitmaps.to_bytes()
            assert words[i].tobytes() == packed.ljust(4 * BITMAP_BYTES, b"\0")
            assert found.kinds()[i] == {0: 0, 2: 2, 4: 6}[len(packed) // BITMAP_BYTES]

    @invariant()
    def holds(self) -> None:
        assert self.catalog.count(Query()) == len(self.published)
        assert {tile.key for tile in self.catalog.staged()} == set(self.staged)

    @rule()
    def check(self) -> None:
        assert self.catalog.check() == []
        assert self.catalog.keys() == sorted(self.published)


def test_any_sequence_of_changes_leaves_what_a_plain_dict_has() -> None:
    run_state_machine_as_test(
        CatalogMachine, settings=settings(max_examples=15, stateful_step_count=30, deadline=None)
    )
