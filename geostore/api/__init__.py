"""The front door: `open`, `Store`, `Selection`, `Tile`. Thin methods over the rooms below.

Nothing heavy is imported with this module; each method imports the room it needs.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from geostore.api.selection import Selection
from geostore.api.store import Store
from geostore.api.summary import SummaryTable
from geostore.api.tile import Tile
from geostore.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from geostore.node import VerifyReport

__all__ = ["Selection", "Store", "SummaryTable", "Tile", "open", "rebuild"]


def _directory(target: str | os.PathLike[str]) -> Path:
    from geostore.config import parse_target

    place = parse_target(target)
    if place.path is None:
        raise InvalidInputError(
            f"store {os.fspath(target)!r}: a cluster's catalogs are rebuilt one by one: stop a"
            " node, run `geostore --store DIRECTORY verify --rebuild` on its directory, start it"
            " again"
        )
    return place.path


def open(  # noqa: A001 - the contract's name
    target: str | os.PathLike[str],
    *,
    mode: Literal["a", "r"] = "a",
    tls_ca: str | os.PathLike[str] | None = None,
    tls_cert: str | os.PathLike[str] | None = None,
    tls_key: str | os.PathLike[str] | None = None,
    insecure: bool | None = None,
) -> Store:
    """Open a store; see `geostore.open`."""
    from geostore.backends import open_backend
    from geostore.config import load_settings, parse_target

    if mode not in ("a", "r"):
        raise InvalidInputError(f"mode {mode!r}: expected 'a' (read and write) or 'r' (read)")
    place = parse_target(target)
    if place.path is not None:
        return Store(open_backend(place, mode=mode))
    files = {"tls_ca": tls_ca, "tls_cert": tls_cert, "tls_key": tls_key}
    flags: dict[str, object] = {
        name: None if path is None else os.fspath(path) for name, path in files.items()
    }
    flags["insecure"] = insecure
    settings = load_settings(flags, environment=os.environ)
    return Store(open_backend(place, mode=mode, security=settings))


def rebuild(
    target: str | os.PathLike[str], *, progress: Callable[[int, int], None] | None = None
) -> VerifyReport:
    """Makes a store's catalog anew from its tile files, also where it cannot be opened.

    Raises:
        NotFoundError: no store is there.
        StoreLockedError: another process writes.
    """
    from geostore.backends import rebuild_embedded

    return rebuild_embedded(_directory(target), progress=progress)
