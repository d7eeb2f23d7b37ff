"""What stored numbers mean, and when they may meet."""

from __future__ import annotations

import numpy as np
import pytest

from geostore.errors import InvalidInputError
from geostore.types import BandInfo
from geostore.wrangle.radiometry import Radiometry, check_same_meaning, common_dtype


def info(scale: float = 1e-4, offset: float = 0.0, dtype: str = "uint16") -> BandInfo:
    return BandInfo(name="B04", dtype=dtype, nodata=0, scale=scale, offset=offset)


HARMONIZE, REFLECTANCE = Radiometry(harmonize=True), Radiometry(reflectance=True)


@pytest.mark.parametrize(
    ("dtypes", "together"),
    [
        (["uint8", "uint16"], "uint16"),
        (["uint16", "int16"], "int32"),
        (["uint16", "float32"], "float32"),
        (["uint32", "int32"], "int64"),
        (["float32", "float64"], "float64"),
    ],
)
def test_the_dtype_that_holds_all(dtypes, together) -> None:
    assert common_dtype([np.dtype(name) for name in dtypes], "bands") == together


@pytest.mark.parametrize("dtypes", [["int32", "float32"], ["uint64", "int64"]])
def test_no_silent_float64(dtypes) -> None:
    with pytest.raises(InvalidInputError, match=", ".join(sorted(dtypes))):
        common_dtype([np.dtype(name) for name in dtypes], "bands")


def test_different_offsets_do_not_meet_as_stored() -> None:
    old, new = info(), info(offset=-0.1)
    with pytest.raises(InvalidInputError, match="harmonize=True or reflectance=True"):
        check_same_meaning("B04", [old, new], Radiometry())
    check_same_meaning("B04", [old, new], HARMONIZE)
    check_same_meaning("B04", [old, new], REFLECTANCE)
    check_same_meaning("B04", [new, new], Radiometry())


def test_different_scales_need_reflectance() -> None:
    with pytest.raises(InvalidInputError, match="they need reflectance=True"):
        check_same_meaning("red", [info(), info(scale=2.75e-5)], HARMONIZE)


def test_an_offset_that_is_no_whole_count_stays_as_stored() -> None:
    landsat = info(scale=2.75e-5, offset=-0.2)
    data = np.array([[7300, 8000]], np.uint16)
    assert not HARMONIZE.changes(landsat)
    assert HARMONIZE.apply(data.copy(), None, landsat).tolist() == data.tolist()
    assert HARMONIZE.meaning(landsat) == (2.75e-5, -0.2)
    check_same_meaning("red", [landsat, landsat], HARMONIZE)


@pytest.mark.parametrize(
    ("dtype", "offset", "stored", "expected"),
    [
        ("uint16", -1000, [0, 999, 1000, 65535], [0, 0, 0, 64535]),
        ("uint16", 1000, [0, 64535, 65535], [1000, 65535, 65535]),
        ("int16", -1000, [-32768, 0, 32767], [-32768, -1000, 31767]),
        ("int8", -200, [127, -128, 100], [-73, -128, -100]),
        ("float32", -1000, [0.5, 2000.0], [-999.5, 1000.0]),
    ],
)
def test_counts_stop_at_the_ends_of_the_dtype(dtype, offset, stored, expected) -> None:
    band = info(scale=1.0, offset=offset, dtype=dtype)
    data = np.array([stored], dtype)
    assert HARMONIZE.apply(data, None, band).tolist() == [expected]
    assert data.dtype == dtype


def test_an_offset_beyond_the_dtype_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="does not fit uint8"):
        HARMONIZE.apply(np.zeros((1, 1), np.uint8), None, info(1.0, -1000.0, "uint8"))


def test_no_valid_pixel_becomes_the_value_to_avoid() -> None:
    data = np.array([[0, 900, 1000, 1001, 1002]], np.uint16)
    valid = np.array([[False, True, True, True, True]])
    out = HARMONIZE.apply(data, valid, info(offset=-0.1), avoid=0)
    assert out.tolist() == [[0, 1, 1, 1, 2]]


def test_reflectance_rounds_once() -> None:
    data = np.array([[2**31 - 1, 123456789]], np.int32)
    band = info(scale=1e-9, offset=0.0, dtype="int32")
    expected = (data.astype(np.float64) * 1e-9).astype(np.float32)
    np.testing.assert_array_equal(REFLECTANCE.apply(data, None, band), expected)
