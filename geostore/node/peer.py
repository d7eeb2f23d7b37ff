"""How a node speaks to the nodes of its ring, itself among them.

The server injects peers that speak gRPC; tests inject others. Any method may raise
UnavailableError (the node cannot be reached, or not before the deadline) beside what the
called node itself raises.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from geostore.query import (
    CoverageAnswer,
    CoverageRequest,
    Explain,
    LeafQuery,
    Summary,
    SummaryKeys,
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
)

__all__ = ["Peer", "Peers"]


class Peer(Protocol):
    """One node. None of these makes the called node call another one."""

    def stage_tiles(
        self, call: CallContext, tiles: Sequence[EncodedTile], attempt: int
    ) -> list[str]:
        """Makes tiles durable, unseen; their stored checksums.

        Raises ConflictError: `attempt` was cleared or overtaken.
        """
        ...

    def missing_cells(self, call: CallContext, request: PublishRequest) -> tuple[str, ...]:
        """Those of `request.cells` that are neither staged nor published here.

        What a scene's home asks before it decides: only durable tiles are committed.
        """
        ...

    def publish_scene(self, call: CallContext, request: PublishRequest) -> None:
        """One catalog transaction; done again it changes nothing.

        Raises NotFoundError: a cell of the request is neither staged nor published.
        """
        ...

    def clear_scene(self, call: CallContext, request: ClearRequest) -> None: ...

    def scene_record(
        self, call: CallContext, dataset_id: str, scene: str
    ) -> SceneRecord | None: ...

    def note_lost_tiles(
        self, call: CallContext, dataset_id: str, scene: str, version: str, cells: Sequence[str]
    ) -> None:
        """To a scene's home: a node has no sound file of these tiles any more.

        Raises UnavailableError: an attempt is under way, tell it later.
        """
        ...

    def slot_sizes(self, call: CallContext) -> SlotSizes:
        """What it holds, by slot."""
        ...

    def copy_record(self, call: CallContext, copy: RecordCopy) -> None: ...

    def learn_dataset(self, call: CallContext, definition: DatasetDefinition) -> int:
        """Keeps a definition that its home decided, and has its cloud rule in force here.

        How many tiles have another cloud cover by that, of those whose first replica it is.
        Raises ConflictError: the id is deleted.
        """
        ...

    def forget_dataset(self, call: CallContext, dataset_id: str, name: str) -> int:
        """Removes a dataset that its home deleted, for ever; how many tiles it had here."""
        ...

    def leaf_query(
        self, call: CallContext, request: LeafQuery, explain: Explain | None = None
    ) -> Iterator[RowBatch]:
        """The node's own matching rows, in order. The call itself starts the work; closing
        the iterator ends it. An unknown dataset is no error: no rows.
        """
        ...

    def leaf_count(self, call: CallContext, request: LeafQuery) -> int: ...

    def leaf_summary(self, call: CallContext, request: LeafQuery, by: SummaryKeys) -> Summary:
        """The node's own matching rows by groups.

        Raises InvalidInputError: more groups than a summary may have.
        """
        ...

    def leaf_coverage(
        self, call: CallContext, request: LeafQuery, wanted: CoverageRequest
    ) -> CoverageAnswer:
        """What the node's own matching tiles cover together. An unknown dataset is no error."""
        ...

    def node_status(self, call: CallContext) -> NodeStatus: ...


class Peers(Protocol):
    """All nodes of the ring, by id."""

    def peer(self, node_id: str) -> Peer:
        """Raises UnavailableError: no such node in the ring."""
        ...
