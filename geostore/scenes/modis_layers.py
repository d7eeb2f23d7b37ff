"""Layers of MODIS products as bands: what they are called, mean, and which pixels are valid."""

from __future__ import annotations

import math
import re
from calendar import monthrange
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from geostore.scenes.modis_products import (
    Period,
    Product,
    common_names,
    is_bits,
    layer_rule,
    radiometry,
    role_of,
)
from geostore.types import BandInfo, BandRole, BitTest, TimeSpan
from geostore.types.geo import us_from_datetime

if TYPE_CHECKING:
    from geostore.raster.source import PixelSource, SourceGrid

__all__ = ["Layer", "LayerPixels", "describe_layer", "parse_day", "period_from"]

_CODES = re.compile(r"(?:^|,\s*|\n\s*)(\d{1,3})\s*=\s*([^,=\n]{1,100}?)\s*(?=,\s*\d{1,3}\s*=|\n|$)")
_UNITLESS = frozenset({"", "none", "n/a", "bit", "bit field", "class-flag", "rank"})
DESCRIPTION_CHARACTERS_MAX = 500


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: the band that it becomes, and what tells its valid pixels besides nodata."""

    info: BandInfo
    valid_range: tuple[float, float] | None = None
    """As the provider states it; numbers outside of it are not valid. None for bits and classes,
    whose every value means something."""
    not_produced: BitTest | None = None
    ignores_nodata: bool = False
    """The fill value that the file states is a number like any other."""

    @property
    def has_rules(self) -> bool:
        """Whether validity differs from what the source says: see `LayerPixels`."""
        return self.ignores_nodata or self.valid_range is not None or self.not_produced is not None


def describe_layer(
    product: Product,
    layer: str,
    dtype: str,
    attributes: Mapping[str, Any],
    *,
    name: str | None = None,
    native_resolution_m: float | None = None,
) -> Layer:
    """A layer of that name by its attributes as HDF has them, and by its product's guide.

    Args:
        name: of the band, where a layer of three dimensions becomes several.
    """
    rule = layer_rule(product, layer)
    role = role_of(product, layer, _text(attributes.get("units")))
    scale, offset = radiometry(attributes)
    is_whole = np.dtype(dtype).kind in "iu"
    if rule is not None and rule.scale is not None and scale == 1.0 and is_whole:
        scale = rule.scale
    valid_range = _valid_range(attributes.get("valid_range"))
    nodata = _exact(attributes.get("_FillValue"), dtype)
    if nodata is None and rule is not None and is_whole:
        nodata = _exact(rule.nodata, dtype)
    is_pattern = role is BandRole.QUALITY and _is_bit_pattern(attributes, nodata, valid_range)
    classes = dict(rule.classes) if rule is not None else {}
    if role is BandRole.CLASS and not classes:
        classes = _classes(attributes)
    units = _text(attributes.get("units"))
    names = common_names(layer)
    info = BandInfo(
        name=name or layer,
        common_name=names[0] if names else None,
        aliases=names[1:],
        dtype=dtype,
        nodata=None if is_pattern else nodata,
        role=role,
        scale=scale,
        offset=offset,
        unit=None if (units or "").lower() in _UNITLESS else units,
        description=(_text(attributes.get("long_name")) or "")[:DESCRIPTION_CHARACTERS_MAX] or None,
        native_resolution_m=native_resolution_m,
        class_names=classes,
        bitfields=rule.bitfields if rule is not None else (),
    )
    is_number = role is BandRole.DATA or not (info.bitfields or is_bits(units))
    return Layer(
        info,
        valid_range if is_number and role is not BandRole.CLASS else None,
        rule.not_produced if rule is not None else None,
        is_pattern,
    )


def _text(value: object) -> str | None:
    return value.partition("\0")[0].strip() or None if isinstance(value, str) else None


def _exact(value: object, dtype: str) -> float | int | None:
    """A fill value as pixels of `dtype` hold it; None where none can equal it."""
    if isinstance(value, list):
        value = value[0] if len(value) == 1 else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    kind = np.dtype(dtype)
    if kind.kind == "f":
        with np.errstate(over="ignore"):
            return float(kind.type(value))
    if isinstance(value, float) and not value.is_integer():
        return None
    limits = np.iinfo(kind)
    return int(value) if limits.min <= int(value) <= limits.max else None


def _valid_range(value: object) -> tuple[float, float] | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    low, high = float(value[0]), float(value[1])
    return (low, high) if math.isfinite(low) and math.isfinite(high) and low < high else None


def _is_bit_pattern(
    attributes: Mapping[str, Any],
    nodata: float | int | None,
    valid_range: tuple[float, float] | None,
) -> bool:
    """Whether the fill value is a number that the valid range holds.

    MOD10A2's Eight_Day_Snow_Cover calls 0 both its fill value and valid: no snow on any of
    the eight days, which is a measurement.
    """
    if nodata is None or valid_range is None or _text(attributes.get("units")) != "bit":
        return False
    return valid_range[0] <= nodata <= valid_range[1]


def _classes(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Class names from the attribute that lists them: `0=missing data, 1=no decision`."""
    text = _text(attributes.get("Key")) or _text(attributes.get("Legend")) or ""
    return {match[1]: match[2] for match in _CODES.finditer(text[:10_000])}


