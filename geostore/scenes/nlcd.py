"""NLCD: land cover of the United States at 30 m, a layer a file, as Erdas Imagine or GeoTIFF.

After the product guides and data dictionaries of the Multi-Resolution Land Characteristics
Consortium (USGS and others) for the releases from 1992 on, and those of Annual NLCD
(Collection 1). A file is NLCD where its name, or what it says of itself, tells so and its
numbers are what that layer may hold, in a bounded sample: C-CAP and other maps use other codes.
What it shows is a year: a span of time, not an instant.

Read are land cover, impervious surface and its descriptor, tree canopy, and the confidence of
land cover. Layers of change hold pairs of classes or days, not classes: they are plain rasters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from geostore.errors import UnreadableSourceError
from geostore.raster.positions import native_pixel_size_m
from geostore.raster.projection import parse_crs
from geostore.scenes.nlcd_legend import BACKGROUND, LEGEND, LEGEND_1992, colors_of, names_of
from geostore.scenes.scene import ReaderDefaults, ReadOptions, Scene, SceneBand
from geostore.types import BandInfo, BandRole, TimeSpan

if TYPE_CHECKING:
    from geostore.raster import BandHeader, RasterBand, RasterFile, SourceGrid
    from geostore.scenes.source import Source

__all__ = ["NlcdReader"]

_SUFFIXES = (".img", ".tif", ".tiff")
_MAGIC = (b"EHFA_HEADER_TAG", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NAME = re.compile(r"(?<![a-z])nlcd(?![a-z])", re.IGNORECASE)
_METADATA = re.compile(r"\bNLCD|National Land Cover Data", re.IGNORECASE)
_YEAR_AFTER = re.compile(
    r"(?:nlcd|National Land Cover Data)\D{0,40}?(?<!\d)(\d{4})(?!\d)", re.IGNORECASE
)
_YEAR = re.compile(r"(?<!\d)(\d{4})(?!\d)")
_YEARS = range(1984, 2100)
_ANNUAL = re.compile(r"annual[_ -]?nlcd", re.IGNORECASE)
_OTHER_CHARACTERS = re.compile(r"[^A-Za-z0-9._-]+")
_ID_CHARACTERS_MAX = 200

SAMPLE_WINDOWS = 5
"""A side: so many squares evenly over the raster tell which codes it has."""
SAMPLE_PX = 64

_PERCENT = frozenset(range(101))
_NO_PERCENT = frozenset({127, 250, 254, 255})


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer of the database: how it is called and what its numbers are."""

    name: str
    """The band's."""
    words: re.Pattern[str]
    """What stands for it in names of files."""
    description: str
    codes: frozenset[int]
    background: frozenset[int]
    role: BandRole
    nodata: int
    """Where the file declares none."""


def _words(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE)


_LAYERS: tuple[_Layer, ...] = (
    _Layer(
        "impervious_descriptor",
        _words(r"descriptor|impdsc"),
        "what made the surface impervious",
        frozenset(range(30)),
        frozenset({127, 250, 255}),
        BandRole.CLASS,
        255,
    ),
    _Layer(
        "impervious",
        _words(r"imperv|fctimp|(?<![a-z])imp(?![a-z])"),
        "impervious surface, percent of the pixel",
        _PERCENT,
        _NO_PERCENT,
        BandRole.DATA,
        255,
    ),
    _Layer(
        "tree_canopy",
        _words(r"canopy|(?<![a-z])(?:tcc|can)(?![a-z])"),
        "tree canopy, percent of the pixel",
        _PERCENT,
        _NO_PERCENT,
        BandRole.DATA,
        255,
    ),
    _Layer(
        "land_cover_confidence",
        _words(r"lndcnf|confidence"),
        "confidence of the land cover's class, percent",
        _PERCENT,
        _NO_PERCENT,
        BandRole.QUALITY,
        255,
    ),
    _Layer(
        "land_cover",
        _words(""),
        "land cover class",
        frozenset(LEGEND),
        BACKGROUND,
        BandRole.CLASS,
        0,
    ),
)
_CHANGE = _words(r"change|lndchg|spcchg|from.?to")
_LAND_COVER = _LAYERS[-1]


