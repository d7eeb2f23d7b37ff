"""`geostore ingest` of the whole tree of real sources, against a table written by hand.

CI runs the rows marked quick, in a tree of links to their files; `WHOLE_TREE=full` runs the tree
itself, as `geostore ingest ../shared/data --workers 2` would.
"""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.integration.whole_tree import NO_PIXEL, TREE, Row

IS_FULL = os.environ.get("WHOLE_TREE") == "full"
ROWS = TREE if IS_FULL else tuple(row for row in TREE if row.is_quick)
RUN_S_MAX = 1500

Line = dict[str, Any]


def geostore(store: Path, *arguments: object) -> tuple[int, list[Line], str]:
    """Exit code, lines of stdout and stderr of one run of the command line."""
    words = [sys.executable, "-m", "geostore_cli", "--store", str(store), *map(str, arguments)]
    done = subprocess.run(
        words, check=False, capture_output=True, text=True, timeout=RUN_S_MAX,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def fits(row: Row, path: str) -> bool:
    """Whether a path in the tree is of that row: `*` stays within a folder."""
    ours, theirs = row.path.split("/"), path.split("/")
    return len(ours) == len(theirs) and all(map(fnmatch.fnmatchcase, theirs, ours))


@pytest.fixture(scope="module")
def tree(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree, or the quick rows' part of it: folders with links to the files."""
    if IS_FULL:
        return shared_data
    root = tmp_path_factory.mktemp("tree")
    for path in sorted(one for one in shared_data.rglob("*") if one.is_file()):
        name = path.relative_to(shared_data)
        places = [name.as_posix(), *(parent.as_posix() for parent in name.parents)]
        if any(fits(row, place) for row in ROWS for place in places):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).symlink_to(path)
    return root


@pytest.fixture(scope="module")
def first_run(
    tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[Row, list[Line]], list[Line], int]:
    """The store, the report's lines by row, those of no row, the exit code."""
    store = tmp_path_factory.mktemp("whole") / "store"
    code, lines, _ = geostore(store, "ingest", tree, "--workers", 2)
    by_row: dict[Row, list[Line]] = defaultdict(list)
    unknown = []
    for line in lines:
        path = Path(line["path"]).relative_to(tree).as_posix()
        rows = [row for row in ROWS if fits(row, path)]
        if len(rows) > 1:  # what is named whole comes before a pattern
            rows = [row for row in rows if "*" not in row.path] or rows[:1]
        if rows:
            by_row[rows[0]].append(line | {"path": path})
        else:
            unknown.append(line)
    return store, by_row, unknown, code


FirstRun = tuple[Path, dict[Row, list[Line]], list[Line], int]


@pytest.mark.slow
class TestWholeTree:
    def test_nothing_else_is_found(self, first_run: FirstRun) -> None:
        _, _, unknown, code = first_run
        assert unknown == []
        assert code == 1, "some of it must fail"

    @pytest.mark.parametrize("row", ROWS, ids=lambda row: row.path)
    def test_product(self, first_run: FirstRun, row: Row) -> None:
        lines = first_run[1].get(row, [])
        assert {line["status"] for line in lines} == {row.status}, lines
        assert len({line["path"] for line in lines}) == row.sources
        assert len(lines) == row.sources * row.scenes, lines
        for line in lines:
            if row.status == "ingested":
                assert (line["reader"], line["dataset"]) == (row.reader, row.reader)
                assert line["error"] is None
                assert line["tiles"] > 0
                assert len(line["missing"]) == row.missing, line["missing"]
            else:
                assert line["reader"] in {row.reader, None}
                assert row.says in line["error"]
                assert line["tiles"] == 0
            if row.status == "failed":
                assert Path(line["path"]).name in line["error"]

    def test_what_the_first_run_refused_the_second_ingests(
        self, first_run: FirstRun, tree: Path
    ) -> None:
        store, by_row, *_ = first_run
        wrong = []
        runs: dict[str, list[Row]] = defaultdict(list)
        for row in ROWS:
            if row.again is not None:
                runs[row.again.dataset].append(row)
        for dataset, rows in runs.items():
            again = rows[0].again
            assert again is not None
            paths = sorted({tree / line["path"] for row in rows for line in by_row[row]})
            _, lines, _ = geostore(
                store, "ingest", *paths, "--dataset", dataset, "--workers", 2,
                "--resolution", again.resolution, "--length", again.length,
            )  # fmt: skip
            empty = [line for line in lines if NO_PIXEL in (line["error"] or "")]
            whole = [line for line in lines if line["status"] == "ingested"]
            expected = sum(row.sources * row.scenes for row in rows)
            if (len(whole), len(empty)) != (expected - again.empty, again.empty):
                wrong.append((dataset, len(lines), [line for line in lines if line not in whole]))
        assert wrong == []

    def test_the_store_is_sound(self, first_run: FirstRun) -> None:
        store, by_row, *_ = first_run
        code, (report,), _ = geostore(store, "verify")
        assert (code, report["problems"]) == (0, [])
        ingested = [
            line for lines in by_row.values() for line in lines if line["status"] == "ingested"
        ]
        _, rows, _ = geostore(store, "query")
        found = {(row["dataset"], row["scene"]) for row in rows}
        assert found >= {(line["dataset"], line["scene"]) for line in ingested}
        refused = {line["scene"] for lines in by_row.values() for line in lines} - {
            line["scene"] for line in ingested
        }
        named = {row.again.dataset for row in ROWS if row.again is not None}
        assert not {scene for dataset, scene in found if dataset not in named} & refused
