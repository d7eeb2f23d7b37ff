"""The course of an ingest where others change the dataset meanwhile."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from geostore.backends import EmbeddedBackend, open_embedded
from geostore.errors import ConflictError
from geostore.ingest import DatasetRequest, ingest
from geostore.types import DatasetDefinition, IngestProgress, SceneStatus


@pytest.fixture
def raster(tmp_path: Path, write_raster: Callable[..., Path]) -> Path:
    pixels = np.arange(1, 4097, dtype=np.uint16).reshape(1, 64, 64)
    return write_raster(tmp_path / "scene.tif", pixels, nodata=0)


@pytest.mark.parametrize(("refusals", "status"), [(3, "ingested"), (10**6, "failed")])
def test_a_dataset_that_others_change_again_and_again_is_given_up_at_last(
    raster: Path,
    tmp_path: Path,
    refusals: int,
    status: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create = EmbeddedBackend.create_dataset
    left = [refusals]

    def refuse(backend: EmbeddedBackend, definition: DatasetDefinition) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise ConflictError("somebody was quicker")
        create(backend, definition)

    monkeypatch.setattr(EmbeddedBackend, "create_dataset", refuse)
    with closing(open_embedded(tmp_path / "store")) as backend:
        (result,) = ingest(backend, [raster], request=DatasetRequest())
    assert result.status == SceneStatus(status), result.error
    if status == "failed":
        assert "ingest it again" in (result.error or "")
        assert refusals - left[0] == 10


def test_a_search_for_sources_says_how_many_it_has(
    raster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geostore.ingest.pipeline._TELL_SECONDS", 0.0)
    (tmp_path / "in").mkdir()
    for number in range(3):
        shutil.copy(raster, tmp_path / "in" / f"scene-{number}.tif")
    steps: list[IngestProgress] = []
    with closing(open_embedded(tmp_path / "store")) as backend:
        results = ingest(
            backend, [tmp_path / "in"], request=DatasetRequest(), progress=steps.append
        )
        assert [step.sources_total for step in steps if step.is_search] == [1, 2, 3]
        assert Path(steps[-1].path).name == "scene-2.tif"
        list(results)
    assert not any(step.is_search for step in steps[3:])
