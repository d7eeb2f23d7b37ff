"""A catalog's directory as this process holds it: the log, the state that it amounts to, snapshots.

What lies in the directory:

    log/        segments and head (`index.log`)
    snapshots/  the two newest (`index.snapshots`)
    log.lock    held by the one process that writes, for the length of a change

One `Home` a directory and process: `Home.share`. Everything that was synced is taken in by
replaying frames, one's own as well as those of other processes, so that memory is always what the
next opening would make of the files. Changes are decided against that, appended, synced, and only
then taken in: nobody sees what could still be lost.
"""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

from geostore.errors import (
    CorruptDataError,
    GeostoreError,
    ReadOnlyError,
    StoreFormatError,
    UnavailableError,
)
from geostore.index.cleaning import is_mostly_dead, keep_from, live_bytes, moved
from geostore.index.conversion import convert, has_old_catalog, put_in_place
from geostore.index.effects import CHANGE, Abandon, Effect, ValueAt, encode
from geostore.index.log import START, LogDroppedError, LogReader, LogWriter
from geostore.index.log_disk import hold_at_fork, sync_directory, translate
from geostore.index.log_layout import REBUILD
from geostore.index.memory import TAIL_FRACTION, TAIL_ROWS, Memory, View
from geostore.index.operations import Decision
from geostore.index.snapshot_file import (
    newest_snapshots,
    open_snapshot,
    sound_snapshot,
    write_snapshot,
)
from geostore.index.snapshots import compacted, image_of, restored
from geostore.index.state import Records, State
from geostore.index.upkeep import Upkeep

__all__ = ["LOCK_FILE", "LOG_DIRECTORY", "SNAPSHOT_DIRECTORY", "Home"]

logger = logging.getLogger(__name__)

LOG_DIRECTORY: Final = "log"
SNAPSHOT_DIRECTORY: Final = "snapshots"
LOCK_FILE: Final = "log.lock"

REPLAY_S_MAX: Final = 0.5
"""A snapshot is written when what came since the last one takes longer to replay."""
BUILDS_MAX: Final = 3
"""How often structures are made for a snapshot that much comes in under."""
FRAME_S: Final = 60e-6
ROW_S: Final = 1e-6
BYTE_S: Final = 0.2e-9
"""What replaying costs, about."""

Result = TypeVar("Result")

_registry: dict[str, Home] = {}
_registry_lock = threading.RLock()


