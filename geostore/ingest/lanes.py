"""Several sources at once, their results in the order of the sources.

Each source is worked on by a thread of its own (a lane), which waits for the store and for
the threads that decode and warp. Whoever iterates hears of results and of progress; where it
stops, or is interrupted, every lane gives up its scene and ends before the iteration does.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace

from geostore.ingest.turns import StoppedError, Turns
from geostore.scenes import FoundSource
from geostore.types import IngestProgress, SceneResult

__all__ = ["Lane", "run_lanes"]

_AHEAD_MAX = 1024
"""How far later sources may run ahead of the earliest one in work: bounds results held."""
_LISTEN_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Lane:
    """What the work on one source reports to."""

    source: int
    """Its number: results come out in this order."""
    found: FoundSource
    result: Callable[[SceneResult], None]
    report: Callable[[IngestProgress], None]


@dataclass(slots=True)
class _Source:
    """A source in work, as the collecting thread sees it."""

    results: deque[SceneResult] = field(default_factory=deque)
    has_ended: bool = False


@dataclass(frozen=True, slots=True)
class _Ended:
    source: int
    error: BaseException | None


class _Course:
    """The messages between lanes and the thread that iterates."""

    def __init__(self, work: Callable[[Lane], None], turns: Turns) -> None:
        self._work = work
        self._turns = turns
        self._messages: queue.SimpleQueue[_Ended | tuple[int, SceneResult] | int] = (
            queue.SimpleQueue()
        )
        self._steps: dict[int, IngestProgress] = {}
        self._steps_lock = threading.Lock()

    def lane(self, source: int, found: FoundSource) -> None:
        """Run in a lane's thread."""

        def report(step: IngestProgress) -> None:
            with self._steps_lock:
                is_news = source not in self._steps
                self._steps[source] = step
            if is_news:  # else the last message about it was not read yet, and will say this
                self._messages.put(source)

        error: BaseException | None = None
        try:
            self._work(Lane(source, found, lambda one: self._messages.put((source, one)), report))
        except StoppedError:
            pass
        except BaseException as caught:  # noqa: BLE001 - raised where the results are read
            error = caught
            self._turns.stop()
        finally:
            self._turns.forget(source)
        self._messages.put(_Ended(source, error))

    def next(self) -> _Ended | tuple[int, SceneResult] | IngestProgress:
        """Waits for what a lane has to say."""
        while True:
            # Not without end: a signal that arrives just before the wait begins is seen by
            # Python only when the wait is over.
            with suppress(queue.Empty):
                message = self._messages.get(timeout=_LISTEN_SECONDS)
                break
        if isinstance(message, int):
            with self._steps_lock:
                return self._steps.pop(message)
        return message


def run_lanes(
    sources: Iterable[FoundSource],
    work: Callable[[Lane], None],
    turns: Turns,
    *,
    lanes: int,
    sources_total: int,
    progress: Callable[[IngestProgress], None] | None,
) -> Generator[SceneResult]:
    """Yields what `work` makes of each source, in the sources' order.

    Args:
        work: called for each source, in its lane's thread; what it raises (but StoppedError)
            ends everything, after the scenes that are already stored were told.
        turns: stopped when this ends, however it does.
        lanes: how many sources are worked on at once.
        progress: called in the thread that iterates.
    """
    course = _Course(work, turns)
    left = iter(sources)
    open_sources: dict[int, _Source] = {}
    head = started = running = 0
    counts = _Counts(sources_total)
    failure: BaseException | None = None
    with ThreadPoolExecutor(lanes, thread_name_prefix="geostore-scene") as pool:
        try:
            while True:
                while running < lanes and started - head < _AHEAD_MAX and not turns.is_stopped:
                    found = next(left, None)
                    if found is None:
                        break
                    open_sources[started] = _Source()
                    pool.submit(course.lane, started, found)
                    started, running = started + 1, running + 1
                if not running:
                    break
                message = course.next()
                if isinstance(message, IngestProgress):
                    if progress is not None:
                        progress(counts.step(message))
                    continue
                if isinstance(message, _Ended):
                    running -= 1
                    failure = failure or message.error
                    open_sources[message.source].has_ended = True
                    counts.sources_done += 1
                else:
                    counts.result(message[1])
                    open_sources[message[0]].results.append(message[1])
                while head in open_sources and failure is None:
                    yield from _taken(open_sources[head])
                    if not open_sources[head].has_ended:
                        break
                    del open_sources[head]
                    head += 1
            for source in sorted(open_sources):
                yield from _taken(open_sources[source])
        finally:
            turns.stop()
    if failure is not None:
        raise failure


def _taken(source: _Source) -> Generator[SceneResult]:
    while source.results:
        yield source.results.popleft()


class _Counts:
    """Sums over all scenes, for progress."""

    def __init__(self, sources_total: int) -> None:
        self.sources_total = sources_total
        self.sources_done = 0
        self._scenes_done = 0
        self._tiles = 0
        self._bytes = 0
        self._in_work: dict[tuple[str, str], IngestProgress] = {}

    def step(self, step: IngestProgress) -> IngestProgress:
        """`step` with what is true of the whole ingest."""
        self._in_work[step.path, step.scene] = step
        return replace(
            step,
            scenes_done=self._scenes_done,
            sources_done=self.sources_done,
            sources_total=self.sources_total,
            stored_tiles=self._tiles + sum(one.tiles for one in self._in_work.values()),
            stored_bytes=self._bytes + sum(one.bytes for one in self._in_work.values()),
        )

    def result(self, result: SceneResult) -> None:
        last = self._in_work.pop((result.path, result.scene or ""), None)
        if last is not None:
            self._tiles += last.tiles
            self._bytes += last.bytes
        self._scenes_done += 1
