"""More callers than a node takes, and callers that stop reading: a real process, real sockets."""

from __future__ import annotations

import re
import resource
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from geostore.errors import InvalidInputError, UnavailableError
from geostore.query import Query
from geostore.rpc import messages as wire
from geostore.rpc.errors import error_from_rpc
from geostore.rpc.v1 import common_pb2, node_pb2, store_pb2
from geostore.server import DEFAULT_POOLS, CallClass
from tests.integration.bad_nodes import (
    PATIENCE_S,
    NodeProcess,
    StockedCluster,
    call,
    channel_to,
    client_of,
    ring_of,
    wait_until,
)

CLIENTS = 1000
ROUNDS_MAX = 200
STALLED = 40
GIGABYTE = 1 << 30
PEAK_BYTES_MAX = 600 << 20
"""One tile of 48 MiB, twice while it is put together, and what gRPC holds for those that wait:
some 310 MiB, where a node that lets all in at once needs 1,200 MiB."""
LEAF_THREADS = DEFAULT_POOLS[CallClass.LEAF].threads
FEW_FILES = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, {hard}))"
IMPATIENT = """
from geostore.server import limits
fields = limits.ServerLimits.__init__.__kwdefaults__
fields["stall_timeout_s"] = 1.0
"""


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, write_raster: Callable[..., Path]
) -> Iterator[StockedCluster]:
    """One node, started with few files allowed, which waits a second for clients that stall."""
    folder = tmp_path_factory.mktemp("load")
    pixels = np.random.default_rng(7).integers(1, 4000, (2, 400, 400)).astype("uint16")
    raster = write_raster(folder / "first.tif", pixels, nodata=0)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    prelude = FEW_FILES.format(hard=hard) + IMPATIENT
    with ExitStack() as ending:
        node = NodeProcess(folder, "n1", prelude=prelude)
        ending.callback(node.end)
        yield StockedCluster.of([node], raster)


