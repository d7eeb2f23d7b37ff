"""NodeService: what a node is asked about itself alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import grpc

from geostore.errors import InvalidInputError
from geostore.query import Explain, keys_from
from geostore.rpc import messages as wire
from geostore.rpc.block_streams import StoredBlock, block_messages
from geostore.rpc.coverage_answers import coverage_messages
from geostore.rpc.v1 import node_pb2, node_pb2_grpc
from geostore.server.arrivals import Arrivals
from geostore.server.call import Call, current_call
from geostore.server.services_calls import Door, answer_rows, answer_summary, take_tiles
from geostore.server.verifying import Verifying
from geostore.types import CallContext

__all__ = ["NodeService"]

Context = grpc.ServicerContext

READ_BYTES_MAX = 8 << 20
"""Of blocks read at once, unless a single one is larger: callers may ask for one block a
million times."""
READ_BLOCKS_MAX = 4096


class NodeService(node_pb2_grpc.NodeServiceServicer):
    """The leaf calls. None of them calls another node, so they always end.

    Details and blocks are read at a node that a row named, whatever the ring is by now.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        self._verifying = Verifying()
        self._arrivals = Arrivals()

    # ------------------------------------------------------------ tiles and scenes
    def StageTiles(  # noqa: N802 - the wire's names, here and below
        self, request_iterator: Iterator[node_pb2.StageTilesRequest], context: Context
    ) -> node_pb2.StageTilesResponse:
        with self._arrivals.arrival() as arrival:
            call, tiles, attempt = take_tiles(
                request_iterator, lambda head: self._door.begin(head, context), arrival
            )
            checksums = self._door.member.stage_tiles(call, tiles, attempt)
        return node_pb2.StageTilesResponse(checksums=checksums)

    def FindMissingCells(  # noqa: N802
        self, request: node_pb2.FindMissingCellsRequest, context: Context
    ) -> node_pb2.FindMissingCellsResponse:
        call = self._door.begin(request.head, context)
        asked = wire.publish_request(request.publication)
        return node_pb2.FindMissingCellsResponse(cells=self._door.member.missing_cells(call, asked))

    def PublishScene(  # noqa: N802
        self, request: node_pb2.PublishSceneRequest, context: Context
    ) -> node_pb2.PublishSceneResponse:
        call = self._door.begin(request.head, context)
        self._door.member.publish_scene(call, wire.publish_request(request.publication))
        return node_pb2.PublishSceneResponse()

    def ClearScene(  # noqa: N802
        self, request: node_pb2.ClearSceneRequest, context: Context
    ) -> node_pb2.ClearSceneResponse:
        call = self._door.begin(request.head, context)
        self._door.member.clear_scene(call, wire.clear_request(request))
        return node_pb2.ClearSceneResponse()

    # ------------------------------------------------------------ records and datasets
    def ReadSceneRecord(  # noqa: N802
        self, request: node_pb2.ReadSceneRecordRequest, context: Context
    ) -> node_pb2.ReadSceneRecordResponse:
        call = self._door.begin(request.head, context)
        record = self._door.member.scene_record(call, request.dataset_id, request.scene)
        text = None if record is None else wire.dump_json(record.to_json())
        return node_pb2.ReadSceneRecordResponse(record_json=text)

    def CopyRecord(  # noqa: N802
        self, request: node_pb2.CopyRecordRequest, context: Context
    ) -> node_pb2.CopyRecordResponse:
        call = self._door.begin(request.head, context)
        self._door.member.copy_record(call, wire.record_copy(request))
        return node_pb2.CopyRecordResponse()

    def LearnDataset(  # noqa: N802
        self, request: node_pb2.LearnDatasetRequest, context: Context
    ) -> node_pb2.LearnDatasetResponse:
        call = self._door.begin(request.head, context)
        definition = wire.definition_from_json(request.definition_json)
        changed = self._door.member.learn_dataset(call, definition)
        return node_pb2.LearnDatasetResponse(tiles_changed=changed)

    def ForgetDataset(  # noqa: N802
        self, request: node_pb2.ForgetDatasetRequest, context: Context
    ) -> node_pb2.ForgetDatasetResponse:
        call = self._door.begin(request.head, context)
        tiles = self._door.member.forget_dataset(call, request.dataset_id, request.name)
        return node_pb2.ForgetDatasetResponse(tiles=tiles)

    def NoteLostTiles(  # noqa: N802
        self, request: node_pb2.NoteLostTilesRequest, context: Context
    ) -> node_pb2.NoteLostTilesResponse:
        call = self._door.begin(request.head, context)
        self._door.member.note_lost_tiles(
            call, request.dataset_id, request.scene, request.version, tuple(request.cells)
        )
        return node_pb2.NoteLostTilesResponse()

    # ------------------------------------------------------------ queries
    def LeafQuery(  # noqa: N802
        self, request: node_pb2.LeafQueryRequest, context: Context
    ) -> Iterator[node_pb2.LeafQueryResponse]:
        call = self._door.begin(request.head, context)
        if request.answer_kind or request.read_quorum:
            raise InvalidInputError(
                f"answer_kind {request.answer_kind}, read_quorum {request.read_quorum}: expected"
                " neither, replicas are not compared yet"
            )
        asked = wire.leaf_query(request.question)
        explain = Explain() if request.explain else None
        batches = self._door.member.leaf_query(call, asked, explain)
        yield from answer_rows(
            node_pb2.LeafQueryResponse,
            batches,
            sort=asked.query.sort,
            explain=explain,
            end_with_rows=request.end_with_rows,
        )

    def LeafCount(  # noqa: N802
        self, request: node_pb2.LeafCountRequest, context: Context
    ) -> node_pb2.LeafCountResponse:
        call = self._door.begin(request.head, context)
        asked = wire.leaf_query(request.question)
        return node_pb2.LeafCountResponse(count=self._door.member.leaf_count(call, asked))

    def LeafSummarize(  # noqa: N802
        self, request: node_pb2.LeafSummarizeRequest, context: Context
    ) -> Iterator[node_pb2.LeafSummarizeResponse]:
        call = self._door.begin(request.head, context)
        asked, by = wire.leaf_query(request.question), keys_from(request.by)
        if asked.after is not None:
            raise InvalidInputError(f"after {asked.after.to_text()!r}: a summary has no order")
        summary = self._door.member.leaf_summary(call, asked, by)
        yield from answer_summary(node_pb2.LeafSummarizeResponse, summary)

    def LeafCoverage(  # noqa: N802
        self, request: node_pb2.LeafCoverageRequest, context: Context
    ) -> Iterator[node_pb2.LeafCoverageResponse]:
        call = self._door.begin(request.head, context)
        asked = wire.leaf_query(request.question)
        wanted = wire.coverage_request_from_json(request.wanted_json)
        answer = self._door.member.leaf_coverage(call, asked, wanted)
        yield from coverage_messages(node_pb2.LeafCoverageResponse, answer, current_call().check)

    # ------------------------------------------------------------ the node's state
    def GetSlotSizes(  # noqa: N802
        self, request: node_pb2.GetSlotSizesRequest, context: Context
    ) -> node_pb2.GetSlotSizesResponse:
        call = self._door.begin(request.head, context, placed=False)
        sizes = self._door.member.slot_sizes(call)
        return node_pb2.GetSlotSizesResponse(
            slots=sizes.slots, tiles=sizes.tiles, bytes=sizes.bytes
        )

    def VerifyNode(  # noqa: N802
        self, request: node_pb2.VerifyNodeRequest, context: Context
    ) -> Iterator[node_pb2.VerifyNodeResponse]:
        call = self._door.begin(request.head, context, placed=False)
        member, served = self._door.member, current_call()
        yield from self._verifying.answer(
            lambda progress: member.verify(call, progress), served.check
        )

    # ------------------------------------------------------------ reading tiles
    def GetTileDetails(  # noqa: N802
        self, request: node_pb2.GetTileDetailsRequest, context: Context
    ) -> Iterator[node_pb2.GetTileDetailsResponse]:
        call = self._door.begin(request.head, context, placed=False)
        for key in request.keys:
            current_call().check()
            [details] = self._door.member.tile_details(call, [wire.key_from_wire(key)])
            yield wire.details_to_wire(details)

    def ReadBlocks(  # noqa: N802
        self, request: node_pb2.ReadBlocksRequest, context: Context
    ) -> Iterator[bytes]:
        call = self._door.begin(request.head, context, placed=False)
        # In this thread: making the next message in another one doubles the node's CPU time,
        # since the two pass the interpreter's lock back and forth (docs/benchmarks.md).
        yield from block_messages(self._blocks(call, current_call(), request))

    def _blocks(
        self, call: CallContext, served: Call, request: node_pb2.ReadBlocksRequest
    ) -> Iterator[StoredBlock]:
        """Some of one tile's blocks in memory at a time."""
        member = self._door.member
        for number, wanted in enumerate(request.wanted):
            key = wire.key_from_wire(wanted.key)
            table = member.node.block_table(key)
            for indices in _some(wanted.indices, [length for _, length, _, _ in table]):
                served.check()
                stored = member.read_blocks(call, key, indices)
                for index, data in zip(indices, stored, strict=True):
                    _, _, fill, checksum = table[index]
                    yield StoredBlock(number, index, fill, checksum, data)


def _some(indices: Iterable[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """The indices in parts that are read at once; those outside of the table as they are."""
    part: list[int] = []
    held = 0
    for index in indices:
        size = lengths[index] if index < len(lengths) else 0
        if part and (held + size > READ_BYTES_MAX or len(part) == READ_BLOCKS_MAX):
            yield part
            part, held = [], 0
        part.append(index)
        held += size
    if part:
        yield part
