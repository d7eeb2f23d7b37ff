"""`import geostore` is light, and its names arrive when they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import geostore

HEAVY = (
    "numpy", "rasterio", "xarray", "pandas", "dask", "zarr", "pyarrow", "torch", "grpc",
    "pyproj", "shapely", "lmdb", "rich", "click", "imagecodecs",
)  # fmt: skip


def modules_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code", ["import geostore", "import geostore; geostore.errors.NotFoundError; dir(geostore)"]
)
def test_importing_loads_nothing_heavy(code) -> None:
    assert modules_after(code) & set(HEAVY) == set()


def test_opening_a_store_needs_no_optional_package(tmp_path) -> None:
    loaded = modules_after(
        f"import geostore\nwith geostore.open({str(tmp_path / 's')!r}) as store:\n"
        "    assert store.datasets() == []"
    )
    optional = {"xarray", "pandas", "dask", "zarr", "pyarrow", "torch", "grpc"}
    assert loaded & optional == set()


def test_names_arrive_when_used() -> None:
    from geostore.api import Selection, Store, Tile

    assert (geostore.Store, geostore.Selection, geostore.Tile) == (Store, Selection, Tile)
    assert geostore.BBox(1, 2, 3, 4).west == 1
    assert set(geostore.__all__) <= set(dir(geostore))
    assert geostore.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="no attribute 'opne'"):
        geostore.opne  # noqa: B018
