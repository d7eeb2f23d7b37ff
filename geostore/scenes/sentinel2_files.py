"""Sentinel-2 band files that were taken out of their SAFE: folders, archives, single files.

Their names say what they are (Sentinel-2 Products Specification Document, "Image data naming"):

- `T32TQM_20170710T101029_B04.jp2` is of Level-1C, `T32TQM_20170710T101029_B04_10m.jp2` of
  Level-2A, whose files alone carry a size (older ones also begin with `L2A_`);
- `S2A_MSIL2A_20170613T101031_87_48_B04.tif` states its level (BigEarthNet's patches);
- `S2A_OPER_MSI_L1C_TL_SGS__20160112T212322_A002913_T18SVG_B01.jp2`, of before December 2016,
  states its level, but no time of sensing.

The content must agree: images of one band, of the type that the band has. Where files of both
levels lie together, or rasters of other kinds among them, nothing here claims them: each is then
a raster of its own.

Without XML the radiometric offset comes from the baseline, if a name states it; else from the
time, since all that was sensed after 25 January 2022 was processed with the offset. Of what was
sensed earlier no name tells whether it was reprocessed since: no offset is assumed, and the
scene's properties say so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from geostore.errors import UnreadableSourceError
from geostore.grid import pixel_size_m
from geostore.scenes.scene import ReadOptions, Scene, SceneBand
from geostore.scenes.sentinel2_bands import PREVIEWS, QUANTIFICATION, Level, product_bands
from geostore.scenes.sentinel2_granule import Image, cloud_layer
from geostore.types import BandInfo, BandRole, TimeSpan
from geostore.types.geo import us_from_datetime

if TYPE_CHECKING:
    from geostore.scenes.source import Source

__all__ = ["BandFiles", "find_band_files", "open_band_files"]

_END = r"_(?P<band>B0[1-9]|B1[0-2]|B8A|AOT|WVP|SCL|TCI)(?:_(?P<size>[126]0)m)?\.(?:jp2|tiff?)$"
_COMPACT = re.compile(r"^(?P<stem>(?P<l2a>L2A_)?T\d{2}[A-Z]{3}_(?P<time>\d{8}T\d{6}))" + _END)
_NAMED = re.compile(
    r"^(?P<stem>S2[A-D]_MSI(?P<level>L1C|L2A)_(?P<time>\d{8}T\d{1,6})(?:_[A-Za-z0-9]+){0,8}?)"
    + _END
)
_OLD = re.compile(
    r"^(?P<stem>S2[A-D]_[A-Z]{4}_MSI_(?P<level>L1C|L2A)_TL_[A-Za-z0-9_]{10,80}?_T\d{2}[A-Z]{3})"
    + _END
)
_PRODUCT = re.compile(
    r"(?P<unit>S2[A-D])_MSI(?P<level>L1C|L2A)_(?P<time>\d{8}T\d{6})_N(?P<baseline>\d{4})_R\d{3}_T"
)
_TILE = re.compile(r"(?:^|_)T(\d{2}[A-Z]{3})(?:_|$)")
_UNIT = re.compile(r"^S2([A-D])_")
_SIZE_FOLDERS = ("R10m", "R20m", "R60m")
"""Where IMG_DATA of a Level-2A product was copied as it is."""
_BESIDE = (".json", ".xml", ".txt", ".md", ".csv", ".html", ".png", ".jpg", ".gml", ".geojson")
_MAGIC = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

OFFSET_BASELINE = "0400"
OFFSET_SURE_FROM = us_from_datetime(datetime(2022, 1, 26, tzinfo=UTC))
ADD_OFFSET = -1000.0
DAY_US = timedelta(days=1) // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class _Name:
    """What one file's name says."""

    stem: str
    level: Level
    band: str
    size_m: int
    time: str | None


@dataclass(slots=True)
class _Group:
    """The files of one scene."""

    stem: str
    time: str | None
    images: dict[str, list[Image]] = field(default_factory=dict)
    """By band name, finest first."""


@dataclass(frozen=True, slots=True)
class BandFiles:
    """Band files of one level."""

    level: Level
    groups: tuple[_Group, ...]


def _parse(name: str) -> _Name | None:
    """What a file's name says; None where it is no band's, or contradicts itself."""
    match = _COMPACT.match(name) or _NAMED.match(name) or _OLD.match(name)
    if match is None:
        return None
    parts = match.groupdict()
    sized = bool(parts["size"] or parts.get("l2a") or parts["band"] in {"AOT", "WVP", "SCL"})
    stated = parts.get("level")
    level: Level = "L2A" if stated == "L2A" or (stated is None and sized) else "L1C"
    known = {band.name for band in product_bands(level)} | set(PREVIEWS)
    if (sized and level == "L1C") or parts["band"] not in known:
        return None
    return _Name(
        parts["stem"], level, parts["band"], int(parts["size"] or 0), parts.get("time") or None
    )


def find_band_files(source: Source) -> BandFiles | None:
    """The band files in a source, if it holds nothing else that is a raster, and of one level.

    Raises:
        UnreadableSourceError: the first of them is damaged.
    """
    if not any(_parse(name.rpartition("/")[2]) for name in source.root_names()) and not (
        source.is_dir and any((source.local / folder).is_dir() for folder in _SIZE_FOLDERS)
    ):
        return None
    try:
        members = source.names()
    except UnreadableSourceError:  # a folder with more files than one product has
        return None
    groups: dict[str, _Group] = {}
    levels: set[Level] = set()
    for member in members:
        name = member.rpartition("/")[2]
        parsed = _parse(name)
        if parsed is None:
            if PurePosixPath(name).suffix.lower() not in _BESIDE:
                return None
            continue
        levels.add(parsed.level)
        group = groups.setdefault(parsed.stem, _Group(parsed.stem, parsed.time))
        group.images.setdefault(parsed.band, []).append(Image(member, parsed.size_m))
    for group in groups.values():
        for images in group.images.values():
            images.sort(key=lambda image: (image.size_m, image.member))
    found = [groups[stem] for stem in sorted(groups) if groups[stem].images.keys() - set(PREVIEWS)]
    if len(levels) != 1 or not found:
        return None
    (level,) = levels
    return BandFiles(level, tuple(found)) if _content_agrees(source, level, found[0]) else None


