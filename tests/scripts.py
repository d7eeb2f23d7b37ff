"""Pieces of Python that run in processes of their own, and are talked with by lines."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Scripts:
    """Scripts that all begin with the same lines; any warning is an error there."""

    head: str

    def _command(self, code: str, arguments: tuple[object, ...]) -> list[str]:
        text = textwrap.dedent(self.head) + textwrap.dedent(code)
        return [sys.executable, "-W", "error", "-c", text, *map(str, arguments)]

    def run(self, code: str, *arguments: object) -> str:
        """What it printed; it must end well within a minute."""
        done = subprocess.run(
            self._command(code, arguments),
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, code: str, *arguments: object) -> subprocess.Popen[str]:
        """One that goes on beside the test: `ask`, `finish`."""
        return subprocess.Popen(
            self._command(code, arguments),
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def ask(process: subprocess.Popen[str], word: str) -> str:
    """A line for the script to read; the line that it printed then."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(word + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def finish(process: subprocess.Popen[str]) -> None:
    """Waits for its end, with nothing more to read."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    process.wait(30)
