"""Every error geostore raises, in one tree, grouped by what the caller can do next.

A message says what was got, what was expected and, for a file, which one. `code` is
stable: it crosses the wire and may be matched by programs; messages may change.
"""

from __future__ import annotations

__all__ = [
    "ConflictError",
    "CorruptDataError",
    "GeostoreError",
    "InternalError",
    "InvalidInputError",
    "MissingDependencyError",
    "NotFoundError",
    "ProtocolVersionError",
    "ReadOnlyError",
    "StaleRingError",
    "StorageFullError",
    "StoreFormatError",
    "StoreLockedError",
    "UnavailableError",
    "UnreadableSourceError",
    "WrongClusterError",
]


class GeostoreError(Exception):
    """Base of all errors that geostore raises on purpose."""

    code = "error"

    def __str__(self) -> str:
        # KeyError's own __str__ shows a repr; users should see the sentence.
        return " ".join(str(arg) for arg in self.args)


class InvalidInputError(GeostoreError, ValueError):
    """The caller passed something that can never work: change it and call again."""

    code = "invalid_input"


class UnreadableSourceError(InvalidInputError):
    """A source file is damaged, incomplete, hostile or of a kind no reader claims."""

    code = "unreadable_source"


class NotFoundError(GeostoreError, KeyError):
    """A dataset, scene, band or tile of that name does not exist here."""

    code = "not_found"


class ConflictError(GeostoreError):
    """Something else is there already: pass a flag that replaces it, or leave it."""

    code = "conflict"


class StoreLockedError(ConflictError):
    """Another process is writing to this store."""

    code = "store_locked"


class WrongClusterError(ConflictError):
    """The node belongs to another cluster than the caller."""

    code = "wrong_cluster"


class ProtocolVersionError(ConflictError):
    """The node speaks another version of the protocol than the caller."""

    code = "protocol_version"


class UnavailableError(GeostoreError):
    """Not now: the same call may work later (`retry_after_s` where that is known)."""

    code = "unavailable"

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StorageFullError(UnavailableError):
    """The disk under the store is full; what was acknowledged before is intact."""

    code = "storage_full"


class ReadOnlyError(UnavailableError):
    """The store was opened read-only, or went read-only after a failed fsync."""

    code = "read_only"


class StaleRingError(UnavailableError):
    """Caller and node hold rings of different epochs: whose is older asks for the newer one."""

    code = "stale_ring"

    def __init__(
        self, message: str, *, epoch: int | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.epoch = epoch
        """The answering node's."""


class CorruptDataError(GeostoreError):
    """Stored bytes do not match their checksum or their format."""

    code = "corrupt_data"


class StoreFormatError(GeostoreError):
    """The directory is not a geostore store, or was written by a newer geostore."""

    code = "store_format"


class MissingDependencyError(GeostoreError, ImportError):
    """An optional package is needed for this call; the message says how to install it."""

    code = "missing_dependency"


class InternalError(GeostoreError):
    """A bug in geostore. Please report it with the traceback (`-vv`)."""

    code = "internal"
