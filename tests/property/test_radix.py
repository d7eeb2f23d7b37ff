"""The radix trie, and tables of cells over it, against pygtrie and brute force."""

from __future__ import annotations

import math
import random

import numpy as np
import pygtrie
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geostore.errors import InternalError, InvalidInputError
from geostore.grid import Region, scheme
from geostore.index import cell_table
from geostore.index.cell_table import (
    CLOUD,
    END,
    FIELDS,
    LEAST,
    MOST,
    POSITION,
    ROW,
    START,
    UNKNOWN,
    Bounds,
    CellTable,
    cell_boxes,
    percent_code,
    percent_codes,
)
from geostore.index.geocodes import packing_of
from geostore.index.radix import RadixTrie
from geostore.types import BBox, SchemeName

SCHEMES: tuple[SchemeName, ...] = ("geohash", "quadtile")


@st.composite
def geocodes(draw: st.DrawFn) -> tuple[SchemeName, list[str]]:
    """Some geocodes of one scheme, of mixed lengths, many of them near each other."""
    name = draw(st.sampled_from(SCHEMES))
    grid = scheme(name)
    digit = st.sampled_from(grid.alphabet)
    stems = draw(st.lists(st.text(digit, max_size=grid.length_max - 1), min_size=1, max_size=4))
    texts = []
    for _ in range(draw(st.integers(0, 40))):
        stem = draw(st.sampled_from(stems))
        text = stem + draw(st.text(digit, max_size=3))
        texts.append((text or draw(digit))[: grid.length_max])
    return name, texts


def _trie(name: SchemeName, texts: list[str], bucket: int = 1) -> RadixTrie:
    packing = packing_of(name)
    packed = packing.pack_many(np.array(texts, dtype=f"S{packing.grid.length_max}"))
    return RadixTrie(packing, np.sort(packed), bucket=bucket)


@given(geocodes())
def test_packed_geocodes_sort_and_read_as_their_texts(case: tuple[SchemeName, list[str]]) -> None:
    name, texts = case
    packing = packing_of(name)
    trie = _trie(name, texts)
    assert packing.unpack(trie.keys).tolist() == sorted(texts)
    assert [packing.pack(text) for text in sorted(texts)] == trie.keys.tolist()


@given(geocodes(), st.data(), st.sampled_from([1, 3, 64]))
def test_the_trie_answers_as_pygtrie(
    case: tuple[SchemeName, list[str]], data: st.DataObject, bucket: int
) -> None:
    name, texts = case
    trie = _trie(name, texts, bucket)
    trie.check()
    model = pygtrie.CharTrie()
    for text in texts:
        model[text] = texts.count(text)
    digit = st.sampled_from(scheme(name).alphabet)
    prefix = data.draw(st.one_of(st.sampled_from(texts or ["0"]), st.text(digit, min_size=1)))
    prefix = prefix[: data.draw(st.integers(1, max(1, len(prefix))))][: scheme(name).length_max]
    expected = sum(model.values(prefix)) if model.has_node(prefix) else 0
    assert trie.count(prefix) == expected
    assert trie.count(prefix, recursive=False) == texts.count(prefix)
    first, end = trie.range(prefix)
    assert packing_of(name).unpack(trie.keys[first:end]).tolist() == sorted(
        text for text in texts if text.startswith(prefix)
    )
    shared = [len(prefix[:i]) for i in range(len(prefix) + 1) if i and model.has_node(prefix[:i])]
    assert trie.longest_prefix(prefix) == prefix[: max(shared, default=0)]


def test_a_shorter_geocode_does_not_lie_under_its_own_zeros() -> None:
    trie = _trie("geohash", ["0", "00", "000", "01"])
    assert (trie.count("00"), trie.count("0"), trie.count("00", recursive=False)) == (2, 4, 1)


