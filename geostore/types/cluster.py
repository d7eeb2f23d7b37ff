"""What nodes of a cluster say to each other, as values."""

from __future__ import annotations

import secrets
import time
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Final

from geostore.errors import InvalidInputError, UnavailableError

__all__ = [
    "EMBEDDED_NODE",
    "CallContext",
    "ClearRequest",
    "NodeStatus",
    "PublishRequest",
    "RecordCopy",
    "SlotSizes",
    "StoreSizes",
]

EMBEDDED_NODE: Final = "local"
"""What an embedded store's only node is called in the `nodes` of its tiles."""


SLOTS: Final = 4096
"""Of the ring; `geostore.ring` has the same number, and is above this room."""


def _request_id() -> str:
    return secrets.token_hex(8)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext:
    """Goes with a request from its first node down to the last leaf.

    `deadline_s` is on this process's monotonic clock; on the wire it is the time left.
    """

    request_id: str = field(default_factory=_request_id)
    deadline_s: float | None = None

    @classmethod
    def within(cls, timeout_s: float | None, *, request_id: str | None = None) -> CallContext:
        """A context that ends `timeout_s` seconds from now."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        return cls(request_id=request_id or _request_id(), deadline_s=deadline_s)

    def time_left_s(self) -> float | None:
        """Seconds left, never negative; None: no deadline."""
        return None if self.deadline_s is None else max(0.0, self.deadline_s - time.monotonic())

    def check(self, what: str) -> None:
        """Raises UnavailableError: the deadline has passed."""
        if self.time_left_s() == 0.0:
            raise UnavailableError(f"{what}: its deadline has passed (request {self.request_id})")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishRequest:
    """A scene's home to a node: show these cells of a decided version.

    `cells` are those of the version that the node is to hold; `replaced_cells` those of
    `replaced_version` that it held.
    """

    dataset_id: str
    scene: str
    version: str
    attempt: int
    cells: tuple[str, ...]
    replaced_version: str | None = None
    replaced_cells: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearRequest:
    """A scene's home to a node: remove what nobody will see of an attempt or a version.

    Removes staged rows put by attempts up to `attempt`, and the files of `cells` that no
    published or newer staged row names: it may come late or twice.
    """

    dataset_id: str
    scene: str
    version: str
    attempt: int
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordCopy:
    """A record's state as its home has it, for the slot's other replicas."""

    name: str
    revision: int
    """Copies take only newer ones."""
    value: bytes | None
    """None: deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSizes:
    """What one node holds, by slot: three lists of one length, only slots that hold tiles.

    Raises:
        InvalidInputError: the lists do not fit together, or numbers that cannot be.
    """

    slots: tuple[int, ...] = ()
    """Ascending."""
    tiles: tuple[int, ...] = ()
    """Published tiles."""
    bytes: tuple[int, ...] = ()
    """Of their files."""

    def __post_init__(self) -> None:
        if not len(self.slots) == len(self.tiles) == len(self.bytes):
            raise InvalidInputError(
                f"slot sizes: {len(self.slots)} slots, {len(self.tiles)} counts of tiles and"
                f" {len(self.bytes)} of bytes; expected as many"
            )
        is_ascending = all(a < b for a, b in pairwise(self.slots))
        if self.slots and not (is_ascending and self.slots[0] >= 0 and self.slots[-1] < SLOTS):
            raise InvalidInputError(
                f"slot sizes: slots {self.slots[:3]}...: expected ascending 0..{SLOTS - 1}"
            )
        if min((*self.tiles, *self.bytes), default=0) < 0:
            raise InvalidInputError("slot sizes: a negative number of tiles or bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSizes:
    """What a whole store holds, every tile counted once."""

    tiles: int
    bytes: int
    slots_used: int
    """Slots that hold tiles."""
    slots_missing: int = 0
    """Slots of which no replica answered: what they hold is not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """One node, as it says itself."""

    id: str
    name: str
    address: str
    zone: str
    state: str
    """`serving`, `starting`, `draining`, or `unreachable` (said by others)."""
    epoch: int
    slots: int
    """Slots it is a replica of."""
    slots_first: int
    """Slots whose first replica it is."""
    slots_used: int
    """Slots that hold tile files."""
    datasets: int
    scenes: int
    """Scene records kept here."""
    tiles: int
    bytes: int
    disk_free_bytes: int
    read_only_reason: str | None = None
    version: str = ""
    """geostore's."""
    clock_us: int = 0
    """Its clock when it answered, microseconds since 1970."""
    uptime_s: float = 0.0
    error: str | None = None
    """Why it is unreachable."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
