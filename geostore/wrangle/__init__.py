"""Operations over selections: reading tiles, and laying many out as one."""

from geostore.wrangle.fetching import read_ahead
from geostore.wrangle.lattice import Extent
from geostore.wrangle.mosaic import CellReader, Layer, Mosaic, Window
from geostore.wrangle.radiometry import Radiometry
from geostore.wrangle.reading import (
    Fetched,
    TileArray,
    in_threads,
    parse_bands,
    plan_bands,
    read_tile,
    unknown_name,
)

__all__ = [
    "CellReader",
    "Extent",
    "Fetched",
    "Layer",
    "Mosaic",
    "Radiometry",
    "TileArray",
    "Window",
    "in_threads",
    "parse_bands",
    "plan_bands",
    "read_ahead",
    "read_tile",
    "unknown_name",
]
