"""Store, Selection and Tile on the shipped scene, through the real backend."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

import geostore
from geostore import demo
from geostore.api import Selection, Store
from geostore.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    ReadOnlyError,
    UnavailableError,
)
from geostore.query import Query
from geostore.types import SceneStatus
from tests.fake_backend import FakeBackend, band

NAME = "S2A_MSIL1C_20160112T160642_N0201_R097_T18SVG_20160112T160642_CUT"
DATASET = "sentinel-2-l1c"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("api") / "store"
    with geostore.open(place) as store:
        (result,) = store.ingest([demo.scene_path()])
        assert result.error is None
    return place


@pytest.fixture(scope="module")
def store(directory: Path) -> Iterator[Store]:
    with geostore.open(directory, mode="r") as opened:
        yield opened


def codes(selection: Selection) -> list[str]:
    return [tile.geocode for tile in selection]


def test_tiles_have_the_fields_of_the_contract(store) -> None:
    tile = store.query(sort="-coverage").first()
    line = tile.to_json()
    assert list(line) == [
        "dataset", "geocode", "scene", "time", "time_end", "platform", "bands",
        "pixel_coverage", "cloud_cover", "bbox", "bytes", "nodes",
    ]  # fmt: skip
    assert line["scene"] == NAME
    assert line["time"] == "2016-01-12T16:06:42.461000Z"
    assert tile.time == datetime(2016, 1, 12, 16, 6, 42, 461000, tzinfo=UTC)
    assert line["geocode"] == "dqdnr"
    assert line["cloud_cover"] is None
    assert line["platform"] == "sentinel-2a"
    assert set(line["bands"]) >= {"B02", "B8A", "B11", "B10"}
    assert tile.common_names["red"] == "B04"
    assert tile.bbox.west < -75.6 < tile.bbox.east
    assert tile.properties["mgrs_tile"] == "18SVG"
    assert tile.statistics["B04"].minimum > 0
    assert tile.cloud_histogram is None
    assert tile.cloud_method is None
    assert NAME in repr(tile)


def test_selections_are_lazy_and_can_be_asked_again(store) -> None:
    tiles = store.query(dataset=DATASET)
    assert tiles.count() == 9
    assert codes(tiles) == codes(tiles) == sorted(codes(tiles))
    assert store.query(limit=2).count() == 2
    explain = tiles.explain()
    assert explain.rows_matched == 9
    assert "matched 9 of 9 tiles" in explain.to_text()


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"geocode": "dqdn"}, 6),
        ({"geocode": "dqdnr"}, 1),
        ({"geocode": "dqdn", "recursive": False}, 0),
        ({"bbox": (-75.6, 37.68, -75.59, 37.69)}, 1),
        ({"bbox": "-75.6,37.68,-75.58,37.69"}, 2),
        ({"geometry": {"type": "Point", "coordinates": [-75.6, 37.68]}}, 1),
        ({"time": "2016-01"}, 9),
        ({"time": ("2017", None)}, 0),
        ({"time": datetime(2016, 1, 12, 16, 6, 42, 461000)}, 9),
        ({"pixel_coverage": (95, None)}, 1),
        ({"cloud_cover": (None, 100)}, 0),
        ({"bands": ["B04", "nir"]}, 9),
        ({"platform": "sentinel-2b"}, 0),
        ({"scene": NAME}, 9),
        ({"dataset": [DATASET], "limit": 4}, 4),
        ({"limit": 0}, 0),
    ],
)
def test_each_predicate(store, query, count) -> None:
    assert store.query(**query).count() == len(codes(store.query(**query))) == count


def test_a_box_and_a_geometry_must_both_hold(store) -> None:
    west = {"type": "Polygon", "coordinates": [
        [[-75.7, 37.5], [-75.63, 37.5], [-75.63, 37.8], [-75.7, 37.8], [-75.7, 37.5]]
    ]}  # fmt: skip
    box = (-75.7, 37.5, -75.5, 37.66)
    both = store.query(bbox=box, geometry=west)
    expected = set(codes(store.query(bbox=box))) & set(codes(store.query(geometry=west)))
    assert set(codes(both)) == expected == {"dqdnn"}
    assert both.count() == 1
    assert store.query(bbox=box, geometry=west, limit=1).count() == 1
    assert store.query(bbox=box, geometry=west, limit=0).count() == 0
    assert " and " in repr(both)
    told = both.explain()
    assert told.rows_matched == 1
    assert " and " in told.predicates["region"]
    assert both.to_arrow().num_rows == len(both.to_pandas()) == 1
    apart = {"type": "Point", "coordinates": [10.0, 50.0]}
    assert list(store.query(bbox=box, geometry=apart)) == []


def test_unknown_names_are_errors_that_name_the_known(store) -> None:
    with pytest.raises(NotFoundError, match=f"'sentinel-2-l1'.*did you mean '{DATASET}'"):
        store.query(dataset="sentinel-2-l1")
    with pytest.raises(NotFoundError, match=DATASET):
        store.dataset("other")
    with pytest.raises(NotFoundError, match=r"'B99'.*Known: B01"):
        store.query(bands=["B99"]).count()
    with pytest.raises(NotFoundError, match="'B99'"):
        list(store.query(bands=["B04", "B99"]))
    assert store.query(bands=["B04"], time="2019").count() == 0
    with pytest.raises(InvalidInputError, match=r"query: keyword 'cloud'.*'cloud_cover'"):
        store.query(cloud=(0, 20))
    with pytest.raises(InvalidInputError, match=r"read: keyword 'band'.*did you mean 'bands'"):
        store.query().first().read(band="B04")
    with pytest.raises(InvalidInputError, match=r"ingest_each: keyword 'datset'.*'dataset'"):
        store.ingest([], datset="x")
    with pytest.raises(NotFoundError, match="no tile matches"):
        store.query(time="2019").first()


def test_reading_many_tiles_is_reading_each(store) -> None:
    tiles = store.query()
    for tile, array in tiles.read(["B09"], workers=2):
        np.testing.assert_array_equal(array.data, tile.read("B09").data)
    with pytest.raises(InvalidInputError, match="keyword"):
        tiles.read(bnds="B04")


def test_mosaic_of_tiles_is_the_cube_in_one_step(store) -> None:
    pytest.importorskip("xarray", reason="xarray is not installed")
    whole = store.query().mosaic(["B02", "B11"]).read()
    cube = store.query().to_xarray(["B02", "B11"])
    assert whole.data.shape == (2, 1536, 1536)
    np.testing.assert_array_equal(whole.data, [cube.B02.values[0], cube.B11.values[0]])


def test_what_people_see(store) -> None:
    tiles = store.query(pixel_coverage=(None, 60), sort="-coverage", limit=7)
    assert repr(tiles) == "Selection(coverage within ..60 %; sort -coverage; limit 7)"
    assert repr(store.query()) == "Selection(all tiles)"
    html = tiles._repr_html_()
    assert html.count("<tr>") == 6
    assert "and more" in html
    assert "dqdnp" in html
    assert str(store.name) in repr(store)


def test_status_and_verify(store) -> None:
    assert store.status().tiles == 9
    assert store.verify().is_clean


def test_a_store_opened_to_read_does_not_write(store) -> None:
    with pytest.raises(ReadOnlyError):
        store.create_dataset("new", like=DATASET)


def test_ingesting_again_changes_nothing(directory) -> None:
    with geostore.open(directory) as store:
        (again,) = store.ingest(demo.scene_path())
        assert (again.status, again.tiles) == (SceneStatus.UNCHANGED, 9)
        seen = []
        store.ingest(demo.scene_path(), progress=seen.append)
        assert seen == []
        assert store.query().count() == 9


def test_datasets_are_made_shown_and_deleted(tmp_path) -> None:
    with geostore.open(tmp_path / "s") as store:
        made = store.create_dataset("s2", scheme="geohash", length=5, like=DATASET)
        assert [group.width for group in made.groups] == [512, 256, 128]
        open_ended = store.create_dataset("any")
        assert not open_ended.is_complete
        quad = store.create_dataset("quad", scheme="quadtile", resolution=[20, 10], codec="small")
        assert [group.resolution_m for group in quad.groups] == [10, 20]
        assert [each.name for each in store.datasets()] == ["any", "quad", "s2"]
        with pytest.raises(ConflictError):
            store.create_dataset("s2")
        with pytest.raises(NotFoundError, match=DATASET):
            store.create_dataset("x", like="sentinel-2")
        for bad in ({"scheme": "h3"}, {"length": 0}, {"codec": "tiny"}, {"size": 3}):
            with pytest.raises(InvalidInputError):
                store.create_dataset("x", **bad)
        for name in ("a/b", "", "é", "x" * 10_000, "-a", "a\n"):
            with pytest.raises(InvalidInputError, match="name"):
                store.create_dataset(name)
        assert store.delete_dataset("quad") == 0
        with pytest.raises(NotFoundError):
            store.dataset("quad")


def test_ingest_options_reach_the_pipeline(tmp_path) -> None:
    with geostore.open(tmp_path / "s") as store:
        (planned,) = store.ingest(
            [demo.scene_path()], dataset="d", length=4, resolution=20, dry_run=True
        )
        assert planned.status == "failed"  # 10 m bands are finer than 20 m groups
        assert "--resolution" in planned.error
        (planned,) = store.ingest([demo.scene_path()], dataset="d", scheme="quadtile", dry_run=True)
        assert planned.status == SceneStatus.PLANNED
        (few,) = store.ingest([demo.scene_path()], dataset="d", max_tiles=2)
        assert few.status == SceneStatus.FAILED
        assert "--max-tiles" in few.error
        with pytest.raises(NotFoundError, match="reader 'sentinel'"):
            store.ingest([demo.scene_path()], reader="sentinel")
        with pytest.raises(InvalidInputError, match="workers"):
            store.ingest([demo.scene_path()], workers=0)


def test_progress_shows_on_stderr(tmp_path, monkeypatch) -> None:
    errors = io.StringIO()
    monkeypatch.setattr("sys.stderr", errors)
    with geostore.open(tmp_path / "s") as store:
        store.ingest(demo.scene_path(), progress=True)
    assert "9 tiles" in errors.getvalue()


def test_targets_and_modes_that_cannot_be(tmp_path) -> None:
    with socket.socket() as nobody:  # bound, not listening
        nobody.bind(("127.0.0.1", 0))
        target = f"geostore://127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(UnavailableError, match="no node gave its ring"):
            geostore.open(target)
    with pytest.raises(InvalidInputError, match="tls"):
        geostore.open("geostore://10.0.0.1:7440")
    with pytest.raises(InvalidInputError, match="mode 'w'"):
        geostore.open(tmp_path, mode="w")
    with pytest.raises(InvalidInputError, match="store"):
        geostore.open("")
    with pytest.raises(NotFoundError):
        geostore.open(tmp_path / "absent", mode="r")
    assert not (tmp_path / "absent").exists()


def test_a_closed_store_says_so(tmp_path) -> None:
    store = geostore.open(tmp_path / "s")
    store.close()
    store.close()
    with pytest.raises(InvalidInputError, match="closed"):
        store.datasets()


def test_a_lost_catalog_is_made_anew(tmp_path) -> None:
    import shutil

    place = tmp_path / "s"
    with geostore.open(place) as store:
        store.ingest(demo.scene_path())
        expected = store.query().first().read("B04").data
    shutil.rmtree(place / "catalog")
    report = geostore.api.rebuild(place)
    assert report.is_rebuilt
    with geostore.open(place) as store:
        assert store.query().count() == 9
        np.testing.assert_array_equal(store.query().first().read("B04").data, expected)


def test_bands_are_unknown_only_where_tiles_are() -> None:
    backend = FakeBackend()
    backend.make_dataset()
    assert Selection(backend, Query(bands=("B04",))).count() == 0
    backend.put("dq8x0", {160: [band("B04", 1)]}, scene="A")
    backend.put("dq8x0", {160: [band("B08", 1)]}, scene="B")
    assert Selection(backend, Query(bands=("B04", "B08"))).count() == 0
    with pytest.raises(NotFoundError, match="'B05'"):
        Selection(backend, Query(bands=("B05",))).count()
