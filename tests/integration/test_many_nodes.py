"""Many nodes on one machine, each with bounded memory: a ring, a scene, answers as embedded.

Six nodes and the demo's scene; by hand, with the time and memory that they take:

    GEOSTORE_MANY_NODES=50 pytest -s tests/integration/test_many_nodes.py
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import geostore
from geostore import demo
from geostore.api.local_cluster import LocalCluster
from geostore.query import Query
from geostore.ring import SLOTS_TOTAL, Ring, slot_of
from geostore.rpc import messages as wire
from geostore.rpc.client import NodeClient
from geostore.rpc.transport import Channels
from geostore.types import CallContext

NODES_DEFAULT = 6
# Read when the module is loaded: tests run without GEOSTORE_* variables.
NODES = int(os.environ.get("GEOSTORE_MANY_NODES", NODES_DEFAULT))
MAIN_SCENE = "S2A_MSIL1C_20160112T160642_N0201_R097_T18SVG_20160112T160642.SAFE.zip"

DATA_KIB_MAX = 512 * 1024
"""What the system lets each process allocate, thread stacks included."""
PEAK_MIB_MAX = 128
"""Resident, libraries included, at its most: docs/operations.md names it."""
NOT_NEEDED = re.compile(r"/(rasterio|pyarrow|pandas|pyproj|torch|xarray)[./]")

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="memory is read from /proc, as Linux has it"
)

PREDICATES: tuple[dict[str, Any], ...] = (
    {"bbox": (-75.62, 37.63, -75.58, 37.69)},
    {"time": "2016-01/2016-02", "pixel_coverage": (40, None)},
    {"geocode": "dqdq", "bands": ["B04", "B08"]},
    {"platform": "sentinel-2a", "sort": "-coverage", "limit": 7},
)


@dataclass(frozen=True, slots=True)
class Many:
    cluster: LocalCluster
    target: str
    channels: Channels

    @property
    def addresses(self) -> list[str]:
        return self.target.removeprefix("geostore://").split(",")

    def pids(self) -> list[int]:
        found = [node.pid for node in self.cluster.status() if node.pid is not None]
        assert len(found) == NODES
        return found

    def rings(self) -> list[Ring]:
        """Every node's."""
        return [
            NodeClient(self.channels.channel(address), address).get_ring(CallContext.within(60))
            for address in self.addresses
        ]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Many]:
    bounded = f'ulimit -d {DATA_KIB_MAX} && exec "$@"'
    node = (sys.executable, "-m", "geostore_cli", "node")
    folder = tmp_path_factory.mktemp("many")
    cluster = LocalCluster(
        folder, command=("/bin/sh", "-c", bounded, "sh", *node), start_timeout_s=300
    )
    channels = Channels()
    try:
        with measured(f"{NODES} nodes serve"):
            target = cluster.up(nodes=NODES)
        yield Many(cluster, target, channels)
    finally:
        channels.close()
        report = cluster.down()
    assert report.killed == ()
    assert len(report.stopped) == NODES


@contextmanager
def measured(what: str) -> Iterator[None]:
    """Tells the time of a step to those who look (`pytest -s`)."""
    start_s = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - start_s:.2f} s")


def peak_mib(pid: int) -> float:
    """The most that a process was resident with."""
    (line,) = re.findall(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(line) / 1024


def check_memory(many: Many, when: str) -> None:
    pids = many.pids()
    peaks = [peak_mib(pid) for pid in pids]
    private = [psutil.Process(pid).memory_full_info().uss / 2**20 for pid in pids]
    print(
        f"{when}: peak {max(peaks):.0f} MiB at most and {np.mean(peaks):.0f} in the mean,"
        f" private {max(private):.0f} and {np.mean(private):.0f}, {sum(private):.0f} MiB in all"
    )
    assert max(peaks) <= PEAK_MIB_MAX


def test_they_form_one_ring(many: Many) -> None:
    rings = many.rings()
    ring = rings[0]
    assert all(other == ring for other in rings)
    ring.check()
    assert (len(ring.nodes), ring.epoch) == (NODES, NODES)
    slots = [len(ring.slots_of(node.id)) for node in ring.nodes]
    assert sum(slots) == SLOTS_TOTAL
    assert max(slots) - min(slots) <= 1
    assert {node.address for node in ring.nodes} == set(many.addresses)
    check_memory(many, "idle")


def lines(store: geostore.Store, **predicates: Any) -> list[dict[str, Any]]:
    """What `geostore query` prints, but for the nodes."""
    found = [tile.to_json() for tile in store.query(**predicates)]
    return [{key: value for key, value in line.items() if key != "nodes"} for line in found]


def test_they_take_a_scene_and_answer_as_one(
    many: Many, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    scene = demo.scene_path()
    if NODES > NODES_DEFAULT:
        scene = request.getfixturevalue("shared_data") / "sentinel2" / MAIN_SCENE
    with geostore.open(tmp_path / "embedded") as embedded, geostore.open(many.target) as store:
        with measured("embedded ingest"):
            (alone,) = embedded.ingest(scene)
        with measured("ingest"):
            (result,) = store.ingest(scene)
        assert (result.status, result.tiles, result.missing) == (
            "ingested",
            alone.tiles,
            alone.missing,
        )
        check_memory(many, "after the ingest")
        tiles = list(store.query())
        assert len(tiles) == result.tiles
        check_places(many, tiles)
        expected = [lines(embedded, **predicates) for predicates in ({}, *PREDICATES)]
        assert all(expected)  # each predicate finds some
        for tile, twin in zip(tiles[::7], list(embedded.query())[::7], strict=True):
            ours, theirs = tile.read(bands=["B04"]), twin.read(bands=["B04"])
            assert np.array_equal(ours.data, theirs.data)
            assert np.array_equal(ours.mask, theirs.mask)
        with measured(f"{len(expected)} queries through each of {NODES} nodes"):
            for address in many.addresses:
                with geostore.open(f"geostore://{address}", mode="r") as through:
                    assert [
                        lines(through, **predicates) for predicates in ({}, *PREDICATES)
                    ] == expected, address
    check_memory(many, "after the queries")


def check_places(many: Many, tiles: list[geostore.Tile]) -> None:
    """Each tile is where the ring says, and no node has one more."""
    ring = many.rings()[0]
    held = dict.fromkeys((node.name for node in ring.nodes), 0)
    for tile in tiles:
        (name,) = tile.nodes
        assert name == ring.first_of(slot_of(tile.geocode[:5])).name
        held[name] += 1
    for node in ring.nodes:
        client = NodeClient(
            many.channels.channel(node.address),
            node.address,
            lambda call: wire.make_head(call, ring.cluster_id, ring.epoch),
        )
        call = CallContext.within(60)
        assert client.node_status(call).tiles == held[node.name]
        assert client.count(call, Query()) == len(tiles)


def test_they_load_nothing_that_a_node_does_not_need(many: Many) -> None:
    for pid in many.pids():
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert "/numpy/" in maps  # the maps name packages
        assert sorted(set(NOT_NEEDED.findall(maps))) == []
