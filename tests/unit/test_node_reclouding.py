"""Cloud rules in a store of one node: in force whatever happens, and back."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from geostore.api.reclouding import RecloudReport, recloud, rule_of
from geostore.backends import EmbeddedBackend, open_embedded, rebuild_embedded
from geostore.errors import ConflictError, GeostoreError, InvalidInputError, NotFoundError
from geostore.index import open_catalog
from geostore.node import Node, ProblemKind
from geostore.node.rebuilding import read_entry
from geostore.query import Query
from geostore.types import CloudRule, DatasetDefinition, TileKey
from tests.clouded_tiles import CELLS, A, covers, expected, put_scene, quick_directory

SCENES = {"s1": CELLS, "plain": CELLS[:3]}
FORTY, PROVIDER = CloudRule("likelihood", 40), CloudRule()


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    with quick_directory(tmp_path) as quick:
        yield quick


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with open_embedded(tmp_path / "store") as backend:
        backend.create_dataset(A)
        for scene, cells in SCENES.items():
            put_scene(backend, A, scene, cells)
    return tmp_path / "store"


@pytest.fixture
def backend(root: Path) -> Iterator[EmbeddedBackend]:
    with open_embedded(root) as backend:
        yield backend
        assert backend.verify().problems == ()


def test_every_cover_follows_and_comes_back(backend: EmbeddedBackend) -> None:
    before = covers(backend)
    assert before == expected(SCENES, None)
    # Of one cell nothing is known either way; a clear one has 0 % by both.
    report = recloud(backend, "a", FORTY)
    assert report == RecloudReport(
        dataset="a", rule=FORTY, tiles=9, tiles_changed=6, tiles_unknown=4
    )
    assert covers(backend) == expected(SCENES, 40)
    assert str(backend.dataset("a").cloud_rule) == "likelihood >= 40"
    assert recloud(backend, "a", FORTY).tiles_changed == 0
    assert recloud(backend, "a", PROVIDER).tiles_unknown == 2
    assert covers(backend) == before


def test_a_dataset_without_tiles_may_have_a_rule(backend: EmbeddedBackend) -> None:
    backend.create_dataset(replace(A, id="id-b", name="b"))
    assert recloud(backend, "b", FORTY).tiles == 0
    with pytest.raises(NotFoundError, match="'c' does not exist"):
        recloud(backend, "c", FORTY)


def test_either_a_threshold_or_the_provider(backend: EmbeddedBackend) -> None:
    assert rule_of(40, None) == FORTY
    assert rule_of(None, "provider") == PROVIDER
    with pytest.raises(InvalidInputError, match="either threshold"):
        rule_of(None, None)
    with pytest.raises(InvalidInputError, match="either threshold"):
        rule_of(40, "provider")
    with pytest.raises(InvalidInputError, match="expected 'provider'"):
        rule_of(None, "labels")  # type: ignore[arg-type]


@pytest.mark.parametrize("planned_under", ["old", "new"])
def test_scenes_that_come_later_have_the_rule_in_force(
    backend: EmbeddedBackend, planned_under: str
) -> None:
    begun = ("s2", "plain2", "s3")
    backend.begin_scene(A, "s3", "v1", CELLS)  # goes on below
    recloud(backend, "a", FORTY)
    definition = A if planned_under == "old" else backend.dataset("a")
    for scene in begun:
        assert put_scene(backend, definition, scene, CELLS)
    assert covers(backend) == expected(SCENES | dict.fromkeys(begun, CELLS), 40)
    assert not put_scene(backend, definition, "s1", CELLS)  # unchanged: pixels know no rule


def test_a_change_is_lost_on_nobody(backend: EmbeddedBackend) -> None:
    """Two that change one definition at a time: the later reads the earlier's first."""
    forty = A.with_cloud_rule(FORTY)
    assert backend.replace_dataset(A, forty) == 6
    with pytest.raises(ConflictError, match="changed meanwhile"):
        backend.replace_dataset(A, A.with_cloud_rule(CloudRule("likelihood", 60)))
    for count in (1, 3):  # neither uncounted nor out of turn
        with pytest.raises(ConflictError, match="each change counts one"):
            backend.replace_dataset(forty, replace(forty, cloud_rule=PROVIDER, cloud_changes=count))
    assert covers(backend) == expected(SCENES, 40)


