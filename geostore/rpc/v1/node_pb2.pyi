from geostore.rpc.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AnswerKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ANSWER_KIND_UNSPECIFIED: _ClassVar[AnswerKind]
    ANSWER_KIND_DIGEST: _ClassVar[AnswerKind]
ANSWER_KIND_UNSPECIFIED: AnswerKind
ANSWER_KIND_DIGEST: AnswerKind

class StageTilesRequest(_message.Message):
    __slots__ = ("head", "start", "data")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    start: _common_pb2.TileStart
    data: bytes
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., start: _Optional[_Union[_common_pb2.TileStart, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class StageTilesResponse(_message.Message):
    __slots__ = ("checksums",)
    CHECKSUMS_FIELD_NUMBER: _ClassVar[int]
    checksums: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, checksums: _Optional[_Iterable[str]] = ...) -> None: ...

class ScenePublication(_message.Message):
    __slots__ = ("dataset_id", "scene", "version", "attempt", "cells", "replaced_version", "replaced_cells")
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    SCENE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    CELLS_FIELD_NUMBER: _ClassVar[int]
    REPLACED_VERSION_FIELD_NUMBER: _ClassVar[int]
    REPLACED_CELLS_FIELD_NUMBER: _ClassVar[int]
    dataset_id: str
    scene: str
    version: str
    attempt: int
    cells: _containers.RepeatedScalarFieldContainer[str]
    replaced_version: str
    replaced_cells: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, dataset_id: _Optional[str] = ..., scene: _Optional[str] = ..., version: _Optional[str] = ..., attempt: _Optional[int] = ..., cells: _Optional[_Iterable[str]] = ..., replaced_version: _Optional[str] = ..., replaced_cells: _Optional[_Iterable[str]] = ...) -> None: ...

class FindMissingCellsRequest(_message.Message):
    __slots__ = ("head", "publication")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    PUBLICATION_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    publication: ScenePublication
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., publication: _Optional[_Union[ScenePublication, _Mapping]] = ...) -> None: ...

class FindMissingCellsResponse(_message.Message):
    __slots__ = ("cells",)
    CELLS_FIELD_NUMBER: _ClassVar[int]
    cells: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, cells: _Optional[_Iterable[str]] = ...) -> None: ...

class PublishSceneRequest(_message.Message):
    __slots__ = ("head", "publication")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    PUBLICATION_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    publication: ScenePublication
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., publication: _Optional[_Union[ScenePublication, _Mapping]] = ...) -> None: ...

class PublishSceneResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ClearSceneRequest(_message.Message):
    __slots__ = ("head", "dataset_id", "scene", "version", "attempt", "cells")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    SCENE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    CELLS_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    dataset_id: str
    scene: str
    version: str
    attempt: int
    cells: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., dataset_id: _Optional[str] = ..., scene: _Optional[str] = ..., version: _Optional[str] = ..., attempt: _Optional[int] = ..., cells: _Optional[_Iterable[str]] = ...) -> None: ...

class ClearSceneResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReadSceneRecordRequest(_message.Message):
    __slots__ = ("head", "dataset_id", "scene")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    SCENE_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    dataset_id: str
    scene: str
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., dataset_id: _Optional[str] = ..., scene: _Optional[str] = ...) -> None: ...

class ReadSceneRecordResponse(_message.Message):
    __slots__ = ("record_json",)
    RECORD_JSON_FIELD_NUMBER: _ClassVar[int]
    record_json: bytes
    def __init__(self, record_json: _Optional[bytes] = ...) -> None: ...

class CopyRecordRequest(_message.Message):
    __slots__ = ("head", "name", "revision", "value")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    name: str
    revision: int
    value: bytes
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., name: _Optional[str] = ..., revision: _Optional[int] = ..., value: _Optional[bytes] = ...) -> None: ...

class CopyRecordResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LearnDatasetRequest(_message.Message):
    __slots__ = ("head", "definition_json")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_JSON_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    definition_json: bytes
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., definition_json: _Optional[bytes] = ...) -> None: ...

class LearnDatasetResponse(_message.Message):
    __slots__ = ("tiles_changed",)
    TILES_CHANGED_FIELD_NUMBER: _ClassVar[int]
    tiles_changed: int
    def __init__(self, tiles_changed: _Optional[int] = ...) -> None: ...

class ForgetDatasetRequest(_message.Message):
    __slots__ = ("head", "dataset_id", "name")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    dataset_id: str
    name: str
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., dataset_id: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class ForgetDatasetResponse(_message.Message):
    __slots__ = ("tiles",)
    TILES_FIELD_NUMBER: _ClassVar[int]
    tiles: int
    def __init__(self, tiles: _Optional[int] = ...) -> None: ...

