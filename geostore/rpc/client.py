"""One node as its callers see it: a typed method a call, geostore's errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from geostore.errors import CorruptDataError, InvalidInputError, UnavailableError
from geostore.query import (
    CoverageAnswer,
    CoverageRequest,
    Cursor,
    Explain,
    LeafQuery,
    Query,
    Summary,
    SummaryKeys,
)
from geostore.ring import Ring
from geostore.rpc import messages as wire
from geostore.rpc.block_streams import READ_BLOCKS, StoredBlock, wanted_blocks
from geostore.rpc.coverage_answers import read_coverage
from geostore.rpc.errors import raising_for
from geostore.rpc.reports import read_verification
from geostore.rpc.row_batches import STREAM_ROWS, BatchDecoder
from geostore.rpc.streams import tile_messages
from geostore.rpc.summaries import read_summary
from geostore.rpc.v1 import (
    common_pb2,
    node_pb2,
    node_pb2_grpc,
    ring_pb2,
    ring_pb2_grpc,
    store_pb2,
    store_pb2_grpc,
)
from geostore.types import (
    CallContext,
    ClearRequest,
    DatasetDefinition,
    EncodedTile,
    NodeStatus,
    PublishRequest,
    RecordCopy,
    RowBatch,
    SceneRecord,
    SlotSizes,
    TileDetails,
    TileKey,
)
from geostore.types.report import Progress, VerifyReport

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["BlockStream", "HeadFactory", "NodeClient", "RowStream"]

HeadFactory = Callable[[CallContext], common_pb2.RequestHead]
"""Makes a request's head, with the cluster and epoch that the caller knows at that moment."""

_Answer = TypeVar("_Answer")
_Rows = TypeVar("_Rows", bound=Sized)


