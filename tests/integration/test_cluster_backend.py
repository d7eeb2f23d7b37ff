"""A cluster of three processes behind the backend: a scene in, out, and one node lost."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from geostore.backends import open_backend
from geostore.config import parse_target
from geostore.errors import InvalidInputError
from geostore.query import Explain, Query
from geostore.types.report import ProblemKind

small = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "small_store.py")))
A = small.make_definition("a")


def start(data: Path, join: str | None) -> subprocess.Popen[str]:
    options = ["--data", str(data), "--listen", "127.0.0.1:0", "--replicas", "2"]
    options += [] if join is None else ["--join", join]
    command = [sys.executable, "-m", "geostore_cli", "node", *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
    )


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Three nodes that keep two copies, by address."""
    started: list[subprocess.Popen[str]] = []
    serving: dict[str, subprocess.Popen[str]] = {}
    try:
        for name in ("n1", "n2", "n3"):
            started.append(start(tmp_path / name, next(iter(serving), None)))
            assert started[-1].stdout is not None
            word, address = started[-1].stdout.readline().split()
            assert word == "serving"
            serving[address] = started[-1]
        yield serving
    finally:
        for process in started:
            process.kill()
            process.communicate(timeout=60)


def test_a_scene_goes_in_and_comes_out(nodes: dict[str, subprocess.Popen[str]]) -> None:
    target = parse_target("geostore://" + ",".join(nodes))
    with closing(open_backend(target)) as backend:
        backend.create_dataset(A)
        assert backend.datasets() == [A]
        checksums = small.put_scene(backend, A, "s1", "v1", small.CELLS)
        assert small.put_scene(backend, A, "s1", "v1", small.CELLS) is None
        explain = Explain()
        keys = [row.key for b in backend.query(Query(), explain) for row in b.rows()]
        assert explain.nodes_asked
        assert sorted(key.geocode for key in keys) == sorted(small.CELLS)
        state = backend.status()
        assert (state.datasets, state.scenes, len(state.nodes)) == (1, 1, 3)

        lost = next(iter(nodes.values()))
        lost.kill()
        lost.wait(60)
        assert {key.geocode: backend.details(key).checksum for key in keys} == checksums
        assert all(backend.read_blocks(key, [0])[0] is not None for key in keys)
        tiles = {cell: small.make_tile(A, "s1", "v1", cell) for cell in small.CELLS}
        for read in backend.read_tiles(
            [(key, range(len(tiles[key.geocode].blocks))) for key in keys]
        ):
            tile = tiles[read.key.geocode]
            stored = [(len(data or b""), data and bytes(data)) for data in read.data]
            assert stored == [
                (length, tile.payload[offset : offset + length] if length else None)
                for offset, length, _, _ in tile.blocks.tolist()
            ]
            for name in ("length", "fill", "checksum"):
                assert read.table[name].tolist() == tile.blocks[name].tolist()
        assert [one.checksum for one in backend.details_of(keys)] == [
            checksums[key.geocode] for key in keys
        ]
        assert backend.count(Query()) == len(keys)
        rows = [row.key for b in backend.query(Query()) for row in b.rows()]
        assert rows == keys
        report = backend.verify()
        (problem,) = report.problems
        assert problem.kind is ProblemKind.UNCHECKED, "the node that is down, and no other"
        with pytest.raises(InvalidInputError, match="stop a node"):
            backend.verify(rebuild=True)
