"""Summary keys as users write them, and the bounds of summaries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from geostore.errors import InvalidInputError
from geostore.query import Query, Summary, SummaryKey, check_summarised, keys_from, summary
from geostore.query.summary import FIXED_ONE, fixed_percent
from tests.summary_model import groups_of, summary_of
from tests.synthetic_tiles import make_batch, make_entry


def test_keys_are_read_as_they_are_written() -> None:
    assert [str(key) for key in keys_from("month")] == ["month"]
    assert [str(key) for key in keys_from(("dataset", "geocode:12"))] == ["dataset", "geocode:12"]
    assert keys_from(SummaryKey("scene")) == (SummaryKey("scene"),)
    assert SummaryKey.parse("geocode:26") == SummaryKey("geocode", 26)
    assert SummaryKey.parse("geocode:2").fields == ("geocode", "scheme")


@pytest.mark.parametrize(
    "by",
    [
        "week",
        "",
        "geocode",
        "geocode:",
        "geocode:0",
        "geocode:27",
        "geocode:-1",
        "geocode:1.5",
        "geocode:\u0663",
        "geocode:" + "9" * 5000,
        "month:2",
        " month",
        ("dataset", "weeks"),
        ("dataset", 3),
        3,
        None,
        [["month"]],
    ],
)
def test_a_wrong_key_is_named_with_the_right_ones(by: Any) -> None:
    with pytest.raises(InvalidInputError, match="expected one of dataset, month, year") as caught:
        keys_from(by)
    assert len(str(caught.value)) < 400
    assert "geocode:N" in str(caught.value)


def test_no_key_and_one_twice_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="got no key"):
        keys_from(())
    with pytest.raises(InvalidInputError, match="by month, dataset, month: month is there twice"):
        keys_from(("month", "dataset", "month"))
    with pytest.raises(InvalidInputError, match="geocode is there twice"):
        keys_from(("geocode:1", "geocode:2"))
    with pytest.raises(InvalidInputError, match="is there twice"):
        keys_from("month" for _ in iter(int, 1))  # without end
    for wrong in (("geocode", None), ("geocode", 0), ("geocode", True), ("month", 2), ("week",)):
        with pytest.raises(InvalidInputError, match="expected one of"):
            SummaryKey(*wrong)  # type: ignore[arg-type]


def test_neither_limit_nor_order_has_a_summary() -> None:
    check_summarised(Query(scene="a"))
    with pytest.raises(InvalidInputError, match="limit 0: a summary is of all tiles"):
        check_summarised(Query(limit=0))
    with pytest.raises(InvalidInputError, match="sort '-time': a summary is of all tiles"):
        check_summarised(Query(sort="-time"))


def test_percentages_are_summed_as_whole_numbers() -> None:
    values = np.array([0.0, 0.5, 100.0, np.nan, 33.3, 1e-12], dtype=np.float32)
    fixed = fixed_percent(values)
    assert fixed[:4].tolist() == [0, FIXED_ONE // 2, 100 * FIXED_ONE, 0]
    assert fixed[4] / FIXED_ONE == float(values[4])
    assert fixed[5] == 0


def test_sums_do_not_depend_on_the_order_as_floats_would() -> None:
    rng = np.random.default_rng(3)
    entries = [
        make_entry(cloud=cloud, scene=str(i)) for i, cloud in enumerate(rng.uniform(0, 100, 300))
    ]
    by = keys_from("dataset")
    whole = summary_of(make_batch(entries), by)
    for _ in range(5):
        rng.shuffle(entries)  # type: ignore[arg-type]
        parts = [summary_of(make_batch(entries[i::7]), by) for i in range(7)]
        assert Summary.merge(by, parts).mean("cloud_cover") == whole.mean("cloud_cover")


def test_a_bound_on_groups_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "GROUPS_MAX", 2)
    by = keys_from("scene")
    parts = [summary_of(make_batch([make_entry(scene=name)]), by) for name in "abba"]
    assert len(Summary.merge(by, parts)) == 2
    parts.append(summary_of(make_batch([make_entry(scene="c")]), by))
    with pytest.raises(InvalidInputError, match="by scene: more than 2 groups; take fewer"):
        Summary.merge(by, parts)


def test_summaries_by_other_keys_do_not_mix() -> None:
    part = summary_of(make_batch([make_entry()]), keys_from("scene"))
    with pytest.raises(InvalidInputError, match="not of one kind"):
        Summary.merge(keys_from("dataset"), [part])


def test_nothing_has_no_groups() -> None:
    by = keys_from(("geocode:2", "month"))
    assert groups_of(Summary.merge(by, [])) == groups_of(Summary.empty(by)) == {}
    assert list(Summary.empty(by).keys) == ["geocode", "scheme", "month"]
