"""Coverage counted to the pixel, under every cloud rule, of tiles with bitmaps and without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from geostore.api import Store
from geostore.backends import EmbeddedBackend, open_embedded, rebuild_embedded
from geostore.compute import block_bitmaps, percent_valid
from geostore.errors import InvalidInputError, NotFoundError
from geostore.index import open_catalog
from geostore.node.rebuilding import read_entry
from geostore.query import CoverageRequest, Query
from geostore.tiles import TilePixels, encode_tile
from geostore.types import BlockBitmaps, CloudLayer, EncodedTile
from tests.clouded_tiles import CELLS, LAYER, SIDE, A, pixels, quick_directory
from tests.clouded_tiles import make_tile as make_plain_tile

Maker = Callable[[str, str], EncodedTile]
SHAPE = (SIDE, SIDE)
SCENES = {"s1": CELLS[:4], "s2": CELLS[:4], "plain": CELLS[:2]}


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    with quick_directory(tmp_path) as quick:
        yield quick / "store"


def valid_of(scene: str, cell: str) -> np.ndarray:
    """Which pixels of B1 are made valid: the west, or the east, or some."""
    valid = np.zeros(SHAPE, bool)
    if scene == "s1":
        valid[:, :20] = True
    elif scene == "s2":
        valid[:, 18:] = True
    else:
        valid = np.random.default_rng(len(cell)).random(SHAPE) < 0.97
    return valid


def clear_of(
    scene: str, cell: str, *, threshold: int | None, unseen: tuple[int, ...]
) -> np.ndarray:
    """Known and no cloud, by the classes or by the likelihood; 7 may mean that nothing is known."""
    _, classes, likelihood = pixels(scene, cell)
    if threshold is None:
        return (classes != 0) & ~np.isin(classes, (8, 9, 10)) & ~np.isin(classes, unseen)
    if scene.startswith("plain"):
        return np.zeros(SHAPE, bool)
    return (classes != 0) & (likelihood < threshold)


def maker(*, has_bitmaps: bool, unseen: tuple[int, ...]) -> Maker:
    def make(scene: str, cell: str) -> EncodedTile:
        tile = make_plain_tile(A, scene, "v1", cell)
        valid = valid_of(scene, cell)
        data, classes, likelihood = pixels(scene, cell)
        known = classes != 0
        clear = clear_of(scene, cell, threshold=None, unseen=unseen)
        bitmaps = None
        if has_bitmaps:
            told = None if tile.meta.cloud_cover is None else clear
            bitmaps = block_bitmaps(valid, told, SHAPE, cloud_nodata=unseen)
        meta = replace(tile.meta, bitmaps=bitmaps, pixel_coverage=percent_valid(valid))
        count = len(meta.schema.bands)
        layers = [[data, classes, likelihood][:count]]
        masks = [[valid, known if known.any() else False, known if known.any() else False][:count]]
        return encode_tile(meta, TilePixels(data=layers, masks=masks))

    return make


def fill(directory: Path, make: Maker) -> EmbeddedBackend:
    backend = open_embedded(directory)
    backend.create_dataset(A)
    for scene, cells in SCENES.items():
        backend.begin_scene(A, scene, "v1", cells)
        tiles = [make(scene, cell) for cell in cells]
        backend.put_tiles(tiles)
        backend.commit_scene(A.id, scene, "v1", cells, bytes_total=1)
    return backend


def due(*, clear: bool, threshold: int | None, unseen: tuple[int, ...]) -> dict[str, float]:
    shares = {}
    for cell in sorted({cell for cells in SCENES.values() for cell in cells}):
        union = np.zeros(SHAPE, bool)
        for scene, cells in SCENES.items():
            if cell in cells:
                seen = valid_of(scene, cell)
                if clear:
                    seen = seen & clear_of(scene, cell, threshold=threshold, unseen=unseen)
                union |= seen
        shares[cell] = 100.0 * union.mean()
    return shares


# Values that say nothing are told by tiles with bitmaps alone.
@pytest.mark.parametrize(("has_bitmaps", "unseen"), [(True, ()), (True, (7,)), (False, ())])
@pytest.mark.parametrize("threshold", [None, 40])
@pytest.mark.parametrize("clear", [False, True])
def test_every_rule(
    directory: Path,
    *,
    has_bitmaps: bool,
    unseen: tuple[int, ...],
    threshold: int | None,
    clear: bool,
) -> None:
    with Store(fill(directory, maker(has_bitmaps=has_bitmaps, unseen=unseen))) as store:
        if threshold is not None:
            store.recloud("a", threshold=threshold)
        shares = due(clear=clear, threshold=threshold, unseen=unseen)
        found = {row.geocode: row.coverage for row in store.coverage(clear=clear, exact=True)}
        assert found == pytest.approx(shares)
        for target in {10.0, 60.0, *shares.values()} - {0.0}:
            for row in store.coverage(target=target, clear=clear):
                assert row.reached == (shares[row.geocode] >= target)
            for row in store.coverage(target=target, clear=clear, refine=False):
                assert row.coverage_min <= shares[row.geocode] + 1e-9
                assert row.coverage_max >= shares[row.geocode] - 1e-9
                assert row.reached in (None, shares[row.geocode] >= target)


def test_reading_stops_at_the_target(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles without bitmaps: the one that promises most is read, and no other."""
    backend = fill(directory, maker(has_bitmaps=False, unseen=()))
    read: list[str] = []
    whole = EmbeddedBackend._read_tile

    def note(self, key, indices):
        read.append(key.scene)
        return whole(self, key, indices)

    monkeypatch.setattr(EmbeddedBackend, "_read_tile", note)
    with Store(backend) as store:
        (row,) = store.coverage(target=98, geocode=CELLS[0], where=None)
        assert (row.reached, row.tiles, row.scenes) == (True, 3, ("plain", "s1", "s2"))
        assert read[0] == "plain"
        (row,) = store.coverage(target=60, scene="s1", geocode=CELLS[0])
        assert (row.coverage, row.reached) == (62.5, True)


