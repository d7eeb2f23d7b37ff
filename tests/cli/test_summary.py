"""`geostore query --summary`: groups as lines, pictures as files, and mistakes."""

from __future__ import annotations

import csv
import io
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from matplotlib.image import imread

from geostore.api import Selection
from geostore.query import Query
from geostore_cli import summary_picture
from tests.cli.conftest import SmallStore
from tests.summary_model import summary_of
from tests.synthetic_tiles import QUAD_SCHEMA, US_DAY, make_batch, make_entry

Run = Callable[..., Result]
YEAR_US = 365 * US_DAY


class Rows:
    """A backend of rows alone: summaries are all that is asked of it."""

    def __init__(self, *entries: Any) -> None:
        self._batch = make_batch(entries)

    def summary(self, query: Query, by: Any) -> Any:
        return summary_of(self._batch, by)


def selection_of(*entries: Any) -> Selection:
    return Selection(Rows(*entries), Query())  # type: ignore[arg-type]


def summary(run: Run, store: SmallStore, *arguments: object, **keywords: Any) -> Result:
    return run("--store", store.path, "query", "--summary", *arguments, **keywords)


# ---------------------------------------------------------------- lines


def test_groups_are_lines(geostore_run: Run, small_store: SmallStore) -> None:
    plain = geostore_run("--store", small_store.path, "query")
    tiles = [json.loads(line) for line in plain.stdout.splitlines()]
    (whole,) = map(json.loads, summary(geostore_run, small_store).stdout.splitlines())
    assert (whole["dataset"], whole["tiles"]) == ("geotiff", len(tiles))
    assert whole["bytes"] == sum(tile["bytes"] for tile in tiles)
    assert sum(whole["pixel_coverage_histogram"]) == len(tiles)
    assert whole["cloud_cover_mean"] is None
    assert whole["cloud_cover_unknown"] == len(tiles)
    months = summary(geostore_run, small_store, "--by", "month").stdout.splitlines()
    assert [json.loads(line)["month"] for line in months] == ["2016-01", "2016-02"]
    assert json.loads(months[0])["time_first"] == "2016-01-12T16:06:42Z"


def test_several_keys_in_any_format(geostore_run: Run, small_store: SmallStore) -> None:
    keys = ("--by", "geocode:3, month")
    text = summary(geostore_run, small_store, *keys, "--format", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0])[:5] == ["geocode", "scheme", "month", "bbox", "tiles"]
    table = summary(geostore_run, small_store, *keys, "--format", "table").stdout
    assert rows[0]["geocode"] in table
    assert "coverage %" in table
    assert "–" in table  # of clouds nobody knows


def test_nothing_matches(geostore_run: Run, small_store: SmallStore) -> None:
    assert summary(geostore_run, small_store, "--time", "1999").stdout == ""


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--plot", "a.png"), "--plot needs --summary"),
        (("--by", "month"), "--by needs --summary"),
        (("--summary", "--by", "week"), "summary key 'week': expected one of dataset, month"),
        (("--summary", "--by", "month,"), "summary key ''"),
        (("--summary", "--by", "geocode:30"), "N of 1..26"),
        (("--summary", "--by", "month,month"), "month is there twice"),
        (("--summary", "--limit", "0"), "--limit: a summary is of all tiles"),
        (("--summary", "--sort", "-time"), "--sort: a summary is of all tiles"),
        (("--summary", "--count"), "--count, --explain and --summary exclude each other"),
        (("--summary", "--explain"), "exclude each other"),
        (("--summary", "--format", "geojson"), "a summary is table, jsonl or csv"),
        (("--summary", "--plot", "a.txt"), "ends in one of .png"),
        (("--summary", "--plot", "png"), "ends in one of .png"),
        (("--summary", "--plot", "none/such/a.png"), "is no directory"),
    ],
    ids=str,
)
def test_mistakes_are_usage_errors_before_anything_is_asked(
    geostore_run: Run, arguments: tuple[str, ...], said: str
) -> None:
    result = geostore_run("--store", "/none/such/store", "query", *arguments, code=2)
    assert said in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_a_directory_is_no_picture(geostore_run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    result = geostore_run("query", "--summary", "--plot", tmp_path / "a.png", code=2)
    assert "is a directory" in result.stderr


def test_without_matplotlib_it_says_what_to_install(
    geostore_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = geostore_run("query", "--summary", "--plot", "a.png", code=1)
    assert "pip install 'geostore[plot]'" in result.stderr


def test_a_picture_that_cannot_be_written_leaves_nothing(
    geostore_run: Run,
    small_store: SmallStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    result = summary(geostore_run, small_store, "--plot", tmp_path / "a.png", code=1)
    assert "a.png: cannot be written: No space left on device" in result.stderr
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- pictures


def is_drawn(path: Path) -> None:
    pixels = imread(path)
    assert min(pixels.shape[:2]) > 300
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 10


@pytest.mark.parametrize("time", ["2016", "2016-02", "1999"])
def test_a_picture_of_two_months_one_or_none(
    geostore_run: Run, small_store: SmallStore, tmp_path: Path, time: str
) -> None:
    path = tmp_path / "out.PNG"
    path.write_text("before")
    summary(geostore_run, small_store, "--time", time, "--plot", path)
    is_drawn(path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o400


@pytest.mark.parametrize("suffix", ["svg", "pdf", "jpg"])
def test_other_kinds_of_pictures(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    summary_picture.draw(selection_of(make_entry()), path)
    assert path.stat().st_size > 5000


CASES = {
    "one": [make_entry()],
    "timeless": [make_entry(time_us=None)],
    "some timeless": [make_entry(time_us=None), make_entry(scene="b", cloud=None)],
    "many years": [make_entry(scene=str(y), time_us=y * YEAR_US) for y in range(-1000, 8000, 500)],
    "leap day": [make_entry(time_us=1_456_704_000_000_000, scene="$x_1$")],
    "both schemes": [make_entry("dqcjq"), make_entry("0302222310233", schema=QUAD_SCHEMA)],
    "antimeridian": [make_entry("xbpbp"), make_entry("80000")],
    "poles": [make_entry("zzzzz"), make_entry("00000"), make_entry("bpbpb")],
    "uneven": [make_entry(scene=str(i)) for i in range(200)]
    + [make_entry("dqcjr", time_us=US_DAY)],
}


@pytest.mark.parametrize("name", CASES)
def test_odd_stores_are_drawn(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        summary_picture.draw(selection_of(*CASES[name]), tmp_path / "a.png")
    assert not caplog.records
    is_drawn(tmp_path / "a.png")


def test_cells_across_the_antimeridian_are_side_by_side() -> None:
    west, _, east, _ = summary_picture.places(selection_of(*CASES["antimeridian"])).extent
    assert 179.9 < west < 180 < east < 180.1


def test_cells_too_small_to_see_are_drawn_by_shorter_prefixes() -> None:
    far = [make_entry("dqcjq"), make_entry("u4pru")]
    found = summary_picture.places(selection_of(*far))
    assert max(cell[2] - cell[0] for cell in found.cells) > 0.3
    assert found.text == "geohash, 3 digits"
    assert found.tiles == [1, 1]


def test_more_cells_than_a_summary_has_are_drawn_by_shorter_prefixes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(summary_picture, "CELLS_MAX", 2)
    near = [make_entry(f"dqc{digit}q") for digit in "0123"]
    found = summary_picture.places(selection_of(*near))
    assert found.text == "geohash, 3 digits"
    assert found.tiles == [4]
