"""Places as queries name them, and which cells match.

A cell matches a region if
- an area of the region overlaps the cell's interior, however little;
- a line of it has some length in the cell: along an edge, in the cell that owns the edge;
- a point of it lies in the cell.
Lines between vertices are straight in longitude and latitude, as on a map of EPSG:4326.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, NoReturn, Self

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInputError
from geostore.grid.cells import Scheme
from geostore.grid.geojson import Parts, read_parts, write_parts
from geostore.grid.shapes import Boxes, Shapes
from geostore.types import BBox

__all__ = ["Region", "Relation"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]


class Relation(Enum):
    """How a box lies to a region."""

    OUTSIDE = 0
    """No cell inside the box matches."""
    PARTIAL = 1
    """Some may and some may not: ask about smaller boxes."""
    INSIDE = 2
    """Every cell inside the box matches."""


_RELATIONS = tuple(Relation)


class Region:
    """A place on the globe: a box, or a union of polygons, lines and points.

    Immutable, hashable, picklable; equal when made from the same coordinates. Safe to share
    between threads.
    """

    __slots__ = ("_bboxes", "_key", "_rectangles", "_shapes", "_source")

    _bboxes: tuple[BBox, ...] | None
    """Once they have been asked for."""
    _source: BBox | Parts
    _shapes: Shapes
    _key: tuple[object, ...]
    _rectangles: tuple[tuple[float, float, float, float], ...] | None
    """The boxes, where the region is nothing else: asked about without arrays."""

    def __init__(self, source: BBox | Parts) -> None:
        """For `from_bbox` and `from_geometry`, which check what they are given."""
        rectangles = None
        key: tuple[object, ...]
        if isinstance(source, BBox):
            shapes, key = Shapes.from_bbox(source), ("bbox", *source.as_tuple())
            if shapes.areas and isinstance(shapes.areas[0], Boxes):
                rectangles = tuple(tuple(bounds) for bounds in shapes.areas[0].bounds.tolist())
        else:
            shapes, key = Shapes.from_parts(source), ("geometry", *source.identity())
        for name, value in (
            ("_bboxes", None),
            ("_source", source),
            ("_shapes", shapes),
            ("_key", key),
            ("_rectangles", rectangles),
        ):
            object.__setattr__(self, name, value)

    # ------------------------------------------------------------ in and out

    @classmethod
    def from_bbox(cls, bbox: BBox) -> Self:
        """A box; without width or height it is a line, without both a point."""
        return cls(bbox)

    @classmethod
    def from_geometry(cls, geometry: object) -> Self:
        """A GeoJSON geometry, feature or feature collection (a mapping), an object with
        `__geo_interface__`, or a shapely geometry.

        Longitudes past 180 degrees go on around the globe, heights are dropped, polygons that
        cross themselves are made valid (even-odd), and polygons without area count as lines.
        An edge from 179 to -179 goes the long way round: write 181, or split the polygon.

        Raises:
            InvalidInputError: empty, malformed, or not in degrees of longitude and latitude.
        """
        return cls(read_parts(geometry))

    @staticmethod
    def of_both(first: Region, second: Region) -> Region:
        """What is asked where two places must hold: a cell matches if it matches each.

        Such a cell may have no child that does: each place may lie in another one.
        """
        return _Both(first, second)

    @property
    def parts(self) -> tuple[Region, ...]:
        """The places that must all hold: this one, or those of `of_both`."""
        return (self,)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict, `{"bbox": ...}`, `{"geometry": ...}` or `{"both": [..., ...]}`;
        `from_json` undoes it.
        """
        if isinstance(self._source, BBox):
            return {"bbox": list(self._source.as_tuple())}
        return {"geometry": write_parts(self._source)}

    @staticmethod
    def from_json(value: dict[str, Any]) -> Region:
        """The region that `to_json` described.

        Raises:
            InvalidInputError: not such a dict.
        """
        if "bbox" in value:
            try:
                west, south, east, north = (float(bound) for bound in value["bbox"])
            except (TypeError, ValueError):
                raise InvalidInputError(
                    f"region bbox {value['bbox']!r}: expected west, south, east, north"
                ) from None
            return Region.from_bbox(BBox(west, south, east, north))
        if "geometry" in value:
            return Region.from_geometry(value["geometry"])
        if "both" in value:
            return _both_from_json(value["both"])
        raise InvalidInputError(f"region with {sorted(value)}: expected bbox, geometry or both")

    @property
    def bboxes(self) -> tuple[BBox, ...]:
        """Boxes, one of which every cell that matches meets; none crosses the antimeridian.

        They may hold more than the region.
        """
        if self._bboxes is None:
            object.__setattr__(self, "_bboxes", self._make_bboxes())
        assert self._bboxes is not None
        return self._bboxes

    def _make_bboxes(self) -> tuple[BBox, ...]:
        if self._rectangles is not None:
            return tuple(BBox(*bounds) for bounds in self._rectangles)
        found = []
        for shape in (*self._shapes.areas, *self._shapes.thin):
            east_half = shape.bounds[:, 0] >= 0.0
            # By halves, so that a place across the antimeridian keeps two small boxes.
            for half in (shape.bounds[~east_half], shape.bounds[east_half]):
                if len(half):
                    west, south = half[:, :2].min(axis=0).tolist()
                    east, north = half[:, 2:].max(axis=0).tolist()
                    found.append(BBox(max(west, -180.0), south, min(east, 180.0), north))
        return tuple(found)

    @property
    def rectangles(self) -> tuple[tuple[float, float, float, float], ...] | None:
        """(west, south, east, north) of boxes of positive area, none across the antimeridian, where
        the region is that and nothing else.
        """
        return self._rectangles

    # ------------------------------------------------------------ questions

    def relation(self, box: BBox) -> Relation:
        """How a box lies to the region: INSIDE only if every cell inside the box matches,
        OUTSIDE only if none can.

        PARTIAL may also be said of a box that is covered by several parts together, or that a
        line only touches. A box without area holds no cell: PARTIAL where it is near.
        """
        if box.west == box.east or box.south == box.north:
            near = any(
                piece.west <= other.east
                and other.west <= piece.east
                and piece.south <= other.north
                and other.south <= piece.north
                for piece in box.split()
                for other in self.bboxes
            )
            return Relation.PARTIAL if near else Relation.OUTSIDE
        found = {self._relate(piece.as_tuple()) for piece in box.split() if piece.west < piece.east}
        return found.pop() if len(found) == 1 else Relation.PARTIAL

    def _relate(self, bounds: tuple[float, float, float, float]) -> Relation:
        if self._rectangles is None:
            return _RELATIONS[int(self.relation_many(np.array([bounds]))[0])]
        # Most queries are boxes, asked about by each node of a tree: no arrays here.
        west, south, east, north = bounds
        found = Relation.OUTSIDE
        for left, bottom, right, top in self._rectangles:
            if west < right and left < east and south < top and bottom < north:
                if left <= west and east <= right and bottom <= south and north <= top:
                    return Relation.INSIDE
                found = Relation.PARTIAL
        return found

    def relation_many(self, bounds: Floats) -> npt.NDArray[np.int8]:
        """`relation` (its value: 0 outside, 1 partial, 2 inside), int8 (n,), of boxes with
        area as west, south, east, north, float64 (n, 4), none across the antimeridian.
        """
        result = self._area_relation(bounds)
        for shape in self._shapes.thin:
            rest = np.flatnonzero(result == Relation.OUTSIDE.value)
            result[rest] = shape.touch(bounds[rest])
        return result

    def matches(self, scheme: Scheme, geocode: str) -> bool:
        """Whether a cell matches: exactly, by the rule at the top of this module.

        Raises:
            InvalidInputError: not a geocode of the scheme.
        """
        if self._rectangles is not None:
            return self._relate(scheme.bounds(geocode).as_tuple()) is not Relation.OUTSIDE
        column, row = scheme.cell_index(geocode)
        found = self.matches_cells(scheme, np.array([column]), np.array([row]), len(geocode))
        return bool(found[0])

    def matches_many(self, scheme: Scheme, geocodes: Sequence[str]) -> Booleans:
        """`matches` of many cells, whose lengths may differ; bool (n,)."""
        lengths = np.array([len(geocode) for geocode in geocodes], dtype=np.int64)
        result = np.zeros(len(geocodes), dtype=np.bool_)
        for length in np.unique(lengths).tolist():
            where = np.flatnonzero(lengths == length)
            columns, rows = scheme.cell_indices([geocodes[i] for i in where.tolist()], length)
            result[where] = self.matches_cells(scheme, columns, rows, length)
        return result

    def matches_cells(
        self, scheme: Scheme, columns: Integers, rows: Integers, length: int
    ) -> Booleans:
        """`matches` of cells of one length by their places in the grid; bool (n,)."""
        return self.cells_relation(scheme, columns, rows, length) > 0

    def cells_relation(
        self, scheme: Scheme, columns: Integers, rows: Integers, length: int
    ) -> npt.NDArray[np.int8]:
        """0 where a cell does not match, 2 where all cells under it do too, else 1; int8 (n,).

        A cell matches exactly if one of its children does: their half-open boxes are its own.
        """
        bounds = scheme.bounds_at(columns, rows, length)
        result = self._area_relation(bounds)
        if self._shapes.thin:
            south_closed, north_closed = scheme.closed_edges(rows, length)
            for shape in self._shapes.thin:
                rest = np.flatnonzero(result == 0)
                result[rest] = shape.match(bounds[rest], south_closed[rest], north_closed[rest])
        return result

    def _area_relation(self, bounds: Floats) -> npt.NDArray[np.int8]:
        """0 where no area overlaps the box, 2 where one covers it, else 1."""
        result = np.zeros(len(bounds), dtype=np.int8)
        for shape in self._shapes.areas:
            result = np.maximum(result, shape.relation(bounds))
        return result

    # ------------------------------------------------------------ a value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Region) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        text = str(self.to_json())
        return f"Region({text if len(text) <= 200 else text[:197] + '...'})"

    def __reduce__(self) -> tuple[Any, ...]:
        # Prepared geometries do not travel; coordinates do, exactly.
        return Region.from_json, (self.to_json(),)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"Region is immutable: {name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"Region is immutable: {name} cannot be deleted")


