from geostore.rpc.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class QueryRequest(_message.Message):
    __slots__ = ("head", "query_json", "after", "explain", "batch_rows", "read_quorum", "end_with_rows")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    QUERY_JSON_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    BATCH_ROWS_FIELD_NUMBER: _ClassVar[int]
    READ_QUORUM_FIELD_NUMBER: _ClassVar[int]
    END_WITH_ROWS_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    query_json: bytes
    after: str
    explain: bool
    batch_rows: int
    read_quorum: int
    end_with_rows: bool
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., query_json: _Optional[bytes] = ..., after: _Optional[str] = ..., explain: bool = ..., batch_rows: _Optional[int] = ..., read_quorum: _Optional[int] = ..., end_with_rows: bool = ...) -> None: ...

class QueryResponse(_message.Message):
    __slots__ = ("chunk", "end")
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    chunk: _common_pb2.RowsChunk
    end: _common_pb2.RowsEnd
    def __init__(self, chunk: _Optional[_Union[_common_pb2.RowsChunk, _Mapping]] = ..., end: _Optional[_Union[_common_pb2.RowsEnd, _Mapping]] = ...) -> None: ...

class CountRequest(_message.Message):
    __slots__ = ("head", "query_json", "read_quorum")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    QUERY_JSON_FIELD_NUMBER: _ClassVar[int]
    READ_QUORUM_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    query_json: bytes
    read_quorum: int
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., query_json: _Optional[bytes] = ..., read_quorum: _Optional[int] = ...) -> None: ...

class CountResponse(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class SummarizeRequest(_message.Message):
    __slots__ = ("head", "query_json", "by", "read_quorum")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    QUERY_JSON_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    READ_QUORUM_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    query_json: bytes
    by: _containers.RepeatedScalarFieldContainer[str]
    read_quorum: int
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., query_json: _Optional[bytes] = ..., by: _Optional[_Iterable[str]] = ..., read_quorum: _Optional[int] = ...) -> None: ...

class SummarizeResponse(_message.Message):
    __slots__ = ("groups", "end")
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    groups: _common_pb2.SummaryGroups
    end: _common_pb2.SummaryEnd
    def __init__(self, groups: _Optional[_Union[_common_pb2.SummaryGroups, _Mapping]] = ..., end: _Optional[_Union[_common_pb2.SummaryEnd, _Mapping]] = ...) -> None: ...

class SearchCoverageRequest(_message.Message):
    __slots__ = ("head", "query_json", "wanted_json")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    QUERY_JSON_FIELD_NUMBER: _ClassVar[int]
    WANTED_JSON_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    query_json: bytes
    wanted_json: bytes
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., query_json: _Optional[bytes] = ..., wanted_json: _Optional[bytes] = ...) -> None: ...

class SearchCoverageResponse(_message.Message):
    __slots__ = ("groups", "members", "end")
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    groups: _common_pb2.CoverageGroupsChunk
    members: _common_pb2.CoverageMembersChunk
    end: _common_pb2.CoverageEnd
    def __init__(self, groups: _Optional[_Union[_common_pb2.CoverageGroupsChunk, _Mapping]] = ..., members: _Optional[_Union[_common_pb2.CoverageMembersChunk, _Mapping]] = ..., end: _Optional[_Union[_common_pb2.CoverageEnd, _Mapping]] = ...) -> None: ...

class ListDatasetsRequest(_message.Message):
    __slots__ = ("head",)
    HEAD_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ...) -> None: ...

class ListDatasetsResponse(_message.Message):
    __slots__ = ("definitions_json",)
    DEFINITIONS_JSON_FIELD_NUMBER: _ClassVar[int]
    definitions_json: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, definitions_json: _Optional[_Iterable[bytes]] = ...) -> None: ...

class GetDatasetRequest(_message.Message):
    __slots__ = ("head", "name")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    name: str
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., name: _Optional[str] = ...) -> None: ...

class GetDatasetResponse(_message.Message):
    __slots__ = ("definition_json",)
    DEFINITION_JSON_FIELD_NUMBER: _ClassVar[int]
    definition_json: bytes
    def __init__(self, definition_json: _Optional[bytes] = ...) -> None: ...

class CreateDatasetRequest(_message.Message):
    __slots__ = ("head", "definition_json")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_JSON_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    definition_json: bytes
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., definition_json: _Optional[bytes] = ...) -> None: ...

class CreateDatasetResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReplaceDatasetRequest(_message.Message):
    __slots__ = ("head", "old_json", "new_json")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    OLD_JSON_FIELD_NUMBER: _ClassVar[int]
    NEW_JSON_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    old_json: bytes
    new_json: bytes
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., old_json: _Optional[bytes] = ..., new_json: _Optional[bytes] = ...) -> None: ...

class ReplaceDatasetResponse(_message.Message):
    __slots__ = ("tiles_changed",)
    TILES_CHANGED_FIELD_NUMBER: _ClassVar[int]
    tiles_changed: int
    def __init__(self, tiles_changed: _Optional[int] = ...) -> None: ...

class DeleteDatasetRequest(_message.Message):
    __slots__ = ("head", "name")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    name: str
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., name: _Optional[str] = ...) -> None: ...

class DeleteDatasetResponse(_message.Message):
    __slots__ = ("tiles",)
    TILES_FIELD_NUMBER: _ClassVar[int]
    tiles: int
    def __init__(self, tiles: _Optional[int] = ...) -> None: ...

