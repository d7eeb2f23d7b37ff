"""What a search for coverage asks, and what it answers: tiles of a cell and a time window together.

A group is the tiles of one dataset that lie in one cell and begin in one window of time. What they
see together is their union: a pixel counts when any of them saw it. Bitmaps of blocks (see
`geostore.types.BlockBitmaps`) bound the union from below and above without a pixel being read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInputError
from geostore.query.terms import is_percent
from geostore.query.value import PercentRange, Query
from geostore.types import RowBatch
from geostore.types.geo import us_from_datetime

__all__ = [
    "CoverageAnswer",
    "CoverageGroups",
    "CoverageRequest",
    "Windows",
    "concatenate_answers",
    "groups_of",
    "with_cloud_at_most",
]

Times = npt.NDArray[np.int64]

_TEXT = re.compile(r"^(?P<count>\d{0,6})(?P<unit>h|H|D|W|MS?|YS?)$")
_HOUR_US: Final = 3_600_000_000
_FIXED_US: Final = {"h": _HOUR_US, "H": _HOUR_US, "D": 24 * _HOUR_US, "W": 7 * 24 * _HOUR_US}
_MONTHS: Final = {"M": 1, "MS": 1, "Y": 12, "YS": 12}
_CENTURY_US: Final = 36_525 * 24 * _HOUR_US
_FIRST_US: Final = us_from_datetime(datetime(1, 1, 1, tzinfo=UTC))
_LAST_US: Final = us_from_datetime(datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Windows:
    """How time is cut: windows of one length that follow each other without gaps.

    A window holds the moments from its start to before its end. Those of months begin on the first
    of a month, 00:00 UTC: of the month that `origin_us` lies in, and every `count` months from it.

    Raises:
        InvalidInputError: no length, or one of over a hundred years.
    """

    count: int
    """Microseconds, or months."""
    unit: Literal["us", "month"]
    origin_us: int = 0
    """Where a window begins: microseconds from 1970-01-01 UTC."""

    def __post_init__(self) -> None:
        most = _CENTURY_US if self.unit == "us" else 1200
        if self.unit not in ("us", "month") or type(self.count) is not int:
            raise InvalidInputError(
                f"windows of {self.count!r} {self.unit!r}: expected us or month"
            )
        if not 1 <= self.count <= most:
            raise InvalidInputError(f"{self}: expected between a moment and a hundred years")
        if not _FIRST_US <= self.origin_us <= _LAST_US:
            raise InvalidInputError(f"{self}: expected an origin in the years 1 to 9999")

    @classmethod
    def parse(cls, text: str, origin_us: int = 0) -> Self:
        """Windows as pandas writes frequencies: `16D`, `8D`, `12h`, `2W`, `1M` or `MS`, `1Y`.

        M and MS are calendar months, Y and YS calendar years, W is seven days.

        >>> Windows.parse("1Y") == Windows.parse("12MS") == Windows(12, "month")
        True

        Raises:
            InvalidInputError: anything else.
        """
        match = _TEXT.match(str(text))
        if match is None:
            raise InvalidInputError(
                f"window {text!r}: expected a number and h, D, W, M or Y, such as 16D or 1M"
            )
        count, unit = int(match["count"] or 1), match["unit"]
        if unit in _FIXED_US:
            return cls(count * _FIXED_US[unit], "us", origin_us)
        return cls(count * _MONTHS[unit], "month", origin_us)

    def indices(self, times_us: Times) -> Times:
        """The number of the window that each moment lies in; 0 begins at the origin."""
        if self.unit == "us":
            return np.asarray((times_us - self.origin_us) // self.count, dtype=np.int64)
        return np.asarray((_months(times_us) - self._first_month) // self.count, dtype=np.int64)

    def spans(self, indices: Times) -> tuple[Times, Times]:
        """Starts and ends of windows, kept within the years 1 to 9999."""
        starts, ends = (self._start(indices + step) for step in (0, 1))
        return np.clip(starts, _FIRST_US, _LAST_US), np.clip(ends, _FIRST_US, _LAST_US)

    @property
    def _first_month(self) -> int:
        return int(_months(np.array([self.origin_us], dtype=np.int64))[0])

    def _start(self, indices: Times) -> Times:
        if self.unit == "us":
            return np.asarray(self.origin_us + indices * self.count, dtype=np.int64)
        months = self._first_month + indices * self.count
        return months.astype("datetime64[M]").astype("datetime64[us]").astype(np.int64)

    def __str__(self) -> str:
        if self.unit == "month":
            return f"window {self.count}M"
        for unit in ("W", "D", "h"):
            if self.count % _FIXED_US[unit] == 0:
                return f"window {self.count // _FIXED_US[unit]}{unit}"
        return f"window of {self.count} us"


def _months(times_us: Times) -> Times:
    """Months since 1970-01."""
    months: Times = times_us.astype("datetime64[us]").astype("datetime64[M]").astype(np.int64)
    return months


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageRequest:
    """What is wanted of groups.

    Raises:
        InvalidInputError: a target that is no percentage above 0.
    """

    target: float
    """Percent of the finest grid's pixels."""
    windows: Windows | None
    """None: all tiles of a cell together, those without time too."""
    clear: bool = False
    """Only pixels that the dataset's cloud rule is known not to call cloud count."""
    members: Literal["none", "unsure", "all"] = "none"
    """The rows of which groups come with the answer."""

    def __post_init__(self) -> None:
        if not is_percent(self.target) or self.target <= 0:
            raise InvalidInputError(
                f"target {self.target!r}: expected a percentage above 0, at most 100"
            )
        if self.members not in ("none", "unsure", "all"):
            raise InvalidInputError(f"members {self.members!r}: expected none, unsure or all")

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict; `from_json` is its inverse."""
        windows = self.windows
        return {
            "target": self.target,
            "windows": windows and [windows.count, windows.unit, windows.origin_us],
            "clear": self.clear,
            "members": self.members,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """
        Raises:
            InvalidInputError: not what `to_json` wrote.
        """
        try:
            fields = dict(value)
            windows = fields.pop("windows")
            return cls(windows=None if windows is None else Windows(*windows), **fields)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise InvalidInputError(f"coverage request {value!r}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class CoverageGroups:
    """Groups as columns of one length, ordered by dataset, dataset id, cell and window."""

    dataset_id: npt.NDArray[np.object_]
    dataset: npt.NDArray[np.object_]
    geocode: npt.NDArray[np.object_]
    start_us: Times
    """Of the window; NULL_TIME where there are no windows."""
    end_us: Times
    """Where the next window begins; NULL_TIME where there are no windows."""
    tiles: npt.NDArray[np.int64]
    lower: npt.NDArray[np.int64]
    """Pixels that are certain to be seen."""
    upper: npt.NDArray[np.int64]
    """Pixels that could be."""
    total: npt.NDArray[np.int64]
    """Pixels of the cell's finest grid."""
    scene: npt.NDArray[np.object_]
    """The scene of each tile, group after group, `tiles` of each; a group's in no order."""

    def __len__(self) -> int:
        return len(self.tiles)

    @cached_property
    def ends(self) -> npt.NDArray[np.int64]:
        """Where each group's tiles end among all groups'."""
        return np.cumsum(self.tiles, dtype=np.int64)

    def scenes(self, index: int) -> tuple[str, ...]:
        """The scenes of one group, sorted."""
        end = int(self.ends[index])
        return tuple(sorted(self.scene[end - int(self.tiles[index]) : end].tolist()))

    def reaches(self, target: float) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Which groups are certain to cover `target` percent, and which could."""
        return reached(self.lower, self.total, target), reached(self.upper, self.total, target)


def reached(
    pixels: npt.NDArray[np.int64], total: npt.NDArray[np.int64], target: float
) -> npt.NDArray[np.bool_]:
    """Whether so many of `total` pixels are `target` percent or more."""
    return np.asarray(100.0 * pixels >= target * total, dtype=np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageAnswer:
    """Groups, and the rows of those that were asked for with their members."""

    groups: CoverageGroups
    members: RowBatch | None
    """Rows, group after group; None where none were asked for or there are none."""
    member_group: npt.NDArray[np.int64]
    """Of each member the index of its group, ascending."""


GROUP_COLUMNS: Final = tuple(CoverageGroups.__dataclass_fields__)
TEXT_COLUMNS: Final = ("dataset_id", "dataset", "geocode")
NUMBER_COLUMNS: Final = ("start_us", "end_us", "tiles", "lower", "upper", "total")
_COLUMN_DTYPES: Final[dict[str, type]] = {
    **dict.fromkeys((*TEXT_COLUMNS, "scene"), np.object_),
    **dict.fromkeys(NUMBER_COLUMNS, np.int64),
}


def groups_of(chunks: Mapping[str, Sequence[npt.NDArray[Any]]]) -> CoverageGroups:
    """Groups of columns that are each put together of arrays, maybe none."""
    columns: dict[str, Any] = {
        name: np.concatenate([np.empty(0, dtype), *chunks.get(name, ())])
        for name, dtype in _COLUMN_DTYPES.items()
    }
    return CoverageGroups(**columns)


def concatenate_answers(answers: Sequence[CoverageAnswer]) -> CoverageAnswer:
    """Answers of nodes as one, in order; no group is in two of them."""
    if len(answers) == 1:
        return answers[0]
    if not answers:
        return CoverageAnswer(
            groups=groups_of({}), members=None, member_group=np.empty(0, dtype=np.int64)
        )
    parts = [answer.groups for answer in answers]
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in GROUP_COLUMNS
    }
    keys = zip(
        *(columns[name].tolist() for name in ("dataset", "dataset_id", "geocode", "start_us")),
        strict=True,
    )
    order = np.array(
        [index for _, index in sorted((key, index) for index, key in enumerate(keys))], np.int64
    )
    tiles = columns["tiles"]
    ends = np.cumsum(tiles)
    ordered = {name: columns[name][order] for name in (*TEXT_COLUMNS, *NUMBER_COLUMNS)}
    scenes = [columns["scene"][ends[at] - tiles[at] : ends[at]] for at in order.tolist()]
    scene = np.concatenate([columns["scene"][:0], *scenes])
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    firsts = np.cumsum([0, *(len(part) for part in parts)])
    member_group = np.concatenate(
        [
            place[answer.member_group + first]
            for answer, first in zip(answers, firsts.tolist(), strict=False)
        ]
    )
    members = [answer.members for answer in answers if answer.members is not None]
    joined = None
    if members:
        by_group = np.argsort(member_group, kind="stable")
        joined = RowBatch.concatenate(members).take(by_group)
        member_group = member_group[by_group]
    return CoverageAnswer(
        groups=CoverageGroups(scene=scene, **ordered),
        members=joined,
        member_group=member_group,
    )


def with_cloud_at_most(query: Query, max_cloud: float | None) -> Query:
    """The query whose tiles also have at most so much cloud cover; None: the query itself.

    Raises:
        InvalidInputError: not a percentage, or below the least that the query wants.
    """
    if max_cloud is None:
        return query
    if not is_percent(max_cloud):
        raise InvalidInputError(f"max_cloud {max_cloud!r}: expected a percentage")
    known = query.cloud or PercentRange(None, None)
    most = max_cloud if known.maximum is None else min(max_cloud, known.maximum)
    return replace(query, cloud=PercentRange(known.minimum, most))
