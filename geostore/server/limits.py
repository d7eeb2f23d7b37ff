"""How much a node takes on at once, in one place: threads, waiting calls, messages, patience."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from geostore.errors import InvalidInputError
from geostore.rpc.transport import MESSAGE_BYTES_MAX

__all__ = [
    "DEFAULT_POOLS",
    "KEYS_BYTES_MAX",
    "CallClass",
    "PoolSize",
    "ServerLimits",
    "channel_options",
]

KEYS_BYTES_MAX = 1 << 20
"""A request that lists tiles. Parsed, a list of empty keys takes 44 times its bytes."""


class CallClass(StrEnum):
    """Calls that may wait for each other are in different classes, which share no thread.

    A coordinated call waits for leaf calls on other nodes, and those nodes' coordinated
    calls wait for leaf calls here: with one pool for both, three nodes of eight threads
    stop for ever under 60 callers. A leaf call calls nobody, so leaf calls always end.
    """

    COORDINATED = "coordinated"
    LEAF = "leaf"
    CONTROL = "control"
    HEALTH = "health"
    HEALTH_WATCH = "health_watch"
    """Watchers stay for as long as they like: apart, so that checks never wait for them."""


@dataclass(frozen=True, slots=True)
class PoolSize:
    """Threads of a call class, and how many calls may run and wait in it together.

    Raises:
        InvalidInputError: no thread, or a limit below the threads.
    """

    threads: int
    calls_max: int

    def __post_init__(self) -> None:
        if self.threads < 1 or self.calls_max < self.threads:
            raise InvalidInputError(
                "a call class needs 1 <= threads <= calls_max, "
                f"got threads={self.threads}, calls_max={self.calls_max}"
            )


DEFAULT_POOLS: Mapping[CallClass, PoolSize] = MappingProxyType(
    {
        CallClass.COORDINATED: PoolSize(16, 128),
        CallClass.LEAF: PoolSize(16, 256),
        CallClass.CONTROL: PoolSize(4, 64),
        CallClass.HEALTH: PoolSize(2, 64),
        CallClass.HEALTH_WATCH: PoolSize(4, 4),
    }
)


DEFAULT_REQUESTS: Mapping[str, int] = MappingProxyType(
    {
        "/geostore.rpc.v1.NodeService/GetTileDetails": KEYS_BYTES_MAX,
        "/geostore.rpc.v1.NodeService/ReadBlocks": KEYS_BYTES_MAX,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """Bounds of one server. Memory is bounded by threads times the largest message.

    Raises:
        InvalidInputError: a class without a pool, or a bound that is not positive.
    """

    pools: Mapping[CallClass, PoolSize] = field(default_factory=lambda: DEFAULT_POOLS)
    message_bytes_max: int = MESSAGE_BYTES_MAX
    """Larger messages end their call with RESOURCE_EXHAUSTED, in both directions."""
    request_bytes_max: Mapping[str, int] = field(default_factory=lambda: DEFAULT_REQUESTS)
    """By method: less than `message_bytes_max` for requests that grow when they are parsed."""
    metadata_bytes_max: int = 32 * 1024
    connections_max: int = 4096
    stall_timeout_s: float = 60.0
    """A client that takes no message for so long loses its call, and its thread is free."""
    request_timeout_s: float = 300.0
    """As `stall_timeout_s`, for a client that sends no message though one is due."""
    handshake_timeout_s: float = 20.0
    """A connection that has not spoken HTTP/2 (and TLS) by then is closed."""
    keepalive_time_s: float = 60.0
    """A silent connection is pinged so often: dead peers are noticed, their calls freed."""
    keepalive_timeout_s: float = 20.0
    client_ping_interval_min_s: float = 10.0
    """A client that pings more often is sent away."""

    def __post_init__(self) -> None:
        missing = set(CallClass) - set(self.pools)
        if missing:
            raise InvalidInputError(f"limits: no pool for the call classes {sorted(missing)}")
        for name in self.__slots__:
            value = getattr(self, name)
            if name not in ("pools", "request_bytes_max") and value <= 0:
                raise InvalidInputError(f"limits: {name} must be positive, got {value}")

    @property
    def streams_per_connection_max(self) -> int:
        """More than can be admitted: a health check must not queue behind refused calls.

        Streams above it wait at the client, unseen, whatever their class.
        """
        return sum(size.calls_max for size in self.pools.values()) + 64


def channel_options(limits: ServerLimits) -> tuple[tuple[str, int], ...]:
    """The bounds in gRPC's words."""

    def ms(seconds: float) -> int:
        return max(1, round(seconds * 1000))

    return (
        # Two nodes on one port would each get some of the calls: let the second one fail.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", limits.message_bytes_max),
        ("grpc.max_send_message_length", limits.message_bytes_max),
        ("grpc.max_metadata_size", limits.metadata_bytes_max),
        ("grpc.absolute_max_metadata_size", 2 * limits.metadata_bytes_max),
        ("grpc.max_concurrent_streams", limits.streams_per_connection_max),
        ("grpc.max_allowed_incoming_connections", limits.connections_max),
        ("grpc.server_handshake_timeout_ms", ms(limits.handshake_timeout_s)),
        ("grpc.keepalive_time_ms", ms(limits.keepalive_time_s)),
        ("grpc.keepalive_timeout_ms", ms(limits.keepalive_timeout_s)),
        ("grpc.keepalive_permit_without_calls", 1),
        (
            "grpc.http2.min_ping_interval_without_data_ms",
            ms(limits.client_ping_interval_min_s),
        ),
        (
            "grpc.http2.min_recv_ping_interval_without_data_ms",
            ms(limits.client_ping_interval_min_s),
        ),
    )
