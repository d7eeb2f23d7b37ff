"""A node's place in a ring: taken in by the founder, or found again as it was."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from geostore.errors import (
    ConflictError,
    GeostoreError,
    UnavailableError,
    WrongClusterError,
)
from geostore.node import Node
from geostore.ring import Ring, RingNode
from geostore.rpc.client import NodeClient
from geostore.rpc.transport import Channels
from geostore.server.ring_file import RingFile
from geostore.server.ring_peers import RING_CALL_S
from geostore.types import CallContext

__all__ = [
    "JOIN_S",
    "check_alone",
    "check_called",
    "check_empty",
    "check_joined",
    "check_options",
    "join_ring",
]

_log = logging.getLogger(__name__)

JOIN_S = 60.0
"""How long a new node tries to be taken in: the founder may be starting too."""
_JOIN_CALL_S = 15.0
_RETRY_S = 0.25
_RETRY_MAX_S = 4.0


def check_options(
    file: RingFile, ring: Ring, name: str | None, zone: str, replicas: int | None
) -> None:
    """Raises ConflictError: the node was told to be another one than the ring's."""
    own = ring.node(file.node_id)
    told = (
        ("--name", name, own.name, "a node keeps the name that it joined with"),
        ("--zone", zone or None, own.zone, "a node keeps the zone that it joined with"),
        ("--replicas", replicas, ring.replicas, "they are fixed when a ring is founded"),
    )
    for option, wanted, known, why in told:
        if wanted is not None and wanted != known:
            raise ConflictError(
                f"{option} {wanted}: in its ring, {file.path}, this node has {known!r}, and"
                f" {why}; leave {option} out or give what the ring has"
            )


def check_empty(node: Node) -> None:
    """Raises ConflictError: there are, or were, datasets that the ring to join does not know."""
    datasets, ended = node.datasets(), node.known_datasets.deleted()
    if datasets or ended:
        plural = "dataset" if len(datasets) == 1 else "datasets"
        raise ConflictError(
            f"{node.directory.root}: it holds {len(datasets)} {plural} and the marks of"
            f" {len(ended)} deleted, which cannot be brought into another cluster; give an empty"
            " --data to join"
        )


def check_alone(own: RingNode, address: str, channels: Channels) -> None:
    """Asks at the address that the node had before whether it serves there still.

    Raises:
        ConflictError: it is served there still, from another copy of its directory. Each of the
            two would take a part of what is written.
    """
    if own.address == address:
        return
    try:
        call = CallContext.within(RING_CALL_S)
        there = NodeClient(channels.channel(own.address), own.address).node_status(call)
    except GeostoreError as error:  # nobody, somebody else, or not by our security
        _log.info("address=%s was left for %s: %s", own.address, address, error)
        return
    if there.id == own.id:
        raise ConflictError(
            f"node {own.name} serves at {own.address} already, from another copy of this"
            " directory; stop it first, and start only one of the two again"
        )


def check_called(own: RingNode, channels: Channels) -> None:
    """Calls this node, which answers by now, where others are to call it.

    That it fails is a warning: not every network leads back to where it came from.

    Raises:
        ConflictError: another node answers there.
    """
    try:
        call = CallContext.within(RING_CALL_S)
        there = NodeClient(channels.channel(own.address), own.address).node_status(call)
    except GeostoreError as error:
        _log.warning(
            "address=%s: this node does not reach itself there, so others may not either; check"
            " --advertise and, with TLS, the hosts that its certificate names: %s",
            own.address,
            error,
        )
        return
    if there.id != own.id:
        raise ConflictError(
            f"address {own.address}: node {there.name} answers there, not this one; check"
            " --advertise"
        )


def check_joined(addresses: Sequence[str], ring: Ring, channels: Channels) -> None:
    """Asks those named by --join: one that does not answer may be starting, too.

    Raises:
        WrongClusterError: one is of another cluster than this node's ring.
    """
    for address in addresses:
        try:
            other = _ring_at(address, channels, RING_CALL_S)
        except UnavailableError as error:
            _log.info("--join %s is not checked: %s", address, error)
            continue
        except GeostoreError as error:
            _log.warning("--join %s is of no use: %s", address, error)
            continue
        if other.cluster_id != ring.cluster_id:
            raise WrongClusterError(
                f"--join {address}: that node is of cluster {other.cluster_id}, and this one's"
                f" --data of {ring.cluster_id}; leave --join out to go on with that data, or"
                " give an empty --data to join"
            )


def join_ring(
    addresses: Sequence[str],
    own: RingNode,
    channels: Channels,
    timeout_s: float = JOIN_S,
    *,
    replicas: int | None = None,
    stopping: threading.Event | None = None,
) -> Ring:
    """The ring with `own` in it, from the founder that any of `addresses` names.

    Raises:
        UnavailableError: nobody took it in before the time was over, or `stopping` was set.
        ConflictError: the founder will not have it, or its ring has other than `replicas`.
    """
    deadline_s, pause_s = time.monotonic() + timeout_s, _RETRY_S
    waiting = stopping or threading.Event()
    while True:
        failures: list[str] = []
        for address in addresses:
            try:
                return _ask_to_join(address, own, channels, replicas)
            except UnavailableError as error:
                failures.append(str(error))
        if time.monotonic() + pause_s >= deadline_s:
            raise UnavailableError(
                f"no node took {own.name!r} in within {timeout_s:g} s: {'; '.join(failures)}"
            )
        _log.info("name=%s is not in a ring yet: %s", own.name, "; ".join(failures))
        if waiting.wait(pause_s):
            raise UnavailableError(f"{own.name!r} was stopped while it waited to be taken in")
        pause_s = min(_RETRY_MAX_S, 2 * pause_s)


def _ask_to_join(address: str, own: RingNode, channels: Channels, replicas: int | None) -> Ring:
    ring = _ring_at(address, channels, _JOIN_CALL_S)
    if replicas is not None and replicas != ring.replicas:
        raise ConflictError(
            f"--replicas {replicas}: the cluster at {address} was founded with {ring.replicas};"
            " leave --replicas out or give that"
        )
    founder = ring.node(ring.founder).address
    return NodeClient(channels.channel(founder), founder).join(
        CallContext.within(_JOIN_CALL_S),
        node_id=own.id,
        name=own.name,
        address=own.address,
        zone=own.zone,
    )


def _ring_at(address: str, channels: Channels, timeout_s: float) -> Ring:
    call = CallContext.within(timeout_s)
    return NodeClient(channels.channel(address), address).get_ring(call)
