"""Clients that stop: a call whose client neither reads nor sends is cancelled in time.

A sync server writes a stream from a pool's thread, which blocks as soon as the client's
flow-control window is full, for as long as the client likes. So one message at a time is
in memory a call, but a few sleeping clients would hold every thread. One watchdog thread
looks at all calls that wait for their client and cancels those that waited too long.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import grpc

from geostore.errors import InvalidInputError
from geostore.metrics import REGISTRY, SERVER_STALLED_REQUESTS
from geostore.server.call import Call

__all__ = ["Requests", "Responses", "Watchdog"]

Clock = Callable[[], float]


class Watchdog:
    """Cancels calls that wait for their client beyond `patience_end_s`.

    `clock` is monotonic, in seconds. `check` is the whole logic; `start` has a daemon
    thread run it several times within `period_s * 4`.
    """

    def __init__(self, *, period_s: float = 1.0, clock: Clock = time.monotonic) -> None:
        self.clock = clock
        self._period_s = period_s
        self._lock = threading.Lock()
        self._calls: dict[Call, grpc.ServicerContext] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, call: Call, context: grpc.ServicerContext) -> None:
        with self._lock:
            self._calls[call] = context

    def forget(self, call: Call) -> None:
        with self._lock:
            self._calls.pop(call, None)

    def check(self) -> int:
        """Cancels what is overdue; how many calls that were."""
        now_s = self.clock()
        with self._lock:
            overdue = [
                (call, context)
                for call, context in self._calls.items()
                if call.patience_end_s is not None and call.patience_end_s < now_s
            ]
            for call, _ in overdue:
                del self._calls[call]
        for call, context in overdue:
            call.stall()
            REGISTRY.add(SERVER_STALLED_REQUESTS, labels=(call.method,))
            context.cancel()
        return len(overdue)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="geostore-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; may be called twice, or without a start."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            self.check()


class Requests:
    """A client's messages, with bounded patience for each.

    `messages` are the bytes that came: they are parsed here, in the thread that serves the
    call, because gRPC would parse them in the one thread that all calls come through, and
    would call those that do not parse our own fault.
    """

    def __init__(
        self,
        call: Call,
        messages: Iterator[bytes],
        *,
        clock: Clock,
        timeout_s: float,
        parse: Callable[[bytes], Any],
        bytes_max: int,
        request_id_of: Callable[[Any], str | None],
    ) -> None:
        self._call = call
        self._messages = messages
        self._parse = parse
        self._bytes_max = bytes_max
        self._clock = clock
        self._timeout_s = timeout_s
        self._request_id_of = request_id_of
        self._first = True

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self._call.patience_end_s = self._clock() + self._timeout_s
        try:
            payload = next(self._messages)
        finally:
            self._call.patience_end_s = None
        message = self._read(payload)
        if self._first:
            self._first = False
            self._call.request_id = self._request_id_of(message) or ""
        return message

    def _read(self, payload: bytes) -> Any:
        if len(payload) > self._bytes_max:
            raise InvalidInputError(
                f"{self._call.method}: a message of {len(payload)} bytes: expected at most"
                f" {self._bytes_max}; ask for less in one call"
            )
        try:
            return self._parse(payload)
        except Exception as error:  # noqa: BLE001 - whatever a parser raises, the bytes are why
            raise InvalidInputError(
                f"{self._call.method}: a message of {len(payload)} bytes does not read as the"
                f" call's request ({type(error).__name__}): expected the messages of"
                " geostore.rpc.v1"
            ) from None


class Responses:
    """A handler's messages, handed to gRPC one by one.

    gRPC asks for the next one when the client has taken the one before: while a message
    is out, the client is waited for. `fail` ends the call when the handler raises.
    """

    def __init__(
        self,
        call: Call,
        messages: Iterator[Any],
        *,
        clock: Clock,
        timeout_s: float,
        fail: Callable[[Exception], NoReturn],
    ) -> None:
        self._call = call
        self._messages = messages
        self._clock = clock
        self._timeout_s = timeout_s
        self._fail = fail

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self._call.patience_end_s = None
        try:
            message = next(self._messages)
        except StopIteration:
            raise
        except Exception as error:  # noqa: BLE001 - told to the client and the log
            self._fail(error)
        self._call.patience_end_s = self._clock() + self._timeout_s
        return message

    def close(self) -> None:
        """Ends a handler's generator in its own thread, so that its `finally` blocks run.

        gRPC only drops the iterator of a call that is over.
        """
        close = getattr(self._messages, "close", None)
        if close is not None:
            close()
