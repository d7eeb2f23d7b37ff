"""Remote sources opened before their turn, so that network and decoding overlap.

Opening a scene fetches all that it uses (its fingerprint is over every byte), so to open is to
fetch. How far ahead is bounded by number here and by bytes in the cache: what is not due waits
for room in it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Self

from geostore.errors import GeostoreError
from geostore.scenes.find import FoundSource
from geostore.scenes.remote_cache import Turn
from geostore.scenes.scene import ReadOptions, Scene

__all__ = ["AHEAD_MAX", "Ahead"]

AHEAD_MAX = 4
"""Sources being fetched, or fetched and waiting, beyond the last one asked for."""


class Ahead:
    """Opens sources, remote ones ahead of their turn. Thread-safe; close it at the end.

    Args:
        sources: in the order in which they will be asked for, more or less.
        reader, options: as for `FoundSource.open`.
        ahead_max: how many sources to open ahead.
    """

    def __init__(
        self,
        sources: Sequence[FoundSource],
        *,
        reader: str | None = None,
        options: ReadOptions | None = None,
        ahead_max: int = AHEAD_MAX,
    ) -> None:
        self._reader = reader
        self._options = options
        self._ahead_max = ahead_max
        self._remote = [found for found in sources if found.is_remote]
        self._places = {id(found): place for place, found in enumerate(self._remote)}
        self._begun: dict[int, tuple[Turn, Future[list[Scene]]]] = {}
        self._next = 0
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._is_closed = False
        self._begin(ahead_max)

    def _begin(self, upto: int) -> None:
        """Open sources before place `upto`, but those that somebody has opened already."""
        with self._lock:
            while self._next < min(upto, len(self._remote)) and not self._is_closed:
                found, place = self._remote[self._next], self._next
                self._next += 1
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(
                        max(1, self._ahead_max), thread_name_prefix="geostore-ahead"
                    )
                turn = Turn(is_due=False)
                self._begun[place] = turn, self._pool.submit(self._open, found, turn)

    def _open(self, found: FoundSource, turn: Turn) -> list[Scene]:
        return found.open(reader=self._reader, options=self._options, turn=turn)

    def open(self, found: FoundSource) -> list[Scene]:
        """As `FoundSource.open`: waits for what was begun ahead, and begins what comes after."""
        place = self._places.get(id(found))
        if place is None:
            return found.open(reader=self._reader, options=self._options)
        self._begin(place + 1 + self._ahead_max)
        with self._lock:
            begun = self._begun.pop(place, None)
        if begun is None:  # asked for once more
            return self._open(found, Turn())
        turn, future = begun
        turn.come()
        if future.cancel():  # every thread of the pool is busy with later ones
            return self._open(found, turn)
        return future.result()

    def close(self) -> None:
        """Give up what is under way, close what nobody asked for. Waits for neither's server
        longer than one request takes.
        """
        with self._lock:
            self._is_closed = True
            begun, self._begun = self._begun, {}
            pool, self._pool = self._pool, None
        for turn, future in begun.values():
            turn.give_up()
            future.cancel()
        if pool is not None:
            pool.shutdown()
        for _, future in begun.values():
            if not future.cancelled():
                with suppress(GeostoreError):
                    for scene in future.result():
                        scene.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
