"""What stored numbers mean, and when they may stand side by side.

Stored numbers are the source's; physical = stored * scale + offset. Since scenes of one
product can differ in both (Sentinel-2 adds 1000 counts from baseline N0400 on), numbers of
several tiles may only meet as stored where they mean the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInputError
from geostore.types import BandInfo

__all__ = ["AS_STORED", "Radiometry", "check_same_meaning", "common_dtype"]

_Array = npt.NDArray[Any]
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Radiometry:
    """What a read does to stored numbers; nothing unless asked."""

    harmonize: bool = False
    """Add the offset in whole counts, so that offset becomes 0: 16-bit stays 16-bit. Counts
    that would fall below the dtype's range stop at its end. Bands whose offset is not a whole
    number of counts stay as stored."""
    reflectance: bool = False
    """float32 stored * scale + offset; NaN where not valid."""

    def meaning(self, info: BandInfo) -> tuple[float, float]:
        """(scale, offset) of the numbers that a read gives for a band."""
        if self.reflectance:
            return 1.0, 0.0
        if self.harmonize and _whole_counts(info) is not None:
            return info.scale, 0.0
        return info.scale, info.offset

    def dtype(self, info: BandInfo) -> np.dtype[Any]:
        """The dtype of the numbers that a read gives for a band."""
        return np.dtype(np.float32) if self.reflectance else np.dtype(info.dtype)

    def changes(self, info: BandInfo) -> bool:
        """Whether a read gives other numbers than the stored ones."""
        return self.reflectance or (self.harmonize and _whole_counts(info) not in (None, 0))

    def apply(
        self, data: _Array, valid: _Mask | None, info: BandInfo, *, avoid: float | None = None
    ) -> _Array:
        """`data` as asked: (height, width) of the band's dtype, changed in place or new.

        Args:
            data: stored numbers, or their mean.
            valid: True where valid, None where all are.
            info: the band's.
            avoid: a value that no valid pixel may come out as (nodata, where no mask goes
                with the array): such a pixel is one count higher.

        Raises:
            InvalidInputError: the offset does not fit the dtype.
        """
        if self.reflectance:
            physical = np.empty(data.shape, np.float32)
            # In float64 where data is an integer of over 16 bits; rounded once, to float32.
            np.multiply(data, info.scale, out=physical, casting="same_kind")
            if info.offset:
                physical += np.float32(info.offset)
            if valid is not None:
                physical[~valid] = np.nan
            return physical
        if self.changes(info):
            _shift(data, info)
            if avoid is not None:
                data[data == avoid] = avoid + 1
            if valid is not None:
                data[~valid] = info.fill
        return data


AS_STORED = Radiometry()


def _whole_counts(info: BandInfo) -> int | None:
    """The offset in counts, where it is a whole number of them."""
    counts = info.offset / info.scale
    whole = round(counts)
    return whole if abs(counts - whole) <= 1e-6 * max(1.0, abs(counts)) else None


def _shift(data: _Array, info: BandInfo) -> None:
    """Adds the band's offset in counts in place, stopping at the dtype's ends."""
    counts = _whole_counts(info)
    assert counts is not None
    if data.dtype.kind == "f":
        data += data.dtype.type(counts)
        return
    limits = np.iinfo(data.dtype)
    if abs(counts) > int(limits.max) - int(limits.min):
        raise InvalidInputError(
            f"band {info.name}: an offset of {counts} counts does not fit {data.dtype};"
            " use reflectance=True"
        )
    step = data.dtype.type(abs(counts)) if abs(counts) <= int(limits.max) else None
    if step is None:  # a signed type whose span is wider than its largest value
        data[...] = np.clip(data.astype(np.int64) + counts, limits.min, limits.max)
    elif counts < 0:
        np.maximum(data, data.dtype.type(int(limits.min) - counts), out=data)
        data -= step
    else:
        np.minimum(data, data.dtype.type(int(limits.max) - counts), out=data)
        data += step


def common_dtype(dtypes: Iterable[np.dtype[Any]], what: str) -> np.dtype[Any]:
    """The dtype that holds all of several dtypes exactly.

    >>> common_dtype([np.dtype("uint16"), np.dtype("int16")], "bands").name
    'int32'

    Raises:
        InvalidInputError: only float64 would (and none of them is float64), or nothing.
    """
    different = sorted(set(dtypes), key=lambda dtype: dtype.name)
    together = np.result_type(*different)
    if together == np.float64 and together not in different:
        names = ", ".join(dtype.name for dtype in different)
        raise InvalidInputError(
            f"{what} have the dtypes {names}, which no integer or float32 holds exactly:"
            " read them one by one, or with reflectance=True"
        )
    return together


def check_same_meaning(name: str, infos: Iterable[BandInfo], radiometry: Radiometry) -> None:
    """Checks that numbers of one band from several tiles may stand side by side.

    Raises:
        InvalidInputError: their scales or offsets differ after what `radiometry` does.
    """
    meanings = sorted({radiometry.meaning(info) for info in infos})
    if len(meanings) > 1:
        shown = "; ".join(f"scale {scale:g}, offset {offset:g}" for scale, offset in meanings[:4])
        remedy = (
            "reflectance=True" if radiometry.harmonize else "harmonize=True or reflectance=True"
        )
        raise InvalidInputError(
            f"band {name!r}: the tiles' numbers differ in meaning ({shown}); read together they"
            f" need {remedy}"
        )
