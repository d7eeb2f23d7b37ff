"""Errors across the wire: geostore's own as status, metadata and back; gRPC's as geostore's.

A node that fails a call sends a gRPC status, which programs that know nothing of geostore
understand, and a serialized ErrorDetail as trailing metadata, from which a client raises the
very error that the node raised. A status without a detail was made by gRPC itself, by a
proxy, or by something that is no geostore node.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn, cast

import grpc
from google.protobuf.message import DecodeError

from geostore import errors
from geostore.errors import (
    ConflictError,
    GeostoreError,
    InternalError,
    InvalidInputError,
    ProtocolVersionError,
    StaleRingError,
    UnavailableError,
    WrongClusterError,
)
from geostore.rpc.transport import MESSAGE_BYTES_MAX
from geostore.rpc.v1 import common_pb2

__all__ = [
    "ERROR_METADATA_KEY",
    "Failure",
    "abort_with",
    "error_from_failure",
    "error_from_rpc",
    "failure_of",
    "raising_for",
]

ERROR_METADATA_KEY = "geostore-error-bin"

MESSAGE_CHARACTERS_MAX = 2000
"""Headers are limited to some 8 kB by many a proxy; names of thousands of scenes stay out."""

_log = logging.getLogger(__name__)

_STATUS = {
    "invalid_input": grpc.StatusCode.INVALID_ARGUMENT,
    "unreadable_source": grpc.StatusCode.INVALID_ARGUMENT,
    "not_found": grpc.StatusCode.NOT_FOUND,
    "conflict": grpc.StatusCode.ABORTED,
    "store_locked": grpc.StatusCode.ABORTED,
    "wrong_cluster": grpc.StatusCode.FAILED_PRECONDITION,
    "protocol_version": grpc.StatusCode.FAILED_PRECONDITION,
    "unavailable": grpc.StatusCode.UNAVAILABLE,
    "stale_ring": grpc.StatusCode.UNAVAILABLE,
    "storage_full": grpc.StatusCode.UNAVAILABLE,
    "read_only": grpc.StatusCode.UNAVAILABLE,
    "corrupt_data": grpc.StatusCode.DATA_LOSS,
    "store_format": grpc.StatusCode.FAILED_PRECONDITION,
    "missing_dependency": grpc.StatusCode.FAILED_PRECONDITION,
    "internal": grpc.StatusCode.INTERNAL,
    "error": grpc.StatusCode.UNKNOWN,
}

_CLASSES: dict[str, type[GeostoreError]] = {
    kind.code: kind
    for kind in (getattr(errors, name) for name in errors.__all__)
    if issubclass(kind, GeostoreError)
}


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed call as gRPC carries it."""

    status: grpc.StatusCode
    message: str
    detail: bytes
    """The serialized ErrorDetail."""

    @property
    def metadata(self) -> tuple[tuple[str, bytes], ...]:
        return ((ERROR_METADATA_KEY, self.detail),)


def failure_of(error: BaseException) -> Failure:
    """How a node tells a caller of an error.

    One that is not geostore's is a bug: it is logged here with its traceback, and the caller
    learns its type only, since its text may hold paths and data.
    """
    if not isinstance(error, GeostoreError):
        _log.error("bug=%s", type(error).__name__, exc_info=error)
        error = InternalError(f"the node failed with {type(error).__name__}; its log says more")
    message = _cut(_sendable(str(error)))
    detail = common_pb2.ErrorDetail(code=error.code, message=message)
    if isinstance(error, UnavailableError) and error.retry_after_s is not None:
        detail.retry_after_s = error.retry_after_s
    if isinstance(error, StaleRingError) and error.epoch is not None:
        detail.ring_epoch = error.epoch
    status = _STATUS.get(error.code, grpc.StatusCode.UNKNOWN)
    return Failure(status, message, detail.SerializeToString())


def abort_with(context: grpc.ServicerContext, error: BaseException) -> NoReturn:
    """Ends a served call with an error: sets the trailing metadata and aborts."""
    failure = failure_of(error)
    context.set_trailing_metadata(failure.metadata)
    context.abort(failure.status, failure.message)
    raise AssertionError("abort returned")


def error_from_failure(
    status: grpc.StatusCode | None, details: str | None, detail: bytes | None, address: str
) -> GeostoreError:
    """The error that a client raises for a call to `address` that failed.

    `detail` is the value of the trailing metadata, None where there was none. Whatever
    it holds, the result is an error of geostore's.
    """
    said = _parse(detail) if detail is not None else None
    if said is not None and said.code:
        return _rebuild(said, address)
    return _from_status(status, _cut(details or ""), address)


def error_from_rpc(error: grpc.RpcError, address: str) -> GeostoreError:
    """As `error_from_failure`, for what a call to `address` raised."""
    # What a failed call raises is a grpc.Call too, though its class does not say so.
    if not callable(getattr(error, "trailing_metadata", None)):
        return error_from_failure(None, str(error), None, address)
    call = cast("grpc.Call", error)
    detail = _find_detail(call.trailing_metadata() or ())
    return error_from_failure(call.code(), call.details(), detail, address)


