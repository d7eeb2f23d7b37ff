"""One store with real scenes in both schemes, ingested once for all oracle tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

import geostore
from geostore.api import Store
from geostore.types import SceneResult

MAIN = "sentinel2/S2A_MSIL1C_20160112T160642_N0201_R097_T18SVG_20160112T160642.SAFE.zip"
L2A = "sentinel2/S2A_MSIL2A_20221005T115411_N0400_R023_T29UNU_20221005T164454.SAFE"
RGB = "generic/RGB.byte.tif"
DATELINE = "generic/cog_dateline.tif"
SCENES = {"main": MAIN, "l2a": L2A, "rgb": RGB, "dateline": DATELINE}
SCHEMES = ("geohash", "quadtile")


@dataclass(frozen=True)
class RealStore:
    """A store and where its scenes came from; dataset names are `<scene>-<scheme>`."""

    store: Store
    sources: dict[str, Path]
    results: dict[str, SceneResult]
    directory: Path


@pytest.fixture(scope="session")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RealStore:
    directory = tmp_path_factory.mktemp("real") / "store"
    store = geostore.open(str(directory))
    results = {}
    for scheme in SCHEMES:
        for name, path in SCENES.items():
            (result,) = store.ingest(
                [shared_data / path], dataset=f"{name}-{scheme}", scheme=scheme
            )
            assert result.error is None, result
            results[f"{name}-{scheme}"] = result
    return RealStore(
        store, {name: shared_data / path for name, path in SCENES.items()}, results, directory
    )
