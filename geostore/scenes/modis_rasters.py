"""MODIS layers that somebody converted to GeoTIFF or JPEG 2000, one file a layer.

Conversion tools name their files by product, day and layer, each in a way of its own; the
ways of GDAL and of four packages are known here. All layers of one product and day become one
scene. It is not the provider's granule: it may be cut or resampled, and has the layers that
somebody wanted, of which none is missing. So its id ends with eight digits of its content, and
the granule may be there beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from geostore.errors import UnreadableSourceError
from geostore.raster.positions import native_pixel_size_m
from geostore.scenes.modis_layers import LayerPixels, describe_layer, parse_day, period_from
from geostore.scenes.modis_products import (
    PIXEL_1KM_M,
    Product,
    cloud_layer,
    parse_product,
    product_of_kind,
)
from geostore.scenes.scene import ReadOptions, Scene, SceneBand
from geostore.types import TimeSpan

if TYPE_CHECKING:
    from geostore.raster import BandHeader, RasterFile
    from geostore.scenes.source import Source

__all__ = ["claims_rasters", "open_rasters"]

_SUFFIXES = (".tif", ".tiff", ".jp2")
_OTHER_SCENES = (".hdf", ".img", ".nc", ".h5", ".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz")
FILES_MAX = 20_000

_P = r"(?P<product>M[OYC]D\d{2}[A-Z0-9]{1,5})"
_NAMES = (
    # GDAL of a granule: MYD13A1.A2020153.h30v10.006.2020170024036_NDVI_B01
    re.compile(
        rf"^(?P<granule>{_P}\.A(?P<day>\d{{7}})(?:\.[A-Za-z0-9]+)*?)[._](?P<layer>[A-Za-z]\w*)$"
    ),
    # MODIStsp writes as in MOD13A1_NDVI_2016_001
    re.compile(rf"^{_P}_(?P<layer>\w+)_(?P<year>\d{{4}})_(?P<day_of_year>\d{{3}})$"),
    # AppEEARS: MOD13A1.006__500m_16_days_NDVI_doy2016001_aid0001
    re.compile(rf"^{_P}\.\d{{3}}_+(?P<layer>\w+?)_doy(?P<day>\d{{7}})_aid\d+$"),
    # sits: TERRA_MODIS_012010_NDVI_2014-07-28
    re.compile(r"^(?P<satellite>TERRA|AQUA)_MODIS_\d{6}_(?P<layer>\w+)_(?P<date>\d{4}-\d\d-\d\d)$"),
    # rsat: MODIS_Grid_500m_2D_sur_refl_b01_1, in an archive named by the day, 2021222
    re.compile(r"^MODIS_Grid_(?P<grid>1km|500m|250m)_2D_(?P<layer>\w+)$"),
)
_ARCHIVE_DAY = re.compile(r"(?<!\d)(\d{7})(?!\d)")
_PATH_PRODUCT = re.compile(
    r"(?<![A-Za-z0-9])(M[OY]D\d{2}[A-Z0-9]{1,4})(?![A-Za-z0-9])", re.IGNORECASE
)
_ORDINAL = re.compile(r"_B\d\d$")
_SINUSOIDAL = re.compile(r'PROJECTION\["Sinusoidal"\]|METHOD\["Sinusoidal"')
_SPHERE = re.compile(r"6371007\.18\d*")

# By what the layers' short names in some conversions stand for.
_VI_SHORT = {
    "VIQ": "VI Quality",
    "RR": "red reflectance",
    "NIRR": "NIR reflectance",
    "BR": "blue reflectance",
    "MIRR": "MIR reflectance",
    "VZA": "view zenith angle",
    "SZA": "sun zenith angle",
    "RAA": "relative azimuth angle",
    "CDOY": "composite day of the year",
    "PR": "pixel reliability",
}
_VI_NAMES = ("13Q1", "13A1", "13A2")
_NUMERIC_TAGS = ("valid_range", "scale_factor", "add_offset", "_FillValue")
# 16-day vegetation indices by pixel size: the only MODIS ones that come alone.
_VI_KINDS = ((PIXEL_1KM_M / 4, "13Q1"), (PIXEL_1KM_M / 2, "13A1"), (PIXEL_1KM_M, "13A2"))


@dataclass(frozen=True, slots=True)
class _File:
    """A raster by what its name says."""

    member: str
    layer: str
    day: datetime | None
    product: str | None
    """Short name; None where the layer's grid or pixel size tells."""
    granule: str | None = None
    satellite: str | None = None


def _members(source: Source) -> list[str]:
    """Files that may be layers; [] for a directory that has folders in it or other scenes."""
    if source.has_folders():
        return []
    names = [name for name in source.root_names() if not PurePosixPath(name).name.startswith(".")]
    if any(PurePosixPath(name).suffix.lower() in _OTHER_SCENES for name in names):
        return []
    return [name for name in names if PurePosixPath(name).suffix.lower() in _SUFFIXES]


