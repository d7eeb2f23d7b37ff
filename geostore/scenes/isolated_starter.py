"""Starts children of `isolated` quickly: a process that has loaded the library forks them.

Python, numpy and a library take 0.15 s of a core to load, which for a small file is as long as
everything else. So each library has one process here that loads it and touches no file; a
child is a fork of it, a few milliseconds, and as fresh as a process of its own would be. It
has no threads, so its forks are safe. It ends when this process does.
"""

from __future__ import annotations

import array
import atexit
import fcntl
import os
import signal
import socket
import struct
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from geostore.errors import InternalError

__all__ = ["COMMAND", "END", "LOOK", "REPLY", "RUNNING", "START", "Starter", "starter"]

COMMAND = struct.Struct("<cq")
"""What, and which child. A `START` comes with descriptors of requests, answers and the file."""
REPLY = struct.Struct("<q")
START, LOOK, END = b"s", b"l", b"e"
"""Fork a child: its process id. How did it end: its wait status, or RUNNING. Kill it."""
RUNNING = -1

ANSWER_S_MAX = 60.0
_LOWEST_DESCRIPTOR = 10

_CODE = """\
import sys
sys.path += [path for path in {paths!r} if path not in sys.path]
from {module} import main
sys.exit(main({memory_bytes_max}))
"""
"""What the process runs. It finds modules where we do, but never first, and nothing (`-P`) in
the current directory, which may hold anybody's files."""


class Starter:
    """The process that forks children of one module. Thread-safe.

    Raises:
        OSError: it cannot be started, or broke off; the text says how.
    """

    def __init__(self, module: str, memory_bytes_max: int) -> None:
        self._module = module
        self._memory_bytes_max = memory_bytes_max
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._pid = 0
        self._generation = 0

    def start(self, descriptors: tuple[int, int, int]) -> tuple[int, int]:
        """(process id, generation) of a new child, which has the descriptors as 3, 4 and 5."""
        with self._lock:
            for is_last in (False, True):
                if self._socket is None:
                    self._spawn()
                pid = self._ask(START, 0, descriptors)
                if pid is not None and pid > 0:
                    return pid, self._generation
                how = self._drop()
                if is_last or pid is not None:
                    raise OSError(f"the process that loads it ended ({how or 'no children'})")
        raise InternalError("unreachable")

    def look(self, pid: int, generation: int) -> int | None:
        """The wait status of a child that has ended; None while it runs, or where unknown."""
        return self._about(LOOK, pid, generation)

    def end(self, pid: int, generation: int) -> None:
        """Kill a child that may still run."""
        self._about(END, pid, generation)

    def _about(self, what: bytes, pid: int, generation: int) -> int | None:
        with self._lock:
            # Children of an earlier process see their pipes closed, and nobody else's id is
            # ever sent a signal.
            if self._socket is None or generation != self._generation:
                return None
            status = self._ask(what, pid, ())
            if status is None:
                self._drop()
            return None if status in (None, RUNNING) else status

    def _ask(self, what: bytes, pid: int, descriptors: tuple[int, ...]) -> int | None:
        """The answer; None: the process has gone, or gave none in time."""
        assert self._socket is not None
        rights = []
        if descriptors:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        try:
            self._socket.sendmsg([COMMAND.pack(what, pid)], rights)
            reply = self._socket.recv(REPLY.size, socket.MSG_WAITALL)
        except OSError:  # a timeout too
            return None
        return int(REPLY.unpack(reply)[0]) if len(reply) == REPLY.size else None

    def _spawn(self) -> None:
        """posix_spawn: safe beside threads, and its cost does not grow with our memory.

        Ctrl-C in a terminal reaches us alone: who is asked for a clean end must still be able
        to read.
        """
        if not sys.executable:
            raise InternalError("no sys.executable: native formats are read by child processes")
        paths = [path for path in sys.path if Path(path).is_absolute()]
        code = _CODE.format(
            paths=paths, module=self._module, memory_bytes_max=self._memory_bytes_max
        )
        # Threads that nobody uses would only reserve memory, and make forks unsafe.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        ours, theirs = socket.socketpair()
        high = -1
        try:
            high = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, _LOWEST_DESCRIPTOR)
            actions: list[tuple[Any, ...]] = [
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, high, 3),
            ]
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", "-c", code],
                environment,
                file_actions=actions,
                setpgroup=0,
                setsigmask=[],
                setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGPIPE],
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            if high >= 0:
                os.close(high)
        ours.settimeout(ANSWER_S_MAX)
        self._socket = ours
        self._generation += 1

    def _drop(self) -> str:
        """Let go of the process, which is to end; how it ended, `exit status 1`."""
        if self._socket is None:
            return ""
        self._socket.close()
        self._socket = None
        with suppress(ChildProcessError, ProcessLookupError):
            # It ends by itself when its socket closes; at the latest now.
            ended, status = os.waitpid(self._pid, os.WNOHANG)
            if not ended:
                os.kill(self._pid, signal.SIGKILL)
                _, status = os.waitpid(self._pid, 0)
            return how_it_ended(status)
        return ""  # somebody else in this process waits for any child

    def close(self) -> None:
        """End the process; its children go on until their pipes are closed."""
        with self._lock:
            self._drop()

    def forget(self) -> None:
        """In a forked process: the parent's process, and its threads' lock, are not ours."""
        self._lock = threading.Lock()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._generation += 1


def how_it_ended(status: int) -> str:
    """`SIGSEGV`, or `exit status 1`."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


_starters: dict[tuple[str, int], Starter] = {}
_starters_lock = threading.Lock()


def starter(module: str, memory_bytes_max: int) -> Starter:
    """This process's starter of a module's children."""
    with _starters_lock:
        return _starters.setdefault((module, memory_bytes_max), Starter(module, memory_bytes_max))


def _close_all() -> None:
    for one in list(_starters.values()):
        one.close()


def _forget_all_in_child() -> None:
    global _starters_lock  # noqa: PLW0603 - a thread that is not here may hold it
    _starters_lock = threading.Lock()
    for one in list(_starters.values()):
        one.forget()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forget_all_in_child)
