"""Which tiles share a step of the time axis."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Literal, get_args

from geostore import grid
from geostore.errors import InvalidInputError
from geostore.tensors.naming import one_of
from geostore.types import TileRow

__all__ = ["GroupBy", "Slot", "group_rows"]

GroupBy = Literal["time", "solar_day", "scene", "mosaic"]


@dataclass(frozen=True, slots=True)
class Slot:
    """One step of the time axis."""

    time: datetime | None
    """UTC; None where the tiles have no time."""
    label: str
    """The scene, or the scenes joined by commas."""
    rows: tuple[TileRow, ...]
    """In the selection's order."""


def _longitude(rows: Iterable[TileRow]) -> float:
    """Mean longitude of the tiles' cells, degrees, as a direction: sound across 180."""
    x = y = 0.0
    for row in rows:
        box = grid.scheme(row.schema.scheme).bounds(row.geocode)
        angle = math.radians((box.west + box.east) / 2)
        x += math.cos(angle)
        y += math.sin(angle)
    return math.degrees(math.atan2(y, x))


def _solar_days(rows: Sequence[TileRow]) -> dict[tuple[str, str], datetime | None]:
    """For each (dataset id, scene) the date there by mean solar time (longitude / 15 hours).

    By scene, not by cell, so that no scene is cut in two where the date changes.
    """
    scenes: dict[tuple[str, str], list[TileRow]] = {}
    for row in rows:
        scenes.setdefault((row.key.dataset_id, row.scene), []).append(row)
    days: dict[tuple[str, str], datetime | None] = {}
    for key, tiles in scenes.items():
        moment = tiles[0].time
        if moment is None:
            days[key] = None
            continue
        local = moment + timedelta(hours=_longitude(tiles) / 15.0)
        days[key] = datetime.combine(local.date(), time(tzinfo=UTC))
    return days


def group_rows(rows: Sequence[TileRow], groupby: GroupBy) -> list[Slot]:
    """The steps of the time axis, earliest first, unknown times last.

    `time`: tiles of one start time. `solar_day`: tiles of one day at the scene's longitude.
    `scene`: tiles of one scene. `mosaic`: one step, all tiles, at the earliest time. Within
    a step tiles keep the selection's order.

    Raises:
        InvalidInputError: another `groupby`.
    """
    if groupby not in get_args(GroupBy):
        raise InvalidInputError(one_of("groupby", groupby, get_args(GroupBy)))
    days = _solar_days(rows) if groupby == "solar_day" else {}
    earliest = min((row.time for row in rows if row.time is not None), default=None)
    found: dict[object, tuple[datetime | None, list[TileRow]]] = {}
    for row in rows:
        moment = row.time
        key: object = moment
        if groupby == "solar_day":
            key = moment = days[row.key.dataset_id, row.scene]
        elif groupby == "scene":
            key = (row.key.dataset_id, row.scene)
        elif groupby == "mosaic":
            key, moment = "mosaic", earliest
        found.setdefault(key, (moment, []))[1].append(row)
    slots = [
        Slot(moment, ",".join(dict.fromkeys(row.scene for row in members)), tuple(members))
        for moment, members in found.values()
    ]
    latest = datetime.max.replace(tzinfo=UTC)
    return sorted(slots, key=lambda slot: (slot.time or latest, slot.time is None, slot.label))
