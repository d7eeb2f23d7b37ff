"""CONTRACT's predicates, one property a test."""

from __future__ import annotations

import numpy as np
import pytest

from geostore.grid import Region
from geostore.query import PercentRange, Query, matching
from geostore.types import BBox, TimeSpan
from tests.synthetic_tiles import QUAD_SCHEMA, SCHEMA, make_batch, make_entry


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ((100, 200), True),
        ((0, 99), False),
        ((0, 100), True),  # ends where the tile begins: closed intervals touch
        ((200, 300), True),
        ((201, 300), False),
        ((150, 150), True),
        ((0, 1000), True),
        ((None, 100), True),
        ((None, 99), False),
        ((200, None), True),
        ((201, None), False),
        ((None, None), True),
    ],
)
def test_a_time_matches_when_the_intervals_overlap(
    span: tuple[int | None, int | None], expected: bool
) -> None:
    batch = make_batch([make_entry(time_us=100, time_end_us=200)])
    assert matching(batch, Query(time=TimeSpan(*span))).tolist() == [expected]


def test_no_time_matches_no_time_predicate() -> None:
    batch = make_batch([make_entry(time_us=None), make_entry(time_us=0)])
    assert matching(batch, Query(time=TimeSpan(None, None))).tolist() == [False, True]
    assert matching(batch, Query()).tolist() == [True, True]


def test_a_tile_without_an_end_is_an_instant() -> None:
    batch = make_batch([make_entry(time_us=100)])
    batch.time_end_us[0] = np.iinfo(np.int64).min
    assert matching(batch, Query(time=TimeSpan(100, 100))).all()
    assert not matching(batch, Query(time=TimeSpan(101, None))).any()


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((None, 20), [True, True, False, False]),
        ((20, None), [False, True, True, False]),
        ((20, 20), [False, True, False, False]),
        ((None, None), [True, True, True, False]),
        ((0, 100), [True, True, True, False]),
    ],
)
def test_cloud_ranges_are_inclusive_and_never_match_null(
    bounds: tuple[float | None, float | None], expected: list[bool]
) -> None:
    batch = make_batch([make_entry(cloud=value) for value in (0.0, 20.0, 100.0, None)])
    assert matching(batch, Query(cloud=PercentRange(*bounds))).tolist() == expected


@pytest.mark.parametrize("value", [95.0, 33.3, 0.1, 100.0, 66.66666666666667])
def test_a_bound_matches_the_float32_that_was_stored_for_it(value: float) -> None:
    # float32(33.3) is above 33.3 and float32(0.1) too: compared as float64, neither range
    # [.., value] nor [value, ..] would hold both.
    batch = make_batch([make_entry(coverage=value)])
    for bounds in (PercentRange(value, None), PercentRange(None, value)):
        assert matching(batch, Query(coverage=bounds)).all()


def test_bands_must_all_be_there_by_either_name() -> None:
    batch = make_batch([make_entry(), make_entry(schema=QUAD_SCHEMA)])
    for bands, expected in (
        (("red", "nir"), [True, True]),
        (("B04", "nir"), [True, False]),
        (("SR_B4",), [False, True]),
        (("B04", "B99"), [False, False]),
        ((), [True, True]),
    ):
        assert matching(batch, Query(bands=bands)).tolist() == expected


def test_geocodes_match_as_prefix_or_exactly() -> None:
    batch = make_batch([make_entry(code) for code in ("dqcjq", "dqc", "dq", "9q")])
    assert matching(batch, Query(geocode="dqc")).tolist() == [True, True, False, False]
    exact = Query(geocode="dqc", recursive=False)
    assert matching(batch, exact).tolist() == [False, True, False, False]


def test_names_match_exactly() -> None:
    batch = make_batch(
        [make_entry(dataset="a"), make_entry(dataset="b", scene="other", platform=None)]
    )
    assert matching(batch, Query(datasets=("a", "c"))).tolist() == [True, False]
    assert matching(batch, Query(scene="other")).tolist() == [False, True]
    assert matching(batch, Query(platform="sentinel-2a")).tolist() == [True, False]


def test_places_match_by_cell_and_scheme() -> None:
    cells = [make_entry("0", schema=SCHEMA), make_entry("0", schema=QUAD_SCHEMA)]
    # Geohash 0 is the far south west, quadtile 0 the north west.
    region = Region.from_bbox(BBox(-170.0, 10.0, -169.0, 11.0))
    assert matching(make_batch(cells), Query(region=region)).tolist() == [False, True]


def test_all_predicates_must_hold() -> None:
    batch = make_batch([make_entry(cloud=5.0), make_entry(cloud=50.0), make_entry("9q8yy")])
    query = Query(cloud=PercentRange(None, 20), geocode="dq")
    assert matching(batch, query).tolist() == [True, False, False]
