"""One call while it is served: who asks, since when, how far, and whether anybody still waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from geostore.errors import UnavailableError
from geostore.server.limits import CallClass

__all__ = ["Call", "CallSummary", "current_call", "leave_call", "serve_call", "served_call"]

_log = logging.getLogger(__name__)
_THREAD = threading.local()

Callback = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSummary:
    """What is said of a call when it has ended."""

    method: str
    call_class: CallClass
    peer: str
    request_id: str
    status: str
    seconds: float
    rows: int
    bytes: int
    stalled: bool


class Call:
    """What a handler may ask and tell about the call it serves: see `current_call`.

    Thread-safe: gRPC's own thread tells of cancellation, the watchdog of stalls, while the
    handler's thread and any that it started look.
    """

    def __init__(self, method: str, call_class: CallClass, peer: str, *, start_s: float) -> None:
        self.method = method
        self.call_class = call_class
        self.peer = peer
        self.request_id = ""
        self.start_s = start_s
        self.status = "OK"
        self.rows = 0
        self.sent_bytes = 0
        self.patience_end_s: float | None = None
        """Set while the client is waited for: when it ends, on the watchdog's clock."""
        self.closing: Callback | None = None
        """Ends the handler's generator."""
        self._lock = threading.Lock()
        self._callbacks: list[Callback] = []
        self._cancelled = False
        self._finished = False
        self._stalled = False

    def note(self, *, rows: int = 0) -> None:
        """Adds to what the call's log line reports."""
        self.rows += rows

    def is_cancelled(self) -> bool:
        """Whether nobody waits for the answer: cancelled, past its deadline, or gone."""
        return self._cancelled

    def check(self) -> None:
        """Raises UnavailableError: the call is cancelled. For loops that take long."""
        if self._cancelled:
            raise UnavailableError(f"{self.method}: cancelled, or its deadline has passed")

    def on_cancel(self, callback: Callback) -> None:
        """Has `callback` called once if the call is cancelled before its handler ends.

        At once if it is cancelled already; else in gRPC's thread: it must be quick and
        must not block (wake a waiting thread, cancel calls to other nodes).
        """
        with self._lock:
            if not self._cancelled:
                self._callbacks.append(callback)
                return
        callback()

    def cancel(self) -> None:
        """Told by gRPC that the call is over; nothing happens if its handler has ended."""
        with self._lock:
            if self._finished or self._cancelled:
                return
            self._cancelled = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback()
            except Exception:  # noqa: BLE001 - one handler's callback must not end the server's thread
                _log.exception("method=%s a cancellation callback failed", self.method)

    def stall(self) -> None:
        """Told by the watchdog that the client was waited for in vain."""
        self._stalled = True

    def finish(self, now_s: float) -> CallSummary:
        """The handler has ended: cancellation comes too late from here on."""
        with self._lock:
            self._finished = True
            self._callbacks = []
        self.patience_end_s = None
        return CallSummary(
            method=self.method,
            call_class=self.call_class,
            peer=self.peer,
            request_id=self.request_id,
            status="CANCELLED" if self._cancelled else self.status,
            seconds=max(0.0, now_s - self.start_s),
            rows=self.rows,
            bytes=self.sent_bytes,
            stalled=self._stalled,
        )


def current_call() -> Call:
    """The call that this thread serves.

    A thread that serves none gets a call that nobody cancels, so that handlers can be
    called without a server. Threads that a handler starts are handed the call.
    """
    return served_call() or Call("", CallClass.CONTROL, "", start_s=0.0)


def served_call() -> Call | None:
    """The call that this thread serves, if any."""
    call = getattr(_THREAD, "call", None)
    return call if isinstance(call, Call) else None


def serve_call(call: Call) -> None:
    """This thread serves `call` from here on."""
    _THREAD.call = call


def leave_call() -> None:
    """This thread serves none any more."""
    _THREAD.call = None
