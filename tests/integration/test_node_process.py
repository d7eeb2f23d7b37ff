"""Nodes as processes on loopback: they form a ring, keep it, move, and end when told."""

from __future__ import annotations

import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme

from geostore.errors import UnavailableError, WrongClusterError
from geostore.query import Query
from geostore.ring import Ring, placement_key, slot_of
from geostore.rpc import messages as wire
from geostore.rpc.client import NodeClient
from geostore.rpc.transport import Channels, Security, TlsFiles
from geostore.types import CallContext

small = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "small_store.py")))
START = (
    "from geostore_cli.main import cli; from geostore_cli.node import node;"
    "cli.add_command(node); cli.main()"
)
POLLS_MAX = 2000


def call(timeout_s: float = 20.0) -> CallContext:
    return CallContext.within(timeout_s)


class Started:
    def __init__(
        self, data: Path, join: tuple[str, ...], replicas: int, extra: tuple[str, ...]
    ) -> None:
        options = ["--data", str(data), "--listen", "127.0.0.1:0", "--name", data.name]
        options += ["--replicas", str(replicas)]
        options += extra
        for address in join:
            options += ["--join", address]
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, "node", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def address(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("serving 127.0.0.1:"), (line, self.process.communicate(timeout=60))
        return line.split()[1]

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=60)
        assert "Traceback" not in said
        return self.process.returncode


Start = Callable[..., Started]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[Started] = []

    def begin(name: str, *join: str, replicas: int = 1, extra: tuple[str, ...] = ()) -> Started:
        running.append(Started(tmp_path / name, join, replicas, extra))
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate(timeout=60)


@pytest.fixture
def channels() -> Iterator[Channels]:
    opened = Channels()
    yield opened
    opened.close()


def client(channels: Channels, address: str, ring: Ring | None = None) -> NodeClient:
    def head(context: CallContext) -> object:
        if ring is None:
            return wire.make_head(context)
        return wire.make_head(context, ring.cluster_id, ring.epoch)

    return NodeClient(channels.channel(address), address, head)  # type: ignore[arg-type]


def ring_when(node: NodeClient, holds: Callable[[Ring], bool]) -> Ring:
    """The node's ring, as soon as it is as expected: each look is a call."""
    ring = node.get_ring(call())
    for _ in range(POLLS_MAX):
        if holds(ring):
            return ring
        ring = node.get_ring(call())
    raise AssertionError(f"the ring of {node.address} stays {ring}")


def store_a_scene(channels: Channels, ring: Ring) -> None:
    """As a client does that knows the ring: each call to the node whose it is."""

    def at(key: str) -> NodeClient:
        return client(channels, ring.first_of(slot_of(key)).address, ring)

    definition, cells = small.A, small.CELLS
    at("dataset/a").create_dataset(call(), definition)
    home = at(f"scene/{definition.id}/s")
    begun = home.begin_scene(call(), definition, "s", "v", cells, holder="me")
    assert begun is not None
    for cell in cells:
        tile = small.make_tile(definition, "s", "v", cell)
        node = at(placement_key(cell, definition.placement))
        assert node.put_tiles(call(), [tile], begun[1]) == [tile.checksum]
    home.commit_scene(call(), definition.id, "s", "v", cells, attempt=begun[1], bytes_total=1)


def test_three_nodes_form_a_ring_and_end_when_told(start: Start, channels: Channels) -> None:
    founder = start("a", replicas=2)
    first = founder.address()
    others = [start("b", first), start("c", first)]
    addresses = [first, *(other.address() for other in others)]
    rings = [
        ring_when(client(channels, address), lambda ring: len(ring.nodes) == 3)
        for address in addresses
    ]
    assert rings[0] == rings[1] == rings[2]
    rings[0].check()
    assert rings[0].epoch == 3
    assert rings[0].copies == 2
    assert {node.name: node.address for node in rings[0].nodes}["a"] == first
    assert {node.address for node in rings[0].nodes} == set(addresses)
    for address in addresses:
        node = client(channels, address, rings[0])
        status = node.node_status(call())
        assert (status.state, status.address, status.epoch) == ("serving", address, 3)
        assert node.count(call(), Query()) == 0
        assert list(node.query(call(), Query())) == []
        assert [each.state for each in node.get_status(call()).nodes] == ["serving"] * 3
    store_a_scene(channels, rings[0])
    for address in addresses:
        node = client(channels, address, rings[0])
        found = [row for batch in node.query(call(), Query()) for row in batch.rows()]
        assert [row.key.geocode for row in found] == sorted(small.CELLS)
        assert {len(row.nodes) for row in found} == {2}
        status = node.get_status(call())
        assert (status.datasets, status.scenes, status.tiles) == (1, 1, len(small.CELLS))
    assert [node.end() for node in (founder, *others)] == [0, 0, 0]


def test_a_node_comes_back_at_another_address(start: Start, channels: Channels) -> None:
    founder = start("a")
    first = founder.address()
    other = start("b", first)
    second = other.address()
    before = client(channels, second).get_ring(call())
    assert other.end() == 0
    again = start("b", first)
    third = again.address()
    assert third != second
    for address in (first, third):
        ring = ring_when(client(channels, address), lambda ring: ring.epoch == 3)
        assert {node.id for node in ring.nodes} == {node.id for node in before.nodes}
        assert {node.address for node in ring.nodes} == {first, third}
        assert client(channels, address, ring).count(call(), Query()) == 0
    assert founder.end() == 0
    moved = start("a")
    fourth = moved.address()
    ring = ring_when(client(channels, third), lambda ring: ring.epoch == 4)
    assert {node.address for node in ring.nodes} == {fourth, third}
    assert [again.end(), moved.end()] == [0, 0]


def test_calls_with_another_ring_or_cluster_are_refused(start: Start, channels: Channels) -> None:
    first = start("a").address()
    ring = client(channels, first).get_ring(call())
    other = client(channels, first, replace(ring, cluster_id="other"))
    with pytest.raises(WrongClusterError):
        other.list_datasets(call())
    newer = client(channels, first, replace(ring, epoch=9))
    with pytest.raises(UnavailableError, match="asks for the newer one"):
        newer.forget_dataset(call(), "id", "name")


def test_a_busy_port_fails_before_anything_is_made(start: Start, tmp_path: Path) -> None:
    from geostore.api.serve import run_node
    from geostore.errors import ConflictError

    first = start("a").address()
    with pytest.raises(ConflictError, match="in use"):
        run_node(tmp_path / "z", first)
    assert not (tmp_path / "z").exists()


def test_nodes_with_tls_let_in_whom_their_authority_signed(start: Start, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    files = TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem")
    issued.cert_chain_pems[0].write_to_path(files.cert)
    issued.private_key_pem.write_to_path(files.key)
    authority.cert_pem.write_to_path(files.ca)
    extra = ("--tls-cert", str(files.cert), "--tls-key", str(files.key))
    refused = start("r", extra=extra)
    _, said = refused.process.communicate(timeout=60)
    assert refused.process.returncode == 2
    assert "--tls-ca together" in said
    extra += ("--tls-ca", str(files.ca))
    first = start("a", extra=extra).address()
    second = start("b", first, extra=extra).address()
    inside, outside = Channels(Security(tls=files)), Channels()
    ring = client(inside, second).get_ring(call())
    assert {node.address for node in ring.nodes} == {first, second}
    assert client(inside, second, ring).count(call(), Query()) == 0
    with pytest.raises(UnavailableError):
        client(outside, second).get_ring(call(5.0))
    inside.close()
    outside.close()
