"""Expressions asked of rows as they lie in the catalog's columns."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from geostore.grid import Region, scheme
from geostore.index.cell_table import CellBox, cell_boxes
from geostore.index.columns import NO_START, Positions
from geostore.index.geocodes import packing_of
from geostore.index.memory import View
from geostore.query import (
    HasBands,
    InRegion,
    OneOf,
    Predicate,
    TimeOverlaps,
    UnderGeocode,
    Within,
)
from geostore.query.predicate import known_numbers, within_matches
from geostore.types import NULL_TIME, TimeSpan

__all__ = ["ColumnFacts", "cells_match", "geocode_mask", "in_boxes", "region_mask", "time_mask"]

Booleans = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.integer[Any]]


ASKED_TWICE_MAX: Final = 128
"""Of so few cells it is dearer to find those that come twice than to ask about them."""


def time_mask(view: View, at: Positions, span: TimeSpan) -> Booleans:
    """The rows whose interval overlaps a span; an unknown one overlaps none."""
    last = NO_START - 1 if span.end_us is None else min(span.end_us, NO_START - 1)
    mask: Booleans = view.facts.start_us[at] <= last
    if span.start_us is not None:
        mask &= view.facts.end_us[at] >= span.start_us
    return mask


def in_boxes(boxes: list[CellBox], columns: Integers, rows: Integers) -> Booleans:
    """The cells of one grid that lie in one of some boxes of it."""
    mask = np.zeros(len(columns), np.bool_)
    for west, east, top, bottom in boxes:
        mask |= (columns >= west) & (columns <= east) & (rows >= top) & (rows <= bottom)
    return mask


def cells_match(
    view: View, grid: int, region: Region, columns: Integers, rows: Integers
) -> Booleans:
    """Which cells of one grid match a region exactly; each is asked once where they are many."""
    name, length = view.snapshot.grids[grid]
    if len(columns) <= ASKED_TWICE_MAX:
        return region.matches_cells(
            scheme(name), columns.astype(np.int64), rows.astype(np.int64), length
        )
    distinct, inverse = np.unique(columns.astype(np.int64) << 32 | rows, return_inverse=True)
    matches = region.matches_cells(scheme(name), distinct >> 32, distinct & 0xFFFFFFFF, length)
    mask: Booleans = matches[inverse]
    return mask


def _by_grid(view: View, at: Positions) -> list[tuple[int, Positions | slice]]:
    """Numbers of grids with the places of their rows in `at`."""
    if len(view.snapshot.grids) == 1:
        return [(0, slice(None))]
    numbers = view.snapshot.columns["grid"][at]
    return [(grid, np.flatnonzero(numbers == grid)) for grid in np.unique(numbers).tolist()]


def region_mask(view: View, at: Positions, region: Region) -> Booleans:
    """The rows whose cell matches a region."""
    facts, mask = view.facts, np.zeros(len(at), np.bool_)
    for grid, own in _by_grid(view, at):
        name, length = view.snapshot.grids[grid]
        rows = at[own]
        boxes = cell_boxes(name, length, region)
        inside = in_boxes(boxes, facts.column[rows], facts.row[rows])
        if region.rectangles is None and inside.any():
            rows = rows[inside]
            inside[inside] = cells_match(view, grid, region, facts.column[rows], facts.row[rows])
        mask[own] = inside
    return mask


def geocode_mask(view: View, at: Positions, geocode: str, *, recursive: bool) -> Booleans:
    """The rows whose cell lies under a geocode, or is it."""
    mask = np.zeros(len(at), np.bool_)
    for grid, own in _by_grid(view, at):
        span = packing_of(view.snapshot.grids[grid][0]).range_of(geocode, recursive=recursive)
        if span is not None:
            cells = view.snapshot.columns["cell"][at[own]]
            mask[own] = (cells >= np.uint64(span[0])) & (cells <= np.uint64(span[1]))
    return mask


class ColumnFacts:
    """`geostore.query.Facts` of rows by their positions; what groups know is asked once a group."""

    def __init__(self, view: View, at: Positions) -> None:
        self._view = view
        self._at = at

    def holds(self, predicate: Predicate) -> Booleans:
        view, at = self._view, self._at
        match predicate:
            case InRegion(region):
                return region_mask(view, at, region)
            case UnderGeocode(geocode, recursive=recursive):
                return geocode_mask(view, at, geocode, recursive=recursive)
            case TimeOverlaps(span):
                return time_mask(view, at, span)
            case Within(column):
                return within_matches(self._numbers(column), predicate)
            case OneOf("geocode", values):
                mask = np.zeros(len(at), np.bool_)
                for value in values:
                    mask |= geocode_mask(view, at, value, recursive=False)
                return mask
            case OneOf(column, values):
                return self._of_groups(view.groups_named(column, values))
            case HasBands(bands):
                return self._of_groups(view.groups_with_bands(bands))

    def known(self, column: str) -> Booleans:
        if column == "platform":
            return self._of_groups(~self._view.groups_named("platform", (None,)))
        return known_numbers(self._numbers(column))

    def _of_groups(self, mask: Booleans) -> Booleans:
        found: Booleans = mask[self._view.facts.group[self._at]]
        return found

    def _numbers(self, column: str) -> npt.NDArray[Any]:
        columns, at = self._view.snapshot.columns, self._at
        match column:
            case "cloud":
                return columns["cloud_cover"][at]
            case "coverage":
                return columns["pixel_coverage"][at]
            case "time":
                return self._view.snapshot.times(at)
            case "time_end":
                return np.where(columns["has_end"][at], columns["end_us"][at], NULL_TIME)
            case _:
                return columns["bytes"][at]
