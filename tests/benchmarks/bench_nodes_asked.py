"""How many of 50 nodes a query asks, by the size of its box: from the ring alone.

    python -m tests.benchmarks.bench_nodes_asked [--quick] [--nodes N] [--plot FILE]

A dataset of geohashes of length 5, placed by all five characters, on a ring of 50 nodes, one
copy. Boxes of one shape, that of a cell, are dropped anywhere between 60 degrees south and
north, each time 200 of a size; sizes are in sides of a cell. For comparison a dataset placed
by four characters: 32 cells share a slot there.

What must hold, and is checked: a box inside one cell asks one slot; a box no larger than a
cell asks at most four.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from geostore.grid import GEOHASH, Region
from geostore.node.pruning import slots_matching
from geostore.query import Query
from geostore.ring import SLOTS_TOTAL, Ring, RingNode, found_ring, with_node_joined
from geostore.types import BBox, DatasetDefinition
from tests.benchmarks.three_nodes import definition_of

SIDES = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0)
KM_A_CELL = 4.9


@dataclass(frozen=True, slots=True)
class Asked:
    """What boxes of one size ask: one entry a box."""

    cells: np.ndarray
    slots: np.ndarray
    nodes: np.ndarray


def _ring(nodes: int) -> Ring:
    def node(number: int) -> RingNode:
        return RingNode(f"node-{number}", f"node-{number}", f"node-{number}:7070")

    ring = found_ring(node(0), cluster_id="bench", replicas=1)
    for number in range(1, nodes):
        ring = with_node_joined(ring, node(number), None)
    return ring


def _box(generator: np.random.Generator, side: float, *, inside: bool = False) -> BBox:
    """Anywhere; or, `inside`, within the cell that its corner is in."""
    lon, lat = generator.uniform(-170, 160), generator.uniform(-60, 60)
    cell = GEOHASH.bounds(GEOHASH.encode(lon, lat, 5))
    wide, high = cell.east - cell.west, cell.north - cell.south
    if inside:
        lon = cell.west + generator.uniform(0.001, 0.999 - side) * wide
        lat = cell.south + generator.uniform(0.001, 0.999 - side) * high
    return BBox(lon, lat, lon + side * wide, lat + side * high)


def _asked(ring: Ring, definition: DatasetDefinition, boxes: list[BBox]) -> Asked:
    firsts = ring.owners[:, 0]
    slots: list[int] = []
    nodes: list[int] = []
    cells: list[int] = []
    for box in boxes:
        found = slots_matching(Query(region=Region.from_bbox(box)), [definition])
        matched = np.arange(SLOTS_TOTAL) if found is None else np.array(sorted(found), int)
        slots.append(len(matched))
        nodes.append(len(np.unique(firsts[matched])))
        west, east = np.floor((np.array([box.west, box.east]) + 180) / (360 / 2**13))
        south, north = np.floor((np.array([box.south, box.north]) + 90) / (180 / 2**12))
        cells.append(int((east - west + 1) * (north - south + 1)))
    return Asked(np.array(cells), np.array(slots), np.array(nodes))


def _plot(path: Path, nodes: int, found: dict[int, dict[float, Asked]]) -> None:
    """Median share of nodes asked by the box's side, with the range of all boxes."""
    try:
        import matplotlib as mpl
    except ImportError:
        sys.exit("--plot needs matplotlib, which geostore does not depend on")
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panel = plt.subplots(figsize=(8, 4.2))
    for (placement, sizes), color in zip(found.items(), ("#2f6f9f", "#c2702d"), strict=True):
        sides = np.array(list(sizes))
        shares = [100 * asked.nodes / nodes for asked in sizes.values()]
        low, high = [share.min() for share in shares], [share.max() for share in shares]
        panel.fill_between(sides, low, high, color=color, alpha=0.2, linewidth=0)
        middle = [float(np.median(share)) for share in shares]
        label = f"placed by {placement} characters"
        panel.plot(sides, middle, marker="o", markersize=4, color=color, label=label)
    panel.axvline(1, color="#888888", linewidth=0.8, linestyle="--")
    panel.annotate("one cell", (1, 92), xytext=(4, 0), textcoords="offset points", fontsize=9)
    panel.set_xscale("log", base=2)
    panel.set_xticks(SIDES, [f"{side:g}" for side in SIDES], fontsize=8)
    panel.minorticks_off()
    panel.set_xlabel(f"side of the query's box, in cells of {KM_A_CELL} km at the equator")
    panel.set_ylabel(f"nodes asked, % of {nodes}")
    panel.set_ylim(0, 103)
    panel.grid(axis="y", color="#dddddd", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, loc="center left")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20 boxes a size, 12 nodes")
    parser.add_argument("--nodes", type=int)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="a PNG (needs matplotlib)")
    options = parser.parse_args()
    nodes = options.nodes or (12 if options.quick else 50)
    boxes = 20 if options.quick else 200
    ring = _ring(nodes)
    definition = definition_of("s2")
    generator = np.random.default_rng(5)
    print(
        f"{nodes} nodes, {boxes} boxes a size, cells of {KM_A_CELL} km;"
        f" Python {platform.python_version()}, {os.cpu_count()} cores"
    )
    found: dict[int, dict[float, Asked]] = {5: {}, 4: {}}
    for side in (0.1, 0.5, 0.9):
        inside = [_box(generator, side, inside=True) for _ in range(boxes)]
        assert set(_asked(ring, definition, inside).slots.tolist()) == {1}
    print("\nboxes inside one cell: one slot, each of them")
    print(
        f"\n{'side, cells':>12}{'side, km':>10}{'cells':>8}{'slots: median':>15}{'max':>6}"
        f"{'nodes: median':>15}{'max':>6}{'share %':>9}{'by 4: %':>9}{'ms':>7}"
    )
    for side in SIDES:
        some = [_box(generator, side) for _ in range(boxes)]
        start = time.perf_counter()
        asked = found[5][side] = _asked(ring, definition, some)
        took_ms = 1000 * (time.perf_counter() - start) / boxes
        coarse = found[4][side] = _asked(ring, replace(definition, placement=4), some)
        assert side > 1 or asked.slots.max() <= 4
        share, coarse_share = (100 * np.median(each.nodes) / nodes for each in (asked, coarse))
        print(
            f"{side:>12g}{side * KM_A_CELL:>10.1f}{np.median(asked.cells):>8.0f}"
            f"{np.median(asked.slots):>15.0f}{asked.slots.max():>6}"
            f"{np.median(asked.nodes):>15.0f}{asked.nodes.max():>6}{share:>9.0f}"
            f"{coarse_share:>9.0f}{took_ms:>7.2f}"
        )
    if options.plot:
        _plot(options.plot, nodes, found)


if __name__ == "__main__":
    main()
