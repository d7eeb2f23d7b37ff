"""What a long command says on stderr while it works: a bar on a terminal, else a few lines."""

from __future__ import annotations

import sys
import time
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

    def update(self, description: str, done: int, total: int | None, note: str) -> None:
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
        self._skipped = 0
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
        if self._skipped and error is None:
            named = "" if self._session.verbosity > 0 else " (-v names them)"
            files = f"file{'' if self._skipped == 1 else 's'}"
            self._session.note(f"skipped {self._skipped} {files} that no reader claims{named}")

    def __call__(self, progress: IngestProgress) -> None:
        """One step of the scene under way."""
        name = PurePath(progress.path).name
        note = f"cells, {progress.tiles} tiles, {bytes_text(progress.bytes)}"
        if self._bar.shown:
            self._bar.update(_shortened(name), progress.cells_done, progress.cells_total, note)
        elif time.monotonic() - self._spoken_s >= LINE_INTERVAL_S:
            self._spoken_s = time.monotonic()
            self._session.note(f"{name}: {progress.cells_done} of {progress.cells_total} {note}")

    def close(self) -> None:
        """All scenes are done: makes room for their table."""
        self._bar.stop()

    def finished(self, result: SceneResult) -> None:
        """One scene's end, in a line; a failure is said even with -q."""
        self._spoken_s = time.monotonic()
        status = str(result.status)
        if status == "failed":
            self._bar.say(self._session, f"error: {result.error}", always=True)
            return
        name = result.scene or PurePath(result.path).name
        if status == "skipped":
            # A folder may hold thousands of other files: they are counted, and named with -v.
            self._skipped += 1
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
            text = (
                f"{status} {name} in {result.dataset}: {_tiles(result.tiles)},"
                f" {bytes_text(result.bytes)}, {result.seconds:.1f} s"
            )
        if result.missing:
            text += f"; missing bands: {', '.join(result.missing)}"
        self._bar.say(self._session, text)


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


def _shortened(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:24]}…{name[-15:]}"
