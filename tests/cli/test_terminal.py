"""On a terminal: tables instead of jsonl, and a progress bar that leaves the screen as it was."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pty = pytest.importorskip("pty", reason="needs a POSIX terminal")


def on_terminal(*arguments: object, code: int = 0, **environment: str) -> str:
    """What `geostore ARGUMENTS…` writes to a terminal of 100 columns (stdout and stderr)."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "geostore_cli", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "COLUMNS": "100", "TERM": "xterm", "NO_COLOR": "", **environment},
    ) as process:
        os.close(theirs)
        output = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux: the other side is closed
                break
            if not part:
                break
            output += part
        assert process.wait() == code, output.decode()
    os.close(ours)
    return output.decode().replace("\r\n", "\n")


def last_screen(output: str) -> str:
    """The text after the bar was erased, without the sequences that style it."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.rpartition("\x1b[2K")[2])


def test_ingest_shows_a_bar_and_then_a_table(small_store, tmp_path: Path) -> None:
    output = on_terminal(
        "--store", tmp_path / "s", "ingest", small_store.january, small_store.february
    )
    assert "january.tif" in output
    assert "━" in output
    assert "geostore: ingested january-" in output
    table = last_screen(output).strip().splitlines()
    assert table[0].split() == ["status", "dataset", "tiles", "size", "s", "scene"]
    assert [line.split()[0] for line in table[2:4]] == ["ingested", "ingested"]


def test_rows_that_share_the_screen_have_no_bar(small_store, tmp_path: Path) -> None:
    output = on_terminal(
        "--store", tmp_path / "s", "ingest", small_store.january, "--format", "jsonl"
    )
    assert "━" not in output
    assert '{"path"' in output


def test_listings_are_tables_that_fit(small_store) -> None:
    lines = on_terminal("--store", small_store.path, "query").splitlines()
    assert "coverage %" in lines[0]
    assert all(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) <= 100 for line in lines)
    assert "no tile matches" in on_terminal(
        "--store", small_store.path, "query", "--platform", "nobody"
    )


def test_binary_is_not_written_to_a_terminal(small_store) -> None:
    output = on_terminal("--store", small_store.path, "query", "--format", "parquet", code=2)
    assert "redirect it" in output


def test_the_ring_is_a_picture_in_colours(small_store) -> None:
    drawn = on_terminal("--store", small_store.path, "ring", COLORTERM="truecolor")
    assert "\x1b[38;2;" in drawn
    plain = re.sub(r"\x1b\[[0-9;]*m", "", drawn)
    assert "▀" in plain
    assert all(text in plain for text in ("1 node", "4,096 slots", "2 tiles", "local"))
    assert all(len(line) <= 100 for line in plain.splitlines())
    narrow = on_terminal("--store", small_store.path, "ring", COLUMNS="50")
    assert all(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) <= 50 for line in narrow.splitlines())


@pytest.mark.parametrize("refusal", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_who_wants_no_colours_gets_none(small_store, refusal: dict[str, str]) -> None:
    drawn = on_terminal("--store", small_store.path, "ring", **refusal)
    assert "\x1b" not in drawn
    assert "1 local" in drawn
    failed = on_terminal("--store", "nowhere", "ring", code=1, **refusal)
    assert failed.startswith("geostore: error: no store")
    assert "\x1b" not in failed
