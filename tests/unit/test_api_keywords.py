"""What callers may pass, and what they are told when it cannot be."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from geostore.api import keywords
from geostore.errors import InvalidInputError, NotFoundError
from geostore.types import BBox, TimeSpan

JANUARY_12 = 1_452_556_800_000_000
DAY = 86_400_000_000


@pytest.mark.parametrize(
    ("given", "start", "end"),
    [
        ("2016-01-12", JANUARY_12, JANUARY_12 + DAY - 1),
        (date(2016, 1, 12), JANUARY_12, JANUARY_12 + DAY - 1),
        (datetime(2016, 1, 12), JANUARY_12, JANUARY_12),
        (datetime(2016, 1, 12, 2, tzinfo=timezone(timedelta(hours=2))), JANUARY_12, JANUARY_12),
        (("2016-01-12", "2016-01-13"), JANUARY_12, JANUARY_12 + 2 * DAY - 1),
        ((date(2016, 1, 12), None), JANUARY_12, None),
        ((None, datetime(2016, 1, 12, tzinfo=UTC)), None, JANUARY_12),
        (["..", "2016-01-12"], None, JANUARY_12 + DAY - 1),
        (TimeSpan(1, 2), 1, 2),
        ("2016-01-12/..", JANUARY_12, None),
    ],
)
def test_times(given, start, end) -> None:
    assert keywords.time_span(given) == TimeSpan(start, end)


@pytest.mark.parametrize(
    "given", [5, ("2016", "2017", "2018"), ("2017", "2016"), "yesterday", (7, 8), object()]
)
def test_times_that_cannot_be(given) -> None:
    with pytest.raises(InvalidInputError, match="time"):
        keywords.time_span(given)


def test_boxes() -> None:
    box = BBox(-75.7, 37.6, -75.5, 37.7)
    for given in (box, (-75.7, 37.6, -75.5, 37.7), "-75.7,37.6,-75.5,37.7", list(box.as_tuple())):
        assert keywords.box(given) == box
    assert keywords.box(None) is None


@pytest.mark.parametrize(
    "given",
    [(1, 2, 3), 5, (1, 2, 3, "x"), (0, 50, 1, 40), (0, 0, 0, 91), "1,2,3", (0, 0, None, 1)],
)
def test_boxes_that_cannot_be(given) -> None:
    with pytest.raises(InvalidInputError, match="bbox"):
        keywords.box(given)


def test_geometries_come_as_mappings_objects_and_files(tmp_path) -> None:
    shapely = pytest.importorskip("shapely", reason="shapely is not installed")
    polygon = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
    path = tmp_path / "place.geojson"
    path.write_text(json.dumps({"type": "Feature", "properties": {}, "geometry": polygon}))
    expected = keywords.region(polygon)
    assert keywords.region(shapely.geometry.shape(polygon)) == expected
    assert keywords.region(path) == expected
    assert keywords.region(str(path)) == expected
    assert keywords.region(expected) is expected


def test_geometry_files_that_cannot_be(tmp_path) -> None:
    with pytest.raises(NotFoundError, match=r"absent\.geojson does not exist"):
        keywords.region(tmp_path / "absent.geojson")
    for number, text in enumerate(("", "{", '{"type": "Polygon"}', "[" * 100_000)):
        path = tmp_path / f"{number}.geojson"
        path.write_text(text)
        with pytest.raises(InvalidInputError, match=f"{number}.geojson"):
            keywords.region(path)


def test_percents() -> None:
    assert keywords.percent("cloud_cover", (None, 20)) == keywords.percent("cloud_cover", "..20")
    for given in (20, (1,), (30, 20), (0, 101), "high", (0, "x")):
        with pytest.raises(InvalidInputError, match="cloud_cover"):
            keywords.percent("cloud_cover", given)


def test_numbers_names_and_sizes() -> None:
    assert keywords.names("bands", "B04") == ("B04",)
    assert keywords.names("bands", ["B04", "B08", "B04"]) == ("B04", "B08")
    assert keywords.resolutions([60, 10, 20]) == (10, 20, 60)
    assert keywords.resolutions(10) == (10,)
    for call in (
        lambda: keywords.names("bands", []),
        lambda: keywords.names("bands", 4),
        lambda: keywords.names("bands", [""]),
        lambda: keywords.whole("length", 0),
        lambda: keywords.whole("length", True),
        lambda: keywords.whole("length", 2.0),
        lambda: keywords.resolutions([]),
        lambda: keywords.resolutions(-1),
        lambda: keywords.choice("scheme", "geohsh", ("geohash", "quadtile")),
    ):
        with pytest.raises(InvalidInputError):
            call()
    with pytest.raises(InvalidInputError, match="did you mean 'geohash'"):
        keywords.choice("scheme", "geohsh", ("geohash", "quadtile"))


def test_times_are_written_as_rfc_3339() -> None:
    eastern = timezone(timedelta(hours=-5))
    assert keywords.time_text(datetime(2016, 1, 12, 11, tzinfo=eastern)) == "2016-01-12T16:00:00Z"
    assert keywords.time_text(None) is None


def test_progress_without_a_terminal_is_two_lines_a_scene(capsys) -> None:
    from geostore.types import IngestProgress

    with keywords.shown_progress() as show:
        show(
            IngestProgress(
                path="/x", scene="", dataset="", cells_done=0, cells_total=0, tiles=0, bytes=0,
                is_search=True,
            )
        )  # fmt: skip
        for done in range(4):
            show(
                IngestProgress(
                    path="/x/scene.zip", scene="S", dataset="s2", scenes_done=0,
                    cells_done=done, cells_total=3, tiles=done, bytes=100 * done,
                )
            )  # fmt: skip
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["geostore: scene.zip: 3 cells", "geostore: scene.zip: 3 tiles, 300 bytes"]
