"""What a long command says on stderr while it works: a bar on a terminal, else a few lines."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import PurePath
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from geostore_cli.listing import bytes_text
from geostore_cli.session import Session, message

if TYPE_CHECKING:
    from geostore.types import IngestProgress, SceneResult

__all__ = ["IngestView", "StepView"]

LINE_INTERVAL_S = 10.0
"""Without a terminal, how long a scene may be silent."""
STATUSES = ("ingested", "unchanged", "planned", "failed")
FAILURES_REPEATED_MAX = 20
FAR_ABOVE = 20
"""Behind so many results a failure's own line is out of sight, and is said again."""


class _Bar:
    """A rich progress bar on stderr, or nothing where stderr is no terminal or -q was given."""

    def __init__(self, session: Session, *, wanted: bool = True) -> None:
        self.shown = wanted and sys.stderr.isatty() and not session.quiet
        self._progress: Any = None
        self._task: Any = None

    def start(self) -> None:
        if not self.shown:
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=Console(file=sys.stderr),
            transient=True,
        )
        self._task = self._progress.add_task("starting", total=None, note="")
        self._progress.start()

    def update(self, description: str, done: float, total: int | None, note: str) -> None:
        if self._progress is not None:
            self._progress.update(
                self._task, description=description, completed=done, total=total, note=note
            )

    def stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def say(self, session: Session, text: str, *, always: bool = False) -> None:
        """A line above the bar."""
        running = self._progress is not None
        if running:
            self._progress.stop()
        if always:
            message(text)
        else:
            session.note(text)
        if running:
            self._progress.start()