class _Both(Region):
    """Two regions, neither of which is such a pair."""

    __slots__ = ("_first", "_second")

    _first: Region
    _second: Region

    def __init__(self, first: Region, second: Region) -> None:
        if len(first.parts) + len(second.parts) != 2:
            raise InvalidInputError("two places at most can be asked for at once")
        for name, value in (
            ("_first", first),
            ("_second", second),
            ("_key", ("both", first, second)),
        ):
            object.__setattr__(self, name, value)

    @property
    def parts(self) -> tuple[Region, ...]:
        return (self._first, self._second)

    @property
    def rectangles(self) -> None:
        """None: what both have in common is no box, since cells need not meet in it."""
        return None

    def to_json(self) -> dict[str, Any]:
        return {"both": [self._first.to_json(), self._second.to_json()]}

    @property
    def bboxes(self) -> tuple[BBox, ...]:
        """The smaller place's. Not what they share: places apart may share a cell."""

        def area(boxes: tuple[BBox, ...]) -> float:
            return sum((box.east - box.west) * (box.north - box.south) for box in boxes)

        return min(self._first.bboxes, self._second.bboxes, key=area)

    def relation(self, box: BBox) -> Relation:
        first, second = self._first.relation(box), self._second.relation(box)
        return first if first.value <= second.value else second

    def relation_many(self, bounds: Floats) -> npt.NDArray[np.int8]:
        return np.minimum(self._first.relation_many(bounds), self._second.relation_many(bounds))

    def matches(self, scheme: Scheme, geocode: str) -> bool:
        return self._first.matches(scheme, geocode) and self._second.matches(scheme, geocode)

    def cells_relation(
        self, scheme: Scheme, columns: Integers, rows: Integers, length: int
    ) -> npt.NDArray[np.int8]:
        """As `Region.cells_relation`; where it is 1, perhaps no child matches."""
        first = self._first.cells_relation(scheme, columns, rows, length)
        return np.minimum(first, self._second.cells_relation(scheme, columns, rows, length))


def _both_from_json(value: object) -> Region:
    if not isinstance(value, list) or len(value) != 2:
        raise InvalidInputError(f"region of both {str(value)[:80]!r}: expected two regions")
    for part in value:
        if not isinstance(part, dict) or "both" in part:
            raise InvalidInputError(f"region of both: expected a place, got {str(part)[:80]!r}")
    return Region.of_both(Region.from_json(value[0]), Region.from_json(value[1]))
