"""The kinds of shape a region is made of, each indexed to be asked about many cells at once.

Boxes and polygons have area and say how much of a box they take: 0 nothing, 1 some, 2 all.
Segments and points are thin: they say which half-open cells they lie in.

All shapes lie in -180..180 degrees longitude here; what went beyond was turned back before, a
copy for each turn of the globe. Copies may stick out, where no cell is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from geostore.grid import segments
from geostore.grid.geojson import Parts, valid_polygons
from geostore.types import BBox

__all__ = ["Boxes", "Points", "Polygons", "Segments", "Shapes"]

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]
Relations = npt.NDArray[np.int8]


class Boxes:
    """Boxes of positive area."""

    def __init__(self, bounds: Floats) -> None:
        self.bounds = bounds
        """(n, 4) west, south, east, north"""

    def relation(self, bounds: Floats) -> Relations:
        result = np.zeros(len(bounds), dtype=np.int8)
        west, south, east, north = bounds.T
        for box in self.bounds:
            overlaps = (west < box[2]) & (box[0] < east) & (south < box[3]) & (box[1] < north)
            covers = (box[0] <= west) & (east <= box[2]) & (box[1] <= south) & (north <= box[3])
            result = np.maximum(result, overlaps.astype(np.int8) + (overlaps & covers))
        return result


class Polygons:
    """Valid polygons; each is asked by itself, so they may overlap.

    Exact for slivers of any size: where an edge of a polygon enters the open box, the polygon
    overlaps it in part; where none does, the box lies wholly inside or outside, and its centre
    tells. GEOS's own predicates round where an edge passes a corner closely, so it is asked
    about centres only, which are half a box away from every edge.
    """

    def __init__(self, polygons: Iterable[BaseGeometry]) -> None:
        self._polygons = np.array(list(polygons), dtype=object)
        self.bounds: Floats = shapely.bounds(self._polygons).reshape(-1, 4)
        shapely.prepare(self._polygons)
        self._tree = shapely.STRtree(self._polygons)
        # A prepared polygon completes its index when first asked, which is not thread-safe.
        self._lock = threading.Lock()
        edges = [_ring_edges(polygon) for polygon in self._polygons]
        self._edges = np.concatenate(edges)
        self._part_of_edge = np.repeat(np.arange(len(edges)), [len(each) for each in edges])
        self._edge_tree = shapely.STRtree(shapely.linestrings(self._edges.reshape(-1, 2, 2)))

    def relation(self, bounds: Floats) -> Relations:
        result = np.zeros(len(bounds), dtype=np.int8)
        which, edge = self._edge_tree.query(shapely.box(*bounds.T))
        entered = segments.cut(self._edges[edge], bounds[which])
        which, part = which[entered], self._part_of_edge[edge[entered]]
        result[which] = 1
        if len(self._polygons) == 1:
            self._mark_inside(result, bounds)
            return result
        entered_pairs = np.unique(which * len(self._polygons) + part)
        x = (bounds[:, 0] + bounds[:, 2]) / 2.0
        y = (bounds[:, 1] + bounds[:, 3]) / 2.0
        with self._lock:
            which, part = self._tree.query(shapely.points(x, y))
            whole = ~np.isin(which * len(self._polygons) + part, entered_pairs)
            which, part = which[whole], part[whole]
            inside = shapely.contains_xy(self._polygons[part], x[which], y[which])
        result[which[inside]] = 2
        return result

    def _mark_inside(self, result: Relations, bounds: Floats) -> None:
        """Of boxes that no edge of the only polygon enters, those inside become 2."""
        rest = np.flatnonzero(result == 0)
        west, south, east, north = bounds[rest].T
        with self._lock:
            inside = shapely.contains_xy(
                self._polygons[0], (west + east) / 2.0, (south + north) / 2.0
            )
        result[rest[inside]] = 2


class Segments:
    """Straight lines between two different places."""

    def __init__(self, ends: Floats) -> None:
        self._ends = ends
        """(n, 4) x0, y0, x1, y1"""
        self.bounds: Floats = np.concatenate(
            [np.minimum(ends[:, :2], ends[:, 2:]), np.maximum(ends[:, :2], ends[:, 2:])], axis=1
        )
        self._tree = shapely.STRtree(shapely.linestrings(ends.reshape(-1, 2, 2)))

    def touch(self, bounds: Floats) -> Booleans:
        """Whether closed boxes meet a segment."""
        which, part = self._tree.query(shapely.box(*bounds.T))
        result = np.zeros(len(bounds), dtype=np.bool_)
        result[which[segments.touch(self._ends[part], bounds[which])]] = True
        return result

    def match(self, bounds: Floats, south_closed: Booleans, north_closed: Booleans) -> Booleans:
        """Whether half-open cells hold some length of a segment."""
        which, part = self._tree.query(shapely.box(*bounds.T))
        found = segments.pass_through(
            self._ends[part], bounds[which], south_closed[which], north_closed[which]
        )
        result = np.zeros(len(bounds), dtype=np.bool_)
        result[which[found]] = True
        return result


class Points:
    """Single places, longitudes in [-180, 180)."""

    def __init__(self, places: Floats) -> None:
        self._places = places
        self.bounds: Floats = np.concatenate([places, places], axis=1)
        self._tree = shapely.STRtree(shapely.points(places))

    def touch(self, bounds: Floats) -> Booleans:
        """Whether closed boxes hold a point."""
        which, _ = self._tree.query(shapely.box(*bounds.T))
        result = np.zeros(len(bounds), dtype=np.bool_)
        result[which] = True
        return result

    def match(self, bounds: Floats, south_closed: Booleans, north_closed: Booleans) -> Booleans:
        """Whether half-open cells hold a point."""
        which, part = self._tree.query(shapely.box(*bounds.T))
        x, y = self._places[part].T
        west, south, east, north = bounds[which].T
        held = (
            (west <= x)
            & (x < east)
            & ((y > south) | (south_closed[which] & (y == south)))
            & ((y < north) | (north_closed[which] & (y == north)))
        )
        result = np.zeros(len(bounds), dtype=np.bool_)
        result[which[held]] = True
        return result


@dataclass(frozen=True, slots=True)
class Shapes:
    """All shapes of one region."""

    areas: tuple[Boxes | Polygons, ...]
    thin: tuple[Segments | Points, ...]

    @classmethod
    def from_bbox(cls, bbox: BBox) -> Shapes:
        """A box, or the line or point that a box of no width or height is."""
        # From 180 to -180 a box "crosses the antimeridian" and has no width.
        pieces = [piece for piece in bbox.split() if piece.west < piece.east]
        flat = bbox.south == bbox.north
        if pieces and not flat:
            return cls((Boxes(np.array([piece.as_tuple() for piece in pieces])),), ())
        if not pieces:
            west = -180.0 if bbox.west == 180.0 else bbox.west
            if flat:
                return cls((), (Points(np.array([[west, bbox.south]])),))
            pieces = [BBox(west, bbox.south, west, bbox.north)]
        return cls((), (Segments(np.array([piece.as_tuple() for piece in pieces])),))

    @classmethod
    def from_parts(cls, parts: Parts) -> Shapes:
        """The shapes of a checked geometry, turned back to -180..180."""
        areas: tuple[Boxes | Polygons, ...] = ()
        thin: tuple[Segments | Points, ...] = ()
        polygons = [turned for polygon in parts.polygons for turned in _turned_polygons(polygon)]
        if polygons:
            areas = (Polygons(polygons),)
        if parts.lines:
            ends = [np.concatenate([line[:-1], line[1:]], axis=1) for line in parts.lines]
            thin = (Segments(_turned_segments(np.concatenate(ends))),)
        if len(parts.points):
            thin = (*thin, Points(_turned_points(parts.points)))
        return cls(areas, thin)


def _ring_edges(polygon: BaseGeometry) -> Floats:
    """(n, 4) ends of the edges of all rings."""
    rings = [shapely.get_coordinates(ring) for ring in (polygon.exterior, *polygon.interiors)]
    edges = np.concatenate([np.concatenate([ring[:-1], ring[1:]], axis=1) for ring in rings])
    lasting: Booleans = (edges[:, :2] != edges[:, 2:]).any(axis=1)
    return edges[lasting]


def _turns(west: float, east: float) -> range:
    """The whole turns k for which west - 360 k .. east - 360 k may meet -180..180."""
    return range(int(np.floor((west + 180.0) / 360.0)), int(np.ceil((east + 180.0) / 360.0)) + 1)


def _turned_polygons(polygon: BaseGeometry) -> list[BaseGeometry]:
    """Copies of a polygon, one for each turn that has some of its area in -180..180.

    Vertices within two turns move without rounding where they arrive inside -180..180.
    """
    west, _, east, _ = polygon.bounds
    found: list[BaseGeometry] = []
    for turn in _turns(west, east):
        if west - 360.0 * turn < 180.0 and east - 360.0 * turn > -180.0:
            if turn == 0:
                found.append(polygon)
            else:
                moved = shapely.transform(polygon, lambda xy, k=turn: xy - [360.0 * k, 0.0])
                found.extend(valid_polygons(moved))
    return found


def _turned_segments(ends: Floats) -> Floats:
    """As `_turned_polygons`. A segment along 180 degrees arrives at -180, whose cells own it."""
    copies = []
    for turn in _turns(float(ends[:, ::2].min()), float(ends[:, ::2].max())):
        moved = ends - [360.0 * turn, 0.0, 360.0 * turn, 0.0]
        west = np.minimum(moved[:, 0], moved[:, 2])
        east = np.maximum(moved[:, 0], moved[:, 2])
        # Rounding while moving may leave nothing of a tiny segment.
        lasting = (moved[:, :2] != moved[:, 2:]).any(axis=1)
        meets = (west < 180.0) & ((east > -180.0) | ((west == -180.0) & (east == -180.0)))
        copies.append(moved[meets & lasting])
    return np.concatenate(copies)


def _turned_points(places: Floats) -> Floats:
    x = places[:, 0].copy()
    # Turn by turn: a quotient's rounding could put a place beside 180 on the wrong side.
    while (over := x >= 180.0).any():
        x[over] -= 360.0
    while (under := x < -180.0).any():
        x[under] += 360.0
    return np.stack([x, places[:, 1]], axis=1)
