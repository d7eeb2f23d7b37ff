"""A storage node as a process: its data, its port, its place in a ring, until a signal."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from geostore.config import HostPort, parse_listen
from geostore.errors import GeostoreError, InvalidInputError
from geostore.metrics import (
    NODE_FREE_BYTES,
    NODE_HELD_BYTES,
    NODE_HELD_TILES,
    NODE_OWNED_SLOTS,
    REGISTRY,
)
from geostore.node import Node
from geostore.node.member import Member
from geostore.ring import Ring, RingNode, found_ring
from geostore.rpc.transport import (
    PLAINTEXT,
    UNREAD_BYTES,
    Channels,
    Security,
    TlsFiles,
    open_channel,
    server_credentials,
)
from geostore.server.joining import (
    check_alone,
    check_called,
    check_empty,
    check_joined,
    check_options,
    join_ring,
)
from geostore.server.lifecycle import NodeServer, ServerState, StopSignals, run_until_signal
from geostore.server.limits import CallClass
from geostore.server.listening import allow_files
from geostore.server.ring_file import RingFile
from geostore.server.ring_keeper import RingKeeper
from geostore.server.ring_peers import RingPeers
from geostore.server.services import (
    CALL_CLASSES,
    SERVICE_NAMES,
    Door,
    add_services,
    request_id_of,
)
from geostore.types import CallContext

__all__ = ["NodeOptions", "run_node"]

_log = logging.getLogger(__name__)

GRACE_S = 30.0
THREAD_STACK_BYTES = 2 << 20
"""Of up to some 80 threads. The system's own default is mostly 8 MiB, which counts in full
where the memory that a process may allocate is limited."""
OPEN_FILES = 8192
"""Room for the connections that limits.py allows, and as much for tiles and peers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """What a node is started with.

    Raises:
        InvalidInputError: an address is none, others could not call this node, or `replicas`
            is not 1 or more.
    """

    data: Path
    listen: HostPort
    advertise: HostPort | None = None
    """Where others call it, port 0: at the port of `listen`; None: at `listen`."""
    join: tuple[str, ...] = ()
    """Nodes of the ring to join; none: found one. A node that has a ring stays in it."""
    name: str | None = None
    """For people; default: the start of its id."""
    zone: str = ""
    replicas: int | None = None
    """Of the ring that it founds, default 1."""
    security: Security = PLAINTEXT
    metrics_port: int | None = None
    """On loopback; None: no metrics page."""

    def __post_init__(self) -> None:
        called_at = self.advertise or self.listen
        if called_at.is_wildcard:
            raise InvalidInputError(
                f"address {called_at}: other nodes cannot call it there; name the address or"
                " host by which they reach this machine, with --advertise where that is not"
                " where to listen"
            )
        if self.replicas is not None and self.replicas < 1:
            raise InvalidInputError(f"replicas {self.replicas}: expected 1 or more")
        self.security.check_address(called_at)
        for address in self.join:
            self.security.check_address(parse_listen(address))

    def address_at(self, port: int) -> str:
        """Where others call a node that listens at `port`."""
        called_at = self.advertise or self.listen
        return str(HostPort(called_at.host, called_at.port or port))


def run_node(
    data: str | Path,
    listen: str,
    join: Sequence[str] = (),
    *,
    advertise: str | None = None,
    name: str | None = None,
    zone: str = "",
    replicas: int | None = None,
    tls: tuple[Path, Path, Path] | None = None,
    insecure: bool = False,
    metrics_port: int | None = None,
    ready: Callable[[str], None] = lambda _address: None,
) -> int:
    """Serves until SIGTERM or SIGINT, then drains; 0. For a process' main thread.

    A signal that comes before it serves ends the start, and 0 is returned as well. `tls`: PEM
    files of certificate, key and authority. `ready` is told the `HOST:PORT` at which others
    call the node, when it serves.

    Raises:
        InvalidInputError, NotFoundError, StoreLockedError, CorruptDataError,
        StoreFormatError: it cannot start, and why.
        ConflictError: its port is in use, its ring is another one than `join`'s, or differs
            from what `name`, `zone` or `replicas` say.
        UnavailableError: no node that it was told to join took it in.
    """
    options = NodeOptions(
        data=Path(data),
        listen=parse_listen(listen),
        advertise=None if advertise is None else parse_listen(advertise),
        join=tuple(str(parse_listen(address)) for address in join),
        name=name,
        zone=zone,
        replicas=replicas,
        security=Security(None if tls is None else TlsFiles(*tls), insecure),
        metrics_port=metrics_port,
    )
    with StopSignals() as signals, ExitStack() as opened:
        opened.callback(threading.stack_size, threading.stack_size(THREAD_STACK_BYTES))
        start = _Start(options, opened)
        try:
            signals.while_running(start.run, start.stop)
        except (GeostoreError, ValueError) as error:
            if signals.seen is None:
                raise
            # The calls that it waited for were cut off, each with an error of its own.
            _log.warning("signal=%s ended the start: %s", signals.seen, error)
            return 0
        return start.serve(signals, ready)


