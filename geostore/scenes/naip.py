"""NAIP: aerial photographs of the United States, a quarter of a quadrangle a file.

After the product's information sheets and the metadata that come with each quarter quad (USDA
Farm Production and Conservation Business Center, Geospatial Enterprise Operations, formerly
the Aerial Photography Field Office): red, green, blue and, since 2007, near infrared, 8 bits
each, in the UTM zone of the quad on NAD83, with 300 m of its neighbours on every side. A
quarter quad's name says where it lies, in which zone, and when it was flown, its tags may say
the program and the quad; where the pixels lie must agree. Compressed county mosaics are not
quarter quads, and so plain rasters.

No value stands for nodata in the product. A black collar (0, 0, 0) is valid unless the file
itself declares a nodata value or has a mask: black is also what asphalt, water and shadow can be.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from pyproj import CRS

from geostore.errors import UnreadableSourceError
from geostore.raster.positions import native_pixel_size_m
from geostore.raster.projection import parse_crs, project, transformer
from geostore.scenes.scene import ReaderDefaults, ReadOptions, Scene, SceneBand
from geostore.types import BandInfo, TimeSpan
from geostore.types.geo import us_from_datetime

if TYPE_CHECKING:
    from geostore.raster import RasterFile
    from geostore.scenes.source import Source

__all__ = ["NaipReader", "Quad"]

_BANDS = tuple(
    BandInfo(name=name, common_name=common, dtype="uint8", description=description)
    for name, common, description in (
        ("B1", "red", "red"),
        ("B2", "green", "green"),
        ("B3", "blue", "blue"),
        ("B4", "nir", "near infrared"),
    )
)
_COUNTS = (3, 4)

# m_4709963_se_14_1_20090818, m_3209055_ne_15_030_20211113_20220317, vt_m_...: degrees of
# latitude and longitude of a block's south-east corner, quadrangle, quarter, UTM zone, pixel
# size (metres, hundredths of a metre in three digits, h for a half), flown, published.
_QUAD = re.compile(
    r"^(?:[a-z]{2}_)?m_(?P<lat>\d{2})(?P<lon>\d{3})(?P<quad>\d{2})_(?P<quarter>[ns][ew])"
    r"_(?P<zone>\d{1,2})_(?P<size>h|\d{1,3})"
    r"(?:_(?P<flown>\d{8})(?:_(?P<published>\d{8}))?)?(?![A-Za-z0-9])",
    re.IGNORECASE,
)
# As TIFFTAG_DOCUMENTNAME has it: WHITE PLAINS SW 3607717.
_DOCUMENT = re.compile(r"\b(?P<quarter>[NS][EW]) (?P<lat>\d{2})(?P<lon>\d{3})(?P<quad>\d{2})$")
_PROGRAM = "National Agriculture Imagery Program"
_BAND_FILE = re.compile(r"^(?P<stem>.+)[-_. ]b(?:and)?[-_]?(?P<band>[1-4])$", re.IGNORECASE)
_SUFFIXES = (".tif", ".tiff", ".jp2")
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
_OTHER_CHARACTERS = re.compile(r"[^A-Za-z0-9._-]+")
_NAD83 = re.compile(r"NAD[ _]?83|North[ _]American[ _](?:Datum[ _](?:of[ _])?)?1983", re.IGNORECASE)

_FIRST_YEAR = 2002
"""The program's pilot; its name stands on nothing older."""
_QUARTER_DEGREES = 1 / 16
_BUFFER_DEGREES = 0.01
"""How far a file's middle may lie outside its quarter quad: pixels reach 300 m over its edge,
and a cut of a file may hold these alone."""
_ID_CHARACTERS_MAX = 200
_SAMPLE_PX = 64

# Tags that say when a picture was taken; TIFFTAG_DATETIME is when a file was made.
_TIME_TAGS = ("ACQUISITION_DATE", "ACQUISITIONDATE", "DATE_ACQUIRED", "ACQUISITIONDATETIME")
_DATE = re.compile(r"^\s*(\d{4})[-:/]?(\d{2})[-:/]?(\d{2})")


