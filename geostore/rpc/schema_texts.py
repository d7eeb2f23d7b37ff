"""Tile schemas as texts on the wire, and back without trust in the sender."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, get_args

from geostore.errors import CorruptDataError
from geostore.types import Codec, SchemeName, TileSchema

__all__ = ["schema_of", "schema_text"]

SCHEMA_BYTES_MAX = 1 << 20
_DTYPE = re.compile(r"u?int(8|16|32|64)|float(32|64)")

_SCHEMA_TEXTS: dict[str, bytes] = {}
_SCHEMA_TEXTS_MAX = 256


def schema_text(schema: TileSchema) -> bytes:
    """A schema as it is sent: JSON, made once a schema."""
    text = _SCHEMA_TEXTS.get(schema.digest)
    if text is None:
        if len(_SCHEMA_TEXTS) >= _SCHEMA_TEXTS_MAX:
            _SCHEMA_TEXTS.clear()
        text = json.dumps(schema.to_json(), separators=(",", ":")).encode()
        _SCHEMA_TEXTS[schema.digest] = text
    return text


def _read_schema(text: bytes) -> TileSchema:
    """Raises CorruptDataError: not a schema's text."""
    try:
        value = json.loads(text)
        _check_types(value)
        schema = TileSchema.from_json(value)
        _check_schema(schema)
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise CorruptDataError(
            f"row batch: schema {text[:60]!r} does not read: {type(error).__name__} {error}"
        ) from None
    return schema.shared()


def _check_types(value: Any) -> None:
    """Before numpy sees them: it reads more languages of types than are stored."""
    for group in value["groups"]:
        if not all(_DTYPE.fullmatch(band["dtype"]) for band in group["bands"]):
            raise ValueError("a band's type is none that is stored")


def _check_schema(schema: TileSchema) -> None:
    """Raises ValueError: a field that no schema has."""
    sides = [schema.length]
    texts: list[object] = []
    numbers: list[object] = []
    for group in schema.groups:
        sides += [group.height, group.width, group.block_height, group.block_width]
        texts.append(group.name)
        texts += [band.name for band in group.bands]
        texts += [band.common_name for band in group.bands if band.common_name is not None]
        for band in group.bands:
            texts += band.aliases
            numbers += [band.scale, band.offset, 0 if band.nodata is None else band.nodata]
    if schema.scheme not in get_args(SchemeName) or schema.codec not in get_args(Codec):
        raise ValueError("unknown scheme or codec")
    if not all(type(side) is int and 1 <= side < 1 << 24 for side in sides):
        raise ValueError("a length or side is no positive number")
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a name is not text")
    if not all(type(number) in {int, float} for number in numbers):
        raise ValueError("a scale, offset or nodata is no number")
    _ = schema.digest  # needs all of it to be JSON-able


_read_short_schema = lru_cache(maxsize=64)(_read_schema)
"""Streams of several nodes bring the same few schemas: each is one object here."""


def schema_of(text: bytes) -> TileSchema:
    """The schema of a text that a peer sent; one object for one text.

    Raises:
        CorruptDataError: not a schema's text.
    """
    if len(text) > SCHEMA_BYTES_MAX:
        raise CorruptDataError(
            f"row batch: a schema of {len(text)} bytes, expected at most {SCHEMA_BYTES_MAX}"
        )
    return _read_short_schema(text) if len(text) <= 1 << 16 else _read_schema(text)
