"""Settings: flags win over `GEOSTORE_*` variables, which win over a TOML file.

Nothing here reads the process's environment or opens a store by itself: the caller hands in
flags, environment and file, so the same rules serve the command line, Python and tests.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Final

from geostore.errors import InvalidInputError, NotFoundError

__all__ = [
    "ENVIRONMENT_PREFIX",
    "STORE_DEFAULT",
    "HostPort",
    "Settings",
    "Target",
    "installed_version",
    "load_settings",
    "parse_bytes",
    "parse_listen",
    "parse_target",
]

ENVIRONMENT_PREFIX: Final = "GEOSTORE_"
STORE_DEFAULT: Final = "./geostore-data"
CLUSTER_SCHEME: Final = "geostore://"
OUTPUT_FORMATS: Final = ("table", "jsonl", "csv")
HOSTS_MAX: Final = 64


@cache
def installed_version() -> str:
    """The version of the package, which nodes tell each other and `--version` prints."""
    from importlib import metadata

    try:
        return metadata.version("geostore")
    except metadata.PackageNotFoundError:  # run from a checkout that was never installed
        return "0+unknown"


@dataclass(frozen=True, slots=True)
class HostPort:
    """One node's address."""

    host: str
    """A name or an IP address, IPv6 without its brackets."""
    port: int

    @property
    def is_loopback(self) -> bool:
        """Only this machine can reach it: `localhost`, 127.0.0.0/8 or ::1.

        Names are not looked up: what a name means may change, and plaintext must not leave
        the machine because of it.
        """
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError:
            return self.host.lower() == "localhost"
        mapped = getattr(address, "ipv4_mapped", None)
        return bool((mapped or address).is_loopback)

    @property
    def is_wildcard(self) -> bool:
        """All addresses of a machine: one can listen there, but nobody can call it."""
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError:
            return self.host == "*"
        mapped = getattr(address, "ipv4_mapped", None)
        return bool((mapped or address).is_unspecified)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a store is: exactly one of a directory and a cluster's nodes."""

    path: Path | None = None
    hosts: tuple[HostPort, ...] = ()

    def __post_init__(self) -> None:
        if (self.path is None) == (not self.hosts):
            raise InvalidInputError("store target: expected either a directory or hosts")

    @property
    def is_cluster(self) -> bool:
        return bool(self.hosts)

    def __str__(self) -> str:
        if self.path is not None:
            return str(self.path)
        return CLUSTER_SCHEME + ",".join(str(host) for host in self.hosts)


_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\s:/@\[\]?#]+)):([0-9]{1,5})", re.ASCII)


def _split_host(text: str, *, port_min: int) -> HostPort | None:
    match = _HOST_PORT.fullmatch(text)
    if not match or not port_min <= int(match[3]) <= 65535:
        return None
    return HostPort(match[1] or match[2], int(match[3]))


def _parse_host(text: str, whole: str) -> HostPort:
    address = _split_host(text, port_min=1)
    if address is None:
        raise InvalidInputError(
            f"store {whole!r}: {text!r} is not HOST:PORT with a port of 1..65535;"
            " expected geostore://host:port[,host:port...]"
        )
    return address


def parse_listen(text: str) -> HostPort:
    """The address that a node serves at; port 0 lets the system choose one.

    >>> parse_listen("[::1]:0")
    HostPort(host='::1', port=0)

    Raises:
        InvalidInputError: not HOST:PORT.
    """
    address = _split_host(text.strip(), port_min=0)
    if address is None:
        raise InvalidInputError(
            f"address {text!r}: expected HOST:PORT with a port of 0..65535 (0: any free one),"
            " such as 127.0.0.1:7440 or [::1]:0"
        )
    return address


