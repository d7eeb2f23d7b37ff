"""Queries of every size and shape, a thousand at once, and readers that stop: in bounded memory."""

from __future__ import annotations

import math
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest

from geostore.api.local_cluster import LocalCluster
from geostore.backends.cluster import ClusterBackend, open_cluster
from geostore.config import parse_target
from geostore.errors import InvalidInputError, UnavailableError
from geostore.grid import GEOHASH, Region, covering
from geostore.index import Catalog, open_catalog
from geostore.node.pruning import slots_matching
from geostore.query import PercentRange, Query, matching
from geostore.ring import placement_key, slot_of
from geostore.rpc.client import NodeClient
from geostore.rpc.messages import make_head
from geostore.rpc.transport import Channels
from geostore.types import BBox, CallContext, RowBatch, TimeSpan
from tests.fake_leaves import definition_of
from tests.synthetic_tiles import make_entry, make_schema, many_entries

TILES = 4000
FINE_TILES = 1500
NODE_TILES = 6000
MIB = 1 << 20
STALLED = 12
BATCHES_AHEAD_MAX = 60
"""Of 4096 rows, for a reader that took one: what the connection's buffers hold, and some."""


def star(points: int, step: int) -> Region:
    """A polygon around the globe, every other corner drawn in; it goes round `step` times."""
    turns = np.arange(points) * step % points / points * 2 * math.pi
    radius = np.where(np.arange(points) % 2, 1.0, 0.35)
    ring = np.stack([170 * radius * np.cos(turns), 80 * radius * np.sin(turns)], axis=1).tolist()
    return Region.from_geometry({"type": "Polygon", "coordinates": [[*ring, ring[0]]]})


WORLD = Region.from_bbox(BBox(-180, -90, 180, 90))
REGIONS: dict[str, Callable[[], Region]] = {
    "crossing": lambda: star(5, 2),
    "crossing a thousand times": lambda: star(51, 20),
    "of many corners": lambda: star(4000, 1),
    "world": lambda: WORLD,
    "antimeridian": lambda: Region.from_bbox(BBox(170, -90, -170, 90)),
    "points": lambda: Region.from_geometry(
        {"type": "MultiPoint", "coordinates": [[0, 0], [180, 90], [-180, -90]]}
    ),
    "line": lambda: Region.from_geometry(
        {"type": "LineString", "coordinates": [[-180, -90], [179, 84.5]]}
    ),
}


def rows_in(catalog: Catalog) -> RowBatch:
    return RowBatch.concatenate(list(catalog.query(Query())))


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    with open_catalog(tmp_path_factory.mktemp("stocked"), writable=True) as catalog:
        catalog.rebuild(many_entries(TILES, tiles_a_scene=40))
        yield catalog


