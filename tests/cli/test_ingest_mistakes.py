"""Mistakes that users make with `geostore ingest`: each message says what to do instead.

Where a message proposes flags, the test runs them: advice that fails is no advice.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geostore import demo

Run = Callable[..., Any]


@pytest.fixture
def ingest(geostore_run: Run, tmp_path: Path) -> Run:
    """`ingest(ARGUMENTS…, code=0)`: the run, of a store of the test's own."""

    def run(*arguments: object, code: int = 0) -> Any:
        return geostore_run("--store", tmp_path / "store", "ingest", *arguments, code=code)

    return run


def refusal(ingest: Run, *arguments: object, code: int = 1) -> str:
    """The one line on stderr of a run that must fail."""
    ran = ingest(*arguments, code=code)
    lines = ran.stderr.splitlines()
    assert len(lines) == 1, ran.stderr
    assert lines[0].startswith("geostore: error: ")
    assert len(lines[0]) < 1200
    return str(lines[0])


@pytest.fixture
def coarse(make_raster: Callable[..., Path]) -> Path:
    return make_raster("coarse.tif", np.ones((1, 80, 80), "uint8"), transform=at(300.0))


@pytest.fixture
def fine(make_raster: Callable[..., Path]) -> Path:
    return make_raster("fine.tif", np.ones((1, 80, 80), "uint8"), transform=at(30.0))


def at(pixel_m: float) -> tuple[float, ...]:
    return (pixel_m, 0.0, 500_000.0, 0.0, -pixel_m, 4_200_000.0)


@pytest.fixture
def product(tmp_path: Path) -> Path:
    """A product's folder: the demo's metadata and one of its bands."""
    with zipfile.ZipFile(demo.scene_path()) as archive:
        for name in archive.namelist():
            if name.endswith((".xml", "_B01.jp2")):
                archive.extract(name, tmp_path)
    (folder,) = tmp_path.glob("*.SAFE")
    return folder


class TestWrongPath:
    def test_a_typing_error(self, ingest: Run) -> None:
        assert refusal(ingest, "sscene.tif").endswith(": sscene.tif: no such file or directory")

    def test_a_pattern_that_fits_nothing(self, ingest: Run, tmp_path: Path) -> None:
        assert "no file fits the pattern" in refusal(ingest, tmp_path / "*.tif")

    def test_a_folder_without_files_is_said_so(self, ingest: Run, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        ran = ingest(tmp_path / "empty")
        assert ran.stderr.startswith("geostore: nothing to ingest: no file in ")

    @pytest.mark.parametrize("part", ["MTD_MSIL1C.xml", "GRANULE/*/MTD_TL.xml"])
    def test_a_part_of_a_product_names_the_product(
        self, ingest: Run, product: Path, part: str
    ) -> None:
        (path,) = product.glob(part)
        said = refusal(ingest, path)
        assert path.name in said
        named = re.search(r"name that: (.*)$", said)
        assert named is not None, said
        (line,) = map(json.loads, ingest(named[1]).stdout.splitlines())
        assert (line["reader"], line["status"]) == ("sentinel-2-l1c", "ingested")

    def test_a_landsat_mtl_names_the_product(self, ingest: Run, tmp_path: Path) -> None:
        from tests.landsat_products import Made

        made = Made(tmp_path, bands=["SR_B4", "QA_PIXEL"]).write("txt")
        said = refusal(ingest, made.path / f"{made.id}_MTL.txt")
        assert said.endswith(f"name that: {made.path}")
        assert json.loads(ingest(made.path).stdout)["status"] == "ingested"

    def test_what_is_no_imagery_says_what_is(self, ingest: Run, tmp_path: Path) -> None:
        (tmp_path / "notes.md").write_text("# notes")
        said = refusal(ingest, tmp_path / "notes.md")
        assert "notes.md: no reader claims it; known are sentinel-2-l1c, " in said
        assert "name that" not in said


class TestWrongReader:
    def test_an_unknown_name_has_a_suggestion(self, ingest: Run, coarse: Path) -> None:
        said = refusal(ingest, "--reader", "landsat", coarse)
        suggested = re.search(r"did you mean '([^']+)'", said)
        assert suggested is not None
        assert suggested[1].startswith("landsat-")

    @pytest.mark.parametrize(
        ("reader", "says"),
        [
            ("sentinel-2-l1c", "expected MTD_MSIL1C.xml"),
            ("landsat-c2-l2", "expected"),
            ("nlcd", "--reader geotiff"),
            ("netcdf", "expected"),
            ("modis", "expected"),
        ],
    )
    def test_a_product_that_it_is_not(
        self, ingest: Run, make_raster: Callable[..., Path], reader: str, says: str
    ) -> None:
        path = make_raster("floats.tif", np.ones((2, 80, 80), "float32"))
        said = refusal(ingest, "--reader", reader, path)
        assert "floats.tif" in said
        assert says in said


class TestWrongResolution:
    def test_finer_than_the_dataset(self, ingest: Run, coarse: Path, fine: Path) -> None:
        ingest(coarse)
        said = refusal(ingest, fine)
        assert "fine.tif: a band of 30 m is finer than all resolution groups (300 m)" in said
        flags = re.search(r"--dataset NAME (--resolution [\d.]+)", said)
        assert flags is not None, said
        (line,) = map(
            json.loads, ingest("--dataset", "other", *flags[1].split(), fine).stdout.splitlines()
        )
        assert (line["status"], line["dataset"]) == ("ingested", "other")

    def test_another_resolution_than_the_dataset_has(self, ingest: Run, coarse: Path) -> None:
        ingest(coarse)
        said = refusal(ingest, "--resolution", 100, coarse)
        assert "dataset 'geotiff' has --resolution 300, asked for 100" in said
        assert "name another --dataset" in said

    def test_cells_of_a_few_pixels(self, ingest: Run, coarse: Path) -> None:
        said = refusal(ingest, "--length", 7, coarse)
        assert "expected at least 16" in said
        assert "--length" in said
        assert json.loads(ingest("--length", 4, coarse).stdout)["status"] == "ingested"

    @pytest.mark.parametrize("size", ["0", "-10", "10m", "nan", ""])
    def test_no_size(self, ingest: Run, coarse: Path, size: str) -> None:
        said = refusal(ingest, "--resolution", size, coarse, code=2)
        assert "--resolution" in said
        assert "metres" in said


class TestNoPlace:
    @pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
    def test_no_crs(self, ingest: Run, make_raster: Callable[..., Path]) -> None:
        path = make_raster("plan.tif", np.ones((1, 80, 80), "uint8"), crs=None)
        said = refusal(ingest, path)
        assert "plan.tif: no CRS; expected a raster that says where it lies" in said
        assert "gdal_edit.py -a_srs" in said

    def test_nothing_but_nodata(self, ingest: Run, make_raster: Callable[..., Path]) -> None:
        path = make_raster("empty.tif", np.zeros((1, 80, 80), "uint8"), nodata=0)
        assert refusal(ingest, path).endswith("empty.tif: no band has a valid pixel")
