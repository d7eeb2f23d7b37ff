from geostore.rpc.v1 import common_pb2 as _common_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetRingRequest(_message.Message):
    __slots__ = ("head",)
    HEAD_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ...) -> None: ...

class GetRingResponse(_message.Message):
    __slots__ = ("ring_json", "node_id")
    RING_JSON_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ring_json: bytes
    node_id: str
    def __init__(self, ring_json: _Optional[bytes] = ..., node_id: _Optional[str] = ...) -> None: ...

class TakeRingRequest(_message.Message):
    __slots__ = ("head", "ring_json")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    RING_JSON_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    ring_json: bytes
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., ring_json: _Optional[bytes] = ...) -> None: ...

class TakeRingResponse(_message.Message):
    __slots__ = ("epoch",)
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    def __init__(self, epoch: _Optional[int] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("head", "node_id", "name", "address", "zone")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    node_id: str
    name: str
    address: str
    zone: str
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ..., node_id: _Optional[str] = ..., name: _Optional[str] = ..., address: _Optional[str] = ..., zone: _Optional[str] = ...) -> None: ...

class JoinResponse(_message.Message):
    __slots__ = ("ring_json",)
    RING_JSON_FIELD_NUMBER: _ClassVar[int]
    ring_json: bytes
    def __init__(self, ring_json: _Optional[bytes] = ...) -> None: ...

class GetNodeStatusRequest(_message.Message):
    __slots__ = ("head",)
    HEAD_FIELD_NUMBER: _ClassVar[int]
    head: _common_pb2.RequestHead
    def __init__(self, head: _Optional[_Union[_common_pb2.RequestHead, _Mapping]] = ...) -> None: ...

class GetNodeStatusResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: _common_pb2.NodeStatus
    def __init__(self, status: _Optional[_Union[_common_pb2.NodeStatus, _Mapping]] = ...) -> None: ...
