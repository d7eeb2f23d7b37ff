"""Native libraries that hostile bytes may crash, run in child processes and spoken to by pipes.

The HDF4 and HDF5 libraries parse pointers out of files and follow them: of 240 mutated HDF4
files one aborted the interpreter. So no such library is ever loaded into a process that
holds a store. One child serves one file and nothing else, since a library whose memory was
spoilt by one file may read the next one wrongly; several children of one file decode blocks
in parallel. A child that dies, hangs, floods or answers nonsense is an error of its file.

The children's side is `isolated_process`, what starts them `isolated_starter`. Messages: a frame
each way, `FRAME` and then JSON and raw bytes of the lengths that it states, each of them bounded
before it is read.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import struct
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from geostore.errors import InternalError, UnreadableSourceError
from geostore.scenes.isolated_starter import how_it_ended, starter

__all__ = ["FRAME", "HEADER_BYTES_MAX", "MAGIC", "Answer", "IsolatedFile"]

FRAME = struct.Struct("<4sIIQ")
"""Magic, number of the request, bytes of JSON, bytes after it."""
MAGIC = b"gsI1"
HEADER_BYTES_MAX = 1 << 24
"""JSON of one message: a file's whole metadata at most."""
REQUEST_S_MAX = 30.0
"""Damaged files make HDF5 search without end, at full speed; what is sound takes seconds."""
MEMORY_BYTES_MAX = 1 << 30
"""What a child may take above what it needs to start."""
CHILDREN_MAX = 4
"""Children a file, at most one a core: beyond that decoding gets no faster."""

