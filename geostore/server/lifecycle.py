"""A node's gRPC server from its port to its last answer: bind, start, serve, drain, stop."""

from __future__ import annotations

import logging
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from enum import StrEnum
from types import FrameType
from typing import Any, Self, TypeVar

import grpc

from geostore.config import HostPort
from geostore.errors import InternalError, UnavailableError
from geostore.rpc.errors import failure_of
from geostore.server.dispatch import DescribeError, Dispatch, RequestIdOf
from geostore.server.health import HealthService
from geostore.server.limits import CallClass, ServerLimits, channel_options
from geostore.server.listening import bind_port, check_plaintext
from geostore.server.streams import Watchdog

__all__ = ["NodeServer", "ServerState", "StopSignals", "run_until_signal"]

_log = logging.getLogger("geostore.server")

Register = Callable[[grpc.Server], None]
T = TypeVar("T")

SWITCH_INTERVAL_S = 0.0005
"""One busy Python thread delays a call by up to a switch interval at each turn: 26 ms at the
usual 5 ms, 2.7 ms at this one, measured with a unary call of 0.5 ms."""
_RETRY_ELSEWHERE_S = 1.0
_CANCEL_WAIT_S = 5.0
"""How long cancelled handlers have to end."""
_FLUSH_S = 2.0
"""How long last answers have to leave, when all handlers have ended."""
_STOPPING = (signal.SIGTERM, signal.SIGINT)
_OURS = (CallClass.COORDINATED, CallClass.LEAF, CallClass.CONTROL)


class ServerState(StrEnum):
    """How far a server is; it only goes on."""

    BOUND = "bound"
    STARTING = "starting"
    """Answers what is not closed; health says NOT_SERVING."""
    SERVING = "serving"
    DRAINING = "draining"
    STOPPED = "stopped"


