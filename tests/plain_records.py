"""Tiles as plain records, and what a question means of them: loops over fields, nothing of ours.

Places are told by shapely and by numbers, percentages by float32, unknown values by None, an
order by Python's tuples. No module of geostore is imported here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import Any

import mercantile
import numpy as np
import shapely
from shapely.geometry import LineString, Point, box, shape

BASE32 = "0123456789bcdefghjkmnpqrstuvwxyz"
US_DAY = 86_400_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SORTS = (None, "time", "-time", "cloud", "-cloud", "coverage", "-coverage")

Box = tuple[float, float, float, float]
Condition = tuple[Any, ...]
"""`("and", parts)`, `("or", parts)`, `("not", part)`, or what `_leaf` names."""
Order = tuple[Any, ...]


def float32(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


# ---------------------------------------------------------------- cells


def geohash_of(lon: float, lat: float, length: int) -> str:
    west, south, east, north = -180.0, -90.0, 180.0, 90.0
    code = ""
    value = 0
    for bit in range(5 * length):
        if bit % 2 == 0:
            middle = (west + east) / 2
            upper = lon >= middle
            west, east = (middle, east) if upper else (west, middle)
        else:
            middle = (south + north) / 2
            upper = lat >= middle
            south, north = (middle, north) if upper else (south, middle)
        value = 2 * value + upper
        if bit % 5 == 4:
            code += BASE32[value]
            value = 0
    return code


@cache
def bounds_of(scheme: str, code: str) -> Box:
    if scheme == "quadtile":
        west, south, east, north = mercantile.bounds(mercantile.quadkey_to_tile(code))
        return west, south, east, north
    west, south, east, north = -180.0, -90.0, 180.0, 90.0
    bits = [BASE32.index(digit) >> shift & 1 for digit in code for shift in (4, 3, 2, 1, 0)]
    for number, bit in enumerate(bits):
        if number % 2 == 0:
            middle = (west + east) / 2
            west, east = (middle, east) if bit else (west, middle)
        else:
            middle = (south + north) / 2
            south, north = (middle, north) if bit else (south, middle)
    return west, south, east, north


def cell_at(scheme: str, lon: float, lat: float, length: int) -> str:
    if scheme == "geohash":
        return geohash_of(lon, lat, length)
    return str(mercantile.quadkey(mercantile.tile(lon, lat, length)))


# ---------------------------------------------------------------- records


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A tile. Percentages are as float32 has them."""

    dataset_id: str
    dataset: str
    scheme: str
    geocode: str
    scene: str
    version: str
    time: int | None
    time_end: int | None
    platform: str | None
    bands: tuple[tuple[str, str | None], ...]
    """Name and common name."""
    coverage: float
    cloud: float | None
    bytes: int

    def shown(self) -> tuple[Any, ...]:
        """What an answer tells of it, as `plain_questions.rows_of` reads it."""
        return (
            self.dataset_id, self.dataset, self.scheme, self.geocode, self.scene, self.version,
            self.time, self.time_end, self.platform, self.coverage, self.cloud, self.bytes,
        )  # fmt: skip


def order_of(record: Record, sort: str | None) -> Order:
    """By the sort; then time, dataset, geocode, scene. What is unknown comes last."""
    word = (sort or "time").removeprefix("-")
    value = {"time": record.time, "cloud": record.cloud, "coverage": record.coverage}[word]
    sign = -1 if (sort or "").startswith("-") else 1
    return (
        value is None, 0 if value is None else sign * value,
        record.time is None, record.time or 0,
        record.dataset, record.geocode, record.scene, record.version, record.dataset_id,
    )  # fmt: skip


