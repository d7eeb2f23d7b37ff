"""Which assets of an item are bands, and what each of them is."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from geostore.raster import BandHeader
from geostore.scenes.stac_item import Asset
from geostore.types import BandInfo, BandRole, BitField, BitTest, CloudLayer

__all__ = ["band_info", "cloud_layer", "data_assets"]

CLASSES_MAX = 256
TEXT_CHARACTERS_MAX = 500

# Roles of STAC's best practices and its extensions. What is made for eyes or programs is no band.
_NO_DATA_ROLES = frozenset(
    {"thumbnail", "overview", "visual", "metadata", "graphic", "tiles", "date", "source"}
)
_QUALITY_ROLES = frozenset(
    {
        "cloud",
        "cloud-shadow",
        "snow-ice",
        "land-water",
        "water-mask",
        "saturation",
        "quality",
        "quality-mask",
        "probability",
        "incidence-angle",
        "azimuth",
        "sun-azimuth",
        "sun-elevation",
        "terrain-shadow",
        "terrain-occlusion",
        "terrain-illumination",
    }
)
_NO_DATA_KEYS = re.compile(r"(^|[_-])(thumbnail|preview|visual|overview|browse|tilejson)([_-]|$)")
_RASTER_TYPES = re.compile(r"^image/(tiff|vnd\.stac\.geotiff|jp2|x\.geotiff|geotiff)\b")
_RASTER_SUFFIXES = (".tif", ".tiff", ".jp2", ".img")
_QUALITY_NAME = re.compile(r"(^|[_-])QA([_-]|$)", re.IGNORECASE)
_BAND_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9._-]{0,63}$")
_NO_NAME_CHARACTERS = re.compile(r"[^A-Za-z0-9._-]+")
_CLOUD = re.compile(r"cloud|cirrus", re.IGNORECASE)
_NO_CLOUD = re.compile(
    r"shadow|not[ _-]|no[ _-]|clear|free|confidence|probab(?!ility$)", re.IGNORECASE
)
_COMMON_NAMES = {"tir11": "lwir11", "tir12": "lwir12"}  # as drafts of the extension had them


def data_assets(assets: Sequence[Asset]) -> list[Asset]:
    """The assets that are bands; of a band that comes in several pixel sizes the finest."""
    rasters = [asset for asset in assets if _is_data(asset)]
    finest: dict[str, Asset] = {}
    for asset in rasters:
        name = _own_name(asset)
        if name is not None and (
            name not in finest or _resolution(asset) < _resolution(finest[name])
        ):
            finest[name] = asset
    return [
        asset for asset in rasters if (name := _own_name(asset)) is None or finest[name] is asset
    ]


def _is_data(asset: Asset) -> bool:
    is_raster = bool(_RASTER_TYPES.match(asset.media_type)) or (
        asset.suffix in _RASTER_SUFFIXES and not asset.media_type.startswith(("text/", "image/p"))
    )
    if not is_raster or not asset.roles.isdisjoint(_NO_DATA_ROLES):
        return False
    return bool(asset.roles) or not _NO_DATA_KEYS.search(asset.key.lower())


def _own_name(asset: Asset) -> str | None:
    """The name of an asset's only band, where the item says it."""
    name = asset.bands[0].get("name") if len(asset.bands) == 1 else None
    if isinstance(name, str):
        return name
    # Classes and the like come in several sizes as `scl`, `scl_60m`.
    return re.sub(r"[_-]\d+m$", "", asset.key) if len(asset.bands) <= 1 else None


def _resolution(asset: Asset) -> float:
    """Metres a pixel, as the item says; without, coarser than all that say."""
    first = asset.bands[0] if asset.bands else {}
    transform = asset.value.get("proj:transform")
    for value in (
        first.get("raster:spatial_resolution"),
        first.get("spatial_resolution"),
        transform[0] if isinstance(transform, list) and transform else None,
        first.get("gsd"),
        asset.value.get("gsd"),
    ):
        number = _number(value)
        if number is not None and number > 0:
            return number
    return math.inf


def _number(value: object) -> float | None:
    if isinstance(value, str):
        return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}.get(value.lower())
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return None


def nodata_of(said: Mapping[str, Any], header: BandHeader) -> float | int | None:
    """What the file says means no data, else what the item says."""
    return header.nodata if header.nodata is not None else _number(said.get("nodata"))


