"""What a netCDF file's variables mean, by the CF conventions (version 1.11).

Pure: takes the file's description as a child process gave it, and says which variables lie on
a grid, where it lies, when each step was, which numbers are missing. Sections named below are
those of the conventions' document, cfconventions.org.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pyproj import CRS
from pyproj.exceptions import CRSError

from geostore.errors import UnreadableSourceError
from geostore.raster.projection import parse_crs, whole_turn
from geostore.raster.source import exact_nodata
from geostore.scenes.netcdf_times import is_time_unit
from geostore.types import BandRole, BitField

__all__ = [
    "Axis",
    "Missing",
    "Variable",
    "axis_kind",
    "describe_flags",
    "find_crs",
    "fit_axis",
    "is_degrees",
    "missing_numbers",
]

_Floats = npt.NDArray[np.float64]
AxisKind = Literal["x", "y", "time", "other"]

_X_NAMES = frozenset(
    {"projection_x_coordinate", "projection_x_angular_coordinate", "longitude", "grid_longitude"}
)
_Y_NAMES = frozenset(
    {"projection_y_coordinate", "projection_y_angular_coordinate", "latitude", "grid_latitude"}
)
_LONGITUDE_UNIT = re.compile(r"^degrees?_?e(ast)?$", re.IGNORECASE)
_LATITUDE_UNIT = re.compile(r"^degrees?_?n(orth)?$", re.IGNORECASE)
_METRES = {
    "m": 1.0,
    "metre": 1.0,
    "metres": 1.0,
    "meter": 1.0,
    "meters": 1.0,
    "km": 1000.0,
    "kilometre": 1000.0,
    "kilometres": 1000.0,
    "kilometer": 1000.0,
    "kilometers": 1000.0,
}
_RADIANS = {"rad": 1.0, "radian": 1.0, "radians": 1.0, "microradian": 1e-6, "microradians": 1e-6}

FLAGS_MAX = 256
AXIS_ERROR_MAX_PX = 0.05
"""How far a coordinate may lie from its place on an even grid, in steps."""
_AXIS_ERROR_OF_ROUNDING_MAX_PX = 0.25

_DEFAULT_FILL: dict[str, int | float] = {
    "int16": -32767,
    "uint16": 65535,
    "int32": -2147483647,
    "uint32": 4294967295,
    "int64": -9223372036854775806,
    "uint64": 18446744073709551614,
    "float32": 9.969209968386869e36,
    "float64": 9.969209968386869e36,
}
"""What the library stores where nothing was written (netcdf.h, NC_FILL_SHORT and so on): it
means missing where a variable states nothing else (NetCDF Users' Guide, appendix on attribute
conventions). Bytes have none."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable as the file describes it."""

    name: str
    dtype: str | None
    """numpy's name; `text`; None where its values are no plain numbers."""
    dimensions: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...] | None
    """What the file compresses as one; None where it lies in one piece."""
    attributes: Mapping[str, Any]

    def text(self, attribute: str) -> str:
        """An attribute's text; empty where there is none."""
        value = self.attributes.get(attribute)
        return value.strip() if isinstance(value, str) else ""

    def numbers(self, attribute: str) -> list[int | float]:
        """An attribute's numbers; none where it is no number."""
        value = self.attributes.get(attribute)
        values = value if isinstance(value, list) else [value]
        return [one for one in values if isinstance(one, int | float)]

    def number(self, attribute: str, default: float) -> float:
        found = self.numbers(attribute)
        return float(found[0]) if found and math.isfinite(found[0]) else default

    @property
    def is_unsigned(self) -> bool:
        """Stored as signed integers and meant as unsigned ones, as netCDF-3 has none."""
        return self.text("_Unsigned").lower() == "true" and (self.dtype or "").startswith("int")

    @property
    def meant_dtype(self) -> str | None:
        """The dtype that the stored bits stand for."""
        return f"u{self.dtype}" if self.is_unsigned else self.dtype


def axis_kind(variable: Variable) -> AxisKind:
    """Which axis a coordinate variable is (sections 4.1 to 4.4), by what it says first."""
    units, standard = variable.text("units"), variable.text("standard_name").lower()
    axis, name = variable.text("axis").upper(), variable.name.lower()
    if is_time_unit(units):
        return "time"
    if standard in _X_NAMES or _LONGITUDE_UNIT.match(units):
        return "x"
    if standard in _Y_NAMES or _LATITUDE_UNIT.match(units):
        return "y"
    if axis in {"X", "Y"}:
        return "x" if axis == "X" else "y"
    if name in {"x", "lon", "longitude", "easting"}:
        return "x"
    if name in {"y", "lat", "latitude", "northing"}:
        return "y"
    return "other"


