"""Datasets of a ring: decided at the home of their record, known to every node.

The home decides by compare-and-set, then teaches all nodes, and says so only when all know:
who plans a query may trust its own list. What could not be told is told later (`settle`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Final

from geostore.errors import ConflictError, GeostoreError, NotFoundError, UnavailableError
from geostore.index import NO_ROWS, RowIds
from geostore.node.node import Node
from geostore.node.peer import Peer, Peers
from geostore.node.records import DATASET_PREFIX, LOST_DATASETS, dataset_record_name
from geostore.ring import Ring, slot_of
from geostore.types import CallContext, DatasetDefinition

__all__ = ["DatasetHome"]

_log = logging.getLogger(__name__)

LOCK_WAIT_S: Final = 10.0
"""How long a change waits for another one when its call has no deadline."""
RETRY_S: Final = 1.0
CATCH_UP_S: Final = 2.0
"""How long a starting node waits for what it missed."""


class DatasetHome:
    """The datasets whose records' home one node is. Calls may come from any thread.

    Changes wait for each other, and for what is told of earlier ones: were an old definition
    told late, it would take the place of a newer one.
    """

    def __init__(
        self, node: Node, *, own_id: str, ring: Callable[[], Ring], peers: Peers, pool: Executor
    ) -> None:
        self._node = node
        self._own_id = own_id
        self._ring = ring
        self._peers = peers
        self._pool = pool
        self._changing = threading.Lock()
        self._taught: set[str] = set()
        """Ids whose definition, or end, all nodes are known to have."""
        self._has_lost = node.catalog.record_get(LOST_DATASETS) is not None
        self._has_caught_up = False

    def require_known(self) -> None:
        """Raises UnavailableError: this node lost its list and was not told it again yet."""
        if self._has_lost:
            raise UnavailableError(
                "this node's catalog was made anew, and no other node has told it yet which"
                " datasets there are: it answers for itself alone",
                retry_after_s=RETRY_S,
            )

    @contextmanager
    def _one_change(self, call: CallContext, what: str) -> Iterator[None]:
        left_s = call.time_left_s()
        if not self._changing.acquire(timeout=LOCK_WAIT_S if left_s is None else left_s):
            raise UnavailableError(f"{what}: another change takes too long", retry_after_s=RETRY_S)
        try:
            yield
        finally:
            self._changing.release()

    # ------------------------------------------------------------------ changes

    def create(self, call: CallContext, definition: DatasetDefinition) -> None:
        """Raises ConflictError: the name is taken, or the id was used before."""
        with self._one_change(call, f"dataset {definition.name!r}"):
            with self._node.writing():
                if definition not in self._node.datasets():
                    self._node.known_datasets.create(definition)
                # else an earlier call could not teach all nodes
            self._teach(call, definition)

    def replace(self, call: CallContext, old: DatasetDefinition, new: DatasetDefinition) -> int:
        """How many tiles of the store have another cloud cover by that.

        Raises ConflictError, NotFoundError: see `Datasets.replace`.
        """
        with self._one_change(call, f"dataset {old.name!r}"):
            changed = NO_ROWS
            with self._node.writing():
                if new not in self._node.datasets():
                    # Whom the change does not reach now is told when the node settles.
                    self._taught.discard(new.id)
                    changed = self._node.known_datasets.replace(old, new)
            return self._count(changed) + self._teach(call, new)

    def learn(self, definition: DatasetDefinition) -> int:
        """Keeps what another home decided; see `Peer.learn_dataset`."""
        with self._node.writing():
            changed = self._node.known_datasets.learn(definition)
        return self._count(changed)

    def _count(self, changed: RowIds) -> int:
        """How many of these rows are tiles whose first replica is this node: each tile once."""
        if not len(changed):
            return 0
        first = frozenset(self._ring().first_slots_of(self._own_id))
        return self._node.catalog.count_in_slots(changed, first)

    def delete(self, call: CallContext, definition: DatasetDefinition) -> None:
        """For ever. Done again it finishes what an earlier call could not."""
        with self._one_change(call, f"dataset {definition.name!r}"):
            self._taught.discard(definition.id)
            self.forget(definition.id, definition.name)
            self._spread_end(call, definition.id, definition.name)

    def forget(self, dataset_id: str, name: str) -> int:
        """Removes a deleted dataset from this node; how many tiles it had here."""
        with self._node.writing():
            tiles = self._node.known_datasets.forget(dataset_id, name)
            self._node.tile_holder.forget_handles()
            return tiles

    def finish_deletion(self, call: CallContext, name: str) -> bool:
        """Tells the end of the datasets of that name that not all nodes heard of.

        Whether there was one: a deletion that is asked for again then only had to go on.
        """
        has_found = False
        with self._one_change(call, f"dataset {name!r}"):
            for tombstone in self._node.known_datasets.deleted():
                if tombstone.name == name and tombstone.dataset_id not in self._taught:
                    self._spread_end(call, tombstone.dataset_id, name)
                    has_found = True
        return has_found

    def _teach(self, call: CallContext, definition: DatasetDefinition) -> int:
        """How many tiles of the other nodes have another cloud cover by that."""
        epoch = changed = 0
        while epoch != self._ring().epoch:  # a node that joined meanwhile is taught too
            epoch = self._ring().epoch
            changed += sum(
                self._each_other(call, lambda peer: peer.learn_dataset(call, definition))
            )
        self._taught.add(definition.id)
        return changed

    def _spread_end(self, call: CallContext, dataset_id: str, name: str) -> None:
        self._each_other(call, lambda peer: peer.forget_dataset(call, dataset_id, name))
        self._taught.add(dataset_id)

    def _each_other(self, call: CallContext, ask: Callable[[Peer], int]) -> list[int]:
        """Their answers. Raises UnavailableError, which names who gave none."""
        call.check("asking all nodes")
        others = [node for node in self._ring().nodes if node.id != self._own_id]
        futures = [self._pool.submit(self._ask_one, node.id, ask) for node in others]
        failed, answers = [], []
        for node, future in zip(others, futures, strict=True):
            try:
                answers.append(future.result())
            except GeostoreError as error:
                failed.append(f"node {node.name} at {node.address}: {error}")
        if failed:
            raise UnavailableError(
                f"{len(failed)} of {len(others)} other nodes did not: {'; '.join(failed)}"
            )
        return answers

    def _ask_one(self, node_id: str, ask: Callable[[Peer], int]) -> int:
        return ask(self._peers.peer(node_id))

    # ------------------------------------------------------------------ starting, and after

    def settle(self, call: CallContext) -> list[str]:
        """Tells what not all nodes know yet; names of the records that are still open."""
        if self._has_lost and not self._learn_lost(call):
            return [LOST_DATASETS]
        if not self._has_caught_up:
            self._catch_up(call)
        still_open = []
        for definition in self._node.datasets():
            if self._is_open(definition.id, definition.name):
                still_open += self._told(call, definition.name)
        for tombstone in self._node.known_datasets.deleted():
            if self._is_open(tombstone.dataset_id, tombstone.name):
                still_open += self._told_end(call, tombstone.name)
        return still_open

    def _is_open(self, dataset_id: str, name: str) -> bool:
        home = self._ring().first_of(slot_of(dataset_record_name(name)))
        return dataset_id not in self._taught and home.id == self._own_id

    def _told(self, call: CallContext, name: str) -> list[str]:
        try:
            with self._one_change(call, f"dataset {name!r}"):
                self._teach(call, self._node.dataset(name))  # as it is by now
        except NotFoundError:
            return []  # deleted meanwhile, and its end is told
        except GeostoreError as error:
            _log.warning("dataset=%r is not known to all nodes yet: %s", name, error)
            return [DATASET_PREFIX + name]
        return []

    def _told_end(self, call: CallContext, name: str) -> list[str]:
        try:
            self.finish_deletion(call, name)
        except GeostoreError as error:
            _log.warning("the end of dataset=%r is not known to all nodes yet: %s", name, error)
            return [DATASET_PREFIX + name]
        return []

    # ------------------------------------------------------------------ what was missed

    def _catch_up(self, call: CallContext) -> None:
        """Once after the start: takes over what homes decided while this node was down.

        They tell it in any case, when they hear that it is up (`settle`, there). Asked for, it
        comes sooner, and most often before this node answers its first query.
        """
        homes = {
            self._ring().first_of(slot_of(dataset_record_name(definition.name))).id
            for definition in self._node.datasets()
        }
        left_s = call.time_left_s()
        timeout_s = CATCH_UP_S if left_s is None else min(CATCH_UP_S, left_s)
        shorter = CallContext.within(timeout_s, request_id=call.request_id)
        asked = {
            node_id: self._pool.submit(self._list_of, node_id, shorter)
            for node_id in sorted(homes - {self._own_id})
        }
        for node_id, answer in asked.items():
            try:
                self._learn_newer(answer.result())
            except GeostoreError as error:
                _log.info("node=%s did not tell what was missed: %s", node_id, error)
        self._has_caught_up = True

    def _list_of(self, node_id: str, call: CallContext) -> list[DatasetDefinition]:
        ask = getattr(self._peers.peer(node_id), "list_datasets", None)
        return [] if ask is None else ask(call)

    def _learn_newer(self, found: Sequence[DatasetDefinition]) -> None:
        """Only what is certainly newer: a rule of more changes, of a dataset that is here."""
        own = {definition.id: definition for definition in self._node.datasets()}
        for definition in found:
            known = own.get(definition.id)
            if known is not None and definition.cloud_changes > known.cloud_changes:
                self.learn(definition)

    def _learn_lost(self, call: CallContext) -> bool:
        """Takes over any other node's list: every node has every dataset that was acknowledged.

        Whether one told it. A ring of one has nobody to ask, and what its files tell is all.
        """
        others = [node for node in self._ring().nodes if node.id != self._own_id]
        for node in others:
            ask = getattr(self._peers.peer(node.id), "list_datasets", None)
            if ask is None:
                continue
            try:
                found: list[DatasetDefinition] = ask(call)
            except GeostoreError as error:
                _log.warning("node=%s did not tell its datasets: %s", node.name, error)
                continue
            self._take_over(found)
            return True
        if not others:
            self._take_over([])
        return not others

    def _take_over(self, found: Sequence[DatasetDefinition]) -> None:
        with self._node.writing():
            for definition in found:
                try:
                    self._node.known_datasets.learn(definition)
                except ConflictError as error:  # deleted here, which that node hears yet
                    _log.warning("dataset=%r is not taken over: %s", definition.name, error)
            record = self._node.catalog.record_get(LOST_DATASETS)
            if record is not None:
                self._node.catalog.record_compare_and_set(LOST_DATASETS, record.revision, None)
            self._has_lost = False
