"""`geostore node`, to be killed at a named step: `steered_node.py ORDERS LEASE_S ARGUMENTS…`.

When a step is reached whose name the file ORDERS holds, the file is removed and the process
killed: so that a test arms a running node. LEASE_S is how long ingesters may be silent. The
process ends when its standard input does: none outlives the test that started it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geostore.node import leases


def steer(orders: Path, lease_s: float) -> None:
    """Gives every disk of this process its seam, and homes their lease."""
    leases.LEASE_S = lease_s  # type: ignore[misc]
    from geostore.node.disk import Disk
    from geostore.server import ring_keeper

    ring_keeper.BUSY_PERIOD_S = ring_keeper.IDLE_PERIOD_S = min(lease_s / 2, 1.0)

    def reached(name: str) -> None:
        try:
            wanted = orders.read_text()
        except FileNotFoundError:
            return
        if wanted == name:
            orders.unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    made: Callable[..., None] = Disk.__init__

    def make(disk: Disk, *_: Any, **__: Any) -> None:
        made(disk, reached)

    Disk.__init__ = make  # type: ignore[method-assign]


def end_with_input() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_input, daemon=True).start()
    steer(Path(sys.argv[1]), float(sys.argv[2]))
    sys.argv[1:] = sys.argv[3:]
    from geostore_cli.main import main

    main()
