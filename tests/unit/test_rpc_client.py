from __future__ import annotations

import gc
import inspect
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import trustme

from geostore.errors import (
    ConflictError,
    GeostoreError,
    InvalidInputError,
    NotFoundError,
    StaleRingError,
    UnavailableError,
)
from geostore.node.peer import Peer
from geostore.query import Explain, LeafQuery, Query, is_over
from geostore.rpc import messages as wire
from geostore.rpc.client import NodeClient
from geostore.rpc.errors import abort_with
from geostore.rpc.row_batches import BatchEncoder
from geostore.rpc.transport import (
    MESSAGE_BYTES_MAX,
    PLAINTEXT,
    Channels,
    Security,
    TlsFiles,
    open_channel,
    server_credentials,
)
from geostore.rpc.v1 import (
    common_pb2,
    node_pb2,
    node_pb2_grpc,
    ring_pb2_grpc,
    store_pb2,
    store_pb2_grpc,
)
from geostore.types import (
    BandInfo,
    CallContext,
    GroupLayout,
    NodeStatus,
    RecordCopy,
    RowBatch,
    TileKey,
    TileSchema,
)

LAYOUT = GroupLayout("r10m", 10.0, 8, 8, 8, 8, (BandInfo(name="B02", dtype="uint16"),))
SCHEMA = TileSchema("geohash", 5, "fast", (LAYOUT,))
STATUS = NodeStatus(
    id="n1",
    name="one",
    address="127.0.0.1:1",
    zone="",
    state="serving",
    epoch=1,
    slots=4096,
    slots_first=4096,
    slots_used=0,
    datasets=0,
    scenes=0,
    tiles=0,
    bytes=0,
    disk_free_bytes=1,
)


def call(timeout_s: float = 20.0) -> CallContext:
    return CallContext.within(timeout_s)


def make_batch(rows: int) -> RowBatch:
    def column(value: object) -> np.ndarray:
        array = np.empty(rows, dtype=object)
        array.fill(value)
        return array

    names = ("dataset_id", "dataset", "scene", "version", "platform")
    return RowBatch(
        row_id=np.arange(rows),
        geocode=column("9q8yy"),
        schema=column(SCHEMA),
        nodes=column(("one",)),
        time_us=np.arange(rows),
        time_end_us=np.arange(rows),
        pixel_coverage=np.ones(rows, np.float32),
        cloud_cover=np.ones(rows, np.float32),
        bytes=np.arange(rows),
        **{name: column(name) for name in names},
    )


def chunks(counts: list[int]) -> Iterator[common_pb2.RowsChunk]:
    encoder = BatchEncoder()
    for rows in counts:
        yield common_pb2.RowsChunk(rows=encoder.encode(make_batch(rows)), row_count=rows)


