"""Batches of an answer, of which the last may be known for the last when it comes.

Whoever sends or merges rows works on when it has the next batch or knows that there is none. The
second is known long before it is asked for: a catalog has counted its rows, a node has said it in
the same message. Then three short answers are merged at once, and sent in one message.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Self

from geostore.types import RowBatch

__all__ = ["Batches", "LastTold", "is_over"]

LastTold = Generator[tuple[RowBatch, bool], None, None]
"""Batches, each with whether it is known to be the last."""


class Batches(Iterator[RowBatch]):
    """What a generator makes, as an iterator that `is_over` can be asked about.

    Closing it closes the generator.
    """

    def __init__(self, made: LastTold) -> None:
        self._made = made
        self.is_over = False
        """Whether no row follows those that were given. False says nothing."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> RowBatch:
        batch, self.is_over = next(self._made)
        return batch

    def close(self) -> None:
        self._made.close()


def is_over(batches: Iterator[RowBatch]) -> bool:
    """Whether it is known already that no row follows those that `batches` gave.

    Where it is not, one that is asked for the next batch may wait long to hear it.
    """
    return bool(getattr(batches, "is_over", False))
