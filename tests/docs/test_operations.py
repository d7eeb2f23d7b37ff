"""docs/operations.md: its commands parse, its unit file starts a node, its metrics exist.

That they do what it says is shown by tests/integration/test_namespaces.py.
"""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from geostore import metrics
from geostore_cli.main import cli

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def unit() -> configparser.ConfigParser:
    """The systemd unit."""
    (text,) = blocks("ini")
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


def commands() -> list[list[str]]:
    """Every geostore command of the page, as the words behind `geostore`."""
    lines = re.findall(r"^\$ (geostore .+)$", "\n".join(blocks("console")), re.MULTILINE)
    return [shlex.split(line)[1:] for line in (*lines, unit()["Service"]["ExecStart"])]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_parse(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word for word in words if word != "-v"]  # stands before the command, too
    command: click.Command = cli
    while isinstance(command, click.Group):
        assert words[0] in command.commands, words
        command, words = command.commands[words[0]], words[1:]
    assert command.make_context(command.name, list(words)).params


def test_the_page_has_what_is_checked_here() -> None:
    assert len(commands()) >= 10
    assert len(blocks("bash")) == 1


def test_its_metrics_exist() -> None:
    known = {
        f"geostore_{value.name}{'_total' if value.kind == 'counter' else ''}"
        for value in vars(metrics).values()
        if isinstance(value, metrics.Metric)
    }
    named = set(re.findall(r"`(geostore_\w+)`", PAGE))
    assert len(named) >= 10
    assert named <= known


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    service = unit()["Service"]
    (text,) = blocks("ini")
    # What is on no machine but the reader's: the user, the program.
    program = shlex.split(service["ExecStart"])[0]
    text = text.replace(f"User={service['User']}", "User=root").replace(program, "/bin/true")
    path = tmp_path / "geostore.service"
    path.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "geostore.service" not in done.stderr + done.stdout
    assert done.returncode == 0, done.stderr
