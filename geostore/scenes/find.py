"""From what a user names to the sources in it: files, products, archives, items, addresses."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from geostore.errors import GeostoreError, NotFoundError
from geostore.scenes.registry import claimant, detect, open_source
from geostore.scenes.source import Source, check_path

if TYPE_CHECKING:
    from geostore.scenes.remote import Remote
    from geostore.scenes.remote_cache import Turn
    from geostore.scenes.scene import ReadOptions, Scene

__all__ = ["STDIN", "FoundSource", "Origin", "find_sources"]

STDIN = "-"
"""Stands for a STAC document on standard input."""

_STAC_SUFFIXES = (".json", ".geojson")


class Origin(Protocol):
    """How a source that is no local path is opened."""

    def open(
        self, found: FoundSource, reader: str | None, options: ReadOptions | None, turn: Turn | None
    ) -> list[Scene]: ...


@dataclass(frozen=True, slots=True)
class FoundSource:
    """A source to open."""

    path: str
    """As results and records name it: a path, an address without its secrets, or a document
    with `#` and an item's id."""
    named_outright: bool
    """The caller named this very path, so that it is an error where no reader claims it;
    a path met in a directory or by a pattern is skipped then."""
    origin: Origin | None = field(default=None, compare=False, repr=False)
    """None: a local path."""

    @property
    def is_remote(self) -> bool:
        """Whether opening it may fetch something: worth doing ahead of its turn."""
        return self.origin is not None

    def open(
        self,
        *,
        reader: str | None = None,
        options: ReadOptions | None = None,
        turn: Turn | None = None,
    ) -> list[Scene]:
        """Its scenes, which the caller closes; none where it was met and no reader claims it.

        Args:
            reader: the reader to use; detected unless given.
            options: what the caller knows of the scenes.
            turn: given where it is opened ahead of its turn, see `Turn`.

        Raises:
            GeostoreError: as `open_source`, and of fetching as `RemoteCache.fetch`.
        """
        if self.origin is not None:
            return self.origin.open(self, reader, options, turn)
        return self.open_as(Source(self.path), reader, options)

    def open_as(
        self, source: Source, reader: str | None, options: ReadOptions | None
    ) -> list[Scene]:
        """`source`'s scenes, by the rule of `open`; it is closed in any case."""
        if reader is None and not self.named_outright:
            try:
                claimed = claimant(source)
            except BaseException:
                source.discard()
                raise
            if claimed is None:
                source.close()
                return []
            reader = claimed.name  # asked once: some look into the file
        return open_source(source, reader=reader, options=options)

    def why_skipped(self) -> str:
        """What to say where `open` found no scene."""
        if self.origin is None and self.path.lower().endswith(_STAC_SUFFIXES):
            from geostore.scenes.stac_documents import is_stac_file

            if is_stac_file(self.path):
                return "a STAC document met in a directory: name it to ingest what it points to"
        return "no reader claims this file"


def find_sources(
    paths: Iterable[str | os.PathLike[str]] | str | os.PathLike[str],
    *,
    remote: Callable[[], Remote] | None = None,
    named_outright: bool = True,
) -> Iterator[FoundSource]:
    """Every source in `paths`, once, in a fixed order: as named, then by name.

    A path is a file, an archive, a product directory (one that a reader claims, or whose
    name ends in .SAFE: one source), any other directory (walked; hidden files and links to
    directories left out) or a pattern as in the shell, where `**` stands for any folders.
    Sidecars are found like any file: no reader claims them.

    Or an address: https://, http:// or s3:// of a file, an archive or a STAC document, or an
    s3:// folder, which is walked like a directory. A STAC document that is named outright, here
    or there or as `-` on standard input, gives one source an item.

    Args:
        paths: what the user named.
        remote: called once, where there is an address or a STAC document, for what opens
            them; by default as the environment says.
        named_outright: whether the user named `paths`, or somebody met them on the way.

    Raises:
        NotFoundError: before anything is yielded, where nothing is at a local path or a
            pattern fits nothing.
        InvalidInputError: neither a local path nor such an address.
        UnreadableSourceError: standard input that cannot be read as a STAC document. Other
            documents that cannot be are sources that say so when they are opened.
    """
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    named: list[tuple[str, bool]] = []
    for path in paths:
        given = os.fspath(path)
        if _is_elsewhere(given):
            named.append((given, named_outright))
            continue
        text = check_path(path)
        if _exists(text):
            named.append((text, named_outright))
        elif glob.has_magic(text):
            fitting = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - any root, `~`-free
            if not fitting:
                raise NotFoundError(f"{text}: no file fits the pattern")
            named.extend((one, False) for one in fitting)
        else:
            raise NotFoundError(f"{text}: no such file or directory")
    return _expand(named, cache(remote or _default_remote))


def _default_remote() -> Remote:
    from geostore.scenes.remote import Remote

    return Remote.of(os.environ)


def _is_elsewhere(path: str) -> bool:
    if path == STDIN:
        return True
    if "://" not in path:
        return False
    from geostore.scenes.remote_url import RemoteUrl, is_remote

    if not is_remote(path):
        return False
    RemoteUrl(path)  # says what is wrong with it before work begins
    return True


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError as error:  # a name that is too long, a folder that must not be looked into
        raise NotFoundError(f"{path[:200]}: {error.strerror or error}") from error


def _expand(named: list[tuple[str, bool]], remote: Callable[[], Remote]) -> Iterator[FoundSource]:
    seen: set[str] = set()
    products: set[str] = set()
    for path, outright in named:
        for found in _found_in(path, remote, outright=outright):
            if found.origin is not None:
                if found.path not in seen:
                    seen.add(found.path)
                    yield found
                continue
            absolute = os.path.abspath(found.path)  # noqa: PTH100 - compared as text
            parents = {str(parent) for parent in Path(absolute).parents}
            # `**` also fits what lies inside a product that it has fitted already.
            if absolute in seen or (not outright and parents & products):
                continue
            seen.add(absolute)
            if Path(absolute).is_dir():
                products.add(absolute)
            yield found


def _found_in(path: str, remote: Callable[[], Remote], *, outright: bool) -> Iterator[FoundSource]:
    if _is_elsewhere(path):
        from geostore.scenes.find_remote import found_at

        yield from found_at(path, remote(), outright=outright)
    elif outright and path.lower().endswith(_STAC_SUFFIXES) and Path(path).is_file():
        from geostore.scenes.find_remote import found_in_file

        yield from found_in_file(path, remote())
    else:
        yield from _walk(path, outright=outright)


def _is_product(directory: str) -> bool:
    if directory.rstrip("/").upper().endswith(".SAFE"):
        return True
    return detect(directory) is not None


def _walk(path: str, *, outright: bool) -> Iterator[FoundSource]:
    if not Path(path).is_dir():
        yield FoundSource(path, outright)
        return
    try:
        is_source = _is_product(path)
        entries = [] if is_source else sorted(os.scandir(path), key=lambda entry: entry.name)
    except (OSError, GeostoreError):
        # Opening it says what is wrong, in its turn among the others.
        yield FoundSource(path, named_outright=True)
        return
    if is_source:
        yield FoundSource(path, outright)
        return
    for entry in entries:
        if entry.name.startswith(".") or (entry.is_symlink() and entry.is_dir()):
            continue
        child = str(Path(path) / entry.name)
        if entry.is_dir():
            yield from _walk(child, outright=False)
        elif entry.is_file():
            yield FoundSource(child, named_outright=False)
