"""Merging sorted streams of row batches into one, without holding more than a batch of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from geostore.query.order import count_until, order_key, sort_batch
from geostore.query.value import SortKey
from geostore.types import RowBatch

__all__ = ["limit_batches", "merge_batches"]


def limit_batches(batches: Iterable[RowBatch], limit: int | None) -> Iterator[RowBatch]:
    """At most `limit` rows; the source is not read further than needed. Empty batches drop."""
    left = limit
    if left == 0:
        return
    for batch in batches:
        if left is not None and len(batch) >= left:
            yield batch.take(slice(0, left))
            return
        if len(batch):
            yield batch
        if left is not None:
            left -= len(batch)


def _next_filled(stream: Iterator[RowBatch]) -> RowBatch | None:
    return next((batch for batch in stream if len(batch)), None)


def _merge(streams: list[Iterator[RowBatch]], sort: SortKey | None) -> Iterator[RowBatch]:
    heads: list[tuple[RowBatch, Iterator[RowBatch]]] = []
    for stream in streams:
        head = _next_filled(stream)
        if head is not None:
            heads.append((head, stream))
    while len(heads) > 1:
        # No stream can still bring a row before the least of the heads' last rows, so all
        # rows up to there are final: whole slices move, not single rows.
        frontier = min(order_key(head, len(head) - 1, sort) for head, _ in heads)
        ready: list[RowBatch] = []
        remaining: list[tuple[RowBatch, Iterator[RowBatch]]] = []
        for head, stream in heads:
            cut = count_until(head, frontier, sort)
            if cut:
                ready.append(head.take(slice(0, cut)))
            rest = head.take(slice(cut, None)) if cut < len(head) else _next_filled(stream)
            if rest is not None:
                remaining.append((rest, stream))
        heads = remaining
        yield ready[0] if len(ready) == 1 else sort_batch(RowBatch.concatenate(ready), sort)
    for head, stream in heads:
        yield head
        yield from stream


def merge_batches(
    iterables: Iterable[Iterable[RowBatch]],
    sort: SortKey | None = None,
    limit: int | None = None,
) -> Iterator[RowBatch]:
    """Streams that are each in order, as one stream in order.

    Holds one batch a stream. Rows are not deduplicated: each row must come from one stream.
    """
    return limit_batches(_merge([iter(batches) for batches in iterables], sort), limit)
