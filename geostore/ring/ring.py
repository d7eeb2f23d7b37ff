"""The ring as a value: which nodes there are, and which of them hold each slot.

Every node computes placement from the same ring, so a ring is never changed: a change makes a
new one with the next epoch. Nodes are named by lasting ids; addresses may change.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from geostore.errors import ConflictError, InvalidInputError, NotFoundError
from geostore.ring.allocation import (
    owners_joined,
    owners_left,
    slot_weights,
    zone_numbers,
    zones_of,
)
from geostore.ring.slots import SLOTS_TOTAL, slot_of

__all__ = [
    "NODES_MAX",
    "Ring",
    "RingNode",
    "found_ring",
    "with_address",
    "with_node_joined",
    "with_node_left",
]

NODES_MAX = SLOTS_TOTAL
"""More nodes than slots would leave some without any."""

FORMAT = "geostore-ring/1"


@dataclass(frozen=True, slots=True)
class RingNode:
    """A member of the ring."""

    id: str
    """Given once, kept for ever."""
    name: str
    """For people."""
    address: str
    """`host:port`, where it listens now."""
    zone: str = ""
    """What fails together (a rack, a site); empty: the node is a zone of its own."""

    def __post_init__(self) -> None:
        for field in ("id", "name", "address", "zone"):
            value = getattr(self, field)
            if not isinstance(value, str) or (field == "id" and not value):
                raise InvalidInputError(f"a ring node's {field} is {value!r}: expected a text")


@dataclass(frozen=True, slots=True, eq=False)
class Ring:
    """4096 slots and the nodes that hold them, at one epoch.

    Equal rings have equal values, the epoch included.
    """

    cluster_id: str
    epoch: int
    """From 1, one more at each change."""
    replicas: int
    """Copies wanted; there are fewer while there are fewer nodes."""
    founder: str
    """Id of the node that writes epochs."""
    nodes: tuple[RingNode, ...]
    owners: npt.NDArray[np.uint16]
    """(4096, copies), read-only: places in `nodes`; the first column is the first replica."""

    def __post_init__(self) -> None:
        for field in ("epoch", "replicas"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidInputError(f"a ring's {field} is {value!r}: expected 1 or more")
        for field in ("cluster_id", "founder"):
            value = getattr(self, field)
            if not isinstance(value, str) or not value:
                raise InvalidInputError(f"a ring's {field} is {value!r}: expected a text")
        if not 1 <= len(self.nodes) <= NODES_MAX:
            raise InvalidInputError(f"a ring of {len(self.nodes)} nodes: expected 1..{NODES_MAX}")
        shape = (SLOTS_TOTAL, self.copies)
        if self.owners.shape != shape:
            raise InvalidInputError(f"a ring's owners {self.owners.shape}: expected {shape}")
        owners = np.array(self.owners, dtype=np.uint16)
        owners.setflags(write=False)
        object.__setattr__(self, "owners", owners)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ring):
            return NotImplemented
        return self._key() == other._key() and np.array_equal(self.owners, other.owners)

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        return (self.cluster_id, self.epoch, self.replicas, self.founder, self.nodes)

    # ------------------------------------------------------------ questions
    @property
    def copies(self) -> int:
        """Replicas a slot has: as many as wanted, or as there are nodes."""
        return min(self.replicas, len(self.nodes))

    def node(self, node_id: str) -> RingNode:
        """The node of that id.

        Raises:
            NotFoundError: there is none.
        """
        return self.nodes[self._index(node_id)]

    def replicas_of(self, slot: int) -> tuple[RingNode, ...]:
        """The nodes that hold a slot, its first replica first."""
        return tuple(self.nodes[index] for index in self.owners[_checked(slot)].tolist())

    def first_of(self, slot: int) -> RingNode:
        """The slot's first replica: writes pass through it."""
        return self.nodes[int(self.owners[_checked(slot), 0])]

    def slots_of(self, node_id: str) -> npt.NDArray[np.int64]:
        """Slots a node holds, ascending."""
        return np.flatnonzero((self.owners == self._index(node_id)).any(axis=1))

    def first_slots_of(self, node_id: str) -> npt.NDArray[np.int64]:
        """Slots whose first replica a node is, ascending."""
        return np.flatnonzero(self.owners[:, 0] == self._index(node_id))

    def record_slot(self, name: str) -> int:
        """The slot on which a record of that name is kept."""
        return slot_of(name)

    def _index(self, node_id: str) -> int:
        for index, node in enumerate(self.nodes):
            if node.id == node_id:
                return index
        raise NotFoundError(f"no node {node_id!r} in the ring of epoch {self.epoch}")

    # ------------------------------------------------------------ invariants
    def check(self) -> None:
        """Raises AssertionError: an invariant of rings does not hold."""
        fault = self._fault()
        if fault is not None:
            raise AssertionError(fault)

    def _fault(self) -> str | None:
        ids = [node.id for node in self.nodes]
        if len(set(ids)) != len(ids):
            return "two nodes have one id"
        if self.founder not in ids:
            return f"the founder {self.founder!r} is not in the ring"
        if self.owners.dtype != np.uint16 or self.owners.flags.writeable:
            return "owners are not read-only 16-bit numbers"
        if int(self.owners.max()) >= len(self.nodes):
            return f"a slot's owner is number {self.owners.max()} of {len(self.nodes)} nodes"
        if self.copies > 1 and (np.diff(np.sort(self.owners, axis=1), axis=1) == 0).any():
            return "a node holds a slot twice"
        zones = zone_numbers([node.zone for node in self.nodes])
        wanted = min(self.copies, len(np.unique(zones)))
        standing = zones_of(self.owners.astype(np.int64), zones)
        if (standing != wanted).any():
            slot = int(np.argmax(standing != wanted))
            return f"slot {slot} stands in {standing[slot]} zones, not {wanted}"
        return None

    # ------------------------------------------------------------ JSON
    def to_json(self) -> dict[str, Any]:
        """A compact value for a file or a message: about 11 KB a copy, and the nodes."""
        value = {
            "format": FORMAT,
            "cluster_id": self.cluster_id,
            "epoch": self.epoch,
            "replicas": self.replicas,
            "founder": self.founder,
            "nodes": [[node.id, node.name, node.address, node.zone] for node in self.nodes],
            "owners": base64.b64encode(self.owners.astype("<u2").tobytes()).decode(),
        }
        return {**value, "checksum": _checksum(value)}

    @classmethod
    def from_json(cls, value: object) -> Self:
        """The ring of `to_json`.

        Raises:
            InvalidInputError: not such a value, damaged, or of a newer geostore.
        """
        if not isinstance(value, Mapping):
            raise InvalidInputError(f"a ring is a JSON object, not a {type(value).__name__}")
        if value.get("format") != FORMAT:
            raise InvalidInputError(f"a ring of format {value.get('format')!r}: expected {FORMAT}")
        rest = {key: part for key, part in value.items() if key != "checksum"}
        if value.get("checksum") != _checksum(rest):
            raise InvalidInputError("a damaged ring: its checksum does not match")
        try:
            ring = cls(
                cluster_id=rest["cluster_id"],
                epoch=rest["epoch"],
                replicas=rest["replicas"],
                founder=rest["founder"],
                nodes=tuple(RingNode(*parts) for parts in rest["nodes"]),
                owners=_owners_from(rest["owners"]),
            )
        except (KeyError, TypeError, binascii.Error) as error:
            raise InvalidInputError(f"a damaged ring: {error!r}") from error
        fault = ring._fault()
        if fault is not None:
            raise InvalidInputError(f"a damaged ring: {fault}")
        return ring


