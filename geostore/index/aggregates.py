"""Summaries from columns: rows are numbered by group, and each column is added up by number.

No row is made, and nothing is done a row in Python: keys are worked out once a scene (names), a day
(months), or a distinct prefix (geocodes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from geostore.index.columns import NO_START, Positions, Snapshot
from geostore.index.geocodes import packing_of
from geostore.query.summary import (
    BIN_PERCENT,
    COLUMNS,
    FIXED_ONE,
    HISTOGRAM_BINS,
    MEASURES,
    NO_FIRST,
    NO_LAST,
    KeyColumn,
    Summary,
    SummaryKey,
    SummaryKeys,
    check_groups,
    fixed_percent,
)

__all__ = ["summarise"]

DAY_US: Final = 86_400_000_000
TABLE_MIN: Final = 1 << 16
"""Numbers within so many of each other are counted in a table, however few they are."""
TABLE_FACTOR: Final = 4
"""And if they are within so many times their number. Sorting costs ten times as much."""
BLOCK_ROWS: Final = 1 << 16
"""Rows added up at once: arrays of half a megabyte, whatever the catalog's size."""
BLOCK_FACTOR: Final = 32
"""And at least so many times the number of groups, each of which costs as much as rows do."""
RUN_ROWS: Final = 4
"""Rows of a group side by side, from which on a run is reduced first."""
TIME_UNITS: Final = {"day": "D", "month": "M", "year": "Y"}

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Keyed:
    """One key's value of each row: a number a row, and the texts the numbers stand for."""

    codes: Integers
    """(rows,)."""
    texts: Sequence[str | None]
    """Every one of them is of some row."""


def summarise(snapshot: Snapshot, positions: Positions, by: SummaryKeys) -> Summary:
    """The rows at `positions` by groups. O(rows), for keys of few values some 60 ns each.

    Raises:
        InvalidInputError: more groups than a summary may have.
    """
    if not len(positions):
        return Summary.empty(by)
    keys = {name: keyed for key in by for name, keyed in _keyed(snapshot, positions, key).items()}
    groups, firsts = _numbered(list(keys.values()))
    check_groups(len(firsts), by)
    part = Summary(
        by,
        {name: _key_column(keyed, firsts) for name, keyed in keys.items()},
        _columns(snapshot, positions, groups, len(firsts)),
    )
    return Summary.merge(by, [part])


def _key_column(keyed: _Keyed, firsts: npt.NDArray[np.intp]) -> KeyColumn:
    """A key of each group, which is that of the group's first row."""
    known = [text for text in keyed.texts if text is not None]
    place = {text: code for code, text in enumerate(known)}
    table = [len(known) if text is None else place[text] for text in keyed.texts]
    return KeyColumn(tuple(known), np.array(table, dtype=np.int64)[keyed.codes[firsts]])


# ---------------------------------------------------------------- keys


def _keyed(snapshot: Snapshot, positions: Positions, key: SummaryKey) -> dict[str, _Keyed]:
    """By field."""
    if key.kind == "geocode":
        assert key.digits is not None
        return _by_geocode(snapshot, positions, key.digits)
    if key.kind in TIME_UNITS:
        return {key.kind: _by_time(snapshot, positions, TIME_UNITS[key.kind])}
    table = snapshot.group_codes[key.kind]
    used, codes = _compact(table.astype(np.int64)[snapshot.columns["group"][positions]])
    return {key.kind: _Keyed(codes, snapshot.values[key.kind][used].tolist())}


def _by_time(snapshot: Snapshot, positions: Positions, unit: str) -> _Keyed:
    start_us = snapshot.columns["start_us"][positions]
    unknown = start_us == NO_START
    has_unknown = bool(unknown.any())
    days = start_us // DAY_US
    if has_unknown:  # on a day of their own right before all others: then a table serves
        days[unknown] = days.min() - 1 if not unknown.all() else 0
    # Days are few, and what month a day is in is asked of each once.
    days, codes = _compact(days)
    dates = days.astype("datetime64[D]").astype(f"datetime64[{unit}]")
    if has_unknown:
        dates[0] = np.datetime64("NaT")
    distinct, units = np.unique(dates.astype(np.int64), return_inverse=True)
    moments = distinct.astype(f"datetime64[{unit}]")
    texts = [None if np.isnat(one) else str(one) for one in moments]
    return _Keyed(units.astype(np.int64)[codes], texts)


def _by_geocode(snapshot: Snapshot, positions: Positions, digits: int) -> dict[str, _Keyed]:
    numbers = snapshot.columns["grid"][positions]
    cells = snapshot.columns["cell"][positions]
    codes = np.empty(len(positions), dtype=np.int64)
    scheme_codes = np.empty(len(positions), dtype=np.int64)
    schemes: dict[str, int] = {}
    texts: dict[str, int] = {}
    for number, (name, length) in enumerate(snapshot.grids):
        own: Any = numbers == number
        if own.all():
            own = slice(None)
        elif not own.any():
            continue
        packing, kept = packing_of(name), min(digits, length)
        prefixes = (cells[own] >> np.uint64(packing.shift(kept))).astype(np.int64)
        distinct, local = _compact(prefixes)
        packed = (distinct.astype(np.uint64) << np.uint64(packing.shift(kept))) | np.uint64(kept)
        table = [texts.setdefault(text, len(texts)) for text in packing.unpack(packed).tolist()]
        codes[own] = np.array(table, dtype=np.int64)[local]
        scheme_codes[own] = schemes.setdefault(name, len(schemes))
    return {"geocode": _Keyed(codes, list(texts)), "scheme": _Keyed(scheme_codes, list(schemes))}