def band_info(
    asset: Asset,
    number: int,
    count: int,
    header: BandHeader,
    *,
    nodata: float | int | None,
    resolution_m: float,
    taken: set[str],
) -> BandInfo:
    """Band `number` (from 1) of the `count` bands of an asset's file; `taken` grows by its name.

    Scale, offset and unit are the item's, where it states them, else the file's.
    """
    said = asset.bands[number - 1] if number <= len(asset.bands) else {}
    name = _name(asset, said, number, count, header, taken)
    taken.add(name)
    common = said.get("common_name") or said.get("eo:common_name")
    scale = _number(said.get("raster:scale", said.get("scale")))
    offset = _number(said.get("raster:offset", said.get("offset")))
    is_scale = scale is not None and math.isfinite(scale) and scale != 0
    is_offset = offset is not None and math.isfinite(offset)
    unit = said.get("unit")
    description = said.get("description") or asset.value.get("title")
    return BandInfo(
        name=name,
        common_name=_COMMON_NAMES.get(common, common) if isinstance(common, str) else None,
        dtype=header.dtype,
        nodata=nodata,
        role=_role(asset, said, name, header),
        scale=float(scale) if scale is not None and is_scale else header.scale,
        offset=float(offset) if offset is not None and is_offset else header.offset,
        unit=unit[:64] if isinstance(unit, str) and unit else header.unit,
        description=description[:TEXT_CHARACTERS_MAX] if isinstance(description, str) else None,
        native_resolution_m=resolution_m,
        class_names=_class_names(said),
        class_colors=_class_colors(said),
        bitfields=_bitfields(said),
    )


def _name(
    asset: Asset,
    said: Mapping[str, Any],
    number: int,
    count: int,
    header: BandHeader,
    taken: set[str],
) -> str:
    key = re.sub(r"\.[A-Za-z0-9]{2,4}$", "", asset.key)
    own = said.get("name")
    candidates = [own if isinstance(own, str) else None]
    candidates += [key] if count == 1 else [header.description, f"{key}_B{number}"]
    candidates += [f"{key}_{own}", f"{key}_B{number}", f"B{len(taken) + 1}"]
    for candidate in candidates:
        name = _NO_NAME_CHARACTERS.sub("_", candidate or "").strip("._-")[:64]
        if _BAND_NAME.match(name) and name not in taken:
            return name
    return next(name for index in range(1, 10_000) if (name := f"band{index}") not in taken)


def _role(asset: Asset, said: Mapping[str, Any], name: str, header: BandHeader) -> BandRole:
    if said.get("classification:classes") or header.color == "palette":
        return BandRole.CLASS
    is_quality = (
        bool(said.get("classification:bitfields"))
        or not asset.roles.isdisjoint(_QUALITY_ROLES)
        or bool(_QUALITY_NAME.search(name))
    )
    return BandRole.QUALITY if is_quality else BandRole.DATA


def _classes(said: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = said.get(name)
    listed = found if isinstance(found, list) else []
    return [one for one in listed if isinstance(one, dict)][:CLASSES_MAX]


def _class_names(said: Mapping[str, Any]) -> dict[str, str]:
    return {
        str(one["value"]): str(one.get("description") or one.get("name") or one["value"])[:200]
        for one in _classes(said, "classification:classes")
        if isinstance(one.get("value"), int)
    }


def _class_colors(said: Mapping[str, Any]) -> dict[str, str]:
    return {
        str(one["value"]): f"#{str(one['color_hint']).lower()}"
        for one in _classes(said, "classification:classes")
        if isinstance(one.get("value"), int)
        and re.fullmatch(r"[0-9A-Fa-f]{6}", str(one.get("color_hint")))
    }


def _bitfields(said: Mapping[str, Any]) -> tuple[BitField, ...]:
    found = []
    for one in _classes(said, "classification:bitfields"):
        offset, length = one.get("offset"), one.get("length")
        if not (isinstance(offset, int) and isinstance(length, int)):
            continue
        if not (0 <= offset < 64 and 1 <= length <= 64 - offset):
            continue
        classes = {
            str(value["value"]): str(value.get("description") or value.get("name"))[:200]
            for value in _classes(one, "classes")
            if isinstance(value.get("value"), int)
        }
        found.append(BitField(str(one.get("name") or f"bit{offset}")[:64], offset, length, classes))
    return tuple(found)


def cloud_layer(bands: Sequence[tuple[BandInfo, Mapping[str, Any]]]) -> CloudLayer | None:
    """What tells cloud: the first band whose classes, or single bits, say so by their names.

    `bands` are descriptions with what the item said of each.
    """
    for info, said in bands:
        nodata = frozenset({int(info.nodata)} if info.nodata is not None else ())
        codes = frozenset(
            one["value"]
            for one in _classes(said, "classification:classes")
            if isinstance(one.get("value"), int) and _means_cloud(one)
        )
        if codes:
            return CloudLayer(info.name, "classes", codes, nodata_values=nodata - codes)
        tests = tuple(
            BitTest(bits.offset, bits.offset)
            for bits in info.bitfields
            if bits.length == 1 and bits.name.lower() in ("cloud", "clouds", "cirrus")
        )
        if tests:
            return CloudLayer(info.name, "bits", tests=tests, nodata_values=nodata)
    return None


def _means_cloud(one: Mapping[str, Any]) -> bool:
    name = str(one.get("name") or one.get("description") or "")
    return bool(_CLOUD.search(name)) and not _NO_CLOUD.search(name)
