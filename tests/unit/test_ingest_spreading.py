"""Which executors there are; what is refused before any work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import geostore
from geostore.errors import InvalidInputError
from geostore.ingest.datasets import DatasetRequest, define, propose
from geostore.ingest.spreading import check_executor
from geostore.scenes import open_source, reader_named


def test_executors_by_name() -> None:
    assert check_executor("threads") is None
    assert check_executor("dask") == ""
    assert check_executor("dask://10.0.0.7:8786") == "tcp://10.0.0.7:8786"


@pytest.mark.parametrize(
    "text", ["", "Dask", "ray", "dask:", "dask://", "dask://host", "dask://:1", "dask://h:99999"]
)
def test_what_is_no_executor_is_told_what_is(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"expected threads, dask .* dask://HOST:PORT"):
        check_executor(text)


def test_a_store_in_a_directory_is_not_spread(tmp_path: Path, make_raster) -> None:
    raster = make_raster("a.tif", np.ones((1, 64, 64), "uint8"))
    with geostore.open(tmp_path / "store") as store:
        with pytest.raises(InvalidInputError, match=r"one writer at a time.*geostore://HOST:PORT"):
            store.ingest(raster, executor="dask")
        assert store.datasets() == []
        (planned,) = store.ingest(raster, executor="dask", dry_run=True)
        assert planned.status == "planned"


def test_where_no_scene_is_the_first_none_decides_the_groups(tmp_path: Path, make_raster) -> None:
    (scene,) = open_source(make_raster("a.tif", np.ones((1, 64, 64), "uint8")))
    reader = reader_named("geotiff")
    with scene, geostore.open(tmp_path / "store") as store:
        backend = store._backend
        with pytest.raises(InvalidInputError, match=r"dataset create x --resolution"):
            propose(backend, scene, reader, "x", DatasetRequest(), first_scene_decides=False)
        request = DatasetRequest(resolutions_m=(10.0,))
        propose(backend, scene, reader, "x", request, first_scene_decides=False)
        backend.create_dataset(define("y", DatasetRequest(), None))
        with pytest.raises(InvalidInputError, match=r"dataset create y --resolution"):
            propose(backend, scene, reader, "y", DatasetRequest(), first_scene_decides=False)
