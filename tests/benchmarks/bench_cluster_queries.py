"""Queries over three nodes: what few rows cost, when the first of many comes, how fast all do.

    python -m tests.benchmarks.bench_cluster_queries [--quick] [--tiles N] [--rounds N]
        [--boxes N] [--keep DIR]

Three node processes hold a million tiles (`million_tiles`, spread `scenes`) and are asked over
gRPC, through the public `Selection`, by one client on the same machine.

*Empty call*: the same query of a dataset that has no tile. It goes to the same nodes by the same
ways, and finds nothing.

*Selective query*: a box of 2 x 2 degrees, three months, at most 20 % cloud, of those of
`million_queries` that hold 1 to 1,000 rows. Bar: 1.5 times the empty call.

*First row*: of an answer of some 100,000 rows (a year of the ten; of a million tiles), as a
`Tile`. Its own empty call is the same year of the dataset without tiles. Bar: the empty call and
10 ms. Before each of both is a pause, in which nodes end what was let go.

*Drained*: the whole of that answer, to Arrow, to pandas and as `Tile` objects, also with each
field of each looked at (`to_json`). Bars: 100,000 tiles a second to Arrow and pandas, 30,000 as
objects.

Rounds are interleaved: each asks everything once. The second table has the processor's time a
row or a call, of the client, the node that answers it, and the two others together.

`--keep` lets the filled cluster lie in DIR for the next run.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

from geostore.api.local_cluster import LocalCluster
from geostore.api.selection import Selection
from geostore.backends import Backend
from geostore.query import Query
from geostore.types import TimeSpan
from tests.benchmarks.million_queries import boxes_of_size
from tests.benchmarks.million_tiles import DATASETS, Tiles, make_tiles
from tests.benchmarks.three_nodes import (
    Rounds,
    cpu_seconds,
    definition_of,
    machine,
    nodes_up,
    opened,
    write_tiles,
)

EMPTY = "empty"
SELECTIVE_BAR = 1.5
FIRST_BAR_MS = 10.0
DRAIN_BARS = {"to Arrow": 100_000, "to pandas": 100_000, "as tiles": 30_000}
FIRST_CALLS, PAUSE_S = 10, 0.05
"""A round. Nodes hear a little later that an answer was let go, and end what they had begun: the
next call waits for that.
"""
ROWS_MAX = 1000
"""What a selective query may hold."""
YEAR = "2019"


def _first(selection: Selection) -> int:
    """How many rows the first row is: 1 or 0. What is left of the answer is let go."""
    tiles = iter(selection)
    return sum(1 for _ in islice(tiles, 1))


DRAINS: dict[str, Callable[[Selection], int]] = {
    "to Arrow": lambda selection: int(selection.to_arrow().num_rows),
    "to pandas": lambda selection: len(selection.to_pandas()),
    "as tiles": lambda selection: sum(1 for _ in selection),
    "as tiles, every field": lambda selection: sum(1 for tile in selection if tile.to_json()),
}


class _Turns:
    """Times by what was called, and the processor's time that all processes took for it."""

    def __init__(self, cluster: LocalCluster) -> None:
        pids = [state.pid for state in cluster.status()]
        self._pids = [pid for pid in pids if pid is not None]
        self.wall = Rounds()
        self.cpu: dict[str, list[float]] = {}
        """Seconds of the client and of each node, over all calls."""

    def _cpu(self) -> list[float]:
        own = resource.getrusage(resource.RUSAGE_SELF)
        return [own.ru_utime + own.ru_stime, *map(cpu_seconds, self._pids)]

    def many(self, name: str, calls: list[Callable[[], int]], *, pause_s: float = 0.0) -> list[int]:
        """Makes the calls one after another; their processor time is taken together."""
        before = self._cpu()
        found = []
        for call in calls:
            time.sleep(pause_s)
            found.append(self.wall.time(name, call))
        spent = [b - a for a, b in zip(before, self._cpu(), strict=True)]
        known = self.cpu.setdefault(name, [0.0] * len(spent))
        self.cpu[name] = [a + b for a, b in zip(known, spent, strict=True)]
        return found

    def cpu_a_call(self, name: str) -> tuple[float, float, float]:
        """Seconds of the client, the busiest node and all others, in the mean of all calls."""
        calls = len(self.wall.seconds[name])
        client, *nodes = (seconds / calls for seconds in self.cpu[name])
        return client, max(nodes), sum(nodes) - max(nodes)


def _calls(
    backend: Backend, queries: list[Query], act: Callable[[Selection], int]
) -> list[Callable[[], int]]:
    return [lambda q=query: act(Selection(backend, q)) for query in queries]  # type: ignore[misc]


def _rows(selection: Selection) -> int:
    return sum(len(batch) for batch in selection._batches())


def _chosen(backend: Backend, queries: tuple[Query, ...], wanted: int) -> list[Query]:
    held = (query for query in queries if 0 < backend.count(query) <= ROWS_MAX)
    return list(islice(held, wanted))


