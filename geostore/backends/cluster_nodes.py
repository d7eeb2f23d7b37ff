"""How a client reaches the nodes of a cluster: the ring, and where a call is tried next."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from geostore.config import Settings, Target
from geostore.errors import (
    ConflictError,
    CorruptDataError,
    GeostoreError,
    InvalidInputError,
    ReadOnlyError,
    StaleRingError,
    StorageFullError,
    UnavailableError,
    WrongClusterError,
)
from geostore.ring import Ring, RingNode, slot_of
from geostore.rpc.client import HeadFactory, NodeClient
from geostore.rpc.messages import make_head
from geostore.rpc.transport import PLAINTEXT, Channels, Security, TlsFiles
from geostore.types import CallContext

__all__ = ["ClusterNodes", "Connect", "Tries", "home_of", "security_of"]

Connect = Callable[[str], NodeClient]
"""A client of the node at an address; who connects owns what it stands on."""

RING_TIMEOUT_S = 5.0
"""For one node's answer to "which ring?"."""
SEED_TIMEOUT_S = 2.0
"""As RING_TIMEOUT_S, for an address that the ring does not have."""
SEEDS_ASKED_MAX = 8
ROUNDS_MAX = 4
"""How often a call goes through the nodes that may answer it."""
WAIT_FIRST_S = 0.1
"""Before the second round; twice that before the third, and so on."""
WAIT_MAX_S = 2.0
"""Before a round, also where a node asks for more."""

_Answer = TypeVar("_Answer")


def home_of(record: str) -> Callable[[Ring], Sequence[RingNode]]:
    """The one node that may change a record, as candidates of a call."""
    slot = slot_of(record)
    return lambda ring: (ring.first_of(slot),)


def security_of(settings: Settings) -> Security:
    """How connections are protected by a user's settings.

    Raises InvalidInputError: some of the three TLS files, but not all, or TLS and insecure.
    """
    files = (settings.tls_cert, settings.tls_key, settings.tls_ca)
    if all(files):
        cert, key, ca = files
        return Security(TlsFiles(str(cert), str(key), str(ca)), settings.insecure)  # type: ignore[arg-type]
    if any(files):
        raise InvalidInputError(
            f"TLS: got tls_cert {files[0]!r}, tls_key {files[1]!r}, tls_ca {files[2]!r}; expected"
            " all three: nodes and their clients know each other by certificates"
        )
    return Security(insecure=settings.insecure)