def is_degrees(variable: Variable) -> bool:
    """Whether a horizontal coordinate is a longitude or latitude, not one of a projection."""
    units = variable.text("units")
    if _LONGITUDE_UNIT.match(units) or _LATITUDE_UNIT.match(units):
        return True
    if variable.text("standard_name").lower() in {"longitude", "latitude"}:
        return True
    return not units and variable.name.lower() in {"lon", "longitude", "lat", "latitude"}


def find_crs(
    variable: Variable, x: Variable, y: Variable, variables: Mapping[str, Variable]
) -> CRS | None:
    """The CRS of a variable's grid (section 5.6); None where nothing says it.

    Where a variable names no grid mapping: longitudes and latitudes are WGS 84's, and of a
    file with one single grid mapping that one counts, since programs lose the name easily.

    Raises:
        UnreadableSourceError: there is one, and PROJ cannot use it.
    """
    mapping = _grid_mapping(variable, (x.name, y.name), variables)
    if mapping is None:
        return CRS.from_epsg(4326) if is_degrees(x) and is_degrees(y) else None
    for attribute in ("crs_wkt", "spatial_ref", "proj4", "proj4_params", "epsg_code"):
        if mapping.text(attribute):
            return parse_crs(mapping.text(attribute))
    plain = tuple((key, _hashable(value)) for key, value in sorted(mapping.attributes.items()))
    try:
        return _crs_by_parameters(plain)
    except (CRSError, KeyError, TypeError, ValueError) as error:
        named = mapping.text("grid_mapping_name") or "without a name"
        raise UnreadableSourceError(
            f"grid mapping {mapping.name!r} ({named[:60]}): PROJ cannot use it"
            f" ({str(error)[:200] or type(error).__name__})"
        ) from error


@lru_cache(maxsize=64)
def _crs_by_parameters(attributes: tuple[tuple[str, Any], ...]) -> CRS:
    """Kept, since pyproj takes a second for each."""
    return CRS.from_cf(
        {key: list(value) if isinstance(value, tuple) else value for key, value in attributes}
    )


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _is_mapping(variable: Variable) -> bool:
    return any(
        variable.text(one) for one in ("grid_mapping_name", "crs_wkt", "spatial_ref")
    ) and not any(side > 1 for side in variable.shape)


def _grid_mapping(
    variable: Variable, axes: tuple[str, str], variables: Mapping[str, Variable]
) -> Variable | None:
    stated = variable.text("grid_mapping")
    if ":" in stated:  # `crs: x y other: lat lon`
        named, of_axes = "", set(axes)
        for word in stated.split():
            if word.endswith(":"):
                named, of_axes = word[:-1], set(axes)
            of_axes.discard(word)
            if not of_axes:
                return variables.get(named)
        return None
    if stated:
        return variables.get(stated)
    found = [one for one in variables.values() if _is_mapping(one)]
    return found[0] if len(found) == 1 else None


@dataclass(frozen=True, slots=True)
class Axis:
    """An even axis, in units of the CRS: pixel k runs from `start + k*step` to the next."""

    start: float
    step: float
    count: int


def fit_axis(
    variable: Variable, values: _Floats, crs: CRS, fallback_step: float | None
) -> Axis | str:
    """The axis of a coordinate variable's values, which are middles of pixels; else why not.

    Args:
        values: as stored, in file order.
        fallback_step: how far apart where there is one value only.
    """
    middles = values * variable.number("scale_factor", 1.0) + variable.number("add_offset", 0.0)
    factor = _to_crs_units(variable, crs)
    if factor is None:
        return f"unit {variable.text('units')[:40]!r} of {variable.name!r} does not fit its CRS"
    if not np.isfinite(middles).all():
        return f"coordinate {variable.name!r} has missing values"
    turn = whole_turn(crs)
    if turn and axis_kind(variable) == "x":
        middles = np.unwrap(middles, period=turn)
    if len(middles) == 1:
        step = fallback_step
        if step is None:
            return f"coordinate {variable.name!r} has one value, which gives no pixel size"
    else:
        step = float(middles[-1] - middles[0]) / (len(middles) - 1)
        if not step:
            return f"coordinate {variable.name!r} does not change"
        off = float(np.abs(middles - (middles[0] + step * np.arange(len(middles)))).max())
        if off > _error_allowed(variable, middles, abs(step)):
            return f"coordinate {variable.name!r} is not evenly spaced"
        step *= factor
    return Axis(float(middles[0]) * factor - step / 2, step, len(middles))


def _error_allowed(variable: Variable, middles: _Floats, step: float) -> float:
    """What coordinates may be off, more where their dtype can hold them no better."""
    allowed = AXIS_ERROR_MAX_PX * step
    if variable.dtype == "float32":
        rounding = float(np.spacing(np.float32(np.abs(middles).max())))
        allowed = max(allowed, min(rounding, _AXIS_ERROR_OF_ROUNDING_MAX_PX * step))
    return allowed


