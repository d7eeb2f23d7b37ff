"""Sentinel-2 Level-1C and Level-2A products: SAFE directories, or archives that hold one.

Follows the Sentinel-2 Products Specification Document (ESA, S2-PDGS-TAS-DI-PSD, issues 12 to
15), for the compact format in use since December 2016 and for the older one with several
granules a product, of which each becomes a scene. Images are found by listing the files,
never by trusting the XML's list, and read one by one: GDAL's own SENTINEL2 driver gives
zeros for a band whose file is absent. Grids are the images' own, since repackaged products
state sizes that their images do not have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal
from xml.etree.ElementTree import Element, ParseError

import defusedxml
import defusedxml.ElementTree

from geostore.errors import UnreadableSourceError
from geostore.grid import pixel_size_m
from geostore.scenes.scene import ReaderDefaults, ReadOptions, Scene, SceneBand
from geostore.types import BandInfo, BandRole, CloudLayer
from geostore.types.geo import us_from_datetime

if TYPE_CHECKING:
    from geostore.raster import RasterBand
    from geostore.scenes.source import Source

__all__ = ["Sentinel2Reader"]

Level = Literal["L1C", "L2A"]

XML_BYTES_MAX = 1 << 25

# Name, STAC common name, centre wavelength; the position is the XML's band_id.
_SPECTRAL: tuple[tuple[str, str, str], ...] = (
    ("B01", "coastal", "443 nm"),
    ("B02", "blue", "490 nm"),
    ("B03", "green", "560 nm"),
    ("B04", "red", "665 nm"),
    ("B05", "rededge071", "704 nm"),
    ("B06", "rededge075", "740 nm"),
    ("B07", "rededge078", "783 nm"),
    ("B08", "nir", "842 nm"),
    ("B8A", "nir08", "865 nm"),
    ("B09", "nir09", "945 nm"),
    ("B10", "cirrus", "1375 nm"),
    ("B11", "swir16", "1610 nm"),
    ("B12", "swir22", "2190 nm"),
)

# Table 3 of the Level-2A Algorithm Theoretical Basis Document, scene classification.
_SCENE_CLASSES = {
    "0": "no data",
    "1": "saturated or defective",
    "2": "dark area",
    "3": "cloud shadow",
    "4": "vegetation",
    "5": "not vegetated",
    "6": "water",
    "7": "unclassified",
    "8": "cloud, medium probability",
    "9": "cloud, high probability",
    "10": "thin cirrus",
    "11": "snow or ice",
}

_L2A_LAYERS: tuple[BandInfo, ...] = (
    BandInfo(
        name="AOT",
        dtype="uint16",
        nodata=0,
        role=BandRole.QUALITY,
        description="aerosol optical thickness at 550 nm",
    ),
    BandInfo(
        name="WVP",
        dtype="uint16",
        nodata=0,
        role=BandRole.QUALITY,
        unit="cm",
        description="water vapour column",
    ),
    BandInfo(
        name="SCL",
        dtype="uint8",
        nodata=0,
        role=BandRole.CLASS,
        description="scene classification",
        class_names=_SCENE_CLASSES,
    ),
    BandInfo(
        name="CLDPRB",
        dtype="uint8",
        role=BandRole.LIKELIHOOD,
        unit="percent",
        description="cloud probability",
    ),
    BandInfo(
        name="SNWPRB",
        dtype="uint8",
        role=BandRole.QUALITY,
        unit="percent",
        description="snow probability",
    ),
)

_PREVIEWS = ("TCI", "PVI")

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


@dataclass(frozen=True, slots=True)
class _Product:
    """One product inside a source: its folder ("" for the source itself) and its XML."""

    root: str
    xml: str


@dataclass(frozen=True, slots=True)
class _Image:
    member: str
    size_m: int
    """As the file's name says; only for choosing the finest."""


@dataclass(slots=True)
class _Granule:
    """Files of one granule (one tile of the MGRS grid)."""

    folder: str
    images: dict[str, list[_Image]]
    """By band name, finest first."""
    xml: str | None = None


