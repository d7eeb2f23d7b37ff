"""Any raster with a CRS and a transform or control points: GeoTIFF, COG, JPEG 2000, Erdas Imagine.

Claims what no other reader does. In an archive every raster file is a scene of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from pyproj import CRS

from geostore.errors import UnreadableSourceError
from geostore.raster.control_points import fit_control_points
from geostore.raster.positions import native_pixel_size_m
from geostore.raster.projection import parse_crs, project, transformer
from geostore.scenes.scene import ReaderDefaults, ReadOptions, Scene, SceneBand
from geostore.scenes.times import time_from_name, time_from_tags
from geostore.types import BandInfo, BandRole

if TYPE_CHECKING:
    from geostore.raster import BandHeader, RasterFile, RasterHeader, SourceGrid
    from geostore.scenes.source import Source

__all__ = ["GeotiffReader"]

_MAGIC = (
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"\0\0\0\x0cjP  ",
    b"\xff\x4f\xff\x51",
    b"EHFA_HEADER_TAG",
    b"NITF0",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
)
_TEXT_SUFFIXES = (".asc", ".dem", ".hgt")
# In archives only these count: pictures beside them (quick-looks) have no CRS.
_SUFFIXES_IN_ARCHIVE = (".tif", ".tiff", ".jp2", ".img", ".ntf")

# STAC's electro-optical extension, version 1.1 and 2.0.
_COMMON_NAMES = frozenset(
    {
        "coastal",
        "blue",
        "green",
        "yellow",
        "red",
        "rededge",
        "rededge071",
        "rededge075",
        "rededge078",
        "nir",
        "nir08",
        "nir09",
        "cirrus",
        "swir16",
        "swir22",
        "lwir",
        "lwir11",
        "lwir12",
        "pan",
    }
)
_BAND_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9._-]{0,63}$")
_SCENE_CHARACTERS = re.compile(r"[^A-Za-z0-9._-]+")

_CURE_OF_NO_CRS = "gdal_edit.py -a_srs sets one"
_CURE_OF_RPCS = "gdalwarp -rpc places it"

TAGS_MAX = 64
TAG_CHARACTERS_MAX = 512
STEM_CHARACTERS_MAX = 200
CLASSES_MAX = 256
"""Names and colours of more classes are left out: they are kept with every tile."""


class GeotiffReader:
    """Reader `geotiff`: any raster that GDAL opens from one local file."""

    name = "geotiff"
    defaults = ReaderDefaults()
    bands: tuple[BandInfo, ...] = ()

    def claims(self, source: Source) -> bool:
        """By a raster format's first bytes; in an archive by any member's name and bytes."""
        return next(self._rasters(source), None) is not None

    def _rasters(self, source: Source) -> Iterator[str]:
        if source.is_dir:
            return
        for member in source.names():
            suffix = PurePosixPath(member).suffix.lower()
            if source.is_archive and suffix not in _SUFFIXES_IN_ARCHIVE:
                continue
            head = source.head(member, 16)
            if head.startswith(_MAGIC) or (not source.is_archive and suffix in _TEXT_SUFFIXES):
                yield member

    def open(self, source: Source, options: ReadOptions) -> list[Scene]:
        members = list(self._rasters(source))
        if not members:
            raise UnreadableSourceError(
                f"{source.path}: no raster file: expected GeoTIFF, JPEG 2000 or another"
                " format that holds one raster in one file"
            )
        return [_open_raster(self.name, source, member, options) for member in members]


def _open_raster(reader: str, source: Source, member: str, options: ReadOptions) -> Scene:
    file = source.raster(member)
    header = file.header
    crs = _checked_crs(file)
    # First, since opening a band says which file has a dtype that cannot be stored.
    opened = {number: source.band(member, number) for number in _pixel_bands(header)}
    if not opened:
        raise UnreadableSourceError(f"{file.name}: no band besides a mask")
    grid = next(iter(opened.values())).grid
    _check_place(file.name, crs, grid)
    resolution_m = native_pixel_size_m(grid)
    bands = [SceneBand(info, opened[number]) for number, info in _band_infos(header, resolution_m)]
    span = options.time or time_from_tags(header.tags) or time_from_name(member)
    stem = _SCENE_CHARACTERS.sub("_", PurePosixPath(member).stem)[:STEM_CHARACTERS_MAX]
    properties: dict[str, Any] = {
        "driver": header.driver,
        "height": header.height,
        "width": header.width,
        "crs": _short_crs(crs),
        "control_points": _control_points(grid),
        "tags": _short_tags(header.tags),
    }
    folder = member.rpartition("/")[0]
    return Scene(
        id=f"{stem.strip('._-') or 'raster'}-{source.sha256(member)[:8]}",
        reader=reader,
        path=source.path,
        time_us=span.start_us if span else None,
        time_end_us=span.end_us if span else None,
        platform=None,
        bands=tuple(bands),
        properties={name: value for name, value in properties.items() if value},
        fingerprint=source.fingerprint([member], folder),
    )


def _checked_crs(file: RasterFile) -> CRS:
    """The file's CRS, if its pixels can be placed on the globe by it.

    Raises:
        UnreadableSourceError: no CRS or transform, or none that PROJ can use.
    """
    header = file.header
    if not header.crs_wkt:
        raise UnreadableSourceError(
            f"{file.name}: {'RPCs but ' if header.has_rpcs else ''}no CRS; expected a raster that"
            f" says where it lies ({_CURE_OF_RPCS if header.has_rpcs else _CURE_OF_NO_CRS})"
        )
    if not (header.has_transform or header.control):
        raise UnreadableSourceError(f"{file.name}: no geotransform; expected one")
    a, b, _, d, e, _ = header.transform
    if not all(math.isfinite(value) for value in header.transform) or a * e == b * d:
        raise UnreadableSourceError(
            f"{file.name}: geotransform {header.transform} maps no area; expected one that does"
        )
    try:
        transformer(header.crs_wkt, "EPSG:4326")
        return parse_crs(header.crs_wkt)
    except UnreadableSourceError as error:
        raise UnreadableSourceError(
            f"{file.name}: {str(error)[:400]}; expected a CRS that leads to longitude and latitude"
        ) from error


def _check_place(name: str, crs: CRS, grid: SourceGrid) -> None:
    """That PROJ places any of 33 x 33 points spread over the raster.

    Raises:
        UnreadableSourceError: it places none.
    """
    columns, rows = np.meshgrid(np.linspace(0, grid.width, 33), np.linspace(0, grid.height, 33))
    if grid.control:
        fit = fit_control_points(grid.control, grid.crs_wkt, grid.height, grid.width)
        x, y = fit.to_ground(columns, rows)
    else:
        a, b, c, d, e, f = grid.transform
        x, y = a * columns + b * rows + c, d * columns + e * rows + f
    lon, lat = project(transformer(grid.crs_wkt, "EPSG:4326"), x, y)
    if not (np.isfinite(lon) & (np.abs(lat) <= 90.0)).any():
        raise UnreadableSourceError(
            f"{name}: PROJ places none of its pixels on the globe; CRS {_short_crs(crs)},"
            f" geotransform {grid.transform}"
        )


def _control_points(grid: SourceGrid) -> dict[str, Any]:
    """How control points place a raster, and how well: what a user needs to judge it by."""
    if not grid.control:
        return {}
    fit = fit_control_points(grid.control, grid.crs_wkt, grid.height, grid.width)
    return {
        "points": fit.points,
        "method": fit.method,
        "polynomial_error_rms_px": round(fit.error_rms_px, 3),
        "polynomial_error_max_px": round(fit.error_max_px, 3),
    }


def _short_crs(crs: CRS) -> str:
    # The CRS's own id: looking for a like one in PROJ's database can take a second.
    identity = crs.to_json_dict().get("id")
    if isinstance(identity, dict) and "authority" in identity:
        return f"{identity['authority']}:{identity['code']}"
    return crs.name[:200]


def _short_tags(tags: dict[str, str]) -> dict[str, str]:
    """The file's tags, bounded: they are kept with every tile."""
    kept = sorted(tags.items())[:TAGS_MAX]
    return {name[:128]: value[:TAG_CHARACTERS_MAX] for name, value in kept}


