"""One granule of a Sentinel-2 product, images and XML, as a scene.

Grids are the images' own, since repackaged products state sizes that their images do not have.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element

from geostore.errors import UnreadableSourceError
from geostore.grid import pixel_size_m
from geostore.scenes.scene import Scene, SceneBand
from geostore.scenes.sentinel2_bands import (
    CLASSI,
    CLOUD_OF_CLASSES,
    CLOUD_OF_CLASSI,
    CLOUD_OF_PROBABILITY,
    PREVIEWS,
    QUANTIFICATION,
    SPECTRAL,
    Level,
    product_bands,
)
from geostore.scenes.sentinel2_masks import (
    CloudPolygons,
    MaskLayers,
    coarsest,
    on_grid,
    open_mask_layers,
    read_cloud_polygons,
)
from geostore.scenes.sentinel2_xml import (
    attribute,
    elements,
    number,
    parse_time_us,
    parse_xml,
    text,
)
from geostore.types import BandInfo, BandRole, CloudLayer

if TYPE_CHECKING:
    from geostore.raster import RasterBand
    from geostore.scenes.source import Source

__all__ = ["Granule", "GranuleOpener", "Image", "Product", "cloud_layer"]

_BAND_BY_ID = {str(number): name for number, (name, _, _) in enumerate(SPECTRAL)}
_TILE = re.compile(r"_T(\d{2}[A-Z]{3})(?:_|$)")


@dataclass(frozen=True, slots=True)
class Product:
    """One product inside a source: its folder ("" for the source itself) and its XML."""

    root: str
    xml: str


@dataclass(frozen=True, slots=True)
class Image:
    """A file that holds one band."""

    member: str
    size_m: int
    """As the file's name says; only for choosing the finest."""


@dataclass(slots=True)
class Granule:
    """Files of one granule (one tile of the MGRS grid)."""

    folder: str
    images: dict[str, list[Image]]
    """By band name, finest first."""
    xml: str | None = None
    masks: dict[str, str] = field(default_factory=dict)
    """The cloud mask's file by its format: `jp2`, `gml`."""


def _finite(found: str) -> float:
    value = float(found)
    if not math.isfinite(value):
        raise ValueError(found)
    return value


