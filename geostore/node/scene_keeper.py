"""Runs `geostore.node.scene_home` at a record's home: over its disk, clock and peers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, Final, TypeVar

from geostore.errors import ConflictError, GeostoreError, UnavailableError
from geostore.index import Catalog
from geostore.node import scene_home as home
from geostore.node import scene_states as states
from geostore.node.disk import StepHook, no_step
from geostore.node.leases import LEASE_S, Leases
from geostore.node.peer import Peer, Peers
from geostore.node.records import (
    COPY_PREFIX,
    SCENE_PREFIX,
    decode_scene,
    encode_scene,
    is_unsettled,
    scene_record_name,
)
from geostore.ring import Ring, placement_key, slot_of
from geostore.types import CallContext, RecordCopy, SceneRecord, SceneState

__all__ = ["SceneKeeper", "copy_name", "keep_copy", "read_copy"]

_log = logging.getLogger(__name__)

THREADS_MAX: Final = 32
LOCK_WAIT_S: Final = 10.0
"""How long a call waits for another one on the same scene when it has no deadline."""

REVISION_BYTES: Final = 8
"""Before the value of a copy: the revision that it has at its home."""

Answer = TypeVar("Answer")


def _forget(_record: SceneRecord) -> None:
    pass


class SceneKeeper:
    """The home of the scene records whose slot's first replica this node is.

    Calls may come from any thread; two on one scene wait for each other. `placement` gives a
    dataset id's placement length. `writing` is the node's writer: held around each change of
    a record, never while other nodes are asked. `step` is called before and after each change
    (see `geostore.node.disk`), `remember` with each decision: to be kept outside the catalog,
    for the day when that is lost.
    """

    def __init__(
        self,
        *,
        own_id: str,
        catalog: Catalog,
        writing: Callable[[], AbstractContextManager[None]],
        placement: Callable[[str], int],
        ring: Callable[[], Ring],
        peers: Peers,
        clock_s: Callable[[], float] = time.monotonic,
        lease_s: float = LEASE_S,
        step: StepHook = no_step,
        remember: Callable[[SceneRecord], None] = _forget,
    ) -> None:
        self._own_id = own_id
        self._catalog = catalog
        self._writing = writing
        self._placement = placement
        self._ring = ring
        self._peers = peers
        self._clock_s = clock_s
        self._step = step
        self._remember = remember
        self._leases = Leases(clock_s(), lease_s)
        self._copied: dict[str, int] = {}
        self._open: set[str] | None = None
        """Names of records that may not be at rest; None: not looked for yet."""
        self._locks: dict[str, tuple[threading.Lock, int]] = {}
        self._locks_guard = threading.Lock()
        self._pool = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="geostore-home")

    @property
    def lease_s(self) -> float:
        """How long an ingester may be silent."""
        return self._leases.lease_s

    def close(self) -> None:
        """Ends the threads; calls under way fail."""
        self._pool.shutdown(cancel_futures=True)

    # ------------------------------------------------------------------ calls

    def begin(self, call: CallContext, event: states.Begin, holder: str) -> SceneRecord:
        """Opens or joins an attempt for an ingester; see `scene_home.begin`."""
        name = event.dataset_id, event.scene
        with self._one_at_a_time(call, *name):
            now_s = self._clock_s()
            with self._locks_guard:
                self._leases.drop_ended(name, now_s)
                may_take_over = not self._leases.is_held(name, now_s, except_by=holder)
            place = self._place(event.dataset_id)
            record = self._run(call, home.begin(event, place, may_take_over=may_take_over))
            assert record is not None
            if record.state is SceneState.STAGING:
                with self._locks_guard:
                    self._leases.renew(name, holder, now_s)
            return record

    def keep(self, dataset_id: str, scene: str, holder: str) -> None:
        """An ingester is still at work."""
        with self._locks_guard:
            self._leases.renew((dataset_id, scene), holder, self._clock_s())

    def commit(
        self, call: CallContext, dataset_id: str, scene: str, attempt: int, event: states.Commit
    ) -> SceneRecord:
        """Decides and shows an attempt; see `scene_home.commit`."""
        with self._one_at_a_time(call, dataset_id, scene):
            steps = home.commit(dataset_id, scene, attempt, event, self._place(dataset_id))
            record = self._run(call, steps)
            assert record is not None
            with self._locks_guard:
                self._leases.drop_all((dataset_id, scene))
            return record

    def abort(
        self, call: CallContext, dataset_id: str, scene: str, attempt: int, holder: str
    ) -> None:
        """An ingester gives up; the attempt goes once nobody else may be at work on it."""
        name = dataset_id, scene
        with self._one_at_a_time(call, dataset_id, scene):
            with self._locks_guard:
                self._leases.drop(name, holder)
                is_held = self._leases.is_held(name, self._clock_s())
            if not is_held:
                self._run(call, home.abort(dataset_id, scene, attempt, self._place(dataset_id)))

    def record(self, dataset_id: str, scene: str) -> SceneRecord | None:
        """The record as it stands."""
        stored = self._load(dataset_id, scene)
        return None if stored is None else stored.record

    def note_lost(
        self, call: CallContext, dataset_id: str, scene: str, version: str, cells: Sequence[str]
    ) -> None:
        """A node lost tiles of `version`: who ingests that very scene again puts them back.

        Raises UnavailableError: an attempt is under way; when it is over, the record is read
        again.
        """
        with self._one_at_a_time(call, dataset_id, scene):
            stored = self._load(dataset_id, scene)
            if stored is None or stored.record.version != version:
                return  # replaced or deleted meanwhile
            record = stored.record
            lost = {*cells}.intersection(record.cells)
            if lost and not states.is_settled(record):
                raise UnavailableError(
                    f"scene {scene!r}: an attempt is under way; {len(lost)} lost tiles are noted"
                    " when it is over",
                    retry_after_s=1.0,
                )
            if lost:
                noted = replace(
                    record,
                    cells=tuple(cell for cell in record.cells if cell not in lost),
                    lost_cells=tuple(sorted(lost.union(record.lost_cells))),
                )
                self._save(home.Save(record=noted, expected_revision=stored.revision))

    def settle_all(self, call: CallContext) -> list[str]:
        """Goes on with every record that is not at rest; the names of those still open.

        To be called at start and now and then: what a node that was down left is finished,
        attempts that nobody holds are given up.
        """
        still_open = []
        for name in self._names_to_settle():
            self._note_rest(name)
            found = self._catalog.record_get(name)  # after that: who changes it notes it later
            if found is None or not is_unsettled(found.value):
                continue
            self._note_open(name)
            record = decode_scene(name, found.value)
            if self._keepers(record.dataset_id, record.scene)[0] != self._own_id:
                continue
            try:
                settled = self._settle(call, record)
            except GeostoreError as error:
                _log.warning("scene=%r is not settled yet: %s", record.scene, error)
                settled = False
            if not settled:
                still_open.append(name)
        return still_open

    def _names_to_settle(self) -> list[str]:
        """All records are looked through once, at start: there may be very many."""
        with self._locks_guard:
            is_first = self._open is None
            self._open = self._open or set()
        names = self._catalog.record_names(SCENE_PREFIX) if is_first else []
        with self._locks_guard:
            self._open.update(names)
            return sorted(self._open)

    def _note_open(self, name: str) -> None:
        with self._locks_guard:
            if self._open is not None:
                self._open.add(name)

    def _note_rest(self, name: str) -> None:
        with self._locks_guard:
            if self._open is not None:
                self._open.discard(name)

    def _settle(self, call: CallContext, found: SceneRecord) -> bool:
        dataset_id, scene = found.dataset_id, found.scene
        with self._one_at_a_time(call, dataset_id, scene):
            place = self._place(dataset_id)
            record = self._run(call, home.settle(dataset_id, scene, place))
            if record is not None and record.state is SceneState.STAGING:
                now_s = self._clock_s()
                with self._locks_guard:
                    self._leases.drop_ended((dataset_id, scene), now_s)
                    is_held = self._leases.is_held((dataset_id, scene), now_s)
                if not is_held:
                    record = self._run(call, home.abort(dataset_id, scene, record.attempt, place))
        return record is None or states.is_settled(record)

    # ------------------------------------------------------------------ placement

    def _place(self, dataset_id: str) -> home.Place:
        ring, placement = self._ring(), self._placement(dataset_id)

        def place(cell: str) -> list[str]:
            slot = slot_of(placement_key(cell, placement))
            return [node.id for node in ring.replicas_of(slot)]

        return place

    def _keepers(self, dataset_id: str, scene: str) -> list[str]:
        """Ids of the nodes that keep a scene's record, its home first."""
        ring = self._ring()
        slot = slot_of(scene_record_name(dataset_id, scene))
        return [node.id for node in ring.replicas_of(slot)]

    # ------------------------------------------------------------------ running

    @contextmanager
    def _one_at_a_time(self, call: CallContext, dataset_id: str, scene: str) -> Iterator[None]:
        name = scene_record_name(dataset_id, scene)
        keeper = self._keepers(dataset_id, scene)[0]
        if keeper != self._own_id:
            raise UnavailableError(
                f"scene {scene!r}: its record's home is node {keeper}, not this one"
                f" ({self._own_id}); fetch the ring and ask there"
            )
        with self._locks_guard:
            lock, users = self._locks.get(name, (threading.Lock(), 0))
            self._locks[name] = lock, users + 1
        time_left_s = call.time_left_s()
        is_mine = lock.acquire(timeout=LOCK_WAIT_S if time_left_s is None else time_left_s)
        try:
            if not is_mine:
                raise UnavailableError(
                    f"scene {scene!r}: another call on it takes too long", retry_after_s=1.0
                )
            yield
        finally:
            if is_mine:
                lock.release()
            with self._locks_guard:
                lock, users = self._locks[name]
                if users == 1:
                    del self._locks[name]
                else:
                    self._locks[name] = lock, users - 1

    def _run(self, call: CallContext, steps: home.Steps) -> SceneRecord | None:
        return home.drive(steps, lambda effect: self._do(call, effect))

    def _do(self, call: CallContext, effect: home.Effect) -> Any:
        if isinstance(effect, home.Load):
            return self._load(effect.dataset_id, effect.scene)
        if isinstance(effect, home.Save):
            return self._save(effect)
        if isinstance(effect, home.Replicate):
            return self._replicate(call, effect)
        if isinstance(effect, home.Confirm):
            confirms = effect.requests
            found = self._ask(confirms, lambda node, peer: peer.missing_cells(call, confirms[node]))
            return [(node, cell) for node, cells in found.items() for cell in cells]
        self._remember_decision(effect)
        if isinstance(effect, home.Show):
            shows = effect.requests
            return self._ask(shows, lambda node, peer: peer.publish_scene(call, shows[node]))
        removes = effect.requests
        return self._ask(removes, lambda node, peer: peer.clear_scene(call, removes[node]))

    def _remember_decision(self, effect: home.Show | home.Remove) -> None:
        """Before anything is done that follows from it, and again with that after a crash."""
        for request in effect.requests.values():
            record = self.record(request.dataset_id, request.scene)
            if record is not None and record.state in (SceneState.COMMITTED, SceneState.ABORTED):
                with self._writing():
                    self._remember(record)
            return

    def _ask(
        self, nodes: Mapping[str, object], ask: Callable[[str, Peer], Answer]
    ) -> dict[str, Answer]:
        """All nodes at once; every answer, or UnavailableError that names who gave none."""
        futures = {node: self._pool.submit(self._ask_one, node, ask) for node in nodes}
        answers: dict[str, Answer] = {}
        failed: dict[str, GeostoreError] = {}
        for node, future in futures.items():
            try:
                answers[node] = future.result()
            except GeostoreError as error:
                failed[node] = error
        if failed:
            names = "; ".join(f"node {node}: {error}" for node, error in sorted(failed.items()))
            raise UnavailableError(f"{len(failed)} of {len(futures)} nodes did not: {names}")
        return answers

    def _ask_one(self, node: str, ask: Callable[[str, Peer], Answer]) -> Answer:
        return ask(node, self._peers.peer(node))

    # ------------------------------------------------------------------ records

    def _load(self, dataset_id: str, scene: str) -> home.Stored | None:
        name = scene_record_name(dataset_id, scene)
        found = self._catalog.record_get(name)
        if found is None:
            return None
        is_alone = len(self._keepers(dataset_id, scene)) == 1
        is_copied = (
            is_alone or not is_unsettled(found.value) or self._copied.get(name) == found.revision
        )
        return home.Stored(
            record=decode_scene(name, found.value), revision=found.revision, is_copied=is_copied
        )

    def _save(self, effect: home.Save) -> int:
        record = effect.record
        name = scene_record_name(record.dataset_id, record.scene)
        is_alone = len(self._keepers(record.dataset_id, record.scene)) == 1
        value = encode_scene(record, settled=None if is_alone else False)
        with self._writing():
            self._placement(record.dataset_id)  # its dataset may have been deleted since
            self._step(f"record.{record.state}")
            revision = self._catalog.record_compare_and_set(name, effect.expected_revision, value)
            self._step(f"record.{record.state}.saved")
        self._note_open(name)
        return revision

    def _replicate(self, call: CallContext, effect: home.Replicate) -> int:
        record = effect.record
        name = scene_record_name(record.dataset_id, record.scene)
        others = dict.fromkeys(self._keepers(record.dataset_id, record.scene)[1:])
        if not others:
            return effect.revision
        value = encode_scene(record)
        copy = RecordCopy(name=name, revision=effect.revision, value=value)
        self._ask(others, lambda _, peer: peer.copy_record(call, copy))
        revision = effect.revision
        if states.is_settled(record):  # the note that a starting node may pass it by
            with self._writing():
                self._step("record.copied")
                revision = self._catalog.record_compare_and_set(name, revision, value)
                self._step("record.copied.saved")
            self._copied.pop(name, None)
        else:
            self._copied[name] = revision
        return revision


def copy_name(name: str) -> str:
    """Where a node keeps its copy of another home's record."""
    return f"{COPY_PREFIX}{name}"


def read_copy(catalog: Catalog, name: str) -> SceneRecord | None:
    """A node's copy of another home's scene record; None where it has none."""
    found = catalog.record_get(copy_name(name))
    return None if found is None else decode_scene(name, found.value[REVISION_BYTES:])


def keep_copy(catalog: Catalog, copy: RecordCopy, step: StepHook = no_step) -> None:
    """Takes a copy if it is newer than what is here; durable when it returns.

    Raises:
        ConflictError: another change came between.
    """
    name = copy_name(copy.name)
    found = catalog.record_get(name)
    known = 0 if found is None else int.from_bytes(found.value[:REVISION_BYTES], "big")
    if copy.revision <= known:
        return
    if copy.value is None:
        raise ConflictError(f"record {copy.name!r}: a copy without a value")
    step("copy")
    catalog.record_compare_and_set(
        name,
        0 if found is None else found.revision,
        copy.revision.to_bytes(REVISION_BYTES, "big") + copy.value,
    )
    step("copy.saved")