def _pixel_bands(header: RasterHeader) -> Iterator[int]:
    """Numbers of the bands that are not masks."""
    return (number for number, band in enumerate(header.bands, start=1) if band.color != "alpha")


def _band_infos(header: RasterHeader, resolution_m: float) -> Iterator[tuple[int, BandInfo]]:
    """(number in the file, description) of each band that is not a mask."""
    taken: set[str] = set()
    generic = {f"B{number}" for number in range(1, len(header.bands) + 1)}
    for number in _pixel_bands(header):
        band = header.bands[number - 1]
        name = band.description or ""
        # A description serves as name where it can be one and says which band it is.
        if not _BAND_NAME.match(name) or name in taken or name in generic - {f"B{number}"}:
            name = f"B{number}"
        taken.add(name)
        yield (
            number,
            BandInfo(
                name=name,
                common_name=_common_name(band),
                dtype=band.dtype,
                nodata=band.nodata,
                role=BandRole.CLASS if band.color == "palette" else BandRole.DATA,
                scale=band.scale,
                offset=band.offset,
                unit=band.unit,
                description=None if band.description is None else band.description[:500],
                native_resolution_m=resolution_m,
                class_names=_class_names(band),
                class_colors=_class_colors(band),
            ),
        )


def _class_names(band: BandHeader) -> dict[str, str]:
    names = sorted(band.class_names.items())[:CLASSES_MAX]
    return {str(code): name[:TAG_CHARACTERS_MAX] for code, name in names}


def _class_colors(band: BandHeader) -> dict[str, str]:
    """The colour table's entries that were set: a file has all 256, most of them black."""
    colors = {
        code: f"#{red:02x}{green:02x}{blue:02x}"
        for code, (red, green, blue, _) in sorted(band.palette.items())
        if code in band.class_names or (red, green, blue) != (0, 0, 0)
    }
    return {str(code): color for code, color in list(colors.items())[:CLASSES_MAX]}


def _common_name(band: BandHeader) -> str | None:
    for text in (band.tags.get("common_name"), band.description, band.color):
        if text and text.strip().lower() in _COMMON_NAMES:
            return text.strip().lower()
    return None