class LayerPixels:
    """A layer's pixels: those of `source`, less what only its product's rules call invalid."""

    def __init__(self, source: PixelSource, layer: Layer) -> None:
        self._source = source
        self._layer = layer
        self._limits = _limits(layer.valid_range, source.dtype)

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def grid(self) -> SourceGrid:
        return self._source.grid

    @property
    def dtype(self) -> str:
        return self._source.dtype

    @property
    def nodata(self) -> float | int | None:
        return self._layer.info.nodata

    def read(
        self, row: int, column: int, height: int, width: int
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]:
        data, valid = self._source.read(row, column, height, width)
        parts = [] if valid is None or self._layer.ignores_nodata else [valid]
        low, high = self._limits
        if low is not None:
            parts.append(data >= low)
        if high is not None:
            parts.append(data <= high)
        test = self._layer.not_produced
        if test is not None and test.high < 8 * data.dtype.itemsize:
            ones = (1 << (test.high - test.low + 1)) - 1
            parts.append(~np.isin((data >> test.low) & ones, list(test.values)))
        if not parts:
            return data, None
        together = np.logical_and.reduce(parts)
        return data, None if together.all() else together

    def close(self) -> None:
        self._source.close()


def _limits(
    valid_range: tuple[float, float] | None, dtype: str
) -> tuple[float | int | None, float | int | None]:
    """A range as numbers that pixels compare with in their own type; None where all fit."""
    if valid_range is None:
        return None, None
    low, high = valid_range
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return low, high
    limits = np.iinfo(kind)
    least, most = math.ceil(low), math.floor(high)
    # A range beyond the type on the wrong side holds no number of it: compare with the nearest
    # limit all the same, since a provider that states such a range has made a mistake.
    return (
        min(least, int(limits.max)) if least > limits.min else None,
        max(most, int(limits.min)) if most < limits.max else None,
    )


# ---------------------------------------------------------------- times


def parse_day(text: str) -> datetime | None:
    """`2020153` (year and day of the year) or `2020-06-01` as that day's start, UTC.

    >>> parse_day("2020153") == parse_day("2020-06-01")
    True
    """
    try:
        if re.fullmatch(r"\d{7}", text):
            year, day = int(text[:4]), int(text[4:])
            moment = datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=day - 1)
            return moment if day >= 1 and moment.year == year else None
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def period_from(start: datetime, period: Period | None) -> TimeSpan:
    """All of a product's period that begins at `start`; one day where it is not known.

    Periods of 8 and 16 days run on into the next year at its end, as the products do.
    """
    if period == "year":
        days = 366 if monthrange(start.year, 2)[1] == 29 else 365
    elif period == "month":
        days = monthrange(start.year, start.month)[1]
    else:
        days = period or 1
    start_us = us_from_datetime(start)
    return TimeSpan(start_us, start_us + days * 86_400_000_000 - 1)
