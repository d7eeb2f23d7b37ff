"""Nodes that are no nodes of ours, and callers that do what none should: real processes.

After each, all that was stored is there, every node serves, and holds no more memory than a
stated bound.
"""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from click.testing import CliRunner

import geostore
from geostore.errors import (
    InvalidInputError,
    ProtocolVersionError,
    WrongClusterError,
)
from geostore.query import Query
from geostore.rpc import messages as wire
from geostore.rpc.client import NodeClient
from geostore.rpc.errors import error_from_rpc
from geostore.rpc.transport import MESSAGE_BYTES_MAX
from geostore.rpc.v1 import common_pb2, store_pb2
from geostore_cli.main import cli
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

HOUR_AHEAD = "import time; ns = time.time_ns; time.time_ns = lambda: ns() + 3600 * 10**9"
"""The clock that geostore reads. time.time stays: gRPC compares it with the system's own."""
NEXT_VERSION = "from geostore.rpc import messages; messages.PROTOCOL_VERSION = 2"

Start = Callable[..., NodeProcess]


@pytest.fixture(scope="module")
def raster(tmp_path_factory: pytest.TempPathFactory, write_raster: Callable[..., Path]) -> Path:
    random_numbers = np.random.default_rng(7)
    return write_raster(
        tmp_path_factory.mktemp("source") / "first.tif",
        random_numbers.integers(1, 4000, (2, 400, 400)).astype("uint16"),
        nodata=0,
        tags={"TIFFTAG_DATETIME": "2016:01:12 16:06:42"},
        descriptions=("red", "nir"),
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, raster: Path) -> Iterator[StockedCluster]:
    """Two nodes, one copy of each tile; the second one's clock is an hour ahead."""
    folder = tmp_path_factory.mktemp("cluster")
    with ExitStack() as ending:
        first = NodeProcess(folder, "n1")
        ending.callback(first.end)
        second = NodeProcess(folder, "n2", "--join", first.address, prelude=HOUR_AHEAD)
        ending.callback(second.end)
        assert second.address
        stocked = StockedCluster.of([first, second], raster)
        ending.callback(lambda: [node.end() for node in stocked.nodes])  # tests replace some
        yield stocked


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a node of its own for a test."""
    with ExitStack() as ending:

        def begin(name: str, *options: str, **given: str) -> NodeProcess:
            node = NodeProcess(tmp_path, name, *options, **given)
            ending.callback(node.end)
            return node

        yield begin


def test_a_node_an_hour_ahead_holds_its_part_and_is_told_of(cluster: StockedCluster) -> None:
    """What decides anything (leases, deadlines) is measured, not read from a clock."""
    ran = CliRunner().invoke(cli, ["--store", cluster.target, "status"])
    assert ran.exit_code == 0, ran
    assert ran.stderr.count("warning: ") == 1
    assert re.search(rf"n2 at {cluster.nodes[1].address}: its clock is 60 min ahead", ran.stderr)
    assert "set both by a time server" in ran.stderr
    cluster.check()


def test_addresses_of_two_clusters_are_refused(cluster: StockedCluster, start: Start) -> None:
    stranger = start("stranger").address
    for addresses in ((cluster.nodes[0].address, stranger), (stranger, cluster.nodes[0].address)):
        with pytest.raises(WrongClusterError, match="name nodes of one cluster"):
            geostore.open("geostore://" + ",".join(addresses))
    # One that nobody answers at is no reason to refuse.
    with geostore.open(f"{cluster.target},127.0.0.1:1") as store:
        assert store.query().count() == len(cluster.rows)
    cluster.check()


def test_a_stranger_at_a_nodes_address_answers_for_nothing(
    cluster: StockedCluster, start: Start
) -> None:
    """With one copy, an answer without the lost node's tiles would be a wrong one."""
    first, lost = cluster.nodes
    address = lost.address
    lost.end()

    def refusal() -> str:
        with pytest.raises(geostore.errors.GeostoreError) as told:
            list(store.query())
        return str(told.value)

    try:
        with geostore.open(f"geostore://{first.address}") as store:
            assert re.search(rf"(?s)n2.*{address}.*nothing listens there", refusal())
            stranger = start("stranger", listen=address)
            assert stranger.address == address
            # Connections that were refused are tried again after a while.
            wait_until(lambda: "name nodes of one cluster" in refusal())
            assert re.search(rf"{address}.*{ring_of(first.address).cluster_id}", refusal())
            stranger.end()
    finally:
        back = NodeProcess(lost.data.parent, "n2", listen=address, prelude=HOUR_AHEAD)
        cluster.nodes[1] = back
        assert back.address == address
    wait_until(cluster.is_whole)
    cluster.check()