class IngestView:
    """The course of an ingest: call it with each IngestProgress, tell it each result.

    `bar` is false where rows go to the same terminal meanwhile: the two would overwrite
    each other.
    """

    def __init__(self, session: Session, *, bar: bool = True) -> None:
        self._session = session
        self._bar = _Bar(session, wanted=bar)
        self._begun_s = self._spoken_s = time.monotonic()
        self._in_work: dict[str, float] = {}
        """Share of each source in work that is done, by path."""
        self._counts: Counter[str] = Counter()
        self._tiles = 0
        self._bytes = 0
        self._failures: list[str] = []

    @property
    def ended(self) -> int:
        """Results so far."""
        return self._counts.total()

    @property
    def failed(self) -> int:
        """How many of them failed."""
        return self._counts["failed"]

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if error is None:
            self._sum_up()

    def __call__(self, progress: IngestProgress) -> None:
        """One step of a scene in work, or of the search for sources."""
        if progress.is_search:
            self._searched(progress)
            return
        self._in_work[progress.path] = progress.cells_done / max(1, progress.cells_total)
        name = PurePath(progress.path).name
        done = progress.sources_done + min(sum(self._in_work.values()), len(self._in_work))
        elapsed_s = max(time.monotonic() - self._begun_s, 1e-3)
        note = (
            f"{progress.stored_tiles:,} tiles, {bytes_text(progress.stored_bytes)},"
            f" {bytes_text(int(progress.stored_bytes / elapsed_s))}/s"
        )
        if self._bar.shown:
            if progress.sources_total <= 1:
                done, total, what = progress.cells_done, progress.cells_total, "cells"
            else:
                total, what = progress.sources_total, "sources"
            self._bar.update(_shortened(name), done, total, f"{what}, {note}")
        elif time.monotonic() - self._spoken_s >= LINE_INTERVAL_S:
            self._spoken_s = time.monotonic()
            whole = ""
            if progress.sources_total > 1:
                whole = f"{progress.sources_done} of {progress.sources_total} sources done; "
            left_s = elapsed_s * (progress.sources_total - done) / done if done > 0 else 0.0
            self._session.note(
                f"{whole}{name}: {progress.cells_done} of {progress.cells_total} cells; {note},"
                f" about {_duration(left_s)} left"
            )

    def _searched(self, progress: IngestProgress) -> None:
        found = f"{progress.sources_total:,} sources found so far"
        self._bar.update("searching", 0, None, found)
        if not self._bar.shown and time.monotonic() - self._spoken_s >= LINE_INTERVAL_S:
            self._spoken_s = time.monotonic()
            self._session.note(f"{found}; searching {PurePath(progress.path).parent}")

    def close(self) -> None:
        """All scenes are done: makes room for their table."""
        self._bar.stop()

    def finished(self, result: SceneResult) -> None:
        """One scene's end, in a line; a failure is said even with -q."""
        self._spoken_s = time.monotonic()
        self._in_work.pop(result.path, None)
        status = str(result.status)
        self._counts[status] += 1
        if status == "failed":
            if len(self._failures) < FAILURES_REPEATED_MAX:
                self._failures.append(str(result.error))
            self._bar.say(self._session, f"error: {result.error}", always=True)
            return
        name = result.scene or PurePath(result.path).name
        if status == "skipped":
            # A folder may hold thousands of other files: they are counted, and named with -v.
            if self._session.verbosity < 1:
                return
            text = f"skipped {result.path}: {result.error or 'no reader claims it'}"
        elif status == "planned":
            text = (
                f"would ingest {name} into {result.dataset}: at most {_tiles(result.tiles)},"
                f" {bytes_text(result.bytes)} before compression"
            )
            if result.oversampling is not None:
                text += f", {result.oversampling:.2f} pixels for each pixel of the source"
        else:
            if status == "ingested":
                self._tiles += result.tiles
                self._bytes += result.bytes
            text = (
                f"{status} {name} in {result.dataset}: {_tiles(result.tiles)},"
                f" {bytes_text(result.bytes)}, {result.seconds:.1f} s"
            )
        if result.missing:
            text += f"; missing bands: {', '.join(result.missing)}"
        self._bar.say(self._session, text)

    def _sum_up(self) -> None:
        """What became of all of it, where that is more than its last line said."""
        counts = self._counts
        if counts["skipped"]:
            named = "" if self._session.verbosity > 0 else " (-v names them)"
            files = f"file{'' if counts['skipped'] == 1 else 's'}"
            self._session.note(f"skipped {counts['skipped']} {files} that no reader claims{named}")
        told = [f"{counts[status]} {status}" for status in STATUSES if counts[status]]
        if sum(counts[status] for status in STATUSES) < 2:
            return
        elapsed_s = max(time.monotonic() - self._begun_s, 1e-3)
        stored = ""
        if counts["ingested"]:
            stored = (
                f"; {_tiles(self._tiles)}, {bytes_text(self._bytes)} in {_duration(elapsed_s)}"
                f" ({bytes_text(int(self._bytes / elapsed_s))}/s)"
            )
        self._session.note(f"{', '.join(told)}{stored}")
        if self._failures and self.ended > FAR_ABOVE:
            # Their own lines have scrolled away.
            for failure in self._failures:
                self._session.note(f"failed: {failure}")
            if self.failed > len(self._failures):
                self._session.note(f"and {self.failed - len(self._failures)} more failed")


class StepView:
    """A count of steps towards a total: `verify`, `export`."""

    def __init__(self, session: Session, verb: str) -> None:
        self._session = session
        self._verb = verb
        self._bar = _Bar(session)
        self._spoken_s = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def __call__(self, done: int, total: int | None) -> None:
        if self._bar.shown:
            self._bar.update(self._verb, done, total, "tiles")
        elif time.monotonic() - self._spoken_s >= LINE_INTERVAL_S:
            self._spoken_s = time.monotonic()
            self._session.note(f"{self._verb}: {done} of {total} tiles")


def _tiles(count: int) -> str:
    return f"{count:,} tile{'' if count == 1 else 's'}"


def _duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 5 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _shortened(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:24]}…{name[-15:]}"