class _Contested:
    """A backend whose definition somebody else changes just before every change."""

    def __init__(self, backend: EmbeddedBackend, times: int) -> None:
        self._backend = backend
        self._times = times

    def __getattr__(self, name: str) -> object:
        return getattr(self._backend, name)

    def replace_dataset(self, old: DatasetDefinition, new: DatasetDefinition) -> int:
        if self._times:
            self._times -= 1
            self._backend.replace_dataset(old, replace(old, reader=f"reader-{self._times}"))
        return self._backend.replace_dataset(old, new)


def test_a_contested_change_is_tried_again_and_not_for_ever(backend: EmbeddedBackend) -> None:
    assert recloud(_Contested(backend, 3), "a", FORTY).tiles_changed == 6  # type: ignore[arg-type]
    with pytest.raises(ConflictError, match="changed meanwhile"):
        recloud(_Contested(backend, 99), "a", PROVIDER)  # type: ignore[arg-type]
    assert covers(backend) == expected(SCENES, 40)


def test_an_ingest_of_another_process_lets_it_in(root: Path) -> None:
    scenes: list[str] = []
    has_begun, is_done = threading.Event(), threading.Event()

    def ingest() -> None:
        with open_embedded(root) as other, other.writing_turns() as turn:
            while not is_done.is_set():
                scene = f"beside-{len(scenes)}"
                with turn(lambda: None):
                    put_scene(other, A, scene, CELLS[:1])
                scenes.append(scene)
                has_begun.set()

    thread = threading.Thread(target=ingest)
    thread.start()
    try:
        assert has_begun.wait(60)
        with open_embedded(root) as backend:
            recloud(backend, "a", FORTY)
    finally:
        is_done.set()
        thread.join(60)
    assert not thread.is_alive()
    with open_embedded(root, mode="r") as backend:
        assert covers(backend) == expected(SCENES | dict.fromkeys(scenes, CELLS[:1]), 40)


def test_another_process_sees_it(root: Path) -> None:
    with open_embedded(root, mode="r") as reader, open_embedded(root) as writer:
        assert covers(reader) == expected(SCENES, None)
        recloud(writer, "a", FORTY)
        assert covers(reader) == expected(SCENES, 40)
        assert reader.dataset("a").cloud_rule == FORTY


# ---------------------------------------------------------------- from the files


def _old_catalog(root: Path) -> None:
    """The catalog stays as it is."""


def _no_catalog(root: Path) -> None:
    shutil.rmtree(root / "catalog")


def _no_rule_file(root: Path) -> None:
    shutil.rmtree(root / "rules")


@pytest.mark.parametrize("lost", [_old_catalog, _no_catalog, _no_rule_file])
def test_a_rebuild_goes_by_the_rule_in_force(root: Path, lost: object) -> None:
    with open_embedded(root) as backend:
        recloud(backend, "a", CloudRule("likelihood", 70))
        recloud(backend, "a", FORTY)
    assert callable(lost)
    lost(root)
    assert [each for each in rebuild_embedded(root).problems if each.kind != "catalog"] == []
    with open_embedded(root) as backend:
        assert covers(backend) == expected(SCENES, 40)
        assert backend.dataset("a").cloud_rule == FORTY
        assert backend.verify().problems == ()
        recloud(backend, "a", PROVIDER)
        assert covers(backend) == expected(SCENES, None)


def test_tile_files_alone_have_the_rule_of_the_latest(root: Path) -> None:
    with open_embedded(root) as backend:
        recloud(backend, "a", FORTY)
        put_scene(backend, backend.dataset("a"), "later", CELLS)
    _no_catalog(root)
    _no_rule_file(root)
    rebuild_embedded(root)
    with open_embedded(root) as backend:
        assert covers(backend) == expected(SCENES | {"later": CELLS}, 40)


def test_a_damaged_rule_file_is_set_aside(root: Path) -> None:
    with open_embedded(root) as backend:
        recloud(backend, "a", FORTY)
    path = root / "rules" / f"{A.id}.json"
    path.write_bytes(path.read_bytes().replace(b"40", b"41"))
    _no_catalog(root)
    problems = rebuild_embedded(root).problems
    assert [(each.kind, each.path) for each in problems if each.kind is ProblemKind.CORRUPT] == [
        (ProblemKind.CORRUPT, str(path))
    ]
    with open_embedded(root) as backend:
        assert covers(backend) == expected(SCENES, None)


def test_an_older_catalog_put_back_has_the_newer_rule(root: Path, tmp_path: Path) -> None:
    with open_embedded(root) as backend:
        recloud(backend, "a", CloudRule("likelihood", 70))
    shutil.copytree(root / "catalog", tmp_path / "older")
    with open_embedded(root) as backend:
        recloud(backend, "a", FORTY)
    _no_catalog(root)
    shutil.copytree(tmp_path / "older", root / "catalog")
    with open_embedded(root) as backend:
        assert covers(backend) == expected(SCENES, 70)
    rebuild_embedded(root)
    with open_embedded(root) as backend:
        assert covers(backend) == expected(SCENES, 40)


