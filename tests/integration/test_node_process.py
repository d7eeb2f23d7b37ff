"""Nodes as processes on loopback: they form a ring, keep it, move, and end when told."""

from __future__ import annotations

import runpy
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme
from prometheus_client.parser import text_string_to_metric_families

import geostore
from geostore.api.serve import run_node
from geostore.errors import (
    ConflictError,
    InvalidInputError,
    UnavailableError,
    WrongClusterError,
)
from geostore.query import Query
from geostore.ring import Ring, placement_key, slot_of
from geostore.rpc import messages as wire
from geostore.rpc.client import NodeClient
from geostore.rpc.transport import Channels, Security, TlsFiles
from geostore.types import CallContext

small = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "small_store.py")))
POLLS_MAX = 10_000
POLL_PAUSE_S = 0.01


def call(timeout_s: float = 20.0) -> CallContext:
    return CallContext.within(timeout_s)


class Started:
    """A node's process. What it says on stderr is read as it comes: `said`, `wait_for`."""

    def __init__(self, data: Path, join: tuple[str, ...], extra: tuple[str, ...]) -> None:
        options = ["--data", str(data), "--listen", "127.0.0.1:0", "--name", data.name, *extra]
        for address in join:
            options += ["--join", address]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "geostore_cli", "-v", "node", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: list[str] = []
        self._more = threading.Condition()
        self._has_ended = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._more:
                self._lines.append(line)
                self._more.notify_all()
        with self._more:
            self._has_ended = True
            self._more.notify_all()

    @property
    def said(self) -> str:
        return "".join(self._lines)

    def wait_for(self, words: str) -> str:
        """The line of stderr that has these words."""

        def found() -> list[str]:
            return [line for line in self._lines if words in line]

        with self._more:
            assert self._more.wait_for(lambda: found() or self._has_ended, 60), self.said
        assert found(), self.said
        return found()[0]

    def address(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("serving "), (line, self.said)
        return line.split()[1]

    def ended(self) -> int:
        """Its exit status; it ends by itself."""
        status = self.process.wait(60)
        self._reader.join(60)
        assert "Traceback" not in self.said
        return status

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.ended()

    def close(self) -> None:
        self.process.kill()
        self.process.wait(60)
        self._reader.join(60)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stdout.close()
        self.process.stderr.close()


Start = Callable[..., Started]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[Started] = []

    def begin(name: str, *join: str, extra: tuple[str, ...] = ()) -> Started:
        running.append(Started(tmp_path / name, join, extra))
        return running[-1]

    yield begin
    for one in running:
        one.close()


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
    """The node's ring, as soon as it is as expected: keepers take turns every few seconds."""
    pause, ring = threading.Event(), node.get_ring(call())
    for _ in range(POLLS_MAX):
        if holds(ring):
            return ring
        pause.wait(POLL_PAUSE_S)
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
    founder = start("a", extra=("--replicas", "2"))
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
        assert status.version == geostore.__version__
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
    assert "level=warning" not in founder.said
    store_a_scene(channels, before)
    assert other.end() == 0
    asked = client(channels, first, before)
    with pytest.raises(UnavailableError, match="b"):
        asked.count(call(), Query())  # some of the tiles are there alone
    again = start("b", first)
    third = again.address()
    assert third != second
    for address in (first, third):
        ring = ring_when(client(channels, address), lambda ring: ring.epoch == 3)
        assert {node.id for node in ring.nodes} == {node.id for node in before.nodes}
        assert {node.address for node in ring.nodes} == {first, third}
    for address in (first, third):
        assert client(channels, address, ring).count(call(), Query()) == len(small.CELLS)
    assert founder.end() == 0
    moved = start("a")
    fourth = moved.address()
    ring = ring_when(client(channels, third), lambda ring: ring.epoch == 4)
    assert {node.address for node in ring.nodes} == {fourth, third}
    assert client(channels, third, ring).count(call(), Query()) == len(small.CELLS)
    assert [again.end(), moved.end()] == [0, 0]


def test_nodes_that_all_moved_find_each_other_by_whom_they_join(
    start: Start, channels: Channels
) -> None:
    founder = start("a")
    first = founder.address()
    other = start("b", first)
    ring = client(channels, other.address()).get_ring(call())
    store_a_scene(channels, ring)
    assert [founder.end(), other.end()] == [0, 0]
    port = free_port()
    other = start("b", f"127.0.0.1:{port}")
    third = other.address()
    founder = start("a", extra=("--listen", f"127.0.0.1:{port}"))
    second = founder.address()
    for address in (second, third):
        ring = ring_when(client(channels, address), lambda ring: ring.epoch == 4)
        assert {node.address for node in ring.nodes} == {second, third}
    for address in (second, third):
        assert client(channels, address, ring).count(call(), Query()) == len(small.CELLS)
    assert [founder.end(), other.end()] == [0, 0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_node_that_waits_to_be_taken_in(
    start: Start, number: signal.Signals
) -> None:
    waiting = start("a", f"127.0.0.1:{free_port()}")
    waiting.wait_for("is not in a ring yet")
    assert waiting.end(number) == 0
    waiting.wait_for(f"signal={number.name} ended the start")
    assert "serving" not in waiting.process.stdout.read()


def test_a_signal_ends_a_call_that_is_never_answered(start: Start) -> None:
    """Who is asked to take the node in takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        waiting = start("a", f"127.0.0.1:{silent.getsockname()[1]}")
        connection, _ = silent.accept()
        with connection:
            assert waiting.end() == 0
    waiting.wait_for("signal=SIGTERM ended the start")


def test_a_node_is_called_where_it_says_and_listens_elsewhere(
    start: Start, channels: Channels, tmp_path: Path
) -> None:
    first = start("a").address()
    port = str(free_port())
    extra = ("--listen", f"0.0.0.0:{port}", "--insecure", "--advertise", "localhost:0")
    second = start("b", first, extra=extra).address()
    assert second == f"localhost:{port}"
    with pytest.raises(ConflictError, match=f"address {first}: node a answers there"):
        run_node(tmp_path / "c", "127.0.0.1:0", advertise=first)
    ring = client(channels, second).get_ring(call())
    assert {node.address for node in ring.nodes} == {first, second}
    store_a_scene(channels, ring)
    for address in (first, second):
        assert client(channels, address, ring).count(call(), Query()) == len(small.CELLS)


@pytest.mark.parametrize(
    ("listen", "advertise", "insecure", "words"),
    [
        ("0.0.0.0:0", None, True, "--advertise"),
        ("0.0.0.0:0", "[::]:1", True, "cannot call it there"),
        ("0.0.0.0:0", "127.0.0.1:0", False, "--insecure"),
        ("127.0.0.1:0", "192.0.2.1:7440", False, "--insecure"),
        ("127.0.0.1:0", "here", False, "expected HOST:PORT"),
    ],
)
def test_addresses_that_cannot_be_called_are_refused(
    tmp_path: Path, listen: str, advertise: str | None, insecure: bool, words: str
) -> None:
    with pytest.raises(InvalidInputError, match=words):
        run_node(tmp_path / "a", listen, advertise=advertise, insecure=insecure)
    assert not (tmp_path / "a").exists()


def test_a_node_stays_in_its_ring_and_is_what_it_was(
    start: Start, channels: Channels, tmp_path: Path
) -> None:
    one = start("a", extra=("--zone", "east"))
    stranger = start("z")
    address = stranger.address()
    one.address()
    assert one.end() == 0
    with pytest.raises(WrongClusterError, match=rf"--join {address}: that node is of cluster"):
        run_node(tmp_path / "a", "127.0.0.1:0", [address])
    for other in ({"name": "b"}, {"zone": "west"}, {"replicas": 2}):
        ((option, value),) = other.items()
        with pytest.raises(ConflictError, match=f"--{option} {value}: in its ring"):
            run_node(tmp_path / "a", "127.0.0.1:0", **other)
    assert stranger.end() == 0
    # Nobody at the address: it may be starting as well.
    again = start("a", address, extra=("--zone", "east", "--replicas", "1"))
    ring = client(channels, again.address()).get_ring(call())
    assert [(node.name, node.zone) for node in ring.nodes] == [("a", "east")]
    again.wait_for(f"--join {address} is not checked")
    assert again.end() == 0


def test_a_copied_directory_is_not_served_beside_the_first(
    start: Start, channels: Channels, tmp_path: Path
) -> None:
    one = start("a")
    address = one.address()
    ring = client(channels, address).get_ring(call())
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    with pytest.raises(ConflictError, match=f"node a serves at {address} already"):
        run_node(tmp_path / "copy", "127.0.0.1:0")
    assert client(channels, address).get_ring(call()) == ring
    assert one.end() == 0
    moved = start("copy", extra=("--name", "a"))
    address = moved.address()
    ring = ring_when(client(channels, address), lambda ring: ring.nodes[0].address == address)
    assert ring.epoch == 2


def test_a_new_node_that_cannot_be_taken_in_says_why(
    start: Start, channels: Channels, tmp_path: Path
) -> None:
    first = start("a", extra=("--replicas", "2")).address()
    with pytest.raises(ConflictError, match=rf"--replicas 3: .* {first} was founded with 2"):
        run_node(tmp_path / "b", "127.0.0.1:0", [first], replicas=3)
    assert len(client(channels, first).get_ring(call()).nodes) == 1
    with geostore.open(tmp_path / "s") as store:
        store.create_dataset("mine", like="sentinel-2-l1c")
    with pytest.raises(ConflictError, match=r"/s: it holds 1 dataset .* an empty --data"):
        run_node(tmp_path / "s", "127.0.0.1:0", [first])
    with geostore.open(tmp_path / "s", mode="a") as store:
        store.delete_dataset("mine")
    with pytest.raises(ConflictError, match=r"/s: it holds 0 datasets .* an empty --data"):
        run_node(tmp_path / "s", "127.0.0.1:0", [first])
    assert len(client(channels, first).get_ring(call()).nodes) == 1
    own = f"127.0.0.1:{free_port()}"
    with pytest.raises(InvalidInputError, match="that is this node itself"):
        run_node(tmp_path / "c", own, [own])


def test_metrics_say_what_the_node_does(start: Start, channels: Channels) -> None:
    one = start("a", extra=("--metrics-port", "0"))
    address = one.address()
    page = one.wait_for("metrics=").split("metrics=")[1].strip()
    ring = client(channels, address).get_ring(call())
    store_a_scene(channels, ring)
    node = client(channels, address, ring)
    assert len([row for batch in node.query(call(), Query()) for row in batch.rows()]) == len(
        small.CELLS
    )
    seen = scrape(page)
    query = ("method", "/geostore.rpc.v1.StoreService/Query")
    put = ("method", "/geostore.rpc.v1.StoreService/PutTiles")
    assert seen["geostore_server_answered_requests_total", query, ("status", "OK")] == 1
    assert seen["geostore_server_request_seconds_count", query] == 1
    assert seen["geostore_server_request_seconds_sum", query] > 0
    assert seen["geostore_server_sent_bytes_total", query] > 0
    assert seen["geostore_server_received_bytes_total", put] > 0
    assert seen["geostore_server_waiting_requests", ("call_class", "coordinated")] == 0
    assert seen["geostore_node_held_tiles",] == len(small.CELLS)
    assert seen["geostore_node_held_bytes",] == node.get_status(call()).nodes[0].bytes
    assert seen["geostore_node_owned_slots",] == 4096
    assert seen["geostore_node_free_bytes",] > 0
    assert one.end() == 0
    with pytest.raises(OSError, match="refused"):
        scrape(page)


def test_a_metrics_port_in_use_fails_before_anything_is_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = used.getsockname()[1]
        with pytest.raises(ConflictError, match=f"127.0.0.1:{port} is in use"):
            run_node(tmp_path / "a", "127.0.0.1:0", metrics_port=port)
    assert not (tmp_path / "a").exists()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return int(unused.getsockname()[1])


def scrape(page: str) -> dict[tuple[object, ...], float]:
    with urllib.request.urlopen(page, timeout=30) as reply:
        families = text_string_to_metric_families(reply.read().decode())
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }


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
    assert refused.ended() == 2
    assert "--tls-ca together" in refused.said
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
    elsewhere = start("c", first, extra=(*extra, "--advertise", "localhost:0"))
    assert elsewhere.address().startswith("localhost:")
    assert "does not reach itself" not in elsewhere.said
    misnamed = start(
        "d", first, extra=(*extra, "--advertise", "127.0.0.2:0", "--listen", "127.0.0.2:0")
    )
    assert misnamed.address().startswith("127.0.0.2:")
    assert "127.0.0.2" in misnamed.wait_for("this node does not reach itself there")