def test_calls_meant_for_another_cluster_are_refused(cluster: StockedCluster) -> None:
    address = cluster.nodes[0].address
    ours = ring_of(address)
    with channel_to(address) as channel:
        other = client_of(channel, address, replace(ours, cluster_id="f00"))
        for ask in (
            lambda: other.list_datasets(call()),
            lambda: list(other.query(call(), Query())),
            lambda: other.get_ring(call()),
            lambda: other.node_status(call()),
            lambda: other.take_ring(call(), replace(ours, cluster_id="f00", epoch=99)),
            lambda: other.join(call(), node_id="x", name="x", address="127.0.0.1:9"),
            lambda: other.forget_dataset(call(), "id", "name"),
            lambda: other.scene_record(call(), "id", "s"),
        ):
            with pytest.raises(WrongClusterError, match=f"'f00'.*{ours.cluster_id}"):
                ask()
    cluster.check()


def test_another_protocol_version_is_refused_on_both_sides(
    cluster: StockedCluster, start: Start
) -> None:
    address = cluster.nodes[0].address
    says = r"protocol version 2.*1.*same geostore"
    newer_alone = start("alone", prelude=NEXT_VERSION).address
    with pytest.raises(ProtocolVersionError, match=rf"{newer_alone}.*version 1.*2.*same geostore"):
        geostore.open(f"geostore://{newer_alone}")

    def newer_head(context: geostore.types.CallContext) -> common_pb2.RequestHead:
        head = wire.make_head(context)
        head.protocol_version = 2
        return head

    with channel_to(address) as channel:
        client = NodeClient(channel, address, newer_head)
        with pytest.raises(ProtocolVersionError, match=says):
            client.get_ring(call())
        with pytest.raises(ProtocolVersionError, match=says):
            list(client.query(call(), Query()))
    assert len(ring_of(address).nodes) == 2
    cluster.check()


def test_a_newer_node_that_would_join_says_why_it_cannot(
    cluster: StockedCluster, start: Start
) -> None:
    newer = start("newer", "--join", cluster.nodes[0].address, prelude=NEXT_VERSION)
    assert re.search(r"version 2.*node 1.*run the same geostore", newer.failed())
    cluster.check()


def test_a_port_in_use_is_told_before_anything_is_made(
    cluster: StockedCluster, start: Start
) -> None:
    second = start("late", listen=cluster.nodes[0].address)
    said = second.failed()
    assert f"{cluster.nodes[0].address} is in use" in said
    assert "port 0" in said
    assert not second.data.exists()
    cluster.check()


def test_a_data_directory_has_one_node(cluster: StockedCluster) -> None:
    first = cluster.nodes[0]
    again = NodeProcess(first.data.parent, first.data.name, listen="127.0.0.1:0")
    try:
        # Both write to one log: the node that runs says nothing meanwhile.
        assert again.process.wait(PATIENCE_S) == 1
    finally:
        again.end()
    said = first.said().splitlines()[-1]
    assert str(first.data) in said
    assert str(first.process.pid) in said
    cluster.check()


HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
EMPTY_SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


