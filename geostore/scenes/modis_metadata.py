"""The text inside HDF-EOS files, parsed: StructMetadata, CoreMetadata and ArchiveMetadata.

All three are ODL (Object Description Language, CCSDS 641.0-B-2) as the HDF-EOS library writes
it: `GROUP=` and `OBJECT=` blocks with `KEY=VALUE` lines. StructMetadata says what grids there
are and where they lie (HDF-EOS Library Users Guide, volume 1, 170-EED-001, "Grid Data"), in
the terms of the General Cartographic Transformation Package. Files come from anywhere, so
every count is bounded and every number checked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from pyproj import CRS
from pyproj.exceptions import CRSError

__all__ = ["Granule", "Grid", "GridField", "OdlGroup", "parse_granule", "parse_grids", "parse_odl"]

LINES_MAX = 200_000
DEPTH_MAX = 20
SIDE_MAX_PX = 1 << 20
FIELDS_MAX = 2000

_NUMBER = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")

# GCTP's spheroids by SphereCode: semi-major and semi-minor axis in metres.
_SPHEROIDS = {
    0: (6378206.4, 6356583.8),  # Clarke 1866
    4: (6378388.0, 6356911.94613),  # International 1909
    8: (6378137.0, 6356752.31414),  # GRS 1980
    11: (6378135.0, 6356750.519915),  # WGS 72
    12: (6378137.0, 6356752.314245),  # WGS 84
    19: (6370997.0, 6370997.0),  # sphere
    20: (6371228.0, 6371228.0),  # EASE grid sphere
}
_WGS84_CODES = (-1, 12)


@dataclass(slots=True)
class OdlGroup:
    """A block: its own values and the blocks in it, in the file's order."""

    name: str
    values: dict[str, str] = field(default_factory=dict)
    """As written, of the first where a key comes twice; lists with their parentheses."""
    groups: list[OdlGroup] = field(default_factory=list)

    def walk(self) -> Iterator[OdlGroup]:
        """This block and every one below it."""
        yield self
        for group in self.groups:
            yield from group.walk()

    def group(self, name: str) -> OdlGroup | None:
        return next((group for group in self.groups if group.name == name), None)


def parse_odl(text: str) -> OdlGroup:
    """The blocks of an ODL text; lines that are none are passed over.

    Raises:
        ValueError: blocks too deep or lines too many.
    """
    root = OdlGroup("")
    open_groups = [root]
    lines = iter(text.partition("\0")[0].splitlines()[:LINES_MAX])
    for line in lines:
        key, equals, value = line.partition("=")
        key, value = key.strip().upper(), value.strip()
        if not equals:
            continue
        if key in ("GROUP", "OBJECT"):
            if len(open_groups) > DEPTH_MAX:
                raise ValueError(f"blocks more than {DEPTH_MAX} deep")
            group = OdlGroup(value)
            open_groups[-1].groups.append(group)
            open_groups.append(group)
        elif key in ("END_GROUP", "END_OBJECT"):
            if len(open_groups) > 1:
                open_groups.pop()
        else:
            while value.startswith("(") and not value.endswith(")"):
                more = next(lines, None)
                if more is None:
                    break
                value += more.strip()
            # Keys keep their case in StructMetadata and have none in the others.
            open_groups[-1].values.setdefault(line.partition("=")[0].strip(), value)
    return root


def _unquoted(value: str) -> str:
    return value.strip().strip('"').strip()


def _items(value: str) -> list[str]:
    """The items of a list `("a", "b")`, or a single value as a list of one."""
    inner = value.strip()
    if inner.startswith("(") and inner.endswith(")"):
        inner = inner[1:-1]
    return [_unquoted(item) for item in inner.split(",")] if inner.strip() else []


def _numbers(value: str | None, count_min: int, what: str) -> list[float]:
    numbers = [float(item) for item in _items(value or "") if _NUMBER.match(item)]
    if len(numbers) < count_min or not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{what} {(value or '')[:80]!r}: expected {count_min} numbers")
    return numbers


# ---------------------------------------------------------------- grids


