"""Rows by piece of the curve and time, against brute force over the table."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geostore.errors import InternalError
from geostore.grid import Region, scheme
from geostore.index import cell_table, time_order
from geostore.index.cell_table import END, FIELDS, MOST, POSITION, ROW, START, CellTable
from geostore.index.geocodes import packing_of
from geostore.index.time_order import TimeOrder
from geostore.types import BBox, SchemeName

DAY = 86_400_000_000
FIRST, LAST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""Of the years 1 to 9999."""


def _time(rng: random.Random) -> int:
    if rng.random() < 0.1:
        return rng.choice([FIRST, LAST, rng.randrange(FIRST, LAST)])
    return rng.randrange(-3650 * DAY, 20_000 * DAY, rng.choice([1, DAY]))


def _records(rng: random.Random, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    records = np.zeros((len(column), FIELDS), np.int64)
    records[:, 0], records[:, ROW] = column, row
    records[:, POSITION] = np.arange(len(column))
    for record in records:
        start = _time(rng)
        length = rng.choice([0, 0, 0, 1, DAY - 1, 30 * DAY, 366 * DAY])
        record[START], record[END] = start, min(start + length, LAST)
        if rng.random() < 0.1:  # no time is known
            record[START], record[END] = MOST, -(1 << 63)
    return records


@given(
    st.sampled_from([("geohash", 1), ("geohash", 4), ("geohash", 5), ("geohash", 12)])
    | st.sampled_from([("quadtile", 2), ("quadtile", 9), ("quadtile", 26)]),
    st.integers(0, 10_000),
    st.sampled_from([0, 1, 20, 400]),
)
def test_all_rows_of_a_place_and_a_span_are_found_once_and_little_else(
    grid_of: tuple[SchemeName, int], seed: int, rows: int
) -> None:
    name, length = grid_of
    rng = random.Random(seed)
    grid, packing = scheme(name), packing_of(name)
    columns, bottom = grid.grid_size(length)
    width = rng.choice([1, 40, columns])
    corner = rng.randrange(columns), rng.randrange(bottom)
    column = np.array([(corner[0] + rng.randrange(width)) % columns for _ in range(rows)], np.int64)
    row = np.array([(corner[1] + rng.randrange(width)) % bottom for _ in range(rows)], np.int64)
    keys = grid.sort_keys(column, row, length) << np.uint64(packing.shift(length))
    records = _records(rng, column, row)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time_order, "PIECE_BITS_MIN", rng.choice([0, 2, 8]))
        patch.setattr(time_order, "PIECE_ROWS", rng.choice([1, 20, 192]))
        patch.setattr(time_order, "PIECES_SEARCHED", rng.choice([0, 1, 16]))
        patch.setattr(cell_table, "PIECES_KEPT", rng.choice([0, 16]))
        patch.setattr(cell_table, "SMALL_FRACTION", 1 << 60)
        patch.setattr(cell_table, "GROUNDS_KEPT", 2)
        table = CellTable(name, length, keys | np.uint64(length), records)
        order = table.by_time
        assert (
            sorted(order.ranks.tolist()) == np.flatnonzero(table.records[:, START] != MOST).tolist()
        )
        table.check()
        for _ in range(6):
            west, south = rng.uniform(-180, 170), rng.uniform(-84, 70)
            if rows and rng.random() < 0.7:
                some = rng.randrange(rows)
                west, south, *_ = grid.bounds_at(
                    column[some : some + 1], row[some : some + 1], length
                )[0]
            size = 10.0 ** rng.uniform(-6, 1)
            east, north = min(west + size, 180.0), min(south + size * 0.7, 90.0)
            region = Region.from_bbox(BBox(float(west), float(south), float(east), float(north)))
            span = sorted([_time(rng), _time(rng)])
            if rng.random() < 0.5:
                span[1] = min(span[0] + rng.choice([0, DAY, 90 * DAY]), LAST)
            ground = table.ground(region, by_time=True)
            again = table.ground(region, by_time=True)
            assert ground.boxes == again.boxes == table.ground(region, by_time=False).boxes
            if ground.pieces is None:  # too many
                continue
            assert again.pieces is not None
            found = order.during(ground.pieces, *span).tolist()
            assert found == order.during(again.pieces, *span).tolist()
            assert len(found) == len(set(found))
            inside = _inside(table, ground.boxes)
            starts, ends = table.records[:, START], table.records[:, END]
            overlap = (starts <= span[1]) & (ends >= span[0]) & (starts != MOST)
            assert set(np.flatnonzero(inside & overlap).tolist()) <= set(found)
            _check_little_else(table, order, found, span)


def _inside(table: CellTable, boxes: list[cell_table.CellBox]) -> np.ndarray:
    column, row = table.records[:, 0], table.records[:, ROW]
    inside = np.zeros(len(table), np.bool_)
    for west, east, top, bottom in boxes:
        inside |= (column >= west) & (column <= east) & (row >= top) & (row <= bottom)
    return inside


def _check_little_else(
    table: CellTable, order: TimeOrder, found: list[int], span: list[int]
) -> None:
    """What is found is long, or starts in the span, or before it by the reach of the short, all
    but for a moment's unit.
    """
    unit = 1 << time_order.MOMENT_BITS
    half = unit << 31
    for record in table.records[found].tolist():
        start, length = record[START], record[END] - record[START]
        low, high = (
            min(max(time, -half), half - 1) for time in (span[0] - order.reach_us, span[1])
        )
        clipped = min(max(start, -half), half - 1)
        assert length > order.reach_us or low - unit < clipped < high + unit


@given(st.integers(0, 10_000), st.integers(1, 500))
def test_one_interval_in_ten_at_most_lies_apart(seed: int, rows: int) -> None:
    rng = random.Random(seed)
    cells = np.arange(rows, dtype=np.int64)
    records = _records(rng, cells, cells)
    known = np.flatnonzero(records[:, START] != MOST)
    order = TimeOrder(cells.astype(np.uint64), 20, records[:, START], records[:, END], known)
    is_long = order.keys >> np.uint64(32) & np.uint64(1)
    lengths = (records[:, END] - records[:, START])[order.ranks]
    assert (is_long.astype(bool) == (lengths > order.reach_us)).all()
    assert is_long.sum() * 10 <= len(known) + 10


@pytest.mark.parametrize("what", ["ranks", "keys"])
def test_rows_by_time_that_were_damaged_are_told(what: str) -> None:
    cells = np.arange(9, dtype=np.int64)
    times = np.arange(9, dtype=np.int64) << 30
    order = TimeOrder(cells.astype(np.uint64), 20, times, times, cells)
    order.check(cells)
    getattr(order, what)[0] = 8 if what == "ranks" else 1 << 60
    with pytest.raises(InternalError):
        order.check(cells)
