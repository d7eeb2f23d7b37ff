"""A query as one node is asked it: which of its slots, behind which row."""

from __future__ import annotations

from dataclasses import dataclass

from geostore.query.order import Cursor
from geostore.query.value import Query

__all__ = ["LeafQuery"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafQuery:
    """What a coordinator asks of one node."""

    query: Query
    slots: frozenset[int] | None = None
    """Only tiles of these slots; None: of all that the node holds (one replica a slot)."""
    after: Cursor | None = None
    """Only rows behind this one; `query.limit` counts from there."""
    batch_rows: int = 4096
