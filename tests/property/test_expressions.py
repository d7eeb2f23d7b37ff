"""Expressions against a plain interpreter: evaluated, rewritten, bounded, sent as JSON."""

from __future__ import annotations

import json
import pickle
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from geostore.index import CatalogEntry
from geostore.query import (
    AllOf,
    AnyOf,
    Expression,
    InRegion,
    Not,
    OneOf,
    Query,
    RowFacts,
    TimeOverlaps,
    UnderGeocode,
    Within,
    conjuncts,
    dataset_bound,
    evaluate,
    implied,
    leaves,
    matching,
    simplified,
    time_bound,
)
from geostore.query.expression import Leaf, expression_from_json
from geostore.types import TimeSpan
from tests.expressions import random_expression, truth
from tests.synthetic_tiles import QUAD_SCHEMA, SCHEMA, make_batch, make_entry

RNG = random.Random(5)


def _made_up(number: int) -> CatalogEntry:
    start = RNG.choice((None, number * 100, 500))
    return make_entry(
        RNG.choice(("dqcjq", "dqcjr", "dq", "9q8yy")) if number % 3 else "0320011",
        scene=RNG.choice(("scene-1", "scene-2", "Szene ä")),
        dataset=RNG.choice(("s2", "l8")),
        schema=SCHEMA if number % 3 else QUAD_SCHEMA,
        time_us=start,
        time_end_us=None if start is None else start + RNG.choice((0, 300)),
        platform=RNG.choice((None, "sentinel-2a", "landsat-8")),
        coverage=RNG.choice((33.3, 95.0, 100.0)),
        cloud=RNG.choice((None, 0.0, 33.3, 20.0)),
        size=RNG.randrange(1, 1000),
    )


ENTRIES = [_made_up(number) for number in range(40)]
BATCH = make_batch(ENTRIES)
FACTS = RowFacts(BATCH)


@st.composite
def expressions(draw: st.DrawFn) -> Expression:
    return random_expression(draw(st.randoms(use_true_random=False)), ENTRIES)


@settings(max_examples=300)
@given(expressions())
def test_an_expression_matches_the_rows_it_is_true_of(expression: Expression) -> None:
    known = [truth(expression, entry) for entry in ENTRIES]
    assert evaluate(expression, FACTS).tolist() == [each is True for each in known]
    # What is false is what the negation is true of: the third value is told apart.
    assert evaluate(Not(expression), FACTS).tolist() == [each is False for each in known]
    assert matching(BATCH, Query(where=expression)).tolist() == [each is True for each in known]


@settings(max_examples=300)
@given(expressions())
def test_a_simplified_expression_means_the_same(expression: Expression) -> None:
    plain = simplified(expression)
    assert [truth(plain, entry) for entry in ENTRIES] == [truth(expression, e) for e in ENTRIES]
    _check_plain(plain)
    assert simplified(plain) == plain
    assert [truth(AllOf(conjuncts(plain)), entry) for entry in ENTRIES] == [
        truth(plain, entry) for entry in ENTRIES
    ]
    assert not any(isinstance(part, AllOf) for part in conjuncts(expression))


def _check_plain(expression: Expression) -> None:
    match expression:
        case Not(part):
            assert list(leaves(part)) == [part]
        case AllOf(parts) | AnyOf(parts):
            assert len(set(parts)) == len(parts) >= 2
            for part in parts:
                assert type(part) is not type(expression)
                _check_plain(part)


@settings(max_examples=200)
@given(expressions())
def test_an_expression_travels(expression: Expression) -> None:
    assert expression_from_json(json.loads(json.dumps(expression.to_json()))) == expression
    again = pickle.loads(pickle.dumps(expression))
    assert (again, hash(again), str(again)) == (expression, hash(expression), str(expression))
    query = Query(where=expression)
    assert Query.from_json(json.loads(json.dumps(query.to_json()))) == query


KINDS = (
    lambda leaf: True,
    lambda leaf: isinstance(leaf, InRegion | UnderGeocode),
    lambda leaf: isinstance(leaf, Within) and leaf.column == "cloud",
    lambda leaf: isinstance(leaf, OneOf | TimeOverlaps),
)


@settings(max_examples=300)
@given(expressions(), st.sampled_from(KINDS))
def test_what_an_expression_implies_holds_of_all_its_rows(expression: Expression, keeps) -> None:
    bound = implied(expression, keeps)
    if bound is None:
        return
    assert all(keeps(leaf) for leaf in leaves(bound))
    assert "not (" not in str(bound)
    for entry in ENTRIES:
        if truth(expression, entry):
            assert truth(bound, entry)


@settings(max_examples=300)
@given(expressions())
def test_bounds_of_dataset_and_time_hold_of_all_its_rows(expression: Expression) -> None:
    found = [entry for entry in ENTRIES if truth(expression, entry)]
    datasets, span = dataset_bound(expression), time_bound(expression)
    if datasets is not None:
        assert {entry.meta.dataset for entry in found} <= datasets
    if span is not None:
        assert all(truth(TimeOverlaps(span), entry) for entry in found)


def test_bounds_are_as_close_as_they_can_be() -> None:
    january, year = TimeSpan.parse("2016-01"), TimeSpan.parse("2016")
    first, other = OneOf("dataset", ("a", "b")), OneOf("dataset", ("b", "c"))
    cloud: Leaf = Within("cloud", None, 20)
    assert dataset_bound(first & other) == {"b"}
    assert dataset_bound(first | other) == {"a", "b", "c"}
    assert dataset_bound(first | cloud) is None
    assert dataset_bound(~~first) == {"a", "b"}
    assert dataset_bound(~first) is None
    assert time_bound(TimeOverlaps(january) & TimeOverlaps(year) & cloud) == january
    may = TimeSpan.parse("2016-05")
    assert time_bound(TimeOverlaps(january) | TimeOverlaps(may)) == TimeSpan(
        january.start_us, may.end_us
    )
    assert time_bound(TimeOverlaps(TimeSpan(None, 5)) | TimeOverlaps(TimeSpan(1, None))) == (
        TimeSpan(None, None)
    )
    assert time_bound(Within("time", 5, 9) & Within("bytes", 0, 1)) == TimeSpan(5, 9)
    assert implied(~(~first | cloud), lambda leaf: leaf == first) == first
