"""Wrong usage, help, and how a run ends: one clear line on stderr and the right exit code."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import click
import pytest

import geostore
from geostore.errors import (
    CorruptDataError,
    InvalidInputError,
    NotFoundError,
    UnreadableSourceError,
)
from geostore_cli.main import cli, run
from geostore_cli.session import Session, message


def commands(group: click.Group, *names: str) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += commands(command, *names, name)
        else:
            found.append((*names, name))
    return found


COMMANDS = commands(cli)


def test_the_commands_are_the_contracts() -> None:
    assert [" ".join(names) for names in COMMANDS] == [
        "demo",
        "dataset create",
        "dataset list",
        "dataset show",
        "dataset recloud",
        "dataset delete",
        "ingest",
        "query",
        "coverage",
        "export",
        "node",
        "cluster up",
        "cluster status",
        "cluster down",
        "status",
        "ring",
        "verify",
    ]


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_the_shared_options(geostore_run, names) -> None:
    text = geostore_run(*names, "--help").stdout
    assert text.startswith(f"Usage: geostore {' '.join(names)}")
    for option in ("--store TARGET", "--config FILE", "-v, --verbose", "-q, --quiet"):
        assert option in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["qurey"], "no command 'qurey': did you mean query?"),
        (["frobnicate"], "no command 'frobnicate': expected demo, dataset"),
        (["dataset", "shwo"], "did you mean show?"),
        (["query", "--boox", "1,2,3,4"], "--bbox"),
        (["query", "--bbox", "1,2,3"], "got 3 values, expected west,south,east,north"),
        (["query", "--bbox", "1,9,3,4"], "south 9 is above north 4"),
        (["query", "--bbox", "1,2,nan,4"], "finite"),
        (["query", "--time", "2017/2016"], "is after end"),
        (["query", "--time", "yesterday"], "not a year, month, date or RFC 3339 time"),
        (["query", "--cloud", "20"], "expected MIN..MAX"),
        (["query", "--cloud", ".."], "expected MIN..MAX"),
        (["query", "--cloud", "50..20"], "50 is above 20"),
        (["query", "--coverage", "95..101"], "101 is not in 0..100"),
        (["query", "--coverage", "x.."], "'x' is not a number"),
        (["query", "--bands", "B04,,B08"], "empty name"),
        (["query", "--exact"], "--exact needs --geocode"),
        (["query", "--sort", "size"], "--sort"),
        (["query", "--limit", "-1"], "--limit"),
        (["query", "--count", "--explain"], "exclude each other"),
        (["query", "--geometry", "nowhere.geojson"], "nowhere.geojson"),
        (["query", "--format", "xml"], "--format"),
        (["query", "--filter", "cloud_cover < 20"], "filter: not JSON"),
        (["query", "--filter", "@nowhere.json"], "filter file nowhere.json: No such file"),
        (
            ["query", "--filter", '{"op": "<", "args": [{"property": "clouds"}, 20]}'],
            "filter.args[0]: unknown property 'clouds'; known: dataset, geocode, scene",
        ),
        (
            ["query", "--filter", '{"op": "like", "args": [{"property": "scene"}, "S2A%"]}'],
            "CQL2 operator 'like' is not supported; supported: and, or, not, =",
        ),
        (
            ["export", "--out", "x", "--filter", '{"op": "not", "args": [{"op": "and"}]}'],
            "filter.args[0].args: got None, expected a list",
        ),
        (["ingest"], "PATH"),
        (["ingest", "a.tif", "--resolution", "0"], "expected a pixel size in metres, above 0"),
        (["ingest", "a.tif", "--resolution", "10,inf"], "above 0"),
        (["ingest", "a.tif", "--max-tiles", "0"], "--max-tiles"),
        (["ingest", "a.tif", "--workers", "5000"], "1..1024"),
        (["export"], "--out"),
        (["ring", "--geocode", "dq8x3"], "--dataset and --geocode go together"),
        (["dataset", "create", "a/b"], "expected letters, digits"),
        (["dataset", "create", "n" * 10_000], "10000 characters"),
        (["dataset", "create", "a", "--length", "0"], "--length"),
        (["--config", "nowhere.toml", "status"], "nowhere.toml"),
        (["--store", "http://x/y", "status"], "scheme http"),
        (["--store", "geostore://localhost", "status"], "HOST:PORT"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_users_mistake_is_one_line_and_exit_2(
    geostore_run, tmp_path, monkeypatch, arguments, said
) -> None:
    monkeypatch.chdir(tmp_path)
    result = geostore_run(*arguments, code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("geostore: error: ")
    assert result.stderr.count("\n") == 1
    assert said in result.stderr
    assert not list(tmp_path.iterdir()), "a mistake must not leave a store behind"


def test_no_command_shows_help_as_wrong_usage(geostore_run) -> None:
    result = geostore_run(code=2)
    assert "Commands:" in result.stderr


def test_version(geostore_run) -> None:
    assert geostore_run("--version").stdout == f"geostore {geostore.__version__}\n"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InvalidInputError("bad box"), 2, "geostore: error: bad box\n"),
        (UnreadableSourceError("a.jp2: truncated"), 1, "geostore: error: a.jp2: truncated\n"),
        (NotFoundError("no dataset x"), 1, "geostore: error: no dataset x\n"),
        (CorruptDataError("x:\n  line two"), 1, "geostore: error: x: line two\n"),
        (CorruptDataError("x\n  line two"), 1, "geostore: error: x; line two\n"),
        (OSError(13, "Permission denied", "/etc/x"), 1, "error: Permission denied: /etc/x\n"),
        (ZeroDivisionError("division by zero"), 1, "a bug in geostore"),
        (KeyboardInterrupt(), 130, "interrupted: nothing unfinished is visible"),
    ],
)
def test_how_errors_end_a_run(capsys, error, code, said) -> None:
    def fail() -> None:
        raise error

    assert run(fail, Session()) == code
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
    assert run(fail, Session(verbosity=2)) == code
    assert "Traceback" in capsys.readouterr().err


def test_messages_escape_what_could_move_the_cursor(capsys) -> None:
    message("error: scene '\x1b[2Jevil\r'")
    assert capsys.readouterr().err == "geostore: error: scene '\\x1b[2Jevil\\r'\n"


def test_options_stand_before_or_after_the_command(geostore_run, small_store, monkeypatch) -> None:
    store = small_store.path
    before = geostore_run("--store", store, "dataset", "list").stdout
    assert '"geotiff"' in before
    assert geostore_run("dataset", "--store", store, "list").stdout == before
    assert geostore_run("dataset", "list", "--store", store).stdout == before
    # The last one wins, and a flag wins over the variable.
    monkeypatch.setenv("GEOSTORE_STORE", "/nowhere")
    assert geostore_run("--store", "/nowhere", "dataset", "list", "--store", store).stdout == before
    monkeypatch.setenv("GEOSTORE_STORE", str(store))
    assert geostore_run("dataset", "list").stdout == before


def test_settings_come_from_a_file(geostore_run, small_store, tmp_path, monkeypatch) -> None:
    config = tmp_path / "geostore.toml"
    config.write_text(f'store = "{small_store.path}"\nformat = "csv"\n')
    lines = geostore_run("dataset", "list", "--config", config).stdout.splitlines()
    assert lines[0].startswith("name,scheme,length")
    monkeypatch.setenv("GEOSTORE_FORMAT", "jsonl")
    assert geostore_run("dataset", "list", "--config", config).stdout.startswith("{")
    config.write_text('shop = "x"\n')
    assert "'shop' is not a setting" in geostore_run("status", "--config", config, code=2).stderr


def test_a_store_that_is_not_there_is_named(geostore_run, tmp_path) -> None:
    result = geostore_run("--store", tmp_path / "none", "query", code=1)
    assert "none" in result.stderr
    assert result.stderr.startswith("geostore: error: no store at ")
    assert not (tmp_path / "none").exists()


def test_very_verbose_logs_everything_and_leaves_logging_alone(geostore_run, small_store) -> None:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    geostore_run("-vv", "--store", small_store.path, "status")
    assert (list(root.handlers), root.level) == (handlers, level)


def python(*arguments: str, **keywords: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, **keywords
    )


def test_help_loads_nothing_heavy() -> None:
    heavy = ("numpy", "rasterio", "rich", "pyproj", "shapely", "lmdb", "xarray", "pandas")
    code = (
        "import sys\n"
        "from geostore_cli.main import cli\n"
        "try:\n    cli.main(['query', '--help'])\n"
        "except SystemExit:\n    pass\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    result = python("-c", code)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


def test_as_a_process(small_store) -> None:
    result = python("-m", "geostore_cli", "--store", str(small_store.path), "query", "--count")
    assert (result.returncode, result.stderr) == (0, "")
    assert int(result.stdout) > 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full (Linux)")
def test_a_full_disk_under_stdout_is_an_error(small_store) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "geostore_cli", "--store", str(small_store.path), "status"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr.startswith("geostore: error: No space left on device")
    assert result.stderr.count("\n") == 1


def test_a_reader_that_leaves_is_met_with_silence(small_store) -> None:
    # The pipe's reading end is closed before anything is written.
    code = (
        "import os, sys\n"
        "reading, writing = os.pipe()\n"
        "os.close(reading)\n"
        "os.dup2(writing, 1)\n"
        "from geostore_cli.main import cli\n"
        f"cli.main(['--store', {str(small_store.path)!r}, 'query'])"
    )
    result = python("-c", code)
    assert (result.returncode, result.stderr) == (141, "")


def test_who_names_the_wrong_directory_is_told_what_it_is(geostore_run, tmp_path: Path) -> None:
    cluster = tmp_path / "my cluster"
    cluster.mkdir()
    (cluster / "cluster.json").write_text("{}")
    said = geostore_run("--store", cluster, "status", code=1).stderr
    assert f"geostore cluster up --dir '{cluster}'" in said
    said = geostore_run("--store", "127.0.0.1:7440", "status", code=1).stderr
    assert "a cluster's is geostore://127.0.0.1:7440" in said
    said = geostore_run("--store", tmp_path / "nothing", "status", code=1).stderr
    assert "cluster" not in said.split("nothing")[1]
    said = geostore_run("--store", "geostore:/127.0.0.1:7440", "status", code=2).stderr
    assert "expected geostore://host:port" in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["cluster", "up", "--nodes", "0"], "'0' is not a whole number of 1..64"),
        (["demo", "--nodes", "three"], "'three' is not a whole number of 1..64"),
        (["query", "--limit", "-1"], "'-1' is not a whole number from 0"),
    ],
)
def test_a_number_that_cannot_be_is_told_what_could(
    geostore_run, words: list[str], expected: str
) -> None:
    assert expected in geostore_run(*words, code=2).stderr