@dataclass(frozen=True, slots=True)
class GridField:
    """An array on a grid, with the names of its dimensions in the order of the file."""

    name: str
    dimensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """One grid: where its pixels lie, and which arrays it has."""

    name: str
    height: int
    width: int
    crs_wkt: str
    transform: tuple[float, float, float, float, float, float]
    """Pixel to CRS units, as GDAL's order in `SourceGrid`."""
    fields: tuple[GridField, ...]


def parse_grids(text: str) -> tuple[tuple[Grid, ...], bool]:
    """(grids, whether there are swaths) of a StructMetadata text.

    Raises:
        ValueError: a grid that says nothing usable of where it lies; says what was found.
    """
    root = parse_odl(text)
    structure = root.group("GridStructure")
    swaths = root.group("SwathStructure")
    grids = tuple(_grid(group) for group in (structure.groups if structure else ()))
    return grids, bool(swaths and swaths.groups)


def _grid(group: OdlGroup) -> Grid:
    values = group.values
    name = _unquoted(values.get("GridName", group.name))
    try:
        width, height = _side(values, "XDim"), _side(values, "YDim")
        projection = values.get("Projection", "").strip()
        upper_left = _numbers(values.get("UpperLeftPointMtrs"), 2, "UpperLeftPointMtrs")
        lower_right = _numbers(values.get("LowerRightMtrs"), 2, "LowerRightMtrs")
        if projection == "GCTP_GEO":
            upper_left = [_degrees(number) for number in upper_left]
            lower_right = [_degrees(number) for number in lower_right]
        crs_wkt = _crs_wkt(_proj_text(projection, values))
        transform = _transform(
            upper_left, lower_right, width, height, values.get("GridOrigin", "").strip()
        )
    except ValueError as error:
        raise ValueError(f"grid {name!r}: {error}") from error
    return Grid(name, height, width, crs_wkt, transform, _fields(group))


def _side(values: Mapping[str, str], key: str) -> int:
    pixels = int(_numbers(values.get(key), 1, key)[0])
    if not 0 < pixels <= SIDE_MAX_PX:
        raise ValueError(f"{key} {pixels}: expected 1 to {SIDE_MAX_PX} pixels")
    return pixels


def _fields(group: OdlGroup) -> tuple[GridField, ...]:
    data = group.group("DataField")
    found = [
        GridField(
            _unquoted(one.values.get("DataFieldName", "")),
            tuple(_items(one.values.get("DimList", ""))),
        )
        for one in (data.groups if data else ())[:FIELDS_MAX]
    ]
    return tuple(one for one in found if one.name and one.dimensions)


def _transform(
    upper_left: list[float], lower_right: list[float], width: int, height: int, origin: str
) -> tuple[float, float, float, float, float, float]:
    """The corners are the grid's outer edges, whatever its PixelRegistration says; the origin
    says in which corner the file's first pixel lies.
    """
    left, top = upper_left[:2]
    right, bottom = lower_right[:2]
    if left == right or top == bottom:
        raise ValueError(f"corners {upper_left} and {lower_right} enclose nothing")
    corner = origin.removeprefix("HDFE_GD_") or "UL"
    if corner not in ("UL", "UR", "LL", "LR"):
        raise ValueError(f"GridOrigin {origin!r}: expected HDFE_GD_UL, UR, LL or LR")
    if corner[1] == "R":
        left, right = right, left
    if corner[0] == "L":
        top, bottom = bottom, top
    return ((right - left) / width, 0.0, left, 0.0, (bottom - top) / height, top)


def _degrees(value: float) -> float:
    """GCTP's packed degrees DDDMMMSSS.SS; numbers up to 360 are plain degrees.

    >>> _degrees(-122030015.5)
    -122.50430555555556
    """
    if abs(value) <= 360.0:
        return value
    size = abs(value)
    degrees, rest = divmod(size, 1_000_000.0)
    minutes, seconds = divmod(rest, 1000.0)
    if degrees > 360 or minutes >= 60 or seconds >= 60:
        raise ValueError(f"{value:f}: expected degrees packed as DDDMMMSSS.SS")
    return math.copysign(degrees + minutes / 60.0 + seconds / 3600.0, value)


