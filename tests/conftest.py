"""What all tests share: the real imagery, small made-up rasters, and one hypothesis profile."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import hypothesis
import numpy as np
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"
ON_REAL_SCENES = {
    "test_cloud_cover.py",
    "test_invariant_3_nearest.py",
    "test_invariant_4_mosaic.py",
    "test_queries.py",
    "test_recloud.py",
}
"""Those in tests/oracle that use its fixtures `real` and `real_cluster`."""

# "ci" gives every run the same examples, so that a red build is red again when repeated.
# HYPOTHESIS_PROFILE=explore looks for new ones; a find becomes an @example.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, database=None)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=1000, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


class _ByFixture(LoadFileScheduling):
    """Under `-n N`: a file's tests stay in one process, and so do files that share a dear store.

    In the order of collection, in which the long tests come first.
    """

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "the real scenes" if PurePosixPath(file).name in ON_REAL_SCENES else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    return _ByFixture(config, log)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real scenes beside the repository; read-only. Skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real scenes here: {SHARED_DATA} is not a directory")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own GEOSTORE_* variables must not change what a test shows."""
    for name in [name for name in os.environ if name.startswith("GEOSTORE_")]:
        monkeypatch.delenv(name)


def _write_raster(
    path: Path,
    data: Any,
    *,
    crs: str | None = "EPSG:32618",
    transform: tuple[float, ...] = (10.0, 0.0, 500_000.0, 0.0, -10.0, 4_200_000.0),
    nodata: float | None = None,
    tags: dict[str, str] | None = None,
    descriptions: tuple[str, ...] = (),
    **options: Any,
) -> Path:
    import rasterio
    from rasterio.transform import Affine

    data = np.asarray(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=data.shape[0],
        height=data.shape[1],
        width=data.shape[2],
        dtype=data.dtype,
        crs=crs,
        transform=Affine(*transform),
        nodata=nodata,
        **options,
    ) as target:
        target.write(data)
        target.update_tags(**(tags or {}))
        for index, description in enumerate(descriptions, start=1):
            target.set_band_description(index, description)
    return path


@pytest.fixture(scope="session")
def write_raster() -> Callable[..., Path]:
    """A function that writes a small GeoTIFF to a given path and returns it.

    `write_raster(path, data)`: data is (bands, height, width) of any dtype GDAL knows;
    keywords `crs` (EPSG:32618), `transform` (the six numbers a, b, c, d, e, f of an affine
    map; 10 m pixels with the corner at 500000, 4200000), `nodata`, `tags`, `descriptions`
    and any creation option of the GTiff driver.
    """
    return _write_raster


@pytest.fixture
def make_raster(tmp_path: Path) -> Callable[..., Path]:
    """`write_raster` with a name in the test's own folder: `make_raster("a.tif", data)`."""

    def make(name: str, data: Any, **keywords: Any) -> Path:
        return _write_raster(tmp_path / name, data, **keywords)

    return make
