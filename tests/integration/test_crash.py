"""Invariants 1 and 8 under kill: whatever step a writer dies at, the store is whole.

By a seam, not by timing: the process ends (os._exit) at every named step of every write,
sync, rename, record change and publication of a play with two scenes, a replacement by fewer
cells, an abort and a deletion; every second time the recovery is killed as well.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "small_store.py"
MEMORY = Path("/dev/shm")


@pytest.fixture
def quick_directory(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: a killed process does not need real syncs."""
    if not (MEMORY.is_dir() and os.access(MEMORY, os.W_OK)):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="geostore-test-") as name:
        yield Path(name)


@pytest.mark.slow
def test_killed_at_every_step_the_store_is_whole(quick_directory: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "crash", quick_directory],
        check=False, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["wrong"] == []
    # The play must have walked over all there is to kill at.
    assert len(report["steps"]) > 200
    for step in (
        "create.renamed", "put.written", "put.fsynced", "put.renamed", "put.directory.fsynced",
        "staged", "record.staging.saved", "record.committed", "record.committed.saved",
        "commit.renamed", "publish", "publish.done", "clear.unstaged", "clear.unlinked",
        "record.aborted.saved", "delete.tombstoned", "delete.rows_removed", "delete.renamed",
    ):  # fmt: skip
        assert step in report["steps"]


def test_killed_from_outside_the_lock_is_free_and_a_rerun_completes(tmp_path: Path) -> None:
    store, log = tmp_path / "store", tmp_path / "log"
    wait = (
        "import sys, runpy; play = runpy.run_path(sys.argv[1])\n"
        "def step(name):\n"
        "    if name == 'record.committed': print('there', flush=True); sys.stdin.read()\n"
        "from pathlib import Path\n"
        "play['play_logged'](Path(sys.argv[2]), Path(sys.argv[3]), step)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", wait, SCRIPT, store, log],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as writer:  # fmt: skip
        assert writer.stdout is not None
        assert writer.stdout.readline() == "there\n"
        refused = subprocess.run(
            [sys.executable, SCRIPT, "play", store, log],
            check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert refused.returncode == 1
        assert f"is being written by process {writer.pid} on" in refused.stderr
        assert f"kill {writer.pid}" in refused.stderr
        writer.send_signal(signal.SIGKILL)
        assert writer.wait(timeout=60) == -signal.SIGKILL
    again = subprocess.run(
        [sys.executable, SCRIPT, "play", store, log],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert log.read_text().splitlines()[-1] == "b/s1 gone"
    shutil.rmtree(store)


def test_ctrl_c_during_an_ingest_leaves_the_store_fine(tmp_path: Path) -> None:
    store, log = tmp_path / "store", tmp_path / "log"
    interrupted = (
        "import os, signal, sys, runpy; play = runpy.run_path(sys.argv[1])\n"
        "left = [int(sys.argv[4])]\n"
        "def step(name):\n"
        "    left[0] -= 1\n"
        "    if left[0] == 0: os.kill(os.getpid(), signal.SIGINT)\n"
        "from pathlib import Path\n"
        "play['play_logged'](Path(sys.argv[2]), Path(sys.argv[3]), step)\n"
    )
    for number in (12, 25, 40, 61):
        done = subprocess.run(
            [sys.executable, "-c", interrupted, SCRIPT, store, log, str(number)],
            check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert "KeyboardInterrupt" in done.stderr
    check = (
        "import sys, runpy, json; play = runpy.run_path(sys.argv[1])\n"
        "from pathlib import Path\n"
        "print(json.dumps(play['check_after_crash'](Path(sys.argv[2]), Path(sys.argv[3]))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", check, SCRIPT, store, log],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
