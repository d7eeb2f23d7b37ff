"""Every Python block of the README and the docs runs, in order, page by page."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from geostore import demo

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^( *)```python[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
OPTIONAL = ("pandas", "xarray", "dask", "zarr")


def blocks_of(page: Path) -> list[tuple[int, str]]:
    """(line number, code) of each Python block of a page."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        indent = len(match[1])
        code = "\n".join(line[indent:] for line in match[2].splitlines())
        found.append((text.count("\n", 0, match.start(2)) + 1, code))
    return found


PAGES = [
    page
    for page in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    ]
    if page.is_file() and blocks_of(page)
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty directory, which has the shipped scene under the names that docs use."""
    for package in OPTIONAL:
        pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    for name in ("scene.SAFE.zip", "YOUR_SCENE.SAFE.zip"):
        shutil.copy(demo.scene_path(), tmp_path / name)
    names: dict[str, object] = {"__name__": "__main__"}
    for line, code in blocks_of(page):
        # Padded, so that a traceback names the page's own line.
        compiled = compile("\n" * (line - 1) + code, str(page), "exec")
        exec(compiled, names)


def test_pages_have_blocks() -> None:
    """The pattern finds what is there: a page without its blocks would pass in silence."""
    found = {page.name: len(blocks_of(page)) for page in PAGES}
    assert found["README.md"] >= 1
    assert found["guide.md"] >= 12
    for page in PAGES:
        assert len(blocks_of(page)) == page.read_text(encoding="utf-8").count("```python")
