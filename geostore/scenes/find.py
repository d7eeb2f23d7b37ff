"""From what a user names to the sources in it: files, products, archives."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from geostore.errors import GeostoreError, NotFoundError
from geostore.scenes.registry import detect
from geostore.scenes.source import check_path

__all__ = ["FoundSource", "find_sources"]


@dataclass(frozen=True, slots=True)
class FoundSource:
    """A path to open."""

    path: str
    named_outright: bool
    """The caller named this very path, so that it is an error where no reader claims it;
    a path met in a directory or by a pattern is skipped then."""


def find_sources(
    paths: Iterable[str | os.PathLike[str]] | str | os.PathLike[str],
) -> Iterator[FoundSource]:
    """Every source in `paths`, once, in a fixed order: as named, then by name.

    A path is a file, an archive, a product directory (one that a reader claims, or whose
    name ends in .SAFE: one source), any other directory (walked; hidden files and links to
    directories left out) or a pattern as in the shell, where `**` stands for any folders.
    Sidecars are found like any file: no reader claims them.

    Raises:
        NotFoundError: before anything is yielded, where nothing is at a path or a pattern
            fits nothing.
        InvalidInputError: not a local path.
    """
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    named: list[tuple[str, bool]] = []
    for path in paths:
        text = check_path(path)
        if _exists(text):
            named.append((text, True))
        elif glob.has_magic(text):
            fitting = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - any root, `~`-free
            if not fitting:
                raise NotFoundError(f"{text}: no file fits the pattern")
            named.extend((one, False) for one in fitting)
        else:
            raise NotFoundError(f"{text}: no such file or directory")
    return _expand(named)


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError as error:  # a name that is too long, a folder that must not be looked into
        raise NotFoundError(f"{path[:200]}: {error.strerror or error}") from error


def _expand(named: list[tuple[str, bool]]) -> Iterator[FoundSource]:
    seen: set[str] = set()
    products: set[str] = set()
    for path, outright in named:
        for found in _walk(path, outright=outright):
            absolute = os.path.abspath(found.path)  # noqa: PTH100 - compared as text
            parents = {str(parent) for parent in Path(absolute).parents}
            # `**` also fits what lies inside a product that it has fitted already.
            if absolute in seen or (not outright and parents & products):
                continue
            seen.add(absolute)
            if Path(absolute).is_dir():
                products.add(absolute)
            yield found


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
