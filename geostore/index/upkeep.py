"""What is done behind a catalog's writers: structures, snapshots, room given back."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from geostore.errors import GeostoreError

__all__ = ["Kept", "Upkeep"]

logger = logging.getLogger(__name__)


class Kept(Protocol):
    """What is kept up: `index.home.Home`, whose methods these are."""

    directory: Path

    def is_behind(self) -> bool: ...
    def bring_up(self) -> None: ...
    def is_snapshot_due(self) -> bool: ...
    def is_snapshot_worthwhile(self) -> bool: ...
    def snapshot(self) -> bool: ...
    def is_cleaning_due(self) -> bool: ...
    def clean(self) -> bool: ...


class Upkeep:
    """A thread that keeps structures and snapshots up to date behind the writers.

    It is started when there is something to do and ends when there is nothing more.
    """

    def __init__(self, home: Kept) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_stopped = False

    def look(self) -> None:
        """Starts the thread if there is work. A few comparisons where there is none."""
        if self._is_due() and not self._is_stopped:
            with self._lock:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(
                        target=self._run, name="geostore-catalog-upkeep", daemon=True
                    )
                    self._thread.start()

    @property
    def is_busy(self) -> bool:
        """Whether it is at work."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    def _is_due(self) -> bool:
        home = self._home
        return home.is_behind() or home.is_snapshot_due() or home.is_cleaning_due()

    def _run(self) -> None:
        try:
            while self._is_due():
                self._home.bring_up()
                if self._home.is_snapshot_due() and not self._home.snapshot():
                    return  # another process writes one
                if self._home.is_cleaning_due() and not self._home.clean():
                    return
        except (GeostoreError, OSError) as error:
            # What it would have spared is done at the next query or opening.
            logger.warning("catalog=%s upkeep failed: %s", self._home.directory, error)

    def stop(self) -> None:
        """Waits until nothing is due any more: the next opening has a snapshot to begin with."""
        self._is_stopped = True
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        if self._home.is_snapshot_worthwhile():
            with suppress(GeostoreError, OSError):  # a full disk: the log is whole
                self._home.snapshot()