class ClusterNodes:
    """The nodes of one cluster as its ring names them. Thread-safe; goes on after a fork.

    The ring is fetched when first needed, kept, and fetched again when a node says that it is
    old or a node cannot be reached. It is always of the cluster that answered first.
    """

    def __init__(
        self,
        target: Target,
        *,
        security: Security = PLAINTEXT,
        connect: Connect | None = None,
        rounds_max: int = ROUNDS_MAX,
        wait_first_s: float = WAIT_FIRST_S,
    ) -> None:
        self.name = str(target)
        self.rounds_max = rounds_max
        self.wait_first_s = wait_first_s
        self._seeds = tuple(str(host) for host in target.hosts)
        self._channels = Channels(security)
        self._connect = connect or self._connect_channel
        self._ring: Ring | None = None
        self._entry = ""
        """Address of the node that answered for the whole cluster last."""
        self._start_anew()
        _OPEN.add(self)

    def _start_anew(self) -> None:
        """Also in a forked child, where the parent's threads and connections are not."""
        self._clients: dict[str, NodeClient] = {}
        self._fetching = threading.Lock()
        self._closed = threading.Event()

    def _leave_to_parent(self) -> None:
        was_closed = self._closed.is_set()
        _PARENTS.append(self._clients)
        self._start_anew()
        if was_closed:
            self._closed.set()

    def _connect_channel(self, address: str) -> NodeClient:
        return NodeClient(self._channels.channel(address), address, self._make_head_factory())

    def _make_head_factory(self) -> HeadFactory:
        def head(call: CallContext) -> Any:
            ring = self._ring
            if ring is None:
                return make_head(call)
            return make_head(call, ring.cluster_id, ring.epoch)

        return head

    def check_open(self) -> None:
        """Raises InvalidInputError: closed."""
        if self._closed.is_set():
            raise InvalidInputError(f"store {self.name} is closed")

    def close(self) -> None:
        """Ends all calls; harmless when closed."""
        self._closed.set()
        self._channels.close()

    # ------------------------------------------------------------ the ring

    def client(self, address: str) -> NodeClient:
        self.check_open()
        client = self._clients.get(address)
        if client is None:
            client = self._clients.setdefault(address, self._connect(address))
        return client

    def ring(self, call: CallContext) -> Ring:
        """The ring as last heard of."""
        return self._ring or self.refresh(call, None)

    def refresh(self, call: CallContext, known: Ring | None, *, ask_first: str = "") -> Ring:
        """The ring as the nodes have it now; at worst `known` again.

        Asks `ask_first`, then every address there is until one has a newer ring than `known`.

        Raises:
            UnavailableError: nobody answered and no ring is known; it names everyone asked.
            WrongClusterError: those that answered belong to another cluster.
        """
        self.check_open()
        left_s = call.time_left_s()
        if not self._fetching.acquire(timeout=-1 if left_s is None else left_s):
            raise UnavailableError(f"store {self.name}: its ring was not fetched in time")
        try:
            if self._ring is not None and (known is None or self._ring.epoch > known.epoch):
                return self._ring  # another thread's fetch
            return self._fetch(call, ask_first)
        finally:
            self._fetching.release()

    def _fetch(self, call: CallContext, ask_first: str) -> Ring:
        failures: dict[str, GeostoreError] = {}
        is_answered = False
        for address in self._addresses(ask_first):
            left_s = call.time_left_s()
            if left_s == 0.0:
                break
            timeout_s = RING_TIMEOUT_S if left_s is None else min(RING_TIMEOUT_S, left_s)
            one = CallContext.within(timeout_s, request_id=call.request_id)
            try:
                ring = self.client(address).get_ring(one)
                self._check_cluster(address, ring)
            except (UnavailableError, ConflictError) as error:
                failures[address] = error
                continue
            is_answered = True
            if self._ring is None or ring.epoch > self._ring.epoch:
                self._ring = ring
                self._entry = self._entry or address
                break
        if self._ring is not None and (is_answered or not failures):
            return self._ring
        said = "; ".join(
            _with_place(f"node {address}", error) for address, error in failures.items()
        )
        text = f"store {self.name}: no node gave its ring: {said or 'no time was left to ask'}"
        conflict = next((e for e in failures.values() if isinstance(e, ConflictError)), None)
        if conflict is not None:
            raise type(conflict)(text)
        raise UnavailableError(text)

    def check_seeds(self, call: CallContext) -> None:
        """Asks the given addresses that the ring does not have which cluster they are of.

        One that does not answer soon is left alone: it may be down, or an old address.

        Raises:
            WrongClusterError: one belongs to another cluster, which would answer for this one
                on a day when the others are down.
        """
        known = {node.address for node in self.ring(call).nodes}
        strangers = [address for address in self._seeds if address not in known]
        for address in strangers[:SEEDS_ASKED_MAX]:
            one = CallContext.within(SEED_TIMEOUT_S, request_id=call.request_id)
            with suppress(UnavailableError):
                self._check_cluster(address, self.client(address).get_ring(one))

    def _check_cluster(self, address: str, ring: Ring) -> None:
        if self._ring is not None and ring.cluster_id != self._ring.cluster_id:
            raise WrongClusterError(
                f"node {address} belongs to cluster {ring.cluster_id!r}, expected"
                f" {self._ring.cluster_id!r}, that of the other addresses: name nodes of one"
                " cluster"
            )

    def _addresses(self, ask_first: str) -> list[str]:
        known = [node.address for node in self._ring.nodes] if self._ring else []
        first = [ask_first] if ask_first else []
        return list(dict.fromkeys([*first, *self._seeds, *known]))

    def entries(self, ring: Ring) -> Sequence[RingNode]:
        """All nodes, for what any of them can answer: the one that answered last comes first."""
        return sorted(ring.nodes, key=lambda node: node.address != self._entry)

    def prefer(self, address: str) -> None:
        """The node at `address` answers for the cluster."""
        self._entry = address

    def wait(self, seconds: float) -> None:
        """Waits before another round; ends at once when closed."""
        self._closed.wait(seconds)

    def ask(
        self,
        what: str,
        candidates: Callable[[Ring], Sequence[RingNode]],
        timeout_s: float,
        act: Callable[[NodeClient, CallContext], _Answer],
        *,
        tolerated: tuple[type[GeostoreError], ...] = (),
        is_repeatable: bool = True,
    ) -> _Answer:
        """The answer of the first of the candidates that gives one.

        `timeout_s` bounds each try. Errors other than UnavailableError and `tolerated` are
        answers too. Not `is_repeatable`: after a try that may have been done, none follows.
        """
        tries = Tries(self, what, candidates, timeout_s)
        caught: tuple[type[GeostoreError], ...] = (UnavailableError, *tolerated)
        for node, client, call in tries:
            try:
                return act(client, call)
            except caught as error:
                tries.note(node, error)
                if not is_repeatable and not isinstance(error, StaleRingError):
                    raise
        raise tries.error()


