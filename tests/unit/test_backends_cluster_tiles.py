"""Many tiles from many nodes: in order, bounded, and by other ways when a way fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from geostore.backends.cluster_nodes import ClusterNodes
from geostore.backends.cluster_tiles import TILES_AHEAD, WINDOW_TILES_MAX, ClusterTiles
from geostore.config import parse_target
from geostore.errors import CorruptDataError, GeostoreError, NotFoundError, UnavailableError
from geostore.ring import Ring, RingNode, found_ring, with_node_joined
from geostore.rpc.block_streams import StoredBlock
from geostore.types import TileKey

TARGET = parse_target("geostore://127.0.0.1:7001")
Wanted = Sequence[tuple[TileKey, Sequence[int]]]


def make_ring(nodes: int, replicas: int) -> Ring:
    def node(number: int) -> RingNode:
        return RingNode(f"id{number}", f"n{number}", f"127.0.0.1:700{number}")

    ring = found_ring(node(1), cluster_id="c", replicas=replicas)
    for number in range(2, nodes + 1):
        ring = with_node_joined(ring, node(number), None)
    return ring


class Stream:
    """One call's blocks: each says its tile's number, so that any mix-up shows."""

    def __init__(self, node: Node, wanted: Wanted) -> None:
        self.node, self.wanted = node, wanted
        self.closed = threading.Event()
        self.given = 0
        self._blocks = self._made()

    def _made(self) -> Iterator[StoredBlock]:
        for tile, (key, indices) in enumerate(self.wanted):
            self.node.before(key)
            for index in indices:
                data = f"{key.geocode}/{index}".encode()
                yield StoredBlock(tile=tile, index=index, fill=index, checksum=7, data=data)
            self.given += 1

    def __iter__(self) -> Iterator[StoredBlock]:
        return self

    def __next__(self) -> StoredBlock:
        return next(self._blocks)

    def close(self) -> None:
        self.closed.set()


class Node:
    """A node that gives every tile, unless `before` raises."""

    def __init__(self, cluster: Cluster, address: str) -> None:
        self.cluster, self.address = cluster, address
        self.streams: list[Stream] = []
        self.details: list[int] = []

    def before(self, key: TileKey) -> None:
        failure = self.cluster.fails(self.address, key)
        if failure is not None:
            raise failure

    def get_ring(self, _call: Any) -> Ring:
        return self.cluster.ring

    def read_blocks(self, _call: Any, wanted: Wanted) -> Stream:
        self.streams.append(Stream(self, wanted))
        return self.streams[-1]

    def tile_details(self, _call: Any, keys: Sequence[TileKey]) -> list[Any]:
        for key in keys:
            self.before(key)
        self.details.append(len(keys))
        return [f"details of {key.geocode}" for key in keys]


class Cluster:
    def __init__(self, nodes: int = 3, replicas: int = 2) -> None:
        self.ring = make_ring(nodes, replicas)
        self.nodes: dict[str, Node] = {}
        self.fails: Callable[[str, TileKey], GeostoreError | None] = lambda *_: None
        found = ClusterNodes(TARGET, connect=self._connect, wait_first_s=0.0)
        self.tiles = ClusterTiles(found, lambda key: int(key.geocode) * 997 % 4096)

    def _connect(self, address: str) -> Any:
        return self.nodes.setdefault(address, Node(self, address))

    @property
    def streams(self) -> list[Stream]:
        return [stream for node in self.nodes.values() for stream in node.streams]

    def read(self, count: int) -> list[str]:
        """What came, as text; also that the table fits."""
        found = []
        for tile in self.tiles.read(wanted(count)):
            assert tile.indices == (3, 1)
            assert tile.table["fill"].tolist() == [3, 1]
            assert tile.table["length"].tolist() == [len(data or b"") for data in tile.data]
            found += [bytes(data or b"").decode() for data in tile.data]
        return found


def wanted(count: int) -> Iterator[tuple[TileKey, list[int]]]:
    return ((TileKey("d", "s", "v", f"{number:05}"), [3, 1]) for number in range(count))


def whole(count: int) -> list[str]:
    return [f"{number:05}/{index}" for number in range(count) for index in (3, 1)]


@pytest.mark.parametrize("count", [0, 1, 2, 500])
def test_tiles_come_in_the_order_asked_by_few_calls(count: int) -> None:
    cluster = Cluster()
    assert cluster.read(count) == whole(count)
    windows = 1 + -(-count // 100)
    assert len(cluster.streams) <= 3 * windows
    if count == 500:
        assert len({stream.node.address for stream in cluster.streams}) == 3
        assert max(len(stream.wanted) for stream in cluster.streams) <= WINDOW_TILES_MAX


def test_what_a_lost_node_owes_comes_from_other_replicas() -> None:
    cluster = Cluster()
    lost = cluster.ring.nodes[1].address
    gone: list[str] = []

    def fails(address: str, key: TileKey) -> GeostoreError | None:
        if address == lost and (gone or key.geocode > "00100"):
            gone.append(key.geocode)
            return UnavailableError("lost")
        return None

    cluster.fails = fails
    assert cluster.read(400) == whole(400)
    assert len(gone) <= 3, "it was asked again and again"


def test_a_damaged_tile_comes_from_another_replica_and_the_others_from_their_own() -> None:
    cluster = Cluster()
    damaged = {f"{number:05}" for number in range(0, 60, 7)}

    def fails(address: str, key: TileKey) -> GeostoreError | None:
        first = cluster.ring.first_of(int(key.geocode) * 997 % 4096).address
        is_bad = address == first and key.geocode in damaged
        return CorruptDataError(f"tile {key.geocode} is damaged") if is_bad else None

    cluster.fails = fails
    assert cluster.read(60) == whole(60)


@pytest.mark.parametrize(
    "failure", [CorruptDataError("damaged"), NotFoundError("no tile"), UnavailableError("lost")]
)
def test_a_tile_that_no_replica_gives_is_an_error_in_its_place(failure: GeostoreError) -> None:
    cluster = Cluster()
    cluster.fails = lambda _, key: failure if key.geocode == "00020" else None
    tiles = cluster.tiles.read(wanted(40))
    for number in range(20):
        assert next(tiles).key.geocode == f"{number:05}"
    with pytest.raises(type(failure), match=str(failure)):
        next(tiles)
    assert all(stream.closed.wait(20) for stream in cluster.streams)


def test_a_bug_is_raised_as_itself() -> None:
    cluster = Cluster()
    cluster.fails = lambda *_: ZeroDivisionError()  # type: ignore[assignment]
    with pytest.raises(ZeroDivisionError):
        list(cluster.tiles.read(wanted(9)))


def test_a_slow_caller_is_not_run_away_from() -> None:
    cluster = Cluster()
    tiles = cluster.tiles.read(wanted(10_000))
    for _ in range(60):
        next(tiles)
    given = sum(stream.given for stream in cluster.streams)
    assert given <= 60 + TILES_AHEAD + 2 * 3  # a tile in the hand of each node's thread
    tiles.close()
    assert all(stream.closed.wait(20) for stream in cluster.streams)


def test_details_of_many_tiles_take_a_call_a_node() -> None:
    cluster = Cluster()
    keys = [key for key, _ in wanted(100)]
    found: list[Any] = cluster.tiles.details_of([*keys, keys[0]])
    assert found == [f"details of {key.geocode}" for key in [*keys, keys[0]]]
    assert sum(len(node.details) for node in cluster.nodes.values()) == 3
    lost = cluster.ring.nodes[0].address
    cluster.fails = lambda address, _: UnavailableError("lost") if address == lost else None
    again: list[Any] = cluster.tiles.details_of(keys)
    assert again == found[:-1]
    cluster.fails = lambda *_: NotFoundError("no tile")
    with pytest.raises(NotFoundError, match="no tile"):
        cluster.tiles.details_of(keys)
