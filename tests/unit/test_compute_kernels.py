"""Statistics, coverage and clouds against their definitions, written out naively."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geostore.compute import (
    band_statistics,
    cloud_cover,
    cloud_mask,
    likelihood_histogram,
    pixel_coverage,
)
from geostore.types import CloudLayer

SHAPE = (5, 7)


def _naive_rank(values: list[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[max(1, math.ceil(percent * len(ordered) / 100)) - 1]


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]
)
@given(data=st.data())
def test_statistics_are_order_statistics_of_the_valid_pixels(dtype: str, data) -> None:
    elements = (
        {"allow_nan": False, "allow_infinity": False, "min_value": -1e6, "max_value": 1e6}
        if dtype.startswith("float")
        else None
    )
    pixels = data.draw(hnp.arrays(dtype, SHAPE, elements=elements))
    mask = data.draw(st.one_of(st.booleans(), hnp.arrays(bool, SHAPE)))
    got = band_statistics(pixels, mask)
    chosen = [float(v) for v in pixels[np.broadcast_to(mask, SHAPE)]]
    if not chosen:
        assert got.minimum is got.maximum is got.mean is got.p01 is got.p99 is None
        return
    assert (got.minimum, got.maximum) == (min(chosen), max(chosen))
    assert got.p01 == _naive_rank(chosen, 1)
    assert got.p99 == _naive_rank(chosen, 99)
    assert got.mean == pytest.approx(math.fsum(chosen) / len(chosen), rel=1e-12, abs=1e-9)


def test_coverage_needs_every_band_and_counts_finest_pixels() -> None:
    fine = np.ones((4, 4), bool)
    fine[0, 0] = False
    coarse = np.ones((2, 2), bool)
    coarse[1, 1] = False
    assert pixel_coverage([[fine, True], [coarse]], (4, 4)) == pytest.approx(100 * 11 / 16)
    assert pixel_coverage([[fine], [False]], (4, 4)) == 0.0
    assert pixel_coverage([[True], [True]], (4, 4)) == 100.0
    # A dataset's finest group may have no band in a scene.
    assert pixel_coverage([[coarse]], (4, 4)) == 75.0


def test_coverage_is_a_float32() -> None:
    mask = np.zeros((3, 3), bool)
    mask[0, 0] = True
    covered = pixel_coverage([[mask]], (3, 3))
    assert covered == float(np.float32(100 / 9))


def test_cloud_cover_counts_only_the_layers_own_valid_pixels() -> None:
    classes = np.array([[0, 8], [4, 9]], np.uint8)
    cloud = cloud_mask(classes, CloudLayer.parse("SCL 8,9,10"))
    assert cloud.tolist() == [[False, True], [False, True]]
    assert cloud_cover(cloud, classes != 0) == float(np.float32(200 / 3))
    assert cloud_cover(cloud, True) == 50.0
    assert cloud_cover(cloud, False) is None
    assert cloud_cover(cloud, np.zeros((2, 2), bool)) is None


def test_cloud_bits_and_likelihood() -> None:
    bits = np.array([[0b0000, 0b1000], [0b0100, 0b0011]], np.uint16)
    either = CloudLayer.parse("QA bits 2,3")
    assert cloud_mask(bits, either).tolist() == [[False, True], [True, False]]
    two_bits = CloudLayer.parse("QA bits 0-1=3,2-3=2")
    assert cloud_mask(bits, two_bits).tolist() == [[False, True], [False, True]]
    assert not cloud_mask(bits, CloudLayer.parse("QA bits 40")).any()
    signed = np.array([[-32768, 1]], np.int16)
    assert cloud_mask(signed, CloudLayer.parse("QA bits 15")).tolist() == [[True, False]]
    percent = np.array([[49, 50], [51, 100]], np.uint8)
    assert cloud_mask(percent, CloudLayer.parse("CLD >= 50")).tolist() == [
        [False, True],
        [True, True],
    ]


@given(hnp.arrays(np.uint8, SHAPE), hnp.arrays(bool, SHAPE))
def test_likelihood_histogram_counts_every_valid_pixel_once(likelihood, valid) -> None:
    histogram = likelihood_histogram(likelihood, valid)
    if not valid.any():
        assert histogram is None
        return
    assert histogram is not None
    assert len(histogram) == 101
    for percent in (0, 17, 99):
        assert histogram[percent] == int(((likelihood == percent) & valid).sum())
    assert histogram[100] == int(((likelihood >= 100) & valid).sum())
