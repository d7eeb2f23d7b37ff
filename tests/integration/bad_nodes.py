"""Real node processes that hold a scene, and a check that they are none the worse for something."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

import geostore
from geostore.errors import GeostoreError
from geostore.ring import Ring
from geostore.rpc import messages as wire
from geostore.rpc.client import NodeClient
from geostore.rpc.transport import PLAINTEXT, Security, open_channel
from geostore.types import CallContext
from tests.integration.stocked_store import tile_pixels

PATIENCE_S = 60.0
"""Far more than anything here takes; only a hang uses it up."""
RSS_MAX_BYTES = 640 << 20
"""A node with a small store has some 100 MB; what it holds for callers is bounded on top: large
puts by 512 MiB (`geostore.server.arrivals`), some of which the allocator keeps for the next."""
RUN = "from geostore_cli.main import main; import sys; sys.exit(main())"


def call(timeout_s: float = PATIENCE_S) -> CallContext:
    return CallContext.within(timeout_s)


def wait_until(holds: Callable[[], bool]) -> None:
    """Looks again and again; fails when patience ends."""
    looked = threading.Event()
    for _ in range(int(PATIENCE_S / 0.1)):
        if holds():
            return
        looked.wait(0.1)
    raise AssertionError("it never came to hold")


class NodeProcess:
    """`geostore node` as a process; `prelude` is Python that runs in it first."""

    def __init__(
        self, folder: Path, name: str, *options: str, listen: str = "127.0.0.1:0", prelude: str = ""
    ) -> None:
        self.data = folder / name
        self.log = folder / f"{name}.log"
        words = ["node", "--data", str(self.data), "--name", name, "--listen", listen, *options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"{prelude}\n{RUN}", *words],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._address = ""

    @property
    def address(self) -> str:
        """`host:port`, when it serves."""
        if not self._address:
            assert self.process.stdout is not None
            watch = threading.Timer(PATIENCE_S, self.process.kill)
            watch.start()
            line = self.process.stdout.readline()
            watch.cancel()
            assert line.startswith("serving "), (line, self.said())
            self._address = line.split()[1]
        return self._address

    def said(self) -> str:
        return self.log.read_text()

    def failed(self) -> str:
        """What a node that cannot start says on stderr, as one line without a traceback."""
        assert self.process.wait(PATIENCE_S) == 1, self.said()
        said = self.said()
        assert said.startswith("geostore: error: "), said
        assert said.count("\n") == 1, said
        return said

    def rss_bytes(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def end(self) -> None:
        """By kill -9, where it has not ended by itself."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=PATIENCE_S)


@contextmanager
def channel_to(address: str, security: Security = PLAINTEXT) -> Iterator[grpc.Channel]:
    with open_channel(address, security) as channel:
        yield channel


def client_of(channel: grpc.Channel, address: str, ring: Ring | None = None) -> NodeClient:
    """As a caller does that knows `ring`."""

    def head(context: CallContext) -> object:
        if ring is None:
            return wire.make_head(context)
        return wire.make_head(context, ring.cluster_id, ring.epoch)

    return NodeClient(channel, address, head)  # type: ignore[arg-type]


def ring_of(address: str) -> Ring:
    with channel_to(address) as channel:
        return client_of(channel, address).get_ring(call())


@dataclass
class StockedCluster:
    """Nodes that hold one scene, and what it looked like when it went in."""

    nodes: list[NodeProcess]
    rows: list[str]
    pixels: dict[tuple[str, str], str]

    @classmethod
    def of(cls, nodes: Sequence[NodeProcess], raster: Path) -> Self:
        cluster = cls(list(nodes), [], {})
        with geostore.open(cluster.target) as store:
            # A placement key for each cell, so that every node has some.
            store.create_dataset("d", scheme="geohash", length=6, placement=6, resolution=[10])
            (result,) = store.ingest(raster, dataset="d")
        assert result.status == "ingested", result
        cluster.rows, cluster.pixels = cluster.seen()
        assert len(cluster.rows) > 8
        return cluster

    @property
    def target(self) -> str:
        return "geostore://" + ",".join(node.address for node in self.nodes)

    def seen(self) -> tuple[list[str], dict[tuple[str, str], str]]:
        """Every row as each node tells it, and every pixel."""
        told = []
        for node in self.nodes:
            with geostore.open(f"geostore://{node.address}", mode="r") as store:
                told.append([str((tile.geocode, tile.scene, tile.bytes)) for tile in store.query()])
        assert all(each == told[0] for each in told)
        return told[0], tile_pixels(self.target)  # type: ignore[arg-type]

    def is_whole(self) -> bool:
        """Whether every node answers for all: one that was away is called again after a while."""
        try:
            return len(self.seen()[0]) == len(self.rows)
        except GeostoreError:
            return False

    def check(self) -> None:
        """Nothing is lost, every node is well, serves, and holds no more memory than it may."""
        for node in self.nodes:
            with channel_to(node.address) as channel:
                reply = health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(), timeout=PATIENCE_S
                )
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
            assert node.rss_bytes() < RSS_MAX_BYTES
            assert "Traceback" not in node.said()
            assert "bug" not in node.said()
        rows, pixels = self.seen()
        assert rows == self.rows
        assert pixels == self.pixels
