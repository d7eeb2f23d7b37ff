"""What the services have in common: the node behind them, the head's checks, streams of rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar, cast

import grpc

from geostore.errors import InvalidInputError, UnavailableError
from geostore.node.member import Member
from geostore.query import Cursor, Explain, Summary, is_over
from geostore.query.value import SortKey
from geostore.rpc import messages as wire
from geostore.rpc.row_batches import STREAM_ROWS, BatchEncoder
from geostore.rpc.streams import receive_tiles
from geostore.rpc.summaries import MESSAGE_GROUPS, groups_to_wire
from geostore.rpc.v1 import common_pb2
from geostore.server.arrivals import Arrival
from geostore.server.call import current_call
from geostore.types import CallContext, EncodedTile, RowBatch

__all__ = ["Door", "answer_rows", "answer_summary", "take_tiles"]

REQUEST_ID_CHARACTERS_MAX = 128
_NO_DEADLINE_S = 1e8
"""gRPC tells a call without a deadline that it has some centuries left."""
_RETRY_S = 0.5
GATHER_ROWS = 1024
"""Rows that are worth a message of their own."""
FIRST_ROWS_PAUSE_S = 0.004
"""Behind the first rows of an answer that goes on: somebody waits for them, on this machine maybe,
and whoever asked a node merges them. What follows would take the processor from both.
"""

_Response_co = TypeVar("_Response_co", covariant=True)


class Door:
    """Where calls come in: to the member behind it, once there is one.

    A server has its port, and with it the address that a ring names, before the node has a
    ring.
    """

    def __init__(self) -> None:
        self._member: Member | None = None
        self._on_newer_ring: Callable[[], None] = lambda: None

    def open(self, member: Member, on_newer_ring: Callable[[], None] = lambda: None) -> None:
        """Calls reach `member` from here on.

        `on_newer_ring` hears of callers that know a newer ring than this node; it must not
        block.
        """
        self._on_newer_ring = on_newer_ring
        self._member = member

    @property
    def member(self) -> Member:
        """Raises UnavailableError: the node has no ring yet."""
        if self._member is None:
            raise UnavailableError(
                "this node is starting: it has no ring yet", retry_after_s=_RETRY_S
            )
        return self._member

    def begin(
        self, head: common_pb2.RequestHead, context: grpc.ServicerContext, *, placed: bool = True
    ) -> CallContext:
        """Checks a request's head; the context that goes with what is done for it.

        `placed`: the call went to this node because of the ring, so both must mean the same.

        Raises:
            StaleRingError: the caller's ring is older than this node's.
            UnavailableError: it is newer, or the node is starting.
            And what `check_head` raises.
        """
        ring = self.member.ring()
        is_newer = head.ring_epoch > ring.epoch
        epoch = ring.epoch if placed and not is_newer else None
        wire.check_head(head, cluster_id=ring.cluster_id, epoch=epoch)
        if is_newer:
            self._on_newer_ring()
            if placed:
                raise UnavailableError(
                    f"this node has ring epoch {ring.epoch}, the caller {head.ring_epoch}: it"
                    " asks for the newer one",
                    retry_after_s=_RETRY_S,
                )
        return context_of(head, context)

    def begin_for_stranger(
        self, head: common_pb2.RequestHead, context: grpc.ServicerContext
    ) -> CallContext:
        """As `begin`, for calls that need neither cluster nor epoch."""
        cluster_id = self.member.ring().cluster_id
        wire.check_head(head, cluster_id=cluster_id, epoch=None, may_be_stranger=True)
        return context_of(head, context)


def context_of(head: common_pb2.RequestHead, context: grpc.ServicerContext) -> CallContext:
    """The caller's id and the time that it still waits."""
    left_s = cast("float | None", context.time_remaining())
    if left_s is not None and left_s > _NO_DEADLINE_S:
        left_s = None
    request_id = head.request_id[:REQUEST_ID_CHARACTERS_MAX]
    return CallContext.within(left_s, request_id=request_id or None)


class _MakeResponse(Protocol[_Response_co]):
    def __call__(
        self, *, chunk: common_pb2.RowsChunk = ..., end: common_pb2.RowsEnd = ...
    ) -> _Response_co: ...


