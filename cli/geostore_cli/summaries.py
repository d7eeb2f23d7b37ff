"""Summaries as listings: one line a group."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from geostore_cli.listing import Column, bytes_text, time_text, write_listing

if TYPE_CHECKING:
    from geostore.api import SummaryTable

__all__ = ["write_summary"]

KEYS = ("dataset", "year", "month", "day", "platform", "scene", "geocode", "scheme")


def _percent(value: float) -> str:
    return f"{value:.1f}"


def _count(value: int) -> str:
    return f"{value:,}"


def _date(text: str) -> str:
    return text[:10]


COLUMNS = (
    Column("tiles", show=_count, justify="right"),
    Column("bytes", "size", bytes_text, "right"),
    Column("time_first", "first", _date),
    Column("time_last", "last", _date),
    Column("cloud_cover_mean", "cloud %", _percent, "right"),
    Column("cloud_cover_unknown", "unknown", _count, "right"),
    Column("pixel_coverage_mean", "coverage %", _percent, "right"),
)
"""Of a table, behind the keys."""


def write_summary(summary: SummaryTable, output_format: str) -> int:
    """Writes groups to stdout; how many there were."""
    keys = tuple(Column(name, long=name == "scene") for name in summary.fields if name in KEYS)
    return write_listing(
        _lines(summary), output_format, fields=summary.fields, columns=(*keys, *COLUMNS)
    )


def _lines(summary: SummaryTable) -> Iterator[dict[str, Any]]:
    for row in summary.rows():
        for name in ("time_first", "time_last"):
            row[name] = time_text(row[name])
        yield row
