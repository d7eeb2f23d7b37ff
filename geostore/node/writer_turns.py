"""Ingests of several processes take turns at writing one directory.

One process writes at a time, by its lock. An ingest lends that lock: between two scenes it
looks whether another ingest waits, lets it have a turn, and queues up behind it. So any
number of ingests may run on one embedded store, each scene whole. They gain no speed by it:
one already uses all of the machine.

A writer that is no ingest (a program that holds a store open after it wrote, or asked for
the lock when it opened the store) lends nothing;
whoever wants to write then is refused at once, as before.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from geostore.errors import StoreLockedError
from geostore.node.lock import is_lent

__all__ = ["WriterTurns"]

TURN_SECONDS_MIN: Final = 1.0
"""How long a writer keeps its turn where others wait: taking over is not free."""
POLL_SECONDS: Final = 0.05
UNKNOWN_HOLDER_TRIES: Final = 40
"""How often a lock is tried whose holder has not yet said whether it lends it."""

_log = logging.getLogger(__name__)


class _Writer(Protocol):
    """The node whose turns these are."""

    @property
    def is_writer(self) -> bool: ...

    def take_lock(self, *, lends: bool) -> None:
        """Become the writer. Raises StoreLockedError: another process is."""

    def lend_lock(self, *, lends: bool) -> None:
        """Say in the lock, where it is held, whether it is lent."""

    def give_lock(self) -> None:
        """Let the next writer in; nothing is under way. One that was asked for stays."""


class WriterTurns:
    """The turns of one node's ingests. Thread-safe."""

    def __init__(
        self,
        writer: _Writer,
        lock_file: Path,
        queue_file: Path,
        *,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._writer = writer
        self._lock_file = lock_file
        self._queue_file = queue_file
        self._now_s = now_s
        self._changed = threading.Condition()
        self._ingests = 0
        self._active = 0
        """Scenes under way."""
        self._is_taking = False
        self._is_handing_over = False
        self._since_s = 0.0
        self._has_said = False

    @contextmanager
    def ingest(self) -> Iterator[None]:
        """While an ingest runs, this process's lock is lent between scenes."""
        with self._changed:
            self._ingests += 1
            self._has_said = False
            if self._ingests == 1 and self._writer.is_writer:
                self._writer.lend_lock(lends=True)
        try:
            yield
        finally:
            with self._changed:
                self._ingests -= 1
                if not self._ingests:
                    # Whoever waits between two of its scenes must not find it kept.
                    self._writer.give_lock()

    @contextmanager
    def turn(self, check: Callable[[], None]) -> Iterator[None]:
        """One scene's turn at writing; waits for others' where it must.

        Args:
            check: called while waiting; raises to give up.

        Raises:
            StoreLockedError: a process writes that does not lend its lock.
        """
        self._enter(check)
        try:
            yield
        finally:
            self._leave()

    def _enter(self, check: Callable[[], None]) -> None:
        with self._changed:
            while True:
                check()
                if self._writer.is_writer and not self._is_handing_over:
                    self._active += 1
                    return
                if not self._is_taking and not self._active:
                    self._is_taking = True
                    break
                self._changed.wait(POLL_SECONDS)
        try:
            self._take(check)
            with self._changed:
                self._active += 1
                self._since_s = self._now_s()
        finally:
            with self._changed:
                self._is_taking = False
                self._changed.notify_all()

    def _leave(self) -> None:
        with self._changed:
            self._active -= 1
            if self._now_s() - self._since_s >= TURN_SECONDS_MIN and self._someone_waits():
                self._is_handing_over = True
            if self._is_handing_over and not self._active:
                self._is_handing_over = False
                self._writer.give_lock()
            self._changed.notify_all()

    def _take(self, check: Callable[[], None]) -> None:
        """Becomes the writer, behind whoever waits already."""
        pause = threading.Event()
        unknown = 0
        waiting: int | None = None
        try:
            while True:
                try:
                    if waiting is not None or not self._someone_waits():
                        self._writer.take_lock(lends=True)
                        return
                except StoreLockedError as error:
                    lent = is_lent(self._lock_file)
                    unknown = unknown + 1 if lent is None else 0
                    if lent is False or unknown > UNKNOWN_HOLDER_TRIES:
                        raise
                    if lent:
                        self._say_once(error)
                if waiting is None:
                    waiting = self._queue_up()
                check()
                pause.wait(POLL_SECONDS)
        finally:
            if waiting is not None:
                os.close(waiting)  # which unlocks it

    def _say_once(self, error: StoreLockedError) -> None:
        """An ingest may wait for hours: who runs it wants to know for whom."""
        if not self._has_said:
            self._has_said = True
            who, _, _ = str(error).partition("; ")
            _log.warning("%s; this ingest waits for its turn between two scenes of it", who)

    def _queue_up(self) -> int | None:
        """The first place in the queue, as a locked descriptor; None: somebody has it."""
        descriptor = os.open(self._queue_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor

    def _someone_waits(self) -> bool:
        if not self._queue_file.exists():
            return False
        descriptor = self._queue_up()
        if descriptor is None:
            return True
        os.close(descriptor)
        return False
