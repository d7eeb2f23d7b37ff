"""Three node processes for benchmarks, filled without an ingest; and the peer of all streams."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from geostore.api.local_cluster import LocalCluster
from geostore.backends import Backend, open_backend
from geostore.config import parse_target
from geostore.index import CatalogEntry, open_catalog
from geostore.ring import placement_key, slot_of
from geostore.types import DatasetDefinition, ResolutionGroup
from tests.benchmarks.million_tiles import Tiles
from tests.benchmarks.million_tiles import entries as entries_of

__all__ = [
    "Rounds",
    "bare_stream",
    "cpu_seconds",
    "definition_of",
    "machine",
    "nodes_up",
    "opened",
    "write_rows",
    "write_tiles",
]

Result = TypeVar("Result")
REPOSITORY = Path(__file__).resolve().parents[2]
MESSAGES_SUFFIX = ".messages"


class Rounds:
    """Seconds by what was timed, one entry a round."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def time(self, name: str, call: Callable[[], Result]) -> Result:
        """Calls once and keeps how long it took."""
        start = time.perf_counter()
        result = call()
        self.seconds.setdefault(name, []).append(time.perf_counter() - start)
        return result

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def part(self, name: str, percent: float) -> float:
        """The time that so many of a hundred calls kept within."""
        return float(np.percentile(self.seconds[name], percent))


def machine() -> str:
    """What a figure was taken on, in words."""
    load = os.getloadavg()[0]
    return f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {load:.1f}"


def definition_of(name: str) -> DatasetDefinition:
    """A dataset of the cells that `tests.synthetic_tiles` makes."""
    return DatasetDefinition(
        id=f"id-{name}",
        name=name,
        scheme="geohash",
        length=5,
        placement=5,
        groups=(ResolutionGroup(10.0, 512, 512),),
        created_us=1,
    )


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has had until now, its ended threads included (Linux)."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, after_name[11:13])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def nodes_up(nodes: int = 3, directory: Path | None = None) -> Iterator[tuple[LocalCluster, str]]:
    """A cluster on this machine and its target; stopped at the end.

    It is new and removed at the end, unless it is that of a `directory`.
    """
    paths = [str(REPOSITORY), str(REPOSITORY / "cli"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    with tempfile.TemporaryDirectory(prefix="bench-nodes-") as work:
        cluster = LocalCluster(directory or work)
        try:
            yield cluster, cluster.up(nodes=nodes)
        finally:
            cluster.down()


@contextmanager
def opened(target: str) -> Iterator[Backend]:
    with closing(open_backend(parse_target(target))) as backend:
        yield backend


def write_rows(
    cluster: LocalCluster,
    target: str,
    definition: DatasetDefinition,
    entries: Sequence[CatalogEntry],
) -> str:
    """Puts rows into the catalogs of the nodes whose slots they are in; the target.

    The nodes are stopped meanwhile. There are no tile files behind these rows.
    """
    assert definition.placement is not None
    with opened(target) as backend:
        if definition not in backend.datasets():
            backend.create_dataset(definition)
        homes: dict[str, str] = {}
        by_node: dict[str, list[CatalogEntry]] = {}
        for entry in entries:
            place = placement_key(entry.meta.key.geocode, definition.placement)
            if place not in homes:
                homes[place] = backend.holders(slot_of(place))[0][0]
            by_node.setdefault(homes[place], []).append(entry)
    cluster.down()
    for name, own in by_node.items():
        _fill(cluster, name, own)
    return cluster.up()


def write_tiles(
    cluster: LocalCluster, target: str, definitions: Sequence[DatasetDefinition], tiles: Tiles
) -> str:
    """As `write_rows`, for tiles as columns: no more of them are objects than a catalog takes
    at a time. `definitions` are those of `DATASETS`, all with placement by the whole cell.
    """
    with opened(target) as backend:
        for definition in definitions:
            if definition not in backend.datasets():
                backend.create_dataset(definition)
        cells, of_tile = np.unique(tiles.geocodes(), return_inverse=True)
        slots = np.array([slot_of(cell) for cell in cells.tolist()])
        homes = {slot: backend.holders(slot)[0][0] for slot in set(slots.tolist())}
    names = np.array([homes[slot] for slot in slots.tolist()])[of_tile]
    cluster.down()
    ids = tuple(definition.id for definition in definitions)
    for name in sorted(set(homes.values())):
        columns = {
            each.name: getattr(tiles, each.name)[names == name]
            for each in fields(tiles)
            if each.name != "spread"
        }
        _fill(cluster, name, entries_of(replace(tiles, **columns), dataset_ids=ids))
    return cluster.up()


def _fill(cluster: LocalCluster, name: str, own: Iterable[CatalogEntry]) -> None:
    with closing(open_catalog(cluster.directory / name / "catalog", writable=True)) as catalog:
        catalog.rebuild(own)


@contextmanager
def bare_stream(streams: Mapping[str, Sequence[bytes]]) -> Iterator[Callable[[str], int]]:
    """A process that streams ready messages over loopback, without any geostore in it.

    What is yielded drains the stream of that name in one call and counts its bytes. The
    server has gRPC's own settings but for the largest message.
    """
    import grpc

    with tempfile.TemporaryDirectory(prefix="bench-bare-") as work:
        for name, messages in streams.items():
            sizes = json.dumps([len(message) for message in messages])
            (Path(work) / f"{name}.json").write_text(sizes)
            (Path(work) / f"{name}{MESSAGES_SUFFIX}").write_bytes(b"".join(messages))
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.three_nodes", work],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            port = int(server.stdout.readline())
            options = [("grpc.max_receive_message_length", 16 << 20)]
            with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
                call: Any = channel.unary_stream("/bench/Stream")
                yield lambda name: sum(len(message) for message in call(name.encode()))
        finally:
            server.stdin.close()  # which ends it
            server.wait(60)


def _serve(work: Path) -> None:
    """The bare stream's server; ends with its standard input."""
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    streams: dict[bytes, list[bytes]] = {}
    for path in work.glob(f"*{MESSAGES_SUFFIX}"):
        whole = memoryview(path.read_bytes())
        streams[path.stem.encode()] = []
        start = 0
        for size in json.loads(path.with_suffix(".json").read_text()):
            streams[path.stem.encode()].append(bytes(whole[start : start + size]))
            start += size

    def send(name: bytes, _context: Any) -> Iterator[bytes]:
        yield from streams[name]

    handlers: dict[str, Any] = {"Stream": grpc.unary_stream_rpc_method_handler(send)}
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(None).wait()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
