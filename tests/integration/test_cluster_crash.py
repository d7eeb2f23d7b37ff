"""Invariants 1, 2, 7 and 8 under kill in a ring: whatever step a process dies at.

By seams, not by timing: every named step of every node's disk, catalog, records, ring file
and start, and every call of an ingester, is a place to die at; so is the first moment of the
life after that. A run takes some of the places. GEOSTORE_TEST_CRASH_EVERY=1 takes all, with
GEOSTORE_TEST_CRASH_SEED=0 to 3 in every way (`cluster_crash.WAYS`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("cluster_crash.py")
MEMORY = Path("/dev/shm")
EVERY = int(os.environ.get("GEOSTORE_TEST_CRASH_EVERY", "53"))
SEED = int(os.environ.get("GEOSTORE_TEST_CRASH_SEED", "0"))


@pytest.fixture
def quick_directory(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: a killed process does not need real syncs."""
    if not (MEMORY.is_dir() and os.access(MEMORY, os.W_OK)):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="geostore-test-") as name:
        yield Path(name)


def crash(directory: Path, every: int, planted: str = "") -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, SCRIPT, directory, str(every), str(SEED), planted],
        check=False, capture_output=True, text=True, timeout=3600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.slow
def test_killed_at_any_step_the_ring_is_whole(quick_directory: Path) -> None:
    report = crash(quick_directory, EVERY)
    assert report["wrong"] == []
    # The play must have walked over all there is to kill at.
    assert report["cases"] > 1000
    for step in (
        "create.renamed", "ring.renamed", "dataset.create.saved", "dataset.learn.saved",
        "record.staging", "record.staging.saved", "copy", "copy.saved", "mark", "mark.saved",
        "put.written", "put.fsynced", "put.renamed", "put.directory.fsynced", "stage", "staged",
        "record.committed", "record.committed.saved", "commit.renamed", "commit.unlinked",
        "publish", "publish.done", "record.published.saved", "record.copied.saved",
        "clear.unstaged", "clear.unlinked", "record.aborted.saved", "delete.tombstoned",
        "delete.rows_removed", "delete.renamed", "delete.finished",
        "begin", "begun", "put.done", "commit", "committed", "abort", "aborted",
    ):  # fmt: skip
        assert report["steps"][step] > 0, step


@pytest.mark.slow
def test_a_planted_fault_is_found(quick_directory: Path) -> None:
    assert crash(quick_directory, 211, "nothing is settled")["wrong"]