@dataclass(frozen=True, slots=True)
class Quad:
    """What a quarter quad's name or tags say of it."""

    name: str
    """Block, quadrangle and quarter: `4709963_se`."""
    west: float
    south: float
    utm_zone: int | None = None
    resolution_m: float | None = None
    flown: TimeSpan | None = None
    """The day, UTC."""
    published: str | None = None
    """ISO date."""

    @classmethod
    def parse(cls, name: str) -> Quad | None:
        """The quarter quad of that file name; None where it is no such name.

        >>> quad = Quad.parse("m_4709963_se_14_1_20090818.tif")
        >>> (quad.west, quad.south, quad.utm_zone)
        (-99.1875, 47.0, 14)
        """
        match = _QUAD.match(name)
        quad = _quarter(match) if match is not None else None
        if match is None or quad is None or not 1 <= int(match["zone"]) <= 60:
            return None
        flown = _day(match["flown"])
        return replace(
            quad,
            utm_zone=int(match["zone"]),
            resolution_m=_named_size_m(match["size"].lower()),
            flown=flown,
            published=_iso_date(match["published"]) if flown is not None else None,
        )

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Quad | None:
        """The quarter quad that a GeoTIFF's tags name."""
        match = _DOCUMENT.search(tags.get("TIFFTAG_DOCUMENTNAME", "").strip())
        return _quarter(match) if match is not None else None

    def holds(self, lon: float, lat: float) -> bool:
        """Whether a file of this quad may have its middle there."""
        return (
            -_BUFFER_DEGREES <= lon - self.west <= _QUARTER_DEGREES + _BUFFER_DEGREES
            and -_BUFFER_DEGREES <= lat - self.south <= _QUARTER_DEGREES + _BUFFER_DEGREES
        )


def _quarter(match: re.Match[str]) -> Quad | None:
    number, quarter = int(match["quad"]) - 1, match["quarter"].lower()
    if not 0 <= number < 64:
        return None
    # Quadrangles of 1/8 degree are counted from a block's north-west corner, by rows.
    row, column = divmod(number, 8)
    return Quad(
        name=f"{match['lat']}{match['lon']}{match['quad']}_{quarter}",
        west=-(int(match["lon"]) + 1) + column / 8 + _QUARTER_DEGREES * (quarter[1] == "e"),
        south=int(match["lat"]) + (7 - row) / 8 + _QUARTER_DEGREES * (quarter[0] == "n"),
    )


@dataclass(frozen=True, slots=True)
class _Product:
    """The files of one scene: one with all bands, or one for each band."""

    name: str
    """Without suffix: the scene's id, where it is a quarter quad's with a date."""
    members: tuple[str, ...]

    def quad(self, tags: Mapping[str, str]) -> Quad | None:
        return Quad.parse(self.name) or Quad.from_tags(tags)


class NaipReader:
    """Reader `naip`: quarter quads as GeoTIFF or JPEG 2000, bare or in archives, and folders
    with one file a band.
    """

    name = "naip"
    defaults = ReaderDefaults(None, {"geohash": 6, "quadtile": 16})
    bands = _BANDS

    def claims(self, source: Source) -> bool:
        """By name or tags, and by the bands and where they lie. Of an archive or folder, all
        rasters have to be NAIP: those that are not would be lost.
        """
        if not any(_may_be_naip(source, name) for name in source.root_names()):
            return False
        try:
            products = _products(source)
            return bool(products) and all(_is_naip(source, product) for product in products)
        except UnreadableSourceError:
            return False

    def open(self, source: Source, options: ReadOptions) -> list[Scene]:
        """One scene a quarter quad. Named outright, the reader takes any picture of three or
        four bands: `options.time` then says when it was taken.
        """
        products = _products(source)
        if not products:
            raise UnreadableSourceError(
                f"{source.path}: no GeoTIFF or JPEG 2000 file; expected NAIP quarter quads"
            )
        return [_open(self.name, source, product, options) for product in products]


def _may_be_naip(source: Source, member: str) -> bool:
    """What it costs nothing to know: whether it is worth opening files. A bare file is, for
    its tags; a folder is where files in it are called like bands of one picture.
    """
    path = PurePosixPath(member)
    if not source.is_dir and (not source.is_archive or _QUAD.match(path.name)):
        return True
    stack = _BAND_FILE.match(path.stem)
    if stack is None or path.suffix.lower() not in _SUFFIXES:
        return False
    return "naip" in stack["stem"].lower() or _QUAD.match(stack["stem"]) is not None


def _products(source: Source) -> list[_Product]:
    """Every raster, those that are bands of one picture together."""
    members = [one for one in source.names() if _is_raster(source, one)]
    folders: dict[tuple[str, str], dict[int, str]] = {}
    for member in members:
        path = PurePosixPath(member)
        match = _BAND_FILE.match(path.stem)
        if match is not None and (source.is_dir or source.is_archive):
            stack = folders.setdefault((str(path.parent), match["stem"]), {})
            stack.setdefault(int(match["band"]), member)
    stacks = {
        tuple(stack[band] for band in sorted(stack)): stem
        for (_, stem), stack in folders.items()
        if sorted(stack) in [list(range(1, count + 1)) for count in _COUNTS]
    }
    in_stacks = {member for stack in stacks for member in stack}
    products = [_Product(stem, stack) for stack, stem in stacks.items()]
    products.extend(
        _Product(PurePosixPath(member).stem, (member,))
        for member in members
        if member not in in_stacks
    )
    if source.is_dir and not stacks:
        return []  # a folder of quarter quads is no product: it is walked
    return sorted(products, key=lambda product: product.members)


