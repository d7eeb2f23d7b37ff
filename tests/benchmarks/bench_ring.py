"""Table II of the paper in simulation: how evenly cells and bytes fall on 50 nodes.

    python -m tests.benchmarks.bench_ring [--quick] [--nodes N] [--plot FILE]

Footprints: squares of 110 km a side at centres 100 km apart, in rows along parallels, over a
rough outline of the continental United States; a side is 110 km on the sphere at the square's
centre. All 823 of them would take 456,000 cells at geohash 5; 580 drawn from them take about as
many as the paper's, 330,000. Places are visited in turn until 6,400 scenes are made, so each has
eleven dates or twelve. The cells are `geostore.grid.covering` of each footprint at geohash 5.

A tile's bytes: a cell's own factor (lognormal, sigma 0.35: forest packs worse than desert) times
a date's (sigma 0.15) times 400 kB times the share of the cell inside the footprint. All drawn
from one seed.

By hash: the ring grows with all slots weighing the same. By bytes: the same joins, told the bytes
of each slot. The paper (Rammer et al., "Small is Beautiful") reports 1.08 % for bytes and 1.10 %
for counts. The noise floor is what cells of these sizes show on 50 nodes when each falls on any
node by chance.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from geostore.grid import GEOHASH, Region, covering
from geostore.ring import (
    SLOTS_TOTAL,
    Ring,
    RingNode,
    found_ring,
    placement_key,
    plan_moves,
    slot_of,
    with_node_joined,
)
from geostore.types import BBox

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

OUTLINE = [  # lon, lat, clockwise from the north-west; good to about 50 km
    (-124.7, 48.4), (-123.0, 49.0), (-95.2, 49.0), (-89.6, 48.0), (-84.8, 46.6), (-82.5, 45.3),
    (-82.4, 42.9), (-79.0, 42.7), (-76.3, 44.2), (-74.7, 45.0), (-71.5, 45.0), (-69.2, 47.4),
    (-67.8, 47.1), (-67.0, 44.8), (-70.7, 43.1), (-70.0, 41.6), (-73.9, 40.5), (-75.5, 35.2),
    (-78.0, 33.9), (-81.3, 31.5), (-80.1, 26.8), (-80.6, 25.2), (-81.8, 26.1), (-82.8, 28.5),
    (-84.2, 30.0), (-89.4, 29.1), (-94.0, 29.6), (-97.2, 27.6), (-97.2, 25.9), (-99.1, 26.4),
    (-101.4, 29.8), (-103.1, 29.0), (-104.9, 30.6), (-106.5, 31.8), (-111.0, 31.3),
    (-114.8, 32.5), (-117.1, 32.5), (-120.6, 34.5), (-122.5, 37.5), (-124.3, 40.3),
    (-124.1, 43.5), (-124.7, 48.4),
]  # fmt: skip

KM_PER_DEGREE = 111.2
SIDE_KM, STEP_KM = 110.0, 100.0
SCENES, PLACES = 6_400, 580
TILE_BYTES = 400_000.0
REPLICAS = 3


@dataclass(frozen=True, slots=True)
class Tiles:
    """One row a distinct cell."""

    cells: list[str]
    counts: Floats
    """Tiles of the cell."""
    bytes: Floats

    def by_slot(self, placement: int) -> tuple[Floats, Floats]:
        """(counts, bytes) of each slot."""
        slots = np.array([slot_of(placement_key(cell, placement)) for cell in self.cells])
        counts = np.bincount(slots, weights=self.counts, minlength=SLOTS_TOTAL)
        return counts, np.bincount(slots, weights=self.bytes, minlength=SLOTS_TOTAL)


def _inside(lon: Floats, lat: Floats) -> npt.NDArray[np.bool_]:
    """Even-odd rule."""
    inside = np.zeros(lon.shape, dtype=np.bool_)
    for (x1, y1), (x2, y2) in pairwise(OUTLINE):
        if y1 != y2:
            crosses = ((y1 > lat) != (y2 > lat)) & (lon < (x2 - x1) * (lat - y1) / (y2 - y1) + x1)
            inside ^= crosses
    return inside


def _footprints() -> list[BBox]:
    boxes = []
    for lat in np.arange(24.7, 49.3, STEP_KM / KM_PER_DEGREE):
        wide = KM_PER_DEGREE * np.cos(np.radians(lat))
        lons = np.arange(-125.5, -66.0, STEP_KM / wide)
        half_lon, half_lat = SIDE_KM / 2 / wide, SIDE_KM / 2 / KM_PER_DEGREE
        for lon in lons[_inside(lons, np.full(lons.shape, lat))]:
            box = (lon - half_lon, lat - half_lat, lon + half_lon, lat + half_lat)
            boxes.append(BBox(*(float(edge) for edge in box)))
    return boxes


def _tiles(places: int, scenes: int) -> tuple[Tiles, int]:
    """(tiles, places)."""
    generator = np.random.default_rng(20)
    boxes = _footprints()
    drawn = np.sort(generator.permutation(len(boxes))[:places])
    boxes = [boxes[number] for number in drawn]
    numbers: dict[str, int] = {}
    rows: list[Integers] = []
    shares: list[Floats] = []
    for box in boxes:
        cells = covering(GEOHASH, Region.from_bbox(box), 5)
        rows.append(np.array([numbers.setdefault(cell, len(numbers)) for cell in cells]))
        west, south, east, north = GEOHASH.bounds_many(cells).T
        across = np.minimum(east, box.east) - np.maximum(west, box.west)
        along = np.minimum(north, box.north) - np.maximum(south, box.south)
        shares.append(np.maximum(across * along / ((east - west) * (north - south)), 1e-3))
    factor = generator.lognormal(0.0, 0.35, len(numbers))
    counts, sizes = np.zeros(len(numbers)), np.zeros(len(numbers))
    for scene in range(scenes):
        row, share = rows[scene % len(boxes)], shares[scene % len(boxes)]
        counts[row] += 1
        date = generator.lognormal(0.0, 0.15, len(row))
        sizes[row] += TILE_BYTES * factor[row] * date * share
    return Tiles(list(numbers), counts, sizes), len(boxes)


def _node(number: int) -> RingNode:
    return RingNode(f"node-{number}", f"node-{number}", f"node-{number}:7070")


def _grown(nodes: int, replicas: int, slot_bytes: Floats | None) -> Ring:
    ring = found_ring(_node(0), cluster_id="bench", replicas=replicas)
    for number in range(1, nodes):
        ring = with_node_joined(ring, _node(number), slot_bytes)
    return ring


def _per_node(ring: Ring, slot_values: Floats) -> Floats:
    repeated = np.repeat(slot_values, ring.copies)
    return np.bincount(ring.owners.ravel(), weights=repeated, minlength=len(ring.nodes))


def _spread(values: Floats) -> float:
    """Standard deviation over mean, percent."""
    return float(100 * values.std() / values.mean())


def _line(title: str, placement: int, rings: Sequence[Ring], tiles: Tiles) -> None:
    """Spreads of one ring and what its next join moves."""
    counts, sizes = tiles.by_slot(placement)
    ring, joined = rings
    moved = [move.slot for move in plan_moves(ring, joined).moves]
    ideal = 1 / len(joined.nodes)
    bytes_moved = sizes[moved].sum() / (sizes.sum() * joined.copies)
    slots_moved = len(moved) / (SLOTS_TOTAL * joined.copies)
    print(
        f"{title:<22}{placement:>2}{ring.copies:>4}"
        f"{_spread(_per_node(ring, counts)):>11.2f}{_spread(_per_node(ring, sizes)):>10.2f}"
        f"{100 * slots_moved:>10.3f}{100 * bytes_moved:>10.3f}"
        f"{slots_moved / ideal:>10.3f}{bytes_moved / ideal:>10.3f}"
    )


def _plot(path: Path, kinds: dict[str, Floats]) -> None:
    """Bytes of every node in shares of the mean, one panel a way of placing."""
    try:
        import matplotlib as mpl
    except ImportError:
        sys.exit("--plot needs matplotlib, which geostore does not depend on")
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(kinds), figsize=(11, 3.8), sharey=True)
    reach = 1.15 * max(float(np.abs(v / v.mean() - 1).max()) for v in kinds.values()) * 100
    for panel, (title, values) in zip(panels, kinds.items(), strict=True):
        off = 100 * (np.sort(values)[::-1] / values.mean() - 1)
        panel.bar(np.arange(1, len(off) + 1), off, width=0.8, color="#2f6f9f")
        panel.axhline(0, color="#333333", linewidth=0.8)
        panel.set_title(f"{title}\nCV {_spread(values):.2f} %", fontsize=10)
        panel.set_xlabel("node, fullest first")
        panel.set_ylim(-reach, reach)
        panel.grid(axis="y", color="#dddddd", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("bytes, % off the mean node")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="60 places, 400 scenes, 12 nodes")
    parser.add_argument("--nodes", type=int)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="a PNG (needs matplotlib)")
    options = parser.parse_args()
    nodes = options.nodes or (12 if options.quick else 50)
    tiles, places = _tiles(60 if options.quick else PLACES, 400 if options.quick else SCENES)
    scenes = 400 if options.quick else SCENES
    print(
        f"{scenes:,} scenes at {places:,} places, {len(tiles.cells):,} cells,"
        f" {int(tiles.counts.sum()):,} tiles, {tiles.bytes.sum() / 1e12:.2f} TB on {nodes} nodes;"
        f" Python {platform.python_version()}, {os.cpu_count()} cores\n"
    )
    print(f"{'':<28}{'CV of, %':>21}{'moved, %, of':>20}{'moved/ideal':>20}")
    print(
        f"{'placed':<22}{'K':>2}{'R':>4}{'tiles':>11}{'bytes':>10}{'slots':>10}{'bytes':>10}"
        f"{'slots':>10}{'bytes':>10}"
    )
    kinds: dict[str, Floats] = {}
    join_s: dict[str, float] = {}
    for replicas in (1, REPLICAS):
        plain = _grown(nodes, replicas, None)
        for placement in (5, 4, 3):
            _, sizes = tiles.by_slot(placement)
            weighed = _grown(nodes, replicas, sizes)
            for title, ring, slot_bytes in (
                ("by hash", plain, None),
                ("by bytes", weighed, sizes),
            ):
                start = time.perf_counter()
                joined = with_node_joined(ring, _node(nodes), slot_bytes)
                join_s[f"{title}, R={replicas}"] = time.perf_counter() - start
                _line(title, placement, (ring, joined), tiles)
                if replicas == 1 and placement != 3:
                    kinds[f"{title}, placement length {placement}"] = _per_node(ring, sizes)
    print(f"\nideal: {100 / (nodes + 1):.3f} %; the paper, by hash: tiles 1.10 %, bytes 1.08 %")
    floors = [100 * np.sqrt(nodes * (v**2).sum()) / v.sum() for v in (tiles.counts, tiles.bytes)]
    print(f"noise floor at K=5, R=1: tiles {floors[0]:.2f} %, bytes {floors[1]:.2f} %")
    print("one join, s: " + ", ".join(f"{name} {took:.2f}" for name, took in join_s.items()))
    if options.plot:
        _plot(options.plot, kinds)


if __name__ == "__main__":
    main()
