"""`geostore.where`: conditions in the words of a listing, and a store that is asked with them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

import geostore
from geostore import Store, demo, where
from geostore.errors import InvalidInputError, NotFoundError
from geostore.grid import Region
from geostore.query import (
    AllOf,
    AnyOf,
    HasBands,
    InRegion,
    IsNull,
    Not,
    OneOf,
    TimeOverlaps,
    UnderGeocode,
    Within,
)
from geostore.types import BBox, TimeSpan

DAY = TimeSpan.parse("2016-01-12")
BOX = Region.from_bbox(BBox(1.0, 2.0, 3.0, 4.0))
POINT = {"type": "Point", "coordinates": [1.5, 2.5]}


# ---------------------------------------------------------------- conditions


def test_conditions_are_joined() -> None:
    null, clear = where.is_null("cloud_cover"), where.at_most("cloud_cover", 20)
    assert where.any_of(null, clear) == (null | clear) == AnyOf((IsNull("cloud"), clear))
    assert where.all_of(null, clear) == (null & clear) == AllOf((null, clear))
    assert where.not_(null) == ~null == Not(null)
    assert where.any_of(null) == where.all_of(null) == null
    for join in (where.any_of, where.all_of):
        with pytest.raises(InvalidInputError, match="expected a tuple of one or more"):
            join()
        with pytest.raises(InvalidInputError, match="expected an expression"):
            join([null, clear], clear)  # type: ignore[arg-type]


def test_tiles_takes_the_keywords_of_a_query() -> None:
    found = where.tiles(
        dataset=["a", "b"],
        bbox=(1, 2, 3, 4),
        geometry=POINT,
        geocode="dq",
        recursive=False,
        time="2016-01-12",
        cloud_cover=(None, 20),
        pixel_coverage="95..",
        bands="red",
        platform="sentinel-2a",
        scene="S",
    )
    assert isinstance(found, AllOf)
    assert set(found.parts) == {
        OneOf("dataset", ("a", "b")),
        InRegion(BOX),
        InRegion(Region.from_geometry(POINT)),
        UnderGeocode("dq", recursive=False),
        TimeOverlaps(DAY),
        Within("cloud", None, 20),
        Within("coverage", 95.0, None),
        HasBands(("red",)),
        OneOf("platform", ("sentinel-2a",)),
        OneOf("scene", ("S",)),
    }
    assert where.tiles(geocode="dq") == UnderGeocode("dq")
    with pytest.raises(InvalidInputError, match="tiles: got no predicate"):
        where.tiles()
    with pytest.raises(InvalidInputError, match="did you mean 'cloud_cover'"):
        where.tiles(cloud_covr=5)


@pytest.mark.parametrize(
    "day", ["2016-01-12", date(2016, 1, 12), (datetime(2016, 1, 12), "2016-01-12")]
)
def test_a_date_is_the_whole_day(day: Any) -> None:
    start, end = DAY.start_us, DAY.end_us
    assert where.below("time", day) == Within("time", None, start, high_open=True)
    assert where.at_most("time", day) == Within("time", None, end)
    assert where.above("time", day) == Within("time", end, None, low_open=True)
    assert where.at_least("time_end", day) == Within("time_end", start, None)
    assert where.equal("time", day) == Within("time", start, end)
    assert where.between("time", "2016-01-01", day) == Within(
        "time", TimeSpan.parse("2016-01-01").start_us, end
    )


def test_a_datetime_is_an_instant() -> None:
    moment = datetime(2016, 1, 12, 16, 6, 42, tzinfo=UTC)
    elsewhere = moment.astimezone(timezone(timedelta(hours=5)))
    for value in (moment, elsewhere, moment.replace(tzinfo=None), "2016-01-12T16:06:42Z"):
        us = TimeSpan.parse("2016-01-12T16:06:42Z").start_us
        assert where.above("time", value) == Within("time", us, None, low_open=True)


def test_numbers_and_texts() -> None:
    assert where.below("cloud_cover", 20) == Within("cloud", None, 20, high_open=True)
    assert where.at_least("pixel_coverage", 95) == Within("coverage", 95, None)
    assert where.above("bytes", 1 << 20) == Within("bytes", 1 << 20, None, low_open=True)
    assert where.between("cloud_cover", 5, 20) == Within("cloud", 5, 20)
    assert where.equal("platform", "a") == OneOf("platform", ("a",))
    assert where.one_of("scene", ["a", "b", "a"]) == OneOf("scene", ("a", "b"))
    assert where.one_of("scene", "ab") == OneOf("scene", ("ab",))
    assert where.one_of("cloud_cover", [0]) == Within("cloud", 0, 0)
    assert where.is_null("platform") == IsNull("platform")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: where.is_null("clouds"), "field 'clouds': expected one of dataset, geocode"),
        (lambda: where.is_null("bytes"), "bytes is never null; expected one of time, time_end"),
        (lambda: where.below("platform", "b"), "platform: < is not supported for texts"),
        (lambda: where.below("cloud_cover", "20"), "cloud_cover: got '20', expected a number"),
        (lambda: where.below("cloud_cover", 120), "cloud: high is 120"),
        (lambda: where.below("time", 2016), "time: time 2016: expected text"),
        (lambda: where.below("time", None), "time: got None, expected an instant or a date"),
        (lambda: where.below("time", "2016/.."), "expected an instant or a date"),
        (lambda: where.equal("scene", 5), "scene: got 5, expected a text"),
        (lambda: where.equal("cloud_cover", True), "cloud_cover: got True"),
        (lambda: where.one_of("scene", []), "scene: got 0 values"),
        (lambda: where.one_of("time", []), "time: got no value"),
        (lambda: where.between("cloud_cover", 20, 5), "low 20 % is above high 5 %"),
        (lambda: where.between("scene", "a", "b"), "a text has no range"),
        (lambda: where.cql2({"op": "like", "args": []}), "CQL2 operator 'like'"),
    ],
)
def test_what_cannot_be_compared_is_refused(make: Any, says: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        make()
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "code",
    [
        "from geostore import where; where.is_null",
        "import geostore.where; geostore.where.is_null",
        "import geostore; geostore.where.is_null",
    ],
)
def test_it_is_imported_in_every_way_and_brings_nothing_heavy(code: str) -> None:
    script = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    assert not {"numpy", "shapely", "rasterio"} & set(done.stdout.split())


# ---------------------------------------------------------------- a store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The demo's scene, which has no clouds, in two datasets."""
    with geostore.open(tmp_path_factory.mktemp("where") / "store") as opened:
        for name in ("first", "second"):
            (result,) = opened.ingest([demo.scene_path()], dataset=name)
            assert result.error is None
        yield opened


