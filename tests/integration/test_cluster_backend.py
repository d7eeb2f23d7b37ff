"""A cluster of three processes behind the backend: a scene in, out, and one node lost."""

from __future__ import annotations

import runpy
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from geostore.backends import open_backend
from geostore.config import parse_target
from geostore.errors import UnavailableError
from geostore.query import Explain, Query

HERE = Path(__file__)
small = SimpleNamespace(**runpy.run_path(str(HERE.parents[1] / "small_store.py")))
node = SimpleNamespace(**runpy.run_path(str(HERE.with_name("test_node_process.py"))))
A = small.make_definition("a")


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[tuple[str, Any]]]:
    """Addresses and processes of three nodes that keep two copies."""
    started = [node.Started(tmp_path / "n1", (), 2)]
    addresses = [started[0].address()]
    try:
        for name in ("n2", "n3"):
            started.append(node.Started(tmp_path / name, (addresses[0],), 2))
            addresses.append(started[-1].address())
        yield list(zip(addresses, [one.process for one in started], strict=True))
    finally:
        for one in started:
            if one.process.poll() is None:
                one.process.kill()
            one.process.communicate(timeout=60)


def test_a_scene_goes_in_and_comes_out(nodes: list[tuple[str, Any]]) -> None:
    target = parse_target("geostore://" + ",".join(address for address, _ in nodes))
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

        lost = nodes[0][1]
        lost.send_signal(signal.SIGKILL)
        lost.wait(60)
        assert {key.geocode: backend.details(key).checksum for key in keys} == checksums
        assert all(backend.read_blocks(key, [0])[0] is not None for key in keys)
        assert backend.count(Query()) == len(keys)
        rows = [row.key for b in backend.query(Query()) for row in b.rows()]
        assert rows == keys
        with pytest.raises(UnavailableError, match="stop a node"):
            backend.verify()