class Sentinel2Reader:
    """Reader of one processing level: `sentinel-2-l1c` or `sentinel-2-l2a`."""

    def __init__(self, level: Level) -> None:
        self.level: Level = level
        self.name = f"sentinel-2-{level.lower()}"
        self.defaults = ReaderDefaults((10.0, 20.0, 60.0), {"geohash": 5, "quadtile": 13})
        spectral = tuple(
            BandInfo(
                name=name,
                common_name=common,
                dtype="uint16",
                nodata=0,
                scale=1e-4,
                description=f"reflectance, {wavelength}",
            )
            for name, common, wavelength in _SPECTRAL
            if level == "L1C" or name != "B10"
        )
        self.bands = spectral if level == "L1C" else spectral + _L2A_LAYERS

    def claims(self, source: Source) -> bool:
        """By the product's XML; a SAFE that lacks it is claimed too, to say so."""
        names = source.root_names()
        levels = {level for name in names if (level := _xml_level(name))}
        if levels:
            return self.level in levels
        if not source.is_dir and not source.is_archive:
            return False
        looks_like_safe = source.local.name.upper().endswith(".SAFE") or any(
            _IMAGE_ANYWHERE.search(name) for name in names
        )
        is_l2a = "MSIL2A" in source.local.name or any("L2A_T" in name for name in names)
        return looks_like_safe and is_l2a == (self.level == "L2A")

    def open(self, source: Source, options: ReadOptions) -> list[Scene]:
        """One scene a granule; `options.time` is not used, since products state theirs."""
        del options
        names = source.names()
        products = [
            _Product(match["root"] or "", name)
            for name in names
            if (match := _PRODUCT_XML.match(name)) and _xml_level(name) == self.level
        ]
        if not products:
            raise UnreadableSourceError(
                f"{source.path}: a SAFE product without its metadata: expected"
                f" MTD_MSI{self.level}.xml beside GRANULE"
            )
        return [scene for product in products for scene in self._open(source, product)]

    def _open(self, source: Source, product: _Product) -> list[Scene]:
        about = _parse_xml(source, product.xml)
        granules = _granules(source, product)
        wanted = {band.name for band in self.bands}
        if not any(wanted & granule.images.keys() for granule in granules):
            raise UnreadableSourceError(
                f"{source.shown(product.xml)}: no image of any band is there; expected"
                f" GRANULE/*/IMG_DATA/*.jp2 for {', '.join(band.name for band in self.bands)}"
            )
        name = _product_name(source, product, about)
        return [
            _GranuleOpener(self, source, product, about, granule).scene(
                name, several=len(granules) > 1
            )
            for granule in granules
            if wanted & granule.images.keys()
        ]


def _xml_level(name: str) -> str | None:
    match = _PRODUCT_XML.match(name)
    return (match["level"] or match["old_level"]) if match else None


def _parse_xml(source: Source, member: str) -> Element:
    """The document's root. DTDs, entities and external references are refused."""
    content = source.open_bytes(member, XML_BYTES_MAX)
    try:
        root: Element = defusedxml.ElementTree.fromstring(content, forbid_dtd=True)
    except (ParseError, defusedxml.DefusedXmlException, ValueError, LookupError) as error:
        raise UnreadableSourceError(
            f"{source.shown(member)}: not readable as XML: {error}"
        ) from error
    return root


def _elements(root: Element, name: str) -> Iterator[Element]:
    """Every element of that local name: namespaces differ between issues of the format."""
    return (one for one in root.iter() if one.tag.rpartition("}")[2] == name)


def _text(root: Element | None, *names: str) -> str | None:
    """The text of the first element named by the path `names`, each below the last."""
    for name in names:
        root = next(_elements(root, name), None) if root is not None else None
    text = (root.text or "").strip() if root is not None else ""
    return text or None


def _number(root: Element | None, *names: str) -> float | None:
    text = _text(root, *names)
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _granules(source: Source, product: _Product) -> list[_Granule]:
    prefix = f"{product.root}/" if product.root else ""
    granules: dict[str, _Granule] = {}
    for member in source.names():
        if not member.startswith(prefix):
            continue
        name = member[len(prefix) :]
        match = _IMAGE.match(name) or _QUALITY.match(name)
        if match is None:
            if _GRANULE_XML.match(name):
                folder = name.rpartition("/")[0]
                granules.setdefault(folder, _Granule(folder, {})).xml = member
            continue
        parts = match.groupdict()
        band = (parts["band"] or parts["old_band"] or parts.get("preview") or "").upper()
        size_m = int(parts["size"] or parts["old_size"] or 0)
        granule = granules.setdefault(match["granule"], _Granule(match["granule"], {}))
        granule.images.setdefault(_OLD_NAMES.get(band, band), []).append(_Image(member, size_m))
    for granule in granules.values():
        for images in granule.images.values():
            images.sort(key=lambda image: (image.size_m, image.member))
    return [granules[folder] for folder in sorted(granules)]