def parse_target(text: str | os.PathLike[str]) -> Target:
    """A store's target: a directory, or `geostore://host:port[,host:port...]`.

    A leading `~` is the user's home directory, also where no shell expanded it.

    >>> str(parse_target("geostore://a:7440,[::1]:7441").hosts[1])
    '[::1]:7441'
    >>> parse_target("./data").is_cluster
    False

    Raises:
        InvalidInputError: empty, an address without a port, or another URL scheme.
    """
    text = os.fspath(text)
    if not text.strip() or "\0" in text:
        raise InvalidInputError(
            f"store {text!r}: expected a directory or geostore://host:port[,host:port...]"
        )
    if text.startswith(CLUSTER_SCHEME):
        parts = text.removeprefix(CLUSTER_SCHEME).rstrip("/").split(",")
        if len(parts) > HOSTS_MAX:
            raise InvalidInputError(f"store: got {len(parts)} hosts, expected at most {HOSTS_MAX}")
        hosts = tuple(_parse_host(part.strip(), text) for part in parts)
        return Target(hosts=tuple(dict.fromkeys(hosts)))
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", text)
    if scheme and scheme[1].lower() == "geostore":
        raise InvalidInputError(f"store {text!r}: expected geostore://host:port[,host:port...]")
    if scheme:
        raise InvalidInputError(
            f"store {text!r}: scheme {scheme[1]}: is not known; expected a directory or"
            " geostore://host:port[,host:port...]"
        )
    return Target(path=Path(text).expanduser())


_SIZE = re.compile(r"^([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(i?)B?$", re.IGNORECASE)


def parse_bytes(text: str | int) -> int:
    """A size in bytes: `1048576`, `512MiB`, `2GB`.

    >>> parse_bytes("1.5KiB")
    1536

    Raises:
        InvalidInputError: unreadable or not positive.
    """
    match = _SIZE.match(str(text).strip())
    size = 0
    if match:
        base = 1024 if match[3] else 1000
        size = int(float(match[1]) * base ** " KMGT".index((match[2] or " ").upper()))
    if size < 1:
        raise InvalidInputError(
            f"size {text!r}: expected a positive number of bytes, such as 2GB or 512MiB"
        )
    return size


def _parse_workers(value: str | int) -> int:
    try:
        workers = int(value)
    except ValueError:
        workers = 0
    if not 1 <= workers <= 1024:
        raise InvalidInputError(f"workers {value!r}: expected a whole number of 1..1024")
    return workers


def _parse_format(value: str | int) -> str:
    if value not in OUTPUT_FORMATS:
        raise InvalidInputError(f"format {value!r}: expected one of {', '.join(OUTPUT_FORMATS)}")
    return str(value)


def _parse_store(value: str | int) -> str:
    return str(parse_target(str(value)))


def _parse_file(value: str | int) -> str:
    text = str(value)
    if not text.strip() or "\0" in text:
        raise InvalidInputError(f"file {text!r}: expected a path")
    return str(Path(text).expanduser())


_SWITCH: Final = {"1": True, "true": True, "yes": True, "on": True} | {
    "0": False, "false": False, "no": False, "off": False
}  # fmt: skip


def _parse_switch(value: str | int) -> bool:
    switch = _SWITCH.get(str(value).strip().lower())
    if switch is None:
        raise InvalidInputError(f"switch {value!r}: expected true or false")
    return switch


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a user may set once instead of at every call."""

    store: str = STORE_DEFAULT
    """The store's target; `parse_target` reads it."""
    workers: int | None = None
    """Threads of ingest; None: as many as there are processors."""
    memory_bytes: int | None = None
    """Bound on what a read or an ingest may hold at once; None: a share of the machine's."""
    cache: str | None = None
    """Directory of what was fetched from addresses; None: `geostore` in the user's cache."""
    cache_bytes: int | None = None
    """How much the cache keeps; None: 20 GiB."""
    format: str | None = None
    """Output of listings; None: a table on a terminal, jsonl in a pipe."""
    tls_ca: str | None = None
    """A PEM file: who signs the certificates of a cluster's nodes and, for nodes, clients."""
    tls_cert: str | None = None
    """A PEM file: this process's own certificate, with its chain."""
    tls_key: str | None = None
    """A PEM file: the private key of `tls_cert`."""
    insecure: bool = False
    """Speak plaintext beyond this machine too, where no TLS files are given."""

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = ("tls_cert", "tls_key")[:: 1 if self.tls_cert else -1]
            raise InvalidInputError(
                f"{given} {getattr(self, given)!r} is given without {missing}: a certificate and"
                f" its private key go together (--{missing.replace('_', '-')},"
                f" {ENVIRONMENT_PREFIX}{missing.upper()})"
            )

    @property
    def target(self) -> Target:
        return parse_target(self.store)