def _is_raster(source: Source, member: str) -> bool:
    if (source.is_archive or source.is_dir) and (
        PurePosixPath(member).suffix.lower() not in (*_SUFFIXES, ".img")
    ):
        return False
    return source.head(member, 16).startswith((*_MAGIC, b"EHFA_HEADER_TAG"))


def _is_naip(source: Source, product: _Product) -> bool:
    """Whether name, bands, CRS and place agree.

    Raises:
        UnreadableSourceError: a file cannot be opened, or is another kind of picture.
    """
    header = _checked_files(source, product)[0].header
    is_stack = len(product.members) > 1 and "naip" in product.name.lower()
    is_tagged = any(_PROGRAM.lower() in text[:2000].lower() for text in header.tags.values())
    zone = _utm_zone(parse_crs(header.crs_wkt))
    if zone is None or not (Quad.parse(product.name) or is_stack or is_tagged):
        return False
    quad = product.quad(header.tags)
    if quad is None:
        return True
    a, b, c, d, e, f = header.transform
    column, row = header.width / 2, header.height / 2
    x, y = a * column + b * row + c, d * column + e * row + f
    way = transformer(header.crs_wkt, "EPSG:4326")
    lon, lat = project(way, np.array([x]), np.array([y]))
    return quad.utm_zone in (None, zone) and quad.holds(float(lon[0]), float(lat[0]))


def _checked_files(source: Source, product: _Product) -> list[RasterFile]:
    """The product's files, if their bands are what NAIP's are.

    Raises:
        UnreadableSourceError: they are not; says what they are.
    """
    rasters = source.rasters(product.members)
    files = [rasters[member] for member in product.members]
    first = files[0].header
    for file in files:
        header = file.header
        kinds = sorted({band.dtype for band in header.bands})
        count = len(header.bands) if len(files) == 1 else len(header.bands) * len(files)
        if (
            count not in _COUNTS
            or kinds != ["uint8"]
            or (len(files) > 1) != (len(header.bands) == 1)
        ):
            raise UnreadableSourceError(
                f"{file.name}: {len(header.bands)} bands of {', '.join(kinds)}: expected NAIP's"
                " 3 or 4 of uint8"
            )
        if not header.crs_wkt or not header.has_transform:
            raise UnreadableSourceError(
                f"{file.name}: no {'geotransform' if header.crs_wkt else 'CRS'}; expected a"
                " picture that says where it lies"
            )
        if _place(file) != _place(files[0]):
            raise UnreadableSourceError(
                f"{file.name}: {header.width} x {header.height} pixels; expected the grid of"
                f" {files[0].name}, {first.width} x {first.height}"
            )
    return files


def _place(file: RasterFile) -> tuple[object, ...]:
    header = file.header
    return (header.crs_wkt, header.transform, header.width, header.height)


def _utm_zone(crs: CRS) -> int | None:
    """The zone of a CRS that is UTM north on NAD83, in any of its realisations; else None."""
    if crs.is_compound:
        crs = crs.sub_crs_list[0]
    if crs.is_bound and crs.source_crs is not None:
        crs = crs.source_crs
    operation, base = crs.coordinate_operation, crs.geodetic_crs
    if not crs.is_projected or operation is None or base is None or base.datum is None:
        return None
    if operation.method_name != "Transverse Mercator" or not (
        _NAD83.search(base.name) or _NAD83.search(base.datum.name)
    ):
        return None
    values = {one.name: float(one.value) for one in operation.params}
    zone = (values.get("Longitude of natural origin", 1.0) + 183.0) / 6.0
    expected = {
        "Latitude of natural origin": 0.0,
        "Scale factor at natural origin": 0.9996,
        "False easting": 500_000.0,
        "False northing": 0.0,
    }
    fits = all(abs(values.get(name, -1.0) - value) < 1e-9 for name, value in expected.items())
    return round(zone) if fits and zone == round(zone) and 1 <= zone <= 60 else None


