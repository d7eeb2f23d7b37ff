"""A store with one small scene, and a check that it is as it was. See the fixture `stocked`."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from click.testing import CliRunner

import geostore
from geostore_cli.main import cli

STEERED = Path(__file__).with_name("steered_cli.py")


@dataclass(frozen=True, slots=True)
class Ran:
    """How one run of the command line ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.splitlines()]


def check_one_error(ran: Ran, code: int, says: Sequence[str]) -> str:
    """The run's one line on stderr, which begins as errors do and has each of `says`."""
    assert ran.code == code, ran
    assert ran.stderr.count("\n") == 1, ran.stderr
    assert ran.stderr.endswith("\n")
    assert ran.stderr.startswith("geostore: error: ")
    assert "Traceback" not in ran.stderr
    assert "a bug in geostore" not in ran.stderr
    assert ran.stderr[:-1].isprintable()
    assert len(ran.stderr) < 1500
    for text in says:
        assert text in ran.stderr
    return ran.stderr


def tile_pixels(path: Path) -> dict[tuple[str, str], str]:
    """A digest of every tile's pixels and masks, by scene and geocode."""
    found = {}
    with geostore.open(path, mode="r") as store:
        for tile in store.query():
            digest = hashlib.sha256()
            for band in tile.bands:
                array = tile.read(bands=[band])
                digest.update(array.data.tobytes() + array.mask.tobytes())
            found[tile.scene, tile.geocode] = digest.hexdigest()
    return found


@dataclass
class StockedStore:
    """The store at `path`, which holds the scene of `raster` in dataset `geotiff`."""

    path: Path
    raster: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    pixels: dict[tuple[str, str], str] = field(default_factory=dict)

    def run(self, *arguments: object, code: int | None = 0) -> Ran:
        """`geostore --store PATH ARGUMENTS…` in this process, without a terminal."""
        words = ["--store", str(self.path), *map(str, arguments)]
        result = CliRunner().invoke(cli, words)
        ran = Ran(result.exit_code, result.stdout, result.stderr)
        assert code is None or ran.code == code, ran
        return ran

    def refused(self, *arguments: object, code: int, says: Sequence[str]) -> Ran:
        """A run that must fail with one clear line, and leave the store as it was."""
        ran = self.run(*arguments, code=None)
        check_one_error(ran, code, says)
        self.check_unharmed()
        return ran

    def process(self, *arguments: object, before: Sequence[str] = ()) -> Ran:
        """The same as a process of its own; `before`: Python that runs Python with the rest."""
        words = ["-m", "geostore_cli", "--store", str(self.path), *map(str, arguments)]
        done = subprocess.run(
            [sys.executable, *before, *words],
            check=False, capture_output=True, timeout=60,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """The same, not waited for: the caller ends it."""
        words = ["-m", "geostore_cli", "--store", str(self.path), *map(str, arguments)]
        return subprocess.Popen(
            [sys.executable, *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def check_unharmed(self, *, others: int = 0) -> None:
        """The first scene is whole, `others` more are, and nothing else lies about."""
        rows = self.run("query").lines
        assert [row for row in rows if row in self.rows] == self.rows
        assert len({(row["dataset"], row["scene"]) for row in rows}) == 1 + others
        pixels = tile_pixels(self.path)
        assert {key: pixels.get(key) for key in self.pixels} == self.pixels
        (report,) = self.run("verify").lines
        assert report["problems"] == []
        assert report["tiles"] == len(rows)
        assert list((self.path / "tmp").iterdir()) == []
        files = [path for path in (self.path / "tiles").rglob("*") if path.is_file()]
        assert len(files) == len(rows), "staged tiles were left behind"
        (status,) = self.run("status").lines
        assert (status["scenes"], status["tiles"]) == (1 + others, len(rows))

    def check_takes_scenes(self, raster: Path) -> None:
        """Nothing stands in the way of the next ingest, and it says so."""
        (line,) = self.run("ingest", raster).lines
        assert line["status"] == "ingested"
        self.check_unharmed(others=1)


class SteeredRun:
    """A `geostore` process that stops at a named step until it is told to go on.

    `step` is one of `Disk.step`'s names, or `decode` (on a worker thread).
    """

    def __init__(self, stocked: StockedStore, step: str, *arguments: object) -> None:
        there_reading, self._there_writing = os.pipe()
        self._go_reading, self._go_writing = os.pipe()
        self._there = os.fdopen(there_reading, "rb")
        fds = (self._there_writing, self._go_reading)
        words = ["--store", str(stocked.path), *map(str, arguments)]
        self.process = subprocess.Popen(
            [sys.executable, STEERED, step, *map(str, fds), *words],
            pass_fds=fds, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        for descriptor in fds:
            os.close(descriptor)

    def wait_until_there(self) -> None:
        assert self._there.read(1) == b"x", self.process.communicate()[1]

    def go_on(self) -> None:
        os.write(self._go_writing, b"x" * 100)

    def end(self) -> Ran:
        stdout, stderr = self.process.communicate(timeout=60)
        return Ran(self.process.returncode, stdout, stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self._there.close()
        os.close(self._go_writing)
