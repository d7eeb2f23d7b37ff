"""The process's metrics as a page that Prometheus reads, on a port of its own.

Plain HTTP, read-only, one client at a time, each with little time: on loopback unless told,
as the page says how a node is used.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from socketserver import BaseServer
from typing import Any, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.core import (
    Metric as Family,
)
from prometheus_client.registry import Collector

from geostore.config import HostPort
from geostore.metrics import REGISTRY, Labels, Metric, Registry, Sample
from geostore.server.listening import bind_error

__all__ = ["MetricsPage"]

_PREFIX = "geostore_"
_CLIENT_TIMEOUT_S = 5.0


class MetricsPage:
    """Serves `/metrics` until `close`.

    `refresh` is called before each reading: it sets the gauges that nobody keeps current.

    Raises:
        ConflictError: the port is in use.
        InvalidInputError: the address is not this machine's.
    """

    def __init__(
        self,
        listen: HostPort,
        *,
        registry: Registry = REGISTRY,
        refresh: Callable[[], None] = lambda: None,
    ) -> None:
        collectors = CollectorRegistry(auto_describe=False)
        collectors.register(_Collector(registry, refresh))
        try:
            self._server = _server_class(listen)((listen.host, listen.port), _QuickHandler)
        except OSError as error:
            raise bind_error(listen, error) from error
        self._server.set_app(make_wsgi_app(collectors))
        self.address = HostPort(listen.host, self._server.server_port)
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="geostore-metrics",
            daemon=True,
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops serving and frees the port; a second time does nothing."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _server_class(listen: HostPort) -> type[WSGIServer]:
    import socket

    class PageServer(WSGIServer):
        address_family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET

        def server_bind(self) -> None:
            # Without the reverse look-up of our own name that the stock one does.
            from socketserver import TCPServer

            TCPServer.server_bind(self)
            self.server_name = listen.host
            self.server_port = int(self.server_address[1])
            self.setup_environ()

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that hangs up or is slow is its own business."""

    return PageServer


class _QuickHandler(WSGIRequestHandler):
    timeout = _CLIENT_TIMEOUT_S

    def __init__(self, request: Any, client_address: Any, server: BaseServer) -> None:
        super().__init__(request, client_address, server)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Readings are not worth a line each."""


class _Collector(Collector):
    """Turns the registry into families of samples, at each reading."""

    def __init__(self, registry: Registry, refresh: Callable[[], None]) -> None:
        self._registry = registry
        self._refresh = refresh

    def collect(self) -> Iterator[Family]:
        self._refresh()
        for metric, series in self._registry.series().items():
            yield _family(metric, series)


def _family(metric: Metric, series: dict[Labels, Sample]) -> Family:
    name, text = _PREFIX + metric.name, metric.description
    if metric.kind == "gauge":
        gauge = GaugeMetricFamily(name, text, labels=metric.labels)
        for labels, sample in series.items():
            gauge.add_metric(labels, sample.total)
        return gauge
    if metric.kind == "counter":
        counter = CounterMetricFamily(name, text, labels=metric.labels)
        for labels, sample in series.items():
            counter.add_metric(labels, sample.total)
        return counter
    if not metric.bounds:
        summary = SummaryMetricFamily(name, text, labels=metric.labels)
        for labels, sample in series.items():
            summary.add_metric(labels, count_value=sample.count, sum_value=sample.total)
        return summary
    histogram = HistogramMetricFamily(name, text, labels=metric.labels)
    for labels, sample in series.items():
        histogram.add_metric(labels, _cumulative(metric, sample), sum_value=sample.total)
    return histogram


def _cumulative(metric: Metric, sample: Sample) -> list[tuple[str, float]]:
    """Prometheus' buckets count everything up to their bound."""
    names = [*(str(bound) for bound in metric.bounds), "+Inf"]
    total, buckets = 0, []
    for name, count in zip(names, sample.buckets, strict=True):
        total += count
        buckets.append((name, float(total)))
    return buckets
