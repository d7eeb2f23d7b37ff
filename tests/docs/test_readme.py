"""README.md does what it says: its Python runs, its commands are those that CI runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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
    assert command == ".venv-dev/bin/pytest"
    assert 'section "tests" "$bin/pytest"\n' in ci


def test_its_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert targets
    missing = [target for target in targets if not (ROOT / target).exists()]
    assert not missing
