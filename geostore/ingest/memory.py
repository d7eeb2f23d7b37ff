"""How an ingest divides the memory that it may use, and how its scenes share it."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from geostore.errors import InvalidInputError

__all__ = ["Budget", "MemoryShares", "machine_bytes"]

MEMORY_BYTES_MIN = 64 << 20
_DECODED_BYTES_MAX = 512 << 20
"""More decoded pixels than the rows of cells in work are never needed, so more is not taken."""
_CACHE_BYTES_MAX = 128 << 20
_SHARE_OF_MACHINE = 4
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def machine_bytes() -> int:
    """Memory of this machine, or of the container that this process lives in."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in _CGROUP_LIMITS:
        try:
            total = min(total, int(Path(limit).read_text()))
        except (OSError, ValueError):  # no such file, or `max`
            continue
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryShares:
    """The parts of an ingest's memory that are bounded one by one."""

    decoded_bytes: int
    """Decoded source pixels, over all scenes in work."""
    block_cache_bytes: int
    """GDAL's cache of decoded blocks. Chunks are whole blocks, so it is asked again only for
    the other bands of pixel-interleaved files; its default is a share of the machine."""
    batch_bytes: int
    """Encoded tiles of one scene that wait to be stored together."""

    @classmethod
    def of(cls, total_bytes: int | None = None) -> Self:
        """The shares of `total_bytes`; by default of a quarter of the machine.

        What is left over is for tiles being warped and encoded, and for what Python and GDAL
        take to be there at all.

        Raises:
            InvalidInputError: less than any scene needs.
        """
        if total_bytes is None:
            total_bytes = max(MEMORY_BYTES_MIN, machine_bytes() // _SHARE_OF_MACHINE)
        if total_bytes < MEMORY_BYTES_MIN:
            raise InvalidInputError(
                f"memory {total_bytes} bytes: expected at least {MEMORY_BYTES_MIN} (64 MiB)"
            )
        return cls(
            decoded_bytes=min(_DECODED_BYTES_MAX, total_bytes // 3),
            block_cache_bytes=min(_CACHE_BYTES_MAX, total_bytes // 8),
            batch_bytes=min(32 << 20, total_bytes // 16),
        )


class Budget:
    """Bytes that several scenes share. Thread-safe."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self._lock = threading.Lock()
        self._taken_bytes = 0

    @property
    def taken_bytes(self) -> int:
        return self._taken_bytes

    def take(self, size_bytes: int, *, urgent: bool) -> bool:
        """Reserve bytes; False where they are not free. What is urgent always gets them:
        the cell that a scene has to finish before it can free any.
        """
        with self._lock:
            if not urgent and self._taken_bytes + size_bytes > self.total_bytes:
                return False
            self._taken_bytes += size_bytes
            return True

    def give_back(self, size_bytes: int) -> None:
        """Bytes that were taken are free again."""
        with self._lock:
            self._taken_bytes -= size_bytes
            assert self._taken_bytes >= 0, "given back more than was taken"
