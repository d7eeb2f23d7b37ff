"""StoreService: what users of a store call. Any node answers for the whole cluster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import grpc

from geostore.errors import ConflictError, InvalidInputError
from geostore.query import Cursor, Explain, keys_from
from geostore.rpc import messages as wire
from geostore.rpc.coverage_answers import coverage_messages
from geostore.rpc.v1 import store_pb2, store_pb2_grpc
from geostore.server.arrivals import Arrivals
from geostore.server.call import current_call
from geostore.server.services_calls import Door, answer_rows, answer_summary, take_tiles
from geostore.types import CallContext, SceneRecord, SceneState

__all__ = ["StoreService"]

Context = grpc.ServicerContext


class StoreService(store_pb2_grpc.StoreServiceServicer):
    """The coordinated calls, in a pool of their own: they may wait for other nodes.

    Calls that read need no certain ring: the node plans them with its own. Those that write
    go to a record's or a slot's first replica, so the caller's ring must be the node's.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        self._arrivals = Arrivals()

    # ------------------------------------------------------------ queries
    def Query(  # noqa: N802 - the wire's names, here and below
        self, request: store_pb2.QueryRequest, context: Context
    ) -> Iterator[store_pb2.QueryResponse]:
        call = self._door.begin(request.head, context, placed=False)
        _refuse_quorum(request.read_quorum)
        query = wire.query_from_json(request.query_json)
        after = Cursor.from_text(request.after) if request.HasField("after") else None
        explain = Explain() if request.explain else None
        rows = min(request.batch_rows or wire.BATCH_ROWS, wire.BATCH_ROWS_MAX)
        batches = self._door.member.query(call, query, explain, after, rows)
        yield from answer_rows(
            store_pb2.QueryResponse,
            batches,
            sort=query.sort,
            explain=explain,
            end_with_rows=request.end_with_rows,
        )

    def Count(  # noqa: N802
        self, request: store_pb2.CountRequest, context: Context
    ) -> store_pb2.CountResponse:
        call = self._door.begin(request.head, context, placed=False)
        _refuse_quorum(request.read_quorum)
        query = wire.query_from_json(request.query_json)
        return store_pb2.CountResponse(count=self._door.member.count(call, query))

    def Summarize(  # noqa: N802
        self, request: store_pb2.SummarizeRequest, context: Context
    ) -> Iterator[store_pb2.SummarizeResponse]:
        call = self._door.begin(request.head, context, placed=False)
        _refuse_quorum(request.read_quorum)
        query, by = wire.query_from_json(request.query_json), keys_from(request.by)
        summary = self._door.member.summary(call, query, by)
        yield from answer_summary(store_pb2.SummarizeResponse, summary)

    def SearchCoverage(  # noqa: N802
        self, request: store_pb2.SearchCoverageRequest, context: Context
    ) -> Iterator[store_pb2.SearchCoverageResponse]:
        call = self._door.begin(request.head, context, placed=False)
        query = wire.query_from_json(request.query_json)
        wanted = wire.coverage_request_from_json(request.wanted_json)
        answer = self._door.member.coverage(call, query, wanted)
        yield from coverage_messages(store_pb2.SearchCoverageResponse, answer, current_call().check)

    # ------------------------------------------------------------ datasets
    def ListDatasets(  # noqa: N802
        self, request: store_pb2.ListDatasetsRequest, context: Context
    ) -> store_pb2.ListDatasetsResponse:
        call = self._door.begin(request.head, context, placed=False)
        found = self._door.member.list_datasets(call)
        return store_pb2.ListDatasetsResponse(
            definitions_json=[wire.dump_json(one.to_json()) for one in found]
        )

    def GetDataset(  # noqa: N802
        self, request: store_pb2.GetDatasetRequest, context: Context
    ) -> store_pb2.GetDatasetResponse:
        call = self._door.begin(request.head, context, placed=False)
        found = self._door.member.get_dataset(call, request.name)
        return store_pb2.GetDatasetResponse(definition_json=wire.dump_json(found.to_json()))

    def CreateDataset(  # noqa: N802
        self, request: store_pb2.CreateDatasetRequest, context: Context
    ) -> store_pb2.CreateDatasetResponse:
        call = self._door.begin(request.head, context)
        self._door.member.create_dataset(call, wire.definition_from_json(request.definition_json))
        return store_pb2.CreateDatasetResponse()

    def ReplaceDataset(  # noqa: N802
        self, request: store_pb2.ReplaceDatasetRequest, context: Context
    ) -> store_pb2.ReplaceDatasetResponse:
        call = self._door.begin(request.head, context)
        old = wire.definition_from_json(request.old_json)
        new = wire.definition_from_json(request.new_json)
        changed = self._door.member.replace_dataset(call, old, new)
        return store_pb2.ReplaceDatasetResponse(tiles_changed=changed)

    def DeleteDataset(  # noqa: N802
        self, request: store_pb2.DeleteDatasetRequest, context: Context
    ) -> store_pb2.DeleteDatasetResponse:
        call = self._door.begin(request.head, context)
        tiles = self._door.member.delete_dataset(call, request.name)
        return store_pb2.DeleteDatasetResponse(tiles=tiles)

    # ------------------------------------------------------------ scenes
    def BeginScene(  # noqa: N802
        self, request: store_pb2.BeginSceneRequest, context: Context
    ) -> store_pb2.BeginSceneResponse:
        call = self._door.begin(request.head, context)
        record = self._door.member.begin_scene(
            call,
            wire.definition_from_json(request.definition_json),
            request.scene,
            request.version,
            tuple(request.cells),
            replace=request.replace,
            path=request.path,
            reader=request.reader,
            holder=request.holder,
        )
        if record.state is not SceneState.STAGING:
            return store_pb2.BeginSceneResponse(unchanged=True)
        return store_pb2.BeginSceneResponse(
            attempt=record.attempt,
            record_json=wire.dump_json(record.to_json()),
            lease_s=self._door.member.lease_s,
        )

    def PutTiles(  # noqa: N802
        self, request_iterator: Iterator[store_pb2.PutTilesRequest], context: Context
    ) -> store_pb2.PutTilesResponse:
        with self._arrivals.arrival() as arrival:
            call, tiles, attempt = take_tiles(
                request_iterator, lambda head: self._door.begin(head, context), arrival
            )
            checksums = self._door.member.put_tiles(call, tiles, attempt)
        return store_pb2.PutTilesResponse(checksums=checksums)

    def CommitScene(  # noqa: N802
        self, request: store_pb2.CommitSceneRequest, context: Context
    ) -> store_pb2.CommitSceneResponse:
        call = self._door.begin(request.head, context)
        properties = (
            wire.load_json(request.properties_json, "scene properties")
            if request.properties_json
            else {}
        )
        self._door.member.commit_scene(
            call,
            request.dataset_id,
            request.scene,
            request.version,
            request.attempt,
            tuple(request.cells),
            bytes_total=request.bytes_total,
            properties=properties,
        )
        return store_pb2.CommitSceneResponse()

    def AbortScene(  # noqa: N802
        self, request: store_pb2.AbortSceneRequest, context: Context
    ) -> store_pb2.AbortSceneResponse:
        call = self._door.begin(request.head, context)
        record = self._attempt(call, request)
        if record is not None:
            self._door.member.abort_scene(
                call, request.dataset_id, request.scene, record.attempt, request.holder
            )
        return store_pb2.AbortSceneResponse()

    def KeepScene(  # noqa: N802
        self, request: store_pb2.KeepSceneRequest, context: Context
    ) -> store_pb2.KeepSceneResponse:
        call = self._door.begin(request.head, context)
        if self._attempt(call, request) is None:
            raise ConflictError(
                f"scene {request.scene!r}: attempt {request.attempt} at version"
                f" {request.version} is over; begin the scene again"
            )
        self._door.member.keep_scene(call, request.dataset_id, request.scene, request.holder)
        return store_pb2.KeepSceneResponse(lease_s=self._door.member.lease_s)

    def _attempt(
        self,
        call: CallContext,
        request: store_pb2.AbortSceneRequest | store_pb2.KeepSceneRequest,
    ) -> SceneRecord | None:
        """The scene's record if the attempt that is meant is under way."""
        record = self._door.member.get_scene_record(call, request.dataset_id, request.scene)
        if record is None or record.staging_version != request.version:
            return None
        return record if request.attempt in (0, record.attempt) else None

    def GetSceneRecord(  # noqa: N802
        self, request: store_pb2.GetSceneRecordRequest, context: Context
    ) -> store_pb2.GetSceneRecordResponse:
        call = self._door.begin(request.head, context)
        record = self._door.member.get_scene_record(call, request.dataset_id, request.scene)
        text = None if record is None else wire.dump_json(record.to_json())
        return store_pb2.GetSceneRecordResponse(record_json=text)

    # ------------------------------------------------------------ status
    def GetStatus(  # noqa: N802
        self, request: store_pb2.GetStatusRequest, context: Context
    ) -> store_pb2.GetStatusResponse:
        call = self._door.begin(request.head, context, placed=False)
        member = self._door.member
        ring, nodes = member.ring(), member.cluster_status(call)
        identity = member.node.identity
        return store_pb2.GetStatusResponse(
            cluster_id=ring.cluster_id,
            epoch=ring.epoch,
            replicas=ring.replicas,
            created_us=identity.created_us,
            format_version=identity.format_version,
            datasets=max(one.datasets for one in nodes),
            scenes=sum(one.scenes for one in nodes),  # each record has one home
            nodes=[wire.status_to_wire(one) for one in nodes],
            **asdict(member.store_sizes(call)),
        )


def _refuse_quorum(read_quorum: int) -> None:
    if read_quorum:
        raise InvalidInputError(f"read_quorum {read_quorum}: expected 0, replicas do not vote yet")