class NodeClient:
    """A node at an address. Owns nothing: the channel is its caller's. Thread-safe.

    Every method takes its deadline and request id from `call`, and may raise UnavailableError
    (not reachable, busy, too late), ConflictError (no geostore node, another cluster or
    version), and what the node itself raises.
    """

    def __init__(
        self, channel: grpc.Channel, address: str, head: HeadFactory = wire.make_head
    ) -> None:
        self.address = address
        self._head = head
        self._store: Any = store_pb2_grpc.StoreServiceStub(channel)
        self._node: Any = node_pb2_grpc.NodeServiceStub(channel)
        self._ring: Any = ring_pb2_grpc.RingServiceStub(channel)
        # Not the stub's: its answers are taken apart without a copy (rpc.block_streams).
        self._read_blocks: Any = channel.unary_stream(
            READ_BLOCKS, request_serializer=node_pb2.ReadBlocksRequest.SerializeToString
        )

    # ------------------------------------------------------------ one request, one answer

    def _ask(
        self, call: CallContext, method: Callable[..., Any], kind: Callable[..., Any], **said: Any
    ) -> Any:
        request = self._make(kind, head=self._head(call), **said)
        return self._send(call, method, request)

    def _send(self, call: CallContext, method: Callable[..., Any], request: Any) -> Any:
        call.check(f"node {self.address}")
        with raising_for(self.address):
            return method(request, timeout=call.time_left_s())

    @staticmethod
    def _make(kind: Callable[..., _Answer], **said: Any) -> _Answer:
        try:
            return kind(**said)
        except (ValueError, TypeError) as error:
            # Text that is not Unicode, a number out of range.
            raise InvalidInputError(f"the request cannot be sent: {error}") from None

    def _said(self, read: Callable[[Any], _Answer], answer: Any) -> _Answer:
        """An answer's value; one that does not read is the node's fault, not the caller's."""
        try:
            return read(answer)
        except (InvalidInputError, CorruptDataError) as error:
            raise UnavailableError(
                f"node {self.address}: its answer does not read: {error}"
            ) from None

    # ------------------------------------------------------------ control

    def get_ring(self, call: CallContext) -> Ring:
        """The ring as the node has it."""
        answer = self._ask(call, self._ring.GetRing, ring_pb2.GetRingRequest)
        return self._said(_read_ring, answer.ring_json)

    def take_ring(self, call: CallContext, ring: Ring) -> int:
        """Hands the node a ring; the epoch that it has now."""
        text = wire.dump_json(ring.to_json())
        answer = self._ask(call, self._ring.TakeRing, ring_pb2.TakeRingRequest, ring_json=text)
        return int(answer.epoch)

    def join(
        self, call: CallContext, *, node_id: str, name: str, address: str, zone: str = ""
    ) -> Ring:
        """Asks the founder to take a node in; the ring with it."""
        said = {"node_id": node_id, "name": name, "address": address, "zone": zone}
        answer = self._ask(call, self._ring.Join, ring_pb2.JoinRequest, **said)
        return self._said(_read_ring, answer.ring_json)

    def node_status(self, call: CallContext) -> NodeStatus:
        """The node as it says itself."""
        answer = self._ask(call, self._ring.GetNodeStatus, ring_pb2.GetNodeStatusRequest)
        return self._said(wire.status_from_wire, answer.status)

    # ------------------------------------------------------------ leaf: as geostore.node.Peer

    def stage_tiles(
        self, call: CallContext, tiles: Sequence[EncodedTile], attempt: int
    ) -> list[str]:
        stream = tile_messages(node_pb2.StageTilesRequest, self._head(call), tiles, attempt)
        answer = self._send(call, self._node.StageTiles, stream)
        return self._checksums(answer.checksums, tiles)

    def missing_cells(self, call: CallContext, request: PublishRequest) -> tuple[str, ...]:
        said = self._make(wire.publish_to_wire, request=request)
        answer = self._ask(
            call, self._node.FindMissingCells, node_pb2.FindMissingCellsRequest, publication=said
        )
        return tuple(answer.cells)

    def publish_scene(self, call: CallContext, request: PublishRequest) -> None:
        said = self._make(wire.publish_to_wire, request=request)
        self._ask(call, self._node.PublishScene, node_pb2.PublishSceneRequest, publication=said)

    def clear_scene(self, call: CallContext, request: ClearRequest) -> None:
        said = self._make(wire.clear_to_wire, request=request, head=self._head(call))
        self._send(call, self._node.ClearScene, said)

    def scene_record(self, call: CallContext, dataset_id: str, scene: str) -> SceneRecord | None:
        said = {"dataset_id": dataset_id, "scene": scene}
        answer = self._ask(
            call, self._node.ReadSceneRecord, node_pb2.ReadSceneRecordRequest, **said
        )
        return self._said(_read_record, answer)

    def copy_record(self, call: CallContext, copy: RecordCopy) -> None:
        said = self._make(wire.copy_to_wire, copy=copy, head=self._head(call))
        self._send(call, self._node.CopyRecord, said)

    def learn_dataset(self, call: CallContext, definition: DatasetDefinition) -> int:
        text = wire.dump_json(definition.to_json())
        kind = node_pb2.LearnDatasetRequest
        answer = self._ask(call, self._node.LearnDataset, kind, definition_json=text)
        return int(answer.tiles_changed)

    def forget_dataset(self, call: CallContext, dataset_id: str, name: str) -> int:
        said = {"dataset_id": dataset_id, "name": name}
        answer = self._ask(call, self._node.ForgetDataset, node_pb2.ForgetDatasetRequest, **said)
        return int(answer.tiles)

    def leaf_query(
        self, call: CallContext, request: LeafQuery, explain: Explain | None = None
    ) -> Iterator[RowBatch]:
        question = self._make(wire.leaf_query_to_wire, request=request)
        said = self._make(
            node_pb2.LeafQueryRequest,
            head=self._head(call),
            question=question,
            explain=explain is not None,
            end_with_rows=True,
        )
        answers = self._send(call, self._node.LeafQuery, said)
        return RowStream(answers, self.address, explain, BatchDecoder().decode)

    def leaf_count(self, call: CallContext, request: LeafQuery) -> int:
        question = self._make(wire.leaf_query_to_wire, request=request)
        answer = self._ask(call, self._node.LeafCount, node_pb2.LeafCountRequest, question=question)
        return int(answer.count)

    def leaf_summary(self, call: CallContext, request: LeafQuery, by: SummaryKeys) -> Summary:
        said = self._make(
            node_pb2.LeafSummarizeRequest,
            head=self._head(call),
            question=self._make(wire.leaf_query_to_wire, request=request),
            by=list(map(str, by)),
        )
        return read_summary(self._send(call, self._node.LeafSummarize, said), by, self.address)

    def leaf_coverage(
        self, call: CallContext, request: LeafQuery, wanted: CoverageRequest
    ) -> CoverageAnswer:
        said = self._make(
            node_pb2.LeafCoverageRequest,
            head=self._head(call),
            question=self._make(wire.leaf_query_to_wire, request=request),
            wanted_json=wire.dump_json(wanted.to_json()),
        )
        return self._covered(self._send(call, self._node.LeafCoverage, said))

    def _covered(self, answers: Any) -> CoverageAnswer:
        try:
            with raising_for(self.address):
                return self._said(read_coverage, answers)
        finally:
            answers.cancel()

    def tile_details(self, call: CallContext, keys: Sequence[TileKey]) -> list[TileDetails]:
        """One a key, in order. Raises NotFoundError: a tile is not there."""
        said = self._make(
            node_pb2.GetTileDetailsRequest,
            head=self._head(call),
            keys=[self._make(wire.key_to_wire, key=key) for key in keys],
        )
        answers = self._send(call, self._node.GetTileDetails, said)
        with raising_for(self.address):
            details = [self._said(wire.details_from_wire, answer) for answer in answers]
        if [one.key for one in details] != list(keys):
            raise UnavailableError(
                f"node {self.address}: asked for details of {len(keys)} tiles, got"
                f" {len(details)}, or others"
            )
        return details

    def read_blocks(
        self, call: CallContext, wanted: Sequence[tuple[TileKey, Sequence[int]]]
    ) -> BlockStream:
        """The stored bytes of blocks of many tiles, in the order asked.

        Raises NotFoundError: a tile is not there.
        """
        said = self._make(
            node_pb2.ReadBlocksRequest,
            head=self._head(call),
            wanted=[
                self._make(
                    node_pb2.WantedBlocks,
                    key=self._make(wire.key_to_wire, key=key),
                    indices=list(indices),
                )
                for key, indices in wanted
            ],
        )
        answers = self._send(call, self._read_blocks, said)
        return BlockStream(answers, wanted, self.address)

    def note_lost_tiles(
        self, call: CallContext, dataset_id: str, scene: str, version: str, cells: Sequence[str]
    ) -> None:
        said = {"dataset_id": dataset_id, "scene": scene, "version": version, "cells": cells}
        self._ask(call, self._node.NoteLostTiles, node_pb2.NoteLostTilesRequest, **said)

    def slot_sizes(self, call: CallContext) -> SlotSizes:
        answer = self._ask(call, self._node.GetSlotSizes, node_pb2.GetSlotSizesRequest)
        return self._said(_read_slot_sizes, answer)

    def verify(
        self, call: CallContext, name: str, progress: Progress | None = None
    ) -> VerifyReport:
        """Has the node, called `name` in the findings, check all it holds; it may take hours."""
        request = self._make(node_pb2.VerifyNodeRequest, head=self._head(call))
        answers = self._send(call, self._node.VerifyNode, request)
        return read_verification(answers, self.address, name, progress)

    # ------------------------------------------------------------ coordinated

    def query(
        self,
        call: CallContext,
        query: Query,
        *,
        after: Cursor | None = None,
        explain: Explain | None = None,
        batch_rows: int = 0,
    ) -> RowStream[RowBatch]:
        """The cluster's matching rows, in order, behind `after`."""
        answers = self._query(call, query, after, explain, batch_rows)
        return RowStream(answers, self.address, explain, BatchDecoder().decode)

    def query_arrow(
        self,
        call: CallContext,
        query: Query,
        *,
        after: Cursor | None = None,
        batch_rows: int = STREAM_ROWS,
    ) -> RowStream[pa.RecordBatch]:
        """The same rows as Arrow has them. Raises also MissingDependencyError: no pyarrow."""
        answers = self._query(call, query, after, None, batch_rows)
        return RowStream(answers, self.address, None, BatchDecoder().decode_arrow)

    def _query(
        self,
        call: CallContext,
        query: Query,
        after: Cursor | None,
        explain: Explain | None,
        batch_rows: int,
    ) -> Any:
        said = self._make(
            store_pb2.QueryRequest,
            head=self._head(call),
            query_json=wire.dump_json(query.to_json()),
            after=None if after is None else after.to_text(),
            explain=explain is not None,
            batch_rows=batch_rows,
            end_with_rows=True,
        )
        return self._send(call, self._store.Query, said)

    def count(self, call: CallContext, query: Query) -> int:
        text = wire.dump_json(query.to_json())
        return int(
            self._ask(call, self._store.Count, store_pb2.CountRequest, query_json=text).count
        )

    def summary(self, call: CallContext, query: Query, by: SummaryKeys) -> Summary:
        """The cluster's matching rows by groups."""
        said = self._make(
            store_pb2.SummarizeRequest,
            head=self._head(call),
            query_json=wire.dump_json(query.to_json()),
            by=list(map(str, by)),
        )
        return read_summary(self._send(call, self._store.Summarize, said), by, self.address)

    def coverage(self, call: CallContext, query: Query, wanted: CoverageRequest) -> CoverageAnswer:
        said = self._make(
            store_pb2.SearchCoverageRequest,
            head=self._head(call),
            query_json=wire.dump_json(query.to_json()),
            wanted_json=wire.dump_json(wanted.to_json()),
        )
        return self._covered(self._send(call, self._store.SearchCoverage, said))

    def list_datasets(self, call: CallContext) -> list[DatasetDefinition]:
        answer = self._ask(call, self._store.ListDatasets, store_pb2.ListDatasetsRequest)
        return [self._said(wire.definition_from_json, text) for text in answer.definitions_json]

    def get_dataset(self, call: CallContext, name: str) -> DatasetDefinition:
        answer = self._ask(call, self._store.GetDataset, store_pb2.GetDatasetRequest, name=name)
        return self._said(wire.definition_from_json, answer.definition_json)

    def create_dataset(self, call: CallContext, definition: DatasetDefinition) -> None:
        text = wire.dump_json(definition.to_json())
        kind = store_pb2.CreateDatasetRequest
        self._ask(call, self._store.CreateDataset, kind, definition_json=text)

    def replace_dataset(
        self, call: CallContext, old: DatasetDefinition, new: DatasetDefinition
    ) -> int:
        said = {
            "old_json": wire.dump_json(old.to_json()),
            "new_json": wire.dump_json(new.to_json()),
        }
        kind = store_pb2.ReplaceDatasetRequest
        return int(self._ask(call, self._store.ReplaceDataset, kind, **said).tiles_changed)

    def delete_dataset(self, call: CallContext, name: str) -> int:
        kind = store_pb2.DeleteDatasetRequest
        return int(self._ask(call, self._store.DeleteDataset, kind, name=name).tiles)

    def begin_scene(
        self,
        call: CallContext,
        definition: DatasetDefinition,
        scene: str,
        version: str,
        cells: Sequence[str],
        *,
        replace: bool = False,
        path: str = "",
        reader: str = "",
        holder: str = "",
    ) -> tuple[SceneRecord, int, float] | None:
        """The record, the attempt's number and its lease in seconds (0: without end); None:
        that version is published already.
        """
        answer = self._ask(
            call,
            self._store.BeginScene,
            store_pb2.BeginSceneRequest,
            definition_json=wire.dump_json(definition.to_json()),
            scene=scene,
            version=version,
            cells=cells,
            replace=replace,
            path=path,
            reader=reader,
            holder=holder,
        )
        if answer.unchanged:
            return None
        record = self._said(wire.record_from_json, answer.record_json)
        return record, int(answer.attempt), float(answer.lease_s)

    def put_tiles(self, call: CallContext, tiles: Sequence[EncodedTile], attempt: int) -> list[str]:
        stream = tile_messages(store_pb2.PutTilesRequest, self._head(call), tiles, attempt)
        answer = self._send(call, self._store.PutTiles, stream)
        return self._checksums(answer.checksums, tiles)

    def _checksums(self, checksums: Iterable[str], tiles: Sequence[EncodedTile]) -> list[str]:
        stored = list(checksums)
        if len(stored) != len(tiles):
            raise UnavailableError(
                f"node {self.address}: acknowledged {len(stored)} tiles of {len(tiles)}"
            )
        return stored

    def commit_scene(
        self,
        call: CallContext,
        dataset_id: str,
        scene: str,
        version: str,
        cells: Sequence[str],
        *,
        attempt: int,
        bytes_total: int,
        properties: dict[str, Any] | None = None,
    ) -> None:
        self._ask(
            call,
            self._store.CommitScene,
            store_pb2.CommitSceneRequest,
            dataset_id=dataset_id,
            scene=scene,
            version=version,
            attempt=attempt,
            cells=cells,
            bytes_total=bytes_total,
            properties_json=wire.dump_json(properties) if properties else b"",
        )

    def abort_scene(
        self,
        call: CallContext,
        dataset_id: str,
        scene: str,
        version: str,
        *,
        attempt: int = 0,
        holder: str = "",
    ) -> None:
        said = {"dataset_id": dataset_id, "scene": scene, "version": version, "holder": holder}
        kind = store_pb2.AbortSceneRequest
        self._ask(call, self._store.AbortScene, kind, attempt=attempt, **said)

    def keep_scene(
        self,
        call: CallContext,
        dataset_id: str,
        scene: str,
        version: str,
        *,
        attempt: int,
        holder: str,
    ) -> float:
        """Renews the lease; its length from now in seconds."""
        said = {"dataset_id": dataset_id, "scene": scene, "version": version, "holder": holder}
        kind = store_pb2.KeepSceneRequest
        return float(self._ask(call, self._store.KeepScene, kind, attempt=attempt, **said).lease_s)

    def get_scene_record(
        self, call: CallContext, dataset_id: str, scene: str
    ) -> SceneRecord | None:
        said = {"dataset_id": dataset_id, "scene": scene}
        answer = self._ask(
            call, self._store.GetSceneRecord, store_pb2.GetSceneRecordRequest, **said
        )
        return self._said(_read_record, answer)

    def get_status(self, call: CallContext) -> store_pb2.GetStatusResponse:
        """The store as one, and each node (`nodes`: see `status_from_wire`)."""
        answer: store_pb2.GetStatusResponse = self._ask(
            call, self._store.GetStatus, store_pb2.GetStatusRequest
        )
        return answer