def _compact(numbers: Integers) -> tuple[Integers, Integers]:
    """(distinct numbers, sorted; of each number its place among them)."""
    least, greatest = int(numbers.min()), int(numbers.max())
    span = greatest - least + 1
    if span > max(TABLE_MIN, TABLE_FACTOR * len(numbers)):
        distinct, codes = np.unique(numbers, return_inverse=True)
        return distinct, codes.astype(np.int64)
    offsets = numbers - least
    there = np.zeros(span, dtype=np.bool_)
    there[offsets] = True
    found = np.flatnonzero(there)
    table = np.empty(span, dtype=np.int64)
    table[found] = np.arange(len(found))
    return found.astype(np.int64) + least, table[offsets]


def _numbered(keys: Sequence[_Keyed]) -> tuple[Integers, npt.NDArray[np.intp]]:
    """(of each row its group's number, from 0; of each group a row of it)."""
    groups, total = keys[0].codes, len(keys[0].texts)
    for keyed in keys[1:]:
        if len(keyed.texts) > 1:
            # Compacted each time, a number is below rows times texts: it never overflows.
            distinct, groups = _compact(groups * len(keyed.texts) + keyed.codes)
            total = len(distinct)
    firsts = np.empty(total, dtype=np.intp)
    firsts[groups] = np.arange(len(groups))
    return groups, firsts


# ---------------------------------------------------------------- what groups add up to


class _Groups:
    """The group of each row, and how values of rows become values of groups.

    Rows of a scene mostly lie side by side and are of one group: such runs are reduced first,
    which costs a fifth of handling each row.
    """

    def __init__(self, numbers: Integers, total: int) -> None:
        self.numbers = numbers
        self.total = total
        self._starts: npt.NDArray[np.intp] | None = None
        self._owners = numbers
        starts = np.flatnonzero(numbers[1:] != numbers[:-1]) + 1
        if len(starts) < len(numbers) // RUN_ROWS:
            self._starts = np.concatenate([np.zeros(1, dtype=np.intp), starts])
            self._owners = numbers[self._starts]

    def reduced(self, ufunc: np.ufunc, values: npt.NDArray[Any], start: Any) -> npt.NDArray[Any]:
        """Of each group, `ufunc` over its rows' values and `start`; in the dtype of the values."""
        if self._starts is not None:
            values = ufunc.reduceat(values, self._starts, dtype=values.dtype)
        found: npt.NDArray[Any] = np.full(self.total, start, dtype=values.dtype)
        ufunc.at(found, self._owners, values)
        return found

    def histogram(self, bins: npt.NDArray[np.integer[Any]], width: int) -> Integers:
        """(groups, width): how many rows have each bin."""
        counts = np.bincount(self.numbers * width + bins, minlength=self.total * width)
        return counts.astype(np.int64, copy=False).reshape(self.total, width)


def _columns(
    snapshot: Snapshot, positions: Positions, numbers: Integers, total: int
) -> dict[str, npt.NDArray[Any]]:
    """The columns of the groups, block by block of rows, which the processor's cache holds."""
    rows = max(BLOCK_ROWS, BLOCK_FACTOR * total)
    columns: dict[str, npt.NDArray[Any]] = {}
    for start in range(0, len(positions), rows):
        block = slice(start, start + rows)
        found = _block_columns(snapshot, positions[block], _Groups(numbers[block], total))
        for name, kind in COLUMNS.items():
            columns[name] = kind.join(columns[name], found[name]) if start else found[name]
    return columns


def _block_columns(
    snapshot: Snapshot, positions: Positions, groups: _Groups
) -> dict[str, npt.NDArray[Any]]:
    start_us = snapshot.columns["start_us"][positions]
    end_us = snapshot.columns["end_us"][positions]
    end_us[start_us == NO_START] = NO_LAST
    columns = {
        "tiles": np.bincount(groups.numbers, minlength=groups.total).astype(np.int64, copy=False),
        "bytes": groups.reduced(np.add, snapshot.columns["bytes"][positions], 0),
        # A row without time starts after all others: it needs no leaving out here.
        "time_first": groups.reduced(np.minimum, start_us, NO_FIRST),
        "time_last": groups.reduced(np.maximum, end_us, NO_LAST),
    }
    for measure in MEASURES:
        percent = snapshot.columns[measure][positions]
        for name, value in _measured(groups, percent).items():
            columns[f"{measure}_{name}"] = value
    return columns


def _measured(groups: _Groups, percent: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
    fixed = fixed_percent(percent)
    # All edges but 0 are exact in fixed point, as are the percentages next to them.
    bins = np.minimum(fixed // np.int32(BIN_PERCENT * FIXED_ONE), HISTOGRAM_BINS - 1)
    bins[np.isnan(percent)] = HISTOGRAM_BINS  # a bin more, of what is unknown
    counts = groups.histogram(bins, HISTOGRAM_BINS + 1)
    return {
        "sum": groups.reduced(np.add, fixed.astype(np.int64), 0),
        "min": groups.reduced(np.fmin, percent, np.nan),
        "max": groups.reduced(np.fmax, percent, np.nan),
        "unknown": counts[:, HISTOGRAM_BINS].copy(),
        "histogram": counts[:, :HISTOGRAM_BINS].copy(),
    }
