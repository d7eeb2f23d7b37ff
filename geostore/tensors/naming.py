"""Words in messages and names of files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from geostore.wrangle import unknown_name

__all__ = ["file_stem", "one_of"]

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_STEM_MAX = 120


def one_of(what: str, got: object, known: Iterable[str]) -> str:
    """A message for a keyword's value that is none of a few."""
    return unknown_name(what, str(got), known)


def file_stem(*parts: str) -> str:
    """A file name, without its ending, for names that users and providers chose.

    Letters, digits, `.`, `_` and `-` stay; anything else, a leading dot, or too many
    characters is replaced and a hash of the whole added, so different names stay different.

    >>> file_stem("s2", "dqbvg", "S2A_MSIL1C")
    's2_dqbvg_S2A_MSIL1C'
    >>> file_stem("..", "a/b")
    '_a_b-26a4edb3'
    """
    plain = "_".join(parts)
    safe = _UNSAFE.sub("_", plain).lstrip(".")[:_STEM_MAX]
    if safe == plain and safe:
        return safe
    return f"{safe}-{hashlib.sha256(plain.encode()).hexdigest()[:8]}"