@given(geocodes(), st.integers(0, 5000), st.sampled_from([1, 3, 64]))
def test_a_walk_takes_every_cell_that_matches_and_asks_of_few(
    case: tuple[SchemeName, list[str]], seed: int, bucket: int
) -> None:
    name, texts = case
    rng = random.Random(seed)
    grid = scheme(name)
    trie = _trie(name, texts, bucket)
    west, south = rng.uniform(-180, 170), rng.uniform(-80, 70)
    region = Region.from_bbox(
        BBox(west, south, west + rng.uniform(0.1, 10), south + rng.uniform(0.1, 10))
    )
    if texts and rng.random() < 0.7:
        region = Region.from_bbox(grid.bounds(rng.choice(texts)[: rng.randint(1, 5)]))
    walk = trie.walk(
        lambda columns, rows, length: region.cells_relation(grid, columns, rows, length)
    )
    ordered = sorted(texts)
    whole = {at for start, end in walk.whole.tolist() for at in range(start, end)}
    unsure = {at for start, end in walk.unsure.tolist() for at in range(start, end)}
    assert not whole & unsure
    matching = {at for at, text in enumerate(ordered) if region.matches(grid, text)}
    assert whole <= matching <= whole | unsure


def test_a_region_is_never_expanded_to_cells_that_are_not_there() -> None:
    texts = ["9q8yy", "9q8yz", "dqcjq", *(f"dqcj{digit}" for digit in "01234567")]
    trie = _trie("geohash", texts, bucket=2)
    world = Region.from_bbox(BBox(-170, -80, 170, 80))
    tested = []
    trie.walk(
        lambda columns, rows, length: (
            tested.append((length, len(columns))) or np.ones(len(columns), np.int8)
        )
    )  # type: ignore[func-returns-value]
    assert sum(count for _, count in tested) <= 2 * len(texts)
    assert trie.walk(lambda c, r, n: world.cells_relation(scheme("geohash"), c, r, n)).tested < 15


def test_damage_is_found() -> None:
    trie = _trie("geohash", ["9q8yy", "9q8yz", "dqcjq", "dqcjr"])
    trie.keys[[0, 3]] = trie.keys[[3, 0]]
    with pytest.raises(InternalError, match="not sorted"):
        trie.check()
    trie = _trie("geohash", ["9q8yy", "9q8yz", "dqcjq", "dqcjr"])
    trie.depth[1] = 5
    with pytest.raises(InternalError, match="two prefixes"):
        trie.check()


@pytest.mark.parametrize("text", ["", "9a", "9Q", "9q8y9q8y9q8y9", "ä"])
def test_texts_that_are_no_geocodes_are_refused(text: str) -> None:
    packing = packing_of("geohash")
    with pytest.raises(InvalidInputError, match="geohash"):
        packing.pack(text)
    with pytest.raises(InvalidInputError, match="geohash"):
        packing.pack_many(np.array([text.encode()], dtype="S16"))
    assert packing.range_of(text) is None


# ---------------------------------------------------------------- tables of cells


def _table(name: SchemeName, length: int, rng: random.Random, rows: int) -> CellTable:
    grid = scheme(name)
    packing = packing_of(name)
    columns, bottom = grid.grid_size(length)
    column = np.array([rng.randrange(columns) for _ in range(rows)], np.int64)
    row = np.array([rng.randrange(bottom) for _ in range(rows)], np.int64)
    if rng.random() < 0.5:  # in a corner of the grid, where ranges end with the numbers
        column, row = columns - 1 - column % 7 % columns, row % 5 % bottom
    keys = grid.sort_keys(column, row, length) << np.uint64(packing.shift(length))
    records = np.zeros((rows, FIELDS), np.int64)
    records[:, 0], records[:, ROW], records[:, POSITION] = column, row, np.arange(rows)
    return CellTable(name, length, keys | np.uint64(length), records)


