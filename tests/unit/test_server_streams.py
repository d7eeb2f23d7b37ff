from __future__ import annotations

from typing import Any

from geostore.server.call import Call, CallClass, current_call
from geostore.server.call_log import log_line
from geostore.server.streams import Watchdog


class FakeContext:
    def __init__(self) -> None:
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


def test_the_watchdog_cancels_what_is_overdue_once() -> None:
    now_s = 100.0
    watchdog = Watchdog(clock=lambda: now_s)
    contexts: list[Any] = [FakeContext() for _ in range(3)]
    calls = [Call("/m", CallClass.LEAF, "p", start_s=now_s) for _ in contexts]
    for call, context in zip(calls, contexts, strict=True):
        watchdog.watch(call, context)
    calls[0].patience_end_s = 110.0
    calls[1].patience_end_s = 200.0
    now_s = 110.0
    assert watchdog.check() == 0
    now_s = 110.1
    assert watchdog.check() == 1
    assert watchdog.check() == 0
    assert [context.cancelled for context in contexts] == [1, 0, 0]
    watchdog.forget(calls[1])
    now_s = 1000.0
    assert watchdog.check() == 0
    summary = calls[0].finish(now_s)
    assert summary.stalled
    assert "reason=stalled" in log_line(summary)
    assert summary.seconds == 900.0


def test_cancellation_is_told_once_and_not_after_the_end() -> None:
    told: list[str] = []
    call = Call("/m", CallClass.LEAF, "p", start_s=0.0)
    call.on_cancel(lambda: told.append("early"))
    call.cancel()
    call.cancel()
    call.on_cancel(lambda: told.append("late"))
    assert told == ["early", "late"]
    assert call.finish(1.0).status == "CANCELLED"
    ended = Call("/m", CallClass.LEAF, "p", start_s=0.0)
    ended.on_cancel(lambda: told.append("never"))
    assert ended.finish(1.0).status == "OK"
    ended.cancel()
    assert not ended.is_cancelled()
    assert told == ["early", "late"]


def test_a_failing_callback_keeps_no_other_from_being_told() -> None:
    told: list[str] = []
    call = Call("/m", CallClass.LEAF, "p", start_s=0.0)
    call.on_cancel(lambda: told.remove("absent"))
    call.on_cancel(lambda: told.append("second"))
    call.cancel()
    assert told == ["second"]


def test_a_thread_without_a_call_has_one_that_nobody_cancels() -> None:
    current_call().check()
    assert not current_call().is_cancelled()
