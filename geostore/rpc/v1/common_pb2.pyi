from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RequestHead(_message.Message):
    __slots__ = ("protocol_version", "cluster_id", "ring_epoch", "request_id", "consistency_epoch")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    RING_EPOCH_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_EPOCH_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    cluster_id: str
    ring_epoch: int
    request_id: str
    consistency_epoch: int
    def __init__(self, protocol_version: _Optional[int] = ..., cluster_id: _Optional[str] = ..., ring_epoch: _Optional[int] = ..., request_id: _Optional[str] = ..., consistency_epoch: _Optional[int] = ...) -> None: ...

class ErrorDetail(_message.Message):
    __slots__ = ("code", "message", "retry_after_s", "ring_epoch")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    RING_EPOCH_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    retry_after_s: float
    ring_epoch: int
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., retry_after_s: _Optional[float] = ..., ring_epoch: _Optional[int] = ...) -> None: ...

class TileKey(_message.Message):
    __slots__ = ("dataset_id", "scene", "version", "geocode")
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    SCENE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    GEOCODE_FIELD_NUMBER: _ClassVar[int]
    dataset_id: str
    scene: str
    version: str
    geocode: str
    def __init__(self, dataset_id: _Optional[str] = ..., scene: _Optional[str] = ..., version: _Optional[str] = ..., geocode: _Optional[str] = ...) -> None: ...

class TileStart(_message.Message):
    __slots__ = ("key", "checksum", "size", "attempt")
    KEY_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    key: TileKey
    checksum: str
    size: int
    attempt: int
    def __init__(self, key: _Optional[_Union[TileKey, _Mapping]] = ..., checksum: _Optional[str] = ..., size: _Optional[int] = ..., attempt: _Optional[int] = ...) -> None: ...

class RowsChunk(_message.Message):
    __slots__ = ("rows", "dictionary", "row_count", "cursor", "end")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    DICTIONARY_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    rows: bytes
    dictionary: bytes
    row_count: int
    cursor: str
    end: RowsEnd
    def __init__(self, rows: _Optional[bytes] = ..., dictionary: _Optional[bytes] = ..., row_count: _Optional[int] = ..., cursor: _Optional[str] = ..., end: _Optional[_Union[RowsEnd, _Mapping]] = ...) -> None: ...

class RowsEnd(_message.Message):
    __slots__ = ("rows_total", "explain_json", "replica_digest")
    ROWS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_JSON_FIELD_NUMBER: _ClassVar[int]
    REPLICA_DIGEST_FIELD_NUMBER: _ClassVar[int]
    rows_total: int
    explain_json: bytes
    replica_digest: bytes
    def __init__(self, rows_total: _Optional[int] = ..., explain_json: _Optional[bytes] = ..., replica_digest: _Optional[bytes] = ...) -> None: ...

class SummaryGroups(_message.Message):
    __slots__ = ("group_count", "keys", "tiles", "bytes", "time_first", "time_last", "cloud_cover_sum", "cloud_cover_min", "cloud_cover_max", "cloud_cover_unknown", "cloud_cover_histogram", "pixel_coverage_sum", "pixel_coverage_min", "pixel_coverage_max", "pixel_coverage_unknown", "pixel_coverage_histogram")
    GROUP_COUNT_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    TILES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    TIME_FIRST_FIELD_NUMBER: _ClassVar[int]
    TIME_LAST_FIELD_NUMBER: _ClassVar[int]
    CLOUD_COVER_SUM_FIELD_NUMBER: _ClassVar[int]
    CLOUD_COVER_MIN_FIELD_NUMBER: _ClassVar[int]
    CLOUD_COVER_MAX_FIELD_NUMBER: _ClassVar[int]
    CLOUD_COVER_UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    CLOUD_COVER_HISTOGRAM_FIELD_NUMBER: _ClassVar[int]
    PIXEL_COVERAGE_SUM_FIELD_NUMBER: _ClassVar[int]
    PIXEL_COVERAGE_MIN_FIELD_NUMBER: _ClassVar[int]
    PIXEL_COVERAGE_MAX_FIELD_NUMBER: _ClassVar[int]
    PIXEL_COVERAGE_UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    PIXEL_COVERAGE_HISTOGRAM_FIELD_NUMBER: _ClassVar[int]
    group_count: int
    keys: _containers.RepeatedCompositeFieldContainer[SummaryKeyColumn]
    tiles: bytes
    bytes: bytes
    time_first: bytes
    time_last: bytes
    cloud_cover_sum: bytes
    cloud_cover_min: bytes
    cloud_cover_max: bytes
    cloud_cover_unknown: bytes
    cloud_cover_histogram: bytes
    pixel_coverage_sum: bytes
    pixel_coverage_min: bytes
    pixel_coverage_max: bytes
    pixel_coverage_unknown: bytes
    pixel_coverage_histogram: bytes
    def __init__(self, group_count: _Optional[int] = ..., keys: _Optional[_Iterable[_Union[SummaryKeyColumn, _Mapping]]] = ..., tiles: _Optional[bytes] = ..., bytes: _Optional[bytes] = ..., time_first: _Optional[bytes] = ..., time_last: _Optional[bytes] = ..., cloud_cover_sum: _Optional[bytes] = ..., cloud_cover_min: _Optional[bytes] = ..., cloud_cover_max: _Optional[bytes] = ..., cloud_cover_unknown: _Optional[bytes] = ..., cloud_cover_histogram: _Optional[bytes] = ..., pixel_coverage_sum: _Optional[bytes] = ..., pixel_coverage_min: _Optional[bytes] = ..., pixel_coverage_max: _Optional[bytes] = ..., pixel_coverage_unknown: _Optional[bytes] = ..., pixel_coverage_histogram: _Optional[bytes] = ...) -> None: ...

