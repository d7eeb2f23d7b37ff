"""The command line on a small real store: two made-up scenes of one place, a month apart."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from geostore_cli.main import cli

Run = Callable[..., Result]


@pytest.fixture
def geostore_run() -> Run:
    """A function that runs `geostore ARGUMENTS…` in this process, without a terminal."""

    def run(*arguments: object, code: int | None = 0, **keywords: object) -> Result:
        result = CliRunner().invoke(cli, [str(argument) for argument in arguments], **keywords)
        if code is not None:
            assert result.exit_code == code, result.output
        return result

    return run


@dataclass(frozen=True)
class SmallStore:
    """A store with dataset `geotiff` and the rasters it was made from."""

    path: Path
    january: Path
    february: Path


@pytest.fixture(scope="session")
def small_store(
    tmp_path_factory: pytest.TempPathFactory, write_raster: Callable[..., Path]
) -> SmallStore:
    """Read-only: tests that write copy it (`writable_store`)."""
    folder = tmp_path_factory.mktemp("cli")
    columns = np.arange(160, dtype=np.uint16)
    data = np.stack([columns + row for row in range(1, 121)])[None].repeat(2, axis=0)
    rasters = {}
    for name, time, holes in (
        ("january", "2016:01:12 16:06:42", 0),
        ("february", "2016:02:11 16:05:00", 60),
    ):
        scene = data.copy()
        scene[:, :, :holes] = 0
        rasters[name] = write_raster(
            folder / f"{name}.tif",
            scene,
            nodata=0,
            tags={"TIFFTAG_DATETIME": time},
            descriptions=("red", "nir"),
        )
    store = folder / "store"
    arguments = ["--store", str(store), "ingest", *map(str, rasters.values())]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    return SmallStore(store, rasters["january"], rasters["february"])


@pytest.fixture
def writable_store(small_store: SmallStore, tmp_path: Path) -> Path:
    """A copy of the small store that a test may change."""
    return Path(shutil.copytree(small_store.path, tmp_path / "store"))
