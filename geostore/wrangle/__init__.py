"""Operations over selections: reading tiles, and laying many out as one."""

from geostore.wrangle.band_names import BandNames, check_band_names
from geostore.wrangle.covering import Counted, count_covered
from geostore.wrangle.fetching import read_ahead
from geostore.wrangle.lattice import Extent
from geostore.wrangle.mosaic import CellReader, Layer, Mosaic, Window
from geostore.wrangle.radiometry import Radiometry
from geostore.wrangle.reading import (
    BandPlan,
    Fetched,
    TileArray,
    in_threads,
    parse_bands,
    plan_bands,
    read_tile,
    unknown_name,
)

__all__ = [
    "BandNames",
    "BandPlan",
    "CellReader",
    "Counted",
    "Extent",
    "Fetched",
    "Layer",
    "Mosaic",
    "Radiometry",
    "TileArray",
    "Window",
    "check_band_names",
    "count_covered",
    "in_threads",
    "parse_bands",
    "plan_bands",
    "read_ahead",
    "read_tile",
    "unknown_name",
]
