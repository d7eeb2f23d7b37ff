"""What a store is to the rooms above: one protocol, and the backends that keep it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from geostore.backends.embedded import EmbeddedBackend, open_embedded, rebuild_embedded
from geostore.backends.protocol import Backend
from geostore.config import Settings, Target

if TYPE_CHECKING:
    from geostore.rpc.transport import Security

__all__ = ["Backend", "EmbeddedBackend", "open_backend", "open_embedded", "rebuild_embedded"]


def open_backend(
    target: Target,
    *,
    mode: Literal["a", "r"] = "a",
    security: Security | Settings | None = None,
) -> Backend:
    """The backend of a target.

    `security` says how connections to a cluster are protected; without it they reach this
    machine only. A directory has none.

    Raises:
        UnavailableError: a cluster of which no node answers.
        InvalidInputError: an address or TLS files that `security` does not cover.
        NotFoundError, StoreFormatError, CorruptDataError: see `open_embedded`.
    """
    if target.path is not None:
        return open_embedded(target.path, mode=mode)
    # Only clusters load gRPC.
    from geostore.backends.cluster import open_cluster
    from geostore.backends.cluster_nodes import security_of
    from geostore.rpc.transport import PLAINTEXT

    if isinstance(security, Settings):
        security = security_of(security)
    return open_cluster(target, mode=mode, security=security or PLAINTEXT)
