"""Rows on their way: catalog, batches, bytes, batches again, Arrow, and the merge of three.

    python -m tests.benchmarks.bench_rows [--quick] [--tiles N] [--rounds N]

Each stage in nanoseconds a row. The peers: a copy in memory of the same bytes, and a bare
gRPC stream of the same messages over loopback. Tiles come as scenes of 200 neighbouring cells
over ten years; a second table asks for them by cloud cover, an order in which scenes do not
lie together. Rounds are interleaved; medians are printed.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from geostore.index import LogCatalog, open_catalog
from geostore.query import Query, SortKey, merge_batches
from geostore.rpc.row_batches import BatchDecoder, BatchEncoder
from geostore.tensors.tables import record_batches
from geostore.types import RowBatch
from tests.synthetic_tiles import many_entries

Result = TypeVar("Result")
STREAMS = 3


class Table:
    """Seconds by stage, one entry a round."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def time(self, name: str, call: Callable[[], Result]) -> Result:
        start = time.perf_counter()
        result = call()
        self.seconds.setdefault(name, []).append(time.perf_counter() - start)
        return result

    def ns(self, name: str, rows: int) -> float:
        return 1e9 * statistics.median(self.seconds[name]) / rows


@contextmanager
def _bare_stream(messages: list[bytes]) -> Iterator[Callable[[], int]]:
    """A gRPC server that streams `messages`; the call drains them and counts bytes."""
    import grpc

    def send(_request: bytes, _context: Any) -> Iterator[bytes]:
        yield from messages

    handlers: dict[str, Any] = {"Rows": grpc.unary_stream_rpc_method_handler(send)}
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    try:
        call: Any = channel.unary_stream("/bench/Rows")
        yield lambda: sum(len(message) for message in call(b""))
    finally:
        channel.close()
        server.stop(None).wait()


def _encode(batches: list[RowBatch]) -> list[bytes]:
    return list(BatchEncoder().encode_stream(batches))


def _decode(messages: list[bytes]) -> list[RowBatch]:
    decoder = BatchDecoder()
    return [decoder.decode(message) for message in messages]


def _read(messages: list[bytes]) -> int:
    decoder = BatchDecoder()
    return sum(decoder.read(message).rows for message in messages)


def _arrow(messages: list[bytes]) -> int:
    decoder = BatchDecoder()
    return sum(decoder.decode_arrow(message).num_rows for message in messages)


def _measure(catalog: LogCatalog, sort: SortKey | None, rounds: int, table: Table) -> int:
    query = Query(sort=sort)
    batches = list(catalog.query(query))
    rows = sum(map(len, batches))
    messages = _encode(batches)
    streams = [
        _encode(list(catalog.query(query, slots=frozenset(range(first, 4096, STREAMS)))))
        for first in range(STREAMS)
    ]
    size = sum(map(len, messages))
    with _bare_stream(messages) as drained:
        assert drained() == size
        for _ in range(rounds):
            table.time("catalog query to batches", lambda: list(catalog.query(query)))
            table.time("encode", lambda: _encode(batches))
            table.time("read (numbers, codes)", lambda: _read(messages))
            decoded = table.time("decode to batches", lambda: _decode(messages))
            assert sum(map(len, decoded)) == rows
            assert table.time("decode to Arrow", lambda: _arrow(messages)) == rows
            table.time("batches to Arrow", lambda each=decoded: list(record_batches(each)))  # type: ignore[misc]
            parts = [_decode(stream) for stream in streams]
            merge = partial(merge_batches, parts, sort)
            merged = table.time("merge three streams", lambda call=merge: list(call()))  # type: ignore[misc]
            assert sum(map(len, merged)) == rows
            table.time("copy of the bytes", lambda: bytearray(b"".join(messages)))
            assert table.time("bare gRPC stream", drained) == size
    return size


def _print(table: Table, *, rows: int, size: int, sort: SortKey | None) -> None:
    print(f"\norder: {sort or 'time'}; {size / rows:.1f} bytes a row")
    print(f"{'stage':<28}{'ns a row':>10}{'of gRPC':>10}")
    bare = table.ns("bare gRPC stream", rows)
    for name in table.seconds:
        cost = table.ns(name, rows)
        print(f"{name:<28}{cost:>10.1f}{cost / bare:>10.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10,000 tiles, 3 rounds")
    parser.add_argument("--tiles", type=int)
    parser.add_argument("--rounds", type=int)
    options = parser.parse_args()
    tiles = options.tiles or (10_000 if options.quick else 100_000)
    rounds = options.rounds or (3 if options.quick else 7)
    work = Path(tempfile.mkdtemp(prefix="bench-rows-"))
    try:
        with open_catalog(work / "catalog", writable=True) as catalog:
            catalog.rebuild(many_entries(tiles))
            definition = b's{"id":"id-s2","name":"s2","placement":5}'
            catalog.record_compare_and_set("dataset/s2", 0, definition)
            print(
                f"{tiles:,} tiles, {rounds} rounds; Python {platform.python_version()},"
                f" {os.cpu_count()} cores"
            )
            orders: tuple[SortKey | None, ...] = (None, "cloud")
            for sort in orders:
                table = Table()
                size = _measure(catalog, sort, rounds, table)
                _print(table, rows=tiles, size=size, sort=sort)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
