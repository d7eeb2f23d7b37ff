"""The summary as a value: what tiles are there, by dataset, month or place, without their rows.

A summary is groups and what they add up to, as columns. Each part of a store makes its own, and
`Summary.merge` makes one of all. It is the same however the tiles were divided, to the last bit:
counts, bytes and histograms are whole numbers; of percentages, of which a mean is wanted, whole
multiples of 2 to the -24 percent are summed, so that no order of additions rounds differently;
the least and the greatest are chosen, not computed.

A tile counts in the month (year, day) in which its interval starts, in UTC: a yearly product in
its January, an 8-day composite in the month of its first day. A tile without a time is of the
group None, as one without a platform.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInputError
from geostore.query.terms import GEOCODE_LENGTH_MAX, shown
from geostore.query.value import Query

__all__ = [
    "BIN_PERCENT",
    "COLUMNS",
    "FIXED_ONE",
    "GROUPS_MAX",
    "HISTOGRAM_BINS",
    "MEASURES",
    "NO_FIRST",
    "NO_LAST",
    "KeyColumn",
    "Summary",
    "SummaryKey",
    "SummaryKeys",
    "check_groups",
    "check_summarised",
    "fixed_percent",
    "keys_from",
]

GROUPS_MAX: Final = 250_000
"""Groups of a summary at most: some 100 MB. What has more is a listing, which streams."""

HISTOGRAM_BINS: Final = 20
BIN_PERCENT: Final = 5
FIXED_ONE: Final = 1 << 24
"""One percent as it is summed. A float32 of 0.5 or more is a whole multiple of 2 to the -24; what
is less is rounded by at most 3e-8. An int64 has room for 5e9 tiles of 100 percent.
"""
MEASURES: Final = ("cloud_cover", "pixel_coverage")

NO_FIRST: Final = np.iinfo(np.int64).max
"""`time_first` of a group without a known time; `NO_LAST` is its `time_last`."""
NO_LAST: Final = np.iinfo(np.int64).min

_PLAIN_KINDS: Final = ("dataset", "month", "year", "day", "platform", "scene")
_EXPECTED: Final = (
    f"expected one of {', '.join(_PLAIN_KINDS)} or geocode:N (the first N digits of the cell's"
    f" geocode, N of 1..{GEOCODE_LENGTH_MAX})"
)

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SummaryKey:
    """What tiles are grouped by.

    Raises:
        InvalidInputError: no such key; names those there are.
    """

    kind: str
    """`dataset`, `month`, `year`, `day`, `platform`, `scene` or `geocode`."""
    digits: int | None = None
    """Of a geocode: how many of its first digits; a shorter one counts whole."""

    def __post_init__(self) -> None:
        if self.kind == "geocode":
            digits = self.digits
            is_whole = isinstance(digits, int) and not isinstance(digits, bool)
            if not is_whole or not 1 <= (digits or 0) <= GEOCODE_LENGTH_MAX:
                raise InvalidInputError(f"summary key geocode:{shown(digits)}: {_EXPECTED}")
        elif self.kind not in _PLAIN_KINDS or self.digits is not None:
            raise InvalidInputError(f"summary key {shown(str(self))}: {_EXPECTED}")

    @classmethod
    def parse(cls, text: object) -> Self:
        """A key as users write it.

        >>> SummaryKey.parse("geocode:4").digits
        4

        Raises:
            InvalidInputError: no such key.
        """
        refusal = InvalidInputError(f"summary key {shown(text)}: {_EXPECTED}")
        if not isinstance(text, str):
            raise refusal
        if text in _PLAIN_KINDS:
            return cls(text)
        kind, _, digits = text.partition(":")
        if kind != "geocode" or not digits.isascii() or not digits.isdigit() or len(digits) > 3:
            raise refusal
        if not 1 <= int(digits) <= GEOCODE_LENGTH_MAX:
            raise refusal
        return cls("geocode", int(digits))

    def __str__(self) -> str:
        return self.kind if self.digits is None else f"{self.kind}:{self.digits}"

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns of its values. A geocode alone does not say whose it is: `02` is a place
        of either scheme.
        """
        return ("geocode", "scheme") if self.kind == "geocode" else (self.kind,)