class SummaryKeyColumn(_message.Message):
    __slots__ = ("name", "values", "codes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    name: str
    values: _containers.RepeatedScalarFieldContainer[str]
    codes: bytes
    def __init__(self, name: _Optional[str] = ..., values: _Optional[_Iterable[str]] = ..., codes: _Optional[bytes] = ...) -> None: ...

class SummaryEnd(_message.Message):
    __slots__ = ("groups_total",)
    GROUPS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    groups_total: int
    def __init__(self, groups_total: _Optional[int] = ...) -> None: ...

class CoverageGroupsChunk(_message.Message):
    __slots__ = ("texts_json", "dataset_id", "dataset", "geocode", "start_us", "end_us", "tiles", "lower", "upper", "total", "scene")
    TEXTS_JSON_FIELD_NUMBER: _ClassVar[int]
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    GEOCODE_FIELD_NUMBER: _ClassVar[int]
    START_US_FIELD_NUMBER: _ClassVar[int]
    END_US_FIELD_NUMBER: _ClassVar[int]
    TILES_FIELD_NUMBER: _ClassVar[int]
    LOWER_FIELD_NUMBER: _ClassVar[int]
    UPPER_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    SCENE_FIELD_NUMBER: _ClassVar[int]
    texts_json: bytes
    dataset_id: bytes
    dataset: bytes
    geocode: bytes
    start_us: bytes
    end_us: bytes
    tiles: bytes
    lower: bytes
    upper: bytes
    total: bytes
    scene: bytes
    def __init__(self, texts_json: _Optional[bytes] = ..., dataset_id: _Optional[bytes] = ..., dataset: _Optional[bytes] = ..., geocode: _Optional[bytes] = ..., start_us: _Optional[bytes] = ..., end_us: _Optional[bytes] = ..., tiles: _Optional[bytes] = ..., lower: _Optional[bytes] = ..., upper: _Optional[bytes] = ..., total: _Optional[bytes] = ..., scene: _Optional[bytes] = ...) -> None: ...

class CoverageMembersChunk(_message.Message):
    __slots__ = ("rows", "group")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    rows: bytes
    group: bytes
    def __init__(self, rows: _Optional[bytes] = ..., group: _Optional[bytes] = ...) -> None: ...

class CoverageEnd(_message.Message):
    __slots__ = ("groups_total", "members_total")
    GROUPS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    groups_total: int
    members_total: int
    def __init__(self, groups_total: _Optional[int] = ..., members_total: _Optional[int] = ...) -> None: ...

class NodeStatus(_message.Message):
    __slots__ = ("id", "name", "address", "zone", "state", "epoch", "slots", "slots_first", "slots_used", "datasets", "scenes", "tiles", "bytes", "disk_free_bytes", "read_only_reason", "version", "clock_us", "uptime_s", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIRST_FIELD_NUMBER: _ClassVar[int]
    SLOTS_USED_FIELD_NUMBER: _ClassVar[int]
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    SCENES_FIELD_NUMBER: _ClassVar[int]
    TILES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_REASON_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CLOCK_US_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    address: str
    zone: str
    state: str
    epoch: int
    slots: int
    slots_first: int
    slots_used: int
    datasets: int
    scenes: int
    tiles: int
    bytes: int
    disk_free_bytes: int
    read_only_reason: str
    version: str
    clock_us: int
    uptime_s: float
    error: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., address: _Optional[str] = ..., zone: _Optional[str] = ..., state: _Optional[str] = ..., epoch: _Optional[int] = ..., slots: _Optional[int] = ..., slots_first: _Optional[int] = ..., slots_used: _Optional[int] = ..., datasets: _Optional[int] = ..., scenes: _Optional[int] = ..., tiles: _Optional[int] = ..., bytes: _Optional[int] = ..., disk_free_bytes: _Optional[int] = ..., read_only_reason: _Optional[str] = ..., version: _Optional[str] = ..., clock_us: _Optional[int] = ..., uptime_s: _Optional[float] = ..., error: _Optional[str] = ...) -> None: ...
