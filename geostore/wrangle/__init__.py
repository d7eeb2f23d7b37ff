"""Operations over selections: reading tiles, and laying many out as one."""

from geostore.wrangle.lattice import Extent
from geostore.wrangle.mosaic import CellReader, Layer, Mosaic, Window
from geostore.wrangle.radiometry import Radiometry
from geostore.wrangle.reading import TileArray, in_threads, parse_bands, read_tile, unknown_name

__all__ = [
    "CellReader",
    "Extent",
    "Layer",
    "Mosaic",
    "Radiometry",
    "TileArray",
    "Window",
    "in_threads",
    "parse_bands",
    "read_tile",
    "unknown_name",
]
