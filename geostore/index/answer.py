"""The rows of a query in order: all of them, or the first behind a cursor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geostore.index.columns import Positions
from geostore.index.memory import View
from geostore.index.ordering import behind, in_pieces
from geostore.index.planner import first_rows, select
from geostore.query import Cursor, Explain, Query, stage_of

__all__ = ["Answer", "Found"]


@dataclass(frozen=True, slots=True)
class Found:
    """The rows of an answer, which are put in order as they are asked for."""

    total: int
    pieces: Iterator[Positions]
    """All rows in order, the first of them soon."""

    def batches(self, batch_rows: int) -> Iterator[tuple[Positions, bool]]:
        """At most `batch_rows` at a time, each with whether they are the last; to be asked once."""
        given = 0
        for piece in self.pieces:
            for start in range(0, len(piece), batch_rows):
                batch = piece[start : start + batch_rows]
                given += len(batch)
                yield batch, given == self.total


class Answer:
    """The rows of a query in order, behind a cursor, as many as it wants."""

    def __init__(
        self,
        view: View,
        q: Query,
        explain: Explain | None = None,
        after: Cursor | None = None,
    ) -> None:
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
        pieces = self.found(slots, row_slots).pieces
        return np.concatenate([np.empty(0, np.int64), *pieces])

    def found(
        self,
        slots: frozenset[int] | None = None,
        row_slots: npt.NDArray[np.uint16] | None = None,
    ) -> Found:
        """As `rows`. All are found now; they are put in order piece by piece, whenever the next one
        is asked for.

        Raises: as `rows`.
        """
        positions = self._first(slots, row_slots)
        if positions is None:
            selected = select(self._view, self._q, self._explain, slots=slots, row_slots=row_slots)
            positions = self._behind(selected.positions)
        self._say_order(len(positions))
        limit = self._q.limit
        total = len(positions) if limit is None else min(limit, len(positions))
        return Found(total, self._ordered(positions))

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
        return behind(self._view.snapshot, positions, self._after)

    def _say_order(self, found: int) -> None:
        explain, limit = self._explain, self._q.limit
        if explain is None:
            return
        if self._after is not None:
            explain.add("resume", "after the cursor", actual_rows=found)
        explain.add("sort", self._q.sort or "time", actual_rows=found)
        if limit is not None:
            explain.add("limit", str(limit), actual_rows=min(limit, found))

    def _ordered(self, positions: Positions) -> Iterator[Positions]:
        pieces = in_pieces(self._view.snapshot, positions, self._q.sort, self._q.limit)
        while True:
            with stage_of(self._explain, "order"):
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece
