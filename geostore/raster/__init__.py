"""Raster files, footprints, warping and masks: with scenes and tiles, all that sees rasterio.

Names are imported on first use, so that `import geostore` stays light. Modules that hold one
function of their own name (`footprint`, `warp`) are imported by module.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geostore.raster.messages import block_cache_of, read_checked
    from geostore.raster.source import (
        BandHeader,
        PixelSource,
        RasterBand,
        RasterFile,
        RasterHeader,
        SourceGrid,
    )

_MESSAGES = ("block_cache_of", "read_checked")

__all__ = [
    "BandHeader",
    "PixelSource",
    "RasterBand",
    "RasterFile",
    "RasterHeader",
    "SourceGrid",
    "block_cache_of",
    "read_checked",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "messages" if name in _MESSAGES else "source"
    value = getattr(import_module(f"geostore.raster.{module}"), name)
    globals()[name] = value
    return value