_PARSERS: Final[dict[str, Callable[[str | int], str | int]]] = {
    "store": _parse_store,
    "workers": _parse_workers,
    "memory_bytes": parse_bytes,
    "cache": _parse_file,
    "cache_bytes": parse_bytes,
    "format": _parse_format,
    "tls_ca": _parse_file,
    "tls_cert": _parse_file,
    "tls_key": _parse_file,
    "insecure": _parse_switch,
}
_FILES: Final = ("cache", "tls_ca", "tls_cert", "tls_key")
SETTING_NAMES: Final = tuple(field.name for field in fields(Settings))


def _read_file(path: Path) -> dict[str, object]:
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise NotFoundError(f"configuration file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"configuration file {path}: {error}") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(f"configuration file {path}: not TOML: {error}") from None


def _checked(name: str, value: object, where: str) -> str | int:
    if (isinstance(value, bool) and name != "insecure") or not isinstance(value, str | int):
        raise InvalidInputError(f"{where}: {name} is {value!r}, expected text or a whole number")
    try:
        return _PARSERS[name](value)
    except InvalidInputError as error:
        raise InvalidInputError(f"{where}: {error}") from None


def load_settings(
    flags: Mapping[str, object] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    config_file: str | os.PathLike[str] | None = None,
) -> Settings:
    """The settings in force.

    Args:
        flags: by setting name; a None is a flag that was not given.
        environment: usually `os.environ`; `GEOSTORE_STORE` sets `store`, and so on. Empty
            values and names that are no setting are ignored: the environment is shared.
        config_file: a TOML file of settings; without it `GEOSTORE_CONFIG` names one. A
            relative `store`, `cache` or TLS file in it is relative to it.

    Raises:
        InvalidInputError: an unknown name in flags or file, a value that cannot be, or a
            certificate without its key. Whether TLS files are there is seen when they are used.
        NotFoundError: the configuration file is not there.
    """
    environment = environment or {}
    chosen: dict[str, str | int] = {}
    config_file = config_file or environment.get(f"{ENVIRONMENT_PREFIX}CONFIG") or None
    if config_file is not None:
        path = Path(config_file).expanduser()
        for name, value in _read_file(path).items():
            _require_known(name, f"configuration file {path}")
            chosen[name] = _checked(name, value, f"configuration file {path}")
        store = parse_target(str(chosen["store"])) if "store" in chosen else None
        if store is not None and store.path is not None:
            chosen["store"] = str(path.parent / store.path)
        chosen |= {name: str(path.parent / str(chosen[name])) for name in _FILES if name in chosen}
    for name in SETTING_NAMES:
        variable = ENVIRONMENT_PREFIX + name.upper()
        if environment.get(variable):
            chosen[name] = _checked(name, environment[variable], f"variable {variable}")
    for name, value in (flags or {}).items():
        _require_known(name, "settings")
        if value is not None:
            chosen[name] = _checked(name, value, f"--{name.replace('_', '-')}")
    return Settings(**chosen)  # type: ignore[arg-type]  # _PARSERS gives each its type


def _require_known(name: str, where: str) -> None:
    if name not in _PARSERS:
        raise InvalidInputError(
            f"{where}: {name!r} is not a setting; expected one of {', '.join(SETTING_NAMES)}"
        )