class NodeServer:
    """One port with gRPC services on it. Thread-safe from `start` on.

    The port is taken by the constructor, so that a node knows its address before it joins;
    connections wait until `start`. Whoever makes one calls `drain` or uses `with`.

    Args:
        listen: where; port 0 picks one.
        credentials: TLS; None is plaintext, which elsewhere than on loopback needs
            `insecure`.
        services: each adds its handlers to the server (generated `add_..._to_server`).
        classes: the call class of every method, by its full name `/package.Service/Method`.
        request_id_of: a request message's id, for the log.

    Raises:
        InvalidInputError: plaintext where others can read along, or no such address here.
        ConflictError: the port is in use.
    """

    def __init__(
        self,
        *,
        listen: HostPort,
        services: Sequence[Register],
        classes: Mapping[str, CallClass],
        describe_error: DescribeError = failure_of,
        request_id_of: RequestIdOf = lambda _: None,
        credentials: grpc.ServerCredentials | None = None,
        insecure: bool = False,
        limits: ServerLimits | None = None,
        service_names: tuple[str, ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if credentials is None:
            check_plaintext(listen, insecure=insecure)
        self._limits = limits or ServerLimits()
        patience_s = min(self._limits.stall_timeout_s, self._limits.request_timeout_s)
        self.watchdog = Watchdog(period_s=min(1.0, patience_s / 4), clock=clock)
        self._dispatch = Dispatch(
            classes,
            self._limits,
            describe_error=describe_error,
            request_id_of=request_id_of,
            watchdog=self.watchdog,
        )
        self.health = HealthService(service_names)
        self._change = threading.Lock()
        self._hurry = threading.Event()
        self._stopped = threading.Event()
        self._state = ServerState.BOUND
        # Every handler names its pool; gRPC wants one for those that do not.
        self._unused_pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="geostore-spare")
        self._server = grpc.server(
            self._unused_pool,
            interceptors=[self._dispatch],
            options=channel_options(self._limits),
        )
        self.health.add_to(self._server)
        for register in services:
            register(self._server)
        self.address = bind_port(self._server, listen, credentials)

    @property
    def state(self) -> ServerState:
        return self._state

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.drain(0.0)

    def start(self, *, closed: Collection[CallClass] = ()) -> None:
        """Answers calls, except of the classes `closed`, and health with NOT_SERVING.

        A starting node asks other nodes, which may be starting too, to settle its scenes:
        so leaf and control calls are usually open before coordinated ones.
        """
        with self._change:
            if self._state is not ServerState.BOUND:
                raise InternalError(f"a server starts once; this one is {self._state}")
            self._state = ServerState.STARTING
        error = UnavailableError(
            f"node at {self.address} is starting", retry_after_s=_RETRY_ELSEWHERE_S
        )
        self._dispatch.admission.close(closed, error)
        _SWITCH.hold()
        self.watchdog.start()
        self._server.start()

    def serve(self) -> None:
        """Answers calls of all classes; health says SERVING."""
        with self._change:
            if self._state is not ServerState.STARTING:
                return  # a drain came first
            self._state = ServerState.SERVING
            self._dispatch.admission.open_all()
            self.health.set_serving(True)
        _log.info("address=%s state=serving", self.address)

    def drain(self, grace_s: float) -> int:
        """Lets running calls end, then stops; the number of handlers that did not end.

        New calls are refused with UNAVAILABLE at once, health says NOT_SERVING, running
        and waiting calls have `grace_s` seconds to end and are cancelled then. A second
        caller waits for the first. The port is free when this returns.
        """
        with self._change:
            before, first = self._state, self._state in _RUNNING_STATES
            if first:
                self._state = ServerState.DRAINING
        if not first:
            self._stopped.wait()
            return 0
        started = before is not ServerState.BOUND
        _log.info("address=%s state=draining grace_s=%g", self.address, grace_s)
        error = UnavailableError(
            f"node at {self.address} is going down: ask another",
            retry_after_s=_RETRY_ELSEWHERE_S,
        )
        admission = self._dispatch.admission
        admission.close(_OURS, error)
        self.health.set_serving(False)
        try:
            left = self._wait_idle(grace_s)
            self.health.close()
            # Health goes on answering until here. Handlers are idle, or out of time.
            ended = self._server.stop(0.0 if left else _FLUSH_S)
            ended.wait(_FLUSH_S + _CANCEL_WAIT_S)
            stuck = admission.wait_idle(tuple(CallClass), _CANCEL_WAIT_S)
        finally:
            admission.shutdown()
            self._unused_pool.shutdown(wait=False)
            self.watchdog.stop()
            if started:
                _SWITCH.release()
            self._state = ServerState.STOPPED
            self._stopped.set()
        if stuck:
            _log.warning("address=%s handlers_not_ended=%d", self.address, stuck)
        _log.info("address=%s state=stopped cancelled=%d", self.address, left)
        return stuck

    def hurry(self) -> None:
        """Ends a running drain's grace now."""
        self._hurry.set()

    def _wait_idle(self, grace_s: float) -> int:
        """Waits in short pieces, so that `hurry` is noticed."""
        deadline_s = time.monotonic() + grace_s
        while True:
            left_s = 0.0 if self._hurry.is_set() else deadline_s - time.monotonic()
            calls = self._dispatch.admission.wait_idle(_OURS, min(0.1, max(0.0, left_s)))
            if calls == 0 or left_s <= 0:
                return calls


_RUNNING_STATES = (ServerState.BOUND, ServerState.STARTING, ServerState.SERVING)


class _SwitchInterval:
    """The interpreter's switch interval, short while any server of this process runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._before_s = 0.0

    def hold(self) -> None:
        with self._lock:
            if self._holders == 0:
                self._before_s = sys.getswitchinterval()
                sys.setswitchinterval(SWITCH_INTERVAL_S)
            self._holders += 1

    def release(self) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                sys.setswitchinterval(self._before_s)


_SWITCH = _SwitchInterval()


class StopSignals:
    """SIGTERM and SIGINT as events instead of a sudden end. For a process' main thread.

    From `with` to its end; the signals' former handlers come back.
    """

    def __init__(self, numbers: Sequence[signal.Signals] = _STOPPING) -> None:
        self._numbers = numbers
        # A SimpleQueue may be put to by a signal handler that interrupts its own get().
        self._happened: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._before: dict[signal.Signals, Any] = {}
        self.seen: str | None = None
        """The newest signal's name; None: none came yet."""

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._handle) for number in self._numbers}
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._happened.put(signal.Signals(number).name)

    def wait(self) -> str:
        """The name of a signal that came, or comes."""
        if self.seen is None:
            self.seen = self._next()
        return self.seen

    def while_running(self, work: Callable[[], T], on_signal: Callable[[], None]) -> T:
        """What `work` returns or raises; it runs in a thread of its own, and each signal until
        its end calls `on_signal` in this one, which is to make the end come soon.

        Where the system gives no more threads `work` runs here: a node without memory is to
        drain all the same, if without hearing a second signal.
        """
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - a future carries whatever was raised
                future.set_exception(error)
            finally:
                self._happened.put("")

        thread = threading.Thread(target=run, name="geostore-work")
        try:
            thread.start()
        except RuntimeError as error:
            _log.warning("thread=%s was not started: %s", thread.name, error)
            return work()
        while name := self._next():
            self.seen = name
            on_signal()
        thread.join()
        return future.result()

    def _next(self) -> str:
        """Waits in pieces: a signal that reaches one of gRPC's threads does not wake this one."""
        while True:
            try:
                return self._happened.get(timeout=0.2)
            except queue.Empty:
                continue


def run_until_signal(
    server: NodeServer,
    *,
    grace_s: float = 30.0,
    on_ready: Callable[[], None] | None = None,
    on_signal: Callable[[], None] | None = None,
    signals: StopSignals | None = None,
) -> int:
    """Waits for SIGTERM or SIGINT, drains and returns 0. For a process' main thread.

    A second signal ends the grace. `on_ready` runs when signals are handled (say the address
    here: who reads it may send one at once). `on_signal` runs before the drain (leave the ring's
    watchers, stop background work). `signals` has been listened to since the start; one that
    came meanwhile counts.
    """
    with ExitStack() as opened:
        heard = signals or opened.enter_context(StopSignals())
        if heard.seen is None and on_ready is not None:
            on_ready()
        _log.info("address=%s signal=%s", server.address, heard.wait())

        def drain() -> None:
            if on_signal is not None:
                on_signal()
            server.drain(grace_s)

        heard.while_running(drain, server.hurry)
    return 0
