"""Polygons that cross themselves, made valid: what an odd number of turns surrounds is inside.

GEOS's `make_valid` peels such a polygon layer by layer, which takes minutes where 200 edges cross
each other (a star of 201 points: 88 s): anybody could ask that of a node. Here the edges are cut
where they meet, the faces between them found, and a point of each asked whether it is inside:
O((n + k) log n) for n edges and k crossings, of which there may be CROSSINGS_MAX. It is also the
rule to the letter where edges lie upon each other, which `make_valid` counts once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from geostore.errors import InvalidInputError

__all__ = ["CROSSINGS_MAX", "even_odd_polygons"]

CROSSINGS_MAX: Final = 20_000
"""Pairs of edges that meet: about a second and 100 MB."""
PAIRS_MAX: Final = 1 << 21
"""Pairs of edges whose boxes meet, besides PAIRS_AN_EDGE of each: some 3 s."""
PAIRS_AN_EDGE: Final = 16
_PAIRS_AT_ONCE: Final = 1 << 17
_WEIGHTS: Final = ((1 / 3, 1 / 3, 1 / 3), (0.5, 0.3, 0.2), (0.23, 0.47, 0.3), (0.11, 0.3, 0.59))
_TRIANGLES_MAX: Final = 1000

Geometries = npt.NDArray[np.object_]
Booleans = npt.NDArray[np.bool_]


def even_odd_polygons(polygon: BaseGeometry) -> list[BaseGeometry]:
    """The valid polygons that a polygon of any rings falls into; none if it has no area.

    Raises:
        InvalidInputError: its edges cross each other too often.
    """
    outlines = [polygon.exterior, *polygon.interiors]
    _check_crossings(outlines)
    faces = shapely.get_parts(shapely.polygonize([shapely.unary_union(polygon.boundary)]))
    if not len(faces):
        return []
    rings = np.array([_ring_polygon(ring) for ring in outlines], dtype=object)
    shapely.prepare(rings)
    inside = _are_inside(rings, faces)
    united = shapely.coverage_union_all(faces[inside])
    parts = shapely.get_parts(shapely.get_parts(united))  # a collection may hold a union
    return [part for part in parts.tolist() if not part.is_empty]


def _ring_polygon(outline: BaseGeometry) -> BaseGeometry:
    """A ring to be asked about places. Its first vertex comes twice: GEOS takes rings of five
    vertices that go back and forth along the edges of a rectangle for that rectangle.
    """
    vertices = shapely.get_coordinates(outline)
    return shapely.Polygon(np.concatenate([vertices[:1], vertices]))


def _check_crossings(outlines: list[BaseGeometry]) -> None:
    coordinates = [shapely.get_coordinates(ring) for ring in outlines]
    ends = np.concatenate([np.stack([ring[:-1], ring[1:]], axis=1) for ring in coordinates])
    edges = shapely.linestrings(ends)
    tree = shapely.STRtree(edges)
    step = max(1, _PAIRS_AT_ONCE // len(edges))
    # Each edge meets itself and two neighbours, and each pair is found from both its ends.
    pairs_max = 2 * PAIRS_MAX + PAIRS_AN_EDGE * len(edges)
    meetings_max = 2 * CROSSINGS_MAX + 3 * len(edges)
    pairs = meetings = 0
    for start in range(0, len(edges), step):
        some = edges[start : start + step]
        found = tree.query(some)
        pairs += found.shape[1]
        meetings += int(np.count_nonzero(shapely.intersects(some[found[0]], edges[found[1]])))
        if pairs > pairs_max or meetings > meetings_max:
            raise InvalidInputError(
                f"a polygon of {len(edges):,} edges that cross each other over"
                f" {CROSSINGS_MAX:,} times: expected an outline that does not cross itself"
            )


def _are_inside(rings: Geometries, faces: Geometries) -> Booleans:
    """Which faces an odd number of turns of the rings surrounds. No edge lies in a face but such
    as lead nowhere.
    """
    places = shapely.point_on_surface(faces)
    which, ring = shapely.STRtree(rings).query(places)
    held = shapely.contains(rings[ring], places[which])
    odd: Booleans = np.bincount(which[held], minlength=len(faces)) % 2 == 1
    # A place on an edge that leads nowhere is on neither side of it.
    on_edge = shapely.intersects(rings[ring], places[which]) & ~held
    for index in np.unique(which[on_edge]).tolist():
        odd[index] = _is_inside(rings, faces[index])
    return odd


def _is_inside(rings: Geometries, face: BaseGeometry) -> bool:
    """The same of one face, by the first of many places that lies on no edge."""
    for place in _places_in(face):
        held = shapely.contains(rings, place)
        if not (shapely.intersects(rings, place) & ~held).any():
            return bool(np.count_nonzero(held) % 2)
    return False  # so thin that no number lies between its edges


def _places_in(face: BaseGeometry) -> Iterator[BaseGeometry]:
    triangles = shapely.get_parts(shapely.delaunay_triangles(face))[:_TRIANGLES_MAX]
    for triangle in triangles.tolist():
        corners = shapely.get_coordinates(triangle)[:3]
        for weights in _WEIGHTS:
            place = shapely.Point(weights @ corners)
            if shapely.contains(face, place):
                yield place
