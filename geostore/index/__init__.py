"""The catalog: what a node remembers of its tiles, found by place, time, cloud and coverage."""

from geostore.index.catalog import LmdbCatalog, open_catalog
from geostore.index.entry import (
    CatalogEntry,
    DatasetSummary,
    Record,
    StagedTile,
    TileDetails,
    entry_from,
)
from geostore.index.face import BATCH_ROWS, Catalog, NodesOfSlot, RecordChange

__all__ = [
    "BATCH_ROWS",
    "Catalog",
    "CatalogEntry",
    "DatasetSummary",
    "LmdbCatalog",
    "NodesOfSlot",
    "Record",
    "RecordChange",
    "StagedTile",
    "TileDetails",
    "entry_from",
    "open_catalog",
]
