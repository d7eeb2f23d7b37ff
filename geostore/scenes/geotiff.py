"""Any raster with a CRS and a transform: GeoTIFF, COG, JPEG 2000, Erdas Imagine.

Claims what no other reader does. In an archive every raster file is a scene of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError

from geostore.errors import UnreadableSourceError
from geostore.grid import pixel_size_m
from geostore.scenes.scene import ReaderDefaults, ReadOptions, Scene, SceneBand
from geostore.types import BandInfo, BandRole, TimeSpan
from geostore.types.geo import us_from_datetime

if TYPE_CHECKING:
    from geostore.raster import BandHeader, RasterFile, RasterHeader
    from geostore.scenes.source import Source

__all__ = ["GeotiffReader", "time_from_name", "time_from_tags"]

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

TAGS_MAX = 64
TAG_CHARACTERS_MAX = 512
STEM_CHARACTERS_MAX = 200

_YEARS = range(1930, 2100)
_SEPARATED = re.compile(r"(?<!\d)(\d{4})([-_])(\d{2})\2(\d{2})(?!\d)")
_COMPACT = re.compile(r"(?<!\d)(\d{4})(\d{2})(\d{2})(?:T(\d{2})(\d{2})(\d{2})(?!\d)|(?!\d))")
_TAG_TIME = re.compile(
    r"^\s*(\d{4})[:-](\d{2})[:-](\d{2})(?:[ T](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?"
    r"\s*(Z|[+-]\d{2}:?\d{2})?)?\s*$"
)
# Whole times first; TIFFTAG_DATETIME last, which many programs set to when they ran.
_TIME_TAGS = (
    "ACQUISITIONDATETIME",
    "ACQUISITION_DATETIME",
    "SENSING_TIME",
    "DATETIME",
    "TIME_COVERAGE_START",
    "ACQUISITIONDATE",
    "ACQUISITION_DATE",
    "DATE_ACQUIRED",
    "TIFFTAG_DATETIME",
)


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
    crs = _checked_crs(file)
    header = file.header
    resolution_m = pixel_size_m(
        header.transform,
        is_geographic=crs.is_geographic,
        metres_per_unit=1.0 if crs.is_geographic else crs.axis_info[0].unit_conversion_factor,
    )
    # First, since opening a band says which file has a dtype that cannot be stored.
    opened = {number: source.band(member, number) for number in _pixel_bands(header)}
    bands = [SceneBand(info, opened[number]) for number, info in _band_infos(header, resolution_m)]
    if not bands:
        raise UnreadableSourceError(f"{file.name}: no band besides a mask")
    span = options.time or time_from_tags(header.tags) or time_from_name(member)
    stem = _SCENE_CHARACTERS.sub("_", PurePosixPath(member).stem)[:STEM_CHARACTERS_MAX]
    properties: dict[str, Any] = {
        "driver": header.driver,
        "height": header.height,
        "width": header.width,
        "crs": _short_crs(crs),
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
    if header.has_gcps and not header.has_transform:
        raise UnreadableSourceError(
            f"{file.name}: placed by ground control points only; expected a CRS and a"
            " transform (gdalwarp makes such a file)"
        )
    if not header.crs_wkt:
        raise UnreadableSourceError(
            f"{file.name}: no CRS; expected a raster that says where it lies"
            " (gdal_edit.py -a_srs sets one)"
        )
    if not header.has_transform:
        raise UnreadableSourceError(f"{file.name}: no geotransform; expected one")
    a, b, _, d, e, _ = header.transform
    if not all(math.isfinite(value) for value in header.transform) or a * e == b * d:
        raise UnreadableSourceError(
            f"{file.name}: geotransform {header.transform} maps no area; expected one that does"
        )
    try:
        crs = CRS.from_wkt(header.crs_wkt)
        transformer = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    except (CRSError, ProjError) as error:
        raise UnreadableSourceError(
            f"{file.name}: PROJ cannot use its CRS {header.crs_wkt[:80]!r}; expected one that"
            f" leads to longitude and latitude ({str(error)[:300]})"
        ) from error
    if not _any_finite(transformer, header):
        raise UnreadableSourceError(
            f"{file.name}: PROJ places none of its pixels on the globe; CRS"
            f" {_short_crs(crs)}, geotransform {header.transform}"
        )
    return crs


def _any_finite(transformer: Transformer, header: RasterHeader) -> bool:
    """Whether PROJ places any of 33 x 33 points spread over the raster."""
    a, b, c, d, e, f = header.transform
    columns = [header.width * step / 32 for step in range(33)]
    rows = [header.height * step / 32 for step in range(33)]
    xs = [a * column + b * row + c for row in rows for column in columns]
    ys = [d * column + e * row + f for row in rows for column in columns]
    lons, lats = transformer.transform(xs, ys)
    return any(math.isfinite(lon) and abs(lat) <= 90.0 for lon, lat in zip(lons, lats, strict=True))


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
            ),
        )


def _common_name(band: BandHeader) -> str | None:
    for text in (band.tags.get("common_name"), band.description, band.color):
        if text and text.strip().lower() in _COMMON_NAMES:
            return text.strip().lower()
    return None


def _day(year: int, month: int, day: int) -> TimeSpan | None:
    """The whole day; None where there is no such day or no satellite could have seen it."""
    if year not in _YEARS:
        return None
    try:
        start = datetime(year, month, day, tzinfo=UTC)
    except ValueError:
        return None
    start_us = us_from_datetime(start)
    return TimeSpan(start_us, start_us + 86_400_000_000 - 1)


def _instant(day: TimeSpan | None, hour: int, minute: int, second: int) -> TimeSpan | None:
    if day is None or day.start_us is None or hour > 23 or minute > 59 or second > 60:
        return None
    start_us = day.start_us + (hour * 3600 + minute * 60 + second) * 1_000_000
    return TimeSpan(start_us, start_us)


def time_from_name(name: str) -> TimeSpan | None:
    """The first date or time in a file's name: a day is its whole span.

    Understands 20150926, 2015-09-26, 2015_09_26 and 20150926T101112, each not part of a
    longer number, in the years 1930 to 2099.

    >>> time_from_name("m_4709963_se_14_1_20150926.tif") == TimeSpan.parse("2015-09-26")
    True
    """
    stem = PurePosixPath(name).stem
    found = [
        *((match.start(), match, (1, 3, 4)) for match in _SEPARATED.finditer(stem)),
        *((match.start(), match, (1, 2, 3)) for match in _COMPACT.finditer(stem)),
    ]
    for _, match, (year, month, day) in sorted(found, key=lambda one: one[0]):
        span = _day(int(match[year]), int(match[month]), int(match[day]))
        if match.re is _COMPACT and match[4] is not None:
            span = _instant(span, int(match[4]), int(match[5]), int(match[6]))
        if span is not None:
            return span
    return None


def time_from_tags(tags: dict[str, str]) -> TimeSpan | None:
    """When a raster was taken by its tags: an instant, or a day where only a date is given.

    Times without a zone are UTC. Values that are no time, or outside 1930 to 2099, are
    passed over.
    """
    upper = {name.upper(): value for name, value in tags.items()}
    for tag in _TIME_TAGS:
        match = _TAG_TIME.match(upper.get(tag, ""))
        if match is None:
            continue
        day = _day(int(match[1]), int(match[2]), int(match[3]))
        if match[4] is None:
            span = day
        else:
            span = _instant(day, int(match[4]), int(match[5]), int(match[6]))
            span = _shifted(span, match[7], match[8])
        if span is not None:
            return span
    return None


def _shifted(span: TimeSpan | None, fraction: str | None, zone: str | None) -> TimeSpan | None:
    """An instant with its fraction of a second and its zone's offset applied."""
    if span is None or span.start_us is None:
        return None
    us = span.start_us + int(((fraction or "") + "000000")[:6])
    if zone and zone != "Z":
        digits = zone.replace(":", "")
        offset = timedelta(hours=int(digits[1:3]), minutes=int(digits[3:5]))
        shift_us = offset // timedelta(microseconds=1)
        us += -shift_us if zone[0] == "+" else shift_us
    return TimeSpan(us, us)
