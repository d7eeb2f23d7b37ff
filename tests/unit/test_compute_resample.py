"""Arrays at another pixel size, against models that loop over pixels."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geostore.compute.resample import nearest, resample, valid_mean


def naive_mean(data, valid, shape, fill):
    """Exact area-weighted mean of valid pixels, in fractions."""
    height, width = data.shape
    out = np.empty(shape, data.dtype)
    known = np.zeros(shape, bool)
    for i in range(shape[0]):
        for j in range(shape[1]):
            total = weight = Fraction(0)
            for r in range(height):
                down = min(Fraction((i + 1) * height, shape[0]), r + 1) - max(
                    Fraction(i * height, shape[0]), r
                )
                for c in range(width):
                    across = min(Fraction((j + 1) * width, shape[1]), c + 1) - max(
                        Fraction(j * width, shape[1]), c
                    )
                    if down > 0 and across > 0 and valid[r, c]:
                        total += down * across * int(data[r, c])
                        weight += down * across
            known[i, j] = weight > 0
            out[i, j] = round(total / weight) if weight else fill
    return out, known


@given(st.data())
def test_mean_is_the_area_weighted_mean_of_valid_pixels(data) -> None:
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    shape = (data.draw(st.integers(1, height)), data.draw(st.integers(1, width)))
    numbers = data.draw(st.lists(st.integers(0, 65535), min_size=81, max_size=81))
    pixels = np.array(numbers[: height * width], np.uint16).reshape(height, width)
    flags = data.draw(st.lists(st.booleans(), min_size=81, max_size=81))
    valid = np.array(flags[: height * width]).reshape(height, width)
    means, known = valid_mean(pixels, valid, shape, fill=7)
    expected, expected_known = naive_mean(pixels, valid, shape, 7)
    np.testing.assert_array_equal(np.ones(shape, bool) if known is None else known, expected_known)
    # Ties may fall either way where weights are no binary fractions: one count.
    assert np.abs(means.astype(int) - expected.astype(int)).max() <= 1
    if height % shape[0] == 0 and width % shape[1] == 0 and valid.all():
        halves = np.abs(means.astype(int) - expected.astype(int))
        assert not halves.any()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_nearest_is_the_pixel_under_the_centre(height, width, rows, columns) -> None:
    pixels = np.arange(height * width).reshape(height, width)
    picked = nearest(pixels, (rows, columns))
    for i in {0, rows // 2, rows - 1}:
        for j in {0, columns // 3, columns - 1}:
            row = Fraction((2 * i + 1) * height, 2 * rows)
            column = Fraction((2 * j + 1) * width, 2 * columns)
            assert picked[i, j] == pixels[int(row), int(column)]


def test_a_window_of_whole_pixels_is_resampled_as_in_the_whole() -> None:
    pixels = np.random.default_rng(1).integers(0, 9999, (60, 60)).astype(np.uint16)
    whole, _ = valid_mean(pixels, None, (36, 36), fill=0)
    part, _ = valid_mean(pixels[:20, 40:], None, (12, 12), fill=0)
    np.testing.assert_array_equal(part, whole[:12, 24:])


def test_means_of_integers_round_half_to_even_and_stay_integers() -> None:
    pixels = np.array([[0, 1, 1, 2]], np.uint8)
    means, known = valid_mean(pixels, None, (1, 2), fill=0)
    assert means.dtype == np.uint8
    assert means.tolist() == [[0, 2]]
    assert known is None


def test_invalid_pixels_never_reach_a_mean() -> None:
    pixels = np.array([[np.nan, 2.0], [np.inf, 4.0]], np.float32)
    valid = np.isfinite(pixels)
    means, known = valid_mean(pixels, valid, (1, 1), fill=0)
    assert means.tolist() == [[3.0]]
    assert known.all()


def test_a_value_of_64_bits_does_not_wrap() -> None:
    pixels = np.full((2, 2), np.iinfo(np.uint64).max)
    means, _ = valid_mean(pixels, None, (1, 1), fill=0)
    assert means[0, 0] > 2**63


def test_an_infinity_stays_in_its_own_pixel() -> None:
    pixels = np.ones((1, 6))
    pixels[0, 5] = np.inf
    means, _ = valid_mean(pixels, None, (1, 4), fill=0)
    assert np.isfinite(means[0, :3]).all()
    assert np.isinf(means[0, 3])


@pytest.mark.parametrize("method", ["nearest", "mean"])
def test_going_finer_repeats_whatever_the_method(method) -> None:
    pixels = np.array([[1, 2]], np.int16)
    valid = np.array([[True, False]])
    data, known = resample(pixels, valid, (2, 4), method=method, fill=0)
    assert data.tolist() == [[1, 1, 2, 2]] * 2
    assert known.tolist() == [[True, True, False, False]] * 2


def test_the_same_shape_is_a_copy() -> None:
    pixels = np.zeros((2, 2), np.uint8)
    data, known = resample(pixels, None, (2, 2), method="mean", fill=0)
    assert known is None
    assert not np.shares_memory(data, pixels)
