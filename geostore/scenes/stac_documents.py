"""STAC documents: read from files, addresses and standard input, page after page.

A document is JSON of `type` Feature or FeatureCollection whose items have assets (STAC 0.6 to
1.1, and answers of STAC APIs). It comes from anywhere, so its size, its depth and the number of
its items and pages are bounded. Documents over http are fetched by the standard library: API
answers seldom say how long they are, which obstore needs to know.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO
from urllib.parse import quote, urlsplit, urlunsplit

from geostore.errors import (
    GeostoreError,
    NotFoundError,
    UnavailableError,
    UnreadableSourceError,
)
from geostore.scenes.remote_store import RangesRefusedError, RemoteStore
from geostore.scenes.remote_url import RemoteUrl
from geostore.scenes.stac_item import StacItem

__all__ = [
    "Document",
    "document_at",
    "document_in_file",
    "document_of_stdin",
    "is_stac_file",
    "items_of",
]

DOCUMENT_BYTES_MAX = 1 << 26
PAGES_MAX = 1000
ITEMS_MAX = 50_000
DOCUMENT_TIMEOUT_S = 60.0
_CHUNK_BYTES = 1 << 16
_SAFE = "/?%:@!$&'()*+,;=~-._|"
_STARTS = (b"{", b"\xef\xbb\xbf{")


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed STAC document and where it is from."""

    value: dict[str, Any]
    base: RemoteUrl | Path | None
    """What relative references in it are relative to: its address, or its folder; None for
    standard input."""
    shown: str


def _parsed(content: bytes, base: RemoteUrl | Path | None, shown: str) -> Document | None:
    """The document; None where the content is JSON of another kind.

    Raises:
        UnreadableSourceError: it begins like JSON and is none, or is nested without end.
    """
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UnreadableSourceError(f"{shown}: not readable as JSON: {str(error)[:200]}") from None
    return Document(value, base, shown) if _is_stac(value) else None


