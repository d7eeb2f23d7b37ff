"""Geometries as users pass them, checked and taken apart.

Read: GeoJSON (RFC 7946) geometries, features and feature collections as mappings, anything
with `__geo_interface__`, and shapely geometries. Kept: two dimensions, and the plain parts
(polygons, lines, points) of all that was given, each valid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from geostore.errors import InvalidInputError
from geostore.grid.even_odd import even_odd_polygons

__all__ = ["Parts", "read_parts", "valid_polygons", "write_parts"]

Floats = npt.NDArray[np.float64]

LONGITUDE_MAX = 720.0
"""Longitudes may go on past 180 by whole turns, as in 0..360 or unwrapped footprints."""

_DEPTH_MAX = 32
_GEOMETRY_TYPES = (
    "Point",
    "MultiPoint",
    "LineString",
    "MultiLineString",
    "Polygon",
    "MultiPolygon",
    "GeometryCollection",
)
# Some software writes this old member (GeoJSON 2008) for the CRS that is the only one now.
_CRS_NAMES = ("CRS84", "EPSG:4326", "EPSG::4326")


@dataclass(frozen=True, slots=True)
class Parts:
    """A geometry as a union of plain parts, in the order given."""

    polygons: tuple[BaseGeometry, ...]
    """shapely polygons, valid; they may overlap one another."""
    lines: tuple[Floats, ...]
    """(n, 2) vertices, n >= 2, no vertex twice in a row."""
    points: Floats
    """(n, 2)"""

    def identity(self) -> tuple[object, ...]:
        """What two equal geometries have in common: their coordinates' bytes."""
        return (
            tuple(shapely.to_wkb(polygon) for polygon in self.polygons),
            tuple(line.tobytes() for line in self.lines),
            self.points.tobytes(),
        )


def read_parts(value: object) -> Parts:
    """The parts of a geometry. A polygon without area counts as the line or point that it is.

    Polygons that cross themselves are made valid: what an odd number of turns of their rings
    surrounds is inside.

    Raises:
        InvalidInputError: no geometry at all, or one that is empty, malformed, crosses itself
            too often, or has coordinates that are not finite degrees of longitude and latitude.
    """
    geometries = [value] if isinstance(value, BaseGeometry) else list(_geometries(value, 0))
    polygons: list[BaseGeometry] = []
    lines: list[Floats] = []
    points: list[Floats] = []
    for geometry in geometries:
        for part in _plain(geometry):
            _sort_in(part, polygons, lines, points)
    if not (polygons or lines or points):
        raise InvalidInputError(f"{_shown(value)}: the geometry is empty, expected a place")
    return Parts(
        tuple(polygons),
        tuple(lines),
        np.concatenate(points) if points else np.empty((0, 2)),
    )


def write_parts(parts: Parts) -> dict[str, Any]:
    """A GeoJSON geometry that `read_parts` reads back as the same parts."""
    geometries: list[dict[str, Any]] = []
    polygons = [
        [shapely.get_coordinates(ring).tolist() for ring in (polygon.exterior, *polygon.interiors)]
        for polygon in parts.polygons
    ]
    for name, members in (
        ("Polygon", polygons),
        ("LineString", [line.tolist() for line in parts.lines]),
        ("Point", parts.points.tolist()),
    ):
        if len(members) == 1:
            geometries.append({"type": name, "coordinates": members[0]})
        elif members:
            geometries.append({"type": "Multi" + name, "coordinates": members})
    if len(geometries) == 1:
        return geometries[0]
    return {"type": "GeometryCollection", "geometries": geometries}


# ---------------------------------------------------------------- GeoJSON to shapely


def _geometries(value: object, depth: int) -> Iterator[BaseGeometry]:
    """The single geometries of a GeoJSON object, as shapely's."""
    if depth > _DEPTH_MAX:
        raise InvalidInputError(f"geometry collections nested over {_DEPTH_MAX} deep")
    if not isinstance(value, Mapping) and hasattr(value, "__geo_interface__"):
        value = value.__geo_interface__
    if not isinstance(value, Mapping):
        raise InvalidInputError(
            f"{_shown(value)}: expected a GeoJSON mapping, a shapely geometry or an object with"
            " __geo_interface__"
        )
    _check_crs(value)
    kind = value.get("type")
    if kind == "FeatureCollection":
        for feature in _members(value, "features"):
            yield from _geometries(feature, depth + 1)
    elif kind == "Feature":
        # RFC 7946: a feature without a place has a null geometry.
        if value.get("geometry") is not None:
            yield from _geometries(value["geometry"], depth + 1)
    elif kind == "GeometryCollection":
        for member in _members(value, "geometries"):
            yield from _geometries(member, depth + 1)
    elif kind in (*_GEOMETRY_TYPES, "LinearRing"):
        yield from _from_coordinates(str(kind).removeprefix("Multi"), value, str(kind))
    else:
        raise InvalidInputError(
            f"GeoJSON type {kind!r}: expected Feature, FeatureCollection,"
            f" {', '.join(_GEOMETRY_TYPES)}"
        )


def _members(value: Mapping[Any, Any], name: str) -> Sequence[Any]:
    members = value.get(name)
    if not _is_list(members):
        raise InvalidInputError(
            f"GeoJSON {value.get('type')} with {name} {_shown(members)}: expected a list"
        )
    return members


def _check_crs(value: Mapping[Any, Any]) -> None:
    crs = value.get("crs")
    if crs is None:
        return
    properties = crs.get("properties") if isinstance(crs, Mapping) else None
    name = properties.get("name") if isinstance(properties, Mapping) else crs
    if not str(name).endswith(_CRS_NAMES):
        raise InvalidInputError(
            f"GeoJSON with CRS {_shown(name)}: expected longitude and latitude in degrees (WGS 84)"
        )


