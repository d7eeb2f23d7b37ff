"""Landsat 4 to 9 products of USGS: Collection 2 Level-2 and Level-1, Collection 1 and earlier.

A folder, tar or zip with one GeoTIFF a band, as shipped. Bands go by their files' names, never by
what the metadata lists, which only says what is missing. Grids are the files' own: cut and
decimated products keep the metadata of the whole scene.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from geostore.errors import UnreadableSourceError
from geostore.raster.positions import native_pixel_size_m
from geostore.raster.projection import parse_crs
from geostore.scenes.landsat_bands import LandsatBand, has_cirrus, product_bands
from geostore.scenes.landsat_mtl import Mtl
from geostore.scenes.landsat_products import (
    Identity,
    Product,
    band_of,
    find_products,
    foreign_rasters,
    identify,
    reader_name,
)
from geostore.scenes.landsat_quality import cloud_layer
from geostore.scenes.scene import ReaderDefaults, ReadOptions, Scene, SceneBand
from geostore.types import BandInfo, CloudLayer, TimeSpan
from geostore.types.geo import us_from_datetime

if TYPE_CHECKING:
    from geostore.raster import RasterBand
    from geostore.raster.source import PixelSource, SourceGrid
    from geostore.scenes.source import Source

__all__ = ["LANDSAT_READERS", "LandsatReader"]

EXTENT_TOLERANCE_PX = 3.0
"""How far two bands' edges may lie apart, in the coarser one's pixels: panchromatic and thermal
grids are shifted by a part of a pixel, and decimation by another."""

# Scale, offset and unit: the MTL's keys, in order of preference. Products from before 2013 state
# radiance only.
_RADIANCE = ("RADIANCE_MULT_BAND_", "RADIANCE_ADD_BAND_", "W m-2 sr-1 um-1")
_RESCALING: dict[str, tuple[tuple[str, str, str | None], ...]] = {
    "reflectance": (("REFLECTANCE_MULT_BAND_", "REFLECTANCE_ADD_BAND_", None), _RADIANCE),
    "radiance": (_RADIANCE,),
    "temperature": (("TEMPERATURE_MULT_BAND_", "TEMPERATURE_ADD_BAND_", "K"),),
}


class LandsatReader:
    """Reader of one kind of product: `landsat-c2-l2`, `landsat-c2-l1`, `landsat-c1-l1`.

    Each opens every Landsat product of a source, whose scenes name their own readers.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.defaults = ReaderDefaults((15.0, 30.0), {"geohash": 5, "quadtile": 12})
        self.bands: tuple[BandInfo, ...] = ()  # they go by sensor

    def claims(self, source: Source) -> bool:
        """By band files named as the provider's, or a metadata file and its first bytes."""
        if not source.is_dir and not source.is_archive:
            return False
        products = find_products(source, source.root_names())
        return bool(products) and _first_reader(source, products) == self.name

    def open(self, source: Source, options: ReadOptions) -> list[Scene]:
        """One scene a product; `options.time` is not used, since products state theirs."""
        del options
        names = source.names()
        products = find_products(source, names)
        identified = [(product, *identify(source, product)) for product in products]
        if self.name not in {reader_name(identity) for _, identity, _ in identified}:
            found = ", ".join(
                f"{identity.id} ({reader_name(identity)})" for _, identity, _ in identified[:5]
            )
            raise UnreadableSourceError(
                f"{source.path}: no {self.name} product: expected band files named as"
                f" LC08_.._B4.TIF and their MTL; found {found or 'none'}"
            )
        openers = [
            _ProductOpener(source, product, identity, mtl, names)
            for product, identity, mtl in identified
        ]
        foreign = foreign_rasters(names, products)
        if foreign:
            raise UnreadableSourceError(
                f"{source.path}: {', '.join(foreign[:5])}{', ...' if foreign[5:] else ''}:"
                f" no file of the product {identified[0][1].id} beside it; put each into a"
                " folder of its own"
            )
        return [opener.scene() for opener in openers]


LANDSAT_READERS = tuple(
    LandsatReader(name) for name in ("landsat-c2-l2", "landsat-c2-l1", "landsat-c1-l1")
)


def _first_reader(source: Source, products: list[Product]) -> str:
    """The reader of the first product that says what it is; damaged ones are claimed too."""
    for product in products:
        try:
            return reader_name(identify(source, product)[0])
        except UnreadableSourceError:
            continue
    return "landsat-c2-l2" if any("SR_B" in "".join(p.files) for p in products) else "landsat-c1-l1"


