"""A STAC item as a value: what it says of itself, its assets and where they are.

Follows the STAC specification 1.0 and 1.1 (item, asset, bands, alternate-assets, eo, raster,
classification, file extensions) and, where catalogues still have them, the forms of 0.6 to 0.9:
bands listed once for the item and given by number, `eo:platform`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from geostore.errors import InvalidInputError, UnreadableSourceError
from geostore.scenes.remote_url import RemoteUrl, is_remote
from geostore.scenes.source import check_path
from geostore.types import TimeSpan

__all__ = ["Asset", "StacItem"]

ASSETS_MAX = 1000
BANDS_MAX = 512
HREF_CHARACTERS_MAX = 8192
ID_CHARACTERS_MAX = 250

_SCENE_CHARACTERS = re.compile(r"[^A-Za-z0-9._-]+")
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One file of an item."""

    key: str
    place: RemoteUrl | Path | None
    """Where it is; None where `trouble` says why it cannot be had."""
    trouble: str
    media_type: str
    roles: frozenset[str]
    bands: tuple[Mapping[str, Any], ...]
    """What is said of each of its bands, with what is said of the asset for all."""
    value: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The file's own name."""
        if isinstance(self.place, RemoteUrl):
            return self.place.name
        return self.place.name if self.place is not None else ""

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class StacItem:
    """One item. Made by `of`, which checks it."""

    id: str
    scene_id: str
    """`id` with other characters than letters, digits, `.`, `_` and `-` as `_`."""
    collection: str | None
    properties: Mapping[str, Any]
    assets: tuple[Asset, ...]
    shown: str

    @classmethod
    def of(
        cls, value: object, base: RemoteUrl | Path | None, document: str, *, is_part: bool
    ) -> StacItem:
        """The item in a document.

        Args:
            value: as parsed.
            base: what references are relative to; None where they must be whole.
            document: how messages name it.
            is_part: it is one of several items there.

        Raises:
            UnreadableSourceError: not an item, or one of absurd size.
        """
        if not isinstance(value, dict) or not isinstance(value.get("id"), str):
            raise UnreadableSourceError(
                f"{document}: a feature without an id; expected a STAC item"
            )
        scene_id = _SCENE_CHARACTERS.sub("_", value["id"]).strip("._-")
        if not scene_id or len(value["id"]) > ID_CHARACTERS_MAX:
            raise UnreadableSourceError(
                f"{document}: item {value['id'][:80]!r}: expected an id of at most"
                f" {ID_CHARACTERS_MAX} characters with a letter or digit"
            )
        shown = f"{document}#{value['id']}" if is_part else document
        properties, assets = value.get("properties"), value.get("assets")
        if not isinstance(properties, dict) or not isinstance(assets, dict) or not assets:
            raise UnreadableSourceError(f"{shown}: expected an item with properties and assets")
        if len(assets) > ASSETS_MAX:
            raise UnreadableSourceError(
                f"{shown}: {len(assets)} assets; expected at most {ASSETS_MAX}"
            )
        collection = value.get("collection")
        return cls(
            id=value["id"],
            scene_id=scene_id,
            collection=collection if isinstance(collection, str) and collection else None,
            properties=properties,
            assets=tuple(
                _asset(str(key), one, properties, base, shown)
                for key, one in assets.items()
                if isinstance(one, dict)
            ),
            shown=shown,
        )

    @property
    def time(self) -> TimeSpan | None:
        """When it was taken: `start_datetime` to `end_datetime`, else `datetime`.

        Raises:
            UnreadableSourceError: not times.
        """
        start, end = self._text("start_datetime"), self._text("end_datetime")
        moment = self._text("datetime")
        text = f"{start or '..'}/{end or '..'}" if start and end else moment or start or end
        if text is None:
            return None
        try:
            return TimeSpan.parse(text)
        except InvalidInputError as error:
            raise UnreadableSourceError(f"{self.shown}: {error}") from error

    @property
    def platform(self) -> str | None:
        text = self._text("platform") or self._text("eo:platform")
        return text.lower().replace("_", "-").replace(" ", "-")[:100] if text else None

    def _text(self, name: str) -> str | None:
        value = self.properties.get(name)
        return value if isinstance(value, str) and value else None