# ---------------------------------------------------------------- questions


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked, as plain values; `where` and the rest must all hold."""

    datasets: tuple[str, ...] | None = None
    bbox: Box | None = None
    geometry: dict[str, Any] | None = None
    geocode: str | None = None
    recursive: bool = True
    time: tuple[int | None, int | None] | None = None
    cloud: tuple[float | None, float | None] | None = None
    coverage: tuple[float | None, float | None] | None = None
    bands: tuple[str, ...] = ()
    platform: str | None = None
    scene: str | None = None
    where: Condition | None = None
    sort: str | None = None
    limit: int | None = None
    known: dict[int, bool] = field(default_factory=dict, compare=False, repr=False)
    """Of records that were looked at, by `id`, whether they match."""

    def condition(self) -> Condition:
        """All of it but order and limit, as one condition."""
        parts: list[Condition] = []
        if self.datasets is not None:
            parts.append(("one_of", "dataset", self.datasets))
        if self.geocode is not None:
            parts.append(("geocode", self.geocode, self.recursive))
        if self.time is not None:
            parts.append(("time", *self.time))
        for name, bounds in (("cloud", self.cloud), ("coverage", self.coverage)):
            if bounds is not None:
                parts.append(("within", name, *bounds, False, False))
        if self.bands:
            parts.append(("bands", self.bands))
        for name, text in (("platform", self.platform), ("scene", self.scene)):
            if text is not None:
                parts.append(("one_of", name, (text,)))
        if self.bbox is not None:
            parts.append(("bbox", self.bbox))
        if self.geometry is not None:
            parts.append(("geometry", self.geometry))
        if self.where is not None:
            parts.append(self.where)
        return ("and", tuple(parts))


def matching(records: Iterable[Record], question: Question) -> list[Record]:
    """The records of which the question is true, in its order; the limit plays no part.

    The records must live as long as the question: what is known of them goes by `id`.
    """
    known, condition = question.known, None
    found = []
    for record in records:
        is_true = known.get(id(record))
        if is_true is None:
            condition = condition or question.condition()
            is_true = known[id(record)] = truth(condition, record) is True
        if is_true:
            found.append(record)
    found.sort(key=lambda record: order_of(record, question.sort))
    return found


def answer(
    records: Iterable[Record], question: Question, after: Order | None = None
) -> list[Record]:
    """The first rows behind a place in the order, as many as the limit says."""
    found = matching(records, question)
    if after is not None:
        found = [record for record in found if order_of(record, question.sort) > after]
    return found if question.limit is None else found[: question.limit]


def truth(condition: Condition, record: Record) -> bool | None:
    """Kleene's tables, record by record; None is unknown."""
    word = condition[0]
    if word == "not":
        inner = truth(condition[1], record)
        return None if inner is None else not inner
    if word in ("and", "or"):
        decides = word == "or"
        unknown = False
        for part in condition[1]:
            inner = truth(part, record)
            if inner is decides:
                return decides
            unknown = unknown or inner is None
        return None if unknown else not decides
    return _leaf(condition, record)


def _leaf(leaf: Condition, record: Record) -> bool | None:
    match leaf:
        case ("bbox", bounds):
            return box_matches(bounds, record.scheme, bounds_of(record.scheme, record.geocode))
        case ("geometry", geometry):
            return geometry_matches(geometry, record.scheme, record.geocode)
        case ("geocode", prefix, recursive):
            is_it = record.geocode == prefix
            return is_it or (recursive and record.geocode[: len(prefix)] == prefix)
        case ("time", start, end):
            if record.time is None:
                return None
            last = record.time if record.time_end is None else record.time_end
            return (end is None or record.time <= end) and (start is None or last >= start)
        case ("within", column, low, high, low_open, high_open):
            return _is_within(column, getattr(record, column), low, high, low_open, high_open)
        case ("one_of", column, values):
            text = getattr(record, column)
            return None if text is None else text in values
        case ("bands", names):
            there = {name for pair in record.bands for name in pair}
            return all(name in there for name in names)
        case ("null", column):
            return getattr(record, column) is None
    raise AssertionError(leaf)


def _is_within(
    column: str,
    value: float | None,
    low: float | None,
    high: float | None,
    low_open: bool,
    high_open: bool,
) -> bool | None:
    if value is None:
        return None
    if column in ("cloud", "coverage"):
        low = None if low is None else float32(low)
        high = None if high is None else float32(high)
    above = low is None or value > low or (value == low and not low_open)
    below = high is None or value < high or (value == high and not high_open)
    return above and below


# ---------------------------------------------------------------- places


def box_matches(bounds: Box, scheme: str, cell: Box) -> bool:
    """More than an edge or a corner in common; a box of no width is a line, or a point."""
    west, south, east, north = bounds
    if west < east and south < north:
        return _overlaps(bounds, cell)
    if west > east and south < north:
        wide = (west, south, 180.0, north), (-180.0, south, east, north)
        return any(_overlaps(part, cell) for part in wide)
    raise AssertionError(f"{bounds} of {scheme} is not asked")


