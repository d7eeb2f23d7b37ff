from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_series_of_a_labelled_metric_are_apart() -> None:
    registry = Registry()
    metric = Metric("x_requests", "counter", "requests", "x", ("method", "status"))
    registry.add(metric, labels=("/b", "OK"))
    registry.add(metric, 2, labels=("/a", "OK"))
    registry.add(metric, labels=("/b", "OK"))
    assert registry.read(metric, labels=("/b", "OK")) == Sample(2, 2, 1)
    assert registry.read(metric, labels=("/b", "INTERNAL")) == Sample(0, 0, 0)
    assert list(registry.series()[metric]) == [("/a", "OK"), ("/b", "OK")]
    assert list(registry.snapshot()) == [
        "x_requests{method=/a,status=OK}",
        "x_requests{method=/b,status=OK}",
    ]
    with pytest.raises(ValueError, match="expected labels"):
        registry.add(metric)


def test_gauges_are_set_and_may_fall() -> None:
    registry = Registry()
    gauge = Metric("x_slots", "gauge", "slots", "x")
    registry.set(gauge, 5)
    registry.set(gauge, 2)
    assert registry.read(gauge) == Sample(2, 2, 5)
    with pytest.raises(ValueError, match="set, not added"):
        registry.add(gauge)
    with pytest.raises(ValueError, match="only gauges are set"):
        registry.set(Metric("x_tiles", "counter", "tiles", "x"), 1)


@given(st.lists(st.floats(0, 100, allow_nan=False), max_size=40))
def test_a_histogram_counts_each_observation_once_in_its_place(amounts: list[float]) -> None:
    registry = Registry()
    timer = Metric("x_seconds", "timer", "seconds", "x", bounds=(0.5, 1, 10))
    for amount in amounts:
        registry.add(timer, amount)
    edges = [(-1.0, 0.5), (0.5, 1.0), (1.0, 10.0), (10.0, float("inf"))]
    expected = tuple(sum(low < amount <= high for amount in amounts) for low, high in edges)
    assert registry.read(timer).buckets == (expected if amounts else ())
    assert registry.read(timer).count == len(amounts)


def test_bounds_that_make_no_histogram_are_refused() -> None:
    with pytest.raises(ValueError, match="must rise"):
        Metric("x_seconds", "timer", "seconds", "x", bounds=(1, 0.5))
    with pytest.raises(ValueError, match="only timers"):
        Metric("x_bytes", "counter", "bytes", "x", bounds=(1, 2))