@dataclass(frozen=True, slots=True)
class _About:
    """What name and metadata say of a file."""

    layers: tuple[_Layer, ...]
    """Which it may be; the numbers decide."""
    year: int | None
    is_annual: bool

    @property
    def span(self) -> TimeSpan | None:
        return None if self.year is None else TimeSpan.parse(f"{self.year:04}")

    def codes(self, layer: _Layer) -> frozenset[int]:
        return frozenset(LEGEND_1992) if self._is_first(layer) else layer.codes

    def _is_first(self, layer: _Layer) -> bool:
        """Whether the release of 1992 has this layer's classes."""
        return layer is _LAND_COVER and self.year == 1992 and not self.is_annual

    def class_names(self, layer: _Layer) -> dict[str, str]:
        if layer is not _LAND_COVER:
            return {}
        return names_of(LEGEND_1992 if self._is_first(layer) else LEGEND)

    def class_colors(self, layer: _Layer) -> dict[str, str]:
        if layer is not _LAND_COVER:
            return {}
        return colors_of(LEGEND_1992 if self._is_first(layer) else LEGEND)


class NlcdReader:
    """Reader `nlcd`: one layer a file, bare or in archives."""

    name = "nlcd"
    defaults = ReaderDefaults((30.0,), {"geohash": 4, "quadtile": 10})
    bands: tuple[BandInfo, ...] = ()
    """Which layer comes is the file's matter."""

    def claims(self, source: Source) -> bool:
        """By name or metadata, and by the numbers. All rasters of an archive have to be NLCD."""
        if source.is_dir:
            return False
        try:
            candidates = _candidates(source)
            # Files not called so are looked into where that costs one header.
            by_name = all(_NAME.search(PurePosixPath(member).stem) for member in candidates)
            if source.is_archive and not (by_name or len(candidates) == 1):
                return False
            members = list(_rasters(source))
            return bool(members) and all(_is_nlcd(source, member) for member in members)
        except UnreadableSourceError:
            return False

    def open(self, source: Source, options: ReadOptions) -> list[Scene]:
        """One scene a file. `options.time` is used where no year is known. Named outright, the
        reader takes land cover from files that do not say that they are NLCD, too.
        """
        members = list(_rasters(source)) if not source.is_dir else []
        if not members:
            raise UnreadableSourceError(
                f"{source.path}: no Erdas Imagine or GeoTIFF file; expected layers of NLCD"
            )
        return [_open(self.name, source, member, options) for member in members]


def _candidates(source: Source) -> list[str]:
    """What may be a raster: a bare file under any name, an archive's members by theirs."""
    if not source.is_archive:
        return source.names()
    return [one for one in source.names() if PurePosixPath(one).suffix.lower() in _SUFFIXES]


def _rasters(source: Source) -> Iterator[str]:
    for member in _candidates(source):
        if source.head(member, 16).startswith(_MAGIC):
            yield member


def _is_nlcd(source: Source, member: str) -> bool:
    about = _about(member, source.raster(member))
    return about is not None and _layer_of(source, member, about) is not None


def _texts(file: RasterFile) -> Iterator[str]:
    """What a file says of itself."""
    header = file.header
    for tags in (header.tags, header.bands[0].tags):
        yield from (text[:2000] for text in tags.values())
    yield header.bands[0].description or ""


def _about(member: str, file: RasterFile) -> _About | None:
    """What name and metadata say; None where neither speaks of NLCD."""
    stem = PurePosixPath(member).stem
    telling = [stem] if _NAME.search(stem) else []
    telling += [text for text in _texts(file) if _METADATA.search(text)]
    if not telling or any(_CHANGE.search(text) for text in telling[:1]):
        return None
    first = telling[0]
    layers = tuple(layer for layer in _LAYERS if layer.words.search(first))
    return _About(layers, _year(telling), any(_ANNUAL.search(text) for text in telling))


def _year(telling: list[str]) -> int | None:
    """The first year after the database's name, else the first at all."""
    for pattern in (_YEAR_AFTER, _YEAR):
        for text in telling:
            for match in pattern.finditer(text):
                if int(match[1]) in _YEARS:
                    return int(match[1])
    return None


def _layer_of(source: Source, member: str, about: _About) -> _Layer | None:
    """The layer that a file's numbers fit; None where there is none.

    Raises:
        UnreadableSourceError: it cannot be opened or read.
    """
    file = source.raster(member)
    header = file.header
    if [band.dtype for band in header.bands] != ["uint8"] or not (
        header.crs_wkt and header.has_transform
    ):
        return None
    codes = _sampled_codes(source, member, file)
    return next((layer for layer in about.layers if _fits(codes, about, layer)), None)


def _fits(codes: frozenset[int], about: _About, layer: _Layer) -> bool:
    """Whether a layer may hold these codes, of which some have to be more than background."""
    seen = codes - layer.background
    return bool(seen) and seen <= about.codes(layer)


