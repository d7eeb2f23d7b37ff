"""Requests and answers between geostore's types and the wire's messages, in pairs.

What a Python type owns the schema of (definitions, records, queries, rings) crosses as the
JSON of its `to_json`; what is read from the wire is checked as input is, never trusted:
whatever does not read is an InvalidInputError.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np

from geostore.errors import (
    GeostoreError,
    InvalidInputError,
    ProtocolVersionError,
    StaleRingError,
    WrongClusterError,
)
from geostore.query import (
    CoverageRequest,
    Cursor,
    Explain,
    ExplainNode,
    ExplainStep,
    LeafQuery,
    Query,
)
from geostore.ring import SLOTS_TOTAL
from geostore.rpc.v1 import common_pb2, node_pb2
from geostore.types import (
    BLOCK_DTYPE,
    BandStatistics,
    BlockBitmaps,
    CallContext,
    ClearRequest,
    DatasetDefinition,
    NodeStatus,
    PublishRequest,
    RecordCopy,
    SceneRecord,
    TileDetails,
    TileKey,
)

__all__ = [
    "PROTOCOL_VERSION",
    "check_head",
    "clear_request",
    "clear_to_wire",
    "copy_to_wire",
    "coverage_request_from_json",
    "definition_from_json",
    "details_from_wire",
    "details_to_wire",
    "dump_json",
    "explain_from_json",
    "key_from_wire",
    "key_to_wire",
    "leaf_query",
    "leaf_query_to_wire",
    "load_json",
    "make_head",
    "publish_request",
    "publish_to_wire",
    "query_from_json",
    "record_copy",
    "record_from_json",
    "status_from_wire",
    "status_to_wire",
]

PROTOCOL_VERSION = 1
BATCH_ROWS = 4096
"""Where a caller leaves it to the node."""
BATCH_ROWS_MAX = 65_536
_SLOT_BYTES = SLOTS_TOTAL // 8

_T = TypeVar("_T")


def make_head(call: CallContext, cluster_id: str = "", epoch: int = 0) -> common_pb2.RequestHead:
    """The head of a request; without cluster and epoch: of a caller that has no ring yet."""
    return common_pb2.RequestHead(
        protocol_version=PROTOCOL_VERSION,
        cluster_id=cluster_id,
        ring_epoch=epoch,
        request_id=call.request_id,
    )


def check_head(
    head: common_pb2.RequestHead,
    *,
    cluster_id: str,
    epoch: int | None,
    may_be_stranger: bool = False,
) -> None:
    """What a node checks before it looks at a request.

    `epoch` is the node's; None: the call does not depend on it. `may_be_stranger`: the caller
    need not know the cluster.

    Raises:
        ProtocolVersionError, WrongClusterError, StaleRingError: as they say.
        InvalidInputError: the head asks for what only a later version has.
    """
    if head.protocol_version != PROTOCOL_VERSION:
        raise ProtocolVersionError(
            f"the request speaks protocol version {head.protocol_version}, this node"
            f" {PROTOCOL_VERSION}: run the same geostore on both sides"
        )
    if head.consistency_epoch:
        raise InvalidInputError("consistency_epoch is set: this node cannot promise it yet")
    if head.cluster_id != cluster_id and not (may_be_stranger and not head.cluster_id):
        raise WrongClusterError(
            f"the request is for cluster {head.cluster_id!r}, this node belongs to {cluster_id!r}:"
            " name nodes of one cluster"
        )
    if epoch is not None and head.ring_epoch not in (0, epoch):
        raise StaleRingError(
            f"the request was made with ring epoch {head.ring_epoch}, this node has {epoch}",
            epoch=epoch,
        )


# ---------------------------------------------------------------- JSON


def dump_json(value: object) -> bytes:
    """Compact ASCII JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def load_json(text: bytes, what: str) -> dict[str, Any]:
    """A JSON object. Raises InvalidInputError: the bytes are none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{what}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInputError(f"{what}: expected a JSON object, got {text[:40]!r}")
    return value


def _read(read: Callable[[dict[str, Any]], _T], text: bytes, what: str) -> _T:
    value = load_json(text, what)
    try:
        return read(value)
    except GeostoreError:
        raise
    except (
        TypeError,
        ValueError,
        KeyError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise InvalidInputError(f"{what}: does not read: {type(error).__name__} {error}") from None


def definition_from_json(text: bytes) -> DatasetDefinition:
    """The definition of `dump_json(definition.to_json())`."""
    definition = _read(DatasetDefinition.from_json, text, "dataset definition")
    if not definition.id:
        raise InvalidInputError(f"dataset definition: id {definition.id!r}: expected one")
    return definition


def record_from_json(text: bytes) -> SceneRecord:
    """The record of `dump_json(record.to_json())`."""
    return _read(SceneRecord.from_json, text, "scene record")


def query_from_json(text: bytes) -> Query:
    """The query of `dump_json(query.to_json())`."""
    return _read(Query.from_json, text, "query")


def coverage_request_from_json(text: bytes) -> CoverageRequest:
    """The request of `dump_json(request.to_json())`."""
    return _read(CoverageRequest.from_json, text, "coverage request")


def explain_from_json(text: bytes, explain: Explain) -> None:
    """Fills `explain` with what `dump_json(other.to_json())` says, stages added."""
    value = load_json(text, "explain")
    try:
        explain.predicates.update(value.get("predicates", {}))
        explain.considered.update(value.get("considered", {}))
        explain.steps.extend(ExplainStep(**step) for step in value.get("steps", ()))
        explain.structure = value.get("structure")
        explain.rows_total = value.get("rows_total")
        explain.rows_matched = value.get("rows_matched")
        explain.ended_early = bool(value.get("ended_early", False))
        explain.nodes_asked.extend(value.get("nodes_asked", ()))
        explain.nodes_skipped.extend(value.get("nodes_skipped", ()))
        explain.slots_matched = value.get("slots_matched")
        explain.nodes.extend(ExplainNode(**node) for node in value.get("nodes", ()))
        for name, ms in value.get("stages_ms", {}).items():
            explain.stages_ms[name] = explain.stages_ms.get(name, 0.0) + ms
    except (TypeError, ValueError, AttributeError) as error:
        raise InvalidInputError(f"explain: does not read: {error}") from None


# ---------------------------------------------------------------- leaf queries


def leaf_query_to_wire(request: LeafQuery) -> node_pb2.LeafQuestion:
    """`leaf_query` is its inverse."""
    question = node_pb2.LeafQuestion(
        query_json=dump_json(request.query.to_json()), batch_rows=request.batch_rows
    )
    if request.slots is not None:
        bits = np.zeros(SLOTS_TOTAL, np.uint8)
        bits[list(request.slots)] = 1
        question.slots = np.packbits(bits, bitorder="little").tobytes()
    if request.after is not None:
        question.after = request.after.to_text()
    return question


def leaf_query(question: node_pb2.LeafQuestion) -> LeafQuery:
    """What one node is asked."""
    slots: frozenset[int] | None = None
    if question.HasField("slots"):
        if len(question.slots) != _SLOT_BYTES:
            raise InvalidInputError(
                f"slots: got {len(question.slots)} bytes, expected {_SLOT_BYTES}"
            )
        bits = np.unpackbits(np.frombuffer(question.slots, np.uint8), bitorder="little")
        slots = frozenset(np.flatnonzero(bits).tolist())
    after = Cursor.from_text(question.after) if question.HasField("after") else None
    return LeafQuery(
        query=query_from_json(question.query_json),
        slots=slots,
        after=after,
        batch_rows=min(question.batch_rows or BATCH_ROWS, BATCH_ROWS_MAX),
    )


# ---------------------------------------------------------------- scenes and records


def publish_to_wire(request: PublishRequest) -> node_pb2.ScenePublication:
    """`publish_request` is its inverse."""
    return node_pb2.ScenePublication(
        dataset_id=request.dataset_id,
        scene=request.scene,
        version=request.version,
        attempt=request.attempt,
        cells=request.cells,
        replaced_version=request.replaced_version,
        replaced_cells=request.replaced_cells,
    )


def publish_request(said: node_pb2.ScenePublication) -> PublishRequest:
    """What a home tells a node to show."""
    return PublishRequest(
        dataset_id=said.dataset_id,
        scene=said.scene,
        version=said.version,
        attempt=said.attempt,
        cells=tuple(said.cells),
        replaced_version=said.replaced_version if said.HasField("replaced_version") else None,
        replaced_cells=tuple(said.replaced_cells),
    )


def clear_to_wire(
    request: ClearRequest, head: common_pb2.RequestHead
) -> node_pb2.ClearSceneRequest:
    """`clear_request` is its inverse."""
    return node_pb2.ClearSceneRequest(
        head=head,
        dataset_id=request.dataset_id,
        scene=request.scene,
        version=request.version,
        attempt=request.attempt,
        cells=request.cells,
    )


def clear_request(said: node_pb2.ClearSceneRequest) -> ClearRequest:
    """What a home tells a node to clear."""
    return ClearRequest(
        dataset_id=said.dataset_id,
        scene=said.scene,
        version=said.version,
        attempt=said.attempt,
        cells=tuple(said.cells),
    )


def copy_to_wire(copy: RecordCopy, head: common_pb2.RequestHead) -> node_pb2.CopyRecordRequest:
    """`record_copy` is its inverse."""
    return node_pb2.CopyRecordRequest(
        head=head, name=copy.name, revision=copy.revision, value=copy.value
    )


def record_copy(said: node_pb2.CopyRecordRequest) -> RecordCopy:
    """A record's state as its home has it."""
    value = said.value if said.HasField("value") else None
    return RecordCopy(name=said.name, revision=said.revision, value=value)


