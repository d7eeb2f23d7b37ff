"""`geostore cluster`: what it prints, over a stub in place of the node."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from geostore.api.local_cluster import LocalCluster
from geostore_cli import cluster as cluster_module
from geostore_cli.listing import span_text
from geostore_cli.main import GeostoreGroup

STUB = """
import signal, sys
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
if "broken" in options["--data"]:
    sys.exit("no room")
print("serving", options["--listen"], flush=True)
signal.sigwait([signal.SIGTERM])
"""

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs `geostore cluster ARGUMENTS…` in `tmp_path`."""
    stub = tmp_path / "stub.py"
    stub.write_text(STUB)
    made: list[LocalCluster] = []

    def local_cluster(directory: Path) -> LocalCluster:
        made.append(LocalCluster(directory, command=[sys.executable, "-S", str(stub)]))
        return made[-1]

    monkeypatch.setattr(cluster_module, "local_cluster", local_cluster)
    monkeypatch.chdir(tmp_path)
    cli = GeostoreGroup("geostore", commands={"cluster": cluster_module.cluster})

    def run(*arguments: object, code: int = 0) -> Result:
        result = CliRunner().invoke(cli, ["cluster", *map(str, arguments)])
        assert result.exit_code == code, result.output
        return result

    yield run
    for one in made:
        one.down()


def test_up_prints_the_target_and_down_ends_it(run: Run, tmp_path: Path) -> None:
    result = run("up", "--nodes", 2, "--port", 7440)
    target = "geostore://127.0.0.1:7440,127.0.0.1:7441"
    assert result.stdout == f"{target}\n"
    assert result.stderr.splitlines() == [
        "geostore: n1 serves at 127.0.0.1:7440",
        "geostore: n2 serves at 127.0.0.1:7441",
        f"geostore: use it: export GEOSTORE_STORE={target}",
        "geostore: stop it: geostore cluster down",
    ]
    assert (tmp_path / "geostore-cluster" / "cluster.json").exists()
    again = run("up", "-q")
    assert (again.stdout, again.stderr) == (f"{target}\n", "")
    assert run("down").stderr == "geostore: stopped 2 nodes\n"
    assert run("down").stderr == "geostore: no node of geostore-cluster runs\n"
    assert "no cluster in nowhere" in run("down", "--dir", "nowhere", code=1).stderr


def test_status_lists_the_processes(run: Run, tmp_path: Path) -> None:
    run("up", "--nodes", 2, "--dir", tmp_path / "my cluster", "--port", 7440)
    where = ("--dir", tmp_path / "my cluster")
    rows = [json.loads(line) for line in run("status", *where).stdout.splitlines()]
    assert list(rows[0]) == ["name", "pid", "address", "state", "directory", "uptime_s"]
    assert [(row["name"], row["address"], row["state"]) for row in rows] == [
        ("n1", "127.0.0.1:7440", "up"),
        ("n2", "127.0.0.1:7441", "up"),
    ]
    assert rows[0]["directory"] == str(tmp_path / "my cluster" / "n1")
    assert rows[0]["pid"] != rows[1]["pid"]
    table = run("status", *where, "--format", "table").stdout.splitlines()
    assert table[0].split() == ["name", "pid", "address", "state", "uptime", "directory"]
    assert table[2].split()[:4] == ["n1", str(rows[0]["pid"]), "127.0.0.1:7440", "up"]
    run("down", *where)
    text = run("status", *where, "--format", "csv").stdout
    assert [(row["state"], row["pid"]) for row in csv.DictReader(io.StringIO(text))] == [
        ("down", ""),
        ("down", ""),
    ]


def test_the_way_down_is_told_for_the_directory(run: Run, tmp_path: Path) -> None:
    result = run("up", "--nodes", 1, "--dir", "my cluster")
    assert result.stderr.endswith("geostore: stop it: geostore cluster down --dir 'my cluster'\n")


def test_failures_are_one_line_and_exit_1(run: Run) -> None:
    result = run("up", "--dir", "broken", code=1)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("geostore: error: node n1 at 127.0.0.1:")
    assert line.endswith("its log ends: no room")
    assert run("status", code=1).stderr.startswith("geostore: error: no cluster in ")
    run("up", "--nodes", 1)
    assert "has 1 nodes and 1 replicas, not 2" in run("up", "--nodes", 2, code=1).stderr


@pytest.mark.parametrize(
    "arguments",
    [("up", "--nodes", "0"), ("up", "--port", "0"), ("up", "--replicas", "x"), ("upp",)],
)
def test_wrong_usage_exits_2(run: Run, arguments: tuple[str, ...]) -> None:
    run(*arguments, code=2)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (7200, "2 h 0 min"), (90_000, "1 d 1 h")],
)
def test_uptimes(seconds: float, text: str) -> None:
    assert span_text(seconds) == text
