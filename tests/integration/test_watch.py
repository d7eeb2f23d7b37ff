"""`geostore ingest --watch`: what lies there, what arrives, what changes; and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import geostore

WAIT_S = 60.0


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    folder = tmp_path / "incoming"
    folder.mkdir()
    return folder


def test_a_store_takes_what_lies_there_what_arrives_and_what_changes(
    incoming: Path, tmp_path: Path, write_raster: Callable[..., Path]
) -> None:
    def write(name: str, value: int) -> None:
        write_raster(incoming / name, np.full((1, 64, 64), value, "uint8"))

    write("a.tif", 1)
    (incoming / "notes.txt").write_text("no scene")
    stop = threading.Event()
    with geostore.open(tmp_path / "store") as store:
        results = store.watch(incoming, settle_s=0.0, poll_s=0.01, stop=stop)
        first = [next(results), next(results)]
        assert [str(one.status) for one in first] == ["ingested", "skipped"]
        write("b.tif", 2)
        assert next(results).scene.startswith("b-")
        write("a.tif", 3)  # other bytes are another scene of a plain raster
        again = next(results)
        assert (str(again.status), again.scene[:2]) == ("ingested", "a-")
        assert again.scene != first[0].scene
        stop.set()
        assert list(results) == []
        assert store.query().count() == 3


@pytest.fixture
def watching(incoming: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    words = ["--store", tmp_path / "store", "ingest", "--watch", incoming]
    process = subprocess.Popen(
        [sys.executable, "-m", "geostore_cli", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield process
    process.kill()
    process.communicate(timeout=WAIT_S)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_line_watches_until_it_is_told_to_stop(
    watching: subprocess.Popen[str],
    incoming: Path,
    write_raster: Callable[..., Path],
    number: signal.Signals,
) -> None:
    raster = write_raster(incoming.parent / "a.tif", np.full((1, 64, 64), 1, "uint8"))
    raster.rename(incoming / "a.tif")
    assert watching.stdout is not None
    line = json.loads(watching.stdout.readline())
    assert line["status"] == "ingested"
    watching.send_signal(number)
    _, stderr = watching.communicate(timeout=WAIT_S)
    assert watching.returncode == 0, stderr
    assert "stopping after the scenes under way" in stderr
