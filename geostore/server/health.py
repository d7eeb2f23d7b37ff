"""grpc.health.v1: whether this node takes calls, for load balancers, probes and `status`.

The messages are the standard ones; the servicer is our own, because the stock one sends to
watchers while it holds the lock that checks need: one watcher that stops reading would
silence them all.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from geostore.errors import NotFoundError
from geostore.server.call import Call, current_call
from geostore.server.limits import CallClass

__all__ = ["HEALTH_CLASSES", "HealthService"]

HEALTH_CLASSES: Mapping[str, CallClass] = MappingProxyType(
    {
        "/grpc.health.v1.Health/Check": CallClass.HEALTH,
        "/grpc.health.v1.Health/Watch": CallClass.HEALTH_WATCH,
    }
)

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class HealthService(health_pb2_grpc.HealthServicer):
    """Says the same of the whole server ("") and of each service named at its creation."""

    def __init__(self, services: tuple[str, ...] = ()) -> None:
        self._services = frozenset(services) | {""}
        self._changed = threading.Condition()
        self._serving = False
        self._closed = False

    def add_to(self, server: grpc.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self, server)

    def set_serving(self, serving: bool) -> None:
        with self._changed:
            self._serving = serving
            self._changed.notify_all()

    def close(self) -> None:
        """Ends every watcher's stream."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def is_serving(self) -> bool:
        return self._serving

    # The names are the wire's.
    def Check(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        del context
        if request.service not in self._services:
            raise NotFoundError(f"no service {request.service[:100]!r} on this node")
        return health_pb2.HealthCheckResponse(status=self._status(request.service))

    def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> Iterator[health_pb2.HealthCheckResponse]:
        del context
        call = current_call()
        call.on_cancel(self._wake)
        told: int | None = None
        while (status := self._news(request.service, told, call)) is not None:
            told = status
            yield health_pb2.HealthCheckResponse(status=status)

    def _news(self, service: str, told: int | None, call: Call) -> int | None:
        """Waits for another status than `told`; None when the stream is to end."""

        def is_over() -> bool:
            return self._closed or call.is_cancelled()

        with self._changed:
            self._changed.wait_for(lambda: is_over() or self._status(service) != told)
            status = self._status(service)
            return None if is_over() and status == told else status

    def _status(self, service: str) -> int:
        if service not in self._services:
            return _UNKNOWN
        return _SERVING if self._serving else _NOT_SERVING

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
