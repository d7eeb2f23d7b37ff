"""What an ingest says on stderr while sources are still being looked for."""

from __future__ import annotations

import pytest

from geostore.types import IngestProgress
from geostore_cli import progress
from geostore_cli.session import Session


def _search(count: int) -> IngestProgress:
    return IngestProgress(
        path="/data/tiles/a.tif", scene="", dataset="", cells_done=0, cells_total=0, tiles=0,
        bytes=0, sources_total=count, is_search=True,
    )  # fmt: skip


def test_a_long_search_is_told_in_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_INTERVAL_S", 0.0)
    with progress.IngestView(Session()) as view:
        view(_search(1200))
    assert capsys.readouterr().err == (
        "geostore: 1,200 sources found so far; searching /data/tiles\n"
    )


def test_a_short_one_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.IngestView(Session()) as view:
        view(_search(12))
    assert capsys.readouterr().err == ""
