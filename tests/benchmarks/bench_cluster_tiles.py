"""Tiles into three nodes and out of one: ingest by embedded, reading by a bare stream.

    python -m tests.benchmarks.bench_cluster_tiles [--quick] [--rounds N]

Ingest: the main scene from warm file cache into a new dataset of three node processes (one
copy), and into a new embedded store; two threads both. Bar: at 0.7 of the embedded speed or
more. All processes share this machine's cores.

Reading: all blocks of all its tiles, asked of one node in one `read_tiles`, as stored and not
decoded, four times over. The peer is a process that streams the same bytes in messages of
1 MiB, ready made, by gRPC alone. Bar: at 0.8 of its speed or more. With the pixels decoded
(`Selection.read`) the same from an embedded store is shown beside it.

Rounds are interleaved; medians are printed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import geostore
from geostore.backends import Backend, open_embedded
from geostore.ingest import ingest
from geostore.query import Query
from geostore.types import TileKey
from tests.benchmarks.ingest_scenes import SCENE
from tests.benchmarks.three_nodes import Rounds, bare_stream, machine, nodes_up, opened

INGEST_BAR, READ_BAR = 0.7, 0.8
REPEATS = 4
MESSAGE_BYTES = 1 << 20
WORKERS = 2


def _ingested(backend: Backend, dataset: str) -> int:
    """Bytes stored."""
    (result,) = ingest(backend, [SCENE], dataset=dataset, workers=WORKERS)
    if result.error:
        raise SystemExit(f"ingest failed: {result.error}")
    return result.bytes


def _measure_ingest(rounds: int) -> None:
    times = Rounds()
    stored = 0
    SCENE.read_bytes()
    with nodes_up() as (_, target), opened(target) as nodes:
        _ingested(nodes, "warm")
        for number in range(rounds):
            with tempfile.TemporaryDirectory(prefix="bench-store-") as work:
                with open_embedded(Path(work) / "store") as store:
                    times.time("embedded", lambda to=store: _ingested(to, "s2"))  # type: ignore[misc]
                name = f"round-{number}"
                stored = times.time("three nodes", lambda to=name: _ingested(nodes, to))  # type: ignore[misc]
                nodes.delete_dataset(name)
    embedded_s, nodes_s = times.median("embedded"), times.median("three nodes")
    print(f"\ningest of the main scene, {stored / 1e6:.1f} MB stored, {WORKERS} threads")
    print(f"{'into':<14}{'s':>8}{'MB/s':>8}")
    for name in times.seconds:
        print(f"{name:<14}{times.median(name):>8.3f}{stored / 1e6 / times.median(name):>8.1f}")
    print(f"three nodes by embedded: {embedded_s / nodes_s:.2f} of the speed; bar {INGEST_BAR}")


def _wanted(backend: Backend) -> list[tuple[TileKey, list[int]]]:
    """Every block of every tile."""
    keys = [row.key for batch in backend.query(Query()) for row in batch.rows()]
    return [(one.key, list(range(len(one.blocks)))) for one in backend.details_of(keys)]


def _read(backend: Backend, wanted: Sequence[tuple[TileKey, list[int]]]) -> int:
    return sum(
        len(data) for tile in backend.read_tiles(wanted) for data in tile.data if data is not None
    )


def _messages(backend: Backend, wanted: Sequence[tuple[TileKey, list[int]]]) -> Iterator[bytes]:
    parts = [data for tile in backend.read_tiles(wanted) for data in tile.data if data is not None]
    whole = memoryview(b"".join(parts))
    for start in range(0, len(whole), MESSAGE_BYTES):
        yield bytes(whole[start : start + MESSAGE_BYTES])


def _pixels(store: geostore.Store) -> int:
    return sum(array.data.nbytes for _, array in store.query().read(resolution=10))


def _measure_reading(rounds: int) -> None:
    times = Rounds()
    with (
        tempfile.TemporaryDirectory(prefix="bench-store-") as work,
        nodes_up(1) as (_, target),
        opened(target) as node,
        geostore.open(target) as cluster,
        geostore.open(Path(work) / "store") as store,
    ):
        _ingested(node, "s2")
        (result,) = store.ingest(SCENE, dataset="s2")
        assert result.status == "ingested"
        wanted = REPEATS * _wanted(node)
        size = _read(node, wanted)
        with bare_stream({"tiles": list(_messages(node, wanted))}) as bare:
            assert bare("tiles") == size
            pixels = _pixels(cluster)
            for _ in range(rounds):
                assert times.time("bare gRPC stream", lambda: bare("tiles")) == size
                assert times.time("one node", lambda: _read(node, wanted)) == size
                assert times.time("pixels, one node", lambda: _pixels(cluster)) == pixels
                assert times.time("pixels, embedded", lambda: _pixels(store)) == pixels
    bare_s, node_s = times.median("bare gRPC stream"), times.median("one node")
    print(f"\n{len(wanted)} tiles, {size / 1e6:.0f} MB as stored; pixels: {pixels / 1e6:.0f} MB")
    print(f"{'from':<20}{'s':>8}{'MB/s':>8}")
    for name in times.seconds:
        amount = pixels if name.startswith("pixels") else size
        print(f"{name:<20}{times.median(name):>8.3f}{amount / 1e6 / times.median(name):>8.0f}")
    print(f"one node by bare stream: {bare_s / node_s:.2f} of the speed; bar {READ_BAR}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int, help="of ingest; of reading twice as many")
    options = parser.parse_args()
    if not SCENE.exists():
        print(f"skipped: {SCENE.name} is not beside the repository")
        return 0
    rounds = options.rounds or (1 if options.quick else 9)
    print(f"{rounds} rounds; {machine()}")
    _measure_ingest(rounds)
    _measure_reading(2 * rounds)
    print(f"at the end: {machine()}, {len(os.sched_getaffinity(0))} of them ours")
    return 0


if __name__ == "__main__":
    sys.exit(main())
