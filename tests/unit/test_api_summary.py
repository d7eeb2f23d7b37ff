"""Store.summary and what it gives: rows, tables, texts; and mistakes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import geostore
from geostore.api import Selection, Store, SummaryTable
from geostore.errors import InvalidInputError, MissingDependencyError, NotFoundError
from geostore.query import Query, keys_from
from tests.fake_backend import FakeBackend
from tests.summary_model import summary_of
from tests.synthetic_tiles import make_batch, make_entry

START_US = 1_452_614_802_461_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with geostore.open(tmp_path / "store") as opened:
        opened.create_dataset("s2", like="sentinel-2-l1c")
        yield opened


def table(*by: str, **changes: object) -> SummaryTable:
    entries = [
        make_entry("dqcjq", time_us=START_US, cloud=20.0, coverage=50.0, size=1_500_000),
        make_entry("dqcjr", time_us=START_US, cloud=None, coverage=100.0, size=500_000),
        make_entry("dqcjq", scene="<b>", platform=None, time_us=None, cloud=None, size=1),
    ]
    return SummaryTable(summary_of(make_batch(entries), keys_from(by)))


def test_rows_have_all_of_a_group() -> None:
    first, last = table("platform", "geocode:3").rows()
    moment = datetime(2016, 1, 12, 16, 6, 42, 461000, tzinfo=UTC)
    assert first["platform"] == "sentinel-2a"
    assert (first["geocode"], first["scheme"]) == ("dqc", "geohash")
    assert first["bbox"] == (-77.34375, 37.96875, -75.9375, 39.375)
    assert (first["tiles"], first["bytes"]) == (2, 2_000_000)
    assert first["time_first"] == first["time_last"] == moment
    assert (first["cloud_cover_mean"], first["cloud_cover_unknown"]) == (20.0, 1)
    assert (first["pixel_coverage_min"], first["pixel_coverage_mean"]) == (50.0, 75.0)
    assert first["cloud_cover_histogram"] == [0, 0, 0, 0, 1, *[0] * 15]
    assert last["platform"] is None
    assert last["time_first"] is last["time_last"] is last["cloud_cover_max"] is None


def test_texts_are_aligned_and_bounded() -> None:
    text = repr(table("scene", "month"))
    assert text.splitlines()[0] == "2 groups by scene, month: 3 tiles, 2.0 MB"
    assert len({len(line) for line in text.splitlines()[1:]}) == 1
    many = [make_entry(scene=f"{i:03}") for i in range(70)]
    longer = SummaryTable(summary_of(make_batch(many), keys_from("scene")))
    assert repr(longer).splitlines()[-1] == "... and 50 groups more"
    assert "and 20 groups more" in longer._repr_html_()
    html = table("scene")._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>" not in html


def test_pandas_has_the_same_types_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    whole = table("month", "geocode:2")
    empty = SummaryTable(summary_of(make_batch([]), keys_from(("month", "geocode:2"))))
    frame = whole.to_pandas()
    assert list(frame.columns) == list(whole.fields)
    assert frame["tiles"].tolist() == [2, 1]
    assert frame["cloud_cover_mean"].isna().tolist() == [False, True]
    assert frame["time_first"].isna().tolist() == [False, True]
    assert (frame.dtypes == empty.to_pandas().dtypes).all()
    assert repr(empty).startswith("0 groups by month, geocode:2: 0 tiles")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match=r"geostore\[pandas\]"):
        whole.to_pandas()


def test_predicates_are_those_of_query() -> None:
    backend = FakeBackend()
    assert len(Selection(backend, Query()).summary()) == 0  # type: ignore[arg-type]
    assert Store(backend).summary("month", time="2016").by == ("month",)  # type: ignore[arg-type]


def test_mistakes_name_what_was_expected(store: Store) -> None:
    with pytest.raises(InvalidInputError, match="summary key 'week': expected one of dataset"):
        store.summary(by="week")
    with pytest.raises(InvalidInputError, match="limit 3: a summary is of all tiles"):
        store.summary(limit=3)
    with pytest.raises(InvalidInputError, match="sort 'time': a summary is of all tiles"):
        store.query(sort="time").summary()
    with pytest.raises(InvalidInputError, match="keyword 'cluod'"):
        store.summary(cluod=3)
    with pytest.raises(NotFoundError, match="Known: s2"):
        store.summary(dataset="s3")
