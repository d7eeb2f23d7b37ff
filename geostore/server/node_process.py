"""A storage node as a process: its data, its port, its place in a ring, until a signal."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from geostore.config import HostPort, parse_listen
from geostore.errors import InvalidInputError, UnavailableError
from geostore.node import Node
from geostore.node.member import Member
from geostore.ring import Ring, RingNode, found_ring
from geostore.rpc.client import NodeClient
from geostore.rpc.transport import PLAINTEXT, Channels, Security, TlsFiles, server_credentials
from geostore.server.lifecycle import NodeServer, run_until_signal
from geostore.server.limits import CallClass
from geostore.server.metrics_page import MetricsPage
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

__all__ = ["JOIN_S", "NodeOptions", "run_node"]

_log = logging.getLogger(__name__)

JOIN_S = 60.0
"""How long a new node tries to be taken in: the founder may be starting too."""
_JOIN_CALL_S = 15.0
_RETRY_S = 0.25
_RETRY_MAX_S = 4.0
GRACE_S = 30.0
_WILDCARDS = frozenset({"0.0.0.0", "::", "*", ""})  # noqa: S104 - refused, not listened at


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """What a node is started with.

    Raises:
        InvalidInputError: an address is none, or `replicas` is not 1 or more.
    """

    data: Path
    listen: HostPort
    join: tuple[str, ...] = ()
    """Nodes of the ring to join; none: found one. A node that has a ring stays in it."""
    name: str | None = None
    """For people; default: the start of its id."""
    zone: str = ""
    replicas: int = 1
    """Of the ring that it founds."""
    security: Security = PLAINTEXT
    metrics_port: int | None = None
    """On loopback; None: no metrics page."""

    def __post_init__(self) -> None:
        if self.listen.host in _WILDCARDS:
            raise InvalidInputError(
                f"address {self.listen}: other nodes cannot call it there; name the address or"
                " host by which they reach this machine"
            )
        if self.replicas < 1:
            raise InvalidInputError(f"replicas {self.replicas}: expected 1 or more")
        for address in self.join:
            self.security.check_address(parse_listen(address))


def run_node(
    data: str | Path,
    listen: str,
    join: Sequence[str] = (),
    *,
    name: str | None = None,
    zone: str = "",
    replicas: int = 1,
    tls: tuple[Path, Path, Path] | None = None,
    insecure: bool = False,
    metrics_port: int | None = None,
    ready: Callable[[str], None] = lambda _address: None,
) -> int:
    """Serves until SIGTERM or SIGINT, then drains; 0. For a process' main thread.

    `tls`: PEM files of certificate, key and authority. `ready` is told `HOST:PORT` when the
    node serves.

    Raises:
        InvalidInputError, NotFoundError, StoreLockedError, ConflictError, CorruptDataError,
        StoreFormatError: it cannot start, and why.
        UnavailableError: no node that it was told to join took it in.
    """
    options = NodeOptions(
        data=Path(data),
        listen=parse_listen(listen),
        join=tuple(str(parse_listen(address)) for address in join),
        name=name,
        zone=zone,
        replicas=replicas,
        security=Security(None if tls is None else TlsFiles(*tls), insecure),
        metrics_port=metrics_port,
    )
    with ExitStack() as opened:
        return _serve(options, opened, ready)


def _serve(options: NodeOptions, opened: ExitStack, ready: Callable[[str], None]) -> int:
    door = Door()
    # The port first: a second node with the same command fails before it touches anything.
    server = NodeServer(
        listen=options.listen,
        services=[lambda grpc_server: add_services(grpc_server, door, state=lambda: server.state)],
        classes=CALL_CLASSES,
        request_id_of=request_id_of,
        credentials=server_credentials(options.security),
        insecure=options.security.insecure,
        service_names=SERVICE_NAMES,
    )
    opened.callback(server.drain, 0.0)  # where the start fails
    node = opened.enter_context(Node(options.data, lock_now=True, is_member=True))
    channels = Channels(options.security)
    opened.callback(channels.close)
    if options.metrics_port is not None:
        page = MetricsPage(HostPort("127.0.0.1", options.metrics_port))
        opened.callback(page.close)
    address = str(server.address)
    # Whom we join may call back at once: until the door opens it is told that we start.
    server.start(closed=(CallClass.COORDINATED,))
    file = RingFile(node)
    peers = RingPeers(channels)
    ring = file.ring or _first_ring(options, file, channels, address)
    member = Member(node, own_id=file.node_id, ring=ring, peers=peers, save_ring=file.save)
    opened.callback(member.close)
    peers.set_own(member)
    keeper = RingKeeper(member, peers=peers, channels=channels, address=address, join=options.join)
    opened.callback(keeper.stop)
    opened.callback(server.drain, 0.0)  # before what its calls stand on is closed
    door.open(member, keeper.wake)
    if keeper.take_turn():
        keeper.wake()
    keeper.start()
    server.serve()
    return run_until_signal(
        server, grace_s=GRACE_S, on_ready=lambda: ready(address), on_signal=keeper.stop
    )


def _first_ring(options: NodeOptions, file: RingFile, channels: Channels, address: str) -> Ring:
    """The ring of a node that has none: a new one, or that of those it joins; saved."""
    name = options.name or file.node_id[:8]
    own = RingNode(file.node_id, name, address, options.zone)
    if options.join:
        ring = _join(options.join, own, channels)
    else:
        ring = found_ring(own, cluster_id=uuid.uuid4().hex, replicas=options.replicas)
    file.save(ring)
    return ring


def _join(
    addresses: Sequence[str], own: RingNode, channels: Channels, timeout_s: float = JOIN_S
) -> Ring:
    """The ring with `own` in it, from the founder that any of `addresses` names.

    Raises:
        UnavailableError: nobody took it in before the time was over.
        ConflictError: the founder will not have it.
    """
    deadline_s, pause_s = time.monotonic() + timeout_s, _RETRY_S
    waiting = threading.Event()
    while True:
        failures: list[str] = []
        for address in addresses:
            try:
                return _ask_to_join(address, own, channels)
            except UnavailableError as error:
                failures.append(str(error))
        if time.monotonic() + pause_s >= deadline_s:
            raise UnavailableError(
                f"no node took {own.name!r} in within {timeout_s:g} s: {'; '.join(failures)}"
            )
        _log.info("name=%s is not in a ring yet: %s", own.name, "; ".join(failures))
        waiting.wait(pause_s)
        pause_s = min(_RETRY_MAX_S, 2 * pause_s)


def _ask_to_join(address: str, own: RingNode, channels: Channels) -> Ring:
    call = CallContext.within(_JOIN_CALL_S)
    ring = NodeClient(channels.channel(address), address).get_ring(call)
    founder = ring.node(ring.founder).address
    return NodeClient(channels.channel(founder), founder).join(
        call, node_id=own.id, name=own.name, address=own.address, zone=own.zone
    )