@pytest.fixture
def many_files() -> Iterator[None]:
    """Room for a thousand connections in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connections_of(node: NodeProcess) -> int:
    port = node.address.rpartition(":")[2]

    held = psutil.Process(node.process.pid).net_connections("tcp")
    return sum(
        1 for one in held if one.status == psutil.CONN_ESTABLISHED and one.laddr.port == int(port)
    )


def healthy(address: str) -> bool:
    with channel_to(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


@pytest.mark.usefixtures("many_files")
def test_a_thousand_clients_are_answered_or_told_to_come_back(cluster: StockedCluster) -> None:
    """All at once, each by a connection of its own; who is refused comes again, and is answered."""
    [node] = cluster.nodes
    ring = ring_of(node.address)
    head = wire.make_head(call(), ring.cluster_id, ring.epoch)
    query = store_pb2.QueryRequest(head=head, query_json=b"{}").SerializeToString()
    refused: Counter[grpc.StatusCode] = Counter()
    with ExitStack() as opened:
        channels = [
            opened.enter_context(
                grpc.insecure_channel(node.address, [("grpc.use_local_subchannel_pool", 1)])
            )
            for _ in range(CLIENTS)
        ]
        waiting = list(range(CLIENTS))
        most = 0
        for _ in range(ROUNDS_MAX):
            streams = [
                (client, channels[client].unary_stream("/geostore.rpc.v1.StoreService/Query"))
                for client in waiting
            ]
            calls = [(client, ask(query, timeout=PATIENCE_S)) for client, ask in streams]  # type: ignore[arg-type]
            assert healthy(node.address)
            waiting = []
            for client, answers in calls:
                try:
                    last = store_pb2.QueryResponse.FromString(list(answers)[-1])
                    assert last.end.rows_total == len(cluster.rows)
                except grpc.RpcError as error:
                    refused[error.code()] += 1  # type: ignore[attr-defined]
                    said = error_from_rpc(error, node.address)
                    assert isinstance(said, UnavailableError)
                    assert said.retry_after_s is not None, said
                    assert re.search("128 coordinated calls run or wait here already", str(said))
                    waiting.append(client)
            most = max(most, connections_of(node))
            if not waiting:
                break
        assert not waiting
        assert most >= CLIENTS, most
    assert set(refused) <= {grpc.StatusCode.RESOURCE_EXHAUSTED}
    cluster.check()


@pytest.mark.usefixtures("many_files")
def test_a_thousand_silent_connections_leave_room(cluster: StockedCluster) -> None:
    [node] = cluster.nodes
    host, port = node.address.split(":")
    with ExitStack() as opened:
        for _ in range(CLIENTS):
            opened.enter_context(socket.create_connection((host, int(port)), timeout=PATIENCE_S))
        wait_until(lambda: connections_of(node) >= CLIENTS)
        cluster.check()
    cluster.check()


def test_clients_that_stop_reading_free_their_threads(cluster: StockedCluster) -> None:
    """Each asks for a gigabyte and reads none of it; together they want all threads twice."""
    [node] = cluster.nodes
    ring = ring_of(node.address)
    head = wire.make_head(call(), ring.cluster_id, ring.epoch)
    with channel_to(node.address) as channel, ExitStack() as opened:
        client = client_of(channel, node.address, ring)
        rows = [row for batch in client.query(call(), Query()) for row in batch.rows()]
        row = max(rows, key=lambda row: row.bytes)
        [details] = client.tile_details(call(), [row.key])
        largest = int(np.argmax(details.blocks["length"]))
        times = GIGABYTE // int(details.blocks["length"][largest])
        key = common_pb2.TileKey(
            dataset_id=row.key.dataset_id,
            scene=row.key.scene,
            version=row.key.version,
            geocode=row.key.geocode,
        )
        wanted = node_pb2.WantedBlocks(key=key, indices=[largest] * times)
        request = node_pb2.ReadBlocksRequest(head=head, wanted=[wanted]).SerializeToString()
        stalled = []
        for _ in range(STALLED):
            own = opened.enter_context(
                grpc.insecure_channel(node.address, [("grpc.use_local_subchannel_pool", 1)])
            )
            ask: Any = own.unary_stream("/geostore.rpc.v1.NodeService/ReadBlocks")
            stalled.append(ask(request))
        assert healthy(node.address)
        cluster.check()  # which reads tiles: by threads that the stalled ones have lost
        ended = [_is_cut_off(stream) for stream in stalled]
    # Those that are not were the last to get a thread, and have not stalled long enough.
    assert sum(ended) >= STALLED - LEAF_THREADS
    cluster.check()


def test_large_puts_take_turns_in_memory(cluster: StockedCluster) -> None:
    """Twenty tiles of 48 MiB at once, 16 of which have a thread: 768 MiB if all were let in."""
    [node] = cluster.nodes
    ring = ring_of(node.address)
    head = wire.make_head(call(), ring.cluster_id, ring.epoch)
    key = common_pb2.TileKey(dataset_id="d", scene="s", version="v", geocode="dq8x0")
    start = common_pb2.TileStart(key=key, size=48 << 20, checksum="0" * 32)
    piece = store_pb2.PutTilesRequest(data=bytes(1 << 20)).SerializeToString()

    def tile() -> Iterator[bytes]:
        yield store_pb2.PutTilesRequest(head=head, start=start).SerializeToString()
        for _ in range(48):
            yield piece

    before_bytes = node.rss_bytes()
    Path(f"/proc/{node.process.pid}/clear_refs").write_text("5")  # the peak counts from here
    with ExitStack() as opened:
        puts = []
        for _ in range(20):
            own = opened.enter_context(
                grpc.insecure_channel(node.address, [("grpc.use_local_subchannel_pool", 1)])
            )
            put: Any = own.stream_unary("/geostore.rpc.v1.StoreService/PutTiles")
            puts.append(put.future(tile(), timeout=PATIENCE_S))
        assert healthy(node.address)
        errors = [error_from_rpc(put.exception(), node.address) for put in puts]
    # None is a tile: each is told so, or to come again, when its turn does not come soon.
    assert {type(error) for error in errors} <= {InvalidInputError, UnavailableError}
    assert any("no tile file" in str(error) for error in errors)
    assert peak_bytes(node) - before_bytes < PEAK_BYTES_MAX
    cluster.check()


def peak_bytes(node: NodeProcess) -> int:
    """The most memory that a node has had, as Linux counts it."""
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def _is_cut_off(stream: Any) -> bool:
    """Whether the node has ended a stream, of which some messages are here unread."""
    taken = 0
    try:
        for message in stream:
            taken += len(message)
            if taken > 64 << 20:
                stream.cancel()
                return False
    except grpc.RpcError:
        assert stream.code() is grpc.StatusCode.CANCELLED
    return True
