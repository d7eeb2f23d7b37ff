"""The rows of a query in order: all of them, or the first behind a cursor."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geostore.index.columns import Columns, Positions
from geostore.index.memory import View
from geostore.index.ordering import behind, first_in_order, in_order
from geostore.index.planner import first_rows, select
from geostore.query import Cursor, Explain, Query, stage_of

__all__ = ["Answer"]


class Answer:
    """The rows of a query in order, behind a cursor, as many as it wants."""

    def __init__(
        self,
        columns: Columns,
        view: View,
        q: Query,
        explain: Explain | None = None,
        after: Cursor | None = None,
    ) -> None:
        self._columns = columns
        self._view = view
        self._q = q
        self._explain = explain
        self._after = after

    def rows(
        self,
        slots: frozenset[int] | None = None,
        row_slots: npt.NDArray[np.uint16] | None = None,
    ) -> Positions:
        """Positions in the view's snapshot, in order; with `slots`, of rows that lie there.

        Raises:
            CorruptDataError: a row would be asked for its slot, and its dataset has none.
        """
        positions = self._first(slots, row_slots)
        if positions is None:
            selected = select(self._view, self._q, self._explain, slots=slots, row_slots=row_slots)
            positions = self._behind(selected.positions)
        with stage_of(self._explain, "order"):
            return self._ordered(positions)

    def _first(
        self, slots: frozenset[int] | None, row_slots: npt.NDArray[np.uint16] | None
    ) -> Positions | None:
        """Enough rows to have the first in order; None where all have to be found."""
        limit = self._q.limit
        if not limit:
            return None
        return first_rows(
            self._view,
            self._q,
            limit,
            self._explain,
            after=self._after,
            keep=self._behind,
            slots=slots,
            row_slots=row_slots,
        )

    def _behind(self, positions: Positions) -> Positions:
        if self._after is None or not len(positions):
            return positions
        return behind(self._columns, self._view.snapshot, positions, self._after)

    def _ordered(self, positions: Positions) -> Positions:
        limit, sort, explain = self._q.limit, self._q.sort, self._explain
        if explain is not None:
            if self._after is not None:
                explain.add("resume", "after the cursor", actual_rows=len(positions))
            explain.add("sort", sort or "time", actual_rows=len(positions))
        snapshot = self._view.snapshot
        if limit is None:
            return in_order(self._columns, snapshot, positions, sort)
        positions = first_in_order(self._columns, snapshot, positions, sort, limit)
        if explain is not None:
            explain.add("limit", str(limit), actual_rows=len(positions))
        return positions
