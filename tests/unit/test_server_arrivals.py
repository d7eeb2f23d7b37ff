"""Large puts take turns; ordinary ones are always let in."""

from __future__ import annotations

import queue
import threading
import time

import pytest

from geostore.errors import UnavailableError
from geostore.server.arrivals import Arrivals
from geostore.server.call import Call, leave_call, serve_call
from geostore.server.limits import CallClass

PATIENCE_S = 30.0


def test_ordinary_calls_never_wait() -> None:
    arrivals = Arrivals(call_bytes_max=10, turn_wait_s=0.0)
    with arrivals.arrival() as large:
        large.expect(11)
        for _ in range(100):
            with arrivals.arrival() as ordinary:
                ordinary.expect(4)
                ordinary.expect(6)


def test_large_calls_take_turns() -> None:
    arrivals = Arrivals(call_bytes_max=10, turn_wait_s=PATIENCE_S)
    order: queue.SimpleQueue[str] = queue.SimpleQueue()

    def second() -> None:
        with arrivals.arrival() as arrival:
            arrival.expect(11)
            order.put("second")

    with arrivals.arrival() as arrival:
        arrival.expect(6)
        arrival.expect(6)
        arrival.expect(60)  # once it has its turn it is not asked again
        thread = threading.Thread(target=second)
        thread.start()
        order.put("first")
    thread.join(PATIENCE_S)
    assert [order.get(timeout=PATIENCE_S) for _ in range(2)] == ["first", "second"]


def test_who_waits_too_long_is_told_to_come_back() -> None:
    arrivals = Arrivals(call_bytes_max=10, turn_wait_s=0.0)
    with arrivals.arrival() as large:
        large.expect(11)
        with (
            arrivals.arrival() as other,
            pytest.raises(UnavailableError, match="more than 10 bytes of tiles") as caught,
        ):
            other.expect(12)
        assert caught.value.retry_after_s == 1.0
    with arrivals.arrival() as other:  # the failed one took no turn, the first gave its own back
        other.expect(12)


def test_a_cancelled_call_waits_no_longer() -> None:
    arrivals = Arrivals(call_bytes_max=10, turn_wait_s=3600.0)
    call = Call("/t/Put", CallClass.COORDINATED, "", start_s=time.monotonic())
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()

    def wait() -> None:
        serve_call(call)
        try:
            with arrivals.arrival() as arrival:
                arrival.expect(12)
        except UnavailableError as error:
            ended.put(str(error))
        finally:
            leave_call()

    with arrivals.arrival() as large:
        large.expect(11)
        thread = threading.Thread(target=wait)
        thread.start()
        call.cancel()
        assert "cancelled" in ended.get(timeout=PATIENCE_S)
        thread.join(PATIENCE_S)
