"""Attempts at scenes that this process has under way: their numbers, holders and leases."""

from __future__ import annotations

import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from geostore.errors import ConflictError, GeostoreError, NotFoundError
from geostore.node.leases import LEASE_S

__all__ = ["Attempt", "Attempts"]

RENEWALS_A_LEASE = 3
KEEPS_AT_ONCE_MAX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt, as begun here."""

    dataset_id: str
    scene: str
    version: str
    number: int
    holder: str
    lease_s: float = LEASE_S
    """How long its home gives it up after this process falls silent; 0: never."""


class Attempts:
    """Open attempts; while there are any, a thread renews their leases. Thread-safe.

    `keep` renews one lease. What it raises ends nothing: a node that cannot be reached is
    asked again at the next turn, and of a lost attempt its put or commit will tell. Leases
    are renewed side by side: a node that hangs must not let those of others end.
    """

    def __init__(self, keep: Callable[[Attempt], object]) -> None:
        self._keep = keep
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

    def known_holder(self, dataset_id: str, scene: str) -> str:
        """The token, if this process works on the scene; else none: ""."""
        with self._changed:
            return self._holders.get((dataset_id, scene), "")

    def add(self, attempt: Attempt) -> None:
        """Keeps its lease from now on."""
        with self._changed:
            self._open[attempt.dataset_id, attempt.scene] = attempt
            self._changed.notify_all()  # its lease may be shorter than the others
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

    def release(self, dataset_id: str, scene: str) -> None:
        """Forgets the token of a scene at which no attempt is open."""
        with self._changed:
            if (dataset_id, scene) not in self._open:
                self._holders.pop((dataset_id, scene), None)

    def close(self) -> None:
        """Leaves all attempts to the end of their leases."""
        with self._changed:
            self._open.clear()
            self._holders.clear()
            self._changed.notify_all()

    def _renew(self) -> None:
        lost: set[Attempt] = set()
        while (attempts := self._wait_for_turn()) is not None:
            held = [one for one in attempts if one not in lost]
            if len(held) < 2:
                outcomes = [self._is_kept(one) for one in held]
            else:
                with ThreadPoolExecutor(KEEPS_AT_ONCE_MAX) as pool:
                    outcomes = list(pool.map(self._is_kept, held))
            lost.intersection_update(attempts)
            lost.update(one for one, is_kept in zip(held, outcomes, strict=True) if not is_kept)

    def _wait_for_turn(self) -> list[Attempt] | None:
        """Those whose leases end, when it is time; None: no attempt is open, the thread ends."""
        begun_s = time.monotonic()
        with self._changed:
            while self._open:
                ending = [one for one in self._open.values() if one.lease_s > 0]
                pause_s = min((one.lease_s / RENEWALS_A_LEASE for one in ending), default=None)
                left_s = None if pause_s is None else begun_s + pause_s - time.monotonic()
                if left_s is not None and left_s <= 0:
                    return ending
                self._changed.wait(left_s)
            self._thread = None
            return None

    def _is_kept(self, attempt: Attempt) -> bool:
        """Renews a lease; False: the attempt is over."""
        try:
            self._keep(attempt)
        except (ConflictError, NotFoundError):
            return False
        except GeostoreError:
            pass
        return True


_OPEN: weakref.WeakSet[Attempts] = weakref.WeakSet()


def _forget_parents() -> None:
    for attempts in list(_OPEN):
        attempts._start_anew()  # noqa: SLF001  # the same module


os.register_at_fork(after_in_child=_forget_parents)
