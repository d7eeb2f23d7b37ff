"""Items with anything in place of anything: a scene, or an error of ours that names the item.

STAC_ITEMS=20000 tries more than the few of every run.
"""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geostore.errors import GeostoreError
from geostore.scenes import Remote, find_sources

ITEMS = int(os.environ.get("STAC_ITEMS", "60"))
ANYTHING: tuple[Any, ...] = (
    None, True, False, 0, -1, 3, 2**70, 0.5, float("nan"), float("inf"), "", "x", "nan", "a/b",
    "\x00", "\ud800", "é" * 300, "2022-05-01", "file:///etc/passwd", "s3://b", "[", [], [None],
    [[]], [{}], {}, {"name": 1}, {"value": "x"}, [{"value": 8, "name": "cloud"}], ["cloud"],
)  # fmt: skip
ITEM: dict[str, Any] = {
    "type": "Feature",
    "stac_version": "1.0.0",
    "id": "item",
    "collection": "sentinel-2-l2a",
    "links": [{"rel": "next", "href": "x"}, {"rel": "self", "href": "y"}],
    "properties": {
        "datetime": "2022-05-01T10:30:00Z",
        "start_datetime": "2022-05-01",
        "end_datetime": "2022-05-02",
        "platform": "sentinel-2a",
        "eo:bands": [{"name": "B04", "common_name": "red"}],
        "eo:cloud_cover": 12.5,
    },
    "assets": {
        "red": {
            "href": "a.tif",
            "type": "image/tiff",
            "roles": ["data"],
            "gsd": 10,
            "title": "Red",
            "proj:transform": [10, 0, 0, 0, -10, 0],
            "eo:bands": [{"name": "B04", "common_name": "red"}, 0],
            "raster:bands": [{"nodata": 0, "scale": 0.1, "offset": 2, "unit": "1"}],
            "alternate": {"s3": {"href": "b.tif"}},
        },
        "scl": {
            "href": "b.tif",
            "type": "image/tiff",
            "bands": [
                {
                    "name": "SCL",
                    "nodata": 0,
                    "classification:classes": [
                        {"value": 8, "name": "cloud", "color_hint": "ffffff"}
                    ],
                    "classification:bitfields": [
                        {"name": "cloud", "offset": 3, "length": 1, "classes": [{"value": 1}]}
                    ],
                }
            ],
        },
    },
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path to a value in a document."""
    inner: list[tuple[Any, ...]] = []
    if isinstance(value, dict):
        inner = [place for key, one in value.items() for place in places(one, (*path, key))]
    elif isinstance(value, list):
        inner = [place for n, one in enumerate(value) for place in places(one, (*path, n))]
    return [path, *inner]


def mutated(seed: int) -> Any:
    """The item with one to three values replaced, removed or doubled."""
    chance = random.Random(seed)
    value: Any = copy.deepcopy(ITEM)
    for _ in range(chance.randint(1, 3)):
        path = chance.choice(places(value))
        if not path:
            continue
        holder = value
        for step in path[:-1]:
            holder = holder[step]
        doing = chance.random()
        if doing < 0.7:
            holder[path[-1]] = copy.deepcopy(chance.choice(ANYTHING))
        elif doing < 0.85:
            del holder[path[-1]]
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[path[-1]]))
        else:
            holder["again"] = copy.deepcopy(holder[path[-1]])
    return value


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_raster: Callable[..., Path]) -> Path:
    made = tmp_path_factory.mktemp("items")
    for name in ("a.tif", "b.tif"):
        write_raster(made / name, np.arange(256, dtype="uint8").reshape(1, 16, 16), nodata=0)
    return made


def test_items_with_anything_in_them(folder: Path, tmp_path: Path) -> None:
    remote = Remote.of({}, directory=tmp_path / "cache")
    remote.cache.store.sleep = lambda _: None
    scenes = errors = longest = 0
    for seed in range(ITEMS):
        (folder / "item.json").write_text(json.dumps(mutated(seed)))
        for found in find_sources(folder / "item.json", remote=lambda: remote):
            try:
                opened = found.open()
            except GeostoreError as error:
                errors += 1
                longest = max(longest, len(str(error)))
                continue
            except Exception as error:
                raise AssertionError(f"seed {seed}: {error!r}") from error
            scenes += len(opened)
            for scene in opened:
                json.dumps(scene.properties)
                scene.close()
    assert min(scenes, errors) > ITEMS / 10
    assert longest < 1500
