"""Addresses of remote objects as values: what to ask for, what to say, what to remember.

A URL may carry a password or a signature. Three forms of it are kept apart, so that neither
gets into a message, a record or a file's name: `request` is what is sent, `shown` what people
read, `identity` what a cache remembers an object by.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import parse_qsl, quote, unquote, urlencode, urljoin, urlsplit, urlunsplit

from geostore.errors import InvalidInputError

__all__ = ["REMOTE_SCHEMES", "RemoteUrl", "is_remote"]

REMOTE_SCHEMES = ("https", "http", "s3")
URL_CHARACTERS_MAX = 8192
NAME_BYTES_MAX = 200

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_BUCKET = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$")
# What obstore's HTTP client takes: on any other character it panics.
_HOST = re.compile(r"^(?:[\w.-]{1,253}|[0-9A-Fa-f:.]{2,45})$")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
# What signed URLs add (AWS, CloudFront, Google, Azure SAS): it differs at every signing and
# says nothing of the object.
_SIGNATURE = re.compile(
    r"^(x-(amz|goog)-.*|signature|expires|policy|key-pair-id|awsaccesskeyid|googleaccessid"
    r"|token|sig|se|sp|sv|sr|st|spr|sip|sks|ske|skt|skv|skoid|sktid|ss|srt)$",
    re.IGNORECASE,
)


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is an address that geostore fetches from; a local path may hold `://`."""
    match = _SCHEME.match(os.fspath(path))
    return match is not None and match[1].lower() in REMOTE_SCHEMES


@dataclass(frozen=True, slots=True)
class RemoteUrl:
    """An object, or with a `/` at its end a folder, at http(s) or in an S3 bucket.

    Raises:
        InvalidInputError: not such an address; the message holds no more of it than `shown`.
    """

    request: str
    """The whole address, secrets included. Never to be shown or written."""

    def __post_init__(self) -> None:
        text = self.request
        match = _SCHEME.match(text)
        if match is None or match[1].lower() not in REMOTE_SCHEMES:
            raise InvalidInputError(
                f"address {_without_secrets(text)!r}: expected one of"
                f" {', '.join(f'{scheme}://' for scheme in REMOTE_SCHEMES)}"
            )
        if len(text) > URL_CHARACTERS_MAX or _UNPRINTABLE.search(text):
            raise InvalidInputError(
                f"address {_without_secrets(text)[:200]!r}: expected at most"
                f" {URL_CHARACTERS_MAX} characters, none of them a control character"
            )
        try:
            text.encode()
            is_whole = bool((_BUCKET if self.is_s3 else _HOST).match(self._host))
        except ValueError:  # brackets that do not close, a port that is none, half a character
            is_whole = False
        if not is_whole:
            what = "s3://bucket/key" if self.is_s3 else "https://host/path"
            raise InvalidInputError(f"address {_without_secrets(text)!r}: expected {what}")

    @property
    def scheme(self) -> str:
        return self.request.partition("://")[0].lower()

    @property
    def is_s3(self) -> bool:
        return self.scheme == "s3"

    @property
    def _host(self) -> str:
        if self.is_s3:
            return self.bucket
        parts = urlsplit(self.request)
        return (parts.hostname or "") if parts.port != 0 else ""  # which checks the port

    @property
    def bucket(self) -> str:
        """The bucket of an s3 address."""
        return self.request.partition("://")[2].partition("/")[0]

    @property
    def key(self) -> str:
        """The key of an s3 address, literally: `?`, `#` and `%` are part of it."""
        return self.request.partition("://")[2].partition("/")[2]

    @property
    def path(self) -> str:
        """The path below host or bucket, as people write it."""
        return f"/{self.key}" if self.is_s3 else unquote(urlsplit(self.request).path)

    @property
    def is_folder(self) -> bool:
        return self.path.endswith("/") or not self.path

    @property
    def origin(self) -> str:
        """Scheme and host or bucket: who answers for the address."""
        if self.is_s3:
            return f"s3://{self.bucket}"
        parts = urlsplit(self.request)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}{port}"

    @property
    def shown(self) -> str:
        """For messages, results and records: no user, password, query or fragment."""
        return _without_secrets(self.request)

    @property
    def identity(self) -> str:
        """What a cache knows the object by: everything but user, fragment and signature."""
        if self.is_s3:
            return f"{self.origin}/{self.key}"
        parts = urlsplit(self.request)
        query = [
            (name, value)
            for name, value in parse_qsl(parts.query, keep_blank_values=True)
            if not _SIGNATURE.match(name)
        ]
        return f"{self.origin}{parts.path}" + (f"?{urlencode(query)}" if query else "")

    @property
    def name(self) -> str:
        """The last part of the path, as a file of this machine may be called; "" for none.

        Raises:
            InvalidInputError: it cannot name a file.
        """
        name = PurePosixPath(self.path).name if self.path.strip("/") else ""
        if _UNPRINTABLE.search(name) or name == ".." or len(name.encode()) > NAME_BYTES_MAX:
            raise InvalidInputError(
                f"address {self.shown[:300]!r}: its last part cannot be a file's name; expected"
                f" at most {NAME_BYTES_MAX} bytes without control characters"
            )
        return name

    def without_user(self) -> tuple[str, str | None]:
        """The http address to ask for without user and fragment, and the user as a header."""
        parts = urlsplit(self.request)
        plain = urlunsplit(
            (parts.scheme, parts.netloc.rpartition("@")[2], parts.path or "/", parts.query, "")
        )
        if parts.username is None:
            return plain, None
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return plain, f"Basic {b64encode(user.encode()).decode()}"

    def joined(self, reference: str) -> str:
        """What `reference`, found in the document at this address, stands for."""
        if _SCHEME.match(reference):
            return reference
        if not self.is_s3:
            try:
                return urljoin(self.request, reference)
            except ValueError as error:  # brackets that do not close
                raise InvalidInputError(
                    f"reference {reference[:80]!r} in {self.shown}: expected an address"
                ) from error
        # urljoin knows no s3: a stand-in of the same shape does.
        stand_in = urljoin(f"http://bucket/{quote(self.key)}", reference)
        return f"{self.origin}{unquote(urlsplit(stand_in).path)}"

    def child(self, relative: str) -> RemoteUrl:
        """The object of that key below this folder of a bucket."""
        return RemoteUrl(f"{self.request.rstrip('/')}/{relative}")

    def __repr__(self) -> str:
        return f"RemoteUrl({self.shown!r})"

    def __str__(self) -> str:
        return self.shown


def _without_secrets(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    if not separator:
        return re.split(r"[?#]", text, maxsplit=1)[0]
    if scheme.lower() == "s3":
        return text
    try:
        parts = urlsplit(text)
    except ValueError:
        return f"{scheme}://…"
    del rest
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