def _open(reader: str, source: Source, product: _Product, options: ReadOptions) -> Scene:
    files = _checked_files(source, product)
    quad = product.quad(files[0].header.tags)
    span = (quad.flown if quad else None) or _time_from_tags(files[0].header.tags) or options.time
    fingerprint = source.fingerprint(product.members, product.members[0].rpartition("/")[0])
    name = _OTHER_CHARACTERS.sub("_", product.name)[:_ID_CHARACTERS_MAX].strip("._-") or "naip"
    if quad is None or quad.flown is None:
        # Pictures of one place in several years would be one scene.
        name = f"{name}-{fingerprint[:8]}"
    return Scene(
        id=name,
        reader=reader,
        path=source.path,
        time_us=span.start_us if span else None,
        time_end_us=span.end_us if span else None,
        platform=None,
        bands=tuple(_scene_bands(source, product, files)),
        properties=_properties(quad, files[0]),
        fingerprint=fingerprint,
    )


def _scene_bands(
    source: Source, product: _Product, files: Sequence[RasterFile]
) -> Iterator[SceneBand]:
    if len(files) > 1:
        places = [(member, 1) for member in product.members]
    else:
        places = [
            (product.members[0], number) for number in range(1, len(files[0].header.bands) + 1)
        ]
    # What GDAL takes for a mask is near infrared in most files: the tag that would tell
    # (ExtraSamples) is written by habit.
    colors = [band.color for band in files[0].header.bands]
    says_alpha = len(files) == 1 and colors[-1] == "alpha"
    if says_alpha and _only_on_and_off(source, *places[-1], files[0]):
        places, says_alpha = places[:-1], False
    for (member, number), info in zip(places, _BANDS, strict=False):
        pixels = source.band(member, number, ignore_mask=says_alpha)
        yield SceneBand(
            BandInfo(
                name=info.name,
                common_name=info.common_name,
                dtype=info.dtype,
                nodata=pixels.nodata,
                description=info.description,
                native_resolution_m=native_pixel_size_m(pixels.grid),
            ),
            pixels,
        )


def _only_on_and_off(source: Source, member: str, number: int, file: RasterFile) -> bool:
    """Whether a band has no values besides 0 and 255 at five places: then it is a mask."""
    pixels = source.band(member, number, ignore_mask=True)
    height, width = file.header.height, file.header.width
    rows, columns = min(_SAMPLE_PX, height), min(_SAMPLE_PX, width)
    down, right = height - rows, width - columns
    corners = ((down // 2, right // 2), (0, 0), (0, right), (down, 0), (down, right))
    try:
        for row, column in corners:
            values, _ = pixels.read(row, column, rows, columns)
            if ((values != 0) & (values != 255)).any():
                return False
    finally:
        pixels.close()
    return True


def _properties(quad: Quad | None, file: RasterFile) -> dict[str, Any]:
    header = file.header
    properties: dict[str, Any] = {
        "driver": header.driver,
        "height": header.height,
        "width": header.width,
        "crs": parse_crs(header.crs_wkt).name[:200],
    }
    if quad is not None:
        properties["quarter_quad"] = quad.name
        said = {
            "utm_zone": quad.utm_zone,
            "product_resolution_m": quad.resolution_m,
            "published": quad.published,
        }
        properties.update({name: value for name, value in said.items() if value is not None})
    for tag in ("TIFFTAG_DOCUMENTNAME", "TIFFTAG_IMAGEDESCRIPTION", "TIFFTAG_SOFTWARE"):
        if header.tags.get(tag):
            properties[tag.removeprefix("TIFFTAG_").lower()] = header.tags[tag][:200]
    return properties


def _named_size_m(text: str) -> float:
    """`1` and `2` are metres, `060` and `030` hundredths, `h` is a half."""
    if text == "h":
        return 0.5
    return int(text) / 100 if len(text) == 3 else float(text)


def _iso_date(text: str | None) -> str | None:
    """A date of 8 digits in which an aircraft can have flown for the program."""
    if text is None:
        return None
    try:
        date = datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return None
    return date.date().isoformat() if _FIRST_YEAR <= date.year < 2100 else None


def _day(text: str | None) -> TimeSpan | None:
    date = _iso_date(text)
    if date is None:
        return None
    start_us = us_from_datetime(datetime.fromisoformat(date))
    return TimeSpan(start_us, start_us + 86_400_000_000 - 1)


def _time_from_tags(tags: dict[str, str]) -> TimeSpan | None:
    upper = {name.upper(): value for name, value in tags.items()}
    for tag in _TIME_TAGS:
        match = _DATE.match(upper.get(tag, ""))
        day = _day("".join(match.groups())) if match else None
        if day is not None:
            return day
    return None