class RowStream(Iterator[_Rows]):
    """The batches of an answer, as `decode` makes them of the bytes that came.

    The call runs already; closing it early cancels it.

    Ends without an error only behind the node's own end: a stream that breaks off, however
    it ended, raises UnavailableError.
    """

    def __init__(
        self,
        answers: Any,
        address: str,
        explain: Explain | None,
        decode: Callable[[bytes], _Rows],
    ) -> None:
        self._answers = answers
        self._address = address
        self._explain = explain
        self._decode = decode
        self._rows = 0
        self._is_closed = False
        self.is_over = False
        """Whether its end came with the rows that were given last; see `geostore.query.is_over`."""
        self.cursor = ""
        """The position behind the last batch, as the node wrote it."""

    def __next__(self) -> _Rows:
        if self._is_closed:
            raise StopIteration
        try:
            batch = None if self.is_over else self._read()
        except BaseException:
            self.close()
            raise
        if batch is None:
            self.close()
            raise StopIteration
        return batch

    def close(self) -> None:
        """Ends the call; harmless when it is over."""
        self._is_closed = True
        self._cancel()

    def __del__(self) -> None:
        with suppress(Exception):
            self._cancel()

    def _cancel(self) -> None:
        if not self.is_over:  # else the node is about to end it
            self._answers.cancel()

    def _read(self) -> _Rows | None:
        with raising_for(self._address):
            answer = next(self._answers, None)
        if answer is None:
            raise self._broken("it ended before its end was said")
        part = answer.WhichOneof("part")
        try:
            if part == "chunk":
                batch = self._decode(answer.chunk.rows)
                if len(batch) != answer.chunk.row_count:
                    raise self._broken(f"{len(batch)} rows, {answer.chunk.row_count} announced")
                self._rows += len(batch)
                self.cursor = answer.chunk.cursor
                if answer.chunk.HasField("end"):
                    self._take_end(answer.chunk.end)
                    self.is_over = True
                    # Its status is not waited for: the rows are whole whatever it says. gRPC
                    # cancels a call that nobody holds, so this one holds itself until it ends.
                    self._answers.add_done_callback(_let_end)
                return batch
            if part != "end":
                raise self._broken("a message has neither rows nor its end")
            self._take_end(answer.end)
        except (CorruptDataError, InvalidInputError) as error:
            raise self._broken(str(error)) from None
        self._hear_status()
        return None

    def _take_end(self, end: common_pb2.RowsEnd) -> None:
        if end.rows_total != self._rows:
            raise self._broken(f"{self._rows} rows came, not what its end says")
        if self._explain is not None and end.explain_json:
            wire.explain_from_json(end.explain_json, self._explain)

    def _hear_status(self) -> None:
        """Behind the end."""
        with raising_for(self._address):
            if next(self._answers, None) is not None:
                raise self._broken("it goes on behind its end")

    def _broken(self, why: str) -> UnavailableError:
        return UnavailableError(f"node {self._address}: its stream of rows is broken: {why}")