def _parse_name(source: Source, member: str) -> _File | None:
    stem = PurePosixPath(member).stem
    for pattern in _NAMES:
        match = pattern.match(stem)
        if match is None:
            continue
        parts = match.groupdict()
        if parts.get("grid"):
            found = _ARCHIVE_DAY.findall(source.local.name)
            return _File(member, parts["layer"], parse_day(found[-1]) if found else None, None)
        if parts.get("year"):
            day = parse_day(parts["year"] + parts["day_of_year"])
        else:
            day = parse_day(parts.get("date") or parts["day"])
        return _File(
            member,
            parts["layer"],
            day,
            parts.get("product"),
            parts.get("granule"),
            parts.get("satellite"),
        )
    return None


def _layer_files(source: Source) -> list[_File]:
    """Every raster of the source, if all are MODIS layers by their names; else []."""
    members = _members(source)
    found = [_parse_name(source, member) for member in members]
    files = [file for file in found if file is not None]
    return files if len(files) == len(found) else []


def claims_rasters(source: Source) -> bool:
    """Whether the source is MODIS layers as rasters: all by their names, one by its content."""
    files = _layer_files(source)
    if not files:
        return False
    try:
        return _is_modis(source.raster(files[0].member))
    except UnreadableSourceError:
        return False  # the reader of any raster says what is wrong with it


def _is_modis(file: RasterFile) -> bool:
    """On the sinusoidal grid's sphere, or with a granule's metadata as tags."""
    header = file.header
    if "LOCALGRANULEID" in header.tags and "SHORTNAME" in header.tags:
        return bool(header.crs_wkt)
    return bool(_SINUSOIDAL.search(header.crs_wkt) and _SPHERE.search(header.crs_wkt))


def open_rasters(
    source: Source, options: ReadOptions, check: Callable[[str, Product], None]
) -> list[Scene]:
    """The scenes in a file, directory or archive of converted layers, one a product and day.

    Raises:
        UnreadableSourceError: not MODIS layers, or a damaged one.
    """
    files = _layer_files(source)
    if not files:
        raise UnreadableSourceError(
            f"{source.path}: neither HDF4 nor MODIS layers as rasters; expected files named as"
            " MOD13A1.A2016145.h18v04.006.2016166145124_NDVI.tif and no other rasters"
        )
    if len(files) > FILES_MAX:
        raise UnreadableSourceError(
            f"{source.path}: {len(files)} MODIS layers; expected at most {FILES_MAX} in one folder"
            " or archive"
        )
    source.rasters(file.member for file in files)
    groups: dict[tuple[str, str, str], list[tuple[_File, Product]]] = {}
    for file in files:
        raster = source.raster(file.member)
        if not _is_modis(raster):
            raise UnreadableSourceError(
                f"{raster.name}: named as a MODIS layer, but not on the sinusoidal grid of a"
                " sphere of 6371007.181 m and without a granule's metadata; expected either"
            )
        product = _product(source, file, raster)
        check(raster.name, product)
        key = (product.name, file.granule or "", str(file.day))
        groups.setdefault(key, []).append((file, product))
    scenes: list[Scene] = []
    with ExitStack() as opened:
        for key in sorted(groups):
            group = groups[key]
            scenes.append(_scene(source, group[0][1], [file for file, _ in group], options))
            opened.callback(scenes[-1].close)
        opened.pop_all()
    return scenes


def _product(source: Source, file: _File, raster: RasterFile) -> Product:
    """By the granule's metadata in the file, its name, or its path where the layers agree."""
    stated = raster.header.tags.get("SHORTNAME", "")
    if re.fullmatch(_P, stated):
        return parse_product(stated)
    if file.product is not None:
        return parse_product(file.product)
    kind = "09GA" if file.satellite is None else _vi_kind(file, raster)
    for text in (*reversed(PurePosixPath(source.path).parts), source.local.parent.name):
        for name in _PATH_PRODUCT.findall(text):
            product = parse_product(name)
            if product.kind == kind and _satellite_fits(product, file):
                return product
    if file.satellite is not None:
        return parse_product(f"{'MOD' if file.satellite == 'TERRA' else 'MYD'}{kind}")
    return product_of_kind(kind)


def _satellite_fits(product: Product, file: _File) -> bool:
    return file.satellite is None or product.platform == file.satellite.lower()


def _vi_kind(file: _File, raster: RasterFile) -> str:
    size_m = abs(raster.header.transform[0])
    size, kind = min(_VI_KINDS, key=lambda one: abs(one[0] - size_m))
    if file.layer not in ("NDVI", "EVI") or abs(size - size_m) > 0.01 * size:
        raise UnreadableSourceError(
            f"{raster.name}: layer {file.layer} with pixels of {size_m:.6g} m; expected NDVI or"
            f" EVI at {', '.join(f'{one[0]:.6g}' for one in _VI_KINDS)} m"
        )
    return kind


