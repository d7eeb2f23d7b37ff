"""What tiles a selection has, by groups: for eyes, for notebooks, for programs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any, cast

from geostore.types.geo import datetime_from_us

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from geostore.query import Summary

__all__ = ["SummaryTable", "keys_in"]

SHOWN_ROWS: int = 20
SHOWN_ROWS_HTML: int = 50
_MEASURES = ("cloud_cover", "pixel_coverage")
_NOTHING = "–"


def keys_in(text: str) -> tuple[str, ...]:
    """The keys of `KEY[,KEY...]`.

    Raises:
        InvalidInputError: an unknown one, or one kind twice.
    """
    from geostore.query import keys_from

    return tuple(map(str, keys_from([part.strip() for part in text.split(",")])))


class SummaryTable:
    """Tiles by groups, and what each group adds up to.

    Groups come in the order of their keys, those without a value last. Nothing is asked of the
    store any more: it is what was there when the summary was made.

    `rows()` and `to_pandas()` have, for each group, the keys (`geocode:N` as `geocode` and
    `scheme`, with the prefix's `bbox` in degrees), `tiles`, `bytes`, `time_first` and `time_last`
    (of the tiles' intervals), and of `cloud_cover` and `pixel_coverage` in percent `_mean`,
    `_min`, `_max` over tiles where it is known, `_unknown`, how many have none, and `_histogram`,
    how many have 0 to below 5, 5 to below 10, ..., 95 to 100.
    """

    def __init__(self, summary: Summary) -> None:
        self._summary = summary

    @property
    def by(self) -> tuple[str, ...]:
        """The keys, as they were asked for."""
        return tuple(map(str, self._summary.by))

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of a row's values, in order."""
        keys = tuple(self._summary.keys)
        box = ("bbox",) if "geocode" in keys else ()
        measures = tuple(
            f"{measure}_{name}"
            for measure in _MEASURES
            for name in ("mean", "min", "max", "unknown", "histogram")
        )
        return (*keys, *box, "tiles", "bytes", "time_first", "time_last", *measures)

    def __len__(self) -> int:
        return len(self._summary)

    @cached_property
    def tiles(self) -> int:
        """Of all groups."""
        return int(self._summary.columns["tiles"].sum())

    @cached_property
    def bytes(self) -> int:
        """Of all groups."""
        return int(self._summary.columns["bytes"].sum())

    def rows(self) -> list[dict[str, Any]]:
        """A mapping a group: times as aware datetimes, None for what nobody knows."""
        columns = self._columns()
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def to_pandas(self) -> pd.DataFrame:
        """One row a group; unknown percentages are NaN, unknown times NaT.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        from geostore.tensors.optional import require

        pandas = require("pandas", needed_for="to_pandas", extra="pandas")
        whole = {"tiles", "bytes", *(f"{measure}_unknown" for measure in _MEASURES)}
        columns: dict[str, Any] = {}
        for name, values in self._columns().items():
            if name in ("time_first", "time_last"):
                columns[name] = pandas.DatetimeIndex(values, dtype="datetime64[us, UTC]")
            else:
                is_percent = name.endswith(("_mean", "_min", "_max"))
                dtype = "int64" if name in whole else "float64" if is_percent else "object"
                columns[name] = pandas.Series(values, dtype=dtype)
        return cast("pd.DataFrame", pandas.DataFrame(columns, columns=list(self.fields)))

    def _columns(self) -> dict[str, list[Any]]:
        summary, columns = self._summary, self._summary.columns
        found: dict[str, list[Any]] = {
            name: column.texts() for name, column in summary.keys.items()
        }
        if "geocode" in found:
            found["bbox"] = _boxes(found["geocode"], found["scheme"])
        found["tiles"], found["bytes"] = columns["tiles"].tolist(), columns["bytes"].tolist()
        has_time = columns["time_first"] <= columns["time_last"]
        for name in ("time_first", "time_last"):
            found[name] = _moments(columns[name], has_time)
        for measure in _MEASURES:
            found[f"{measure}_mean"] = _known(summary.mean(measure))
            for name in ("min", "max"):
                found[f"{measure}_{name}"] = _known(columns[f"{measure}_{name}"])
            for name in ("unknown", "histogram"):
                found[f"{measure}_{name}"] = columns[f"{measure}_{name}"].tolist()
        return {name: found[name] for name in self.fields}

    def _first(self, rows: int) -> tuple[list[str], list[list[str]]]:
        """Headings, and the first groups as texts."""
        part = SummaryTable(self._summary.take(slice(rows)))
        keys = list(self._summary.keys)
        headings = [*keys, "tiles", "MB", "first", "last", "cloud %", "coverage %"]
        texts = [
            [
                *(_NOTHING if row[key] is None else row[key] for key in keys),
                f"{row['tiles']:,}",
                f"{row['bytes'] / 1e6:,.1f}",
                *(_moment_text(row[name]) for name in ("time_first", "time_last")),
                *(_percent_text(row[f"{measure}_mean"]) for measure in _MEASURES),
            ]
            for row in part.rows()
        ]
        return headings, texts

    def _sizes_text(self) -> str:
        groups = f"{len(self):,} group{'' if len(self) == 1 else 's'} by {', '.join(self.by)}"
        tiles = f"{self.tiles:,} tile{'' if self.tiles == 1 else 's'}"
        return f"{groups}: {tiles}, {self.bytes / 1e6:,.1f} MB"

    def __repr__(self) -> str:
        headings, texts = self._first(SHOWN_ROWS)
        keys = len(self._summary.keys)
        lines = _aligned([headings, *texts], left=keys)
        more = len(self) - len(texts)
        return "\n".join(
            [self._sizes_text(), *lines, *([f"... and {more:,} groups more"] if more else [])]
        )

    def _repr_html_(self) -> str:
        """For notebooks: the first groups."""
        headings, texts = self._first(SHOWN_ROWS_HTML)
        heads = "".join(f"<th>{escape(text)}</th>" for text in headings)
        rows = "".join(
            f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in texts
        )
        more = len(self) - len(texts)
        rest = f"<p>and {more:,} groups more</p>" if more else ""
        return f"<p>{escape(self._sizes_text())}</p><table><tr>{heads}</tr>{rows}</table>{rest}"


def _boxes(geocodes: Sequence[str], schemes: Sequence[str]) -> list[tuple[float, ...]]:
    from geostore.grid import scheme

    boxes: list[tuple[float, ...]] = [()] * len(geocodes)
    for name in sorted(set(schemes)):
        own = [i for i, each in enumerate(schemes) if each == name]
        bounds = scheme(name).bounds_many([geocodes[i] for i in own])
        for i, box in zip(own, bounds.tolist(), strict=True):
            boxes[i] = tuple(box)
    return boxes


def _moments(times_us: np.ndarray[Any, Any], known: np.ndarray[Any, Any]) -> list[datetime | None]:
    pairs = zip(times_us.tolist(), known.tolist(), strict=True)
    return [datetime_from_us(us) if is_known else None for us, is_known in pairs]


def _known(values: np.ndarray[Any, Any]) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]  # noqa: PLR0124 - NaN


def _moment_text(moment: datetime | None) -> str:
    return _NOTHING if moment is None else f"{moment:%Y-%m-%d}"


def _percent_text(percent: float | None) -> str:
    return _NOTHING if percent is None else f"{percent:.1f}"


def _aligned(rows: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """Lines of columns as wide as they need, the first `left` of them set left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if place < left else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
