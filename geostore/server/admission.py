"""Who gets a thread, who waits, and who is told to come back later.

gRPC's sync server hands every call to a thread pool that queues without bound. Here each
call class has a pool of its own, and a call is counted before it is queued: a full class
refuses at once, from gRPC's polling thread, without taking any pool's thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import grpc

from geostore.errors import UnavailableError
from geostore.metrics import (
    REGISTRY,
    SERVER_REFUSED_REQUESTS,
    SERVER_RUNNING_REQUESTS,
    SERVER_WAITING_REQUESTS,
)
from geostore.server.limits import CallClass, PoolSize

__all__ = ["Admission", "CallPool", "InlinePool", "Refusal"]

P = ParamSpec("P")
T = TypeVar("T")

_RETRY_MIN_S = 0.05
_RETRY_MAX_S = 5.0
_SMOOTHING = 0.1
"""Weight of the newest call in the mean duration that retry hints are made from."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call was not taken: full (RESOURCE_EXHAUSTED) or closed (UNAVAILABLE)."""

    code: grpc.StatusCode
    error: UnavailableError


class CallPool(ThreadPoolExecutor):
    """One call class' threads, with a bound on calls that run and wait.

    A place is reserved first and given back when the submitted call has ended, was
    cancelled while it waited, or never ran because the pool was shut down.
    """

    def __init__(self, call_class: CallClass, size: PoolSize, after_call: Callable[[], None]):
        super().__init__(max_workers=size.threads, thread_name_prefix=f"geostore-{call_class}")
        self.call_class = call_class
        self.size = size
        self._after_call = after_call
        self._state = threading.Condition()
        self._calls = 0
        self._running = 0
        self._mean_s = 0.0

    def reserve(self) -> bool:
        """Takes a place for a call that will be submitted; False if there is none."""
        with self._state:
            if self._calls >= self.size.calls_max:
                return False
            self._calls += 1
            self._tell()
            return True

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queues a call that has a place."""

        def served() -> T:
            start_s = time.monotonic()
            with self._state:
                self._running += 1
                self._tell()
            try:
                return fn(*args, **kwargs)
            finally:
                self._after_call()
                self._ran(time.monotonic() - start_s)

        try:
            future = super().submit(served)
        except RuntimeError:  # shut down
            self._release()
            raise
        future.add_done_callback(lambda _: self._release())
        return future

    def calls(self) -> int:
        """Calls that have a place: running and waiting."""
        with self._state:
            return self._calls

    def wait_idle(self, timeout_s: float) -> int:
        """Waits until no call has a place; the number that still have one."""
        with self._state:
            self._state.wait_for(lambda: self._calls == 0, max(0.0, timeout_s))
            return self._calls

    def retry_after_s(self) -> float:
        """About when a place will be free: the waiting calls' share of the threads' time."""
        with self._state:
            waiting = max(1, self._calls - self._running)
            estimate_s = self._mean_s * waiting / self.size.threads
        return min(_RETRY_MAX_S, max(_RETRY_MIN_S, estimate_s))

    def _ran(self, seconds: float) -> None:
        with self._state:
            self._running -= 1
            self._mean_s += _SMOOTHING * (seconds - self._mean_s)

    def _release(self) -> None:
        with self._state:
            self._calls -= 1
            self._tell()
            if self._calls == 0:
                self._state.notify_all()

    def _tell(self) -> None:
        labels = (str(self.call_class),)
        REGISTRY.set(SERVER_RUNNING_REQUESTS, self._running, labels=labels)
        REGISTRY.set(SERVER_WAITING_REQUESTS, self._calls - self._running, labels=labels)


class InlinePool(ThreadPoolExecutor):
    """Runs what it is given at once, in the caller's thread: for answers that never block.

    gRPC accepts a ThreadPoolExecutor a method; this one starts no thread.
    """

    def __init__(self) -> None:
        super().__init__(max_workers=1)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - a future carries whatever was raised
            future.set_exception(error)
        return future


class Admission:
    """The pools of all call classes, and which classes are open."""

    def __init__(
        self, pools: Mapping[CallClass, PoolSize], *, after_call: Callable[[], None]
    ) -> None:
        self.pools = {
            call_class: CallPool(call_class, pools[call_class], after_call)
            for call_class in CallClass
        }
        self._closed: dict[CallClass, UnavailableError] = {}

    def close(self, classes: Collection[CallClass], error: UnavailableError) -> None:
        """Refuses new calls of these classes with `error`; running and waiting ones stay."""
        self._closed = {**self._closed, **dict.fromkeys(classes, error)}

    def open_all(self) -> None:
        self._closed = {}

    def admit(self, call_class: CallClass) -> Refusal | None:
        """Reserves a place in the class' pool, or says why there is none."""
        refusal = self._refusal(call_class)
        if refusal is not None:
            labels = (str(call_class), refusal.code.name)
            REGISTRY.add(SERVER_REFUSED_REQUESTS, labels=labels)
        return refusal

    def _refusal(self, call_class: CallClass) -> Refusal | None:
        closed = self._closed.get(call_class)
        if closed is not None:
            return Refusal(grpc.StatusCode.UNAVAILABLE, closed)
        pool = self.pools[call_class]
        if pool.reserve():
            return None
        retry_after_s = pool.retry_after_s()
        error = UnavailableError(
            f"{pool.size.calls_max} {call_class} calls run or wait here already: "
            f"try again in {retry_after_s:.2g} s, or ask another node",
            retry_after_s=retry_after_s,
        )
        return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, error)

    def wait_idle(self, classes: Collection[CallClass], timeout_s: float) -> int:
        """Waits until no call of these classes is left; the number that are."""
        deadline_s = time.monotonic() + timeout_s
        return sum(
            self.pools[call_class].wait_idle(deadline_s - time.monotonic())
            for call_class in classes
        )

    def shutdown(self) -> None:
        """Ends idle threads and drops waiting calls; never waits."""
        for pool in self.pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
