"""Which rows an expression is true of, whatever form the rows have."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from geostore.query.expression import (
    AllOf,
    AnyOf,
    Expression,
    IsNull,
    Not,
    NullableColumn,
    OneOf,
    Predicate,
    TimeOverlaps,
    Within,
)

__all__ = ["Facts", "Mask", "evaluate", "unknown_with"]

Mask = npt.NDArray[np.bool_]


class Facts(Protocol):
    """What an evaluator has to know of some rows: whoever holds rows in a form of its own, packed
    columns or codes of interned values, answers these two questions from it.

    Masks have one entry a row. They are read only, so one may be given out several times.
    """

    def holds(self, predicate: Predicate) -> Mask:
        """The rows of which a predicate is true: neither false nor unknown."""

    def known(self, column: NullableColumn) -> Mask:
        """The rows whose value in a column is known."""


def unknown_with(predicate: Predicate) -> NullableColumn | None:
    """The column without whose value a predicate is unknown; None: it never is."""
    match predicate:
        case TimeOverlaps():
            return "time"
        case Within(column="cloud" | "time" | "time_end" as column):
            return column
        case OneOf(column="platform"):
            return "platform"
        case _:
            return None


def evaluate(expression: Expression, facts: Facts) -> Mask:
    """The rows of which an expression is true, by the logic of `geostore.query.expression`."""
    return _rows(expression, facts, truth=True)


def _rows(expression: Expression, facts: Facts, *, truth: bool) -> Mask:
    """The rows of which an expression is known to be true, or known to be false.

    A third value needs no array: each of the two is asked for where it is needed, and
    what is in neither is unknown.
    """
    match expression:
        case Not(part):
            return _rows(part, facts, truth=not truth)
        case AllOf() | AnyOf():
            return _joined(expression, facts, truth=truth)
        case IsNull(column):
            known = facts.known(column)
            return ~known if truth else known
        case _:
            holds = facts.holds(expression)
            if truth:
                return holds
            nullable = unknown_with(expression)
            return ~holds if nullable is None else ~holds & facts.known(nullable)


def _joined(expression: AllOf | AnyOf, facts: Facts, *, truth: bool) -> Mask:
    # All parts are true, or a part of any is false: De Morgan's laws hold for the three values.
    every = isinstance(expression, AllOf) == truth
    first, *others = expression.parts
    mask = _rows(first, facts, truth=truth)
    for part in others:
        if not mask.any() if every else mask.all():
            break
        found = _rows(part, facts, truth=truth)
        mask = mask & found if every else mask | found
    return mask
