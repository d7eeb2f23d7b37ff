from __future__ import annotations

import inspect
import pickle
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from geostore.backends import Backend, EmbeddedBackend, open_backend, open_embedded
from geostore.config import parse_target
from geostore.errors import (
    InvalidInputError,
    NotFoundError,
    ReadOnlyError,
    StoreLockedError,
    UnavailableError,
)
from geostore.query import Explain, Query

small = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "small_store.py")))
A = small.make_definition("a")


def test_the_embedded_backend_has_the_protocols_methods_and_signatures(tmp_path: Path) -> None:
    with open_embedded(tmp_path / "store") as backend:
        assert isinstance(backend, Backend)
    for name, member in vars(Backend).items():
        if name.startswith("_") or not callable(member):
            continue
        asked = inspect.signature(member)
        given = inspect.signature(getattr(EmbeddedBackend, name))
        assert list(asked.parameters.values()) == list(given.parameters.values()), name
        assert asked.return_annotation == given.return_annotation, name


def test_a_scene_goes_in_and_comes_out(tmp_path: Path) -> None:
    with open_embedded(tmp_path / "store") as backend:
        backend.create_dataset(A)
        checksums = small.put_scene(backend, A, "s1", "v1", small.CELLS[:3])
        explain = Explain()
        keys = [r.key for b in backend.query(Query(scene="s1"), explain) for r in b.rows()]
        assert explain.rows_matched == 3
        assert {key.geocode: backend.details(key).checksum for key in keys} == checksums
        assert backend.read_blocks(keys[0], [0])[0] is not None
        assert backend.name == str(tmp_path / "store")
        assert backend.status().tiles == 3
        assert backend.verify().is_clean
        assert backend.verify(rebuild=True).is_rebuilt
        assert backend.count(Query()) == 3


def test_a_closed_backend_says_so(tmp_path: Path) -> None:
    backend = open_embedded(tmp_path / "store")
    backend.close()
    backend.close()
    with pytest.raises(InvalidInputError, match="is closed"):
        backend.datasets()


def test_targets_open(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        open_backend(parse_target(tmp_path / "store"), mode="r")
    backend = open_backend(parse_target(tmp_path / "store"))
    backend.close()
    reader = open_backend(parse_target(tmp_path / "store"), mode="r")
    with pytest.raises(ReadOnlyError, match="mode 'a'"):
        reader.create_dataset(A)
    reader.close()
    with pytest.raises(
        UnavailableError, match=r"no node gave its ring: node 127\.0\.0\.1:1: cannot be reached"
    ):
        open_backend(parse_target("geostore://127.0.0.1:1"))


def test_the_writer_lock_may_be_taken_at_once(tmp_path: Path) -> None:
    with (
        open_embedded(tmp_path / "store", lock_now=True),
        pytest.raises(StoreLockedError, match=r"is being written by this process"),
    ):
        open_embedded(tmp_path / "store", lock_now=True)


def test_a_relative_path_survives_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_embedded("store") as backend:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        backend.create_dataset(A)
        with pickle.loads(pickle.dumps(backend)) as copy:
            assert [d.name for d in copy.datasets()] == ["a"]
