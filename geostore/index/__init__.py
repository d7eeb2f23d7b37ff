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
from geostore.index.face import (
    BATCH_ROWS,
    NO_ROWS,
    Catalog,
    NodesOfSlot,
    RecordChange,
    RowIds,
)

__all__ = [
    "BATCH_ROWS",
    "NO_ROWS",
    "Catalog",
    "CatalogEntry",
    "DatasetSummary",
    "LmdbCatalog",
    "NodesOfSlot",
    "Record",
    "RecordChange",
    "RowIds",
    "StagedTile",
    "TileDetails",
    "entry_from",
    "open_catalog",
]