# ---------------------------------------------------------------- tiles and nodes


def key_to_wire(key: TileKey) -> common_pb2.TileKey:
    """`key_from_wire` is its inverse."""
    return common_pb2.TileKey(
        dataset_id=key.dataset_id, scene=key.scene, version=key.version, geocode=key.geocode
    )


def key_from_wire(key: common_pb2.TileKey) -> TileKey:
    """A tile's identity."""
    return TileKey(key.dataset_id, key.scene, key.version, key.geocode)


def details_to_wire(details: TileDetails) -> node_pb2.GetTileDetailsResponse:
    """`details_from_wire` is its inverse."""
    return node_pb2.GetTileDetailsResponse(
        key=key_to_wire(details.key),
        block_table=np.ascontiguousarray(details.blocks).tobytes(),
        statistics=[
            node_pb2.BandStatistics(
                minimum=one.minimum, maximum=one.maximum, mean=one.mean, p01=one.p01, p99=one.p99
            )
            for one in details.statistics
        ],
        cloud_histogram=details.cloud_histogram or (),
        cloud_method=details.cloud_method,
        provider_method=details.provider_method or "",
        checksum=details.checksum,
        bytes=details.bytes,
        properties_json=dump_json(details.properties),
        bitmaps=b"" if details.bitmaps is None else details.bitmaps.to_bytes(),
        cloud_nodata=() if details.bitmaps is None else details.bitmaps.cloud_nodata,
    )


