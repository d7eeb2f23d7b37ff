"""Reading Sentinel-2's XML: what is looked up in it, and nothing that it could be made to do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, ParseError

import defusedxml
import defusedxml.ElementTree

from geostore.errors import UnreadableSourceError
from geostore.types.geo import us_from_datetime

if TYPE_CHECKING:
    from geostore.scenes.source import Source

__all__ = [
    "attribute",
    "elements",
    "listed_images",
    "number",
    "parse_time_us",
    "parse_xml",
    "text",
]

XML_BYTES_MAX = 1 << 25


def parse_xml(source: Source, member: str) -> Element:
    """The document's root. DTDs, entities and external references are refused.

    Raises:
        UnreadableSourceError: too large, damaged or hostile.
    """
    content = source.open_bytes(member, XML_BYTES_MAX)
    try:
        root: Element = defusedxml.ElementTree.fromstring(content, forbid_dtd=True)
    except (ParseError, defusedxml.DefusedXmlException, ValueError, LookupError) as error:
        raise UnreadableSourceError(
            f"{source.shown(member)}: not readable as XML: {error}"
        ) from error
    return root


def elements(root: Element, name: str) -> Iterator[Element]:
    """Every element of that local name: namespaces differ between issues of the format."""
    return (one for one in root.iter() if one.tag.rpartition("}")[2] == name)


def text(root: Element | None, *names: str) -> str | None:
    """The text of the first element named by the path `names`, each below the last."""
    for name in names:
        root = next(elements(root, name), None) if root is not None else None
    found = (root.text or "").strip() if root is not None else ""
    return found or None


def number(root: Element | None, *names: str) -> float | None:
    """That text as a finite number; None where it is absent or is none."""
    found = text(root, *names)
    try:
        value = float(found) if found is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def attribute(root: Element, element: str, name: str) -> str | None:
    """An attribute of the first element of that name."""
    found = next(elements(root, element), None)
    return found.get(name) if found is not None else None


def parse_time_us(found: str | None) -> int | None:
    """A time of the XML, UTC where it names no zone; None where it is no time."""
    if found is None:
        return None
    try:
        moment = datetime.fromisoformat(found)
    except ValueError:
        return None
    return us_from_datetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def listed_images(about: Element) -> list[str]:
    """The image files that a product's XML lists, pictures for people left out.

    Compact products list paths without their suffix; older ones only identifiers, which say
    nothing of a path: of those none is given.
    """
    listed = ((one.text or "").strip() for one in elements(about, "IMAGE_FILE"))
    return [f"{path}.jp2" for path in listed if "/" in path and "_TCI" not in path]