SummaryKeys = tuple[SummaryKey, ...]


def keys_from(by: object) -> SummaryKeys:
    """The keys of one text, or of several.

    Raises:
        InvalidInputError: an unknown key, none, or one kind twice.
    """
    if isinstance(by, str | SummaryKey):
        by = (by,)
    if not isinstance(by, Iterable):
        raise InvalidInputError(f"by {shown(by)}: {_EXPECTED}, or several")
    # One more than can be right is enough to say what is wrong.
    texts = [each for each, _ in zip(by, range(len(_PLAIN_KINDS) + 2), strict=False)]
    keys = tuple(each if isinstance(each, SummaryKey) else SummaryKey.parse(each) for each in texts)
    if not keys:
        raise InvalidInputError(f"by: got no key, {_EXPECTED}, or several")
    kinds = [key.kind for key in keys]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise InvalidInputError(f"by {', '.join(map(str, keys))}: {kind} is there twice")
    return keys


def check_summarised(q: Query) -> None:
    """
    Raises:
        InvalidInputError: the query has a limit or an order, which a summary cannot have.
    """
    for name in ("limit", "sort"):
        value = getattr(q, name)
        if value is not None:
            raise InvalidInputError(
                f"{name} {value!r}: a summary is of all tiles that match, it has neither"
            )


def check_groups(groups: int, by: SummaryKeys) -> None:
    """
    Raises:
        InvalidInputError: more groups than a summary may have.
    """
    if groups > GROUPS_MAX:
        raise InvalidInputError(
            f"summary by {', '.join(map(str, by))}: more than {GROUPS_MAX:,} groups; take fewer"
            " or coarser keys, or fewer tiles"
        )


