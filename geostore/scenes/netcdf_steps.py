"""The time steps of a netCDF file: what makes its scenes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from geostore.errors import InvalidInputError
from geostore.scenes.netcdf_cf import Variable, missing_numbers
from geostore.scenes.netcdf_times import step_name, times_us
from geostore.types import TimeSpan

__all__ = ["Step", "spans", "spans_between", "stated_span", "step_order", "step_suffix"]

_Span = tuple[int | None, int | None]


@dataclass(frozen=True, slots=True)
class Step:
    """One time of a file: what makes a scene."""

    start_us: int | None
    end_us: int | None
    again: int
    """How many steps before it have the same time."""


def spans(variable: Variable, values: npt.NDArray[Any]) -> list[_Span]:
    """First and last microsecond of each of a time variable's values: instants."""
    moments = times_us(
        _numbers(variable, values), variable.text("units"), variable.text("calendar") or None
    )
    return [(moment, moment) for moment in moments]


def spans_between(variable: Variable, bounds: Variable, values: npt.NDArray[Any]) -> list[_Span]:
    """First and last microsecond of each of a time variable's intervals (section 7.1).

    Bounds have the variable's unit and calendar, whatever they say themselves.
    """
    calendar = variable.text("calendar") or None
    both = times_us(_numbers(bounds, values), variable.text("units"), calendar)
    return [_span(*_sorted_pair(pair)) for pair in zip(both[::2], both[1::2], strict=True)]


def step_order(step: Step) -> tuple[bool, int, int, int]:
    """By time; those without one first."""
    return (step.start_us is not None, step.start_us or 0, step.end_us or 0, step.again)


def step_suffix(step: Step, number: int, *, whole_days: bool) -> str:
    """What tells a step's scene from the file's others, but for those that begin as it does."""
    if step.start_us is None:
        return f"-step{number + 1}"
    return f"-{step_name(step.start_us, whole_days=whole_days)}"


def _sorted_pair(pair: tuple[int | None, int | None]) -> tuple[int | None, int | None]:
    """Bounds may be stored last first."""
    first, second = pair
    if first is None or second is None:
        return None, None
    return min(first, second), max(first, second)


def _span(start: int | None, end: int | None) -> tuple[int | None, int | None]:
    """An interval ends with the microsecond before its bound, as a day does."""
    if start is None or end is None:
        return None, None
    return start, max(start, end - 1)


def _numbers(variable: Variable, values: npt.NDArray[Any]) -> list[int | float]:
    """A time variable's values, NaN where they are missing."""
    flat = values.ravel()
    valid = missing_numbers(variable).valid(flat)
    numbers: list[int | float] = flat.tolist()
    scale, offset = variable.number("scale_factor", 1.0), variable.number("add_offset", 0.0)
    if (scale, offset) != (1.0, 0.0):
        numbers = [one * scale + offset for one in numbers]
    if valid is None:
        return numbers
    return [one if good else float("nan") for one, good in zip(numbers, valid, strict=True)]


def stated_span(attributes: dict[str, Any]) -> TimeSpan | None:
    """The span that a file's attributes state (Attribute Convention for Data Discovery)."""
    ends = []
    for name in ("time_coverage_start", "time_coverage_end"):
        value = attributes.get(name)
        try:
            ends.append(TimeSpan.parse(value.strip()) if isinstance(value, str) else None)
        except InvalidInputError:
            ends.append(None)
    first, last = ends
    if first is None:
        return None
    if last is None or last.end_us is None or first.start_us is None:
        return first
    return TimeSpan(first.start_us, last.end_us) if first.start_us <= last.end_us else first
