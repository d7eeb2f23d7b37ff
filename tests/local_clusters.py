"""Clusters of real processes, by the commands that users have, and what they look like outside.

What is read here of the ring and of the processes is read without geostore: from the file that
a node keeps, and from /proc.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from geostore_cli.main import cli

SLOTS = 4096


@dataclass(frozen=True, slots=True)
class Ran:
    """How one run of the command line ended."""

    code: int
    stdout: str
    stderr: str
    output: bytes
    """stdout as bytes."""


def run(*arguments: object) -> Ran:
    """`geostore ARGUMENTS…` in this process, without a terminal."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    return Ran(result.exit_code, result.stdout, result.stderr, result.stdout_bytes)


def done(*arguments: object) -> Ran:
    """The same for a run that must succeed."""
    ran = run(*arguments)
    assert ran.code == 0, ran
    return ran


@dataclass(frozen=True, slots=True)
class PlainRing:
    """Who holds which slot, as `ring.json` in a node's data directory tells."""

    names: tuple[str, ...]
    """All nodes, in the ring's order."""
    owners: tuple[tuple[int, ...], ...]
    """Slot to its replicas, the first replica first, as numbers of nodes."""

    @classmethod
    def read(cls, path: Path) -> PlainRing:
        value = json.loads(path.read_text())["ring"]
        numbers = [each[0] for each in struct.iter_unpack("<H", base64.b64decode(value["owners"]))]
        copies = len(numbers) // SLOTS
        owners = tuple(tuple(numbers[i * copies : (i + 1) * copies]) for i in range(SLOTS))
        return cls(tuple(name for _, name, _, _ in value["nodes"]), owners)

    def holders(self, placement_key: str) -> list[str]:
        """The nodes of the slot that SHA-1 gives a placement key, the first replica first."""
        slot = int(hashlib.sha1(placement_key.encode()).hexdigest()[:3], 16)
        return [self.names[index] for index in self.owners[slot]]

    def asked(self, placement_keys: Iterable[str]) -> list[str]:
        """The first replicas of the keys' slots, in the ring's order."""
        firsts = {self.holders(key)[0] for key in placement_keys}
        return [name for name in self.names if name in firsts]


@dataclass(frozen=True, slots=True)
class RunningCluster:
    directory: Path
    target: str
    """All its nodes."""

    @property
    def targets(self) -> list[str]:
        """One for each node: a client opened by it sends its questions there."""
        return [f"geostore://{host}" for host in self.target.removeprefix("geostore://").split(",")]

    def ring(self) -> PlainRing:
        return PlainRing.read(self.directory / "n1" / "ring.json")

    def pids(self) -> dict[str, int]:
        """The nodes that run, by name."""
        lines = done("cluster", "status", "--dir", self.directory).stdout.splitlines()
        rows = [json.loads(line) for line in lines]
        return {row["name"]: row["pid"] for row in rows if row["state"] == "up"}


@contextmanager
def running_cluster(directory: Path, *, nodes: int, replicas: int) -> Iterator[RunningCluster]:
    """`cluster up`; and whatever happens `cluster down`, which must leave no process."""
    try:
        ran = done(
            "cluster", "up", "--nodes", nodes, "--replicas", replicas, "--dir", directory, "-q"
        )
        yield RunningCluster(directory, ran.stdout.strip())
    finally:
        done("cluster", "down", "--dir", directory, "-q")
        assert processes_of(directory) == []


def processes_of(directory: Path, pids: Sequence[int] = ()) -> list[str]:
    """Command lines of processes that name a directory, or that a process of `pids` started.

    A node leads a session of its own, so whatever it started is in the session of its pid.
    """
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            stat = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if stat[0] == "Z":
            continue
        names_it = any(str(directory) in word for word in words)
        if names_it or int(process.name) in pids or int(stat[3]) in pids:
            found.append(f"{process.name} {' '.join(words)}")
    return found
