"""Real land cover: against rasterio's own reading, and stored, against GDAL's warp."""

from __future__ import annotations

import random
import re
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window

import geostore
from geostore.api import Store
from geostore.scenes import detect, open_source
from geostore.types import BandRole, TimeSpan
from tests.oracle.sources import BandFile, in_memory
from tests.oracle.warps import against_own_warp, against_whole_warp, warped

ALBERS = "nlcd_2011_land_cover_l48_zion_subset"
WARPED = "nlcd2011"
FMASK = "LC80890802016062LGN01.fmask"
CODES = [11, 21, 22, 23, 31, 41, 42, 43, 52, 71, 81, 82, 90, 95]
"""What both files hold, counted apart from any background."""


@pytest.fixture(scope="module")
def nlcd(shared_data: Path) -> Path:
    return shared_data / "nlcd"


@pytest.fixture(scope="module")
def fmask_part(nlcd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of the full-size thematic image, in its own format: all of it takes long."""
    path = tmp_path_factory.mktemp("fmask") / "part.img"
    window = Window(6900, 1500, 700, 600)
    with rasterio.open(nlcd / f"{FMASK}.img") as whole:
        data = whole.read(window=window)
        with rasterio.open(
            path, "w", driver="HFA", count=1, height=600, width=700, dtype="uint8",
            crs=whole.crs, transform=whole.transform @ Affine.translation(6900, 1500), nodata=0,
            COMPRESSED="YES",
        ) as target:  # fmt: skip
            target.write(data)
            target.write_colormap(1, whole.colormap(1))
    assert np.unique(data).tolist() == [0, 1, 2, 3, 5]
    return path


@pytest.mark.parametrize(
    ("name", "nodata", "resolution_m", "crs"),
    [
        (f"{ALBERS}.img", 0, 30.0, "NAD83 / Conus Albers"),
        (f"{WARPED}.tif", 255, 31.524658702, "UTM Zone 12, Northern Hemisphere"),
    ],
)
def test_pixels_classes_and_the_year(
    nlcd: Path, name: str, nodata: int, resolution_m: float, crs: str
) -> None:
    (scene,) = open_source(nlcd / name)
    with scene, rasterio.open(nlcd / name) as expected:
        assert (scene.id, scene.reader) == (Path(name).stem, "nlcd")
        assert TimeSpan(scene.time_us, scene.time_end_us) == TimeSpan.parse("2011")
        assert (scene.platform, scene.cloud) == (None, None)
        assert scene.properties["crs"] == crs
        (band,) = scene.bands
        info = band.info
        assert (info.name, info.role, info.nodata) == ("land_cover", BandRole.CLASS, nodata)
        assert info.native_resolution_m == pytest.approx(resolution_m)
        pixels, valid = band.source.read(0, 0, expected.height, expected.width)
        whole = expected.read(1)
        np.testing.assert_array_equal(pixels, whole)
        known = np.isin(whole, CODES)
        np.testing.assert_array_equal(np.ones_like(known) if valid is None else valid, known)
        assert (known == (expected.read_masks(1) != 0)).all()
        assert sorted(np.unique(whole[known]).tolist()) == CODES
        assert {str(code) for code in CODES} <= set(info.class_names)
        assert info.class_names["42"] == "Evergreen Forest"
        assert band.source.grid.transform == tuple(expected.transform)[:6]


def test_colours(nlcd: Path) -> None:
    """Of the file where it has a table, else those of the legend."""
    (own,) = open_source(nlcd / f"{WARPED}.tif")
    with own, rasterio.open(nlcd / f"{WARPED}.tif") as expected:
        table = expected.colormap(1)
        colors = own.bands[0].info.class_colors
        assert colors == {
            str(code): "#{:02x}{:02x}{:02x}".format(*color[:3])
            for code, color in table.items()
            if color[:3] != (0, 0, 0)
        }
        assert colors["42"] == "#1c6330"
    (legend,) = open_source(nlcd / f"{ALBERS}.img")
    with legend, rasterio.open(nlcd / f"{ALBERS}.img") as bare:
        with pytest.raises(ValueError, match="NULL color table"):
            bare.colormap(1)
        assert legend.bands[0].info.class_colors["42"] == "#1c5f2c"


def test_both_forms_show_the_same_place(nlcd: Path) -> None:
    """One was made from the other: class shares differ by what warping loses at the edges."""
    shares = []
    for name in (f"{ALBERS}.img", f"{WARPED}.tif"):
        (scene,) = open_source(nlcd / name)
        with scene:
            grid = scene.bands[0].source.grid
            pixels, valid = scene.bands[0].source.read(0, 0, grid.height, grid.width)
            known = pixels.ravel() if valid is None else pixels[valid]
            shares.append(np.bincount(known, minlength=256))
    first, second = (counts / counts.sum() for counts in shares)
    assert np.abs(first - second).max() < 0.002


def test_an_image_with_classes_is_a_plain_raster_that_keeps_them(nlcd: Path) -> None:
    path = nlcd / f"{FMASK}.img"
    (scene,) = open_source(path)
    with scene, rasterio.open(path) as expected:
        assert scene.reader == "geotiff"
        assert TimeSpan(scene.time_us, scene.time_end_us) == TimeSpan.parse("2016-03-02")
        info = scene.bands[0].info
        assert (info.role, info.nodata) == (BandRole.CLASS, 0)
        # The attribute table's column Classification: rasterio does not read it, the bytes do.
        names = ["Null", "Valid", "Cloud", "Cloud Shadow", "Snow", "Water"]
        rows = b"".join(name.encode() + b"\\0.{%d}" % (12 - len(name)) for name in names)
        assert len(re.findall(rows, path.read_bytes(), re.DOTALL)) == 1
        assert info.class_names == {str(code): name for code, name in enumerate(names)}
        table = expected.colormap(1)
        assert info.class_colors == {
            str(code): "#{:02x}{:02x}{:02x}".format(*table[code][:3]) for code in range(6)
        }
        # Where the windows of all of it lie: the first, one in its middle, the last.
        for row, column in ((0, 0), (3900, 3850), (7781 - 64, 7711 - 64)):
            pixels, valid = scene.bands[0].source.read(row, column, 64, 64)
            whole = expected.read(1, window=Window(column, row, 64, 64))
            np.testing.assert_array_equal(pixels, whole)
            seen = np.ones((64, 64), bool) if valid is None else valid
            np.testing.assert_array_equal(seen, whole != 0)


def test_ccap_is_a_plain_raster_that_keeps_its_colours(nlcd: Path) -> None:
    (scene,) = open_source(nlcd / "labels_image.tif")
    with scene, rasterio.open(nlcd / "labels_image.tif") as expected:
        assert scene.reader == "geotiff"
        info = scene.bands[0].info
        assert (info.role, info.nodata) == (BandRole.CLASS, 255)
        for code, color in expected.colormap(1).items():
            if color[:3] != (0, 0, 0):
                assert info.class_colors[str(code)] == "#{:02x}{:02x}{:02x}".format(*color[:3])


def test_ccap_under_a_name_of_nlcd(nlcd: Path, tmp_path: Path) -> None:
    path = tmp_path / "nlcd_2011_land_cover.tif"
    path.write_bytes((nlcd / "labels_image.tif").read_bytes())
    reader = detect(path)
    assert reader is not None
    assert reader.name == "geotiff"


def test_in_a_zip(nlcd: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as target:
        target.write(nlcd / f"{ALBERS}.img", f"deep/{ALBERS}.img")
    (bare,), (packed,) = open_source(nlcd / f"{ALBERS}.img"), open_source(tmp_path / "a.zip")
    assert (packed.id, packed.fingerprint) == (bare.id, bare.fingerprint)
    bare.close()
    packed.close()


@pytest.mark.parametrize("packed", [False, True])
def test_a_large_images_second_file(nlcd: Path, tmp_path: Path, packed: bool) -> None:
    """The real pixels as a pair of .img and .ige, as releases of all 48 states come."""
    path = tmp_path / f"{ALBERS}.img"
    with rasterio.open(nlcd / f"{ALBERS}.img") as source:
        expected = source.read(1)
        profile = {**source.profile, "driver": "HFA", "USE_SPILL": "YES"}
        with rasterio.open(path, "w", **profile) as target:
            target.write(expected, 1)
    assert path.with_suffix(".ige").stat().st_size > 40 * path.stat().st_size
    if packed:
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for one in (path, path.with_suffix(".ige")):
                archive.write(one, one.name)
        path = tmp_path / "a.zip"
    (scene,) = open_source(path)
    with scene:
        assert (scene.id, scene.reader) == (ALBERS, "nlcd")
        pixels, valid = scene.bands[0].source.read(0, 0, *expected.shape)
        np.testing.assert_array_equal(pixels, expected)
        np.testing.assert_array_equal(valid, expected != 0)


@pytest.fixture(scope="module")
def store(nlcd: Path, fmask_part: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = geostore.open(str(tmp_path_factory.mktemp("nlcd") / "store"))
    albers, warped_one = nlcd / f"{ALBERS}.img", nlcd / f"{WARPED}.tif"
    store.create_dataset("mean", like="nlcd", resampling="average")
    results = [
        *store.ingest([albers, warped_one]),
        *store.ingest([albers], dataset="quads", scheme="quadtile"),
        *store.ingest([albers], dataset="mean"),
        *store.ingest([fmask_part], dataset="fmask"),
    ]
    assert [result.error for result in results] == [None] * 5
    assert results[0].dataset == results[1].dataset == "nlcd"
    return store


def test_defaults(store: Store) -> None:
    """The file of 31.5 m goes into the group of 30 m too."""
    definition = store.dataset("nlcd")
    assert (definition.scheme, definition.length) == ("geohash", 4)
    assert [group.resolution_m for group in definition.groups] == [30.0]
    assert store.dataset("quads").length == 10
    assert {tile.scene for tile in store.query(dataset="nlcd")} == {ALBERS, WARPED}


@pytest.mark.parametrize(
    ("dataset", "scene", "file", "tiles_max", "whole"),
    [
        ("nlcd", ALBERS, f"{ALBERS}.img", 2, True),
        ("nlcd", WARPED, f"{WARPED}.tif", 2, False),
        ("quads", ALBERS, f"{ALBERS}.img", 1, False),
        ("fmask", None, None, 20, True),
    ],
)
def test_stored_pixels_are_the_source_pixels_under_their_centres(
    store: Store,
    nlcd: Path,
    fmask_part: Path,
    dataset: str,
    scene: str | None,
    file: str | None,
    tiles_max: int,
    whole: bool,
) -> None:
    """Invariants 3 and 4, and pixel coverage counted on GDAL's own warp."""
    tiles = list(store.query(dataset=dataset, scene=scene))
    path = fmask_part if file is None else nlcd / file
    with rasterio.open(path) as source:
        nodata = source.nodata
    band = tiles[0].bands[0]
    some = random.Random(3).sample(tiles, min(tiles_max, len(tiles)))
    with in_memory(BandFile(str(path), 1, nodata)) as picture:
        against_own_warp(some, band, picture).assert_same()
        if whole:
            against_whole_warp(tiles, band, picture).assert_same()
        for tile in some:
            ours = tile.read()
            shape = ours.data.shape[1:]
            seen = warped(picture, ours.crs, ours.transform, shape, 1e-2)[1]
            assert tile.pixel_coverage == pytest.approx(100 * seen.mean(), abs=0.02)
            assert tile.cloud_cover is None


def test_classes_are_never_averaged(store: Store) -> None:
    for tile in store.query(dataset="mean"):
        ours = tile.read(bands=["land_cover"])
        assert set(np.unique(ours.data[ours.mask]).tolist()) <= set(CODES)


def test_classes_come_with_the_tiles(store: Store) -> None:
    (info,) = next(iter(store.query(dataset="nlcd", scene=ALBERS))).schema.bands
    assert (info.class_names["11"], info.class_colors["11"]) == ("Open Water", "#466b9f")
    (info,) = next(iter(store.query(dataset="fmask"))).schema.bands
    assert (info.role, info.class_colors["2"]) == (BandRole.CLASS, "#ff00ff")


def test_the_year_is_a_span(store: Store) -> None:
    everything = store.query(dataset="nlcd").count()
    assert everything > 0
    for inside in ("2011", "2011-06", "2011-12-31T23:59:59Z", "2010/2011-01", ".."):
        assert store.query(dataset="nlcd", time=inside).count() == everything
    for outside in ("2010", "2012", "../2010-12-31"):
        assert store.query(dataset="nlcd", time=outside).count() == 0
    tile = next(iter(store.query(dataset="nlcd")))
    assert tile.time == datetime(2011, 1, 1, tzinfo=UTC)
    assert tile.time_end == datetime(2011, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
