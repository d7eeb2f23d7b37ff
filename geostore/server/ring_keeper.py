"""What a node does by itself, now and then: settle its scenes, spread and fetch rings."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence

from geostore.errors import ConflictError, GeostoreError
from geostore.node.member import Member
from geostore.ring import Ring, RingNode
from geostore.rpc.client import NodeClient
from geostore.rpc.transport import Channels
from geostore.server.ring_peers import RING_CALL_S, RingPeers
from geostore.types import CallContext

__all__ = ["RingKeeper"]

_log = logging.getLogger(__name__)

BUSY_PERIOD_S = 3.0
"""Between turns while something is open."""
IDLE_PERIOD_S = 30.0
"""Between turns while nothing is: as long as a lease, after which an attempt may be open."""
SETTLE_S = 20.0


class RingKeeper:
    """One thread that takes turns until `stop`.

    `address` is where this node can be called; `join` are addresses that may know the ring
    when those in it have changed.
    """

    def __init__(
        self,
        member: Member,
        *,
        peers: RingPeers,
        channels: Channels,
        address: str,
        join: Sequence[str] = (),
    ) -> None:
        self._member = member
        self._peers = peers
        self._channels = channels
        self._address = address
        self._join = tuple(join)
        self._told: dict[str, tuple[str, int]] = {}
        """By node id: the address and epoch of the last ring that it took from here."""
        self._awake = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="geostore-keeper", daemon=True)

    def start(self) -> None:
        """Takes turns from now on."""
        self._thread.start()

    def wake(self) -> None:
        """Has the next turn begin now. Never blocks."""
        self._awake.set()

    def stop(self) -> None:
        """Ends the thread after the turn that it is at; harmless before `start`."""
        self._stopped.set()
        self._awake.set()
        if self._thread.is_alive():
            self._thread.join(SETTLE_S)

    def take_turn(self) -> bool:
        """Does all that is due; whether something is left for the next turn."""
        steps: tuple[Callable[[], bool], ...] = (
            self._fetch_ring,
            self._announce,
            self._spread_ring,
            self._settle,
        )
        left = [self._tried(step) for step in steps if not self._stopped.is_set()]
        return any(left)

    def _run(self) -> None:
        period_s = BUSY_PERIOD_S
        while not self._stopped.is_set():
            self._awake.wait(period_s)
            self._awake.clear()
            period_s = BUSY_PERIOD_S if self.take_turn() else IDLE_PERIOD_S

    @staticmethod
    def _tried(step: Callable[[], bool]) -> bool:
        try:
            return step()
        except GeostoreError as error:
            _log.warning("step=%s is tried again later: %s", step.__name__.strip("_"), error)
        except Exception:  # noqa: BLE001 - one step's bug must not end the others
            _log.exception("step=%s failed by a bug", step.__name__.strip("_"))
        return True

    # ------------------------------------------------------------ steps
    def _fetch_ring(self) -> bool:
        """Takes the founder's ring; from others if it cannot be asked."""
        ring = self._member.ring()
        if ring.founder == self._member.own_id:
            return False
        for ask in self._askers(ring):
            call = CallContext.within(RING_CALL_S)
            try:
                self._member.take_ring(call, ask(call))
            except ConflictError as error:
                _log.warning("a ring was not taken: %s", error)
            except GeostoreError as error:
                _log.info("the ring was not fetched: %s", error)
            else:
                return False
        return True

    def _askers(self, ring: Ring) -> Iterator[Callable[[CallContext], Ring]]:
        """The founder first, then whom we were told to join, then the others."""
        yield self._peers.other(ring.founder).get_ring
        for address in self._join:
            if address != self._address:
                yield NodeClient(self._channels.channel(address), address).get_ring
        for node in ring.nodes:
            if node.id not in (ring.founder, self._member.own_id):
                yield self._peers.other(node.id).get_ring

    def _announce(self) -> bool:
        """Has the founder put our address into the ring, if it is another one there."""
        member, ring = self._member, self._member.ring()
        own = ring.node(member.own_id)
        if own.address == self._address:
            return False
        call = CallContext.within(SETTLE_S)
        if ring.founder == member.own_id:
            member.join(call, RingNode(own.id, own.name, self._address, own.zone))
        else:
            changed = self._peers.other(ring.founder).join(
                call, node_id=own.id, name=own.name, address=self._address, zone=own.zone
            )
            member.take_ring(call, changed)
        return False

    def _spread_ring(self) -> bool:
        """The founder tells those who have not taken the newest ring."""
        ring, left = self._member.ring(), False
        if ring.founder != self._member.own_id:
            return False
        for node in ring.nodes:
            if node.id == self._member.own_id:
                continue
            if self._told.get(node.id) == (node.address, ring.epoch):
                continue
            try:
                self._peers.other(node.id).take_ring(CallContext.within(RING_CALL_S), ring)
                self._told[node.id] = (node.address, ring.epoch)
            except GeostoreError as error:
                _log.info("node=%s has not taken epoch=%d: %s", node.name, ring.epoch, error)
                left = True
        return left

    def _settle(self) -> bool:
        call = CallContext.within(SETTLE_S)
        unknown = self._member.resolve_staged(call)
        return bool(self._member.settle(call) or unknown)