def _let_end(_call: Any) -> None:
    """Done with: nobody asks how."""


class BlockStream(Iterator[StoredBlock]):
    """The blocks of an answer. The call runs already; any thread may end it by `close`."""

    def __init__(
        self, answers: Any, wanted: Sequence[tuple[TileKey, Sequence[int]]], address: str
    ) -> None:
        self._answers = answers
        self._address = address
        self._blocks = self._taken(wanted)

    def _taken(self, wanted: Sequence[tuple[TileKey, Sequence[int]]]) -> Iterator[StoredBlock]:
        try:
            with raising_for(self._address):
                yield from wanted_blocks(self._answers, wanted, self._address)
        finally:
            self.close()

    def __next__(self) -> StoredBlock:
        return next(self._blocks)

    def close(self) -> None:
        """Ends the call; harmless when it is over."""
        self._answers.cancel()

    def __del__(self) -> None:
        with suppress(Exception):
            self._answers.cancel()


def _read_ring(text: bytes) -> Ring:
    return Ring.from_json(wire.load_json(text, "ring"))


def _read_slot_sizes(answer: Any) -> SlotSizes:
    return SlotSizes(
        slots=tuple(answer.slots), tiles=tuple(answer.tiles), bytes=tuple(answer.bytes)
    )


def _read_record(answer: Any) -> SceneRecord | None:
    return wire.record_from_json(answer.record_json) if answer.HasField("record_json") else None
