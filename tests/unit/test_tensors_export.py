"""Selections as files, whole or not at all."""

from __future__ import annotations

import errno
import json
from datetime import timedelta

import numpy as np
import pytest
import rasterio

from geostore.api import Selection
from geostore.errors import ConflictError, InvalidInputError, NotFoundError, StorageFullError
from geostore.query import Query
from geostore.raster import output
from geostore.tensors.naming import file_stem
from geostore.types import BandRole
from tests.fake_backend import WHEN, FakeBackend, band

LOWER_LEFT, LOWER_RIGHT, UPPER_LEFT = "dq8x0", "dq8x1", "dq8x2"
RAMP = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) + 1
VALID = RAMP > 40


@pytest.fixture
def backend() -> FakeBackend:
    made = FakeBackend()
    made.make_dataset()
    return made


@pytest.fixture
def selection(backend) -> Selection:
    bands = {
        160: [
            band("B04", np.where(VALID, RAMP, 0), VALID, scale=1e-4, offset=-0.1, unit="1"),
            band("B08", RAMP + 1),
        ]
    }
    backend.put(LOWER_LEFT, bands)
    backend.put(UPPER_LEFT, bands, scene="S2", time=WHEN + timedelta(days=1))
    return Selection(backend, Query())


def left_behind(directory) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name.startswith("."))


def test_a_cog_a_tile(selection, tmp_path) -> None:
    paths = selection.export(tmp_path / "out", bands=["B04", "B08"])
    assert [path.name for path in paths] == [
        "s2_dq8x0_S1.tif",
        "s2_dq8x2_S2.tif",
    ]
    tile = selection.first()
    array = tile.read()
    with rasterio.open(paths[0]) as written:
        np.testing.assert_array_equal(written.read(), array.data)
        assert written.transform == array.transform
        assert written.crs.to_string() == array.crs
        assert written.nodata == 0
        assert written.descriptions == ("B04", "B08")
        assert written.scales == (1e-4, 1.0)
        assert written.offsets == (-0.1, 0.0)
        assert written.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert written.tags()["TIFFTAG_DATETIME"] == "2016:01:12 16:06:42"
        np.testing.assert_array_equal(written.read_masks(1) > 0, array.mask[0])
    assert left_behind(tmp_path) == []


def test_a_mosaic_is_one_cog(selection, tmp_path) -> None:
    seen = []
    paths = selection.export(
        tmp_path / "m.tif", mosaic=True, progress=lambda done, total: seen.append((done, total))
    )
    assert paths == [tmp_path / "m.tif"]
    whole = selection.mosaic().read()
    with rasterio.open(paths[0]) as written:
        np.testing.assert_array_equal(written.read(), whole.data)
        assert written.bounds == pytest.approx(whole.bounds)
    assert seen == [(1, 2), (2, 2)]
    assert left_behind(tmp_path) == []


def test_without_one_nodata_the_file_has_its_own_mask(backend, tmp_path) -> None:
    backend.put(LOWER_LEFT, {160: [band("a", np.where(VALID, 0, 0), VALID, nodata=None)]})
    (path,) = Selection(backend, Query()).export(tmp_path / "one.tif")
    with rasterio.open(path) as written:
        assert written.nodata is None
        np.testing.assert_array_equal(written.read_masks(1) > 0, VALID)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["one.tif"]


def test_overviews_of_classes_invent_no_class(backend, tmp_path) -> None:
    backend.make_dataset("big", resolutions=(5,))
    codes = np.tile(np.array([[2, 8], [8, 8]], np.uint8), (496, 496))
    backend.put(
        LOWER_LEFT,
        {5: [band("SCL", codes, dtype="uint8", role=BandRole.CLASS)]},
        dataset="big",
    )
    (path,) = Selection(backend, Query()).export(tmp_path / "scl.tif")
    with rasterio.open(path) as written:
        assert written.overviews(1)[:1] == [2]
        assert set(np.unique(written.read(1, out_shape=(496, 496)))) <= {2, 8}


def test_npy_has_arrays_masks_and_what_they_are(selection, tmp_path) -> None:
    paths = selection.export(tmp_path / "out", format="npy", bands="B04")
    assert len(paths) == 6
    array = selection.first().read("B04")
    data = np.load(tmp_path / "out" / "s2_dq8x0_S1.npy", allow_pickle=False)
    np.testing.assert_array_equal(data, array.data)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "s2_dq8x0_S1.mask.npy"), array.mask)
    sidecar = json.loads((tmp_path / "out" / "s2_dq8x0_S1.json").read_text())
    assert sidecar["transform"] == list(array.transform[:6])
    assert sidecar["bands"][0]["offset"] == -0.1
    assert sidecar["tiles"][0]["time"] == "2016-01-12T16:06:42Z"


