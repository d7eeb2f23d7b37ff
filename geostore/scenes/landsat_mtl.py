"""Landsat's metadata file (MTL), which is shipped as text, XML and JSON.

The three forms say the same, so they are read into the same value: groups of keys with their
text. The text form is the Object Description Language as the Landsat Data Format Control Books
use it (USGS LSDS-1822, -1834 and others): `KEY = VALUE` lines in GROUPs below one root group.
Level-2 products repeat what their Level-1 source said, in groups called `LEVEL1_...`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import ParseError

import defusedxml
import defusedxml.ElementTree

from geostore.errors import UnreadableSourceError

if TYPE_CHECKING:
    from geostore.scenes.source import Source

__all__ = ["MTL_BYTES_MAX", "MTL_MARKS", "Mtl", "parse_mtl", "read_mtl"]

MTL_BYTES_MAX = 1 << 20
"""Real ones have 10 to 50 kB."""
KEYS_MAX = 10_000
TEXT_CHARACTERS_MAX = 1_000

_ROOTS = ("LANDSAT_METADATA_FILE", "L1_METADATA_FILE")
MTL_MARKS = tuple(root.encode() for root in _ROOTS)
"""What any of the three forms has near its start."""

_LINE = re.compile(r"^([A-Za-z][A-Za-z0-9_]{0,99})\s*=\s*(.*)$")
_EARLIER_LEVEL = "LEVEL1_"

Groups = dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class Mtl:
    """One metadata file."""

    shown: str
    """The file as messages name it."""
    groups: Mapping[str, Mapping[str, str]]
    """Group to key to text, without quotes."""

    @property
    def is_level_2(self) -> bool:
        return any(name.startswith("LEVEL2_") for name in self.groups)

    def _own(self) -> Iterator[tuple[str, str]]:
        """Keys of the product itself, not of the Level-1 product that a Level-2 came from."""
        earlier = _EARLIER_LEVEL if self.is_level_2 else "\0"
        for name, keys in self.groups.items():
            if not name.startswith(earlier):
                yield from keys.items()

    def text(self, key: str) -> str | None:
        """What the product says of itself under `key`; None where it says nothing."""
        return next((text for name, text in self._own() if name == key and text), None)

    def level_1_text(self, key: str) -> str | None:
        """The same, or what its Level-1 source said."""
        everything = (keys.get(key) for keys in self.groups.values())
        return self.text(key) or next((text for text in everything if text), None)

    def number(self, key: str) -> float | None:
        """A key's number; None where there is no such key.

        Raises:
            UnreadableSourceError: it is not a finite number.
        """
        text = self.text(key)
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise UnreadableSourceError(f"{self.shown}: {key} is {text!r}, expected a number")
        return value

    def whole_number(self, key: str) -> int | None:
        """A key's whole number (`028` is 28); None where there is no such key."""
        value = self.number(key)
        if value is not None and not value.is_integer():
            raise UnreadableSourceError(
                f"{self.shown}: {key} is {self.text(key)!r}, expected a whole number"
            )
        return None if value is None else int(value)

    def file_names(self) -> tuple[str, ...]:
        """The raster files that the product lists as its own."""
        return tuple(
            text
            for key, text in self._own()
            if key.startswith("FILE_NAME_") and text.upper().endswith((".TIF", ".TIFF"))
        )


def read_mtl(source: Source, member: str) -> Mtl:
    """The metadata file `member`, whichever form it has.

    Raises:
        UnreadableSourceError: damaged, hostile, too large or not an MTL; names the file.
    """
    return parse_mtl(source.open_bytes(member, MTL_BYTES_MAX), source.shown(member))


def parse_mtl(content: bytes, shown: str) -> Mtl:
    """As `read_mtl`, of bytes."""
    try:
        text = content.decode("utf-8").lstrip("\ufeff \t\r\n")
    except UnicodeDecodeError as error:
        raise UnreadableSourceError(
            f"{shown}: not readable as a Landsat MTL: byte {error.start} is no text"
        ) from error
    try:
        if text.startswith("<"):
            groups = _from_xml(text)
        elif text.startswith("{"):
            groups = _from_json(text)
        else:
            groups = _from_odl(text)
        _check(groups)
    except (
        ParseError,
        defusedxml.DefusedXmlException,
        RecursionError,
        ValueError,
        LookupError,
    ) as error:
        raise UnreadableSourceError(
            f"{shown}: not readable as a Landsat MTL: {type(error).__name__}: {str(error)[:300]}"
        ) from error
    return Mtl(shown, groups)


def _check(groups: Groups) -> None:
    if not groups:
        raise ValueError("it has no group of keys")
    if sum(map(len, groups.values())) > KEYS_MAX:
        raise ValueError(f"more than {KEYS_MAX} keys")
    for keys in groups.values():
        for key, text in keys.items():
            if len(text) > TEXT_CHARACTERS_MAX:
                raise ValueError(f"{key} has {len(text)} characters of text")


def _expected_root(name: str) -> None:
    if name not in _ROOTS:
        raise ValueError(f"root {name[:60]!r}, expected one of {', '.join(_ROOTS)}")


def _from_odl(text: str) -> Groups:
    groups: Groups = {}
    open_groups: list[str] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line:
            continue
        if line == "END":
            if open_groups:
                raise ValueError(f"line {number}: END inside group {open_groups[-1]}")
            return groups
        match = _LINE.match(line)
        if match is None:
            raise ValueError(f"line {number} is {line[:60]!r}, expected KEY = VALUE")
        key, value = match[1], match[2].strip()
        if key == "GROUP":
            if not open_groups:
                _expected_root(value)
            elif len(open_groups) > 1:
                raise ValueError(f"line {number}: a group inside group {open_groups[-1]}")
            else:
                groups.setdefault(value, {})
            open_groups.append(value)
        elif key == "END_GROUP":
            if not open_groups or open_groups.pop() != value:
                raise ValueError(f"line {number} ends group {value[:60]}, which is not open")
        elif len(open_groups) < 2:
            raise ValueError(f"line {number}: {key} outside a group")
        else:
            groups[open_groups[-1]].setdefault(key, _unquoted(value))
    raise ValueError("it ends without END: truncated")


def _unquoted(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1].strip()
    return text


def _from_json(text: str) -> Groups:
    # Numbers stay as they are written: what follows is the same for all three forms.
    value: Any = json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
    content: Any = None
    if isinstance(value, dict) and len(value) == 1:
        ((root, content),) = value.items()
        _expected_root(root)
    if not isinstance(content, dict):
        raise ValueError(f"expected one object with one of {', '.join(_ROOTS)}")  # noqa: TRY004
    groups: Groups = {}
    for name, keys in content.items():
        if not isinstance(keys, dict) or not all(isinstance(text, str) for text in keys.values()):
            raise ValueError(f"group {name[:60]} is no object of texts and numbers")
        groups[name] = {key: text.strip() for key, text in keys.items()}
    return groups


def _from_xml(text: str) -> Groups:
    root = defusedxml.ElementTree.fromstring(text.encode(), forbid_dtd=True)
    _expected_root(root.tag)
    groups: Groups = {}
    for group in root:
        keys = groups.setdefault(group.tag, {})
        for element in group:
            if len(element):
                raise ValueError(f"{element.tag[:60]} in {group.tag[:60]} holds elements")
            keys.setdefault(element.tag, (element.text or "").strip())
    return groups
