"""The command line, stopped at a named step: `steered_cli.py STEP THERE GO ARGUMENTS…`.

At the first such step one byte is written to the file descriptor THERE, and one byte read
from GO before anything goes on: so that a test signals a real process at a known moment.
Another byte is written when the ingest was told to stop: a signal has arrived.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from geostore.ingest import schedule
from geostore.ingest.turns import Turns
from geostore.node.disk import Disk
from geostore_cli.main import main


def steer(wanted: str, there: int, go: int) -> None:
    """Makes every disk and every decoding thread of this process stop at the step `wanted`."""

    def reached(name: str) -> None:
        nonlocal wanted
        if name == wanted:
            wanted = ""
            os.write(there, b"x")
            os.read(go, 1)

    made: Callable[..., None] = Disk.__init__
    decode = schedule.decode

    def make(disk: Disk, *_: Any, **__: Any) -> None:
        made(disk, reached)

    def decode_then_stop(*arguments: Any) -> Any:
        chunk = decode(*arguments)
        reached("decode")
        return chunk

    def stop_and_say(turns: Turns) -> None:
        stop(turns)
        if wanted == "":
            os.write(there, b"x")

    stop = Turns.stop
    Turns.stop = stop_and_say  # type: ignore[method-assign]
    Disk.__init__ = make  # type: ignore[method-assign]
    schedule.decode = decode_then_stop


if __name__ == "__main__":
    steer(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    sys.argv[1:] = sys.argv[4:]
    main()