def _proj_text(projection: str, values: Mapping[str, str]) -> str:
    """The CRS in PROJ's words.

    Raises:
        ValueError: a projection or spheroid that is not known here, or parameters too few.
    """
    code = int(_numbers(values.get("SphereCode", "-1"), 1, "SphereCode")[0])
    if projection == "GCTP_GEO":
        if code in _WGS84_CODES:
            return "+proj=longlat +datum=WGS84 +no_defs"
        return f"+proj=longlat {_axes(0.0, 0.0, code)} +no_defs"
    if projection == "GCTP_UTM":
        zone = int(_numbers(values.get("ZoneCode"), 1, "ZoneCode")[0])
        if not 1 <= abs(zone) <= 60:
            raise ValueError(f"ZoneCode {zone}: expected 1..60, below zero in the south")
        earth = "+datum=WGS84" if code in _WGS84_CODES else _axes(0.0, 0.0, code)
        south = " +south" if zone < 0 else ""
        return f"+proj=utm +zone={abs(zone)}{south} {earth} +units=m +no_defs"
    numbers = _numbers(values.get("ProjParams"), 8, "ProjParams")
    earth = _axes(numbers[0], numbers[1], code)
    lon, lat = _degrees(numbers[4]), _degrees(numbers[5])
    shift = f"+x_0={numbers[6]!r} +y_0={numbers[7]!r} {earth} +units=m +no_defs"
    if projection == "GCTP_SNSOID":
        return f"+proj=sinu +lon_0={lon!r} {shift}"
    if projection == "GCTP_LAMAZ":
        return f"+proj=laea +lon_0={lon!r} +lat_0={lat!r} {shift}"
    if projection == "GCTP_PS":
        pole = math.copysign(90.0, lat)
        return f"+proj=stere +lat_0={pole!r} +lat_ts={lat!r} +lon_0={lon!r} {shift}"
    raise ValueError(
        f"projection {projection!r}: expected GCTP_SNSOID, GCTP_GEO, GCTP_UTM, GCTP_LAMAZ or"
        " GCTP_PS"
    )


def _axes(major: float, minor: float, code: int) -> str:
    """The spheroid: by its axes (a squared eccentricity below 1 in place of the second one is
    GCTP's too; 0 or none means a sphere), else by its code.
    """
    if major > 0:
        if minor <= 0:
            return f"+R={major!r}"
        b = major * math.sqrt(1.0 - minor) if minor < 1 else minor
        return f"+a={major!r} +b={b!r}"
    if code not in _SPHEROIDS:
        raise ValueError(f"SphereCode {code} without axes: expected one of {list(_SPHEROIDS)}")
    a, b = _SPHEROIDS[code]
    return f"+R={a!r}" if a == b else f"+a={a!r} +b={b!r}"


@lru_cache(maxsize=64)
def _crs_wkt(text: str) -> str:
    try:
        return str(CRS.from_user_input(text).to_wkt("WKT1_GDAL"))
    except CRSError as error:
        raise ValueError(f"PROJ cannot use {text!r}: {str(error)[:200]}") from error


# ---------------------------------------------------------------- the granule


@dataclass(frozen=True, slots=True)
class Granule:
    """What the inventory and archive metadata say: single values by upper-case name."""

    values: Mapping[str, tuple[str, ...]]

    def text(self, *names: str) -> str | None:
        """The first value of the first of `names` that has one."""
        for name in names:
            for value in self.values.get(name, ()):
                if value:
                    return value
        return None

    def texts(self, name: str) -> tuple[str, ...]:
        return self.values.get(name, ())


def parse_granule(texts: list[str]) -> Granule:
    """The values of metadata texts, those of the first text before those of later ones.

    Product-specific attributes, which ODL writes as a name and a value in blocks of their
    own, count as values of that name.
    """
    values: dict[str, tuple[str, ...]] = {}
    for text in texts:
        for group in parse_odl(text).walk():
            value = next((v for k, v in group.values.items() if k.upper() == "VALUE"), None)
            if value is not None:
                values.setdefault(group.name.upper(), tuple(_items(value)))
            named = group.group("ADDITIONALATTRIBUTENAME")
            if named is not None:
                name = _unquoted(named.values.get("VALUE", "")).upper()
                inner = [one for one in group.walk() if one.name == "PARAMETERVALUE"]
                if name and inner:
                    values.setdefault(name, tuple(_items(inner[0].values.get("VALUE", ""))))
    return Granule(values)
