"""A tile's cloud cover is the percent of its cloud mask, whatever the dataset's rule.

Made-up tiles whose provider tells cloud by classes, by bits or by a likelihood go through the
descriptions that ingest makes and into a store; then rules change at random, and for every tile
the mask that a read applies is counted over the layer's own pixels.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import geostore
from geostore.api.reclouding import recloud, rule_of
from geostore.api.store import Store
from geostore.backends import open_embedded
from geostore.compute import cloud_cover, cloud_mask, likelihood_histogram
from geostore.tiles import TilePixels, encode_tile, make_schema
from geostore.types import (
    BandInfo,
    BandRole,
    BitField,
    BitTest,
    CloudLayer,
    EncodedTile,
    TileKey,
    TileMeta,
)
from tests.clouded_tiles import NUMBER, SIDE, A, quick_directory

CLASSES = CloudLayer("SCL", "classes", frozenset({3, 8, 9}))
BITS = CloudLayer("QA", "bits", tests=(BitTest(1, 1), BitTest(4, 5, frozenset({2, 3}))))
LIKELY = CloudLayer("P", "likelihood", frozenset({65}))
BANDS = {
    "SCL": BandInfo(name="SCL", dtype="uint8", nodata=0, role=BandRole.CLASS),
    "QA": BandInfo(
        name="QA", dtype="uint16", nodata=1, role=BandRole.QUALITY,
        bitfields=(BitField("cloud", 1),),
    ),
    "P": BandInfo(name="P", dtype="uint8", role=BandRole.LIKELIHOOD),
}  # fmt: skip
DATA = BandInfo(name="B1", dtype="uint16", nodata=0)
CELL = "dq8x0"
EXAMPLES = int(os.environ.get("GEOSTORE_TEST_RECLOUD_EXAMPLES", "6"))


def make_tile(seed: int, scene: str, provider: CloudLayer | None, *, likely: bool) -> EncodedTile:
    """A tile of random layers, described as `geostore.ingest.partition` does."""
    random = np.random.default_rng(seed)
    names = [*({provider.band} if provider else ()), *(["P"] if likely else ())]
    names = sorted(set(names))
    layers: list[Any] = [random.integers(1, 9, (SIDE, SIDE)).astype(np.uint16)]
    masks: list[Any] = [True]
    share = random.choice([0.0, 0.01, 0.5, 0.99, 1.0])
    for name in names:
        top = {"SCL": 12, "QA": 2**16, "P": 101}[name]
        layer = random.integers(0, top, (SIDE, SIDE)).astype(BANDS[name].dtype)
        known = random.random((SIDE, SIDE)) < share
        nodata = BANDS[name].nodata
        if nodata is not None:
            known &= layer != nodata
        layers.append(layer)
        masks.append(bool(known.all()) if known.all() or not known.any() else known)
    of = dict(zip(names, zip(layers[1:], masks[1:], strict=True), strict=True))
    cover = None
    if provider is not None:
        layer, known = of[provider.band]
        cover = cloud_cover(cloud_mask(layer, provider), known)
    meta = TileMeta(
        key=TileKey(A.id, scene, "v1", CELL),
        dataset=A.name,
        definition=A.to_json(),
        schema=make_schema(
            "geohash", 5, "fast", [(A.groups[0], (DATA, *(BANDS[name] for name in names)))]
        ),
        time_us=0,
        time_end_us=0,
        platform=None,
        pixel_coverage=100.0,
        cloud_cover=cover,
        cloud_method=provider.method if provider is not None and cover is not None else None,
        cloud_histogram=likelihood_histogram(*of["P"]) if likely or "P" in of else None,
        statistics=(NUMBER,) * (1 + len(names)),
    )
    return encode_tile(meta, TilePixels(data=[layers], masks=[masks]))


def put(backend: Any, tile: EncodedTile) -> None:
    key = tile.meta.key
    backend.begin_scene(A, key.scene, "v1", [CELL])
    backend.put_tiles([tile])
    backend.commit_scene(A.id, key.scene, "v1", [CELL], bytes_total=len(tile.payload))


def masked(tile: Any) -> npt.NDArray[np.bool_]:
    """Where a read with the cloud mask leaves out what one without has: B1 is valid everywhere."""
    found: npt.NDArray[np.bool_] = ~tile.read("B1", cloud_mask=True).mask[0]
    return found


def check(tile: Any, rule: Sequence[Any], provider: CloudLayer | None) -> None:
    threshold = rule[0]
    bands = {band.name for band in tile.schema.bands}
    layer = "P" if threshold is not None else (provider.band if provider else None)
    if layer not in bands:
        assert tile.cloud_cover is None
        assert tile.cloud_method is None
        if "P" not in bands or tile.read("P").mask.any():
            with pytest.raises(geostore.errors.InvalidInputError, match="no band tells clouds"):
                tile.read("B1", cloud_mask=True)
        else:  # it may have been what told clouds, had it been known
            assert not masked(tile).any()
        return
    read = tile.read(layer)
    known, cloud = read.mask[0], masked(tile)
    assert not (cloud & ~known).any()
    if not known.any():
        assert tile.cloud_cover is None
        return
    assert tile.cloud_cover == float(np.float32(100.0 * cloud.sum() / known.sum()))
    if threshold is not None:
        np.testing.assert_array_equal(cloud, known & (read.data[0] >= threshold))
        assert tile.cloud_method == f"P >= {threshold}"
    elif provider is not None:
        assert tile.cloud_method == provider.method


def check_same_mask(was: Any, tile: Any) -> None:
    """A tile that was asked for under another rule is masked by the one that is in force."""
    try:
        due = masked(tile)
    except geostore.errors.InvalidInputError:
        with pytest.raises(geostore.errors.InvalidInputError, match="no band tells clouds"):
            masked(was)
    else:
        np.testing.assert_array_equal(masked(was), due)


PROVIDERS = (CLASSES, BITS, LIKELY, None)
RULES = st.one_of(
    st.just((None, "provider")), st.integers(0, 100).map(lambda percent: (percent, None))
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    kinds=st.lists(st.tuples(st.sampled_from(PROVIDERS), st.booleans()), min_size=1, max_size=5),
    rules=st.lists(RULES, min_size=1, max_size=4),
)
def test_covers_are_percents_of_masks(
    seed: int, kinds: list[tuple[CloudLayer | None, bool]], rules: list[tuple[Any, Any]]
) -> None:
    with (
        tempfile.TemporaryDirectory() as usual,
        quick_directory(Path(usual)) as directory,
        open_embedded(directory) as backend,
    ):
        backend.create_dataset(A)
        store = Store(backend)
        providers = {}
        for number, (provider, likely) in enumerate(kinds):
            scene = f"scene-{number}"
            providers[scene] = provider
            put(backend, make_tile(seed + number, scene, provider, likely=likely))
            threshold, method = rules[number % len(rules)]  # ingests and rules in turn
            recloud(backend, "a", rule_of(threshold, method))
        kept: list[Any] = []
        for rule in rules:
            store.recloud("a", threshold=rule[0], method=rule[1])
            tiles = list(store.query(dataset="a"))
            for tile in tiles:
                check(tile, rule, providers[tile.scene])
            for was, tile in zip(kept, tiles, strict=False):
                check_same_mask(was, tile)
            kept = tiles  # with what they were told under this rule
        assert backend.verify().problems == ()
