"""Who is at work on which attempt, as a scene's home knows it: in memory, by the clock; pure.

An ingester takes a lease when it begins a scene and renews it now and then. An attempt that
nobody holds is given up. After a start the home knows of no holder, so nothing is given up
before every living ingester had the time to renew.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["LEASE_S", "AttemptName", "Leases"]

LEASE_S = 30.0
"""How long an ingester may be silent. A renewal is due every third of it."""

AttemptName = tuple[str, str]
"""Dataset id and scene."""


@dataclass(slots=True)
class Leases:
    """Times are seconds on one monotonic clock, given by the caller. Not thread-safe."""

    started_s: float
    lease_s: float = LEASE_S
    _until_s: dict[AttemptName, dict[str, float]] = field(default_factory=dict)

    def renew(self, name: AttemptName, holder: str, now_s: float) -> None:
        """`holder` is at work for another lease."""
        self._until_s.setdefault(name, {})[holder] = now_s + self.lease_s

    def drop(self, name: AttemptName, holder: str) -> None:
        """`holder` is done; harmless where it held nothing."""
        holders = self._until_s.get(name, {})
        holders.pop(holder, None)
        if not holders:
            self._until_s.pop(name, None)

    def drop_all(self, name: AttemptName) -> None:
        """The attempt is over."""
        self._until_s.pop(name, None)

    def drop_ended(self, name: AttemptName, now_s: float) -> None:
        """Forgets those who were silent for too long."""
        holders = self._until_s.get(name, {})
        for holder in [holder for holder, until_s in holders.items() if until_s <= now_s]:
            self.drop(name, holder)

    def is_held(self, name: AttemptName, now_s: float, *, except_by: str | None = None) -> bool:
        """Whether an ingester other than `except_by` may be at work on it."""
        if now_s < self.started_s + self.lease_s:
            # One that began before this node started may not have renewed yet; the asker's
            # own lease says nothing of others.
            return True
        return any(
            until_s > now_s and holder != except_by
            for holder, until_s in self._until_s.get(name, {}).items()
        )
