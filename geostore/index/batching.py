"""Group commit: callers that wait for the disk at the same time share one fsync."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["GroupCommit"]

Item = TypeVar("Item")
Result = TypeVar("Result")

GROUP_MAX = 256
"""Submissions in one transaction; bounds its size."""


@dataclass(slots=True, eq=False)
class _Submission(Generic[Item, Result]):
    item: Item
    done: bool = False
    result: Result | None = None
    error: BaseException | None = field(default=None)


class GroupCommit(Generic[Item, Result]):
    """Turns single submissions into batches for `commit`.

    The first caller that finds nobody at work leads: it commits everything that waits, its
    own included, until nothing does. The others wait for the leader. While one batch is on
    its way to the disk the next gathers, so no timer is needed. The queue is bounded by the
    callers, each of which waits.

    If a batch fails its submissions are committed one by one, so that each caller gets its
    own error and nobody another's.
    """

    def __init__(self, commit: Callable[[Sequence[Item]], Sequence[Result]]) -> None:
        self._commit = commit
        self._changed = threading.Condition()
        self._waiting: list[_Submission[Item, Result]] = []
        self._leading = False

    def submit(self, item: Item) -> Result:
        """Commits `item`, durably when it returns; raises what `commit` raised for it."""
        submission: _Submission[Item, Result] = _Submission(item)
        with self._changed:
            self._waiting.append(submission)
            while self._leading and not submission.done:
                self._changed.wait()
            if not submission.done:
                self._leading = True
        if not submission.done:
            self._lead(submission)
        if submission.error is not None:
            raise submission.error
        assert submission.result is not None
        return submission.result

    def _lead(self, own: _Submission[Item, Result]) -> None:
        """Until the leader's own submission is done; then whoever waits next leads."""
        try:
            while not own.done:
                with self._changed:
                    batch = self._waiting[:GROUP_MAX]
                    del self._waiting[: len(batch)]
                self._run(batch)
                with self._changed:
                    for submission in batch:
                        submission.done = True
                    self._changed.notify_all()
        finally:
            with self._changed:
                self._leading = False
                self._changed.notify_all()

    def _run(self, batch: list[_Submission[Item, Result]]) -> None:
        try:
            results = self._commit([submission.item for submission in batch])
            for submission, result in zip(batch, results, strict=True):
                submission.result = result
        except Exception as error:  # noqa: BLE001 - each submission gets its own below
            if len(batch) == 1:
                batch[0].error = error
                return
            for submission in batch:
                self._run([submission])
        except BaseException as error:
            # Ctrl-C in the leader: nobody may wait for a result that will not come.
            for submission in batch:
                submission.error = error
            raise