class BeginSceneRequest(_message.Message):
    __slots__ = ("head", "definition_json", "scene", "version", "cells", "replace", "path", "reader", "holder")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_JSON_FIELD_NUMBER: _ClassVar[int]
    SCENE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CELLS_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    READER_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    definition_json: bytes
    scene: str
    version: str
    cells: _containers.RepeatedScalarFieldContainer[str]
    replace: bool
    path: str
    reader: str
    holder: str
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., definition_json: _Optional[bytes] = ..., scene: _Optional[str] = ..., version: _Optional[str] = ..., cells: _Optional[_Iterable[str]] = ..., replace: bool = ..., path: _Optional[str] = ..., reader: _Optional[str] = ..., holder: _Optional[str] = ...) -> None: ...

class BeginSceneResponse(_message.Message):
    __slots__ = ("unchanged", "attempt", "record_json", "lease_s")
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    RECORD_JSON_FIELD_NUMBER: _ClassVar[int]
    LEASE_S_FIELD_NUMBER: _ClassVar[int]
    unchanged: bool
    attempt: int
    record_json: bytes
    lease_s: float
    def __init__(self, unchanged: bool = ..., attempt: _Optional[int] = ..., record_json: _Optional[bytes] = ..., lease_s: _Optional[float] = ...) -> None: ...

class PutTilesRequest(_message.Message):
    __slots__ = ("head", "start", "data")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    start: _common_pb2.TileStart
    data: bytes
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., start: _Optional[_Union[_common_pb2.TileStart, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class PutTilesResponse(_message.Message):
    __slots__ = ("checksums",)
    CHECKSUMS_FIELD_NUMBER: _ClassVar[int]
    checksums: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, checksums: _Optional[_Iterable[str]] = ...) -> None: ...

class CommitSceneRequest(_message.Message):
    __slots__ = ("head", "dataset_id", "scene", "version", "attempt", "cells", "bytes_total", "properties_json")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    SCENE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    CELLS_FIELD_NUMBER: _ClassVar[int]
    BYTES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    PROPERTIES_JSON_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    dataset_id: str
    scene: str
    version: str
    attempt: int
    cells: _containers.RepeatedScalarFieldContainer[str]
    bytes_total: int
    properties_json: bytes
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., dataset_id: _Optional[str] = ..., scene: _Optional[str] = ..., version: _Optional[str] = ..., attempt: _Optional[int] = ..., cells: _Optional[_Iterable[str]] = ..., bytes_total: _Optional[int] = ..., properties_json: _Optional[bytes] = ...) -> None: ...

class CommitSceneResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AbortSceneRequest(_message.Message):
    __slots__ = ("head", "dataset_id", "scene", "version", "attempt", "holder")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    SCENE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    dataset_id: str
    scene: str
    version: str
    attempt: int
    holder: str
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., dataset_id: _Optional[str] = ..., scene: _Optional[str] = ..., version: _Optional[str] = ..., attempt: _Optional[int] = ..., holder: _Optional[str] = ...) -> None: ...

class AbortSceneResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class KeepSceneRequest(_message.Message):
    __slots__ = ("head", "dataset_id", "scene", "version", "attempt", "holder")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    SCENE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    dataset_id: str
    scene: str
    version: str
    attempt: int
    holder: str
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., dataset_id: _Optional[str] = ..., scene: _Optional[str] = ..., version: _Optional[str] = ..., attempt: _Optional[int] = ..., holder: _Optional[str] = ...) -> None: ...

class KeepSceneResponse(_message.Message):
    __slots__ = ("lease_s",)
    LEASE_S_FIELD_NUMBER: _ClassVar[int]
    lease_s: float
    def __init__(self, lease_s: _Optional[float] = ...) -> None: ...

class GetSceneRecordRequest(_message.Message):
    __slots__ = ("head", "dataset_id", "scene")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    SCENE_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    dataset_id: str
    scene: str
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., dataset_id: _Optional[str] = ..., scene: _Optional[str] = ...) -> None: ...

class GetSceneRecordResponse(_message.Message):
    __slots__ = ("record_json",)
    RECORD_JSON_FIELD_NUMBER: _ClassVar[int]
    record_json: bytes
    def __init__(self, record_json: _Optional[bytes] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ("head",)
    HEAD_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ...) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("cluster_id", "epoch", "replicas", "created_us", "format_version", "datasets", "scenes", "tiles", "bytes", "slots_used", "nodes", "slots_missing")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    CREATED_US_FIELD_NUMBER: _ClassVar[int]
    FORMAT_VERSION_FIELD_NUMBER: _ClassVar[int]
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    SCENES_FIELD_NUMBER: _ClassVar[int]
    TILES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SLOTS_USED_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    SLOTS_MISSING_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    epoch: int
    replicas: int
    created_us: int
    format_version: int
    datasets: int
    scenes: int
    tiles: int
    bytes: int
    slots_used: int
    nodes: _containers.RepeatedCompositeFieldContainer[_common_pb2.NodeStatus]
    slots_missing: int
    def __init__(self, cluster_id: _Optional[str] = ..., epoch: _Optional[int] = ..., replicas: _Optional[int] = ..., created_us: _Optional[int] = ..., format_version: _Optional[int] = ..., datasets: _Optional[int] = ..., scenes: _Optional[int] = ..., tiles: _Optional[int] = ..., bytes: _Optional[int] = ..., slots_used: _Optional[int] = ..., nodes: _Optional[_Iterable[_Union[_common_pb2.NodeStatus, _Mapping]]] = ..., slots_missing: _Optional[int] = ...) -> None: ...