def _content_agrees(source: Source, level: Level, group: _Group) -> bool:
    info = next(band for band in product_bands(level) if band.name in group.images)
    member = group.images[info.name][0].member
    if not source.head(member, 16).startswith(_MAGIC):
        return False
    header = source.raster(member).header
    return len(header.bands) == 1 and header.bands[0].dtype == info.dtype


def open_band_files(
    reader: str, source: Source, files: BandFiles, options: ReadOptions
) -> list[Scene]:
    """One scene for each name that band files share.

    Raises:
        UnreadableSourceError: a file is damaged, or is not what its name says.
    """
    return [_open_group(reader, source, files.level, group, options) for group in files.groups]


def _open_group(
    reader: str, source: Source, level: Level, group: _Group, options: ReadOptions
) -> Scene:
    images = product_bands(level)
    present = [info for info in images if info.name in group.images]
    span = _span(group.time) or options.time
    product = _product_of(source, level, group)
    baseline = product["baseline"] if product else None
    add_offset, reason = _add_offset(baseline, span)
    members = [group.images[info.name][0].member for info in present]
    folders = {member.rpartition("/")[0] for member in members}
    source.rasters(members)
    bands = tuple(_band(source, group, info, add_offset) for info in present)
    names = {info.name for info in present}
    unit = product["unit"][2] if product else None
    if unit is None and (match := _UNIT.match(group.stem)):
        unit = match[1]
    tile = _TILE.search(group.stem)
    properties: dict[str, Any] = {
        "level": level,
        "processing_baseline": f"{baseline[:2]}.{baseline[2:]}" if baseline else None,
        "mgrs_tile": tile[1] if tile else None,
        "quantification": QUANTIFICATION,
        "add_offset_from": reason,
    }
    is_file = not source.is_dir and not source.is_archive
    return Scene(
        # Files named one by one are scenes of their own: what lies beside them is not looked at.
        id=PurePosixPath(source.local.name).stem if is_file else group.stem,
        reader=reader,
        path=source.path,
        time_us=span.start_us if span else None,
        time_end_us=span.end_us if span else None,
        platform=f"sentinel-2{unit.lower()}" if unit else None,
        bands=bands,
        missing=tuple(info.name for info in images if info.name not in names),
        previews=tuple(name for name in PREVIEWS if name in group.images),
        cloud=cloud_layer(names),
        properties={name: value for name, value in properties.items() if value is not None},
        fingerprint=source.fingerprint(members, folders.pop() if len(folders) == 1 else ""),
    )


def _product_of(source: Source, level: Level, group: _Group) -> re.Match[str] | None:
    """What a product's name says, where the files or a folder of theirs carry it."""
    member = min(images[0].member for images in group.images.values())
    for name in (*reversed(member.split("/")), source.local.name):
        match = _PRODUCT.search(name)
        if match and match["level"] == level and match["time"] == group.time:
            return match
    return None


def _add_offset(baseline: str | None, span: TimeSpan | None) -> tuple[float, str]:
    """What was added before storing, and where that is known from."""
    if baseline is not None:
        return (ADD_OFFSET if baseline >= OFFSET_BASELINE else 0.0), "baseline"
    if span is not None and span.start_us is not None and span.start_us >= OFFSET_SURE_FROM:
        return ADD_OFFSET, "time"
    return 0.0, "assumed: no metadata says whether an offset was added"


def _span(stamp: str | None) -> TimeSpan | None:
    """The instant of a name's time; the day where its clock is written with digits left out.

    BigEarthNet writes 09:30:20 as T93020, and one of its times as T94161.
    """
    if stamp is None:
        return None
    try:
        day = datetime.strptime(stamp[:8], "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return None
    try:
        if len(stamp) == len("20170613T101031"):
            moment = datetime.strptime(stamp, "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
            return TimeSpan(us_from_datetime(moment), us_from_datetime(moment))
    except ValueError:
        pass
    start_us = us_from_datetime(day)
    return TimeSpan(start_us, start_us + DAY_US - 1)


def _band(source: Source, group: _Group, info: BandInfo, add_offset: float) -> SceneBand:
    member = group.images[info.name][0].member
    header = source.raster(member).header
    if len(header.bands) != 1 or header.bands[0].dtype != info.dtype or not header.crs_wkt:
        raise UnreadableSourceError(
            f"{source.shown(member)}: {len(header.bands)} bands of {header.bands[0].dtype}"
            f" {'with' if header.crs_wkt else 'without'} a CRS: expected one of {info.dtype} with"
            f" a CRS, as Sentinel-2's {info.name} is"
        )
    pixels = source.band(member, nodata=info.nodata, ignore_mask=True)
    offset = add_offset / QUANTIFICATION if info.role is BandRole.DATA else 0.0
    size_m = pixel_size_m(pixels.grid.transform, is_geographic=False)
    return SceneBand(replace(info, offset=offset, native_resolution_m=size_m), pixels)