def test_a_deleted_datasets_rule_goes_with_it(root: Path) -> None:
    with open_embedded(root) as backend:
        recloud(backend, "a", FORTY)
        backend.delete_dataset("a")
        assert list((root / "rules").iterdir()) == []
        assert backend.verify().problems == ()
    _no_catalog(root)
    rebuild_embedded(root)
    with open_embedded(root) as backend:
        assert backend.datasets() == []


def test_verify_finds_a_cover_that_is_not_the_files(root: Path) -> None:
    with open_embedded(root) as backend:
        recloud(backend, "a", FORTY)
    with Node(root) as node:
        entries = {
            entry.meta.key: entry for entry in map(read_entry, sorted(root.rglob("*.zarr.zip")))
        }
        first, second = sorted(key for key in entries if key.scene == "s1")[:2]
        wrong: dict[TileKey, dict[str, Any]] = {
            first: {"cloud_cover": 1.0},
            second: {"cloud_histogram": (7,) * 101},
        }
        with node.writing():
            node.catalog.rebuild(
                replace(entry, meta=replace(entry.meta, **wrong.get(key, {})))
                for key, entry in entries.items()
            )
        problems = {each.path: each for each in node.verify().problems}
        assert {each.kind for each in problems.values()} == {ProblemKind.CATALOG}
        assert "a provider's cloud cover of 1.0" in problems[str(node.tile_path(first))].message
        assert "another histogram" in problems[str(node.tile_path(second))].message
        assert len(problems) == 2
    rebuild_embedded(root)
    with open_embedded(root) as backend:
        assert backend.verify().problems == ()
        assert covers(backend) == expected(SCENES, 40)


# ---------------------------------------------------------------- interrupted


class KilledError(BaseException):
    """The process is no more."""


def _recloud_until(copy: Path, steps_max: int) -> tuple[list[str], bool]:
    """Reclouds a store, killed at a step; the steps that were done, and whether it came to that."""
    steps: list[str] = []

    def step(name: str) -> None:
        if len(steps) == steps_max:
            raise KilledError
        steps.append(name)

    backend = open_embedded(copy, step=step)
    try:
        recloud(backend, "a", FORTY)
    except KilledError:
        return steps, False
    finally:
        backend.close()
    return steps, True


def _threshold_of(root: Path, *, mode: Literal["a", "r"]) -> int | None:
    """By which rule a store goes, having checked that all of it does."""
    with open_embedded(root, mode=mode) as backend:
        threshold = {FORTY: 40, PROVIDER: None}[backend.dataset("a").cloud_rule]
        assert covers(backend) == expected(SCENES, threshold)
        assert backend.verify().problems == ()
    return threshold


def test_killed_at_any_step_all_tiles_have_one_rule(root: Path, tmp_path: Path) -> None:
    for steps_max in range(100):
        copy = tmp_path / f"copy-{steps_max}"
        shutil.copytree(root, copy)
        steps, is_done = _recloud_until(copy, steps_max)
        found = _threshold_of(copy, mode="r")
        assert found == (40 if "dataset.replace" in steps else None)
        assert _threshold_of(copy, mode="a") == found
        rebuild_embedded(copy)
        assert _threshold_of(copy, mode="r") == (40 if "rule.rename" in steps else None)
        if is_done:
            break
        assert _recloud_until(copy, 100)[1]
        assert _threshold_of(copy, mode="r") == 40
    assert {"rule.written", "rule.renamed", "dataset.replace", "dataset.replace.saved"} <= {*steps}


def test_a_catalog_that_cannot_be_written_keeps_its_rule(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_embedded(root) as backend:
        put_scene(backend, A, "s2", CELLS)  # it is the writer now

        def refuse(*_: object, **__: object) -> None:
            raise GeostoreError("no room")

        with monkeypatch.context() as patched:
            patched.setattr("geostore.index.reclouding.Covers", refuse)
            with pytest.raises(GeostoreError, match="no room"):
                recloud(backend, "a", FORTY)
        assert backend.dataset("a") == A
        assert covers(backend) == expected(SCENES | {"s2": CELLS}, None)
        assert backend.count(Query()) == 15
    with open_catalog(root / "catalog", writable=False) as catalog:
        assert catalog.check() == []