def _measure(
    turns: _Turns, backend: Backend, boxes: list[Query], year: Query, rounds: int
) -> tuple[float, int]:
    """Rows of a box in the mean, and of the year."""
    empty_boxes = [replace(query, datasets=(EMPTY,)) for query in boxes]
    empty_year = replace(year, datasets=(EMPTY,))
    boxes_rows = year_rows = 0
    for number in range(rounds + 1):
        if number == 1:  # the round before it has warmed all processes
            turns.wall, turns.cpu = Rounds(), {}
        turns.many("empty call", _calls(backend, empty_boxes, _rows))
        boxes_rows = sum(turns.many("selective query", _calls(backend, boxes, _rows)))
        for name, query in (("empty year", empty_year), ("first row", year)):
            calls = _calls(backend, [query] * FIRST_CALLS, _first)
            found = turns.many(name, calls, pause_s=PAUSE_S)
            assert found == [int(query is year)] * FIRST_CALLS
        for name, drain in DRAINS.items():
            (year_rows,) = turns.many(name, _calls(backend, [year], drain))
    return boxes_rows / len(boxes), year_rows


def _say(turns: _Turns, box_rows: float, year_rows: int) -> None:
    wall = turns.wall
    print(f"\n{'figure':<38}{'p50':>10}{'p95':>10}   bar")

    def line(name: str, p50: str, p95: str, bar: str = "") -> None:
        print(f"{name:<38}{p50:>10}{p95:>10}   {bar}".rstrip())

    def ms(name: str) -> tuple[float, float]:
        return 1e3 * wall.part(name, 50), 1e3 * wall.part(name, 95)

    def said(values: tuple[float, float]) -> tuple[str, str]:
        return f"{values[0]:.2f}", f"{values[1]:.2f}"

    empty, found = ms("empty call"), ms("selective query")
    line("empty coordinated call, ms", *said(empty))
    line(f"selective query, {box_rows:.0f} rows, ms", *said(found))
    ratios = (found[0] / empty[0], found[1] / empty[1])
    line(
        "selective query by empty call",
        *said(ratios),
        f"<= {SELECTIVE_BAR} {_met(ratios[0] <= SELECTIVE_BAR)}",
    )
    empty, found = ms("empty year"), ms("first row")
    line("empty call of the year, ms", *said(empty))
    line(f"first row of {year_rows:,}, ms", *said(found))
    more = (found[0] - empty[0], found[1] - empty[1])
    line(
        "first row less empty call, ms",
        *said(more),
        f"<= {FIRST_BAR_MS} {_met(more[0] <= FIRST_BAR_MS)}",
    )
    for name in DRAINS:
        rates = [year_rows / wall.part(name, part) for part in (50, 95)]
        bar = DRAIN_BARS.get(name)
        end = "" if bar is None else f">= {bar:,} {_met(rates[0] >= bar)}"
        line(f"drained {name}, tiles/s", *(f"{rate:,.0f}" for rate in rates), end)

    print(f"\n{'processor time':<26}{'of a':>6}{'client':>10}{'asked node':>12}{'others':>10}  us")
    for name in wall.seconds:
        rows = year_rows if name in DRAINS else 1
        times = [1e6 * seconds / rows for seconds in turns.cpu_a_call(name)]
        unit = "row" if name in DRAINS else "call"
        print(f"{name:<26}{unit:>6}{times[0]:>10.2f}{times[1]:>12.2f}{times[2]:>10.2f}")


def _met(is_met: bool) -> str:
    return "met" if is_met else "missed"


def _filled(cluster: LocalCluster, new: str, tiles: Tiles) -> str:
    """The target of nodes that hold the tiles; those of a kept cluster may have them already."""
    with opened(new) as backend:
        if backend.datasets():
            return new
        backend.create_dataset(definition_of(EMPTY))
    return write_tiles(cluster, new, [definition_of(name) for name in DATASETS], tiles)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="20,000 tiles, two rounds")
    parser.add_argument("--tiles", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--boxes", type=int, help="selective queries a round")
    parser.add_argument("--keep", type=Path, help="the cluster stays there, and is used if it is")
    options = parser.parse_args()
    count = options.tiles or (20_000 if options.quick else 1_000_000)
    rounds = options.rounds or (2 if options.quick else 15)
    wanted = options.boxes or (5 if options.quick else 40)
    tiles = make_tiles(count, "scenes")
    year = Query(time=TimeSpan.parse(YEAR))
    with nodes_up(directory=options.keep) as (cluster, new):
        target = _filled(cluster, new, tiles)
        with opened(target) as backend:
            assert backend.count(Query()) == count, "--keep has another number of tiles"
            print(f"{count:,} tiles, three nodes, {rounds} rounds; {machine()}", flush=True)
            boxes = _chosen(backend, boxes_of_size(tiles, 20 * wanted, share_on_data=1.0), wanted)
            turns = _Turns(cluster)
            _say(turns, *_measure(turns, backend, boxes, year, rounds))
            print(f"at the end: {machine()}")


if __name__ == "__main__":
    main()
