"""Sentinel-2 Level-1C and Level-2A products: SAFE directories, or archives that hold one.

Follows the Sentinel-2 Products Specification Document (ESA, S2-PDGS-TAS-DI-PSD, issues 12 to
15), for the compact format in use since December 2016 and for the older one with several
granules a product, of which each becomes a scene. Images are found by listing the files,
never by trusting the XML's list, and read one by one: GDAL's own SENTINEL2 driver gives
zeros for a band whose file is absent. Band files that were taken out of their SAFE are read
too (sentinel2_files).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from geostore.errors import UnreadableSourceError
from geostore.scenes.cloud_detection import check_detector, detect_clouds
from geostore.scenes.scene import ReaderDefaults, ReadOptions, Scene
from geostore.scenes.sentinel2_bands import CLASSI, Level, product_bands
from geostore.scenes.sentinel2_files import BandFiles, find_band_files, open_band_files
from geostore.scenes.sentinel2_granule import Granule, GranuleOpener, Image, Product
from geostore.scenes.sentinel2_xml import listed_images, parse_xml, text

if TYPE_CHECKING:
    from geostore.scenes.source import Source

__all__ = ["Sentinel2Reader"]

MISSING_SHOWN = 3
"""How many of the files that a product lacks a message names."""

# .../GRANULE/<granule>/IMG_DATA/[R10m/]T18SVG_20160112T160642_B02[_10m].jp2 and the older
# .../IMG_DATA/[R20m/]S2A_USER_SCL_L2A_TL_..._T32TQM_20m.jp2
_IMAGE = re.compile(
    r"^(?P<granule>GRANULE/[^/]+)/IMG_DATA/(?:R\d+m/)?"
    r"(?:[^/]*_(?P<band>B\d\d|B8A|TCI|AOT|WVP|SCL)(?:_(?P<size>\d+)m)?"
    r"|[^/]*_(?P<old_band>AOT|WVP|SCL)_L2A_TL_[^/]*?_(?P<old_size>\d+)m)\.jp2$",
    re.IGNORECASE,
)
_QUALITY = re.compile(
    r"^(?P<granule>GRANULE/[^/]+)/QI_DATA/"
    r"(?:MSK_(?P<band>CLDPRB|SNWPRB)_(?P<size>\d+)m"
    r"|[^/]*_(?P<old_band>CLD|SNW)_(?:L2A_TL_[^/]*_)?(?P<old_size>\d+)m"
    r"|[^/]*_(?P<preview>PVI)[^/]*)\.jp2$",
    re.IGNORECASE,
)
# .../QI_DATA/MSK_CLASSI_B00.jp2, before baseline 04.00 MSK_CLOUDS_B00.gml, and before December
# 2016 S2A_OPER_MSK_CLOUDS_SGS__..._T32TPP_B00_MSIL1C.gml
_CLOUD_MASK = re.compile(
    r"^(?P<granule>GRANULE/[^/]+)/QI_DATA/"
    r"(?:MSK_CLASSI_B00\.jp2|(?:S2[A-D]_[A-Z]{4}_)?MSK_CLOUDS_[^/]*\.(?P<gml>gml))$",
    re.IGNORECASE,
)
_OLD_NAMES = {"CLD": "CLDPRB", "SNW": "SNWPRB"}

_PRODUCT_XML = re.compile(
    r"^(?:(?P<root>[^/]+(?:/[^/]+)?)/)?"
    r"(?:MTD_MSI(?P<level>L1C|L2A)|S2[A-D]_[A-Z]{4}_MTD_SAF(?P<old_level>L1C|L2A)_[^/]+)\.xml$"
)
_GRANULE_XML = re.compile(
    r"^GRANULE/[^/]+/(?:MTD_TL|S2[A-D]_[A-Z]{4}_MTD_L(?:1C|2A)_TL_[^/]+)\.xml$"
)
_IMAGE_ANYWHERE = re.compile(r"(?:^|/)GRANULE/[^/]+/IMG_DATA/.*\.jp2$", re.IGNORECASE)
_PRODUCT_NAME = re.compile(r"^S2[A-D]_[A-Za-z0-9_.-]{8,250}$")
_TILE = re.compile(r"_T(\d{2}[A-Z]{3})(?:_|$)")


class Sentinel2Reader:
    """Reader of one processing level: `sentinel-2-l1c` or `sentinel-2-l2a`."""

    def __init__(self, level: Level) -> None:
        self.level: Level = level
        self.name = f"sentinel-2-{level.lower()}"
        self.defaults = ReaderDefaults((10.0, 20.0, 60.0), {"geohash": 5, "quadtile": 13})
        self.images = product_bands(level)
        """What ships as images of its own: what a scene may lack."""
        self.bands = self.images if level == "L2A" else (*self.images, CLASSI)

    def claims(self, source: Source) -> bool:
        """By the product's XML; a SAFE that lacks it is claimed too, to say so.

        Where there is neither, by band files of this level and no other.
        """
        names = source.root_names()
        levels = {level for name in names if (level := _xml_level(name))}
        if levels:
            # The XML alone is no product; the folder around it is.
            return self.level in levels and (source.is_dir or source.is_archive)
        if _is_safe(source):
            is_l2a = "MSIL2A" in source.local.name or any("L2A_T" in name for name in names)
            return is_l2a == (self.level == "L2A")
        files = find_band_files(source)
        return files is not None and files.level == self.level

    def open(self, source: Source, options: ReadOptions) -> list[Scene]:
        """One scene a granule; `options.time` counts where there is no XML to state one."""
        if options.clouds is not None:
            check_detector(options.clouds)
        names = source.names()
        products = [
            Product(match["root"] or "", name)
            for name in names
            if (match := _PRODUCT_XML.match(name)) and _xml_level(name) == self.level
        ]
        if products:
            scenes = [scene for product in products for scene in self._open(source, product)]
        else:
            scenes = open_band_files(self.name, source, self._band_files(source), options)
        if options.clouds is None:
            return scenes
        return [detect_clouds(scene, options.clouds) for scene in scenes]

    def _band_files(self, source: Source) -> BandFiles:
        if _is_safe(source):
            raise UnreadableSourceError(
                f"{source.path}: a SAFE product without its metadata: expected"
                f" MTD_MSI{self.level}.xml beside GRANULE"
            )
        files = find_band_files(source)
        if files is None or files.level != self.level:
            example = "B04_10m" if self.level == "L2A" else "B04"
            raise UnreadableSourceError(
                f"{source.path}: nothing of Sentinel-2 {self.level}: expected"
                f" MTD_MSI{self.level}.xml beside GRANULE, or band files alone, as"
                f" T32TQM_20170710T101029_{example}.jp2"
            )
        return files

    def _open(self, source: Source, product: Product) -> list[Scene]:
        about = parse_xml(source, product.xml)
        granules = _granules(source, product)
        wanted = {band.name for band in self.images}
        if not any(wanted & granule.images.keys() for granule in granules):
            raise UnreadableSourceError(
                f"{source.shown(product.xml)}: no image of any band is there; expected"
                f" {self._expected(product, about)}"
            )
        name = _product_name(source, product, about)
        return [
            GranuleOpener(self.name, self.level, source, product, about, granule).scene(
                name, several=len(granules) > 1
            )
            for granule in granules
            if wanted & granule.images.keys()
        ]

    def _expected(self, product: Product, about: Element) -> str:
        """Which files a product without images should have, the first few by their path."""
        listed = listed_images(about)
        if not listed:
            return f"GRANULE/*/IMG_DATA/*.jp2 for {', '.join(band.name for band in self.images)}"
        prefix = f"{product.root}/" if product.root else ""
        shown = ", ".join(f"{prefix}{path}" for path in listed[:MISSING_SHOWN])
        more = len(listed) - MISSING_SHOWN
        return f"{shown} and {more} more" if more > 0 else shown


def _is_safe(source: Source) -> bool:
    """A folder or archive that is, or was, a SAFE, whether or not it has its XML."""
    if not source.is_dir and not source.is_archive:
        return False
    return source.local.name.upper().endswith(".SAFE") or any(
        _IMAGE_ANYWHERE.search(name) for name in source.root_names()
    )


def _xml_level(name: str) -> str | None:
    match = _PRODUCT_XML.match(name)
    return (match["level"] or match["old_level"]) if match else None


def _granules(source: Source, product: Product) -> list[Granule]:
    prefix = f"{product.root}/" if product.root else ""
    granules: dict[str, Granule] = {}
    for member in source.names():
        if not member.startswith(prefix):
            continue
        name = member[len(prefix) :]
        match = _IMAGE.match(name) or _QUALITY.match(name)
        if match is None:
            if _GRANULE_XML.match(name):
                folder = name.rpartition("/")[0]
                granules.setdefault(folder, Granule(folder, {})).xml = member
            elif mask := _CLOUD_MASK.match(name):
                masks = granules.setdefault(mask["granule"], Granule(mask["granule"], {})).masks
                masks["gml" if mask["gml"] else "jp2"] = member
            continue
        parts = match.groupdict()
        band = (parts["band"] or parts["old_band"] or parts.get("preview") or "").upper()
        size_m = int(parts["size"] or parts["old_size"] or 0)
        granule = granules.setdefault(match["granule"], Granule(match["granule"], {}))
        granule.images.setdefault(_OLD_NAMES.get(band, band), []).append(Image(member, size_m))
    for granule in granules.values():
        for images in granule.images.values():
            images.sort(key=lambda image: (image.size_m, image.member))
    return [granules[folder] for folder in sorted(granules)]


def _product_name(source: Source, product: Product, about: Element) -> str:
    """The product's own name, whatever its folder or archive was renamed to."""
    candidates = (
        text(about, "PRODUCT_URI") or text(about, "PRODUCT_URI_1C") or "",
        text(about, "PRODUCT_URI_2A") or "",
        product.root.rpartition("/")[2],
        source.local.name,
    )
    for candidate in candidates:
        name = re.sub(r"\.(SAFE|zip|tar|tgz|tar\.\w+)$", "", candidate, flags=re.IGNORECASE)
        name = re.sub(r"\.SAFE$", "", name, flags=re.IGNORECASE)
        if _PRODUCT_NAME.match(name):
            return name
    raise UnreadableSourceError(
        f"{source.shown(product.xml)}: no product name: expected PRODUCT_URI, or a folder"
        " named as the product"
    )
