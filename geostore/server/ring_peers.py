"""The nodes of the ring as this one calls them: itself directly, the others by gRPC."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from geostore.errors import GeostoreError, NotFoundError, StaleRingError, UnavailableError
from geostore.node.member import Member
from geostore.node.peer import Peer
from geostore.query import Explain, LeafQuery, is_over
from geostore.ring import Ring
from geostore.rpc import messages as wire
from geostore.rpc.client import NodeClient
from geostore.rpc.transport import Channels
from geostore.rpc.v1 import common_pb2
from geostore.types import CallContext, RowBatch

__all__ = ["RingPeers"]

RING_CALL_S = 2.0
"""A ring is small: a node that takes longer is told later."""

Stale = Callable[["OtherNode", StaleRingError], None]


class OtherNode(NodeClient):
    """Another node. When it says that our ring is old, the newer one is fetched first: whoever
    tries again after the error plans with it.
    """

    def __init__(self, channels: Channels, address: str, head: Any, on_stale: Stale) -> None:
        super().__init__(channels.channel(address), address, head)
        self._on_stale = on_stale

    def _send(self, call: CallContext, method: Callable[..., Any], request: Any) -> Any:
        try:
            return super()._send(call, method, request)
        except StaleRingError as error:
            self._on_stale(self, error)
            raise

    def take_ring(self, call: CallContext, ring: Ring) -> int:
        """As NodeClient, within a short time: nodes that hang must not hold up a join."""
        left_s = call.time_left_s()
        timeout_s = RING_CALL_S if left_s is None else min(left_s, RING_CALL_S)
        return super().take_ring(CallContext.within(timeout_s, request_id=call.request_id), ring)

    def leaf_query(
        self, call: CallContext, request: LeafQuery, explain: Explain | None = None
    ) -> Iterator[RowBatch]:
        return _Rows(
            super().leaf_query(call, request, explain), lambda error: self._on_stale(self, error)
        )


class _Rows(Iterator[RowBatch]):
    """A stream of rows whose first word may be that our ring is old."""

    def __init__(
        self, rows: Iterator[RowBatch], on_stale: Callable[[StaleRingError], None]
    ) -> None:
        self._rows = rows
        self._on_stale = on_stale

    def __next__(self) -> RowBatch:
        try:
            return next(self._rows)
        except StaleRingError as error:
            self._on_stale(error)
            raise

    @property
    def is_over(self) -> bool:
        """See `geostore.query.is_over`."""
        return is_over(self._rows)

    def close(self) -> None:
        """Ends the call."""
        close = getattr(self._rows, "close", None)
        if close is not None:
            close()


class RingPeers:
    """`geostore.node.peer.Peers` over channels, by the current ring's addresses.

    `own` is set once, before the first call.
    """

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._own: Member | None = None
        self._lock = threading.Lock()
        self._others: dict[str, OtherNode] = {}

    def set_own(self, member: Member) -> None:
        """The node that calls."""
        self._own = member

    @property
    def own(self) -> Member:
        if self._own is None:
            raise UnavailableError("this node is starting: it has no ring yet")
        return self._own

    def peer(self, node_id: str) -> Peer:
        """One object a node, as long as its address stays. Raises UnavailableError: no such."""
        if self._own is not None and node_id == self._own.own_id:
            return self._own
        return self.other(node_id)

    def other(self, node_id: str) -> OtherNode:
        """As `peer`, for the other nodes."""
        try:
            address = self.own.ring().node(node_id).address
        except NotFoundError as error:
            raise UnavailableError(str(error)) from None
        with self._lock:
            known = self._others.get(node_id)
            if known is not None and known.address == address:
                return known
            made = OtherNode(self._channels, address, self._head, self._fetch_newer)
            self._others[node_id] = made
        if known is not None:
            self._channels.forget(known.address)
        return made

    def _head(self, call: CallContext) -> common_pb2.RequestHead:
        ring = self.own.ring()
        return wire.make_head(call, ring.cluster_id, ring.epoch)

    def _fetch_newer(self, other: OtherNode, error: StaleRingError) -> None:
        if error.epoch is not None and error.epoch <= self.own.ring().epoch:
            return
        with suppress(GeostoreError):  # the caller is told of the stale ring all the same
            call = CallContext.within(RING_CALL_S)
            self.own.take_ring(call, other.get_ring(call))
