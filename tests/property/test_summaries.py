"""Summaries against ones made by hand, of rows that are divided in any way."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from geostore.grid import scheme
from geostore.index import columns as index_columns
from geostore.index.aggregates import summarise
from geostore.index.columns import Columns, Snapshot
from geostore.query import Summary, SummaryKeys, keys_from
from geostore.rpc.summaries import groups_from_wire, groups_to_wire
from geostore.types import NULL_TIME, RowBatch
from tests.summary_model import expected_groups, groups_of, summary_of
from tests.synthetic_tiles import US_DAY, make_batch, make_entry, make_schema

SCHEMAS = (
    make_schema({"red": None}, length=4),
    make_schema({"red": None}, length=6),
    make_schema({"red": None}, scheme="quadtile", length=9),
)
KINDS = ("dataset", "month", "year", "day", "platform", "scene", "geocode")
PERCENTS = (0.0, 1e-9, 0.1, 4.9999995, 5.0, 33.3, 94.99999, 95.0, 99.99999, 100.0)
CENTURY_DAYS = 36_525


def random_rows(rng: random.Random, rows: int) -> RowBatch:
    entries = []
    for _ in range(rows):
        schema = rng.choice(SCHEMAS)
        lon, lat = rng.gauss(0, 2), rng.gauss(0, 2)  # where a digit of either scheme begins
        start = rng.choice((None, rng.randrange(-CENTURY_DAYS, CENTURY_DAYS) * US_DAY, -1, 0))
        length = rng.choice((0, 0, 7 * US_DAY, 365 * US_DAY))
        entries.append(
            make_entry(
                scheme(schema.scheme).encode(lon, lat, schema.length),
                scene=rng.choice(("a", "b", "\u65e5\u672c")),
                dataset=rng.choice(("s2", "l8")),
                schema=schema,
                time_us=start,
                time_end_us=None if start is None else start + length,
                platform=rng.choice((None, "sentinel-2a", "landsat-8")),
                coverage=rng.choice((*PERCENTS, rng.uniform(0, 100))),
                cloud=rng.choice((None, *PERCENTS, rng.uniform(0, 100))),
                size=rng.choice((1, 1_000_003, 2**40 + 1)),
            )
        )
    return make_batch(entries)


def random_keys(rng: random.Random) -> SummaryKeys:
    kinds = rng.sample(KINDS, rng.choice((1, 1, 2, 3, 7)))
    return keys_from([f"geocode:{rng.randint(1, 12)}" if k == "geocode" else k for k in kinds])


def in_columns(batch: RowBatch) -> Snapshot:
    """The rows as the catalog has them in memory."""
    columns = Columns()
    groups = []
    for i in range(len(batch)):
        row = {name: getattr(batch, name)[i] for name in index_columns.GROUP_COLUMNS}
        keyed: dict[str, Any] = {name: (value, value) for name, value in row.items()}
        keyed["schema"] = (row["schema"].digest, row["schema"])
        groups.append(columns.groups.add(keyed, row["schema"].scheme))
    numbers = np.array(groups, dtype=np.int32)
    block = {
        "row_id": batch.row_id,
        "group": numbers,
        **columns.cell_columns(numbers, batch.geocode.astype(np.bytes_)),
        **index_columns.time_columns(batch.time_us, batch.time_end_us),
        **{name: getattr(batch, name) for name in ("pixel_coverage", "cloud_cover", "bytes")},
        "provider_cover": batch.cloud_cover,
        **dict.fromkeys(("details_segment", "details_offset", "details_bytes"), numbers * 0),
    }
    columns.append(block)
    return columns.snapshot()


@cache
def store_of(seed: int) -> tuple[RowBatch, Snapshot]:
    rng = random.Random(seed)
    batch = random_rows(rng, rng.choice((1, 2, 60)))
    return batch, in_columns(batch)


@settings(max_examples=200)
@given(seed=st.integers(0, 19), choice=st.integers(0, 2**32))
def test_columns_are_summed_up_as_by_hand(seed: int, choice: int) -> None:
    rng = random.Random(choice)
    batch, snapshot = store_of(seed)
    by = random_keys(rng)
    chosen = np.array(sorted(rng.sample(range(len(batch)), rng.randint(0, len(batch)))), np.intp)
    found, expected = summarise(snapshot, chosen, by), expected_groups(batch.take(chosen), by)
    assert groups_of(found) == expected
    assert list(groups_of(found)) == list(expected)  # the order too


@settings(max_examples=200)
@given(seed=st.integers(0, 19), choice=st.integers(0, 2**32))
def test_invariant_2_merging_any_division_gives_the_whole(seed: int, choice: int) -> None:
    rng = random.Random(choice)
    batch, snapshot = store_of(seed)
    by = random_keys(rng)
    parts_total = rng.randint(1, 5)
    owners = np.array([rng.randrange(parts_total) for _ in range(len(batch))])
    parts = [summarise(snapshot, np.flatnonzero(owners == part), by) for part in range(parts_total)]
    rng.shuffle(parts)
    cut = rng.randrange(parts_total + 1)
    halves = [Summary.merge(by, parts[:cut]), Summary.merge(by, parts[cut:])]
    whole = summarise(snapshot, np.arange(len(batch)), by)
    for merged in (Summary.merge(by, parts), Summary.merge(by, halves)):
        assert groups_of(merged) == groups_of(whole)
        assert list(groups_of(merged)) == list(groups_of(whole))
        for measure in ("cloud_cover", "pixel_coverage"):
            np.testing.assert_array_equal(merged.mean(measure), whole.mean(measure))


@settings(max_examples=100)
@given(seed=st.integers(0, 19), choice=st.integers(0, 2**32))
def test_a_summary_crosses_the_wire_in_any_pieces(seed: int, choice: int) -> None:
    rng = random.Random(choice)
    by = random_keys(rng)
    whole = summary_of(store_of(seed)[0], by)
    size = rng.randint(1, len(whole))
    pieces = [whole.take(slice(start, start + size)) for start in range(0, len(whole), size)]
    read = [groups_from_wire(groups_to_wire(piece), by) for piece in pieces]
    assert groups_of(Summary.merge(by, read)) == groups_of(whole)


def test_the_rows_that_are_made_have_all_there_is() -> None:
    batch = random_rows(random.Random(1), 300)
    assert (batch.time_us == NULL_TIME).any()
    assert np.isnan(batch.cloud_cover).any()
    assert len({schema.scheme for schema in batch.schema}) == 2