def _overlaps(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


class _Place:
    """A geometry's parts, also where they are drawn past the antimeridian."""

    def __init__(self, geometry: dict[str, Any]) -> None:
        whole = shape(geometry)
        self.parts = [
            shapely.transform(part, lambda xy, turn=turn: np.add(xy, (turn, 0)))
            for part in getattr(whole, "geoms", [whole])
            for turn in (-360.0, 0.0, 360.0)
        ]
        self.known: dict[tuple[str, str], bool] = {}

    def matches(self, scheme: str, code: str) -> bool:
        found = self.known.get((scheme, code))
        if found is None:
            cell = bounds_of(scheme, code)
            found = any(self._part_matches(part, scheme, cell) for part in self.parts)
            self.known[scheme, code] = found
        return found

    @staticmethod
    def _part_matches(part: Any, scheme: str, cell: Box) -> bool:
        west, south, east, north = cell
        if isinstance(part, Point):
            inside = south <= part.y < north if scheme == "geohash" else south < part.y <= north
            return west <= part.x < east and inside
        if not _overlaps(part.bounds, cell):
            return False
        if isinstance(part, LineString):
            return bool(shapely.intersection(part, box(*cell)).length > 0)
        if not part.is_valid:  # by the even-odd rule: of small crossing polygons its faces tell
            return _even_odd_overlaps(part, cell)
        return bool(shapely.intersection(part, box(*cell)).area > 0)


def _even_odd_overlaps(part: Any, cell: Box) -> bool:
    faces = shapely.get_parts(shapely.polygonize([shapely.unary_union(part.boundary)]))
    ring = shapely.get_coordinates(part.exterior).tolist()
    for face in faces:
        place = face.representative_point()
        crossed = sum(
            (y0 > place.y) != (y1 > place.y)
            and place.x < x0 + (place.y - y0) * (x1 - x0) / (y1 - y0)
            for (x0, y0), (x1, y1) in pairwise(ring)
        )
        if crossed % 2 and shapely.intersection(face, box(*cell)).area > 0:
            return True
    return False


_PLACES: dict[int, tuple[dict[str, Any], _Place]] = {}
_PLACES_MAX = 500


def geometry_matches(geometry: dict[str, Any], scheme: str, code: str) -> bool:
    kept = _PLACES.get(id(geometry))
    if kept is None or kept[0] is not geometry:
        if len(_PLACES) >= _PLACES_MAX:
            _PLACES.clear()
        kept = _PLACES[id(geometry)] = geometry, _Place(geometry)
    return kept[1].matches(scheme, code)


# ---------------------------------------------------------------- summaries

KEYS: dict[str, Callable[[Record], tuple[str | None, ...]]] = {
    "dataset": lambda record: (record.dataset,),
    "platform": lambda record: (record.platform,),
    "scene": lambda record: (record.scene,),
    "year": lambda record: (_date(record, 4),),
    "month": lambda record: (_date(record, 7),),
    "day": lambda record: (_date(record, 10),),
    "geocode:2": lambda record: (record.geocode[:2], record.scheme),
    "geocode:4": lambda record: (record.geocode[:4], record.scheme),
}


def _date(record: Record, width: int) -> str | None:
    if record.time is None:
        return None
    return (EPOCH + timedelta(microseconds=record.time)).date().isoformat()[:width]


def summary(records: Iterable[Record], by: Sequence[str]) -> dict[Any, dict[str, Any]]:
    """The records by groups, as `tests.summary_model.groups_of` tells a summary; groups in any
    order.
    """
    grouped: dict[Any, list[Record]] = {}
    for record in records:
        key = tuple(text for name in by for text in KEYS[name](record))
        grouped.setdefault(key, []).append(record)
    return {key: _group(own) for key, own in grouped.items()}


def _group(records: list[Record]) -> dict[str, Any]:
    times = [record.time for record in records if record.time is not None]
    ends = [
        record.time if record.time_end is None else record.time_end
        for record in records
        if record.time is not None
    ]
    group: dict[str, Any] = {
        "tiles": len(records),
        "bytes": sum(record.bytes for record in records),
        "time_first": min(times) if times else 2**63 - 1,
        "time_last": max(ends) if times else -(2**63),  # type: ignore[type-var]
    }
    for name, values in (
        ("cloud_cover", [record.cloud for record in records]),
        ("pixel_coverage", [record.coverage for record in records]),
    ):
        known = [value for value in values if value is not None]
        bins = [min(19, int(value // 5)) for value in known]
        group[f"{name}_sum"] = sum(round(Fraction(value) * 2**24) for value in known)
        group[f"{name}_min"] = min(known) if known else None
        group[f"{name}_max"] = max(known) if known else None
        group[f"{name}_unknown"] = len(values) - len(known)
        group[f"{name}_histogram"] = [bins.count(place) for place in range(20)]
    return group