def found_ring(node: RingNode, *, cluster_id: str, replicas: int) -> Ring:
    """The ring of a new cluster: one node holds every slot, epoch 1."""
    return Ring(
        cluster_id=cluster_id,
        epoch=1,
        replicas=replicas,
        founder=node.id,
        nodes=(node,),
        owners=np.zeros((SLOTS_TOTAL, 1), dtype=np.uint16),
    )


def with_node_joined(
    ring: Ring, node: RingNode, slot_bytes: npt.NDArray[Any] | None = None
) -> Ring:
    """The next epoch, with one more node, to which alone slots move.

    `slot_bytes`, (4096,): balance bytes instead of numbers of slots; an empty slot still counts
    as a sixteenth of the mean.

    Raises:
        ConflictError: a node of that id is in the ring.
    """
    if any(known.id == node.id for known in ring.nodes):
        raise ConflictError(f"node {node.id!r} is in the ring of epoch {ring.epoch} already")
    nodes = (*ring.nodes, node)
    owners = owners_joined(
        ring.owners.astype(np.int64),
        zone_numbers([each.zone for each in nodes]),
        replicas=ring.replicas,
        weights=_weights(slot_bytes),
        turn=ring.epoch,
    )
    return replace(ring, epoch=ring.epoch + 1, nodes=nodes, owners=owners.astype(np.uint16))


