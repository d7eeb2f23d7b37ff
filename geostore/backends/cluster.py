"""The cluster store: a client of its nodes, which keeps nothing but their ring."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from geostore.backends.cluster_nodes import ClusterNodes, Connect, Tries, home_of
from geostore.backends.cluster_scenes import ClusterScenes
from geostore.backends.cluster_tiles import ClusterTiles
from geostore.backends.cluster_verification import verify_nodes
from geostore.config import Target
from geostore.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    ReadOnlyError,
    UnavailableError,
)
from geostore.query import (
    CoverageAnswer,
    CoverageRequest,
    Cursor,
    Explain,
    Query,
    Summary,
    SummaryKeys,
)
from geostore.ring import RingNode, placement_key, slot_of
from geostore.rpc.messages import status_from_wire
from geostore.rpc.transport import PLAINTEXT, Security
from geostore.types import CallContext, DatasetDefinition, RowBatch, SceneRecord
from geostore.types.report import StoreStatus
from geostore.types.scene import WritingTurn

if TYPE_CHECKING:
    import pyarrow as pa

    from geostore.rpc.client import NodeClient, RowStream
    from geostore.types import EncodedTile, TileBlocks, TileDetails, TileKey
    from geostore.types.report import Progress, VerifyReport

__all__ = ["ClusterBackend", "open_cluster"]

Mode = Literal["a", "r"]
_Rows = TypeVar("_Rows", bound=Sized)

# For one try of a call, each by what it may have to do.
READ_TIMEOUT_S = 20.0
"""Definitions, records, status."""
QUERY_TIMEOUT_S = 300.0
"""A stream that takes longer goes on in another one."""
DATASET_TIMEOUT_S = 60.0


def open_cluster(
    target: Target,
    *,
    mode: Mode = "a",
    security: Security = PLAINTEXT,
    connect: Connect | None = None,
) -> ClusterBackend:
    """Opens a cluster by the addresses of some of its nodes.

    Raises:
        UnavailableError: none of the addresses answers; it names each and why.
        InvalidInputError: an address that `security` does not cover.
    """
    backend = ClusterBackend(target, mode=mode, security=security, connect=connect)
    try:
        backend.connect_now()
    except BaseException:
        backend.close()
        raise
    return backend


class ClusterBackend:
    """A Backend over the nodes of a ring (see `geostore.backends.protocol.Backend`).

    It connects at its first call. It may be pickled, and used in a forked or spawned process:
    there it connects anew, and works on no scene that was begun elsewhere.
    """

    def __init__(
        self,
        target: Target,
        *,
        mode: Mode = "a",
        security: Security = PLAINTEXT,
        connect: Connect | None = None,
        nodes: ClusterNodes | None = None,
    ) -> None:
        self._target = target
        self._mode: Mode = mode
        self._security = security
        self._connect = connect
        self._nodes = nodes or ClusterNodes(target, security=security, connect=connect)
        self._scenes = ClusterScenes(self._nodes, self._slot)
        self._tiles = ClusterTiles(self._nodes, self._slot)
        self._definitions: dict[str, DatasetDefinition] = {}
        """Complete ones, by id: what placement follows from never changes."""

    @property
    def name(self) -> str:
        """The target: `geostore://host:port[,host:port...]`."""
        return str(self._target)

    def holders(self, slot: int) -> list[tuple[str, str]]:
        """Name and address of the nodes that hold a slot, its first replica first."""
        ring = self._nodes.ring(CallContext.within(READ_TIMEOUT_S))
        return [(node.name, node.address) for node in ring.replicas_of(slot)]

    def connect_now(self) -> None:
        """Fetches the ring if it is not known yet."""
        self._nodes.check_open()
        call = CallContext.within(READ_TIMEOUT_S)
        self._nodes.ring(call)
        self._nodes.check_seeds(call)

    def __reduce__(self) -> tuple[Callable[..., ClusterBackend], tuple[Any, ...]]:
        return _open_again, (self._target, self._mode, self._security, self._connect)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._scenes.close()
        self._nodes.close()

    def _check_writable(self) -> None:
        self._nodes.check_open()
        if self._mode == "r":
            raise ReadOnlyError(f"store {self.name}: opened with mode 'r'; mode 'a' writes")

    # ------------------------------------------------------------ datasets

    def datasets(self) -> list[DatasetDefinition]:
        return self._nodes.ask(
            "the list of datasets", self._nodes.entries, READ_TIMEOUT_S, _list_datasets
        )

    def dataset(self, name: str) -> DatasetDefinition:
        return self._nodes.ask(
            f"dataset {name!r}",
            self._nodes.entries,
            READ_TIMEOUT_S,
            lambda client, call: client.get_dataset(call, name),
        )

    def create_dataset(self, definition: DatasetDefinition) -> None:
        self._change_dataset(
            definition, lambda client, call: client.create_dataset(call, definition)
        )

    def replace_dataset(self, old: DatasetDefinition, new: DatasetDefinition) -> int:
        return self._change_dataset(
            new, lambda client, call: client.replace_dataset(call, old, new)
        )

    def _change_dataset(
        self, wanted: DatasetDefinition, change: Callable[[NodeClient, CallContext], int | None]
    ) -> int:
        """How many tiles it changed, as far as it told."""
        self._check_writable()
        is_lost = False
        """Whether an earlier try may have been done without an answer."""

        def act(client: NodeClient, call: CallContext) -> int:
            nonlocal is_lost
            try:
                return change(client, call) or 0
            except UnavailableError:
                is_lost = True
                raise
            except ConflictError:
                if not is_lost or client.get_dataset(call, wanted.name) != wanted:
                    raise
                return 0

        home = home_of(f"dataset/{wanted.name}")
        what = f"dataset {wanted.name!r}, at its home"
        return self._nodes.ask(what, home, DATASET_TIMEOUT_S, act)

    def delete_dataset(self, name: str) -> int:
        self._check_writable()
        return self._nodes.ask(
            f"deletion of dataset {name!r}, at its home",
            home_of(f"dataset/{name}"),
            DATASET_TIMEOUT_S,
            lambda client, call: client.delete_dataset(call, name),
            # Done twice, the second time would say that there is no such dataset.
            is_repeatable=False,
        )

    def _slot(self, key: TileKey) -> int:
        definition = self._definitions.get(key.dataset_id)
        if definition is None:
            self._remember(self.datasets())
            definition = self._definitions.get(key.dataset_id)
        if definition is None or definition.placement is None:
            raise NotFoundError(
                f"store {self.name}: no dataset of id {key.dataset_id!r} that could have tiles"
            )
        return slot_of(placement_key(key.geocode, definition.placement))

    def _remember(self, definitions: Sequence[DatasetDefinition]) -> None:
        self._definitions.update({one.id: one for one in definitions if one.is_complete})

    # ------------------------------------------------------------ scenes

    takes_many_writers = True

    def writing_turns(self) -> AbstractContextManager[WritingTurn]:
        return nullcontext(lambda check: nullcontext())  # noqa: ARG005 - nobody waits

    def begin_scene(
        self,
        definition: DatasetDefinition,
        scene: str,
        version: str,
        cells: Sequence[str],
        *,
        replace: bool = False,
        path: str = "",
        reader: str = "",
    ) -> SceneRecord | None:
        self._check_writable()
        self._remember([definition])
        return self._scenes.begin(
            definition, scene, version, cells, replace=replace, path=path, reader=reader
        )

    def put_tiles(self, tiles: Sequence[EncodedTile]) -> list[str]:
        self._check_writable()
        return self._scenes.put(tiles)

    def commit_scene(
        self,
        dataset_id: str,
        scene: str,
        version: str,
        cells: Sequence[str],
        *,
        bytes_total: int,
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        self._check_writable()
        self._scenes.commit(
            dataset_id, scene, version, cells, bytes_total=bytes_total, properties=properties
        )

    def abort_scene(self, dataset_id: str, scene: str, version: str) -> None:
        self._check_writable()
        self._scenes.abort(dataset_id, scene, version)

    def scene_record(self, dataset_id: str, scene: str) -> SceneRecord | None:
        return self._scenes.record(dataset_id, scene)

    # ------------------------------------------------------------ queries

    def query(self, query: Query, explain: Explain | None = None) -> Iterator[RowBatch]:
        """See `Backend.query`. Where a node is lost another one goes on behind the last row;
        `explain` then tells of that part.
        """
        self._nodes.check_open()
        return self._stream(
            query,
            lambda client, call, rest, after: client.query(
                call, rest, after=after, explain=explain
            ),
            lambda _, batch: Cursor.after(batch, query.sort),
        )

    def query_arrow(self, query: Query) -> Iterator[pa.RecordBatch]:
        self._nodes.check_open()
        return self._stream(
            query,
            lambda client, call, rest, after: client.query_arrow(call, rest, after=after),
            lambda stream, _: Cursor.from_text(stream.cursor),
        )

    def _stream(
        self,
        query: Query,
        ask: Callable[[NodeClient, CallContext, Query, Cursor | None], RowStream[_Rows]],
        position: Callable[[RowStream[_Rows], _Rows], Cursor],
    ) -> Iterator[_Rows]:
        """What `ask` streams; `position` is that behind a stream's last batch."""
        after: Cursor | None = None
        rest = query
        while True:
            tries = Tries(self._nodes, "a query", self._nodes.entries, QUERY_TIMEOUT_S)
            has_moved = False
            for node, client, call in tries:
                try:
                    with closing(ask(client, call, rest, after)) as stream:
                        for batch in stream:
                            if len(batch):
                                after = position(stream, batch)
                                rest = _less(rest, len(batch))
                                has_moved = True
                            yield batch
                except UnavailableError as error:
                    tries.note(node, error)
                    if rest.limit == 0 and has_moved:
                        return
                    if has_moved:
                        self._prefer_another(node)
                        break
                else:
                    self._nodes.prefer(node.address)
                    return
            if not has_moved:
                raise tries.error()

    def _prefer_another(self, lost: RingNode) -> None:
        ring = self._nodes.ring(CallContext.within(READ_TIMEOUT_S))
        places = [node.id for node in ring.nodes]
        if lost.id in places:
            self._nodes.prefer(ring.nodes[(places.index(lost.id) + 1) % len(places)].address)

    def count(self, query: Query) -> int:
        return self._nodes.ask(
            "a count",
            self._nodes.entries,
            QUERY_TIMEOUT_S,
            lambda client, call: client.count(call, query),
        )

    def summary(self, query: Query, by: SummaryKeys) -> Summary:
        return self._nodes.ask(
            "a summary",
            self._nodes.entries,
            QUERY_TIMEOUT_S,
            lambda client, call: client.summary(call, query, by),
        )

    def coverage(self, query: Query, request: CoverageRequest) -> CoverageAnswer:
        return self._nodes.ask(
            "a search for coverage",
            self._nodes.entries,
            QUERY_TIMEOUT_S,
            lambda client, call: client.coverage(call, query, request),
        )

    # ------------------------------------------------------------ tiles

    def details(self, key: TileKey) -> TileDetails:
        return self._tiles.details(key)

    def details_of(self, keys: Sequence[TileKey]) -> list[TileDetails]:
        return self._tiles.details_of(keys)

    def read_blocks(self, key: TileKey, indices: Sequence[int]) -> list[memoryview | None]:
        return self._tiles.read_blocks(key, indices)

    def read_tiles(
        self, wanted: Iterable[tuple[TileKey, Sequence[int]]]
    ) -> Generator[TileBlocks, None, None]:
        self._nodes.check_open()
        return self._tiles.read(wanted)

    # ------------------------------------------------------------ the store

    def status(self) -> StoreStatus:
        said = self._nodes.ask(
            "status",
            self._nodes.entries,
            READ_TIMEOUT_S,
            lambda client, call: client.get_status(call),
        )
        try:
            nodes = tuple(status_from_wire(node) for node in said.nodes)
        except InvalidInputError as error:
            raise UnavailableError(
                f"store {self.name}: its status does not read: {error}"
            ) from None
        reasons = [f"node {n.name}: {n.read_only_reason}" for n in nodes if n.read_only_reason]
        return StoreStatus(
            path=self.name,
            store_id=said.cluster_id,
            format_version=said.format_version,
            created_us=said.created_us,
            datasets=said.datasets,
            scenes=said.scenes,
            tiles=said.tiles,
            bytes=said.bytes,
            slots_used=said.slots_used,
            disk_free_bytes=sum(node.disk_free_bytes for node in nodes),
            is_writer=False,
            read_only_reason="; ".join(reasons) or None,
            nodes=nodes,
            slots_missing=said.slots_missing,
        )

    def verify(self, progress: Progress | None = None, *, rebuild: bool = False) -> VerifyReport:
        self._nodes.check_open()
        if rebuild:
            raise InvalidInputError(
                f"store {self.name}: a cluster's catalogs are rebuilt one by one: stop a node, run"
                " `geostore --store DIRECTORY verify --rebuild` on its directory, start it again"
            )
        return verify_nodes(self._nodes, progress)


def _list_datasets(client: NodeClient, call: CallContext) -> list[DatasetDefinition]:
    return client.list_datasets(call)


def _less(query: Query, rows: int) -> Query:
    """What is left to ask for when `rows` rows were given."""
    if query.limit is None:
        return query
    return replace(query, limit=max(0, query.limit - rows))


def _open_again(
    target: Target, mode: Mode, security: Security, connect: Connect | None
) -> ClusterBackend:
    return ClusterBackend(target, mode=mode, security=security, connect=connect)