def _sampled_codes(source: Source, member: str, file: RasterFile) -> frozenset[int]:
    """The codes in a bounded number of squares, spread evenly."""
    height, width = file.header.height, file.header.width
    rows, columns = min(SAMPLE_PX, height), min(SAMPLE_PX, width)
    starts_down = np.linspace(0, height - rows, SAMPLE_WINDOWS).astype(int)
    starts_right = np.linspace(0, width - columns, SAMPLE_WINDOWS).astype(int)
    pixels = source.band(member)
    codes: set[int] = set()
    try:
        for row in sorted(set(starts_down.tolist())):
            for column in sorted(set(starts_right.tolist())):
                values, _ = pixels.read(row, column, rows, columns)
                codes.update(np.flatnonzero(np.bincount(values.ravel(), minlength=256)).tolist())
    finally:
        pixels.close()
    return frozenset(codes)


class _Classes:
    """A band without its background: more values than one may stand for it. A `PixelSource`."""

    def __init__(self, pixels: RasterBand, background: frozenset[int], nodata: int) -> None:
        self._pixels = pixels
        self._valid = np.ones(256, dtype=np.bool_)
        self._valid[sorted(background | {nodata})] = False
        self.nodata = nodata

    @property
    def name(self) -> str:
        return self._pixels.name

    @property
    def grid(self) -> SourceGrid:
        return self._pixels.grid

    @property
    def dtype(self) -> str:
        return self._pixels.dtype

    def read(
        self, row: int, column: int, height: int, width: int
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]:
        """As `PixelSource.read`."""
        values, seen = self._pixels.read(row, column, height, width)
        valid = self._valid[values]
        if seen is not None:
            valid &= seen
        return values, None if valid.all() else valid

    def close(self) -> None:
        self._pixels.close()


def _open(reader: str, source: Source, member: str, options: ReadOptions) -> Scene:
    file = source.raster(member)
    header = file.header
    about = _about(member, file) or _About((_LAND_COVER,), None, is_annual=False)
    layer = _layer_of(source, member, about)
    if layer is None:
        kinds = ", ".join(sorted({band.dtype for band in header.bands}))
        raise UnreadableSourceError(
            f"{file.name}: bands {len(header.bands)}, of {kinds}, no layer of NLCD that is known:"
            " expected one of uint8, with the codes of land cover or percents, placed by a CRS;"
            " --reader geotiff reads other maps"
        )
    pixels = source.band(member)
    span = about.span or options.time
    stem = _OTHER_CHARACTERS.sub("_", PurePosixPath(member).stem)[:_ID_CHARACTERS_MAX]
    name = stem.strip("._-") or "nlcd"
    if about.year is None:
        name = f"{name}-{source.sha256(member)[:8]}"  # the same place in other years
    nodata = layer.nodata if pixels.nodata is None else int(pixels.nodata)
    properties: dict[str, Any] = {
        "driver": header.driver,
        "height": header.height,
        "width": header.width,
        "crs": parse_crs(header.crs_wkt).name[:200],
        "product": layer.name,
    }
    if about.year is not None:
        properties["year"] = about.year
    info = BandInfo(
        name=layer.name,
        dtype=pixels.dtype,
        nodata=nodata,
        role=layer.role,
        unit="percent" if layer.codes is _PERCENT else None,
        description=layer.description,
        native_resolution_m=native_pixel_size_m(pixels.grid),
        class_names=_class_names(header.bands[0], about, layer),
        class_colors=_class_colors(header.bands[0], about, layer),
    )
    return Scene(
        id=name,
        reader=reader,
        path=source.path,
        time_us=span.start_us if span else None,
        time_end_us=span.end_us if span else None,
        platform=None,
        bands=(SceneBand(info, _Classes(pixels, layer.background, nodata)),),
        properties=properties,
        fingerprint=source.fingerprint([member], member.rpartition("/")[0]),
    )


def _class_names(band: BandHeader, about: _About, layer: _Layer) -> dict[str, str]:
    """The file's own names over the legend's."""
    if layer.role is not BandRole.CLASS:
        return {}
    own = {str(code): name for code, name in band.class_names.items() if code <= 255}
    return _by_code({**about.class_names(layer), **own})


def _class_colors(band: BandHeader, about: _About, layer: _Layer) -> dict[str, str]:
    """The file's colour table; the legend's colours where there is none.

    Black is left out: it is what files put where no colour was given.
    """
    if layer.role is not BandRole.CLASS:
        return {}
    own = {
        str(code): f"#{red:02x}{green:02x}{blue:02x}"
        for code, (red, green, blue, _) in band.palette.items()
        if (red, green, blue) != (0, 0, 0) and code <= 255
    }
    return _by_code(own or about.class_colors(layer))


def _by_code(table: dict[str, str]) -> dict[str, str]:
    return {code: table[code] for code in sorted(table, key=int)}
