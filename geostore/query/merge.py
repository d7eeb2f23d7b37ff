"""Merging sorted streams of row batches into one, without holding more than a batch of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from geostore.query.batches import Batches, LastTold, is_over
from geostore.query.order import count_until, order_key, sort_batch
from geostore.query.value import SortKey
from geostore.types import RowBatch

__all__ = ["limit_batches", "merge_batches"]


def limit_batches(batches: Iterable[RowBatch], limit: int | None) -> Batches:
    """At most `limit` rows; the source is not read further than needed. Empty batches drop."""
    return Batches(_limited(iter(batches), limit))


def _limited(batches: Iterator[RowBatch], limit: int | None) -> LastTold:
    left = limit
    if left == 0:
        return
    for batch in batches:
        if left is not None and len(batch) >= left:
            yield batch.take(slice(0, left)), True
            return
        if len(batch):
            yield batch, is_over(batches)
        if left is not None:
            left -= len(batch)


def _next_filled(stream: Iterator[RowBatch]) -> RowBatch | None:
    return next((batch for batch in stream if len(batch)), None)


_Head = tuple[RowBatch, Iterator[RowBatch]]
"""What a stream gave last and has not been merged, and the stream."""


def _merge(streams: list[Iterator[RowBatch]], sort: SortKey | None) -> LastTold:
    heads = _filled(streams)
    while len(heads) > 1:
        ready, heads, spent = _final(heads, sort)
        whole = ready[0] if len(ready) == 1 else sort_batch(RowBatch.concatenate(ready), sort)
        yield whole, not heads and not spent
        heads += _filled(spent)  # not before: the next batch may be waited for
    for head, stream in heads:
        yield head, is_over(stream)
        for batch in stream:
            yield batch, is_over(stream)
    for stream in streams:
        for _ in stream:  # to its end: behind its rows a node says how its call went
            raise AssertionError("rows came from a stream that was over")


def _filled(streams: list[Iterator[RowBatch]]) -> list[_Head]:
    filled = ((_next_filled(stream), stream) for stream in streams)
    return [(head, stream) for head, stream in filled if head is not None]


def _final(
    heads: list[_Head], sort: SortKey | None
) -> tuple[list[RowBatch], list[_Head], list[Iterator[RowBatch]]]:
    """(rows that no stream can bring a row before, what is left, streams to ask for more)."""
    # No stream can still bring a row before the least of the heads' last rows, so all rows up
    # to there are final: whole slices move, not single rows. A stream that is over brings none
    # at all; where all are, everything is final.
    last_rows = [order_key(head, -1, sort) for head, stream in heads if not is_over(stream)]
    if not last_rows:
        return [head for head, _ in heads], [], []
    frontier = min(last_rows)
    ready: list[RowBatch] = []
    left: list[_Head] = []
    spent: list[Iterator[RowBatch]] = []
    for head, stream in heads:
        cut = count_until(head, frontier, sort)
        if cut:
            ready.append(head.take(slice(0, cut)))
        if cut < len(head):
            left.append((head.take(slice(cut, None)), stream))
        elif not is_over(stream):
            spent.append(stream)
    return ready, left, spent


def merge_batches(
    iterables: Iterable[Iterable[RowBatch]],
    sort: SortKey | None = None,
    limit: int | None = None,
) -> Batches:
    """Streams that are each in order, as one stream in order.

    Holds one batch a stream. Rows are not deduplicated: each row must come from one stream.
    """
    streams = [iter(batches) for batches in iterables]
    return limit_batches(Batches(_merge(streams, sort)), limit)
