"""Selections as xarray cubes."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from geostore import grid
from geostore.api import Selection
from geostore.errors import InvalidInputError, MissingDependencyError, NotFoundError
from geostore.query import Query
from tests.fake_backend import WHEN, FakeBackend, band

xr = pytest.importorskip("xarray", reason="xarray is not installed")

LOWER_LEFT, LOWER_RIGHT, UPPER_LEFT, UPPER_RIGHT = "dq8x0", "dq8x1", "dq8x2", "dq8x3"
RAMP = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) + 1


@pytest.fixture
def backend() -> FakeBackend:
    made = FakeBackend()
    made.make_dataset()
    return made


def select(backend: FakeBackend, **query) -> Selection:
    return Selection(backend, Query(**query))


def two_dates(backend: FakeBackend) -> Selection:
    left = np.zeros((32, 32), bool)
    left[:, :16] = True
    bands = {
        160: [
            band(
                "B04",
                np.where(left, RAMP, 0),
                left,
                common_name="red",
                scale=1e-4,
                description="red light",
            )
        ],
        320: [band("B11", 7)],
    }
    backend.put(LOWER_LEFT, bands)
    backend.put(UPPER_RIGHT, bands, scene="S2", time=WHEN + timedelta(days=5))
    return select(backend)


def test_dimensions_coordinates_and_pixels(backend) -> None:
    cube = two_dates(backend).to_xarray(["red", "B11"])
    assert list(cube.data_vars) == ["red", "B11"]
    assert cube.red.dims == ("time", "y", "x")
    assert cube.sizes == {"time": 2, "y": 64, "x": 64}
    assert cube.red.dtype == np.uint16
    times = [np.datetime64("2016-01-12T16:06:42", "ns"), np.datetime64("2016-01-17T16:06:42", "ns")]
    np.testing.assert_array_equal(cube.time.values, times)
    box = grid.scheme("geohash").bounds(LOWER_LEFT)
    part = cube.red.isel(time=0).sel(x=slice(box.west, box.east), y=slice(box.north, box.south))
    np.testing.assert_array_equal(part.values[:, :16], RAMP[:, :16])
    assert cube.red.sum() == 2 * RAMP[:, :16].sum(dtype=int)
    x = cube.x.values
    assert x[0] == pytest.approx(box.west + (box.east - box.west) / 64)
    assert np.unique(cube.B11.values).tolist() == [0, 7]


def test_metadata_is_kept_and_nothing_is_applied(backend) -> None:
    cube = two_dates(backend).to_xarray()
    attributes = cube.B04.attrs
    assert attributes["nodata"] == attributes["_FillValue"] == 0
    assert attributes["scale"] == 1e-4
    assert attributes["common_name"] == "red"
    assert attributes["long_name"] == "red light"
    assert not {"scale_factor", "add_offset"} & attributes.keys()
    assert cube.y.attrs["units"] == "degrees_north"


def test_resolution_is_of_the_cell(backend) -> None:
    cube = two_dates(backend).to_xarray(["B04", "B11"], resolution=320)
    assert cube.sizes == {"time": 2, "y": 32, "x": 32}
    assert two_dates(backend).to_xarray("B11").sizes["x"] == 32


# affine 3 asks its users to write @ for *; rioxarray and odc-geo do not yet.
AFFINE = "ignore:Use `@` matmul:PendingDeprecationWarning"


@pytest.mark.filterwarnings(AFFINE)
def test_rio_finds_crs_and_transform(backend) -> None:
    pytest.importorskip("rioxarray", reason="rioxarray is not installed")
    selection = two_dates(backend)
    cube = selection.to_xarray("B04")
    assert cube.rio.crs.to_epsg() == 4326
    assert cube.B04.rio.transform() == selection.mosaic("B04").transform
    assert cube.B04.rio.nodata == 0
    quad = FakeBackend()
    quad.make_dataset(scheme="quadtile", length=13, resolutions=(160,))
    quad.put(grid.scheme("quadtile").encode(-75.6, 37.7, 13), {160: [band("B04", 1)]})
    assert select(quad).to_xarray().rio.crs.to_epsg() == 3857


@pytest.mark.filterwarnings(AFFINE)
def test_odc_finds_the_geobox(backend) -> None:
    pytest.importorskip("odc.geo.xr", reason="odc-geo is not installed")
    selection = two_dates(backend)
    geobox = selection.to_xarray("B04").B04.odc.geobox
    assert geobox.crs.epsg == 4326
    assert geobox.shape == (64, 64)
    np.testing.assert_allclose(geobox.transform[:6], selection.mosaic("B04").transform[:6])


def test_the_first_valid_tile_of_a_time_step_wins(backend) -> None:
    left = np.zeros((32, 32), bool)
    left[:, :16] = True
    backend.put(LOWER_LEFT, {160: [band("B04", 1, left)]}, scene="A")
    backend.put(LOWER_LEFT, {160: [band("B04", 2)]}, scene="B")
    cube = select(backend).to_xarray()
    assert cube.sizes["time"] == 1
    assert np.unique(cube.B04.values[0, :, :16]).tolist() == [1]
    assert np.unique(cube.B04.values[0, :, 16:]).tolist() == [2]


def test_groupby_scene_keeps_scenes_apart(backend) -> None:
    backend.put(LOWER_LEFT, {160: [band("B04", 1)]}, scene="A")
    backend.put(LOWER_LEFT, {160: [band("B04", 2)]}, scene="B")
    cube = select(backend).to_xarray(groupby="scene")
    assert cube.scene.values.tolist() == ["A", "B"]
    assert cube.B04.values[:, 0, 0].tolist() == [1, 2]
    assert select(backend).to_xarray(groupby="mosaic").sizes["time"] == 1


def test_solar_days_follow_the_sun_and_cut_no_scene(backend) -> None:
    # 23:30 and 00:30 UTC are one morning at 150 E.
    scheme = grid.scheme("geohash")
    here, there = scheme.encode(149.99, -33.0, 5), scheme.encode(150.03, -33.0, 5)
    night = datetime(2020, 1, 1, 23, 30, tzinfo=UTC)
    backend.put(here, {160: [band("B04", 1)]}, scene="A", time=night)
    backend.put(there, {160: [band("B04", 2)]}, scene="B", time=night + timedelta(hours=1))
    # One scene across 180 degrees: noon on both sides, by two calendars.
    west, east = scheme.encode(179.98, 0.1, 5), scheme.encode(-179.98, 0.1, 5)
    dateline = FakeBackend()
    dateline.make_dataset()
    for code in (west, east):
        dateline.put(code, {160: [band("B04", 1)]}, time=datetime(2020, 1, 1, 23, tzinfo=UTC))
    cube = select(backend).to_xarray(groupby="solar_day")
    assert cube.time.values.tolist() == [np.datetime64("2020-01-02", "ns").astype(int)]
    assert select(dateline).to_xarray(groupby="solar_day").sizes["time"] == 1


def test_x_goes_on_past_the_antimeridian(backend) -> None:
    scheme = grid.scheme("geohash")
    backend.put(scheme.encode(179.98, 0.1, 5), {160: [band("B04", 1)]})
    backend.put(scheme.encode(-179.98, 0.1, 5), {160: [band("B04", 2)]})
    cube = select(backend).to_xarray()
    assert cube.sizes["x"] == 64
    assert cube.x.values[31] < 180 < cube.x.values[32]
    assert (np.diff(cube.x) > 0).all()
    assert cube.B04.values[0, 0, [0, 63]].tolist() == [1, 2]


def test_a_time_that_is_not_known_comes_last(backend) -> None:
    backend.put(LOWER_LEFT, {160: [band("B04", 1)]}, scene="A", time=None)
    backend.put(LOWER_LEFT, {160: [band("B04", 2)]}, scene="B")
    cube = select(backend).to_xarray()
    assert np.isnat(cube.time.values).tolist() == [False, True]
    assert cube.B04.values[:, 0, 0].tolist() == [2, 1]


def test_masks_tell_what_a_band_without_nodata_cannot(backend) -> None:
    valid = RAMP > 100
    backend.put(LOWER_LEFT, {160: [band("B04", 0, valid, nodata=None)]})
    cube = select(backend).to_xarray(masks=True)
    assert "nodata" not in cube.B04.attrs
    np.testing.assert_array_equal(cube.B04_valid.values[0], valid)


def test_floats_without_nodata_hold_nan(backend) -> None:
    valid = RAMP > 100
    backend.put(LOWER_LEFT, {160: [band("ndvi", 0.5, valid, dtype="float32", nodata=None)]})
    for chunks in (None, {}):
        values = select(backend).to_xarray(chunks=chunks).ndvi
        assert np.isnan(values.attrs["nodata"])
        assert values.dtype == np.float32
        np.testing.assert_array_equal(np.isnan(values.values[0]), ~valid)


def test_harmonized_counts_never_become_nodata(backend) -> None:
    stored = np.where(RAMP < 50, 0, 990)
    backend.put(LOWER_LEFT, {160: [band("B04", stored, RAMP >= 50, scale=1e-4, offset=-0.1)]})
    cube = select(backend).to_xarray(harmonize=True)
    assert np.unique(cube.B04.values[0][RAMP >= 50]).tolist() == [1]
    assert cube.B04.attrs.get("offset", 0.0) == 0.0


@pytest.mark.parametrize(
    "chunks", [{}, {"x": 64, "y": 64}, {"time": -1, "x": 20, "y": -1}, {"y": 7, "x": 45}]
)
def test_chunks_give_the_same_cube_lazily(backend, chunks) -> None:
    pytest.importorskip("dask", reason="dask is not installed")
    selection = two_dates(backend)
    now = selection.to_xarray(masks=True)
    backend.reads.clear()
    lazy = selection.to_xarray(chunks=chunks, masks=True)
    assert backend.reads == []
    assert lazy.B04.chunks is not None
    xr.testing.assert_identical(lazy.compute(scheduler="synchronous"), now)


def test_a_chunk_reads_only_its_own_tiles_and_band(backend) -> None:
    pytest.importorskip("dask", reason="dask is not installed")
    lazy = two_dates(backend).to_xarray(chunks={})
    backend.reads.clear()
    lazy.B11.isel(time=0, y=slice(16, 64), x=slice(0, 16)).compute(scheduler="synchronous")
    assert len(backend.reads) == 1
    assert len(backend.reads[0]) == 2  # one block of pixels, one of its mask


@pytest.mark.parametrize("chunks", [{"z": 1}, {"x": 0}, {"x": 1.5}, {"time": True}])
def test_bad_chunks_are_refused(backend, chunks) -> None:
    pytest.importorskip("dask", reason="dask is not installed")
    with pytest.raises(InvalidInputError, match="chunks"):
        two_dates(backend).to_xarray(chunks=chunks)


def test_a_cube_beyond_the_memory_bound_names_chunks(backend) -> None:
    with pytest.raises(InvalidInputError, match=r"2 bands of 2 x 64 x 64.*32 KiB.*chunks=\{\}"):
        two_dates(backend).to_xarray(memory_limit=10_000)


def test_what_cannot_be_is_said(backend) -> None:
    selection = two_dates(backend)
    with pytest.raises(InvalidInputError, match=r"groupby 'day'.*solar_day"):
        selection.to_xarray(groupby="day")
    with pytest.raises(InvalidInputError, match=r"keyword 'chunk'.*did you mean 'chunks'"):
        selection.to_xarray(chunk={})
    with pytest.raises(NotFoundError, match="did you mean 'B04'"):
        selection.to_xarray("B4")
    with pytest.raises(InvalidInputError, match="empty"):
        select(backend, scene="none").to_xarray()


def test_a_missing_package_says_how_to_get_it(backend, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "xarray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'geostore\[xarray\]'"):
        two_dates(backend).to_xarray()


def test_lazy_cubes_can_be_sent_to_other_processes(tmp_path) -> None:
    pytest.importorskip("dask", reason="dask is not installed")
    import geostore
    from geostore import demo

    with geostore.open(tmp_path / "store") as store:
        store.ingest([demo.scene_path()])
        tiles = store.query(pixel_coverage=(90, None))
        sent = pickle.dumps(tiles.to_xarray("B09", chunks={}).B09.data)
        now = tiles.to_xarray("B09").B09.values
    again = pickle.loads(sent).compute(scheduler="synchronous")
    np.testing.assert_array_equal(again, now)
