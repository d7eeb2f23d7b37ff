from __future__ import annotations

import logging
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from geostore.config import HostPort
from geostore.errors import (
    ConflictError,
    InternalError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from geostore.metrics import REGISTRY, SERVER_ANSWERED_REQUESTS, SERVER_SENT_BYTES
from geostore.rpc.errors import error_from_rpc
from geostore.rpc.streams import CALL_BYTES_MAX, PUT_BYTES_MAX
from geostore.rpc.transport import MESSAGE_BYTES_MAX
from geostore.server import (
    DEFAULT_POOLS,
    Call,
    CallClass,
    NodeServer,
    PoolSize,
    ServerLimits,
    ServerState,
    current_call,
)
from geostore.server.limits import KEYS_BYTES_MAX

PATIENCE_S = 30.0
"""Far more than anything here takes; only a hang uses it up."""

Behavior = Callable[[Any, grpc.ServicerContext], Any]


def limits(**given: Any) -> ServerLimits:
    return ServerLimits(**given)


def small_pool(call_class: CallClass, threads: int, calls_max: int) -> ServerLimits:
    return ServerLimits(pools={**DEFAULT_POOLS, call_class: PoolSize(threads, calls_max)})


def made(kind: str, behavior: Behavior) -> grpc.RpcMethodHandler[Any, Any]:
    return getattr(grpc, f"{kind}_rpc_method_handler")(behavior)


def wait_until(holds: Callable[[], bool]) -> None:
    """Looks again and again; fails when patience ends."""
    looked = threading.Event()
    for _ in range(int(PATIENCE_S / 0.01)):
        if holds():
            return
        looked.wait(0.01)
    raise AssertionError("it never came to hold")


class Served:
    """A server of bytes: `methods` maps a name to (kind, class, behavior)."""

    def __init__(self, methods: dict[str, tuple[str, CallClass, Behavior]], **given: Any) -> None:
        generic = grpc.method_handlers_generic_handler(
            "t.T", {name: made(kind, behavior) for name, (kind, _, behavior) in methods.items()}
        )
        self.server = NodeServer(
            listen=HostPort("127.0.0.1", 0),
            services=[lambda server: server.add_generic_rpc_handlers((generic,))],
            classes={f"/t.T/{name}": kind for name, (_, kind, _) in methods.items()},
            request_id_of=lambda message: message.decode(errors="replace")[:300],
            **given,
        )
        self.address = str(self.server.address)

    def __enter__(self) -> Self:
        self.server.start()
        self.server.serve()
        self.channel = grpc.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1)])
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.server.drain(0.0)
        self.channel.close()

    def call(self, name: str, kind: str = "unary_unary") -> Any:
        return getattr(self.channel, kind)(f"/t.T/{name}")

    def health(self) -> int:
        stub = health_pb2_grpc.HealthStub(self.channel)
        reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
        return int(reply.status)


