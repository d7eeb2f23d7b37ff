"""Real products through their STAC items: the same scenes, to the pixel, as from their folders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

import geostore
from geostore.api import Store
from geostore.scenes import Remote, Scene, find_sources, open_source
from geostore.types import SceneResult
from tests.object_server import ObjectServer, object_server

L2SP = "LC08_L2SP_001062_20201031_20201106_02_T2"
SAFE = "sentinel2/S2A_MSIL1C_20180101T105441_N0206_R051_T31TDH_20180101T124911.SAFE"
AS_LISTED = (
    "https://landsatlook.usgs.gov/data/collection02/level-2/standard/oli-tirs/2020/001/062/" + L2SP
)


@dataclass(frozen=True)
class Catalogue:
    """The product's folder behind a web server, and its item with addresses there."""

    server: ObjectServer
    folder: Path
    item: dict[str, Any]

    def serve(self, name: str, item: object) -> str:
        return self.server.put(f"/{L2SP}/{name}", json.dumps(item).encode())


@pytest.fixture(scope="module")
def catalogue(shared_data: Path) -> Iterator[Catalogue]:
    folder = shared_data / "landsat" / L2SP
    with object_server() as server:
        for path in folder.iterdir():
            server.put(f"/{L2SP}/{path.name}", path.read_bytes())
        text = (folder / f"{L2SP}_SR_stac.json").read_text()
        yield Catalogue(server, folder, json.loads(text.replace(AS_LISTED, server.url(f"/{L2SP}"))))


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    made = Remote.of({}, directory=tmp_path / "cache")
    yield made
    made.close()


def opened(url: str, remote: Remote, **how: Any) -> Scene:
    (source,) = find_sources([url], remote=lambda: remote)
    (scene,) = source.open(**how)
    return scene


def test_a_landsat_item_is_its_product(catalogue: Catalogue, remote: Remote) -> None:
    url = catalogue.serve("SR_stac.json", catalogue.item)
    (folder,) = open_source(catalogue.folder)
    with folder, opened(url, remote) as scene:
        assert (scene.id, scene.reader) == (L2SP, "landsat-c2-l2")
        assert (scene.time_us, scene.platform) == (folder.time_us, "landsat-8")
        assert scene.cloud == folder.cloud
        named = {asset.rpartition(".")[0] for asset in catalogue.item["assets"] if ".TIF" in asset}
        assert {band.info.name for band in scene.bands} == named
        assert scene.missing == tuple(
            band.info.name for band in folder.bands if band.info.name not in named
        )
        for band in scene.bands:
            other = folder.band(band.info.name)
            assert other is not None
            assert band.info == other.info
            path = catalogue.folder / f"{L2SP}_{band.info.name}.TIF"
            with rasterio.open(path) as plain:
                expected = plain.read(1)
            np.testing.assert_array_equal(band.source.read(0, 0, *expected.shape)[0], expected)
    asked = {Path(one.path).suffix for one in catalogue.server.asked}
    assert {".json", ".TIF"} <= asked <= {".json", ".TIF", ".txt", ".xml"}  # no pictures


def test_by_the_item_alone(catalogue: Catalogue, remote: Remote) -> None:
    """As a catalogue without the product's metadata has it: what the item says, as it says it."""
    with opened(catalogue.serve("x.json", catalogue.item), remote, reader="stac") as scene:
        assert (scene.id, scene.reader, scene.platform) == (L2SP, "stac", "landsat-8")
        day = datetime(2020, 10, 31, tzinfo=UTC)
        assert scene.time_us == int(day.timestamp()) * 1_000_000
        assert scene.time_end_us == scene.time_us + 86_400_000_000 - 1
        assert scene.properties["eo:cloud_cover"] == 99.94
        listed = catalogue.item["properties"]["eo:bands"]
        spectral = [band.info for band in scene.bands if band.info.common_name]
        assert [(info.name, info.common_name) for info in spectral] == [
            (one["name"], one["common_name"]) for one in listed
        ]
        assert [band.info.role.value for band in scene.bands] == ["data"] * 7 + ["quality"] * 3
        for band in scene.bands:
            with rasterio.open(catalogue.folder / f"{L2SP}_{band.info.name}.TIF") as plain:
                expected, nodata = plain.read(1), plain.nodata
            data, valid = band.source.read(0, 0, *expected.shape)
            np.testing.assert_array_equal(data, expected)
            is_valid = np.ones(expected.shape, bool) if valid is None else valid
            outside = np.zeros(expected.shape, bool) if nodata is None else expected == nodata
            np.testing.assert_array_equal(is_valid, ~outside)


@pytest.fixture(scope="module")
def both(
    catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Store, SceneResult, SceneResult]]:
    """The folder in one dataset, the item in another of the same grid."""
    folder = tmp_path_factory.mktemp("both")
    url = catalogue.serve("SR_stac.json", catalogue.item)
    how: dict[str, Any] = {"resolution": (600,), "length": 3, "cache": folder / "cache"}
    with geostore.open(folder / "store") as store:
        (plain,) = store.ingest([catalogue.folder], dataset="folder", **how)
        (item,) = store.ingest([url], dataset="item", **how)
        yield store, plain, item


def test_tiles_are_those_of_the_folder(
    both: tuple[Store, SceneResult, SceneResult], catalogue: Catalogue
) -> None:
    store, plain, item = both
    assert (plain.status, item.status) == ("ingested", "ingested")
    assert item.path == catalogue.server.url(f"/{L2SP}/SR_stac.json")
    bands = [f"SR_B{number}" for number in range(1, 8)] + ["QA_PIXEL"]
    folders = {tile.geocode: tile for tile in store.query(dataset="folder")}
    items = {tile.geocode: tile for tile in store.query(dataset="item")}
    assert set(items) == set(folders)
    assert len(items) == item.tiles > 1
    for geocode, tile in items.items():
        other = folders[geocode]
        assert (tile.time, tile.platform) == (other.time, other.platform)
        assert tile.cloud_cover == other.cloud_cover
        ours, theirs = tile.read(bands=bands), other.read(bands=bands)
        np.testing.assert_array_equal(ours.data, theirs.data)
        np.testing.assert_array_equal(ours.mask, theirs.mask)


def test_a_safe_behind_a_web_server_is_the_one_on_disk(
    shared_data: Path, catalogue: Catalogue, remote: Remote
) -> None:
    safe = shared_data / SAFE
    files = [path for path in safe.rglob("*") if path.is_file()]
    assets = {
        f"asset-{number}": {
            "href": catalogue.server.put(
                f"/products/{safe.name}/{path.relative_to(safe).as_posix()}", path.read_bytes()
            ),
            "type": "image/jp2" if path.suffix == ".jp2" else "application/xml",
        }
        for number, path in enumerate(files)
    }
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "whatever",
        "properties": {"datetime": "2018-01-01T10:54:41Z"},
        "assets": assets,
    }
    (local,) = open_source(safe)
    with local, opened(catalogue.serve("safe.json", item), remote) as scene:
        assert (scene.id, scene.reader) == (local.id, "sentinel-2-l1c")
        # Names and contents of all files used: a later ingest of either is `unchanged`.
        assert scene.fingerprint == local.fingerprint
        assert scene.missing == local.missing
        assert scene.properties["stac"]["id"] == "whatever"