def answer_rows(
    make: _MakeResponse[_Response_co],
    batches: Iterator[RowBatch],
    *,
    sort: SortKey | None,
    explain: Explain | None,
    end_with_rows: bool,
) -> Iterator[_Response_co]:
    """Row batches as the messages of one answer; the last one is or has its end.

    A message costs as much as hundreds of rows. So, with `end_with_rows`, rows that are known to
    be the last carry the end themselves.

    What `batches` raises goes through: an answer without its end was cut. Closing this ends
    `batches`.
    """
    call, encoder, rows_total, is_ended = current_call(), BatchEncoder(), 0, False
    is_end_told = end_with_rows and explain is None  # which is known when all is done
    try:
        for batch, is_last in _gathered(batches):
            for start in range(0, len(batch), STREAM_ROWS):
                call.check()
                part = batch.take(slice(start, start + STREAM_ROWS))
                rows_total += len(part)
                is_ended = is_end_told and is_last and start + len(part) == len(batch)
                chunk = common_pb2.RowsChunk(
                    rows=encoder.encode(part),
                    row_count=len(part),
                    cursor=Cursor.after(part, sort).to_text(),
                    end=common_pb2.RowsEnd(rows_total=rows_total) if is_ended else None,
                )
                call.note(rows=len(part))
                yield make(chunk=chunk)
                if rows_total == len(part) and not is_last:
                    time.sleep(FIRST_ROWS_PAUSE_S)
    finally:
        close = getattr(batches, "close", None)
        if close is not None:
            close()
    if not is_ended:
        said = b"" if explain is None else wire.dump_json(explain.to_json())
        yield make(end=common_pb2.RowsEnd(rows_total=rows_total, explain_json=said))


class _MakePart(Protocol[_Response_co]):
    def __call__(
        self, *, groups: common_pb2.SummaryGroups = ..., end: common_pb2.SummaryEnd = ...
    ) -> _Response_co: ...


def answer_summary(make: _MakePart[_Response_co], summary: Summary) -> Iterator[_Response_co]:
    """A summary as the messages of one answer; the last one is its end."""
    call = current_call()
    for start in range(0, len(summary), MESSAGE_GROUPS):
        call.check()
        part = summary.take(slice(start, start + MESSAGE_GROUPS))
        call.note(rows=len(part))
        yield make(groups=groups_to_wire(part))
    yield make(end=common_pb2.SummaryEnd(groups_total=len(summary)))


def _gathered(batches: Iterator[RowBatch]) -> Iterator[tuple[RowBatch, bool]]:
    """The first batch as it is; from then on none that is small, but for the last. Each with
    whether it is known to be the last.

    A merge gives small batches where its streams end. The first must not wait: it may be all
    that a slow node holds back.
    """
    held: list[RowBatch] = []
    rows, is_first = 0, True
    for batch in batches:
        if not len(batch):
            continue
        held.append(batch)
        rows += len(batch)
        is_last = is_over(batches)
        if is_first or is_last or rows >= GATHER_ROWS:
            yield held[0] if len(held) == 1 else RowBatch.concatenate(held), is_last
            held, rows, is_first = [], 0, False
    if held:
        yield held[0] if len(held) == 1 else RowBatch.concatenate(held), True


def take_tiles(
    messages: Iterable[Any],
    begin: Callable[[common_pb2.RequestHead], CallContext],
    arrival: Arrival,
) -> tuple[CallContext, Sequence[EncodedTile], int]:
    """All tiles of a call's stream, checked, and their attempt.

    Raises:
        InvalidInputError: tiles of several attempts, no message at all, damaged tiles, too much.
        UnavailableError: no room for them now.
    """
    begun: list[CallContext] = []
    tiles: list[EncodedTile] = []
    attempts: set[int] = set()
    received = receive_tiles(
        messages, lambda head: begun.append(begin(head)), expect=arrival.expect
    )
    for tile, attempt in received:
        tiles.append(tile)
        attempts.add(attempt)
        if len(attempts) > 1:
            raise InvalidInputError(
                f"a call's tiles are of attempts {sorted(attempts)}: expected one attempt"
            )
    if not begun:
        raise InvalidInputError("a stream of tiles without a message: expected at least its head")
    return begun[0], tiles, attempts.pop() if attempts else 0