def _is_stac(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    if value.get("type") == "FeatureCollection":
        features = value.get("features")
        if not isinstance(features, list):
            return False
        return "stac_version" in value or all(_is_stac(one) for one in features[:1])
    return (
        value.get("type") == "Feature"
        and isinstance(value.get("assets"), dict)
        and isinstance(value.get("id"), str)
    )


def _refuse_size(shown: str) -> UnreadableSourceError:
    return UnreadableSourceError(
        f"{shown}: a JSON document of more than {DOCUMENT_BYTES_MAX} bytes; expected a STAC item"
        " or a page of items"
    )


def _read(stream: IO[bytes], shown: str, check: Callable[[], None]) -> bytes | None:
    """All of a stream that begins as a JSON object does, else None; at most so much."""
    content = bytearray()
    while chunk := stream.read(_CHUNK_BYTES):
        content += chunk
        check()
        if not bytes(content[:512]).lstrip().startswith(_STARTS):
            return None
        if len(content) > DOCUMENT_BYTES_MAX:
            raise _refuse_size(shown)
    return bytes(content) or None


def document_in_file(path: Path) -> Document | None:
    """The STAC document in a local file; None where it is none."""
    try:
        with path.open("rb") as file:
            content = _read(file, str(path), lambda: None)
    except OSError as error:
        raise UnreadableSourceError(f"{path}: {error.strerror or error}") from error
    return None if content is None else _parsed(content, path.absolute().parent, str(path))


def is_stac_file(path: str) -> bool:
    """Whether a local file holds a STAC document; False where it cannot be read."""
    try:
        return document_in_file(Path(path)) is not None
    except UnreadableSourceError:
        return False


def document_of_stdin(stream: BinaryIO) -> Document:
    """The STAC document on standard input, which must be one.

    Raises:
        UnreadableSourceError: it is none.
    """
    shown = "standard input"
    content = _read(stream, shown, lambda: None)
    document = None if content is None else _parsed(content, None, shown)
    if document is None:
        raise UnreadableSourceError(
            f"{shown}: expected a STAC item or item collection (JSON of type Feature or"
            " FeatureCollection with assets)"
        )
    link = _link(document.value, "self")
    if link is not None and link.startswith(("https://", "http://", "s3://")):
        return Document(document.value, RemoteUrl(link), shown)
    return document


def document_at(url: RemoteUrl, store: RemoteStore) -> Document | None:
    """The STAC document at an address; None where something else is there.

    Raises:
        NotFoundError, UnreadableSourceError, UnavailableError: as `RemoteStore.read`.
    """
    content = _s3_content(url, store) if url.is_s3 else _http_content(url, store)
    return None if content is None else _parsed(content, url, url.shown)


def _s3_content(url: RemoteUrl, store: RemoteStore) -> bytes | None:
    try:
        head = store.read(url, 0, _CHUNK_BYTES)
    except RangesRefusedError:
        return None
    if not head.data[:512].lstrip().startswith(_STARTS):
        return None
    if head.of.size > DOCUMENT_BYTES_MAX:
        raise _refuse_size(url.shown)
    if len(head.data) == head.of.size:
        return head.data
    return store.read(url, 0, head.of.size, e_tag=head.of.e_tag).data


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but none out of TLS or to what is not fetched from."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        allowed = ("https://",) if req.type == "https" else ("https://", "http://")
        if not newurl.startswith(allowed):
            raise urllib.error.HTTPError(req.full_url, code, "redirect", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


def _request(url: RemoteUrl) -> urllib.request.Request:
    headers = {"Accept": "application/geo+json, application/json, */*", "User-Agent": "geostore"}
    given, authorization = url.without_user()
    parts = urlsplit(given)
    # As obstore's client does: what is escaped stays, what may not stand there is escaped.
    path, query = (quote(text, safe=_SAFE) for text in (parts.path, parts.query))
    plain = urlunsplit((parts.scheme, parts.netloc, path, query, ""))
    request = urllib.request.Request(plain, headers=headers)  # noqa: S310 - http and https only
    if authorization is not None:  # which no other server is told
        request.add_unredirected_header("Authorization", authorization)
    return request


def _http_content(url: RemoteUrl, store: RemoteStore) -> bytes | None:
    return store.retried(url, lambda: _http_once(url, store))


def _http_once(url: RemoteUrl, store: RemoteStore) -> bytes | None:
    began = time.monotonic()

    def check() -> None:
        if time.monotonic() - began > DOCUMENT_TIMEOUT_S:
            raise UnavailableError(f"{url.shown}: the server was silent or too slow")

    try:
        timeout_s = store.patience.silence_timeout_s
        with _opener().open(_request(url), timeout=timeout_s) as response:
            return _read(response, url.shown, check)
    except GeostoreError:  # some are ValueErrors too
        raise
    except urllib.error.HTTPError as error:
        error.close()
        raise _refusal(url, error.code) from None
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise UnavailableError(
            f"{url.shown}: no usable answer from {url.origin} ({type(error).__name__})"
        ) from None
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise UnavailableError(
            f"{url.shown}: the connection broke off ({type(error).__name__})"
        ) from None


def _refusal(url: RemoteUrl, status: int) -> Exception:
    if status in (404, 410):
        return NotFoundError(f"{url.shown}: HTTP {status}, nothing is there")
    if status in (401, 403):
        return UnreadableSourceError(f"{url.shown}: HTTP {status}, the server refuses access")
    if 300 <= status < 400:
        return UnreadableSourceError(
            f"{url.shown}: redirected in a circle, or to where nothing is fetched from"
        )
    if status >= 500 or status in (408, 425, 429):
        return UnavailableError(f"{url.shown}: HTTP {status}")
    return UnreadableSourceError(f"{url.shown}: HTTP {status}; expected the object")


def items_of(document: Document, store: RemoteStore) -> Iterator[StacItem]:
    """Every item of a document and of the pages that follow it.

    Raises:
        UnreadableSourceError: an item that is none, too many, or a next page elsewhere.
    """
    count = 0
    for page in _pages(document, store):
        value = page.value
        is_page = value["type"] == "FeatureCollection"
        for feature in value["features"] if is_page else [value]:
            count += 1
            if count > ITEMS_MAX:
                raise UnreadableSourceError(
                    f"{document.shown}: more than {ITEMS_MAX} items; ask for fewer"
                )
            yield StacItem.of(feature, page.base, document.shown, is_part=is_page)


def _pages(document: Document, store: RemoteStore) -> Iterator[Document]:
    asked: set[str] = set()
    page: Document | None = document
    for _ in range(PAGES_MAX):
        assert page is not None
        yield page
        following = _next_page(page, document)
        if following is None:
            return
        if following.request in asked:
            raise UnreadableSourceError(f"{document.shown}: its pages lead in a circle")
        asked.add(following.request)
        page = document_at(following, store)
        if page is None or page.value["type"] != "FeatureCollection":
            raise UnreadableSourceError(f"{following.shown}: expected a page of STAC items")
    raise UnreadableSourceError(f"{document.shown}: more than {PAGES_MAX} pages; ask for fewer")


def _next_page(page: Document, first: Document) -> RemoteUrl | None:
    if page.value["type"] != "FeatureCollection":
        return None
    link = _link(page.value, "next")
    if link is None or not page.value["features"]:
        return None
    if not isinstance(page.base, RemoteUrl):
        return None  # a page saved to a file is that page
    url = RemoteUrl(page.base.joined(link))
    origin = first.base.origin if isinstance(first.base, RemoteUrl) else None
    if url.origin != origin:
        raise UnreadableSourceError(
            f"{page.shown}: its next page is at {url.origin}; expected {origin}"
        )
    return url


def _link(value: dict[str, Any], rel: str) -> str | None:
    """The href of the first link of that kind that a plain GET follows."""
    links = value.get("links")
    for link in links if isinstance(links, list) else []:
        if (
            isinstance(link, dict)
            and link.get("rel") == rel
            and isinstance(link.get("href"), str)
            and str(link.get("method", "GET")).upper() == "GET"
        ):
            return str(link["href"])
    return None
