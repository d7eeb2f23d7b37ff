"""Cloud rules as values, and covers by histogram."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geostore.compute import cloud_cover, cloud_mask, likelihood_histogram
from geostore.errors import InvalidInputError
from geostore.types import CloudLayer, CloudRule, DatasetDefinition, likelihood_cover

A = DatasetDefinition(id="id-a", name="a", scheme="geohash", length=5, placement=3)


@pytest.mark.parametrize("threshold", [-1, 101, 50.5, "50", True])
def test_a_threshold_is_a_whole_percent(threshold: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"0\.\.100"):
        CloudRule("likelihood", threshold)


def test_a_rule_is_the_providers_or_a_likelihood() -> None:
    with pytest.raises(InvalidInputError, match="provider, likelihood"):
        CloudRule("labels")  # type: ignore[arg-type]
    assert [str(CloudRule()), str(CloudRule("likelihood", 40))] == ["provider", "likelihood >= 40"]


def test_a_definition_counts_the_changes_of_its_rule() -> None:
    forty = A.with_cloud_rule(CloudRule("likelihood", 40))
    assert (forty.cloud_changes, str(forty.cloud_rule)) == (1, "likelihood >= 40")
    assert forty.with_cloud_rule(CloudRule("likelihood", 40)) is forty
    back = forty.with_cloud_rule(CloudRule())
    assert (back.cloud_changes, back.cloud_rule) == (2, A.cloud_rule)
    for each in (A, forty, back):
        assert DatasetDefinition.from_json(each.to_json()) == each
    assert {each.pixel_fingerprint() for each in (A, forty, back)} == {A.pixel_fingerprint()}
    with pytest.raises(InvalidInputError, match="cloud_changes -1"):
        dataclasses.replace(A, cloud_changes=-1)


def test_a_definition_that_was_never_changed_is_written_as_before() -> None:
    assert "cloud_changes" not in A.to_json()


@given(
    likelihood=st.lists(st.integers(0, 255), max_size=40),
    seen=st.integers(0, 2**40),
    threshold=st.integers(0, 100),
)
def test_a_histograms_cover_is_that_of_its_pixels(
    likelihood: list[int], seen: int, threshold: int
) -> None:
    pixels = np.array([likelihood], dtype=np.uint8)
    valid = np.array([[bool(seen >> i & 1) for i in range(len(likelihood))]], dtype=np.bool_)
    mask = cloud_mask(pixels, CloudLayer("P", "likelihood", frozenset({threshold})))
    expected = cloud_cover(mask, valid)
    histogram = likelihood_histogram(pixels, valid)
    if histogram is None:
        assert expected is None
        histogram = (0,) * 101
    (cover,) = likelihood_cover(np.array([histogram], dtype=np.uint64), threshold).tolist()
    assert cover == expected or (expected is None and np.isnan(cover))
