"""Channels: how a process reaches a node, in the open or through TLS.

Plaintext is for one machine. Anything that leaves it is TLS from files, on both sides, or was
asked for by name as insecure.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from geostore.config import HostPort, parse_listen
from geostore.errors import InvalidInputError, NotFoundError, UnavailableError

__all__ = [
    "CHUNK_BYTES",
    "MESSAGE_BYTES_MAX",
    "PLAINTEXT",
    "UNREAD_BYTES",
    "Channels",
    "Security",
    "TlsFiles",
    "open_channel",
    "server_credentials",
]

MESSAGE_BYTES_MAX = 8 << 20
"""No message is larger, either way; gRPC ends a call that sends one."""

CHUNK_BYTES = 1 << 20
"""Bulk bytes travel in messages of about this size: larger ones are slower."""

UNREAD_BYTES: Final = 64 << 10
"""Of rows that one node may send another ahead of its reading: 1,500 of them. An answer that is
merged is read from all nodes in turn, and often let go after its first rows: what lies unread
has cost a processor that others waited for.
"""

_PEM_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: this process's certificate chain and key, and who signs its peers'."""

    cert: Path
    key: Path
    ca: Path

    def __post_init__(self) -> None:
        for name in ("cert", "key", "ca"):
            object.__setattr__(self, name, Path(getattr(self, name)))

    def read(self) -> tuple[bytes, bytes, bytes]:
        """The contents of cert, key and ca.

        Raises:
            NotFoundError: a file is not there.
            InvalidInputError: a file is no PEM file, or the key is not the certificate's.
            UnavailableError: a file cannot be read.
        """
        cert = _read_pem(self.cert, "--tls-cert", b"CERTIFICATE")
        key = _read_pem(self.key, "--tls-key", b"PRIVATE KEY")
        ca = _read_pem(self.ca, "--tls-ca", b"CERTIFICATE")
        self._check()
        return cert, key, ca

    def _check(self) -> None:
        """Loads the files as TLS will: gRPC would fail at the first connection, without a word.

        Raises InvalidInputError, as `read`.
        """
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(self.ca)
        except (ssl.SSLError, ValueError) as error:
            raise InvalidInputError(
                f"--tls-ca {self.ca}: no certificate in it can be read ({_reason(error)}):"
                " expected the PEM certificate of the authority that signs nodes and clients"
            ) from None
        try:
            # An empty password has an encrypted key fail here instead of asking at a terminal.
            context.load_cert_chain(self.cert, self.key, password="")
        except (ssl.SSLError, ValueError) as error:
            reason = _reason(error)
            why = (
                "the key is not the one that the certificate was made for"
                if "MISMATCH" in reason
                else f"they cannot be read ({reason})"
            )
            raise InvalidInputError(
                f"--tls-cert {self.cert}, --tls-key {self.key}: {why}: expected a PEM certificate"
                " and its own private key, without a password"
            ) from None


@dataclass(frozen=True, slots=True)
class Security:
    """How connections are protected; the default lets only this machine in.

    Raises:
        InvalidInputError: both TLS and insecure.
    """

    tls: TlsFiles | None = None
    insecure: bool = False
    """Plaintext also beyond this machine, asked for by name."""

    def __post_init__(self) -> None:
        if self.tls is not None and self.insecure:
            raise InvalidInputError("got both TLS files and --insecure, expected one of them")

    def check_address(self, address: HostPort) -> None:
        """Raises InvalidInputError: the address leaves this machine unprotected."""
        if self.tls is None and not self.insecure and not address.is_loopback:
            raise InvalidInputError(
                f"address {address}: it is not this machine's loopback, so the connection needs"
                " TLS (--tls-cert, --tls-key, --tls-ca) or, on a network that nobody else can"
                " reach, --insecure; clients are told by GEOSTORE_TLS_CERT, GEOSTORE_TLS_KEY,"
                " GEOSTORE_TLS_CA, GEOSTORE_INSECURE or the same names in the --config file"
            )


PLAINTEXT = Security()
"""Loopback only."""