def _product_name(source: Source, product: _Product, about: Element) -> str:
    """The product's own name, whatever its folder or archive was renamed to."""
    candidates = (
        _text(about, "PRODUCT_URI") or _text(about, "PRODUCT_URI_1C") or "",
        _text(about, "PRODUCT_URI_2A") or "",
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


def _time_us(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return us_from_datetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


class _GranuleOpener:
    """Makes one scene of one granule."""

    def __init__(
        self,
        reader: Sentinel2Reader,
        source: Source,
        product: _Product,
        about: Element,
        granule: _Granule,
    ) -> None:
        self._reader = reader
        self._source = source
        self._product = product
        self._about = about
        self._granule = granule
        self._tile = _parse_xml(source, granule.xml) if granule.xml else None
        self._used = {product.xml, *([granule.xml] if granule.xml else [])}

    def scene(self, product_name: str, *, several: bool) -> Scene:
        mgrs_tile = self._mgrs_tile(product_name)
        present = [band for band in self._reader.bands if band.name in self._granule.images]
        self._source.rasters(self._granule.images[band.name][0].member for band in present)
        bands = tuple(self._band(band) for band in present)
        time_us = self._sensing_time_us()
        platform = _text(self._about, "SPACECRAFT_NAME")
        has_likelihood = any(band.info.name == "CLDPRB" for band in bands)
        return Scene(
            id=f"{product_name}_T{mgrs_tile}" if several else product_name,
            reader=self._reader.name,
            path=self._source.path,
            time_us=time_us,
            time_end_us=time_us,
            platform=(platform or f"Sentinel-{product_name[1:3]}").lower(),
            bands=bands,
            missing=tuple(
                band.name for band in self._reader.bands if band.name not in self._granule.images
            ),
            previews=tuple(name for name in _PREVIEWS if name in self._granule.images),
            cloud=_cloud_layer(bands),
            likelihood_band="CLDPRB" if has_likelihood else None,
            properties=self._properties(product_name, mgrs_tile),
            fingerprint=self._source.fingerprint(self._used, self._product.root),
        )

    def _band(self, info: BandInfo) -> SceneBand:
        image = self._granule.images[info.name][0]
        self._used.add(image.member)
        mask_band = self._mask_band(image) if info.nodata is None else None
        source = self._source.band(
            image.member,
            nodata=self._nodata() if info.role is BandRole.DATA else info.nodata,
            ignore_mask=True,
            mask_band=mask_band,
        )
        if not source.grid.crs_wkt:
            raise UnreadableSourceError(
                f"{self._source.shown(image.member)}: the image states no CRS or position"
            )
        scale, offset = self._radiometry(info)
        return SceneBand(
            replace(
                info,
                dtype=source.dtype,
                nodata=source.nodata,
                scale=scale,
                offset=offset,
                # Sentinel-2 grids are UTM (or UPS): metres.
                native_resolution_m=pixel_size_m(source.grid.transform, is_geographic=False),
            ),
            source,
        )

    def _mask_band(self, image: _Image) -> RasterBand | None:
        """What tells where a probability of that size has no data: it has no nodata value.

        The scene classification of the same size does; else any reflectance of that size.
        """
        order = ["SCL", *(name for name, _, _ in _SPECTRAL)]
        for name in order:
            for other in self._granule.images.get(name, ()):
                if other.size_m == image.size_m:
                    self._used.add(other.member)
                    return self._source.band(other.member, nodata=0, ignore_mask=True)
        return None

    def _nodata(self) -> int:
        for special in _elements(self._about, "Special_Values"):
            if _text(special, "SPECIAL_VALUE_TEXT") == "NODATA":
                value = _number(special, "SPECIAL_VALUE_INDEX")
                if value is not None:
                    return int(value)
        return 0

    def _radiometry(self, info: BandInfo) -> tuple[float, float]:
        """(scale, offset): reflectance = (stored + add_offset) / quantification.

        Products of baseline 04.00 and later add 1000 to what is stored, so that noise below
        zero fits; their XML says so by band. Earlier ones state no offset.
        """
        if info.name in ("AOT", "WVP"):
            count = _number(self._about, f"{info.name}_QUANTIFICATION_VALUE")
            count = count or _number(self._about, f"L2A_{info.name}_QUANTIFICATION_VALUE")
            return 1.0 / (count or 1000.0), 0.0
        if info.role is not BandRole.DATA:
            return 1.0, 0.0
        quantification = self._quantification()
        add_offset = self._add_offsets().get(info.name, 0.0)
        return 1.0 / quantification, add_offset / quantification

    def _quantification(self) -> float:
        for name in (
            "BOA_QUANTIFICATION_VALUE",
            "L2A_BOA_QUANTIFICATION_VALUE",
            "QUANTIFICATION_VALUE",
        ):
            value = _number(self._about, name)
            if value is not None and value > 0:
                return value
        return 10_000.0

    def _add_offsets(self) -> dict[str, float]:
        name = "RADIO_ADD_OFFSET" if self._reader.level == "L1C" else "BOA_ADD_OFFSET"
        offsets: dict[str, float] = {}
        for element in _elements(self._about, name):
            try:
                band_id = int(element.get("band_id", ""))
                offsets[_SPECTRAL[band_id][0]] = float(element.text or "")
            except (ValueError, IndexError) as error:
                raise UnreadableSourceError(
                    f"{self._source.shown(self._product.xml)}: {name} with band_id"
                    f" {element.get('band_id')!r} and value {element.text!r}: expected a band"
                    " number 0..12 and a number"
                ) from error
        return offsets

    def _sensing_time_us(self) -> int | None:
        """The granule's own sensing time: within a datatake tiles lie minutes apart.

        Falls back on the product's start, which is that of the datatake.
        """
        for text in (
            _text(self._tile, "SENSING_TIME"),
            _text(self._about, "PRODUCT_START_TIME"),
            _text(self._about, "DATATAKE_SENSING_START"),
        ):
            time_us = _time_us(text)
            if time_us is not None:
                return time_us
        return None

    def _mgrs_tile(self, product_name: str) -> str:
        for text in (
            _text(self._tile, "TILE_ID"),
            _text(self._tile, "TILE_ID_2A"),
            self._granule.folder,
            product_name,
        ):
            match = _TILE.search(text or "")
            if match:
                return match[1]
        raise UnreadableSourceError(
            f"{self._source.shown(self._product.xml)}: no tile id (as T32TQM) in the"
            f" metadata, in {self._granule.folder} or in the product's name"
        )

    def _properties(self, product_name: str, mgrs_tile: str) -> dict[str, Any]:
        about, tile = self._about, self._tile
        cloud = _number(about, "Cloud_Coverage_Assessment")
        orbit = _number(about, "SENSING_ORBIT_NUMBER")
        offsets = self._add_offsets()
        properties = {
            "product": product_name,
            "level": self._reader.level,
            "processing_baseline": _text(about, "PROCESSING_BASELINE"),
            "mgrs_tile": mgrs_tile,
            "granule": self._granule.folder.rpartition("/")[2],
            "relative_orbit": None if orbit is None else int(orbit),
            "orbit_direction": _text(about, "SENSING_ORBIT_DIRECTION"),
            "datatake": _attribute(about, "Datatake", "datatakeIdentifier"),
            "product_start_time": _text(about, "PRODUCT_START_TIME"),
            "generation_time": _text(about, "GENERATION_TIME"),
            "cloud_cover_product_percent": cloud,
            "nodata_product_percent": _number(tile, "NODATA_PIXEL_PERCENTAGE"),
            "sun_zenith_deg": _number(tile, "Mean_Sun_Angle", "ZENITH_ANGLE"),
            "sun_azimuth_deg": _number(tile, "Mean_Sun_Angle", "AZIMUTH_ANGLE"),
            "quantification": self._quantification(),
            "add_offset": offsets or None,
            "earth_sun_distance_correction": _number(about, "Reflectance_Conversion", "U"),
        }
        return {name: value for name, value in properties.items() if value is not None}


def _attribute(root: Element, element: str, attribute: str) -> str | None:
    found = next(_elements(root, element), None)
    return found.get(attribute) if found is not None else None


def _cloud_layer(bands: tuple[SceneBand, ...]) -> CloudLayer | None:
    names = {band.info.name for band in bands}
    if "SCL" in names:
        return CloudLayer("SCL", "classes", frozenset({8, 9, 10}), nodata_values=frozenset({0}))
    if "CLDPRB" in names:
        return CloudLayer("CLDPRB", "likelihood", frozenset({50}))
    return None
