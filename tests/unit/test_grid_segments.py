"""Segments against boxes where float64 cannot tell."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from geostore.grid.morton import interleave, uninterleave
from geostore.grid.segments import pass_through, touch

BOX = np.array([[0.0, 0.0, 1.0, 1.0]])
YES = np.array([True])


def both(segment: tuple[float, float, float, float]) -> tuple[bool, bool]:
    ends = np.array([segment])
    return bool(pass_through(ends, BOX, YES, ~YES)[0]), bool(touch(ends, BOX)[0])


def test_corners() -> None:
    assert both((-1.0, 0.0, 0.0, 1.0)) == (False, True)
    assert both((-1.0, 2.0, 2.0, -1.0)) == (True, True)
    assert both((-1.0, 1.0, 1.0, 3.0)) == (False, False)
    assert both((0.0, 0.0, 1.0, 1.0)) == (True, True)
    assert both((0.5, 0.5, 0.6, 0.7)) == (True, True)
    assert both((1.0, 1.0, 2.0, 2.0)) == (False, True)


def test_a_corner_cut_by_less_than_floats_resolve() -> None:
    # The line from (-1, 0) to (1, 2 + step) passes the corner (0, 1) at a height of
    # step / 2, which 1.0 + step / 2 does not hold; turned round it passes below.
    for direction, inside in ((4.0, False), (0.0, True)):
        end = math.nextafter(2.0, direction)
        height = Fraction(end) / 2
        assert (height < 1) == inside
        assert both((-1.0, 0.0, 1.0, end))[0] == inside
        assert both((1.0, end, -1.0, 0.0))[0] == inside


def test_lines_aimed_at_corners_are_decided_as_fractions_do() -> None:
    rng = np.random.default_rng(11)
    corner = rng.uniform(-80.0, 80.0, (2000, 2))
    start = corner + rng.uniform(1.0, 9.0, (2000, 2)) * rng.choice([-1.0, 1.0], (2000, 2))
    ends = np.concatenate([start, start + 2.0 * (corner - start)], axis=1)  # rounded: a near miss
    # The box lies beside the line where it passes the corner, upper left or lower right.
    rising = (ends[:, 0] < ends[:, 2]) == (ends[:, 1] < ends[:, 3])
    boxes = np.stack(
        [
            corner[:, 0] - 0.5,
            np.where(rising, corner[:, 1], corner[:, 1] - 0.5),
            corner[:, 0],
            np.where(rising, corner[:, 1] + 0.5, corner[:, 1]),
        ],
        axis=1,
    )
    flags = np.ones(len(ends), dtype=np.bool_)
    found = pass_through(ends, boxes, flags, ~flags)
    closed = touch(ends, boxes)
    expected, expected_closed = [], []
    for segment, place, rises in zip(ends.tolist(), corner.tolist(), rising.tolist(), strict=True):
        x0, y0, x1, y1, x, y = (Fraction(value) for value in (*segment, *place))
        above = y0 + (x - x0) / (x1 - x0) * (y1 - y0) - y  # of the line over the corner
        expected.append(above > 0 if rises else above < 0)
        expected_closed.append(above >= 0 if rises else above <= 0)
    assert found.tolist() == expected
    assert closed.tolist() == expected_closed
    assert 100 < sum(expected) < sum(expected_closed) < 1950


def test_edges_belong_to_their_owner() -> None:
    def along(segment: tuple[float, float, float, float], south: bool, north: bool) -> bool:
        ends = np.array([segment])
        return bool(pass_through(ends, BOX, np.array([south]), np.array([north]))[0])

    assert along((0.0, 0.2, 0.0, 0.8), True, False)
    assert not along((1.0, 0.2, 1.0, 0.8), True, False)
    for south in (False, True):
        assert along((0.2, 0.0, 0.8, 0.0), south, not south) is south
        assert along((0.2, 1.0, 0.8, 1.0), south, not south) is not south
    assert not along((-1.0, 0.0, 0.0, 0.0), True, False)


def test_products_that_underflow() -> None:
    tiny = 1e-200
    box = np.array([[0.0, 0.0, tiny, tiny]])
    above = np.array([[0.0, tiny, tiny, 3 * tiny], [0.0, 0.0, tiny, 3 * tiny]])
    found = pass_through(above, np.repeat(box, 2, axis=0), np.repeat(YES, 2), np.repeat(~YES, 2))
    assert found.tolist() == [False, True]


def test_interleaved_bits_of_whole_range() -> None:
    rng = np.random.default_rng(3)
    low, high = rng.integers(0, 2**32, size=(2, 1000))
    mixed = interleave(low, high)
    again = uninterleave(mixed)
    assert again[0].tolist() == low.tolist()
    assert again[1].tolist() == high.tolist()
    for a, b, c in zip(low.tolist()[:50], high.tolist(), mixed.tolist(), strict=False):
        assert c == int("".join(y + x for x, y in zip(f"{a:032b}", f"{b:032b}", strict=True)), 2)
