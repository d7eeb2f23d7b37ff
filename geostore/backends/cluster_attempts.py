"""Attempts at scenes that this process has under way: their numbers, holders and leases."""

from __future__ import annotations

import os
import secrets
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from geostore.errors import ConflictError, GeostoreError, NotFoundError
from geostore.node.leases import LEASE_S

__all__ = ["Attempt", "Attempts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt, as begun here."""

    dataset_id: str
    scene: str
    version: str
    number: int
    holder: str


class Attempts:
    """Open attempts; while there are any, a thread renews their leases. Thread-safe.

    `keep` renews one lease. What it raises ends nothing: a node that cannot be reached is
    asked again at the next turn, and of a lost attempt its put or commit will tell.
    """

    def __init__(
        self, keep: Callable[[Attempt], object], *, interval_s: float = LEASE_S / 3
    ) -> None:
        self._keep = keep
        self._interval_s = interval_s
        self._start_anew()
        _OPEN.add(self)

    def _start_anew(self) -> None:
        """In a forked child no attempt is this process's: their holder is the parent."""
        self._open: dict[tuple[str, str], Attempt] = {}
        self._holders: dict[tuple[str, str], str] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def holder(self, dataset_id: str, scene: str) -> str:
        """The token under which this process works on a scene, until `drop`."""
        with self._changed:
            return self._holders.setdefault((dataset_id, scene), secrets.token_hex(8))

    def add(self, attempt: Attempt) -> None:
        """Keeps its lease from now on."""
        with self._changed:
            self._open[attempt.dataset_id, attempt.scene] = attempt
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._renew, name="geostore-leases", daemon=True
                )
                self._thread.start()

    def find(self, dataset_id: str, scene: str, version: str) -> Attempt | None:
        """The open attempt at that version."""
        with self._changed:
            attempt = self._open.get((dataset_id, scene))
        return attempt if attempt is not None and attempt.version == version else None

    def drop(self, dataset_id: str, scene: str) -> None:
        """The attempt is over; harmless where there is none."""
        with self._changed:
            self._open.pop((dataset_id, scene), None)
            self._holders.pop((dataset_id, scene), None)
            self._changed.notify_all()

    def close(self) -> None:
        """Leaves all attempts to the end of their leases."""
        with self._changed:
            self._open.clear()
            self._holders.clear()
            self._changed.notify_all()

    def _renew(self) -> None:
        changed = self._changed
        lost: set[Attempt] = set()
        while True:
            with changed:
                if changed.wait_for(lambda: not self._open, timeout=self._interval_s):
                    self._thread = None
                    return
                attempts = [one for one in self._open.values() if one not in lost]
            for attempt in attempts:
                try:
                    self._keep(attempt)
                except (ConflictError, NotFoundError):
                    lost.add(attempt)
                except GeostoreError:
                    continue


_OPEN: weakref.WeakSet[Attempts] = weakref.WeakSet()


def _forget_parents() -> None:
    for attempts in list(_OPEN):
        attempts._start_anew()  # noqa: SLF001  # the same module


os.register_at_fork(after_in_child=_forget_parents)