def _asset(
    key: str,
    value: dict[str, Any],
    properties: Mapping[str, Any],
    base: RemoteUrl | Path | None,
    shown: str,
) -> Asset:
    place, trouble = _first_place(value, base, shown)
    roles = value.get("roles")
    return Asset(
        key=key,
        place=place,
        trouble=trouble,
        media_type=str(value.get("type") or "").lower(),
        roles=frozenset(str(role) for role in roles) if isinstance(roles, list) else frozenset(),
        bands=tuple(_bands(value, properties))[:BANDS_MAX],
        value=value,
    )


def _first_place(
    value: dict[str, Any], base: RemoteUrl | Path | None, shown: str
) -> tuple[RemoteUrl | Path | None, str]:
    """The first of an asset's references that geostore can follow, or why there is none."""
    trouble = "no href"
    for href in _hrefs(value):
        try:
            return _place(href, base), ""
        except InvalidInputError as error:
            trouble = trouble if trouble != "no href" else str(error)
    return None, f"{shown}: {trouble}"


def _hrefs(value: dict[str, Any]) -> Iterator[str]:
    alternate = value.get("alternate")
    others = alternate.values() if isinstance(alternate, dict) else []
    for one in (value, *others):
        if isinstance(one, dict) and isinstance(one.get("href"), str) and one["href"]:
            yield one["href"]


def _place(href: str, base: RemoteUrl | Path | None) -> RemoteUrl | Path:
    """What a reference stands for.

    Raises:
        InvalidInputError: another scheme, or a remote document's reference to a local file.
    """
    if len(href) > HREF_CHARACTERS_MAX:
        raise InvalidInputError(f"href of {len(href)} characters: expected a reference to a file")
    scheme = _SCHEME.match(href)
    if scheme is None and isinstance(base, RemoteUrl):
        return RemoteUrl(base.joined(href))
    if is_remote(href):
        return RemoteUrl(href)
    if scheme is not None and scheme[1].lower() != "file":
        raise InvalidInputError(
            f"href {href[:80]!r}: expected an https://, http:// or s3:// address, or a file"
        )
    if not isinstance(base, Path):
        raise InvalidInputError(
            f"href {href[:80]!r}: a document that is no local file may not name local files"
        )
    try:
        path = unquote(urlsplit(href).path) if scheme is not None else href
        os.fsencode(path)
    except ValueError as error:  # brackets that do not close, half of a character
        raise InvalidInputError(f"href {href[:80]!r}: expected a path: {error}") from error
    check_path(path)
    return base / path


def _bands(value: Mapping[str, Any], properties: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What is said of each band: by `bands` (1.1), else `eo:bands` and `raster:bands` (1.0)."""
    common = {
        name: value[name]
        for name in (
            "nodata",
            "unit",
            "data_type",
            "gsd",
            "raster:scale",
            "raster:offset",
            "raster:spatial_resolution",
            "classification:classes",
            "classification:bitfields",
        )
        if name in value
    }
    whole = _list(value, "bands")
    if whole:
        yield from ({**common, **one} for one in whole)
        return
    spectral = [_spectral(one, properties) for one in _any_list(value, "eo:bands")]
    rasters = _list(value, "raster:bands")
    for number in range(max(len(spectral), len(rasters))):
        eo = spectral[number] if number < len(spectral) else {}
        raster = rasters[number] if number < len(rasters) else {}
        yield {**common, **raster, **eo}


def _spectral(one: object, properties: Mapping[str, Any]) -> dict[str, Any]:
    """A band of `eo:bands`: itself, or its number in the item's list (STAC before 1.0)."""
    if isinstance(one, int) and not isinstance(one, bool):
        listed = _any_list(properties, "eo:bands")
        one = listed[one] if 0 <= one < len(listed) else {}
    return dict(one) if isinstance(one, dict) else {}


def _any_list(value: Mapping[str, Any], name: str) -> list[Any]:
    found = value.get(name)
    return found if isinstance(found, list) else []


def _list(value: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return [one if isinstance(one, dict) else {} for one in _any_list(value, name)]
