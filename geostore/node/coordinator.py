"""Answering a query from all nodes that could hold a part of it.

Any node can. It finds the slots that match (`geostore.node.shares`), asks the first replica of
each for its rows, all at once, and merges what comes into the one total order. Each slot is
asked of one node at a time, so no row comes twice. A node that fails is replaced by the next
replicas of its slots, from just after the last row that it gave; where a slot has no replica
left the answer is an error, never short.

With a cursor, tiles that are stored all the while and neither replaced nor deleted come exactly
once over all the calls: the order is total and a row's place in it never changes. Tiles stored
meanwhile may or may not come.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

import numpy as np

from geostore.errors import NotFoundError, UnavailableError
from geostore.node.peer import Peer, Peers
from geostore.node.shares import BATCH_ROWS, Plan, Share, is_stale_ring
from geostore.query import (
    Batches,
    CoverageAnswer,
    CoverageRequest,
    Cursor,
    Explain,
    ExplainNode,
    LastTold,
    LeafQuery,
    Query,
    Summary,
    SummaryKeys,
    check_summarised,
    is_over,
    merge_batches,
)
from geostore.query.coverage import concatenate_answers
from geostore.ring import Ring, RingNode
from geostore.types import CallContext, DatasetDefinition, RowBatch

__all__ = ["Coordinator"]

RINGS_MAX: Final = 4
"""Rings one call is planned with, when nodes keep saying that ours is old."""
COUNT_THREADS_MAX: Final = 32

_Part = TypeVar("_Part")


@dataclass(slots=True, kw_only=True)
class _Asked:
    """What became of a leaf call."""

    share: Share
    explain: Explain | None
    stream: Iterator[RowBatch] | None = None
    """What its node answers; None: the call itself failed."""
    rows: int = 0
    error: str | None = None


class _Answer:
    """One query under way, planned with one ring."""

    def __init__(
        self,
        *,
        own_id: str,
        ring: Callable[[], Ring],
        peers: Peers,
        definitions: Sequence[DatasetDefinition],
        call: CallContext,
        query: Query,
        explain: Explain | None,
        batch_rows: int,
    ) -> None:
        self._own_id = own_id
        self._next_ring = ring
        self._peers = peers
        self._definitions = definitions
        self._call = call
        self._query = query
        self._explain = explain
        self._batch_rows = batch_rows
        self._rings = 1
        self._failed: frozenset[str] = frozenset()
        self._asked: list[_Asked] = []
        self._opened = ExitStack()
        self.has_left = False
        """A row has left: from here on the answer can be resumed but not begun again."""
        self._plan = self._planned()

    def _planned(self) -> Plan:
        self._call.check("query")
        explain = self._explain or Explain()
        with explain.stage("slots"):
            return Plan(self._next_ring(), self._query, self._definitions)

    def batches(self, after: Cursor | None) -> LastTold:
        left = self._query.limit
        if left == 0:
            return
        streams = self._started(self._plan.first_shares(), after, left)
        merged = merge_batches(streams, self._query.sort, left)
        for batch in merged:
            is_last = merged.is_over
            for start in range(0, len(batch), self._batch_rows):
                self._call.check("query")
                part = batch.take(slice(start, start + self._batch_rows))
                if left is not None:
                    left -= len(part)
                if left == 0:
                    if self._explain is not None:
                        self._hear_out()
                    self.close()  # nobody works on while the consumer looks at the last rows
                self.has_left = True
                yield part, is_last and start + len(part) == len(batch)

    def close(self) -> None:
        """Ends all leaf calls."""
        self._opened.close()

    # ------------------------------------------------------------ leaf calls

    def _started(
        self, shares: list[Share], after: Cursor | None, limit: int | None
    ) -> list[Iterator[RowBatch]]:
        """Streams of shares, all at work. Our own is called last, when the others are busy, and
        is read first, so that its work in this thread overlaps with theirs.
        """
        shares = sorted(shares, key=lambda share: share.node.id == self._own_id)
        streams = [self._start(share, after, limit) for share in shares]
        return streams[::-1]

    def _start(self, share: Share, after: Cursor | None, limit: int | None) -> Iterator[RowBatch]:
        """Calls the share's node now; what the call raises comes when the stream is read."""
        self._call.check("query")
        explain = None if self._explain is None else Explain(clock=self._explain.clock)
        asked = _Asked(share=share, explain=explain)
        self._asked.append(asked)
        leaf = share.leaf(replace(self._query, limit=limit), after, self._batch_rows)
        try:
            rows = self._peers.peer(share.node.id).leaf_query(self._call, leaf, explain)
        except UnavailableError as error:
            return self._elsewhere(asked, error, after, limit)
        asked.stream = rows
        self._opened.callback(_close, rows)
        return Batches(self._read(asked, rows, after, limit))

    def _read(
        self,
        asked: _Asked,
        rows: Iterator[RowBatch],
        after: Cursor | None,
        limit: int | None,
    ) -> LastTold:
        """A leaf's rows; those it fails to give, from elsewhere."""
        last: RowBatch | None = None
        failure: UnavailableError | None = None
        while failure is None:
            try:
                batch = next(rows, None)
            except UnavailableError as error:
                failure = error
                continue
            if batch is None:
                return
            if len(batch):
                last = batch
                asked.rows += len(batch)
                yield batch, is_over(rows)
        _close(rows)
        if last is not None:
            after = Cursor.after(last, self._query.sort)
        left = None if limit is None else limit - asked.rows
        if left is None or left > 0:
            rest = self._elsewhere(asked, failure, after, left)
            for batch in rest:
                yield batch, is_over(rest)

    def _elsewhere(
        self, asked: _Asked, failure: UnavailableError, after: Cursor | None, limit: int | None
    ) -> Batches:
        """The rest of a failed share, from the next replicas, which are asked when it is read."""
        return Batches(self._rest(asked, failure, after, limit))

    def _rest(
        self, asked: _Asked, failure: UnavailableError, after: Cursor | None, limit: int | None
    ) -> LastTold:
        self._call.check("query")  # then it is not the node that failed
        asked.error = str(failure)
        share = asked.share
        if not is_stale_ring(failure):
            self._failed |= {share.node.id}
            tried = (*share.tried, share.node)
        elif self.has_left and self._rings < RINGS_MAX:
            self._rings += 1
            self._plan = self._planned()
            tried = ()
        else:
            raise failure
        shares = self._plan.shares(share.slots, tried=tried, failed=self._failed, failure=failure)
        streams = self._started(shares, after, limit)
        rest = merge_batches(streams, self._query.sort, limit)
        for batch in rest:
            yield batch, rest.is_over

    # ------------------------------------------------------------ explain

    def _hear_out(self) -> None:
        """Reads what the limit cut off, at most as many rows a node: behind them a node tells how
        it answered.
        """
        for asked in self._asked:
            if asked.stream is None or asked.error is not None:
                continue
            try:
                for _ in asked.stream:
                    self._call.check("query")
            except UnavailableError as error:
                asked.error = str(error)

    def explain_to(self, explain: Explain) -> None:
        explain.predicates.update(self._query.predicates())
        by_node: dict[str, list[_Asked]] = {}
        for asked in self._asked:
            by_node.setdefault(asked.share.node.id, []).append(asked)
            if asked.explain is not None and asked.error is None:
                explain.absorb(asked.explain)
        nodes = self._plan.ring.nodes
        explain.nodes_asked = [node.name for node in nodes if node.id in by_node]
        explain.nodes_skipped = [node.name for node in nodes if node.id not in by_node]
        explain.nodes = [
            _explain_node(node, by_node[node.id]) for node in nodes if node.id in by_node
        ]
        explain.slots_matched = len(self._plan.slots)


