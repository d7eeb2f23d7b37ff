"""Which tiles together cover their cells: a search's answer as rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from geostore.types import NULL_TIME
from geostore.types.geo import datetime_from_us

if TYPE_CHECKING:
    import pandas as pd

    from geostore.query import CoverageGroups
    from geostore.wrangle import Counted

__all__ = ["COVERAGE_FIELDS", "Coverage", "CoverageRow"]

COVERAGE_FIELDS = (
    "dataset",
    "geocode",
    "window_start",
    "window_end",
    "tiles",
    "scenes",
    "coverage_min",
    "coverage_max",
    "coverage",
    "reached",
)
"""The fields of a row, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageRow:
    """What the tiles of one dataset in one cell, that begin in one window of time, see together."""

    dataset: str
    geocode: str
    window_start: datetime | None
    """None where all tiles of a cell are taken together."""
    window_end: datetime | None
    """When the next window begins."""
    tiles: int
    scenes: tuple[str, ...]
    """The tiles' scenes, sorted."""
    coverage_min: float
    """Percent of the cell's pixels that are certain to be seen."""
    coverage_max: float
    """Percent that could be."""
    coverage: float | None
    """Percent that is seen; None where bounds decided, or reading stopped at the target."""
    reached: bool | None
    """Whether it is the target or more; None where that is open and nothing was to be read."""

    def to_json(self) -> dict[str, Any]:
        """The fields, times as datetimes."""
        return {name: getattr(self, name) for name in COVERAGE_FIELDS}


class Coverage:
    """The groups of a search for coverage, ordered by dataset, cell and window; a sequence of rows.

    It is an answer, not a question: what the store held when it was asked.
    """

    def __init__(
        self, groups: CoverageGroups, counted: Mapping[int, Counted], target: float
    ) -> None:
        self._groups = groups
        self._counted = counted
        self._certain, self._possible = groups.reaches(target)
        self.target = target

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[CoverageRow]:
        for index in range(len(self)):
            yield self[index]

    def __getitem__(self, index: int) -> CoverageRow:
        groups = self._groups
        index = range(len(self))[index]
        lower, upper, total = (
            int(column[index]) for column in (groups.lower, groups.upper, groups.total)
        )
        start_us, end_us = int(groups.start_us[index]), int(groups.end_us[index])
        reached: bool | None = None
        if self._certain[index]:
            reached = True
        elif not self._possible[index]:
            reached = False
        counted = self._counted.get(index)
        if counted is not None:
            lower = max(lower, counted.pixels)
            upper = lower if counted.is_whole else upper
            reached = 100.0 * lower >= self.target * total
        return CoverageRow(
            dataset=str(groups.dataset[index]),
            geocode=str(groups.geocode[index]),
            window_start=None if start_us == NULL_TIME else datetime_from_us(start_us),
            window_end=None if end_us == NULL_TIME else datetime_from_us(end_us),
            tiles=int(groups.tiles[index]),
            scenes=groups.scenes(index),
            coverage_min=100.0 * lower / total,
            coverage_max=100.0 * upper / total,
            coverage=100.0 * lower / total if lower == upper else None,
            reached=reached,
        )

    def reached(self) -> list[CoverageRow]:
        """The rows that reach the target."""
        return [row for row in self if row.reached]

    def to_pandas(self) -> pd.DataFrame:
        """One row a group, with its fields as columns (times UTC-aware).

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        from geostore.tensors.optional import require

        pandas = require("pandas", needed_for="to_pandas", extra="pandas")
        rows = [row.to_json() for row in self]
        frame = pandas.DataFrame(rows, columns=list(COVERAGE_FIELDS))
        for name in ("window_start", "window_end"):
            frame[name] = pandas.to_datetime(frame[name], utc=True)
        frame["coverage"] = frame["coverage"].astype("float64")
        return frame  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        certain = int(self._certain.sum())
        unsure = int((self._possible & ~self._certain).sum())
        return (
            f"Coverage({len(self)} groups, target {self.target:g} %: {certain} reach it by their"
            f" bounds, {unsure} {'were' if self._counted else 'are'} unsure)"
        )