class Gate:
    """A handler that reports its start and stays until it is let go."""

    def __init__(self) -> None:
        self.started: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self.go = threading.Event()

    def __call__(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.started.put(current_call())
        assert self.go.wait(PATIENCE_S)
        return request


def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
    return request


def test_all_four_kinds_of_calls_are_served() -> None:
    methods: dict[str, tuple[str, CallClass, Behavior]] = {
        "Echo": ("unary_unary", CallClass.LEAF, echo),
        "Count": ("unary_stream", CallClass.LEAF, lambda n, _: (b"%d" % i for i in range(int(n)))),
        "Join": ("stream_unary", CallClass.COORDINATED, lambda parts, _: b"".join(parts)),
        "Upper": ("stream_stream", CallClass.CONTROL, lambda parts, _: (p.upper() for p in parts)),
    }
    with Served(methods) as served:
        assert served.call("Echo")(b"x", timeout=PATIENCE_S) == b"x"
        counted = served.call("Count", "unary_stream")(b"3", timeout=PATIENCE_S)
        assert list(counted) == [b"0", b"1", b"2"]
        parts = [b"a", b"b"]
        assert served.call("Join", "stream_unary")(iter(parts), timeout=PATIENCE_S) == b"ab"
        upper = served.call("Upper", "stream_stream")(iter(parts), timeout=PATIENCE_S)
        assert list(upper) == [b"A", b"B"]


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
def test_errors_of_handlers_cross_the_wire(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    def fail(request: bytes, context: grpc.ServicerContext) -> Any:
        if request == b"lost":
            raise NotFoundError("no dataset 'x'")
        if request == b"own":
            context.abort(grpc.StatusCode.ALREADY_EXISTS, "by hand")
        raise ZeroDivisionError("a secret path")

    def stream(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"first"
        fail(request, context)

    behavior = fail if kind == "unary_unary" else stream
    with Served({"Fail": (kind, CallClass.LEAF, behavior)}) as served:

        def failure(request: bytes) -> grpc.RpcError:
            call = served.call("Fail", kind)
            with pytest.raises(grpc.RpcError) as caught:
                list(call(request, timeout=PATIENCE_S))
            return caught.value

        lost = error_from_rpc(failure(b"lost"), "n")
        assert isinstance(lost, NotFoundError)
        assert str(lost) == "no dataset 'x'"
        own = failure(b"own")
        assert own.code() is grpc.StatusCode.ALREADY_EXISTS
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
        bug = failure(b"bug")
        assert isinstance(error_from_rpc(bug, "n"), InternalError)
        assert "secret" not in str(bug.details())
        errors = [record for record in caplog.records if record.name == "geostore.server"]
        assert errors[0].exc_info is not None


def test_a_full_class_refuses_at_once_and_others_go_on() -> None:
    gate = Gate()
    methods: dict[str, tuple[str, CallClass, Behavior]] = {
        "Wait": ("unary_unary", CallClass.COORDINATED, gate),
        "Leaf": ("unary_unary", CallClass.LEAF, echo),
        "Upload": ("stream_unary", CallClass.COORDINATED, lambda parts, _: b"".join(parts)),
        "Stream": ("unary_stream", CallClass.COORDINATED, lambda _, __: iter([b"x"])),
    }
    with Served(methods, limits=small_pool(CallClass.COORDINATED, 2, 3)) as served:
        taken = [served.call("Wait").future(b"%d" % i, timeout=PATIENCE_S) for i in range(2)]
        for _ in taken:
            gate.started.get(timeout=PATIENCE_S)
        # Three have places at most, so at least one of these two is refused; the other waits.
        more = [served.call("Wait").future(b"more", timeout=PATIENCE_S) for _ in range(2)]
        refusals: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for future in more:
            future.add_done_callback(refusals.put)
        refused = refusals.get(timeout=PATIENCE_S)
        assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        error = error_from_rpc(refused, "n")
        assert isinstance(error, UnavailableError)
        assert error.retry_after_s is not None
        assert 0 < error.retry_after_s <= 5
        # Whatever kind of call: refused without a thread, without waiting for messages.
        never = threading.Event()

        def messages() -> Iterator[bytes]:
            never.wait(PATIENCE_S)
            yield b"late"

        with pytest.raises(grpc.RpcError, match="RESOURCE_EXHAUSTED"):
            served.call("Upload", "stream_unary")(messages(), timeout=PATIENCE_S)
        never.set()
        with pytest.raises(grpc.RpcError, match="RESOURCE_EXHAUSTED"):
            list(served.call("Stream", "unary_stream")(b"", timeout=PATIENCE_S))
        assert served.call("Leaf")(b"leaf", timeout=PATIENCE_S) == b"leaf"
        assert served.health() == health_pb2.HealthCheckResponse.SERVING
        gate.go.set()
        answers = sorted(future.result(PATIENCE_S) for future in taken)
        assert answers == [b"0", b"1"]
        assert [f.result(PATIENCE_S) for f in more if f is not refused] == [b"more"]


class Triangle:
    """Three nodes of eight threads a class, whose coordinated calls each call all three.

    The first 24 coordinated calls, one for each thread, go on when all of them have begun.
    """

    def __init__(self, leaf_class: CallClass) -> None:
        self.leafs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        """A word of each leaf call that ran."""
        self.over = threading.Event()
        self._began: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._all_busy = threading.Event()
        self._asked: list[Any] = []
        eight = PoolSize(8, 64)
        limits = ServerLimits(
            pools={**DEFAULT_POOLS, CallClass.COORDINATED: eight, CallClass.LEAF: eight}
        )
        methods: dict[str, tuple[str, CallClass, Behavior]] = {
            "Coordinated": ("unary_unary", CallClass.COORDINATED, self._coordinate),
            "Leaf": ("unary_unary", leaf_class, self._leaf),
        }
        self.nodes = [Served(methods, limits=limits) for _ in range(3)]

    def __enter__(self) -> Self:
        for node in self.nodes:
            node.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.over.set()
        for future in self._asked:
            future.cancel()
        for node in self.nodes:
            node.__exit__()

    def start(self) -> list[Any]:
        """60 coordinated calls, 20 a node."""
        return [
            self.nodes[i % 3].call("Coordinated").future(b"%d" % i, timeout=PATIENCE_S)
            for i in range(60)
        ]

    def _coordinate(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._began.put(request)
        if self._began.qsize() >= 24:
            self._all_busy.set()
        assert self._all_busy.wait(PATIENCE_S)
        if self.over.is_set():
            raise UnavailableError("the test is over")
        futures = [
            node.call("Leaf").future(request, timeout=context.time_remaining())
            for node in self.nodes
        ]
        self._asked += futures
        return b",".join(future.result() for future in futures)

    def _leaf(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.leafs.put(request)
        return request


def test_three_nodes_that_call_each_other_do_not_deadlock() -> None:
    with Triangle(CallClass.LEAF) as triangle:
        for i, call in enumerate(triangle.start()):
            assert call.result(PATIENCE_S) == b",".join([b"%d" % i] * 3)


def test_leaf_calls_among_the_coordinated_ones_deadlock() -> None:
    """The fault that call classes are for, planted: else the test above could not fail."""
    with Triangle(CallClass.COORDINATED) as triangle:
        calls = triangle.start()
        pools = [
            node.server._dispatch.admission.pools[CallClass.COORDINATED] for node in triangle.nodes
        ]
        # At each node: 20 coordinated calls, 8 of which have every thread, and the leaf calls
        # of the 24 that run, which these wait for.
        wait_until(lambda: [pool.calls() for pool in pools] == [44, 44, 44])
        assert triangle.leafs.empty()
        assert not any(call.done() for call in calls)


def test_a_client_that_stops_reading_loses_its_call() -> None:
    closed = threading.Event()
    made_messages = []

    def endless(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        try:
            while True:
                made_messages.append(1)
                yield bytes(1 << 20)
        finally:
            closed.set()

    methods: dict[str, tuple[str, CallClass, Behavior]] = {
        "Endless": ("unary_stream", CallClass.LEAF, endless),
        "Leaf": ("unary_unary", CallClass.LEAF, echo),
    }
    given = ServerLimits(
        pools={**DEFAULT_POOLS, CallClass.LEAF: PoolSize(1, 4)}, stall_timeout_s=0.3
    )
    with Served(methods, limits=given) as served:
        stream = served.call("Endless", "unary_stream")(b"")
        assert len(next(stream)) == 1 << 20
        assert closed.wait(PATIENCE_S)
        # Bounded by flow control, however long it slept: the windows grow to some MiB at either
        # end. Unbounded, 0.3 s of 1 MiB messages are hundreds.
        assert len(made_messages) < 64
        assert served.call("Leaf")(b"free", timeout=PATIENCE_S) == b"free"
        with pytest.raises(grpc.RpcError, match="CANCELLED"):
            list(stream)


def test_a_client_that_sends_no_message_loses_its_call() -> None:
    never = threading.Event()

    def messages() -> Iterator[bytes]:
        never.wait(PATIENCE_S)
        yield b""

    given = ServerLimits(
        pools={**DEFAULT_POOLS, CallClass.LEAF: PoolSize(1, 4)}, request_timeout_s=0.3
    )
    with Served({"Leaf": ("unary_unary", CallClass.LEAF, echo)}, limits=given) as served:
        # On the wire a unary call whose message never comes.
        stalled = served.call("Leaf", "stream_unary").future(messages())
        assert served.call("Leaf")(b"free", timeout=PATIENCE_S) == b"free"
        assert stalled.code() is grpc.StatusCode.CANCELLED
        never.set()
        with pytest.raises(grpc.RpcError, match="takes one message"):
            served.call("Leaf", "stream_unary")(iter(()), timeout=PATIENCE_S)


@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_cancellation_and_deadlines_reach_the_handler(how: str) -> None:
    began: queue.SimpleQueue[Call] = queue.SimpleQueue()
    woken = threading.Event()
    seen: queue.SimpleQueue[str] = queue.SimpleQueue()

    def patient(request: bytes, context: grpc.ServicerContext) -> bytes:
        call = current_call()
        call.on_cancel(woken.set)
        began.put(call)
        assert woken.wait(PATIENCE_S)
        try:
            call.check()
        except UnavailableError as error:
            seen.put(str(error))
            raise
        return b""

    with Served({"Patient": ("unary_unary", CallClass.COORDINATED, patient)}) as served:
        timeout_s = PATIENCE_S if how == "cancel" else 0.5
        future = served.call("Patient").future(b"", timeout=timeout_s)
        call = began.get(timeout=PATIENCE_S)
        if how == "cancel":
            assert not call.is_cancelled()
            future.cancel()
        assert "cancelled" in seen.get(timeout=PATIENCE_S)
        assert call.is_cancelled()


def test_a_cancelled_stream_closes_its_generator() -> None:
    closed = threading.Event()

    def rows(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        wait = threading.Event()
        current_call().on_cancel(wait.set)
        try:
            yield b"1"
            wait.wait(PATIENCE_S)
            yield b"2"
        finally:
            closed.set()

    with Served({"Rows": ("unary_stream", CallClass.COORDINATED, rows)}) as served:
        stream = served.call("Rows", "unary_stream")(b"")
        assert next(stream) == b"1"
        stream.cancel()
        assert closed.wait(PATIENCE_S)


def test_a_call_that_was_cancelled_while_it_waited_is_not_served() -> None:
    gate = Gate()
    with Served(
        {"Wait": ("unary_unary", CallClass.LEAF, gate)},
        limits=small_pool(CallClass.LEAF, 1, 2),
    ) as served:
        first = served.call("Wait").future(b"first", timeout=PATIENCE_S)
        gate.started.get(timeout=PATIENCE_S)
        second = served.call("Wait").future(b"second", timeout=0.3)
        assert second.exception(PATIENCE_S) is not None
        gate.go.set()
        assert first.result(PATIENCE_S) == b"first"
        served.server.drain(PATIENCE_S)
        assert gate.started.empty()


def test_one_line_a_call(caplog: pytest.LogCaptureFixture) -> None:
    def noted(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        current_call().note(rows=7)
        yield b"abc"

    caplog.set_level(logging.DEBUG, "geostore.server")
    REGISTRY.reset()
    methods: dict[str, tuple[str, CallClass, Behavior]] = {
        "Query": ("unary_stream", CallClass.COORDINATED, noted),
        "Leaf": ("unary_unary", CallClass.LEAF, echo),
    }
    with Served(methods) as served:
        assert list(served.call("Query", "unary_stream")(b"req-1")) == [b"abc"]
        assert served.call("Leaf")(b"evil\nid=1") == b"evil\nid=1"
        served.server.drain(PATIENCE_S)
    lines = {r.levelno: r.getMessage() for r in caplog.records if "method=" in r.getMessage()}
    assert len(lines) == 2
    info, debug = lines[logging.INFO], lines[logging.DEBUG]
    assert "method=/t.T/Query request_id=req-1 peer=ipv4:127.0.0.1:" in info
    assert " class=coordinated status=OK rows=7 bytes=3 seconds=" in info
    assert r"request_id='evil\nid=1'" in debug
    assert REGISTRY.read(SERVER_SENT_BYTES, labels=("/t.T/Query",)).total == 3
    answered = REGISTRY.read(SERVER_ANSWERED_REQUESTS, labels=("/t.T/Query", "OK"))
    assert answered.total == 1


def test_drain_lets_running_calls_end_and_refuses_new_ones() -> None:
    gate = Gate()
    before_s = sys.getswitchinterval()
    with Served({"Wait": ("unary_unary", CallClass.COORDINATED, gate)}) as served:
        assert sys.getswitchinterval() == pytest.approx(0.0005)
        watched = health_pb2_grpc.HealthStub(served.channel).Watch(
            health_pb2.HealthCheckRequest(), timeout=PATIENCE_S
        )
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        running = served.call("Wait").future(b"kept", timeout=PATIENCE_S)
        gate.started.get(timeout=PATIENCE_S)
        drained: queue.SimpleQueue[int] = queue.SimpleQueue()
        drainer = threading.Thread(target=lambda: drained.put(served.server.drain(PATIENCE_S)))
        drainer.start()
        assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert served.health() == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.RpcError) as caught:
            served.call("Wait")(b"new", timeout=PATIENCE_S)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        error = error_from_rpc(caught.value, "n")
        assert isinstance(error, UnavailableError)
        assert error.retry_after_s
        gate.go.set()
        assert running.result(PATIENCE_S) == b"kept"
        assert drained.get(timeout=PATIENCE_S) == 0
        drainer.join()
        assert list(watched) == []
        assert served.server.state is ServerState.STOPPED
        assert sys.getswitchinterval() == pytest.approx(before_s)


def test_drain_cancels_what_does_not_end_in_time() -> None:
    cancelled = threading.Event()
    began = threading.Event()

    def stubborn(request: bytes, context: grpc.ServicerContext) -> bytes:
        current_call().on_cancel(cancelled.set)
        began.set()
        assert cancelled.wait(PATIENCE_S)
        return b""

    with Served({"Stubborn": ("unary_unary", CallClass.LEAF, stubborn)}) as served:
        future = served.call("Stubborn").future(b"", timeout=PATIENCE_S)
        assert began.wait(PATIENCE_S)
        assert served.server.drain(0.05) == 0
        assert cancelled.is_set()
        assert future.exception(PATIENCE_S) is not None
        assert served.server.drain(1.0) == 0  # again: nothing to do


def test_a_starting_node_answers_only_what_is_open() -> None:
    methods: dict[str, tuple[str, CallClass, Behavior]] = {
        "Query": ("unary_unary", CallClass.COORDINATED, echo),
        "Leaf": ("unary_unary", CallClass.LEAF, echo),
    }
    served = Served(methods)
    served.server.start(closed=[CallClass.COORDINATED])
    with grpc.insecure_channel(served.address) as channel:
        served.channel = channel
        assert served.call("Leaf")(b"x", timeout=PATIENCE_S) == b"x"
        with pytest.raises(grpc.RpcError, match="starting"):
            served.call("Query")(b"x", timeout=PATIENCE_S)
        assert served.health() == health_pb2.HealthCheckResponse.NOT_SERVING
        served.server.serve()
        assert served.call("Query")(b"x", timeout=PATIENCE_S) == b"x"
        assert served.health() == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError, match="no service"):
            health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service="other"), timeout=PATIENCE_S
            )
        served.server.drain(1.0)


def test_a_port_in_use_names_it_and_what_to_do() -> None:
    with (
        Served({}) as served,
        pytest.raises(ConflictError, match=rf"{served.address} is in use.*port 0"),
    ):
        NodeServer(listen=served.server.address, services=[], classes={})


def test_addresses_that_cannot_be_listened_at() -> None:
    with pytest.raises(InvalidInputError, match=r"192\.0\.2\.1:0.*--tls-cert.*--insecure"):
        NodeServer(listen=HostPort("192.0.2.1", 0), services=[], classes={})
    with pytest.raises(InvalidInputError, match=r"cannot listen on 192\.0\.2\.1"):
        NodeServer(listen=HostPort("192.0.2.1", 0), services=[], classes={}, insecure=True)


def test_limits_that_bound_nothing_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="calls_max=2"):
        PoolSize(3, 2)
    with pytest.raises(InvalidInputError, match="stall_timeout_s"):
        ServerLimits(stall_timeout_s=0)
    with pytest.raises(InvalidInputError, match="leaf"):
        ServerLimits(pools={c: p for c, p in DEFAULT_POOLS.items() if c is not CallClass.LEAF})


def test_a_method_without_a_class_is_a_bug_that_says_so() -> None:
    generic = grpc.method_handlers_generic_handler("t.T", {"Echo": made("unary_unary", echo)})
    with NodeServer(
        listen=HostPort("127.0.0.1", 0),
        services=[lambda server: server.add_generic_rpc_handlers((generic,))],
        classes={},
    ) as server:
        server.start()
        with (
            grpc.insecure_channel(str(server.address)) as channel,
            pytest.raises(grpc.RpcError, match="no call class"),
        ):
            channel.unary_unary("/t.T/Echo")(b"", timeout=PATIENCE_S)


def test_messages_that_do_not_parse_are_the_callers_fault() -> None:
    def parse(payload: bytes) -> bytes:
        if payload == b"bad":
            raise ValueError("secret")
        return payload

    generic = grpc.method_handlers_generic_handler(
        "t.T",
        {
            "Echo": grpc.unary_unary_rpc_method_handler(echo, request_deserializer=parse),
            "Join": grpc.stream_unary_rpc_method_handler(
                lambda parts, _: b"".join(parts), request_deserializer=parse
            ),
        },
    )
    given = ServerLimits(request_bytes_max={"/t.T/Echo": 10})
    with NodeServer(
        listen=HostPort("127.0.0.1", 0),
        services=[lambda server: server.add_generic_rpc_handlers((generic,))],
        classes={"/t.T/Echo": CallClass.LEAF, "/t.T/Join": CallClass.LEAF},
        limits=given,
    ) as server:
        server.start()
        server.serve()
        with grpc.insecure_channel(str(server.address)) as channel:
            echo_call, join = channel.unary_unary("/t.T/Echo"), channel.stream_unary("/t.T/Join")
            assert echo_call(b"x" * 10, timeout=PATIENCE_S) == b"x" * 10
            assert join(iter([b"x" * 11]), timeout=PATIENCE_S) == b"x" * 11
            for ask, said in (
                (lambda: echo_call(b"bad", timeout=PATIENCE_S), "3 bytes does not read"),
                (lambda: join(iter([b"a", b"bad"]), timeout=PATIENCE_S), "does not read"),
                (lambda: echo_call(b"x" * 11, timeout=PATIENCE_S), "at most 10; ask for less"),
            ):
                with pytest.raises(grpc.RpcError) as caught:
                    ask()
                error = error_from_rpc(caught.value, "here")
                assert type(error) is InvalidInputError
                assert said in str(error)
                assert "secret" not in str(error)


def test_a_message_has_one_limit_on_both_sides() -> None:
    """docs/wire.md names it."""
    wire_page = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()
    assert ServerLimits().message_bytes_max == MESSAGE_BYTES_MAX == 8 << 20
    assert "| a message | 8 MiB;" in wire_page
    assert f"| {CALL_BYTES_MAX >> 20} MiB |" in wire_page
    assert f"more than {PUT_BYTES_MAX >> 20} MiB of tiles" in wire_page
    assert KEYS_BYTES_MAX == 1 << 20
    assert "| a request that lists tiles | 1 MiB |" in wire_page
