"""Rows of a catalog in order: piece by piece as in one sort, the first without the rest."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from geostore.index import Catalog, CatalogEntry, open_catalog, ordering
from geostore.query import Cursor, Query, SortKey, is_over, order_key, sort_batch
from geostore.types import RowBatch
from tests.synthetic_tiles import make_entry

SORTS: tuple[SortKey | None, ...] = (None, *get_args(SortKey))
ROWS = 1500


def _entries() -> Iterator[CatalogEntry]:
    """Rows of few values: many agree in time, dataset and cell, and are told apart by scene,
    version or the dataset's id alone.
    """
    rng = random.Random(12)
    keys = set()
    while len(keys) < ROWS:
        cell = rng.choice(["dqcjq", "dqcjr", "9q8yy", "u33db", "u33dc"])
        key = (cell, f"scene-{rng.randrange(300)}", rng.choice(["v1", "v10", "v2"]))
        if key in keys:
            continue
        keys.add(key)
        yield make_entry(
            cell,
            scene=key[1],
            version=key[2],
            dataset=rng.choice(["s2", "l8", "S2"]),
            dataset_id=rng.choice(["a", "b", None]),
            time_us=rng.choice([None, -5, 0, 7, 10**15]),
            cloud=rng.choice([None, 0.0, 12.5, 100.0]),
            coverage=rng.choice([0.0, 33.3, 100.0]),
        )


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    directory: Path = tmp_path_factory.mktemp("ordering") / "catalog"
    with open_catalog(directory, writable=True) as opened:
        opened.rebuild(_entries())
        yield opened


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that an answer of 1,500 rows comes as one of millions does."""
    monkeypatch.setattr(ordering, "FIRST_ROWS", 7)
    monkeypatch.setattr(ordering, "WHOLE_ROWS", 112)


def _keys(batches: list[RowBatch], sort: SortKey | None) -> list[object]:
    return [order_key(batch, i, sort) for batch in batches for i in range(len(batch))]


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("limit", [None, 0, 5, 119, 700, ROWS, ROWS + 1])
def test_pieces_are_one_sort(catalog: Catalog, sort: SortKey | None, limit: int | None) -> None:
    whole = sort_batch(RowBatch.concatenate(list(catalog.query(Query()))), sort)
    found = catalog.query(Query(sort=sort, limit=limit))
    batches, ends = [], []
    for batch in found:
        batches.append(batch)
        ends.append(is_over(found))
    assert _keys(batches, sort) == _keys([whole], sort)[:limit]
    assert ends == [False] * (len(batches) - 1) + [True] * bool(batches)


@pytest.mark.parametrize("sort", SORTS)
def test_pieces_behind_a_cursor_are_one_sort(catalog: Catalog, sort: SortKey | None) -> None:
    whole = sort_batch(RowBatch.concatenate(list(catalog.query(Query()))), sort)
    cursor = Cursor.after(whole, sort, row=333)
    assert (
        _keys(list(catalog.query(Query(sort=sort), after=cursor)), sort)
        == (_keys([whole], sort)[334:])
    )


def test_a_long_answer_begins_with_few_rows_and_grows(catalog: Catalog) -> None:
    sizes = [len(batch) for batch in catalog.query(Query())]
    assert sizes == [7, 28, 112, ROWS - 147]
    assert [len(batch) for batch in catalog.query(Query(), batch_rows=100)][:4] == [7, 28, 100, 12]
    assert [len(batch) for batch in catalog.query(Query(limit=112))] == [112]


def test_the_first_rows_do_not_wait_until_all_are_sorted(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def few(snapshot: object, positions: np.ndarray, sort: object) -> np.ndarray:
        assert len(positions) < ROWS
        return positions

    monkeypatch.setattr(ordering, "in_order", few)
    assert len(next(catalog.query(Query(sort="-cloud")))) == 7
