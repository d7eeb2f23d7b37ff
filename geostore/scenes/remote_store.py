"""The one door to obstore: ranges, streams and listings of remote objects, errors as ours.

obstore speaks HTTP and S3 (its Rust core does TLS, redirects, signatures and range requests
outside Python's lock). Its own retries are off: pauses come from a clock and a generator that
tests replace, and what is worth another try is decided here. Its messages are never passed on,
since they hold whole addresses with their signatures.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from geostore.errors import (
    GeostoreError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    UnreadableSourceError,
)
from geostore.scenes.remote_url import RemoteUrl, is_remote

if TYPE_CHECKING:
    from obstore.store import HTTPStore, S3Store

__all__ = [
    "ChangedError",
    "Listed",
    "Patience",
    "Piece",
    "RangesRefusedError",
    "RemoteStore",
    "Validators",
]

_T = TypeVar("_T")

LISTED_MAX = 50_000
STORES_KEPT_MAX = 64
"""Clients with their connections; each signed address needs one of its own."""

_STATUS = re.compile(r"status code: (\d{3})\b")
_PAGE_KEYS = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


class RangesRefusedError(GeostoreError):
    """The server sends whole objects only."""


class ChangedError(GeostoreError):
    """The object is another than the one that was begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a server is waited for, and how often it is asked again."""

    tries_max: int = 5
    pause_first_s: float = 0.5
    """Pauses double from this, up to `pause_max_s`, each a random part of itself."""
    pause_max_s: float = 20.0
    connect_timeout_s: float = 10.0
    silence_timeout_s: float = 30.0
    """Without a single byte."""
    request_timeout_s: float = 120.0
    """For a whole piece, which keeps a server from sending a byte now and then for ever."""
    rate_min_bytes_s: float = 4096.0
    """Of objects that come in one go, after `silence_timeout_s`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validators:
    """What tells two states of an object apart."""

    size: int
    e_tag: str | None
    modified_us: int | None

    @property
    def can_tell(self) -> bool:
        """Whether an object that changed without changing its size would be noticed."""
        return self.e_tag is not None or self.modified_us is not None

    def to_json(self) -> dict[str, Any]:
        return {"size": self.size, "e_tag": self.e_tag, "modified_us": self.modified_us}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Validators:
        """Raises KeyError or TypeError where `value` is none."""
        size, e_tag, modified_us = value["size"], value["e_tag"], value["modified_us"]
        if not isinstance(size, int) or not isinstance(e_tag, str | None):
            raise TypeError("size or e_tag")
        if not isinstance(modified_us, int | None):
            raise TypeError("modified_us")
        return cls(size=size, e_tag=e_tag, modified_us=modified_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some bytes of an object, and what the object was when they were sent."""

    data: bytes
    of: Validators


@dataclass(frozen=True, slots=True)
class Listed:
    """A key of a bucket, relative to the folder asked for."""

    name: str
    size: int


@dataclass(kw_only=True)
class RemoteStore:
    """Reads objects of any server. Thread-safe.

    Args:
        environment: where S3 credentials come from; usually `os.environ`. Without any,
            requests are not signed.
        patience: see there.
        sleep, chance, clock: pauses, a number of 0..1 to vary them by, seconds that pass.
    """

    environment: Mapping[str, str]
    patience: Patience = field(default_factory=Patience)
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random
    clock: Callable[[], float] = time.monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _stores: OrderedDict[str, HTTPStore | S3Store] = field(default_factory=OrderedDict, repr=False)

    def read(
        self,
        url: RemoteUrl,
        start: int,
        stop: int,
        *,
        e_tag: str | None = None,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> Piece:
        """Bytes `start` up to `stop` of an object that has at least `start` + 1.

        Fewer than asked for only where the object ends. `e_tag`: only if it still has that.
        `is_wanted` is asked before each further try.

        Raises:
            RangesRefusedError, ChangedError. NotFoundError: 404. UnreadableSourceError: any
            other refusal. UnavailableError: no answer after all tries.
        """
        options: dict[str, Any] = {"range": (start, stop)}
        if e_tag is not None and not e_tag.startswith("W/"):  # weak ones never match (RFC 9110)
            options["if_match"] = e_tag
        return self.retried(url, lambda: self._read(url, options), is_wanted)

    def _read(self, url: RemoteUrl, options: dict[str, Any]) -> Piece:
        import obstore

        store, path = self._store(url)
        result = obstore.get(store, path, options=options)  # type: ignore[arg-type]
        of = _validators(result.meta)
        start, stop = options["range"]
        expected = min(stop, of.size) - start
        data = bytes(result.bytes())
        if len(data) != expected:
            raise UnavailableError(
                f"{url.shown}: the server sent {len(data)} bytes of {expected} that it announced"
            )
        return Piece(data=data, of=of)

    def stream(self, url: RemoteUrl) -> tuple[Validators, Iterator[bytes]]:
        """A whole object, as it comes. Broken off, it is not tried again: the caller does.

        The iterator raises UnavailableError where it breaks off or comes too slowly.
        """
        import obstore

        def begin() -> Any:
            # Without a limit on the whole: nothing says how large the object is.
            store, path = self._store(url, is_whole=True)
            return obstore.get(store, path)

        result = self.retried(url, begin)
        return _validators(result.meta), self._chunks(url, result)

    def _chunks(self, url: RemoteUrl, result: Any) -> Iterator[bytes]:
        from obstore.exceptions import BaseError

        began, received = self.clock(), 0
        chunks = iter(result.stream(min_chunk_size=1))
        while True:
            try:
                chunk = bytes(next(chunks))
            except StopIteration:
                return
            except (BaseError, OSError) as error:
                raise _translated(url, error) from None
            received += len(chunk)
            self._check_rate(url, received, self.clock() - began)
            yield chunk

    def _check_rate(self, url: RemoteUrl, received: int, passed_s: float) -> None:
        least = self.patience.rate_min_bytes_s
        if passed_s > self.patience.silence_timeout_s and received < passed_s * least:
            raise UnavailableError(
                f"{url.shown}: the server sent {received} bytes in {passed_s:.0f} s; expected"
                f" {least:.0f} a second"
            )

    def is_empty(self, url: RemoteUrl) -> Validators | None:
        """The state of an object of no bytes, of which no range can be asked; else None."""
        of, chunks = self.stream(url)
        for chunk in chunks:
            if chunk:
                return None
        return of

    def listing(self, folder: RemoteUrl) -> list[Listed]:
        """Every object below a folder of a bucket, by name; zero-byte folder marks left out.

        Raises:
            UnreadableSourceError: over http(s), which has no listings, or too many objects.
        """
        if not folder.is_s3:
            raise UnreadableSourceError(
                f"{folder.shown}: http servers list no folders; expected the address of a file,"
                " an archive or a STAC item"
            )
        return self.retried(folder, lambda: self._listing(folder))

    def _listing(self, folder: RemoteUrl) -> list[Listed]:
        import obstore

        store, _ = self._store(folder)
        prefix = folder.key.rstrip("/")
        found: list[Listed] = []
        for page in obstore.list(store, prefix or None, chunk_size=_PAGE_KEYS):
            for meta in page:
                name = meta["path"].removeprefix(prefix).lstrip("/")
                if name and not meta["path"].endswith("/"):
                    found.append(Listed(name, int(meta["size"])))
            if len(found) > LISTED_MAX:
                raise UnreadableSourceError(
                    f"{folder.shown}: more than {LISTED_MAX} objects; name a smaller part"
                )
        return sorted(found, key=lambda one: one.name)

    # ------------------------------------------------------------ inside

    def _store(self, url: RemoteUrl, *, is_whole: bool = False) -> tuple[Any, str]:
        """The client for an address, and the path to ask it for."""
        # An http address is a store of its own, asked for "": so its query and its escapes
        # are sent as they were given.
        name = url.origin if url.is_s3 else url.request.partition("#")[0]
        with self._lock:
            store = self._stores.pop(f"{is_whole} {name}", None)
            if store is None:
                store = self._opened(url, is_whole=is_whole)
            self._stores[f"{is_whole} {name}"] = store
            while len(self._stores) > STORES_KEPT_MAX:
                self._stores.popitem(last=False)
        return store, url.key.rstrip("/") if url.is_s3 else ""

    def _opened(self, url: RemoteUrl, *, is_whole: bool) -> HTTPStore | S3Store:
        from obstore.store import HTTPStore, S3Store

        client: Any = {
            "connect_timeout": timedelta(seconds=self.patience.connect_timeout_s),
            "read_timeout": timedelta(seconds=self.patience.silence_timeout_s),
            "timeout": timedelta(
                seconds=86_400 if is_whole else self.patience.request_timeout_s,
            ),
            "user_agent": "geostore",
        }
        retry: Any = {"max_retries": 0, "retry_timeout": timedelta(seconds=1)}
        if not url.is_s3:
            # Plain http only where it was asked for: a redirect must not leave TLS.
            client["allow_http"] = url.scheme == "http"
            plain, authorization = url.without_user()
            if authorization is not None:
                client["default_headers"] = {"authorization": authorization}
            return HTTPStore.from_url(plain, client_options=client, retry_config=retry)
        environment = self.environment
        endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
        if endpoint and (not is_remote(endpoint) or RemoteUrl(endpoint).is_s3):
            raise InvalidInputError(
                f"AWS_ENDPOINT_URL {endpoint[:80]!r}: expected the http:// or https:// address of"
                " an S3 server"
            )
        client["allow_http"] = bool(endpoint and endpoint.startswith("http://"))
        config: dict[str, Any] = {
            key.lower(): value
            for key, value in environment.items()
            if key.startswith("AWS_") and value and key in _S3_VARIABLES
        }
        if endpoint:
            config["aws_endpoint"] = endpoint
        if environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION"):
            config["aws_region"] = (
                environment.get("AWS_REGION") or environment["AWS_DEFAULT_REGION"]
            )
        if not any(environment.get(variable) for variable in _CREDENTIALS):
            # Else the client would ask 169.254.169.254, which is not there off Amazon.
            config["aws_skip_signature"] = "true"
        return S3Store(url.bucket, config=config, client_options=client, retry_config=retry)  # type: ignore[arg-type]

    def retried(
        self, url: RemoteUrl, work: Callable[[], _T], is_wanted: Callable[[], bool] = lambda: True
    ) -> _T:
        """What `work` gives, tried again where trying may help, by `patience`."""
        from obstore.exceptions import BaseError

        tried = 0
        while True:
            tried += 1
            trouble: GeostoreError
            try:
                return work()
            except GeostoreError as error:
                trouble = error
            except (BaseError, OSError, ValueError) as error:
                trouble = _translated(url, error)
            except BaseException as error:
                if type(error).__name__ != "PanicException":  # pyo3's, which cannot be imported
                    raise
                trouble = UnreadableSourceError(f"{url.shown}: obstore cannot ask for it")
            if not isinstance(trouble, UnavailableError):
                raise trouble from None
            if tried >= self.patience.tries_max or not is_wanted():
                raise UnavailableError(f"{trouble} ({tried} tries)") from None
            longest_s = min(
                self.patience.pause_max_s, self.patience.pause_first_s * 2.0 ** (tried - 1)
            )
            self.sleep(longest_s * (0.5 + self.chance() / 2))


_S3_VARIABLES = frozenset(
    {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_SKIP_SIGNATURE",
        "AWS_REQUEST_PAYER",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_ROLE_ARN",
        "AWS_ROLE_SESSION_NAME",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    }
)


def _validators(meta: Any) -> Validators:
    modified = meta["last_modified"]
    # What obstore says where the server says nothing.
    is_known = modified is not None and modified != _EPOCH
    e_tag = meta["e_tag"] or None
    return Validators(
        size=int(meta["size"]),
        e_tag=e_tag,
        # Servers behind one name may differ in it by seconds: only where there is no tag.
        modified_us=None if e_tag or not is_known else int(modified.timestamp()) * 1_000_000,
    )


def _translated(url: RemoteUrl, error: Exception) -> GeostoreError:
    """Ours for obstore's, without its words: they may hold the whole address."""
    text = str(error)
    name = type(error).__name__
    match = _STATUS.search(text)
    status = int(match[1]) if match else None
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return NotFoundError(f"{url.shown}: HTTP {status or 404}, nothing is there")
    if name == "PreconditionError":
        return ChangedError(f"{url.shown}: changed while it was fetched")
    if name == "NotSupportedError":
        return RangesRefusedError(f"{url.shown}: the server sends no parts of objects")
    if name in ("UnauthenticatedError", "PermissionDeniedError") or status in (401, 403):
        hint = (
            "; credentials are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the environment"
            if url.is_s3
            else "; signed addresses expire"
        )
        return UnreadableSourceError(
            f"{url.shown}: HTTP {status or 403}, the server refuses access{hint}"
        )
    if status is not None and (status >= 500 or status in (408, 425, 429)):
        return UnavailableError(f"{url.shown}: HTTP {status}")
    if status is not None:
        region = "; is AWS_REGION the bucket's?" if url.is_s3 and status in (301, 307, 400) else ""
        return UnreadableSourceError(
            f"{url.shown}: HTTP {status}; expected the object or a part of it{region}"
        )
    return _without_status(url, text, name)


def _without_status(url: RemoteUrl, text: str, name: str) -> GeostoreError:
    """Where the server gave no status, or what it said makes no sense."""
    if "redirect" in text:
        return UnreadableSourceError(
            f"{url.shown}: redirected in a circle, or to where nothing is fetched from"
        )
    if "Content-Length" in text or "ContentLength" in text:
        return UnreadableSourceError(
            f"{url.shown}: the server does not say how long the object is; expected that"
        )
    if name == "InvalidPathError":
        return UnreadableSourceError(
            f"{url.shown}: expected a key without empty or dotted parts ('//', '/../')"
        )
    if "Timeout" in text or "TimedOut" in text:
        return UnavailableError(f"{url.shown}: the server was silent or too slow")
    if "Connect" in text:
        return UnavailableError(f"{url.shown}: no connection to {url.origin}")
    if "IncompleteBody" in text or "Interrupted" in text or "UnexpectedEof" in text:
        return UnavailableError(f"{url.shown}: the connection broke off")
    return UnavailableError(f"{url.shown}: no usable answer from {url.origin} ({name})")
