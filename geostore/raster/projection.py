"""PROJ as this room uses it: CRSs parsed once, one transformer a thread, arrays in and out."""

from __future__ import annotations

import threading
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError

from geostore.errors import UnreadableSourceError

__all__ = ["parse_crs", "project", "transformer", "whole_turn"]

_Floats = npt.NDArray[np.float64]
_TRANSFORMERS_KEPT = 64
_local = threading.local()


@lru_cache(maxsize=256)
def parse_crs(text: str) -> CRS:
    """A CRS from WKT or an authority's code.

    Raises:
        UnreadableSourceError: PROJ cannot use it.
    """
    try:
        return CRS.from_user_input(text)
    except CRSError as error:
        raise UnreadableSourceError(f"CRS {text[:120]!r}: PROJ cannot use it ({error})") from error


def whole_turn(crs: CRS) -> float:
    """A whole turn in the CRS's longitude unit, or 0 where x is not a longitude."""
    if not crs.is_geographic:
        return 0.0
    factor = float(crs.axis_info[0].unit_conversion_factor)  # radians a unit
    return 2.0 * np.pi / factor if factor > 0 else 0.0


def transformer(source_crs: str, target_crs: str) -> Transformer:
    """A transformer of this thread's own (PROJ contexts must not be shared); x before y.

    Raises:
        UnreadableSourceError: PROJ cannot use one of them, or finds no way between them.
    """
    cache: dict[tuple[str, str], Transformer] = _local.__dict__.setdefault("transformers", {})
    key = (source_crs, target_crs)
    if key not in cache:
        if len(cache) >= _TRANSFORMERS_KEPT:
            cache.clear()
        source, target = parse_crs(source_crs), parse_crs(target_crs)
        try:
            cache[key] = Transformer.from_crs(source, target, always_xy=True)
        except ProjError as error:
            raise UnreadableSourceError(
                f"PROJ cannot use CRS {source_crs[:120]!r} with {target_crs[:120]!r} ({error})"
            ) from error
    return cache[key]


def project(way: Transformer, x: _Floats, y: _Floats) -> tuple[_Floats, _Floats]:
    """Transformed coordinates, of the shape of `x`; infinite where PROJ has no answer.

    pyproj takes an array of one element for a scalar, which some versions of numpy refuse.
    """
    if x.size != 1:
        moved_x, moved_y = way.transform(x, y)
    else:
        pair_x, pair_y = way.transform(np.repeat(x.ravel(), 2), np.repeat(y.ravel(), 2))
        moved_x, moved_y = pair_x[:1].reshape(x.shape), pair_y[:1].reshape(y.shape)
    return np.asarray(moved_x, dtype=np.float64), np.asarray(moved_y, dtype=np.float64)