def _to_crs_units(variable: Variable, crs: CRS) -> float | None:
    """What turns a coordinate into units of the CRS; None where it does not fit."""
    units = variable.text("units").lower()
    if crs.is_geographic:
        return None if units in _METRES else 1.0
    if is_degrees(variable):
        return None
    if units in _RADIANS or units == "rad*1e-6":
        height = _satellite_height(crs)
        return None if height is None else height * _RADIANS.get(units, 1e-6)
    if units in _METRES:
        unit = float(crs.axis_info[0].unit_conversion_factor) if crs.axis_info else 1.0
        return _METRES[units] / (unit or 1.0)
    return 1.0


def _satellite_height(crs: CRS) -> float | None:
    """Metres above the ellipsoid: scan angles times it are PROJ's geostationary metres."""
    operation = crs.coordinate_operation
    if operation is None or "geostationary" not in operation.method_name.lower():
        return None
    heights = [one.value for one in operation.params if "height" in one.name.lower()]
    return float(heights[0]) if heights else None


@dataclass(frozen=True, slots=True)
class Missing:
    """Which stored numbers are no measurements."""

    nodata: int | float | None
    """The one that stands for all of them."""
    others: tuple[int | float, ...] = ()
    low: int | float | None = None
    """The least valid number."""
    high: int | float | None = None

    def valid(self, data: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
        """Where the numbers are measurements; None: everywhere."""
        good = np.ones(data.shape, bool)
        if data.dtype.kind == "f":
            good &= ~np.isnan(data)
        for value in (self.nodata, *self.others):
            if value is not None and not (isinstance(value, float) and math.isnan(value)):
                good &= data != data.dtype.type(value)
        with np.errstate(invalid="ignore"):
            if self.low is not None:
                good &= data >= self.low
            if self.high is not None:
                good &= data <= self.high
        return None if good.all() else good


def missing_numbers(variable: Variable) -> Missing:
    """By `_FillValue`, `missing_value`, `valid_min`, `valid_max`, `valid_range` (section 2.5)."""
    dtype = variable.meant_dtype or ""

    def meant(attribute: str) -> list[int | float]:
        return [_as_meant(one, variable) for one in variable.numbers(attribute)]

    stated = [*meant("_FillValue"), *meant("missing_value")]
    held = [one for value in stated if (one := exact_nodata(value, dtype)) is not None]
    if not stated and dtype in _DEFAULT_FILL:
        held = [_DEFAULT_FILL[dtype]]
    distinct = list(dict.fromkeys(held))
    ends = meant("valid_range")
    low, high = (ends[0], ends[1]) if len(ends) == 2 else (None, None)
    low = next(iter(meant("valid_min")), low)
    high = next(iter(meant("valid_max")), high)
    return Missing(distinct[0] if distinct else None, tuple(distinct[1:]), low, high)


def _as_meant(value: int | float, variable: Variable) -> int | float:
    """A number of an attribute, which has the sign of the stored bits, as it is meant."""
    if variable.is_unsigned and isinstance(value, int) and value < 0:
        return value + (1 << (8 * np.dtype(variable.dtype).itemsize))
    return value


def describe_flags(variable: Variable) -> tuple[BandRole, dict[str, str], tuple[BitField, ...]]:
    """What a variable's numbers are, by its flags (section 3.5): role, class names, bit fields."""
    meanings = variable.text("flag_meanings").split()[:FLAGS_MAX]
    values = [int(_as_meant(int(one), variable)) for one in _whole(variable, "flag_values")]
    masks = [int(_as_meant(int(one), variable)) for one in _whole(variable, "flag_masks")]
    if masks:
        if len(masks) != len(meanings):
            return BandRole.QUALITY, {}, ()
        numbers = values if len(values) == len(masks) else list(masks)
        return BandRole.QUALITY, {}, tuple(_bit_fields(meanings, masks, numbers))
    if values:
        named = zip(map(str, values), meanings, strict=False) if meanings else ()
        return BandRole.CLASS, dict(named), ()
    return BandRole.DATA, {}, ()


def _whole(variable: Variable, attribute: str) -> list[int | float]:
    return [one for one in variable.numbers(attribute) if math.isfinite(one)][:FLAGS_MAX]


def _bit_fields(
    meanings: Sequence[str], masks: Sequence[int], values: Sequence[int]
) -> Iterator[BitField]:
    """One a mask: a flag of one bit by its meaning, several bits with a name for each number."""
    for mask in dict.fromkeys(masks):
        if mask <= 0:
            continue
        low = (mask & -mask).bit_length() - 1
        of_mask = {
            str((value & mask) >> low): meaning
            for meaning, other, value in zip(meanings, masks, values, strict=True)
            if other == mask
        }
        length = mask.bit_length() - low
        if len(of_mask) == 1:
            yield BitField(next(iter(of_mask.values())), low, length)
        else:
            yield BitField(f"bits_{low}_{low + length - 1}", low, length, of_mask)
