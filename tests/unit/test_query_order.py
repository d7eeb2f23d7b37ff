"""The total order, cursors and the merge of sorted streams."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import get_args

import numpy as np
import pytest

from geostore.errors import InvalidInputError
from geostore.index import CatalogEntry
from geostore.query import (
    Batches,
    Cursor,
    SortKey,
    count_until,
    limit_batches,
    merge_batches,
    order_key,
    sort_batch,
)
from geostore.types import RowBatch
from tests.synthetic_tiles import make_batch, make_entry

SORTS: tuple[SortKey | None, ...] = (None, *get_args(SortKey))


def _entries(count: int, seed: int) -> list[CatalogEntry]:
    rng = random.Random(seed)
    return [
        make_entry(
            rng.choice(["dqcjq", "dqcjr", "9q8yy", "dq"]),
            scene=rng.choice(["a", "ä", "Z", "z", "\U0001f6f0", "\uff5a"]),
            version=rng.choice(["v1", "v2", "v10"]),
            dataset=rng.choice(["s2", "l8", "S2"]),
            time_us=rng.choice([None, -5, 0, 7, 2**61]),
            cloud=rng.choice([None, 0.0, 12.5, 100.0]),
            coverage=rng.choice([0.0, 33.3, 100.0]),
        )
        for _ in range(count)
    ]


def _naive_key(entry: CatalogEntry, sort: SortKey | None) -> tuple[object, ...]:
    meta = entry.meta
    name = (sort or "time").removeprefix("-")
    value = {"time": meta.time_us, "cloud": meta.cloud_cover, "coverage": meta.pixel_coverage}[name]
    sign = -1 if (sort or "").startswith("-") else 1
    return (
        (value is None, 0 if value is None else sign * value),
        (meta.time_us is None, meta.time_us or 0),
        meta.dataset,
        meta.key.geocode,
        meta.key.scene,
        meta.key.version,
    )


def _names(batch: RowBatch) -> list[tuple[object, ...]]:
    return [
        (row.key, row.time, row.cloud_cover, row.pixel_coverage, row.dataset)
        for row in batch.rows()
    ]


@pytest.mark.parametrize("sort", SORTS)
def test_rows_sort_as_a_naive_sort_does(sort: SortKey | None) -> None:
    entries = [e for e in _entries(300, 1) if e.meta.time_us != 2**61]  # rows() needs a datetime
    expected = sorted(entries, key=lambda entry: _naive_key(entry, sort))
    assert _names(sort_batch(make_batch(entries), sort)) == _names(make_batch(expected))


@pytest.mark.parametrize("sort", SORTS)
def test_order_keys_compare_as_rows_do(sort: SortKey | None) -> None:
    batch = sort_batch(make_batch(_entries(200, 2)), sort)
    keys = [order_key(batch, i, sort) for i in range(len(batch))]
    assert keys == sorted(keys)
    for i in (0, 57, 199):
        assert count_until(batch, keys[i], sort) == sum(key <= keys[i] for key in keys)


GEOCODES = ["dq", "dqcjq", "dqcjqab", "9q8yyzzz", "9q8yyzzz0", "0320121032120312", "DQ", "d\0", "ü"]


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("seed", range(12))
def test_any_batch_sorts_as_its_order_keys_do(sort: SortKey | None, seed: int) -> None:
    """Equal texts as one object and as several; geocodes of any length and kind."""
    rng = random.Random(seed)
    some = rng.sample(GEOCODES, rng.randint(1, len(GEOCODES)))
    batch = make_batch(_entries(rng.choice([0, 1, 2, 90]), seed))
    for row in range(len(batch)):
        batch.geocode[row] = rng.choice(some)
        for column in (batch.scene, batch.dataset_id, batch.dataset, batch.version):
            if rng.random() < 0.4:
                column[row] = "".join([*column[row]])  # equal, another object
    keys = [order_key(batch, row, sort) for row in range(len(batch))]
    ordered = sort_batch(batch, sort)
    assert [order_key(ordered, row, sort) for row in range(len(batch))] == sorted(keys)
    expected = sorted(range(len(batch)), key=keys.__getitem__)
    assert ordered.row_id.tolist() == expected  # rows of one key stay as they lay


@pytest.mark.parametrize("sort", [None, "time", "-time", "cloud", "-cloud"])
def test_nulls_come_last_in_both_directions(sort: SortKey | None) -> None:
    entries = [
        make_entry("dq", time_us=None, cloud=None, scene="null"),
        make_entry("9q", time_us=5, cloud=5.0),
        make_entry("c2", time_us=1, cloud=1.0),
    ]
    assert sort_batch(make_batch(entries), sort).scene[-1] == "null"


@pytest.mark.parametrize("sort", SORTS)
def test_a_cursor_resumes_exactly_behind_its_row(sort: SortKey | None) -> None:
    entries = [make_entry(f"dqc{i % 7}", scene=f"s{i}", time_us=i % 3) for i in range(50)]
    batch = sort_batch(make_batch(entries), sort)
    for row in range(-1, len(batch), 7):
        cursor = Cursor.after(batch, sort, row=row)
        assert Cursor.from_text(cursor.to_text()) == cursor
        cursor.check_sort(sort)
        expected = len(batch) if row == -1 else row + 1
        assert count_until(batch, cursor.key, sort) == expected


def test_a_cursor_of_another_sort_is_refused() -> None:
    cursor = Cursor.after(make_batch([make_entry()]), "cloud")
    with pytest.raises(InvalidInputError, match="made for sort cloud, got a query with sort time"):
        cursor.check_sort(None)
    Cursor.after(make_batch([make_entry()]), None).check_sort("time")  # the same order


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "5", '["size", false, 0, false, 0, "", "", "", "", ""]', "[null]"]
)
def test_an_unreadable_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="cursor"):
        Cursor.from_text(text)


def test_a_cursor_with_the_wrong_types_is_refused() -> None:
    parts = json.loads(Cursor.after(make_batch([make_entry()])).to_text())
    for i in range(1, len(parts)):
        broken = [*parts[:i], None, *parts[i + 1 :]]
        with pytest.raises(InvalidInputError, match="cursor"):
            Cursor.from_text(json.dumps(broken))


def _pieces(batch: RowBatch, rng: random.Random) -> Iterator[RowBatch]:
    start = 0
    while start < len(batch):
        size = rng.randint(0, 9)
        yield batch.take(slice(start, start + size))
        start += size


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("limit", [None, 0, 1, 17, 1000])
def test_a_merge_gives_what_one_sort_gives(sort: SortKey | None, limit: int | None) -> None:
    rng = random.Random(3)
    whole = sort_batch(make_batch(_entries(120, 4)), sort)
    parts: list[list[int]] = [[], [], [], []]
    for position in range(len(whole)):
        parts[rng.randrange(3)].append(position)  # the last stream stays empty
    streams = [_pieces(whole.take(np.array(part, dtype=np.intp)), rng) for part in parts]
    merged = list(merge_batches(streams, sort, limit))
    assert all(len(batch) for batch in merged)
    found = [row for batch in merged for row in batch.row_id.tolist()]
    same_rows = [order_key(whole, i, sort) for i in range(len(whole))][:limit]
    by_id = {row: i for i, row in enumerate(whole.row_id.tolist())}
    assert [order_key(whole, by_id[row], sort) for row in found] == same_rows
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("limit", [None, 17, 1000])
def test_a_merge_of_streams_that_tell_their_end_tells_its_own(
    sort: SortKey | None, limit: int | None
) -> None:
    rng = random.Random(5)
    whole = sort_batch(make_batch(_entries(120, 6)), sort)

    def told(positions: list[int]) -> Batches:
        batches = [each for each in _pieces(whole.take(np.array(positions)), rng) if len(each)]
        return Batches((each, each is batches[-1]) for each in batches)

    parts: list[list[int]] = [[], [], []]
    for position in range(len(whole)):
        parts[rng.randrange(3)].append(position)
    silent = _pieces(whole.take(np.array(parts[2])), rng)  # one that never tells
    merged = merge_batches([told(parts[0]), told(parts[1]), silent], sort, limit)
    found = []
    for batch in merged:
        assert not merged.is_over or len(found) + len(batch) == min(limit or 120, 120)
        found += batch.row_id.tolist()
    same_rows = [order_key(whole, i, sort) for i in range(len(whole))][:limit]
    by_id = {row: i for i, row in enumerate(whole.row_id.tolist())}
    assert [order_key(whole, by_id[row], sort) for row in found] == same_rows

    all_tell = merge_batches([told(part) for part in parts], sort)
    ends = [(all_tell.is_over, len(batch)) for batch in all_tell]
    assert sum(rows for _, rows in ends) == 120
    assert [is_last for is_last, _ in ends] == [False] * (len(ends) - 1) + [True]


def test_short_answers_that_are_over_are_merged_at_once() -> None:
    batches = [make_batch([make_entry(cell, scene=cell)]) for cell in ("9q", "dq", "u0")]
    streams = [Batches(iter([(batch, True)])) for batch in batches]
    merged = merge_batches(streams)
    assert len(next(merged)) == 3
    assert merged.is_over
    assert list(merged) == []


def test_rows_that_are_final_do_not_wait_for_more() -> None:
    def of(cell: str) -> Iterator[RowBatch]:
        yield make_batch([make_entry(cell)])
        raise AssertionError("asked for more before what was final left")

    assert next(merge_batches([of("9q"), of("dq")])).geocode.tolist() == ["9q"]


def test_a_limit_reads_no_further_than_needed() -> None:
    batch = make_batch([make_entry(), make_entry("9q")])

    def endless() -> Iterator[RowBatch]:
        yield batch
        raise AssertionError("read past the limit")

    assert sum(len(each) for each in limit_batches(endless(), 2)) == 2
    assert list(limit_batches(endless(), 0)) == []
    assert sum(len(each) for each in merge_batches([endless()], None, 1)) == 1


def test_a_merge_of_nothing_is_nothing() -> None:
    assert list(merge_batches([])) == []
    assert list(merge_batches([[], []])) == []