@contextmanager
def raising_for(address: str) -> Iterator[None]:
    """Turns what a gRPC call inside raises into geostore's errors."""
    try:
        yield
    except grpc.RpcError as error:
        raise error_from_rpc(error, address) from None
    except ValueError as error:
        if isinstance(error, GeostoreError):
            raise
        # A closed channel, a message that does not serialize.
        raise UnavailableError(f"node {address}: the call could not be made: {error}") from None


def _find_detail(metadata: Iterable[tuple[str, str | bytes]]) -> bytes | None:
    for key, value in metadata:
        if key == ERROR_METADATA_KEY and isinstance(value, bytes):
            return value
    return None


def _parse(detail: bytes) -> common_pb2.ErrorDetail | None:
    try:
        return common_pb2.ErrorDetail.FromString(detail)
    except DecodeError:
        return None


def _rebuild(said: common_pb2.ErrorDetail, address: str) -> GeostoreError:
    message = _cut(said.message) or f"node {address}: failed with {said.code!r}, without a word"
    retry_after_s: float | None = None
    if said.HasField("retry_after_s") and math.isfinite(said.retry_after_s):
        retry_after_s = max(0.0, said.retry_after_s)
    kind = _CLASSES.get(said.code)
    if kind is None:
        # A newer node's code: what can be done about it is not known here.
        return GeostoreError(f"node {address}: {_cut(said.code)!r}: {message}")
    if issubclass(kind, WrongClusterError | ProtocolVersionError) and "node " not in message[:5]:
        message = f"node {address}: {message}"  # who they are is the matter
    if issubclass(kind, StaleRingError):
        epoch = said.ring_epoch if said.HasField("ring_epoch") else None
        return kind(message, epoch=epoch, retry_after_s=retry_after_s)
    if issubclass(kind, UnavailableError):
        return kind(message, retry_after_s=retry_after_s)
    return kind(message)


def _from_status(status: grpc.StatusCode | None, details: str, address: str) -> GeostoreError:
    said = f" ({details})" if details else ""
    make: Callable[[str], GeostoreError] = UnavailableError
    match status:
        case grpc.StatusCode.UNAVAILABLE:
            text = "cannot be reached, or broke off" + _connection_hint(details)
        case grpc.StatusCode.RESOURCE_EXHAUSTED if "larger than max" in details:
            make = InvalidInputError
            text = (
                f"a message of this call is larger than the {MESSAGE_BYTES_MAX} bytes that one"
                " may have: ask for less, or send fewer values, in one call"
            )
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            text = "did not answer before the deadline"
        case grpc.StatusCode.CANCELLED:
            text = "the call was cancelled"
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            text = "is busy"
        case grpc.StatusCode.UNIMPLEMENTED:
            make = ConflictError
            text = "knows no such call: no geostore node, or one of another version"
        case grpc.StatusCode.INVALID_ARGUMENT:
            make = InvalidInputError
            text = "could not read the request"
        case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
            make = ConflictError
            text = "does not let this caller in"
        case _:
            name = "no status" if status is None else status.name
            text = f"answered as no geostore node does: {name}"
    return make(f"node {address}: {text}{said}")


_CONNECTION_HINTS = (
    (
        "CERTIFICATE_VERIFY_FAILED",
        (
            "its certificate is not accepted here: expected one that is in date and signed by an"
            " authority in tls_ca"
        ),
    ),
    (
        "Hostname Verification Check failed",
        (
            "its certificate is for other hosts than this address: call it by a name that the"
            " certificate has, or give it one that has this address"
        ),
    ),
    (
        "WRONG_VERSION_NUMBER",
        (
            "it speaks no TLS, this side does: start it with --tls-cert, --tls-key, --tls-ca, or"
            " leave them out here"
        ),
    ),
    (
        "Connection refused",
        "nothing listens there: check host and port, and that the node runs",
    ),
)


def _connection_hint(details: str) -> str:
    """What gRPC's words about a connection mean, and what to do; empty where nothing is known."""
    for sign, hint in _CONNECTION_HINTS:
        if sign in details:
            return f": {hint}"
    if "failed to connect" in details and ("Socket closed" in details or "reset" in details):
        return (
            ": it closed the connection at once: it wants TLS (tls_cert, tls_key, tls_ca), does"
            " not accept this side's certificate, or is no geostore node"
        )
    return ""


def _sendable(text: str) -> str:
    """Text that UTF-8 can carry: names of files may hold bytes that are none."""
    return text.encode("utf-8", "backslashreplace").decode()


def _cut(text: str) -> str:
    if len(text) <= MESSAGE_CHARACTERS_MAX:
        return text
    return text[: MESSAGE_CHARACTERS_MAX - 4] + " ..."