def with_node_left(ring: Ring, node_id: str, slot_bytes: npt.NDArray[Any] | None = None) -> Ring:
    """The next epoch, without a node; its slots alone change hands.

    Raises:
        NotFoundError: no such node.
        InvalidInputError: it is the founder, without which nobody writes epochs.
    """
    leaver = ring.nodes.index(ring.node(node_id))
    if node_id == ring.founder:
        raise InvalidInputError(f"node {node_id!r} founded the ring and writes its epochs")
    owners = owners_left(
        ring.owners.astype(np.int64),
        zone_numbers([each.zone for each in ring.nodes]),
        leaver=leaver,
        weights=_weights(slot_bytes),
        turn=ring.epoch,
    )
    nodes = ring.nodes[:leaver] + ring.nodes[leaver + 1 :]
    return replace(ring, epoch=ring.epoch + 1, nodes=nodes, owners=owners.astype(np.uint16))


def with_address(ring: Ring, node_id: str, address: str) -> Ring:
    """The next epoch, with a node at another address.

    Raises:
        NotFoundError: no such node.
    """
    moved = replace(ring.node(node_id), address=address)
    nodes = tuple(moved if node.id == node_id else node for node in ring.nodes)
    return replace(ring, epoch=ring.epoch + 1, nodes=nodes)


def _checked(slot: int) -> int:
    if not 0 <= slot < SLOTS_TOTAL:
        raise InvalidInputError(f"slot {slot}: expected 0..{SLOTS_TOTAL - 1}")
    return slot


def _weights(slot_bytes: npt.NDArray[Any] | None) -> npt.NDArray[np.float64] | None:
    if slot_bytes is None:
        return None
    sizes = np.asarray(slot_bytes, dtype=np.float64)
    if sizes.shape != (SLOTS_TOTAL,) or not (np.isfinite(sizes).all() and (sizes >= 0).all()):
        raise InvalidInputError(
            f"slot bytes of shape {sizes.shape}: expected {SLOTS_TOTAL} numbers from 0"
        )
    return slot_weights(sizes, SLOTS_TOTAL)


def _owners_from(text: object) -> npt.NDArray[np.uint16]:
    if not isinstance(text, str):
        raise TypeError("owners are not a text")
    raw = base64.b64decode(text, validate=True)
    if not raw or len(raw) % (2 * SLOTS_TOTAL):
        raise InvalidInputError(f"a damaged ring: {len(raw)} bytes of owners")
    return np.frombuffer(raw, dtype="<u2").reshape(SLOTS_TOTAL, -1).astype(np.uint16)


def _checksum(value: Mapping[str, object]) -> str:
    """Of all members but itself; JSON with sorted keys is the same text everywhere."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"a ring is plain JSON: {error}") from error
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
