"""What tests of bad input share: a stocked store, copied for each test, and hostile names."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import geostore
from tests.integration.stocked_store import StockedStore, tile_pixels


@pytest.fixture(scope="session")
def _stock(
    tmp_path_factory: pytest.TempPathFactory, write_raster: Callable[..., Path]
) -> StockedStore:
    folder = tmp_path_factory.mktemp("stock")
    random = np.random.default_rng(7)
    raster = write_raster(
        folder / "first.tif",
        random.integers(0, 4000, (2, 160, 160)).astype("uint16"),
        nodata=0,
        tags={"TIFFTAG_DATETIME": "2016:01:12 16:06:42"},
        descriptions=("red", "nir"),
    )
    stock = StockedStore(folder / "store", raster)
    with geostore.open(stock.path) as store:
        (result,) = store.ingest(raster)
    assert result.status == "ingested"
    stock.rows = stock.run("query").lines
    stock.pixels = tile_pixels(stock.path)
    return stock


@pytest.fixture
def stocked(
    _stock: StockedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StockedStore]:
    """A store of one scene; nothing that a test does may leave temporary files."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    path = Path(shutil.copytree(_stock.path, tmp_path / "store"))
    yield StockedStore(path, _stock.raster, _stock.rows, _stock.pixels)
    assert list(temporary.iterdir()) == []
