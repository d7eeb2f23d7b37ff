"""Which scene may begin when, where several are in work at once.

Scenes run side by side, yet the store must end as if they had come one after another: the
first scene of a new dataset fixes its groups, and of two sources of one scene the first is
stored and the second is `unchanged` or a conflict. So a scene waits for those earlier ones
that it depends on, and for no others. The earliest scene in work never waits.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

__all__ = ["StoppedError", "Turns"]


class StoppedError(Exception):
    """The ingest is being stopped: whoever waits or works gives up. No user sees it."""


class Turns:
    """Scenes in the order of their sources, by (dataset, scene). Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_stopped = False
        self._undeclared = 0
        """The earliest source of which it is not known what it holds."""
        self._declared: set[int] = set()
        """Later sources of which it is."""
        self._open: dict[int, list[tuple[str, str]]] = {}
        """Scenes that have not ended, by source."""

    @property
    def is_stopped(self) -> bool:
        return self._is_stopped

    def stop(self) -> None:
        """Everybody who waits, or asks later, is told to give up."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def check(self) -> None:
        """Raises StoppedError once the ingest is being stopped."""
        if self._is_stopped:
            raise StoppedError

    def declare(self, source: int, scenes: Sequence[tuple[str, str]]) -> None:
        """What the source of that number holds, (dataset, scene) each; () for nothing."""
        with self._changed:
            self._open[source] = list(scenes)
            self._declared.add(source)
            while self._undeclared in self._declared:
                self._declared.remove(self._undeclared)
                self._undeclared += 1
            self._changed.notify_all()

    def end(self, source: int, dataset: str, scene: str) -> None:
        """That scene is stored, failed or given up."""
        with self._changed:
            self._open[source].remove((dataset, scene))
            self._changed.notify_all()

    def forget(self, source: int) -> None:
        """The source has nothing to store any more."""
        with self._changed:
            self._open.pop(source, None)
            self._changed.notify_all()

    def wait(self, source: int, dataset: str, scene: str, *, is_first: bool) -> None:
        """Until the scene may begin.

        Args:
            is_first: the dataset is not there yet, or lacks what its first scene fixes.

        Raises:
            StoppedError: the ingest is being stopped.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_stopped or self._is_free(source, dataset, scene, is_first)
            )
            self.check()

    def _is_free(self, source: int, dataset: str, scene: str, is_first: bool) -> bool:
        if self._undeclared < source:
            return False
        earlier = (key for other, keys in self._open.items() if other < source for key in keys)
        if is_first:
            return all(key[0] != dataset for key in earlier)
        return (dataset, scene) not in set(earlier)