def fixed_percent(percent: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """Percentages as whole multiples of 1 / `FIXED_ONE`; 0 where unknown (NaN).

    Multiplied by a power of two a float32 stays exact, and 100 percent fit an int32.
    """
    scaled = np.rint(percent * np.float32(FIXED_ONE))
    scaled[np.isnan(scaled)] = 0
    fixed: npt.NDArray[np.int32] = scaled.astype(np.int32)
    return fixed


# ---------------------------------------------------------------- columns


@dataclass(frozen=True, slots=True)
class _ColumnKind:
    """How a column is stored, and what makes one value of two of one group."""

    dtype: np.dtype[Any]
    join: np.ufunc
    width: int | None = None
    """Numbers a group where there are several: the column is (groups, width)."""

    def shape(self, groups: int) -> tuple[int, ...]:
        return (groups,) if self.width is None else (groups, self.width)


_COUNT: Final = _ColumnKind(np.dtype(np.int64), np.add)
_PERCENT: Final = np.dtype(np.float32)

COLUMNS: Final[Mapping[str, _ColumnKind]] = {
    "tiles": _COUNT,
    "bytes": _COUNT,
    "time_first": _ColumnKind(np.dtype(np.int64), np.minimum),
    "time_last": _ColumnKind(np.dtype(np.int64), np.maximum),
    **{
        f"{measure}_{name}": kind
        for measure in MEASURES
        for name, kind in (
            ("sum", _COUNT),
            ("min", _ColumnKind(_PERCENT, np.fmin)),
            ("max", _ColumnKind(_PERCENT, np.fmax)),
            ("unknown", _COUNT),
            ("histogram", _ColumnKind(np.dtype(np.int64), np.add, HISTOGRAM_BINS)),
        )
    },
}
"""What a group adds up to.

`time_first` and `time_last` are microseconds since 1970: the earliest start and the latest end of
its tiles' intervals. Of each measure: `sum` of known values in 1 / `FIXED_ONE` percent; `min` and
`max` of them, NaN where there is none; `unknown`, how many tiles have none; `histogram`, known
values in bins of 5 percent from 0, of which the last one has 100 too.
"""


@dataclass(frozen=True, slots=True, eq=False)
class KeyColumn:
    """A key's value of each group: texts once, and which of them; equal texts are one."""

    values: tuple[str, ...]
    codes: npt.NDArray[np.int64]
    """(groups,); `len(values)` where there is no value."""

    def texts(self) -> list[str | None]:
        """One a group."""
        values = (*self.values, None)
        return [values[code] for code in self.codes.tolist()]


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """Groups in the order of their keys, None last, each once; and the columns of `COLUMNS`.

    Text by code point. `keys` are by the names of the keys' `fields`.
    """

    by: SummaryKeys
    keys: Mapping[str, KeyColumn]
    columns: Mapping[str, npt.NDArray[Any]]

    def __len__(self) -> int:
        return len(self.columns["tiles"])

    @classmethod
    def empty(cls, by: SummaryKeys) -> Self:
        """Of no tiles: no groups."""
        return cls(
            by,
            {name: KeyColumn((), np.empty(0, dtype=np.int64)) for key in by for name in key.fields},
            {name: np.empty(kind.shape(0), kind.dtype) for name, kind in COLUMNS.items()},
        )

    @classmethod
    def merge(cls, by: SummaryKeys, parts: Iterable[Summary]) -> Summary:
        """One summary of all: groups of equal keys become one. O(groups log groups).

        Parts need not be in order, nor have each group once. Exact, so that neither their
        order nor how they were divided shows.

        Raises:
            InvalidInputError: more groups than a summary may have; parts by other keys.
        """
        found = [part for part in parts if len(part)]
        if not found:
            return cls.empty(by)
        for part in found:
            if part.by != by:
                raise InvalidInputError(f"summaries by {part.by} and by {by} are not of one kind")
        keys = {name: _joined([part.keys[name] for part in found]) for name in found[0].keys}
        order = np.lexsort([column.codes for column in reversed(keys.values())])
        is_first = np.zeros(len(order), dtype=np.bool_)
        is_first[0] = True
        for column in keys.values():
            codes = column.codes[order]
            is_first[1:] |= codes[1:] != codes[:-1]
        starts = np.flatnonzero(is_first)
        check_groups(len(starts), by)
        columns = {}
        for name, kind in COLUMNS.items():
            values = np.concatenate([part.columns[name] for part in found])
            columns[name] = kind.join.reduceat(values[order], starts, axis=0, dtype=kind.dtype)
        return cls(
            by,
            {
                name: KeyColumn(column.values, column.codes[order[starts]])
                for name, column in keys.items()
            },
            columns,
        )

    def take(self, part: slice) -> Summary:
        """Some of the groups, with no more texts than they need."""
        return Summary(
            self.by,
            {
                name: _joined([KeyColumn(column.values, column.codes[part])])
                for name, column in self.keys.items()
            },
            {name: column[part] for name, column in self.columns.items()},
        )

    def known(self, measure: str) -> Integers:
        """Of each group, how many tiles have a value of this measure."""
        known: Integers = self.columns["tiles"] - self.columns[f"{measure}_unknown"]
        return known

    def mean(self, measure: str) -> npt.NDArray[np.float64]:
        """Of each group, over known values; NaN where there is none."""
        known = self.known(measure)
        sums = self.columns[f"{measure}_sum"].astype(np.float64) / FIXED_ONE
        means = np.full(len(self), np.nan)
        np.divide(sums, known, out=means, where=known > 0)
        return means


def _joined(columns: Sequence[KeyColumn]) -> KeyColumn:
    """Columns one behind the other, with the texts that are used, sorted."""
    used: set[str] = set()
    tables = []
    for column in columns:
        there = np.unique(column.codes).tolist()
        used.update(column.values[code] for code in there if code < len(column.values))
    values = tuple(sorted(used))
    place = {value: code for code, value in enumerate(values)}
    for column in columns:
        table = [place.get(value, 0) for value in column.values]
        tables.append(np.array([*table, len(values)], dtype=np.int64))
    codes = [table[column.codes] for table, column in zip(tables, columns, strict=True)]
    return KeyColumn(values, np.concatenate(codes))
