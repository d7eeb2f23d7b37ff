"""Summaries by hand: row by row, in whole numbers and fractions, sharing no code with ours."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import numpy as np

from geostore.query import Summary, SummaryKeys
from geostore.query.summary import COLUMNS, KeyColumn
from geostore.types import NULL_TIME, RowBatch

__all__ = ["expected_groups", "groups_of", "summary_of"]

Groups = dict[tuple[str | None, ...], dict[str, Any]]
TIME_WIDTHS = {"year": 4, "month": 7, "day": 10}


def _day(us: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)).date().isoformat()


def _key(batch: RowBatch, i: int, by: SummaryKeys) -> tuple[str | None, ...]:
    found: list[str | None] = []
    for key in by:
        if key.kind in TIME_WIDTHS:
            us = int(batch.time_us[i])
            found.append(None if us == NULL_TIME else _day(us)[: TIME_WIDTHS[key.kind]])
        elif key.kind == "geocode":
            found += [batch.geocode[i][: key.digits], batch.schema[i].scheme]
        else:
            found.append(getattr(batch, key.kind)[i])
    return tuple(found)


def _fixed(percent: float) -> int:
    return round(Fraction(percent) * 2**24)  # to even at a half, as numpy does


def expected_groups(batch: RowBatch, by: SummaryKeys) -> Groups:
    """What `groups_of` must give for the rows' summary."""
    groups: Groups = {}
    for i in range(len(batch)):
        group = groups.setdefault(_key(batch, i, by), {"tiles": 0, "bytes": 0, "times": []})
        group["tiles"] += 1
        group["bytes"] += int(batch.bytes[i])
        start, end = int(batch.time_us[i]), int(batch.time_end_us[i])
        if start != NULL_TIME:
            group["times"] += [start, start if end == NULL_TIME else end]
        for measure in ("cloud_cover", "pixel_coverage"):
            value = float(getattr(batch, measure)[i])
            values = group.setdefault(measure, [])
            values.append(None if np.isnan(value) else value)
    for group in groups.values():
        times = group.pop("times")
        group["time_first"] = min(times) if times else 2**63 - 1
        group["time_last"] = max(times) if times else -(2**63)
        for measure in ("cloud_cover", "pixel_coverage"):
            values = group.pop(measure)
            known = [value for value in values if value is not None]
            group[f"{measure}_sum"] = sum(map(_fixed, known))
            group[f"{measure}_min"] = min(known) if known else None
            group[f"{measure}_max"] = max(known) if known else None
            group[f"{measure}_unknown"] = len(values) - len(known)
            bins = [min(19, int(value // 5)) for value in known]
            group[f"{measure}_histogram"] = [bins.count(place) for place in range(20)]

    def order(key: tuple[str | None, ...]) -> list[tuple[bool, str]]:
        return [(text is None, text or "") for text in key]

    return {key: groups[key] for key in sorted(groups, key=order)}


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def groups_of(summary: Summary) -> Groups:
    """A summary as `expected_groups` gives it, in its own order."""
    keys = zip(*(column.texts() for column in summary.keys.values()), strict=True)
    columns = {name: summary.columns[name].tolist() for name in COLUMNS}
    found: Groups = {}
    for i, key in enumerate(keys):
        group = {name: column[i] for name, column in columns.items()}
        assert key not in found
        found[key] = {name: _known(value) for name, value in group.items()}
    return found


def summary_of(batch: RowBatch, by: SummaryKeys) -> Summary:
    """The rows' summary, made by hand."""
    groups = expected_groups(batch, by)
    fields = [name for key in by for name in key.fields]
    keys = {}
    for place, name in enumerate(fields):
        texts = [key[place] for key in groups]
        values = sorted({text for text in texts if text is not None})
        codes = [len(values) if text is None else values.index(text) for text in texts]
        keys[name] = KeyColumn(tuple(values), np.array(codes, dtype=np.int64))
    columns = {}
    for name, kind in COLUMNS.items():
        made = [group[name] for group in groups.values()]
        nan = [np.nan if value is None else value for value in made]
        columns[name] = np.array(nan, kind.dtype).reshape(kind.shape(len(groups)))
    return Summary(by, keys, columns)