_READ_BYTES = 1 << 20
_EXIT_S_MAX = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a child answered: JSON, and bytes where the request asked for some."""

    value: dict[str, Any]
    payload: bytearray


class _GoneError(Exception):
    """The child broke off; its text completes "the HDF4 library ..."."""


class _Child:
    """One child process, used by one thread at a time."""

    def __init__(self, module: str, descriptor: int, memory_bytes_max: int) -> None:
        self._asked = 0
        self._is_reaped = False
        self._starter = starter(module, memory_bytes_max)
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        try:
            self.pid, self._generation = self._starter.start((requests, answers, descriptor))
        except BaseException:
            os.close(self._requests)
            os.close(self._answers)
            raise
        finally:
            os.close(requests)
            os.close(answers)
        with suppress(AttributeError, OSError):  # Linux; a block then takes few turns
            fcntl.fcntl(self._answers, fcntl.F_SETPIPE_SZ, _READ_BYTES)
        os.set_blocking(self._answers, False)
        os.set_blocking(self._requests, False)

    def ask(self, request: dict[str, Any], payload_bytes_max: int, limit_s: float) -> Answer:
        """Raises _GoneError: no whole and sensible answer came in time."""
        deadline = time.monotonic() + limit_s
        self._asked = (self._asked + 1) % (1 << 32)
        text = json.dumps({**request, "limit_s": limit_s}).encode()
        if len(text) > HEADER_BYTES_MAX:
            raise InternalError(f"request of {len(text)} bytes to a child")
        self._write(FRAME.pack(MAGIC, self._asked, len(text), 0) + text, deadline)
        magic, number, header_bytes, payload_bytes = FRAME.unpack(self._read(FRAME.size, deadline))
        if magic != MAGIC or number != self._asked:
            raise _GoneError("gave an answer that is none")
        if header_bytes > HEADER_BYTES_MAX or payload_bytes > payload_bytes_max:
            raise _GoneError(
                f"gave an answer of {header_bytes + payload_bytes} bytes, more than was asked for"
            )
        try:
            value = json.loads(bytes(self._read(header_bytes, deadline)))
        except (ValueError, RecursionError) as error:
            raise _GoneError("gave an answer that is none") from error
        if not isinstance(value, dict):
            raise _GoneError("gave an answer that is none")
        return Answer(value, self._read(payload_bytes, deadline))

    def _wait(self, descriptor: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not poll.poll(max(1, int(left_s * 1000))):
            raise _GoneError("gave no answer in time")

    def _write(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            self._wait(self._requests, select.POLLOUT, deadline)
            try:
                view = view[os.write(self._requests, view) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise _GoneError("") from error

    def _read(self, size: int, deadline: float) -> bytearray:
        data = bytearray(size)
        view, at = memoryview(data), 0
        while at < size:
            self._wait(self._answers, select.POLLIN, deadline)
            try:
                got = os.readv(self._answers, [view[at : at + _READ_BYTES]])
            except BlockingIOError:
                continue
            if not got:
                raise _GoneError("")
            at += got
        return data

    def end(self) -> None:
        """Kill the child, if it lives."""
        os.close(self._requests)
        os.close(self._answers)
        if not self._is_reaped:  # its id may be another process's by now
            self._starter.end(self.pid, self._generation)

    def exit_text(self) -> str:
        """How a child that closed its pipes ended, `SIGSEGV`; it is dying, so waits a little."""
        deadline = time.monotonic() + _EXIT_S_MAX
        while time.monotonic() < deadline:
            status = self._starter.look(self.pid, self._generation)
            if status is not None:
                self._is_reaped = True
                return how_it_ended(status)
            time.sleep(0.002)
        return ""

    def forget(self) -> None:
        """In a forked child of this process: leave the reading process to its parent."""
        os.close(self._requests)
        os.close(self._answers)


class IsolatedFile:
    """One file, read by a native library in child processes. Thread-safe.

    Children start when they are first needed and end with `close`; where this process ends
    without it they see their pipes closed and end by themselves, after what they are doing
    and 60 s at the latest. In a forked process the file starts children of its own.

    Args:
        module: what a child runs, `geostore.scenes.hdf4_process`.
        library: for messages, `HDF4`.
        name: the file as the user knows it, for messages.
        path: where it is, asked for at the first request (an archive's member is unpacked
            then) and the first after `rest`; children read it by the descriptor, whatever
            becomes of the path.
        on_close: called once, when the file is closed.
    """

    def __init__(
        self,
        module: str,
        *,
        library: str,
        name: str,
        path: Callable[[], str],
        on_close: Callable[[], None] | None = None,
        children_max: int | None = None,
        request_s_max: float = REQUEST_S_MAX,
        memory_bytes_max: int = MEMORY_BYTES_MAX,
    ) -> None:
        self.name = name
        self._module = module
        self._library = library
        self._path = path
        self._on_close = on_close
        self._request_s_max = request_s_max
        self._memory_bytes_max = memory_bytes_max
        self._children_max = children_max or min(CHILDREN_MAX, os.cpu_count() or 1)
        self._descriptor = -1
        self._users = 1
        self._busy: set[_Child] = set()
        self._idle: list[_Child] = []
        self._changed = threading.Condition()
        _OPEN.add(self)

    def ask(self, request: dict[str, Any], *, payload_bytes_max: int = 0) -> Answer:
        """A child's answer to `request`, which is anything that JSON holds.

        Raises:
            UnreadableSourceError: the child says that the file is bad, or it died, was
                silent for too long, or gave no sensible answer.
        """
        child = self._take()
        is_good = False
        try:
            answer = child.ask(request, payload_bytes_max, self._request_s_max)
            is_good = "error" not in answer.value
        except _GoneError as gone:
            raise UnreadableSourceError(f"{self.name}: {self._text(gone, child)}") from None
        finally:
            self._give_back(child, is_good=is_good)
        if not is_good:
            raise UnreadableSourceError(f"{self.name}: {str(answer.value['error'])[:1000]}")
        return answer

    def _text(self, gone: _GoneError, child: _Child) -> str:
        if str(gone) == "gave no answer in time":
            return f"the {self._library} library gave no answer within {self._request_s_max:g} s"
        if str(gone):
            return f"the {self._library} library {gone}"
        how = child.exit_text()
        return f"the {self._library} library crashed on it" + (f" ({how})" if how else "")

    def _take(self) -> _Child:
        with self._changed:
            while True:
                if self._users < 1:
                    raise InternalError(f"{self.name}: read after close")
                if self._idle:
                    child = self._idle.pop()
                    break
                if len(self._busy) < self._children_max:
                    child = self._start()
                    break
                self._changed.wait()
            self._busy.add(child)
        return child

    def _start(self) -> _Child:
        if self._descriptor < 0:
            try:
                self._descriptor = os.open(self._path(), os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise UnreadableSourceError(f"{self.name}: {error.strerror or error}") from error
        try:
            return _Child(self._module, self._descriptor, self._memory_bytes_max)
        except OSError as error:
            raise UnreadableSourceError(
                f"{self.name}: the {self._library} library: {error.strerror or error}"
            ) from error

    def _give_back(self, child: _Child, *, is_good: bool) -> None:
        with self._changed:
            self._busy.discard(child)
            keep = is_good and self._users > 0
            if keep:
                self._idle.append(child)
            self._changed.notify()
        if not keep:  # after an error the library's state is anyone's guess
            child.end()

    @property
    def children(self) -> tuple[int, ...]:
        """Process ids of the children there are."""
        with self._changed:
            return tuple(sorted(child.pid for child in (*self._busy, *self._idle)))

    def retain(self) -> None:
        """One more user; each calls `close` once."""
        with self._changed:
            if self._users < 1:
                raise InternalError(f"{self.name}: used after close")
            self._users += 1

    def rest(self) -> None:
        """End the children that have nothing to do; the next request starts one, and asks for
        the path again.
        """
        with self._changed:
            idle, self._idle = self._idle, []
            descriptor = -1
            if not self._busy:
                descriptor, self._descriptor = self._descriptor, -1
        for child in idle:
            child.end()
        if descriptor >= 0:
            os.close(descriptor)

    def close(self) -> None:
        """One user less; the last one ends the children."""
        with self._changed:
            self._users -= 1
            if self._users > 0:
                return
            idle, self._idle = self._idle, []
            descriptor, self._descriptor = self._descriptor, -1
            on_close, self._on_close = self._on_close, None
            self._changed.notify_all()
        for child in idle:
            child.end()
        if descriptor >= 0:
            os.close(descriptor)
        if on_close is not None:
            on_close()

    def forget_children(self) -> None:
        """In a forked process: the parent's children, and its threads' locks, are not ours."""
        children = (*self._busy, *self._idle)
        self._changed = threading.Condition()
        self._busy, self._idle = set(), []
        for child in children:
            child.forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


_OPEN: weakref.WeakSet[IsolatedFile] = weakref.WeakSet()


def _forget_all_in_child() -> None:
    for file in list(_OPEN):
        file.forget_children()


os.register_at_fork(after_in_child=_forget_all_in_child)
