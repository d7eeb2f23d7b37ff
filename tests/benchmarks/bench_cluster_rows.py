"""Rows from three nodes: what a selective query costs, and all rows drained to Arrow.

    python -m tests.benchmarks.bench_cluster_rows [--quick] [--tiles N] [--rounds N]

Three node processes hold 100,000 tiles (scenes of 200 neighbouring cells over ten years).

First table. The empty call is the same query for a dataset without tiles: it goes to the same
nodes by the same ways and finds nothing. Bar: the query takes at most 1.5 times as long. A
call that asks no other node (`limit=0`) is shown to be compared with.

Second table. The peer is a process that streams the same messages of rows, ready made, by gRPC
alone. Bar: rows come at 0.8 of its speed or more. Decoding is apart: rows are drained once
undecoded, as bytes, and once to Arrow, to be compared with the bare stream and with the bare
stream and then the decoding. To tell what merging costs, each node is also drained of its own
rows, all three at once.

Rounds are interleaved; medians are printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from geostore.backends import Backend
from geostore.config import parse_target
from geostore.grid import GEOHASH, Region
from geostore.query import Explain, LeafQuery, PercentRange, Query
from geostore.rpc.client import NodeClient
from geostore.rpc.messages import make_head
from geostore.rpc.row_batches import STREAM_ROWS, BatchDecoder, BatchEncoder
from geostore.rpc.transport import open_channel
from geostore.types import BBox, CallContext, RowBatch
from tests.benchmarks.three_nodes import (
    Rounds,
    bare_stream,
    definition_of,
    machine,
    nodes_up,
    opened,
    write_rows,
)
from tests.synthetic_tiles import many_entries

QUERY_BAR, ROWS_BAR = 1.5, 0.8
TIMEOUT_S = 120.0


def _selective(cell: str) -> dict[str, Query]:
    """Queries of few tiles, by what they ask for."""
    west, south, east, north = GEOHASH.bounds(cell).as_tuple()
    inside = BBox(
        west + 0.25 * (east - west),
        south + 0.25 * (north - south),
        west + 0.75 * (east - west),
        south + 0.75 * (north - south),
    )
    return {
        "a box inside a cell": Query(region=Region.from_bbox(inside)),
        "a scene's patch": Query(geocode=cell[:3]),
        "a patch, few clouds": Query(geocode=cell[:3], cloud=PercentRange(None, 20.0)),
    }


def _drained(backend: Backend, query: Query) -> int:
    return sum(len(batch) for batch in backend.query(query))


def _measure_queries(backend: Backend, cell: str, rounds: int) -> None:
    times = Rounds()
    asked = _selective(cell)
    for _ in range(rounds):
        times.time("limit 0", lambda: _drained(backend, Query(limit=0)))
        for name, query in asked.items():
            found = replace(query, datasets=("s2",))
            empty = replace(query, datasets=("empty",))
            assert times.time(name, lambda q=found: _drained(backend, q))  # type: ignore[misc]
            assert not times.time(f"{name}, empty", lambda q=empty: _drained(backend, q))  # type: ignore[misc]
    bare = 1000 * times.median("limit 0")
    print(
        f"\na call that asks no other node: {bare:.2f} ms; bar: query at most {QUERY_BAR} x empty"
    )
    print(f"{'query':<24}{'rows':>6}{'nodes':>7}{'empty ms':>10}{'query ms':>10}{'ratio':>8}")
    for name, query in asked.items():
        explain = Explain()
        rows = sum(len(batch) for batch in backend.query(query, explain))
        empty_ms = 1000 * times.median(f"{name}, empty")
        query_ms = 1000 * times.median(name)
        print(
            f"{name:<24}{rows:>6}{len(explain.nodes_asked):>7}{empty_ms:>10.2f}{query_ms:>10.2f}"
            f"{query_ms / empty_ms:>8.2f}"
        )


@contextmanager
def _undecoded(target: str) -> Iterator[tuple[Callable[[], int], Callable[[], int]]]:
    """Drain all rows as bytes and count them: by one node, merged; from each node its own."""
    context = CallContext.within(TIMEOUT_S)
    with ExitStack() as opened_channels, ThreadPoolExecutor() as pool:
        channels = {
            str(host): opened_channels.enter_context(open_channel(str(host)))
            for host in parse_target(target).hosts
        }
        first = next(iter(channels))
        ring = NodeClient(channels[first], first).get_ring(context)
        clients = [
            NodeClient(channel, address, lambda call: make_head(call, ring.cluster_id, ring.epoch))
            for address, channel in channels.items()
        ]

        def size(answers: Any) -> int:
            return sum(len(answer.chunk.rows) for answer in answers)

        def merged() -> int:
            call = CallContext.within(TIMEOUT_S)
            return size(clients[0]._query(call, Query(), None, None, STREAM_ROWS))

        def own(client: NodeClient) -> int:
            leaf = LeafQuery(query=Query(), batch_rows=STREAM_ROWS)
            stream: Any = client.leaf_query(CallContext.within(TIMEOUT_S), leaf)
            return size(stream._answers)

        yield merged, lambda: sum(pool.map(own, clients))


def _measure_rows(backend: Backend, target: str, rounds: int) -> None:
    times = Rounds()
    whole = RowBatch.concatenate(list(backend.query(Query())))
    rows = len(whole)
    messages = list(BatchEncoder().encode_stream([whole]))

    def decoded() -> int:
        decoder = BatchDecoder()
        return sum(decoder.decode_arrow(message).num_rows for message in messages)

    def to_arrow() -> int:
        return sum(batch.num_rows for batch in backend.query_arrow(Query()))

    with _undecoded(target) as (merged, apart), bare_stream({"rows": messages}) as bare:
        size = bare("rows")
        merged()
        apart()
        for _ in range(rounds):
            assert times.time("bare gRPC stream", lambda: bare("rows")) == size
            times.time("own rows of each node", apart)
            times.time("merged by one node", merged)
            assert times.time("decode to Arrow alone", decoded) == rows
            assert times.time("merged, to Arrow", to_arrow) == rows
    print(f"\n{rows:,} rows, {size / rows:.1f} bytes a row; bar: at least {ROWS_BAR} of the peer")
    print(f"{'stage':<26}{'ns a row':>10}{'MB/s':>8}")
    for name in times.seconds:
        seconds = times.median(name)
        print(f"{name:<26}{1e9 * seconds / rows:>10.0f}{size / 1e6 / seconds:>8.0f}")
    bare_s, decode_s = times.median("bare gRPC stream"), times.median("decode to Arrow alone")
    print(f"merged, undecoded, by bare: {bare_s / times.median('merged by one node'):.2f}")
    print(f"unmerged, undecoded, by bare: {bare_s / times.median('own rows of each node'):.2f}")
    print(
        f"to Arrow by bare + decode: {(bare_s + decode_s) / times.median('merged, to Arrow'):.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="4,000 tiles, few rounds")
    parser.add_argument("--tiles", type=int)
    parser.add_argument("--rounds", type=int, help="of all rows; of queries twenty times as many")
    options = parser.parse_args()
    tiles = options.tiles or (4_000 if options.quick else 100_000)
    rounds = options.rounds or (2 if options.quick else 15)
    entries = list(many_entries(tiles))
    with nodes_up() as (cluster, new):
        with opened(new) as backend:
            backend.create_dataset(definition_of("empty"))
        target = write_rows(cluster, new, definition_of("s2"), entries)
        with opened(target) as backend:
            assert backend.count(Query()) == tiles
            print(f"{tiles:,} tiles, three nodes, {rounds} rounds; {machine()}")
            _measure_queries(backend, entries[5].meta.key.geocode, 20 * rounds)
            _measure_rows(backend, target, rounds)
            print(f"at the end: {machine()}")


if __name__ == "__main__":
    main()