def _scene(source: Source, product: Product, files: list[_File], options: ReadOptions) -> Scene:
    members = [file.member for file in files]
    folder = members[0].rpartition("/")[0]
    fingerprint = source.fingerprint(members, folder)
    tags = source.raster(members[0]).header.tags
    day = files[0].day
    bands: dict[str, SceneBand] = {}
    ranges: dict[str, list[float]] = {}
    with ExitStack() as made:
        for file in files:
            for band, stated in _bands(source, product, file):
                made.callback(band.source.close)
                name = band.info.name
                if name in bands:
                    raise UnreadableSourceError(
                        f"{source.shown(file.member)}: a second layer {name!r} of {product.name}"
                        f" on {day:%Y-%m-%d}"
                        if day
                        else f"{source.path}: layer {name!r} twice"
                    )
                bands[name] = band
                if stated is not None:
                    ranges[name] = stated
        made.pop_all()
    ordered = [bands[name] for name in product.layers if name in bands]
    ordered += [band for name, band in bands.items() if name not in product.layers]
    span = _span_of_tags(tags) or (period_from(day, product.period) if day else options.time)
    stem = files[0].granule or (f"{product.name}.A{day:%Y%j}" if day else product.name)
    platform = product.platform or tags.get("ASSOCIATEDPLATFORMSHORTNAME.1", "").lower() or None
    properties = {
        "product": product.name,
        "granule": files[0].granule,
        "tile": _tile(files[0].granule),
        "production_time": tags.get("PRODUCTIONDATETIME"),
        "valid_ranges": ranges or None,
    }
    return Scene(
        id=f"{stem}-{fingerprint[:8]}",
        reader=product.reader,
        path=source.path,
        time_us=span.start_us if span else None,
        time_end_us=span.end_us if span else None,
        platform=platform,
        bands=tuple(ordered),
        cloud=cloud_layer(product, list(bands)),
        properties={name: value for name, value in properties.items() if value is not None},
        fingerprint=fingerprint,
    )


def _tile(granule: str | None) -> str | None:
    match = re.search(r"\.(h\d\dv\d\d)(?:\.|$)", granule or "")
    return match[1] if match else None


def _span_of_tags(tags: Mapping[str, str]) -> TimeSpan | None:
    begin, end = tags.get("RANGEBEGINNINGDATE"), tags.get("RANGEENDINGDATE")
    if not begin or not end:
        return None
    try:
        return TimeSpan.parse(
            f"{begin}T{tags['RANGEBEGINNINGTIME']}Z/{end}T{tags['RANGEENDINGTIME']}Z"
        )
    except (KeyError, ValueError):
        return None


def _bands(
    source: Source, product: Product, file: _File
) -> Iterable[tuple[SceneBand, list[float] | None]]:
    """(band, stated valid range) of each band of a file; nearly all files have one."""
    header = source.raster(file.member).header
    if not header.has_transform:
        raise UnreadableSourceError(f"{source.shown(file.member)}: no geotransform; expected one")
    for number, about in enumerate(header.bands, start=1):
        if about.color == "alpha":
            continue
        layer_name = _layer_name(product, file.layer, about)
        attributes = _attributes(header.tags, about)
        name = layer_name if len(header.bands) == 1 else f"{layer_name}_{number}"
        described = describe_layer(product, layer_name, about.dtype, attributes, name=name)
        band = source.band(file.member, number, nodata=described.info.nodata)
        size_m = native_pixel_size_m(band.grid)
        layer = replace(described, info=replace(described.info, native_resolution_m=size_m))
        stated = attributes.get("valid_range")
        yield SceneBand(layer.info, LayerPixels(band, layer) if layer.has_rules else band), stated


def _attributes(tags: Mapping[str, str], about: BandHeader) -> dict[str, Any]:
    """A layer's attributes as HDF has them, from the tags that GDAL makes of them."""
    attributes: dict[str, Any] = {
        name: tags[name] for name in ("units", "long_name", "Key", "Legend") if name in tags
    }
    if "units" not in attributes and about.unit:
        attributes["units"] = about.unit
    attributes.setdefault("long_name", about.description)
    numbers = {name: _numbers(tags.get(name)) for name in _NUMERIC_TAGS}
    attributes |= {name: found for name, found in numbers.items() if found}
    if not numbers["scale_factor"]:
        attributes["scale_factor"], attributes["add_offset"] = about.scale, about.offset
        attributes["formula"] = "data * scale_factor + add_offset"  # as GDAL means them
    if about.nodata is not None:
        attributes["_FillValue"] = about.nodata
    return attributes


def _numbers(text: str | None) -> list[float]:
    try:
        return [float(part) for part in (text or "").split(",") if part.strip()]
    except ValueError:
        return []


def _layer_name(product: Product, short: str, about: BandHeader) -> str:
    """The product's own name of a layer, where that can be told; else the file's."""
    if about.description in product.layers:
        return about.description
    short = _ORDINAL.sub("", short)
    wanted = _plain(_VI_SHORT.get(short, short) if product.kind in _VI_NAMES else short)
    for layer in product.layers:
        if _plain(layer) == wanted:
            return layer
    for layer in product.layers:
        if layer.endswith(f" {_VI_SHORT.get(short, short)}"):
            return layer
    return short


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
