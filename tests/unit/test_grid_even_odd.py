"""Polygons that cross themselves: the even-odd rule, edge by edge, in bounded time."""

from __future__ import annotations

import math
import random
import time
from itertools import pairwise
from typing import Any

import pytest
import shapely

from geostore.errors import InvalidInputError
from geostore.grid import Region
from geostore.grid.even_odd import CROSSINGS_MAX, even_odd_polygons

Ring = list[tuple[float, float]]


def star(points: int, step: int) -> dict[str, Any]:
    """A closed line that goes round `step` times and crosses itself about points * step times."""
    turns = [2 * math.pi * (i * step % points) / points for i in range(points)]
    ring = [[170 * math.cos(turn), 80 * math.sin(turn)] for turn in turns]
    return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}


def is_inside(rings: list[Ring], x: float, y: float) -> bool:
    """Whether a line to the east crosses the rings an odd number of times."""
    crossed = 0
    for ring in rings:
        for (x0, y0), (x1, y1) in pairwise(ring):
            if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
                crossed += 1
    return crossed % 2 == 1


def random_ring(rng: random.Random, points: int, grid: int | None) -> Ring:
    """On a small grid edges lie upon each other, and vertices come twice."""
    ring: Ring = [
        (rng.randrange(grid), rng.randrange(grid))
        if grid
        else (rng.uniform(0, 20), rng.uniform(0, 20))
        for _ in range(points)
    ]
    return [*ring, ring[0]]


@pytest.mark.parametrize("seed", range(6))
def test_inside_is_what_an_odd_number_of_turns_surrounds(seed: int) -> None:
    rng = random.Random(seed)
    made = inside = 0
    while made < 60:
        grid = rng.choice([3, 6, 20, None])
        rings = [random_ring(rng, rng.randint(4, 14), grid)]
        rings += [random_ring(rng, rng.randint(3, 5), grid) for _ in range(rng.choice([0, 0, 2]))]
        polygon = shapely.Polygon(rings[0], rings[1:])
        if polygon.is_valid:
            continue
        made += 1
        parts = even_odd_polygons(polygon)
        assert all(part.is_valid and part.area for part in parts), polygon.wkt
        whole = shapely.union_all(parts)
        assert math.isclose(whole.area, sum(part.area for part in parts), abs_tol=1e-9)
        for _ in range(20):
            # Off the grid's lines and diagonals, so that no place lies on an edge.
            x, y = rng.uniform(0, grid or 20) + 1e-4, rng.uniform(0, grid or 20) + 1.3e-4
            expected = is_inside(rings, x, y)
            assert bool(shapely.contains_xy(whole, x, y)) == expected, (polygon.wkt, x, y)
            inside += expected
    assert inside > 100


def test_a_ring_back_and_forth_along_a_rectangle_s_edges_holds_nothing() -> None:
    shell = [(0, 1), (2, 0), (1, 1), (0, 0), (0, 2), (1, 0), (2, 0), (0, 1)]
    hole = [(0, 0), (0, 1), (0, 0), (2, 0), (0, 0)]
    with_it = even_odd_polygons(shapely.Polygon(shell, [hole]))
    assert shapely.union_all(with_it).equals(
        shapely.union_all(even_odd_polygons(shapely.Polygon(shell)))
    )


def test_a_star_that_crosses_itself_thousands_of_times_takes_seconds() -> None:
    began = time.process_time()
    region = Region.from_geometry(star(151, 60))
    assert time.process_time() - began < 12  # layer by layer it would be 40
    assert region == Region.from_json(region.to_json())


@pytest.mark.parametrize(
    "geometry",
    [
        star(501, 200),
        # Edges upon each other: of any two, 499,500 pairs that meet.
        {
            "type": "Polygon",
            "coordinates": [[[0, 0], *([x % 2 + 1, 0] for x in range(1000)), [0, 1], [0, 0]]],
        },
    ],
    ids=["crossing", "upon each other"],
)
def test_what_crosses_itself_without_end_is_refused_in_time(geometry: dict[str, Any]) -> None:
    began = time.process_time()
    with pytest.raises(InvalidInputError, match=f"over {CROSSINGS_MAX:,} times"):
        Region.from_geometry(geometry)
    assert time.process_time() - began < 20


def test_an_outline_of_many_edges_may_have_a_few_crossings() -> None:
    turns = [i / 10_000 * math.pi for i in range(20_000)]
    for at in range(0, 20_000, 1000):
        turns[at], turns[at + 1] = turns[at + 1], turns[at]
    ring = [(math.cos(turn), math.sin(turn)) for turn in turns]
    parts = even_odd_polygons(shapely.Polygon([*ring, ring[0]]))
    assert sum(part.area for part in parts) == pytest.approx(math.pi, abs=1e-6)
