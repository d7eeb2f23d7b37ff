"""What lies at an address, in a STAC document or on standard input, as sources to open."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from geostore.errors import GeostoreError, NotFoundError
from geostore.scenes.find import STDIN, FoundSource
from geostore.scenes.registry import claimant
from geostore.scenes.remote import Remote
from geostore.scenes.remote_cache import Turn
from geostore.scenes.remote_url import RemoteUrl
from geostore.scenes.scene import ReadOptions, Scene
from geostore.scenes.stac_documents import (
    Document,
    document_at,
    document_in_file,
    document_of_stdin,
    items_of,
)
from geostore.scenes.stac_item import StacItem
from geostore.scenes.stac_opening import open_item

__all__ = ["found_at", "found_in_file"]

DEPTH_MAX = 64

# What is never a STAC document is not asked for twice. A name is only a hint: a document so
# called is opened as what its name says, and refused.
_NO_DOCUMENT = (
    ".tif",
    ".tiff",
    ".jp2",
    ".img",
    ".ntf",
    ".zip",
    ".tar",
    ".gz",
    ".tgz",
    ".bz2",
    ".xz",
    ".hdf",
    ".h5",
    ".nc",
)


@dataclass(frozen=True, slots=True)
class _File:
    remote: Remote
    url: RemoteUrl

    def open(
        self, found: FoundSource, reader: str | None, options: ReadOptions | None, turn: Turn | None
    ) -> list[Scene]:
        return found.open_as(self.remote.file(self.url, turn or Turn()), reader, options)


@dataclass(frozen=True, slots=True)
class _Folder:
    remote: Remote
    url: RemoteUrl
    members: Mapping[str, int]

    def open(
        self, found: FoundSource, reader: str | None, options: ReadOptions | None, turn: Turn | None
    ) -> list[Scene]:
        source = self.remote.folder(self.url, self.members, turn or Turn())
        return found.open_as(source, reader, options)


@dataclass(frozen=True, slots=True)
class _Item:
    remote: Remote
    item: StacItem

    def open(
        self, found: FoundSource, reader: str | None, options: ReadOptions | None, turn: Turn | None
    ) -> list[Scene]:
        del found
        return open_item(self.item, self.remote, reader, options, turn or Turn())


@dataclass(frozen=True, slots=True)
class _Trouble:
    """What could not even be looked at: says so in its turn among the others."""

    error: GeostoreError

    def open(
        self, found: FoundSource, reader: str | None, options: ReadOptions | None, turn: Turn | None
    ) -> list[Scene]:
        del found, reader, options, turn
        raise self.error


def found_at(path: str, remote: Remote, *, outright: bool) -> Iterator[FoundSource]:
    """Sources at an address, or in what standard input holds."""
    if path == STDIN:
        yield from _items(document_of_stdin(sys.stdin.buffer), remote)
        return
    url = RemoteUrl(path)
    try:
        members = _members(url, remote)
        document = None
        if members is None and not url.path.lower().endswith(_NO_DOCUMENT):
            document = document_at(url, remote.cache.store)
    except GeostoreError as error:
        yield FoundSource(url.shown, named_outright=True, origin=_Trouble(error))
        return
    if members is not None:
        folder = url if url.is_folder else RemoteUrl(f"{url.request}/")
        yield from _walk(folder, members, remote, outright=outright, depth=0)
    elif document is not None:
        yield from _items(document, remote)
    else:
        yield FoundSource(url.shown, named_outright=outright, origin=_File(remote, url))


def found_in_file(path: str, remote: Remote) -> Iterator[FoundSource]:
    """The items of a local STAC document; the file itself where it is none."""
    try:
        document = document_in_file(Path(path))
    except GeostoreError as error:
        yield FoundSource(path, named_outright=True, origin=_Trouble(error))
        return
    if document is None:
        yield FoundSource(path, named_outright=True)
    else:
        yield from _items(document, remote)


def _items(document: Document, remote: Remote) -> Iterator[FoundSource]:
    try:
        for item in items_of(document, remote.cache.store):
            yield FoundSource(item.shown, named_outright=True, origin=_Item(remote, item))
    except GeostoreError as error:
        # A bad item or page ends the document, not the ingest.
        yield FoundSource(document.shown, named_outright=True, origin=_Trouble(error))


def _members(url: RemoteUrl, remote: Remote) -> dict[str, int] | None:
    """The objects of a folder of a bucket by name; None where the address is no folder."""
    if not url.is_s3:
        return None
    suffix = PurePosixPath(url.path).suffix.lower()
    if not url.is_folder and suffix not in ("", ".safe"):
        return None  # most likely a file: listing it would only cost a request
    listed = remote.cache.store.listing(url)
    if not listed and url.is_folder:
        raise NotFoundError(f"{url.shown}: no object there; expected a folder of a bucket")
    return {one.name: one.size for one in listed} or None


def _walk(
    folder: RemoteUrl, members: Mapping[str, int], remote: Remote, *, outright: bool, depth: int
) -> Iterator[FoundSource]:
    """As a directory is walked: products as one, hidden objects left out."""
    origin = _Folder(remote, folder, members)
    try:
        is_product = depth >= DEPTH_MAX or _is_product(origin)
    except GeostoreError:
        # Opening it says what is wrong, in its turn among the others.
        yield FoundSource(folder.shown, named_outright=True, origin=origin)
        return
    if is_product:
        yield FoundSource(folder.shown, outright, origin)
        return
    folders: dict[str, dict[str, int]] = {}
    for name, size in members.items():
        first, _, rest = name.partition("/")
        if not first.startswith("."):
            folders.setdefault(first, {})[rest] = size
    for name, below in sorted(folders.items()):
        if "" in below:
            url = folder.child(name)
            yield FoundSource(url.shown, named_outright=False, origin=_File(remote, url))
        inside = {relative: size for relative, size in below.items() if relative}
        if inside:
            child = RemoteUrl(f"{folder.child(name).request}/")
            yield from _walk(child, inside, remote, outright=False, depth=depth + 1)


def _is_product(folder: _Folder) -> bool:
    if PurePosixPath(folder.url.path).name.upper().endswith(".SAFE"):
        return True
    with folder.remote.folder(folder.url, folder.members, Turn()) as source:
        return claimant(source) is not None