class FakeNode(
    store_pb2_grpc.StoreServiceServicer,
    node_pb2_grpc.NodeServiceServicer,
    ring_pb2_grpc.RingServiceServicer,
):
    """Answers as `answer` says, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answer: Callable[[Any, grpc.ServicerContext], Any] = lambda *_: None
        self.asked: Any = None

    def _serve(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked = request
        return self.answer(request, context)

    def _stream(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self.asked = request
        yield from self.answer(request, context)

    def _collect(self, requests: Any, context: grpc.ServicerContext) -> Any:
        return self._serve(list(requests), context)

    GetNodeStatus = GetDataset = Count = CopyRecord = ReadSceneRecord = _serve
    LeafQuery = Query = ReadBlocks = _stream
    PutTiles = _collect


@contextmanager
def serving(node: FakeNode, security: Security = PLAINTEXT) -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    store_pb2_grpc.add_StoreServiceServicer_to_server(node, server)
    node_pb2_grpc.add_NodeServiceServicer_to_server(node, server)
    ring_pb2_grpc.add_RingServiceServicer_to_server(node, server)
    credentials = server_credentials(security)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture
def client(node: FakeNode) -> Iterator[NodeClient]:
    with serving(node) as port:
        channels = Channels()
        address = f"127.0.0.1:{port}"
        yield NodeClient(
            channels.channel(address), address, lambda c: wire.make_head(c, "cluster", 3)
        )
        channels.close()


def fail_with(error: BaseException) -> Callable[..., Any]:
    def answer(_: Any, context: grpc.ServicerContext) -> Any:
        abort_with(context, error)

    return answer


def test_a_client_is_a_peer() -> None:
    for name, method in inspect.getmembers(Peer, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.signature(getattr(NodeClient, name)) == inspect.signature(method)


def test_a_call_carries_its_head_and_deadline(node: FakeNode, client: NodeClient) -> None:
    left: list[float] = []

    def answer(_: Any, context: grpc.ServicerContext) -> store_pb2.CountResponse:
        left.append(context.time_remaining())
        return store_pb2.CountResponse(count=7)

    node.answer = answer
    context = CallContext.within(30.0, request_id="r9")
    assert client.count(context, Query(limit=9)) == 7
    assert node.asked.head == wire.make_head(context, "cluster", 3)
    assert wire.query_from_json(node.asked.query_json) == Query(limit=9)
    assert 0 < left[0] <= 30.5


def test_a_nodes_error_is_raised_as_itself(node: FakeNode, client: NodeClient) -> None:
    node.answer = fail_with(NotFoundError("no dataset 'x'; known: y"))
    with pytest.raises(NotFoundError, match=r"^no dataset 'x'; known: y$"):
        client.get_dataset(call(), "x")
    node.answer = fail_with(StaleRingError("old", epoch=4))
    with pytest.raises(StaleRingError) as caught:
        client.get_dataset(call(), "x")
    assert caught.value.epoch == 4


def test_what_the_node_lacks_is_a_conflict(client: NodeClient) -> None:
    with pytest.raises(ConflictError, match=r"127.0.0.1:\d+: knows no such call"):
        client.list_datasets(call())


def test_none_and_empty_records_differ(node: FakeNode, client: NodeClient) -> None:
    node.answer = lambda *_: node_pb2.ReadSceneRecordResponse()
    assert client.scene_record(call(), "id", "s") is None
    node.answer = lambda *_: node_pb2.ReadSceneRecordResponse(record_json=b"")
    with pytest.raises(UnavailableError, match="its answer does not read"):
        client.scene_record(call(), "id", "s")
    node.answer = lambda *_: node_pb2.CopyRecordResponse()
    client.copy_record(call(), RecordCopy(name="n", revision=2, value=None))
    assert not node.asked.HasField("value")


def test_status_crosses(node: FakeNode, client: NodeClient) -> None:
    from geostore.rpc.v1 import ring_pb2

    node.answer = lambda *_: ring_pb2.GetNodeStatusResponse(status=wire.status_to_wire(STATUS))
    assert client.node_status(call()) == STATUS


def test_names_that_are_not_unicode_are_refused_before_they_are_sent(client: NodeClient) -> None:
    with pytest.raises(InvalidInputError, match="cannot be sent"):
        client.scene_record(call(), "id", "\udcff")


def test_a_message_over_the_limit_is_refused(client: NodeClient) -> None:
    big = RecordCopy(name="n", revision=1, value=bytes(MESSAGE_BYTES_MAX + 1))
    with pytest.raises(InvalidInputError, match=f"larger than the {MESSAGE_BYTES_MAX} bytes"):
        client.copy_record(call(), big)


def test_a_passed_deadline_sends_nothing(node: FakeNode, client: NodeClient) -> None:
    with pytest.raises(UnavailableError, match="deadline"):
        client.count(call(0.0), Query())
    assert node.asked is None


def test_a_deadline_ends_a_call(node: FakeNode, client: NodeClient) -> None:
    over = threading.Event()

    def answer(_: Any, context: grpc.ServicerContext) -> store_pb2.CountResponse:
        context.add_callback(over.set)
        over.wait(20)
        return store_pb2.CountResponse()

    node.answer = answer
    with pytest.raises(UnavailableError, match="before the deadline"):
        client.count(call(0.2), Query())
    assert over.wait(20)


# ---------------------------------------------------------------- streams


def whole(counts: list[int], explain: bytes = b"") -> Callable[..., Any]:
    def answer(*_: object) -> Iterator[node_pb2.LeafQueryResponse]:
        for chunk in chunks(counts):
            yield node_pb2.LeafQueryResponse(chunk=chunk)
        end = common_pb2.RowsEnd(rows_total=sum(counts), explain_json=explain)
        yield node_pb2.LeafQueryResponse(end=end)

    return answer


def test_rows_cross_with_their_explain(node: FakeNode, client: NodeClient) -> None:
    node.answer = whole([3, 2], wire.dump_json(Explain(structure="time").to_json()))
    explain = Explain()
    batches = list(client.leaf_query(call(), LeafQuery(query=Query()), explain))
    assert [len(batch) for batch in batches] == [3, 2]
    assert batches[0].schema[0] == SCHEMA
    assert explain.structure == "time"
    assert node.asked.explain


def test_a_stream_without_its_end_is_never_taken_for_whole(
    node: FakeNode, client: NodeClient
) -> None:
    request = LeafQuery(query=Query())
    for parts in (
        [node_pb2.LeafQueryResponse(chunk=chunk) for chunk in chunks([2])],
        [node_pb2.LeafQueryResponse(end=common_pb2.RowsEnd(rows_total=1))],
        [node_pb2.LeafQueryResponse()],
        [node_pb2.LeafQueryResponse(chunk=common_pb2.RowsChunk(rows=b"junk", row_count=1))],
        [node_pb2.LeafQueryResponse(end=common_pb2.RowsEnd())] * 2,
        [],
    ):
        node.answer = lambda *_, parts=parts: iter(parts)
        with pytest.raises(UnavailableError, match=r"127.0.0.1:\d+: its stream of rows is broken"):
            list(client.leaf_query(call(), request))


def ended(
    counts: list[int], rows_total: int, *, status: grpc.StatusCode | None = None
) -> Callable[..., Any]:
    """A stream whose end comes with its last rows."""

    def answer(_: Any, context: grpc.ServicerContext) -> Iterator[node_pb2.LeafQueryResponse]:
        *firsts, last = chunks(counts)
        for chunk in firsts:
            yield node_pb2.LeafQueryResponse(chunk=chunk)
        last.end.rows_total = rows_total
        yield node_pb2.LeafQueryResponse(chunk=last)
        if status is not None:
            context.abort(status, "the node stops")

    return answer


@pytest.mark.parametrize("status", [None, grpc.StatusCode.UNAVAILABLE])
def test_an_end_that_comes_with_rows_makes_them_whole(
    node: FakeNode, client: NodeClient, status: grpc.StatusCode | None
) -> None:
    node.answer = ended([3, 2], 5, status=status)
    rows = client.leaf_query(call(), LeafQuery(query=Query()))
    assert (len(next(rows)), is_over(rows)) == (3, False)
    assert (len(next(rows)), is_over(rows)) == (2, True)
    assert list(rows) == []
    assert node.asked.end_with_rows


def test_a_wrong_end_with_rows_is_refused(node: FakeNode, client: NodeClient) -> None:
    node.answer = ended([3, 2], 4)
    with pytest.raises(UnavailableError, match="its stream of rows is broken"):
        list(client.leaf_query(call(), LeafQuery(query=Query())))


def test_a_call_whose_end_came_with_rows_is_neither_waited_for_nor_cancelled(
    node: FakeNode, client: NodeClient
) -> None:
    let_end, over = threading.Event(), threading.Event()
    seen: list[bool] = []

    def answer(_: Any, context: grpc.ServicerContext) -> Iterator[node_pb2.LeafQueryResponse]:
        (chunk,) = chunks([2])
        chunk.end.rows_total = 2
        yield node_pb2.LeafQueryResponse(chunk=chunk)
        assert let_end.wait(20)
        seen.append(context.is_active())
        over.set()

    node.answer = answer
    rows = client.leaf_query(call(), LeafQuery(query=Query()))
    assert [len(batch) for batch in rows] == [2]  # though the node has not ended the call
    rows.close()  # type: ignore[attr-defined]
    del rows
    gc.collect()
    let_end.set()
    assert over.wait(20)
    assert seen == [True]


def test_an_error_after_rows_is_raised_after_them(node: FakeNode, client: NodeClient) -> None:
    def answer(_: Any, context: grpc.ServicerContext) -> Iterator[store_pb2.QueryResponse]:
        for chunk in chunks([2]):
            yield store_pb2.QueryResponse(chunk=chunk)
        abort_with(context, UnavailableError("node b is gone"))

    node.answer = answer
    rows = client.query(call(), Query())
    assert len(next(rows)) == 2
    with pytest.raises(UnavailableError, match="node b is gone"):
        next(rows)
    with pytest.raises(StopIteration):
        next(rows)


@pytest.mark.parametrize("rows_taken", [0, 1])
def test_closing_cancels_a_call_that_runs_already(
    node: FakeNode, client: NodeClient, rows_taken: int
) -> None:
    started, over = threading.Event(), threading.Event()

    def answer(_: Any, context: grpc.ServicerContext) -> Iterator[node_pb2.LeafQueryResponse]:
        context.add_callback(over.set)
        started.set()
        for chunk in chunks([1]):
            yield node_pb2.LeafQueryResponse(chunk=chunk)
        over.wait(20)

    node.answer = answer
    rows = client.leaf_query(call(), LeafQuery(query=Query()))
    assert started.wait(20)  # the call itself starts the work
    for _ in range(rows_taken):
        next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert over.wait(20)
    assert list(rows) == []


def test_blocks_of_other_tiles_are_refused(node: FakeNode, client: NodeClient) -> None:
    head = node_pb2.BlockHead(tile=0, index=1, length=2)
    node.answer = lambda *_: iter([node_pb2.ReadBlocksResponse(blocks=[head], data=b"ab")])
    key = TileKey("id", "s", "v", "9q8yy")
    [block] = client.read_blocks(call(), [(key, [1])])
    assert bytes(block.data or b"") == b"ab"
    with pytest.raises(UnavailableError, match="stream of blocks is broken"):
        list(client.read_blocks(call(), [(key, [2])]))


def test_an_acknowledgement_of_fewer_tiles_is_told(node: FakeNode, client: NodeClient) -> None:
    node.answer = lambda *_: store_pb2.PutTilesResponse(checksums=["a"])
    with pytest.raises(UnavailableError, match="acknowledged 1 tiles of 0"):
        client.put_tiles(call(), [], 1)
    assert node.asked[0].head.cluster_id == "cluster"


# ---------------------------------------------------------------- transport


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, not listening: refused
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with open_channel(address) as channel, pytest.raises(UnavailableError, match=address):
            NodeClient(channel, address).count(call(), Query())


def test_something_else_on_the_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"

        def talk() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"220 mail ready\r\n" * 9)
                connection.recv(1)

        thread = threading.Thread(target=talk)
        thread.start()
        with open_channel(address) as channel, pytest.raises(GeostoreError) as caught:
            NodeClient(channel, address).count(call(5), Query())
        thread.join(20)
        assert isinstance(caught.value, (UnavailableError, ConflictError))
        assert address in str(caught.value)


@pytest.mark.parametrize("address", ["10.0.0.1:7440", "node-a:7440", "0.0.0.0:7440", "[::]:1"])
def test_beyond_this_machine_only_when_protected_or_by_name(address: str) -> None:
    with pytest.raises(InvalidInputError, match=r"--tls-cert, --tls-key, --tls-ca.*--insecure"):
        open_channel(address)
    open_channel(address, Security(insecure=True)).close()


def test_one_protection_only(tmp_path: Path) -> None:
    files = TlsFiles(tmp_path / "c", tmp_path / "k", tmp_path / "a")
    with pytest.raises(InvalidInputError, match="expected one of them"):
        Security(tls=files, insecure=True)
    with pytest.raises(NotFoundError, match="--tls-cert .*no such file"):
        open_channel("a:1", Security(tls=files))
    (tmp_path / "c").write_bytes(b"hello")
    with pytest.raises(InvalidInputError, match="expected a PEM file with a CERTIFICATE"):
        open_channel("a:1", Security(tls=files))


def make_files(ca: trustme.CA, folder: Path, name: str) -> TlsFiles:
    cert = ca.issue_cert("127.0.0.1", "localhost")
    cert.private_key_pem.write_to_path(folder / f"{name}.key")
    cert.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    ca.cert_pem.write_to_path(folder / f"{name}-ca.pem")
    return TlsFiles(folder / f"{name}.pem", folder / f"{name}.key", folder / f"{name}-ca.pem")


def test_tls_lets_in_whom_the_same_authority_signed(node: FakeNode, tmp_path: Path) -> None:
    node.answer = lambda *_: store_pb2.CountResponse(count=1)
    ours, other = trustme.CA(), trustme.CA()
    security = Security(tls=make_files(ours, tmp_path, "node"))
    with serving(node, security) as port:
        address = f"127.0.0.1:{port}"

        def count(with_security: Security) -> int:
            with open_channel(address, with_security) as channel:
                return NodeClient(channel, address).count(call(10), Query())

        assert count(Security(tls=make_files(ours, tmp_path, "user"))) == 1
        strangers = make_files(other, tmp_path, "stranger")
        believing = TlsFiles(strangers.cert, strangers.key, security.tls.ca)  # type: ignore[union-attr]
        for refused in (PLAINTEXT, Security(tls=strangers), Security(tls=believing)):
            with pytest.raises(UnavailableError, match=address):
                count(refused)


class FakeChannel:
    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def test_channels_are_shared_and_closed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[FakeChannel] = []

    def open_one(*_: object) -> Any:
        made.append(FakeChannel())
        return made[-1]

    channels = Channels(open_one=open_one)
    first = channels.channel("a:1")
    assert channels.channel("a:1") is first
    channels.forget("a:1")
    assert channels.channel("a:1") is not first
    monkeypatch.setattr(os, "getpid", lambda: -1)  # as after a fork
    child = channels.channel("a:1")
    channels.close()
    channels.close()
    assert [one.closed for one in made] == [1, 0, 1]
    assert child is made[2]
    with pytest.raises(UnavailableError, match="closed"):
        channels.channel("a:1")