@given(
    st.sampled_from([("geohash", 1), ("geohash", 3), ("geohash", 4), ("geohash", 12)])
    | st.sampled_from([("quadtile", 1), ("quadtile", 5), ("quadtile", 26)]),
    st.integers(0, 10_000),
    st.sampled_from([0, 3, 300]),
)
def test_the_pieces_of_boxes_have_all_rows_of_the_boxes(
    grid_of: tuple[SchemeName, int], seed: int, rows: int
) -> None:
    name, length = grid_of
    rng = random.Random(seed)
    table = _table(name, length, rng, rows)
    table.trie.check()
    size = 10.0 ** rng.uniform(-7, 2.3)
    west, south = rng.uniform(-180, 180), rng.uniform(-85, 85)
    boxes = []
    for shift in range(rng.choice([1, 1, 2])):
        box = BBox(
            min(west + shift * size / 3, 179.9),
            south,
            min(west + size + shift, 180.0),
            min(south + size * rng.random(), 90.0),
        )
        if box.west < box.east and box.south < box.north:
            boxes += cell_boxes(name, length, Region.from_bbox(box))
    expected = {
        int(position)
        for column, row, *_, position in table.records.tolist()
        if any(w <= column <= e and t <= row <= b for w, e, t, b in boxes)
    }
    for enough in (0, 1024):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cell_table, "ENOUGH_ROWS", enough)
            stretches, count = table.near(boxes)
            records = table.rows_of(stretches, count)
        assert count == len(records) == len({int(at) for at in records[:, POSITION]})
        assert expected <= set(records[:, POSITION].tolist())
        edges = [edge for stretch in stretches for edge in stretch]
        assert edges == sorted(edges)


@given(st.integers(0, 10_000), st.sampled_from([0, 30, 400]), st.booleans())
def test_bounds_are_kept_however_many_rows_there_are(seed: int, rows: int, few: bool) -> None:
    rng = random.Random(seed)
    table = _table("geohash", 4, rng, rows)
    covers = np.array([rng.choice([math.nan, 0.0, -0.0, 20.0, 100.0]) for _ in range(rows)], "f4")
    table.records[:, CLOUD] = percent_codes(covers)
    times = [rng.choice([-(1 << 63), -5, 0, 5, (1 << 63) - 1]) for _ in range(rows)]
    table.records[:, START] = times
    table.records[:, END] = times
    low, high = rng.choice([(LEAST, 5), (-5, MOST), (0, 0), (-5, 0), (1 << 62, MOST)])
    least = rng.choice([None, 0.0, 20.0])
    code = LEAST if least is None else percent_code(least)
    bounds = Bounds([(START, LEAST, high), (END, low, MOST), (CLOUD, code, UNKNOWN - 1)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cell_table, "ENOUGH_ROWS", 0 if few else 1024)
        patch.setattr(cell_table, "FEW_ROWS", rng.choice([0, 1000]))
        kept = table.within(table.records, bounds)[:, POSITION].tolist()
    original = dict(zip(table.records[:, POSITION].tolist(), range(rows), strict=True))
    expected = [
        position
        for position, at in original.items()
        if low <= times[at] <= high and not math.isnan(covers[at]) and covers[at] >= (least or 0)
    ]
    assert kept == expected


@given(st.integers(0, 10_000))
def test_merged_tables_are_those_built_at_once(seed: int) -> None:
    rng = random.Random(seed)
    whole = _table("quadtile", 6, rng, 200)
    is_first = np.array([rng.random() < 0.7 for _ in range(200)])
    parts = [
        CellTable("quadtile", 6, whole.keys[mask], whole.records[mask])
        for mask in (is_first, ~is_first)
    ]
    keep = np.array([rng.random() < 0.8 for _ in range(200)])
    keep[parts[1].records[:, POSITION]] = True
    merged = parts[0].merged(parts[1].keys, parts[1].records, keep)
    merged.trie.check()
    kept = keep[whole.records[:, POSITION]]
    assert merged.keys.tolist() == whole.keys[kept].tolist()
    assert sorted(merged.records.tolist()) == sorted(whole.records[kept].tolist())