class GranuleOpener:
    """Makes one scene of one granule."""

    def __init__(
        self,
        reader: str,
        level: Level,
        source: Source,
        product: Product,
        about: Element,
        granule: Granule,
    ) -> None:
        self._reader = reader
        self._level: Level = level
        self._source = source
        self._product = product
        self._about = about
        self._granule = granule
        self._tile = parse_xml(source, granule.xml) if granule.xml else None
        self._used = {product.xml, *([granule.xml] if granule.xml else [])}

    def scene(self, product_name: str, *, several: bool) -> Scene:
        """The scene; called by its tile as well where the product has several."""
        mgrs_tile = self._mgrs_tile(product_name)
        images = product_bands(self._level)
        present = [band for band in images if band.name in self._granule.images]
        self._source.rasters(self._granule.images[band.name][0].member for band in present)
        bands = [self._band(band) for band in present]
        mask = self._cloud_mask(bands) if self._level == "L1C" else None
        if mask is not None:
            bands.append(mask)
        time_us = self._sensing_time_us()
        platform = text(self._about, "SPACECRAFT_NAME")
        names = {band.info.name for band in bands}
        return Scene(
            id=f"{product_name}_T{mgrs_tile}" if several else product_name,
            reader=self._reader,
            path=self._source.path,
            time_us=time_us,
            time_end_us=time_us,
            platform=(platform or f"Sentinel-{product_name[1:3]}").lower(),
            bands=tuple(bands),
            missing=tuple(band.name for band in images if band.name not in names),
            previews=tuple(name for name in PREVIEWS if name in self._granule.images),
            cloud=cloud_layer(names),
            likelihood_band="CLDPRB" if "CLDPRB" in names else None,
            properties=self._properties(product_name, mgrs_tile),
            fingerprint=self._source.fingerprint(self._used, self._product.root),
        )

    def _cloud_mask(self, bands: list[SceneBand]) -> SceneBand | None:
        """Level-1C's own mask, from either of the forms in which it ships."""
        measured = [band.source for band in bands]
        member = self._granule.masks.get("jp2") or self._granule.masks.get("gml")
        if member is None:
            return None
        self._used.add(member)
        source: MaskLayers | CloudPolygons
        info = CLASSI
        if member == self._granule.masks.get("jp2"):
            layers = open_mask_layers(self._source, member)
            source = MaskLayers(layers, on_grid(layers[0].grid, measured))
        else:
            source = read_cloud_polygons(self._source, member, coarsest(measured))
            # Polygons tell of cloud only.
            info = replace(info, bitfields=info.bitfields[:2])
        size_m = pixel_size_m(source.grid.transform, is_geographic=False)
        return SceneBand(replace(info, native_resolution_m=size_m), source)

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

    def _mask_band(self, image: Image) -> RasterBand | None:
        """What tells where a probability of that size has no data: it has no nodata value.

        The scene classification of the same size does; else any reflectance of that size.
        """
        order = ["SCL", *(name for name, _, _ in SPECTRAL)]
        for name in order:
            for other in self._granule.images.get(name, ()):
                if other.size_m == image.size_m:
                    self._used.add(other.member)
                    return self._source.band(other.member, nodata=0, ignore_mask=True)
        return None

    def _nodata(self) -> int:
        for special in elements(self._about, "Special_Values"):
            if text(special, "SPECIAL_VALUE_TEXT") == "NODATA":
                value = number(special, "SPECIAL_VALUE_INDEX")
                if value is not None:
                    return int(value)
        return 0

    def _radiometry(self, info: BandInfo) -> tuple[float, float]:
        """(scale, offset): reflectance = (stored + add_offset) / quantification.

        Products of baseline 04.00 and later add 1000 to what is stored, so that noise below
        zero fits; their XML says so by band. Earlier ones state no offset.
        """
        if info.name in ("AOT", "WVP"):
            count = number(self._about, f"{info.name}_QUANTIFICATION_VALUE")
            count = count or number(self._about, f"L2A_{info.name}_QUANTIFICATION_VALUE")
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
            value = number(self._about, name)
            if value is not None and value > 0:
                return value
        return QUANTIFICATION

    def _add_offsets(self) -> dict[str, float]:
        name = "RADIO_ADD_OFFSET" if self._level == "L1C" else "BOA_ADD_OFFSET"
        offsets: dict[str, float] = {}
        for element in elements(self._about, name):
            try:
                band = _BAND_BY_ID[element.get("band_id", "")]
                offsets[band] = _finite(element.text or "")
            except (ValueError, KeyError) as error:
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
        for found in (
            text(self._tile, "SENSING_TIME"),
            text(self._about, "PRODUCT_START_TIME"),
            text(self._about, "DATATAKE_SENSING_START"),
        ):
            time_us = parse_time_us(found)
            if time_us is not None:
                return time_us
        return None

    def _mgrs_tile(self, product_name: str) -> str:
        for found in (
            text(self._tile, "TILE_ID"),
            text(self._tile, "TILE_ID_2A"),
            self._granule.folder,
            product_name,
        ):
            match = _TILE.search(found or "")
            if match:
                return match[1]
        raise UnreadableSourceError(
            f"{self._source.shown(self._product.xml)}: no tile id (as T32TQM) in the"
            f" metadata, in {self._granule.folder} or in the product's name"
        )

    def _properties(self, product_name: str, mgrs_tile: str) -> dict[str, Any]:
        about, tile = self._about, self._tile
        cloud = number(about, "Cloud_Coverage_Assessment")
        orbit = number(about, "SENSING_ORBIT_NUMBER")
        offsets = self._add_offsets()
        properties = {
            "product": product_name,
            "level": self._level,
            "processing_baseline": text(about, "PROCESSING_BASELINE"),
            "mgrs_tile": mgrs_tile,
            "granule": self._granule.folder.rpartition("/")[2],
            "relative_orbit": None if orbit is None else int(orbit),
            "orbit_direction": text(about, "SENSING_ORBIT_DIRECTION"),
            "datatake": attribute(about, "Datatake", "datatakeIdentifier"),
            "product_start_time": text(about, "PRODUCT_START_TIME"),
            "generation_time": text(about, "GENERATION_TIME"),
            "cloud_cover_product_percent": cloud,
            "nodata_product_percent": number(tile, "NODATA_PIXEL_PERCENTAGE"),
            "sun_zenith_deg": number(tile, "Mean_Sun_Angle", "ZENITH_ANGLE"),
            "sun_azimuth_deg": number(tile, "Mean_Sun_Angle", "AZIMUTH_ANGLE"),
            "quantification": self._quantification(),
            "add_offset": offsets or None,
            "earth_sun_distance_correction": number(about, "Reflectance_Conversion", "U"),
        }
        return {name: value for name, value in properties.items() if value is not None}


def cloud_layer(names: set[str]) -> CloudLayer | None:
    """What tells cloud among the bands of those names."""
    if "SCL" in names:
        return CLOUD_OF_CLASSES
    if "CLDPRB" in names:
        return CLOUD_OF_PROBABILITY
    return CLOUD_OF_CLASSI if "CLASSI" in names else None
