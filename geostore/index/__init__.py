"""The catalog: what a node remembers of its tiles, found by place, time, cloud and coverage."""

from geostore.index.catalog import LogCatalog, open_catalog
from geostore.index.conversion import has_old_catalog
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
from geostore.index.packed import PackedTiles

__all__ = [
    "BATCH_ROWS",
    "NO_ROWS",
    "Catalog",
    "CatalogEntry",
    "DatasetSummary",
    "LogCatalog",
    "NodesOfSlot",
    "PackedTiles",
    "Record",
    "RecordChange",
    "RowIds",
    "StagedTile",
    "TileDetails",
    "entry_from",
    "has_old_catalog",
    "open_catalog",
]
