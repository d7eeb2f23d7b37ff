"""How much memory one answer may take."""

from __future__ import annotations

import os
from pathlib import Path

from geostore.errors import InvalidInputError

__all__ = ["check_memory", "memory_bytes_total", "memory_limit_default"]

_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_SHARE = 0.25


def memory_bytes_total() -> int:
    """Memory of this machine, or of the container that this process lives in."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in _CGROUP_LIMITS:
        try:
            total = min(total, int(path.read_text()))
        except (OSError, ValueError):  # no such controller, or "max"
            continue
    return total


def memory_limit_default() -> int:
    """What an answer may take unless the caller says: a quarter of the memory there is."""
    return int(memory_bytes_total() * _SHARE)


def check_memory(needed: int, limit: int | None, what: str, remedy: str) -> None:
    """Checks an array's size before it is made.

    Raises:
        InvalidInputError: `what` needs more bytes than `limit` (the default for None);
            `remedy` says what to do.
    """
    bound = memory_limit_default() if limit is None else limit
    if needed > bound:
        raise InvalidInputError(
            f"{what} needs {_size(needed)} of memory, more than the limit of {_size(bound)}:"
            f" {remedy}"
        )


def _size(size: int) -> str:
    value, unit = float(size), "bytes"
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.4g} {unit}"
