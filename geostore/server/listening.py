"""Taking a port: which addresses may speak plaintext, and why one cannot be had."""

from __future__ import annotations

import errno
import resource
import socket
from contextlib import closing

import grpc

from geostore.config import HostPort
from geostore.errors import ConflictError, GeostoreError, InvalidInputError
from geostore.rpc.transport import Security

__all__ = ["allow_files", "bind_error", "bind_port", "check_plaintext"]


def allow_files(wanted: int) -> int:
    """Raises the process's limit of open files to `wanted`, or as far as it may; the limit then.

    A connection is an open file, and many systems give a process 1,024 of them.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if allowed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(soft, allowed)


def check_plaintext(address: HostPort, *, insecure: bool) -> None:
    """Whether a server may listen there without TLS.

    Raises:
        InvalidInputError: others than this machine could read along.
    """
    Security(insecure=insecure).check_address(address)


def bind_port(
    server: grpc.Server, address: HostPort, credentials: grpc.ServerCredentials | None
) -> HostPort:
    """Has `server` listen; the address with the port that it got.

    Raises:
        ConflictError: the port is in use.
        InvalidInputError: the address is not this machine's, or needs rights we lack.
    """
    try:
        if credentials is None:
            port = server.add_insecure_port(str(address))
        else:
            port = server.add_secure_port(str(address), credentials)
    except RuntimeError:
        port = 0  # grpcio says that it failed, not why
    if port == 0:
        raise _why(address)
    return HostPort(address.host, port)


def bind_error(address: HostPort, error: OSError) -> GeostoreError:
    """A failed bind in geostore's words."""
    if error.errno == errno.EADDRINUSE:
        return ConflictError(
            f"{address} is in use: another node (or another program) listens there. Stop it, "
            f"choose another port, or port 0 to have a free one picked"
        )
    return InvalidInputError(f"cannot listen on {address}: {error.strerror or error}")


def _why(address: HostPort) -> GeostoreError:
    """Binds once more by hand, for the system's reason."""
    try:
        infos = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, where in infos:
            with closing(socket.socket(family, kind, protocol)) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(where)
                probe.listen(1)
    except OSError as error:
        return bind_error(address, error)
    return InvalidInputError(
        f"cannot listen on {address}: gRPC refused, though the port is free; "
        "with TLS, check that the certificate, its key and the CA belong together"
    )