def test_garbage_on_the_port_hurts_nobody(cluster: StockedCluster) -> None:
    sent = [
        random.Random(1).randbytes(100_000),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(508),
        HTTP2_PREFACE[:11],
        HTTP2_PREFACE + EMPTY_SETTINGS + b"\xff\xff\xff\x01",
        HTTP2_PREFACE + EMPTY_SETTINGS + b"\x00\x40\x00\x00\x00\x00\x00\x00\x01" + bytes(99),
    ]
    host, port = cluster.nodes[0].address.split(":")
    with ExitStack() as still_open:
        for garbage in sent * 20:
            connection = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
            still_open.enter_context(connection)
            connection.sendall(garbage)
        cluster.check()
    cluster.check()


def test_oversize_and_half_messages_are_told(cluster: StockedCluster) -> None:
    address = cluster.nodes[0].address
    ring = ring_of(address)
    head = wire.make_head(call(), ring.cluster_id, ring.epoch)
    key = common_pb2.TileKey(dataset_id="d", scene="s", version="v", geocode="dq8x0")

    def put(*messages: store_pb2.PutTilesRequest) -> list[bytes]:
        return [message.SerializeToString() for message in messages]

    def begun(size: int, data: bytes = b"") -> store_pb2.PutTilesRequest:
        start = common_pb2.TileStart(key=key, size=size, checksum="0" * 32)
        return store_pb2.PutTilesRequest(head=head, start=start, data=data)

    service = "/geostore.rpc.v1.StoreService"
    with channel_to(address) as channel:
        count: Any = channel.unary_unary(f"{service}/Count")
        tiles: Any = channel.stream_unary(f"{service}/PutTiles")
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(address, options) as unbounded:
            oversize: Any = unbounded.unary_unary(f"{service}/Count")
            with pytest.raises(grpc.RpcError) as caught:
                oversize(bytes(MESSAGE_BYTES_MAX + 1), timeout=PATIENCE_S)
        error = error_from_rpc(caught.value, address)
        assert type(error) is InvalidInputError
        assert f"larger than the {MESSAGE_BYTES_MAX} bytes" in str(error)
        whole = store_pb2.CountRequest(head=head, query_json=b"{}").SerializeToString()
        assert store_pb2.CountResponse.FromString(count(whole, timeout=PATIENCE_S)).count > 0
        for half, says in (
            (lambda: count(whole[: len(whole) // 2], timeout=PATIENCE_S), "does not read"),
            (lambda: tiles(iter(put(begun(9, b"half"))), timeout=PATIENCE_S), "4 of 9 bytes came"),
            (lambda: tiles(iter(put(begun(1 << 40))), timeout=PATIENCE_S), "expected 1..268435456"),
            (lambda: tiles(iter(()), timeout=PATIENCE_S), "at least its head"),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                half()
            error = error_from_rpc(caught.value, address)
            assert type(error) is InvalidInputError
            assert says in str(error)
    cluster.check()


def test_with_two_copies_a_lost_node_changes_no_answer(start: Start, raster: Path) -> None:
    first = start("a", "--replicas", "2")
    second = start("b", "--join", first.address)
    stocked = StockedCluster.of([first, second], raster)
    second.end()
    left = StockedCluster([first], stocked.rows, stocked.pixels)
    left.check()
    with geostore.open(f"geostore://{second.address},{first.address}") as store:
        assert store.query().count() == len(stocked.rows)


def test_a_tile_too_large_to_store_fails_its_scene_by_name(
    cluster: StockedCluster, raster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geostore.tiles.archive.TILE_BYTES_MAX", 10_000)
    with geostore.open(cluster.target) as store:
        (result,) = store.ingest(raster, dataset="large", length=6)
    assert result.status == "failed"
    assert result.error is not None
    assert "expected at most 10000; choose a longer geocode length or a coarser" in result.error
    monkeypatch.undo()
    cluster.check()
