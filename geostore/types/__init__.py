"""The values that pass between rooms. No I/O, no heavy imports."""

from geostore.types.dataset import (
    CloudRule,
    Codec,
    DatasetDefinition,
    Resampling,
    ResolutionGroup,
    SchemeName,
    validate_name,
)
from geostore.types.geo import BBox, TimeSpan
from geostore.types.scene import IngestProgress, SceneRecord, SceneResult, SceneState, SceneStatus
from geostore.types.tile import (
    BLOCK_DTYPE,
    NULL_TIME,
    TILE_FIELDS,
    BandInfo,
    BandRole,
    BandStatistics,
    EncodedTile,
    GroupLayout,
    RowBatch,
    TileKey,
    TileMeta,
    TileRow,
    TileSchema,
)

__all__ = [
    "BLOCK_DTYPE",
    "NULL_TIME",
    "TILE_FIELDS",
    "BBox",
    "BandInfo",
    "BandRole",
    "BandStatistics",
    "CloudRule",
    "Codec",
    "DatasetDefinition",
    "EncodedTile",
    "GroupLayout",
    "IngestProgress",
    "Resampling",
    "ResolutionGroup",
    "RowBatch",
    "SceneRecord",
    "SceneResult",
    "SceneState",
    "SceneStatus",
    "SchemeName",
    "TileKey",
    "TileMeta",
    "TileRow",
    "TileSchema",
    "TimeSpan",
    "validate_name",
]
