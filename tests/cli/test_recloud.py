"""`geostore dataset recloud`: what it changes, what it says, what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import geostore
from geostore.backends import open_embedded
from tests.clouded_tiles import CELLS, A, covers, expected, put_scene, quick_directory

SCENES = {"s1": CELLS, "plain": CELLS[:3]}


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    with quick_directory(tmp_path) as quick:
        yield quick


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with open_embedded(tmp_path / "store") as backend:
        backend.create_dataset(A)
        for scene, cells in SCENES.items():
            put_scene(backend, A, scene, cells)
    return tmp_path / "store"


def told(store: Path) -> dict[tuple[str, str], float | None]:
    with open_embedded(store, mode="r") as backend:
        return covers(backend)


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_threshold_and_back(geostore_run, store: Path) -> None:
    recloud = ("--store", store, "dataset", "recloud", "a")
    result = geostore_run(*recloud, "--threshold", 40)
    assert lines(result.stdout) == [
        {"dataset": "a", "cloud_rule": "likelihood >= 40", "tiles": 9, "changed": 6, "unknown": 4}
    ]
    assert result.stderr == (
        "geostore: not all of the 9 tiles of a have a cloud likelihood: the cloud cover of 4 is"
        " unknown now; --method provider brings the provider's back\n"
    )
    assert told(store) == expected(SCENES, 40)
    shown = lines(geostore_run("--store", store, "dataset", "show", "a").stdout)[0]
    assert shown["cloud_rule"] == "likelihood >= 40"
    table = geostore_run("--store", store, "dataset", "show", "a", "--format", "table").stdout
    assert "cloud_rule  likelihood >= 40" in table

    back = geostore_run(*recloud, "--method", "provider", "--format", "table")
    assert back.stdout.splitlines() == [
        "dataset     a",
        "cloud_rule  provider",
        "tiles       9",
        "changed     6",
        "unknown     2",
    ]
    assert back.stderr == ""
    assert told(store) == expected(SCENES, None)
    again = geostore_run(*recloud, "--method", "provider", "--format", "csv")
    assert again.stdout.splitlines() == [
        "dataset,cloud_rule,tiles,changed,unknown",
        "a,provider,9,0,2",
    ]


def test_queries_go_by_the_rule(geostore_run, store: Path) -> None:
    run = ("--store", store)
    geostore_run(*run, "dataset", "recloud", "a", "--threshold", 40, "-q")
    due = {name: cover for name, cover in expected(SCENES, 40).items() if cover is not None}
    rows = lines(geostore_run(*run, "query", "--cloud", "..100", "--sort", "-cloud").stdout)
    assert [row["cloud_cover"] for row in rows] == sorted(due.values(), reverse=True)
    low = min(due.values())
    rows = lines(geostore_run(*run, "query", "--cloud", f"..{low:.3f}").stdout)
    assert [(row["scene"], row["geocode"]) for row in rows] == [
        name for name, cover in due.items() if cover <= np.float32(round(low, 3))
    ]


def test_a_dataset_without_any_likelihood_is_told_of(geostore_run, tmp_path: Path) -> None:
    with open_embedded(tmp_path / "store") as backend:
        backend.create_dataset(A)
        put_scene(backend, A, "plain", CELLS)
    recloud = ("--store", tmp_path / "store", "dataset", "recloud", "a")
    result = geostore_run(*recloud, "--threshold", 0)
    assert lines(result.stdout)[0]["unknown"] == 6
    assert "none of the 6 tiles of a have a cloud likelihood" in result.stderr
    assert set(told(tmp_path / "store").values()) == {None}
    geostore_run(*recloud, "--method", "provider")
    assert told(tmp_path / "store") == expected({"plain": CELLS}, None)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "give either --threshold P or --method provider"),
        (("--threshold", 40, "--method", "provider"), "give either"),
        (("--threshold", 101), "'101' is not a whole number of 0..100"),
        (("--threshold", -1), "'-1' is not a whole number of 0..100"),
        (("--threshold", "half"), "'half' is not a whole number of 0..100"),
        (("--method", "labels"), "'labels' is not"),
    ],
)
def test_wrong_usage_changes_nothing(geostore_run, store: Path, flags, message: str) -> None:
    result = geostore_run("--store", store, "dataset", "recloud", "a", *flags, code=2)
    assert message in result.stderr
    assert told(store) == expected(SCENES, None)


def test_an_unknown_dataset_is_named(geostore_run, store: Path) -> None:
    run = ("--store", store, "dataset", "recloud", "b", "--threshold", 40)
    assert "dataset 'b'" in geostore_run(*run, code=1).stderr


def test_the_help_says_what_it_does(geostore_run) -> None:
    said = geostore_run("dataset", "recloud", "--help").stdout
    assert "--threshold P" in said
    assert "brings back exactly what was" in " ".join(said.split())


def test_python_does_the_same(store: Path) -> None:
    with geostore.open(store) as opened:
        report = opened.recloud("a", threshold=40)
        assert (report.tiles, report.tiles_changed, report.tiles_unknown) == (9, 6, 4)
        assert [tile.cloud_method for tile in opened.query(scene="s1", geocode="9q")] == [
            "CLDPRB >= 40"
        ]
        assert opened.query(dataset="a", cloud_cover=(0, 100)).count() == 5
        with pytest.raises(geostore.errors.InvalidInputError, match=r"expected a whole percent"):
            opened.recloud("a", threshold=40.5)  # type: ignore[arg-type]
        with pytest.raises(geostore.errors.InvalidInputError, match="either threshold"):
            opened.recloud("a")
        with pytest.raises(
            geostore.errors.InvalidInputError, match="keyword .percent. is not known"
        ):
            opened.recloud("a", percent=40)
        with pytest.raises(geostore.errors.NotFoundError, match="'b'"):
            opened.recloud("b", method="provider")
        opened.recloud("a", method="provider")
    assert told(store) == expected(SCENES, None)
