"""A server under more than it takes: clients in hundreds, and bytes that are no gRPC."""

from __future__ import annotations

import random
import resource
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from geostore.config import HostPort
from geostore.server import DEFAULT_POOLS, CallClass, NodeServer, PoolSize, ServerLimits

PATIENCE_S = 60.0
MIB = 1 << 20
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
EMPTY_SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


def megabyte(request: bytes, context: grpc.ServicerContext) -> bytes:
    return request.ljust(MIB)


@pytest.fixture
def server() -> Iterator[NodeServer]:
    handlers = {"Megabyte": grpc.unary_unary_rpc_method_handler(megabyte)}
    generic = grpc.method_handlers_generic_handler("t.T", handlers)
    limits = ServerLimits(pools={**DEFAULT_POOLS, CallClass.COORDINATED: PoolSize(8, 64)})
    with NodeServer(
        listen=HostPort("127.0.0.1", 0),
        services=[lambda server: server.add_generic_rpc_handlers((generic,))],
        classes={"/t.T/Megabyte": CallClass.COORDINATED},
        limits=limits,
    ) as server:
        server.start()
        server.serve()
        yield server


def check(server: NodeServer) -> None:
    """Health answers, and so does the service, over a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(str(server.address), options) as channel:
        reply = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=PATIENCE_S
        )
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        answer = channel.unary_unary("/t.T/Megabyte")(b"x", timeout=PATIENCE_S)
        assert len(answer) == MIB


def test_a_thousand_clients_are_answered_or_told_to_come_back(server: NodeServer) -> None:
    before_bytes = psutil.Process().memory_info().rss
    options = [("grpc.use_local_subchannel_pool", 1)]
    with ExitStack() as stack:
        channels = [
            stack.enter_context(grpc.insecure_channel(str(server.address), options))
            for _ in range(50)
        ]
        calls = [
            channels[i % 50].unary_unary("/t.T/Megabyte").future(b"", timeout=PATIENCE_S)
            for i in range(1000)
        ]
        with grpc.insecure_channel(str(server.address), options) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for _ in range(10):
                health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
        codes = Counter(call.code() for call in calls)
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert codes[grpc.StatusCode.OK] >= 64
    # The answers that clients hold here are counted too.
    held_bytes = codes[grpc.StatusCode.OK] * MIB
    grown_bytes = psutil.Process().memory_info().rss - before_bytes
    assert grown_bytes < 2 * held_bytes + 300 * MIB
    check(server)


@pytest.mark.parametrize(
    "sent",
    [
        random.Random(1).randbytes(4096),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(508),
        HTTP2_PREFACE[:11],
        HTTP2_PREFACE + EMPTY_SETTINGS + b"\xff\xff\xff\x01",
        HTTP2_PREFACE + EMPTY_SETTINGS + b"\x00\x40\x00\x00\x00\x00\x00\x00\x01" + bytes(99),
    ],
    ids=["random", "http1", "tls", "half preface", "huge frame", "half message"],
)
def test_garbage_on_the_port_hurts_nobody(server: NodeServer, sent: bytes) -> None:
    where = (server.address.host, server.address.port)
    with socket.create_connection(where) as still_open:
        still_open.sendall(sent)
        with socket.create_connection(where) as cut_off:
            cut_off.sendall(sent)
        check(server)


def test_a_thousand_idle_connections_leave_room(server: NodeServer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    try:
        with ExitStack() as stack:
            for _ in range(1000):
                where = (server.address.host, server.address.port)
                stack.enter_context(socket.create_connection(where))
            check(server)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_message_over_the_limit_ends_its_own_call_only(server: NodeServer) -> None:
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(str(server.address), options) as channel:
        call = channel.unary_unary("/t.T/Megabyte")
        with pytest.raises(grpc.RpcError) as caught:
            call(bytes(17 * MIB), timeout=PATIENCE_S)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(call(b"x", timeout=PATIENCE_S)) == MIB
    check(server)
