"""What a store is to the rooms above: one protocol, and the backends that keep it."""

from __future__ import annotations

from typing import Literal

from geostore.backends.embedded import EmbeddedBackend, open_embedded, rebuild_embedded
from geostore.backends.protocol import Backend
from geostore.config import Target
from geostore.errors import UnavailableError

__all__ = ["Backend", "EmbeddedBackend", "open_backend", "open_embedded", "rebuild_embedded"]


def open_backend(target: Target, *, mode: Literal["a", "r"] = "a") -> Backend:
    """The backend of a target.

    Raises:
        UnavailableError: a cluster; this geostore has no client for one.
        NotFoundError, StoreFormatError, CorruptDataError: see `open_embedded`.
    """
    if target.path is None:
        raise UnavailableError(
            f"store {target}: this geostore opens directories only; talking to a cluster needs"
            " a geostore with the cluster backend (`geostore node`)"
        )
    return open_embedded(target.path, mode=mode)
