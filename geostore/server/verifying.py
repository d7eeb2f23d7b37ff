"""Verification as a stream: its course, its findings, its end; a word every few seconds."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

from geostore.errors import UnavailableError
from geostore.rpc.reports import problem_to_wire
from geostore.rpc.v1 import node_pb2
from geostore.types.report import Progress, VerifyReport

__all__ = ["HEARTBEAT_S", "Verifying"]

HEARTBEAT_S = 5.0
"""A message comes at least so often: a caller may take much longer silence for a fault."""
_RETRY_S = 60.0

Verify = Callable[[Progress], VerifyReport]


class Verifying:
    """A node's verifications, one at a time: each reads everything there is."""

    def __init__(self, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._heartbeat_s = heartbeat_s
        self._busy = threading.Lock()

    def answer(
        self, verify: Verify, check: Callable[[], None]
    ) -> Iterator[node_pb2.VerifyNodeResponse]:
        """The messages of one verification. `check` raises when nobody waits for it any more;
        the reading then ends, as it does when this iterator is closed.

        Raises UnavailableError: another one is under way.
        """
        if not self._busy.acquire(blocking=False):
            raise UnavailableError("this node is being verified already", retry_after_s=_RETRY_S)
        try:
            yield from self._messages(verify, check)
        finally:
            self._busy.release()

    def _messages(
        self, verify: Verify, check: Callable[[], None]
    ) -> Iterator[node_pb2.VerifyNodeResponse]:
        run = _Run(verify)
        run.thread.start()
        try:
            while run.has_news(self._heartbeat_s):
                check()
                yield node_pb2.VerifyNodeResponse(progress=run.progress)
        finally:
            run.is_unwanted.set()
            run.thread.join()
        report = run.report()
        for problem in report.problems:
            yield node_pb2.VerifyNodeResponse(problem=problem_to_wire(problem))
        end = node_pb2.VerifyEnd(
            tiles=report.tiles, bytes=report.bytes, problems_total=len(report.problems)
        )
        yield node_pb2.VerifyNodeResponse(end=end)


class _Run:
    """One verification in a thread of its own, so that its caller hears of it meanwhile."""

    def __init__(self, verify: Verify) -> None:
        self._verify = verify
        self.thread = threading.Thread(target=self._work, name="geostore-verifying", daemon=True)
        self.is_unwanted = threading.Event()
        self.progress = node_pb2.VerifyProgress()
        self._news: queue.Queue[None] = queue.Queue(maxsize=1)
        self._ended = threading.Event()
        self._report: VerifyReport | None = None
        self._error: BaseException | None = None

    def has_news(self, timeout_s: float) -> bool:
        """Waits for news, not longer than `timeout_s`; False: it has ended."""
        with suppress(queue.Empty):
            self._news.get(timeout=timeout_s)
        return not self._ended.is_set()

    def report(self) -> VerifyReport:
        """Of a run that has ended. Raises what the verification raised."""
        if self._error is not None:
            raise self._error
        assert self._report is not None
        return self._report

    def _work(self) -> None:
        try:
            self._report = self._verify(self._note)
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self._error = error
        self._ended.set()
        self._tell()

    def _note(self, done: int, total: int) -> None:
        if self.is_unwanted.is_set():
            raise UnavailableError("the verification was given up: nobody waits for it")
        self.progress = node_pb2.VerifyProgress(tiles_done=done, tiles_total=total)
        self._tell()

    def _tell(self) -> None:
        with suppress(queue.Full):  # the last news is not fetched yet: one look shows both
            self._news.put_nowait(None)
