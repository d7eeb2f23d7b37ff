"""The architecture page's walks name every file that a scene and a query really pass, once."""

from __future__ import annotations

import re
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import geostore
from geostore import demo
from geostore_cli.main import cli

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
# Values, errors and counters pass through every room; they are no station of a walk.
SCENE = str(demo.scene_path())
EVERYWHERE = ("geostore/types/", "geostore/errors.py", "geostore/metrics.py")


def _walk(title: str) -> list[str]:
    section = PAGE.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"`((?:geostore|cli)/[\w/]+\.py)`", section)


def _passed(action: Callable[[], object]) -> set[str]:
    """The project's files of which a function ran, on any thread."""
    files: set[str] = set()

    def note(frame, event, _argument) -> None:
        name = frame.f_code.co_filename
        if (
            event == "call"
            and frame.f_code.co_name != "<module>"
            and name.startswith(f"{REPOSITORY}/")
        ):
            files.add(name.removeprefix(f"{REPOSITORY}/"))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return {
        name
        for name in files
        if name.startswith(("geostore/", "cli/")) and not name.startswith(EVERYWHERE)
    }


def _ingest(directory: Path) -> None:
    result = CliRunner().invoke(cli, ["--store", str(directory), "ingest", SCENE])
    assert result.exit_code == 0, result.output


def _query(directory: Path) -> None:
    result = CliRunner().invoke(
        cli,
        [
            "--store",
            str(directory),
            "query",
            "--bbox",
            "-75.7,37.6,-75.5,37.7",
            "--coverage",
            "1..",
        ],
    )
    assert result.exit_code == 0, result.output
    assert "geocode" in result.output
    with geostore.open(str(directory)) as store:
        for tile in store.query(bbox=(-75.7, 37.6, -75.5, 37.7)):
            tile.read(bands=["red"])


@pytest.mark.parametrize("title", ["The walk of one scene", "The walk of one query"])
def test_walks_name_each_file_once_and_the_files_exist(title: str) -> None:
    named = _walk(title)
    assert named
    assert [name for name, times in Counter(named).items() if times > 1] == []
    assert [name for name in named if not (REPOSITORY / name).is_file()] == []


def test_the_walks_are_the_files_that_run(tmp_path: Path) -> None:
    # Once untraced, so that what only happens at import is out of the way.
    _ingest(tmp_path / "first")
    _query(tmp_path / "first")
    (tmp_path / "second").mkdir()
    for title, walk in (("The walk of one scene", _ingest), ("The walk of one query", _query)):
        named, passed = set(_walk(title)), _passed(lambda walk=walk: walk(tmp_path / "second"))
        assert (sorted(passed - named), sorted(named - passed)) == ([], []), title


def test_every_watched_invariant_has_its_test() -> None:
    table = PAGE.split("## Invariants", 1)[1]
    named = re.findall(r"`(tests/[\w/]+\.py)`", table)
    assert named
    assert [name for name in named if not (REPOSITORY / name).is_file()] == []