class _ProductOpener:
    """Makes the scene of one product.

    Raises:
        UnreadableSourceError: no band of it is there, or two files are one band.
    """

    def __init__(
        self,
        source: Source,
        product: Product,
        identity: Identity,
        mtl: Mtl | None,
        names: Iterable[str],
    ) -> None:
        self._source = source
        self._product = product
        self._identity = identity
        self._mtl = mtl
        self._names = names
        self._bands = product_bands(identity.generation, identity.level, identity.sensor)
        self._members = self._files()

    def scene(self) -> Scene:
        identity, source, members = self._identity, self._source, self._members
        present = [band for band in self._bands if band.info.name in members]
        opened = source.rasters(members[band.info.name] for band in present)
        for member, file in opened.items():
            if sum(band.color != "alpha" for band in file.header.bands) > 1:
                raise UnreadableSourceError(
                    f"{source.shown(member)}: {len(file.header.bands)} bands in one file,"
                    " expected one"
                )
        bands = tuple(self._band(band, members[band.info.name]) for band in present)
        self._check_grids(bands)
        time = self._time()
        used = [members[band.info.name] for band in present]
        return Scene(
            id=identity.id,
            reader=reader_name(identity),
            path=source.path,
            time_us=time.start_us if time else None,
            time_end_us=time.end_us if time else None,
            platform=f"landsat-{identity.satellite}",
            bands=bands,
            missing=self._missing(),
            previews=self._previews(),
            cloud=self._cloud(bands),
            properties=self._properties(),
            fingerprint=source.fingerprint(
                [*used, *([self._product.mtl] if self._product.mtl else [])], self._product.folder
            ),
        )

    def _files(self) -> dict[str, str]:
        """The file of each band that the product may have."""
        known = {band.info.name for band in self._bands}
        found: dict[str, str] = {}
        for name, members in self._product.files.items():
            if name in known and len(members) > 1:
                raise UnreadableSourceError(
                    f"{self._source.path}: {' and '.join(members)} are both {name}"
                )
            if name in known:
                found[name] = members[0]
        if not found:
            expected = ", ".join(self._listed() or sorted(known))
            raise UnreadableSourceError(
                f"{self._source.shown(self._product.mtl or self._product.stem)}: no band of"
                f" {self._identity.id} is there; expected {expected[:600]}"
            )
        return found

    def _listed(self) -> tuple[str, ...]:
        return self._mtl.file_names() if self._mtl else ()

    def _missing(self) -> tuple[str, ...]:
        """By the kind of product and by its metadata's list."""
        listed = {band_of(name) for name in self._listed()}
        return tuple(
            band.info.name
            for band in self._bands
            if band.info.name not in self._members
            and (not band.optional or band.info.name in listed)
        )

    def _band(self, band: LandsatBand, member: str) -> SceneBand:
        shown = self._source.shown(member)
        header = self._source.raster(member).header
        own = header.bands[0].nodata
        source = self._source.band(member, nodata=band.info.nodata if own is None else None)
        if band.info.bitfields and np.dtype(source.dtype).kind not in "iu":
            raise UnreadableSourceError(
                f"{shown}: dtype {source.dtype} in a band of bits, expected whole numbers"
            )
        _check_placed(source, shown, has_transform=header.has_transform)
        scale, offset, unit = self._radiometry(band)
        info = replace(
            band.info,
            dtype=source.dtype,
            nodata=source.nodata,
            scale=scale,
            offset=offset,
            unit=unit,
            native_resolution_m=native_pixel_size_m(source.grid),
        )
        return SceneBand(info, source)

    def _radiometry(self, band: LandsatBand) -> tuple[float, float, str | None]:
        """(scale, offset, unit) as the metadata states them, else as the product defines them."""
        info, mtl = band.info, self._mtl
        if mtl is not None and band.measure is not None:
            for scale_key, offset_key, unit in _RESCALING[band.measure]:
                scale = mtl.number(f"{scale_key}{band.number}")
                offset = mtl.number(f"{offset_key}{band.number}")
                if scale == 0:
                    raise UnreadableSourceError(
                        f"{mtl.shown}: {scale_key}{band.number} is 0, expected a scale"
                    )
                if scale is not None and offset is not None:
                    return scale, offset, unit
        return info.scale, info.offset, info.unit

    def _check_grids(self, bands: tuple[SceneBand, ...]) -> None:
        """The bands of a product lie over each other, where its metadata says."""
        first = bands[0]
        for band in bands[1:]:
            _check_same_place(first.source, band.source)
        if self._mtl is not None:
            _check_inside(first.source, self._mtl)

    def _time(self) -> TimeSpan | None:
        """The centre of the scene; where only a date is known, its whole day."""
        day, mtl = self._identity.day, self._mtl
        if day is None:
            return None
        text = mtl.text("SCENE_CENTER_TIME") if mtl is not None else None
        if mtl is None or text is None:
            return TimeSpan.parse(day.isoformat())
        clock = text.removesuffix("Z")
        whole, _, fraction = clock.partition(".")
        try:
            # Seven digits are more than a datetime holds: cut, not rounded into the next second.
            moment = datetime.fromisoformat(f"{day.isoformat()}T{whole}.{fraction[:6] or '0'}")
        except ValueError:
            raise UnreadableSourceError(
                f"{mtl.shown}: SCENE_CENTER_TIME is {text!r}, expected as 16:19:21.7917421Z"
            ) from None
        us = us_from_datetime(moment.replace(tzinfo=UTC))
        return TimeSpan(us, us)

    def _cloud(self, bands: tuple[SceneBand, ...]) -> CloudLayer | None:
        """What tells cloud; None where the provider did not look for it, and set no bit.

        Its algorithm needs reflected light: a CLOUD_COVER of -1 says that it was not run (at
        night), and the thermal sensor alone gives it nothing to run on.
        """
        identity = self._identity
        if identity.sensor == "TIRS" or (self._told_cloud_cover() or 0.0) < 0:
            return None
        layer = cloud_layer(identity.generation, has_cirrus=has_cirrus(identity.sensor))
        return layer if any(band.info.name == layer.band for band in bands) else None

    def _told_cloud_cover(self) -> float | None:
        return self._mtl.number("CLOUD_COVER") if self._mtl else None

    def _previews(self) -> tuple[str, ...]:
        """The pictures that come with the product: `thumb_large`."""
        start = f"{self._product.folder}/" if self._product.folder else ""
        start += f"{self._product.stem}_"
        return tuple(
            name[len(start) :].rpartition(".")[0]
            for name in self._names
            if name.startswith(start) and name.lower().endswith((".jpg", ".jpeg", ".png"))
        )

    def _properties(self) -> dict[str, Any]:
        identity, mtl = self._identity, self._mtl
        collections = {"c1": "01", "c2": "02"}
        properties: dict[str, Any] = {
            "product": identity.id,
            "scene_id": identity.scene_id,
            "collection": collections.get(identity.generation, identity.generation),
            "tier": identity.tier,
            "level": identity.level,
            "sensor": identity.sensor,
            "wrs_path": identity.wrs_path,
            "wrs_row": identity.wrs_row,
            "radiometry": "metadata" if mtl else "product definition",
        }
        if mtl is not None:
            properties |= {
                "cloud_cover_product_percent": _percent(mtl, "CLOUD_COVER"),
                "cloud_cover_land_product_percent": _percent(mtl, "CLOUD_COVER_LAND"),
                "sun_azimuth_deg": mtl.number("SUN_AZIMUTH"),
                "sun_elevation_deg": mtl.number("SUN_ELEVATION"),
                "earth_sun_distance_au": mtl.number("EARTH_SUN_DISTANCE"),
                "station": mtl.text("STATION_ID"),
                "software": mtl.level_1_text("PROCESSING_SOFTWARE_VERSION"),
                "generated": mtl.text("DATE_PRODUCT_GENERATED") or mtl.text("FILE_DATE"),
                "thermal_constants": _thermal_constants(mtl, self._bands) or None,
            }
        return {name: value for name, value in properties.items() if value is not None}