class LeafQuestion(_message.Message):
    __slots__ = ("query_json", "slots", "after", "batch_rows")
    QUERY_JSON_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    BATCH_ROWS_FIELD_NUMBER: _ClassVar[int]
    query_json: bytes
    slots: bytes
    after: str
    batch_rows: int
    def __init__(self, query_json: _Optional[bytes] = ..., slots: _Optional[bytes] = ..., after: _Optional[str] = ..., batch_rows: _Optional[int] = ...) -> None: ...

class LeafQueryRequest(_message.Message):
    __slots__ = ("head", "question", "explain", "answer_kind", "read_quorum", "end_with_rows")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    ANSWER_KIND_FIELD_NUMBER: _ClassVar[int]
    READ_QUORUM_FIELD_NUMBER: _ClassVar[int]
    END_WITH_ROWS_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    question: LeafQuestion
    explain: bool
    answer_kind: AnswerKind
    read_quorum: int
    end_with_rows: bool
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., question: _Optional[_Union[LeafQuestion, _Mapping]] = ..., explain: bool = ..., answer_kind: _Optional[_Union[AnswerKind, str]] = ..., read_quorum: _Optional[int] = ..., end_with_rows: bool = ...) -> None: ...

class LeafQueryResponse(_message.Message):
    __slots__ = ("chunk", "end")
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    chunk: _common_pb2.RowsChunk
    end: _common_pb2.RowsEnd
    def __init__(self, chunk: _Optional[_Union[_common_pb2.RowsChunk, _Mapping]] = ..., end: _Optional[_Union[_common_pb2.RowsEnd, _Mapping]] = ...) -> None: ...

class LeafCountRequest(_message.Message):
    __slots__ = ("head", "question")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    question: LeafQuestion
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., question: _Optional[_Union[LeafQuestion, _Mapping]] = ...) -> None: ...

class LeafCountResponse(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class LeafSummarizeRequest(_message.Message):
    __slots__ = ("head", "question", "by")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    question: LeafQuestion
    by: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., question: _Optional[_Union[LeafQuestion, _Mapping]] = ..., by: _Optional[_Iterable[str]] = ...) -> None: ...

class LeafSummarizeResponse(_message.Message):
    __slots__ = ("groups", "end")
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    groups: _common_pb2.SummaryGroups
    end: _common_pb2.SummaryEnd
    def __init__(self, groups: _Optional[_Union[_common_pb2.SummaryGroups, _Mapping]] = ..., end: _Optional[_Union[_common_pb2.SummaryEnd, _Mapping]] = ...) -> None: ...

class LeafCoverageRequest(_message.Message):
    __slots__ = ("head", "question", "wanted_json")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    WANTED_JSON_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    question: LeafQuestion
    wanted_json: bytes
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., question: _Optional[_Union[LeafQuestion, _Mapping]] = ..., wanted_json: _Optional[bytes] = ...) -> None: ...

class LeafCoverageResponse(_message.Message):
    __slots__ = ("groups", "members", "end")
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    groups: _common_pb2.CoverageGroupsChunk
    members: _common_pb2.CoverageMembersChunk
    end: _common_pb2.CoverageEnd
    def __init__(self, groups: _Optional[_Union[_common_pb2.CoverageGroupsChunk, _Mapping]] = ..., members: _Optional[_Union[_common_pb2.CoverageMembersChunk, _Mapping]] = ..., end: _Optional[_Union[_common_pb2.CoverageEnd, _Mapping]] = ...) -> None: ...

class GetTileDetailsRequest(_message.Message):
    __slots__ = ("head", "keys")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    keys: _containers.RepeatedCompositeFieldContainer[_common_pb2.TileKey]
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., keys: _Optional[_Iterable[_Union[_common_pb2.TileKey, _Mapping]]] = ...) -> None: ...

class BandStatistics(_message.Message):
    __slots__ = ("minimum", "maximum", "mean", "p01", "p99")
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    P01_FIELD_NUMBER: _ClassVar[int]
    P99_FIELD_NUMBER: _ClassVar[int]
    minimum: float
    maximum: float
    mean: float
    p01: float
    p99: float
    def __init__(self, minimum: _Optional[float] = ..., maximum: _Optional[float] = ..., mean: _Optional[float] = ..., p01: _Optional[float] = ..., p99: _Optional[float] = ...) -> None: ...