def test_bitmaps_are_in_details_and_come_back_from_files(directory: Path) -> None:
    make = maker(has_bitmaps=True, unseen=(7,))
    expected: dict[str, BlockBitmaps | None] = {}
    with fill(directory, make) as backend:
        for batch in backend.query(Query(scene="s1")):
            for row in batch.rows():
                expected[row.geocode] = make("s1", row.geocode).meta.bitmaps
                assert backend.details(row.key).bitmaps == expected[row.geocode]
        assert backend.verify().problems == ()
        before = backend.coverage(Query(), CoverageRequest(target=95, windows=None)).groups
    rebuild_embedded(directory)
    with open_embedded(directory, mode="r") as backend:
        after = backend.coverage(Query(), CoverageRequest(target=95, windows=None)).groups
        assert after.lower.tolist() == before.lower.tolist()
        assert after.upper.tolist() == before.upper.tolist()


def test_verification_tells_of_bitmaps_that_the_file_does_not_have(directory: Path) -> None:
    fill(directory, maker(has_bitmaps=True, unseen=())).close()
    catalog = open_catalog(directory / "catalog", writable=True)
    entries = [read_entry(path) for path in sorted((directory / "tiles").rglob("*.zip"))]
    wrong = entries[0].meta.bitmaps
    assert wrong is not None
    meta = replace(entries[0].meta, bitmaps=replace(wrong, valid_any=bytes(32)))
    catalog.rebuild([replace(entries[0], meta=meta), *entries[1:]])
    catalog.close()
    with open_embedded(directory, mode="r") as backend:
        (problem,) = backend.verify().problems
    assert "bitmaps" in problem.message


def test_layers_agree() -> None:
    assert CloudLayer.parse(LAYER.method).values == LAYER.values


def test_what_cannot_be_asked(directory: Path) -> None:
    with Store(fill(directory, maker(has_bitmaps=True, unseen=()))) as store:
        with pytest.raises(InvalidInputError, match="aim"):
            store.coverage(aim=5)
        with pytest.raises(InvalidInputError, match="limit"):
            store.coverage(limit=5)
        with pytest.raises(InvalidInputError, match="target"):
            store.coverage(target=0)
        with pytest.raises(InvalidInputError, match="window"):
            store.coverage(window="2 weeks")
        with pytest.raises(NotFoundError, match="dataset"):
            store.coverage(dataset="b")
        assert "4 groups" in repr(store.coverage())
        assert len(store.coverage(scene="nothing")) == 0
        assert store.coverage(scene="nothing").to_pandas().empty
        (row,) = store.coverage(window=None, geocode=CELLS[3])
        assert (row.window_start, row.window_end, row.coverage) == (None, None, 100.0)
        (row,) = store.coverage(window="1M", origin="2016-01-12", geocode=CELLS[3])
        assert row.window_start is not None
        assert (row.window_start.month, row.window_start.day) == (1, 1)
        frame = store.coverage().to_pandas()
        assert frame["reached"].tolist() == [True] * 4
        assert str(frame["window_start"].dtype).endswith("UTC]")


def test_a_first_search_reads_a_few_details_at_a_time(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geostore.index.row_bitmaps.READ_BYTES", 1000)
    with fill(directory, maker(has_bitmaps=True, unseen=())) as backend:
        for _ in range(2):
            groups = backend.coverage(Query(), CoverageRequest(target=95, windows=None)).groups
            assert groups.tiles.tolist() == [3, 3, 2, 2]