class _Start:
    """A node from its port to its place in a ring. `opened` closes all of it.

    `run` works in a thread; `stop`, called from another, has it end soon, by an error.
    """

    def __init__(self, options: NodeOptions, opened: ExitStack) -> None:
        self._options = options
        self._opened = opened
        self._door = Door()
        self._stopping = threading.Event()
        self._channels = Channels(
            options.security, open_one=partial(open_channel, unread_bytes=UNREAD_BYTES)
        )
        opened.callback(self._channels.close)
        self._server: NodeServer | None = None
        self._keeper: RingKeeper | None = None
        self._member: Member | None = None

    def run(self) -> None:
        """Raises what `run_node` does."""
        options, opened = self._options, self._opened
        allow_files(OPEN_FILES)
        # The ports first: a second node with the same command fails before it touches anything.
        server = self._server = self._listen()
        opened.callback(server.drain, 0.0)  # where the start fails
        self._show_metrics()
        node = opened.enter_context(Node(options.data, lock_now=True, is_member=True))
        address = options.address_at(server.address.port)
        # Whom we join may call back at once: until the door opens it is told that we start.
        server.start(closed=(CallClass.COORDINATED,))
        if options.join and not node.directory.is_member():
            check_empty(node)  # before the directory is marked as a node's
        file = RingFile(node)
        peers = RingPeers(self._channels)
        ring = self._ring(file, address)
        member = Member(node, own_id=file.node_id, ring=ring, peers=peers, save_ring=file.save)
        opened.callback(member.close)
        peers.set_own(member)
        keeper = self._keeper = RingKeeper(
            member, peers=peers, channels=self._channels, address=address, join=options.join
        )
        opened.callback(keeper.stop)
        opened.callback(server.drain, 0.0)  # before what its calls stand on is closed
        self._member = member
        self._door.open(member, keeper.wake)
        if options.advertise is not None or options.security.tls is not None:
            check_called(replace(ring.node(file.node_id), address=address), self._channels)
        if keeper.take_turn():
            keeper.wake()

    def stop(self) -> None:
        """Ends what `run` waits for. Harmless at any moment and more than once."""
        self._stopping.set()
        self._channels.close()
        if self._keeper is not None:
            self._keeper.stop()

    def serve(self, signals: StopSignals, ready: Callable[[str], None]) -> int:
        """Serves until a signal, after `run`; 0."""
        assert self._server is not None
        assert self._keeper is not None
        if signals.seen is None:
            self._keeper.start()
            self._server.serve()
        address = self._options.address_at(self._server.address.port)
        return run_until_signal(
            self._server,
            grace_s=GRACE_S,
            on_ready=lambda: ready(address),
            on_signal=self._keeper.stop,
            signals=signals,
        )

    def _listen(self) -> NodeServer:
        options, door = self._options, self._door

        def state() -> str:
            return ServerState.STARTING if self._server is None else self._server.state

        return NodeServer(
            listen=options.listen,
            services=[lambda grpc_server: add_services(grpc_server, door, state=state)],
            classes=CALL_CLASSES,
            request_id_of=request_id_of,
            credentials=server_credentials(options.security),
            insecure=options.security.insecure,
            service_names=SERVICE_NAMES,
        )

    def _show_metrics(self) -> None:
        if self._options.metrics_port is None:
            return
        from geostore.server.metrics_page import MetricsPage  # 3.5 MB that few nodes need

        listen = HostPort("127.0.0.1", self._options.metrics_port)
        page = self._opened.enter_context(MetricsPage(listen, refresh=self._gauge))
        _log.info("metrics=http://%s/metrics", page.address)

    def _gauge(self) -> None:
        """Sets the gauges that nobody keeps current."""
        if self._member is None:
            return
        status = self._member.node_status(CallContext())
        REGISTRY.set(NODE_OWNED_SLOTS, status.slots)
        REGISTRY.set(NODE_HELD_TILES, status.tiles)
        REGISTRY.set(NODE_HELD_BYTES, status.bytes)
        REGISTRY.set(NODE_FREE_BYTES, status.disk_free_bytes)

    def _ring(self, file: RingFile, address: str) -> Ring:
        """The node's ring: as it knows it, that of those it joins, or a new one; saved."""
        options, ring = self._options, file.ring
        if ring is not None:
            check_options(file, ring, options.name, options.zone, options.replicas)
            check_alone(ring.node(file.node_id), address, self._channels)
            others = [other for other in options.join if other != address]
            check_joined(others, ring, self._channels)
            return ring
        own = RingNode(file.node_id, options.name or file.node_id[:8], address, options.zone)
        if options.join:
            others = [other for other in options.join if other != address]
            if not others:
                raise InvalidInputError(
                    f"--join {address}: that is this node itself; leave --join out to found a"
                    " cluster, or name a node of the one to join"
                )
            ring = join_ring(
                others, own, self._channels, replicas=options.replicas, stopping=self._stopping
            )
        else:
            ring = found_ring(own, cluster_id=uuid.uuid4().hex, replicas=options.replicas or 1)
        file.save(ring)
        return ring
