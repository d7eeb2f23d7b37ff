"""Processes of this machine that outlive the one that started them.

A pid alone says nothing later: the system gives it to somebody else. So a process is known by
its pid and the moment of its birth, and is never signalled unless both still agree.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LocalProcess", "birth_of", "start_detached"]

PS_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class LocalProcess:
    """One process, told apart from later ones of the same pid."""

    pid: int
    birth: str
    """What `birth_of` said when it was started."""

    def is_alive(self) -> bool:
        """It runs. A child of ours that has ended is reaped on the way."""
        if birth_of(self.pid) != self.birth:
            return False
        try:
            ended, _ = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return True  # not our child, and birth_of knows no ended ones but ours
        return ended == 0

    def signal(self, number: signal.Signals) -> bool:
        """Sends a signal; False: it has ended. SIGKILL goes to its whole session's group."""
        if not self.is_alive():
            return False
        send = os.killpg if number is signal.SIGKILL else os.kill
        with suppress(ProcessLookupError):
            send(self.pid, number)
            return True
        return False


def birth_of(pid: int) -> str | None:
    """A text that names when the process `pid` began; None: there is none, or it is dead.

    A child of ours that ended and was not waited for has a birth still.
    """
    return _birth_by_proc(pid) if Path("/proc/self/stat").exists() else _birth_by_ps(pid)


def _birth_by_proc(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    # The command's name stands in parentheses and may hold any character: split behind it.
    state, *rest = stat.rpartition(b")")[2].split()
    parent, start_ticks = int(rest[0]), int(rest[18])
    if state in (b"Z", b"X") and parent != os.getpid():
        return None
    return f"{boot}/{start_ticks}"


def _birth_by_ps(pid: int) -> str | None:
    """As the portable `ps` tells it: to the second, which with the pid is enough."""
    done = subprocess.run(  # noqa: S603 - a fixed command
        ["/bin/ps", "-o", "ppid=,stat=,lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PS_TIMEOUT_S,
        env={"LC_ALL": "C", "TZ": "UTC"},
    )
    fields = done.stdout.split()
    if done.returncode != 0 or len(fields) < 3:
        return None
    if fields[1].startswith("Z") and fields[0] != str(os.getpid()):
        return None
    return " ".join(fields[2:])


def start_detached(
    command: Sequence[str],
    *,
    stdout: Path,
    stderr: Path,
    started: Callable[[LocalProcess], None],
) -> LocalProcess:
    """Starts `command` in a session of its own, with its output in files.

    `stdout` begins empty, `stderr` goes on where it ended. `started` hears of the process
    before Ctrl-C can come between: whoever cleans up must know it.

    Raises:
        OSError: the program or a file cannot be opened.
    """
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(stdout), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644),
        (os.POSIX_SPAWN_OPEN, 2, str(stderr), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
    ]
    is_main = threading.current_thread() is threading.main_thread()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT] if is_main else [])
    try:
        # Not subprocess: its Popen warns when it is dropped before its process has ended.
        pid = os.posix_spawn(
            command[0],
            list(command),
            os.environ,
            file_actions=actions,
            setsid=True,
            setsigmask=mask,
            setsigdef=[signal.SIGINT, signal.SIGTERM],
        )
        birth = birth_of(pid)
        assert birth is not None, f"our child {pid} is not in the process table of {sys.platform}"
        process = LocalProcess(pid, birth)
        started(process)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return process