def _from_coordinates(
    kind: str, value: Mapping[Any, Any], full_kind: str
) -> Iterator[BaseGeometry]:
    coordinates = value.get("coordinates")
    if not _is_list(coordinates):
        raise InvalidInputError(
            f"GeoJSON {full_kind} with coordinates {_shown(coordinates)}: expected a list"
        )
    members = coordinates if full_kind.startswith("Multi") else [coordinates]
    for member in members:
        if not _is_list(member):
            raise InvalidInputError(
                f"GeoJSON {full_kind} with member {_shown(member)}: expected a list"
            )
        if len(member) == 0:
            continue
        if kind == "Point":
            yield shapely.Point(_positions([member], full_kind)[0])
        elif kind == "Polygon":
            shell, *holes = [_ring(ring, full_kind) for ring in member]
            yield shapely.Polygon(shell, holes)
        else:
            line = _positions(member, full_kind)
            if len(line) < 2:
                raise InvalidInputError(f"GeoJSON {full_kind}: a line of 1 position, expected 2")
            yield shapely.LineString(line)


def _ring(ring: object, kind: str) -> Floats:
    positions = _positions(ring, kind)
    if len(positions) < 4:
        raise InvalidInputError(
            f"GeoJSON {kind}: a ring of {len(positions)} positions, expected at least 4"
        )
    if not np.array_equal(positions[0], positions[-1]):
        raise InvalidInputError(
            f"GeoJSON {kind}: a ring from {positions[0].tolist()} to {positions[-1].tolist()}"
            " is not closed, expected its last position to repeat the first"
        )
    return positions


def _positions(values: object, kind: str) -> Floats:
    """(n, 2) float64; third and further numbers are dropped."""
    if not _is_list(values):
        raise InvalidInputError(f"GeoJSON {kind} with {_shown(values)}: expected positions")
    rows = []
    for value in values:
        if not _is_list(value) or len(value) < 2 or not all(map(_is_number, value[:2])):
            raise InvalidInputError(
                f"GeoJSON {kind} with position {_shown(value)}: expected [longitude, latitude]"
            )
        try:
            rows.append((float(value[0]), float(value[1])))
        except OverflowError:
            raise InvalidInputError(
                f"GeoJSON {kind} with position {_shown(value)}: expected degrees"
            ) from None
    positions = np.array(rows, dtype=np.float64).reshape(-1, 2)
    _check_positions(positions)
    return positions


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, list | tuple | np.ndarray)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested without end, a number of thousands of digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else text[:77] + "..."


# ---------------------------------------------------------------- checks and plain parts


def _check_positions(positions: Floats) -> None:
    for lon, lat in positions[~np.isfinite(positions).all(axis=1)][:1].tolist():
        raise InvalidInputError(f"geometry with position ({lon}, {lat}): expected finite numbers")
    out = (np.abs(positions[:, 0]) > LONGITUDE_MAX) | (np.abs(positions[:, 1]) > 90.0)
    for lon, lat in positions[out][:1].tolist():
        raise InvalidInputError(
            f"geometry with position ({lon:.10g}, {lat:.10g}): expected longitude and latitude in"
            f" degrees, latitude in -90..90 (projected coordinates, or the two swapped?)"
        )


def _plain(geometry: BaseGeometry) -> Iterator[BaseGeometry]:
    """Points, lines and polygons of a checked geometry; nothing empty."""
    # The WKT parser takes nan, and 2-D comes first so that a nan height does no harm.
    flat = shapely.force_2d(geometry)
    for part in _exploded(flat):
        if part.is_empty:
            continue
        if part.geom_type not in {"Point", "LineString", "LinearRing", "Polygon"}:
            raise InvalidInputError(
                f"geometry of type {part.geom_type}: expected one of {', '.join(_GEOMETRY_TYPES)}"
            )
        _check_positions(shapely.get_coordinates(part))
        yield part


def _exploded(geometry: BaseGeometry) -> Iterator[BaseGeometry]:
    if hasattr(geometry, "geoms"):
        for part in geometry.geoms:
            yield from _exploded(part)
    else:
        yield geometry


def _sort_in(
    part: BaseGeometry, polygons: list[BaseGeometry], lines: list[Floats], points: list[Floats]
) -> None:
    if part.geom_type == "Polygon":
        found = valid_polygons(shapely.transform(part, _without_negative_zero))
        if found:
            polygons.extend(found)
        else:
            # No area: a bbox of no width acts as a line, and so does such a polygon.
            _sort_in(shapely.LineString(part.exterior), polygons, lines, points)
        return
    vertices = _without_negative_zero(shapely.get_coordinates(part))
    moved = np.ones(len(vertices), dtype=np.bool_)
    moved[1:] = (vertices[1:] != vertices[:-1]).any(axis=1)
    vertices = vertices[moved]
    if len(vertices) == 1:
        points.append(vertices)
    else:
        lines.append(vertices)


def _without_negative_zero(coordinates: Floats) -> Floats:
    """Equal places get equal bytes."""
    return coordinates + 0.0


def valid_polygons(polygon: BaseGeometry) -> list[BaseGeometry]:
    """The polygon, or the polygons that it falls into when made valid; none if it has no area.

    Raises:
        InvalidInputError: it crosses itself too often.
    """
    return [polygon] if polygon.is_valid else even_odd_polygons(polygon)