def found(store: Store, **keywords: Any) -> list[tuple[str, str]]:
    return [(tile.dataset, tile.geocode) for tile in store.query(**keywords)]


def test_a_store_answers_conditions(store: Store) -> None:
    every = found(store)
    codes = sorted({code for _, code in every})
    assert len(codes) > 3
    first, last = codes[0], codes[-1]
    either = where.any_of(
        where.tiles(dataset="first", geocode=first), where.tiles(dataset="second", geocode=last)
    )
    assert found(store, where=either) == [("first", first), ("second", last)]
    rest = found(store, where=~either)
    assert sorted(rest + found(store, where=either)) == sorted(every)
    assert found(store, where=where.is_null("cloud_cover")) == every
    cloudy = where.above("cloud_cover", 20)
    assert found(store, where=cloudy) == found(store, where=~cloudy) == []
    assert found(store, dataset="second", where=either) == [("second", last)]
    assert store.query(where=either, sort="-coverage", limit=1).count() == 1
    assert "(dataset is first and geocode under" in repr(store.query(where=either))


def test_a_filter_and_conditions_must_both_hold(store: Store) -> None:
    code = found(store)[0][1]
    condition = {"op": "=", "args": [{"property": "geocode"}, code]}
    both = [("first", code), ("second", code)]
    assert found(store, filter=condition) == found(store, filter=json.dumps(condition)) == both
    assert found(store, filter=condition, where=where.equal("dataset", "first")) == both[:1]


def test_mistakes_name_what_is_known(store: Store) -> None:
    with pytest.raises(NotFoundError, match="dataset 'frst' is not known; did you mean 'first'"):
        store.query(where=~where.tiles(dataset="frst"))
    with pytest.raises(NotFoundError, match="dataset 'x' is not known"):
        store.query(filter={"op": "=", "args": [{"property": "collection"}, "x"]})
    with pytest.raises(NotFoundError, match="band 'B99' is not known"):
        store.query(where=where.tiles(bands="B99") & where.equal("dataset", "first")).count()
    assert store.query(where=~where.tiles(bands="B99")).count() == store.query().count()
    with pytest.raises(InvalidInputError, match="where {'op': 'and'}: expected an expression"):
        store.query(where={"op": "and"})  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="filter.args: got None"):
        store.query(filter={"op": "and"})


def test_explain_puts_the_condition_in_words(store: Store) -> None:
    explain = store.query(
        dataset="first", where=where.at_least("pixel_coverage", 50) | where.is_null("platform")
    ).explain()
    assert explain.predicates["where"] == "coverage >= 50 % or platform is null"
    assert any(step.subject == "where" for step in explain.steps)
