"""README.md does what it says: its Python runs, its commands are those that CI runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from geostore import demo

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = blocks("python")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    first, *tiles = capsys.readouterr().out.splitlines()
    count = int(first.split()[0])
    assert count == len(tiles) >= 1
    for line in tiles:
        assert re.match(r"dqdn\w 2016-01-12 .* \(2, 512, 512\) \d+\.\d% valid$", line), line


def test_ci_runs_the_readmes_test_command() -> None:
    run_demo, run_tests = (block.strip() for block in blocks("bash"))
    assert run_demo.endswith(".venv/bin/geostore demo")
    install, command = run_tests.split(" && ")[1:]
    ci = (ROOT / ".ci" / "run").read_text()
    assert (
        f'"$scratch/venv/bin/{install.removeprefix(".venv-dev/bin/")}'.replace(
            "bin/pip install", 'bin/pip" install'
        )
        in ci
    )
    assert command == ".venv-dev/bin/pytest -n 2"
    assert 'section "tests" "$bin/pytest" -n 2\n' in ci


def test_its_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert targets
    missing = [target for target in targets if not (ROOT / target).exists()]
    assert not missing


def test_the_cluster_is_up_and_down_again(tmp_path: Path) -> None:
    (session,) = blocks("console")
    lines = [line.removeprefix("$ ") for line in session.splitlines()]
    assert lines[0].startswith("export GEOSTORE_STORE=$(geostore cluster up")
    shutil.copy(demo.scene_path(), tmp_path)
    script = "\n".join(
        [
            "set -e -o pipefail",
            f'geostore() {{ {shlex.quote(sys.executable)} -m geostore_cli "$@"; }}',
            "trap 'geostore cluster down' EXIT",
            *lines,
            "geostore cluster status",
        ]
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "cli")])
    ended = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert ended.returncode == 0, ended.stderr
    said = [json.loads(line) for line in ended.stdout.splitlines()]
    assert said[0]["status"] == "ingested"
    assert [tile["geocode"] for tile in said if "geocode" in tile] == ["dqdnr"]
    assert [node["node"] for node in said if "slots_first" in node] == ["n1", "n2", "n3"]
    assert [node["state"] for node in said if "pid" in node] == ["down"] * 3