@dataclass(frozen=True, slots=True)
class _Work(Generic[_Part]):
    """What is asked of each node once, and answered in one piece."""

    name: str
    call: CallContext
    query: Query
    ask: Callable[[Peer, LeafQuery], _Part]

    def check(self) -> None:
        """Raises UnavailableError: the deadline has passed, or the caller is gone."""
        self.call.check(self.name)


def _explain_node(node: RingNode, asked: Sequence[_Asked]) -> ExplainNode:
    slots = np.unique(np.concatenate([each.share.slots for each in asked]))
    return ExplainNode(
        name=node.name,
        slots=len(slots),
        rows=sum(each.rows for each in asked),
        error=next((each.error for each in asked if each.error is not None), None),
    )


def _close(rows: Iterator[RowBatch]) -> None:
    """Streams are generators, or have their `close`; lists of batches in tests have none."""
    close = getattr(rows, "close", None)
    if close is not None:
        close()


class Coordinator:
    """Asks the nodes of the ring, this one among them, and makes one answer of theirs.

    Safe to share between threads. `ring` and `definitions` are asked anew at each call.
    """

    def __init__(
        self,
        own_id: str,
        ring: Callable[[], Ring],
        peers: Peers,
        definitions: Callable[[], Sequence[DatasetDefinition]],
    ) -> None:
        self._own_id = own_id
        self._ring = ring
        self._peers = peers
        self._definitions = definitions
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def close(self) -> None:
        """Ends the threads that count and sum up."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(cancel_futures=True)

    def query(
        self,
        call: CallContext,
        query: Query,
        explain: Explain | None = None,
        after: Cursor | None = None,
        batch_rows: int = BATCH_ROWS,
    ) -> Batches:
        """All matching rows in order, in batches of 1..`batch_rows`.

        Nodes are called when the first batch is asked for. Closing the iterator ends all calls.
        `query.limit` counts from behind `after`.

        Raises:
            NotFoundError: a dataset that is not known.
            InvalidInputError: `after` is of another order.
            UnavailableError: also while iterating: a place has no replica that answers, or the
                deadline has passed. What came before is right but not whole.
        """
        if after is not None:
            after.check_sort(query.sort)
        definitions = self._asked_definitions(query)
        return Batches(self._rows(call, query, definitions, explain, after, batch_rows))

    def _rows(
        self,
        call: CallContext,
        query: Query,
        definitions: Sequence[DatasetDefinition],
        explain: Explain | None,
        after: Cursor | None,
        batch_rows: int,
    ) -> LastTold:
        for ring_number in range(1, RINGS_MAX + 1):
            answer = _Answer(
                own_id=self._own_id,
                ring=self._ring,
                peers=self._peers,
                definitions=definitions,
                call=call,
                query=query,
                explain=explain,
                batch_rows=batch_rows,
            )
            is_replanned = False
            try:
                yield from answer.batches(after)
            except UnavailableError as error:
                is_stale = is_stale_ring(error) and not answer.has_left
                is_replanned = is_stale and ring_number < RINGS_MAX
                if not is_replanned:
                    raise
            finally:
                answer.close()
                if explain is not None and not is_replanned:
                    answer.explain_to(explain)
            if not is_replanned:
                return

    def count(self, call: CallContext, query: Query) -> int:
        """How many rows `query` has, at most its limit.

        Raises: as `query`.
        """
        definitions = self._asked_definitions(query)
        if query.limit == 0:
            return 0
        work = _Work("count", call, query, lambda peer, leaf: peer.leaf_count(call, leaf))
        total = sum(self._gathered(work, definitions))
        return total if query.limit is None else min(total, query.limit)

    def summary(self, call: CallContext, query: Query, by: SummaryKeys) -> Summary:
        """The rows of `query` by groups: those of the nodes, made one.

        Raises:
            InvalidInputError: a query with a limit or an order; more groups than a summary
                may have.
            And as `query`.
        """
        check_summarised(query)
        definitions = self._asked_definitions(query)
        work = _Work("summary", call, query, lambda peer, leaf: peer.leaf_summary(call, leaf, by))
        return Summary.merge(by, self._gathered(work, definitions))

    def coverage(self, call: CallContext, query: Query, wanted: CoverageRequest) -> CoverageAnswer:
        """What matching tiles cover together. All tiles of a cell lie in one slot, so each group
        is one node's.

        Raises: as `query`.
        """
        definitions = self._asked_definitions(query)
        work = _Work(
            "coverage", call, query, lambda peer, leaf: peer.leaf_coverage(call, leaf, wanted)
        )
        return concatenate_answers(self._gathered(work, definitions))

    def _gathered(
        self, work: _Work[_Part], definitions: Sequence[DatasetDefinition]
    ) -> list[_Part]:
        """What nodes answer, each slot at one node; by another ring, where ours is old."""
        for ring_number in range(1, RINGS_MAX + 1):
            work.check()
            try:
                return self._parts(work, Plan(self._ring(), work.query, definitions))
            except UnavailableError as error:
                if not is_stale_ring(error) or ring_number == RINGS_MAX:
                    raise
        raise AssertionError("the last ring returns or raises")

    def _parts(self, work: _Work[_Part], plan: Plan) -> list[_Part]:
        """Those of all shares; where one fails, of its parts at the next replicas."""
        parts: list[_Part] = []
        failed: frozenset[str] = frozenset()
        shares = plan.first_shares()
        while shares:  # at most once a replica: then `shares` raises
            work.check()
            failures: list[tuple[Share, UnavailableError]] = []
            for share, outcome in self._ask_all(work, shares):
                if not isinstance(outcome, UnavailableError):
                    parts.append(outcome)
                elif is_stale_ring(outcome):
                    raise outcome
                else:
                    failures.append((share, outcome))
            work.check()
            failed |= {share.node.id for share, _ in failures}
            shares = [
                part
                for share, failure in failures
                for part in plan.shares(
                    share.slots,
                    tried=(*share.tried, share.node),
                    failed=failed,
                    failure=failure,
                )
            ]
        return parts

    def _ask_all(
        self, work: _Work[_Part], shares: list[Share]
    ) -> Iterator[tuple[Share, _Part | UnavailableError]]:
        """Each share's answer or failure, all asked at once; the last, our own, in this thread."""
        *others, own = sorted(shares, key=lambda share: share.node.id == self._own_id)
        pool = self._threads() if others else None
        futures: list[Future[_Part | UnavailableError]] = []
        try:
            if pool is not None:
                futures += [pool.submit(self._ask_one, work, share) for share in others]
            outcome = self._ask_one(work, own)
            yield own, outcome
            for share, future in zip(others, futures, strict=True):
                try:
                    yield share, future.result(timeout=work.call.time_left_s())
                except TimeoutError:
                    work.check()
                    raise
        finally:
            for future in futures:
                future.cancel()

    def _ask_one(self, work: _Work[_Part], share: Share) -> _Part | UnavailableError:
        try:
            return work.ask(self._peers.peer(share.node.id), share.leaf(work.query, None))
        except UnavailableError as error:
            return error

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(COUNT_THREADS_MAX, "geostore-count")
            return self._pool

    def _asked_definitions(self, query: Query) -> list[DatasetDefinition]:
        """Raises NotFoundError that names the known."""
        known = list(self._definitions())
        if query.datasets is None:
            return known
        names = {definition.name for definition in known}
        for name in query.datasets:
            if name not in names:
                listed = ", ".join(sorted(names)) or "none"
                raise NotFoundError(f"dataset {name!r} does not exist; known: {listed}")
        return [definition for definition in known if definition.name in query.datasets]
