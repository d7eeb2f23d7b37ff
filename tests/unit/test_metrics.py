from __future__ import annotations

import threading

import pytest

from geostore import metrics
from geostore.metrics import Metric, Registry, Sample


def test_every_name_ends_in_its_unit_and_is_used_once() -> None:
    known = [value for value in vars(metrics).values() if isinstance(value, Metric)]
    assert len(known) > 5
    assert len({metric.name for metric in known}) == len(known)
    assert all(metric.name.endswith(f"_{metric.unit}") for metric in known)


def test_a_name_without_its_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="ending in _bytes"):
        Metric("node_put", "counter", "bytes", "x")
    with pytest.raises(ValueError, match="timers count seconds"):
        Metric("node_put_bytes", "timer", "bytes", "x")


def test_counters_add_up_over_threads() -> None:
    registry = Registry()
    metric = Metric("x_bytes", "counter", "bytes", "x")

    def add() -> None:
        for _ in range(1000):
            registry.add(metric, 2)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert registry.read(metric) == Sample(8000, 4000, 2)
    assert registry.snapshot() == {"x_bytes": Sample(8000, 4000, 2)}
    registry.reset()
    assert registry.snapshot() == {}


def test_timers_count_what_failed_too_and_nothing_shrinks() -> None:
    registry = Registry()
    metric = Metric("x_seconds", "timer", "seconds", "x")
    with pytest.raises(KeyError), registry.timed(metric):
        raise KeyError
    assert registry.read(metric).count == 1
    with pytest.raises(ValueError, match="only grow"):
        registry.add(metric, -1)
