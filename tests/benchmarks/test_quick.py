"""Every benchmark runs at its quick size, so that none rots between runs by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BENCHMARKS = sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_quick_size_runs_and_prints_a_table(name: str, shared_data: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", f"tests.benchmarks.{name}", "--quick"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.splitlines()) > 5
    assert name.removeprefix("bench_") in (REPOSITORY / "docs/benchmarks.md").read_text()