def _percent(mtl: Mtl, key: str) -> float | None:
    """A share that the metadata states; -1 says that it is not known."""
    value = mtl.number(key)
    return None if value is None or value < 0 else value


def _thermal_constants(mtl: Mtl, bands: tuple[LandsatBand, ...]) -> dict[str, dict[str, float]]:
    """What turns radiance into brightness temperature: T = k2 / ln(k1 / radiance + 1), kelvin."""
    found: dict[str, dict[str, float]] = {}
    for band in bands:
        if band.measure == "radiance":
            k1 = mtl.number(f"K1_CONSTANT_BAND_{band.number}")
            k2 = mtl.number(f"K2_CONSTANT_BAND_{band.number}")
            if k1 is not None and k2 is not None:
                found[band.info.name] = {"k1": k1, "k2": k2}
    return found


def _check_placed(source: RasterBand, shown: str, *, has_transform: bool) -> None:
    a, b, _, d, e, _ = source.grid.transform
    if not source.grid.crs_wkt or not has_transform:
        raise UnreadableSourceError(f"{shown}: the image states no CRS or position")
    if not all(math.isfinite(value) for value in source.grid.transform) or a * e == b * d:
        raise UnreadableSourceError(f"{shown}: geotransform {source.grid.transform} maps no area")
    try:
        parse_crs(source.grid.crs_wkt)
    except UnreadableSourceError as error:
        raise UnreadableSourceError(f"{shown}: {error}") from error