def _read_bitmaps(said: node_pb2.GetTileDetailsResponse) -> BlockBitmaps | None:
    if len(said.bitmaps) == 0:  # a tile, or a node, from before there were any
        return None
    return BlockBitmaps.from_bytes(said.bitmaps, tuple(said.cloud_nodata))


def details_from_wire(said: node_pb2.GetTileDetailsResponse) -> TileDetails:
    """What a node knows of a tile."""
    if len(said.block_table) % BLOCK_DTYPE.itemsize:
        raise InvalidInputError(
            f"tile {said.key.geocode}: a block table of {len(said.block_table)} bytes, expected a"
            f" multiple of {BLOCK_DTYPE.itemsize}"
        )
    method = said.cloud_method if said.HasField("cloud_method") else None
    # A node from before there were rules tells only the one, which is the provider's.
    provider = said.provider_method or None if said.HasField("provider_method") else method
    return TileDetails(
        key=key_from_wire(said.key),
        blocks=np.frombuffer(said.block_table, BLOCK_DTYPE),
        statistics=tuple(
            BandStatistics(
                **{
                    field.name: getattr(one, field.name) if one.HasField(field.name) else None
                    for field in fields(BandStatistics)
                }
            )
            for one in said.statistics
        ),
        cloud_histogram=tuple(said.cloud_histogram) or None,
        cloud_method=method,
        provider_method=provider,
        checksum=said.checksum,
        bytes=said.bytes,
        properties=load_json(said.properties_json, f"tile {said.key.geocode}: properties"),
        bitmaps=_read_bitmaps(said),
    )


_OPTIONAL = ("read_only_reason", "error")


def status_to_wire(status: NodeStatus) -> common_pb2.NodeStatus:
    """`status_from_wire` is its inverse."""
    return common_pb2.NodeStatus(**status.to_json())


def status_from_wire(said: common_pb2.NodeStatus) -> NodeStatus:
    """A node as it says itself."""
    if not math.isfinite(said.uptime_s):
        raise InvalidInputError(f"node status: uptime {said.uptime_s}: expected seconds")
    value = {field.name: getattr(said, field.name) for field in fields(NodeStatus)}
    for name in _OPTIONAL:
        if not said.HasField(name):
            value[name] = None
    return NodeStatus(**value)