class Tries:
    """The nodes to try for one call, in turn, with a bound; and what came of each.

    The ring is fetched anew between rounds, and at once when a node says that it is old.
    """

    def __init__(
        self,
        nodes: ClusterNodes,
        what: str,
        candidates: Callable[[Ring], Sequence[RingNode]],
        timeout_s: float,
    ) -> None:
        self._nodes = nodes
        self._what = what
        self._candidates = candidates
        self._timeout_s = timeout_s
        self._call = CallContext.within(timeout_s * nodes.rounds_max)
        self._failures: dict[RingNode, GeostoreError] = {}
        self._stale_at = ""

    def __iter__(self) -> Iterator[tuple[RingNode, NodeClient, CallContext]]:
        for number in range(self._nodes.rounds_max):
            ring = self._nodes.ring(self._call)
            self._stale_at = ""
            for node in self._candidates(ring):
                left_s = self._call.time_left_s() or 0.0
                if left_s == 0.0:
                    return
                timeout_s = min(self._timeout_s, left_s)
                call = CallContext.within(timeout_s, request_id=self._call.request_id)
                yield node, self._nodes.client(node.address), call
                if self._stale_at:
                    break
            if not self._unreached() or number == self._nodes.rounds_max - 1:
                return
            self._prepare_round(ring, number)

    def _prepare_round(self, ring: Ring, number: int) -> None:
        newer = self._nodes.refresh(self._call, ring, ask_first=self._stale_at)
        if newer.epoch > ring.epoch:
            self._failures.clear()
            return
        asked_s = [error.retry_after_s or 0.0 for error in self._unreached()]
        wait_s = max(self._nodes.wait_first_s * 2**number, min(asked_s))
        left_s = self._call.time_left_s() or 0.0
        self._nodes.wait(min(wait_s, WAIT_MAX_S, left_s))
        self._nodes.check_open()

    def _unreached(self) -> list[UnavailableError]:
        return [e for e in self._failures.values() if isinstance(e, UnavailableError)]

    def note(self, node: RingNode, error: GeostoreError) -> None:
        """The try at `node` ended with `error`.

        Raises `error` itself where no other try can help: a full or failed disk.
        """
        if isinstance(error, StorageFullError | ReadOnlyError):
            raise error
        self._failures[node] = error
        if isinstance(error, StaleRingError):
            self._stale_at = node.address

    def error(self) -> GeostoreError:
        """What to raise when no try succeeded: the least final that was said."""
        kinds = (UnavailableError, CorruptDataError, GeostoreError)
        for kind in kinds:
            errors = [e for e in self._failures.values() if isinstance(e, kind)]
            if errors and kind is not UnavailableError:
                return errors[0]
            if errors:
                break
        said = "; ".join(
            f"{node.name}: {_with_place(f'node {node.address}', error)}"
            for node, error in self._failures.items()
        )
        return UnavailableError(
            f"store {self._nodes.name}: {self._what}: {said or 'no time was left'}"
        )


def _with_place(place: str, error: GeostoreError) -> str:
    """The error's text, with where it happened unless it says so itself."""
    text = str(error)
    return text if text.startswith(place) else f"{place}: {text}"


_OPEN: weakref.WeakSet[ClusterNodes] = weakref.WeakSet()
_PARENTS: list[dict[str, NodeClient]] = []
"""In a forked child: the parent's clients, kept so that nothing of theirs is closed here."""


def _leave_all_to_parent() -> None:
    for nodes in list(_OPEN):
        nodes._leave_to_parent()  # noqa: SLF001  # the same module


os.register_at_fork(after_in_child=_leave_all_to_parent)