def _extent(grid: SourceGrid) -> tuple[float, float, float, float]:
    """Left, bottom, right, top in the grid's CRS."""
    a, b, c, d, e, f = grid.transform
    xs = [c, c + a * grid.width, c + b * grid.height, c + a * grid.width + b * grid.height]
    ys = [f, f + d * grid.width, f + e * grid.height, f + d * grid.width + e * grid.height]
    return min(xs), min(ys), max(xs), max(ys)


def _pixel(grid: SourceGrid) -> float:
    a, b, _, d, e, _ = grid.transform
    return max(math.hypot(a, d), math.hypot(b, e))


def _check_same_place(first: PixelSource, other: PixelSource) -> None:
    """Whether two bands cover the same ground.

    Raises:
        UnreadableSourceError: another CRS or extent: files of two products, or a damaged one.
    """
    if first.grid.crs_wkt != other.grid.crs_wkt and not parse_crs(first.grid.crs_wkt).equals(
        parse_crs(other.grid.crs_wkt), ignore_axis_order=True
    ):
        raise UnreadableSourceError(
            f"{other.name}: its CRS is {parse_crs(other.grid.crs_wkt).name}, that of"
            f" {first.name} {parse_crs(first.grid.crs_wkt).name}: expected one product's bands"
        )
    tolerance = EXTENT_TOLERANCE_PX * max(_pixel(first.grid), _pixel(other.grid))
    ours, theirs = _extent(first.grid), _extent(other.grid)
    if any(abs(one - two) > tolerance for one, two in zip(ours, theirs, strict=True)):
        raise UnreadableSourceError(
            f"{other.name}: its {other.grid.width} x {other.grid.height} pixels cover"
            f" {_shown(theirs)}, {first.name} covers {_shown(ours)}: expected one extent"
        )


def _check_inside(source: PixelSource, mtl: Mtl) -> None:
    """Whether a band lies where the metadata says that the scene does; cut ones lie inside.

    Raises:
        UnreadableSourceError: elsewhere: the metadata is another scene's.
    """
    zone = mtl.whole_number("UTM_ZONE")
    own_zone = parse_crs(source.grid.crs_wkt).utm_zone
    if zone is None or own_zone is None:
        return  # polar scenes, and what was projected anew
    keys = [f"CORNER_{corner}_PROJECTION_" for corner in ("UL", "UR", "LL", "LR")]
    xs = [x for key in keys if (x := mtl.number(f"{key}X_PRODUCT")) is not None]
    ys = [y for key in keys if (y := mtl.number(f"{key}Y_PRODUCT")) is not None]
    if len(xs) < 4 or len(ys) < 4:
        return
    told = (min(xs), min(ys), max(xs), max(ys))
    left, bottom, right, top = _extent(source.grid)
    margin = EXTENT_TOLERANCE_PX * max(_pixel(source.grid), 30.0)
    inside = (
        left >= told[0] - margin
        and bottom >= told[1] - margin
        and right <= told[2] + margin
        and top <= told[3] + margin
    )
    if int(own_zone[:-1]) != zone or not inside:
        raise UnreadableSourceError(
            f"{source.name}: covers {_shown((left, bottom, right, top))} of UTM zone"
            f" {own_zone[:-1]}; its metadata {mtl.shown} says {_shown(told)} of zone {zone}"
        )


def _shown(extent: tuple[float, float, float, float]) -> str:
    return ", ".join(f"{value:.6g}" for value in extent)
