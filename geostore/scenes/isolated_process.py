"""The children's side of `isolated`: answers requests about one file until the parent goes.

Imports nothing heavy: a child starts as fast as Python and its one library do.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from geostore.scenes.isolated import FRAME, HEADER_BYTES_MAX, MAGIC
from geostore.scenes.isolated_starter import COMMAND, END, REPLY, RUNNING, START

__all__ = ["Handler", "serve"]

Handler = Callable[[str, dict[str, Any]], tuple[dict[str, Any], Any]]
"""(path of the file, request) to (answer, bytes-like payload or None)."""

_SOCKET = 3
"""Of the process that forks."""
_REQUESTS, _ANSWERS, _FILE = 3, 4, 5
"""Of a child."""
_GRACE_S = 5.0


def serve(load: Callable[[], Handler], memory_bytes_max: int) -> int:
    """Load the library and fork children that answer, until the parent goes; the exit status.

    Args:
        load: imports the library and gives what answers requests; each child has a copy of its
            own. Any exception of either is told to the parent as the file's error.
        memory_bytes_max: what a child may take above what it begins with.
    """
    os.closerange(_SOCKET + 1, 1 << 16)  # what C code of the parent left open to children
    handler: Handler | None = None
    problem = ""
    try:
        handler = load()
    except Exception as error:  # noqa: BLE001 - told to the parent
        problem = f"cannot load the library: {type(error).__name__}: {error}"
    with socket.socket(fileno=_SOCKET) as parent:
        while True:
            text, descriptors, _, _ = socket.recv_fds(parent, COMMAND.size, 3)
            if len(text) != COMMAND.size:
                return 0
            what, pid = COMMAND.unpack(text)
            reply = pid
            if what == START:
                reply = os.fork()
                if reply == 0:
                    _be_child(descriptors, handler, problem, memory_bytes_max)
                for descriptor in descriptors:
                    os.close(descriptor)
            else:
                reply = _wait(pid, kill=what == END)
            parent.sendall(REPLY.pack(reply))


def _wait(pid: int, *, kill: bool) -> int:
    """The wait status of a child, RUNNING while it runs; 0 of one that was waited for before."""
    try:
        if kill:
            os.kill(pid, signal.SIGKILL)
        ended, status = os.waitpid(pid, 0 if kill else os.WNOHANG)
    except (ChildProcessError, ProcessLookupError):
        return 0
    return status if ended else RUNNING


def _be_child(
    descriptors: list[int], handler: Handler | None, problem: str, memory_bytes_max: int
) -> NoReturn:
    """The child's life, from its fork to its end."""
    status = 1
    try:
        high = [fcntl.fcntl(one, fcntl.F_DUPFD, _FILE + 1) for one in descriptors]
        for at, descriptor in enumerate(high, start=_REQUESTS):
            os.dup2(descriptor, at)
        os.closerange(_FILE + 1, 1 << 16)
        _limit(memory_bytes_max)
        _answer_all(handler, problem)
        status = 0
    finally:
        os._exit(status)  # nothing of the process that was forked is tidied up here


def _answer_all(handler: Handler | None, problem: str) -> None:
    while True:
        head = _read(FRAME.size)
        if head is None:
            return
        _, number, size, _ = FRAME.unpack(head)
        text = _read(size)
        if text is None:
            return
        request = json.loads(text)
        # The parent kills a child that is late. Where the parent has gone, this does.
        signal.setitimer(signal.ITIMER_REAL, float(request["limit_s"]) + _GRACE_S)
        payload: Any = None
        if handler is None:
            answer = {"error": problem}
        else:
            answer, payload = _answer(handler, request)
        if not _send(number, answer, payload):
            return
        signal.setitimer(signal.ITIMER_REAL, 0.0)


def _answer(handler: Handler, request: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    try:
        return handler(f"/dev/fd/{_FILE}", request)
    except MemoryError:
        return {"error": "reading it takes more memory than a file may have"}, None
    except Exception as error:  # noqa: BLE001 - told to the parent
        return {"error": str(error) or type(error).__name__}, None


def _limit(allowed: int) -> None:
    """Bound the address space to what is used now and the allowance on top."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return  # a system without /proc: the time limit has to do
    limit = pages * os.sysconf("SC_PAGE_SIZE") + allowed
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # a reader writes no file


def _read(size: int) -> bytes | None:
    """`size` bytes of requests; None where the parent has closed its end."""
    if size > HEADER_BYTES_MAX:
        sys.exit(2)
    data = b""
    while len(data) < size:
        more = os.read(_REQUESTS, size - len(data))
        if not more:
            return None
        data += more
    return data


def _send(number: int, answer: dict[str, Any], payload: Any) -> bool:
    """False: nobody listens any more."""
    view = memoryview(payload if payload is not None else b"").cast("B")
    text = json.dumps(answer).encode()
    if len(text) > HEADER_BYTES_MAX:
        text = json.dumps({"error": f"its metadata takes {len(text)} bytes"}).encode()
        view = memoryview(b"")
    try:
        _write(memoryview(FRAME.pack(MAGIC, number, len(text), len(view)) + text))
        _write(view)
    except BrokenPipeError:
        return False
    return True


def _write(view: memoryview) -> None:
    while view:
        view = view[os.write(_ANSWERS, view) :]
