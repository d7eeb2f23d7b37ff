"""What arrives in a watched directory, and when it is there whole.

A copy, a download or an unpacking under way looks like a file already. So an entry (a file or
a product's directory, directly in the watched one) is taken when it has looked the same for
a while, and again when it looks different later. Polling, not the system's notifications:
those say nothing of network file systems, where scenes tend to arrive.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from geostore.errors import InvalidInputError

__all__ = ["Arrivals", "Looks", "look"]

Looks = tuple[int, int, int]
"""Files, bytes and the newest modification time (ns) of an entry."""

FILES_MAX: Final = 200_000
"""Files looked at in one entry: a directory of more is no product."""
UNFINISHED: Final = (".part", ".tmp", ".crdownload", ".partial", ".filepart")
"""Names that programs give to what they have not finished."""


def look(directory: Path) -> dict[str, Looks]:
    """How each entry of a directory looks now, by path; hidden ones and unfinished ones not.

    Raises:
        InvalidInputError: it is no directory that can be read.
    """
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError as error:
        raise InvalidInputError(
            f"{directory}: cannot be watched: {error.strerror or error}; expected a directory"
        ) from error
    found: dict[str, Looks] = {}
    for entry in entries:
        if entry.name.startswith(".") or entry.name.lower().endswith(UNFINISHED):
            continue
        looks = _look_at(Path(entry.path))
        if looks is not None:
            found[entry.path] = looks
    return found


def _look_at(path: Path) -> Looks | None:
    """None: it is gone, or empty still."""
    files = size = newest = 0
    try:
        if not path.is_dir():
            state = path.stat()
            return (1, state.st_size, state.st_mtime_ns)
        for folder, _, names in os.walk(path):
            for name in names:
                state = os.lstat(os.path.join(folder, name))  # noqa: PTH118 - many files
                files, size = files + 1, size + state.st_size
                newest = max(newest, state.st_mtime_ns)
            if files > FILES_MAX:
                break
    except OSError:  # it is being renamed or removed: the next look will tell
        return None
    return (files, size, newest) if files else None


@dataclass(slots=True)
class Arrivals:
    """Decides, from looks and the clock alone, what is to be ingested."""

    settle_s: float
    """How long an entry must have looked the same."""
    _seen: dict[str, tuple[Looks, float]] = field(default_factory=dict)
    """How each entry looked, and since when."""
    _taken: dict[str, Looks] = field(default_factory=dict)

    def take(self, now: Mapping[str, Looks], now_s: float) -> list[str]:
        """Entries that are whole and were not taken as they look now, in order."""
        ready = []
        for path, looks in now.items():
            before = self._seen.get(path)
            if before is None or before[0] != looks:
                self._seen[path] = (looks, now_s)
                continue
            if now_s - before[1] >= self.settle_s and self._taken.get(path) != looks:
                self._taken[path] = looks
                ready.append(path)
        for gone in self._seen.keys() - now.keys():
            del self._seen[gone]
            self._taken.pop(gone, None)
        return ready

    @property
    def waits(self) -> bool:
        """Whether something is there that was not taken yet."""
        return any(self._taken.get(path) != looks for path, (looks, _) in self._seen.items())