class GetTileDetailsResponse(_message.Message):
    __slots__ = ("key", "block_table", "statistics", "cloud_histogram", "cloud_method", "checksum", "bytes", "properties_json", "provider_method", "bitmaps", "cloud_nodata")
    KEY_FIELD_NUMBER: _ClassVar[int]
    BLOCK_TABLE_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    CLOUD_HISTOGRAM_FIELD_NUMBER: _ClassVar[int]
    CLOUD_METHOD_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    PROPERTIES_JSON_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_METHOD_FIELD_NUMBER: _ClassVar[int]
    BITMAPS_FIELD_NUMBER: _ClassVar[int]
    CLOUD_NODATA_FIELD_NUMBER: _ClassVar[int]
    key: _common_pb2.TileKey
    block_table: bytes
    statistics: _containers.RepeatedCompositeFieldContainer[BandStatistics]
    cloud_histogram: _containers.RepeatedScalarFieldContainer[int]
    cloud_method: str
    checksum: str
    bytes: int
    properties_json: bytes
    provider_method: str
    bitmaps: bytes
    cloud_nodata: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, key: _Optional[_Union[_common_pb2.TileKey, _Mapping]] = ..., block_table: _Optional[bytes] = ..., statistics: _Optional[_Iterable[_Union[BandStatistics, _Mapping]]] = ..., cloud_histogram: _Optional[_Iterable[int]] = ..., cloud_method: _Optional[str] = ..., checksum: _Optional[str] = ..., bytes: _Optional[int] = ..., properties_json: _Optional[bytes] = ..., provider_method: _Optional[str] = ..., bitmaps: _Optional[bytes] = ..., cloud_nodata: _Optional[_Iterable[int]] = ...) -> None: ...

class WantedBlocks(_message.Message):
    __slots__ = ("key", "indices")
    KEY_FIELD_NUMBER: _ClassVar[int]
    INDICES_FIELD_NUMBER: _ClassVar[int]
    key: _common_pb2.TileKey
    indices: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, key: _Optional[_Union[_common_pb2.TileKey, _Mapping]] = ..., indices: _Optional[_Iterable[int]] = ...) -> None: ...

class ReadBlocksRequest(_message.Message):
    __slots__ = ("head", "wanted")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    wanted: _containers.RepeatedCompositeFieldContainer[WantedBlocks]
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., wanted: _Optional[_Iterable[_Union[WantedBlocks, _Mapping]]] = ...) -> None: ...

class BlockHead(_message.Message):
    __slots__ = ("tile", "index", "length", "fill", "checksum")
    TILE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    FILL_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    tile: int
    index: int
    length: int
    fill: int
    checksum: int
    def __init__(self, tile: _Optional[int] = ..., index: _Optional[int] = ..., length: _Optional[int] = ..., fill: _Optional[int] = ..., checksum: _Optional[int] = ...) -> None: ...

class ReadBlocksResponse(_message.Message):
    __slots__ = ("blocks", "data")
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    blocks: _containers.RepeatedCompositeFieldContainer[BlockHead]
    data: bytes
    def __init__(self, blocks: _Optional[_Iterable[_Union[BlockHead, _Mapping]]] = ..., data: _Optional[bytes] = ...) -> None: ...

class GetSlotSizesRequest(_message.Message):
    __slots__ = ("head",)
    HEAD_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ...) -> None: ...

class GetSlotSizesResponse(_message.Message):
    __slots__ = ("slots", "tiles", "bytes")
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    TILES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    slots: _containers.RepeatedScalarFieldContainer[int]
    tiles: _containers.RepeatedScalarFieldContainer[int]
    bytes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, slots: _Optional[_Iterable[int]] = ..., tiles: _Optional[_Iterable[int]] = ..., bytes: _Optional[_Iterable[int]] = ...) -> None: ...

class VerifyNodeRequest(_message.Message):
    __slots__ = ("head",)
    HEAD_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ...) -> None: ...

class VerifyProgress(_message.Message):
    __slots__ = ("tiles_done", "tiles_total")
    TILES_DONE_FIELD_NUMBER: _ClassVar[int]
    TILES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    tiles_done: int
    tiles_total: int
    def __init__(self, tiles_done: _Optional[int] = ..., tiles_total: _Optional[int] = ...) -> None: ...

class VerifyProblem(_message.Message):
    __slots__ = ("kind", "path", "message")
    KIND_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    path: str
    message: str
    def __init__(self, kind: _Optional[str] = ..., path: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class VerifyEnd(_message.Message):
    __slots__ = ("tiles", "bytes", "problems_total")
    TILES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    tiles: int
    bytes: int
    problems_total: int
    def __init__(self, tiles: _Optional[int] = ..., bytes: _Optional[int] = ..., problems_total: _Optional[int] = ...) -> None: ...

class VerifyNodeResponse(_message.Message):
    __slots__ = ("progress", "problem", "end")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    progress: VerifyProgress
    problem: VerifyProblem
    end: VerifyEnd
    def __init__(self, progress: _Optional[_Union[VerifyProgress, _Mapping]] = ..., problem: _Optional[_Union[VerifyProblem, _Mapping]] = ..., end: _Optional[_Union[VerifyEnd, _Mapping]] = ...) -> None: ...

class NoteLostTilesRequest(_message.Message):
    __slots__ = ("head", "dataset_id", "scene", "version", "cells")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    SCENE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CELLS_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    dataset_id: str
    scene: str
    version: str
    cells: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., dataset_id: _Optional[str] = ..., scene: _Optional[str] = ..., version: _Optional[str] = ..., cells: _Optional[_Iterable[str]] = ...) -> None: ...

class NoteLostTilesResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
