"""Signals as events: what runs meanwhile, what they end, and who had them before."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from geostore.server.lifecycle import StopSignals


def test_a_signal_is_told_while_work_runs_and_its_value_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    asked = threading.Event()

    def work() -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.wait(60)
        return "done"

    with StopSignals() as signals:
        assert signals.seen is None
        assert signals.while_running(work, asked.set) == "done"
        assert signals.seen == "SIGTERM"
        assert signals.wait() == "SIGTERM"  # it came, though nobody waited
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_work_raises_is_raised() -> None:
    def work() -> None:
        raise KeyError("it")

    with StopSignals() as signals, pytest.raises(KeyError, match="it"):
        signals.while_running(work, lambda: None)


def test_without_a_thread_to_be_had_the_work_is_done_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with StopSignals() as signals:
        assert signals.while_running(lambda: 7, lambda: None) == 7