@pytest.fixture(scope="module")
def fine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """Cells of the length 12, which are 4 cm wide, all over the world and many in one place."""
    rng = random.Random(4)
    schema = make_schema({"B04": "red"}, length=12)
    places = [(rng.uniform(-180, 180), rng.uniform(-90, 90)) for _ in range(FINE_TILES // 2)]
    places += [(rng.gauss(5, 1e-5), rng.gauss(50, 1e-5)) for _ in range(FINE_TILES // 2)]
    cells = {GEOHASH.encode(lon, lat, 12) for lon, lat in places}
    with open_catalog(tmp_path_factory.mktemp("fine"), writable=True) as catalog:
        catalog.rebuild(
            make_entry(cell, scene=f"s{number % 50}", schema=schema, time_us=number)
            for number, cell in enumerate(sorted(cells))
        )
        yield catalog


# ---------------------------------------------------------------- shapes


@pytest.mark.parametrize("store", ["stocked", "fine"])
@pytest.mark.parametrize("name", REGIONS)
def test_places_of_any_shape_answer_as_the_naive_model(
    request: pytest.FixtureRequest, store: str, name: str
) -> None:
    catalog: Catalog = request.getfixturevalue(store)
    rows, region = rows_in(catalog), REGIONS[name]()
    began_s = time.process_time()
    for query in (
        Query(region=region),
        Query(region=region, time=TimeSpan.parse("2018"), cloud=PercentRange(None, 50)),
        Query(region=region, geocode="d"),
        Query(region=region, sort="-coverage", limit=9),
    ):
        expected = rows.row_id[matching(rows, query)].tolist()
        found = [int(row_id) for batch in catalog.query(query) for row_id in batch.row_id]
        if query.limit is None:
            assert found == expected
        else:
            assert len(found) == min(query.limit, len(expected))
            assert set(found) <= set(expected)
        assert catalog.count(query) == len(found)
    assert time.process_time() - began_s < 20


@pytest.mark.parametrize(
    "bounds",
    [
        (math.nan, 0, 1, 1),
        (0, math.nan, 1, 1),
        (0, 0, math.nan, 1),
        (0, 0, 1, math.nan),
        (0, 0, math.inf, 1),
        (-math.inf, 0, 1, 1),
        (0, 5, 1, 4),
        (0, -91, 1, 4),
    ],
)
def test_boxes_that_are_none_are_refused(bounds: tuple[float, float, float, float]) -> None:
    with pytest.raises(InvalidInputError):
        Region.from_bbox(BBox(*bounds))
    ring = [[bounds[0], bounds[1]], [bounds[2], bounds[1]], [bounds[2], bounds[3]]]
    if not all(map(math.isfinite, bounds)):
        with pytest.raises(InvalidInputError, match="finite"):
            Region.from_geometry({"type": "Polygon", "coordinates": [[*ring, ring[0]]]})


@pytest.mark.parametrize("name", ["world", "crossing", "line"])
def test_what_has_cells_without_end_at_length_12_is_refused_at_once(name: str) -> None:
    began_s, before_bytes = time.process_time(), peak_bytes(os.getpid())
    with pytest.raises(InvalidInputError, match="cells"):
        covering(GEOHASH, REGIONS[name](), 12, cells_max=20_000)
    assert time.process_time() - began_s < 10
    assert peak_bytes(os.getpid()) - before_bytes < 200 * MIB


@pytest.mark.parametrize("name", REGIONS)
def test_the_slots_of_places_at_length_12_are_found_in_bounded_time(name: str) -> None:
    region, definition = REGIONS[name](), definition_of(length=12, placement=12)
    began_s, before_bytes = time.process_time(), peak_bytes(os.getpid())
    slots = slots_matching(Query(region=region), [definition])
    assert time.process_time() - began_s < 10
    assert peak_bytes(os.getpid()) - before_bytes < 200 * MIB
    cells = [(0.0, 0.0), (-180.0, -90.0)] if name == "points" else []
    for lon, lat in cells:
        assert slots is not None
        assert slot_of(placement_key(GEOHASH.encode(lon, lat, 12), 12)) in slots
    assert name == "points" or slots is None or len(slots) == 4096


# ---------------------------------------------------------------- a thousand at once


def thousand_queries(rng: random.Random) -> list[Query]:
    """Of every size; some match everything; each comes four times."""
    made = []
    for _ in range(250):
        west, south = rng.uniform(-180, 120), rng.uniform(-85, 40)
        box = BBox(west, south, west + rng.uniform(1, 59), south + rng.uniform(1, 45))
        region = Region.from_bbox(box)
        kind = rng.random()
        if kind < 0.03:
            made.append(Query())
        elif kind < 0.3:
            made.append(Query(region=region, sort="-cloud", limit=20))
        elif kind < 0.55:
            made.append(Query(region=region, time=TimeSpan.parse("2019")))
        elif kind < 0.8:
            made.append(Query(geocode=rng.choice("0123456789bcdefghjk"), sort="-time", limit=50))
        else:
            made.append(Query(region=Region.from_bbox(GEOHASH.bounds("d")), limit=7))
    return rng.sample(made * 4, 1000)


def rows_expected(rows: RowBatch, queries: Sequence[Query]) -> list[int]:
    """How many rows each has, by the naive model."""

    @cache
    def of(query: Query) -> int:
        matched = int(np.count_nonzero(matching(rows, query)))
        return matched if query.limit is None else min(query.limit, matched)

    return [of(query) for query in queries]


def peak_bytes(pid: int) -> int:
    """The most memory that a process ever had resident."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) * 1024  # type: ignore[index]


def test_a_thousand_queries_at_once_all_answer(stocked: Catalog) -> None:
    queries, rows = thousand_queries(random.Random(5)), rows_in(stocked)
    expected = rows_expected(rows, queries)
    before_bytes = peak_bytes(os.getpid())
    with ThreadPoolExecutor(200) as pool:
        found = list(pool.map(lambda query: sum(map(len, stocked.query(query))), queries))
    assert found == expected
    assert peak_bytes(os.getpid()) - before_bytes < 200 * MIB


# ---------------------------------------------------------------- over the wire


@dataclass
class Nodes:
    """Three nodes with rows, without tile files."""

    targets: list[str]
    pids: list[int]
    rows: RowBatch
    closing: ExitStack

    def backend(self, number: int) -> ClusterBackend:
        """A client that goes in by one node."""
        return self.closing.enter_context(open_cluster(parse_target(self.targets[number])))

    def peaks(self) -> list[int]:
        return [peak_bytes(pid) for pid in self.pids]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Rows are put into the catalogs of nodes that are stopped: no tile is read here."""
    folder = tmp_path_factory.mktemp("nodes")
    definition = definition_of(length=5, placement=5)
    entries = list(many_entries(NODE_TILES, tiles_a_scene=400))
    cluster = LocalCluster(folder / "cluster")
    with ExitStack() as stack:
        stack.callback(cluster.down)
        with closing(open_cluster(parse_target(cluster.up(nodes=3, replicas=1)))) as backend:
            backend.create_dataset(definition)
            holders = {slot: backend.holders(slot)[0][0] for slot in range(4096)}
        cluster.down()
        for name in ("n1", "n2", "n3"):
            own = [
                entry
                for entry in entries
                if holders[slot_of(placement_key(entry.meta.key.geocode, 5))] == name
            ]
            with open_catalog(cluster.directory / name / "catalog", writable=True) as catalog:
                catalog.rebuild(own)
        with open_catalog(folder / "all", writable=True) as catalog:
            catalog.rebuild(entries)
            rows = rows_in(catalog)
        hosts = cluster.up().removeprefix("geostore://").split(",")
        pids = [node.pid for node in cluster.status() if node.pid is not None]
        found = Nodes([f"geostore://{host}" for host in hosts], pids, rows, stack)
        for number in range(3):  # structures are built
            assert found.backend(number).count(Query()) == NODE_TILES
            assert sum(map(len, found.backend(number).query(Query()))) == NODE_TILES
        yield found


def test_a_thousand_queries_at_once_all_answer_over_the_wire(nodes: Nodes) -> None:
    """Or are told to come back: none is short, none waits for ever, and memory is bounded."""
    queries = thousand_queries(random.Random(6))
    expected = rows_expected(nodes.rows, queries)
    backends = [nodes.backend(number) for number in range(3)]
    before = nodes.peaks()

    def ask(number: int) -> int | str:
        try:
            return sum(map(len, backends[number % 3].query(queries[number])))
        except UnavailableError as error:
            return str(error)

    with ThreadPoolExecutor(300) as pool:
        found = list(pool.map(ask, range(1000)))
    refused = [answer for answer in found if isinstance(answer, str)]
    assert all("busy" in text or "many" in text for text in refused), Counter(refused)
    assert len(refused) < 300
    wrong = [
        (queries[number], answer, expected[number])
        for number, answer in enumerate(found)
        if answer not in (expected[number], *refused)
    ]
    assert wrong == []
    grown = [after - was for was, after in zip(before, nodes.peaks(), strict=True)]
    assert max(grown) < 250 * MIB, grown


READER = """
import sys
from geostore.backends.cluster import open_cluster
from geostore.config import parse_target
from geostore.query import Query
backends = [open_cluster(parse_target(sys.argv[1])) for _ in range(4)]
streams = [iter(backend.query(Query())) for backend in backends]
for stream in streams:
    next(stream)
print("reading", flush=True)
sys.stdin.read()
"""


def test_readers_that_stall_or_vanish_hold_up_nobody(nodes: Nodes) -> None:
    with ExitStack() as stack:
        channels = stack.enter_context(closing(Channels()))
        before = nodes.peaks()
        stalled = []
        for number in range(24):  # each asks for everything and reads one batch
            address = nodes.targets[number % 3].removeprefix("geostore://")
            ring = NodeClient(channels.channel(address), address).get_ring(CallContext.within(20))
            head = partial(make_head, cluster_id=ring.cluster_id, epoch=ring.epoch)
            client = NodeClient(channels.channel(address), address, head)
            stream = client.query(CallContext.within(120), Query(), batch_rows=256)
            stack.callback(stream.close)
            assert len(next(iter(stream))) > 0
            stalled.append(stream)
        vanished = [
            subprocess.Popen(
                [sys.executable, "-c", READER, nodes.targets[number]],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
            )
            for number in range(3)
        ]  # fmt: skip
        try:
            for process in vanished:
                assert process.stdout is not None
                assert process.stdout.readline() == "reading\n"
        finally:
            for process in vanished:
                process.send_signal(signal.SIGKILL)
                process.communicate(timeout=60)
        answered = threading.Event()

        def others() -> None:
            for number in range(60):
                backend = nodes.backend(number % 3)
                assert backend.count(Query(geocode="d")) >= 0
                assert sum(map(len, backend.query(Query(limit=100)))) == 100
            answered.set()

        thread = threading.Thread(target=others, daemon=True)
        thread.start()
        thread.join(60)
        assert answered.is_set()
        grown = [after - was for was, after in zip(before, nodes.peaks(), strict=True)]
        assert max(grown) < 150 * MIB, grown
        # What they asked for is still theirs, whole and once.
        rest = sum(map(len, stalled[0]))
        assert rest > NODE_TILES / 2


@dataclass
class EndlessNode:
    """See `endless_node.py`."""

    process: subprocess.Popen[str]

    def said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def batches_made(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self.said())


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[EndlessNode]:
    process = subprocess.Popen(
        [sys.executable, Path(__file__).parent / "endless_node.py", tmp_path / "node"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )  # fmt: skip
    try:
        yield EndlessNode(process)
    finally:
        process.communicate(timeout=60)  # closes its input, with which it ends


def test_an_answer_without_end_takes_no_more_memory_than_its_reader_lets_through(
    endless: EndlessNode,
) -> None:
    """A node makes rows as they are read, a bounded number ahead."""
    address = endless.said()
    with ExitStack() as stack:
        channels = stack.enter_context(closing(Channels()))
        stranger = NodeClient(channels.channel(address), address)
        ring = stranger.get_ring(CallContext.within(20))
        head = partial(make_head, cluster_id=ring.cluster_id, epoch=ring.epoch)
        client = NodeClient(channels.channel(address), address, head)
        before_bytes = peak_bytes(endless.process.pid)
        for _ in range(STALLED):
            stream = client.query(CallContext.within(120), Query())
            stack.callback(stream.close)
            assert len(next(iter(stream))) > 0
        made, before = endless.batches_made(), -1
        never = threading.Event()
        while made != before:  # it comes to rest, or makes more than it may
            assert made <= STALLED * BATCHES_AHEAD_MAX
            never.wait(1.0)
            made, before = endless.batches_made(), made
            print(made)
        assert peak_bytes(endless.process.pid) - before_bytes < 300 * MIB
        with closing(client.query(CallContext.within(120), Query())) as stream:
            rows = 0
            for batch in stream:  # one who reads gets on, whoever else does not
                rows += len(batch)
                if rows > 150 * 4096:
                    break
        assert peak_bytes(endless.process.pid) - before_bytes < 300 * MIB
