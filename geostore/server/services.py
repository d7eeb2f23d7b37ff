"""The gRPC services of one node over its member, and each call's class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import grpc

from geostore.config import parse_listen
from geostore.errors import InvalidInputError
from geostore.ring import Ring, RingNode
from geostore.rpc import messages as wire
from geostore.rpc.v1 import (
    node_pb2,
    node_pb2_grpc,
    ring_pb2,
    ring_pb2_grpc,
    store_pb2,
    store_pb2_grpc,
)
from geostore.server.limits import CallClass
from geostore.server.services_calls import Door
from geostore.server.services_node import NodeService
from geostore.server.services_store import StoreService

__all__ = ["CALL_CLASSES", "SERVICE_NAMES", "Door", "RingService", "add_services", "request_id_of"]

Context = grpc.ServicerContext

NODE_TEXT_CHARACTERS_MAX = 260
"""Of a node's name and the like; the longest host name has 253."""

_SERVICES = (
    (store_pb2.DESCRIPTOR.services_by_name["StoreService"], CallClass.COORDINATED),
    (node_pb2.DESCRIPTOR.services_by_name["NodeService"], CallClass.LEAF),
    (ring_pb2.DESCRIPTOR.services_by_name["RingService"], CallClass.CONTROL),
)

SERVICE_NAMES: tuple[str, ...] = tuple(service.full_name for service, _ in _SERVICES)

CALL_CLASSES: Mapping[str, CallClass] = MappingProxyType(
    {
        f"/{service.full_name}/{method.name}": call_class
        for service, call_class in _SERVICES
        for method in service.methods
    }
)


class RingService(ring_pb2_grpc.RingServiceServicer):
    """The control calls: answered however busy the node is.

    `state` says how far the server is, which the member does not know.
    """

    def __init__(self, door: Door, state: Callable[[], str]) -> None:
        self._door = door
        self._state = state

    def GetRing(  # noqa: N802 - the wire's names, here and below
        self, request: ring_pb2.GetRingRequest, context: Context
    ) -> ring_pb2.GetRingResponse:
        self._door.begin_for_stranger(request.head, context)
        member = self._door.member
        return ring_pb2.GetRingResponse(
            ring_json=wire.dump_json(member.ring().to_json()), node_id=member.own_id
        )

    def TakeRing(  # noqa: N802
        self, request: ring_pb2.TakeRingRequest, context: Context
    ) -> ring_pb2.TakeRingResponse:
        # Its sender names the ring's own cluster: take_ring compares it with this node's.
        call = self._door.begin_for_stranger(request.head, context)
        ring = Ring.from_json(wire.load_json(request.ring_json, "ring"))
        return ring_pb2.TakeRingResponse(epoch=self._door.member.take_ring(call, ring))

    def Join(  # noqa: N802
        self, request: ring_pb2.JoinRequest, context: Context
    ) -> ring_pb2.JoinResponse:
        call = self._door.begin_for_stranger(request.head, context)
        newcomer = _newcomer(request)
        ring = self._door.member.join(call, newcomer)
        return ring_pb2.JoinResponse(ring_json=wire.dump_json(ring.to_json()))

    def GetNodeStatus(  # noqa: N802
        self, request: ring_pb2.GetNodeStatusRequest, context: Context
    ) -> ring_pb2.GetNodeStatusResponse:
        call = self._door.begin_for_stranger(request.head, context)
        status = replace(self._door.member.node_status(call), state=self._state())
        return ring_pb2.GetNodeStatusResponse(status=wire.status_to_wire(status))


def _newcomer(request: ring_pb2.JoinRequest) -> RingNode:
    """Who asks to join, in words that every node can keep, print and call.

    Raises InvalidInputError: a ring with such a node could not be spread.
    """
    texts = {
        "id": request.node_id,
        "name": request.name,
        "zone": request.zone,
        "address": request.address,
    }
    for what, text in texts.items():
        size = len(text)
        is_needed = what != "zone"
        if size > NODE_TEXT_CHARACTERS_MAX or not text.isprintable() or (is_needed and not text):
            raise InvalidInputError(
                f"a node's {what} {text[:40]!r}: expected 1..{NODE_TEXT_CHARACTERS_MAX} printable"
                " characters"
            )
    address = parse_listen(request.address)
    if address.port == 0:
        raise InvalidInputError(
            f"a node's address {request.address!r}: port 0 can be served at, not called"
        )
    return RingNode(request.node_id, request.name, str(address), request.zone)


def add_services(
    server: grpc.Server, door: Door, *, state: Callable[[], str] = lambda: "serving"
) -> None:
    """Has `server` answer for the member behind `door`."""
    store_pb2_grpc.add_StoreServiceServicer_to_server(StoreService(door), server)
    node_pb2_grpc.add_NodeServiceServicer_to_server(NodeService(door), server)
    ring_pb2_grpc.add_RingServiceServicer_to_server(RingService(door, state), server)


def request_id_of(message: Any) -> str | None:
    """The id in a request's head, for the log."""
    head = getattr(message, "head", None)
    return None if head is None else head.request_id
