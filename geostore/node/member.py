"""One node of a ring, without sockets: what it does itself, and what it has others do.

The leaf calls are `geostore.node.peer.Peer`'s: they touch this node's disk alone. The
coordinated ones may ask other nodes, through the peers that were given. Calls about a
dataset or a scene go to its record's home, the first replica of the slot of the record's
name; another node says whose they are.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from geostore.config import installed_version
from geostore.errors import ConflictError, GeostoreError, NotFoundError, UnavailableError
from geostore.node import scene_states as states
from geostore.node.commit_files import write_home_file
from geostore.node.coordinator import Coordinator
from geostore.node.dataset_home import DatasetHome
from geostore.node.leases import LEASE_S
from geostore.node.node import Node
from geostore.node.peer import Peer, Peers
from geostore.node.records import (
    LOST_DATASETS,
    LOST_TILES_PREFIX,
    dataset_of_scene_record,
    dataset_record_name,
    scene_record_name,
)
from geostore.node.scene_home import check_begin
from geostore.node.scene_keeper import SceneKeeper, keep_copy, read_copy
from geostore.node.store_sizes import counted_once
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
from geostore.ring import Ring, RingNode, placement_key, slot_of, with_address, with_node_joined
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
    StoreSizes,
    TileDetails,
    TileKey,
)
from geostore.types.report import Progress, VerifyReport

__all__ = ["Member"]

_log = logging.getLogger(__name__)

THREADS_MAX: Final = 32
STATUS_TRY_S: Final = 4.0
"""For one node's word on how it is: one that hangs must not cost the caller the others'."""


class Member:
    """A node, its ring and its peers. Calls may come from any thread.

    `save_ring` makes a ring durable before it is used. `node` was opened with `is_member`
    and the writer lock.
    """

    def __init__(
        self,
        node: Node,
        *,
        own_id: str,
        ring: Ring,
        peers: Peers,
        save_ring: Callable[[Ring], None],
        clock_s: Callable[[], float] = time.monotonic,
        lease_s: float = LEASE_S,
    ) -> None:
        self.node = node
        self.own_id = own_id
        self._ring = ring
        self._ring_lock = threading.Lock()
        self._peers = peers
        self._save_ring = save_ring
        self._started_s = clock_s()
        self._clock_s = clock_s
        self._pool = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="geostore-member")
        self._dataset_home = DatasetHome(
            node, own_id=own_id, ring=self.ring, peers=peers, pool=self._pool
        )
        self._coordinator = Coordinator(own_id, self.ring, peers, node.datasets)
        self._keeper = SceneKeeper(
            own_id=own_id,
            catalog=node.catalog,
            writing=node.writing,
            placement=node.known_datasets.placement,
            ring=self.ring,
            peers=peers,
            clock_s=clock_s,
            lease_s=lease_s,
            step=node.disk.step,
            remember=partial(write_home_file, node.directory, node.disk),
        )
        self._name_rows()

    def close(self) -> None:
        """Ends the threads. The node is its opener's to close."""
        self._keeper.close()
        self._coordinator.close()
        self._pool.shutdown(cancel_futures=True)

    @property
    def lease_s(self) -> float:
        """How long an ingester may be silent before its attempt is given up."""
        return self._keeper.lease_s

    # ------------------------------------------------------------------ the ring

    def ring(self) -> Ring:
        """The newest ring this node knows."""
        return self._ring

    def take_ring(self, call: CallContext, ring: Ring) -> int:  # noqa: ARG002 - every call has one
        """Takes a newer ring; returns the epoch that is in force then.

        Raises:
            ConflictError: another cluster's, or another ring of the same epoch.
        """
        with self._ring_lock:
            if ring.cluster_id != self._ring.cluster_id:
                raise ConflictError(
                    f"ring of cluster {ring.cluster_id}: this node belongs to"
                    f" {self._ring.cluster_id}"
                )
            if ring.epoch == self._ring.epoch and ring != self._ring:
                raise ConflictError(f"ring of epoch {ring.epoch}: another one is in force here")
            if ring.epoch > self._ring.epoch:
                self._save_ring(ring)
                self._ring = ring
                self._name_rows()
            return self._ring.epoch

    def join(self, call: CallContext, newcomer: RingNode) -> Ring:
        """The founder takes a node into the ring, or notes its new address.

        Raises:
            UnavailableError: this is not the founder; names it.
            ConflictError: the store is not empty, or the name is another node's.
        """
        with self._ring_lock:
            ring = self._ring
            if ring.founder != self.own_id:
                founder = ring.node(ring.founder)
                raise UnavailableError(
                    f"node {newcomer.name} asks to join: the founder {founder.name} at"
                    f" {founder.address} writes the ring, ask there"
                )
            changed = self._with(ring, newcomer)
            if changed is not ring:
                self._save_ring(changed)
                self._ring = changed
                self._name_rows()
        self._push_ring(call, newcomer.id)  # which has it from the answer
        return self._ring

    def _with(self, ring: Ring, newcomer: RingNode) -> Ring:
        for node in ring.nodes:
            if node.id == newcomer.id:
                same = node.address == newcomer.address
                return ring if same else with_address(ring, node.id, newcomer.address)
            if node.name == newcomer.name:
                raise ConflictError(
                    f"node name {newcomer.name!r} is taken by the node at {node.address}; give"
                    " another --name"
                )
        if self.node.datasets() or self.node.known_datasets.deleted():
            raise ConflictError(
                f"node {newcomer.name!r} cannot join: nodes join while the store is empty, and"
                f" this one has {len(self.node.datasets())} datasets"
            )
        return with_node_joined(ring, newcomer, None)

    def _push_ring(self, call: CallContext, but: str) -> None:
        """Best effort: who misses it is told by the first call with an old epoch."""
        ring = self._ring
        for node in ring.nodes:
            take = getattr(self._peers.peer(node.id), "take_ring", None)
            if node.id in (self.own_id, but) or take is None:
                continue
            try:
                take(call, ring)
            except GeostoreError as error:
                _log.warning("node=%s did not take ring epoch=%d: %s", node.name, ring.epoch, error)

    def _name_rows(self) -> None:
        ring = self._ring
        self.node.catalog.set_nodes(
            lambda slot: tuple(node.name for node in ring.replicas_of(slot))
        )

    def _require_home(self, record_name: str, what: str) -> None:
        ring = self._ring
        home = ring.first_of(slot_of(record_name))
        if home.id != self.own_id:
            raise UnavailableError(
                f"{what}: its record's home is node {home.name} at {home.address}, not this one"
                f" (ring epoch {ring.epoch})"
            )

    # ------------------------------------------------------------------ leaf calls

    def stage_tiles(
        self, call: CallContext, tiles: Sequence[EncodedTile], attempt: int
    ) -> list[str]:
        """See `Peer`."""
        call.check("staging tiles")
        return self.node.tile_holder.stage(tiles, attempt)

    def missing_cells(self, call: CallContext, request: PublishRequest) -> tuple[str, ...]:
        """See `Peer`."""
        call.check("confirming tiles")
        return self.node.tile_holder.missing_cells(request)

    def publish_scene(self, call: CallContext, request: PublishRequest) -> None:
        """See `Peer`."""
        call.check("publishing a scene")
        self.node.tile_holder.publish(request)

    def clear_scene(self, call: CallContext, request: ClearRequest) -> None:
        """See `Peer`."""
        call.check("clearing a scene")
        self.node.tile_holder.clear(request)

    def scene_record(self, call: CallContext, dataset_id: str, scene: str) -> SceneRecord | None:
        """See `Peer`."""
        call.check("reading a scene's record")
        return self._keeper.record(dataset_id, scene)

    def copy_record(self, call: CallContext, copy: RecordCopy) -> None:
        """See `Peer`."""
        call.check("copying a record")
        with self.node.writing():
            self.node.known_datasets.require_not_deleted(dataset_of_scene_record(copy.name))
            keep_copy(self.node.catalog, copy, self.node.disk.step)

    def learn_dataset(self, call: CallContext, definition: DatasetDefinition) -> int:
        """See `Peer`."""
        call.check("learning a dataset")
        return self._dataset_home.learn(definition)

    def forget_dataset(self, call: CallContext, dataset_id: str, name: str) -> int:
        """See `Peer`."""
        call.check("forgetting a dataset")
        return self._dataset_home.forget(dataset_id, name)

    def leaf_query(
        self, call: CallContext, request: LeafQuery, explain: Explain | None = None
    ) -> Iterator[RowBatch]:
        """See `Peer`."""
        call.check("querying")
        return self.node.catalog.query(
            request.query,
            batch_rows=request.batch_rows,
            explain=explain,
            after=request.after,
            slots=request.slots,
            missing_ok=True,
        )

    def leaf_count(self, call: CallContext, request: LeafQuery) -> int:
        """See `Peer`."""
        call.check("counting")
        return self.node.catalog.count(request.query, slots=request.slots, missing_ok=True)

    def leaf_summary(self, call: CallContext, request: LeafQuery, by: SummaryKeys) -> Summary:
        """See `Peer`."""
        call.check("summing up")
        return self.node.catalog.aggregate(request.query, by, slots=request.slots, missing_ok=True)

    def leaf_coverage(
        self, call: CallContext, request: LeafQuery, wanted: CoverageRequest
    ) -> CoverageAnswer:
        """See `Peer`."""
        call.check("searching coverage")
        return self.node.catalog.coverage(
            request.query, wanted, slots=request.slots, missing_ok=True
        )

    def tile_details(self, call: CallContext, keys: Sequence[TileKey]) -> list[TileDetails]:
        """Block tables and the like. Raises NotFoundError: a tile is not published here."""
        call.check("reading tile details")
        return [self.node.details(key) for key in keys]

    def read_blocks(
        self, call: CallContext, key: TileKey, indices: Sequence[int]
    ) -> list[memoryview | None]:
        """Stored bytes of blocks; see `Backend.read_blocks`."""
        call.check("reading blocks")
        return self.node.read_blocks(key, indices)

    def node_status(self, call: CallContext) -> NodeStatus:
        """See `Peer`."""
        call.check("node status")
        ring, state = self._ring, self.node.status()
        own = ring.node(self.own_id)
        return NodeStatus(
            id=own.id,
            name=own.name,
            address=own.address,
            zone=own.zone,
            state="serving",
            epoch=ring.epoch,
            slots=len(ring.slots_of(own.id)),
            slots_first=len(ring.first_slots_of(own.id)),
            slots_used=state.slots_used,
            datasets=state.datasets,
            scenes=state.scenes,
            tiles=state.tiles,
            bytes=state.bytes,
            disk_free_bytes=state.disk_free_bytes,
            read_only_reason=state.read_only_reason,
            version=installed_version(),
            clock_us=time.time_ns() // 1000,
            uptime_s=self._clock_s() - self._started_s,
        )

    # ------------------------------------------------------------------ queries

    def query(
        self,
        call: CallContext,
        query: Query,
        explain: Explain | None = None,
        after: Cursor | None = None,
        batch_rows: int = 4096,
    ) -> Iterator[RowBatch]:
        """All matching rows of the store, in order; see `Coordinator.query`."""
        self._dataset_home.require_known()
        return self._coordinator.query(call, query, explain, after, batch_rows)

    def count(self, call: CallContext, query: Query) -> int:
        """How many tiles of the store match."""
        self._dataset_home.require_known()
        return self._coordinator.count(call, query)

    def summary(self, call: CallContext, query: Query, by: SummaryKeys) -> Summary:
        """The tiles of the store that match, by groups."""
        self._dataset_home.require_known()
        return self._coordinator.summary(call, query, by)

    def coverage(self, call: CallContext, query: Query, wanted: CoverageRequest) -> CoverageAnswer:
        """What tiles of the store cover together."""
        self._dataset_home.require_known()
        return self._coordinator.coverage(call, query, wanted)

    def cluster_status(self, call: CallContext) -> list[NodeStatus]:
        """Every node as it says itself, in ring order; those that do not answer, too."""
        ring, call = self._ring, _shorter(call)
        futures = [self._pool.submit(self._status_of, call, node, ring) for node in ring.nodes]
        return [future.result() for future in futures]

    def _status_of(self, call: CallContext, node: RingNode, ring: Ring) -> NodeStatus:
        try:
            if node.id == self.own_id:
                return self.node_status(call)
            return self._peers.peer(node.id).node_status(call)
        except GeostoreError as error:
            return NodeStatus(
                id=node.id,
                name=node.name,
                address=node.address,
                zone=node.zone,
                state="unreachable",
                epoch=0,
                slots=len(ring.slots_of(node.id)),
                slots_first=len(ring.first_slots_of(node.id)),
                slots_used=0,
                datasets=0,
                scenes=0,
                tiles=0,
                bytes=0,
                disk_free_bytes=0,
                error=str(error),
            )

    def verify(self, call: CallContext, progress: Progress | None = None) -> VerifyReport:
        """Reads and checks all that this node holds; changes nothing."""
        call.check("verifying")
        return self.node.verify(progress)

    def note_lost_tiles(
        self, call: CallContext, dataset_id: str, scene: str, version: str, cells: Sequence[str]
    ) -> None:
        """See `Peer`."""
        self._require_home(scene_record_name(dataset_id, scene), f"scene {scene!r}")
        self._keeper.note_lost(call, dataset_id, scene, version, cells)

    def slot_sizes(self, call: CallContext) -> SlotSizes:
        """See `Peer`."""
        call.check("sizes by slot")
        return self.node.catalog.slot_sizes()

    def store_sizes(self, call: CallContext) -> StoreSizes:
        """What the whole store holds, as far as there are nodes that answer."""
        ring, call = self._ring, _shorter(call)
        futures = {
            node: self._pool.submit(self._slot_sizes_of, call, node.id) for node in ring.nodes
        }
        answers = {}
        for node, future in futures.items():
            try:
                answers[node.id] = future.result()
            except GeostoreError as error:
                _log.info("node=%s did not tell its sizes: %s", node.name, error)
        return counted_once(ring, answers)

    def _slot_sizes_of(self, call: CallContext, node_id: str) -> SlotSizes:
        return self._peers.peer(node_id).slot_sizes(call)

    # ------------------------------------------------------------------ datasets

    def list_datasets(self, call: CallContext) -> list[DatasetDefinition]:
        """All datasets, by name."""
        call.check("listing datasets")
        self._dataset_home.require_known()
        return self.node.datasets()

    def get_dataset(self, call: CallContext, name: str) -> DatasetDefinition:
        """Raises NotFoundError, which names the known ones."""
        call.check("reading a dataset")
        self._dataset_home.require_known()
        return self.node.dataset(name)

    def create_dataset(self, call: CallContext, definition: DatasetDefinition) -> None:
        """See `Backend.create_dataset`. All nodes know it when this returns."""
        self._dataset_home.require_known()
        self._require_home(dataset_record_name(definition.name), f"dataset {definition.name!r}")
        self._dataset_home.create(call, definition)

    def replace_dataset(
        self, call: CallContext, old: DatasetDefinition, new: DatasetDefinition
    ) -> int:
        """See `Backend.replace_dataset`. All nodes know it when this returns."""
        self._require_home(dataset_record_name(old.name), f"dataset {old.name!r}")
        return self._dataset_home.replace(call, old, new)

    def delete_dataset(self, call: CallContext, name: str) -> int:
        """See `Backend.delete_dataset`. Gone from all nodes when this returns.

        Where an earlier call could not tell all nodes, this one does, and counts no tiles.
        """
        self._require_home(dataset_record_name(name), f"dataset {name!r}")
        try:
            definition = self.node.dataset(name)
        except NotFoundError:
            if self._dataset_home.finish_deletion(call, name):
                return 0
            raise
        tiles = self.count(call, Query(datasets=(name,)))
        self._dataset_home.delete(call, definition)
        return tiles

    def _ask_one(self, node_id: str, ask: Callable[[Peer], Any]) -> Any:
        return ask(self._peers.peer(node_id))

    # ------------------------------------------------------------------ scenes

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
    ) -> SceneRecord:
        """Opens or joins an attempt for `holder`; not STAGING where nothing is to be done.

        Raises what `Backend.begin_scene` does.
        """
        self._require_home(scene_record_name(definition.id, scene), f"scene {scene!r}")
        self.node.known_datasets.require_same(definition)
        check_begin(definition, version, cells)
        event = states.Begin(
            dataset_id=definition.id,
            scene=scene,
            version=version,
            cells=tuple(cells),
            replace=replace,
            path=path,
            reader=reader,
        )
        return self._keeper.begin(call, event, holder)

    def put_tiles(self, call: CallContext, tiles: Sequence[EncodedTile], attempt: int) -> list[str]:
        """Stages tiles here, their slots' first replica, and at the other replicas.

        Where a tile was put before with other bytes, the others get those: copies are alike.
        """
        ring = self._ring
        others: dict[str, list[EncodedTile]] = {}
        for tile in tiles:
            key = tile.meta.key
            placement = self.node.known_datasets.placement(key.dataset_id)
            first, *copies = ring.replicas_of(slot_of(placement_key(key.geocode, placement)))
            if first.id != self.own_id:
                raise UnavailableError(
                    f"tile {key.geocode}: its slot's first replica is node {first.name} at"
                    f" {first.address}, not this one (ring epoch {ring.epoch})"
                )
            for node in copies:
                others.setdefault(node.id, []).append(tile)
        checksums = self.stage_tiles(call, tiles, attempt)
        kept = {
            tile.meta.key: self.node.tile_holder.stored_tile(tile.meta.key)
            for tile, checksum in zip(tiles, checksums, strict=True)
            if others and checksum != tile.checksum
        }
        futures = [
            self._pool.submit(
                self._stage_at,
                node_id,
                call,
                [kept.get(tile.meta.key, tile) for tile in batch],
                attempt,
            )
            for node_id, batch in others.items()
        ]
        for future in futures:
            future.result()
        return checksums

    def _stage_at(
        self, node_id: str, call: CallContext, tiles: Sequence[EncodedTile], attempt: int
    ) -> list[str]:
        return self._peers.peer(node_id).stage_tiles(call, tiles, attempt)

    def commit_scene(
        self,
        call: CallContext,
        dataset_id: str,
        scene: str,
        version: str,
        attempt: int,
        cells: Sequence[str],
        *,
        bytes_total: int,
        properties: Mapping[str, Any] | None = None,
        path: str = "",
        reader: str = "",
    ) -> SceneRecord:
        """Decides an attempt and shows it at every node; see `scene_home.commit`."""
        event = states.Commit(
            version=version,
            cells=tuple(cells),
            bytes_total=bytes_total,
            now_us=time.time_ns() // 1000,
            path=path,
            reader=reader,
            properties=properties or {},
        )
        return self._keeper.commit(call, dataset_id, scene, attempt, event)

    def abort_scene(
        self, call: CallContext, dataset_id: str, scene: str, attempt: int, holder: str = ""
    ) -> None:
        """`holder` gives up; the attempt is cleared when nobody else holds it."""
        self._keeper.abort(call, dataset_id, scene, attempt, holder)

    def keep_scene(self, call: CallContext, dataset_id: str, scene: str, holder: str) -> None:
        """`holder` is still at work."""
        call.check("keeping a lease")
        self._require_home(scene_record_name(dataset_id, scene), f"scene {scene!r}")
        self._keeper.keep(dataset_id, scene, holder)

    def get_scene_record(
        self, call: CallContext, dataset_id: str, scene: str
    ) -> SceneRecord | None:
        """The record; None where nothing of the scene is stored or under way.

        At the home, or for one who cannot reach it at another replica of the record's slot,
        which has all that was ever acknowledged.
        """
        name = scene_record_name(dataset_id, scene)
        keepers = [node.id for node in self._ring.replicas_of(slot_of(name))]
        if self.own_id in keepers[1:]:
            call.check("reading a copy of a scene's record")
            record = read_copy(self.node.catalog, name)
        else:
            self._require_home(name, f"scene {scene!r}")
            record = self.scene_record(call, dataset_id, scene)
        is_empty = record is not None and record.version is None and states.is_settled(record)
        return None if is_empty else record

    # ------------------------------------------------------------------ starting, and after

    def resolve_staged(self, call: CallContext) -> list[str]:
        """Asks the homes about what is staged here; scenes whose home did not answer."""
        unknown = []
        for dataset_id, scene, version in self.node.tile_holder.staged():
            home = self._ring.first_of(slot_of(scene_record_name(dataset_id, scene)))
            try:
                record = (
                    self.scene_record(call, dataset_id, scene)
                    if home.id == self.own_id
                    else self._peers.peer(home.id).scene_record(call, dataset_id, scene)
                )
                self.node.tile_holder.resolve(record, dataset_id, scene, version)
            except (UnavailableError, ConflictError, NotFoundError) as error:
                _log.warning("scene=%r staged here is not resolved: %s", scene, error)
                unknown.append(scene)
        return unknown

    def settle(self, call: CallContext) -> list[str]:
        """Goes on with all that is open at its homes here; the names of what still is."""
        still_open = self._dataset_home.settle(call)
        if LOST_DATASETS in still_open:
            return still_open
        return still_open + self._keeper.settle_all(call) + self._tell_lost_tiles(call)

    def _tell_lost_tiles(self, call: CallContext) -> list[str]:
        """Has the homes know what a rebuild found lost here; the names of what they do not yet."""
        still_open = []
        for name in self.node.catalog.record_names(LOST_TILES_PREFIX):
            record = self.node.catalog.record_get(name)
            if record is None:
                continue
            lost = json.loads(record.value)
            home = self._ring.first_of(
                slot_of(scene_record_name(lost["dataset_id"], lost["scene"]))
            )
            try:
                peer = self if home.id == self.own_id else self._peers.peer(home.id)
                peer.note_lost_tiles(call, **lost)
            except GeostoreError as error:
                _log.warning("scene=%r its lost tiles are not noted: %s", lost["scene"], error)
                still_open.append(name)
                continue
            with self.node.writing():
                self.node.catalog.record_compare_and_set(name, record.revision, None)
        return still_open


def _shorter(call: CallContext) -> CallContext:
    """The call, with no longer than `STATUS_TRY_S`, nor than a third of the time left."""
    left_s = call.time_left_s()
    timeout_s = STATUS_TRY_S if left_s is None else min(STATUS_TRY_S, left_s / 3)
    return CallContext.within(timeout_s, request_id=call.request_id)
