from __future__ import annotations

import socket
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from geostore.config import HostPort
from geostore.errors import ConflictError
from geostore.metrics import Metric, Registry
from geostore.server.metrics_page import MetricsPage

LOOPBACK = HostPort("127.0.0.1", 0)
COUNTER = Metric("x_requests", "counter", "requests", "asked", ("method",))
GAUGE = Metric("x_slots", "gauge", "slots", "held")
PLAIN_TIMER = Metric("x_put_seconds", "timer", "seconds", "one put")
TIMER = Metric("x_seconds", "timer", "seconds", "one call", bounds=(0.1, 1.0))


def read(page: MetricsPage) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    with urllib.request.urlopen(f"http://{page.address}/metrics", timeout=30) as reply:
        text = reply.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_page_says_what_the_registry_counts() -> None:
    registry = Registry()
    registry.add(COUNTER, 3, labels=("/a",))
    registry.add(PLAIN_TIMER, 0.5)
    for seconds in (0.05, 0.1, 0.7, 2.0):
        registry.add(TIMER, seconds)
    with MetricsPage(LOOPBACK, registry=registry, refresh=lambda: registry.set(GAUGE, 7)) as page:
        said = read(page)
    assert said["geostore_x_requests_total", (("method", "/a"),)] == 3
    assert said["geostore_x_slots", ()] == 7
    assert said["geostore_x_put_seconds_sum", ()] == 0.5
    assert said["geostore_x_put_seconds_count", ()] == 1
    buckets = [
        said["geostore_x_seconds_bucket", (("le", bound),)] for bound in ("0.1", "1.0", "+Inf")
    ]
    assert buckets == [2, 3, 4]
    assert said["geostore_x_seconds_sum", ()] == pytest.approx(2.85)


def test_garbage_does_not_end_the_page_and_closing_frees_the_port() -> None:
    registry = Registry()
    registry.add(PLAIN_TIMER, 1)
    page = MetricsPage(LOOPBACK, registry=registry)
    with socket.create_connection((page.address.host, page.address.port)) as garbage:
        garbage.sendall(bytes(range(256)) + b"\r\n\r\n")
    assert read(page)
    with pytest.raises(ConflictError, match="is in use"):
        MetricsPage(page.address)
    page.close()
    page.close()
    MetricsPage(page.address).close()