def open_channel(
    address: str, security: Security = PLAINTEXT, *, unread_bytes: int | None = None
) -> grpc.Channel:
    """A channel to the node at `host:port`; it connects when first used.

    `unread_bytes`: how much a node may send ahead of whoever reads its stream; None: as much as
    gRPC finds that the network holds, which is megabytes.

    Raises:
        InvalidInputError: not an address, or one that `security` does not cover.
        NotFoundError, UnavailableError: a TLS file cannot be read.
    """
    target = parse_listen(address)
    if target.port == 0:
        raise InvalidInputError(f"address {address!r}: port 0 can be served at, not called")
    security.check_address(target)
    options = _client_options()
    if unread_bytes is not None:
        options += [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", unread_bytes)]
    if security.tls is None:
        return grpc.insecure_channel(str(target), options=options)
    cert, key, ca = security.tls.read()
    credentials = grpc.ssl_channel_credentials(
        root_certificates=ca, private_key=key, certificate_chain=cert
    )
    return grpc.secure_channel(str(target), credentials, options=options)


def server_credentials(security: Security) -> grpc.ServerCredentials | None:
    """What a server listens with: mutual TLS, or None for plaintext."""
    if security.tls is None:
        return None
    cert, key, ca = security.tls.read()
    return grpc.ssl_server_credentials(
        [(key, cert)], root_certificates=ca, require_client_auth=True
    )


class Channels:
    """The channels of one process, one an address, made when first asked for.

    Thread-safe. Closed once, by whoever made it. gRPC's threads do not live through a fork: a
    child finds none of its parent's channels and makes its own.
    """

    def __init__(
        self,
        security: Security = PLAINTEXT,
        *,
        open_one: Callable[[str, Security], grpc.Channel] = open_channel,
    ) -> None:
        self.security = security
        self._open_one = open_one
        self._lock = threading.Lock()
        self._channels: dict[str, grpc.Channel] = {}
        self._process = os.getpid()
        self._is_closed = False

    def channel(self, address: str) -> grpc.Channel:
        """The channel to an address.

        Raises:
            InvalidInputError: as `open_channel`.
            UnavailableError: closed.
        """
        self._drop_parents()
        with self._lock:
            if self._is_closed:
                raise UnavailableError(f"node {address}: the connection is closed")
            channel = self._channels.get(address)
            if channel is None:
                channel = self._channels[address] = self._open_one(address, self.security)
            return channel

    def forget(self, address: str) -> None:
        """Closes the channel to an address, if there is one: its node moved or left."""
        self._drop_parents()
        with self._lock:
            channel = self._channels.pop(address, None)
        if channel is not None:
            channel.close()

    def close(self) -> None:
        """Closes all channels, which ends their calls; a second call does nothing."""
        self._drop_parents()
        with self._lock:
            self._is_closed = True
            channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            channel.close()

    def _drop_parents(self) -> None:
        if self._process == os.getpid():
            return
        # The parent's lock may be held for ever here, and its channels must not be closed: they
        # are left to the process's end, where their finalizers would wait for lost threads.
        _parents_channels.append(self._channels)
        self._lock = threading.Lock()
        self._channels = {}
        self._process = os.getpid()


_parents_channels: list[dict[str, grpc.Channel]] = []


def _client_options() -> list[tuple[str, int | str]]:
    return [
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        # A node whose machine is gone is noticed, also while it should be streaming.
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # Nodes are called at the addresses they gave: a proxy of the environment is not meant.
        ("grpc.enable_http_proxy", 0),
        # One connection a channel, so that closing the channel closes it.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        # Whoever calls decides what to try again, and where: geostore's calls are not alike.
        ("grpc.enable_retries", 0),
    ]


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error) or type(error).__name__


def _read_pem(path: Path, option: str, kind: bytes) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(_PEM_BYTES_MAX + 1)
    except FileNotFoundError:
        raise NotFoundError(f"{option} {path}: no such file") from None
    except OSError as error:
        raise UnavailableError(f"{option} {path}: cannot be read: {error}") from error
    if len(text) > _PEM_BYTES_MAX or b"-----BEGIN" not in text or kind not in text:
        raise InvalidInputError(f"{option} {path}: expected a PEM file with a {kind.decode()}")
    return text