def test_npy_of_a_mosaic(selection, tmp_path) -> None:
    selection.export(tmp_path / "out", format="npy", mosaic=True)
    np.testing.assert_array_equal(
        np.load(tmp_path / "out" / "mosaic.npy"), selection.mosaic().read().data
    )


def test_zarr_reads_back_as_the_cube(selection, tmp_path) -> None:
    pytest.importorskip("zarr", reason="zarr is not installed")
    xr = pytest.importorskip("xarray", reason="xarray is not installed")
    (path,) = selection.export(tmp_path / "cube.zarr", format="zarr")
    cube = selection.to_xarray()
    with xr.open_zarr(path, mask_and_scale=False, decode_coords="all") as written:
        xr.testing.assert_equal(written.load(), cube)
        assert written.B04.dtype == np.uint16
        assert written.B04.attrs["scale"] == 1e-4
        assert "spatial_ref" in written.coords
    with rasterio.open(f'ZARR:"{path}":/B08') as seen_by_gdal:
        np.testing.assert_array_equal(seen_by_gdal.read(1), cube.B08.values[0])


@pytest.mark.parametrize("kind", ["cog", "npy", "zarr"])
def test_what_is_there_is_left_alone(selection, tmp_path, kind) -> None:
    if kind == "zarr":
        pytest.importorskip("zarr", reason="zarr is not installed")
    out = tmp_path / "out"
    selection.export(out, format=kind)
    before = sorted(path.relative_to(out) for path in out.rglob("*"))
    with pytest.raises(ConflictError, match="is there already"):
        selection.export(out, format=kind)
    selection.export(out, format=kind, overwrite=True)
    assert sorted(path.relative_to(out) for path in out.rglob("*")) == before
    assert left_behind(tmp_path) == []


def test_a_strangers_directory_is_never_overwritten(selection, tmp_path) -> None:
    precious = tmp_path / "photos"
    precious.mkdir()
    (precious / "one.jpg").touch()
    with pytest.raises(ConflictError, match="not made by an export"):
        selection.export(precious, overwrite=True)
    assert (precious / "one.jpg").exists()
    (tmp_path / "empty").mkdir()
    assert selection.export(tmp_path / "empty")


def test_a_file_is_overwritten_only_when_told(selection, tmp_path) -> None:
    path = tmp_path / "m.tif"
    path.write_text("mine")
    with pytest.raises(ConflictError):
        selection.export(path, mosaic=True)
    assert path.read_text() == "mine"
    selection.export(path, mosaic=True, overwrite=True)
    assert rasterio.open(path).count == 2


def test_a_failure_leaves_nothing(selection, tmp_path, monkeypatch) -> None:
    calls = []

    def full(*arguments, **keywords):
        calls.append(arguments)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rasterio.shutil, "copy", full)
    for out, keywords in ((tmp_path / "m.tif", {"mosaic": True}), (tmp_path / "out", {})):
        with pytest.raises(StorageFullError, match="disk is full"):
            selection.export(out, **keywords)
    assert calls
    assert list(tmp_path.iterdir()) == []


def test_wrong_places_and_formats_are_said(selection, tmp_path) -> None:
    with pytest.raises(InvalidInputError, match=r"name ending in \.tif"):
        selection.export(tmp_path / "m", mosaic=True)
    with pytest.raises(InvalidInputError, match="2 tiles are a directory"):
        selection.export(tmp_path / "m.tif")
    with pytest.raises(InvalidInputError, match=r"format 'tiff'.*cog, npy, zarr"):
        selection.export(tmp_path / "m", format="tiff")
    with pytest.raises(NotFoundError, match="no tile matches"):
        Selection(selection._backend, Query(scene="none")).export(tmp_path / "m")
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInputError, match="cannot be written"):
        selection.export(tmp_path / "file" / "out")


@pytest.mark.parametrize(
    "parts", [("..", "x"), ("a/b",), ("a\nb",), ("ä" * 5,), ("x" * 10_000,), (".hidden",)]
)
def test_file_names_are_safe_and_stay_different(parts) -> None:
    stem = file_stem(*parts)
    assert len(stem) <= 140
    assert not stem.startswith(".")
    assert all(letter.isalnum() or letter in "._-" for letter in stem)
    assert stem.isascii()
    assert stem != file_stem(*parts, "other")
    assert file_stem("a/b") != file_stem("a_b")


def test_png_is_what_gdal_reads(tmp_path) -> None:
    picture = np.random.default_rng(3).integers(0, 255, (40, 30, 3)).astype(np.uint8)
    output.write_png(tmp_path / "p.png", picture)
    with (
        pytest.warns(rasterio.errors.NotGeoreferencedWarning),
        rasterio.open(tmp_path / "p.png") as written,
    ):
        np.testing.assert_array_equal(written.read(), picture.transpose(2, 0, 1))