class Home:
    """One open catalog directory. Methods may be called from any thread.

    `lock` guards the state; `write_lock`, taken first, lets one thread at a time change it.
    """

    def __init__(self, directory: Path, *, writable: bool, create: bool = True) -> None:
        self.directory = directory
        self.lock = threading.RLock()
        self.write_lock = threading.RLock()
        self._users = 0
        self._is_writable = False
        self._pid = os.getpid()
        self._lock_fd = -1
        self._writer: LogWriter | None = None
        self._state: State | None = None
        self._records = Records(self.view_at)
        self._view: View | None = None
        self._is_taking_in = False
        self._cost_s = 0.0
        """Of replaying what came since the last snapshot."""
        self._snapshot_row_id = 1
        """The first row id that it, or a structure in it, does not have."""
        self._finished_bytes = -1
        """Of the log's segments but the last."""
        self._finished_upto = 0
        """The last segment, when these were counted."""
        self._clean_from_bytes = 0
        """A log of fewer bytes is not cleaned: it was tried, to no avail."""
        self._other_live_bytes = 0
        """What was alive besides rows' details, when it was counted last."""
        self._held: Memory | None = None
        self._upkeep = Upkeep(self)
        self.is_rebuilding = False
        self._converted: tempfile.TemporaryDirectory[str] | None = None
        self._log = directory / LOG_DIRECTORY
        if not (writable and create) and not self._log.is_dir() and not has_old_catalog(directory):
            raise StoreFormatError(f"{directory}: no catalog here ({LOG_DIRECTORY} is missing)")
        hold_at_fork(self)
        try:
            if writable:
                self._make_writable()
            elif not self._log.is_dir():
                self._convert_aside()
            self._reader = LogReader(self._log)
            self._catch_up()
            if writable:
                self._recover()
        except BaseException:
            self._release()
            raise

    # ------------------------------------------------------------ sharing

    @classmethod
    def share(cls, directory: Path, *, writable: bool, create: bool = True) -> Home:
        """The process's home of a directory, opened at the first call.

        `writable` makes the log where there is none (`create`), and makes a home writable that
        was opened for reading only.

        Raises:
            StoreFormatError: there is no catalog (and it is not made), or it is of a newer format.
            CorruptDataError: it is damaged.
            ReadOnlyError: no permission.
            StorageFullError: no room to make it.
        """
        name = os.path.realpath(directory)
        with _registry_lock:
            home = _registry.get(name)
            if home is None or not home.is_current() or (writable and home.is_aside):
                # A directory that was deleted and made again has its own new home; holders of
                # the old one keep theirs.
                home = _registry[name] = cls(Path(name), writable=writable, create=create)
            elif writable:
                home._become_writable()
            home._users += 1
            return home

    @property
    def is_aside(self) -> bool:
        """Whether it reads a copy, since its catalog is of an older format."""
        return self._converted is not None

    def is_current(self) -> bool:
        """Whether the directory's path still leads here."""
        if self.is_aside:
            return has_old_catalog(self.directory)
        return self._reader.is_current()

    def release(self) -> None:
        """Undoes one `share`; the last one closes the files."""
        with _registry_lock:
            self._users -= 1
            if self._users > 0:
                return
            if _registry.get(str(self.directory)) is self:
                del _registry[str(self.directory)]
        self._upkeep.stop()
        self._release()

    def _release(self) -> None:
        with self.write_lock:
            if self._writer is not None:
                if os.getpid() == self._pid:
                    with suppress(GeostoreError), self._alone():
                        self._writer.close(tidy=self._is_at_end(self._writer))
                else:
                    self._writer.close(tidy=False)
                self._writer = None
            if hasattr(self, "_reader"):
                self._reader.close()
            # With these go the maps, unless somebody still reads an answer.
            self._state, self._view, self._records = None, None, Records(self.view_at)
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1
            if self._converted is not None and os.getpid() == self._pid:
                self._converted.cleanup()

    def _become_writable(self) -> None:
        with self.write_lock:
            if not self._is_writable:
                self._make_writable()
                self._recover()

    def _make_writable(self) -> None:
        try:
            if not self.directory.is_dir():
                self.directory.mkdir(parents=True, exist_ok=True)
                sync_directory(self.directory.parent)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._lock_fd = os.open(self.directory / LOCK_FILE, flags, 0o666)
        except OSError as error:
            raise translate(error, f"catalog {self.directory}") from error
        self._is_writable = True
        try:
            with self._alone():
                if has_old_catalog(self.directory):
                    put_in_place(self.directory, self._log)
                elif not self._log.is_dir() or not any(self._log.iterdir()):
                    self._writer = LogWriter(self._log)
        except BaseException:
            self._is_writable = False
            raise

    def _recover(self) -> None:
        """Takes in what a writer that died left, so that no decision is made without it."""
        with self.write_lock, self._alone():
            self.refresh()
            if not self._reader.has_head or self._reader.has_unsynced():
                self._current_writer()

    def _convert_aside(self) -> None:
        """A reader may not change the directory: it has a log of its own while it reads."""
        self._converted = tempfile.TemporaryDirectory(prefix="geostore-catalog-")
        self._log = Path(self._converted.name) / LOG_DIRECTORY
        logger.warning(
            "catalog=%s is of an older format; open it once for writing to convert it for good",
            self.directory,
        )
        convert(self.directory, self._log)

    # ------------------------------------------------------------ reading

    def view_at(self, at: ValueAt) -> memoryview:
        """Bytes of the log, on its map."""
        return self._reader.view(*at)

    @property
    def records(self) -> Records:
        """The records as they were last read; looked up without the lock."""
        return self._records

    def refresh(self) -> View:
        """What queries look at, up to date: one read of memory if nothing came."""
        # In this order: a thread that takes news in has said so before they are none any more, and
        # says that it is done when its view is there.
        if not self._reader.has_news() and not self._is_taking_in:
            view = self._view
            if view is not None:
                return view
        with self.lock:
            return self._catch_up()

    @contextmanager
    def reading(self) -> Iterator[State]:
        """The state, up to date and locked."""
        with self.lock:
            self._catch_up()
            assert self._state is not None
            yield self._state

    def _catch_up(self) -> View:
        """Caller holds the lock."""
        view = self._view
        if self._state is not None and view is not None and not self._reader.has_news():
            return view
        self._is_taking_in = True
        try:
            self._take_in()
            assert self._state is not None
            self._records = self._state.records
            view = self._view = self._state.contents.memory.view()
        finally:
            self._is_taking_in = False
        return view

    def _take_in(self) -> None:
        if self._state is None:
            self._load()
        try:
            self._replay()
        except LogDroppedError:  # another process wrote a snapshot and dropped what was before
            self._load()
            self._replay()

    def _replay(self) -> None:
        state = self._state
        assert state is not None
        end = self._reader.refresh()
        if (end.sequence, end.chain) == (state.position.sequence, state.position.chain):
            return
        if end.segment != self._finished_upto:
            self._count_finished(end.segment)
        if end.sequence <= state.position.sequence:
            raise CorruptDataError(
                f"catalog {self.directory}: the log ends with frame {end.sequence}, but frame"
                f" {state.position.sequence} had been read: acknowledged changes are lost;"
                f" {REBUILD}"
            )
        rows = state.next_row_id
        frames, begin = state.position.sequence, time.perf_counter()
        try:
            for frame in self._reader.frames(state.position, end):
                state.apply(frame)
                self._cost_s += len(frame.payload) * BYTE_S
        except BaseException:
            # What was taken in so far is whole only frame by frame: begin anew next time.
            self._state = self._view = None
            raise
        frames = end.sequence - frames
        self._cost_s += frames * FRAME_S + (state.next_row_id - rows) * ROW_S
        if frames > 1:
            took_s = time.perf_counter() - begin
            logger.debug(
                "catalog=%s replayed frames=%d took_s=%.3f", self.directory, frames, took_s
            )
        if state.contents.memory.is_mostly_dead and state.building is None:
            self._state = compacted(state)

    def _load(self) -> None:
        """Begins anew with the newest sound snapshot, or with nothing. Caller holds the lock."""
        self._view = None
        self._cost_s = 0.0
        self._state = self._restored()
        self._snapshot_row_id = _first_row_id_lacking(self._state)

    def _restored(self) -> State:
        """The state as of the newest sound snapshot; an empty one where there is none."""
        found, damaged = sound_snapshot(self.directory / SNAPSHOT_DIRECTORY, self._reader.log_id)
        for problem in damaged:
            logger.warning("catalog=%s a snapshot is left out: %s", self.directory, problem)
        if found is not None:
            return restored(self.view_at, found.position, found.meta, found.sections)
        first = min(self._reader.sizes())
        if first > 1:
            raise CorruptDataError(
                f"catalog {self.directory}: no sound snapshot, and the log begins with segment"
                f" {first}: what was before is lost; {REBUILD}"
            )
        return State(self.view_at)

    # ------------------------------------------------------------ writing

    def require_writable(self) -> None:
        """
        Raises:
            ReadOnlyError: opened for reading only, or by the process that this is a fork of.
        """
        if not self._is_writable:
            raise ReadOnlyError(f"catalog {self.directory}: opened for reading only")
        if os.getpid() != self._pid:
            raise ReadOnlyError(
                f"catalog {self.directory}: opened for writing by process {self._pid}, of which"
                " this one is a fork; only that one may write"
            )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Held while this process writes. Caller holds the write lock."""
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    def _is_at_end(self, writer: LogWriter) -> bool:
        """Whether nobody wrote since. Caller is alone."""
        return writer.failure is None and self._reader.refresh() == writer.position

    def _current_writer(self) -> LogWriter:
        """Caller is alone; the state is up to date when this returns."""
        writer = self._writer
        if writer is not None and writer.failure is not None:
            raise ReadOnlyError(
                f"catalog {self.directory}: read-only since {writer.failure}; check the disk and"
                " open the store again"
            )
        self.refresh()
        assert self._state is not None
        if writer is None or writer.position != self._state.position:
            if writer is not None:
                writer.close(tidy=False)
                self._writer = None
            after = self._state.position
            self._writer = writer = LogWriter(self._log, after=after)
            self.refresh()
        return writer

    def write(self, decide: Callable[[State], Decision[Result]]) -> Result:
        """Makes a change durable and then seen; returns what was decided to tell.

        Raises:
            ReadOnlyError: an earlier fsync failed, or this one did; nothing more is written.
            StorageFullError: the disk is full; nothing changed.
        """
        self.require_writable()
        with self.write_lock:
            if not self.is_current():
                raise UnavailableError(
                    f"catalog {self.directory}: another was put in its place; open the store again"
                )
            with self._alone():
                writer = self._current_writer()
                if self._is_rebuild_cut_off:
                    self._append(writer, [Abandon()])
                assert self._state is not None
                decision = decide(self._state)
                if decision.effects:
                    self._append(writer, decision.effects)
            self._upkeep.look()
            return decision.result

    @property
    def _is_rebuild_cut_off(self) -> bool:
        """Whether a process died in a rebuild."""
        state = self._state
        return state is not None and state.building is not None and not self.is_rebuilding

    def _append(self, writer: LogWriter, effects: Sequence[Effect]) -> None:
        writer.append(CHANGE, encode(effects))
        writer.sync()
        self.refresh()

    # ------------------------------------------------------------ upkeep

    def is_snapshot_due(self) -> bool:
        """Whether what came since the last snapshot takes long to replay."""
        return self._cost_s > REPLAY_S_MAX and not self.is_rebuilding

    def is_snapshot_worthwhile(self) -> bool:
        """Whether a new process would have to bring the snapshot's structures up to date."""
        state = self._state
        if state is None or not self._is_writable or os.getpid() != self._pid:
            return False
        came = state.next_row_id - self._snapshot_row_id
        return came > max(TAIL_ROWS, state.contents.memory.columns.count // TAIL_FRACTION)

    def is_behind(self) -> bool:
        """Whether enough came for the structures to be brought up to date."""
        view = self._view
        return view is not None and view.is_behind

    def bring_up(self) -> None:
        """Takes what came into the structures that queries use."""
        self.refresh().bring_up()

    @contextmanager
    def _keeping(self) -> Iterator[bool]:
        """Held while snapshots are written; whether it is (not while another process has it)."""
        self.require_writable()
        directory = self.directory / SNAPSHOT_DIRECTORY
        if not directory.is_dir():
            directory.mkdir(exist_ok=True)
            sync_directory(self.directory)  # segments are deleted in trust of what lies there
        lock = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(lock)

    def snapshot(self) -> bool:
        """Writes one; whether it did. Not while a rebuild is under way, or another writes one.

        Raises:
            StorageFullError, ReadOnlyError: it could not be written; nothing was changed.
        """
        with self._keeping() as is_mine:
            if not is_mine or not self._write_snapshot():
                return False
        self._drop_segments()
        return True

    def _write_snapshot(self) -> bool:
        """Caller keeps others from it."""
        for _ in range(BUILDS_MAX):
            view = self.refresh()
            view.build_all()
            view.memory.row_bitmaps.fill(view.snapshot, self.view_at)
            if not self.refresh().is_behind:
                break  # else much came meanwhile; it takes less time each time
        with self.reading() as state:
            if state.building is not None or state.position == START:
                return False
            position = state.position
            meta, sections = image_of(state)
            memory, rows = state.contents.memory, state.contents.memory.columns.snapshot()
            self._cost_s = 0.0
            self._snapshot_row_id = _first_row_id_lacking(state)
        sections |= memory.row_bitmaps.image(rows)
        self._remove_damaged()
        directory = self.directory / SNAPSHOT_DIRECTORY
        path = write_snapshot(directory, self._reader.log_id, position, meta, sections)
        written = open_snapshot(path, self._reader.log_id, verify=False)
        memory.row_bitmaps.adopt(rows, written.sections)
        logger.info("catalog=%s snapshot=%s rows=%d", self.directory, path.name, rows.live)
        return True

    def _count_finished(self, last: int) -> None:
        sizes = self._reader.sizes()
        self._reader.forget(min(sizes))
        self._finished_bytes = sum(size for number, size in sizes.items() if number < last)
        self._finished_upto = last

    def is_cleaning_due(self) -> bool:
        """Whether more than half of the log is dead."""
        state = self._state
        if state is None or self.is_rebuilding or self._finished_bytes < 0:
            return False
        log_bytes = self._finished_bytes + state.position.offset
        live = state.contents.memory.columns.details_bytes + self._other_live_bytes
        return log_bytes >= self._clean_from_bytes and is_mostly_dead(log_bytes, live)

    def clean(self) -> bool:
        """Moves what is alive out of the oldest segments and deletes them; whether it did.

        Others write between its steps. A process that dies on the way loses nothing: what was
        moved lies in two places, and the next cleaning goes on.

        Raises:
            StorageFullError, ReadOnlyError: as `write`; nothing was lost.
            CorruptDataError: a record or a scene's entry is damaged.
        """
        with self._keeping() as is_mine:
            if not is_mine:
                return False
            sizes = self._log_sizes()
            before = sum(sizes.values())
            # Whatever comes of it, no other attempt until the log has grown.
            self._clean_from_bytes = before + before // 4
            with self.reading() as state:
                live = live_bytes(state)
                alive = sum(live.values())
                self._other_live_bytes = alive - state.contents.memory.columns.details_bytes
            if not is_mostly_dead(before, alive):
                return False
            first = keep_from(sizes, live)
            with self.write_lock, self._alone():
                self._current_writer().begin_segment()
            while self.write(lambda state: _move(state, first)):
                pass
            # Two, as two are kept: neither needs what goes.
            if not self._write_snapshot():
                return False
            self._append_nothing()
            if not self._write_snapshot():
                return False
        self._drop_segments()
        after = sum(self._log_sizes().values())
        if after < before:
            self._clean_from_bytes = 0
        logger.info("catalog=%s cleaned log_bytes=%d before=%d", self.directory, after, before)
        return True

    def _log_sizes(self) -> dict[int, int]:
        """Segment to bytes, without what is reserved behind the last one's frames."""
        with self.reading() as state:
            end = state.position
        return {**self._reader.sizes(), end.segment: end.offset}

    def _append_nothing(self) -> None:
        """A frame that changes nothing: snapshots of before and after are told apart."""
        with self.write_lock, self._alone():
            self._append(self._current_writer(), [])

    def _remove_damaged(self) -> None:
        """Deletes the snapshots in front of the newest sound one: they would count as kept."""
        directory = self.directory / SNAPSHOT_DIRECTORY
        found, damaged = sound_snapshot(directory, self._reader.log_id)
        for path in newest_snapshots(directory)[: len(damaged)]:
            if found is None or path != found.path:
                logger.warning("catalog=%s damaged snapshot=%s removed", self.directory, path.name)
                path.unlink(missing_ok=True)

    def _drop_segments(self) -> None:
        """Deletes the segments that no kept snapshot needs."""
        directory = self.directory / SNAPSHOT_DIRECTORY
        needed = [
            open_snapshot(path, self._reader.log_id, verify=False).meta["first_segment"]
            for path in sorted(directory.glob("*.snap"))
        ]
        with self.write_lock, self._alone():
            dropped = self._current_writer().drop_before(min(needed))
        if dropped:
            with self.lock:
                self._count_finished(self._finished_upto)
            logger.info("catalog=%s dropped segments=%s", self.directory, dropped)

    # ------------------------------------------------------------ whole

    def check_files(self) -> list[str]:
        """What is wrong with the log and the snapshots, one sentence each."""
        found = self._reader.check()
        _, damaged = sound_snapshot(self.directory / SNAPSHOT_DIRECTORY, self._reader.log_id)
        return found + damaged

    def replayed(self, state: State) -> State:
        """The state made anew from the files, up to where `state` is: for checks."""
        made = self._restored()
        if made.position.sequence > state.position.sequence:  # another process wrote it just now
            made = State(self.view_at)
        for frame in self._reader.frames(made.position, state.position):
            made.apply(frame)
        return made

    def hold_for_fork(self) -> None:
        """In the child, where only the forking thread lives on, no lock is another's."""
        self.write_lock.acquire()
        self.lock.acquire()
        self._held = None if self._state is None else self._state.contents.memory
        if self._held is not None:
            self._held.hold_for_fork()

    def resume_after_fork(self) -> None:
        """Undoes `hold_for_fork`."""
        if self._held is not None:
            self._held.resume_after_fork()
        self.lock.release()
        self.write_lock.release()


def _first_row_id_lacking(state: State) -> int:
    """The first row that some structure does not have."""
    memory = state.contents.memory
    return memory.columns.row_id(memory.indexed_upto(), state.next_row_id)


def _move(state: State, before: int) -> Decision[bool]:
    """Some of what is alive in the segments before `before`; whether anything was."""
    effects = moved(state, before) if state.building is None else []
    return Decision(effects, bool(effects))
